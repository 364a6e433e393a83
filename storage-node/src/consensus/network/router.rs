//! The calls that are one request and one answer, for all groups over one [`Link`](super::link::Link): openraft-multi's
//! `GroupRouter`, which binds a peer and a group to it in front of openraft.
//!
//! Appends are not among them: openraft-multi's adapter waits for each answer before it sends the next request, and cannot be told
//! otherwise, so [`client`](super::client) has a stream of its own for them.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use futures::StreamExt;
use openraft::{
    OptionalSend,
    errors::{RPCError, ReplicationClosed, StreamingError},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, TransferLeaderError,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    type_config::TypeConfigExt,
};
use openraft_multi::GroupRouter;

use super::{
    call::{CallError, Caller, SMALL_FRAME_BYTES},
    check::{self, Known, Unsound},
    codec::{self, Answer, Request},
    confirmed::Confirmed,
    link::Purpose,
    pace::Pace,
    snapshot, stream,
};
use crate::consensus::{
    compact::CatchingUp,
    ids::{GroupId, NodeId},
    log::group::GroupLog,
    refused::Refusals,
    state::SnapshotData,
    types::{Snapshot, Types, Vote},
};

/// Reaches every peer for every group of this node. Copies are the same router.
#[derive(Clone, Debug)]
pub(in crate::consensus) struct Router(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    caller: Caller,
    logs: BTreeMap<GroupId, Arc<GroupLog>>,
    confirmed: Confirmed,
    refusals: Refusals,
    pace: Pace,
    catching_up: Arc<CatchingUp>,
}

impl Router {
    pub(super) fn new(
        caller: Caller,
        logs: BTreeMap<GroupId, Arc<GroupLog>>,
        pace: Pace,
        catching_up: Arc<CatchingUp>,
    ) -> Self {
        let (confirmed, refusals) = (Confirmed::default(), Refusals::default());
        Self(Arc::new(Inner { caller, logs, confirmed, refusals, pace, catching_up }))
    }

    /// How fast snapshots go out.
    pub(super) fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// Who gets one.
    pub(super) fn catching_up(&self) -> &CatchingUp {
        &self.0.catching_up
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.0.caller
    }

    pub(super) fn confirmed(&self) -> &Confirmed {
        &self.0.confirmed
    }

    /// Who does not take what this node orders.
    pub(in crate::consensus) fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    pub(super) fn log(&self, group: GroupId) -> Result<&Arc<GroupLog>, CallError> {
        self.0.logs.get(&group).ok_or(CallError::NoSuchGroup(group))
    }

    /// One request, one answer.
    pub(super) async fn call(&self, peer: NodeId, group: GroupId, request: Request) -> Result<Answer, CallError> {
        let called = self.called(peer, group, request).await;
        called.inspect_err(|error| self.caller().peers.failed(peer, error))
    }

    async fn called(&self, peer: NodeId, group: GroupId, request: Request) -> Result<Answer, CallError> {
        let log = self.log(group)?;
        let (mut sender, mut answers) = self.caller().open(log, peer, Purpose::Request).await?;
        sender.send(codec::encode_request(&request)).await?;
        sender.finish();
        let answer = codec::decode_answer(&answers.next(SMALL_FRAME_BYTES).await?)?;
        check::noted(log, check::answer(&Known::of(log), &request, &answer))?;
        Ok(answer)
    }

    /// As [`call`](Self::call), within what openraft gives it.
    async fn call_within(
        &self,
        peer: u64,
        group: GroupId,
        request: Request,
        option: &RPCOption,
    ) -> Result<Answer, RPCError<Types>> {
        let limit = option.hard_ttl();
        match Types::timeout(limit, self.call(NodeId(peer), group, request)).await {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(CallError::Silent(limit).into()),
        }
    }
}

fn vote_of(answer: Answer) -> Result<VoteResponse<Types>, RPCError<Types>> {
    match answer {
        Answer::Vote(answer) => Ok(answer),
        _ => Err(CallError::Unsound(Unsound::OtherQuestion).into()),
    }
}

impl GroupRouter<Types, GroupId> for Router {
    type SnapshotData = SnapshotData;

    /// openraft appends by stream; this is one request of one.
    async fn append_entries(
        &self,
        target: u64,
        group: GroupId,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let input = futures::stream::iter([request]);
        let mut answers = stream::append(self, NodeId(target), group, input).await?;
        Ok(match answers.next().await.unwrap_or(Err(CallError::Ended.into()))? {
            Ok(_) => AppendEntriesResponse::Success,
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    async fn vote(
        &self,
        target: u64,
        group: GroupId,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        vote_of(self.call_within(target, group, Request::Vote(request), &option).await?)
    }

    async fn pre_vote(
        &self,
        target: u64,
        group: GroupId,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        vote_of(self.call_within(target, group, Request::PreVote(request), &option).await?)
    }

    async fn full_snapshot(
        &self,
        target: u64,
        group: GroupId,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        snapshot::send(self, NodeId(target), group, vote, snapshot, cancel).await
    }

    async fn transfer_leader(
        &self,
        target: u64,
        group: GroupId,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.call_within(target, group, Request::Transfer(request), &option).await? {
            Answer::Transferring => Ok(Ok(())),
            Answer::OtherVote { expected, actual } => Ok(Err(TransferLeaderError::VoteChanged { expected, actual })),
            Answer::NotFlushed { expected, actual } => Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual })),
            _ => Err(CallError::Unsound(Unsound::OtherQuestion).into()),
        }
    }
}
