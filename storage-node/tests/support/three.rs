//! A group of several nodes on disks in memory, and writers that do not mind who leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ehe_node::consensus::{Bootstrap, Consensus, NodeId, ProposeError, Role, Status, Timing};
use tokio::task::JoinHandle;

use super::{
    api::Position,
    disk::Unsynced,
    hub::Hub,
    node::{LIMIT, Node, assert_contains, command, id},
};

/// Slow enough for a machine that does other things as well.
pub const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(100),
    election_min: Duration::from_millis(1000),
    election_max: Duration::from_millis(2000),
};

/// Nodes by number, those that are up with their handle.
pub struct Several {
    pub hub: Hub,
    pub nodes: BTreeMap<u64, Node>,
    pub up: BTreeMap<u64, Consensus>,
}

impl Several {
    /// Nodes `ids`, all of them the first voters of each group. None is up.
    pub fn new(ids: &[u64], groups: usize) -> Self {
        let mut several = Self { hub: Hub::default(), nodes: BTreeMap::new(), up: BTreeMap::new() };
        let voters: BTreeSet<NodeId> = ids.iter().copied().map(NodeId).collect();
        ids.iter().for_each(|node| several.add(*node, groups, Bootstrap::Voters(voters.clone())));
        several
    }

    pub fn add(&mut self, id: u64, groups: usize, bootstrap: Bootstrap) {
        let mut node = Node::new(groups);
        node.config.node_id = NodeId(id);
        node.config.bootstrap = bootstrap;
        node.config.timing = TIMING;
        self.nodes.insert(id, node);
    }

    pub async fn open(&mut self, id: u64) -> Consensus {
        let consensus = self.nodes[&id].open_with(self.hub.link(id)).await.unwrap();
        self.hub.attach(&consensus);
        self.up.insert(id, consensus.clone());
        consensus
    }

    pub async fn open_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.open(id).await;
        }
    }

    /// The power goes for one node. What it had not synced is gone.
    pub fn kill(&mut self, id: u64) {
        self.hub.kill(id);
        let crashed = self.nodes[&id].crash(Unsynced::Lost);
        self.nodes.insert(id, crashed);
        self.up.remove(&id);
    }

    pub fn status(&self, id: u64, group: usize) -> Status {
        self.up[&id].status(super::node::id(group)).unwrap()
    }

    /// Waits until one of `among` leads and knows everything that was ever committed, and the others of them follow it.
    pub async fn leader(&self, group: usize, among: &[u64]) -> u64 {
        until("one leader", || {
            let leaders: Vec<u64> = among.iter().copied().filter(|id| self.status(*id, group).ready()).collect();
            let [leader] = leaders[..] else { return None };
            let followed = among.iter().all(|id| self.status(*id, group).leader == Some(NodeId(leader)));
            followed.then_some(leader)
        })
        .await
    }

    /// Waits until `leader` knows that a node has something of the first group: before that it gives it no vote.
    pub async fn has_something(&self, leader: u64, node: u64) {
        let has = || self.status(leader, 0).matched.get(&NodeId(node)).copied().flatten();
        until("it has something", has).await;
    }

    /// Waits until all of `among` have applied the same, as far as anybody has a log.
    pub async fn level(&self, group: usize, among: &[u64]) {
        until("the same state", || {
            let status: Vec<Status> = among.iter().map(|id| self.status(*id, group)).collect();
            let last = status.iter().filter_map(|status| status.last_index).max()?;
            status.iter().all(|status| status.applied.is_some_and(|at| at.index == last)).then_some(())
        })
        .await;
    }

    /// Waits until each of `among` was heard of by each other.
    pub async fn level_soon(&self, among: &[u64]) {
        until("all have something", || {
            among.iter().all(|id| self.status(*id, 0).applied.is_some_and(|at| at.index > 10)).then_some(())
        })
        .await;
    }

    /// Closes all that are up, and returns what each has in its state.
    pub async fn close(mut self, group: usize) -> BTreeMap<u64, Vec<(Position, Vec<u8>)>> {
        for (id, consensus) in std::mem::take(&mut self.up) {
            consensus.shutdown().await.unwrap();
            self.hub.kill(id);
        }
        self.nodes.iter().map(|(id, node)| (*id, node.list(group))).collect()
    }

    /// Closes, and checks that all have one state with everything that was acknowledged in it.
    pub async fn agree(self, group: usize, acknowledged: &[(Position, Bytes)]) {
        let faults = self.hub.faults();
        assert!(faults.is_empty(), "honest nodes were found dishonest: {faults:?}");
        let ids: Vec<u64> = self.up.keys().copied().collect();
        self.level(group, &ids).await;
        let states = self.close(group).await;
        for id in &ids {
            assert_contains(&states[id], acknowledged);
            assert_eq!(states[id].len(), states[&ids[0]].len());
            assert!(states[id] == states[&ids[0]], "nodes {id} and {} differ", ids[0]);
        }
    }
}

/// Asks again until it is so.
pub async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(found) = ask() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Writes to a group, one command after the other, wherever it is led, until it is stopped.
pub struct Writer {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    /// It writes no more than so many.
    may: Arc<AtomicU64>,
    /// Where to ask.
    nodes: Arc<Mutex<BTreeMap<u64, Consensus>>>,
    task: JoinHandle<Vec<(Position, Bytes)>>,
}

impl Writer {
    pub fn start(several: &Several, group: usize, first: u64, size: usize) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let nodes = Arc::new(Mutex::new(several.up.clone()));
        let may = Arc::new(AtomicU64::new(u64::MAX));
        let counts = (count.clone(), may.clone());
        let task = tokio::spawn(write(stop.clone(), counts, nodes.clone(), group, first, size));
        Self { stop, count, may, nodes, task }
    }

    /// A node is no more, or again: asks there or not.
    pub fn now(&self, several: &Several) {
        *self.nodes.lock().unwrap() = several.up.clone();
    }

    /// Writes at most so many more from now on: a fast machine would fill its memory with what is written meanwhile.
    pub fn at_most(&self, count: u64) {
        self.may.store(self.count.load(Ordering::SeqCst) + count, Ordering::SeqCst);
    }

    /// Writes at most so many besides those that it may.
    pub fn at_most_besides(&self, count: u64) {
        self.may.fetch_add(count, Ordering::SeqCst);
    }

    /// Waits until so many more are acknowledged.
    pub async fn more(&self, count: u64) {
        let before = self.count.load(Ordering::SeqCst);
        until("more writes", || (self.count.load(Ordering::SeqCst) >= before + count).then_some(())).await;
    }

    pub async fn stop(self) -> Vec<(Position, Bytes)> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

async fn write(
    stop: Arc<AtomicBool>,
    (count, may): (Arc<AtomicU64>, Arc<AtomicU64>),
    nodes: Arc<Mutex<BTreeMap<u64, Consensus>>>,
    group: usize,
    first: u64,
    size: usize,
) -> Vec<(Position, Bytes)> {
    let mut acknowledged = Vec::new();
    let mut number = first;
    while !stop.load(Ordering::SeqCst) {
        if count.load(Ordering::SeqCst) >= may.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        let found = nodes.lock().unwrap().clone();
        // One that is cut off thinks that it leads.
        let term = |node: &&Consensus| {
            node.status(id(group)).filter(|status| status.role == Role::Leader).map(|status| status.term)
        };
        let leader = found.values().max_by_key(term).filter(|node| term(node).is_some());
        let Some(leader) = leader else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        // A number is used once: what became of it may never be known.
        number += 1;
        let mut bytes = command(group, number).to_vec();
        bytes.resize(bytes.len().max(size), b'.');
        let bytes = Bytes::from(bytes);
        let proposed = tokio::time::timeout(Duration::from_millis(500), leader.propose(id(group), bytes.clone())).await;
        match proposed {
            Ok(Ok((position, _))) => {
                acknowledged.push((position, bytes));
                count.fetch_add(1, Ordering::SeqCst);
            }
            Ok(Err(ProposeError::TooLarge { .. })) => panic!("too large"),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    acknowledged
}

/// What was acknowledged to several writers, in order.
pub fn merged(of: Vec<Vec<(Position, Bytes)>>) -> Vec<(Position, Bytes)> {
    let mut all: Vec<_> = of.into_iter().flatten().collect();
    all.sort_by_key(|(position, _)| *position);
    all
}

/// The voters of a group.
pub fn voters(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}
