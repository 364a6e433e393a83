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

/// An encoded body: readings in columns, at most [`READINGS_PER_BODY_MAX`] in at most [`SERIES_PER_BODY_MAX`] series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VitalsBody(Vec<u8>);

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Columns<'b> {
    /// The first reading's [`Reading::at`]: times are counted from here.
    #[n(0)]
    origin: UnixMs,
    /// The first reading's receipt by UTC less that by the monotonic clock, in ms.
    #[n(1)]
    monotonic_start: i64,
    #[b(2)]
    series: Vec<Series<'b>>,
}

/// Readings that differ in time and digits only. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Series<'b> {
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
    #[b(9)]
    time: Column<'b>,
    /// Receipt less derived time; left out where there is no derived time.
    #[b(10)]
    delay: Option<Column<'b>>,
    /// Receipt by UTC less receipt by the monotonic clock, less the body's monotonic start.
    #[b(11)]
    monotonic: Column<'b>,
    #[b(12)]
    uncertainty: Column<'b>,
    /// The device's clock less `time`; left out where the device sent none.
    #[b(13)]
    device_clock: Option<Column<'b>>,
    /// Its zone, minutes east of UTC; left out where it was sent without.
    #[n(14)]
    zone: Option<i16>,
    /// Length of the interval; left out for momentary values.
    #[b(15)]
    interval: Option<Column<'b>>,
    #[b(16)]
    mantissa: Column<'b>,
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
    /// Puts readings, at least one, into columns: deterministic CBOR of at most [`VITALS_BODY_MAX_BYTES`].
    ///
    /// Fails with the `TooMany…` and `TooLarge` errors if they do not fit into one body: the caller splits them.
    pub fn from_readings(readings: &[Reading]) -> Result<Self, BodyError> {
        let bytes = cbor::to_vec(&Columns::of(readings)?);
        let found = bytes.len();
        if found > VITALS_BODY_MAX_BYTES {
            return Err(BodyError::TooLarge { found });
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.clone()
    }

    /// Reads a body that somebody sent. Any other than the one encoding of its readings is refused; counts are held against
    /// the limits before anything is allocated for them.
    pub fn decode(bytes: &[u8]) -> Result<Vec<Reading>, BodyError> {
        let body: Columns<'_> = cbor::from_slice(bytes, VITALS_BODY_MAX_BYTES)?;
        if body.series.len() > SERIES_PER_BODY_MAX {
            return Err(BodyError::TooManySeries { fits: 0 });
        }
        let found = body.series.iter().map(|series| usize::from(series.count)).sum();
        if found > READINGS_PER_BODY_MAX {
            return Err(BodyError::TooManyReadings { found });
        }
        body.readings(found)
    }
}

impl Columns<'static> {
    fn of(readings: &[Reading]) -> Result<Self, BodyError> {
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
}

impl Columns<'_> {
    /// The `found` readings of all series. That they stand in their one encoding is checked on the way, so that nothing has to be
    /// encoded again: what is left to check here is how series follow from readings. A test holds the checks against [`Columns::of`].
    fn readings(&self, found: usize) -> Result<Vec<Reading>, BodyError> {
        let mut readings = Vec::with_capacity(found);
        let mut columns = Values::default();
        for (index, series) in self.series.iter().enumerate() {
            let earlier = self.series.get(..index).unwrap_or_default();
            if !series.is_canonical() || earlier.iter().any(|other| other.key() == series.key()) {
                return Err(BodyError::NotCanonical);
            }
            series.read_columns(&mut columns)?;
            // Times are counted from the first reading, clocks from its clocks.
            if index == 0 && (columns.time.first(), columns.monotonic.first()) != (Some(&0), Some(&0)) {
                return Err(BodyError::NotCanonical);
            }
            series.readings_into(self, &columns, &mut readings)?;
        }
        if readings.is_empty() { Err(BodyError::Empty) } else { Ok(readings) }
    }
}

/// The values of one series' columns, as many each as it has readings. One buffer for a body: it is filled anew for each series.
#[derive(Default)]
struct Values {
    time: Vec<i64>,
    delay: Vec<i64>,
    monotonic: Vec<i64>,
    uncertainty: Vec<i64>,
    device_clock: Vec<i64>,
    interval: Vec<i64>,
    mantissa: Vec<i64>,
}

impl Series<'static> {
    fn of(key: &Key<'_>, group: &[&Reading], origin: UnixMs, start: i64) -> Result<Self, BodyError> {
        let mut values = Vec::with_capacity(group.len());
        let mut column = |value: &dyn Fn(&Reading) -> i64| {
            values.clear();
            values.extend(group.iter().map(|reading| value(reading)));
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
}

impl Series<'_> {
    fn key(&self) -> Key<'_> {
        Key {
            vital: self.vital,
            unit: self.unit.unwrap_or(self.vital.unit()),
            device: &self.device,
            exponent: self.exponent,
            statistic: self.statistic,
            flags: Flags(self.flags.unwrap_or(0)),
            method: self.method,
            clock_synchronised: self.clock_synchronised,
            has_derived: self.delay.is_some(),
            zone: self.device_clock.is_some().then_some(self.zone),
            has_interval: self.interval.is_some(),
        }
    }

    /// Whether it has readings, and its members are left out exactly where they have to be.
    fn is_canonical(&self) -> bool {
        self.count > 0
            && self.unit != Some(self.vital.unit())
            && self.flags != Some(0)
            && (self.device_clock.is_some() || self.zone.is_none())
    }

    fn read_columns(&self, columns: &mut Values) -> Result<(), ColumnError> {
        let read = |column: Option<&Column<'_>>, values: &mut Vec<i64>| {
            values.clear();
            column.unwrap_or(&Column::Constant(0)).read(usize::from(self.count), values)
        };
        read(Some(&self.time), &mut columns.time)?;
        read(self.delay.as_ref(), &mut columns.delay)?;
        read(Some(&self.monotonic), &mut columns.monotonic)?;
        read(Some(&self.uncertainty), &mut columns.uncertainty)?;
        read(self.device_clock.as_ref(), &mut columns.device_clock)?;
        read(self.interval.as_ref(), &mut columns.interval)?;
        read(Some(&self.mantissa), &mut columns.mantissa)
    }

    fn readings_into(
        &self,
        body: &Columns<'_>,
        columns: &Values,
        readings: &mut Vec<Reading>,
    ) -> Result<(), BodyError> {
        let unit = self.unit.unwrap_or(self.vital.unit());
        let flags = Flags(self.flags.unwrap_or(0));
        let (has_derived, has_device, has_interval) =
            (self.delay.is_some(), self.device_clock.is_some(), self.interval.is_some());
        let receipts = columns.time.iter().zip(&columns.delay).zip(&columns.monotonic);
        let rest = columns.device_clock.iter().zip(&columns.interval).zip(&columns.uncertainty).zip(&columns.mantissa);
        for (((time, delay), monotonic), (((clock, interval), uncertainty), mantissa)) in receipts.zip(rest) {
            let at = ms(body.origin).wrapping_add(*time);
            let received = at.wrapping_add(*delay);
            let start = body.monotonic_start.wrapping_add(*monotonic);
            let device = DeviceTime { wall_ms: at.wrapping_add(*clock), offset_min: self.zone };
            let time = ReadingTime {
                device: has_device.then_some(device),
                received: UnixMs(received.cast_unsigned()),
                received_monotonic_ms: received.wrapping_sub(start).cast_unsigned(),
                derived: has_derived.then_some(UnixMs(at.cast_unsigned())),
                interval_ms: has_interval.then_some(interval.cast_unsigned()),
                method: self.method,
                uncertainty_ms: u32::try_from(*uncertainty).map_err(|_| BodyError::Range { field: "uncertainty" })?,
                clock_synchronised: self.clock_synchronised,
            };
            let value = (self.vital, Decimal::new(*mantissa, self.exponent), unit);
            readings.push(Reading::restored(value, self.device.clone(), time, self.statistic, flags)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
