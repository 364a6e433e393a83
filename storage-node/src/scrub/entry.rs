//! One entry of a shard's log, held against everything that is kept of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ehe::control::Control;
use ehe::event::{CheckedEvent, Event, EventError, Kind};
use ehe::id::{Hash, RoomId, WrapId};
use ehe::limits::REQUEST_SKEW_MAX_MS;
use ehe::merkle::{NodeAt, Nodes};
use ehe::read::{AccessRecord, Part};
use ehe::room::{RoomState, WrapFact};
use ehe::run::{Run, SignedRun};
use ehe::time::UnixMs;
use ehe::void::{VoidRecord, false_signature};

use super::author;
use super::finding::{Table, What};
use super::sum::Sum;
use crate::shard::{Entry, Form, Replayed, Roots, StoreError, View};

/// Rooms whose rules stay decoded while one view is looked at.
const ROOMS_KEPT: usize = 256;
/// Rooms of which it is remembered what their records lead to: that is asked for each false signature.
const REPLAYED_KEPT: usize = 16;

/// What is looked up again and again in one view.
#[derive(Default)]
pub(super) struct Looked {
    rooms: BTreeMap<RoomId, Arc<(RoomState, Form)>>,
    replayed: BTreeMap<RoomId, Arc<Replayed>>,
    pub(super) roots: Roots,
}

impl Looked {
    fn room(&mut self, view: &View, room: RoomId) -> Result<Option<Arc<(RoomState, Form)>>, StoreError> {
        if let Some(known) = self.rooms.get(&room) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(found) = view.room_row(room)?.map(Arc::new) else { return Ok(None) };
        if self.rooms.len() >= ROOMS_KEPT {
            self.rooms.clear();
        }
        self.rooms.insert(room, Arc::clone(&found));
        Ok(Some(found))
    }

    fn replay(&mut self, view: &View, room: RoomId) -> Result<Arc<Replayed>, StoreError> {
        if let Some(known) = self.replayed.get(&room) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(view.replay(room, &mut self.roots)?);
        if self.replayed.len() >= REPLAYED_KEPT {
            self.replayed.clear();
        }
        self.replayed.insert(room, Arc::clone(&found));
        Ok(found)
    }
}

/// What was learnt of an entry.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Its leaf in the tree: the stored one where there is one.
    pub(super) leaf: Option<Hash>,
    /// When it was accepted.
    pub(super) accepted_at: Option<UnixMs>,
    /// Its events.
    pub(super) events: u64,
    /// It is a run that is taken as void, because it is not known by any of its events and its signature is false.
    pub(super) void: bool,
    /// The run of which it says that it is void, and how many events that has: they are known no more by that.
    pub(super) voids: Option<(u64, u64)>,
    /// Its wraps.
    pub(super) wraps: u64,
    /// How it moved its strand.
    pub(super) strands: Sum,
    /// What is wrong.
    pub(super) wrong: Vec<What>,
}

impl Checked {
    fn require(&mut self, holds: bool, what: impl FnOnce() -> What) {
        if !holds {
            let what = what();
            if !self.wrong.contains(&what) {
                self.wrong.push(what);
            }
        }
    }
}

/// A table's rows cannot be read, or say that they are damaged: that is a finding about the table. What storage itself reports is not.
fn soft<T>(checked: &mut Checked, what: What, found: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Corrupt(_)) => {
            checked.require(false, || what);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Checks the entry that is stored in these bytes. `after`: when the entry before it was accepted.
pub(super) fn check(
    view: &View,
    looked: &mut Looked,
    log_index: u64,
    bytes: &[u8],
    after: UnixMs,
) -> Result<Checked, StoreError> {
    let mut checked = Checked::default();
    let stored = view.node(NodeAt { level: 0, index: log_index });
    checked.leaf = soft(&mut checked, What::Table(Table::Rows), stored)?;
    let row = view.row(log_index, bytes, &mut looked.roots);
    let Some(row) = soft(&mut checked, What::Record, row)? else { return Ok(checked) };
    let entry = row.entry;
    let leaf = view.leaf(&entry);
    let leaf = soft(&mut checked, What::Place, leaf)?.map(|leaf| leaf.hash());
    // What is not the tree's entry says nothing about anybody: neither who signed it, nor what follows from it.
    if let (Some(stored), Some(leaf)) = (checked.leaf, leaf)
        && stored != leaf
    {
        checked.require(false, || What::Leaf);
        return Ok(checked);
    }
    if leaf.is_none() {
        return Ok(checked);
    }
    checked.leaf = checked.leaf.or(leaf);
    // Nor does what lacks something: the bodies of its events, say.
    if row.form != Form::Sound {
        checked.require(false, || What::Record);
        return Ok(checked);
    }
    let place = view.position(entry.room, entry.index);
    let place = soft(&mut checked, What::Place, place)?.flatten();
    checked.require(place == Some(log_index), || What::Place);
    checked.require(entry.accepted_at >= after, || What::Entry);
    checked.accepted_at = Some(entry.accepted_at);
    if entry.is_run() {
        run(view, looked, log_index, &entry, row.strand, &mut checked)?;
    } else if let Some(record) = entry.void() {
        void(view, looked, &entry, &record, &mut checked)?;
    } else {
        access(view, looked, &entry, &mut checked)?;
    }
    Ok(checked)
}

fn run(
    view: &View,
    looked: &mut Looked,
    log_index: u64,
    entry: &Entry,
    strand: Option<u64>,
    checked: &mut Checked,
) -> Result<(), StoreError> {
    checked.events = entry.events.len().try_into().unwrap_or(u64::MAX);
    let signed = SignedRun(entry.bytes.clone());
    let Ok(unverified) = signed.decode() else {
        checked.require(false, || What::Entry);
        return Ok(());
    };
    let claims = unverified.claims().clone();
    checked.require(claims.room == entry.room, || What::Entry);
    checked.require(claims.ids.len() == entry.events.len(), || What::Event(0));
    let (mut events, mut known) = (Vec::with_capacity(entry.events.len()), 0usize);
    for (position, (stored, id)) in (0u16..).zip(entry.events.iter().zip(&claims.ids)) {
        let event = match &stored.body {
            Some(body) => Event { header: stored.header.clone(), body: body.clone() }.check(),
            None => CheckedEvent::without_body(stored.header.clone()),
        };
        match event {
            Ok(event) => {
                checked.require(event.id() == *id, || What::Event(position));
                let at = view.known_at(event.core().hour, event.id())?;
                known += usize::from(at == Some((log_index, position)));
                events.push(event);
            }
            // Nodes refuse what they do not know.
            Err(EventError::Version(_)) => checked.require(false, || What::Entry),
            Err(_) => checked.require(false, || What::Event(position)),
        }
    }
    // Known by all of its events; or by none: then it has to be void.
    let void = known == 0 && !events.is_empty();
    checked.require(void || known == events.len(), || What::Table(Table::Known));
    wraps(view, log_index, &claims, &events, checked)?;
    strands(view, &claims, strand, checked)?;
    if events.len() != claims.ids.len() {
        return Ok(());
    }
    let stored = looked.room(view, entry.room);
    let Some(stored) = soft(checked, What::Table(Table::Rooms), stored)?.flatten() else {
        checked.require(false, || What::Table(Table::Rooms));
        return Ok(());
    };
    let (room, form) = (&stored.0, stored.1);
    let last = author::counted(&events) > 0 && is_last_control(view, entry)?;
    let stands = author::signed(room, unverified.clone(), &events, entry.control);
    if !last && stands {
        checked.require(!void, || What::Table(Table::Known));
        return Ok(());
    }
    // By the stored rules it is false, or these are to be looked at anyway: what do the room's own records make of it?
    let Some(replayed) = soft(checked, What::Table(Table::Rooms), looked.replay(view, entry.room))? else {
        return Ok(());
    };
    let made = match &*replayed {
        Replayed::State(made) => made,
        Replayed::Unreadable => return Ok(()),
        Replayed::Against => {
            checked.require(false, || What::Table(Table::Rooms));
            return Ok(());
        }
    };
    checked.require(**made == *room && form == Form::Sound, || What::Table(Table::Rooms));
    let content = events.iter().all(|event| event.core().kind.is_content());
    if void && content && matches!(false_signature(made, unverified.clone()), Ok(Some(_))) {
        checked.void = true;
        return Ok(());
    }
    checked.require(!void, || What::Table(Table::Known));
    checked.require(author::signed(made, unverified, &events, entry.control), || What::Signature);
    if last {
        for party in made.known_ids() {
            checked.require(view.is_party(party, entry.room)?, || What::Table(Table::Parties));
        }
    }
    Ok(())
}

/// The record by which a run is void.
fn void(
    view: &View,
    looked: &mut Looked,
    entry: &Entry,
    record: &VoidRecord,
    checked: &mut Checked,
) -> Result<(), StoreError> {
    let stored = looked.room(view, entry.room);
    let Some(stored) = soft(checked, What::Table(Table::Rooms), stored)?.flatten() else {
        checked.require(false, || What::Table(Table::Rooms));
        return Ok(());
    };
    let mut judged = record.judge(&stored.0, entry.index);
    if judged.is_err() {
        match soft(checked, What::Table(Table::Rooms), view.replay(entry.room, &mut looked.roots))? {
            Some(Replayed::State(made)) => {
                checked.require(*made == stored.0, || What::Table(Table::Rooms));
                judged = record.judge(&made, entry.index);
            }
            Some(Replayed::Against) => {
                checked.require(false, || What::Table(Table::Rooms));
                return Ok(());
            }
            Some(Replayed::Unreadable) | None => return Ok(()),
        }
    }
    let Ok(run) = judged else {
        checked.require(false, || What::Entry);
        return Ok(());
    };
    let place = view.position(entry.room, record.index);
    let place = soft(checked, What::Place, place)?.flatten();
    checked.require(place.is_some(), || What::Place);
    checked.voids = place.map(|place| (place, run.ids.len().try_into().unwrap_or(u64::MAX)));
    Ok(())
}

/// Whether no control event of the room follows. By the log: what the rules' state says of that is in question.
fn is_last_control(view: &View, entry: &Entry) -> Result<bool, StoreError> {
    let last = view.last(entry.room, u64::MAX).and_then(|last| match last {
        Some((_, at)) => view.control_at(at).map(|control| control == entry.control),
        None => Ok(true),
    });
    match last {
        // Then it is looked at too often rather than not at all.
        Err(StoreError::Corrupt(_)) => Ok(true),
        other => other,
    }
}

fn wraps(
    view: &View,
    log_index: u64,
    run: &Run,
    events: &[CheckedEvent],
    checked: &mut Checked,
) -> Result<(), StoreError> {
    for event in events.iter().filter(|event| event.core().kind == Kind::Wrap) {
        checked.wraps = checked.wraps.saturating_add(1);
        let Ok(Control::Wrap(record)) = Control::decode(event) else {
            checked.require(false, || What::Entry);
            continue;
        };
        let fact = WrapFact { author: run.author, epoch: record.epoch, day: record.day };
        let position = run.ids.iter().position(|id| *id == event.id()).and_then(|at| u16::try_from(at).ok());
        let row = view.wrap_row(run.room, WrapId::from(event.id()));
        let row = soft(checked, What::Table(Table::Wraps), row)?.flatten();
        let at = position.map(|position| (log_index, position));
        let fits = row.is_some_and(|row| row.fact == fact && Some(row.at) == at && row.named);
        checked.require(fits, || What::Table(Table::Wraps));
    }
    Ok(())
}

fn strands(view: &View, run: &Run, number: Option<u64>, checked: &mut Checked) -> Result<(), StoreError> {
    let end = run.end();
    let row = view.strand(run.room, run.author, end.strand)?;
    let fits = row.is_some_and(|(kept, kept_number)| {
        kept.next >= end.next
            && (kept.next > end.next || kept.link == end.link)
            && number.is_none_or(|number| number == kept_number)
    });
    checked.require(fits, || What::Table(Table::Strands));
    checked.strands.add(run.room, run.author, &end);
    if run.from.next > 0 {
        checked.strands.take(run.room, run.author, &run.from);
    }
    Ok(())
}

fn access(view: &View, looked: &mut Looked, entry: &Entry, checked: &mut Checked) -> Result<(), StoreError> {
    let Ok(record) = AccessRecord::decode(&entry.bytes) else {
        checked.require(false, || What::Entry);
        return Ok(());
    };
    let stored = looked.room(view, entry.room);
    let Some(stored) = soft(checked, What::Table(Table::Rooms), stored)?.flatten() else {
        checked.require(false, || What::Table(Table::Rooms));
        return Ok(());
    };
    let mut asked = author::asked(&stored.0, &record);
    if asked.is_err() {
        match soft(checked, What::Table(Table::Rooms), view.replay(entry.room, &mut looked.roots))? {
            Some(Replayed::State(made)) => {
                checked.require(*made == stored.0, || What::Table(Table::Rooms));
                asked = author::asked(&made, &record);
            }
            Some(Replayed::Against) => {
                checked.require(false, || What::Table(Table::Rooms));
                return Ok(());
            }
            Some(Replayed::Unreadable) | None => return Ok(()),
        }
    }
    let Ok(request) = asked else {
        checked.require(false, || What::Signature);
        return Ok(());
    };
    let granted = record.refused.is_none();
    let sound = request.room == entry.room
        && record.count > 0
        && record.at <= entry.accepted_at
        && (!granted || record.at == entry.accepted_at && record.count == 1 && request.scope.part == Part::Content);
    checked.require(sound, || What::Entry);
    let remembered = request.made_at.0 >= view.shard().time.0.saturating_sub(REQUEST_SKEW_MAX_MS);
    if granted && remembered {
        checked.require(view.has_nonce(&request)?, || What::Table(Table::Nonces));
    }
    Ok(())
}
