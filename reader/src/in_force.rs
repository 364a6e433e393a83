//! What goes on in a room although the patient's keys are others now: grants and delegations that nobody ended.

use ehe::control::Ending;
use ehe::id::AuthorId;
use ehe::room::{GrantEnd, RoomState};
use ehe::time::UnixMs;

use crate::authority::{DelegateLine, delegates};
use crate::rooms::{GrantLine, grants};
use crate::view::RoomView;

/// What others may go on doing in a room.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The patient.
    pub patient: AuthorId,
    /// Grants that hold, or still drain.
    pub grants: Vec<GrantLine>,
    /// Delegations that hold.
    pub delegates: Vec<DelegateLine>,
}

impl InForce {
    /// As a room's verified records show it.
    pub fn of(state: &RoomState, view: &RoomView, now: UnixMs) -> Self {
        let goes_on = |grant: &GrantLine| match (grant.ended, grant.expires) {
            (_, Some(end)) if end <= now => false,
            (Some(GrantEnd { ending: Ending::DrainUntil(until), .. }), _) => now <= until,
            (ended, _) => ended.is_none(),
        };
        let holds = |delegate: &DelegateLine| state.is_delegate(delegate.id, now);
        Self {
            patient: state.owner,
            grants: grants(state, view, state.owner).into_iter().filter(goes_on).collect(),
            delegates: delegates(state, view).into_iter().filter(holds).collect(),
        }
    }

    /// Adds the delegates' names that other keys could read: records of grants are handed over with theirs, of delegations not.
    pub fn named_by(mut self, view: &RoomView) -> Self {
        let name = |id: AuthorId| view.delegate(id).and_then(|delegate| delegate.name.clone());
        for delegate in &mut self.delegates {
            delegate.name = delegate.name.take().or_else(|| name(delegate.id));
        }
        for grant in &mut self.grants {
            grant.by_name = grant.by_name.take().or_else(|| grant.by.and_then(name));
        }
        self
    }
}
