//! One run: a storm, and the calm after it, in which everything must come right.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ehe_node::{
    consensus::{
        GroupId, NodeId, Status,
        sim::{self, Chance, World},
    },
    shard::block_of_runs,
};

use crate::{
    chance,
    clients::{Client, pick, propose, read},
    cluster::{Closed, Cluster},
    gateway::Gateway,
    ledger::{Ledger, State},
    nemesis::{Nemesis, change},
    plan::{Broken, Plan},
    sealed,
    trace::Trace,
};

/// After the faults are over a group must take a write, answer a reader, and bring its members level within so many of the
/// longest election timeouts.
const PROGRESS: u32 = 40;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub violations: Vec<String>,
    /// A number for all that happened, and how many steps that was.
    pub hash: (u64, u64),
    pub acknowledged: u64,
    pub reads: u64,
    pub frames: u64,
    /// From the end of the faults until all groups took writes, in election timeouts.
    pub progress: f64,
    pub virtual_time: Duration,
    pub tail: Vec<String>,
}

/// Runs a seed.
pub fn run(seed: u64, broken: Option<Broken>, aloud: bool) -> Report {
    let plan = Plan::new(seed, broken);
    let trace = Trace::new(aloud);
    let ledger = Ledger::new(trace.clone());
    trace.say(format_args!("{plan:?}"));
    let mut report = Report {
        seed,
        violations: Vec::new(),
        hash: (0, 0),
        acknowledged: 0,
        reads: 0,
        frames: 0,
        progress: 0.0,
        virtual_time: Duration::ZERO,
        tail: Vec::new(),
    };
    let went = std::panic::catch_unwind(AssertUnwindSafe(|| {
        chance::begin(seed);
        let mut world = World::new(seed, plan.red);
        let mut chance = Chance::new(seed ^ 0x5eed);
        let cluster = Cluster::new(plan, trace.clone(), ledger.clone(), chance.split());
        let (voters, of_voters) = (cluster.clone(), RefCell::new(chance.split()));
        world.listen(Box::new(move |node, group, word| voters.voted(node, group, word, &mut of_voters.borrow_mut())));
        let outcome = world.run(whole(cluster.clone(), chance));
        let frames = cluster.net().frames();
        drop(cluster);
        (outcome, frames)
    }));
    match went {
        Ok(((progress, time), frames)) => {
            (report.progress, report.virtual_time, report.frames) = (progress, time, frames);
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            ledger.violated(format!("the simulation panicked: {}", text.unwrap_or_default()));
        }
    }
    report.violations = ledger.violations();
    (report.acknowledged, report.reads) = ledger.counts();
    report.hash = trace.hash();
    report.tail = trace.tail(60);
    report
}

async fn whole(cluster: Cluster, mut chance: Chance) -> (f64, Duration) {
    cluster.plan().nodes().into_iter().for_each(|node| cluster.start(node));
    let stop = Arc::new(AtomicBool::new(false));
    let clients = Arc::new(AtomicU64::new(cluster.plan().clients));
    for number in 0..cluster.plan().clients {
        let (cluster, chance, stop, clients) = (cluster.clone(), chance.split(), stop.clone(), clients.clone());
        sim::spawn(async move {
            match cluster.alliance().cloned() {
                None => Client { cluster, number, chance, stop }.run().await,
                Some(alliance) => {
                    let receipts = cluster.receipts().clone();
                    Gateway { cluster, alliance, receipts, number, chance, stop }.run().await;
                }
            }
            clients.fetch_sub(1, Ordering::SeqCst);
        });
    }
    Nemesis { cluster: cluster.clone(), chance: chance.split(), open: Arc::default(), fading: Arc::default() }
        .run()
        .await;
    stop.store(true, Ordering::SeqCst);
    while clients.load(Ordering::SeqCst) > 0 {
        sim::sleep(Duration::from_millis(50)).await;
    }
    let healed = sim::now();
    cluster.say("the faults are over");
    cluster.calm();
    let timeout = cluster.plan().timing.election_max;
    let limit = timeout * PROGRESS;
    let mut progress = Duration::ZERO;
    if !cluster.ledger().violations().is_empty() {
        return (0.0, healed);
    }
    let settled = sim::within(limit, settle(&cluster, &mut chance, &mut progress)).await;
    cluster.fences();
    match settled {
        None => {
            cluster.describe();
            cluster.ledger().violated(format!("no progress within {PROGRESS} election timeouts"));
        }
        Some(members) if cluster.ledger().violations().is_empty() => close(&cluster, members).await,
        Some(_) => {}
    }
    let passed = progress.saturating_sub(healed);
    (passed.as_secs_f64() / timeout.as_secs_f64(), sim::now())
}

/// Every group takes a write and answers a reader at each member, and the members come level. Returns who that is.
async fn settle(cluster: &Cluster, chance: &mut Chance, progress: &mut Duration) -> BTreeMap<GroupId, BTreeSet<u64>> {
    let timeout = cluster.plan().timing.election_max;
    let mut members = BTreeMap::new();
    for group in cluster.plan().groups() {
        let mut tried = 0;
        loop {
            tried += 1;
            let command = match cluster.alliance() {
                None => Bytes::from(format!("the last of group {group}, try {tried}")),
                Some(_) => Bytes::from(block_of_runs(sealed::wall(), Vec::new())),
            };
            let node = cluster.leader(group).or_else(|| pick(&cluster.up(), chance));
            let done = match node {
                Some(node) => propose(cluster, node, group, vec![command], timeout).await,
                None => false,
            };
            if done {
                break;
            }
            sim::sleep(timeout / 20).await;
        }
    }
    *progress = sim::now();
    for group in cluster.plan().groups() {
        loop {
            let status = cluster.leader(group).and_then(|leader| cluster.status(leader, group));
            hand_over_if_wiped(cluster, group, status.as_ref(), timeout).await;
            // Who asked for a change may have died in the middle of it: asked again, it is finished.
            if let (Some(leader), true) = (cluster.leader(group), status.as_ref().is_some_and(|status| status.changing))
            {
                let wiped = cluster.wiped();
                let whole = cluster.plan().voters.iter().filter(|node| !wiped.contains(node));
                change(cluster, leader, group, whole.copied().map(NodeId).collect()).await;
            }
            if let Some(status) = status.filter(|status| !status.changing && status.ready()) {
                let wiped = cluster.wiped();
                let of: BTreeSet<u64> = status.voters.union(&status.learners).map(|node| node.0).collect();
                let of: BTreeSet<u64> = of.into_iter().filter(|node| !wiped.contains(node)).collect();
                let level = of.iter().all(|node| {
                    let here = cluster.status(*node, group);
                    here.is_some_and(|here| {
                        here.applied.map(|at| at.index) == status.last_index && here.leader == status.leader
                    })
                });
                if level {
                    members.insert(group, of);
                    break;
                }
            }
            sim::sleep(timeout / 20).await;
        }
    }
    for (group, of) in &members {
        for node in of {
            while !read(cluster, *node, *group, timeout).await {
                sim::sleep(timeout / 20).await;
            }
        }
    }
    members
}

/// Some had not met a node before it lost its disks, and elected it; others have, and refuse it. It hands over as one does that a charter lets go.
async fn hand_over_if_wiped(cluster: &Cluster, group: GroupId, status: Option<&Status>, limit: Duration) {
    let wiped: Vec<NodeId> = cluster.wiped().into_iter().map(NodeId).collect();
    let Some(status) = status.filter(|status| status.leader.is_some_and(|leader| wiped.contains(&leader))) else {
        return;
    };
    let fit = status.matched.iter().filter(|(node, _)| status.voters.contains(node) && !wiped.contains(node));
    if let Some((leader, (to, _))) = status.leader.zip(fit.max_by_key(|(_, at)| **at)) {
        let to = *to;
        cluster.say(format_args!("node {leader} was let in by some, and hands group {group} over to {to}"));
        let asked = cluster
            .on(leader.0, limit, move |consensus| async move { consensus.transfer_leader(group, to).await.is_ok() });
        asked.await;
    }
}

/// Closes all nodes in order, and holds what they have against what is known.
async fn close(cluster: &Cluster, members: BTreeMap<GroupId, BTreeSet<u64>>) {
    let mut states: BTreeMap<GroupId, BTreeMap<u64, State>> = BTreeMap::new();
    let mut shards = BTreeMap::new();
    for node in cluster.plan().nodes() {
        let lists = match cluster.close(node).await {
            Some(Closed::Lists(lists)) => lists,
            Some(Closed::Sealed(shard)) => {
                shards.insert(node, shard);
                continue;
            }
            None => BTreeMap::new(),
        };
        for (group, state) in lists {
            if members.get(&group).is_some_and(|of| of.contains(&node)) {
                states.entry(group).or_default().insert(node, state);
            }
        }
    }
    if cluster.alliance().is_some() {
        return sealed_alike(cluster, &shards);
    }
    for (group, of) in &members {
        let closed = states.remove(group).unwrap_or_default();
        if closed.len() != of.len() {
            cluster.ledger().violated(format!("of {of:?} in group {group} only {:?} closed", closed.keys()));
        }
        cluster.ledger().judge(*group, &closed);
    }
}

/// All replicas have one log, and every receipt's leaf is where the receipt says.
fn sealed_alike(cluster: &Cluster, shards: &BTreeMap<u64, sealed::Closed>) {
    if shards.len() != cluster.plan().voters.len() {
        cluster.ledger().violated(format!("only nodes {:?} closed", shards.keys()));
    }
    let Some((first, reference)) = shards.first_key_value() else { return };
    let receipts = cluster.receipts().all();
    for (node, shard) in shards {
        if shard.state != reference.state || shard.root != reference.root {
            cluster.ledger().violated(format!("the states of nodes {first} and {node} differ"));
        }
        for (index, leaf) in &receipts {
            if shard.leaves.get(index) != Some(leaf) {
                cluster.ledger().violated(format!("node {node} has not the leaf {index} of which there is a receipt"));
            }
        }
    }
}
