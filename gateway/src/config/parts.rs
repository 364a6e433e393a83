//! The options that concern no single source.

use std::path::PathBuf;

use ehe::id::RoomId;
use ehe::reading::DeviceId;
use serde::{Deserialize, Serialize};

use crate::spool::SpoolLimits;
use crate::window::WindowLimits;

const MIB: u64 = 1024 * 1024;

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A filter of the `tracing` family: `info`, `ehe_gateway=debug,info`. Default `info`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into() }
    }
}

/// The gateway's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockConfig {
    /// Exists while the time service vouches for the clock; each reading keeps whether it did. Default: systemd-timesyncd's.
    pub synchronised_file: PathBuf,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self { synchronised_file: "/run/systemd/timesync/synchronized".into() }
    }
}

/// When readings become an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WindowConfig {
    /// From the receipt of a window's first reading until it is sealed, in ms. Default 15,000. An alarm waits for nothing.
    pub window_ms: u64,
    /// Readings at which a window is sealed at once, 1 to 4,096. Default 4,096.
    pub readings_max: u64,
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self { window_ms: super::WINDOW_MS, readings_max: ehe::limits::READINGS_PER_BODY_MAX as u64 }
    }
}

impl WindowConfig {
    /// As the windows take them.
    pub fn limits(&self) -> WindowLimits {
        WindowLimits { window_ms: self.window_ms, readings_max: self.readings_max }
    }
}

/// What lies on the gateway's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// All readings and events that wait, in MiB; the file grows to about twice that. When it is reached, messages stay with
    /// the broker, unacknowledged, until receipts make room. Default 1,024: about 1.5 million events of one reading.
    pub max_mib: u64,
    /// Share of it, in percent, that readings of one room may take that cannot be sealed because the patient has not invited this
    /// gateway, or not any more. Beyond it the room's further readings are dropped, and each drop is recorded. Default 25.
    pub room_max_percent: u64,
    /// Share of it for readings of devices that nobody is assigned to; beyond it they are dropped and counted. Default 64.
    pub held_max_mib: u64,
    /// Unassigned devices that are told apart. Default 256.
    pub held_devices_max: u64,
    /// Events that the ledger refused for good. Default 64.
    pub quarantine_max_mib: u64,
    /// Memory for the database's cache, in MiB. Default 16.
    pub cache_mib: u64,
    /// How long a message may wait for others to be committed with it, in ms. It costs its acknowledgement so much time, and saves
    /// processor and disk; alarms, messages that come fast or in bursts, and those of a broker that waits for acknowledgements do not wait. Default 100.
    pub gather_ms: u64,
    /// First pause after a disk fault, in ms. Default 200.
    pub retry_min_ms: u64,
    /// Longest pause between attempts during a disk fault, in ms. Default 10,000.
    pub retry_max_ms: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            max_mib: 1024,
            room_max_percent: 25,
            held_max_mib: 64,
            held_devices_max: 256,
            quarantine_max_mib: 64,
            cache_mib: 16,
            gather_ms: 100,
            retry_min_ms: 200,
            retry_max_ms: 10_000,
        }
    }
}

impl SpoolConfig {
    /// As the spool takes them. `unacknowledged_max`: messages after which a source sends no more before some are acknowledged.
    pub fn limits(&self, unacknowledged_max: usize) -> SpoolLimits {
        SpoolLimits {
            max_bytes: self.max_mib.saturating_mul(MIB),
            room_max_bytes: self.max_mib.saturating_mul(MIB).saturating_mul(self.room_max_percent) / 100,
            held_max_bytes: self.held_max_mib.saturating_mul(MIB),
            held_devices_max: self.held_devices_max,
            quarantine_max_bytes: self.quarantine_max_mib.saturating_mul(MIB),
            gather_ms: self.gather_ms,
            unacknowledged_max,
            retry_min_ms: self.retry_min_ms,
            retry_max_ms: self.retry_max_ms,
        }
    }

    /// Bytes of the cache.
    pub fn cache_bytes(&self) -> usize {
        usize::try_from(self.cache_mib.saturating_mul(MIB)).unwrap_or(usize::MAX)
    }
}

/// Which device belongs to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The device, as the sources name it.
    pub device: DeviceId,
    /// Its user slot, for shared scales and cuffs.
    #[serde(default)]
    pub user: Option<String>,
    /// The patient's room.
    pub room: RoomId,
}
