//! Opening a journal: redb gets what it lacks, or the node hears why it must not start.

use redb::{Database, StorageBackend};

use super::{
    JournalRecord,
    change::{self, Change},
    disk::Journal,
    frame::{self, BLOCK, HEADER_BLOCKS, Header, Hole},
};
use crate::consensus::{
    error::{Fault, OpenError},
    log::{
        apply::{Purges, Tables},
        file,
    },
    runtime,
};

/// Why what a journal holds is not what it should hold. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It is gone, or was emptied.
    #[error(
        "it is gone, and with it what this node may have confirmed last: put it back, or remove this node from the alliance and enrol \
         it anew under another id"
    )]
    Missing,
    /// Shorter or longer than made, or its header does not decode.
    #[error(
        "it is damaged ({0}), and this node may have forgotten what it confirmed: put back the one that belongs, or remove this node from \
         the alliance and enrol it anew under another id"
    )]
    Damaged(String),
    /// Of a later version of this program.
    #[error(
        "it is of version {0}, of which this program knows nothing: start the version of ehe-node that wrote it, or a later one"
    )]
    Version(u8),
    /// Another log's.
    #[error(
        "it is not the one of this raft.redb: one of the two was exchanged or removed; put back the files that belong together"
    )]
    Other,
    /// Of another time than the log.
    #[error(
        "it is of epoch {journal}, raft.redb of epoch {log}: one of the two is an older copy, and this node may have forgotten votes: remove it \
         from the alliance and enrol it anew under another id"
    )]
    OtherTime {
        /// As the journal says.
        journal: u64,
        /// As the log says.
        log: u64,
    },
    /// A record that was synced is not there, or not as it was written.
    #[error(
        "record {missing} is damaged or gone, though record {later} follows: the disk lost or altered what it had confirmed; remove this node \
         from the alliance and enrol it anew under another id"
    )]
    Hole {
        /// The first one that is not there.
        missing: u64,
        /// One that is.
        later: u64,
    },
}

impl From<Hole> for JournalError {
    fn from(Hole { missing, later }: Hole) -> Self {
        Self::Hole { missing, later }
    }
}

fn io(doing: &'static str) -> impl Fn(std::io::Error) -> OpenError {
    move |source| OpenError::Io { doing, source }
}

const READING: &str = "reading the log's journal raft.journal";
const WRITING: &str = "writing the log's journal raft.journal";
const MAKING: &str = "making the log's journal raft.journal";

/// Opens the journal of a log that says whose it is; afterwards redb has, durably, everything that was written. A log that has no
/// journal yet gets one with so many `bytes` for records.
pub(in crate::consensus) fn recover(
    db: &Database,
    journal: impl StorageBackend,
    bytes: u64,
) -> Result<Journal, OpenError> {
    match file::read_journal(db)? {
        Some(known) => reopen(db, known, Box::new(journal)),
        None => {
            unknown(&journal)?;
            make(db, Box::new(journal), bytes)
        }
    }
}

/// As [`recover`], where nothing is made: `journal` is none if there is no such file.
pub(in crate::consensus) fn look_into(
    db: &Database,
    journal: Option<Box<dyn StorageBackend>>,
) -> Result<(), OpenError> {
    match (file::read_journal(db)?, journal) {
        (Some(known), Some(journal)) => reopen(db, known, journal).map(drop),
        (Some(_), None) => Err(JournalError::Missing.into()),
        (None, Some(journal)) => unknown(&*journal),
        (None, None) => Ok(()),
    }
}

fn read(journal: &(impl StorageBackend + ?Sized)) -> Result<Vec<u8>, OpenError> {
    let length = usize::try_from(journal.len().map_err(io(READING))?).unwrap_or(usize::MAX);
    if length > MOST_BYTES {
        return Err(JournalError::Damaged(format!("it has {length} bytes")).into());
    }
    let mut bytes = vec![0; length];
    journal.read(0, &mut bytes).map_err(io(READING))?;
    Ok(bytes)
}

/// No journal has more.
const MOST_BYTES: usize = crate::consensus::config::MAX_JOURNAL_BYTES + HEADER_BLOCKS * BLOCK;

/// Refuses a journal of which redb knows nothing, though something was written to it.
fn unknown(journal: &(impl StorageBackend + ?Sized)) -> Result<(), OpenError> {
    let bytes = read(journal)?;
    let used = match Header::of(&bytes) {
        Some(header) => frame::any(&header, &bytes),
        None => frame::later_version(&bytes).is_some(),
    };
    if used { Err(JournalError::Other.into()) } else { Ok(()) }
}

fn make(db: &Database, journal: Box<dyn StorageBackend>, bytes: u64) -> Result<Journal, OpenError> {
    let mut id = [0; 16];
    runtime::random(&mut id).map_err(io("making the journal's id"))?;
    let block = BLOCK as u64;
    let header = Header { id, epoch: 1, side: bytes / 2 / block * block };
    let length = header.file_bytes().unwrap_or(u64::MAX);
    // Also over what a crash left here. Zeros before the header: what has a header is whole.
    journal.set_len(length).map_err(io(MAKING))?;
    let zeros = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(MOST_BYTES)];
    journal.write(0, &zeros).map_err(io(MAKING))?;
    journal.sync_data().map_err(io(MAKING))?;
    journal.write(header.at(), &header.block()).map_err(io(MAKING))?;
    journal.sync_data().map_err(io(MAKING))?;
    file::write_journal(db, &JournalRecord { id, epoch: header.epoch, settled: 0 }).map_err(OpenError::Log)?;
    Ok(Journal::new(journal, header))
}

fn reopen(db: &Database, known: JournalRecord, journal: Box<dyn StorageBackend>) -> Result<Journal, OpenError> {
    let bytes = read(&*journal)?;
    if bytes.is_empty() {
        return Err(JournalError::Missing.into());
    }
    let header = Header::of(&bytes).ok_or_else(|| match frame::later_version(&bytes) {
        Some(version) => JournalError::Version(version),
        None => JournalError::Damaged("its header does not decode".into()),
    })?;
    if header.id != known.id {
        return Err(JournalError::Other.into());
    }
    let next_epoch = known.epoch.saturating_add(1);
    if header.epoch != known.epoch && header.epoch != next_epoch {
        return Err(JournalError::OtherTime { journal: header.epoch, log: known.epoch }.into());
    }
    if header.file_bytes() != Some(bytes.len() as u64) {
        return Err(JournalError::Damaged(format!("it has {} bytes", bytes.len())).into());
    }
    let bodies = frame::replay(&header, known.epoch, known.settled, &bytes).map_err(JournalError::from)?;
    let records = bodies.len();
    let changes = bodies.into_iter().map(change::decode).collect::<Result<Vec<_>, _>>();
    let changes = changes.map_err(|error| JournalError::Damaged(format!("a record: {error}")))?;
    let header = Header { epoch: next_epoch, ..header };
    journal.write(header.at(), &header.block()).map_err(io(WRITING))?;
    journal.sync_data().map_err(io(WRITING))?;
    let known = JournalRecord { epoch: next_epoch, settled: 0, ..known };
    settle(db, &known, changes.iter().flatten())?;
    if records > 0 {
        tracing::info!(records, "the log has what was in its journal");
    }
    Ok(Journal::new(journal, header))
}

/// One durable commit, with all that is to be done, purges to their end.
fn settle<'a>(
    db: &Database,
    known: &JournalRecord,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<(), OpenError> {
    let txn = file::begin(db).map_err(OpenError::Log)?;
    let (mut purges, mut wrong) = (Purges::default(), None);
    let apply = || -> Result<(), redb::Error> {
        let mut tables = Tables::open(&txn)?;
        for change in changes {
            tables.apply(change, &mut purges)?;
        }
        while !purges.is_empty() && wrong.is_none() {
            wrong = purges.step(&mut tables)?.into_iter().next();
        }
        tables.journal(known)
    };
    apply().map_err(OpenError::Log)?;
    if let Some((group, entry)) = wrong {
        let fault = Fault::Corrupt { group, what: format!("entry {entry} of the log") };
        return Err(OpenError::Fault { group, fault: fault.into() });
    }
    txn.commit().map_err(|error| OpenError::Log(error.into()))
}
