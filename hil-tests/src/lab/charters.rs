//! The alliance's charters as clients of the lab know them. A checkpoint is judged by the charter that it names, and shards move meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result};
use ehe::charter::VerifiedCharter;
use ehe::checkpoint::VerifiedCheckpoint;

/// All that were ever in force. Copies are the same.
#[derive(Debug, Clone)]
pub struct Charters(Arc<RwLock<BTreeMap<u32, Arc<VerifiedCharter>>>>);

impl Charters {
    /// This one alone.
    pub fn only(charter: &VerifiedCharter) -> Self {
        let known = Self(Arc::default());
        known.learn([charter.clone()]);
        known
    }

    /// Further ones. Whoever has one signed makes it known here before a node hears of it.
    pub fn learn(&self, charters: impl IntoIterator<Item = VerifiedCharter>) {
        let new = charters.into_iter().map(|charter| (charter.version(), Arc::new(charter)));
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend(new);
    }

    /// The newest one.
    pub fn newest(&self) -> Result<Arc<VerifiedCharter>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.last_key_value().map(|(_, newest)| Arc::clone(newest)).context("there is a charter")
    }

    /// The one that a checkpoint's note stands under.
    pub fn of(&self, note: &str) -> Result<Arc<VerifiedCharter>> {
        let version = VerifiedCheckpoint::charter_of(note)?;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&version)
            .cloned()
            .with_context(|| format!("a checkpoint under charter {version}, which nobody signed"))
    }
}
