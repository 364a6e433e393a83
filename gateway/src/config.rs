//! The gateway's configuration: one TOML file, unknown keys refused, every option with a default or required.
//! `gateway.example.toml` beside this crate shows all of them.

mod check;
mod mqtt;
mod parts;
mod replay;
mod route;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use certs::FileError;
use ehe::id::AllianceId;
use ehe::vital::Vital;
use firmware_adapters::json::MappingConfig;
use firmware_adapters::senml::NameConfig;
use serde::{Deserialize, Serialize};

pub use self::check::Checked;
pub use self::mqtt::{Mqtt, Subscription, Tls};
pub use self::parts::{Assignment, ClockConfig, LogConfig, SpoolConfig, WindowConfig};
pub use self::replay::{Replay, ReplayFormat};
pub use self::route::{Route, Router, Wanted};
use crate::alarm::Threshold;
use crate::spool::SpoolLimits;
use crate::uplink::UplinkConfig;

/// A window is sealed this long after its first reading came, unless `window.window_ms` says otherwise.
pub const WINDOW_MS: u64 = 15_000;
/// Largest configuration file.
const FILE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway's credentials directory, as `ehe-certs` made it.
    pub credentials_dir: PathBuf,
    /// Where the spool lies. On the gateway's encrypted volume.
    pub data_dir: PathBuf,
    /// The alliance that this gateway belongs to; credentials of another are refused.
    #[serde(default)]
    pub alliance: Option<AllianceId>,
    /// For the lab: a file that gets a JSON line for each confirmed reading (device and times, no values).
    #[serde(default)]
    pub report_confirmations: Option<PathBuf>,
    /// What is logged.
    #[serde(default)]
    pub log: LogConfig,
    /// The gateway's clock.
    #[serde(default)]
    pub clock: ClockConfig,
    /// When readings become an event.
    #[serde(default)]
    pub window: WindowConfig,
    /// What lies on the gateway's disk.
    #[serde(default)]
    pub spool: SpoolConfig,
    /// How events travel to the nodes.
    #[serde(default)]
    pub uplink: UplinkConfig,
    /// Thresholds that differ from the defaults, by vital.
    #[serde(default)]
    pub alarm: BTreeMap<Vital, Threshold>,
    /// Brokers.
    #[serde(default)]
    pub mqtt: Vec<Mqtt>,
    /// Captured messages, played again.
    #[serde(default)]
    pub replay: Vec<Replay>,
    /// Shapes of documents.
    #[serde(default, skip_serializing)]
    pub mapping: Vec<MappingConfig>,
    /// What the names and units of SenML mean, beside what they mean anyhow.
    #[serde(default)]
    pub senml: Vec<NameConfig>,
    /// Which device belongs to whom.
    #[serde(default)]
    pub assignment: Vec<Assignment>,
}

/// What is wrong with a configuration, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, or one that it names, cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file itself is not there.
    #[error("{} is not there: name the configuration file with --config", .0.display())]
    Missing(PathBuf),
    /// Bytes that are no text.
    #[error("{} is not UTF-8: the configuration is a TOML file, and TOML is UTF-8; save it again in that encoding", .0.display())]
    NotText(PathBuf),
    /// Not TOML, an unknown key, a missing one, or a value of another type.
    #[error("{}: {message}; gateway.example.toml shows every key", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and key.
        message: String,
    },
    /// A value that cannot be.
    #[error("{key}: {problem}; {remedy}")]
    Value {
        /// The key, as it stands in the file: `mqtt[0].subscription[1].topic`.
        key: String,
        /// What is wrong with it.
        problem: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// A mapping.
    #[error(transparent)]
    Mapping(#[from] firmware_adapters::json::ConfigError),
}

impl ConfigError {
    pub(crate) fn value(key: impl Into<String>, problem: impl ToString, remedy: &'static str) -> Self {
        Self::Value { key: key.into(), problem: problem.to_string(), remedy }
    }
}

impl Config {
    /// Reads and parses the file; [`Config::check`] judges the values.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = certs::file::read_public(path, FILE_MAX_BYTES, "").map_err(|why| match why {
            FileError::Missing { path, .. } => ConfigError::Missing(path),
            why => ConfigError::File(why),
        })?;
        Self::parse(std::str::from_utf8(&bytes).map_err(|_| ConfigError::NotText(path.to_owned()))?, path)
    }

    /// The spool's bounds.
    pub fn spool_limits(&self) -> SpoolLimits {
        self.spool.limits(self.mqtt.iter().map(|source| source.receive_maximum.into()).min().unwrap_or(usize::MAX))
    }

    /// Parses the text of the file at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let message = certs::file::toml_fault(text, &error);
            ConfigError::Syntax { path: path.to_owned(), message }
        })
    }
}

#[cfg(test)]
mod tests;
