//! SenML in CBOR (RFC 8428 section 6): labels are small integers, numbers may be binary or decimal fractions.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ehe::decimal::{Decimal, DecimalError};
use minicbor::Decoder;
use minicbor::data::{IanaTag, Tag, Type};
use serde_json::{Map, Value};

use super::Number;
use super::resolve::{Raw, at, must_understand};
use crate::error::{AdapterError, shortened};
use crate::limits::{INPUT_MAX_BYTES, JSON_ELEMENTS_MAX};

/// Labels that have an integer, and stand under no other.
const LABELS: &[(i64, &str)] = &[
    (-6, "bs"),
    (-5, "bv"),
    (-4, "bu"),
    (-3, "bt"),
    (-2, "bn"),
    (-1, "bver"),
    (0, "n"),
    (1, "u"),
    (2, "v"),
    (3, "vs"),
    (4, "vb"),
    (5, "s"),
    (6, "t"),
    (7, "ut"),
    (8, "vd"),
];

/// Hands each record of a pack to `each`.
pub(super) fn records(input: &[u8], mut each: impl FnMut(Raw) -> Result<(), AdapterError>) -> Result<(), AdapterError> {
    if input.len() > INPUT_MAX_BYTES {
        return Err(AdapterError::TooLarge { found: input.len() });
    }
    let mut reader = Reader { d: Decoder::new(input), index: 0 };
    let length = reader.d.array().map_err(malformed)?;
    while reader.more(length, reader.index)? {
        let raw = reader.record()?;
        each(raw)?;
        reader.index += 1;
    }
    if reader.d.position() != input.len() {
        return Err(malformed("bytes after the end of the pack"));
    }
    Ok(())
}

fn malformed(reason: impl ToString) -> AdapterError {
    AdapterError::Malformed { format: "CBOR", reason: reason.to_string() }
}

/// Why a number is none.
enum Problem {
    Cbor(minicbor::decode::Error),
    Decimal(DecimalError),
    Found(Type),
}

impl From<minicbor::decode::Error> for Problem {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Cbor(error)
    }
}

impl From<DecimalError> for Problem {
    fn from(error: DecimalError) -> Self {
        Self::Decimal(error)
    }
}

struct Reader<'b> {
    d: Decoder<'b>,
    /// The record's.
    index: usize,
}

impl Reader<'_> {
    /// Whether an array or map of `length` (`None`: up to a break) has another element after `read`.
    fn more(&mut self, length: Option<u64>, read: usize) -> Result<bool, AdapterError> {
        let another = match length {
            Some(length) => (read as u64) < length,
            None if self.d.datatype().map_err(malformed)? == Type::Break => {
                self.d.skip().map_err(malformed)?;
                false
            }
            None => true,
        };
        if another && read == JSON_ELEMENTS_MAX {
            return Err(AdapterError::TooManyElements);
        }
        Ok(another)
    }

    fn record(&mut self) -> Result<Raw, AdapterError> {
        let length = self.d.map().map_err(malformed)?;
        let mut raw = Raw::default();
        let mut read = 0;
        let mut seen = 0u32;
        while self.more(length, read)? {
            read += 1;
            match self.label()? {
                Label::Known(bit, label) => {
                    if seen & (1 << bit) != 0 {
                        return Err(AdapterError::DuplicateMember { name: label.to_owned() });
                    }
                    seen |= 1 << bit;
                    self.known(label, &mut raw)?;
                }
                Label::Number => self.d.skip().map_err(malformed)?,
                Label::Text(label) => self.other(label, &mut raw.more)?,
            }
        }
        Ok(raw)
    }

    fn label(&mut self) -> Result<Label, AdapterError> {
        if matches!(self.d.datatype().map_err(malformed)?, Type::String | Type::StringIndef) {
            let label = self.text("a label")?;
            if LABELS.iter().any(|(_, known)| *known == label) {
                let problem = format!("the label {label:?} as text; in CBOR it is an integer");
                return Err(AdapterError::Invalid { path: format!("[{}]", self.index), problem });
            }
            return Ok(Label::Text(label));
        }
        let number = i64::try_from(i128::from(self.d.int().map_err(malformed)?)).ok();
        let known = LABELS.iter().enumerate().find(|(_, (known, _))| Some(*known) == number);
        Ok(known.map_or(Label::Number, |(bit, (_, label))| Label::Known(bit, label)))
    }

    fn known(&mut self, label: &'static str, raw: &mut Raw) -> Result<(), AdapterError> {
        match label {
            "bn" => raw.bn = Some(self.text(label)?),
            "bu" => raw.bu = Some(self.text(label)?),
            "n" => raw.n = Some(self.text(label)?),
            "u" => raw.u = Some(self.text(label)?),
            "vs" => raw.vs = Some(self.text(label)?),
            "vb" => raw.vb = Some(self.expect(label, "true or false", |t| t == Type::Bool, |d| d.bool())?),
            "vd" => raw.vd = Some(BASE64_URL_SAFE_NO_PAD.encode(self.bytes(label)?)),
            "bt" => raw.bt = Some(self.number(label)?),
            "bv" => raw.bv = Some(self.number(label)?),
            "bs" => raw.bs = Some(self.number(label)?),
            "bver" => raw.bver = Some(self.number(label)?),
            "v" => raw.v = Some(self.number(label)?),
            "s" => raw.s = Some(self.number(label)?),
            "t" => raw.t = Some(self.number(label)?),
            _ => raw.ut = Some(self.number(label)?),
        }
        Ok(())
    }

    /// A label that RFC 8428 does not have. Simple values are kept for the fields; what is nested is stepped over.
    fn other(&mut self, label: String, more: &mut Map<String, Value>) -> Result<(), AdapterError> {
        if let Some(error) = must_understand(&label) {
            return Err(error);
        }
        let value = match self.d.datatype().map_err(malformed)? {
            Type::Bool => Value::Bool(self.d.bool().map_err(malformed)?),
            Type::String | Type::StringIndef => Value::String(self.text(&label)?),
            _ => {
                self.d.skip().map_err(malformed)?;
                Value::Null
            }
        };
        let name = shortened(&label);
        match more.insert(label, value) {
            None => Ok(()),
            Some(_) => Err(AdapterError::DuplicateMember { name }),
        }
    }

    fn expect<T>(
        &mut self,
        label: &str,
        expected: &'static str,
        is: impl Fn(Type) -> bool,
        read: impl FnOnce(&mut Decoder<'_>) -> Result<T, minicbor::decode::Error>,
    ) -> Result<T, AdapterError> {
        let found = self.d.datatype().map_err(malformed)?;
        if !is(found) {
            return Err(AdapterError::Type { path: at(self.index, label), expected, found: name(found) });
        }
        read(&mut self.d).map_err(malformed)
    }

    fn text(&mut self, label: &str) -> Result<String, AdapterError> {
        let is = |found| matches!(found, Type::String | Type::StringIndef);
        self.expect(label, "text", is, |d| d.str_iter()?.collect::<Result<String, _>>())
    }

    fn bytes(&mut self, label: &str) -> Result<Vec<u8>, AdapterError> {
        let is = |found| matches!(found, Type::Bytes | Type::BytesIndef);
        self.expect(label, "bytes", is, |d| {
            let parts: Vec<&[u8]> = d.bytes_iter()?.collect::<Result<_, _>>()?;
            Ok(parts.concat())
        })
    }

    fn number(&mut self, label: &str) -> Result<Number, AdapterError> {
        let path = || at(self.index, label);
        number(&mut self.d).map_err(|problem| match problem {
            Problem::Cbor(error) => malformed(error),
            Problem::Decimal(problem) => AdapterError::Number { path: path(), problem },
            Problem::Found(found) => AdapterError::Type { path: path(), expected: "a number", found: name(found) },
        })
    }
}

enum Label {
    /// One of [`LABELS`], and its place there.
    Known(usize, &'static str),
    /// An integer that means nothing yet.
    Number,
    /// An extension.
    Text(String),
}

/// Integers, binary numbers of 16, 32 and 64 bits (each is exactly a 64-bit one), and decimal fractions (tag 4).
fn number(d: &mut Decoder<'_>) -> Result<Number, Problem> {
    match d.datatype()? {
        Type::F16 => {
            let at = d.position();
            d.skip()?;
            let bits = d.input().get(at + 1..at + 3).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes);
            Ok(Number::binary(half(bits.unwrap_or(0x7e00)))?)
        }
        Type::F32 => Ok(Number::binary(f64::from(d.f32()?))?),
        Type::F64 => Ok(Number::binary(d.f64()?)?),
        Type::Tag if d.probe().tag()? == Tag::from(IanaTag::Decimal) => {
            d.tag()?;
            decimal_fraction(d)
        }
        _ => Ok(Number::Finite(whole(d)?)),
    }
}

/// `[exponent, mantissa]`
fn decimal_fraction(d: &mut Decoder<'_>) -> Result<Number, Problem> {
    let found = d.datatype()?;
    if d.array()? != Some(2) {
        return Err(Problem::Found(found));
    }
    let exponent = i8::try_from(i128::from(d.int()?)).map_err(|_| DecimalError::Overflow)?;
    let mantissa = whole(d)?;
    // Exactly: the digits that were sent, zeros at the end too.
    Ok(Number::Finite(mantissa.checked_mul(Decimal::new(1, exponent))?))
}

/// An integer, or one of any length (tags 2 and 3) that fits all the same.
fn whole(d: &mut Decoder<'_>) -> Result<Decimal, Problem> {
    let found = d.datatype()?;
    let fits =
        |number: i128| i64::try_from(number).map(Decimal::from).map_err(|_| Problem::Decimal(DecimalError::Overflow));
    match found {
        Type::Tag => {
            let tag = d.tag()?;
            let negative = tag == Tag::from(IanaTag::NegBignum);
            if !negative && tag != Tag::from(IanaTag::PosBignum) || d.datatype()? != Type::Bytes {
                return Err(Problem::Found(Type::Tag));
            }
            let digits = d.bytes()?;
            let start = digits.iter().position(|byte| *byte != 0).unwrap_or(digits.len());
            let digits = digits.get(start..).unwrap_or_default();
            if digits.len() > 8 {
                return Err(Problem::Decimal(DecimalError::Overflow));
            }
            let number = digits.iter().fold(0i128, |number, byte| number << 8 | i128::from(*byte));
            fits(if negative { -1 - number } else { number })
        }
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
            fits(i128::from(d.int()?))
        }
        _ => Err(Problem::Found(found)),
    }
}

/// A 16-bit binary number (IEEE 754): sign, 5 bits of exponent, 10 of fraction.
fn half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3ff);
    let magnitude = match bits >> 10 & 0x1f {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1024.0 + fraction) * 2f64.powi(i32::from(exponent) - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// What a CBOR item is, for messages.
fn name(found: Type) -> &'static str {
    match found {
        Type::Bool => "true or false",
        Type::Null | Type::Undefined => "null",
        Type::Bytes | Type::BytesIndef => "bytes",
        Type::String | Type::StringIndef => "text",
        Type::Array | Type::ArrayIndef => "an array",
        Type::Map | Type::MapIndef => "a map",
        Type::Tag => "a tagged item",
        Type::Simple | Type::Break | Type::Unknown(_) => "a simple value",
        _ => "a number",
    }
}
