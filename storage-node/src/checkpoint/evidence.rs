//! Two statements about one log that cannot both be true.

use ehe::charter::VerifiedCharter;
use ehe::checkpoint::{Checkpoint, CheckpointError};
use ehe::id::{Hash, NodeId};
use ehe::merkle::{self, BadProof};
use ehe::note::Note;

/// One side: a checkpoint, and the note with a signature under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Leaves.
    pub size: u64,
    /// Root.
    pub root: Hash,
    /// The signed note. None where a node finds that its own log is not the one that it cosigned: what was signed may be known
    /// by its root alone, and what would contradict it is not signed.
    pub note: Option<String>,
}

/// A node's statement about a log, and the log that contradicts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The shard.
    pub shard: u16,
    /// The log's incarnation.
    pub incarnation: u32,
    /// The charter that both name.
    pub charter_version: u32,
    /// Whose statement it is.
    pub of: NodeId,
    /// The statement.
    pub stated: Side,
    /// The log as it is: at least as large.
    pub log: Side,
    /// The root of the log's first `stated.size` leaves: another than the stated one.
    pub prefix: Hash,
    /// Proof that `log` extends `prefix` (RFC 9162 §2.1.4).
    pub proof: Vec<Hash>,
}

/// Why evidence shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// A side has no note.
    #[error("a statement has no signature")]
    Unsigned,
    /// A note does not say what the evidence says.
    #[error("a note is not of the log, size and root in question")]
    OtherStatement,
    /// Not a checkpoint's note.
    #[error(transparent)]
    Note(#[from] CheckpointError),
    /// Nobody of the shard's group has signed a side, or not the node in question.
    #[error("a note has no signature of the node in question")]
    OtherSigner,
    /// The roots do not contradict each other.
    #[error("the statement is a prefix of the log")]
    Consistent,
    /// The proof does not lead from one to the other.
    #[error(transparent)]
    Proof(#[from] BadProof),
}

impl Evidence {
    /// Judges it by the charter alone, without trusting whoever found it: the node signed a root that the other side's signers
    /// know another for.
    pub fn judge(&self, charter: &VerifiedCharter) -> Result<(), EvidenceError> {
        let [stated, log] = [&self.stated, &self.log].map(|side| self.note(side, charter));
        let (stated, log) = (stated?, log?);
        let signed = |note: &Note, id: &NodeId| {
            let node = charter.node(*id).filter(|node| charter.group(self.shard).contains(&node.id));
            node.is_some_and(|node| note.verify_cosignature(&node.name, &node.sign).is_ok())
        };
        let others = charter.group(self.shard).iter().filter(|id| **id != self.of);
        if !signed(&stated, &self.of) || !others.into_iter().any(|id| signed(&log, id)) {
            return Err(EvidenceError::OtherSigner);
        }
        if self.prefix == self.stated.root {
            return Err(EvidenceError::Consistent);
        }
        let (old, new) = ((self.stated.size, &self.prefix), (self.log.size, &self.log.root));
        Ok(merkle::verify_consistency(old, new, &self.proof)?)
    }

    fn note(&self, side: &Side, charter: &VerifiedCharter) -> Result<Note, EvidenceError> {
        let note = side.note.as_deref().ok_or(EvidenceError::Unsigned)?;
        let note = Note::parse(note).map_err(CheckpointError::from)?;
        let says = Checkpoint {
            origin: charter.origin(self.shard, self.incarnation),
            size: side.size,
            root: side.root,
            charter_version: self.charter_version,
        };
        if Checkpoint::parse(&note)? != says || self.charter_version != charter.version() {
            return Err(EvidenceError::OtherStatement);
        }
        Ok(note)
    }
}

/// Where evidence goes. Called by the checkpointer's thread, which waits.
pub trait EvidenceSink: Send {
    /// It was found. Of each node and shard at most once while the program runs.
    fn found(&mut self, evidence: Evidence);
}

/// Says in the log that there is some.
#[derive(Debug, Clone, Copy, Default)]
pub struct Logged;

impl EvidenceSink for Logged {
    fn found(&mut self, evidence: Evidence) {
        let Evidence { shard, of, stated, log, .. } = &evidence;
        tracing::error!(
            shard, node = %of, stated = stated.size, log = log.size,
            "a node cosigned a log that contradicts this one; its members have to find out which of the two was rewritten"
        );
    }
}
