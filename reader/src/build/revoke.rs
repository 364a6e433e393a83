//! Ending grants: refusal from the commit on, and new keys for what the reader could open.

use std::collections::BTreeSet;

use ehe::control::{Control, Ending, Revoke, Right, Rights};
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, EpochId};
use ehe::identity::Identity;
use ehe::room::RoomState;
use ehe::time::UnixMs;
use ehe::vital::Category;
use getrandom::rand_core::CryptoRng;

use super::renew::{Renewal, push_epochs};
use super::{BuildError, Draft};
use crate::view::RoomView;

/// A revocation that waits to be submitted.
#[derive(Debug)]
pub struct Revocation {
    /// Its events in order: first the ends, then the new epochs. If it takes more than one run, the ends are in the first.
    pub events: Vec<CheckedEvent>,
    /// The grants that it ends.
    pub ended: Vec<EheId>,
    /// Those of them that are rights to append and end at once: what waits in a spool is lost.
    pub cut: Vec<EheId>,
    /// The categories that get a new key.
    pub renewed: Vec<Category>,
    /// The categories that keep their key, because more go on reading them than an epoch record can name. That must not keep
    /// the patient from ending the grant.
    pub kept: Vec<Category>,
    /// Keys that stay because a delegate who ends the grants may not renew them, or was not told what they are for.
    pub unrenewed: usize,
}

/// The grants of one subject that a revocation would end: all that were not revoked.
pub fn grants_of_subject(state: &RoomState, subject: AuthorId) -> Vec<EheId> {
    state.grants_of(subject).filter(|(_, g)| g.ended.is_none()).map(|(id, _)| *id).collect()
}

/// Why a subject has no grant that could be ended.
pub fn nothing_to_end(state: &RoomState, subject: AuthorId) -> BuildError {
    let room = state.room;
    BuildError::NothingToEnd(match state.grants_of(subject).count() {
        0 => format!("{subject} was never invited to room {room}"),
        _ => format!("all grants of {subject} in room {room} were revoked before"),
    })
}

/// Other rights to append that those whose rights were cut go on having.
pub fn still_appending(state: &RoomState, cut: &[EheId], ended: &[EheId], now: UnixMs) -> Vec<EheId> {
    let subjects: BTreeSet<AuthorId> = cut.iter().filter_map(|id| Some(state.grants.get(id)?.subject)).collect();
    let holds = |(id, grant): &(&EheId, &ehe::room::GrantState)| {
        grant.right == Right::Append && subjects.contains(&grant.subject) && grant.is_live(now) && !ended.contains(id)
    };
    state.grants.iter().filter(holds).map(|(id, _)| *id).collect()
}

/// Ends grants. With `drain`, append grants take what was measured before until then; read grants always end at once.
pub fn revoke(
    rng: &mut impl CryptoRng,
    me: &Identity,
    state: &RoomState,
    view: &RoomView,
    grants: &[EheId],
    drain: Option<UnixMs>,
    now: UnixMs,
) -> Result<Revocation, BuildError> {
    let mut draft = Draft::continuing(state, view, me, Rights::REVOKE, now)?;
    if grants.is_empty() {
        return Err(BuildError::NothingToEnd("there is no grant to end".into()));
    }
    if drain.is_some_and(|until| until <= now) {
        return Err(BuildError::Usage("--drain-until must lie in the future".into()));
    }
    let mut affected: BTreeSet<EpochId> = BTreeSet::new();
    let mut cut = Vec::new();
    for id in grants {
        let grant = state
            .grants
            .get(id)
            .ok_or_else(|| BuildError::NothingToEnd(format!("the room has no grant {id}, and never had")))?;
        let ending = match (grant.right, drain) {
            (Right::Append, Some(until)) => Ending::DrainUntil(until),
            _ => Ending::Cut,
        };
        if grant.ended.is_some_and(|end| end.ending == ending || end.ending == Ending::Cut) {
            return Err(BuildError::NothingToEnd(format!("grant {id} was revoked before")));
        }
        if (grant.right, ending) == (Right::Append, Ending::Cut) {
            cut.push(*id);
        }
        draft.push(rng, &Control::Revoke(Revoke { link: draft.link, grant: *id, ending }), None)?;
        // Who only appends never held the key.
        if grant.right == Right::Read {
            let current = |epoch: &&EpochId| state.epochs.get(epoch).is_some_and(|e| e.superseded_by.is_none());
            affected.extend(grant.epochs.iter().filter(current));
        }
    }
    // A delegate who may end grants and publish no keys ends them all the same.
    let may_renew = state.may_for_owner(me.author_id(), Rights::EPOCH, now).is_ok();
    let unrenewed = if may_renew { 0 } else { affected.len() };
    let affected = if may_renew { affected } else { BTreeSet::new() };
    let Renewal { renewed, kept, unknown, .. } = push_epochs(rng, &mut draft, state, view, affected, grants)?;
    let unrenewed = unrenewed + unknown;
    Ok(Revocation { events: draft.events, ended: grants.to_vec(), cut, renewed, kept, unrenewed })
}
