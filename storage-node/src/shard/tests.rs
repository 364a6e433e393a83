//! Apply on a real store: decisions, idempotence, determinism, snapshots, crashes.

use std::io::Read;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::Bytes;

use ehe::control::Right;
use ehe::id::{AllianceId, Hash, NodeId};
use ehe::identity::Identity;
use ehe::merkle::Peaks;
use ehe::read::AccessRecord;
use ehe::refusal::Refusal;
use ehe::time::UnixMs;

use super::block::{Block, Command, Outcome, decode_outcomes};
use super::*;
use crate::checkpoint::Board;
use crate::consensus::{self, Machine, Position};

#[allow(dead_code, unreachable_pub, reason = "shared with the integration tests, which use more of it")]
#[path = "../../tests/support/people.rs"]
pub(crate) mod people;

mod charters;
mod crash;
mod forget;
mod incoming;
mod rules;
mod scrub;
mod stored;
mod void;

use people::{Patient, Sealer, Writer, content, request, rng};

const PLACE: Place = Place { alliance: AllianceId([7; 32]), shard_count: NonZeroU16::MIN, shard: 0 };
const NOON: UnixMs = UnixMs(1_790_000_000_000 - 1_790_000_000_000 % 3_600_000);
const CACHE: usize = 4 << 20;
const NODE: NodeId = NodeId::ZERO;

struct Bench {
    place: Place,
    dir: tempfile::TempDir,
    machine: ShardMachine,
    store: Store,
    blocks: Vec<Bytes>,
    now: UnixMs,
}

impl Bench {
    fn new() -> Self {
        Self::of(PLACE)
    }

    fn of(place: Place) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), place.alliance, 0, CACHE).unwrap();
        let machine = ShardMachine::new(place, store.clone(), Arc::new(Board::default())).unwrap();
        Self { place, dir, machine, store, blocks: Vec::new(), now: NOON }
    }

    fn block(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let bytes = Bytes::from(Block::new(self.now, self.machine.rules().in_force(), commands).to_vec());
        self.blocks.push(bytes.clone());
        let position = Position { term: 1, index: self.blocks.len() as u64 };
        let meta = position.index.to_be_bytes();
        let answers = self.machine.apply(&[consensus::Command { position, bytes }], &meta).unwrap();
        decode_outcomes(&answers[0]).unwrap()
    }

    fn one(&mut self, command: Command) -> Outcome {
        self.block(vec![command]).remove(0)
    }

    fn submit(&mut self, submission: ehe::wire::Submission) -> Outcome {
        self.one(Command::Submit(submission))
    }

    fn read(&mut self, reader: &Identity, signed: ehe::read::SignedRequest) -> Outcome {
        self.one(Command::Read(signed, reader.public().clone(), NODE))
    }

    fn root(&self) -> (u64, Hash) {
        root(&self.store)
    }

    /// All entries of a room that are access records.
    fn records(&self, room: ehe::id::RoomId) -> Vec<AccessRecord> {
        let view = self.store.view().unwrap();
        let at = view.positions(room, 0, u64::MAX, 10_000).unwrap();
        let entries = at.iter().map(|(_, log_index)| view.entry(*log_index).unwrap());
        entries.filter(|e| !e.is_run()).map(|e| AccessRecord::decode(&e.bytes).unwrap()).collect()
    }
}

fn root(store: &Store) -> (u64, Hash) {
    let view = store.view().unwrap();
    let peaks = Peaks::load(&view, view.shard().leaves).unwrap();
    (peaks.size(), peaks.root())
}

/// A room with a gateway that may append and a clinician who may read.
struct Home {
    patient: Patient,
    gateway: Writer,
    clinician: Identity,
    read_grant: ehe::id::EheId,
    sealer: Sealer,
}

fn home(bench: &mut Bench) -> Home {
    let now = bench.now;
    let [owner, gateway, clinician] = [(); 3].map(|()| Identity::generate(&mut rng()));
    let mut patient = Patient::new(&owner, bench.place.alliance, (0, 1), now);
    let mut events = patient.opening(now);
    events.push(patient.grant(gateway.public(), Right::Append, None, now));
    let read = patient.grant(clinician.public(), Right::Read, None, now);
    events.push(read.clone());
    let run = patient.writer.run(&events);
    assert_eq!(bench.submit(run), Outcome::Submitted { log_index: bench.root().0 - 1, control_seq: 4 });
    let sealer = Sealer::new(&gateway, &patient, now);
    let gateway = Writer::new(&gateway, patient.room);
    Home { patient, gateway, clinician, read_grant: read.id(), sealer }
}

#[test]
fn a_run_that_is_submitted_again_is_known_and_changes_nothing() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    let run = home.gateway.run(&[home.sealer.wrap.clone(), home.sealer.seal(b"72 bpm")]);
    assert_eq!(bench.submit(run.clone()), Outcome::Submitted { log_index: 1, control_seq: 4 });
    let before = bench.root();
    assert_eq!(bench.submit(run.clone()), Outcome::Known(vec![1]));
    assert_eq!(bench.block(vec![Command::Submit(run.clone()), Command::Submit(run)]), vec![Outcome::Known(vec![1]); 2]);
    assert_eq!(bench.root(), before);
}

#[test]
fn one_authors_sequence_is_not_used_twice_and_the_refusal_is_kept() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    let twin = home.gateway.linked(&[home.sealer.wrap.clone(), home.sealer.seal(b"73")]).0;
    let run = home.gateway.run(&[home.sealer.wrap.clone(), home.sealer.seal(b"72")]);
    assert!(matches!(bench.submit(run), Outcome::Submitted { .. }));
    // Its wrap is known, so it is the known events that it hears of first; one without any is refused for its place.
    assert_eq!(bench.submit(twin), Outcome::Known(vec![1]));
    let stale = Writer { identity: home.gateway.identity.clone(), strand: home.gateway.strand.clone() };
    assert!(matches!(bench.submit(home.gateway.run(&[home.sealer.seal(b"74")])), Outcome::Submitted { .. }));
    let twin = stale.linked(&[home.sealer.seal(b"75")]).0;
    assert_eq!(bench.submit(twin.clone()), Outcome::Refused(Refusal::StrandGap));
    let view = bench.store.view().unwrap();
    let kept = view.run_refusals(home.patient.room, home.gateway.identity.author_id()).unwrap();
    assert_eq!(kept.iter().map(|r| (r.run, r.why)).collect::<Vec<_>>(), [(twin.run.hash(), Refusal::StrandGap)]);
}

#[test]
fn kept_refusals_are_bounded_and_the_newest_stay() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    let lone = home.sealer.seal(b"no wrap before it");
    for n in 0..20 {
        bench.now = NOON.plus_ms(n);
        let fresh = Writer::new(&home.gateway.identity, home.patient.room);
        assert_eq!(bench.submit(fresh.linked(std::slice::from_ref(&lone)).0), Outcome::Refused(Refusal::WrapMissing));
    }
    let kept = bench.store.view().unwrap();
    let kept = kept.run_refusals(home.patient.room, home.gateway.identity.author_id()).unwrap();
    assert_eq!((kept.len(), kept[7].at), (RUN_REFUSALS_KEPT, NOON.plus_ms(19)));
    // A refusal costs nothing: the same event enters once its wrap came.
    assert!(matches!(bench.submit(home.gateway.run(&[home.sealer.wrap.clone(), lone])), Outcome::Submitted { .. }));
}

#[test]
fn control_events_are_verified_by_every_replica_and_strangers_change_nothing() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    let before = bench.root();
    let stranger = Identity::generate(&mut rng());
    // Signed by the stranger in the patient's name: an ordering party that lets it pass is not believed.
    let grant = home.patient.grant(stranger.public(), Right::Read, None, NOON);
    let (good, _) = home.patient.writer.linked(std::slice::from_ref(&grant));
    let mut forged = good.clone();
    let last = forged.run.0.len() - 1;
    forged.run.0[last] ^= 1;
    assert_eq!(bench.submit(forged), Outcome::Refused(Refusal::BadSignature));
    // In the stranger's own name.
    let own = Control::author_event(&stranger, &home.patient, NOON);
    let own = Writer::new(&stranger, home.patient.room).linked(&[own]).0;
    assert_eq!(bench.submit(own), Outcome::Refused(Refusal::NotInvited));
    // By a party that is not the patient.
    let by_gateway = Control::author_event(&home.gateway.identity, &home.patient, NOON);
    assert_eq!(bench.submit(home.gateway.linked(&[by_gateway]).0), Outcome::Refused(Refusal::NotOwner));
    assert_eq!(bench.root(), before);
    assert!(matches!(bench.submit(good), Outcome::Submitted { control_seq: 5, .. }));
}

#[test]
fn content_under_keys_that_the_owner_replaced_is_refused_though_the_ordering_party_checked_it_before() {
    use ehe::control::{Authority, Change, Control, possession};
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    let old = home.patient.writer.identity.clone();
    let sealer = Sealer::new(&old, &home.patient, NOON);
    let run = home.patient.writer.run(std::slice::from_ref(&sealer.wrap));
    assert!(matches!(bench.submit(run), Outcome::Submitted { .. }));
    // Checked while these were the owner's keys; it waits in the queue while the rotation is applied.
    let waiting = Writer::new(&old, home.patient.room).run(&[sealer.seal(b"a thief's reading")]);
    let (new, link) = (Identity::generate(&mut rng()), home.patient.link());
    let change = Change::Rotate(new.public().clone(), possession(&new, home.patient.room, link));
    let rotate = home.patient.control(&Control::Authority(Authority { link, change, seeds: vec![] }), NOON);
    let run = home.patient.writer.run(&[rotate]);
    assert!(matches!(bench.submit(run), Outcome::Submitted { .. }));
    let before = bench.root();
    assert_eq!(bench.submit(waiting), Outcome::Refused(Refusal::BadSignature));
    assert_eq!(bench.root(), before);
}

struct Control;
impl Control {
    /// A grant that somebody else than the patient writes.
    fn author_event(author: &Identity, patient: &Patient, now: UnixMs) -> ehe::event::CheckedEvent {
        use ehe::control::{Control, ControlLink, Ending, Revoke};
        let link = ControlLink { seq: 4, previous: ehe::id::EheId::ZERO };
        let revoke = Revoke { link, grant: ehe::id::EheId::ZERO, ending: Ending::Cut };
        Control::Revoke(revoke).event(&mut rng(), patient.room, author.author_id(), now, None).unwrap()
    }
}

#[test]
fn content_does_not_ride_along_with_the_patients_control_records() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    let sealer = Sealer::new(&home.patient.writer.identity.clone(), &home.patient, NOON);
    let stranger = Identity::generate(&mut rng());
    let grant = home.patient.grant(stranger.public(), Right::Read, None, NOON);
    let mixed = home.patient.writer.linked(&[sealer.wrap.clone(), sealer.seal(b"x"), grant]).0;
    assert_eq!(bench.submit(mixed), Outcome::Refused(Refusal::RunMalformed));
}

#[test]
fn a_granted_read_is_an_entry_of_the_room_and_is_not_granted_twice() {
    let mut bench = Bench::new();
    let home = home(&mut bench);
    let signed = content(&home.clinician, &home.patient, NOON);
    assert_eq!(bench.read(&home.clinician, signed.clone()), Outcome::Granted { record: Some(1) });
    let records = bench.records(home.patient.room);
    assert_eq!((records.len(), records[0].refused, records[0].count), (1, None, 1));
    assert_eq!((&records[0].request, &records[0].reader), (&signed, &None));
    assert_eq!(bench.read(&home.clinician, signed), Outcome::Refused(Refusal::RequestRepeated));
    // In somebody else's name.
    let other = Identity::generate(&mut rng());
    let signed = content(&home.clinician, &home.patient, NOON);
    assert_eq!(bench.read(&other, signed), Outcome::Refused(Refusal::BadSignature));
    // Control needs no record.
    let control = request(&home.clinician, PLACE.alliance, home.patient.room, ehe::read::Part::Control, NOON);
    assert_eq!(bench.read(&home.clinician, control.sign(&home.clinician)), Outcome::Granted { record: None });
    assert_eq!(bench.root().0, 3, "the room, one read, one refusal");
}

#[test]
fn a_stale_request_is_refused_by_the_ledgers_time() {
    let mut bench = Bench::new();
    let home = home(&mut bench);
    let early = content(&home.clinician, &home.patient, UnixMs(NOON.0 - 300_001));
    assert_eq!(bench.read(&home.clinician, early), Outcome::Refused(Refusal::RequestStale));
    let late = content(&home.clinician, &home.patient, NOON.plus_ms(300_001));
    assert_eq!(bench.read(&home.clinician, late), Outcome::Refused(Refusal::RequestStale));
    let at = content(&home.clinician, &home.patient, NOON.plus_ms(300_000));
    assert!(matches!(bench.read(&home.clinician, at.clone()), Outcome::Granted { .. }));
    // Its nonce is forgotten only when it would be stale.
    bench.now = NOON.plus_ms(600_000);
    assert_eq!(bench.read(&home.clinician, at.clone()), Outcome::Refused(Refusal::RequestRepeated));
    bench.now = NOON.plus_ms(600_001);
    assert_eq!(bench.read(&home.clinician, at), Outcome::Refused(Refusal::RequestStale));
}

#[test]
fn expired_and_revoked_grants_and_strangers_are_refused() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    let guest = Identity::generate(&mut rng());
    let grant = home.patient.grant(guest.public(), Right::Read, Some(NOON.plus_ms(1000)), NOON);
    assert!(matches!(bench.submit(home.patient.writer.run(&[grant])), Outcome::Submitted { .. }));
    let ask = |bench: &mut Bench, who: &Identity| {
        let signed = content(who, &home.patient, bench.now);
        bench.read(who, signed)
    };
    assert!(matches!(ask(&mut bench, &guest), Outcome::Granted { .. }));
    bench.now = NOON.plus_ms(1000);
    assert_eq!(ask(&mut bench, &guest), Outcome::Refused(Refusal::GrantExpired));
    // Time never goes back: an ordering party with a slow clock does not revive the grant.
    bench.now = NOON;
    assert_eq!(ask(&mut bench, &guest), Outcome::Refused(Refusal::GrantExpired));
    let stranger = Identity::generate(&mut rng());
    assert_eq!(ask(&mut bench, &stranger), Outcome::Refused(Refusal::NotInvited));
    assert!(matches!(ask(&mut bench, &home.clinician), Outcome::Granted { .. }));
    let revoke = home.patient.revoke(home.read_grant, NOON);
    assert!(matches!(bench.submit(home.patient.writer.run(&[revoke])), Outcome::Submitted { .. }));
    let signed = content(&home.clinician, &home.patient, bench.now);
    assert_eq!(bench.read(&home.clinician, signed), Outcome::Refused(Refusal::GrantRevoked));
}

#[test]
fn refusals_of_one_identity_in_one_hour_are_one_entry_and_a_count() {
    let mut bench = Bench::new();
    let home = home(&mut bench);
    let strangers = [(); 2].map(|()| Identity::generate(&mut rng()));
    for n in 0..5 {
        for stranger in &strangers {
            bench.now = NOON.plus_ms(n);
            let signed = content(stranger, &home.patient, bench.now);
            assert_eq!(bench.read(stranger, signed), Outcome::Refused(Refusal::NotInvited));
        }
    }
    let records = bench.records(home.patient.room);
    assert_eq!(records.iter().map(|r| r.count).collect::<Vec<_>>(), [1, 1]);
    assert!(records.iter().all(|r| r.refused == Some(Refusal::NotInvited) && r.reader.is_some()));
    // The hour is over: the rest is written down by whatever block comes next.
    bench.now = NOON.plus_ms(3_600_000);
    bench.block(vec![]);
    let records = bench.records(home.patient.room);
    assert_eq!(records.iter().map(|r| r.count).collect::<Vec<_>>(), [1, 1, 4, 4]);
    assert_eq!(records.iter().map(|r| r.count).sum::<u64>(), 10);
    bench.block(vec![]);
    assert_eq!(bench.records(home.patient.room).len(), 4);
    // A room that does not exist leaves nothing.
    let before = bench.root();
    let nowhere = Patient::new(&strangers[0], PLACE.alliance, (0, 1), NOON);
    let signed = content(&strangers[0], &nowhere, bench.now);
    assert_eq!(bench.read(&strangers[0], signed), Outcome::Refused(Refusal::RoomUnknown));
    assert_eq!(bench.root(), before);
}

#[test]
fn the_same_blocks_give_the_same_root_on_another_store_one_by_one_or_at_once() {
    let mut bench = Bench::new();
    busy(&mut bench);
    let commands: Vec<_> = (1u64..)
        .zip(&bench.blocks)
        .map(|(index, bytes)| consensus::Command { position: Position { term: 1, index }, bytes: bytes.clone() })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), PLACE.alliance, 0, CACHE).unwrap();
    let mut machine = ShardMachine::new(PLACE, store.clone(), Arc::new(Board::default())).unwrap();
    machine.apply(&commands, b"meta").unwrap();
    assert_eq!(root(&store), bench.root());
    assert_eq!(snapshot(&machine), snapshot(&bench.machine), "every table has the same rows");
}

/// A little of everything.
fn busy(bench: &mut Bench) {
    let mut home = home(bench);
    let stranger = Identity::generate(&mut rng());
    let run = home.gateway.run(&[home.sealer.wrap.clone(), home.sealer.seal(b"72 bpm")]);
    bench.submit(run.clone());
    for n in 1..40u64 {
        bench.now = NOON.plus_ms(n * 600_000);
        let run = home.gateway.run(&[home.sealer.seal(&n.to_be_bytes())]);
        let refused = Writer::new(&home.gateway.identity, home.patient.room).linked(&[home.sealer.wrap.clone()]).0;
        bench.block(vec![
            Command::Submit(run),
            Command::Submit(refused),
            Command::Read(content(&stranger, &home.patient, bench.now), stranger.public().clone(), NODE),
            Command::Read(content(&home.clinician, &home.patient, bench.now), home.clinician.public().clone(), NODE),
        ]);
    }
}

fn snapshot(machine: &ShardMachine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.snapshot().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_crash_loses_only_what_was_not_durable_and_the_replay_gives_the_same_root() {
    let mut bench = Bench::new();
    busy(&mut bench);
    let whole = bench.root();
    // The file as a crash leaves it: with what was durable when it was copied, and nothing else guaranteed.
    let crashed = tempfile::tempdir().unwrap();
    let half = bench.blocks.len() / 2;
    let store = Store::open(crashed.path(), PLACE.alliance, 0, CACHE).unwrap();
    let mut machine = ShardMachine::new(PLACE, store, Arc::new(Board::default())).unwrap();
    let command = |index: usize| consensus::Command {
        position: Position { term: 1, index: index as u64 },
        bytes: bench.blocks[index].clone(),
    };
    for index in 0..bench.blocks.len() {
        machine.apply(&[command(index)], &index.to_be_bytes()).unwrap();
        if index == half {
            machine.make_durable().unwrap();
        }
    }
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(crashed.path().join("shard-0000.redb"), copy.path().join("shard-0000.redb")).unwrap();
    let store = Store::open(copy.path(), PLACE.alliance, 0, CACHE).unwrap();
    let mut machine = ShardMachine::new(PLACE, store.clone(), Arc::new(Board::default())).unwrap();
    let applied = usize::from_be_bytes(machine.applied().unwrap().unwrap().0.try_into().unwrap());
    assert!(applied >= half, "what was durable is there");
    for index in applied + 1..bench.blocks.len() {
        machine.apply(&[command(index)], &index.to_be_bytes()).unwrap();
    }
    assert_eq!(root(&store), whole);
}

#[test]
fn files_of_another_format_shard_or_alliance_are_refused() {
    let bench = Bench::new();
    let dir = bench.dir.path().to_path_buf();
    let Bench { dir: _keep, machine, store, .. } = bench;
    drop((machine, store));
    let other = Store::open(&dir, AllianceId([8; 32]), 0, CACHE).err().unwrap();
    assert!(matches!(other, StoreError::OtherShard { shard: 0, .. }), "{other}");
    std::fs::copy(dir.join("shard-0000.redb"), dir.join("shard-0001.redb")).unwrap();
    assert!(matches!(Store::open(&dir, PLACE.alliance, 1, CACHE), Err(StoreError::OtherShard { .. })));
    let store = Store::open(&dir, PLACE.alliance, 0, CACHE).unwrap();
    let later = schema::Marker { format: 99, alliance: PLACE.alliance, shard: 0 };
    let write = store.write(redb::Durability::Immediate, |tables| {
        tables.meta.insert(schema::META_MARKER, ehe::cbor::to_vec(&later).as_slice())?;
        Ok(())
    });
    write.unwrap();
    drop(store);
    assert!(matches!(
        Store::open(&dir, PLACE.alliance, 0, CACHE),
        Err(StoreError::Format { found: 99, known: schema::FORMAT })
    ));
}

/// A room whose grants are continued again and again: 160 at a time is what one epoch record may name.
#[test]
fn a_room_never_outgrows_what_its_state_may_take_and_the_shard_goes_on() {
    use ehe::control::{Control, EpochRecord};
    use ehe::id::EpochId;
    let mut bench = Bench::new();
    let owner = Identity::generate(&mut rng());
    let mut patient = Patient::new(&owner, PLACE.alliance, (0, 1), NOON);
    let guest = Identity::generate(&mut rng());
    let opening = patient.opening(NOON);
    let grants: Vec<_> = (0..160).map(|_| patient.grant(guest.public(), Right::Append, None, NOON)).collect();
    let continues: Vec<_> = grants.iter().map(ehe::event::CheckedEvent::id).collect();
    let run = patient.writer.run(&[opening, grants].concat());
    assert!(matches!(bench.submit(run), Outcome::Submitted { .. }));
    let mut outcome = None;
    for _ in 0..16 {
        let mut before = patient.epoch;
        let epochs: Vec<_> = (0..128)
            .map(|_| {
                let epoch = EpochId(people::random());
                let record = EpochRecord {
                    link: patient.link(),
                    epoch,
                    group_key: patient.group.public(),
                    supersedes: Some(before),
                    continues: continues.clone(),
                    seeds: vec![],
                };
                before = epoch;
                patient.control(&Control::Epoch(record), NOON)
            })
            .collect();
        patient.epoch = before;
        match bench.submit(patient.writer.run(&epochs)) {
            Outcome::Submitted { .. } => {}
            refused => {
                outcome = Some(refused);
                break;
            }
        }
    }
    // What is not in memory any more (a restart, or many other rooms) is read from the file.
    bench.machine = ShardMachine::new(PLACE, bench.store.clone(), Arc::new(Board::default())).unwrap();
    let signed = request(&guest, PLACE.alliance, patient.room, ehe::read::Part::Control, NOON).sign(&guest);
    assert_eq!(bench.read(&guest, signed), Outcome::Granted { record: None });
    assert_eq!(outcome, Some(Outcome::Refused(Refusal::LimitReached)));
}

#[test]
fn the_largest_state_that_the_limits_allow_fits() {
    use ehe::control::Ending;
    use ehe::id::{AuthorId, EheId, EpochId};
    use ehe::limits::{
        DELEGATIONS_PER_ROOM_MAX, EPOCHS_PER_ROOM_MAX, GRANTED_EPOCHS_PER_ROOM_MAX, GRANTS_PER_ROOM_MAX,
        OWNER_KEYS_PER_ROOM_MAX,
    };
    use ehe::room::{Delegation, EpochState, GrantEnd, GrantState, OwnerKey, RoomState};
    use ehe::time::Hour;
    let key = Identity::generate(&mut rng()).public().sign;
    let far = UnixMs(u64::MAX);
    let grant = || GrantState {
        subject: AuthorId(people::random()),
        subject_key: key,
        right: Right::Append,
        epochs: (0..GRANTED_EPOCHS_PER_ROOM_MAX / GRANTS_PER_ROOM_MAX).map(|_| EpochId(people::random())).collect(),
        from: Some(Hour(u32::MAX)),
        until: Some(Hour(u32::MAX)),
        expires: Some(far),
        ended: Some(GrantEnd { at: far, ending: Ending::DrainUntil(far) }),
        seq: u64::MAX,
    };
    let owner_key =
        || OwnerKey { id: AuthorId(people::random()), sign: key, from: u64::MAX, distrusted_from: Some(u64::MAX) };
    let delegation = || Delegation {
        sign: key,
        rights: ehe::control::Rights::EPOCH,
        expires: Some(far),
        seq: u64::MAX,
        ended: Some(far),
    };
    let epoch = || (EpochId(people::random()), EpochState { superseded_by: Some(EpochId(people::random())) });
    let state = RoomState {
        version: RoomState::VERSION,
        room: ehe::id::RoomId(people::random()),
        alliance: PLACE.alliance,
        owner: AuthorId(people::random()),
        owner_keys: (0..OWNER_KEYS_PER_ROOM_MAX).map(|_| owner_key()).collect(),
        next_control: u64::MAX,
        last_control: EheId(people::random()),
        epochs: (0..EPOCHS_PER_ROOM_MAX).map(|_| epoch()).collect(),
        grants: (0..GRANTS_PER_ROOM_MAX).map(|_| (EheId(people::random()), grant())).collect(),
        delegations: (0..DELEGATIONS_PER_ROOM_MAX).map(|_| (AuthorId(people::random()), delegation())).collect(),
        recovery: ehe::id::Hash([1; 32]),
    };
    let bytes = ehe::cbor::to_vec(&state);
    assert!(bytes.len() <= view::ROOM_STATE_MAX_BYTES, "{} bytes", bytes.len());
}
