//! Looks at a shard, takes the step that comes next, and looks again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ehe::id::NodeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::step::{Awaited, Nodes, Seen, Step, next_step};
use crate::charters::Charters;
use crate::checkpoint::{Board, Checkpointed};
use crate::consensus::{self, Consensus, GroupId};
use crate::node::{node_id, raft_id};
use crate::peers::Alliance;
use crate::shard::{CharterEntry, InEffect, Sequencer};

/// A shard that is where it should be is looked at after this time, unless a charter comes.
const AT_REST: Duration = Duration::from_secs(2);
/// One that is on its way, after this.
const UNDER_WAY: Duration = Duration::from_millis(50);
/// And where another node leads it on its way, after this.
const LOOKING_ON: Duration = Duration::from_millis(250);
/// The start does not wait longer than this.
const AT_START: Duration = Duration::from_secs(3);
/// A step that failed is tried again after this time.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A change of members is committed within this time, or looked at anew: it may go on all the same.
const STEP_WITHIN: Duration = Duration::from_secs(10);

/// What is being done about each shard, where this node leads. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<BTreeMap<u16, Step>>>);

impl Progress {
    /// The step at hand; `None` where another node leads, or where nothing is to be done.
    pub fn of(&self, shard: u16) -> Option<Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned()
    }

    /// True if that is news.
    fn set(&self, shard: u16, step: &Step) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            Step::Follow | Step::Rest => all.remove(&shard).is_some(),
            step => all.insert(shard, step.clone()).as_ref() != Some(step),
        }
    }
}

/// Moves one shard, wherever this node leads it.
pub struct Mover {
    /// The shard.
    pub shard: u16,
    /// Who has a part in it.
    pub consensus: Consensus,
    /// What its log says of charters.
    pub board: Arc<Board>,
    /// What charters there are.
    pub charters: Charters,
    /// For entries about charters.
    pub sequencer: Sequencer,
    /// Which rules versions the nodes know.
    pub alliance: Arc<Alliance>,
    /// Its checkpoints.
    pub checkpoints: watch::Receiver<Checkpointed>,
    /// Shown to whoever asks for the status.
    pub progress: Progress,
}

/// Why a step was not done. It is tried again.
#[derive(Debug, thiserror::Error)]
enum NotDone {
    #[error(transparent)]
    Change(#[from] consensus::ChangeError),
    #[error(transparent)]
    Unordered(#[from] crate::shard::Unordered),
    #[error("it was not done within {STEP_WITHIN:?}")]
    TimedOut,
    #[error("the charter is not at hand any more, or its checkpoint")]
    Gone,
    #[error("the replicas did not take charter {0}: they have version {1} in effect")]
    NotTaken(u32, u32),
}

impl Mover {
    /// Works until the node stops.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let known = self.charters.version();
            let now = self.in_effect();
            let since = now.charter.version();
            let me = node_id(self.consensus.node_id());
            let given: Nodes = self.charters.given_since(since, self.shard).collect();
            let has_part = given.contains(&me) || now.nodes(self.shard).contains(&me);
            self.consensus.mind_time(GroupId(self.shard), has_part);
            // To those under whom the shard is, too: who gets its log anew knows members of long ago for a while.
            let circle = given.into_iter().chain(now.nodes(self.shard)).map(raft_id);
            self.consensus.listen_to(GroupId(self.shard), circle.collect());
            let (first, newest) = (self.charters.first(), self.charters.newest());
            let gone = first.nodes().iter().filter(|node| newest.node(node.id).is_none());
            self.consensus.gone(gone.map(|node| raft_id(node.id)).collect());
            let step = next_step(&self.look(now));
            if self.progress.set(self.shard, &step) {
                tracing::info!(shard = self.shard, "{}", Said(&step));
            }
            let pause = match &step {
                // Whoever follows may lead in a moment.
                Step::Follow if known > since => LOOKING_ON,
                Step::Follow | Step::Rest => AT_REST,
                Step::Wait(_) => UNDER_WAY,
                step => {
                    let done = tokio::select! {
                        () = stop.cancelled() => return,
                        done = tokio::time::timeout(STEP_WITHIN, self.act(step)) => done.unwrap_or(Err(NotDone::TimedOut)),
                    };
                    match done {
                        Ok(()) => UNDER_WAY,
                        Err(why) => {
                            tracing::warn!(shard = self.shard, %why, "a step of the shard's move was not done; it is looked at again");
                            AGAIN_AFTER
                        }
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.charters.newer_than(known) => {}
            }
        }
    }

    /// Before the node serves: charters that leave the shard where it is are taken up where nobody else has to agree, so that a node that
    /// was started under a new one speaks under it from its first word.
    pub async fn at_start(&self) {
        let taking = async {
            let before = self.in_effect().charter.version();
            while let step @ Step::Take(_) = next_step(&self.look(self.in_effect())) {
                if let Err(why) = self.act(&step).await {
                    tracing::debug!(shard = self.shard, %why, "a charter is taken up later");
                    return;
                }
            }
            let now = self.in_effect().charter.version();
            if now > before && self.board.size(self.shard) > 0 {
                let shown = |it: &Checkpointed| match it {
                    Checkpointed::At(published) => published.charter_version >= now,
                    Checkpointed::None => false,
                    Checkpointed::Fenced => true,
                };
                let _ = self.checkpoints.clone().wait_for(shown).await;
            }
        };
        // It goes on later all the same.
        let _ = tokio::time::timeout(AT_START, taking).await;
    }

    fn in_effect(&self) -> InEffect {
        self.board.in_effect(self.shard).unwrap_or_else(|| InEffect::first(self.charters.first()))
    }

    fn look(&self, now: InEffect) -> Seen {
        let me = node_id(self.consensus.node_id());
        let Some(status) = self.consensus.status(GroupId(self.shard)).filter(consensus::Status::ready) else {
            return Seen { me, ..Seen::default() };
        };
        let group =
            |charter: &ehe::charter::VerifiedCharter| charter.group(self.shard).iter().copied().collect::<Nodes>();
        let nodes = |nodes: &BTreeSet<consensus::NodeId>| nodes.iter().copied().map(node_id).collect::<Nodes>();
        let InEffect { charter, before, committed } = now;
        let shown_under = match &*self.checkpoints.borrow() {
            Checkpointed::At(published) => Some(published.charter_version),
            Checkpointed::None | Checkpointed::Fenced => None,
        };
        let next = self.charters.of(charter.version().saturating_add(1));
        Seen {
            me,
            leads: true,
            committed,
            group: group(&charter),
            before: before.map(|before| group(&before)),
            next: next.as_deref().map(group),
            newest: group(&self.charters.newest()),
            voters: nodes(&status.voters),
            changing: status.changing,
            learners: nodes(&status.learners),
            matched: status.matched.iter().map(|(node, at)| (node_id(*node), *at)).collect(),
            last: status.last_index,
            older: next.filter(|next| next.rules() > charter.rules()).map_or_else(Nodes::new, |next| {
                let both = group(&charter).union(&group(&next)).copied().collect();
                self.alliance.older_than(next.rules(), both, me)
            }),
            shown_under,
        }
    }

    async fn act(&self, step: &Step) -> Result<(), NotDone> {
        let group = GroupId(self.shard);
        match step {
            Step::Learn(node) => self.consensus.add_learner(group, raft_id(*node)).await?,
            Step::Unlearn(node) => self.consensus.remove_learner(group, raft_id(*node)).await?,
            Step::Vote(nodes) => {
                self.consensus.change_voters(group, &nodes.iter().copied().map(raft_id).collect()).await?
            }
            Step::HandOver(node) => {
                self.consensus.transfer_leader(group, raft_id(*node)).await?;
                // Whether it takes it, an election tells.
                let gone = |status: &consensus::Status| status.role != consensus::Role::Leader;
                let _ = self.consensus.wait(group, STEP_WITHIN / 2, gone).await;
            }
            Step::Take(version) => {
                let charter = self.charters.of(*version).ok_or(NotDone::Gone)?;
                let entry = CharterEntry { signed: charter.signed().encode(), vouched: None };
                let (in_effect, _) = self.sequencer.charter(entry).await?;
                if in_effect < *version {
                    return Err(NotDone::NotTaken(*version, in_effect));
                }
            }
            Step::Vouch => {
                let InEffect { charter, committed, .. } = self.in_effect();
                let note = match &*self.checkpoints.borrow() {
                    Checkpointed::At(published) if published.charter_version == committed => published.note.clone(),
                    _ => return Err(NotDone::Gone),
                };
                let entry = CharterEntry { signed: charter.signed().encode(), vouched: Some(note) };
                if !self.sequencer.charter(entry).await?.1 {
                    return Err(NotDone::NotTaken(committed, committed));
                }
            }
            Step::Follow | Step::Rest | Step::Wait(_) => {}
        }
        Ok(())
    }
}

/// A step, for people.
pub(crate) struct Said<'a>(pub(crate) &'a Step);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nodes: &Nodes| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        match self.0 {
            Step::Follow => write!(f, "another node leads"),
            Step::Rest => write!(f, "it lives where the charter says"),
            Step::Wait(Awaited::Log(nodes)) => write!(f, "waits until the log is on {}", list(nodes)),
            Step::Wait(Awaited::Checkpoint) => {
                write!(f, "waits for a checkpoint that a quorum of the old and of the new group has cosigned")
            }
            Step::Wait(Awaited::Successor(nodes)) => write!(f, "waits until one of {} can lead", list(nodes)),
            Step::Wait(Awaited::Program(nodes)) => write!(
                f,
                "waits until {} run a version of the program that knows the rules that the next charter puts in force",
                list(nodes)
            ),
            Step::Learn(node) => write!(f, "gives its log to {node}"),
            Step::Unlearn(node) => write!(f, "takes its log from {node}"),
            Step::Vote(nodes) => write!(f, "makes {} its voters", list(nodes)),
            Step::HandOver(node) => write!(f, "hands its leadership to {node}"),
            Step::Take(version) => write!(f, "takes up charter {version}"),
            Step::Vouch => write!(f, "writes down that both groups have cosigned under the new charter"),
        }
    }
}
