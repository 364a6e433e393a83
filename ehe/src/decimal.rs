//! Decimal numbers with the digits that the sender wrote: 36.40 stays 36.40.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::str::FromStr;

/// Longest text that [`Decimal::from_str`] looks at, in bytes.
const TEXT_MAX_BYTES: usize = 64;
/// Below this exponent a number is written with `e`, not with zeros after the point.
const PLAIN_EXPONENT_MIN: i8 = -18;

/// Why a text or a result is not a [`Decimal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not a number in the grammar of JSON (RFC 8259 §6): no sign `+`, no leading zeros, no NaN, no infinity.
    #[error("not a decimal number")]
    Syntax,
    /// More digits than 64 bits hold (18 always fit), or an exponent outside -128..=127.
    #[error("a number with more digits, or larger, than a reading can have")]
    Overflow,
}

/// `mantissa · 10^exponent`, exactly.
///
/// Equality, order and hash are by value (36.4 = 36.40); [`Decimal::same_digits`] tells the two apart. Display gives the
/// digits back as they were sent, always as a number that JSON accepts. A negative zero loses its sign.
#[derive(Clone, Copy, Default)]
pub struct Decimal {
    mantissa: i64,
    exponent: i8,
}

impl Decimal {
    /// 0.
    pub const ZERO: Self = Self::new(0, 0);
    /// 1.
    pub const ONE: Self = Self::new(1, 0);

    /// `mantissa · 10^exponent`: 36.40 is `new(3640, -2)`.
    pub const fn new(mantissa: i64, exponent: i8) -> Self {
        Self { mantissa, exponent }
    }

    /// All digits, the point left out.
    pub const fn mantissa(self) -> i64 {
        self.mantissa
    }

    /// The power of ten: -2 for two digits after the point.
    pub const fn exponent(self) -> i8 {
        self.exponent
    }

    /// Equal in value and in the digits written.
    pub const fn same_digits(self, other: Self) -> bool {
        self.mantissa == other.mantissa && self.exponent == other.exponent
    }

    /// The exact product. The digits are those of schoolbook multiplication (36.40 · 0.5 = 18.200), fewer zeros at the end
    /// only where they would not fit.
    pub fn checked_mul(self, factor: Self) -> Result<Self, DecimalError> {
        let product = i128::from(self.mantissa) * i128::from(factor.mantissa);
        Self::from_parts(product, i32::from(self.exponent) + i32::from(factor.exponent))
    }

    /// The exact sum, with the finer one's digits (36.4 + 0.05 = 36.45; 20.0 + 1 = 21.0). What is 0 adds its digits only.
    pub fn checked_add(self, other: Self) -> Result<Self, DecimalError> {
        if self.mantissa == 0 && self.exponent >= other.exponent {
            return Ok(other);
        }
        if other.mantissa == 0 && other.exponent >= self.exponent {
            return Ok(self);
        }
        let exponent = self.exponent.min(other.exponent);
        let scaled = |number: Self| {
            let up = u32::from(number.exponent.abs_diff(exponent));
            i128::from(number.mantissa).checked_mul(10i128.checked_pow(up)?)
        };
        let sum = scaled(self).zip(scaled(other)).and_then(|(a, b)| a.checked_add(b)).ok_or(DecimalError::Overflow)?;
        Self::from_parts(sum, i32::from(exponent))
    }

    /// The shortest decimal that is this binary number and no other of its kind. `None` for NaN and the infinities.
    pub fn from_f64(value: f64) -> Option<Result<Self, DecimalError>> {
        // `{:e}` writes the shortest digits with an exponent (1.5e-7): never hundreds of zeros.
        value.is_finite().then(|| format!("{value:e}").parse().map(Self::plain))
    }

    /// The same value with exponent 0 where it is a whole number that fits: 12e1 is 120.
    fn plain(self) -> Self {
        let up = u32::try_from(self.exponent).ok().and_then(|up| 10i64.checked_pow(up));
        match up.and_then(|unit| self.mantissa.checked_mul(unit)) {
            Some(mantissa) => Self { mantissa, exponent: 0 },
            None => self,
        }
    }

    /// At most `decimals` digits after the point, rounded half to even; a number with fewer digits is left as it is.
    pub fn rounded(self, decimals: u8) -> Self {
        let drop = -i32::from(self.exponent) - i32::from(decimals);
        let Ok(drop @ 1..) = u32::try_from(drop) else { return self };
        let exponent = i8::try_from(i32::from(self.exponent).saturating_add_unsigned(drop)).unwrap_or(0);
        let mantissa = match 10i128.checked_pow(drop) {
            Some(unit) => div_half_even(i128::from(self.mantissa), unit),
            None => 0, // more than 38 digits dropped from a number of at most 19
        };
        Self { mantissa: i64::try_from(mantissa).unwrap_or(0), exponent }
    }

    /// The largest whole number that is not above it; `None` where that does not fit.
    pub fn floor(self) -> Option<i64> {
        if self.mantissa == 0 {
            return Some(0);
        }
        match u32::try_from(self.exponent) {
            Ok(up) => self.mantissa.checked_mul(10i64.checked_pow(up)?),
            Err(_) => match 10i64.checked_pow(u32::from(self.exponent.unsigned_abs())) {
                Some(unit) => Some(self.mantissa.div_euclid(unit)),
                None => Some(if self.mantissa < 0 { -1 } else { 0 }),
            },
        }
    }

    /// The same value without zeros at the end of the mantissa; 0 has exponent 0.
    pub fn normalized(self) -> Self {
        let (mantissa, exponent) = self.reduced();
        match i8::try_from(exponent) {
            Ok(exponent) => Self { mantissa, exponent },
            Err(_) => self, // 10e127: the shorter form has no exponent that fits
        }
    }

    /// The value with no zeros at the end, as (mantissa, exponent).
    fn reduced(self) -> (i64, i16) {
        let (mut mantissa, mut exponent) = (self.mantissa, i16::from(self.exponent));
        if mantissa == 0 {
            return (0, 0);
        }
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        (mantissa, exponent)
    }

    /// `mantissa · 10^exponent`, zeros at the end dropped only as far as the fields force it.
    pub(crate) fn from_parts(mut mantissa: i128, mut exponent: i32) -> Result<Self, DecimalError> {
        if mantissa == 0 {
            exponent = exponent.clamp(i32::from(i8::MIN), i32::from(i8::MAX));
        }
        while (i64::try_from(mantissa).is_err() || exponent < i32::from(i8::MIN)) && mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        while exponent > i32::from(i8::MAX) {
            mantissa = mantissa.checked_mul(10).ok_or(DecimalError::Overflow)?;
            exponent -= 1;
        }
        let mantissa = i64::try_from(mantissa).map_err(|_| DecimalError::Overflow)?;
        let exponent = i8::try_from(exponent).map_err(|_| DecimalError::Overflow)?;
        Ok(Self { mantissa, exponent })
    }
}

/// `a / b` to the nearest integer, ties to the even one. `b` is positive.
pub(crate) fn div_half_even(a: i128, b: i128) -> i128 {
    let (quotient, remainder) = (a.div_euclid(b), a.rem_euclid(b));
    match remainder.cmp(&(b - remainder)) {
        Ordering::Less => quotient,
        Ordering::Greater => quotient + 1,
        Ordering::Equal => quotient + quotient.rem_euclid(2),
    }
}

impl From<i32> for Decimal {
    fn from(value: i32) -> Self {
        Self::new(i64::from(value), 0)
    }
}

impl From<u32> for Decimal {
    fn from(value: u32) -> Self {
        Self::new(i64::from(value), 0)
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self::new(value, 0)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (i128::from(self.mantissa), i128::from(other.mantissa));
        let signs = a.signum().cmp(&b.signum());
        if signs != Ordering::Equal || a == 0 {
            return signs;
        }
        let difference = i32::from(self.exponent) - i32::from(other.exponent);
        // A 64-bit mantissa times 10^19 fits 128 bits; beyond that the larger exponent wins, whatever the mantissas.
        match (u32::try_from(difference), u32::try_from(-difference)) {
            (Ok(up @ 0..=19), _) => (a * 10i128.pow(up)).cmp(&b),
            (_, Ok(up @ 0..=19)) => a.cmp(&(b * 10i128.pow(up))),
            _ if (difference > 0) == (a > 0) => Ordering::Greater,
            _ => Ordering::Less,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl Hash for Decimal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.reduced().hash(state);
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.mantissa.unsigned_abs().to_string();
        let text = match usize::from(self.exponent.unsigned_abs()) {
            0 => digits,
            _ if self.exponent > 0 || self.exponent < PLAIN_EXPONENT_MIN => format!("{digits}e{}", self.exponent),
            decimals => {
                let padded = format!("{digits:0>width$}", width = decimals + 1);
                let (whole, fraction) = padded.split_at(padded.len() - decimals);
                format!("{whole}.{fraction}")
            }
        };
        f.pad_integral(self.mantissa >= 0, "", &text)
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(if text.bytes().all(|c| c.is_ascii_digit()) {
                DecimalError::Overflow
            } else {
                DecimalError::Syntax
            });
        }
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (number, power) = match rest.split_once(['e', 'E']) {
            Some((number, power)) => (number, Some(power)),
            None => (rest, None),
        };
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (number, None),
        };
        let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if !digits_only(whole) || leading_zero || fraction.is_some_and(|part| !digits_only(part)) {
            return Err(DecimalError::Syntax);
        }
        let power = match power {
            Some(power) if digits_only(power.strip_prefix(['+', '-']).unwrap_or(power)) => {
                power.parse::<i32>().map_err(|_| DecimalError::Overflow)?
            }
            Some(_) => return Err(DecimalError::Syntax),
            None => 0,
        };
        let fraction = fraction.unwrap_or("");
        let mut mantissa: i64 = 0;
        for digit in whole.bytes().chain(fraction.bytes()).map(|c| i64::from(c - b'0')) {
            let digit = if negative { -digit } else { digit };
            mantissa = mantissa.checked_mul(10).and_then(|m| m.checked_add(digit)).ok_or(DecimalError::Overflow)?;
        }
        let decimals = i32::try_from(fraction.len()).map_err(|_| DecimalError::Overflow)?;
        let exponent = power.checked_sub(decimals).and_then(|e| i8::try_from(e).ok()).ok_or(DecimalError::Overflow)?;
        Ok(Self { mantissa, exponent })
    }
}

impl serde::Serialize for Decimal {
    /// As text: a program that wants a JSON number prints [`Display`](fmt::Display) raw.
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Decimal {
    /// From text ("36.40"), or from an integer or float of a configuration file (a float has its shortest digits).
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Decimal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal number, best as text (\"36.40\")")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Decimal, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Decimal, E> {
                Ok(value.into())
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Decimal, E> {
                i64::try_from(value).map(Decimal::from).map_err(|_| E::custom(DecimalError::Overflow))
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Decimal, E> {
                value.to_string().parse().map_err(E::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
