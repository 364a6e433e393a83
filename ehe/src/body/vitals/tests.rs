use proptest::prelude::*;

use super::*;
use crate::limits::BODY_FLOOR_BYTES;

/// What is left of the smallest padded body for its plain text: 16 bytes of tag, one of padding marker.
const FLOOR_PLAIN_BYTES: usize = BODY_FLOOR_BYTES - 17;

fn heart_rate(index: u64, received: u64, monotonic: u64) -> Reading {
    // A seeded walk between 60 and 90: neighbours differ by a beat or two, as they do.
    let walk = 60 + (index * 7919 % 31 + index * 104_729 % 5) % 30;
    let sent = 1_700_000_000_000 + index * 1_000;
    let time = ReadingTime {
        device: Some(DeviceTime { wall_ms: i64::try_from(sent).unwrap(), offset_min: Some(0) }),
        received: UnixMs(received),
        received_monotonic_ms: monotonic,
        derived: Some(UnixMs(sent)),
        interval_ms: None,
        method: TimeMethod::DeviceUtc,
        uncertainty_ms: 1_000,
        clock_synchronised: true,
    };
    let device = DeviceId::new("wearables/polar-h10-7E2B41").unwrap();
    Reading::new(Vital::HeartRate, Decimal::from(u32::try_from(walk).unwrap()), Unit::PerMinute, device, time).unwrap()
}

/// One a second, delivered with a jitter of up to 63 ms, the gateway's two clocks a millisecond apart at times.
fn heart_rate_window(count: u64) -> Vec<Reading> {
    let received = |i: u64| 1_700_000_000_040 + i * 1_000 + i * 2_654_435_761 % 64;
    (0..count).map(|i| heart_rate(i, received(i), received(i) - 1_699_000_000_000 + i % 2)).collect()
}

fn encoded(readings: &[Reading]) -> Vec<u8> {
    VitalsBody::from_readings(readings).unwrap().to_vec()
}

fn columns(readings: &[Reading]) -> Columns<'static> {
    Columns::of(readings).unwrap()
}

#[test]
fn a_window_of_15_heart_rates_and_one_of_60_fit_the_smallest_padded_body() {
    let (fifteen, sixty) = (encoded(&heart_rate_window(15)).len(), encoded(&heart_rate_window(60)).len());
    assert_eq!((fifteen, sixty), (122, 192));
    assert!(sixty <= FLOOR_PLAIN_BYTES);
}

#[test]
fn a_window_of_600_heart_rates_stays_within_three_bytes_a_reading_with_all_that_the_ledger_adds() {
    // 1,800 bytes an event: some 230 for run, leaf, index and hashes, the rest for the sealed body.
    let readings = heart_rate_window(600);
    let body = encoded(&readings);
    assert!(crate::seal::padded_body_len(body.len()) + 230 <= 1_800, "{} bytes", body.len());
    assert_eq!(VitalsBody::decode(&body), Ok(readings));
}

#[test]
fn readings_come_back_with_every_digit_and_every_time() {
    let mut readings = heart_rate_window(15);
    let device = DeviceId::new("waage").unwrap();
    let order_only = ReadingTime {
        device: Some(DeviceTime { wall_ms: -62_135_596_800_000, offset_min: None }),
        derived: None,
        method: TimeMethod::OrderOnly,
        interval_ms: Some(60_000),
        ..ReadingTime::at_receipt(UnixMs(1_700_000_020_000), 77, false, 0)
    };
    let weight = |value: &str| {
        Reading::new(Vital::BodyWeight, value.parse().unwrap(), Unit::Pound, device.clone(), order_only).unwrap()
    };
    readings.push(weight("154.30").with_flags(Flags::FROM_STORAGE));
    readings.push(weight("1543e-1").with_statistic(Statistic::Average));
    readings.push(weight("99999").with_flags(Flags(1 << 31)));
    let back = VitalsBody::decode(&encoded(&readings)).unwrap();
    assert_eq!(back, readings);
    assert_eq!(back[15].value().to_string(), "154.30");
    assert_eq!(back[17].flags(), Flags::IMPLAUSIBLE.union(Flags(1 << 31)));
}

#[test]
fn what_does_not_fit_one_body_is_refused_with_what_would() {
    assert_eq!(VitalsBody::from_readings(&[]), Err(BodyError::Empty));
    let many: Vec<Reading> = heart_rate_window(4_097);
    assert_eq!(VitalsBody::from_readings(&many), Err(BodyError::TooManyReadings { found: 4_097 }));
    assert!(VitalsBody::from_readings(&many[..4_096]).is_ok());
    let of_device = |i: u32| {
        let time = ReadingTime::at_receipt(UnixMs(1), 0, true, 0);
        Reading::new(Vital::HeartRate, 70.into(), Unit::PerMinute, DeviceId::new(&format!("d{i}")).unwrap(), time)
            .unwrap()
    };
    let devices: Vec<Reading> = (0..65).map(of_device).collect();
    assert_eq!(VitalsBody::from_readings(&devices), Err(BodyError::TooManySeries { fits: 64 }));
    assert!(VitalsBody::from_readings(&devices[..64]).is_ok());
}

#[test]
fn readings_without_any_regularity_are_refused_when_they_pass_the_limit_of_bytes() {
    let noise = |i: u64| {
        let mixed = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb)
    };
    let reading = |i: u64| {
        let i = i * 8;
        let time = ReadingTime {
            interval_ms: Some(noise(i + 1)),
            device: Some(DeviceTime { wall_ms: noise(i + 2).cast_signed(), offset_min: None }),
            ..ReadingTime::at_receipt(UnixMs(noise(i)), noise(i + 3), true, 0)
        };
        let value = Decimal::new(noise(i + 4).cast_signed(), 0);
        Reading::new(Vital::HeartRate, value, Unit::PerMinute, DeviceId::new("d").unwrap(), time).unwrap()
    };
    let readings: Vec<Reading> = (0..4_096).map(reading).collect();
    assert!(matches!(VitalsBody::from_readings(&readings), Err(BodyError::TooLarge { .. })));
    assert_eq!(VitalsBody::decode(&encoded(&readings[..1_000])).unwrap(), readings[..1_000]);
}

#[test]
fn another_encoding_of_the_same_readings_is_refused() {
    let readings = heart_rate_window(6);
    let good = columns(&readings);
    let mut split = good.clone();
    let (mut early, mut late) = (good.series[0].clone(), good.series[0].clone());
    let part = |range: core::ops::Range<usize>| columns(&readings[range]).series.remove(0);
    early.clone_from(&part(0..3));
    late.clone_from(&part(3..6));
    split.series = vec![early, late];
    let mut spelled_out = good.clone();
    spelled_out.series[0].unit = Some(Unit::PerMinute);
    let mut zero_flags = good.clone();
    zero_flags.series[0].flags = Some(0);
    let mut moved_origin = good.clone();
    moved_origin.origin = moved_origin.origin.plus_ms(1);
    moved_origin.series[0].time = Column::Step { start: -1, step: 1_000 };
    let mut zone_without_clock = good.clone();
    zone_without_clock.series[0].device_clock = None;
    let mut moved_clock = good.clone();
    moved_clock.monotonic_start -= 1;
    let Column::Packed(_) = &moved_clock.series[0].monotonic else { panic!("a step from 0 to 1 and back is packed") };
    let ones: Vec<i64> = (0..6).map(|i| 1 + i % 2).collect();
    moved_clock.series[0].monotonic = Column::of(&ones);
    let mut empty_series = good.clone();
    empty_series.series[0].count = 0;
    for bad in [split, spelled_out, zero_flags, moved_origin, moved_clock, zone_without_clock, empty_series] {
        assert_eq!(VitalsBody::decode(&cbor::to_vec(&bad)), Err(BodyError::NotCanonical), "{bad:?}");
    }
    let mut padding = cbor::to_vec(&good);
    let last = padding.len() - 1;
    padding[last] |= 0x80; // the mantissas' last byte: 6 values of 5 bits leave two bits over
    assert_eq!(VitalsBody::decode(&padding), Err(BodyError::Column(ColumnError::NotCanonical)));
    assert_eq!(VitalsBody::decode(&cbor::to_vec(&good)), Ok(readings));
}

#[test]
fn a_body_that_claims_millions_of_readings_in_a_few_bytes_is_refused() {
    let mut body = columns(&[heart_rate(0, 1, 1)]);
    body.series[0].count = u16::MAX;
    assert_eq!(VitalsBody::decode(&cbor::to_vec(&body)), Err(BodyError::TooManyReadings { found: 65_535 }));
    let one = body.series[0].clone();
    body.series = vec![one; 65];
    assert_eq!(VitalsBody::decode(&cbor::to_vec(&body)), Err(BodyError::TooManySeries { fits: 0 }));
}

#[test]
fn a_unit_of_something_else_and_an_unknown_vital_are_refused() {
    let mut body = columns(&[heart_rate(0, 1, 1)]);
    body.series[0].unit = Some(Unit::Kilogram);
    assert!(matches!(VitalsBody::decode(&cbor::to_vec(&body)), Err(BodyError::Unit(_))));
    let mut bytes = encoded(&[heart_rate(0, 1, 1)]);
    let vital = bytes.windows(3).position(|w| w == [0x00, 0x01, 0x02]).unwrap() + 1;
    bytes[vital] = 0x00;
    assert!(matches!(VitalsBody::decode(&bytes), Err(BodyError::Cbor(CborError::Shape(_)))));
}

prop_compose! {
    fn any_time()(
        device in prop::option::of((any::<i64>(), prop::option::of(any::<i16>()))),
        received: u64,
        received_monotonic_ms: u64,
        derived in prop::option::of(prop_oneof![any::<u64>(), 1_700_000_000_000u64..1_700_000_100_000]),
        interval_ms in prop::option::of(any::<u64>()),
        method in prop::sample::select(TimeMethod::ALL),
        uncertainty_ms: u32,
        clock_synchronised: bool,
    ) -> ReadingTime {
        ReadingTime {
            device: device.map(|(wall_ms, offset_min)| DeviceTime { wall_ms, offset_min }),
            received: UnixMs(received),
            received_monotonic_ms,
            derived: derived.map(UnixMs),
            interval_ms,
            method,
            uncertainty_ms,
            clock_synchronised,
        }
    }
}

prop_compose! {
    fn any_reading()(
        vital in prop::sample::select(Vital::ALL),
        unit in prop::sample::select(Unit::ALL),
        mantissa in prop_oneof![any::<i64>(), 0i64..200],
        exponent in prop_oneof![any::<i8>(), -2i8..1],
        device in prop::sample::select(&["a", "b", "Blutdruckmessgerät"][..]),
        time in any_time(),
        statistic in prop::option::of(prop::sample::select(Statistic::ALL)),
        flags in prop_oneof![Just(0u32), any::<u32>()],
    ) -> Reading {
        let unit = if vital.accepts(unit) { unit } else { vital.unit() };
        let reading = Reading::new(vital, Decimal::new(mantissa, exponent), unit, DeviceId::new(device).unwrap(), time).unwrap();
        let reading = match statistic { Some(statistic) => reading.with_statistic(statistic), None => reading };
        reading.with_flags(Flags(flags))
    }
}

proptest! {
    #[test]
    fn any_readings_come_back_the_same_in_the_order_of_their_series(readings in prop::collection::vec(any_reading(), 1..60)) {
        let bytes = encoded(&readings);
        let back = VitalsBody::decode(&bytes).unwrap();
        let rows = |list: &[Reading]| {
            let mut rows: Vec<String> = list.iter().map(|r| format!("{r:?}")).collect();
            rows.sort();
            rows
        };
        prop_assert_eq!(rows(&back), rows(&readings));
        prop_assert_eq!(encoded(&back), bytes);
    }

    #[test]
    fn any_long_window_comes_back_the_same(
        first in any_reading(),
        steps in prop::collection::vec((0u64..5_000, 0u64..100, -3i64..=3), 256..700),
    ) {
        let mut time = ReadingTime { interval_ms: None, device: None, derived: Some(UnixMs(0)), ..*first.time() };
        let mut mantissa = first.value().mantissa();
        let readings: Vec<Reading> = steps.iter().map(|(tick, delay, step)| {
            let at = time.derived.unwrap().plus_ms(*tick);
            time = ReadingTime { derived: Some(at), received: at.plus_ms(*delay), ..time };
            mantissa = mantissa.wrapping_add(*step);
            let value = Decimal::new(mantissa, first.value().exponent());
            let reading = Reading::new(first.vital(), value, first.unit(), first.device().clone(), time).unwrap();
            reading.with_flags(Flags::IMPLAUSIBLE)
        }).collect();
        let body = encoded(&readings);
        prop_assert_eq!(VitalsBody::decode(&body).unwrap(), readings);
    }

    #[test]
    fn an_accepted_body_is_the_one_that_its_readings_make(
        readings in prop::collection::vec(any_reading(), 1..12), at in any::<prop::sample::Index>(), to: u8
    ) {
        let mut bytes = encoded(&readings);
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(readings) = VitalsBody::decode(&bytes) {
            prop_assert_eq!(encoded(&readings), bytes);
        }
    }

    #[test]
    fn any_bytes_are_readings_or_a_typed_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = VitalsBody::decode(&bytes);
    }

    #[test]
    fn a_body_with_changed_bytes_is_readings_or_a_typed_error(at in 0usize..1_000, to: u8) {
        let mut bytes = encoded(&heart_rate_window(15));
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(readings) = VitalsBody::decode(&bytes) {
            prop_assert_eq!(encoded(&readings), bytes);
        }
    }
}
