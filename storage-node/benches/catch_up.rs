//! A node that is replaced gets the shards' whole states: what receiving, verifying and installing one costs by itself, and how long it
//! takes until the empty third of three nodes (the built program, over QUIC) has caught up.
//!
//! `EHE_BENCH_EVENTS` asks for another number of events.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    dead_code,
    unreachable_pub,
    missing_docs
)]

#[path = "catch_up/cluster.rs"]
mod cluster;
#[path = "support/homes.rs"]
mod homes;
#[path = "../tests/support/hospitals.rs"]
mod hospitals;
#[path = "../tests/support/members.rs"]
mod members;
#[path = "../tests/support/people.rs"]
mod people;

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ehe::checkpoint::{Checkpoint, Signer};
use ehe::id::Hash;
use ehe::time::UnixMs;
use ehe_node::checkpoint::{Checkpointed, Published};
use ehe_node::consensus::{Machine, Stage};
use ehe_node::shard::{Notary, Place, block_of_runs};
use homes::{Home, MIDNIGHT, Shard, cpu_seconds, row};
use members::Seat;
use sha2::Digest;
use tokio::sync::watch;

pub const LIMIT: Duration = Duration::from_secs(60);
const EVENTS: u64 = 2_000_000;
const HOMES: usize = 8;
const TARGET: f64 = 50_000.0;

fn main() {
    let events = std::env::var("EHE_BENCH_EVENTS").map_or(EVENTS, |n| n.parse().unwrap());
    // Less of it: filling takes longer than what is measured, and the rate does not hang on the size.
    alone(events / 2, 256, "backlogs in runs of 256");
    alone(events / 10, 1, "runs of one event");
    cluster::measure(events);
}

/// One state from one directory into another, on one thread and without a network.
fn alone(events: u64, of_a_run: usize, what: &str) {
    let dirs = [(); 2].map(|()| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let seats = members::seats("ABC", None);
    let charter = seats[0].charter.clone();
    let place = Place { alliance: charter.alliance_id(), shard_count: charter.shard_count(), shard: 0 };
    let charters = move |version| (version == 1).then(|| charter.clone());
    let mut sender = Shard::of(dirs[0].path(), place);
    fill(&mut sender, events, of_a_run);
    let (shown, checkpoints) = watch::channel(Checkpointed::None);
    sender.machine = sender.machine.attested_by(Notary::new(charters.clone(), checkpoints.clone()));
    shown.send_replace(Checkpointed::At(Arc::new(published(&sender, &seats))));
    let mut receiver = Shard::of(dirs[1].path(), place);
    receiver.machine = receiver.machine.attested_by(Notary::new(charters, watch::channel(Checkpointed::None).1));

    let (start, cpu, mut reading, mut bytes) = (Instant::now(), cpu_seconds(), Duration::ZERO, 0);
    let mut stream = sender.machine.snapshot().unwrap();
    let mut stage = receiver.machine.stager()().unwrap();
    let mut piece = vec![0; 1 << 20];
    loop {
        let since = Instant::now();
        let read = stream.read(&mut piece).unwrap();
        reading += since.elapsed();
        if read == 0 {
            break;
        }
        bytes += read;
        stage.write(&piece[..read]).unwrap();
    }
    let received = start.elapsed();
    let arrived = stage.finish().unwrap();
    let verified = start.elapsed();
    receiver.machine.adopt(arrived, &[0; 64]).unwrap();
    let (took, cpu) = (start.elapsed(), cpu_seconds() - cpu);
    assert_eq!(receiver.leaves(), sender.leaves());
    let rate = events as f64 / took.as_secs_f64();
    row(
        &format!("a shard's state from file to file, {what}"),
        &format!("≥ {TARGET:.0} EHE/s"),
        &format!("{rate:.0} EHE/s"),
        Some(rate >= TARGET),
        &format!(
            "{events} events, {} MiB, one thread: reading {:.1} s, writing {:.1} s, verifying every entry, leaf and place and syncing {:.1} s, \
             installing {} ms; {cpu:.1} s of a core, {:.0} EHE/s of one",
            bytes >> 20,
            reading.as_secs_f64(),
            (received - reading).as_secs_f64(),
            (verified - received).as_secs_f64(),
            (took - verified).as_millis(),
            events as f64 / cpu
        ),
    );
}

fn fill(shard: &mut Shard, events: u64, of_a_run: usize) {
    let mut homes: Vec<_> = (0..HOMES).map(|_| Home::new(shard, MIDNIGHT)).collect();
    let wraps = homes.iter_mut().map(|home| {
        let wrap = home.new_day(MIDNIGHT);
        home.run(&[wrap])
    });
    let wraps = wraps.collect();
    shard.apply(block_of_runs(MIDNIGHT, wraps));
    let seen = shard.checkpoint();
    homes.iter_mut().for_each(|home| home.saw(seen.clone()));
    let body = [5; 256];
    let body_hash = Hash(sha2::Sha256::digest(body).into());
    let (mut made, runs, before) = (0u64, 8192 / of_a_run.max(16), shard.leaves());
    while made < events {
        let runs = (0..runs).map(|n| {
            let home = &mut homes[n % HOMES];
            let sealed = (0..of_a_run).map(|_| {
                made += 1;
                home.opaque(&body, body_hash, MIDNIGHT.plus_ms((made / HOMES as u64 * 15_000) % 86_400_000))
            });
            let sealed = sealed.collect();
            home.opaque_run(sealed, &seen)
        });
        shard.apply(block_of_runs(UnixMs(MIDNIGHT.0 + 86_400_000), runs.collect()));
    }
    shard.make_durable();
    assert_eq!(shard.leaves() - before, made / of_a_run as u64, "every run was admitted");
}

fn published(shard: &Shard, seats: &[Seat]) -> Published {
    let (seen, charter) = (shard.checkpoint(), &seats[0].charter);
    let (size, root, origin) = (seen.size, seen.root, seen.origin);
    let checkpoint = Checkpoint { origin, size, root, charter_version: charter.version() };
    let signer = Signer { name: &seats[0].name, key: seats[0].identity.sign_key() };
    let mut note = checkpoint.sign(signer, MIDNIGHT).unwrap();
    note.cosign(&seats[1].name, seats[1].identity.sign_key(), MIDNIGHT.0 / 1000);
    let cosigners = seats[..2].iter().map(|seat| seat.id).collect();
    let note = note.to_string();
    Published { size, root, incarnation: 0, charter_version: charter.version(), rooms: HOMES as u64, cosigners, note }
}
