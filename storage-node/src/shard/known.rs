//! Which events are in the log, and where.
//!
//! ```text
//! hour (3) ‖ first 6 bytes of the event's id ‖ log index (5) ‖ position in the run (1) → nothing      numbers big-endian
//! ```
//!
//! Ids are random, so an index by id alone would touch a page of its own, anywhere in the file, for each event. By the hour
//! first, what comes in together lies together. Six bytes do not name an event; whoever asks compares the whole id with that of
//! the event at the place. To make an event that is compared in vain costs its author 2^48 hashes.

use ehe::id::EheId;
use ehe::time::Hour;
use redb::{ReadableTable, Table};

use super::store::StoreError;

/// Key of a row.
pub(super) type KnownKey = &'static [u8; 15];
/// Log index, position in the run.
pub(super) type EventAt = (u64, u16);

/// Notes where an event is.
pub(super) fn insert(
    table: &mut Table<'_, KnownKey, ()>,
    hour: Hour,
    id: EheId,
    at: EventAt,
) -> Result<(), StoreError> {
    table.insert(&key(hour, id, at).ok_or(StoreError::Full)?, ())?;
    Ok(())
}

/// Where an event may be.
pub(super) fn places(
    table: &impl ReadableTable<KnownKey, ()>,
    hour: Hour,
    id: EheId,
) -> Result<Vec<EventAt>, StoreError> {
    let (first, last) = (prefixed(hour, id, [0; 6]), prefixed(hour, id, [0xff; 6]));
    let mut out = Vec::new();
    for row in table.range::<&[u8; 15]>(&first..=&last)? {
        let (key, ()) = {
            let (key, value) = row?;
            (*key.value(), value.value())
        };
        let [.., a, b, c, d, e, position] = key;
        out.push((u64::from_be_bytes([0, 0, 0, a, b, c, d, e]), position.into()));
    }
    Ok(out)
}

fn key(hour: Hour, id: EheId, (log_index, position): EventAt) -> Option<[u8; 15]> {
    let [0, 0, 0, a, b, c, d, e] = log_index.to_be_bytes() else { return None };
    Some(prefixed(hour, id, [a, b, c, d, e, position.try_into().ok()?]))
}

fn prefixed(hour: Hour, id: EheId, place: [u8; 6]) -> [u8; 15] {
    // Hours after the year 3883 share their rows.
    let [_, h0, h1, h2] = hour.0.min(0x00ff_ffff).to_be_bytes();
    let [i0, i1, i2, i3, i4, i5, ..] = id.0;
    let [p0, p1, p2, p3, p4, p5] = place;
    [h0, h1, h2, i0, i1, i2, i3, i4, i5, p0, p1, p2, p3, p4, p5]
}
