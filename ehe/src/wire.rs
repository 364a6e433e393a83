//! What clients and nodes say to each other, one exchange a bidirectional stream (SPEC 11).
//!
//! A frame is a length (4 bytes, big-endian) and that many bytes of deterministic CBOR. The client sends one [`Request`] and
//! finishes; the node answers with one [`Response`], or with a stream of them that ends in one that [`Response::is_last`].

use core::num::NonZeroU32;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::cbor::{self, CborError};
use crate::event::Event;
use crate::id::{AuthorId, EheId, Hash, NodeId, Nonce, RoomId};
use crate::identity::PublicIdentity;
use crate::leaf::{Leaf, Receipt};
use crate::limits;
use crate::read::SignedRequest;
use crate::refusal::Refusal;
use crate::run::SignedRun;
use crate::time::UnixMs;

/// A client's request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Request {
    /// Append a run. Answer: [`Response::Submitted`], [`Response::Known`] or [`Response::Refused`].
    #[n(1)]
    Submit(#[n(0)] Submission),
    /// Read what is there. Answer: [`Response::Wrap`] and [`Response::Item`] …, [`Response::Head`].
    #[n(2)]
    Fetch(#[n(0)] SignedRequest, #[n(1)] PublicIdentity),
    /// Read what is there and what comes, until either side ends it or the right to read ends. Answer: [`Response::Item`] …
    /// with a [`Response::Head`] whenever everything so far was sent.
    #[n(3)]
    Subscribe(#[n(0)] SignedRequest, #[n(1)] PublicIdentity),
    /// A room's head, over the client's nonce. Answer: [`Response::Head`] for parties of the room.
    #[n(4)]
    Head(#[n(0)] RoomId, #[n(1)] Nonce),
    /// The rooms of the shards led here in which the channel's identity is a party. Answer: [`Response::Rooms`].
    #[n(5)]
    RoomsOf,
    /// The charters, from this version on. Answer: [`Response::Charter`].
    #[n(6)]
    Charter(#[n(0)] u32),
    /// How the node is. Answer: [`Response::Status`].
    #[n(7)]
    Status,
    /// Evidence that the node keeps: that of this place, from 0. Answer: [`Response::Evidence`].
    #[n(9)]
    Evidence(#[n(0)] u32),
    /// The records of a shard's restored logs, from that on by which the log of an incarnation ended. Answer:
    /// [`Response::Restorations`].
    #[n(12)]
    Restorations(#[n(0)] u16, #[n(1)] u32),
    /// How a shard's log of the second size extends what it was at the first, which is not greater. Answer: [`Response::Extends`].
    #[n(16)]
    Extends(#[n(0)] u16, #[n(1)] u64, #[n(2)] u64),
}

/// A run and its events, in the run's order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Submission {
    /// The run.
    #[n(0)]
    pub run: SignedRun,
    /// The events.
    #[n(1)]
    pub events: Vec<Event>,
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Response {
    /// The run is in the log.
    #[n(1)]
    Submitted(#[n(0)] Submitted),
    /// Nothing was appended: some of the events are in the log already, by these runs.
    #[n(2)]
    Known(#[n(0)] Vec<KnownRun>),
    /// A rule forbids it, or the node cannot.
    #[n(3)]
    Refused(#[n(0)] Refusal),
    /// The shard is led elsewhere: ask that node.
    #[n(4)]
    AskNode(#[n(0)] NodeId),
    /// One entry of a room.
    #[n(5)]
    Item(#[n(0)] Item),
    /// The head of the room as of which everything asked for was sent.
    #[n(6)]
    Head(#[n(0)] Head),
    /// Rooms.
    #[n(7)]
    Rooms(#[n(0)] Vec<RoomInfo>),
    /// The charters from the version on that was asked for, as many as the frame holds: encoded as a
    /// [`CharterChain`](crate::charter::CharterChain), empty where there are none. A [`Gathering`](crate::charter::Gathering) takes them.
    #[n(8)]
    Charter(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Status.
    #[n(9)]
    Status(#[n(0)] NodeStatus),
    /// The wrap of an event key, before the first item of the answer whose events name it: the entry that brought it may lie
    /// before the place that was asked from. It proves itself: the events name it by its id ([`crate::ledger::wrap_of`]).
    #[n(10)]
    Wrap(#[n(0)] Event),
    /// How much evidence the node keeps, and that of the place that was asked for: an encoded
    /// [`Contradiction`](crate::evidence::Contradiction), empty where there is none. The charters by which it is judged are the reader's own.
    #[n(12)]
    Evidence(#[n(0)] u32, #[cbor(n(1), with = "minicbor::bytes")] Vec<u8>),
    /// Records of restored logs, each encoded as [`crate::restoration::SignedRestoration`], in the order of their incarnations; at
    /// most [`limits::RESTORATIONS_PER_ANSWER_MAX`].
    #[n(15)]
    Restorations(#[n(0)] Vec<ByteVec>),
    /// The root that the log has at the first of the sizes that were asked about, and the proof that it has the second one's with it
    /// (SPEC M3); at most [`limits::PROOF_HASHES_MAX`] hashes. It is nobody's word: [`crate::extension::judge`] says what it proves.
    #[n(16)]
    Extends(#[n(0)] Hash, #[n(1)] Vec<Hash>),
}

/// A run was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Submitted {
    /// The proof.
    #[n(0)]
    pub receipt: Receipt,
    /// How many control events of the patient the room has: tells an author whether it must fetch them.
    #[n(1)]
    pub control_seq: u64,
}

/// A run that brought an event earlier.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KnownRun {
    /// The run as its author signed it.
    #[n(0)]
    pub run: SignedRun,
    /// The proof.
    #[n(1)]
    pub receipt: Receipt,
}

/// One entry of a room, as much of it as the reader may have. The leaf alone is the skeleton that keeps the chain whole.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Item {
    /// The leaf.
    #[n(0)]
    pub leaf: Leaf,
    /// The run, where the reader may have any of its events.
    #[n(1)]
    pub run: Option<SignedRun>,
    /// Those of its events that the reader may have, in the run's order.
    #[n(2)]
    pub events: Vec<Event>,
    /// The access record, for the patient.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub access: Option<Vec<u8>>,
    /// The encoded [`VoidRecord`](crate::void::VoidRecord), for everybody.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub void: Option<Vec<u8>>,
}

/// Where a room ends, proven. Its last leaf is in the checkpoint's tree, and chains back to all before it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// The room's last leaf with its proof.
    #[n(0)]
    pub last: Receipt,
    /// The client's nonce; zeros where it gave none.
    #[n(1)]
    pub nonce: Nonce,
    /// The node's time.
    #[n(2)]
    pub at: UnixMs,
    /// COSE_Sign1 by the node over the encoding of (room, last leaf's hash, log size, time, nonce).
    #[cbor(n(3), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// What [`Head::signature`] signs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HeadStatement {
    /// The room.
    #[n(0)]
    pub room: RoomId,
    /// Merkle leaf hash of its last leaf.
    #[n(1)]
    pub last_leaf: Hash,
    /// Leaves of the shard's log.
    #[n(2)]
    pub log_size: u64,
    /// The node's time.
    #[n(3)]
    pub at: UnixMs,
    /// The client's nonce.
    #[n(4)]
    pub nonce: Nonce,
}

/// A room in which the asking identity is a party.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RoomInfo {
    /// The room.
    #[n(0)]
    pub room: RoomId,
    /// The patient.
    #[n(1)]
    pub owner: AuthorId,
    /// The identity's live grants.
    #[n(2)]
    pub grants: Vec<EheId>,
    /// Entries in the room.
    #[n(3)]
    pub entries: u64,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeStatus {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Version of its program.
    #[n(1)]
    pub program: String,
    /// Newest charter that it has.
    #[n(2)]
    pub charter_version: u32,
    /// Its shards.
    #[n(3)]
    pub shards: Vec<ShardStatus>,
    /// Its clock.
    #[n(4)]
    pub at: UnixMs,
    /// All shards of the alliance, as the nodes tell each other.
    #[n(5)]
    pub groups: Option<Vec<GroupStatus>>,
    /// How much [evidence](crate::evidence) it keeps, if it keeps any.
    #[n(6)]
    pub evidence: Option<NonZeroU32>,
    /// How far it is in looking again at what it has stored, shard by shard.
    #[n(7)]
    pub scrub: Option<Vec<ScrubStatus>>,
    /// What it still has of shards that live elsewhere now; absent where it has nothing.
    #[n(8)]
    pub moved: Option<Vec<MovedStatus>>,
}

/// What a node still has of a shard that lives on other nodes now.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MovedStatus {
    /// The shard.
    #[n(0)]
    pub shard: u16,
    /// Leaves of its log.
    #[n(1)]
    pub leaves: u64,
    /// Why it is kept, and for how long, for people.
    #[n(2)]
    pub why: String,
}

/// How far a node is in looking again at what it has stored of a shard, and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ScrubStatus {
    /// The shard.
    #[n(0)]
    pub shard: u16,
    /// Entries that were looked at in the pass under way, or in the last one.
    #[n(1)]
    pub checked: u64,
    /// Entries that there are.
    #[n(2)]
    pub entries: u64,
    /// What is wrong and not repaired.
    #[n(3)]
    pub found: u64,
    /// Whether the node's disk lost or altered something, so that the shard is not led or told from there until it is repaired.
    #[n(4)]
    pub held: bool,
    /// When the last whole pass ended.
    #[n(5)]
    pub ended: Option<UnixMs>,
    /// How long it took.
    #[n(6)]
    pub took_ms: Option<u64>,
    /// The first of what is wrong, for the operator.
    #[n(7)]
    pub first: Option<String>,
}

/// How a shard is, wherever it lives.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GroupStatus {
    /// The shard.
    #[n(0)]
    pub shard: u16,
    /// Version of the charter that is in effect in it; 0 where nobody was heard of.
    #[n(1)]
    pub charter: u32,
    /// Its ordering party, if it is known.
    #[n(2)]
    pub leader: Option<NodeId>,
    /// Those that have a part in it.
    #[n(3)]
    pub nodes: Vec<GroupNode>,
    /// What is being done to move it to where the newest charter says, in words for people.
    #[n(4)]
    pub doing: Option<String>,
    /// The rules version in force in it; absent where no node of it was heard of, or where that is the first.
    #[n(5)]
    pub rules: Option<u16>,
}

/// A node's part in a shard.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GroupNode {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Whether it has a vote; otherwise it only has the log.
    #[n(1)]
    pub votes: bool,
    /// Blocks applied; absent where the node was not heard of.
    #[n(2)]
    pub applied: Option<u64>,
    /// How long ago it said so, in milliseconds.
    #[n(3)]
    pub heard_ms: Option<u64>,
    /// A fault stopped the shard there.
    #[n(4)]
    pub faulted: bool,
    /// The highest rules version that its program knows; absent where the node was not heard of. One below the version in force applies
    /// nothing, until a later program runs there.
    #[n(5)]
    pub knows: Option<u16>,
}

/// How a shard is on a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ShardStatus {
    /// The shard.
    #[n(0)]
    pub shard: u16,
    /// Its ordering party, if there is one.
    #[n(1)]
    pub leader: Option<NodeId>,
    /// Consensus term.
    #[n(2)]
    pub term: u64,
    /// Blocks applied.
    #[n(3)]
    pub applied: u64,
    /// Leaves of its log.
    #[n(4)]
    pub leaves: u64,
    /// Rooms.
    #[n(5)]
    pub rooms: u64,
    /// Whether a storage fault stopped it.
    #[n(6)]
    pub faulted: bool,
}

impl Response {
    /// Whether nothing follows this answer to a request that is not [`Request::Subscribe`].
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Item(_) | Self::Wrap(_))
    }
}

macro_rules! frame {
    ($type:ty) => {
        impl $type {
            /// Encodes the frame's content.
            pub fn to_vec(&self) -> Vec<u8> {
                cbor::to_vec(self)
            }

            /// Decodes a frame's content.
            pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
                cbor::from_slice(bytes, limits::FRAME_MAX_BYTES)
            }
        }
    };
}

frame!(Request);
frame!(Response);
