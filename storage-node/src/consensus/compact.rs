//! Shortens logs that workers offer, unless somebody needs what would go.
//!
//! A member that was away for seconds can go on from the leader's log; past its beginning it needs a snapshot, and one that takes
//! a snapshot while much is written would need the next one when it has it. So a leader keeps what a member lacks, up to a limit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use openraft::type_config::TypeConfigExt;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    config::Config,
    group::Group,
    ids::GroupId,
    status::{Role, Status},
    types::Types,
};

/// A log that is kept for somebody is looked at again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a log is kept for a member that is behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// Entries that stay in any case.
    entries: u64,
    bytes: u64,
}

impl Hold {
    pub(super) fn of(config: &Config) -> Self {
        Self { entries: config.keep_entries, bytes: config.log_hold_bytes }
    }

    /// Whether a member lacks what would go, and may still get it from the log.
    fn holds(&self, status: &Status, kept_bytes: u64) -> bool {
        if status.role != Role::Leader || kept_bytes > self.bytes {
            return false;
        }
        let upto = status.applied.map_or(0, |applied| applied.index).saturating_sub(self.entries);
        status.matched.values().any(|matched| matched.map_or(0, |index| index.saturating_add(1)) < upto)
    }
}

/// Runs until nobody offers any more. openraft takes a snapshot, which only makes the state durable, and then purges.
pub(super) async fn compact(
    groups: BTreeMap<GroupId, Arc<Group>>,
    mut offered: UnboundedReceiver<GroupId>,
    hold: Hold,
) {
    let mut held = BTreeSet::new();
    loop {
        let next = if held.is_empty() { Ok(offered.recv().await) } else { Types::timeout(AGAIN, offered.recv()).await };
        match next {
            Ok(Some(id)) => drop(held.insert(id)),
            Ok(None) => return,
            Err(_) => {}
        }
        for id in std::mem::take(&mut held) {
            let Some(group) = groups.get(&id) else { continue };
            if hold.holds(&group.status(), group.log.kept_bytes()) {
                held.insert(id);
            } else {
                // A group that has stopped needs no shortening.
                drop(group.raft.trigger().snapshot().await);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{NodeId, Position};

    fn status(role: Role, matched: &[(u64, Option<u64>)]) -> Status {
        Status {
            role,
            leader: None,
            term: 1,
            last_index: Some(1000),
            applied: Some(Position { term: 1, index: 1000 }),
            durable: Some(1000),
            purged: None,
            voters: BTreeSet::new(),
            changing: false,
            learners: BTreeSet::new(),
            matched: matched.iter().map(|(node, index)| (NodeId(*node), *index)).collect(),
            fault: None,
        }
    }

    #[test]
    fn a_leader_keeps_what_a_member_lacks_until_it_is_too_much() {
        let hold = Hold { entries: 16, bytes: 100 };
        assert!(hold.holds(&status(Role::Leader, &[(2, Some(1000)), (3, Some(900))]), 100));
        assert!(hold.holds(&status(Role::Leader, &[(2, None)]), 100));
        assert!(!hold.holds(&status(Role::Leader, &[(2, Some(900))]), 101), "it gets a snapshot");
        assert!(!hold.holds(&status(Role::Leader, &[(2, Some(990))]), 100), "it finds what it lacks in what stays");
        assert!(!hold.holds(&status(Role::Leader, &[]), 100));
        assert!(!hold.holds(&status(Role::Follower, &[]), 100));
    }
}
