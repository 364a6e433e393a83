//! Time frames: when a body's values were measured.
//!
//! What breaks the schema (no form of a frame, two forms at once) is an error; a date and time that cannot be read, or an
//! interval that ends before it begins, is an invalid time of a valid document.

use ehe::decimal::Decimal;
use ehe::reading::ReadingTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::{Place, quantity};
use crate::error::AdapterError;
use crate::json::document::kind;
use crate::receipt::ReceiptContext;
use crate::stamp::Stamp;

/// Units of durations, and their length in ms. A month and a year are those of UCUM, the Julian mean.
const DURATIONS: &[(&str, Decimal)] = &[
    ("ps", Decimal::new(1, -9)),
    ("ns", Decimal::new(1, -6)),
    ("us", Decimal::new(1, -3)),
    ("ms", Decimal::new(1, 0)),
    ("sec", Decimal::new(1_000, 0)),
    ("min", Decimal::new(60_000, 0)),
    ("h", Decimal::new(3_600_000, 0)),
    ("d", Decimal::new(86_400_000, 0)),
    ("wk", Decimal::new(604_800_000, 0)),
    ("Mo", Decimal::new(2_629_800_000, 0)),
    ("yr", Decimal::new(31_557_600_000, 0)),
];
/// The units alone, as a schema's list.
pub(super) const DURATION_UNITS: &[&str] = &["ps", "ns", "us", "ms", "sec", "min", "h", "d", "wk", "Mo", "yr"];
/// Parts of a day: name, first hour, hours. The standard names them only; where they begin is custom.
const PARTS_OF_DAY: &[(&str, i64, u64)] =
    &[("morning", 6, 6), ("afternoon", 12, 6), ("evening", 18, 4), ("night", 22, 8)];
/// How far custom differs.
const PART_OF_DAY_UNCERTAINTY_MS: u32 = 2 * HOUR_MS;
const HOUR_MS: u32 = 3_600_000;

/// Which forms an interval has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Open mHealth's: two of start, end and duration; or a date and a part of the day.
    Omh,
    /// IEEE 1752.1's: two of start, end and duration.
    Ieee,
}

/// What times are read with.
pub(super) struct Clock<'c> {
    pub(super) zone: Option<&'c TimeZone>,
    pub(super) receipt: &'c ReceiptContext,
}

impl Clock<'_> {
    /// Strictly: with zone.
    pub(super) fn is_date_time(&self, text: &str) -> bool {
        text.contains(['T', 't']) && Stamp::read(text, None, self.receipt).is_some()
    }

    fn stamp(&self, text: &str) -> Option<Stamp> {
        Stamp::read_anyhow(text, self.zone, self.receipt)
    }

    fn at(&self, stamp: Option<Stamp>) -> ReadingTime {
        stamp.map_or_else(|| self.receipt.unknown(None), |stamp| stamp.in_document(self.receipt))
    }

    fn during(&self, begin: Stamp, interval_ms: i64) -> ReadingTime {
        match u64::try_from(interval_ms) {
            Ok(interval_ms) => {
                let time = begin.in_document(self.receipt);
                let known = time.method == begin.method;
                ReadingTime { interval_ms: known.then_some(interval_ms), ..time }
            }
            Err(_) => self.receipt.unknown(Some(begin.device)),
        }
    }
}

/// A frame: a moment or an interval.
pub(super) fn frame(value: &Value, rule: Rule, clock: &Clock<'_>, place: Place) -> Result<ReadingTime, AdapterError> {
    let node = members(value, place)?;
    match (node.get("date_time"), node.get("time_interval")) {
        (Some(moment), None) => Ok(clock.at(clock.stamp(text(moment, place)?))),
        (None, Some(sent)) => interval(sent, rule, clock, place),
        (None, None) => Err(place.invalid("neither date_time nor time_interval")),
        (Some(_), Some(_)) => Err(place.invalid("both date_time and time_interval")),
    }
}

/// An interval, in exactly one of its forms.
pub(super) fn interval(
    value: &Value,
    rule: Rule,
    clock: &Clock<'_>,
    place: Place,
) -> Result<ReadingTime, AdapterError> {
    let node = members(value, place)?;
    let part = |name: &str| node.get(name);
    let day = match rule {
        Rule::Omh => part("date").zip(part("part_of_day")),
        Rule::Ieee => None,
    };
    match (part("start_date_time"), part("end_date_time"), part("duration"), day) {
        (Some(start), Some(end), None, None) => {
            let (start, end) = (clock.stamp(text(start, place)?), clock.stamp(text(end, place)?));
            Ok(match (start, end) {
                (Some(start), Some(end)) => clock.during(start, end.unix_ms.saturating_sub(start.unix_ms)),
                (start, _) => clock.at(start),
            })
        }
        (Some(start), None, Some(duration), None) => {
            let (start, ms) = (clock.stamp(text(start, place)?), duration_ms(duration, place)?);
            Ok(match start {
                Some(start) => clock.during(start, ms.unwrap_or(-1)),
                None => clock.at(None),
            })
        }
        (None, Some(end), Some(duration), None) => {
            let (end, ms) = (clock.stamp(text(end, place)?), duration_ms(duration, place)?);
            Ok(match (end, ms) {
                (Some(end), Some(ms @ 0..)) => {
                    clock.during(Stamp { unix_ms: end.unix_ms.saturating_sub(ms), ..end }, ms)
                }
                (Some(end), _) => clock.receipt.unknown(Some(end.device)),
                (None, _) => clock.at(None),
            })
        }
        (None, None, _, Some((date, part)))
        | (Some(_), None, None, Some((date, part)))
        | (None, Some(_), None, Some((date, part))) => {
            part_of_day(text(date, place)?, text(part, place)?, clock, place)
        }
        _ => Err(place.invalid(match rule {
            Rule::Omh => "an interval has two of start_date_time, end_date_time and duration, or date and part_of_day",
            Rule::Ieee => "an interval has two of start_date_time, end_date_time and duration",
        })),
    }
}

fn part_of_day(date: &str, part: &str, clock: &Clock<'_>, place: Place) -> Result<ReadingTime, AdapterError> {
    let shape = |(at, c): (usize, char)| if matches!(at, 4 | 7) { c == '-' } else { c.is_ascii_digit() };
    if date.len() != 10 || !date.chars().enumerate().all(shape) {
        return Err(place.invalid("the date is not written as 2013-02-05"));
    }
    let Some((_, first, hours)) = PARTS_OF_DAY.iter().find(|(name, ..)| *name == part) else {
        return Err(place.invalid("the part of the day is none of morning, afternoon, evening, night"));
    };
    let Some(day) = Stamp::date(date, clock.zone) else { return Ok(clock.at(None)) };
    // The day is known; within it, where the part begins.
    let zone_ms = day.uncertainty_ms.saturating_sub(24 * HOUR_MS);
    let begin = Stamp {
        unix_ms: day.unix_ms.saturating_add(first * i64::from(HOUR_MS)),
        uncertainty_ms: zone_ms.saturating_add(PART_OF_DAY_UNCERTAINTY_MS),
        ..day
    };
    Ok(clock.during(begin, i64::try_from(hours * u64::from(HOUR_MS)).unwrap_or(0)))
}

/// `None`: longer than anything, or negative.
fn duration_ms(value: &Value, place: Place) -> Result<Option<i64>, AdapterError> {
    let (number, unit) = quantity(value, DURATION_UNITS, place)?;
    let factor = DURATIONS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let product =
        number.parse().ok().zip(factor).and_then(|(number, factor): (Decimal, _)| number.checked_mul(factor).ok());
    Ok(product.and_then(Decimal::floor).filter(|ms| *ms >= 0))
}

fn members(value: &Value, place: Place) -> Result<&Map<String, Value>, AdapterError> {
    let wrong = || AdapterError::Type { path: place.path(), expected: "an object", found: kind(value) };
    value.as_object().ok_or_else(wrong)
}

fn text(value: &Value, place: Place) -> Result<&str, AdapterError> {
    value.as_str().ok_or_else(|| AdapterError::Type { path: place.path(), expected: "text", found: kind(value) })
}
