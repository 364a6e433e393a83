//! What a leader is about to wish for.
//!
//! While blocks come one at a time, a leader names the end of each. A node that has applied a block need not wait until it is asked: it
//! cosigns at once, while the leader still applies and syncs, and the receipts of that block come a message and a sync earlier. Each guess
//! that is wrong costs a sync and a signature, so after one this node waits for wishes again until they show that guesses would be right.
//! What is signed are the rules of every cosignature. Since there is no wish whose clock could be held against this node's, the time of the
//! block is, which was the leader's when it ordered it: of a block whose time is not within the bound, no guess is made.

use std::time::Duration;

use ehe::id::NodeId;

use super::wish::place;
use crate::cosign::Cosigned;

/// A leader hears at least so often that this node's clock agrees with its own: that, an answer to a wish tells, and a guess does not.
const ANSWERED_EVERY: Duration = Duration::from_secs(1);

/// What a node knows of the wishes of the shard's leader.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    /// Whose wishes these were.
    leader: Option<NodeId>,
    /// The last wish was for what this node would have guessed.
    right: bool,
    /// Cosigned before it was wished for. One at a time.
    guess: Option<Cosigned>,
    /// When a wish was last answered.
    answered: Option<Duration>,
}

impl Foresight {
    /// This node leads, or another one does: what was known of the one before says nothing.
    pub(super) fn led_by(&mut self, leader: Option<NodeId>) {
        if self.leader != leader {
            *self = Self { leader, ..Self::default() };
        }
    }

    /// The clocks of this node and of whoever wished contradict. Before the leader asks, nothing is signed if it was the leader.
    pub(super) fn distrust(&mut self, by: NodeId) {
        if self.leader == Some(by) {
            *self = Self { leader: self.leader, ..Self::default() };
        }
    }

    /// The leader wished for a place of this log, which has come to `newest`. True if this node's cosignature was
    /// sent to it already, and it need not hear again that the clocks agree. If that was lost, the leader asks again, and is answered.
    pub(super) fn wished(&mut self, by: NodeId, at: &Cosigned, newest: &Cosigned, now: Duration) -> bool {
        if self.leader != Some(by) {
            return false;
        }
        let guessed = self.guess.as_ref() == Some(at);
        match &self.guess {
            None => self.right = at == newest,
            // An earlier wish, late on its way.
            Some(guess) if place(guess) > place(at) => {}
            Some(_) => (self.right, self.guess) = (guessed, None),
        }
        let heard = self.answered.is_some_and(|answered| now.saturating_sub(answered) < ANSWERED_EVERY);
        if !(guessed && heard) {
            self.answered = Some(now);
        }
        guessed && heard
    }

    /// Whether to cosign the end of this log now. Then it is the guess.
    pub(super) fn guesses(&mut self, newest: &Cosigned) -> bool {
        let guesses = self.right && self.guess.is_none();
        if guesses {
            self.guess = Some(*newest);
        }
        guesses
    }
}

#[cfg(test)]
mod tests {
    use ehe::id::Hash;

    use super::*;

    const LEADER: NodeId = NodeId([1; 8]);

    fn at(size: u64) -> Cosigned {
        Cosigned { incarnation: 0, size, root: Hash::ZERO }
    }

    fn led() -> Foresight {
        let mut foresight = Foresight::default();
        foresight.led_by(Some(LEADER));
        foresight
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn guesses_begin_when_they_would_be_right_and_end_with_a_wrong_one() {
        let mut foresight = led();
        assert!(!foresight.guesses(&at(1)), "nothing is known of the leader's wishes");
        assert!(!foresight.wished(LEADER, &at(1), &at(1), ms(0)), "nothing was said before");
        assert!(foresight.guesses(&at(2)) && !foresight.guesses(&at(3)), "one at a time");
        assert!(foresight.wished(LEADER, &at(2), &at(3), ms(1)), "it was said before");
        assert!(foresight.guesses(&at(3)));
        assert!(!foresight.wished(LEADER, &at(4), &at(5), ms(2)), "the leader never wished for 3");
        assert!(!foresight.guesses(&at(5)));
        assert!(!foresight.wished(LEADER, &at(5), &at(6), ms(3)));
        assert!(!foresight.guesses(&at(6)), "6 would have been wrong, too");
        assert!(!foresight.wished(LEADER, &at(6), &at(6), ms(4)));
        assert!(foresight.guesses(&at(8)));
        assert!(!foresight.wished(LEADER, &at(7), &at(8), ms(5)), "an earlier wish");
        assert!(foresight.wished(LEADER, &at(8), &at(8), ms(6)) && foresight.guesses(&at(9)));
    }

    #[test]
    fn a_leader_hears_that_the_clocks_agree_from_time_to_time_however_right_the_guesses_are() {
        let mut foresight = led();
        foresight.wished(LEADER, &at(1), &at(1), ms(0));
        let answered = (2..3000u64).filter(|size| {
            assert!(foresight.guesses(&at(*size)));
            !foresight.wished(LEADER, &at(*size), &at(*size), ms(*size))
        });
        assert_eq!(answered.collect::<Vec<_>>(), [1000, 2000]);
    }

    #[test]
    fn another_leader_and_one_whose_clock_differs_are_waited_for() {
        let mut foresight = led();
        foresight.wished(LEADER, &at(1), &at(1), ms(0));
        foresight.led_by(Some(LEADER));
        foresight.distrust(NodeId([2; 8]));
        assert!(foresight.guesses(&at(2)), "what another node's clock says, says nothing of the leader's");
        foresight.distrust(LEADER);
        assert!(!foresight.guesses(&at(2)));
        foresight.wished(LEADER, &at(2), &at(2), ms(0));
        foresight.led_by(Some(NodeId([2; 8])));
        assert!(!foresight.guesses(&at(3)));
        assert!(!foresight.wished(LEADER, &at(3), &at(3), ms(0)) && !foresight.guesses(&at(4)), "it leads no more");
    }
}
