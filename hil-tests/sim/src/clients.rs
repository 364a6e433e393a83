//! Who writes and reads, and remembers what it was told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ehe_node::consensus::{GroupId, sim::Chance};

use crate::cluster::Cluster;

/// One client. It does one thing after the other, now and then several at once, until it is stopped.
pub struct Client {
    pub cluster: Cluster,
    pub number: u64,
    pub chance: Chance,
    pub stop: Arc<AtomicBool>,
}

impl Client {
    pub async fn run(mut self) {
        let groups = u64::from(self.cluster.plan().groups);
        let mut sent = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let group = GroupId(u16::try_from(self.chance.below(groups)).unwrap());
            if self.chance.once_in(4) {
                let all: Vec<u64> = self.cluster.up();
                let Some(node) = pick(&all, &mut self.chance) else {
                    self.rest().await;
                    continue;
                };
                read(&self.cluster, node, group, self.cluster.plan().timing.election_max).await;
            } else {
                let count = if self.chance.once_in(8) { 1 + self.chance.below(30) } else { 1 };
                let mut commands = Vec::new();
                for _ in 0..count {
                    sent += 1;
                    let mut command = format!("{}-{sent} ", self.number).into_bytes();
                    command.resize(command.len() + usize::try_from(self.chance.below(300)).unwrap(), b'.');
                    commands.push(Bytes::from(command));
                }
                let node = if self.chance.once_in(10) { None } else { self.cluster.leader(group) };
                let Some(node) = node.or_else(|| pick(&self.cluster.up(), &mut self.chance)) else {
                    self.rest().await;
                    continue;
                };
                propose(&self.cluster, node, group, commands, self.cluster.plan().timing.election_max).await;
            }
            self.rest().await;
        }
    }

    async fn rest(&mut self) {
        let longest = self.cluster.plan().timing.heartbeat;
        ehe_node::consensus::sim::sleep(self.chance.time(longest * 4) + Duration::from_millis(8)).await;
    }
}

pub fn pick<T: Copy>(of: &[T], chance: &mut Chance) -> Option<T> {
    of.get(usize::try_from(chance.below(of.len() as u64)).unwrap()).copied()
}

/// Proposes commands in their order, once; whether all were acknowledged. What became of the others nobody knows.
pub async fn propose(cluster: &Cluster, node: u64, group: GroupId, commands: Vec<Bytes>, limit: Duration) -> bool {
    let (ledger, trace) = (cluster.ledger().clone(), cluster.clone());
    let asked = cluster.on(node, limit, move |consensus| async move {
        let mut pending = Vec::new();
        for command in commands {
            let Ok(waiting) = consensus.submit(group, command.clone()).await else { return (Vec::new(), false) };
            pending.push((command, waiting));
        }
        let (mut acknowledged, mut all) = (Vec::new(), true);
        for (command, waiting) in pending {
            match waiting.await {
                Ok((position, _)) => acknowledged.push((position, command)),
                Err(_) => all = false,
            }
        }
        (acknowledged, all)
    });
    let Some((acknowledged, all)) = asked.await else { return false };
    for (position, command) in acknowledged {
        trace.say(format_args!("acknowledged {position} of group {group} by node {node}"));
        ledger.acknowledged(group, position, command);
    }
    all
}

/// A reader asks up to where it must see.
pub async fn read(cluster: &Cluster, node: u64, group: GroupId, limit: Duration) -> bool {
    let floor = cluster.ledger().floor(group);
    let asked = cluster.on(node, limit * 2, move |consensus| async move {
        let read = consensus.read_index(group, limit).await;
        let applied = consensus.status(group).and_then(|status| status.applied).map(|at| at.index);
        read.map(|read| (read, applied))
    });
    match asked.await {
        Some(Ok((read, applied))) => {
            cluster.say(format_args!("node {node} reads group {group} up to {read}, {floor:?} was asked for"));
            cluster.ledger().read(node, group, floor, read, applied);
            true
        }
        Some(Err(_)) | None => false,
    }
}
