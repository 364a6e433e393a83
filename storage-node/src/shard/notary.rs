//! What stands behind a shard's log when its state goes from node to node: the newest checkpoint that a quorum cosigned.

use std::sync::Arc;

use ehe::charter::VerifiedCharter;
use ehe::checkpoint::{CheckpointError, VerifiedCheckpoint};
use ehe::id::Hash;
use tokio::sync::watch;

use crate::checkpoint::{Checkpointed, Published};

/// Shows the quorum's notes to others, and judges theirs.
#[derive(Clone)]
pub struct Notary {
    charters: Arc<dyn Fn(u32) -> Option<Arc<VerifiedCharter>> + Send + Sync>,
    checkpoints: watch::Receiver<Checkpointed>,
}

/// What a quorum cosigned of a log, and how it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attested {
    pub(crate) incarnation: u32,
    pub(crate) size: u64,
    pub(crate) root: Hash,
    /// Version of the charter under which it is cosigned.
    pub(crate) charter_version: u32,
    pub(super) note: String,
}

impl Notary {
    /// `charters` gives the alliance's charter of a version, which says who makes a quorum; on `checkpoints` the shard's are shown.
    pub fn new(
        charters: impl Fn(u32) -> Option<Arc<VerifiedCharter>> + Send + Sync + 'static,
        checkpoints: watch::Receiver<Checkpointed>,
    ) -> Self {
        Self { charters: Arc::new(charters), checkpoints }
    }

    /// The newest, since this node was started.
    pub(super) fn newest(&self) -> Option<Arc<Published>> {
        match &*self.checkpoints.borrow() {
            Checkpointed::At(published) => Some(Arc::clone(published)),
            Checkpointed::None | Checkpointed::Fenced => None,
        }
    }

    /// What a note of this shard's log attests.
    pub(crate) fn verify(&self, shard: u16, note: &str) -> Result<Attested, CheckpointError> {
        let of = |version| (self.charters)(version).ok_or(CheckpointError::OtherCharter(version));
        let mut charter = of(1)?;
        let mut verified = VerifiedCheckpoint::verify(note, shard, &charter);
        // It says itself under which.
        if let Err(CheckpointError::OtherCharter(version)) = verified {
            charter = of(version)?;
            verified = VerifiedCheckpoint::verify(note, shard, &charter);
        }
        let verified = verified?;
        let checkpoint = verified.checkpoint();
        let (size, root, origin) = (checkpoint.size, checkpoint.root, &checkpoint.origin);
        let incarnation = charter.incarnation_of(origin, shard);
        let incarnation = incarnation.ok_or_else(|| CheckpointError::OtherLog(origin.clone()))?;
        Ok(Attested { incarnation, size, root, charter_version: charter.version(), note: note.into() })
    }
}
