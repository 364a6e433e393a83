//! The part of a group's log that is in memory: its ends, its vote, and its newest entries.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    file::{Left, Stored},
    growth::Growth,
};
use crate::consensus::{
    error::Fault,
    fence::Fence,
    hold::Hold,
    leaps::Leaps,
    types::{Entry, EntryPayload, LogId, Payload, Vote},
};

/// How far a group's state is durable. The only thing that machine and log share, and what purging is held to.
#[derive(Debug, Default)]
pub(in crate::consensus) struct Durable(AtomicU64);

impl Durable {
    /// No bound: for openraft's test suite, which purges a log that was never applied.
    #[cfg(test)]
    pub(in crate::consensus) fn unbounded() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// The state up to and including `index` survives a crash.
    pub(in crate::consensus) fn advance(&self, index: u64) {
        self.0.fetch_max(index.saturating_add(1), Ordering::Release);
    }

    /// The state is given up.
    pub(in crate::consensus) fn forget(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Index of the last entry that survives a crash as state.
    pub(in crate::consensus) fn index(&self) -> Option<u64> {
        self.0.load(Ordering::Acquire).checked_sub(1)
    }
}

/// One group's log, as its store, its readers, the writer thread and its machine share it.
#[derive(Debug)]
pub(in crate::consensus) struct GroupLog {
    pub(in crate::consensus) fence: Arc<Fence>,
    pub(in crate::consensus) hold: Hold,
    pub(in crate::consensus) leaps: Leaps,
    pub(in crate::consensus) durable: Arc<Durable>,
    tail_bytes: usize,
    ends: Mutex<Ends>,
}

/// What changes together. Every reader and writer takes it under one lock, so that nobody copies a vote that goes
/// stale.
#[derive(Debug)]
pub(super) struct Ends {
    /// The vote that is on disk.
    pub(super) vote: Option<Vote>,
    /// The newest commit that openraft told of; written with the next thing that is.
    pub(super) committed: Option<LogId>,
    pub(super) committed_dirty: bool,
    pub(super) purged: Option<LogId>,
    /// Where the log ended when the group was last given up.
    left: Option<Left>,
    /// Index of the first entry: 0, or behind `purged`; only openraft's test suite begins elsewhere.
    pub(super) first: u64,
    /// The last entry, on disk or on its way, or `purged`.
    pub(super) last: Option<LogId>,
    /// First index that is not on disk yet: neither in the journal nor in redb.
    pub(super) flushed_end: u64,
    /// First index that is not in redb yet.
    stored_end: u64,
    /// Counts truncations, so that a write that was under way does not pass for the flush of what came after.
    pub(super) epoch: u64,
    /// The newest entries, without gaps, at least from `stored_end` on.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    growth: Growth,
}

impl GroupLog {
    pub(in crate::consensus) fn new(
        fence: Arc<Fence>,
        durable: Arc<Durable>,
        tail_bytes: usize,
        stored: Stored,
    ) -> Self {
        Self {
            fence,
            hold: Hold::default(),
            leaps: Leaps::default(),
            durable,
            tail_bytes,
            ends: Mutex::new(Ends::of(stored)),
        }
    }

    pub(super) fn ends(&self) -> MutexGuard<'_, Ends> {
        // Nothing in here can be left half done, so a panic elsewhere does not spoil it.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// First index that is not on disk yet.
    pub(in crate::consensus) fn flushed_end(&self) -> u64 {
        self.ends().flushed_end
    }

    /// Index of the last entry that is no longer in the log.
    pub(in crate::consensus) fn purged_index(&self) -> Option<u64> {
        self.ends().purged.map(|id| id.index())
    }

    /// Bytes of the entries behind `index`, about; of all, if there is none.
    pub(in crate::consensus) fn bytes_behind(&self, index: Option<u64>) -> u64 {
        self.ends().growth.behind(index)
    }

    /// The last entry behind which the log has so many bytes, about.
    pub(in crate::consensus) fn before_last_bytes(&self, bytes: u64) -> Option<u64> {
        self.ends().growth.before_last(bytes)
    }

    /// Where the log ended when the group was last given up, if it ever was.
    pub(in crate::consensus) fn left(&self) -> Option<Left> {
        self.ends().left
    }

    /// Whether the log never had an entry, and none was given up.
    pub(in crate::consensus) fn is_new(&self) -> bool {
        let ends = self.ends();
        ends.last.is_none() && ends.left.is_none()
    }

    /// Whether the log is shorter than when the group was last given up: then its members are perhaps those of long ago.
    pub(in crate::consensus) fn is_short(&self) -> bool {
        let ends = self.ends();
        ends.left.is_some_and(|left| ends.last < Some(left.last))
    }

    /// Forgets everything but the vote and where the log ended; `None` if it is empty. Nothing may use the log meanwhile.
    pub(super) fn leave(&self, under: u32) -> Option<Left> {
        let mut ends = self.ends();
        let before = ends.left.map(|left| left.last);
        let left = Left { last: ends.last.max(before)?, under };
        let (vote, epoch) = (ends.vote, ends.epoch.wrapping_add(1));
        *ends = Ends { left: Some(left), epoch, ..Ends::of(Stored { vote, ..Stored::default() }) };
        Some(left)
    }

    /// What peers' words are held against.
    pub(in crate::consensus) fn known(&self) -> (Option<Vote>, Option<LogId>) {
        let ends = self.ends();
        (ends.vote, ends.committed)
    }

    /// The writer has synced an append that ended before `end`.
    pub(super) fn flushed(&self, end: u64, epoch: u64) {
        let mut ends = self.ends();
        if ends.epoch == epoch {
            ends.flushed_end = ends.flushed_end.max(end);
        }
    }

    /// The settler has an append in redb that ended before `end`.
    pub(super) fn stored(&self, end: u64, epoch: u64) {
        let mut ends = self.ends();
        if ends.epoch == epoch {
            ends.stored_end = ends.stored_end.max(end);
            ends.evict(self.tail_bytes);
        }
    }
}

impl Ends {
    fn of(stored: Stored) -> Self {
        Self {
            vote: stored.vote,
            committed: stored.committed,
            committed_dirty: false,
            purged: stored.purged,
            left: stored.left,
            first: next_index(stored.purged.as_ref()),
            last: stored.last,
            flushed_end: next_index(stored.last.as_ref()),
            stored_end: next_index(stored.last.as_ref()),
            epoch: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            growth: Growth::of(next_index(stored.purged.as_ref()), next_index(stored.last.as_ref()), stored.bytes),
        }
    }

    /// Takes entries at the end. `Err` says what is wrong with them.
    pub(super) fn push(&mut self, entries: &[Entry]) -> Result<(), String> {
        let mut next = self.last.map(|id| id.index().saturating_add(1));
        for entry in entries {
            let index = entry.log_id.index();
            if next.is_some_and(|next| next != index) {
                return Err(format!("an append of entry {index} where {next:?} belongs would leave a hole in the log"));
            }
            next = Some(index.saturating_add(1));
        }
        if let (None, Some(first)) = (self.last, entries.first()) {
            self.first = first.log_id.index();
        }
        for entry in entries {
            self.tail_bytes = self.tail_bytes.saturating_add(weight(entry));
            self.growth.append(entry.log_id.index(), weight(entry));
            self.tail.push_back(entry.clone());
            self.last = Some(entry.log_id);
        }
        Ok(())
    }

    /// Drops everything behind `after`.
    pub(super) fn truncate(&mut self, after: Option<LogId>) {
        let end = next_index(after.as_ref());
        while self.tail.back().is_some_and(|entry| entry.log_id.index() >= end) {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes = self.tail_bytes.saturating_sub(weight(&entry));
            }
        }
        self.growth.truncate(end);
        self.last = after.or(self.purged);
        self.flushed_end = self.flushed_end.min(end);
        self.stored_end = self.stored_end.min(end);
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Forgets everything up to and including `upto`. `true` if nothing is left.
    pub(super) fn purge(&mut self, upto: LogId) -> bool {
        self.purged = self.purged.max(Some(upto));
        self.first = self.first.max(next_index(Some(&upto)));
        self.growth.purge(upto.index());
        let whole = self.last.is_none_or(|last| last.index() <= upto.index());
        if whole {
            self.last = Some(upto);
            self.flushed_end = next_index(Some(&upto));
            self.stored_end = next_index(Some(&upto));
            self.epoch = self.epoch.wrapping_add(1);
        }
        while self.tail.front().is_some_and(|entry| entry.log_id.index() <= upto.index()) {
            self.pop_front();
        }
        whole
    }

    /// The entries in `[start, end)` that are in memory. What precedes them is in redb.
    pub(super) fn tail(&self, start: u64, end: u64, max_bytes: usize) -> (u64, Vec<Entry>) {
        let first = self.tail.front().map_or_else(|| next_index(self.last.as_ref()), |entry| entry.log_id.index());
        let from = start.max(first).min(end);
        let skip = usize::try_from(from - first.min(from)).unwrap_or(usize::MAX);
        let mut bytes = 0_usize;
        let mut entries = Vec::new();
        for entry in self.tail.iter().skip(skip).take_while(|entry| entry.log_id.index() < end) {
            if bytes >= max_bytes {
                break;
            }
            bytes = bytes.saturating_add(weight(entry));
            entries.push(entry.clone());
        }
        (from, entries)
    }

    /// Cuts a range down to what the log has.
    pub(super) fn clip(&self, start: u64, end: u64) -> (u64, u64) {
        (start.max(self.first), end.min(next_index(self.last.as_ref())))
    }

    fn evict(&mut self, limit: usize) {
        while self.tail_bytes > limit && self.tail.front().is_some_and(|entry| entry.log_id.index() < self.stored_end) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes = self.tail_bytes.saturating_sub(weight(&entry));
        }
    }
}

/// The index behind `id`.
pub(in crate::consensus) fn next_index(id: Option<&LogId>) -> u64 {
    id.map_or(0, |id| id.index().saturating_add(1))
}

/// What an entry costs in memory, about.
pub(super) fn weight(entry: &Entry) -> usize {
    let body = match &entry.payload {
        EntryPayload::Normal(Payload(bytes)) => bytes.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    body.saturating_add(128)
}

/// Shorthand of the writer and the store.
pub(super) type Outcome = Result<(), Arc<Fault>>;
