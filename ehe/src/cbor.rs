//! Deterministic CBOR (RFC 8949 §4.2.1): one encoding for each value, any other is refused.
//!
//! Types derive minicbor's `Encode` and `Decode` with `#[cbor(map)]` and ascending integer keys. That encoder writes the
//! shortest integers and definite lengths, so a value's encoding is unique; [`from_slice`] encodes what it decoded and
//! compares. Long integers, indefinite lengths, duplicate or unknown keys and trailing bytes all differ, and are refused.

use core::convert::Infallible;

use minicbor::encode::Write;
use minicbor::{Decode, Encode};

/// Why bytes are not the deterministic encoding of the expected value. The sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// Larger than the type's limit; nothing was decoded.
    #[error("{found} bytes where at most {limit} are allowed")]
    TooLarge {
        /// The type's limit.
        limit: usize,
        /// Bytes received.
        found: usize,
    },
    /// Not CBOR, or not of the expected shape.
    #[error("not the expected CBOR structure: {0}")]
    Shape(String),
    /// The right value in another than its one allowed encoding (or with unknown members).
    #[error("not the deterministic encoding of its value (RFC 8949 §4.2.1)")]
    NotDeterministic,
}

/// Encodes. Writing to memory cannot fail, so neither can this.
pub fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let written: Result<(), minicbor::encode::Error<Infallible>> = minicbor::encode(value, &mut out);
    debug_assert!(written.is_ok(), "our Encode implementations return no error of their own");
    out
}

/// Decodes exactly one value from all of `bytes`, at most `limit` of them, in its deterministic encoding.
pub fn from_slice<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8], limit: usize) -> Result<T, CborError> {
    if bytes.len() > limit {
        return Err(CborError::TooLarge { limit, found: bytes.len() });
    }
    let value: T = minicbor::decode(bytes).map_err(|e| CborError::Shape(e.to_string()))?;
    let mut rest = Expected(bytes);
    let same = minicbor::encode(&value, &mut rest).is_ok() && rest.0.is_empty();
    if same { Ok(value) } else { Err(CborError::NotDeterministic) }
}

/// What is still to be written, if the value's encoding is to be the one that was received. Saves a buffer for each value.
struct Expected<'a>(&'a [u8]);

struct Differs;

impl Write for Expected<'_> {
    type Error = Differs;

    fn write_all(&mut self, written: &[u8]) -> Result<(), Differs> {
        self.0 = self.0.strip_prefix(written).ok_or(Differs)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Sample {
        #[n(0)]
        number: u64,
        #[n(1)]
        maybe: Option<u8>,
    }

    #[test]
    fn only_the_one_encoding_is_accepted() {
        let value = Sample { number: 5, maybe: None };
        let good = to_vec(&value);
        assert_eq!(good, [0xa1, 0x00, 0x05]);
        assert_eq!(from_slice::<Sample>(&good, 16).unwrap(), value);
        let long_integer = [0xa1, 0x00, 0x18, 0x05];
        let indefinite = [0xbf, 0x00, 0x05, 0xff];
        let duplicate = [0xa2, 0x00, 0x04, 0x00, 0x05];
        let unknown = [0xa2, 0x00, 0x05, 0x07, 0x01];
        let trailing = [0xa1, 0x00, 0x05, 0x00];
        let explicit_null = [0xa2, 0x00, 0x05, 0x01, 0xf6];
        let swapped = [0xa2, 0x01, 0x01, 0x00, 0x05];
        for bad in [&long_integer[..], &indefinite, &duplicate, &unknown, &trailing, &explicit_null, &swapped] {
            assert_eq!(from_slice::<Sample>(bad, 16), Err(CborError::NotDeterministic), "{bad:02x?}");
        }
        assert!(matches!(from_slice::<Sample>(&[0xa1, 0x00], 16), Err(CborError::Shape(_))));
        assert!(matches!(from_slice::<Sample>(&good, 2), Err(CborError::TooLarge { limit: 2, found: 3 })));
    }
}
