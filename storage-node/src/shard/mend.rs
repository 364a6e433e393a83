//! Damaged rows of the log had again from another node: replicas have the same rows, byte for byte. The tree says which entries belong in
//! them, and an entry's run, by its events' ids, which bodies belong to it ([`is_whole`]): so nothing of the other node is believed.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::{Durability, ReadableTable};

use ehe::id::Hash;
use ehe::leaf::Leaf;
use ehe::merkle::{NodeAt, Nodes};
use ehe::read::record_hash;

use super::audit::Records;
use super::entry::{Entry, LogName, Names, is_whole};
use super::export::Export;
use super::extent::{Extent, Own};
use super::folder::Dir;
use super::incoming::{Arrived, Incoming};
use super::notary::Notary;
use super::place::Place;
use super::places;
use super::record::Record;
use super::schema::Look;
use super::segments::{self, FIRST_BYTES, SEGMENT_BYTES, SegmentKey};
use super::store::{Beside, Store, StoreError};
use super::tree::Tree;
use super::view::View;
use crate::clock::Clock;

/// A record of the greatest length takes so many rows, and its neighbours one more at each end.
pub(crate) const ROWS_MAX: usize = segments::RECORD_MAX_BYTES / (SEGMENT_BYTES - FIRST_BYTES) + 3;

const NOT_IT: StoreError = StoreError::Stream("rows of the log that another node sent do not hold the entry");

/// A row of the log, as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Record and offset at which it begins.
    pub key: (u64, u32),
    /// The row.
    pub bytes: Vec<u8>,
}

/// Receives another node's state of a shard beside this node's file in `dir`, which is not open. What it cannot tell any more is known from
/// elsewhere: `own`, so far its log went at least.
pub(crate) fn receive(
    dir: &Path,
    place: Place,
    notary: Notary,
    (own, clock): (Extent, Clock),
    cache_bytes: usize,
) -> Result<Incoming, StoreError> {
    let folder = Arc::new(Dir::new(dir, place.shard));
    Incoming::begin(Some(Beside { folder, cache_bytes }), place, Some(notary), (Own::at(own), Some(clock)))
}

impl Arrived {
    /// Takes the place of the shard's file, which is not open. `applied`: what this node's consensus keeps of it.
    pub(crate) fn take_place(self, applied: &[u8]) -> Result<(), StoreError> {
        self.settle(applied).map(drop)
    }
}

impl View {
    /// The rows that hold an entry, if it is sound here.
    pub(crate) fn rows_of(&self, log_index: u64) -> Result<Vec<LogRow>, StoreError> {
        if log_index >= self.shard().leaves || !is_sound(self.tables(), self.log_name(), log_index)? {
            return Err(StoreError::Corrupt("this node does not have the entry either"));
        }
        let log = &self.tables().log;
        let first = log.range(..=(log_index, 0))?.next_back().ok_or(NOT_IT)??.0.value();
        let mut rows = Vec::new();
        for row in log.range(first..=(log_index, u32::MAX))?.take(ROWS_MAX) {
            let (key, bytes) = row?;
            rows.push(LogRow { key: key.value(), bytes: bytes.value().to_vec() });
        }
        Ok(rows)
    }
}

impl Store {
    /// The whole state as of one moment, with a note of a quorum before it, and what it says of the log.
    pub(crate) fn state(&self, note: Option<&str>) -> Result<(Vec<u8>, impl Read + Send), StoreError> {
        let moment = self.read()?;
        let applied = View::open(&moment, self.log())?.applied()?;
        let applied = applied.ok_or(StoreError::Corrupt("it has no state yet"))?;
        Ok((applied, Export::new(&moment, note)?))
    }

    /// Puts rows that hold an entry in the place of those that are there: if the entry is the tree's with them, and no other one of which they
    /// hold a part was it without them alone. Durable when it returns `Ok`, and so is all that was applied: the log must have that, and the group
    /// be held, so that nothing is applied meanwhile.
    pub(crate) fn mend(&self, log_index: u64, rows: &[LogRow]) -> Result<(), StoreError> {
        let log = self.log();
        let leaves = self.view()?.shard().leaves;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Err(NOT_IT) };
        let (first, last) = (first.key, last.key);
        let ordered = rows.windows(2).all(|pair| matches!(pair, [a, b] if a.key < b.key));
        let sized = rows.iter().all(|row| (FIRST_BYTES + 1..=SEGMENT_BYTES).contains(&row.bytes.len()));
        if !ordered || !sized || rows.len() > ROWS_MAX || first > (log_index, 0) || last.0 > log_index {
            return Err(NOT_IT);
        }
        self.write(Durability::Immediate, |tables| {
            let end = match tables.log.last()? {
                Some((key, row)) => (key.value(), row.value().len()),
                None => return Err(NOT_IT),
            };
            // The first row may begin with the end of a record before.
            let before = unsound(tables, log, (first.0, log_index, last), leaves)?;
            let there: Vec<SegmentKey> = {
                let keys = tables.log.range(first..=(log_index, u32::MAX))?;
                keys.map(|row| Ok(row?.0.value())).collect::<Result<_, StoreError>>()?
            };
            for key in there {
                tables.log.remove(key)?;
            }
            for row in rows {
                // Only the last row is not full, and there the other node may have more than this one.
                let bytes = match row.key.cmp(&end.0) {
                    std::cmp::Ordering::Less if row.bytes.len() == SEGMENT_BYTES => Some(row.bytes.as_slice()),
                    std::cmp::Ordering::Equal => row.bytes.get(..end.1),
                    _ => None,
                };
                tables.log.insert(row.key, bytes.ok_or(NOT_IT)?)?;
            }
            // Nothing that was sound is another now.
            let after = unsound(tables, log, (first.0, log_index, last), leaves)?;
            if after.contains(&log_index) || !after.is_subset(&before) { Err(NOT_IT) } else { Ok(()) }
        })?;
        self.mended().fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// Entries that are not those of the tree, of those from `from` on that the rows hold up to the row `last`, and up to `entry` at least.
fn unsound(
    tables: &impl Look,
    log: LogName,
    (from, entry, last): (u64, u64, SegmentKey),
    leaves: u64,
) -> Result<BTreeSet<u64>, StoreError> {
    let (mut out, mut records) = (BTreeSet::new(), None);
    for index in from..leaves {
        let mut read = || -> Result<(Vec<u8>, SegmentKey), StoreError> {
            if records.is_none() {
                records = Some(Records::over(tables.log(), index)?);
            }
            let records = records.as_mut().ok_or(NOT_IT)?;
            Ok((records.next()?, records.key()))
        };
        match read() {
            Ok((bytes, row)) => {
                if !is_leaf(tables, log, index, &bytes)? {
                    out.insert(index);
                }
                if index >= entry && row > last {
                    return Ok(out);
                }
            }
            Err(StoreError::Corrupt(_) | StoreError::Stream(_)) => {
                records = None;
                out.insert(index);
                if index > entry.saturating_add(ROWS_MAX as u64) {
                    return Ok(out);
                }
            }
            Err(error) => return Err(error),
        }
    }
    // Nothing stands behind the last one.
    let ended = records.map_or(Err(NOT_IT), Records::end);
    match ended {
        Ok(()) => {}
        Err(StoreError::Corrupt(_) | StoreError::Stream(_)) => drop(out.insert(leaves)),
        Err(error) => return Err(error),
    }
    Ok(out)
}

/// Whether an entry is the one that the tree has.
fn is_sound(tables: &impl Look, log: LogName, log_index: u64) -> Result<bool, StoreError> {
    match segments::read(tables.log(), log_index) {
        Ok(bytes) => is_leaf(tables, log, log_index, &bytes),
        Err(StoreError::Corrupt(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_leaf(tables: &impl Look, log: LogName, log_index: u64, bytes: &[u8]) -> Result<bool, StoreError> {
    match leaf_of(tables, log, log_index, bytes) {
        Ok(Some(leaf)) => Ok(Tree(tables).node(NodeAt { level: 0, index: log_index })? == leaf),
        Ok(None) => Ok(false),
        Err(StoreError::Corrupt(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// `None`: the record is not whole.
fn leaf_of(tables: &impl Look, log: LogName, log_index: u64, bytes: &[u8]) -> Result<Option<Hash>, StoreError> {
    const RECORD: StoreError = StoreError::Corrupt("an entry of the log does not decode");
    let record = Record::decode(bytes).ok_or(RECORD)?;
    let entry: Entry = Names::new(tables, log, None).rebuild(log_index, &record)?;
    if !is_whole(&record, bytes, &entry) {
        return Ok(None);
    }
    let previous = match entry.index.checked_sub(1) {
        None => Hash::ZERO,
        Some(before) => {
            let at = places::position(tables, entry.room, before)?.ok_or(RECORD)?;
            Tree(tables).node(NodeAt { level: 0, index: at })?
        }
    };
    let Entry { room, index, accepted_at, control, .. } = entry;
    Ok(Some(Leaf { room, index, previous, entry: record_hash(&entry.bytes), accepted_at, control }.hash()))
}
