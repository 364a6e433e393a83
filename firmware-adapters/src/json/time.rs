//! Times in JSON documents: where they stand, how they are written, what instant they mean.
//!
//! Nothing here can fail: a time that cannot be used gives the time of receipt, or none for a document that may be old, and the
//! method says so.

use ehe::decimal::Decimal;
use ehe::reading::{ReadingTime, TimeMethod};
use ehe::time::UnixMs;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::config::{ConfigProblem, TimeConfig, TimeFormat};
use super::path::{Found, Path};
use crate::receipt::ReceiptContext;
use crate::stamp::{Stamp, fixed_offset, zone};

/// Where a value's time stands, and how it is written.
#[derive(Debug, Clone)]
pub(super) struct TimeRule {
    place: Option<Place>,
    format: TimeFormat,
    zone: Option<TimeZone>,
    /// Whether the zone is not known, so that a time without one is as uncertain as that makes it.
    zone_unknown: bool,
    /// Whether a record system answers, perhaps years later, so that the time of receipt tells nothing.
    document: bool,
    every_ms: Option<u32>,
    uncertainty_ms: Option<u32>,
}

#[derive(Debug, Clone)]
struct Place {
    time: Beside,
    date: Option<Beside>,
    offset: Option<Beside>,
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
        let counted = config.format == TimeFormat::LocalUnixS;
        combination(counted && config.offset_path.is_none(), "offset_path", "local_unix_s needs the clock's offset")?;
        combination(!counted && config.offset_path.is_some(), "offset_path", "is for the format local_unix_s")?;
        let unspaced = config.every_ms.is_some() && value.wildcards() == 0;
        combination(unspaced, "every_ms", "is for values whose path has a [*]")?;
        let beside = |key, path: &Option<String>| match path {
            Some(path) => Beside::new(path, value).map(Some).map_err(|problem| (key, problem)),
            None => Ok(None),
        };
        let (time, date) = (beside("path", &config.path)?, beside("date_path", &config.date_path)?);
        let offset = beside("offset_path", &config.offset_path)?;
        let place = time.map(|time| Place { time, date, offset });
        let zone = match &config.zone {
            Some(name) => Some(zone(name, zones).ok_or_else(|| ("zone", ConfigProblem::Zone(name.clone())))?),
            None => None,
        };
        let TimeConfig { format, every_ms, uncertainty_ms, .. } = *config;
        Ok(Self { place, format, zone, zone_unknown: false, document: false, every_ms, uncertainty_ms })
    }

    /// Of a document that a record system wrote, with another zone than the configuration for local times; `None`: nobody knows
    /// it.
    pub(super) fn of_document(&mut self, zone: Option<&TimeZone>) {
        self.document = true;
        if matches!(self.format, TimeFormat::Local | TimeFormat::LocalUnixS) {
            self.zone = zone.cloned();
            self.zone_unknown = zone.is_none();
        }
    }

    /// The time of a value that was found.
    pub(super) fn time(&self, found: &Found<'_>, receipt: &ReceiptContext) -> ReadingTime {
        let absent =
            || self.counted_back(found, if self.document { receipt.unknown(None) } else { receipt.at_receipt() });
        let Some(place) = &self.place else { return absent() };
        let part = |beside: &Beside| beside.value(found).ok().flatten();
        let Some(sent) = part(&place.time) else { return absent() };
        let read = match &place.date {
            Some(date) => match (part(date).and_then(Value::as_str), sent.as_str()) {
                (Some(date), Some(time)) => self.read_text(&format!("{date}T{time}"), receipt),
                _ => None,
            },
            None if self.format == TimeFormat::LocalUnixS => {
                let offset = place.offset.as_ref().and_then(part).and_then(Value::as_str).and_then(fixed_offset);
                number(sent).and_then(|number| match offset {
                    Some(offset) => Stamp::local_unix(number, 3, offset),
                    None => Stamp::local_unix_in(number, 3, self.zone.as_ref(), receipt),
                })
            }
            None => self.read(sent, receipt),
        };
        let Some(read) = read else {
            let unusable = if self.document { receipt.unknown(None) } else { receipt.instead_of(None) };
            return self.counted_back(found, unusable);
        };
        let uncertainty_ms = self.uncertainty_ms.unwrap_or(0).max(read.uncertainty_ms);
        let (unix_ms, method) = match (self.every_ms, found.places.last()) {
            (Some(every_ms), Some((index, _))) => {
                (read.unix_ms.saturating_add(spacing(every_ms, *index)), TimeMethod::DeviceSpaced)
            }
            _ => (read.unix_ms, read.method),
        };
        let time = match self.document {
            true => receipt.at_document_time(read.device, unix_ms, method, uncertainty_ms),
            false => receipt.at_device_time(read.device, unix_ms, method, uncertainty_ms),
        };
        if time.method == method { time } else { self.counted_back(found, time) }
    }

    /// A time of receipt, put back by the elements that follow in the block.
    fn counted_back(&self, found: &Found<'_>, time: ReadingTime) -> ReadingTime {
        let (Some(every_ms), Some((index, length))) = (self.every_ms, found.places.last()) else { return time };
        let back = spacing(every_ms, length.saturating_sub(index + 1)).unsigned_abs();
        let method = if time.method == TimeMethod::Receipt { TimeMethod::ReceiptCountedBack } else { time.method };
        ReadingTime { derived: time.derived.map(|UnixMs(ms)| UnixMs(ms.saturating_sub(back))), method, ..time }
    }

    fn read_text(&self, text: &str, receipt: &ReceiptContext) -> Option<Stamp> {
        match self.zone_unknown {
            true => Stamp::read_anyhow(text, None, receipt),
            false => Stamp::read(text, self.zone.as_ref(), receipt),
        }
    }

    fn read(&self, sent: &Value, receipt: &ReceiptContext) -> Option<Stamp> {
        match (self.format, sent) {
            (TimeFormat::None, _) => None,
            (TimeFormat::Rfc3339 | TimeFormat::Local, Value::String(text)) => self.read_text(text, receipt),
            (TimeFormat::UnixS, sent) => Stamp::unix(number(sent)?, 3),
            (TimeFormat::UnixMs, sent) => Stamp::unix(number(sent)?, 0),
            (TimeFormat::UnixUs, sent) => Stamp::unix(number(sent)?, -3),
            _ => None,
        }
    }
}

fn spacing(every_ms: u32, elements: usize) -> i64 {
    i64::try_from(elements).unwrap_or(i64::MAX).saturating_mul(i64::from(every_ms))
}

fn number(sent: &Value) -> Option<Decimal> {
    match sent {
        Value::Number(number) => number.as_str().parse().ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
