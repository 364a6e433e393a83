//! A reading: one measured value with unit, device and time provenance (DESIGN section 7).

mod device;
mod qualifier;
mod time;

pub use device::{DeviceId, DeviceIdError};
pub use qualifier::{Flags, Statistic};
pub use time::{DeviceTime, ReadingTime, TimeMethod};

use crate::decimal::Decimal;
use crate::time::UnixMs;
use crate::unit::Unit;
use crate::vital::{ConversionError, UnitMismatch, Vital};

/// One measured value. Its unit always fits its vital: [`Reading::new`] is the only way to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    vital: Vital,
    value: Decimal,
    unit: Unit,
    device: DeviceId,
    time: ReadingTime,
    statistic: Option<Statistic>,
    flags: Flags,
}

impl Reading {
    /// A value as its sender gave it. An implausible one is kept and gets [`Flags::IMPLAUSIBLE`].
    pub fn new(
        vital: Vital,
        value: Decimal,
        unit: Unit,
        device: DeviceId,
        time: ReadingTime,
    ) -> Result<Self, UnitMismatch> {
        let flags = if vital.is_plausible(value, unit)? { Flags::NONE } else { Flags::IMPLAUSIBLE };
        Ok(Self { vital, value, unit, device, time, statistic: None, flags })
    }

    /// A reading as it was stored: its flags are those of the time when it was judged.
    pub(crate) fn restored(
        (vital, value, unit): (Vital, Decimal, Unit),
        device: DeviceId,
        time: ReadingTime,
        statistic: Option<Statistic>,
        flags: Flags,
    ) -> Result<Self, UnitMismatch> {
        vital.check_unit(unit)?;
        Ok(Self { vital, value, unit, device, time, statistic, flags })
    }

    /// Marks it as a summary. A spread, a sum or a count is not held against the plausible range of a single value.
    pub fn with_statistic(mut self, statistic: Statistic) -> Self {
        self.statistic = Some(statistic);
        if !statistic.is_location() {
            self.flags.0 &= !Flags::IMPLAUSIBLE.0;
        }
        self
    }

    /// Adds flags to those that it has.
    pub fn with_flags(mut self, flags: Flags) -> Self {
        self.flags = self.flags.union(flags);
        self
    }

    /// What was measured.
    pub fn vital(&self) -> Vital {
        self.vital
    }

    /// The value with the sender's digits, in the sender's unit.
    pub fn value(&self) -> Decimal {
        self.value
    }

    /// The sender's unit.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The value in the vital's canonical unit, to be shown or judged.
    pub fn canonical_value(&self) -> Result<Decimal, ConversionError> {
        self.vital.canonical(self.value, self.unit)
    }

    /// Which device measured.
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// Where its time comes from.
    pub fn time(&self) -> &ReadingTime {
        &self.time
    }

    /// The instant to file it under: the derived time, or where only the order is known the receipt.
    pub fn at(&self) -> UnixMs {
        self.time.derived.unwrap_or(self.time.received)
    }

    /// What it summarises; `None` for a plain reading.
    pub fn statistic(&self) -> Option<Statistic> {
        self.statistic
    }

    /// What is to be known before trusting it.
    pub fn flags(&self) -> Flags {
        self.flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(vital: Vital, value: &str, unit: Unit) -> Result<Reading, UnitMismatch> {
        let time = ReadingTime::at_receipt(UnixMs(1_700_000_000_000), 5, true, 1_000);
        Reading::new(vital, value.parse().unwrap(), unit, DeviceId::new("cuff").unwrap(), time)
    }

    #[test]
    fn implausible_values_are_kept_and_flagged() {
        assert_eq!(reading(Vital::HeartRate, "72", Unit::PerMinute).unwrap().flags(), Flags::NONE);
        let high = reading(Vital::HeartRate, "999", Unit::PerMinute).unwrap();
        assert_eq!((high.value().to_string().as_str(), high.flags()), ("999", Flags::IMPLAUSIBLE));
        assert_eq!(high.flags().names().collect::<Vec<_>>(), ["implausible"]);
        let spread =
            reading(Vital::HeartRate, "4", Unit::PerMinute).unwrap().with_statistic(Statistic::StandardDeviation);
        assert_eq!(spread.flags(), Flags::NONE);
    }

    #[test]
    fn a_reading_in_a_unit_of_something_else_cannot_be_made() {
        assert!(reading(Vital::HeartRate, "72", Unit::Kilogram).is_err());
        let kept = reading(Vital::BodyTemperature, "98.60", Unit::Fahrenheit).unwrap();
        assert_eq!((kept.value().to_string().as_str(), kept.unit()), ("98.60", Unit::Fahrenheit));
        assert_eq!(kept.canonical_value().unwrap().to_string(), "37.00");
    }
}
