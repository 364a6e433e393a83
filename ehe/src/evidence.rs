//! Evidence (SPEC 10): two signed statements about one log that cannot both be true, with all that it takes to see it.
//!
//! ```text
//! Evidence      = {0: bytes charter chain, 1: Contradiction}
//! Contradiction = [1, text checkpoint, text checkpoint]                                    of one size, with two roots
//!               / [2, text smaller, text larger, bytes(32) prefix, [bytes(32) …] proof]    the larger log begins otherwise
//! ```
//!
//! [`judge`] believes nobody: the alliance is the hash of the first charter in the file, keys are those of its charters, and what
//! follows is arithmetic. Whose alliance that is, whoever asks has to compare ([`Verdict::alliance`]).
//!
//! Among those who have the alliance's charters only the contradiction travels, and is kept: it is small, whatever the charters take.
//! [`Contradiction::judge`] judges it by those that are here, and whoever keeps it for others puts them in again ([`Contradiction::with`]).
//!
//! # What is proven
//!
//! Nodes that keep to the rules sign beginnings of one log and of no other. So of two statements that contradict each other,
//! *everybody who signed the one, or everybody who signed the other*, broke them: whoever signed both certainly did
//! ([`Verdict::culprits`]); where nobody signed both, the file says who stands against whom and whether a quorum does
//! ([`Finding`]).
//!
//! What is none: a log of another incarnation (a restore begins one, by a recovery record of the members), another size alone, a
//! pair whose signatures do not verify under the charters that they name.

use core::borrow::Borrow;
use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use crate::cbor::{self, CborError};
use crate::charter::{CharterChain, CharterError, VerifiedCharter};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::id::{AllianceId, Hash, MemberId, NodeId};
use crate::limits::{CONTRADICTION_MAX_BYTES, EVIDENCE_MAX_BYTES};
use crate::merkle::{self, BadProof};
use crate::note::Note;
use crate::sign::VerifyKey;
use crate::time::UnixMs;

/// As it lies in a file that needs no other.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Evidence {
    /// An encoded [`CharterChain`], from charter 1 to the newest that a checkpoint names.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub charters: Vec<u8>,
    /// The two statements, and what ties them.
    #[n(1)]
    pub contradiction: Contradiction,
}

/// Two checkpoints that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Contradiction {
    /// Of one size, with two roots. The smaller root, as a number, stands first, so that a pair has one encoding.
    #[n(1)]
    Roots {
        /// A note.
        #[n(0)]
        first: String,
        /// Another.
        #[n(1)]
        second: String,
    },
    /// The log of the larger one does not begin with that of the smaller one.
    #[n(2)]
    Prefix {
        /// The note of the smaller size.
        #[n(0)]
        smaller: String,
        /// The note of the larger size.
        #[n(1)]
        larger: String,
        /// The root that the larger log's beginning of the smaller size has.
        #[n(2)]
        prefix: Hash,
        /// That it has it (RFC 9162 §2.1.4).
        #[n(3)]
        proof: Vec<Hash>,
    },
}

/// How two statements contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One size, two roots.
    Roots,
    /// The larger log begins otherwise.
    Prefix,
}

impl Kind {
    /// In two or three words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Roots => "two-roots",
            Self::Prefix => "other-prefix",
        }
    }
}

/// One of the two statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The first, or smaller.
    First,
    /// The second, or larger.
    Second,
}

impl core::fmt::Display for Which {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Second => "second",
        })
    }
}

/// Why a file is no evidence. Each says what it would have had to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Not the deterministic encoding, or too large.
    #[error("it is not well formed: {0}")]
    Form(#[from] CborError),
    /// The charters do not stand by themselves.
    #[error("its charters do not verify: {0}")]
    Charters(#[from] CharterError),
    /// A note is not a checkpoint's.
    #[error("its {which} statement is no checkpoint: {why}")]
    Statement {
        /// Which.
        which: Which,
        /// What is wrong.
        why: CheckpointError,
    },
    /// Two logs. Also where one of them was begun anew: what that kept, its recovery record says.
    #[error(
        "its statements are of two logs, {first} and {second}: another shard, alliance or incarnation is another log"
    )]
    OtherLogs {
        /// The first one's.
        first: String,
        /// The second one's.
        second: String,
    },
    /// The log is none of the alliance whose charters are in the file.
    #[error("the log {0} is none of the alliance whose charters it holds")]
    NotOfAlliance(String),
    /// A checkpoint is under a charter that the file does not hold, or that is not here.
    #[error("a checkpoint in it is under charter {0}, which is not among those by which it is to be judged")]
    NoSuchCharter(u32),
    /// The file holds charters after the newest that counts.
    #[error("it holds charter {held}, and its checkpoints name none after {named}")]
    NeedlessCharter {
        /// The newest held.
        held: u32,
        /// The newest named.
        named: u32,
    },
    /// No node of the shard's group signed a side.
    #[error("no node that holds the shard under charter {charter} has signed its {which} statement")]
    NotSigned {
        /// Which.
        which: Which,
        /// The charter that it names.
        charter: u32,
    },
    /// The sizes are not those of the kind.
    #[error("its statements are of {first} and {second} leaves, which does not fit what it claims of them")]
    Sizes {
        /// The first one's.
        first: u64,
        /// The second one's.
        second: u64,
    },
    /// Both statements can be true.
    #[error("its statements do not contradict each other")]
    Consistent,
    /// The other order of the same two.
    #[error("its two statements stand in the wrong order")]
    Order,
    /// The larger log is not shown to begin otherwise.
    #[error("it does not show how the larger log begins: {0}")]
    Proof(#[from] BadProof),
}

/// A node that signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// Its id.
    pub node: NodeId,
    /// Its name in the charter that the statement names.
    pub name: String,
    /// The key by which it signed.
    pub key: VerifyKey,
    /// Whose node it is.
    pub member: MemberId,
    /// The member's name.
    pub member_name: String,
    /// It signed as the ordering party (0x01).
    pub ordered: bool,
    /// It cosigned (0x04), and said that this was then.
    pub cosigned_at: Option<UnixMs>,
}

/// One statement, and who stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Leaves.
    pub size: u64,
    /// Root.
    pub root: Hash,
    /// The charter that it names.
    pub charter_version: u32,
    /// The nodes of the shard's group whose signatures verify, in the group's order. One at least.
    pub signers: Vec<Signer>,
    /// Members whose nodes cosigned.
    pub members: usize,
    /// Members that a checkpoint needs.
    pub needed: usize,
}

impl Side {
    /// Whether it stands as a checkpoint: ordered, and cosigned by a quorum of members.
    pub fn stands(&self) -> bool {
        self.members >= self.needed && self.signers.iter().any(|signer| signer.ordered)
    }

    fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.signers.iter().map(|signer| signer.node)
    }
}

/// What follows about the signers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Neither side stands as a checkpoint, and nobody signed both: all signers of one of them broke the rules, and the file does
    /// not say of which.
    Sides,
    /// One side stands as a checkpoint, the other does not: all signers of that one broke the rules, or all of a quorum did.
    AgainstQuorum,
    /// Both sides stand as checkpoints and nobody signed both: all of one of two quorums broke the rules.
    TwoQuorums,
    /// Somebody signed both.
    SignedBoth,
}

/// What evidence proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The alliance: SHA-256 of the first charter in the file.
    pub alliance: AllianceId,
    /// The alliance's name in the newest charter of the file. What it calls itself proves nothing.
    pub alliance_name: String,
    /// The log.
    pub origin: String,
    /// Its shard.
    pub shard: u16,
    /// Its incarnation.
    pub incarnation: u32,
    /// How the statements contradict each other.
    pub kind: Kind,
    /// The first or smaller one.
    pub first: Side,
    /// The second or larger one.
    pub second: Side,
    /// The root that the larger log has at the smaller one's size; the second one's root, where the sizes are one.
    pub prefix: Hash,
    /// The nodes that signed both, under one key: as the first side has them.
    pub culprits: Vec<Signer>,
}

impl Verdict {
    /// What follows about the signers.
    pub fn finding(&self) -> Finding {
        match (self.culprits.is_empty(), self.first.stands(), self.second.stands()) {
            (false, _, _) => Finding::SignedBoth,
            (true, true, true) => Finding::TwoQuorums,
            (true, false, false) => Finding::Sides,
            (true, _, _) => Finding::AgainstQuorum,
        }
    }

    /// The nodes that it is about: those that signed both; where nobody did, those that stand against a quorum; else all.
    pub fn accused(&self) -> BTreeSet<NodeId> {
        match (self.finding(), self.first.stands()) {
            (Finding::SignedBoth, _) => self.culprits.iter().map(|signer| signer.node).collect(),
            (Finding::AgainstQuorum, true) => self.second.nodes().collect(),
            (Finding::AgainstQuorum, false) => self.first.nodes().collect(),
            (Finding::TwoQuorums | Finding::Sides, _) => self.first.nodes().chain(self.second.nodes()).collect(),
        }
    }
}

/// What two notes say, as far as it shows without a key.
struct Said {
    notes: [Note; 2],
    first: Checkpoint,
    second: Checkpoint,
    kind: Kind,
    prefix: Hash,
}

impl Said {
    /// The later charter of the two that are named.
    fn newest(&self) -> u32 {
        self.first.charter_version.max(self.second.charter_version)
    }
}

impl Contradiction {
    /// Of two notes about one log, in any order: puts them into the form that is judged. Where their sizes differ it takes the root
    /// that the larger log has at the smaller size, and the proof of it. Whether it proves anything, [`Self::judge`] says.
    pub fn of(one: &str, other: &str, prefix: Option<(Hash, Vec<Hash>)>) -> Result<Self, EvidenceError> {
        let (first, second) = (statement(one, Which::First)?.1, statement(other, Which::Second)?.1);
        let swap = (first.size, first.root) > (second.size, second.root);
        let (smaller, larger) = if swap { (other.into(), one.into()) } else { (one.into(), other.into()) };
        if first.size == second.size {
            return Ok(Self::Roots { first: smaller, second: larger });
        }
        let (prefix, proof) = prefix.ok_or(EvidenceError::Proof(BadProof))?;
        Ok(Self::Prefix { smaller, larger, prefix, proof })
    }

    /// Encodes.
    pub fn to_vec(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Decodes at most [`CONTRADICTION_MAX_BYTES`], without judging.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        cbor::from_slice(bytes, CONTRADICTION_MAX_BYTES)
    }

    /// The two notes.
    pub fn notes(&self) -> [&str; 2] {
        match self {
            Self::Roots { first, second } => [first, second],
            Self::Prefix { smaller, larger, .. } => [smaller, larger],
        }
    }

    /// The later charter of the two that are named: up to it charters are needed to judge this. Refuses what is no contradiction, whoever
    /// signed it.
    pub fn newest_charter(&self) -> Result<u32, EvidenceError> {
        self.said().map(|said| said.newest())
    }

    /// With the charters that it takes to judge it: what everybody can judge by itself.
    pub fn with(self, charters: &CharterChain) -> Result<Evidence, EvidenceError> {
        let [one, other] = self.notes().map(|note| statement(note, Which::First));
        let newest = one?.1.charter_version.max(other?.1.charter_version);
        let kept = charters.0.iter().take(usize::try_from(newest).unwrap_or(usize::MAX));
        Ok(Evidence { charters: CharterChain(kept.cloned().collect()).encode(), contradiction: self })
    }

    /// Judges it (SPEC J2 to J6) under charters that were verified: all of one alliance, from the first on.
    pub fn judge<C: Borrow<VerifiedCharter>>(&self, charters: &[C]) -> Result<Verdict, EvidenceError> {
        let said = self.said()?;
        let newest = said.newest();
        let Said { notes: [first_note, second_note], first, second, kind, prefix } = said;
        let under = |version: u32| {
            let at = usize::try_from(version).ok().and_then(|version| version.checked_sub(1));
            let charter = at.and_then(|at| charters.get(at)).map(Borrow::borrow);
            charter.ok_or(EvidenceError::NoSuchCharter(version))
        };
        let (old, new) = (under(first.charter_version)?, under(second.charter_version)?);
        let not_of = || EvidenceError::NotOfAlliance(first.origin.clone());
        let (shard, incarnation) = place(&first.origin, old).ok_or_else(not_of)?;
        let sides = [(Which::First, &first_note, &first, old), (Which::Second, &second_note, &second, new)];
        let [first_side, second_side] =
            sides.map(|(which, note, says, charter)| side(which, note, says, shard, charter));
        let (first_side, second_side) = (first_side?, second_side?);
        let both = |signer: &&Signer| {
            second_side.signers.iter().any(|other| (other.node, other.key) == (signer.node, signer.key))
        };
        let culprits = first_side.signers.iter().filter(both).cloned().collect();
        Ok(Verdict {
            alliance: old.alliance_id(),
            alliance_name: under(newest)?.charter().alliance.clone(),
            origin: first.origin,
            shard,
            incarnation,
            kind,
            first: first_side,
            second: second_side,
            prefix,
            culprits,
        })
    }

    /// Reads the two notes, and whether they contradict each other at all.
    fn said(&self) -> Result<Said, EvidenceError> {
        let [one, other] = self.notes();
        let ((first_note, first), (second_note, second)) =
            (statement(one, Which::First)?, statement(other, Which::Second)?);
        if first.origin != second.origin {
            return Err(EvidenceError::OtherLogs { first: first.origin, second: second.origin });
        }
        let (kind, prefix) = self.contradicts(&first, &second)?;
        Ok(Said { notes: [first_note, second_note], first, second, kind, prefix })
    }

    /// Whether two statements about one log cannot both be true, whoever made them.
    fn contradicts(&self, first: &Checkpoint, second: &Checkpoint) -> Result<(Kind, Hash), EvidenceError> {
        let sizes = || EvidenceError::Sizes { first: first.size, second: second.size };
        match self {
            Self::Roots { .. } if first.size != second.size => Err(sizes()),
            Self::Roots { .. } => match first.root.cmp(&second.root) {
                core::cmp::Ordering::Less => Ok((Kind::Roots, second.root)),
                core::cmp::Ordering::Equal => Err(EvidenceError::Consistent),
                core::cmp::Ordering::Greater => Err(EvidenceError::Order),
            },
            Self::Prefix { .. } if first.size >= second.size => Err(sizes()),
            Self::Prefix { prefix, proof, .. } => {
                if *prefix == first.root {
                    return Err(EvidenceError::Consistent);
                }
                merkle::verify_consistency((first.size, prefix), (second.size, &second.root), proof)?;
                Ok((Kind::Prefix, *prefix))
            }
        }
    }
}

impl Evidence {
    /// Of two notes about one log and the charters of its alliance: [`Contradiction::of`], [`with`](Contradiction::with) charters.
    pub fn of(
        charters: &CharterChain,
        one: &str,
        other: &str,
        prefix: Option<(Hash, Vec<Hash>)>,
    ) -> Result<Self, EvidenceError> {
        Contradiction::of(one, other, prefix)?.with(charters)
    }

    /// Encodes.
    pub fn to_vec(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Decodes at most [`EVIDENCE_MAX_BYTES`], without judging.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        cbor::from_slice(bytes, EVIDENCE_MAX_BYTES)
    }

    /// Judges it by its own charters.
    pub fn judge(&self) -> Result<Verdict, EvidenceError> {
        let chain = CharterChain::decode(&self.charters)?;
        let alliance = chain.claimed_alliance().ok_or(CharterError::EmptyChain)?;
        // Cheap things first: of what contradicts nothing no signature is looked at.
        let named = self.contradiction.newest_charter()?;
        let held = u32::try_from(chain.0.len()).unwrap_or(u32::MAX);
        if held > named {
            return Err(EvidenceError::NeedlessCharter { held, named });
        }
        self.contradiction.judge(&chain.verify_each(alliance)?)
    }
}

/// Decodes and judges.
pub fn judge(bytes: &[u8]) -> Result<Verdict, EvidenceError> {
    Evidence::decode(bytes)?.judge()
}

fn statement(text: &str, which: Which) -> Result<(Note, Checkpoint), EvidenceError> {
    let parsed = Note::parse(text).map_err(CheckpointError::from);
    let parsed = parsed.and_then(|note| Checkpoint::parse(&note).map(|says| (note, says)));
    parsed.map_err(|why| EvidenceError::Statement { which, why })
}

/// Shard and incarnation of an origin of this alliance's, in its one spelling.
fn place(origin: &str, charter: &VerifiedCharter) -> Option<(u16, u32)> {
    let shard: u16 = origin.split('/').nth(2)?.parse().ok()?;
    let incarnation = charter.incarnation_of(origin, shard)?;
    (shard < charter.shard_count().get()).then_some((shard, incarnation))
}

/// Who of the shard's group signed.
fn side(
    which: Which,
    note: &Note,
    says: &Checkpoint,
    shard: u16,
    charter: &VerifiedCharter,
) -> Result<Side, EvidenceError> {
    let mut signers = Vec::new();
    let mut members = BTreeSet::new();
    for node in charter.group(shard).iter().filter_map(|id| charter.node(*id)) {
        let ordered = note.verify(&says.origin, &node.sign).is_ok();
        let cosigned_s = note.verify_cosignature(&node.name, &node.sign).ok();
        if cosigned_s.is_some() {
            members.insert(node.member);
        }
        if ordered || cosigned_s.is_some() {
            signers.push(Signer {
                node: node.id,
                name: node.name.clone(),
                key: node.sign,
                member: node.member,
                member_name: charter.member(node.member).map(|member| member.name.clone()).unwrap_or_default(),
                ordered,
                cosigned_at: cosigned_s.map(|time_s| UnixMs(time_s.saturating_mul(1000))),
            });
        }
    }
    if signers.is_empty() {
        return Err(EvidenceError::NotSigned { which, charter: charter.version() });
    }
    let (members, needed) = (members.len(), charter.quorum(shard));
    Ok(Side { size: says.size, root: says.root, charter_version: says.charter_version, signers, members, needed })
}

#[cfg(test)]
mod tests;
