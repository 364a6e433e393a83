//! One group at work.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};

use openraft::async_runtime::WatchReceiver;
use tokio::sync::Semaphore;

use super::{
    error::{Fault, ShutdownError},
    ids::{GroupId, NodeId},
    log::{group::GroupLog, reader::LogReader},
    machine::Vetting,
    members::Judge,
    network::Accept,
    runtime::Thread,
    state::{Stages, WorkerHandle},
    status::{Role, Standing, Status},
    types::{LogId, Membership, Raft, position},
};

/// What the handle keeps for each group.
pub(super) struct Group {
    pub(super) id: GroupId,
    /// This node.
    pub(super) me: NodeId,
    pub(super) running: RwLock<Running>,
    pub(super) log: Arc<GroupLog>,
    pub(super) reader: LogReader,
    pub(super) stages: Stages,
    pub(super) vetting: Vetting,
    /// Whose votes may count; nobody judges that before [`Consensus::judge_members`](super::Consensus::judge_members).
    pub(super) judge: OnceLock<Judge>,
    pub(super) accept: Accept,
    /// The voters that it begins with; none if it waits for others.
    pub(super) founders: Option<BTreeSet<NodeId>>,
    /// Nodes that may have a part in it though its members, as known here, do not say so.
    pub(super) circle: RwLock<BTreeSet<NodeId>>,
    pub(super) thread: Mutex<Option<Thread>>,
    /// One gives it up at a time.
    pub(super) leaving: tokio::sync::Mutex<()>,
    /// Proposals under way, by count and by bytes.
    pub(super) slots: Arc<Semaphore>,
    pub(super) bytes: Arc<Semaphore>,
}

/// openraft's part of a group and the state that it drives: given up, the group goes on with others.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) raft: Raft,
    pub(super) worker: WorkerHandle,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Group {
    /// openraft's handle, as of now.
    pub(super) fn raft(&self) -> Raft {
        self.running.read().unwrap_or_else(PoisonError::into_inner).raft.clone()
    }

    /// The machine's thread, as of now.
    pub(super) fn worker(&self) -> WorkerHandle {
        self.running.read().unwrap_or_else(PoisonError::into_inner).worker.clone()
    }

    /// Goes on with another openraft and another state.
    pub(super) fn go_on(&self, running: Running) {
        *self.running.write().unwrap_or_else(PoisonError::into_inner) = running;
    }

    pub(super) fn status(&self) -> Status {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let held = self.log.hold.why();
        let mut status =
            Status::new(&metrics, self.log.durable.index(), self.log.purged_index(), self.log.fence.fault(), held);
        // Looked at behind the metrics: those may have counted what was passed over.
        if let Some(behind) = self.log.hold.behind() {
            status.applied = behind.applied.as_ref().map(position);
        }
        status
    }

    /// The part of [`status`](Self::status) that is asked for most.
    pub(super) fn standing(&self) -> Standing {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let held = self.log.hold.why().is_some();
        let mut standing = Standing::new(&metrics, self.log.fence.fault().is_some(), held);
        // As above: behind the metrics.
        if let Some(behind) = self.log.hold.behind() {
            standing.applied = behind.applied.as_ref().map(position);
        }
        standing
    }

    /// What this node is in the group.
    pub(super) fn role(&self) -> Role {
        self.standing().role
    }

    /// Whether nobody else has a part in it.
    pub(super) fn is_alone(&self) -> bool {
        let status = self.status();
        status.voters.len() == 1 && status.voters.contains(&self.me) && status.learners.is_empty() && !status.changing
    }

    /// Whether a membership that a leader orders at an index is one that this group may have. Nobody changes what is committed; a leader may
    /// send it again, though it has long been another.
    pub(super) fn may_have(&self, index: u64, membership: &Membership) -> bool {
        let committed = self.log.known().1.as_ref().map(LogId::index);
        if Some(index) <= committed.max(self.log.durable.index()) {
            return true;
        }
        let lists = membership.get_joint_config().iter().map(|list| list.iter().copied().map(NodeId).collect());
        let lists: Vec<BTreeSet<NodeId>> = lists.collect();
        self.judge.get().is_none_or(|judge| judge(&lists))
    }

    /// Whether a node has anything to say in this group: it is one of its members, or in the circle of those that may have become members
    /// while this node was away. Those that the group began with count only as long as it has no members. A node may have a part in
    /// some groups of this one and none in others. A group that waits for others knows nobody yet, and listens to all.
    pub(super) fn listens_to(&self, peer: NodeId) -> bool {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        if membership.get_node(&peer.0).is_some() {
            return true;
        }
        if membership.nodes().next().is_none() {
            // Of a group that was given up, those are long gone perhaps; and one that came back with nothing may be led by a later member.
            let founders = self.founders.as_ref().filter(|_| self.log.left().is_none());
            if founders.is_none_or(|founders| founders.contains(&peer)) {
                return true;
            }
        }
        self.circle.read().unwrap_or_else(PoisonError::into_inner).contains(&peer)
    }

    /// Whether a node that had something to say has nothing to say any more: it is not [listened to](Self::listens_to), and that it is no
    /// member is committed. Until then a leader that takes itself out goes on.
    pub(super) fn has_let_go(&self, peer: NodeId) -> bool {
        let metrics = self.raft().metrics();
        let gone = {
            let metrics = metrics.borrow_watched();
            let members = metrics.committed_membership_config.membership();
            members.nodes().next().is_some() && members.get_node(&peer.0).is_none()
        };
        gone && !self.listens_to(peer)
    }

    /// Why the group is not running, if it is not: the fence's fault, or that openraft died without one.
    pub(super) fn stopped_by(&self) -> Option<Arc<Fault>> {
        if let Some(fault) = self.log.fence.fault() {
            return Some(fault);
        }
        let metrics = self.raft().metrics();
        let running = metrics.borrow_watched().running_state.clone();
        match running {
            Ok(()) | Err(openraft::errors::Fatal::Stopped) => None,
            // Every storage error raises the fence before it reaches openraft; what is left is a bug.
            Err(fatal) => Some(self.log.fence.bug(format!("consensus ended: {fatal}"))),
        }
    }

    /// Stops in order: no more proposals, then the state is made durable and closed.
    pub(super) async fn shutdown(&self) -> Result<(), ShutdownError> {
        self.accept.close();
        let _leaving = self.leaving.lock().await;
        // The only error is that the task panicked, and the fence tells of that below.
        drop(self.raft().shutdown().await);
        let stopped = self.worker().stop().await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.ended().await;
        }
        match (stopped, self.log.fence.fault()) {
            (_, Some(fault)) => Err(ShutdownError { group: self.id, fault }),
            // Without a fault it was stopped before, by an earlier call.
            (Ok(_) | Err(_), None) => Ok(()),
        }
    }
}
