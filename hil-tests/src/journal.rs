//! What was published, written down before it is sent: the one side of the demo's account.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One reading, by the members that both sides of the account share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Room id.
    pub patient: String,
    /// Device id.
    pub device: String,
    /// Vital.
    pub vital: String,
    /// Digits as sent.
    pub value: String,
    /// UCUM.
    pub unit: String,
    /// RFC 3339, UTC, milliseconds.
    pub time: String,
}

/// An [`Entry`] as a line of `published.jsonl` or `read.jsonl`; the latter has further members, which the account does not need.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    patient: String,
    device: String,
    vital: String,
    value: serde_json::Number,
    unit: String,
    time: String,
    /// When it was sent, on the line that was written just before; Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    acked: bool,
}

/// What a line of the journal tells of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// About to be sent, at this time (Unix milliseconds).
    Sending(u64),
    /// Its PUBACK has come.
    Acked,
}

impl Line {
    /// The line of an entry.
    pub fn of(entry: &Entry, step: Step) -> anyhow::Result<Self> {
        Ok(Self {
            patient: entry.patient.clone(),
            device: entry.device.clone(),
            vital: entry.vital.clone(),
            value: serde_json::from_str(&entry.value)?,
            unit: entry.unit.clone(),
            time: entry.time.clone(),
            sent_ms: if let Step::Sending(ms) = step { Some(ms) } else { None },
            acked: step == Step::Acked,
        })
    }

    /// Whether the line says that the PUBACK came.
    pub fn is_acked(&self) -> bool {
        self.acked
    }

    /// When it was sent, if the line says so; Unix milliseconds.
    pub fn sent_ms(&self) -> Option<u64> {
        self.sent_ms
    }

    /// The entry.
    pub fn entry(self) -> Entry {
        Entry {
            patient: self.patient,
            device: self.device,
            vital: self.vital,
            value: self.value.to_string(),
            unit: self.unit,
            time: self.time,
        }
    }
}

/// `published.jsonl`.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Mutex<File>>);

impl Journal {
    /// A new file; an old one is replaced.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// Writes one line for each entry, in one write.
    pub fn write(&self, entries: &[Entry], step: Step) -> anyhow::Result<()> {
        let mut lines = String::new();
        for entry in entries {
            lines.push_str(&serde_json::to_string(&Line::of(entry, step)?)?);
            lines.push('\n');
        }
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(file.write_all(lines.as_bytes())?)
    }
}

/// Reads a file of lines.
pub fn read_lines(path: &Path) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines()
        .enumerate()
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|e| anyhow::anyhow!("{}, line {}: {e}", path.display(), at + 1))
        })
        .collect()
}
