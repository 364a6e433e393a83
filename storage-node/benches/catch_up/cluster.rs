//! Three nodes as programs of their own, the third of which is away until the others are full.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use certs::{Client, Connection, Role};
use ehe::control::Right;
use ehe::id::Hash;
use ehe::refusal::Refusal;
use ehe::run::SeenCheckpoint;
use ehe::time::UnixMs;
use ehe::wire::{Request, Response, ShardStatus, Submission};
use sha2::Digest;

use super::homes::{Home, row};
use super::hospitals::{Hospitals, ask};
use super::people::Patient;
use super::{HOMES, LIMIT, TARGET};

const EVENTS_A_RUN: usize = 256;
/// What a receiver may take: its caches, and as much again.
const BOUND_MIB: u64 = 256;

struct Node {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    fn start(hospitals: &Hospitals, n: usize) -> Self {
        hospitals.config(n);
        let path = hospitals.path(&format!("node{n}.toml"));
        // As little log as possible: who has nothing gets the state.
        let text = std::fs::read_to_string(&path).unwrap();
        let more =
            "timing = 'lan'\nlog_hold_bytes = 1_048_576\nlog_keep_bytes = 0\nsnapshot_bytes_per_s = 1_073_741_824";
        std::fs::write(&path, text.replace("timing = 'lan'", more)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ehe-node"))
            .args(["run", "--config"])
            .arg(path)
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        Self { child, log }
    }

    /// What was resident at most, in MiB.
    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Seconds of processor time so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn measure(events: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let hospitals = Hospitals::new(3, "");
        let full = [Node::start(&hospitals, 0), Node::start(&hospitals, 1)];
        let owner = hospitals.person("watcher", Role::Patient);
        // The log begins when all three have met. Then one of them goes.
        begun(&owner, &hospitals, Node::start(&hospitals, 2)).await;
        let start = Instant::now();
        let made = fill(&hospitals, events).await;
        let filled = start.elapsed().as_secs_f64();
        let (_client, connection) = connect(&hospitals, &owner, 0).await;
        let before = status(&connection).await;
        let leader = usize::from(before.leader != Some(hospitals.id(0)));
        let (sender, cpu) = (&full[leader], full[leader].cpu());

        let start = Instant::now();
        let third = Node::start(&hospitals, 2);
        let (_client, connection) = connect(&hospitals, &owner, 2).await;
        let mut now = status(&connection).await;
        while now.leaves < before.leaves {
            assert!(start.elapsed() < 10 * LIMIT, "{now:?}, {before:?}: {:?}", third.log.lock().unwrap());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            now = status(&connection).await;
        }
        let took = start.elapsed().as_secs_f64();
        let (rate, peak_mib) = (made as f64 / took, third.peak_mib());
        let said: Vec<_> = third.log.lock().unwrap().iter().filter_map(|line| told(line)).collect();
        row(
            "a third node that has nothing but the log's beginning catches up, from its start",
            &format!("≥ {TARGET:.0} EHE/s"),
            &format!("{rate:.0} EHE/s"),
            Some(rate >= TARGET),
            &format!(
                "{made} events in {took:.1} s, filled at {:.0} EHE/s before, over QUIC, three nodes on this machine; {}; processor: receiver \
                 {:.1} s, sender {:.1} s",
                made as f64 / filled,
                said.join(", "),
                third.cpu(),
                sender.cpu() - cpu
            ),
        );
        row(
            "resident memory of a node while it catches up, at most",
            &format!("≤ {BOUND_MIB} MiB, however large the state"),
            &format!("{peak_mib} MiB (the sender, which was loaded before: {} MiB)", sender.peak_mib()),
            Some(peak_mib <= BOUND_MIB),
            "caches: 32 MiB of the shard's file, as much of the one that is filled beside it, 64 MiB of the log's; then 8 MiB of rows that wait, \
             and what the storage library remembers of 64 MiB that are not synced yet",
        );
    });
}

/// Waits until the third node has the beginning of the log, and kills it.
async fn begun(owner: &certs::Credentials, hospitals: &Hospitals, third: Node) {
    let (_client, connection) = connect(hospitals, owner, 2).await;
    let start = Instant::now();
    while status(&connection).await.applied == 0 {
        assert!(start.elapsed() < LIMIT, "{:?}", third.log.lock().unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(third);
}

/// What the node says of a state that it received.
fn told(line: &str) -> Option<String> {
    let (_, fields) = line.split_once("the state that another node sent ")?;
    let number = |name: &str| {
        let value = fields.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='))?;
        value.parse::<f64>().ok()
    };
    let (mib, received, verified) = (number("mib")?, number("received_s")?, number("verified_s")?);
    Some(format!("{mib:.0} MiB received in {received:.1} s, verified and synced in {verified:.1} s more"))
}

async fn connect(hospitals: &Hospitals, who: &certs::Credentials, n: usize) -> (Client, Connection) {
    let (client, target) = (Client::new(who).unwrap(), hospitals.charter().node(hospitals.id(n)).unwrap().clone());
    let start = Instant::now();
    loop {
        match client.connect(&target.addresses, target.id, LIMIT).await {
            Ok(connection) => return (client, connection),
            Err(error) if start.elapsed() > LIMIT => panic!("{error}"),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

async fn status(connection: &Connection) -> ShardStatus {
    match ask(connection, &Request::Status).await {
        Response::Status(status) => status.shards[0].clone(),
        other => panic!("{other:?}"),
    }
}

/// Hands a run in to whoever leads.
async fn submit(nodes: &[(Client, Connection)], at: &mut usize, run: Submission) {
    let request = Request::Submit(run);
    let start = Instant::now();
    loop {
        match ask(&nodes[*at].1, &request).await {
            Response::Submitted(_) | Response::Known(_) => return,
            Response::AskNode(_) | Response::Refused(Refusal::NoLeader | Refusal::Overloaded) => {
                assert!(start.elapsed() < LIMIT, "nobody takes it");
                *at = 1 - *at;
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Has homes upload backlogs to the first two nodes. Returns how many events that was.
async fn fill(hospitals: &Hospitals, events: u64) -> u64 {
    let now: UnixMs = ehe_node::clock::Clock::system().now();
    let alliance = hospitals.charter().alliance_id();
    let uploads = (0..HOMES).map(|n| {
        let owner = hospitals.person(&format!("patient{n}"), Role::Patient);
        let gateway = hospitals.person(&format!("gateway{n}"), Role::Gateway);
        async move {
            let mut at = 0;
            let mut patient = Patient::new(owner.identity(), alliance, (0, 1), now);
            let mut opening = patient.opening(now);
            opening.push(patient.grant(gateway.identity().public(), Right::Append, None, now));
            let lines = [connect(hospitals, &owner, 0).await, connect(hospitals, &owner, 1).await];
            submit(&lines, &mut at, patient.writer.run(&opening)).await;
            let lines = [connect(hospitals, &gateway, 0).await, connect(hospitals, &gateway, 1).await];
            let mut home = Home::of(patient, gateway.identity().clone(), now);
            let wrap = home.wrap();
            submit(&lines, &mut at, home.run(&[wrap])).await;
            let seen = SeenCheckpoint { origin: "bench".into(), size: 1, root: Hash::ZERO };
            home.saw(seen.clone());
            let body = [5; 256];
            let body_hash = Hash(sha2::Sha256::digest(body).into());
            let mut made = 0u64;
            while made < events / HOMES as u64 {
                let sealed = (0..EVENTS_A_RUN).map(|_| home.opaque(&body, body_hash, now)).collect();
                submit(&lines, &mut at, home.opaque_run(sealed, &seen)).await;
                made += EVENTS_A_RUN as u64;
            }
            made
        }
    });
    futures::future::join_all(uploads).await.into_iter().sum()
}
