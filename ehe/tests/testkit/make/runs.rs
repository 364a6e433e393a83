//! R and A1 to A3, A13: runs, strands, and what a run may hold.

use ehe::control::{Control, Right};
use ehe::event::CheckedEvent;
use ehe::id::{EheId, EpochId, Hash, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::Identity;
use ehe::run::{SignedRun, StrandEnd};
use ehe::time::Hour;
use serde_json::{Value, json};

use super::Kit;
use super::encoding::full_run;
use super::hostile::sign_again;
use super::scene::{EPOCH, Granted, Scene, checked, create, hour, with_header};
use super::world::world;
use crate::json::h;
use crate::run::ledger::Outcome;
use crate::value::Cbor;

const FOLDER: &str = "run";

pub(super) fn cases(kit: &mut Kit) {
    alone(kit);
    strands(kit);
    shape(kit);
    rooms(kit);
}

/// A ledger case: what `make` does, last of all the step that is judged.
pub(super) fn ledger(
    kit: &mut Kit,
    (folder, granted): (&'static str, Granted),
    rule: &str,
    slug: &str,
    title: &str,
    refusal: Option<u16>,
    make: impl FnOnce(&mut Scene),
) {
    let mut scene = Scene::room(granted);
    make(&mut scene);
    let draft = kit.case(folder, rule, slug, title, "ledger").input(scene.input());
    match refusal {
        Some(code) => draft.refused(code),
        None => draft.valid(),
    }
}

fn alone(kit: &mut Kit) {
    let gateway = &world().gateway;
    let mut scene = Scene::room(Granted::Append);
    let event = scene.content(gateway, EPOCH, WrapId([3; 16]), hour());
    let run = scene.run(gateway, std::slice::from_ref(&event));
    let key = h(gateway.public().sign.0);
    let input = |run: &SignedRun| json!({"run": h(&run.0), "key": key});
    kit.case(FOLDER, "R2", "ok-one", "a run over one event, first of its strand", "run")
        .input(input(&run.sign(gateway)))
        .valid();
    let mut full = full_run(&mut scene);
    kit.case(FOLDER, "R2", "ok-full", "a run that names the strand before and a checkpoint", "run")
        .input(input(&full.sign(gateway)))
        .valid();
    let mut many = run.clone();
    many.from = StrandEnd { strand: StrandId([2; 8]), next: 1000, link: Hash([1; 32]) };
    many.ids = (0..=255).map(|i| EheId([i; 32])).collect();
    kit.case(FOLDER, "R1", "ok-256", "a run over 256 events, later in its strand", "run")
        .input(input(&many.sign(gateway)))
        .valid();
    kit.case(FOLDER, "R2", "another-author", "a run in another author's name", "run")
        .input(input(&{
            let mut run = run.clone();
            run.author = world().patient.author_id();
            run.sign(gateway)
        }))
        .invalid();
    full.from.next = 1;
    kit.case(FOLDER, "R2", "continues-later", "a later run of a strand that names another strand", "run")
        .input(input(&full.sign(gateway)))
        .invalid();
    let mut long = run.clone();
    long.seen = Some(ehe::run::SeenCheckpoint { origin: "x".repeat(129), size: 1, root: Hash::ZERO });
    kit.case(FOLDER, "E3", "origin-oversized", "a run whose checkpoint has an origin of 129 bytes", "run")
        .input(input(&long.sign(gateway)))
        .invalid();
    let end = |run: &ehe::run::Run| {
        let end = run.end();
        json!({"strand": end.strand.to_string(), "next": end.next, "link": end.link.to_string()})
    };
    let from =
        json!({"strand": many.from.strand.to_string(), "next": many.from.next, "link": many.from.link.to_string()});
    let mut three = many.clone();
    three.ids.truncate(3);
    let ids: Vec<String> = three.ids.iter().map(|id| id.to_string()).collect();
    kit.case(FOLDER, "R1", "ok-link", "the end of a strand after three events", "strand")
        .input(json!({"from": from, "ids": ids, "end": end(&three)}))
        .valid();
    three.ids.swap(0, 1);
    kit.case(FOLDER, "R1", "broken-link", "a link over the same events in another order", "strand")
        .input(json!({"from": from, "ids": ids, "end": end(&three)}))
        .invalid();
    let mut last = run.clone();
    last.from = StrandEnd { strand: StrandId([2; 8]), next: u64::MAX, link: Hash([1; 32]) };
    kit.case(FOLDER, "R1", "numbers-used-up", "a run whose events pass number 2^64 - 1", "run")
        .input(input(&last.sign(gateway)))
        .invalid();
    let mut wrong_next = end(&many);
    wrong_next["next"] = json!(1);
    kit.case(FOLDER, "R1", "wrong-next", "an end that counts wrongly", "strand")
        .input(json!({"from": from, "ids": ids, "end": wrong_next}))
        .invalid();
}

fn strands(kit: &mut Kit) {
    let gateway = &world().gateway;
    ledger(kit, (FOLDER, Granted::Append), "A2", "ok-follows", "two runs of one strand", None, |scene| {
        let first = scene.reading(gateway, hour()).both();
        scene.accept(gateway, &first);
        let wrap = first[0].id().into();
        let more = scene.content(gateway, EPOCH, wrap, hour());
        scene.accept(gateway, &[more]);
    });
    let second = |scene: &mut Scene, change: &dyn Fn(&mut StrandEnd)| {
        let first = scene.reading(gateway, hour()).both();
        scene.accept(gateway, &first);
        let more = scene.content(gateway, EPOCH, first[0].id().into(), hour());
        let mut run = scene.run(gateway, std::slice::from_ref(&more));
        change(&mut run.from);
        scene.step_run(&run, gateway, &[more]);
    };
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A2",
        "gap",
        "a run that leaves a number of its strand out",
        Some(3),
        |scene| {
            second(scene, &|from| from.next += 1);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A2",
        "broken-link",
        "a run whose link is not the strand's",
        Some(3),
        |scene| {
            second(scene, &|from| from.link.0[0] ^= 1);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A2",
        "two-ways",
        "a second run from a place that the strand has left",
        Some(3),
        |scene| {
            second(scene, &|from| *from = StrandEnd::start(from.strand));
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A2",
        "new-strand-in-the-middle",
        "a new strand that does not begin at 0",
        Some(3),
        |scene| {
            second(scene, &|from| from.strand = StrandId([9; 8]));
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "R3",
        "ok-linked-again",
        "a refused run leaves its strand where it was: its events are linked again",
        None,
        |scene| {
            let reading = scene.reading(gateway, hour());
            let outcome = scene.submit(gateway, std::slice::from_ref(&reading.content));
            assert!(matches!(outcome, Outcome::Refused(_)));
            scene.accept(gateway, &reading.both());
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "R3",
        "follows-a-refused-run",
        "a run that follows a refused one",
        Some(3),
        |scene| {
            let reading = scene.reading(gateway, hour());
            let run = scene.run(gateway, std::slice::from_ref(&reading.content));
            scene.step_run(&run, gateway, std::slice::from_ref(&reading.content));
            let mut next = scene.run(gateway, std::slice::from_ref(&reading.wrap));
            next.from = run.end();
            scene.step_run(&next, gateway, &[reading.wrap]);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "R3",
        "one-of-two",
        "a run of which one event may enter and one may not",
        Some(16),
        |scene| {
            let control = scene.grant(&world().other, Right::Append, |g| g.until = Some(Hour(hour().0 + 1)));
            scene.accept(&world().patient, &[control]);
            let [wrap, first] = scene.reading(&world().other, hour()).both();
            let later = scene.content(&world().other, EPOCH, wrap.id().into(), Hour(hour().0 + 1));
            scene.submit(&world().other, &[wrap, first, later]);
        },
    );
    let mut scene = Scene::room(Granted::Append);
    let [wrap, content] = scene.reading(gateway, hour()).both();
    scene.accept(gateway, &[wrap.clone(), content.clone()]);
    let more = scene.content(gateway, EPOCH, wrap.id().into(), hour());
    scene.submit(gateway, &[more, content]);
    let title = "a committed event after a new one: the committed one is named";
    kit.case(FOLDER, "R4", "replayed-beside-a-new-one", title, "ledger").input(scene.input()).invalid();
    for (slug, title, whole) in [
        ("replayed-run", "the same run again", true),
        ("replayed-event", "a committed event in a new run of another strand", false),
    ] {
        let mut scene = Scene::room(Granted::Append);
        let events = scene.reading(gateway, hour()).both();
        let mut run = scene.run(gateway, &events);
        scene.step_run(&run, gateway, &events);
        if whole {
            scene.step_run(&run, gateway, &events);
        } else {
            run.from = StrandEnd::start(StrandId([9; 8]));
            scene.step_run(&run, gateway, &events);
        }
        kit.case(FOLDER, "R4", slug, title, "ledger").input(scene.input()).invalid();
    }
}

fn shape(kit: &mut Kit) {
    let gateway = &world().gateway;
    let bytes = |events: &[CheckedEvent]| events.iter().map(|e| e.event().clone()).collect::<Vec<_>>();
    let mut malformed = |rule: &str, slug: &str, title: &str, code: u16, make: &dyn Fn(&mut Scene)| {
        ledger(kit, (FOLDER, Granted::Append), rule, slug, title, Some(code), make);
    };
    malformed("A1", "event-missing", "a run that names two events and brings one", 4, &|scene| {
        let events = scene.reading(gateway, hour()).both();
        let run = scene.run(gateway, &events).sign(gateway);
        scene.step(run, bytes(&events[..1]));
    });
    malformed("A1", "event-besides", "a run that brings an event which it does not name", 4, &|scene| {
        let events = scene.reading(gateway, hour()).both();
        let run = scene.run(gateway, &events[..1]).sign(gateway);
        scene.step(run, bytes(&events));
    });
    malformed("A1", "other-order", "events in another order than the run's", 4, &|scene| {
        let events = scene.reading(gateway, hour()).both();
        let run = scene.run(gateway, &events).sign(gateway);
        scene.step(run, bytes(&[events[1].clone(), events[0].clone()]));
    });
    malformed("A1", "named-twice", "a run that names one event twice", 6, &|scene| {
        let [wrap, content] = scene.reading(gateway, hour()).both();
        scene.submit(gateway, &[wrap, content.clone(), content]);
    });
    malformed("A1", "another-room", "a run across rooms: one event names another", 5, &|scene| {
        let home = scene.id;
        let [wrap, content] = scene.reading(gateway, hour()).both();
        scene.id = RoomId([7; 16]);
        let elsewhere = scene.content(gateway, EPOCH, wrap.id().into(), hour());
        scene.id = home;
        scene.submit(gateway, &[wrap, content, elsewhere]);
    });
    malformed("A1", "another-author", "an event of another author", 5, &|scene| {
        let wrap = scene.wrap(gateway, EPOCH, hour());
        let foreign = scene.content(&world().clinician, EPOCH, wrap.id().into(), hour());
        scene.submit(gateway, &[wrap, foreign]);
    });
    malformed("A1", "content-without-wrap", "content that names no wrap", 4, &|scene| {
        let content = scene.content(gateway, EPOCH, WrapId::ZERO, hour());
        scene.submit(gateway, &[content]);
    });
    malformed("A1", "content-without-epoch", "content that names no epoch", 4, &|scene| {
        let wrap = scene.wrap(gateway, EPOCH, hour());
        let content = scene.content(gateway, EpochId::ZERO, wrap.id().into(), hour());
        scene.submit(gateway, &[wrap, content]);
    });
    malformed("A1", "control-with-epoch", "a control event that names an epoch in its core", 4, &|scene| {
        let wrap = scene.wrap(gateway, EPOCH, hour());
        let event = with_header(&wrap, |v| *v.at(0).at(5) = Cbor::Bytes(EPOCH.0.to_vec())).check().unwrap();
        scene.submit(gateway, &[event]);
    });
    malformed("V3", "body-altered-in-a-run", "an event whose body is not the one that its header names", 4, &|scene| {
        let [wrap, content] = scene.reading(gateway, hour()).both();
        let run = scene.run(gateway, &[wrap.clone(), content.clone()]).sign(gateway);
        let mut altered = content.into_event();
        altered.body[0] ^= 1;
        scene.step(run, vec![wrap.into_event(), altered]);
    });
    malformed("V2", "unknown-kind-in-a-run", "an event of a kind that there is not", 4, &|scene| {
        let [wrap, content] = scene.reading(gateway, hour()).both();
        let run = scene.run(gateway, &[wrap.clone(), content.clone()]).sign(gateway);
        let odd = with_header(&content, |v| *v.at(0).at(2) = Cbor::Int(15));
        scene.step(run, vec![wrap.into_event(), odd]);
    });
    malformed("V2", "reserved-kind", "an event of the reserved kind 22", 7, &|scene| {
        let wrap = scene.wrap(gateway, EPOCH, hour());
        let reserved = with_header(&wrap, |v| *v.at(0).at(2) = Cbor::Int(22)).check().unwrap();
        scene.submit(gateway, &[reserved]);
    });
    malformed("V2", "reserved-before-form", "an event of the reserved kind 23 whose body is nothing", 7, &|scene| {
        let wrap = scene.wrap(gateway, EPOCH, hour());
        let empty = checked(wrap.core().clone(), Hash::ZERO, vec![]);
        let reserved = with_header(&empty, |v| *v.at(0).at(2) = Cbor::Int(23)).check().unwrap();
        scene.submit(gateway, &[reserved]);
    });
    malformed("R1", "first-link-not-zeros", "a strand that begins with a link", 1, &|scene| {
        let events = scene.reading(gateway, hour()).both();
        let mut run = scene.run(gateway, &events);
        run.from.link.0[0] = 1;
        scene.step_run(&run, gateway, &events);
    });
    malformed("R2", "malformed-in-a-ledger", "a run in another author's name", 1, &|scene| {
        let events = scene.reading(gateway, hour()).both();
        let mut run = scene.run(gateway, &events);
        run.author = world().patient.author_id();
        scene.step(run.sign(gateway), bytes(&events));
    });
    malformed("Q1", "another-signed", "a run that somebody else signed in the author's name", 2, &|scene| {
        let events = scene.reading(gateway, hour()).both();
        let run = scene.run(gateway, &events);
        scene.step(forged(&run, gateway, &world().stranger), bytes(&events));
    });
    // Two rules broken at once: the SPEC says which is heard of.
    malformed("Q1", "signature-before-ids", "a forged run that misses an event too", 2, &|scene| {
        let events = scene.reading(gateway, hour()).both();
        let run = scene.run(gateway, &events);
        scene.step(forged(&run, gateway, &world().stranger), bytes(&events[..1]));
    });
    malformed("A1", "ids-before-strand", "a run that misses an event, after a gap in its strand", 4, &|scene| {
        let events = scene.reading(gateway, hour()).both();
        let mut run = scene.run(gateway, &events);
        run.from.next = 5;
        scene.step(run.sign(gateway), bytes(&events[..1]));
    });
    malformed("A2", "strand-before-rights", "a grant by the gateway, after a gap in its strand", 3, &|scene| {
        let control = scene.grant_record(&world().other, Right::Append, |_| {});
        let event = scene.by(gateway, &control);
        let mut run = scene.run(gateway, std::slice::from_ref(&event));
        run.from.next = 5;
        scene.step_run(&run, gateway, &[event]);
    });
    malformed("A13", "grant-beside-content", "the patient's content and grant in one run", 1, &|scene| {
        let [wrap, content] = scene.reading(&world().patient, hour()).both();
        let grant = scene.grant(&world().other, Right::Append, |_| {});
        scene.submit(&world().patient, &[wrap, content, grant]);
    });
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A13",
        "ok-wrap-beside-content",
        "a wrap is no control record of the patient: it goes with content",
        None,
        |scene| {
            let events = scene.reading(&world().patient, hour()).both();
            scene.accept(&world().patient, &events);
        },
    );
}

/// A run whose key id is the author's and whose signature is another's.
pub(super) fn forged(run: &ehe::run::Run, author: &Identity, by: &Identity) -> SignedRun {
    let mut right = Cbor::parse(&run.sign(author).0);
    sign_again(&mut right, b"ehe/1 run", by);
    SignedRun(right.to_vec())
}

fn rooms(kit: &mut Kit) {
    let patient = &world().patient;
    let mut case = |rule: &str, slug: &str, title: &str, refusal: Option<u16>, make: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::empty();
        make(&mut scene);
        let draft = kit.case(FOLDER, rule, slug, title, "ledger").input(scene.input());
        match refusal {
            Some(code) => draft.refused(code),
            None => draft.valid(),
        }
    };
    case("A3", "ok-create", "room-create, an epoch and two grants in one run make a room", None, &|scene| {
        let events = scene.opening(Granted::Both);
        scene.accept(patient, &events);
        let answer: Value = json!("yes");
        scene.ask("append", &world().gateway, EPOCH, hour(), scene.now, answer.clone());
        scene.ask("read", &world().clinician, EPOCH, hour(), scene.now, answer.clone());
        scene.ask("append", patient, EPOCH, hour(), scene.now, answer.clone());
        scene.ask("read", patient, EPOCH, hour(), scene.now, answer);
        scene.ask("read", &world().gateway, EPOCH, hour(), scene.now, json!(12));
        scene.ask("append", &world().clinician, EPOCH, hour(), scene.now, json!(12));
        scene.ask("read", &world().stranger, EPOCH, hour(), scene.now, json!(12));
        scene.ask("read", patient, EpochId([1; 16]), hour(), scene.now, json!(15));
        scene.ask("read", &world().clinician, EpochId([1; 16]), hour(), scene.now, json!(15));
        scene.ask("read", &world().stranger, EpochId([1; 16]), hour(), scene.now, json!(12));
    });
    case("A3", "committed-to-the-owner", "a room committed to its owner's own keys", Some(21), &|scene| {
        let mut create = create();
        create.recovery = create.owner.commitment();
        scene.id = create.room_id();
        let event = scene.made(&Control::RoomCreate(create));
        scene.submit(patient, &[event]);
    });
    case("A3", "no-room", "a reading for a room that is not there", Some(10), &|scene| {
        let events = scene.reading(&world().gateway, hour()).both();
        scene.submit(&world().gateway, &events);
    });
    case("A3", "create-not-first", "room-create after another event of its run", Some(10), &|scene| {
        let mut events = scene.opening(Granted::Both);
        events.swap(0, 1);
        scene.submit(patient, &events);
    });
    case("A3", "another-owner", "room-create by another than the owner that it names", Some(21), &|scene| {
        let event = scene.by(&world().stranger, &Control::RoomCreate(create()));
        scene.submit(&world().stranger, &[event]);
    });
    case("A3", "another-alliance", "a room that was made for another alliance", Some(25), &|scene| {
        let mut create = create();
        create.alliance.0[0] ^= 1;
        scene.id = create.room_id();
        let event = scene.made(&Control::RoomCreate(create));
        scene.submit(patient, &[event]);
    });
    case("A3", "another-room-id", "a run whose room is not the hash of room-create's plain part", Some(21), &|scene| {
        let event = scene.made(&Control::RoomCreate(create()));
        scene.id = RoomId([7; 16]);
        scene.submit(patient, &[event]);
    });
    case("A3", "create-names-its-room", "room-create whose core does not carry zeros as its room", Some(5), &|scene| {
        let event = scene.made(&Control::RoomCreate(create()));
        let room = scene.id;
        let event = with_header(&event, |v| *v.at(0).at(3) = Cbor::Bytes(room.0.to_vec())).check().unwrap();
        scene.submit(patient, &[event]);
    });
    case("A3", "created-twice", "a second room-create for a room", Some(11), &|scene| {
        let event = scene.made(&Control::RoomCreate(create()));
        scene.accept(patient, &[event]);
        let again = scene.made(&Control::RoomCreate(create()));
        scene.submit(patient, &[again]);
    });
    case("K1", "owner-key", "room-create whose encryption key is no X-Wing key", Some(22), &|scene| {
        let mut create = create();
        create.owner.kem = ehe::kem::KemPublic::from_slice(&super::identities::bad_kem()).unwrap();
        create.nonce = Nonce([8; 16]);
        scene.id = create.room_id();
        // The author id follows from both keys, the bad one too.
        let author = create.owner.author_id();
        let event = Control::RoomCreate(create)
            .event(scene.rng(), RoomId::ZERO, author, ehe::time::UnixMs(super::scene::NOW), None)
            .unwrap();
        let mut run = scene.run(patient, std::slice::from_ref(&event));
        run.author = author;
        let signed = super::rights::sign_as(&run, author, patient);
        scene.step(signed, vec![event.into_event()]);
    });
}
