//! Which device measured.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

use crate::limits::DEVICE_ID_MAX_BYTES;

/// Why a text names no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeviceIdError {
    /// No text.
    #[error("a device id is empty")]
    Empty,
    /// Longer than [`DEVICE_ID_MAX_BYTES`].
    #[error("a device id of {found} bytes; at most {DEVICE_ID_MAX_BYTES} are allowed")]
    TooLong {
        /// UTF-8 bytes found.
        found: usize,
    },
    /// A control character: it would break lines of logs and tables.
    #[error("a device id with a control character")]
    Control,
}

/// Which device measured: 1 to 64 bytes of UTF-8 without control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// Checks and takes the text.
    pub fn new(text: &str) -> Result<Self, DeviceIdError> {
        match text.len() {
            0 => Err(DeviceIdError::Empty),
            1..=DEVICE_ID_MAX_BYTES if text.chars().any(char::is_control) => Err(DeviceIdError::Control),
            1..=DEVICE_ID_MAX_BYTES => Ok(Self(text.into())),
            found => Err(DeviceIdError::TooLong { found }),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for DeviceId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;
    fn from_str(text: &str) -> Result<Self, DeviceIdError> {
        Self::new(text)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({:?})", &*self.0)
    }
}

impl serde::Serialize for DeviceId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for DeviceId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl<C> minicbor::Encode<C> for DeviceId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for DeviceId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.str()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_is_short_text_without_control_characters() {
        assert!(DeviceId::new("Küche: Waage #2").is_ok());
        assert_eq!(DeviceId::new(""), Err(DeviceIdError::Empty));
        assert_eq!(DeviceId::new("a\nb"), Err(DeviceIdError::Control));
        assert!(DeviceId::new(&"ä".repeat(32)).is_ok());
        assert_eq!(DeviceId::new(&"ä".repeat(33)), Err(DeviceIdError::TooLong { found: 66 }));
    }
}
