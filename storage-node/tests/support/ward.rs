//! Three hospitals with a node of each, whose clocks a test sets; a patient with a room, a gateway and a clinician in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use certs::{Client, Connection, Credentials, Exchange, Role};
use ehe::control::Right;
use ehe::event::CheckedEvent;
use ehe::id::{EheId, NodeId};
use ehe::leaf::Leaf;
use ehe::ledger::{Follower, Verified};
use ehe::read::{Part, SignedRequest};
use ehe::refusal::Fault;
use ehe::time::UnixMs;
use ehe::wire::{Request, Response, ShardStatus, Submission, Submitted};
use ehe_node::clock::Clock;
use ehe_node::config::Config;
use ehe_node::daemon::Daemon;

use super::LIMIT;
use super::hospitals::{Hospitals, ask};
use super::people::{Patient, Sealer, Writer, content, request};

/// A clock that runs, by so much off the right one.
#[derive(Clone, Default)]
pub struct Off(Arc<AtomicI64>);

impl Off {
    pub fn by_ms(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let (off, right) = (self.clone(), Clock::system());
        Clock::new(move || UnixMs(right.now().0.saturating_add_signed(off.0.load(Ordering::SeqCst))))
    }
}

pub fn now() -> UnixMs {
    Clock::system().now()
}

/// Somebody, and a connection to each node that runs.
pub struct Person {
    pub credentials: Credentials,
    links: Vec<Option<(Client, Connection)>>,
}

pub struct Ward {
    pub hospitals: Hospitals,
    pub clocks: Vec<Off>,
    pub nodes: Vec<Option<Daemon>>,
    pub patient: Patient,
    pub owner: Person,
    pub gateway: Person,
    pub clinician: Person,
    pub writer: Writer,
    pub sealer: Sealer,
    /// The clinician's.
    pub grant: EheId,
}

impl Ward {
    /// Its nodes run, the room is made, and each of them serves it.
    pub async fn open(config: impl Fn(&mut Config)) -> Self {
        let hospitals = Hospitals::new(3, "");
        let clocks: Vec<Off> = (0..3).map(|_| Off::default()).collect();
        let mut nodes = Vec::new();
        for (n, clock) in clocks.iter().enumerate() {
            let mut settings = hospitals.config(n);
            config(&mut settings);
            nodes.push(Some(Daemon::start(settings, clock.clock()).await.unwrap()));
        }
        let mut people = Vec::new();
        for (name, role) in [("patient", Role::Patient), ("gateway", Role::Gateway), ("clinician", Role::Clinician)] {
            let credentials = hospitals.person(name, role);
            people.push(Person::connected(&hospitals, credentials).await);
        }
        let [clinician, gateway, owner] = [people.pop(), people.pop(), people.pop()].map(Option::unwrap);
        let alliance = hospitals.charter().alliance_id();
        let mut patient = Patient::new(owner.credentials.identity(), alliance, (0, 1), now());
        let mut events = patient.opening(now());
        events.push(patient.grant(gateway.credentials.identity().public(), Right::Append, None, now()));
        let grant = patient.grant(clinician.credentials.identity().public(), Right::Read, None, now());
        let id = grant.id();
        events.push(grant);
        let sealer = Sealer::new(gateway.credentials.identity(), &patient, now());
        let writer = Writer::new(gateway.credentials.identity(), patient.room);
        let mut this = Self { hospitals, clocks, nodes, patient, owner, gateway, clinician, writer, sealer, grant: id };
        this.by_owner(&events).await;
        let wrap = this.sealer.wrap.clone();
        this.by_gateway(&[wrap]).await;
        for n in 0..3 {
            this.serves(n).await;
        }
        this
    }

    /// Waits until a node reads out the room. Two take it in: the third may not have met them yet, nor have a connection to who leads.
    async fn serves(&self, n: usize) {
        let (me, patient) = (self.owner.credentials.identity(), &self.patient);
        let asking = async {
            loop {
                let request = request(me, patient.alliance, patient.room, Part::Ledger, now()).sign(me);
                if let (_, Response::Head(_)) = ended(&all(&mut self.owner.fetch(n, &request).await).await) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, asking).await.expect("it serves");
    }

    /// The patient's own events.
    pub async fn by_owner(&mut self, events: &[CheckedEvent]) -> Option<Submitted> {
        let run = self.patient.writer.run(events);
        self.owner.submit(run).await
    }

    /// The gateway's.
    pub async fn by_gateway(&mut self, events: &[CheckedEvent]) -> Option<Submitted> {
        let run = self.writer.run(events);
        self.gateway.submit(run).await
    }

    /// A run with events of so many bytes.
    pub async fn content(&mut self, events: usize, bytes: usize) -> Option<Submitted> {
        let events: Vec<_> = (0..events).map(|_| self.sealer.seal(&vec![7; bytes])).collect();
        self.by_gateway(&events).await
    }

    /// The clinician's request for everything, not asked with before.
    pub fn request(&self) -> SignedRequest {
        content(self.clinician.credentials.identity(), &self.patient, now())
    }

    /// Who leads, once all that run say the same.
    pub async fn leader(&self) -> usize {
        let ids: Vec<NodeId> = (0..3).map(|n| self.hospitals.id(n)).collect();
        let asking = async {
            loop {
                let mut said = Vec::new();
                for n in self.running() {
                    said.push(self.owner.status(n).await.leader);
                }
                if let Some(Some(leader)) = said.first()
                    && said.iter().all(|other| *other == Some(*leader))
                    && let Some(n) = ids.iter().position(|id| id == leader).filter(|n| self.nodes[*n].is_some())
                {
                    return n;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, asking).await.expect("one leads")
    }

    pub fn running(&self) -> Vec<usize> {
        (0..3).filter(|n| self.nodes[*n].is_some()).collect()
    }

    /// One that does not lead.
    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        self.running().into_iter().find(|n| *n != leader).unwrap()
    }

    pub fn counter(&self, n: usize, name: &str) -> u64 {
        let counters = self.nodes[n].as_ref().unwrap().counters();
        counters.into_iter().find(|(found, _)| *found == name).unwrap().1
    }

    /// Waits until all that run have applied as much as the furthest.
    pub async fn level(&self) {
        let asking = async {
            loop {
                let mut applied = Vec::new();
                for n in self.running() {
                    applied.push(self.owner.status(n).await.applied);
                }
                if applied.iter().all(|at| *at == applied[0]) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, asking).await.expect("all have the same");
    }

    /// The whole ledger of the room, verified, as a node shows it to the patient.
    pub async fn ledger(&self, n: usize) -> Vec<(Leaf, Verified)> {
        let (me, patient) = (self.owner.credentials.identity(), &self.patient);
        let ask = request(me, patient.alliance, patient.room, Part::Ledger, now());
        let (nonce, charter) = (ask.nonce, self.hospitals.charter());
        let mut exchange = self.owner.fetch(n, &ask.sign(me)).await;
        let (mut follower, mut out) = (Follower::new(patient.room, true), Vec::new());
        loop {
            match next(&mut exchange).await.unwrap().unwrap() {
                Response::Item(item) => {
                    let leaf = item.leaf.clone();
                    out.push((leaf, follower.take(item, patient.alliance).unwrap()));
                }
                Response::Head(head) => {
                    follower.confirm(&head, nonce, None, &charter).unwrap();
                    return out;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The granted reads in the audit.
    pub async fn reads(&self) -> usize {
        let granted = |entry: &Verified| matches!(entry, Verified::Access(record) if record.refused.is_none());
        self.ledger(self.leader().await).await.iter().filter(|(_, entry)| granted(entry)).count()
    }

    pub async fn stop(mut self) {
        for node in self.nodes.iter_mut().filter_map(Option::take) {
            node.stop().await.unwrap();
        }
    }
}

impl Person {
    pub async fn connected(hospitals: &Hospitals, credentials: Credentials) -> Self {
        let mut links = Vec::new();
        for n in 0..3 {
            links.push(Some(hospitals.connect(&credentials, n).await));
        }
        Self { credentials, links }
    }

    pub fn link(&self, n: usize) -> &Connection {
        &self.links[n].as_ref().unwrap().1
    }

    pub async fn status(&self, n: usize) -> ShardStatus {
        match ask(self.link(n), &Request::Status).await {
            Response::Status(mut status) => status.shards.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Asks whoever still answers until the run is in. `None`: it was there already, of an attempt whose answer did not come.
    pub async fn submit(&self, run: Submission) -> Option<Submitted> {
        let frame = Request::Submit(run);
        let asking = async {
            loop {
                for (_, connection) in self.links.iter().flatten().filter(|(_, connection)| connection.is_open()) {
                    match answer(connection, &frame).await {
                        Some(Response::Submitted(submitted)) => return Some(submitted),
                        Some(Response::Known(_)) => return None,
                        None | Some(Response::AskNode(_)) => {}
                        Some(Response::Refused(why)) if why.fault() == Fault::Node => {}
                        Some(other) => panic!("{other:?}"),
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, asking).await.expect("a receipt")
    }

    async fn open(&self, n: usize, request: &Request) -> Exchange {
        let mut exchange = self.link(n).open().await.unwrap();
        exchange.send(&request.to_vec(), LIMIT).await.unwrap();
        exchange.finish().unwrap();
        exchange
    }

    pub async fn fetch(&self, n: usize, signed: &SignedRequest) -> Exchange {
        let me = self.credentials.identity().public().clone();
        self.open(n, &Request::Fetch(signed.clone(), me)).await
    }

    pub async fn subscribe(&self, n: usize, signed: &SignedRequest) -> Exchange {
        let me = self.credentials.identity().public().clone();
        self.open(n, &Request::Subscribe(signed.clone(), me)).await
    }
}

/// The one answer, if the node gives it.
async fn answer(connection: &Connection, request: &Request) -> Option<Response> {
    let mut exchange = connection.open().await.ok()?;
    exchange.send(&request.to_vec(), LIMIT).await.ok()?;
    exchange.finish().ok()?;
    next(&mut exchange).await.ok()?
}

pub async fn next(exchange: &mut Exchange) -> Result<Option<Response>, certs::ChannelError> {
    Ok(exchange.recv(LIMIT).await?.map(|frame| Response::decode(&frame).unwrap()))
}

/// Everything up to the end.
pub async fn all(exchange: &mut Exchange) -> Vec<Response> {
    let mut out = Vec::new();
    while let Some(response) = next(exchange).await.unwrap() {
        out.push(response);
    }
    out
}

fn is_content(event: &ehe::event::Event) -> bool {
    ehe::event::decode_header(&event.header).unwrap().core.kind.is_content()
}

/// How many content events came, and how it ended.
pub fn ended(answers: &[Response]) -> (usize, &Response) {
    let events = answers.iter().map(|answer| match answer {
        Response::Item(item) => item.events.iter().filter(|event| is_content(event)).count(),
        _ => 0,
    });
    (events.sum(), answers.last().expect("an answer"))
}
