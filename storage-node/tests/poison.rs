//! Requests that are wrong in every way, on the live path from the channel to the ledger: each gets an answer that says whose
//! fault it is, and what waits behind it or stands beside it is served.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Duration;

use certs::{Exchange, Role};
use ehe::control::Right;
use ehe::event::{CheckedEvent, Event};
use ehe::id::{AllianceId, EpochId, Nonce, RoomId, StrandId};
use ehe::identity::Identity;
use ehe::ledger::{Follower, Verified};
use ehe::read::{Part, Purpose, ReadRequest, SignedRequest};
use ehe::refusal::{Fault, Refusal};
use ehe::run::{Run, SignedRun, StrandEnd};
use ehe::time::{Hour, UnixMs};
use ehe::wire::{Request, Response, Submission};
use ehe_node::daemon::Daemon;
use futures::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};

#[path = "support/alliance.rs"]
mod alliance;
#[path = "support/people.rs"]
mod people;

use alliance::{Alliance, LIMIT, Link, SHARDS, now, receive};
use people::{Patient, Sealer, Writer, content, random, request, rng};

/// A good client beside the others is answered within this time.
const SERVED: Duration = Duration::from_secs(5);

struct Scene {
    alliance: Alliance,
    node: Daemon,
    owner: Link,
    gateway: Link,
    clinician: Link,
    patient: Patient,
    sealer: Sealer,
    /// Runs in the room's ledger.
    runs: usize,
}

impl Scene {
    async fn new() -> Self {
        let alliance = Alliance::new();
        let node = alliance.start().await;
        let address = node.local_addr().unwrap();
        let people = [("patient", Role::Patient), ("gateway", Role::Gateway), ("clinician", Role::Clinician)];
        let people = people.map(|(name, role)| alliance.person(name, role));
        let [owner, gateway, clinician] = &people;
        let owner = alliance.connect(owner, address).await;
        let gateway = alliance.connect(gateway, address).await;
        let clinician = alliance.connect(clinician, address).await;
        let id = alliance.charter().alliance_id();
        let mut patient = Patient::new(&owner.identity, id, (0, SHARDS), now());
        let mut events = patient.opening(now());
        events.push(patient.grant(gateway.identity.public(), Right::Append, None, now()));
        events.push(patient.grant(clinician.identity.public(), Right::Read, None, now()));
        let sealer = Sealer::new(&gateway.identity, &patient, now());
        let first = patient.writer.run(&events);
        let mut this = Self { alliance, node, owner, gateway, clinician, patient, sealer, runs: 2 };
        assert!(matches!(this.owner.submit(first).await, Response::Submitted(_)));
        let wrap = this.writer().run(&[this.sealer.wrap.clone()]);
        assert!(matches!(this.gateway.submit(wrap).await, Response::Submitted(_)));
        this.runs = 2;
        this
    }

    /// A strand of its own.
    fn writer(&self) -> Writer {
        Writer::new(&self.gateway.identity, self.patient.room)
    }

    async fn is_well(&self) {
        for link in [&self.owner, &self.gateway, &self.clinician] {
            assert!(link.connection.is_open());
            let asked = tokio::time::timeout(SERVED, link.ask(&Request::Status)).await;
            let Response::Status(status) = asked.expect("it is served") else { panic!() };
            assert!(status.shards.iter().all(|shard| !shard.faulted));
        }
    }

    /// The ledger verifies from its first entry to the head, and has as many runs as it should have.
    async fn ends_with(self, runs: usize) {
        self.is_well().await;
        let asked = request(&self.owner.identity, self.patient.alliance, self.patient.room, Part::Ledger, now());
        let nonce = asked.nonce;
        let (mut follower, mut found) = (Follower::new(self.patient.room, true), 0);
        let charter = self.alliance.charter();
        for response in self.owner.fetch(asked.sign(&self.owner.identity)).await {
            match response {
                Response::Item(item) => {
                    let verified = follower.take(item, charter.alliance_id()).unwrap();
                    found += usize::from(matches!(verified, Verified::Run { .. }));
                }
                Response::Head(head) => drop(follower.confirm(&head, nonce, None, &charter).unwrap()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(found, runs);
        self.node.stop().await.unwrap();
    }
}

/// Sends a frame as it is; the first answer.
async fn send(link: &Link, frame: &[u8]) -> Response {
    let mut exchange: Exchange = link.connection.open().await.expect("the connection is open");
    exchange.send(frame, LIMIT).await.unwrap();
    let _ = exchange.finish();
    receive(&mut exchange).await.unwrap().expect("an answer")
}

/// One change to bytes.
#[derive(Debug, Clone)]
enum Change {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    /// A count or a length that lies.
    Huge(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, 1 << bit)),
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Cut),
        2 => (at(), 1..40usize).prop_map(|(at, n)| Change::Remove(at, n)),
        2 => (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => at().prop_map(Change::Huge),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, mask) => *at.get_mut(bytes) ^= mask,
            Self::Set(at, byte) => *at.get_mut(bytes) = *byte,
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Remove(at, n) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + n).min(bytes.len()));
            }
            Self::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Huge(at) => {
                let at = at.index(bytes.len());
                let major = bytes[at] & 0xe0;
                bytes.splice(at..=at, [major | 0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            }
        }
    }
}

/// Values of a strategy, the same each time.
fn values<S: Strategy>(strategy: &S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(7), ..Config::default() });
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn random_and_mutated_requests_of_every_kind_are_answered_and_change_nothing() {
    let scene = Scene::new().await;
    let reader = &scene.clinician.identity;
    let read = |part| request(reader, scene.patient.alliance, scene.patient.room, part, now()).sign(reader);
    let known = reader.public().clone();
    let kinds = [
        Request::Submit(scene.writer().run(&[scene.sealer.seal(b"72 bpm"), scene.sealer.seal(b"73 bpm")])),
        Request::Fetch(content(reader, &scene.patient, now()), known.clone()),
        Request::Fetch(read(Part::Ledger), known.clone()),
        Request::Subscribe(read(Part::Control), known),
        Request::Head(scene.patient.room, Nonce(random())),
        Request::RoomsOf,
        Request::Charter(1),
        Request::Status,
    ];
    let kinds = kinds.map(|kind| kind.to_vec());
    let mutated = (0..kinds.len(), prop::collection::vec(change(), 1..5)).prop_map(|(kind, changes)| {
        let mut bytes = kinds[kind].clone();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        bytes
    });
    let frames = prop_oneof![6 => mutated, 1 => prop::collection::vec(any::<u8>(), 0..300)];
    // Of a frame that was not changed, e.g. where a bit was flipped twice, the answer is another story.
    let frames = values(&frames, 1_500).into_iter().filter(|frame| !frame.starts_with(&kinds[0]));
    let frames: Vec<_> = frames.filter(|frame| !kinds.contains(frame)).collect();
    assert!(frames.len() > 1_400);
    let mut malformed = 0;
    for some in frames.chunks(16) {
        let answers = some.iter().enumerate().map(async |(n, frame)| {
            let link = [&scene.gateway, &scene.clinician][n % 2];
            let answer = tokio::time::timeout(LIMIT, send(link, frame)).await.expect("an answer in time");
            (frame, answer)
        });
        for (frame, answer) in join_all(answers).await {
            match answer {
                Response::Refused(why) => {
                    let faulty = matches!(why, Refusal::StorageFault | Refusal::Stopping | Refusal::NoLeader);
                    assert!(!faulty, "{why:?} to {}", hex(frame));
                    malformed += usize::from(why == Refusal::FrameMalformed);
                }
                Response::Submitted(_) | Response::Known(_) => panic!("nobody signed {}", hex(frame)),
                _ => {}
            }
        }
        scene.is_well().await;
    }
    assert!(malformed > 700, "{malformed}");
    let runs = scene.runs;
    scene.ends_with(runs).await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn submission(run: SignedRun, events: &[CheckedEvent]) -> Submission {
    Submission { run, events: events.iter().map(|event| event.event().clone()).collect() }
}

/// Runs that their author signed, and that are wrong all the same; with what is said of each.
fn poison(scene: &Scene) -> Vec<(&'static str, Submission, Refusal)> {
    use Refusal::*;
    let gateway = &scene.gateway.identity;
    let seal = || scene.sealer.seal(&random::<20>());
    let good = || {
        let events = vec![seal(), seal()];
        (scene.writer().linked(&events).0, events)
    };
    let run = |from: StrandEnd, events: &[CheckedEvent]| Run {
        room: scene.patient.room,
        author: gateway.author_id(),
        from,
        ids: events.iter().map(CheckedEvent::id).collect(),
        seen: None,
        continues: None,
    };
    let start = || StrandEnd::start(StrandId(random()));
    let mut all = Vec::new();
    let (mut one, events) = good();
    one.events.pop();
    all.push(("an event is missing", one, EventMalformed));
    let (mut one, _) = good();
    one.events.swap(0, 1);
    all.push(("events in another order", one, EventMalformed));
    let (mut one, _) = good();
    one.events[1].body[0] ^= 1;
    all.push(("a body that is not the one committed to", one, EventMalformed));
    let (mut one, _) = good();
    one.events.push(Event { header: vec![], body: vec![] });
    all.push(("an empty event", one, EventMalformed));
    let (mut one, _) = good();
    let last = one.run.0.len() - 1;
    one.run.0[last] ^= 1;
    all.push(("a signature that does not verify", one, BadSignature));
    let (mut one, _) = good();
    one.run.0.truncate(last);
    all.push(("half a run", one, RunMalformed));
    all.push(("no run", Submission { run: SignedRun(vec![]), events: vec![] }, RunMalformed));
    let gap = start().after(&[seal().id()]);
    all.push(("a strand that begins in the middle", submission(run(gap, &events).sign(gateway), &events), StrandGap));
    let twice = [events[0].clone(), events[0].clone()];
    all.push(("one event twice", submission(run(start(), &twice).sign(gateway), &twice), EventRepeated));
    let stranger = Identity::generate(&mut rng());
    let of_another = Writer::new(&stranger, scene.patient.room).linked(&[seal()]).0;
    all.push(("another author's run", of_another, NotYourIdentity));
    let mut elsewhere = run(start(), &events);
    // In the same shard, so that it is asked for there.
    elsewhere.room = std::iter::repeat_with(|| RoomId(random()))
        .find(|room| room.shard(std::num::NonZeroU16::new(SHARDS).unwrap()) == 0)
        .unwrap();
    all.push(("a room that is not there", submission(elsewhere.sign(gateway), &events), RoomUnknown));
    let unwrapped = Sealer::new(gateway, &scene.patient, now());
    let events = [unwrapped.seal(b"x")];
    all.push(("a key that nobody wrapped", submission(run(start(), &events).sign(gateway), &events), WrapMissing));
    let mut other = Patient::new(gateway, scene.patient.alliance, (0, SHARDS), now());
    let control = [other.opening(now()).remove(1)];
    let strange = submission(run(start(), &control).sign(gateway), &control);
    all.push(("the opening of another room", strange, EventOutOfPlace));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_between_good_runs_is_refused_by_name_and_blocks_none_of_them() {
    let scene = Scene::new().await;
    let mut good = 0;
    for _ in 0..4 {
        let bad = poison(&scene);
        let count = bad.len();
        // All at once: they meet in the same blocks.
        let poisoned = join_all(bad.into_iter().map(async |(what, run, why)| {
            let answer = tokio::time::timeout(SERVED, scene.gateway.submit(run)).await.expect(what);
            assert_eq!(answer, Response::Refused(why), "{what}");
            assert_ne!(why.fault(), Fault::Node, "{what}");
        }));
        let served = join_all((0..count).map(async |_| {
            let run = scene.writer().linked(&[scene.sealer.seal(&random::<20>())]).0;
            let answer = tokio::time::timeout(SERVED, scene.gateway.submit(run)).await.expect("a good run is taken");
            assert!(matches!(answer, Response::Submitted(_)), "{answer:?}");
        }));
        let (_, served) = tokio::join!(poisoned, served);
        good += served.len();
    }
    let runs = scene.runs + good;
    scene.ends_with(runs).await;
}

/// Read requests, signed by the reader, each wrong in one way.
fn wrong_reads(scene: &Scene) -> Vec<(&'static str, SignedRequest, Refusal)> {
    use Refusal::*;
    const SKEW_MS: u64 = ehe::limits::REQUEST_SKEW_MAX_MS + 60_000;
    let reader = &scene.clinician.identity;
    let mut good = request(reader, scene.patient.alliance, scene.patient.room, Part::Content, now());
    good.scope.epochs = vec![scene.patient.epoch];
    let with = |set: &dyn Fn(&mut ReadRequest)| {
        let mut request = ReadRequest { nonce: Nonce(random()), ..good.clone() };
        set(&mut request);
        request.sign(reader)
    };
    let mut forged = with(&|_| {});
    let last = forged.0.len() - 1;
    forged.0[last] ^= 1;
    vec![
        ("of long ago", with(&|r| r.made_at = UnixMs(now().0 - SKEW_MS)), RequestStale),
        ("of the beginning of time", with(&|r| r.made_at = UnixMs(0)), RequestStale),
        ("of the future", with(&|r| r.made_at = now().plus_ms(SKEW_MS)), RequestStale),
        ("of the end of time", with(&|r| r.made_at = UnixMs(u64::MAX)), RequestStale),
        ("for another alliance", with(&|r| r.alliance = AllianceId([9; 32])), OtherAlliance),
        ("for an epoch that is not there", with(&|r| r.scope.epochs = vec![EpochId(random())]), EpochNotCovered),
        ("for more epochs than may be named", with(&|r| r.scope.epochs = vec![EpochId([1; 16]); 65]), RequestMalformed),
        ("with a signature that does not verify", forged, BadSignature),
        ("that is none", SignedRequest(vec![0xa0]), RequestMalformed),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn read_requests_out_of_time_replayed_or_forged_are_refused_by_name_and_good_ones_go_on() {
    let scene = Scene::new().await;
    let reader = &scene.clinician;
    for (what, request, why) in wrong_reads(&scene) {
        for subscribe in [false, true] {
            let public = reader.identity.public().clone();
            let request = request.clone();
            let request = if subscribe { Request::Subscribe(request, public) } else { Request::Fetch(request, public) };
            let answer = tokio::time::timeout(SERVED, reader.ask(&request)).await.expect(what);
            assert_eq!(answer, Response::Refused(why), "{what}");
        }
    }
    let good = content(&reader.identity, &scene.patient, now());
    assert!(matches!(reader.fetch(good.clone()).await.last(), Some(Response::Head(_))));
    for _ in 0..3 {
        assert_eq!(reader.fetch(good.clone()).await, [Response::Refused(Refusal::RequestRepeated)], "replayed");
    }
    // Somebody else's, over one's own channel.
    let theirs = content(&scene.gateway.identity, &scene.patient, now());
    assert_eq!(reader.fetch(theirs).await, [Response::Refused(Refusal::NotYourIdentity)]);
    let runs = scene.runs;
    scene.ends_with(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_reader_signs_is_answered() {
    let scene = Scene::new().await;
    let reader = &scene.clinician;
    let (alliance, room, epoch) = (scene.patient.alliance, scene.patient.room, scene.patient.epoch);
    let number = || prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(now().0), any::<u64>()];
    let hour = || prop_oneof![Just(0), Just(u32::MAX), any::<u32>()].prop_map(Hour);
    let epochs = prop::collection::vec(any::<bool>(), 0..70);
    let part = prop_oneof![Just(Part::Control), Just(Part::Content), Just(Part::Ledger)];
    let odd = (part, epochs, (hour(), hour()), number(), number(), any::<bool>());
    let requests = odd.prop_map(|(part, epochs, (from, until), from_index, made_at, timely)| {
        let mut odd = request(&reader.identity, alliance, room, part, now());
        odd.scope.epochs = epochs.iter().map(|own| if *own { epoch } else { EpochId(random()) }).collect();
        (odd.scope.from, odd.scope.until, odd.from_index, odd.purpose) = (from, until, from_index, Purpose::Research);
        if !timely {
            odd.made_at = UnixMs(made_at);
        }
        odd
    });
    for odd in values(&requests, 200) {
        let frame = Request::Fetch(odd.sign(&reader.identity), reader.identity.public().clone()).to_vec();
        let answer = tokio::time::timeout(SERVED, send(reader, &frame)).await.expect("an answer in time");
        let fault = match &answer {
            Response::Refused(why) => why.fault(),
            _ => Fault::Sender,
        };
        assert_ne!(fault, Fault::Node, "{answer:?} to {odd:?}");
    }
    let runs = scene.runs;
    scene.ends_with(runs).await;
}
