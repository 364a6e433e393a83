//! openraft's view of a machine.

use std::io;

use futures::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};

use super::{
    snapshot::SnapshotData,
    worker::{Job, Step, WorkerHandle},
};
use crate::consensus::{
    codec::Applied,
    types::{EntryPayload, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, Types},
};

/// Most entries and bytes that a machine gets in one call. openraft may commit any number at once.
const APPLY_ENTRIES: usize = 1024;
const APPLY_BYTES: usize = 8 << 20;

/// Passes openraft's calls on to the machine's thread, and remembers how far it is.
#[derive(Debug)]
pub(in crate::consensus) struct MachineAdapter {
    worker: WorkerHandle,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl MachineAdapter {
    pub(in crate::consensus) fn new(worker: WorkerHandle, applied: Option<&Applied>) -> Self {
        Self {
            worker,
            last: applied.map(|applied| applied.last),
            membership: applied.map(|applied| applied.membership.clone()).unwrap_or_default(),
        }
    }

    async fn apply_steps(&mut self, steps: Vec<Step>) -> io::Result<()> {
        let last = steps.last().map(|(entry, _)| entry.log_id);
        let membership = steps.iter().rev().find_map(|(entry, _)| match &entry.payload {
            EntryPayload::Membership(new) => Some(StoredMembership::new(Some(entry.log_id), new.clone())),
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        });
        self.worker.ask(|done| Job::Apply { steps, done }).await?;
        self.last = last.or(self.last);
        if let Some(membership) = membership {
            self.membership = membership;
        }
        Ok(())
    }
}

impl RaftStateMachine<Types> for MachineAdapter {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut steps: Vec<Step> = Vec::new();
        let mut bytes = 0_usize;
        while let Some(step) = entries.next().await {
            let step = step?;
            if let EntryPayload::Normal(Payload(body)) = &step.0.payload {
                bytes = bytes.saturating_add(body.len());
            }
            steps.push(step);
            if steps.len() >= APPLY_ENTRIES || bytes >= APPLY_BYTES {
                self.apply_steps(std::mem::take(&mut steps)).await?;
                bytes = 0;
            }
        }
        if steps.is_empty() { Ok(()) } else { self.apply_steps(steps).await }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.worker.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), io::Error> {
        self.worker.ask(|done| Job::Install { meta: meta.clone(), data, done }).await?;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    /// The state itself is the snapshot, always the newest.
    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        match self.last {
            None => Ok(None),
            // A group that was held from its first entry on has none.
            Some(_) => {
                let own = self.worker.ask(|done| Job::Snapshot { done }).await?;
                Ok(own.meta.last_log_id.is_some().then_some(own))
            }
        }
    }
}

/// Makes snapshots, in openraft's sense, while the machine goes on.
pub(in crate::consensus) struct Builder(WorkerHandle);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        self.0.ask(|done| Job::Snapshot { done }).await
    }
}
