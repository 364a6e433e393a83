//! What a run is like: everything that a seed decides before it begins.

use std::{collections::BTreeSet, time::Duration};

use ehe_node::consensus::{
    Bootstrap, Config, GroupId, NodeId, Timing,
    sim::{Chance, Pace, Red},
};

use crate::net::Weather;

/// Where the product is broken on purpose, so that the checker is seen to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A rule of the product's.
    Rule(Red),
    /// The disks say that they synced and did not.
    LyingDisks,
    /// A node that lost its disks comes back, and is let in: with [`Red::AnyUid`].
    WipedNodes,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// The first voters.
    pub voters: BTreeSet<u64>,
    /// Nodes that wait to be added.
    pub spares: BTreeSet<u64>,
    pub groups: u16,
    /// The group holds a shard with cosigned checkpoints; else each holds a list of commands.
    pub sealed: bool,
    pub clients: u64,
    pub timing: Timing,
    pub weather: Weather,
    pub pace: Pace,
    /// How long faults are injected.
    pub storm: Duration,
    /// From one fault to the next, about.
    pub calm: Duration,
    /// How often each fault is chosen.
    pub weights: [u64; Fault::ALL.len()],
    /// Whether a node that lost its disks comes back.
    pub wipes: bool,
    /// Of votes that are given away, the power of who gave one goes at its next sync once in so many times. 0: never.
    pub cuts_voters: u64,
    pub red: Option<Red>,
    pub lies: bool,
    limits: (u64, u64, usize, Duration),
}

/// What can be done to the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes, in the middle of a sync.
    PowerCut,
    /// The process is killed; the system goes on.
    Kill,
    /// The process is stopped for a while.
    Stop,
    /// All disks of a machine fail until the process is started again.
    Eio,
    /// One node is cut off.
    Isolate,
    /// The nodes fall into two halves.
    Split,
    /// Nothing gets from one to another; the other way it does.
    OneWay,
    /// A way is cut and mended, many times.
    Flap,
    /// All connections between two nodes are lost.
    Sever,
    /// The leader hands over.
    Transfer,
    /// Nodes are added and removed.
    Change,
    /// Nobody has power.
    Blackout,
    /// Word stops coming to the leader, then going from it; when it may know no better than the past it is asked, and word comes again, from
    /// one after the other.
    Fade,
}

impl Fault {
    pub const ALL: [Self; 13] = [
        Self::PowerCut,
        Self::Kill,
        Self::Stop,
        Self::Eio,
        Self::Isolate,
        Self::Split,
        Self::OneWay,
        Self::Flap,
        Self::Sever,
        Self::Transfer,
        Self::Change,
        Self::Blackout,
        Self::Fade,
    ];
}

impl Plan {
    /// The run of `seed`.
    pub fn new(seed: u64, broken: Option<Broken>) -> Self {
        let mut chance = Chance::new(seed);
        let sealed = seed % 5 == 4;
        let count = if chance.once_in(4) { 5 } else { 3 };
        // A charter says who cosigns, and a shard that is no file of its own receives no other's: no moves, no snapshots.
        let spares = if sealed { 0 } else { chance.below(if count == 3 { 3 } else { 2 }) };
        let wide = chance.once_in(4);
        let ms = Duration::from_millis;
        let weather = if wide {
            Weather { least: ms(10), more: ms(60), idle: ms(4000 + chance.below(8000)) }
        } else {
            Weather { least: Duration::from_micros(100), more: ms(5), idle: ms(2000 + chance.below(8000)) }
        };
        let pace = Pace {
            hesitates: [0, 8, 32, 128][usize::try_from(chance.below(4)).unwrap()],
            hesitation: ms(1 + chance.below(4)),
            disk: ms(1 + chance.below(12)),
        };
        let mut weights = [0; Fault::ALL.len()];
        // Each run has its own mixture: some faults often, some never.
        weights.iter_mut().for_each(|weight| *weight = [0, 1, 1, 4][usize::try_from(chance.below(4)).unwrap()]);
        let entries = [40, 200, 20_000][usize::try_from(chance.below(3)).unwrap()];
        let hold = [2 << 10, 16 << 10, 1 << 30][usize::try_from(chance.below(3)).unwrap()];
        let tail = [0, 1 << 10, 2 << 20][usize::try_from(chance.below(3)).unwrap()];
        let mut plan = Self {
            seed,
            voters: (1..=count).collect(),
            spares: (count + 1..=count + spares).collect(),
            groups: if sealed { 1 } else { 1 + u16::try_from(chance.below(3)).unwrap() },
            sealed,
            clients: 2 + chance.below(4),
            timing: if wide { Timing::wan() } else { Timing::lan() },
            weather,
            pace,
            storm: ms(if wide { 15_000 } else { 5000 } + chance.below(8000)),
            calm: ms(if wide { 2500 } else { 200 + chance.below(1200) }),
            weights,
            wipes: !sealed && chance.once_in(8),
            red: None,
            lies: false,
            limits: (entries, hold, tail, ms(50 + chance.below(3000))),
            cuts_voters: [0, 16, 6, 3][usize::try_from(chance.below(4)).unwrap()],
        };
        if sealed {
            plan.limits = (20_000, 1 << 30, tail, ms(50 + chance.below(3000)));
        }
        match broken {
            None => {}
            Some(Broken::Rule(rule @ Red::AnswersAtOnce)) => {
                plan.red = Some(rule);
                // Alone: whatever else is done to the nodes, loses the answers that would be too old.
                plan.weights = Fault::ALL.map(|fault| u64::from(fault == Fault::Fade));
                (plan.wipes, plan.calm) = (false, plan.timing.election_max);
            }
            Some(Broken::Rule(rule @ Red::Strangers)) => {
                plan.red = Some(rule);
                plan.wipes = !plan.sealed;
                plan.often(&[Fault::PowerCut, Fault::Isolate, Fault::Split]);
            }
            Some(Broken::Rule(rule)) => {
                plan.red = Some(rule);
                plan.often(&[Fault::PowerCut, Fault::Isolate, Fault::Flap, Fault::Transfer]);
                plan.cuts_voters = 3;
            }
            Some(Broken::LyingDisks) => {
                plan.lies = true;
                plan.often(&[Fault::PowerCut, Fault::Blackout]);
            }
            Some(Broken::WipedNodes) => {
                plan.red = Some(Red::AnyUid);
                plan.wipes = !plan.sealed;
                plan.often(&[Fault::PowerCut, Fault::Isolate]);
            }
        }
        plan
    }

    fn often(&mut self, faults: &[Fault]) {
        for (fault, weight) in Fault::ALL.into_iter().zip(&mut self.weights) {
            if faults.contains(&fault) {
                *weight = 6;
            }
        }
    }

    pub fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (0..self.groups).map(GroupId)
    }

    pub fn nodes(&self) -> BTreeSet<u64> {
        self.voters.union(&self.spares).copied().collect()
    }

    /// How a node is set up.
    pub fn config(&self, node: u64) -> Config {
        let mut config = Config::new(NodeId(node));
        config.bootstrap = if self.voters.contains(&node) {
            Bootstrap::Voters(self.voters.iter().copied().map(NodeId).collect())
        } else {
            Bootstrap::Wait
        };
        config.timing = self.timing;
        config.log_cache_bytes = 1 << 20;
        // A few records a side, so that it goes round and the log's file is written all the time.
        config.journal_bytes = 48 << 10;
        (config.compact_after_entries, config.log_hold_bytes, config.log_tail_bytes, config.durable_after) =
            self.limits;
        config
    }
}
