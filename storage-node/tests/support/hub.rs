//! Nodes in one process, and a network between them that a test delays, cuts and severs.
//!
//! A stream is two bounded queues. A cut direction holds frames back, as a transport that retransmits does, until it is healed or the
//! stream is given up. A node that is killed takes all its streams with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ehe_node::consensus::{
    Consensus, FrameReceiver, FrameSender, Link, LinkError, MAX_FRAME_BYTES, NodeId, Purpose, Stream,
};
use futures::future::{BoxFuture, FutureExt};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::Instant,
};

/// Frames on their way in one direction of a stream.
const QUEUE: usize = 16;

/// The network. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: watch::Sender<State>,
    nodes: Mutex<BTreeMap<u64, Attached>>,
    opened: Mutex<BTreeMap<Purpose, u64>>,
    tried: Mutex<BTreeMap<(u64, Purpose), u64>>,
    /// Frames that are let through on each stream before it breaks; `u64::MAX`: all.
    sever_after: AtomicU64,
    severed: AtomicU64,
    faults: Mutex<Vec<String>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// (from, to): held back.
    cut: BTreeSet<(u64, u64)>,
    /// The lives of nodes; a stream belongs to one.
    lives: BTreeMap<u64, u64>,
    delay: Duration,
}

#[derive(Debug)]
struct Attached {
    consensus: Consensus,
    serving: Vec<AbortHandle>,
}

impl Default for Hub {
    fn default() -> Self {
        Self(Arc::new(Inner {
            state: watch::Sender::new(State::default()),
            nodes: Mutex::default(),
            opened: Mutex::default(),
            tried: Mutex::default(),
            sever_after: AtomicU64::new(u64::MAX),
            severed: AtomicU64::new(0),
            faults: Mutex::default(),
        }))
    }
}

impl Hub {
    /// What node `id` reaches the others with, from now on.
    pub fn link(&self, id: u64) -> Arc<dyn Link> {
        self.0.state.send_modify(|state| *state.lives.entry(id).or_default() += 1);
        Arc::new(HubLink { hub: self.clone(), me: id, life: self.life(id) })
    }

    /// From now on streams to the node are served.
    pub fn attach(&self, consensus: &Consensus) {
        let attached = Attached { consensus: consensus.clone(), serving: Vec::new() };
        self.0.nodes.lock().unwrap().insert(consensus.node_id().0, attached);
    }

    /// The node is gone, in the middle of whatever it did.
    pub fn kill(&self, id: u64) {
        self.0.state.send_modify(|state| *state.lives.entry(id).or_default() += 1);
        if let Some(attached) = self.0.nodes.lock().unwrap().remove(&id) {
            attached.serving.iter().for_each(AbortHandle::abort);
        }
    }

    /// Nothing gets from `from` to `to`.
    pub fn cut_one_way(&self, from: u64, to: u64) {
        self.0.state.send_modify(|state| state.cut.extend([(from, to)]));
    }

    /// Nothing gets from the one side to the other, nor back.
    pub fn cut(&self, one: &[u64], other: &[u64]) {
        for a in one {
            for b in other {
                self.cut_one_way(*a, *b);
                self.cut_one_way(*b, *a);
            }
        }
    }

    pub fn heal(&self) {
        self.0.state.send_modify(|state| state.cut.clear());
    }

    pub fn delay(&self, delay: Duration) {
        self.0.state.send_modify(|state| state.delay = delay);
    }

    /// Each direction of a stream that is opened from now on breaks after so many frames.
    pub fn sever_after(&self, frames: u64) {
        self.0.sever_after.store(frames, Ordering::SeqCst);
    }

    pub fn severed(&self) -> u64 {
        self.0.severed.load(Ordering::SeqCst)
    }

    /// How many streams were opened.
    pub fn opened(&self, purpose: Purpose) -> u64 {
        self.0.opened.lock().unwrap().get(&purpose).copied().unwrap_or_default()
    }

    /// How many streams a node wanted to open.
    pub fn tried(&self, from: u64, purpose: Purpose) -> u64 {
        self.0.tried.lock().unwrap().get(&(from, purpose)).copied().unwrap_or_default()
    }

    /// What nodes held against each other.
    pub fn faults(&self) -> Vec<String> {
        self.0.faults.lock().unwrap().clone()
    }

    /// A stream to node `to` as if from `from`, for tests that say what no node says.
    pub fn dial(&self, from: u64, to: u64) -> Option<Stream> {
        let ends = [(from, self.life(from)), (to, self.life(to))];
        let (near, far) = (self.pipe(from, to, ends), self.pipe(to, from, ends));
        let theirs = Stream { sender: Box::new(far.0), receiver: Box::new(near.1) };
        let mut nodes = self.0.nodes.lock().unwrap();
        let attached = nodes.get_mut(&to)?;
        let (consensus, hub) = (attached.consensus.clone(), self.clone());
        let serving = tokio::spawn(async move {
            if let Err(error) = consensus.serve(NodeId(from), theirs).await
                && error.is_fault_of_peer()
            {
                hub.0.faults.lock().unwrap().push(format!("{from} to {to}: {error}"));
            }
        });
        attached.serving.retain(|task| !task.is_finished());
        attached.serving.push(serving.abort_handle());
        Some(Stream { sender: Box::new(near.0), receiver: Box::new(far.1) })
    }

    fn life(&self, id: u64) -> u64 {
        self.0.state.borrow().lives.get(&id).copied().unwrap_or_default()
    }

    fn pipe(&self, from: u64, to: u64, ends: [(u64, u64); 2]) -> (Sender, Receiver) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let way = || Way { hub: self.clone(), state: self.0.state.subscribe(), from, to, ends };
        let left = self.0.sever_after.load(Ordering::SeqCst);
        (Sender { queue: Some(sender), way: way(), left }, Receiver { queue: receiver, way: way() })
    }
}

#[derive(Debug)]
struct HubLink {
    hub: Hub,
    me: u64,
    life: u64,
}

impl Link for HubLink {
    fn open(&self, peer: NodeId, purpose: Purpose) -> BoxFuture<'_, Result<Stream, LinkError>> {
        async move {
            *self.hub.0.tried.lock().unwrap().entry((self.me, purpose)).or_default() += 1;
            let mut state = self.hub.0.state.subscribe();
            let open =
                |state: &State| !state.cut.contains(&(self.me, peer.0)) && !state.cut.contains(&(peer.0, self.me));
            let gone = |_| LinkError::Unreachable("the test is over".into());
            state.wait_for(open).await.map_err(gone)?;
            if self.hub.life(self.me) != self.life {
                return Err(LinkError::Unreachable("this node is dead".into()));
            }
            let stream = self.hub.dial(self.me, peer.0).ok_or(LinkError::Unreachable("it is down".into()))?;
            *self.hub.0.opened.lock().unwrap().entry(purpose).or_default() += 1;
            Ok(stream)
        }
        .boxed()
    }
}

/// One direction of a stream.
struct Way {
    hub: Hub,
    state: watch::Receiver<State>,
    from: u64,
    to: u64,
    ends: [(u64, u64); 2],
}

impl Way {
    /// Waits until frames get through.
    async fn free(&mut self) -> Result<Duration, LinkError> {
        let (way, ends) = ((self.from, self.to), self.ends);
        let alive =
            |state: &State| ends.iter().all(|(id, life)| state.lives.get(id).copied().unwrap_or_default() == *life);
        let lost = |_| LinkError::Lost("the test is over".into());
        let state = self.state.wait_for(|state| !alive(state) || !state.cut.contains(&way)).await.map_err(lost)?;
        if alive(&state) { Ok(state.delay) } else { Err(LinkError::Lost("one end is dead".into())) }
    }

    /// Waits until one end is dead.
    async fn death(&mut self) {
        let ends = self.ends;
        let dead =
            |state: &State| ends.iter().any(|(id, life)| state.lives.get(id).copied().unwrap_or_default() != *life);
        drop(self.state.wait_for(dead).await);
    }
}

enum Item {
    Frame(Bytes, Instant),
    End,
}

struct Sender {
    queue: Option<mpsc::Sender<Item>>,
    way: Way,
    left: u64,
}

struct Receiver {
    queue: mpsc::Receiver<Item>,
    way: Way,
}

impl FrameSender for Sender {
    fn send(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>> {
        async move {
            assert!(frame.len() <= MAX_FRAME_BYTES);
            if self.left == 0 {
                self.queue = None;
                self.way.hub.0.severed.fetch_add(1, Ordering::SeqCst);
            }
            self.left = self.left.saturating_sub(if self.left == u64::MAX { 0 } else { 1 });
            let lost = || LinkError::Lost("it is gone".into());
            let delay = self.way.free().await?;
            let queue = self.queue.as_ref().ok_or_else(lost)?;
            queue.send(Item::Frame(frame, Instant::now() + delay)).await.map_err(|_| lost())
        }
        .boxed()
    }

    fn finish(&mut self) {
        if let Some(queue) = self.queue.take()
            && let Err(mpsc::error::TrySendError::Full(end)) = queue.try_send(Item::End)
        {
            drop(tokio::spawn(async move { queue.send(end).await.ok() }));
        }
    }
}

impl FrameReceiver for Receiver {
    fn recv(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>> {
        async move {
            let item = tokio::select! {
                item = self.queue.recv() => item,
                () = self.way.death() => None,
            };
            match item {
                None => Err(LinkError::Lost("it was reset".into())),
                Some(Item::End) => Ok(None),
                Some(Item::Frame(frame, at)) => {
                    self.way.free().await?;
                    tokio::time::sleep_until(at).await;
                    if frame.len() > max { Err(LinkError::TooLong(max)) } else { Ok(Some(frame)) }
                }
            }
        }
        .boxed()
    }
}
