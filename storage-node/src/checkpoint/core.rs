//! The cosigning of all shards of a node, without a clock, a disk or a network: news in, actions out.
//!
//! A round has two halves, and between them whoever drives the core writes to disk:
//!
//! ```text
//! round(news) ─► actions, and what is to be remembered ─► one sync ─► remembered(outcome) ─► actions
//!                wishes (unsigned)                                     cosignatures, checkpoints, evidence
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ehe::charter::VerifiedCharter;
use ehe::id::{Hash, NodeId};
use ehe::identity::Identity;
use ehe::time::UnixMs;

use super::board::{Distrusted, News};
use super::cosigning::{Cosigning, Step};
use super::evidence::Evidence;
use super::message::Message;
use super::publish::Published;
use crate::cosign::{CosignError, Cosigned};
use crate::shard::StoreError;

/// This node.
#[derive(Debug, Clone)]
pub struct Who {
    /// Its id in the charter.
    pub id: NodeId,
    /// Its name there.
    pub name: String,
    /// Signs.
    pub identity: Arc<Identity>,
    /// Names the logs; and the groups and the quorums, as long as a shard's log names no charter.
    pub charter: Arc<VerifiedCharter>,
}

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// By the wall clock, which may be wrong, and may be set.
    pub wall: UnixMs,
    /// Since some moment before the core was made; it never goes back.
    pub running: Duration,
}

/// What the core looks up.
pub trait World {
    /// The root of a shard's first `size` leaves; never asked beyond what was applied.
    fn root(&self, shard: u16, size: u64) -> Result<Hash, StoreError>;
    /// The proof that a shard's first `new` leaves extend the first `old` (RFC 9162 §2.1.4).
    fn consistency(&self, shard: u16, old: u64, new: u64) -> Result<Vec<Hash>, StoreError>;
    /// Who leads a shard, as far as this node knows. Not asked where a shard has one node.
    fn leader(&self, shard: u16) -> Option<NodeId>;
}

/// Why a shard is checkpointed no more.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// What was cosigned cannot be remembered, or the log contradicts it.
    #[error(transparent)]
    Cosign(#[from] CosignError),
    /// The shard's file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The text makes no note.
    #[error("the checkpoint cannot be signed: {0}")]
    Note(#[from] ehe::note::NoteError),
    /// There is evidence about this very node.
    #[error(
        "shard {shard}: there is evidence that this node cosigned two logs: its disk was put back to an older state, or somebody else \
         has its key; `ehe-node status` names the file. Remove this node from the alliance and enrol it anew under another id"
    )]
    SignedBoth {
        /// The shard.
        shard: u16,
    },
    /// The others signed another log.
    #[error(
        "shard {shard}: more than half of its nodes cosigned another log than this node has: its disk altered something, or its \
         program differs; remove this node from the alliance and enrol it anew under another id"
    )]
    Outvoted {
        /// The shard.
        shard: u16,
    },
}

/// Why something that a peer said is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// No message of this version.
    #[error("it is not a message of this version")]
    Malformed,
    /// The shard is not here, or the peer is not in its group.
    #[error("it is not a node of the shard's group")]
    NotOfGroup,
    /// It counts by another charter.
    #[error("it names another version of the charter; one of the two nodes has to take up the newer one")]
    OtherCharter,
    /// It is in nobody's name.
    #[error("its signature does not verify")]
    BadSignature,
    /// Its clock and ours differ too much.
    #[error("its clock and this node's differ by more than a minute; correct the one that is wrong")]
    ClockDiffers,
    /// It named another root than this log has at that size.
    #[error("it named another root than this node has at that size")]
    OtherRoot,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Tell a peer.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: Box<Message>,
    },
    /// A checkpoint stands.
    Publish {
        /// Of which shard.
        shard: u16,
        /// The checkpoint.
        published: Arc<Published>,
        /// Of the same size as the last one: only newer.
        again: bool,
    },
    /// A shard is checkpointed no more.
    Fence {
        /// Which.
        shard: u16,
        /// Why.
        why: Arc<Refused>,
    },
    /// Somebody cosigned another log.
    Evidence(Box<Evidence>),
    /// Whether this node may order has changed.
    MayOrder {
        /// Which shard.
        shard: u16,
        /// False: the clocks of more than half of the group contradict, or the shard is fenced.
        may: bool,
    },
    /// Something was not taken.
    Ignored {
        /// Who said it.
        from: NodeId,
        /// Why.
        why: Ignored,
    },
}

/// The first half of a round.
#[derive(Debug, Default)]
pub struct Round {
    /// To be done at once. Nothing of it is signed.
    pub actions: Vec<Action>,
    /// To be remembered, then [`Core::remembered`].
    pub remember: Vec<(u16, Cosigned)>,
}

/// The cosigning of a node's shards.
#[derive(Debug)]
pub struct Core {
    who: Who,
    shards: BTreeMap<u16, Cosigning>,
    /// Shards of the round that is under way.
    touched: BTreeSet<u16>,
    /// Shards for which nothing is signed now.
    held: BTreeSet<u16>,
    remembering: BTreeMap<u16, Cosigned>,
}

impl Core {
    /// Begins with what is remembered of each of this node's shards.
    pub fn new(who: Who, shards: impl IntoIterator<Item = (u16, Option<Cosigned>)>) -> Self {
        let shards = shards.into_iter().map(|(shard, cosigned)| (shard, Cosigning::new(shard, cosigned)));
        Self {
            who,
            shards: shards.collect(),
            touched: BTreeSet::new(),
            held: BTreeSet::new(),
            remembering: BTreeMap::new(),
        }
    }

    /// When the next round is due though nothing happens; `None`: not before something does.
    pub fn due(&self) -> Option<Duration> {
        let signing = self.shards.iter().filter(|(shard, _)| !self.held.contains(shard));
        signing.filter_map(|(_, shard)| shard.due).min()
    }

    /// Takes in what happened, and decides. [`Self::remembered`] has to follow.
    pub fn round(&mut self, news: News, now: Now, world: &dyn World) -> Round {
        let Self { who, shards, touched, held, remembering } = self;
        let mut round = Round::default();
        *held = news.held;
        touched.clear();
        touched.extend(shards.iter().filter(|(_, it)| it.due.is_some_and(|due| due <= now.running)).map(|(it, _)| *it));
        for (shard, in_effect) in news.charters {
            if let Some(cosigning) = shards.get_mut(&shard) {
                cosigning.under(in_effect, who);
                touched.insert(shard);
            }
        }
        for (shard, applied) in news.applied {
            if let Some(cosigning) = shards.get_mut(&shard) {
                cosigning.applied(applied);
                touched.insert(shard);
            }
        }
        for (shard, size) in news.wanted {
            if let Some(cosigning) = shards.get_mut(&shard) {
                cosigning.want(size);
                touched.insert(shard);
            }
        }
        for Distrusted { shard, incarnation, node } in news.distrusted {
            if let Some(cosigning) = shards.get_mut(&shard) {
                cosigning.distrust(incarnation, node);
                touched.insert(shard);
            }
        }
        let mut step = Step { who, world, now, out: &mut round.actions };
        for (from, message) in news.said {
            let Ok(message) = Message::decode(&message) else {
                step.out.push(Action::Ignored { from, why: Ignored::Malformed });
                continue;
            };
            match shards.get_mut(&message.shard()) {
                Some(cosigning) => cosigning.heard(from, message, &mut step),
                None => step.out.push(Action::Ignored { from, why: Ignored::NotOfGroup }),
            }
            touched.insert(message.shard());
        }
        touched.retain(|shard| !held.contains(shard));
        remembering.clear();
        for (shard, cosigning) in shards.iter_mut().filter(|(shard, _)| touched.contains(shard)) {
            remembering.extend(cosigning.decide(&mut step).map(|remember| (*shard, remember)));
        }
        round.remember = remembering.iter().map(|(shard, cosigned)| (*shard, *cosigned)).collect();
        round
    }

    /// What was to be remembered is on disk, or may not be: then the shards in question are fenced.
    pub fn remembered(&mut self, outcome: Result<(), CosignError>, now: Now, world: &dyn World) -> Vec<Action> {
        let Self { who, shards, touched, remembering, .. } = self;
        let mut out = Vec::new();
        let failed = outcome.err().map(|why| Arc::new(Refused::from(why)));
        for (shard, cosigning) in shards.iter_mut().filter(|(shard, _)| touched.contains(shard)) {
            let remembered = remembering.remove(shard);
            if let Some(why) = failed.as_ref().filter(|_| remembered.is_some()) {
                cosigning.fence(Arc::clone(why), &mut out);
            }
            cosigning.remembered(remembered, &mut Step { who, world, now, out: &mut out });
        }
        out
    }

    /// Cosignatures and relayed conflicts that are held: bounded, whatever peers send.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.shards.values().map(Cosigning::held).sum()
    }
}
