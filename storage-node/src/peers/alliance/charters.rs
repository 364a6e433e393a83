//! Newer charters of another node: answer by answer, of one node at a time.

use std::time::{Duration, Instant};

use ehe::charter::Gathering;
use ehe::id::NodeId;
use tokio_util::sync::CancellationToken;

use super::{ANSWER_MAX_BYTES, Alliance, AllianceError, Answer, CHARTERS_WITHIN, Question, TELL_EVERY, asked};
use crate::peers::Reach;

/// A node whose charters are not taken up is not asked for them again for so many times what that took: meanwhile nobody else's could be
/// received.
const RESTS: u32 = 10;

/// How long a node rests whose charters were not taken up after so long.
fn rests(took: Duration) -> Duration {
    took.saturating_mul(RESTS).max(TELL_EVERY)
}

impl Alliance {
    /// The newest charter that a node says that it has, if this node does not have it.
    fn newer_at(&self, node: NodeId) -> Option<u32> {
        let said = self.heard().get(&node).map(|(_, report)| report.charter);
        said.filter(|version| *version > self.charters.version())
    }

    /// Takes the charters of a node that says that it has newer ones. Where they are not taken up, why, and how long that took.
    async fn take_charters(&self, reach: &Reach, node: NodeId) -> Result<(), (AllianceError, Duration)> {
        let one = self.gathering.acquire().await;
        let _one = one.map_err(|_| (AllianceError::Stopping, Duration::ZERO))?;
        // While this one waited, another one may have shown them.
        let Some(said) = self.newer_at(node) else { return Ok(()) };
        let begun = Instant::now();
        self.take_up_to(reach, node, said).await.map_err(|why| (why, begun.elapsed()))
    }

    async fn take_up_to(&self, reach: &Reach, node: NodeId, said: u32) -> Result<(), AllianceError> {
        let gathering = tokio::time::timeout(CHARTERS_WITHIN, self.gather(reach, node)).await;
        if let Some(chain) = gathering.map_err(|_| AllianceError::Endless)??.newer() {
            let charters = self.charters.clone();
            let taking = tokio::task::spawn_blocking(move || charters.take_up(&chain));
            if taking.await.map_err(|_| AllianceError::Stopping)?? {
                tracing::info!(version = self.charters.version(), from = %node, "a newer charter came from another node");
            }
        }
        let shown = self.charters.version();
        if shown < said { Err(AllianceError::NotShown { said, shown }) } else { Ok(()) }
    }

    /// Takes a node's charters whenever it says that it has newer ones, until it is stopped. Apart from the questions: nobody's long chain, or
    /// silence, keeps anybody from hearing how nodes are.
    pub(super) async fn keep_taking(&self, reach: &Reach, node: NodeId, stop: &CancellationToken) {
        loop {
            let told = self.told.notified();
            if self.newer_at(node).is_none() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = told => continue,
                }
            }
            let taken = tokio::select! {
                () = stop.cancelled() => return,
                taken = self.take_charters(reach, node) => taken,
            };
            let Err((why, took)) = taken else { continue };
            tracing::debug!(%node, %why, "a node's newer charters are not taken up");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rests(took)) => {}
            }
        }
    }

    /// The charters here, and those that a node has after them.
    async fn gather(&self, reach: &Reach, node: NodeId) -> Result<Gathering, AllianceError> {
        let mut gathering = Gathering::after(self.charters.chain());
        loop {
            let question = Question::Charters(gathering.from());
            let Answer::Charters(answer) = asked(reach, node, &question, ANSWER_MAX_BYTES).await? else {
                return Err(AllianceError::OtherQuestion);
            };
            if !gathering.take(&answer)? {
                return Ok(gathering);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_keeps_the_others_from_showing_their_charters_rests_for_long_and_one_that_errs_soon_shows_them_again()
    {
        assert!(rests(CHARTERS_WITHIN) >= 10 * CHARTERS_WITHIN);
        // Nothing good, just before the time is over.
        assert!(rests(CHARTERS_WITHIN - Duration::from_secs(1)) >= 9 * CHARTERS_WITHIN);
        assert_eq!(rests(Duration::from_millis(20)), TELL_EVERY);
    }
}
