//! The log file and its tables.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use redb::{Builder, Database, Durability, ReadableDatabase, StorageBackend, TableDefinition, WriteTransaction};

use crate::consensus::{
    codec::{self, NodeRecord},
    error::{Fault, OpenError},
    ids::{GroupId, NodeId, NodeUid},
    log::journal::JournalRecord,
    types::{Entry, LogId, Vote},
};

/// (group, index) → entry.
pub(super) const ENTRIES: TableDefinition<'static, (u16, u64), &[u8]> = TableDefinition::new("entries");
/// (group, field) → the small things of a group, see [`Field`].
pub(super) const FIELDS: TableDefinition<'static, (u16, u8), &[u8]> = TableDefinition::new("fields");
/// [`NODE_KEY`]: whose file this is; [`FORMAT_KEY`]; [`JOURNAL_KEY`]: how far its journal is settled; and for each peer that was ever
/// met, [`peer_key`] → its uid.
const NODE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("node");
const NODE_KEY: &str = "node";
const FORMAT_KEY: &str = "format";
const JOURNAL_KEY: &str = "journal";
const PEER_KEYS: &str = "uid/";
/// The tables as they are without a journal: of an earlier version, or until the journal is made.
const FORMAT_ALONE: u64 = 1;
/// The tables as they are with a journal. A number of its own: who does not know of the journal must not take what is here for everything.
const FORMAT: u64 = 2;

/// The small things of a group. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::consensus) enum Field {
    /// The vote. Durable before anybody hears of it.
    Vote = 0,
    /// Newest commit that was known when something else was written; see `save_committed`.
    Committed = 1,
    /// Last entry that is no longer in the log.
    Purged = 2,
    /// A snapshot up to here is being installed, or was and the log was not shortened yet.
    Installing = 3,
    /// The group was given up: where its log ended then. It stays for good, see [`Left`].
    Left = 4,
}

/// The greatest number of a [`Field`].
pub(super) const LAST_FIELD: u8 = Field::Left as u8;

impl Field {
    /// From its number.
    pub(super) fn of(number: u8) -> Option<Self> {
        let all = [Self::Vote, Self::Committed, Self::Purged, Self::Installing, Self::Left];
        all.into_iter().find(|field| *field as u8 == number)
    }
}

/// What a group has on disk.
#[derive(Clone, Debug, Default)]
pub(in crate::consensus) struct Stored {
    pub(in crate::consensus) vote: Option<Vote>,
    pub(in crate::consensus) committed: Option<LogId>,
    pub(in crate::consensus) purged: Option<LogId>,
    pub(in crate::consensus) installing: Option<LogId>,
    pub(in crate::consensus) left: Option<Left>,
    /// The last entry, or `purged` if there is none.
    pub(in crate::consensus) last: Option<LogId>,
    /// Bytes of the entries, about.
    pub(in crate::consensus) bytes: u64,
}

impl Stored {
    /// The group was given up and has got nothing of its log since: what its machine still has is of before.
    pub(in crate::consensus) fn is_given_up(&self) -> bool {
        self.left.is_some() && self.last.is_none() && self.purged.is_none() && self.installing.is_none()
    }
}

/// What is kept of the log of a group that was given up, beside the vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consensus) struct Left {
    /// Its last entry then.
    pub(in crate::consensus) last: LogId,
    /// What the one who gave it up noted.
    pub(in crate::consensus) under: u32,
}

/// Opens the log, or makes an empty one if `backend` is empty.
///
/// `backend` is the seam for tests that fail at each step of IO; production passes a file.
pub(in crate::consensus) fn open(
    backend: impl StorageBackend,
    cache_bytes: usize,
) -> Result<Database, redb::DatabaseError> {
    Builder::new()
        .set_cache_size(cache_bytes)
        .set_repair_callback(|session| {
            // `begin` avoids this; it happens after the first commit of a new file, or of another program's.
            tracing::info!(progress = session.progress(), "checking the log after a crash");
        })
        .create_with_backend(backend)
}

/// A write transaction as all of the log's are: synced, in two phases, with quick-repair.
///
/// Two phases, because with one a checksum that is not cryptographic decides after a crash which root is good.
/// Quick-repair, because without it a file that was not closed in order is walked whole when it is opened: 0.7 s were
/// measured for 600 MiB, which 16 groups may reach between compactions, and a node that was killed should lead again
/// well within a second. The price, the allocator's state in every commit, was a quarter of the throughput when the
/// disk was not the limit (60,000 small entries a second instead of 80,000), and nothing where it was.
pub(in crate::consensus) fn begin(db: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    txn.set_two_phase_commit(true);
    txn.set_quick_repair(true);
    Ok(txn)
}

/// Whose file this is; `None` if it is new.
pub(in crate::consensus) fn read_node(db: &Database) -> Result<Option<NodeRecord>, OpenError> {
    let found = || -> Result<_, redb::Error> {
        let table = match db.begin_read()?.open_table(NODE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let bytes = |key| Ok::<_, redb::Error>(table.get(key)?.map(|value| value.value().to_vec()));
        Ok(Some((bytes(FORMAT_KEY)?, bytes(NODE_KEY)?)))
    };
    let Some((format, node)) = found().map_err(OpenError::Log)? else { return Ok(None) };
    let format = format.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    if format != FORMAT && format != FORMAT_ALONE {
        return Err(OpenError::Format { found: format, known: FORMAT });
    }
    let record = codec::decode_node(&node.unwrap_or_default());
    record.map(Some).map_err(|error| OpenError::Log(redb::Error::Corrupted(format!("node record: {error}"))))
}

/// Which journal the log has; none if it never had one.
pub(in crate::consensus) fn read_journal(db: &Database) -> Result<Option<JournalRecord>, OpenError> {
    let found = || -> Result<_, redb::Error> {
        let table = match db.begin_read()?.open_table(NODE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let value = table.get(JOURNAL_KEY)?.map(|value| value.value().to_vec());
        let alone = table.get(FORMAT_KEY)?.is_none_or(|format| format.value() == FORMAT_ALONE.to_be_bytes());
        let corrupted = |what: String| redb::Error::Corrupted(format!("what the log file says of its journal: {what}"));
        match value {
            None if alone => Ok(None),
            None => Err(corrupted("nothing".into())),
            Some(value) => codec::decode_journal(&value).map(Some).map_err(|error| corrupted(error.to_string())),
        }
    };
    found().map_err(OpenError::Log)
}

/// Notes which journal the log has, and how far it is settled.
pub(super) fn put_journal(txn: &WriteTransaction, record: &JournalRecord) -> Result<(), redb::Error> {
    txn.open_table(NODE)?.insert(JOURNAL_KEY, codec::encode_journal(record).as_slice())?;
    Ok(())
}

/// Notes, durably, that the log has a journal from now on.
pub(super) fn write_journal(db: &Database, record: &JournalRecord) -> Result<(), redb::Error> {
    let txn = begin(db)?;
    put_journal(&txn, record)?;
    txn.open_table(NODE)?.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice())?;
    txn.commit()?;
    Ok(())
}

fn peer_key(peer: NodeId) -> String {
    format!("{PEER_KEYS}{:016x}", peer.0)
}

/// The peers that were met, and as whom.
pub(in crate::consensus) fn read_peers(db: &Database) -> Result<BTreeMap<NodeId, NodeUid>, redb::Error> {
    let table = match db.begin_read()?.open_table(NODE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut peers = BTreeMap::new();
    for row in table.range(PEER_KEYS..)? {
        let (key, value) = row?;
        let Some(hex) = key.value().strip_prefix(PEER_KEYS) else { break };
        let (node, uid) = (u64::from_str_radix(hex, 16).ok(), value.value().try_into().ok());
        let (Some(node), Some(uid)) = (node, uid) else {
            return Err(redb::Error::Corrupted("what the log file says of a peer".into()));
        };
        peers.insert(NodeId(node), NodeUid(uid));
    }
    Ok(peers)
}

/// Notes who a peer is.
pub(super) fn write_peer(txn: &WriteTransaction, peer: NodeId, uid: &NodeUid) -> Result<(), redb::Error> {
    txn.open_table(NODE)?.insert(peer_key(peer).as_str(), uid.0.as_slice())?;
    Ok(())
}

/// Writes a field of a group.
pub(in crate::consensus) fn put_field(
    txn: &WriteTransaction,
    group: GroupId,
    field: Field,
    value: &[u8],
) -> Result<(), redb::Error> {
    txn.open_table(FIELDS)?.insert((group.0, field as u8), value)?;
    Ok(())
}

/// Makes the tables and says whose file this is, durably.
pub(in crate::consensus) fn write_node(db: &Database, record: &NodeRecord) -> Result<(), redb::Error> {
    let txn = begin(db)?;
    txn.open_table(ENTRIES)?;
    txn.open_table(FIELDS)?;
    {
        let mut table = txn.open_table(NODE)?;
        table.insert(FORMAT_KEY, FORMAT_ALONE.to_be_bytes().as_slice())?;
        table.insert(NODE_KEY, codec::encode_node(record).as_slice())?;
    }
    txn.commit()?;
    Ok(())
}

/// Refuses a file of another node.
pub(in crate::consensus) fn check_node(record: &NodeRecord, expected: NodeId) -> Result<(), OpenError> {
    if record.node == expected { Ok(()) } else { Err(OpenError::OtherNode { found: record.node, expected }) }
}

/// Where a group's log begins that has no entry yet.
pub(in crate::consensus) struct Begin {
    pub(in crate::consensus) group: GroupId,
    pub(in crate::consensus) vote: Vote,
    pub(in crate::consensus) purged: LogId,
}

/// Says where logs begin, durably.
pub(in crate::consensus) fn write_begun(db: &Database, groups: &[Begin]) -> Result<(), redb::Error> {
    let txn = begin(db)?;
    {
        let mut fields = txn.open_table(FIELDS)?;
        for Begin { group, vote, purged } in groups {
            fields.insert((group.0, Field::Vote as u8), codec::encode_vote(vote).as_slice())?;
            fields.insert((group.0, Field::Purged as u8), codec::encode_log_id(purged).as_slice())?;
        }
    }
    txn.commit()?;
    Ok(())
}

/// Reads what `group` has on disk, and checks that its ends fit each other.
pub(in crate::consensus) fn load(db: &Database, group: GroupId) -> Result<Stored, LoadError> {
    let corrupt = |what: &str| LoadError::Corrupt(Fault::Corrupt { group, what: what.into() });
    let txn = db.begin_read().map_err(redb::Error::from)?;
    let fields = txn.open_table(FIELDS).map_err(redb::Error::from)?;
    let field = |field: Field| -> Result<Option<Vec<u8>>, LoadError> {
        let value = fields.get((group.0, field as u8)).map_err(redb::Error::from)?;
        Ok(value.map(|value| value.value().to_vec()))
    };
    let id = |which: Field, what: &str| {
        field(which)?.map(|bytes| codec::decode_log_id(&bytes).map_err(|_| corrupt(what))).transpose()
    };
    let vote =
        field(Field::Vote)?.map(|bytes| codec::decode_vote(&bytes).map_err(|_| corrupt("the vote"))).transpose()?;
    let committed = id(Field::Committed, "the committed position")?;
    let purged = id(Field::Purged, "the purged position")?;
    let installing = id(Field::Installing, "the installing position")?;
    let left =
        field(Field::Left)?.map(|bytes| codec::decode_left(&bytes).map_err(|_| corrupt("where it was given up")));
    let left = left.transpose()?;

    let entries = txn.open_table(ENTRIES).map_err(redb::Error::from)?;
    let mut range = entries.range((group.0, 0)..=(group.0, u64::MAX)).map_err(redb::Error::from)?;
    let end = |item: Option<Result<(_, redb::AccessGuard<'_, &[u8]>), redb::StorageError>>| {
        let Some(item) = item else { return Ok(None) };
        let (key, value): (redb::AccessGuard<'_, (u16, u64)>, _) = item.map_err(redb::Error::from)?;
        codec::decode_entry_id(key.value().1, value.value()).map(Some).map_err(|_| corrupt("an entry of the log"))
    };
    let first = end(range.next())?;
    let last = end(range.next_back())?.or(first);
    if let Some(first) = &first {
        let expected = purged.map_or(0, |purged| purged.index().saturating_add(1));
        if first.index() != expected {
            return Err(corrupt("the beginning of the log"));
        }
    }
    let bytes = match (&first, &last) {
        (Some(first), Some(last)) => weigh(&entries, group, first.index(), last.index())?,
        _ => 0,
    };
    Ok(Stored { vote, committed, purged, installing, left, last: last.or(purged), bytes })
}

/// Bytes of the entries from `first` to `last`, about: some of them are weighed, at equal distances.
fn weigh(
    entries: &redb::ReadOnlyTable<(u16, u64), &'static [u8]>,
    group: GroupId,
    first: u64,
    last: u64,
) -> Result<u64, redb::Error> {
    const WEIGHED: u64 = 64;
    let count = last.saturating_sub(first).saturating_add(1);
    let step = count.div_ceil(WEIGHED).max(1);
    let (mut weighed, mut bytes) = (0_u64, 0_u64);
    let mut index = first;
    while index <= last {
        if let Some(value) = entries.get((group.0, index))? {
            bytes = bytes.saturating_add(value.value().len() as u64);
        }
        weighed = weighed.saturating_add(1);
        index = index.saturating_add(step);
    }
    Ok((bytes / weighed.max(1)).saturating_mul(count))
}

/// The id of the entry at `index`, if the log has one there.
pub(in crate::consensus) fn entry_id(db: &Database, group: GroupId, index: u64) -> Result<Option<LogId>, LoadError> {
    let table = db.begin_read().map_err(redb::Error::from)?.open_table(ENTRIES).map_err(redb::Error::from)?;
    let Some(value) = table.get((group.0, index)).map_err(redb::Error::from)? else { return Ok(None) };
    let id = codec::decode_entry_id(index, value.value());
    id.map(Some).map_err(|_| LoadError::Corrupt(Fault::Corrupt { group, what: format!("entry {index} of the log") }))
}

/// Why a group could not be read.
#[derive(Debug)]
pub(in crate::consensus) enum LoadError {
    Log(redb::Error),
    Corrupt(Fault),
}

impl From<redb::Error> for LoadError {
    fn from(error: redb::Error) -> Self {
        Self::Log(error)
    }
}

/// Why entries could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Log(redb::Error),
    Corrupt(u64),
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Log(error.into())
    }
}

/// Reads the entries of `group` in `[start, end)`, at least one and then until `max_bytes` are read.
pub(super) fn read_entries(
    db: &Database,
    group: GroupId,
    start: u64,
    end: u64,
    max_bytes: usize,
) -> Result<Vec<Entry>, ReadError> {
    let table = db.begin_read()?.open_table(ENTRIES)?;
    let mut entries = Vec::new();
    let mut bytes = 0_usize;
    for item in table.range((group.0, start)..(group.0, end))? {
        let (key, value) = item?;
        let (index, value) = (key.value().1, value.value());
        entries.push(codec::decode_entry(index, value).map_err(|_| ReadError::Corrupt(index))?);
        bytes = bytes.saturating_add(value.len());
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(entries)
}

/// The open log file, until it is closed.
///
/// openraft's tasks end some time after they are told to; closing takes the database away from them, so that the file
/// is closed in order when shutting down returns.
#[derive(Debug)]
pub(in crate::consensus) struct LogFile(RwLock<Option<Database>>);

impl LogFile {
    pub(in crate::consensus) fn new(db: Database) -> Self {
        Self(RwLock::new(Some(db)))
    }

    /// Runs `body` on the database; an error if the file is closed.
    pub(super) fn with<T, E: From<redb::Error>>(&self, body: impl FnOnce(&Database) -> Result<T, E>) -> Result<T, E> {
        let guard = self.0.read().unwrap_or_else(PoisonError::into_inner);
        body(guard.as_ref().ok_or(redb::Error::DatabaseClosed)?)
    }

    /// Closes the file in order. Waits for reads that are under way.
    pub(in crate::consensus) fn close(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}
