//! Every row of tests/data: input, and what a correct decoder makes of it. README.md says what a row has.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use ehe::decimal::Decimal;
use ehe::reading::{DeviceId, Reading};
use ehe::time::UnixMs;
use firmware_adapters::format::{Options, Zone};
use firmware_adapters::senml::{NameConfig, Names};
use firmware_adapters::{AdapterError, Decoded, Format, ReceiptContext};
use serde::Deserialize;
use serde_json::{Number, Value};

/// 2023-11-14T22:13:20Z, where a row does not say when it was received.
const RECEIVED_S: &str = "1700000000";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    format: Format,
    content_type: Option<String>,
    schema: Option<String>,
    zone: Option<String>,
    #[serde(default)]
    names: Vec<NameConfig>,
    time_unix: Option<Number>,
    input: Option<String>,
    input_hex: Option<String>,
    /// One line a reading, as [`told`] writes it.
    readings: Option<Vec<String>>,
    /// The fields, or some of them.
    fields: Option<Value>,
    /// The kind of the error.
    error: Option<String>,
    source: String,
    license: String,
}

fn files() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn decode(row: &Row) -> Result<Decoded, AdapterError> {
    let options = Options {
        zone: row.zone.as_ref().map(|zone| Zone::new(zone, &|_| None).unwrap()),
        schema: row.schema.as_ref().map(|schema| schema.parse().unwrap()),
        names: Arc::new(Names::new(&row.names).unwrap()),
    };
    let seconds: Decimal = row.time_unix.as_ref().map_or(RECEIVED_S, |seconds| seconds.as_str()).parse().unwrap();
    let received = seconds.checked_mul(Decimal::new(1, 3)).unwrap().rounded(0).floor().unwrap();
    let receipt = ReceiptContext {
        device: DeviceId::new("device").unwrap(),
        received: UnixMs(u64::try_from(received).unwrap()),
        monotonic_ms: 5,
        clock_synchronised: true,
        content_type: row.content_type.clone(),
    };
    let input = match (&row.input, &row.input_hex) {
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(hex)) => {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        }
        _ => panic!("{}: one input", row.id),
    };
    row.format.adapter(&options).unwrap().decode(&input, &receipt)
}

/// `vital value unit begin[/end] method ±uncertainty_ms [statistic] [+flag …]`; no begin is `-`.
fn told(reading: &Reading) -> String {
    let text = |at: UnixMs| jiff::Timestamp::from_millisecond(i64::try_from(at.0).unwrap()).unwrap().to_string();
    let time = reading.time();
    let begin = time.derived.map_or("-".to_owned(), text);
    let end = time.derived.zip(time.interval_ms).map_or(String::new(), |(at, ms)| format!("/{}", text(at.plus_ms(ms))));
    let (vital, value, unit) = (reading.vital(), reading.value(), reading.unit());
    let mut told = format!("{vital} {value} {unit} {begin}{end} {} ±{}", time.method, time.uncertainty_ms);
    if let Some(statistic) = reading.statistic() {
        told += &format!(" {statistic}");
    }
    reading.flags().names().fold(told, |told, flag| format!("{told} +{flag}"))
}

/// Whether `found` has all of `wanted`: members of objects, all elements of arrays, numbers by value.
fn has(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| {
            found.get(name).unwrap_or(&Value::Null) == wanted || found.get(name).is_some_and(|found| has(found, wanted))
        }),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| has(found, wanted))
        }
        (Value::Number(found), Value::Number(wanted)) => {
            found.as_str().parse::<Decimal>().unwrap() == wanted.as_str().parse().unwrap()
        }
        _ => found == wanted,
    }
}

#[test]
fn every_row_of_the_data_gives_its_readings_and_fields_or_its_error() {
    let (mut rows, mut wrong) = (0, Vec::new());
    let mut ids = BTreeSet::new();
    for file in files() {
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let row: Row =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", file.display()));
            assert!(ids.insert(row.id.clone()), "{} stands twice", row.id);
            assert!(!row.source.is_empty() && !row.license.is_empty(), "{}: where from?", row.id);
            rows += 1;
            match (decode(&row), &row.readings, &row.error) {
                (Ok(decoded), Some(readings), None) => {
                    let found: Vec<String> = decoded.readings.iter().map(told).collect();
                    if found != *readings {
                        wrong.push(format!("{}: readings {found:#?}", row.id));
                    }
                    let fields = serde_json::to_value(&decoded.fields).unwrap();
                    if !fields.is_object() || !row.fields.as_ref().is_none_or(|wanted| has(&fields, wanted)) {
                        wrong.push(format!("{}: fields {fields}", row.id));
                    }
                }
                (Err(error), None, Some(kind)) if error.kind() == kind => {}
                (found, ..) => wrong.push(format!("{}: {:?}", row.id, found.map(|decoded| decoded.readings))),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {rows} rows\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows > 300, "{rows} rows");
}
