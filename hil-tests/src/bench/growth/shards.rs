//! Three nodes that hold 1, 16 or 64 shards together: at rest, with the timing of hospitals joined over the internet, and at work.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::idle::{self, Idle};
use super::{GROUP, Measured, head, line, mib};
use crate::bench::crowd::{BODY_MIN_BYTES, Crowd, NODE_FOR_MANY, Standing};
use crate::bench::load::{BACKLOG_RUNS, BACKLOGS, RUN_EVENTS, Round, WRITERS, best, rounds};
use crate::bench::table::Row;
use crate::bench::usage;
use crate::lab::alliance::Founding;
use crate::lab::line::Line;
use crate::lab::process::Programs;
use crate::lab::site::Site;
use crate::nemesis::net::Namespaces;

const MEMBERS: usize = 3;
const SHARDS: [u16; 3] = [1, 16, 64];
/// A shard's idle log is cosigned anew each minute: all of that is seen once.
const WATCHED: Duration = Duration::from_secs(60);
/// Elections end, caches of the start are given back.
const SETTLED: Duration = Duration::from_secs(5);
const LED: Duration = Duration::from_secs(60);
/// Their rooms lie in all shards.
const GATEWAYS: usize = 64;
const SINGLE_RUNS: usize = 10;
const ROUNDS: usize = 2;

/// With so many shards.
struct Figures {
    shards: u16,
    idle: Idle,
    fresh_bytes: u64,
    singly: Round,
    backlogs: Round,
    resident_most_mib: u64,
    loaded_bytes: u64,
    events: usize,
}

pub(super) async fn run(programs: &Programs, out: &Path, say: &impl Fn(String)) -> Result<Measured> {
    let mut rows = Vec::new();
    let mut table = head(&[
        "shards, three nodes",
        "writers of one event",
        "backlogs in runs of 256",
        "idle: processor",
        "packets sent",
        "memory idle",
        "memory at most",
        "disk empty",
    ]);
    for shards in SHARDS {
        let folder = out.join(shards.to_string());
        let figures = measure(programs, &folder, shards, say).await?;
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        rows.extend(figures.rows());
        table.push_str(&figures.line());
    }
    Ok(Measured { rows, table })
}

async fn measure(programs: &Programs, folder: &Path, shards: u16, say: &impl Fn(String)) -> Result<Figures> {
    say(format!("founding an alliance of {MEMBERS} with {shards} shards"));
    let (net, sites) = match Namespaces::lay(MEMBERS) {
        Ok((net, sites)) => (Some(net), sites),
        Err(why) => {
            say(format!("no network namespaces here ({why:#}): packets are not counted"));
            (None, Site::on_loopback(MEMBERS)?)
        }
    };
    let founding = Founding { members: MEMBERS, shards: Some(shards) };
    let standing = Standing::found(programs, folder, founding, sites, NODE_FOR_MANY).await?;
    let pids = idle::pids(&standing.nodes)?;
    let nodes: Vec<_> = standing.patient.charter().group(0).to_vec();
    // Nobody is connected while the nodes are watched.
    idle::led(&Line::new(&standing.patient)?, &nodes, shards.into(), LED).await?;
    tokio::time::sleep(SETTLED).await;
    say(format!("watching idle nodes for {WATCHED:?}"));
    let idle = idle::watch(&pids, WATCHED, net.is_some()).await?;
    let data = folder.join("node1-data");
    let fresh_bytes = usage::disk_bytes(&data, &|_| true)?;

    let mut crowd = Crowd::on(standing, GATEWAYS, BODY_MIN_BYTES, say).await?;
    say(format!("{WRITERS} writers of one event at a time"));
    let mut writers = crowd.writers(WRITERS).await?;
    let singly = rounds(&crowd, &mut writers, (ROUNDS, SINGLE_RUNS, 1), say).await?;
    say(format!("{BACKLOGS} backlogs in runs of {RUN_EVENTS}"));
    let mut writers = crowd.writers(BACKLOGS).await?;
    let backlogs = rounds(&crowd, &mut writers, (ROUNDS, BACKLOG_RUNS, RUN_EVENTS), say).await?;
    let events = singly.iter().chain(&backlogs).map(|round| round.events).sum();
    let (resident_most_mib, _) = idle::resident_mib(&pids)?;
    for node in &mut crowd.nodes {
        node.daemon.stop().await?;
    }
    let loaded_bytes = usage::disk_bytes(&data, &|_| true)?;
    let (singly, backlogs) = (best(&singly)?.clone(), best(&backlogs)?.clone());
    Ok(Figures { shards, idle, fresh_bytes, singly, backlogs, resident_most_mib, loaded_bytes, events })
}

impl Figures {
    fn packets(&self) -> (String, String) {
        match self.idle.packets_per_s {
            Some((sent, received)) => (format!("{sent:.1}/s"), format!("{received:.1}/s")),
            None => ("not counted".into(), "not counted".into()),
        }
    }

    fn rows(&self) -> [Row; 3] {
        let Self { shards, idle, .. } = self;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (sent, received) = self.packets();
        let processor = |round: &Round| {
            format!(
                "processor: {MEMBERS} nodes and the load share {cores} cores; {} checkpoints for {} events",
                round.checkpoints, round.events
            )
        };
        [
            Row::new(
                GROUP,
                format!("an idle node, one of {MEMBERS}, {shards} shards, timing for the internet"),
                format!(
                    "{:.2} % of a core, {} MiB resident, {sent} packets sent and {received} received, {} MiB of disk",
                    idle.cpu_percent,
                    idle.resident_mib,
                    mib(self.fresh_bytes)
                ),
                format!(
                    "mean of {WATCHED:?}: a beat each 500 ms from the leader of each shard to each follower; each shard cosigned once"
                ),
            ),
            Row::new(
                GROUP,
                format!(
                    "{WRITERS} writers of one event at a time over {GATEWAYS} connections, {MEMBERS} nodes, {shards} shards"
                ),
                self.singly.to_string(),
                processor(&self.singly),
            ),
            Row::new(
                GROUP,
                format!("{BACKLOGS} backlogs in runs of {RUN_EVENTS}, {MEMBERS} nodes, {shards} shards"),
                format!(
                    "{}; {} MiB resident at most; disk {} MiB after {} events",
                    self.backlogs,
                    self.resident_most_mib,
                    mib(self.loaded_bytes),
                    self.events
                ),
                processor(&self.backlogs),
            ),
        ]
    }

    fn line(&self) -> String {
        line(&[
            self.shards.to_string(),
            format!("{:.0} EHE/s", self.singly.rate()),
            format!("{:.0} EHE/s", self.backlogs.rate()),
            format!("{:.2} % of a core", self.idle.cpu_percent),
            self.packets().0,
            format!("{} MiB", self.idle.resident_mib),
            format!("{} MiB", self.resident_most_mib),
            format!("{} MiB", mib(self.fresh_bytes)),
        ])
    }
}
