//! The event (EHE): core, header, body, and its id (SPEC 4).
//!
//! Types say how far bytes were checked: [`Event`] is bytes as received or stored, [`CheckedEvent`] has a well-formed header
//! whose body hash fits. Who signed it is said by the run that names its id ([`crate::run`]).

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::cbor::{self, CborError};
use crate::id::{AuthorId, EheId, EpochId, Hash, Nonce, RoomId, WrapId};
use crate::limits;
use crate::time::Hour;

/// The format's version that this crate writes and reads.
pub const VERSION: u8 = 1;

/// The set of algorithms that an event uses. A further suite is a further number; stored bytes stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Suite {
    /// Ed25519, X-Wing, HKDF-SHA256, ChaCha20-Poly1305, SHA-256.
    #[n(1)]
    One,
}

/// What an event is. Content is opaque to nodes, control is judged by them, access is written by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// Content: a window of readings.
    #[n(1)]
    Vitals,
    /// Content: battery, signal, clock and faults of a device.
    #[n(2)]
    DeviceStatus,
    /// Content: a clinical record.
    #[n(3)]
    ClinicalRecord,
    /// Content: a goal.
    #[n(4)]
    Goal,
    /// Content: a note.
    #[n(5)]
    Note,
    /// Content: sealed to one gateway (thresholds, cadence).
    #[n(6)]
    Instruction,
    /// Control: makes the room.
    #[n(16)]
    RoomCreate,
    /// Control: rotates the owner's keys, delegates rights, sets the recovery key, recovers.
    #[n(17)]
    Authority,
    /// Control: lets an identity read or append.
    #[n(18)]
    Grant,
    /// Control: ends a grant.
    #[n(19)]
    Revoke,
    /// Control: publishes the group key of a category's next epoch.
    #[n(20)]
    Epoch,
    /// Control, by an appender: an event key, wrapped to a group key.
    #[n(21)]
    Wrap,
    /// Control: says whose reading it was. Reserved: refused until its rules are written.
    #[n(22)]
    Attribution,
    /// Control: erases bodies and wraps. Reserved: refused until its rules are written.
    #[n(23)]
    Shred,
}

impl Kind {
    /// Whether nodes store the body without judging it.
    pub fn is_content(self) -> bool {
        matches!(
            self,
            Self::Vitals | Self::DeviceStatus | Self::ClinicalRecord | Self::Goal | Self::Note | Self::Instruction
        )
    }

    /// Largest body of this kind in bytes.
    pub fn body_limit(self) -> usize {
        if self.is_content() { limits::CONTENT_BODY_MAX_BYTES } else { limits::CONTROL_BODY_MAX_BYTES }
    }
}

/// What sealing binds: all of an event but its ciphertext.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Core {
    /// [`VERSION`]: a core of another version is not this structure.
    #[cbor(n(0), decode_with = "known_version")]
    pub version: u8,
    /// Algorithms.
    #[n(1)]
    pub suite: Suite,
    /// What the event is.
    #[n(2)]
    pub kind: Kind,
    /// The ledger; zeros in room-create, whose body gives the room its id.
    #[n(3)]
    pub room: RoomId,
    /// Who made the event.
    #[n(4)]
    pub author: AuthorId,
    /// Key epoch of content; zeros in control events.
    #[n(5)]
    pub epoch: EpochId,
    /// The wrap of the event key; zeros in control events.
    #[n(6)]
    pub wrap: WrapId,
    /// Hour of the first reading; of control events: when they were made.
    #[n(7)]
    pub hour: Hour,
    /// Fresh for each event: a restored disk never seals twice under one key and nonce.
    #[n(8)]
    pub salt: Nonce,
}

/// Core, key commitment, body hash: what the event's id is the hash of.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Header {
    /// What sealing binds.
    #[n(0)]
    pub core: Core,
    /// Derived with the key; checked before decrypting. Zeros where nothing is sealed.
    #[n(1)]
    pub commitment: Hash,
    /// SHA-256 of the body (ciphertext).
    #[n(2)]
    pub body_hash: Hash,
}

/// Header and body as bytes: as they travel and lie on disk.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Event {
    /// Encoded [`Header`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub header: Vec<u8>,
    /// Ciphertext, or a control body.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
}

/// Why bytes are no event. The sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The header is not a header.
    #[error("header: {0}")]
    Header(#[from] CborError),
    /// The header's version is not one that this program knows.
    #[error("event format version {0} is not known here")]
    Version(u64),
    /// The body is larger than its kind allows.
    #[error("body of {found} bytes where at most {limit} are allowed")]
    BodyTooLarge {
        /// The kind's limit.
        limit: usize,
        /// Bytes received.
        found: usize,
    },
    /// The header names another body.
    #[error("the body is not the one that the header names")]
    OtherBody,
}

/// SHA-256 as a [`struct@Hash`].
pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

impl Event {
    /// Joins a header with its body.
    pub(crate) fn assemble(core: Core, commitment: Hash, body: Vec<u8>) -> CheckedEvent {
        let header = Header { core, commitment, body_hash: sha256(&body) };
        let header_bytes = cbor::to_vec(&header);
        CheckedEvent { id: EheId(sha256(&header_bytes).0), header, event: Event { header: header_bytes, body } }
    }

    /// Decodes the header and compares the body's hash.
    pub fn check(self) -> Result<CheckedEvent, EventError> {
        let header = decode_header(&self.header)?;
        let limit = header.core.kind.body_limit();
        if self.body.len() > limit {
            return Err(EventError::BodyTooLarge { limit, found: self.body.len() });
        }
        if sha256(&self.body) != header.body_hash {
            return Err(EventError::OtherBody);
        }
        Ok(CheckedEvent { id: EheId(sha256(&self.header).0), header, event: self })
    }
}

/// Decodes a header alone, for events whose body was erased or was not asked for.
pub fn decode_header(bytes: &[u8]) -> Result<Header, EventError> {
    // The version first: a header of another one may have another form.
    match version_of(bytes) {
        Some(version) if version != u64::from(VERSION) && bytes.len() <= limits::HEADER_MAX_BYTES => {
            Err(EventError::Version(version))
        }
        _ => Ok(cbor::from_slice(bytes, limits::HEADER_MAX_BYTES)?),
    }
}

fn known_version<C>(decoder: &mut minicbor::Decoder<'_>, _: &mut C) -> Result<u8, minicbor::decode::Error> {
    match decoder.u8()? {
        VERSION => Ok(VERSION),
        _ => Err(minicbor::decode::Error::message("a core of another version")),
    }
}

/// The version that a header begins with: in every version a header is a map that begins with the core, and the core a map that
/// begins with the version (V1). What follows is that version's to say.
fn version_of(header: &[u8]) -> Option<u64> {
    let [0xa1..=0xb7, 0x00, 0xa1..=0xb7, 0x00, rest @ ..] = header else { return None };
    let version = minicbor::decode::<u64>(rest).ok()?;
    rest.starts_with(&cbor::to_vec(&version)).then_some(version)
}

/// An event whose header is well formed and names its body. Not yet: signed, admitted, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedEvent {
    id: EheId,
    header: Header,
    event: Event,
}

impl CheckedEvent {
    /// A content event whose body was not asked for or was erased: the header alone makes its id.
    pub fn without_body(header_bytes: Vec<u8>) -> Result<Self, EventError> {
        let header = decode_header(&header_bytes)?;
        if !header.core.kind.is_content() {
            return Err(EventError::OtherBody);
        }
        let id = EheId(sha256(&header_bytes).0);
        Ok(Self { id, header, event: Event { header: header_bytes, body: Vec::new() } })
    }

    /// SHA-256 of the header.
    pub fn id(&self) -> EheId {
        self.id
    }

    /// The decoded header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What sealing binds.
    pub fn core(&self) -> &Core {
        &self.header.core
    }

    /// The body: ciphertext, or a control body.
    pub fn body(&self) -> &[u8] {
        &self.event.body
    }

    /// The bytes.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The bytes, for sending on.
    pub fn into_event(self) -> Event {
        self.event
    }
}
