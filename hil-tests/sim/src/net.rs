//! The network: streams with delay of their own, directions that are cut, connections that are lost.
//!
//! A stream is kept in order, streams overtake each other. A cut direction holds frames back, as a transport that retransmits does,
//! until it is healed or the connection has been idle for too long and is lost.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use ehe_node::consensus::{
    Consensus, FrameReceiver, FrameSender, Link, LinkError, MAX_FRAME_BYTES, NodeId, Purpose, Stream,
    sim::{self, Chance, Process},
};
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::Notify;

use ehe_node::{checkpoint::Board, node::node_id};

use crate::{ledger::Ledger, trace::Trace};

/// Frames on their way in one direction of a stream.
const QUEUE: usize = 16;

/// How frames travel.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The least time from one node to another.
    pub least: Duration,
    /// And so much more at most.
    pub more: Duration,
    /// A connection that carries nothing for so long is lost.
    pub idle: Duration,
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Net(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Notify,
    trace: Trace,
    ledger: Ledger,
}

struct State {
    chance: Chance,
    weather: Weather,
    /// (from, to): held back. Counted, because faults overlap.
    cut: BTreeMap<(u64, u64), u32>,
    nodes: BTreeMap<u64, Node>,
    /// Nodes that vanished without a word: who calls them hears nothing.
    silent: BTreeSet<u64>,
    pipes: BTreeMap<(u64, u64), Vec<Weak<Pipe>>>,
    frames: u64,
}

#[derive(Clone)]
struct Node {
    process: Process,
    consensus: Consensus,
    board: Option<Arc<Board>>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

impl Net {
    pub fn new(chance: Chance, weather: Weather, trace: Trace, ledger: Ledger) -> Self {
        let state = State {
            chance,
            weather,
            cut: BTreeMap::new(),
            nodes: BTreeMap::new(),
            silent: BTreeSet::new(),
            pipes: BTreeMap::new(),
            frames: 0,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), changed: Notify::new(), trace, ledger }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a node reaches the others with, in one life.
    pub fn link(&self, process: &Process) -> Arc<dyn Link> {
        Arc::new(NetLink { net: self.clone(), process: process.clone() })
    }

    /// From now on streams to the node are served.
    pub fn attach(&self, process: &Process, consensus: &Consensus, board: Option<Arc<Board>>) {
        let id = process.number();
        self.lose(id, "it was started again");
        let mut state = self.state();
        state.silent.remove(&id);
        let before = state.nodes.insert(id, Node { process: process.clone(), consensus: consensus.clone(), board });
        drop(state);
        drop(before);
        self.0.changed.notify_waiters();
    }

    /// The node is gone. `silent`: and nobody is told.
    pub fn detach(&self, id: u64, silent: bool) {
        let node = {
            let mut state = self.state();
            if silent {
                state.silent.insert(id);
            }
            state.nodes.remove(&id)
        };
        drop(node);
        if silent {
            let (net, idle) = (self.clone(), self.state().weather.idle);
            sim::spawn(async move {
                sim::sleep(idle).await;
                if net.state().silent.contains(&id) {
                    net.lose(id, "it is silent");
                }
            });
        } else {
            self.lose(id, "the process is gone");
        }
    }

    /// All streams of a node are lost.
    pub fn lose(&self, id: u64, why: &'static str) {
        self.lose_where(|from, to| from == id || to == id, why);
    }

    /// All streams between two nodes are lost.
    pub fn sever(&self, one: u64, other: u64) {
        self.lose_where(|from, to| (from, to) == (one, other) || (to, from) == (one, other), "the connection is lost");
    }

    fn lose_where(&self, which: impl Fn(u64, u64) -> bool, why: &'static str) {
        let lost: Vec<Arc<Pipe>> = {
            let mut state = self.state();
            let pipes = state.pipes.iter_mut().filter(|((from, to), _)| which(*from, *to));
            pipes.flat_map(|(_, pipes)| std::mem::take(pipes)).filter_map(|pipe| pipe.upgrade()).collect()
        };
        for pipe in lost {
            pipe.queue().lost = Some(why);
            pipe.wake();
        }
    }

    /// Nothing gets from `from` to `to`.
    pub fn cut(&self, from: u64, to: u64) {
        let idle = {
            let mut state = self.state();
            *state.cut.entry((from, to)).or_default() += 1;
            state.weather.idle
        };
        let net = self.clone();
        sim::spawn(async move {
            sim::sleep(idle).await;
            if net.is_cut(from, to) {
                net.sever(from, to);
            }
        });
    }

    /// Undoes one [`cut`](Self::cut).
    pub fn mend(&self, from: u64, to: u64) {
        let pipes: Vec<Arc<Pipe>> = {
            let mut state = self.state();
            if let Some(count) = state.cut.get_mut(&(from, to)) {
                *count -= 1;
                if *count == 0 {
                    state.cut.remove(&(from, to));
                }
            }
            state.pipes.get(&(from, to)).into_iter().flatten().filter_map(Weak::upgrade).collect()
        };
        pipes.iter().for_each(|pipe| pipe.wake());
        self.0.changed.notify_waiters();
    }

    pub fn is_cut(&self, from: u64, to: u64) -> bool {
        self.state().cut.contains_key(&(from, to))
    }

    /// Brings a message about checkpoints, if nothing is in its way. Nobody hears what became of it.
    pub fn mail(&self, from: u64, to: u64, message: Vec<u8>) {
        let lost = self.state().chance.once_in(50);
        if lost || self.is_cut(from, to) {
            return;
        }
        let (net, delay) = (self.clone(), self.delay());
        sim::spawn(async move {
            sim::sleep(delay).await;
            let board = net.state().nodes.get(&to).and_then(|node| node.board.clone());
            if let Some(board) = board.filter(|_| !net.is_cut(from, to)) {
                net.0.trace.step(sim::now(), [from, to, 0], &message);
                board.deliver(node_id(NodeId(from)), message);
            }
        });
    }

    /// Frames that arrived.
    pub fn frames(&self) -> u64 {
        self.state().frames
    }

    fn delay(&self) -> Duration {
        let mut state = self.state();
        let Weather { least, more, .. } = state.weather;
        let rare = if state.chance.once_in(100) { 10 } else { 1 };
        least + state.chance.time(more * rare)
    }

    fn pipe(&self, from: u64, to: u64, sending: Option<Process>, receiving: Option<Process>) -> (Sender, Receiver) {
        let pipe = Arc::new(Pipe {
            net: self.clone(),
            from,
            to,
            queue: Mutex::default(),
            arrived: Notify::new(),
            room: Notify::new(),
        });
        let mut state = self.state();
        let pipes = state.pipes.entry((from, to)).or_default();
        pipes.retain(|pipe| pipe.strong_count() > 0);
        pipes.push(Arc::downgrade(&pipe));
        (Sender { pipe: pipe.clone(), process: sending, finished: false }, Receiver { pipe, process: receiving })
    }

    /// A stream to `to`, which serves it.
    fn dial(&self, from: &Process, to: u64) -> Option<Stream> {
        let node = self.state().nodes.get(&to).cloned()?;
        let me = from.number();
        let near = self.pipe(me, to, Some(from.clone()), Some(node.process.clone()));
        let far = self.pipe(to, me, Some(node.process.clone()), Some(from.clone()));
        let theirs = Stream { sender: Box::new(far.0), receiver: Box::new(near.1) };
        let (net, consensus) = (self.clone(), node.consensus);
        drop(node.process.spawn(async move {
            if let Err(error) = consensus.serve(NodeId(me), theirs).await
                && error.is_fault_of_peer()
            {
                net.0.ledger.violated(format!("node {to} holds what node {me} said for dishonest: {error}"));
            }
        }));
        Some(Stream { sender: Box::new(near.0), receiver: Box::new(far.1) })
    }
}

struct NetLink {
    net: Net,
    process: Process,
}

impl fmt::Debug for NetLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetLink")
    }
}

impl Link for NetLink {
    fn open(&self, peer: NodeId, _purpose: Purpose) -> BoxFuture<'_, Result<Stream, LinkError>> {
        async move {
            let me = self.process.number();
            sim::sleep(self.net.delay()).await;
            loop {
                let changed = self.net.0.changed.notified();
                let hidden = {
                    let state = self.net.state();
                    let cut = state.cut.contains_key(&(me, peer.0)) || state.cut.contains_key(&(peer.0, me));
                    cut || state.silent.contains(&peer.0)
                };
                if !hidden {
                    break;
                }
                changed.await;
            }
            sim::sleep(self.net.delay()).await;
            self.net.dial(&self.process, peer.0).ok_or_else(|| LinkError::Unreachable("it is down".into()))
        }
        .boxed()
    }
}

/// One direction of a stream.
struct Pipe {
    net: Net,
    from: u64,
    to: u64,
    queue: Mutex<Queue>,
    arrived: Notify,
    room: Notify,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<(Duration, Item)>,
    /// When the last of them arrives.
    last: Duration,
    lost: Option<&'static str>,
    /// Nobody reads.
    unread: bool,
    /// The end was read.
    ended: bool,
}

enum Item {
    Frame(Bytes),
    End,
    Reset,
}

impl Pipe {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.arrived.notify_one();
        self.room.notify_one();
    }

    fn put(&self, item: Item) {
        let delay = self.net.delay();
        let mut queue = self.queue();
        let at = (sim::now() + delay).max(queue.last);
        queue.last = at;
        queue.items.push_back((at, item));
        drop(queue);
        self.arrived.notify_one();
    }
}

struct Sender {
    pipe: Arc<Pipe>,
    process: Option<Process>,
    finished: bool,
}

struct Receiver {
    pipe: Arc<Pipe>,
    process: Option<Process>,
}

fn lost(why: &str) -> LinkError {
    LinkError::Lost(why.to_owned())
}

impl FrameSender for Sender {
    fn send(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>> {
        async move {
            assert!(frame.len() <= MAX_FRAME_BYTES, "a frame of {} bytes", frame.len());
            loop {
                {
                    let queue = self.pipe.queue();
                    if let Some(why) = queue.lost {
                        return Err(lost(why));
                    }
                    if queue.unread && !self.pipe.net.is_cut(self.pipe.to, self.pipe.from) {
                        return Err(lost("nobody reads"));
                    }
                    if queue.items.len() < QUEUE {
                        break;
                    }
                }
                self.pipe.room.notified().await;
            }
            self.pipe.put(Item::Frame(frame));
            Ok(())
        }
        .boxed()
    }

    fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            self.pipe.put(Item::End);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // A process that is dead says nothing; its end is told by `Net::detach`, or not at all.
        if !self.finished && self.process.as_ref().is_none_or(|process| !process.is_dead()) {
            self.pipe.put(Item::Reset);
        }
    }
}

impl FrameReceiver for Receiver {
    fn recv(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>> {
        async move {
            let pipe = &self.pipe;
            loop {
                let until = {
                    let cut = pipe.net.is_cut(pipe.from, pipe.to);
                    let mut queue = pipe.queue();
                    if let Some(why) = queue.lost {
                        return Err(lost(why));
                    }
                    if queue.ended {
                        return Ok(None);
                    }
                    match queue.items.front() {
                        Some((at, _)) if !cut && *at <= sim::now() => {
                            let item = queue.items.pop_front();
                            drop(queue);
                            pipe.room.notify_one();
                            return match item.map(|(_, item)| item) {
                                Some(Item::Frame(frame)) => {
                                    let number = {
                                        let mut state = pipe.net.state();
                                        state.frames += 1;
                                        state.frames
                                    };
                                    pipe.net.0.trace.step(sim::now(), [pipe.from, pipe.to, number], &frame);
                                    if frame.len() > max { Err(LinkError::TooLong(max)) } else { Ok(Some(frame)) }
                                }
                                Some(Item::End) | None => {
                                    pipe.queue().ended = true;
                                    Ok(None)
                                }
                                Some(Item::Reset) => Err(lost("it was reset")),
                            };
                        }
                        Some((at, _)) if !cut => Some(*at),
                        _ => None,
                    }
                };
                match until {
                    Some(at) => drop(sim::within(at.saturating_sub(sim::now()), pipe.arrived.notified()).await),
                    None => pipe.arrived.notified().await,
                }
            }
        }
        .boxed()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.process.as_ref().is_none_or(|process| !process.is_dead()) {
            self.pipe.queue().unread = true;
            self.pipe.room.notify_one();
        }
    }
}
