//! What is done to the nodes while clients work.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use ehe_node::consensus::{
    GroupId, NodeId, Timing,
    sim::{self, Chance},
};

use crate::{
    clients::{pick, read},
    cluster::Cluster,
    plan::Fault,
};

/// One run's faults.
pub struct Nemesis {
    pub cluster: Cluster,
    pub chance: Chance,
    /// Faults that are not over.
    pub open: Arc<AtomicU64>,
    /// Whether [`Fault::Fade`] is among them: two of them would undo each other.
    pub fading: Arc<AtomicBool>,
}

impl Nemesis {
    /// One after the other, some of them at the same time, until the storm is over and all is mended.
    pub async fn run(mut self) {
        let (storm, calm) = (self.cluster.plan().storm, self.cluster.plan().calm);
        while sim::now() < storm {
            sim::sleep(self.chance.time(calm * 2)).await;
            let weights = self.cluster.plan().weights;
            let mut drawn = self.chance.below(weights.iter().sum());
            let fault = Fault::ALL.into_iter().zip(weights).find(|(_, weight)| {
                let found = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                found
            });
            if let Some((fault, _)) = fault {
                self.inject(fault);
            }
        }
        while self.open.load(Ordering::SeqCst) > 0 {
            sim::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Begins a fault. It ends by itself.
    fn inject(&mut self, fault: Fault) {
        let nodes: Vec<u64> = self.cluster.plan().nodes().into_iter().collect();
        let Some(one) = pick(&nodes, &mut self.chance) else { return };
        let others: Vec<u64> = nodes.iter().copied().filter(|node| *node != one).collect();
        let Some(other) = pick(&others, &mut self.chance) else { return };
        let groups = u64::from(self.cluster.plan().groups);
        let group = GroupId(u16::try_from(self.chance.below(groups)).unwrap());
        let leader = self.cluster.leader(group);
        // Leaders are the more interesting ones.
        let one = if self.chance.once_in(2) { leader.unwrap_or(one) } else { one };
        let election = self.cluster.plan().timing.election_max;
        let time = self.chance.time(election * 6);
        let n = self.chance.below(12);
        let (cluster, mut chance, open) = (self.cluster.clone(), self.chance.split(), self.open.clone());
        let fading = self.fading.clone();
        cluster.say(format_args!("{fault:?}: node {one}, node {other}, group {group}, {time:?}"));
        open.fetch_add(1, Ordering::SeqCst);
        sim::spawn(async move {
            match fault {
                Fault::PowerCut => cluster.cut_power(one, Some(n)),
                Fault::Kill => cluster.kill(one),
                Fault::Blackout => {
                    for node in nodes {
                        if !chance.once_in(8) {
                            cluster.cut_power(node, chance.once_in(2).then(|| chance.below(4)));
                        }
                    }
                }
                Fault::Stop => {
                    if let Some(process) = cluster.process(one) {
                        process.stop();
                        // Often for so long that another one leads meanwhile.
                        let long = if chance.once_in(2) { election * 2 } else { Duration::ZERO };
                        sim::sleep(time + long).await;
                        // Who asked while it stood still is attended to before it knows what it missed.
                        for _ in 0..chance.below(4) {
                            let cluster = cluster.clone();
                            sim::spawn(async move {
                                read(&cluster, one, group, election * 2).await;
                            });
                        }
                        sim::sleep(chance.time(election / 100)).await;
                        process.go_on();
                    }
                }
                Fault::Eio => {
                    if let Some(power) = cluster.power(one) {
                        cluster.fail_disks(one, chance.below(200));
                        sim::sleep(time).await;
                        power.off();
                    }
                }
                Fault::Isolate => {
                    let ways = nodes.iter().filter(|node| **node != one).flat_map(|node| [(*node, one), (one, *node)]);
                    hold(&cluster, ways.collect(), time).await;
                }
                Fault::Split => {
                    let half: BTreeSet<u64> = nodes.iter().copied().filter(|_| chance.once_in(2)).collect();
                    let across = |(a, b): &(u64, u64)| half.contains(a) != half.contains(b);
                    let ways = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b))).filter(across);
                    hold(&cluster, ways.collect(), time).await;
                }
                Fault::OneWay => hold(&cluster, vec![(one, other)], time).await,
                Fault::Flap => {
                    for _ in 0..2 + chance.below(8) {
                        hold(&cluster, vec![(one, other), (other, one)], chance.time(election)).await;
                        sim::sleep(chance.time(election)).await;
                    }
                }
                Fault::Fade => {
                    if let Some(leader) = leader.filter(|_| !fading.swap(true, Ordering::SeqCst)) {
                        fade(&cluster, leader, group, chance).await;
                        fading.store(false, Ordering::SeqCst);
                    }
                }
                Fault::Sever => cluster.net().sever(one, other),
                Fault::Transfer => {
                    if let Some(leader) = leader {
                        let to = NodeId(other);
                        let asked = cluster.on(leader, election, move |consensus| async move {
                            consensus.transfer_leader(group, to).await.is_ok()
                        });
                        asked.await;
                    }
                }
                Fault::Change => {
                    if let Some(leader) = leader {
                        let (size, wiped) = (cluster.plan().voters.len(), cluster.wiped());
                        let nodes = nodes.into_iter().filter(|node| !wiped.contains(node)).collect();
                        change(&cluster, leader, group, voters(nodes, size, &mut chance)).await;
                    }
                }
            }
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn hold(cluster: &Cluster, ways: Vec<(u64, u64)>, time: Duration) {
    ways.iter().for_each(|(from, to)| cluster.net().cut(*from, *to));
    sim::sleep(time).await;
    ways.iter().for_each(|(from, to)| cluster.net().mend(*from, *to));
}

/// What was answered before the others turned away from a leader reaches it behind a reader's question: it must not pass for an answer
/// to that.
async fn fade(cluster: &Cluster, leader: u64, group: GroupId, mut chance: Chance) {
    let Timing { heartbeat, election_max, .. } = cluster.plan().timing;
    let mut others: Vec<u64> = cluster.plan().nodes().into_iter().filter(|node| *node != leader).collect();
    others.iter().for_each(|other| cluster.net().cut(*other, leader));
    // Entries still go out, and nobody hears what became of them.
    sim::sleep(heartbeat + chance.time(heartbeat * 2)).await;
    others.iter().for_each(|other| cluster.net().cut(leader, *other));
    let begun = sim::now();
    // Who waits for longer than two elections gives the connection up.
    while cluster.leader(group).is_none_or(|now| now == leader) && sim::now() < begun + election_max * 3 / 2 {
        sim::sleep(heartbeat / 4).await;
    }
    // The next leader is written to.
    sim::sleep(heartbeat * 2).await;
    for _ in 0..3 {
        let cluster = cluster.clone();
        sim::spawn(async move {
            read(&cluster, leader, group, election_max).await;
        });
        sim::sleep(chance.time(heartbeat / 2)).await;
    }
    while let Some(other) = pick(&others, &mut chance) {
        others.retain(|node| *node != other);
        cluster.net().mend(other, leader);
        sim::sleep(chance.time(heartbeat)).await;
    }
    for other in cluster.plan().nodes().into_iter().filter(|node| *node != leader) {
        cluster.net().mend(leader, other);
    }
}

/// So many of the nodes. Who lost its disks is not asked for: it will never come.
fn voters(mut nodes: Vec<u64>, size: usize, chance: &mut Chance) -> BTreeSet<NodeId> {
    let mut chosen = BTreeSet::new();
    while chosen.len() < size
        && let Some(node) = pick(&nodes, chance)
    {
        nodes.retain(|other| *other != node);
        chosen.insert(NodeId(node));
    }
    chosen
}

/// Learners first, then the voters; whoever is left half way is taken up by the next change.
pub async fn change(cluster: &Cluster, leader: u64, group: GroupId, voters: BTreeSet<NodeId>) {
    let limit = cluster.plan().timing.election_max * 8;
    cluster.say(format_args!("group {group} to be {voters:?}, says node {leader}"));
    let done = cluster.on(leader, limit, move |consensus| async move {
        let known = consensus.status(group).map(|status| status.voters).unwrap_or_default();
        for node in voters.difference(&known) {
            consensus.add_learner(group, *node).await.map_err(|error| error.to_string())?;
        }
        consensus.change_voters(group, &voters).await.map_err(|error| error.to_string())
    });
    match done.await {
        Some(Ok(())) => cluster.say(format_args!("group {group} is changed")),
        Some(Err(error)) => cluster.say(format_args!("group {group} is not changed: {error}")),
        None => cluster.say(format_args!("whether group {group} is changed is not known")),
    }
}
