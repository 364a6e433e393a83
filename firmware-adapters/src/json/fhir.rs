//! FHIR R4: an Observation, or a Bundle with Observations in it.
//!
//! A vital is known by a LOINC code, or by an MDC code of ISO/IEEE 11073-10101; a panel's values stand in its components. A
//! quantity's unit is its UCUM code, or what it says in words if those are known. Nothing is made a reading that is not a
//! plain measured value: a status other than final, amended, corrected or preliminary, a reason for absent data, a comparator
//! (`< 0.5` is not 0.5). Times are those of the observation (`effective…`); `issued` is when somebody published it.

mod at;

use ehe::decimal::Decimal;
use ehe::reading::{Flags, Reading, ReadingTime};
use ehe::unit::Unit;
use ehe::vital::Vital;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value;

use self::at::At;
use super::document::parse;
use crate::error::{AdapterError, SEVERAL_PEOPLE, one_alone, shortened};
use crate::limits::READINGS_PER_INPUT_MAX;
use crate::stamp::Stamp;
use crate::{Adapter, Decoded, Fields, ReceiptContext};

const LOINC: &str = "http://loinc.org";
const MDC: &str = "urn:iso:std:iso:11073:10101";
const UCUM: &str = "http://unitsofmeasure.org";
/// Extensions that change what the element means; nobody who does not know them may take it for what it looks like.
const MODIFIER: &str = "modifierExtension";
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

/// An Observation, and what it gives.
struct Told<'v> {
    observation: Observation,
    readings: Vec<Reading>,
    /// Why it gives none although it has a value.
    problem: Option<AdapterError>,
    /// Whom it is of.
    subject: Option<&'v Value>,
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
                let Told { observation, readings: mut told, problem, .. } = self.observation(&root, receipt)?;
                if let Some(problem) = problem {
                    return Err(problem);
                }
                readings.append(&mut told);
                Fields::Fhir(Observed::One(Box::new(observation)))
            }
            Some("Bundle") => {
                let observations = self.bundle(&root, receipt, &mut readings)?;
                Fields::Fhir(Observed::Bundle { observations })
            }
            // Other resources are understood to hold no reading.
            Some(_) => Fields::default(),
        };
        Ok(Decoded { readings, fields })
    }

    /// The Observations of a Bundle. One whose values cannot be told gives none and leaves the others theirs; where no other gives
    /// any, that is the Bundle's problem.
    fn bundle(
        &self,
        root: &At<'_>,
        receipt: &ReceiptContext,
        readings: &mut Vec<Reading>,
    ) -> Result<Vec<Observation>, AdapterError> {
        // A history tells what has been written, mistakes that were corrected since and all.
        let current = root.text("type")? != Some("history");
        let (mut observations, mut people, mut first) = (Vec::new(), Vec::new(), None);
        for entry in root.objects("entry")? {
            let Some(resource) = entry.object("resource")? else { continue };
            if resource.text("resourceType")? != Some("Observation") {
                continue;
            }
            let deleted = entry.object("request")?.is_some_and(|request| request.is("method", "DELETE"));
            let told = self.observation(&resource, receipt)?;
            people.extend(told.subject);
            observations.push(told.observation);
            if !current || deleted || entry.get(MODIFIER).is_some() {
                continue;
            }
            if readings.len() + told.readings.len() > READINGS_PER_INPUT_MAX {
                return Err(AdapterError::TooManyReadings);
            }
            readings.extend(told.readings);
            first = first.or(told.problem);
        }
        one_alone(people, "entry.resource.subject", SEVERAL_PEOPLE)?;
        match first.filter(|_| readings.is_empty()) {
            Some(problem) => Err(problem),
            None => Ok(observations),
        }
    }

    fn observation<'v>(&self, at: &At<'v>, receipt: &ReceiptContext) -> Result<Told<'v>, AdapterError> {
        let status = at.text("status")?.ok_or_else(|| AdapterError::Missing { path: at.path("status") })?;
        let (time, effective) = self.time(at, receipt)?;
        // With a focus it is about another than the subject: a child not yet born, a donor.
        let measured = matches!(status, "final" | "amended" | "corrected" | "preliminary") && at.get("focus").is_none();
        let modified = at.get(MODIFIER).is_some();
        let flags = if status == "preliminary" { Flags::ESTIMATE } else { Flags::NONE };
        let (mut components, mut readings, mut problem) = (Vec::new(), Vec::new(), None);
        let own = std::iter::once(At { node: at.node, path: at.path.clone() });
        for place in own.chain(at.objects("component")?) {
            let component = Component::read(&place)?;
            if measured && !modified && place.get(MODIFIER).is_none() {
                if readings.len() == READINGS_PER_INPUT_MAX {
                    return Err(AdapterError::TooManyReadings);
                }
                match component.reading(&place, time, receipt) {
                    Ok(reading) => readings.extend(reading.map(|reading| reading.with_flags(flags))),
                    Err(error) => problem = problem.or(Some(error)),
                }
            }
            components.push(component);
        }
        if problem.is_some() {
            readings.clear();
        }
        let observation = Observation { status: shortened(status), effective, components };
        let subject = at.get("subject").and_then(|subject| {
            subject.get("reference").or_else(|| subject.get("identifier")?.get("value")).filter(|name| !name.is_null())
        });
        Ok(Told { observation, readings, problem, subject })
    }

    /// When it was measured, and what says so.
    fn time(&self, at: &At<'_>, receipt: &ReceiptContext) -> Result<(ReadingTime, Option<Value>), AdapterError> {
        for name in ["effectiveDateTime", "effectiveInstant"] {
            if let Some(sent) = at.get(name) {
                let stamp = sent.as_str().and_then(|text| self.stamp(text, receipt));
                let time = stamp.map_or_else(|| receipt.unknown(None), |stamp| stamp.in_document(receipt));
                return Ok((time, Some(sent.clone())));
            }
        }
        if let Some(period) = at.object("effectivePeriod")? {
            return Ok((self.period(&period, receipt), at.get("effectivePeriod").cloned()));
        }
        if let Some(timing) = at.get("effectiveTiming") {
            return Ok((receipt.unknown(None), Some(timing.clone())));
        }
        // When it was measured nobody says; the time of receipt would be a guess.
        Ok((receipt.unknown(None), None))
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
                    Err(_) => receipt.unknown(Some(start.device)),
                }
            }
            (None, Some((_, Some(end)))) => end.in_document(receipt),
            _ => receipt.unknown(None),
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

    /// The reading that it makes, if it makes one.
    fn reading(
        &self,
        at: &At<'_>,
        time: ReadingTime,
        receipt: &ReceiptContext,
    ) -> Result<Option<Reading>, AdapterError> {
        let Some((vital, value, unit)) = self.measured(at)? else { return Ok(None) };
        Reading::new(vital, value, unit, receipt.device.clone(), time)
            .map(Some)
            .map_err(|problem| AdapterError::Unit { path: at.path("valueQuantity"), problem })
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
