//! May this run enter the room? The run is admitted whole or refused whole (SPEC 8).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::control::{Authority, Change, Control, Right};
use crate::event::{CheckedEvent, Kind};
use crate::id::{AllianceId, AuthorId, EheId, EpochId, RoomId, StrandId, WrapId};
use crate::refusal::Refusal;
use crate::room::state::RoomState;
use crate::run::{Run, StrandEnd, VerifiedRun};
use crate::sign::VerifyKey;
use crate::time::{Day, UnixMs};

/// What the ledger knows of a committed wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WrapFact {
    /// Who made it.
    #[n(0)]
    pub author: AuthorId,
    /// Its epoch.
    #[n(1)]
    pub epoch: EpochId,
    /// Its day.
    #[n(2)]
    pub day: Day,
}

/// What admission looks up in the room's stored ledger.
pub trait Ledger {
    /// A fault of the store.
    type Error;
    /// Where a strand ended.
    fn strand(&self, author: AuthorId, strand: StrandId) -> Result<Option<StrandEnd>, Self::Error>;
    /// A committed wrap.
    fn wrap(&self, wrap: WrapId) -> Result<Option<WrapFact>, Self::Error>;
    /// Whether an event is committed.
    fn has_event(&self, id: EheId) -> Result<bool, Self::Error>;
}

/// What an admitted run changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The room's new state, where control events changed it.
    pub room: Option<RoomState>,
    /// The strand's new end.
    pub strand: StrandEnd,
    /// Wraps that the run brought.
    pub wraps: Vec<(WrapId, WrapFact)>,
}

/// Why a run was not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Some of its events are committed already; the author gets their receipts and links the others again.
    Known(Vec<EheId>),
    /// It breaks a rule.
    Because(Refusal),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Because(refusal)
    }
}

/// The key that a run's signature must verify under: of a party of the room, of the patient who makes it, or of the recovery
/// identity, whose record brings its keys. Whether it is the room's is then the rules' to say.
pub fn author_key(room: Option<&RoomState>, run: &Run, events: &[CheckedEvent]) -> Result<VerifyKey, Refusal> {
    if let Some(room) = room {
        let recovery = || match events.first().filter(|e| e.core().kind == Kind::Authority).map(Control::decode) {
            Some(Ok(Control::Authority(Authority { change: Change::Recover { recovery, .. }, .. })))
                if recovery.author_id() == run.author =>
            {
                Some(recovery.sign)
            }
            _ => None,
        };
        return room.signing_key(run.author).or_else(recovery).ok_or(Refusal::NotInvited);
    }
    match events.first().filter(|e| e.core().kind == Kind::RoomCreate).map(Control::decode) {
        Some(Ok(Control::RoomCreate(create))) if create.owner.author_id() == run.author => Ok(create.owner.sign),
        Some(_) => Err(Refusal::ControlMalformed),
        None => Err(Refusal::RoomUnknown),
    }
}

/// Decides on a run whose signature stands. The outer error is the store's, the inner one the author's.
pub fn admit<L: Ledger>(
    alliance: AllianceId,
    room: Option<&RoomState>,
    run: &VerifiedRun,
    events: &[CheckedEvent],
    ledger: &L,
    now: UnixMs,
) -> Result<Result<Admission, Refused>, L::Error> {
    let ids = &run.run().ids;
    if ids.len() != events.len() || ids.iter().zip(events).any(|(id, event)| *id != event.id()) {
        return Ok(Err(Refusal::EventMalformed.into()));
    }
    admit_known(alliance, room, run, events, ledger, now)
}

/// The same of those events of a run whose version is known: a follower's affair (V1). That they are the run's, and which others
/// it names, the caller knows.
pub(crate) fn admit_known<L: Ledger>(
    alliance: AllianceId,
    room: Option<&RoomState>,
    run: &VerifiedRun,
    events: &[CheckedEvent],
    ledger: &L,
    now: UnixMs,
) -> Result<Result<Admission, Refused>, L::Error> {
    let run = run.run();
    if let Err(refusal) = shape(run, events) {
        return Ok(Err(refusal.into()));
    }
    let mut known = Vec::new();
    for id in &run.ids {
        if ledger.has_event(*id)? {
            known.push(*id);
        }
    }
    if !known.is_empty() {
        return Ok(Err(Refused::Known(known)));
    }
    let end = ledger.strand(run.author, run.from.strand)?.unwrap_or(StrandEnd::start(run.from.strand));
    if run.from != end {
        return Ok(Err(Refusal::StrandGap.into()));
    }
    let mut working = Working { room: room.map(Cow::Borrowed), wraps: BTreeMap::new(), closed: false };
    for event in events {
        if working.closed {
            return Ok(Err(Refusal::RunMalformed.into()));
        }
        let step = match event.core().kind {
            kind if kind.is_content() => {
                let wrap = match working.wraps.get(&event.core().wrap) {
                    Some(wrap) => Some(*wrap),
                    None => ledger.wrap(event.core().wrap)?,
                };
                working.content(event, wrap, now)
            }
            _ => working.control(alliance, run.room, event, now),
        };
        if let Err(refusal) = step {
            return Ok(Err(refusal.into()));
        }
    }
    Ok(Ok(Admission {
        room: match working.room {
            Some(Cow::Owned(changed)) => Some(changed),
            _ => None,
        },
        strand: run.end(),
        wraps: working.wraps.into_iter().collect(),
    }))
}

/// A run names no event twice.
pub(crate) fn names_each_once(run: &Run) -> Result<(), Refusal> {
    let each: BTreeSet<_> = run.ids.iter().collect();
    if each.len() == run.ids.len() { Ok(()) } else { Err(Refusal::EventRepeated) }
}

/// The run names each event once; they are of its own room and author.
fn shape(run: &Run, events: &[CheckedEvent]) -> Result<(), Refusal> {
    names_each_once(run)?;
    // Parties fetch the room's control records without an access record, run by run: content must not ride along.
    let content = |event: &CheckedEvent| event.core().kind.is_content();
    let rights = |event: &CheckedEvent| !content(event) && event.core().kind != Kind::Wrap;
    if events.iter().any(content) && events.iter().any(rights) {
        return Err(Refusal::RunMalformed);
    }
    for event in events {
        let core = event.core();
        let room = if core.kind == Kind::RoomCreate { RoomId::ZERO } else { run.room };
        if core.room != room || core.author != run.author {
            return Err(Refusal::EventOutOfPlace);
        }
        let sealed_fields = core.epoch != EpochId::ZERO && core.wrap != WrapId::ZERO;
        let plain_fields = core.epoch == EpochId::ZERO && core.wrap == WrapId::ZERO;
        if if core.kind.is_content() { !sealed_fields } else { !plain_fields } {
            return Err(Refusal::EventMalformed);
        }
    }
    Ok(())
}

/// The room while a run is judged. Most runs bring content only, and a room's state may be large: it is copied when the first
/// control event changes it, not before.
struct Working<'a> {
    room: Option<Cow<'a, RoomState>>,
    wraps: BTreeMap<WrapId, WrapFact>,
    /// The owner's keys changed: what follows is not this run's signature's to vouch for.
    closed: bool,
}

impl Working<'_> {
    fn content(&self, event: &CheckedEvent, wrap: Option<WrapFact>, now: UnixMs) -> Result<(), Refusal> {
        let core = event.core();
        let room = self.room.as_deref().ok_or(Refusal::RoomUnknown)?;
        room.may(core.author, Right::Append, core.epoch, Some(core.hour), now)?;
        let wrap = wrap.ok_or(Refusal::WrapMissing)?;
        if wrap != (WrapFact { author: core.author, epoch: core.epoch, day: core.hour.day() }) {
            return Err(Refusal::WrapMismatch);
        }
        Ok(())
    }

    fn control(&mut self, alliance: AllianceId, id: RoomId, event: &CheckedEvent, now: UnixMs) -> Result<(), Refusal> {
        use crate::control::ControlError;
        let control = Control::decode(event).map_err(|e| match e {
            ControlError::Kind => Refusal::KindNotAllowed,
            ControlError::Limit(_) => Refusal::LimitReached,
            _ => Refusal::ControlMalformed,
        })?;
        let author = event.core().author;
        match (&control, self.room.as_mut()) {
            (Control::RoomCreate(_), Some(_)) => Err(Refusal::RoomExists),
            (Control::RoomCreate(create), None) => {
                if create.alliance != alliance {
                    return Err(Refusal::OtherAlliance);
                }
                if create.room_id() != id || create.owner.author_id() != author {
                    return Err(Refusal::ControlMalformed);
                }
                self.room = Some(Cow::Owned(RoomState::create(create, event.id())?));
                Ok(())
            }
            (_, None) => Err(Refusal::RoomUnknown),
            (Control::Wrap(wrap), Some(room)) => {
                // Whether each hour is covered is asked of each content event; a wrap needs one hour of its day that is.
                room.may_append_on(author, wrap.epoch, wrap.day, now)?;
                let fact = WrapFact { author, epoch: wrap.epoch, day: wrap.day };
                self.wraps.insert(event.id().into(), fact);
                Ok(())
            }
            (_, Some(room)) => {
                room.may_control(author, &control, now)?;
                room.to_mut().apply(&control, event.id(), now)?;
                self.closed = matches!(
                    control,
                    Control::Authority(Authority { change: Change::Rotate(..) | Change::Recover { .. }, .. })
                );
                Ok(())
            }
        }
    }
}
