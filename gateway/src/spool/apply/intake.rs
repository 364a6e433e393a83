//! Messages in: recognised, sorted into windows or held; and held readings that find their owner.

use std::collections::BTreeMap;

use ehe::cbor;
use ehe::id::RoomId;
use redb::{ReadableTable, ReadableTableMetadata};

use super::{Apply, ApplyError, cost};
use crate::spool::held::{self, HeldDevice};
use crate::spool::keys;
use crate::spool::request::{Answer, Arrival, Intake, Mark, Place, Row, Stored};
use crate::spool::rows::{self, Body, Table as Kept};
use crate::spool::seen::{Judged, Sighting};
use crate::spool::shared::whole;
use crate::spool::tables::{ROW_KEY_LEN, ROW_OVERHEAD_BYTES, Thinned, WindowKey};

impl Apply<'_, '_> {
    pub(super) fn store(&mut self, intake: &Intake) -> Result<Answer, ApplyError> {
        if self.totals.bytes() >= self.context.limits.max_bytes && !intake.rows.is_empty() {
            return Ok(Answer::Full);
        }
        if let Some(mark) = &intake.mark
            && self.seen_before(mark, &intake.rows)?
        {
            return Ok(Answer::Stored(Stored { duplicate: true, ..Stored::default() }));
        }
        let mut stored = Stored::default();
        for row in &intake.rows {
            self.store_row(row, &mut stored)?;
        }
        if let Some(position) = &intake.position {
            self.replay.insert(&*position.source, position.next)?;
        }
        Ok(Answer::Stored(stored))
    }

    /// Whether the message is a redelivery. It is remembered, unless its first delivery stays so.
    fn seen_before(&mut self, mark: &Mark, rows: &[Row]) -> Result<bool, ApplyError> {
        let source = &*mark.source;
        let digest = self.context.keys.digest("mqtt", &[&mark.hash]);
        let timed = !rows.is_empty() && rows.iter().all(|row| row.body.timed);
        let again = match self.memory.seen.judge(mark, digest, timed, self.next_row) {
            Judged::Again => return Ok(true),
            Judged::AgainUnmarked { before } => {
                self.memory.seen.remove(source, before);
                self.seen.remove((source, before))?;
                true
            }
            Judged::New => false,
        };
        let (row, packet_id, stored_ms) = (self.row(), mark.packet_id, self.context.now.0);
        let sighting = Sighting { row, packet_id, digest, stored_ms, timed };
        self.seen.insert((source, row), sighting.value().as_slice())?;
        if let Some(oldest) = self.memory.seen.put(mark, sighting) {
            self.seen.remove((source, oldest))?;
        }
        Ok(again)
    }

    fn store_row(&mut self, row: &Row, stored: &mut Stored) -> Result<(), ApplyError> {
        match &row.place {
            Place::Window(window) => {
                // What can be sealed leaves by itself, and an alarm is never the one too many.
                if self.waiting(window.room) >= self.context.limits.room_max_bytes
                    && !row.body.alarm
                    && whole(self.context.on_hold.read()).covers(window)
                {
                    stored.thinned += u64::from(row.body.count);
                    return self.thin(window.room, row);
                }
                self.keep_row(window, &row.body, stored)?;
            }
            Place::Held { device, user } => {
                let readings = u64::from(row.body.count);
                let tag = held::tag(self.context.keys, device.as_str(), user.as_deref());
                let known = self.held_device(&tag)?;
                let room = self.totals.held_bytes < self.context.limits.held_max_bytes
                    && (known.is_some() || self.held_devices.len()? < self.context.limits.held_devices_max);
                // Without a place for it, the reading is dropped and the drop recorded: a neighbour's device must not keep the
                // patient's own readings from being stored.
                let (tag, mut summary) = match known {
                    Some(summary) => (tag, summary),
                    None if room => (tag, HeldDevice::new(device.to_string(), user.clone())),
                    None => {
                        let tag = held::tag(self.context.keys, held::OTHERS, None);
                        let summary = self.held_device(&tag)?;
                        let summary = summary.unwrap_or_else(|| HeldDevice::new(held::OTHERS.to_owned(), None));
                        (tag, summary)
                    }
                };
                summary.saw(row.body.received);
                if room {
                    let number = self.row();
                    let key = held::row_key(&tag, number);
                    let value = row.body.seal(self.context.keys, self.today(), Kept::Held, &key)?;
                    self.totals.held_bytes += cost(&key, &value);
                    self.held.insert(key.as_slice(), value.as_slice())?;
                    self.key_used(self.today(), 1);
                    summary.readings = summary.readings.saturating_add(readings);
                    stored.held += readings;
                } else {
                    summary.dropped = summary.dropped.saturating_add(readings);
                    stored.dropped += readings;
                }
                self.keep_held_device(&tag, Some(&summary))?;
            }
        }
        Ok(())
    }

    fn waiting(&self, room: RoomId) -> u64 {
        self.memory.waiting.get(&room).copied().unwrap_or_default()
    }

    fn keep_row(&mut self, window: &WindowKey, body: &Body, stored: &mut Stored) -> Result<(), ApplyError> {
        let number = self.row();
        let key = window.row_key(number);
        let value = body.seal(self.context.keys, self.today(), Kept::Readings, &key)?;
        self.totals.readings_bytes += cost(&key, &value);
        *self.memory.waiting.entry(window.room).or_default() += cost(&key, &value);
        self.readings.insert(key.as_slice(), value.as_slice())?;
        self.key_used(self.today(), 1);
        stored.arrivals.push(Arrival {
            window: *window,
            readings: body.count,
            received: body.received,
            alarm: body.alarm,
        });
        Ok(())
    }

    /// Whether rows fit into the shares of their rooms. Into an empty one they always do: however small the share is, held readings
    /// reach a room that is sealed.
    fn fit(&self, rows: &[(&WindowKey, &Body)]) -> bool {
        let mut more: BTreeMap<RoomId, u64> = BTreeMap::new();
        for (window, body) in rows {
            let bytes = u64::try_from(ROW_KEY_LEN + body.sealed_len()).unwrap_or(u64::MAX);
            let more = more.entry(window.room).or_default();
            *more = more.saturating_add(bytes).saturating_add(ROW_OVERHEAD_BYTES);
        }
        more.iter().all(|(room, more)| {
            let waiting = self.waiting(*room);
            waiting == 0 || waiting.saturating_add(*more) <= self.context.limits.room_max_bytes
        })
    }

    /// Records a drop, in the same commit in which the reading would have been stored.
    fn thin(&mut self, room: RoomId, row: &Row) -> Result<(), ApplyError> {
        let before: Option<Thinned> =
            self.thinned.get(room.0.as_slice())?.and_then(|bytes| minicbor::decode(bytes.value()).ok());
        let before = before.unwrap_or(Thinned { first: row.body.received, ..Thinned::default() });
        let thinned = Thinned {
            readings: before.readings.saturating_add(u64::from(row.body.count)),
            first: before.first.min(row.body.received),
            last: before.last.max(row.body.received),
        };
        self.thinned.insert(room.0.as_slice(), cbor::to_vec(&thinned).as_slice())?;
        self.dropped.insert(room, thinned);
        Ok(())
    }

    fn held_device(&self, tag: &[u8]) -> Result<Option<HeldDevice>, ApplyError> {
        let Some(sealed) = self.held_devices.get(tag)? else { return Ok(None) };
        Ok(held::open_summary(self.context.keys, tag, sealed.value()))
    }

    fn keep_held_device(&mut self, tag: &[u8], summary: Option<&HeldDevice>) -> Result<(), ApplyError> {
        let old_day = self.held_devices.get(tag)?.and_then(|old| keys::day_of(old.value()));
        if let Some(day) = old_day {
            self.key_used(day, -1);
        }
        match summary {
            Some(summary) => {
                let plain = cbor::to_vec(summary);
                let sealed = rows::seal_plain(self.context.keys, self.today(), Kept::HeldDevices, tag, &plain)?;
                self.held_devices.insert(tag, sealed.as_slice())?;
                self.key_used(self.today(), 1);
            }
            None => {
                self.held_devices.remove(tag)?;
            }
        }
        Ok(())
    }

    pub(super) fn assign(
        &mut self,
        tag: &[u8],
        moved: &[(Vec<u8>, Vec<Row>)],
        broken: &[Vec<u8>],
    ) -> Result<Answer, ApplyError> {
        for (key, _) in moved {
            if self.held.get(key.as_slice())?.is_none() {
                return Ok(Answer::Conflict);
            }
        }
        let rows: Option<Vec<_>> = moved.iter().flat_map(|(_, rows)| rows).map(Row::in_window).collect();
        // What has no owner after all stays held.
        let Some(rows) = rows else { return Ok(Answer::Conflict) };
        if !self.fit(&rows) {
            return Ok(Answer::Full);
        }
        let mut stored = Stored::default();
        for key in moved.iter().map(|(key, _)| key).chain(broken) {
            let Some(value) = self.held.remove(key.as_slice())?.map(|v| v.value().to_vec()) else { continue };
            self.totals.held_bytes = self.totals.held_bytes.saturating_sub(cost(key, &value));
            if broken.contains(key) {
                self.keep_broken(key, &value)?;
            }
            if let Some(outside) = rows::outside(&value) {
                self.key_used(outside.key_day, -1);
                if let Some(mut summary) = self.held_device(tag)? {
                    summary.readings = summary.readings.saturating_sub(u64::from(outside.count));
                    let done = summary.readings == 0 && summary.dropped == 0;
                    self.keep_held_device(tag, (!done).then_some(&summary))?;
                }
            }
        }
        for (window, body) in rows {
            self.keep_row(window, body, &mut stored)?;
        }
        Ok(Answer::Stored(stored))
    }
}
