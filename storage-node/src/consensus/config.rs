//! What an operator may set.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    error::ConfigError,
    ids::{GroupId, NodeId},
};

/// Most groups that one node runs: each has a thread for its machine.
pub const MAX_GROUPS: usize = 256;

/// Most bytes that a journal may have: it is read as a whole when the node starts.
pub(super) const MAX_JOURNAL_BYTES: usize = 256 << 20;

/// The settings of a node's consensus. [`Config::new`] has the defaults; each field says unit and cost.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's number in the charter.
    pub node_id: NodeId,

    /// What a group does that has never been part of anything. Default: this node is its one voter.
    pub bootstrap: Bootstrap,

    /// Groups that do not become what [`bootstrap`](Self::bootstrap) says until [`begin`](super::Consensus::begin) is called. Default: none.
    pub waiting: BTreeSet<GroupId>,

    /// Heartbeats and elections. Default: [`Timing::wan`].
    pub timing: Timing,

    /// Longest command that [`propose`](super::Consensus::propose) takes, in bytes. Default 8 MiB.
    pub max_command_bytes: usize,

    /// Most proposals of one group that are under way at once; more are refused as overloaded. Default 4,096.
    pub max_in_flight: usize,

    /// Most bytes of proposals of one group that are under way at once. Default 64 MiB; this much memory may be in
    /// use for each group that is overloaded.
    pub max_in_flight_bytes: usize,

    /// Cache of the log's redb file, in bytes, for all groups together. Default 64 MiB.
    pub log_cache_bytes: usize,

    /// Room of the log's journal when it is made, in bytes on disk, for all groups together. What is in it is in memory as well, and is
    /// replayed when the node starts after a crash. Each half of it becomes one commit of the log's redb file; a batch that is larger
    /// than a half is committed there at once, and with 0 every batch is. Default 16 MiB.
    pub journal_bytes: u64,

    /// Newest entries of each group that stay decoded in memory for applying and replicating, in bytes. Entries that
    /// are not on disk yet, or only in the journal, stay in any case. Default 2 MiB; times the number of groups.
    pub log_tail_bytes: usize,

    /// A state is made durable at the latest this long after the first change that is not. Default 3 s.
    pub durable_after: Duration,

    /// A state is made durable at the latest after this many bytes of commands. Default 8 MiB.
    pub durable_after_bytes: u64,

    /// The log is shortened when this many bytes of it are no longer needed. Default 32 MiB for each group.
    pub compact_after_bytes: u64,

    /// The log is shortened when this many entries of it are no longer needed. Default 20,000 for each group.
    pub compact_after_entries: u64,

    /// Entries that stay in the log though the state has them, however few bytes they have. Default 16: under load an entry
    /// has up to 4 MiB, and what stays in the log counts for each group.
    pub keep_entries: u64,

    /// So many of the newest bytes of a group's log stay on every node, whoever needs them now: who was away for no more than
    /// that gets no snapshot, whoever leads when it is back. Default 32 MiB for each group.
    pub log_keep_bytes: u64,

    /// A leader does not shorten the log of a group past what another member lacks, until that member lacks so many bytes:
    /// from there on it gets a snapshot, and as many bytes more are kept as it has been sent of that. Default 1 GiB for each
    /// group.
    pub log_hold_bytes: u64,

    /// Bytes of snapshots that this node sends in a second, of all groups together. Default 64 MiB.
    pub snapshot_bytes_per_s: u64,

    /// Groups that are held from the start, and why: see [`Consensus::hold`](super::Consensus::hold). Default: none.
    pub held: BTreeMap<GroupId, String>,
}

impl Config {
    /// The defaults for node `node_id`.
    #[must_use]
    pub fn new(node_id: NodeId) -> Self {
        Self {
            node_id,
            bootstrap: Bootstrap::Voters(BTreeSet::from([node_id])),
            waiting: BTreeSet::new(),
            timing: Timing::wan(),
            max_command_bytes: 8 << 20,
            max_in_flight: 4096,
            max_in_flight_bytes: 64 << 20,
            log_cache_bytes: 64 << 20,
            journal_bytes: 16 << 20,
            log_tail_bytes: 2 << 20,
            durable_after: Duration::from_secs(3),
            durable_after_bytes: 8 << 20,
            compact_after_bytes: 32 << 20,
            compact_after_entries: 20_000,
            keep_entries: 16,
            log_keep_bytes: 32 << 20,
            log_hold_bytes: 1 << 30,
            snapshot_bytes_per_s: 64 << 20,
            held: BTreeMap::new(),
        }
    }

    /// Refuses what cannot work, before anything is opened.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let limit = tokio::sync::Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        if self.max_in_flight == 0 || self.max_in_flight > limit {
            return Err(ConfigError::OutOfRange { what: "max_in_flight", low: 1, high: limit });
        }
        if self.max_command_bytes == 0 || self.max_command_bytes > MAX_COMMAND_BYTES {
            return Err(ConfigError::OutOfRange { what: "max_command_bytes", low: 1, high: MAX_COMMAND_BYTES });
        }
        if self.journal_bytes > MAX_JOURNAL_BYTES as u64 {
            return Err(ConfigError::OutOfRange { what: "journal_bytes", low: 0, high: MAX_JOURNAL_BYTES });
        }
        if self.max_in_flight_bytes < self.max_command_bytes || self.max_in_flight_bytes > limit {
            let low = self.max_command_bytes;
            return Err(ConfigError::OutOfRange { what: "max_in_flight_bytes", low, high: limit });
        }
        let mut groups = self.bootstrap.all();
        if groups.any(|voters| !voters.contains(&self.node_id)) {
            return Err(ConfigError::NotAVoter(self.node_id));
        }
        Ok(())
    }
}

/// Hard limit of a command: a frame between nodes holds a read of 4 MiB and one command more.
const MAX_COMMAND_BYTES: usize = 8 << 20;

/// What a group does when it opens and has never been part of anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// Becomes a group of these voters, this node among them. All of them must be given the same ones.
    Voters(BTreeSet<NodeId>),
    /// The same for each group by itself; a group that is not named waits.
    Each(BTreeMap<GroupId, BTreeSet<NodeId>>),
    /// Waits to be added by others.
    Wait,
}

impl Bootstrap {
    fn all(&self) -> impl Iterator<Item = &BTreeSet<NodeId>> {
        let (one, each) = match self {
            Self::Voters(voters) => (Some(voters), None),
            Self::Each(each) => (None, Some(each.values())),
            Self::Wait => (None, None),
        };
        one.into_iter().chain(each.into_iter().flatten())
    }

    /// The first voters of a group, unless it waits.
    pub fn voters(&self, group: GroupId) -> Option<&BTreeSet<NodeId>> {
        match self {
            Self::Voters(voters) => Some(voters),
            Self::Each(each) => each.get(&group),
            Self::Wait => None,
        }
    }
}

/// How often a leader is heard, and how long its silence is borne.
///
/// Followers do not listen to a candidate while they have heard of their leader within a lease, and each waits a while of
/// its own behind that. openraft counts the two separately: the lease is half of `election_max`, the wait from half of
/// `election_min` to half of `election_max`. So somebody stands for election at the latest `election_max` after the leader's
/// last word, and when votes are split, again within as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From one heartbeat to the next.
    pub heartbeat: Duration,
    /// Twice the least wait behind the lease.
    pub election_min: Duration,
    /// A follower stands for election this long after the leader's last word, at the latest.
    pub election_max: Duration,
}

impl Timing {
    /// Hospitals joined over the internet: 500 ms, 2 to 4 s.
    #[must_use]
    pub const fn wan() -> Self {
        Self {
            heartbeat: Duration::from_millis(500),
            election_min: Duration::from_secs(2),
            election_max: Duration::from_secs(4),
        }
    }

    /// Nodes in one building: 100 ms, 500 ms to 1 s.
    #[must_use]
    pub const fn lan() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_secs(1),
        }
    }
}
