//! Where the time of a reading comes from (DESIGN section 7).

use crate::coded::coded;
use crate::time::UnixMs;

/// A device's own clock as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceTime {
    /// What the clock showed, in milliseconds since 1970-01-01T00:00:00 *on that clock*, whatever its zone.
    pub wall_ms: i64,
    /// The zone it was sent with, in minutes east of UTC (0 for UTC and for Unix times); `None` if it was sent without.
    pub offset_min: Option<i16>,
}

impl DeviceTime {
    /// The instant that it names; `None` without a zone, and before 1970.
    pub fn instant(self) -> Option<UnixMs> {
        let offset_ms = i64::from(self.offset_min?) * 60_000;
        self.wall_ms.checked_sub(offset_ms).and_then(|ms| u64::try_from(ms).ok()).map(UnixMs)
    }
}

coded! {
    /// How a reading's derived time was found.
    TimeMethod: u8 = "time method" {
        /// The device sent an instant: a Unix time, or a time marked UTC.
        1 DeviceUtc "device_utc",
        /// The device sent its local time with the offset from UTC.
        2 DeviceZoned "device_zoned",
        /// The device sent local time without a zone; the zone was assumed by configuration.
        3 DeviceLocalAssumedZone "device_local_assumed_zone",
        /// The device's clock was compared with the gateway's during this connection, and its times corrected by the difference.
        4 DeviceOffsetMeasured "device_offset_measured",
        /// Counted on from a device time by a known spacing: the samples of a block.
        5 DeviceSpaced "device_spaced",
        /// The device sent no time: the moment of receipt.
        6 Receipt "receipt",
        /// The device's time could not be right (unset, before 2000, more than a day ahead): the moment of receipt.
        7 ReceiptDeviceTimeInvalid "receipt_device_time_invalid",
        /// Counted back from the moment of receipt: the beats of one notification.
        8 ReceiptCountedBack "receipt_counted_back",
        /// A stored record of a device without a usable clock: only the order is known, there is no derived time.
        9 OrderOnly "order_only",
    }
}

/// Where the time of a reading comes from, and how far it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadingTime {
    /// The device's clock as it was sent, if it was.
    pub device: Option<DeviceTime>,
    /// When the gateway received it, by the gateway's UTC clock.
    pub received: UnixMs,
    /// When the gateway received it, by its monotonic clock: milliseconds since an arbitrary start, the same within one run.
    pub received_monotonic_ms: u64,
    /// When it was measured, as far as that is known; for an interval, when that began. `None`: only the order is known.
    pub derived: Option<UnixMs>,
    /// Length of the interval that the value covers (steps of an hour, a night's sleep); `None` for a momentary value.
    pub interval_ms: Option<u64>,
    /// How `derived` was found.
    pub method: TimeMethod,
    /// `derived` may be off by this much either way, the gateway's own clock taken as right.
    pub uncertainty_ms: u32,
    /// Whether the gateway's clock was synchronised at receipt.
    pub clock_synchronised: bool,
}

impl ReadingTime {
    /// Measured when it was received, by a device that sends no time. The uncertainty is `uncertainty_ms`.
    pub fn at_receipt(
        received: UnixMs,
        received_monotonic_ms: u64,
        clock_synchronised: bool,
        uncertainty_ms: u32,
    ) -> Self {
        Self {
            device: None,
            received,
            received_monotonic_ms,
            derived: Some(received),
            interval_ms: None,
            method: TimeMethod::Receipt,
            uncertainty_ms,
            clock_synchronised,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_time_with_a_zone_names_an_instant() {
        let vienna = DeviceTime { wall_ms: 7_200_000, offset_min: Some(120) };
        assert_eq!(vienna.instant(), Some(UnixMs(0)));
        assert_eq!(DeviceTime { offset_min: None, ..vienna }.instant(), None);
        assert_eq!(DeviceTime { wall_ms: i64::MIN, offset_min: Some(1) }.instant(), None);
        assert_eq!(DeviceTime { wall_ms: -1, offset_min: Some(0) }.instant(), None);
    }

    #[test]
    fn every_method_is_found_by_its_code() {
        for method in TimeMethod::ALL {
            assert_eq!(TimeMethod::from_code(method.code()), Some(*method));
        }
    }
}
