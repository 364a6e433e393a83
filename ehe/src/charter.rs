//! The charter: who the members and nodes are, how many shards there are, where each lives, which role may do what
//! (DESIGN: the ledger and the alliance; SPEC: charter).
//!
//! Three steps, three types: a [`Charter`] is what somebody wrote, a [`SignedCharter`] is what travels and lies in files, a
//! [`VerifiedCharter`] is what a program may act on; it only comes from [`SignedCharter::verify`].

mod changes;
mod check;
mod gathering;
mod role;
mod signed;
#[cfg(test)]
mod tests;
mod verified;
mod words;

use core::num::NonZeroU16;

use minicbor::{Decode, Encode};

pub use self::changes::{Changes, Move};
pub use self::check::host_name_is_valid;
pub use self::gathering::Gathering;
pub use self::role::{ParseRoleError, Permissions, Role, RoleSet};
pub use self::signed::{CharterChain, SignedCharter, Trust};
pub use self::verified::VerifiedCharter;
pub use self::words::shards_in_words;
use crate::cbor::{self, CborError};
use crate::id::{AuthorId, Hash, MemberId, NodeId};
use crate::identity::PublicIdentity;
pub use crate::limits::{
    ADDRESS_MAX_BYTES, ADDRESSES_PER_NODE_MAX, CHAIN_MAX_BYTES, CHAIN_VERSIONS_MAX, HEAD_FRESH_MAX_MS,
    NODE_NAME_MAX_BYTES,
};
use crate::sign::{SignedError, VerifyKey};

/// Sizes that a shard's group may have.
pub const GROUP_SIZES: [usize; 4] = [1, 3, 5, 7];

/// A member (hospital) of the alliance.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Member {
    /// Its identifier, stable through all versions of the charter.
    #[n(0)]
    pub id: MemberId,
    /// Its name, for people: at most [`LABEL_MAX_BYTES`](crate::limits::LABEL_MAX_BYTES), no control characters.
    #[n(1)]
    pub name: String,
    /// Signs charters in the member's name.
    #[n(2)]
    pub identity: PublicIdentity,
}

/// A storage node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Node {
    /// Its identifier; a wiped node gets a new one.
    #[n(0)]
    pub id: NodeId,
    /// The member that runs it.
    #[n(1)]
    pub member: MemberId,
    /// A DNS name in lower case, at most [`NODE_NAME_MAX_BYTES`]: the key name in signed notes, a name in its certificate.
    #[n(2)]
    pub name: String,
    /// Verifies its checkpoints, cosignatures and heads.
    #[n(3)]
    pub sign: VerifyKey,
    /// Where it is reached: `host:port` or `[v6]:port`, 1 to [`ADDRESSES_PER_NODE_MAX`], the preferred one first.
    #[n(4)]
    pub addresses: Vec<String>,
}

/// Which nodes hold which shard.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Placement {
    /// One group holds all shards.
    #[n(0)]
    Everywhere(#[n(0)] Vec<NodeId>),
    /// The group of shard 0, of shard 1, …: exactly as many as there are shards.
    #[n(1)]
    Listed(#[n(0)] Vec<Vec<NodeId>>),
}

impl Placement {
    /// All groups that are written down, each once.
    fn groups(&self) -> impl Iterator<Item = &[NodeId]> {
        let (one, many) = match self {
            Self::Everywhere(group) => (Some(group.as_slice()), [].as_slice()),
            Self::Listed(groups) => (None, groups.as_slice()),
        };
        one.into_iter().chain(many.iter().map(Vec::as_slice))
    }
}

/// What the members agreed on. Nobody has verified it yet; see [`VerifiedCharter`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Charter {
    /// 1 for the first, one more for each that follows.
    #[n(0)]
    pub version: u32,
    /// The alliance's name, for people.
    #[n(1)]
    pub alliance: String,
    /// SHA-256 of the charter before this one; none in version 1.
    #[n(2)]
    pub predecessor: Option<Hash>,
    /// Shards, at most [`SHARDS_MAX`](crate::limits::SHARDS_MAX). Never changes: a room's shard follows from it.
    #[n(3)]
    pub shard_count: NonZeroU16,
    /// The members, at most [`MEMBERS_MAX`](crate::limits::MEMBERS_MAX).
    #[n(4)]
    pub members: Vec<Member>,
    /// The nodes, at most [`MEMBERS_MAX`](crate::limits::MEMBERS_MAX).
    #[n(5)]
    pub nodes: Vec<Node>,
    /// Where each shard lives.
    #[n(6)]
    pub placement: Placement,
    /// What each role may do at most; a patient's grant decides within it.
    #[n(7)]
    pub permissions: Permissions,
    /// A head older than this is reported as stale; 1 to [`HEAD_FRESH_MAX_MS`].
    #[n(8)]
    pub head_fresh_ms: u32,
    /// Cosigning members that a checkpoint needs at least, where that is more than the majority of the shard's members.
    #[n(9)]
    pub min_cosignatures: Option<u16>,
    /// The rules version under which a shard's log is applied once this charter is in effect there (SPEC 15); 1 is said by leaving it
    /// out. Charter 1 names none; never lower than in the charter before.
    #[n(10)]
    pub rules: Option<u16>,
}

/// The rules version of an alliance whose charters have never named one.
pub const RULES_FIRST: u16 = 1;
/// The highest rules version that this library knows: sections 8 to 10 of the SPEC.
pub const RULES_KNOWN: u16 = 2;

impl Charter {
    /// The bytes that are hashed and signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// The rules version that it puts in force.
    pub fn rules(&self) -> u16 {
        self.rules.unwrap_or(RULES_FIRST)
    }
}

/// Why a charter is not accepted. Whoever wrote or sent it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CharterError {
    /// Not the deterministic encoding of a charter.
    #[error("not a charter: {0}")]
    Cbor(#[from] CborError),
    /// A count or a length is outside its limit.
    #[error("charter: {what} is {found}, allowed is {least} to {most}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The count found.
        found: usize,
        /// Least allowed.
        least: usize,
        /// Most allowed.
        most: usize,
    },
    /// A name or an address cannot stand where it stands.
    #[error("charter: {what} {text:?} is not valid: {why}")]
    Text {
        /// What the text is.
        what: &'static str,
        /// The text (shortened).
        text: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// Two entries share what must be unique.
    #[error("charter: {what} {value} stands there twice")]
    Duplicate {
        /// What must be unique.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// A node names a member that the charter does not have.
    #[error("charter: node {node} belongs to member {member}, who is not in the charter")]
    UnknownMember {
        /// The node.
        node: NodeId,
        /// The member that it names.
        member: MemberId,
    },
    /// The placement names a node that the charter does not have.
    #[error("charter: the placement names node {0}, which is not in the charter")]
    UnknownNode(NodeId),
    /// A group has another size than 1, 3, 5 or 7.
    #[error("charter: a shard's group has {0} nodes; allowed are 1, 3, 5 or 7")]
    GroupSize(usize),
    /// The placement lists more or fewer groups than there are shards.
    #[error("charter: the placement lists {found} groups for {shards} shards")]
    ShardsCovered {
        /// Groups listed.
        found: usize,
        /// Shards that there are.
        shards: u16,
    },
    /// The charter asks for more cosigning members than a shard's group has.
    #[error("charter: {asked} cosignatures are asked for where a shard's group has only {members} members")]
    Cosignatures {
        /// Members asked for.
        asked: u16,
        /// Members of the smallest group.
        members: usize,
    },
    /// Version 1 with a predecessor, a later one without, or version 0.
    #[error(
        "charter: version {0} and the predecessor do not go together (version 1 has none, each later one names it)"
    )]
    Version(u32),
    /// The pinned alliance id is not this charter's hash, or a later version was to be verified against a pin.
    #[error("charter: not charter 1 of the alliance that is pinned")]
    OtherAlliance,
    /// Not the version that follows.
    #[error("charter: version {found} where version {expected} follows")]
    VersionSkip {
        /// The version that follows the predecessor.
        expected: u32,
        /// The version found.
        found: u32,
    },
    /// There is another charter of a version that is known here.
    #[error("charter: it is another charter {0} than the one here: the members have to say which one is right")]
    Other(u32),
    /// The charter names another predecessor than the one that it was verified against.
    #[error("charter: it names another predecessor")]
    OtherPredecessor,
    /// The number of shards changed.
    #[error("charter: the number of shards changed from {before} to {after}; rooms would move without a trace")]
    ShardCountChanged {
        /// Shards before.
        before: u16,
        /// Shards in this version.
        after: u16,
    },
    /// The rules version is written where it has to be left out.
    #[error("charter: rules version {0} is written; charter 1 names none, and later ones say 1 by leaving it out")]
    Rules(u16),
    /// The rules version went back.
    #[error(
        "charter: the rules version went from {before} back to {after}; what was applied under the later one would be judged anew"
    )]
    RulesLowered {
        /// The rules version before.
        before: u16,
        /// That of this version of the charter.
        after: u16,
    },
    /// A signature is malformed or does not verify.
    #[error("charter: a signature is not accepted: {0}")]
    Signature(#[from] SignedError),
    /// Somebody signed who is no member.
    #[error("charter: signed by {0}, who is no member")]
    Stranger(AuthorId),
    /// Too few members signed.
    #[error("charter: signed by {signed} of the {needed} members that are needed")]
    Quorum {
        /// Members that signed.
        signed: usize,
        /// Members needed.
        needed: usize,
    },
    /// A chain without a charter.
    #[error("charter: the chain is empty")]
    EmptyChain,
}
