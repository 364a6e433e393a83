//! A node that is its alliance's only one: the built program, over QUIC on loopback, everything synced.

use std::path::Path;

use anyhow::{Context, Result};

use super::crowd::{BODY_MIN_BYTES, Crowd, NODE_FOR_MANY, Size};
use super::load::{BACKLOG_RUNS, BACKLOGS, RUN_EVENTS, Round, WRITERS, backlogs, best, rounds, singly};
use super::table::Row;
use super::{disk, usage};
use crate::lab::alliance::Founding;
use crate::lab::process::Programs;
use crate::view::View;

/// The group of these rows.
pub(super) const GROUP: &str = "node";

/// Events that each writer sends one at a time in a round.
const SINGLE_RUNS: usize = 40;
const ROUNDS: usize = 5;
const SINGLE_TARGET: f64 = 12_000.0;

const BACKLOG_TARGET: f64 = 60_000.0;

/// Measures.
pub(super) async fn run(out: &Path) -> Result<Vec<Row>> {
    std::fs::create_dir_all(out)?;
    let view = View::new([], false);
    let say = |text: String| view.say(text);
    let programs = Programs::built()?;
    let mut rows = vec![disk::row(GROUP, out)?];

    let size =
        Size { founding: Founding::default(), gateways: WRITERS, body_bytes: BODY_MIN_BYTES, node: NODE_FOR_MANY };
    let mut crowd = Crowd::found(&programs, &out.join("lab"), size, &say).await?;
    let pid = crowd.nodes.first().and_then(|node| node.daemon.id()).context("the node runs")?;
    let (_, before) = usage::resident_mib(pid)?;
    let shards = crowd.charter.shard_count();
    let mut writers = crowd.writers(WRITERS).await?;
    say(format!("{WRITERS} writers of one event at a time, each on its own connection"));
    let measured = rounds(&crowd, &mut writers, (ROUNDS, SINGLE_RUNS, 1), &say).await?;
    let what = singly(WRITERS, shards);
    rows.push(row(what, best(&measured)?, SINGLE_TARGET));
    let (most, now) = usage::resident_mib(pid)?;
    rows.push(Row::new(
        GROUP,
        format!("memory of the node under {WRITERS} writers"),
        format!("{most} MiB resident at most ({before} MiB before, {now} MiB after)"),
        "caches of the log and the shards (bounded by configuration), connections",
    ));

    say(format!("{WRITERS} writers of one event at a time, sharing {BACKLOGS} connections"));
    drop(writers);
    crowd.shrink(BACKLOGS);
    let mut writers = crowd.writers(WRITERS).await?;
    let measured = rounds(&crowd, &mut writers, (ROUNDS, SINGLE_RUNS, 1), &say).await?;
    let what = singly(BACKLOGS, shards);
    rows.push(row(what, best(&measured)?, SINGLE_TARGET));

    say(format!("{BACKLOGS} gateways with backlogs in runs of {RUN_EVENTS}"));
    let mut writers = crowd.writers(BACKLOGS).await?;
    let measured = rounds(&crowd, &mut writers, (ROUNDS, BACKLOG_RUNS, RUN_EVENTS), &say).await?;
    let what = backlogs(shards);
    rows.push(row(what, best(&measured)?, BACKLOG_TARGET));
    for node in &mut crowd.nodes {
        node.daemon.stop().await?;
    }
    Ok(rows)
}

fn row(what: String, round: &Round, target: f64) -> Row {
    let rate = round.rate();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let spent = format!(
        "processor: node and load share {cores} cores; {} checkpoints for {} events; bodies of 256 bytes, all receipts verified \
         afterwards",
        round.checkpoints, round.events
    );
    Row::new(GROUP, what, round.to_string(), spent).target(format!("≥ {target:.0} EHE/s"), rate >= target)
}
