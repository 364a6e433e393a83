//! What the uplink did, as numbers: for metrics and the technician. No health data, no keys, no names.

use ehe::id::NodeId;
use serde::Serialize;
use tokio::sync::watch;

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
    /// Control states that were fetched and verified.
    pub rooms_followed: u64,
    /// Version of the charter at hand now.
    pub charter_version: u32,
    /// The last failure, in words.
    pub last_failure: Option<String>,
}

/// Where the uplink writes its status.
#[derive(Debug)]
pub(super) struct Board(watch::Sender<UplinkStatus>);

impl Board {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(UplinkStatus::default()))
    }

    pub(super) fn reader(&self) -> watch::Receiver<UplinkStatus> {
        self.0.subscribe()
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut UplinkStatus)) {
        self.0.send_modify(change);
    }
}
