//! A patient's room on a real node over real QUIC: append, receipt, read, refuse, revoke, restart.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;

use certs::Role;
use ehe::charter::VerifiedCharter;
use ehe::control::{Authority, Change, Control, ControlLink, Right, SeedWrap, possession};
use ehe::event::{CheckedEvent, Kind};
use ehe::id::{EheId, Hash, Nonce, WrapId};
use ehe::identity::Identity;
use ehe::kem::{self, KemSecret, WrapPurpose};
use ehe::ledger::{Follower, Verified, control_of, verify_head, wrap_of};
use ehe::read::{Part, SignedRequest};
use ehe::refusal::Refusal;
use ehe::wire::{Request, Response, Submission};

#[path = "support/alliance.rs"]
mod alliance;
#[path = "support/people.rs"]
mod people;

use alliance::{Alliance, Link, SHARDS, now, receive};
use people::{Patient, Sealer, Writer, content, random, request};

/// A node with a room in it, and everybody connected.
struct Scene {
    alliance: Alliance,
    charter: VerifiedCharter,
    node: ehe_node::daemon::Daemon,
    owner: Link,
    gateway: Link,
    clinician: Link,
    stranger: Link,
    patient: Patient,
    writer: Writer,
    sealer: Sealer,
    read_grant: EheId,
}

impl Scene {
    async fn new() -> Self {
        let alliance = Alliance::new();
        let node = alliance.start().await;
        let address = node.local_addr().unwrap();
        let charter = alliance.charter();
        let join = |name: &'static str, role| {
            let person = alliance.person(name, role);
            let alliance = &alliance;
            async move { alliance.connect(&person, address).await }
        };
        let owner = join("patient", Role::Patient).await;
        let gateway = join("gateway", Role::Gateway).await;
        let clinician = join("clinician", Role::Clinician).await;
        let stranger = join("stranger", Role::Clinician).await;
        let mut patient = Patient::new(&owner.identity, charter.alliance_id(), (1, SHARDS), now());
        let mut events = patient.opening(now());
        events.push(patient.grant(gateway.identity.public(), Right::Append, None, now()));
        let read = patient.grant(clinician.identity.public(), Right::Read, None, now());
        events.push(read.clone());
        accepted(&charter, &owner, patient.writer.run(&events)).await;
        let sealer = Sealer::new(&gateway.identity, &patient, now());
        let writer = Writer::new(&gateway.identity, patient.room);
        let read_grant = read.id();
        Self { alliance, charter, node, owner, gateway, clinician, stranger, patient, writer, sealer, read_grant }
    }

    /// Appends readings; the wrap comes along the first time.
    async fn append(&mut self, texts: &[&str]) {
        let mut events: Vec<_> = texts.iter().map(|text| self.sealer.seal(text.as_bytes())).collect();
        if self.writer.strand.end().next == 0 {
            events.insert(0, self.sealer.wrap.clone());
        }
        let run = self.writer.run(&events);
        accepted(&self.charter, &self.gateway, run).await;
    }
}

/// Submits, and verifies the receipt as a gateway does before it deletes.
async fn accepted(charter: &VerifiedCharter, link: &Link, submission: Submission) {
    let run = submission.run.decode().unwrap().verify(&link.identity.public().sign).unwrap();
    match link.submit(submission).await {
        Response::Submitted(submitted) => {
            submitted.receipt.verify(&run, charter).unwrap();
        }
        other => panic!("{other:?}"),
    }
}

/// What a reader makes of a stream: everything verified, opened with the reader's own keys, confirmed by the head.
struct Reader {
    identity: Identity,
    follower: Follower,
    groups: Vec<KemSecret>,
    wraps: BTreeMap<WrapId, ehe::control::WrapRecord>,
    opened: Vec<String>,
    skeletons: usize,
    accesses: Vec<(Option<Refusal>, u64)>,
}

impl Reader {
    fn new(identity: &Identity, room: ehe::id::RoomId, whole: bool) -> Self {
        Self {
            identity: identity.clone(),
            follower: Follower::new(room, whole),
            groups: vec![],
            wraps: BTreeMap::new(),
            opened: vec![],
            skeletons: 0,
            accesses: vec![],
        }
    }

    /// True when a head confirmed everything so far.
    fn take(&mut self, response: Response, nonce: Nonce, charter: &VerifiedCharter) -> bool {
        match response {
            Response::Wrap(event) => {
                let (id, _, record) = wrap_of(event).unwrap();
                self.wraps.insert(id, record);
                false
            }
            Response::Item(item) => {
                match self.follower.take(item, charter.alliance_id()).unwrap() {
                    Verified::Unsigned(_) | Verified::Void { .. } => panic!("every run was signed"),
                    Verified::Skeleton => self.skeletons += 1,
                    Verified::Access(record) => self.accesses.push((record.refused, record.count)),
                    Verified::Run { events, .. } => events.iter().for_each(|event| self.event(event)),
                }
                false
            }
            Response::Head(head) => {
                self.follower.confirm(&head, nonce, None, charter).unwrap();
                true
            }
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: &CheckedEvent) {
        let core = event.core();
        let seeds: Vec<SeedWrap> = match control_of(event) {
            Some(ehe::control::Control::Epoch(record)) => record.seeds,
            Some(ehe::control::Control::Grant(grant)) => grant.seeds,
            _ => vec![],
        };
        for seed in seeds.iter().filter(|seed| seed.recipient == self.identity.author_id()) {
            self.groups.push(KemSecret::from_seed(seed.open(&self.identity, core.room).unwrap()));
        }
        if core.kind == Kind::Vitals && !event.body().is_empty() {
            let record = &self.wraps[&core.wrap];
            let (room, author, epoch, day) = (core.room, core.author, core.epoch, core.hour.day());
            let purpose = WrapPurpose::EventKey { room, author, epoch, day };
            let ek = kem::unwrap(&self.groups[0], &purpose, &record.wrapped).unwrap();
            self.opened.push(String::from_utf8(ehe::seal::open(&ek, event).unwrap().to_vec()).unwrap());
        }
    }

    async fn fetch(&mut self, link: &Link, signed: SignedRequest, charter: &VerifiedCharter) {
        let nonce = signed.decode().unwrap().claims().nonce;
        let mut responses = link.fetch(signed).await;
        let last = responses.pop().expect("a head");
        for response in responses {
            assert!(!self.take(response, nonce, charter));
        }
        assert!(self.take(last, nonce, charter), "the stream ends in a head");
    }
}

fn part(who: &Link, scene: &Scene, part: Part) -> SignedRequest {
    request(&who.identity, scene.charter.alliance_id(), scene.patient.room, part, now()).sign(&who.identity)
}

async fn refused(link: &Link, signed: SignedRequest) -> Refusal {
    match link.fetch(signed).await.as_slice() {
        [Response::Refused(why)] => *why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_invited_read_and_verify_what_the_gateway_appended_and_nobody_else_does() {
    let mut scene = Scene::new().await;
    scene.append(&["72", "73"]).await;
    scene.append(&["74"]).await;
    let room = scene.patient.room;

    let mut reader = Reader::new(&scene.clinician.identity, room, false);
    reader.fetch(&scene.clinician, content(&scene.clinician.identity, &scene.patient, now()), &scene.charter).await;
    assert_eq!(reader.opened, ["72", "73", "74"]);

    // Strangers are refused, whatever they ask for, and it is written down.
    let asked = content(&scene.stranger.identity, &scene.patient, now());
    assert_eq!(refused(&scene.stranger, asked).await, Refusal::NotInvited);
    assert_eq!(refused(&scene.stranger, part(&scene.stranger, &scene, Part::Control)).await, Refusal::NotInvited);
    assert_eq!(refused(&scene.clinician, part(&scene.clinician, &scene, Part::Ledger)).await, Refusal::NotOwner);
    let head = scene.stranger.ask(&Request::Head(room, Nonce(random()))).await;
    assert_eq!(head, Response::Refused(Refusal::RoomUnknown));
    assert_eq!(scene.stranger.ask(&Request::RoomsOf).await, Response::Rooms(vec![]));

    // The gateway may append, so it follows the rules; content it may not read.
    let mut gateway = Reader::new(&scene.gateway.identity, room, false);
    gateway.fetch(&scene.gateway, part(&scene.gateway, &scene, Part::Control), &scene.charter).await;
    assert_eq!(gateway.follower.room().unwrap().grants.len(), 2);
    assert!(gateway.opened.is_empty());
    let asked = content(&scene.gateway.identity, &scene.patient, now());
    assert_eq!(refused(&scene.gateway, asked).await, Refusal::NotInvited);

    // The patient sees the ledger whole: every rule is checked again, and every read and refusal is there.
    let mut owner = Reader::new(&scene.owner.identity, room, true);
    owner.fetch(&scene.owner, part(&scene.owner, &scene, Part::Ledger), &scene.charter).await;
    let audit =
        [(None, 1), (Some(Refusal::NotInvited), 1), (Some(Refusal::NotOwner), 1), (Some(Refusal::NotInvited), 1)];
    assert_eq!(owner.accesses, audit, "the stranger's second refusal of the hour is only counted");
    scene.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_from_a_cursor_and_gets_the_wraps_that_lie_before_it() {
    let mut scene = Scene::new().await;
    scene.append(&["72"]).await;
    let (who, charter) = (&scene.clinician.identity.clone(), scene.charter.clone());
    let mut reader = Reader::new(who, scene.patient.room, false);
    reader.fetch(&scene.clinician, content(who, &scene.patient, now()), &charter).await;
    let (room, next, last) = (reader.follower.room().unwrap().clone(), reader.follower.next(), reader.follower.last());
    scene.append(&["73"]).await;

    let mut later = Reader::new(who, scene.patient.room, false);
    later.groups = reader.groups;
    later.follower = Follower::resume(room, next, last);
    let mut asked = request(who, charter.alliance_id(), scene.patient.room, Part::Content, now());
    asked.scope.epochs = vec![scene.patient.epoch];
    asked.from_index = next;
    later.fetch(&scene.clinician, asked.clone().sign(who), &charter).await;
    assert_eq!((later.opened, later.wraps.len()), (vec!["73".to_owned()], 1));
    // At the end there is nothing but the head, and the reader's own access records.
    asked.nonce = Nonce(random());
    asked.from_index = later.follower.next();
    let answers = scene.clinician.fetch(asked.clone().sign(who)).await;
    assert!(matches!(answers.as_slice(), [Response::Item(item), Response::Head(_)] if item.run.is_none()));
    // Hours outside of the scope are leaves only.
    asked.nonce = Nonce(random());
    (asked.from_index, asked.scope.until) = (0, now().hour());
    let mut none = Reader::new(who, scene.patient.room, false);
    none.fetch(&scene.clinician, asked.sign(who), &charter).await;
    assert!(none.opened.is_empty() && none.wraps.is_empty());
    scene.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_follows_what_comes_and_a_revocation_cuts_it() {
    let mut scene = Scene::new().await;
    scene.append(&["72"]).await;
    let signed = content(&scene.clinician.identity, &scene.patient, now());
    let nonce = signed.decode().unwrap().claims().nonce;
    let mut reader = Reader::new(&scene.clinician.identity, scene.patient.room, false);
    let mut stream = scene.clinician.subscribe(signed).await;
    for expected in [&["72"][..], &["72", "73"], &["72", "73", "74"]] {
        while !reader.take(receive(&mut stream).await.unwrap().unwrap(), nonce, &scene.charter)
            || reader.opened != expected
        {}
        if expected.len() < 3 {
            let text = (72 + expected.len()).to_string();
            scene.append(&[&text]).await;
        }
    }
    let revoke = scene.patient.revoke(scene.read_grant, now());
    let run = scene.patient.writer.run(&[revoke]);
    accepted(&scene.charter, &scene.owner, run).await;
    assert_eq!(receive(&mut stream).await.unwrap(), Some(Response::Refused(Refusal::GrantRevoked)));
    assert_eq!(receive(&mut stream).await.unwrap(), None);
    scene.append(&["75"]).await;
    let asked = content(&scene.clinician.identity, &scene.patient, now());
    assert_eq!(refused(&scene.clinician, asked).await, Refusal::GrantRevoked);
    scene.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_anothers_name_or_beyond_a_role_are_refused() {
    let scene = Scene::new().await;
    let run = scene.writer.linked(std::slice::from_ref(&scene.sealer.wrap)).0;
    let not_yours = Response::Refused(Refusal::NotYourIdentity);
    assert_eq!(scene.clinician.submit(run.clone()).await, not_yours);
    let signed = content(&scene.clinician.identity, &scene.patient, now());
    let as_clinician = Request::Fetch(signed.clone(), scene.clinician.identity.public().clone());
    assert_eq!(scene.stranger.ask(&as_clinician).await, not_yours);
    let as_self = Request::Fetch(signed, scene.stranger.identity.public().clone());
    assert_eq!(scene.stranger.ask(&as_self).await, not_yours);
    // A signature that does not verify.
    let mut forged = run.clone();
    let last = forged.run.0.len() - 1;
    forged.run.0[last] ^= 1;
    assert_eq!(scene.gateway.submit(forged).await, Response::Refused(Refusal::BadSignature));
    // An event that the run does not name.
    let mut other = run.clone();
    other.events = vec![scene.sealer.seal(b"72").event().clone()];
    assert_eq!(scene.gateway.submit(other).await, Response::Refused(Refusal::EventMalformed));
    let mut fewer = run.clone();
    fewer.events[0].body[3] ^= 1;
    assert_eq!(scene.gateway.submit(fewer).await, Response::Refused(Refusal::EventMalformed));
    // A node's certificate is for nodes.
    let node = certs::Credentials::load(&scene.alliance.path("node")).unwrap();
    let node = scene.alliance.connect(&node, scene.node.local_addr().unwrap()).await;
    assert_eq!(node.submit(run.clone()).await, Response::Refused(Refusal::RoleNotAllowed));
    assert!(matches!(node.ask(&Request::Status).await, Response::Status(_)));
    accepted(&scene.charter, &scene.gateway, run).await;
    scene.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_speaks_for_its_own_keys_and_the_recovery_key_for_itself_over_any() {
    let mut scene = Scene::new().await;
    let (alliance, room, not_yours) = (scene.charter.alliance_id(), scene.patient.room, Refusal::NotYourIdentity);
    let paper = Identity::generate(&mut people::rng());
    let record = |link, change| Control::Authority(Authority { link, change, seeds: vec![] });
    let set = record(scene.patient.link(), Change::SetRecovery(paper.public().commitment()));
    let set = scene.patient.control(&set, now());
    accepted(&scene.charter, &scene.owner, scene.patient.writer.run(&[set])).await;
    let asked = |who: &Identity, part| {
        Request::Fetch(request(who, alliance, room, part, now()).sign(who), who.public().clone())
    };
    let owner = scene.owner.identity.clone();
    for (who, part) in [(&paper, Part::Ledger), (&scene.clinician.identity, Part::Control), (&owner, Part::Control)] {
        assert_eq!(scene.stranger.ask(&asked(who, part)).await, Response::Refused(not_yours), "{part:?}");
    }
    assert!(matches!(scene.stranger.ask(&asked(&paper, Part::Control)).await, Response::Item(_)));

    // The stranger turns out to be the patient, who lost the first keys and has the paper.
    let new = scene.stranger.identity.clone();
    let link = scene.patient.link();
    let change = Change::Recover {
        recovery: paper.public().clone(),
        keys: new.public().clone(),
        possession: possession(&new, room, link),
        next: Hash::ZERO,
        distrusted_from: None,
    };
    let recover = record(link, change).event(&mut people::rng(), room, paper.author_id(), now(), None).unwrap();
    let link = ControlLink { seq: link.seq + 1, previous: recover.id() };
    let run = Writer::new(&paper, room).run(&[recover]);
    assert!(matches!(scene.stranger.submit(run).await, Response::Submitted(_)));
    let acting = new.acting_as(owner.author_id());
    let hand_over = record(link, Change::HandOver);
    let hand_over = hand_over.event(&mut people::rng(), room, acting.author_id(), now(), None).unwrap();
    let run = Writer::new(&acting, room).run(&[hand_over]);
    assert_eq!(scene.clinician.submit(run.clone()).await, Response::Refused(not_yours));
    assert!(matches!(scene.stranger.submit(run).await, Response::Submitted(_)));
    let Response::Rooms(rooms) = scene.stranger.ask(&Request::RoomsOf).await else { panic!() };
    assert_eq!(rooms.iter().map(|r| (r.room, r.owner)).collect::<Vec<_>>(), [(room, owner.author_id())]);
    assert_eq!(scene.owner.ask(&Request::RoomsOf).await, Response::Rooms(vec![]));
    assert!(matches!(scene.stranger.ask(&asked(&new, Part::Ledger)).await, Response::Item(_)));
    let replaced = Response::Refused(Refusal::KeysReplaced);
    assert_eq!(scene.owner.ask(&asked(&owner, Part::Control)).await, replaced);
    assert_eq!(scene.stranger.ask(&asked(&paper, Part::Control)).await, Response::Refused(not_yours));
    scene.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_the_charter_shuts_out_learns_nothing_of_rooms() {
    let alliance = Alliance::with("[permissions]\nsubmit = ['patient']\nread = ['patient']\n");
    let node = alliance.start().await;
    let address = node.local_addr().unwrap();
    let people = [Role::Patient, Role::Clinician].map(|role| alliance.person(&role.to_string(), role));
    let [owner, clinician] = &people;
    let mut patient = Patient::new(owner.identity(), alliance.charter().alliance_id(), (0, SHARDS), now());
    let mut events = patient.opening(now());
    events.push(patient.grant(clinician.identity().public(), Right::Read, None, now()));
    let owner = alliance.connect(owner, address).await;
    assert!(matches!(owner.submit(patient.writer.run(&events)).await, Response::Submitted(_)));
    let head = Request::Head(patient.room, ehe::id::Nonce([1; 16]));
    assert!(matches!(owner.ask(&head).await, Response::Head(_)));
    let clinician = alliance.connect(clinician, address).await;
    for request in [head, Request::RoomsOf] {
        assert_eq!(clinician.ask(&request).await, Response::Refused(Refusal::RoleNotAllowed));
    }
    assert!(matches!(clinician.ask(&Request::Charter(1)).await, Response::Charter(_)));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart_and_the_author_hears_what_is_known() {
    let mut scene = Scene::new().await;
    scene.append(&["72"]).await;
    let run = scene.writer.run(&[scene.sealer.seal(b"73")]);
    let verified = run.run.decode().unwrap().verify(&scene.gateway.identity.public().sign).unwrap();
    assert!(matches!(scene.gateway.submit(run.clone()).await, Response::Submitted(_)));
    let nonce = Nonce(random());
    let Response::Head(before) = scene.owner.ask(&Request::Head(scene.patient.room, nonce)).await else { panic!() };
    scene.node.stop().await.unwrap();

    let node = scene.alliance.start().await;
    let address = node.local_addr().unwrap();
    let load = |name| certs::Credentials::load(&scene.alliance.path(name)).unwrap();
    let owner = scene.alliance.connect(&load("patient"), address).await;
    let Response::Head(after) = owner.ask(&Request::Head(scene.patient.room, nonce)).await else { panic!() };
    verify_head(scene.patient.room, &after, nonce, &scene.charter).unwrap();
    assert_eq!(after.last.leaf, before.last.leaf);
    let gateway = scene.alliance.connect(&load("gateway"), address).await;
    let Response::Known(known) = gateway.submit(run.clone()).await else { panic!() };
    assert_eq!((known.len(), &known[0].run), (1, &run.run));
    known[0].receipt.verify(&verified, &scene.charter).unwrap();
    let Response::Rooms(rooms) = gateway.ask(&Request::RoomsOf).await else { panic!() };
    assert_eq!((rooms.len(), rooms[0].room, rooms[0].grants.len()), (1, scene.patient.room, 1));
    let Response::Charter(charters) = gateway.ask(&Request::Charter(1)).await else { panic!() };
    let chain = ehe::charter::CharterChain::decode(&charters).unwrap();
    assert_eq!(chain.verify(scene.charter.alliance_id()).unwrap(), scene.charter);
    let Response::Status(status) = gateway.ask(&Request::Status).await else { panic!() };
    assert_eq!(
        status.shards.iter().map(|s| (s.leaves, s.rooms, s.faulted)).collect::<Vec<_>>(),
        [(0, 0, false), (3, 1, false)]
    );
    node.stop().await.unwrap();
}

/// The run of these events, with the last bit of its signature flipped.
fn forged(writer: &Writer, events: &[CheckedEvent]) -> Submission {
    let (mut submission, _) = writer.linked(events);
    *submission.run.0.last_mut().unwrap() ^= 1;
    submission
}

/// Small runs of rooms whose rules are in memory, of others, and long runs are each checked in another place.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_run_is_refused_wherever_it_is_checked_and_the_true_one_enters_after_it() {
    let mut scene = Scene::new().await;
    scene.append(&["72"]).await;
    let bad = Response::Refused(Refusal::BadSignature);
    let (one, many) = (scene.sealer.seal(b"73"), (0..40u8).map(|n| scene.sealer.seal(&[n])).collect::<Vec<_>>());
    for events in [std::slice::from_ref(&one), &many] {
        assert_eq!(scene.gateway.submit(forged(&scene.writer, events)).await, bad);
        let mut altered = scene.writer.linked(events).0;
        altered.events[0].body[0] ^= 1;
        assert_eq!(scene.gateway.submit(altered).await, Response::Refused(Refusal::EventMalformed));
    }
    scene.node.stop().await.unwrap();

    // Nothing of the room is in memory yet.
    let node = scene.alliance.start().await;
    let credentials = certs::Credentials::load(&scene.alliance.path("gateway")).unwrap();
    let gateway = scene.alliance.connect(&credentials, node.local_addr().unwrap()).await;
    for events in [std::slice::from_ref(&one), &many] {
        assert_eq!(gateway.submit(forged(&scene.writer, events)).await, bad);
        let run = scene.writer.run(events);
        accepted(&scene.charter, &gateway, run).await;
    }
    node.stop().await.unwrap();
}
