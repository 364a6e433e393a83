//! That the state at hand is not one that the others have left behind.
//!
//! Of several nodes, one that was cut off does not know it: it may believe that it leads, and hold rooms as they were. So whatever is
//! said from the state at hand, without an entry in the log, is said once a majority confirmed, after the question had come, that
//! this node has everything that anybody was told. One confirmation serves all who waited for it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ehe::refusal::Refusal;

use crate::consensus::{Consensus, GroupId, ReadError, Status};
use crate::node::NotServed;

/// A majority confirms within this time, or nobody does.
const WITHIN: Duration = Duration::from_secs(5);

/// When a shard's state was last confirmed.
#[derive(Debug, Default)]
pub struct Confirmation {
    /// When the question went out. Of the answer that came last.
    at: Mutex<Option<Instant>>,
    asking: tokio::sync::Mutex<()>,
}

impl Confirmation {
    /// Returns when the state is known to have everything that anybody was told before `since`; and the moment up to which that
    /// holds, `since` or later.
    pub async fn since(&self, consensus: &Consensus, group: GroupId, since: Instant) -> Result<Instant, NotServed> {
        if alone(consensus, group) {
            return Ok(Instant::now().max(since));
        }
        if let Some(at) = self.last(since) {
            return Ok(at);
        }
        let _one = self.asking.lock().await;
        // Whoever asked while we waited may have asked late enough.
        if let Some(at) = self.last(since) {
            return Ok(at);
        }
        let asked = Instant::now();
        consensus.read_index(group, WITHIN).await.map_err(|why| not_confirmed(&why))?;
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
        Ok(asked)
    }

    fn last(&self, since: Instant) -> Option<Instant> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).filter(|at| *at >= since)
    }
}

/// Nobody else has a vote: there is nobody to have left this node behind.
fn alone(consensus: &Consensus, group: GroupId) -> bool {
    let only_me = |status: Status| status.voters == BTreeSet::from([consensus.node_id()]) && !status.changing;
    consensus.status(group).is_some_and(only_me)
}

fn not_confirmed(why: &ReadError) -> NotServed {
    match why {
        ReadError::NoSuchGroup(_) => Refusal::WrongShard.into(),
        ReadError::Stopped => Refusal::Stopping.into(),
        _ => {
            tracing::debug!(%why, "the state at hand is not confirmed");
            Refusal::NoLeader.into()
        }
    }
}
