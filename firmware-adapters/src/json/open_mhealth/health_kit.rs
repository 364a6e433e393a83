//! Samples of Apple's HealthKit in Open mHealth's form (`granola:hk-quantity-sample`).

use ehe::decimal::Decimal;
use ehe::reading::{Flags, ReadingTime};
use ehe::unit::Unit;
use ehe::vital::Vital;
use serde_json::{Map, Value};

use super::frame::{self, Clock, Rule};
use super::{Place, quantity};
use crate::error::{AdapterError, shortened};
use crate::json::document::kind;

const PREFIX: &str = "HKQuantityTypeIdentifier";

/// Types of quantities that are a vital.
const VITALS: &[(&str, Vital)] = &[
    ("HeartRate", Vital::HeartRate),
    ("OxygenSaturation", Vital::OxygenSaturation),
    ("RespiratoryRate", Vital::RespiratoryRate),
    ("BodyTemperature", Vital::BodyTemperature),
    ("BasalBodyTemperature", Vital::BodyTemperature),
    ("BloodPressureSystolic", Vital::SystolicBloodPressure),
    ("BloodPressureDiastolic", Vital::DiastolicBloodPressure),
    ("BloodGlucose", Vital::BloodGlucose),
    ("PeripheralPerfusionIndex", Vital::PerfusionIndex),
    ("BodyMass", Vital::BodyWeight),
    ("Height", Vital::BodyHeight),
    ("BodyMassIndex", Vital::BodyMassIndex),
    ("BodyFatPercentage", Vital::BodyFatPercentage),
    ("LeanBodyMass", Vital::FatFreeMass),
    ("StepCount", Vital::StepCount),
    ("DistanceWalkingRunning", Vital::Distance),
    ("DistanceCycling", Vital::Distance),
    ("ActiveEnergyBurned", Vital::CaloriesBurned),
];

/// Types that are none. What somebody eats has a family of names of its own.
const OTHERS: &[&str] = &[
    "BasalEnergyBurned",
    "FlightsClimbed",
    "NikeFuel",
    "NumberOfTimesFallen",
    "ElectrodermalActivity",
    "InhalerUsage",
    "BloodAlcoholContent",
    "ForcedVitalCapacity",
    "ForcedExpiratoryVolume1",
    "PeakExpiratoryFlowRate",
    "UVExposure",
];
const EATEN: &str = "Dietary";

/// A sample that is a vital.
pub(super) struct Sample {
    pub(super) vital: Vital,
    pub(super) value: Decimal,
    pub(super) unit: Unit,
    pub(super) time: ReadingTime,
    pub(super) flags: Flags,
}

/// A quantity sample; `None` if it is no vital.
pub(super) fn read(
    node: &Map<String, Value>,
    clock: &Clock<'_>,
    prefix: &'static str,
) -> Result<Option<Sample>, AdapterError> {
    let place = |name| Place { prefix, name };
    let missing = |name| AdapterError::Missing { path: place(name).path() };
    let wrong = |name, expected, found| AdapterError::Type { path: place(name).path(), expected, found: kind(found) };
    let sent = node.get("quantity_type").ok_or_else(|| missing("quantity_type"))?;
    let name = sent.as_str().ok_or_else(|| wrong("quantity_type", "text", sent))?;
    let sent = node.get("effective_time_frame").ok_or_else(|| missing("effective_time_frame"))?;
    let time = frame::frame(sent, Rule::Omh, clock, place("effective_time_frame"))?;
    let measured = match (node.get("unit_value"), node.get("count")) {
        (Some(measured), None) => quantity(measured, &[], place("unit_value"))?,
        (None, Some(Value::Number(count))) => (count.as_str(), "count"),
        (None, Some(other)) => return Err(wrong("count", "a number", other)),
        (None, None) => return Err(missing("unit_value")),
        (Some(_), Some(_)) => return Err(place("count").invalid("both unit_value and count")),
    };
    let short = name.strip_prefix(PREFIX).unwrap_or("");
    let Some((_, vital)) = VITALS.iter().find(|(known, _)| *known == short) else {
        if OTHERS.contains(&short) || short.starts_with(EATEN) {
            return Ok(None);
        }
        return Err(place("quantity_type").invalid(&format!("no such type: {:?}", shortened(name))));
    };
    let (number, unit) = measured;
    let value: Decimal =
        number.parse().map_err(|problem| AdapterError::Number { path: place("unit_value").path(), problem })?;
    let unknown = || AdapterError::UnknownUnit { path: place("unit_value").path(), found: shortened(unit) };
    let unit = unit_of(*vital, value, unit).ok_or_else(unknown)?;
    let entered = node.get("metadata").is_some_and(was_entered);
    let flags = if entered { Flags::SELF_REPORTED } else { Flags::NONE };
    Ok(Some(Sample { vital: *vital, value, unit, time, flags }))
}

fn unit_of(vital: Vital, value: Decimal, unit: &str) -> Option<Unit> {
    match (vital, unit) {
        (Vital::StepCount, "count") => Some(Unit::Steps),
        // HealthKit counts the index, and writes shares of a whole from 0 to 1 whatever it calls them; nobody alive has 1 %.
        // But of the pulse at a finger: there 0.5 % is common.
        (Vital::PerfusionIndex, "%") => Some(Unit::Percent),
        (Vital::BodyMassIndex, "count") => Some(Unit::KilogramPerSquareMetre),
        (_, "%") if value <= Decimal::ONE => Some(Unit::Unity),
        (_, "Cal") => Some(Unit::Kilocalorie),
        // An amount is written with the molar mass that it was counted with.
        (_, amount) if amount.starts_with("mmol<") && amount.ends_with(">/L") => Some(Unit::MillimolePerLitre),
        _ => Unit::from_sender(unit),
    }
}

/// Whether a person typed it in.
fn was_entered(metadata: &Value) -> bool {
    let entered = |pair: &Value| {
        pair.get("key").and_then(Value::as_str) == Some("HKMetadataKeyWasUserEntered")
            && match pair.get("value") {
                Some(Value::Bool(truth)) => *truth,
                Some(Value::Number(number)) => number.as_str() == "1",
                Some(Value::String(text)) => text.eq_ignore_ascii_case("true") || text == "1",
                _ => false,
            }
    };
    metadata.as_array().is_some_and(|pairs| pairs.iter().any(entered))
}
