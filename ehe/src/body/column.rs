//! A column of integers, in the shortest of four forms.
//!
//! | form | CBOR | for |
//! |---|---|---|
//! | constant | `value` | all equal |
//! | step | `[0, start, step]` | a clock that ticks evenly |
//! | packed | `[1, base, width, bits]` | values near each other: each is `base` plus `width` bits |
//! | delta | `[2, start, base, width, bits]` | values that drift: each is its predecessor plus `base` plus `width` bits |
//!
//! Tag 3 is kept for `pco`, which pays above some 256 values. The count stands outside. `bits` holds unsigned numbers of `width`
//! (1 to 64) bits, the first in the lowest bits of the first byte; the bits left over are zero. Sums wrap at 64 bits, so that
//! every column has a form. A column has exactly one encoding: the first form of the table that can hold it, delta only if it
//! is strictly shorter than packed, `base` the smallest, `width` the narrowest.

use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};

const TAG_STEP: u8 = 0;
const TAG_PACKED: u8 = 1;
const TAG_DELTA: u8 = 2;

/// Why a column is not one of `count` values. The sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// A width outside 1 to 64.
    #[error("a column whose values are {width} bits wide")]
    Width {
        /// Width found, in bits.
        width: u8,
    },
    /// More or fewer bytes than `count` values of that width take.
    #[error("a column of {found} bytes where its values take {expected}")]
    Length {
        /// Bytes that the values take.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
}

/// An encoded column. [`Column::of`] makes it, [`Column::values`] reads it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Column {
    Constant(i64),
    Step { start: i64, step: i64 },
    Packed(Bits),
    Delta { start: i64, deltas: Bits },
}

/// Unsigned numbers of equal width, each counted from `base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits {
    base: i64,
    width: u8,
    bytes: Vec<u8>,
}

impl Column {
    /// The one encoding of `values`. No values count as the constant 0.
    pub(super) fn of(values: &[i64]) -> Self {
        let Some((&start, rest)) = values.split_first() else { return Column::Constant(0) };
        let deltas: Vec<i64> = values.iter().zip(rest).map(|(before, after)| after.wrapping_sub(*before)).collect();
        let step = deltas.first().copied().unwrap_or(0);
        if deltas.iter().all(|delta| *delta == step) {
            return if step == 0 { Column::Constant(start) } else { Column::Step { start, step } };
        }
        let packed = Bits::of(values);
        let deltas = Bits::of(&deltas);
        if deltas.encoded_len() + integer_len(start) < packed.encoded_len() {
            Column::Delta { start, deltas }
        } else {
            Column::Packed(packed)
        }
    }

    /// Its `count` values. The caller has held `count` against its limit; nothing is allocated before the lengths agree.
    pub(super) fn values(&self, count: usize) -> Result<Vec<i64>, ColumnError> {
        match self {
            Column::Constant(value) => Ok(vec![*value; count]),
            Column::Step { start, step } => Ok(running(*start, core::iter::repeat_n(*step, count.saturating_sub(1)))),
            Column::Packed(bits) => bits.values(count),
            Column::Delta { start, deltas } => Ok(running(*start, deltas.values(count.saturating_sub(1))?.into_iter())),
        }
    }
}

/// `start`, then each predecessor plus the next delta.
fn running(start: i64, deltas: impl Iterator<Item = i64>) -> Vec<i64> {
    let sums = deltas.scan(start, |sum, delta| {
        *sum = sum.wrapping_add(delta);
        Some(*sum)
    });
    core::iter::once(start).chain(sums).collect()
}

impl Bits {
    fn of(values: &[i64]) -> Self {
        let base = values.iter().copied().min().unwrap_or(0);
        let distances = || values.iter().map(|value| value.wrapping_sub(base).cast_unsigned());
        let widest = 64 - distances().max().unwrap_or(0).leading_zeros();
        let width = u8::try_from(widest.max(1)).unwrap_or(64);
        Self { base, width, bytes: pack(distances(), width) }
    }

    fn values(&self, count: usize) -> Result<Vec<i64>, ColumnError> {
        if !(1..=64).contains(&self.width) {
            return Err(ColumnError::Width { width: self.width });
        }
        let expected = (count * usize::from(self.width)).div_ceil(8);
        if expected != self.bytes.len() {
            return Err(ColumnError::Length { expected, found: self.bytes.len() });
        }
        Ok(unpack(&self.bytes, self.width, count).map(|bits| self.base.wrapping_add(bits.cast_signed())).collect())
    }

    /// Bytes that its three members take in CBOR.
    fn encoded_len(&self) -> usize {
        let bytes = self.bytes.len();
        integer_len(self.base)
            + integer_len(i64::from(self.width))
            + head_len(u64::try_from(bytes).unwrap_or(u64::MAX))
            + bytes
    }
}

fn pack(values: impl Iterator<Item = u64>, width: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut pending, mut filled) = (0u128, 0u32);
    for value in values {
        pending |= u128::from(value) << filled;
        filled += u32::from(width);
        while filled >= 8 {
            let [low, ..] = pending.to_le_bytes();
            bytes.push(low);
            pending >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        let [low, ..] = pending.to_le_bytes();
        bytes.push(low);
    }
    bytes
}

fn unpack(bytes: &[u8], width: u8, count: usize) -> impl Iterator<Item = u64> {
    let mask = u64::MAX >> (64 - u32::from(width));
    let mut rest = bytes.iter();
    let (mut pending, mut filled) = (0u128, 0u32);
    (0..count).map(move |_| {
        while filled < u32::from(width) {
            pending |= u128::from(rest.next().copied().unwrap_or(0)) << filled;
            filled += 8;
        }
        let value = u64::try_from(pending & u128::from(mask)).unwrap_or(mask);
        pending >>= width;
        filled -= u32::from(width);
        value
    })
}

/// Bytes that CBOR takes for an integer (RFC 8949 §3).
fn integer_len(value: i64) -> usize {
    head_len((if value < 0 { !value } else { value }).cast_unsigned())
}

/// Bytes that CBOR takes for an unsigned number or for the head of a string of that length.
fn head_len(value: u64) -> usize {
    match value {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

impl<C> Encode<C> for Column {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        match self {
            Column::Constant(value) => e.i64(*value)?.ok(),
            Column::Step { start, step } => e.array(3)?.u8(TAG_STEP)?.i64(*start)?.i64(*step)?.ok(),
            Column::Packed(Bits { base, width, bytes }) => {
                e.array(4)?.u8(TAG_PACKED)?.i64(*base)?.u8(*width)?.bytes(bytes)?.ok()
            }
            Column::Delta { start, deltas: Bits { base, width, bytes } } => {
                e.array(5)?.u8(TAG_DELTA)?.i64(*start)?.i64(*base)?.u8(*width)?.bytes(bytes)?.ok()
            }
        }
    }
}

impl<'b, C> Decode<'b, C> for Column {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        if d.datatype()? != minicbor::data::Type::Array {
            return Ok(Column::Constant(d.i64()?));
        }
        let length = d.array()?;
        let bits = |d: &mut Decoder<'b>| -> Result<Bits, decode::Error> {
            Ok(Bits { base: d.i64()?, width: d.u8()?, bytes: d.bytes()?.to_vec() })
        };
        match (length, d.u8()?) {
            (Some(3), TAG_STEP) => Ok(Column::Step { start: d.i64()?, step: d.i64()? }),
            (Some(4), TAG_PACKED) => Ok(Column::Packed(bits(d)?)),
            (Some(5), TAG_DELTA) => Ok(Column::Delta { start: d.i64()?, deltas: bits(d)? }),
            _ => Err(decode::Error::message("unknown form of a column")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;
    use proptest::prelude::*;

    #[test]
    fn each_kind_of_column_takes_its_shortest_form() {
        assert_eq!(cbor::to_vec(&Column::of(&[7; 1_000])), [0x07]);
        let ticks: Vec<i64> = (0..1_000).map(|i| 1_700_000_000_000 + i * 1_000).collect();
        assert_eq!(cbor::to_vec(&Column::of(&ticks)).len(), 14);
        assert!(matches!(Column::of(&[70, 72, 71, 75]), Column::Packed(Bits { base: 70, width: 3, .. })));
        let jittered: Vec<i64> = ticks.iter().map(|t| t + (t / 1_000) % 7).collect();
        assert!(matches!(Column::of(&jittered), Column::Delta { .. }));
    }

    #[test]
    fn a_column_whose_bytes_do_not_match_its_count_is_refused_before_anything_is_allocated() {
        let column = Column::of(&[1, 5, 2]);
        assert_eq!(column.values(3), Ok(vec![1, 5, 2]));
        assert_eq!(column.values(4_000), Err(ColumnError::Length { expected: 1_500, found: 2 }));
        let wide = Column::Packed(Bits { base: 0, width: 65, bytes: vec![] });
        assert_eq!(wide.values(0), Err(ColumnError::Width { width: 65 }));
        let flat = Column::Packed(Bits { base: 0, width: 0, bytes: vec![] });
        assert_eq!(flat.values(1_000), Err(ColumnError::Width { width: 0 }));
    }

    proptest! {
        #[test]
        fn delta_is_taken_only_where_its_bytes_are_fewer(start: i64, steps in prop::collection::vec(-300i64..900, 3..80)) {
            let values = running(start, steps.into_iter());
            let packed = Column::Packed(Bits::of(&values));
            let deltas: Vec<i64> = values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
            let delta = Column::Delta { start, deltas: Bits::of(&deltas) };
            let shorter = cbor::to_vec(&delta).len() < cbor::to_vec(&packed).len();
            let chosen = Column::of(&values);
            let regular = matches!(chosen, Column::Step { .. } | Column::Constant(_));
            prop_assert!(regular || (chosen == delta) == shorter);
        }

        #[test]
        fn any_values_come_back_through_the_bytes(values in prop_oneof![
            prop::collection::vec(any::<i64>(), 1..70),
            prop::collection::vec(-50i64..50, 1..300),
            (any::<i64>(), any::<i64>(), 1usize..50).prop_map(|(start, step, n)| running(start, core::iter::repeat_n(step, n))),
        ]) {
            let bytes = cbor::to_vec(&Column::of(&values));
            let column: Column = cbor::from_slice(&bytes, 1 << 20).unwrap();
            prop_assert_eq!(column.values(values.len()).unwrap(), values);
        }

        #[test]
        fn any_bytes_are_a_column_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..40), count in 0usize..5_000) {
            if let Ok(column) = cbor::from_slice::<Column>(&bytes, 64) {
                let _ = column.values(count);
            }
        }
    }
}
