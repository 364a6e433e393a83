//! The thread that drives the core: the one place that syncs, looks at the clock, and shows what stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use ehe::id::{Hash, NodeId};
use ehe::merkle::{self, Peaks};

use super::board::{Board, News};
use super::core::{Action, Core, Now, Who, World};
use super::evidence::EvidenceSink;
use super::outbound::Outbound;
use super::publish::Checkpointed;
use crate::clock::Clock;
use crate::cosign::CosignFile;
use crate::shard::{Recent, Store, StoreError};
use crate::stats::Stats;

/// A shard that is checkpointed.
pub struct Line {
    /// Its state, for proofs.
    pub store: Store,
    /// Its newest leaves, for those that begin among them.
    pub recent: Recent,
    /// Where checkpoints are shown.
    pub shown: watch::Sender<Checkpointed>,
}

/// Tells who leads a shard, as far as this node knows.
pub type Leader = Box<dyn Fn(u16) -> Option<NodeId> + Send>;

/// Whether this node may order a shard that it leads. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct MayOrder(Arc<Mutex<BTreeSet<u16>>>);

impl MayOrder {
    /// False: more than half of the shard's nodes contradict this node's clock, or it does not cosign the shard any more. Then
    /// it proposes nothing, and another should lead.
    pub fn may_order(&self, shard: u16) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&shard)
    }

    fn set(&self, shard: u16, may: bool) {
        let mut not = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if may {
            not.remove(&shard)
        } else {
            not.insert(shard)
        };
    }
}

/// Makes checkpoints. Runs on a thread of its own.
pub struct Checkpointer {
    /// This node.
    pub who: Who,
    /// What was cosigned.
    pub file: CosignFile,
    /// The shards.
    pub lines: BTreeMap<u16, Line>,
    /// Who leads.
    pub leader: Leader,
    /// To the peers.
    pub outbound: Outbound,
    /// Where evidence goes.
    pub evidence: Box<dyn EvidenceSink>,
    /// Asked before a block is ordered.
    pub may_order: MayOrder,
    /// For the time of cosignatures.
    pub clock: Clock,
    /// Counters.
    pub stats: Arc<Stats>,
}

struct Shards {
    lines: BTreeMap<u16, Line>,
    leader: Leader,
}

impl Shards {
    fn line(&self, shard: u16) -> Result<&Line, StoreError> {
        self.lines.get(&shard).ok_or(StoreError::Corrupt("no such shard is here"))
    }
}

impl World for Shards {
    fn root(&self, shard: u16, size: u64) -> Result<Hash, StoreError> {
        let line = self.line(shard)?;
        match line.recent.root(size) {
            Some(root) => Ok(root),
            None => Ok(Peaks::load(&line.store.view()?, size)?.root()),
        }
    }

    fn consistency(&self, shard: u16, old: u64, new: u64) -> Result<Vec<Hash>, StoreError> {
        let line = self.line(shard)?;
        match line.recent.consistency(old, new) {
            Some(proof) => Ok(proof),
            None => merkle::consistency_proof(&line.store.view()?, old, new),
        }
    }

    fn leader(&self, shard: u16) -> Option<NodeId> {
        (self.leader)(shard)
    }
}

impl Checkpointer {
    /// Works until the board is stopped.
    pub fn run(self, board: &Board) {
        let mut rounds = self.begin();
        let started = Instant::now();
        while let Some(news) = board.take(rounds.due().and_then(|due| started.checked_add(due))) {
            rounds.round(news, || started.elapsed());
        }
    }

    /// What [`run`](Self::run) does, for whoever has a loop and a clock of its own.
    pub fn begin(self) -> Rounds {
        let Self { who, file, lines, leader, outbound, evidence, may_order, clock, stats } = self;
        let cosigned: Vec<_> = lines.keys().map(|shard| (*shard, file.newest(*shard))).collect();
        let core = Core::new(who, cosigned);
        let (shards, hands) = (Shards { lines, leader }, Hands { outbound, evidence, may_order, stats });
        Rounds { core, file, shards, hands, clock }
    }
}

/// The checkpointer at work.
pub struct Rounds {
    core: Core,
    file: CosignFile,
    shards: Shards,
    hands: Hands,
    clock: Clock,
}

impl Rounds {
    /// When the next round is due though nothing happens, since the beginning.
    pub fn due(&self) -> Option<Duration> {
        self.core.due()
    }

    /// One round, its sync included; `running` is the time since the beginning.
    pub fn round(&mut self, news: News, running: impl Fn() -> Duration) {
        let Self { core, file, shards, hands, clock } = self;
        let now = || Now { wall: clock.now(), running: running() };
        let round = core.round(news, now(), shards);
        hands.carry_out(round.actions, shards);
        let kept = if round.remember.is_empty() { Ok(()) } else { file.persist(&round.remember) };
        let actions = core.remembered(kept, now(), shards);
        hands.carry_out(actions, shards);
    }
}

/// Carries out what the core decided.
struct Hands {
    outbound: Outbound,
    evidence: Box<dyn EvidenceSink>,
    may_order: MayOrder,
    stats: Arc<Stats>,
}

impl Hands {
    fn carry_out(&mut self, actions: Vec<Action>, shards: &Shards) {
        for action in actions {
            match action {
                Action::Send { to, message } => self.outbound.push(to, *message),
                Action::Publish { shard, published, again } => {
                    Stats::add(&self.stats.checkpoints, u64::from(!again));
                    if let Some(line) = shards.lines.get(&shard) {
                        line.shown.send_replace(Checkpointed::At(published));
                    }
                }
                Action::Fence { shard, why } => {
                    tracing::error!(shard, %why, "the shard is checkpointed no more, and confirms nothing more");
                    Stats::add(&self.stats.fenced, 1);
                    if let Some(line) = shards.lines.get(&shard) {
                        line.shown.send_replace(Checkpointed::Fenced);
                    }
                }
                Action::Evidence(evidence) => self.evidence.found(*evidence),
                Action::MayOrder { shard, may } => {
                    if !may {
                        tracing::warn!(
                            shard,
                            "the clocks of more than half of the shard's nodes contradict this node's, or it does not cosign \
                             any more: it orders nothing; correct its clock"
                        );
                    }
                    self.may_order.set(shard, may);
                }
                Action::Ignored { from, why } => {
                    tracing::debug!(%from, %why, "what a node said about a checkpoint is not taken");
                    Stats::add(&self.stats.cosigning_ignored, 1);
                }
            }
        }
    }
}
