//! How long a leader's beat waits for its answer while snapshots go to the same node over a long, narrow path: on a connection of its
//! own, and on that of the snapshots.
//!
//! Prints one JSON line for each row: group, what, target, measured, met, where the time goes. The path is a relay in this process.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]

#[path = "lanes/path.rs"]
mod path;
#[path = "lanes/world.rs"]
mod world;

use std::time::{Duration, Instant};

use certs::{Exchange, Lane, NodeDialer, NodeLimits, Peer, Server, ServerLimits};
use ehe::charter::Node;

const LIMIT: Duration = Duration::from_secs(60);
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// How long is measured, after the path has filled.
const MEASURED: Duration = Duration::from_secs(15);
const FILLING: Duration = Duration::from_secs(3);
/// As many shards as are sent at one time.
const SNAPSHOTS: usize = 4;
/// The shortest election timeout over a WAN that a follower may have.
const TARGET_MS: f64 = 1000.0;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let world = world::World::new();
    for (what, beats, target) in [
        ("beat's answer beside 4 snapshots, each lane its own connection", Lane::Prompt, Some(TARGET_MS)),
        ("the same, everything on one connection", Lane::Bulk, None),
    ] {
        let mut took = run(&world, beats).await;
        took.sort_unstable();
        let ms = |part: f64| took[((took.len() - 1) as f64 * part).round() as usize].as_secs_f64() * 1000.0;
        println!(
            "{}",
            serde_json::json!({
                "group": "between nodes", "what": what,
                "target": target.map_or("–".into(), |target| format!("p99 ≤ {target:.0} ms")),
                "measured": format!("p50 {:.0} ms, p99 {:.0} ms of {}", ms(0.5), ms(0.99), took.len()),
                "met": target.map(|target| ms(0.99) <= target),
                "where": format!("the path's round trip {} ms, its queue up to {} ms", path::ROUND_TRIP_MS, path::QUEUE_MS),
            })
        );
    }
}

async fn run(world: &world::World, beats: Lane) -> Vec<Duration> {
    let limits = ServerLimits { nodes: Some(NodeLimits::default()), ..ServerLimits::default() };
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), &world.far, limits).unwrap();
    let narrow = path::start(server.local_addr().unwrap()).await;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Some(handshake) = server.accept().await {
            tokio::spawn(async move { serve(handshake.complete().await.unwrap()).await });
        }
    });
    let node = Node { addresses: vec![narrow.to_string()], ..world.entry.clone() };
    let dialer = NodeDialer::new(&world.near).unwrap();
    for _ in 0..SNAPSHOTS {
        let mut snapshot = dialer.open(&node, Lane::Bulk, LIMIT).await.unwrap();
        tasks.spawn(async move {
            let piece = vec![0; 1024 * 1024];
            while snapshot.send(&piece, LIMIT).await.is_ok() {}
        });
    }
    let mut beat = dialer.open(&node, beats, LIMIT).await.unwrap();
    let (mut took, start) = (Vec::new(), Instant::now());
    while start.elapsed() < FILLING + MEASURED {
        let begun = Instant::now();
        beat.send(b"beat", LIMIT).await.unwrap();
        beat.recv(LIMIT).await.unwrap().unwrap();
        if begun - start >= FILLING {
            took.push(begun.elapsed());
        }
        tokio::time::sleep(BEAT_EVERY.saturating_sub(begun.elapsed())).await;
    }
    took
}

async fn serve(peer: Peer) {
    while let Ok(exchange) = peer.accept_exchange().await {
        tokio::spawn(answer(exchange));
    }
}

/// A beat is answered, a snapshot's piece is taken.
async fn answer(mut exchange: Exchange) {
    while let Ok(Some(frame)) = exchange.recv(LIMIT).await {
        if frame == "beat" && exchange.send(b"here", LIMIT).await.is_err() {
            return;
        }
    }
}
