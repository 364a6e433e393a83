//! Consensus as the shards see it, when all goes well.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use ehe_node::consensus::{Consensus, GroupId, ProposeError};

mod api {
    pub use ehe_node::consensus::{
        AppliedMeta, Command, Latch, Latched, Machine, MachineError, Position, Stage, Stager, Vetting,
    };
}
#[path = "support/disk.rs"]
mod disk;
#[path = "support/journal.rs"]
mod journal;
#[path = "support/node.rs"]
mod node;

use disk::Unsynced;
use node::{LIMIT, Node, assert_contains, command, id, propose};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_leads_every_group_and_answers_in_the_order_of_submission() {
    let node = Node::new(16);
    let consensus = node.open().await.unwrap();
    assert!(consensus.groups().all(|group| consensus.is_leader(group)));
    let acknowledged = propose(&consensus, 16, 0..50).await;
    for of_group in &acknowledged {
        assert_eq!(of_group.len(), 50);
        assert!(of_group.windows(2).all(|pair| pair[0].0.index + 1 == pair[1].0.index));
    }
    let (_, response) = consensus.propose(id(3), command(3, 50)).await.unwrap();
    assert_eq!(&response[..], 50_u64.to_be_bytes());
    consensus.shutdown().await.unwrap();
    for (group, of_group) in acknowledged.iter().enumerate() {
        assert_contains(&node.list(group), of_group);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_log_vote_state_and_identity() {
    let node = Node::new(2);
    let consensus = node.open().await.unwrap();
    let acknowledged = propose(&consensus, 2, 0..20).await;
    let (before, uid) = (consensus.status(id(0)).unwrap(), consensus.node_uid());
    consensus.shutdown().await.unwrap();

    let consensus = node.open().await.unwrap();
    let after = consensus.status(id(0)).unwrap();
    assert_eq!(consensus.node_uid(), uid);
    // The vote was kept: the next election is in the next term. The log was kept: one entry more, that of the term.
    assert_eq!(after.term, before.term + 1);
    assert_eq!(after.last_index.unwrap(), before.last_index.unwrap() + 1);
    assert_eq!(node.probes[0].applied.load(Ordering::SeqCst), 20, "an orderly stop leaves nothing to replay");
    let more = propose(&consensus, 2, 20..40).await;
    consensus.shutdown().await.unwrap();
    for group in 0..2 {
        let list = node.list(group);
        assert_eq!(list.len(), 40);
        assert_contains(&list, &acknowledged[group]);
        assert_contains(&list, &more[group]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_lags_behind_the_log_is_replayed() {
    let node = Node::new(1);
    let consensus = node.open().await.unwrap();
    let first = propose(&consensus, 1, 0..30).await;
    let durable = consensus.make_durable(id(0)).await.unwrap().unwrap();
    assert_eq!(consensus.status(id(0)).unwrap().durable, Some(durable.index));
    let second = propose(&consensus, 1, 30..100).await;
    assert_eq!(consensus.status(id(0)).unwrap().durable, Some(durable.index), "only what was asked for is durable");

    let node = node.crash(Unsynced::Lost);
    drop(consensus);
    assert_eq!(node.list(0).len(), 30, "the state lost what was not made durable");
    let consensus = node.open().await.unwrap();
    assert_eq!(node.probes[0].applied.load(Ordering::SeqCst), 70, "the log replays the rest, once");
    consensus.shutdown().await.unwrap();
    assert_eq!(node.list(0).len(), 100);
    assert_contains(&node.list(0), &first[0]);
    assert_contains(&node.list(0), &second[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_purged_but_never_past_the_durable_state() {
    let mut node = Node::new(2);
    node.config.keep_entries = 0;
    node.config.compact_after_entries = 300;
    node.config.durable_after_bytes = 4000;
    let consensus = node.open().await.unwrap();
    let mut number = 0;
    let purged = |consensus: &Consensus| {
        (0..2).all(|group| {
            let status = consensus.status(id(group)).unwrap();
            // `purged` is read after `durable` moved, so the order of reading does not help it.
            assert!(status.purged <= consensus.status(id(group)).unwrap().durable);
            status.purged > Some(1500)
        })
    };
    while !purged(&consensus) {
        propose(&consensus, 2, number..number + 50).await;
        number += 50;
        assert!(number < 50_000, "the log is never purged");
    }
    let node = node.crash(Unsynced::Some(number));
    drop(consensus);
    let consensus = node.open().await.unwrap();
    assert!(node.probes[0].applied.load(Ordering::SeqCst) < 5000, "most of it was durable");
    consensus.shutdown().await.unwrap();
    for group in 0..2 {
        assert_eq!(node.list(group).len() as u64, number);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_beyond_the_limits_are_refused_until_earlier_ones_are_over() {
    let mut node = Node::new(1);
    node.config.max_in_flight = 2;
    node.config.max_command_bytes = 100;
    let consensus = node.open().await.unwrap();
    let long = Bytes::from(vec![0; 101]);
    let refused = consensus.propose(id(0), long).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { bytes: 101, limit: 100 })));
    let refused = consensus.propose(id(9), command(0, 0)).await;
    assert!(matches!(refused, Err(ProposeError::NoSuchGroup(GroupId(9)))));

    let probe = node.probes[0].clone();
    let (held, release) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let holder = std::thread::spawn(move || {
        let hold = probe.hold.lock().unwrap();
        held.0.send(()).unwrap();
        release.1.recv().unwrap();
        drop(hold);
    });
    held.1.recv().unwrap();
    let first = consensus.submit(id(0), command(0, 0)).await.unwrap();
    // Dropping it does not take it back, nor its share.
    drop(consensus.submit(id(0), command(0, 1)).await.unwrap());
    let refused = consensus.propose(id(0), command(0, 2)).await;
    assert!(matches!(refused, Err(ProposeError::Overloaded)));
    release.0.send(()).unwrap();
    holder.join().unwrap();
    first.await.unwrap();
    consensus.wait(id(0), LIMIT, |status| status.applied.unwrap().index == 3).await.unwrap();
    while consensus.propose(id(0), command(0, 3)).await.is_err() {
        tokio::task::yield_now().await;
    }
    consensus.shutdown().await.unwrap();
    assert_eq!(node.list(0).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_shutdown_nothing_is_taken_and_the_files_are_closed() {
    let node = Node::new(4);
    let consensus = node.open().await.unwrap();
    let acknowledged = propose(&consensus, 4, 0..10).await;
    consensus.shutdown().await.unwrap();
    consensus.shutdown().await.unwrap();
    let (log, state) = (node.log.steps(), node.states[0].steps());
    assert!(matches!(consensus.propose(id(0), command(0, 10)).await, Err(ProposeError::Stopped)));
    assert!(matches!(consensus.make_durable(id(0)).await, Err(ProposeError::Stopped)));
    assert_eq!((log, state), (node.log.steps(), node.states[0].steps()), "nothing writes any more");
    for (group, acknowledged) in acknowledged.iter().enumerate() {
        assert_contains(&node.list(group), acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_made_durable_by_itself_when_it_has_grown_old() {
    let mut node = Node::new(1);
    node.config.durable_after = Duration::from_millis(20);
    let consensus = node.open().await.unwrap();
    let (position, _) = consensus.propose(id(0), command(0, 0)).await.unwrap();
    let waited = tokio::time::timeout(LIMIT, async {
        while consensus.status(id(0)).unwrap().durable < Some(position.index) {
            tokio::task::yield_now().await;
        }
    });
    waited.await.unwrap();
    let node = node.crash(Unsynced::Lost);
    assert_eq!(node.list(0).len(), 1);
}
