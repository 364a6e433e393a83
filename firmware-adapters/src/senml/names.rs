//! Which record is which vital: by the end of its name and by its unit, never guessed.
//!
//! What holds without configuration: the name ends in a vital's own name (`…:heart_rate`, `…/body_temperature`) or in one of
//! the few short names below, and the unit measures that vital. A configured row comes first; a row without a vital says that
//! such records are not about a body.

use ehe::unit::{Quantity, Unit};
use ehe::vital::{UnitMismatch, Vital};
use serde::Deserialize;

use crate::limits::{SENML_NAME_MAX_BYTES, SENML_ROWS_MAX, SENML_UNIT_MAX_BYTES};

/// Short names in common use that mean one vital wherever the unit fits.
const SHORT: &[(&str, Vital)] = &[
    ("hr", Vital::HeartRate),
    ("heartrate", Vital::HeartRate),
    ("pulse", Vital::PulseRate),
    ("spo2", Vital::OxygenSaturation),
    ("systolic", Vital::SystolicBloodPressure),
    ("sbp", Vital::SystolicBloodPressure),
    ("diastolic", Vital::DiastolicBloodPressure),
    ("dbp", Vital::DiastolicBloodPressure),
    ("body_temp", Vital::BodyTemperature),
    ("bmi", Vital::BodyMassIndex),
    ("body_fat", Vital::BodyFatPercentage),
    ("steps", Vital::StepCount),
];

/// One row of a configured mapping.
///
/// ```toml
/// [[senml]]
/// name = "ow:10e2073a01080063:temp"      # the end of the resolved name
/// unit = "Cel"                           # as it is sent
/// vital = "body_temperature"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct NameConfig {
    /// The end of the resolved name: all of it, or what follows a `:` or `/`.
    pub name: String,
    /// The unit as it is sent.
    pub unit: String,
    /// What it is, by the vital's name. Left out: nothing about a body.
    #[serde(default)]
    pub vital: Option<String>,
    /// What the unit is in UCUM, if it is not known as it is sent.
    #[serde(default)]
    pub ucum: Option<String>,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than a SenML name or unit may be.
    #[error("an empty name or unit, or one longer than {SENML_NAME_MAX_BYTES} and {SENML_UNIT_MAX_BYTES} bytes")]
    Length,
    /// Too many rows.
    #[error("more than {SENML_ROWS_MAX} rows")]
    TooMany,
    /// No vital of that name.
    #[error(transparent)]
    Vital(#[from] ehe::coded::UnknownName),
    /// A unit that nobody knows.
    #[error("unknown unit {0:?}; say in `ucum` what it is")]
    Unit(String),
    /// A unit that does not measure the vital.
    #[error(transparent)]
    Mismatch(#[from] UnitMismatch),
    /// `ucum` without a vital.
    #[error("`ucum` without `vital`")]
    UcumAlone,
}

/// What names and units mean.
#[derive(Debug, Clone, Default)]
pub struct Names {
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
struct Row {
    name: String,
    unit: String,
    meaning: Option<(Vital, Unit)>,
}

impl Names {
    /// Checks configured rows; the first one that fits a record counts.
    ///
    /// # Errors
    /// The row (from 0) and what is wrong with it.
    pub fn new(rows: &[NameConfig]) -> Result<Self, (usize, NameError)> {
        if rows.len() > SENML_ROWS_MAX {
            return Err((SENML_ROWS_MAX, NameError::TooMany));
        }
        let made = rows.iter().enumerate().map(|(index, row)| Row::new(row).map_err(|error| (index, error)));
        Ok(Self { rows: made.collect::<Result<_, _>>()? })
    }

    /// The vital that a resolved name and its unit mean, and the unit in UCUM.
    pub(super) fn meaning(&self, name: &str, unit: &str) -> Option<(Vital, Unit)> {
        if let Some(row) = self.rows.iter().find(|row| row.unit == unit && ends_in(name, &row.name)) {
            return row.meaning;
        }
        let last = name.rsplit([':', '/']).next().unwrap_or(name);
        let own: Option<Vital> = last.parse().ok();
        let vital = own.or_else(|| SHORT.iter().find(|(short, _)| *short == last).map(|(_, vital)| *vital))?;
        measured(unit, vital).map(|unit| (vital, unit))
    }
}

impl Row {
    fn new(config: &NameConfig) -> Result<Self, NameError> {
        let NameConfig { name, unit, vital, ucum } = config.clone();
        if name.is_empty() || unit.is_empty() || name.len() > SENML_NAME_MAX_BYTES || unit.len() > SENML_UNIT_MAX_BYTES
        {
            return Err(NameError::Length);
        }
        let meaning = match (vital, ucum) {
            (None, None) => None,
            (None, Some(_)) => return Err(NameError::UcumAlone),
            (Some(vital), ucum) => {
                let vital: Vital = vital.parse()?;
                let found = match &ucum {
                    Some(code) => Unit::from_ucum(code),
                    None => of_senml(&unit, vital),
                };
                let found = found.ok_or_else(|| NameError::Unit(ucum.unwrap_or_else(|| unit.clone())))?;
                vital.check_unit(found)?;
                Some((vital, found))
            }
        };
        Ok(Self { name, unit, meaning })
    }
}

/// All of the name, or what follows a separator of its parts.
fn ends_in(name: &str, end: &str) -> bool {
    let before = name.strip_suffix(end);
    before.is_some_and(|before| before.is_empty() || before.ends_with([':', '/']) || end.starts_with([':', '/']))
}

/// The unit, if it measures the vital.
fn measured(unit: &str, vital: Vital) -> Option<Unit> {
    of_senml(unit, vital).filter(|unit| vital.accepts(*unit))
}

/// Units of SenML's registry that are written otherwise in UCUM; what they count depends on the vital.
fn of_senml(unit: &str, vital: Vital) -> Option<Unit> {
    match unit {
        "/" => Some(Unit::Unity),
        "%EL" if vital == Vital::BatteryLevel => Some(Unit::Percent),
        "count" if vital.unit().quantity() == Quantity::Count => Some(vital.unit()),
        _ => Unit::from_sender(unit),
    }
}
