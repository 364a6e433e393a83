//! From a block's end to its checkpoint, in a group of one node: remembered with one sync, signed, shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    unreachable_pub,
    missing_docs
)]

#[path = "../tests/support/alliance.rs"]
mod alliance;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alliance::Alliance;
use certs::Credentials;
use ehe::id::Hash;
use ehe::time::UnixMs;
use ehe_node::checkpoint::{Applied, Board, Checkpointed, Checkpointer, Line, Logged, MayOrder, Outbound, Who};
use ehe_node::clock::Clock;
use ehe_node::cosign::CosignFile;
use ehe_node::shard::{Recent, Store};
use ehe_node::stats::Stats;
use tokio::sync::watch;

const CHECKPOINTS: u32 = 4000;

fn main() {
    let alliance = Alliance::new();
    let credentials = Credentials::load(&alliance.path("node")).unwrap();
    let (charter, node) = (Arc::new(credentials.charter().clone()), credentials.peer().node().unwrap());
    let id = charter.alliance_id();
    let store = Store::open(alliance.dir.path(), id, 0, 1 << 20).unwrap();
    let (shown, mut receiver) = watch::channel(Checkpointed::None);
    let checkpointer = Checkpointer {
        who: Who {
            id: node,
            name: charter.node(node).unwrap().name.clone(),
            identity: Arc::new(credentials.identity().clone()),
            charter,
        },
        file: CosignFile::open(&alliance.path("cosigned"), id, node, 2, true).unwrap(),
        lines: BTreeMap::from([(0, Line { store, recent: Recent::default(), shown })]),
        leader: Box::new(|_| None),
        outbound: Outbound::default(),
        evidence: Box::new(Logged),
        may_order: MayOrder::default(),
        clock: Clock::system(),
        stats: Arc::new(Stats::default()),
    };
    let board = Arc::new(Board::default());
    let shows = Arc::clone(&board);
    let working = std::thread::spawn(move || checkpointer.run(&shows));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut took: Vec<Duration> = Vec::new();
    for incarnation in 0..CHECKPOINTS {
        let applied = Applied { size: 1, root: Hash([1; 32]), incarnation, rooms: 1, time: UnixMs(0) };
        let start = Instant::now();
        board.show(0, applied);
        runtime.block_on(receiver.changed()).unwrap();
        took.push(start.elapsed());
    }
    board.stop();
    working.join().unwrap();
    took.sort();
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1000.0;
    println!(
        "{{\"group\":\"node\",\"what\":\"a checkpoint in a group of one node: remembered, signed, shown\",\"target\":\"–\",\
         \"measured\":\"p50 {:.3} ms, p99 {:.3} ms\",\"met\":null,\"where\":\"one sync of the disk, two signatures\"}}",
        at(50),
        at(99)
    );
}
