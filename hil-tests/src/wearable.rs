//! Five wearables that publish in five shapes, and the gateway's mapping for each.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::day::Moment;
use crate::journal::Entry;

/// Two sendings of a device further apart than this tell of different moments: an oximeter's reaches back by a second, and a
/// thermometer's time is in whole seconds.
pub const REACH_MS: i64 = 1_100;

/// What one device sends at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// MQTT topic.
    pub topic: String,
    /// Payload.
    pub payload: String,
    /// The readings in it, as a correct reader prints them.
    pub readings: Vec<Entry>,
}

/// A kind of wearable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A chest strap: one flat object a second, time in Unix milliseconds.
    Strap,
    /// A blood-pressure cuff: nested object, RFC 3339 time.
    Cuff,
    /// An oximeter: an array of samples, each with its own time.
    Oximeter,
    /// A thermometer: an array of typed values in hundredths, Unix seconds.
    Thermometer,
    /// A scale: numbers as strings.
    Scale,
}

/// One wearable of one patient.
#[derive(Debug, Clone)]
pub struct Wearable {
    /// Device id; also MQTT user name and client id.
    pub device: String,
    /// What it is.
    pub kind: Kind,
    /// Which of the demo's patients wears it.
    pub patient: usize,
    /// Seconds between two sendings.
    pub every_s: u64,
}

/// The demo's five: two on the first patient, two on the second, one on the third.
pub fn five() -> Vec<Wearable> {
    let make = |device: &str, kind, patient, every_s| Wearable { device: device.into(), kind, patient, every_s };
    vec![
        make("strap-1", Kind::Strap, 0, 1),
        make("cuff-1", Kind::Cuff, 0, 5),
        make("oximeter-2", Kind::Oximeter, 1, 2),
        make("thermometer-2", Kind::Thermometer, 1, 4),
        make("scale-3", Kind::Scale, 2, 3),
    ]
}

impl Wearable {
    /// What the device sends of a moment. `patient` is the room id that readers will see.
    pub fn send(&self, patient: &str, now: &Moment, at: Timestamp) -> Sending {
        let mut readings = Vec::new();
        let mut reading = |vital: &str, value: &str, unit: &str, time_ms: i64| {
            readings.push(Entry {
                patient: patient.into(),
                device: self.device.clone(),
                vital: vital.into(),
                value: value.into(),
                unit: unit.into(),
                time: rfc3339(time_ms),
            });
        };
        let ms = at.as_millisecond();
        let (topic, payload) = match self.kind {
            Kind::Strap => {
                let beats = format!("{:.0}", now.heart_rate_per_min);
                reading("heart_rate", &beats, "/min", ms);
                ("hr", format!(r#"{{"hr":{beats},"contact":true,"ts":{ms}}}"#))
            }
            Kind::Cuff => {
                let (sys, dia) = (format!("{:.0}", now.systolic_mmhg), format!("{:.0}", now.diastolic_mmhg));
                let pulse = format!("{:.0}", now.heart_rate_per_min);
                reading("systolic_blood_pressure", &sys, "mm[Hg]", ms);
                reading("diastolic_blood_pressure", &dia, "mm[Hg]", ms);
                reading("pulse_rate", &pulse, "/min", ms);
                let time = rfc3339(ms);
                ("bp", format!(r#"{{"bp":{{"sys":{sys},"dia":{dia}}},"pulse":{pulse},"time":"{time}"}}"#))
            }
            Kind::Oximeter => {
                let mut samples = Vec::new();
                for time in [ms - 1000, ms] {
                    let (spo2, pulse) =
                        (format!("{:.1}", now.oxygen_saturation_percent), format!("{:.0}", now.heart_rate_per_min));
                    reading("oxygen_saturation", &spo2, "%", time);
                    reading("pulse_rate", &pulse, "/min", time);
                    samples.push(format!(r#"{{"t":{time},"spo2":{spo2},"pr":{pulse}}}"#));
                }
                ("ppg", format!(r#"{{"samples":[{}]}}"#, samples.join(",")))
            }
            Kind::Thermometer => {
                let hundredths = format!("{:.0}", now.temperature_cel * 100.0);
                let (whole, cents) = hundredths.split_at(hundredths.len().saturating_sub(2));
                let seconds = ms.div_euclid(1000);
                reading("body_temperature", &format!("{whole}.{cents}"), "Cel", seconds * 1000);
                let data = format!(r#"{{"type":"temp","raw":{hundredths}}},{{"type":"battery","raw":81}}"#);
                ("data", format!(r#"{{"at":{seconds},"data":[{data}]}}"#))
            }
            Kind::Scale => {
                let weight = format!("{:.2}", now.weight_kg);
                reading("body_weight", &weight, "kg", ms);
                ("measure", format!(r#"{{"measure":{{"weight":"{weight}","unit":"kg"}},"ts":"{}"}}"#, rfc3339(ms)))
            }
        };
        Sending { topic: format!("wearables/{}/{topic}", self.device), payload, readings }
    }
}

/// RFC 3339 in UTC with milliseconds, as readers print it.
pub fn rfc3339(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms)
        .map(|t| t.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
        .unwrap_or_default()
}
