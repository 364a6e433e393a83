//! Whether a shard's tables say what its log says, and its log is the one that a quorum cosigned.
//!
//! Asked of a state that another node sent, before anybody relies on it: every entry is put together and its leaf computed anew,
//! every event has the body that its header names, the tree above them is built from nothing, and the places, counts, times and rules
//! that stand beside the log have to fit it; and it has all that this node's own log has ([`extends`]). The rules of each room are those
//! to which its control events lead: these are applied again, room by room, and those that the quorum has not cosigned yet have to be
//! signed by who may. What this cannot show is that the leaves behind the quorum's note, and how far the charter in effect is vouched
//! for, are what the others have: the next checkpoint shows it.

use ehe::event::Header;
use ehe::id::{Hash, RoomId};
use ehe::limits;
use ehe::merkle::Peaks;
use ehe::read::{AccessRecord, record_hash};
use ehe::room::RoomState;
use ehe::time::UnixMs;
use redb::{ReadableTable, ReadableTableMetadata};
use sha2::{Digest, Sha256};

use super::charters::Charters;
use super::entry::{Entry, LogName, Names, is_whole};
use super::extent::Extent;
use super::known;
use super::notary::Attested;
use super::place::Place;
use super::places;
use super::record::{KeptHeader, Record, What};
use super::replay::Log;
use super::schema::{ReadTables, RunRefusal, ShardMeta, StoredWrap};
use super::segments;
use super::store::{StoreError, check_marker, shard_meta};
use super::tree::Built;
use super::view::ROOM_STATE_MAX_BYTES;
use crate::checkpoint::CLOCK_DIFFERS_MAX_MS;

/// Judges the tables of a shard. `attested`: what a quorum cosigned; it may be older than the state, never newer. `now`: no time of it is
/// ahead of that by more than clocks may differ.
pub(super) fn check(
    tables: &ReadTables,
    place: &Place,
    attested: Option<&Attested>,
    now: Option<UnixMs>,
) -> Result<(), StoreError> {
    sound(tables, place, attested, now).map_err(theirs)
}

/// Whether the tables have all that `own` has, and go on from there.
pub(super) fn extends(tables: &ReadTables, place: &Place, own: &Extent) -> Result<(), StoreError> {
    own.is_in(tables, place.alliance).map_err(theirs)
}

/// This node's own file is not in question.
fn theirs(error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt(what) => StoreError::Stream(what),
        other => other,
    }
}

fn sound(
    tables: &ReadTables,
    place: &Place,
    attested: Option<&Attested>,
    now: Option<UnixMs>,
) -> Result<(), StoreError> {
    check_marker(&tables.meta, place.alliance, place.shard)?;
    let shard = shard_meta(&tables.meta)?;
    match attested {
        None if shard.leaves > 0 => return unsound("no quorum stands behind its log"),
        Some(attested) if attested.incarnation != shard.incarnation => {
            return unsound("its note is of another incarnation of the log");
        }
        Some(attested) if attested.size > shard.leaves => return unsound("its note is of a longer log"),
        _ => {}
    }
    let charters = Charters::load(&tables.meta, place.alliance)?;
    // Before the first entry that brings one, it is charter 1.
    let in_effect = charters.in_effect().map_or(1, |now| now.charter.version());
    if attested.is_some_and(|attested| attested.charter_version > in_effect) {
        return unsound("its note is of a later charter than the one in effect in it");
    }
    // The ledger's time never goes back: one from ahead of the clocks would end every grant before its time.
    let ahead_ms = now.map_or(0, |now| shard.time.since(now));
    if ahead_ms > CLOCK_DIFFERS_MAX_MS {
        return Err(StoreError::Ahead { ahead_ms });
    }
    log(tables, place, &shard, attested)?;
    counts(tables, &shard)?;
    rooms(tables, place, attested.map_or(0, |attested| attested.size))?;
    rows(tables)
}

/// The rules of each room: what its control events make of it, one room in memory at a time.
fn rooms(tables: &ReadTables, place: &Place, vouched: u64) -> Result<(), StoreError> {
    let name = LogName { alliance: place.alliance, shard: place.shard };
    let (log, names) = (Log { tables, name, vouched }, Names::new(tables, name, None));
    for row in tables.rooms.iter()? {
        let (key, value) = row?;
        let state = RoomState::decode(value.value(), ROOM_STATE_MAX_BYTES);
        let Some(state) = state.ok().filter(|state| state.room.as_bytes() == key.value()) else {
            return unsound("a room's rules do not decode");
        };
        if !log.leads_to(&names, state.room, &state)? {
            return unsound("a room's rules are not those to which its records lead");
        }
    }
    Ok(())
}

/// Entries, leaves, tree and places.
fn log(tables: &ReadTables, place: &Place, shard: &ShardMeta, attested: Option<&Attested>) -> Result<(), StoreError> {
    let names = Names::new(tables, LogName { alliance: place.alliance, shard: place.shard }, None);
    let (mut built, mut events, mut time) = (Built::new(tables)?, 0u64, UnixMs(0));
    let mut voided = Unrecorded::new()?;
    let attests = |peaks: &Peaks| match attested {
        Some(attested) if attested.size == peaks.size() && attested.root != peaks.root() => {
            unsound("its log is not the one that the quorum cosigned")
        }
        _ => Ok(()),
    };
    attests(built.peaks())?;
    let entries = segments::walk(&tables.log, |log_index, bytes| {
        let record = Record::decode(bytes).ok_or(StoreError::Stream("an entry does not decode"))?;
        let entry = names.rebuild(log_index, &record)?;
        if !is_whole(&record, bytes, &entry) {
            return unsound("an entry is not whole");
        }
        if entry.accepted_at < time {
            return unsound("its time goes back");
        }
        time = entry.accepted_at;
        events = events.saturating_add(u64::try_from(entry.events.len()).unwrap_or(u64::MAX));
        if let Some(void) = entry.void() {
            let named = void.run.decode().map_or(0, |run| run.claims().ids.len());
            if void.index >= entry.index {
                return unsound("a run that it says is void does not come before that");
            }
            voided.record(entry.room, void.index, void.run.hash());
            events = events.saturating_sub(u64::try_from(named).unwrap_or(u64::MAX));
        }
        if entry.room.shard(place.shard_count) != place.shard {
            return unsound("an entry is of another shard's room");
        }
        let (before, at) = places::around(tables, entry.room, entry.index)?;
        if at != log_index {
            return unsound("a room's places are not those of its entries");
        }
        if !known_each(tables, log_index, &record, &entry)? {
            voided.run(entry.room, entry.index, record_hash(&entry.bytes));
        }
        let leaf = entry.leaf(before, |at| built.leaf(at))?;
        built.append(leaf.hash())?;
        attests(built.peaks())
    })?;
    built.finish()?;
    if !voided.is_none() {
        return unsound("it does not know each event of its log, or what it says is void is not");
    }
    if entries != shard.leaves {
        return unsound("its log has another length than it says");
    }
    if shard.time < time {
        return unsound("its time is before that of its last entry");
    }
    if tables.known.len()? != events {
        return unsound("it does not know each event of its log");
    }
    places::ends(tables, shard.leaves)
}

/// Runs that are not known by their events, less those of which a record says that they are void: how many, and a sum over them. A leader that
/// lied may have let in any number before the first was void, so they are not remembered one by one. What a run adds, and its record takes away,
/// depends on a key that is made here: whoever sent the state cannot have others come to the same sum.
struct Unrecorded {
    key: [u8; 32],
    runs: u64,
    sum: u128,
}

impl Unrecorded {
    fn new() -> Result<Self, StoreError> {
        let mut key = [0; 32];
        let failed = |error| StoreError::Db(Box::new(redb::Error::Io(std::io::Error::other(error))));
        getrandom::fill(&mut key).map_err(failed)?;
        Ok(Self { key, runs: 0, sum: 0 })
    }

    fn share(&self, room: RoomId, index: u64, run: Hash) -> u128 {
        let mut hash = Sha256::new_with_prefix(self.key);
        hash.update(room.as_bytes());
        hash.update(index.to_be_bytes());
        hash.update(run.0);
        let hash: [u8; 32] = hash.finalize().into();
        hash.first_chunk().map_or(0, |share| u128::from_be_bytes(*share))
    }

    fn run(&mut self, room: RoomId, index: u64, run: Hash) {
        (self.runs, self.sum) = (self.runs.wrapping_add(1), self.sum.wrapping_add(self.share(room, index, run)));
    }

    fn record(&mut self, room: RoomId, index: u64, run: Hash) {
        (self.runs, self.sum) = (self.runs.wrapping_sub(1), self.sum.wrapping_sub(self.share(room, index, run)));
    }

    fn is_none(&self) -> bool {
        (self.runs, self.sum) == (0, 0)
    }
}

/// A run that is submitted again is told by its events: all of them, or none, if it is void. False: none.
fn known_each(tables: &ReadTables, log_index: u64, record: &Record<'_>, entry: &Entry) -> Result<bool, StoreError> {
    let kept = match &record.what {
        What::Access { .. } => return Ok(true),
        What::Whole { events, .. } | What::Parts { events, .. } => events,
    };
    let mut known = 0usize;
    for ((position, kept), event) in (0u16..).zip(kept).zip(&entry.events) {
        let hour = match &kept.header {
            KeptHeader::Content { hour, .. } | KeptHeader::Control { hour, .. } => *hour,
            KeptHeader::Whole(header) => {
                let header: Result<Header, _> = ehe::cbor::from_slice(header, header.len());
                header.map_err(|_| StoreError::Stream("an event's header does not decode"))?.core.hour
            }
        };
        known += usize::from(known::find(&tables.known, hour, event.id())? == Some((log_index, position)));
    }
    match known {
        0 => Ok(entry.events.is_empty()),
        known if known == entry.events.len() => Ok(true),
        _ => unsound("it does not know an event of its log"),
    }
}

/// What is counted is what is there.
fn counts(tables: &ReadTables, shard: &ShardMeta) -> Result<(), StoreError> {
    let fits = tables.rooms.len()? == shard.rooms
        && tables.heads.len()? == shard.rooms
        && tables.strands.len()? == shard.strands
        && tables.strand_names.len()? == shard.strands
        && tables.wraps.len()? == shard.wraps
        && tables.wrap_names.len()? == shard.wraps;
    if fits { Ok(()) } else { unsound("rooms, strands or wraps are missing") }
}

/// What apply would stumble over.
fn rows(tables: &ReadTables) -> Result<(), StoreError> {
    for row in tables.wraps.iter()? {
        let (_, value) = row?;
        if ehe::cbor::from_slice::<StoredWrap>(value.value(), 128).is_err() {
            return unsound("a wrap does not decode");
        }
    }
    for row in tables.read_refusals.iter()? {
        let (_, value) = row?;
        if AccessRecord::decode(value.value()).is_err() {
            return unsound("a counted refusal does not decode");
        }
    }
    for row in tables.run_refusals.iter()? {
        let (_, value) = row?;
        if ehe::cbor::from_slice::<Vec<RunRefusal>>(value.value(), limits::READ_REQUEST_MAX_BYTES).is_err() {
            return unsound("kept refusals do not decode");
        }
    }
    Ok(())
}

fn unsound<T>(what: &'static str) -> Result<T, StoreError> {
    Err(StoreError::Stream(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_needs_the_record_of_itself_and_of_no_other() {
        let (room, other) = (RoomId([1; 16]), RoomId([2; 16]));
        let run = |n: u8| Hash([n; 32]);
        let mut unrecorded = Unrecorded::new().unwrap();
        (0..9).for_each(|n| unrecorded.run(room, n, run(1)));
        (0..8).rev().for_each(|n| unrecorded.record(room, n, run(1)));
        assert!(!unrecorded.is_none());
        for (room, index, of) in [(other, 8, run(1)), (room, 7, run(1)), (room, 8, run(2))] {
            unrecorded.record(room, index, of);
            assert!(!unrecorded.is_none());
            unrecorded.run(room, index, of);
        }
        unrecorded.record(room, 8, run(1));
        assert!(unrecorded.is_none());
        unrecorded.record(room, 8, run(1));
        assert!(!unrecorded.is_none(), "twice");
        assert_ne!(Unrecorded::new().unwrap().key, Unrecorded::new().unwrap().key);
    }
}
