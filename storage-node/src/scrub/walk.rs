//! One pass over a shard: entry by entry, in the log's order, in steps of a bounded length.
//!
//! A step looks at one view, which may be a later one than the last step's: everything that is kept of an entry stays as it is when
//! others follow, or only moves on. What a pass has to remember is a few hundred bytes ([`Pass`]), so it can be put down at any step
//! and taken up after a restart. When a pass has caught up with the log, it ends with what can only be asked of the whole
//! ([`Walk::finish`]): that the tables hold nothing else, and that their ends are the log's.

use std::panic::AssertUnwindSafe;

use ehe::id::Hash;
use ehe::merkle::Peaks;
use ehe::time::UnixMs;
use minicbor::{Decode, Encode};

use super::entry::{Checked, Looked, check};
use super::finding::{Finding, What};
use super::sum::Sum;
use super::whole;
use crate::shard::{Records, StoreError, View};

/// Findings of damage that are kept of one pass, which ends with so many.
pub const FINDINGS_MAX: usize = 256;
/// Findings that say what other nodes let in, which are kept of one pass besides. It goes on behind more of them: whoever orders for a second can
/// let in more than any number, and what is behind it would never be looked at again.
pub const REPORTS_MAX: usize = if cfg!(test) { 16 } else { 1024 };

/// How far a pass is, and what it has added up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Pass {
    /// Log index of the entry that comes next.
    #[n(0)]
    pub next: u64,
    /// The tree of the entries before it.
    #[n(1)]
    pub(super) peaks: Vec<Hash>,
    /// Their events.
    #[n(2)]
    pub events: u64,
    /// Their wraps.
    #[n(3)]
    pub(super) wraps: u64,
    /// Where they left their strands.
    #[n(4)]
    pub(super) strands: Sum,
    /// When the last of them was accepted.
    #[n(5)]
    pub(super) accepted_at: UnixMs,
    /// What was found, the first ones.
    #[n(6)]
    pub findings: Vec<Finding>,
    /// How much was found in all.
    #[n(7)]
    pub found: u64,
    /// Entries of which it is not known what they were: then sums over all entries say nothing.
    #[n(8)]
    pub(super) unknown: u64,
    /// A sum over the runs that are taken as void, less those of which a record says so: absent and 0 are alike.
    #[n(9)]
    unrecorded: Option<u64>,
    /// Findings of what other nodes let in that are not kept: absent and 0 are alike. False signatures among them are in the sum above, too.
    #[n(10)]
    unlisted: Option<u64>,
}

impl Pass {
    /// Whether a record says of each run that was taken as void that it is. Nobody knows where there was more than is listed.
    pub(super) fn void_is_recorded(&self) -> bool {
        self.unrecorded.unwrap_or(0) == 0 || self.has_unlisted()
    }

    /// Whether more was let in by other nodes than is listed.
    pub(super) fn has_unlisted(&self) -> bool {
        self.unlisted.is_some()
    }

    /// Findings that are kept of this kind.
    fn listed(&self, fences: bool) -> usize {
        self.findings.iter().filter(|finding| finding.fences() == fences).count()
    }

    fn is_void(&mut self, log_index: u64, add: impl FnOnce(u64, u64) -> u64) {
        let hash = ehe::read::record_hash(&log_index.to_be_bytes()).0;
        let lane = hash.first_chunk().map_or(0, |lane| u64::from_be_bytes(*lane));
        self.unrecorded = Some(add(self.unrecorded.unwrap_or(0), lane)).filter(|sum| *sum > 0);
    }
}

/// The tree that a quorum, or this node, cosigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Incarnation of the log.
    pub incarnation: u32,
    /// Leaves.
    pub size: u64,
    /// Root.
    pub root: Hash,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Entries looked at.
    pub entries: u64,
    /// Events in them; an access record counts as one.
    pub events: u64,
    /// The pass has caught up with the view.
    pub caught_up: bool,
}

/// A pass under way.
#[derive(Debug)]
pub struct Walk {
    shard: u16,
    peaks: Peaks,
    pass: Pass,
}

impl Walk {
    /// From the beginning.
    pub fn new(shard: u16) -> Self {
        Self { shard, peaks: Peaks::default(), pass: Pass::default() }
    }

    /// From where a pass was put down; from the beginning if that makes no sense.
    pub fn resume(shard: u16, pass: Pass) -> Self {
        match Peaks::of(pass.next, pass.peaks.clone()) {
            Some(peaks) => Self { shard, peaks, pass },
            None => Self::new(shard),
        }
    }

    /// What to keep, so that the pass can be taken up again.
    pub fn pass(&self) -> Pass {
        Pass { peaks: self.peaks.hashes().to_vec(), ..self.pass.clone() }
    }

    /// How far it is.
    pub fn so_far(&self) -> &Pass {
        &self.pass
    }

    pub(super) fn found(&mut self, entry: Option<u64>, what: What) {
        let pass = &mut self.pass;
        pass.found = pass.found.saturating_add(1);
        let finding = Finding { shard: self.shard, entry, what };
        let (fences, signature) = (finding.fences(), finding.what == What::Signature);
        if pass.findings.contains(&finding) {
            return;
        }
        if pass.listed(fences) < if fences { FINDINGS_MAX } else { REPORTS_MAX } {
            pass.findings.push(finding);
        } else if !fences {
            pass.unlisted = Some(pass.unlisted.unwrap_or(0).saturating_add(1));
            if let Some(run) = entry.filter(|_| signature) {
                pass.is_void(run, u64::wrapping_add);
            }
        }
    }

    /// The shard cannot be looked at at all.
    pub(super) fn cannot(&mut self, why: String) {
        self.found(None, What::Unreadable(why));
    }

    /// Whether so much is damaged that looking further tells nothing new.
    pub fn is_hopeless(&self) -> bool {
        self.pass.listed(true) >= FINDINGS_MAX
    }

    /// Looks at entries until `events` of them are looked at, or there are no more. `cosigned`: a tree that has to be met.
    pub fn step(&mut self, view: &View, cosigned: Option<Target>, events: u64) -> Step {
        let (mut looked, mut records) = (Looked::default(), None);
        let from = self.pass.next;
        let leaves = view.shard().leaves;
        let mut done = 0u64;
        while self.pass.next < leaves && done < events && !self.is_hopeless() {
            let log_index = self.pass.next;
            let after = self.pass.accepted_at;
            let checked = caught(|| one(view, &mut looked, &mut records, log_index, after));
            let checked = checked.unwrap_or_else(|why| {
                (looked, records) = (Looked::default(), None);
                Checked { wrong: vec![What::Unreadable(why)], ..Checked::default() }
            });
            done = done.saturating_add(checked.events.max(1));
            self.take(view, log_index, checked);
            if let Some(target) = cosigned.filter(|target| target.size == self.pass.next)
                && self.peaks.root() != target.root
            {
                self.found(None, What::Root(target.size));
            }
        }
        let caught_up = self.pass.next >= leaves || self.is_hopeless();
        Step { entries: self.pass.next.saturating_sub(from), events: done, caught_up }
    }

    fn take(&mut self, view: &View, log_index: u64, checked: Checked) {
        let Checked { leaf, accepted_at, events, void, voids, wraps, strands, wrong } = checked;
        let pass = &mut self.pass;
        pass.next = pass.next.saturating_add(1);
        pass.events = pass.events.saturating_add(events);
        if void {
            pass.is_void(log_index, u64::wrapping_add);
        }
        if let Some((run, events)) = voids {
            // By as many fewer is the table of known events longer.
            pass.events = pass.events.saturating_sub(events);
            let finding = Finding { shard: self.shard, entry: Some(run), what: What::Signature };
            // What was not void yet when this pass looked at it, was found, and is listed or in the sum.
            if !pass.findings.contains(&finding) {
                pass.is_void(run, u64::wrapping_sub);
            }
        }
        pass.wraps = pass.wraps.saturating_add(wraps);
        pass.strands.join(&strands);
        pass.unknown = pass.unknown.saturating_add(u64::from(accepted_at.is_none()));
        pass.accepted_at = accepted_at.unwrap_or(pass.accepted_at).max(pass.accepted_at);
        let mut above = Vec::new();
        let appended: Result<(), std::convert::Infallible> =
            self.peaks.append(leaf.unwrap_or(Hash::ZERO), |at, hash| {
                above.push((at, hash));
                Ok(())
            });
        let Ok(()) = appended;
        for what in wrong {
            self.found(Some(log_index), what);
        }
        // The leaf itself was compared with its entry.
        for (at, hash) in above.into_iter().skip(1) {
            match caught(|| view.stored_node(at)) {
                Ok(stored) if stored.is_none_or(|stored| stored == hash) => {}
                Ok(_) | Err(_) => self.found(Some(log_index), What::Tree(at.level)),
            }
        }
    }

    /// Ends a pass that has caught up with the view: what is asked of the whole.
    pub fn finish(&mut self, view: &View, cosigned: Option<Target>) {
        if self.is_hopeless() || self.pass.next != view.shard().leaves {
            return;
        }
        match caught(|| whole::check(view, &self.pass, &self.peaks, cosigned)) {
            Ok(wrong) => wrong.into_iter().for_each(|what| self.found(None, what)),
            Err(why) => self.found(None, What::Unreadable(why)),
        }
    }
}

/// Reads the next record, by itself if the rows before it are damaged, and checks it.
fn one<'v>(
    view: &'v View,
    looked: &mut Looked,
    records: &mut Option<Records<'v>>,
    log_index: u64,
    after: UnixMs,
) -> Result<Checked, StoreError> {
    let mut read = || -> Result<Vec<u8>, StoreError> {
        if records.is_none() {
            *records = Some(Records::from(view, log_index)?);
        }
        records.as_mut().map_or(Err(StoreError::Corrupt("there is no log")), Records::next)
    };
    match read() {
        Ok(bytes) => check(view, looked, log_index, &bytes, after),
        Err(error) => {
            *records = None;
            if !matches!(error, StoreError::Corrupt(_)) {
                return Err(error);
            }
            let at = ehe::merkle::NodeAt { level: 0, index: log_index };
            let leaf = ehe::merkle::Nodes::node(view, at).ok();
            Ok(Checked { leaf, wrong: vec![What::Record], ..Checked::default() })
        }
    }
}

/// What storage reports, or a panic in the midst of a damaged page, as text.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, String> {
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("reading it broke off in the storage library".into()),
    }
}
