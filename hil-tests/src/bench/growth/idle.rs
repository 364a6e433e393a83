//! What nodes cost while nobody asks them anything.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ehe::id::NodeId;
use ehe::wire::{NodeStatus, Request, Response};

use crate::bench::usage;
use crate::lab::line::Line;
use crate::lab::node::Node;

/// A node is asked for its status and answers within this time.
const ANSWER: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Of one node, the mean of all; memory is that of the one that has most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    /// Of one core.
    pub(super) cpu_percent: f64,
    /// Sent and received, if they can be told from those of others.
    pub(super) packets_per_s: Option<(f64, f64)>,
    /// Now.
    pub(super) resident_mib: u64,
}

/// Process ids of nodes that run.
pub(super) fn pids(nodes: &[Node]) -> Result<Vec<u32>> {
    nodes.iter().map(|node| node.daemon.id().context("the node runs")).collect()
}

/// Looks on for so long. `own_network`: each node has one.
pub(super) async fn watch(pids: &[u32], time: Duration, own_network: bool) -> Result<Idle> {
    let packets = || pids.iter().map(|pid| usage::packets(*pid)).collect::<Result<Vec<_>>>();
    let (since, cpu, before) = (Instant::now(), usage::cpu_of(pids)?, packets()?);
    tokio::time::sleep(time).await;
    let (took, cpu, after) = (since.elapsed().as_secs_f64(), usage::cpu_of(pids)? - cpu, packets()?);
    let times = took * pids.len() as f64;
    let grown = |of: fn(&(u64, u64)) -> u64| {
        let sum = |counts: &[(u64, u64)]| counts.iter().map(of).sum::<u64>();
        sum(&after).saturating_sub(sum(&before)) as f64 / times
    };
    Ok(Idle {
        cpu_percent: 100.0 * cpu.as_secs_f64() / times,
        packets_per_s: own_network.then(|| (grown(|count| count.0), grown(|count| count.1))),
        resident_mib: resident_mib(pids)?.1,
    })
}

/// What was resident at most, and what is now, of the node that has most of it.
pub(super) fn resident_mib(pids: &[u32]) -> Result<(u64, u64)> {
    let each = pids.iter().map(|pid| usage::resident_mib(*pid)).collect::<Result<Vec<_>>>()?;
    let most = |of: fn(&(u64, u64)) -> u64| each.iter().map(of).max().unwrap_or(0);
    Ok((most(|node| node.0), most(|node| node.1)))
}

/// Asks a node how it is.
pub(super) async fn status(line: &Line, node: NodeId) -> Result<NodeStatus> {
    match Response::decode(&line.ask_node(node, &Request::Status.to_vec(), ANSWER).await?)? {
        Response::Status(status) => Ok(status),
        other => anyhow::bail!("a status was asked for, and answered {other:?}"),
    }
}

/// Waits until each of these nodes knows who leads each shard.
pub(super) async fn led(line: &Line, nodes: &[NodeId], shards: usize, within: Duration) -> Result<()> {
    let start = Instant::now();
    for node in nodes {
        loop {
            let known = status(line, *node).await.ok();
            if known.is_some_and(|known| known.shards.iter().filter(|shard| shard.leader.is_some()).count() == shards) {
                break;
            }
            ensure!(start.elapsed() < within, "waited {within:?} in vain: node {node} knows who leads {shards} shards");
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}
