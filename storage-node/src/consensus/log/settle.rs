//! The thread that moves what the journal has into redb, beside the writer.

use std::sync::Arc;

use redb::Durability;

use super::{
    apply::{Purges, Tables},
    file::{self, LogFile},
    group::{GroupLog, Outcome},
    journal::{JournalRecord, change::Change},
};
use crate::consensus::{
    error::Fault,
    runtime::{self, Now, Receiver, Sender},
};

/// What is to be settled in one durable commit.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) changes: Vec<Change>,
    /// Appends among them: the entries before `end` need not be in memory any more.
    pub(super) appended: Vec<Appended>,
    /// How far the journal is settled then.
    pub(super) journal: JournalRecord,
}

/// Entries of a group before `end`, as the log was at `epoch`.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) group: Arc<GroupLog>,
    pub(super) end: u64,
    pub(super) epoch: u64,
}

/// The file failed: no group may write again.
pub(super) fn fail(groups: &[Arc<GroupLog>], source: redb::Error) -> Arc<Fault> {
    let fault = Arc::new(Fault::Log { doing: "writing", source });
    for group in groups {
        group.fence.raise(fault.clone());
    }
    fault
}

/// Settles one job after the other, and goes on with purges in between.
pub(super) struct Settler {
    pub(super) file: Arc<LogFile>,
    pub(super) groups: Vec<Arc<GroupLog>>,
    pub(super) jobs: Receiver<Job>,
    /// Told of each job, in order.
    pub(super) done: Sender<Outcome>,
    pub(super) purges: Purges,
}

impl Settler {
    pub(super) async fn run(mut self) {
        while let Some(job) = self.next().await {
            runtime::moment().await;
            let result = self.commit(job.as_ref()).map_err(|source| fail(&self.groups, source));
            let failed = result.is_err();
            if let Some(job) = job {
                if !failed {
                    job.note();
                }
                drop(self.done.send(result));
            }
            if failed {
                return;
            }
        }
    }

    /// The next job, or none where purges go on meanwhile. Nothing: the log is closed; purges go on in its next life.
    async fn next(&mut self) -> Option<Option<Job>> {
        if self.purges.is_empty() {
            return self.jobs.next().await.map(Some);
        }
        match self.jobs.now() {
            Now::Item(job) => Some(Some(job)),
            Now::Nothing => Some(None),
            Now::Ended => None,
        }
    }

    fn commit(&mut self, job: Option<&Job>) -> Result<(), redb::Error> {
        let (purges, groups) = (&mut self.purges, &self.groups);
        self.file.with(|db| {
            let mut txn = file::begin(db)?;
            if job.is_none() {
                // A purge that a crash undoes is done again: it costs no sync.
                txn.set_durability(Durability::None)?;
            }
            let mut tables = Tables::open(&txn)?;
            for change in job.iter().flat_map(|job| &job.changes) {
                tables.apply(change, purges)?;
            }
            for (group, entry) in purges.step(&mut tables)? {
                if let Some(log) = groups.iter().find(|log| log.fence.group() == group) {
                    log.fence.corrupt(format!("entry {entry} of the log"));
                }
            }
            if let Some(job) = job {
                tables.journal(&job.journal)?;
            }
            drop(tables);
            txn.commit()?;
            Ok(())
        })
    }
}

impl Job {
    /// It is in redb: memory may forget it.
    fn note(&self) {
        for Appended { group, end, epoch } in &self.appended {
            group.stored(*end, *epoch);
        }
    }
}
