//! What a read with its audit costs: 64 readers who ask again and again for what is new in a room, on one node, and on three where
//! each reader asks one of them. Real files, real QUIC, everything in this process.
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

#[path = "../tests/support/hospitals.rs"]
mod hospitals;
#[path = "../tests/support/people.rs"]
mod people;

use std::time::{Duration, Instant};

use certs::{Connection, Credentials, Role};
use ehe::control::Right;
use ehe::id::{EpochId, RoomId};
use ehe::read::Part;
use ehe::refusal::Fault;
use ehe::wire::{Request, Response};
use ehe_node::clock::Clock;
use ehe_node::daemon::Daemon;
use hospitals::{Hospitals, ask};
use people::Patient;

pub const LIMIT: Duration = Duration::from_secs(30);
const READERS: usize = 64;
/// Readers on one connection.
const TOGETHER: usize = 16;
const WARM: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(6);

fn now() -> ehe::time::UnixMs {
    Clock::system().now()
}

/// Asks whoever answers until the run is in.
async fn submit(links: &[Connection], run: Request) {
    let asking = async {
        for link in links.iter().cycle() {
            match ask(link, &run).await {
                Response::Submitted(_) | Response::Known(_) => return,
                Response::AskNode(_) => {}
                Response::Refused(why) if why.fault() == Fault::Node => {
                    tokio::time::sleep(Duration::from_millis(10)).await
                }
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, asking).await.expect("a receipt");
}

struct Reader {
    me: Credentials,
    link: Connection,
    alliance: ehe::id::AllianceId,
    room: RoomId,
    epoch: EpochId,
    from: u64,
}

impl Reader {
    /// Everything that is new, up to the head.
    async fn read(&mut self) {
        let mut request = people::request(self.me.identity(), self.alliance, self.room, Part::Content, now());
        request.scope.epochs = vec![self.epoch];
        request.from_index = self.from;
        let public = self.me.identity().public().clone();
        let mut exchange = self.link.open().await.unwrap();
        exchange.send(&Request::Fetch(request.sign(self.me.identity()), public).to_vec(), LIMIT).await.unwrap();
        exchange.finish().unwrap();
        loop {
            match Response::decode(&exchange.recv(LIMIT).await.unwrap().unwrap()).unwrap() {
                Response::Item(_) | Response::Wrap(_) => {}
                Response::Head(head) => {
                    self.from = head.last.leaf.index + 1;
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn counter(nodes: &[Daemon], name: &str) -> u64 {
    let of = |node: &Daemon| node.counters().into_iter().find(|(found, _)| *found == name).unwrap().1;
    nodes.iter().map(of).sum()
}

async fn measure(count: usize) {
    let hospitals = Hospitals::new(count, "");
    let mut nodes = Vec::new();
    for n in 0..count {
        nodes.push(hospitals.start(n).await);
    }
    let (owner, clinician) =
        (hospitals.person("patient", Role::Patient), hospitals.person("clinician", Role::Clinician));
    let alliance = hospitals.charter().alliance_id();
    let (mut clients, mut links, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..count {
        let (client, link) = hospitals.connect(&owner, n).await;
        clients.push(client);
        owners.push(link);
    }
    for n in 0..READERS.div_ceil(TOGETHER) {
        let (client, link) = hospitals.connect(&clinician, n % count).await;
        clients.push(client);
        links.push(link);
    }
    let mut readers = Vec::new();
    for n in 0..READERS {
        let mut patient = Patient::new(owner.identity(), alliance, (0, 1), now());
        let mut events = patient.opening(now());
        events.push(patient.grant(clinician.identity().public(), Right::Read, None, now()));
        submit(&owners, Request::Submit(patient.writer.run(&events))).await;
        let (room, epoch, link) = (patient.room, patient.epoch, links[n % links.len()].clone());
        readers.push(Reader { me: clinician.clone(), link, alliance, room, epoch, from: 0 });
    }
    let start = Instant::now();
    let (from, until) = (start + WARM, start + WARM + MEASURED);
    let reading = readers.into_iter().map(|mut reader| {
        tokio::spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < until {
                let asked = Instant::now();
                reader.read().await;
                if asked >= from && Instant::now() < until {
                    took.push(asked.elapsed());
                }
            }
            took
        })
    });
    let reading: Vec<_> = reading.collect();
    tokio::time::sleep_until(from.into()).await;
    let before = (counter(&nodes, "blocks"), counter(&nodes, "reads_granted"));
    tokio::time::sleep_until(until.into()).await;
    let after = (counter(&nodes, "blocks"), counter(&nodes, "reads_granted"));
    let mut took = Vec::new();
    for task in reading {
        took.extend(task.await.unwrap());
    }
    took.sort();
    let rate = took.len() as f64 / MEASURED.as_secs_f64();
    let a_block = (after.1 - before.1) as f64 / (after.0 - before.0).max(1) as f64;
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1000.0;
    println!(
        "{{\"group\":\"Reads\",\"what\":\"reads/s with audit, {READERS} readers, {}\",\"target\":\"–\",\"measured\":\"{rate:.0}/s, p50 \
         {:.1} ms, p99 {:.1} ms\",\"met\":null,\"where\":\"{a_block:.1} access records a block, so a sync; signature of each request \
         checked by the node that is asked, by the one that orders and in apply; then checkpoint, proof and head\"}}",
        if count == 1 { "one node".to_owned() } else { format!("{count} nodes, each asked by a third of them") },
        at(50),
        at(99),
    );
    drop((clients, links, owners));
    for node in nodes {
        node.stop().await.unwrap();
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        measure(1).await;
        measure(3).await;
    });
}
