//! The gateway in numbers: no readings, no names but those of held devices. Written to `status.json` for `ehe-gateway status`
//! and `held`, because the database file belongs to the running program alone.

pub mod freshness;
mod line;
pub mod run_lock;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ehe::time::UnixMs;
use serde::{Deserialize, Serialize};

pub use self::line::{Faults, line};
use self::run_lock::Run;
use crate::spool::{HeldDevice, SpoolStatus, Stored};
use crate::uplink::UplinkStatus;
use crate::window::Reason;

/// One source in numbers.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SourceCounts {
    /// Connected, or reading.
    pub connected: bool,
    /// The broker has confirmed the subscriptions.
    pub subscribed: bool,
    /// Messages received, redelivered ones included.
    pub messages: u64,
    /// Messages acknowledged after their commit.
    pub acknowledged: u64,
    /// Messages that had been stored before.
    pub duplicates: u64,
    /// Connections that ended.
    pub disconnects: u64,
    /// Times that the broker did not know the session any more: what it had queued is gone.
    pub sessions_lost: u64,
    /// Messages that the broker says it dropped because its queue was full.
    pub dropped_by_broker: u64,
    /// Messages without delivery guarantee (QoS 0) that came while the gateway could not take them.
    pub dropped_unguaranteed: u64,
    /// What ended the last connection.
    pub last_error: Option<&'static str>,
}

/// What is counted since the start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Readings stored for a room.
    pub readings: u64,
    /// Readings held for want of an assignment.
    pub readings_held: u64,
    /// Readings of unassigned devices for which there was no room.
    pub readings_dropped: u64,
    /// Readings of rooms that had filled their share with what cannot be sealed to them.
    pub readings_thinned: u64,
    /// Messages that gave no readings, by the kind of their fault.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Messages that were understood and gave no reading, by source and mapping or format: heartbeats, sensors that were not worn,
    /// devices on no body, or a mapping whose paths are not what the device sends. With `/comparator` and `/absent` behind: an
    /// Observation that has a bound in place of a value, or says why it has none.
    pub no_value: BTreeMap<String, u64>,
    /// Windows with readings.
    pub windows_open: usize,
    /// Windows whose room cannot be sealed to at present.
    pub windows_on_hold: usize,
    /// Times that a window was put on hold.
    pub holds: u64,
    /// Windows closed because their time was over.
    pub closed_by_time: u64,
    /// Windows closed by an alarm.
    pub closed_by_alarm: u64,
    /// Windows closed because they were full.
    pub closed_full: u64,
    /// Readings that became part of an event.
    pub readings_sealed: u64,
    /// Sources, by name.
    pub sources: BTreeMap<String, SourceCounts>,
}

/// Counters that all tasks share.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Counts>);

impl Counters {
    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// As they stand.
    pub fn snapshot(&self) -> Counts {
        self.with(|counts| counts.clone())
    }

    /// Changes a source's numbers.
    pub fn source(&self, name: &str, change: impl FnOnce(&mut SourceCounts)) {
        self.with(|counts| {
            if let Some(source) = counts.sources.get_mut(name) {
                change(source);
            } else {
                change(counts.sources.entry(name.to_owned()).or_default());
            }
        });
    }

    /// A message gave no readings. Gives how many of this kind there were.
    pub fn rejected(&self, kind: &'static str) -> u64 {
        self.with(|counts| {
            let count = counts.rejected.entry(kind).or_default();
            *count += 1;
            *count
        })
    }

    /// A message gave no reading. Gives how many such there were of this source and route.
    pub fn no_value(&self, source: &str, route: &str, why: Option<&str>) -> u64 {
        let name = [source, route].into_iter().chain(why).collect::<Vec<_>>().join("/");
        self.with(|counts| {
            let count = counts.no_value.entry(name).or_default();
            *count += 1;
            *count
        })
    }

    /// A message is durable.
    pub fn stored(&self, source: &str, stored: &Stored) {
        self.with(|counts| {
            counts.readings += stored.arrivals.iter().map(|a| u64::from(a.readings)).sum::<u64>();
            counts.readings_held += stored.held;
            counts.readings_dropped += stored.dropped;
            counts.readings_thinned += stored.thinned;
        });
        self.source(source, |s| {
            s.acknowledged += 1;
            s.duplicates += u64::from(stored.duplicate);
        });
    }

    /// How many windows there are.
    pub fn windows(&self, open: usize, on_hold: usize) {
        self.with(|counts| (counts.windows_open, counts.windows_on_hold) = (open, on_hold));
    }

    /// A window was put on hold.
    pub fn held_back(&self) {
        self.with(|counts| counts.holds += 1);
    }

    /// A window became events.
    pub fn closed(&self, reason: Reason, readings: usize) {
        self.with(|counts| {
            match reason {
                Reason::Alarm => counts.closed_by_alarm += 1,
                Reason::Full => counts.closed_full += 1,
                Reason::Time => counts.closed_by_time += 1,
            }
            counts.readings_sealed += readings as u64;
        });
    }
}

/// What `status.json` holds.
#[derive(Debug, Serialize)]
pub struct Status {
    /// When it was written.
    pub written_ms: UnixMs,
    /// By which run: its process id, and when it began to count.
    #[serde(flatten)]
    pub run: Run,
    /// Counts since the start.
    pub counts: Counts,
    /// The spool.
    pub spool: SpoolStatus,
    /// The uplink.
    pub uplink: UplinkStatus,
    /// What went wrong, by who can mend it.
    pub faults: Faults,
    /// Devices that nobody is assigned to.
    pub held: Vec<HeldDevice>,
}

/// What `held` reads of it.
#[derive(Debug, Deserialize)]
pub struct HeldPart {
    /// Devices that nobody is assigned to.
    pub held: Vec<HeldDevice>,
}

/// Writes the file beside the old one and puts it in its place, so that a reader never sees half of it.
pub fn write(path: &Path, status: &Status) -> io::Result<()> {
    let temporary = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    serde_json::to_writer_pretty(&mut file, status)?;
    file.write_all(b"\n")?;
    std::fs::rename(&temporary, path)
}

/// Counters in the form in which tasks share them.
pub fn counters() -> Arc<Counters> {
    Arc::default()
}
