//! Names of things: groups, nodes, places in a log, and the incarnation of a node's log file.

use std::fmt;

/// One Raft group. There is one group per shard and the numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u16);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A node of the alliance, by the number that the charter gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// As the charter and every command write it.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A place in a group's log. Two entries with the same position are the same entry (one leader a term).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// The index of the entry; the first entry of a log has index 0, and there are no gaps.
    pub index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// The incarnation of a node: 16 random bytes, made when the log file is made, kept in it, and repeated in the
/// state of every machine. A node that lost its log file comes back with another one, and peers that remember the
/// old one can refuse it: a vote that was forgotten must not be cast twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeUid(pub [u8; 16]);

impl fmt::Display for NodeUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeUid({self})")
    }
}
