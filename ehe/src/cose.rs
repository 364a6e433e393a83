//! COSE_Sign1 (RFC 9052 §4.2) with EdDSA, in deterministic CBOR; a domain tag as external data keeps signatures apart.
//!
//! Written on minicbor: `coset` parses through ciborium and would force a second encoding of every run. A test holds both
//! against each other.

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::id::AuthorId;
use crate::identity::Identity;
use crate::sign::{SIGNATURE_LEN, SignedError, VerifyKey};

/// What a signature is for. The text is the `external_aad` of the Sig_structure: a signature never stands for two purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A run of events.
    Run,
    /// A read request.
    ReadRequest,
    /// A member's approval of a charter.
    Charter,
    /// A request for a channel certificate.
    Enrolment,
    /// A node's statement of a room's head.
    Head,
    /// Proof that a room's new owner keys are held by who names them.
    Possession,
    /// A member's approval of what was kept of a lost log.
    Restoration,
    /// A node's statement of what is in a backup that it made.
    Backup,
}

impl Domain {
    fn tag(self) -> &'static [u8] {
        match self {
            Self::Run => b"ehe/1 run",
            Self::ReadRequest => b"ehe/1 read request",
            Self::Charter => b"ehe/1 charter",
            Self::Enrolment => b"ehe/1 enrolment",
            Self::Head => b"ehe/1 head",
            Self::Possession => b"ehe/1 possession",
            Self::Restoration => b"ehe/1 restoration",
            Self::Backup => b"ehe/1 backup",
        }
    }
}

/// Protected header: algorithm (1) = EdDSA (-8), key id (4) = author id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Protected {
    #[n(1)]
    algorithm: i8,
    #[n(4)]
    signer: AuthorId,
}

const EDDSA: i8 = -8;

/// The empty unprotected header.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Unprotected {}

#[derive(Encode, Decode)]
struct Sign1Wire {
    #[cbor(n(0), with = "minicbor::bytes")]
    protected: Vec<u8>,
    #[n(1)]
    unprotected: Unprotected,
    #[cbor(n(2), with = "minicbor::bytes")]
    payload: Vec<u8>,
    #[cbor(n(3), with = "minicbor::bytes")]
    signature: [u8; SIGNATURE_LEN],
}

fn to_be_signed(domain: Domain, protected: &[u8], payload: &[u8]) -> Vec<u8> {
    // Sig_structure = ["Signature1", body_protected, external_aad, payload]
    let (protected, aad, payload): (
        &minicbor::bytes::ByteSlice,
        &minicbor::bytes::ByteSlice,
        &minicbor::bytes::ByteSlice,
    ) = (protected.into(), domain.tag().into(), payload.into());
    cbor::to_vec(&("Signature1", protected, aad, payload))
}

/// Signs a payload in an identity's name; the result is the encoded COSE_Sign1 array, untagged.
pub fn sign(identity: &Identity, domain: Domain, payload: Vec<u8>) -> Vec<u8> {
    let protected = cbor::to_vec(&Protected { algorithm: EDDSA, signer: identity.author_id() });
    let signature = identity.sign_key().sign(&to_be_signed(domain, &protected, &payload));
    assemble(identity.author_id(), payload, signature)
}

/// Puts a structure together again from its parts: for stores that keep no byte twice. Whether the signature stands is not asked.
pub fn assemble(signer: AuthorId, payload: Vec<u8>, signature: [u8; SIGNATURE_LEN]) -> Vec<u8> {
    let protected = cbor::to_vec(&Protected { algorithm: EDDSA, signer });
    cbor::to_vec(&Sign1Wire { protected, unprotected: Unprotected {}, payload, signature })
}

/// A well-formed COSE_Sign1 whose signature nobody has checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    protected: Vec<u8>,
    payload: Vec<u8>,
    signature: [u8; SIGNATURE_LEN],
    signer: AuthorId,
}

impl Unverified {
    /// Decodes the structure, at most `limit` bytes of it.
    pub fn decode(bytes: &[u8], limit: usize) -> Result<Self, SignedError> {
        let wire: Sign1Wire = cbor::from_slice(bytes, limit)?;
        let header: Protected = cbor::from_slice(&wire.protected, 64)?;
        if header.algorithm != EDDSA {
            return Err(SignedError::Header("the algorithm is not EdDSA (-8)"));
        }
        Ok(Self { protected: wire.protected, payload: wire.payload, signature: wire.signature, signer: header.signer })
    }

    /// Who claims to have signed.
    pub fn signer(&self) -> AuthorId {
        self.signer
    }

    /// The signature, unchecked.
    pub fn signature(&self) -> [u8; SIGNATURE_LEN] {
        self.signature
    }

    /// The payload, for looking up the key that it has to verify under.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Verifies; the caller vouches that `key` is the signer's.
    pub fn verify(&self, domain: Domain, key: &VerifyKey) -> Result<(), SignedError> {
        Ok(key.verify(&to_be_signed(domain, &self.protected, &self.payload), &self.signature)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rng::rng;
    use coset::{CborSerializable, CoseSign1, iana};

    #[test]
    fn coset_reads_and_verifies_what_we_sign() {
        let identity = Identity::generate(&mut rng(1));
        let bytes = sign(&identity, Domain::Run, b"payload".to_vec());
        let theirs = CoseSign1::from_slice(&bytes).unwrap();
        assert_eq!(theirs.protected.header.key_id, identity.author_id().0);
        assert_eq!(
            theirs.protected.header.alg,
            Some(coset::RegisteredLabelWithPrivate::Assigned(iana::Algorithm::EdDSA))
        );
        theirs
            .verify_signature(b"ehe/1 run", |signature, message| {
                identity.public().sign.verify(message, signature.try_into().unwrap())
            })
            .unwrap();
        assert_eq!(theirs.to_vec().unwrap(), bytes);
    }

    #[test]
    fn a_signature_for_one_purpose_is_none_for_another() {
        let identity = Identity::generate(&mut rng(2));
        let bytes = sign(&identity, Domain::Run, b"payload".to_vec());
        let parsed = Unverified::decode(&bytes, 1024).unwrap();
        assert_eq!(parsed.verify(Domain::Run, &identity.public().sign), Ok(()));
        assert!(parsed.verify(Domain::ReadRequest, &identity.public().sign).is_err());
        let other = Identity::generate(&mut rng(3));
        assert!(parsed.verify(Domain::Run, &other.public().sign).is_err());
    }

    #[test]
    fn each_flipped_bit_is_noticed() {
        let identity = Identity::generate(&mut rng(4));
        let bytes = sign(&identity, Domain::Run, b"payload".to_vec());
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            let accepted =
                Unverified::decode(&bad, 1024).and_then(|p| p.verify(Domain::Run, &identity.public().sign)).is_ok();
            assert!(!accepted, "bit {at}");
        }
    }
}
