//! Times in JSON documents: where they stand, how they are written, what instant they mean.
//!
//! Nothing here can fail: a time that cannot be used gives the time of receipt, and the method says so.

use ehe::decimal::Decimal;
use ehe::reading::{DeviceTime, ReadingTime, TimeMethod};
use ehe::time::UnixMs;
use jiff::fmt::temporal::Pieces;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use serde_json::Value;

use super::config::{ConfigProblem, TimeConfig, TimeFormat};
use super::path::{Found, Path};
use crate::receipt::ReceiptContext;

/// Longest text that is looked at as a time, in bytes.
const TEXT_MAX_BYTES: usize = 64;

/// Where a value's time stands, and how it is written.
#[derive(Debug, Clone)]
pub(super) struct TimeRule {
    place: Option<Place>,
    format: TimeFormat,
    zone: Option<TimeZone>,
    every_ms: Option<u32>,
    uncertainty_ms: Option<u32>,
}

#[derive(Debug, Clone)]
struct Place {
    time: Beside,
    date: Option<Beside>,
}

/// A path beside a value's path.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    pub(super) path: Path,
    shared: usize,
}

impl Beside {
    /// Parses a path that stands beside `value`.
    pub(super) fn new(text: &str, value: &Path) -> Result<Self, ConfigProblem> {
        let path: Path = text.parse()?;
        if path.wildcards() > value.wildcards() {
            return Err(ConfigProblem::Wildcards);
        }
        let shared = path.shared(value);
        Ok(Self { path, shared })
    }

    /// What stands there for a value that was found.
    pub(super) fn value<'v>(&self, found: &Found<'v>) -> Result<Option<&'v Value>, crate::AdapterError> {
        self.path.beside(found, self.shared)
    }
}

/// A time as it was read.
struct Read {
    device: DeviceTime,
    unix_ms: i64,
    method: TimeMethod,
    /// As finely as it is written; more where the clock was set back in that hour.
    uncertainty_ms: u32,
}

impl TimeRule {
    /// Checks a configuration. `zones` gives the TZif data of an IANA zone. On an error, the key is `time.` and the text given.
    pub(super) fn new(
        config: &TimeConfig,
        value: &Path,
        zones: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, (&'static str, ConfigProblem)> {
        let combination =
            |wrong: bool, key, text| if wrong { Err((key, ConfigProblem::Combination(text))) } else { Ok(()) };
        let none = config.format == TimeFormat::None;
        combination(none && config.path.is_some(), "format", "say how the time at `path` is written")?;
        combination(!none && config.path.is_none(), "path", "say where the time stands")?;
        let text = matches!(config.format, TimeFormat::Rfc3339 | TimeFormat::Local);
        combination(!text && config.date_path.is_some(), "date_path", "is for the formats rfc3339 and local")?;
        let local = config.format == TimeFormat::Local;
        combination(local && config.zone.is_none(), "zone", "local times need the zone to assume")?;
        combination(!local && config.zone.is_some(), "zone", "is for the format local; the others carry their zone")?;
        let unspaced = config.every_ms.is_some() && value.wildcards() == 0;
        combination(unspaced, "every_ms", "is for values whose path has a [*]")?;
        let place = match &config.path {
            Some(path) => Some(Place {
                time: Beside::new(path, value).map_err(|problem| ("path", problem))?,
                date: match &config.date_path {
                    Some(path) => Some(Beside::new(path, value).map_err(|problem| ("date_path", problem))?),
                    None => None,
                },
            }),
            None => None,
        };
        let zone = match &config.zone {
            Some(name) => Some(zone(name, zones).ok_or_else(|| ("zone", ConfigProblem::Zone(name.clone())))?),
            None => None,
        };
        let TimeConfig { format, every_ms, uncertainty_ms, .. } = *config;
        Ok(Self { place, format, zone, every_ms, uncertainty_ms })
    }

    /// The time of a value that was found.
    pub(super) fn time(&self, found: &Found<'_>, receipt: &ReceiptContext) -> ReadingTime {
        let Some(place) = &self.place else { return self.counted_back(found, receipt.at_receipt()) };
        let part = |beside: &Beside| beside.value(found).ok().flatten();
        let Some(sent) = part(&place.time) else { return self.counted_back(found, receipt.at_receipt()) };
        let read = match &place.date {
            Some(date) => match (part(date).and_then(Value::as_str), sent.as_str()) {
                (Some(date), Some(time)) => self.read_text(&format!("{date}T{time}"), receipt),
                _ => None,
            },
            None => self.read(sent, receipt),
        };
        let Some(read) = read else { return self.counted_back(found, receipt.instead_of(None)) };
        let uncertainty_ms = self.uncertainty_ms.unwrap_or(0).max(read.uncertainty_ms);
        let (unix_ms, method) = match (self.every_ms, found.places.last()) {
            (Some(every_ms), Some((index, _))) => {
                (read.unix_ms.saturating_add(spacing(every_ms, *index)), TimeMethod::DeviceSpaced)
            }
            _ => (read.unix_ms, read.method),
        };
        let time = receipt.at_device_time(read.device, unix_ms, method, uncertainty_ms);
        if time.method == method { time } else { self.counted_back(found, time) }
    }

    /// A time of receipt, put back by the elements that follow in the block.
    fn counted_back(&self, found: &Found<'_>, time: ReadingTime) -> ReadingTime {
        let (Some(every_ms), Some((index, length))) = (self.every_ms, found.places.last()) else { return time };
        let back = spacing(every_ms, length.saturating_sub(index + 1)).unsigned_abs();
        let method = if time.method == TimeMethod::Receipt { TimeMethod::ReceiptCountedBack } else { time.method };
        ReadingTime { derived: time.derived.map(|UnixMs(ms)| UnixMs(ms.saturating_sub(back))), method, ..time }
    }

    fn read(&self, sent: &Value, receipt: &ReceiptContext) -> Option<Read> {
        match (self.format, sent) {
            (TimeFormat::None, _) => None,
            (TimeFormat::Rfc3339 | TimeFormat::Local, Value::String(text)) => self.read_text(text, receipt),
            (TimeFormat::UnixS, sent) => unix(sent, 3),
            (TimeFormat::UnixMs, sent) => unix(sent, 0),
            (TimeFormat::UnixUs, sent) => unix(sent, -3),
            _ => None,
        }
    }

    fn read_text(&self, text: &str, receipt: &ReceiptContext) -> Option<Read> {
        if text.len() > TEXT_MAX_BYTES {
            return None;
        }
        let pieces = Pieces::parse(text).ok()?;
        let civil = pieces.date().to_datetime(pieces.time()?);
        let wall_ms = Offset::UTC.to_timestamp(civil).ok()?.as_millisecond();
        let resolution = resolution_ms(text);
        if let Some(offset) = pieces.to_numeric_offset() {
            let offset_min = i16::try_from(offset.seconds() / 60).ok();
            let method = if offset == Offset::UTC { TimeMethod::DeviceUtc } else { TimeMethod::DeviceZoned };
            let unix_ms = instant(wall_ms, offset);
            return Some(Read {
                device: DeviceTime { wall_ms, offset_min },
                unix_ms,
                method,
                uncertainty_ms: resolution,
            });
        }
        let (unix_ms, ambiguity) = match self.zone.as_ref()?.to_ambiguous_timestamp(civil).offset() {
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
        Some(Read { device, unix_ms, method: TimeMethod::DeviceLocalAssumedZone, uncertainty_ms })
    }
}

fn spacing(every_ms: u32, elements: usize) -> i64 {
    i64::try_from(elements).unwrap_or(i64::MAX).saturating_mul(i64::from(every_ms))
}

fn instant(wall_ms: i64, offset: Offset) -> i64 {
    wall_ms.saturating_sub(i64::from(offset.seconds()) * 1_000)
}

/// A Unix time in units of `10^power` ms.
fn unix(sent: &Value, power: i8) -> Option<Read> {
    let number: Decimal = match sent {
        Value::Number(number) => number.as_str().parse().ok()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    let ms = number.checked_mul(Decimal::new(1, power)).ok()?;
    let unix_ms = ms.floor()?;
    let uncertainty_ms = u32::try_from(ms.exponent()).ok().and_then(|power| 10u32.checked_pow(power)).unwrap_or(1);
    let device = DeviceTime { wall_ms: unix_ms, offset_min: Some(0) };
    Some(Read { device, unix_ms, method: TimeMethod::DeviceUtc, uncertainty_ms })
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

fn zone(name: &str, zones: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<TimeZone> {
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
fn fixed_offset(text: &str) -> Option<Offset> {
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
mod tests;
