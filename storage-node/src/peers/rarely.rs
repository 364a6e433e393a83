//! What another node can make this one write into its log, as often as it likes to: said at first, and then rarely.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ehe::id::NodeId;

/// Of each node one line within this time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Of each node, when a thing was last said of it, and how often it was not since.
#[derive(Debug, Default)]
pub struct Rarely(Mutex<BTreeMap<NodeId, (Instant, u64)>>);

impl Rarely {
    /// Whether it is said now; then how often it was not since the last time.
    pub(super) fn due(&self, of: NodeId, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&of) {
            Some((said, unsaid)) if now.saturating_duration_since(*said) < AGAIN_AFTER => {
                *unsaid = unsaid.saturating_add(1);
                None
            }
            before => {
                let unsaid = before.map_or(0, |(_, unsaid)| *unsaid);
                all.insert(of, (now, 0));
                Some(unsaid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_breaks_a_rule_at_every_beat_fills_no_log_and_hides_no_other() {
        let (rarely, begin) = (Rarely::default(), Instant::now());
        let (one, other) = (NodeId([1; 8]), NodeId([2; 8]));
        let at = |ms| begin + Duration::from_millis(ms);
        let said: Vec<u64> = (0..=120_000).step_by(50).filter_map(|ms| rarely.due(one, at(ms))).collect();
        assert_eq!(said, [0, 1199, 1199]);
        assert_eq!(rarely.due(other, at(10)), Some(0));
    }
}
