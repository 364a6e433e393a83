//! JSON documents to readings.

mod config;
mod document;
pub mod flat;
pub mod path;
mod time;

pub use config::{ConfigError, ConfigProblem, MappingConfig, TimeConfig, TimeFormat, ValueConfig};
