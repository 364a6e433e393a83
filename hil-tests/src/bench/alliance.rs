//! Three hospitals that hold every shard together: the built programs, over QUIC on loopback, everything synced by a majority, and
//! receipts that two members cosigned. All three nodes share this machine with the load. Held against etcd and PostgreSQL, measured just before.

use std::path::Path;

use anyhow::Result;

use super::crowd::{Crowd, NODE_FOR_MANY, Size};
use super::disk;
use super::load::{BACKLOG_RUNS, BACKLOGS, RUN_EVENTS, Round, WRITERS, backlogs, best, rounds, singly};
use super::peers::{self, Peers, VALUE_BYTES};
use super::table::Row;
use crate::lab::alliance::Founding;
use crate::lab::process::Programs;
use crate::view::View;

/// The group of these rows.
pub(super) const GROUP: &str = "alliance";

const MEMBERS: usize = 3;
/// Beside the default number of shards, which an alliance may grow into: as many as keep two cores at work. Whoever writes one event at a time
/// fills a shard's blocks, and there are more of them where there are fewer shards.
const FEW_SHARDS: u16 = 4;
const SINGLE_RUNS: usize = 60;
const ALONE_RUNS: usize = 200;
const ROUNDS: usize = 3;

/// Measures.
pub(super) async fn run(out: &Path) -> Result<Vec<Row>> {
    std::fs::create_dir_all(out)?;
    let view = View::new([], false);
    let say = |text: String| view.say(text);
    let programs = Programs::built()?;
    let mut rows = vec![disk::row(GROUP, out)?];
    let peers = match peers::measure(&say).await {
        Ok(peers) => {
            rows.extend(peers.rows(GROUP));
            Some(peers)
        }
        Err(error) => {
            let what = "etcd and PostgreSQL, three servers each";
            rows.push(Row::new(GROUP, what, "not measured", format!("{error:#}")));
            None
        }
    };
    let found = async |shards: Option<u16>| {
        let founding = Founding { members: MEMBERS, shards };
        let size = Size { founding, gateways: WRITERS, body_bytes: VALUE_BYTES, node: NODE_FOR_MANY };
        let folder = out.join(shards.map_or_else(|| "lab".into(), |shards| format!("lab-{shards}")));
        Crowd::found(&programs, &folder, size, &say).await
    };
    let mut crowd = found(None).await?;
    let shards = crowd.charter.shard_count();

    say("one writer of one event at a time".into());
    let mut writers = crowd.writers(1).await?;
    let measured = rounds(&crowd, &mut writers, (ROUNDS, ALONE_RUNS, 1), &say).await?;
    rows.push(alone(best(&measured)?, peers.as_ref()));
    rows.push(at_a_time(&crowd, peers.as_ref(), &say).await?);

    say(format!("{BACKLOGS} gateways with backlogs in runs of {RUN_EVENTS}"));
    drop(writers);
    crowd.shrink(BACKLOGS);
    let mut writers = crowd.writers(BACKLOGS).await?;
    let measured = rounds(&crowd, &mut writers, (ROUNDS, BACKLOG_RUNS, RUN_EVENTS), &say).await?;
    rows.push(in_runs(backlogs(shards), best(&measured)?, peers.as_ref()));
    stop(crowd).await?;

    let crowd = found(Some(FEW_SHARDS)).await?;
    rows.push(at_a_time(&crowd, peers.as_ref(), &say).await?);
    stop(crowd).await?;
    Ok(rows)
}

/// Many writers of one event at a time.
async fn at_a_time(crowd: &Crowd, peers: Option<&Peers>, say: &impl Fn(String)) -> Result<Row> {
    let shards = crowd.charter.shard_count();
    say(format!("{WRITERS} writers of one event at a time, each on its own connection, {shards} shards"));
    let mut writers = crowd.writers(WRITERS).await?;
    let measured = rounds(crowd, &mut writers, (ROUNDS, SINGLE_RUNS, 1), say).await?;
    Ok(together(singly(WRITERS, shards), best(&measured)?, peers))
}

async fn stop(mut crowd: Crowd) -> Result<()> {
    for node in &mut crowd.nodes {
        node.daemon.stop().await?;
    }
    Ok(())
}

fn alone(round: &Round, peers: Option<&Peers>) -> Row {
    let row = row("one writer of one event at a time".into(), round);
    let Some(etcd) = peers.and_then(|peers| peers.etcd(1)) else { return row };
    let limit_ms = 2.0 * etcd.p50_ms;
    row.target(format!("p50 ≤ {limit_ms:.1} ms, twice etcd's"), round.latency_ms(50) <= limit_ms)
}

fn together(what: String, round: &Round, peers: Option<&Peers>) -> Row {
    let row = row(what, round);
    let Some((etcd, postgresql)) = peers.and_then(|peers| Some((peers.etcd(WRITERS)?, peers.postgresql(WRITERS)?)))
    else {
        return row;
    };
    let share = round.rate() / postgresql.per_second;
    let target =
        format!("> {:.0}/s, etcd's; of PostgreSQL's a third is the aim, {share:.2} is reached", etcd.per_second);
    row.target(target, round.rate() > etcd.per_second)
}

fn in_runs(what: String, round: &Round, peers: Option<&Peers>) -> Row {
    let row = row(what, round);
    let Some(best) = peers.and_then(Peers::best_postgresql) else { return row };
    let share = round.rate() / best.per_second;
    let target = format!("> {:.0}/s, PostgreSQL's best; {share:.2} times it is reached", best.per_second);
    row.target(target, round.rate() > best.per_second)
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
