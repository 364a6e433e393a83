//! How long it took: from the gateway's lab report (`report_confirmations`), joined with the journal.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde::Deserialize;

use crate::account::Compared;
use crate::journal::Entry;

#[derive(Debug, Deserialize)]
struct Line {
    device: String,
    vital: String,
    at_ms: i64,
    confirmed_ms: u64,
}

/// When each reading's receipt was verified.
#[derive(Debug, Clone, Default)]
pub struct Latencies(BTreeMap<(String, String, i64), u64>);

impl Latencies {
    /// Reads the report. There is none before the first confirmation.
    pub fn read(report: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(report) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        let mut confirmed = BTreeMap::new();
        // A gateway that was killed while it wrote leaves half a line; it tells the same again.
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            confirmed.entry((line.device, line.vital, line.at_ms)).or_insert(line.confirmed_ms);
        }
        Ok(Self(confirmed))
    }

    /// Readings confirmed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is confirmed yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Milliseconds from sending to the verified receipt, of each published reading that has one; sorted.
    pub fn of(&self, compared: &Compared) -> Vec<u64> {
        let mut times: Vec<u64> = compared.published.iter().filter_map(|entry| self.one(entry, compared)).collect();
        times.sort_unstable();
        times
    }

    fn one(&self, entry: &Entry, compared: &Compared) -> Option<u64> {
        let at_ms = entry.time.parse::<Timestamp>().ok()?.as_millisecond();
        let confirmed = self.0.get(&(entry.device.clone(), entry.vital.clone(), at_ms))?;
        Some(confirmed.saturating_sub(*compared.sent_ms.get(entry)?))
    }
}
