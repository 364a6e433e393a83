use super::*;
use proptest::prelude::*;

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

#[test]
fn digits_come_back_as_they_were_sent() {
    for text in ["0", "0.0", "36.40", "-0.5", "120", "1e2", "9223372036854775807", "-9223372036854775808", "0.005"] {
        assert_eq!(decimal(text).to_string(), text);
    }
    assert_eq!(decimal("1.5E+3").to_string(), "15e2");
    assert_eq!(decimal("1e-20").to_string(), "1e-20");
    assert_eq!(decimal("36.40").mantissa(), 3640);
    assert_eq!(decimal("36.40").exponent(), -2);
}

#[test]
fn sums_are_exact_and_keep_the_finer_digits() {
    for (a, b, sum) in [
        ("36.4", "0.05", "36.45"),
        ("20.0", "1", "21.0"),
        ("-5", "5.00", "0.00"),
        ("1.276020076001e9", "-5", "1276020071.001"),
        ("0", "1e2", "100"),
        ("0.0", "3", "3.0"),
    ] {
        for (x, y) in [(a, b), (b, a)] {
            let got = decimal(x).checked_add(decimal(y)).unwrap();
            assert_eq!(got.to_string(), sum, "{x} + {y}");
        }
    }
    assert_eq!(decimal("1e127").checked_add(decimal("1e-128")), Err(DecimalError::Overflow));
    assert_eq!(decimal("9223372036854775807").checked_add(Decimal::ONE), Err(DecimalError::Overflow));
}

#[test]
fn a_binary_number_becomes_its_shortest_decimal() {
    for (value, text) in
        [(36.6, "36.6"), (1.5, "1.5"), (120.0, "120"), (-0.0, "0"), (1e20, "1e20"), (1.5e-7, "0.00000015")]
    {
        assert_eq!(Decimal::from_f64(value).unwrap().unwrap().to_string(), text);
    }
    assert_eq!(Decimal::from_f64(f64::from(36.6f32)).unwrap().unwrap().to_string(), "36.599998474121094");
    assert!(Decimal::from_f64(f64::NAN).is_none() && Decimal::from_f64(f64::INFINITY).is_none());
    assert_eq!(Decimal::from_f64(1e300), Some(Err(DecimalError::Overflow)));
}

#[test]
fn what_is_no_json_number_is_refused() {
    for text in
        ["", "-", "+1", ".5", "1.", "01", "NaN", "Infinity", "-inf", "1e", "1e+", "1e1.0", " 1", "0x1f", "1_000", "١"]
    {
        assert_eq!(text.parse::<Decimal>(), Err(DecimalError::Syntax), "{text:?}");
    }
    for text in ["9223372036854775808", "1e128", "1e-129", "1e99999999999", "0.1e-128"] {
        assert_eq!(text.parse::<Decimal>(), Err(DecimalError::Overflow), "{text:?}");
    }
    assert_eq!("9".repeat(100_000).parse::<Decimal>(), Err(DecimalError::Overflow));
}

#[test]
fn order_is_by_value_over_all_exponents() {
    let ascending =
        ["-1e127", "-3", "-1e-128", "0", "1e-128", "0.1", "36.4", "36.41", "100", "1e127", "9223372036854775807e127"];
    for pair in ascending.windows(2) {
        assert!(decimal(pair[0]) < decimal(pair[1]), "{pair:?}");
    }
    assert_eq!(decimal("36.4"), decimal("36.40"));
    assert!(!decimal("36.4").same_digits(decimal("36.40")));
    assert_eq!(decimal("0e5"), decimal("-0.000"));
    assert_eq!(decimal("1e2"), decimal("100"));
}

#[test]
fn products_are_exact_or_refused() {
    assert_eq!(decimal("36.4").checked_mul(decimal("0.1")).unwrap().to_string(), "3.64");
    assert_eq!(decimal("9e127").checked_mul(decimal("10")).unwrap(), decimal("90e127"));
    assert_eq!(decimal("9223372036854775807").checked_mul(decimal("3")), Err(DecimalError::Overflow));
    assert_eq!(decimal("1e-100").checked_mul(decimal("1e-100")), Err(DecimalError::Overflow));
}

#[test]
fn rounding_is_half_to_even_and_adds_no_digits() {
    for (text, decimals, want) in [
        ("2.5", 0, "2"),
        ("3.5", 0, "4"),
        ("-2.5", 0, "-2"),
        ("36.449", 1, "36.4"),
        ("36.4", 3, "36.4"),
        ("1e2", 0, "1e2"),
        ("9e-128", 0, "0"),
    ] {
        assert_eq!(decimal(text).rounded(decimals).to_string(), want, "{text} to {decimals}");
    }
}

#[test]
fn the_floor_is_the_whole_number_below() {
    for (text, want) in [
        ("0e127", Some(0)),
        ("1.9", Some(1)),
        ("-1.1", Some(-2)),
        ("12e2", Some(1_200)),
        ("1e127", None),
        ("-1e-128", Some(-1)),
        ("7", Some(7)),
    ] {
        assert_eq!(decimal(text).floor(), want, "{text}");
    }
}

#[test]
fn serde_writes_text_and_reads_text_and_configuration_numbers() {
    assert_eq!(serde_json::to_string(&decimal("36.40")).unwrap(), "\"36.40\"");
    assert_eq!(serde_json::from_str::<Decimal>("\"36.40\"").unwrap().to_string(), "36.40");
    let from = serde::de::value::F64Deserializer::<serde::de::value::Error>::new(0.1);
    assert_eq!(<Decimal as serde::Deserialize>::deserialize(from).unwrap(), decimal("0.1"));
    let nan = serde::de::value::F64Deserializer::<serde::de::value::Error>::new(f64::NAN);
    assert!(<Decimal as serde::Deserialize>::deserialize(nan).is_err());
}

proptest! {
    #[test]
    fn every_decimal_is_printed_as_json_and_read_back_digit_for_digit(mantissa: i64, exponent: i8) {
        let value = Decimal::new(mantissa, exponent);
        let text = value.to_string();
        prop_assert!(decimal(&text).same_digits(value), "{}", text);
        let number: serde_json::Number = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(number.to_string().parse::<Decimal>().unwrap(), value);
    }

    #[test]
    fn equal_values_hash_alike(mantissa in -1_000_000i64..1_000_000, exponent in -60i8..60, zeros in 0u32..6) {
        let longer = Decimal::new(mantissa * 10i64.pow(zeros), exponent - i8::try_from(zeros).unwrap());
        let shorter = Decimal::new(mantissa, exponent);
        prop_assert_eq!(longer, shorter);
        let hash = |value: Decimal| {
            let mut hasher = std::hash::DefaultHasher::new();
            value.hash(&mut hasher);
            hasher.finish()
        };
        prop_assert_eq!(hash(longer), hash(shorter));
        prop_assert!(longer.normalized().same_digits(shorter.normalized()));
    }

    #[test]
    fn any_text_is_a_number_or_a_typed_error(text in ".{0,40}") {
        let _ = text.parse::<Decimal>();
    }
}
