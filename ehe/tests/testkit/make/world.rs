//! Who there is: identities of fixed seeds, and two alliances of hospitals with a node each.

use core::num::NonZeroU16;
use std::sync::OnceLock;

use ehe::charter::{
    Charter, CharterChain, Member, Node, Permissions, Placement, SignedCharter, Trust, VerifiedCharter,
};
use ehe::id::{AllianceId, MemberId, NodeId};
use ehe::identity::Identity;
use ehe::kem::KemSecret;
use ehe::recovery::RecoveryKey;
use ehe::sign::SignKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::json::h;

/// 32 bytes that everybody knows: SHA-256 of a label.
pub(super) fn seed(label: &str) -> [u8; 32] {
    Sha256::digest(format!("ehe test kit, not a secret: {label}")).into()
}

/// The identity of a label.
pub(super) fn person(label: &str) -> Identity {
    let kem = KemSecret::from_seed(seed(&format!("{label} kem")).into());
    Identity::new(SignKey::from_seed(&seed(&format!("{label} sign"))), kem)
}

/// Its seeds, as a case carries them.
pub(super) fn seeds(label: &str) -> Value {
    json!({"sign": h(seed(&format!("{label} sign"))), "kem": h(seed(&format!("{label} kem")))})
}

/// A recovery key as it is printed.
pub(super) const RECOVERY: &str =
    "ehe-recovery1 qqqs yqcy q5rq wzqf pg9s crgw pugp zysn zs23 v9cc rydp k8qa rc0s xvyy y2";

/// Its identity.
pub(super) fn recovery() -> Identity {
    RECOVERY.parse::<RecoveryKey>().unwrap().identity()
}

pub(super) struct World {
    pub(super) patient: Identity,
    pub(super) gateway: Identity,
    pub(super) clinician: Identity,
    pub(super) other: Identity,
    pub(super) stranger: Identity,
    pub(super) members: Vec<Identity>,
    pub(super) nodes: Vec<Identity>,
    /// The alliance of most cases: hospital A and its node alone, because a member is 1.3 KB in each file.
    pub(super) one: Alliance,
    /// Three hospitals, where it is votes that matter.
    pub(super) three: Alliance,
}

pub(super) struct Alliance {
    pub(super) charter: Charter,
    /// Charter 1, signed by a majority.
    pub(super) signed: SignedCharter,
    pub(super) id: AllianceId,
}

impl Alliance {
    fn of(charter: Charter, by: &[&Identity]) -> Self {
        let signed = signed(&charter, by);
        Self { id: AllianceId(signed.hash().0), charter, signed }
    }

    /// The chain of charter 1 alone, encoded.
    pub(super) fn chain(&self) -> Vec<u8> {
        CharterChain(vec![self.signed.clone()]).encode()
    }

    pub(super) fn verified(&self) -> VerifiedCharter {
        self.signed.verify(Trust::Pinned(self.id)).unwrap()
    }
}

/// The one world of all cases.
pub(super) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let members: Vec<Identity> = (0..3).map(|i| person(&format!("member {i}"))).collect();
        let nodes: Vec<Identity> = (0..3).map(|i| person(&format!("node {i}"))).collect();
        let one = Alliance::of(charter(&members[..1], &nodes[..1]), &[&members[0]]);
        let three = Alliance::of(charter(&members, &nodes), &[&members[0], &members[1]]);
        World {
            patient: person("patient"),
            gateway: person("gateway"),
            clinician: person("clinician"),
            other: person("other gateway"),
            stranger: person("stranger"),
            members,
            nodes,
            one,
            three,
        }
    })
}

fn charter(members: &[Identity], nodes: &[Identity]) -> Charter {
    let id = |identity: &Identity| MemberId(identity.author_id().0[..8].try_into().unwrap());
    let node_id = |identity: &Identity| NodeId(identity.author_id().0[..8].try_into().unwrap());
    Charter {
        version: 1,
        alliance: "Test kit alliance".into(),
        predecessor: None,
        shard_count: NonZeroU16::new(4).unwrap(),
        members: members
            .iter()
            .zip(["Hospital A", "Hospital B", "Hospital C"])
            .map(|(identity, name)| Member { id: id(identity), name: name.into(), identity: identity.public().clone() })
            .collect(),
        nodes: nodes
            .iter()
            .zip(members)
            .zip(["a", "b", "c"])
            .map(|((node, member), name)| Node {
                id: node_id(node),
                member: id(member),
                name: format!("node-{name}.example"),
                sign: node.public().sign,
                addresses: vec![format!("node-{name}.example:4433")],
            })
            .collect(),
        placement: Placement::Everywhere(nodes.iter().map(node_id).collect()),
        permissions: Permissions::default(),
        head_fresh_ms: 60_000,
        min_cosignatures: None,
        rules: None,
    }
}

pub(super) fn signed(charter: &Charter, by: &[&Identity]) -> SignedCharter {
    let mut signed = SignedCharter::unsigned(charter).unwrap();
    for member in by {
        signed.sign(member).unwrap();
    }
    signed
}
