//! Units as senders write them, in UCUM, and exact conversion between units of one quantity.
//!
//! A stored reading keeps its sender's unit and digits. Conversion happens once, where a value is shown or judged
//! ([`crate::vital::Vital::canonical`]).

use crate::coded::coded;
use crate::decimal::{Decimal, DecimalError, div_half_even};

/// Digits after the point that a conversion keeps where the exact result has no end (1 kPa = 7.500615758… mm\[Hg\]).
const CONVERSION_DECIMALS: i32 = 9;

/// What is measured: only units of the same quantity convert into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum Quantity {
    Rate,
    Fraction,
    Temperature,
    Mass,
    Length,
    MassPerArea,
    Pressure,
    MassConcentration,
    AmountConcentration,
    Time,
    Energy,
    Power,
    Count,
    StepRate,
    Speed,
    Resistance,
}

/// `base = (value + offset) · factor / divisor`, in the quantity's base unit.
struct Scale {
    offset: Decimal,
    factor: Decimal,
    divisor: i64,
}

/// One line a unit: `code Variant "UCUM", Quantity, factor to the quantity's base unit`.
macro_rules! units {
    ($($(#[$meta:meta])* $code:literal $variant:ident $ucum:literal, $quantity:ident, $scale:expr;)+) => {
        coded! {
            /// A unit. Its text (`as_str`, `Display`, `FromStr`, serde) is the case-sensitive UCUM code.
            Unit: u16 = "unit (UCUM code)" {
                $(#[doc = concat!("`", $ucum, "`")] $(#[$meta])* $code $variant $ucum,)+
            }
        }

        impl Unit {
            /// What it measures.
            pub const fn quantity(self) -> Quantity {
                match self { $(Unit::$variant => Quantity::$quantity,)+ }
            }

            fn scale(self) -> Scale {
                match self { $(Unit::$variant => $scale,)+ }
            }
        }
    };
}

const fn times(mantissa: i64, exponent: i8) -> Scale {
    Scale { offset: Decimal::ZERO, factor: Decimal::new(mantissa, exponent), divisor: 1 }
}

const BASE: Scale = times(1, 0);

units! {
    1 PerMinute "/min", Rate, BASE;
    2 BeatsPerMinute "{beats}/min", Rate, BASE;
    3 BreathsPerMinute "{breaths}/min", Rate, BASE;
    4 Hertz "Hz", Rate, times(60, 0);
    5 Percent "%", Fraction, BASE;
    6 Unity "1", Fraction, times(100, 0);
    7 Celsius "Cel", Temperature, BASE;
    8 Fahrenheit "[degF]", Temperature, Scale { offset: Decimal::new(-32, 0), factor: Decimal::new(5, 0), divisor: 9 };
    9 Kelvin "K", Temperature, Scale { offset: Decimal::new(-27_315, -2), factor: Decimal::ONE, divisor: 1 };
    10 Kilogram "kg", Mass, BASE;
    11 Gram "g", Mass, times(1, -3);
    12 Pound "[lb_av]", Mass, times(45_359_237, -8);
    13 Stone "[stone_av]", Mass, times(635_029_318, -8);
    14 Metre "m", Length, BASE;
    15 Centimetre "cm", Length, times(1, -2);
    16 Millimetre "mm", Length, times(1, -3);
    17 Kilometre "km", Length, times(1, 3);
    18 Inch "[in_i]", Length, times(254, -4);
    19 Foot "[ft_i]", Length, times(3_048, -4);
    20 Mile "[mi_i]", Length, times(1_609_344, -3);
    21 KilogramPerSquareMetre "kg/m2", MassPerArea, BASE;
    /// 133.322387415 Pa by definition.
    22 MillimetreOfMercury "mm[Hg]", Pressure, BASE;
    23 Kilopascal "kPa", Pressure, Scale { offset: Decimal::ZERO, factor: Decimal::new(1, 12), divisor: 133_322_387_415 };
    24 MilligramPerDecilitre "mg/dL", MassConcentration, BASE;
    25 GramPerLitre "g/L", MassConcentration, times(100, 0);
    26 KilogramPerLitre "kg/L", MassConcentration, times(1, 5);
    27 MillimolePerLitre "mmol/L", AmountConcentration, BASE;
    28 MolePerLitre "mol/L", AmountConcentration, times(1, 3);
    29 Second "s", Time, BASE;
    30 Millisecond "ms", Time, times(1, -3);
    31 Minute "min", Time, times(60, 0);
    32 Hour "h", Time, times(3_600, 0);
    33 Day "d", Time, times(86_400, 0);
    34 Kilocalorie "kcal", Energy, BASE;
    /// The thermochemical calorie, 4.184 J, as UCUM's `cal`.
    35 Kilojoule "kJ", Energy, Scale { offset: Decimal::ZERO, factor: Decimal::new(1, 3), divisor: 4_184 };
    36 KilocaloriePerDay "kcal/d", Power, BASE;
    37 KilojoulePerDay "kJ/d", Power, Scale { offset: Decimal::ZERO, factor: Decimal::new(1, 3), divisor: 4_184 };
    38 Steps "{steps}", Count, BASE;
    39 StepsPerMinute "{steps}/min", StepRate, BASE;
    40 MetrePerSecond "m/s", Speed, BASE;
    41 KilometrePerHour "km/h", Speed, Scale { offset: Decimal::ZERO, factor: Decimal::new(10, 0), divisor: 36 };
    42 Ohm "Ohm", Resistance, BASE;
    43 Pascal "Pa", Pressure, Scale { offset: Decimal::ZERO, factor: Decimal::new(1, 9), divisor: 133_322_387_415 };
    44 Joule "J", Energy, Scale { offset: Decimal::ZERO, factor: Decimal::new(1, 0), divisor: 4_184 };
    45 Ounce "[oz_av]", Mass, times(28_349_523_125, -12);
    46 Yard "[yd_i]", Length, times(9_144, -4);
    47 Week "wk", Time, times(604_800, 0);
    48 Milligram "mg", Mass, times(1, -6);
}

/// Spellings that devices and clouds use for a unit, beside its UCUM code.
const SPELLINGS: &[(&str, Unit)] = &[
    ("bpm", Unit::PerMinute),
    ("1/min", Unit::PerMinute),
    ("beat/min", Unit::PerMinute),
    ("beats/min", Unit::PerMinute),
    ("breaths/min", Unit::PerMinute),
    ("beats/minute", Unit::PerMinute),
    ("breaths/minute", Unit::PerMinute),
    ("count/min", Unit::PerMinute),
    ("rpm", Unit::PerMinute),
    ("percent", Unit::Percent),
    ("C", Unit::Celsius),
    ("°C", Unit::Celsius),
    ("degC", Unit::Celsius),
    ("celsius", Unit::Celsius),
    ("F", Unit::Fahrenheit),
    ("°F", Unit::Fahrenheit),
    ("degF", Unit::Fahrenheit),
    ("fahrenheit", Unit::Fahrenheit),
    ("lb", Unit::Pound),
    ("lbs", Unit::Pound),
    ("oz", Unit::Ounce),
    ("st", Unit::Stone),
    ("in", Unit::Inch),
    ("ft", Unit::Foot),
    ("mi", Unit::Mile),
    ("yd", Unit::Yard),
    ("kg/m^2", Unit::KilogramPerSquareMetre),
    ("mmHg", Unit::MillimetreOfMercury),
    ("mm Hg", Unit::MillimetreOfMercury),
    ("mg/dl", Unit::MilligramPerDecilitre),
    ("mmol/l", Unit::MillimolePerLitre),
    ("sec", Unit::Second),
    ("steps", Unit::Steps),
    ("km/hr", Unit::KilometrePerHour),
    ("ohm", Unit::Ohm),
];

impl Unit {
    /// The unit that a sender means: its UCUM code, or a spelling in common use (`bpm`, `mmHg`, `°F`, `lbs`).
    pub fn from_sender(text: &str) -> Option<Self> {
        Self::from_ucum(text)
            .or_else(|| SPELLINGS.iter().find(|(spelling, _)| *spelling == text).map(|(_, unit)| *unit))
    }

    /// The unit of a UCUM code. An annotation in braces beside a unit says what was counted, not how: `{beat}/min` is `/min`.
    pub fn from_ucum(code: &str) -> Option<Self> {
        code.parse().ok().or_else(|| {
            let (before, rest) = code.split_once('{')?;
            let (_, after) = rest.split_once('}')?;
            let plain = format!("{before}{after}");
            if plain.contains(['{', '}']) || plain.is_empty() { None } else { plain.parse().ok() }
        })
    }

    /// `value` of this unit in `to`; `None` if the two measure different quantities.
    ///
    /// Exact wherever the result is a finite decimal number, else rounded half to even at the ninth decimal.
    pub fn convert(self, value: Decimal, to: Unit) -> Option<Result<Decimal, DecimalError>> {
        if self.quantity() != to.quantity() {
            return None;
        }
        if self == to {
            return Some(Ok(value));
        }
        Some(convert(value, &self.scale(), &to.scale()).ok_or(DecimalError::Overflow))
    }
}

fn convert(value: Decimal, from: &Scale, to: &Scale) -> Option<Decimal> {
    let (sum, exponent) = add(value, from.offset)?;
    let numerator = sum.checked_mul(i128::from(from.factor.mantissa()))?.checked_mul(i128::from(to.divisor))?;
    let denominator = i128::from(to.factor.mantissa()).checked_mul(i128::from(from.divisor))?;
    let exponent = exponent + i32::from(from.factor.exponent()) - i32::from(to.factor.exponent());
    let base = ratio(numerator, denominator, exponent, i32::from(value.exponent()).min(0))?;
    let (result, exponent) = add(base, Decimal::new(to.offset.mantissa().checked_neg()?, to.offset.exponent()))?;
    Decimal::from_parts(result, exponent).ok()
}

/// `numerator / denominator · 10^exponent`; zeros at the end are dropped down to `keep_exponent`.
fn ratio(numerator: i128, denominator: i128, exponent: i32, keep_exponent: i32) -> Option<Decimal> {
    let more_digits = if denominator == 1 { 0 } else { u32::try_from(exponent + CONVERSION_DECIMALS).unwrap_or(0) };
    let scaled = numerator.checked_mul(10i128.checked_pow(more_digits)?)?;
    let mut mantissa = div_half_even(scaled, denominator);
    let mut exponent = exponent.checked_sub_unsigned(more_digits)?;
    while exponent < keep_exponent && mantissa % 10 == 0 {
        mantissa /= 10;
        exponent += 1;
    }
    Decimal::from_parts(mantissa, exponent).ok()
}

/// The exact sum, as mantissa and exponent.
fn add(a: Decimal, b: Decimal) -> Option<(i128, i32)> {
    if b.mantissa() == 0 {
        return Some((i128::from(a.mantissa()), i32::from(a.exponent())));
    }
    let exponent = i32::from(a.exponent().min(b.exponent()));
    let scaled = |x: Decimal| {
        let up = u32::try_from(i32::from(x.exponent()) - exponent).ok()?;
        i128::from(x.mantissa()).checked_mul(10i128.checked_pow(up)?)
    };
    Some((scaled(a)?.checked_add(scaled(b)?)?, exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_unit(value: &str, from: Unit, to: Unit) -> String {
        from.convert(value.parse().unwrap(), to).unwrap().unwrap().to_string()
    }

    #[test]
    fn conversions_are_exact_where_decimals_allow_it() {
        for (value, from, to, want) in [
            ("98.6", Unit::Fahrenheit, Unit::Celsius, "37.0"),
            ("104", Unit::Fahrenheit, Unit::Celsius, "40"),
            ("99.0", Unit::Fahrenheit, Unit::Celsius, "37.222222222"),
            ("310.15", Unit::Kelvin, Unit::Celsius, "37.00"),
            ("154.3", Unit::Pound, Unit::Kilogram, "69.989302691"),
            ("16", Unit::Kilopascal, Unit::MillimetreOfMercury, "120.009852135"),
            ("0.97", Unit::Unity, Unit::Percent, "97"),
            ("7.5", Unit::Hour, Unit::Minute, "450.0"),
            ("0.8", Unit::Second, Unit::Millisecond, "800"),
            ("71", Unit::Inch, Unit::Centimetre, "180.34"),
            ("4.184", Unit::Kilojoule, Unit::Kilocalorie, "1.000"),
            ("16000", Unit::Pascal, Unit::MillimetreOfMercury, "120.009852135"),
            ("16", Unit::Ounce, Unit::Pound, "1"),
            ("4184", Unit::Joule, Unit::Kilocalorie, "1"),
            ("10.8", Unit::KilometrePerHour, Unit::MetrePerSecond, "3.0"),
        ] {
            let got = in_unit(value, from, to);
            assert_eq!(got.parse::<Decimal>().unwrap(), want.parse().unwrap(), "{value} {from} in {to}: {got}");
        }
        assert_eq!(in_unit("98.6", Unit::Fahrenheit, Unit::Celsius), "37.0");
        assert_eq!(in_unit("36.40", Unit::Celsius, Unit::Celsius), "36.40");
        assert!(Unit::Kilogram.convert(Decimal::ONE, Unit::Celsius).is_none());
    }

    #[test]
    fn a_unit_is_known_by_ucum_code_and_by_common_spellings() {
        assert_eq!("[degF]".parse(), Ok(Unit::Fahrenheit));
        assert!("mmHg".parse::<Unit>().is_err());
        assert_eq!(Unit::from_sender("mmHg"), Some(Unit::MillimetreOfMercury));
        assert_eq!(Unit::from_sender("mm[Hg]"), Some(Unit::MillimetreOfMercury));
        assert_eq!(Unit::from_sender("furlong"), None);
        assert_eq!(Unit::from_ucum("{heart beats}/min"), Some(Unit::PerMinute));
        assert_eq!(Unit::from_ucum("mm[Hg]{sitting}"), Some(Unit::MillimetreOfMercury));
        for no_unit in ["{score}", "{a}{b}/min", "}kg{", "{kg", "mmHg"] {
            assert_eq!(Unit::from_ucum(no_unit), None, "{no_unit}");
        }
        for unit in Unit::ALL {
            assert_eq!(unit.as_str().parse(), Ok(*unit));
            assert_eq!(Unit::from_code(unit.code()), Some(*unit));
        }
    }

    proptest! {
        #[test]
        fn any_value_converts_or_is_refused_without_panic(mantissa: i64, exponent: i8, from in 0..Unit::ALL.len(), to in 0..Unit::ALL.len()) {
            let _ = Unit::ALL[from].convert(Decimal::new(mantissa, exponent), Unit::ALL[to]);
        }
    }
}
