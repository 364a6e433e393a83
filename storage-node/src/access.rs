//! The only way from a shard's file to a reader. Three types, each made only from the one before it:
//!
//! [`Granted`]: the room's rules allow the request ([`ehe::room::decide`]).
//! [`Audited`]: and the access record is committed, or the part that is asked for needs none.
//! [`Page`]: what is released. Every page asks the rules again.
//!
//! What a stream holds: one item for every leaf of the room, in order. Of entries that the reader may not have, the leaf alone; and of runs that
//! are void, but to the patient who looks at the whole ledger.

use std::collections::BTreeSet;

use ehe::event::{Event, Header, Kind, decode_header};
use ehe::id::{AllianceId, AuthorId, RoomId, WrapId};
use ehe::read::{Part, ReadRequest, Scope, SignedRequest};
use ehe::refusal::Refusal;
use ehe::room::{Granted, RoomState, decide};
use ehe::run::SignedRun;
use ehe::time::UnixMs;
use ehe::wire::{Item, Response};

use crate::red;
use crate::shard::{Committed, StoreError, StoredEvent, View};

/// Leaves of one page.
const PAGE_LEAVES_MAX: usize = 1024;
/// A page ends with the frame that passes this.
const PAGE_BYTES: usize = 256 * 1024;
/// Wraps of which a stream remembers that it sent them; then it forgets them all, and may send one again.
const WRAPS_REMEMBERED_MAX: usize = 4096;

/// A request that may be answered: granted, and recorded where that is needed.
#[derive(Debug, Clone)]
pub struct Audited {
    granted: Granted,
    /// Control events that the room had where the record stands. None: there is no record.
    control: Option<u64>,
}

impl Audited {
    /// Content: the committed record has to be that of this very request. The room had so many `control` events where it stands.
    pub fn committed(granted: Granted, signed: &SignedRequest, committed: &Committed, control: u64) -> Option<Self> {
        let same = signed.decode().is_ok_and(|request| request.claims() == granted.request());
        (same && committed.is_of(signed)).then_some(Self { granted, control: Some(control) })
    }

    /// Parts of a room that are read without a record.
    pub fn without_record(granted: Granted) -> Option<Self> {
        if granted.needs_audit() && !red::on("audit_late") { None } else { Some(Self { granted, control: None }) }
    }

    /// Asks the rules as they are in `room`. A right that ended and was given again is another one, of which no record tells yet: the reader
    /// is to ask again.
    fn asked_again(&self, alliance: AllianceId, room: &RoomState, now: UnixMs) -> Result<Granted, Refusal> {
        let granted = decide(alliance, room, self.request(), now)?;
        let stood = self.control.is_none_or(|control| granted.rests_on_first(room, control, now));
        if stood { Ok(granted) } else { Err(Refusal::NoLeader) }
    }

    /// The request.
    pub fn request(&self) -> &ReadRequest {
        self.granted.request()
    }
}

/// Why a stream ends.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The right to read ended.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A frame, and the entry that it is sent for.
#[derive(Debug)]
pub struct Frame {
    /// An encoded [`Response`].
    pub bytes: Vec<u8>,
    /// Place of the entry in the room.
    pub index: u64,
}

/// What is sent until the rules are asked again.
#[derive(Debug)]
pub struct Page {
    /// Frames, in order.
    pub frames: Vec<Frame>,
    /// Whether nothing is left.
    pub caught_up: bool,
    /// When the first of the grants that it may rest on ends by itself.
    pub ends: Option<UnixMs>,
}

/// Whether a stream may go on. It releases nothing.
#[derive(Debug, Clone)]
pub struct Asks {
    alliance: AllianceId,
    audited: Audited,
}

impl Asks {
    /// Asks the rules as they are in `view`.
    pub fn still_allowed(&self, view: &View, now: UnixMs) -> Result<(), Cut> {
        let room = view.room(self.audited.request().room)?.ok_or(Refusal::RoomUnknown)?;
        self.audited.asked_again(self.alliance, &room, now)?;
        Ok(())
    }
}

/// Releases a room to one reader, page by page.
#[derive(Debug)]
pub struct Release {
    alliance: AllianceId,
    audited: Audited,
    cursor: u64,
    wraps: BTreeSet<WrapId>,
}

impl Release {
    /// From the place that the request names.
    pub fn new(alliance: AllianceId, audited: Audited) -> Self {
        let cursor = audited.request().from_index;
        Self { alliance, audited, cursor, wraps: BTreeSet::new() }
    }

    /// The room.
    pub fn room(&self) -> RoomId {
        self.audited.request().room
    }

    /// The request.
    pub fn request(&self) -> &ReadRequest {
        self.audited.request()
    }

    /// The frames from that of entry `index` on were not sent.
    pub fn rewind(&mut self, index: u64) {
        self.cursor = index;
        self.wraps.clear();
    }

    /// Whether the log's first `log_size` leaves have something of the room that was not released yet.
    pub fn behind(&self, view: &View, log_size: u64) -> Result<bool, StoreError> {
        Ok(view.last(self.room(), log_size)?.is_some_and(|(last, _)| last >= self.cursor))
    }

    /// What to ask the rules while a page is under way.
    pub fn asks(&self) -> Asks {
        Asks { alliance: self.alliance, audited: self.audited.clone() }
    }

    /// The next page, of the log's first `log_size` leaves, if the rules still allow it at `now`.
    pub fn page(&mut self, view: &View, log_size: u64, now: UnixMs) -> Result<Page, Cut> {
        let id = self.room();
        let room = view.room(id)?.ok_or(Refusal::RoomUnknown)?;
        self.audited.granted = self.audited.asked_again(self.alliance, &room, now)?;
        let rows = view.positions(id, self.cursor, log_size, PAGE_LEAVES_MAX)?;
        let ends = ends(&room, self.audited.request().reader, now);
        let mut page = Page { frames: Vec::new(), caught_up: rows.len() < PAGE_LEAVES_MAX, ends };
        let mut bytes = 0usize;
        for (n, (index, log_index)) in (1..).zip(&rows) {
            let before = page.frames.len();
            self.item(view, &room, *index, *log_index, &mut page.frames)?;
            self.cursor = index + 1;
            bytes += page.frames.iter().skip(before).map(|frame| frame.bytes.len()).sum::<usize>();
            if bytes >= PAGE_BYTES && n < rows.len() {
                page.caught_up = false;
                break;
            }
        }
        Ok(page)
    }

    fn item(
        &mut self,
        view: &View,
        room: &RoomState,
        index: u64,
        log_index: u64,
        frames: &mut Vec<Frame>,
    ) -> Result<(), StoreError> {
        let entry = view.entry(log_index)?;
        let mut item =
            Item { leaf: view.own_leaf(log_index, &entry)?, run: None, events: Vec::new(), access: None, void: None };
        let scope = &self.audited.request().scope;
        match scope.part {
            // Whoever was shown the run has to hear that it is void.
            _ if entry.void().is_some() => item.void = Some(entry.bytes),
            Part::Ledger if entry.is_run() => {
                for StoredEvent { header, body } in entry.events {
                    // The ledger is not content: whose bodies one wants, one asks for, and that leaves a record.
                    let body = if header_of(&header)?.core.kind.is_content() { None } else { body };
                    item.events.push(Event { header, body: body.unwrap_or_default() });
                }
                item.run = Some(SignedRun(entry.bytes));
            }
            Part::Ledger => item.access = Some(entry.bytes),
            Part::Control | Part::Content if !entry.is_run() => {}
            Part::Control | Part::Content => {
                let (wraps, events) = self.run(view, room, (log_index, &entry.bytes), entry.events)?;
                let wraps = wraps.into_iter().map(|wrap| Frame { bytes: Response::Wrap(wrap).to_vec(), index });
                frames.extend(wraps);
                if !events.is_empty() {
                    item.run = Some(SignedRun(entry.bytes));
                    item.events = events;
                }
            }
        }
        frames.push(Frame { bytes: Response::Item(item).to_vec(), index });
        Ok(())
    }

    /// Of a run: the wraps that the stream has not sent yet, and the events that the reader may have.
    fn run(
        &mut self,
        view: &View,
        room: &RoomState,
        (log_index, signed): (u64, &[u8]),
        stored: Vec<StoredEvent>,
    ) -> Result<(Vec<Event>, Vec<Event>), StoreError> {
        let scope = &self.audited.request().scope;
        let decoded = stored.iter().map(|event| header_of(&event.header)).collect::<Result<Vec<_>, _>>()?;
        // A party's view of the rules: the room's control records, whole, whoever was allowed to make them. Such a run has no
        // content (apply refuses it).
        let whole = decoded.iter().any(|h| !h.core.kind.is_content() && h.core.kind != Kind::Wrap)
            && !decoded.iter().any(|h| h.core.kind.is_content());
        let (mut wraps, mut events) = (Vec::new(), Vec::new());
        // Readers know it by its signature, and need not remember it until its record comes.
        if let (Some(first), Some(header)) = (stored.first(), decoded.first())
            && decoded.iter().any(|header| covers(scope, header))
            && view.is_void(room, log_index, signed, (header.core.hour, &first.header))?
        {
            return Ok((wraps, events));
        }
        for (StoredEvent { header, body }, decoded) in stored.into_iter().zip(&decoded) {
            if !whole && !covers(scope, decoded) {
                continue;
            }
            if decoded.core.kind.is_content() && self.wraps.insert(decoded.core.wrap) {
                let wrap = view.wrap_event(room.room, decoded.core.wrap)?;
                wraps.push(wrap.ok_or(StoreError::Corrupt("a wrap is missing"))?);
            }
            events.push(Event { header, body: body.unwrap_or_default() });
        }
        if self.wraps.len() > WRAPS_REMEMBERED_MAX {
            self.wraps.clear();
        }
        Ok((wraps, events))
    }
}

/// When the first grant of a reader that has not ended yet ends by itself.
fn ends(room: &RoomState, reader: AuthorId, now: UnixMs) -> Option<UnixMs> {
    // Replaced keys were refused before.
    let reader = room.author_of(reader).unwrap_or(reader);
    room.grants_of(reader).filter_map(|(_, grant)| grant.expires).filter(|ends| *ends > now).min()
}

/// Whether a content event is what was asked for.
fn covers(scope: &Scope, header: &Header) -> bool {
    let core = &header.core;
    scope.part == Part::Content
        && core.kind.is_content()
        && scope.epochs.contains(&core.epoch)
        && (scope.from..scope.until).contains(&core.hour)
}

fn header_of(bytes: &[u8]) -> Result<Header, StoreError> {
    decode_header(bytes).map_err(|_| StoreError::Corrupt("a stored header does not decode"))
}
