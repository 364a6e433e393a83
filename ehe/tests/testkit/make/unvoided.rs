//! L6, further: void runs shown in part, of unknown versions, judged as if they were signed, void twice, and as many as one remembers.

use ehe::cbor;
use ehe::control::Right;
use ehe::event::{CheckedEvent, Event};
use ehe::id::EheId;
use ehe::limits::UNVOIDED_RUNS_MAX;
use ehe::refusal::Refusal;
use ehe::run::{Run, SignedRun, StrandEnd};
use ehe::seal;
use ehe::time::Hour;
use ehe::void::VoidRecord;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Kit;
use super::bodies::{encoded, heart_rates};
use super::follow::{FOLDER, NONCE, input};
use super::runs::forged;
use super::scene::{EPOCH, Granted, Scene, hour, with_header};
use super::void::{Story, false_run};
use super::world::{seeds, world};
use crate::json::{h, packed};
use crate::value::Cbor;

pub(super) fn cases(kit: &mut Kit) {
    records(kit);
    shown_in_part(kit);
    unknown(kit);
    judged(kit);
    strands(kit);
    read(kit);
    at_the_limit(kit);
    forms(kit);
}

/// A forged run over another reading than the story's.
fn another(story: &mut Story) -> SignedRun {
    let event = story.reading(&world().gateway);
    forged(&story.scene.run(&world().gateway, &[event]), &world().gateway, &world().nodes[0])
}

fn records(kit: &mut Kit) {
    let mut ok = |slug: &str, title: &str, input: Value| {
        kit.case(FOLDER, "L6", slug, title, "follow").input(input).valid();
    };
    let (mut story, run) = false_run();
    story.void(2, &run);
    story.void(2, &run);
    ok("ok-second-record", "a second void record of a run that is void", story.shown(false));
    let (mut story, run) = false_run();
    let other = another(&mut story);
    story.void(2, &run);
    story.void(2, &other);
    let title = "a void record of a place that is void already, with another run";
    ok("ok-second-record-with-another-run", title, story.shown(true));
    let (mut story, run) = false_run();
    let other = another(&mut story);
    story.let_in(&other, &[]);
    story.void(3, &other);
    story.void(2, &run);
    let input = story.shown(false);
    ok("ok-two-the-later-first", "two false runs, of which the later one is void first", input);
}

fn shown_in_part(kit: &mut Kit) {
    let (mut story, run) = false_run();
    let title = "a false run of which no event is shown, and which nothing voids";
    kit.case(FOLDER, "L6", "no-event-shown-not-void", title, "follow")
        .input(story.shown_as(false, |items| items[2].events.clear()))
        .invalid();
    story.void(2, &run);
    let title = "a false run of which no event is shown, and the record by which it is void";
    kit.case(FOLDER, "L6", "ok-no-event-shown", title, "follow")
        .input(story.shown_as(false, |items| items[2].events.clear()))
        .valid();
    let title = "the same where the whole ledger is shown: it is not shown whole";
    kit.case(FOLDER, "L3", "void-run-without-its-event", title, "follow")
        .input(story.shown_as(true, |items| items[2].events.clear()))
        .invalid();
    // A wrap is not content: where it is not shown, nobody who follows a part can tell.
    let mut story = Story::new();
    let events = story.scene.reading(&world().gateway, hour()).both();
    let run = story.run(&world().gateway, &world().nodes[0], &events);
    story.void(2, &run);
    let title = "a false run of a wrap and a reading, of which the reading alone is shown";
    kit.case(FOLDER, "L6", "ok-its-wrap-is-not-shown", title, "follow")
        .input(story.shown_as(false, |items| drop(items[2].events.remove(0))))
        .valid();
}

/// The event with another version, and its id.
fn newer(event: &CheckedEvent) -> (Event, EheId) {
    let event = with_header(event, |header| *header.at(0).at(0) = Cbor::Int(2));
    let id = EheId(Sha256::digest(&event.header).into());
    (event, id)
}

fn unknown(kit: &mut Kit) {
    let (gateway, node) = (&world().gateway, &world().nodes[0]);
    let story = |known: bool| {
        let mut story = Story::new();
        let (reading, (unknown, id)) = (story.reading(gateway), newer(&story.reading(gateway)));
        let of: &[CheckedEvent] = if known { std::slice::from_ref(&reading) } else { &[] };
        let mut run = story.scene.run(gateway, of);
        run.ids.push(id);
        let run = forged(&run, gateway, node);
        story.let_in(&run, of);
        (story, run, unknown)
    };
    for (known, whole, slug, title) in [
        (true, false, "ok-unknown-in-a-part", "a void run of a reading and an event of version 2, shown in part"),
        (
            true,
            true,
            "ok-unknown-in-the-ledger",
            "a void run of a reading and an event of version 2, in the whole ledger",
        ),
        (false, true, "ok-unknown-alone", "a void run of nothing but an event of version 2"),
    ] {
        let (mut story, run, unknown) = story(known);
        story.void(2, &run);
        let (of_its_own, id) = newer(&story.reading(gateway));
        let end = run.decode().unwrap().claims().end();
        let signed = Run { from: end, ids: vec![id], ..story.scene.run(gateway, &[]) };
        story.let_in(&signed.sign(gateway), &[]);
        let input = story.shown_as(whole, |items| {
            items[2].events.push(unknown);
            items[4].events.push(of_its_own);
        });
        let title = format!("{title}, and one that the gateway signed: of the void run no event is told");
        kit.case(FOLDER, "L6", slug, &title, "follow").input(input).valid();
    }
    let (mut story, run, unknown) = story(true);
    story.leaves.last_mut().unwrap().control += 1;
    story.void(2, &run);
    let input = story.shown_as(false, |items| items[2].events.push(unknown));
    let title = "a void run with a control event of version 2, by its leaf's count";
    kit.case(FOLDER, "L6", "unknown-control", title, "follow").input(input).invalid();
}

/// What L2 and L3 ask of a run is asked of a false one too, and no record helps.
fn judged(kit: &mut Kit) {
    let (gateway, clinician, node) = (&world().gateway, &world().clinician, &world().nodes[0]);
    for (whole, name) in [(true, "whole"), (false, "in-part")] {
        let mut story = Story::new();
        let event = story.reading(clinician);
        let run = story.run(clinician, node, &[event]);
        story.void(2, &run);
        let title = "a false run of somebody who may only read, and the record by which it would be void";
        kit.case(FOLDER, "L6", &format!("no-right-{name}"), title, "follow")
            .input(story.shown(whole))
            .refused(Refusal::NotInvited.code());
        let mut story = Story::new();
        let event = story.reading(&world().stranger);
        story.run(&world().stranger, node, &[event]);
        let title = "a false run of somebody whom the room does not know";
        kit.case(FOLDER, "L6", &format!("of-a-stranger-{name}"), title, "follow")
            .input(story.shown(whole))
            .refused(Refusal::NotInvited.code());
    }
    let mut story = Story::new();
    let event = story.reading(gateway);
    let run = story.run(gateway, node, &[event.clone(), event]);
    story.void(2, &run);
    let title = "a false run that names one event twice, and the record by which it would be void";
    kit.case(FOLDER, "L6", "event-twice", title, "follow")
        .input(story.shown(false))
        .refused(Refusal::EventRepeated.code());
}

fn strands(kit: &mut Kit) {
    let gateway = &world().gateway;
    let go_on = |story: &mut Story, from: Option<StrandEnd>, events: &[CheckedEvent]| {
        let mut run = story.scene.run(gateway, events);
        run.from = from.unwrap_or(run.from);
        let run = run.sign(gateway);
        story.let_in(&run, events);
    };
    let (mut story, run) = false_run();
    let next = story.reading(gateway);
    go_on(&mut story, None, &[next]);
    story.void(2, &run);
    let title = "the gateway's strand goes on from where it ended before the run that is void";
    kit.case(FOLDER, "L6", "strand-goes-back", title, "follow").input(story.shown(true)).invalid();
    let mut story = Story::new();
    let event = story.reading(gateway);
    let run = story.run(gateway, &world().nodes[0], std::slice::from_ref(&event));
    let end = run.decode().unwrap().claims().end();
    story.void(2, &run);
    go_on(&mut story, Some(end), &[event]);
    let title = "the gateway links the event of a void run again";
    kit.case(FOLDER, "L6", "ok-linked-again", title, "follow").input(story.shown(true)).valid();
}

/// Of two readings in a void run, which both would open, the gateway links one again.
fn read(kit: &mut Kit) {
    let (gateway, clinician, patient) = (&world().gateway, &world().clinician, &world().patient);
    let first = Hour(hour().day().0 * 24);
    let mut scene = Scene::room(Granted::Append);
    let seed = scene.seed_wrap(EPOCH, clinician);
    let reads = scene.grant(clinician, Right::Read, |grant| grant.seeds = vec![seed]);
    scene.accept(patient, &[reads]);
    let wrap = scene.wrap(gateway, EPOCH, first);
    let sealed = |scene: &mut Scene, rates: &[i64]| {
        let core = scene.core(gateway, EPOCH, wrap.id().into(), first);
        seal::seal(&Scene::ek(), core, &encoded(&heart_rates(rates))).unwrap()
    };
    let own = sealed(&mut scene, &[72, 74]);
    scene.accept(gateway, &[wrap.clone(), own]);
    let both = [sealed(&mut scene, &[180, 181]), sealed(&mut scene, &[61, 60])];
    let mut story = Story::of(scene);
    let run = story.run(gateway, &world().nodes[0], &both);
    story.void(3, &run);
    let mut again = story.scene.run(gateway, &both[1..]);
    again.from = run.decode().unwrap().claims().end();
    story.let_in(&again.sign(gateway), &both[1..]);
    let mut input = story.shown(false);
    input["wraps"] = json!([]);
    let title = "readings, one of them in a void run alone, and one in a void run and in one that the gateway signed";
    kit.case(FOLDER, "L6", "ok-read", title, "read").keys(json!({"reader": seeds("clinician")})).input(input).valid();
}

/// As many false runs as may be remembered and one more, by their runs without events; each has its void record. They are all the same run:
/// who follows a part does not judge strands.
fn at_the_limit(kit: &mut Kit) {
    let case = |before_the_first_record: usize| {
        let (mut story, run) = false_run();
        let (first, last) = (2, 2 + u64::try_from(UNVOIDED_RUNS_MAX).unwrap());
        (1..before_the_first_record).for_each(|_| story.let_in(&run, &[]));
        story.void(first, &run);
        let mut void: Vec<u64> = (first + 1..last).collect();
        if before_the_first_record > UNVOIDED_RUNS_MAX {
            void.push(last);
        } else {
            // There is room for one more.
            story.let_in(&run, &[]);
            void.push(last + 1);
        }
        void.into_iter().for_each(|index| story.void(index, &run));
        let mut items = story.items(false);
        items[2].events.clear();
        let bytes = Cbor::Array(items.iter().map(|item| Cbor::Bytes(cbor::to_vec(item))).collect()).to_vec();
        let mut input = input(false, &[], &story.log().head(NONCE));
        input["items"] = packed(&bytes);
        input
    };
    let title = "1,024 false runs before the first of them is void, and one more after that";
    kit.case(FOLDER, "L6", "ok-as-many-as-are-remembered", title, "follow")
        .input(case(UNVOIDED_RUNS_MAX))
        .without(&["void"])
        .valid();
    let title = "1,025 false runs before the first of them is void";
    kit.case(FOLDER, "L6", "more-than-are-remembered", title, "follow").input(case(UNVOIDED_RUNS_MAX + 1)).invalid();
}

fn forms(kit: &mut Kit) {
    let record = |index: u64, run: Vec<u8>| VoidRecord { index, run: SignedRun(run) }.to_vec();
    let (_, run) = false_run();
    let mut longer = Cbor::parse(&record(2, run.0.clone()));
    longer.set(2, Cbor::Int(1));
    let (array, swapped) = (vec![Cbor::Int(2), Cbor::Bytes(run.0.clone())], |bytes: &[u8]| Cbor::Bytes(bytes.to_vec()));
    let most = ehe::limits::VOID_RECORD_MAX_BYTES - record(0, vec![0; 256]).len() + 256;
    assert_eq!(record(0, vec![0; most]).len(), ehe::limits::VOID_RECORD_MAX_BYTES);
    for (slug, title, bytes, stands) in [
        ("ok-void-record", "a void record", record(2, run.0.clone()), true),
        (
            "ok-void-record-of-any-bytes",
            "a void record whose run is no run: that is judged where it is used",
            record(0, vec![]),
            true,
        ),
        (
            "ok-void-record-at-the-end",
            "a void record of the last place that a number can name",
            record(u64::MAX, run.0),
            true,
        ),
        ("ok-void-record-largest", "a void record of 9,280 bytes", record(0, vec![0; most]), true),
        ("void-record-oversized", "a void record of 9,281 bytes", record(0, vec![0; most + 1]), false),
        ("void-record-unknown-member", "a void record with a member that there is not", longer.to_vec(), false),
        ("void-record-array", "a void record that is an array", Cbor::Array(array).to_vec(), false),
        (
            "void-record-index-bytes",
            "a void record whose index is a byte string",
            Cbor::Map(vec![(0, swapped(&[2])), (1, swapped(&[]))]).to_vec(),
            false,
        ),
        ("void-record-without-run", "a void record without a run", Cbor::Map(vec![(0, Cbor::Int(2))]).to_vec(), false),
        (
            "void-record-index-long",
            "a void record whose index is written with a byte more",
            Cbor::Map(vec![(0, Cbor::Raw(vec![0x18, 2])), (1, swapped(&[]))]).to_vec(),
            false,
        ),
    ] {
        let input = json!({"type": "VoidRecord", "bytes": if bytes.len() > 1024 { packed(&bytes) } else { h(bytes) }});
        let draft = kit.case("encoding", "E1", slug, title, "decode").input(input);
        if stands { draft.valid() } else { draft.invalid() }
    }
}
