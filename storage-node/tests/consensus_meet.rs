//! Nodes meet before they count on each other: who lost its disks finds nobody that takes it for new.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;

use ehe_node::consensus::{Beginning, Bootstrap, ChangeError, NodeId, Purpose, Role};

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

use node::id;
use three::{Several, Writer, until, voters};

/// A node's disks are empty, as when it was first started. It is down.
fn wipe(several: &mut Several, node: u64) {
    several.kill(node);
    let bootstrap = several.nodes[&node].config.bootstrap.clone();
    several.add(node, 1, bootstrap);
}

/// Waits until a node has wanted so many more elections, of which it would have won one by now.
async fn stood_for_election(several: &Several, node: u64, times: u64) {
    let before = several.hub.tried(node, Purpose::Request);
    until("elections", || (several.hub.tried(node, Purpose::Request) >= before + times).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_begins_when_all_with_whom_it_does_have_met() {
    let mut three = Several::new(&[1, 2, 3], 1);
    let mut waiting = three.nodes[&1].config.clone();
    waiting.waiting.insert(id(0));
    three.nodes.get_mut(&1).unwrap().config = waiting;
    for node in [1, 2] {
        three.open(node).await;
    }
    let third = BTreeSet::from([NodeId(3)]);
    for node in [1, 2] {
        until("the two have met", || (three.up[&node].strangers(id(0)) == third).then_some(())).await;
        assert!(three.status(node, 0).voters.is_empty() && three.status(node, 0).last_index.is_none());
    }
    assert_eq!(three.up[&1].begin(id(0)).await, Beginning::Meeting(third));
    three.open(3).await;
    three.leader(0, &[2, 3]).await;
    until("node 1 has met all", || three.up[&1].strangers(id(0)).is_empty().then_some(())).await;
    assert_eq!(three.up[&1].begin(id(0)).await, Beginning::Begun);
    three.leader(0, &[1, 2, 3]).await;
    three.agree(0, &[]).await;
}

/// The others see that one has begun and wait for its log, which it cannot give them before it is elected.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_begins_is_elected_by_those_that_have_met_and_wait_for_it() {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.nodes.values_mut().for_each(|node| node.config.waiting = [id(0)].into());
    three.open_all().await;
    for node in [1, 2, 3] {
        until("it has met all", || three.up[&node].strangers(id(0)).is_empty().then_some(())).await;
        assert_eq!(three.status(node, 0).last_index, None);
    }
    assert_eq!(three.up[&2].begin(id(0)).await, Beginning::Begun);
    assert_eq!(three.leader(0, &[1, 2, 3]).await, 2);
    three.agree(0, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_met_all_takes_nothing_and_elects_nobody_until_it_has() {
    let mut five = Several::new(&[1, 2, 3, 4, 5], 1);
    five.hub.cut(&[4], &[5]);
    five.open_all().await;
    let writer = Writer::start(&five, 0, 0, 0);
    writer.more(20).await;
    let leader = five.leader(0, &[1, 2, 3]).await;
    five.level(0, &[1, 2, 3]).await;
    for (node, other) in [(4, 5), (5, 4)] {
        assert_eq!(five.up[&node].strangers(id(0)), [NodeId(other)].into());
        assert_eq!(five.status(node, 0).last_index, None);
    }
    // With two of three that have something gone, those two would be a majority with the third.
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|node| *node != leader).collect();
    others.iter().for_each(|node| five.kill(*node));
    let done = five.up[&leader].status(id(0)).unwrap().last_index;
    let beats = five.hub.tried(leader, Purpose::Beat);
    until("it asks them", || (five.hub.tried(leader, Purpose::Beat) >= beats + 20).then_some(())).await;
    assert!(five.status(leader, 0).applied.map(|at| at.index) <= done, "nothing is committed with their help");
    for node in others {
        five.open(node).await;
    }
    writer.now(&five);
    five.hub.heal();
    writer.more(20).await;
    let acknowledged = writer.stop().await;
    five.leader(0, &[1, 2, 3, 4, 5]).await;
    five.agree(0, &acknowledged).await;
}

/// The leader and one follower have acknowledged. The other follower spoke to nobody but the leader, which is away; and the one comes back
/// with empty disks.
#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_disks_is_taken_for_new_by_nobody() {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.open_all().await;
    let leader = three.leader(0, &[1, 2, 3]).await;
    let [lost, behind] = [1, 2, 3].into_iter().filter(|node| *node != leader).collect::<Vec<_>>()[..] else { panic!() };
    three.level(0, &[1, 2, 3]).await;
    three.hub.cut(&[behind], &[leader, lost]);
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(20).await;
    wipe(&mut three, lost);
    let acknowledged = writer.stop().await;
    three.hub.heal();
    three.hub.cut(&[leader], &[lost, behind]);
    three.open(lost).await;
    stood_for_election(&three, behind, 10).await;
    for node in [lost, behind] {
        assert_ne!(three.status(node, 0).role, Role::Leader);
    }
    assert_eq!(three.status(lost, 0).last_index, None);
    assert_eq!(three.up[&lost].begin(id(0)).await, Beginning::Refused([NodeId(behind)].into()));
    assert!(three.up[&behind].estranged().contains_key(&NodeId(lost)));
    three.hub.heal();
    three.leader(0, &[leader, behind]).await;
    three.level(0, &[leader, behind]).await;
    let states = three.close(0).await;
    node::assert_contains(&states[&behind], &acknowledged);
    assert!(states[&lost].is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_the_charter_does_without_is_not_waited_for() {
    let mut three = Several::new(&[1, 2, 3], 1);
    for node in [1, 2] {
        three.open(node).await;
    }
    until("the two have met", || three.up[&1].has_met(NodeId(2)).then_some(())).await;
    assert!(three.status(1, 0).voters.is_empty());
    three.up.values().for_each(|consensus| consensus.gone([NodeId(3)].into()));
    three.leader(0, &[1, 2]).await;
    three.agree(0, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_later_are_met_by_all() {
    let mut four = Several::new(&[1, 2, 3], 1);
    four.add(4, 1, Bootstrap::Wait);
    for node in [1, 2, 3] {
        four.open(node).await;
    }
    let leader = four.leader(0, &[1, 2, 3]).await;
    let next = voters(&[1, 2, 3, 4]);
    four.up[&leader].add_learner(id(0), NodeId(4)).await.unwrap();
    let early = four.up[&leader].change_voters(id(0), &next).await;
    assert!(matches!(&early, Err(ChangeError::NotNow(why)) if why.contains("has nothing")), "{early:?}");
    four.open(4).await;
    four.has_something(leader, 4).await;
    four.up[&leader].change_voters(id(0), &next).await.unwrap();
    four.level(0, &[1, 2, 3, 4]).await;
    for node in [1, 2, 3] {
        until("all have met it", || four.up[&node].has_met(NodeId(4)).then_some(())).await;
    }
    wipe(&mut four, 4);
    four.open(4).await;
    for node in [1, 2, 3] {
        // Whoever does not lead finds out when it stands for election.
        let known = || four.up[&node].estranged().contains_key(&NodeId(4));
        if node != leader {
            assert!(four.up[&node].has_met(NodeId(4)));
            continue;
        }
        until("it is refused", || known().then_some(())).await;
    }
    four.hub.cut(&[leader], &[1, 2, 3, 4].into_iter().filter(|node| *node != leader).collect::<Vec<_>>());
    let left: Vec<u64> = [1, 2, 3].into_iter().filter(|node| *node != leader).collect();
    stood_for_election(&four, left[0], 10).await;
    for node in &left {
        let refused = || four.up[node].estranged().contains_key(&NodeId(4));
        until("nobody takes it for new", || refused().then_some(())).await;
        assert_ne!(four.status(*node, 0).role, Role::Leader, "two of four");
    }
    assert_eq!(four.status(4, 0).last_index, None);
    four.hub.heal();
    four.leader(0, &[1, 2, 3]).await;
    four.close(0).await;
}
