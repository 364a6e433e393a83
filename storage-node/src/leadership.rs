//! Who leads, and giving it up in order.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::Board;
use crate::consensus::{Consensus, GroupId, NodeId, Role, WaitError};
use crate::node::node_id;

/// Asked again after this time, though nothing changed.
const WATCH: Duration = Duration::from_secs(3600);

/// Tells the checkpointer at once that another node leads: who leads names the sizes that are cosigned.
pub async fn watch(consensus: Consensus, group: GroupId, board: Arc<Board>, stop: CancellationToken) {
    let mut last = None;
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = consensus.wait(group, WATCH, |status| status.leader != last) => changed,
        };
        match changed {
            Ok(status) => {
                last = status.leader;
                match last {
                    Some(leader) => {
                        tracing::info!(shard = group.0, leader = %node_id(leader), term = status.term, "leads now");
                    }
                    None => tracing::info!(shard = group.0, term = status.term, "led by nobody"),
                }
                board.wake();
            }
            Err(WaitError::TimedOut(_)) => {}
            // It is stopped: for good, or because this node gives it up, and then it goes on.
            Err(WaitError::Stopped) => tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(STEP_BACK) => {}
            },
            Err(_) => return,
        }
    }
}

/// After this time somebody else is asked, if this node still leads.
const STEP_BACK: Duration = Duration::from_secs(2);

/// Stops leading where more than half of the nodes do not take what this one orders, by their clocks or because they cannot read it:
/// has one of them lead. Goes on until it is stopped.
pub async fn step_back(consensus: Consensus, group: GroupId, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = consensus.refused(group) => {}
        }
        match consensus.step_back(group).await {
            Ok(to) => tracing::warn!(
                shard = group.0,
                to = %node_id(to),
                "more than half of the shard's nodes refuse what this node orders, by their clocks or for its version: it asks \
                 another one to lead; look at this machine's clock"
            ),
            Err(why) => tracing::debug!(shard = group.0, %why, "no other node is asked to lead"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = consensus.wait(group, STEP_BACK, |status| status.role != Role::Leader) => {}
        }
    }
}

/// Asks the node that has most of the log to lead instead of this one. Does nothing where this node does not lead, or alone has
/// a vote. Whether the other one takes it, an election tells.
pub async fn hand_over(consensus: &Consensus, group: GroupId) {
    hand_over_to(consensus, group, |_| true).await;
}

/// As [`hand_over`], to one of those who `may` lead, if there is one: it is returned.
async fn hand_over_to(consensus: &Consensus, group: GroupId, may: impl Fn(NodeId) -> bool) -> Option<NodeId> {
    let status = consensus.status(group).filter(|status| status.role == Role::Leader)?;
    let me = consensus.node_id();
    let matched = |node: &NodeId| status.matched.get(node).copied().flatten();
    let to = status.voters.iter().copied().filter(|node| *node != me && may(*node)).max_by_key(matched)?;
    if let Err(why) = consensus.transfer_leader(group, to).await {
        tracing::debug!(shard = group.0, %why, "leadership is not handed over");
        return None;
    }
    Some(to)
}

/// Where this node leads a group that its program is too old for: asks a node that `knows` the rules in force to lead instead, again and again,
/// until one does. Where none is known to, it stays as it is: this node is silent, and the others elect. Goes on until it is stopped.
pub async fn pass_on(
    consensus: Consensus,
    group: GroupId,
    knows: impl Fn(NodeId) -> bool + Send,
    stop: CancellationToken,
) {
    let passing = async {
        loop {
            match consensus.wait(group, WATCH, |status| status.role == Role::Leader).await {
                Ok(_) => {}
                Err(WaitError::TimedOut(_)) => continue,
                Err(WaitError::Stopped) => {
                    tokio::time::sleep(STEP_BACK).await;
                    continue;
                }
                Err(_) => return,
            }
            consensus.outdated(group).await;
            if let Some(to) = hand_over_to(&consensus, group, &knows).await {
                tracing::warn!(
                    shard = group.0,
                    to = %node_id(to),
                    "this program is older than the rules in force: the node asks one that knows them to lead"
                );
            }
            let _ = consensus.wait(group, STEP_BACK, |status| status.role != Role::Leader).await;
        }
    };
    stop.run_until_cancelled(passing).await;
}

/// Hands over everything that this node leads, and waits a little until others do: who stops in order makes nobody wait for an
/// election.
pub async fn hand_over_all(consensus: &Consensus, within: Duration) {
    let groups: Vec<GroupId> = consensus.groups().collect();
    join_all(groups.into_iter().map(|group| async move {
        let led = |consensus: &Consensus| {
            consensus.status(group).is_some_and(|status| status.role == Role::Leader && status.voters.len() > 1)
        };
        if led(consensus) {
            hand_over(consensus, group).await;
            // Whoever cannot, is not waited for any longer than this.
            let _ = consensus.wait(group, within, |status| status.role != Role::Leader).await;
        }
    }))
    .await;
}
