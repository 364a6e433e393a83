//! All shards of the alliance at one look, from what the nodes say of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ehe::id::NodeId;
use ehe::wire::{GroupNode, GroupStatus};

use crate::peers::{GroupReport, Report};

/// Longest text that is taken over from another node.
const DOING_MAX_BYTES: usize = 256;

/// Who says what, and how long ago. Of two that contradict each other the one counts that is under the later charter and in the later
/// term: the other has not heard of it yet.
pub fn groups(shards: u16, reports: &BTreeMap<NodeId, (Duration, Report)>) -> Vec<GroupStatus> {
    (0..shards).map(|shard| group(shard, reports)).collect()
}

fn group(shard: u16, reports: &BTreeMap<NodeId, (Duration, Report)>) -> GroupStatus {
    let said: BTreeMap<NodeId, (Duration, &GroupReport)> = reports
        .iter()
        .filter_map(|(node, (ago, report))| Some((*node, (*ago, report.groups.iter().find(|it| it.shard == shard)?))))
        .collect();
    // A node that leads knows best of its term; among others the one that was heard last.
    let best = said.iter().max_by_key(|(node, (ago, group))| {
        (group.charter, group.term, group.leader == Some(**node), std::cmp::Reverse(*ago))
    });
    let Some((_, (_, best))) = best else {
        return GroupStatus { shard, charter: 0, leader: None, nodes: Vec::new(), doing: None, rules: None };
    };
    let members: BTreeSet<NodeId> = best.voters.iter().chain(&best.learners).copied().collect();
    // Two groups of seven at most: who names more is not believed.
    let nodes = members.into_iter().take(14).map(|node| {
        let own = said.get(&node);
        GroupNode {
            node,
            votes: best.voters.contains(&node),
            applied: own.map(|(_, group)| group.applied),
            heard_ms: own.map(|(ago, _)| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            faulted: own.is_some_and(|(_, group)| group.faulted),
            knows: own.and_then(|_| reports.get(&node)).map(|(_, report)| report.knows()),
        }
    });
    let doing = best.doing.clone().filter(|doing| doing.len() <= DOING_MAX_BYTES);
    let rules = said.values().filter_map(|(_, group)| group.rules).max();
    GroupStatus { shard, charter: best.charter, leader: best.leader, nodes: nodes.collect(), doing, rules }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 8])
    }

    fn report(shard: u16, charter: u32, term: u64, leader: u8, voters: &[u8]) -> Report {
        let voters = voters.iter().map(|n| node(*n)).collect();
        let group = GroupReport {
            shard,
            charter,
            leader: Some(node(leader)),
            term,
            applied: 10 * term,
            voters,
            learners: vec![],
            faulted: false,
            doing: (leader == 2).then(|| "moves".into()),
            rules: (charter > 1).then_some(2),
        };
        Report { charter, groups: vec![group], gave_up: None, knows: Some(2) }
    }

    #[test]
    fn the_latest_word_about_a_shard_counts_and_each_nodes_own_about_how_far_it_is() {
        let second = Duration::from_secs(1);
        let reports = BTreeMap::from([
            // It was let go and does not know.
            (node(1), (second, report(0, 1, 9, 1, &[1]))),
            (node(2), (second, report(0, 2, 4, 2, &[2, 3, 4]))),
            (node(3), (5 * second, report(0, 2, 3, 3, &[1, 2, 3, 4]))),
        ]);
        let groups = groups(2, &reports);
        assert_eq!((groups[0].charter, groups[0].leader), (2, Some(node(2))));
        assert_eq!(groups[0].doing.as_deref(), Some("moves"));
        let nodes: Vec<_> = groups[0].nodes.iter().map(|it| (it.node, it.applied, it.heard_ms)).collect();
        assert_eq!(nodes, [(node(2), Some(40), Some(1000)), (node(3), Some(30), Some(5000)), (node(4), None, None)]);
        assert_eq!((groups[1].charter, groups[1].nodes.len()), (0, 0), "nobody was heard of");
    }
}
