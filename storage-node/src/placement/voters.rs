//! Which voters a shard may have.
//!
//! Whoever leads orders who votes, and what it orders counts from when it is in a log. A leader that lies could make itself the only voter,
//! and have the shard for good. So each node holds the lists of voters against the charters before it stores them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::step::Nodes;
use crate::charters::Charters;
use crate::checkpoint::Board;
use crate::consensus::{self, Judge};
use crate::node::node_id;

/// What this node's charters, and what is committed of them in the shard, say of lists of voters.
pub fn judge(shard: u16, charters: Charters, board: Arc<Board>) -> Judge {
    Box::new(move |lists: &[BTreeSet<consensus::NodeId>]| {
        // Of the state itself: a node that gave the shard up, and gets it again, is sent all that was ordered since its beginning.
        let now = board.applied_under(shard);
        let group = |version: u32| charters.of(version).map(|charter| charter.group(shard).iter().copied().collect());
        let before: Nodes = now.checked_sub(1).and_then(group).unwrap_or_default();
        let groups: Vec<Nodes> = (now..=charters.version()).filter_map(group).collect();
        lists.iter().all(|list| may_vote(&list.iter().copied().map(node_id).collect(), &before, &groups))
    })
}

/// Whether these may decide for a shard whose group was `before` and is the first of `groups`, and may become the others: all of them must be
/// of these, and more than half of the group that is, or of one that may be, among them. That much every step of a move keeps
/// ([`next_step`](super::next_step)): a group that sees the shard off votes with the new one, and of the new one more than half
/// vote when its charter is committed.
fn may_vote(list: &Nodes, before: &Nodes, groups: &[Nodes]) -> bool {
    let known = |node| before.contains(node) || groups.iter().any(|group| group.contains(node));
    let decides = |group: &Nodes| list.intersection(group).count() > group.len() / 2;
    list.iter().all(known) && groups.iter().any(decides)
}

#[cfg(test)]
mod tests {
    use ehe::id::NodeId;

    use super::*;

    fn nodes(ids: &[u8]) -> Nodes {
        ids.iter().map(|id| NodeId([*id; 8])).collect()
    }

    #[test]
    fn no_leader_makes_itself_the_group_and_every_step_of_a_move_may_be_taken() {
        let three = [nodes(&[1, 2, 3])];
        let may = |list: &[u8], before: &[u8], groups: &[Nodes]| may_vote(&nodes(list), &nodes(before), groups);
        assert!(may(&[1, 2, 3], &[], &three));
        assert!(may(&[1, 2], &[], &three));
        assert!(!may(&[1], &[], &three), "one is not the group");
        assert!(!may(&[1, 2, 9], &[], &three), "no charter gives it to 9");
        assert!(!may(&[], &[], &three));
        // It was node 1's alone: that it once decided alone is over.
        assert!(!may(&[1], &[1], &three));
        // From 1, 2, 3 to 3, 4, 5, of which 5 never comes; then without the old ones.
        let moving = [nodes(&[1, 2, 3]), nodes(&[3, 4, 5])];
        for list in [&[1, 2, 3][..], &[1, 2, 3, 4, 5], &[1, 2, 3, 4]] {
            assert!(may(list, &[], &moving));
        }
        assert!(!may(&[1, 5], &[], &moving));
        for list in [&[1, 2, 3, 4, 5][..], &[1, 2, 3, 4], &[3, 4, 5], &[3, 4]] {
            assert!(may(list, &[1, 2, 3], &moving[1..]));
        }
        assert!(!may(&[1, 2, 3], &[1, 2, 3], &moving[1..]), "they have let it go");
    }
}
