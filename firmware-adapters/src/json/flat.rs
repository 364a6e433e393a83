//! Documents of any flat or nested shape, by configuration: `path → vital, unit`.

use ehe::coded::UnknownName;
use ehe::decimal::{Decimal, DecimalError};
use ehe::reading::{Flags, Reading, Statistic};
use ehe::unit::Unit;
use ehe::vital::Vital;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::config::{ConditionConfig, ConfigError, ConfigProblem, MappingConfig, OneConfig, ValueConfig};
use super::document::{kind, parse, shown};
use super::path::{Found, Path};
use super::time::{Beside, TimeRule};
use crate::error::{AdapterError, shortened};
use crate::limits::{ENTRIES_PER_VALUE_MAX, READINGS_PER_INPUT_MAX, VALUES_PER_MAPPING_MAX};
use crate::{Adapter, Decoded, ReceiptContext};

/// A checked [`MappingConfig`]: what turns one shape of document into readings.
///
/// Readings come value by value in the order of the configuration, and within a value in the order of the document.
#[derive(Debug, Clone)]
pub struct Mapping {
    name: String,
    one: Vec<One>,
    values: Vec<ValueRule>,
}

/// What all values of a document have in common.
#[derive(Debug, Clone)]
struct One {
    what: String,
    paths: Vec<Path>,
}

#[derive(Debug, Clone)]
struct ValueRule {
    path: Path,
    vital: Vital,
    units: UnitRule,
    scale: Option<Decimal>,
    exponent: Option<Beside>,
    ignore: Vec<Sentinel>,
    text: bool,
    required: bool,
    statistic: Option<Statistic>,
    time: TimeRule,
    only_if: Option<Condition>,
    unless: Option<Condition>,
    self_reported: Option<Condition>,
}

/// What else the document says beside a value.
#[derive(Debug, Clone)]
struct Condition {
    at: Beside,
    equals: Vec<Sentinel>,
}

#[derive(Debug, Clone)]
struct UnitRule {
    /// `None`: the document must say it.
    fixed: Option<Unit>,
    sent: Option<Beside>,
    words: Vec<(String, Unit)>,
}

#[derive(Debug, Clone)]
struct Sentinel {
    text: String,
    number: Option<Decimal>,
}

impl Sentinel {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), number: text.parse().ok() }
    }
}

impl Condition {
    fn new(config: &Option<ConditionConfig>, value: &Path, key: &str) -> Result<Option<Self>, KeyProblem> {
        let Some(config) = config else { return Ok(None) };
        if config.equals.len() > ENTRIES_PER_VALUE_MAX {
            return Err(at(key)(ConfigProblem::Entries { found: config.equals.len() }));
        }
        let beside = Beside::new(&config.path, value).map_err(at(&format!("{key}.path")))?;
        Ok(Some(Self { at: beside, equals: config.equals.iter().map(|text| Sentinel::new(text)).collect() }))
    }

    fn holds(condition: &Option<Self>, found: &Found<'_>) -> Result<Option<bool>, AdapterError> {
        let Some(condition) = condition else { return Ok(None) };
        let sent = condition.at.value(found)?;
        let equal = |sentinel: &Sentinel| match sent {
            Some(Value::String(text)) => sentinel.text == *text,
            Some(Value::Number(number)) => sentinel.number.is_some() && number.as_str().parse().ok() == sentinel.number,
            Some(Value::Bool(truth)) => sentinel.text == if *truth { "true" } else { "false" },
            _ => false,
        };
        Ok(Some(condition.equals.iter().any(equal)))
    }
}

impl Mapping {
    /// Checks a configuration once, so that every problem of it is found when it is loaded.
    ///
    /// `zones` gives the TZif data of an IANA zone, the bytes of `/usr/share/zoneinfo/<name>`; it is asked only for the names of
    /// `local` times.
    ///
    /// # Errors
    /// [`ConfigError`] names the mapping, the key, what is wrong and what to write instead.
    pub fn new(config: &MappingConfig, zones: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Self, ConfigError> {
        let error = |key: String, problem| ConfigError { mapping: shortened(&config.name), key, problem };
        let found = config.values.len();
        if !(1..=VALUES_PER_MAPPING_MAX).contains(&found) {
            return Err(error("value".to_owned(), ConfigProblem::Values { found }));
        }
        let rule = |(index, value): (usize, &ValueConfig)| {
            ValueRule::new(value, config, zones)
                .map_err(|(key, problem)| error(format!("value[{index}].{key}"), problem))
        };
        let values = config.values.iter().enumerate().map(rule).collect::<Result<_, _>>()?;
        let one = |(index, one): (usize, &OneConfig)| {
            One::new(one).map_err(|(key, problem)| error(format!("one[{index}].{key}"), problem))
        };
        let one = config.one.iter().enumerate().map(one).collect::<Result<_, _>>()?;
        Ok(Self { name: config.name.clone(), one, values })
    }

    /// Of documents that a record system wrote, with another zone than the configuration for local times; `None`: nobody knows it.
    pub(crate) fn of_document(mut self, zone: Option<&TimeZone>) -> Self {
        for value in &mut self.values {
            value.time.of_document(zone);
        }
        self
    }

    /// What sources and messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Adapter for Mapping {
    fn decode(&self, input: &[u8], receipt: &ReceiptContext) -> Result<Decoded, AdapterError> {
        let document = parse(input)?;
        let mut readings = Vec::new();
        for rule in &self.values {
            let before = readings.len();
            rule.path.find(&document, &mut |found| {
                if let Some(reading) = rule.reading(found, receipt)? {
                    if readings.len() == READINGS_PER_INPUT_MAX {
                        return Err(AdapterError::TooManyReadings);
                    }
                    readings.push(reading);
                }
                Ok(())
            })?;
            if rule.required && readings.len() == before {
                return Err(AdapterError::Missing { path: rule.path.to_string() });
            }
        }
        for one in self.one.iter().filter(|_| !readings.is_empty()) {
            one.check(&document)?;
        }
        Ok(Decoded { readings, fields: shown(document) })
    }
}

impl One {
    fn new(config: &OneConfig) -> Result<Self, KeyProblem> {
        if config.paths.len() > ENTRIES_PER_VALUE_MAX {
            return Err(at("paths")(ConfigProblem::Entries { found: config.paths.len() }));
        }
        let paths = config.paths.iter().map(|path| path.parse().map_err(at("paths"))).collect::<Result<_, _>>()?;
        Ok(Self { what: shortened(&config.what), paths })
    }

    /// Whether there is one alone in the document.
    fn check(&self, document: &Value) -> Result<(), AdapterError> {
        let mut first: Option<&Value> = None;
        for path in &self.paths {
            path.find(document, &mut |found| {
                let value = found.value();
                if value.is_null() || *first.get_or_insert(value) == value {
                    return Ok(());
                }
                let problem = format!("of several {}: send them apart", self.what);
                Err(AdapterError::Invalid { path: path.to_string(), problem })
            })?;
        }
        Ok(())
    }
}

type KeyProblem = (String, ConfigProblem);

fn at<P: Into<ConfigProblem>>(key: &str) -> impl FnOnce(P) -> KeyProblem {
    let key = key.to_owned();
    move |problem| (key, problem.into())
}

fn unit(text: &str, vital: Vital) -> Result<Unit, ConfigProblem> {
    let hint = |_: &UnknownName| match Unit::from_sender(text) {
        Some(unit) => format!("in UCUM it is {unit}"),
        None => format!("{vital} is given in {} or a unit that converts into it", vital.unit()),
    };
    let unit: Unit = text.parse().map_err(|unknown| {
        let hint = hint(&unknown);
        ConfigProblem::Name(unknown, Some(hint))
    })?;
    vital.check_unit(unit)?;
    Ok(unit)
}

fn name<T: core::str::FromStr<Err = UnknownName>>(
    text: &str,
    names: impl Iterator<Item = &'static str>,
) -> Result<T, ConfigProblem> {
    text.parse().map_err(|unknown| {
        let known: Vec<&str> = names.collect();
        ConfigProblem::Name(unknown, Some(format!("known are {}", known.join(", "))))
    })
}

impl ValueRule {
    fn new(
        config: &ValueConfig,
        mapping: &MappingConfig,
        zones: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, KeyProblem> {
        let path: Path = config.path.parse().map_err(at("path"))?;
        let vital: Vital = name(&config.vital, Vital::ALL.iter().map(|v| v.as_str())).map_err(at("vital"))?;
        let statistic = match &config.statistic {
            Some(text) => Some(name(text, Statistic::ALL.iter().map(|s| s.as_str())).map_err(at("statistic"))?),
            None => None,
        };
        if config.scale.is_some_and(|scale| scale == Decimal::ZERO) {
            return Err(at("scale")(ConfigProblem::ZeroScale));
        }
        let entries = |key, found| match found {
            0..=ENTRIES_PER_VALUE_MAX => Ok(()),
            _ => Err(at(key)(ConfigProblem::Entries { found })),
        };
        entries("ignore", config.ignore.len())?;
        entries("units", config.units.len())?;
        let units = UnitRule::new(config, vital, &path)?;
        let (time, prefix) = match &config.time {
            Some(time) => (time, "time"),
            None => (&mapping.time, "time (of the mapping)"),
        };
        let time = TimeRule::new(time, &path, zones).map_err(|(key, problem)| (format!("{prefix}.{key}"), problem))?;
        let ignore = config.ignore.iter().map(|text| Sentinel::new(text)).collect();
        let exponent = match &config.exponent_path {
            Some(text) => Some(Beside::new(text, &path).map_err(at("exponent_path"))?),
            None => None,
        };
        let condition = |own: &Option<ConditionConfig>, general: &Option<ConditionConfig>, key| {
            Condition::new(if own.is_some() { own } else { general }, &path, key)
        };
        let only_if = condition(&config.only_if, &mapping.only_if, "only_if")?;
        let unless = condition(&config.unless, &mapping.unless, "unless")?;
        let self_reported = condition(&config.self_reported, &mapping.self_reported, "self_reported")?;
        let ValueConfig { scale, text, required, .. } = *config;
        Ok(Self {
            path,
            vital,
            units,
            scale,
            exponent,
            ignore,
            text,
            required,
            statistic,
            time,
            only_if,
            unless,
            self_reported,
        })
    }

    /// The reading that a value makes; `None` for "no value".
    fn reading(&self, found: &Found<'_>, receipt: &ReceiptContext) -> Result<Option<Reading>, AdapterError> {
        let path = || self.path.to_string();
        let problem = |problem: DecimalError| AdapterError::Number { path: path(), problem };
        if Condition::holds(&self.only_if, found)? == Some(false)
            || Condition::holds(&self.unless, found)? == Some(true)
        {
            return Ok(None);
        }
        let sent = match found.value() {
            Value::Null => return Ok(None),
            Value::String(text) if self.ignore.iter().any(|sentinel| sentinel.text == *text) => return Ok(None),
            Value::String(text) if self.text => text.as_str(),
            Value::Number(number) => number.as_str(),
            other => return Err(AdapterError::WrongType { path: path(), found: kind(other) }),
        };
        let sent: Decimal = sent.parse().map_err(problem)?;
        if self.ignore.iter().any(|sentinel| sentinel.number == Some(sent)) {
            return Ok(None);
        }
        let value = match self.scale {
            Some(scale) => sent.checked_mul(scale).map_err(problem)?,
            None => sent,
        };
        let value = match self.exponent(found)? {
            Some(exponent) => value.checked_mul(Decimal::new(1, exponent)).map_err(problem)?,
            None => value,
        };
        let unit = self.units.unit(found)?;
        let time = self.time.time(found, receipt);
        let reading = Reading::new(self.vital, value, unit, receipt.device.clone(), time)
            .map_err(|problem| AdapterError::Unit { path: path(), problem })?;
        let reported = Condition::holds(&self.self_reported, found)? == Some(true);
        let reading = if reported { reading.with_flags(Flags::SELF_REPORTED) } else { reading };
        Ok(Some(match self.statistic {
            Some(statistic) => reading.with_statistic(statistic),
            None => reading,
        }))
    }

    /// The power of ten that the document has for the value.
    fn exponent(&self, found: &Found<'_>) -> Result<Option<i8>, AdapterError> {
        let Some(beside) = &self.exponent else { return Ok(None) };
        let path = || beside.path.to_string();
        match beside.value(found)? {
            // Without its power of ten the number may be a thousand times what was measured.
            None => Err(AdapterError::Missing { path: path() }),
            Some(Value::Number(number)) => match number.as_str().parse() {
                Ok(exponent) => Ok(Some(exponent)),
                Err(_) => Err(AdapterError::Number { path: path(), problem: DecimalError::Overflow }),
            },
            Some(other) => Err(AdapterError::WrongType { path: path(), found: kind(other) }),
        }
    }
}

impl UnitRule {
    fn new(config: &ValueConfig, vital: Vital, path: &Path) -> Result<Self, KeyProblem> {
        let fixed = match (&config.unit, &config.unit_path) {
            (Some(text), _) => Some(unit(text, vital).map_err(at("unit"))?),
            (None, Some(_)) => None,
            (None, None) => Some(vital.unit()),
        };
        let sent = match &config.unit_path {
            Some(text) => Some(Beside::new(text, path).map_err(at("unit_path"))?),
            None => None,
        };
        if sent.is_none() && !config.units.is_empty() {
            return Err(at("units")(ConfigProblem::Combination("is for values with a unit_path")));
        }
        let word = |(word, text): (&String, &String)| match unit(text, vital) {
            Ok(unit) => Ok((word.clone(), unit)),
            Err(problem) => Err((format!("units.{word:?}"), problem)),
        };
        let words = config.units.iter().map(word).collect::<Result<_, _>>()?;
        Ok(Self { fixed, sent, words })
    }

    /// The unit of a value that was found.
    fn unit(&self, found: &Found<'_>) -> Result<Unit, AdapterError> {
        let Some(beside) = &self.sent else { return self.fallback("") };
        let path = beside.path.to_string();
        // Devices number their units (0, 1) as often as they name them.
        let text = match beside.value(found)? {
            None => return self.fallback(&path),
            Some(Value::String(text)) => text.clone(),
            Some(other @ (Value::Number(_) | Value::Bool(_))) => other.to_string(),
            Some(other) => return Err(AdapterError::UnknownUnit { path, found: kind(other).to_owned() }),
        };
        let word = self.words.iter().find(|(word, _)| *word == text).map(|(_, unit)| *unit);
        let unknown = || AdapterError::UnknownUnit { path, found: shortened(&text) };
        word.or_else(|| Unit::from_sender(&text)).ok_or_else(unknown)
    }

    fn fallback(&self, path: &str) -> Result<Unit, AdapterError> {
        self.fixed.ok_or_else(|| AdapterError::MissingUnit { path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests;
