//! Consensus when disks fail, power goes, and files are lost.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::sync::{Arc, atomic::Ordering};

use ehe_node::consensus::{
    Config, Consensus, Fault, GroupId, JournalError, NodeId, OpenError, ProposeError, Role, Status, Timing,
};

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

use disk::{Disk, Unsynced};
use journal::Journal;
use node::{Node, assert_contains, command, formatted, id, propose};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_on_real_files_continues_and_a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = |name: &str| {
        let path = dir.path().join(name);
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        Journal::open(redb::backends::FileBackend::new(file).unwrap(), Arc::default())
    };
    let config = Config { timing: Timing::lan(), ..Config::new(NodeId(7)) };
    for life in 0..3_u64 {
        let machines = vec![(GroupId(0), state("state.redb"))];
        let consensus = Consensus::open(config.clone(), dir.path(), machines).await.unwrap();
        let (_, response) = consensus.propose(GroupId(0), command(0, life)).await.unwrap();
        assert_eq!(&response[..], life.to_be_bytes());
        let second = Consensus::open(config.clone(), dir.path(), vec![(GroupId(0), state("other.redb"))]).await;
        assert!(matches!(second, Err(OpenError::Log(_))));
        consensus.shutdown().await.unwrap();
    }
    // A file that was never whole is made again; one that was, and is not, is refused.
    std::fs::write(dir.path().join("raft.redb.new"), b"half").unwrap();
    let other = Config::new(NodeId(8));
    let refused = Consensus::open(other, dir.path(), vec![(GroupId(0), state("state.redb"))]).await;
    assert!(matches!(refused, Err(OpenError::OtherNode { found: NodeId(7), expected: NodeId(8) })));
    std::fs::remove_file(dir.path().join("raft.redb")).unwrap();
    let refused = Consensus::open(config.clone(), dir.path(), vec![(GroupId(0), state("state.redb"))]).await;
    assert!(matches!(refused, Err(OpenError::LogMissing { .. })), "made again, and the state refuses it");
    let journal = std::fs::metadata(dir.path().join("raft.journal")).unwrap();
    assert_eq!(journal.len(), config.journal_bytes + 2 * 4096);
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&journal.permissions()) & 0o777, 0o600);
    std::fs::write(dir.path().join("raft.redb"), b"not a database").unwrap();
    let refused = Consensus::open(config, dir.path(), vec![(GroupId(0), state("new.redb"))]).await;
    assert!(matches!(refused, Err(OpenError::Log(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_in_order() {
    for seed in 0..8 {
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(seed)] {
            let mut node = Node::new(3);
            node.config.durable_after_bytes = 200; // states are synced now and then, and then killed in between
            let consensus = node.open().await.unwrap();
            let mut acknowledged = propose(&consensus, 3, 0..10).await;
            // The next ones are under way when the power goes.
            match seed % 2 {
                0 => node.log.fail_at(node.log.steps() + 1 + seed),
                _ => node.journal.fail_at(node.journal.steps() + 1 + seed),
            }
            for (all, new) in acknowledged.iter_mut().zip(propose(&consensus, 3, 10..40).await) {
                all.extend(new);
            }
            let node = node.crash(unsynced);
            drop(consensus);

            let consensus = node.open().await.unwrap();
            let more = propose(&consensus, 3, 100..105).await;
            consensus.shutdown().await.unwrap();
            for group in 0..3 {
                assert_eq!(more[group].len(), 5);
                assert_contains(&node.list(group), &acknowledged[group]);
                assert_contains(&node.list(group), &more[group]);
            }
        }
    }
}

/// Commands that the journal takes, and between them some that are larger than a side of it: the log's own file has those at once, with
/// whatever was in the journal before.
const SIZES: [usize; 7] = [0, 40 << 10, 0, 0, 70 << 10, 40 << 10, 0];

fn sized(number: u64, size: usize) -> bytes::Bytes {
    let mut bytes = command(0, number).to_vec();
    bytes.resize(bytes.len().max(size), b'.');
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_every_step_of_the_log_or_its_journal_loses_nothing_that_was_acknowledged() {
    for sizes in [&[0, 0, 0][..], &SIZES] {
        let commands = || (0..).zip(sizes).map(|(number, size)| sized(number, *size));
        let all = Node::new(1);
        let consensus = all.open().await.unwrap();
        for command in commands() {
            consensus.propose(id(0), command).await.unwrap();
        }
        consensus.shutdown().await.unwrap();
        let (log, journal) = (all.log.steps(), all.journal.steps());
        assert!(log > 20 && journal > 10, "{log}, {journal}");
        for (in_log, step) in (1..=log).map(|step| (true, step)).chain((1..=journal).map(|step| (false, step))) {
            for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step)] {
                let node = Node::new(1);
                if in_log { &node.log } else { &node.journal }.fail_at(step);
                let mut acknowledged = Vec::new();
                if let Ok(consensus) = node.open().await {
                    for command in commands() {
                        if let Ok((position, _)) = consensus.propose(id(0), command.clone()).await {
                            acknowledged.push((position, command));
                        }
                    }
                }
                let node = node.crash(unsynced);
                let when = format!("step {step} (log: {in_log}), {unsynced:?}, {sizes:?}");
                let consensus = node.open().await.unwrap_or_else(|error| panic!("{when}: {error}"));
                consensus.propose(id(0), command(0, 99)).await.unwrap();
                consensus.shutdown().await.unwrap();
                assert_contains(&node.list(0), &acknowledged);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_machine_stops_its_group_and_no_other() {
    for panics in [false, true] {
        let node = Node::new(2);
        let consensus = node.open().await.unwrap();
        let probe = &node.probes[0];
        if panics { &probe.panic_apply } else { &probe.fail_apply }.store(true, Ordering::SeqCst);
        let refused = consensus.propose(id(0), command(0, 0)).await;
        let Err(ProposeError::Fault(fault)) = refused else { panic!("{refused:?}") };
        assert!(matches!(*fault, Fault::Machine { .. }), "{fault}");
        let refused = consensus.propose(id(0), command(0, 1)).await;
        assert!(matches!(refused, Err(ProposeError::Fault(_))), "a stopped group stays stopped: {refused:?}");
        assert_eq!(consensus.status(id(0)).unwrap().role, Role::Stopped);
        assert!(consensus.status(id(0)).unwrap().fault.is_some());
        consensus.propose(id(1), command(1, 0)).await.unwrap();
        assert_eq!(consensus.shutdown().await.unwrap_err().group, id(0));

        // Both commands were in the log; a restart applies the first.
        let consensus = node.open().await.unwrap();
        consensus.propose(id(0), command(0, 2)).await.unwrap();
        consensus.shutdown().await.unwrap();
        let list = node.list(0).into_iter().map(|(_, command)| command).collect::<Vec<_>>();
        assert_eq!(list, [command(0, 0), command(0, 2)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_journal_stops_all_groups_and_acknowledges_nothing_more() {
    let node = Node::new(3);
    let consensus = node.open().await.unwrap();
    let before = propose(&consensus, 3, 0..5).await;
    node.journal.fail_now();
    assert!(propose(&consensus, 1, 5..10).await[0].is_empty());
    for group in 0..3 {
        let refused = consensus.propose(id(group), command(group, 10)).await;
        let Err(ProposeError::Fault(fault)) = refused else { panic!("{refused:?}") };
        assert!(matches!(*fault, Fault::Log { .. }));
        assert!(!consensus.is_leader(id(group)));
    }
    assert!(consensus.shutdown().await.is_err());
    let node = node.crash(Unsynced::Lost);
    node.open().await.unwrap().shutdown().await.unwrap();
    for (group, acknowledged) in before.iter().enumerate() {
        assert_contains(&node.list(group), acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_file_fails_behind_its_journal_stops_all_groups_and_loses_nothing() {
    let node = Node::new(2);
    let consensus = node.open().await.unwrap();
    // Before: the log's file may be at work at any time.
    let mut acknowledged = propose(&consensus, 2, 0..1).await;
    node.log.fail_now();
    // The journal goes round, and the log's file is needed.
    for number in 1..1000 {
        for (all, new) in acknowledged.iter_mut().zip(propose(&consensus, 2, number..number + 1).await) {
            all.extend(new);
        }
        if (0..2).all(|group| consensus.status(id(group)).unwrap().fault.is_some()) {
            break;
        }
    }
    for (group, acknowledged) in acknowledged.iter().enumerate() {
        assert!(!acknowledged.is_empty());
        assert!(matches!(*consensus.status(id(group)).unwrap().fault.unwrap(), Fault::Log { .. }));
    }
    assert!(consensus.shutdown().await.is_err());
    let node = node.crash(Unsynced::Lost);
    node.open().await.unwrap().shutdown().await.unwrap();
    for (group, acknowledged) in acknowledged.iter().enumerate() {
        assert_contains(&node.list(group), acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_or_state_was_removed_or_exchanged_does_not_start() {
    let mut node = Node::new(1);
    node.config.keep_entries = 0;
    node.config.compact_after_entries = 1;
    let consensus = node.open().await.unwrap();
    propose(&consensus, 1, 0..600).await;
    consensus.make_durable(id(0)).await.unwrap();
    let purged = |status: &Status| status.purged > Some(500);
    while !purged(&consensus.status(id(0)).unwrap()) {
        // Each proposal changes the status, so this asks again.
        propose(&consensus, 1, 600..601).await;
    }
    consensus.shutdown().await.unwrap();

    let without_journal = Node { journal: Disk::default(), ..node.copy() };
    assert!(matches!(without_journal.open().await, Err(OpenError::Journal(JournalError::Missing))));
    let without_log = Node { log: formatted(), ..node.crash(Unsynced::Kept) };
    assert!(matches!(without_log.open().await, Err(OpenError::LogMissing { group: GroupId(0) })));
    let node = without_log;
    let fresh = Node::new(1);
    fresh.open().await.unwrap().shutdown().await.unwrap();
    let exchanged = Node { log: fresh.log.copy(), ..node.copy() };
    assert!(matches!(exchanged.open().await, Err(OpenError::Journal(JournalError::Other))));
    let fresh = fresh.crash(Unsynced::Kept);
    let exchanged = Node { log: fresh.log, journal: fresh.journal, ..node.crash(Unsynced::Kept) };
    assert!(matches!(exchanged.open().await, Err(OpenError::OtherIncarnation { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_log_or_a_state_that_was_removed_is_refused() {
    let mut node = Node::new(1);
    node.config.keep_entries = 0;
    node.config.compact_after_entries = 1;
    node.open().await.unwrap().shutdown().await.unwrap();
    let (old_log, old_journal) = (node.log.copy(), node.journal.copy());
    let consensus = node.open().await.unwrap();
    propose(&consensus, 1, 0..600).await;
    consensus.make_durable(id(0)).await.unwrap();
    while consensus.status(id(0)).unwrap().purged.is_none() {
        propose(&consensus, 1, 600..601).await;
    }
    consensus.shutdown().await.unwrap();

    let older = Node { log: old_log, journal: old_journal, ..node.copy() };
    assert!(matches!(older.open().await, Err(OpenError::LogBehindState { .. })));
    let stateless = Node { log: node.log.copy(), journal: node.journal.copy(), ..Node::new(1) };
    assert!(matches!(stateless.open().await, Err(OpenError::StateBehindLog { applied: None, .. })));
}
