//! What a group keeps about the streams that come to it: how many, from whom, and what was seen on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::raft::AppendEntriesRequest;
use tokio::sync::{
    Mutex as AsyncMutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock,
    Semaphore, oneshot,
};

use super::{
    check::{self, Known, Seen, Unsound},
    codec::{Header, Reason, Request},
    link::{LinkError, Purpose},
};
use crate::consensus::{
    codec::CodecError,
    ids::NodeId,
    log::group::GroupLog,
    machine::MachineError,
    types::{LogId, Types, Vote},
};

/// Requests of one group that are answered at once.
const REQUESTS: usize = 32;

/// Why a stream that a peer opened came to no good end. Nothing of it needs an answer: it is for logs and counters.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Unserved(#[from] ServeError);

impl Unserved {
    /// Whether the peer broke a rule that a sound program of this version keeps.
    #[must_use]
    pub fn is_fault_of_peer(&self) -> bool {
        matches!(
            self.0,
            ServeError::Unsound(_)
                | ServeError::Codec(_)
                | ServeError::Damaged
                | ServeError::Stage(_)
                | ServeError::Link(LinkError::TooLong(_))
        )
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the peer said what it cannot mean: {0}")]
    Unsound(#[from] Unsound),
    #[error("the peer sent what cannot be read: {0}")]
    Codec(#[from] CodecError),
    #[error("refused: the peer is told that {0}")]
    Refused(Reason),
    #[error("the peer ended the stream early")]
    Ended,
    #[error("the peer has opened another")]
    Replaced,
    #[error("no word from the peer for {0:?}")]
    Silent(Duration),
    #[error("a snapshot whose end does not fit it")]
    Damaged,
    #[error("no state of this group: {0}")]
    Stage(#[from] MachineError),
    #[error("the group is stopped")]
    Stopped,
}

/// See the [module's text](self).
#[derive(Debug)]
pub(in crate::consensus) struct Accept {
    inner: Mutex<Inner>,
    requests: Arc<Semaphore>,
    /// Read by whoever hands openraft a message of a leader's; taken whole by whoever must know that none is under way.
    handing: Arc<RwLock<()>>,
    staging: Arc<AsyncMutex<()>>,
}

#[derive(Debug, Default)]
struct Inner {
    seen: Seen,
    /// The streams that last, one of a kind for each peer: whoever is dropped from here ends.
    open: BTreeMap<(NodeId, Purpose), oneshot::Sender<()>>,
    closed: bool,
}

impl Default for Accept {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            requests: Arc::new(Semaphore::new(REQUESTS)),
            handing: Arc::default(),
            staging: Arc::default(),
        }
    }
}

fn known(log: &GroupLog) -> Known {
    let (vote, committed) = log.known();
    Known { vote, committed }
}

impl Accept {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lasting stream begins: what is returned resolves when it must end, because the peer opened another of its kind (a
    /// leader begins anew after any error, and does not always get around to ending the last) or the node stops.
    pub(super) fn enter(&self, peer: NodeId, purpose: Purpose) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.inner();
        if !inner.closed {
            inner.open.insert((peer, purpose), sender);
        }
        receiver
    }

    /// Ends all that last.
    pub(in crate::consensus) fn close(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        inner.open.clear();
    }

    pub(super) fn request_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.requests.clone().try_acquire_owned().ok()
    }

    /// Held while a message is handed to openraft.
    pub(super) async fn handing(&self) -> OwnedRwLockReadGuard<()> {
        self.handing.clone().read_owned().await
    }

    /// Nothing is being handed in while this is held, and everything before was.
    pub(super) async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        self.handing.clone().write_owned().await
    }

    /// One snapshot arrives at a time.
    pub(super) async fn staging(&self) -> OwnedMutexGuard<()> {
        self.staging.clone().lock_owned().await
    }

    pub(super) fn append(
        &self,
        log: &GroupLog,
        peer: NodeId,
        request: &AppendEntriesRequest<Types>,
    ) -> Result<(), Unsound> {
        let known = known(log);
        self.inner().seen.append(peer.0, &known, request)
    }

    pub(super) fn snapshot(&self, log: &GroupLog, peer: NodeId, header: &Header) -> Result<(), Unsound> {
        let known = known(log);
        self.inner().seen.snapshot(peer.0, &known, header)
    }

    /// Whether a snapshot need not be sent: it comes from a leader that is none any more, or what it has is on this node's disk,
    /// and only the word of that was lost. The vote to answer with.
    pub(super) fn needs_no(&self, log: &GroupLog, header: &Header) -> Option<Vote> {
        let own = known(log).vote?;
        let last = header.meta.last_log_id.as_ref().map(LogId::index);
        let have = own == header.vote && log.durable.index() >= last;
        let deposed = own.leader_id.term > header.vote.leader_id.term;
        (have || deposed).then_some(own)
    }

    pub(super) fn request(&self, log: &GroupLog, peer: NodeId, request: &Request) -> Result<(), Unsound> {
        check::request(peer.0, &known(log), request)
    }
}
