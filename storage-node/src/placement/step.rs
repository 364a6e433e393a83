//! What the leader of a shard does next so that the shard comes to live where the newest charter says. Pure: state in, step out.
//!
//! ```text
//! under charter v, group G, and charter v+1 with group H is known:
//!   learners H∖G ─► they have the log ─► voters G∪H ─► leader in H ─► entry: charter v+1
//!     ─► a checkpoint under v+1, cosigned by a quorum of H's members and of G's ─► entry: vouched ─► voters H
//! ```
//!
//! Everything that the step depends on is in the log or seen anew, so whoever leads next goes on where the last one stopped. Both groups
//! vote while the charter changes: whichever node leads, there is a node of H to hand over to, and a checkpoint under v+1 must
//! be ordered by one.

use std::collections::{BTreeMap, BTreeSet};

use ehe::id::NodeId;

/// A new node gets a vote when it lacks no more entries than this: from then on the group may have to wait for it.
pub const CLOSE_ENTRIES: u64 = 64;

/// A set of nodes.
pub type Nodes = BTreeSet<NodeId>;

/// A shard as the node sees it that is to decide.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The node itself.
    pub me: NodeId,
    /// It leads, and its state has all that was ever committed.
    pub leads: bool,
    /// Version of the charter that is committed; 0: none is, charter 1 is in effect.
    pub committed: u32,
    /// The group under the charter in effect.
    pub group: Nodes,
    /// The group before, while its members have not vouched for the charter in effect.
    pub before: Option<Nodes>,
    /// The group under the charter that follows, if one is known.
    pub next: Option<Nodes>,
    /// The group under the newest charter that is known.
    pub newest: Nodes,
    /// Who votes; while this changes, who votes before or after.
    pub voters: Nodes,
    /// Whether it is changing.
    pub changing: bool,
    /// Who has the log and no vote.
    pub learners: Nodes,
    /// Up to where each has the log.
    pub matched: BTreeMap<NodeId, Option<u64>>,
    /// Where the log ends.
    pub last: Option<u64>,
    /// Nodes of the group, of before or of after, whose programs do not know the rules version of the charter that follows.
    pub older: Nodes,
    /// Version of the charter under which the newest checkpoint was shown here.
    pub shown_under: Option<u32>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Another node's affair.
    Follow,
    /// The shard is where it should be.
    Rest,
    /// Nothing can be done before this has happened.
    Wait(Awaited),
    /// Give a node the log.
    Learn(NodeId),
    /// Take it from one that no charter gives it to.
    Unlearn(NodeId),
    /// Make these the voters.
    Vote(Nodes),
    /// Let this node lead.
    HandOver(NodeId),
    /// Commit the charter of this version.
    Take(u32),
    /// Commit that both quorums cosigned.
    Vouch,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// These nodes lack much of the log, or were not heard of.
    Log(Nodes),
    /// A checkpoint that a quorum of the new and of the old group's members has cosigned.
    Checkpoint,
    /// None of these, one of which should lead, has enough of the log.
    Successor(Nodes),
    /// These nodes run programs that do not know the rules version of the charter that follows, or were not heard of yet.
    Program(Nodes),
}

/// See the [module's text](self).
pub fn next_step(seen: &Seen) -> Step {
    match seen.step() {
        Step::Take(version) if version > 1 && seen.waits_for_programs() => {
            Step::Wait(Awaited::Program(seen.older.clone()))
        }
        step => step,
    }
}

impl Seen {
    /// Who takes up what it does not know applies nothing any more; a majority of such would be the shard's end until they are upgraded.
    /// Where more than half know it, nobody waits for those that the newest charter does without: charters come one after the other, and a node
    /// that says for ever that it does not know one would otherwise keep its own removal from coming.
    fn waits_for_programs(&self) -> bool {
        let too_many = |nodes: &Nodes| nodes.intersection(&self.older).count() * 2 >= nodes.len().max(1);
        let next = self.next.as_ref().unwrap_or(&self.group);
        !self.older.is_disjoint(&self.newest) || too_many(&self.group) || too_many(next)
    }

    fn step(&self) -> Step {
        if !self.leads {
            return Step::Follow;
        }
        if self.before.is_some() {
            return self.while_vouched_for();
        }
        match &self.next {
            // What the shard began with is the first entry.
            Some(_) if self.committed == 0 => Step::Take(1),
            Some(next) if *next == self.group => self.voted_by_group(Step::Take(self.committed + 1)),
            Some(next) => self.towards(next),
            None => self.voted_by_group(self.without_guests()),
        }
    }

    fn while_vouched_for(&self) -> Step {
        if !self.group.contains(&self.me) {
            return self.hand_over_to(&self.group);
        }
        if self.shown_under == Some(self.committed) { Step::Vouch } else { Step::Wait(Awaited::Checkpoint) }
    }

    fn towards(&self, next: &Nodes) -> Step {
        if let Some(new) = next.iter().find(|node| !self.voters.contains(node) && !self.learners.contains(node)) {
            return Step::Learn(*new);
        }
        let far: Nodes =
            next.iter().filter(|node| !self.voters.contains(node) && !self.is_close(node)).copied().collect();
        // A charter may name a node that never comes; then a later one does without it, and nobody waits for it on the way there.
        let given_up: Nodes = far.difference(&self.newest).copied().collect();
        if !far.is_empty() && (given_up.len() < far.len() || given_up.len() * 2 >= next.len()) {
            return Step::Wait(Awaited::Log(far));
        }
        let both = self.group.intersection(&self.voters).chain(next.difference(&given_up)).copied().collect();
        let take = Step::Take(self.committed + 1);
        let then = if next.contains(&self.me) { take } else { self.hand_over_to(next) };
        self.voted_by(&both, then)
    }

    /// `then`, once the group votes, but for those of it that never came and that the newest charter does without: nobody gets a vote who has
    /// nothing of the log.
    fn voted_by_group(&self, then: Step) -> Step {
        let came = |node: &&NodeId| self.voters.contains(node) || self.matched.get(node).copied().flatten().is_some();
        let absent: Nodes = self.group.iter().filter(|node| !came(node)).copied().collect();
        let missed: Nodes = absent.intersection(&self.newest).copied().collect();
        if let Some(new) = missed.iter().find(|node| !self.learners.contains(node)) {
            return Step::Learn(*new);
        }
        if !missed.is_empty() {
            return Step::Wait(Awaited::Log(missed));
        }
        self.voted_by(&self.group.difference(&absent).copied().collect(), then)
    }

    /// `then`, once these vote and nobody else.
    fn voted_by(&self, voters: &Nodes, then: Step) -> Step {
        if self.voters == *voters && !self.changing {
            return then;
        }
        // Who leads and is to go, goes when another one leads: nobody has to wait for an election.
        if voters.contains(&self.me) { Step::Vote(voters.clone()) } else { self.hand_over_to(voters) }
    }

    fn hand_over_to(&self, to: &Nodes) -> Step {
        let fit = to.iter().filter(|node| **node != self.me && self.voters.contains(node) && self.is_close(node));
        match fit.max_by_key(|node| self.matched.get(node).copied().flatten()) {
            Some(node) => Step::HandOver(*node),
            None => Step::Wait(Awaited::Successor(to.clone())),
        }
    }

    fn without_guests(&self) -> Step {
        self.learners.first().map_or(Step::Rest, |guest| Step::Unlearn(*guest))
    }

    fn is_close(&self, node: &NodeId) -> bool {
        let has = self.matched.get(node).copied().flatten();
        has.is_some_and(|has| has.saturating_add(CLOSE_ENTRIES) >= self.last.unwrap_or(0))
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
