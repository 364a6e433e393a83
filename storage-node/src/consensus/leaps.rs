//! How far above what is known here a term may be.
//!
//! A vote that is taken over is on disk for good, so a peer that could name any term could use them all up; elections do not raise it so
//! far in years. But a peer that makes one honest node leap twice before another one leaps once has put them out of each other's reach:
//! so each term that is refused makes the next leap longer by one. Two honest nodes find together after as many words as the liar put leaps
//! between them; whoever wants to use the terms up needs as many words as before.

use std::sync::{Mutex, PoisonError};

/// A term may be that much greater than the one that is known here, and as much again for each that was refused.
pub(super) const TERM_LEAP: u64 = 1 << 24;
/// Terms below this one are believed by whoever never voted: a new node, or one that a restore begins ([`begin`](super::begin()), below
/// 2^41), comes to a group that may have seen any of them.
pub(super) const FIRST_TERM: u64 = 1 << 56;

/// What a group refused since its term last leapt. In memory: a restart begins anew.
#[derive(Debug, Default)]
pub(super) struct Leaps(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    from: u64,
    refused: u64,
}

impl Leaps {
    /// How many terms were refused by a node that knows `term`.
    pub(super) fn refused(&self, term: u64) -> u64 {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An election between honest nodes is no leap.
        if term >= counted.from.saturating_add(TERM_LEAP) {
            *counted = Counted { from: term, refused: 0 };
        }
        counted.refused
    }

    /// One more was.
    pub(super) fn refuse(&self) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.refused = counted.refused.saturating_add(1);
    }
}

/// The greatest term that is believed where `known` was the last that was voted in, and so many were refused.
pub(super) fn limit(known: Option<u64>, refused: u64) -> u64 {
    known.map_or(FIRST_TERM, |known| known.saturating_add(TERM_LEAP.saturating_mul(refused.saturating_add(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_were_put_out_of_each_others_reach_find_together_and_who_leapt_begins_anew() {
        let leaps = Leaps::default();
        let (low, high) = (7, 7 + 5 * TERM_LEAP);
        let mut tries = 0;
        while high > limit(Some(low), leaps.refused(low)) {
            leaps.refuse();
            // Elections among the others go on meanwhile.
            assert_eq!(leaps.refused(low + tries), tries + 1);
            tries += 1;
        }
        assert_eq!(tries, 4);
        assert_eq!(leaps.refused(high), 0);
        assert_eq!(limit(Some(high), leaps.refused(high)), high + TERM_LEAP);
        assert_eq!(limit(None, 0), FIRST_TERM);
        assert_eq!(limit(Some(u64::MAX - 1), u64::MAX), u64::MAX);
    }
}
