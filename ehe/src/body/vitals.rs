//! A window of readings in columns: what does not change is written once, what changes is packed (SPEC 14).
//!
//! Readings that share vital, unit, device, number of decimals, statistic, flags and kind of time form a *series*. Within a
//! series their order is kept. Series follow each other in the order of their first reading, so readings of different series
//! that were interleaved are not interleaved any more: sort by [`Reading::at`] where that matters.

use minicbor::{Decode, Encode};

use super::column::{Column, ColumnError};
use crate::cbor::{self, CborError};
use crate::decimal::Decimal;
use crate::limits::{READINGS_PER_BODY_MAX, SERIES_PER_BODY_MAX, VITALS_BODY_MAX_BYTES};
use crate::reading::{DeviceId, DeviceTime, Flags, Reading, ReadingTime, Statistic, TimeMethod};
use crate::time::UnixMs;
use crate::unit::Unit;
use crate::vital::{UnitMismatch, Vital};

/// Why readings make no body, or bytes no readings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// No reading. A window without readings is not sent.
    #[error("a vitals body without readings")]
    Empty,
    /// More readings than one body holds.
    #[error("{found} readings in one body; at most {READINGS_PER_BODY_MAX} are allowed")]
    TooManyReadings {
        /// Readings found.
        found: usize,
    },
    /// More series than one body holds.
    #[error("more than {SERIES_PER_BODY_MAX} series in one body; the first {fits} readings fit")]
    TooManySeries {
        /// Leading readings that stay within the limit.
        fits: usize,
    },
    /// The readings take more bytes than one body holds.
    #[error("{found} bytes in one body; at most {VITALS_BODY_MAX_BYTES} are allowed: split it")]
    TooLarge {
        /// Bytes that the readings take.
        found: usize,
    },
    /// Not the deterministic CBOR of a vitals body.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// A column that does not hold what its series says.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// A unit that does not measure its vital.
    #[error(transparent)]
    Unit(#[from] UnitMismatch),
    /// A number that its field cannot have.
    #[error("{field} out of range")]
    Range {
        /// The field.
        field: &'static str,
    },
    /// The right readings in another than their one allowed form.
    #[error("not the one allowed encoding of its readings")]
    NotCanonical,
}

/// Readings in columns, at most [`READINGS_PER_BODY_MAX`] in at most [`SERIES_PER_BODY_MAX`] series.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VitalsBody {
    /// The first reading's [`Reading::at`]: times are counted from here.
    #[n(0)]
    origin: UnixMs,
    /// The first reading's receipt by UTC less that by the monotonic clock, in ms.
    #[n(1)]
    monotonic_start: i64,
    #[n(2)]
    series: Vec<Series>,
}

/// Readings that differ in time and digits only. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Series {
    #[n(0)]
    vital: Vital,
    /// Left out where it is the vital's canonical unit.
    #[n(1)]
    unit: Option<Unit>,
    #[n(2)]
    device: DeviceId,
    #[n(3)]
    exponent: i8,
    #[n(4)]
    statistic: Option<Statistic>,
    /// Left out where no bit is set.
    #[n(5)]
    flags: Option<u32>,
    #[n(6)]
    method: TimeMethod,
    #[n(7)]
    clock_synchronised: bool,
    #[n(8)]
    count: u16,
    /// Derived time, or where that is not known the receipt, less the body's origin.
    #[n(9)]
    time: Column,
    /// Receipt less derived time; left out where there is no derived time.
    #[n(10)]
    delay: Option<Column>,
    /// Receipt by UTC less receipt by the monotonic clock, less the body's monotonic start.
    #[n(11)]
    monotonic: Column,
    #[n(12)]
    uncertainty: Column,
    /// The device's clock less `time`; left out where the device sent none.
    #[n(13)]
    device_clock: Option<Column>,
    /// Its zone, minutes east of UTC; left out where it was sent without.
    #[n(14)]
    zone: Option<i16>,
    /// Length of the interval; left out for momentary values.
    #[n(15)]
    interval: Option<Column>,
    #[n(16)]
    mantissa: Column,
}

/// What the readings of one series share.
#[derive(PartialEq)]
struct Key<'a> {
    vital: Vital,
    unit: Unit,
    device: &'a DeviceId,
    exponent: i8,
    statistic: Option<Statistic>,
    flags: Flags,
    method: TimeMethod,
    clock_synchronised: bool,
    has_derived: bool,
    /// `Some(None)`: a device time without a zone.
    zone: Option<Option<i16>>,
    has_interval: bool,
}

impl<'a> Key<'a> {
    fn of(reading: &'a Reading) -> Self {
        let time = reading.time();
        Self {
            vital: reading.vital(),
            unit: reading.unit(),
            device: reading.device(),
            exponent: reading.value().exponent(),
            statistic: reading.statistic(),
            flags: reading.flags(),
            method: time.method,
            clock_synchronised: time.clock_synchronised,
            has_derived: time.derived.is_some(),
            zone: time.device.map(|device| device.offset_min),
            has_interval: time.interval_ms.is_some(),
        }
    }
}

/// All of these sums wrap: a nonsense time costs its column some bytes, never the reading.
fn ms(time: UnixMs) -> i64 {
    time.0.cast_signed()
}

fn monotonic_start(time: &ReadingTime) -> i64 {
    ms(time.received).wrapping_sub(time.received_monotonic_ms.cast_signed())
}

impl VitalsBody {
    /// Puts readings, at least one, into columns.
    ///
    /// Fails with the `TooMany…` and `TooLarge` errors if they do not fit into one body: the caller splits them.
    pub fn from_readings(readings: &[Reading]) -> Result<Self, BodyError> {
        let body = Self::columns(readings)?;
        let found = body.to_vec().len();
        if found > VITALS_BODY_MAX_BYTES {
            return Err(BodyError::TooLarge { found });
        }
        Ok(body)
    }

    fn columns(readings: &[Reading]) -> Result<Self, BodyError> {
        let first = readings.first().ok_or(BodyError::Empty)?;
        if readings.len() > READINGS_PER_BODY_MAX {
            return Err(BodyError::TooManyReadings { found: readings.len() });
        }
        let mut groups: Vec<(Key<'_>, Vec<&Reading>)> = Vec::new();
        for (index, reading) in readings.iter().enumerate() {
            let key = Key::of(reading);
            // The newest series is the likeliest; sixty-four are few enough to look at.
            let known = groups.len();
            match groups.iter_mut().rev().find(|(other, _)| *other == key) {
                Some((_, group)) => group.push(reading),
                None if known == SERIES_PER_BODY_MAX => return Err(BodyError::TooManySeries { fits: index }),
                None => groups.push((key, vec![reading])),
            }
        }
        let (origin, monotonic_start) = (first.at(), monotonic_start(first.time()));
        let series = groups.iter().map(|(key, group)| Series::of(key, group, origin, monotonic_start));
        Ok(Self { origin, monotonic_start, series: series.collect::<Result<_, _>>()? })
    }

    /// Deterministic CBOR, at most [`VITALS_BODY_MAX_BYTES`].
    pub fn to_vec(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Reads a body that somebody sent. Any other than the one encoding of its readings is refused; counts are held against
    /// the limits before anything is allocated for them.
    pub fn decode(bytes: &[u8]) -> Result<Vec<Reading>, BodyError> {
        let body: Self = cbor::from_slice(bytes, VITALS_BODY_MAX_BYTES)?;
        if body.series.len() > SERIES_PER_BODY_MAX {
            return Err(BodyError::TooManySeries { fits: 0 });
        }
        let found = body.series.iter().map(|series| usize::from(series.count)).sum();
        if found > READINGS_PER_BODY_MAX {
            return Err(BodyError::TooManyReadings { found });
        }
        let mut readings = Vec::with_capacity(found);
        for series in &body.series {
            series.readings_into(body.origin, body.monotonic_start, &mut readings)?;
        }
        if Self::columns(&readings)? == body { Ok(readings) } else { Err(BodyError::NotCanonical) }
    }
}

impl Series {
    fn of(key: &Key<'_>, group: &[&Reading], origin: UnixMs, start: i64) -> Result<Self, BodyError> {
        let column = |value: &dyn Fn(&Reading) -> i64| {
            let values: Vec<i64> = group.iter().map(|reading| value(reading)).collect();
            Column::of(&values)
        };
        let interval = |r: &Reading| r.time().interval_ms.unwrap_or(0).cast_signed();
        let device_clock = |r: &Reading| r.time().device.map_or(0, |device| device.wall_ms.wrapping_sub(ms(r.at())));
        Ok(Self {
            vital: key.vital,
            unit: (key.unit != key.vital.unit()).then_some(key.unit),
            device: key.device.clone(),
            exponent: key.exponent,
            statistic: key.statistic,
            flags: (!key.flags.is_empty()).then_some(key.flags.0),
            method: key.method,
            clock_synchronised: key.clock_synchronised,
            count: u16::try_from(group.len()).map_err(|_| BodyError::TooManyReadings { found: group.len() })?,
            time: column(&|r| ms(r.at()).wrapping_sub(ms(origin))),
            delay: key.has_derived.then(|| column(&|r| ms(r.time().received).wrapping_sub(ms(r.at())))),
            monotonic: column(&|r| monotonic_start(r.time()).wrapping_sub(start)),
            uncertainty: column(&|r| i64::from(r.time().uncertainty_ms)),
            device_clock: key.zone.is_some().then(|| column(&device_clock)),
            zone: key.zone.flatten(),
            interval: key.has_interval.then(|| column(&interval)),
            mantissa: column(&|r| r.value().mantissa()),
        })
    }

    fn readings_into(&self, origin: UnixMs, start: i64, readings: &mut Vec<Reading>) -> Result<(), BodyError> {
        let count = usize::from(self.count);
        let optional = |column: &Option<Column>| -> Result<Vec<Option<i64>>, ColumnError> {
            match column {
                Some(column) => Ok(column.values(count)?.into_iter().map(Some).collect()),
                None => Ok(vec![None; count]),
            }
        };
        let unit = self.unit.unwrap_or(self.vital.unit());
        let flags = Flags(self.flags.unwrap_or(0));
        let rows = self.time.values(count)?.into_iter().zip(self.mantissa.values(count)?);
        let receipts = optional(&self.delay)?.into_iter().zip(self.monotonic.values(count)?);
        let device = optional(&self.device_clock)?.into_iter().zip(optional(&self.interval)?);
        let uncertainty = self.uncertainty.values(count)?;
        for ((((time, mantissa), (delay, monotonic)), (clock, interval)), uncertainty) in
            rows.zip(receipts).zip(device).zip(uncertainty)
        {
            let at = ms(origin).wrapping_add(time);
            let received = at.wrapping_add(delay.unwrap_or(0));
            let monotonic = received.wrapping_sub(start.wrapping_add(monotonic));
            let time = ReadingTime {
                device: clock.map(|c| DeviceTime { wall_ms: at.wrapping_add(c), offset_min: self.zone }),
                received: UnixMs(received.cast_unsigned()),
                received_monotonic_ms: monotonic.cast_unsigned(),
                derived: delay.map(|_| UnixMs(at.cast_unsigned())),
                interval_ms: interval.map(i64::cast_unsigned),
                method: self.method,
                uncertainty_ms: u32::try_from(uncertainty).map_err(|_| BodyError::Range { field: "uncertainty" })?,
                clock_synchronised: self.clock_synchronised,
            };
            let value = (self.vital, Decimal::new(mantissa, self.exponent), unit);
            readings.push(Reading::restored(value, self.device.clone(), time, self.statistic, flags)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
