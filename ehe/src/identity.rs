//! Identities: an Ed25519 key that signs and an X-Wing key that receives (DESIGN: keys and authority; SPEC 2).

use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};

use crate::id::AuthorId;
use crate::kem::{KemPublic, KemSecret};
use crate::sign::{SignKey, VerifyKey};

/// The public half of an identity. Its author id follows from it, so it proves itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PublicIdentity {
    /// Verifies what the identity signs.
    #[n(0)]
    pub sign: VerifyKey,
    /// Receives what is wrapped for the identity.
    #[n(1)]
    pub kem: KemPublic,
}

impl PublicIdentity {
    /// SHA-256 of the signing key and the encryption key, truncated to 16 bytes.
    pub fn author_id(&self) -> AuthorId {
        let mut hash = Sha256::new();
        hash.update(self.sign.0);
        hash.update(self.kem.as_bytes());
        AuthorId::truncated(&hash.finalize().into())
    }
}

/// Both secret keys of an identity, and its public half ready made (making it costs an ML-KEM key generation).
#[derive(Debug, Clone)]
pub struct Identity {
    sign: SignKey,
    kem: KemSecret,
    public: PublicIdentity,
    author: AuthorId,
}

impl Identity {
    /// The identity of two secret keys.
    pub fn new(sign: SignKey, kem: KemSecret) -> Self {
        let public = PublicIdentity { sign: sign.verify_key(), kem: kem.public() };
        let author = public.author_id();
        Self { sign, kem, public, author }
    }

    /// A new identity.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let sign = SignKey::generate(rng);
        Self::new(sign, KemSecret::generate(rng))
    }

    /// Signs in the identity's name.
    pub fn sign_key(&self) -> &SignKey {
        &self.sign
    }

    /// Opens what was wrapped for the identity.
    pub fn kem_secret(&self) -> &KemSecret {
        &self.kem
    }

    /// The public half.
    pub fn public(&self) -> &PublicIdentity {
        &self.public
    }

    /// Who this is in the ledger.
    pub fn author_id(&self) -> AuthorId {
        self.author
    }
}
