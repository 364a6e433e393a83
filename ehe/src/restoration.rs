//! A log that was restored from a backup: what a majority of the alliance's members signed about what was kept of it and what
//! was lost (SPEC 10, N).
//!
//! A restored log is another one: it has the next incarnation in its origin. Who remembers the lost one follows the records from
//! there, and learns which of the leaves that it saw are gone.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::cbor::{self, CborError};
use crate::charter::VerifiedCharter;
use crate::checkpoint::{Checkpoint, CheckpointError, VerifiedCheckpoint, log_origin};
use crate::cose::{self, Domain};
use crate::id::{AllianceId, AuthorId, Hash};
use crate::identity::Identity;
use crate::limits::{MEMBERS_MAX, PROOF_HASHES_MAX, RESTORATION_MAX_BYTES};
use crate::merkle::{Peaks, verify_consistency};
use crate::run::SeenCheckpoint;
use crate::sign::SignedError;
use crate::time::UnixMs;

/// A COSE_Sign1 over a hash; ours has 136 bytes.
const SIGNATURE_MAX_BYTES: usize = 256;

/// What was kept of a shard's log. Nobody has verified it yet; see [`VerifiedRestoration`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Restoration {
    /// The alliance.
    #[n(0)]
    pub alliance: AllianceId,
    /// The shard.
    #[n(1)]
    pub shard: u16,
    /// Incarnation of the log that was lost. The restored one has the next.
    #[n(2)]
    pub incarnation: u32,
    /// Leaves that were kept, from the first on.
    #[n(3)]
    pub kept: u64,
    /// Merkle root of these.
    #[n(4)]
    pub root: Hash,
    /// Proof that `checkpoint` is of a log that begins with them; empty where it is of just them.
    #[n(5)]
    pub proof: Vec<Hash>,
    /// A checkpoint of the lost log, with its quorum. Absent only where nothing was kept.
    #[n(6)]
    pub checkpoint: Option<String>,
    /// The newest checkpoint that is known of the lost log, where that is a greater one.
    #[n(7)]
    pub newest: Option<String>,
    /// The ledger's time in what was kept: what was accepted later is lost.
    #[n(8)]
    pub kept_until: UnixMs,
    /// What the nodes begin with, as they compute it: by this the nodes of a group know that they restored the same.
    #[n(9)]
    pub state: Hash,
    /// The charter by whose members it is signed.
    #[n(10)]
    pub charter_version: u32,
    /// When it was made.
    #[n(11)]
    pub at: UnixMs,
}

/// Why a restoration is not accepted. Whoever wrote or sent it is at fault, unless the text says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestorationError {
    /// Not the deterministic encoding of one.
    #[error("not a record of a restored log: {0}")]
    Cbor(#[from] CborError),
    /// More signatures or hashes than there may be.
    #[error("record of a restored log: {what} is {found}, at most {most} are allowed")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The count found.
        found: usize,
        /// Most allowed.
        most: usize,
    },
    /// Of another alliance.
    #[error("record of a restored log: it is of another alliance")]
    OtherAlliance,
    /// Of a shard that there is not, or of another one than was asked for.
    #[error("record of a restored log: it is of shard {0}")]
    OtherShard(u16),
    /// There is no incarnation after this one.
    #[error("record of a restored log: incarnation {0} has none after it")]
    LastIncarnation(u32),
    /// It names a charter that is not at hand: fetch the newer ones.
    #[error("record of a restored log: charter {0} is not at hand; fetch the charters")]
    UnknownCharter(u32),
    /// It was signed under an older charter than one of its checkpoints.
    #[error(
        "record of a restored log: it is signed under charter {signed}, and brings a checkpoint under charter {found}"
    )]
    OlderCharter {
        /// The charter by whose members it is signed.
        signed: u32,
        /// The checkpoint's.
        found: u32,
    },
    /// Something was kept, and no checkpoint is there to prove it.
    #[error("record of a restored log: no checkpoint proves the {0} leaves that were kept")]
    Unproven(u64),
    /// A checkpoint does not stand.
    #[error("record of a restored log: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint is of another incarnation than the lost log's.
    #[error("record of a restored log: it brings a checkpoint of {0}")]
    OtherLog(String),
    /// What was kept is not the beginning of the log that the checkpoint is of.
    #[error("record of a restored log: what was kept is not the beginning of the log that the checkpoint vouches for")]
    NotTheBeginning,
    /// The newest known checkpoint is not greater than the other.
    #[error("record of a restored log: the newest known checkpoint has {newest} leaves, the other one {checkpoint}")]
    NotNewer {
        /// Leaves of the one that proves.
        checkpoint: u64,
        /// Leaves of the newest.
        newest: u64,
    },
    /// A signature is malformed or does not verify.
    #[error("record of a restored log: a signature is not accepted: {0}")]
    Signature(#[from] SignedError),
    /// Somebody signed who is no member.
    #[error("record of a restored log: signed by {0}, who is no member")]
    Stranger(AuthorId),
    /// Too few members signed.
    #[error("record of a restored log: signed by {signed} of the {needed} members that are needed")]
    Quorum {
        /// Members that signed.
        signed: usize,
        /// Members needed.
        needed: usize,
    },
}

/// A restoration as it travels: its bytes, and COSE_Sign1 structures (domain [`Domain::Restoration`]) over their SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRestoration {
    restoration: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    restoration: ByteVec,
    #[n(1)]
    signatures: Vec<ByteVec>,
}

impl SignedRestoration {
    /// One that nobody has signed yet.
    pub fn unsigned(restoration: &Restoration) -> Self {
        Self { restoration: cbor::to_vec(restoration), signatures: Vec::new() }
    }

    /// Adds a member's signature. Signing twice changes nothing. Whether the signer is a member shows when verifying.
    pub fn sign(&mut self, member: &Identity) -> Result<(), RestorationError> {
        let signature = cose::sign(member, Domain::Restoration, self.hash().0.to_vec());
        // Ed25519 is deterministic: the same member signs the same bytes.
        if self.signatures.contains(&signature) {
            return Ok(());
        }
        if self.signatures.len() >= MEMBERS_MAX {
            return Err(too_many_signatures(self.signatures.len() + 1));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// SHA-256 of the restoration's bytes: what is signed.
    pub fn hash(&self) -> Hash {
        Hash(Sha256::digest(&self.restoration).into())
    }

    /// The restoration, as somebody wrote it: well-formed, not verified. For showing it.
    pub fn read(&self) -> Result<Restoration, RestorationError> {
        let restoration: Restoration = cbor::from_slice(&self.restoration, RESTORATION_MAX_BYTES)?;
        let found = restoration.proof.len();
        if found > PROOF_HASHES_MAX {
            let what = "the number of hashes in the proof";
            return Err(RestorationError::Limit { what, found, most: PROOF_HASHES_MAX });
        }
        Ok(restoration)
    }

    /// Who claims to have signed.
    pub fn signers(&self) -> Result<Vec<AuthorId>, RestorationError> {
        Ok(self.decoded_signatures()?.iter().map(cose::Unverified::signer).collect())
    }

    /// Encodes.
    pub fn encode(&self) -> Vec<u8> {
        let signatures = self.signatures.iter().cloned().map(ByteVec::from).collect();
        cbor::to_vec(&Wire { restoration: self.restoration.clone().into(), signatures })
    }

    /// Decodes at most [`RESTORATION_MAX_BYTES`], without judging the restoration.
    pub fn decode(bytes: &[u8]) -> Result<Self, RestorationError> {
        let wire: Wire = cbor::from_slice(bytes, RESTORATION_MAX_BYTES)?;
        if wire.signatures.len() > MEMBERS_MAX {
            return Err(too_many_signatures(wire.signatures.len()));
        }
        let signatures = wire.signatures.into_iter().map(Vec::from).collect();
        Ok(Self { restoration: wire.restoration.into(), signatures })
    }

    /// Verifies all but the members' signatures: what each of them is to look at before it signs, and a node before it proposes.
    /// What it says, and how many leaves the lost log is known to have had.
    pub fn sound(&self, charters: &[VerifiedCharter]) -> Result<(Restoration, u64), RestorationError> {
        self.judged(charters).map(|(restoration, _, known)| (restoration, known))
    }

    /// Verifies: it is of this alliance and shard, its checkpoints prove what it says, and a majority of the members signed it.
    /// `charters` are those of the alliance, from version 1 on (`CharterChain::verify_each`).
    pub fn verify(&self, shard: u16, charters: &[VerifiedCharter]) -> Result<VerifiedRestoration, RestorationError> {
        let (restoration, next, known) = self.judged(charters)?;
        if restoration.shard != shard {
            return Err(RestorationError::OtherShard(restoration.shard));
        }
        let charter = of_version(charters, restoration.charter_version)?;
        let mut signed: Vec<AuthorId> = Vec::new();
        for signature in self.decoded_signatures()? {
            let signer = signature.signer();
            let member = charter.members().iter().find(|member| member.identity.author_id() == signer);
            let member = member.ok_or(RestorationError::Stranger(signer))?;
            signature.verify(Domain::Restoration, &member.identity.sign)?;
            if signature.payload() != self.hash().as_bytes() {
                return Err(SignedError::Limit("the signature is for another record").into());
            }
            if !signed.contains(&signer) {
                signed.push(signer);
            }
        }
        let needed = charter.members().len() / 2 + 1;
        if signed.len() < needed {
            return Err(RestorationError::Quorum { signed: signed.len(), needed });
        }
        Ok(VerifiedRestoration { restoration, next, known })
    }

    /// N1 to N3: the restoration, the incarnation that it begins, and the leaves that the lost log is known to have had.
    fn judged(&self, charters: &[VerifiedCharter]) -> Result<(Restoration, u32, u64), RestorationError> {
        let restoration = self.read()?;
        let Restoration { shard, incarnation, charter_version, .. } = restoration;
        let charter = of_version(charters, charter_version)?;
        if restoration.alliance != charter.alliance_id() {
            return Err(RestorationError::OtherAlliance);
        }
        if charter.group(shard).is_empty() {
            return Err(RestorationError::OtherShard(shard));
        }
        let next = incarnation.checked_add(1).ok_or(RestorationError::LastIncarnation(incarnation))?;
        let stands = |note: &String| restoration.checkpoint_of(note, charters);
        let checkpoint = restoration.checkpoint.as_ref().map(stands).transpose()?;
        let known = match &checkpoint {
            None if restoration.kept != 0
                || restoration.root != Peaks::default().root()
                || !restoration.proof.is_empty() =>
            {
                return Err(RestorationError::Unproven(restoration.kept));
            }
            None => 0,
            Some(checkpoint) => {
                let (kept, of) = ((restoration.kept, &restoration.root), (checkpoint.size, &checkpoint.root));
                verify_consistency(kept, of, &restoration.proof).map_err(|_| RestorationError::NotTheBeginning)?;
                checkpoint.size
            }
        };
        let newest = restoration.newest.as_ref().map(stands).transpose()?;
        match newest {
            Some(Checkpoint { size, .. }) if size <= known => {
                Err(RestorationError::NotNewer { checkpoint: known, newest: size })
            }
            newest => Ok((restoration, next, newest.map_or(known, |newest| newest.size))),
        }
    }

    fn decoded_signatures(&self) -> Result<Vec<cose::Unverified>, RestorationError> {
        let decode = |bytes: &Vec<u8>| cose::Unverified::decode(bytes, SIGNATURE_MAX_BYTES);
        Ok(self.signatures.iter().map(decode).collect::<Result<_, _>>()?)
    }
}

/// Records, as a file or a node keeps them: an array of byte strings.
pub fn encode_all(records: &[SignedRestoration]) -> Vec<u8> {
    let records: Vec<ByteVec> = records.iter().map(|record| record.encode().into()).collect();
    cbor::to_vec(&records)
}

/// See [`encode_all`]; at most `limit` bytes.
pub fn decode_all(bytes: &[u8], limit: usize) -> Result<Vec<SignedRestoration>, RestorationError> {
    let records: Vec<ByteVec> = cbor::from_slice(bytes, limit)?;
    records.iter().map(|record| SignedRestoration::decode(record)).collect()
}

impl Restoration {
    /// A checkpoint of the lost log, if this note is one that stands.
    fn checkpoint_of(&self, note: &str, charters: &[VerifiedCharter]) -> Result<Checkpoint, RestorationError> {
        let said = VerifiedCheckpoint::charter_of(note)?;
        let charter = of_version(charters, said)?;
        if said > self.charter_version {
            return Err(RestorationError::OlderCharter { signed: self.charter_version, found: said });
        }
        let checkpoint = VerifiedCheckpoint::verify(note, self.shard, charter)?.checkpoint().clone();
        if checkpoint.origin != log_origin(self.alliance, self.shard, self.incarnation) {
            return Err(RestorationError::OtherLog(checkpoint.origin));
        }
        Ok(checkpoint)
    }
}

fn of_version(charters: &[VerifiedCharter], version: u32) -> Result<&VerifiedCharter, RestorationError> {
    charters.iter().find(|charter| charter.version() == version).ok_or(RestorationError::UnknownCharter(version))
}

fn too_many_signatures(found: usize) -> RestorationError {
    RestorationError::Limit { what: "the number of signatures", found, most: MEMBERS_MAX }
}

/// A restoration that a majority of the members signed, and whose checkpoints prove it. Only [`SignedRestoration::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRestoration {
    restoration: Restoration,
    next: u32,
    known: u64,
}

impl VerifiedRestoration {
    /// What it says.
    pub fn restoration(&self) -> &Restoration {
        &self.restoration
    }

    /// The incarnation that begins with what was kept.
    pub fn incarnation(&self) -> u32 {
        self.next
    }

    /// The origin of the restored log.
    pub fn origin(&self) -> String {
        log_origin(self.restoration.alliance, self.restoration.shard, self.next)
    }

    /// Leaves that the lost log is known to have had; what lies beyond [`Restoration::kept`] is lost.
    pub fn known(&self) -> u64 {
        self.known
    }
}

/// Leaves that somebody saw and that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Incarnation of the log that had them.
    pub incarnation: u32,
    /// The first of them.
    pub from: u64,
    /// The first that was not seen any more.
    pub until: u64,
    /// The ledger's time up to which everything was kept.
    pub kept_until: UnixMs,
    /// When the restoration was decided.
    pub at: UnixMs,
}

/// What becomes of a remembered checkpoint by restorations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// How much of what was remembered is in the restored log, by the origin of that.
    pub kept: SeenCheckpoint,
    /// What was remembered and is lost, restoration by restoration.
    pub lost: Vec<Lost>,
    /// What the restored log begins with.
    begins: SeenCheckpoint,
}

impl Moved {
    /// Whether a checkpoint is of the log that is to be shown now (N5, N6).
    pub fn shows(&self, shown: &SeenCheckpoint) -> Result<(), MovedError> {
        let begins = &self.begins;
        if shown.origin != begins.origin {
            return Err(MovedError::OtherLog { shown: shown.origin.clone(), restored: begins.origin.clone() });
        }
        if shown.size < begins.size || (shown.size == begins.size && shown.root != begins.root) {
            return Err(MovedError::NotKept { kept: begins.size, shown: shown.size });
        }
        Ok(())
    }
}

/// Why records do not lead from what is remembered to what is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MovedError {
    /// A record is missing: the log was said to be restored, and nobody shows by whom and how much of it was kept.
    #[error(
        "no record says how incarnation {incarnation} of the log ended; whoever shows another one has to show that it was signed"
    )]
    Missing {
        /// The incarnation whose end is not shown.
        incarnation: u32,
    },
    /// The records do not follow each other.
    #[error("the records of the restored log do not follow each other at incarnation {incarnation}")]
    OutOfOrder {
        /// Where.
        incarnation: u32,
    },
    /// Members of a charter that the log had left behind signed it: some of them may be members no more.
    #[error(
        "the record that says what was kept of the log was signed under charter {signed}; the log was seen under charter {seen}, and its \
         members have to sign"
    )]
    EarlierCharter {
        /// Version under which it was signed.
        signed: u32,
        /// Version under which the log was seen.
        seen: u32,
    },
    /// It has another root at a size that was remembered.
    #[error(
        "the {size} leaves that were kept of incarnation {incarnation} are not those that were seen: the ledger was rewritten"
    )]
    Rewritten {
        /// Incarnation of the log.
        incarnation: u32,
        /// Leaves.
        size: u64,
    },
    /// The log that is shown is not the one that the records lead to.
    #[error("the log is {shown}, and the records of what was restored lead to {restored}")]
    OtherLog {
        /// Origin that is shown.
        shown: String,
        /// Origin that was restored last.
        restored: String,
    },
    /// The log that is shown does not begin with what was kept.
    #[error("the restored log of {shown} leaves does not begin with the {kept} that its record says were kept")]
    NotKept {
        /// Leaves kept.
        kept: u64,
        /// Leaves shown.
        shown: u64,
    },
}

/// Follows records from a checkpoint of incarnation `from` that is remembered, and stood under the charter of version `under`, on (N5, N6).
/// [`Moved::shows`] then judges what is shown.
pub fn moved(
    records: &[VerifiedRestoration],
    from: u32,
    (remembered, under): (&SeenCheckpoint, u32),
) -> Result<Moved, MovedError> {
    let (mut at, mut lost) = (from, Vec::new());
    let mut kept = remembered.clone();
    let mut before: Option<&VerifiedRestoration> = None;
    for record in records {
        let restoration = record.restoration();
        let Restoration { incarnation, kept: size, root, kept_until, at: made, charter_version, .. } = *restoration;
        if before.is_none() && charter_version < under {
            return Err(MovedError::EarlierCharter { signed: charter_version, seen: under });
        }
        let follows = before.map(VerifiedRestoration::restoration);
        let follows = follows.is_none_or(|before| before.charter_version <= charter_version && before.at <= made);
        if incarnation != at || !follows {
            return Err(MovedError::OutOfOrder { incarnation });
        }
        if kept.size == size && kept.root != root {
            return Err(MovedError::Rewritten { incarnation, size });
        }
        if kept.size > size {
            lost.push(Lost { incarnation, from: size, until: kept.size, kept_until, at: made });
            (kept.size, kept.root) = (size, root);
        }
        (at, kept.origin, before) = (record.incarnation(), record.origin(), Some(record));
    }
    let last = before.ok_or(MovedError::Missing { incarnation: from })?;
    let Restoration { kept: size, root, .. } = *last.restoration();
    Ok(Moved { begins: SeenCheckpoint { origin: last.origin(), size, root }, kept, lost })
}
