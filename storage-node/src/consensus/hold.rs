//! A group that is held: its state is not what it was, and its log is sound.
//!
//! The node goes on as a member with a vote and a copy of the log, so that nothing that is acknowledged meanwhile has one copy less;
//! but it does not lead, is not elected, and applies nothing to a state that is damaged. Unlike a [`fence`](super::fence), which is for
//! good because nobody knows what is on the disk, a hold is lifted when the state was repaired.
//!
//! Also held is a group whose state this program cannot carry on, because what is committed asks for a later one
//! ([`Machine::outdated`](super::Machine::outdated)). That lasts until the later program runs.
//!
//! Nothing waits for that: openraft hands its core no more than so many applies ahead, and a core that cannot hand in one votes no more.
//! So what is committed is passed over, and had again from the log, in its order, once the group is released. From the first entry that
//! was passed over, nothing is applied but what is read from the log. Where the state really is, openraft does not know then; whoever asks
//! for the status is told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::join_all;
use openraft::RaftLogReader;
use tokio::sync::{Notify, futures::Notified};

use super::{
    group::Group, handle::Consensus, ids::GroupId, log::group::next_index, runtime, status::Role, types::LogId,
};

/// Most entries that are applied again at once.
const ENTRIES: u64 = 1024;

/// Whether a group is held, and why, and what of its log was passed over.
#[derive(Debug, Default)]
pub(super) struct Hold {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By whom it may be released.
    why: Option<Arc<str>>,
    /// Released by a later program alone.
    outdated: Option<Arc<str>>,
    behind: Option<Behind>,
}

/// A state that is behind what openraft takes it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    /// The last entry that is in it.
    pub(super) applied: Option<LogId>,
    /// The last that was passed over.
    pub(super) upto: LogId,
}

impl Hold {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can be left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is held, if it is.
    pub(super) fn why(&self) -> Option<Arc<str>> {
        let state = self.lock();
        state.outdated.clone().or_else(|| state.why.clone())
    }

    /// Why only a later program releases it.
    pub(super) fn outdated(&self) -> Option<Arc<str>> {
        self.lock().outdated.clone()
    }

    /// What the machine says of that, after its state has changed.
    pub(super) fn outdate(&self, why: Option<&str>) {
        let mut state = self.lock();
        if state.outdated.as_deref() != why {
            state.outdated = why.map(Arc::from);
            drop(state);
            self.moved.notify_waiters();
        }
    }

    pub(super) fn set(&self, why: Option<&str>) {
        self.lock().why = why.map(Arc::from);
        self.moved.notify_waiters();
    }

    /// Where the state is, if that is not where openraft takes it to be.
    pub(super) fn behind(&self) -> Option<Behind> {
        self.lock().behind
    }

    /// Whether entries up to `upto` are passed over, of a state that has those up to `applied`: the group is held, or others were
    /// passed over before.
    pub(super) fn passes_over(&self, applied: Option<LogId>, upto: LogId) -> bool {
        let mut state = self.lock();
        if state.why.is_none() && state.outdated.is_none() && state.behind.is_none() {
            return false;
        }
        state.behind = Some(Behind { applied, upto });
        true
    }

    /// The state has everything up to `applied` now.
    pub(super) fn reached(&self, applied: LogId) {
        let mut state = self.lock();
        state.behind = state.behind.filter(|behind| behind.upto.index() > applied.index());
        if let Some(behind) = &mut state.behind {
            behind.applied = Some(applied);
        }
        drop(state);
        self.moved.notify_waiters();
    }

    /// The state is given up, and whatever was passed over with it.
    pub(super) fn forget(&self) {
        self.lock().behind = None;
        self.moved.notify_waiters();
    }

    /// Resolves when something of this has changed since it was called.
    pub(super) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }
}

impl Consensus {
    /// Holds `group` on this node, at once and until [`release`](Self::release): nothing is proposed or applied here, it stands for no
    /// election, and if it leads, it falls silent, so that others elect another. It votes, and its log grows. False if there is no
    /// such group.
    pub fn hold(&self, group: GroupId, why: &str) -> bool {
        let Some(group) = self.group(group) else { return false };
        group.log.hold.set(Some(why));
        group.raft().runtime_config().elect(false);
        group.raft().runtime_config().heartbeat(false);
        true
    }

    /// Waits until `group` is held because this program is older than what is committed asks for, and says why. Never, if there is no such group.
    pub async fn outdated(&self, group: GroupId) -> Arc<str> {
        let Some(group) = self.group(group) else { return std::future::pending().await };
        loop {
            let moved = group.log.hold.moved();
            if let Some(why) = group.log.hold.outdated() {
                return why;
            }
            moved.await;
        }
    }

    /// Lifts a hold: what was committed meanwhile is applied, and the node may lead again. Returns at once;
    /// [`wait`](Self::wait) tells how far it is.
    pub fn release(&self, group: GroupId) {
        if let Some(group) = self.group(group) {
            group.log.hold.set(None);
            if group.log.hold.outdated().is_some() {
                return;
            }
            group.raft().runtime_config().elect(group.may_stand());
            group.raft().runtime_config().heartbeat(true);
            runtime::detach(go_on(Arc::clone(group)));
        }
    }
}

/// Has groups that turn out to be held by their machines stand for no election, and fall silent where they lead. Goes on until it is dropped.
pub(super) async fn heed(groups: BTreeMap<GroupId, Arc<Group>>) {
    join_all(groups.into_values().map(|group| async move {
        loop {
            let moved = group.log.hold.moved();
            if let Some(why) = group.log.hold.outdated() {
                tracing::error!(group = %group.id, %why, "the group is held on this node");
                group.raft().runtime_config().elect(false);
                group.raft().runtime_config().heartbeat(false);
                return;
            }
            moved.await;
        }
    }))
    .await;
}

/// Applies what was passed over. A group that is this node's alone is led again: no timeout would see to that.
async fn go_on(group: Arc<Group>) {
    let mut reader = group.reader.clone();
    while let Some(Behind { applied, upto }) = group.log.hold.behind() {
        let next = next_index(applied.as_ref());
        let end = upto.index().saturating_add(1).min(next.saturating_add(ENTRIES));
        let read = reader.limited_get_log_entries(next, end).await;
        // What is wrong with the log, its fence says. Held anew, or stopped: who releases it then, or a restart, begins here again.
        let Ok(entries) = read else { return };
        if group.log.hold.why().is_some() || entries.is_empty() || group.worker().catch_up(entries).await.is_err() {
            return;
        }
    }
    if group.is_alone() && group.may_stand() && group.role() != Role::Leader {
        drop(group.raft().trigger().elect(false).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::types::log_id;

    #[test]
    fn a_group_whose_program_is_too_old_stays_held_when_its_state_was_repaired() {
        let hold = Hold::default();
        hold.outdate(Some("older than the rules in force"));
        hold.set(Some("damaged"));
        assert_eq!(hold.why().as_deref(), Some("older than the rules in force"));
        hold.set(None);
        assert_eq!(hold.why().as_deref(), Some("older than the rules in force"));
        assert!(hold.passes_over(None, log_id(1, 0)));
        hold.outdate(None);
        assert_eq!(hold.why(), None);
    }

    #[test]
    fn what_follows_an_entry_that_was_passed_over_is_passed_over_until_the_state_has_caught_up() {
        let hold = Hold::default();
        let at = |index| log_id(1, index);
        assert!(!hold.passes_over(None, at(0)));
        hold.set(Some("damaged"));
        assert!(hold.passes_over(Some(at(0)), at(4)));
        hold.set(None);
        assert!(hold.passes_over(Some(at(0)), at(9)), "entries 1 to 4 are missing");
        assert_eq!(hold.behind(), Some(Behind { applied: Some(at(0)), upto: at(9) }));
        hold.reached(at(4));
        assert!(hold.passes_over(Some(at(4)), at(10)));
        assert_eq!(hold.behind(), Some(Behind { applied: Some(at(4)), upto: at(10) }));
        hold.reached(at(10));
        assert_eq!(hold.behind(), None);
        assert!(!hold.passes_over(Some(at(10)), at(11)));
    }
}
