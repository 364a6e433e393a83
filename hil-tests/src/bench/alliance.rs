//! Three hospitals that hold every shard together: the built programs, over QUIC on loopback, everything synced by a majority, and
//! receipts that two members cosigned. All three nodes share this machine with the load.

use std::path::Path;

use anyhow::Result;

use super::crowd::{Crowd, NODE_FOR_MANY, Size};
use super::disk;
use super::load::{BACKLOG_RUNS, BACKLOGS, RUN_EVENTS, Round, WRITERS, backlogs, best, rounds, singly};
use super::table::Row;
use crate::lab::alliance::Founding;
use crate::lab::process::Programs;
use crate::view::View;

/// The group of these rows.
pub(super) const GROUP: &str = "alliance";

const MEMBERS: usize = 3;
const SINGLE_RUNS: usize = 20;
const ALONE_RUNS: usize = 200;
const ROUNDS: usize = 3;

/// Measures.
pub(super) async fn run(out: &Path) -> Result<Vec<Row>> {
    std::fs::create_dir_all(out)?;
    let view = View::new([], false);
    let say = |text: String| view.say(text);
    let programs = Programs::built()?;
    let mut rows = vec![disk::row(GROUP, out)?];
    let founding = Founding { members: MEMBERS, ..Founding::default() };
    let size = Size { founding, gateways: WRITERS, node: NODE_FOR_MANY };
    let mut crowd = Crowd::found(&programs, &out.join("lab"), size, &say).await?;
    let shards = crowd.charter.shard_count();

    say("one writer of one event at a time".into());
    let mut writers = crowd.writers(1).await?;
    let measured = rounds(&crowd, &mut writers, (ROUNDS, ALONE_RUNS, 1), &say).await?;
    rows.push(row("one writer of one event at a time".into(), best(&measured)?));

    say(format!("{WRITERS} writers of one event at a time, each on its own connection"));
    let mut writers = crowd.writers(WRITERS).await?;
    let measured = rounds(&crowd, &mut writers, (ROUNDS, SINGLE_RUNS, 1), &say).await?;
    let what = singly(WRITERS, shards);
    rows.push(row(what, best(&measured)?));

    say(format!("{BACKLOGS} gateways with backlogs in runs of {RUN_EVENTS}"));
    drop(writers);
    crowd.shrink(BACKLOGS);
    let mut writers = crowd.writers(BACKLOGS).await?;
    let measured = rounds(&crowd, &mut writers, (ROUNDS, BACKLOG_RUNS, RUN_EVENTS), &say).await?;
    let what = backlogs(shards);
    rows.push(row(what, best(&measured)?));
    for node in &mut crowd.nodes {
        node.daemon.stop().await?;
    }
    Ok(rows)
}

fn row(what: String, round: &Round) -> Row {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let spent = format!(
        "processor: {MEMBERS} nodes and the load share {cores} cores; {} checkpoints, each with two members' cosignatures, for {} \
         events; all receipts verified afterwards",
        round.checkpoints, round.events
    );
    Row::new(GROUP, what, round.to_string(), spent)
}
