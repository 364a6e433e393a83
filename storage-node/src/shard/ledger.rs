//! What admission asks about one room, answered from the tables.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable;

use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, Hash, RoomId, StrandId, WrapId};
use ehe::room::{Ledger, WrapFact};
use ehe::run::StrandEnd;
use ehe::time::Hour;

use super::known;
use super::schema::{StoredWrap, Tables};
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
    /// Number of the strand that was asked for last.
    strand: Cell<Option<u64>>,
    /// The wraps that were asked for and are there.
    wraps: RefCell<BTreeMap<WrapId, StoredWrap>>,
}

/// What the tables have of what a run names: what was looked up to judge it need not be looked up again to store it.
pub(super) struct Named {
    /// The number of its strand, if that is not new.
    pub(super) strand: Option<u64>,
    /// Wraps that its events name, as far as they were there.
    pub(super) wraps: BTreeMap<WrapId, StoredWrap>,
}

impl<'a, 't> RoomLedger<'a, 't> {
    /// `events`: those that are to be admitted.
    pub(super) fn new(tables: &'a Tables<'t>, room: RoomId, events: &[CheckedEvent]) -> Self {
        let hours = events.iter().map(|event| (event.id(), event.core().hour)).collect();
        Self { tables, room, hours, found: RefCell::default(), strand: Cell::new(None), wraps: RefCell::default() }
    }

    /// The runs that hold events which were asked for.
    pub(super) fn into_found(self) -> BTreeSet<u64> {
        self.found.into_inner()
    }

    /// What was found of what the run names.
    pub(super) fn into_named(self) -> Named {
        Named { strand: self.strand.get(), wraps: self.wraps.into_inner() }
    }
}

impl Ledger for RoomLedger<'_, '_> {
    type Error = StoreError;

    fn strand(&self, author: AuthorId, strand: StrandId) -> Result<Option<StrandEnd>, StoreError> {
        let end = self.tables.strands.get((self.room.as_bytes(), author.as_bytes(), strand.as_bytes()))?;
        self.strand.set(end.as_ref().map(|end| end.value().2));
        Ok(end.map(|end| {
            let (next, link, _) = end.value();
            StrandEnd { strand, next, link: Hash(*link) }
        }))
    }

    fn wrap(&self, wrap: WrapId) -> Result<Option<WrapFact>, StoreError> {
        let stored = stored_wrap(self.tables, self.room, wrap)?;
        self.wraps.borrow_mut().extend(stored.map(|stored| (wrap, stored)));
        Ok(stored.map(|stored| stored.fact))
    }

    fn has_event(&self, id: EheId) -> Result<bool, StoreError> {
        let Some(hour) = self.hours.get(&id) else { return Ok(false) };
        let Some((log_index, _)) = known::find(&self.tables.known, *hour, id)? else { return Ok(false) };
        self.found.borrow_mut().insert(log_index);
        Ok(true)
    }
}
