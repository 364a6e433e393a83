//! The configuration of a mapping, as it stands in the gateway's file, and what can be wrong with it.

use std::collections::BTreeMap;

use ehe::coded::UnknownName;
use ehe::decimal::Decimal;
use ehe::vital::UnitMismatch;
use serde::Deserialize;

use super::path::PathError;
use crate::limits::{ENTRIES_PER_VALUE_MAX, VALUES_PER_MAPPING_MAX};

/// One shape of document: which paths hold which vitals.
///
/// ```toml
/// [[mapping]]
/// name = "cuff"
/// time = { path = "ts", format = "unix_s" }
///
/// [[mapping.value]]
/// path = "bp.sys"
/// vital = "systolic_blood_pressure"
/// unit = "mm[Hg]"
///
/// [[mapping.value]]
/// path = "samples[*].hr"                 # one reading an element
/// vital = "heart_rate"
/// ignore = ["0", "255"]                  # the device's marks of "no value"
/// time = { path = "samples[*].t", format = "unix_ms" }
///
/// [[mapping.value]]
/// path = "data[type=temp].value"         # the elements whose member equals
/// vital = "body_temperature"
/// unit_path = "data[type=temp].unit"
/// units = { "0" = "Cel", "1" = "[degF]" }
/// scale = "0.1"                          # exact
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappingConfig {
    /// What sources and messages call it.
    pub name: String,
    /// Where the time of every value stands that does not say otherwise. Left out: the device sends none.
    #[serde(default)]
    pub time: TimeConfig,
    /// Which values are readings, of all values that do not say it themselves. Left out: all.
    #[serde(default)]
    pub only_if: Option<ConditionConfig>,
    /// Which values are none.
    #[serde(default)]
    pub unless: Option<ConditionConfig>,
    /// Which values a person typed in.
    #[serde(default)]
    pub self_reported: Option<ConditionConfig>,
    /// Of what one document tells of one only, as readings are filed under one name.
    #[serde(default)]
    pub one: Vec<OneConfig>,
    /// The values, 1 to 64.
    #[serde(rename = "value", default)]
    pub values: Vec<ValueConfig>,
}

/// One value of a document, or with `[*]` one an element.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueConfig {
    /// Where it stands ([`super::path`] has the grammar). A member that is not there, and `null`, are no value.
    pub path: String,
    /// What it is, by the vital's name.
    pub vital: String,
    /// The sender's unit as UCUM code. Left out: the vital's canonical unit, unless there is a `unit_path`.
    #[serde(default)]
    pub unit: Option<String>,
    /// Where the document says the unit. If it does not, `unit` is taken; without `unit` that is an error.
    #[serde(default)]
    pub unit_path: Option<String>,
    /// The sender's words for units, and their UCUM codes. UCUM codes and common spellings (`mmHg`, `°F`) are known without.
    #[serde(default)]
    pub units: BTreeMap<String, String>,
    /// A factor that makes the sent number one in `unit`, exactly. Left out: 1, and the digits stay as sent.
    #[serde(default)]
    pub scale: Option<Decimal>,
    /// Where the document has a power of ten that the sent number is multiplied by. A value without it is an error.
    #[serde(default)]
    pub exponent_path: Option<String>,
    /// What the device sends for "no value": numbers (compared by value, before `scale`) or texts.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Whether a number may be written as text (`"72"`).
    #[serde(default)]
    pub text: bool,
    /// Whether a document without this value is refused.
    #[serde(default)]
    pub required: bool,
    /// What it summarises: `average`, `maximum` … Left out: it is a plain reading.
    #[serde(default)]
    pub statistic: Option<String>,
    /// Where its time stands, if not where the mapping says.
    #[serde(default)]
    pub time: Option<TimeConfig>,
    /// When it is a reading, if not when the mapping says.
    #[serde(default)]
    pub only_if: Option<ConditionConfig>,
    /// When it is none.
    #[serde(default)]
    pub unless: Option<ConditionConfig>,
    /// When a person typed it in.
    #[serde(default)]
    pub self_reported: Option<ConditionConfig>,
}

/// What else the document says beside a value.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionConfig {
    /// Where. As far as it begins like the value's path it means the same element.
    pub path: String,
    /// One of these: texts, numbers (compared by value), `true`, `false`.
    pub equals: Vec<String>,
}

/// What all values of a document have in common. A document with readings in which they differ is refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneConfig {
    /// What there must not be several of, for the message: `people`, `days`.
    pub what: String,
    /// Where it is said; what is found at all of them is the same.
    pub paths: Vec<String>,
}

/// Where the time of a value stands, and how it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeConfig {
    /// Where it stands. As far as it begins like the value's path it means the same element.
    #[serde(default)]
    pub path: Option<String>,
    /// Where the date stands, if date and time of day stand apart (`rfc3339` and `local` only).
    #[serde(default)]
    pub date_path: Option<String>,
    /// How it is written.
    #[serde(default)]
    pub format: TimeFormat,
    /// The zone of `local` times: `UTC`, `+02:00`, an IANA name or a POSIX TZ string.
    #[serde(default)]
    pub zone: Option<String>,
    /// For blocks of samples: ms from one element to the next. With a path, that time is the first element's; without, the last
    /// element was measured at receipt.
    #[serde(default)]
    pub every_ms: Option<u32>,
    /// Where the clock's offset from UTC stands (`-0600`, `+02:00`), for `local_unix_s`.
    #[serde(default)]
    pub offset_path: Option<String>,
    /// How far the device's clock may be off, in ms. Left out: as finely as the time is written.
    #[serde(default)]
    pub uncertainty_ms: Option<u32>,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// The device sends no time.
    #[default]
    None,
    /// Seconds since 1970, a fraction allowed; as number or text.
    UnixS,
    /// Milliseconds since 1970.
    UnixMs,
    /// Microseconds since 1970. Kept to the millisecond, as all times are.
    UnixUs,
    /// Local time counted as if it were a Unix time in seconds; `offset_path` says how far that clock is from UTC.
    LocalUnixS,
    /// Date and time with `Z` or an offset (RFC 3339, ISO 8601).
    Rfc3339,
    /// Date and time without a zone: `zone` says which to assume. Where one is sent nevertheless, that one counts.
    Local,
}

/// What is wrong with a mapping, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mapping {mapping:?}: {key}: {problem}")]
pub struct ConfigError {
    /// The mapping's name.
    pub mapping: String,
    /// The key, as it stands in the file: `value[2].unit`.
    pub key: String,
    /// What is wrong with it.
    pub problem: ConfigProblem,
}

/// What is wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// Neither 1 to 64 values.
    #[error("a mapping has 1 to {VALUES_PER_MAPPING_MAX} values, this one has {found}")]
    Values {
        /// Values found.
        found: usize,
    },
    /// A list or table that is too long.
    #[error("at most {ENTRIES_PER_VALUE_MAX} entries are allowed, there are {found}")]
    Entries {
        /// Entries found.
        found: usize,
    },
    /// Not TOML, or another key than a mapping has.
    #[error("{0}")]
    Syntax(String),
    /// A name that is none of a vital, statistic or unit.
    #[error("{0}{hint}", hint = .1.as_ref().map_or(String::new(), |hint| format!("; {hint}")))]
    Name(UnknownName, Option<String>),
    /// A unit that does not measure the vital.
    #[error(transparent)]
    Unit(#[from] UnitMismatch),
    /// Not a path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A path with more `[*]` than the value's path has: there would be nothing to choose the element by.
    #[error("has more [*] than the path of its value; write an index or [member=value]")]
    Wildcards,
    /// A scale of 0 would make every value 0.
    #[error("a scale of 0")]
    ZeroScale,
    /// Keys that need, or exclude, each other.
    #[error("{0}")]
    Combination(&'static str),
    /// A zone that nobody knows.
    #[error(
        "unknown zone {0:?}; write UTC, an offset like +02:00, an IANA name that this machine has, or a POSIX TZ string"
    )]
    Zone(String),
}
