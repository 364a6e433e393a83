//! JSON within bounds: size, depth, elements, no member twice. Numbers keep their digits.

use core::cell::RefCell;
use core::fmt;
use std::collections::HashSet;

use ehe::decimal::Decimal;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use crate::Fields;
use crate::error::{AdapterError, shortened};
use crate::limits::{INPUT_MAX_BYTES, JSON_DEPTH_MAX, JSON_ELEMENTS_MAX};

/// Parses one document. The bounds are held against the bytes before anything of the document is kept.
pub(crate) fn parse(input: &[u8]) -> Result<Value, AdapterError> {
    if input.len() > INPUT_MAX_BYTES {
        return Err(AdapterError::TooLarge { found: input.len() });
    }
    let problem = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(input);
    let checked = Check { depth: 0, problem: &problem }.deserialize(&mut reader).and_then(|()| reader.end());
    if let Err(error) = checked {
        return Err(problem.into_inner().unwrap_or_else(|| malformed(&error)));
    }
    serde_json::from_slice(input).map_err(|error| malformed(&error))
}

fn malformed(error: &serde_json::Error) -> AdapterError {
    AdapterError::Malformed { format: "JSON", reason: error.to_string() }
}

/// A decimal as a JSON number, with its digits.
pub(crate) fn number(number: Decimal) -> Number {
    // Display writes what JSON accepts; a test holds it to that.
    number.to_string().parse().unwrap_or_else(|_| Number::from(0))
}

/// What a JSON value is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Walks a value and keeps nothing but, for each object, its names. serde_json shows it a number as an object of one member.
#[derive(Clone, Copy)]
struct Check<'a> {
    depth: usize,
    problem: &'a RefCell<Option<AdapterError>>,
}

impl Check<'_> {
    fn refuse<E: Error>(&self, problem: AdapterError) -> E {
        let error = E::custom(&problem);
        *self.problem.borrow_mut() = Some(problem);
        error
    }

    fn inside<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        // One more than the limit: the innermost may be a number, which looks like an object here.
        if depth > JSON_DEPTH_MAX + 1 {
            return Err(self.refuse(AdapterError::TooDeep));
        }
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        let mut count = 0;
        while elements.next_element_seed(inside)?.is_some() {
            count += 1;
            if count > JSON_ELEMENTS_MAX {
                return Err(self.refuse(AdapterError::TooManyElements));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if names.contains(&name) {
                return Err(self.refuse(AdapterError::DuplicateMember { name: shortened(&name) }));
            }
            if names.len() == JSON_ELEMENTS_MAX {
                return Err(self.refuse(AdapterError::TooManyElements));
            }
            names.insert(name);
            members.next_value_seed(inside)?;
        }
        Ok(())
    }
}

/// A document for a technician: an object, whatever it was.
pub(crate) fn shown(document: Value) -> Fields {
    match document {
        object @ Value::Object(_) => Fields::Json(object),
        other => Fields::Json(serde_json::json!({ "document": other })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(input: &str) -> &'static str {
        parse(input.as_bytes()).unwrap_err().kind()
    }

    #[test]
    fn numbers_keep_their_digits() {
        let value = parse(b" {\"t\": 36.40, \"big\": 123456789012345678901234567890} ").unwrap();
        assert_eq!(value["t"].to_string(), "36.40");
        assert_eq!(value["big"].to_string(), "123456789012345678901234567890");
        assert_eq!(parse(b"72").unwrap().to_string(), "72");
    }

    #[test]
    fn every_decimal_is_a_json_number_with_its_digits() {
        for text in
            ["0", "36.40", "-0.5", "15e2", "1e-20", "9223372036854775807", "-9223372036854775808", "1e127", "1e-128"]
        {
            assert_eq!(number(text.parse().unwrap()).to_string().parse::<Decimal>(), text.parse(), "{text}");
        }
        assert_eq!(number(Decimal::new(3640, -2)).to_string(), "36.40");
    }

    #[test]
    fn a_member_that_stands_twice_is_refused_at_any_depth() {
        assert_eq!(refusal(r#"{"hr": 60, "hr": 61}"#), "duplicate_member");
        assert_eq!(refusal(r#"{"a": [{"hr": 60, "\u0068r": 61}]}"#), "duplicate_member");
        assert!(parse(br#"{"a": {"hr": 60}, "b": {"hr": 61}}"#).is_ok());
    }

    #[test]
    fn depth_size_and_elements_are_bounded() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(refusal(&nested(JSON_DEPTH_MAX + 2)), "too_deep");
        assert_eq!(refusal(&"[".repeat(60_000)), "too_deep");
        let array = |n: usize| format!("[{}0]", "0,".repeat(n - 1));
        assert!(parse(array(JSON_ELEMENTS_MAX).as_bytes()).is_ok());
        assert_eq!(refusal(&array(JSON_ELEMENTS_MAX + 1)), "too_many_elements");
        assert_eq!(refusal(&" ".repeat(INPUT_MAX_BYTES + 1)), "too_large");
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for bad in ["", "{", "{\"hr\": NaN}", "{\"hr\": Infinity}", "{} {}", "{'hr': 1}", "[1,]", "\u{feff}{}"] {
            assert_eq!(refusal(bad), "malformed", "{bad:?}");
        }
        assert!(parse(b"{\"hr\": \"\xff\"}").is_err());
    }
}
