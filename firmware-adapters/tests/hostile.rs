//! Whatever comes in: readings or a typed error, in bounded time and memory, for every format.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, LazyLock};

use ehe::reading::DeviceId;
use ehe::time::UnixMs;
use firmware_adapters::format::Options;
use firmware_adapters::limits::{INPUT_MAX_BYTES, JSON_ELEMENTS_MAX, READINGS_PER_INPUT_MAX};
use firmware_adapters::{Adapter, Format, ReceiptContext};
use proptest::prelude::*;

const FORMATS: &[Format] = &[
    Format::Auto,
    Format::SenmlJson,
    Format::SenmlCbor,
    Format::OpenMhealth,
    Format::Fhir,
    Format::Theengs,
    Format::Fitbit,
    Format::Ihealth,
    Format::Withings,
];
const SCHEMAS: &[&str] =
    &["omh:heart-rate:2.0", "omh:blood-pressure:4.0", "omh:time-interval:1.0", "granola:hk-quantity-sample:1.0"];
const TYPES: &[&str] =
    &["application/senml+json", "application/senml+cbor", "application/fhir+json", "application/json", "x"];

fn receipt(content_type: Option<&str>) -> ReceiptContext {
    ReceiptContext {
        device: DeviceId::new("device").unwrap(),
        received: UnixMs(1_700_000_000_000),
        monotonic_ms: 5,
        clock_synchronised: true,
        content_type: content_type.map(str::to_owned),
    }
}

fn adapters() -> Vec<Arc<dyn Adapter>> {
    let plain = FORMATS.iter().map(|format| format.adapter(&Options::default()).unwrap());
    let schemas = SCHEMAS.iter().map(|schema| {
        Format::OpenMhealth.adapter(&Options { schema: Some(schema.parse().unwrap()), ..Options::default() }).unwrap()
    });
    plain.chain(schemas).collect()
}

/// Decodes by every adapter; of what comes out only bounds can be said, and that it can be written down.
fn survives(input: &[u8]) {
    for adapter in adapters() {
        for content_type in [None].into_iter().chain(TYPES.iter().copied().map(Some)) {
            match adapter.decode(input, &receipt(content_type)) {
                Ok(decoded) => {
                    assert!(decoded.readings.len() <= READINGS_PER_INPUT_MAX);
                    let fields = serde_json::to_value(&decoded.fields).unwrap();
                    assert!(fields.is_object(), "{fields} of {}", String::from_utf8_lossy(input));
                }
                // A message for people, however long the sender's texts were.
                Err(error) => assert!(error.to_string().len() < 2_000, "{error}"),
            }
        }
    }
}

/// Every input of the data's rows: what mutations begin with.
static INPUTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data")).unwrap() {
        for line in std::fs::read_to_string(entry.unwrap().path()).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            match (&row["input"], &row["input_hex"]) {
                (serde_json::Value::String(text), _) => found.push(text.clone().into_bytes()),
                (_, serde_json::Value::String(hex)) => found.push(
                    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect(),
                ),
                _ => panic!("{line}"),
            }
        }
    }
    found
});

#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Cut(usize),
    Drop(usize, usize),
    Double(usize, usize),
    Put(usize, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let tokens = prop::sample::select(vec![
        "null",
        "-1e127",
        "1e-400",
        "99999999999999999999",
        "{",
        "}",
        "[[[[",
        "\"",
        ":",
        ",",
        "true",
        "\\u0000",
        "NaN",
        "\u{fb}\u{ff}",
        "\"2023-02-30T25:00:00Z\"",
        "\"value\"",
        "\"unit\"",
        "\"heart_rate\"",
        "\"v\":1,",
        "\"component\":[",
    ]);
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, bits)| Change::Flip(at, bits)),
        any::<usize>().prop_map(Change::Cut),
        (any::<usize>(), 0..40usize).prop_map(|(at, length)| Change::Drop(at, length)),
        (any::<usize>(), 0..40usize).prop_map(|(at, length)| Change::Double(at, length)),
        (any::<usize>(), tokens).prop_map(|(at, token)| Change::Put(at, token)),
    ]
}

fn changed(mut input: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let length = input.len();
        let place = |at: usize| at % (length + 1);
        match change {
            Change::Flip(at, bits) => {
                if let Some(byte) = input.get_mut(place(*at)) {
                    *byte ^= bits;
                }
            }
            Change::Cut(at) => input.truncate(place(*at)),
            Change::Drop(at, count) => {
                let from = place(*at);
                input.drain(from..length.min(from + count));
            }
            Change::Double(at, count) => {
                let from = place(*at);
                let part = input[from..length.min(from + count)].to_vec();
                input.splice(from..from, part);
            }
            Change::Put(at, token) => {
                let from = place(*at);
                input.splice(from..from, token.bytes());
            }
        }
    }
    input
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_give_readings_or_a_typed_error(input in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(&input);
    }

    #[test]
    fn a_valid_document_that_was_changed_gives_readings_or_a_typed_error(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        survives(&changed(INPUTS[pick.index(INPUTS.len())].clone(), &changes));
    }
}

#[test]
fn documents_at_their_bounds_are_refused_or_read_in_bounded_time() {
    let record = r#"{"n":"a","v":1}"#;
    let many = |record: &str, count: usize| format!("[{}]", vec![record; count].join(","));
    let senml =
        |input: &str| Format::SenmlJson.adapter(&Options::default()).unwrap().decode(input.as_bytes(), &receipt(None));
    assert!(senml(&many(record, 4_000)).is_ok());
    assert_eq!(senml(&many("1", JSON_ELEMENTS_MAX + 1)).unwrap_err().kind(), "too_many_elements");
    // A long base name, which every record of the pack carries, does not multiply the input.
    let long = format!(r#"[{{"bn":"{}","n":"a","v":1}},{}]"#, "b".repeat(50_000), vec![r#"{"v":1}"#; 1_000].join(","));
    assert_eq!(senml(&long).unwrap_err().kind(), "invalid");
    // CBOR needs a byte for a record, and two for a label.
    let cbor = |input: &[u8]| {
        let decoded = Format::SenmlCbor.adapter(&Options::default()).unwrap().decode(input, &receipt(None));
        decoded.unwrap_err().kind()
    };
    for (mut input, element) in [(vec![0x9f], vec![0xa0]), (vec![0x81, 0xbf], vec![0x18, 0x63, 0x00])] {
        input.extend(element.repeat(JSON_ELEMENTS_MAX + 1));
        input.extend([0xff]);
        assert_eq!(cbor(&input), "too_many_elements");
    }
    for input in [
        "[".repeat(INPUT_MAX_BYTES),
        "{\"a\":".repeat(INPUT_MAX_BYTES / 5),
        format!("{{\"resourceType\":\"Bundle\",\"entry\":[{}]}}", vec!["{\"resource\":{}}"; 3_000].join(",")),
        format!("[{}]", vec!["{\"header\":{}}"; 4_000].join(",")),
        "9".repeat(INPUT_MAX_BYTES),
        "\"".to_owned() + &"x".repeat(INPUT_MAX_BYTES - 2) + "\"",
        " ".repeat(INPUT_MAX_BYTES + 1),
    ] {
        survives(input.as_bytes());
    }
    // CBOR: nested as deep as the input is long, and arrays of indefinite length within each other.
    for byte in [0x81, 0x9f, 0xbf, 0xa1, 0xc4, 0xd8, 0x5f, 0x7f] {
        survives(&vec![byte; INPUT_MAX_BYTES]);
        let mut label = vec![0x81, 0xa1, 0x18, 0x63];
        label.resize(INPUT_MAX_BYTES, byte);
        survives(&label);
    }
}
