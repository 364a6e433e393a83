//! What Theengs Gateway and OpenMQTTGateway publish of a Bluetooth device that they have decoded: one flat JSON object.
//!
//! Most of what they publish is not about a body: thermometers of rooms, buttons, trackers, kitchen scales. So a reading needs
//! the document's word that it is: a weight, that a person was weighed (`weighing_mode`), the rest, that the device is worn
//! (`type` is `BODY`). A temperature, even beside those, is the device's or the room's.

use ehe::decimal::Decimal;
use ehe::reading::{Reading, ReadingTime, Statistic};
use ehe::unit::Unit;
use ehe::vital::Vital;
use serde_json::Value;

use super::document::{kind, parse};
use crate::error::{AdapterError, shortened};
use crate::stamp::Stamp;
use crate::{Adapter, Decoded, Fields, ReceiptContext};

/// What a device that is worn sends.
const WORN: &[(&str, Vital, Unit)] = &[
    ("bpm", Vital::HeartRate, Unit::PerMinute),
    ("hr", Vital::HeartRate, Unit::PerMinute),
    ("act_bpm", Vital::HeartRate, Unit::PerMinute),
    ("steps", Vital::StepCount, Unit::Steps),
];
/// What bands send for a heart rate that they do not have: an octet of ones, or nothing counted.
const NO_HEART_RATE: [Decimal; 2] = [Decimal::new(255, 0), Decimal::ZERO];
/// A jin is half a kilogram, exactly; UCUM has no name for it.
const JIN_KG: Decimal = Decimal::new(5, -1);

/// Messages of both programs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Theengs;

impl Adapter for Theengs {
    fn decode(&self, input: &[u8], receipt: &ReceiptContext) -> Result<Decoded, AdapterError> {
        let document = parse(input)?;
        if !document.is_object() {
            let (path, expected) = ("$".to_owned(), "an object");
            return Err(AdapterError::Type { path, expected, found: kind(&document) });
        }
        let word = |name: &str| document.get(name).and_then(Value::as_str);
        let time = time(&document, receipt);
        let mut readings = Vec::new();
        let mut put = |name: &str, vital: Vital, value: Decimal, unit: Unit| {
            let reading = Reading::new(vital, value, unit, receipt.device.clone(), time)
                .map_err(|problem| AdapterError::Unit { path: name.to_owned(), problem })?;
            // A band counts on all day: what it shows is the day's steps so far, together.
            let counted = vital == Vital::StepCount;
            readings.push(if counted { reading.with_statistic(Statistic::Sum) } else { reading });
            Ok::<_, AdapterError>(())
        };
        let kind_of_device = word("type");
        // What a scale shows while somebody steps on it is no weight.
        let settled = document.get("stabilized") != Some(&Value::Bool(false));
        if kind_of_device.is_none_or(|kind| kind == "SCALE") && word("weighing_mode") == Some("person") && settled {
            if let Some(weight) = number(&document, "weight")?.filter(|weight| *weight != Decimal::ZERO) {
                let (weight, unit) = weighed(weight, word("unit"))?;
                put("weight", Vital::BodyWeight, weight, unit)?;
            }
            // 0 is what a scale says of somebody with socks on.
            if let Some(impedance) = number(&document, "impedance")?.filter(|ohm| *ohm != Decimal::ZERO) {
                put("impedance", Vital::BodyImpedance, impedance, Unit::Ohm)?;
            }
        }
        if kind_of_device == Some("BODY") {
            for (name, vital, unit) in WORN {
                let Some(value) = number(&document, name)? else { continue };
                if *vital == Vital::HeartRate && NO_HEART_RATE.contains(&value) {
                    continue;
                }
                put(name, *vital, value, *unit)?;
            }
        }
        Ok(Decoded { readings, fields: Fields::Json(document) })
    }
}

/// OpenMQTTGateway can be told to write when it heard the device; else that was now.
fn time(document: &Value, receipt: &ReceiptContext) -> ReadingTime {
    let stamp = match (document.get("UTCtime"), document.get("unixtime")) {
        (Some(Value::String(text)), _) => Stamp::read(text, None, receipt),
        (None, Some(Value::Number(seconds))) => {
            seconds.as_str().parse().ok().and_then(|seconds| Stamp::unix(seconds, 3))
        }
        (None, None) => return receipt.at_receipt(),
        _ => None,
    };
    stamp.map_or_else(|| receipt.instead_of(None), |stamp| stamp.of_device(receipt))
}

fn number(document: &Value, name: &str) -> Result<Option<Decimal>, AdapterError> {
    let path = || name.to_owned();
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            number.as_str().parse().map(Some).map_err(|problem| AdapterError::Number { path: path(), problem })
        }
        Some(other) => Err(AdapterError::Type { path: path(), expected: "a number", found: kind(other) }),
    }
}

fn weighed(weight: Decimal, unit: Option<&str>) -> Result<(Decimal, Unit), AdapterError> {
    match unit {
        None => Err(AdapterError::MissingUnit { path: "unit".to_owned() }),
        Some("jin") => match weight.checked_mul(JIN_KG) {
            Ok(weight) => Ok((weight, Unit::Kilogram)),
            Err(problem) => Err(AdapterError::Number { path: "weight".to_owned(), problem }),
        },
        Some(unit) => match Unit::from_sender(unit) {
            Some(unit) => Ok((weight, unit)),
            None => Err(AdapterError::UnknownUnit { path: "unit".to_owned(), found: shortened(unit) }),
        },
    }
}
