//! What those who run a node do beside serving: the background scrub, backup, `ehe-node verify`, restore. The built programs, one node, with
//! writers beside where that matters.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::crowd::{BODY_MIN_BYTES, Crowd, NODE_FOR_MANY, Standing};
use super::load::{BACKLOG_RUNS, BACKLOGS, RUN_EVENTS, Round, best, rounds};
use super::table::Row;
use super::usage;
use crate::lab::alliance::{Alliance, Founding};
use crate::lab::node::Node;
use crate::lab::process::{Programs, run as to_its_end};
use crate::lab::site::Site;
use crate::view::View;

/// The group of these rows.
pub(super) const GROUP: &str = "upkeep";

/// Of backlogs, before anything is measured: half a million events.
const FILLING: usize = 8;
/// Who writes one event at a time beside.
const WRITERS: usize = 64;
const SINGLE_RUNS: usize = 150;
const ROUNDS: usize = 3;
const WATCHED: Duration = Duration::from_secs(15);
/// What was applied is durable then (`storage.durable_after_ms`).
const SETTLED: Duration = Duration::from_secs(4);
const PROGRAM: Duration = Duration::from_secs(300);
/// Events that a node looks at in a second unless it is told otherwise (`scrub.events_per_s`).
const SCRUB_PER_S: u64 = 2_000;
const COUNTED: &str = "[running]\ncounters_interval_ms = 1000\n";
/// Again and again.
const SCRUBBED: &str = "[scrub]\nevery_s = 1\n";
/// As good as no scrub.
const UNSCRUBBED: &str = "[scrub]\nevents_per_s = 1\n";

/// Measures.
pub(super) async fn run(out: &Path) -> Result<Vec<Row>> {
    std::fs::create_dir_all(out)?;
    let view = View::new([], false);
    let say = |text: String| view.say(text);
    let (programs, lab) = (Programs::built()?, out.join("lab"));
    let (founding, sites) = (Founding::default(), Site::on_loopback(1)?);
    let scrubbed = format!("{NODE_FOR_MANY}{COUNTED}{SCRUBBED}");
    let standing = Standing::found(&programs, &lab, founding, sites, &scrubbed).await?;
    let mut crowd = Crowd::on(standing, BACKLOGS, BODY_MIN_BYTES, &say).await?;
    say(format!("filling it with {FILLING} times {BACKLOGS} backlogs"));
    let mut backlogs = crowd.writers(BACKLOGS).await?;
    let filled = rounds(&crowd, &mut backlogs, (FILLING, BACKLOG_RUNS, RUN_EVENTS), &say).await?;
    let events: usize = filled.iter().map(|round| round.events).sum();
    tokio::time::sleep(SETTLED).await;

    say(format!("the scrub, for {WATCHED:?}"));
    let with_scrub = Seen::of(&crowd).await?;
    let beside_scrub = singly(&crowd, &say).await?;
    restart(&mut crowd, &format!("{NODE_FOR_MANY}{COUNTED}{UNSCRUBBED}")).await?;
    say(format!("no scrub, for {WATCHED:?}"));
    let without = Seen::of(&crowd).await?;
    let alone = singly(&crowd, &say).await?;
    let mut rows = vec![scrub(&with_scrub, &without, &beside_scrub, &alone)];

    let tool = Tool { alliance: crowd.alliance.clone(), say: &say };
    let state = usage::disk_bytes(&tool.alliance.path("node1-data"), &usage::is_state)?;
    let full = tool.backup("full.backup", &["--rate", "4096"]).await?;
    let (beside_backup, taken) = tool.backup_beside(&crowd).await?;
    rows.push(full.row(
        "a full backup of a node that serves",
        format!(
            "{events} events, {} MiB of state; rate not limited; hashing, and syncing the file. Beside it {WRITERS} writers of one event wait p50 {:.1} \
             ms, without it {:.1} ms (at the default of 64 MiB/s, {taken} backups meanwhile)",
            state >> 20,
            beside_backup.latency_ms(50),
            alone.latency_ms(50)
        ),
    ));
    let mut backlogs = crowd.writers(BACKLOGS).await?;
    let more = rounds(&crowd, &mut backlogs, (1, BACKLOG_RUNS, RUN_EVENTS), &say).await?;
    let more: usize = more.iter().map(|round| round.events).sum();
    tokio::time::sleep(SETTLED).await;
    let since = tool.backup("more.backup", &["--since", "full.backup", "--rate", "4096"]).await?;
    rows.push(since.row(
        "an incremental backup",
        format!("after {more} events more: the whole state is read and hashed, and what the full backup has is not written again"),
    ));
    let chain = ["full.backup", "more.backup"];
    let verify = [&["backup", "--verify"][..], &chain, &["--config", "node1.toml"]].concat();
    let took = tool.node(&verify).await?.1;
    let bytes = full.bytes + since.bytes;
    rows.push(Row::new(
        GROUP,
        "backups verified: hashes, signatures, the log's root, its checkpoint",
        format!("{:.0} MB/s: {took}", megabytes(bytes) / took.seconds()),
        "one thread: SHA-256 of chunks and leaves, the tree",
    ));
    let leaves = leaves(&crowd).await?;
    for node in &mut crowd.nodes {
        node.daemon.stop().await?;
    }
    rows.push(tool.verify().await?);
    rows.push(tool.restore(&mut crowd, &chain, bytes, (events + more, leaves)).await?);
    std::fs::remove_dir_all(&lab).with_context(|| lab.display().to_string())?;
    Ok(rows)
}

/// One event at a time, by some.
async fn singly(crowd: &Crowd, say: &impl Fn(String)) -> Result<Round> {
    let mut writers = crowd.writers(WRITERS).await?;
    Ok(best(&rounds(crowd, &mut writers, (ROUNDS, SINGLE_RUNS, 1), say).await?)?.clone())
}

/// The node ends, and begins with another configuration.
async fn restart(crowd: &mut Crowd, more: &str) -> Result<()> {
    for node in &mut crowd.nodes {
        node.daemon.stop().await?;
        *node = Node::new(&crowd.alliance, node.number, more)?;
        node.daemon.start()?;
        node.answers("patient").await?;
    }
    crowd.reconnect().await
}

/// Leaves of all shards.
async fn leaves(crowd: &Crowd) -> Result<u64> {
    let lines = crowd.alliance.ehe_json("patient", &["status"]).await?;
    let text = serde_json::to_string(&lines)?;
    let leaves = lines.iter().map(leaves_in).sum();
    ensure!(leaves > 0, "no leaves in {text}");
    Ok(leaves)
}

fn leaves_in(value: &Value) -> u64 {
    match value {
        Value::Object(members) => {
            let own = members.get("leaves").and_then(Value::as_u64).unwrap_or(0);
            own + members.values().map(leaves_in).sum::<u64>()
        }
        Value::Array(values) => values.iter().map(leaves_in).sum(),
        _ => 0,
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// An idle node for a while.
struct Seen {
    cpu_percent: f64,
    scrubbed_per_s: f64,
}

impl Seen {
    async fn of(crowd: &Crowd) -> Result<Self> {
        let node = crowd.nodes.first().context("there is a node")?;
        let pid = node.daemon.id().context("the node runs")?;
        let (since, cpu, scrubbed) = (Instant::now(), usage::cpu(pid)?, counter(node, "scrubbed")?);
        tokio::time::sleep(WATCHED).await;
        let took = since.elapsed().as_secs_f64();
        let (cpu, scrubbed) = (usage::cpu(pid)? - cpu, counter(node, "scrubbed")?.saturating_sub(scrubbed));
        Ok(Self { cpu_percent: 100.0 * cpu.as_secs_f64() / took, scrubbed_per_s: scrubbed as f64 / took })
    }
}

/// A counter of the node as it last logged it, since the program began.
fn counter(node: &Node, name: &str) -> Result<u64> {
    let log = std::fs::read_to_string(node.log())?;
    let last = log.lines().rev().find(|line| line.contains("counters: "));
    let found =
        last.and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')));
    Ok(found.and_then(|count| count.parse().ok()).unwrap_or(0))
}

fn scrub(with: &Seen, without: &Seen, beside: &Round, alone: &Round) -> Row {
    let (rate, cpu) = (with.scrubbed_per_s, with.cpu_percent - without.cpu_percent);
    let measured = format!(
        "{rate:.0} EHE/s for {cpu:.1} % of a core; {WRITERS} writers of one event wait p50 {:.1} ms beside it, {:.1} ms without",
        beside.latency_ms(50),
        alone.latency_ms(50)
    );
    let spent = format!(
        "everything is looked at again: {:.0} µs an event of runs of {RUN_EVENTS}; the node idle has {:.1} % without; a quarter of the rate while \
         runs are ordered",
        10_000.0 * cpu / rate.max(1.0),
        without.cpu_percent
    );
    // A tenth beyond: the node's counters come once a second.
    let met = rate > 0.0 && rate <= SCRUB_PER_S as f64 * 1.1;
    Row::new(GROUP, "the background scrub of an idle node", measured, spent)
        .target(format!("≤ {SCRUB_PER_S} EHE/s, as configured"), met)
}

/// `ehe-node` by hand, in the alliance's folder.
struct Tool<'a, S> {
    alliance: Alliance,
    say: &'a S,
}

/// What a program took from its start to its end.
#[derive(Clone, Copy)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

impl Spent {
    fn seconds(self) -> f64 {
        self.wall.as_secs_f64()
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s, {:.1} s of a core", self.seconds(), self.cpu.as_secs_f64())
    }
}

/// A backup that was taken.
struct Taken {
    bytes: u64,
    took: Spent,
}

impl Taken {
    fn row(&self, what: &str, spent: String) -> Row {
        let Self { bytes, took } = self;
        let rate = megabytes(*bytes) / took.seconds();
        let measured = format!("{rate:.0} MB/s: {:.0} MB in {took}", megabytes(*bytes));
        Row::new(GROUP, what, measured, spent)
    }
}

impl<S: Fn(String)> Tool<'_, S> {
    async fn program(&self, name: &str, arguments: &[&str]) -> Result<(String, Spent)> {
        let what = format!("{name} {}", arguments.join(" "));
        (self.say)(what.clone());
        let mut command = self.alliance.programs().command(name);
        command.args(arguments).current_dir(self.alliance.path("."));
        let (start, before) = (Instant::now(), usage::cpu_of_children()?);
        let done = to_its_end(command, PROGRAM).await?.success(&what)?;
        Ok((done.stdout, Spent { wall: start.elapsed(), cpu: usage::cpu_of_children()? - before }))
    }

    async fn node(&self, arguments: &[&str]) -> Result<(String, Spent)> {
        self.program("ehe-node", arguments).await
    }

    async fn backup(&self, to: &str, more: &[&str]) -> Result<Taken> {
        let (_, took) = self.node(&[&["backup", "--config", "node1.toml", "--to", to][..], more].concat()).await?;
        Ok(Taken { bytes: std::fs::metadata(self.alliance.path(to))?.len(), took })
    }

    /// Writers, while one backup after the other is taken at the default rate; how many those were.
    async fn backup_beside(&self, crowd: &Crowd) -> Result<(Round, usize)> {
        let written = singly(crowd, self.say);
        tokio::pin!(written);
        let mut taken = 0;
        loop {
            taken += 1;
            let name = format!("beside{taken}.backup");
            tokio::select! {
                // What of it is under way ends with its process.
                round = &mut written => return Ok((round?, taken)),
                backup = self.backup(&name, &[]) => { backup?; }
            }
            std::fs::remove_file(self.alliance.path(&name))?;
        }
    }

    async fn verify(&self) -> Result<Row> {
        let data = self.alliance.path("node1-data");
        let bytes = usage::disk_bytes(&data, &|_| true)?;
        let (said, took) = self.node(&["verify", "--data-dir", "node1-data", "--json"]).await?;
        let report: Value = serde_json::from_str(&said)?;
        let rate = report.get("events_per_s").and_then(Value::as_u64).context("the report has a rate")?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let measured = format!("{rate} EHE/s, {:.0} MB/s: {took}", megabytes(bytes) / took.seconds());
        let spent = format!(
            "{cores} shards at a time: every page's checksum, every header, body, link and leaf hashed, a signature for each run (most have \
             {RUN_EVENTS} events); then the log's file"
        );
        Ok(Row::new(GROUP, "ehe-node verify of a stopped node", measured, spent))
    }

    async fn restore(
        &self,
        crowd: &mut Crowd,
        chain: &[&str],
        bytes: u64,
        (events, leaves_before): (usize, u64),
    ) -> Result<Row> {
        std::fs::remove_dir_all(self.alliance.path("node1-data"))?;
        let from = [&["--config", "node1.toml", "--from"][..], chain].concat();
        let (_, proposed) = self.node(&[&["restore", "--propose", "kept.records"][..], &from].concat()).await?;
        let sign = [
            "restoration",
            "sign",
            "kept.records",
            "--charter",
            "alliance/charter",
            "--with",
            "hospital/identity.json",
        ];
        self.program("ehe-certs", &[&sign[..], &["--passphrase-file", "passphrase"]].concat()).await?;
        let (_, took) = self.node(&[&["restore", "--record", "kept.records"][..], &from].concat()).await?;
        for node in &mut crowd.nodes {
            node.daemon.start()?;
            node.answers("patient").await?;
        }
        let after = leaves(crowd).await?;
        ensure!(after >= leaves_before, "of {leaves_before} leaves {after} are restored");
        for node in &mut crowd.nodes {
            node.daemon.stop().await?;
        }
        let seconds = took.seconds();
        let measured = format!("{:.0} EHE/s, {:.0} MB/s: {took}", events as f64 / seconds, megabytes(bytes) / seconds);
        let spent = format!(
            "every chunk's hash, every entry held against its leaf, syncs; before that the record for the members to sign, {proposed}; {after} leaves \
             are there again"
        );
        Ok(Row::new(
            GROUP,
            "a node restored onto a bare disk, from a full backup and an incremental one",
            measured,
            spent,
        ))
    }
}
