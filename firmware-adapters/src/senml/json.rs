//! SenML in JSON (RFC 8428 section 5).

use ehe::decimal::Decimal;
use serde_json::{Map, Value};

use super::Number;
use super::resolve::{Raw, at, must_understand};
use crate::error::AdapterError;
use crate::json::document::{kind, parse};

/// Hands each record of a pack to `each`.
pub(super) fn records(input: &[u8], mut each: impl FnMut(Raw) -> Result<(), AdapterError>) -> Result<(), AdapterError> {
    let records = match parse(input)? {
        Value::Array(records) => records,
        other => return Err(wrong("$".to_owned(), "an array of records", &other)),
    };
    for (index, record) in records.into_iter().enumerate() {
        let Value::Object(members) = record else { return Err(wrong(format!("[{index}]"), "a record", &record)) };
        each(Reader { index, members }.record()?)?;
    }
    Ok(())
}

fn wrong(path: String, expected: &'static str, found: &Value) -> AdapterError {
    AdapterError::Type { path, expected, found: kind(found) }
}

struct Reader {
    index: usize,
    members: Map<String, Value>,
}

impl Reader {
    fn record(mut self) -> Result<Raw, AdapterError> {
        let raw = Raw {
            bn: self.text("bn")?,
            bt: self.number("bt")?,
            bu: self.text("bu")?,
            bv: self.number("bv")?,
            bs: self.number("bs")?,
            bver: self.number("bver")?,
            n: self.text("n")?,
            u: self.text("u")?,
            v: self.number("v")?,
            vs: self.text("vs")?,
            vb: self.truth("vb")?,
            vd: self.data("vd")?,
            s: self.number("s")?,
            t: self.number("t")?,
            ut: self.number("ut")?,
            more: Map::new(),
        };
        if let Some(error) = self.members.keys().find_map(|label| must_understand(label)) {
            return Err(error);
        }
        Ok(Raw { more: self.members, ..raw })
    }

    fn text(&mut self, label: &str) -> Result<Option<String>, AdapterError> {
        match self.members.remove(label) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(at(self.index, label), "text", &other)),
        }
    }

    fn number(&mut self, label: &str) -> Result<Option<Number>, AdapterError> {
        match self.members.remove(label) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_str().parse::<Decimal>() {
                Ok(number) => Ok(Some(Number::Finite(number))),
                Err(problem) => Err(AdapterError::Number { path: at(self.index, label), problem }),
            },
            Some(other) => Err(wrong(at(self.index, label), "a number", &other)),
        }
    }

    fn truth(&mut self, label: &str) -> Result<Option<bool>, AdapterError> {
        match self.members.remove(label) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(truth)),
            Some(other) => Err(wrong(at(self.index, label), "true or false", &other)),
        }
    }

    /// Base64 with the URL-safe alphabet, without padding.
    fn data(&mut self, label: &str) -> Result<Option<String>, AdapterError> {
        let Some(text) = self.text(label)? else { return Ok(None) };
        let alphabet = text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        if !alphabet || text.len() % 4 == 1 {
            let problem = "not base64 with the URL-safe alphabet and without padding".to_owned();
            return Err(AdapterError::Invalid { path: at(self.index, label), problem });
        }
        Ok(Some(text))
    }
}
