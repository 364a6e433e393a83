//! Members that were away: what is kept of the log for them, and how many whole states it takes to bring them up.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

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

use std::sync::atomic::Ordering;

use ehe_node::consensus::{Bootstrap, GroupId, NodeId, Purpose};
use three::{Several, Writer, until};

const ALL: [u64; 3] = [1, 2, 3];

fn others(of: u64) -> [u64; 2] {
    let others: Vec<u64> = ALL.into_iter().filter(|id| *id != of).collect();
    [others[0], others[1]]
}

fn three(log_keep_bytes: u64, log_hold_bytes: u64) -> Several {
    let mut three = Several::new(&ALL, 1);
    shorten(&mut three, log_keep_bytes, log_hold_bytes);
    three
}

fn shorten(several: &mut Several, log_keep_bytes: u64, log_hold_bytes: u64) {
    for node in several.nodes.values_mut() {
        node.config.durable_after_bytes = 100_000;
        node.config.compact_after_bytes = 200_000;
        node.config.keep_entries = 0;
        node.config.log_keep_bytes = log_keep_bytes;
        node.config.log_hold_bytes = log_hold_bytes;
    }
}

/// What is written while it receives the state is more than is otherwise kept for who is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_for_a_hundred_mebibytes_gets_one_state_while_as_much_is_written_as_before() {
    const ENTRY_BYTES: usize = 200_000;
    const HOLD_BYTES: u64 = 12 << 20;
    const AWAY: u64 = (100 << 20) / ENTRY_BYTES as u64;
    const SENT_PER_S: u64 = 16 << 20;
    const WRITTEN_PER_S: u64 = (12 << 20) / ENTRY_BYTES as u64;
    let mut three = three(0, HOLD_BYTES);
    three.nodes.values_mut().for_each(|node| node.config.snapshot_bytes_per_s = SENT_PER_S);
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let [follower, _] = others(leader);
    three.kill(follower);
    let writer = Writer::start(&three, 0, 0, ENTRY_BYTES);
    writer.at_most(AWAY + 50);
    writer.more(AWAY).await;
    until("the log went", || (three.status(leader, 0).purged > Some(250)).then_some(())).await;
    let before = three.status(leader, 0).last_index.unwrap();
    three.open(follower).await;
    writer.now(&three);
    let (probe, since) = (three.nodes[&follower].probes[0].clone(), std::time::Instant::now());
    let mut may = 0;
    until("a state", || {
        // Less in a second than of the state is sent, at the most as much as before.
        let now = AWAY.min(u64::try_from(since.elapsed().as_millis()).unwrap() * WRITTEN_PER_S / 1000);
        writer.at_most_besides(now - may);
        may = now;
        (probe.adopted.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    let meanwhile = three.status(leader, 0).last_index.unwrap() - before;
    assert!(meanwhile * ENTRY_BYTES as u64 > HOLD_BYTES, "too little to tell: {meanwhile} entries");
    writer.at_most(200);
    writer.more(100).await;
    until("it keeps up", || {
        let status = three.status(leader, 0);
        (status.matched[&NodeId(follower)].unwrap_or(0) + 20 > status.last_index.unwrap()).then_some(())
    })
    .await;
    until("and then the log goes again", || {
        // It goes when something is written.
        writer.at_most(1);
        let status = three.status(leader, 0);
        (status.purged.unwrap() + 100 > status.last_index.unwrap()).then_some(())
    })
    .await;
    let acknowledged = writer.stop().await;
    assert_eq!(probe.adopted.load(Ordering::SeqCst), 1);
    assert_eq!(three.hub.opened(Purpose::Snapshot), 1);
    three.agree(0, &acknowledged).await;
}

/// Without it, nothing could be confirmed until the follower had the whole state.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_is_brought_up_from_the_log_by_whoever_leads_when_it_is_back() {
    let mut three = three(16 << 20, 64 << 20);
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let [follower, next] = others(leader);
    let writer = Writer::start(&three, 0, 0, 50_000);
    // More than what is kept, so that each of them has purged something.
    writer.more(400).await;
    three.kill(follower);
    writer.now(&three);
    writer.more(100).await;
    until("it is shortened", || (three.status(next, 0).purged > Some(20)).then_some(())).await;
    let acknowledged = writer.stop().await;
    three.kill(leader);
    three.open(follower).await;
    three.leader(0, &[follower, next]).await;
    three.level(0, &[follower, next]).await;
    assert_eq!(three.hub.opened(Purpose::Snapshot), 0);
    three.open(leader).await;
    three.leader(0, &ALL).await;
    three.agree(0, &acknowledged).await;
}

/// The line is shared with what keeps the leader in office.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_goes_out_no_faster_than_it_may_and_meanwhile_writes_go_on_and_nobody_stands_for_election() {
    const BYTES_PER_S: u64 = 2 << 20;
    let mut three = three(0, 0);
    three.nodes.values_mut().for_each(|node| node.config.snapshot_bytes_per_s = BYTES_PER_S);
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let term = three.status(leader, 0).term;
    let [follower, _] = others(leader);
    three.kill(follower);
    let writer = Writer::start(&three, 0, 0, 50_000);
    let bytes = 10 << 20;
    writer.more(bytes / 50_000).await;
    writer.stop().await;
    until("the log went", || (three.status(leader, 0).purged > Some(10)).then_some(())).await;
    let since = std::time::Instant::now();
    three.open(follower).await;
    let writer = Writer::start(&three, 0, 10_000, 100);
    let probe = three.nodes[&follower].probes[0].clone();
    until("it begins to arrive", || (probe.staged.load(Ordering::SeqCst) > 0).then_some(())).await;
    writer.more(100).await;
    assert_eq!(probe.adopted.load(Ordering::SeqCst), 0, "it is still on its way");
    until("a state", || (probe.adopted.load(Ordering::SeqCst) > 0).then_some(())).await;
    // The last piece does not wait for itself.
    assert!(since.elapsed().as_secs() >= (bytes - (1 << 20)) / BYTES_PER_S - 1, "{:?}", since.elapsed());
    assert_eq!(three.status(leader, 0).term, term);
    let acknowledged = writer.stop().await;
    three.agree(0, &acknowledged).await;
}

/// What was in the log when the node was started counts as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_for_who_is_away_is_bounded_also_when_the_leader_is_restarted_again_and_again() {
    let mut two = Several::new(&[1], 1);
    two.add(2, 1, Bootstrap::Wait);
    shorten(&mut two, 0, 8 << 20);
    two.open_all().await;
    two.leader(0, &[1]).await;
    two.up[&1].add_learner(GroupId(0), NodeId(2)).await.unwrap();
    until("it has something", || two.status(1, 0).matched.get(&NodeId(2)).copied().flatten().map(drop)).await;
    two.kill(2);
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        two.kill(1);
        two.open(1).await;
        two.leader(0, &[1]).await;
        let writer = Writer::start(&two, 0, round * 1000, 50_000);
        // Less than the limit each time.
        writer.more(60).await;
        acknowledged.push(writer.stop().await);
    }
    until("it is not kept for ever", || (two.status(1, 0).purged > Some(100)).then_some(())).await;
    two.open(2).await;
    two.agree(0, &three::merged(acknowledged)).await;
}
