//! Open mHealth and IEEE 1752.1: data points (`header` and `body`), and bodies alone whose schema the configuration knows.
//!
//! [`schema`] has the schemas, one line a schema and major version; [`frame`] reads when something was measured. A document
//! that breaks its schema gives no readings; members that the schema does not know are left alone. A date and time that cannot
//! be read costs no reading.

mod frame;
mod health_kit;
mod schema;

use std::str::FromStr;

use ehe::decimal::Decimal;
use ehe::reading::{Flags, Reading, ReadingTime, Statistic};
use ehe::unit::Unit;
use ehe::vital::Vital;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use self::frame::Clock;
use self::schema::{Body, Kind, Measure, Schema, Shape, Times};
use super::document::{kind, parse, shown};
use crate::error::{AdapterError, SEVERAL_PEOPLE, one_alone, shortened};
use crate::limits::READINGS_PER_INPUT_MAX;
use crate::{Adapter, Decoded, ReceiptContext};

/// The name of a schema: `omh:heart-rate:2.0`, `ieee:time-frame:1.0`.
#[derive(Debug, Clone, Copy)]
pub struct SchemaId(&'static Schema);

/// Why a text is no schema that this version reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Open mHealth schema {0:?} is not known; write namespace:name:version, as omh:heart-rate:2.0")]
pub struct UnknownSchema(String);

impl FromStr for SchemaId {
    type Err = UnknownSchema;

    fn from_str(text: &str) -> Result<Self, UnknownSchema> {
        let unknown = || UnknownSchema(shortened(text));
        let mut parts = text.split(':');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some(name), Some(version), None) => {
                schema::find(namespace, name, version).map(Self).ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }
}

/// Data points, and bodies of one schema.
#[derive(Debug, Clone, Default)]
pub struct OpenMhealth {
    schema: Option<SchemaId>,
    zone: Option<TimeZone>,
}

impl OpenMhealth {
    /// `schema` is that of documents without a header; `zone` is assumed for times without one.
    pub(crate) fn new(schema: Option<SchemaId>, zone: Option<TimeZone>) -> Self {
        Self { schema, zone }
    }

    /// Whether a document names its schema itself.
    pub(crate) fn is_data_point(document: &Value) -> bool {
        let first = document.as_array().and_then(|points| points.first()).unwrap_or(document);
        first.get("header").and_then(|header| header.get("schema_id")).is_some()
    }

    /// Whether documents without a header have a schema.
    pub(crate) fn has_schema(&self) -> bool {
        self.schema.is_some()
    }

    /// The readings of a parsed document: a data point, a body, or an array of them.
    pub(crate) fn document(&self, document: Value, receipt: &ReceiptContext) -> Result<Decoded, AdapterError> {
        let mut readings = Vec::new();
        match &document {
            Value::Array(points) => {
                let people = points.iter().filter_map(|point| point.get("header")?.get("user_id"));
                one_alone(people.filter(|user| !user.is_null()), "header.user_id", SEVERAL_PEOPLE)?;
                for point in points {
                    self.point(point, receipt, &mut readings)?;
                }
            }
            point => self.point(point, receipt, &mut readings)?,
        }
        Ok(Decoded { readings, fields: shown(document) })
    }

    fn point(&self, point: &Value, receipt: &ReceiptContext, readings: &mut Vec<Reading>) -> Result<(), AdapterError> {
        let Some(header) = point.get("header") else {
            let Some(SchemaId(schema)) = self.schema else {
                return Err(AdapterError::Unsupported {
                    what: "an Open mHealth document without a header".to_owned(),
                    remedy: "say in the configuration which `schema` it has",
                });
            };
            return self.body(schema, point, "", Flags::NONE, receipt, readings);
        };
        let schema = schema_of(header)?;
        let Some(body) = point.get("body") else { return Err(AdapterError::Missing { path: "body".to_owned() }) };
        // Open mHealth has the modality in the provenance, IEEE 1752.1 in the header itself.
        let modality = header.get("acquisition_provenance").and_then(|provenance| provenance.get("modality"));
        let reported = modality.or(header.get("modality")).and_then(Value::as_str) == Some("self-reported");
        let flags = if reported { Flags::SELF_REPORTED } else { Flags::NONE };
        self.body(schema, body, "body.", flags, receipt, readings)
    }

    fn body(
        &self,
        schema: &Schema,
        body: &Value,
        prefix: &'static str,
        flags: Flags,
        receipt: &ReceiptContext,
        readings: &mut Vec<Reading>,
    ) -> Result<(), AdapterError> {
        let clock = Clock { zone: self.zone.as_ref(), receipt };
        let mut put = |name,
                       (vital, value, unit): (Vital, Decimal, Unit),
                       time: ReadingTime,
                       statistic: Option<Statistic>,
                       flags| {
            if readings.len() == READINGS_PER_INPUT_MAX {
                return Err(AdapterError::TooManyReadings);
            }
            let reading = Reading::new(vital, value, unit, receipt.device.clone(), time)
                .map_err(|problem| AdapterError::Unit { path: Place { prefix, name }.path(), problem })?
                .with_flags(flags);
            readings.push(match statistic {
                Some(statistic) => reading.with_statistic(statistic),
                None => reading,
            });
            Ok(())
        };
        match &schema.body {
            Body::Alone(of) => {
                let of = *of;
                let place = Place { prefix, name: "value" };
                check(of, body, &clock, place)?;
                // A blood pressure's half alone: the schema says what it is.
                if let Kind::Measured(measure) = of {
                    let (value, unit) = measure.read(body, place)?;
                    statistic(body, false, prefix)?;
                    put(place.name, (measure.vital, value, unit), receipt.unknown(None), None, flags)?;
                }
                Ok(())
            }
            Body::HealthKit => {
                let node = object(body, prefix)?;
                let Some(found) = health_kit::read(node, &clock, prefix)? else { return Ok(()) };
                statistic(body, false, prefix)?;
                let measured = (found.vital, found.value, found.unit);
                put("unit_value", measured, found.time, None, flags.union(found.flags))
            }
            Body::Members(shape) => {
                let node = object(body, prefix)?;
                let time = shape.time(node, &clock, prefix)?;
                for member in shape.members {
                    match node.get(member.name) {
                        Some(value) => check(member.kind, value, &clock, Place { prefix, name: member.name })?,
                        None if member.required => {
                            return Err(AdapterError::Missing { path: format!("{prefix}{}", member.name) });
                        }
                        None => {}
                    }
                }
                let allowed = shape.members.iter().any(|member| member.name == STATISTIC);
                for member in shape.members {
                    let Some(value) = node.get(member.name) else { continue };
                    let measure = match member.kind {
                        Kind::Measured(measure) => measure,
                        Kind::Movement(steps) if value.get("unit").is_some_and(|unit| unit == "steps") => steps,
                        _ => continue,
                    };
                    let Some(vital) = specimen(measure.vital, node) else { continue };
                    let (value, unit) = measure.read(value, Place { prefix, name: member.name })?;
                    put(member.name, (vital, value, unit), time, statistic(body, allowed, prefix)?, flags)?;
                }
                Ok(())
            }
        }
    }
}

impl Adapter for OpenMhealth {
    fn decode(&self, input: &[u8], receipt: &ReceiptContext) -> Result<Decoded, AdapterError> {
        self.document(parse(input)?, receipt)
    }
}

fn schema_of(header: &Value) -> Result<&'static Schema, AdapterError> {
    let part = |name: &str| {
        let path = || format!("header.schema_id.{name}");
        match header.get("schema_id").and_then(|id| id.get(name)) {
            Some(Value::String(text)) => Ok(text.as_str()),
            Some(other) => Err(AdapterError::Type { path: path(), expected: "text", found: kind(other) }),
            None => Err(AdapterError::Missing { path: path() }),
        }
    };
    let (namespace, name, version) = (part("namespace")?, part("name")?, part("version")?);
    schema::find(namespace, name, version).ok_or_else(|| AdapterError::Unsupported {
        what: shortened(&format!("the schema {namespace}:{name}:{version}")),
        remedy: "see the README of firmware-adapters for those that are",
    })
}

/// A member of a body, for messages.
#[derive(Debug, Clone, Copy)]
struct Place {
    prefix: &'static str,
    name: &'static str,
}

impl Place {
    fn path(self) -> String {
        format!("{}{}", self.prefix, self.name)
    }

    fn invalid(self, problem: &str) -> AdapterError {
        AdapterError::Invalid { path: self.path(), problem: problem.to_owned() }
    }
}

fn object<'v>(value: &'v Value, prefix: &str) -> Result<&'v Map<String, Value>, AdapterError> {
    value.as_object().ok_or_else(|| AdapterError::Type {
        path: prefix.trim_end_matches('.').to_owned(),
        expected: "an object",
        found: kind(value),
    })
}

/// Whether a value is what the schema has there.
fn check(of: Kind, value: &Value, clock: &Clock<'_>, place: Place) -> Result<(), AdapterError> {
    let wrong = |expected| AdapterError::Type { path: place.path(), expected, found: kind(value) };
    let fits = |fits: bool, expected| if fits { Ok(()) } else { Err(wrong(expected)) };
    match of {
        Kind::Measured(measure) if measure.bare => fits(value.is_number(), "a number"),
        Kind::Measured(measure) => quantity(value, measure.units, place).map(drop),
        Kind::Quantity(units) => quantity(value, units, place).map(drop),
        Kind::Movement(_) => quantity(value, &[], place).map(drop),
        Kind::Number => fits(value.is_number(), "a number"),
        Kind::Integer => fits(value.as_number().is_some_and(|number| is_whole(number.as_str())), "a whole number"),
        Kind::Truth => fits(value.is_boolean(), "true or false"),
        Kind::Text => fits(value.is_string(), "text"),
        Kind::Words(words) => match value {
            Value::String(text) if words.contains(&text.as_str()) => Ok(()),
            Value::String(text) => {
                Err(place.invalid(&format!("{:?} is none of {}", shortened(text), words.join(", "))))
            }
            _ => Err(wrong("text")),
        },
        Kind::DateTime => match value {
            Value::String(text) if clock.is_date_time(text) => Ok(()),
            Value::String(_) => Err(place.invalid("not a date and time with zone (RFC 3339)")),
            _ => Err(wrong("text")),
        },
        Kind::Frame(rule) => frame::frame(value, rule, clock, place).map(drop),
        Kind::Interval(rule) => frame::interval(value, rule, clock, place).map(drop),
    }
}

fn is_whole(number: &str) -> bool {
    number.parse().ok().and_then(|number: Decimal| Some(Decimal::from(number.floor()?) == number)).unwrap_or(false)
}

/// `{"value": number, "unit": one of}`; no units: any text.
fn quantity<'v>(value: &'v Value, units: &[&str], place: Place) -> Result<(&'v str, &'v str), AdapterError> {
    let Some(node) = value.as_object() else {
        let expected = "a value with its unit";
        return Err(AdapterError::Type { path: place.path(), expected, found: kind(value) });
    };
    let part =
        |name: &str| node.get(name).ok_or_else(|| AdapterError::Missing { path: format!("{}.{name}", place.path()) });
    let number = match part("value")? {
        Value::Number(number) => number.as_str(),
        other => {
            let path = format!("{}.value", place.path());
            return Err(AdapterError::Type { path, expected: "a number", found: kind(other) });
        }
    };
    match part("unit")? {
        Value::String(unit) if units.is_empty() || units.contains(&unit.as_str()) => Ok((number, unit)),
        Value::String(unit) => {
            Err(place.invalid(&format!("the unit {:?} is none of {}", shortened(unit), units.join(", "))))
        }
        other => {
            Err(AdapterError::Type { path: format!("{}.unit", place.path()), expected: "text", found: kind(other) })
        }
    }
}

impl Measure {
    /// The value and its unit, of what [`check`] has found right.
    fn read(&self, value: &Value, place: Place) -> Result<(Decimal, Unit), AdapterError> {
        let (number, unit) = match value {
            Value::Number(number) if self.bare => (number.as_str(), self.vital.unit()),
            _ => {
                let (number, unit) = quantity(value, self.units, place)?;
                let unknown = || AdapterError::UnknownUnit { path: place.path(), found: shortened(unit) };
                (number, Unit::from_sender(unit).ok_or_else(unknown)?)
            }
        };
        let number = number.parse().map_err(|problem| AdapterError::Number { path: place.path(), problem })?;
        Ok((number, unit))
    }
}

impl Shape {
    fn time(
        &self,
        node: &Map<String, Value>,
        clock: &Clock<'_>,
        prefix: &'static str,
    ) -> Result<ReadingTime, AdapterError> {
        let place = Place { prefix, name: "effective_time_frame" };
        match (node.get(place.name), self.times) {
            (Some(sent), Times::Optional(rule) | Times::Required(rule)) => frame::frame(sent, rule, clock, place),
            (Some(sent), Times::Interval(rule)) => {
                if sent.get("time_interval").is_none() {
                    return Err(place.invalid("this schema needs a time_interval"));
                }
                frame::frame(sent, rule, clock, place)
            }
            (None, Times::Optional(_)) => Ok(clock.receipt.unknown(None)),
            (None, Times::Required(_) | Times::Interval(_)) => Err(AdapterError::Missing { path: place.path() }),
        }
    }
}

/// The member that says what a body's values summarise.
const STATISTIC: &str = "descriptive_statistic";

/// What the body says its values summarise; `allowed`: whether its schema knows that at all. Whatever else it says there makes of
/// its values something else than readings, so it is never left out.
fn statistic(body: &Value, allowed: bool, prefix: &'static str) -> Result<Option<Statistic>, AdapterError> {
    let Some(sent) = body.get(STATISTIC) else { return Ok(None) };
    let place = Place { prefix, name: STATISTIC };
    if !allowed {
        return Err(place.invalid("this schema has no statistics: its values would be taken for plain readings"));
    }
    let known = sent.as_str().and_then(|text| text.replace(' ', "_").parse().ok());
    known.map(Some).ok_or_else(|| place.invalid("a statistic that no reading can have"))
}

/// What a glucose was measured in makes it one of blood, of the fluid between the cells, or of nothing that tells of blood.
fn specimen(vital: Vital, node: &Map<String, Value>) -> Option<Vital> {
    let source = node.get("specimen_source").and_then(Value::as_str);
    match (vital, source) {
        (Vital::BloodGlucose, Some("interstitial fluid")) => Some(Vital::InterstitialGlucose),
        (Vital::BloodGlucose, Some("capillary blood" | "plasma" | "serum" | "whole blood") | None) => Some(vital),
        (Vital::BloodGlucose, Some(_)) => None,
        _ => Some(vital),
    }
}

#[cfg(test)]
mod tests;
