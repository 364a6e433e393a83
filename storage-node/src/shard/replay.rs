//! A room's rules, made again from its control events: what the stored ones have to be.

use std::convert::Infallible;

use ehe::event::{CheckedEvent, Event};
use ehe::id::{AuthorId, EheId, RoomId, StrandId, WrapId};
use ehe::room::{Ledger, RoomState, WrapFact, admit, author_key};
use ehe::run::{SignedRun, StrandEnd};

use super::audit::Roots;
use super::entry::{Entry, LogName, Names, StoredEvent};
use super::places;
use super::record::Record;
use super::schema::ReadTables;
use super::segments;
use super::store::StoreError;
use super::view::View;

/// What became of it.
pub(crate) enum Replayed {
    /// The rules' state.
    State(Box<RoomState>),
    /// An entry of the room is not readable, which is found where it stands.
    Unreadable,
    /// The entries do not follow each other by the rules.
    Against,
}

/// The log in which rooms are replayed.
pub(super) struct Log<'a> {
    pub(super) tables: &'a ReadTables,
    pub(super) name: LogName,
    /// Of so many leaves it is known that sound nodes took them in. Who signed what comes after them, replaying asks itself.
    pub(super) vouched: u64,
}

impl View {
    /// Replays a room of this state. Who signed is asked of each entry by itself.
    pub(crate) fn replay(&self, room: RoomId, roots: &mut Roots) -> Result<Replayed, StoreError> {
        let mut entry = |log_index| self.entry_with(log_index, roots);
        let log = Log { tables: self.tables(), name: self.log_name(), vouched: u64::MAX };
        log.replay(room, &mut entry)
    }
}

impl Log<'_> {
    /// Replays a room, and says whether that gives `stored`.
    pub(super) fn leads_to<'t>(
        &'t self,
        names: &Names<'t, ReadTables>,
        room: RoomId,
        stored: &RoomState,
    ) -> Result<bool, StoreError> {
        let replayed = self.replay(room, &mut |log_index| names.entry(log_index))?;
        Ok(matches!(replayed, Replayed::State(made) if *made == *stored))
    }

    /// Reads the entries at which the number of control events changes, and a few for each to find them.
    fn replay(
        &self,
        room: RoomId,
        entry_at: &mut impl FnMut(u64) -> Result<Entry, StoreError>,
    ) -> Result<Replayed, StoreError> {
        let mut state: Option<RoomState> = None;
        let (mut next, mut counted) = (0u64, 0u64);
        let Some((last, _)) = places::last(self.tables, room, u64::MAX)? else { return Ok(Replayed::Against) };
        while let Some(at) = self.next_change(room, next, last, counted)? {
            let Some(log_index) = places::position(self.tables, room, at)? else { return Ok(Replayed::Unreadable) };
            let entry = match entry_at(log_index) {
                Ok(entry) => entry,
                Err(StoreError::Corrupt(_)) => return Ok(Replayed::Unreadable),
                Err(error) => return Err(error),
            };
            let Some(events) = events_of(&entry) else { return Ok(Replayed::Unreadable) };
            let Ok(run) = SignedRun(entry.bytes).decode() else { return Ok(Replayed::Against) };
            let from = run.claims().from;
            let run = if log_index < self.vouched {
                run.trust_ordering_party()
            } else {
                let Ok(key) = author_key(state.as_ref(), run.claims(), &events) else { return Ok(Replayed::Against) };
                let Ok(run) = run.verify(&key) else { return Ok(Replayed::Against) };
                run
            };
            let admitted = admit(self.name.alliance, state.as_ref(), &run, &events, &AsItCame(from), entry.accepted_at);
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

    /// The first entry from `from` on with another count of control events than `counted`. The count never goes back within a room.
    fn next_change(&self, room: RoomId, from: u64, last: u64, counted: u64) -> Result<Option<u64>, StoreError> {
        let count = |index: u64| -> Result<u64, StoreError> {
            let at = places::position(self.tables, room, index)?.ok_or(StoreError::Corrupt("a room has a hole"))?;
            control_at(self.tables, at)
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
}

/// The events of a run whose bodies are all there.
fn events_of(entry: &Entry) -> Option<Vec<CheckedEvent>> {
    let whole = |stored: &StoredEvent| {
        let event = Event { header: stored.header.clone(), body: stored.body.clone()? };
        event.check().ok()
    };
    entry.events.iter().map(whole).collect()
}

/// Control events of a room as of one of its entries.
pub(super) fn control_at(tables: &ReadTables, log_index: u64) -> Result<u64, StoreError> {
    let bytes = segments::read(&tables.log, log_index)?;
    Ok(Record::decode(&bytes).ok_or(StoreError::Corrupt("an entry of the log does not decode"))?.control)
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
