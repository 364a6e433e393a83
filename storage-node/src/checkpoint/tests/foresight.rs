//! What is cosigned before it is wished for is held to the rules of what is wished for, and hides nothing.

use std::collections::BTreeMap;

use ehe::checkpoint::Checkpoint;
use ehe::id::Hash;
use ehe::time::UnixMs;

use super::super::News;
use super::super::message::{Cosignature, Message, Point, Wish};
use super::alliance::{Log, alliance};
use super::cluster::{Cluster, Crash};
use super::evidence::cosigned;
use super::moving::{self, in_effect};
use crate::test_charters::Alliance;

fn said(cluster: &Cluster) -> u64 {
    cluster.sent["cosignature"]
}

/// The leader named the end of each block so far, and nobody was told anything lately.
fn foreseeing(members: &str) -> Cluster {
    let mut cluster = Cluster::new(alliance(members, None), 1);
    for size in 1..=3 {
        cluster.commit(size);
        cluster.pass_ms(300);
    }
    cluster.logs[0].grow(9, "agreed");
    cluster
}

/// The leader names sizes that the others did not foresee; all show 3, and nobody was told anything lately.
fn not_foreseeing(members: &str) -> Cluster {
    let mut cluster = Cluster::new(alliance(members, None), 1);
    cluster.commit(1);
    cluster.pass_ms(300);
    cluster.logs[0].grow(3, "agreed");
    (1..members.len()).for_each(|node| cluster.apply(node, 2));
    cluster.apply(0, 3);
    cluster.pass_ms(10);
    (1..members.len()).for_each(|node| cluster.apply(node, 3));
    cluster.pass_ms(1500);
    assert_eq!(cluster.shown(), vec![3; members.len()]);
    cluster
}

#[test]
fn nothing_is_cosigned_before_it_is_wished_for_by_a_clock_that_the_ledgers_contradicts() {
    let mut three = foreseeing("ABC");
    let before = said(&three);
    three.apply(1, 4);
    assert!(said(&three) > before, "by a clock that agrees");
    for off in [120_000, -120_000] {
        let mut three = foreseeing("ABC");
        three.peers[1].clock_ms = off;
        let before = said(&three);
        three.apply(1, 4);
        assert_eq!(said(&three), before, "its clock is off by {off} ms");
        three.peers[1].clock_ms = 0;
        three.apply(1, 5);
        assert!(said(&three) > before, "it was corrected");
    }
}

#[test]
fn a_leader_whose_wish_was_refused_is_waited_for_and_a_refused_wish_of_another_node_changes_nothing() {
    for (wisher, guesses) in [(0, false), (2, true)] {
        let mut three = foreseeing("ABC");
        let point = Point { shard: 0, charter: 1, incarnation: 0, size: 3, root: three.logs[0].root(3) };
        let at = UnixMs(three.wall().0 - 120_000);
        let from = three.peers[wisher].who.id;
        three.say(1, from, Message::Wish(Wish { point, at }).to_vec());
        let before = said(&three);
        three.apply(1, 4);
        assert_eq!(said(&three) > before, guesses);
    }
}

#[test]
fn a_guess_under_an_earlier_charter_is_no_answer_to_a_wish_under_a_later_one() {
    let alliance = Alliance::of(3);
    let chain = alliance.chain(&[&[1, 2, 3], &[1, 2, 3]]);
    let mut three = moving::cluster(&alliance, &chain[0]);
    for size in 1..=3 {
        three.commit(size);
        three.pass_ms(300);
    }
    three.logs[0].grow(4, "agreed");
    let before = said(&three);
    (1..3).for_each(|n| three.apply(n, 4));
    assert!(said(&three) > before, "a guess");
    (0..3).for_each(|n| three.under(n, in_effect(&chain, 2, true)));
    three.apply(0, 4);
    three.pass_ms(300);
    let versions: Vec<_> = three.peers.iter().map(|it| it.published.as_ref().unwrap().charter_version).collect();
    assert_eq!((three.shown(), versions), (vec![4; 3], vec![2; 3]));
}

#[test]
fn a_guess_that_was_lost_is_made_good_when_the_leader_asks_again() {
    let mut three = foreseeing("ABC");
    let [second, third] = [1, 2].map(|n| three.peers[n].who.id);
    three.cut.extend([second, third]);
    three.apply(1, 4);
    three.cut.remove(&second);
    three.apply(0, 4);
    three.pass_ms(1100);
    assert_eq!(three.shown()[0], 4);
}

#[test]
fn what_others_have_shown_already_is_not_guessed() {
    let mut three = foreseeing("ABC");
    let [leader, second, third] = [0, 1, 2].map(|n| three.peers[n].who.id);
    three.cut.extend([leader, second, third]);
    three.apply(1, 4);
    three.apply(1, 5);
    let (order, root) = (ordered(&three, 0, 5), three.logs[0].root(5));
    three.say(1, leader, order);
    let word = cosigned(&three, 2, 5, root);
    three.say(1, third, Message::Cosignature(word).to_vec());
    three.pass_ms(10);
    assert_eq!(three.shown()[1], 5, "it was remembered, and not signed");
    // The wish that the guess was for, late on its way: guesses were right.
    let point = Point { shard: 0, charter: 1, incarnation: 0, size: 4, root: three.logs[0].root(4) };
    three.say(1, leader, Message::Wish(Wish { point, at: three.wall() }).to_vec());
    three.pass_ms(300);
    let mut said = three.undelivered.iter().filter(|(from, ..)| *from == second);
    assert!(!said.any(|(_, _, it)| matches!(it, Message::Cosignature(it) if it.point.size == 5)));
}

#[test]
fn who_answered_another_node_first_tells_all_when_the_leader_asks() {
    let mut seven = not_foreseeing("ABCDEFG");
    seven.logs[0].grow(4, "agreed");
    // Somebody waits at the seventh node, which asks before the leader does.
    seven.round(6, News { wanted: BTreeMap::from([(0, 4)]), ..News::default() }, Crash::No);
    (1..7).for_each(|node| seven.apply(node, 4));
    seven.pass_ms(10);
    seven.apply(0, 4);
    seven.pass_ms(300);
    assert_eq!(seven.shown(), [4; 7]);
}

/// The leader's word and order for what is the log of a node.
fn ordered(cluster: &Cluster, log: usize, size: u64) -> Vec<u8> {
    let root = cluster.logs[log].root(size);
    let who = &cluster.peers[0].who;
    let checkpoint = Checkpoint { origin: who.charter.origin(0, 0), size, root, charter_version: 1 };
    let order = checkpoint.unsigned().unwrap().sign(&checkpoint.origin, who.identity.sign_key()).into();
    Message::Cosignature(Cosignature { order: Some(order), ..cosigned(cluster, 0, size, root) }).to_vec()
}

#[test]
fn a_leader_that_names_wrong_roots_does_not_keep_its_two_logs_from_the_others_sight() {
    for then_the_right_one in [false, true] {
        let mut three = not_foreseeing("ABC");
        let leader = three.peers[0].who.id;
        three.peers[0].liar = true;
        three.cut.insert(leader);
        let mut forged = Log::of(3, "agreed");
        forged.grow(8, "forged");
        three.logs.push(forged);
        three.logs[0].grow(8, "agreed");
        three.peers[2].log = 1;
        for (node, log) in [(1, 0), (2, 1)] {
            three.apply(node, 8);
            let roots = [Hash([7; 32]), three.logs[log].root(8)];
            for root in roots.into_iter().take(1 + usize::from(then_the_right_one)) {
                let point = Point { shard: 0, charter: 1, incarnation: 0, size: 8, root };
                three.say(node, leader, Message::Wish(Wish { point, at: three.wall() }).to_vec());
            }
            let word = ordered(&three, log, 8);
            three.say(node, leader, word);
        }
        assert_eq!(three.shown()[1..], [8, 8], "two checkpoints of one size");
        three.pass_ms(11_000);
        for node in [1, 2] {
            assert!(!three.peers[node].evidence.is_empty(), "node {node} knows only one of the two");
        }
    }
}

#[test]
fn nor_does_a_leader_that_has_another_liar_ask() {
    let mut five = not_foreseeing("ABCDE");
    let [leader, other, late] = [0, 4, 3].map(|n| five.peers[n].who.id);
    (five.peers[0].liar, five.peers[4].liar) = (true, true);
    five.cut.extend([leader, other, late]);
    let mut forged = Log::of(3, "agreed");
    forged.grow(8, "forged");
    five.logs.push(forged);
    five.logs[0].grow(8, "agreed");
    five.peers[2].log = 1;
    for (node, log) in [(1, 0), (2, 1)] {
        five.apply(node, 8);
        let root = five.logs[log].root(8);
        let point = Point { shard: 0, charter: 1, incarnation: 0, size: 8, root };
        five.say(node, other, Message::Wish(Wish { point, at: five.wall() }).to_vec());
        let (order, word) = (ordered(&five, log, 8), Message::Cosignature(cosigned(&five, 4, 8, root)).to_vec());
        five.say(node, leader, order);
        five.say(node, other, word);
    }
    assert_eq!(five.shown()[1..3], [8, 8], "two checkpoints of one size");
    five.pass_ms(11_000);
    for node in [1, 2] {
        assert!(!five.peers[node].evidence.is_empty(), "node {node} knows only one of the two");
    }
}
