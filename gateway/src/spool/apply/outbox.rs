//! Readings become events, events leave: against a receipt, or aside.

use std::collections::BTreeMap;

use ehe::cbor;
use ehe::event::Kind;
use ehe::id::{EheId, RoomId};
use ehe::refusal::{Fault, Refusal};
use ehe::time::UnixMs;
use redb::ReadableTable;

use super::{Apply, ApplyError, cost};
use crate::spool::keys;
use crate::spool::request::{Answer, Confirmed, NewEvent, Retry};
use crate::spool::rows::{self, Table as Kept};
use crate::spool::tables::{Class, OutboxRow, QuarantineRow, RoomTotals, end_of, id_key, outbox_key, room_of_key};

/// Refused events that are tried again at a time, and at most as many wraps that they need.
const RELEASED_AT_ONCE: usize = 64;

impl Apply<'_, '_> {
    // --- readings become events

    pub(super) fn seal(
        &mut self,
        rows: &[Vec<u8>],
        broken: &[Vec<u8>],
        events: &[NewEvent],
    ) -> Result<Answer, ApplyError> {
        for key in rows.iter().chain(broken) {
            if self.readings.get(key.as_slice())?.is_none() {
                return Ok(Answer::Conflict);
            }
        }
        for (key, is_broken) in rows.iter().map(|k| (k, false)).chain(broken.iter().map(|k| (k, true))) {
            let Some(value) = self.readings.remove(key.as_slice())?.map(|v| v.value().to_vec()) else { continue };
            let bytes = cost(key, &value);
            self.totals.readings_bytes = self.totals.readings_bytes.saturating_sub(bytes);
            if let Some(waiting) = room_of_key(key).and_then(|room| self.memory.waiting.get_mut(&room)) {
                *waiting = waiting.saturating_sub(bytes);
            }
            if let Some(outside) = rows::outside(&value) {
                self.key_used(outside.key_day, -1);
            }
            if is_broken {
                self.keep_broken(key, &value)?;
            }
        }
        for event in events {
            self.put_event(event)?;
        }
        Ok(Answer::Sealed)
    }

    pub(super) fn keep_broken(&mut self, key: &[u8], value: &[u8]) -> Result<(), ApplyError> {
        self.totals.quarantine_bytes += cost(key, value);
        self.totals.broken_rows += 1;
        self.broken.insert(key, value)?;
        Ok(())
    }

    fn put_event(&mut self, new: &NewEvent) -> Result<(), ApplyError> {
        let core = new.event.core();
        let (room, id) = (core.room, new.event.id());
        if self.outbox_index.get(id_key(room, &id).as_slice())?.is_some() {
            return Ok(());
        }
        let is_wrap = core.kind == Kind::Wrap;
        if new.urgent && !is_wrap {
            self.hurry_wrap(room, &core.wrap.0)?;
        }
        let report = if new.report.is_empty() {
            None
        } else {
            self.key_used(self.today(), 1);
            let plain = cbor::to_vec(&new.report);
            Some(rows::seal_plain(self.context.keys, self.today(), Kept::Report, &id.0, &plain)?)
        };
        let row = OutboxRow {
            id: id.0.to_vec(),
            event: new.event.event().clone(),
            readings: new.readings,
            oldest: new.oldest,
            wrap: (!is_wrap).then(|| core.wrap.0.to_vec()),
            report,
        };
        let number = self.row();
        self.insert_event(room, Class::of(new.urgent), number, &row)
    }

    pub(super) fn insert_event(
        &mut self,
        room: RoomId,
        class: Class,
        number: u64,
        row: &OutboxRow,
    ) -> Result<(), ApplyError> {
        let key = outbox_key(room, class, number);
        let value = cbor::to_vec(row);
        let mut place = vec![class.byte()];
        place.extend_from_slice(&number.to_be_bytes());
        let mut index = room.0.to_vec();
        index.extend_from_slice(&row.id);
        self.outbox_index.insert(index.as_slice(), place.as_slice())?;
        self.outbox.insert(key.as_slice(), value.as_slice())?;
        let bytes = cost(&key, &value);
        self.totals.outbox_bytes += bytes;
        let totals = self.room(room)?;
        totals.events += 1;
        totals.bytes += bytes;
        totals.urgent += u64::from(class == Class::Urgent);
        Ok(())
    }

    /// Takes an event out of the outbox: its class, number and row.
    fn take_event(&mut self, room: RoomId, id: &[u8]) -> Result<Option<(Class, u64, OutboxRow)>, ApplyError> {
        let mut index = room.0.to_vec();
        index.extend_from_slice(id);
        let Some(place) = self.outbox_index.remove(index.as_slice())?.map(|v| v.value().to_vec()) else {
            return Ok(None);
        };
        let [class, number @ ..] = place.as_slice() else { return Err(ApplyError::Layout("outbox_index")) };
        let number = u64::from_be_bytes(number.try_into().map_err(|_| ApplyError::Layout("outbox_index"))?);
        let class = Class::of(*class == Class::Urgent.byte());
        let key = outbox_key(room, class, number);
        let value = self.outbox.remove(key.as_slice())?.map(|v| v.value().to_vec());
        let value = value.ok_or(ApplyError::Layout("outbox_index"))?;
        self.left(room, class, cost(&key, &value))?;
        match OutboxRow::read(&value) {
            Some((_, row)) => Ok(Some((class, number, row))),
            None => self.keep_broken(&key, &value).map(|()| None),
        }
    }

    fn left(&mut self, room: RoomId, class: Class, bytes: u64) -> Result<(), ApplyError> {
        self.totals.outbox_bytes = self.totals.outbox_bytes.saturating_sub(bytes);
        let totals = self.room(room)?;
        totals.events = totals.events.saturating_sub(1);
        totals.bytes = totals.bytes.saturating_sub(bytes);
        totals.urgent = totals.urgent.saturating_sub(u64::from(class == Class::Urgent));
        Ok(())
    }

    /// Rows that are no events any more (a failing medium) are kept, and out of the way of those behind them.
    pub(super) fn put_aside(&mut self, room: RoomId, keys: &[Vec<u8>]) -> Result<Answer, ApplyError> {
        for key in keys {
            let Some(value) = self.outbox.remove(key.as_slice())?.map(|v| v.value().to_vec()) else { continue };
            let place = key.get(16..).unwrap_or_default();
            let class = Class::of(place.first() == Some(&Class::Urgent.byte()));
            // Its id cannot be read from it, so its index entry is found by its place.
            let end = end_of(&room.0);
            self.outbox_index.retain_in(room.0.as_slice()..end.as_slice(), |_, at| at != place)?;
            self.left(room, class, cost(key, &value))?;
            self.keep_broken(key, &value)?;
        }
        Ok(Answer::Done)
    }

    /// An urgent event goes before all others, so the wrap that it needs goes before it.
    fn hurry_wrap(&mut self, room: RoomId, wrap: &[u8; 16]) -> Result<(), ApplyError> {
        let mut prefix = room.0.to_vec();
        prefix.extend_from_slice(wrap);
        let found = {
            let end = end_of(&prefix);
            let mut range = self.outbox_index.range(prefix.as_slice()..end.as_slice())?;
            range.next().transpose()?.map(|(key, place)| (key.value().to_vec(), place.value().to_vec()))
        };
        let Some((key, place)) = found else { return Ok(()) };
        if place.first() == Some(&Class::Urgent.byte()) {
            return Ok(());
        }
        let id = key.get(16..).unwrap_or_default().to_vec();
        if let Some((_, number, row)) = self.take_event(room, &id)? {
            self.insert_event(room, Class::Urgent, number, &row)?;
        }
        Ok(())
    }

    fn room(&mut self, room: RoomId) -> Result<&mut RoomTotals, ApplyError> {
        if !self.changed.contains_key(&room) {
            let stored = self.room_totals.get(room.0.as_slice())?;
            let totals = match stored {
                Some(bytes) => minicbor::decode(bytes.value()).map_err(|_| ApplyError::Layout("room_totals"))?,
                None => RoomTotals::default(),
            };
            self.changed.insert(room, totals);
        }
        Ok(self.changed.entry(room).or_default())
    }

    pub(super) fn oldest(&self, room: RoomId) -> Result<UnixMs, ApplyError> {
        let mut oldest = None;
        for class in [Class::Urgent, Class::Ordered] {
            let (from, to) = (outbox_key(room, class, 0), outbox_key(room, class, u64::MAX));
            for entry in self.outbox.range(from.as_slice()..=to.as_slice())? {
                let (_, value) = entry?;
                // One that is not readable is put aside when it is to be sent.
                let Some((_, row)) = OutboxRow::read(value.value()) else { continue };
                oldest = Some(oldest.map_or(row.oldest, |o: UnixMs| o.min(row.oldest)));
                break;
            }
        }
        Ok(oldest.unwrap_or_default())
    }

    // --- events leave

    pub(super) fn confirm(&mut self, room: RoomId, ids: &[EheId]) -> Result<Answer, ApplyError> {
        let mut confirmed = Confirmed::default();
        for id in ids {
            // An event that a refusal had put aside may turn out to be in the ledger after all.
            let (number, row) = match self.take_event(room, &id.0)? {
                Some((_, number, row)) => (number, row),
                None => match self.take_quarantined(room, id)? {
                    Some(kept) => (kept.number, kept.row),
                    None => continue,
                },
            };
            if row.wrap.is_none() {
                self.keep_wrap(room, number, &row)?;
            }
            confirmed.events += 1;
            confirmed.readings += u64::from(row.readings);
            if let Some(day) = row.report.as_deref().and_then(keys::day_of) {
                self.key_used(day, -1);
            }
        }
        Ok(Answer::Confirmed(confirmed))
    }

    pub(super) fn quarantine(&mut self, room: RoomId, id: &EheId, refusal: Refusal) -> Result<Answer, ApplyError> {
        if self.totals.quarantine_bytes >= self.context.limits.quarantine_max_bytes {
            return Ok(Answer::QuarantineFull);
        }
        if let Some((class, number, row)) = self.take_event(room, &id.0)? {
            let urgent = class == Class::Urgent;
            let aside = Some(self.row());
            let kept = QuarantineRow { refusal, at: self.context.now, urgent, row, number, aside };
            let (key, value) = (id_key(room, id), cbor::to_vec(&kept));
            self.totals.quarantine_bytes += cost(&key, &value);
            self.totals.quarantine_events += 1;
            self.quarantine.insert(key.as_slice(), value.as_slice())?;
        }
        Ok(Answer::Done)
    }

    fn take_quarantined(&mut self, room: RoomId, id: &EheId) -> Result<Option<QuarantineRow>, ApplyError> {
        let key = id_key(room, id);
        let Some(value) = self.quarantine.remove(key.as_slice())?.map(|v| v.value().to_vec()) else {
            return Ok(None);
        };
        self.totals.quarantine_bytes = self.totals.quarantine_bytes.saturating_sub(cost(&key, &value));
        self.totals.quarantine_events = self.totals.quarantine_events.saturating_sub(1);
        match minicbor::decode(&value) {
            Ok(kept) => Ok(Some(kept)),
            Err(_) => self.keep_broken(&key, &value).map(|()| None),
        }
    }

    /// Puts some refused events back: those that were put aside first, each with the wrap that it needs.
    ///
    /// They go behind what is new, and no alarm waits for them: what was refused once is likely to be refused again, each for a
    /// round trip. A wrap alone keeps its place, because events that still wait may need it.
    pub(super) fn release(&mut self, room: RoomId, retry: Retry) -> Result<Answer, ApplyError> {
        let until = retry.until.unwrap_or_else(|| self.row());
        let mut found = self.refused(room, retry.whatever, until)?;
        found.sort_unstable_by_key(|one| (one.aside, one.number));
        let mut chosen: BTreeMap<EheId, bool> = BTreeMap::new();
        for one in &found {
            if chosen.len() >= RELEASED_AT_ONCE {
                break;
            }
            let wrap = one.wrap.as_ref().and_then(|wrap| found.iter().find(|other| other.id.0.starts_with(wrap)));
            for put in wrap.into_iter().chain([one]) {
                chosen.insert(put.id, put.wrap.is_none());
            }
        }
        let more = chosen.len() < found.len();
        // In the order in which they were sealed, wraps before all.
        let order = found.iter().filter_map(|one| Some((!chosen.get(&one.id)?, one.number, one.id)));
        let mut order: Vec<_> = order.collect();
        order.sort_unstable();
        let mut events = 0;
        for (content, _, id) in order {
            let Some(kept) = self.take_quarantined(room, &id)? else { continue };
            if content {
                let number = self.row();
                self.insert_event(room, Class::Ordered, number, &kept.row)?;
            } else {
                self.insert_event(room, Class::of(kept.urgent), kept.number, &kept.row)?;
            }
            events += 1;
        }
        let next = more.then_some(Retry { until: Some(until), ..retry });
        Ok(Answer::Released { events, next })
    }

    /// The room's refused events that may be tried again.
    fn refused(&self, room: RoomId, whatever: bool, until: u64) -> Result<Vec<Refused>, ApplyError> {
        let end = end_of(&room.0);
        let mut found = Vec::new();
        for entry in self.quarantine.range(room.0.as_slice()..end.as_slice())? {
            let (key, value) = entry?;
            let Ok(kept) = minicbor::decode::<QuarantineRow>(value.value()) else { continue };
            let aside = kept.aside.unwrap_or(0);
            if (whatever || kept.refusal.fault() == Fault::Rights)
                && aside < until
                && let Some(id) = key.value().get(16..).and_then(|id| id.try_into().ok())
            {
                found.push(Refused { id: EheId(id), aside, number: kept.number, wrap: kept.row.wrap });
            }
        }
        Ok(found)
    }
}

/// A refused event as the order of retries needs it.
struct Refused {
    id: EheId,
    aside: u64,
    number: u64,
    /// None for a wrap.
    wrap: Option<Vec<u8>>,
}
