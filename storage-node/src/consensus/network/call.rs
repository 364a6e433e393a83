//! A stream to a peer, from its first frame to the first answer: who am I, who are you, is it still you.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    errors::{NetworkError, RPCError, StreamingError, Unreachable},
    type_config::TypeConfigExt,
};

use super::{
    check::Unsound,
    codec::{self, Hello, Reason, Welcome},
    link::{FrameReceiver, FrameSender, Link, LinkError, Purpose},
    peers::{NotAdmitted, Peers},
};
use crate::consensus::{
    codec::CodecError,
    config::Timing,
    ids::{GroupId, NodeId},
    log::group::GroupLog,
    machine::Unfit,
    types::Types,
};

/// The longest frame that is no append, no snapshot's header, and no piece of one.
pub(super) const SMALL_FRAME_BYTES: usize = 1024;

/// How long a node waits for another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until a stream is open, and for the first frame on one.
    pub(super) open: Duration,
    /// For a word about entries that are under way: an answer waits for the follower's disk, and for a snapshot that it is
    /// installing.
    pub(super) silence: Duration,
    /// For a sign of life from whoever receives or sends a snapshot.
    pub(super) snapshot: Duration,
    /// After a snapshot that was not taken, until the next may be.
    pub(super) again: Duration,
}

impl Patience {
    pub(super) fn of(timing: &Timing) -> Self {
        let election = timing.election_max;
        Self {
            open: election.clamp(Duration::from_secs(1), Duration::from_secs(10)),
            silence: election.saturating_mul(2).clamp(Duration::from_secs(2), Duration::from_secs(60)),
            snapshot: Duration::from_secs(30),
            again: election.saturating_mul(4).clamp(Duration::from_secs(2), Duration::from_secs(30)),
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("it refuses: {0}")]
    Refused(Reason),
    #[error("this node refuses it: {0}")]
    NotAdmitted(#[from] NotAdmitted),
    #[error("it said what it cannot mean: {0}")]
    Unsound(#[from] Unsound),
    #[error("it sent what cannot be read: {0}")]
    Codec(#[from] CodecError),
    #[error("it ended the stream early")]
    Ended,
    #[error("no word from it for {0:?}")]
    Silent(Duration),
    #[error("group {0} is not on this node")]
    NoSuchGroup(GroupId),
    #[error("a frame of {0} bytes, more than nodes take")]
    TooLong(usize),
    #[error("this node's own state cannot be read: {0}")]
    Reading(String),
    #[error("it did not take the snapshot")]
    NoSnapshot,
    #[error("other snapshots are being sent")]
    Busy,
    #[error("it takes a snapshot too slowly")]
    Slow,
    #[error("it does not store what this node orders: {0}")]
    NotStored(Unfit),
}

impl From<CallError> for RPCError<Types> {
    /// "Unreachable" makes openraft wait before it tries again; what happens to a stream under way does not, at first.
    fn from(error: CallError) -> Self {
        match error {
            CallError::Link(LinkError::Lost(_)) | CallError::Ended | CallError::Silent(_) => {
                Self::Network(NetworkError::new(&error))
            }
            _ => Self::Unreachable(Unreachable::new(&error)),
        }
    }
}

impl From<CallError> for StreamingError<Types> {
    fn from(error: CallError) -> Self {
        RPCError::from(error).into()
    }
}

/// What every call needs.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) link: Arc<dyn Link>,
    pub(super) peers: Arc<Peers>,
    pub(super) patience: Patience,
}

impl Caller {
    /// Opens a stream and says who this is. What is sent next need not wait for the peer's word; what is read does.
    pub(super) async fn open(
        &self,
        log: &Arc<GroupLog>,
        peer: NodeId,
        purpose: Purpose,
    ) -> Result<(Box<dyn FrameSender>, Answers), CallError> {
        let group = log.fence.group();
        let (peers, patience) = (self.peers.clone(), self.patience);
        let uid = peers.uid();
        let hello = Hello { purpose, group, to: peer.0, uid, known: peers.known(peer) };
        let opening = async {
            let mut stream = self.link.open(peer, purpose).await?;
            stream.sender.send(codec::encode_hello(&hello)).await?;
            Ok::<_, LinkError>(stream)
        };
        let opened = Types::timeout(patience.open, opening).await.map_err(|_| CallError::Silent(patience.open))?;
        let stream = opened?;
        Ok((
            stream.sender,
            Answers { receiver: stream.receiver, peers, log: log.clone(), peer, welcomed: false, patience },
        ))
    }
}

/// What comes back on a stream, once the peer has said who it is.
pub(super) struct Answers {
    receiver: Box<dyn FrameReceiver>,
    peers: Arc<Peers>,
    log: Arc<GroupLog>,
    peer: NodeId,
    welcomed: bool,
    patience: Patience,
}

impl Answers {
    /// The next answer. Until the peer is known to be who it was, none is read.
    pub(super) async fn next(&mut self, max: usize) -> Result<Bytes, CallError> {
        self.welcome().await?;
        self.receiver.recv(max).await?.ok_or(CallError::Ended)
    }

    pub(super) async fn welcome(&mut self) -> Result<(), CallError> {
        if self.welcomed {
            return Ok(());
        }
        let open = self.patience.open;
        let first = Types::timeout(open, self.receiver.recv(SMALL_FRAME_BYTES)).await;
        let first = first.map_err(|_| CallError::Silent(open))??.ok_or(CallError::Ended)?;
        match codec::decode_welcome(&first)? {
            Welcome::No(reason) => {
                match reason {
                    Reason::OtherUid => self.peers.takes_this_for_another(self.peer, "by its own word"),
                    Reason::NotWhoYouKnow => self.peers.is_another(self.peer),
                    _ => {}
                }
                return Err(CallError::Refused(reason));
            }
            Welcome::Yes(uid) => {
                self.peers.takes_this(self.peer);
                self.peers.admit(&self.log, self.peer, uid).await?;
                self.peers.has_met(self.peer);
            }
        }
        self.welcomed = true;
        Ok(())
    }
}
