//! The run: 1 to 256 events of one author in one room under one signature, in a strand (SPEC 7).

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::cbor::{self, CborError};
use crate::cose::{self, Domain, Unverified};
use crate::event::sha256;
use crate::id::{AuthorId, EheId, Hash, RoomId, StrandId};
use crate::identity::Identity;
use crate::limits;
use crate::sign::{SIGNATURE_LEN, SignedError, VerifyKey};

/// Where a strand stands: what the next run of it must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StrandEnd {
    /// The strand.
    #[n(0)]
    pub strand: StrandId,
    /// Sequence number of its next event, from 0.
    #[n(1)]
    pub next: u64,
    /// Link over all its events so far; zeros before the first.
    #[n(2)]
    pub link: Hash,
}

impl StrandEnd {
    /// A strand without events.
    pub fn start(strand: StrandId) -> Self {
        Self { strand, next: 0, link: Hash::ZERO }
    }

    /// The end after `ids`: `link = SHA-256(previous link ‖ EHE id)` for each.
    pub fn after(mut self, ids: &[EheId]) -> Self {
        for id in ids {
            let mut hash = Sha256::new();
            hash.update(self.link.0);
            hash.update(id.0);
            self.link = Hash(hash.finalize().into());
            self.next = self.next.saturating_add(1);
        }
        self
    }
}

/// The newest checkpoint that the author verified: a rewritten history contradicts it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SeenCheckpoint {
    /// Origin line of the log.
    #[n(0)]
    pub origin: String,
    /// Leaves.
    #[n(1)]
    pub size: u64,
    /// Merkle root.
    #[n(2)]
    pub root: Hash,
}

/// What an author signs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Run {
    /// The room of all events.
    #[n(0)]
    pub room: RoomId,
    /// The author of all events.
    #[n(1)]
    pub author: AuthorId,
    /// Strand, first sequence number and previous link.
    #[n(2)]
    pub from: StrandEnd,
    /// The ids, in order.
    #[cbor(n(3), with = "ids")]
    pub ids: Vec<EheId>,
    /// The newest checkpoint that the author verified, if any.
    #[n(4)]
    pub seen: Option<SeenCheckpoint>,
    /// In a strand's first run: where the author's strand before it ended, if that is known.
    #[n(5)]
    pub continues: Option<StrandEnd>,
}

/// The ids as one byte string of 32 bytes each: 256 of them cost 256 × 32 + 3 bytes.
mod ids {
    use super::{EheId, limits};
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};

    pub(super) fn encode<C, W: Write>(
        ids: &[EheId],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let joined: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
        e.bytes(&joined)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<EheId>, Error> {
        let (ids, rest) = d.bytes()?.as_chunks::<32>();
        if ids.is_empty() || ids.len() > limits::RUN_EVENTS_MAX || !rest.is_empty() {
            return Err(Error::message("a run names 1 to 256 events by 32 bytes each"));
        }
        Ok(ids.iter().copied().map(EheId).collect())
    }
}

impl Run {
    /// The strand's end after this run.
    pub fn end(&self) -> StrandEnd {
        self.from.after(&self.ids)
    }

    /// Signs the run. The author must be `identity`.
    pub fn sign(&self, identity: &Identity) -> SignedRun {
        SignedRun(cose::sign(identity, Domain::Run, cbor::to_vec(self)))
    }
}

/// A signed run as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct SignedRun(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

impl SignedRun {
    /// What the ledger's leaf holds of the run.
    pub fn hash(&self) -> Hash {
        sha256(&self.0)
    }

    /// Puts a signed run together again from a run and the signature that it came with.
    pub fn assemble(run: &Run, signature: [u8; SIGNATURE_LEN]) -> Self {
        Self(cose::assemble(run.author, cbor::to_vec(run), signature))
    }

    /// Decodes the run; its signature is not checked yet.
    pub fn decode(&self) -> Result<UnverifiedRun, SignedError> {
        let cose = Unverified::decode(&self.0, limits::RUN_MAX_BYTES)?;
        let run: Run = cbor::from_slice(cose.payload(), limits::RUN_MAX_BYTES)?;
        if run.author != cose.signer() {
            return Err(SignedError::OtherAuthor);
        }
        if run.seen.as_ref().is_some_and(|seen| seen.origin.len() > limits::ORIGIN_MAX_BYTES) {
            return Err(SignedError::Limit("the origin of the seen checkpoint is too long"));
        }
        if run.from.next == 0 && run.from.link != Hash::ZERO {
            return Err(SignedError::Cbor(CborError::Shape("a strand begins with a link of zeros".into())));
        }
        if run.from.next.checked_add(u64::try_from(run.ids.len()).unwrap_or(u64::MAX)).is_none() {
            return Err(SignedError::Limit("a strand has no more than 2^64 - 1 events"));
        }
        if run.continues.is_some() && run.from.next != 0 {
            return Err(SignedError::Cbor(CborError::Shape("only a strand's first run names another strand".into())));
        }
        Ok(UnverifiedRun { run, cose, hash: self.hash() })
    }
}

/// A well-formed run whose signature nobody has checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedRun {
    run: Run,
    cose: Unverified,
    hash: Hash,
}

impl UnverifiedRun {
    /// What it claims, for looking up the author's key.
    pub fn claims(&self) -> &Run {
        &self.run
    }

    /// The signature, unchecked: with the run it makes the signed bytes ([`SignedRun::assemble`]).
    pub fn signature(&self) -> [u8; SIGNATURE_LEN] {
        self.cose.signature()
    }

    /// Verifies the signature; the caller vouches that `key` is the author's.
    pub fn verify(self, key: &VerifyKey) -> Result<VerifiedRun, SignedError> {
        self.cose.verify(Domain::Run, key)?;
        Ok(VerifiedRun { run: self.run, hash: self.hash })
    }

    /// Takes the signature as checked: for a replica that applies what the ordering party verified (DESIGN: the ordering
    /// party verifies content, every replica verifies control).
    pub fn trust_ordering_party(self) -> VerifiedRun {
        VerifiedRun { run: self.run, hash: self.hash }
    }
}

/// A run whose signature stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRun {
    run: Run,
    hash: Hash,
}

impl VerifiedRun {
    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// SHA-256 of the signed run.
    pub fn hash(&self) -> Hash {
        self.hash
    }
}
