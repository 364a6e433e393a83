//! Readers that ask for everything and take nothing: what a node holds for them is bounded, and others read on.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use certs::Role;
use ehe::control::Right;
use ehe::wire::{Request, Response};
use ehe_node::clock::Clock;
use ehe_node::daemon::Daemon;
use peak_alloc::PeakAlloc;

#[path = "support/alliance.rs"]
mod alliance;
#[path = "support/people.rs"]
mod people;
#[path = "support/raw.rs"]
mod raw;

use alliance::{Alliance, LIMIT, SHARDS, now};
use people::{Patient, Sealer, Writer, content};
use raw::{Odd, PLAIN, answer, frame};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const RUNS: usize = 24;
const EVENTS: usize = 8;
const PLAIN_BYTES: usize = 60_000;
/// As many streams as a connection may have.
const STREAMS: usize = 64;
/// A page of the ledger for each stream (256 KiB and one run), as rows and as frames, and what waits for acknowledgement.
const HELD_MAX_BYTES: usize = STREAMS * 2 * (256 * 1024 + EVENTS * PLAIN_BYTES) + 8 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_take_nothing_hold_bounded_memory_are_cut_and_keep_nobody_from_reading() {
    let alliance = Alliance::new();
    let mut config = alliance.config();
    config.limits.send_deadline_ms = 3_000;
    let node = Daemon::start(config, Clock::system()).await.unwrap();
    let address = node.local_addr().unwrap();
    let people =
        [("patient", Role::Patient), ("gateway", Role::Gateway), ("slow", Role::Clinician), ("quick", Role::Clinician)];
    let [owner, gateway, slow, quick] = people.map(|(name, role)| alliance.person(name, role));
    let mut patient = Patient::new(owner.identity(), alliance.charter().alliance_id(), (0, SHARDS), now());
    let mut events = patient.opening(now());
    events.push(patient.grant(gateway.identity().public(), Right::Append, None, now()));
    for reader in [&slow, &quick] {
        events.push(patient.grant(reader.identity().public(), Right::Read, None, now()));
    }
    let run = patient.writer.run(&events);
    assert!(matches!(alliance.connect(&owner, address).await.submit(run).await, Response::Submitted(_)));
    let link = alliance.connect(&gateway, address).await;
    let (sealer, mut writer) =
        (Sealer::new(gateway.identity(), &patient, now()), Writer::new(gateway.identity(), patient.room));
    let run = writer.run(std::slice::from_ref(&sealer.wrap));
    assert!(matches!(link.submit(run).await, Response::Submitted(_)));
    for _ in 0..RUNS {
        let events: Vec<_> = (0..EVENTS).map(|_| sealer.seal(&[7; PLAIN_BYTES])).collect();
        let run = writer.run(&events);
        assert!(matches!(link.submit(run).await, Response::Submitted(_)));
    }

    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let odd = Odd { window: Some(4096), ..PLAIN };
    let hostile = raw::connect(&alliance, Some((&alliance, "slow")), address, odd).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let (mut send, recv) = hostile.open().await;
        let request = Request::Fetch(content(slow.identity(), &patient, now()), slow.identity().public().clone());
        send.write_all(&frame(&request.to_vec())).await.unwrap();
        send.finish().unwrap();
        streams.push((send, recv));
    }
    // Each of them is cut; meanwhile others read everything, again and again.
    let link = alliance.connect(&quick, address).await;
    let cut = async {
        for (_, recv) in &mut streams {
            let reset = tokio::time::timeout(LIMIT, recv.received_reset()).await.expect("it is cut").unwrap();
            assert_eq!(reset.map(quinn::VarInt::into_inner), Some(5));
        }
    };
    let mut cut = Box::pin(cut);
    let mut whole = 0;
    loop {
        tokio::select! {
            () = &mut cut => break,
            answers = link.fetch(content(quick.identity(), &patient, now())) => {
                assert!(matches!(answers.last(), Some(Response::Head(_))), "{:?}", answers.last());
                whole += 1;
            }
        }
    }
    assert!(whole > 0, "the other reader got everything before they were cut");
    drop(cut);
    let held = MEMORY.peak_usage().saturating_sub(before);
    // The quick reader's own copy of everything, in both ends and in the answers, is not the slow ones'.
    let own = 4 * RUNS * EVENTS * PLAIN_BYTES;
    assert!(held < HELD_MAX_BYTES + own, "{held} bytes for {STREAMS} readers of {} each", RUNS * EVENTS * PLAIN_BYTES);
    let (mut send, mut recv) = hostile.open().await;
    send.write_all(&frame(&Request::Charter(1).to_vec())).await.unwrap();
    assert!(matches!(answer(&mut recv).await, Some(Response::Charter(_))), "the connection is of use again");
    node.stop().await.unwrap();
}
