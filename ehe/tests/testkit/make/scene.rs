//! A room in the making: steps that a case carries, applied as they are made, so that the next one can follow from them.

use ehe::cbor;
use ehe::control::{Control, ControlLink, Ending, EpochRecord, Grant, Revoke, Right, RoomCreate, SeedWrap, WrapRecord};
use ehe::event::{CheckedEvent, Core, Event, Header, Kind, Suite, VERSION};
use ehe::id::{EheId, EpochId, Hash, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::kem::{self, KemSecret, Secret32, WrapPurpose};
use ehe::read::{Part, Purpose, ReadRequest, Scope};
use ehe::run::{Run, SignedRun, StrandEnd};
use ehe::seal;
use ehe::time::{Hour, UnixMs};
use ehe::wire::Submission;
use rand_core::Rng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::world::{seed, world};
use crate::json::h;
use crate::run::ledger::{Outcome, Shard};
use crate::test_rng::{TestRng, rng};
use crate::value::Cbor;

/// 2025-10-09T08:53:20Z.
pub(super) const NOW: u64 = 1_760_000_000_000;
pub(super) const HOUR_MS: u64 = 3_600_000;
pub(super) const EPOCH: EpochId = EpochId([0xe1; 16]);
pub(super) const EPOCH_2: EpochId = EpochId([0xe2; 16]);

/// The hour of [`NOW`]: the readings of most cases.
pub(super) fn hour() -> Hour {
    UnixMs(NOW).hour()
}

/// Which grants a room begins with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Granted {
    /// Room-create alone, without an epoch.
    Bare,
    None,
    Append,
    Read,
    Both,
}

#[derive(Clone)]
pub(super) struct Scene {
    rng: TestRng,
    pub(super) now: u64,
    pub(super) id: RoomId,
    pub(super) group: KemSecret,
    pub(super) link: ControlLink,
    pub(super) shard: Shard,
    pub(super) steps: Vec<Value>,
    pub(super) asks: Vec<Value>,
    pub(super) append: EheId,
    pub(super) read: EheId,
}

/// A wrap, and content that it opens.
pub(super) struct Reading {
    pub(super) wrap: CheckedEvent,
    pub(super) content: CheckedEvent,
}

impl Reading {
    pub(super) fn both(self) -> [CheckedEvent; 2] {
        [self.wrap, self.content]
    }
}

pub(super) fn create() -> RoomCreate {
    RoomCreate {
        alliance: world().one.id,
        nonce: Nonce([9; 16]),
        owner: world().patient.public().clone(),
        recovery: Hash::ZERO,
    }
}

pub(super) fn checked(core: Core, commitment: Hash, body: Vec<u8>) -> CheckedEvent {
    let header = Header { core, commitment, body_hash: Hash(Sha256::digest(&body).into()) };
    Event { header: cbor::to_vec(&header), body }.check().unwrap()
}

/// An event whose encoded header was changed at will.
pub(super) fn with_header(event: &CheckedEvent, change: impl FnOnce(&mut Cbor)) -> Event {
    let mut header = Cbor::parse(&event.event().header);
    change(&mut header);
    Event { header: header.to_vec(), body: event.body().to_vec() }
}

/// A control event whose plain part was changed at will, hashed again.
pub(super) fn with_plain(event: &CheckedEvent, change: impl FnOnce(&mut Cbor)) -> CheckedEvent {
    let mut body = Cbor::parse(event.body());
    let mut plain = Cbor::parse(body.at(0).bytes());
    change(&mut plain);
    *body.at(0) = Cbor::Bytes(plain.to_vec());
    checked(event.core().clone(), event.header().commitment, body.to_vec())
}

impl Scene {
    /// No room yet.
    pub(super) fn empty() -> Self {
        Self {
            rng: rng(1),
            now: NOW,
            id: create().room_id(),
            group: KemSecret::from_seed(seed("group key").into()),
            link: ControlLink { seq: 0, previous: EheId::ZERO },
            shard: Shard::new(world().one.id),
            steps: Vec::new(),
            asks: Vec::new(),
            append: EheId::ZERO,
            read: EheId::ZERO,
        }
    }

    /// The patient's room with one epoch, made by one run. In it the gateway may append, the clinician read, or both: a grant is
    /// 1.3 KB, so a case has those that it needs.
    pub(super) fn room(granted: Granted) -> Self {
        let mut scene = Self::empty();
        let events = scene.opening(granted);
        scene.accept(&world().patient, &events);
        scene
    }

    /// The control events of [`Scene::room`].
    pub(super) fn opening(&mut self, granted: Granted) -> Vec<CheckedEvent> {
        let mut events = vec![self.made(&Control::RoomCreate(create()))];
        if !matches!(granted, Granted::Bare) {
            let epoch = self.epoch(EPOCH, None, vec![]);
            events.push(self.made(&epoch));
        }
        if matches!(granted, Granted::Append | Granted::Both) {
            events.push(self.grant(&world().gateway, Right::Append, |_| {}));
            self.append = self.link.previous;
        }
        if matches!(granted, Granted::Read | Granted::Both) {
            events.push(self.grant(&world().clinician, Right::Read, |_| {}));
            self.read = self.link.previous;
        }
        events
    }

    /// The patient's control event, next in the room's sequence.
    pub(super) fn made(&mut self, control: &Control) -> CheckedEvent {
        self.made_by(&world().patient, control)
    }

    /// Somebody's control event, next in the room's sequence.
    pub(super) fn made_by(&mut self, author: &Identity, control: &Control) -> CheckedEvent {
        let event = self.by(author, control);
        self.link = ControlLink { seq: self.link.seq + 1, previous: event.id() };
        event
    }

    /// A control event of somebody.
    pub(super) fn by(&mut self, author: &Identity, control: &Control) -> CheckedEvent {
        control.event(&mut self.rng, self.id, author.author_id(), UnixMs(self.now), None).unwrap()
    }

    pub(super) fn epoch(&mut self, epoch: EpochId, supersedes: Option<EpochId>, continues: Vec<EheId>) -> Control {
        Control::Epoch(EpochRecord {
            link: self.link,
            epoch,
            group_key: self.group.public(),
            supersedes,
            continues,
            seeds: vec![],
        })
    }

    /// A grant on [`EPOCH`], changed at will.
    pub(super) fn grant(&mut self, subject: &Identity, right: Right, change: impl FnOnce(&mut Grant)) -> CheckedEvent {
        let control = self.grant_record(subject, right, change);
        self.made(&control)
    }

    pub(super) fn grant_record(&self, subject: &Identity, right: Right, change: impl FnOnce(&mut Grant)) -> Control {
        let mut grant = Grant {
            link: self.link,
            subject: subject.public().clone(),
            right,
            epochs: vec![EPOCH],
            from: None,
            until: None,
            expires: None,
            seeds: vec![],
        };
        change(&mut grant);
        Control::Grant(grant)
    }

    pub(super) fn revoke(&mut self, grant: EheId, ending: Ending) -> CheckedEvent {
        let control = Control::Revoke(Revoke { link: self.link, grant, ending });
        self.made(&control)
    }

    pub(super) fn seed_wrap(&mut self, epoch: EpochId, to: &Identity) -> SeedWrap {
        SeedWrap::make(&mut self.rng, self.id, epoch, to.party(), self.group.seed()).unwrap()
    }

    pub(super) fn rng(&mut self) -> &mut TestRng {
        &mut self.rng
    }

    pub(super) fn ek() -> Secret32 {
        seed("event key").into()
    }

    pub(super) fn wrap(&mut self, author: &Identity, epoch: EpochId, hour: Hour) -> CheckedEvent {
        let day = hour.day();
        let purpose = WrapPurpose::EventKey { room: self.id, author: author.author_id(), epoch, day };
        let wrapped = kem::wrap(&mut self.rng, &self.group.public(), &purpose, &Self::ek()).unwrap();
        self.by(author, &Control::Wrap(WrapRecord { epoch, day, wrapped }))
    }

    pub(super) fn core(&mut self, author: &Identity, epoch: EpochId, wrap: WrapId, hour: Hour) -> Core {
        let mut salt = Nonce::ZERO;
        self.rng.fill_bytes(&mut salt.0);
        Core {
            version: VERSION,
            suite: Suite::One,
            kind: Kind::Vitals,
            room: self.id,
            author: author.author_id(),
            epoch,
            wrap,
            hour,
            salt,
        }
    }

    pub(super) fn content(&mut self, author: &Identity, epoch: EpochId, wrap: WrapId, hour: Hour) -> CheckedEvent {
        let core = self.core(author, epoch, wrap, hour);
        seal::seal(&Self::ek(), core, b"a reading").unwrap()
    }

    /// A wrap and content of [`EPOCH`].
    pub(super) fn reading(&mut self, author: &Identity, hour: Hour) -> Reading {
        self.reading_in(author, EPOCH, hour)
    }

    pub(super) fn reading_in(&mut self, author: &Identity, epoch: EpochId, hour: Hour) -> Reading {
        let wrap = self.wrap(author, epoch, hour);
        let content = self.content(author, epoch, wrap.id().into(), hour);
        Reading { wrap, content }
    }

    /// A run of the author's one strand, over these events.
    pub(super) fn run(&self, author: &Identity, events: &[CheckedEvent]) -> Run {
        let strand = StrandId(author.author_id().0[8..].try_into().unwrap());
        let key = (self.id, author.author_id(), strand);
        Run {
            room: self.id,
            author: author.author_id(),
            from: self.shard.strands.get(&key).copied().unwrap_or(StrandEnd::start(strand)),
            ids: events.iter().map(CheckedEvent::id).collect(),
            seen: None,
            continues: None,
        }
    }

    /// Adds a step and applies it.
    pub(super) fn step(&mut self, run: SignedRun, events: Vec<Event>) -> Outcome {
        let bytes = cbor::to_vec(&Submission { run, events });
        self.steps.push(json!({"at": self.now, "submit": h(&bytes)}));
        self.shard.submit(UnixMs(self.now), &bytes)
    }

    pub(super) fn step_run(&mut self, run: &Run, author: &Identity, events: &[CheckedEvent]) -> Outcome {
        self.step(run.sign(author), events.iter().map(|e| e.event().clone()).collect())
    }

    /// A step over these events, whatever becomes of it.
    pub(super) fn submit(&mut self, author: &Identity, events: &[CheckedEvent]) -> Outcome {
        let run = self.run(author, events);
        self.step_run(&run, author, events)
    }

    /// A step that has to be accepted.
    pub(super) fn accept(&mut self, author: &Identity, events: &[CheckedEvent]) {
        assert_eq!(self.submit(author, events), Outcome::Accepted);
    }

    /// A request for content of [`EPOCH`] in its hour.
    pub(super) fn request(&self, reader: &Identity) -> ReadRequest {
        ReadRequest {
            alliance: world().one.id,
            room: self.id,
            reader: reader.author_id(),
            nonce: Nonce([5; 16]),
            scope: Scope { part: Part::Content, epochs: vec![EPOCH], from: hour(), until: Hour(hour().0 + 1) },
            purpose: Purpose::Treatment,
            actor: None,
            head: None,
            from_index: 0,
            made_at: UnixMs(self.now),
        }
    }

    /// Adds a read step and applies it.
    pub(super) fn read_signed(&mut self, signed: Vec<u8>, reader: &PublicIdentity) -> Outcome {
        self.steps.push(json!({"at": self.now, "read": h(&signed), "reader": h(cbor::to_vec(reader))}));
        self.shard.read(UnixMs(self.now), signed, reader)
    }

    pub(super) fn read(&mut self, reader: &Identity, change: impl FnOnce(&mut ReadRequest)) -> Outcome {
        let mut request = self.request(reader);
        change(&mut request);
        self.read_signed(request.sign(reader).0, reader.public())
    }

    /// Asks, after all steps, whether somebody may.
    pub(super) fn ask(&mut self, may: &str, author: &Identity, epoch: EpochId, hour: Hour, at: u64, answer: Value) {
        let ask = json!({"may": may, "author": author.author_id().to_string(), "epoch": epoch.to_string(), "hour": hour.0, "at": at});
        assert_eq!(self.shard.may(&ask), answer, "{ask}");
        self.asks.push(ask);
    }

    /// What the case carries.
    pub(super) fn input(self) -> Value {
        let mut input = json!({"alliance": world().one.id.to_string(), "steps": self.steps});
        if !self.asks.is_empty() {
            input["asks"] = json!(self.asks);
        }
        input
    }
}
