//! What the writer and the spool's handles share: the open database, the keys, and the numbers.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use ehe::id::RoomId;
use redb::Database;
use tokio::sync::watch;

use super::apply::{ApplyError, Finished, Totals};
use super::hold::OnHold;
use super::keys::{KeyError, KeyRing};
use super::tables::{RoomTotals, Thinned};

/// Why the spool takes nothing at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The disk is full.
    NoSpace,
    /// The disk fails.
    Io,
    /// The file is not what was written.
    Corrupt,
    /// The key file cannot be written or read.
    Keys,
}

impl Fault {
    pub(super) fn of(error: &ApplyError) -> Self {
        let fault = match error {
            ApplyError::Keys(KeyError::Io { why, .. }) if why.kind() == std::io::ErrorKind::StorageFull => {
                Self::NoSpace
            }
            ApplyError::Keys(_) => Self::Keys,
            ApplyError::Layout(_) | ApplyError::Database(redb::Error::Corrupted(_)) => Self::Corrupt,
            ApplyError::Database(redb::Error::Io(why))
                if matches!(why.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) =>
            {
                Self::NoSpace
            }
            ApplyError::Database(_) => Self::Io,
        };
        tracing::debug!(%error, "spool: attempt failed");
        fault
    }

    /// What happened, and what to do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NoSpace => "the disk is full: free space on the data directory's volume",
            Self::Io => "the disk fails: look at the kernel's log, replace the medium",
            Self::Corrupt => "the spool's file is damaged: keep a copy of it, then ask for help",
            Self::Keys => "the spool's key file cannot be used: look at its owner, mode and volume",
        }
    }
}

/// The spool's state in numbers.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct SpoolStatus {
    /// Bytes and rows of each part.
    pub totals: Totals,
    /// The bound on the bytes.
    pub max_bytes: u64,
    /// Nothing more is acknowledged to sources until there is room.
    pub full: bool,
    /// Why nothing can be committed at present.
    pub fault: Option<Fault>,
    /// Readings that were dropped since the file was made, by room: what waits there without an invitation had filled its share.
    pub thinned: BTreeMap<RoomId, Thinned>,
    /// Times that the disk began to refuse, since the start.
    pub faults: u64,
    /// Messages that wait for room or for the disk, unacknowledged.
    pub waiting: usize,
    /// Commits since the file was made.
    pub commits: u64,
}

/// What the writer and all handles share.
pub(super) struct Shared {
    pub(super) db: RwLock<Option<Database>>,
    pub(super) keys: RwLock<KeyRing>,
    pub(super) backlog: RwLock<BTreeMap<RoomId, RoomTotals>>,
    pub(super) status: Mutex<SpoolStatus>,
    /// What the windows' keeper found.
    pub(super) on_hold: RwLock<OnHold>,
    pub(super) changed: watch::Sender<u64>,
    pub(super) stop: (Mutex<bool>, Condvar),
}

/// A lock whose holder panicked still guards consistent data here: every change is one assignment.
pub(super) fn whole<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn read_db(&self) -> RwLockReadGuard<'_, Option<Database>> {
        whole(self.db.read())
    }

    pub(super) fn write_db(&self) -> RwLockWriteGuard<'_, Option<Database>> {
        whole(self.db.write())
    }

    pub(super) fn read_keys(&self) -> RwLockReadGuard<'_, KeyRing> {
        whole(self.keys.read())
    }

    pub(super) fn write_keys(&self) -> RwLockWriteGuard<'_, KeyRing> {
        whole(self.keys.write())
    }

    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        let mut status = whole(self.status.lock());
        if status.fault != fault {
            match fault {
                Some(fault) => tracing::error!(
                    ?fault,
                    remedy = fault.remedy(),
                    "spool: cannot commit; nothing is acknowledged until it can; trying again"
                ),
                None => tracing::info!("spool: commits again"),
            }
        }
        status.faults += u64::from(status.fault.is_none() && fault.is_some());
        status.fault = fault;
    }

    pub(super) fn committed(&self, finished: Finished, commits: u64, full: bool, waiting: usize) {
        let outbox_changed = !finished.rooms.is_empty();
        {
            let mut backlog = whole(self.backlog.write());
            for (room, totals) in finished.rooms {
                if totals.events == 0 {
                    backlog.remove(&room);
                } else {
                    backlog.insert(room, totals);
                }
            }
        }
        {
            let mut status = whole(self.status.lock());
            if full && !status.full {
                tracing::error!(
                    bytes = finished.totals.bytes(),
                    max_bytes = status.max_bytes,
                    "spool: full; messages stay with the broker, unacknowledged, until receipts make room"
                );
            } else if !full && status.full {
                tracing::info!("spool: has room again");
            }
            for (room, thinned) in finished.thinned {
                let before = status.thinned.insert(room, thinned).unwrap_or_default();
                // Each doubling is said, so that a long while fills no log.
                if before.readings.checked_ilog2() != thinned.readings.checked_ilog2() {
                    tracing::error!(
                        %room,
                        readings = thinned.readings,
                        "spool: readings of a room are dropped, because what cannot be sealed to it fills its share (spool.room_max_percent); the drop is recorded. The patient grants this gateway again, or its assignments are taken out"
                    );
                }
            }
            status.totals = finished.totals;
            status.full = full;
            status.waiting = waiting;
            status.commits = commits;
        }
        if outbox_changed {
            self.changed.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Waits; `true` if the program stops.
    pub(super) fn wait_or_stop(&self, pause: Duration) -> bool {
        let (stop, bell) = &self.stop;
        let guard = whole(stop.lock());
        let (guard, _) = whole(bell.wait_timeout_while(guard, pause, |stop| !*stop));
        *guard
    }
}
