//! A state that is taken from another node while this one is stopped: does it belong to this node's log, and what is written down of it.

use std::{fs::File, io, path::Path};

use redb::backends::FileBackend;

use super::{
    codec::{self, Applied},
    error::{Fault, OpenError},
    ids::{GroupId, NodeId},
    log::{
        file::{self, Field, LoadError},
        group::next_index,
    },
    open::LOG_FILE,
};

/// Notes in the log in `dir` that the state of `group` is going to be another node's, of which that node's machine kept `theirs` for
/// consensus; returns what this node's machine is to keep. The groups of the node must not run.
///
/// # Errors
/// [`OpenError`]: nothing was changed, and that state does not belong to this log.
pub fn replace_state(dir: &Path, node: NodeId, group: GroupId, theirs: &[u8]) -> Result<Vec<u8>, OpenError> {
    let corrupt = |what: String| OpenError::Fault { group, fault: Fault::Corrupt { group, what }.into() };
    let load = |error| match error {
        LoadError::Log(error) => OpenError::Log(error),
        LoadError::Corrupt(fault) => OpenError::Fault { group, fault: fault.into() },
    };
    let io = |source: io::Error| OpenError::Io { doing: "opening the log file raft.redb", source };
    let backend = File::options().read(true).write(true).open(dir.join(LOG_FILE)).map_err(io)?;
    let backend = FileBackend::new(backend).map_err(|error| OpenError::Log(error.into()))?;
    let db = file::open(backend, 1 << 20).map_err(|error| OpenError::Log(error.into()))?;
    let record = file::read_node(&db)?.ok_or(OpenError::LogMissing { group })?;
    file::check_node(&record, node)?;
    let theirs = codec::decode_applied(theirs)
        .map_err(|error| corrupt(format!("what another node's state says of the log ({error})")))?;
    let stored = file::load(&db, group).map_err(load)?;
    let index = theirs.last.index();
    let purged = stored.purged.map(|id| id.index());
    if index < next_index(stored.purged.as_ref()).saturating_sub(1) {
        return Err(OpenError::StateBehindLog { group, applied: Some(index), purged: purged.unwrap_or_default() });
    }
    let here = file::entry_id(&db, group, index).map_err(load)?;
    let here = here.or(stored.purged.filter(|purged| purged.index() == index));
    if here.is_some_and(|here| here != theirs.last) {
        return Err(OpenError::Diverged { group, index });
    }
    // As when a snapshot is installed: that the state may pass the end of the log, stands in the log first.
    let txn = file::begin(&db).map_err(OpenError::Log)?;
    file::put_field(&txn, group, Field::Installing, &codec::encode_log_id(&theirs.last)).map_err(OpenError::Log)?;
    txn.commit().map_err(|error| OpenError::Log(error.into()))?;
    let Applied { last, membership, .. } = theirs;
    Ok(codec::encode_applied(&Applied { uid: record.uid, last, membership }))
}
