//! Groups that are held: they have a vote and a log, apply nothing, and go on where their state ends.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ehe_node::consensus::{NodeId, ProposeError};
use ehe_node::leadership;
use tokio_util::sync::CancellationToken;

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

use node::{LIMIT, Node, assert_contains, command, id, propose};
use three::{Several, Writer, until};

const ALL: [u64; 3] = [1, 2, 3];

/// More than openraft hands to a state that does not take it.
const MANY: u64 = 1_300;

#[tokio::test(flavor = "multi_thread")]
async fn a_held_group_votes_and_logs_for_as_long_as_it_takes_opens_again_and_goes_on_where_it_ended() {
    let mut three = Several::new(&ALL, 1);
    three.open_all().await;
    let leader = three.leader(0, &ALL).await;
    let held = ALL.into_iter().find(|id| *id != leader).unwrap();
    let other = ALL.into_iter().find(|id| *id != leader && *id != held).unwrap();
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(20).await;
    assert!(three.up[&held].hold(id(0), "damaged"));
    // Commits of its own each: the third node is not there, so that nothing is committed but by the held one's copy.
    three.hub.cut(&[other], &[leader, held]);
    writer.more(MANY).await;
    three.hub.heal();
    let stands = three.status(held, 0);
    assert!(stands.last_index.unwrap() >= stands.applied.unwrap().index + MANY, "{stands:?}");
    assert_eq!(stands.held.as_deref(), Some("damaged"));

    // The power goes, and what it remembers of the damage holds it from the start.
    three.kill(held);
    three.nodes.get_mut(&held).unwrap().config.held = BTreeMap::from([(id(0), "damaged".into())]);
    writer.now(&three);
    let opened = tokio::time::timeout(LIMIT, three.open(held)).await.expect("it opens though nothing is applied");
    writer.now(&three);
    writer.more(20).await;
    until("it follows", || three.status(held, 0).leader.filter(|leader| *leader != NodeId(held))).await;
    let stands = three.status(held, 0);
    assert!(stands.applied.is_none_or(|applied| applied.index + MANY < stands.last_index.unwrap()), "{stands:?}");
    assert!(matches!(opened.propose(id(0), command(0, 1)).await, Err(ProposeError::NotLeader { .. })));

    opened.release(id(0));
    let acknowledged = writer.stop().await;
    three.agree(0, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_held_and_released_again_and_again_applies_every_entry_once_and_answers_who_waits() {
    let three = {
        let mut three = Several::new(&ALL, 1);
        three.open_all().await;
        three
    };
    three.leader(0, &ALL).await;
    let writers = (0..4).map(|n| Writer::start(&three, 0, n * 1_000_000, 0)).collect::<Vec<_>>();
    for round in 0..12 {
        let node = ALL[round % 3];
        assert!(three.up[&node].hold(id(0), "damaged"));
        writers[0].more(8).await;
        three.up[&node].release(id(0));
        writers[0].more(2).await;
    }
    let mut all = Vec::new();
    for writer in writers {
        all.push(writer.stop().await);
    }
    three.agree(0, &three::merged(all)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_a_group_that_is_being_released_leaves_no_gap() {
    let mut node = Node::new(1);
    let mut acknowledged = Vec::new();
    for round in 0..8_u64 {
        let consensus = node.open().await.unwrap();
        acknowledged.extend(propose(&consensus, 1, round * 1000..round * 1000 + 50).await.remove(0));
        let waiting = {
            let consensus = consensus.clone();
            tokio::spawn(async move { propose(&consensus, 1, round * 1000 + 100..round * 1000 + 400).await.remove(0) })
        };
        assert!(consensus.hold(id(0), "damaged"));
        consensus.release(id(0));
        consensus.shutdown().await.unwrap();
        acknowledged.extend(waiting.await.unwrap());
        drop(consensus);
        node = node.copy();
    }
    let consensus = node.open().await.unwrap();
    consensus.shutdown().await.unwrap();
    drop(consensus);
    let list = node.list(0);
    assert_contains(&list, &acknowledged);
    assert!(list.windows(2).all(|pair| pair[0].0.term < pair[1].0.term || pair[1].0.index == pair[0].0.index + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_one_that_was_held_from_the_start_is_led_again_when_it_is_released() {
    let mut node = Node::new(1);
    let consensus = node.open().await.unwrap();
    let mut acknowledged = propose(&consensus, 1, 0..40).await.remove(0);
    consensus.shutdown().await.unwrap();
    drop(consensus);
    node = node.copy();
    node.config.held.insert(id(0), "what was found is not known any more".into());
    let consensus = node.open().await.unwrap();
    assert!(!consensus.is_leader(id(0)));
    assert!(consensus.propose(id(0), command(0, 99)).await.is_err());
    consensus.release(id(0));
    consensus.wait(id(0), LIMIT, |status| status.ready()).await.expect("it leads");
    acknowledged.extend(propose(&consensus, 1, 100..140).await.remove(0));
    assert_eq!(acknowledged.len(), 80);
    consensus.shutdown().await.unwrap();
    drop(consensus);
    assert_contains(&node.list(0), &acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_program_turns_out_to_be_too_old_hands_over_to_one_that_is_not_as_soon_as_there_is_one() {
    let mut three = Several::new(&ALL, 1);
    // Nobody else ever stands for election by itself: not when it falls silent, and not to begin with.
    for node in [2, 3] {
        let config = &mut three.nodes.get_mut(&node).unwrap().config;
        config.waiting.insert(id(0));
        (config.timing.election_min, config.timing.election_max) = (Duration::from_secs(600), Duration::from_secs(601));
    }
    three.open_all().await;
    assert_eq!(three.leader(0, &ALL).await, 1);
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(20).await;
    let (knowing, asked) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(Mutex::new(BTreeSet::new())));
    let knows = {
        let (knowing, asked) = (knowing.clone(), asked.clone());
        move |node: NodeId| {
            asked.lock().unwrap().insert(node);
            knowing.lock().unwrap().contains(&node)
        }
    };
    let stop = CancellationToken::new();
    let passing = tokio::spawn(leadership::pass_on(three.up[&1].clone(), id(0), knows, stop.clone()));
    three.nodes[&1].probes[0].outdated.store(true, Ordering::SeqCst);
    until("it is held", || three.status(1, 0).held).await;
    until("it looks for one", || (asked.lock().unwrap().len() == 2).then_some(())).await;
    assert_eq!(three.status(2, 0).leader, Some(NodeId(1)), "nobody that is known to be later");
    // The one with less of the log is upgraded.
    knowing.lock().unwrap().insert(NodeId(3));
    until("another one leads", || three.up[&3].is_leader(id(0)).then_some(())).await;
    writer.more(20).await;
    stop.cancel();
    passing.await.unwrap();
    assert_eq!(three.status(1, 0).leader, Some(NodeId(3)));
    assert!(three.status(1, 0).held.is_some());
    let acknowledged = writer.stop().await;
    // Its program is replaced.
    three.kill(1);
    three.open(1).await;
    three.agree(0, &acknowledged).await;
}
