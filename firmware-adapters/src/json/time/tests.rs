use ehe::reading::DeviceId;
use serde_json::json;

use super::*;

/// 2023-11-14T22:13:20Z.
const RECEIVED: u64 = 1_700_000_000_000;
const VIENNA: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

fn receipt() -> ReceiptContext {
    let device = DeviceId::new("d").unwrap();
    ReceiptContext { device, received: UnixMs(RECEIVED), monotonic_ms: 5, clock_synchronised: true, content_type: None }
}

fn rule(time: Value, value: &Path) -> Result<TimeRule, (&'static str, ConfigProblem)> {
    TimeRule::new(&serde_json::from_value(time).unwrap(), value, &|_| None)
}

/// The time that a document's only value gets.
fn time_at(time: Value, document: &Value, received: u64) -> ReadingTime {
    let path: Path = "v".parse().unwrap();
    let rule = rule(time, &path).unwrap();
    let mut times = Vec::new();
    let receipt = ReceiptContext { received: UnixMs(received), ..receipt() };
    path.find(document, &mut |found| {
        times.push(rule.time(found, &receipt));
        Ok(())
    })
    .unwrap();
    times.pop().unwrap()
}

fn time(time: Value, sent: Value) -> ReadingTime {
    time_at(time, &json!({"v": 1, "t": sent}), RECEIVED)
}

#[test]
fn every_format_gives_its_instant_its_method_and_its_uncertainty() {
    let local = json!({"path": "t", "format": "local", "zone": VIENNA});
    let offset = json!({"path": "t", "format": "local", "zone": "-03:30"});
    let format = |name: &str| json!({"path": "t", "format": name});
    use TimeMethod::{DeviceLocalAssumedZone, DeviceUtc, DeviceZoned};
    for (config, sent, derived, method, uncertainty_ms, offset_min) in [
        (format("unix_s"), json!(1_699_999_990), 1_699_999_990_000, DeviceUtc, 1_000, Some(0)),
        (format("unix_s"), json!(1_699_999_990.25), 1_699_999_990_250, DeviceUtc, 10, Some(0)),
        (format("unix_s"), json!("1699999990"), 1_699_999_990_000, DeviceUtc, 1_000, Some(0)),
        (format("unix_ms"), json!(1_699_999_990_123u64), 1_699_999_990_123, DeviceUtc, 1, Some(0)),
        (format("unix_us"), json!(1_699_999_990_123_456u64), 1_699_999_990_123, DeviceUtc, 1, Some(0)),
        (format("rfc3339"), json!("2023-11-14T22:13:10Z"), 1_699_999_990_000, DeviceUtc, 1_000, Some(0)),
        (format("rfc3339"), json!("2023-11-14 16:13:10.5-06:00"), 1_699_999_990_500, DeviceZoned, 100, Some(-360)),
        (local.clone(), json!("2023-11-14T23:13:10"), 1_699_999_990_000, DeviceLocalAssumedZone, 1_000, None),
        (local.clone(), json!("2023-07-14 08:00"), 1_689_314_400_000, DeviceLocalAssumedZone, 60_000, None),
        (local, json!("2023-11-14T22:13:10Z"), 1_699_999_990_000, DeviceUtc, 1_000, Some(0)),
        (offset, json!("2023-11-14T18:43:10"), 1_699_999_990_000, DeviceLocalAssumedZone, 1_000, None),
    ] {
        let time = time(config, sent.clone());
        assert_eq!((time.derived, time.method), (Some(UnixMs(derived)), method), "{sent}");
        assert_eq!((time.uncertainty_ms, time.device.unwrap().offset_min), (uncertainty_ms, offset_min), "{sent}");
        assert_eq!((time.received, time.received_monotonic_ms), (UnixMs(RECEIVED), 5));
    }
}

#[test]
fn a_device_time_is_kept_as_the_device_showed_it() {
    let sent = time(json!({"path": "t", "format": "rfc3339"}), json!("2023-11-14T16:13:10-06:00")).device.unwrap();
    assert_eq!(sent.wall_ms, 1_699_978_390_000, "16:13:10 on the device's clock");
    assert_eq!(sent.instant(), Some(UnixMs(1_699_999_990_000)));
}

#[test]
fn a_time_that_cannot_be_used_never_costs_the_reading() {
    for (format, sent, kept) in [
        ("unix_s", json!(0), true),
        ("unix_s", json!(1_699_999_990_000u64), true), // milliseconds in a field of seconds
        ("unix_s", json!("yesterday"), false),
        ("unix_s", json!([1]), false),
        ("unix_ms", json!(-1), true),
        ("rfc3339", json!("1970-01-01T00:00:00Z"), true),
        ("rfc3339", json!("2023-02-30T00:00:00Z"), false),
        ("rfc3339", json!("2023-11-14"), false),
        ("rfc3339", json!("2023-11-14T22:13:10"), false),
        ("rfc3339", json!(1_699_999_990), false),
        ("rfc3339", json!("2".repeat(100)), false),
    ] {
        let time = time(json!({"path": "t", "format": format}), sent.clone());
        assert_eq!(
            (time.derived, time.method),
            (Some(UnixMs(RECEIVED)), TimeMethod::ReceiptDeviceTimeInvalid),
            "{sent}"
        );
        assert_eq!(time.device.is_some(), kept, "{sent}");
    }
    for missing in [json!({"v": 1}), json!({"v": 1, "t": null})] {
        let time = time_at(json!({"path": "t", "format": "unix_s"}), &missing, RECEIVED);
        assert_eq!((time.derived, time.method), (Some(UnixMs(RECEIVED)), TimeMethod::Receipt));
    }
}

#[test]
fn in_the_hour_that_happens_twice_the_meaning_nearer_to_the_receipt_counts() {
    let config = json!({"path": "t", "format": "local", "zone": VIENNA});
    let document = json!({"v": 1, "t": "2023-10-29T02:30:00"});
    let (summer, winter) = (1_698_539_400_000, 1_698_543_000_000);
    for (received, derived) in [(summer + 5_000, summer), (winter + 5_000, winter)] {
        let time = time_at(config.clone(), &document, received);
        assert_eq!((time.derived, time.uncertainty_ms), (Some(UnixMs(derived)), 3_601_000));
    }
}

#[test]
fn date_and_time_of_day_may_stand_apart() {
    let config = json!({"path": "time", "date_path": "date", "format": "local", "zone": "UTC"});
    let time = time_at(config.clone(), &json!({"v": 1, "date": "2015-05-13", "time": "18:28:59"}), RECEIVED);
    assert_eq!(time.derived, Some(UnixMs(1_431_541_739_000)));
    let time = time_at(config, &json!({"v": 1, "time": "18:28:59"}), RECEIVED);
    assert_eq!(time.method, TimeMethod::ReceiptDeviceTimeInvalid);
}

#[test]
fn samples_of_a_block_are_counted_on_from_its_start_or_back_from_the_receipt() {
    let path: Path = "hr[*]".parse().unwrap();
    let times = |config: Value, document: &Value| {
        let rule = rule(config, &path).unwrap();
        let mut times = Vec::new();
        path.find(document, &mut |found| {
            let time = rule.time(found, &receipt());
            times.push((time.derived.unwrap().0, time.method));
            Ok(())
        })
        .unwrap();
        times
    };
    let from_start = json!({"path": "t0", "format": "unix_s", "every_ms": 1000});
    assert_eq!(
        times(from_start.clone(), &json!({"t0": 1_699_999_990, "hr": [60, 61, 62]})),
        [1_699_999_990_000, 1_699_999_991_000, 1_699_999_992_000].map(|ms| (ms, TimeMethod::DeviceSpaced))
    );
    let back = [RECEIVED - 2_000, RECEIVED - 1_000, RECEIVED];
    assert_eq!(
        times(json!({"every_ms": 1000}), &json!({"hr": [60, 61, 62]})),
        back.map(|ms| (ms, TimeMethod::ReceiptCountedBack))
    );
    let absurd = json!({"t0": 5, "hr": [60, 61, 62]});
    assert_eq!(times(from_start, &absurd), back.map(|ms| (ms, TimeMethod::ReceiptDeviceTimeInvalid)));
}

#[test]
fn a_time_that_makes_no_sense_is_refused_when_it_is_loaded() {
    let value: Path = "hr[*]".parse().unwrap();
    for (config, key) in [
        (json!({"path": "t"}), "format"),
        (json!({"format": "unix_s"}), "path"),
        (json!({"path": "t", "format": "local"}), "zone"),
        (json!({"path": "t", "format": "unix_s", "zone": "UTC"}), "zone"),
        (json!({"path": "t", "format": "local", "zone": "Europe/Atlantis"}), "zone"),
        (json!({"path": "t", "format": "local", "zone": "../../etc/passwd"}), "zone"),
        (json!({"path": "t[*][*]", "format": "unix_s"}), "path"),
        (json!({"path": "t[", "format": "unix_s"}), "path"),
        (json!({"path": "t", "date_path": "d", "format": "unix_s"}), "date_path"),
    ] {
        assert_eq!(rule(config.clone(), &value).map(|_| ()).map_err(|(key, _)| key), Err(key), "{config}");
    }
    let single: Path = "hr".parse().unwrap();
    assert!(matches!(rule(json!({"every_ms": 5}), &single), Err(("every_ms", _))));
}

#[test]
fn a_named_zone_is_read_from_the_data_that_the_caller_has() {
    let asked = core::cell::RefCell::new(Vec::new());
    let config: TimeConfig =
        serde_json::from_value(json!({"path": "t", "format": "local", "zone": "Europe/Vienna"})).unwrap();
    let path: Path = "v".parse().unwrap();
    let result = TimeRule::new(&config, &path, &|name| {
        asked.borrow_mut().push(name.to_owned());
        None
    });
    assert_eq!(result.map(|_| ()).unwrap_err().1, ConfigProblem::Zone("Europe/Vienna".into()));
    assert_eq!(*asked.borrow(), ["Europe/Vienna"]);
}
