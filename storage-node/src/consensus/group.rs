//! One group at work.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use openraft::async_runtime::WatchReceiver;
use tokio::sync::Semaphore;

use super::{
    error::{Fault, ShutdownError},
    ids::{GroupId, NodeId},
    log::group::GroupLog,
    machine::Vetting,
    network::Accept,
    runtime::Thread,
    state::{Stages, WorkerHandle},
    status::{Role, Status},
    types::Raft,
};

/// What the handle keeps for each group.
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) running: RwLock<Running>,
    pub(super) log: Arc<GroupLog>,
    pub(super) stages: Stages,
    pub(super) vetting: Vetting,
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
        Status::new(&metrics, self.log.durable.index(), self.log.purged_index(), self.log.fence.fault(), held)
    }

    /// What this node is in the group: the part of [`status`](Self::status) that is asked for most.
    pub(super) fn role(&self) -> Role {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        Role::of(&metrics, self.log.fence.fault().is_some())
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
            // Of a group that was given up, those are long gone perhaps.
            let founders = self.founders.as_ref().filter(|_| self.log.left().is_none());
            return founders.is_none_or(|founders| founders.contains(&peer));
        }
        self.circle.read().unwrap_or_else(PoisonError::into_inner).contains(&peer)
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
        self.log.hold.end();
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
