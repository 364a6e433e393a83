use ehe::reading::DeviceId;
use minicbor::Encoder;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn receipt() -> ReceiptContext {
    ReceiptContext {
        device: DeviceId::new("d").unwrap(),
        received: UnixMs(1_700_000_000_000),
        monotonic_ms: 5,
        clock_synchronised: true,
        content_type: None,
    }
}

fn resolved(encoding: Encoding, input: &[u8]) -> Result<serde_json::Value, &'static str> {
    let decoded = SenMl::new(encoding, Arc::default()).decode(input, &receipt()).map_err(|error| error.kind())?;
    Ok(serde_json::to_value(decoded.fields).unwrap())
}

#[test]
fn a_row_that_cannot_be_is_refused_with_its_reason() {
    let row = |name: &str, unit: &str, vital: Option<&str>, ucum: Option<&str>| NameConfig {
        name: name.into(),
        unit: unit.into(),
        vital: vital.map(Into::into),
        ucum: ucum.map(Into::into),
    };
    let good = row("a", "Cel", Some("body_temperature"), None);
    let refused = |bad: NameConfig| Names::new(&[good.clone(), bad]).unwrap_err();
    assert!(matches!(refused(row("", "Cel", None, None)), (1, NameError::Length)));
    assert!(matches!(refused(row("a", "", None, None)), (1, NameError::Length)));
    assert!(matches!(refused(row("a", "Cel", Some("temp"), None)), (1, NameError::Vital(_))));
    assert!(matches!(refused(row("a", "degrees", Some("body_temperature"), None)), (1, NameError::Unit(_))));
    assert!(matches!(refused(row("a", "x", Some("body_temperature"), Some("y"))), (1, NameError::Unit(_))));
    assert!(matches!(refused(row("a", "kg", Some("body_temperature"), None)), (1, NameError::Mismatch(_))));
    assert!(matches!(refused(row("a", "x", None, Some("Cel"))), (1, NameError::UcumAlone)));
    assert!(matches!(Names::new(&vec![good; SENML_ROWS],), Err((_, NameError::TooMany))));
}

const SENML_ROWS: usize = crate::limits::SENML_ROWS_MAX + 1;

#[test]
fn a_configured_row_comes_before_what_a_name_means_anyhow() {
    let names = |vital: Option<&str>, ucum: Option<&str>| {
        let (vital, ucum) = (vital.map(Into::into), ucum.map(Into::into));
        Names::new(&[NameConfig { name: "hr".into(), unit: "beat/min".into(), vital, ucum }]).unwrap()
    };
    let of = |names: &Names, name: &str| {
        names.meaning(name, "beat/min").map(|(vital, unit)| (vital.as_str(), unit.as_str()))
    };
    assert_eq!(of(&Names::default(), "x/hr"), Some(("heart_rate", "/min")));
    assert_eq!(of(&names(Some("pulse_rate"), Some("{beats}/min")), "x/hr"), Some(("pulse_rate", "{beats}/min")));
    assert_eq!(of(&names(None, None), "x/hr"), None);
    // Another part of the name, another record.
    assert_eq!(of(&names(None, None), "x/resting-hr"), None);
    assert_eq!(of(&names(None, None), "x/hr/heart_rate"), Some(("heart_rate", "/min")));
}

/// A record of few labels, whose values both encodings can say.
#[derive(Debug, Clone)]
struct Simple {
    base: Option<(String, i32, i32)>,
    name: String,
    value: f64,
    time: i32,
}

fn simple() -> impl Strategy<Value = Simple> {
    let base = prop::option::of(("[a-z][a-z0-9:]{0,8}", -1_000..2_000_000_000, -50..50i32));
    (base, "[a-z][a-z0-9/_]{0,8}", -1e6..1e6, -1_000..1_000i32).prop_map(|(base, name, value, time)| Simple {
        base,
        name,
        value,
        time,
    })
}

proptest! {
    #[test]
    fn json_and_cbor_of_one_pack_say_the_same(records in prop::collection::vec(simple(), 1..8)) {
        let mut cbor = Encoder::new(Vec::new());
        cbor.array(records.len() as u64).unwrap();
        let mut list = Vec::new();
        for Simple { base, name, value, time } in &records {
            let mut record = json!({"n": name, "v": value, "t": time});
            cbor.map(if base.is_some() { 6 } else { 3 }).unwrap();
            if let Some((name, time, value)) = base {
                record["bn"] = json!(name);
                record["bt"] = json!(time);
                record["bv"] = json!(value);
                cbor.i8(-2).unwrap().str(name).unwrap().i8(-3).unwrap().i32(*time).unwrap().i8(-5).unwrap().i32(*value).unwrap();
            }
            cbor.u8(0).unwrap().str(name).unwrap().u8(2).unwrap().f64(*value).unwrap().u8(6).unwrap().i32(*time).unwrap();
            list.push(record);
        }
        let json = resolved(Encoding::Json, serde_json::to_string(&list).unwrap().as_bytes());
        let cbor = resolved(Encoding::Cbor, &cbor.into_writer());
        let plain = |value: Result<serde_json::Value, _>| value.map(|value| value.to_string().replace(".0,", ",").replace(".0}", "}"));
        prop_assert_eq!(plain(json), plain(cbor));
    }
}
