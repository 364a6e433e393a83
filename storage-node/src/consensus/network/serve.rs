//! The accepting end: what a peer opened is checked and handed to openraft.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, Stream, StreamExt, future::Shared};
use openraft::{
    ReadPolicy,
    async_runtime::Select2,
    errors::{LinearizableReadError, RaftError},
    raft::{AppendEntriesRequest, TransferLeaderError},
    type_config::TypeConfigExt,
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    accept::ServeError,
    call::{Patience, SMALL_FRAME_BYTES},
    check::Unsound,
    codec::{self, Answer, Hello, Reason, Request, Welcome},
    link::{self, FrameReceiver, FrameSender, MAX_FRAME_BYTES, Purpose},
    peers::{NotAdmitted, Peers},
    snapshot,
    stream::BYTES,
};
#[cfg(ehe_sim)]
use crate::consensus::runtime;
use crate::consensus::{
    group::Group,
    ids::{GroupId, NodeId},
    types::{EntryPayload, Types},
};

/// Appends of one stream that openraft has at once; below what its own queue takes, so that handing in never waits for a peer
/// that does not read.
const APPENDS: usize = 48;

/// What serving needs.
pub(in crate::consensus) struct Server<'a> {
    pub(in crate::consensus) peers: &'a Peers,
    pub(in crate::consensus) groups: &'a BTreeMap<GroupId, Arc<Group>>,
    pub(super) patience: Patience,
}

impl Server<'_> {
    /// One stream, to its end.
    pub(super) async fn serve(&self, peer: NodeId, stream: link::Stream) -> Result<(), ServeError> {
        let link::Stream { mut sender, mut receiver } = stream;
        let open = self.patience.open;
        let silent = |_| ServeError::Silent(open);
        let first = Types::timeout(open, receiver.recv(SMALL_FRAME_BYTES)).await.map_err(silent)??;
        let hello = codec::decode_hello(&first.ok_or(ServeError::Ended)?)?;
        if hello.to != self.peers.me().0 {
            return Err(Unsound::OtherNode.into());
        }
        let group = match self.admit(peer, &hello).await {
            Ok(group) => group,
            Err(reason) => {
                sender.send(codec::encode_welcome(&Welcome::No(reason))).await?;
                sender.finish();
                return Err(ServeError::Refused(reason));
            }
        };
        let Some(_present) = group.accept.present().await else {
            sender.send(codec::encode_welcome(&Welcome::No(Reason::Stopped))).await?;
            sender.finish();
            return Err(ServeError::Refused(Reason::Stopped));
        };
        if hello.purpose != Purpose::Request && !group.strangers(self.peers).is_empty() {
            sender.send(codec::encode_welcome(&Welcome::No(Reason::NotYet))).await?;
            sender.finish();
            return Err(ServeError::Refused(Reason::NotYet));
        }
        let slot = if hello.purpose == Purpose::Request { group.accept.request_slot(peer) } else { None };
        if hello.purpose == Purpose::Request && slot.is_none() {
            sender.send(codec::encode_welcome(&Welcome::No(Reason::Busy))).await?;
            sender.finish();
            return Err(ServeError::Refused(Reason::Busy));
        }
        let welcome = codec::encode_welcome(&Welcome::Yes(self.peers.uid()));
        if hello.purpose == Purpose::Request {
            let serving = async {
                sender.send(welcome).await?;
                // It wanted no more than to be known.
                let Some(frame) = receiver.recv(SMALL_FRAME_BYTES).await? else {
                    sender.finish();
                    return Ok(());
                };
                let answer = answer(group, self.peers, peer, &frame).await?;
                sender.send(codec::encode_answer(&answer)).await?;
                sender.finish();
                Ok(())
            };
            return Types::timeout(open, serving).await.map_err(silent)?;
        }
        let replaced = group.accept.enter(peer, hello.purpose);
        let lasting = async {
            sender.send(welcome).await?;
            match hello.purpose {
                Purpose::Snapshot => snapshot::receive(group, peer, receiver, &mut sender, &self.patience).await,
                Purpose::Beat => appends(group, peer, receiver, &mut sender, SMALL_FRAME_BYTES).await,
                Purpose::Append | Purpose::Request => {
                    appends(group, peer, receiver, &mut sender, MAX_FRAME_BYTES).await
                }
            }
        };
        match Types::select2(replaced, pin!(lasting)).await {
            Select2::First(_) => Err(ServeError::Replaced),
            Select2::Second(served) => served,
        }
    }

    /// Whether this node talks to `peer` about the group, and is the one that `peer` wants to talk to.
    async fn admit(&self, peer: NodeId, hello: &Hello) -> Result<&Arc<Group>, Reason> {
        let group = self.groups.get(&hello.group).ok_or(Reason::NoSuchGroup)?;
        // Before anything is remembered of it.
        if !group.listens_to(peer) {
            return Err(Reason::NotAMember);
        }
        if group.log.fence.fault().is_some() {
            return Err(Reason::Stopped);
        }
        let own = self.peers.uid();
        if let Some(known) = hello.known.filter(|known| *known != own) {
            self.peers.takes_this_for_another(peer, format!("it remembers log {known}, this node has log {own}"));
            return Err(Reason::NotWhoYouKnow);
        }
        match self.peers.admit(&group.log, peer, hello.uid).await {
            Ok(()) => {
                // It says this node's uid: it has that on disk.
                if hello.known.is_some() {
                    self.peers.has_met(peer);
                }
                Ok(group)
            }
            Err(NotAdmitted::OtherUid | NotAdmitted::Denied) => Err(Reason::OtherUid),
            Err(NotAdmitted::Closed) => Err(Reason::Stopped),
        }
    }
}

async fn answer(group: &Group, peers: &Peers, peer: NodeId, frame: &[u8]) -> Result<Answer, ServeError> {
    let request = codec::decode_request(frame)?;
    group.accept.request(&group.log, peer, &request)?;
    if matches!(request, Request::Vote(_) | Request::PreVote(_)) && !group.may_elect(peers) {
        // Who asks goes on as if this node had not answered.
        return Err(ServeError::Refused(Reason::NotYet));
    }
    if let Request::Vote(asked) | Request::PreVote(asked) = &request
        && let Some(answer) = group.too_early(asked)
    {
        return Ok(Answer::Vote(answer));
    }
    let raft = &group.raft();
    Ok(match request {
        Request::Vote(request) => {
            let answer = raft.vote(request).await.map_err(|_| ServeError::Stopped)?;
            #[cfg(ehe_sim)]
            if answer.vote_granted {
                let leader = &answer.vote.leader_id;
                runtime::tell(group.id, runtime::Word::Promised { term: leader.term, to: NodeId(leader.voted_for) });
            }
            Answer::Vote(answer)
        }
        Request::PreVote(request) => Answer::Vote(raft.pre_vote(request).await.map_err(|_| ServeError::Stopped)?),
        // Who asks goes on as if this node had not answered.
        Request::Transfer(_) if !group.may_stand() => return Err(ServeError::Stopped),
        Request::Transfer(request) => {
            match raft.handle_transfer_leader(request).await.map_err(|_| ServeError::Stopped)? {
                Ok(()) => Answer::Transferring,
                Err(TransferLeaderError::VoteChanged { expected, actual }) => Answer::OtherVote { expected, actual },
                Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Answer::NotFlushed { expected, actual },
            }
        }
        Request::ReadIndex => match raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Answer::ReadIndex(*read.log_id()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => Answer::NotLeader(to.leader_id),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Answer::NotLeader(None),
            Err(RaftError::Fatal(_)) => return Err(ServeError::Stopped),
        },
    })
}

/// Appends or heartbeats: requests are handed in as they come, answers go out in their order when they are on disk.
async fn appends(
    group: &Arc<Group>,
    peer: NodeId,
    receiver: Box<dyn FrameReceiver>,
    sender: &mut Box<dyn FrameSender>,
    max: usize,
) -> Result<(), ServeError> {
    // openraft reads the requests in a task of its own, which ends when this is dropped.
    let (end, ended) = oneshot::channel::<()>();
    let incoming = Arc::new(Incoming::default());
    let source = Source {
        group: group.clone(),
        peer,
        receiver,
        max,
        incoming: incoming.clone(),
        ended: ended.map(drop).boxed().shared(),
        handed: None,
    };
    let raft = group.raft();
    let mut answers = pin!(raft.stream_append(requests(source).boxed()));
    let served = async {
        while let Some(result) = answers.next().await {
            let result = result.map_err(|_| ServeError::Stopped)?;
            sender.send(codec::encode_appended(&result)).await?;
            incoming.answered();
            if result.is_err() {
                break;
            }
        }
        incoming.failure().map_or(Ok(()), Err)
    };
    let served = served.await;
    drop(end);
    if let Err(ServeError::NotStored(why)) = &served {
        // Behind the answers to all that was stored.
        sender.send(codec::encode_not_stored(*why)).await?;
        sender.finish();
    }
    if served.is_ok() {
        sender.finish();
    }
    served
}

/// What is between the peer and openraft.
struct Incoming {
    shares: Mutex<VecDeque<(OwnedSemaphorePermit, OwnedSemaphorePermit)>>,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    failure: Mutex<Option<ServeError>>,
}

impl Default for Incoming {
    fn default() -> Self {
        let (requests, bytes) = (Arc::new(Semaphore::new(APPENDS)), Arc::new(Semaphore::new(BYTES)));
        Self { shares: Mutex::default(), requests, bytes, failure: Mutex::default() }
    }
}

impl Incoming {
    async fn room(&self, bytes: usize) -> Result<(), ServeError> {
        let share = u32::try_from(bytes.clamp(1, BYTES)).unwrap_or(u32::MAX);
        let request = self.requests.clone().acquire_owned().await.map_err(|_| ServeError::Ended)?;
        let bytes = self.bytes.clone().acquire_many_owned(share).await.map_err(|_| ServeError::Ended)?;
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).push_back((request, bytes));
        Ok(())
    }

    fn answered(&self) {
        drop(self.shares.lock().unwrap_or_else(PoisonError::into_inner).pop_front());
    }

    fn failure(&self) -> Option<ServeError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct Source {
    group: Arc<Group>,
    peer: NodeId,
    receiver: Box<dyn FrameReceiver>,
    max: usize,
    incoming: Arc<Incoming>,
    ended: Shared<futures::future::BoxFuture<'static, ()>>,
    /// Held from when a request is checked until openraft has it and asks for the next.
    handed: Option<OwnedRwLockReadGuard<()>>,
}

fn requests(source: Source) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send + 'static {
    futures::stream::unfold(source, |mut source| async {
        source.handed = None;
        let ended = source.ended.clone();
        let next = match Types::select2(ended, pin!(source.next())).await {
            Select2::First(()) => return None,
            Select2::Second(next) => next,
        };
        match next {
            Ok(next) => next.map(|request| (request, source)),
            Err(error) => {
                *source.incoming.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
        }
    })
}

impl Source {
    async fn next(&mut self) -> Result<Option<AppendEntriesRequest<Types>>, ServeError> {
        let Some(frame) = self.receiver.recv(self.max).await? else { return Ok(None) };
        // Since its stream was opened, perhaps.
        if self.group.has_let_go(self.peer) {
            return Err(ServeError::Refused(Reason::NotAMember));
        }
        let request = codec::decode_append(&frame)?;
        if self.max < MAX_FRAME_BYTES && !request.entries.is_empty() {
            return Err(Unsound::Entries.into());
        }
        self.incoming.room(frame.len()).await?;
        drop(frame);
        self.handed = Some(self.group.accept.handing().await);
        self.group.accept.append(&self.group.log, self.peer, &request)?;
        self.vet(&request)?;
        Ok(Some(request))
    }

    /// What the machine would not apply, or not yet, is kept out of the log. Of an append with such an entry nothing is taken.
    fn vet(&self, request: &AppendEntriesRequest<Types>) -> Result<(), ServeError> {
        request.entries.iter().try_for_each(|entry| match &entry.payload {
            EntryPayload::Normal(command) => (self.group.vetting)(&command.0).map_err(ServeError::NotStored),
            EntryPayload::Membership(members) if !self.group.may_have(entry.log_id.index(), members) => {
                Err(ServeError::Members)
            }
            EntryPayload::Blank | EntryPayload::Membership(_) => Ok(()),
        })
    }
}
