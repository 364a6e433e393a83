//! Sealing a body: key, nonce, commitment, associated data, padding (SPEC 5).
//!
//! ```text
//! key ‖ nonce ‖ commitment = HKDF-SHA256(ikm = EK, salt = core.salt, info = "ehe/1 seal" ‖ 0 ‖ core)   32 + 12 + 32 bytes
//! body                     = ChaCha20-Poly1305(key, nonce, aad = SHA-256(core), pad(plaintext))
//! header                   = core, commitment, SHA-256(body)
//! ```
//!
//! Of opening a window of 60 readings and reading its columns, the columns take half, HKDF a sixth (18 blocks of SHA-256), the header
//! and the hashes of it and the body an eighth, the cipher a twentieth. The cipher is AWS-LC's: in pure Rust it took half of the
//! whole. A test holds it against the `chacha20poly1305` crate.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce as AeadNonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::cbor;
use crate::event::{CheckedEvent, Core, Event, sha256};
use crate::id::Hash;
use crate::kem::Secret32;
use crate::limits;

/// Length of the authentication tag in bytes.
const TAG_LEN: usize = 16;

/// Why a body was not sealed. The caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} bytes of plaintext do not fit a body of at most {limit} bytes")]
pub struct TooLong {
    limit: usize,
    found: usize,
}

/// Why a body was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key is not the one that the event commits to: the wrong wrap, or a forged event.
    #[error("the key is not the one that the event commits to")]
    OtherKey,
    /// Altered after sealing.
    #[error("the body was altered")]
    Altered,
    /// Sealed by a faulty program: padding is not 0x80 and zeros, or not to the prescribed length.
    #[error("the padding is not what the format prescribes")]
    Padding,
}

struct Derived {
    key: Zeroizing<[u8; 32]>,
    nonce: [u8; 12],
    commitment: Hash,
}

impl Derived {
    /// The cipher's key and nonce. AWS-LC clears its copy of the key when it frees it.
    fn cipher(&self) -> Result<(LessSafeKey, AeadNonce), Unspecified> {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, self.key.as_slice())?);
        Ok((key, AeadNonce::assume_unique_for_key(self.nonce)))
    }
}

fn derive(ek: &Secret32, core: &Core, core_bytes: &[u8]) -> Derived {
    let mut okm = Zeroizing::new([0u8; 76]);
    // 76 bytes is far below HKDF's limit of 255 blocks, so expanding cannot fail.
    let expanded = Hkdf::<Sha256>::new(Some(&core.salt.0), ek.as_slice())
        .expand_multi_info(&[b"ehe/1 seal\0", core_bytes], okm.as_mut());
    debug_assert!(expanded.is_ok());
    let mut derived = Derived { key: Zeroizing::new([0; 32]), nonce: [0; 12], commitment: Hash::ZERO };
    let (key, rest) = okm.split_at(32);
    let (nonce, commitment) = rest.split_at(12);
    derived.key.copy_from_slice(key);
    derived.nonce.copy_from_slice(nonce);
    derived.commitment.0.copy_from_slice(commitment);
    derived
}

/// Length of the body for a plaintext of `len` bytes: marker and tag added, rounded up by Padmé (Nikitin et al. 2019), never
/// below the floor. Leaks at most log2(log2(length)) bits of the length, at a cost below 12 %.
pub fn padded_body_len(len: usize) -> usize {
    let len = (len + 1 + TAG_LEN).max(limits::BODY_FLOOR_BYTES);
    let exponent = len.ilog2();
    let mantissa_bits = exponent.ilog2() + 1;
    let mask = (1usize << (exponent - mantissa_bits)) - 1;
    (len + mask) & !mask
}

/// Seals a plaintext under an event key. The core's salt must be fresh.
pub fn seal(ek: &Secret32, core: Core, plaintext: &[u8]) -> Result<CheckedEvent, TooLong> {
    let limit = core.kind.body_limit();
    let body_len = padded_body_len(plaintext.len());
    if body_len > limit {
        return Err(TooLong { limit, found: plaintext.len() });
    }
    let core_bytes = cbor::to_vec(&core);
    let derived = derive(ek, &core, &core_bytes);
    let mut body = Vec::with_capacity(body_len);
    body.extend_from_slice(plaintext);
    body.push(0x80);
    body.resize(body_len - TAG_LEN, 0);
    let aad = Aad::from(sha256(&core_bytes).0);
    let sealed = derived.cipher().and_then(|(key, nonce)| key.seal_in_place_separate_tag(nonce, aad, &mut body));
    // The key has its right length and the body is far below the cipher's limit, so sealing cannot fail.
    let tag = sealed.map_err(|_| TooLong { limit, found: plaintext.len() })?;
    body.extend_from_slice(tag.as_ref());
    Ok(Event::assemble(core, derived.commitment, body))
}

/// Opens a sealed body with its event key: commitment first, then the tag, then the padding.
pub fn open(ek: &Secret32, event: &CheckedEvent) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    open_body(ek, event.core(), event.header().commitment, event.body())
}

/// Opens `body` as sealed under `core`; control events seal only a part of their body ([`crate::control`]).
pub(crate) fn open_body(
    ek: &Secret32,
    core: &Core,
    commitment: Hash,
    body: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let core_bytes = cbor::to_vec(core);
    let derived = derive(ek, core, &core_bytes);
    // Not secret: the commitment is public, so an ordinary comparison does.
    if derived.commitment != commitment {
        return Err(OpenError::OtherKey);
    }
    let (ciphertext, tag) = body.split_last_chunk::<TAG_LEN>().ok_or(OpenError::Altered)?;
    let mut plain = Zeroizing::new(vec![0; ciphertext.len()]);
    let aad = Aad::from(sha256(&core_bytes).0);
    (derived.cipher())
        .and_then(|(key, nonce)| key.open_separate_gather(nonce, aad, ciphertext, tag, &mut plain))
        .map_err(|_| OpenError::Altered)?;
    let end = plain.iter().rposition(|&byte| byte != 0).ok_or(OpenError::Padding)?;
    if plain.get(end) != Some(&0x80) || padded_body_len(end) != body.len() {
        return Err(OpenError::Padding);
    }
    plain.truncate(end);
    Ok(plain)
}

/// The sealed bytes alone, with the commitment: for the sealed part of a control event.
pub(crate) fn seal_part(ek: &Secret32, core: &Core, plaintext: &[u8]) -> Result<(Hash, Vec<u8>), TooLong> {
    let sealed = seal(ek, core.clone(), plaintext)?;
    let commitment = sealed.header().commitment;
    Ok((commitment, sealed.into_event().body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Kind, Suite, VERSION};
    use crate::id::{AuthorId, EpochId, Nonce, RoomId, WrapId};
    use crate::kem::random_secret;
    use crate::test_rng::rng;
    use crate::time::Hour;

    fn core() -> Core {
        Core {
            version: VERSION,
            suite: Suite::One,
            kind: Kind::Vitals,
            room: RoomId([1; 16]),
            author: AuthorId([2; 16]),
            epoch: EpochId([3; 16]),
            wrap: WrapId([4; 16]),
            hour: Hour(480_000),
            salt: Nonce([5; 16]),
        }
    }

    #[test]
    fn what_was_sealed_opens_with_its_key_and_no_other() {
        let (ek, other) = (random_secret(&mut rng(1)), random_secret(&mut rng(2)));
        for len in [0, 1, 200, 239, 240, 241, 5000, 60_000] {
            let plain: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let event = seal(&ek, core(), &plain).unwrap();
            let event = event.into_event().check().unwrap();
            assert_eq!(open(&ek, &event).unwrap().as_slice(), plain.as_slice());
            assert_eq!(open(&other, &event).unwrap_err(), OpenError::OtherKey);
        }
        assert!(seal(&ek, core(), &vec![0; 70_000]).is_err());
    }

    #[test]
    fn the_body_is_what_the_reference_implementation_makes_of_key_nonce_and_core() {
        use chacha20poly1305::aead::{Aead, KeyInit, Payload};
        let ek = random_secret(&mut rng(1));
        for len in [0, 1, 168, 239, 240, 5000, 60_000] {
            let plain: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let core_bytes = cbor::to_vec(&core());
            let Derived { key, nonce, commitment } = derive(&ek, &core(), &core_bytes);
            let mut padded = plain.clone();
            padded.push(0x80);
            padded.resize(padded_body_len(len) - TAG_LEN, 0);
            let aad = sha256(&core_bytes).0;
            let payload = Payload { msg: &padded, aad: &aad };
            let cipher = chacha20poly1305::ChaCha20Poly1305::new(&(*key).into());
            let event = seal(&ek, core(), &plain).unwrap();
            assert_eq!(event.body(), cipher.encrypt(&nonce.into(), payload).unwrap());
            assert_eq!(event.header().commitment, commitment);
        }
    }

    #[test]
    fn a_body_of_up_to_239_bytes_takes_256() {
        assert_eq!(padded_body_len(0), 256);
        assert_eq!(padded_body_len(239), 256);
        assert!(padded_body_len(240) > 256);
        for len in 0..70_000 {
            let padded = padded_body_len(len);
            assert!(padded >= len + 17 && (padded <= 256 || padded * 100 <= (len + 17) * 112), "{len} -> {padded}");
        }
    }

    #[test]
    fn an_altered_core_or_body_does_not_open() {
        let ek = random_secret(&mut rng(1));
        let event = seal(&ek, core(), b"36.40").unwrap();
        let mut moved = event.clone().into_event();
        let mut header = crate::event::decode_header(&moved.header).unwrap();
        header.core.room = RoomId([9; 16]);
        moved.header = cbor::to_vec(&header);
        assert_eq!(open(&ek, &moved.check().unwrap()).unwrap_err(), OpenError::OtherKey);

        let mut body = event.body().to_vec();
        body[7] ^= 1;
        assert_eq!(open_body(&ek, event.core(), event.header().commitment, &body).unwrap_err(), OpenError::Altered);
        let mut bytes = event.into_event();
        bytes.body[7] ^= 1;
        assert!(matches!(bytes.check(), Err(crate::event::EventError::OtherBody)));
    }
}
