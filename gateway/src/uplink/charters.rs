//! The charters of the alliance that this gateway has, and under which of them each shard was seen.
//!
//! A charter takes effect shard by shard, where it is committed there: a receipt may stand under an earlier one than the newest, and a shard
//! may be with nodes of an earlier one. What it may not do is go back: once a shard was seen under a charter, the quorum of an earlier one
//! proves nothing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use certs::Credentials;
use ehe::charter::{CharterError, Node, VerifiedCharter};
use ehe::id::NodeId;

/// See the [module's text](self).
#[derive(Debug, Clone)]
pub struct Charters {
    newest: Arc<VerifiedCharter>,
    /// The newest among them.
    each: Vec<Arc<VerifiedCharter>>,
    seen: BTreeMap<u16, u32>,
}

impl Charters {
    /// Those of a credentials directory.
    pub fn of(credentials: &Credentials) -> Result<Self, CharterError> {
        let each = credentials.charter_chain().verify_each(credentials.alliance_id())?;
        let newest = Arc::new(credentials.charter().clone());
        Ok(Self { newest, each: each.into_iter().map(Arc::new).collect(), seen: BTreeMap::new() })
    }

    pub(super) fn newest(&self) -> Arc<VerifiedCharter> {
        Arc::clone(&self.newest)
    }

    /// The charter of a version, unless the shard was seen under a later one.
    pub(super) fn of_version(&self, shard: u16, version: u32) -> Option<Arc<VerifiedCharter>> {
        let seen = self.seen.get(&shard).copied().unwrap_or(0);
        let group = |charter: &VerifiedCharter| charter.group(shard).iter().copied().collect::<BTreeSet<_>>();
        // One that leaves the shard where it is comes to it at once.
        let holds =
            |it: &Arc<VerifiedCharter>| it.version() == self.newest.version() || group(it) != group(&self.newest);
        self.each.iter().find(|it| it.version() == version && version >= seen && holds(it)).cloned()
    }

    pub(super) fn stood(&mut self, shard: u16, version: u32) {
        let seen = self.seen.entry(shard).or_default();
        *seen = version.max(*seen);
    }

    /// The one before the newest.
    pub(super) fn before(&self) -> Option<Arc<VerifiedCharter>> {
        self.each.iter().rev().nth(1).cloned()
    }

    pub(super) fn node(&self, id: NodeId) -> Option<Node> {
        self.each.iter().rev().find_map(|charter| charter.node(id).cloned())
    }

    /// Takes up a verified chain, if it goes further. Its newest version then.
    pub(super) fn take_up(&mut self, each: Vec<VerifiedCharter>) -> Option<u32> {
        let each: Vec<_> = each.into_iter().map(Arc::new).collect();
        let newest = each.last().filter(|newest| newest.version() > self.newest.version())?;
        self.newest = Arc::clone(newest);
        self.each = each;
        Some(self.newest.version())
    }
}
