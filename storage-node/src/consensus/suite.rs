//! openraft's own suite for storage, on the real log and a real machine.

use std::sync::Arc;

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use redb::backends::FileBackend;
use tempfile::TempDir;
use tokio::sync::mpsc::unbounded_channel;

use super::{
    codec::NodeRecord,
    config::Config,
    fence::Fence,
    ids::{GroupId, NodeId, NodeUid},
    log::{
        file::{self, LogFile, Stored},
        group::{Durable, GroupLog},
        journal::recover,
        store::LogStore,
        writer,
    },
    state::{self, MachineAdapter, Policy, Setup},
    types::Types,
};

mod api {
    pub(super) use crate::consensus::{
        AppliedMeta, Command, Latch, Latched, Machine, MachineError, Position, Stage, Stager, Vetting,
    };
}

#[path = "../../tests/support/journal.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "shared with the integration tests, which use more of it")]
pub(in crate::consensus) mod journal;

use journal::{Journal, Probe};

/// With a journal of so many bytes.
struct Builder(u64);

impl StoreBuilder<Types, LogStore, MachineAdapter, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, MachineAdapter), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let backend = |name: &str| {
            let path = dir.path().join(name);
            FileBackend::new(std::fs::File::options().read(true).write(true).create_new(true).open(path).unwrap())
                .unwrap()
        };
        let config = Config::new(NodeId(0));
        // A small tail and a small cache, so that the suite reads from the file too.
        let db = file::open(backend("raft.redb"), 1 << 20).unwrap();
        let node = NodeRecord { uid: NodeUid([9; 16]), node: NodeId(0) };
        file::write_node(&db, &node).unwrap();
        let journal = recover(&db, backend("raft.journal"), self.0).unwrap();
        let log_file = Arc::new(LogFile::new(db));
        // The suite purges logs that were never applied, so invariant 5 is not checked here.
        let fence = Arc::new(Fence::new(GroupId(0)));
        let log = Arc::new(GroupLog::new(fence, Arc::new(Durable::unbounded()), 512, Stored::default()));
        let (queue, _thread) = writer::spawn(log_file.clone(), journal, vec![log.clone()]).unwrap();
        let machine = Journal::open(backend("state.redb"), Arc::new(Probe::default()));
        let setup = Setup {
            uid: node.uid,
            log: log.clone(),
            queue: queue.clone(),
            policy: Policy::from(&config),
            applied: None,
            compact: unbounded_channel().0,
        };
        let (worker, _stages, _thread) = state::spawn(machine, setup).unwrap();
        Ok((dir, LogStore::new(log_file, log, queue), MachineAdapter::new(worker, None)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_the_machine_pass_the_suite_of_openraft() {
    // What is read comes from redb alone; from both, while sides turn; and from memory, with redb far behind.
    for journal_bytes in [0, 4 * 4096, 1 << 20] {
        Suite::test_all(Builder(journal_bytes)).await.unwrap();
    }
}
