//! Bytes and numbers out of a case's JSON. Bytes are hex; more than 64 of them are base64, marked so; and where a thousand events
//! are alike they are packed first.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ehe::id::hex;
use serde_json::{Value, json};

/// What is packed has at most so many bytes.
const PACKED_MAX_BYTES: usize = 17 * 1024 * 1024;

/// The bytes of a JSON string.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    if let Some(text) = text.strip_prefix("base64:") {
        return STANDARD.decode(text).unwrap();
    }
    if let Some(text) = text.strip_prefix("zlib:") {
        let packed = STANDARD.decode(text).unwrap();
        return miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, PACKED_MAX_BYTES).unwrap();
    }
    assert!(text.len().is_multiple_of(2), "odd hex");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// Reads members of a JSON object; a missing one is a faulty case, so it panics.
pub(crate) trait Members {
    fn text(&self, key: &str) -> &str;
    fn number(&self, key: &str) -> u64;
    fn list(&self, key: &str) -> &[Value];

    fn bytes(&self, key: &str) -> Vec<u8> {
        unhex(self.text(key))
    }

    fn fixed<const N: usize>(&self, key: &str) -> [u8; N] {
        self.bytes(key).try_into().unwrap_or_else(|_| panic!("{key}: not {N} bytes"))
    }
}

impl Members for Value {
    fn text(&self, key: &str) -> &str {
        self[key].as_str().unwrap_or_else(|| panic!("no text {key} in {self}"))
    }

    fn number(&self, key: &str) -> u64 {
        self[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {self}"))
    }

    fn list(&self, key: &str) -> &[Value] {
        self[key].as_array().unwrap_or_else(|| panic!("no list {key} in {self}"))
    }
}

/// Bytes as a JSON string.
pub(crate) fn h(bytes: impl AsRef<[u8]>) -> Value {
    let bytes = bytes.as_ref();
    if bytes.len() > 64 { json!(format!("base64:{}", STANDARD.encode(bytes))) } else { json!(hex(bytes)) }
}

/// The same, packed (RFC 1950).
pub(crate) fn packed(bytes: &[u8]) -> Value {
    json!(format!("zlib:{}", STANDARD.encode(miniz_oxide::deflate::compress_to_vec_zlib(bytes, 10))))
}
