//! The recovery key: 32 random bytes on paper, from which a whole identity follows (SPEC 2).
//!
//! It is a second recipient of everything that the patient can open, and signs the record that gives the patient new keys. Whoever
//! holds the paper is the patient.

use core::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::identity::Identity;
use crate::kem::{KemSecret, Secret32, random_secret};
use crate::sign::SignKey;

/// What a printed key begins with.
const PREFIX: &str = "ehe-recovery";
/// Characters in a group of the printed form.
const GROUP: usize = 4;
/// Longest text that is looked at: the key takes 71 characters, blanks not counted.
const TEXT_MAX_BYTES: usize = 512;

/// A recovery key. It is printed once and kept nowhere.
#[derive(Clone)]
pub struct RecoveryKey(Secret32);

/// Why a text is no recovery key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryKeyError {
    /// It does not begin like one.
    #[error("not a recovery key: it begins with {PREFIX}1")]
    Prefix,
    /// Characters are wrong, missing or swapped.
    #[error("the recovery key is mistyped: its checksum does not fit; compare it with the paper, letter by letter")]
    Checksum,
}

impl RecoveryKey {
    /// A new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(random_secret(rng))
    }

    /// The identity: two seeds by HKDF-SHA256, without salt, `info` telling them apart.
    pub fn identity(&self) -> Identity {
        let seed = |info: &[u8]| {
            let mut seed = Zeroizing::new([0u8; 32]);
            // 32 bytes is far below HKDF's limit of 255 blocks, so expanding cannot fail.
            let expanded = Hkdf::<Sha256>::new(None, self.0.as_slice()).expand(info, seed.as_mut());
            debug_assert!(expanded.is_ok());
            seed
        };
        let sign = SignKey::from_seed(&seed(b"ehe/1 recovery sign"));
        Identity::new(sign, KemSecret::from_seed(seed(b"ehe/1 recovery kem")))
    }

    /// The printed form: Bech32m (BIP 350), the data in groups for typing.
    pub fn to_text(&self) -> Zeroizing<String> {
        let encoded = Hrp::parse(PREFIX).map(|hrp| bech32::encode::<Bech32m>(hrp, self.0.as_slice()));
        // Cannot fail: the prefix is one, and the text is shorter than the code allows.
        let encoded = Zeroizing::new(encoded.ok().and_then(Result::ok).unwrap_or_default());
        let (prefix, data) = encoded.split_at_checked(PREFIX.len() + 1).unwrap_or_default();
        let mut text = Zeroizing::new(String::with_capacity(2 * encoded.len()));
        text.push_str(prefix);
        for (at, letter) in data.chars().enumerate() {
            if at % GROUP == 0 {
                text.push(' ');
            }
            text.push(letter);
        }
        text
    }
}

impl FromStr for RecoveryKey {
    type Err = RecoveryKeyError;

    /// Reads the printed form; blanks and line ends do not matter, and either case will do, but not both.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(RecoveryKeyError::Prefix);
        }
        let text: Zeroizing<String> = Zeroizing::new(text.split_whitespace().collect());
        let (prefix, rest) = text.split_at_checked(PREFIX.len()).ok_or(RecoveryKeyError::Prefix)?;
        if !prefix.eq_ignore_ascii_case(PREFIX) || !rest.starts_with('1') {
            return Err(RecoveryKeyError::Prefix);
        }
        let checked = CheckedHrpstring::new::<Bech32m>(&text).map_err(|_| RecoveryKeyError::Checksum)?;
        let mut key = Zeroizing::new([0u8; 32]);
        let mut bytes = checked.byte_iter();
        for (to, from) in key.iter_mut().zip(bytes.by_ref()) {
            *to = from;
        }
        // Other lengths, and bits left over that are not zero, are another text of the same key: there is only one.
        let key = Self(key);
        let same = key.to_text().split_whitespace().collect::<String>().eq_ignore_ascii_case(&text);
        if same { Ok(key) } else { Err(RecoveryKeyError::Checksum) }
    }
}

impl core::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RecoveryKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rng::rng;

    fn key() -> RecoveryKey {
        RecoveryKey(Zeroizing::new(core::array::from_fn(|i| u8::try_from(i).unwrap())))
    }

    /// Computed with Python: HKDF by `hmac`, Bech32m by BIP 350's reference code.
    #[test]
    fn the_text_and_the_identity_of_a_key_are_what_another_implementation_makes_of_it() {
        assert_eq!(*key().to_text(), TEXT);
        assert_eq!(crate::id::hex(&key().identity().sign_key().to_seed()[..]), SIGN_SEED);
        assert_eq!(crate::id::hex(&key().identity().kem_secret().seed()[..]), KEM_SEED);
    }

    const TEXT: &str = "ehe-recovery1 qqqs yqcy q5rq wzqf pg9s crgw pugp zysn zs23 v9cc rydp k8qa rc0s xvyy y2";
    const SIGN_SEED: &str = "1421d3dc5cb0658fe06d03f96e13065f3895f1f099e5a1b0e5af45695d62868e";
    const KEM_SEED: &str = "3d1224486ca7bef2b4f90824e98283bcaa7a63be25c9191b4d791f7cbe4420e4";

    #[test]
    fn what_was_printed_is_read_again_however_it_was_broken_into_lines() {
        for seed in 0..20 {
            let key = RecoveryKey::generate(&mut rng(seed));
            let text = key.to_text();
            for typed in [
                text.to_string(),
                text.replace(' ', ""),
                text.replace(' ', "\n  "),
                text.to_uppercase(),
                format!("  {}\r\n", text.as_str()),
            ] {
                let read: RecoveryKey = typed.parse().unwrap();
                assert_eq!(read.identity().public(), key.identity().public(), "{typed}");
            }
        }
    }

    #[test]
    fn each_mistyped_letter_and_each_swap_of_neighbours_is_noticed() {
        let text = key().to_text().replace(' ', "");
        let start = PREFIX.len() + 1;
        for at in start..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'q' { b'p' } else { b'q' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(wrong.parse::<RecoveryKey>().unwrap_err(), RecoveryKeyError::Checksum, "{wrong}");
            let mut swapped = text.clone().into_bytes();
            if at + 1 < text.len() && swapped[at] != swapped[at + 1] {
                swapped.swap(at, at + 1);
                assert!(String::from_utf8(swapped).unwrap().parse::<RecoveryKey>().is_err(), "{at}");
            }
        }
        assert!(text[..text.len() - 1].parse::<RecoveryKey>().is_err());
        assert!(format!("{text}q").parse::<RecoveryKey>().is_err());
    }

    #[test]
    fn another_text_is_no_recovery_key_whatever_it_is() {
        let other = Hrp::parse("ehe").unwrap();
        let other = bech32::encode::<Bech32m>(other, &[1; 32]).unwrap();
        let hrp = Hrp::parse(PREFIX).unwrap();
        let short = bech32::encode::<Bech32m>(hrp, &[1; 31]).unwrap();
        let long = bech32::encode::<Bech32m>(hrp, &[1; 33]).unwrap();
        let old = bech32::encode::<bech32::Bech32>(hrp, &[1; 32]).unwrap();
        for text in ["", "ehe-recovery", "ehe-recovery1", "ä", "ehe-recoverä1qqqq", &other, &short, &long, &old] {
            assert!(text.parse::<RecoveryKey>().is_err(), "{text}");
        }
        assert!("q".repeat(10_000).parse::<RecoveryKey>().is_err());
    }
}
