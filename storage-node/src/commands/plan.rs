//! The charter that follows, where nothing changes but where shards live. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ehe::charter::{Charter, Placement, VerifiedCharter};
use ehe::id::{MemberId, NodeId};

/// Why there is no such plan. Who asked for it has to ask for another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No such shard.
    #[error("there is no shard {shard}: the alliance has {shards}, from 0 on")]
    NoShard {
        /// What was asked for.
        shard: u16,
        /// Shards that there are.
        shards: u16,
    },
    /// The node has nothing.
    #[error("no shard lives on node {0}: there is nothing to move")]
    Nothing(NodeId),
    /// Nobody can take a shard over.
    #[error(
        "no node is left to take shard {shard} over: add a node to the charter (`ehe-certs charter new --after`), or say where it should live (`ehe-node move-shard`)"
    )]
    NobodyLeft {
        /// The shard.
        shard: u16,
    },
    /// Both nodes hold a shard already.
    #[error("shard {shard} lives on both nodes already: `ehe-node drain` finds another one for it")]
    HasBoth {
        /// The shard.
        shard: u16,
    },
    /// The rules version is that already, or a later one.
    #[error("the charter puts rules version {0} in force already: it is only ever raised")]
    NotRaised(u16),
    /// The plan changes nothing.
    #[error("the shards live there already")]
    NoChange,
    /// What it makes is no charter.
    #[error(transparent)]
    Charter(#[from] ehe::charter::CharterError),
}

type Groups = Vec<Vec<NodeId>>;

/// A shard lives on these nodes.
pub fn set(charter: &VerifiedCharter, shard: u16, to: &[NodeId]) -> Result<Charter, PlanError> {
    let mut groups = charter.charter().groups();
    let shards = charter.shard_count().get();
    *groups.get_mut(usize::from(shard)).ok_or(PlanError::NoShard { shard, shards })? = to.to_vec();
    follows(charter, groups)
}

/// No shard lives on a node: others take its place, those with the fewest shards first, and rather of a member that has no part in the
/// shard yet.
pub fn drain(charter: &VerifiedCharter, node: NodeId) -> Result<Charter, PlanError> {
    let mut groups = charter.charter().groups();
    if !groups.iter().any(|group| group.contains(&node)) {
        return Err(PlanError::Nothing(node));
    }
    let mut load: BTreeMap<NodeId, usize> = charter.nodes().iter().map(|node| (node.id, 0)).collect();
    groups.iter().flatten().for_each(|node| *load.entry(*node).or_default() += 1);
    for (shard, group) in (0u16..).zip(&mut groups) {
        let Some(place) = group.iter().position(|it| *it == node) else { continue };
        let member = |id: &NodeId| charter.node(*id).map(|node| node.member);
        let stay: BTreeSet<MemberId> = group.iter().filter(|it| **it != node).filter_map(member).collect();
        let free = charter.nodes().iter().filter(|it| it.id != node && !group.contains(&it.id));
        let taker = free.min_by_key(|it| (stay.contains(&it.member), load.get(&it.id).copied().unwrap_or(0), it.id));
        let taker = taker.ok_or(PlanError::NobodyLeft { shard })?.id;
        *load.entry(taker).or_default() += 1;
        if let Some(place) = group.get_mut(place) {
            *place = taker;
        }
    }
    follows(charter, groups)
}

/// One node takes another one's place everywhere.
pub fn replace(charter: &VerifiedCharter, old: NodeId, new: NodeId) -> Result<Charter, PlanError> {
    let mut groups = charter.charter().groups();
    let mut any = false;
    for (shard, group) in (0u16..).zip(&mut groups).filter(|(_, group)| group.contains(&old)) {
        if group.contains(&new) {
            return Err(PlanError::HasBoth { shard });
        }
        any = true;
        group.iter_mut().filter(|node| **node == old).for_each(|node| *node = new);
    }
    if any { follows(charter, groups) } else { Err(PlanError::Nothing(old)) }
}

fn follows(before: &VerifiedCharter, groups: Groups) -> Result<Charter, PlanError> {
    let mut first = groups.first().cloned().unwrap_or_default();
    let placement = if groups.iter().all(|group| *group == first) {
        Placement::Everywhere(std::mem::take(&mut first))
    } else {
        Placement::Listed(groups)
    };
    let charter = Charter {
        version: before.version().saturating_add(1),
        predecessor: Some(before.hash()),
        placement,
        ..before.charter().clone()
    };
    charter.check()?;
    if charter.moves(before.charter()).is_empty() { Err(PlanError::NoChange) } else { Ok(charter) }
}

/// The rules version is raised, and nothing else changes.
pub fn raise(charter: &VerifiedCharter, rules: u16) -> Result<Charter, PlanError> {
    if rules <= charter.rules() {
        return Err(PlanError::NotRaised(charter.rules()));
    }
    let next = Charter {
        version: charter.version().saturating_add(1),
        predecessor: Some(charter.hash()),
        rules: Some(rules),
        ..charter.charter().clone()
    };
    next.check()?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use ehe::charter::{Member, Node, Permissions, SignedCharter, Trust};
    use ehe::id::AllianceId;
    use ehe::identity::Identity;
    use getrandom::SysRng;
    use getrandom::rand_core::UnwrapErr;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 8])
    }

    fn ids(numbers: &[u8]) -> Vec<NodeId> {
        numbers.iter().map(|n| node(*n)).collect()
    }

    /// Nodes 1, 2, … of the members named, and the groups of the shards.
    fn alliance(members: &str, groups: &[&[u8]]) -> VerifiedCharter {
        let new = || Identity::generate(&mut UnwrapErr(SysRng));
        let who: BTreeMap<char, Identity> = members.chars().map(|member| (member, new())).collect();
        let id = |member: char| MemberId([u8::try_from(member).unwrap(); 8]);
        let charter = Charter {
            version: 1,
            alliance: "Test".into(),
            predecessor: None,
            shard_count: NonZeroU16::new(u16::try_from(groups.len()).unwrap()).unwrap(),
            members: who
                .iter()
                .map(|(it, identity)| Member { id: id(*it), name: it.to_string(), identity: identity.public().clone() })
                .collect(),
            nodes: (1u8..)
                .zip(members.chars())
                .map(|(n, member)| Node {
                    id: node(n),
                    member: id(member),
                    name: format!("node{n}.example"),
                    sign: new().public().sign,
                    addresses: vec!["127.0.0.1:1".into()],
                })
                .collect(),
            placement: Placement::Listed(groups.iter().map(|group| ids(group)).collect()),
            permissions: Permissions::default(),
            head_fresh_ms: 60_000,
            min_cosignatures: None,
            rules: None,
        };
        let mut signed = SignedCharter::unsigned(&charter).unwrap();
        who.values().for_each(|member| signed.sign(member).unwrap());
        signed.verify(Trust::Pinned(AllianceId(signed.hash().0))).unwrap()
    }

    fn moved(before: &VerifiedCharter, after: Result<Charter, PlanError>) -> Vec<(u16, Vec<NodeId>)> {
        let after = after.unwrap();
        assert_eq!((after.version, after.predecessor), (2, Some(before.hash())));
        after.moves(before.charter()).into_iter().map(|it| (it.shard, it.to)).collect()
    }

    #[test]
    fn a_plan_says_which_shards_move_and_nothing_else_changes() {
        let before = alliance("abcd", &[&[1, 2, 3], &[1, 2, 3], &[2, 3, 4]]);
        assert_eq!(moved(&before, set(&before, 1, &ids(&[1, 2, 4]))), [(1, ids(&[1, 2, 4]))]);
        assert_eq!(moved(&before, replace(&before, node(1), node(4))), [(0, ids(&[4, 2, 3])), (1, ids(&[4, 2, 3]))]);
        let after = replace(&before, node(1), node(4)).unwrap();
        let Charter { members, nodes, permissions, .. } = before.charter().clone();
        assert_eq!((after.members, after.nodes, after.permissions), (members, nodes, permissions));
        // In whatever order a group is written, it is the same group.
        assert_eq!(set(&before, 1, &ids(&[3, 2, 1])), Err(PlanError::NoChange));
        assert_eq!(set(&before, 3, &ids(&[1])), Err(PlanError::NoShard { shard: 3, shards: 3 }));
        assert!(matches!(set(&before, 0, &ids(&[1, 2])), Err(PlanError::Charter(_))), "two nodes are no group");
        assert!(matches!(set(&before, 0, &ids(&[9])), Err(PlanError::Charter(_))), "who is that?");
        assert_eq!(replace(&before, node(2), node(4)), Err(PlanError::HasBoth { shard: 2 }));
    }

    #[test]
    fn a_drained_node_leaves_its_shards_to_other_members_nodes_that_have_few() {
        // Node 4 is of the member that has node 2 in the group already; 5 and 6 are of others, 6 has less to do.
        let before = alliance("abcbde", &[&[1, 2, 3], &[5], &[1]]);
        assert_eq!(moved(&before, drain(&before, node(1))), [(0, ids(&[6, 2, 3])), (2, ids(&[4]))]);
        assert_eq!(drain(&before, node(6)), Err(PlanError::Nothing(node(6))));
        let full = alliance("abc", &[&[1, 2, 3]]);
        assert_eq!(drain(&full, node(3)), Err(PlanError::NobodyLeft { shard: 0 }));
    }

    #[test]
    fn the_rules_are_raised_and_never_lowered() {
        let before = alliance("abc", &[&[1, 2, 3], &[1]]);
        let raised = raise(&before, 2).unwrap();
        assert_eq!((raised.version, raised.rules(), raised.moves(before.charter())), (2, 2, vec![]));
        assert_eq!(raise(&before, 1), Err(PlanError::NotRaised(1)));
        assert_eq!(raise(&before, 0), Err(PlanError::NotRaised(1)));
    }
}
