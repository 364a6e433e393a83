//! Clocks that differ: what a leader's wrong clock orders is refused before it is committed, and one follower's wrong clock stops nobody.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Duration;

#[path = "support/hospitals.rs"]
mod hospitals;
#[path = "support/people.rs"]
mod people;
#[path = "support/ward.rs"]
mod ward;

use ward::{Ward, now};

pub const LIMIT: Duration = Duration::from_secs(60);
const HOURS_2_MS: i64 = 2 * 3_600_000;

/// No entry of the room is from ahead of the right clock, on any node.
async fn time_never_jumped(ward: &Ward) {
    for n in ward.running() {
        for (leaf, _) in ward.ledger(n).await {
            assert!(leaf.accepted_at <= now().plus_ms(60_000), "node {n}: {:?} is ahead", leaf.accepted_at);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_is_two_hours_ahead_commits_nothing_and_gives_way_and_the_ledgers_time_never_jumps() {
    let mut ward = Ward::open(|_| {}).await;
    ward.content(1, 100).await;
    for _ in 0..3 {
        let liar = ward.leader().await;
        ward.clocks[liar].by_ms(HOURS_2_MS);
        // Asked first where the clock is wrong, then wherever somebody leads.
        ward.content(1, 100).await;
        let leader = ward.leader().await;
        assert_ne!(leader, liar, "it gave way");
        ward.level().await;
        let refused: u64 = ward.running().iter().map(|n| ward.counter(*n, "blocks_ahead")).sum();
        assert!(refused >= 2, "both others refused it");
        // Nobody is fenced, and it follows like any other.
        for n in 0..3 {
            assert!(!ward.owner.status(n).await.faulted);
        }
        ward.clocks[liar].by_ms(0);
        time_never_jumped(&ward).await;
    }
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_own_clock_is_behind_stops_nobody_and_catches_up_when_it_is_mended() {
    let mut ward = Ward::open(|_| {}).await;
    ward.content(1, 100).await;
    ward.level().await;
    let late = ward.follower().await;
    ward.clocks[late].by_ms(-HOURS_2_MS);
    let before = ward.owner.status(late).await;
    for _ in 0..10 {
        ward.content(1, 100).await;
    }
    let leader = ward.leader().await;
    let (its, others) = (ward.owner.status(late).await, ward.owner.status(leader).await);
    assert!(its.applied < others.applied && its.applied <= before.applied + 1, "{} of {}", its.applied, others.applied);
    assert!(!its.faulted && ward.counter(late, "blocks_ahead") > 0);
    assert_eq!(ward.counter(leader, "blocks_ahead"), 0);
    ward.clocks[late].by_ms(0);
    // Nobody touches it.
    ward.level().await;
    time_never_jumped(&ward).await;
    assert_eq!(ward.owner.status(late).await.applied, others.applied);
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_takes_what_was_ordered_long_before_it_came_back() {
    let mut ward = Ward::open(|_| {}).await;
    let away = ward.follower().await;
    ward.nodes[away].take().unwrap().stop().await.unwrap();
    for _ in 0..5 {
        ward.content(1, 100).await;
    }
    // Ten days pass for it; certificates last longer.
    let (later, config) = (ward::Off::default(), ward.hospitals.config(away));
    later.by_ms(10 * 24 * 3_600_000);
    let node = ehe_node::daemon::Daemon::start(config, later.clock()).await.unwrap();
    ward.nodes[away] = Some(node);
    ward.owner = ward::Person::connected(&ward.hospitals, ward.owner.credentials.clone()).await;
    ward.level().await;
    assert_eq!(ward.counter(away, "blocks_ahead"), 0);
    ward.stop().await;
}
