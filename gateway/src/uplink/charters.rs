//! The charters of the alliance that this gateway has, and under which of them each shard was seen.
//!
//! A charter takes effect shard by shard, where it is committed there: a receipt may stand under an earlier one than the newest, and a shard
//! may be with nodes of an earlier one. What it may not do is go back: once a shard was seen under a charter, the quorum of an earlier one
//! proves nothing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use certs::Credentials;
use ehe::charter::{CharterError, Node, VerifiedCharter};
use ehe::id::NodeId;

/// See the [module's text](self).
#[derive(Debug, Clone)]
pub struct Charters {
    newest: Arc<VerifiedCharter>,
    /// The newest among them.
    each: Vec<Arc<VerifiedCharter>>,
    seen: BTreeMap<u16, u32>,
}

impl Charters {
    /// Those of a credentials directory.
    pub fn of(credentials: &Credentials) -> Result<Self, CharterError> {
        let each = credentials.charter_chain().verify_each(credentials.alliance_id())?;
        let newest = Arc::new(credentials.charter().clone());
        Ok(Self { newest, each: each.into_iter().map(Arc::new).collect(), seen: BTreeMap::new() })
    }

    pub(super) fn newest(&self) -> Arc<VerifiedCharter> {
        Arc::clone(&self.newest)
    }

    /// The charter of a version, unless the shard was seen under a later one.
    pub(super) fn of_version(&self, shard: u16, version: u32) -> Option<Arc<VerifiedCharter>> {
        let seen = self.seen.get(&shard).copied().unwrap_or(0);
        let group = |charter: &VerifiedCharter| charter.group(shard).iter().copied().collect::<BTreeSet<_>>();
        // One that leaves the shard where it is comes to it at once.
        let holds =
            |it: &Arc<VerifiedCharter>| it.version() == self.newest.version() || group(it) != group(&self.newest);
        self.each.iter().find(|it| it.version() == version && version >= seen && holds(it)).cloned()
    }

    pub(super) fn stood(&mut self, shard: u16, version: u32) {
        let seen = self.seen.entry(shard).or_default();
        *seen = version.max(*seen);
    }

    /// The one before the newest.
    pub(super) fn before(&self) -> Option<Arc<VerifiedCharter>> {
        self.each.iter().rev().nth(1).cloned()
    }

    pub(super) fn node(&self, id: NodeId) -> Option<Node> {
        self.each.iter().rev().find_map(|charter| charter.node(id).cloned())
    }

    /// Takes up a verified chain, if it goes further. Its newest version then.
    pub(super) fn take_up(&mut self, each: Vec<VerifiedCharter>) -> Option<u32> {
        let each: Vec<_> = each.into_iter().map(Arc::new).collect();
        let newest = each.last().filter(|newest| newest.version() > self.newest.version())?;
        self.newest = Arc::clone(newest);
        self.each = each;
        Some(self.newest.version())
    }
}

#[cfg(test)]
mod tests {
    use ehe::charter::{CharterChain, Placement, SignedCharter};

    use super::*;
    use crate::rooms::testing;

    #[test]
    fn an_earlier_charter_holds_in_a_shard_that_a_later_one_moves_until_it_was_seen_there() {
        let members = [(); 3].map(|()| testing::identity());
        let nodes = [1, 2, 3].map(|n| (testing::identity(), format!("127.0.0.1:{n}")));
        let mut chain = testing::charter(&members, &nodes[..1]);
        let first = chain.verify_each(chain.claimed_alliance().unwrap()).unwrap();
        let before = chain.0[0].read().unwrap();
        let both = testing::charter(&members, &nodes).0[0].read().unwrap();
        let moved = ehe::charter::Charter {
            version: 2,
            predecessor: Some(chain.0[0].hash()),
            nodes: both.nodes.clone(),
            placement: Placement::Everywhere(vec![both.nodes[1].id]),
            ..before
        };
        let mut signed = SignedCharter::unsigned(&moved).unwrap();
        members.iter().for_each(|member| signed.sign(member).unwrap());
        chain.0.push(signed);
        // And one that leaves everything where it is.
        let same = testing::next_charter(&chain, &members);
        let alliance = chain.claimed_alliance().unwrap();
        let each = |chain: &CharterChain| chain.verify_each(alliance).unwrap();
        let mut charters = Charters {
            newest: Arc::new(first[0].clone()),
            each: first.into_iter().map(Arc::new).collect(),
            seen: BTreeMap::new(),
        };
        assert_eq!(charters.take_up(each(&chain)), Some(2));
        assert_eq!(charters.take_up(each(&chain)), None);
        let of = |charters: &Charters, version| charters.of_version(0, version).map(|charter| charter.version());
        assert_eq!((of(&charters, 1), of(&charters, 2), of(&charters, 3)), (Some(1), Some(2), None));
        assert_eq!(charters.before().map(|before| before.version()), Some(1));
        assert!(charters.node(both.nodes[1].id).is_some());
        charters.stood(0, 2);
        assert_eq!((of(&charters, 1), of(&charters, 2)), (None, Some(2)), "what was seen does not go back");
        assert_eq!(charters.take_up(each(&same)), Some(3));
        charters.seen.clear();
        assert_eq!((of(&charters, 1), of(&charters, 2), of(&charters, 3)), (Some(1), None, Some(3)));
    }
}
