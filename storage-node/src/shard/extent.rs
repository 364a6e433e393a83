//! How far this node's own log of a shard goes: what a state that is to take its place has to extend.
//!
//! A quorum's note says that a log is the alliance's, and not that it is all of it: an older state has one too, and a state without
//! a leaf needs none. So whoever leads could have a node let go of what it has acknowledged, one node after the other. A replica's
//! state is only ever ahead of this one or behind it, and one that is behind is not needed: what is taken has this node's leaves,
//! every one of them, and then more.

use std::sync::{Arc, Mutex, PoisonError};

use ehe::id::{AllianceId, Hash};
use ehe::merkle::Peaks;
use ehe::time::UnixMs;

use super::charters::Charters;
use super::schema::{ReadTables, ShardMeta};
use super::store::{StoreError, shard_meta};
use super::tree::Tree;
use crate::cosign::Cosigned;

/// How far a log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extent {
    incarnation: u32,
    leaves: u64,
    root: Hash,
    time: UnixMs,
    /// The charter that is in effect, and whether nobody of the group before has to vouch for it any more.
    charter: Option<(u32, bool)>,
}

impl Extent {
    /// Of a state.
    pub(super) fn of(shard: &ShardMeta, root: Hash, charters: &Charters) -> Self {
        let ShardMeta { incarnation, leaves, time, .. } = *shard;
        Self { incarnation, leaves, root, time, charter: in_effect(charters) }
    }

    /// Whether a state has all of this, and its log goes on from here. What it costs grows with the log's logarithm: the state's tree was
    /// found to be that of its entries before.
    pub(super) fn is_in(&self, tables: &ReadTables, alliance: AllianceId) -> Result<(), StoreError> {
        let shard = shard_meta(&tables.meta)?;
        // Where nothing was acknowledged yet, the log may have begun anew elsewhere.
        let same = match self.leaves {
            0 => shard.incarnation >= self.incarnation,
            _ => shard.incarnation == self.incarnation,
        };
        if !same {
            return behind("its log is of another incarnation than this node's");
        }
        if shard.leaves < self.leaves {
            return behind("its log is shorter than this node's");
        }
        if self.leaves > 0 && Peaks::load(&Tree(tables), self.leaves)?.root() != self.root {
            return behind("its log is not this node's and more");
        }
        if shard.time < self.time {
            return behind("its time is before this node's");
        }
        if in_effect(&Charters::load(&tables.meta, alliance)?) < self.charter {
            return behind("its charter is older than this node's");
        }
        Ok(())
    }
}

impl From<Cosigned> for Extent {
    /// What is known of a log whose state is damaged: that this node signed it.
    fn from(Cosigned { incarnation, size, root }: Cosigned) -> Self {
        Self { incarnation, leaves: size, root, ..Self::default() }
    }
}

fn in_effect(charters: &Charters) -> Option<(u32, bool)> {
    charters.in_effect().map(|now| (now.committed, now.before.is_none()))
}

fn behind<T>(what: &'static str) -> Result<T, StoreError> {
    Err(StoreError::Stream(what))
}

/// How far this node's log goes now: shown by whoever writes it, seen by whoever receives another's.
#[derive(Debug, Clone, Default)]
pub(super) struct Own(Arc<Mutex<Extent>>);

impl Own {
    /// One that does not go on.
    pub(super) fn at(extent: Extent) -> Self {
        Self(Arc::new(Mutex::new(extent)))
    }

    pub(super) fn show(&self, extent: Extent) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = extent;
    }

    pub(super) fn now(&self) -> Extent {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
