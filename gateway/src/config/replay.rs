//! A file of captured messages.

use std::path::PathBuf;

use firmware_adapters::Format;
use serde::{Deserialize, Serialize};

/// How a file of captured messages is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayFormat {
    /// One JSON object a line: `{"at_ms": 1700000000000, "payload": {…}}`; a payload that is a text is taken as its bytes.
    JsonLines,
    /// A head line with the columns' names, then one message a line: it becomes `{"column": value, …}`. No quoting.
    Csv,
}

/// Messages of one device, played again as if they came now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Names the source in logs and in the spool, which keeps the place in the file under this name.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// How it is written.
    pub format: ReplayFormat,
    /// The device.
    pub device: String,
    /// The device's user slot.
    #[serde(default)]
    pub user: Option<String>,
    /// The mapping of the messages; or `message`.
    #[serde(default)]
    pub mapping: Option<String>,
    /// What the messages are written in; or `mapping`.
    #[serde(default)]
    pub message: Option<Format>,
    /// The Open mHealth schema of documents without a header (`omh:heart-rate:2.0`).
    #[serde(default)]
    pub schema: Option<String>,
    /// The zone of times that are sent without one. Left out: UTC, and the readings say how uncertain that is.
    #[serde(default)]
    pub zone: Option<String>,
    /// Times as fast as it was captured; 0: as fast as the spool takes it.
    #[serde(default = "speed")]
    pub speed: f64,
    /// CSV: the column with the time (RFC 3339, or local without a zone) that the pace is taken from. JSON lines have `at_ms`.
    #[serde(default)]
    pub time_column: Option<String>,
}

fn speed() -> f64 {
    1.0
}
