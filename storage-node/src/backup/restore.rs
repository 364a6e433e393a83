//! A node on a bare disk, begun from a backup: as the next incarnation of its logs, and by a record that the members signed.
//!
//! All nodes of a group begin from the same state – the record names it – at the same place of a new log, so that they are one group
//! from the first entry on. That place lies beyond every place that an earlier incarnation's log can have had: what a node says that
//! was begun without the backup is never taken for newer.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ehe::charter::{CharterChain, VerifiedCharter};
use ehe::checkpoint::Checkpoint;
use ehe::limits::RESTORATION_MAX_BYTES;
use ehe::note::Note;
use ehe::restoration::{Restoration, RestorationError, SignedRestoration, decode_all, encode_all};
use ehe::time::UnixMs;

use super::BackupError;
use super::chain::{Chain, Held};
use crate::charters;
use crate::config::Config;
use crate::consensus::{self, GroupId};
use crate::cosign::{CosignFile, Cosigned};
use crate::daemon::Placed;
use crate::node::raft_id;
use crate::shard::{Place, Store, StoreError};

/// Directory within the data directory in which a restore is prepared. While it is there, no node starts.
pub const STAGING: &str = "restoring";
/// In it, once everything is prepared: only names are left to be changed.
const PREPARED: &str = "prepared";
/// What the former is called in its last moment.
const DONE: &str = "restored";
/// Restorations of one shard's log at most.
const INCARNATIONS_MAX: u32 = 1 << 20;
/// Largest row of records in a shard's file.
pub const RESTORED_MAX_BYTES: usize = 64 << 20;

/// What the members are to sign: one record for each shard in the backup. `newest`: notes of newer checkpoints that somebody kept.
pub fn propose(
    chain: &Chain,
    charters: &[VerifiedCharter],
    newest: &[String],
    now: UnixMs,
) -> Result<Vec<SignedRestoration>, BackupError> {
    let version = charters.last().map_or(0, VerifiedCharter::version);
    let mut records = Vec::new();
    for held in chain.shards.values() {
        let Held { statement, checkpoint, proof, known, .. } = held;
        let origin = ehe::checkpoint::log_origin(statement.alliance, statement.shard, statement.incarnation);
        let of_it = |note: &&String| {
            let said = Note::parse(note).ok().and_then(|note| Checkpoint::parse(&note).ok());
            said.filter(|said| said.origin == origin && said.size > *known).map(|said| said.size)
        };
        let newest = newest.iter().filter_map(|note| Some((of_it(&note)?, note))).max().map(|(_, note)| note.clone());
        let restoration = Restoration {
            alliance: statement.alliance,
            shard: statement.shard,
            incarnation: statement.incarnation,
            kept: statement.leaves,
            root: statement.root,
            proof: proof.clone(),
            checkpoint: checkpoint.clone(),
            newest,
            kept_until: statement.time,
            state: statement.state,
            charter_version: version,
            at: now,
        };
        let record = SignedRestoration::unsigned(&restoration);
        record.sound(charters)?;
        records.push(record);
    }
    Ok(records)
}

/// A shard that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The shard.
    pub shard: u16,
    /// Incarnation of its log from now on.
    pub incarnation: u32,
    /// Leaves that it begins with.
    pub leaves: u64,
}

/// Refuses a data directory in which a node's state lies. What an interrupted restore left is no state yet.
pub fn is_bare(data_dir: &Path) -> Result<(), BackupError> {
    let entries = match fs::read_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(BackupError::file(data_dir))?,
    };
    for entry in entries {
        let name = entry.map_err(BackupError::file(data_dir))?.file_name();
        // A disk of its own has the latter.
        if name != STAGING && name != "lost+found" {
            let found = name.to_string_lossy().into_owned();
            return Err(BackupError::NotBare { path: data_dir.to_owned(), found });
        }
    }
    Ok(())
}

/// Whether a restore was begun in a data directory and not brought to its end.
pub fn is_unfinished(data_dir: &Path) -> bool {
    data_dir.join(STAGING).exists()
}

/// Restores this node's shards: those that its groups held when the backup was taken. What a later charter gave it, it gets as a node gets
/// what it is given.
///
/// Everything is prepared in [`STAGING`] and held against the record first; a crash leaves a directory on which no node starts, and doing
/// it again begins anew, or ends what was prepared. Where no shard is this node's, nothing is written.
pub fn restore(
    config: &Config,
    placed: &Placed,
    (chain, records): (&Chain, &[SignedRestoration]),
) -> Result<Vec<Restored>, BackupError> {
    let data_dir = &config.data_dir;
    let staging = data_dir.join(STAGING);
    let charters = charters(placed, chain)?;
    let mut ours = Vec::new();
    for (shard, held) in &chain.shards {
        let holders = charters.iter().find(|charter| charter.version() == held.statement.holders);
        let holders = holders.ok_or(RestorationError::UnknownCharter(held.statement.holders))?;
        if holders.group(*shard).contains(&placed.id) {
            ours.push(Ours { shard: *shard, held, holders, record: record_for(*shard, held, records, &charters)? });
        }
    }
    let newest = charters.last().into_iter().flat_map(|newest| newest.shards_of(placed.id));
    if let Some(missing) = newest.into_iter().find(|shard| !chain.shards.contains_key(shard)) {
        return Err(BackupError::NoShard(missing));
    }
    let done = |of: &Ours<'_>| -> Result<Restored, BackupError> {
        Ok(Restored { shard: of.shard, incarnation: of.incarnation()?, leaves: of.held.statement.leaves })
    };
    let done = ours.iter().map(done).collect::<Result<Vec<_>, _>>()?;
    if done.is_empty() {
        return Ok(done);
    }
    let prepared = staging.join(PREPARED);
    let records: Vec<u8> = ours.iter().flat_map(|of| of.record.hash().0).collect();
    // By the same records, that is: what was prepared by others is begun anew, unless some of it has its name already.
    if fs::read(&prepared).is_ok_and(|before| before == records) {
        finish(data_dir)?;
        return Ok(done);
    }
    is_bare(data_dir)?;
    make_private(data_dir)?;
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(BackupError::file(&staging))?;
    }
    make_private(&staging)?;
    prepare(&staging, config, placed, chain, &ours)?;
    let mut file = File::create(&prepared).map_err(BackupError::file(&prepared))?;
    file.write_all(&records).and_then(|()| file.sync_all()).map_err(BackupError::file(&prepared))?;
    sync_dir(&staging)?;
    finish(data_dir)?;
    Ok(done)
}

/// A shard that is this node's.
struct Ours<'a> {
    shard: u16,
    held: &'a Held,
    /// The charter that says who votes in its group.
    holders: &'a VerifiedCharter,
    record: SignedRestoration,
}

impl Ours<'_> {
    /// Of its log from now on.
    fn incarnation(&self) -> Result<u32, BackupError> {
        Ok(self.record.read()?.incarnation.saturating_add(1))
    }
}

/// All charters: those of the credentials, or those of the backup, whichever go further.
pub fn charters(placed: &Placed, chain: &Chain) -> Result<Vec<VerifiedCharter>, BackupError> {
    if placed.charters.judge(&chain.charter_chain)?.is_some() {
        return Ok(chain.charters.clone());
    }
    Ok(CharterChain::decode(&placed.charters.encoded())?.verify_each(placed.credentials.alliance_id())?)
}

/// The record that is for what the backup holds of a shard, verified.
fn record_for(
    shard: u16,
    held: &Held,
    records: &[SignedRestoration],
    charters: &[VerifiedCharter],
) -> Result<SignedRestoration, BackupError> {
    let no = |why| BackupError::NoRecord { shard, why };
    let mut of_shard = None;
    for record in records {
        if record.read()?.shard == shard {
            of_shard = Some(record);
        }
    }
    let record = of_shard.ok_or_else(|| no("there is none of this shard"))?;
    let verified = record.verify(shard, charters)?;
    let (said, has) = (verified.restoration(), &held.statement);
    if (said.incarnation, said.kept, said.root) != (has.incarnation, has.leaves, has.root) {
        return Err(no("other leaves were kept"));
    }
    if said.state != has.state {
        return Err(no("the nodes are to begin from another state with these leaves"));
    }
    if said.incarnation >= INCARNATIONS_MAX {
        return Err(no("the log was restored too often"));
    }
    Ok(record.clone())
}

fn prepare(
    staging: &Path,
    config: &Config,
    placed: &Placed,
    chain: &Chain,
    ours: &[Ours<'_>],
) -> Result<(), BackupError> {
    let (alliance, shard_count) = (placed.credentials.alliance_id(), placed.charters.shard_count());
    if placed.charters.judge(&chain.charter_chain)?.is_some() {
        let path = staging.join(charters::FILE);
        fs::write(&path, chain.charter_chain.encode()).map_err(BackupError::file(&path))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(BackupError::file(&path))?;
    }
    let mut groups = Vec::new();
    for of in ours {
        let voters = of.holders.group(of.shard).iter().copied().map(raft_id).collect();
        groups.push(consensus::Begun { group: GroupId(of.shard), voters, incarnation: of.incarnation()? });
    }
    let applied = consensus::begin(staging, raft_id(placed.id), &groups)?;
    let path = staging.join(crate::daemon::COSIGN_FILE);
    let mut cosigned = CosignFile::open(&path, alliance, placed.id, shard_count.get(), true)?;
    for (of, applied) in ours.iter().zip(&applied) {
        let (shard, statement, incarnation) = (of.shard, &of.held.statement, of.incarnation()?);
        let store_error = |source| BackupError::Store { shard, source };
        let place = Place { alliance, shard_count, shard };
        let store = Store::open(staging, alliance, shard, config.storage.shard_cache_bytes).map_err(store_error)?;
        let begun = store.begin_from(
            &place,
            chain.chunks(of.held),
            statement.root,
            (incarnation, applied.as_slice()),
            |before| records_with(before, &of.record),
        );
        begun.map_err(store_error)?;
        tracing::info!(
            shard,
            leaves = statement.leaves,
            "every entry was held against its leaf, and the log against the record"
        );
        if statement.leaves > 0 {
            cosigned.persist(&[(shard, Cosigned { incarnation, size: statement.leaves, root: statement.root })])?;
        }
    }
    Ok(())
}

/// The records that the state brought along, and the one by which it goes on.
fn records_with(before: Option<Vec<u8>>, record: &SignedRestoration) -> Result<Vec<u8>, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt("the records of its restored logs do not decode");
    let before = before.map(|bytes| decode_all(&bytes, RESTORED_MAX_BYTES)).transpose().map_err(|_| CORRUPT)?;
    let mut records = before.unwrap_or_default();
    records.push(record.clone());
    Ok(encode_all(&records))
}

/// Gives everything that was prepared its name.
fn finish(data_dir: &Path) -> Result<(), BackupError> {
    let staging = data_dir.join(STAGING);
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&staging).map_err(BackupError::file(&staging))? {
        names.push(entry.map_err(BackupError::file(&staging))?.path());
    }
    for from in names.iter().filter(|path| !path.ends_with(PREPARED)) {
        let to = data_dir.join(from.file_name().unwrap_or_default());
        fs::rename(from, &to).map_err(BackupError::file(&to))?;
    }
    sync_dir(data_dir)?;
    // In one step: what is left of it says nothing.
    let done = data_dir.join(DONE);
    fs::rename(&staging, &done).map_err(BackupError::file(&done))?;
    sync_dir(data_dir)?;
    fs::remove_dir_all(&done).map_err(BackupError::file(&done))
}

fn make_private(dir: &Path) -> Result<(), BackupError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(BackupError::file(dir))
}

fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(BackupError::file(dir))
}

/// Largest file of records: one for each shard.
pub const RECORDS_MAX_BYTES: usize = ehe::limits::SHARDS_MAX as usize * (RESTORATION_MAX_BYTES + 5) + 5;
