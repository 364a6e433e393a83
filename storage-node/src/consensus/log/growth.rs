//! How many bytes of a group's log are kept, about, and where.

use std::collections::VecDeque;

/// Marks are this far apart: what is counted is wrong by at most so much.
const MARK_BYTES: u64 = 1 << 20;

/// Counts what is appended, cut off, and purged, by the marks that it passes.
#[derive(Debug, Default)]
pub(super) struct Growth {
    appended: u64,
    gone: u64,
    /// Index, and what had been appended up to it.
    marks: VecDeque<(u64, u64)>,
}

impl Growth {
    /// Of a log that is opened: entries `first..end` have so many bytes together, as if each had as many.
    pub(super) fn of(first: u64, end: u64, bytes: u64) -> Self {
        let mut growth = Self { appended: bytes, ..Self::default() };
        let entries = end.saturating_sub(first);
        let steps = (bytes / MARK_BYTES).min(entries);
        for step in 1..=steps {
            // Of a log beyond any limit, less exactly.
            let share = |whole: u64| (u128::from(whole) * u128::from(step) / u128::from(steps)).try_into().ok();
            if let (Some(index), Some(bytes)) = (share(entries), share(bytes)) {
                growth.marks.push_back((first.saturating_add(index).saturating_sub(1), bytes));
            }
        }
        growth
    }

    pub(super) fn append(&mut self, index: u64, bytes: usize) {
        self.appended = self.appended.saturating_add(bytes as u64);
        let marked = self.marks.back().map_or(self.gone, |(_, bytes)| *bytes);
        if self.appended.saturating_sub(marked) >= MARK_BYTES {
            self.marks.push_back((index, self.appended));
        }
    }

    /// Entries from `end` on are cut off.
    pub(super) fn truncate(&mut self, end: u64) {
        while self.marks.back().is_some_and(|(index, _)| *index >= end) {
            self.marks.pop_back();
            self.appended = self.marks.back().map_or(self.gone, |(_, bytes)| *bytes);
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

    /// Bytes of the entries behind `index`; of all, if there is none.
    pub(super) fn behind(&self, index: Option<u64>) -> u64 {
        let passed = index.map_or(0, |index| self.marks.partition_point(|(mark, _)| *mark <= index));
        let before = passed.checked_sub(1).and_then(|last| self.marks.get(last)).map_or(self.gone, |(_, bytes)| *bytes);
        self.appended.saturating_sub(before)
    }

    /// The last entry behind which there are at least so many bytes.
    pub(super) fn before_last(&self, bytes: u64) -> Option<u64> {
        let upto = self.appended.checked_sub(bytes)?;
        let passed = self.marks.partition_point(|(_, mark)| *mark <= upto);
        self.marks.get(passed.checked_sub(1)?).map(|(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: u64 = MARK_BYTES + (100 << 10);

    fn hundred() -> Growth {
        let mut growth = Growth::default();
        (0..100).for_each(|index| growth.append(index, 100 << 10));
        growth
    }

    #[test]
    fn what_is_kept_is_what_was_appended_less_what_was_purged_up_to_a_mark() {
        let mut growth = hundred();
        assert_eq!(growth.behind(None), 10_000 << 10);
        growth.purge(49);
        let right = 5_000 << 10;
        assert!(growth.behind(None).abs_diff(right) <= ABOUT, "{}", growth.behind(None));
        growth.purge(99);
        assert!(growth.behind(None) <= MARK_BYTES);
    }

    #[test]
    fn a_log_that_is_opened_counts_like_one_that_grew() {
        let (grown, mut opened) = (hundred(), Growth::of(0, 100, 10_000 << 10));
        for index in [None, Some(0), Some(9), Some(50), Some(99)] {
            assert!(grown.behind(index).abs_diff(opened.behind(index)) <= ABOUT, "{index:?}");
        }
        opened.purge(49);
        assert!(opened.behind(None).abs_diff(5_000 << 10) <= ABOUT);
        // Few and large, and none at all.
        assert_eq!(Growth::of(7, 9, 64 << 20).behind(Some(8)), 0);
        assert_eq!(Growth::of(7, 7, 0).behind(None), 0);
    }

    #[test]
    fn so_many_bytes_stay_behind_what_may_go() {
        let growth = hundred();
        for bytes in [1 << 20, 3 << 20, 8 << 20] {
            let upto = growth.before_last(bytes).unwrap();
            assert!(growth.behind(Some(upto)) >= bytes && growth.behind(Some(upto)) <= bytes + ABOUT, "{bytes}");
        }
        assert_eq!(growth.before_last(10 << 20), None);
    }

    #[test]
    fn what_is_cut_off_counts_no_more() {
        let mut growth = hundred();
        growth.truncate(50);
        assert!(growth.behind(None).abs_diff(5_000 << 10) <= ABOUT, "{}", growth.behind(None));
        growth.append(50, 100 << 10);
        assert!(growth.marks.iter().is_sorted());
        growth.truncate(0);
        assert_eq!(growth.behind(None), 0);
    }
}
