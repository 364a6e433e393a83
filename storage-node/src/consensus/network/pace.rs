//! How many snapshots go out at once, and how fast: they share the node's disk and its line with what cannot wait.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{Instant, type_config::TypeConfigExt, type_config::alias::InstantOf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::call::CallError;
use crate::{
    consensus::{ids::NodeId, types::Types},
    one_each::{OneEach, UnderWay},
};

/// Snapshots that a node sends at once, of all its groups.
const SNAPSHOTS: usize = 2;
/// Who waits that long for another to end begins anew, with a newer state.
const WAIT: Duration = Duration::from_secs(10);
/// And looks that often whether the last to the same node has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Slower than this a snapshot is too slow, whichever end waits for the other: two share a line that may be four times as fast at
/// least (`snapshot_bytes_per_s`).
pub(super) const BYTES_PER_S_MIN: u64 = 64 << 10;

/// One for all snapshots that a node sends.
#[derive(Debug)]
pub(in crate::consensus) struct Pace {
    slots: Arc<Semaphore>,
    /// Who takes one slowly, has one slot.
    each: OneEach<NodeId>,
    begun: InstantOf<Types>,
    line: Mutex<Line>,
}

impl Pace {
    pub(in crate::consensus) fn new(bytes_per_s: u64) -> Self {
        let line = Mutex::new(Line { bytes_per_s: bytes_per_s.max(1), free: Duration::ZERO });
        Self { slots: Arc::new(Semaphore::new(SNAPSHOTS)), each: OneEach::default(), begun: Types::now(), line }
    }

    /// Held while a snapshot is sent.
    pub(super) async fn slot(&self, to: NodeId) -> Result<Slot<'_>, CallError> {
        let waiting = async {
            let one = begun(&self.each, to).await;
            Ok(Slot { _one: one, _slot: self.slots.clone().acquire_owned().await.map_err(|_| CallError::Busy)? })
        };
        Types::timeout(WAIT, waiting).await.unwrap_or(Err(CallError::Busy))
    }

    /// Returns when so many bytes may go out.
    pub(super) async fn wait(&self, bytes: usize) {
        let now = self.begun.elapsed();
        let wait = self.line.lock().unwrap_or_else(PoisonError::into_inner).reserve(now, bytes);
        if !wait.is_zero() {
            Types::sleep(wait).await;
        }
    }
}

/// Waits until the last one of `peer` has ended.
pub(super) async fn begun(each: &OneEach<NodeId>, peer: NodeId) -> UnderWay<'_, NodeId> {
    loop {
        match each.begin(peer) {
            Some(one) => return one,
            None => Types::sleep(LOOK).await,
        }
    }
}

/// A snapshot may go out, to one node.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    _one: UnderWay<'a, NodeId>,
    _slot: OwnedSemaphorePermit,
}

/// A line of so many bytes a second.
#[derive(Debug)]
struct Line {
    bytes_per_s: u64,
    /// From then on nothing is under way.
    free: Duration,
}

impl Line {
    /// How long whoever asks now waits before sending so many bytes: until those before have gone.
    fn reserve(&mut self, now: Duration, bytes: usize) -> Duration {
        let from = self.free.max(now);
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.bytes_per_s;
        self.free = from.saturating_add(Duration::from_micros(micros));
        from.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_out_is_as_fast_as_the_line_whoever_sends_it_and_pauses_are_not_made_up_for() {
        let mut line = Line { bytes_per_s: 1000, free: Duration::ZERO };
        let at = Duration::from_secs;
        assert_eq!(line.reserve(at(5), 2000), at(0));
        assert_eq!(line.reserve(at(5), 1000), at(2), "of another snapshot");
        assert_eq!(line.reserve(at(6), 500), at(2));
        assert_eq!(line.reserve(at(100), 500), at(0));
        assert_eq!(line.reserve(at(100), 500), Duration::from_millis(500), "and not all at once after a pause");
    }
}
