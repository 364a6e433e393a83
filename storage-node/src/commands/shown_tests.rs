use std::num::NonZeroU16;

use ehe::charter::Trust;
use ehe::id::AllianceId;
use ehe::time::UnixMs;
use ehe::wire::{GroupNode, MovedStatus};

use super::*;
use crate::test_charters::{Alliance, node};

/// Three nodes, 16 shards on all of them.
fn charter() -> VerifiedCharter {
    let alliance = Alliance::of(3);
    let charter =
        ehe::charter::Charter { shard_count: NonZeroU16::new(16).unwrap(), ..alliance.charter(None, &[1, 2, 3]) };
    let signed = alliance.signed(&charter, 3);
    signed.verify(Trust::Pinned(AllianceId(signed.hash().0))).unwrap()
}

fn group(shard: u16, applied: u64) -> GroupStatus {
    let member = |n: u8| GroupNode {
        node: node(n),
        votes: true,
        applied: Some(applied),
        heard_ms: Some(500),
        faulted: false,
        knows: Some(2),
    };
    let nodes = [1, 2, 3].map(member).into();
    GroupStatus { shard, charter: 1, leader: Some(node(1)), nodes, doing: None, rules: None }
}

fn status() -> NodeStatus {
    NodeStatus {
        node: node(1),
        program: "0.1.0".into(),
        charter_version: 1,
        shards: vec![],
        at: UnixMs(0),
        groups: Some((0..16).map(|shard| group(shard, 10)).collect()),
        evidence: None,
        scrub: None,
        moved: None,
    }
}

/// What it says, and what is not as it should be.
fn told(status: &NodeStatus, estranged: &[(u8, Estranged)]) -> (String, Vec<String>) {
    let estranged = estranged.iter().map(|(n, why)| (node(*n), *why)).collect();
    let charter = charter();
    let shown = Shown { status, charter: &charter, estranged: &estranged };
    (shown.text(), shown.problems())
}

#[test]
fn shards_that_are_alike_are_one_paragraph_and_the_last_line_says_that_all_is_well() {
    let mut status = status();
    status.groups.as_mut().unwrap()[3].leader = Some(node(2));
    let (text, problems) = told(&status, &[]);
    assert!(text.contains("shards 0–15: charter 1, led by node1.example (15), node2.example (1)\n"), "{text}");
    assert!(text.contains("  node2.example: 160 blocks\n") && text.lines().count() == 5, "{text}");
    assert_eq!(problems, Vec::<String>::new());
    let charter = charter();
    let shown = Shown { status: &status, charter: &charter, estranged: &BTreeMap::new() };
    assert_eq!(shown.verdict(&[]), "all 16 shards live where charter 1 says\n");
    assert_eq!(shown.verdict(&["it burns".into()]), "not all is well:\n  it burns\n");
}

/// What is wrong with shard 5, and what is said of that.
#[test]
fn whatever_is_not_as_it_should_be_is_told_by_name() {
    let wrong = |change: &dyn Fn(&mut GroupStatus)| {
        let mut status = status();
        change(&mut status.groups.as_mut().unwrap()[5]);
        let (text, problems) = told(&status, &[]);
        assert!(text.contains("shards 0–4, 6–15: "), "{text}");
        problems.join("\n")
    };
    assert_eq!(wrong(&|it| it.leader = None), "shard 5 is led by nobody: nothing can be written to it");
    assert!(wrong(&|it| it.nodes.truncate(2)).contains("shard 5 does not live yet where charter 1 says"));
    let silent = wrong(&|it| it.nodes[2].applied = None);
    assert_eq!(silent, "node3.example: shard 5: it was not heard of");
    assert!(wrong(&|it| it.nodes[1].faulted = true).starts_with("node2.example: shard 5: stopped by a fault"));
    let old = wrong(&|it| (it.rules, it.nodes[1].knows) = (Some(2), Some(1)));
    assert!(old.contains("node2.example: shard 5: its program is older"), "{old}");
    let moves = wrong(&|it| it.doing = Some(format!("waits until the log is on {}", node(3))));
    assert!(moves.contains("does not live yet"), "{moves}");

    let mut late = status();
    late.groups.as_mut().unwrap().iter_mut().for_each(|group| group.nodes[2].heard_ms = Some(40_000));
    assert_eq!(told(&late, &[]).1, ["node3.example was last heard of 40 s ago"]);
    late.groups = None;
    assert_eq!(told(&late, &[]).1.len(), 1, "an old program does not say how the shards are");
}

#[test]
fn how_far_moves_are_is_said_with_names_and_once_for_all_that_do_the_same() {
    let mut status = status();
    for group in &mut status.groups.as_mut().unwrap()[2..6] {
        group.doing = Some(format!("waits until the log is on {}", node(3)));
    }
    let charter = charter();
    let shown = Shown { status: &status, charter: &charter, estranged: &BTreeMap::new() };
    let progress = shown.progress();
    assert_eq!(
        progress,
        ["12 of 16 shards live where charter 1 says", "  shards 2–5: waits until the log is on node3.example"]
    );
}

#[test]
fn of_nodes_that_have_not_each_others_log_the_one_that_is_refused_is_told() {
    // The first node leads.
    let (text, problems) = told(&status(), &[(2, Estranged::OtherLog)]);
    assert!(text.contains("  node2.example: 160 blocks, REFUSED\n"), "{text}");
    assert!(problems[0].starts_with("node2.example is refused by node1.example, this node: "), "{problems:?}");
    // The second one says the same of itself, though it only ever heard from who leads.
    let second = NodeStatus { node: node(2), ..status() };
    let (text, problems) = told(&second, &[(1, Estranged::OtherLog)]);
    assert!(
        text.contains("  node2.example: 160 blocks, REFUSED\n") && !text.contains("node1.example: 160 blocks, "),
        "{text}"
    );
    assert!(problems[0].starts_with("node2.example, this node, is refused by node1.example: "), "{problems:?}");
    assert_eq!(problems.len(), 1);
    // So does one with an empty disk, which did not even hear from who leads.
    let mut empty = second;
    empty.groups.as_mut().unwrap()[0].nodes[1].applied = None;
    let (_, problems) = told(&empty, &[(3, Estranged::OtherLog)]);
    assert!(problems[1].starts_with("node2.example, this node, is refused by node3.example: "), "{problems:?}");
    let (_, problems) = told(&status(), &[(3, Estranged::Denied)]);
    assert!(problems[0].contains("node3.example is refused") && problems[0].contains("denies"), "{problems:?}");
    // Where nobody leads, it may be either.
    let mut nobody = status();
    nobody.groups.as_mut().unwrap().iter_mut().for_each(|group| group.leader = None);
    let (_, problems) = told(&nobody, &[(2, Estranged::OtherLog)]);
    assert!(problems[1].contains("this node, and node2.example refuse each other"), "{problems:?}");
    // Who has no part in anything is not waited for.
    assert_eq!(told(&status(), &[(9, Estranged::OtherLog)]).1, Vec::<String>::new());
}

#[test]
fn blocks_are_counted_since_the_log_was_restored_and_a_log_of_before_shows() {
    let mut status = status();
    for group in status.groups.as_mut().unwrap() {
        group.nodes.iter_mut().for_each(|node| node.applied = Some((1 << 40) + 4));
        group.nodes[1].applied = Some(26);
    }
    let (text, _) = told(&status, &[]);
    assert!(text.contains("  node1.example: 64 blocks\n"), "{text}");
    assert!(text.contains("  node2.example: 416 blocks of a log before the one that was restored\n"), "{text}");
}

#[test]
fn what_is_kept_of_shards_that_moved_away_is_one_line() {
    let kept = |shard| MovedStatus { shard, leaves: 7, why: format!("kept: node {} has it", node(2)) };
    let status = NodeStatus { moved: Some((0..16).map(kept).collect()), ..status() };
    let (text, _) = told(&status, &[]);
    let wanted = "here is what was shards 0–15 before it moved away: 112 leaves; kept: node node2.example has it\n";
    assert!(text.ends_with(wanted), "{text}");
}
