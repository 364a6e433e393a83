//! A node whose disk altered something: it notices, leads and tells no more of that shard, and has it again from the others.

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
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use certs::{Connection, Credentials, Role};
use ehe::id::{Hash, NodeId, Nonce, RoomId};
use ehe::refusal::Refusal;
use ehe::wire::{NodeStatus, Request, Response, ScrubStatus};
use ehe_node::backup::{Chain, rehearse, save};
use ehe_node::clock::Clock;
use ehe_node::daemon::Daemon;
use ehe_node::verify::{Progress, Report, verify};

#[path = "support/hospitals.rs"]
mod hospitals;
#[path = "support/people.rs"]
mod people;

use hospitals::{Hospitals, ask};

pub const LIMIT: Duration = Duration::from_secs(60);

fn now() -> ehe::time::UnixMs {
    Clock::system().now()
}

/// Three hospitals and a room with some runs in it.
struct Scene {
    hospitals: Hospitals,
    owner: Credentials,
    patient: people::Patient,
    sealer: people::Sealer,
    /// A part of the body of each run's event, which the patient knows.
    bodies: Vec<Vec<u8>>,
    leaves: Vec<Hash>,
}

impl Scene {
    fn new() -> Self {
        Self::of(3)
    }

    fn of(hospitals: usize) -> Self {
        let hospitals = Hospitals::new(hospitals, "");
        let owner = hospitals.person("patient", Role::Patient);
        let patient = people::Patient::new(owner.identity(), hospitals.charter().alliance_id(), (0, 1), now());
        let sealer = people::Sealer::new(owner.identity(), &patient, now());
        Self { hospitals, owner, patient, sealer, bodies: Vec::new(), leaves: Vec::new() }
    }

    /// Looking through everything again and again, at `events_per_s`.
    async fn start(&self, n: usize, events_per_s: u64) -> Daemon {
        self.start_after(n, events_per_s, 1).await
    }

    /// The same, so many seconds after it was last looked through.
    async fn start_after(&self, n: usize, events_per_s: u64, every_s: u64) -> Daemon {
        let mut config = self.hospitals.config(n);
        config.scrub.events_per_s = events_per_s;
        config.scrub.every_s = every_s;
        Daemon::start(config, Clock::system()).await.unwrap()
    }

    async fn status(&self, n: usize) -> NodeStatus {
        self.hospitals.status(&self.owner, n).await
    }

    /// Who leads, as a node knows.
    async fn leader(&self, n: usize) -> NodeId {
        self.until(n, "somebody leads", |_, status| status.shards[0].leader.is_some()).await.shards[0].leader.unwrap()
    }

    /// Waits until the scrub of a node is so.
    async fn until(&self, n: usize, what: &str, holds: impl Fn(&ScrubStatus, &NodeStatus) -> bool) -> NodeStatus {
        let asking = async {
            loop {
                let status = self.status(n).await;
                if status.scrub.iter().flatten().any(|scrub| holds(scrub, &status)) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(LIMIT, asking).await {
            Ok(status) => status,
            Err(_) => {
                let mut all = Vec::new();
                for n in 0..3 {
                    all.push(self.status(n).await);
                }
                panic!("never on node {n}: {what}; {all:#?}")
            }
        }
    }

    /// Hands a run in, to whoever of these leads.
    async fn submit(&mut self, events: &[ehe::event::CheckedEvent], among: &[usize]) {
        let run = Request::Submit(self.patient.writer.run(events));
        let mut links = Vec::new();
        for n in among {
            links.push(self.hospitals.connect(&self.owner, *n).await);
        }
        let asking = async {
            loop {
                for (_, connection) in &links {
                    match ask(connection, &run).await {
                        Response::Submitted(submitted) => return submitted.receipt.leaf.hash(),
                        Response::Known(known) => return known[0].receipt.leaf.hash(),
                        Response::AskNode(_)
                        | Response::Refused(Refusal::NoLeader | Refusal::Overloaded | Refusal::StorageFault) => {}
                        other => panic!("{other:?}"),
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        self.leaves.push(tokio::time::timeout(LIMIT, asking).await.expect("a receipt"));
    }

    async fn write(&mut self, runs: usize, among: &[usize]) {
        if self.leaves.is_empty() {
            let opening = self.patient.opening(now());
            self.submit(&opening, among).await;
            let wrap = self.sealer.wrap.clone();
            self.submit(&[wrap], among).await;
        }
        for n in 0..runs {
            let event = self.sealer.seal(&[n.to_le_bytes()[0]; 700]);
            self.bodies.push(event.body()[200..230].to_vec());
            self.submit(&[event], among).await;
        }
    }

    fn file(&self, n: usize) -> std::path::PathBuf {
        self.hospitals.path(&format!("data{n}")).join("shard-0000.redb")
    }

    fn verified(&self, n: usize) -> Report {
        verify(&self.hospitals.path(&format!("data{n}")), 1, &Progress::default()).unwrap()
    }

    /// Everything is the same on all three, and all of it is there.
    fn assert_sound(&self) {
        for n in 0..3 {
            let report = self.verified(n);
            assert!(report.is_sound(), "node {n}: {report}");
            let shard = report.files.iter().find(|file| file.file == "shard-0000.redb").unwrap();
            assert_eq!(shard.entries, self.leaves.len() as u64, "node {n}: {report}");
        }
    }
}

fn places(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    (0..=bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect()
}

/// Alters a byte of the file wherever this stands.
fn alter(path: &Path, needle: &[u8]) {
    use std::os::unix::fs::FileExt;
    let bytes = std::fs::read(path).unwrap();
    let found = places(&bytes, needle);
    assert!(!found.is_empty());
    let file = std::fs::File::options().write(true).open(path).unwrap();
    for at in found {
        file.write_all_at(&[bytes[at + 5] ^ 8], at as u64 + 5).unwrap();
    }
}

async fn heard(connection: &Connection, room: RoomId) -> Response {
    ask(connection, &Request::Head(room, Nonce(people::random()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disk_altered_while_its_node_was_stopped_is_noticed_held_had_again_and_told_again() {
    let mut scene = Scene::new();
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(scene.start(n, 100_000).await);
    }
    scene.write(40, &[0, 1, 2]).await;
    for node in nodes {
        node.stop().await.unwrap();
    }
    alter(&scene.file(2), &scene.bodies[12]);
    alter(&scene.file(2), &scene.bodies[30]);
    // Before it is noticed a backup is taken, and shows what it is worth; afterwards none is taken.
    let unaware = [scene.start_after(2, 1, 3_600).await, scene.start_after(0, 1, 3_600).await];
    let (data, file) = (scene.hospitals.path("data2"), scene.hospitals.path("unaware"));
    let saved = {
        let file = file.clone();
        tokio::task::spawn_blocking(move || save(&data, &file, None, 64 << 20)).await.unwrap()
    };
    saved.unwrap();
    let chain = Chain::open(&[file], None).unwrap();
    let rehearsed = rehearse(&chain, &scene.hospitals.path("")).unwrap_err().to_string();
    assert!(rehearsed.contains("shard 0"), "{rehearsed}");
    for node in unaware {
        node.stop().await.unwrap();
    }
    let report = scene.verified(2);
    assert!(report.to_string().contains("entry 14: it is not the entry that the log's tree has"), "{report}");
    // With nobody to ask, it tells nothing of the shard.
    let alone = scene.start(2, 100_000).await;
    let status = scene.until(2, "it is held", |scrub, _| scrub.held && scrub.ended.is_some()).await;
    let scrub = &status.scrub.unwrap()[0];
    assert!(status.shards[0].faulted && scrub.found >= 2, "{scrub:?}");
    assert!(scrub.first.as_ref().unwrap().contains("entry 14"), "{scrub:?}");
    let (_client, connection) = scene.hospitals.connect(&scene.owner, 2).await;
    assert_eq!(heard(&connection, scene.patient.room).await, Response::Refused(Refusal::StorageFault));
    let (data, file) = (scene.hospitals.path("data2"), scene.hospitals.path("aware"));
    let saved = tokio::task::spawn_blocking(move || save(&data, &file, None, 64 << 20)).await.unwrap();
    assert!(saved.unwrap_err().to_string().contains("is held on this node"));
    alone.stop().await.unwrap();
    // It knows that after a restart, before it has looked again; and the others go on without it.
    let nodes = [scene.start(2, 1).await, scene.start(0, 100_000).await, scene.start(1, 100_000).await];
    scene.write(5, &[0, 1, 2]).await;
    scene
        .until(2, "it is sound again", |scrub, status| scrub.found == 0 && !scrub.held && !status.shards[0].faulted)
        .await;
    scene.write(5, &[0, 1, 2]).await;
    // It leads like any other: with one of the others gone, it makes the majority.
    let [third, first, second] = nodes;
    first.stop().await.unwrap();
    scene.write(3, &[1, 2]).await;
    let first = scene.start(0, 100_000).await;
    scene.write(1, &[0, 1, 2]).await;
    let size = scene.leaves.len() as u64;
    for n in 0..3 {
        scene.until(n, "it has all", |_, status| status.shards[0].leaves == size).await;
    }
    for node in [first, second, third] {
        node.stop().await.unwrap();
    }
    scene.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leads_and_finds_its_disk_altered_leads_no_more_until_it_has_all_again() {
    let mut scene = Scene::new();
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(scene.start(n, 100_000).await);
    }
    scene.write(60, &[0, 1, 2]).await;
    futures::future::join_all(nodes.into_iter().map(Daemon::stop)).await;
    alter(&scene.file(1), &scene.bodies[45]);
    let altered = now();
    // They begin again, and do not look at it for a while, until the one that is damaged leads.
    let mut nodes = BTreeMap::new();
    for n in 0..3 {
        nodes.insert(n, scene.start_after(n, 100_000, 25).await);
    }
    let (leads, leader) = (1, scene.hospitals.id(1));
    while scene.leader(0).await != leader {
        let led = scene.leader(1).await;
        let other = if scene.hospitals.id(2) == led { 2 } else { 0 };
        nodes.remove(&other).unwrap().stop().await.unwrap();
        nodes.insert(other, scene.start_after(other, 100_000, 25).await);
    }
    let others: Vec<usize> = (0..3).filter(|n| *n != leads).collect();
    let by_another = |status: &NodeStatus| status.shards[0].leader.is_some_and(|now| now != leader);
    scene.until(others[0], "another leads", |_, status| by_another(status)).await;
    scene.write(10, &[0, 1, 2]).await;
    // A pass from before knew nothing of it.
    let again =
        |scrub: &ScrubStatus| scrub.found == 0 && !scrub.held && scrub.ended.is_some_and(|ended| ended > altered);
    scene.until(leads, "it is sound again", |scrub, _| again(scrub)).await;
    scene.write(2, &[0, 1, 2]).await;
    let size = scene.leaves.len() as u64;
    for n in 0..3 {
        scene.until(n, "it has all", |_, status| status.shards[0].leaves == size).await;
    }
    futures::future::join_all(nodes.into_values().map(Daemon::stop)).await;
    scene.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_more_than_entries_is_damaged_the_next_start_takes_the_state_from_another_node() {
    let mut scene = Scene::new();
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(scene.start(n, 100_000).await);
    }
    scene.write(40, &[0, 1, 2]).await;
    nodes.pop().unwrap().stop().await.unwrap();
    // A leaf's hash: of the tree, not of an entry.
    alter(&scene.file(2), scene.leaves[20].as_bytes());
    let third = scene.start(2, 100_000).await;
    scene.until(2, "it is held", |scrub, _| scrub.held && scrub.ended.is_some()).await;
    scene.write(3, &[0, 1]).await;
    third.stop().await.unwrap();
    let (told, mut config) = (AtomicU64::new(0), scene.hospitals.config(2));
    (config.scrub.events_per_s, config.scrub.every_s) = (100_000, 1);
    let goes_on = || {
        told.fetch_add(1, Ordering::SeqCst);
    };
    let third = Daemon::start_telling(config, Clock::system(), &goes_on).await.unwrap();
    assert!(told.load(Ordering::SeqCst) > 0, "whoever started it heard that this takes longer");
    scene
        .until(2, "it is sound again", |scrub, status| {
            scrub.found == 0 && scrub.ended.is_some() && !status.shards[0].faulted
        })
        .await;
    // And a file that does not even open.
    third.stop().await.unwrap();
    std::fs::write(scene.file(2), b"nothing of what was here").unwrap();
    nodes.push(scene.start(2, 100_000).await);
    scene.write(3, &[0, 1, 2]).await;
    nodes.remove(0).stop().await.unwrap();
    scene.write(3, &[1, 2]).await;
    nodes.insert(0, scene.start(0, 100_000).await);
    let size = scene.leaves.len() as u64;
    for n in 0..3 {
        scene.until(n, "it has all", |_, status| status.shards[0].leaves == size).await;
    }
    for node in nodes {
        node.stop().await.unwrap();
    }
    scene.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_alone_and_forgot_what_it_found_leads_again_once_it_has_looked_through_its_shards() {
    let mut scene = Scene::of(1);
    let node = scene.start(0, 1_000_000).await;
    scene.write(3, &[0]).await;
    scene.until(0, "it was looked through", |scrub, _| scrub.ended.is_some()).await;
    node.stop().await.unwrap();
    let memory = scene.file(0).with_file_name("scrub");
    std::fs::write(&memory, b"not what it wrote").unwrap();
    let node = scene.start(0, 1_000_000).await;
    scene.write(3, &[0]).await;
    node.stop().await.unwrap();
}
