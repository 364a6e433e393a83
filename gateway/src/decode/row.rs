//! One line: from what it says to the daemon's own dispatch, and from there to the line that answers it.

use ehe::decimal::Decimal;
use ehe::reading::{Reading, ReadingTime, TimeMethod};
use ehe::time::UnixMs;
use firmware_adapters::{Fields, Format};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::clock::Moment;
use crate::config::{Checked, ConfigError, Route, Router, Wanted};
use crate::dispatch::{self, Rejected};

/// What holds without a configuration: topics that say what they carry; everything else says it itself.
const TOPICS: &[(&str, Format)] = &[
    ("vendor-cloud/fitbit", Format::Fitbit),
    ("vendor-cloud/ihealth", Format::Ihealth),
    ("vendor-cloud/withings", Format::Withings),
    ("+/+/BTtoMQTT/#", Format::Theengs),
    ("#", Format::Auto),
];

/// Answers lines.
#[derive(Debug)]
pub struct Decoder {
    router: Router,
    routes: Vec<Route>,
}

/// A line in. What a row has beside this is for people.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    id: Value,
    kind: Option<String>,
    topic: Option<String>,
    content_type: Option<String>,
    schema: Option<String>,
    time_unix: Option<Number>,
    input_text: Option<String>,
    input_hex: Option<String>,
    uuid: Option<Value>,
    service_data: Option<Value>,
    manufacturer_data: Option<Value>,
    servicedata: Option<Value>,
    manufacturerdata: Option<Value>,
    hci_event_hex: Option<Value>,
}

/// A line's answer.
#[derive(Debug)]
pub struct Answered {
    /// As it is written.
    pub json: String,
    /// The kind of the error in it.
    pub refused: Option<&'static str>,
}

/// A line out.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Understood { id: Value, readings: Vec<Shown>, fields: Fields },
    Refused { id: Value, error: Problem },
}

#[derive(Serialize)]
struct Problem {
    kind: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Shown {
    vital: &'static str,
    value: Number,
    unit: &'static str,
    time: ShownTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    statistic: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
}

#[derive(Serialize)]
struct ShownTime {
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    method: &'static str,
}

impl Problem {
    fn new(kind: &'static str, message: impl ToString) -> Self {
        Self { kind, message: message.to_string() }
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        Self::new(rejected.kind(), rejected)
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::new("unsupported", error)
    }
}

impl Decoder {
    /// Without a configuration.
    ///
    /// # Errors
    /// Never, as its test knows.
    pub fn new() -> Result<Self, ConfigError> {
        let router = Router::new(&[], &[])?;
        let route = |(topic, format): &(&str, Format)| router.route("decode", &wanted(topic, *format, None));
        let routes = TOPICS.iter().map(route).collect::<Result<_, _>>()?;
        Ok(Self { router, routes })
    }

    /// With the routes of a configuration's brokers. A replay's take every topic, and would hide that a broker has no route for
    /// one; they answer only where there are no brokers.
    ///
    /// # Errors
    /// Never: it has been checked.
    pub fn configured(checked: &Checked) -> Result<Self, ConfigError> {
        let router = Router::new(&checked.config.mapping, &checked.config.senml)?;
        let brokers = checked.config.mqtt.iter().map(|source| &*source.name);
        let replays = checked.config.replay.iter().map(|source| &*source.name);
        let sources: Vec<&str> = if checked.config.mqtt.is_empty() { replays.collect() } else { brokers.collect() };
        let routes = sources.into_iter().filter_map(|name| checked.routes.get(name)).flatten().cloned().collect();
        Ok(Self { router, routes })
    }

    /// The answer to the line of this number.
    pub fn line(&self, number: u64, line: &[u8], now: &dyn Fn() -> UnixMs) -> Answered {
        // Without its end, behind which an error would be said to be.
        let answer = match serde_json::from_slice::<Row>(line.trim_ascii_end()) {
            Ok(mut row) => {
                let id = row.id.take();
                match self.row(&row, now) {
                    Ok((readings, fields)) => Answer::Understood { id, readings, fields },
                    Err(error) => Answer::Refused { id, error },
                }
            }
            Err(error) => Answer::Refused { id: Value::Null, error: Problem::new("malformed", placed(number, &error)) },
        };
        answered(&answer)
    }

    /// The answer to a line of which only the beginning was read.
    pub fn too_long(&self) -> Answered {
        let message = format!("a line of more than {} bytes", super::LINE_MAX_BYTES);
        answered(&Answer::Refused { id: Value::Null, error: Problem::new("too_large", message) })
    }

    fn row(&self, row: &Row, now: &dyn Fn() -> UnixMs) -> Result<(Vec<Shown>, Fields), Problem> {
        if let Some(what) = row.bluetooth() {
            return Err(Problem::new("unsupported", format!("{what}: this version reads what comes over MQTT")));
        }
        let payload = row.payload()?;
        let sent = row.time_unix.as_ref().map(receipt).transpose()?;
        let received = Moment { utc: sent.unwrap_or_else(now), monotonic_ms: 0, synchronised: sent.is_some() };
        let topic = row.topic.as_deref().unwrap_or("");
        // A row's own schema stands for that of the source's configuration.
        let own = match row.schema.as_deref() {
            Some(schema) => vec![self.router.route("row", &wanted("#", Format::Auto, Some(schema)))?],
            None => Vec::new(),
        };
        let routes = if own.is_empty() { &self.routes } else { &own };
        let routed = dispatch::decode(routes, topic, &payload, row.content_type.as_deref(), received)?;
        let readings = routed.decoded.readings.iter().map(|reading| shown(reading, sent.is_some()));
        Ok((readings.collect(), routed.decoded.fields))
    }
}

fn wanted<'c>(topic: &'c str, format: Format, schema: Option<&'c str>) -> Wanted<'c> {
    let (mapping, format, format_key) = (None, Some(format), "format");
    Wanted { topic, device: "decode", user: None, mapping, format, schema, zone: None, format_key }
}

impl Row {
    /// What came over Bluetooth.
    fn bluetooth(&self) -> Option<&'static str> {
        let advertisement = [
            &self.service_data,
            &self.manufacturer_data,
            &self.servicedata,
            &self.manufacturerdata,
            &self.hci_event_hex,
        ];
        if self.uuid.is_some() || self.kind.as_deref() == Some("gatt") {
            Some("a Bluetooth characteristic")
        } else if advertisement.iter().any(|part| part.is_some()) || self.kind.as_deref() == Some("adv") {
            Some("a Bluetooth advertisement")
        } else {
            None
        }
    }

    fn payload(&self) -> Result<Vec<u8>, Problem> {
        match (&self.input_text, &self.input_hex) {
            (Some(text), None) => Ok(text.as_bytes().to_vec()),
            (None, Some(hex)) => unhex(hex).ok_or_else(|| Problem::new("malformed", "input_hex is not hexadecimal")),
            (None, None) => Err(Problem::new("malformed", "neither input_text nor input_hex")),
            (Some(_), Some(_)) => Err(Problem::new("malformed", "both input_text and input_hex")),
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    pairs.collect()
}

/// Seconds since 1970 as ms, to the nearest.
fn receipt(seconds: &Number) -> Result<UnixMs, Problem> {
    let wrong = || Problem::new("malformed", "time_unix is no time");
    let seconds: Decimal = seconds.as_str().parse().map_err(|_| wrong())?;
    let ms = seconds.checked_mul(Decimal::new(1, 3)).map_err(|_| wrong())?.rounded(0);
    ms.floor().and_then(|ms| u64::try_from(ms).ok()).map(UnixMs).ok_or_else(wrong)
}

fn shown(reading: &Reading, receipt_known: bool) -> Shown {
    Shown {
        vital: reading.vital().as_str(),
        // A decimal is written as JSON writes numbers.
        value: reading.value().to_string().parse().unwrap_or_else(|_| Number::from(0)),
        unit: reading.unit().as_str(),
        time: ShownTime::new(reading.time(), receipt_known),
        statistic: reading.statistic().map(|statistic| statistic.as_str()),
        flags: reading.flags().names().collect(),
    }
}

impl ShownTime {
    /// What the input says of the time. Where the daemon would put the receipt in its place, that is told by the method alone,
    /// unless the row names the receipt.
    fn new(time: &ReadingTime, receipt_known: bool) -> Self {
        let said = match time.method {
            TimeMethod::ReceiptDeviceTimeInvalid => None,
            TimeMethod::Receipt | TimeMethod::ReceiptCountedBack if !receipt_known => None,
            _ => time.derived,
        };
        let end = said.zip(time.interval_ms).and_then(|(start, ms)| text(start.plus_ms(ms)));
        Self { start: said.and_then(text), end, method: time.method.as_str() }
    }
}

fn text(at: UnixMs) -> Option<String> {
    let ms = i64::try_from(at.0).ok()?;
    jiff::Timestamp::from_millisecond(ms).ok().map(|at| at.to_string())
}

/// What the parser says, with the line's place in the input instead of that in itself, which is always 1.
fn placed(number: u64, error: &serde_json::Error) -> String {
    let (said, column) = (error.to_string(), error.column());
    match said.strip_suffix(&format!(" at line {} column {column}", error.line())) {
        Some(what) => format!("{what} at line {number} column {column}"),
        None => said,
    }
}

fn answered(answer: &Answer) -> Answered {
    // Nothing in an answer can fail to be JSON: names are text, numbers come from decimals.
    let json = serde_json::to_string(answer)
        .unwrap_or_else(|error| format!("{{\"error\":{{\"kind\":\"internal\",\"message\":\"{error}\"}}}}"));
    let refused = match answer {
        Answer::Understood { .. } => None,
        Answer::Refused { error, .. } => Some(error.kind),
    };
    Answered { json, refused }
}
