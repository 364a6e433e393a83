//! How often a node's word goes to those who did not ask for it.
//!
//! Who wishes for a cosignature gets it at once: receipts wait for that one. The others need it to show the checkpoint themselves, and to
//! see that nobody signed another log: for that the newest word is enough, from time to time. Of blocks that follow each other closely,
//! every message and signature to be verified that is left out is one more event ordered. Where a block comes alone, all hear of it at once;
//! and who needs a checkpoint sooner wishes for it ([`Board::want`](super::Board::want)).
//!
//! A leader that lies chooses what this node signs and when. Whatever it or a node in league with it wishes for, and of whatever
//! root, all hear of the largest: nothing smaller goes out in its stead.

use std::time::Duration;

use super::wish::{Place, place};
use crate::cosign::Cosigned;

/// Others show a checkpoint so much later than the leader, at most.
pub(super) const TOLD_EVERY: Duration = Duration::from_millis(200);

/// What a node's group has heard from it.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// When all were told.
    last: Option<Duration>,
    /// What they were not told, the largest.
    held: Option<Cosigned>,
}

impl Telling {
    /// Whether all are told of this place now. If not, it is held until it is due.
    pub(super) fn tells(&mut self, at: &Cosigned, now: Duration) -> bool {
        let tells = self.due_after_last().is_none_or(|due| due <= now);
        if tells {
            self.last = Some(now);
            self.held = self.held.filter(|held| place(held) > place(at));
        } else if self.held.as_ref().is_none_or(|held| place(held) < place(at)) {
            self.held = Some(*at);
        }
        tells
    }

    /// What is held, once it is due, or as soon as something smaller is about to be told: this is `instead`, the largest of it.
    pub(super) fn before(&self, instead: Option<Place>, now: Duration) -> Option<Cosigned> {
        self.held.filter(|held| match instead {
            Some(instead) => instead < place(held),
            None => self.due().is_some_and(|due| due <= now),
        })
    }

    /// When what is held is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.held.and(self.due_after_last())
    }

    fn due_after_last(&self) -> Option<Duration> {
        Some(self.last?.saturating_add(TOLD_EVERY))
    }
}

#[cfg(test)]
mod tests {
    use ehe::id::Hash;

    use super::*;

    fn at(size: u64) -> Cosigned {
        Cosigned { incarnation: 0, size, root: Hash::ZERO }
    }

    #[test]
    fn all_are_told_at_once_and_then_of_the_newest_from_time_to_time() {
        let (mut telling, ms) = (Telling::default(), Duration::from_millis);
        assert!(telling.tells(&at(1), ms(1000)) && telling.due().is_none());
        assert!(!telling.tells(&at(3), ms(1001)) && !telling.tells(&at(2), ms(1002)));
        assert_eq!((telling.before(None, ms(1199)), telling.due()), (None, Some(ms(1200))));
        assert_eq!(telling.before(None, ms(1200)), Some(at(3)));
        assert!(telling.tells(&at(3), ms(1200)) && telling.due().is_none(), "nothing is left to tell");
        assert!(!telling.tells(&at(4), ms(1201)));
        assert!(telling.tells(&at(5), ms(1500)) && telling.due().is_none(), "the newer one says it all");
    }

    #[test]
    fn nothing_smaller_is_told_in_the_stead_of_what_is_held() {
        let (mut telling, ms) = (Telling::default(), Duration::from_millis);
        assert!(telling.tells(&at(1), ms(1000)) && !telling.tells(&at(9), ms(1001)));
        assert_eq!(telling.before(Some((0, 8)), ms(1002)), Some(at(9)));
        assert_eq!(telling.before(Some((0, 9)), ms(1200)), None, "it is told anyhow");
        assert!(telling.tells(&at(8), ms(1200)));
        assert_eq!(telling.due(), Some(ms(1400)), "nor is it forgotten then");
    }
}
