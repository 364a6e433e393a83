//! What a group is doing, in our own words.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use openraft::{RaftMetrics, ServerState};

use super::{
    error::Fault,
    ids::{NodeId, Position},
    types::{LogId, Types, position},
};

/// A group on this node, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// What this node is in the group.
    pub role: Role,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// Index of the last entry in the log.
    pub last_index: Option<u64>,
    /// The last entry that is in the state.
    pub applied: Option<Position>,
    /// Index of the last entry that is in the state *and* would still be there after a crash.
    pub durable: Option<u64>,
    /// Index of the last entry that is no longer in the log.
    pub purged: Option<u64>,
    /// Who votes, as far as this node knows. While members change: all that vote before or after.
    pub voters: BTreeSet<NodeId>,
    /// Whether a change of voters is under way.
    pub changing: bool,
    /// Who has the log and no vote.
    pub learners: BTreeSet<NodeId>,
    /// On the leader: up to which index each member is known to have the log, on its disk.
    pub matched: BTreeMap<NodeId, Option<u64>>,
    /// Why the group is stopped, if a fault stopped it.
    pub fault: Option<Arc<Fault>>,
    /// Why the group is held, if it is: it has its log and its vote, and does not lead (see [`Consensus::hold`](super::Consensus::hold)).
    pub held: Option<Arc<str>>,
}

/// What is asked before each command: the part of a [`Status`] that lists nobody.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What this node is in the group.
    pub role: Role,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The last entry that is in the state.
    pub applied: Option<Position>,
    /// Whether a fault stopped the group.
    pub faulted: bool,
    /// Whether the group is held.
    pub held: bool,
}

impl Standing {
    pub(super) fn new(metrics: &RaftMetrics<Types>, faulted: bool, held: bool) -> Self {
        let role = Role::of(metrics, faulted);
        Self {
            role,
            leader: if role == Role::Stopped { None } else { metrics.current_leader.map(NodeId) },
            term: metrics.current_term,
            applied: metrics.last_applied.as_ref().map(position),
            faulted,
            held,
        }
    }

    /// `true` if this node leads and its state has everything that was ever committed.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.held && self.role == Role::Leader && self.applied.is_some_and(|applied| applied.term == self.term)
    }
}

/// What a node is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Orders.
    Leader,
    /// Follows a leader, or waits for one.
    Follower,
    /// Stands for election.
    Candidate,
    /// Has no vote.
    Learner,
    /// Does nothing any more: shut down, or stopped by a fault.
    Stopped,
}

impl Role {
    pub(super) fn of(metrics: &RaftMetrics<Types>, faulty: bool) -> Self {
        match metrics.state {
            _ if metrics.running_state.is_err() || faulty => Self::Stopped,
            ServerState::Leader => Self::Leader,
            ServerState::Follower => Self::Follower,
            ServerState::Candidate => Self::Candidate,
            ServerState::Learner => Self::Learner,
            ServerState::Shutdown => Self::Stopped,
        }
    }
}

impl Status {
    pub(super) fn new(
        metrics: &RaftMetrics<Types>,
        durable: Option<u64>,
        purged: Option<u64>,
        fault: Option<Arc<Fault>>,
        held: Option<Arc<str>>,
    ) -> Self {
        let Standing { role, leader, term, applied, .. } = Standing::new(metrics, fault.is_some(), held.is_some());
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.iter().flatten();
        Self {
            role,
            leader,
            term,
            last_index: metrics.last_log_index,
            applied,
            durable,
            purged,
            voters: membership.voter_ids().map(NodeId).collect(),
            changing: membership.get_joint_config().len() > 1,
            learners: membership.learner_ids().map(NodeId).collect(),
            matched: matched.map(|(node, id)| (NodeId(*node), id.as_ref().map(LogId::index))).collect(),
            fault,
            held,
        }
    }

    /// The part of it that lists nobody.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let Self { role, leader, term, applied, .. } = *self;
        Standing { role, leader, term, applied, faulted: self.fault.is_some(), held: self.held.is_some() }
    }

    /// As [`Standing::ready`].
    #[must_use]
    pub fn ready(&self) -> bool {
        self.standing().ready()
    }
}
