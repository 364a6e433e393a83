//! Which events are in the log, and where.
//!
//! ```text
//! hour (3) ‖ first 12 bytes of the event's id → log index (5) ‖ position in the run (1)      numbers big-endian
//! ```
//!
//! Ids are random, so an index by id alone would touch a page of its own, anywhere in the file, for each event. By the hour
//! first, what comes in together lies together.
//!
//! Two events of one hour and one such prefix cost their author 2^48 hashes and only make the second one "known"; in one run they are
//! refused ([`have_rows_of_their_own`]): one row cannot tell of both, and whoever looks the tables through would take that for damage, on
//! every replica at once. To make one that takes another author's event its place costs 2^96, before that event is sent.

use std::collections::BTreeSet;

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

/// Whether each event of a run has a row of its own.
pub(super) fn have_rows_of_their_own(events: impl ExactSizeIterator<Item = (Hour, EheId)>) -> bool {
    let count = events.len();
    count < 2 || events.map(|(hour, id)| key(hour, id)).collect::<BTreeSet<_>>().len() == count
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
    let [i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11, ..] = prefix(id);
    [h0, h1, h2, i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, i10, i11]
}

#[cfg(not(test))]
fn prefix(id: EheId) -> [u8; 32] {
    id.0
}

/// In tests that want them, events that are alike in fewer bytes are enough: nobody waits for 2^48 hashes.
#[cfg(test)]
fn prefix(id: EheId) -> [u8; 32] {
    let mut bytes = id.0;
    bytes.iter_mut().skip(tests::PREFIX.get()).for_each(|byte| *byte = 0);
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Bytes of an event's id by which it is known on this thread.
        pub(in crate::shard) static PREFIX: Cell<usize> = const { Cell::new(12) };
    }

    #[test]
    fn events_of_one_run_have_one_row_only_where_hour_and_prefix_are_alike() {
        let event = |hour, prefix: u8, end: u8| {
            let mut id = [prefix; 32];
            id[12..].fill(end);
            (Hour(hour), EheId(id))
        };
        let own = |events: &[(Hour, EheId)]| have_rows_of_their_own(events.iter().copied());
        assert!(own(&[]) && own(&[event(1, 1, 1)]));
        assert!(own(&[event(1, 1, 1), event(2, 1, 1), event(1, 2, 1)]));
        assert!(!own(&[event(1, 1, 1), event(1, 3, 1), event(1, 1, 2)]));
        assert!(!own(&[event(0x00ff_ffff, 1, 1), event(0x0100_0000, 1, 2)]), "hours that share their rows");
    }
}
