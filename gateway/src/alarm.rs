//! Which values are worth an alarm: they close their window at once and go before everything else.

use std::collections::BTreeMap;

use ehe::decimal::Decimal;
use ehe::reading::Reading;
use ehe::vital::Vital;
use serde::{Deserialize, Serialize};

/// Bounds of one vital, in its canonical unit. A value *below* `low` or *above* `high` is worth an alarm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Threshold {
    /// Lowest value that is not worth one.
    pub low: Option<Decimal>,
    /// Highest value that is not worth one.
    pub high: Option<Decimal>,
}

/// The thresholds of all vitals that have some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds(BTreeMap<Vital, Threshold>);

impl Thresholds {
    /// The defaults, with `changes` in their place. A threshold without bounds switches its vital off.
    pub fn new(changes: &BTreeMap<Vital, Threshold>) -> Self {
        let mut all = defaults();
        all.extend(changes.iter().map(|(vital, threshold)| (*vital, *threshold)));
        Self(all)
    }

    /// Whether the reading is worth an alarm. Spreads, sums and counts never are.
    pub fn alarms(&self, reading: &Reading) -> bool {
        if reading.statistic().is_some_and(|statistic| !statistic.is_location()) {
            return false;
        }
        let (Some(threshold), Ok(value)) = (self.0.get(&reading.vital()), reading.canonical_value()) else {
            return false;
        };
        threshold.low.is_some_and(|low| value < low) || threshold.high.is_some_and(|high| value > high)
    }
}

/// For adults at rest. Heart rate, saturation, breathing and temperature: where NEWS2 (Royal College of Physicians 2017) gives
/// three points. Blood pressure: NEWS2 below, hypertensive crisis (ACC/AHA 2017) above. Glucose: hypoglycaemia level 1 (ADA), and
/// where ketones are to be looked for. They order transport; they are no diagnosis, and no alarm that a person is woken by.
pub fn defaults() -> BTreeMap<Vital, Threshold> {
    let row = |vital, low: Option<Decimal>, high: Option<Decimal>| (vital, Threshold { low, high });
    let whole = |n: i32| Some(Decimal::from(n));
    BTreeMap::from([
        row(Vital::HeartRate, whole(41), whole(130)),
        row(Vital::PulseRate, whole(41), whole(130)),
        row(Vital::SystolicBloodPressure, whole(91), whole(180)),
        row(Vital::DiastolicBloodPressure, None, whole(120)),
        row(Vital::OxygenSaturation, whole(92), None),
        row(Vital::RespiratoryRate, whole(9), whole(24)),
        row(Vital::BodyTemperature, Some(Decimal::new(351, -1)), Some(Decimal::new(390, -1))),
        row(Vital::BloodGlucose, whole(70), whole(250)),
        row(Vital::InterstitialGlucose, whole(70), whole(250)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehe::reading::{DeviceId, ReadingTime, Statistic};
    use ehe::time::UnixMs;
    use ehe::unit::Unit;

    fn reading(vital: Vital, value: &str, unit: Unit) -> Reading {
        let time = ReadingTime::at_receipt(UnixMs(1_700_000_000_000), 5, true, 1_000);
        Reading::new(vital, value.parse().unwrap(), unit, DeviceId::new("d").unwrap(), time).unwrap()
    }

    #[test]
    fn a_value_outside_its_bounds_alarms_in_whatever_unit_it_was_sent() {
        let thresholds = Thresholds::new(&BTreeMap::new());
        let alarms = |vital, value, unit| thresholds.alarms(&reading(vital, value, unit));
        assert!(alarms(Vital::HeartRate, "40", Unit::PerMinute));
        assert!(!alarms(Vital::HeartRate, "41", Unit::PerMinute));
        assert!(!alarms(Vital::HeartRate, "130", Unit::PerMinute));
        assert!(alarms(Vital::HeartRate, "130.5", Unit::PerMinute));
        assert!(alarms(Vital::BodyTemperature, "102.5", Unit::Fahrenheit));
        assert!(!alarms(Vital::BodyTemperature, "98.6", Unit::Fahrenheit));
        let spread = reading(Vital::HeartRate, "4", Unit::PerMinute).with_statistic(Statistic::StandardDeviation);
        assert!(!thresholds.alarms(&spread));
    }

    #[test]
    fn a_threshold_of_the_configuration_takes_the_place_of_the_default() {
        let off = Thresholds::new(&BTreeMap::from([(Vital::HeartRate, Threshold::default())]));
        assert!(!off.alarms(&reading(Vital::HeartRate, "10", Unit::PerMinute)));
        assert!(off.alarms(&reading(Vital::OxygenSaturation, "80", Unit::Percent)));
    }
}
