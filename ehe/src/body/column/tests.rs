use super::*;
use crate::cbor;
use proptest::prelude::*;

fn read(column: &Column<'_>, count: usize) -> Result<Vec<i64>, ColumnError> {
    let mut values = Vec::new();
    column.read(count, &mut values).map(|()| values)
}

/// The values from their bytes.
fn decoded(bytes: &[u8], count: usize) -> Result<Vec<i64>, String> {
    let column: Column<'_> = cbor::from_slice(bytes, 1 << 20).map_err(|e| e.to_string())?;
    read(&column, count).map_err(|e| e.to_string())
}

fn plain(values: &[i64]) -> Column<'static> {
    let profile = Profile::of(values);
    Column::plain(values, profile.start, &profile.plain().0)
}

fn packed(values: &[i64], base: i64, width: u8) -> Column<'static> {
    Column::plain(values, values[0], &Plain::Packed(base, width))
}

fn delta(values: &[i64], base: i64, width: u8) -> Column<'static> {
    Column::plain(values, values[0], &Plain::Delta(base, width))
}

/// Seeded noise below `bound`.
fn noise(count: u64, bound: u64) -> Vec<i64> {
    let mixed = |i: u64| {
        let mixed = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
    };
    (0..count).map(|i| i64::try_from(mixed(i) % bound).unwrap()).collect()
}

/// A pulse: it drifts by a beat or stays.
fn walk(count: u64) -> Vec<i64> {
    noise(count, 3)
        .into_iter()
        .scan(70, |rate, step| {
            *rate += step - 1;
            Some(*rate)
        })
        .collect()
}

#[test]
fn each_kind_of_column_takes_its_shortest_form() {
    assert_eq!(cbor::to_vec(&Column::of(&[7; 1_000])), [0x07]);
    let ticks: Vec<i64> = (0..1_000).map(|i| 1_700_000_000_000 + i * 1_000).collect();
    assert_eq!(cbor::to_vec(&Column::of(&ticks)).len(), 14);
    assert!(matches!(Column::of(&[70, 72, 71, 75]), Column::Packed(Bits { base: 70, width: 3, .. })));
    let jittered: Vec<i64> = ticks[..255].iter().map(|t| t + (t / 1_000) % 7).collect();
    assert!(matches!(Column::of(&jittered), Column::Delta { .. }));
}

#[test]
fn pco_is_taken_from_256_values_on_where_it_is_strictly_shorter() {
    let rare: Vec<i64> = noise(256, 100).iter().map(|value| if *value == 0 { 1_000 } else { *value / 50 }).collect();
    assert!(matches!(Column::of(&rare[..255]), Column::Packed(_)));
    assert!(matches!(Column::of(&rare), Column::Pco(Bits { width: 16, .. })));
    // Mostly 97 or 98 %, now and then a probe that slipped: most of a packed column's bits say nothing.
    let saturation: Vec<i64> = noise(600, 100).iter().map(|v| if *v < 3 { 80 + *v } else { 97 + *v % 2 }).collect();
    let (pco, plain_len) = (cbor::to_vec(&Column::of(&saturation)).len(), cbor::to_vec(&plain(&saturation)).len());
    assert!(pco * 3 < plain_len, "{pco} bytes of pco, {plain_len} plain");
    // What has no shape is as long either way.
    assert!(matches!(Column::of(&noise(600, 64)), Column::Packed(_)));
    for (scale, width) in [(1, 16), (100_000, 32), (1 << 40, 64)] {
        let values: Vec<i64> = walk(600).iter().map(|value| value * scale).collect();
        assert!(matches!(Column::of(&values), Column::Pco(Bits { width: w, .. }) if w == width), "{scale}");
        assert_eq!(decoded(&cbor::to_vec(&Column::of(&values)), 600), Ok(values));
    }
}

#[test]
fn a_column_whose_bytes_do_not_match_its_count_is_refused_before_anything_is_allocated() {
    let column = Column::of(&[1, 5, 2]);
    assert_eq!(read(&column, 3), Ok(vec![1, 5, 2]));
    assert_eq!(read(&column, 4_000), Err(ColumnError::Length { expected: 1_500, found: 2 }));
    let wide = Column::Packed(Bits { base: 0, width: 65, bytes: vec![].into() });
    assert_eq!(read(&wide, 1), Err(ColumnError::Width { width: 65 }));
    let flat = Column::Packed(Bits { base: 0, width: 0, bytes: vec![].into() });
    assert_eq!(read(&flat, 1_000), Err(ColumnError::Width { width: 0 }));
}

#[test]
fn values_in_another_form_base_or_width_than_their_one_are_refused() {
    let near = [70, 72, 71, 75];
    let drift: Vec<i64> = (0..20).map(|i| i * 1_000 + i % 3).collect();
    let bad = [
        (packed(&near, 69, 3), 4, "a smaller base"),
        (packed(&near, 70, 4), 4, "a wider width"),
        (delta(&near, -1, 3), 4, "delta where packed is as short"),
        (packed(&drift, 0, 15), 20, "packed where delta is shorter"),
        (delta(&drift, 997, 3), 20, "a smaller step"),
        (Column::Step { start: 5, step: 0 }, 3, "a step of nothing"),
        (Column::Step { start: 5, step: 1 }, 1, "a step of one value"),
        (packed(&[1, 3, 5], 1, 3), 3, "an even tick, packed"),
        (packed(&[4, 4, 4], 4, 1), 3, "a constant, packed"),
    ];
    for (column, count, what) in bad {
        assert_eq!(read(&column, count), Err(ColumnError::NotCanonical), "{what}");
    }
    assert_eq!(read(&packed(&near, 70, 3), 4).unwrap(), near);
    let (step, width) = narrowest(Profile::of(&drift).steps);
    assert_eq!(read(&delta(&drift, step, width), 20).unwrap(), drift);
}

fn pco_of(values: &[i64]) -> Bits<'static> {
    let Column::Pco(bits) = Column::of(values) else { panic!("not compressed") };
    bits
}

#[test]
fn a_compressed_column_in_another_type_from_another_base_or_where_plain_is_shorter_is_refused() {
    let pulse = walk(600);
    let good = pco_of(&pulse);
    assert_eq!(read(&Column::Pco(good.clone()), 600).unwrap(), pulse);
    let with = |base: i64, width: u8| {
        let bytes = pcodec::compress(&pulse, base, width).unwrap().into();
        read(&Column::Pco(Bits { base, width, bytes }), 600)
    };
    assert_eq!(with(good.base, 16).as_ref(), Ok(&pulse));
    assert_eq!(with(good.base - 1, 16), Err(ColumnError::NotCanonical));
    assert_eq!(with(good.base, 32), Err(ColumnError::NotCanonical));
    assert_eq!(read(&Column::Pco(Bits { width: 8, ..good.clone() }), 600), Err(ColumnError::Width { width: 8 }));
    let shapeless = noise(600, 64);
    let bytes = pcodec::compress(&shapeless, 0, 16).unwrap().into();
    assert_eq!(read(&Column::Pco(Bits { base: 0, width: 16, bytes }), 600), Err(ColumnError::NotCanonical));
    let few = pulse[..255].to_vec();
    let base = *few.iter().min().unwrap();
    let bytes = pcodec::compress(&few, base, 16).unwrap().into();
    assert_eq!(read(&Column::Pco(Bits { base, width: 16, bytes }), 255), Err(ColumnError::NotCanonical));
}

#[test]
fn a_compressed_column_of_more_or_fewer_values_than_its_count_is_refused() {
    let pulse = walk(600);
    let good = pco_of(&pulse);
    // One value fewer can be a page of its own: pco writes no count, and a value may take no bits.
    for count in [256, 512, 590, 610, 4_096] {
        assert!(read(&Column::Pco(good.clone()), count).is_err(), "{count}");
    }
    for len in 0..good.bytes.len() {
        let cut = good.bytes[..len].to_vec().into();
        assert!(
            matches!(read(&Column::Pco(Bits { bytes: cut, ..good.clone() }), 600), Err(ColumnError::Pco(_))),
            "{len}"
        );
    }
    let mut longer = good.bytes.to_vec();
    longer.push(0);
    let longer = Column::Pco(Bits { bytes: longer.into(), ..good });
    assert_eq!(read(&longer, 600), Err(ColumnError::Pco("bytes follow the page")));
}

#[test]
fn a_chunk_that_another_program_wrote_is_read() {
    // By PyPI's pcodec 1.1.0 (Python): wrapped file header, chunk metadata, page; level 8, classic mode, u16.
    let plain = "0401004800e00000084b0200435201000cd80710002f23eb1937ef97d7b8ecf28f3020eb1077e28b8f3c28c700375071717c1c41bb722c\
        a29b7968098f0c19146bb775ea2e80108fea8033ac651847c445a710211ed501cdb096e11171d12988108fea8033ac6518";
    let deltas = "04011081068081033f0263ff3724fcff82190020280a001c0a098009000007473bddba41f022b022b786132eff81e8b4a1508c90e4c7b\
        5dea16b1fb72fb053e566be1d201d730c4a78e5390f4074573ee85a8eba308a253c442fa812acaf9a61cc1501804440074b66dd2bf17c00d1a26\
        63dd0d367f90298019e814440074b66fd7c96783e806851537afa2c5f0033c04b4f814440074b66dd2bf17c00d1a2f8";
    let value = |i: i64| (i * i % 97).min(40) / 4 + if i % 64 == 63 { 500 } else { 0 };
    let values: Vec<i64> = (0..256).map(value).collect();
    let bytes = |hex: &str| -> Vec<u8> {
        hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    };
    for chunk in [plain, deltas] {
        let mut read = Vec::new();
        pcodec::decompress(&bytes(chunk), 0, 16, 256, &mut read).unwrap();
        assert_eq!(read, values);
    }
    let column = Column::Pco(Bits { base: 0, width: 16, bytes: bytes(plain).into() });
    assert_eq!(read(&column, 256).unwrap(), values);
}

/// Metadata behind the format's two bytes, from (value, bits), the first in the lowest bits.
fn metadata(fields: &[(u64, u32)]) -> Vec<u8> {
    let (mut bits, mut filled) = (0u128, 0);
    for (value, width) in fields {
        bits |= u128::from(*value) << filled;
        filled += width;
    }
    let mut bytes = vec![4, 1];
    bytes.extend_from_slice(&bits.to_le_bytes());
    bytes
}

#[test]
fn metadata_that_asks_for_much_or_is_never_written_is_refused_before_pco_sees_it() {
    let refused = |fields: &[(u64, u32)], why: &str| {
        let bytes = metadata(fields);
        assert_eq!(
            read(&Column::Pco(Bits { base: 0, width: 16, bytes: bytes.into() }), 600),
            Err(ColumnError::Pco(match why {
                "mode" => "a mode or delta encoding that is not used here",
                _ => "more bins or states than are used here",
            })),
            "{fields:?}"
        );
    };
    for mode in 1..16 {
        refused(&[(mode, 4)], "mode");
    }
    // A dictionary of 2^25 - 1 values: 256 MiB for a few bytes.
    refused(&[(4, 4), (0x1ff_ffff, 25)], "mode");
    // A window of 2^24 values to look back into.
    refused(&[(0, 4), (2, 4), (23, 5), (0, 4)], "mode");
    for variant in 2..16 {
        refused(&[(0, 4), (variant, 4)], "mode");
    }
    for order in [0, 2, 3, 4, 5, 6, 7] {
        refused(&[(0, 4), (1, 4), (order, 3), (0, 1)], "mode");
    }
    refused(&[(0, 4), (1, 4), (1, 3), (1, 1)], "mode");
    for (states_log, bins) in [(11, 3), (15, 3), (10, 257), (10, 0x7fff), (0, 0)] {
        refused(&[(0, 4), (0, 4), (states_log, 4), (bins, 15)], "size");
        refused(&[(0, 4), (1, 4), (1, 3), (0, 1), (states_log, 4), (bins, 15)], "size");
    }
    for format in [[4, 0], [4, 2], [3, 0], [0, 0], [5, 0]] {
        let mut bytes = pco_of(&walk(600)).bytes.into_owned();
        bytes[..2].copy_from_slice(&format);
        let column = Column::Pco(Bits { base: 0, width: 16, bytes: bytes.into() });
        assert_eq!(read(&column, 600), Err(ColumnError::Pco("not of pco's format 4.1")));
    }
}

proptest! {
    #[test]
    fn delta_is_taken_only_where_its_bytes_are_fewer(start: i64, steps in prop::collection::vec(-300i64..900, 3..80)) {
        let values: Vec<i64> = core::iter::once(start).chain(steps.iter().scan(start, |sum, step| {
            *sum = sum.wrapping_add(*step);
            Some(*sum)
        })).collect();
        let profile = Profile::of(&values);
        let chosen = Column::of(&values);
        if profile.steps.0 != profile.steps.1 {
            let (base, width) = narrowest(profile.values);
            let (step, step_width) = narrowest(profile.steps);
            let (packed, delta) = (packed(&values, base, width), delta(&values, step, step_width));
            let shorter = cbor::to_vec(&delta).len() < cbor::to_vec(&packed).len();
            prop_assert_eq!(chosen, if shorter { delta } else { packed });
        }
    }

    #[test]
    fn any_values_come_back_through_the_bytes(values in prop_oneof![
        prop::collection::vec(any::<i64>(), 1..70),
        prop::collection::vec(-50i64..50, 1..300),
        prop::collection::vec(prop_oneof![9 => 0i64..3, 1 => any::<i64>()], 256..600),
        prop::collection::vec(prop_oneof![0i64..3, 1_000_000i64..1_000_003], 256..4096),
        (any::<i64>(), any::<i64>(), 1usize..50).prop_map(|(start, step, n)| {
            (0..n).map(|i| start.wrapping_add(step.wrapping_mul(i64::try_from(i).unwrap()))).collect()
        }),
    ]) {
        let bytes = cbor::to_vec(&Column::of(&values));
        prop_assert!(bytes.len() <= cbor::to_vec(&plain(&values)).len());
        prop_assert_eq!(decoded(&bytes, values.len()), Ok(values.clone()));
        prop_assert_eq!(decoded(&cbor::to_vec(&plain(&values)), values.len()), Ok(values));
    }

    #[test]
    fn an_accepted_column_is_the_plain_one_of_its_values_or_shorter(
        bytes in prop::collection::vec(any::<u8>(), 0..40), count in 1usize..5_000
    ) {
        if let Ok(values) = decoded(&bytes, count) {
            let plain = cbor::to_vec(&plain(&values));
            prop_assert!(bytes == plain || (bytes[1] == TAG_PCO && bytes.len() < plain.len()));
        }
    }

    #[test]
    fn a_compressed_column_with_changed_bytes_is_values_or_a_typed_error(
        at in any::<prop::sample::Index>(), to: u8, scale in prop::sample::select(&[1i64, 100_000, 1 << 40][..])
    ) {
        let values: Vec<i64> = walk(600).iter().map(|value| value * scale).collect();
        let mut bits = pco_of(&values);
        let at = at.index(bits.bytes.len());
        bits.bytes.to_mut()[at] = to;
        if let Ok(values) = read(&Column::Pco(bits.clone()), 600) {
            prop_assert_eq!(values.len(), 600);
            prop_assert!(cbor::to_vec(&Column::Pco(bits)).len() < cbor::to_vec(&plain(&values)).len());
        }
    }
}
