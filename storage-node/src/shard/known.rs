//! Which events are in the log, and where.
//!
//! ```text
//! hour (3) ‖ first 12 bytes of the event's id → log index (5) ‖ position in the run (1)      numbers big-endian
//! ```
//!
//! Ids are random, so an index by id alone would touch a page of its own, anywhere in the file, for each event. By the hour
//! first, what comes in together lies together.
//!
//! Two events of one hour and one such prefix cost their author 2^48 hashes and only make the second one "known". To make one
//! that takes another author's event its place costs 2^96, before that event is sent.

use ehe::id::EheId;
use ehe::time::Hour;
use redb::{ReadableTable, Table};

use super::store::StoreError;

/// Key of a row.
pub(super) type KnownKey = &'static [u8; 15];
/// Its value.
pub(super) type KnownAt = &'static [u8; 6];
/// Log index, position in the run.
pub(super) type EventAt = (u64, u16);

/// Notes where an event is.
pub(super) fn insert(
    table: &mut Table<'_, KnownKey, KnownAt>,
    hour: Hour,
    id: EheId,
    (log_index, position): EventAt,
) -> Result<(), StoreError> {
    let ([0, 0, 0, a, b, c, d, e], [0, position]) = (log_index.to_be_bytes(), position.to_be_bytes()) else {
        return Err(StoreError::Full);
    };
    table.insert(&key(hour, id), &[a, b, c, d, e, position])?;
    Ok(())
}

/// Forgets where an event is.
pub(super) fn remove(table: &mut Table<'_, KnownKey, KnownAt>, hour: Hour, id: EheId) -> Result<(), StoreError> {
    table.remove(&key(hour, id))?;
    Ok(())
}

/// Where an event is, if it is in the log.
pub(super) fn find(
    table: &impl ReadableTable<KnownKey, KnownAt>,
    hour: Hour,
    id: EheId,
) -> Result<Option<EventAt>, StoreError> {
    let found = table.get(&key(hour, id))?;
    Ok(found.map(|at| {
        let [a, b, c, d, e, position] = *at.value();
        (u64::from_be_bytes([0, 0, 0, a, b, c, d, e]), position.into())
    }))
}

fn key(hour: Hour, id: EheId) -> [u8; 15] {
    // Hours after the year 3883 share their rows.
    let [_, h0, h1, h2] = hour.0.min(0x00ff_ffff).to_be_bytes();
    let [i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11, ..] = id.0;
    [h0, h1, h2, i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11]
}
