//! Backups, and what is begun again from them.
//!
//! ```text
//!  node     shard ── one moment's view, in chunks ──► serve ── a socket in the data directory ─┐     while it serves
//!  ehe-node backup                  save: keeps the chunks that the backup before lacks ◄──────┘ ──► file, synced, then named
//!  ehe-node restore --propose       chain: every hash, signature, proof and root of it ──► records, which members sign
//!  ehe-node restore --record        restore: staged beside, every entry held against its leaf, then named
//! ```
//!
//! A backup holds what a node's shard files hold, which is ciphertext and what nodes must judge; no key is in it. Its bytes:
//!
//! ```text
//! "ehe-backup" ‖ version (4)
//! piece:  kind (1) ‖ length (4) ‖ that many bytes          numbers big-endian; the kinds are [`piece::Kind`]'s
//!         begin, charters, { chunk …, manifest …, shard } for each shard, end: SHA-256 of all before it
//! ```
//!
//! A *chunk* is some rows of a shard (`shard/chunks.rs`), known by its SHA-256; the *manifest* names all chunks of the shard's state in
//! their order, those too that lie in an earlier file. *shard* is the node's signed [`Statement`], and what proves it: a checkpoint that
//! a quorum cosigned, which the state is a beginning of.

pub mod chain;
pub mod command;
mod piece;
mod rehearse;
pub mod restore;
mod save;
mod serve;

use std::io;
use std::path::PathBuf;

use ehe::cbor::CborError;
use ehe::charter::CharterError;
use ehe::checkpoint::CheckpointError;
use ehe::id::{AllianceId, Hash, NodeId};
use ehe::restoration::RestorationError;
use ehe::sign::SignedError;
use ehe::time::UnixMs;
use minicbor::{Decode, Encode};

pub use chain::Chain;
pub use rehearse::rehearse;
pub use save::{Saved, save};
pub use serve::{Backups, SOCKET};

use crate::consensus::OpenError;
use crate::cosign::CosignError;
use crate::shard::StoreError;

/// What a node signs of a shard in a backup (COSE_Sign1, [`ehe::cose::Domain::Backup`]).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Statement {
    /// The alliance.
    #[n(0)]
    pub alliance: AllianceId,
    /// The shard.
    #[n(1)]
    pub shard: u16,
    /// Incarnation of its log.
    #[n(2)]
    pub incarnation: u32,
    /// Leaves.
    #[n(3)]
    pub leaves: u64,
    /// Root.
    #[n(4)]
    pub root: Hash,
    /// SHA-256 of the hashes of all chunks, in order.
    #[n(5)]
    pub state: Hash,
    /// Rows in these.
    #[n(6)]
    pub rows: u64,
    /// The ledger's time.
    #[n(7)]
    pub time: UnixMs,
    /// The node's time.
    #[n(8)]
    pub at: UnixMs,
    /// The node.
    #[n(9)]
    pub node: NodeId,
    /// Version of the charter by which the shard's nodes hold it.
    #[n(10)]
    pub holders: u32,
}

/// Why there is no backup, or nothing is restored. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file, or the directory that it is in.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// No node answers at the data directory's socket.
    #[error(
        "no node answers at {}: {source}. A backup is taken from a node that runs: start it, or name the configuration that it runs with",
        .path.display()
    )]
    NoNode {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The node says that it cannot.
    #[error("the node makes no backup: {0}")]
    Node(String),
    /// What the node sends breaks off.
    #[error("the backup broke off: {0}; nothing of it was kept, take it again")]
    BrokeOff(#[source] io::Error),
    /// The name is taken.
    #[error("{} is there already, and a backup is never written over: name another file", .0.display())]
    Exists(PathBuf),
    /// A file is no backup, or not whole.
    #[error("{}: {why}; this backup cannot be relied on", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Files do not make one backup.
    #[error("{}: {why}; name all files of one backup, the full one first and each later one behind the one that it was taken since", .path.display())]
    NotAChain {
        /// The file that does not follow.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// What is in a backup does not verify.
    #[error("shard {shard} in the backup: {why}")]
    Unproven {
        /// The shard.
        shard: u16,
        /// What does not.
        why: Unproven,
    },
    /// The charters in a backup, or beside a record.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// The charters in a backup are not those of the credentials.
    #[error(transparent)]
    Charters(#[from] crate::charters::CharterFault),
    /// A record.
    #[error(transparent)]
    Restoration(#[from] RestorationError),
    /// Of another alliance.
    #[error("the backup is of alliance {found}, the credentials are of {expected}")]
    OtherAlliance {
        /// The backup's.
        found: AllianceId,
        /// The one here.
        expected: AllianceId,
    },
    /// A shard of this node is not there.
    #[error(
        "the backup does not hold shard {0}, which the charter places on this node: use one of a node that holds it"
    )]
    NoShard(u16),
    /// No record, or another one, for a shard of this node.
    #[error(
        "no record in the file is for shard {shard} as the backup has it ({why}): propose one from this backup, or use the backup that was signed for"
    )]
    NoRecord {
        /// The shard.
        shard: u16,
        /// What differs.
        why: &'static str,
    },
    /// There is a state already.
    #[error(
        "{} holds a node's state ({found}): a restore goes onto a bare disk only. A node that lost its disk while others of its groups live is not \
         restored: give it a new id and start it empty, and they send it everything",
        .path.display()
    )]
    NotBare {
        /// The data directory.
        path: PathBuf,
        /// What lies there.
        found: String,
    },
    /// A shard's file.
    #[error("shard {shard}: {source}")]
    Store {
        /// The shard.
        shard: u16,
        /// What is wrong.
        #[source]
        source: StoreError,
    },
    /// The log.
    #[error(transparent)]
    Consensus(#[from] OpenError),
    /// The file of cosigned checkpoints.
    #[error(transparent)]
    Cosign(#[from] CosignError),
    /// A thread ended.
    #[error("the work did not come to an end")]
    Interrupted,
}

/// What of a shard in a backup does not verify.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// The node's signature.
    #[error("what the node signed of it: {0}")]
    Signature(#[from] SignedError),
    /// The statement.
    #[error("what the node signed of it: {0}")]
    Statement(#[from] CborError),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Anything else.
    #[error("{0}")]
    Other(&'static str),
}

impl BackupError {
    /// Whether it says that a backup is not what it should be, and not that it could not be looked at.
    pub fn is_found(&self) -> bool {
        let damaged = |error: &StoreError| matches!(error, StoreError::Corrupt(_) | StoreError::Stream(_));
        match self {
            Self::Damaged { .. } | Self::Unproven { .. } | Self::Charter(_) => true,
            Self::Store { source, .. } => damaged(source),
            _ => false,
        }
    }

    fn file(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
