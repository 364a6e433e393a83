//! A state and its log, when the log fails beneath it.

use std::sync::{Arc, atomic::Ordering};

use openraft::{storage::RaftLogStorage, vote::RaftLeaderId};
use tokio::sync::mpsc::unbounded_channel;

use super::{
    Policy, Setup, WorkerHandle, spawn,
    worker::{Job, Step},
};
use crate::{
    consensus::{
        Machine,
        codec::NodeRecord,
        config::Config,
        fence::Fence,
        ids::{GroupId, NodeId, NodeUid},
        log::{
            file::{self, LogFile, Stored},
            group::GroupLog,
            journal::recover,
            store::LogStore,
            writer,
        },
        runtime::Thread,
        suite::journal::{Journal, Probe},
        types::{Entry, EntryPayload, LeaderId, Payload, Vote, log_id},
    },
    test_disk::{Disk, Unsynced},
};

/// A group's state at work, and the disks below it.
struct Bench {
    journal: Disk,
    state: Disk,
    probe: Arc<Probe>,
    store: LogStore,
    worker: WorkerHandle,
    thread: Thread,
}

impl Bench {
    fn new() -> Self {
        let (log, journal, state) = (Disk::default(), Disk::default(), Disk::default());
        let db = file::open(log, 1 << 20).unwrap();
        let node = NodeRecord { uid: NodeUid([9; 16]), node: NodeId(1) };
        file::write_node(&db, &node).unwrap();
        let recovered = recover(&db, journal.clone(), 1 << 20).unwrap();
        let log_file = Arc::new(LogFile::new(db));
        let log = GroupLog::new(Arc::new(Fence::new(GroupId(0))), Arc::default(), 1 << 20, Stored::default());
        let log = Arc::new(log);
        let (queue, _thread) = writer::spawn(log_file.clone(), recovered, vec![log.clone()]).unwrap();
        let probe = Arc::new(Probe::default());
        let setup = Setup {
            uid: node.uid,
            log: log.clone(),
            queue: queue.clone(),
            policy: Policy::from(&Config::new(NodeId(1))),
            applied: None,
            compact: unbounded_channel().0,
        };
        let (worker, _stages, thread) = spawn(Journal::open(state.clone(), probe.clone()), setup).unwrap();
        Self { journal, state, probe, store: LogStore::new(log_file, log, queue), worker, thread }
    }

    /// What others have committed, and is on its way into this node's log.
    async fn apply(&self, index: u64) -> std::io::Result<()> {
        let payload = EntryPayload::Normal(Payload(index.to_be_bytes().to_vec().into()));
        let steps: Vec<Step> = vec![(Entry { log_id: log_id(1, index), payload }, None)];
        self.worker.ask(|done| Job::Apply { steps, done }).await
    }

    async fn vote(&mut self) -> std::io::Result<()> {
        self.store.save_vote(&Vote { leader_id: LeaderId::new(2, 1), committed: false }).await
    }

    /// Ends the thread, in order or by letting go of it. What the state has then, whatever becomes of what was not synced.
    async fn left(self, stop: bool) -> [usize; 2] {
        let Self { state, worker, thread, .. } = self;
        if stop {
            drop(worker.stop().await);
        }
        drop(worker);
        thread.ended().await;
        let has = |disk: Disk| {
            let journal = Journal::open(disk, Arc::default());
            assert_eq!(journal.applied().unwrap().is_some(), !journal.list().is_empty());
            journal.list().len()
        };
        [has(state.copy()), has(state.crash(Unsynced::Lost))]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_has_what_a_failed_log_may_not_have_is_not_stored_when_its_thread_ends() {
    for stop in [false, true] {
        let mut bench = Bench::new();
        bench.vote().await.unwrap();
        bench.apply(0).await.unwrap();
        bench.worker.make_durable().await.unwrap();
        bench.apply(1).await.unwrap();
        // Only the log's disk fails: the state's would take whatever is written to it.
        bench.journal.fail_now();
        assert!(bench.vote().await.is_err());
        assert!(bench.apply(2).await.is_err() && bench.worker.make_durable().await.is_err());
        assert_eq!(bench.probe.length.load(Ordering::SeqCst), 2, "it is there to be looked at");
        assert_eq!(bench.left(stop).await, [1, 1], "stopped in order: {stop}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_whose_log_is_sound_is_stored_when_its_thread_ends() {
    for stop in [false, true] {
        let bench = Bench::new();
        bench.apply(0).await.unwrap();
        bench.apply(1).await.unwrap();
        assert_eq!(bench.left(stop).await, [2, 2], "stopped in order: {stop}");
    }
}
