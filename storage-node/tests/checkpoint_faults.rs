//! Checkpoints when the file of what was cosigned fails under them.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use certs::Credentials;
use ehe::id::Hash;
use ehe::time::UnixMs;
use ehe_node::checkpoint::{Applied, Board, Checkpointed, Checkpointer, Line, Logged, MayOrder, Outbound, Who};
use ehe_node::clock::Clock;
use ehe_node::cosign::CosignFile;
use ehe_node::shard::{Recent, Store};
use ehe_node::stats::Stats;
use tokio::sync::watch;

#[path = "support/alliance.rs"]
mod alliance;
#[path = "support/disk.rs"]
mod disk;

use alliance::{Alliance, LIMIT, SHARDS};
use disk::{Disk, Unsynced};

async fn until(shown: &mut watch::Receiver<Checkpointed>, what: impl FnMut(&Checkpointed) -> bool) {
    tokio::time::timeout(LIMIT, shown.wait_for(what)).await.expect("it is shown in time").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cosigned_file_that_fails_signs_nothing_more_of_any_shard_and_what_was_signed_is_remembered() {
    let alliance = Alliance::new();
    let credentials = Credentials::load(&alliance.path("node")).unwrap();
    let (charter, node) = (Arc::new(credentials.charter().clone()), credentials.peer().node().unwrap());
    let id = charter.alliance_id();
    let disk = Disk::default();
    let (mut lines, mut shown) = (BTreeMap::new(), Vec::new());
    for shard in 0..SHARDS {
        let store = Store::open_with_backend(Disk::default(), id, shard, 1 << 20).unwrap();
        let (sender, receiver) = watch::channel(Checkpointed::None);
        lines.insert(shard, Line { store, recent: Recent::default(), shown: sender });
        shown.push(receiver);
    }
    let stats = Arc::new(Stats::default());
    let checkpointer = Checkpointer {
        who: Who {
            id: node,
            name: charter.node(node).unwrap().name.clone(),
            identity: Arc::new(credentials.identity().clone()),
            charter: Arc::clone(&charter),
        },
        file: CosignFile::open_with_backend(disk.clone(), id, node, SHARDS).unwrap(),
        lines,
        leader: Box::new(|_| panic!("a group of one has no other leader")),
        outbound: Outbound::default(),
        evidence: Box::new(Logged),
        may_order: MayOrder::default(),
        clock: Clock::system(),
        stats: Arc::clone(&stats),
    };
    let board = Arc::new(Board::default());
    let working = {
        let board = Arc::clone(&board);
        std::thread::spawn(move || checkpointer.run(&board))
    };
    let first = Applied { size: 1, root: Hash([1; 32]), incarnation: 0, rooms: 1, time: UnixMs(0) };
    board.show(0, first);
    until(&mut shown[0], |it| it.size() == 1).await;
    disk.fail_now();
    board.show(1, first);
    until(&mut shown[1], |it| matches!(it, Checkpointed::Fenced)).await;
    // The file serves all shards: the other one, whose checkpoint stays valid, gets no further one.
    board.show(0, Applied { incarnation: 1, ..first });
    until(&mut shown[0], |it| matches!(it, Checkpointed::Fenced)).await;
    assert_eq!((stats.checkpoints.load(Ordering::Relaxed), stats.fenced.load(Ordering::Relaxed)), (1, 2));
    board.stop();
    working.join().unwrap();
    let file = CosignFile::open_with_backend(disk.crash(Unsynced::Lost), id, node, SHARDS).unwrap();
    assert_eq!(file.newest(0).map(|cosigned| cosigned.root), Some(first.root));
}
