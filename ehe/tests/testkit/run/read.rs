//! The whole way to a reading: a room is followed, the seeds that are meant for the reader open its epochs' group keys, these the
//! event keys, these the bodies (K4).

use std::collections::BTreeMap;

use ehe::body::vitals::VitalsBody;
use ehe::cbor;
use ehe::control::{Control, SeedWrap};
use ehe::event::{CheckedEvent, Event, Kind};
use ehe::id::{EheId, EpochId, WrapId};
use ehe::identity::Identity;
use ehe::kem::{self, KemPublic, KemSecret, Secret32, WrapPurpose};
use ehe::ledger::{Verified, control_of, wrap_of};
use ehe::limits;
use ehe::room::{RoomState, WrapFact};
use ehe::seal;
use serde_json::{Value, json};

use super::keys::secret;
use super::ledger::follow;
use super::vitals::reading_json;
use super::{Facts, Fault};
use crate::json::unhex;

/// The keys that a reader has in a room.
struct Keys<'a> {
    me: Identity,
    room: &'a RoomState,
    groups: BTreeMap<EpochId, KemSecret>,
    events: BTreeMap<WrapId, (WrapFact, Option<Secret32>)>,
}

pub(super) fn read(keys: &Value, input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let followed = follow(input, facts)?;
    let room = &followed.room;
    let me = secret(keys, "reader");
    // The owner's present keys stand for the owner.
    let name = room.author_of(me.author_id())?;
    let me = me.acting_as(name);
    let mut keys = Keys { me, room, groups: BTreeMap::new(), events: BTreeMap::new() };
    let runs = || {
        followed
            .entries
            .iter()
            .filter_map(|(entry, ..)| if let Verified::Run { events, .. } = entry { Some(events) } else { None })
    };
    let shown: Vec<&CheckedEvent> = runs().flatten().collect();
    keys.open_groups(&shown);
    for wrap in input.get("wraps").and_then(Value::as_array).unwrap_or(&Vec::new()) {
        let event: Event = cbor::from_slice(&unhex(wrap.as_str().unwrap()), limits::FRAME_MAX_BYTES)?;
        keys.take_wrap(event);
    }
    for event in shown.iter().filter(|event| event.core().kind == Kind::Wrap) {
        keys.take_wrap(event.event().clone());
    }
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for event in shown.iter().filter(|event| event.core().kind == Kind::Vitals && !event.body().is_empty()) {
        match keys.readings(event) {
            Ok(readings) => opened.push(json!({"event": event.id().to_string(), "readings": readings})),
            Err(_) => closed.push(event.id()),
        }
    }
    facts.insert("opened".into(), json!(opened));
    if closed.is_empty() { Ok(()) } else { Err(Fault::new(format!("not opened: {}", list(&closed)))) }
}

fn list(ids: &[EheId]) -> String {
    ids.iter().map(EheId::to_string).collect::<Vec<_>>().join(" ")
}

impl Keys<'_> {
    /// Of the seeds for an epoch and the reader, those count whose public key is the epoch's group key.
    fn open_groups(&mut self, shown: &[&CheckedEvent]) {
        let mut published: BTreeMap<EpochId, KemPublic> = BTreeMap::new();
        let mut seeds: Vec<SeedWrap> = Vec::new();
        for control in shown.iter().filter_map(|event| control_of(event)) {
            let brought = match control {
                Control::Epoch(record) => {
                    published.insert(record.epoch, record.group_key);
                    record.seeds
                }
                Control::Grant(grant) => grant.seeds,
                Control::Authority(record) => record.seeds,
                Control::RoomCreate(_) | Control::Revoke(_) | Control::Wrap(_) => continue,
            };
            seeds.extend(brought.into_iter().filter(|seed| published.contains_key(&seed.epoch)));
        }
        for seed in seeds.iter().filter(|seed| seed.recipient == self.me.author_id()) {
            if let Ok(opened) = seed.open(&self.me, self.room.room) {
                let key = KemSecret::from_seed(opened);
                if published.get(&seed.epoch) == Some(&key.public()) {
                    self.groups.insert(seed.epoch, key);
                }
            }
        }
    }

    /// What is no wrap is none of any event's: content that names it does not open.
    fn take_wrap(&mut self, event: Event) {
        let Some((id, author, record)) = wrap_of(event) else { return };
        let purpose = WrapPurpose::EventKey { room: self.room.room, author, epoch: record.epoch, day: record.day };
        let group = self.groups.get(&record.epoch);
        let key = group.and_then(|group| kem::unwrap(group, &purpose, &record.wrapped).ok());
        self.events.insert(id, (WrapFact { author, epoch: record.epoch, day: record.day }, key));
    }

    fn readings(&self, event: &CheckedEvent) -> Result<Vec<Value>, Fault> {
        let core = event.core();
        let (fact, key) = self.events.get(&core.wrap).ok_or_else(|| Fault::new("no wrap"))?;
        if *fact != (WrapFact { author: core.author, epoch: core.epoch, day: core.hour.day() }) {
            return Err(Fault::new("a wrap of another author, epoch or day"));
        }
        let key = key.as_ref().ok_or_else(|| Fault::new("the wrap does not open"))?;
        Ok(VitalsBody::decode(&seal::open(key, event)?)?.iter().map(reading_json).collect())
    }
}
