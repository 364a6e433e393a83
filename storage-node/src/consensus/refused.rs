//! A leader whose followers do not take what it orders.
//!
//! A follower judges each command before it stores it ([`Machine::vetting`](super::Machine::vetting)), and says so when it refuses.
//! Whose fault that is, one follower's word does not tell: it may be the one whose clock is wrong, and then the others go on
//! without it until it is mended. When more than half of those who vote refuse, nothing that this node orders can be
//! committed, though its heartbeats are answered and nobody else would stand for election. So it asks one of them to.
//!
//! openraft's own way to hand over asks for a successor that has this node's whole log, and the end of that is what nobody takes. The
//! successor here needs not have it: it stands for election with what it has, which is everything that was ever committed or
//! it is not elected, and what was refused is cut off when its log is followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use openraft::vote::RaftLeaderId;
use tokio::sync::watch;

use super::{
    error::ChangeError,
    handle::Consensus,
    ids::{GroupId, NodeId},
    status::{Role, Status},
    types::{LeaderId, Vote},
};

/// Who does not take what this node orders as leader, for each group.
#[derive(Debug)]
pub(super) struct Refusals {
    groups: Mutex<BTreeMap<GroupId, Refused>>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Refused {
    /// Of this node, under which it was said.
    vote: Vote,
    by: BTreeSet<NodeId>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { groups: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Refusals {
    fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Refused>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `peer` refused what this node sent under `vote`.
    pub(super) fn note(&self, group: GroupId, peer: NodeId, vote: Vote) {
        let mut groups = self.groups();
        let refused = groups.entry(group).or_insert_with(|| Refused { vote, by: BTreeSet::new() });
        if refused.vote != vote {
            *refused = Refused { vote, by: BTreeSet::new() };
        }
        refused.by.insert(peer);
        drop(groups);
        self.changed.send_replace(());
    }

    /// `peer` has taken entries.
    pub(super) fn forget(&self, group: GroupId, peer: NodeId) {
        let mut groups = self.groups();
        if let Some(refused) = groups.get_mut(&group) {
            refused.by.remove(&peer);
            if refused.by.is_empty() {
                groups.remove(&group);
            }
        }
    }

    /// Who refuses in a term of this node's.
    pub(super) fn by(&self, group: GroupId, term: u64) -> BTreeSet<NodeId> {
        let groups = self.groups();
        let refused = groups.get(&group).filter(|refused| refused.vote.leader_id.term == term);
        refused.map(|refused| refused.by.clone()).unwrap_or_default()
    }

    fn none(&self, group: GroupId) -> bool {
        !self.groups().contains_key(&group)
    }
}

/// Those of the voters that refuse, if they are more than half.
fn majority(status: &Status, refusals: &Refusals, group: GroupId) -> Option<BTreeSet<NodeId>> {
    if status.role != Role::Leader {
        return None;
    }
    let by: BTreeSet<NodeId> = refusals.by(group, status.term).intersection(&status.voters).copied().collect();
    (by.len() > status.voters.len() / 2).then_some(by)
}

impl Consensus {
    /// Whether this node leads `group` and more than half of those who vote in it refuse what it orders. Nothing it proposes is
    /// committed then.
    #[must_use]
    pub fn is_refused(&self, group: GroupId) -> bool {
        let refusals = self.inner.router.refusals();
        // Asked before each block, and hardly ever so.
        !refusals.none(group) && self.status(group).is_some_and(|status| majority(&status, refusals, group).is_some())
    }

    /// Waits until [`is_refused`](Self::is_refused).
    pub async fn refused(&self, group: GroupId) {
        let mut changed = self.inner.router.refusals().changed.subscribe();
        while !self.is_refused(group) {
            if changed.changed().await.is_err() {
                // The sender lives as long as this node's groups.
                return std::future::pending().await;
            }
        }
    }

    /// Has one of those that refuse what this node orders stand for election, and says which. Whether it is elected,
    /// [`wait`](Self::wait) tells. To do it again is safe.
    ///
    /// # Errors
    /// [`ChangeError`]; [`ChangeError::NotNow`] also if nobody refuses any more.
    pub async fn step_back(&self, group: GroupId) -> Result<NodeId, ChangeError> {
        let status = self.status(group).ok_or(ChangeError::NoSuchGroup(group))?;
        if status.role != Role::Leader {
            return Err(ChangeError::NotLeader { leader: status.leader });
        }
        let router = &self.inner.router;
        let nobody = || ChangeError::NotNow("no majority refuses what this node orders".into());
        let refusing = majority(&status, router.refusals(), group).ok_or_else(nobody)?;
        // The one with most of the log: the others vote for it.
        let has = |node: &NodeId| status.matched.get(node).copied().flatten();
        let to = refusing.into_iter().max_by_key(has).ok_or_else(nobody)?;
        let vote = Vote { leader_id: LeaderId::new(status.term, self.node_id().0), committed: true };
        router.stand_for_election(to, group, vote).await.map_err(ChangeError::NotNow)?;
        Ok(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(term: u64) -> Vote {
        Vote { leader_id: LeaderId::new(term, 1), committed: true }
    }

    fn leads(term: u64) -> Status {
        Status {
            role: Role::Leader,
            leader: Some(NodeId(1)),
            term,
            last_index: None,
            applied: None,
            durable: None,
            purged: None,
            voters: [1, 2, 3].map(NodeId).into(),
            changing: false,
            learners: BTreeSet::new(),
            matched: BTreeMap::new(),
            held: None,
            fault: None,
        }
    }

    #[test]
    fn two_of_three_refuse_a_leader_and_one_or_a_stranger_or_a_word_from_before_does_not_count() {
        let (group, refusals) = (GroupId(4), Refusals::default());
        let of = |term| majority(&leads(term), &refusals, group);
        refusals.note(group, NodeId(2), vote(7));
        refusals.note(group, NodeId(2), vote(7));
        refusals.note(group, NodeId(9), vote(7));
        assert_eq!(of(7), None);
        refusals.note(group, NodeId(3), vote(7));
        assert_eq!(of(7), Some([2, 3].map(NodeId).into()));
        assert_eq!(of(8), None, "what it ordered in another term");
        assert_eq!(majority(&Status { role: Role::Follower, ..leads(7) }, &refusals, group), None);
        refusals.forget(group, NodeId(3));
        assert_eq!(of(7), None);
        refusals.note(group, NodeId(3), vote(8));
        assert_eq!((of(7), of(8)), (None, None), "a new term begins with nobody against it");
        refusals.forget(group, NodeId(3));
        assert!(refusals.none(group));
    }
}
