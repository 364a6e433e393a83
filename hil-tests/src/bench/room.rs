//! A room as a patient's program opens it: one key epoch, one gateway that may append.

use anyhow::Result;
use ehe::author::Strand;
use ehe::charter::VerifiedCharter;
use ehe::control::{Control, ControlLink, EpochRecord, Grant, Right, RoomCreate, SeedWrap};
use ehe::event::CheckedEvent;
use ehe::id::{EpochId, Hash, Nonce, RoomId, StrandId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::kem::{self, KemSecret, WrapPurpose, Wrapped};
use ehe::wire::Submission;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::crowd::now;

/// A new room, with one epoch and one appender.
pub(super) struct Room {
    pub(super) room: RoomId,
    pub(super) epoch: EpochId,
    pub(super) group: KemSecret,
    pub(super) submission: Submission,
    /// Place of the next control event.
    pub(super) next: ControlLink,
}

/// The group key of very many rooms, and a wrap that has the size of theirs and that nobody can open: nodes see no difference, and keys of
/// their own would cost more than all that is measured.
pub(super) struct Mould {
    pub(super) group: KemSecret,
    pub(super) wrapped: Wrapped,
}

impl Mould {
    pub(super) fn new(seed: u64) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let group = KemSecret::generate(&mut rng);
        let (room, epoch, recipient) = (RoomId::ZERO, EpochId::ZERO, ehe::id::AuthorId([0; 16]));
        let purpose = WrapPurpose::GroupSeed { room, epoch, recipient };
        let wrapped = kem::wrap(&mut rng, &group.public(), &purpose, group.seed())?;
        Ok(Self { group, wrapped })
    }
}

impl Room {
    /// With keys of its own.
    pub(super) fn make(
        seed: u64,
        patient: &Identity,
        appender: &PublicIdentity,
        charter: &VerifiedCharter,
    ) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let group = KemSecret::generate(&mut rng);
        let wrap = |rng: &mut StdRng, room, epoch| Ok(SeedWrap::make(rng, room, epoch, patient.party(), group.seed())?);
        Self::opened(rng, patient, appender, charter, &group, wrap)
    }

    /// One of many. The same number gives the same room.
    pub(super) fn of_mould(
        number: u64,
        mould: &Mould,
        patient: &Identity,
        appender: &PublicIdentity,
        charter: &VerifiedCharter,
    ) -> Result<Self> {
        let recipient = patient.author_id();
        let wrap = |_: &mut StdRng, _, epoch| Ok(SeedWrap { epoch, recipient, wrapped: mould.wrapped.clone() });
        Self::opened(StdRng::seed_from_u64(number), patient, appender, charter, &mould.group, wrap)
    }

    fn opened(
        mut rng: StdRng,
        patient: &Identity,
        appender: &PublicIdentity,
        charter: &VerifiedCharter,
        group: &KemSecret,
        wrap: impl FnOnce(&mut StdRng, RoomId, EpochId) -> Result<SeedWrap>,
    ) -> Result<Self> {
        let (alliance, owner, author, at) =
            (charter.alliance_id(), patient.public().clone(), patient.author_id(), now());
        let create = RoomCreate { alliance, nonce: Nonce(rng.random()), owner, recovery: Hash::ZERO };
        let (room, epoch) = (create.room_id(), EpochId(rng.random()));
        let create = Control::RoomCreate(create).event(&mut rng, room, author, at, None)?;
        let seeds = vec![wrap(&mut rng, room, epoch)?];
        let record = EpochRecord {
            link: ControlLink { seq: 1, previous: create.id() },
            epoch,
            group_key: group.public(),
            supersedes: None,
            continues: vec![],
            seeds,
        };
        let record = Control::Epoch(record).event(&mut rng, room, author, at, None)?;
        let grant = Grant {
            link: ControlLink { seq: 2, previous: record.id() },
            subject: appender.clone(),
            right: Right::Append,
            epochs: vec![epoch],
            from: None,
            until: None,
            expires: None,
            seeds: vec![],
        };
        let grant = Control::Grant(grant).event(&mut rng, room, author, at, None)?;
        let next = ControlLink { seq: 3, previous: grant.id() };
        let events = [create, record, grant];
        let run = Strand::new(room, StrandId(rng.random()), None).link_events(patient, &events).run;
        let submission = Submission { run, events: events.into_iter().map(CheckedEvent::into_event).collect() };
        Ok(Self { room, epoch, group: group.clone(), submission, next })
    }
}
