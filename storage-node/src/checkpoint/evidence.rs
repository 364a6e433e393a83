//! What the core finds: a node's statement about a log, and the log that contradicts it. As what anybody can judge who has the charters it
//! is [`ehe::evidence`].

use ehe::evidence::{Contradiction, EvidenceError};
use ehe::id::{Hash, NodeId};

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
    /// The log as it is: at least as large. Its note has the same node's signature, if this node has one of it there.
    pub log: Side,
    /// The root of the log's first `stated.size` leaves: another than the stated one.
    pub prefix: Hash,
    /// Proof that `log` extends `prefix` (RFC 9162 §2.1.4).
    pub proof: Vec<Hash>,
}

impl Evidence {
    /// As others judge it. `None` where a side has no signature: then there is nothing to show.
    pub fn contradiction(&self) -> Option<Result<Contradiction, EvidenceError>> {
        let (stated, log) = (self.stated.note.as_deref()?, self.log.note.as_deref()?);
        let prefix = (self.stated.size != self.log.size).then(|| (self.prefix, self.proof.clone()));
        Some(Contradiction::of(stated, log, prefix))
    }
}

/// Where evidence goes. Called by the checkpointer's thread, which waits.
pub trait EvidenceSink: Send {
    /// It was found. Of each node and shard at most twice while the program runs: what contradicts this log, and, if the node
    /// signed this log too, both with its signature.
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
