//! Loads a node: every writer sends its runs one after the other, each only when the receipt of the one before is there.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::crowd::{Crowd, Prepared, Verifier, Writer, ask};
use super::usage;
use crate::account::percentile;

/// Gateways that write one event at a time.
pub(super) const WRITERS: usize = 512;
/// Gateways that come back from an outage, and what each has waiting.
pub(super) const BACKLOGS: usize = 32;
pub(super) const BACKLOG_RUNS: usize = 8;
pub(super) const RUN_EVENTS: usize = 256;

/// What is measured where [`WRITERS`] write over so many connections.
pub(super) fn singly(connections: usize, shards: impl std::fmt::Display) -> String {
    format!("{WRITERS} writers of one event at a time, {connections} connections, {shards} shards")
}

/// What is measured where [`BACKLOGS`] are handed in.
pub(super) fn backlogs(shards: impl std::fmt::Display) -> String {
    format!("{BACKLOGS} backlogs in runs of {RUN_EVENTS}, {BACKLOGS} connections, {shards} shards")
}

/// What one round of load showed.
#[derive(Debug, Clone)]
pub(super) struct Round {
    /// Events that are proven to be in the log.
    pub(super) events: usize,
    /// From the first run sent to the last receipt received.
    pub(super) wall: Duration,
    /// Processor time of the nodes meanwhile, all together.
    pub(super) node: Duration,
    /// Processor time of this process meanwhile.
    pub(super) own: Duration,
    /// From sending a run to its receipt, in microseconds, ascending.
    pub(super) latencies_us: Vec<u64>,
    /// Checkpoints that vouch for the receipts.
    pub(super) checkpoints: usize,
}

impl Round {
    /// Events a second.
    pub(super) fn rate(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    /// Microseconds of the nodes' processor time for each event.
    pub(super) fn node_us(&self) -> f64 {
        self.node.as_secs_f64() * 1e6 / self.events as f64
    }

    /// Microseconds of the load's processor time for each event.
    pub(super) fn own_us(&self) -> f64 {
        self.own.as_secs_f64() * 1e6 / self.events as f64
    }

    /// Latency in milliseconds below which so many percent lie.
    pub(super) fn latency_ms(&self, percent: usize) -> f64 {
        percentile(&self.latencies_us, percent) as f64 / 1000.0
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} EHE/s; p50 {:.1} ms, p99 {:.1} ms; processor time an event: node {:.0} µs, load {:.0} µs",
            self.rate(),
            self.latency_ms(50),
            self.latency_ms(99),
            self.node_us(),
            self.own_us()
        )
    }
}

/// So many rounds of so many runs of so many events by each writer. Every receipt is verified, after its round.
pub(super) async fn rounds(
    crowd: &Crowd,
    writers: &mut [Writer],
    (rounds, runs, events): (usize, usize, usize),
    say: &impl Fn(String),
) -> Result<Vec<Round>> {
    let mut out = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let prepared = tokio::task::block_in_place(|| prepare(writers, runs, events))?;
        let round = round(crowd, writers, prepared, events).await?;
        say(round.to_string());
        out.push(round);
    }
    Ok(out)
}

/// On all cores: nothing is measured yet.
fn prepare(writers: &mut [Writer], runs: usize, events: usize) -> Result<Vec<Vec<Prepared>>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = writers.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts = writers.chunks_mut(share).map(|part| {
            scope.spawn(move || part.iter_mut().map(|writer| writer.prepare(runs, events)).collect::<Result<Vec<_>>>())
        });
        let parts: Vec<_> = parts.collect();
        let mut all = Vec::new();
        for part in parts {
            all.extend(part.join().ok().context("preparing the load failed")??);
        }
        Ok(all)
    })
}

async fn round(crowd: &Crowd, writers: &[Writer], prepared: Vec<Vec<Prepared>>, events: usize) -> Result<Round> {
    let pids = crowd.nodes.iter().map(|node| node.daemon.id().context("the node runs")).collect::<Result<Vec<_>>>()?;
    let start = Arc::new(Barrier::new(writers.len() + 1));
    let mut tasks = JoinSet::new();
    for (writer, prepared) in writers.iter().zip(prepared) {
        let (connection, start) = (writer.connection().clone(), Arc::clone(&start));
        tasks.spawn(async move {
            start.wait().await;
            let mut answers = Vec::with_capacity(prepared.len());
            for run in &prepared {
                let sent = Instant::now();
                answers.push((ask(&connection, &run.frame).await?, sent.elapsed()));
            }
            anyhow::Ok((prepared, answers))
        });
    }
    let (node, own) = (usage::cpu_of(&pids)?, usage::cpu(std::process::id())?);
    start.wait().await;
    let begun = Instant::now();
    let mut done = Vec::with_capacity(writers.len());
    while let Some(writer) = tasks.join_next().await {
        done.push(writer??);
    }
    let wall = begun.elapsed();
    let (node, own) = (usage::cpu_of(&pids)? - node, usage::cpu(std::process::id())? - own);
    tokio::task::block_in_place(|| {
        let mut verifier = Verifier::new(&crowd.charter);
        let mut latencies_us = Vec::new();
        for (prepared, answers) in &done {
            for (sent, (answer, took)) in prepared.iter().zip(answers) {
                verifier.verify(sent, answer)?;
                latencies_us.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            }
        }
        latencies_us.sort_unstable();
        let (events, checkpoints) = (latencies_us.len() * events, verifier.checkpoints());
        Ok(Round { events, wall, node, own, latencies_us, checkpoints })
    })
}

/// The round that the rest of the machine disturbed least.
pub(super) fn best(rounds: &[Round]) -> Result<&Round> {
    rounds.iter().max_by(|a, b| a.rate().total_cmp(&b.rate())).context("there was a round")
}
