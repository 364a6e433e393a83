//! What a node's files turned out to be, for people and for programs.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::scrub::{Fault, Finding};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// Its name in the data directory.
    pub file: String,
    /// Entries that were looked at.
    pub entries: u64,
    /// Events in them.
    pub events: u64,
    /// What is wrong, in the order in which it was found; at most [`crate::scrub::FINDINGS_MAX`] of a file, and
    /// [`crate::scrub::REPORTS_MAX`] of what other nodes let in.
    pub findings: Vec<Told>,
    /// How much is wrong in all.
    pub found: u64,
    /// What else is to be known: nothing that is wrong.
    pub notes: Vec<String>,
}

/// A finding as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The shard, where it is about one.
    pub shard: Option<u16>,
    /// The entry of its log, where it is about one.
    pub entry: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// "disk": this node lost or altered it; "orderer": a node that led the shard let it in.
    pub fault: &'static str,
    /// What is to be done.
    pub next: String,
}

impl From<&Finding> for Told {
    fn from(finding: &Finding) -> Self {
        let fault = match finding.what.fault() {
            Fault::Disk => "disk",
            Fault::Orderer => "orderer",
        };
        Self {
            shard: Some(finding.shard),
            entry: finding.entry,
            what: finding.what.to_string(),
            fault,
            next: finding.what.remedy().to_string(),
        }
    }
}

/// A node's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The files.
    pub files: Vec<Looked>,
    /// How long it took.
    pub took_ms: u64,
    /// Events looked at in a second.
    pub events_per_s: u64,
}

impl Report {
    pub(super) fn new(files: Vec<Looked>, took: Duration) -> Self {
        let events: u64 = files.iter().map(|file| file.events).sum();
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { files, took_ms: ms, events_per_s: events.saturating_mul(1000) / ms.max(1) }
    }

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.files.iter().all(|file| file.found == 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            let Looked { file: name, entries, events, found, .. } = file;
            match found {
                0 => write!(f, "{name}: sound")?,
                found => write!(f, "{name}: {found} findings")?,
            }
            if *entries > 0 {
                write!(f, ", {entries} entries")?;
            }
            if *events > 0 {
                write!(f, ", {events} events")?;
            }
            writeln!(f)?;
            for note in &file.notes {
                writeln!(f, "  {note}")?;
            }
            for told in &file.findings {
                let entry = told.entry.map(|entry| format!("entry {entry}: ")).unwrap_or_default();
                writeln!(f, "  {entry}{}\n    → {}", told.what, told.next)?;
            }
            let more = found.saturating_sub(u64::try_from(file.findings.len()).unwrap_or(u64::MAX));
            if more > 0 {
                writeln!(f, "  and {more} more")?;
            }
        }
        let seconds = self.took_ms / 1000;
        write!(f, "{} s, {} events/s: ", seconds, self.events_per_s)?;
        f.write_str(if self.is_sound() {
            "everything is as it was written"
        } else {
            "something is not as it was written"
        })
    }
}
