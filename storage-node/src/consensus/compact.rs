//! Shortens logs that workers offer, as far as nobody needs what would go.
//!
//! A member that was away goes on from the leader's log; past its beginning it needs the whole state, and one that receives a state
//! while much is written would need the next one when it has it. So a leader keeps what a member lacks, up to a limit, which is
//! higher while that member receives a state: by as much as has been sent of it, since sending it again would cost that. And every
//! node keeps its newest entries: when the leader falls, another has to bring the rest up, perhaps before anything can be
//! confirmed again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::{RaftMetrics, async_runtime::WatchReceiver, type_config::TypeConfigExt};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    config::Config,
    group::Group,
    ids::{GroupId, NodeId},
    log::group::GroupLog,
    status::{Role, Status},
    types::{LogId, Types},
};

/// A log that is kept for somebody is looked at again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// What is not durable after this is purged the next time.
const DURABLE_WITHIN: Duration = Duration::from_secs(1);

/// How much of a log is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// Entries that stay in any case.
    entries: u64,
    /// Newest bytes that stay in any case.
    newest_bytes: u64,
    /// Bytes that stay for a member that is behind.
    member_bytes: u64,
    /// A log of which only a part may go is not shortened for less.
    step_entries: u64,
    step_bytes: u64,
}

/// What may go of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct May {
    /// Up to and including this entry.
    upto: Option<u64>,
    /// More may go when a member has it.
    held: bool,
}

impl Hold {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            entries: config.keep_entries,
            newest_bytes: config.log_keep_bytes,
            member_bytes: config.log_hold_bytes,
            step_entries: config.compact_after_entries,
            step_bytes: config.compact_after_bytes,
        }
    }

    /// `sent`: the state that a member has been sent, or is, that has not caught up since. It needs the log behind that.
    fn may(&self, status: &Status, log: &dyn Weighed, sent: impl Fn(NodeId) -> Option<Sent>) -> May {
        // What is durable was applied, though openraft may not have told of it yet; and nothing asks again until more is durable.
        let applied = status.applied.map(|applied| applied.index).max(status.durable).unwrap_or(0);
        let mut upto = applied.checked_sub(self.entries);
        if self.newest_bytes > 0 {
            upto = upto.min(log.before_last(self.newest_bytes));
        }
        let mut held = false;
        if status.role == Role::Leader {
            for (member, matched) in &status.matched {
                let sent = sent(*member).unwrap_or_default();
                let (has, limit) = ((*matched).max(sent.upto), self.member_bytes.saturating_add(sent.bytes));
                if has < upto && log.behind(has) <= limit {
                    upto = has;
                    held = true;
                }
            }
        }
        May { upto, held }
    }

    /// Whether what a member lacks is well within what is kept for one.
    fn has_caught_up(&self, matched: Option<u64>, log: &dyn Weighed) -> bool {
        log.behind(matched) <= self.member_bytes / 2
    }

    /// Whether it is worth it to purge up to there.
    fn worth(&self, purged: Option<u64>, upto: u64, log: &dyn Weighed) -> bool {
        let bytes = log.behind(purged).saturating_sub(log.behind(Some(upto)));
        upto.saturating_sub(purged.unwrap_or(0)) >= self.step_entries || bytes >= self.step_bytes
    }
}

/// A log, as far as its weight goes.
trait Weighed {
    /// Bytes behind an entry, about; of the whole log, if there is none.
    fn behind(&self, index: Option<u64>) -> u64;
    /// The last entry behind which there are so many bytes.
    fn before_last(&self, bytes: u64) -> Option<u64>;
}

impl Weighed for GroupLog {
    fn behind(&self, index: Option<u64>) -> u64 {
        self.bytes_behind(index)
    }

    fn before_last(&self, bytes: u64) -> Option<u64> {
        self.before_last_bytes(bytes)
    }
}

/// Members that are sent a state, or were and have not caught up since.
#[derive(Debug, Default)]
pub(super) struct CatchingUp(Mutex<BTreeMap<(GroupId, NodeId), Sent>>);

/// A state that is sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    /// The last entry that is in it.
    upto: Option<u64>,
    /// How much of it went out.
    bytes: u64,
    /// That was all, and it is in place.
    installed: bool,
}

impl CatchingUp {
    /// The state up to an entry is sent to a member. If it does not arrive, dropping what is returned ends that.
    pub(super) fn begin(&self, group: GroupId, member: NodeId, upto: Option<u64>) -> Sending<'_> {
        self.lock().insert((group, member), Sent { upto, ..Sent::default() });
        Sending { all: self, of: (group, member) }
    }

    fn sent(&self, group: GroupId, member: NodeId) -> Option<Sent> {
        self.lock().get(&(group, member)).copied()
    }

    /// Of those who have their state: forgets who has caught up since, or is none of this node's to bring up.
    fn retain(&self, group: GroupId, lacks: impl Fn(NodeId) -> bool) {
        self.lock().retain(|(of, member), sent| *of != group || !sent.installed || lacks(*member));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(GroupId, NodeId), Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A state on its way out.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    all: &'a CatchingUp,
    of: (GroupId, NodeId),
}

impl Sending<'_> {
    pub(super) fn sent(&self, bytes: usize) {
        if let Some(sent) = self.all.lock().get_mut(&self.of) {
            sent.bytes = sent.bytes.saturating_add(bytes as u64);
        }
    }

    /// It arrived. Now the member needs the log behind it.
    pub(super) fn installed(self) {
        if let Some(sent) = self.all.lock().get_mut(&self.of) {
            sent.installed = true;
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if all.get(&self.of).is_some_and(|sent| !sent.installed) {
            all.remove(&self.of);
        }
    }
}

/// Runs until nobody offers any more.
pub(super) async fn compact(
    groups: BTreeMap<GroupId, Arc<Group>>,
    mut offered: UnboundedReceiver<GroupId>,
    hold: Hold,
    catching_up: Arc<CatchingUp>,
) {
    let mut held = BTreeSet::new();
    loop {
        let next = if held.is_empty() { Ok(offered.recv().await) } else { Types::timeout(AGAIN, offered.recv()).await };
        let fresh = match next {
            Ok(Some(id)) => Some(id),
            Ok(None) => return,
            Err(_) => None,
        };
        let due: BTreeSet<_> = std::mem::take(&mut held).into_iter().chain(fresh).collect();
        for id in due {
            let Some(group) = groups.get(&id) else { continue };
            let status = group.status();
            catching_up.retain(id, |member| {
                let matched = status.matched.get(&member).filter(|_| status.role == Role::Leader);
                matched.is_some_and(|matched| !hold.has_caught_up(*matched, &*group.log))
            });
            let may = hold.may(&status, &*group.log, |member| catching_up.sent(id, member));
            if may.held {
                held.insert(id);
            }
            if let Some(upto) = may.upto.filter(|upto| Some(*upto) > status.purged)
                && (!may.held || fresh == Some(id) || hold.worth(status.purged, upto, &*group.log))
                && !shorten(group, upto).await
            {
                held.insert(id);
            }
        }
    }
}

/// Purges up to an entry. openraft does so as far as it was told of a snapshot, which to this node is that the state is durable. False:
/// it was told of less, of one that was being made already, say.
async fn shorten(group: &Group, upto: u64) -> bool {
    let mut metrics = group.raft().metrics();
    let told = |of: &RaftMetrics<Types>| of.snapshot.as_ref().map(LogId::index);
    let mut durable = told(&metrics.borrow_watched());
    if durable < Some(upto) {
        // A group that has stopped needs no shortening.
        if group.raft().trigger().snapshot().await.is_err() {
            return true;
        }
        let telling = async {
            while told(&metrics.borrow_watched()) < Some(upto) {
                metrics.changed().await.ok()?;
            }
            Some(())
        };
        Types::timeout(DURABLE_WITHIN, telling).await.ok();
        durable = told(&metrics.borrow_watched());
    }
    if let Some(durable) = durable {
        drop(group.raft().trigger().purge_log(upto.min(durable)).await);
    }
    durable >= Some(upto)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Position;

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
            held: None,
        }
    }

    /// Entries 0 to 1000, of a byte each.
    struct Bytes;

    impl Weighed for Bytes {
        fn behind(&self, index: Option<u64>) -> u64 {
            1000 - index.unwrap_or(0)
        }

        fn before_last(&self, bytes: u64) -> Option<u64> {
            1000_u64.checked_sub(bytes)
        }
    }

    const HOLD: Hold = Hold { entries: 16, newest_bytes: 0, member_bytes: 100, step_entries: 50, step_bytes: 50 };
    const ALL: May = May { upto: Some(984), held: false };

    fn may(hold: Hold, role: Role, matched: &[(u64, Option<u64>)]) -> May {
        hold.may(&status(role, matched), &Bytes, |_| None)
    }

    #[test]
    fn a_leader_keeps_what_a_member_lacks_until_it_is_too_much() {
        let upto = |upto| May { upto: Some(upto), held: true };
        assert_eq!(may(HOLD, Role::Leader, &[(2, Some(1000)), (3, Some(900))]), upto(900));
        assert_eq!(may(HOLD, Role::Leader, &[(2, Some(899))]), ALL, "it gets a snapshot");
        assert_eq!(may(HOLD, Role::Leader, &[(2, Some(899)), (3, Some(950))]), upto(950));
        assert_eq!(may(HOLD, Role::Leader, &[(2, Some(990))]), ALL, "it finds what it lacks in what stays");
        assert_eq!(may(HOLD, Role::Leader, &[(2, None)]), ALL, "and who has nothing, too");
        let wide = Hold { member_bytes: 1000, ..HOLD };
        assert_eq!(may(wide, Role::Leader, &[(2, None)]), May { upto: None, held: true });
        assert_eq!(may(HOLD, Role::Leader, &[]), ALL);
        assert_eq!(may(HOLD, Role::Follower, &[(2, Some(900))]), ALL);
    }

    #[test]
    fn what_is_durable_may_go_though_openraft_has_not_told_that_it_was_applied() {
        for applied in [None, Some(Position { term: 1, index: 400 })] {
            let status = Status { applied, ..status(Role::Leader, &[]) };
            assert_eq!(HOLD.may(&status, &Bytes, |_| None), ALL);
        }
    }

    #[test]
    fn whoever_may_have_to_lead_keeps_its_newest_entries() {
        let hold = Hold { newest_bytes: 300, ..HOLD };
        for role in [Role::Leader, Role::Follower, Role::Learner] {
            assert_eq!(may(hold, role, &[]), May { upto: Some(700), held: false });
        }
        assert_eq!(may(Hold { newest_bytes: 2000, ..HOLD }, Role::Follower, &[]), May { upto: None, held: false });
    }

    #[test]
    fn for_who_receives_a_state_as_much_more_is_kept_as_was_sent_of_it_until_it_has_caught_up() {
        let (catching_up, group, member) = (CatchingUp::default(), GroupId(3), NodeId(2));
        let held = || {
            let status = status(Role::Leader, &[(2, Some(100))]);
            let may = HOLD.may(&status, &Bytes, |member| catching_up.sent(group, member));
            assert_eq!(may.upto, Some(if may.held { 700 } else { 984 }), "what is in the state may go");
            may.held
        };
        let sending = catching_up.begin(group, member, Some(700));
        assert!(!held());
        sending.sent(199);
        assert!(!held());
        sending.sent(1);
        assert!(held());
        catching_up.retain(group, |_| false);
        assert!(held(), "it is under way");
        sending.installed();
        assert!(held(), "it has the state, and needs what came after it");
        catching_up.retain(GroupId(4), |_| false);
        assert!(held());
        catching_up.retain(group, |_| false);
        assert!(!held());
        drop(catching_up.begin(group, member, Some(700)));
        assert!(catching_up.sent(group, member).is_none(), "what did not arrive holds nothing");
    }

    #[test]
    fn a_log_that_is_held_is_shortened_by_more_than_a_little_at_a_time() {
        assert!(!HOLD.worth(Some(900), 940, &Bytes));
        assert!(HOLD.worth(Some(900), 950, &Bytes));
        assert!(Hold { step_entries: 500, ..HOLD }.worth(Some(900), 950, &Bytes));
    }
}
