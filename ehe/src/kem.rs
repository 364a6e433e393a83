//! HPKE base mode (RFC 9180) with X-Wing, HKDF-SHA256 and ChaCha20-Poly1305: how a 32-byte secret reaches one recipient.
//!
//! Everything that a wrap is bound to stands in `info`; `aad` is empty, because common one-shot interfaces lack it (SPEC 6).

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::cbor;
use crate::id::{AuthorId, EpochId, Nonce, RoomId};
use crate::time::Day;

/// Length of an X-Wing public key (ML-KEM-768 ‖ X25519) in bytes.
pub const KEM_PUBLIC_LEN: usize = 1216;
/// Length of an X-Wing encapsulation in bytes.
const ENC_LEN: usize = 1120;
/// Length of a wrap: encapsulation, 32 secret bytes, 16 tag bytes.
pub const WRAP_LEN: usize = ENC_LEN + 32 + 16;

/// A 32-byte secret that is being wrapped or was unwrapped.
pub type Secret32 = Zeroizing<[u8; 32]>;

/// Why a wrap was not made or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// The recipient's public key is no X-Wing key: whoever published it is at fault.
    #[error("not an X-Wing public key")]
    BadKey,
    /// The wrap was made for another key or another purpose, or was altered.
    #[error("the wrap does not open: made for another key or purpose, or altered")]
    DoesNotOpen,
}

macro_rules! long_bytes {
    ($(#[$meta:meta])* $name:ident, $n:expr, $what:literal) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(Box<[u8; $n]>);

        impl $name {
            /// Takes exactly the right number of bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                <[u8; $n]>::try_from(bytes).ok().map(|b| Self(Box::new(b)))
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_slice()
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(self.as_bytes())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::from_slice(d.bytes()?).ok_or_else(|| minicbor::decode::Error::message($what))
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}({}…)", stringify!($name), crate::id::hex(self.as_bytes().get(..4).unwrap_or_default()))
            }
        }
    };
}

long_bytes!(
    /// An X-Wing public key as it stands in the ledger.
    KemPublic,
    KEM_PUBLIC_LEN,
    "an X-Wing public key has 1216 bytes"
);
long_bytes!(
    /// A wrapped 32-byte secret: encapsulation ‖ ciphertext.
    Wrapped,
    WRAP_LEN,
    "a wrap has 1168 bytes"
);

/// A secret X-Wing key, kept as its 32-byte seed.
#[derive(Clone)]
pub struct KemSecret(Secret32);

impl KemSecret {
    /// The key of a seed.
    pub fn from_seed(seed: Secret32) -> Self {
        Self(seed)
    }

    /// A new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(random_secret(rng))
    }

    /// The seed, to be wrapped or written to the one file that keeps it.
    pub fn seed(&self) -> &Secret32 {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> KemPublic {
        let mut out = [0u8; KEM_PUBLIC_LEN];
        if let Ok(secret) = self.key() {
            XWing::sk_to_pk(&secret).write_exact(&mut out);
        }
        KemPublic(Box::new(out))
    }

    fn key(&self) -> Result<<XWing as Kem>::PrivateKey, WrapError> {
        // Cannot fail: a seed has the one right length.
        <XWing as Kem>::PrivateKey::from_bytes(self.0.as_slice()).map_err(|_| WrapError::DoesNotOpen)
    }
}

impl core::fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("KemSecret(…)")
    }
}

/// 32 fresh random bytes.
pub fn random_secret(rng: &mut impl CryptoRng) -> Secret32 {
    let mut secret = Zeroizing::new([0u8; 32]);
    rng.fill_bytes(secret.as_mut());
    secret
}

/// What a wrap is bound to: HPKE's `info` is the label, a zero byte, and the deterministic CBOR of the members (SPEC 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrapPurpose {
    /// An event key, wrapped to its epoch's group key.
    EventKey {
        /// Room of the events.
        room: RoomId,
        /// Author (gateway) of the events.
        author: AuthorId,
        /// Epoch whose group key is the recipient.
        epoch: EpochId,
        /// UTC day of the readings.
        day: Day,
    },
    /// A group key's seed, wrapped to a reader.
    GroupSeed {
        /// Room of the epoch.
        room: RoomId,
        /// The epoch.
        epoch: EpochId,
        /// The reader.
        recipient: AuthorId,
    },
    /// The key of a control event's sealed part, wrapped to a party.
    ControlPart {
        /// Room of the event; zero for room-create, whose id is not known before its body.
        room: RoomId,
        /// Author of the event.
        author: AuthorId,
        /// Salt of the event.
        salt: Nonce,
        /// The party.
        recipient: AuthorId,
    },
}

impl WrapPurpose {
    fn info(&self) -> Vec<u8> {
        let (label, members) = match self {
            Self::EventKey { room, author, epoch, day } => ("ehe/1 wrap EK", cbor::to_vec(&(room, author, epoch, day))),
            Self::GroupSeed { room, epoch, recipient } => ("ehe/1 wrap GK", cbor::to_vec(&(room, epoch, recipient))),
            Self::ControlPart { room, author, salt, recipient } => {
                ("ehe/1 wrap part", cbor::to_vec(&(room, author, salt, recipient)))
            }
        };
        let mut info = Vec::with_capacity(label.len() + 1 + members.len());
        info.extend_from_slice(label.as_bytes());
        info.push(0);
        info.extend_from_slice(&members);
        info
    }
}

/// Wraps a secret to a public key for one purpose.
pub fn wrap(
    rng: &mut impl CryptoRng,
    to: &KemPublic,
    purpose: &WrapPurpose,
    secret: &Secret32,
) -> Result<Wrapped, WrapError> {
    let key = <XWing as Kem>::PublicKey::from_bytes(to.as_bytes()).map_err(|_| WrapError::BadKey)?;
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeS::Base,
        &key,
        &purpose.info(),
        secret.as_slice(),
        &[],
        rng,
    )
    .map_err(|_| WrapError::BadKey)?;
    let mut bytes = enc.to_bytes().to_vec();
    bytes.extend_from_slice(&ciphertext);
    Wrapped::from_slice(&bytes).ok_or(WrapError::BadKey)
}

/// Opens a wrap that was made for this key and this purpose.
pub fn unwrap(secret: &KemSecret, purpose: &WrapPurpose, wrapped: &Wrapped) -> Result<Secret32, WrapError> {
    let (enc, ciphertext) = wrapped.as_bytes().split_at_checked(ENC_LEN).ok_or(WrapError::DoesNotOpen)?;
    let enc = <XWing as Kem>::EncappedKey::from_bytes(enc).map_err(|_| WrapError::DoesNotOpen)?;
    let plain = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeR::Base,
        &secret.key()?,
        &enc,
        &purpose.info(),
        ciphertext,
        &[],
    )
    .map(Zeroizing::new)
    .map_err(|_| WrapError::DoesNotOpen)?;
    let mut out = Zeroizing::new([0u8; 32]);
    if plain.len() != out.len() {
        return Err(WrapError::DoesNotOpen);
    }
    out.copy_from_slice(&plain);
    Ok(out)
}

/// Whether the bytes are an X-Wing public key: what nodes check before such a key enters the ledger.
pub fn is_public_key(key: &KemPublic) -> bool {
    <XWing as Kem>::PublicKey::from_bytes(key.as_bytes()).is_ok()
}
