//! A node that gives a group up: what it keeps, what goes, and that it comes to it anew.

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

use ehe_node::consensus::{Consensus, LeaveError, NodeId, Role, WaitError};

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

use disk::Unsynced;
use three::{Several, Writer, until};

const CONFIRMED: Duration = Duration::from_secs(5);
const UNDER: u32 = 7;

fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// Three nodes that have written something, one of which was let go: who leads, and that one.
async fn let_go(writes: u64) -> (Several, u64, u64, Writer) {
    let_go_with(writes, 64 << 10).await
}

/// With so large a journal.
async fn let_go_with(writes: u64, journal_bytes: u64) -> (Several, u64, u64, Writer) {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.nodes.values_mut().for_each(|node| node.config.journal_bytes = journal_bytes);
    three.open_all().await;
    let leader = three.leader(0, &[1, 2, 3]).await;
    let gone = (1..=3).find(|id| *id != leader).unwrap();
    let stay = (1..=3).filter(|id| *id != gone).collect::<Vec<_>>();
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(writes).await;
    three.up[&leader].change_voters(node::id(0), &nodes(&stay)).await.unwrap();
    three.up[&gone].mind_time(node::id(0), false);
    (three, leader, gone, writer)
}

/// As the node does it: silent first, then asks, then gives up.
async fn gives_up(leader: &Consensus, gone: &Consensus) {
    let aside = gone.step_aside(node::id(0)).await.unwrap();
    // That it is committed, it knows a moment after those who asked for it.
    let asking = async { while !leader.has_let_go(node::id(0), gone.node_id(), CONFIRMED).await {} };
    tokio::time::timeout(node::LIMIT, asking).await.expect("it is let go");
    aside.forget(UNDER).await.unwrap();
}

fn has_nothing(consensus: &Consensus) {
    let status = consensus.status(node::id(0)).unwrap();
    assert_eq!((status.last_index, status.applied, status.purged, status.durable), (None, None, None, None));
    assert!(status.fault.is_none() && status.voters.is_empty(), "{status:?}");
    assert_eq!(consensus.left_under(node::id(0)), Some(UNDER));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gave_a_group_up_has_nothing_of_it_and_comes_to_it_anew_with_all_of_it() {
    let (mut three, leader, gone, writer) = let_go(50).await;
    let (lead, go) = (three.up[&leader].clone(), three.up[&gone].clone());
    assert!(!lead.has_let_go(node::id(0), NodeId(leader), CONFIRMED).await, "it is a member itself");
    assert!(!go.has_let_go(node::id(0), NodeId(gone), CONFIRMED).await, "it does not lead");
    assert!(matches!(lead.step_aside(node::id(0)).await, Err(LeaveError::NotNow(Role::Leader))));
    let term = three.status(gone, 0).term;
    gives_up(&lead, &go).await;
    has_nothing(&go);
    // After the power failed, too.
    three.kill(gone);
    let go = three.open(gone).await;
    has_nothing(&go);
    until("its vote stays", || (three.status(gone, 0).term >= term).then_some(())).await;
    assert!(three.nodes[&gone].copy().list(0).is_empty());
    writer.more(50).await;
    // It is given the group again, while it runs, and once more after that.
    for _ in 0..2 {
        lead.add_learner(node::id(0), NodeId(gone)).await.unwrap();
        until("it has come close", || {
            let matched = three.status(leader, 0).matched.get(&NodeId(gone)).copied().flatten()?;
            (matched + 5 > three.status(leader, 0).last_index?).then_some(())
        })
        .await;
        writer.more(20).await;
        lead.remove_learner(node::id(0), NodeId(gone)).await.unwrap();
        gives_up(&lead, &go).await;
        has_nothing(&go);
    }
    lead.add_learner(node::id(0), NodeId(gone)).await.unwrap();
    three.has_something(leader, gone).await;
    lead.change_voters(node::id(0), &nodes(&[1, 2, 3])).await.unwrap();
    writer.more(20).await;
    let acknowledged = writer.stop().await;
    three.agree(0, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_a_group_up_elects_nobody_whom_it_had_refused_with_its_log() {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.open_all().await;
    let leader = three.leader(0, &[1, 2, 3]).await;
    let [behind, gone] = (1..=3).filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!() };
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(20).await;
    three.level_soon(&[1, 2, 3]).await;
    // One is cut off, and knows of three that vote. Then one alone stays.
    three.hub.cut(&[behind], &[leader, gone]);
    writer.more(20).await;
    let (lead, go) = (three.up[&leader].clone(), three.up[&gone].clone());
    lead.change_voters(node::id(0), &nodes(&[leader])).await.unwrap();
    go.mind_time(node::id(0), false);
    gives_up(&lead, &go).await;
    // These two would be a majority of the three.
    three.hub.heal();
    three.hub.cut(&[leader], &[behind, gone]);
    let elected = three.up[&behind].wait(node::id(0), Duration::from_secs(6), |it| it.role == Role::Leader).await;
    assert!(matches!(elected, Err(WaitError::TimedOut(_))), "two logs have a leader each: {elected:?}");
    writer.more(5).await;
    let acknowledged = writer.stop().await;
    node::assert_contains(&three.close(0).await[&leader], &acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_gets_its_log_again_does_not_lead_alone_on_the_way() {
    let mut two = Several::new(&[1], 1);
    two.add(2, 1, ehe_node::consensus::Bootstrap::Wait);
    two.open_all().await;
    assert_eq!(two.leader(0, &[1]).await, 1);
    let writer = Writer::start(&two, 0, 0, 256 << 10);
    writer.more(100).await;
    let (founder, other) = (two.up[&1].clone(), two.up[&2].clone());
    founder.add_learner(node::id(0), NodeId(2)).await.unwrap();
    two.has_something(1, 2).await;
    founder.change_voters(node::id(0), &nodes(&[1, 2])).await.unwrap();
    founder.transfer_leader(node::id(0), NodeId(2)).await.unwrap();
    until("it is handed over", || two.status(2, 0).ready().then_some(())).await;
    other.change_voters(node::id(0), &nodes(&[2])).await.unwrap();
    founder.mind_time(node::id(0), false);
    let acknowledged = writer.stop().await;
    let last = two.status(1, 0).last_index.unwrap();
    gives_up(&other, &founder).await;
    two.hub.delay(Duration::from_millis(20));
    two.hub.sever_after(3);
    other.add_learner(node::id(0), NodeId(1)).await.unwrap();
    until("a part of it is there again", || two.status(1, 0).last_index.filter(|index| *index > 4)).await;
    two.hub.kill(1);
    let part = two.nodes[&1].crash(Unsynced::Kept);
    two.up.remove(&1);
    two.nodes.insert(1, part);
    let founder = two.open(1).await;
    let status = two.status(1, 0);
    assert!(status.last_index.unwrap() < last && status.voters == nodes(&[1]), "a part: {status:?}");
    founder.mind_time(node::id(0), true);
    let alone = founder.wait(node::id(0), Duration::from_secs(3), |it| it.role == Role::Leader).await;
    assert!(alone.is_err(), "it leads alone: {alone:?}");
    two.hub.sever_after(u64::MAX);
    two.hub.delay(Duration::ZERO);
    founder.listen_to(node::id(0), nodes(&[1, 2]));
    two.has_something(2, 1).await;
    other.change_voters(node::id(0), &nodes(&[1, 2])).await.unwrap();
    two.agree(0, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_silent_confirms_nothing_and_speaks_again_if_it_does_not_go() {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.open_all().await;
    let leader = three.leader(0, &[1, 2, 3]).await;
    let silent = (1..=3).find(|id| *id != leader).unwrap();
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(10).await;
    let (lead, go) = (three.up[&leader].clone(), three.up[&silent].clone());
    let aside = go.step_aside(node::id(0)).await.unwrap();
    assert!(!lead.has_let_go(node::id(0), NodeId(silent), CONFIRMED).await, "it is a member");
    let matched = || three.status(leader, 0).matched.get(&NodeId(silent)).copied().flatten();
    let before = matched();
    writer.more(50).await;
    assert_eq!(matched(), before, "nothing was confirmed");
    drop(aside);
    until("it goes on", || (matched() > before.map(|at| at + 20)).then_some(())).await;
    let acknowledged = writer.stop().await;
    three.agree(0, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_step_leaves_the_group_whole_or_given_up() {
    // In the journal; or at once in the log's file, for a journal in which nothing has room.
    crash_at_every_step(64 << 10, &[Of::Journal, Of::State]).await;
    crash_at_every_step(0, &[Of::Log, Of::State]).await;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Log,
    Journal,
    State,
}

async fn crash_at_every_step(journal_bytes: u64, disks: &[Of]) {
    let (mut three, _, gone, writer) = let_go_with(20, journal_bytes).await;
    three.up[&gone].make_durable(node::id(0)).await.unwrap();
    writer.stop().await;
    three.kill(gone);
    for of in disks {
        let (mut whole, mut given_up, mut failed) = (0, 0, 0);
        for step in 1.. {
            let mut done = Ok(());
            for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step)] {
                let one = three.nodes[&gone].copy();
                let consensus = one.open().await.unwrap();
                consensus.mind_time(node::id(0), false);
                let aside = consensus.step_aside(node::id(0)).await.unwrap();
                let disk = match of {
                    Of::Log => &one.log,
                    Of::Journal => &one.journal,
                    Of::State => &one.states[0],
                };
                disk.fail_at(disk.steps() + step);
                done = aside.forget(UNDER).await;
                let after = one.crash(unsynced);
                drop(consensus.shutdown().await);
                let again = after.open().await.unwrap_or_else(|error| panic!("step {step}, {unsynced:?}: {error}"));
                if again.left_under(node::id(0)).is_some() {
                    has_nothing(&again);
                    given_up += 1;
                } else {
                    let status = again.status(node::id(0)).unwrap();
                    assert!(status.applied.is_some() && status.fault.is_none(), "{status:?}");
                    assert!(done.is_err(), "what was said to be done is");
                    whole += 1;
                }
                failed += usize::from(done.is_err());
                again.shutdown().await.unwrap();
            }
            if done.is_ok() {
                break;
            }
        }
        assert!(
            failed > 3 && given_up > 3 && (whole > 0) == (*of != Of::State),
            "{journal_bytes} {of:?} {whole} {given_up} {failed}"
        );
    }
}
