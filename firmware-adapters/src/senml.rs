//! SenML (RFC 8428): packs of records in JSON and in CBOR.
//!
//! A pack is resolved (section 4.6): base fields are applied to what follows them, and times become absolute. Which record is
//! which vital is never guessed: [`Names`] says it by the end of the name and the unit. All records, vital or not, are in the
//! fields.
//!
//! A record that has nothing but base fields sets them and is none itself (RFC 8428 section 5.1.4 has such a pack).

mod cbor;
mod json;
mod names;
mod number;
mod resolve;

use std::sync::Arc;

use ehe::decimal::Decimal;
use ehe::reading::{Reading, ReadingTime, TimeMethod};
use ehe::time::UnixMs;
use serde::Serialize;
use serde_json::{Map, Value};

pub use self::names::{NameConfig, NameError, Names};
pub use self::number::Number;
use self::resolve::Resolver;
use crate::error::{AdapterError, one_alone};
use crate::limits::READINGS_PER_INPUT_MAX;
use crate::receipt::RECEIPT_UNCERTAINTY_MS;
use crate::stamp::Stamp;
use crate::{Adapter, Decoded, Fields, ReceiptContext};

/// How a pack is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/senml+json`
    Json,
    /// `application/senml+cbor`
    Cbor,
}

/// Packs of one encoding.
#[derive(Debug, Clone)]
pub struct SenMl {
    encoding: Encoding,
    names: Arc<Names>,
}

/// The resolved records of a pack, in its order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pack {
    /// One for each record that is more than base fields.
    pub resolved: Vec<Record>,
}

/// A resolved record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Base name and name.
    pub n: String,
    /// Unit, its own or the base unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub u: Option<String>,
    /// Seconds since 1970 (UTC); `None` if what was sent is no time.
    #[serde(serialize_with = "number::serialize_time")]
    pub t: Option<Decimal>,
    /// The number, base value added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v: Option<Number>,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vs: Option<String>,
    /// True or false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vb: Option<bool>,
    /// Bytes in base64 with the URL-safe alphabet, without padding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vd: Option<String>,
    /// The sum over time, base sum added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s: Option<Number>,
    /// Seconds until the sender writes again, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ut: Option<Number>,
    /// The version, where it is another than 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bver: Option<u64>,
    /// Labels that RFC 8428 does not have.
    #[serde(flatten)]
    pub more: Map<String, Value>,
    /// How many seconds from the receipt it lies, if it was sent so.
    #[serde(skip)]
    relative: Option<Decimal>,
}

impl SenMl {
    /// Packs in `encoding`, whose names mean what `names` says.
    pub fn new(encoding: Encoding, names: Arc<Names>) -> Self {
        Self { encoding, names }
    }
}

impl Adapter for SenMl {
    fn decode(&self, input: &[u8], receipt: &ReceiptContext) -> Result<Decoded, AdapterError> {
        let mut resolver = Resolver::new(receipt);
        match self.encoding {
            Encoding::Json => json::records(input, |raw| resolver.push(raw))?,
            Encoding::Cbor => cbor::records(input, |raw| resolver.push(raw))?,
        }
        let resolved = resolver.finish()?;
        let mut readings = Vec::new();
        let mut devices = Vec::new();
        for (index, record) in resolved.iter().enumerate() {
            if let Some(reading) = self.reading(index, record, receipt)? {
                if readings.len() == READINGS_PER_INPUT_MAX {
                    return Err(AdapterError::TooManyReadings);
                }
                readings.push(reading);
                devices.extend(device(&record.n));
            }
        }
        one_alone(devices, "n", "of several devices: send them apart")?;
        Ok(Decoded { readings, fields: Fields::SenMl(Pack { resolved }) })
    }
}

impl SenMl {
    /// A record whose name and unit mean a vital, and whose value is a number.
    fn reading(
        &self,
        index: usize,
        record: &Record,
        receipt: &ReceiptContext,
    ) -> Result<Option<Reading>, AdapterError> {
        let (Some(Number::Finite(value)), Some(unit)) = (&record.v, &record.u) else { return Ok(None) };
        let Some((vital, unit)) = self.names.meaning(&record.n, unit) else { return Ok(None) };
        Reading::new(vital, *value, unit, receipt.device.clone(), record.time(receipt))
            .map(Some)
            .map_err(|problem| AdapterError::Unit { path: format!("[{index}].u"), problem })
    }
}

/// The device that a name begins with (RFC 9039): `urn:dev:`, the kind of its number, the number.
fn device(name: &str) -> Option<&str> {
    let (kind, number) = name.strip_prefix("urn:dev:")?.split_once(':')?;
    let number = number.split([':', '/', '_']).next()?;
    name.get(.."urn:dev:".len() + kind.len() + 1 + number.len())
}

impl Record {
    fn time(&self, receipt: &ReceiptContext) -> ReadingTime {
        let Some(time) = self.t else { return receipt.instead_of(None) };
        match self.relative {
            None => match Stamp::unix(time, 3) {
                Some(stamp) => stamp.of_device(receipt),
                None => receipt.instead_of(None),
            },
            Some(seconds) if seconds == Decimal::ZERO => receipt.at_receipt(),
            // Seconds before the receipt. What is ahead of it has not been measured yet: the sender's count cannot be right.
            Some(seconds) => {
                match seconds.checked_mul(Decimal::new(-1, 3)).ok().and_then(Decimal::floor).map(u64::try_from) {
                    Some(Ok(back_ms)) if back_ms < receipt.received.0 => ReadingTime {
                        derived: Some(UnixMs(receipt.received.0.saturating_sub(back_ms))),
                        method: TimeMethod::ReceiptCountedBack,
                        uncertainty_ms: RECEIPT_UNCERTAINTY_MS,
                        ..receipt.at_receipt()
                    },
                    _ => receipt.instead_of(None),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
