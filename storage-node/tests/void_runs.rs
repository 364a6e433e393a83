//! A run that its author did not sign, let in by a node that leads and lies: three hospitals find it, and void it under rules that know how.

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
use ehe::control::Right;
use ehe::event::CheckedEvent;
use ehe::id::Hash;
use ehe::ledger::{Follower, LedgerError, Verified};
use ehe::read::Part;
use ehe::refusal::Refusal;
use ehe::wire::{NodeStatus, Request, Response, Submission};
use ehe_node::clock::Clock;
use ehe_node::consensus::GroupId;
use ehe_node::daemon::Daemon;
use ehe_node::shard::block_of_runs;
use ehe_node::verify::{Progress, verify};

#[path = "support/hospitals.rs"]
mod hospitals;
#[path = "support/people.rs"]
mod people;

use hospitals::{Hospitals, ask};
use people::{Patient, Sealer, Writer, request};

pub const LIMIT: Duration = Duration::from_secs(60);

fn now() -> ehe::time::UnixMs {
    Clock::system().now()
}

struct Scene {
    hospitals: Hospitals,
    owner: Credentials,
    gateway: Credentials,
    patient: Patient,
    sealer: Sealer,
    writer: Writer,
}

impl Scene {
    fn new() -> Self {
        let hospitals = Hospitals::new(3, "");
        let [owner, gateway] =
            [("patient", Role::Patient), ("gateway", Role::Gateway)].map(|(name, role)| hospitals.person(name, role));
        let patient = Patient::new(owner.identity(), hospitals.charter().alliance_id(), (0, 1), now());
        let sealer = Sealer::new(gateway.identity(), &patient, now());
        let writer = Writer::new(gateway.identity(), patient.room);
        Self { hospitals, owner, gateway, patient, sealer, writer }
    }

    /// Looking through everything again and again.
    async fn start(&self, n: usize) -> Daemon {
        let mut config = self.hospitals.config(n);
        (config.scrub.events_per_s, config.scrub.every_s) = (100_000, 1);
        Daemon::start(config, Clock::system()).await.unwrap()
    }

    async fn submit(&self, who: &Credentials, run: Submission) {
        let run = Request::Submit(run);
        let asking = async {
            for n in (0..3).cycle() {
                let (_client, connection) = self.hospitals.connect(who, n).await;
                match ask(&connection, &run).await {
                    Response::Submitted(_) => return,
                    Response::AskNode(_) | Response::Refused(Refusal::NoLeader | Refusal::Overloaded) => {}
                    other => panic!("{other:?}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, asking).await.expect("a receipt");
    }

    async fn open(&mut self) {
        let mut events = self.patient.opening(now());
        events.push(self.patient.grant(self.gateway.identity().public(), Right::Append, None, now()));
        let opening = self.patient.writer.run(&events);
        self.submit(&self.owner, opening).await;
        let wrap = self.writer.run(std::slice::from_ref(&self.sealer.wrap));
        self.submit(&self.gateway, wrap).await;
    }

    async fn reading(&mut self, event: &CheckedEvent) {
        let run = self.writer.run(std::slice::from_ref(event));
        self.submit(&self.gateway, run).await;
    }

    async fn status(&self, n: usize) -> NodeStatus {
        self.hospitals.status(&self.owner, n).await
    }

    async fn until(&self, n: usize, what: &str, holds: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let mut last = None;
        let asking = async {
            loop {
                let status = self.status(n).await;
                if holds(&status) {
                    return status;
                }
                last = Some(status);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(LIMIT, asking).await {
            Ok(status) => status,
            Err(_) => panic!("never on node {n}: {what}; {last:#?}"),
        }
    }

    /// What node `n` shows of the room, verified; and whether that was confirmed.
    async fn followed(&self, n: usize) -> (Vec<Verified>, Result<(), LedgerError>) {
        let me = self.owner.identity();
        let (_client, connection) = self.hospitals.connect(&self.owner, n).await;
        let asked = request(me, self.patient.alliance, self.patient.room, Part::Ledger, now());
        let nonce = asked.nonce;
        let mut exchange = connection.open().await.unwrap();
        let frame = Request::Fetch(asked.sign(me), me.public().clone()).to_vec();
        exchange.send(&frame, LIMIT).await.unwrap();
        exchange.finish().unwrap();
        let (mut follower, mut shown) = (Follower::new(self.patient.room, true), Vec::new());
        loop {
            match Response::decode(&exchange.recv(LIMIT).await.unwrap().unwrap()).unwrap() {
                Response::Item(item) => shown.push(follower.take(item, self.patient.alliance).unwrap()),
                Response::Head(head) => {
                    let note = ehe::note::Note::parse(&head.last.checkpoint).unwrap();
                    let version = ehe::checkpoint::Checkpoint::parse(&note).unwrap().charter_version;
                    let charter = self.hospitals.charter_of(version);
                    return (shown, follower.confirm(&head, nonce, None, &charter).map(drop));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn root(&self, n: usize, size: u64) -> Hash {
        let (_client, connection) = self.hospitals.connect(&self.owner, n).await;
        match ask(&connection, &Request::Extends(0, size, size)).await {
            Response::Extends(root, _) => root,
            other => panic!("{other:?}"),
        }
    }
}

fn found(status: &NodeStatus) -> u64 {
    status.scrub.iter().flatten().map(|scrub| scrub.found).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_void_a_run_that_a_lying_leader_let_in_once_the_rules_say_how() {
    let mut scene = Scene::new();
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(scene.start(n).await);
    }
    scene.open().await;
    let first = scene.sealer.seal(b"72");
    scene.reading(&first).await;

    // Who leads takes an event of the gateway's, and puts it into the ledger under a signature that is none.
    let stolen = scene.sealer.seal(b"73");
    let mut forged = scene.writer.linked(std::slice::from_ref(&stolen)).0;
    let last = forged.run.0.len() - 1;
    forged.run.0[last] ^= 1;
    let hash = forged.run.hash();
    let block = block_of_runs(now(), vec![forged]);
    let mut taken = false;
    for node in &nodes {
        taken = taken || node.consensus().propose(GroupId(0), block.clone().into()).await.is_ok();
    }
    assert!(taken, "somebody leads");
    // Each node finds it; none takes it for its disk's doing; and who follows the room is not shown it as a reading.
    for n in 0..3 {
        let status = scene.until(n, "it is found", |status| found(status) == 1).await;
        assert!(!status.shards[0].faulted, "nothing was lost");
        let (shown, confirmed) = scene.followed(n).await;
        assert!(matches!(shown.last(), Some(Verified::Unsigned(_))));
        assert!(matches!(confirmed, Err(LedgerError::Signature { index: 3, .. })), "{confirmed:?}");
    }
    // The gateway hears that its event is in the ledger by a run that it did not sign.
    let mine = scene.writer.linked(std::slice::from_ref(&stolen)).0;
    let leader = scene.status(0).await.shards[0].leader.unwrap();
    let leader = (0..3).find(|n| scene.hospitals.id(*n) == leader).unwrap();
    let (_client, connection) = scene.hospitals.connect(&scene.gateway, leader).await;
    match ask(&connection, &Request::Submit(mine)).await {
        Response::Known(known) => assert_eq!(known[0].run.hash(), hash),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.status(0).await.shards[0].leaves, 4, "nothing is void under the first rules");

    scene.hospitals.raising(2, "", &[0]);
    for n in 0..3 {
        let raised = |status: &NodeStatus| status.groups.as_ref().unwrap()[0].rules == Some(2);
        scene.until(n, "the rules are raised", raised).await;
    }
    for n in 0..3 {
        scene.until(n, "it is void", |status| found(status) == 0 && status.shards[0].leaves == 5).await;
    }
    for n in 0..3 {
        let (shown, confirmed) = scene.followed(n).await;
        confirmed.unwrap();
        let gateway = scene.gateway.identity().author_id();
        assert!(matches!(shown.last(), Some(Verified::Void { index: 3, run }) if run.author == gateway), "{shown:?}");
        assert!(matches!(&shown[3], Verified::Unsigned(run) if run.ids == [stolen.id()]));
    }
    // The gateway's strand went on without it: it begins another, and its event is in the ledger by its own hand.
    scene.writer = Writer::new(scene.gateway.identity(), scene.patient.room);
    scene.reading(&stolen).await;
    let ended = |status: &NodeStatus| status.scrub.iter().flatten().next().and_then(|scrub| scrub.ended);
    for n in 0..3 {
        let before = ended(&scene.status(n).await);
        let looked = |status: &NodeStatus| ended(status) > before;
        scene.until(n, "it was looked through again", looked).await;
        let status = scene.until(n, "it has all", |status| status.shards[0].leaves == 6).await;
        assert_eq!((found(&status), status.shards[0].faulted), (0, false), "void once, and sound");
    }
    let roots = [scene.root(0, 6).await, scene.root(1, 6).await, scene.root(2, 6).await];
    assert!(roots[0] == roots[1] && roots[1] == roots[2], "{roots:?}");
    for node in nodes {
        node.stop().await.unwrap();
    }
    for n in 0..3 {
        let report = verify(&scene.hospitals.path(&format!("data{n}")), 1, &Progress::default()).unwrap();
        assert!(report.is_sound(), "node {n}: {report}");
    }
}
