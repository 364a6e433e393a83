use core::num::NonZeroU16;

use super::*;
use crate::charter::{Charter, Member, Node, Permissions, Placement, SignedCharter};
use crate::checkpoint::log_origin;
use crate::identity::Identity;
use crate::test_rng::rng;

const TIME_S: u64 = 1_790_000_000;

struct World {
    nodes: Vec<Identity>,
    chain: CharterChain,
}

/// Three members with one node each; the quorum is two.
fn world() -> World {
    let mut rng = rng(31);
    let mut three = || (0..3).map(|_| Identity::generate(&mut rng)).collect::<Vec<_>>();
    let (members, nodes) = (three(), three());
    let numbers = || 0..3u8;
    let charter = Charter {
        version: 1,
        alliance: "Test alliance".into(),
        predecessor: None,
        shard_count: NonZeroU16::new(4).unwrap(),
        members: numbers()
            .zip(&members)
            .map(|(i, member)| Member {
                id: MemberId([i; 8]),
                name: format!("Hospital {i}"),
                identity: member.public().clone(),
            })
            .collect(),
        nodes: numbers()
            .zip(&nodes)
            .map(|(i, node)| Node {
                id: NodeId([i; 8]),
                member: MemberId([i; 8]),
                name: name(i.into()),
                sign: node.public().sign,
                addresses: vec!["127.0.0.1:4433".into()],
            })
            .collect(),
        placement: Placement::Everywhere(numbers().map(|i| NodeId([i; 8])).collect()),
        permissions: Permissions::default(),
        head_fresh_ms: 60_000,
        min_cosignatures: None,
        rules: None,
    };
    let mut signed = SignedCharter::unsigned(&charter).unwrap();
    members.iter().take(2).for_each(|member| signed.sign(member).unwrap());
    World { nodes, chain: CharterChain(vec![signed]) }
}

fn name(i: usize) -> String {
    format!("node-{i}.example")
}

impl World {
    fn origin(&self, incarnation: u32) -> String {
        log_origin(self.chain.claimed_alliance().unwrap(), 1, incarnation)
    }

    /// A checkpoint, ordered by the first of `by` and cosigned by all.
    fn said(&self, size: u64, root: Hash, by: &[usize]) -> String {
        self.said_in(0, size, root, by)
    }

    fn said_in(&self, incarnation: u32, size: u64, root: Hash, by: &[usize]) -> String {
        let origin = self.origin(incarnation);
        let mut note = Checkpoint { origin, size, root, charter_version: 1 }.unsigned().unwrap();
        note.sign(&self.origin(incarnation), self.nodes[by[0]].sign_key());
        for i in by {
            note.cosign(&name(*i), self.nodes[*i].sign_key(), TIME_S);
        }
        note.to_string()
    }

    fn roots(&self, one: &[usize], other: &[usize]) -> Evidence {
        let [one, other] = [(1, one), (2, other)].map(|(root, by)| self.said(9, Hash([root; 32]), by));
        Evidence::of(&self.chain, &one, &other, None).unwrap()
    }
}

fn ids(nodes: &[u8]) -> BTreeSet<NodeId> {
    nodes.iter().map(|i| NodeId([*i; 8])).collect()
}

#[test]
fn whoever_signed_two_roots_of_one_size_is_named_with_its_hospital_and_nobody_else_is() {
    let world = world();
    let verdict = judge(&world.roots(&[0, 1], &[2, 1]).to_vec()).unwrap();
    assert_eq!((verdict.shard, verdict.incarnation, verdict.kind), (1, 0, Kind::Roots));
    assert_eq!(verdict.finding(), Finding::SignedBoth);
    let [culprit] = &verdict.culprits[..] else { panic!("{:?}", verdict.culprits) };
    assert_eq!((culprit.node, culprit.member_name.as_str()), (NodeId([1; 8]), "Hospital 1"));
    assert_eq!(culprit.cosigned_at, Some(UnixMs(TIME_S * 1000)));
    assert_eq!(verdict.accused(), ids(&[1]));
    assert!(verdict.first.stands() && verdict.second.stands());
}

#[test]
fn where_nobody_signed_both_it_says_who_stands_against_whom_and_not_more() {
    let world = world();
    let found = |one: &[usize], other: &[usize]| {
        let verdict = world.roots(one, other).judge().unwrap();
        (verdict.finding(), verdict.accused())
    };
    assert_eq!(found(&[0, 1], &[2]), (Finding::AgainstQuorum, ids(&[2])));
    assert_eq!(found(&[2], &[1, 0]), (Finding::AgainstQuorum, ids(&[2])));
    assert_eq!(found(&[0], &[2]), (Finding::Sides, ids(&[0, 2])));
    assert_eq!(found(&[0, 1], &[2, 0, 1]), (Finding::SignedBoth, ids(&[0, 1])));
}

#[test]
fn a_contradiction_is_judged_by_the_charters_at_hand_as_its_file_is_by_its_own() {
    let world = world();
    let file = world.roots(&[0, 1], &[2, 1]);
    let bytes = file.contradiction.to_vec();
    assert!(bytes.len() < file.to_vec().len() / 2);
    let contradiction = Contradiction::decode(&bytes).unwrap();
    let charters = world.chain.verify_each(world.chain.claimed_alliance().unwrap()).unwrap();
    assert_eq!(contradiction.newest_charter(), Ok(1));
    assert_eq!(contradiction.judge(&charters), file.judge());
    assert_eq!(contradiction.judge::<VerifiedCharter>(&[]), Err(EvidenceError::NoSuchCharter(1)));
    // Later charters are left out of the file.
    let longer = CharterChain([&world.chain.0[..], &world.chain.0].concat());
    assert_eq!(contradiction.with(&longer).unwrap(), file);
    let too_long = Contradiction::decode(&vec![0x61; CONTRADICTION_MAX_BYTES + 1]);
    assert!(matches!(too_long, Err(CborError::TooLarge { .. })), "{too_long:?}");
}

#[test]
fn the_order_in_which_two_statements_are_found_makes_no_difference_to_the_file() {
    let world = world();
    let [one, other] = [1, 2].map(|root| world.said(9, Hash([root; 32]), &[0]));
    let of = |a: &str, b: &str| Evidence::of(&world.chain, a, b, None).unwrap();
    assert_eq!(of(&one, &other), of(&other, &one));
    assert!(of(&other, &one).judge().is_ok());
}

#[test]
fn a_log_that_a_restore_began_anew_is_no_contradiction() {
    let world = world();
    let [old, new] =
        [0, 1].map(|incarnation| world.said_in(incarnation, 9, Hash([7 + u8::from(incarnation > 0); 32]), &[0, 1]));
    let evidence = Evidence::of(&world.chain, &old, &new, None).unwrap();
    assert!(matches!(evidence.judge(), Err(EvidenceError::OtherLogs { .. })));
}

#[test]
fn a_log_that_the_alliance_does_not_have_is_said_to_be_none_of_its_logs() {
    let world = world();
    for origin in [log_origin(world.chain.claimed_alliance().unwrap(), 4, 0), log_origin(AllianceId([9; 32]), 1, 0)] {
        let note = |root| {
            let says = Checkpoint { origin: origin.clone(), size: 9, root: Hash([root; 32]), charter_version: 1 };
            let mut note = says.unsigned().unwrap();
            note.sign(&origin, world.nodes[0].sign_key());
            note.to_string()
        };
        let evidence = Evidence::of(&world.chain, &note(1), &note(2), None).unwrap();
        assert_eq!(evidence.judge(), Err(EvidenceError::NotOfAlliance(origin)));
    }
}

#[test]
fn no_flipped_bit_makes_a_culprit_of_a_node_that_is_none() {
    let world = world();
    let good = world.roots(&[0, 1], &[2, 1]);
    let found = good.judge().unwrap();
    let culprits = found.accused();
    let bytes = good.to_vec();
    // Every place once, every bit of a byte somewhere: 5,000 files.
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        if let Ok(verdict) = judge(&bad) {
            let named: BTreeSet<NodeId> = verdict.culprits.iter().map(|culprit| culprit.node).collect();
            assert!(named.is_subset(&culprits), "byte {at}");
            assert_eq!(verdict.alliance, found.alliance, "byte {at}");
        }
    }
}

#[test]
fn the_largest_file_that_may_be_is_read_no_further_than_its_limit() {
    let bytes = vec![0x61; EVIDENCE_MAX_BYTES + 1];
    assert!(matches!(judge(&bytes), Err(EvidenceError::Form(CborError::TooLarge { .. }))));
}
