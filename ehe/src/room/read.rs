//! May this identity read? The one place that answers (SPEC 9).

use crate::control::Right;
use crate::id::{AllianceId, AuthorId, EpochId};
use crate::limits;
use crate::read::{Part, ReadRequest, Scope};
use crate::refusal::Refusal;
use crate::room::state::{GrantState, RoomState};
use crate::time::{Hour, UnixMs};

/// Proof that the room's rules allow a request. Only [`decide`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    request: ReadRequest,
}

impl Granted {
    /// What was granted.
    pub fn request(&self) -> &ReadRequest {
        &self.request
    }

    /// What may be released.
    pub fn scope(&self) -> &Scope {
        &self.request.scope
    }

    /// Content never goes out without a committed access event; control records do.
    pub fn needs_audit(&self) -> bool {
        self.request.scope.part == Part::Content
    }

    /// Whether it would be granted too if the room had its first `control` control events' grants only: what is granted later, to one whose
    /// right ended meanwhile, is for another request (D5).
    pub fn rests_on_first(&self, room: &RoomState, control: u64, now: UnixMs) -> bool {
        let Scope { part, epochs, until, .. } = self.scope();
        let (Part::Content, Ok(reader)) = (part, room.author_of(self.request.reader)) else { return true };
        let last = Hour(until.0.saturating_sub(1));
        let covers = |epoch: &EpochId| {
            reader == room.owner
                || room.grants_of(reader).any(|(_, g)| g.seq < control && whole(g, &self.request, *epoch, last, now))
        };
        epochs.iter().all(covers)
    }
}

/// Decides a read request whose signature stands.
pub fn decide(alliance: AllianceId, room: &RoomState, request: &ReadRequest, now: UnixMs) -> Result<Granted, Refusal> {
    let granted = Ok(Granted { request: request.clone() });
    if request.alliance != alliance {
        return Err(Refusal::OtherAlliance);
    }
    if request.room != room.room {
        return Err(Refusal::RequestMalformed);
    }
    // Who asks is named by the keys that sign; the owner's stand for the owner, and those that were replaced for nobody.
    let reader = room.author_of(request.reader)?;
    let scope = &request.scope;
    match scope.part {
        // The ledger itself (leaves, runs, headers, access records) and the audit are the patient's alone.
        Part::Ledger if reader == room.owner => granted,
        Part::Ledger => Err(if room.key_of(reader).is_some() { Refusal::NotOwner } else { Refusal::NotInvited }),
        Part::Control if room.is_party(request.reader, now) => granted,
        Part::Control => Err(ended_or_never(room, request, now)),
        Part::Content => {
            if scope.epochs.is_empty() || scope.epochs.len() > limits::EPOCHS_PER_GRANT_MAX || scope.from >= scope.until
            {
                return Err(Refusal::RequestMalformed);
            }
            for epoch in &scope.epochs {
                // A grant's hours are one interval, so both ends of the request decide for all between.
                let last = Hour(scope.until.0 - 1);
                for hour in [scope.from, last] {
                    room.may(reader, Right::Read, *epoch, Some(hour), now)?;
                }
                covered_by_one(room, request, reader, *epoch, last, now)?;
            }
            granted
        }
    }
}

/// Both ends may be covered by two grants with a gap between them: one grant has to cover the whole interval.
fn covered_by_one(
    room: &RoomState,
    request: &ReadRequest,
    reader: AuthorId,
    epoch: EpochId,
    last: Hour,
    now: UnixMs,
) -> Result<(), Refusal> {
    if reader == room.owner || room.grants_of(reader).any(|(_, g)| whole(g, request, epoch, last, now)) {
        Ok(())
    } else {
        Err(Refusal::HourNotCovered)
    }
}

fn whole(g: &GrantState, request: &ReadRequest, epoch: EpochId, last: Hour, now: UnixMs) -> bool {
    g.right == Right::Read
        && g.epochs.contains(&epoch)
        && g.holds(Some(request.scope.from), now).is_ok()
        && g.holds(Some(last), now).is_ok()
}

fn ended_or_never(room: &RoomState, request: &ReadRequest, now: UnixMs) -> Refusal {
    let grant = room.grants_of(request.reader).find_map(|(_, grant)| grant.holds(None, now).err());
    let delegation = room.delegations.contains_key(&request.reader).then_some(Refusal::DelegationEnded);
    grant.or(delegation).unwrap_or(Refusal::NotInvited)
}
