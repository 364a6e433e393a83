//! Vitals bodies: bytes to readings and back.

use ehe::body::vitals::VitalsBody;
use ehe::reading::Reading;
use serde_json::{Value, json};

use super::{Facts, Fault};
use crate::json::Members;

pub(crate) fn reading_json(reading: &Reading) -> Value {
    let time = reading.time();
    let mut json = json!({
        "vital": reading.vital().code(),
        "unit": reading.unit().code(),
        "device": reading.device().as_str(),
        "mantissa": reading.value().mantissa(),
        "exponent": reading.value().exponent(),
        "flags": reading.flags().0,
        "method": time.method.code(),
        "clock_synchronised": time.clock_synchronised,
        "received": time.received.0,
        "received_monotonic": time.received_monotonic_ms,
        "uncertainty": time.uncertainty_ms,
    });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            json[name] = value;
        }
    };
    set("derived", time.derived.map(|t| json!(t.0)));
    set("interval", time.interval_ms.map(|ms| json!(ms)));
    set("device_clock", time.device.map(|d| json!(d.wall_ms)));
    set("zone", time.device.and_then(|d| d.offset_min).map(|m| json!(m)));
    set("statistic", reading.statistic().map(|s| json!(s.code())));
    json
}

pub(super) fn vitals(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let bytes = input.bytes("body");
    let readings = VitalsBody::decode(&bytes)?;
    // An author may leave pco out where it may stand, so only a body without such a column has one encoding.
    let again = VitalsBody::from_readings(&readings)?.to_vec();
    facts.insert("canonical".into(), json!(again == bytes));
    // A long body would make a file of 100 KB: its values have to do.
    if readings.len() <= 64 {
        facts.insert("readings".into(), json!(readings.iter().map(reading_json).collect::<Vec<_>>()));
    }
    facts.insert("text".into(), json!(readings.iter().map(|r| r.value().to_string()).collect::<Vec<_>>()));
    Ok(())
}
