//! The spool's tables: names, keys and counters, drawn once.
//!
//! ```text
//! meta          name                                  → number          commit, row, and the bytes of each part
//! readings      room 16 ‖ category 1 ‖ hour 4 ‖ row 8 → sealed row      committed, not yet in an event
//! held          device tag 16 ‖ row 8                 → sealed row      nobody is assigned to the device
//! held_devices  device tag 16                         → sealed summary
//! outbox        room 16 ‖ class 1 ‖ row 8             → OutboxRow       class 0: urgent, 1: in order
//! outbox_index  room 16 ‖ event id 32                 → class 1 ‖ row 8
//! room_totals   room 16                               → RoomTotals
//! quarantine    room 16 ‖ event id 32                 → QuarantineRow   refused for good; kept
//! broken        the key that the row had              → the row         does not open any more; kept
//! thinned       room 16                               → Thinned         readings for which the room's share had no place
//! rooms         room 16                               → verified control state, opaque here
//! logs          shard 2                               → newest checkpoint of the shard's log, opaque here
//! wraps         room 16 ‖ event id 32                 → KeptWrap        confirmed wraps, the newest
//! mqtt_seen     source, row                           → packet id 2 ‖ digest 16 ‖ stored 8 ‖ timed 1
//! replay        source                                → position
//! key_use       day 4                                 → rows sealed under that day's key
//! ```
//!
//! All numbers in keys are big-endian, so that order of bytes is order of time.

use ehe::id::{EheId, RoomId};
use ehe::time::{Hour, UnixMs};
use ehe::vital::Category;
use minicbor::{Decode, Encode};
use redb::TableDefinition;

type Bytes = &'static [u8];

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const READINGS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("readings");
pub(super) const HELD: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("held");
pub(super) const HELD_DEVICES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("held_devices");
pub(super) const OUTBOX: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("outbox");
pub(super) const OUTBOX_INDEX: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("outbox_index");
pub(super) const ROOM_TOTALS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("room_totals");
pub(super) const QUARANTINE: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("quarantine");
pub(super) const BROKEN: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("broken");
pub(super) const THINNED: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("thinned");
pub(super) const ROOMS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("rooms");
pub(super) const LOGS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("logs");
pub(super) const WRAPS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("wraps");
pub(super) const MQTT_SEEN: TableDefinition<'_, (&str, u64), Bytes> = TableDefinition::new("mqtt_seen");
pub(super) const REPLAY: TableDefinition<'_, &str, u64> = TableDefinition::new("replay");
pub(super) const KEY_USE: TableDefinition<'_, u32, u64> = TableDefinition::new("key_use");

/// Layout of the tables; another number is another program's file.
pub(super) const LAYOUT: u64 = 1;
/// What a row costs beside its key and value: tree nodes, free space in pages. Measured as 1.4 times at 300-byte rows.
pub(super) const ROW_OVERHEAD_BYTES: u64 = 96;

/// Readings of one room, category and UTC hour: what goes into one event. An hour, not a day, so that readings of an hour which
/// the patient's grant does not cover wait alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowKey {
    /// Whose.
    pub room: RoomId,
    /// Under which category's key.
    pub category: Category,
    /// The UTC hour of the readings (not of their receipt).
    pub hour: Hour,
}

/// Bytes of `room ‖ category ‖ hour`.
pub(super) const WINDOW_PREFIX_LEN: usize = 21;
/// Bytes of a row's key.
pub(super) const ROW_KEY_LEN: usize = WINDOW_PREFIX_LEN + 8;

impl WindowKey {
    pub(super) fn prefix(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(WINDOW_PREFIX_LEN + 8);
        out.extend_from_slice(&self.room.0);
        out.push(self.category.code());
        out.extend_from_slice(&self.hour.0.to_be_bytes());
        out
    }

    pub(super) fn row_key(&self, row: u64) -> Vec<u8> {
        let mut out = self.prefix();
        out.extend_from_slice(&row.to_be_bytes());
        out
    }

    /// The window of a row's key; `None` for bytes that are no such key.
    pub(super) fn of_row_key(key: &[u8]) -> Option<Self> {
        let (room, rest) = key.split_first_chunk::<16>()?;
        let (category, rest) = rest.split_first()?;
        let (hour, row) = rest.split_first_chunk::<4>()?;
        if row.len() != 8 {
            return None;
        }
        Some(Self {
            room: RoomId(*room),
            category: Category::from_code(*category)?,
            hour: Hour(u32::from_be_bytes(*hour)),
        })
    }
}

/// Whether an event goes before the others of its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Urgent = 0,
    Ordered = 1,
}

impl Class {
    pub(super) fn of(urgent: bool) -> Self {
        if urgent { Self::Urgent } else { Self::Ordered }
    }

    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Urgent => 0,
            Self::Ordered => 1,
        }
    }
}

pub(super) fn outbox_key(room: RoomId, class: Class, row: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(25);
    out.extend_from_slice(&room.0);
    out.push(class.byte());
    out.extend_from_slice(&row.to_be_bytes());
    out
}

pub(super) fn id_key(room: RoomId, id: &EheId) -> Vec<u8> {
    let mut out = Vec::with_capacity(48);
    out.extend_from_slice(&room.0);
    out.extend_from_slice(&id.0);
    out
}

pub(super) fn room_of_key(key: &[u8]) -> Option<RoomId> {
    key.first_chunk::<16>().map(|room| RoomId(*room))
}

/// Longer than any key of the tables.
const KEY_MAX_BYTES: usize = 64;

/// The key after all keys that begin with `prefix`.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    while let Some(last) = out.pop() {
        if last < 0xff {
            out.push(last + 1);
            return out;
        }
    }
    vec![0xff; prefix.len() + KEY_MAX_BYTES]
}

/// An event that waits for its receipt.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(super) struct OutboxRow {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) id: Vec<u8>,
    #[n(1)]
    pub(super) event: ehe::event::Event,
    /// Readings in it; 0 for a wrap.
    #[n(2)]
    pub(super) readings: u32,
    /// Receipt of the oldest reading in it.
    #[n(3)]
    pub(super) oldest: UnixMs,
    /// The wrap that its key came with; none for a wrap itself.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(super) wrap: Option<Vec<u8>>,
    /// For the lab only: which readings it carries, sealed like a row.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub(super) report: Option<Vec<u8>>,
}

impl OutboxRow {
    /// A stored row and its event's id; none where the bytes are not what was written.
    pub(super) fn read(value: &[u8]) -> Option<(EheId, Self)> {
        let row: Self = minicbor::decode(value).ok()?;
        Some((EheId(row.id.as_slice().try_into().ok()?), row))
    }
}

/// An event that the ledger refused for good.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(super) struct QuarantineRow {
    #[n(0)]
    pub(super) refusal: ehe::refusal::Refusal,
    #[n(1)]
    pub(super) at: UnixMs,
    #[n(2)]
    pub(super) urgent: bool,
    #[n(3)]
    pub(super) row: OutboxRow,
    /// Its number in the outbox.
    #[n(4)]
    pub(super) number: u64,
    /// The number under which it was put aside: what was refused last is tried again last.
    #[n(5)]
    pub(super) aside: Option<u64>,
}

/// The record of a room's readings that were dropped, because what waits for an invitation had filled the room's share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
pub struct Thinned {
    /// How many.
    #[n(0)]
    pub readings: u64,
    /// Receipt of the first.
    #[n(1)]
    pub first: UnixMs,
    /// Receipt of the last.
    #[n(2)]
    pub last: UnixMs,
}

/// What one room has in the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct RoomTotals {
    #[n(0)]
    pub(super) events: u64,
    #[n(1)]
    pub(super) bytes: u64,
    #[n(2)]
    pub(super) urgent: u64,
    #[n(3)]
    pub(super) oldest: UnixMs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_key_gives_its_window_back_and_other_bytes_none() {
        let window = WindowKey { room: RoomId([7; 16]), category: Category::Body, hour: Hour(480_000) };
        assert_eq!(WindowKey::of_row_key(&window.row_key(9)), Some(window));
        assert_eq!(WindowKey::of_row_key(&window.prefix()), None);
        assert_eq!(WindowKey::of_row_key(b""), None);
        assert!(window.row_key(255) < window.row_key(256));
    }

    #[test]
    fn the_end_of_a_prefix_lies_after_everything_that_begins_with_it() {
        assert_eq!(end_of(&[1, 2]), [1, 3]);
        assert_eq!(end_of(&[1, 0xff]), [2]);
        assert!(end_of(&[0xff, 0xff]) > vec![0xff, 0xff, 0xff]);
    }
}
