mod changes;
mod gathering;

use super::*;
use crate::id::AllianceId;
use crate::identity::Identity;
use crate::limits::MEMBERS_MAX;
use crate::test_rng::rng;

struct World {
    members: Vec<Identity>,
    charter: Charter,
}

/// Three members with one node each, four shards.
fn world() -> World {
    let mut rng = rng(7);
    let members: Vec<Identity> = (0..3).map(|_| Identity::generate(&mut rng)).collect();
    let node_keys: Vec<Identity> = (0..3).map(|_| Identity::generate(&mut rng)).collect();
    let charter = Charter {
        version: 1,
        alliance: "Test alliance".into(),
        predecessor: None,
        shard_count: NonZeroU16::new(4).unwrap(),
        members: (0..3u8)
            .map(|i| Member {
                id: MemberId([i; 8]),
                name: format!("Hospital {i}"),
                identity: members[usize::from(i)].public().clone(),
            })
            .collect(),
        nodes: (0..3u8)
            .map(|i| Node {
                id: NodeId([i; 8]),
                member: MemberId([i; 8]),
                name: format!("node-{i}.example"),
                sign: node_keys[usize::from(i)].public().sign,
                addresses: vec![format!("127.0.0.1:{}", 4433 + u16::from(i))],
            })
            .collect(),
        placement: Placement::Everywhere((0..3u8).map(|i| NodeId([i; 8])).collect()),
        permissions: Permissions::default(),
        head_fresh_ms: 60_000,
        min_cosignatures: None,
        rules: None,
    };
    World { members, charter }
}

fn signed(charter: &Charter, by: &[&Identity]) -> SignedCharter {
    let mut signed = SignedCharter::unsigned(charter).unwrap();
    for member in by {
        signed.sign(member).unwrap();
    }
    signed
}

fn pin(charter: &SignedCharter) -> AllianceId {
    AllianceId(charter.hash().0)
}

fn first(world: &World) -> VerifiedCharter {
    let signed = signed(&world.charter, &[&world.members[0], &world.members[1]]);
    signed.verify(Trust::Pinned(pin(&signed))).unwrap()
}

fn second_of(world: &World, before: &VerifiedCharter) -> Charter {
    Charter { version: 2, predecessor: Some(before.hash()), ..world.charter.clone() }
}

#[test]
fn a_majority_of_members_makes_a_charter_valid() {
    let world = world();
    let verified = first(&world);
    let again = SignedCharter::decode(&verified.signed().encode()).unwrap();
    assert_eq!(again.verify(Trust::Pinned(verified.alliance_id())).unwrap(), verified);
    assert_eq!(verified.group(3).len(), 3);
    assert!(verified.group(4).is_empty());
    assert_eq!(verified.quorum(0), 2);
    assert_eq!(verified.quorum(4), usize::MAX);
    assert_eq!(verified.shards_of(NodeId([1; 8])).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let origin = verified.origin(3, 1);
    assert_eq!(origin, format!("ehe/{}/3/1", &verified.alliance_id().to_string()[..32]));
    assert!(origin.len() <= crate::limits::ORIGIN_MAX_BYTES);
    assert_eq!(verified.incarnation_of(&origin, 3), Some(1));
    for bad in [
        format!("{origin}x"),
        origin.replace("/3/1", "/3/01"),
        origin.replace("/3/1", "/3/+1"),
        origin.replace("/3/", "/2/"),
    ] {
        assert!(!verified.is_origin_of(&bad, 3), "{bad}");
    }
}

#[test]
fn a_minority_is_no_quorum_even_if_one_member_signs_twice() {
    let world = world();
    let lone = signed(&world.charter, &[&world.members[0], &world.members[0]]);
    assert_eq!(lone.verify(Trust::Pinned(pin(&lone))), Err(CharterError::Quorum { signed: 1, needed: 2 }));
    let mut doubled = lone.clone();
    doubled.signatures.push(doubled.signatures[0].clone());
    assert_eq!(doubled.verify(Trust::Pinned(pin(&lone))), Err(CharterError::Quorum { signed: 1, needed: 2 }));
}

#[test]
fn a_strangers_signature_refuses_the_charter() {
    let world = world();
    let stranger = Identity::generate(&mut rng(99));
    let signed = signed(&world.charter, &[&world.members[0], &world.members[1], &stranger]);
    assert_eq!(signed.verify(Trust::Pinned(pin(&signed))), Err(CharterError::Stranger(stranger.author_id())));
}

#[test]
fn a_signature_of_another_charter_counts_for_nothing() {
    let world = world();
    let other = Charter { alliance: "Another".into(), ..world.charter.clone() };
    let mut moved = signed(&world.charter, &[&world.members[0]]);
    moved.signatures.push(signed(&other, &[&world.members[1]]).signatures[0].clone());
    assert!(matches!(moved.verify(Trust::Pinned(pin(&moved))), Err(CharterError::Signature(_))));
}

#[test]
fn an_altered_charter_is_of_another_alliance() {
    let world = world();
    let good = signed(&world.charter, &[&world.members[0], &world.members[1]]);
    let mut bad = good.clone();
    let at = bad.charter.windows(13).position(|w| w == b"Test alliance").unwrap();
    bad.charter[at] ^= 1;
    assert_eq!(bad.verify(Trust::Pinned(pin(&good))), Err(CharterError::OtherAlliance));
    assert!(matches!(bad.verify(Trust::Pinned(pin(&bad))), Err(CharterError::Signature(_))));
}

#[test]
fn the_next_version_is_signed_by_a_majority_of_the_one_before() {
    let mut world = world();
    let one = first(&world);
    let newcomers: Vec<Identity> = (0..3).map(|i| Identity::generate(&mut rng(50 + i))).collect();
    for (member, new) in world.charter.members.iter_mut().zip(&newcomers) {
        member.identity = new.public().clone();
    }
    let two = second_of(&world, &one);
    let usurped = signed(&two, &[&newcomers[0], &newcomers[1], &newcomers[2]]);
    assert_eq!(
        usurped.verify(Trust::Predecessor(&one)),
        Err(CharterError::Quorum { signed: 0, needed: 2 }),
        "new members cannot vote themselves in"
    );
    let agreed = signed(&two, &[&world.members[0], &world.members[2], &newcomers[0]]);
    let chain = CharterChain(vec![one.signed().clone(), agreed]);
    let chain = CharterChain::decode(&chain.encode()).unwrap();
    assert_eq!(chain.claimed_alliance(), Some(one.alliance_id()));
    let verified = chain.verify(one.alliance_id()).unwrap();
    assert_eq!((verified.version(), verified.alliance_id()), (2, one.alliance_id()));
    assert_eq!(CharterChain::default().verify(one.alliance_id()), Err(CharterError::EmptyChain));
}

#[test]
fn a_skipped_version_a_wrong_predecessor_and_another_shard_count_are_refused() {
    let world = world();
    let one = first(&world);
    let by = [&world.members[0], &world.members[1]];
    let refused = |charter: &Charter| signed(charter, &by).verify(Trust::Predecessor(&one)).unwrap_err();
    let two = second_of(&world, &one);
    assert_eq!(refused(&Charter { version: 3, ..two.clone() }), CharterError::VersionSkip { expected: 2, found: 3 });
    assert_eq!(refused(&Charter { predecessor: Some(Hash([9; 32])), ..two.clone() }), CharterError::OtherPredecessor);
    assert_eq!(
        refused(&Charter { shard_count: NonZeroU16::new(8).unwrap(), ..two.clone() }),
        CharterError::ShardCountChanged { before: 4, after: 8 }
    );
    let signed_two = signed(&two, &by);
    assert_eq!(signed_two.verify(Trust::Pinned(pin(&signed_two))), Err(CharterError::OtherAlliance));
}

#[test]
fn the_rules_version_is_raised_by_a_later_charter_and_never_goes_back() {
    let world = world();
    let one = first(&world);
    assert_eq!(one.rules(), 1);
    let by = [&world.members[0], &world.members[1]];
    let raised = Charter { rules: Some(2), ..second_of(&world, &one) };
    let two = signed(&raised, &by).verify(Trust::Predecessor(&one)).unwrap();
    assert_eq!(two.rules(), 2);
    let third = |rules| {
        let third = Charter { version: 3, predecessor: Some(two.hash()), rules, ..world.charter.clone() };
        signed(&third, &by).verify(Trust::Predecessor(&two)).map(|three| three.rules())
    };
    assert_eq!(third(Some(2)), Ok(2), "stays");
    assert_eq!(third(Some(u16::MAX)), Ok(u16::MAX), "may skip");
    assert_eq!(third(None), Err(CharterError::RulesLowered { before: 2, after: 1 }), "left out is the first");
    for (charter, rules) in [(&raised, 0), (&raised, 1), (&world.charter, 2)] {
        let written = Charter { rules: Some(rules), ..charter.clone() };
        assert_eq!(SignedCharter::unsigned(&written), Err(CharterError::Rules(rules)));
    }
}

#[test]
fn a_charter_that_breaks_its_own_rules_cannot_even_be_signed() {
    let world = world();
    let nodes = |ids: &[u8]| ids.iter().map(|i| NodeId([*i; 8])).collect::<Vec<_>>();
    let broken = |change: &dyn Fn(&mut Charter)| {
        let mut charter = world.charter.clone();
        change(&mut charter);
        SignedCharter::unsigned(&charter).unwrap_err()
    };
    let duplicate = |error: CharterError| matches!(error, CharterError::Duplicate { .. });
    let text = |error: CharterError| matches!(error, CharterError::Text { .. });
    let limit = |error: CharterError| matches!(error, CharterError::Limit { .. });

    assert!(duplicate(broken(&|c| c.nodes[1].id = c.nodes[0].id)));
    assert!(duplicate(broken(&|c| c.nodes[1].name = c.nodes[0].name.clone())));
    assert!(duplicate(broken(&|c| c.nodes[1].sign = c.nodes[0].sign)));
    assert!(duplicate(broken(&|c| c.members[1].id = c.members[0].id)));
    assert!(duplicate(broken(&|c| c.members[1].identity = c.members[0].identity.clone())));
    assert!(duplicate(broken(&|c| c.placement = Placement::Everywhere(nodes(&[0, 1, 1])))));
    assert_eq!(
        broken(&|c| c.placement = Placement::Everywhere(nodes(&[0, 1, 9]))),
        CharterError::UnknownNode(NodeId([9; 8]))
    );
    assert_eq!(broken(&|c| c.placement = Placement::Everywhere(nodes(&[0, 1]))), CharterError::GroupSize(2));
    assert_eq!(broken(&|c| c.placement = Placement::Everywhere(vec![])), CharterError::GroupSize(0));
    assert_eq!(
        broken(&|c| c.placement = Placement::Listed(vec![nodes(&[0]); 3])),
        CharterError::ShardsCovered { found: 3, shards: 4 }
    );
    assert_eq!(
        broken(&|c| c.nodes[0].member = MemberId([9; 8])),
        CharterError::UnknownMember { node: NodeId([0; 8]), member: MemberId([9; 8]) }
    );
    assert_eq!(broken(&|c| c.min_cosignatures = Some(4)), CharterError::Cosignatures { asked: 4, members: 3 });
    for name in ["", "Upper.example", "with space", "plus+sign", "-edge", "dots..example", "ünode"] {
        assert!(text(broken(&|c| c.nodes[0].name = name.into())), "{name}");
    }
    for address in ["host", "host:", "host:0", "host:65536", "host:+1", "ho st:1", "[::1:1", "::1:443", ":1"] {
        assert!(text(broken(&|c| c.nodes[0].addresses = vec![address.into()])), "{address}");
    }
    assert!(text(broken(&|c| c.alliance = "line\nbreak".into())));
    assert!(limit(broken(&|c| c.alliance = "x".repeat(201))));
    assert!(limit(broken(&|c| c.nodes[0].addresses = vec![])));
    assert!(limit(broken(&|c| c.nodes.clear())));
    assert!(limit(broken(&|c| c.members.clear())));
    assert!(limit(broken(&|c| c.head_fresh_ms = 0)));
    assert!(limit(broken(&|c| c.shard_count = NonZeroU16::new(1025).unwrap())));
    assert_eq!(broken(&|c| c.version = 0), CharterError::Version(0));
    assert_eq!(broken(&|c| c.version = 2), CharterError::Version(2));
    assert_eq!(broken(&|c| c.predecessor = Some(Hash::ZERO)), CharterError::Version(1));
}

#[test]
fn one_hospital_with_three_nodes_is_one_voice_and_the_charter_may_ask_for_more_than_the_majority() {
    let mut world = world();
    for node in &mut world.charter.nodes {
        node.member = MemberId([0; 8]);
    }
    assert_eq!(first(&world).quorum(0), 1);
    let mut world = self::world();
    world.charter.min_cosignatures = Some(3);
    assert_eq!(first(&world).quorum(0), 3);
    world.charter.min_cosignatures = Some(1);
    assert_eq!(first(&world).quorum(0), 2, "less than the majority is not asked for");
}

#[test]
fn each_shard_may_live_elsewhere() {
    let mut world = world();
    let node = |i: u8| NodeId([i; 8]);
    world.charter.placement =
        Placement::Listed(vec![vec![node(0)], vec![node(1)], vec![node(2)], vec![node(0), node(1), node(2)]]);
    let verified = first(&world);
    assert_eq!(verified.group(1), [node(1)]);
    assert_eq!((verified.quorum(1), verified.quorum(3)), (1, 2));
    assert_eq!(verified.shards_of(node(2)).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn addresses_may_be_names_and_both_kinds_of_numbers() {
    let mut world = world();
    world.charter.nodes[0].addresses =
        ["node.example:443", "192.0.2.1:4433", "[2001:db8::1]:1"].map(String::from).into();
    first(&world);
}

#[test]
fn roles_are_text_and_an_unknown_bit_is_refused() {
    for role in Role::ALL {
        assert_eq!(role.to_string().parse::<Role>(), Ok(role));
    }
    assert_eq!("nurse".parse::<Role>(), Err(ParseRoleError));
    assert!(cbor::from_slice::<RoleSet>(&[0x0f], 8).is_ok());
    assert!(matches!(cbor::from_slice::<RoleSet>(&[0x10], 8), Err(CborError::Shape(_))));
    assert_eq!(Permissions::default().host.iter().collect::<Vec<_>>(), [Role::Node]);
}

#[test]
fn a_charter_at_every_limit_still_fits() {
    let mut world = world();
    let mut rng = rng(3);
    world.members = (0..64).map(|_| Identity::generate(&mut rng)).collect();
    world.charter.members = world
        .members
        .iter()
        .zip(0u8..)
        .map(|(identity, i)| Member {
            id: MemberId([i; 8]),
            name: format!("{i:0200}"),
            identity: identity.public().clone(),
        })
        .collect();
    world.charter.nodes = (0..64u8)
        .map(|i| Node {
            id: NodeId([i; 8]),
            member: MemberId([i; 8]),
            name: format!("n{i}.{}", ["x"; 60].join(".")),
            sign: VerifyKey([i; 32]),
            addresses: vec![format!("n{i}.{}:65535", ["x"; 100].join(".")); ADDRESSES_PER_NODE_MAX],
        })
        .collect();
    world.charter.shard_count = NonZeroU16::new(1024).unwrap();
    world.charter.placement = Placement::Listed(vec![(0..7).map(|i| NodeId([i; 8])).collect(); 1024]);
    let all: Vec<&Identity> = world.members.iter().collect();
    let signed = signed(&world.charter, &all);
    assert!(signed.encode().len() <= crate::limits::CHARTER_MAX_BYTES, "{}", signed.encode().len());
    signed.verify(Trust::Pinned(pin(&signed))).unwrap();
}
