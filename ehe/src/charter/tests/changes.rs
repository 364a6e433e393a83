//! What a charter changes against the one before it.

use super::*;

fn node(i: u8) -> NodeId {
    NodeId([i; 8])
}

/// What the charter changes that comes of [`world`]'s by this, as it is shown.
fn shown(change: Change<'_>) -> String {
    let before = world().charter;
    let mut after = Charter { version: 2, ..before.clone() };
    change(&mut after);
    after.changes(&before).to_string()
}

type Change<'a> = &'a dyn Fn(&mut Charter);

/// A node like the first one, with this number.
fn another(charter: &Charter, i: u8, name: &str) -> Node {
    Node { id: node(i), name: name.into(), sign: VerifyKey([i; 32]), ..charter.nodes[0].clone() }
}

#[test]
fn shards_that_move_alike_are_told_together_and_a_group_in_another_order_is_the_same() {
    let mut before = world().charter;
    let fourth = another(&before, 3, "node-3.example");
    before.nodes.push(fourth);
    let group = |nodes: [u8; 3]| nodes.map(node).to_vec();
    let (all, some) = (group([0, 1, 2]), group([0, 1, 3]));
    before.placement = Placement::Everywhere(all.clone());
    let listed = Placement::Listed(vec![some.clone(), some.clone(), group([2, 0, 1]), some.clone()]);
    let after = Charter { version: 2, placement: listed, ..before.clone() };
    let moves: Vec<u16> = after.moves(&before).iter().map(|it| it.shard).collect();
    assert_eq!(moves, [0, 1, 3]);
    assert_eq!(after.moves(&before)[0], Move { shard: 0, from: all, to: some });
    assert_eq!(
        after.changes(&before).to_string(),
        "charter 2 of \"Test alliance\" changes charter 1:\n  moves shards 0, 1, 3: node-0.example, node-1.example, node-2.example -> \
         node-0.example, node-1.example, node-3.example; comes to [node-3.example], leaves [node-2.example]"
    );
}

#[test]
fn a_charter_that_moves_nothing_says_so_and_one_that_changes_nothing_too() {
    assert_eq!(shown(&|_| ()), "charter 2 of \"Test alliance\" changes nothing of charter 1");
    let added = shown(&|charter| charter.nodes.push(another(charter, 3, "node-3.example")));
    assert_eq!(
        added,
        "charter 2 of \"Test alliance\" changes charter 1:\n  adds node node-3.example (0303030303030303) of \"Hospital 0\", at 127.0.0.1:4433; \
         no shard lives on it\n  no shard moves"
    );
}

#[test]
fn a_node_that_comes_back_under_its_name_is_told_from_the_one_that_it_was() {
    let text = shown(&|charter| {
        charter.nodes[2] = another(charter, 9, "node-2.example");
        charter.placement = Placement::Everywhere([0, 1, 9].map(node).to_vec());
    });
    for part in [
        "adds node node-2.example (0909090909090909) of \"Hospital 0\"",
        "removes node node-2.example (0202020202020202) of \"Hospital 2\"",
        "comes to [node-2.example (0909090909090909)], leaves [node-2.example (0202020202020202)]",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn whatever_else_may_differ_between_two_charters_is_told() {
    let other = Identity::generate(&mut rng(9)).public().clone();
    let changes: [(Change<'_>, &str); 15] = [
        (&|c| c.alliance = "Else".into(), "the alliance's name: \"Test alliance\" -> \"Else\""),
        (&|c| c.shard_count = NonZeroU16::new(2).unwrap(), "the number of shards: 4 -> 2"),
        (&|c| c.rules = Some(2), "the rules in force in every shard: version 1 -> version 2"),
        (&|c| c.head_fresh_ms = 1, "head_fresh_ms: 60000 -> 1"),
        (&|c| c.min_cosignatures = Some(3), "members that cosign at least: their majority -> 3"),
        (&|c| c.permissions.read = RoleSet::of(&[]), "who may read: gateway, patient, clinician -> nobody"),
        (&|c| c.permissions.submit = RoleSet::of(&[Role::Node]), "who may submit: gateway, patient, clinician -> node"),
        (&|c| c.permissions.host = RoleSet::of(&[Role::Gateway]), "who may host: node -> gateway"),
        (&|c| c.members[0].name = "Anna".into(), "member \"Anna\" (0000000000000000): the name was \"Hospital 0\""),
        (&|c| c.members[1].identity = other.clone(), "member \"Hospital 1\" (0101010101010101): who signs for it: "),
        (&|c| c.members[2].id = MemberId([5; 8]), "removes member \"Hospital 2\" (0202020202020202)"),
        (&|c| c.members[2].id = MemberId([5; 8]), "adds member \"Hospital 2\" (0505050505050505)"),
        (&|c| c.nodes[0].addresses = vec!["h:1".into()], "node node-0.example: addresses: 127.0.0.1:4433 -> h:1"),
        (&|c| c.nodes[0].member = MemberId([1; 8]), "node node-0.example: member: \"Hospital 0\" -> \"Hospital 1\""),
        (&|c| c.nodes[0].sign = VerifyKey([7; 32]), "node node-0.example: signing key: "),
    ];
    for (change, line) in changes {
        let text = shown(change);
        assert!(text.contains(&format!("\n  {line}")) && text.ends_with("\n  no shard moves"), "{text}");
    }
}
