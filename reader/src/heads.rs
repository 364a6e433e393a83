//! Whether what a node showed is the newest: what the other nodes of the room's group say, each in its own name, of where the room ends.
//!
//! Everything that was shown is proven, and nothing proves that it was all: a node that lags, or lies, shows a true beginning. So
//! after a read the others are asked until as many members as a quorum needs say, with a fresh head, that there is nothing that
//! the node should have shown and did not.

use std::collections::BTreeSet;

use ehe::charter::Node;
use ehe::checkpoint::VerifiedCheckpoint;
use ehe::id::{MemberId, NodeId, Nonce, RoomId};
use ehe::ledger::verify_head;
use ehe::limits::READ_LEASE_MS;
use ehe::time::UnixMs;
use ehe::wire::{Head, Request, Response};

use crate::error::{Error, Exit};
use crate::evidence::{self, Seen};
use crate::extends::Proven;
use crate::follow::Following;
use crate::session::{Session, kind, random};
use crate::when;

/// An entry that was accepted so long before a node said where the room ends was there for it to show: clocks of nodes that work together
/// differ by a minute at most, and a node serves for no longer than a lease without hearing of the others.
const SHOULD_KNOW_MS: u64 = 60_000 + READ_LEASE_MS;

/// The node that showed a room, and when it said that this is all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownBy {
    /// Which.
    pub node: NodeId,
    /// By its clock.
    pub at: UnixMs,
}

/// What the members say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Newest {
    /// A quorum of them says that nothing was left out.
    Shown {
        /// Nodes that say so.
        nodes: usize,
        /// Members whose nodes they are.
        members: usize,
        /// Members that are needed.
        needed: usize,
    },
    /// Fewer than a quorum could be heard: something newer may be missing.
    NotShown {
        /// Members that say that nothing was left out.
        members: usize,
        /// Members that are needed.
        needed: usize,
        /// When the node that showed the room said that this is all.
        since: UnixMs,
        /// Why each of the others does not count.
        why: Vec<String>,
    },
    /// A node has entries that the one that showed the room should have shown.
    Withheld {
        /// Which showed the room.
        by: String,
        /// Which knows more.
        knows: String,
        /// Entries that were shown.
        shown: u64,
        /// Entries that it knows of.
        entries: u64,
        /// When the last of them was accepted.
        accepted: UnixMs,
    },
    /// A node shows another room.
    Contradicts {
        /// Which.
        node: String,
        /// How.
        why: String,
    },
}

impl Newest {
    /// What the one who reads must be told; none where all is well.
    pub fn complaint(&self) -> Option<String> {
        Some(match self {
            Self::Shown { .. } => return None,
            Self::NotShown { members, needed, since, why } => format!(
                "stale since {}: {members} of the {needed} members that are needed say that there is nothing newer ({})",
                when::shown(*since),
                why.join("; ")
            ),
            Self::Withheld { by, knows, shown, entries, accepted } => format!(
                "withheld: node {knows} knows of {entries} entries of the room, the last accepted on {}; node {by} showed {shown} of \
                 them and said later that these are all. It lags far behind, or leaves something out: read again, and tell those who run \
                 the nodes",
                when::shown(*accepted)
            ),
            Self::Contradicts { node, why } => format!("node {node} contradicts what was shown: {why}"),
        })
    }

    /// How a command ends by it, where everything else is well.
    pub fn exit(&self) -> Exit {
        match self {
            // Nobody is at fault, and what was shown stands.
            Self::Shown { .. } | Self::NotShown { .. } => Exit::Done,
            Self::Withheld { .. } | Self::Contradicts { .. } => Exit::Unverified,
        }
    }
}

/// What one node's head says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    /// It knows of nothing that should have been shown.
    Agrees,
    /// It knows more.
    Knows(u64, UnixMs),
    Contradicts(String),
    /// It does not count.
    DoesNotCount(String),
}

/// Counts what nodes say.
struct Tally {
    needed: usize,
    shown: u64,
    by: String,
    at: UnixMs,
    nodes: usize,
    members: BTreeSet<MemberId>,
    why: Vec<String>,
}

impl Tally {
    /// One more; something where that settles it.
    fn add(&mut self, node: &str, member: MemberId, said: Said) -> Option<Newest> {
        match said {
            Said::Agrees => {
                self.nodes += 1;
                self.members.insert(member);
                None
            }
            // What came in since nobody could have shown; it is no reason to distrust, and nothing is missing before it.
            Said::Knows(_, accepted) if accepted.plus_ms(SHOULD_KNOW_MS) >= self.at => {
                self.nodes += 1;
                self.members.insert(member);
                None
            }
            Said::Knows(entries, accepted) => {
                let (by, knows) = (self.by.clone(), node.to_owned());
                Some(Newest::Withheld { by, knows, shown: self.shown, entries, accepted })
            }
            Said::Contradicts(why) => Some(Newest::Contradicts { node: node.to_owned(), why }),
            Said::DoesNotCount(why) => {
                self.why.push(format!("{node}: {why}"));
                None
            }
        }
    }

    fn enough(&self) -> bool {
        self.members.len() >= self.needed
    }

    fn newest(self) -> Newest {
        let (members, needed) = (self.members.len(), self.needed);
        if self.enough() {
            Newest::Shown { nodes: self.nodes, members, needed }
        } else {
            Newest::NotShown { members, needed, since: self.at, why: self.why }
        }
    }
}

/// Asks after a read, until a quorum of members has spoken. The word of the node that showed the room counts as it gave it.
pub async fn newest(session: &mut Session, following: &Following) -> Newest {
    ask(session, following, false).await
}

/// Asks every node.
pub async fn from_all(session: &mut Session, following: &Following) -> Newest {
    ask(session, following, true).await
}

async fn ask(session: &mut Session, following: &Following, all: bool) -> Newest {
    let (room, charter) = (following.room(), session.charter().clone());
    let shard = room.shard(charter.shard_count());
    let shown = session.shown_by();
    let mut tally = Tally {
        needed: charter.quorum(shard),
        shown: following.entries(),
        by: shown.map_or_else(|| "?".into(), |shown| session.nodes.name_of(shown.node)),
        at: shown.map_or(UnixMs(0), |shown| shown.at),
        nodes: 0,
        members: BTreeSet::new(),
        why: Vec::new(),
    };
    let mut seen = Seen::default();
    if let Some(confirmed) = following.confirmed() {
        seen.see(&tally.by, confirmed.clone());
    }
    let mut group = charter.group(shard).to_vec();
    session.nodes.by_answering(&mut group);
    let fresh = u64::from(charter.head_fresh_ms());
    let own = shown.filter(|shown| !all && session.now().since(shown.at) <= fresh);
    if let Some(node) = own.and_then(|own| charter.node(own.node)) {
        tally.add(&node.name, node.member, Said::Agrees);
        group.retain(|id| *id != node.id);
    }
    if all {
        session.nodes.reach_all(&group).await;
    } else {
        let members = |reached: &BTreeSet<NodeId>| {
            let of_them = reached.iter().filter_map(|id| charter.node(*id)).map(|node| node.member);
            tally.members.iter().copied().chain(of_them).collect::<BTreeSet<_>>().len()
        };
        session.nodes.reach_enough(&group, |reached| members(reached) >= tally.needed).await;
    }
    session.nodes.by_answering(&mut group);
    for node in group.iter().filter_map(|id| charter.node(*id)) {
        if tally.enough() && !all {
            break;
        }
        let said = match head(session, room, node.id).await {
            Ok((head, nonce)) => judge(session, following, (node, &head, nonce), &mut seen).await,
            Err(why) => Said::DoesNotCount(why.at(&node.name)),
        };
        if let Some(settled) = tally.add(&node.name, node.member, said) {
            return settled;
        }
    }
    tally.newest()
}

async fn judge(
    session: &mut Session,
    following: &Following,
    (node, head, nonce): (&Node, &Head, Nonce),
    seen: &mut Seen,
) -> Said {
    let charter = match session.charter_of(&head.last.checkpoint).await {
        Ok(charter) => charter,
        Err(why) if why.exit() == Exit::Unverified => return Said::Contradicts(why.to_string()),
        Err(why) => return Said::DoesNotCount(why.to_string()),
    };
    let shown = match verify_head(following.room(), head, nonce, &charter) {
        Ok(shown) => shown,
        Err(why) => return Said::Contradicts(why.to_string()),
    };
    if let Some(said) = one_log(session, node, &shown, seen).await {
        return said;
    }
    seen.see(&node.name, shown);
    if let Err(why) = session.is_current(following.room(), &charter) {
        return Said::DoesNotCount(why.to_string());
    }
    let (entries, known) = (head.last.leaf.index.saturating_add(1), following.known());
    if known.is_some_and(|known| known.entries == entries && known.last_leaf != head.last.leaf.hash()) {
        return Said::Contradicts("it shows another last entry".into());
    }
    if entries < following.entries() {
        return Said::DoesNotCount(format!("it has {entries} of {} entries", following.entries()));
    }
    let age = session.now().since(head.at);
    if age > u64::from(session.charter().head_fresh_ms()) {
        return Said::DoesNotCount(format!("its head is {age} ms old by this clock"));
    }
    if entries > following.entries() { Said::Knows(entries, head.last.leaf.accepted_at) } else { Said::Agrees }
}

/// Whether what a node shows is of one log with what the others showed: equal where it is as large, and else proven to be the
/// beginning of it, or to begin with it. `None`: it is.
async fn one_log(session: &mut Session, node: &Node, shown: &VerifiedCheckpoint, seen: &mut Seen) -> Option<Said> {
    let contradicts = |session: &Session, (other, before): &(String, VerifiedCheckpoint), begins| {
        let (chain, size) = (session.credentials().charter_chain(), shown.checkpoint().size);
        let file = evidence::keep(session.home(), chain, before.note(), shown.note(), begins);
        let kept = file.map(|file| format!("; both are signed, and kept as evidence in {}", file.display()));
        let kept = kept.unwrap_or_default();
        Said::Contradicts(format!("it shows another log of {size} leaves than node {other}{kept}"))
    };
    let other = seen.of_the_log(shown).cloned()?;
    let (new, before) = (shown.checkpoint().seen(), other.1.checkpoint().seen());
    if new.size == before.size {
        return (new.root != before.root).then(|| contradicts(session, &other, None));
    }
    // Who has the larger one has both sizes.
    let (by, smaller, larger) = if new.size > before.size {
        (Some(node.id), &before, &new)
    } else {
        (session.shown_by().map(|shown| shown.node), &new, &before)
    };
    match session.proven(by?, smaller, larger).await {
        Ok(Proven::Extends) => None,
        Ok(Proven::Not(begins)) => Some(contradicts(session, &other, Some(begins))),
        Err(why) => Some(Said::DoesNotCount(why.to_string())),
    }
}

async fn head(session: &mut Session, room: RoomId, node: NodeId) -> Result<(Head, Nonce), Error> {
    let nonce = Nonce(random());
    let mut answers = session.nodes.ask_node(node, &Request::Head(room, nonce)).await?;
    match answers.next().await? {
        Response::Head(head) => Ok((head, nonce)),
        other => Err(answers.unexpected(kind(&other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMs = UnixMs(1_795_168_800_000);

    fn member(n: u8) -> MemberId {
        MemberId([n; MemberId::LEN])
    }

    fn tally() -> Tally {
        let (by, members) = ("a".into(), BTreeSet::new());
        let mut tally = Tally { needed: 2, shown: 10, by, at: AT, nodes: 0, members, why: Vec::new() };
        assert_eq!(tally.add("a", member(1), Said::Agrees), None);
        tally
    }

    #[test]
    fn two_nodes_of_one_member_are_one_voice_and_another_members_makes_the_quorum() {
        let mut tally = tally();
        tally.add("a2", member(1), Said::Agrees);
        assert!(!tally.enough());
        tally.add("b", member(2), Said::Agrees);
        assert_eq!(tally.newest(), Newest::Shown { nodes: 3, members: 2, needed: 2 });
    }

    #[test]
    fn who_is_silent_or_behind_leaves_it_stale_and_the_text_says_since_when_and_why() {
        let mut tally = tally();
        tally.add("b", member(2), Said::DoesNotCount("no answer".into()));
        tally.add("c", member(3), Said::DoesNotCount("it has 4 of 10 entries".into()));
        let newest = tally.newest();
        assert_eq!(newest.exit(), Exit::Done);
        let said = newest.complaint().unwrap();
        for part in ["stale since 2026-11-20", "1 of the 2 members", "b: no answer; c: it has 4 of 10 entries"] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn what_a_node_should_have_shown_is_withheld_and_what_came_since_is_not() {
        let since = AT.plus_ms(5);
        let just_before = UnixMs(AT.0 - SHOULD_KNOW_MS);
        for accepted in [since, AT, just_before] {
            let mut tally = tally();
            assert_eq!(tally.add("b", member(2), Said::Knows(11, accepted)), None);
            assert!(matches!(tally.newest(), Newest::Shown { .. }), "nothing older is missing");
        }
        let withheld = tally().add("b", member(2), Said::Knows(12, UnixMs(just_before.0 - 1))).unwrap();
        assert_eq!(withheld.exit(), Exit::Unverified);
        let said = withheld.complaint().unwrap();
        for part in ["withheld: node b knows of 12 entries", "node a showed 10"] {
            assert!(said.contains(part), "{said}");
        }
        let lie = tally().add("b", member(2), Said::Contradicts("it shows another last entry".into())).unwrap();
        assert_eq!((lie.exit(), lie.complaint().unwrap().contains("node b contradicts")), (Exit::Unverified, true));
    }
}
