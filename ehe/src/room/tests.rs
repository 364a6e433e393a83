//! The rules, one sentence each.

mod authority;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use super::*;
use crate::author::Strand;
use crate::control::{
    Control, ControlLink, Ending, EpochRecord, Grant, Private, Revoke, Right, RoomCreate, SeedWrap, WrapRecord,
};
use crate::event::{CheckedEvent, Core, Kind, Suite, VERSION};
use crate::id::{AllianceId, AuthorId, EheId, EpochId, Hash, Nonce, RoomId, StrandId, WrapId};
use crate::identity::{Identity, PublicIdentity};
use crate::kem::{self, KemSecret, WrapPurpose, random_secret};
use crate::limits;
use crate::read::{Part, Purpose, ReadRequest, Scope};
use crate::refusal::Refusal;
use crate::run::{SeenCheckpoint, SignedRun, StrandEnd, VerifiedRun};
use crate::seal;
use crate::test_rng::{TestRng, rng};
use crate::time::{Hour, UnixMs};

const ALLIANCE: AllianceId = AllianceId([0xaa; 32]);
const NOW: UnixMs = UnixMs(1_760_000_000_000);
const EPOCH: EpochId = EpochId([1; 16]);

/// A ledger in memory, with one patient's room.
struct World {
    rng: TestRng,
    patient: Identity,
    gateway: Identity,
    clinician: Identity,
    stranger: Identity,
    room: Option<RoomState>,
    id: RoomId,
    group: KemSecret,
    strands: BTreeMap<(AuthorId, StrandId), StrandEnd>,
    wraps: BTreeMap<WrapId, WrapFact>,
    events: BTreeSet<EheId>,
    now: UnixMs,
}

impl Ledger for World {
    type Error = Infallible;
    fn strand(&self, author: AuthorId, strand: StrandId) -> Result<Option<StrandEnd>, Infallible> {
        Ok(self.strands.get(&(author, strand)).copied())
    }
    fn wrap(&self, wrap: WrapId) -> Result<Option<WrapFact>, Infallible> {
        Ok(self.wraps.get(&wrap).copied())
    }
    fn has_event(&self, id: EheId) -> Result<bool, Infallible> {
        Ok(self.events.contains(&id))
    }
}

fn verified(run: &SignedRun, identity: &Identity) -> VerifiedRun {
    run.decode().unwrap().verify(&identity.public().sign).unwrap()
}

impl World {
    /// Identities, no room.
    fn empty() -> Self {
        let mut rng = rng(7);
        let [patient, gateway, clinician, stranger] = [(); 4].map(|()| Identity::generate(&mut rng));
        let group = KemSecret::generate(&mut rng);
        Self {
            rng,
            patient,
            gateway,
            clinician,
            stranger,
            room: None,
            id: RoomId::ZERO,
            group,
            strands: BTreeMap::new(),
            wraps: BTreeMap::new(),
            events: BTreeSet::new(),
            now: NOW,
        }
    }

    /// A room with one epoch, a gateway that may append and a clinician who may read.
    fn new() -> Self {
        let mut world = Self::empty();
        let create = world.create();
        world.id = create.room_id();
        world.control(&Control::RoomCreate(create)).unwrap();
        let epoch = world.epoch(EPOCH, None, vec![]);
        world.control(&epoch).unwrap();
        let grant = world.grant(&world.gateway.public().clone(), Right::Append);
        world.control(&grant).unwrap();
        let grant = world.grant(&world.clinician.public().clone(), Right::Read);
        world.control(&grant).unwrap();
        world
    }

    fn create(&self) -> RoomCreate {
        RoomCreate {
            alliance: ALLIANCE,
            nonce: Nonce([9; 16]),
            owner: self.patient.public().clone(),
            recovery: Hash::ZERO,
        }
    }

    fn link(&self) -> ControlLink {
        self.room.as_ref().map_or(ControlLink { seq: 0, previous: EheId::ZERO }, |room| ControlLink {
            seq: room.next_control,
            previous: room.last_control,
        })
    }

    fn epoch(&mut self, epoch: EpochId, supersedes: Option<EpochId>, continues: Vec<EheId>) -> Control {
        let patient = self.patient.clone();
        let seed = SeedWrap::make(&mut self.rng, self.id, epoch, patient.party(), self.group.seed()).unwrap();
        Control::Epoch(EpochRecord {
            link: self.link(),
            epoch,
            group_key: self.group.public(),
            supersedes,
            continues,
            seeds: vec![seed],
        })
    }

    fn grant(&self, subject: &PublicIdentity, right: Right) -> Control {
        Control::Grant(Grant {
            link: self.link(),
            subject: subject.clone(),
            right,
            epochs: vec![EPOCH],
            from: None,
            until: None,
            expires: None,
            seeds: vec![],
        })
    }

    fn grant_of(&self, subject: &Identity) -> EheId {
        *self.room.as_ref().unwrap().grants_of(subject.author_id()).next().unwrap().0
    }

    fn revoke(&self, subject: &Identity, ending: Ending) -> Control {
        Control::Revoke(Revoke { link: self.link(), grant: self.grant_of(subject), ending })
    }

    fn event_by(&mut self, control: &Control, author: AuthorId) -> CheckedEvent {
        control.event(&mut self.rng, self.id, author, self.now, None).unwrap()
    }

    /// Submits the patient's control event.
    fn control(&mut self, control: &Control) -> Result<EheId, Refused> {
        let author = self.patient.author_id();
        let event = self.event_by(control, author);
        let id = event.id();
        self.submit(&self.patient.clone(), &[event]).map(|()| id)
    }

    /// Submits events in a new strand.
    fn submit(&mut self, author: &Identity, events: &[CheckedEvent]) -> Result<(), Refused> {
        let mut strand = [0; 8];
        rand_core::Rng::fill_bytes(&mut self.rng, &mut strand);
        let run = Strand::new(self.id, StrandId(strand), None).link_events(author, events).run.decode().unwrap();
        let key = author_key(self.room.as_ref(), run.claims(), events)?;
        let run = run.verify(&key).map_err(|_| Refusal::BadSignature)?;
        self.submit_run(&run, events)
    }

    fn submit_run(&mut self, run: &VerifiedRun, events: &[CheckedEvent]) -> Result<(), Refused> {
        let admission = admit(ALLIANCE, self.room.as_ref(), run, events, self, self.now).unwrap()?;
        if admission.room.is_some() {
            self.room = admission.room;
        }
        self.strands.insert((run.run().author, admission.strand.strand), admission.strand);
        self.wraps.extend(admission.wraps);
        self.events.extend(run.run().ids.iter().copied());
        Ok(())
    }

    /// A wrap and a content event of `author`.
    fn reading(&mut self, author: &Identity, hour: Hour) -> [CheckedEvent; 2] {
        let ek = random_secret(&mut self.rng);
        let purpose =
            WrapPurpose::EventKey { room: self.id, author: author.author_id(), epoch: EPOCH, day: hour.day() };
        let wrapped = kem::wrap(&mut self.rng, &self.group.public(), &purpose, &ek).unwrap();
        let wrap = Control::Wrap(WrapRecord { epoch: EPOCH, day: hour.day(), wrapped });
        let wrap = self.event_by(&wrap, author.author_id());
        let content = self.content(author, wrap.id().into(), hour, &ek);
        [wrap, content]
    }

    fn content(&mut self, author: &Identity, wrap: WrapId, hour: Hour, ek: &kem::Secret32) -> CheckedEvent {
        let mut salt = Nonce::ZERO;
        rand_core::Rng::fill_bytes(&mut self.rng, &mut salt.0);
        let core = Core {
            version: VERSION,
            suite: Suite::One,
            kind: Kind::Vitals,
            room: self.id,
            author: author.author_id(),
            epoch: EPOCH,
            wrap,
            hour,
            salt,
        };
        seal::seal(ek, core, b"a body").unwrap()
    }

    fn request(&self, reader: &Identity, part: Part) -> ReadRequest {
        ReadRequest {
            alliance: ALLIANCE,
            room: self.id,
            reader: reader.author_id(),
            nonce: Nonce::ZERO,
            scope: Scope { part, epochs: vec![EPOCH], from: Hour(0), until: Hour(u32::MAX) },
            purpose: Purpose::Treatment,
            actor: None,
            head: None,
            from_index: 0,
            made_at: self.now,
        }
    }

    fn read(&self, reader: &Identity, part: Part) -> Result<(), Refusal> {
        decide(ALLIANCE, self.room.as_ref().unwrap(), &self.request(reader, part), self.now).map(|_| ())
    }
}

fn because(refusal: Refusal) -> Result<(), Refused> {
    Err(Refused::Because(refusal))
}

#[test]
fn the_invited_gateway_appends_and_the_invited_clinician_reads() {
    let mut world = World::new();
    let gateway = world.gateway.clone();
    let events = world.reading(&gateway, NOW.hour());
    assert_eq!(world.submit(&gateway, &events), Ok(()));
    assert_eq!(world.read(&world.clinician, Part::Content), Ok(()));
    assert_eq!(world.read(&world.patient, Part::Content), Ok(()));
}

#[test]
fn a_run_of_content_hands_back_no_new_state() {
    let mut world = World::new();
    let gateway = world.gateway.clone();
    let events = world.reading(&gateway, NOW.hour());
    let run = Strand::new(world.id, StrandId([6; 8]), None).link_events(&gateway, &events).run;
    let run = verified(&run, &gateway);
    let admission = admit(ALLIANCE, world.room.as_ref(), &run, &events, &world, NOW).unwrap().unwrap();
    assert_eq!((admission.room, admission.wraps.len()), (None, 1), "nodes store a state only where it changed");
}

#[test]
fn nobody_else_appends_or_reads_and_a_right_is_not_the_other() {
    let mut world = World::new();
    let (stranger, clinician) = (world.stranger.clone(), world.clinician.clone());
    let events = world.reading(&stranger, NOW.hour());
    assert_eq!(world.submit(&stranger, &events), because(Refusal::NotInvited));
    let events = world.reading(&clinician, NOW.hour());
    assert_eq!(world.submit(&clinician, &events), because(Refusal::NotInvited));
    assert_eq!(world.read(&world.stranger, Part::Content), Err(Refusal::NotInvited));
    assert_eq!(world.read(&world.gateway, Part::Content), Err(Refusal::NotInvited));
    assert_eq!(world.read(&world.stranger, Part::Control), Err(Refusal::NotInvited));
    assert_eq!(world.read(&world.clinician, Part::Ledger), Err(Refusal::NotOwner));
    assert_eq!(world.read(&world.gateway, Part::Control), Ok(()));
}

#[test]
fn content_needs_a_wrap_of_its_own_author_epoch_and_day_committed_or_first_in_the_run() {
    let mut world = World::new();
    let gateway = world.gateway.clone();
    let hour = NOW.hour();
    let [wrap, content] = world.reading(&gateway, hour);
    assert_eq!(world.submit(&gateway, std::slice::from_ref(&content)), because(Refusal::WrapMissing));
    assert_eq!(world.submit(&gateway, &[content.clone(), wrap.clone()]), because(Refusal::WrapMissing));
    assert_eq!(world.submit(&gateway, std::slice::from_ref(&wrap)), Ok(()));
    assert_eq!(world.submit(&gateway, std::slice::from_ref(&content)), Ok(()));
    let ek = random_secret(&mut world.rng);
    let next_day = world.content(&gateway, wrap.id().into(), Hour(hour.0 + 24), &ek);
    assert_eq!(world.submit(&gateway, &[next_day]), because(Refusal::WrapMismatch));
}

#[test]
fn a_committed_event_is_known_and_not_appended_twice() {
    let mut world = World::new();
    let gateway = world.gateway.clone();
    let events = world.reading(&gateway, NOW.hour());
    world.submit(&gateway, &events).unwrap();
    let ids = events.iter().map(CheckedEvent::id).collect();
    assert_eq!(world.submit(&gateway, &events), Err(Refused::Known(ids)));
}

#[test]
fn a_strand_goes_on_only_where_it_ended() {
    let mut world = World::new();
    let gateway = world.gateway.clone();
    let mut strand = Strand::new(world.id, StrandId([5; 8]), None);
    let first = world.reading(&gateway, NOW.hour());
    let linked = strand.link_events(&gateway, &first);
    world.submit_run(&verified(&linked.run, &gateway), &first).unwrap();
    let second = world.reading(&gateway, NOW.hour());
    let again_from_start = strand.link_events(&gateway, &second);
    let result = world.submit_run(&verified(&again_from_start.run, &gateway), &second);
    assert_eq!(result, because(Refusal::StrandGap));
    strand.accepted(&linked, SeenCheckpoint { origin: "o".into(), size: 1, root: Hash::ZERO });
    let linked = strand.link_events(&gateway, &second);
    assert_eq!(world.submit_run(&verified(&linked.run, &gateway), &second), Ok(()));
}

#[test]
fn a_run_and_its_events_are_of_one_room_and_one_author() {
    let mut world = World::new();
    let (gateway, patient) = (world.gateway.clone(), world.patient.clone());
    let events = world.reading(&gateway, NOW.hour());
    assert_eq!(world.submit(&patient, &events), because(Refusal::EventOutOfPlace));
    let id = std::mem::replace(&mut world.id, RoomId([3; 16]));
    let elsewhere = world.reading(&gateway, NOW.hour());
    world.id = id;
    assert_eq!(world.submit(&gateway, &elsewhere), because(Refusal::EventOutOfPlace));
    let [wrap, _] = world.reading(&gateway, NOW.hour());
    assert_eq!(world.submit(&gateway, &[wrap.clone(), wrap]), because(Refusal::EventRepeated));
}

#[test]
fn the_patients_control_records_and_content_do_not_share_a_run() {
    let mut world = World::new();
    let patient = world.patient.clone();
    let [wrap, content] = world.reading(&patient, NOW.hour());
    let grant = world.grant(&world.stranger.public().clone(), Right::Read);
    let grant = world.event_by(&grant, patient.author_id());
    assert_eq!(world.submit(&patient, &[wrap.clone(), content.clone(), grant]), because(Refusal::RunMalformed));
    assert_eq!(world.submit(&patient, &[wrap, content]), Ok(()));
}

#[test]
fn a_revoked_reader_is_refused_from_the_revocation_on() {
    let mut world = World::new();
    let revoke = world.revoke(&world.clinician, Ending::Cut);
    world.control(&revoke).unwrap();
    assert_eq!(world.read(&world.clinician, Part::Content), Err(Refusal::GrantRevoked));
    assert_eq!(world.read(&world.clinician, Part::Control), Err(Refusal::GrantRevoked));
    let (next, gateway) = (EpochId([2; 16]), world.grant_of(&world.gateway));
    let epoch = world.epoch(next, Some(EPOCH), vec![gateway]);
    world.control(&epoch).unwrap();
    let room = world.room.as_ref().unwrap();
    let of_the_next_epoch = room.may(world.clinician.author_id(), Right::Read, next, None, NOW);
    assert_eq!(of_the_next_epoch, Err(Refusal::GrantRevoked), "the reason is the revocation, not the epoch after it");
    let grant = world.grant(&world.clinician.public().clone(), Right::Read);
    world.control(&grant).unwrap();
    assert_eq!(world.read(&world.clinician, Part::Content), Ok(()), "a new grant invites again");
}

#[test]
fn a_cut_gateway_is_refused_at_once_and_a_draining_one_delivers_what_it_measured_before() {
    let mut world = World::new();
    let gateway = world.gateway.clone();
    let until = NOW.plus_ms(3 * 86_400_000);
    let revoke = world.revoke(&gateway, Ending::DrainUntil(until));
    world.control(&revoke).unwrap();
    world.now = NOW.plus_ms(86_400_000);
    let spooled = world.reading(&gateway, NOW.hour());
    assert_eq!(world.submit(&gateway, &spooled), Ok(()));
    assert_eq!(world.read(&gateway, Part::Control), Ok(()), "it can learn of its ending from the patient's own record");
    let measured_after = world.reading(&gateway, world.now.hour());
    assert_eq!(world.submit(&gateway, &measured_after), because(Refusal::GrantRevoked));
    let too_late = world.reading(&gateway, NOW.hour());
    world.now = until.plus_ms(1);
    assert_eq!(world.submit(&gateway, &too_late), because(Refusal::GrantRevoked));
    world.now = NOW.plus_ms(1);
    let revoke = world.revoke(&gateway, Ending::Cut);
    world.control(&revoke).unwrap();
    assert_eq!(world.submit(&gateway, &too_late), because(Refusal::GrantRevoked));
    let longer = world.revoke(&gateway, Ending::DrainUntil(until));
    assert_eq!(world.control(&longer), Err(Refused::Because(Refusal::ControlMalformed)));
}

#[test]
fn a_grants_hours_and_expiry_hold() {
    let mut world = World::new();
    let hour = NOW.hour();
    let Control::Grant(mut grant) = world.grant(&world.stranger.public().clone(), Right::Read) else { unreachable!() };
    grant.from = Some(hour);
    grant.until = Some(Hour(hour.0 + 2));
    grant.expires = Some(NOW.plus_ms(1000));
    world.control(&Control::Grant(grant)).unwrap();
    let room = world.room.clone().unwrap();
    let ask = |from: u32, until: u32, now: UnixMs| {
        let mut request = world.request(&world.stranger, Part::Content);
        request.scope.from = Hour(from);
        request.scope.until = Hour(until);
        decide(ALLIANCE, &room, &request, now).map(|_| ())
    };
    assert_eq!(ask(hour.0, hour.0 + 2, NOW), Ok(()));
    assert_eq!(ask(hour.0 - 1, hour.0 + 2, NOW), Err(Refusal::HourNotCovered));
    assert_eq!(ask(hour.0, hour.0 + 3, NOW), Err(Refusal::HourNotCovered));
    assert_eq!(ask(hour.0, hour.0, NOW), Err(Refusal::RequestMalformed));
    assert_eq!(ask(hour.0, hour.0 + 1, NOW.plus_ms(1000)), Err(Refusal::GrantExpired));
}

#[test]
fn two_grants_with_a_gap_do_not_cover_what_lies_between() {
    let mut world = World::new();
    let hour = NOW.hour().0;
    for (from, until) in [(hour, hour + 1), (hour + 5, hour + 6)] {
        let Control::Grant(mut grant) = world.grant(&world.stranger.public().clone(), Right::Read) else {
            unreachable!()
        };
        (grant.from, grant.until) = (Some(Hour(from)), Some(Hour(until)));
        world.control(&Control::Grant(grant)).unwrap();
    }
    let mut request = world.request(&world.stranger, Part::Content);
    (request.scope.from, request.scope.until) = (Hour(hour), Hour(hour + 6));
    let room = world.room.as_ref().unwrap();
    assert_eq!(decide(ALLIANCE, room, &request, NOW), Err(Refusal::HourNotCovered));
}

#[test]
fn a_new_epoch_continues_the_named_grants_and_no_others() {
    let mut world = World::new();
    let gateway = world.grant_of(&world.gateway);
    let next = EpochId([2; 16]);
    let epoch = world.epoch(next, Some(EPOCH), vec![gateway]);
    world.control(&epoch).unwrap();
    let room = world.room.as_ref().unwrap();
    let may = |who: &Identity, right| room.may(who.author_id(), right, next, None, NOW);
    assert_eq!(may(&world.gateway, Right::Append), Ok(()));
    assert_eq!(may(&world.clinician, Right::Read), Err(Refusal::EpochNotCovered));
    assert_eq!(room.epochs[&EPOCH].superseded_by, Some(next));
    let twice = world.epoch(EpochId([3; 16]), Some(EPOCH), vec![]);
    assert_eq!(world.control(&twice), Err(Refused::Because(Refusal::ControlMalformed)));
    let reader = world.grant_of(&world.clinician);
    let widening = world.epoch(EpochId([3; 16]), Some(next), vec![reader]);
    assert_eq!(world.control(&widening), Err(Refused::Because(Refusal::ControlMalformed)));
}

#[test]
fn only_the_patient_signs_control_events_and_each_follows_the_last() {
    let mut world = World::new();
    let stranger = world.stranger.clone();
    let grant = world.grant(&stranger.public().clone(), Right::Read);
    let clinician = world.clinician.clone();
    let forged = world.event_by(&grant, clinician.author_id());
    assert_eq!(world.submit(&clinician, &[forged]), because(Refusal::NotOwner));
    world.control(&grant).unwrap();
    assert_eq!(world.control(&grant), Err(Refused::Because(Refusal::ControlOutOfSequence)));
}

#[test]
fn a_room_is_made_once_by_the_keys_that_its_id_is_the_hash_of() {
    let mut world = World::empty();
    let create = world.create();
    let (patient, stranger) = (world.patient.clone(), world.stranger.clone());
    world.id = RoomId([4; 16]);
    let event = world.event_by(&Control::RoomCreate(create.clone()), patient.author_id());
    assert_eq!(world.submit(&patient, std::slice::from_ref(&event)), because(Refusal::ControlMalformed));
    world.id = create.room_id();
    let foreign = world.event_by(&Control::RoomCreate(create.clone()), stranger.author_id());
    assert_eq!(world.submit(&stranger, &[foreign]), because(Refusal::ControlMalformed));
    let elsewhere = RoomCreate { alliance: AllianceId([1; 32]), ..create.clone() };
    world.id = elsewhere.room_id();
    let foreign = world.event_by(&Control::RoomCreate(elsewhere), patient.author_id());
    assert_eq!(world.submit(&patient, &[foreign]), because(Refusal::OtherAlliance));
    world.id = create.room_id();
    assert_eq!(world.submit(&patient, &[event]), Ok(()));
    let again = world.event_by(&Control::RoomCreate(create), patient.author_id());
    assert_eq!(world.submit(&patient, &[again]), because(Refusal::RoomExists));
}

#[test]
fn a_run_for_a_room_that_is_not_there_is_refused() {
    let mut world = World::empty();
    world.id = RoomId([1; 16]);
    let gateway = world.gateway.clone();
    let events = world.reading(&gateway, NOW.hour());
    assert_eq!(world.submit(&gateway, &events), because(Refusal::RoomUnknown));
}

#[test]
fn a_key_that_is_none_does_not_enter_the_ledger() {
    let mut world = World::new();
    let Control::Epoch(mut record) = world.epoch(EpochId([8; 16]), None, vec![]) else { unreachable!() };
    // ML-KEM's encapsulation-key check (FIPS 203 §7.2): coefficients at or above the modulus.
    record.group_key = kem::KemPublic::from_slice(&[0xff; kem::KEM_PUBLIC_LEN]).unwrap();
    assert_eq!(world.control(&Control::Epoch(record)), Err(Refused::Because(Refusal::BadKey)));
}

#[test]
fn kinds_without_rules_are_refused() {
    let mut world = World::new();
    let patient = world.patient.clone();
    let [wrap, _] = world.reading(&patient, NOW.hour());
    for kind in [Kind::Attribution, Kind::Shred] {
        let mut core = wrap.core().clone();
        core.kind = kind;
        let event = crate::event::Event::assemble(core, Hash::ZERO, wrap.body().to_vec());
        assert_eq!(world.submit(&patient, &[event]), because(Refusal::KindNotAllowed));
    }
}

#[test]
fn the_sealed_part_opens_for_its_parties_alone() {
    let mut world = World::new();
    let grant = world.grant(&world.stranger.public().clone(), Right::Read);
    let private = Private { purpose: Some("cardiac follow-up".into()), ..Private::default() };
    let (patient, clinician) = (world.patient.clone(), world.clinician.clone());
    let parties = [patient.party(), clinician.party()];
    let event = grant.event(&mut world.rng, world.id, patient.author_id(), NOW, Some((&private, &parties))).unwrap();
    assert_eq!(Private::open(&event, &clinician), Ok(Some(private)));
    assert_eq!(Private::open(&event, &world.gateway), Err(crate::control::ControlError::NotAParty));
    let found = event.event().body.windows(7).any(|w| w == b"cardiac");
    assert!(!found, "the purpose is not readable in the stored bytes");
}

#[test]
fn a_room_holds_no_more_than_its_limits() {
    let because = |refusal| Err(Refused::Because(refusal));
    let mut world = World::new();
    let gateway = world.grant_of(&world.gateway);
    let full = limits::GRANTED_EPOCHS_PER_ROOM_MAX - 1;
    world.room.as_mut().unwrap().grants.get_mut(&gateway).unwrap().epochs = vec![EPOCH; full];
    let guest = world.stranger.public().clone();
    let (grant, epoch) = (world.grant(&guest, Right::Read), world.epoch(EpochId([2; 16]), Some(EPOCH), vec![gateway]));
    assert_eq!(world.control(&grant), because(Refusal::LimitReached), "the clinician's is the last that fits");
    assert_eq!(world.control(&epoch), because(Refusal::LimitReached));
    // An epoch that continues nothing, as after everything was revoked, still fits.
    let epoch = world.epoch(EpochId([2; 16]), Some(EPOCH), vec![]);
    world.control(&epoch).unwrap();

    let mut world = World::new();
    let Control::Grant(mut grant) = world.grant(&guest, Right::Append) else { panic!("a grant") };
    grant.epochs = vec![EPOCH; limits::EPOCHS_PER_GRANT_MAX + 1];
    assert_eq!(world.control(&Control::Grant(grant)), because(Refusal::LimitReached));
    let orphan = world.epoch(EpochId([2; 16]), Some(EpochId([3; 16])), vec![]);
    assert_eq!(world.control(&orphan), because(Refusal::ControlMalformed));
}

#[test]
fn a_wrap_needs_one_hour_of_its_day_that_is_covered() {
    let mut world = World::new();
    let day = NOW.day();
    let Control::Grant(grant) = world.grant(&world.stranger.public().clone(), Right::Append) else { panic!("a grant") };
    let last = Hour(day.0 * 24 + 23);
    let grant = Grant { from: Some(last), until: Some(Hour(last.0 + 1)), ..grant };
    world.control(&Control::Grant(grant)).unwrap();
    let room = world.room.as_ref().unwrap();
    let may = |who: &Identity, epoch, day| room.may_append_on(who.author_id(), epoch, day, NOW);
    let before = crate::time::Day(day.0 - 1);
    assert_eq!(may(&world.stranger, EPOCH, day), Ok(()));
    assert_eq!(may(&world.stranger, EPOCH, before), Err(Refusal::HourNotCovered));
    assert_eq!(may(&world.stranger, EPOCH, crate::time::Day(u32::MAX)), Err(Refusal::HourNotCovered));
    assert_eq!(may(&world.stranger, EpochId([5; 16]), day), Err(Refusal::EpochNotCovered));
    assert_eq!(may(&world.clinician, EPOCH, day), Err(Refusal::NotInvited));
    assert_eq!(may(&world.patient, EPOCH, before), Ok(()));
}
