//! What the node counts. Numbers only: no names, no rooms, nothing about anybody's health.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since the start.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl Stats {
            /// Every counter with its name.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Connections that were welcomed.
    connections,
    /// Handshakes that did not come to a welcome.
    handshakes_failed,
    /// Clients that were told "busy" before their handshake.
    handshakes_refused,
    /// Those of them whose address had its share of the handshakes.
    handshakes_refused_source,
    /// Connections that were closed because their certificate was revoked.
    connections_revoked,
    /// Connections that were closed because their certificate's time was over.
    connections_expired,
    /// New credentials that were taken up.
    credentials_reloaded,
    /// Looks at credentials that could not be taken up.
    credentials_kept,
    /// Connections of other nodes that were let in.
    peer_connections,
    /// Nodes that were sent away because they share no group with this one.
    peers_refused,
    /// Streams of other nodes that came to no good end: a node went away, a leader began anew.
    peer_streams_ended,
    /// Streams of blocks that were refused because they were ahead of this node's clock: that one or the leader's is wrong.
    blocks_ahead,
    /// Rules between nodes that another node broke: its program is faulty, or of another version.
    peer_faults,
    /// Requests of any kind.
    requests,
    /// Frames that were no request, were cut off, or were too large: the client's program is faulty.
    requests_malformed,
    /// Requests that ended because the client went away, sent too slowly, or did not take the answer.
    requests_abandoned,
    /// Blocks proposed.
    blocks,
    /// Runs accepted.
    runs_accepted,
    /// Events in them.
    events_accepted,
    /// Runs that were there already.
    runs_known,
    /// Runs refused.
    runs_refused,
    /// Content reads granted and recorded.
    reads_granted,
    /// Read requests that other nodes forwarded to this one, which orders the shard.
    reads_forwarded,
    /// Reads refused.
    reads_refused,
    /// Streams that were cut because the right to read ended.
    streams_cut,
    /// Items sent to readers.
    items_sent,
    /// Answers that said "overloaded".
    overloaded,
    /// Checkpoints that a quorum cosigned.
    checkpoints,
    /// Messages of other nodes about checkpoints that were not taken: malformed, of another charter, of a clock that differs.
    cosigning_ignored,
    /// Evidence that is kept: contradictions of signed checkpoints.
    evidence,
    /// What another node told as evidence and is none.
    evidence_refused,
    /// Shards that were stopped by a fault.
    fenced,
    /// Events that were looked at again.
    scrubbed,
    /// What was found in doing so.
    scrub_findings,
    /// Damaged entries that were had again from other nodes.
    scrub_mended,
}

impl Stats {
    /// Counts.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes over what somebody else counts.
    pub fn set(counter: &AtomicU64, n: u64) {
        counter.store(n, Ordering::Relaxed);
    }
}

/// Logs the counters that changed since the last time.
#[derive(Debug, Default)]
pub struct Reporter {
    last: Vec<(&'static str, u64)>,
}

impl Reporter {
    /// One line, if anything changed.
    pub fn report(&mut self, stats: &Stats) {
        let now = stats.snapshot();
        if now != self.last {
            let text: Vec<String> = now.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}={n}")).collect();
            tracing::info!("counters: {}", text.join(" "));
            self.last = now;
        }
    }
}
