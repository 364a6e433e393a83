//! For the lab: which readings were confirmed and when, one JSON line each, to measure how long they took.
//!
//! Off unless `report_confirmations` names a file. The lines hold no values, but devices and times, which are personal data:
//! the file is for its owner only, and is not for a home. A line may come twice if the gateway was killed in between.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ehe::id::EheId;
use ehe::reading::DeviceId;
use ehe::time::UnixMs;
use ehe::vital::Vital;

use crate::clock::WallClock;
use crate::spool::ReportedReading;

/// Appends to the file. Cheap to clone.
#[derive(Clone)]
pub struct Report {
    file: Arc<Mutex<File>>,
    clock: WallClock,
}

#[derive(serde::Serialize)]
struct Line<'a> {
    event: EheId,
    device: &'a DeviceId,
    vital: Vital,
    at_ms: UnixMs,
    received_ms: UnixMs,
    confirmed_ms: UnixMs,
}

impl Report {
    /// Opens the file to append to it.
    pub fn open(path: &Path, clock: WallClock) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file: Arc::new(Mutex::new(file)), clock })
    }

    /// Writes one line for each reading of the events. A failing disk costs lines, not readings.
    pub async fn confirmed(&self, events: Vec<(EheId, Vec<ReportedReading>)>) {
        let (file, confirmed_ms) = (self.file.clone(), (self.clock)());
        let written = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            for (event, readings) in &events {
                for ReportedReading { device, vital, at, received } in readings {
                    let line =
                        Line { event: *event, device, vital: *vital, at_ms: *at, received_ms: *received, confirmed_ms };
                    serde_json::to_writer(&mut text, &line)?;
                    text.push(b'\n');
                }
            }
            file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text)
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "report_confirmations: could not write");
        }
    }
}
