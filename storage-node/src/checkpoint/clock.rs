//! Whose clock is right is nobody's to say; that two differ too much, is.

use std::collections::BTreeMap;

use ehe::id::NodeId;
use ehe::time::UnixMs;

use crate::red;

/// A leader whose clock differs by more gets no cosignature.
pub const CLOCK_DIFFERS_MAX_MS: u64 = 60_000;

/// Whether `theirs` was within the bound at some moment between `from` and `to` of our own clock.
pub(super) fn agrees(theirs: UnixMs, from: UnixMs, to: UnixMs) -> bool {
    if red::on("clock_lies") {
        return true;
    }
    from.0 <= theirs.0.saturating_add(CLOCK_DIFFERS_MAX_MS) && theirs.0 <= to.0.saturating_add(CLOCK_DIFFERS_MAX_MS)
}

/// What the nodes of a group last said about this node's clock.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    contradicts: BTreeMap<NodeId, bool>,
}

impl Clocks {
    /// A peer did what it does only if it agrees.
    pub(super) fn agreed(&mut self, peer: NodeId) {
        self.contradicts.insert(peer, false);
    }

    /// A peer refused a wish of `wished_at` and had this time then. However long wish and answer were on their way, the peer
    /// looked at its clock between the wish and now: what was only late is no contradiction.
    pub(super) fn differs(&mut self, peer: NodeId, theirs: UnixMs, wished_at: UnixMs, now: UnixMs) {
        self.contradicts.insert(peer, !agrees(theirs, wished_at, now));
    }

    /// Only these count any more.
    pub(super) fn only(&mut self, counts: impl Fn(&NodeId) -> bool) {
        self.contradicts.retain(|node, _| counts(node));
    }

    /// Whether somebody agreed, and not fewer than contradicted.
    pub(super) fn confirmed(&self) -> bool {
        let contradict = self.contradicts.values().filter(|contradicts| **contradicts).count();
        let agree = self.contradicts.len() - contradict;
        agree > 0 && agree >= contradict
    }

    /// Whether more than half of a group of `nodes` contradict. One who lies is never enough.
    pub(super) fn contradicted(&self, nodes: usize) -> bool {
        self.contradicts.values().filter(|contradicts| **contradicts).count() > nodes / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_nodes_contradicts_whatever_the_way_took_and_one_of_three_does_not() {
        let (second, at) = (1000, |s: u64| UnixMs(s * 1000));
        let mut clocks = Clocks::default();
        let nodes = [1, 2].map(|n| NodeId([n; 8]));
        clocks.differs(nodes[0], at(10_061), at(10_000), at(10_000));
        assert!(!clocks.contradicted(3));
        clocks.differs(nodes[1], at(9_939), at(10_000), at(10_000));
        assert!(clocks.contradicted(3) && !clocks.contradicted(5));
        // The answer was on its way for two minutes: the peer may have looked at any moment between.
        for on_its_way in [0, 60, 120] {
            clocks.differs(nodes[1], at(10_000 + on_its_way), at(10_000), at(10_120));
            assert!(!clocks.contradicted(3));
        }
        clocks.differs(nodes[1], UnixMs(10_180 * second + 1), at(10_000), at(10_120));
        assert!(clocks.contradicted(3));
        clocks.differs(nodes[1], UnixMs(u64::MAX), at(0), UnixMs(u64::MAX));
        assert!(!clocks.contradicted(3));
        // Who has left the group says nothing in it any more.
        clocks.differs(nodes[1], at(10_061), at(10_000), at(10_000));
        assert!(clocks.contradicted(3));
        clocks.only(|node| *node != nodes[1]);
        assert!(!clocks.contradicted(3));
    }
}
