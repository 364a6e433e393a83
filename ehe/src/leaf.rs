//! Leaves of a shard's log, and receipts (SPEC 10).

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::charter::VerifiedCharter;
use crate::checkpoint::{CheckpointError, VerifiedCheckpoint};
use crate::id::{Hash, RoomId};
use crate::limits;
use crate::merkle::{self, BadProof};
use crate::run::VerifiedRun;
use crate::time::UnixMs;

/// One entry of a room in its shard's log. The Merkle leaf is this structure's encoding.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Leaf {
    /// The room.
    #[n(0)]
    pub room: RoomId,
    /// Place in the room, from 0: the cursor of readers.
    #[n(1)]
    pub index: u64,
    /// Merkle leaf hash of the room's leaf before; zeros at index 0. A room's leaves so form a chain of their own.
    #[n(2)]
    pub previous: Hash,
    /// SHA-256 of the entry: a signed run (a CBOR array), an access record or a void record (CBOR maps, told apart by member 0).
    #[n(3)]
    pub entry: Hash,
    /// The ledger's time, put in by the ordering party; never goes back within a shard.
    #[n(4)]
    pub accepted_at: UnixMs,
    /// The patient's control events in the room so far, this entry's included. Who is shown a part of a room so notices when one
    /// of them, a revocation say, is left out.
    #[n(5)]
    pub control: u64,
}

impl Leaf {
    /// Merkle leaf hash.
    pub fn hash(&self) -> Hash {
        merkle::leaf_hash(&cbor::to_vec(self))
    }
}

/// Proof for an author that a run is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    /// The leaf.
    #[n(0)]
    pub leaf: Leaf,
    /// Its place in the shard's log.
    #[n(1)]
    pub log_index: u64,
    /// Inclusion proof in the checkpoint's tree.
    #[n(2)]
    pub proof: Vec<Hash>,
    /// The checkpoint, a signed note.
    #[n(3)]
    pub checkpoint: String,
}

/// Why a receipt proves nothing. The node that gave it is at fault, unless the charter at hand is old.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The inclusion proof.
    #[error(transparent)]
    Proof(#[from] BadProof),
    /// Of another run or room.
    #[error("the receipt is for another run")]
    OtherRun,
    /// Larger than a receipt may be.
    #[error("the receipt is too large")]
    TooLarge,
}

/// A receipt that was checked against a run: what a gateway needs before it deletes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedReceipt {
    run: VerifiedRun,
    leaf: Leaf,
    checkpoint: VerifiedCheckpoint,
}

impl Receipt {
    /// Verifies that `run` stands in its shard's log under a quorum's checkpoint.
    pub fn verify(&self, run: &VerifiedRun, charter: &VerifiedCharter) -> Result<VerifiedReceipt, ReceiptError> {
        if self.proof.len() > limits::PROOF_HASHES_MAX {
            return Err(ReceiptError::TooLarge);
        }
        let room = run.run().room;
        if self.leaf.room != room || self.leaf.entry != run.hash() {
            return Err(ReceiptError::OtherRun);
        }
        let shard = room.shard(charter.shard_count());
        let checkpoint = VerifiedCheckpoint::verify(&self.checkpoint, shard, charter)?;
        let tree = checkpoint.checkpoint();
        merkle::verify_inclusion(&self.leaf.hash(), self.log_index, tree.size, &self.proof, &tree.root)?;
        Ok(VerifiedReceipt { run: run.clone(), leaf: self.leaf.clone(), checkpoint })
    }
}

impl VerifiedReceipt {
    /// The run that is proven to stand in the log, whole.
    pub fn run(&self) -> &VerifiedRun {
        &self.run
    }

    /// Its leaf.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The checkpoint that vouches for it.
    pub fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }
}
