//! The background scrub of a running node: one step of one shard at a time, at a bounded rate, out of the way of writes.
//!
//! What is found is logged and shown at once, and where the disk lost or altered something, the shard is held: it is not led from here,
//! nothing of it is signed or told, until it was repaired and a whole pass found it sound. A shard that is held is walked as fast as it
//! goes, because nobody is served by it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ehe::void::RULES_VOID;
use ehe::wire::ScrubStatus;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::finding::{Finding, Remedy, What};
use super::memory::{Done, Kept, Memory};
use super::mend::{Elsewhere, NotMended, mend};
use super::walk::{Step, Target, Walk};
use crate::checkpoint::{Board, Checkpointed};
use crate::clock::Clock;
use crate::consensus::{Consensus, GroupId};
use crate::leadership;
use crate::shard::{FalseRun, Rules, Store, WeakSequencer};
use crate::stats::Stats;

/// Steps are made so often, if the rate allows.
const STEP_EVERY: Duration = Duration::from_millis(100);
/// Events at a step of a shard that is held.
const HELD_EVENTS: u64 = 2_000;
/// While blocks are being ordered, a step is so much shorter.
const YIELDS: u64 = 4;
/// How far it is, is written that often.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// A shard whose repair did not succeed is looked at again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Runs that become void one after the other, before the scrub goes on.
const VOIDS_AT_ONCE: usize = 16;

/// A run is void within this time, or it is looked at again.
const VOID_WITHIN: Duration = Duration::from_secs(10);
/// After one that could not be voided.
const VOID_AGAIN: Duration = Duration::from_secs(5);

/// Not only entries are damaged.
const REBUILD: &str =
    "more than entries is damaged: restart the node, and it takes the shard's state from another node before it serves";

/// How fast, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Events that are looked at in a second, all shards together.
    pub events_per_s: u64,
    /// From the end of a shard's pass to the beginning of its next.
    pub every: Duration,
}

/// A shard that is looked through.
#[derive(Clone)]
pub struct Line {
    /// Its state.
    pub store: Store,
    /// Its newest checkpoint.
    pub checkpoints: watch::Receiver<Checkpointed>,
}

/// Where what the scrub found is ordered to be void.
#[derive(Debug, Clone)]
pub struct Orderer {
    /// The shard's ordering party.
    pub sequencer: WeakSequencer,
    /// From which rules version on, that is known.
    pub rules: Rules,
}

/// How the scrub is, for whoever asks. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Shown(Arc<Mutex<BTreeMap<u16, ScrubStatus>>>);

impl Shown {
    /// As it is now.
    pub fn now(&self) -> Vec<ScrubStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// The scrub.
pub struct Patrol {
    /// The shards.
    pub shards: BTreeMap<u16, Line>,
    /// What it remembers.
    pub memory: Memory,
    /// How fast.
    pub pace: Pace,
    /// Where damaged entries are had again.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// Where runs with false signatures are voided.
    pub orderers: BTreeMap<u16, Orderer>,
    /// Holds groups.
    pub consensus: Consensus,
    /// Holds signatures.
    pub board: Arc<Board>,
    /// Where it is shown.
    pub shown: Shown,
    /// For when passes end.
    pub clock: Clock,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Cancelled when the node stops.
    pub stop: CancellationToken,
}

/// What became of a run whose signature was found to be false.
enum Voided {
    /// It is void.
    Is,
    /// It may not be void, as far as is known now.
    Not,
    /// It could not be ordered.
    Later,
}

/// What a shard's step came to.
struct Stepped {
    walk: Walk,
    step: Step,
    leaves: u64,
}

impl Patrol {
    /// Looks through the shards, again and again, until it is stopped.
    pub async fn run(mut self) {
        for (shard, why) in self.memory.fenced() {
            self.hold(shard, &why).await;
        }
        self.shards.keys().copied().collect::<Vec<_>>().into_iter().for_each(|shard| self.show(shard, None));
        let (mut saved, mut blocks) = (Instant::now(), self.stats.blocks.load(Ordering::Relaxed));
        let mut tried: BTreeMap<u16, Instant> = BTreeMap::new();
        let mut void_at = Instant::now();
        while !self.stop.is_cancelled() {
            if Instant::now() >= void_at {
                void_at = Instant::now() + self.void_what_is_false().await;
            }
            let Some(shard) = self.due(&tried) else {
                if self.pause(Duration::from_secs(1)).await {
                    break;
                }
                continue;
            };
            let held = self.kept(shard).fenced().is_some();
            let busy = std::mem::replace(&mut blocks, self.stats.blocks.load(Ordering::Relaxed)) != blocks;
            let quota = match (held, busy) {
                (true, _) => HELD_EVENTS,
                (false, false) => self.pace.events_per_s.div_ceil(10),
                (false, true) => self.pace.events_per_s.div_ceil(10 * YIELDS),
            };
            let began = Instant::now();
            let Some(Stepped { walk, step, leaves }) = self.step(shard, quota).await else { continue };
            Stats::add(&self.stats.scrubbed, step.events);
            self.took_in(shard, &walk, step.caught_up).await;
            self.show(shard, Some(leaves));
            if step.caught_up && self.kept(shard).fenced().is_some() {
                tried.insert(shard, Instant::now());
                if self.repair(shard).await {
                    tried.remove(&shard);
                }
            }
            if step.caught_up || saved.elapsed() >= SAVE_EVERY {
                saved = Instant::now();
                self.save().await;
            }
            // At least as long as the step took: a slow disk is not to be slower for it.
            let took = began.elapsed();
            let share = Duration::from_millis(step.events.saturating_mul(1000) / self.pace.events_per_s.max(1));
            let rest = if held { Duration::ZERO } else { share.max(STEP_EVERY).saturating_sub(took).max(took) };
            if self.pause(rest).await {
                break;
            }
        }
        self.save().await;
    }

    /// True: it is to stop.
    async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => true,
            () = tokio::time::sleep(time) => false,
        }
    }

    fn kept(&mut self, shard: u16) -> &mut Kept {
        self.memory.shards.entry(shard).or_default()
    }

    /// Which shard comes next: one that is held, then one whose pass is under way, then one whose pass is due.
    fn due(&mut self, tried: &BTreeMap<u16, Instant>) -> Option<u16> {
        let (now, every) = (self.clock.now(), self.pace.every);
        // What rules it is under, this program does not know: it would accuse others of what these allow.
        let outdated = |shard: &u16| self.orderers.get(shard).is_some_and(|orderer| orderer.rules.are_later());
        let shards: Vec<u16> = self.shards.keys().copied().filter(|shard| !outdated(shard)).collect();
        let mut best: Option<(u8, u16)> = None;
        for shard in shards {
            let kept = self.kept(shard);
            let rank = if kept.fenced().is_some() {
                let waits = tried.get(&shard).is_some_and(|tried| tried.elapsed() < AGAIN_AFTER);
                if waits && kept.pass.is_none() { continue } else { 0 }
            } else if kept.pass.is_some() {
                1
            } else {
                let since = kept.done.map(|done| Duration::from_millis(now.since(done.ended)));
                // A clock that was set back does not keep it from looking.
                let early = kept.done.is_some_and(|done| done.ended <= now) && since.is_some_and(|since| since < every);
                if early && !kept.lists_more() { continue } else { 2 }
            };
            if best.is_none_or(|best| (rank, shard) < best) {
                best = Some((rank, shard));
            }
        }
        best.map(|(_, shard)| shard)
    }

    async fn step(&mut self, shard: u16, quota: u64) -> Option<Stepped> {
        let line = self.shards.get(&shard)?.clone();
        let now = self.clock.now();
        let kept = self.kept(shard);
        let walk = match kept.pass.take() {
            Some(pass) => Walk::resume(shard, pass),
            None => {
                kept.began = now;
                Walk::new(shard)
            }
        };
        let stepped = tokio::task::spawn_blocking(move || {
            let mut walk = walk;
            let cosigned = match &*line.checkpoints.borrow() {
                Checkpointed::At(at) => Some(Target { incarnation: at.incarnation, size: at.size, root: at.root }),
                Checkpointed::None | Checkpointed::Fenced => None,
            };
            // After the checkpoint: the view has at least as much.
            match super::caught(|| line.store.view()) {
                Ok(view) => {
                    let step = walk.step(&view, cosigned, quota.max(1));
                    if step.caught_up {
                        walk.finish(&view, cosigned);
                    }
                    Stepped { walk, step, leaves: view.shard().leaves }
                }
                Err(why) => {
                    walk.cannot(why);
                    Stepped { walk, step: Step { entries: 0, events: 0, caught_up: true }, leaves: 0 }
                }
            }
        });
        stepped.await.ok()
    }

    /// Notes how far the pass is and what it found; acts on what is new.
    async fn took_in(&mut self, shard: u16, walk: &Walk, ended: bool) {
        let (now, pass) = (self.clock.now(), walk.pass());
        let kept = self.kept(shard);
        let before = kept.fenced().is_some();
        let new: Vec<Finding> = pass.findings.iter().filter(|found| !kept.open.contains(found)).cloned().collect();
        if ended {
            // What an earlier pass found and this one did not, is no more.
            kept.open.clone_from(&pass.findings);
            kept.unlisted = pass.has_unlisted().then_some(true);
            kept.done = Some(Done { ended: now, took_ms: now.since(kept.began), entries: pass.next });
        } else {
            kept.open.extend(new.iter().cloned());
        }
        let (fenced, found) = (kept.fenced(), kept.open.len());
        // What another node said of the tree while an entry was damaged was wrong: all is sound with the tree as it is.
        kept.rebuild &= !ended || fenced.is_some();
        kept.pass = if ended { None } else { Some(pass) };
        for finding in &new {
            Stats::add(&self.stats.scrub_findings, 1);
            if finding.fences() {
                tracing::error!("{finding}");
            } else {
                tracing::warn!("{finding}");
            }
        }
        match (before, fenced) {
            (false, Some(why)) => {
                self.hold(shard, &why).await;
                self.save().await;
            }
            (true, None) => self.release(shard),
            _ => {}
        }
        if let (true, Some(done)) = (ended, self.kept(shard).done) {
            let (entries, seconds) = (done.entries, done.took_ms / 1000);
            tracing::info!(shard, entries, seconds, found, "the shard was looked through");
        }
    }

    async fn hold(&self, shard: u16, why: &str) {
        if self.consensus.hold(GroupId(shard), why) {
            tracing::error!(
                shard,
                why,
                "the shard is held on this node: it is not led from here, nothing of it is signed or told"
            );
            self.board.hold(shard, true);
            leadership::hand_over(&self.consensus, GroupId(shard)).await;
        }
    }

    fn release(&self, shard: u16) {
        tracing::info!(shard, "the shard is sound again, and no longer held");
        self.board.hold(shard, false);
        self.consensus.release(GroupId(shard));
    }

    /// After a pass of a shard that is held. True: look again at once.
    async fn repair(&mut self, shard: u16) -> bool {
        let open = self.kept(shard).open.clone();
        let fencing = || open.iter().filter(|finding| finding.fences());
        if fencing().any(|finding| finding.what.remedy() != Remedy::Fetch) {
            tracing::error!(shard, "{REBUILD}");
            return false;
        }
        let elsewhere = Arc::clone(&self.elsewhere);
        if elsewhere.nodes(shard).is_empty() {
            tracing::error!(shard, "no other node has the shard: restore it from a backup");
            return false;
        }
        let Some(line) = self.shards.get(&shard).cloned() else { return false };
        let entries: Vec<u64> = fencing().filter_map(|finding| finding.entry).collect();
        // What is mended is stored at once, and with it all that was applied: the log has that first. Held, the state gets nothing more.
        let durable = tokio::select! {
            () = self.stop.cancelled() => return false,
            durable = self.consensus.make_durable(GroupId(shard)) => durable,
        };
        if let Err(why) = durable {
            tracing::error!(shard, %why, "damaged entries cannot be had again while the shard is stopped");
            return false;
        }
        let mended = tokio::select! {
            () = self.stop.cancelled() => return false,
            mended = mend(&*elsewhere, &line.store, shard, &entries) => mended,
        };
        match mended {
            Ok(()) => {
                Stats::add(&self.stats.scrub_mended, u64::try_from(entries.len()).unwrap_or_default());
                tracing::info!(shard, entries = entries.len(), "damaged entries were had again from another node");
                true
            }
            Err(why) => {
                let rebuild = matches!(why, NotMended::Nobody { other: true, .. });
                self.kept(shard).rebuild |= rebuild;
                if rebuild {
                    tracing::error!(shard, %why, "{REBUILD}");
                } else {
                    tracing::error!(shard, %why, "damaged entries could not be had again; it is tried again");
                }
                false
            }
        }
    }

    /// Where this node leads: runs whose signature its own scrub found to be false. Others' word for that is not asked, nor is this node's taken:
    /// each replica finds out for itself.
    /// Returns after which time to look again.
    async fn void_what_is_false(&mut self) -> Duration {
        let mut refused = false;
        let shards: Vec<u16> = self.orderers.keys().copied().collect();
        for shard in shards {
            let led = self.consensus.status(GroupId(shard)).is_some_and(|status| status.ready());
            let in_force = self.orderers.get(&shard).is_some_and(|orderer| orderer.rules.in_force() >= RULES_VOID);
            if !led || !in_force || self.kept(shard).fenced().is_some() {
                continue;
            }
            let is_false = |finding: &&Finding| finding.what == What::Signature;
            let open = self.kept(shard).open.iter().filter(is_false).filter_map(|finding| finding.entry);
            let (open, mut done) = (open.collect::<Vec<u64>>(), 0);
            for entry in open {
                match self.void(shard, entry).await {
                    Voided::Is => {
                        self.kept(shard)
                            .open
                            .retain(|finding| finding.entry != Some(entry) || finding.what != What::Signature);
                        self.show(shard, None);
                        done += 1;
                    }
                    // The others do not wait for it.
                    Voided::Not => refused = true,
                    Voided::Later => {
                        refused = true;
                        break;
                    }
                }
                if done >= VOIDS_AT_ONCE {
                    break;
                }
            }
        }
        if refused { VOID_AGAIN } else { Duration::ZERO }
    }

    /// Has a run voided, if it may be and is not.
    async fn void(&self, shard: u16, entry: u64) -> Voided {
        let (Some(orderer), Some(line)) = (self.orderers.get(&shard), self.shards.get(&shard).cloned()) else {
            return Voided::Later;
        };
        let look = move || {
            super::caught(|| {
                let view = line.store.view()?;
                // Another node that led may have had it voided since it was found here.
                Ok((FalseRun::at(&view, entry)?, view.is_void_at(entry)?))
            })
        };
        let found = match tokio::task::spawn_blocking(look).await {
            Ok(Ok((Some(found), _))) => found,
            Ok(Ok((None, true))) => return Voided::Is,
            Ok(Ok((None, false)) | Err(_)) | Err(_) => return Voided::Not,
        };
        let Some(sequencer) = orderer.sequencer.get() else { return Voided::Later };
        let voided = tokio::select! {
            () = self.stop.cancelled() => return Voided::Later,
            () = tokio::time::sleep(VOID_WITHIN) => return Voided::Later,
            voided = sequencer.void(found) => voided,
        };
        match voided {
            Ok(Some(_)) => Voided::Is,
            Ok(None) => Voided::Not,
            Err(why) => {
                tracing::debug!(shard, entry, %why, "a run whose signature is false is voided later");
                Voided::Later
            }
        }
    }

    fn show(&mut self, shard: u16, leaves: Option<u64>) {
        let kept = self.kept(shard);
        let status = ScrubStatus {
            shard,
            checked: kept.pass.as_ref().map_or_else(|| kept.done.map_or(0, |done| done.entries), |pass| pass.next),
            entries: leaves.unwrap_or_default(),
            found: kept.open.len().try_into().unwrap_or(u64::MAX),
            held: kept.fenced().is_some(),
            ended: kept.done.map(|done| done.ended),
            took_ms: kept.done.map(|done| done.took_ms),
            first: kept.open.first().map(ToString::to_string),
        };
        let mut shown = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = leaves.or_else(|| shown.get(&shard).map(|before| before.entries));
        shown.insert(shard, ScrubStatus { entries: entries.unwrap_or(status.checked), ..status });
    }

    async fn save(&mut self) {
        let memory = self.memory.clone();
        let saved = tokio::task::spawn_blocking(move || memory.save()).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "how far the scrub is could not be written; after a restart it begins anew");
        }
    }
}
