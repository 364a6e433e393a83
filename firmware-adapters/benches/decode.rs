//! Documents decoded a second on one core, one row a format: `cargo bench -p firmware-adapters --bench decode`. A JSON line each.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use ehe::reading::DeviceId;
use ehe::time::UnixMs;
use firmware_adapters::format::Options;
use firmware_adapters::{Format, ReceiptContext};

/// The best of so many runs counts: the others tell of the machine's other work.
const RUNS: usize = 5;
const RUN: Duration = Duration::from_millis(300);

const SENML_JSON: &str = r#"[{"bn":"urn:dev:mac:0024befffe804ff1/","bt":1699999990,"n":"hr","u":"beat/min","v":72},{"n":"spo2","u":"%","v":97}]"#;
/// The same pack.
const SENML_CBOR: &[u8] = b"\x82\xa5\x21\x78\x1durn:dev:mac:0024befffe804ff1/\x22\x1a\x65\x53\xf0\xf6\x00\x62hr\x01\x68beat/min\x02\x18\x48\xa3\x00\x64spo2\x01\x61%\x02\x18\x61";
const OPEN_MHEALTH: &str = r#"{"header":{"id":"1","creation_date_time":"2023-11-14T22:13:00Z","schema_id":{"namespace":"omh","name":"heart-rate","version":"2.0"}},"body":{"heart_rate":{"value":61,"unit":"beats/min"},"effective_time_frame":{"date_time":"2023-11-14T22:13:10Z"}}}"#;
const FHIR: &str = r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"85354-9"}]},"effectiveDateTime":"2023-11-14T22:13:10Z","component":[{"code":{"coding":[{"system":"http://loinc.org","code":"8480-6"}]},"valueQuantity":{"value":121,"system":"http://unitsofmeasure.org","code":"mm[Hg]"}},{"code":{"coding":[{"system":"http://loinc.org","code":"8462-4"}]},"valueQuantity":{"value":79,"system":"http://unitsofmeasure.org","code":"mm[Hg]"}}]}"#;
const THEENGS: &str = r#"{"id":"AA:BB:CC:DD:EE:FF","rssi":-67,"brand":"Xiaomi","model":"Mi Smart Scale","model_id":"XMTZC01HM/XMTZC04HM","type":"SCALE","weighing_mode":"person","unit":"kg","weight":61.75}"#;
const WITHINGS: &str = r#"{"status":0,"body":{"measuregrps":[{"attrib":0,"category":1,"date":1699999990,"measures":[{"type":9,"unit":0,"value":68},{"type":10,"unit":0,"value":104},{"type":11,"unit":0,"value":41}]}]}}"#;

/// Where the time goes, as `perf` saw it over the rows of JSON together.
const JSON_SHARES: &str = "JSON walked for its bounds and once more to be kept 38 %, memory 26 %, the format 21 %, names hashed to find doubles 12 %";
const CBOR_SHARES: &str = "one pass; mostly the names and units that the records keep";

fn main() {
    let receipt = ReceiptContext {
        device: DeviceId::new("device").unwrap(),
        received: UnixMs(1_700_000_000_000),
        monotonic_ms: 5,
        clock_synchronised: true,
        content_type: None,
    };
    for (format, what, input, readings) in [
        (Format::SenmlJson, "SenML JSON, 2 records", SENML_JSON.as_bytes(), 2),
        (Format::SenmlCbor, "SenML CBOR, the same pack", SENML_CBOR, 2),
        (Format::OpenMhealth, "Open mHealth data point, heart rate", OPEN_MHEALTH.as_bytes(), 1),
        (Format::Fhir, "FHIR Observation, blood pressure panel", FHIR.as_bytes(), 2),
        (Format::Theengs, "Theengs, a scale", THEENGS.as_bytes(), 1),
        (Format::Withings, "Withings by mapping, 3 measures", WITHINGS.as_bytes(), 3),
    ] {
        let adapter = format.adapter(&Options::default()).unwrap();
        assert_eq!(adapter.decode(input, &receipt).unwrap().readings.len(), readings, "{what}");
        let best = (0..RUNS)
            .map(|_| {
                let (start, mut done) = (Instant::now(), 0u32);
                while start.elapsed() < RUN {
                    for _ in 0..256 {
                        black_box(adapter.decode(black_box(input), &receipt).unwrap());
                    }
                    done += 256;
                }
                f64::from(done) / start.elapsed().as_secs_f64()
            })
            .fold(0.0, f64::max);
        let shares = if format == Format::SenmlCbor { CBOR_SHARES } else { JSON_SHARES };
        println!("{}", row(what, input.len(), best, shares));
    }
}

fn row(what: &str, bytes: usize, documents_s: f64, shares: &str) -> serde_json::Value {
    serde_json::json!({
        "group": "decode",
        "what": format!("{what} ({bytes} bytes)"),
        "target": "–",
        "measured": format!("{} documents/s", grouped(documents_s as u64)),
        "met": null,
        "where": shares,
    })
}

/// 81234 as 81,234.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let groups = tail.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let all: Vec<String> = (!head.is_empty()).then(|| head.to_owned()).into_iter().chain(groups).collect();
    all.join(",")
}
