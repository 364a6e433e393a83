//! Times as devices and documents write them: what was written, what instant it means, how finely it is known.

use ehe::decimal::Decimal;
use ehe::reading::{DeviceTime, ReadingTime, TimeMethod};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use crate::receipt::ReceiptContext;

/// Longest text that is looked at as a time, in bytes.
const TEXT_MAX_BYTES: usize = 64;
/// A local time whose zone nobody knows may be off by this much: zones reach from -12 to +14 hours.
const UNKNOWN_ZONE_MS: u32 = 14 * 3_600_000;
/// One day.
const DAY_MS: u32 = 24 * 3_600_000;

/// A time as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: DeviceTime,
    pub(crate) unix_ms: i64,
    pub(crate) method: TimeMethod,
    /// As finely as it is written; more where the clock was set back in that hour, or where the zone is not known.
    pub(crate) uncertainty_ms: u32,
}

impl Stamp {
    /// Date and time of day (RFC 3339, ISO 8601). Without an offset it is in `zone`; without that it is none.
    pub(crate) fn read(text: &str, zone: Option<&TimeZone>, receipt: &ReceiptContext) -> Option<Self> {
        Self::written(text, zone, receipt, false)
    }

    /// As [`Self::read`]; where neither the text nor the configuration knows the zone, UTC is assumed and the uncertainty says so.
    pub(crate) fn read_anyhow(text: &str, zone: Option<&TimeZone>, receipt: &ReceiptContext) -> Option<Self> {
        Self::written(text, zone, receipt, true)
    }

    fn written(text: &str, zone: Option<&TimeZone>, receipt: &ReceiptContext, anyhow: bool) -> Option<Self> {
        if text.len() > TEXT_MAX_BYTES {
            return None;
        }
        let pieces = Pieces::parse(text).ok()?;
        let civil = pieces.date().to_datetime(pieces.time()?);
        let resolution = resolution_ms(text);
        if let Some(offset) = pieces.to_numeric_offset() {
            return Some(Self::zoned(Offset::UTC.to_timestamp(civil).ok()?.as_millisecond(), offset, resolution));
        }
        if zone.is_none() && !anyhow {
            return None;
        }
        // The text names a zone whose rules nobody asked for here: another one than the configured, so that one does not count.
        let zone = if pieces.time_zone_annotation().is_some() { None } else { zone };
        Self::local(civil, zone, resolution, receipt)
    }

    /// A clock on the wall in `zone`; `None`: nobody knows the zone, UTC is assumed and the uncertainty says so.
    fn local(civil: DateTime, zone: Option<&TimeZone>, resolution: u32, receipt: &ReceiptContext) -> Option<Self> {
        let wall_ms = Offset::UTC.to_timestamp(civil).ok()?.as_millisecond();
        let (unix_ms, ambiguity) = match zone.unwrap_or(&TimeZone::UTC).to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => (instant(wall_ms, offset), 0),
            AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => {
                // The hour that happens twice, or never: of the two meanings the one nearer to the receipt.
                let (one, two) = (instant(wall_ms, before), instant(wall_ms, after));
                let received = i64::try_from(receipt.received.0).unwrap_or(i64::MAX);
                let nearer = if received.abs_diff(one) <= received.abs_diff(two) { one } else { two };
                (nearer, u32::try_from(one.abs_diff(two)).unwrap_or(u32::MAX))
            }
        };
        let device = DeviceTime { wall_ms, offset_min: None };
        let uncertainty_ms = resolution.saturating_add(ambiguity);
        let stamp = Self { device, unix_ms, method: TimeMethod::DeviceLocalAssumedZone, uncertainty_ms };
        Some(stamp.in_zone_of(zone))
    }

    /// A date or a month (`2012-09-17`, `2012-09`): when it began, somewhere in it. A year alone is more uncertain than a reading
    /// can say, so it is no time.
    pub(crate) fn date(text: &str, zone: Option<&TimeZone>) -> Option<Self> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| match parts.next() {
            None => Some(None),
            Some(part) if part.len() == digits && part.bytes().all(|c| c.is_ascii_digit()) => {
                part.parse::<i16>().ok().map(Some)
            }
            Some(_) => None,
        };
        let (year, month, day) = (part(4)??, part(2)?, part(2)?);
        if parts.next().is_some() {
            return None;
        }
        month?;
        let days: u32 = if day.is_none() { 31 } else { 1 };
        let number = |part: Option<i16>| i8::try_from(part.unwrap_or(1)).ok();
        let date = Date::new(year, number(month)?, number(day)?).ok()?;
        let begin = date.to_datetime(Time::midnight());
        let wall_ms = Offset::UTC.to_timestamp(begin).ok()?.as_millisecond();
        let unix_ms = match zone {
            Some(zone) => zone.to_timestamp(begin).ok()?.as_millisecond(),
            None => wall_ms,
        };
        let device = DeviceTime { wall_ms, offset_min: None };
        let uncertainty_ms = days.saturating_mul(DAY_MS);
        let stamp = Self { device, unix_ms, method: TimeMethod::DeviceLocalAssumedZone, uncertainty_ms };
        Some(stamp.in_zone_of(zone))
    }

    /// A Unix time in units of `10^power` ms.
    pub(crate) fn unix(number: Decimal, power: i8) -> Option<Self> {
        let (unix_ms, uncertainty_ms) = whole_ms(number, power)?;
        let device = DeviceTime { wall_ms: unix_ms, offset_min: Some(0) };
        Some(Self { device, unix_ms, method: TimeMethod::DeviceUtc, uncertainty_ms })
    }

    /// A clock's local time counted as if it were a Unix time, in units of `10^power` ms, with that clock's offset.
    pub(crate) fn local_unix(number: Decimal, power: i8, offset: Offset) -> Option<Self> {
        let (wall_ms, uncertainty_ms) = whole_ms(number, power)?;
        Some(Self::zoned(wall_ms, offset, uncertainty_ms))
    }

    /// As [`Self::local_unix`], where nothing says how far the clock is from UTC: in `zone`, or in one that nobody knows.
    pub(crate) fn local_unix_in(
        number: Decimal,
        power: i8,
        zone: Option<&TimeZone>,
        receipt: &ReceiptContext,
    ) -> Option<Self> {
        let (wall_ms, resolution) = whole_ms(number, power)?;
        let civil = Offset::UTC.to_datetime(Timestamp::from_millisecond(wall_ms).ok()?);
        Self::local(civil, zone, resolution, receipt)
    }

    fn zoned(wall_ms: i64, offset: Offset, uncertainty_ms: u32) -> Self {
        let offset_min = i16::try_from(offset.seconds() / 60).ok();
        let method = if offset == Offset::UTC { TimeMethod::DeviceUtc } else { TimeMethod::DeviceZoned };
        Self { device: DeviceTime { wall_ms, offset_min }, unix_ms: instant(wall_ms, offset), method, uncertainty_ms }
    }

    fn in_zone_of(mut self, zone: Option<&TimeZone>) -> Self {
        if self.method == TimeMethod::DeviceLocalAssumedZone && zone.is_none() {
            self.uncertainty_ms = self.uncertainty_ms.saturating_add(UNKNOWN_ZONE_MS);
        }
        self
    }

    /// Of a reading that a record system tells of.
    pub(crate) fn in_document(self, receipt: &ReceiptContext) -> ReadingTime {
        receipt.at_document_time(self.device, self.unix_ms, self.method, self.uncertainty_ms)
    }

    /// Of a reading that a device stamped.
    pub(crate) fn of_device(self, receipt: &ReceiptContext) -> ReadingTime {
        receipt.at_device_time(self.device, self.unix_ms, self.method, self.uncertainty_ms)
    }
}

/// A number in units of `10^power` ms as whole ms, and how finely it is written.
fn whole_ms(number: Decimal, power: i8) -> Option<(i64, u32)> {
    let ms = number.checked_mul(Decimal::new(1, power)).ok()?;
    let resolution = u32::try_from(ms.exponent()).ok().and_then(|power| 10u32.checked_pow(power)).unwrap_or(1);
    Some((ms.floor()?, resolution))
}

fn instant(wall_ms: i64, offset: Offset) -> i64 {
    wall_ms.saturating_sub(i64::from(offset.seconds()) * 1_000)
}

/// As finely as a date and time is written: a minute, a second, or what its decimals say; at least 1 ms.
fn resolution_ms(text: &str) -> u32 {
    let time = text.split_once(['T', 't', ' ']).map_or(text, |(_, time)| time);
    let time = time.split(['+', '-', 'Z', 'z', '[']).next().unwrap_or(time);
    match time.split_once(['.', ',']) {
        Some((_, decimals)) => 10u32.pow(3u32.saturating_sub(u32::try_from(decimals.len()).unwrap_or(3))),
        None if time.matches(':').count() == 1 => 60_000,
        None => 1_000,
    }
}

/// A zone by name: `UTC`, `+02:00`, an IANA name whose TZif data `zones` gives, or a POSIX TZ string.
pub(crate) fn zone(name: &str, zones: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<TimeZone> {
    if matches!(name, "UTC" | "Z") {
        return Some(TimeZone::UTC);
    }
    if let Some(offset) = fixed_offset(name) {
        return Some(TimeZone::fixed(offset));
    }
    // A name becomes a file name: nothing that leads out of the folder of zones.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/');
    let is_name = name.chars().all(plain) && name.split('/').all(|part| !part.is_empty());
    let named = is_name.then(|| zones(name)).flatten().and_then(|data| TimeZone::tzif(name, &data).ok());
    named.or_else(|| TimeZone::posix(name).ok())
}

/// `+02:00`, `-0330`, `+5`.
pub(crate) fn fixed_offset(text: &str) -> Option<Offset> {
    let (sign, digits) = match text.strip_prefix('+') {
        Some(digits) => (1, digits),
        None => (-1, text.strip_prefix('-')?),
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None => digits.split_at_checked(2).unwrap_or((digits, "")),
    };
    let number = |part: &str, most: i32| match part {
        "" => Some(0),
        _ => {
            part.bytes().all(|c| c.is_ascii_digit()).then(|| part.parse::<i32>().ok()).flatten().filter(|n| *n <= most)
        }
    };
    let hours = number(Some(hours).filter(|hours| !hours.is_empty())?, 14)?;
    Offset::from_seconds(sign * (hours * 3_600 + number(minutes, 59)? * 60)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_and_a_month_begin_at_midnight_and_are_as_uncertain_as_they_are_long() {
        let (new_york, utc) = (TimeZone::fixed(Offset::constant(-5)), TimeZone::UTC);
        let days = |text, zone| {
            let stamp = Stamp::date(text, zone)?;
            Some((stamp.unix_ms / 1_000, stamp.uncertainty_ms / 3_600_000))
        };
        assert_eq!(days("2012-09-17", None), Some((1_347_840_000, 24 + 14)));
        assert_eq!(days("2012-09-17", Some(&new_york)), Some((1_347_858_000, 24)));
        assert_eq!(days("2012-09", Some(&utc)), Some((1_346_457_600, 31 * 24)));
        for none in
            ["", "12", "2012", "2012-9", "2012-13", "2012-02-30", "2012-09-17-01", "2012-09-17T", "20120917", "-2012"]
        {
            assert_eq!(Stamp::date(none, None), None, "{none}");
        }
    }

    #[test]
    fn a_local_clock_counted_like_unix_time_is_put_right_by_its_offset() {
        let stamp = Stamp::local_unix("1443023160".parse().unwrap(), 3, fixed_offset("-0600").unwrap()).unwrap();
        // The clock showed 15:46:00 six hours behind UTC.
        assert_eq!(stamp.unix_ms, 1_443_044_760_000);
        assert_eq!((stamp.method, stamp.device.offset_min), (TimeMethod::DeviceZoned, Some(-360)));
    }
}
