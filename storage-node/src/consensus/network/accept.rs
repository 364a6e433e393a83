//! What a group keeps about the streams that come to it: how many, from whom, and what was seen on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::{raft::AppendEntriesRequest, type_config::TypeConfigExt, type_config::alias::InstantOf};
use tokio::sync::{
    Mutex as AsyncMutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore, oneshot,
};

use super::{
    check::{self, Known, Seen, Unsound},
    codec::{Header, Reason, Request},
    link::{LinkError, Purpose},
    pace,
};
use crate::consensus::{
    codec::CodecError,
    ids::NodeId,
    log::group::GroupLog,
    machine::{MachineError, Unfit},
    state::Turn,
    types::{LogId, Types, Vote},
};
use crate::one_each::{OneEach, UnderWay};

/// Requests of one group that are answered at once, and those of one peer.
const REQUESTS: usize = 32;
const REQUESTS_OF_PEER: usize = 8;
/// Snapshots that a node receives at once, of all its groups: each has a cache of its own.
const SNAPSHOTS: usize = 2;

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
                | ServeError::Link(LinkError::TooLong(_))
                | ServeError::NotStored(Unfit::Unknown)
        ) || matches!(&self.0, ServeError::Stage(why) if !why.is_at_home())
    }

    /// Whether a change of members was refused that no charter known here orders.
    #[must_use]
    pub fn is_about_members(&self) -> bool {
        matches!(self.0, ServeError::Members)
    }

    /// By how much a leader's blocks are ahead of this node's clock, if they were refused for that: one of the two clocks is wrong.
    #[must_use]
    pub fn ahead_ms(&self) -> Option<u64> {
        match self.0 {
            ServeError::NotStored(Unfit::Ahead { ahead_ms }) => Some(ahead_ms),
            _ => None,
        }
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
    #[error("its state is not taken: {0}")]
    Stage(#[from] MachineError),
    #[error("a state was not taken a moment ago")]
    NotAgain,
    #[error("what is committed here is not applied yet")]
    Applying,
    #[error("another state comes from the same node")]
    OneAtATime,
    #[error("its state comes too slowly")]
    Slow,
    #[error("the group is stopped")]
    Stopped,
    #[error("what the leader sent is not stored: {0}")]
    NotStored(Unfit),
    #[error("its leader orders voters that no charter known here has: that charter comes, or the leader is faulty")]
    Members,
}

/// See the [module's text](self).
#[derive(Debug)]
pub(in crate::consensus) struct Accept {
    inner: Mutex<Inner>,
    requests: Arc<Semaphore>,
    /// Of each peer that has asked.
    requests_of: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
    /// Read by whoever hands openraft a message of a leader's; taken whole by whoever must know that none is under way.
    handing: Arc<RwLock<()>>,
    staging: Arc<AsyncMutex<()>>,
    /// Read by every stream that is served; taken whole by whoever must know that none is.
    present: Arc<RwLock<()>>,
    /// Those of the node.
    snapshots: Arc<Snapshots>,
}

#[derive(Debug, Default)]
struct Inner {
    seen: Seen,
    /// The streams that last, one of a kind for each peer: whoever is dropped from here ends.
    open: BTreeMap<(NodeId, Purpose), oneshot::Sender<()>>,
    closed: bool,
    /// This node is silent in the group, for a while.
    aside: bool,
    /// No snapshot is received before.
    not_before: Option<InstantOf<Types>>,
}

/// What all groups of a node receive snapshots with.
#[derive(Debug)]
pub(in crate::consensus) struct Snapshots {
    slots: Arc<Semaphore>,
    /// Who sends one slowly, has one slot.
    each: OneEach<NodeId>,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(SNAPSHOTS)), each: OneEach::default() }
    }
}

impl Accept {
    /// Of one group. `snapshots`: those of its node.
    pub(in crate::consensus) fn new(snapshots: Arc<Snapshots>) -> Self {
        Self {
            inner: Mutex::default(),
            requests: Arc::new(Semaphore::new(REQUESTS)),
            requests_of: Mutex::default(),
            handing: Arc::default(),
            staging: Arc::default(),
            present: Arc::default(),
            snapshots,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lasting stream begins: what is returned resolves when it must end, because the peer opened another of its kind (a
    /// leader begins anew after any error, and does not always get around to ending the last) or the node stops.
    pub(super) fn enter(&self, peer: NodeId, purpose: Purpose) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.inner();
        if !inner.closed && !inner.aside {
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

    /// Falls silent: no stream is served any more, and none that lasts goes on.
    pub(in crate::consensus) fn step_aside(&self) {
        let mut inner = self.inner();
        inner.aside = true;
        inner.open.clear();
    }

    /// Returns when nothing that was served before goes on. For whoever has stepped aside.
    pub(in crate::consensus) async fn silence(&self) {
        drop(self.present.write().await);
    }

    /// Speaks again.
    pub(in crate::consensus) fn come_back(&self) {
        self.inner().aside = false;
    }

    /// Held by a stream as long as it is served; `None`: this node is silent.
    pub(super) async fn present(&self) -> Option<OwnedRwLockReadGuard<()>> {
        if self.inner().aside {
            return None;
        }
        let present = self.present.clone().read_owned().await;
        // It may have fallen silent meanwhile: whoever waits for silence waits for this one too, so it looks again.
        (!self.inner().aside).then_some(present)
    }

    /// For one request of `peer`, who leaves some to others.
    pub(super) fn request_slot(&self, peer: NodeId) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let own = {
            let mut all = self.requests_of.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(REQUESTS_OF_PEER))).clone()
        };
        Some((own.try_acquire_owned().ok()?, self.requests.clone().try_acquire_owned().ok()?))
    }

    /// For one snapshot of `peer`, of whichever group. Its last may still be ending: whoever begins anew does not get around to that.
    pub(super) async fn one_of(&self, peer: NodeId, within: Duration) -> Result<UnderWay<'_, NodeId>, ServeError> {
        let waiting = pace::begun(&self.snapshots.each, peer);
        Types::timeout(within, waiting).await.map_err(|_| ServeError::OneAtATime)
    }

    /// Held while a message is handed to openraft.
    pub(super) async fn handing(&self) -> OwnedRwLockReadGuard<()> {
        self.handing.clone().read_owned().await
    }

    /// Nothing is being handed in while this is held, and everything before was.
    pub(super) async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        self.handing.clone().write_owned().await
    }

    /// One snapshot of a group arrives at a time, and few of a node.
    pub(super) async fn turn(&self) -> Result<Turn, ServeError> {
        let group = self.staging.clone().lock_owned().await;
        let node = self.snapshots.slots.clone().acquire_owned().await.map_err(|_| ServeError::Stopped)?;
        Ok(Turn { _group: group, _node: node })
    }

    /// A snapshot was not taken: the next would not be either, and its sender is told so before it sends it.
    pub(super) fn not_taken(&self, again_after: Duration) {
        self.inner().not_before = Some(Types::now() + again_after);
    }

    pub(super) fn takes_again(&self) -> Result<(), ServeError> {
        match self.inner().not_before {
            Some(not_before) if Types::now() < not_before => Err(ServeError::NotAgain),
            _ => Ok(()),
        }
    }

    pub(super) fn append(
        &self,
        log: &GroupLog,
        peer: NodeId,
        request: &AppendEntriesRequest<Types>,
    ) -> Result<(), Unsound> {
        let known = Known::of(log);
        check::noted(log, self.inner().seen.append(peer.0, &known, request))
    }

    pub(super) fn snapshot(&self, log: &GroupLog, peer: NodeId, header: &Header) -> Result<(), Unsound> {
        let known = Known::of(log);
        check::noted(log, self.inner().seen.snapshot(peer.0, &known, header))
    }

    /// Whether a snapshot need not be sent: it comes from a leader that is none any more, or what it has is on this node's disk,
    /// and only the word of that was lost. The vote to answer with.
    pub(super) fn needs_no(&self, log: &GroupLog, header: &Header) -> Option<Vote> {
        let own = log.known().0?;
        let last = header.meta.last_log_id.as_ref().map(LogId::index);
        let have = own == header.vote && log.durable.index() >= last;
        let deposed = own.leader_id.term > header.vote.leader_id.term;
        (have || deposed).then_some(own)
    }

    pub(super) fn request(&self, log: &GroupLog, peer: NodeId, request: &Request) -> Result<(), Unsound> {
        check::noted(log, check::request(peer.0, &Known::of(log), request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asks_much_or_sends_slowly_leaves_some_to_others() {
        let snapshots = Arc::new(Snapshots::default());
        let accept = Accept::new(snapshots.clone());
        let asked: Vec<_> = std::iter::from_fn(|| accept.request_slot(NodeId(1))).take(REQUESTS).collect();
        assert_eq!(asked.len(), REQUESTS_OF_PEER);
        assert!(accept.request_slot(NodeId(2)).is_some());
        drop(asked);
        assert!(accept.request_slot(NodeId(1)).is_some());

        let other_group = Accept::new(snapshots);
        let soon = Duration::from_millis(1);
        let first = accept.one_of(NodeId(1), soon).await;
        assert!(first.is_ok() && other_group.one_of(NodeId(1), soon).await.is_err());
        assert!(other_group.one_of(NodeId(2), soon).await.is_ok());
        drop(first);
        assert!(other_group.one_of(NodeId(1), soon).await.is_ok());
    }
}
