//! What admission asks about one room, answered from the tables.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable;

use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, Hash, RoomId, StrandId, WrapId};
use ehe::room::{Ledger, WrapFact};
use ehe::run::StrandEnd;
use ehe::time::Hour;

use super::known;
use super::schema::Tables;
use super::store::StoreError;
use super::view::stored_wrap;

/// What admission asks about one room.
pub(super) struct RoomLedger<'a, 't> {
    tables: &'a Tables<'t>,
    room: RoomId,
    /// The hours of the events that are to be admitted, by which known ones are found.
    hours: BTreeMap<EheId, Hour>,
    /// Runs that hold one of them already.
    found: RefCell<BTreeSet<u64>>,
}

impl<'a, 't> RoomLedger<'a, 't> {
    /// `events`: those that are to be admitted.
    pub(super) fn new(tables: &'a Tables<'t>, room: RoomId, events: &[CheckedEvent]) -> Self {
        let hours = events.iter().map(|event| (event.id(), event.core().hour)).collect();
        Self { tables, room, hours, found: RefCell::default() }
    }

    /// The runs that hold events which were asked for.
    pub(super) fn into_found(self) -> BTreeSet<u64> {
        self.found.into_inner()
    }
}

impl Ledger for RoomLedger<'_, '_> {
    type Error = StoreError;

    fn strand(&self, author: AuthorId, strand: StrandId) -> Result<Option<StrandEnd>, StoreError> {
        let end = self.tables.strands.get((self.room.as_bytes(), author.as_bytes(), strand.as_bytes()))?;
        Ok(end.map(|end| {
            let (next, link, _) = end.value();
            StrandEnd { strand, next, link: Hash(*link) }
        }))
    }

    fn wrap(&self, wrap: WrapId) -> Result<Option<WrapFact>, StoreError> {
        Ok(stored_wrap(self.tables, self.room, wrap)?.map(|stored| stored.fact))
    }

    fn has_event(&self, id: EheId) -> Result<bool, StoreError> {
        let Some(hour) = self.hours.get(&id) else { return Ok(false) };
        let Some((log_index, _)) = known::find(&self.tables.known, *hour, id)? else { return Ok(false) };
        self.found.borrow_mut().insert(log_index);
        Ok(true)
    }
}
