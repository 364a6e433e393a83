//! What clients wrote down while faults went on, and what replicas show when all is healed. Times are milliseconds on the clock of the
//! writing process, which no fault touches: monotonic for what is compared with each other, Unix for what the ledger says.

use std::collections::{BTreeMap, BTreeSet};

use ehe::id::{AuthorId, EheId, Hash, NodeId, Nonce, RoomId, StrandId};
use ehe::time::UnixMs;
use serde::Serialize;

/// A run that a writer is about to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// The room.
    pub room: RoomId,
    /// SHA-256 of the signed run.
    pub run: Hash,
    /// Its events.
    pub events: Vec<EheId>,
    /// False: its signature is not its author's. Nobody may take it.
    pub genuine: bool,
}

/// A receipt that the writer verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Received {
    /// The room.
    pub room: RoomId,
    /// The run.
    pub run: Hash,
    /// Its place in the room.
    pub index: u64,
    /// The ledger's time.
    pub accepted_at: UnixMs,
    /// When the run was first sent, Unix.
    pub sent_at: UnixMs,
    /// When the receipt came, Unix.
    pub got_at: UnixMs,
}

/// A checkpoint that somebody was shown, verified: a quorum's signatures are under it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Shown {
    /// The log.
    pub origin: String,
    /// Its leaves.
    pub size: u64,
    /// Their root.
    pub root: Hash,
}

/// The patient let a reader in, or ended that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Right {
    /// The room.
    pub room: RoomId,
    /// The reader.
    pub reader: AuthorId,
    /// True: from here on the reader may read. False: no more.
    pub granted: bool,
    /// Place of the patient's run in the room.
    pub index: u64,
    /// When it was first sent.
    pub sent_ms: u64,
    /// When its receipt came.
    pub got_ms: u64,
}

/// What came of a read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// Refused, and why.
    Refused(String),
    /// Content was handed out.
    Served {
        /// Places in the room of the first and the last entry that came with content.
        first: u64,
        /// See `first`.
        last: u64,
        /// Place in the room of the last entry that the first head names, which ends what was there. None: the answer broke off before.
        head: Option<u64>,
    },
    /// An answer without content, to its end.
    Nothing,
    /// No answer, or none to its end, and no content.
    Failed,
}

/// A reader's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Read {
    /// The room.
    pub room: RoomId,
    /// The reader.
    pub reader: AuthorId,
    /// Of the request: unique.
    pub nonce: Nonce,
    /// Whom it asked last.
    pub node: NodeId,
    /// When it was sent.
    pub sent_ms: u64,
    /// When its answer ended.
    pub ended_ms: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a client saw that is wrong by itself, whatever others saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// Who saw it.
    pub who: String,
    /// What.
    pub what: String,
}

/// Everything that clients wrote down.
#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    /// Runs.
    pub sent: Vec<Sent>,
    /// Receipts.
    pub received: Vec<Received>,
    /// Checkpoints, each once.
    pub shown: BTreeSet<Shown>,
    /// Grants and revocations, in the order of their receipts.
    pub rights: Vec<Right>,
    /// Reads.
    pub reads: Vec<Read>,
    /// What was wrong at once: a receipt that does not verify.
    pub wrong: Vec<Wrong>,
}

/// What an entry of a room is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Entry {
    /// A run.
    Run {
        /// SHA-256 of the signed run.
        run: Hash,
        /// Its author.
        author: AuthorId,
        /// Its strand.
        strand: StrandId,
        /// Its first event's number in the strand.
        from: u64,
        /// Its events.
        events: Vec<EheId>,
        /// Whether it brings content.
        content: bool,
    },
    /// An access record.
    Access {
        /// Who asked.
        reader: AuthorId,
        /// Of the signed request.
        nonce: Nonce,
        /// Whether it was refused.
        refused: bool,
    },
}

/// A room as one replica shows it, verified whole on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Room {
    /// From the first on.
    pub entries: Vec<(Entry, UnixMs)>,
    /// Merkle leaf hash of the last one.
    pub last: Hash,
}

/// What a replica shows when everything is healed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Replica {
    /// Rooms, or why one cannot be had or does not verify.
    pub rooms: BTreeMap<RoomId, Result<Room, String>>,
    /// Checkpoints that it showed with them.
    pub shown: BTreeSet<Shown>,
    /// Logs of other nodes that it found to contradict its own.
    pub evidence: u64,
}

/// The end.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Finals {
    /// Replicas.
    pub replicas: BTreeMap<NodeId, Replica>,
    /// Rooms that belong to writers of the history: no other runs with content are in them.
    pub own: BTreeSet<RoomId>,
    /// Bytes that each gateway's spool still holds.
    pub spooled: BTreeMap<String, u64>,
    /// What did not come back after a fault was healed.
    pub unhealed: Vec<String>,
}
