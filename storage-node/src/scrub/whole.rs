//! What can only be asked of a shard as a whole, once all entries were looked at: that the tables hold nothing besides.

use ehe::merkle::Peaks;
use ehe::read::AccessRecord;

use super::author;
use super::finding::{Table, What};
use super::sum::Sum;
use super::walk::{Pass, Target};
use crate::shard::{Form, Records, StoreError, View};

/// Subtrees of this level and above are stored.
const STORED_LEVELS: std::ops::Range<u8> = 6..64;

/// Looks through the tables. The view has exactly the entries that the pass has.
pub(super) fn check(
    view: &View,
    pass: &Pass,
    peaks: &Peaks,
    cosigned: Option<Target>,
) -> Result<Vec<What>, StoreError> {
    let mut wrong = Vec::new();
    let mut require = |holds: bool, what: What| {
        if !holds && !wrong.contains(&what) {
            wrong.push(what);
        }
    };
    let (shard, totals) = (view.shard(), view.totals()?);
    require(soft(view.check_marker())?.is_some(), What::Table(Table::Meta));
    require(shard.time >= pass.accepted_at, What::Table(Table::Meta));
    require(cosigned.is_none_or(|at| at.incarnation == shard.incarnation), What::Table(Table::Meta));
    let counts = (shard.rooms, shard.strands, shard.wraps);
    require(counts == (totals.rooms, totals.strands, totals.wraps), What::Table(Table::Meta));

    let stored = soft(Peaks::load(view, pass.next))?;
    require(stored.as_ref().is_some_and(|stored| stored == peaks), What::Table(Table::Rows));
    let nodes: u64 = STORED_LEVELS.map(|level| pass.next >> level).sum();
    require(totals.nodes == nodes, What::Table(Table::Rows));
    require(view.leaf_rows_fit()?, What::Table(Table::Rows));
    require(log_ends(view, pass.next)?, What::Table(Table::Rows));

    let ends = soft(view.heads())?.flatten();
    let fits = ends.is_some_and(|ends| ends.entries == pass.next && ends.lists == totals.positions);
    require(fits && totals.heads == totals.rooms, What::Table(Table::Heads));
    // Where an entry is damaged, what it added to these is not known.
    let summed = pass.unknown == 0;
    require(!summed || (totals.known == pass.events && pass.void_is_recorded()), What::Table(Table::Known));
    require(totals.wraps == totals.wrap_names && (!summed || totals.wraps == pass.wraps), What::Table(Table::Wraps));

    let mut sum = Sum::default();
    let named = view.strands(|room, author, end| sum.add(room, author, &end))?;
    let numbers = totals.strands == totals.strand_names;
    require(named && numbers && (!summed || sum == pass.strands), What::Table(Table::Strands));

    require(refusals(view)?, What::Table(Table::Refusals));
    Ok(wrong)
}

/// What is no fault of the storage's is a finding, and is said as one.
fn soft<T>(found: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Corrupt(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the log's rows end with the last record.
fn log_ends(view: &View, entries: u64) -> Result<bool, StoreError> {
    let ended = (|| {
        let mut records = Records::from(view, entries.saturating_sub(1))?;
        if entries > 0 {
            records.next()?;
        }
        records.end()
    })();
    Ok(soft(ended)?.is_some())
}

/// Refusals are counted and kept beside the log; what they say of themselves has to hold.
fn refusals(view: &View) -> Result<bool, StoreError> {
    let counted = view.counted_refusals(|hour, room, reader, bytes| {
        let Ok(record) = AccessRecord::decode(bytes) else { return Ok(false) };
        let Some((rules, Form::Sound)) = soft(view.room_row(room))?.flatten() else { return Ok(false) };
        let Ok(request) = author::asked(&rules, &record) else { return Ok(false) };
        let fits = (record.at.hour().0, request.room, request.reader) == (hour, room, reader);
        Ok(fits && record.refused.is_some() && record.at <= view.shard().time)
    })?;
    Ok(counted && view.kept_refusals_decode()?)
}
