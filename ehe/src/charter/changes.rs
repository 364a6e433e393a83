//! What a charter changes against the one before it: what the members have to see before they sign. Pure.

use core::fmt;
use std::collections::BTreeSet;

use super::{Charter, Member, Node, Placement, RoleSet, shards_in_words};
use crate::id::NodeId;

/// A shard that comes to live elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The shard.
    pub shard: u16,
    /// Its nodes before.
    pub from: Vec<NodeId>,
    /// And after.
    pub to: Vec<NodeId>,
}

impl Charter {
    /// The nodes of each shard.
    pub fn groups(&self) -> Vec<Vec<NodeId>> {
        match &self.placement {
            Placement::Everywhere(group) => vec![group.clone(); self.shard_count.get().into()],
            Placement::Listed(groups) => groups.clone(),
        }
    }

    /// The shards that come to live elsewhere than under the charter before, ascending. In whatever order a group is written, it is the
    /// same group.
    pub fn moves(&self, before: &Self) -> Vec<Move> {
        let shards = (0..before.shard_count.get()).zip(before.groups().into_iter().zip(self.groups()));
        let moves = shards.map(|(shard, (from, to))| Move { shard, from, to });
        moves.filter(|it| set(&it.from) != set(&it.to)).collect()
    }

    /// All that is another than in the charter before.
    pub fn changes(&self, before: &Self) -> Changes {
        let mut lines = Vec::new();
        let names = Names { before, after: self };
        members(before, self, &mut lines);
        nodes(before, self, &mut lines);
        let mut changed = |what: &str, was: String, is: String| {
            if was != is {
                lines.push(format!("{what}: {was} -> {is}"));
            }
        };
        changed("the alliance's name", format!("{:?}", before.alliance), format!("{:?}", self.alliance));
        changed("the number of shards", before.shard_count.to_string(), self.shard_count.to_string());
        changed("the rules in force in every shard", rules(before), rules(self));
        changed("head_fresh_ms", before.head_fresh_ms.to_string(), self.head_fresh_ms.to_string());
        changed("members that cosign at least", cosigning(before), cosigning(self));
        changed("who may submit", roles(before.permissions.submit), roles(self.permissions.submit));
        changed("who may read", roles(before.permissions.read), roles(self.permissions.read));
        changed("who may host", roles(before.permissions.host), roles(self.permissions.host));
        let moves = self.moves(before);
        let moved = !moves.is_empty();
        for (shards, from, to) in alike(moves) {
            let only = |some: &[NodeId], without: &[NodeId]| {
                names.of(&some.iter().filter(|node| !without.contains(node)).copied().collect::<Vec<_>>())
            };
            lines.push(format!(
                "moves {}: {} -> {}; comes to [{}], leaves [{}]",
                shards_in_words(&shards),
                names.of(&from),
                names.of(&to),
                only(&to, &from),
                only(&from, &to)
            ));
        }
        Changes { alliance: self.alliance.clone(), versions: (before.version, self.version), lines, moved }
    }
}

/// What one charter changes against another, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    alliance: String,
    versions: (u32, u32),
    lines: Vec<String>,
    moved: bool,
}

impl Changes {
    /// Each change, without an end of line.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.versions;
        if self.lines.is_empty() {
            return write!(f, "charter {after} of {:?} changes nothing of charter {before}", self.alliance);
        }
        write!(f, "charter {after} of {:?} changes charter {before}:", self.alliance)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        if self.moved { Ok(()) } else { write!(f, "\n  no shard moves") }
    }
}

/// A node's name, by the charter that has it.
struct Names<'a> {
    before: &'a Charter,
    after: &'a Charter,
}

impl Names<'_> {
    fn of(&self, nodes: &[NodeId]) -> String {
        let all = || self.after.nodes.iter().chain(&self.before.nodes);
        let name = |id: &NodeId| {
            let Some(node) = all().find(|node| node.id == *id) else { return id.to_string() };
            // A node that was wiped comes back under its name, as another node.
            let shared = all().any(|other| other.name == node.name && other.id != node.id);
            if shared { format!("{} ({id})", node.name) } else { node.name.clone() }
        };
        nodes.iter().map(name).collect::<Vec<_>>().join(", ")
    }
}

fn members(before: &Charter, after: &Charter, lines: &mut Vec<String>) {
    let of = |charter: &Charter, id| charter.members.iter().find(|member| member.id == id).cloned();
    for member in &after.members {
        match of(before, member.id) {
            None => lines.push(format!("adds member {}", named(member))),
            Some(was) => {
                if was.name != member.name {
                    lines.push(format!("member {}: the name was {:?}", named(member), was.name));
                }
                if was.identity != member.identity {
                    let (was, is) = (was.identity.author_id(), member.identity.author_id());
                    lines.push(format!("member {}: who signs for it: {was} -> {is}", named(member)));
                }
            }
        }
    }
    for member in before.members.iter().filter(|member| of(after, member.id).is_none()) {
        lines.push(format!("removes member {}", named(member)));
    }
}

fn named(member: &Member) -> String {
    format!("{:?} ({})", member.name, member.id)
}

fn nodes(before: &Charter, after: &Charter, lines: &mut Vec<String>) {
    let of = |charter: &Charter, id| charter.nodes.iter().find(|node| node.id == id).cloned();
    let member = |charter: &Charter, node: &Node| {
        let member = charter.members.iter().find(|member| member.id == node.member);
        member.map_or_else(|| node.member.to_string(), |member| format!("{:?}", member.name))
    };
    let held: BTreeSet<NodeId> = after.groups().into_iter().flatten().collect();
    for node in &after.nodes {
        let Some(was) = of(before, node.id) else {
            let shards = if held.contains(&node.id) { "" } else { "; no shard lives on it" };
            let (member, at) = (member(after, node), node.addresses.join(", "));
            lines.push(format!("adds node {} ({}) of {member}, at {at}{shards}", node.name, node.id));
            continue;
        };
        let mut changed = |what: &str, was: String, is: String| {
            if was != is {
                lines.push(format!("node {}: {what}: {was} -> {is}", node.name));
            }
        };
        changed("name", was.name.clone(), node.name.clone());
        changed("member", member(before, &was), member(after, node));
        changed("addresses", was.addresses.join(", "), node.addresses.join(", "));
        changed("signing key", crate::id::hex(&was.sign.0), crate::id::hex(&node.sign.0));
    }
    for node in before.nodes.iter().filter(|node| of(after, node.id).is_none()) {
        lines.push(format!("removes node {} ({}) of {}", node.name, node.id, member(before, node)));
    }
}

fn rules(charter: &Charter) -> String {
    format!("version {}", charter.rules())
}

fn cosigning(charter: &Charter) -> String {
    charter.min_cosignatures.map_or_else(|| "their majority".into(), |least| least.to_string())
}

fn roles(set: RoleSet) -> String {
    let names: Vec<&str> = set.iter().map(super::Role::as_str).collect();
    if names.is_empty() { "nobody".into() } else { names.join(", ") }
}

fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
    nodes.iter().copied().collect()
}

type Alike = (Vec<u16>, Vec<NodeId>, Vec<NodeId>);

/// Shards that go from the same nodes to the same, together.
fn alike(moves: Vec<Move>) -> Vec<Alike> {
    let mut all: Vec<Alike> = Vec::new();
    for Move { shard, from, to } in moves {
        match all.iter_mut().find(|(_, f, t)| *f == from && *t == to) {
            Some((shards, _, _)) => shards.push(shard),
            None => all.push((vec![shard], from, to)),
        }
    }
    all
}
