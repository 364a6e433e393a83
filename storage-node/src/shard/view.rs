//! A shard's state as of one moment, for whoever looks things up: rooms, entries, proofs.

use std::sync::Arc;

use redb::ReadableTable;

use ehe::cbor;
use ehe::charter::RULES_KNOWN;
use ehe::event::Event;
use ehe::id::{AuthorId, Hash, RoomId, WrapId};
use ehe::leaf::{Leaf, Receipt};
use ehe::limits;
use ehe::merkle::{self, NodeAt, Nodes};
use ehe::room::{RoomState, StateError};

use super::charters::Charters;
use super::entry::{Entry, LogName, Names};
use super::places;
use super::rules::outdated;
use super::schema::{Look, META_NOTE, ReadTables, RunRefusal, ShardMeta, StoredWrap};
use super::store::{Moment, OpenFile, StoreError, shard_meta};
use super::tree::Tree;

/// Largest encoded [`RoomState`]; a test holds it against the limits of a room.
pub(super) const ROOM_STATE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The state as of the moment when the view was opened.
pub struct View {
    tables: ReadTables,
    shard: ShardMeta,
    log: LogName,
    /// The file that the tables are of; let go of after them.
    _file: Arc<OpenFile>,
}

impl View {
    pub(super) fn open(moment: &Moment, log: LogName) -> Result<Self, StoreError> {
        let tables = ReadTables::open(&moment.txn)?;
        let shard = shard_meta(&tables.meta)?;
        Ok(Self { tables, shard, log, _file: Arc::clone(&moment.file) })
    }

    /// The shard as a whole.
    pub fn shard(&self) -> ShardMeta {
        self.shard
    }

    pub(super) fn tables(&self) -> &ReadTables {
        &self.tables
    }

    pub(super) fn log_name(&self) -> LogName {
        self.log
    }

    pub(super) fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.meta.get(key)?.map(|value| value.value().to_vec()))
    }

    /// The newest note that a quorum signed, as of when the state was last made durable.
    pub fn note(&self) -> Result<Option<String>, StoreError> {
        let note = self.meta(META_NOTE)?.map(String::from_utf8).transpose();
        note.map_err(|_| StoreError::Corrupt("the quorum's note is no text"))
    }

    /// Why this program cannot judge the state, if it is under later rules than it knows.
    pub(crate) fn outdated(&self) -> Result<Option<String>, StoreError> {
        let in_force = Charters::load(&self.tables.meta, self.log.alliance)?.rules();
        Ok((in_force > RULES_KNOWN).then(|| outdated(in_force, RULES_KNOWN)))
    }

    /// A room's rules.
    pub fn room(&self, room: RoomId) -> Result<Option<RoomState>, StoreError> {
        room_state(&self.tables.rooms, room)
    }

    /// Log index of a room's entry.
    pub fn position(&self, room: RoomId, index: u64) -> Result<Option<u64>, StoreError> {
        places::position(&self.tables, room, index)
    }

    /// Log indexes of a room's entries from `from` on that lie below `log_size`, at most `max` of them.
    pub fn positions(&self, room: RoomId, from: u64, log_size: u64, max: usize) -> Result<Vec<(u64, u64)>, StoreError> {
        places::positions(&self.tables, room, from, log_size, max)
    }

    /// The last entry of a room among the first `log_size` leaves: (place in the room, log index).
    pub fn last(&self, room: RoomId, log_size: u64) -> Result<Option<(u64, u64)>, StoreError> {
        places::last(&self.tables, room, log_size)
    }

    /// An entry of the log, with the events of a run.
    pub fn entry(&self, log_index: u64) -> Result<Entry, StoreError> {
        Names::new(&self.tables, self.log, None).entry(log_index)
    }

    /// The leaf of an entry.
    pub fn leaf(&self, entry: &Entry) -> Result<Leaf, StoreError> {
        let before = match entry.index.checked_sub(1) {
            None => None,
            Some(before) => Some(self.position(entry.room, before)?.ok_or(StoreError::Corrupt("a room has a hole"))?),
        };
        entry.leaf(before, |at| self.node(NodeAt { level: 0, index: at }))
    }

    /// The leaf of an entry that is there: what is not the tree's entry is told nobody.
    pub fn own_leaf(&self, log_index: u64, entry: &Entry) -> Result<Leaf, StoreError> {
        let leaf = self.leaf(entry)?;
        if self.node(NodeAt { level: 0, index: log_index })? == leaf.hash() {
            Ok(leaf)
        } else {
            Err(StoreError::Corrupt("an entry is not the one that the log's tree has"))
        }
    }

    /// A committed wrap of a room, whole.
    pub fn wrap_event(&self, room: RoomId, wrap: WrapId) -> Result<Option<Event>, StoreError> {
        let Some(wrap) = stored_wrap(&self.tables, room, wrap)? else { return Ok(None) };
        let mut events = self.entry(wrap.log_index)?.events.into_iter();
        let event = events.nth(wrap.position.into()).ok_or(StoreError::Corrupt("a wrap is missing"))?;
        Ok(event.body.map(|body| Event { header: event.header, body }))
    }

    /// The proof that an entry is among the first `log_size` leaves, under the checkpoint of that size.
    pub fn receipt(&self, log_index: u64, log_size: u64, checkpoint: &str) -> Result<Receipt, StoreError> {
        let leaf = self.own_leaf(log_index, &self.entry(log_index)?)?;
        let proof = merkle::inclusion_proof(self, log_index, log_size)?;
        Ok(Receipt { leaf, log_index, proof, checkpoint: checkpoint.into() })
    }

    /// Rooms in which an identity is or was a party, after `after`.
    pub fn rooms_of(&self, author: AuthorId, after: Option<RoomId>, max: usize) -> Result<Vec<RoomId>, StoreError> {
        let from = after.unwrap_or(RoomId::ZERO);
        let mut out = Vec::new();
        for row in self.tables.parties.range((author.as_bytes(), from.as_bytes())..=(author.as_bytes(), &[0xff; 16]))? {
            let (key, ()) = {
                let (key, value) = row?;
                (RoomId(*key.value().1), value.value())
            };
            if after != Some(key) {
                out.push(key);
            }
            if out.len() >= max {
                break;
            }
        }
        Ok(out)
    }

    /// The last refusals of an author's runs in a room.
    pub fn run_refusals(&self, room: RoomId, author: AuthorId) -> Result<Vec<RunRefusal>, StoreError> {
        run_refusals(&self.tables.run_refusals, room, author)
    }
}

impl Nodes for View {
    type Error = StoreError;

    fn node(&self, at: NodeAt) -> Result<Hash, StoreError> {
        Tree(&self.tables).node(at)
    }
}

/// Reads a committed wrap.
pub(super) fn stored_wrap(tables: &impl Look, room: RoomId, wrap: WrapId) -> Result<Option<StoredWrap>, StoreError> {
    let Some(bytes) = tables.wraps().get((room.as_bytes(), wrap.as_bytes()))? else { return Ok(None) };
    let stored = cbor::from_slice(bytes.value(), 128).map_err(|_| StoreError::Corrupt("a wrap does not decode"))?;
    Ok(Some(stored))
}

/// Reads a room's rules.
pub(super) fn room_state(
    rooms: &impl ReadableTable<&'static [u8; 16], &'static [u8]>,
    room: RoomId,
) -> Result<Option<RoomState>, StoreError> {
    let Some(bytes) = rooms.get(room.as_bytes())? else { return Ok(None) };
    let state = RoomState::decode(bytes.value(), ROOM_STATE_MAX_BYTES).map_err(|why| match why {
        StateError::Version(_) => StoreError::Corrupt("a room's state has another version"),
        StateError::Cbor(_) => StoreError::Corrupt("a room's state does not decode"),
    })?;
    Ok(Some(state))
}

/// Reads the kept refusals.
pub(super) fn run_refusals(
    table: &impl ReadableTable<(&'static [u8; 16], &'static [u8; 16]), &'static [u8]>,
    room: RoomId,
    author: AuthorId,
) -> Result<Vec<RunRefusal>, StoreError> {
    match table.get((room.as_bytes(), author.as_bytes()))? {
        None => Ok(Vec::new()),
        Some(bytes) => cbor::from_slice(bytes.value(), limits::READ_REQUEST_MAX_BYTES)
            .map_err(|_| StoreError::Corrupt("kept refusals do not decode")),
    }
}
