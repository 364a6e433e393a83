//! Whether a charter may raise the rules version: not before every node that holds a shard runs a program that knows it.

use std::collections::{BTreeMap, BTreeSet};

use ehe::charter::{Charter, VerifiedCharter};
use ehe::id::NodeId;
use ehe::wire::NodeStatus;

/// Programs that are too old for a charter. Whoever asked for it upgrades them first.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "charter {version} raises the rules to version {rules}, which not every node's program is known to know: {}; install a version of \
     ehe-node there that knows it, and try again; a node that is gone for good is replaced first, by a charter that leaves the rules as they are",
    .nodes.join(", ")
)]
pub struct TooOld {
    /// The charter's version.
    pub version: u32,
    /// The rules version.
    pub rules: u16,
    /// The nodes, and what is known of each.
    pub nodes: Vec<String>,
}

/// Asks of a charter that would follow `before`, by what the nodes say of themselves.
///
/// # Errors
/// [`TooOld`] names the nodes to be upgraded.
pub fn may_raise(before: &VerifiedCharter, after: &Charter, status: &NodeStatus) -> Result<(), TooOld> {
    let mut known: BTreeMap<NodeId, u16> = BTreeMap::new();
    for node in status.groups.iter().flatten().flat_map(|group| &group.nodes) {
        known.extend(node.knows.map(|knows| (node.node, knows)));
    }
    let holders: BTreeSet<NodeId> = before.charter().groups().into_iter().chain(after.groups()).flatten().collect();
    let rules = after.rules();
    let older = holders.into_iter().filter(|node| known.get(node).is_none_or(|knows| *knows < rules));
    let name = |node: NodeId| {
        let name = before.node(node).map_or_else(|| node.to_string(), |node| node.name.clone());
        match known.get(&node) {
            Some(knows) => format!("{name} (knows version {knows})"),
            None => format!("{name} (not heard of)"),
        }
    };
    let nodes: Vec<String> = older.map(name).collect();
    if nodes.is_empty() { Ok(()) } else { Err(TooOld { version: after.version, rules, nodes }) }
}
