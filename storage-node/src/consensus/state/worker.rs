//! The thread of one group's machine: applies, makes durable, and makes and installs snapshots.
//!
//! It sleeps until it is given something, or until changes that are not durable have grown old. A quiet group does
//! not wake it.

use std::{collections::BTreeMap, io, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    Instant,
    storage::ApplyResponder,
    type_config::{TypeConfigExt, alias::InstantOf},
};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::snapshot::{self, SnapshotData, Stages};
use crate::consensus::{
    codec::{self, Applied},
    config::Config,
    error::Fault,
    fence::io_error,
    ids::{GroupId, NodeUid},
    log::{
        group::{GroupLog, next_index},
        writer::LogQueue,
    },
    machine::{Command, Machine, MachineError},
    runtime::{self, Late, Receiver, Sender, Thread},
    types::{Entry, EntryPayload, LogId, Payload, Reply, Snapshot, SnapshotMeta, StoredMembership, Types, position},
};

/// An entry and, if it was proposed here, who waits for its response.
pub(super) type Step = (Entry, Option<ApplyResponder<Types>>);

/// What the thread can be asked to do.
pub(super) enum Job {
    Apply { steps: Vec<Step>, done: oneshot::Sender<io::Result<()>> },
    CatchUp { entries: Vec<Entry>, done: oneshot::Sender<io::Result<()>> },
    MakeDurable { done: oneshot::Sender<io::Result<Option<LogId>>> },
    Snapshot { done: oneshot::Sender<io::Result<Snapshot>> },
    Install { meta: SnapshotMeta, data: SnapshotData, done: oneshot::Sender<io::Result<()>> },
    Forget { done: oneshot::Sender<io::Result<()>> },
    Stop { done: oneshot::Sender<io::Result<Option<LogId>>> },
}

/// When to make durable, and when to offer the log for shortening.
#[derive(Clone, Copy, Debug)]
pub(in crate::consensus) struct Policy {
    pub(in crate::consensus) durable_after: Duration,
    pub(in crate::consensus) durable_after_bytes: u64,
    pub(in crate::consensus) compact_after_bytes: u64,
    pub(in crate::consensus) compact_after_entries: u64,
}

impl From<&Config> for Policy {
    fn from(config: &Config) -> Self {
        Self {
            durable_after: config.durable_after,
            durable_after_bytes: config.durable_after_bytes,
            compact_after_bytes: config.compact_after_bytes,
            compact_after_entries: config.compact_after_entries,
        }
    }
}

/// What the thread starts with.
pub(in crate::consensus) struct Setup {
    pub(in crate::consensus) uid: NodeUid,
    pub(in crate::consensus) log: Arc<GroupLog>,
    pub(in crate::consensus) queue: LogQueue,
    pub(in crate::consensus) policy: Policy,
    /// What the machine had on disk.
    pub(in crate::consensus) applied: Option<Applied>,
    /// Who shortens logs.
    pub(in crate::consensus) compact: UnboundedSender<GroupId>,
}

/// Asks the thread. It ends when the last handle is dropped, or when it is stopped.
#[derive(Clone, Debug)]
pub(in crate::consensus) struct WorkerHandle {
    jobs: Sender<(u64, Job)>,
    /// How often the state had been given up when this handle was made. What is asked for a state that is gone is not done to the next one.
    life: u64,
}

impl WorkerHandle {
    /// Hands a job in and waits for its result.
    pub(super) async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<io::Result<T>>) -> Job) -> io::Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.jobs.send((self.life, job(sender))).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    /// Applies what was passed over, from the entry on at which the state ends. What does not go on from there does nothing.
    pub(in crate::consensus) async fn catch_up(&self, entries: Vec<Entry>) -> io::Result<()> {
        self.ask(|done| Job::CatchUp { entries, done }).await
    }

    /// Makes everything durable that was applied, and says how far that is.
    pub(in crate::consensus) async fn make_durable(&self) -> io::Result<Option<LogId>> {
        self.ask(|done| Job::MakeDurable { done }).await
    }

    /// Gives the state up. Who has the handle that is returned goes on with an empty one; whoever has an older one is refused.
    pub(in crate::consensus) async fn forget(&self) -> io::Result<Self> {
        self.ask(|done| Job::Forget { done }).await?;
        Ok(Self { jobs: self.jobs.clone(), life: self.life.saturating_add(1) })
    }

    /// Makes everything durable and ends the thread.
    pub(in crate::consensus) async fn stop(&self) -> io::Result<Option<LogId>> {
        self.ask(|done| Job::Stop { done }).await
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the machine's thread has ended")
}

/// Starts the thread. Returns also where snapshots for the machine are received.
pub(in crate::consensus) fn spawn<M: Machine>(machine: M, setup: Setup) -> io::Result<(WorkerHandle, Stages, Thread)> {
    let (sender, receiver) = runtime::channel();
    let name = format!("machine-{}", setup.log.fence.group());
    let stages = Stages::of(&machine);
    let worker = Worker {
        stages: stages.clone(),
        machine,
        dirty: None,
        life: 0,
        since_compact: Grown::default(),
        since_durable: 0,
        passed_over: BTreeMap::new(),
        setup,
    };
    let thread = runtime::thread(name, worker.run(receiver))?;
    Ok((WorkerHandle { jobs: sender, life: 0 }, stages, thread))
}

/// What a panic is to the operator: nothing of the disk's, nothing of the configuration's.
const PANICKED: &str = "it panicked; this is a bug of this program, please report it";

/// A machine that panics stops its group like one that returns an error. It is not called again, so nobody sees what
/// it left half done; what it committed is whole.
fn caught<T>(call: impl FnOnce() -> Result<T, MachineError>) -> Result<T, MachineError> {
    std::panic::catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(MachineError::new(PANICKED)))
}

struct Worker<M: Machine> {
    machine: M,
    stages: Stages,
    setup: Setup,
    /// When the oldest change was made that is not durable.
    dirty: Option<InstantOf<Types>>,
    /// How often the state was given up.
    life: u64,
    since_durable: u64,
    since_compact: Grown,
    /// Who waits for the response to an entry that was passed over; no more than proposals that are under way.
    passed_over: BTreeMap<u64, ApplyResponder<Types>>,
}

/// What the log grew by.
#[derive(Default)]
struct Grown {
    entries: u64,
    bytes: u64,
}

impl<M: Machine> Worker<M> {
    async fn run(mut self, mut jobs: Receiver<(u64, Job)>) {
        loop {
            let job = match self.dirty {
                None => Ok(jobs.next().await),
                Some(since) => jobs.next_within(self.setup.policy.durable_after.saturating_sub(since.elapsed())).await,
            };
            let job = match job {
                // Whoever asked hears that there is nobody.
                Ok(Some((life, _))) if life != self.life => continue,
                Ok(job) => Ok(job.map(|(_, job)| job)),
                Err(late) => Err(late),
            };
            match job {
                Ok(Some(Job::Apply { steps, done })) => {
                    let result = self.apply_or_pass_over(steps);
                    if !self.applied(result, done).await {
                        return;
                    }
                }
                Ok(Some(Job::CatchUp { entries, done })) => {
                    let result = self.catch_up(entries);
                    if !self.applied(result, done).await {
                        return;
                    }
                }
                Ok(Some(Job::MakeDurable { done })) => drop(done.send(self.make_durable().await)),
                Ok(Some(Job::Snapshot { done })) => drop(done.send(self.snapshot().await)),
                Ok(Some(Job::Forget { done })) => drop(done.send(self.forget())),
                Ok(Some(Job::Install { meta, data, done })) => drop(done.send(self.install(meta, data).await)),
                Err(Late) => {
                    if self.make_durable().await.is_err() {
                        return;
                    }
                }
                Ok(Some(Job::Stop { done })) => {
                    let result = self.make_durable().await;
                    // The machine closes its files before anybody hears that it has stopped.
                    drop(self);
                    drop(done.send(result));
                    return;
                }
                Ok(None) => {
                    drop(self.make_durable().await);
                    return;
                }
            }
        }
    }

    /// After the answer: whoever proposed does not wait for the sync of the state. False: the thread ends.
    async fn applied(&mut self, result: io::Result<()>, done: oneshot::Sender<io::Result<()>>) -> bool {
        let applied = result.is_ok();
        drop(done.send(result));
        !(applied && self.due() && self.make_durable().await.is_err())
    }

    /// What is not applied now is read from the log when the state is sound again, or the node is started again.
    fn apply_or_pass_over(&mut self, mut steps: Vec<Step>) -> io::Result<()> {
        self.setup.log.fence.check().map_err(io_error)?;
        while let Some((last, _)) = steps.last() {
            let applied = self.setup.applied.as_ref().map(|applied| applied.last);
            if self.setup.log.hold.passes_over(applied, last.log_id) {
                self.pass_over(steps);
                break;
            }
            steps = self.apply(steps)?;
        }
        Ok(())
    }

    fn pass_over(&mut self, steps: Vec<Step>) {
        let waiting = steps.into_iter().filter_map(|(entry, waiting)| Some((entry.log_id.index(), waiting?)));
        self.passed_over.extend(waiting);
    }

    fn catch_up(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let hold = &self.setup.log.hold;
        let next = next_index(self.setup.applied.as_ref().map(|applied| &applied.last));
        let (first, last) = (entries.first().map(|entry| entry.log_id), entries.last().map(|entry| entry.log_id));
        let Some(behind) = hold.behind().filter(|_| hold.why().is_none()) else { return Ok(()) };
        let within = last.is_some_and(|last| last.index() <= behind.upto.index());
        if !within || first.is_none_or(|first| first.index() != next) {
            return Ok(());
        }
        let steps = entries.into_iter().map(|entry| {
            let waiting = self.passed_over.remove(&entry.log_id.index());
            (entry, waiting)
        });
        let mut steps: Vec<Step> = steps.collect();
        while !steps.is_empty() && self.setup.log.hold.why().is_none() {
            steps = self.apply(steps)?;
            if let Some(applied) = &self.setup.applied {
                self.setup.log.hold.reached(applied.last);
            }
        }
        self.pass_over(steps);
        Ok(())
    }

    /// Applies all of the steps, or the first of them: then returns the others.
    fn apply(&mut self, mut steps: Vec<Step>) -> io::Result<Vec<Step>> {
        let Some(first) = self.applied_at_once(&mut steps)? else { return Ok(Vec::new()) };
        // The next commands begin behind as many.
        let commands =
            |(at, (entry, _)): (usize, &Step)| matches!(entry.payload, EntryPayload::Normal(_)).then_some(at);
        let rest = steps.iter().enumerate().filter_map(commands).nth(first).unwrap_or(steps.len());
        let rest = steps.split_off(rest);
        if first == 0 || rest.is_empty() || self.applied_at_once(&mut steps)?.is_some() {
            let what = format!("the machine does not apply the {first} commands that it asked for");
            return Err(io_error(self.setup.log.fence.bug(what)));
        }
        Ok(rest)
    }

    /// Applies the steps, which are taken then; or, with nothing done, says how many of their commands have to come first.
    fn applied_at_once(&mut self, steps: &mut Vec<Step>) -> io::Result<Option<usize>> {
        self.setup.log.fence.check().map_err(io_error)?;
        let Some((last, _)) = steps.last() else { return Ok(None) };
        let last = last.log_id;
        let mut membership = self.setup.applied.as_ref().map(|a| a.membership.clone()).unwrap_or_default();
        let mut commands = Vec::with_capacity(steps.len());
        let mut grown = Grown::default();
        for (entry, _) in steps.iter() {
            match &entry.payload {
                EntryPayload::Normal(Payload(bytes)) => {
                    grown.bytes = grown.bytes.saturating_add(bytes.len() as u64);
                    commands.push(Command { position: position(&entry.log_id), bytes: bytes.clone() });
                }
                EntryPayload::Membership(new) => membership = StoredMembership::new(Some(entry.log_id), new.clone()),
                EntryPayload::Blank => {}
            }
            grown.entries = grown.entries.saturating_add(1);
        }
        let applied = Applied { uid: self.setup.uid, last, membership };
        let responses = match caught(|| self.machine.apply(&commands, &codec::encode_applied(&applied))) {
            Err(parts) if parts.first_part().is_some() => return Ok(parts.first_part()),
            responses => responses.map_err(|source| self.failed("applying", source))?,
        };
        self.dirty.get_or_insert_with(Types::now);
        self.setup.log.hold.outdate(self.machine.outdated().as_deref());
        if responses.len() != commands.len() {
            let what = format!("the machine gave {} responses to {} commands", responses.len(), commands.len());
            return Err(io_error(self.setup.log.fence.bug(what)));
        }
        self.setup.applied = Some(applied);
        self.since_durable = self.since_durable.saturating_add(grown.bytes);
        self.since_compact.bytes = self.since_compact.bytes.saturating_add(grown.bytes);
        self.since_compact.entries = self.since_compact.entries.saturating_add(grown.entries);
        let mut responses = responses.into_iter();
        for (entry, responder) in steps.drain(..) {
            let is_command = matches!(entry.payload, EntryPayload::Normal(_));
            let response = if is_command { responses.next().unwrap_or_default() } else { Bytes::new() };
            if let Some(responder) = responder {
                responder.send(Reply(response));
            }
        }
        Ok(None)
    }

    fn due(&self) -> bool {
        let policy = &self.setup.policy;
        self.since_durable >= policy.durable_after_bytes
            || self.dirty.is_some_and(|since| since.elapsed() >= policy.durable_after)
    }

    /// Invariant 3: the log is on disk before a state that contains it.
    async fn make_durable(&mut self) -> io::Result<Option<LogId>> {
        self.setup.log.fence.check().map_err(io_error)?;
        let Some(last) = self.setup.applied.as_ref().map(|applied| applied.last) else { return Ok(None) };
        if self.dirty.is_none() {
            return Ok(Some(last));
        }
        self.setup.queue.wait_flushed(&self.setup.log, last.index()).await?;
        let synced = caught(|| self.machine.make_durable());
        synced.map_err(|source| self.failed("making it durable", source))?;
        self.durable(last);
        self.offer_compaction();
        Ok(Some(last))
    }

    fn durable(&mut self, last: LogId) {
        self.dirty = None;
        self.since_durable = 0;
        self.setup.log.durable.advance(last.index());
    }

    fn offer_compaction(&mut self) {
        let (policy, grown) = (&self.setup.policy, &self.since_compact);
        if grown.bytes >= policy.compact_after_bytes || grown.entries >= policy.compact_after_entries {
            self.since_compact = Grown::default();
            // Nobody listens while the node shuts down.
            let _ = self.setup.compact.send(self.setup.log.fence.group());
        }
    }

    /// Invariant 4: a snapshot in openraft's sense is a state that is durable.
    async fn snapshot(&mut self) -> io::Result<Snapshot> {
        self.make_durable().await?;
        let meta = self.setup.applied.as_ref().map_or_else(SnapshotMeta::default, |applied| SnapshotMeta {
            last_log_id: Some(applied.last),
            last_membership: applied.membership.clone(),
        });
        let reader = caught(|| self.machine.snapshot()).map_err(|source| self.failed("opening a snapshot", source))?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Own(reader) })
    }

    /// Invariant 6: that the state may pass the end of the log stands in the log first.
    async fn install(&mut self, meta: SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        self.setup.log.fence.check().map_err(io_error)?;
        let last = meta.last_log_id.ok_or_else(|| io::Error::other("a snapshot of nothing"))?;
        self.setup.queue.mark_installing(&self.setup.log, last).await?;
        let applied = Applied { uid: self.setup.uid, last, membership: meta.last_membership };
        let meta = codec::encode_applied(&applied);
        let installed = caught(|| snapshot::adopt(&mut self.machine, &self.stages, data, &meta));
        installed.map_err(|source| self.failed("installing a snapshot", source))?;
        self.setup.applied = Some(applied);
        // It is whole, and has whatever was passed over.
        self.passed_over.clear();
        self.setup.log.hold.reached(last);
        self.setup.log.hold.outdate(self.machine.outdated().as_deref());
        self.durable(last);
        Ok(())
    }

    fn forget(&mut self) -> io::Result<()> {
        self.setup.log.fence.check().map_err(io_error)?;
        caught(|| self.machine.forget()).map_err(|source| self.failed("giving up the state", source))?;
        self.setup.applied = None;
        self.passed_over.clear();
        self.setup.log.hold.forget();
        self.setup.log.hold.outdate(self.machine.outdated().as_deref());
        self.dirty = None;
        (self.since_durable, self.since_compact) = (0, Grown::default());
        self.setup.log.durable.forget();
        self.life = self.life.saturating_add(1);
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: MachineError) -> io::Error {
        let fence = &self.setup.log.fence;
        io_error(fence.raise(Fault::Machine { group: fence.group(), doing, source }))
    }
}

impl<M: Machine> Drop for Worker<M> {
    /// Invariant 3, however the thread ends: a storage library makes durable what it closes, and the log may not have it, or never get it.
    fn drop(&mut self) {
        if self.dirty.is_some() || self.setup.log.fence.check().is_err() {
            let abandoned = caught(|| {
                self.machine.abandon();
                Ok(())
            });
            drop(abandoned.map_err(|source| self.failed("letting go of it", source)));
        }
    }
}
