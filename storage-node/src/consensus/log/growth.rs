//! How many bytes of a group's log are kept, about.

use std::collections::VecDeque;

/// Marks are this far apart: what is counted is wrong by at most so much.
const MARK_BYTES: u64 = 1 << 20;

/// Counts what is appended, and what is purged by the marks that it passes. What was in the log when it was opened counts
/// for nothing.
#[derive(Debug, Default)]
pub(super) struct Growth {
    appended: u64,
    gone: u64,
    /// Index, and what had been appended up to it.
    marks: VecDeque<(u64, u64)>,
}

impl Growth {
    pub(super) fn append(&mut self, index: u64, bytes: usize) {
        self.appended = self.appended.saturating_add(bytes as u64);
        let marked = self.marks.back().map_or(self.gone, |(_, bytes)| *bytes);
        if self.appended.saturating_sub(marked) >= MARK_BYTES {
            self.marks.push_back((index, self.appended));
        }
    }

    pub(super) fn purge(&mut self, upto: u64) {
        while let Some((index, bytes)) = self.marks.front().copied()
            && index <= upto
        {
            self.gone = bytes;
            self.marks.pop_front();
        }
    }

    pub(super) fn kept(&self) -> u64 {
        self.appended.saturating_sub(self.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_appended_less_what_was_purged_up_to_a_mark() {
        let mut growth = Growth::default();
        (0..100).for_each(|index| growth.append(index, 100 << 10));
        assert_eq!(growth.kept(), 10_000 << 10);
        growth.purge(49);
        let right = 5_000 << 10;
        assert!(growth.kept().abs_diff(right) <= MARK_BYTES + (100 << 10), "{}", growth.kept());
        growth.purge(99);
        assert!(growth.kept() <= MARK_BYTES);
    }
}
