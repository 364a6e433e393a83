//! Read requests, and the access records that they leave in the room (SPEC 9).

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::cose::{self, Domain, Unverified};
use crate::event::sha256;
use crate::id::{AllianceId, AuthorId, EpochId, Hash, Nonce, RoomId};
use crate::identity::{Identity, PublicIdentity};
use crate::limits;
use crate::refusal::Refusal;
use crate::run::SeenCheckpoint;
use crate::sign::{SignedError, VerifyKey};
use crate::time::{Hour, UnixMs};

/// Which part of a room is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Part {
    /// Control records: for every party, without an access record.
    #[n(1)]
    Control,
    /// Content of the named epochs and hours, with the wraps that open it. Leaves an access record.
    #[n(2)]
    Content,
    /// Everything but content bodies: leaves, runs, headers, control, access records. For the patient.
    #[n(3)]
    Ledger,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Scope {
    /// The part.
    #[n(0)]
    pub part: Part,
    /// For content: the epochs.
    #[n(1)]
    pub epochs: Vec<EpochId>,
    /// For content: readings of this hour and later.
    #[n(2)]
    pub from: Hour,
    /// For content: readings before this hour.
    #[n(3)]
    pub until: Hour,
}

/// Why somebody reads; codes follow HL7 v3 PurposeOfUse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Purpose {
    /// TREAT: treatment.
    #[n(1)]
    Treatment,
    /// PATRQT: the patient asks.
    #[n(2)]
    PatientRequest,
    /// HOPERAT: healthcare operations (a gateway that keeps its keys current).
    #[n(3)]
    Operations,
    /// HRESCH: research.
    #[n(4)]
    Research,
}

/// What a reader signs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReadRequest {
    /// The alliance, so that a request means nothing elsewhere.
    #[n(0)]
    pub alliance: AllianceId,
    /// The room.
    #[n(1)]
    pub room: RoomId,
    /// Who reads.
    #[n(2)]
    pub reader: AuthorId,
    /// New for each request.
    #[n(3)]
    pub nonce: Nonce,
    /// What.
    #[n(4)]
    pub scope: Scope,
    /// Why.
    #[n(5)]
    pub purpose: Purpose,
    /// The person behind an institution's identity, as a pseudonym that the institution can resolve.
    #[n(6)]
    pub actor: Option<Nonce>,
    /// The newest head that the reader knows.
    #[n(7)]
    pub head: Option<SeenCheckpoint>,
    /// Position in the room's commit order to start from.
    #[n(8)]
    pub from_index: u64,
    /// When the reader made the request, by its own clock.
    #[n(9)]
    pub made_at: UnixMs,
}

/// A signed request as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct SignedRequest(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

impl ReadRequest {
    /// Signs the request. The reader must be `identity`.
    pub fn sign(&self, identity: &Identity) -> SignedRequest {
        SignedRequest(cose::sign(identity, Domain::ReadRequest, cbor::to_vec(self)))
    }
}

impl SignedRequest {
    /// Decodes; the signature is not checked yet.
    pub fn decode(&self) -> Result<UnverifiedRequest, SignedError> {
        let cose = Unverified::decode(&self.0, limits::READ_REQUEST_MAX_BYTES)?;
        let request: ReadRequest = cbor::from_slice(cose.payload(), limits::READ_REQUEST_MAX_BYTES)?;
        if request.reader != cose.signer() {
            return Err(SignedError::OtherAuthor);
        }
        if request.scope.epochs.len() > limits::EPOCHS_PER_GRANT_MAX {
            return Err(SignedError::Limit("more epochs than a request may name"));
        }
        if request.head.as_ref().is_some_and(|seen| seen.origin.len() > limits::ORIGIN_MAX_BYTES) {
            return Err(SignedError::Limit("the origin of the known head is too long"));
        }
        Ok(UnverifiedRequest { request, cose })
    }
}

/// A well-formed request whose signature nobody has checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedRequest {
    request: ReadRequest,
    cose: Unverified,
}

impl UnverifiedRequest {
    /// What it claims.
    pub fn claims(&self) -> &ReadRequest {
        &self.request
    }

    /// Verifies the signature under the key of the reader that is named; the identity proves itself by its author id.
    pub fn verify_as(self, identity: &PublicIdentity) -> Result<ReadRequest, SignedError> {
        if identity.author_id() != self.request.reader {
            return Err(SignedError::OtherAuthor);
        }
        self.verify(&identity.sign)
    }

    /// Verifies the signature; the caller vouches that `key` is the reader's.
    pub fn verify(self, key: &VerifyKey) -> Result<ReadRequest, SignedError> {
        self.cose.verify(Domain::ReadRequest, key)?;
        Ok(self.request)
    }

    /// Takes the signature as checked by the ordering party.
    pub fn trust_ordering_party(self) -> ReadRequest {
        self.request
    }
}

/// What the room keeps of a request. Made by apply, the same on every replica, and vouched for by the checkpoint; the signed
/// request inside is the reader's own word.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AccessRecord {
    /// The signed request.
    #[n(0)]
    pub request: SignedRequest,
    /// None: granted. Otherwise why not.
    #[n(1)]
    pub refused: Option<Refusal>,
    /// The reader's keys, where the room does not hold them (a stranger's refusal).
    #[n(2)]
    pub reader: Option<PublicIdentity>,
    /// How many requests this record stands for: refusals of one identity in one hour after the first are only counted.
    #[n(3)]
    pub count: u64,
    /// The ledger's time.
    #[n(4)]
    pub at: UnixMs,
}

impl AccessRecord {
    /// The encoded record.
    pub fn to_vec(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Decodes a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, crate::cbor::CborError> {
        cbor::from_slice(bytes, limits::ACCESS_RECORD_MAX_BYTES)
    }
}

/// SHA-256 of an encoded record.
pub fn record_hash(bytes: &[u8]) -> Hash {
    sha256(bytes)
}
