//! From what the checkpointer finds to what is kept.

use super::Keeper;
use crate::checkpoint::{Evidence, EvidenceSink, Logged};

/// Keeps what the checkpointer finds, where it can be shown to others.
#[derive(Debug, Clone)]
pub struct Found {
    /// Keeps it.
    pub keeper: Keeper,
}

impl EvidenceSink for Found {
    fn found(&mut self, evidence: Evidence) {
        let of = evidence.of;
        match evidence.contradiction() {
            Some(Ok(contradiction)) => self.keeper.found(&contradiction, of),
            // What this node finds about itself: its own log is all that it has.
            None => Logged.found(evidence),
            Some(Err(why)) => {
                tracing::error!(node = %of, %why, "what contradicts a node's statement makes no evidence");
                Logged.found(evidence);
            }
        }
    }
}
