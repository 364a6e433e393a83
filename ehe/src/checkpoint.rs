//! Checkpoints (C2SP tlog-checkpoint): a shard's log as size and root, signed by its ordering party and cosigned by the
//! other nodes of its group (SPEC 10).
//!
//! ```text
//! <origin>
//! <size, decimal>
//! <root, base64>
//! charter <version, decimal>
//!
//! — <origin> <ordering party's Ed25519 signature>
//! — <node's name> <cosignature/v1>        one for each cosigner, the ordering party too
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::charter::VerifiedCharter;
use crate::id::{AllianceId, Hash, MemberId, NodeId, hex};
use crate::note::{Note, NoteError};
use crate::run::SeenCheckpoint;
use crate::sign::SignKey;
use crate::time::UnixMs;

/// The origin line of a shard's log: `ehe/<first 32 hex digits of the alliance id>/<shard>/<incarnation>`.
///
/// C2SP tlog-checkpoint asks for a unique, schema-less URL. 128 bits of the alliance id make it unique without a domain
/// that somebody would have to own; shard and incarnation are decimal. At most 52 bytes.
pub fn log_origin(alliance: AllianceId, shard: u16, incarnation: u32) -> String {
    format!("ehe/{}/{shard}/{incarnation}", hex(alliance.0.get(..16).unwrap_or_default()))
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names alliance, shard and incarnation of the log.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// Merkle root.
    pub root: Hash,
    /// The charter whose members count for the quorum.
    pub charter_version: u32,
}

/// Why a checkpoint is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a signed note.
    #[error("checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The text is not a checkpoint's.
    #[error("the checkpoint's text is not origin, size, root and charter version")]
    Shape,
    /// Of another log than the shard's.
    #[error("the checkpoint is of another log ({0})")]
    OtherLog(String),
    /// Under a charter that is not the one at hand: fetch the newer one.
    #[error("the checkpoint is under charter {0}")]
    OtherCharter(u32),
    /// Nobody who may order the shard has signed it.
    #[error("no node of the shard's group has signed the checkpoint as its ordering party")]
    NoOrderingParty,
    /// Too few members have cosigned.
    #[error("{found} of the {needed} members that are needed have cosigned the checkpoint")]
    Quorum {
        /// Members needed.
        needed: usize,
        /// Members whose cosignature verifies.
        found: usize,
    },
}

/// A signing node: its name in notes and its key.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    /// Name of the node as the charter has it.
    pub name: &'a str,
    /// Its signing key.
    pub key: &'a SignKey,
}

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\ncharter {}\n", self.origin, self.size, STANDARD.encode(self.root.0), self.charter_version)
    }

    /// The note that nobody has signed yet.
    pub fn unsigned(&self) -> Result<Note, NoteError> {
        Note::new(self.text())
    }

    /// Signs as the ordering party and cosigns as the node that it is.
    pub fn sign(&self, ordering_party: Signer<'_>, now: UnixMs) -> Result<Note, NoteError> {
        let mut note = self.unsigned()?;
        note.sign(&self.origin, ordering_party.key);
        note.cosign(ordering_party.name, ordering_party.key, now.0 / 1000);
        Ok(note)
    }

    /// What runs and requests say of a checkpoint that their author verified.
    pub fn seen(&self) -> SeenCheckpoint {
        SeenCheckpoint { origin: self.origin.clone(), size: self.size, root: self.root }
    }

    /// Reads the text of a note.
    pub fn parse(note: &Note) -> Result<Self, CheckpointError> {
        let mut lines = note.text().lines();
        let mut next = || lines.next().ok_or(CheckpointError::Shape);
        let (origin, size, root, charter) = (next()?, next()?, next()?, next()?);
        let root = STANDARD.decode(root).ok().and_then(|r| r.try_into().ok()).ok_or(CheckpointError::Shape)?;
        let charter = charter.strip_prefix("charter ").ok_or(CheckpointError::Shape)?;
        let parsed = Self {
            origin: origin.into(),
            size: size.parse().map_err(|_| CheckpointError::Shape)?,
            root: Hash(root),
            charter_version: charter.parse().map_err(|_| CheckpointError::Shape)?,
        };
        // One text for each checkpoint: no leading zeros, no further lines.
        if parsed.text() == note.text() { Ok(parsed) } else { Err(CheckpointError::Shape) }
    }
}

/// A checkpoint that a node of the shard's group signed and a quorum of its members cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    note: String,
    ordering_party: NodeId,
    cosigners: Vec<(NodeId, UnixMs)>,
}

impl VerifiedCheckpoint {
    /// The charter that a note names, for finding it. Nothing is verified.
    pub fn charter_of(note: &str) -> Result<u32, CheckpointError> {
        Ok(Checkpoint::parse(&Note::parse(note)?)?.charter_version)
    }

    /// Verifies a note as a checkpoint of a shard under a charter.
    pub fn verify(note: &str, shard: u16, charter: &VerifiedCharter) -> Result<Self, CheckpointError> {
        let parsed = Note::parse(note)?;
        let checkpoint = Checkpoint::parse(&parsed)?;
        if checkpoint.charter_version != charter.version() {
            return Err(CheckpointError::OtherCharter(checkpoint.charter_version));
        }
        // Any incarnation: which one counts is the reader's memory and the recovery record's affair.
        if !charter.is_origin_of(&checkpoint.origin, shard) {
            return Err(CheckpointError::OtherLog(checkpoint.origin));
        }
        let mut ordering_party = None;
        let mut cosigners = Vec::new();
        let mut members: Vec<MemberId> = Vec::new();
        for node in charter.group(shard).iter().filter_map(|id| charter.node(*id)) {
            if ordering_party.is_none() && parsed.verify(&checkpoint.origin, &node.sign).is_ok() {
                ordering_party = Some(node.id);
            }
            if let Ok(time_s) = parsed.verify_cosignature(&node.name, &node.sign) {
                cosigners.push((node.id, UnixMs(time_s.saturating_mul(1000))));
                if !members.contains(&node.member) {
                    members.push(node.member);
                }
            }
        }
        let ordering_party = ordering_party.ok_or(CheckpointError::NoOrderingParty)?;
        let (needed, found) = (charter.quorum(shard), members.len());
        if found < needed {
            return Err(CheckpointError::Quorum { needed, found });
        }
        Ok(Self { checkpoint, note: note.into(), ordering_party, cosigners })
    }

    /// What it says.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note, for keeping and showing.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Who ordered.
    pub fn ordering_party(&self) -> NodeId {
        self.ordering_party
    }

    /// Who cosigned, and when (to the second).
    pub fn cosigners(&self) -> &[(NodeId, UnixMs)] {
        &self.cosigners
    }
}
