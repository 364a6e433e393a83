use ehe::reading::{DeviceId, Flags, TimeMethod};
use ehe::time::UnixMs;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Fault;

/// 2023-11-14T22:13:20Z.
const RECEIVED: u64 = 1_700_000_000_000;

fn receipt() -> ReceiptContext {
    let device = DeviceId::new("wearable-1").unwrap();
    ReceiptContext { device, received: UnixMs(RECEIVED), monotonic_ms: 5, clock_synchronised: true, content_type: None }
}

fn load(config: Value) -> Result<Mapping, ConfigError> {
    Mapping::new(&serde_json::from_value(config).unwrap(), &|_| None)
}

fn mapping(values: Value) -> Mapping {
    load(json!({"name": "m", "value": values})).unwrap()
}

/// Each reading as "vital value unit @seconds-before-receipt".
fn rows(mapping: &Mapping, input: &str) -> Result<Vec<String>, AdapterError> {
    let row = |reading: &Reading| {
        let ago = (RECEIVED - reading.at().0) / 1_000;
        format!("{} {} {} @{ago}", reading.vital(), reading.value(), reading.unit())
    };
    Ok(mapping.readings(input.as_bytes(), &receipt())?.iter().map(row).collect())
}

fn refusal(mapping: &Mapping, input: &str) -> AdapterError {
    rows(mapping, input).unwrap_err()
}

#[test]
fn a_cuff_that_sends_one_nested_object_a_measurement() {
    let cuff = load(json!({"name": "cuff", "time": {"path": "ts", "format": "unix_s"}, "value": [
        {"path": "bp.sys", "vital": "systolic_blood_pressure", "unit": "mm[Hg]"},
        {"path": "bp.dia", "vital": "diastolic_blood_pressure"},
        {"path": "bp.map", "vital": "mean_arterial_pressure"},
        {"path": "pulse", "vital": "pulse_rate"},
    ]}))
    .unwrap();
    assert_eq!(
        rows(&cuff, r#"{"ts": 1699999990, "bp": {"sys": 121, "dia": 79, "map": null}, "pulse": 64, "fw": "1.2"}"#)
            .unwrap(),
        ["systolic_blood_pressure 121 mm[Hg] @10", "diastolic_blood_pressure 79 mm[Hg] @10", "pulse_rate 64 /min @10"]
    );
    assert_eq!(rows(&cuff, r#"{"ts": 1699999990, "battery": 80}"#).unwrap(), Vec::<String>::new());
}

#[test]
fn a_watch_that_sends_a_batch_of_samples_with_a_time_each() {
    let watch = load(json!({"name": "watch", "value": [
        {"path": "samples[*].hr", "vital": "heart_rate", "ignore": ["0", "255"], "time": {"path": "samples[*].t", "format": "unix_ms"}},
        {"path": "samples[*].spo2", "vital": "oxygen_saturation", "time": {"path": "samples[*].t", "format": "unix_ms"}},
    ]}))
    .unwrap();
    let input = r#"{"samples": [
        {"t": 1699999997000, "hr": 61}, {"t": 1699999998000, "hr": 0}, {"t": 1699999999000, "hr": 255, "spo2": 97.0}, {"hr": 63}
    ]}"#;
    assert_eq!(
        rows(&watch, input).unwrap(),
        ["heart_rate 61 /min @3", "heart_rate 63 /min @0", "oxygen_saturation 97.0 % @1"]
    );
}

#[test]
fn a_thermometer_hub_that_lists_measurements_by_type_with_their_units() {
    let hub = load(json!({"name": "hub", "time": {"path": "when", "format": "rfc3339"}, "value": [
        {"path": "data[type=temp].value", "vital": "body_temperature", "unit_path": "data[type=temp].unit",
         "units": {"0": "Cel", "fahr": "[degF]"}, "scale": "0.1"},
        {"path": "data[type=weight].value", "vital": "body_weight", "unit_path": "data[type=weight].unit", "unit": "kg"},
    ]}))
    .unwrap();
    let input = |unit: &str| {
        format!(
            r#"{{"when": "2023-11-14T23:13:15+01:00", "data": [{{"type": "temp", "value": 364, "unit": {unit}}}, {{"type": "weight", "value": 154.30}}]}}"#
        )
    };
    assert_eq!(rows(&hub, &input("0")).unwrap(), ["body_temperature 36.4 Cel @5", "body_weight 154.30 kg @5"]);
    assert_eq!(rows(&hub, &input("\"fahr\"")).unwrap()[0], "body_temperature 36.4 [degF] @5");
    assert_eq!(rows(&hub, &input("\"°C\"")).unwrap()[0], "body_temperature 36.4 Cel @5");
    let unknown = refusal(&hub, &input("\"warm\""));
    assert_eq!((unknown.kind(), unknown.fault()), ("unknown_unit", Fault::Operator));
    let misfit = refusal(&hub, &input("\"kg\""));
    assert_eq!((misfit.kind(), misfit.fault()), ("unit", Fault::Sender));
    assert_eq!(refusal(&hub, &input("null")).kind(), "missing_unit");
}

#[test]
fn a_strap_that_sends_parallel_arrays_and_one_that_sends_a_bare_number() {
    let strap = load(
        json!({"name": "strap", "time": {"path": "t[*]", "format": "unix_s"}, "value": [{"path": "hr[*]", "vital": "heart_rate"}]}),
    );
    let input = r#"{"t": [1699999998, 1699999999], "hr": [60, 61]}"#;
    assert_eq!(rows(&strap.unwrap(), input).unwrap(), ["heart_rate 60 /min @2", "heart_rate 61 /min @1"]);
    let bare = mapping(json!([{"path": "$", "vital": "heart_rate"}]));
    assert_eq!(rows(&bare, "72").unwrap(), ["heart_rate 72 /min @0"]);
    let block =
        load(json!({"name": "b", "time": {"every_ms": 1000}, "value": [{"path": "[*]", "vital": "heart_rate"}]}));
    assert_eq!(rows(&block.unwrap(), "[60, 61, 62]").unwrap()[0], "heart_rate 60 /min @2");
}

#[test]
fn a_scale_that_writes_numbers_as_text_and_local_time_in_two_members() {
    let scale = load(json!({"name": "scale", "time": {"path": "weight[*].time", "date_path": "weight[*].date", "format": "local", "zone": "+01:00"},
        "value": [
            {"path": "weight[*].weight", "vital": "body_weight", "unit": "[lb_av]", "text": true, "ignore": ["--"], "required": true},
            {"path": "[user=2].weight[*].bmi", "vital": "body_mass_index", "statistic": "average"},
        ]}))
    .unwrap();
    let input = r#"{"user": 2, "weight": [
        {"date": "2023-11-14", "time": "23:13:15", "weight": "154.30", "bmi": 21.48}, {"date": "2023-11-14", "time": "23:13:16", "weight": "--"}
    ]}"#;
    let readings = scale.readings(input.as_bytes(), &receipt()).unwrap();
    assert_eq!(rows(&scale, input).unwrap(), ["body_weight 154.30 [lb_av] @5", "body_mass_index 21.48 kg/m2 @5"]);
    assert_eq!(readings[0].time().method, TimeMethod::DeviceLocalAssumedZone);
    assert_eq!(readings[1].statistic(), Some(Statistic::Average));
    assert_eq!(refusal(&scale, r#"{"weight": []}"#).kind(), "missing");
}

#[test]
fn digits_stay_as_sent_and_implausible_values_are_flagged_not_dropped() {
    let thermometer = mapping(json!([{"path": "t", "vital": "body_temperature"}]));
    let readings = |input: &str| thermometer.readings(input.as_bytes(), &receipt()).unwrap();
    assert_eq!(readings(r#"{"t": 36.40}"#)[0].value().to_string(), "36.40");
    assert_eq!(readings(r#"{"t": 36.40}"#)[0].flags(), Flags::NONE);
    let cold = &readings(r#"{"t": 3.640e0}"#)[0];
    assert_eq!((cold.value(), cold.flags()), ("3.640".parse().unwrap(), Flags::IMPLAUSIBLE));
    assert_eq!(readings(r#"{"t": -1e99}"#)[0].flags(), Flags::IMPLAUSIBLE);
}

#[test]
fn wrong_types_and_impossible_numbers_are_typed_errors_that_name_the_path() {
    let hr = mapping(json!([{"path": "hr", "vital": "heart_rate", "scale": "0.1"}]));
    for (input, kind, fault) in [
        (r#"{"hr": "72"}"#, "wrong_type", Fault::Sender),
        (r#"{"hr": true}"#, "wrong_type", Fault::Sender),
        (r#"{"hr": [72]}"#, "wrong_type", Fault::Sender),
        (r#"{"hr": 12345678901234567890}"#, "number", Fault::Sender),
        (r#"{"hr": 1e400}"#, "number", Fault::Sender),
        (r#"{"hr": NaN}"#, "malformed", Fault::Sender),
        (r#"{"hr": 1, "hr": 2}"#, "duplicate_member", Fault::Sender),
        ("[1]", "shape", Fault::Operator),
        ("7", "shape", Fault::Operator),
    ] {
        let error = refusal(&hr, input);
        assert_eq!((error.kind(), error.fault()), (kind, fault), "{input}: {error}");
    }
    assert_eq!(
        refusal(&hr, r#"{"hr": "72"}"#).to_string(),
        "at hr: text where a number is expected (numbers as text need `text = true`, other marks of no value `ignore`)"
    );
}

#[test]
fn one_document_gives_no_more_readings_than_one_body_holds() {
    let values = json!([{"path": "[*]", "vital": "heart_rate"}, {"path": "[0]", "vital": "pulse_rate"}]);
    let input = |n: usize| format!("[{}70]", "70,".repeat(n - 1));
    assert_eq!(rows(&mapping(values.clone()), &input(4_095)).unwrap().len(), 4_096);
    assert_eq!(refusal(&mapping(values), &input(4_096)), AdapterError::TooManyReadings);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_at_the_key_with_a_way_out() {
    let hr = |key: &str, value: Value| {
        let mut hr = json!({"path": "hr", "vital": "heart_rate"});
        hr[key] = value;
        load(json!({"name": "strap", "value": [{"path": "ok", "vital": "heart_rate"}, hr]})).unwrap_err().to_string()
    };
    for (key, value, want) in [
        ("path", json!("hr["), "mapping \"strap\": value[1].path: at byte 3: expected a name"),
        ("vital", json!("pulse"), "value[1].vital: unknown vital \"pulse\"; known are heart_rate, pulse_rate,"),
        ("unit", json!("bpm"), "value[1].unit: unknown unit (UCUM code) \"bpm\"; in UCUM it is /min"),
        ("unit", json!("furlong"), "heart_rate is given in /min or a unit that converts into it"),
        ("unit", json!("kg"), "value[1].unit: heart_rate cannot be given in kg"),
        ("unit_path", json!("a[*]"), "value[1].unit_path: has more [*]"),
        ("units", json!({"x": "/min"}), "value[1].units: is for values with a unit_path"),
        ("scale", json!("0.0"), "value[1].scale: a scale of 0"),
        ("statistic", json!("mean"), "known are average,"),
        (
            "time",
            json!({"path": "t", "format": "local", "zone": "Nowhere"}),
            "value[1].time.zone: unknown zone \"Nowhere\"",
        ),
        ("ignore", json!(vec!["1"; 65]), "value[1].ignore: at most 64"),
    ] {
        let message = hr(key, value);
        assert!(message.contains(want), "{key}: {message}");
    }
    assert!(load(json!({"name": "m"})).unwrap_err().to_string().contains("1 to 64 values"));
    let typo = serde_json::from_value::<MappingConfig>(json!({"name": "m", "vlaue": []}));
    assert!(typo.unwrap_err().to_string().contains("unknown field `vlaue`"));
}

proptest! {
    #[test]
    fn any_bytes_are_readings_or_a_typed_error(input in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        "[\\[\\]{}\",:0-9a-e.+\\- ]{0,60}".prop_map(String::into_bytes),
        "\\{\"(a|b)\": (\\[1,\\{\"a\":-?[0-9.e]{1,6}\\}\\]|\"[0-9]{0,3}\"|null)\\}".prop_map(String::into_bytes),
    ]) {
        let mapping = load(json!({"name": "m", "time": {"path": "b", "format": "unix_s"}, "value": [
            {"path": "a[*].a", "vital": "heart_rate"},
            {"path": "b", "vital": "heart_rate", "text": true, "unit_path": "a"},
        ]})).unwrap();
        let _ = mapping.readings(&input, &receipt());
    }

    #[test]
    fn any_number_that_a_reading_can_have_keeps_its_digits(mantissa: i64, exponent in -6i8..1) {
        let value = Decimal::new(mantissa, exponent);
        let mapping = mapping(json!([{"path": "v", "vital": "step_count"}]));
        let readings = mapping.readings(format!("{{\"v\": {value}}}").as_bytes(), &receipt()).unwrap();
        prop_assert!(readings[0].value().same_digits(value));
    }
}

#[test]
fn conditions_exponents_and_counted_local_clocks_are_checked_when_they_are_configured() {
    let problem = |key: &str, value: serde_json::Value| {
        let mut text = serde_json::json!({"name": "m", "value": [{"path": "a[*].v", "vital": "heart_rate"}]});
        text["value"][0][key] = value;
        let config: MappingConfig = serde_json::from_value(text).unwrap();
        Mapping::new(&config, &|_| None).unwrap_err().to_string()
    };
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert!(problem("exponent_path", json(r#""a[*].e[*]""#)).contains("value[0].exponent_path"));
    assert!(problem("only_if", json(r#"{"path": "", "equals": []}"#)).contains("value[0].only_if.path"));
    assert!(problem("unless", json(r#"{"path": "x[*].y[*]", "equals": ["1"]}"#)).contains("value[0].unless.path"));
    let long = vec!["1"; ENTRIES_PER_VALUE_MAX + 1];
    assert!(problem("self_reported", serde_json::json!({"path": "x", "equals": long})).contains("self_reported"));
    let time = |text: &str| problem("time", json(text));
    assert!(time(r#"{"path": "t", "format": "local_unix_s"}"#).contains("value[0].time.offset_path"));
    assert!(time(r#"{"path": "t", "format": "unix_s", "offset_path": "o"}"#).contains("value[0].time.offset_path"));
}

#[test]
fn conditions_compare_texts_numbers_and_truths_and_exponents_are_exact() {
    let config: MappingConfig = serde_json::from_str(
        r#"{"name": "m", "only_if": {"path": "a[*].kind", "equals": ["1", "yes", "true"]},
            "value": [{"path": "a[*].v", "vital": "body_weight", "exponent_path": "a[*].e"}]}"#,
    )
    .unwrap();
    let mapping = Mapping::new(&config, &|_| None).unwrap();
    let values = |input: &str| {
        let readings = mapping.readings(input.as_bytes(), &receipt()).map_err(|error| error.kind())?;
        Ok(readings.iter().map(|reading| reading.value().to_string()).collect::<Vec<_>>())
    };
    let input = r#"{"a": [{"kind": 1.0, "v": 72100, "e": -3}, {"kind": "yes", "v": 7, "e": 1}, {"kind": true, "v": 70, "e": 0},
                          {"kind": 2, "v": 71}, {"v": 72}, {"kind": null, "v": 73}]}"#;
    assert_eq!(values(input), Ok(vec!["72.100".to_owned(), "7e1".to_owned(), "70".to_owned()]));
    for without in [r#"{"a": [{"kind": 1, "v": 72345}]}"#, r#"{"a": [{"kind": 1, "v": 72345, "e": null}]}"#] {
        assert_eq!(values(without), Err("missing"), "{without}");
    }
    assert_eq!(values(r#"{"a": [{"kind": 1, "v": 1, "e": 1.5}]}"#), Err("number"));
    assert_eq!(values(r#"{"a": [{"kind": 1, "v": 1, "e": 300}]}"#), Err("number"));
    assert_eq!(values(r#"{"a": [{"kind": 1, "v": 1, "e": "x"}]}"#), Err("wrong_type"));
}
