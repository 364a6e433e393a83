//! What can happen.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Whom it meets. Resolved when it begins: leaders move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Whom {
    /// The node that leads most shards.
    Leader,
    /// One that does not: the first after the leader, the second, ….
    Follower(usize),
    /// All at once.
    Everybody,
}

/// Packets that get lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Cut {
    /// Neither to nor from the other nodes.
    Apart,
    /// It hears the others, and they do not hear it.
    Mute,
    /// The others hear it, and it does not hear them.
    Deaf,
    /// Apart and together again, over and over.
    Flapping,
    /// Clients do not reach it; the other nodes do.
    Unreached,
}

/// How one node takes another one's place in all shards, while everybody works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Change {
    /// It is said who comes: `ehe-node replace`.
    Replace,
    /// It is said who goes: `ehe-node drain`.
    Drain,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Fault {
    /// SIGKILL; started again when it is healed.
    Kill(Whom),
    /// SIGKILL, and its disk has forgotten what was not synced. A seed: a beginning of that is left.
    PowerCut(Whom, Option<u64>),
    /// SIGSTOP, until SIGCONT.
    Pause(Whom),
    /// A partition.
    Cut(Whom, Cut),
    /// The disk of the node with a small one has no room left; healed by room and a restart.
    FullDisk,
    /// Its wall clock is wrong by so many seconds.
    Skew(Whom, i64),
    /// It ends in order, and another one leads.
    MoveLeader,
    /// It goes, and the node that has no shards comes. Over when the shards live there.
    Members(Whom, Change),
    /// As `Members`; and on the way, after so long as it lasts, the leader is killed (SIGKILL) and started again.
    MembersAndKill(Whom, Change),
    /// The home's gateway is killed (SIGKILL).
    KillGateway,
}

/// By so much clocks may differ; a leader that is further ahead is taken nothing from.
const AGREES_S: i64 = 60;

/// Sorts of faults, to count them by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[allow(missing_docs, reason = "the faults' own names")]
pub enum Sort {
    Kill,
    PowerCut,
    Pause,
    Apart,
    OneWay,
    Flapping,
    Unreached,
    FullDisk,
    Skew,
    Ahead,
    MoveLeader,
    Members,
    KillGateway,
}

impl Sort {
    /// All.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::PowerCut,
        Self::Pause,
        Self::Apart,
        Self::OneWay,
        Self::Flapping,
        Self::Unreached,
        Self::FullDisk,
        Self::Skew,
        Self::Ahead,
        Self::MoveLeader,
        Self::Members,
        Self::KillGateway,
    ];
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9",
            Self::PowerCut => "power cut",
            Self::Pause => "pause",
            Self::Apart => "partition",
            Self::OneWay => "one-way partition",
            Self::Flapping => "flapping partition",
            Self::Unreached => "unreached by clients",
            Self::FullDisk => "full disk",
            Self::Skew => "wrong clock",
            Self::Ahead => "leader's clock far ahead",
            Self::MoveLeader => "leader moved",
            Self::Members => "node added and node removed",
            Self::KillGateway => "gateway killed",
        })
    }
}

impl Fault {
    /// Its sort.
    pub fn sort(self) -> Sort {
        match self {
            Self::Kill(_) => Sort::Kill,
            Self::PowerCut(..) => Sort::PowerCut,
            Self::Pause(_) => Sort::Pause,
            Self::Cut(_, Cut::Apart) => Sort::Apart,
            Self::Cut(_, Cut::Mute | Cut::Deaf) => Sort::OneWay,
            Self::Cut(_, Cut::Flapping) => Sort::Flapping,
            Self::Cut(_, Cut::Unreached) => Sort::Unreached,
            Self::FullDisk => Sort::FullDisk,
            Self::Skew(Whom::Leader, seconds) if seconds > AGREES_S => Sort::Ahead,
            Self::Skew(..) => Sort::Skew,
            Self::MoveLeader => Sort::MoveLeader,
            Self::Members(..) | Self::MembersAndKill(..) => Sort::Members,
            Self::KillGateway => Sort::KillGateway,
        }
    }
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Injected {
    /// What.
    pub fault: Fault,
    /// Nodes that it met, by number.
    pub nodes: Vec<usize>,
    /// From the beginning of the campaign until it began.
    pub begun_ms: u64,
    /// Until it was healed.
    pub healed_ms: u64,
    /// Then, until every shard had a leader again that all nodes name.
    pub agreed_ms: Option<u64>,
}

impl Injected {
    /// How many of each sort. A kill of two nodes counts twice: each is a cycle of its own.
    pub fn counted(injected: &[Self]) -> BTreeMap<Sort, usize> {
        let mut counts: BTreeMap<Sort, usize> = BTreeMap::new();
        for it in injected {
            let sort = it.fault.sort();
            *counts.entry(sort).or_default() += if sort == Sort::Members { 1 } else { it.nodes.len().max(1) };
        }
        counts
    }
}

/// When a fault begins, counted from the end of the one before, and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Quiet before it.
    pub after: Duration,
    /// The fault.
    pub fault: Fault,
    /// How long.
    pub lasts: Duration,
}
