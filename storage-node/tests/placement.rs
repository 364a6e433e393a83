//! Shards that move while somebody writes: nodes of several hospitals in this process, on real ports.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use certs::{Client, Connection, Credentials, Lane, NodeDialer, Role};
use ehe::charter::{CharterChain, SignedCharter};
use ehe::checkpoint::{Checkpoint, VerifiedCheckpoint};
use ehe::id::{NodeId, Nonce, RoomId};
use ehe::ledger::verify_head;
use ehe::note::Note;
use ehe::refusal::Refusal;
use ehe::wire::{NodeStatus, Request, Response, Submission};
use ehe_node::backup::save;
use ehe_node::charters::{CharterFault, Charters};
use ehe_node::daemon::Daemon;
use ehe_node::peers::Kind;
use tokio_util::sync::CancellationToken;

#[path = "support/hospitals.rs"]
mod hospitals;
#[path = "support/people.rs"]
mod people;

use hospitals::{Hospitals, asked};

pub const LIMIT: Duration = Duration::from_secs(60);

fn now() -> ehe::time::UnixMs {
    ehe_node::clock::Clock::system().now()
}

fn placed(nodes: &[usize]) -> String {
    let names: Vec<_> = nodes.iter().map(|n| format!("'node{n}.example'")).collect();
    format!("[placement]\neverywhere = [{}]\n", names.join(", "))
}

/// Waits until node `n` says that shard 0 lives on these nodes under a charter of this version.
async fn lives_on(hospitals: &Hospitals, who: &Credentials, n: usize, version: u32, nodes: &[usize]) -> NodeStatus {
    let wanted: BTreeSet<NodeId> = nodes.iter().map(|n| hospitals.id(*n)).collect();
    let mut last = None;
    let waiting = async {
        loop {
            let status = hospitals.status(who, n).await;
            let group = &status.groups.as_ref().unwrap()[0];
            let voters: BTreeSet<NodeId> = group.nodes.iter().filter(|it| it.votes).map(|it| it.node).collect();
            // Any node answers for all, once they have told each other how they are.
            let heard = group.nodes.iter().all(|it| it.applied.is_some());
            if group.charter == version && voters == wanted && group.doing.is_none() && heard {
                return status;
            }
            last = Some(status);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(LIMIT, waiting).await {
        Ok(status) => status,
        Err(_) => panic!("node {n} does not say that the shard moved: {last:?}"),
    }
}

/// Somebody who writes all the time, and asks whoever is said to lead.
struct Writing {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    room: RoomId,
    task: tokio::task::JoinHandle<(people::Patient, Vec<u32>, Duration)>,
}

/// Finds its way from node to node.
struct Way {
    hospitals: Arc<Hospitals>,
    owner: Credentials,
    nodes: Vec<usize>,
    at: usize,
    open: Option<(Client, Connection)>,
}

impl Way {
    fn go(&mut self, n: usize) {
        self.at = n;
        self.open = None;
    }

    /// Submits until somebody has taken it in. The version of the charter under which the receipt stands.
    async fn submitted(&mut self, run: Submission) -> u32 {
        let request = Request::Submit(run);
        let note = tokio::time::timeout(LIMIT, self.asking(&request)).await.expect("somebody takes it in");
        let version = Checkpoint::parse(&Note::parse(&note).unwrap()).unwrap().charter_version;
        VerifiedCheckpoint::verify(&note, 0, &self.hospitals.charter_of(version)).unwrap();
        version
    }

    async fn asking(&mut self, request: &Request) -> String {
        loop {
            if self.open.is_none() {
                self.open = self.hospitals.try_connect(&self.owner, self.at).await;
            }
            let answer = match &self.open {
                Some((_, connection)) => asked(connection, request).await,
                None => None,
            };
            match answer {
                Some(Response::Submitted(submitted)) => return submitted.receipt.checkpoint,
                Some(Response::Known(known)) => return known[0].receipt.checkpoint.clone(),
                Some(Response::AskNode(node)) => {
                    let n = (0..).find(|n| self.hospitals.id(*n) == node).unwrap();
                    self.go(n);
                }
                Some(Response::Refused(Refusal::NoLeader | Refusal::Overloaded | Refusal::Stopping)) | None => {
                    let next =
                        self.nodes.iter().position(|n| *n == self.at).map_or(0, |at| (at + 1) % self.nodes.len());
                    self.go(self.nodes[next]);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Writing {
    /// Asks these nodes, and those that they name.
    fn start(hospitals: &Arc<Hospitals>, owner: &Credentials, nodes: &[usize]) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted, hospitals) = (Arc::clone(&stop), Arc::clone(&count), Arc::clone(hospitals));
        let alliance = hospitals.charter().alliance_id();
        let mut patient = people::Patient::new(owner.identity(), alliance, (0, 1), now());
        let (events, room) = (patient.opening(now()), patient.room);
        let opening = patient.writer.run(&events);
        let sealer = people::Sealer::new(owner.identity(), &patient, now());
        let wrap = patient.writer.run(std::slice::from_ref(&sealer.wrap));
        let mut way = Way { hospitals, owner: owner.clone(), nodes: nodes.to_vec(), at: nodes[0], open: None };
        let task = tokio::spawn(async move {
            let (mut versions, mut longest) = (Vec::new(), Duration::ZERO);
            for run in [opening, wrap] {
                versions.push(way.submitted(run).await);
                counted.fetch_add(1, Ordering::SeqCst);
            }
            while !stopped.load(Ordering::SeqCst) {
                let run = patient.writer.run(&[sealer.seal(b"72")]);
                let since = std::time::Instant::now();
                versions.push(way.submitted(run).await);
                longest = longest.max(since.elapsed());
                counted.fetch_add(1, Ordering::SeqCst);
            }
            (patient, versions, longest)
        });
        Self { stop, count, room, task }
    }

    /// Waits for so many more.
    async fn more(&self, runs: u64) {
        let until = self.count.load(Ordering::SeqCst) + runs;
        let waiting = async {
            while self.count.load(Ordering::SeqCst) < until {
                assert!(!self.task.is_finished(), "the writer stopped");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("writes go on");
    }

    async fn end(self) -> (people::Patient, Vec<u32>, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

/// Entries that a node has of the room, once it has `entries`.
async fn has_all(hospitals: &Hospitals, owner: &Credentials, n: usize, patient: &people::Patient, entries: usize) {
    let waiting = async {
        loop {
            let (_client, connection) = hospitals.connect(owner, n).await;
            if let Some(Response::Rooms(rooms)) = asked(&connection, &Request::RoomsOf).await
                && let Some(room) = rooms.iter().find(|room| room.room == patient.room)
            {
                assert_eq!(room.entries, entries as u64, "each once");
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("the node has the room");
}

async fn stop(nodes: impl IntoIterator<Item = Daemon>) {
    for node in nodes {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alliance_grows_from_one_node_to_three_and_back_to_another_one_while_somebody_writes() {
    let hospitals = Arc::new(Hospitals::new(3, &placed(&[0])));
    let owner = hospitals.person("patient", Role::Patient);
    let mut nodes = vec![hospitals.start(0).await];
    // The new ones are there before their charter is: they wait, and say who has what they are asked for.
    nodes.push(hospitals.start(1).await);
    nodes.push(hospitals.start(2).await);
    let writing = Writing::start(&hospitals, &owner, &[2, 0, 1]);
    writing.more(20).await;

    // The operator of one node gives it the charter; the others hear of it from that one.
    hospitals.next(&placed(&[0, 1, 2]), &[0]);
    let grown = lives_on(&hospitals, &owner, 0, 2, &[0, 1, 2]).await;
    writing.more(20).await;
    for n in 0..3 {
        let status = lives_on(&hospitals, &owner, n, 2, &[0, 1, 2]).await;
        assert_eq!(status.charter_version, 2);
    }
    assert!(grown.groups.unwrap()[0].leader.is_some());

    // Back to one, another one than it began with.
    hospitals.next(&placed(&[2]), &[1]);
    lives_on(&hospitals, &owner, 2, 3, &[2]).await;
    writing.more(20).await;
    let third = nodes.pop().unwrap();
    stop(nodes).await;
    writing.more(20).await;
    let (patient, versions, longest) = writing.end().await;
    assert!(versions.is_sorted() && versions.first() == Some(&1) && versions.last() == Some(&3), "{versions:?}");
    assert!(longest < Duration::from_secs(15), "{longest:?}");
    has_all(&hospitals, &owner, 2, &patient, versions.len()).await;
    // It knows by its own disk what is in effect.
    third.stop().await.unwrap();
    let third = hospitals.start(2).await;
    lives_on(&hospitals, &owner, 2, 3, &[2]).await;
    has_all(&hospitals, &owner, 2, &patient, versions.len()).await;
    third.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_moves_to_other_nodes_whoever_is_stopped_in_the_middle() {
    let hospitals = Arc::new(Hospitals::new(4, &placed(&[0, 1, 2])));
    let owner = hospitals.person("patient", Role::Patient);
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(Some(hospitals.start(n).await));
    }
    let writing = Writing::start(&hospitals, &owner, &[0, 1, 2]);
    writing.more(10).await;
    // The new node is not there yet: nothing moves, and nothing waits for that.
    hospitals.next(&placed(&[3, 1, 2]), &[1]);
    writing.more(20).await;
    let waits = async {
        loop {
            let status = hospitals.status(&owner, 1).await;
            let group = &status.groups.as_ref().unwrap()[0];
            if group.doing.as_ref().is_some_and(|doing| doing.contains("waits until the log is on")) {
                assert_eq!(group.charter, 1);
                return group.leader.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let leader = tokio::time::timeout(LIMIT, waits).await.expect("it says what it waits for");
    // Who leads stops in the middle, and comes back.
    let n = (0..3).find(|n| hospitals.id(*n) == leader).unwrap();
    nodes[n].take().unwrap().stop().await.unwrap();
    nodes[n] = Some(hospitals.start(n).await);
    nodes.push(Some(hospitals.start(3).await));
    lives_on(&hospitals, &owner, 3, 2, &[1, 2, 3]).await;
    let (patient, versions, _) = writing.end().await;
    // Whom the charter let go says who has the room; whoever has it has all of it.
    let (_client, connection) = hospitals.connect(&owner, 0).await;
    let head = Request::Head(patient.room, ehe::id::Nonce([1; 16]));
    let mut last = None;
    let asked_elsewhere = async {
        loop {
            last = asked(&connection, &head).await;
            if matches!(last, Some(Response::AskNode(node)) if node != hospitals.id(0)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let elsewhere = tokio::time::timeout(LIMIT, asked_elsewhere).await;
    assert!(elsewhere.is_ok(), "it does not point to a node of the new group: {last:?}");
    nodes[0].take().unwrap().stop().await.unwrap();
    for n in 1..4 {
        has_all(&hospitals, &owner, n, &patient, versions.len()).await;
    }
    stop(nodes.into_iter().flatten()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn charters_that_come_close_together_are_carried_out_one_after_the_other() {
    let hospitals = Arc::new(Hospitals::new(3, &placed(&[0])));
    let owner = hospitals.person("patient", Role::Patient);
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(hospitals.start(n).await);
    }
    let writing = Writing::start(&hospitals, &owner, &[0, 1, 2]);
    writing.more(5).await;
    hospitals.next(&placed(&[0, 1, 2]), &[]);
    hospitals.next(&placed(&[1]), &[]);
    hospitals.next(&format!("{}[permissions]\nread = ['patient', 'clinician']\n", placed(&[1])), &[2]);
    lives_on(&hospitals, &owner, 0, 4, &[1]).await;
    writing.more(5).await;
    let (patient, versions, _) = writing.end().await;
    assert!(versions.is_sorted(), "{versions:?}");
    has_all(&hospitals, &owner, 1, &patient, versions.len()).await;
    stop(nodes).await;
}

/// The file of a node's shard 0, as the file system counts it.
fn file(hospitals: &Hospitals, n: usize) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(hospitals.path(&format!("data{n}/shard-0000.redb"))).unwrap().ino()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_was_let_go_and_lost_its_disk_holds_nothing_and_answers_so() {
    let hospitals = Arc::new(Hospitals::new(4, &placed(&[0, 1, 2])));
    let owner = hospitals.person("patient", Role::Patient);
    let mut nodes = Vec::new();
    for n in 0..4 {
        nodes.push(hospitals.start(n).await);
    }
    let writing = Writing::start(&hospitals, &owner, &[0, 1, 3]);
    writing.more(1).await;
    hospitals.next(&placed(&[0, 1, 3]), &[0, 2]);
    lives_on(&hospitals, &owner, 0, 2, &[0, 1, 3]).await;
    nodes.remove(2).stop().await.unwrap();
    drop(hospitals.free_port(2).await);
    std::fs::remove_dir_all(hospitals.path("data2")).unwrap();
    let empty = hospitals.start(2).await;
    // Before and after it has heard of the others.
    let none = |status: &NodeStatus| assert!(status.shards.is_empty(), "{:?}", status.shards);
    none(&hospitals.status(&owner, 2).await);
    none(&lives_on(&hospitals, &owner, 2, 2, &[0, 1, 3]).await);
    let (_client, connection) = hospitals.connect(&owner, 2).await;
    let rooms = asked(&connection, &Request::RoomsOf).await;
    assert!(matches!(&rooms, Some(Response::Rooms(rooms)) if rooms.is_empty()), "{rooms:?}");
    // So there is nothing to back up, and which charter says so is known.
    let (data_dir, to) = (hospitals.config(2).data_dir, hospitals.path("none.backup"));
    let saved = tokio::task::spawn_blocking(move || save(&data_dir, &to, None, 1 << 30)).await.unwrap().unwrap();
    assert_eq!((saved.leaves.len(), saved.newest.version()), (0, 2));
    drop(writing.end().await);
    nodes.push(empty);
    stop(nodes).await;
}

async fn start_forgetting(hospitals: &Hospitals, n: usize) -> Daemon {
    let mut config = hospitals.config(n);
    config.placement.keep_moved_s = 0;
    Daemon::start(config, ehe_node::clock::Clock::system()).await.unwrap()
}

async fn gives_up(hospitals: &Hospitals, n: usize, before: u64) {
    let going = async {
        while file(hospitals, n) == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, going).await.expect("it gives up what it has");
}

/// The shards that node `n` says it had and gave up, asked by another node.
async fn gave_up(hospitals: &Hospitals, n: usize, by: usize) -> Vec<u8> {
    let dialer = NodeDialer::new(&hospitals.credentials(by)).unwrap();
    let charter = hospitals.charter();
    let node = charter.node(hospitals.id(n)).unwrap();
    let mut exchange = dialer.open(node, Lane::Prompt, LIMIT).await.unwrap();
    exchange.send(&[Kind::Alliance.byte()], LIMIT).await.unwrap();
    // Version 1, a report of charter 1 and no shards.
    exchange.send(&[1, 0x82, 0, 0xa2, 0, 1, 1, 0x80], LIMIT).await.unwrap();
    exchange.finish().unwrap();
    let answer = exchange.recv(LIMIT).await.unwrap().unwrap();
    // Of its report member 2: a list of one small number.
    let at = answer.windows(2).rposition(|two| two == [2, 0x81]);
    at.map_or(Vec::new(), |at| vec![answer[at + 2]])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_has_of_a_shard_that_moved_away_is_removed_and_comes_again_when_the_shard_does() {
    let hospitals = Arc::new(Hospitals::new(2, &placed(&[0])));
    let owner = hospitals.person("patient", Role::Patient);
    let mut first = start_forgetting(&hospitals, 0).await;
    let second = hospitals.start(1).await;
    let writing = Writing::start(&hospitals, &owner, &[0, 1]);
    writing.more(20).await;
    let before = file(&hospitals, 0);
    hospitals.next(&placed(&[1]), &[0]);
    gives_up(&hospitals, 0, before).await;
    lives_on(&hospitals, &owner, 1, 2, &[1]).await;
    writing.more(20).await;
    // The one that founded the shard, and ordered it alone, knows that it is not its own: before and after it is started again.
    let room = ehe::id::RoomId([0; 16]);
    for _ in 0..2 {
        let (_client, connection) = hospitals.connect(&owner, 0).await;
        let said = asked(&connection, &Request::Head(room, ehe::id::Nonce([1; 16]))).await;
        assert!(matches!(said, Some(Response::AskNode(node)) if node == hospitals.id(1)), "{said:?}");
        let status = hospitals.status(&owner, 0).await;
        assert!(status.shards.is_empty() && status.moved.is_none(), "{status:?}");
        assert_eq!(gave_up(&hospitals, 0, 1).await, [0], "it says that a log was begun");
        first.stop().await.unwrap();
        first = start_forgetting(&hospitals, 0).await;
    }
    // Given again, it takes all of it and serves; the other one keeps its own for a while, and says so.
    hospitals.next(&placed(&[0]), &[1]);
    lives_on(&hospitals, &owner, 0, 3, &[0]).await;
    writing.more(20).await;
    let kept = async {
        loop {
            if let Some(moved) = hospitals.status(&owner, 1).await.moved {
                assert!(moved[0].shard == 0 && moved[0].leaves > 20, "{moved:?}");
                if moved[0].why.starts_with("kept for 3") {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, kept).await.expect("it says for how long it keeps it");
    second.stop().await.unwrap();
    writing.more(20).await;
    let (patient, versions, _) = writing.end().await;
    assert!(versions.is_sorted() && versions.last() == Some(&3), "{versions:?}");
    has_all(&hospitals, &owner, 0, &patient, versions.len()).await;
    first.stop().await.unwrap();
    let first = hospitals.start(0).await;
    has_all(&hospitals, &owner, 0, &patient, versions.len()).await;
    first.stop().await.unwrap();
}

#[test]
fn a_charter_that_too_few_have_signed_or_that_skips_one_is_not_taken_up_and_the_newest_outlives_its_file() {
    let hospitals = Hospitals::new(3, &placed(&[0]));
    let (_, first) = certs::store::load_charter(&hospitals.path("charter")).unwrap();
    hospitals.next(&placed(&[1]), &[]);
    hospitals.next(&placed(&[2]), &[]);
    let (_, all) = certs::store::load_charter(&hospitals.path("charter")).unwrap();
    let few = SignedCharter::unsigned(&all.0[1].read().unwrap()).unwrap();
    let data = hospitals.path("data");
    std::fs::create_dir(&data).unwrap();
    let charters = Charters::open(&hospitals.credentials(0), &data).unwrap();
    for bad in [vec![first.0[0].clone(), few], vec![first.0[0].clone(), all.0[2].clone()], all.0[1..].to_vec()] {
        charters.take_up(&CharterChain(bad)).unwrap_err();
        assert_eq!(charters.version(), 1);
    }
    assert!(charters.take_up(&all).unwrap());
    assert!(!charters.take_up(&first).unwrap(), "an older one is nothing new");
    // The credentials directory has charter 1 still; what was taken up is kept.
    assert_eq!(Charters::open(&hospitals.credentials(0), &data).unwrap().version(), 3);
    let other = Hospitals::new(3, &placed(&[0]));
    assert!(matches!(charters.take_up(&other.credentials(0).charter_chain().clone()), Err(CharterFault::Other(1))));
}

/// Asks a node over and over where a room ends, and verifies what it says as a reader does. How often it said it.
async fn heads(
    hospitals: Arc<Hospitals>,
    owner: Credentials,
    n: usize,
    room: RoomId,
    stop: CancellationToken,
) -> usize {
    let (mut said, mut open) = (0, None);
    while !stop.is_cancelled() {
        if open.is_none() {
            open = hospitals.try_connect(&owner, n).await;
        }
        let nonce = Nonce([7; 16]);
        let answer = match &open {
            Some((_, connection)) => asked(connection, &Request::Head(room, nonce)).await,
            None => None,
        };
        match answer {
            Some(Response::Head(head)) => {
                let version = VerifiedCheckpoint::charter_of(&head.last.checkpoint).unwrap();
                let verified = verify_head(room, &head, nonce, &hospitals.charter_of(version));
                assert!(verified.is_ok(), "node {n} under charter {version}: {verified:?}");
                said += 1;
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            None => open = None,
        }
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_where_a_room_ends_while_its_shard_moves_is_in_the_charter_that_the_checkpoint_names() {
    let hospitals = Arc::new(Hospitals::new(4, &placed(&[0, 1, 2])));
    let owner = hospitals.person("patient", Role::Patient);
    let mut nodes = Vec::new();
    for n in 0..4 {
        nodes.push(hospitals.start(n).await);
    }
    let writing = Writing::start(&hospitals, &owner, &[0, 1, 2]);
    writing.more(10).await;
    let stop_asking = CancellationToken::new();
    let asking = [0, 1, 3]
        .map(|n| tokio::spawn(heads(Arc::clone(&hospitals), owner.clone(), n, writing.room, stop_asking.clone())));
    writing.more(10).await;
    // There and back again: each of two nodes comes once and goes once.
    for (version, group) in [(2, [3, 1, 2]), (3, [0, 1, 2])] {
        hospitals.next(&placed(&group), &[1]);
        let mut sorted = group;
        sorted.sort_unstable();
        lives_on(&hospitals, &owner, 1, version, &sorted).await;
        writing.more(10).await;
    }
    stop_asking.cancel();
    for asking in asking {
        assert!(asking.await.unwrap() > 0);
    }
    writing.end().await;
    stop(nodes).await;
}
