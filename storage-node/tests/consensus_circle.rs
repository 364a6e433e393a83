//! Who is listened to in a group whose members change: those that it began with and that were let go are not, and new ones are by whoever
//! was away meanwhile.

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
use std::time::Duration;

use bytes::Bytes;
use ehe_node::consensus::{Beginning, Bootstrap, ChangeError, GroupId, MAX_FRAME_BYTES, NodeId, Role};
use minicbor::Encoder;

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

use three::{Several, Writer, until};

fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// What node `from` hears when it stands for election at node `to`, in a greater term and with a longer log.
async fn stands_at(several: &Several, from: u64, to: u64, uid: [u8; 16]) -> usize {
    let frame = |body: &dyn Fn(&mut Encoder<Vec<u8>>)| {
        let mut e = Encoder::new(vec![1]);
        body(&mut e);
        Bytes::from(e.into_writer())
    };
    let hello = frame(&|e| {
        e.array(5).unwrap().u8(2).unwrap().u16(0).unwrap().u64(to).unwrap().bytes(&uid).unwrap().null().unwrap();
    });
    let term = several.status(to, 0).term + 1;
    let vote = frame(&|e| {
        e.array(4).unwrap().u8(0).unwrap();
        e.array(3).unwrap().u64(term).unwrap().u64(from).unwrap().bool(false).unwrap();
        e.array(2).unwrap().u64(term - 1).unwrap().u64(1 << 40).unwrap();
        e.bool(true).unwrap();
    });
    let mut stream = several.hub.dial(from, to).unwrap();
    for said in [hello, vote] {
        if stream.sender.send(said).await.is_err() {
            break;
        }
    }
    stream.sender.finish();
    let mut heard = 0;
    while let Ok(Ok(Some(_))) =
        tokio::time::timeout(Duration::from_secs(5), stream.receiver.recv(MAX_FRAME_BYTES)).await
    {
        heard += 1;
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_was_let_go_is_not_listened_to_when_it_stands_for_election() {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.open_all().await;
    let leader = three.leader(0, &[1, 2, 3]).await;
    let gone = (1..=3).rev().find(|id| *id != leader).unwrap();
    // One vote is enough for what stays: a group of two would wait for both.
    three.up[&leader].change_voters(node::id(0), &nodes(&[leader])).await.unwrap();
    let uid = three.up[&gone].node_uid().0;
    three.hub.kill(gone);
    three.up.remove(&gone);
    let term = three.status(leader, 0).term;
    assert_eq!(stands_at(&three, gone, leader, uid).await, 1, "sent away, and nothing answered");
    assert_eq!((three.status(leader, 0).term, three.status(leader, 0).role), (term, Role::Leader));
    // A charter may give it the group again.
    three.up[&leader].listen_to(node::id(0), nodes(&[gone]));
    assert_eq!(stands_at(&three, gone, leader, uid).await, 2, "a welcome and an answer");
    three.close(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_while_the_others_changed_is_found_by_those_that_came() {
    let mut several = Several::new(&[1, 2, 3], 1);
    several.add(4, 1, Bootstrap::Wait);
    several.add(5, 1, Bootstrap::Wait);
    several.open_all().await;
    let first = several.leader(0, &[1, 2, 3]).await;
    let stays = (1..=3).find(|id| *id != first).unwrap();
    let writer = Writer::start(&several, 0, 0, 0);
    writer.more(20).await;
    several.kill(stays);
    writer.now(&several);
    let leader = several.leader(0, &(1..=3).filter(|id| *id != stays).collect::<Vec<_>>()).await;
    let consensus = several.up[&leader].clone();
    for new in [4, 5] {
        consensus.add_learner(node::id(0), NodeId(new)).await.unwrap();
        several.has_something(leader, new).await;
    }
    consensus.change_voters(node::id(0), &nodes(&[stays, 4, 5])).await.unwrap();
    let leader = several.leader(0, &[4, 5]).await;
    assert!(leader > 3);
    writer.more(20).await;
    // It knows of none of them. What the charter says lets it listen.
    let back = several.open(stays).await;
    assert!(!back.status(node::id(0)).unwrap().voters.contains(&NodeId(4)));
    back.listen_to(node::id(0), nodes(&[stays, 4, 5]));
    until("it has come to the others", || back.status(node::id(0)).unwrap().voters.contains(&NodeId(4)).then_some(()))
        .await;
    let acknowledged = writer.stop().await;
    several.level(0, &[stays, 4, 5]).await;
    let states = several.close(0).await;
    node::assert_contains(&states[&stays], &acknowledged);
}

/// It voted, which ends what it began with, and went before it was sent anything of the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_voted_and_has_nothing_listens_to_members_that_came_while_it_was_away() {
    let mut several = Several::new(&[1, 2, 3], 1);
    several.nodes.values_mut().for_each(|node| node.config.waiting = [node::id(0)].into());
    several.add(4, 1, Bootstrap::Wait);
    several.add(5, 1, Bootstrap::Wait);
    several.open_all().await;
    for node in [1, 2, 3] {
        until("it has met all", || several.up[&node].strangers(node::id(0)).is_empty().then_some(())).await;
    }
    let uid = several.up[&1].node_uid().0;
    assert_eq!(stands_at(&several, 1, 3, uid).await, 2, "a welcome and an answer");
    until("it has voted", || (several.status(3, 0).term > 0).then_some(())).await;
    several.kill(3);
    assert_eq!(several.up[&1].begin(node::id(0)).await, Beginning::Begun);
    let first = several.leader(0, &[1, 2]).await;
    let consensus = several.up[&first].clone();
    for new in [4, 5] {
        consensus.add_learner(node::id(0), NodeId(new)).await.unwrap();
        several.has_something(first, new).await;
    }
    consensus.change_voters(node::id(0), &nodes(&[3, 4, 5])).await.unwrap();
    let writer = Writer::start(&several, 0, 0, 0);
    let leader = several.leader(0, &[4, 5]).await;
    assert!(leader > 3);
    writer.more(20).await;
    let back = several.open(3).await;
    assert_eq!(back.status(node::id(0)).unwrap().last_index, None);
    back.listen_to(node::id(0), nodes(&[3, 4, 5]));
    until("it has what the others have", || {
        back.status(node::id(0)).unwrap().voters.contains(&NodeId(4)).then_some(())
    })
    .await;
    let acknowledged = writer.stop().await;
    several.level(0, &[3, 4, 5]).await;
    let states = several.close(0).await;
    node::assert_contains(&states[&3], &acknowledged);
}

/// It lost its disk perhaps, and there is nobody left who would know.
#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_has_nothing_and_that_all_others_have_left_elects_nobody() {
    let mut several = Several::new(&[1, 2, 3], 1);
    several.nodes.values_mut().for_each(|node| node.config.waiting = [node::id(0)].into());
    several.add(4, 1, Bootstrap::Wait);
    several.open(3).await;
    let uid = several.open(4).await.node_uid().0;
    let alone = several.up[&3].clone();
    alone.gone(nodes(&[1, 2]));
    alone.listen_to(node::id(0), nodes(&[3, 4]));
    assert!(alone.strangers(node::id(0)).is_empty());
    stands_at(&several, 4, 3, uid).await;
    assert_eq!(several.status(3, 0).term, 0);
    several.close(0).await;
}

/// As a mover whose step took too long and that takes it again does: nobody waits for the other's answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_takes_itself_out_of_a_group_and_is_told_to_over_and_over_goes_on() {
    for _ in 0..4 {
        let mut several = Several::new(&[1, 2, 3], 1);
        several.open_all().await;
        let leader = several.leader(0, &[1, 2, 3]).await;
        let rest: BTreeSet<NodeId> = [1, 2, 3].into_iter().filter(|id| *id != leader).map(NodeId).collect();
        let asked = (0..8).map(|_| {
            let (node, rest) = (several.up[&leader].clone(), rest.clone());
            tokio::spawn(async move {
                loop {
                    match node.change_voters(GroupId(0), &rest).await {
                        Err(ChangeError::NotLeader { .. }) => return,
                        Err(ChangeError::Stopped) => panic!("the group is stopped"),
                        Ok(()) | Err(_) => tokio::task::yield_now().await,
                    }
                }
            })
        });
        for asked in asked.collect::<Vec<_>>() {
            asked.await.unwrap();
        }
        until("the others are alone", || (several.status(leader, 0).voters == rest).then_some(())).await;
        assert_ne!(several.status(leader, 0).role, Role::Stopped);
        assert!(several.status(leader, 0).fault.is_none());
        for (_, node) in std::mem::take(&mut several.up) {
            node.shutdown().await.unwrap();
        }
    }
}

/// As two changes that are asked for one behind the other, where nobody waited for the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_half_done_is_finished_before_a_leader_who_has_no_part_in_the_next_one_leaves() {
    let mut several = Several::new(&[1, 2, 3], 1);
    several.open_all().await;
    let leader = several.leader(0, &[1, 2, 3]).await;
    let rest: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let (node, group) = (several.up[&leader].clone(), GroupId(0));
    // Left while both lists vote.
    let two = nodes(&rest);
    tokio::select! {
        biased;
        status = node.wait(group, Duration::from_secs(10), |status| status.changing) => assert!(status.is_ok()),
        changed = node.change_voters(group, &two) => panic!("it was not left half done: {changed:?}"),
    }
    let asked = async {
        loop {
            match node.change_voters(group, &nodes(&rest[..1])).await {
                Err(ChangeError::NotLeader { .. }) => return,
                Err(ChangeError::NotNow(_)) => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
    let next = several.leader(0, &rest).await;
    assert_eq!(several.status(next, 0).voters, two, "what was half done is done, and no more");
    assert!(several.status(leader, 0).fault.is_none());
    for (_, node) in std::mem::take(&mut several.up) {
        node.shutdown().await.unwrap();
    }
}
