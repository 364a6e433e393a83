//! Which node to ask next for a shard: whom the shard's nodes named as its leader, else the group's order; nobody who is
//! distrusted.

use std::collections::BTreeMap;
use std::time::Instant;

use ehe::charter::VerifiedCharter;
use ehe::id::NodeId;

/// What was learnt of the nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    leaders: BTreeMap<u16, NodeId>,
    distrusted: BTreeMap<NodeId, Instant>,
}

impl Nodes {
    /// The nodes to ask, in order. Empty: all are distrusted until [`Nodes::trusted_again`].
    pub(super) fn order(&self, shard: u16, charter: &VerifiedCharter, now: Instant) -> Vec<NodeId> {
        let group = charter.group(shard);
        let leader = self.leaders.get(&shard).filter(|leader| group.contains(leader));
        let others = group.iter().filter(|node| Some(*node) != leader);
        leader.into_iter().chain(others).copied().filter(|node| self.is_trusted(*node, now)).collect()
    }

    /// The node leads the shard: another node said so, or it answered as its leader does.
    pub(super) fn leads(&mut self, shard: u16, node: NodeId) {
        self.leaders.insert(shard, node);
    }

    /// The node did not answer, or not as a leader does.
    pub(super) fn does_not_lead(&mut self, shard: u16, node: NodeId) {
        if self.leaders.get(&shard) == Some(&node) {
            self.leaders.remove(&shard);
        }
    }

    /// The node said what does not verify: it is not asked until then.
    pub(super) fn distrust(&mut self, node: NodeId, until: Instant) {
        self.distrusted.insert(node, until);
        self.leaders.retain(|_, leader| *leader != node);
    }

    /// When the first distrusted node of a group may be asked again.
    pub(super) fn trusted_again(&self, group: &[NodeId], now: Instant) -> Option<Instant> {
        group.iter().filter_map(|node| self.distrusted.get(node)).filter(|until| **until > now).min().copied()
    }

    fn is_trusted(&self, node: NodeId, now: Instant) -> bool {
        self.distrusted.get(&node).is_none_or(|until| *until <= now)
    }
}
