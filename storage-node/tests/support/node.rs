//! A node on disks in memory.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ehe_node::consensus::{Alone, Config, Consensus, GroupId, Link, NodeId, OpenError, Pending};
use futures::future::join_all;

use super::{
    api::Position,
    disk::{Disk, Unsynced},
    journal::{Journal, Probe},
};

pub const LIMIT: Duration = Duration::from_secs(60);

/// A node with its disks: one for the log, one for its journal, one for each state.
pub struct Node {
    pub log: Disk,
    pub journal: Disk,
    pub states: Vec<Disk>,
    pub probes: Vec<Arc<Probe>>,
    pub config: Config,
}

impl Node {
    pub fn new(groups: usize) -> Self {
        let mut config = Config::new(NodeId(1));
        // Nothing here may depend on a timer.
        config.durable_after = Duration::from_secs(3600);
        // Logs here are short: what stays of them is said where it matters.
        config.log_keep_bytes = 0;
        // Small enough to go round.
        config.journal_bytes = 64 << 10;
        config.timing.election_min = Duration::from_secs(600);
        config.timing.election_max = Duration::from_secs(601);
        Self {
            log: formatted(),
            journal: Disk::default(),
            states: (0..groups).map(|_| Disk::default()).collect(),
            probes: (0..groups).map(|_| Arc::default()).collect(),
            config,
        }
    }

    /// Without peers.
    pub async fn open(&self) -> Result<Consensus, OpenError> {
        self.open_with(Arc::new(Alone)).await
    }

    pub async fn open_with(&self, link: Arc<dyn Link>) -> Result<Consensus, OpenError> {
        let machines = self.states.iter().zip(&self.probes).enumerate();
        let machines = machines.map(|(group, (disk, probe))| (id(group), Journal::open(disk.clone(), probe.clone())));
        let backends = (self.log.clone(), self.journal.clone());
        Consensus::open_with_backends(self.config.clone(), backends, machines.collect(), link).await
    }

    /// Another node with the same on its disks. This one goes on.
    pub fn copy(&self) -> Self {
        let states = self.states.iter().map(Disk::copy).collect();
        let probes = self.probes.iter().map(|_| Arc::default()).collect();
        Self { log: self.log.copy(), journal: self.journal.copy(), states, probes, config: self.config.clone() }
    }

    /// The power goes, for all disks at once. What is left of the node.
    pub fn crash(&self, unsynced: Unsynced) -> Self {
        // States first: a state that was synced a moment later than the log may be newer than it otherwise.
        let states = self.states.iter().map(|disk| disk.crash(unsynced)).collect();
        // And the journal before the log: it is written over when the log has what was there.
        let journal = self.journal.crash(unsynced);
        let log = self.log.crash(unsynced);
        let probes = self.probes.iter().map(|_| Arc::default()).collect();
        Self { log, journal, states, probes, config: self.config.clone() }
    }

    /// What the state of a group has; the node must not be open.
    pub fn list(&self, group: usize) -> Vec<(Position, Vec<u8>)> {
        Journal::open(self.states[group].clone(), Arc::default()).list()
    }
}

/// A disk with an empty database, as there is one when the log's file has its name.
pub fn formatted() -> Disk {
    let disk = Disk::default();
    drop(redb::Builder::new().create_with_backend(disk.clone()).unwrap());
    disk.crash(Unsynced::Lost)
}

pub fn id(group: usize) -> GroupId {
    GroupId(u16::try_from(group).unwrap())
}

pub fn command(group: usize, number: u64) -> Bytes {
    Bytes::from(format!("command {number} of group {group}"))
}

/// Proposes so many commands to each group, all under way at once; returns those that were acknowledged.
pub async fn propose(
    consensus: &Consensus,
    groups: usize,
    numbers: std::ops::Range<u64>,
) -> Vec<Vec<(Position, Bytes)>> {
    join_all((0..groups).map(|group| {
        let numbers = numbers.clone();
        async move {
            let mut pending: Vec<(Bytes, Pending)> = Vec::new();
            for number in numbers {
                match consensus.submit(id(group), command(group, number)).await {
                    Ok(waiting) => pending.push((command(group, number), waiting)),
                    Err(_) => break,
                }
            }
            let mut acknowledged = Vec::new();
            for (command, waiting) in pending {
                if let Ok((position, _)) = waiting.await {
                    acknowledged.push((position, command));
                }
            }
            acknowledged
        }
    }))
    .await
}

/// Everything acknowledged is in the state, at its position, and the order is that of the positions.
pub fn assert_contains(list: &[(Position, Vec<u8>)], acknowledged: &[(Position, Bytes)]) {
    assert!(list.windows(2).all(|pair| pair[0].0 < pair[1].0), "the state is out of order");
    for (position, command) in acknowledged {
        let found = list.iter().find(|(at, _)| at == position);
        assert_eq!(found.map(|(_, bytes)| &bytes[..]), Some(&command[..]), "at {position}");
    }
}
