//! Identities: an Ed25519 key that signs and an X-Wing key that receives (DESIGN: keys and authority; SPEC 2).

use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};

use crate::id::{AuthorId, Hash};
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
    /// The id of these keys: SHA-256 of the signing key and the encryption key, truncated to 16 bytes (I1). It is the author id of
    /// whoever began with them, and stays it when a room's owner rotates to other keys.
    pub fn author_id(&self) -> AuthorId {
        AuthorId::truncated(&self.commitment().0)
    }

    /// The same hash, whole: what commits a room to a recovery identity (I3).
    pub fn commitment(&self) -> Hash {
        let mut hash = Sha256::new();
        hash.update(self.sign.0);
        hash.update(self.kem.as_bytes());
        Hash(hash.finalize().into())
    }
}

/// Somebody in a room, as a recipient: by which id the ledger names it, and which keys it has now. The two go apart when a room's
/// owner rotates the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party<'a> {
    /// Its author id.
    pub id: AuthorId,
    /// Its present keys.
    pub keys: &'a PublicIdentity,
}

impl<'a> Party<'a> {
    /// Somebody who has the keys that its id was made of: everybody but an owner who rotated them.
    pub fn of(keys: &'a PublicIdentity) -> Self {
        Self { id: keys.author_id(), keys }
    }
}

/// Both secret keys of an identity, its author id, and its public half ready made (making it costs an ML-KEM key generation).
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

    /// Who this is in the ledger: the id of its keys, unless [`Identity::acting_as`] says otherwise.
    pub fn author_id(&self) -> AuthorId {
        self.author
    }

    /// The same keys in a room whose owner rotated to them: there the author id is that of the owner's first keys.
    pub fn acting_as(&self, author: AuthorId) -> Self {
        Self { author, ..self.clone() }
    }

    /// This identity as a recipient.
    pub fn party(&self) -> Party<'_> {
        Party { id: self.author, keys: &self.public }
    }
}
