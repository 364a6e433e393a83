//! Identifiers: fixed-size byte strings, each its own type, written as lower-case hex.

use core::fmt;
use core::str::FromStr;

use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};

/// Why a text is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text has the wrong number of hexadecimal digits.
    #[error("expected {expected} hexadecimal digits, found {found} characters")]
    Length {
        /// Digits that the identifier has.
        expected: usize,
        /// Characters found.
        found: usize,
    },
    /// A character is no lower- or upper-case hexadecimal digit.
    #[error("not a hexadecimal digit")]
    Digit,
}

/// Writes bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 0xf] {
            out.push(char::from(*DIGITS.get(usize::from(nibble)).unwrap_or(&b'?')));
        }
    }
    out
}

/// Reads exactly `N` bytes of hex, either case.
pub fn unhex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return Err(ParseIdError::Length { expected: N * 2, found: text.chars().count() });
    }
    let nibble = |c: u8| (c as char).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or(ParseIdError::Digit);
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        if let [high, low] = pair {
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
    }
    Ok(out)
}

/// Defines an identifier of `$n` bytes: CBOR byte string, hex text, serde as hex text.
macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident, $n:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $n]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $n;
            /// The identifier of nothing: where a field must be filled and does not apply.
            pub const ZERO: Self = Self([0; $n]);

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $n] {
                &self.0
            }

            /// The first bytes of a hash.
            pub fn truncated(hash: &[u8; 32]) -> Self {
                let mut out = [0; $n];
                for (to, from) in out.iter_mut().zip(hash) {
                    *to = *from;
                }
                Self(out)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                unhex(text).map(Self)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let bytes = d.bytes()?;
                <[u8; $n]>::try_from(bytes)
                    .map(Self)
                    .map_err(|_| decode::Error::message(concat!(stringify!($name), ": wrong length")))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

identifier!(
    /// A patient's ledger: SHA-256 of room-create's plain body, truncated.
    RoomId,
    16
);
identifier!(
    /// Who signs: SHA-256 of the first signing key and the first encryption key, truncated. Stable through rotations.
    AuthorId,
    16
);
identifier!(
    /// A key epoch of one category of one room: random, so that the category cannot be seen.
    EpochId,
    16
);
identifier!(
    /// The wrap event that carries an event's key: the first bytes of the wrap event's EHE id.
    WrapId,
    16
);
identifier!(
    /// A strand: one uninterrupted sequence of an author's runs, new at each start of the author's program.
    StrandId,
    8
);
identifier!(
    /// A node of the alliance.
    NodeId,
    8
);
identifier!(
    /// A member (hospital) of the alliance.
    MemberId,
    8
);
identifier!(
    /// The alliance: SHA-256 of charter 1.
    AllianceId,
    32
);
identifier!(
    /// An event: SHA-256 of its header.
    EheId,
    32
);
identifier!(
    /// Any other SHA-256 value: a link, a leaf, a root.
    Hash,
    32
);
identifier!(
    /// 128 random bits that make a signature or a key derivation unique.
    Nonce,
    16
);

impl From<EheId> for WrapId {
    fn from(id: EheId) -> Self {
        Self::truncated(&id.0)
    }
}

impl RoomId {
    /// The shard that holds this room: its first 8 bytes, big-endian, modulo the shard count (SPEC 3).
    pub fn shard(&self, shard_count: core::num::NonZeroU16) -> u16 {
        let mut first = [0u8; 8];
        for (to, from) in first.iter_mut().zip(&self.0) {
            *to = *from;
        }
        let shard = u64::from_be_bytes(first) % u64::from(shard_count.get());
        u16::try_from(shard).unwrap_or(0) // a remainder of a u16 is a u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_there_and_back_and_refuses_other_text() {
        let id = RoomId([0xab; 16]);
        assert_eq!(id.to_string().parse::<RoomId>().unwrap(), id);
        assert_eq!("zz".parse::<StrandId>(), Err(ParseIdError::Length { expected: 16, found: 2 }));
        assert_eq!("zzzzzzzzzzzzzzzz".parse::<StrandId>(), Err(ParseIdError::Digit));
        assert!("ééééé".parse::<StrandId>().is_err());
    }

    #[test]
    fn a_rooms_shard_is_its_first_eight_bytes_modulo_the_count() {
        let mut id = RoomId::ZERO;
        id.0[7] = 35;
        id.0[8] = 0xff;
        assert_eq!(id.shard(core::num::NonZeroU16::new(16).unwrap()), 3);
    }
}
