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
use ehe::checkpoint::VerifiedCheckpoint;
use ehe::id::{AllianceId, Hash, NodeId};
use ehe::identity::Identity;
use ehe::time::UnixMs;
use ehe_node::checkpoint::{
    Applied, Board, Checkpointed, Checkpointer, Line, Logged, MayOrder, Outbound, Published, Who, peers,
};
use ehe_node::clock::Clock;
use ehe_node::consensus::{Command, Machine, Position};
use ehe_node::cosign::CosignFile;
use ehe_node::shard::{Place, Recent, ShardMachine, Store, block_of_runs};
use ehe_node::stats::Stats;
use tokio::sync::watch;

#[path = "support/alliance.rs"]
mod alliance;
#[path = "support/disk.rs"]
mod disk;
#[path = "support/members.rs"]
mod members;
#[path = "support/people.rs"]
mod people;

use alliance::{Alliance, LIMIT, SHARDS, now};
use disk::{Disk, Unsynced};
use members::{Seat, seats};
use people::Patient;

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

/// One node of a shard's group: its machine, its disk for what it cosigned, its checkpointer on a thread.
struct Replica {
    who: Who,
    board: Arc<Board>,
    outbound: Outbound,
    machine: ShardMachine,
    cosigned: Disk,
    shown: watch::Receiver<Checkpointed>,
    may_order: MayOrder,
    stats: Arc<Stats>,
    working: std::thread::JoinHandle<()>,
    ears: Vec<tokio::task::JoinHandle<()>>,
}

impl Replica {
    /// With an empty state; `cosigned` is what it cosigned before.
    fn start(who: Who, leader: NodeId, cosigned: Disk) -> Self {
        let (charter, id) = (Arc::clone(&who.charter), who.id);
        let (board, outbound) = (Arc::new(Board::new(peers(&charter, id))), Outbound::new(peers(&charter, id)));
        let (alliance, shard_count) = (charter.alliance_id(), charter.shard_count());
        let store = Store::open_with_backend(Disk::default(), alliance, 0, 1 << 20).unwrap();
        let machine = ShardMachine::new(Place { alliance, shard_count, shard: 0 }, store.clone(), Arc::clone(&board));
        let machine = machine.unwrap();
        let (sender, shown) = watch::channel(Checkpointed::None);
        let (may_order, stats) = (MayOrder::default(), Arc::new(Stats::default()));
        let checkpointer = Checkpointer {
            who: who.clone(),
            file: CosignFile::open_with_backend(cosigned.clone(), alliance, id, 1).unwrap(),
            lines: BTreeMap::from([(0, Line { store, recent: machine.recent(), shown: sender })]),
            leader: Box::new(move |_| Some(leader)),
            outbound: outbound.clone(),
            evidence: Box::new(Logged),
            may_order: may_order.clone(),
            clock: Clock::system(),
            stats: Arc::clone(&stats),
        };
        let works = Arc::clone(&board);
        let working = std::thread::spawn(move || checkpointer.run(&works));
        Self { who, board, outbound, machine, cosigned, shown, may_order, stats, working, ears: Vec::new() }
    }

    fn apply(&mut self, index: u64, block: &[u8]) {
        let command = Command { position: Position { term: 1, index }, bytes: block.to_vec().into() };
        self.machine.apply(&[command], &[0; 64]).unwrap();
    }

    /// Carries what another says to it.
    fn hears(&mut self, (from, outbound): (NodeId, Outbound)) {
        let (board, to) = (Arc::clone(&self.board), self.who.id);
        let ear = tokio::spawn(async move {
            while let Some(message) = outbound.next(to).await {
                board.deliver(from, message);
            }
        });
        self.ears.push(ear);
    }

    fn mouth(&self) -> (NodeId, Outbound) {
        (self.who.id, self.outbound.clone())
    }

    async fn shows(&mut self, size: u64) -> Arc<Published> {
        until(&mut self.shown, |it| it.size() >= size).await;
        let Checkpointed::At(published) = self.shown.borrow().clone() else { panic!("it is fenced") };
        let verified = VerifiedCheckpoint::verify(&published.note, 0, &self.who.charter).unwrap();
        assert_eq!(verified.checkpoint().root, published.root);
        published
    }

    fn stop(self) -> Disk {
        self.ears.iter().for_each(tokio::task::JoinHandle::abort);
        self.board.stop();
        self.working.join().unwrap();
        self.cosigned.crash(Unsynced::Lost)
    }
}

fn group() -> Vec<Replica> {
    let who = |Seat { id, name, identity, charter }| Who { id, name, identity, charter };
    let seats: Vec<Who> = seats("ABC", None).into_iter().map(who).collect();
    let leader = seats[0].id;
    let mut replicas: Vec<_> = seats.into_iter().map(|who| Replica::start(who, leader, Disk::default())).collect();
    let mouths: Vec<_> = replicas.iter().map(Replica::mouth).collect();
    for to in &mut replicas {
        let id = to.who.id;
        mouths.iter().filter(|(from, _)| *from != id).for_each(|mouth| to.hears(mouth.clone()));
    }
    replicas
}

/// A new room: one leaf.
fn block(alliance: AllianceId) -> Vec<u8> {
    let owner = Identity::generate(&mut people::rng());
    let mut patient = Patient::new(&owner, alliance, (0, 1), now());
    let events = patient.opening(now());
    block_of_runs(now(), vec![patient.writer.run(&events)])
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_nodes_the_one_whose_disk_fails_signs_nothing_more_and_the_others_go_on() {
    let mut group = group();
    let alliance = group[0].who.charter.alliance_id();
    for index in 1..=3 {
        let block = block(alliance);
        group.iter_mut().for_each(|replica| replica.apply(index, &block));
        for replica in &mut group {
            replica.shows(index).await;
        }
    }
    group[1].cosigned.fail_now();
    for index in 4..=6 {
        let block = block(alliance);
        group.iter_mut().for_each(|replica| replica.apply(index, &block));
        until(&mut group[1].shown, |it| matches!(it, Checkpointed::Fenced)).await;
        for n in [0, 2] {
            let published = group[n].shows(index).await;
            assert!(!published.cosigners.contains(&group[1].who.id), "what is not remembered is not signed");
        }
    }
    assert!(!group[1].may_order.may_order(0) && group[0].may_order.may_order(0));
    assert_eq!(group[1].stats.fenced.load(Ordering::Relaxed), 1);
    for replica in group {
        let (id, size) = (replica.who.id, replica.shown.borrow().size());
        let file = CosignFile::open_with_backend(replica.stop(), alliance, id, 1).unwrap();
        assert!(file.newest(0).unwrap().size >= size.max(3), "what it signed is remembered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_with_an_older_state_than_it_cosigned_catches_up_and_cosigns_again() {
    let mut group = group();
    let alliance = group[0].who.charter.alliance_id();
    let mut blocks = Vec::new();
    for index in 1..=5 {
        blocks.push(block(alliance));
        group.iter_mut().for_each(|replica| replica.apply(index, blocks.last().unwrap()));
        for replica in &mut group {
            replica.shows(index).await;
        }
    }
    let (last, leader) = (group.pop().unwrap(), group[0].who.id);
    let who = last.who.clone();
    let cosigned = last.stop();
    let mut last = Replica::start(who, leader, cosigned);
    for other in &mut group {
        last.hears(other.mouth());
        other.hears(last.mouth());
    }
    // The second one is gone: nothing more stands without the one that comes back.
    let gone = group.remove(1).stop();
    blocks.push(block(alliance));
    group[0].apply(6, &blocks[5]);
    for (index, block) in (1..).zip(&blocks) {
        last.apply(index, block);
    }
    let published = group[0].shows(6).await;
    assert!(published.cosigners.contains(&last.who.id));
    last.shows(6).await;
    drop(gone);
    last.stop();
}
