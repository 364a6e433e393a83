//! A shard's state taken whole from another node, before this node takes part in anything: where more than entries is damaged.
//!
//! It is received as a snapshot is: beside the damaged file, verified as a whole against what a quorum cosigned. Then it takes that
//! file's place. The node's log and votes stay: it is the same node. What a snapshot's verification does not ask, the scrub asks next.
//!
//! This node's own state is damaged and tells nothing of how far its log went. What it has put its name to is known from another file: a state
//! that has less is not taken.

use std::collections::BTreeSet;
use std::path::Path;

use crate::consensus::{self, GroupId, OpenError, replace_state};
use crate::shard::{Arrived, Place, StoreError};

/// A state as another node sent it, found good.
pub struct Sent {
    /// What its machine keeps for consensus.
    pub applied: Vec<u8>,
    /// The state.
    pub state: Arrived,
}

/// Why a state is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotRebuilt {
    /// It does not belong to this node's log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// It cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts a state that was sent in the place of a shard's file in `dir`. The shard's file must not be open. `may_vote`: whether these can be the
/// shard's voters.
pub fn rebuild(
    dir: &Path,
    place: Place,
    me: consensus::NodeId,
    sent: Sent,
    may_vote: impl Fn(&BTreeSet<consensus::NodeId>) -> bool,
) -> Result<(), NotRebuilt> {
    let Sent { applied, state } = sent;
    let mine = replace_state(dir, me, GroupId(place.shard), &applied, may_vote)?;
    Ok(state.take_place(&mine)?)
}
