//! Readings to a sealed event and back; runs of them.

use ehe::body::vitals::VitalsBody;
use ehe::event::Event;
use ehe::id::StrandId;
use ehe::run::{Run, SignedRun, StrandEnd};
use ehe::seal;
use ehe::sign::VerifyKey;

use crate::row::{Row, seconds, shares};
use crate::world::{World, costly, window};

/// Readings in a window of the targets.
const WINDOW: u32 = 60;
/// Events in a run of the targets.
const RUN: u32 = 256;

pub(crate) fn rows(world: &World) {
    seal_and_open(world);
    runs(world);
    long_windows(world);
}

fn seal_and_open(world: &World) {
    let readings = window(WINDOW, 7);
    let mut number = 0;
    let columns = seconds(|| VitalsBody::from_readings(&readings).unwrap().to_vec());
    let body = VitalsBody::from_readings(&readings).unwrap().to_vec();
    let whole = seconds(|| {
        number += 1;
        world.sealed(&readings, number)
    });
    let text =
        format!("{}; a body of {} bytes", shares(whole, &[("columns", columns)], "HKDF, AEAD, hashes"), body.len());
    Row {
        what: "seal 60 readings into an event (key in hand, unsigned)",
        target: Some(70_000.0),
        unit: "EHE",
        rate: 1.0 / whole,
        place: text,
    }
    .print();

    let event = world.sealed(&readings, 1).into_event();
    let check = seconds(|| event.clone().check().unwrap());
    let decode = seconds(|| VitalsBody::decode(&body).unwrap());
    let whole = seconds(|| open(world, event.clone()).len());
    let text = shares(whole, &[("header, hashes", check), ("columns", decode)], "HKDF, AEAD");
    Row {
        what: "open an event to its 60 readings (key in hand, signature apart)",
        target: Some(100_000.0),
        unit: "EHE",
        rate: 1.0 / whole,
        place: text,
    }
    .print();
}

fn open(world: &World, event: Event) -> Vec<ehe::reading::Reading> {
    let checked = event.check().unwrap();
    VitalsBody::decode(&seal::open(&world.ek, &checked).unwrap()).unwrap()
}

/// A run of `events` windows as it travels.
pub(crate) fn run_of(world: &World, events: u32) -> (SignedRun, Vec<Event>) {
    let sealed: Vec<_> = (0..events).map(|i| world.sealed(&window(WINDOW, u64::from(i)), i)).collect();
    let run = Run {
        room: world.core(0).room,
        author: world.author.author_id(),
        from: StrandEnd::start(StrandId([7; 8])),
        ids: sealed.iter().map(|event| event.id()).collect(),
        seen: None,
        continues: None,
    };
    (run.sign(&world.author), sealed.into_iter().map(|event| event.into_event()).collect())
}

/// What a reader does with a run: signature, links, ids, body hashes, commitments, columns. Counts the readings.
fn read(world: &World, key: &VerifyKey, signed: &SignedRun, events: &[Event], before: StrandEnd) -> (usize, StrandEnd) {
    let run = signed.decode().unwrap().verify(key).unwrap();
    let run = run.run();
    assert_eq!((run.from, run.ids.len()), (before, events.len()));
    let mut readings = 0;
    for (id, event) in run.ids.iter().zip(events) {
        let checked = event.clone().check().unwrap();
        assert_eq!(checked.id(), *id);
        readings += VitalsBody::decode(&seal::open(&world.ek, &checked).unwrap()).unwrap().len();
    }
    (readings, run.end())
}

fn runs(world: &World) {
    let key = world.author.public().sign;
    let start = StrandEnd::start(StrandId([7; 8]));
    let (signed, events) = run_of(world, RUN);
    let whole = seconds(|| read(world, &key, &signed, &events, start));
    let verify = seconds(|| signed.decode().unwrap().verify(&key).unwrap());
    let run = signed.decode().unwrap().verify(&key).unwrap();
    let links = seconds(|| run.run().end());
    let check = seconds(|| events[0].clone().check().unwrap()) * f64::from(RUN);
    let body = VitalsBody::from_readings(&window(WINDOW, 0)).unwrap().to_vec();
    let decode = seconds(|| VitalsBody::decode(&body).unwrap()) * f64::from(RUN);
    let parts = [("signature", verify), ("links", links), ("header, hashes", check), ("columns", decode)];
    Row {
        what: "readings opened, verified and decoded from runs of 256 windows of 60",
        target: Some(4_000_000.0),
        unit: "readings",
        rate: f64::from(WINDOW * RUN) / whole,
        place: shares(whole, &parts, "HKDF, AEAD"),
    }
    .print();

    for (events, what) in [(1, "sign a run of one event"), (RUN, "sign a run of 256 events")] {
        let (signed, _) = run_of(world, events);
        let claims = signed.decode().unwrap().claims().clone();
        let time = seconds(|| claims.sign(&world.author));
        let text = format!("{:.1} µs: Ed25519 over {} bytes", time * 1e6, signed.0.len());
        Row { what, target: None, unit: "runs", rate: 1.0 / time, place: text }.print();
    }
    for (events, what) in [(1, "verify a run of one event"), (RUN, "verify a run of 256 events")] {
        let (signed, _) = run_of(world, events);
        let time = seconds(|| signed.decode().unwrap().verify(&key).unwrap());
        let decode = seconds(|| signed.decode().unwrap());
        let text = shares(time, &[("CBOR", decode)], "Ed25519, strict");
        Row { what, target: None, unit: "runs", rate: 1.0 / time, place: text }.print();
    }
}

fn long_windows(world: &World) {
    let readings = window(600, 3);
    let body = VitalsBody::from_readings(&readings).unwrap().to_vec();
    let encode = seconds(|| VitalsBody::from_readings(&readings).unwrap().to_vec());
    let sealed = world.sealed(&readings, 1);
    let text = format!("{:.1} µs; a body of {} bytes, sealed {}", encode * 1e6, body.len(), sealed.body().len());
    Row { what: "600 readings into a body", target: None, unit: "readings", rate: 600.0 / encode, place: text }.print();
    let decode = seconds(|| VitalsBody::decode(&body).unwrap());
    let text = format!("{:.1} µs", decode * 1e6);
    Row { what: "600 readings out of a body", target: None, unit: "readings", rate: 600.0 / decode, place: text }
        .print();

    let readings = costly();
    let body = VitalsBody::from_readings(&readings).unwrap().to_vec();
    let decode = seconds(|| VitalsBody::decode(&body).unwrap());
    let text = format!("{:.2} ms for {} bytes: pco, 16 series of 7 columns", decode * 1e3, body.len());
    let rate = 4096.0 / decode;
    Row {
        what: "4,096 readings out of the costliest body that we know",
        target: None,
        unit: "readings",
        rate,
        place: text,
    }
    .print();
}
