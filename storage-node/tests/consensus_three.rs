//! Groups of several nodes: elections, partitions, catching up, growing, and peers that are not who they were.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use ehe_node::consensus::{Apart, Bootstrap, Estranged, NodeId, Purpose, Role};

mod api {
    pub use ehe_node::consensus::{
        AppliedMeta, Command, Latch, Latched, Machine, MachineError, Position, Stage, Stager, Vetting,
    };
}
#[path = "support/disk.rs"]
mod disk;
#[path = "support/hub.rs"]
mod hub;
#[path = "support/journal.rs"]
mod journal;
#[path = "support/node.rs"]
mod node;
#[path = "support/three.rs"]
mod three;

use node::{LIMIT, id, propose};
use three::{Several, Writer, merged, until, voters};

const ALL: [u64; 3] = [1, 2, 3];

fn others(of: u64) -> [u64; 2] {
    let others: Vec<u64> = ALL.into_iter().filter(|id| *id != of).collect();
    [others[0], others[1]]
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_elect_one_leader_for_each_group_and_agree() {
    let mut three = Several::new(&ALL, 3);
    three.open_all().await;
    let mut acknowledged = Vec::new();
    for group in 0..3 {
        let leader = three.leader(group, &ALL).await;
        let status = three.status(leader, group);
        assert_eq!(status.voters, voters(&ALL));
        assert!(status.learners.is_empty() && !status.changing);
        let writers = (0..4).map(|n| Writer::start(&three, group, n * 1_000_000, 0)).collect::<Vec<_>>();
        writers[0].more(100).await;
        let mut all = Vec::new();
        for writer in writers {
            all.push(writer.stop().await);
        }
        acknowledged.push(merged(all));
        let last = three.status(leader, group).last_index;
        until("copies everywhere", || {
            let matched = three.status(leader, group).matched;
            (matched.keys().copied().collect::<BTreeSet<_>>() == voters(&ALL)
                && matched.values().all(|index| *index >= last))
            .then_some(())
        })
        .await;
    }
    for (group, acknowledged) in acknowledged.iter().enumerate() {
        three.level(group, &ALL).await;
        assert!(acknowledged.len() >= 100);
    }
    three.agree(0, &acknowledged[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut three = Several::new(&ALL, 1);
    three.open_all().await;
    let mut acknowledged = Vec::new();
    for round in 0..4_u64 {
        let leader = three.leader(0, &ALL).await;
        let writers = (0..4).map(|n| Writer::start(&three, 0, (round * 10 + n) * 1_000_000, 0)).collect::<Vec<_>>();
        writers[0].more(30).await;
        three.kill(leader);
        writers.iter().for_each(|writer| writer.now(&three));
        writers[0].more(30).await;
        three.open(leader).await;
        writers.iter().for_each(|writer| writer.now(&three));
        writers[0].more(10).await;
        for writer in writers {
            acknowledged.push(writer.stop().await);
        }
    }
    three.agree(0, &merged(acknowledged)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_follows_when_it_is_back() {
    let mut three = Several::new(&ALL, 1);
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let term = three.status(leader, 0).term;
    three.hub.cut(&[leader], &others(leader));
    let lonely = three.up[&leader].clone();
    let lost = tokio::spawn(async move { lonely.propose(id(0), node::command(0, 77)).await });
    let writer = Writer::start(&three, 0, 1_000_000, 0);
    let new = three.leader(0, &others(leader)).await;
    writer.more(50).await;
    assert!(three.status(new, 0).term > term);
    three.hub.heal();
    assert!(lost.await.unwrap().is_err(), "no majority had it");
    three.leader(0, &ALL).await;
    let acknowledged = writer.stop().await;
    three.agree(0, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_cut_off_does_not_unseat_the_leader_when_it_is_back() {
    let mut three = Several::new(&ALL, 1);
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let term = three.status(leader, 0).term;
    let [follower, _] = others(leader);
    three.hub.cut(&[follower], &others(follower));
    let writer = Writer::start(&three, 0, 0, 0);
    let asked = three.hub.tried(follower, Purpose::Request);
    until("it wants to be elected", || (three.hub.tried(follower, Purpose::Request) > asked + 4).then_some(())).await;
    writer.more(50).await;
    three.hub.heal();
    until("it follows", || (three.status(follower, 0).leader == Some(NodeId(leader))).then_some(())).await;
    assert_eq!(three.status(leader, 0).term, term, "a candidate that cannot win asks before it counts up");
    let acknowledged = writer.stop().await;
    three.agree(0, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direction_that_is_cut_in_any_pair_loses_nothing_and_writes_go_on() {
    for way in 0..3 {
        let mut three = Several::new(&ALL, 1);
        three.open_all().await;
        let leader = three.leader(0, &ALL).await;
        let [follower, other] = others(leader);
        let writer = Writer::start(&three, 0, 0, 0);
        writer.more(10).await;
        match way {
            0 => three.hub.cut_one_way(leader, follower),
            1 => three.hub.cut_one_way(follower, leader),
            _ => {
                // It hears everything and nobody hears it: another must lead, and it must learn that.
                three.hub.cut_one_way(leader, follower);
                three.hub.cut_one_way(leader, other);
            }
        }
        if way == 2 {
            three.leader(0, &[follower, other]).await;
        }
        writer.more(100).await;
        three.hub.heal();
        three.leader(0, &ALL).await;
        writer.more(10).await;
        let acknowledged = writer.stop().await;
        three.agree(0, &acknowledged).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_goes_on_from_the_log_while_the_leader_keeps_it() {
    let mut three = Several::new(&ALL, 1);
    for node in three.nodes.values_mut() {
        node.config.durable_after_bytes = 4000;
        node.config.compact_after_entries = 50;
        node.config.keep_entries = 0;
    }
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let [follower, _] = others(leader);
    three.kill(follower);
    let writer = Writer::start(&three, 0, 0, 100);
    writer.more(500).await;
    let missing = three.status(leader, 0).matched[&NodeId(follower)];
    assert!(three.status(leader, 0).purged <= missing, "it is kept for who is away");
    three.open(follower).await;
    writer.now(&three);
    writer.more(50).await;
    let acknowledged = writer.stop().await;
    three.level(0, &ALL).await;
    assert_eq!(three.hub.opened(Purpose::Snapshot), 0);
    until("and then it goes", || (three.status(leader, 0).purged > Some(100)).then_some(())).await;
    three.agree(0, &acknowledged).await;
}

/// Past the limit the log goes, and the follower gets one snapshot, though writes go on all the while.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_too_long_gets_one_snapshot_while_writes_go_on() {
    let mut three = Several::new(&ALL, 1);
    for node in three.nodes.values_mut() {
        node.config.durable_after_bytes = 4000;
        node.config.compact_after_entries = 50;
        node.config.keep_entries = 0;
        node.config.log_hold_bytes = 12 << 20;
    }
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let [follower, _] = others(leader);
    three.kill(follower);
    let writer = Writer::start(&three, 0, 0, 50_000);
    until("the log is not kept for ever", || (three.status(leader, 0).purged > Some(60)).then_some(())).await;
    three.open(follower).await;
    writer.now(&three);
    let probe = three.nodes[&follower].probes[0].clone();
    until("a snapshot", || (probe.adopted.load(Ordering::SeqCst) > 0).then_some(())).await;
    writer.more(100).await;
    until("it keeps up", || {
        let status = three.status(leader, 0);
        (status.matched[&NodeId(follower)].unwrap_or(0) + 50 > status.last_index.unwrap()).then_some(())
    })
    .await;
    let acknowledged = writer.stop().await;
    assert_eq!(probe.adopted.load(Ordering::SeqCst), 1);
    assert_eq!(three.hub.opened(Purpose::Snapshot), 1);
    three.agree(0, &acknowledged).await;
}

/// While a follower installs, it answers nothing; the leader does without it, and it does not stand for election.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_installation_holds_nobody_up_and_changes_no_leader() {
    let mut three = Several::new(&ALL, 1);
    for node in three.nodes.values_mut() {
        node.config.durable_after_bytes = 4000;
        node.config.compact_after_entries = 50;
        node.config.keep_entries = 0;
        node.config.log_hold_bytes = 0;
    }
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let term = three.status(leader, 0).term;
    let [follower, _] = others(leader);
    three.kill(follower);
    let writer = Writer::start(&three, 0, 0, 100);
    until("the log is short", || (three.status(leader, 0).purged > Some(100)).then_some(())).await;

    let probe = three.nodes[&follower].probes[0].clone();
    let (held, release) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let holder = {
        let probe = probe.clone();
        std::thread::spawn(move || {
            let hold = probe.hold_adopt.lock().unwrap();
            held.0.send(()).unwrap();
            release.1.recv().unwrap();
            drop(hold);
        })
    };
    held.1.recv().unwrap();
    three.open(follower).await;
    until("it is being installed", || (probe.staged.load(Ordering::SeqCst) > 0).then_some(())).await;
    // Longer than any election timeout, measured by what is written meanwhile and by the clock of the elections.
    let since = std::time::Instant::now();
    while since.elapsed() < 3 * three::TIMING.election_max {
        writer.more(10).await;
    }
    assert_eq!(probe.adopted.load(Ordering::SeqCst), 0);
    assert_eq!(three.status(leader, 0).term, term);
    assert_eq!(three.status(follower, 0).leader, Some(NodeId(leader)));
    release.0.send(()).unwrap();
    holder.join().unwrap();
    until("installed", || (probe.adopted.load(Ordering::SeqCst) > 0).then_some(())).await;
    let acknowledged = writer.stop().await;
    assert_eq!(three.status(leader, 0).term, term);
    three.agree(0, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_grows_from_one_voter_to_three_and_back_while_it_is_written_to() {
    let mut several = Several::new(&[1], 1);
    several.add(2, 1, Bootstrap::Wait);
    several.add(3, 1, Bootstrap::Wait);
    several.open(1).await;
    let first = several.up[&1].clone();
    propose(&first, 1, 0..500).await;
    assert!(Purpose::Append.priority() < Purpose::Beat.priority());
    for purpose in [Purpose::Append, Purpose::Beat, Purpose::Request, Purpose::Snapshot] {
        assert_eq!(several.hub.opened(purpose), 0, "a node alone asks nobody");
    }
    several.open(2).await;
    several.open(3).await;
    let writer = Writer::start(&several, 0, 1_000_000, 0);
    writer.more(20).await;
    for id_of in [2, 3] {
        first.add_learner(id(0), NodeId(id_of)).await.unwrap();
    }
    assert_eq!(several.status(1, 0).learners, voters(&[2, 3]));
    until("they have the log", || {
        let status = several.status(1, 0);
        let near =
            |id: u64| status.matched.get(&NodeId(id)).copied().flatten().unwrap_or(0) + 64 > status.last_index.unwrap();
        (near(2) && near(3)).then_some(())
    })
    .await;
    first.change_voters(id(0), &voters(&ALL)).await.unwrap();
    writer.more(20).await;
    assert_eq!(several.status(1, 0).voters, voters(&ALL));

    // The first may go now, and nothing stops.
    several.kill(1);
    writer.now(&several);
    writer.more(20).await;
    several.open(1).await;
    writer.now(&several);
    let leader = several.leader(0, &ALL).await;
    several.up[&leader].transfer_leader(id(0), NodeId(1)).await.unwrap();
    until("it leads again", || several.up[&1].is_leader(id(0)).then_some(())).await;
    // To hand over to oneself is to go on: openraft alone would take nothing more.
    several.up[&1].transfer_leader(id(0), NodeId(1)).await.unwrap();
    writer.more(20).await;
    let first = several.up[&1].clone();
    until("it may change members", || several.status(1, 0).ready().then_some(())).await;
    first.change_voters(id(0), &voters(&[1])).await.unwrap();
    assert_eq!(several.status(1, 0).voters, voters(&[1]));
    for id in [2, 3] {
        several.hub.kill(id);
        several.up.remove(&id).unwrap().shutdown().await.unwrap();
    }
    writer.now(&several);
    writer.more(20).await;
    let acknowledged = writer.stop().await;
    several.agree(0, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_anywhere_learns_up_to_where_it_must_have_applied() {
    let mut three = Several::new(&ALL, 1);
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let writer = Writer::start(&three, 0, 0, 0);
    for _ in 0..20 {
        writer.more(1).await;
        for node in ALL {
            let before = three.status(leader, 0).applied.unwrap().index;
            let read = three.up[&node].read_index(id(0), LIMIT).await.unwrap();
            assert!(read.index >= before);
            // Asked of the machine itself. Entries that are no commands: the first, and one of each term.
            let applied = three.nodes[&node].probes[0].applied.load(Ordering::SeqCst);
            assert!(applied + 1 + read.term > read.index, "{applied} are applied, {read} had to be");
        }
    }
    drop(writer.stop().await);
    three.hub.cut(&[leader], &others(leader));
    let limit = Duration::from_secs(3);
    assert!(three.up[&leader].read_index(id(0), limit).await.is_err(), "it cannot know whether it still leads");
    three.close(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_log_is_refused_for_good_under_its_old_number() {
    let mut three = Several::new(&ALL, 1);
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let [wiped, other] = others(leader);
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(20).await;
    three.level_soon(&[leader, wiped, other]).await;
    three.kill(wiped);
    three.add(wiped, 1, Bootstrap::Wait);
    three.open(wiped).await;
    writer.now(&three);
    writer.more(100).await;
    assert_eq!(three.status(wiped, 0).last_index, None, "it is given nothing");
    // Both know it, for whoever asks them how they are; the leader talks to the other one.
    let knows = |node: u64| three.up[&node].estranged();
    until("both know", || (!knows(leader).is_empty() && !knows(wiped).is_empty()).then_some(())).await;
    assert_eq!(knows(leader), [(NodeId(wiped), Estranged::OtherLog)].into());
    assert_eq!(knows(wiped)[&NodeId(leader)], Estranged::OtherLog);
    let (of_it, of_the_leader) = (&three.up[&leader], &three.up[&wiped]);
    until("each side knows who refuses whom", || {
        let knows = of_it.apart(NodeId(wiped)).contains_key(&Apart::OtherLogThere);
        (knows && of_the_leader.apart(NodeId(leader)).contains_key(&Apart::OtherLogHere)).then_some(())
    })
    .await;
    assert!(of_it.apart(NodeId(other)).is_empty() && !of_it.apart(NodeId(wiped)).contains_key(&Apart::OtherLogHere));
    assert_eq!(three.status(leader, 0).term, three.status(other, 0).term);

    // And by those that are started anew as well.
    let term = three.status(leader, 0).term;
    three.kill(other);
    writer.now(&three);
    three.kill(leader);
    three.open(leader).await;
    three.open(other).await;
    writer.now(&three);
    let new = three.leader(0, &[leader, other]).await;
    assert!(three.status(new, 0).term > term);
    writer.more(50).await;
    assert_eq!(three.status(wiped, 0).last_index, None);
    assert_eq!(three.status(wiped, 0).term, 0, "it is not even asked for a vote");
    let acknowledged = writer.stop().await;
    three.hub.kill(wiped);
    three.up.remove(&wiped).unwrap().shutdown().await.unwrap();
    three.agree(0, &acknowledged).await;
}

/// Log and state of one moment, put back later: the uid is right. What it confirmed since, it denies.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disks_went_back_is_refused_by_the_leader_that_it_had_confirmed_to() {
    let mut three = Several::new(&ALL, 1);
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let [back, other] = others(leader);
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(20).await;
    three.kill(back);
    let older = three.nodes[&back].copy();
    let before = three.status(leader, 0).last_index;
    three.open(back).await;
    writer.more(50).await;
    until("it confirmed more", || (three.status(leader, 0).matched[&NodeId(back)] > before).then_some(())).await;
    three.kill(back);
    three.nodes.insert(back, older);
    let behind = three.open(back).await;
    writer.more(50).await;
    let refused = || three.up[&leader].estranged();
    until("it was found out", || (refused() == [(NodeId(back), Estranged::Denied)].into()).then_some(())).await;
    writer.more(50).await;
    assert!(three.status(leader, 0).last_index > before.map(|index| index + 60));
    assert!(behind.status(id(0)).unwrap().last_index <= before, "it is given nothing");
    until("the leader says why", || three.up[&leader].apart(NodeId(back)).contains_key(&Apart::Denied).then_some(()))
        .await;
    assert_eq!(three.status(leader, 0).role, Role::Leader);
    three.hub.kill(back);
    three.up.remove(&back).unwrap().shutdown().await.unwrap();
    let acknowledged = writer.stop().await;
    three.agree(0, &acknowledged).await;
    let _ = other;
}

/// Streams that break after any number of frames cost time and nothing else; no task is left of them.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_break_after_any_number_of_frames_lose_nothing_and_leave_no_task() {
    let mut three = Several::new(&ALL, 1);
    three.open_all().await;
    three.leader(0, &ALL).await;
    let writers = (0..8).map(|n| Writer::start(&three, 0, n * 1_000_000, 0)).collect::<Vec<_>>();
    writers[0].more(20).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for frames in [1, 2, 3, 4, 5, 7, 11, 50] {
        three.hub.sever_after(frames);
        // So that what is open now breaks as well.
        let leader = three.leader(0, &ALL).await;
        let [follower, _] = others(leader);
        three.kill(follower);
        three.open(follower).await;
        writers.iter().for_each(|writer| writer.now(&three));
        let before = three.hub.severed();
        until("streams break", || (three.hub.severed() > before + 20 || frames >= 50).then_some(())).await;
    }
    three.hub.sever_after(u64::MAX);
    writers[0].more(50).await;
    three.leader(0, &ALL).await;
    until("no task is left", || {
        (tokio::runtime::Handle::current().metrics().num_alive_tasks() <= tasks + 8).then_some(())
    })
    .await;
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.push(writer.stop().await);
    }
    three.agree(0, &merged(acknowledged)).await;
}
