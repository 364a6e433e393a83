//! Who is in a group, who leads it, and what a reader must have seen: asked of the leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
    time::Duration,
};

use openraft::{
    ChangeMembers, ReadPolicy,
    async_runtime::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, LinearizableReadError, RaftError},
    raft::Precondition,
    type_config::TypeConfigExt,
};

use super::{
    error::{ChangeError, ReadError, WaitError},
    group::Group,
    handle::Consensus,
    ids::{GroupId, NodeId, Position},
    status::Role,
    types::{LogId, Types, position},
};

type Changed = Result<openraft::raft::ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

/// Whether a group's votes may be counted by these lists of voters: one, or two while they change. A majority of each decides.
pub type Judge = Box<dyn Fn(&[BTreeSet<NodeId>]) -> bool + Send + Sync>;

impl Consensus {
    /// Has every membership of `group` that a leader orders judged before it is in this node's log: from then on it would decide who leads,
    /// committed or not. It is asked anew each time, so a leader that is ahead of what this node knows only waits. The first
    /// judge stays.
    pub fn judge_members(&self, group: GroupId, judge: Judge) {
        if let Some(group) = self.group(group) {
            drop(group.judge.set(judge));
        }
    }

    /// Listens to these nodes in `group`, though they may not be among its members as this node knows them: members may have changed while
    /// it was away, and then a new one tells it so. To its members it listens in any case.
    pub fn listen_to(&self, group: GroupId, circle: BTreeSet<NodeId>) {
        if let Some(group) = self.group(group) {
            *group.circle.write().unwrap_or_else(PoisonError::into_inner) = circle;
        }
    }

    /// Whether this node minds the time in `group`: stands for election when its leader falls silent. It should not where it has no part: who was
    /// let go, or was never taken in, would stand for ever and be listened to by nobody. Alone it need not.
    pub fn mind_time(&self, group: GroupId, has_part: bool) {
        if let Some(group) = self.group(group) {
            group.raft().runtime_config().tick(has_part && !group.is_alone());
            group.raft().runtime_config().elect(group.may_stand());
        }
    }

    /// Gives `node` the log of `group`, without a vote. Returns when that is committed; how far the node is, the leader's
    /// [`Status::matched`](super::Status::matched) tells. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn add_learner(&self, group: GroupId, node: NodeId) -> Result<(), ChangeError> {
        let group = self.group(group).ok_or(ChangeError::NoSuchGroup(group))?;
        let unchanged = self.still_member(group)?;
        // It is nobody's sole voter any more, or soon: heartbeats and elections from here on.
        group.raft().runtime_config().tick(true);
        let new = ChangeMembers::AddNodes(BTreeMap::from([(node.0, ())]));
        shown(group, group.raft().change_membership_if(new, true, [unchanged]).await).await
    }

    /// Makes `voters`, each of which must be a voter already, or a learner that is known to have something of the log, those who vote, by way
    /// of a joint membership. Who has nothing elects nobody ([`meet`](super::meet)), so that with a majority of such the group would stand still
    /// if its leader fell in the middle of that. Returns when it is committed. Who voted before and does not now is no member any more.
    /// Doing it again after an error is safe, and finishes what was left half done; where that takes this node out of the group, whoever leads next is asked for the rest
    /// ([`ChangeError::NotLeader`]).
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn change_voters(&self, group: GroupId, voters: &BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let group = self.group(group).ok_or(ChangeError::NoSuchGroup(group))?;
        let unchanged = self.still_member(group)?;
        group.raft().runtime_config().tick(true);
        let ids: BTreeSet<u64> = voters.iter().map(|voter| voter.0).collect();
        if self.would_be_a_stranger(group, &ids) {
            let pending = ChangeMembers::AddVoterIds(BTreeSet::new());
            shown(group, group.raft().change_membership_if(pending, false, [unchanged]).await).await?;
            self.still_member(group)?;
            return Err(ChangeError::NotNow("a change that was half done is finished first".to_owned()));
        }
        let status = group.status();
        let has = |node: &NodeId| status.matched.get(node).copied().flatten().is_some();
        if let Some(new) = voters.iter().find(|node| !status.voters.contains(node) && !has(node)) {
            return Err(ChangeError::NotNow(format!("node {new} has nothing of the group yet")));
        }
        let set = ChangeMembers::ReplaceAllVoters(ids);
        shown(group, group.raft().change_membership_if(set, false, [unchanged]).await).await?;
        self.rest_if_alone(group);
        Ok(())
    }

    /// Takes the log of `group` away from `node`, which must have no vote. Returns when that is committed.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn remove_learner(&self, group: GroupId, node: NodeId) -> Result<(), ChangeError> {
        let group = self.group(group).ok_or(ChangeError::NoSuchGroup(group))?;
        let unchanged = self.still_member(group)?;
        let gone = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
        shown(group, group.raft().change_membership_if(gone, false, [unchanged]).await).await?;
        self.rest_if_alone(group);
        Ok(())
    }

    /// A leader that took itself out of the group goes on leading for a moment. openraft takes no change of members from it:
    /// its core asserts that a leader is a member. What is seen here may be over when the core gets to the change, if another one is
    /// under way whose caller did not wait for it: so the core is told to make this one only if the members are still those.
    fn still_member(&self, group: &Group) -> Result<Precondition<Types>, ChangeError> {
        let metrics = group.raft().metrics();
        let metrics = metrics.borrow_watched();
        let (members, me) = (metrics.membership_config.membership(), self.node_id());
        if members.nodes().next().is_none() || members.get_node(&me.0).is_some() {
            return Ok(Precondition::LastMembershipLogId {
                last_membership_log_id: *metrics.membership_config.log_id(),
            });
        }
        Err(ChangeError::NotLeader { leader: metrics.current_leader.map(NodeId).filter(|leader| *leader != me) })
    }

    /// From a change that is half done openraft goes to one from its target to the next. A leader that is in neither would then have to make
    /// the last step from outside, which its core asserts against.
    fn would_be_a_stranger(&self, group: &Group, next: &BTreeSet<u64>) -> bool {
        let metrics = group.raft().metrics();
        let metrics = metrics.borrow_watched();
        let lists = metrics.membership_config.membership().get_joint_config();
        let me = self.node_id().0;
        match lists.split_last() {
            Some((target, [_, ..])) => !lists.contains(next) && !target.contains(&me) && !next.contains(&me),
            _ => false,
        }
    }

    /// A group that is this node's alone is quiet again.
    fn rest_if_alone(&self, group: &Group) {
        if group.is_alone() {
            group.raft().runtime_config().tick(false);
        }
    }

    /// Asks `to` to lead `group` instead of this node. Whether it does, [`wait`](Self::wait) tells; if it does not answer, the
    /// group goes on as if this node had fallen silent.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn transfer_leader(&self, group: GroupId, to: NodeId) -> Result<(), ChangeError> {
        let group = self.group(group).ok_or(ChangeError::NoSuchGroup(group))?;
        let status = group.status();
        if status.role != Role::Leader {
            return Err(ChangeError::NotLeader { leader: status.leader });
        }
        if to == self.node_id() {
            // openraft would take no proposals any more until the next election, for which nobody has a reason.
            return Ok(());
        }
        if !status.voters.contains(&to) {
            return Err(ChangeError::NotNow(format!("node {to} has no vote in the group")));
        }
        group.raft().trigger().transfer_leader(to.0).await.map_err(|_| ChangeError::Stopped)
    }

    /// Returns when this node's state has everything that was acknowledged to anybody before this was called; and up to
    /// where that is. On the leader this is one round to a majority, on others one more to the leader.
    ///
    /// # Errors
    /// [`ReadError`], at the latest after `limit`.
    pub async fn read_index(&self, group: GroupId, limit: Duration) -> Result<Position, ReadError> {
        let entry = self.group(group).ok_or(ReadError::NoSuchGroup(group))?;
        let reading = async {
            let leader = match entry.raft().ensure_linearizable(ReadPolicy::ReadIndex).await {
                Ok(read) => {
                    // openraft counts what was passed over while the group was held.
                    let read = position(read.log_id());
                    return self.applied(group, limit, read).await;
                }
                Err(RaftError::Fatal(_)) => return Err(ReadError::Stopped),
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                    return Err(ReadError::NoLeader { leader: Some(self.node_id()) });
                }
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => to.leader_id.map(NodeId),
            };
            let asked = leader.filter(|leader| *leader != self.node_id()).ok_or(ReadError::NoLeader { leader })?;
            let read = self.inner.router.read_index(asked, group).await;
            let read = position(&read.map_err(|leader| ReadError::NoLeader { leader: leader.or(Some(asked)) })?);
            self.applied(group, limit, read).await
        };
        Types::timeout(limit, reading).await.unwrap_or(Err(ReadError::TimedOut(limit)))
    }

    async fn applied(&self, group: GroupId, limit: Duration, read: Position) -> Result<Position, ReadError> {
        match self.wait(group, limit, |status| status.applied.is_some_and(|at| at.index >= read.index)).await {
            Ok(_) => Ok(read),
            Err(WaitError::Stopped) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::TimedOut(limit)),
        }
    }
}

/// A change that was made is seen by whoever looks from now on: the next one starts from it.
async fn shown(group: &Group, result: Changed) -> Result<(), ChangeError> {
    let at = changed(result)?;
    let mut metrics = group.raft().metrics();
    while metrics.borrow_watched().membership_config.log_id().as_ref() < Some(&at) {
        metrics.changed().await.map_err(|_| ChangeError::Stopped)?;
    }
    Ok(())
}

fn changed(result: Changed) -> Result<LogId, ChangeError> {
    match result {
        Ok(response) => Ok(response.log_id),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
            Err(ChangeError::NotLeader { leader: to.leader_id.map(NodeId) })
        }
        Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Err(ChangeError::Unknown),
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
            let why: ChangeMembershipError<_, _> = error;
            Err(ChangeError::NotNow(why.to_string()))
        }
        Err(RaftError::APIError(other)) => Err(ChangeError::NotNow(other.to_string())),
        Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
    }
}
