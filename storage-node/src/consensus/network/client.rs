//! openraft's view of one peer in one group.
//!
//! Unary calls go through openraft-multi's adapter to the [`Router`]. Appends are a [`super::stream`] that does not wait,
//! and heartbeats have a client of their own, whose stream stays open from one to the next and is never behind a batch.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use openraft_multi::{GroupNetworkAdapter, GroupNetworkFactory};

use super::{
    call::{Answers, CallError, SMALL_FRAME_BYTES},
    check::Asked,
    codec,
    link::{FrameSender, Purpose},
    router::Router,
    stream::{self, Appended},
};
use crate::consensus::{
    ids::{GroupId, NodeId},
    state::SnapshotData,
    types::{Snapshot, Types, Vote},
};

/// Makes the clients of one group.
#[derive(Clone)]
pub(in crate::consensus) struct Network(pub(super) GroupNetworkFactory<Router, GroupId>);

impl Network {
    fn client(&self, target: u64, beats: Option<Mutex<Option<Beats>>>) -> Client {
        let GroupNetworkFactory { factory, group_id } = &self.0;
        let unary = GroupNetworkAdapter::new(factory.clone(), target, *group_id);
        Client { router: factory.clone(), unary, beats }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, (): &()) -> Client {
        self.client(target, None)
    }

    async fn new_heartbeat_client(&mut self, target: u64, (): &()) -> Client {
        self.client(target, Some(Mutex::default()))
    }
}

/// One peer in one group.
pub(in crate::consensus) struct Client {
    router: Router,
    unary: GroupNetworkAdapter<Types, GroupId, Router>,
    /// Of the heartbeat client: the stream that is open. A mutex only because openraft shares clients by reference.
    beats: Option<Mutex<Option<Beats>>>,
}

struct Beats {
    sender: Box<dyn FrameSender>,
    answers: Answers,
}

impl Client {
    fn peer(&self) -> (NodeId, GroupId) {
        (NodeId(*self.unary.target()), *self.unary.group_id())
    }

    /// One heartbeat. Whatever goes wrong, and openraft's own deadline that drops this, costs the stream: what would come back on
    /// it later belongs to a question that nobody asks any more.
    async fn beat(&mut self, request: AppendEntriesRequest<Types>) -> Result<StreamAppendResult<Types>, CallError> {
        let (peer, group) = self.peer();
        let open = self.beats.as_mut().and_then(|beats| beats.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        let mut beats = match open {
            Some(beats) => beats,
            None => {
                let (sender, answers) = self.router.caller().open(self.router.log(group)?, peer, Purpose::Beat).await?;
                Beats { sender, answers }
            }
        };
        beats.sender.send(codec::encode_append(&request)).await?;
        let result = codec::decode_appended(&beats.answers.next(SMALL_FRAME_BYTES).await?)?;
        stream::judge(&self.router, peer, group, &Asked::of(&request), &result)?;
        if let (Ok(_), Some(kept)) = (&result, &mut self.beats) {
            *kept.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(beats);
        }
        Ok(result)
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.unary.append_entries(request, option).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        async move {
            if self.beats.is_some() {
                // openraft gives one heartbeat at a time, and waits for the end of the answers.
                let request = input.next().await.ok_or(CallError::Ended)?;
                let result = self.beat(request).await;
                let result = result.map_err(|error| {
                    self.router.caller().peers.failed(self.peer().0, &error);
                    RPCError::from(error)
                });
                return Ok(futures::stream::iter([result]).boxed());
            }
            let (peer, group) = self.peer();
            Ok(stream::append(&self.router, peer, group, input).await?.boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.unary.vote(request, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.unary.pre_vote(request, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        self.unary.full_snapshot(vote, snapshot, cancel, option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.unary.transfer_leader(request, option).await
    }
}
