//! A shard's state as of one moment, for whoever looks things up: rooms, entries, proofs.

use redb::{ReadTransaction, ReadableTable};

use ehe::cbor;
use ehe::event::Event;
use ehe::id::{AuthorId, Hash, RoomId, WrapId};
use ehe::leaf::{Leaf, Receipt};
use ehe::limits;
use ehe::merkle::{self, NodeAt, Nodes};
use ehe::read::record_hash;
use ehe::room::{RoomState, StateError};
use ehe::time::UnixMs;

use super::schema::{ReadTables, RunRefusal, ShardMeta};
use super::store::{StoreError, shard_meta};

/// Largest encoded [`RoomState`]; a test holds it against the limits of a room.
pub(super) const ROOM_STATE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The room.
    pub room: RoomId,
    /// Its place in the room.
    pub index: u64,
    /// When it was accepted, by the ledger's time.
    pub accepted_at: UnixMs,
    /// The patient's control events in the room as of this entry.
    pub control: u64,
    /// A signed run or an access record.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// Whether it is a signed run, a CBOR array; an access record is a map.
    pub fn is_run(&self) -> bool {
        self.bytes.first().is_some_and(|first| first >> 5 == 4)
    }
}

/// The state as of the moment when the view was opened.
pub struct View {
    tables: ReadTables,
    shard: ShardMeta,
}

impl View {
    pub(super) fn open(txn: &ReadTransaction) -> Result<Self, StoreError> {
        let tables = ReadTables::open(txn)?;
        let shard = shard_meta(&tables.meta)?;
        Ok(Self { tables, shard })
    }

    /// The shard as a whole.
    pub fn shard(&self) -> ShardMeta {
        self.shard
    }

    pub(super) fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.meta.get(key)?.map(|value| value.value().to_vec()))
    }

    /// A room's rules.
    pub fn room(&self, room: RoomId) -> Result<Option<RoomState>, StoreError> {
        room_state(&self.tables.rooms, room)
    }

    /// Log index of a room's entry.
    pub fn position(&self, room: RoomId, index: u64) -> Result<Option<u64>, StoreError> {
        Ok(self.tables.positions.get((room.as_bytes(), index))?.map(|at| at.value()))
    }

    /// Log indexes of a room's entries from `from` on that lie below `log_size`, at most `max` of them.
    pub fn positions(&self, room: RoomId, from: u64, log_size: u64, max: usize) -> Result<Vec<(u64, u64)>, StoreError> {
        let mut out = Vec::new();
        for row in self.tables.positions.range((room.as_bytes(), from)..=(room.as_bytes(), u64::MAX))?.take(max) {
            let (key, at) = row?;
            if at.value() >= log_size {
                break;
            }
            out.push((key.value().1, at.value()));
        }
        Ok(out)
    }

    /// The last entry of a room among the first `log_size` leaves: (place in the room, log index).
    pub fn last(&self, room: RoomId, log_size: u64) -> Result<Option<(u64, u64)>, StoreError> {
        for row in self.tables.positions.range((room.as_bytes(), 0)..=(room.as_bytes(), u64::MAX))?.rev() {
            let (key, at) = row?;
            if at.value() < log_size {
                return Ok(Some((key.value().1, at.value())));
            }
        }
        Ok(None)
    }

    /// An entry of the log.
    pub fn entry(&self, log_index: u64) -> Result<Entry, StoreError> {
        let row = self.tables.entries.get(log_index)?.ok_or(StoreError::Corrupt("an entry is missing"))?;
        let (room, index, at, control, bytes) = row.value();
        Ok(Entry { room: RoomId(*room), index, accepted_at: UnixMs(at), control, bytes: bytes.to_vec() })
    }

    /// The leaf of an entry.
    pub fn leaf(&self, entry: &Entry) -> Result<Leaf, StoreError> {
        let previous = match entry.index.checked_sub(1) {
            None => Hash::ZERO,
            Some(before) => {
                let at = self.position(entry.room, before)?.ok_or(StoreError::Corrupt("a room has a hole"))?;
                self.node(NodeAt { level: 0, index: at })?
            }
        };
        let hash = record_hash(&entry.bytes);
        let Entry { room, index, accepted_at, control, .. } = *entry;
        Ok(Leaf { room, index, previous, entry: hash, accepted_at, control })
    }

    /// Headers of a run's events, in order.
    pub fn headers(&self, log_index: u64) -> Result<Vec<(u16, Vec<u8>)>, StoreError> {
        let mut out = Vec::new();
        for row in self.tables.headers.range((log_index, 0)..=(log_index, u16::MAX))? {
            let (key, header) = row?;
            out.push((key.value().1, header.value().to_vec()));
        }
        Ok(out)
    }

    /// The header of a run's first event.
    pub fn first_header(&self, log_index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.headers.get((log_index, 0))?.map(|header| header.value().to_vec()))
    }

    /// An event's body, unless it was erased.
    pub fn body(&self, log_index: u64, position: u16) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.bodies.get((log_index, position))?.map(|body| body.value().to_vec()))
    }

    /// A committed wrap of a room, whole.
    pub fn wrap_event(&self, room: RoomId, wrap: WrapId) -> Result<Option<Event>, StoreError> {
        if self.tables.wraps.get((room.as_bytes(), wrap.as_bytes()))?.is_none() {
            return Ok(None);
        }
        let Some(at) = self.tables.events.get(wrap.as_bytes())?.map(|at| at.value()) else { return Ok(None) };
        let header = self.tables.headers.get(at)?.map(|header| header.value().to_vec());
        let body = self.tables.bodies.get(at)?.map(|body| body.value().to_vec());
        Ok(header.zip(body).map(|(header, body)| Event { header, body }))
    }

    /// The proof that an entry is among the first `log_size` leaves, under the checkpoint of that size.
    pub fn receipt(&self, log_index: u64, log_size: u64, checkpoint: &str) -> Result<Receipt, StoreError> {
        let leaf = self.leaf(&self.entry(log_index)?)?;
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
        let hash = self.tables.nodes.get((at.level, at.index))?;
        hash.map(|hash| Hash(*hash.value())).ok_or(StoreError::Corrupt("a hash of the Merkle tree is missing"))
    }
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
