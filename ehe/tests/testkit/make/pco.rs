//! B4 to B6: columns that pco compressed.

use ::pco::data_types::Number;
use ::pco::wrapped::FileCompressor;
use ::pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};
use ehe::reading::Reading;
use serde_json::json;

use super::Kit;
use super::bodies::{bits, encoded, heart_rates, of, packed, with};
use crate::json::h;
use crate::value::Cbor;

const FOLDER: &str = "vitals";

pub(super) fn cases(kit: &mut Kit) {
    compressed(kit);
}

/// A chunk of pco's over these numbers or their differences of an order, in the wrapped format.
fn chunk<T: Number>(numbers: &[T], order: usize) -> Vec<u8> {
    let delta = if order == 0 { DeltaSpec::NoOp } else { DeltaSpec::TryConsecutive(order) };
    let config = ChunkConfig::default()
        .with_compression_level(8)
        .with_mode_spec(ModeSpec::Classic)
        .with_delta_spec(delta)
        .with_paging_spec(PagingSpec::Exact(vec![numbers.len()]));
    let file = FileCompressor::default();
    let mut chunk = file.chunk_compressor(numbers, &config).unwrap();
    let bytes = file.write_header(Vec::new()).unwrap();
    let bytes = chunk.write_meta(bytes).unwrap();
    chunk.write_page(0, bytes).unwrap()
}

fn form_3(base: i128, width: i128, chunk: Vec<u8>) -> Cbor {
    Cbor::Array(vec![Cbor::Int(3), Cbor::Int(base), Cbor::Int(width), Cbor::Bytes(chunk)])
}

/// Heart rates that lie close together but for one in sixty-four: pco is much shorter than packed bits.
fn skewed(count: u32) -> Vec<u16> {
    (0..count).map(|i| if i % 64 == 63 { 240 } else { u16::try_from(i * 7 % 5 % 3).unwrap() }).collect()
}

fn compressed(kit: &mut Kit) {
    let rates = |numbers: &[u16]| heart_rates(&numbers.iter().map(|n| i64::from(*n) + 60).collect::<Vec<_>>());
    let numbers = skewed(300);
    let readings = rates(&numbers);
    let plain = |numbers: &[u16]| {
        let width = 8;
        packed(60, 8, &bits(&numbers.iter().map(|n| u64::from(*n)).collect::<Vec<_>>(), width))
    };
    let good = encoded(&readings);
    assert!(
        matches!(of(&mut Cbor::parse(&good), 16), Cbor::Array(items) if items[0] == Cbor::Int(3)),
        "pco is shorter here"
    );
    kit.case(FOLDER, "B4", "ok-pco", "300 heart rates, compressed by pco", "vitals")
        .input(json!({"body": h(&good)}))
        .valid();
    let body = with(&readings, |b| *of(b, 16) = plain(&numbers));
    kit.case(
        FOLDER,
        "B4",
        "ok-packed-where-pco-may-stand",
        "300 heart rates in packed bits: an author need not use pco",
        "vitals",
    )
    .input(json!({"body": h(body)}))
    .valid();
    let ours = chunk(&numbers, 0);
    let body = with(&readings, |b| *of(b, 16) = form_3(60, 16, ours.clone()));
    assert_eq!(body, good, "the generator makes the same chunk");
    let column = |readings: &[Reading], column: Cbor| with(readings, |b| *of(b, 16) = column);
    let few = skewed(255);
    let even = vec![12u16; 300];
    let noise: Vec<u16> = (0..300u32).map(|i| u16::try_from(i.wrapping_mul(2_654_435_761) >> 25).unwrap()).collect();
    let lifted: Vec<u16> = numbers.iter().map(|n| n + 1).collect();
    let wide: Vec<u32> = numbers.iter().map(|n| u32::from(*n)).collect();
    let minus: Vec<u16> = noise.iter().map(|n| n - noise.iter().min().unwrap()).collect();
    let low = i128::from(*noise.iter().min().unwrap()) + 60;
    // All of them plausible, so of one series: nothing but its length is wrong with the column.
    let noisy = rates(&noise);
    let mut plainly = Cbor::parse(&encoded(&noisy));
    assert_eq!(of(&mut plainly, 8), &Cbor::Int(300));
    let longer = form_3(low, 16, chunk(&minus, 0));
    assert!(longer.to_vec().len() >= of(&mut plainly, 16).to_vec().len());
    for (slug, title, body) in [
        ("pco-below-256", "pco for 255 values", column(&rates(&few), form_3(60, 16, chunk(&few, 0)))),
        (
            "pco-for-constant",
            "pco where all values are equal",
            column(&rates(&even), form_3(72, 16, chunk(&[0u16; 300], 0))),
        ),
        ("pco-not-shorter", "pco where packed bits are shorter", column(&noisy, longer)),
        (
            "pco-base-not-the-smallest",
            "pco over a base below the smallest value",
            column(&readings, form_3(59, 16, chunk(&lifted, 0))),
        ),
        ("pco-wider-than-needed", "pco over 32 bits where 16 do", column(&readings, form_3(60, 32, chunk(&wide, 0)))),
        ("pco-width-8", "pco over 8 bits", column(&readings, form_3(60, 8, ours.clone()))),
    ] {
        kit.case(FOLDER, "B4", slug, title, "vitals").input(json!({"body": h(body)})).invalid();
    }
    let altered = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut chunk = ours.clone();
        change(&mut chunk);
        column(&readings, form_3(60, 16, chunk))
    };
    for (rule, slug, title, body) in [
        ("B5", "pco-format", "a chunk of format 4.0", altered(&|c| c[1] = 0)),
        ("B5", "pco-mode", "a mode other than 0", altered(&|c| c[2] |= 0x01)),
        ("B5", "pco-delta-variant", "a delta variant other than 0 and 1", altered(&|c| c[2] = c[2] & 0x0f | 0x20)),
        ("B5", "pco-delta-order", "second-order deltas", column(&readings, form_3(60, 16, chunk(&numbers, 2)))),
        ("B5", "pco-size-log", "a size log of 11", altered(&|c| c[3] = c[3] & 0xf0 | 11)),
        (
            "B5",
            "pco-no-bins",
            "no bins",
            altered(&|c| {
                c[3] &= 0x0f;
                c[4] = 0;
                c[5] &= 0xf8;
            }),
        ),
        (
            "B5",
            "pco-bins",
            "32,767 bins",
            altered(&|c| {
                c[3] |= 0xf0;
                c[4] = 0xff;
                c[5] |= 0x07;
            }),
        ),
        ("B6", "pco-byte-besides", "a byte after the page", altered(&|c| c.push(0))),
        ("B6", "pco-truncated", "a page without its last byte", altered(&|c| c.truncate(c.len() - 1))),
        ("B6", "pco-header-alone", "a chunk that ends with its header", altered(&|c| c.truncate(2))),
    ] {
        kit.case(FOLDER, rule, slug, title, "vitals").input(json!({"body": h(body)})).invalid();
    }
}
