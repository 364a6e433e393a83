//! Looking into the spool: each of these is one read transaction.

use std::collections::BTreeMap;

use ehe::id::{EheId, RoomId};
use ehe::reading::Reading;
use ehe::time::{Day, UnixMs};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::apply::{ApplyError, Memory, cost};
use super::held::{self, HeldDevice};
use super::keys::KeyRing;
use super::request::ReportedReading;
use super::rows::{self, Outside, Table};
use super::seen::{Seen, Sighting};
use super::tables::{
    Class, HELD, HELD_DEVICES, KEY_USE, LOGS, MQTT_SEEN, OUTBOX, OUTBOX_INDEX, OutboxRow, READINGS, REPLAY,
    ROOM_TOTALS, ROOMS, RoomTotals, THINNED, Thinned, WindowKey, end_of, id_key, outbox_key, room_of_key,
};

/// A window as it lies in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpooledWindow {
    /// Which.
    pub window: WindowKey,
    /// Readings in it.
    pub readings: u64,
    /// The earliest receipt.
    pub received: UnixMs,
    /// One is worth an alarm.
    pub alarm: bool,
}

/// Rows of a window, opened.
#[derive(Debug, Default)]
pub struct Taken {
    /// The rows that were opened.
    pub rows: Vec<Vec<u8>>,
    /// Rows that do not open any more.
    pub broken: Vec<Vec<u8>>,
    /// Their readings, in order of receipt.
    pub readings: Vec<Reading>,
    /// One was marked as worth an alarm.
    pub alarm: bool,
    /// There are further rows.
    pub more: bool,
}

/// An event of the outbox.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// SHA-256 of its header.
    pub id: EheId,
    /// To be sent before the others of its room.
    pub urgent: bool,
    /// Readings in it; 0 for a wrap.
    pub readings: u32,
    /// The event.
    pub event: ehe::event::Event,
}

/// A held row's key, and its readings; none where it does not open.
pub type HeldRow = (Vec<u8>, Option<Vec<Reading>>);

pub(super) fn windows(db: &Database) -> Result<Vec<SpooledWindow>, ApplyError> {
    let table = db.begin_read()?.open_table(READINGS)?;
    let mut out: Vec<SpooledWindow> = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        // A key that names no window can be in none: nothing waits behind it.
        let Some(window) = WindowKey::of_row_key(key.value()) else { continue };
        // A row that does not say what it is makes its window due at once, and is put aside there.
        let damaged = Outside { count: 0, received: UnixMs::default(), alarm: false, key_day: Day(0) };
        let outside = rows::outside(value.value()).unwrap_or(damaged);
        match out.last_mut() {
            Some(last) if last.window == window => {
                last.readings += u64::from(outside.count);
                last.received = last.received.min(outside.received);
                last.alarm |= outside.alarm;
            }
            _ => out.push(SpooledWindow {
                window,
                readings: u64::from(outside.count),
                received: outside.received,
                alarm: outside.alarm,
            }),
        }
    }
    Ok(out)
}

pub(super) fn take(
    db: &Database,
    keys: &KeyRing,
    window: &WindowKey,
    readings_max: usize,
) -> Result<Taken, ApplyError> {
    let table = db.begin_read()?.open_table(READINGS)?;
    let prefix = window.prefix();
    let end = end_of(&prefix);
    let mut taken = Taken::default();
    for entry in table.range(prefix.as_slice()..end.as_slice())? {
        let (key, value) = entry?;
        let Some(outside) = rows::outside(value.value()) else {
            taken.broken.push(key.value().to_vec());
            continue;
        };
        let count = usize::try_from(outside.count).unwrap_or(usize::MAX);
        if !taken.rows.is_empty() && taken.readings.len().saturating_add(count) > readings_max {
            taken.more = true;
            break;
        }
        match rows::open(keys, Table::Readings, key.value(), value.value()) {
            Ok(readings) => {
                taken.readings.extend(readings);
                taken.rows.push(key.value().to_vec());
                taken.alarm |= outside.alarm;
            }
            Err(_) => taken.broken.push(key.value().to_vec()),
        }
    }
    Ok(taken)
}

/// The next events to send, and the keys of rows before and between them that are none any more.
pub(super) fn batch(
    db: &Database,
    room: RoomId,
    events_max: usize,
    bytes_max: usize,
) -> Result<(Vec<StoredEvent>, Vec<Vec<u8>>), ApplyError> {
    let table = db.begin_read()?.open_table(OUTBOX)?;
    let (from, to) = (outbox_key(room, Class::Urgent, 0), outbox_key(room, Class::Ordered, u64::MAX));
    let (mut out, mut broken, mut bytes) = (Vec::new(), Vec::new(), 0usize);
    for entry in table.range(from.as_slice()..=to.as_slice())? {
        let (key, value) = entry?;
        let Some((id, row)) = OutboxRow::read(value.value()) else {
            broken.push(key.value().to_vec());
            continue;
        };
        bytes = bytes.saturating_add(row.event.header.len() + row.event.body.len());
        if out.len() >= events_max.max(1) || (bytes > bytes_max && !out.is_empty()) {
            break;
        }
        out.push(StoredEvent {
            id,
            urgent: key.value().get(16) == Some(&Class::Urgent.byte()),
            readings: row.readings,
            event: row.event,
        });
    }
    Ok((out, broken))
}

pub(super) fn room_totals(db: &Database) -> Result<Vec<(RoomId, RoomTotals)>, ApplyError> {
    let table = db.begin_read()?.open_table(ROOM_TOTALS)?;
    let mut out = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let room = room_of_key(key.value()).ok_or(ApplyError::Layout("room_totals"))?;
        out.push((room, minicbor::decode(value.value()).map_err(|_| ApplyError::Layout("room_totals"))?));
    }
    Ok(out)
}

pub(super) fn rooms(db: &Database) -> Result<Vec<(RoomId, Vec<u8>)>, ApplyError> {
    let table = db.begin_read()?.open_table(ROOMS)?;
    let mut out = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        out.push((room_of_key(key.value()).ok_or(ApplyError::Layout("rooms"))?, value.value().to_vec()));
    }
    Ok(out)
}

pub(super) fn logs(db: &Database) -> Result<Vec<(u16, Vec<u8>)>, ApplyError> {
    let table = db.begin_read()?.open_table(LOGS)?;
    let mut out = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let shard = key.value().try_into().map_err(|_| ApplyError::Layout("logs"))?;
        out.push((u16::from_be_bytes(shard), value.value().to_vec()));
    }
    Ok(out)
}

pub(super) fn position(db: &Database, source: &str) -> Result<Option<u64>, ApplyError> {
    let table = db.begin_read()?.open_table(REPLAY)?;
    Ok(table.get(source)?.map(|v| v.value()))
}

/// What is held, by device; rows of summaries that do not open are left out.
pub(super) fn held_devices(db: &Database, keys: &KeyRing) -> Result<Vec<(Vec<u8>, HeldDevice)>, ApplyError> {
    let table = db.begin_read()?.open_table(HELD_DEVICES)?;
    let mut out = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        if let Some(device) = held::open_summary(keys, key.value(), value.value()) {
            out.push((key.value().to_vec(), device));
        }
    }
    Ok(out)
}

/// Rows of one device: key, readings, or none where it does not open.
pub(super) fn held_rows(
    db: &Database,
    keys: &KeyRing,
    tag: &[u8],
    rows_max: usize,
) -> Result<Vec<HeldRow>, ApplyError> {
    let table = db.begin_read()?.open_table(HELD)?;
    let end = end_of(tag);
    let mut out = Vec::new();
    for entry in table.range(tag..end.as_slice())?.take(rows_max) {
        let (key, value) = entry?;
        let readings = rows::open(keys, Table::Held, key.value(), value.value()).ok();
        out.push((key.value().to_vec(), readings));
    }
    Ok(out)
}

/// What the writer keeps in memory: which messages of brokers were stored before, and how much of each room waits to be sealed.
pub(super) fn memory(db: &Database) -> Result<Memory, ApplyError> {
    let tx = db.begin_read()?;
    let mut waiting = BTreeMap::new();
    for entry in tx.open_table(READINGS)?.iter()? {
        let (key, value) = entry?;
        if let Some(room) = room_of_key(key.value()) {
            *waiting.entry(room).or_default() += cost(key.value(), value.value());
        }
    }
    let table = tx.open_table(MQTT_SEEN)?;
    let mut seen = Seen::default();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let (source, row) = key.value();
        if let Some(sighting) = Sighting::read(row, value.value()) {
            seen.found(source, sighting);
        }
    }
    Ok(Memory { seen, waiting })
}

/// The record of what was dropped, by room.
pub(super) fn thinned(db: &Database) -> Result<BTreeMap<RoomId, Thinned>, ApplyError> {
    let table = match db.begin_read()?.open_table(THINNED) {
        Ok(table) => table,
        // A file of before there was this table.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut out = BTreeMap::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        if let (Some(room), Ok(thinned)) = (room_of_key(key.value()), minicbor::decode(value.value())) {
            out.insert(room, thinned);
        }
    }
    Ok(out)
}

/// Days whose keys some row needs.
pub(super) fn key_days(db: &Database) -> Result<Vec<u32>, ApplyError> {
    let table = db.begin_read()?.open_table(KEY_USE)?;
    let mut out = Vec::new();
    for entry in table.iter()? {
        out.push(entry?.0.value());
    }
    Ok(out)
}

pub(super) fn totals(db: &Database) -> Result<super::Totals, ApplyError> {
    let table = db.begin_read()?.open_table(super::tables::META)?;
    Ok(super::Totals::read(&table)?)
}

/// For the lab: which readings the events carry, as far as that was kept.
pub(super) fn reports(
    db: &Database,
    keys: &KeyRing,
    room: RoomId,
    ids: &[EheId],
) -> Result<Vec<(EheId, Vec<ReportedReading>)>, ApplyError> {
    let tx = db.begin_read()?;
    let (index, outbox) = (tx.open_table(OUTBOX_INDEX)?, tx.open_table(OUTBOX)?);
    let mut out = Vec::new();
    for id in ids {
        let Some(place) = index.get(id_key(room, id).as_slice())? else { continue };
        let mut key = room.0.to_vec();
        key.extend_from_slice(place.value());
        let Some(value) = outbox.get(key.as_slice())? else { continue };
        let Some((_, row)) = OutboxRow::read(value.value()) else { continue };
        let plain = row.report.and_then(|sealed| rows::open_plain(keys, Table::Report, &id.0, &sealed).ok());
        if let Some(report) = plain.and_then(|plain| minicbor::decode(&plain).ok()) {
            out.push((*id, report));
        }
    }
    Ok(out)
}
