//! Ed25519 (RFC 8032), strict verification: the one rule for what the ledger accepts as a signature (SPEC 2, I2).
//!
//! Implementations disagree on keys and points of small order and on encodings that are not canonical. The rule here is that of
//! ed25519-dalek's `verify_strict`, and that the key's encoding is canonical: both are looked for in the bytes, then AWS-LC
//! computes `[S]B − [k]A` without the cofactor and compares its encoding with R byte by byte (about 30 µs where dalek takes 100).
//! Tests hold the two against each other and against the published edge cases. Signing is dalek's: as quick.

use aws_lc_rs::signature::{ED25519, VerificationAlgorithm};
use ed25519_dalek::{Signer, SigningKey};
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
    /// Verifies strictly: no malleable signature, no key or R of small order, no key that is not canonical.
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<(), BadSignature> {
        let (r, _) = signature.split_first_chunk::<32>().ok_or(BadSignature)?;
        // R is canonical if it is equal to what is computed; so are its eight forbidden values.
        if !is_canonical(&self.0) || is_of_small_order(&self.0) || is_of_small_order(r) {
            return Err(BadSignature);
        }
        ED25519.verify_sig(&self.0, message, signature).map_err(|_| BadSignature)
    }
}

/// The y-coordinates of the eight points whose order divides 8, in canonical encoding: 0, 1, −1 and those of order 8.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    [0; 32],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// An encoded point without the sign of its x.
fn y_of(point: &[u8; 32]) -> [u8; 32] {
    let mut y = *point;
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    y
}

fn is_of_small_order(point: &[u8; 32]) -> bool {
    SMALL_ORDER_Y.contains(&y_of(point))
}

/// Whether y is below the field's prime 2^255 − 19. (The two points with x = 0 are of small order.)
fn is_canonical(point: &[u8; 32]) -> bool {
    match y_of(point) {
        [first, middle @ .., 0x7f] => first < 0xed || middle.iter().any(|byte| *byte != 0xff),
        _ => true,
    }
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
    use crate::id::unhex;
    use crate::test_rng::rng;
    use ed25519_dalek::{Signature, VerifyingKey};
    use proptest::prelude::*;

    fn reference(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(key)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }

    /// The cases of Chalkias, Garillot, Nikolaenko: "Taming the many EdDSAs" (2020), as published in ed25519-speccheck.
    const EDGE_CASES: [(&str, &str, &str, bool); 12] = [
        // 0: S = 0, small A, small R
        (
            "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a0000000000000000000000000000000000000000000000000000000000000000",
            false,
        ),
        // 1: small A, mixed R
        (
            "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
            false,
        ),
        // 2: mixed A, small R
        (
            "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
            "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
            false,
        ),
        // 3: mixed A and R, the equation holds without the cofactor
        (
            "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
            "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
            "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
            true,
        ),
        // 4: mixed A and R, the equation holds with the cofactor only
        (
            "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
            "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
            "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed5125ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
            false,
        ),
        // 5: mixed A, R of full order, with the cofactor only
        (
            "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
            "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
            "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
            false,
        ),
        // 6: S above the group's order
        (
            "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
            "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
            "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
            false,
        ),
        // 7: S far above it
        (
            "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
            "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
            "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa19427e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
            false,
        ),
        // 8, 9: small R that is not canonical
        (
            "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
            "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff03be9678ac102edcd92b0210bb34d7428d12ffc5df5f37e359941266a4e35f0f",
            false,
        ),
        (
            "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
            "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffca8c5b64cd208982aa38d4936621a4775aa233aa0505711d8fdcfdaa943d4908",
            false,
        ),
        // 10, 11: small A that is not canonical
        (
            "e96b7021eb39c1a163b6da4e3093dcd3f21387da4cc4572be588fafae23c155b",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
            false,
        ),
        (
            "39a591f5321bbe07fd5a23dc2f39d025d74526615746727ceefd6e82ae65c06f",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
            false,
        ),
    ];

    #[test]
    fn the_published_edge_cases_have_the_verdict_of_the_strict_rule() {
        for (number, (message, key, signature, expected)) in EDGE_CASES.iter().enumerate() {
            let (message, key) = (unhex::<32>(message).unwrap(), unhex::<32>(key).unwrap());
            let signature = unhex::<64>(signature).unwrap();
            assert_eq!(VerifyKey(key).verify(&message, &signature).is_ok(), *expected, "case {number}");
            assert_eq!(reference(&key, &message, &signature), *expected, "case {number}, dalek");
        }
    }

    #[test]
    fn all_points_of_small_order_and_no_others_are_known_by_their_bytes() {
        let mut points = 0;
        for y in SMALL_ORDER_Y {
            for sign in [0, 0x80] {
                let mut point = y;
                point[31] |= sign;
                assert!(VerifyingKey::from_bytes(&point).unwrap().is_weak());
                assert!(is_canonical(&point) && is_of_small_order(&point));
                points += 1;
            }
        }
        assert_eq!(points, 10); // eight, and the two of x = 0 with a sign
        for seed in 0..50 {
            let key = SignKey::generate(&mut rng(seed)).verify_key();
            assert!(is_canonical(&key.0) && !is_of_small_order(&key.0));
        }
    }

    #[test]
    fn a_key_whose_y_is_not_below_the_prime_is_refused() {
        // 2^255 − 19 + n for n = 0 to 18: where that is a point, dalek takes it for y = n.
        for n in 0..19u8 {
            for sign in [0x7f, 0xff] {
                let mut point = [0xff; 32];
                (point[0], point[31]) = (0xed + n, sign);
                assert!(!is_canonical(&point));
                assert!(VerifyKey(point).verify(b"", &[0; 64]).is_err());
            }
        }
        let mut largest = [0xff; 32];
        (largest[0], largest[31]) = (0xec, 0x7f);
        assert!(is_canonical(&largest));
        largest[7] = 0xfe;
        largest[0] = 0xff;
        assert!(is_canonical(&largest));
    }

    proptest! {
        #[test]
        fn altered_signatures_keys_and_messages_have_the_reference_verdict(
            seed: u64, message in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..(64 + 32), bit in 0u8..8, altered: bool
        ) {
            let key = SignKey::generate(&mut rng(seed));
            let (mut public, mut signature) = (key.verify_key().0, key.sign(&message));
            if altered {
                let byte = if at < 64 { &mut signature[at] } else { &mut public[at - 64] };
                *byte ^= 1 << bit;
            }
            let verdict = VerifyKey(public).verify(&message, &signature).is_ok();
            prop_assert_eq!(verdict, !altered);
            prop_assert_eq!(verdict, reference(&public, &message, &signature));
        }
    }
}
