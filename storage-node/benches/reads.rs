//! What a read with its audit costs, by how much content it brings: 64 readers, each with a room, who ask again and again, on one node,
//! and on three where each reader asks one of them. Real files, real QUIC, everything in this process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
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
use people::{Patient, Sealer, Writer};

pub const LIMIT: Duration = Duration::from_secs(30);
const READERS: usize = 64;
/// Readers on one connection.
const TOGETHER: usize = 16;
const WARM: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(4);
/// Events of content that a read brings. None: only what is new is asked for, and there is nothing.
const CONTENT: [usize; 3] = [0, 16, 256];
/// Of an event before it is padded; its body has 256 bytes then.
const PLAIN: [u8; 200] = [7; 200];

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
    /// From where on it asks next.
    from: u64,
    /// Whether it goes on from what it has read, or asks for the same content again.
    goes_on: bool,
}

/// What one read brought.
#[derive(Debug, Clone, Copy)]
struct Brought {
    took: Duration,
    items: u64,
    bytes: u64,
}

impl Reader {
    /// Everything from where it is up to the head.
    async fn read(&mut self) -> Brought {
        let asked = Instant::now();
        let mut request = people::request(self.me.identity(), self.alliance, self.room, Part::Content, now());
        request.scope.epochs = vec![self.epoch];
        request.from_index = self.from;
        let public = self.me.identity().public().clone();
        let mut exchange = self.link.open().await.unwrap();
        exchange.send(&Request::Fetch(request.sign(self.me.identity()), public).to_vec(), LIMIT).await.unwrap();
        exchange.finish().unwrap();
        let (mut items, mut bytes) = (0, 0);
        loop {
            let frame = exchange.recv(LIMIT).await.unwrap().unwrap();
            bytes += frame.len() as u64;
            match Response::decode(&frame).unwrap() {
                Response::Item(_) => items += 1,
                Response::Wrap(_) => {}
                Response::Head(head) => {
                    if self.goes_on {
                        self.from = head.last.leaf.index + 1;
                    }
                    return Brought { took: asked.elapsed(), items, bytes };
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

/// Blocks that were ordered, reads that were granted, checkpoints that a node's quorum cosigned.
fn counted(nodes: &[Daemon]) -> [u64; 3] {
    let checkpoints = counter(nodes, "checkpoints") / nodes.len() as u64;
    [counter(nodes, "blocks"), counter(nodes, "reads_granted"), checkpoints]
}

async fn measure(count: usize, events: usize) {
    let hospitals = Hospitals::new(count, "");
    let mut nodes = Vec::new();
    for n in 0..count {
        nodes.push(hospitals.start(n).await);
    }
    let person = |name, role| hospitals.person(name, role);
    let (owner, clinician) = (person("patient", Role::Patient), person("clinician", Role::Clinician));
    let gateway = person("gateway", Role::Gateway);
    let alliance = hospitals.charter().alliance_id();
    let (mut clients, mut links, mut owners, mut gateways) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for n in 0..count {
        for (who, their) in [(&owner, &mut owners), (&gateway, &mut gateways)] {
            let (client, link) = hospitals.connect(who, n).await;
            clients.push(client);
            their.push(link);
        }
    }
    for n in 0..READERS.div_ceil(TOGETHER) {
        let (client, link) = hospitals.connect(&clinician, n % count).await;
        clients.push(client);
        links.push(link);
    }
    let mut readers = Vec::new();
    for n in 0..READERS {
        let mut patient = Patient::new(owner.identity(), alliance, (0, 1), now());
        let mut opening = patient.opening(now());
        opening.push(patient.grant(clinician.identity().public(), Right::Read, None, now()));
        opening.push(patient.grant(gateway.identity().public(), Right::Append, None, now()));
        submit(&owners, Request::Submit(patient.writer.run(&opening))).await;
        if events > 0 {
            let sealer = Sealer::new(gateway.identity(), &patient, now());
            let mut writer = Writer::new(gateway.identity(), patient.room);
            submit(&gateways, Request::Submit(writer.run(std::slice::from_ref(&sealer.wrap)))).await;
            let sealed: Vec<_> = (0..events).map(|_| sealer.seal(&PLAIN)).collect();
            submit(&gateways, Request::Submit(writer.run(&sealed))).await;
        }
        let (room, epoch, link) = (patient.room, patient.epoch, links[n % links.len()].clone());
        let (me, goes_on) = (clinician.clone(), events == 0);
        readers.push(Reader { me, link, alliance, room, epoch, from: 0, goes_on });
    }
    let start = Instant::now();
    let (from, until) = (start + WARM, start + WARM + MEASURED);
    let reading = readers.into_iter().map(|mut reader| {
        tokio::spawn(async move {
            let mut brought = Vec::new();
            while Instant::now() < until {
                let asked = Instant::now();
                let read = reader.read().await;
                if asked >= from && Instant::now() < until {
                    brought.push(read);
                }
            }
            brought
        })
    });
    let reading: Vec<_> = reading.collect();
    tokio::time::sleep_until(from.into()).await;
    let before = counted(&nodes);
    tokio::time::sleep_until(until.into()).await;
    let after = counted(&nodes);
    let mut brought = Vec::new();
    for task in reading {
        brought.extend(task.await.unwrap());
    }
    print(count, events, brought, std::array::from_fn(|n| after[n] - before[n]));
    drop((clients, links, owners, gateways));
    for node in nodes {
        node.stop().await.unwrap();
    }
}

fn print(count: usize, events: usize, mut brought: Vec<Brought>, [blocks, reads, checkpoints]: [u64; 3]) {
    brought.sort_by_key(|read| read.took);
    let rate = brought.len() as f64 / MEASURED.as_secs_f64();
    let at = |part: usize| brought[brought.len() * part / 100].took.as_secs_f64() * 1000.0;
    let a_read = |sum: u64| sum as f64 / brought.len().max(1) as f64;
    let (items, bytes) = (brought.iter().map(|read| read.items).sum(), brought.iter().map(|read| read.bytes).sum());
    let syncs = blocks as f64 / reads.max(1) as f64;
    let nodes =
        if count == 1 { "one node".to_owned() } else { format!("{count} nodes, each asked by a third of them") };
    let what = match events {
        0 => "of a room in which nothing is new".to_owned(),
        events => format!("of {events} events"),
    };
    let content = if events == 0 { String::new() } else { format!(" ({:.0} EHE/s)", rate * events as f64) };
    println!(
        "{{\"group\":\"reads\",\"what\":\"reads/s with audit, {what}: {READERS} readers, {nodes}\",\"target\":\"< 1 synced block a read\",\
         \"measured\":\"{rate:.0}/s{content}, p50 {:.1} ms, p99 {:.1} ms; {syncs:.3} synced blocks a read\",\"met\":{},\
         \"where\":\"{:.1} access records share a block, {:.1} a checkpoint; a read is {:.1} entries in {:.1} KiB; each request's signature is \
         checked by the node that is asked, by the one that orders and in apply; then checkpoint, proof and head\"}}",
        at(50),
        at(99),
        syncs < 1.0,
        reads as f64 / blocks.max(1) as f64,
        reads as f64 / checkpoints.max(1) as f64,
        a_read(items),
        a_read(bytes) / 1024.0,
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for count in [1, 3] {
            for events in CONTENT {
                measure(count, events).await;
            }
        }
    });
}
