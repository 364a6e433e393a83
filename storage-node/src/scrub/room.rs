//! A room's rules, made again from its control events: what the stored ones have to be.

use std::convert::Infallible;

use ehe::event::{CheckedEvent, Event};
use ehe::id::{AuthorId, EheId, RoomId, StrandId, WrapId};
use ehe::room::{Ledger, RoomState, WrapFact, admit};
use ehe::run::{SignedRun, StrandEnd};

use crate::shard::{Entry, Roots, StoreError, View};

/// What became of it.
pub(super) enum Replayed {
    /// The rules' state.
    State(Box<RoomState>),
    /// An entry of the room is not readable, which is found where it stands.
    Unreadable,
    /// The entries do not follow each other by the rules.
    Against,
}

/// Replays a room. Reads the entries at which the number of control events changes, and a few for each to find them.
pub(super) fn replay(view: &View, room: RoomId, roots: &mut Roots) -> Result<Replayed, StoreError> {
    let mut state: Option<RoomState> = None;
    let (mut next, mut counted) = (0u64, 0u64);
    let Some((last, _)) = view.last(room, u64::MAX)? else { return Ok(Replayed::Against) };
    while let Some(at) = next_change(view, room, next, last, counted)? {
        let Some(log_index) = view.position(room, at)? else { return Ok(Replayed::Unreadable) };
        let entry = match view.entry_with(log_index, roots) {
            Ok(entry) => entry,
            Err(StoreError::Corrupt(_)) => return Ok(Replayed::Unreadable),
            Err(error) => return Err(error),
        };
        let Some(events) = events_of(&entry) else { return Ok(Replayed::Unreadable) };
        let Ok(run) = SignedRun(entry.bytes).decode() else { return Ok(Replayed::Against) };
        let from = run.claims().from;
        // Who signed is asked of each entry by itself.
        let admitted = admit(
            view.alliance(),
            state.as_ref(),
            &run.trust_ordering_party(),
            &events,
            &AsItCame(from),
            entry.accepted_at,
        );
        let Ok(Ok(admission)) = admitted else { return Ok(Replayed::Against) };
        let Some(changed) = admission.room else { return Ok(Replayed::Against) };
        if changed.next_control != entry.control {
            return Ok(Replayed::Against);
        }
        (next, counted) = (at + 1, entry.control);
        state = Some(changed);
    }
    Ok(state.map_or(Replayed::Against, |state| Replayed::State(Box::new(state))))
}

/// The events of a run whose bodies are all there.
pub(super) fn events_of(entry: &Entry) -> Option<Vec<CheckedEvent>> {
    let whole = |stored: &crate::shard::StoredEvent| {
        let event = Event { header: stored.header.clone(), body: stored.body.clone()? };
        event.check().ok()
    };
    entry.events.iter().map(whole).collect()
}

/// The first entry from `from` on with another count of control events than `counted`. The count never goes back within a room.
fn next_change(view: &View, room: RoomId, from: u64, last: u64, counted: u64) -> Result<Option<u64>, StoreError> {
    let count = |index: u64| -> Result<u64, StoreError> {
        let at = view.position(room, index)?.ok_or(StoreError::Corrupt("a room has a hole"))?;
        view.control_at(at)
    };
    if from > last || count(last)? == counted {
        return Ok(None);
    }
    let (mut low, mut high) = (from, last);
    while low < high {
        let middle = low.midpoint(high);
        if count(middle)? == counted { low = middle + 1 } else { high = middle }
    }
    Ok(Some(low))
}

/// The ledger as an admitted run found it: nothing of it known, its strand where it says.
struct AsItCame(StrandEnd);

impl Ledger for AsItCame {
    type Error = Infallible;

    fn strand(&self, _: AuthorId, _: StrandId) -> Result<Option<StrandEnd>, Infallible> {
        Ok(Some(self.0))
    }

    fn wrap(&self, _: WrapId) -> Result<Option<WrapFact>, Infallible> {
        Ok(None)
    }

    fn has_event(&self, _: EheId) -> Result<bool, Infallible> {
        Ok(false)
    }
}
