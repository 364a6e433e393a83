//! A campaign: an alliance on prepared ground, a home, a crowd of clients, a plan of faults, and the checker's verdict at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use certs::Credentials;
use certs::passphrase::Source;
use ehe::id::{NodeId, RoomId};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bench::crowd::Crowd;
use crate::checker::history::{Finals, History, Outcome};
use crate::checker::{Limits, Violation, judge};
use crate::lab::alliance::Founding;
use crate::lab::charters::Charters;
use crate::lab::leaders::Leaders;
use crate::lab::process::until;
use crate::nemesis::fault::{Fault, Injected, Planned, Sort, Whom};
use crate::nemesis::ground::{Ground, Laying};
use crate::nemesis::members::Members;
use crate::nemesis::plan::{Wanted, plan};
use crate::nemesis::strike::Field;
use crate::scenario::{self, Options, Scene};
use crate::traffic::book::Book;
use crate::traffic::readers::Reader;
use crate::traffic::replicas::Inspector;
use crate::traffic::rights::Patient;
use crate::traffic::writers::write;
use crate::view::View;

/// All nodes stand in one place. All clients share one address here, where a hospital's have one each.
const NODE: &str = "[consensus]\ntiming = \"lan\"\n[limits]\nconnections_max = 1024\nhandshakes_max = 1024\n";
/// The home's gateway gathers readings for so long.
const WINDOW_MS: u64 = 700;
/// Shards: more than one, so that nodes lead some and follow in others.
const SHARDS: u16 = 2;
/// The gateway's spool is empty within this time of the last receipt.
const EMPTY: Duration = Duration::from_secs(30);
/// Violations that are said; all are written down.
const VIOLATIONS_SAID: usize = 12;
/// How often leaders are moved at most so that each of three nodes shows its rooms whole. With more it is left to the heads.
const TOUR: usize = 12;

/// A node program that is broken on purpose.
#[derive(Debug, Clone)]
pub struct Red {
    /// The program.
    pub program: PathBuf,
    /// Its fault.
    pub fault: &'static str,
    /// Which nodes have it: from the first on. The others run the same program without its fault.
    pub nodes: usize,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// Folder for everything; made anew.
    pub out: PathBuf,
    /// Decides the plan, the readings, and who asks for what.
    pub seed: u64,
    /// Nodes that have the shards.
    pub nodes: usize,
    /// A node more, which has none and waits: without it none is added and removed.
    pub spare: bool,
    /// How many kills.
    pub kills: usize,
    /// How many of each other sort of fault.
    pub others: usize,
    /// Faults in this order, in place of a plan of those.
    pub faults: Option<Vec<Planned>>,
    /// No fault is begun after this time.
    pub for_at_most: Duration,
    /// Writers of the crowd, each with a room.
    pub writers: usize,
    /// Partitions by a relay, though there may be namespaces.
    pub relay: bool,
    /// Disks say that they have synced, and have not.
    pub disks_lie: bool,
    /// Broken on purpose.
    pub red: Option<Red>,
}

impl Campaign {
    /// Three nodes and one that waits, eight writers.
    pub fn new(out: impl Into<PathBuf>, seed: u64) -> Self {
        Self {
            out: out.into(),
            seed,
            nodes: 3,
            spare: true,
            kills: 0,
            others: 0,
            faults: None,
            for_at_most: Duration::from_secs(24 * 3600),
            writers: 8,
            relay: false,
            disks_lie: false,
            red: None,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// From the first fault's turn to the verdict.
    pub took_s: u64,
    /// What happened.
    pub injected: Vec<Injected>,
    /// Receipts that writers verified.
    pub receipts: usize,
    /// Reads that were served, and that were refused.
    pub reads: (usize, usize),
    /// Grants and revocations.
    pub rights: usize,
    /// Runs with a false signature that were tried.
    pub forged: usize,
    /// Readings of the home that were read back.
    pub readings: usize,
    /// How many nodes showed their rooms whole; the others showed where they end.
    pub whole: usize,
    /// Promises that were broken.
    pub violations: Vec<Violation>,
}

impl Report {
    /// How many of each sort of fault.
    pub fn counted(&self) -> BTreeMap<Sort, usize> {
        Injected::counted(&self.injected)
    }

    /// In a few lines.
    pub fn told(&self) -> String {
        let faults: Vec<String> = self.counted().iter().map(|(sort, count)| format!("{count} × {sort}")).collect();
        let mut agreed: Vec<u64> = self.injected.iter().filter_map(|it| it.agreed_ms).collect();
        agreed.sort_unstable();
        format!(
            "{} s: {}\n{} receipts, {} reads served, {} refused, {} grants and revocations, {} forged runs, {} readings of the home; \
             leaders agreed after a fault within {} ms (median), {} ms (longest); {} nodes showed all rooms whole; {} violations",
            self.took_s,
            faults.join(", "),
            self.receipts,
            self.reads.0,
            self.reads.1,
            self.rights,
            self.forged,
            self.readings,
            agreed.get(agreed.len() / 2).copied().unwrap_or(0),
            agreed.last().copied().unwrap_or(0),
            self.whole,
            self.violations.len()
        )
    }
}

/// Runs it to its end.
pub async fn run(campaign: &Campaign, view: &View) -> Result<Report> {
    let say = |text: String| view.say(text);
    crate::folder::anew(&campaign.out)?;
    let out = campaign.out.canonicalize()?;
    let wait = usize::from(campaign.spare);
    let laying = Laying { nodes: campaign.nodes + wait, wait, relay: campaign.relay };
    let (mut ground, mut sites) = Ground::lay(&out.join("ground"), laying, &say).await?;
    if let Some(red) = &campaign.red {
        for (number, site) in (1..).zip(&mut sites) {
            site.program = Some(red.program.clone());
            if number <= red.nodes {
                site.environment.push(("EHE_RED".into(), red.fault.into()));
            }
        }
    }
    let options = Options {
        founding: Founding { members: laying.nodes, shards: Some(SHARDS) },
        node: NODE,
        window_ms: WINDOW_MS,
        sites: Some(sites),
        ..Options::new(out.join("lab"), campaign.seed)
    };
    let mut scene = Scene::set_up(&options, view.clone()).await?;
    for node in scene.nodes() {
        ground.runs(node.number, node.daemon.id());
    }
    let leaders = Leaders::asked_by(&scene.alliance, "clinician")?;
    let charters = leaders.charters();
    let mut members = Members::new(&scene.alliance, &charters, ground.small_disk())?;
    leaders.agreed(&members.holders(), Duration::from_secs(30)).await?;
    let crowd = crowd(&scene, campaign.writers, &say).await?;

    if campaign.disks_lie {
        ground.disks_lie()?;
    }
    let begun = Instant::now();
    let book = Book::new(begun);
    let (stop, stopped) = watch::channel(false);
    let mut publishing = scene.publish(&stopped)?;
    let mut clients = clients(&scene, &crowd, &charters, campaign, &book, &stopped).await?;

    let faults = match &campaign.faults {
        Some(faults) => faults.clone(),
        None => {
            let possible = |sort| ground.can(sort) && (campaign.spare || sort != Sort::Members);
            plan(campaign.seed, &Wanted::kills_and_others(campaign.nodes, campaign.kills, campaign.others, possible))
        }
    };
    let mut field = Field {
        nodes: std::iter::once(&mut scene.node).chain(&mut scene.others).collect(),
        gateway: Some(&mut scene.gateway),
        ground: &mut ground,
        members: &mut members,
        leaders: &leaders,
        begun,
        injected: Vec::new(),
        unhealed: Vec::new(),
    };
    for planned in &faults {
        if begun.elapsed() > campaign.for_at_most || !field.strike(planned, &say).await? {
            break;
        }
    }
    // The writers' last runs may be on their way yet: each ends with a receipt, or with what is wrong.
    stop.send_replace(true);
    while let Some(ended) = clients.join_next().await {
        ended.context("a client of the campaign panicked")?;
    }
    say("all clients are silent".into());

    let rooms: BTreeSet<RoomId> = crowd.gateways.iter().map(|gateway| gateway.room).collect();
    // Whoever was removed is asked for nothing any more, but for evidence.
    let all = field.members.holders();
    let ids = all.iter().map(|number| leaders.id(*number)).collect::<Result<Vec<NodeId>>>()?;
    let (identity, line) = crowd.patient();
    let mut inspector = Inspector::new(identity, line, &charters);
    inspector.collect(&ids, &rooms).await;
    for _ in 0..if all.len() <= 3 { TOUR } else { 0 } {
        if inspector.has_all(&ids, &rooms) {
            break;
        }
        // Who does not lead shows no room whole: another one is made to lead.
        let kill =
            Planned { after: Duration::ZERO, fault: Fault::Kill(Whom::Leader), lasts: Duration::from_millis(1200) };
        if !field.strike(&kill, &say).await? {
            break;
        }
        field.injected.pop();
        inspector.collect(&ids, &rooms).await;
    }
    let (injected, unhealed) = (std::mem::take(&mut field.injected), std::mem::take(&mut field.unhealed));
    let whole = ids.iter().filter(|id| inspector.has_all(std::slice::from_ref(id), &rooms)).count();
    let mut finals =
        Finals { replicas: inspector.replicas(&ids, &rooms).await, own: rooms, unhealed, ..Finals::default() };
    for number in scene.alliance.numbers() {
        let kept = leaders.status(number).await.and_then(|status| status.evidence);
        let kept = kept.map_or(0, |kept| u64::from(kept.get()));
        match finals.replicas.get_mut(&leaders.id(number)?) {
            Some(replica) => replica.evidence = kept,
            None if kept > 0 => finals.unhealed.push(format!("node {number}, which was removed, has evidence")),
            None => {}
        }
    }
    let readings = match home(&mut scene, &mut publishing, &mut finals).await {
        Ok(readings) => readings,
        Err(why) => {
            book.wrong("the home", format!("{why:#}"));
            0
        }
    };
    for node in scene.nodes() {
        if let Err(why) = node.daemon.stop().await {
            finals.unhealed.push(format!("node {}: {why:#}", node.number));
        }
    }
    let history = book.read();
    let violations = judge(&history, &finals, Limits::default());
    let report = report(begun.elapsed(), injected, &history, (readings, whole), violations);
    keep(&out, &report, &history, &finals)?;
    say(report.told());
    for violation in report.violations.iter().take(VIOLATIONS_SAID) {
        say(format!("VIOLATION {violation}"));
    }
    if report.violations.len() > VIOLATIONS_SAID {
        say(format!("and more, in {}", out.join("report.json").display()));
    }
    Ok(report)
}

async fn crowd(scene: &Scene, writers: usize, say: &impl Fn(String)) -> Result<Crowd> {
    let alliance = &scene.alliance;
    let owner = alliance.enrol("crowd", "patient").await?;
    let owner = Credentials::open(&owner, &Source::File(alliance.path("passphrase")))?;
    Crowd::among(alliance, owner, writers, say).await
}

/// Starts writers, readers and the patient.
async fn clients(
    scene: &Scene,
    crowd: &Crowd,
    charters: &Charters,
    campaign: &Campaign,
    book: &Book,
    stop: &watch::Receiver<bool>,
) -> Result<JoinSet<()>> {
    let mut clients = JoinSet::new();
    for (n, writer) in crowd.writers(campaign.writers).await?.into_iter().enumerate() {
        // One of them tries what it must not.
        let (name, forges) = (format!("writer {n}"), n == 0);
        clients.spawn(write(writer, name, forges, charters.clone(), book.clone(), stop.clone()));
    }
    let mut readers = Vec::new();
    for (who, watches) in [("reader1", false), ("reader2", false), ("watcher", true)] {
        let folder = scene.alliance.enrol(who, "clinician").await?;
        let credentials = Credentials::open(&folder, &Source::File(scene.alliance.path("passphrase")))?;
        readers.push(credentials.identity().public().clone());
        let rooms = crowd.gateways.clone();
        let reader = Reader::new(who.into(), &credentials, charters, rooms, watches, campaign.seed ^ 0x5ead)?;
        clients.spawn(reader.read(book.clone(), stop.clone()));
    }
    let rooms = crowd.gateways.clone();
    let patient = Patient::new(crowd.patient(), charters, rooms, readers, campaign.seed ^ 0xda7e);
    clients.spawn(patient.decide(book.clone(), stop.clone()));
    Ok(clients)
}

/// The home, real from the wearables to the clinician: everything that was published is read back once, and nothing waits any more.
async fn home(scene: &mut Scene, publishing: &mut JoinSet<Result<usize>>, finals: &mut Finals) -> Result<usize> {
    let published = scenario::silence(publishing).await?;
    scenario::settle(scene, published).await?;
    let status = scene.gateway.data().join("status.json");
    let mut last = 0;
    let empty = until("the gateway's spool is empty", EMPTY, || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let totals = serde_json::from_str::<serde_json::Value>(&text).ok();
        let waits = |name: &str| totals.as_ref()?.pointer(&format!("/spool/totals/{name}"))?.as_u64();
        let waiting = ["readings_bytes", "outbox_bytes", "quarantine_bytes"].map(waits);
        let sum = waiting.iter().try_fold(0, |sum, bytes| Some(sum + (*bytes)?));
        last = sum.unwrap_or(u64::MAX);
        async move { Ok((sum == Some(0)).then_some(())) }
    });
    let _ = empty.await;
    finals.spooled.insert("of the home".into(), last);
    let account = scenario::finish(scene).await?;
    finals
        .unhealed
        .extend(account.faults().into_iter().map(|fault| format!("the home's account: {fault}: {account:?}")));
    Ok(account.read_back)
}

fn report(
    took: Duration,
    injected: Vec<Injected>,
    history: &History,
    (readings, whole): (usize, usize),
    violations: Vec<Violation>,
) -> Report {
    let reads = |wanted: fn(&Outcome) -> bool| history.reads.iter().filter(|read| wanted(&read.outcome)).count();
    Report {
        took_s: took.as_secs(),
        injected,
        receipts: history.received.len(),
        reads: (
            reads(|outcome| matches!(outcome, Outcome::Served { .. })),
            reads(|outcome| matches!(outcome, Outcome::Refused(_))),
        ),
        rights: history.rights.len(),
        forged: history.sent.iter().filter(|sent| !sent.genuine).count(),
        readings,
        whole,
        violations,
    }
}

/// What a verdict was made from: of a campaign that failed, whole.
fn keep(out: &Path, report: &Report, history: &History, finals: &Finals) -> Result<()> {
    std::fs::write(out.join("report.json"), serde_json::to_vec_pretty(report)?)?;
    if !report.violations.is_empty() {
        std::fs::write(out.join("history.json"), serde_json::to_vec(history)?)?;
        std::fs::write(out.join("finals.json"), serde_json::to_vec(finals)?)?;
    }
    Ok(())
}
