//! FHIR R4: an Observation, or a Bundle with Observations in it.
//!
//! A vital is known by a LOINC code, or by an MDC code of ISO/IEEE 11073-10101; a panel's values stand in its components. A
//! quantity's unit is its UCUM code, or what it says in words if those are known. Nothing is made a reading that is not a
//! plain measured value: a status other than final, amended, corrected or preliminary, a reason for absent data, a comparator
//! (`< 0.5` is not 0.5). Times are those of the observation (`effective…`); `issued` is when somebody published it.

use ehe::decimal::Decimal;
use ehe::reading::{Flags, Reading, ReadingTime, TimeMethod};
use ehe::unit::Unit;
use ehe::vital::Vital;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Map, Value};

use super::document::{kind, parse};
use crate::error::{AdapterError, shortened};
use crate::limits::READINGS_PER_INPUT_MAX;
use crate::stamp::Stamp;
use crate::{Adapter, Decoded, Fields, ReceiptContext};

const LOINC: &str = "http://loinc.org";
const MDC: &str = "urn:iso:std:iso:11073:10101";
const UCUM: &str = "http://unitsofmeasure.org";
/// One day.
const DAY_MS: i64 = 24 * 3_600_000;

/// Observations and Bundles.
#[derive(Debug, Clone, Default)]
pub struct Fhir {
    zone: Option<TimeZone>,
}

/// What a document tells of.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Observed {
    /// An Observation.
    One(Box<Observation>),
    /// The Observations of a Bundle.
    Bundle {
        /// In its order.
        observations: Vec<Observation>,
    },
}

/// The fields of an Observation that matter here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observation {
    /// `status`
    pub status: String,
    /// `effectiveDateTime`, `effectivePeriod`, `effectiveInstant` or `effectiveTiming` as it was sent.
    pub effective: Option<Value>,
    /// The observation's own code and value, then its components.
    pub components: Vec<Component>,
}

/// A code and its value.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Component {
    /// `code.coding`
    pub code: Vec<Coding>,
    /// The number of `valueQuantity` or `valueInteger`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Number>,
    /// `<`, `<=`, `>=`, `>`: then the number is a bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparator: Option<String>,
    /// The unit in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The unit's UCUM code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ucum: Option<String>,
    /// `dataAbsentReason.coding`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<Vec<Coding>>,
}

/// A code of a system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Coding {
    /// Which system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl Fhir {
    /// `zone` is assumed for dates and times without one; `None`: UTC, and the uncertainty says so.
    pub(crate) fn new(zone: Option<TimeZone>) -> Self {
        Self { zone }
    }

    /// The readings of a parsed document.
    pub(crate) fn document(&self, document: &Value, receipt: &ReceiptContext) -> Result<Decoded, AdapterError> {
        let root = At::root(document)?;
        let mut readings = Vec::new();
        let fields = match root.text("resourceType")? {
            None => return Err(AdapterError::Missing { path: "resourceType".to_owned() }),
            Some("Observation") => {
                Fields::Fhir(Observed::One(Box::new(self.observation(&root, receipt, &mut readings)?)))
            }
            Some("Bundle") => {
                let mut observations = Vec::new();
                for entry in root.objects("entry")? {
                    let Some(resource) = entry.object("resource")? else { continue };
                    if resource.text("resourceType")? == Some("Observation") {
                        observations.push(self.observation(&resource, receipt, &mut readings)?);
                    }
                }
                Fields::Fhir(Observed::Bundle { observations })
            }
            // Other resources are understood to hold no reading.
            Some(_) => Fields::default(),
        };
        Ok(Decoded { readings, fields })
    }

    fn observation(
        &self,
        at: &At<'_>,
        receipt: &ReceiptContext,
        readings: &mut Vec<Reading>,
    ) -> Result<Observation, AdapterError> {
        let status = at.text("status")?.ok_or_else(|| AdapterError::Missing { path: at.path("status") })?;
        let measured = matches!(status, "final" | "amended" | "corrected" | "preliminary");
        let (time, effective) = self.time(at, receipt)?;
        let mut components = Vec::new();
        let own = std::iter::once(At { node: at.node, path: at.path.clone() });
        for place in own.chain(at.objects("component")?) {
            let component = Component::read(&place)?;
            if let Some((vital, value, unit)) = component.measured(&place)?.filter(|_| measured) {
                if readings.len() == READINGS_PER_INPUT_MAX {
                    return Err(AdapterError::TooManyReadings);
                }
                let reading = Reading::new(vital, value, unit, receipt.device.clone(), time)
                    .map_err(|problem| AdapterError::Unit { path: place.path("valueQuantity"), problem })?;
                let flags = if status == "preliminary" { Flags::ESTIMATE } else { Flags::NONE };
                readings.push(reading.with_flags(flags));
            }
            components.push(component);
        }
        Ok(Observation { status: shortened(status), effective, components })
    }

    /// When it was measured, and what says so.
    fn time(&self, at: &At<'_>, receipt: &ReceiptContext) -> Result<(ReadingTime, Option<Value>), AdapterError> {
        for name in ["effectiveDateTime", "effectiveInstant"] {
            if let Some(sent) = at.get(name) {
                let stamp = sent.as_str().and_then(|text| self.stamp(text, receipt));
                let time = stamp.map_or_else(|| receipt.instead_of(None), |stamp| stamp.in_document(receipt));
                return Ok((time, Some(sent.clone())));
            }
        }
        if let Some(period) = at.object("effectivePeriod")? {
            return Ok((self.period(&period, receipt), at.get("effectivePeriod").cloned()));
        }
        if let Some(timing) = at.get("effectiveTiming") {
            return Ok((receipt.instead_of(None), Some(timing.clone())));
        }
        // When it was measured nobody says; the time of receipt would be a guess.
        let unknown = ReadingTime { derived: None, method: TimeMethod::OrderOnly, ..receipt.at_receipt() };
        Ok((unknown, None))
    }

    fn period(&self, at: &At<'_>, receipt: &ReceiptContext) -> ReadingTime {
        let part = |name: &str| at.get(name).and_then(Value::as_str).map(|text| (text, self.stamp(text, receipt)));
        match (part("start"), part("end")) {
            (Some((_, Some(start))), None) => start.in_document(receipt),
            (Some((_, Some(start))), Some((text, Some(end)))) => {
                // The end is included: a date lasts until midnight.
                let end_ms = end.unix_ms.saturating_add(written_length_ms(text));
                let time = start.in_document(receipt);
                match u64::try_from(end_ms.saturating_sub(start.unix_ms)) {
                    Ok(interval_ms) if time.method == start.method => {
                        ReadingTime { interval_ms: Some(interval_ms), ..time }
                    }
                    Ok(_) => time,
                    Err(_) => receipt.instead_of(Some(start.device)),
                }
            }
            (None, Some((_, Some(end)))) => end.in_document(receipt),
            _ => receipt.instead_of(None),
        }
    }

    fn stamp(&self, text: &str, receipt: &ReceiptContext) -> Option<Stamp> {
        let zone = self.zone.as_ref();
        if text.contains('T') { Stamp::read_anyhow(text, zone, receipt) } else { Stamp::date(text, zone) }
    }
}

/// How long a date or month is at most; 0 for a time of day.
fn written_length_ms(text: &str) -> i64 {
    match text.len() {
        7 => 31 * DAY_MS,
        10 => DAY_MS,
        _ => 0,
    }
}

impl Adapter for Fhir {
    fn decode(&self, input: &[u8], receipt: &ReceiptContext) -> Result<Decoded, AdapterError> {
        self.document(&parse(input)?, receipt)
    }
}

impl Component {
    fn read(at: &At<'_>) -> Result<Self, AdapterError> {
        let mut component = Self { code: codings(at.object("code")?)?, ..Self::default() };
        if let Some(reason) = at.object("dataAbsentReason")? {
            component.absent = Some(codings(Some(reason))?);
        }
        if let Some(quantity) = at.object("valueQuantity")? {
            component.value = quantity.number("value")?;
            component.comparator = quantity.owned("comparator")?;
            component.unit = quantity.owned("unit")?;
            // A code of another system is no UCUM.
            let ucum = quantity.text("system")?.is_none_or(|system| system == UCUM);
            component.ucum = if ucum { quantity.owned("code")? } else { None };
        } else {
            component.value = at.number("valueInteger")?;
        }
        Ok(component)
    }

    /// The vital, its value and unit; `None` if it is no plain value of a vital.
    fn measured(&self, at: &At<'_>) -> Result<Option<(Vital, Decimal, Unit)>, AdapterError> {
        let Some(vital) = self.code.iter().find_map(Coding::vital) else { return Ok(None) };
        let Some(value) = &self.value else { return Ok(None) };
        if self.absent.is_some() || self.comparator.is_some() {
            return Ok(None);
        }
        let value = value
            .as_str()
            .parse()
            .map_err(|problem| AdapterError::Number { path: at.path("valueQuantity.value"), problem })?;
        Ok(Some((vital, value, self.unit_of(vital, at)?)))
    }

    fn unit_of(&self, vital: Vital, at: &At<'_>) -> Result<Unit, AdapterError> {
        let (name, text) = match (&self.ucum, &self.unit) {
            (Some(code), _) => ("code", code),
            (None, Some(words)) => ("unit", words),
            // A count needs none.
            (None, None) if vital == Vital::StepCount => return Ok(Unit::Steps),
            (None, None) => return Err(AdapterError::MissingUnit { path: at.path("valueQuantity") }),
        };
        if vital == Vital::StepCount && matches!(text.as_str(), "1" | "{count}" | "{step}" | "{#}") {
            return Ok(Unit::Steps);
        }
        Unit::from_sender(text).ok_or_else(|| {
            let path = at.path(&format!("valueQuantity.{name}"));
            AdapterError::UnknownUnit { path, found: shortened(text) }
        })
    }
}

impl Coding {
    fn vital(&self) -> Option<Vital> {
        match (self.system.as_deref()?, self.code.as_deref()?) {
            (LOINC, code) => Vital::from_loinc(code),
            (MDC, code) => code.parse().ok().and_then(Vital::from_mdc),
            _ => None,
        }
    }
}

fn codings(concept: Option<At<'_>>) -> Result<Vec<Coding>, AdapterError> {
    let Some(concept) = concept else { return Ok(Vec::new()) };
    let read = |at: At<'_>| Ok(Coding { system: at.owned("system")?, code: at.owned("code")? });
    concept.objects("coding")?.map(read).collect()
}

/// An object of the document, and where it stands.
struct At<'v> {
    node: &'v Map<String, Value>,
    path: String,
}

impl<'v> At<'v> {
    fn root(document: &'v Value) -> Result<Self, AdapterError> {
        Self::object_at(document, String::new())
    }

    fn object_at(value: &'v Value, path: String) -> Result<Self, AdapterError> {
        match value {
            Value::Object(node) => Ok(Self { node, path }),
            other => Err(AdapterError::Type { path, expected: "an object", found: kind(other) }),
        }
    }

    fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A member; `null` is none.
    fn get(&self, name: &str) -> Option<&'v Value> {
        self.node.get(name).filter(|value| !value.is_null())
    }

    fn object(&self, name: &str) -> Result<Option<Self>, AdapterError> {
        self.get(name).map(|value| Self::object_at(value, self.path(name))).transpose()
    }

    /// The objects of an array; none if it is not there.
    fn objects(&self, name: &str) -> Result<impl Iterator<Item = Self> + use<'v>, AdapterError> {
        let elements = match self.get(name) {
            None => &[],
            Some(Value::Array(elements)) => elements.as_slice(),
            Some(other) => {
                return Err(AdapterError::Type { path: self.path(name), expected: "an array", found: kind(other) });
            }
        };
        let each = |(index, value): (usize, &'v Value)| Self::object_at(value, self.path(&format!("{name}[{index}]")));
        Ok(elements.iter().enumerate().map(each).collect::<Result<Vec<_>, _>>()?.into_iter())
    }

    fn text(&self, name: &str) -> Result<Option<&'v str>, AdapterError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(AdapterError::Type { path: self.path(name), expected: "text", found: kind(other) }),
        }
    }

    fn owned(&self, name: &str) -> Result<Option<String>, AdapterError> {
        Ok(self.text(name)?.map(str::to_owned))
    }

    fn number(&self, name: &str) -> Result<Option<serde_json::Number>, AdapterError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number.clone())),
            Some(other) => Err(AdapterError::Type { path: self.path(name), expected: "a number", found: kind(other) }),
        }
    }
}
