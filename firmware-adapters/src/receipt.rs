//! When an input was received, and what that makes of the times in it (DESIGN section 7).

use ehe::reading::{DeviceId, DeviceTime, ReadingTime, TimeMethod};
use ehe::time::UnixMs;

/// How long a live value is on its way, at most, as far as the readings say: the uncertainty of a time of receipt, in ms.
pub const RECEIPT_UNCERTAINTY_MS: u32 = 1_000;
/// A device whose clock shows a time before 2000-01-01T00:00:00Z has never been set.
const EARLIEST_MS: i64 = 946_684_800_000;
/// A document's clock shows nothing before 1971-01-01T00:00:00Z.
const EARLIEST_DOCUMENT_MS: i64 = 31_536_000_000;
/// Nor is any clock right that shows 2100 or later.
const LATEST_MS: i64 = 4_102_444_800_000;
/// A reading is not from tomorrow: so far ahead of the receipt a device's clock is wrong, in ms.
const AHEAD_MAX_MS: i64 = 24 * 60 * 60 * 1_000;

/// What the source knows about an input beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptContext {
    /// Which device it is from.
    pub device: DeviceId,
    /// When it was received, by the gateway's UTC clock.
    pub received: UnixMs,
    /// When it was received, by the gateway's monotonic clock, in ms.
    pub monotonic_ms: u64,
    /// Whether the gateway's UTC clock was synchronised then.
    pub clock_synchronised: bool,
    /// What the sender calls the format (MQTT 5's content type, a media type), if it says.
    pub content_type: Option<String>,
}

impl ReceiptContext {
    /// The time of a live value whose device sends none.
    pub fn at_receipt(&self) -> ReadingTime {
        ReadingTime::at_receipt(self.received, self.monotonic_ms, self.clock_synchronised, RECEIPT_UNCERTAINTY_MS)
    }

    /// The time of a live value whose device sent a time that cannot be used. What can be written down of it is kept.
    pub fn instead_of(&self, device: Option<DeviceTime>) -> ReadingTime {
        ReadingTime { device, method: TimeMethod::ReceiptDeviceTimeInvalid, ..self.at_receipt() }
    }

    /// The time of a value in a document that does not say when it was measured, or not so that it can be used: the document
    /// may be years old, so its receipt tells nothing. What can be written down of its clock is kept.
    pub fn unknown(&self, device: Option<DeviceTime>) -> ReadingTime {
        ReadingTime { device, derived: None, method: TimeMethod::OrderOnly, ..self.at_receipt() }
    }

    /// As [`Self::at_device_time`], for a document that a record system wrote: it may tell of the years before 2000. Of what
    /// lies before 1971 nothing can be told from a clock that was never set. A time that cannot be right leaves it unknown.
    pub fn at_document_time(
        &self,
        device: DeviceTime,
        unix_ms: i64,
        method: TimeMethod,
        uncertainty_ms: u32,
    ) -> ReadingTime {
        self.not_before(EARLIEST_DOCUMENT_MS, device, unix_ms, method, uncertainty_ms)
            .unwrap_or_else(|| self.unknown(Some(device)))
    }

    /// The time of a value whose device sent `device`, which names the instant `unix_ms`.
    ///
    /// A time before 2000, from 2100 on, or more than a day ahead of the receipt (if the gateway's own clock can be trusted)
    /// is the time of receipt instead, and says so. A time long past is right: stored readings come late.
    pub fn at_device_time(
        &self,
        device: DeviceTime,
        unix_ms: i64,
        method: TimeMethod,
        uncertainty_ms: u32,
    ) -> ReadingTime {
        self.not_before(EARLIEST_MS, device, unix_ms, method, uncertainty_ms)
            .unwrap_or_else(|| self.instead_of(Some(device)))
    }

    fn not_before(
        &self,
        earliest_ms: i64,
        device: DeviceTime,
        unix_ms: i64,
        method: TimeMethod,
        uncertainty_ms: u32,
    ) -> Option<ReadingTime> {
        let received = i64::try_from(self.received.0).unwrap_or(i64::MAX);
        let latest =
            if self.clock_synchronised { received.saturating_add(AHEAD_MAX_MS).min(LATEST_MS) } else { LATEST_MS };
        match u64::try_from(unix_ms) {
            Ok(instant) if (earliest_ms..=latest).contains(&unix_ms) => Some(ReadingTime {
                device: Some(device),
                derived: Some(UnixMs(instant)),
                method,
                uncertainty_ms,
                ..self.at_receipt()
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(clock_synchronised: bool) -> ReceiptContext {
        let device = DeviceId::new("d").unwrap();
        ReceiptContext {
            device,
            received: UnixMs(1_700_000_000_000),
            monotonic_ms: 5,
            clock_synchronised,
            content_type: None,
        }
    }

    fn derived(context: &ReceiptContext, unix_ms: i64) -> (u64, TimeMethod) {
        let device = DeviceTime { wall_ms: unix_ms, offset_min: Some(0) };
        let time = context.at_device_time(device, unix_ms, TimeMethod::DeviceUtc, 1);
        assert_eq!(time.device, Some(device), "the device's time is kept as it was sent");
        (time.derived.unwrap().0, time.method)
    }

    #[test]
    fn an_absurd_device_time_becomes_the_receipt_and_says_so() {
        let receipt = (1_700_000_000_000, TimeMethod::ReceiptDeviceTimeInvalid);
        for absurd in [i64::MIN, -1, 0, 946_684_799_999, 1_700_086_400_001, i64::MAX] {
            assert_eq!(derived(&context(true), absurd), receipt, "{absurd}");
        }
        for good in [946_684_800_000, 1_600_000_000_000, 1_700_086_400_000] {
            let want = (u64::try_from(good).unwrap(), TimeMethod::DeviceUtc);
            assert_eq!(derived(&context(true), good), want);
        }
    }

    #[test]
    fn a_gateway_that_does_not_know_the_time_believes_the_device() {
        let ahead = 1_900_000_000_000;
        assert_eq!(derived(&context(false), ahead), (1_900_000_000_000, TimeMethod::DeviceUtc));
        assert_eq!(derived(&context(false), LATEST_MS + 1).1, TimeMethod::ReceiptDeviceTimeInvalid);
    }
}
