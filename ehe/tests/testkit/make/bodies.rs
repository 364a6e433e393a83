//! B: vitals bodies.

use ehe::body::vitals::VitalsBody;
use ehe::decimal::Decimal;
use ehe::reading::{DeviceId, DeviceTime, Flags, Reading, ReadingTime, Statistic, TimeMethod};
use ehe::time::UnixMs;
use ehe::unit::Unit;
use ehe::vital::Vital;
use serde_json::json;

use super::Kit;
use crate::json::h;
use crate::value::Cbor;

const FOLDER: &str = "vitals";

const START: u64 = 1_759_968_000_000;

pub(super) fn cases(kit: &mut Kit) {
    valid(kit);
    other_encodings(kit);
    counts(kit);
    meanings(kit);
}

fn device(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}

/// A heart rate a second, from a strap that sends Unix time.
pub(super) fn heart_rates(values: &[i64]) -> Vec<Reading> {
    values
        .iter()
        .zip(0u64..)
        .map(|(value, i)| {
            let sent = START + i * 1_000;
            let received = sent + 40 + i % 3;
            let time = ReadingTime {
                device: Some(DeviceTime { wall_ms: i64::try_from(sent).unwrap(), offset_min: Some(0) }),
                received: UnixMs(received),
                received_monotonic_ms: received - 1_759_000_000_000,
                derived: Some(UnixMs(sent)),
                interval_ms: None,
                method: TimeMethod::DeviceUtc,
                uncertainty_ms: 500,
                clock_synchronised: true,
            };
            Reading::new(Vital::HeartRate, Decimal::new(*value, 0), Unit::PerMinute, device("strap"), time).unwrap()
        })
        .collect()
}

fn at_receipt(vital: Vital, value: &str, unit: Unit, ms: u64) -> Reading {
    let time = ReadingTime::at_receipt(UnixMs(START + ms), ms, true, 1_000);
    Reading::new(vital, value.parse().unwrap(), unit, device("cuff"), time).unwrap()
}

pub(super) fn encoded(readings: &[Reading]) -> Vec<u8> {
    VitalsBody::from_readings(readings).unwrap().to_vec()
}

fn valid(kit: &mut Kit) {
    let mut case = |rule: &str, slug: &str, title: &str, readings: &[Reading]| {
        kit.case(FOLDER, rule, slug, title, "vitals").input(json!({"body": h(encoded(readings))})).valid();
    };
    case("B1", "ok-one", "one heart rate", &heart_rates(&[72]));
    case("B1", "ok-packed", "heart rates in packed bits", &heart_rates(&[70, 72, 71, 75, 74, 70, 71, 73]));
    case("B1", "ok-constant", "a heart rate that stays", &heart_rates(&[70; 20]));
    case("B1", "ok-step", "a heart rate that climbs evenly", &heart_rates(&[60, 62, 64, 66, 68]));
    let drift: Vec<i64> = (0..40).map(|i| 100_000 + i * 1_000 + i * 7 % 5).collect();
    let steps: Vec<Reading> = drift
        .iter()
        .zip(0u64..)
        .map(|(n, i)| at_receipt(Vital::StepCount, &n.to_string(), Unit::Steps, i * 60_000))
        .collect();
    case("B1", "ok-delta", "a count that drifts: differences in packed bits", &steps);
    case(
        "B1",
        "ok-two-vitals",
        "a blood pressure: two series",
        &[
            at_receipt(Vital::SystolicBloodPressure, "128", Unit::MillimetreOfMercury, 0),
            at_receipt(Vital::DiastolicBloodPressure, "84", Unit::MillimetreOfMercury, 0),
            at_receipt(Vital::SystolicBloodPressure, "131", Unit::MillimetreOfMercury, 60_000),
        ],
    );
    case(
        "B1",
        "ok-digits",
        "36.40 stays 36.40: another exponent is another series",
        &[
            at_receipt(Vital::BodyTemperature, "36.40", Unit::Celsius, 0),
            at_receipt(Vital::BodyTemperature, "36.4", Unit::Celsius, 1),
            at_receipt(Vital::BodyTemperature, "98.6", Unit::Fahrenheit, 2),
            at_receipt(Vital::BodyTemperature, "-0.5", Unit::Celsius, 3),
        ],
    );
    let order_only = ReadingTime {
        device: Some(DeviceTime { wall_ms: -62_135_596_800_000, offset_min: None }),
        derived: None,
        interval_ms: Some(3_600_000),
        method: TimeMethod::OrderOnly,
        ..ReadingTime::at_receipt(UnixMs(START), 77, false, 0)
    };
    let scale =
        Reading::new(Vital::BodyWeight, "154.30".parse().unwrap(), Unit::Pound, device("Waage Küche"), order_only)
            .unwrap();
    case(
        "B1",
        "ok-order-only",
        "a stored reading of which only the order is known, with everything that is optional",
        &[scale.clone().with_flags(Flags::FROM_STORAGE).with_statistic(Statistic::Average), scale],
    );
    case(
        "B7",
        "ok-unknown-flag",
        "flag bits that nobody knows yet are kept",
        &[heart_rates(&[72]).remove(0).with_flags(Flags(1 << 31))],
    );
    let far = |wall_ms: i64| {
        let time = ReadingTime {
            device: Some(DeviceTime { wall_ms, offset_min: Some(-720) }),
            derived: Some(UnixMs(1)),
            ..ReadingTime::at_receipt(UnixMs(u64::MAX), u64::MAX, false, u32::MAX)
        };
        Reading::new(Vital::HeartRate, Decimal::new(i64::MIN, i8::MIN), Unit::PerMinute, device("x"), time).unwrap()
    };
    case("B1", "ok-wraps", "sums wrap at 64 bits", &[far(i64::MIN), far(i64::MAX), far(0)]);
}

/// A body with one place changed.
pub(super) fn with(readings: &[Reading], change: impl FnOnce(&mut Cbor)) -> Vec<u8> {
    let mut body = Cbor::parse(&encoded(readings));
    change(&mut body);
    body.to_vec()
}

/// The member of the first series.
pub(super) fn of(body: &mut Cbor, member: i128) -> &mut Cbor {
    body.at(2).at(0).at(member)
}

/// Numbers of `width` bits, the first in the lowest bits of the first byte: written apart from the library's own.
pub(super) fn bits(values: &[u64], width: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; (values.len() * width).div_ceil(8)];
    for (i, value) in values.iter().enumerate() {
        for bit in 0..width {
            let at = i * width + bit;
            bytes[at / 8] |= u8::from(value >> bit & 1 == 1) << (at % 8);
        }
    }
    bytes
}

pub(super) fn packed(base: i128, width: i128, bytes: &[u8]) -> Cbor {
    Cbor::Array(vec![Cbor::Int(1), Cbor::Int(base), Cbor::Int(width), Cbor::Bytes(bytes.to_vec())])
}

fn other_encodings(kit: &mut Kit) {
    let six = heart_rates(&[70, 72, 71, 75, 74, 70]);
    assert_eq!(
        of(&mut Cbor::parse(&encoded(&six)), 16),
        &packed(70, 3, &bits(&[0, 2, 1, 5, 4, 0], 3)),
        "the generator knows this column"
    );
    let same = heart_rates(&[70, 70, 70]);
    let climbing = heart_rates(&[60, 62, 64]);
    let two = [&six[..], &[at_receipt(Vital::StepCount, "5", Unit::Steps, 0)]].concat();
    let split = |body: &mut Cbor| {
        let mut halves = Cbor::parse(&encoded(&six[..3]));
        let mut late = Cbor::parse(&encoded(&six[3..])).at(2).at(0).clone();
        *late.at(9) = Cbor::Array(vec![Cbor::Int(0), Cbor::Int(3_000), Cbor::Int(1_000)]);
        let early = halves.at(2).at(0).clone();
        *body.at(2) = Cbor::Array(vec![early, late]);
    };
    for (slug, title, body) in [
        ("padding-bits", "a bit is set after the last value", with(&six, |b| of(b, 16).at(3).bytes()[2] |= 0x80)),
        (
            "column-too-long",
            "a column with a member too many",
            with(&six, |b| {
                let Cbor::Array(items) = of(b, 16) else { panic!("packed") };
                items.push(Cbor::Int(0));
            }),
        ),
        (
            "wider-than-needed",
            "values of four bits where three do",
            with(&six, |b| *of(b, 16) = packed(70, 4, &bits(&[0, 2, 1, 5, 4, 0], 4))),
        ),
        (
            "base-not-the-smallest",
            "a base below the smallest value",
            with(&six, |b| *of(b, 16) = packed(69, 3, &bits(&[1, 3, 2, 6, 5, 1], 3))),
        ),
        (
            "packed-for-constant",
            "packed bits where all values are equal",
            with(&same, |b| *of(b, 16) = packed(70, 1, &[0])),
        ),
        (
            "step-for-constant",
            "a step of 0",
            with(&same, |b| *of(b, 16) = Cbor::Array(vec![Cbor::Int(0), Cbor::Int(70), Cbor::Int(0)])),
        ),
        (
            "packed-for-step",
            "packed bits where the step is even",
            with(&climbing, |b| *of(b, 16) = packed(60, 3, &bits(&[0, 2, 4], 3))),
        ),
        (
            "delta-not-shorter",
            "differences where packed bits are as short",
            with(&six, |b| {
                // 70, then +2 −1 +4 −1 −4: base −4, width 4.
                *of(b, 16) = Cbor::Array(vec![
                    Cbor::Int(2),
                    Cbor::Int(70),
                    Cbor::Int(-4),
                    Cbor::Int(4),
                    Cbor::Bytes(bits(&[6, 3, 8, 3, 0], 4)),
                ]);
            }),
        ),
        ("unit-spelled-out", "the canonical unit written out", with(&six, |b| b.at(2).at(0).set(1, Cbor::Int(1)))),
        ("flags-zero", "no flags written as 0", with(&six, |b| b.at(2).at(0).set(5, Cbor::Int(0)))),
        (
            "origin-moved",
            "an origin that is not the first reading's time",
            with(&six, |b| {
                let Cbor::Int(origin) = b.at(0) else { panic!() };
                *origin += 1;
                *of(b, 9) = Cbor::Array(vec![Cbor::Int(0), Cbor::Int(-1), Cbor::Int(1_000)]);
            }),
        ),
        (
            "monotonic-start-moved",
            "a monotonic start that is not the first reading's",
            with(&same, |b| {
                let Cbor::Int(start) = b.at(1) else { panic!() };
                *start += 1;
                *of(b, 11) = Cbor::Int(-1);
            }),
        ),
        ("series-split", "one series written as two", with(&six, split)),
        (
            "series-out-of-order",
            "series in another order than that of their first readings",
            with(&two, |b| {
                let Cbor::Array(series) = b.at(2) else { panic!() };
                series.swap(0, 1);
            }),
        ),
        (
            "zone-without-clock",
            "a zone where the device sent no time",
            with(&six, |b| b.at(2).at(0).members().retain(|(k, _)| *k != 13)),
        ),
        ("no-series", "no readings", with(&six, |b| *b.at(2) = Cbor::Array(vec![]))),
        (
            "long-integer",
            "an integer in more bytes than it needs",
            with(&six, |b| *of(b, 6) = Cbor::Raw(vec![0x18, 1])),
        ),
    ] {
        kit.case(FOLDER, "B1", slug, title, "vitals").input(json!({"body": h(body)})).invalid();
    }
}

fn counts(kit: &mut Kit) {
    let six = heart_rates(&[70, 72, 71, 75, 74, 70]);
    for (rule, slug, title, body) in [
        (
            "B2",
            "count-65535",
            "a series that claims 65,535 readings in a few bytes",
            with(&heart_rates(&[70; 3]), |b| *of(b, 8) = Cbor::Int(65_535)),
        ),
        (
            "B2",
            "count-4097",
            "a body that claims 4,097 readings",
            with(&heart_rates(&[70; 3]), |b| *of(b, 8) = Cbor::Int(4_097)),
        ),
        ("B2", "count-0", "a series without readings", with(&six, |b| *of(b, 8) = Cbor::Int(0))),
        (
            "B2",
            "count-above-the-bytes",
            "a count that the packed bytes do not hold",
            with(&six, |b| *of(b, 8) = Cbor::Int(40)),
        ),
        (
            "B2",
            "bytes-above-the-count",
            "packed bytes for more values than are counted",
            with(&six, |b| *of(b, 16) = packed(70, 3, &[&bits(&[0, 2, 1, 5, 4, 0], 3)[..], &[0]].concat())),
        ),
        ("B2", "width-0", "values of no bits", with(&six, |b| *of(b, 16) = packed(70, 0, &[]))),
        ("B2", "width-65", "values of 65 bits", with(&six, |b| *of(b, 16) = packed(70, 65, &[0; 49]))),
        (
            "B2",
            "series-65",
            "a body of 65 series",
            with(&six, |b| {
                let one = b.at(2).at(0).clone();
                *b.at(2) = Cbor::Array(vec![one; 65]);
            }),
        ),
        (
            "E3",
            "device-id-oversized",
            "a device id of 65 bytes",
            with(&six, |b| *of(b, 2) = Cbor::Text("x".repeat(65))),
        ),
        ("E3", "device-id-empty", "an empty device id", with(&six, |b| *of(b, 2) = Cbor::Text(String::new()))),
    ] {
        kit.case(FOLDER, rule, slug, title, "vitals").input(json!({"body": h(body)})).invalid();
    }
}

fn meanings(kit: &mut Kit) {
    let six = heart_rates(&[70, 72, 71, 75, 74, 70]);
    let flat = heart_rates(&[70; 3]);
    for (rule, slug, title, body) in [
        ("B3", "heart-rate-in-kilogram", "a heart rate in kg", with(&six, |b| b.at(2).at(0).set(1, Cbor::Int(10)))),
        ("B3", "weight-in-mmol-per-litre", "a weight in mmol/L", {
            let weight = [at_receipt(Vital::BodyWeight, "70", Unit::Kilogram, 0)];
            with(&weight, |b| b.at(2).at(0).set(1, Cbor::Int(27)))
        }),
        ("B7", "unknown-vital", "a vital that there is not", with(&six, |b| *of(b, 0) = Cbor::Int(9999))),
        ("B7", "unknown-unit", "a unit that there is not", with(&six, |b| b.at(2).at(0).set(1, Cbor::Int(9999)))),
        ("B7", "unknown-method", "a time method that there is not", with(&six, |b| *of(b, 6) = Cbor::Int(99))),
        (
            "B7",
            "unknown-statistic",
            "a statistic that there is not",
            with(&six, |b| b.at(2).at(0).set(4, Cbor::Int(99))),
        ),
        (
            "B7",
            "device-id-control",
            "a device id with a line break",
            with(&six, |b| *of(b, 2) = Cbor::Text("a\nb".into())),
        ),
        ("B7", "uncertainty-negative", "an uncertainty below 0", with(&flat, |b| *of(b, 12) = Cbor::Int(-1))),
        (
            "B7",
            "uncertainty-33-bits",
            "an uncertainty of more than 32 bits",
            with(&flat, |b| *of(b, 12) = Cbor::Int(1 << 32)),
        ),
        ("B7", "exponent-128", "an exponent above 127", with(&six, |b| *of(b, 3) = Cbor::Int(128))),
        (
            "B7",
            "unknown-column",
            "a column of a form that there is not",
            with(&six, |b| *of(b, 16) = Cbor::Array(vec![Cbor::Int(9), Cbor::Int(70), Cbor::Int(1)])),
        ),
    ] {
        kit.case(FOLDER, rule, slug, title, "vitals").input(json!({"body": h(body)})).invalid();
    }
}
