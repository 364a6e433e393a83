//! The seam to other nodes.
//!
//! In this release every group has one voter, so there is nobody to talk to: [`NoPeers`] makes clients whose every
//! call answers "unreachable". openraft then backs off and keeps its term (a pre-vote that cannot be sent is not a
//! grant), so a group that has been given other voters waits, and loses nothing.
//!
//! What takes this place is another [`RaftNetworkFactory`]; nothing else in this module changes:
//!
//! - It is made from the channel between nodes and the group's number; `new_client` finds the peer by its number in
//!   the charter and opens nothing until it is used. `new_snapshot_client` uses a stream of its own, and so does
//!   `new_heartbeat_client`, so that neither waits behind a large batch.
//! - Its client implements [`RaftNetworkV2`] and overrides `stream_append`: requests go out on one long-lived stream
//!   without waiting for the answers, which come back in order. The default waits for each answer, one round trip a
//!   batch.
//! - `pre_vote` is sent like `vote`. The default of the trait *grants*, and would switch pre-vote off without a word.
//! - Messages get a form of our own, as everything on disk has in [`codec`](super::codec): openraft's serde forms
//!   change with its versions.
//! - Both ends say their `NodeUid`: a node that comes back with another one is not the node that voted.
//! - The receiving end hands requests to the group's `append_entries`, `stream_append`, `vote`, `pre_vote` and
//!   `install_full_snapshot`.

use std::{future::Future, io};

use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};

use super::{
    state::SnapshotStream,
    types::{Snapshot, Types, Vote},
};

/// Makes clients that reach nobody.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NoPeers;

impl RaftNetworkFactory<Types> for NoPeers {
    type Network = NoPeer;

    async fn new_client(&mut self, target: u64, (): &()) -> NoPeer {
        NoPeer { target }
    }
}

/// A peer that cannot be reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoPeer {
    target: u64,
}

impl NoPeer {
    fn unreachable(self) -> Unreachable<Types> {
        Unreachable::new(&io::Error::new(
            io::ErrorKind::NotConnected,
            format!("node {}: this release has no replication between nodes", self.target),
        ))
    }
}

impl RaftNetworkV2<Types> for NoPeer {
    type SnapshotData = SnapshotStream;

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn pre_vote(
        &mut self,
        _request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(self.unreachable().into())
    }
}
