//! A shard of five million events whose process is killed with -9 in the middle of its work, and started again: from the
//! program's start until the shard orders and confirms a new block.
//!
//! `EHE_BENCH_EVENTS` asks for another number of events.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    dead_code,
    unreachable_pub,
    missing_docs
)]

#[path = "support/homes.rs"]
mod homes;
#[path = "../tests/support/people.rs"]
mod people;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ehe::id::Hash;
use ehe::run::SeenCheckpoint;
use ehe::time::UnixMs;
use ehe_node::checkpoint::Board;
use ehe_node::consensus::{Config, Consensus, GroupId, NodeId};
use ehe_node::shard::{ShardMachine, Store, block_of_runs};
use homes::{CACHE_BYTES, Home, MIDNIGHT, PLACE, Shard, cpu_seconds, row};
use sha2::Digest;

const EVENTS: u64 = 5_000_000;
const TARGET: Duration = Duration::from_secs(3);
/// Set for the child: what it is to do, and where.
const CHILD: &str = "EHE_BENCH_CHILD";
const DIR: &str = "EHE_BENCH_DIR";
const RUNS_A_BLOCK: usize = 32;
const EVENTS_A_RUN: usize = 256;

fn main() {
    let events = std::env::var("EHE_BENCH_EVENTS").map_or(EVENTS, |n| n.parse().unwrap());
    match (std::env::var(CHILD).as_deref(), std::env::var(DIR)) {
        (Ok("fill"), Ok(dir)) => fill(Path::new(&dir), events),
        (Ok(_), Ok(dir)) => restart(Path::new(&dir)),
        _ => measure(events),
    }
}

fn child(what: &str, dir: &Path) -> (Child, impl Iterator<Item = String>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(CHILD, what)
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    (child, lines)
}

fn measure(events: u64) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let start = Instant::now();
    let (mut filling, mut lines) = child("fill", dir.path());
    assert_eq!(lines.next().as_deref(), Some("filled"));
    let filled = start.elapsed();
    // It goes on ordering; some of that is in the log and in the state, and not durable there.
    std::thread::sleep(Duration::from_millis(500));
    filling.kill().unwrap();
    filling.wait().unwrap();
    let sizes: Vec<_> = ["shard-0000.redb", "raft.redb"]
        .iter()
        .map(|name| format!("{name} {} MiB", dir.path().join(name).metadata().unwrap().len() >> 20))
        .collect();
    let start = Instant::now();
    let (mut again, mut lines) = child("restart", dir.path());
    let place = lines.next().unwrap();
    let took = start.elapsed();
    again.wait().unwrap();
    row(
        &format!("restart of a shard of {events} events after kill -9"),
        "< 3 s",
        &format!("{:.2} s", took.as_secs_f64()),
        Some(took < TARGET),
        &format!(
            "{place}; files as killed: {}; filled through the log in {:.0} s, {:.0} EHE/s with making and signing",
            sizes.join(", "),
            filled.as_secs_f64(),
            events as f64 / filled.as_secs_f64()
        ),
    );
}

fn consensus(dir: &Path, store: &Store) -> impl Future<Output = Consensus> + use<> {
    let machine = ShardMachine::new(PLACE, store.clone(), Arc::new(Board::default())).unwrap();
    let dir = dir.to_owned();
    async move { Consensus::open(Config::new(NodeId(1)), &dir, vec![(GroupId(0), machine)]).await.unwrap() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Fills a shard through its log, says so, and goes on until it is killed.
fn fill(dir: &Path, events: u64) {
    let rooms = tempfile::tempdir_in(dir).unwrap();
    // Rooms are made by a machine of their own, and their blocks proposed again: what follows is one log from its beginning.
    let mut shard = Shard::open(rooms.path());
    let mut blocks = Vec::new();
    let mut homes: Vec<_> = (0..8).map(|_| Home::new_into(&mut shard, MIDNIGHT, &mut blocks)).collect();
    let wraps = homes.iter_mut().map(|home| {
        let wrap = home.new_day(MIDNIGHT);
        home.run(&[wrap])
    });
    let wraps = block_of_runs(MIDNIGHT, wraps.collect());
    blocks.push(wraps.clone());
    shard.apply(wraps);
    let seen = shard.checkpoint();
    homes.iter_mut().for_each(|home| home.saw(seen.clone()));
    let store = Store::open(dir, PLACE.alliance, 0, CACHE_BYTES).unwrap();
    runtime().block_on(async move {
        let consensus = consensus(dir, &store).await;
        for block in blocks {
            consensus.propose(GroupId(0), block.into()).await.unwrap();
        }
        let (mut made, mut waiting, mut said) = (0u64, VecDeque::new(), false);
        loop {
            let block = block(&mut homes, &mut made, &seen);
            waiting.push_back(consensus.submit(GroupId(0), block.into()).await.unwrap());
            if waiting.len() > 3 {
                waiting.pop_front().unwrap().await.unwrap();
            }
            if made >= events && !said {
                while let Some(pending) = waiting.pop_front() {
                    pending.await.unwrap();
                }
                let leaves = store.view().unwrap().shard().leaves;
                assert_eq!(leaves, made / EVENTS_A_RUN as u64 + 16, "every run was admitted");
                println!("filled");
                std::io::stdout().flush().unwrap();
                said = true;
            }
        }
    });
}

fn block(homes: &mut [Home], made: &mut u64, seen: &SeenCheckpoint) -> Vec<u8> {
    let body = [5; 256];
    let body_hash = Hash(sha2::Sha256::digest(body).into());
    let (count, mut runs) = (homes.len(), Vec::new());
    for n in 0..RUNS_A_BLOCK {
        let home = &mut homes[n % count];
        let sealed = (0..EVENTS_A_RUN).map(|_| {
            *made += 1;
            home.opaque(&body, body_hash, MIDNIGHT.plus_ms((*made / count as u64 * 15_000) % 86_400_000))
        });
        let sealed = sealed.collect();
        runs.push(home.opaque_run(sealed, seen));
    }
    block_of_runs(UnixMs(MIDNIGHT.0 + 86_400_000), runs)
}

/// Opens what was killed, and has one more block confirmed.
fn restart(dir: &Path) {
    let start = Instant::now();
    let store = Store::open(dir, PLACE.alliance, 0, CACHE_BYTES).unwrap();
    let opened = start.elapsed();
    let durable = store.view().unwrap().shard();
    runtime().block_on(async move {
        let consensus = consensus(dir, &store).await;
        let ready = start.elapsed();
        let replayed = store.view().unwrap().shard();
        consensus.propose(GroupId(0), block_of_runs(MIDNIGHT, vec![]).into()).await.unwrap();
        println!(
            "state opened in {} ms, log opened and {} blocks of {} runs replayed in {} ms, next block confirmed after {} ms more, {:.2} s of a core in all",
            opened.as_millis(),
            replayed.blocks - durable.blocks,
            replayed.leaves - durable.leaves,
            (ready - opened).as_millis(),
            (start.elapsed() - ready).as_millis(),
            cpu_seconds()
        );
        std::io::stdout().flush().unwrap();
        std::process::exit(0);
    });
}
