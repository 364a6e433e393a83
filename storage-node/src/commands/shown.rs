//! What a status says to people: shards that are alike in one paragraph, and at the end whether all is well. Pure.

use std::collections::{BTreeMap, BTreeSet};

use certs::terminal::escaped;
use ehe::charter::{RULES_FIRST, VerifiedCharter, shards_in_words};
use ehe::id::NodeId;
use ehe::wire::{GroupStatus, NodeStatus};
use serde_json::{Value, json};

use crate::consensus::{Estranged, entries_since};
use crate::estranged;

/// Who is up says how it is every few seconds.
const SILENT_MS: u64 = 15_000;

/// What is shown.
pub(super) struct Shown<'a> {
    /// By the word of the node that was asked.
    pub(super) status: &'a NodeStatus,
    /// The newest that it knows.
    pub(super) charter: &'a VerifiedCharter,
    /// Whom it does not talk to.
    pub(super) estranged: &'a estranged::All,
}

/// Whether a shard lives where the charter says: under this charter, with its group's votes, and nobody else has a part in it.
fn is_settled(group: &GroupStatus, charter: &VerifiedCharter) -> bool {
    let mut wanted = charter.group(group.shard).to_vec();
    wanted.sort_unstable();
    let mut there: Vec<NodeId> = group.nodes.iter().map(|node| node.node).collect();
    there.sort_unstable();
    // Charter 1 is in effect without an entry, and is not written down before there is a second.
    group.charter == charter.version()
        && group.nodes.iter().all(|node| node.votes)
        && there == wanted
        && group.doing.is_none()
}

/// Shards of which the same is said, but for numbers.
struct Alike {
    said: Said,
    shards: Vec<u16>,
    leaders: BTreeMap<NodeId, usize>,
    blocks: BTreeMap<NodeId, u64>,
    heard_ms: BTreeMap<NodeId, u64>,
}

#[derive(PartialEq, Eq)]
struct Said {
    charter: u32,
    rules: Option<u16>,
    led: bool,
    nodes: Vec<(NodeId, bool, String)>,
    then: Option<String>,
}

impl Shown<'_> {
    fn groups(&self) -> impl Iterator<Item = &GroupStatus> {
        self.status.groups.iter().flatten()
    }

    fn name(&self, id: NodeId) -> String {
        self.charter.node(id).map_or_else(|| id.to_string(), |node| node.name.clone())
    }

    fn names<'b>(&self, ids: impl IntoIterator<Item = &'b NodeId>) -> String {
        ids.into_iter().map(|id| self.name(*id)).collect::<Vec<_>>().join(", ")
    }

    /// What another node says for people, with names in it instead of ids.
    fn named(&self, text: &str) -> String {
        let nodes = self.charter.nodes().iter();
        escaped(&nodes.fold(text.to_owned(), |text, node| text.replace(&node.id.to_string(), &node.name))).to_string()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.status.groups.is_some() && self.groups().all(|group| is_settled(group, self.charter))
    }

    /// What is said of a shard, and may be said of others as well.
    fn said(&self, group: &GroupStatus) -> Said {
        let newest = group.nodes.iter().filter_map(|node| node.applied).map(|it| entries_since(it).0).max();
        let nodes = group.nodes.iter().map(|node| {
            let mut said = String::new();
            if node.applied.is_some_and(|applied| Some(entries_since(applied).0) < newest) {
                said += " of a log before the one that was restored";
            }
            said += if node.votes { "" } else { ", without a vote" };
            said += if node.faulted { ", STOPPED by a fault" } else { "" };
            if let (Some(knows), Some(rules)) = (node.knows, group.rules)
                && knows < rules
            {
                said += &format!(
                    ", HELD: its program knows the rules up to version {knows}, older than those in force: install a later version there"
                );
            }
            (node.node, node.applied.is_some(), said)
        });
        let then = match &group.doing {
            Some(doing) => Some(self.named(doing)),
            None if is_settled(group, self.charter) => None,
            None => {
                let wanted = self.names(self.charter.group(group.shard));
                Some(format!("charter {} has it live on {wanted}", self.charter.version()))
            }
        };
        Said { charter: group.charter, rules: group.rules, led: group.leader.is_some(), nodes: nodes.collect(), then }
    }

    fn alike(&self) -> Vec<Alike> {
        let mut all: Vec<Alike> = Vec::new();
        for group in self.groups() {
            let said = self.said(group);
            let found = all.iter().position(|alike| alike.said == said);
            let at = found.unwrap_or_else(|| {
                let (leaders, blocks, heard_ms) = Default::default();
                all.push(Alike { said, shards: Vec::new(), leaders, blocks, heard_ms });
                all.len() - 1
            });
            let Some(alike) = all.get_mut(at) else { continue };
            alike.shards.push(group.shard);
            group.leader.into_iter().for_each(|leader| *alike.leaders.entry(leader).or_default() += 1);
            for node in &group.nodes {
                *alike.blocks.entry(node.node).or_default() += node.applied.map_or(0, |it| entries_since(it).1);
                let heard = alike.heard_ms.entry(node.node).or_default();
                *heard = node.heard_ms.unwrap_or(0).max(*heard);
            }
        }
        all
    }

    /// How everything is.
    pub(super) fn text(&self) -> String {
        let NodeStatus { node, program, charter_version, .. } = self.status;
        let mut text =
            format!("node {} ({node}), program {}, charter {charter_version}\n", self.name(*node), escaped(program));
        let refused = self.refused();
        for Alike { said, shards: of, leaders, blocks, heard_ms } in self.alike() {
            let many = of.len() > 1;
            let leader = |(id, shards): (&NodeId, &usize)| match many {
                true => format!("{} ({shards})", self.name(*id)),
                false => self.name(*id),
            };
            let led = match said.led {
                true => leaders.iter().map(leader).collect::<Vec<_>>().join(", "),
                false => "nobody".to_owned(),
            };
            let rules = said.rules.map_or_else(String::new, |rules| format!(", rules {rules}"));
            text += &format!("{}: charter {}{rules}, led by {led}\n", shards_in_words(&of), said.charter);
            for (id, is_heard, said) in &said.nodes {
                let blocks = blocks.get(id).filter(|_| *is_heard);
                let blocks = blocks.map_or_else(|| "not heard of".to_owned(), |blocks| format!("{blocks} blocks"));
                let ago = heard_ms.get(id).filter(|ms| **ms >= SILENT_MS);
                let ago = ago.map_or_else(String::new, |ms| format!(", {} s ago", ms / 1000));
                let apart = if refused.contains(id) { ", REFUSED" } else { "" };
                text += &format!("  {}: {blocks}{said}{ago}{apart}\n", self.name(*id));
            }
            text += &said.then.map_or_else(String::new, |then| format!("  {then}\n"));
        }
        let mut kept: BTreeMap<&str, (Vec<u16>, u64)> = BTreeMap::new();
        for moved in self.status.moved.iter().flatten() {
            let (shards, leaves) = kept.entry(&moved.why).or_default();
            shards.push(moved.shard);
            *leaves = leaves.saturating_add(moved.leaves);
        }
        for (why, (of, leaves)) in kept {
            let of = shards_in_words(&of);
            text += &format!("here is what was {of} before it moved away: {leaves} leaves; {}\n", self.named(why));
        }
        text
    }

    /// How far shards that move are: a few lines.
    pub(super) fn progress(&self) -> Vec<String> {
        let (version, all) = (self.charter.version(), self.groups().count());
        let settled = self.groups().filter(|group| is_settled(group, self.charter)).count();
        let mut doing: Vec<(String, Vec<u16>)> = Vec::new();
        for group in self.groups() {
            let Some(said) = group.doing.as_ref().map(|doing| self.named(doing)) else { continue };
            match doing.iter_mut().find(|(before, _)| *before == said) {
                Some((_, of)) => of.push(group.shard),
                None => doing.push((said, vec![group.shard])),
            }
        }
        let first = format!("{settled} of {all} shards live where charter {version} says");
        let lines = doing.into_iter().map(|(said, of)| format!("  {}: {said}", shards_in_words(&of)));
        std::iter::once(first).chain(lines).collect()
    }

    /// What somebody has to look at; nothing, if all is well.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut told = Vec::new();
        if self.status.groups.is_none() {
            told.push("the node does not say how the alliance's shards are".to_owned());
        }
        let of = |is: &dyn Fn(&GroupStatus) -> bool| -> Vec<u16> {
            self.groups().filter(|group| is(group)).map(|group| group.shard).collect()
        };
        let mut say = |of: Vec<u16>, one: &str, more: &str| {
            if !of.is_empty() {
                told.push(format!("{} {}", shards_in_words(&of), if of.len() > 1 { more } else { one }));
            }
        };
        let version = self.charter.version();
        say(
            of(&|group| !is_settled(group, self.charter)),
            &format!("does not live yet where charter {version} says"),
            &format!("do not live yet where charter {version} says"),
        );
        say(
            of(&|group| group.leader.is_none()),
            "is led by nobody: nothing can be written to it",
            "are led by nobody: nothing can be written to them",
        );
        let holders: BTreeSet<NodeId> = self.groups().flat_map(|group| &group.nodes).map(|node| node.node).collect();
        for id in &holders {
            let name = self.name(*id);
            let its = || self.groups().flat_map(|group| group.nodes.iter().map(move |node| (group, node)));
            let its = || its().filter(|(_, node)| node.node == *id);
            let on = |found: Vec<u16>, what: &str| {
                (!found.is_empty()).then(|| format!("{name}: {}: {what}", shards_in_words(&found)))
            };
            let of = |is: &dyn Fn(&(&GroupStatus, &ehe::wire::GroupNode)) -> bool| -> Vec<u16> {
                its().filter(|it| is(it)).map(|(group, _)| group.shard).collect()
            };
            let silent = its().filter_map(|(_, node)| node.heard_ms).max().filter(|ms| *ms >= SILENT_MS);
            told.extend(silent.map(|ms| format!("{name} was last heard of {} s ago", ms / 1000)));
            told.extend(on(of(&|(_, node)| node.applied.is_none()), "it was not heard of"));
            told.extend(on(of(&|(_, node)| node.faulted), "stopped by a fault; its log says which"));
            let old =
                of(&|(group, node)| node.knows.is_some_and(|knows| group.rules.is_some_and(|rules| knows < rules)));
            told.extend(on(old, "its program is older than the rules in force: install a later version"));
        }
        for scrub in self.status.scrub.iter().flatten().filter(|scrub| scrub.held) {
            let first = scrub.first.as_deref().map_or_else(String::new, |first| format!(": {}", self.named(first)));
            told.push(format!("shard {} is held on this node, whose disk damaged it{first}", scrub.shard));
        }
        told.extend(self.apart());
        told
    }

    /// Nodes that hold shards and do not talk to this one, for this reason.
    fn apart_by(&self, why: Estranged) -> Vec<NodeId> {
        let holds = |id: &NodeId| self.groups().any(|group| group.nodes.iter().any(|node| node.node == *id));
        self.estranged.iter().filter(|(id, it)| **it == why && holds(id)).map(|(id, _)| *id).collect()
    }

    /// Those who are refused. Of two that have not each other's log, neither knows which one lost it; but who leads a shard is followed by most
    /// of its nodes. So whoever does not talk to the one that leads a shard of its own, is the one that is refused. None, of two that do not talk:
    /// nobody leads, and it may be either.
    fn refused(&self) -> Vec<NodeId> {
        let (me, mut refused) = (self.status.node, self.apart_by(Estranged::OtherLog));
        let leaders = || self.groups().filter(|group| self.charter.group(group.shard).contains(&me));
        let leaders = || leaders().filter_map(|group| group.leader);
        // It hears itself: what it has nothing of, it lost, or never had.
        let has_nothing = |group: &GroupStatus| group.nodes.iter().any(|it| it.node == me && it.applied.is_none());
        let lost = !refused.is_empty() && self.groups().any(has_nothing);
        if lost || leaders().any(|leader| refused.contains(&leader)) {
            refused = vec![me];
        } else if leaders().next().is_none() {
            refused.clear();
        }
        refused.extend(self.apart_by(Estranged::Denied));
        refused
    }

    fn apart(&self) -> Vec<String> {
        const WHAT_NEXT: &str = "its disk was lost, or one of before was put in. It gets nothing any more: have it take part under a new id, \
                                 started empty in its place (`ehe-node replace`)";
        let (me, refused, others) = (self.status.node, self.refused(), self.apart_by(Estranged::OtherLog));
        let told = refused.iter().map(|id| match *id == me {
            true => {
                let them = self.names(&others);
                format!(
                    "{}, this node, is refused by {them}: it has another log than they knew of it: {WHAT_NEXT}",
                    self.name(me)
                )
            }
            false => {
                let what = match self.estranged.get(id) {
                    Some(Estranged::Denied) => "denies what it had confirmed",
                    _ => "has another log than was known of it",
                };
                format!("{} is refused by {}, this node: it {what}: {WHAT_NEXT}", self.name(*id), self.name(me))
            }
        });
        let mut told: Vec<String> = told.collect();
        if told.is_empty() && !others.is_empty() {
            let (me, them) = (self.name(me), self.names(&others));
            told.push(format!(
                "{me}, this node, and {them} refuse each other: one has another log than it had: {WHAT_NEXT}"
            ));
        }
        told
    }

    /// The last line, or the last lines.
    pub(super) fn verdict(&self, problems: &[String]) -> String {
        if problems.is_empty() {
            let all = match self.groups().count() {
                1 => "the shard lives".to_owned(),
                all => format!("all {all} shards live"),
            };
            return format!("{all} where charter {} says\n", self.charter.version());
        }
        problems.iter().fold("not all is well:\n".to_owned(), |told, problem| told + "  " + problem + "\n")
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let Self { status, charter, .. } = *self;
        let refused = self.refused();
        let groups = self.groups().map(|group| {
            json!({
                "shard": group.shard,
                "charter": group.charter,
                "leader": group.leader,
                "rules": group.rules.unwrap_or(RULES_FIRST),
                "settled": is_settled(group, charter),
                "doing": group.doing,
                "nodes": group.nodes.iter().map(|node| json!({
                    "node": node.node,
                    "name": charter.node(node.node).map(|node| node.name.clone()),
                    "votes": node.votes,
                    "applied": node.applied,
                    "heard_ms": node.heard_ms,
                    "faulted": node.faulted,
                    "knows_rules": node.knows,
                    "refused": refused.contains(&node.node),
                })).collect::<Vec<_>>(),
            })
        });
        let moved = status.moved.iter().flatten();
        let moved = moved.map(|moved| json!({ "shard": moved.shard, "leaves": moved.leaves, "why": moved.why }));
        json!({
            "node": status.node,
            "program": status.program,
            "charter": status.charter_version,
            "settled": self.is_settled(),
            "problems": self.problems(),
            "groups": groups.collect::<Vec<_>>(),
            "moved": moved.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
#[path = "shown_tests.rs"]
mod tests;
