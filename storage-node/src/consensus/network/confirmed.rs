//! What followers confirmed to this node as their leader, to notice one that denies it.
//!
//! A node whose disk went back to an older state has the right uid and a log without entries that it confirmed. Its leader would
//! count them as copied; openraft takes it for impossible. So whoever was told "I have up to here" remembers it for as long as it
//! leads, and a follower that is later asked about a place before that and does not know it is refused.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::consensus::{
    ids::{GroupId, NodeId},
    types::{LogId, Vote},
};

/// For each group and follower, under which vote of this node, and up to where.
#[derive(Debug, Default)]
pub(super) struct Confirmed(Mutex<BTreeMap<(GroupId, NodeId), (Vote, LogId)>>);

impl Confirmed {
    /// `peer` has everything up to `last`.
    pub(super) fn note(&self, group: GroupId, peer: NodeId, vote: Vote, last: LogId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.entry((group, peer)).or_insert((vote, last));
        if kept.0 != vote || kept.1.index() < last.index() {
            *kept = (vote, last);
        }
    }

    /// `peer` is let go: what it confirmed counts for nothing any more, and it may not have it when it comes again.
    pub(super) fn forget(&self, group: GroupId, peer: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(group, peer));
    }

    /// Whether `peer` says that it does not have `at`, though it did.
    pub(super) fn denies(&self, group: GroupId, peer: NodeId, vote: &Vote, at: &LogId) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(group, peer)).is_some_and(|(of, last)| of == vote && at.index() <= last.index())
    }
}
