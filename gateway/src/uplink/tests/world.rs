//! An alliance on this machine: real certificates, real QUIC, real spool; nodes that keep the ledger of
//! [`crate::rooms::testing`] and misbehave on request.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::authority::{AUTHORITY_DAYS, Authority};
use certs::channel::{Client, CloseCode, Exchange, Peer, Server, ServerLimits};
use certs::enrol::{self, EnrolmentRequest, HostNames};
use certs::store::names;
use certs::{Credentials, Role, identity_file};
use ehe::charter::{Charter, CharterChain, SignedCharter};
use ehe::control::Control;
use ehe::event::{CheckedEvent, Kind};
use ehe::id::{EheId, EpochId, NodeId, RoomId};
use ehe::identity::Identity;
use ehe::leaf::{Leaf, Receipt};
use ehe::refusal::Refusal;
use ehe::restoration::SignedRestoration;
use ehe::time::UnixMs;
use ehe::vital::Category;
use ehe::wire::{Item, Request, Response, Submission, Submitted};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::rooms::testing::{self, Ledger, NOW, Patient, node_id, rng};
use crate::rooms::{Rooms, Sealer};
use crate::spool::{self, NewEvent, Spool, SpoolLimits, SpoolThread};
use crate::uplink::{Charters, Uplink, UplinkConfig, UplinkParts, UplinkStatus};

pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// What a node does wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// Closes the connection instead of answering so many submissions, after they were committed.
    pub(crate) lose_answers: usize,
    /// Answers with a receipt whose proof was altered.
    pub(crate) wrong_root: bool,
    /// Names another node.
    pub(crate) ask: Option<NodeId>,
    /// Refuses runs that bring one of these events.
    pub(crate) refuse: BTreeMap<EheId, Refusal>,
    /// Refuses everything.
    pub(crate) refuse_all: Option<Refusal>,
    /// Submissions received so far.
    pub(crate) submissions: usize,
    /// Answers a submission only once this is released.
    pub(crate) slow: Option<Arc<tokio::sync::Notify>>,
    /// Told when somebody asks whether the node is there.
    pub(crate) probed: Arc<tokio::sync::Notify>,
    /// Accepts so many connections and answers nothing on them.
    pub(crate) silent: usize,
    /// Charters to hand out.
    pub(crate) charters: CharterChain,
    /// Hands them out like this.
    pub(crate) charters_lie: Option<CharterLie>,
    /// Answers submissions with this instead of deciding on them, so many times.
    pub(crate) lie: Option<(Lie, usize)>,
    /// Answers a fetch without end.
    pub(crate) endless: bool,
    /// Shows rooms as this ledger has them.
    pub(crate) withholds: Option<Arc<Ledger>>,
    /// Its heads, and how its log goes on, are of this one.
    pub(crate) forks: Option<Arc<Ledger>>,
    /// Gives no heads.
    pub(crate) headless: bool,
}

/// What a node does that is asked for charters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CharterLie {
    /// Shows none.
    Nothing,
    /// Begins with the first, whichever it is asked for.
    FromTheFirst,
    /// Goes on after the last one with such as nobody signed.
    ForEver,
}

impl Script {
    fn charters_from(&self, from: u32) -> Vec<u8> {
        let before = usize::try_from(from).unwrap() - 1;
        let honest = CharterChain::piece(self.charters.0.iter().skip(before));
        match self.charters_lie {
            None => honest,
            Some(CharterLie::Nothing) => CharterChain::piece([]),
            Some(CharterLie::FromTheFirst) => CharterChain::piece(&self.charters.0),
            Some(CharterLie::ForEver) if before < self.charters.0.len() => honest,
            Some(CharterLie::ForEver) => {
                let last = self.charters.0.last().unwrap();
                let more = (from..from + 8).map(|version| Charter {
                    version,
                    predecessor: Some(last.hash()),
                    ..last.read().unwrap()
                });
                CharterChain::piece(&more.map(|charter| SignedCharter::unsigned(&charter).unwrap()).collect::<Vec<_>>())
            }
        }
    }
}

/// Answers that a node of the alliance can give, and that prove nothing.
#[derive(Debug, Clone)]
pub(crate) enum Lie {
    /// A frame of these bytes.
    Bytes(Vec<u8>),
    /// This response.
    Response(Response),
    /// The receipt of the run that came before this one.
    EarlierReceipt,
    /// The earlier run and its receipt, as known.
    EarlierRun,
    /// A good receipt, altered.
    Altered(fn(&mut Receipt)),
    /// A good receipt, of another log of the size that this one has.
    Fork,
    /// The stream ends without an answer.
    Nothing,
}

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) authority: Authority,
    members: Vec<Identity>,
    pub(crate) nodes: Vec<Identity>,
    addresses: Vec<SocketAddr>,
    pub(crate) chain: CharterChain,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) scripts: Vec<Arc<Mutex<Script>>>,
    pub(crate) gateway: Credentials,
}

impl World {
    pub(crate) fn new(count: usize) -> Self {
        Self::with_members(count, count)
    }

    /// Nodes of the first of so many members.
    pub(crate) fn with_members(members: usize, count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = time::OffsetDateTime::now_utc();
        let authority = Authority::create(&dir.path().join("alliance"), "Test", AUTHORITY_DAYS, now).unwrap();
        let members: Vec<Identity> = (0..members).map(|_| testing::identity()).collect();
        let sockets: Vec<UdpSocket> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<SocketAddr> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
        let node_dir = |index: usize| dir.path().join(format!("node-{index}"));
        let nodes: Vec<Identity> = (0..count)
            .map(|index| enrol(&authority, &node_dir(index), Role::Node, vec![format!("node-{index}.example")]))
            .collect();
        let gateway_dir = dir.path().join("gateway");
        enrol(&authority, &gateway_dir, Role::Gateway, vec![]);
        let listed: Vec<(Identity, String)> =
            nodes.iter().cloned().zip(addresses.iter().map(|a| a.to_string())).collect();
        let chain = testing::charter(&members, &listed);
        for dir in (0..count).map(node_dir).chain([gateway_dir.clone()]) {
            std::fs::write(dir.join(names::CA), authority.pem()).unwrap();
            std::fs::write(dir.join(names::CHARTER), chain.encode()).unwrap();
        }
        let gateway = Credentials::load(&gateway_dir).unwrap();
        let ledger = Arc::new(Mutex::new(Ledger::new(gateway.charter().clone(), nodes.clone())));
        let scripts = (0..count).map(|_| Arc::new(Mutex::new(Script::default()))).collect();
        Self { dir, authority, members, nodes, addresses, chain, ledger, scripts, gateway }
    }

    /// The members sign a further version of the charter; the nodes speak under it from now on.
    pub(crate) fn next_charter(&mut self) {
        self.put_out(testing::next_charter(&self.chain, &self.members));
    }

    /// The same, of a charter that raises the rules version.
    pub(crate) fn raise_rules(&mut self, rules: u16) {
        let chain = testing::charter_behind(&self.chain, &self.members, |next| next.rules = Some(rules));
        self.put_out(chain);
    }

    fn put_out(&mut self, chain: ehe::charter::CharterChain) {
        self.chain = chain;
        self.ledger.lock().unwrap().charter = self.chain.verify(self.gateway.alliance_id()).unwrap();
        for script in &self.scripts {
            script.lock().unwrap().charters = self.chain.clone();
        }
    }

    /// The nodes lose their log, and begin it again from its first leaves; so many members sign what was kept.
    pub(crate) fn restore(&self, kept: usize, signed: usize) {
        self.ledger.lock().unwrap().restore(kept, &self.members[..signed]);
        for script in &self.scripts {
            script.lock().unwrap().charters = self.chain.clone();
        }
    }

    pub(crate) fn node_id(&self, index: usize) -> NodeId {
        node_id(&self.nodes[index])
    }

    pub(crate) fn script(&self, index: usize, change: impl FnOnce(&mut Script)) {
        change(&mut self.scripts[index].lock().unwrap());
    }

    /// Starts node `index` at its address.
    pub(crate) fn start(&self, index: usize) -> Running {
        let credentials = Credentials::load(&self.dir.path().join(format!("node-{index}"))).unwrap();
        let server = Server::bind(self.addresses[index], &credentials, ServerLimits::default()).unwrap();
        let (ledger, script, stop) = (self.ledger.clone(), self.scripts[index].clone(), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut peers = JoinSet::new();
            loop {
                tokio::select! {
                    () = stopped.cancelled() => break,
                    Some(handshake) = server.accept() => {
                        let (ledger, script) = (ledger.clone(), script.clone());
                        peers.spawn(async move {
                            let Ok(peer) = handshake.complete().await else { return };
                            let peer = Arc::new(peer);
                            let mut exchanges = JoinSet::new();
                            if take_silent(&script) {
                                peer.closed().await;
                            }
                            while let Ok(exchange) = peer.accept_exchange().await {
                                let (peer, ledger, script) = (peer.clone(), ledger.clone(), script.clone());
                                exchanges.spawn(async move {
                                    let _ = answer(&peer, exchange, &ledger, &script).await;
                                });
                            }
                        });
                    }
                }
            }
            server.close(CloseCode::GoingAway);
            peers.shutdown().await;
            server.wait_idle(WITHIN).await;
        });
        Running { stop, task }
    }

    pub(crate) fn start_all(&self) -> Vec<Running> {
        (0..self.nodes.len()).map(|index| self.start(index)).collect()
    }

    /// A patient with a cardiac epoch that is granted to the gateway.
    pub(crate) fn patient(&self) -> (Patient, EpochId, EheId) {
        let mut ledger = self.ledger.lock().unwrap();
        let mut patient = Patient::new(&mut ledger);
        let epoch = patient.epoch(&mut ledger, Category::Cardiac, None, &[], &[]);
        let subject = self.gateway.identity().public().clone();
        let grant = patient.grant(&mut ledger, &subject, &[(epoch, Category::Cardiac)], None);
        (patient, epoch, grant)
    }

    /// The gateway's spool and rooms, from its data directory; it assigns these rooms.
    pub(crate) async fn home(&self, rooms: &[RoomId]) -> Home {
        let data: PathBuf = self.dir.path().join("data");
        spool::create_dir(&data).unwrap();
        let limits = SpoolLimits {
            max_bytes: 1 << 30,
            room_max_bytes: 1 << 30,
            held_max_bytes: 1 << 20,
            held_devices_max: 10,
            quarantine_max_bytes: 1 << 28,
            gather_ms: 0,
            unacknowledged_max: 100,
            retry_min_ms: 1,
            retry_max_ms: 10,
        };
        let clock: crate::clock::WallClock = Arc::new(|| NOW);
        let (spool, thread) =
            Spool::open(spool::file(&data, 1 << 20), &data.join("spool.keys"), limits, clock.clone(), None).unwrap();
        let known = Rooms::new(Arc::new(self.gateway.identity().clone()), self.gateway.alliance_id());
        for (room, saved) in spool.load_rooms().await.unwrap() {
            known.restore(room, &saved).unwrap();
        }
        known.assigned(rooms.iter().copied().collect());
        let sealer = Sealer::new(known.clone(), 3);
        Home { spool, thread: Some(thread), rooms: known, sealer, gateway: self.gateway.clone(), data }
    }
}

/// A running node; vanishes when stopped.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn enrol(authority: &Authority, dir: &Path, role: Role, dns: Vec<String>) -> Identity {
    let prepared = enrol::prepare(dir, role, &HostNames { dns, ip: vec![] }).unwrap();
    let request = EnrolmentRequest::load(&prepared.request).unwrap().verify().unwrap();
    let issued = authority.issue(&request, role, 30, time::OffsetDateTime::now_utc()).unwrap();
    std::fs::write(dir.join(names::CHANNEL), issued.pem).unwrap();
    identity_file::load(&dir.join(names::IDENTITY)).unwrap()
}

async fn answer(
    peer: &Peer,
    mut exchange: Exchange,
    ledger: &Mutex<Ledger>,
    script: &Mutex<Script>,
) -> Result<(), certs::ChannelError> {
    let Some(frame) = exchange.recv(WITHIN).await? else { return Ok(()) };
    let answers = match Request::decode(&frame).unwrap() {
        Request::Submit(submission) => {
            let slow = script.lock().unwrap().slow.clone();
            if let Some(released) = slow {
                released.notified().await;
            }
            if let Some(lie) = take_lie(script) {
                let told = lied(lie, &submission, ledger);
                if let Some(bytes) = told {
                    exchange.send(&bytes, WITHIN).await?;
                }
                exchange.finish()?;
                return exchange.delivered(WITHIN).await;
            }
            match submit(&submission, ledger, script) {
                Some(response) => vec![response],
                None => {
                    peer.close(CloseCode::Internal);
                    return Ok(());
                }
            }
        }
        Request::Status => {
            script.lock().unwrap().probed.notify_one();
            vec![Response::Refused(Refusal::RoleNotAllowed)]
        }
        Request::Fetch(request, reader) => {
            let old = script.lock().unwrap().withholds.clone();
            let answers = match old {
                Some(old) => old.fetch(&request, &reader),
                None => ledger.lock().unwrap().fetch(&request, &reader),
            };
            let endless = script.lock().unwrap().endless;
            if endless {
                return drip(exchange, answers, script).await;
            }
            answers
        }
        Request::Restorations(0, from) => {
            let ledger = ledger.lock().unwrap();
            let wanted = |record: &&SignedRestoration| record.read().unwrap().incarnation >= from;
            let records = ledger.records.iter().filter(wanted).map(|record| record.encode().into()).collect();
            vec![Response::Restorations(records)]
        }
        Request::Extends(0, smaller, larger) => {
            let script = script.lock().unwrap();
            let shown = script.forks.clone().or(script.withholds.clone());
            vec![match shown {
                Some(shown) => shown.extends(smaller, larger),
                None => ledger.lock().unwrap().extends(smaller, larger),
            }]
        }
        Request::Head(room, nonce) => {
            let headless = script.lock().unwrap().headless;
            let forks = script.lock().unwrap().forks.clone();
            let head = || match forks {
                Some(forked) => forked.head_of(room, nonce),
                None => ledger.lock().unwrap().head_of(room, nonce),
            };
            let head = (!headless).then(head).flatten();
            vec![head.map_or(Response::Refused(Refusal::NoLeader), Response::Head)]
        }
        Request::Charter(from) => vec![Response::Charter(script.lock().unwrap().charters_from(from))],
        other => panic!("{other:?}"),
    };
    for answer in answers {
        exchange.send(&answer.to_vec(), WITHIN).await?;
    }
    exchange.finish()?;
    exchange.delivered(WITHIN).await
}

fn take_lie(script: &Mutex<Script>) -> Option<Lie> {
    let mut script = script.lock().unwrap();
    let (lie, times) = script.lie.take()?;
    script.submissions += 1;
    if times > 1 {
        script.lie = Some((lie.clone(), times - 1));
    }
    Some(lie)
}

fn lied(lie: Lie, submission: &Submission, ledger: &Mutex<Ledger>) -> Option<Vec<u8>> {
    let mut ledger = ledger.lock().unwrap();
    let room = submission.run.decode().unwrap().claims().room;
    let response = match lie {
        Lie::Bytes(bytes) => return Some(bytes),
        Lie::Nothing => return None,
        Lie::Fork => ledger.forked(submission),
        Lie::Response(response) => response,
        Lie::EarlierReceipt => {
            let receipt = ledger.last_run(room).receipt;
            Response::Submitted(Submitted { receipt, control_seq: 0 })
        }
        Lie::EarlierRun => Response::Known(vec![ledger.last_run(room)]),
        Lie::Altered(alter) => {
            let mut response = ledger.submit(submission);
            match &mut response {
                Response::Submitted(submitted) => alter(&mut submitted.receipt),
                // It was committed by the lie before this one.
                Response::Known(runs) => runs.iter_mut().for_each(|run| alter(&mut run.receipt)),
                other => panic!("{other:?}"),
            }
            response
        }
    };
    Some(response.to_vec())
}

/// The true entries, and then bare leaves that follow each other for ever.
async fn drip(
    mut exchange: Exchange,
    answers: Vec<Response>,
    script: &Mutex<Script>,
) -> Result<(), certs::ChannelError> {
    let mut last = None;
    for answer in answers {
        if let Response::Item(item) = &answer {
            last = Some(item.leaf.clone());
        }
        if !matches!(answer, Response::Head(_)) {
            exchange.send(&answer.to_vec(), WITHIN).await?;
        }
    }
    let Some(mut leaf) = last else { return Ok(()) };
    while script.lock().unwrap().endless {
        leaf = Leaf { index: leaf.index + 1, previous: leaf.hash(), ..leaf };
        let item = Item { leaf: leaf.clone(), run: None, events: Vec::new(), access: None, void: None };
        exchange.send(&Response::Item(item).to_vec(), WITHIN).await?;
    }
    Ok(())
}

fn take_silent(script: &Mutex<Script>) -> bool {
    let mut script = script.lock().unwrap();
    let silent = script.silent > 0;
    script.silent = script.silent.saturating_sub(1);
    silent
}

/// None: the answer is lost.
fn submit(submission: &Submission, ledger: &Mutex<Ledger>, script: &Mutex<Script>) -> Option<Response> {
    let mut script = script.lock().unwrap();
    script.submissions += 1;
    if let Some(node) = script.ask {
        return Some(Response::AskNode(node));
    }
    if let Some(refusal) = script.refuse_all {
        return Some(Response::Refused(refusal));
    }
    let ids = &submission.run.decode().unwrap().claims().ids.clone();
    if let Some((_, refusal)) = script.refuse.iter().find(|(id, _)| ids.contains(id)) {
        return Some(Response::Refused(*refusal));
    }
    let mut response = ledger.lock().unwrap().submit(submission);
    if let (true, Response::Submitted(submitted)) = (script.wrong_root, &mut response) {
        submitted.receipt.leaf.accepted_at = UnixMs(0);
    }
    if script.lose_answers > 0 {
        script.lose_answers -= 1;
        return None;
    }
    Some(response)
}

/// The gateway without its uplink.
pub(crate) struct Home {
    pub(crate) spool: Spool,
    thread: Option<SpoolThread>,
    pub(crate) rooms: Rooms,
    pub(crate) sealer: Sealer,
    gateway: Credentials,
    data: PathBuf,
}

impl Home {
    /// Where evidence is kept.
    pub(crate) fn evidence(&self) -> PathBuf {
        self.data.join("evidence")
    }

    /// Waits until the room is followed.
    pub(crate) async fn followed(&self, room: RoomId) {
        let mut changed = self.rooms.changed();
        let known = tokio::time::timeout(WITHIN, changed.wait_for(|_| self.rooms.get(room).is_some())).await;
        known.expect("the room is followed in time").unwrap();
    }

    /// Seals one reading a window, as many as `count`, and puts them into the outbox. The wrap's id is left out.
    pub(crate) async fn fill(&self, room: RoomId, count: u64) -> Vec<EheId> {
        let mut ids = Vec::new();
        for index in 0..count {
            let readings = [crate::rooms::tests::reading(NOW.plus_ms(index), "61", "strap")];
            let sealed = self.sealer.seal(&mut rng(), room, Category::Cardiac, &readings, NOW).unwrap();
            let (events, commit) = sealed.into_parts();
            let checked: Vec<CheckedEvent> = events.into_iter().map(|s| s.event).collect();
            ids.extend(checked.iter().filter(|e| e.core().kind == Kind::Vitals).map(CheckedEvent::id));
            self.put(checked).await;
            self.sealer.committed(commit);
        }
        ids
    }

    pub(crate) async fn put(&self, events: Vec<CheckedEvent>) {
        let new = |event: CheckedEvent| NewEvent {
            readings: u32::from(Control::decode(&event).is_err()),
            event,
            oldest: NOW,
            urgent: false,
            report: vec![],
        };
        self.spool.seal(vec![], vec![], events.into_iter().map(new).collect()).await.unwrap();
    }

    /// Waits until so many events are in the outbox: the spool counts them a moment after it answers.
    pub(crate) async fn waiting(&self, events: u64) {
        let mut changed = self.spool.changed();
        let count = || -> u64 { self.spool.backlog().iter().map(|of| of.events).sum() };
        let reached = tokio::time::timeout(WITHIN, changed.wait_for(|_| count() == events)).await;
        reached.unwrap_or_else(|_| panic!("{} events wait, not {events}", count())).unwrap();
    }

    /// Runs an uplink.
    pub(crate) fn uplink(&self) -> Up {
        self.uplink_within(5_000, 0)
    }

    /// Runs an uplink that waits so long for each answer, and believes a node that lied again after so long.
    pub(crate) fn uplink_within(&self, exchange_ms: u64, distrust_s: u64) -> Up {
        let config = UplinkConfig {
            connect_ms: 2_000,
            exchange_ms,
            backoff_min_ms: 5,
            backoff_max_ms: 50,
            distrust_s,
            credentials_reload_s: 1,
            control_refresh_s: 3_600,
            ..UplinkConfig::default()
        };
        let uplink = Uplink::new(UplinkParts {
            client: Client::new(&self.gateway).unwrap(),
            credentials: self.gateway.clone(),
            charters: Charters::of(&self.gateway, &self.data).unwrap(),
            evidence: self.evidence(),
            spool: self.spool.clone(),
            rooms: self.rooms.clone(),
            sealer: self.sealer.clone(),
            config,
            clock: Arc::new(|| NOW),
        });
        let (status, stop) = (uplink.status(), CancellationToken::new());
        Up { status, task: tokio::spawn(uplink.run(stop.clone())), stop }
    }

    pub(crate) fn close(mut self) {
        self.thread.take().unwrap().stop();
    }
}

/// A running uplink.
pub(crate) struct Up {
    pub(crate) status: watch::Receiver<UplinkStatus>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Up {
    /// Waits until the status is as wanted.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl FnMut(&UplinkStatus) -> bool) -> UplinkStatus {
        let reached = tokio::time::timeout(WITHIN, self.status.wait_for(wanted)).await.map(|s| s.unwrap().clone());
        reached.unwrap_or_else(|_| panic!("not reached: {what}; {:?}", self.status.borrow()))
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(WITHIN, self.task).await.expect("the uplink ends in time").unwrap();
    }
}

/// Each id once.
pub(crate) fn distinct(ids: &[EheId]) -> usize {
    ids.iter().collect::<BTreeSet<_>>().len()
}
