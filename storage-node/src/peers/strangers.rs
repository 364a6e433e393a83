//! How many read requests that will be refused one node may forward.
//!
//! A refusal of somebody whom the room does not know leaves a record in it, once an hour for each such identity. A client's identity was
//! certified; whoever has a node's key makes as many as it likes, and a room would grow with them. So of each node that forwards, an
//! ordering party orders so many a clock hour, and answers the others that it is overloaded: they lose nothing but the record. Whom the
//! room knows is not counted: there are as many of them as the patient has let in. A member that orders itself is not held by this.

use std::collections::{BTreeMap, BTreeSet};

use ehe::id::{AuthorId, NodeId, RoomId};
use ehe::time::Hour;

/// Strangers, each in one room, whose requests one node forwards in an hour.
pub(super) const OF_ONE_NODE_MAX: usize = 64;

/// What was ordered for strangers in the hour under way.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    hour: Option<Hour>,
    /// As many nodes as the charters ever named, at most.
    of: BTreeMap<NodeId, BTreeSet<(RoomId, AuthorId)>>,
}

impl Strangers {
    /// Whether one more request of a stranger is ordered for a node. Of one who asked in this hour it leaves no further record.
    pub(super) fn may_ask(&mut self, from: NodeId, room: RoomId, stranger: AuthorId, hour: Hour) -> bool {
        if self.hour != Some(hour) {
            (self.hour, self.of) = (Some(hour), BTreeMap::new());
        }
        let asked = self.of.entry(from).or_default();
        if asked.len() >= OF_ONE_NODE_MAX {
            return asked.contains(&(room, stranger));
        }
        asked.insert((room, stranger));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_forwards_so_many_strangers_an_hour_and_takes_nothing_from_others() {
        let (mut strangers, room) = (Strangers::default(), RoomId([1; 16]));
        let who = |n: usize| AuthorId(u128::try_from(n).unwrap().to_be_bytes());
        let mut asks = |from: u8, n, hour| strangers.may_ask(NodeId([from; 8]), room, who(n), Hour(hour));
        assert!((0..OF_ONE_NODE_MAX).all(|n| asks(1, n, 7)));
        assert!(!asks(1, OF_ONE_NODE_MAX, 7), "one too many");
        assert!(asks(1, 0, 7), "counted already, and recorded");
        assert!(asks(2, OF_ONE_NODE_MAX, 7), "another node's");
        assert!(asks(1, OF_ONE_NODE_MAX, 8), "another hour");
    }
}
