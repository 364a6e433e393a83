//! A group that is held: its state is not what it was, and its log is sound.
//!
//! The node goes on as a member with a vote and a copy of the log, so that nothing that is acknowledged meanwhile has one copy less;
//! but it does not lead, is not elected, and applies nothing to a state that is damaged. Unlike a [`fence`](super::fence), which is for
//! good because nobody knows what is on the disk, a hold is lifted when the state was repaired.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{handle::Consensus, ids::GroupId};

/// Whether a group is held, and why.
#[derive(Debug, Default)]
pub(super) struct Hold {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    why: Option<Arc<str>>,
    ended: bool,
}

impl Hold {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can be left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is held, if it is.
    pub(super) fn why(&self) -> Option<Arc<str>> {
        self.lock().why.clone()
    }

    pub(super) fn set(&self, why: Option<&str>) {
        self.lock().why = why.map(Arc::from);
        self.changed.notify_all();
    }

    /// The group is being stopped: nobody waits any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until the group is not held. False: it is being stopped, and is held still.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.lock();
        while state.why.is_some() && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.why.is_none()
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

    /// Lifts a hold: what was committed meanwhile is applied, and the node may lead again.
    pub fn release(&self, group: GroupId) {
        if let Some(group) = self.group(group) {
            group.log.hold.set(None);
            group.raft().runtime_config().elect(group.may_stand());
            group.raft().runtime_config().heartbeat(true);
        }
    }
}
