//! What holds a secret shows none of it to whoever prints it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use core::fmt::Debug;

use ehe::id::hex;
use ehe::identity::Identity;
use ehe::kem::{KemSecret, Secret32};
use ehe::sign::SignKey;

/// Bytes that stand nowhere by chance.
fn secret(first: u8) -> [u8; 32] {
    core::array::from_fn(|i| first.wrapping_add(u8::try_from(i).unwrap().wrapping_mul(37)))
}

/// Neither four bytes of it in hex, nor three of them as numbers.
fn holds_none(printed: &str, secret: &[u8; 32]) -> bool {
    let lower = printed.to_lowercase();
    let numbers = |bytes: &[u8]| bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    secret.windows(4).all(|bytes| !lower.contains(&hex(bytes)))
        && secret.windows(3).all(|bytes| !lower.contains(&numbers(bytes)))
}

fn shows_none(value: &impl Debug, secrets: &[[u8; 32]]) {
    for printed in [format!("{value:?}"), format!("{value:#?}").replace([' ', '\n'], "").replace(',', ", ")] {
        assert!(secrets.iter().all(|secret| holds_none(&printed, secret)), "{printed}");
    }
}

#[test]
fn no_key_shows_itself_in_debug_output() {
    let (sign, kem) = (secret(11), secret(200));
    // The check itself finds what it looks for.
    assert!(!holds_none(&format!("{sign:?}"), &sign) && !holds_none(&hex(&sign).to_uppercase(), &sign));
    shows_none(&SignKey::from_seed(&sign), &[sign]);
    shows_none(&KemSecret::from_seed(Secret32::new(kem)), &[kem]);
    shows_none(&Identity::new(SignKey::from_seed(&sign), KemSecret::from_seed(Secret32::new(kem))), &[sign, kem]);
}
