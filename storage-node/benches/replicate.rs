//! What replication costs by itself: three nodes in one process, real files, queues for a network, and a machine that only
//! keeps what it is given. No signature, no hash, no QUIC: an upper bound for what stands on it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    unreachable_pub,
    missing_docs
)]

mod api {
    pub use ehe_node::consensus::{
        AppliedMeta, Command, Latch, Latched, Machine, MachineError, Position, Stage, Stager, Vetting,
    };
}
#[path = "../tests/support/hub.rs"]
mod hub;
#[path = "../tests/support/journal.rs"]
mod journal;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ehe_node::consensus::{Bootstrap, Config, Consensus, GroupId, NodeId, Timing};
use hub::Hub;
use journal::Journal;
use redb::backends::FileBackend;

const GROUP: GroupId = GroupId(0);
const LIMIT: Duration = Duration::from_secs(30);
/// Each measurement, so often.
const ROUNDS: usize = 2;

struct Nodes {
    _dirs: Vec<tempfile::TempDir>,
    hub: Hub,
    up: Vec<Consensus>,
}

async fn open(count: u64, timing: Timing, journal_bytes: Option<u64>) -> Nodes {
    let hub = Hub::default();
    let voters: BTreeSet<NodeId> = (1..=count).map(NodeId).collect();
    let (mut dirs, mut up) = (Vec::new(), Vec::new());
    for id in 1..=count {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut config = Config { bootstrap: Bootstrap::Voters(voters.clone()), timing, ..Config::new(NodeId(id)) };
        config.journal_bytes = journal_bytes.unwrap_or(config.journal_bytes);
        let machine = machine(dir.path());
        let consensus =
            Consensus::open_with_link(config, dir.path(), vec![(GROUP, machine)], hub.link(id)).await.unwrap();
        hub.attach(&consensus);
        dirs.push(dir);
        up.push(consensus);
    }
    Nodes { _dirs: dirs, hub, up }
}

fn machine(dir: &Path) -> Journal {
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(dir.join("state.redb")).unwrap();
    Journal::open(FileBackend::new(file).unwrap(), Arc::default())
}

impl Nodes {
    async fn leader(&self) -> Consensus {
        let since = Instant::now();
        loop {
            if let Some(leader) = self.up.iter().find(|node| node.status(GROUP).unwrap().ready()) {
                return leader.clone();
            }
            assert!(since.elapsed() < LIMIT, "no leader");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn close(self) {
        for node in &self.up {
            node.shutdown().await.unwrap();
        }
    }
}

/// Writers that each wait for their answer, for `time`. Answers a second, and the median time to one.
async fn write(leader: &Consensus, writers: usize, bytes: usize, time: Duration) -> (f64, Duration) {
    let since = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let leader = leader.clone();
            tokio::spawn(async move {
                let (command, mut took) = (Bytes::from(vec![7; bytes]), Vec::new());
                while since.elapsed() < time {
                    let asked = Instant::now();
                    leader.propose(GROUP, command.clone()).await.unwrap();
                    took.push(asked.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    took.sort_unstable();
    #[allow(clippy::cast_precision_loss)]
    let rate = took.len() as f64 / since.elapsed().as_secs_f64();
    (rate, took[took.len() / 2])
}

/// From the leader's death to the next answer.
async fn without_leader(timing: Timing) -> Duration {
    let mut group = open(3, timing, None).await;
    let leader = group.leader().await;
    write(&leader, 4, 600, Duration::from_millis(200)).await;
    let died = Instant::now();
    group.hub.kill(leader.node_id().0);
    group.up.retain(|node| node.node_id() != leader.node_id());
    let took = loop {
        let next = group.up.iter().find(|node| node.is_leader(GROUP)).cloned();
        match next {
            Some(next) if next.propose(GROUP, Bytes::from_static(b"next")).await.is_ok() => break died.elapsed(),
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    leader.shutdown().await.unwrap();
    group.close().await;
    took
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for (writers, bytes, what) in [
        (1, 600, "one writer of 600 bytes"),
        (512, 600, "512 writers of 600 bytes"),
        (8, 256 << 10, "8 writers of 256 KiB"),
    ] {
        for nodes in [1, 3] {
            // In turn, so that both see the same disk; 0: a commit of redb for each batch, as it was before there was a journal.
            let mut measured = [(0.0, Duration::MAX); 2];
            for _ in 0..ROUNDS {
                for (at, journal_bytes) in [None, Some(0)].into_iter().enumerate() {
                    let (rate, median) = runtime.block_on(async {
                        let group = open(nodes, Timing::wan(), journal_bytes).await;
                        let leader = group.leader().await;
                        write(&leader, writers, bytes, Duration::from_millis(300)).await;
                        let measured = write(&leader, writers, bytes, Duration::from_secs(2)).await;
                        group.close().await;
                        measured
                    });
                    measured[at] = (f64::max(measured[at].0, rate), measured[at].1.min(median));
                }
            }
            let [(rate, median), (rate_alone, median_alone)] = measured;
            println!(
                r#"{{"group":"consensus alone","what":"{what}, {nodes} node(s) in one process","target":"–","measured":"{rate:.0} commands/s, p50 {:.2} ms; without the log's journal {rate_alone:.0}, {:.2} ms","met":null,"where":"syncs of the log, one after the other on one disk for all nodes; best of {ROUNDS} rounds each"}}"#,
                median.as_secs_f64() * 1e3,
                median_alone.as_secs_f64() * 1e3
            );
        }
    }
    for (timing, name, target, rounds) in [(Timing::lan(), "LAN", 2.0, 20), (Timing::wan(), "WAN", 8.0, 5)] {
        let mut took: Vec<_> = (0..rounds).map(|_| runtime.block_on(without_leader(timing)).as_secs_f64()).collect();
        took.sort_by(f64::total_cmp);
        let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
        println!(
            r#"{{"group":"consensus alone","what":"leader killed, {name} defaults: until the next answer, {rounds} times","target":"≤ {target} s","measured":"median {median:.2} s, worst {worst:.2} s","met":{},"where":"a lease, a drawn wait behind it, one round of pre-votes and one of votes"}}"#,
            worst <= target
        );
    }
}
