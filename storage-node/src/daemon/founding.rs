//! When a new log begins.
//!
//! Its founders are those whom charter 1 gives the shard. A majority of them would be enough to begin it; and would be enough to begin an
//! empty one, under the same origin, where the log is lost on most disks and not on all, or is being restored from a backup. So a node that
//! has nothing of a shard begins its log only when all who may have it are there and say, just now, that they have none either: the
//! founders, and those whom the newest charter gives it. Where one of them has it, this node waits to be given it. That makes the first start
//! of an alliance wait for its last node, once. And it has to have met them ([`Consensus::begin`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ehe::charter::shards_in_words;
use ehe::id::NodeId;
use tokio_util::sync::CancellationToken;

use crate::charters::Charters;
use crate::consensus::{Beginning, Bootstrap, Consensus, GroupId};
use crate::node::node_id;
use crate::peers::{Alliance, Report};

/// What was said longer ago does not count.
const FRESH: Duration = Duration::from_secs(10);
/// So often it is said for whom a log waits.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// The others who have to say that they have nothing of a shard before this node begins its log. Who would begin it alone asks all who
/// were ever to have it: no other founder is there to remember.
fn needed(charters: &Charters, me: NodeId, shard: u16) -> BTreeSet<NodeId> {
    let (first, newest) = (charters.first(), charters.newest());
    let holders: BTreeSet<NodeId> = if first.group(shard) == [me] {
        charters.given_since(0, shard).collect()
    } else {
        first.group(shard).iter().chain(newest.group(shard)).copied().collect()
    };
    holders.into_iter().filter(|node| *node != me).collect()
}

/// The shards whose logs this node would begin, and does not without others.
pub(super) fn waiting(charters: &Charters, me: NodeId, bootstrap: &Bootstrap) -> BTreeSet<u16> {
    let founded = (0..charters.shard_count().get()).filter(|shard| bootstrap.voters(GroupId(*shard)).is_some());
    founded.filter(|shard| !needed(charters, me, *shard).is_empty()).collect()
}

/// What the others' reports say of a shard of which this node has nothing.
#[derive(Debug, PartialEq, Eq)]
enum Others {
    /// All who are needed have nothing of it.
    HaveNone,
    /// These have it, or had it and gave it up to others: its log was begun.
    HaveIt(BTreeSet<NodeId>),
    /// These have not been heard of.
    AreMissing(Vec<NodeId>),
}

fn others(shard: u16, needed: &BTreeSet<NodeId>, reports: &BTreeMap<NodeId, (Duration, Report)>) -> Others {
    // Whoever it is, and however long ago it was said.
    let have = reports.iter().filter(|(_, (_, report))| report.tells_of(shard)).map(|(node, _)| *node);
    let have: BTreeSet<NodeId> = have.collect();
    if !have.is_empty() {
        return Others::HaveIt(have);
    }
    let heard = |node: &NodeId| reports.get(node).is_some_and(|(ago, _)| *ago <= FRESH);
    let missing: Vec<NodeId> = needed.iter().filter(|node| !heard(node)).copied().collect();
    if missing.is_empty() { Others::HaveNone } else { Others::AreMissing(missing) }
}

/// Begins the logs that may be begun, until there is none left that this node has nothing of and has to wait for.
pub(super) async fn begin(
    mut waiting: BTreeSet<u16>,
    (charters, alliance): (Charters, Arc<Alliance>),
    (consensus, me): (Consensus, NodeId),
    stop: CancellationToken,
) {
    let mut said: Option<Instant> = None;
    loop {
        let met = consensus.met();
        let is_something = |shard: u16| {
            let status = consensus.status(GroupId(shard));
            // What this node gave up, others have; it comes from them when it is this node's again.
            let left = consensus.left_under(GroupId(shard)).is_some();
            left || status.is_none_or(|status| !status.voters.is_empty() || status.fault.is_some())
        };
        waiting.retain(|shard| !is_something(*shard));
        let mut reports = alliance.reports(me);
        reports.remove(&me);
        let newest = charters.newest();
        // By the newest charter of now: who was to have it and never came, another may take the place of.
        let seen = |shard: &u16| (*shard, others(*shard, &needed(&charters, me, *shard), &reports));
        let seen: Vec<(u16, Others)> = waiting.iter().map(seen).collect();
        let mut waits = Waits::default();
        let refusing = consensus.estranged();
        for (shard, others) in seen {
            let given = newest.group(shard).contains(&me);
            match others {
                Others::HaveNone => match consensus.begin(GroupId(shard)).await {
                    Beginning::Begun => tracing::info!(shard, "nobody has anything of the shard: its log begins"),
                    Beginning::Meeting(nodes) => waits.add_unmet(shard, nodes.into_iter().map(node_id), false),
                    Beginning::Refused(nodes) => waits.refused.extend(nodes.into_iter().map(node_id)),
                    Beginning::Stopped => tracing::error!(shard, "the shard's log cannot be begun"),
                },
                // Let go since it was a founder: nothing will come, and nothing is to be begun. What it is given again, others bring.
                Others::HaveIt(_) if !given => drop(waiting.remove(&shard)),
                others => {
                    // Who refuses this node will not be met: that is what is said of those who have it.
                    let mut strangers = consensus.strangers(GroupId(shard));
                    strangers.retain(|node| !refusing.contains_key(node));
                    if matches!(others, Others::HaveIt(_)) && !strangers.is_empty() {
                        waits.add_unmet(shard, strangers.into_iter().map(node_id), true);
                    }
                    waits.add(shard, others);
                }
            }
        }
        alliance.wait_to_begin(!waiting.is_empty());
        if waiting.is_empty() {
            return;
        }
        if !waits.is_nothing() && said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            // The first time it is but the others' start that is waited for.
            if said.replace(Instant::now()).is_some() {
                let name = |id: &NodeId| charters.ever(*id).map_or_else(|| id.to_string(), |node| node.name);
                waits.told(name).iter().for_each(|text| tracing::warn!("{text}"));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = alliance.told() => {}
            () = met => {}
        }
    }
}

/// What this node waits for.
#[derive(Default)]
struct Waits {
    /// Shards that others have, and who.
    come: BTreeSet<u16>,
    have: BTreeSet<NodeId>,
    /// Shards that nobody has who was heard of, and who was not.
    begin: BTreeSet<u16>,
    silent: BTreeSet<NodeId>,
    /// Shards in which this node has no part before it has met these.
    meet: BTreeSet<u16>,
    strangers: BTreeSet<NodeId>,
    /// Some of those have begun, so that a charter may do without one of these.
    begun: bool,
    /// Who takes this node for another.
    refused: BTreeSet<NodeId>,
}

impl Waits {
    fn add_unmet(&mut self, shard: u16, nodes: impl Iterator<Item = NodeId>, begun: bool) {
        self.meet.insert(shard);
        self.begun |= begun;
        self.strangers.extend(nodes);
    }

    fn add(&mut self, shard: u16, others: Others) {
        match others {
            Others::HaveNone => {}
            Others::HaveIt(nodes) => {
                self.come.insert(shard);
                self.have.extend(nodes);
            }
            Others::AreMissing(nodes) => {
                self.begin.insert(shard);
                self.silent.extend(nodes);
            }
        }
    }

    fn is_nothing(&self) -> bool {
        self.come.is_empty() && self.begin.is_empty() && self.meet.is_empty() && self.refused.is_empty()
    }

    /// For the operator.
    fn told(&self, name: impl Fn(&NodeId) -> String) -> Vec<String> {
        let names = |nodes: &BTreeSet<NodeId>| nodes.iter().map(&name).collect::<Vec<_>>().join(", ");
        let mut told = Vec::new();
        if !self.come.is_empty() {
            told.push(format!(
                "this node has nothing of {}, placed on it, which {} had or have: it comes from them. If it does not, this node had it \
                 before and lost its disk, and they refuse it under its id for good: a node that lost its disk while others live is given a \
                 new id and started empty in its place (`ehe-node replace`); it is not restored",
                shards_in_words(&self.come),
                names(&self.have)
            ));
        }
        if !self.begin.is_empty() {
            told.push(format!(
                "this node has nothing of {}, now or first placed on it, and a new log begins only when every node of which that is true says \
                 that it has none: start {}. If every node lost its disk, all of them are restored from one backup (`ehe-node restore`)",
                shards_in_words(&self.begin),
                names(&self.silent)
            ));
        }
        if !self.meet.is_empty() {
            told.push(format!(
                "this node has no part in {} before it has met every node on which their logs were first placed, and that the newest charter \
                 has: start {}, or see why this node does not reach them{}",
                shards_in_words(&self.meet),
                names(&self.strangers),
                if self.begun { "; one that is gone for good is taken out of the charter (`ehe-node replace`)" } else { "" }
            ));
        }
        if !self.refused.is_empty() {
            told.push(format!(
                "by their word {} remember this node with another log, and refuse it under its id for good. If it had one before and lost its \
                 disk, it is given a new id and started empty in its place (`ehe-node replace`); if it never had one, look at their logs",
                names(&self.refused)
            ));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::GroupReport;

    const SHARD: u16 = 3;

    fn node(n: u8) -> NodeId {
        NodeId([n; 8])
    }

    fn report(of: &[u16]) -> Report {
        let group = |shard: &u16| GroupReport {
            shard: *shard,
            charter: 1,
            leader: None,
            term: 1,
            applied: 1,
            voters: vec![node(1)],
            learners: vec![],
            faulted: false,
            doing: None,
            rules: None,
        };
        Report { charter: 1, groups: of.iter().map(group).collect(), gave_up: None, knows: None }
    }

    #[test]
    fn no_second_log_begins_where_one_had_it_and_gave_it_up() {
        let needed = BTreeSet::from([node(1), node(2)]);
        let gave_up = Report { gave_up: Some(vec![4, SHARD]), ..report(&[]) };
        let said = |second: Report| {
            let reports = [(node(1), report(&[])), (node(2), second)];
            others(SHARD, &needed, &reports.into_iter().map(|(n, it)| (n, (Duration::ZERO, it))).collect())
        };
        assert_eq!(said(gave_up.clone()), Others::HaveIt([node(2)].into()));
        assert_eq!(said(Report { gave_up: Some(vec![4]), ..gave_up }), Others::HaveNone, "another shard's");
    }

    #[test]
    fn a_log_begins_only_when_all_who_may_have_it_say_just_now_that_they_have_none() {
        let needed = BTreeSet::from([node(1), node(2)]);
        let said = |reports: &[(u8, Duration, &[u16])]| {
            let reports = reports.iter().map(|(n, ago, of)| (node(*n), (*ago, report(of)))).collect();
            others(SHARD, &needed, &reports)
        };
        let (now, long_ago) = (Duration::ZERO, FRESH + Duration::from_millis(1));
        assert_eq!(said(&[]), Others::AreMissing(vec![node(1), node(2)]));
        assert_eq!(said(&[(1, now, &[])]), Others::AreMissing(vec![node(2)]));
        assert_eq!(said(&[(1, now, &[]), (2, long_ago, &[])]), Others::AreMissing(vec![node(2)]));
        assert_eq!(said(&[(1, now, &[]), (2, now, &[4])]), Others::HaveNone, "another shard's");
        assert_eq!(said(&[(1, now, &[]), (2, now, &[4, SHARD])]), Others::HaveIt([node(2)].into()));
        // Also one that is not asked for it, and whatever was said long ago.
        assert_eq!(said(&[(1, now, &[]), (2, now, &[]), (9, long_ago, &[SHARD])]), Others::HaveIt([node(9)].into()));
        let two = said(&[(1, now, &[SHARD]), (2, now, &[]), (9, long_ago, &[SHARD])]);
        assert_eq!(two, Others::HaveIt([node(1), node(9)].into()), "all who have it are named");
    }

    #[test]
    fn what_is_waited_for_is_said_by_name_and_nobody_is_told_to_restore_what_others_have() {
        let mut waits = Waits::default();
        assert!(waits.is_nothing());
        (0..4).for_each(|shard| waits.add(shard, Others::HaveIt([node(1), node(2)].into())));
        let name = |id: &NodeId| format!("node{}.example", id.0[0]);
        let told = waits.told(name).join("\n");
        assert!(told.contains("shards 0–3") && told.contains("node1.example, node2.example"), "{told}");
        assert!(told.contains("it is not restored") && !told.contains("NodeId"), "{told}");
        waits.add(9, Others::AreMissing(vec![node(3)]));
        assert!(
            waits.told(name)[1].contains("shard 9, now or first placed")
                && waits.told(name)[1].contains("start node3.example")
        );
        let mut waits = Waits::default();
        waits.add_unmet(5, [node(4)].into_iter(), false);
        assert!(!waits.is_nothing());
        let told = waits.told(name).join("\n");
        waits.refused.insert(node(6));
        assert!(waits.told(name)[1].starts_with("by their word node6.example remember this node"));
        assert!(told.contains("no part in shard 5") && told.contains("start node4.example"), "{told}");
        assert!(!told.contains("charter (`"), "a log that has not begun waits for all: {told}");
        waits.add_unmet(6, [node(4)].into_iter(), true);
        assert!(waits.told(name)[0].contains("taken out of the charter"));
    }
}
