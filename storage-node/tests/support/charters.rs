//! Charters of an alliance whose one shard moves, and notes under them, in memory. Node n belongs to member n; both count from 1.

use std::num::NonZeroU16;
use std::sync::Arc;

use ehe::charter::{
    Charter, CharterError, Member, Node, Permissions, Placement, SignedCharter, Trust, VerifiedCharter,
};
use ehe::checkpoint::Checkpoint;
use ehe::id::{AllianceId, Hash, MemberId, NodeId};
use ehe::identity::Identity;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;

/// Everybody's keys.
pub struct Alliance {
    pub members: Vec<Identity>,
    pub nodes: Vec<Arc<Identity>>,
}

pub fn node(n: u8) -> NodeId {
    NodeId([n; 8])
}

pub fn name(n: u8) -> String {
    format!("node{n}.example")
}

impl Alliance {
    pub fn of(members: usize) -> Self {
        let new = || Identity::generate(&mut UnwrapErr(SysRng));
        Self { members: (0..members).map(|_| new()).collect(), nodes: (0..members).map(|_| Arc::new(new())).collect() }
    }

    fn numbered<T>(all: &[T]) -> impl Iterator<Item = (u8, &T)> {
        (1u8..).zip(all)
    }

    /// The charter that puts the shard on these nodes.
    pub fn charter(&self, after: Option<&VerifiedCharter>, group: &[u8]) -> Charter {
        let id = |n: u8| MemberId([n; 8]);
        Charter {
            version: after.map_or(1, |after| after.version() + 1),
            alliance: "Test".into(),
            predecessor: after.map(VerifiedCharter::hash),
            shard_count: NonZeroU16::MIN,
            members: Self::numbered(&self.members)
                .map(|(n, it)| Member { id: id(n), name: format!("Hospital {n}"), identity: it.public().clone() })
                .collect(),
            nodes: Self::numbered(&self.nodes)
                .map(|(n, it)| Node {
                    id: node(n),
                    member: id(n),
                    name: name(n),
                    sign: it.public().sign,
                    addresses: vec!["127.0.0.1:1".into()],
                })
                .collect(),
            placement: Placement::Everywhere(group.iter().map(|n| node(*n)).collect()),
            permissions: Permissions::default(),
            head_fresh_ms: 300_000,
            min_cosignatures: None,
            rules: None,
        }
    }

    /// Signed by the first so many members.
    pub fn signed(&self, charter: &Charter, by: usize) -> SignedCharter {
        let mut signed = SignedCharter::unsigned(charter).unwrap();
        self.members.iter().take(by).for_each(|member| signed.sign(member).unwrap());
        signed
    }

    /// The charters that put the shard on these groups, one after the other, signed by everybody.
    pub fn chain(&self, groups: &[&[u8]]) -> Vec<Arc<VerifiedCharter>> {
        let mut chain: Vec<Arc<VerifiedCharter>> = Vec::new();
        for group in groups {
            let next = self.next(chain.last().map(Arc::as_ref), group).unwrap();
            chain.push(Arc::new(next));
        }
        chain
    }

    pub fn next(&self, after: Option<&VerifiedCharter>, group: &[u8]) -> Result<VerifiedCharter, CharterError> {
        let signed = self.signed(&self.charter(after, group), self.members.len());
        signed.verify(match after {
            None => Trust::Pinned(AllianceId(signed.hash().0)),
            Some(after) => Trust::Predecessor(after),
        })
    }

    /// A checkpoint that the first of these nodes ordered and all of them cosigned.
    pub fn note(&self, charter: &VerifiedCharter, (size, root): (u64, Hash), by: &[u8]) -> String {
        let origin = charter.origin(0, 0);
        let checkpoint = Checkpoint { origin, size, root, charter_version: charter.version() };
        let mut note = checkpoint.unsigned().unwrap();
        for (at, n) in by.iter().enumerate() {
            let key = self.nodes[usize::from(*n) - 1].sign_key();
            if at == 0 {
                note.sign(&checkpoint.origin, key);
            }
            note.cosign(&name(*n), key, 1_790_000_000);
        }
        note.to_string()
    }
}
