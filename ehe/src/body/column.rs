//! A column of integers, in the shortest of its forms.
//!
//! | form | CBOR | for |
//! |---|---|---|
//! | constant | `value` | all equal |
//! | step | `[0, start, step]` | a clock that ticks evenly |
//! | packed | `[1, base, width, bits]` | values near each other: each is `base` plus `width` bits |
//! | delta | `[2, start, base, width, bits]` | values that drift: each is its predecessor plus `base` plus `width` bits |
//! | pco | `[3, base, width, chunk]` | 256 values and more: each is `base` plus a number of `width` bits from a chunk of pco's |
//!
//! The count stands outside. `bits` holds unsigned numbers of `width` (1 to 64) bits, the first in the lowest bits of the first
//! byte; the bits left over are zero. Sums wrap at 64 bits, so that every column has a form. The first four are *plain*: values
//! have exactly one plain encoding, the first form of the table that can hold them, delta only if it is strictly shorter than
//! packed, `base` the smallest, `width` the narrowest. pco stands only where it is strictly shorter than the plain encoding.

mod bits;
mod pcodec;

use std::borrow::Cow;

use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};

use crate::limits::COLUMN_PCO_VALUES_MIN;

const TAG_STEP: u8 = 0;
const TAG_PACKED: u8 = 1;
const TAG_DELTA: u8 = 2;
const TAG_PCO: u8 = 3;

/// Why a column is not one of `count` values. The sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// A width outside 1 to 64, or for pco other than 16, 32 and 64.
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
    /// Not a chunk of pco's as this format uses them.
    #[error("a compressed column: {0}")]
    Pco(&'static str),
    /// The right values in another than their one allowed form.
    #[error("a column in another than its one allowed form")]
    NotCanonical,
}

/// An encoded column. [`Column::of`] makes it, [`Column::read`] reads it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Column<'b> {
    Constant(i64),
    Step { start: i64, step: i64 },
    Packed(Bits<'b>),
    Delta { start: i64, deltas: Bits<'b> },
    Pco(Bits<'b>),
}

/// Unsigned numbers of equal width, each counted from `base`: packed, or a chunk of pco's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits<'b> {
    base: i64,
    width: u8,
    bytes: Cow<'b, [u8]>,
}

/// What decides the form of a column: found in one pass over its values.
struct Profile {
    start: i64,
    /// Smallest and largest value.
    values: (i64, i64),
    /// Smallest and largest distance to the value before, wrapped at 64 bits.
    steps: (i64, i64),
    count: usize,
}

impl Profile {
    /// No values count as the constant 0.
    fn of(values: &[i64]) -> Self {
        let (&start, rest) = values.split_first().unwrap_or((&0, &[]));
        let mut before = start;
        let (mut low, mut high) = (start, start);
        let (mut down, mut up) = (i64::MAX, i64::MIN);
        for &value in rest {
            (low, high) = (low.min(value), high.max(value));
            let step = value.wrapping_sub(before);
            (down, up) = (down.min(step), up.max(step));
            before = value;
        }
        if rest.is_empty() {
            (down, up) = (0, 0);
        }
        Self { start, values: (low, high), steps: (down, up), count: values.len() }
    }

    /// The plain form of the values, and where it is delta or packed, the bytes that it takes behind tag and array head.
    fn plain(&self) -> (Plain, usize) {
        if self.steps.0 == self.steps.1 {
            let step = self.steps.0;
            return (if step == 0 { Plain::Constant } else { Plain::Step(step) }, 0);
        }
        let (base, width) = narrowest(self.values);
        let packed = bits_len(base, width, bits::packed_len(self.count, width));
        let (step, step_width) = narrowest(self.steps);
        let delta = bits_len(step, step_width, bits::packed_len(self.count - 1, step_width)) + integer_len(self.start);
        if delta < packed { (Plain::Delta(step, step_width), delta) } else { (Plain::Packed(base, width), packed) }
    }

    /// How far the largest value lies above the smallest.
    fn distance(&self) -> u64 {
        self.values.1.wrapping_sub(self.values.0).cast_unsigned()
    }
}

/// Form of a plain column, with its step or its base and width.
enum Plain {
    Constant,
    Step(i64),
    Packed(i64, u8),
    Delta(i64, u8),
}

/// Base and width of numbers between two bounds that differ.
fn narrowest((low, high): (i64, i64)) -> (i64, u8) {
    let bits = 64 - high.wrapping_sub(low).leading_zeros();
    (low, u8::try_from(bits).unwrap_or(64))
}

impl Column<'static> {
    /// The encoding of `values`: plain, or where there are many and it is shorter, pco's.
    pub(super) fn of(values: &[i64]) -> Self {
        let profile = Profile::of(values);
        let (form, plain_len) = profile.plain();
        if values.len() >= COLUMN_PCO_VALUES_MIN && matches!(form, Plain::Packed(..) | Plain::Delta(..)) {
            let (base, width) = (profile.values.0, pcodec::width_of(profile.distance()));
            if let Some(chunk) = pcodec::compress(values, base, width)
                && bits_len(base, width, chunk.len()) < plain_len
            {
                return Column::Pco(Bits { base, width, bytes: chunk.into() });
            }
        }
        Self::plain(values, profile.start, &form)
    }

    fn plain(values: &[i64], start: i64, form: &Plain) -> Self {
        let distance = |value: i64, base: i64| value.wrapping_sub(base).cast_unsigned();
        match *form {
            Plain::Constant => Column::Constant(start),
            Plain::Step(step) => Column::Step { start, step },
            Plain::Packed(base, width) => {
                let distances = values.iter().map(|value| distance(*value, base));
                Column::Packed(Bits { base, width, bytes: bits::pack(distances, width).into() })
            }
            Plain::Delta(base, width) => {
                let steps = values.iter().zip(values.iter().skip(1)).map(|(before, value)| value.wrapping_sub(*before));
                let bytes = bits::pack(steps.map(|step| distance(step, base)), width).into();
                Column::Delta { start, deltas: Bits { base, width, bytes } }
            }
        }
    }
}

impl Column<'_> {
    /// Appends its `count` values, at least one. The caller has held `count` against its limit; nothing is allocated before the
    /// lengths agree, and a column in another form than its values' one is refused.
    pub(super) fn read(&self, count: usize, values: &mut Vec<i64>) -> Result<(), ColumnError> {
        let from = values.len();
        match self {
            Column::Constant(value) => {
                values.resize(from + count, *value);
                return Ok(());
            }
            Column::Step { start, step } => {
                if *step == 0 || count < 2 {
                    return Err(ColumnError::NotCanonical);
                }
                values.extend(
                    core::iter::successors(Some(*start), |before| Some(before.wrapping_add(*step))).take(count),
                );
                return Ok(());
            }
            Column::Packed(Bits { base, width, bytes }) => {
                check_bits(bytes, *width, count)?;
                bits::unpack(bytes, *width, count, |number| values.push(base.wrapping_add(number.cast_signed())));
            }
            Column::Delta { start, deltas: Bits { base, width, bytes } } => {
                let steps = count.saturating_sub(1);
                check_bits(bytes, *width, steps)?;
                let mut value = *start;
                values.push(value);
                bits::unpack(bytes, *width, steps, |number| {
                    value = value.wrapping_add(base.wrapping_add(number.cast_signed()));
                    values.push(value);
                });
            }
            Column::Pco(Bits { base, width, bytes }) => {
                if count < COLUMN_PCO_VALUES_MIN {
                    return Err(ColumnError::NotCanonical);
                }
                pcodec::decompress(bytes, *base, *width, count, values)?;
            }
        }
        if self.is_form_of(&Profile::of(values.get(from..).unwrap_or_default())) {
            Ok(())
        } else {
            Err(ColumnError::NotCanonical)
        }
    }

    /// Whether values of this profile are to be encoded in this column's form, base and width.
    fn is_form_of(&self, profile: &Profile) -> bool {
        let (form, plain_len) = profile.plain();
        match (self, form) {
            (Column::Packed(bits), Plain::Packed(base, width)) => (bits.base, bits.width) == (base, width),
            (Column::Delta { deltas, .. }, Plain::Delta(base, width)) => (deltas.base, deltas.width) == (base, width),
            (Column::Pco(bits), Plain::Packed(..) | Plain::Delta(..)) => {
                bits.base == profile.values.0
                    && bits.width == pcodec::width_of(profile.distance())
                    && bits_len(bits.base, bits.width, bits.bytes.len()) < plain_len
            }
            _ => false,
        }
    }
}

/// Whether `bytes` can be `count` numbers of `width` bits.
fn check_bits(bytes: &[u8], width: u8, count: usize) -> Result<(), ColumnError> {
    if !(1..=64).contains(&width) {
        return Err(ColumnError::Width { width });
    }
    let (expected, found) = (bits::packed_len(count, width), bytes.len());
    if expected != found {
        return Err(ColumnError::Length { expected, found });
    }
    if bits::spare_bits_are_zero(bytes, width, count) { Ok(()) } else { Err(ColumnError::NotCanonical) }
}

/// Bytes that base, width and a string of `len` bytes take in CBOR.
fn bits_len(base: i64, width: u8, len: usize) -> usize {
    let head = head_len(u64::try_from(len).unwrap_or(u64::MAX));
    integer_len(base) + integer_len(i64::from(width)) + head + len
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

impl<C> Encode<C> for Column<'_> {
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
            Column::Pco(Bits { base, width, bytes }) => {
                e.array(4)?.u8(TAG_PCO)?.i64(*base)?.u8(*width)?.bytes(bytes)?.ok()
            }
        }
    }
}

impl<'b, C> Decode<'b, C> for Column<'b> {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        if d.datatype()? != minicbor::data::Type::Array {
            return Ok(Column::Constant(d.i64()?));
        }
        let length = d.array()?;
        let bits = |d: &mut Decoder<'b>| -> Result<Bits<'b>, decode::Error> {
            Ok(Bits { base: d.i64()?, width: d.u8()?, bytes: d.bytes()?.into() })
        };
        match (length, d.u8()?) {
            (Some(3), TAG_STEP) => Ok(Column::Step { start: d.i64()?, step: d.i64()? }),
            (Some(4), TAG_PACKED) => Ok(Column::Packed(bits(d)?)),
            (Some(5), TAG_DELTA) => Ok(Column::Delta { start: d.i64()?, deltas: bits(d)? }),
            (Some(4), TAG_PCO) => Ok(Column::Pco(bits(d)?)),
            _ => Err(decode::Error::message("unknown form of a column")),
        }
    }
}

#[cfg(test)]
mod tests;
