//! Pauses after failures: doubled each time, bounded, spread by chance so that many gateways do not come back at once.

use std::time::Duration;

/// The pauses of one thing that fails.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    min_ms: u64,
    max_ms: u64,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(min_ms: u64, max_ms: u64) -> Self {
        let min_ms = min_ms.max(1);
        Self { min_ms, max_ms: max_ms.max(min_ms), failures: 0 }
    }

    /// The next pause: between half and the whole of `min × 2^failures`, never above the maximum. `chance` is random.
    pub(super) fn failed(&mut self, chance: u64) -> Duration {
        let whole = self.min_ms.saturating_mul(1 << self.failures.min(32)).min(self.max_ms);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        Duration::from_millis(half + chance % (whole - half + 1))
    }

    /// It worked: the next failure starts from the shortest pause.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_spread_by_half_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(500, 60_000);
        for whole in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            let mut other = backoff.clone();
            assert_eq!(backoff.failed(0), Duration::from_millis(whole / 2));
            assert_eq!(other.failed(whole - whole / 2), Duration::from_millis(whole));
        }
        for _ in 0..100 {
            assert!(backoff.failed(u64::MAX) <= Duration::from_millis(60_000));
        }
        backoff.succeeded();
        assert!(backoff.failed(u64::MAX) <= Duration::from_millis(500));
    }
}
