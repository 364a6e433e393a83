//! Devices that nobody is assigned to: their readings are held, and counted here for the person who assigns.

use ehe::time::UnixMs;
use minicbor::{Decode, Encode};

use super::keys::KeyRing;
use super::rows::{self, Table};

/// What is held of one device (and user slot).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(map)]
pub struct HeldDevice {
    /// The device.
    #[n(0)]
    pub device: String,
    /// Its user slot, for shared scales and cuffs.
    #[n(1)]
    pub user: Option<String>,
    /// Readings held.
    #[n(2)]
    pub readings: u64,
    /// Readings for which there was no room any more.
    #[n(3)]
    pub dropped: u64,
    /// First receipt.
    #[n(4)]
    pub first: UnixMs,
    /// Last receipt.
    #[n(5)]
    pub last: UnixMs,
}

impl HeldDevice {
    pub(super) fn new(device: String, user: Option<String>) -> Self {
        Self { device, user, readings: 0, dropped: 0, first: UnixMs(u64::MAX), last: UnixMs(0) }
    }

    pub(super) fn saw(&mut self, received: UnixMs) {
        self.first = self.first.min(received);
        self.last = self.last.max(received);
    }
}

/// Under this name all devices are counted that came after the table of devices was full.
pub(super) const OTHERS: &str = "(others)";

/// Names a device in a key without showing it.
pub(super) fn tag(keys: &KeyRing, device: &str, user: Option<&str>) -> Vec<u8> {
    let slot: &[&[u8]] = match user {
        Some(user) => &[device.as_bytes(), user.as_bytes()],
        None => &[device.as_bytes()],
    };
    keys.digest("device", slot).to_vec()
}

pub(super) fn row_key(tag: &[u8], row: u64) -> Vec<u8> {
    let mut key = tag.to_vec();
    key.extend_from_slice(&row.to_be_bytes());
    key
}

pub(super) fn open_summary(keys: &KeyRing, tag: &[u8], sealed: &[u8]) -> Option<HeldDevice> {
    let plain = rows::open_plain(keys, Table::HeldDevices, tag, sealed).ok()?;
    minicbor::decode(&plain).ok()
}
