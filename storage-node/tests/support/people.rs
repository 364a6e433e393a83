//! A patient with a room, those who are invited, and what they sign: for tests of the shard and of the whole node.

use ehe::author::{Linked, Strand};
use ehe::control::{Control, ControlLink, Ending, EpochRecord, Grant, Revoke, Right, RoomCreate, SeedWrap, WrapRecord};
use ehe::event::{CheckedEvent, Core, Kind, Suite, VERSION};
use ehe::id::{AllianceId, EheId, EpochId, Hash, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::{Identity, Party, PublicIdentity};
use ehe::kem::{self, KemSecret, Secret32, WrapPurpose};
use ehe::read::{Part, Purpose, ReadRequest, Scope, SignedRequest};
use ehe::time::{Hour, UnixMs};
use ehe::wire::Submission;
use getrandom::rand_core::Rng;
#[cfg(not(ehe_sim))]
use getrandom::{SysRng, rand_core::UnwrapErr};

#[cfg(ehe_sim)]
pub use super::chance::rng;

#[cfg(not(ehe_sim))]
pub fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    rng().fill_bytes(&mut out);
    out
}

/// Signs runs in one room, one strand.
pub struct Writer {
    pub identity: Identity,
    pub strand: Strand,
}

impl Writer {
    pub fn new(identity: &Identity, room: RoomId) -> Self {
        Self { identity: identity.clone(), strand: Strand::new(room, StrandId(random()), None) }
    }

    /// A run of these events; the strand does not move.
    pub fn linked(&self, events: &[CheckedEvent]) -> (Submission, Linked) {
        let linked = self.strand.link_events(&self.identity, events);
        let events = events.iter().map(|e| e.event().clone()).collect();
        (Submission { run: linked.run.clone(), events }, linked)
    }

    /// A run of these events, taken as accepted.
    pub fn run(&mut self, events: &[CheckedEvent]) -> Submission {
        let (submission, linked) = self.linked(events);
        let seen = ehe::run::SeenCheckpoint { origin: "test".into(), size: 1, root: Hash::ZERO };
        self.strand.accepted(&linked, seen);
        submission
    }
}

/// A patient, the room, and one epoch of it.
pub struct Patient {
    pub writer: Writer,
    pub alliance: AllianceId,
    pub room: RoomId,
    pub epoch: EpochId,
    pub group: KemSecret,
    next: ControlLink,
    create: CheckedEvent,
}

impl Patient {
    /// `shard_of`: which shard the room has to land in, of how many.
    pub fn new(identity: &Identity, alliance: AllianceId, (shard, count): (u16, u16), now: UnixMs) -> Self {
        loop {
            let owner = identity.public().clone();
            let create = RoomCreate { alliance, nonce: Nonce(random()), owner, recovery: Hash::ZERO };
            let room = create.room_id();
            if room.shard(std::num::NonZeroU16::new(count).unwrap()) != shard {
                continue;
            }
            let create = Control::RoomCreate(create).event(&mut rng(), room, identity.author_id(), now, None).unwrap();
            return Self {
                writer: Writer::new(identity, room),
                alliance,
                room,
                epoch: EpochId(random()),
                group: KemSecret::generate(&mut rng()),
                next: ControlLink { seq: 1, previous: create.id() },
                create,
            };
        }
    }

    /// Place of the next control event.
    pub fn link(&self) -> ControlLink {
        self.next
    }

    pub fn control(&mut self, control: &Control, now: UnixMs) -> CheckedEvent {
        let author = self.writer.identity.author_id();
        let event = control.event(&mut rng(), self.room, author, now, None).unwrap();
        self.next = ControlLink { seq: self.next.seq + 1, previous: event.id() };
        event
    }

    /// Room-create and the epoch.
    pub fn opening(&mut self, now: UnixMs) -> Vec<CheckedEvent> {
        let seed = SeedWrap::make(&mut rng(), self.room, self.epoch, self.writer.identity.party(), self.group.seed());
        let record = EpochRecord {
            link: self.next,
            epoch: self.epoch,
            group_key: self.group.public(),
            supersedes: None,
            continues: vec![],
            seeds: vec![seed.unwrap()],
        };
        let epoch = self.control(&Control::Epoch(record), now);
        vec![self.create.clone(), epoch]
    }

    pub fn grant(
        &mut self,
        subject: &PublicIdentity,
        right: Right,
        expires: Option<UnixMs>,
        now: UnixMs,
    ) -> CheckedEvent {
        let seed = SeedWrap::make(&mut rng(), self.room, self.epoch, Party::of(subject), self.group.seed()).unwrap();
        let grant = Grant {
            link: self.next,
            subject: subject.clone(),
            right,
            epochs: vec![self.epoch],
            from: None,
            until: None,
            expires,
            seeds: if right == Right::Read { vec![seed] } else { vec![] },
        };
        self.control(&Control::Grant(grant), now)
    }

    pub fn revoke(&mut self, grant: EheId, now: UnixMs) -> CheckedEvent {
        self.control(&Control::Revoke(Revoke { link: self.next, grant, ending: Ending::Cut }), now)
    }
}

/// Seals under one event key.
pub struct Sealer {
    pub wrap: CheckedEvent,
    ek: Secret32,
    core: Core,
}

impl Sealer {
    pub fn new(author: &Identity, patient: &Patient, now: UnixMs) -> Self {
        let (room, epoch, day) = (patient.room, patient.epoch, now.day());
        let author = author.author_id();
        let ek = kem::random_secret(&mut rng());
        let purpose = WrapPurpose::EventKey { room, author, epoch, day };
        let wrapped = kem::wrap(&mut rng(), &patient.group.public(), &purpose, &ek).unwrap();
        let wrap =
            Control::Wrap(WrapRecord { epoch, day, wrapped }).event(&mut rng(), room, author, now, None).unwrap();
        let core = Core {
            version: VERSION,
            suite: Suite::One,
            kind: Kind::Vitals,
            room,
            author,
            epoch,
            wrap: WrapId::from(wrap.id()),
            hour: now.hour(),
            salt: Nonce::ZERO,
        };
        Self { wrap, ek, core }
    }

    pub fn seal(&self, plain: &[u8]) -> CheckedEvent {
        self.seal_at(plain, self.core.hour)
    }

    /// Of readings of another hour of the day.
    pub fn seal_at(&self, plain: &[u8], hour: Hour) -> CheckedEvent {
        let core = Core { salt: Nonce(random()), hour, ..self.core.clone() };
        ehe::seal::seal(&self.ek, core, plain).unwrap()
    }
}

pub fn request(reader: &Identity, alliance: AllianceId, room: RoomId, part: Part, now: UnixMs) -> ReadRequest {
    ReadRequest {
        alliance,
        room,
        reader: reader.author_id(),
        nonce: Nonce(random()),
        scope: Scope { part, epochs: vec![], from: Hour(0), until: Hour(u32::MAX) },
        purpose: Purpose::Treatment,
        actor: None,
        head: None,
        from_index: 0,
        made_at: now,
    }
}

/// A request for everything of one epoch.
pub fn content(reader: &Identity, patient: &Patient, now: UnixMs) -> SignedRequest {
    let mut request = request(reader, patient.alliance, patient.room, Part::Content, now);
    request.scope.epochs = vec![patient.epoch];
    request.sign(reader)
}
