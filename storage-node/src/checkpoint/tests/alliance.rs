//! Nodes as cores know themselves, and logs.

use std::collections::BTreeMap;

use ehe::id::Hash;
use ehe::merkle::{self, NodeAt, Nodes, Peaks};

use super::super::Who;
use crate::shard::StoreError;
use crate::test_members::{Seat, seats};

/// See [`seats`].
pub(super) fn alliance(members: &str, min: Option<u16>) -> Vec<Who> {
    let who = |Seat { id, name, identity, charter }| Who { id, name, identity, charter };
    seats(members, min).into_iter().map(who).collect()
}

/// A log, as its tree.
#[derive(Clone)]
pub(super) struct Log {
    nodes: BTreeMap<NodeAt, Hash>,
    peaks: Peaks,
    roots: Vec<Hash>,
}

impl Log {
    pub(super) fn new() -> Self {
        let peaks = Peaks::default();
        Self { nodes: BTreeMap::new(), roots: vec![peaks.root()], peaks }
    }

    /// Grows to `size` leaves, of which the new ones say `what`.
    pub(super) fn grow(&mut self, size: u64, what: &str) {
        while self.size() < size {
            let leaf = merkle::leaf_hash(format!("{what} {}", self.size()).as_bytes());
            let nodes = &mut self.nodes;
            let stored: Result<(), ()> = self.peaks.append(leaf, |at, hash| {
                nodes.insert(at, hash);
                Ok(())
            });
            stored.unwrap();
            self.roots.push(self.peaks.root());
        }
    }

    /// A log of `size` leaves.
    pub(super) fn of(size: u64, what: &str) -> Self {
        let mut log = Self::new();
        log.grow(size, what);
        log
    }

    pub(super) fn size(&self) -> u64 {
        self.peaks.size()
    }

    pub(super) fn root(&self, size: u64) -> Hash {
        self.roots[usize::try_from(size).unwrap()]
    }
}

impl Nodes for Log {
    type Error = StoreError;

    fn node(&self, at: NodeAt) -> Result<Hash, StoreError> {
        self.nodes.get(&at).copied().ok_or(StoreError::Corrupt("no such node"))
    }
}
