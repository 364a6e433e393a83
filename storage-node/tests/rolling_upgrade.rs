//! A rolling upgrade: nodes whose programs know different rules versions, and a charter that raises the one in force.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Duration;

use certs::{Credentials, Role};
use ehe::charter::{SignedCharter, VerifiedCharter};
use ehe::id::Hash;
use ehe::refusal::Refusal;
use ehe::wire::{GroupStatus, NodeStatus, Request, Response, Submission};
use ehe_node::clock::Clock;
use ehe_node::commands::may_raise;
use ehe_node::consensus::GroupId;
use ehe_node::daemon::Daemon;

#[path = "support/hospitals.rs"]
mod hospitals;
#[path = "support/people.rs"]
mod people;

use hospitals::{Hospitals, asked};

pub const LIMIT: Duration = Duration::from_secs(60);

fn now() -> ehe::time::UnixMs {
    Clock::system().now()
}

/// A node whose program knows the rules up to this version.
async fn start(hospitals: &Hospitals, n: usize, knows: u16) -> Daemon {
    drop(hospitals.free_port(n).await);
    Daemon::start_knowing(hospitals.config(n), Clock::system(), &|| {}, knows).await.unwrap()
}

/// Waits until node `n` says something of the shard.
async fn said(hospitals: &Hospitals, who: &Credentials, n: usize, what: impl Fn(&GroupStatus) -> bool) -> NodeStatus {
    let mut last = None;
    let waiting = async {
        loop {
            if let Some(status) = hospitals.try_status(who, n).await {
                if what(&status.groups.as_ref().unwrap()[0]) {
                    return status;
                }
                last = Some(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(LIMIT, waiting).await {
        Ok(status) => status,
        Err(_) => panic!("node {n} says: {last:?}"),
    }
}

/// Submits to whoever takes it; with a receipt that a quorum cosigned.
async fn submitted(hospitals: &Hospitals, who: &Credentials, nodes: &[usize], run: Submission) {
    let request = Request::Submit(run);
    let submitting = async {
        for n in nodes.iter().cycle() {
            if let Some((_client, connection)) = hospitals.try_connect(who, *n).await {
                match asked(&connection, &request).await {
                    Some(Response::Submitted(_) | Response::Known(_)) => return,
                    Some(Response::AskNode(_) | Response::Refused(Refusal::NoLeader | Refusal::Stopping)) | None => {}
                    other => panic!("{other:?}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, submitting).await.expect("somebody takes it in");
}

/// A node's root of the log's first `size` leaves, once it has as many.
async fn root_of(hospitals: &Hospitals, who: &Credentials, n: usize, size: u64) -> Hash {
    let asking = async {
        loop {
            if let Some((_client, connection)) = hospitals.try_connect(who, n).await
                && let Some(Response::Extends(root, _)) = asked(&connection, &Request::Extends(0, size, size)).await
            {
                return root;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, asking).await.expect("it has as many leaves")
}

fn leaves(status: &NodeStatus) -> u64 {
    status.shards[0].leaves
}

fn knows(group: &GroupStatus, hospitals: &Hospitals, n: usize) -> Option<u16> {
    group.nodes.iter().find(|it| it.node == hospitals.id(n)).and_then(|it| it.knows)
}

const THREE: &str = "[placement]\neverywhere = ['node0.example', 'node1.example', 'node2.example']\n";

struct Ward {
    hospitals: Hospitals,
    owner: Credentials,
    patient: people::Patient,
    sealer: people::Sealer,
}

impl Ward {
    fn new() -> Self {
        let hospitals = Hospitals::new(3, THREE);
        let owner = hospitals.person("patient", Role::Patient);
        let alliance = hospitals.charter().alliance_id();
        let patient = people::Patient::new(owner.identity(), alliance, (0, 1), now());
        let sealer = people::Sealer::new(owner.identity(), &patient, now());
        Self { hospitals, owner, patient, sealer }
    }

    async fn open(&mut self) {
        let events = self.patient.opening(now());
        let opening = self.patient.writer.run(&events);
        submitted(&self.hospitals, &self.owner, &[0, 1, 2], opening).await;
        let wrap = self.patient.writer.run(std::slice::from_ref(&self.sealer.wrap));
        submitted(&self.hospitals, &self.owner, &[0, 1, 2], wrap).await;
    }

    async fn readings(&mut self, count: usize, nodes: &[usize]) {
        for _ in 0..count {
            let run = self.patient.writer.run(&[self.sealer.seal(b"72")]);
            submitted(&self.hospitals, &self.owner, nodes, run).await;
        }
    }
}

/// Node 2 says that it serves nothing of the shard, because its program is older.
async fn holds(ward: &Ward) -> NodeStatus {
    let holding = async {
        loop {
            let said = ward.hospitals.try_status(&ward.owner, 2).await;
            if let Some(said) = said.filter(|said| said.shards.first().is_some_and(|shard| shard.faulted)) {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, holding).await.expect("it is held")
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_raised_when_the_last_node_was_upgraded_and_until_then_it_is_named() {
    let mut ward = Ward::new();
    let (hospitals, owner) = (&ward.hospitals, &ward.owner);
    let (one, two) = (start(hospitals, 0, 2).await, start(hospitals, 1, 2).await);
    let three = start(hospitals, 2, 1).await;
    let heard = |group: &GroupStatus| (0..3).all(|n| knows(group, &ward.hospitals, n).is_some());
    let before = said(hospitals, owner, 0, heard).await;
    let first: VerifiedCharter = hospitals.charter();
    let raising = hospitals.raising(2, THREE, &[0]);
    // The command that plans or installs the charter refuses.
    let why = may_raise(&first, raising.charter(), &before).unwrap_err().to_string();
    assert!(why.contains("node2.example (knows version 1)") && !why.contains("node0"), "{why}");
    // And if it came all the same, whoever leads waits.
    let named = hospitals.id(2).to_string();
    let waits = |group: &GroupStatus| {
        let doing = group.doing.as_deref().unwrap_or_default();
        doing.contains("version of the program") && doing.contains(&named)
    };
    let status = said(hospitals, owner, 0, waits).await;
    let group = &status.groups.unwrap()[0];
    assert_eq!((group.charter, group.rules), (1, None));
    ward.open().await;
    ward.readings(2, &[0, 1, 2]).await;
    // It is upgraded.
    three.stop().await.unwrap();
    let three = start(&ward.hospitals, 2, 2).await;
    let raised = said(&ward.hospitals, &ward.owner, 0, |group| (group.charter, group.rules) == (2, Some(2))).await;
    assert!(may_raise(&first, raising.charter(), &raised).is_ok());
    ward.readings(2, &[0, 1, 2]).await;
    for node in [one, two, three] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_with_an_older_program_is_held_keeps_its_vote_and_goes_on_when_it_is_upgraded() {
    let mut ward = Ward::new();
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(Some(start(&ward.hospitals, n, 2).await));
    }
    ward.open().await;
    let heard = |group: &GroupStatus| (0..3).all(|n| knows(group, &ward.hospitals, n) == Some(2));
    for n in 0..3 {
        said(&ward.hospitals, &ward.owner, n, heard).await;
    }
    // One is away when the rules are raised, and comes back with the program of yesterday.
    nodes[2].take().unwrap().stop().await.unwrap();
    ward.hospitals.raising(2, THREE, &[0, 1]);
    for n in 0..2 {
        said(&ward.hospitals, &ward.owner, n, |group| group.rules == Some(2)).await;
    }
    ward.readings(3, &[0, 1]).await;
    let older = start(&ward.hospitals, 2, 1).await;
    let held = |group: &GroupStatus| knows(group, &ward.hospitals, 2) == Some(1) && group.rules == Some(2);
    said(&ward.hospitals, &ward.owner, 0, held).await;
    let own = holds(&ward).await;
    // Writes go on with its vote and without another one's: what it has in its log counts.
    nodes[1].take().unwrap().stop().await.unwrap();
    let run = ward.patient.writer.run(&[ward.sealer.seal(b"72")]);
    let (_client, connection) = ward.hospitals.connect(&ward.owner, 2).await;
    match asked(&connection, &Request::Submit(run.clone())).await {
        Some(Response::AskNode(node)) => assert_eq!(node, ward.hospitals.id(0)),
        Some(Response::Refused(Refusal::NoLeader | Refusal::StorageFault)) => {}
        other => panic!("{other:?}"),
    }
    // Ordered and in two logs, though nobody can cosign it before one more node has applied it.
    let (_client, connection) = ward.hospitals.connect(&ward.owner, 0).await;
    let ordering = tokio::spawn(async move { asked(&connection, &Request::Submit(run)).await });
    let applied = own.shards[0].applied;
    let more = |group: &GroupStatus| {
        let of = |n: usize| group.nodes.iter().find(|it| it.node == ward.hospitals.id(n)).and_then(|it| it.applied);
        of(0) > Some(applied + 3)
    };
    said(&ward.hospitals, &ward.owner, 0, more).await;
    let still = ward.hospitals.try_status(&ward.owner, 2).await.unwrap();
    assert_eq!(still.shards[0].applied, applied, "it applies nothing");
    drop(ordering);

    // The other one is back; a restart of the older program changes nothing; the later one goes on from there.
    nodes[1] = Some(start(&ward.hospitals, 1, 2).await);
    older.stop().await.unwrap();
    let older = start(&ward.hospitals, 2, 1).await;
    assert_eq!(holds(&ward).await.shards[0].applied, applied);
    ward.readings(2, &[0, 1]).await;
    older.stop().await.unwrap();
    let upgraded = start(&ward.hospitals, 2, 2).await;
    ward.readings(2, &[0, 1, 2]).await;
    let size = leaves(&ward.hospitals.try_status(&ward.owner, 0).await.unwrap());
    let roots = [
        root_of(&ward.hospitals, &ward.owner, 0, size).await,
        root_of(&ward.hospitals, &ward.owner, 1, size).await,
        root_of(&ward.hospitals, &ward.owner, 2, size).await,
    ];
    assert!(roots[0] == roots[1] && roots[1] == roots[2] && size >= 10, "{size}: {roots:?}");
    let own = ward.hospitals.try_status(&ward.owner, 2).await.unwrap();
    assert!(!own.shards[0].faulted);
    for node in nodes.into_iter().flatten().chain([upgraded]) {
        node.stop().await.unwrap();
    }
}

/// A block that brings a charter, as an ordering party writes it.
fn bringing(charter: &SignedCharter) -> Vec<u8> {
    let mut out = minicbor::Encoder::new(Vec::new());
    let block = out.map(4).unwrap().u8(0).unwrap().u8(1).unwrap().u8(1).unwrap().u16(1).unwrap();
    let block = block.u8(2).unwrap().u64(now().0).unwrap().u8(3).unwrap().array(1).unwrap();
    // A command of kind 3.
    block.array(2).unwrap().u8(3).unwrap().map(1).unwrap().u8(0).unwrap().bytes(&charter.encode()).unwrap();
    out.into_writer()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_a_charter_makes_too_old_has_one_that_is_not_lead_and_writes_go_on() {
    let mut ward = Ward::new();
    let mut nodes = Vec::new();
    for (n, knows) in [(0, 2), (1, 2), (2, 1)] {
        nodes.push(start(&ward.hospitals, n, knows).await);
    }
    ward.open().await;
    let heard = |group: &GroupStatus| {
        [2, 2, 1].into_iter().enumerate().all(|(n, it)| knows(group, &ward.hospitals, n) == Some(it))
    };
    said(&ward.hospitals, &ward.owner, 2, heard).await;
    let raising = ward.hospitals.raising(2, THREE, &[0]);
    let waits = |group: &GroupStatus| group.doing.as_deref().unwrap_or_default().contains("version of the program");
    said(&ward.hospitals, &ward.owner, 0, waits).await;
    // Nobody who leads would bring it in. One has, and then another one leads, whose program is older.
    let (group, older) = (GroupId(0), nodes[2].consensus());
    let leading = async {
        while !older.status(group).is_some_and(|status| status.ready()) {
            for node in &nodes[..2] {
                let _ = node.consensus().transfer_leader(group, older.node_id()).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, leading).await.expect("it leads");
    older.propose(group, bringing(raising.signed()).into()).await.unwrap();
    let led = [ward.hospitals.id(0), ward.hospitals.id(1)];
    let raised =
        |group: &GroupStatus| group.rules == Some(2) && group.leader.is_some_and(|leader| led.contains(&leader));
    said(&ward.hospitals, &ward.owner, 0, raised).await;
    assert!(older.status(group).unwrap().held.is_some());
    ward.readings(2, &[0, 1]).await;
    for node in nodes {
        node.stop().await.unwrap();
    }
}
