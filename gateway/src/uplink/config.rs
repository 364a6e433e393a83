//! The uplink's numbers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the gateway talks to storage nodes. Each option has a default that fits a home connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UplinkConfig {
    /// How long connecting to one node may take before the next one is tried. Default 10,000.
    pub connect_ms: u64,
    /// How long one node may take to answer, or to send the next part of an answer. Default 20,000.
    pub exchange_ms: u64,
    /// First pause after a failure; doubled with each further one, with jitter. Also the first pause between looks at a room whose
    /// readings are on hold (no grant, no epoch), and a tenth of the first one after a room refused to show its records: a look that
    /// succeeds costs a round trip, a refusal is counted in the patient's audit. Default 500.
    pub backoff_min_ms: u64,
    /// Longest pause after failures: what is spooled leaves at the latest so long after the nodes are back. A new grant is noticed
    /// within about the time for which it was missing, and at the latest after this where readings are on hold, after ten times this
    /// where the room refused to show its records.
    /// Default 60,000.
    pub backoff_max_ms: u64,
    /// Rooms that are sent at the same time. Each takes at most three frames (3 MiB) of memory: its events, the frame they go in,
    /// and the answer. Default 8.
    pub rooms_in_parallel: usize,
    /// A room's control records (grants, key epochs) are fetched again after this time even if no node says that they
    /// changed: an alarm, which is sealed at once, goes to keys that are at most so old. Before other readings are sealed they are
    /// fetched in any case. Default 60.
    pub control_refresh_s: u64,
    /// A node whose receipt did not verify is not asked again for this time. Default 600.
    pub distrust_s: u64,
    /// How often the credentials directory is looked at for a renewed certificate or a newer revocation list. Default 60.
    pub credentials_reload_s: u64,
    /// Events under one signature, at most 256. Default 256.
    pub run_events_max: usize,
}

impl Default for UplinkConfig {
    fn default() -> Self {
        Self {
            connect_ms: 10_000,
            exchange_ms: 20_000,
            backoff_min_ms: 500,
            backoff_max_ms: 60_000,
            rooms_in_parallel: 8,
            control_refresh_s: 60,
            distrust_s: 600,
            credentials_reload_s: 60,
            run_events_max: ehe::limits::RUN_EVENTS_MAX,
        }
    }
}

impl UplinkConfig {
    pub(super) fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }

    pub(super) fn exchange(&self) -> Duration {
        Duration::from_millis(self.exchange_ms)
    }

    pub(super) fn control_refresh(&self) -> Duration {
        Duration::from_secs(self.control_refresh_s)
    }

    pub(super) fn credentials_reload(&self) -> Duration {
        Duration::from_secs(self.credentials_reload_s)
    }

    pub(super) fn distrust(&self) -> Duration {
        Duration::from_secs(self.distrust_s)
    }
}
