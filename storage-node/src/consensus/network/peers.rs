//! Who peers are: the incarnation of each, remembered for good when it is first met.
//!
//! A node that lost its log has forgotten votes and entries that others count on, and comes back with another
//! [`NodeUid`] under its old number. To the certificates it is the same node; here it is refused, in both
//! directions and for good, until it is enrolled under another number. That works with peers that have met it: see [`meet`](crate::consensus::meet).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    apart::{Apart, Noted},
    call::CallError,
};
#[cfg(ehe_sim)]
use crate::consensus::runtime;
use crate::consensus::{
    ids::{NodeId, NodeUid},
    log::{group::GroupLog, writer::LogQueue},
};

/// What this node knows of the others.
#[derive(Debug)]
pub(in crate::consensus) struct Peers {
    me: NodeId,
    uid: NodeUid,
    inner: Mutex<Inner>,
    meeting: tokio::sync::Mutex<()>,
    /// Someone was met, or is not who it was.
    moved: tokio::sync::Notify,
}

#[derive(Debug)]
struct Inner {
    known: BTreeMap<NodeId, NodeUid>,
    /// Peers that denied what they had confirmed.
    denied: BTreeSet<NodeId>,
    /// Peers that have said, since this node was started, that they take it for whom it is: they have its uid on disk.
    met: BTreeSet<NodeId>,
    /// Nodes that will not be met.
    gone: BTreeSet<NodeId>,
    apart: Noted,
    /// `None` when the log closes: the writer ends with the last queue.
    queue: Option<LogQueue>,
}

/// Why this node and a peer do not talk to each other, though they reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Estranged {
    /// One of the two has another log than the one that they met with. Which, neither knows.
    OtherLog,
    /// It denied what it had confirmed: this node refuses it.
    Denied,
}

/// A peer is not who it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::consensus) enum NotAdmitted {
    #[error("it has another uid than the one that this node remembers")]
    OtherUid,
    #[error("it denied what it had confirmed")]
    Denied,
    #[error("this node cannot remember it: its log is closed or stopped")]
    Closed,
}

impl Peers {
    pub(in crate::consensus) fn new(
        me: NodeId,
        uid: NodeUid,
        known: BTreeMap<NodeId, NodeUid>,
        queue: LogQueue,
    ) -> Self {
        let inner = Inner {
            known,
            denied: BTreeSet::new(),
            met: BTreeSet::new(),
            gone: BTreeSet::new(),
            apart: Noted::default(),
            queue: Some(queue),
        };
        let moved = tokio::sync::Notify::new();
        Self { me, uid, inner: Mutex::new(inner), meeting: tokio::sync::Mutex::default(), moved }
    }

    pub(super) fn me(&self) -> NodeId {
        self.me
    }

    pub(super) fn uid(&self) -> NodeUid {
        self.uid
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The uid that a peer must have, if it was met before.
    pub(super) fn known(&self, peer: NodeId) -> Option<NodeUid> {
        #[cfg(ehe_sim)]
        if runtime::red(runtime::Red::AnyUid) {
            return None;
        }
        self.inner().known.get(&peer).copied()
    }

    /// Whether `peer` is who it was; the first time, who it is from now on, and that is on disk when this returns. `log`
    /// is the group that it speaks of.
    pub(super) async fn admit(&self, log: &Arc<GroupLog>, peer: NodeId, uid: NodeUid) -> Result<(), NotAdmitted> {
        if let Some(judged) = self.judge(peer, uid) {
            return judged;
        }
        // Two streams may bring the first word at once.
        let _one = self.meeting.lock().await;
        if let Some(judged) = self.judge(peer, uid) {
            return judged;
        }
        let written = {
            let inner = self.inner();
            let queue = inner.queue.as_ref().ok_or(NotAdmitted::Closed)?;
            queue.remember_peer(log, peer, uid).map_err(|_| NotAdmitted::Closed)?
        };
        match written.await {
            Ok(Ok(())) => {
                self.inner().known.insert(peer, uid);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(NotAdmitted::Closed),
        }
    }

    /// `None`: it was never met.
    fn judge(&self, peer: NodeId, uid: NodeUid) -> Option<Result<(), NotAdmitted>> {
        let mut inner = self.inner();
        let known = *inner.known.get(&peer)?;
        #[cfg(ehe_sim)]
        if runtime::red(runtime::Red::AnyUid) {
            return Some(Ok(()));
        }
        if known != uid {
            let why = format!("it has log {uid}, this node remembers log {known}");
            if inner.apart.note(peer, Apart::OtherLogThere, why) {
                self.moved.notify_waiters();
            }
            return Some(Err(NotAdmitted::OtherUid));
        }
        inner.apart.over(peer, Apart::OtherLogThere);
        Some(if inner.denied.contains(&peer) { Err(NotAdmitted::Denied) } else { Ok(()) })
    }

    /// All with whom this node does not talk.
    pub(in crate::consensus) fn all_estranged(&self) -> BTreeMap<NodeId, Estranged> {
        self.inner().apart.estranged()
    }

    /// A peer denied entries that it had confirmed to be on its disk. Until this node is started again nothing of what it
    /// says counts.
    pub(super) fn denied(&self, peer: NodeId) {
        let mut inner = self.inner();
        if inner.denied.insert(peer) {
            inner.apart.note(peer, Apart::Denied, String::new());
        }
    }

    /// `peer` speaks of a uid of this node that it has not.
    pub(super) fn takes_this_for_another(&self, peer: NodeId, why: impl ToString) {
        let mut inner = self.inner();
        inner.met.remove(&peer);
        if inner.apart.note(peer, Apart::OtherLogHere, why.to_string()) {
            self.moved.notify_waiters();
        }
    }

    /// `peer` says that it is not whom this node remembers.
    pub(super) fn is_another(&self, peer: NodeId) {
        if self.inner().apart.note(peer, Apart::OtherLogThere, "by its own word".into()) {
            self.moved.notify_waiters();
        }
    }

    /// `peer` takes this node for whom it is.
    pub(super) fn takes_this(&self, peer: NodeId) {
        self.inner().apart.over(peer, Apart::OtherLogHere);
    }

    /// `peer` takes this node for whom it is, and this node it.
    pub(super) fn has_met(&self, peer: NodeId) {
        if self.inner().met.insert(peer) {
            self.moved.notify_waiters();
        }
    }

    /// Those `of` these that have not been met, and are waited for.
    pub(in crate::consensus) fn strangers(&self, of: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let inner = self.inner();
        let lost = |node| inner.apart.has(node, Apart::OtherLogThere);
        let settled = |node: &NodeId| inner.met.contains(node) || inner.gone.contains(node) || lost(*node);
        of.iter().filter(|node| **node != self.me && !settled(node)).copied().collect()
    }

    /// Whether this node has met another one of these.
    pub(in crate::consensus) fn has_met_any(&self, of: &BTreeSet<NodeId>) -> bool {
        let inner = self.inner();
        of.iter().any(|node| *node != self.me && inner.met.contains(node))
    }

    /// Those `of` these that take this node for another.
    pub(in crate::consensus) fn refusing(&self, of: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let inner = self.inner();
        of.iter().filter(|node| inner.apart.has(**node, Apart::OtherLogHere)).copied().collect()
    }

    /// These will not be met.
    pub(in crate::consensus) fn gone(&self, nodes: BTreeSet<NodeId>) {
        let mut inner = self.inner();
        if inner.gone != nodes {
            inner.gone = nodes;
            self.moved.notify_waiters();
        }
    }

    /// Resolves when, after this was called, someone was met or found not to be who it was.
    pub(in crate::consensus) fn moved(&self) -> tokio::sync::futures::Notified<'_> {
        self.moved.notified()
    }

    /// A call of `peer` failed.
    pub(super) fn failed(&self, peer: NodeId, error: &CallError) {
        self.inner().apart.failed(peer, error);
    }

    /// What stands between this node and `peer`, with why.
    pub(super) fn apart(&self, peer: NodeId) -> BTreeMap<Apart, String> {
        self.inner().apart.with(peer)
    }

    /// Remembers nobody more.
    pub(in crate::consensus) fn close(&self) {
        self.inner().queue = None;
    }
}
