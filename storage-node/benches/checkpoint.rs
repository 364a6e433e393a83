//! From a block's end to its checkpoint: remembered with one sync, signed, counted, shown. In a group of one node, and in one of
//! three whose nodes run in this process, each with a file of its own, and hear each other without a network.
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

#[path = "../tests/support/members.rs"]
mod members;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ehe::id::{Hash, NodeId};
use ehe::time::UnixMs;
use ehe_node::checkpoint::{Applied, Board, Checkpointed, Checkpointer, Line, Logged, MayOrder, Outbound, Who, peers};
use ehe_node::clock::Clock;
use ehe_node::cosign::CosignFile;
use ehe_node::shard::{Recent, Store};
use ehe_node::stats::Stats;
use members::{Seat, seats};
use tokio::sync::watch;

const CHECKPOINTS: u32 = 4000;

struct Node {
    id: NodeId,
    board: Arc<Board>,
    outbound: Outbound,
    shown: watch::Receiver<Checkpointed>,
    working: std::thread::JoinHandle<()>,
}

impl Node {
    fn start(dir: &std::path::Path, leader: NodeId, Seat { id, name, identity, charter }: Seat) -> Self {
        let dir = dir.join(id.to_string());
        std::fs::create_dir(&dir).unwrap();
        let alliance = charter.alliance_id();
        let store = Store::open(&dir, alliance, 0, 1 << 20).unwrap();
        let (sender, shown) = watch::channel(Checkpointed::None);
        let (board, outbound) = (Arc::new(Board::new(peers(&charter, id))), Outbound::new(peers(&charter, id)));
        let checkpointer = Checkpointer {
            who: Who { id, name, identity, charter },
            file: CosignFile::open(&dir.join("cosigned"), alliance, id, 1, true).unwrap(),
            lines: BTreeMap::from([(0, Line { store, recent: Recent::default(), shown: sender })]),
            leader: Box::new(move |_| Some(leader)),
            outbound: outbound.clone(),
            evidence: Box::new(Logged),
            may_order: MayOrder::default(),
            clock: Clock::system(),
            stats: Arc::new(Stats::default()),
        };
        let works = Arc::clone(&board);
        let working = std::thread::spawn(move || checkpointer.run(&works));
        Self { id, board, outbound, shown, working }
    }
}

/// Times from the moment when all nodes have applied until the leader shows the checkpoint, in order.
fn measure(members: &str) -> Vec<Duration> {
    let dir = tempfile::tempdir().unwrap();
    let seats = seats(members, None);
    let leader = seats[0].id;
    let mut nodes: Vec<Node> = seats.into_iter().map(|seat| Node::start(dir.path(), leader, seat)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for to in &nodes {
        for from in nodes.iter().filter(|from| from.id != to.id) {
            let (board, outbound, from, to) = (Arc::clone(&to.board), from.outbound.clone(), from.id, to.id);
            runtime.spawn(async move {
                while let Some(message) = outbound.next(to).await {
                    board.deliver(from, message);
                }
            });
        }
    }
    let mut took: Vec<Duration> = Vec::new();
    for incarnation in 0..CHECKPOINTS {
        // Each of an incarnation of its own: no log has to be made for proofs that are measured elsewhere.
        let applied = Applied { size: 1, root: Hash([1; 32]), incarnation, rooms: 1, time: UnixMs(0) };
        let start = Instant::now();
        nodes.iter().for_each(|node| node.board.show(0, applied));
        let made = |it: &Checkpointed| matches!(it, Checkpointed::At(at) if at.incarnation == incarnation);
        runtime.block_on(nodes[0].shown.wait_for(made)).unwrap();
        took.push(start.elapsed());
    }
    for node in nodes {
        node.board.stop();
        node.working.join().unwrap();
    }
    took.sort();
    took
}

fn main() {
    for (members, what, place) in [
        ("A", "one node: remembered, signed, shown", "one sync of the disk, two signatures"),
        (
            "ABC",
            "three nodes in one process: wished, remembered, cosigned, counted, shown",
            "a sync on each node, four signatures, one or two verified; three threads share the machine's cores and its disk",
        ),
    ] {
        let took = measure(members);
        let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1000.0;
        println!(
            "{{\"group\":\"node\",\"what\":\"a checkpoint of {what}\",\"target\":\"–\",\
             \"measured\":\"p50 {:.3} ms, p99 {:.3} ms\",\"met\":null,\"where\":\"{place}\"}}",
            at(50),
            at(99)
        );
    }
}
