//! L, C0, W2: what a node serves of a room, followed without believing the node.

use ehe::cbor;
use ehe::control::{Ending, Right};
use ehe::event::CheckedEvent;
use ehe::id::{Hash, Nonce};
use ehe::identity::Identity;
use ehe::leaf::Leaf;
use ehe::read::AccessRecord;
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use ehe::wire::{Head, Item};
use serde_json::{Value, json};

use super::Kit;
use super::log::{Log, scene_with_readings};
use super::runs::forged;
use super::scene::{EPOCH, Granted, Scene, hour};
use super::world::world;
use crate::json::h;
use crate::run::ledger::Entry;

pub(super) const FOLDER: &str = "follow";
pub(super) const NONCE: Nonce = Nonce([6; 16]);

pub(super) fn cases(kit: &mut Kit) {
    served(kit);
    left_out(kit);
    against_the_rules(kit);
    heads(kit);
    access(kit);
}

pub(super) fn input(whole: bool, items: &[Item], head: &Head) -> Value {
    json!({
        "alliance": world().one.id.to_string(),
        "charter": h(world().one.chain()),
        "room": head.last.leaf.room.to_string(),
        "whole": whole,
        "items": items.iter().map(|item| h(cbor::to_vec(item))).collect::<Vec<_>>(),
        "nonce": NONCE.to_string(),
        "head": h(cbor::to_vec(head)),
    })
}

/// The whole ledger as the patient sees it.
pub(super) fn ledger_items(log: &Log) -> Vec<Item> {
    (0..log.leaves.len()).map(|i| log.ledger_item(i)).collect()
}

pub(super) fn bare(log: &Log, index: usize) -> Item {
    Item { leaf: log.leaves[index].clone(), run: None, events: vec![], access: None, void: None }
}

/// An opening, two runs of readings, a revocation, another run of readings.
fn story() -> Scene {
    let mut scene = scene_with_readings(2);
    scene.now += 15_000;
    let revoke = scene.revoke(scene.read, Ending::Cut);
    scene.accept(&world().patient, &[revoke]);
    scene.now += 15_000;
    let wrap = scene.shard.entries[1].events[0].id().into();
    let content = scene.content(&world().gateway, EPOCH, wrap, hour());
    scene.accept(&world().gateway, &[content]);
    scene
}

fn served(kit: &mut Kit) {
    let scene = story();
    let log = Log::of(&scene);
    let head = log.head(NONCE);
    let whole = ledger_items(&log);
    kit.case(FOLDER, "L1", "ok-whole", "the whole ledger, bodies of content left out", "follow")
        .input(input(true, &whole, &head))
        .valid();
    let part = vec![log.item(0), bare(&log, 1), bare(&log, 2), log.item(3), bare(&log, 4)];
    kit.case(FOLDER, "L1", "ok-control", "the control records, other entries by their leaves", "follow")
        .input(input(false, &part, &head))
        .valid();
    let mut some = part.clone();
    some[2] = log.item(2);
    some[1] = log.item(1);
    some[1].events.remove(0);
    some[4] = log.item(4);
    kit.case(FOLDER, "L1", "ok-content", "some runs whole, one without its wrap", "follow")
        .input(input(false, &some, &head))
        .valid();

    let mut gap = part.clone();
    gap.remove(1);
    kit.case(FOLDER, "W2", "gap", "an entry that is passed over", "follow").input(input(false, &gap, &head)).invalid();
    let mut twice = part.clone();
    twice.insert(1, part[1].clone());
    kit.case(FOLDER, "W2", "twice", "an entry that is shown twice", "follow")
        .input(input(false, &twice, &head))
        .invalid();
    let mut swapped = part.clone();
    swapped.swap(1, 2);
    kit.case(FOLDER, "W2", "out-of-order", "two entries in the wrong order", "follow")
        .input(input(false, &swapped, &head))
        .invalid();

    let rebuilt = |change: &dyn Fn(&mut Vec<Leaf>)| {
        let mut leaves = log.leaves.clone();
        change(&mut leaves);
        let log = Log::from_leaves(&scene, log.entries.clone(), leaves);
        let head = log.head(NONCE);
        input(true, &ledger_items(&log), &head)
    };
    let chained = |leaves: &mut Vec<Leaf>| {
        for i in 1..leaves.len() {
            leaves[i].previous = leaves[i - 1].hash();
        }
    };
    for (rule, slug, title, input) in [
        (
            "L1",
            "broken-chain",
            "a leaf that names another as the one before",
            rebuilt(&|leaves| leaves[2].previous.0[0] ^= 1),
        ),
        (
            "L1",
            "first-names-one-before",
            "a first leaf that names one before it",
            rebuilt(&|leaves| {
                leaves[0].previous = Hash([1; 32]);
                chained(leaves);
            }),
        ),
        (
            "L1",
            "time-back",
            "an entry that was accepted before the one before it",
            rebuilt(&|leaves| {
                leaves[2].accepted_at.0 = leaves[1].accepted_at.0 - 1;
                chained(leaves);
            }),
        ),
        (
            "L1",
            "another-room",
            "an entry of another room",
            rebuilt(&|leaves| {
                leaves[2].room.0[0] ^= 1;
                chained(leaves);
            }),
        ),
        (
            "L2",
            "another-entry",
            "a run that is not the one whose hash the leaf has",
            rebuilt(&|leaves| {
                leaves[2].entry.0[0] ^= 1;
                chained(leaves);
            }),
        ),
        (
            "C0",
            "count-too-high",
            "a leaf that counts a control event more than there is",
            rebuilt(&|leaves| {
                leaves[2].control += 1;
                chained(leaves);
            }),
        ),
        (
            "C0",
            "count-too-low",
            "a leaf that counts a control event less than there is",
            rebuilt(&|leaves| {
                leaves[4].control -= 1;
                chained(leaves);
            }),
        ),
    ] {
        kit.case(FOLDER, rule, slug, title, "follow").input(input).invalid();
    }
}

fn left_out(kit: &mut Kit) {
    let log = Log::of(&story());
    let head = log.head(NONCE);
    let part = vec![log.item(0), bare(&log, 1), bare(&log, 2), log.item(3), bare(&log, 4)];
    let with = |at: usize, item: Item| {
        let mut items = part.clone();
        items[at] = item;
        input(false, &items, &head)
    };
    kit.case(FOLDER, "C0", "revocation-withheld", "a revocation shown by its leaf alone", "follow")
        .input(with(3, bare(&log, 3)))
        .invalid();
    let mut half = log.item(0);
    half.events.pop();
    kit.case(FOLDER, "L3", "half-a-control-run", "a run of control records without its last", "follow")
        .input(with(0, half))
        .invalid();
    let mut ledger = ledger_items(&log);
    ledger[2] = bare(&log, 2);
    kit.case(FOLDER, "L3", "leaf-alone-in-the-ledger", "an entry of the whole ledger by its leaf alone", "follow")
        .input(input(true, &ledger, &head))
        .invalid();
    let mut ledger = ledger_items(&log);
    ledger[1].events.pop();
    kit.case(
        FOLDER,
        "L3",
        "event-left-out-of-the-ledger",
        "a run of the whole ledger without one of its events",
        "follow",
    )
    .input(input(true, &ledger, &head))
    .invalid();
    let mut both = log.item(2);
    both.access = Some(vec![0xa0]);
    kit.case(FOLDER, "L2", "run-and-access", "an item that brings a run and an access record", "follow")
        .input(with(2, both))
        .invalid();
    let mut ledger = ledger_items(&log);
    ledger[2] = log.item(2);
    kit.case(FOLDER, "L3", "ok-body-in-the-ledger", "the whole ledger with one content event's body", "follow")
        .input(input(true, &ledger, &head))
        .valid();
    let mut empty = log.item(2);
    empty.events[0].body.clear();
    kit.case(FOLDER, "L3", "no-body-in-a-part", "content without its body where the ledger is shown in part", "follow")
        .input(with(2, empty))
        .invalid();
    let mut foreign = log.item(2);
    foreign.events = log.item(4).events;
    kit.case(FOLDER, "L2", "event-of-another-run", "an event that the run does not name", "follow")
        .input(with(2, foreign))
        .invalid();
    let mut altered = log.item(2);
    altered.events[0].body[0] ^= 1;
    kit.case(FOLDER, "L2", "event-altered", "an event whose body was altered", "follow")
        .input(with(2, altered))
        .invalid();
    let mut unasked = bare(&log, 1);
    unasked.events = log.item(1).events;
    kit.case(FOLDER, "L2", "events-without-run", "events without the run that names them", "follow")
        .input(with(1, unasked))
        .invalid();
}

/// A log in which a node let an entry in against the rules, after the opening.
fn crafted(make: impl FnOnce(&mut Scene) -> (ehe::run::SignedRun, Vec<CheckedEvent>, u64)) -> (Log, Head) {
    let mut scene = Scene::room(Granted::Both);
    scene.now += 1;
    let (run, events, control) = make(&mut scene);
    let mut entries = scene.shard.entries.clone();
    entries.push(Entry { at: UnixMs(scene.now), run, events, control });
    let log = Log::from_entries(&scene, entries);
    let head = log.head(NONCE);
    (log, head)
}

fn against_the_rules(kit: &mut Kit) {
    let (gateway, patient) = (&world().gateway, &world().patient);
    let own = |scene: &Scene, by: &Identity, events: &[CheckedEvent]| scene.run(by, events).sign(by);
    let (log, head) = crafted(|scene| {
        let control = scene.grant_record(gateway, Right::Read, |_| {});
        let event = scene.by(gateway, &control);
        (own(scene, gateway, std::slice::from_ref(&event)), vec![event], 5)
    });
    kit.case(FOLDER, "A4", "grant-by-a-gateway", "a node let in a grant that the patient did not make", "follow")
        .input(input(false, &[log.item(0), log.item(1)], &head))
        .refused(Refusal::NotOwner.code());
    let (log, head) = crafted(|scene| {
        let event = scene.grant(&world().stranger, Right::Read, |_| {});
        let run = scene.run(patient, std::slice::from_ref(&event));
        (forged(&run, patient, &world().nodes[0]), vec![event], 5)
    });
    kit.case(FOLDER, "Q1", "forged-grant", "a grant in the patient's name that a node signed", "follow")
        .input(input(false, &[log.item(0), log.item(1)], &head))
        .invalid();
    let (log, head) = crafted(|scene| {
        let events = scene.reading(&world().clinician, hour()).both().to_vec();
        (own(scene, &world().clinician, &events), events, 4)
    });
    kit.case(FOLDER, "A10", "reader-appended", "a node let in content by who may only read", "follow")
        .input(input(false, &[log.item(0), log.item(1)], &head))
        .refused(Refusal::NotInvited.code());
    let (log, head) = crafted(|scene| {
        let events = scene.reading(gateway, hour()).both().to_vec();
        let mut run = scene.run(gateway, &events);
        run.from.next = 7;
        (run.sign(gateway), events, 4)
    });
    kit.case(FOLDER, "A2", "gap-in-a-strand", "a node let in a run that leaves numbers of its strand out", "follow")
        .input(input(true, &[log.ledger_item(0), log.ledger_item(1)], &head))
        .invalid();
    let scene = scene_with_readings(1);
    let early = vec![Entry { control: 0, ..scene.shard.entries[1].clone() }];
    let log = Log::from_entries(&scene, early);
    kit.case(FOLDER, "A3", "content-before-the-room", "a room's ledger that begins with content", "follow")
        .input(input(false, &[log.item(0)], &log.head(NONCE)))
        .refused(Refusal::RoomUnknown.code());
    // One entry that is not shown and counts no control events: there is no room.
    let leaf = Leaf { control: 0, ..log.leaves[0].clone() };
    let log = Log::from_leaves(&scene, vec![], vec![leaf.clone()]);
    let alone = Item { leaf, run: None, events: vec![], access: None, void: None };
    kit.case(FOLDER, "A3", "no-room", "a ledger that shows no room-create", "follow")
        .input(input(false, &[alone], &log.head(NONCE)))
        .invalid();
    let (log, head) = crafted(|scene| {
        let home = scene.id;
        scene.id = ehe::id::RoomId([7; 16]);
        let events = scene.reading(gateway, hour()).both().to_vec();
        let run = own(scene, gateway, &events);
        scene.id = home;
        (run, events, 4)
    });
    kit.case(FOLDER, "L2", "run-of-another-room", "a run of another room under a leaf of this one", "follow")
        .input(input(false, &[log.item(0), log.item(1)], &head))
        .invalid();
    let (log, head) = crafted(|scene| {
        let event = scene.content(gateway, EPOCH, ehe::id::WrapId([1; 16]), hour());
        (own(scene, gateway, std::slice::from_ref(&event)), vec![event], 4)
    });
    kit.case(FOLDER, "A10", "wrap-missing", "a node let in content whose wrap is nowhere", "follow")
        .input(input(true, &[log.ledger_item(0), log.ledger_item(1)], &head))
        .refused(Refusal::WrapMissing.code());
}

fn heads(kit: &mut Kit) {
    let scene = story();
    let log = Log::of(&scene);
    let items = ledger_items(&log);
    let earlier = Log::from_entries(&scene, log.entries[..4].to_vec());
    kit.case(FOLDER, "L4", "head-of-an-earlier-entry", "a head that is not of the last entry shown", "follow")
        .input(input(true, &items, &earlier.head(NONCE)))
        .invalid();
    let mut went_back = input(true, &items, &log.head(NONCE));
    went_back["known"] = json!(log.checkpoint().size + 1);
    kit.case(FOLDER, "L4", "went-back", "a log with fewer leaves than were seen before", "follow")
        .input(went_back)
        .invalid();
    let mut as_known = input(true, &items, &log.head(NONCE));
    as_known["known"] = json!(log.checkpoint().size);
    kit.case(FOLDER, "L4", "ok-as-known", "a log with as many leaves as were seen before", "follow")
        .input(as_known)
        .valid();
    kit.case(FOLDER, "C4", "head-over-another-nonce", "a head that answers another question", "follow")
        .input(input(true, &items, &log.head(Nonce([7; 16]))))
        .invalid();
}

fn access(kit: &mut Kit) {
    let scene = Scene::room(Granted::Both);
    let clinician = &world().clinician;
    let request = scene.request(clinician);
    let log = Log::of(&scene);
    let record = |request: ehe::read::SignedRequest, refused, reader| AccessRecord {
        request,
        refused,
        reader,
        count: 1,
        at: UnixMs(scene.now),
    };
    // The opening, and one access record.
    let of = |record: AccessRecord| {
        let bytes = record.to_vec();
        let leaf = Leaf {
            room: scene.id,
            index: 1,
            previous: log.leaves[0].hash(),
            entry: ehe::read::record_hash(&bytes),
            accepted_at: record.at,
            control: 4,
        };
        let with = Log::from_leaves(&scene, log.entries.clone(), vec![log.leaves[0].clone(), leaf.clone()]);
        let item = Item { leaf, run: None, events: vec![], access: Some(bytes), void: None };
        input(true, &[log.ledger_item(0), item], &with.head(NONCE))
    };
    let read = of(record(request.sign(clinician), None, None));
    let mut with_events = read.clone();
    let mut item: Item = cbor::from_slice(&crate::json::unhex(read["items"][1].as_str().unwrap()), 1 << 20).unwrap();
    item.events = log.item(0).events[..1].to_vec();
    with_events["items"][1] = h(cbor::to_vec(&item));
    kit.case(FOLDER, "L2", "ok-access", "the record of a clinician's read", "follow").input(read).valid();
    kit.case(FOLDER, "L2", "access-with-events", "an access record that brings an event", "follow")
        .input(with_events)
        .invalid();
    let stranger = scene.request(&world().stranger);
    let keys = world().stranger.public().clone();
    kit.case(
        FOLDER,
        "L2",
        "ok-access-refused",
        "the record of a stranger's refused read, with the stranger's keys",
        "follow",
    )
    .input(of(record(stranger.sign(&world().stranger), Some(Refusal::NotInvited), Some(keys))))
    .valid();
    let mut made_up = crate::value::Cbor::parse(&request.sign(clinician).0);
    made_up.at(3).bytes()[9] ^= 1;
    let made_up = ehe::read::SignedRequest(made_up.to_vec());
    kit.case(FOLDER, "L2", "access-made-up", "the record of a read that the reader did not sign", "follow")
        .input(of(record(made_up, None, None)))
        .invalid();
    kit.case(
        FOLDER,
        "L2",
        "access-without-keys",
        "the record of a stranger's read without the stranger's keys",
        "follow",
    )
    .input(of(record(stranger.sign(&world().stranger), Some(Refusal::NotInvited), None)))
    .invalid();
    let mut elsewhere = request.clone();
    elsewhere.room.0[0] ^= 1;
    kit.case(FOLDER, "L2", "access-to-another-room", "the record of a read of another room", "follow")
        .input(of(record(elsewhere.sign(clinician), None, None)))
        .invalid();
}
