//! Ed25519 (RFC 8032), strict verification: the one rule for what the ledger accepts as a signature.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::cbor::CborError;

/// Length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// A signature does not stand for the message under the key, or the key is none (RFC 8032; small-order keys and
/// non-canonical encodings are refused too). The sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Ed25519 signature does not verify")]
pub struct BadSignature;

/// A public Ed25519 key as it stands in the ledger. Whether it is a point is known when it first verifies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifyKey(pub [u8; 32]);

impl VerifyKey {
    /// Verifies by the one rule that the SPEC writes down (I2): dalek's `verify_strict`, which refuses S above the order, points of
    /// small order and an R that is not canonical; and besides a key that is not, which dalek would take.
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<(), BadSignature> {
        if !is_canonical(&self.0) {
            return Err(BadSignature);
        }
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        key.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| BadSignature)
    }
}

/// Whether an encoded point's y is below the field's order 2^255 − 19. (Where x is 0 the point has small order anyway.)
fn is_canonical(point: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = point;
    *low < 0xed || high & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

impl core::fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "VerifyKey({})", crate::id::hex(&self.0))
    }
}

impl<C> minicbor::Encode<C> for VerifyKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for VerifyKey {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = d.bytes()?;
        <[u8; 32]>::try_from(bytes)
            .map(Self)
            .map_err(|_| minicbor::decode::Error::message("an Ed25519 public key has 32 bytes"))
    }
}

/// A secret Ed25519 key; its memory is cleared when it goes.
#[derive(Clone)]
pub struct SignKey(SigningKey);

impl SignKey {
    /// The key of a 32-byte seed (RFC 8032 §5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// A new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0u8; 32]);
        rng.fill_bytes(seed.as_mut());
        Self::from_seed(&seed)
    }

    /// The seed, for the one file that keeps it.
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey(self.0.verifying_key().to_bytes())
    }

    /// Signs. Callers go through [`crate::cose`] or [`crate::note`], which separate domains.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(message).to_bytes()
    }
}

impl core::fmt::Debug for SignKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SignKey(of {:?})", self.verify_key())
    }
}

/// Why signed bytes are not accepted. The sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// Not the deterministic encoding of the expected structure.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// The structure is right, its header is not ours (algorithm, content).
    #[error("unexpected COSE header: {0}")]
    Header(&'static str),
    /// The signature does not verify.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// The named signer is not the one whose key was given.
    #[error("signed in the name of another author")]
    OtherAuthor,
    /// A member is outside its limit.
    #[error("{0}")]
    Limit(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_canonical_below_the_fields_order_only() {
        let order = |low: u8, high: u8| {
            let mut bytes = [0xff; 32];
            bytes[0] = low;
            bytes[31] = high;
            bytes
        };
        for (point, canonical) in [
            (order(0xec, 0x7f), true),
            (order(0xec, 0xff), true),
            (order(0xed, 0x7f), false),
            (order(0xff, 0xff), false),
            (order(0xff, 0x7e), true),
            ([0; 32], true),
        ] {
            assert_eq!(is_canonical(&point), canonical, "{point:02x?}");
        }
    }
}
