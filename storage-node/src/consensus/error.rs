//! Everything that can go wrong, one type for each thing that a caller can do.

use std::{sync::Arc, time::Duration};

use super::{
    ids::{GroupId, NodeId, NodeUid},
    log::JournalError,
    machine::MachineError,
    status::Role,
};

/// Why a group was stopped for good on this node. It stays stopped until the program is started again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The log's file failed. All groups share it, so all of them stop.
    #[error(
        "the disk failed under the log of all groups while {doing}: {source}; check the disk and its free space, then restart the node"
    )]
    Log {
        /// What was under way.
        doing: &'static str,
        /// What redb says.
        #[source]
        source: redb::Error,
    },

    /// The group's machine failed.
    #[error(
        "the state of group {group} failed while {doing}: {source} (the group stays stopped until the node is restarted)"
    )]
    Machine {
        /// The group.
        group: GroupId,
        /// What was under way.
        doing: &'static str,
        /// What the machine says.
        #[source]
        source: MachineError,
    },

    /// Stored bytes are not what was written.
    #[error("group {group}: {what} is corrupt on disk; restore this node from a replica, under a new node id")]
    Corrupt {
        /// The group.
        group: GroupId,
        /// What does not decode or does not follow.
        what: String,
    },

    /// This program broke its own rules; going on could lose data.
    #[error("group {group}: {what}; this is a bug of this program, please report it; a restart is safe")]
    Bug {
        /// The group.
        group: GroupId,
        /// The rule.
        what: String,
    },
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is out of range.
    #[error("{what} must be from {low} to {high}")]
    OutOfRange {
        /// The field of [`Config`](super::Config).
        what: &'static str,
        /// Least value.
        low: usize,
        /// Greatest value.
        high: usize,
    },
    /// Heartbeats and elections do not fit each other.
    #[error("timing: {0}")]
    Timing(String),
    /// A group would begin without this node.
    #[error("this node, {0}, is not among the voters that new groups are to have")]
    NotAVoter(NodeId),
    /// The same group was given twice.
    #[error("group {0} was given twice")]
    GroupTwice(GroupId),
}

/// Why consensus did not open. Nothing was changed on disk, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The caller's settings.
    #[error("consensus is misconfigured: {0}")]
    Config(#[from] ConfigError),

    /// The log's file cannot be opened or read.
    #[error("the log file cannot be opened: {0}; if another process of this node runs, stop it, else check the disk")]
    Log(#[source] redb::Error),

    /// The log's journal is not what it should be: what this node confirmed last may be lost.
    #[error("the log's journal, raft.journal: {0}")]
    Journal(#[from] JournalError),

    /// The directory of the log cannot be used, or there is no randomness.
    #[error("{doing}: {source}")]
    Io {
        /// What was under way.
        doing: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },

    /// The log file was written by a later version of this program.
    #[error(
        "the log file has format {found}, this program knows {known}; install the version that wrote it, or a later one"
    )]
    Format {
        /// As found.
        found: u64,
        /// As known.
        known: u64,
    },

    /// The log belongs to another node.
    #[error(
        "the log file is that of node {found}, this is node {expected}; the data directory or the configuration is another node's"
    )]
    OtherNode {
        /// Whose log it is.
        found: NodeId,
        /// Who this is.
        expected: NodeId,
    },

    /// There is state but no log: someone removed the log, or restored the state alone.
    #[error(
        "group {group} has a state but the node has no log: the log file was removed, and with it votes that this node gave; \
         put the log file back, or remove this node from the alliance and enrol it anew under another id"
    )]
    LogMissing {
        /// The first such group.
        group: GroupId,
    },

    /// State and log are not of one incarnation.
    #[error(
        "the state of group {group} belongs to incarnation {state}, the log file to {log}: one of them was exchanged or restored from a \
         backup; put back the one that belongs, or enrol this node anew under another id"
    )]
    OtherIncarnation {
        /// The first such group.
        group: GroupId,
        /// As the state says.
        state: NodeUid,
        /// As the log says.
        log: NodeUid,
    },

    /// The state is newer than the log: the log was restored from an older copy, or the disk lost synced writes.
    #[error(
        "the state of group {group} includes entry {applied}, its log ends at {last:?}: the log file is an older copy or the disk lost what \
         it had confirmed; this node may have forgotten votes: remove it and enrol it anew under another id"
    )]
    LogBehindState {
        /// The group.
        group: GroupId,
        /// Index of the last entry in the state.
        applied: u64,
        /// Index of the last entry in the log.
        last: Option<u64>,
    },

    /// The state is older than what the log can replay: state was removed or restored from an older copy.
    #[error(
        "the state of group {group} ends at {applied:?}, its log begins after {purged}: the state was removed or is an older copy; put the \
         state back, or remove this node and enrol it anew under another id"
    )]
    StateBehindLog {
        /// The group.
        group: GroupId,
        /// Index of the last entry in the state.
        applied: Option<u64>,
        /// Index of the last entry that is no longer in the log.
        purged: u64,
    },

    /// State and log have different entries at one place.
    #[error(
        "group {group}: state and log disagree about entry {index}; one of them is another node's: put back the one that belongs"
    )]
    Diverged {
        /// The group.
        group: GroupId,
        /// Where.
        index: u64,
    },

    /// A group stopped while it opened. Others may have begun to work and were stopped again.
    #[error("group {group} did not start: {fault}")]
    Fault {
        /// The group.
        group: GroupId,
        /// Why.
        #[source]
        fault: Arc<Fault>,
    },
}

/// Why a proposal has no response.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// This node does not run that group. Nothing was written.
    #[error("group {0} is not on this node")]
    NoSuchGroup(GroupId),

    /// Another node orders, or none does at the moment. Nothing was written: propose there.
    #[error("this node does not lead the group (leader: {leader:?})")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },

    /// Longer than [`Config::max_command_bytes`](super::Config::max_command_bytes). Nothing was written.
    #[error("the command has {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },

    /// Too much is under way. Nothing was written: wait and propose again.
    #[error("too many proposals are under way in this group")]
    Overloaded,

    /// Leadership changed while the proposal was under way. **It may or may not be committed**: a command that must
    /// not happen twice has to carry a name by which the machine knows it.
    #[error("leadership changed while the proposal was under way; it may or may not have been committed")]
    Unknown,

    /// Consensus is shutting down. As with [`Unknown`](Self::Unknown), a proposal that was under way may be committed.
    #[error("the node is shutting down")]
    Stopped,

    /// The group was stopped for good. As with [`Unknown`](Self::Unknown), a proposal that was under way may be
    /// committed.
    #[error("the group is stopped: {0}")]
    Fault(#[source] Arc<Fault>),
}

/// Why the members of a group, or its leader, were not changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// This node does not run that group.
    #[error("group {0} is not on this node")]
    NoSuchGroup(GroupId),
    /// Another node leads, or none: ask there. Nothing was changed.
    #[error("this node does not lead the group (leader: {leader:?})")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// It cannot be done now. Nothing was changed: the text says what is in the way.
    #[error("{0}")]
    NotNow(String),
    /// Leadership changed meanwhile: it may have been done, or half done. Doing it again is safe.
    #[error("leadership changed while the group was changed; do it again")]
    Unknown,
    /// The group is stopped.
    #[error("the group is stopped")]
    Stopped,
}

/// Why a group was not given up.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaveError {
    /// This node does not run that group.
    #[error("group {0} is not on this node")]
    NoSuchGroup(GroupId),
    /// Whoever leads, stands for election or is held does not give up. Nothing was changed.
    #[error("this node is {0:?} in the group, or held there")]
    NotNow(Role),
    /// Nothing was changed.
    #[error("another node's stream does not end")]
    NotSilent,
    /// The node is stopping. What was begun, the next start ends.
    #[error("the group is stopped")]
    Stopped,
    /// The group is stopped by a fault. What was begun, the next start ends.
    #[error("{0}")]
    Fault(#[source] Arc<Fault>),
}

/// Why a reader cannot be told that it sees everything.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// This node does not run that group.
    #[error("group {0} is not on this node")]
    NoSuchGroup(GroupId),
    /// Nobody leads, as far as this node can find out.
    #[error("no leader confirmed that it leads (asked: {leader:?})")]
    NoLeader {
        /// Who was thought to lead.
        leader: Option<NodeId>,
    },
    /// Not in time.
    #[error("not within {0:?}")]
    TimedOut(Duration),
    /// The group is stopped.
    #[error("the group is stopped")]
    Stopped,
}

/// Why waiting for a group's status ended without it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// This node does not run that group.
    #[error("group {0} is not on this node")]
    NoSuchGroup(GroupId),
    /// It did not come about in time.
    #[error("not within {0:?}")]
    TimedOut(Duration),
    /// The group stopped.
    #[error("the group stopped")]
    Stopped,
}

/// What could not be put in order at the end. The next start puts it in order from the log.
#[derive(Debug, thiserror::Error)]
#[error("group {group} was not closed in order: {fault}")]
pub struct ShutdownError {
    /// The first such group.
    pub group: GroupId,
    /// Why.
    #[source]
    pub fault: Arc<Fault>,
}
