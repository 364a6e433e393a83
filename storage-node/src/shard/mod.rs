//! A shard: a replicated, checkpointed log of rooms.
//!
//! ```text
//!  handlers ─► precheck ─► sequencer ─► (consensus) ─► machine ─► apply ─► store          one redb file
//!     ▲                                                               └─► checkpoint      signed when it is remembered
//!     └──────────────────────────── view ◄───────────────────────────────── store
//! ```

mod apply;
mod audit;
mod block;
mod charters;
mod chunks;
mod decoded;
mod entry;
mod export;
mod extent;
mod folder;
mod incoming;
mod known;
mod ledger;
mod machine;
mod mend;
mod notary;
mod packed;
mod place;
mod places;
mod precheck;
mod readers;
mod recent;
mod record;
mod replay;
mod rules;
mod schema;
mod segments;
mod sequencer;
mod sound;
mod staging;
mod store;
mod tree;
mod vet;
mod view;
mod void;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use tokio::sync::watch;

pub(crate) use audit::{Form, Records, Roots};
pub(crate) use block::block_fault;
pub use block::{Outcome, block_of_runs, outcomes_of_runs};
pub use charters::{CharterEntry, InEffect};
pub use chunks::{CHUNK_MAX_BYTES, Leaves, Taken, state_of};
pub use entry::{Entry, StoredEvent};
pub(crate) use extent::Extent;
pub(crate) use incoming::{Arrived, Incoming};
pub use machine::ShardMachine;
pub use mend::LogRow;
pub(crate) use mend::{ROWS_MAX, receive};
pub use notary::Notary;
pub use place::Place;
pub use precheck::precheck;
pub use readers::{Committed, Decided, Decisions, Expected, Readers, Rights, RightsWatch};
pub use recent::{Recent, Rooms};
pub(crate) use replay::Replayed;
pub use rules::Rules;
pub use schema::{RUN_REFUSALS_KEPT, RunRefusal, ShardMeta};
pub use sequencer::{Sequencer, Unordered, Waiting, WeakSequencer, run as order};
pub(crate) use store::file_name;
pub use store::{Store, StoreError};
pub use view::View;
pub use void::FalseRun;

use crate::checkpoint::{Board, Checkpointed, Published};

/// A shard as handlers see it.
#[derive(Clone)]
pub struct Shard {
    /// Which one.
    pub place: Place,
    /// Its state.
    pub store: Store,
    /// The rules of its rooms as of the last block, those that are in memory.
    pub rooms: Rooms,
    /// Its newest leaves.
    pub recent: Recent,
    /// What apply tells those who read here.
    pub readers: Readers,
    /// Its ordering party.
    pub sequencer: Sequencer,
    /// Its newest checkpoint.
    pub checkpoints: watch::Receiver<Checkpointed>,
    /// Who makes them.
    pub board: Arc<Board>,
}

/// There will be no further checkpoint: a fault stopped the shard, or the node is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard is stopped")]
pub struct Stopped;

impl Shard {
    /// As [`checkpoint_of`](Self::checkpoint_of), on any node: those that do not lead hear of checkpoints a little later, if they do not ask.
    pub async fn checkpoint_asked_for(&self, size: u64) -> Result<Arc<Published>, Stopped> {
        if self.checkpoints.borrow().size() < size {
            self.board.want(self.place.shard, size);
        }
        self.checkpoint_of(size).await
    }

    /// Waits for a checkpoint of at least `size` leaves.
    pub async fn checkpoint_of(&self, size: u64) -> Result<Arc<Published>, Stopped> {
        let mut checkpoints = self.checkpoints.clone();
        let shown = checkpoints.wait_for(|c| c.size() >= size || matches!(c, Checkpointed::Fenced)).await;
        match shown.as_deref() {
            Ok(Checkpointed::At(published)) => Ok(Arc::clone(published)),
            _ => Err(Stopped),
        }
    }

    /// The newest checkpoint; none while the log is empty.
    pub fn newest_checkpoint(&self) -> Result<Option<Arc<Published>>, Stopped> {
        match &*self.checkpoints.borrow() {
            Checkpointed::None => Ok(None),
            Checkpointed::At(published) => Ok(Some(Arc::clone(published))),
            Checkpointed::Fenced => Err(Stopped),
        }
    }
}
