//! What each request does to the tables, within one write transaction. No clock, no thread, no commit: see `writer.rs`.

mod intake;
mod outbox;
mod wraps;

use std::collections::BTreeMap;
use std::sync::RwLock;

use ehe::cbor;
use ehe::id::RoomId;
use ehe::time::{Day, UnixMs};
use redb::{ReadableTable, Table, WriteTransaction};

use super::SpoolLimits;
use super::hold::OnHold;
use super::keys::{KeyError, KeyRing};
use super::request::{Answer, Request};
use super::seen::Seen;
use super::tables::{
    self, BROKEN, HELD, HELD_DEVICES, KEY_USE, LOGS, META, MQTT_SEEN, OUTBOX, OUTBOX_INDEX, QUARANTINE, READINGS,
    REPLAY, ROOM_TOTALS, ROOMS, ROW_OVERHEAD_BYTES, RoomTotals, THINNED, Thinned, WRAPS,
};

type Bytes = &'static [u8];

/// Why a batch was not applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Database(#[from] redb::Error),
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A row is not what this program writes.
    #[error("the spool's table {0} holds a row that this program did not write")]
    Layout(&'static str),
}

macro_rules! from_redb {
    ($($name:ident),+) => { $(impl From<redb::$name> for ApplyError {
        fn from(error: redb::$name) -> Self {
            Self::Database(error.into())
        }
    })+ };
}
from_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError);

/// Bytes and rows of each part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Bytes of readings that wait for their window, or for an invitation.
    pub readings_bytes: u64,
    /// Bytes of readings that nobody is assigned to.
    pub held_bytes: u64,
    /// Bytes of events that wait for a receipt.
    pub outbox_bytes: u64,
    /// Bytes of events that were refused for good, and of rows that do not open.
    pub quarantine_bytes: u64,
    /// Events in quarantine.
    pub quarantine_events: u64,
    /// Rows that do not open.
    pub broken_rows: u64,
}

impl Totals {
    /// All bytes together.
    pub fn bytes(&self) -> u64 {
        self.readings_bytes + self.held_bytes + self.outbox_bytes + self.quarantine_bytes
    }

    fn each(&mut self) -> [(&'static str, &mut u64); 6] {
        [
            ("readings_bytes", &mut self.readings_bytes),
            ("held_bytes", &mut self.held_bytes),
            ("outbox_bytes", &mut self.outbox_bytes),
            ("quarantine_bytes", &mut self.quarantine_bytes),
            ("quarantine_events", &mut self.quarantine_events),
            ("broken_rows", &mut self.broken_rows),
        ]
    }

    pub(super) fn read(meta: &impl ReadableTable<&'static str, u64>) -> Result<Self, redb::StorageError> {
        let mut totals = Self::default();
        for (name, value) in totals.each() {
            *value = meta.get(name)?.map_or(0, |v| v.value());
        }
        Ok(totals)
    }
}

pub(super) fn cost(key: &[u8], value: &[u8]) -> u64 {
    let bytes = u64::try_from(key.len() + value.len()).unwrap_or(u64::MAX);
    bytes.saturating_add(ROW_OVERHEAD_BYTES)
}

/// What would cost too much to look up in the file for each message. It holds what the tables hold.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// As `mqtt_seen`.
    pub(super) seen: Seen,
    /// Bytes of `readings`, by room.
    pub(super) waiting: BTreeMap<RoomId, u64>,
}

/// The moment and bounds that a batch is judged by.
pub(super) struct Context<'a> {
    pub(super) keys: &'a KeyRing,
    pub(super) now: UnixMs,
    pub(super) limits: &'a SpoolLimits,
    pub(super) on_hold: &'a RwLock<OnHold>,
}

/// One write transaction's tables and running totals.
pub(super) struct Apply<'t, 'a> {
    context: Context<'a>,
    memory: &'a mut Memory,
    thinned: Table<'t, Bytes, Bytes>,
    meta: Table<'t, &'static str, u64>,
    readings: Table<'t, Bytes, Bytes>,
    held: Table<'t, Bytes, Bytes>,
    held_devices: Table<'t, Bytes, Bytes>,
    outbox: Table<'t, Bytes, Bytes>,
    outbox_index: Table<'t, Bytes, Bytes>,
    room_totals: Table<'t, Bytes, Bytes>,
    quarantine: Table<'t, Bytes, Bytes>,
    broken: Table<'t, Bytes, Bytes>,
    rooms: Table<'t, Bytes, Bytes>,
    logs: Table<'t, Bytes, Bytes>,
    wraps: Table<'t, Bytes, Bytes>,
    seen: Table<'t, (&'static str, u64), Bytes>,
    replay: Table<'t, &'static str, u64>,
    key_use: Table<'t, u32, u64>,
    totals: Totals,
    next_row: u64,
    changed: BTreeMap<RoomId, RoomTotals>,
    dropped: BTreeMap<RoomId, Thinned>,
    key_use_delta: BTreeMap<Day, i64>,
}

/// What a finished batch changed, for what is kept in memory.
#[derive(Debug, Default)]
pub(super) struct Finished {
    pub(super) totals: Totals,
    pub(super) rooms: BTreeMap<RoomId, RoomTotals>,
    pub(super) thinned: BTreeMap<RoomId, Thinned>,
}

impl<'t, 'a> Apply<'t, 'a> {
    /// `memory` is to be read anew where the transaction is not committed.
    pub(super) fn begin(
        tx: &'t WriteTransaction,
        context: Context<'a>,
        memory: &'a mut Memory,
    ) -> Result<Self, ApplyError> {
        let meta = tx.open_table(META)?;
        let totals = Totals::read(&meta)?;
        let next_row = meta.get("row")?.map_or(0, |v| v.value());
        Ok(Self {
            context,
            memory,
            thinned: tx.open_table(THINNED)?,
            totals,
            next_row,
            meta,
            readings: tx.open_table(READINGS)?,
            held: tx.open_table(HELD)?,
            held_devices: tx.open_table(HELD_DEVICES)?,
            outbox: tx.open_table(OUTBOX)?,
            outbox_index: tx.open_table(OUTBOX_INDEX)?,
            room_totals: tx.open_table(ROOM_TOTALS)?,
            quarantine: tx.open_table(QUARANTINE)?,
            broken: tx.open_table(BROKEN)?,
            rooms: tx.open_table(ROOMS)?,
            logs: tx.open_table(LOGS)?,
            wraps: tx.open_table(WRAPS)?,
            seen: tx.open_table(MQTT_SEEN)?,
            replay: tx.open_table(REPLAY)?,
            key_use: tx.open_table(KEY_USE)?,
            changed: BTreeMap::new(),
            dropped: BTreeMap::new(),
            key_use_delta: BTreeMap::new(),
        })
    }

    /// Does what is asked. [`Answer::Full`] and [`Answer::Conflict`] changed nothing.
    pub(super) fn request(&mut self, request: &Request) -> Result<Answer, ApplyError> {
        match request {
            Request::Store(intake) => self.store(intake),
            Request::NewSession(source) => {
                self.memory.seen.forget(source);
                self.seen.retain_in((&**source, 0)..=(&**source, u64::MAX), |_, _| false)?;
                Ok(Answer::Done)
            }
            Request::Seal { rows, broken, events } => self.seal(rows, broken, events),
            Request::Confirm { room, ids } => self.confirm(*room, ids),
            Request::Quarantine { room, id, refusal } => self.quarantine(*room, id, *refusal),
            Request::Release { room, retry } => self.release(*room, *retry),
            Request::Rewrap { room, wrap } => self.rewrap(*room, *wrap),
            Request::PutAside { room, keys } => self.put_aside(*room, keys),
            Request::SaveRoom { room, state } => {
                self.rooms.insert(room.0.as_slice(), state.as_slice())?;
                Ok(Answer::Done)
            }
            Request::SaveLog { shard, state } => {
                self.logs.insert(shard.to_be_bytes().as_slice(), state.as_slice())?;
                Ok(Answer::Done)
            }
            Request::Assign { tag, rows, broken } => self.assign(tag, rows, broken),
        }
    }

    /// Writes the running totals and the number of this commit.
    pub(super) fn finish(mut self, commit: u64) -> Result<Finished, ApplyError> {
        let mut totals = self.totals;
        for (name, value) in totals.each() {
            self.meta.insert(name, *value)?;
        }
        self.meta.insert("row", self.next_row)?;
        self.meta.insert("commit", commit)?;
        for (day, delta) in std::mem::take(&mut self.key_use_delta) {
            let now = self.key_use.get(day.0)?.map_or(0, |v| v.value()).saturating_add_signed(delta);
            if now == 0 {
                self.key_use.remove(day.0)?;
            } else {
                self.key_use.insert(day.0, now)?;
            }
        }
        let mut rooms = std::mem::take(&mut self.changed);
        for (room, totals) in &mut rooms {
            totals.oldest = self.oldest(*room)?;
            if totals.events == 0 {
                self.room_totals.remove(room.0.as_slice())?;
            } else {
                self.room_totals.insert(room.0.as_slice(), cbor::to_vec(&*totals).as_slice())?;
            }
        }
        Ok(Finished { totals: self.totals, rooms, thinned: self.dropped })
    }

    fn row(&mut self) -> u64 {
        let row = self.next_row;
        self.next_row = self.next_row.saturating_add(1);
        row
    }

    fn today(&self) -> Day {
        self.context.now.day()
    }

    fn key_used(&mut self, day: Day, by: i64) {
        let delta = self.key_use_delta.entry(day).or_default();
        *delta = delta.saturating_add(by);
    }
}

/// Makes all tables, so that readers find them; refuses another program's file.
pub(super) fn create_tables(tx: &WriteTransaction) -> Result<(), ApplyError> {
    let mut meta = tx.open_table(META)?;
    let layout = meta.get("layout")?.map(|v| v.value());
    match layout {
        None => {
            meta.insert("layout", tables::LAYOUT)?;
        }
        Some(tables::LAYOUT) => {}
        Some(_) => return Err(ApplyError::Layout("meta")),
    }
    for table in [
        READINGS,
        HELD,
        HELD_DEVICES,
        OUTBOX,
        OUTBOX_INDEX,
        ROOM_TOTALS,
        QUARANTINE,
        BROKEN,
        THINNED,
        ROOMS,
        LOGS,
        WRAPS,
    ] {
        tx.open_table(table)?;
    }
    tx.open_table(MQTT_SEEN)?;
    tx.open_table(REPLAY)?;
    tx.open_table(KEY_USE)?;
    Ok(())
}
