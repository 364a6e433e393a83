//! How slow whoever sends or takes something long may be: what it keeps open meanwhile, others wait for.

use std::time::Duration;

/// How late it may be, whatever of it is there.
const LATE_MAX: Duration = Duration::from_secs(30);

/// Something that is under way, and must not be slower than so much.
#[derive(Debug)]
pub(crate) struct LeastPace {
    bytes_per_s: u64,
    bytes: u64,
}

impl LeastPace {
    /// Nothing of it is through yet.
    pub(crate) fn of(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), bytes: 0 }
    }

    /// So many bytes more are through, after so long in all. False: that took too long.
    pub(crate) fn keeps(&mut self, bytes: usize, after: Duration) -> bool {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        after <= self.limit()
    }

    /// How long what is through may have taken.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.bytes / self.bytes_per_s).saturating_add(LATE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hardly_moves_is_given_up_and_what_is_slow_is_not() {
        let after = Duration::from_secs;
        let mut dripping = LeastPace::of(256 << 10);
        let kept = (1..=60).take_while(|piece| dripping.keeps(1, after(piece * 9))).count();
        assert_eq!(kept, 3, "a byte every 9 s");
        let mut slow = LeastPace::of(256 << 10);
        assert!((1..=3_600).all(|piece| slow.keeps(1 << 20, after(piece * 4))), "1 MiB every 4 s for 4 hours");
        assert!(!slow.keeps(1 << 20, after(4 * 3_600 + 60)));
    }
}
