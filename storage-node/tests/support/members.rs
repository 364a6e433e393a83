//! Members of an alliance and their nodes, in memory.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use ehe::charter::{Charter, Member, Node, Permissions, Placement, SignedCharter, Trust, VerifiedCharter};
use ehe::id::{AllianceId, MemberId, NodeId};
use ehe::identity::Identity;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;

/// A node as it knows itself.
pub struct Seat {
    pub id: NodeId,
    pub name: String,
    pub identity: Arc<Identity>,
    pub charter: Arc<VerifiedCharter>,
}

/// One shard whose nodes belong to the members named, one letter a node; more than half of them, or `min`, make a quorum.
pub fn seats(members: &str, min: Option<u16>) -> Vec<Seat> {
    seats_and_members(members, min).0
}

/// And the members, who sign the next charter.
pub fn seats_and_members(members: &str, min: Option<u16>) -> (Vec<Seat>, Vec<Identity>) {
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
        rules: None,
    };
    let mut signed = SignedCharter::unsigned(&charter).unwrap();
    voters.values().for_each(|voter| signed.sign(voter).unwrap());
    let charter: VerifiedCharter = signed.verify(Trust::Pinned(AllianceId(signed.hash().0))).unwrap();
    let charter = Arc::new(charter);
    let seats = nodes().map(|((n, _), identity)| Seat {
        id: NodeId([n; 8]),
        name: format!("node{n}.example"),
        identity: Arc::new(identity.clone()),
        charter: Arc::clone(&charter),
    });
    (seats.collect(), voters.into_values().collect())
}
