//! Giving a group up: this node has no part in it any more, and others have all of it.
//!
//! ```text
//! step aside: no stream of the group is served ─► (the leader is asked: is this node let go?) ─► openraft ends
//!   ─► log: one transaction, all of it goes, `Left` and the vote stay ─► state: goes ─► another openraft, as if it had never had a part
//! ```
//!
//! What stays, and why:
//!
//! - **The vote.** A leader of an old term whom this node has left behind must find it so.
//! - **Where the log ended** ([`Left`](super::log::file::Left)). While it had its log, this node gave its vote to nobody whose log was shorter. A candidate that knows only
//!   the members of long ago counts on such votes; to whom this node had refused one, it refuses one without its log, too. And it stands for no
//!   election itself before its log is as long again: on the way there it may find that it alone votes.
//! - **Who the others are** (their uids): they are of the whole node.
//!
//! Why it is silent from before it is let go until its log is gone: a leader counts what a member confirmed. Each time that it takes a node in
//! it counts anew, so what was confirmed before it let this node go counts for nothing; and between that and the end of the log this node confirms
//! nothing, though it may be taken in again meanwhile. So no leader ever counts on an entry that went here.
//!
//! A crash leaves the log whole, or gone. Where it is gone and the state is not, the next start finds that and removes it.

use std::{sync::Arc, time::Duration};

use openraft::{
    ReadPolicy, ServerState,
    async_runtime::WatchReceiver,
    raft::{VoteRequest, VoteResponse},
    type_config::TypeConfigExt,
};

use super::{
    error::LeaveError,
    group::{Group, Running},
    handle::Consensus,
    ids::{GroupId, NodeId},
    log::store::LogStore,
    open::raft_config,
    state::MachineAdapter,
    status::Role,
    types::{Raft, Types},
};

/// What is under way when this node falls silent ends within this time.
const SILENT_WITHIN: Duration = Duration::from_secs(10);

/// A group in which this node is silent. It speaks again when this is dropped.
#[derive(Debug)]
pub struct Aside {
    consensus: Consensus,
    group: Arc<Group>,
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.group.accept.come_back();
    }
}

impl Consensus {
    /// What was noted when `group` was given up here, if it ever was.
    #[must_use]
    pub fn left_under(&self, group: GroupId) -> Option<u32> {
        self.group(group)?.log.left().map(|left| left.under)
    }

    /// Whether a committed membership of `group` is known here, and neither that nor anything that may be on its way gives `node` a part in it.
    #[must_use]
    pub fn goes_on_without(&self, group: GroupId, node: NodeId) -> bool {
        self.group(group).is_some_and(|group| group.has_let_go(node))
    }

    /// Falls silent in `group`: when this returns, nothing that this node confirmed is on its way, and it confirms nothing until what is
    /// returned is dropped.
    ///
    /// # Errors
    /// [`LeaveError`]: it leads, or stands for election, or a stream does not end.
    pub async fn step_aside(&self, group: GroupId) -> Result<Aside, LeaveError> {
        let group = self.group(group).ok_or(LeaveError::NoSuchGroup(group))?;
        group.accept.step_aside();
        let aside = Aside { consensus: self.clone(), group: group.clone() };
        Types::timeout(SILENT_WITHIN, group.accept.silence()).await.map_err(|_| LeaveError::NotSilent)?;
        aside.may_leave()?;
        Ok(aside)
    }

    /// Whether this node leads `group`, a majority has confirmed that since this was called, and `node` is no member, which is committed. Whoever
    /// is taken in later, is taken in anew: this node forgets what it had confirmed.
    pub async fn has_let_go(&self, group: GroupId, node: NodeId, limit: Duration) -> bool {
        let Some(group) = self.group(group) else { return false };
        let raft = group.raft();
        let confirmed = Types::timeout(limit, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
        if !matches!(confirmed, Ok(Ok(_))) || group.log.hold.why().is_some() {
            return false;
        }
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = &metrics.membership_config;
        let gone = metrics.state == ServerState::Leader
            && members.log_id().is_some()
            && *members.log_id() <= metrics.last_applied
            && members.membership().get_joint_config().len() == 1
            && members.membership().get_node(&node.0).is_none();
        if gone {
            self.inner.router.let_go(group.id, node);
        }
        gone
    }
}

impl Aside {
    fn may_leave(&self) -> Result<(), LeaveError> {
        let status = self.group.status();
        if let Some(fault) = status.fault {
            return Err(LeaveError::Fault(fault));
        }
        // What is damaged may be wanted as it is.
        if status.held.is_some() || !matches!(status.role, Role::Follower | Role::Learner) {
            return Err(LeaveError::NotNow(status.role));
        }
        Ok(())
    }

    /// Gives the group up: its log and its state are gone when this returns, and it waits for whoever takes this node in again. `under` is
    /// kept for [`Consensus::left_under`].
    ///
    /// The caller knows, from after this node fell silent, that the leader has let it go ([`Consensus::has_let_go`]), and that others have all
    /// that it has.
    ///
    /// # Errors
    /// [`LeaveError`]. [`LeaveError::Fault`]: the group is stopped; a restart goes on where this ended.
    pub async fn forget(self, under: u32) -> Result<(), LeaveError> {
        let (inner, group) = (&self.consensus.inner, &self.group);
        let _one = group.leaving.lock().await;
        self.may_leave()?;
        let queue = inner.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let queue = queue.ok_or(LeaveError::Stopped)?;
        let stopped = || group.stopped_by().map_or(LeaveError::Stopped, LeaveError::Fault);
        let raft_config = raft_config(&inner.config).map_err(|_| LeaveError::Stopped)?;
        // The only error is that its task panicked; then the group is stopped, and the fence says so.
        drop(group.raft().shutdown().await);
        queue.leave(&group.log, under).await.map_err(|_| stopped())?;
        let worker = group.worker().forget().await.map_err(|_| stopped())?;
        let store = LogStore::new(inner.file.clone(), group.log.clone(), queue);
        let (network, adapter) = (inner.router.network(group.id), MachineAdapter::new(worker.clone(), None));
        let raft = Raft::new(inner.config.node_id.0, raft_config, network, store, adapter).await;
        let raft = raft.map_err(|fatal| {
            LeaveError::Fault(
                group.log.fence.bug(format!("consensus does not begin again after it was given up: {fatal}")),
            )
        })?;
        raft.runtime_config().elect(false);
        group.go_on(Running { raft, worker });
        Ok(())
    }
}

impl Group {
    /// Whether this node may stand for election: not while it is held; nor while its log is shorter than the one that it gave up, for then
    /// what it says of who votes is of long ago: this node alone perhaps.
    pub(super) fn may_stand(&self) -> bool {
        self.log.hold.why().is_none() && !self.log.is_short()
    }

    /// Who asks for a vote with a shorter log than this node had when it gave the group up, is refused, as it was then.
    pub(super) fn too_early(&self, asked: &VoteRequest<Types>) -> Option<VoteResponse<Types>> {
        let left = self.log.left()?;
        let vote = self.log.known().0?;
        (asked.last_log_id < Some(left.last)).then(|| VoteResponse::new(vote, Some(left.last), false))
    }
}
