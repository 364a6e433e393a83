//! The spool's one writer: a thread that gathers what is asked, commits it together, and answers.
//!
//! A batch is answered only after its commit was synced. When the disk refuses (full, failing), nothing is answered: the sources
//! keep their messages unacknowledged, the database is opened anew (redb takes no more writes after an IO error), and the
//! same batch is tried again with growing pauses. Whether a commit whose sync failed has happened after all is told by the
//! commit number that every transaction writes: so nothing is done twice.
//!
//! Commits are durable and one-phase. The checksum that then decides after a crash is not a cryptographic one, which matters to
//! somebody who chooses the bytes of a page: everything here is sealed under keys and nonces that no sender knows, save for
//! the rooms' control records, so the commits that hold those are two-phase. A large spool commits with quick-repair (which
//! is two-phase as well), because walking it after a crash would take longer than the broker's queue should wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use redb::{Database, Durability, ReadableDatabase};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::apply::{Apply, ApplyError, Context, Finished, Memory, create_tables};
use super::commit_delay::CommitDelay;
use super::request::{Answer, Request};
use super::seen::Places;
use super::shared::{Fault, Shared};
use super::tables::{KEY_USE, META};
use super::{SpoolError, SpoolLimits};
use crate::clock::WallClock;

/// Most requests in one commit: what a busy home sends while one commit of a slow disk lasts.
const BATCH_MAX: usize = 512;
/// From this size on, commits cost more and opening after a crash costs next to nothing.
const QUICK_REPAIR_FROM_BYTES: u64 = 64 * 1024 * 1024;

/// Opens the database: a file, or what a test puts in its place.
pub type OpenDatabase = Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send + Sync>;

/// One request with who waits for its answer.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Answer>,
    /// Bounds the messages on their way through the writer.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
}

pub(super) enum Order {
    Job(Box<Job>),
    /// A reader met an error: see whether the database still works.
    Probe,
    Stop,
}

pub(super) struct Writer {
    pub(super) orders: Receiver<Order>,
    pub(super) shared: Arc<Shared>,
    pub(super) open: OpenDatabase,
    pub(super) limits: SpoolLimits,
    pub(super) clock: WallClock,
    pub(super) commit: u64,
    /// As of the last commit.
    pub(super) memory: Memory,
    pub(super) delay: CommitDelay,
    /// Messages in the order of their receipt; those that find the spool full stay here, unacknowledged.
    pub(super) waiting: VecDeque<Job>,
    pub(super) others: Vec<Job>,
    pub(super) stopping: bool,
}

/// An attempt that reached its commit.
struct Attempt {
    others: Vec<Answer>,
    stores: Vec<Answer>,
    finished: Finished,
}

enum Failed {
    /// Nothing was committed.
    Before(ApplyError),
    /// The commit itself failed: whether it happened shows when the database is opened again.
    Committing(Box<Attempt>, ApplyError),
}

impl<E: Into<ApplyError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Before(error.into())
    }
}

/// Opens the database with its tables, and gives the number of its last commit.
pub(super) fn open(open: &OpenDatabase) -> Result<(Database, u64), ApplyError> {
    let db = open()?;
    let commit = {
        let read = db.begin_read()?;
        match read.open_table(META) {
            Ok(meta) => meta.get("commit")?.map(|v| v.value()),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        }
    };
    if let Some(commit) = commit {
        return Ok((db, commit));
    }
    let tx = db.begin_write()?;
    create_tables(&tx)?;
    tx.open_table(META)?.insert("commit", 0)?;
    tx.commit()?;
    Ok((db, 0))
}

impl Writer {
    /// Whether there is nothing to do but messages, which can wait for company: an alarm waits for nothing, and neither do windows
    /// and receipts.
    fn may_gather(&self) -> bool {
        let alarm = |job: &Job| match &job.request {
            Request::Store(intake) => intake.rows.iter().any(|row| row.body.alarm),
            _ => true,
        };
        !self.stopping && self.others.is_empty() && !self.waiting.is_empty() && !self.waiting.iter().any(alarm)
    }

    pub(super) fn run(mut self) {
        while self.collect() {
            // What one commit does not cover goes into the next one at once: nobody's further order is waited for.
            while self.carry_out() {}
        }
        // Whoever still waits learns from the dropped answers that nothing was committed.
    }

    /// Waits for something to do, then takes what else is there.
    fn collect(&mut self) -> bool {
        if self.stopping {
            return false;
        }
        match self.orders.recv() {
            Ok(order) => self.take(order),
            Err(_) => return false,
        }
        self.take_all();
        self.gather();
        true
    }

    /// What is there.
    fn take_all(&mut self) {
        for _ in 0..BATCH_MAX {
            match self.orders.try_recv() {
                Ok(order) => self.take(order),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    break;
                }
            }
        }
    }

    /// Waits for further messages, as long as that is worth it.
    fn gather(&mut self) {
        let mut group = None;
        while self.may_gather() {
            let now = Instant::now();
            let Some(until) = self.delay.until(&mut group, now, self.waiting.len()) else { return };
            match self.orders.recv_timeout(until.saturating_duration_since(now)) {
                Ok(order) => self.take(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Job(job) => match job.request {
                Request::Store(_) | Request::NewSession(_) => {
                    self.delay.came(Instant::now());
                    self.waiting.push_back(*job);
                }
                _ => self.others.push(*job),
            },
            // The attempt itself shows whether the database works.
            Order::Probe => {}
            Order::Stop => self.stopping = true,
        }
    }

    /// Commits what was collected, however often that takes. Says whether messages wait that only did not fit into the commit.
    fn carry_out(&mut self) -> bool {
        let mut pause_ms = self.limits.retry_min_ms;
        let mut doubtful: Option<(Box<Attempt>, Places)> = None;
        loop {
            let before = self.memory.seen.places();
            match self.attempt() {
                Ok(attempt) => return self.answer(attempt),
                Err(Failed::Before(error)) => self.shared.set_fault(Some(Fault::of(&error))),
                Err(Failed::Committing(attempt, error)) => {
                    self.shared.set_fault(Some(Fault::of(&error)));
                    doubtful = Some((attempt, self.memory.seen.places()));
                }
            }
            loop {
                if self.shared.wait_or_stop(Duration::from_millis(pause_ms)) {
                    self.stopping = true;
                    return false;
                }
                pause_ms = pause_ms.saturating_mul(2).min(self.limits.retry_max_ms);
                match self.reopen() {
                    Ok(commit) => {
                        // It has happened after all: the connections stand where its messages brought them.
                        if commit == self.commit + 1
                            && let Some((attempt, after)) = doubtful.take()
                        {
                            self.memory.seen.back_to(&after);
                            self.commit = commit;
                            return self.answer(*attempt);
                        }
                        self.memory.seen.back_to(&before);
                        break;
                    }
                    Err(error) => self.shared.set_fault(Some(Fault::of(&error))),
                }
            }
            doubtful = None;
        }
    }

    fn reopen(&mut self) -> Result<u64, ApplyError> {
        let mut db = self.shared.write_db();
        *db = None; // closes: the file's lock is free before it is opened again
        let (opened, commit) = open(&self.open)?;
        self.memory = super::read::memory(&opened)?;
        *db = Some(opened);
        Ok(commit)
    }

    fn attempt(&mut self) -> Result<Attempt, Failed> {
        let now = (self.clock)();
        self.shared.write_keys().ensure(now.day()).map_err(ApplyError::from)?;
        let shared = self.shared.clone();
        let guard = shared.read_db();
        let Some(db) = guard.as_ref() else {
            return Err(Failed::Before(ApplyError::Database(redb::Error::DatabaseClosed)));
        };
        let keys = shared.read_keys();
        let mut tx = db.begin_write()?;
        tx.set_durability(Durability::Immediate).map_err(|e| ApplyError::Database(e.into()))?;
        tx.set_two_phase_commit(
            self.others.iter().any(|job| matches!(job.request, Request::SaveRoom { .. } | Request::SaveLog { .. })),
        );
        let (mut others, mut stores) = (Vec::new(), Vec::new());
        let mut apply = Apply::begin(
            &tx,
            Context { keys: &keys, now, limits: &self.limits, on_hold: &shared.on_hold },
            &mut self.memory,
        )?;
        for job in &self.others {
            others.push(apply.request(&job.request)?);
        }
        for job in self.waiting.iter().take(BATCH_MAX) {
            match apply.request(&job.request)? {
                Answer::Full => break,
                answer => stores.push(answer),
            }
        }
        let finished = apply.finish(self.commit + 1)?;
        if others.is_empty() && stores.is_empty() && !self.waiting.is_empty() {
            tx.abort()?;
            return Ok(Attempt { others, stores, finished });
        }
        tx.set_quick_repair(finished.totals.bytes() >= QUICK_REPAIR_FROM_BYTES);
        let attempt = Attempt { others, stores, finished };
        match tx.commit() {
            Ok(()) => {
                self.commit += 1;
                Ok(attempt)
            }
            Err(error) => Err(Failed::Committing(Box::new(attempt), error.into())),
        }
    }

    /// The numbers first: whoever has an answer finds them true. Says what [`Writer::carry_out`] says.
    fn answer(&mut self, attempt: Attempt) -> bool {
        let Attempt { others, stores, finished } = attempt;
        let waiting = self.waiting.len() - stores.len().min(self.waiting.len());
        let more = waiting > 0 && stores.len() == BATCH_MAX;
        let full = waiting > 0 && !more;
        self.shared.set_fault(None);
        self.shared.committed(finished, self.commit, full, waiting);
        self.destroy_old_keys();
        // Nobody may wait any more; what was asked is done all the same.
        for (job, answer) in self.others.drain(..).zip(others) {
            let _ = job.answer.send(answer);
        }
        // The last one first: who awaits them in their order is woken once, when all are there.
        for (job, answer) in self.waiting.drain(..stores.len()).zip(stores).rev() {
            let _ = job.answer.send(answer);
        }
        more
    }

    /// After a commit: the keys of past days that no row needs any more.
    fn destroy_old_keys(&self) {
        let today = (self.clock)().day();
        if !self.shared.read_keys().has_before(today) {
            return;
        }
        let needed = || -> Result<Vec<u32>, ApplyError> {
            let guard = self.shared.read_db();
            let Some(db) = guard.as_ref() else { return Err(ApplyError::Database(redb::Error::DatabaseClosed)) };
            let table = db.begin_read()?.open_table(KEY_USE)?;
            let mut days = Vec::new();
            for entry in redb::ReadableTable::iter(&table)? {
                days.push(entry?.0.value());
            }
            Ok(days)
        };
        let Ok(needed) = needed() else { return };
        match self.shared.write_keys().destroy_unneeded(today, |day| needed.contains(&day.0)) {
            Ok(0) => {}
            Ok(gone) => tracing::info!(keys = gone, "spool: destroyed the keys of days without rows"),
            // It is tried again after the next commit.
            Err(error) => tracing::warn!(%error, "spool: could not destroy old keys"),
        }
    }
}

/// Turns a failed opening into the error that the program ends with.
pub(super) fn opening(error: ApplyError) -> SpoolError {
    match error {
        ApplyError::Keys(error) => SpoolError::Keys(error),
        ApplyError::Database(redb::Error::DatabaseAlreadyOpen) => SpoolError::InUse,
        other => SpoolError::Open(other.to_string().trim_end_matches('.').to_owned()),
    }
}
