//! Do a log and a state belong together? Asked of every group before anything is started.
//!
//! A node that forgot a vote can help to elect two leaders in one term, and a log that forgot entries which it
//! confirmed can lose them for everybody. Neither can be repaired by the node alone, so it does not start.

use super::{
    codec::{Applied, NodeRecord},
    error::OpenError,
    ids::GroupId,
    log::{file::Stored, group::next_index},
    types::LogId,
};

/// Checks one group: `node` is what the log file says of itself (`None` for a new file), `stored` what it has of the
/// group, `applied` what the machine has, `entry` what the log has at the index where that ends.
pub(super) fn check(
    group: GroupId,
    node: Option<&NodeRecord>,
    stored: &Stored,
    applied: Option<&Applied>,
    entry: Option<LogId>,
) -> Result<(), OpenError> {
    let purged = stored.purged.map(|id| id.index());
    let Some(applied) = applied else {
        // No state: right for a group that is new, or that crashed before its state was first made durable.
        return purged.map_or(Ok(()), |purged| Err(OpenError::StateBehindLog { group, applied: None, purged }));
    };
    let Some(node) = node else { return Err(OpenError::LogMissing { group }) };
    if applied.uid != node.uid {
        return Err(OpenError::OtherIncarnation { group, state: applied.uid, log: node.uid });
    }
    let index = applied.last.index();
    if index < next_index(stored.purged.as_ref()).saturating_sub(1) {
        return Err(OpenError::StateBehindLog { group, applied: Some(index), purged: purged.unwrap_or_default() });
    }
    // Invariant 6: a state passes the end of its log only by a snapshot that the log knows of.
    let installed = stored.installing == Some(applied.last);
    if index >= next_index(stored.last.as_ref()) && !installed {
        let last = stored.last.map(|id| id.index());
        return Err(OpenError::LogBehindState { group, applied: index, last });
    }
    let known = entry.or(stored.purged.filter(|purged| purged.index() == index));
    if known.is_some_and(|known| known != applied.last) && !installed {
        return Err(OpenError::Diverged { group, index });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{
        ids::{NodeId, NodeUid},
        types::{StoredMembership, log_id},
    };

    const GROUP: GroupId = GroupId(3);
    const NODE: NodeRecord = NodeRecord { uid: NodeUid([1; 16]), node: NodeId(1) };

    fn applied(index: u64) -> Applied {
        Applied { uid: NODE.uid, last: log_id(2, index), membership: StoredMembership::default() }
    }

    fn log(purged: Option<u64>, last: Option<u64>) -> Stored {
        let id = |index: Option<u64>| index.map(|index| log_id(2, index));
        Stored { purged: id(purged), last: id(last.or(purged)), ..Stored::default() }
    }

    #[test]
    fn a_state_that_the_log_covers_is_accepted() {
        check(GROUP, None, &log(None, None), None, None).unwrap();
        check(GROUP, Some(&NODE), &log(None, Some(9)), None, None).unwrap();
        check(GROUP, Some(&NODE), &log(Some(4), Some(9)), Some(&applied(4)), None).unwrap();
        check(GROUP, Some(&NODE), &log(Some(4), Some(9)), Some(&applied(9)), None).unwrap();
        check(GROUP, Some(&NODE), &log(Some(4), None), Some(&applied(4)), None).unwrap();
    }

    #[test]
    fn a_state_without_a_log_is_refused() {
        let refused = check(GROUP, None, &log(None, None), Some(&applied(0)), None);
        assert!(matches!(refused, Err(OpenError::LogMissing { group: GROUP })));
    }

    #[test]
    fn a_state_of_another_incarnation_is_refused() {
        let other = NodeRecord { uid: NodeUid([2; 16]), ..NODE };
        let refused = check(GROUP, Some(&other), &log(None, Some(9)), Some(&applied(4)), None);
        assert!(matches!(refused, Err(OpenError::OtherIncarnation { .. })));
    }

    #[test]
    fn a_log_that_ends_before_the_state_is_refused_unless_a_snapshot_was_being_installed() {
        let mut stored = log(Some(4), Some(9));
        let refused = check(GROUP, Some(&NODE), &stored, Some(&applied(10)), None);
        assert!(matches!(refused, Err(OpenError::LogBehindState { applied: 10, last: Some(9), .. })));
        stored.installing = Some(log_id(2, 10));
        check(GROUP, Some(&NODE), &stored, Some(&applied(10)), None).unwrap();
        assert!(check(GROUP, Some(&NODE), &stored, Some(&applied(11)), None).is_err());
    }

    #[test]
    fn a_state_that_the_log_can_no_longer_reach_is_refused() {
        for state in [None, Some(applied(3))] {
            let refused = check(GROUP, Some(&NODE), &log(Some(4), Some(9)), state.as_ref(), None);
            assert!(matches!(refused, Err(OpenError::StateBehindLog { purged: 4, .. })));
        }
    }

    #[test]
    fn a_state_that_ends_with_another_entry_than_the_log_has_there_is_refused() {
        let state = Applied { last: log_id(3, 9), ..applied(9) };
        let there = Some(log_id(2, 9));
        assert!(matches!(
            check(GROUP, Some(&NODE), &log(None, Some(9)), Some(&state), there),
            Err(OpenError::Diverged { .. })
        ));
    }
}
