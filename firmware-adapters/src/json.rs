//! JSON documents to readings.

mod config;
pub(crate) mod document;
pub mod fhir;
pub mod flat;
pub mod open_mhealth;
pub mod path;
pub mod theengs;
mod time;
pub mod vendor;

pub use config::{
    ConditionConfig, ConfigError, ConfigProblem, MappingConfig, OneConfig, TimeConfig, TimeFormat, ValueConfig,
};
