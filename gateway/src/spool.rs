//! The spool: everything that is the gateway's to lose, in one sealed redb file.
//!
//! A reading is acknowledged to its source once it lies here, becomes an event in the same commit that takes its row away, and
//! the event leaves against a verified receipt only. Killed at any moment, the gateway finds each reading in exactly one of
//! these places. `spool/tables.rs` draws the file, `spool/apply.rs` says what each request does, `spool/writer.rs` when
//! it is durable.

mod apply;
mod commit_delay;
mod held;
mod hold;
mod keys;
mod read;
mod request;
mod rows;
mod seen;
mod shared;
mod tables;
mod writer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, RwLock, mpsc};
use std::time::{Duration, Instant};

use ehe::id::{EheId, RoomId, WrapId};
use ehe::leaf::VerifiedReceipt;
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use redb::Database;
use tokio::sync::{Semaphore, oneshot, watch};

pub use self::apply::Totals;
pub use self::held::HeldDevice;
pub use self::keys::KeyError;
pub use self::read::{HeldRow, SpooledWindow, StoredEvent, Taken};
pub use self::request::{
    Arrival, Confirmed, Intake, Mark, NewEvent, Place, Position, ReportedReading, Retry, Row, Stored,
};
pub use self::rows::Body;
pub use self::shared::{Fault, SpoolStatus};
pub use self::tables::{Thinned, WindowKey};
pub use self::writer::OpenDatabase;

use self::apply::ApplyError;
use self::commit_delay::CommitDelay;
use self::keys::KeyRing;
use self::request::{Answer, Request};
use self::shared::{Shared, whole};
use self::writer::{Job, Order, Writer};
use crate::clock::WallClock;
use crate::report::Report;

/// Largest verified control state of one room that the spool keeps.
pub const ROOM_STATE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Largest state of a shard's log that the spool keeps: a signed checkpoint and little else.
pub const LOG_STATE_MAX_BYTES: usize = 2 * ehe::limits::CHECKPOINT_MAX_BYTES;
/// Messages on their way through the writer at once; further ones wait with their source.
const STORES_IN_FLIGHT_MAX: usize = 1024;

/// Bounds of the spool.
#[derive(Debug, Clone)]
pub struct SpoolLimits {
    /// All parts together: from here on nothing more is acknowledged to sources until there is room again.
    pub max_bytes: u64,
    /// What waits of one room: from here on further readings of windows that cannot be sealed (no invitation, or none any more) are
    /// dropped, and each drop is recorded. One room must not keep the others' readings from being stored. Alarms, and what can be
    /// sealed, are bounded by `max_bytes` alone.
    pub room_max_bytes: u64,
    /// Readings of unassigned devices: from here on they are dropped, and the drops counted.
    pub held_max_bytes: u64,
    /// Unassigned devices that are told apart.
    pub held_devices_max: u64,
    /// Events that the ledger refused for good: from here on they stay in the outbox.
    pub quarantine_max_bytes: u64,
    /// How long a message may wait for others to be committed with it, when there are few.
    pub gather_ms: u64,
    /// Messages after which a source sends no more before some are acknowledged, the smallest of all sources: so many wait for no others.
    pub unacknowledged_max: usize,
    /// First pause after a disk fault.
    pub retry_min_ms: u64,
    /// Longest pause between attempts during a disk fault.
    pub retry_max_ms: u64,
}

/// Why the spool did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The program is stopping; what was asked may or may not have been done.
    #[error("the spool is stopping")]
    Stopped,
    /// The quarantine has reached its bound; the event stays in the outbox.
    #[error("the quarantine is full (spool.quarantine_max_mib): look at why the ledger refuses, then raise it")]
    QuarantineFull,
    /// What waits of the room fills its share; the held rows stay where they are.
    #[error(
        "what waits to be sealed fills the room's share (spool.room_max_percent); its held readings stay held until there is room"
    )]
    RoomFull,
    /// A room's control state is larger than the spool keeps.
    #[error("{found} bytes of control state where at most {ROOM_STATE_MAX_BYTES} are kept")]
    RoomTooLarge {
        /// Bytes given.
        found: usize,
    },
    /// Rows that should be replaced are gone. Our own fault.
    #[error("rows of a window were taken twice (a fault of this program; nothing was lost)")]
    Conflict,
    /// The file does not open.
    #[error(
        "the spool's file spool.redb (in data_dir) does not open: {0}; look at the kernel's log for a failing disk, and at the file's owner and mode"
    )]
    Open(String),
    /// The file is another program's.
    #[error(
        "another ehe-gateway runs on this data_dir (it holds spool.redb): stop that one, or give this one a data_dir of its own"
    )]
    InUse,
    /// The spool's keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The data directory.
    #[error("data directory {}: {why}", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
}

/// What waits for one room's receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomBacklog {
    /// The room.
    pub room: RoomId,
    /// Events.
    pub events: u64,
    /// Bytes, overhead included.
    pub bytes: u64,
    /// One of them goes before all others.
    pub urgent: bool,
    /// Receipt of the oldest reading in them.
    pub oldest: UnixMs,
}

/// A handle on the spool. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    permits: Arc<Semaphore>,
    report: Option<Report>,
}

/// The writer's thread, to be ended.
#[must_use]
pub struct SpoolThread {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    thread: std::thread::JoinHandle<()>,
}

impl SpoolThread {
    /// Ends the writer: what is under way is committed, what waits for room or for the disk is not (and was not acknowledged).
    pub fn stop(self) {
        *whole(self.shared.stop.0.lock()) = true;
        self.shared.stop.1.notify_all();
        let _ = self.orders.send(Order::Stop);
        if self.thread.join().is_err() {
            tracing::error!("spool: the writer had panicked");
        }
        *self.shared.write_db() = None;
    }
}

/// The spool's file in a data directory.
///
/// A new one is made under another name and renamed once it is whole: redb does not open a file again that it was killed
/// while making.
pub fn file(data_dir: &Path, cache_bytes: usize) -> OpenDatabase {
    let (path, unfinished) = (data_dir.join("spool.redb"), data_dir.join("spool.redb.new"));
    let data_dir = data_dir.to_owned();
    let open = move |path: &Path| {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Database::builder().set_cache_size(cache_bytes).create_file(file)
    };
    Box::new(move || {
        if !certs::file::is_made(&path)? {
            match std::fs::remove_file(&unfinished) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            drop(open(&unfinished)?); // closing writes and syncs what there is
            std::fs::rename(&unfinished, &path)?;
            std::fs::File::open(&data_dir)?.sync_all()?;
        }
        open(&path)
    })
}

/// Makes the data directory, for its owner only.
pub fn create_dir(path: &Path) -> Result<(), SpoolError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|why| SpoolError::Directory { path: path.to_owned(), why })
}

impl Spool {
    /// Opens the spool and starts its writer. `report` is for the lab alone.
    pub fn open(
        open: OpenDatabase,
        key_file: &Path,
        limits: SpoolLimits,
        clock: WallClock,
        report: Option<Report>,
    ) -> Result<(Self, SpoolThread), SpoolError> {
        let (db, commit) = writer::open(&open).map_err(writer::opening)?;
        let keys = KeyRing::open(key_file)?;
        for day in read::key_days(&db).map_err(writer::opening)? {
            if !keys.has(ehe::time::Day(day)) {
                return Err(keys.missing(ehe::time::Day(day)).into());
            }
        }
        let backlog = read::room_totals(&db).map_err(writer::opening)?.into_iter().collect();
        let totals = read::totals(&db).map_err(writer::opening)?;
        let memory = read::memory(&db).map_err(writer::opening)?;
        let thinned = read::thinned(&db).map_err(writer::opening)?;
        let status =
            SpoolStatus { totals, max_bytes: limits.max_bytes, commits: commit, thinned, ..SpoolStatus::default() };
        let shared = Arc::new(Shared {
            db: RwLock::new(Some(db)),
            keys: RwLock::new(keys),
            backlog: RwLock::new(backlog),
            status: Mutex::new(status),
            on_hold: RwLock::default(),
            changed: watch::Sender::new(0),
            stop: (Mutex::new(false), Condvar::new()),
        });
        let delay =
            CommitDelay::new(Duration::from_millis(limits.gather_ms), limits.unacknowledged_max, Instant::now());
        let (orders, receiver) = mpsc::channel();
        let writer = Writer {
            orders: receiver,
            shared: shared.clone(),
            open,
            limits,
            clock,
            commit,
            memory,
            delay,
            waiting: VecDeque::new(),
            others: Vec::new(),
            stopping: false,
        };
        let thread = std::thread::Builder::new()
            .name("spool".into())
            .spawn(move || writer.run())
            .map_err(|why| SpoolError::Open(why.to_string()))?;
        let permits = Arc::new(Semaphore::new(STORES_IN_FLIGHT_MAX));
        let spool = Self { shared: shared.clone(), orders: orders.clone(), permits, report };
        Ok((spool, SpoolThread { shared, orders, thread }))
    }

    // --- for the sources

    /// Hands a message's readings to the writer. The receiver fires once they are durable; it waits while the spool is full
    /// or the disk refuses. Messages are committed in the order of these calls.
    pub async fn store(&self, intake: Intake) -> Result<Storing, SpoolError> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| SpoolError::Stopped)?;
        let (answer, receiver) = oneshot::channel();
        let job = Job { request: Request::Store(intake), answer, _permit: Some(permit) };
        self.orders.send(Order::Job(Box::new(job))).map_err(|_| SpoolError::Stopped)?;
        Ok(Storing(receiver))
    }

    /// The broker has a new session for this source: no redelivery can come from the old one. Takes effect between the
    /// messages that were handed over before and those after.
    pub fn new_session_queued(&self, source: Arc<str>) -> Result<(), SpoolError> {
        let (answer, _) = oneshot::channel();
        let job = Job { request: Request::NewSession(source), answer, _permit: None };
        self.orders.send(Order::Job(Box::new(job))).map_err(|_| SpoolError::Stopped)
    }

    /// Where a replaying source goes on.
    pub async fn position(&self, source: String) -> Result<Option<u64>, SpoolError> {
        self.read(move |db, _| read::position(db, &source)).await
    }

    // --- for windows and sealing

    /// All windows that the spool holds, from a scan: for the start.
    pub async fn windows(&self) -> Result<Vec<SpooledWindow>, SpoolError> {
        self.read(|db, _| read::windows(db)).await
    }

    /// Opens rows of a window, oldest first: at most `readings_max` readings, at least one row.
    pub async fn take(&self, window: WindowKey, readings_max: usize) -> Result<Taken, SpoolError> {
        self.read(move |db, keys| read::take(db, keys, &window, readings_max)).await
    }

    /// Puts events in the place of the rows that they were made from, in one commit. Rows that do not open any more are kept
    /// aside.
    pub async fn seal(
        &self,
        rows: Vec<Vec<u8>>,
        broken: Vec<Vec<u8>>,
        events: Vec<NewEvent>,
    ) -> Result<(), SpoolError> {
        match self.ask(Request::Seal { rows, broken, events }).await? {
            Answer::Conflict => Err(SpoolError::Conflict),
            _ => Ok(()),
        }
    }

    /// A window cannot be sealed at present; `whole_room`: nor can any other of its room.
    pub fn on_hold(&self, window: WindowKey, whole_room: bool) {
        whole(self.shared.on_hold.write()).add(window, whole_room);
    }

    /// A window is not on hold any more.
    pub fn off_hold(&self, window: &WindowKey) {
        whole(self.shared.on_hold.write()).remove(window);
    }

    /// The rooms changed: nothing is on hold until it was tried again.
    pub fn none_on_hold(&self) {
        whole(self.shared.on_hold.write()).clear();
    }

    // --- for the assignments

    /// Devices that nobody is assigned to.
    pub async fn held_devices(&self) -> Result<Vec<(Vec<u8>, HeldDevice)>, SpoolError> {
        self.read(read::held_devices).await
    }

    /// Held rows of a device: key and readings; none where a row does not open.
    pub async fn held_rows(&self, tag: Vec<u8>, rows_max: usize) -> Result<Vec<HeldRow>, SpoolError> {
        self.read(move |db, keys| read::held_rows(db, keys, &tag, rows_max)).await
    }

    /// Moves held rows of a device to their owner, in one commit; all of them, or where the room has no place for them none.
    pub async fn assign(
        &self,
        tag: Vec<u8>,
        rows: Vec<(Vec<u8>, Vec<Row>)>,
        broken: Vec<Vec<u8>>,
    ) -> Result<Stored, SpoolError> {
        match self.ask(Request::Assign { tag, rows, broken }).await? {
            Answer::Conflict => Err(SpoolError::Conflict),
            Answer::Full => Err(SpoolError::RoomFull),
            Answer::Stored(stored) => Ok(stored),
            _ => Ok(Stored::default()),
        }
    }

    // --- for the uplink

    /// Moves on whenever the outbox gained or lost events.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// What waits for receipts, room by room: urgent rooms first, then those with the oldest readings.
    pub fn backlog(&self) -> Vec<RoomBacklog> {
        let mut rooms: Vec<_> = whole(self.shared.backlog.read())
            .iter()
            .map(|(room, totals)| RoomBacklog {
                room: *room,
                events: totals.events,
                bytes: totals.bytes,
                urgent: totals.urgent > 0,
                oldest: totals.oldest,
            })
            .collect();
        rooms.sort_by_key(|r| (!r.urgent, r.oldest, r.room));
        rooms
    }

    /// The next events of a room in the order in which to send them: urgent ones first, a wrap always before what needs it. At
    /// least one if there is any.
    pub async fn batch(
        &self,
        room: RoomId,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<StoredEvent>, SpoolError> {
        let (events, broken) = self.read(move |db, _| read::batch(db, room, events_max, bytes_max)).await?;
        if !broken.is_empty() {
            tracing::error!(%room, rows = broken.len(), "spool: rows of the outbox are not what was written (a failing disk?); they are kept aside");
            self.ask(Request::PutAside { room, keys: broken }).await?;
        }
        Ok(events)
    }

    /// Deletes the events that the receipt proves to be in the ledger: no other way leads out of the spool.
    pub async fn confirm(&self, receipt: &VerifiedReceipt) -> Result<Confirmed, SpoolError> {
        let run = receipt.run().run();
        if let Some(report) = &self.report {
            // Before the events leave: killed in between, the gateway reports them twice rather than never.
            let (room, ids) = (run.room, run.ids.clone());
            let lines = self.read(move |db, keys| read::reports(db, keys, room, &ids)).await?;
            report.confirmed(lines).await;
        }
        match self.ask(Request::Confirm { room: run.room, ids: run.ids.clone() }).await? {
            Answer::Confirmed(confirmed) => Ok(confirmed),
            _ => Ok(Confirmed::default()),
        }
    }

    /// Puts an event aside that the ledger refused for good: kept, counted, not sent again.
    pub async fn quarantine(&self, room: RoomId, id: EheId, refusal: Refusal) -> Result<(), SpoolError> {
        match self.ask(Request::Quarantine { room, id, refusal }).await? {
            Answer::QuarantineFull => Err(SpoolError::QuarantineFull),
            _ => Ok(()),
        }
    }

    /// Puts some of what was refused back, behind what is new. Gives how many events, and how to go on with the round, if there
    /// is more of it.
    pub async fn release(&self, room: RoomId, retry: Retry) -> Result<(u64, Option<Retry>), SpoolError> {
        match self.ask(Request::Release { room, retry }).await? {
            Answer::Released { events, next } => Ok((events, next)),
            _ => Ok((0, None)),
        }
    }

    /// Puts a wrap that was confirmed once back, before all that was sealed under its key: the ledger does not have it any more. Says
    /// whether it was still kept.
    pub async fn rewrap(&self, room: RoomId, wrap: WrapId) -> Result<bool, SpoolError> {
        Ok(matches!(self.ask(Request::Rewrap { room, wrap }).await?, Answer::Rewrapped(true)))
    }

    /// Keeps a room's verified control state for the next start.
    pub async fn save_room(&self, room: RoomId, state: Vec<u8>) -> Result<(), SpoolError> {
        if state.len() > ROOM_STATE_MAX_BYTES {
            return Err(SpoolError::RoomTooLarge { found: state.len() });
        }
        self.ask(Request::SaveRoom { room, state }).await.map(drop)
    }

    /// The control states that were kept.
    pub async fn load_rooms(&self) -> Result<Vec<(RoomId, Vec<u8>)>, SpoolError> {
        self.read(|db, _| read::rooms(db)).await
    }

    /// Keeps how far a shard's log was seen. Durable when this returns.
    pub async fn save_log(&self, shard: u16, state: Vec<u8>) -> Result<(), SpoolError> {
        if state.len() > LOG_STATE_MAX_BYTES {
            return Err(SpoolError::RoomTooLarge { found: state.len() });
        }
        self.ask(Request::SaveLog { shard, state }).await.map(drop)
    }

    /// How far each shard's log was seen.
    pub async fn load_logs(&self) -> Result<Vec<(u16, Vec<u8>)>, SpoolError> {
        self.read(|db, _| read::logs(db)).await
    }

    // --- for people

    /// The spool in numbers.
    pub fn status(&self) -> SpoolStatus {
        whole(self.shared.status.lock()).clone()
    }

    async fn ask(&self, request: Request) -> Result<Answer, SpoolError> {
        let (answer, receiver) = oneshot::channel();
        let job = Job { request, answer, _permit: None };
        self.orders.send(Order::Job(Box::new(job))).map_err(|_| SpoolError::Stopped)?;
        receiver.await.map_err(|_| SpoolError::Stopped)
    }

    /// Runs a read transaction off the async threads, again and again while the disk refuses.
    async fn read<T, F>(&self, look: F) -> Result<T, SpoolError>
    where
        T: Send + 'static,
        F: Fn(&Database, &KeyRing) -> Result<T, ApplyError> + Send + Sync + 'static,
    {
        let look = Arc::new(look);
        loop {
            let (shared, look) = (self.shared.clone(), look.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let guard = shared.read_db();
                match guard.as_ref() {
                    Some(db) => look(db, &shared.read_keys()),
                    None => Err(ApplyError::Database(redb::Error::DatabaseClosed)),
                }
            });
            let error = match looked.await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => return Err(SpoolError::Stopped),
            };
            if *whole(self.shared.stop.0.lock()) {
                return Err(SpoolError::Stopped);
            }
            tracing::warn!(%error, "spool: could not read; trying again");
            self.orders.send(Order::Probe).map_err(|_| SpoolError::Stopped)?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A message on its way to the disk.
#[derive(Debug)]
pub struct Storing(oneshot::Receiver<Answer>);

impl Storing {
    /// Waits until the message is durable (or was known before).
    pub async fn durable(self) -> Result<Stored, SpoolError> {
        match self.0.await.map_err(|_| SpoolError::Stopped)? {
            Answer::Stored(stored) => Ok(stored),
            _ => Ok(Stored::default()),
        }
    }
}

#[cfg(test)]
mod tests;
