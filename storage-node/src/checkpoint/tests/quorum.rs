//! Who counts, whose clock, and how sizes meet.

use std::collections::BTreeMap;
use std::time::Duration;

use ehe::checkpoint::VerifiedCheckpoint;

use super::super::News;
use super::alliance::alliance;
use super::cluster::{Cluster, Crash};

#[test]
fn a_node_alone_shows_its_checkpoint_in_the_round_in_which_it_applied_and_says_nothing_to_nobody() {
    let mut one = Cluster::new(alliance("A", None), 1);
    one.leader = None;
    for size in [1, 2, 7] {
        one.commit(size);
        assert_eq!(one.shown(), [size]);
    }
    assert!(one.sent.is_empty());
    one.pass(Duration::from_secs(59));
    assert_eq!(one.peers[0].again, 0);
    one.pass(Duration::from_secs(2));
    assert_eq!(one.peers[0].again, 1, "quiet shards are cosigned every minute");
}

#[test]
fn three_members_show_the_leaders_size_once_two_of_them_cosigned_it() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.cut.extend([three.peers[1].who.id, three.peers[2].who.id]);
    three.commit(3);
    three.pass_ms(500);
    assert_eq!(three.shown(), [0, 0, 0], "nothing is shown below the quorum");
    three.cut.remove(&three.peers[1].who.id.clone());
    three.pass_ms(5000);
    assert_eq!(three.shown(), [3, 3, 0]);
    three.cut.clear();
    three.pass_ms(5000);
    assert_eq!(three.shown(), [3, 3, 3]);
    let quiet = three.sent["cosignature"];
    three.pass_ms(20_000);
    assert_eq!(three.sent["cosignature"], quiet, "nothing is said where nothing happens");
}

#[test]
fn nodes_of_one_member_are_one_voice_and_the_charter_may_ask_for_more() {
    let mut two_of_a = Cluster::new(alliance("AAB", None), 1);
    two_of_a.cut.insert(two_of_a.peers[2].who.id);
    two_of_a.commit(1);
    two_of_a.pass_ms(10_000);
    assert_eq!(two_of_a.shown(), [0, 0, 0], "A alone is no majority of A and B, however many nodes it has");
    two_of_a.cut.clear();
    two_of_a.pass_ms(5000);
    assert_eq!(two_of_a.shown(), [1, 1, 1]);

    let mut all = Cluster::new(alliance("ABC", Some(3)), 1);
    all.cut.insert(all.peers[2].who.id);
    all.commit(1);
    all.pass_ms(10_000);
    assert_eq!(all.shown(), [0, 0, 0]);
    all.cut.clear();
    all.pass_ms(5000);
    assert_eq!(all.shown(), [1, 1, 1]);
    assert_eq!(all.peers[0].published.as_ref().unwrap().cosigners.len(), 3);
}

#[test]
fn replicas_at_different_speeds_meet_at_the_sizes_that_the_leader_named_and_wishes_are_bounded() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.delay_ms = 4;
    // The third node is needed for nothing, and applies 40 blocks late; then the second does.
    for slow in [2, 1] {
        let begin = three.logs[0].size();
        for block in 0..1500 {
            let size = three.logs[0].size() + 1;
            three.logs[0].grow(size, "agreed");
            for n in 0..3 {
                let lag = if n == slow { 40 } else { u64::try_from(n).unwrap() };
                three.apply(n, size.saturating_sub(lag).max(three.peers[n].applied));
            }
            three.pass_ms(1);
            let size = three.logs[0].size();
            assert!(block < 100 || three.shown()[0] + 100 > size, "{:?} of {size}", three.shown());
        }
        let blocks = three.logs[0].size() - begin;
        let wishes = std::mem::take(three.sent.get_mut("wish").unwrap());
        assert!(wishes <= blocks * 2, "{wishes} wishes to two peers for {blocks} blocks of a millisecond each");
        assert!(three.shown()[slow] + 3000 > three.logs[0].size(), "{:?}", three.shown());
    }
    three.commit(three.logs[0].size());
    three.pass_ms(5000);
    assert_eq!(three.shown(), [three.logs[0].size(); 3]);
}

#[test]
fn of_blocks_that_follow_closely_only_whoever_asks_is_told_at_once_and_the_others_of_the_newest_soon_after() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.commit(1);
    three.pass_ms(100);
    assert_eq!(three.shown(), [1; 3], "a block that comes alone is everybody's at once");
    three.pass_ms(1000);
    let before = three.sent["cosignature"];
    for size in 2..=201 {
        three.commit(size);
        three.pass_ms(5);
        assert_eq!(three.shown()[0], size, "the leader's receipts wait for nothing");
        assert!(three.shown().iter().all(|shown| shown + 45 > size), "{:?} of {size}", three.shown());
    }
    let said = three.sent["cosignature"] - before;
    // Two answers a block, and five times in that second each node's word to both others.
    assert!((400..=440).contains(&said), "{said} cosignatures for 200 blocks");
    three.pass_ms(250);
    assert_eq!(three.shown(), [201; 3], "and when no more follow, the last one");
}

#[test]
fn a_node_at_which_somebody_waits_for_a_checkpoint_asks_for_it_whoever_leads() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    let wants = |three: &mut Cluster, size| {
        three.round(2, News { wanted: BTreeMap::from([(0, size)]), ..News::default() }, Crash::No);
    };
    three.commit(1);
    three.pass_ms(50);
    three.commit(2);
    three.pass_ms(10);
    assert_eq!(three.shown(), [2, 1, 1], "they were told a moment ago");
    wants(&mut three, 2);
    three.pass_ms(10);
    assert_eq!(three.shown(), [2, 1, 2]);
    // What is asked for while an earlier size is on its way is asked for when that one has come.
    three.commit(3);
    wants(&mut three, 3);
    three.commit(4);
    wants(&mut three, 4);
    three.pass_ms(15);
    assert_eq!(three.shown(), [4, 1, 4]);
    // What is not applied yet is asked for once it is.
    wants(&mut three, 5);
    let before = three.sent["wish"];
    three.pass_ms(15);
    assert_eq!((three.shown(), three.sent["wish"]), (vec![4, 1, 4], before));
    three.commit(5);
    three.pass_ms(15);
    assert_eq!(three.shown(), [5, 1, 5]);
}

#[test]
fn who_has_applied_a_block_cosigns_it_before_the_leader_asks_and_a_wrong_guess_costs_one_cosignature() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    for size in 1..=10 {
        three.commit(size);
        three.pass_ms(50);
    }
    let said = |three: &Cluster| three.sent["cosignature"];
    // All are told at once again, and the leader has heard a moment ago that the clocks agree.
    three.pass_ms(380);
    let shows = |three: &Cluster, node: usize| three.shown()[node];
    // The others have applied, and their words are on their way; the leader has not.
    three.logs[0].grow(11, "agreed");
    (1..3).for_each(|node| three.apply(node, 11));
    three.pass_ms(10);
    assert_eq!(shows(&three, 0), 10, "nobody ordered it yet");
    let before = said(&three);
    three.apply(0, 11);
    assert_eq!(shows(&three, 0), 11, "in the round in which the leader signs");
    three.pass_ms(20);
    assert_eq!(said(&three), before + 2, "its own to the others: its wish needs no answer");
    three.pass_ms(250);
    assert_eq!(three.shown(), [11; 3]);

    // The leader comes to 13 before it names anything: a guess of 12 was wrong, and no other is made until one would be right.
    three.logs[0].grow(13, "agreed");
    let before = said(&three);
    (1..3).for_each(|node| three.apply(node, 12));
    assert!(said(&three) > before);
    three.apply(0, 13);
    three.pass_ms(10);
    (1..3).for_each(|node| three.apply(node, 13));
    three.pass_ms(500);
    assert_eq!(three.shown(), [13; 3]);
    let before = said(&three);
    three.logs[0].grow(14, "agreed");
    (1..3).for_each(|node| three.apply(node, 14));
    assert_eq!(said(&three), before, "they wait to be asked");
}

#[test]
fn a_new_leader_finishes_what_the_old_one_left() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.commit(2);
    three.pass_ms(100);
    three.cut.insert(three.peers[0].who.id);
    three.leader = None;
    three.commit(5);
    three.pass_ms(3000);
    assert_eq!(three.shown(), [2, 2, 2], "without an ordering party nothing stands");
    three.leader = Some(1);
    three.pass_ms(6000);
    assert_eq!(three.shown(), [2, 5, 5]);
}

#[test]
fn a_quiet_shard_is_cosigned_again_every_minute_with_new_times_on_every_line() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.commit(4);
    three.pass_ms(1000);
    let times = |three: &Cluster| {
        let note = &three.peers[1].published.as_ref().unwrap().note;
        let it = VerifiedCheckpoint::verify(note, 0, &three.peers[1].who.charter).unwrap();
        it.cosigners().iter().map(|(_, at)| at.0).collect::<Vec<_>>()
    };
    let before = times(&three);
    three.pass_ms(62_000);
    assert_eq!(three.peers.iter().map(|peer| peer.again).collect::<Vec<_>>(), [1, 1, 1]);
    let newest = before.iter().max().unwrap();
    assert!(times(&three).iter().all(|at| *at >= newest + 58_000), "{:?} after {before:?}", times(&three));
}

#[test]
fn a_leader_whose_clock_a_majority_contradicts_gets_no_cosignature_and_is_told_that_it_may_not_order() {
    for off in [120_000, -120_000] {
        let mut three = Cluster::new(alliance("ABC", None), 1);
        three.commit(1);
        three.pass_ms(100);
        three.peers[0].clock_ms = off;
        three.commit(2);
        three.pass_ms(5000);
        assert_eq!(three.shown(), [1, 1, 1]);
        assert_eq!(three.peers.iter().map(|peer| peer.may_order).collect::<Vec<_>>(), [false, true, true]);
        three.peers[0].clock_ms = 59_000;
        three.pass_ms(9000);
        assert_eq!(three.shown(), [2, 2, 2]);
        assert!(three.peers[0].may_order, "it was corrected");
    }
}

#[test]
fn one_of_three_whose_clock_is_wrong_stops_nobody() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.peers[2].clock_ms = 7_200_000;
    three.commit(2);
    three.pass_ms(5000);
    assert_eq!(three.shown(), [2, 2, 0], "by its clock it cannot tell what is new");
    assert_eq!(three.peers.iter().map(|peer| peer.may_order).collect::<Vec<_>>(), [true, true, false]);
    three.peers[2].clock_ms = 0;
    three.pass_ms(9000);
    assert_eq!(three.shown(), [2, 2, 2], "it was corrected");
    assert!(three.peers[2].may_order);
}

#[test]
fn a_ledger_whose_time_is_ahead_is_cosigned_by_nobody_until_clocks_have_come_to_it() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.ledger_ahead_ms = 90_000;
    three.commit(2);
    three.pass_ms(25_000);
    assert_eq!(three.shown(), [0, 0, 0]);
    three.pass_ms(20_000);
    assert_eq!(three.shown(), [2, 2, 2]);
    // Alone there is no other clock: what is there is confirmed.
    let mut one = Cluster::new(alliance("A", None), 1);
    one.ledger_ahead_ms = 90_000;
    one.commit(2);
    assert_eq!(one.shown(), [2]);
}
