//! What a group is doing, in our own words.

use std::sync::Arc;

use openraft::{RaftMetrics, ServerState};

use super::{
    error::Fault,
    ids::{NodeId, Position},
    types::{Types, position},
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
    /// Why the group is stopped, if a fault stopped it.
    pub fault: Option<Arc<Fault>>,
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

impl Status {
    pub(super) fn new(
        metrics: &RaftMetrics<Types>,
        durable: Option<u64>,
        purged: Option<u64>,
        fault: Option<Arc<Fault>>,
    ) -> Self {
        let role = match metrics.state {
            _ if metrics.running_state.is_err() || fault.is_some() => Role::Stopped,
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        Self {
            role,
            leader: if role == Role::Stopped { None } else { metrics.current_leader.map(NodeId) },
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            applied: metrics.last_applied.as_ref().map(position),
            durable,
            purged,
            fault,
        }
    }

    /// `true` if this node leads and its state has everything that was ever committed.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.role == Role::Leader && self.applied.is_some_and(|applied| applied.term == self.term)
    }
}
