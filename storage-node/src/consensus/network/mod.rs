//! Between nodes: how this node's groups speak to their peers, and what comes in from them.
//!
//! ```text
//!   openraft ─► client ─┬─ stream    appends, pipelined ──┐                 ┌─► serve ─► accept, check ─► openraft
//!                       ├─ (beats)   one stream, kept ────┤   call          │              │
//!                       └─ router ─┬ votes, handing over ─┼─► hello ─► link ~~~ link ──────┤
//!                                  └ snapshot ────────────┘                                └─ snapshot ─► stage ─► openraft
//! ```
//!
//! - [`link`] is the seam to whatever carries frames (QUIC, or queues in a test), and says what that must keep.
//! - [`codec`] has the bytes; they are ours, and strict.
//! - [`peers`] remembers who each peer is, durably, before a word of it counts. A node that lost its log is refused.
//! - [`apart`] keeps what stands between this node and a peer, for an operator: said once for two nodes, not by each group at each beat.
//! - Who has no part in a group is sent away before that: a node may share some groups with this one and not others.
//! - [`check`] holds every word of a peer against what is known, before openraft hears it: openraft asserts some of that,
//!   and an assertion would stop the group.
//! - [`mod@router`] is openraft-multi's `GroupRouter`: one link for all groups. Its adapter carries the calls that are one request
//!   and one answer. It sends appends one at a time and has no clients of different kinds, so [`client`] wraps it.
//! - Nothing here runs in a task of its own: calls are driven by whoever waits for them, streams that come in by whoever
//!   handed them to [`Consensus::serve`](super::Consensus::serve).
//!
//! # Bounds
//!
//! | what | at most |
//! |---|---|
//! | a frame | [`MAX_FRAME_BYTES`], before a request or an answer is known to be longer: 1 KiB |
//! | appends under way, to or from a peer in a group | 64 (48 at the receiving end), and 16 MiB or one frame |
//! | streams of a kind from a peer in a group that last | one: the next ends the last |
//! | requests of a group that are answered at once | 32, 8 of them of one peer |
//! | a snapshot in memory | two pieces of 1 MiB at each end, and what the machine's stage holds |
//! | snapshots that a node sends or receives at once | two each way, one of them to or from a peer; each as fast as 64 KiB/s at least |
//! | bytes of snapshots that it sends | `snapshot_bytes_per_s`, all together |

mod accept;
mod apart;
mod call;
pub(super) mod check;
mod client;
mod codec;
mod confirmed;
mod link;
mod pace;
mod peers;
#[cfg(test)]
mod peers_tests;
mod router;
mod serve;
mod snapshot;
mod stream;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use openraft::{raft::TransferLeaderRequest, type_config::TypeConfigExt};
use openraft_multi::GroupNetworkFactory;

use self::{
    call::{Caller, Patience},
    codec::{Answer, Request},
    serve::Server,
};
use super::{
    compact::CatchingUp,
    config::Config,
    group::Group,
    ids::{GroupId, NodeId},
    log::group::GroupLog,
    types::{LogId, Types, Vote},
};

pub use self::{
    accept::Unserved,
    apart::Apart,
    link::{Alone, FrameReceiver, FrameSender, Link, LinkError, MAX_FRAME_BYTES, Purpose, Stream},
    peers::Estranged,
};
pub(super) use self::{
    accept::{Accept, Snapshots},
    client::Network,
    pace::Pace,
    peers::Peers,
    router::Router,
};

/// Everything that goes out: one for all groups of the node.
pub(super) fn router(
    link: Arc<dyn Link>,
    peers: Arc<Peers>,
    config: &Config,
    logs: BTreeMap<GroupId, Arc<GroupLog>>,
    catching_up: Arc<CatchingUp>,
) -> Router {
    let caller = Caller { link, peers, patience: Patience::of(&config.timing) };
    Router::new(caller, logs, Pace::new(config.snapshot_bytes_per_s), catching_up)
}

impl Router {
    /// What openraft makes the clients of a group with.
    pub(super) fn network(&self, group: GroupId) -> Network {
        Network(GroupNetworkFactory::new(self.clone(), group))
    }

    /// A member of a group was let go, and may give up what it has of it.
    pub(super) fn let_go(&self, group: GroupId, member: NodeId) {
        self.confirmed().forget(group, member);
    }

    /// What stands between this node and a peer.
    pub(super) fn apart(&self, peer: NodeId) -> BTreeMap<Apart, String> {
        self.caller().peers.apart(peer)
    }

    /// Asks `peer` nothing. True if it takes this node for whom it is, and this node it: then each has the other's uid on disk.
    pub(super) async fn meet(&self, peer: NodeId, group: GroupId) -> bool {
        let meeting = async {
            let (mut sender, mut answers) = self.caller().open(self.log(group)?, peer, Purpose::Request).await?;
            // Before its end is said: a peer that hears the end first may drop the stream, and the welcome with it.
            let welcome = answers.welcome().await;
            sender.finish();
            welcome
        };
        meeting.await.is_ok()
    }

    /// Serves one stream that `peer` opened, to its end.
    pub(super) async fn serve(
        &self,
        groups: &BTreeMap<GroupId, Arc<Group>>,
        peer: NodeId,
        stream: Stream,
    ) -> Result<(), Unserved> {
        let Caller { peers, patience, .. } = self.caller();
        let server = Server { peers, groups, patience: *patience };
        Ok(server.serve(peer, stream).await?)
    }

    /// Asks `to` to stand for election now, by the word of this node that leads under `vote`, whatever it lacks of this node's log.
    /// `Err`: why it does not, or that it does not answer.
    pub(super) async fn stand_for_election(&self, to: NodeId, group: GroupId, vote: Vote) -> Result<(), String> {
        let limit = self.caller().patience.open;
        let request = Request::Transfer(TransferLeaderRequest::new(vote, to.0, None));
        match Types::timeout(limit, self.call(to, group, request)).await {
            Ok(Ok(Answer::Transferring)) => Ok(()),
            Ok(Ok(other)) => Err(format!("node {to} does not stand for election: {other:?}")),
            Ok(Err(error)) => Err(format!("node {to} is not asked: {error}")),
            Err(_) => Err(format!("node {to} does not answer")),
        }
    }

    /// Asks `leader` up to where a reader must have applied. `Err`: it does not lead, or does not answer; who may.
    pub(super) async fn read_index(&self, leader: NodeId, group: GroupId) -> Result<LogId, Option<NodeId>> {
        let limit = self.caller().patience.open;
        match Types::timeout(limit, self.call(leader, group, Request::ReadIndex)).await {
            Ok(Ok(Answer::ReadIndex(id))) => Ok(id),
            Ok(Ok(Answer::NotLeader(other))) => Err(other.map(NodeId)),
            Ok(_) | Err(_) => Err(None),
        }
    }
}
