//! What the uplink did, as numbers: for metrics and the technician. No health data, no keys, no names.

use ehe::id::NodeId;
use ehe::time::UnixMs;
use serde::Serialize;
use tokio::sync::watch;

use crate::clock::WallClock;

/// Counts since the program's start, unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UplinkStatus {
    /// Nodes that are connected now.
    pub connected_nodes: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Runs that were submitted.
    pub runs_submitted: u64,
    /// Events whose receipt was verified.
    pub events_confirmed: u64,
    /// Readings in them.
    pub readings_confirmed: u64,
    /// Events that were committed earlier, the answer having been lost.
    pub events_known: u64,
    /// Events that the ledger refused and that are kept aside.
    pub events_quarantined: u64,
    /// Events that were put back into the outbox because the room's rights changed.
    pub events_released: u64,
    /// Exchanges that failed and are tried again.
    pub failures: u64,
    /// Receipts and heads that did not verify. Anything above 0 wants an investigation of the node.
    pub proofs_refused: u64,
    /// The node that gave the last of them.
    pub distrusted_node: Option<NodeId>,
    /// Files of evidence in `evidence` in data_dir: what nodes signed that contradicts itself. Give them to the hospitals.
    pub evidence: u64,
    /// Control states that were fetched and verified.
    pub rooms_followed: u64,
    /// Of them, those of which fewer members than a quorum could say that nothing newer is missing.
    pub rooms_unconfirmed: u64,
    /// Times that a node showed a room's control records without newer ones, which another node knew of.
    pub records_missing: u64,
    /// Version of the charter at hand now.
    pub charter_version: u32,
    /// The last failure, in words; it may be over (see `connected_nodes`).
    pub last_failure: Option<String>,
    /// When that was.
    pub last_failure_ms: Option<UnixMs>,
}

/// Where the uplink writes its status.
pub(super) struct Board {
    status: watch::Sender<UplinkStatus>,
    clock: WallClock,
}

impl Board {
    pub(super) fn new(clock: WallClock) -> Self {
        Self { status: watch::Sender::new(UplinkStatus::default()), clock }
    }

    pub(super) fn reader(&self) -> watch::Receiver<UplinkStatus> {
        self.status.subscribe()
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut UplinkStatus)) {
        self.status.send_modify(change);
    }

    /// Something failed, and is tried again.
    pub(super) fn failed(&self, why: String) {
        self.fault(why, |s| s.failures += 1);
    }

    /// Something failed that is counted by itself.
    pub(super) fn fault(&self, why: String, count: impl FnOnce(&mut UplinkStatus)) {
        let at = (self.clock)();
        self.note(|s| {
            count(s);
            (s.last_failure, s.last_failure_ms) = (Some(why), Some(at));
        });
    }
}
