//! The handle that the rest of the node holds.

use std::{
    collections::BTreeMap,
    path::Path,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::{AbortHandle, join_all};
use openraft::{
    async_runtime::{Select2, WatchReceiver},
    type_config::TypeConfigExt,
};
use redb::StorageBackend;

use super::{
    config::Config,
    error::{Fault, OpenError, ProposeError, ShutdownError, WaitError},
    group::Group,
    ids::{GroupId, NodeId, NodeUid, Position},
    log::{file::LogFile, writer::LogQueue},
    machine::Machine,
    network::{Alone, Apart, Estranged, Link, Peers, Router, Stream, Unserved},
    open,
    propose::{self, Pending},
    runtime::{self, Thread},
    status::{Role, Standing, Status},
    types::{Types, position},
};

/// The groups of one node. Cloning is cheap; all clones are the same.
///
/// Dropping the last clone stops everything, though not in order: call [`shutdown`](Self::shutdown).
#[derive(Clone, Debug)]
pub struct Consensus {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) uid: NodeUid,
    pub(super) groups: BTreeMap<GroupId, Arc<Group>>,
    pub(super) file: Arc<LogFile>,
    pub(super) peers: Arc<Peers>,
    pub(super) router: Router,
    pub(super) queue: Mutex<Option<LogQueue>>,
    pub(super) writer: Mutex<Option<Thread>>,
    pub(super) helpers: AbortHandle,
    pub(super) closing: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // It holds the groups, which hold what wakes it.
        self.helpers.abort();
    }
}

impl Consensus {
    /// Opens or makes the log in `dir` (files `raft.redb` and `raft.journal`) and starts one group for each machine.
    ///
    /// A group whose one voter is this node leads and has replayed its whole log when this returns. Opening again
    /// what was open before continues it, whether it was shut down or killed.
    ///
    /// # Errors
    /// [`OpenError`]: each says whose fault it is and what to do. Nothing runs then. An error that names a group is
    /// about that group alone: a node can be opened without its machine.
    pub async fn open<M: Machine>(config: Config, dir: &Path, machines: Vec<(GroupId, M)>) -> Result<Self, OpenError> {
        Self::open_with_link(config, dir, machines, Arc::new(Alone)).await
    }

    /// As [`open`](Self::open), among other nodes, which `link` reaches. What they send must be handed to
    /// [`serve`](Self::serve) from when this returns.
    ///
    /// A group with other voters is not waited for: [`wait`](Self::wait) tells when it has a leader.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with_link<M: Machine>(
        config: Config,
        dir: &Path,
        machines: Vec<(GroupId, M)>,
        link: Arc<dyn Link>,
    ) -> Result<Self, OpenError> {
        let backends = open::file_backends(dir.to_path_buf()).await?;
        Self::open_with_backends(config, backends, machines, link).await
    }

    /// As [`open_with_link`](Self::open_with_link), with the log and its journal in `backends`: for tests that fail at each step of IO.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with_backends<M: Machine>(
        config: Config,
        backends: (impl StorageBackend, impl StorageBackend),
        machines: Vec<(GroupId, M)>,
        link: Arc<dyn Link>,
    ) -> Result<Self, OpenError> {
        open::open(config, backends, machines, link).await
    }

    /// Serves one stream that `peer` opened, to its end. Whoever accepts streams calls this for each, in a task of its own;
    /// `peer` is who the channel says it is. To drop it is to reset the stream.
    ///
    /// # Errors
    /// [`Unserved`], for logs and counters. Whatever a peer sends, this node and its other peers are not harmed.
    pub async fn serve(&self, peer: NodeId, stream: Stream) -> Result<(), Unserved> {
        self.inner.router.serve(&self.inner.groups, peer, stream).await
    }

    /// Proposes `command` to `group` and waits until it is committed and applied. Returns where it stands, and what
    /// the machine answered.
    ///
    /// Any number may be under way at once, up to the limits in [`Config`].
    ///
    /// # Errors
    /// [`ProposeError`] says of each case whether something may have been written.
    pub async fn propose(&self, group: GroupId, command: Bytes) -> Result<(Position, Bytes), ProposeError> {
        self.submit(group, command).await?.await
    }

    /// The first half of [`propose`](Self::propose): when it returns, `command` stands behind everything that was
    /// submitted to `group` before. Await [`Pending`] for the response. This is how a caller keeps many commands
    /// under way in an order of its own.
    ///
    /// # Errors
    /// As [`propose`](Self::propose); that this node does not lead is told by [`Pending`].
    pub async fn submit(&self, group: GroupId, command: Bytes) -> Result<Pending, ProposeError> {
        let group = self.group(group).ok_or(ProposeError::NoSuchGroup(group))?;
        if let Some(fault) = group.log.fence.fault() {
            return Err(ProposeError::Fault(fault));
        }
        if self.inner.closing.load(Ordering::Acquire) {
            return Err(ProposeError::Stopped);
        }
        if group.log.hold.why().is_some() {
            let leader = group.standing().leader.filter(|leader| *leader != self.node_id());
            return Err(ProposeError::NotLeader { leader });
        }
        let (bytes, limit) = (command.len(), self.inner.config.max_command_bytes);
        if bytes > limit {
            return Err(ProposeError::TooLarge { bytes, limit });
        }
        propose::submit(group.clone(), command).await
    }

    /// What `group` is doing; `None` if it is not on this node.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<Status> {
        self.group(group).map(|group| group.status())
    }

    /// The nodes that are reached and that this one refuses, or that refuse this one: for good, until somebody sees to it. That is found
    /// out by talking of a group in which both have a part.
    #[must_use]
    pub fn estranged(&self) -> BTreeMap<NodeId, Estranged> {
        self.inner.peers.all_estranged()
    }

    /// As [`status`](Self::status), without its lists.
    #[must_use]
    pub fn standing(&self, group: GroupId) -> Option<Standing> {
        self.group(group).map(|group| group.standing())
    }

    /// Whether this node leads `group`, as far as it knows: another may lead already. A proposal finds out.
    #[must_use]
    pub fn is_leader(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(|group| group.role() == Role::Leader)
    }

    /// Waits until `what` holds for `group`'s status. It is asked again whenever role, leader, term, or a position
    /// changes; `durable` and `purged` alone do not wake it.
    ///
    /// # Errors
    /// [`WaitError`], also if the group stops while `what` does not hold.
    pub async fn wait(
        &self,
        group: GroupId,
        limit: Duration,
        what: impl Fn(&Status) -> bool + Send,
    ) -> Result<Status, WaitError> {
        let group = self.group(group).ok_or(WaitError::NoSuchGroup(group))?;
        let waiting = async move {
            let mut metrics = group.raft().metrics();
            loop {
                let moved = group.log.hold.moved();
                let status = group.status();
                if what(&status) {
                    return Ok(status);
                }
                if status.role == Role::Stopped {
                    return Err(WaitError::Stopped);
                }
                match Types::select2(pin!(metrics.changed()), pin!(moved)).await {
                    Select2::First(Err(_)) => return Err(WaitError::Stopped),
                    Select2::First(Ok(())) | Select2::Second(()) => {}
                }
            }
        };
        Types::timeout(limit, waiting).await.unwrap_or(Err(WaitError::TimedOut(limit)))
    }

    /// Makes the state of `group` durable now. Returns how far it is; `None` if nothing was applied yet.
    ///
    /// # Errors
    /// [`ProposeError::NoSuchGroup`], [`ProposeError::Stopped`], [`ProposeError::Fault`].
    pub async fn make_durable(&self, group: GroupId) -> Result<Option<Position>, ProposeError> {
        let group = self.group(group).ok_or(ProposeError::NoSuchGroup(group))?;
        match group.worker().make_durable().await {
            Ok(last) => Ok(last.as_ref().map(position)),
            Err(_) => Err(group.stopped_by().map_or(ProposeError::Stopped, ProposeError::Fault)),
        }
    }

    /// The groups of this node, by number.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.inner.groups.keys().copied()
    }

    /// What stands between this node and a peer that it reaches, each with what else is known of it.
    pub fn apart(&self, peer: NodeId) -> BTreeMap<Apart, String> {
        self.inner.router.apart(peer)
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.inner.config.node_id
    }

    /// The incarnation of this node's log. Peers should remember it and refuse the node if it comes with another.
    #[must_use]
    pub fn node_uid(&self) -> NodeUid {
        self.inner.uid
    }

    /// Stops in order: nothing more is taken, every state is made durable and closed, then the log. When it returns
    /// the files are closed. Calling it again does nothing.
    ///
    /// # Errors
    /// The first group that could not be closed in order. The others were; and so is the log.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        let inner = &self.inner;
        inner.closing.store(true, Ordering::Release);
        let results = join_all(inner.groups.values().map(|group| group.shutdown())).await;
        inner.helpers.abort();
        inner.peers.close();
        inner.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        close_log(inner).await;
        results.into_iter().collect()
    }

    pub(super) fn group(&self, group: GroupId) -> Option<&Arc<Group>> {
        self.inner.groups.get(&group)
    }
}

/// Waits until the writer has written what it was given, and closes the file.
async fn close_log(inner: &Inner) {
    let writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(writer) = writer {
        writer.ended().await;
    }
    let file = inner.file.clone();
    drop(runtime::blocking(move || file.close()).await);
}

/// Why a group stopped while it was opened.
pub(super) fn fault_of(group: &Group) -> Arc<Fault> {
    group.stopped_by().unwrap_or_else(|| group.log.fence.bug("the group stopped while it was opened"))
}
