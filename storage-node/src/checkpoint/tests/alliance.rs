//! Members, their nodes, and logs.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use ehe::charter::{Charter, Member, Node, Permissions, Placement, SignedCharter, Trust, VerifiedCharter};
use ehe::id::{AllianceId, Hash, MemberId, NodeId};
use ehe::identity::Identity;
use ehe::merkle::{self, NodeAt, Nodes, Peaks};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;

use super::super::Who;
use crate::shard::StoreError;

/// One shard whose nodes belong to the members named, one letter a node; more than half of them, or `min`, make a quorum.
pub(super) fn alliance(members: &str, min: Option<u16>) -> Vec<Who> {
    let new = || Identity::generate(&mut UnwrapErr(SysRng));
    let identities: Vec<Identity> = members.chars().map(|_| new()).collect();
    let voters: BTreeMap<char, Identity> = members.chars().map(|member| (member, new())).collect();
    let id = |member: char| MemberId([u8::try_from(member).unwrap(); 8]);
    let nodes = || (1u8..).zip(members.chars()).zip(&identities);
    let charter = Charter {
        version: 1,
        alliance: "Test".into(),
        predecessor: None,
        shard_count: NonZeroU16::MIN,
        members: voters
            .iter()
            .map(|(it, identity)| Member { id: id(*it), name: it.to_string(), identity: identity.public().clone() })
            .collect(),
        nodes: nodes()
            .map(|((n, member), identity)| Node {
                id: NodeId([n; 8]),
                member: id(member),
                name: format!("node{n}.example"),
                sign: identity.public().sign,
                addresses: vec!["127.0.0.1:1".into()],
            })
            .collect(),
        placement: Placement::Everywhere(nodes().map(|((n, _), _)| NodeId([n; 8])).collect()),
        permissions: Permissions::default(),
        head_fresh_ms: 300_000,
        min_cosignatures: min,
    };
    let mut signed = SignedCharter::unsigned(&charter).unwrap();
    voters.values().for_each(|voter| signed.sign(voter).unwrap());
    let charter: VerifiedCharter = signed.verify(Trust::Pinned(AllianceId(signed.hash().0))).unwrap();
    let charter = Arc::new(charter);
    let who = nodes().map(|((n, _), identity)| Who {
        id: NodeId([n; 8]),
        name: format!("node{n}.example"),
        identity: Arc::new(identity.clone()),
        charter: Arc::clone(&charter),
    });
    who.collect()
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
