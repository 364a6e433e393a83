//! Instants and calendar units as the ledger counts them. No clock: `now` is always an argument.

use minicbor::{Decode, Encode};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct UnixMs(#[n(0)] pub u64);

/// Hours since 1970-01-01T00:00:00Z: the only time of a reading that a node sees.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Hour(#[n(0)] pub u32);

/// UTC days since 1970-01-01: an event key lives for one of them.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Day(#[n(0)] pub u32);

impl UnixMs {
    /// The hour that holds this instant. Instants after the year 490,000 count as the last hour.
    pub fn hour(self) -> Hour {
        Hour(u32::try_from(self.0 / 3_600_000).unwrap_or(u32::MAX))
    }

    /// The UTC day that holds this instant.
    pub fn day(self) -> Day {
        self.hour().day()
    }

    /// Milliseconds from `earlier` to `self`; 0 if it lies ahead.
    pub fn since(self, earlier: UnixMs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant, `ms` milliseconds later.
    pub fn plus_ms(self, ms: u64) -> UnixMs {
        UnixMs(self.0.saturating_add(ms))
    }
}

impl Hour {
    /// The UTC day that holds this hour.
    pub fn day(self) -> Day {
        Day(self.0 / 24)
    }

    /// The first instant of this hour.
    pub fn start(self) -> UnixMs {
        UnixMs(u64::from(self.0) * 3_600_000)
    }
}
