//! Readings into sealed events (DESIGN: keys and authority, EK).
//!
//! An event key is 32 random bytes per (room, epoch, UTC day of the readings), wrapped once to the epoch's group key. It lives
//! in memory only: a restart, and the turn of the day, make a new one.
//!
//! **The crash rule.** A key may seal later events only if the event that carries its wrap is durable; otherwise those later
//! events could never be opened. So a new key does not enter the sealer when it is made. It leaves with the events, inside a
//! [`Commit`], and comes back by [`Sealer::committed`] once the caller's transaction with those events is durable. A
//! transaction that failed drops the `Commit`, and the key with it. A wrap that the ledger refused takes its key with it too
//! ([`Sealer::retire`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ehe::body::vitals::{BodyError, VitalsBody};
use ehe::control::{Control, ControlError, WrapRecord};
use ehe::event::{CheckedEvent, Core, Kind, Suite, VERSION};
use ehe::id::{EpochId, Nonce, RoomId, WrapId};
use ehe::kem::{self, Secret32, WrapError, WrapPurpose, random_secret};
use ehe::limits::READINGS_PER_BODY_MAX;
use ehe::reading::Reading;
use ehe::refusal::Refusal;
use ehe::seal::{self, TooLong};
use ehe::time::{Day, Hour, UnixMs};
use ehe::vital::Category;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::keys::{Current, NoEpoch};
use super::{Followed, Rooms};

/// Refused wraps that are remembered, in case their commit is reported after the refusal.
const RETIRED_MAX: usize = 64;

/// Why readings stay unsealed, held under the gateway's own key. Try again when [`Rooms::changed`] moves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealHold {
    /// Nothing is verified of the room yet.
    #[error(
        "no node has shown this gateway the room's records yet; the log says why: no node is reached, or the patient has not invited this gateway"
    )]
    RoomUnknown,
    /// The patient has named no current epoch of the category to this gateway.
    #[error("no current key epoch of this category is known; the patient has to grant this gateway the category")]
    NoEpoch,
    /// A delegate has invited this gateway, and the patient has not said what the keys are for.
    #[error(
        "only a delegate has invited this gateway, and what a key is for counts in the patient's own word alone: the patient runs `ehe authority renew --room {0}`"
    )]
    Delegate(RoomId),
    /// The grant does not cover the readings.
    #[error("the patient's grant does not cover these readings ({0}); ask the patient for a new grant")]
    Grant(Refusal),
    /// The group key of the epoch is none. The patient's program is at fault.
    #[error("the epoch's group key cannot be used; the patient has to begin a new epoch")]
    GroupKey,
    /// Readings that fit no event, even alone. This program is at fault.
    #[error("a reading fits no event: {0}")]
    Readings(#[from] BodyError),
    /// An event larger than its kind allows. This program is at fault.
    #[error("an event does not fit: {0}")]
    TooLong(#[from] TooLong),
}

/// One event of a sealed window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEvent {
    /// The event.
    pub event: CheckedEvent,
    /// Which of the given readings it carries, by index; none for a wrap. Each index stands in exactly one event.
    pub readings: Vec<usize>,
}

/// A sealed window, and the keys that it needed anew.
#[derive(Debug)]
#[must_use = "sealed events that are not stored are lost"]
pub struct Sealed {
    events: Vec<SealedEvent>,
    commit: Commit,
}

impl Sealed {
    /// The events; a new key's wrap stands before what it opens.
    pub fn events(&self) -> &[SealedEvent] {
        &self.events
    }

    /// The events, all for one transaction, and what to report once it is durable.
    pub fn into_parts(self) -> (Vec<SealedEvent>, Commit) {
        (self.events, self.commit)
    }
}

/// New event keys whose wraps are not durable yet. Dropping it forgets them; events that were sealed with it must then be
/// dropped too.
#[derive(Debug, Default)]
#[must_use = "hand it to Sealer::committed once the events are durable; dropped keys cost a new wrap"]
pub struct Commit(Vec<(KeyId, EventKey)>);

/// Seals. Cheap to clone; all clones share their keys.
#[derive(Debug, Clone)]
pub struct Sealer {
    rooms: Rooms,
    days_max: usize,
    keys: Arc<Mutex<Keys>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct KeyId {
    room: RoomId,
    epoch: EpochId,
    /// UTC day of the readings.
    day: Day,
}

#[derive(Clone)]
struct EventKey {
    secret: Secret32,
    wrap: WrapId,
    /// The day on which it was made: it does not outlive it.
    made: Day,
}

impl core::fmt::Debug for EventKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "EventKey(of wrap {})", self.wrap)
    }
}

#[derive(Debug, Default)]
struct Keys {
    durable: BTreeMap<KeyId, EventKey>,
    retired: VecDeque<WrapId>,
}

impl Sealer {
    /// `days_max`: for so many days of readings each epoch keeps its key at a time (late readings need older days). At least 1.
    pub fn new(rooms: Rooms, days_max: usize) -> Self {
        Self { rooms, days_max: days_max.max(1), keys: Arc::default() }
    }

    /// What is sealed to.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Seals readings of one room and category, of any times and in any order: one event an hour, or more where a body would
    /// be too large. No event spans hours, so that a grant's hour bounds are exact although nodes see the first reading's
    /// hour only. Readings of one hour keep their order.
    pub fn seal(
        &self,
        rng: &mut impl CryptoRng,
        room: RoomId,
        category: Category,
        readings: &[Reading],
        now: UnixMs,
    ) -> Result<Sealed, SealHold> {
        let sealed = self.seal_now(rng, room, category, readings, now);
        self.rooms.hold(room, sealed.is_err());
        sealed
    }

    fn seal_now(
        &self,
        rng: &mut impl CryptoRng,
        room: RoomId,
        category: Category,
        readings: &[Reading],
        now: UnixMs,
    ) -> Result<Sealed, SealHold> {
        let followed = self.rooms.get(room).ok_or(SealHold::RoomUnknown)?;
        let mut work =
            Work { sealer: self, followed: &followed, room, now, events: Vec::new(), fresh: Commit::default() };
        let mut hours: BTreeMap<Hour, Vec<usize>> = BTreeMap::new();
        for (index, reading) in readings.iter().enumerate() {
            hours.entry(reading.at().hour()).or_default().push(index);
        }
        for (hour, indices) in hours {
            let us = self.rooms.identity().author_id();
            let current =
                followed.keys().current(followed.room(), us, category, hour, now).map_err(|why| match why {
                    NoEpoch::Unknown => SealHold::NoEpoch,
                    NoEpoch::Untold => SealHold::Delegate(room),
                    NoEpoch::NotCovered(refusal) => SealHold::Grant(refusal),
                })?;
            let key = work.key(rng, &current, hour.day())?;
            work.hour(rng, readings, &indices, hour, current.epoch, &key)?;
        }
        Ok(Sealed { events: work.events, commit: work.fresh })
    }

    /// The events that came with `commit` are durable: its keys may seal on.
    pub fn committed(&self, commit: Commit) {
        let mut keys = self.lock();
        for (id, key) in commit.0 {
            if keys.retired.contains(&key.wrap) {
                continue;
            }
            keys.durable.insert(id, key);
            let same = |other: &KeyId| other.room == id.room && other.epoch == id.epoch;
            while keys.durable.keys().filter(|other| same(other)).count() > self.days_max {
                // The keys are in the order of their days within a room and epoch.
                let oldest = keys.durable.keys().find(|other| same(other) && other.day != id.day).copied();
                let Some(oldest) = oldest else { break };
                keys.durable.remove(&oldest);
            }
        }
    }

    /// The ledger refused this wrap: its key seals nothing more.
    pub fn retire(&self, wrap: WrapId) {
        let mut keys = self.lock();
        keys.durable.retain(|_, key| key.wrap != wrap);
        if keys.retired.len() == RETIRED_MAX {
            keys.retired.pop_front();
        }
        keys.retired.push_back(wrap);
    }

    /// Whether keys changed hands halfway cannot be: each change is one step.
    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn durable(&self, id: &KeyId, now: UnixMs) -> Option<EventKey> {
        let mut keys = self.lock();
        // A day that is over takes its keys along; so does a clock that was set to another day.
        keys.durable.retain(|_, key| key.made == now.day());
        keys.durable.get(id).cloned()
    }
}

/// One window being sealed.
struct Work<'a> {
    sealer: &'a Sealer,
    followed: &'a Followed,
    room: RoomId,
    now: UnixMs,
    events: Vec<SealedEvent>,
    fresh: Commit,
}

impl Work<'_> {
    fn key(&mut self, rng: &mut impl CryptoRng, current: &Current<'_>, day: Day) -> Result<EventKey, SealHold> {
        let id = KeyId { room: self.room, epoch: current.epoch, day };
        if let Some((_, key)) = self.fresh.0.iter().find(|(fresh, _)| *fresh == id) {
            return Ok(key.clone());
        }
        if let Some(key) = self.sealer.durable(&id, self.now) {
            return Ok(key);
        }
        let secret = random_secret(rng);
        let author = self.sealer.rooms.identity().author_id();
        let purpose = WrapPurpose::EventKey { room: self.room, author, epoch: current.epoch, day };
        let wrapped =
            kem::wrap(rng, current.group_key, &purpose, &secret).map_err(|_: WrapError| SealHold::GroupKey)?;
        let record = Control::Wrap(WrapRecord { epoch: current.epoch, day, wrapped });
        let event = record.event(rng, self.followed.room().room, author, self.now, None).map_err(|why| match why {
            ControlError::TooLong(why) => SealHold::TooLong(why),
            _ => SealHold::GroupKey,
        })?;
        let key = EventKey { secret, wrap: event.id().into(), made: self.now.day() };
        self.events.push(SealedEvent { event, readings: Vec::new() });
        self.fresh.0.push((id, key.clone()));
        Ok(key)
    }

    /// Seals the readings of one hour, in as few events as hold them.
    fn hour(
        &mut self,
        rng: &mut impl CryptoRng,
        readings: &[Reading],
        indices: &[usize],
        hour: Hour,
        epoch: EpochId,
        key: &EventKey,
    ) -> Result<(), SealHold> {
        let mut rest = indices;
        while !rest.is_empty() {
            let (body, taken) = largest_body(readings, rest)?;
            let (now, later) = rest.split_at_checked(taken).unwrap_or((rest, &[]));
            let mut salt = Nonce::ZERO;
            rng.fill_bytes(&mut salt.0);
            let core = Core {
                version: VERSION,
                suite: Suite::One,
                kind: Kind::Vitals,
                room: self.room,
                author: self.sealer.rooms.identity().author_id(),
                epoch,
                wrap: key.wrap,
                hour,
                salt,
            };
            let event = seal::seal(&key.secret, core, &body)?;
            self.events.push(SealedEvent { event, readings: now.to_vec() });
            rest = later;
        }
        Ok(())
    }
}

/// The body of as many leading readings as fit one, and how many those are (at least 1).
fn largest_body(readings: &[Reading], indices: &[usize]) -> Result<(Zeroizing<Vec<u8>>, usize), SealHold> {
    let chosen: Vec<Reading> =
        indices.iter().take(READINGS_PER_BODY_MAX).filter_map(|index| readings.get(*index)).cloned().collect();
    let mut chosen = chosen.as_slice();
    loop {
        let fits = match VitalsBody::from_readings(chosen) {
            Ok(body) => return Ok((Zeroizing::new(body.to_vec()), chosen.len())),
            Err(BodyError::TooManySeries { fits }) if fits > 0 && fits < chosen.len() => fits,
            Err(BodyError::TooLarge { .. }) if chosen.len() > 1 => chosen.len() / 2,
            Err(why) => return Err(why.into()),
        };
        chosen = chosen.get(..fits).unwrap_or_default();
    }
}
