//! Ending grants: refusal from the commit on, and new keys for what the reader could open.

use std::collections::{BTreeMap, BTreeSet};

use ehe::control::{Control, ControlError, Ending, Revoke, Right};
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, EpochId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::room::{GrantState, RoomState};
use ehe::time::UnixMs;
use ehe::vital::Category;
use getrandom::rand_core::CryptoRng;

use super::{BuildError, Draft, NextEpoch};
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
}

/// The grants of one subject that a revocation would end: all that were not revoked.
pub fn grants_of_subject(state: &RoomState, subject: AuthorId) -> Vec<EheId> {
    state.grants_of(subject).filter(|(_, g)| g.ended.is_none()).map(|(id, _)| *id).collect()
}

/// Ends grants. With `drain`, append grants take what was measured before until then; read grants always end at once.
pub fn revoke(
    rng: &mut impl CryptoRng,
    patient: &Identity,
    state: &RoomState,
    view: &RoomView,
    grants: &[EheId],
    drain: Option<UnixMs>,
    now: UnixMs,
) -> Result<Revocation, BuildError> {
    let mut draft = Draft::continuing(state, patient, now)?;
    if grants.is_empty() {
        return Err(BuildError::Usage("there is no grant to end".into()));
    }
    if drain.is_some_and(|until| until <= now) {
        return Err(BuildError::Usage("--drain-until must lie in the future".into()));
    }
    let mut affected: BTreeSet<EpochId> = BTreeSet::new();
    let mut cut = Vec::new();
    for id in grants {
        let grant = state.grants.get(id).ok_or_else(|| BuildError::Usage(format!("the room has no grant {id}")))?;
        let ending = match (grant.right, drain) {
            (Right::Append, Some(until)) => Ending::DrainUntil(until),
            _ => Ending::Cut,
        };
        if grant.ended.is_some_and(|end| end.ending == ending || end.ending == Ending::Cut) {
            return Err(BuildError::Usage(format!("grant {id} was revoked before")));
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
    let (mut renewed, mut kept) = (Vec::new(), Vec::new());
    for epoch in affected {
        // Every epoch's category is sealed to the patient; without it the key cannot be renewed, and the end stands alone.
        let Some(category) = view.category(epoch) else { continue };
        match draft.push_epoch(rng, next_epoch(state, view, grants, epoch, category, now)) {
            Ok(_) => renewed.push(category),
            Err(BuildError::Control(ControlError::Limit(_))) => kept.push(category),
            Err(why) => return Err(why),
        }
    }
    renewed.sort_unstable();
    kept.sort_unstable();
    Ok(Revocation { events: draft.events, ended: grants.to_vec(), cut, renewed, kept })
}

/// The epoch that follows: every other live grant that covers `epoch` goes on in it.
fn next_epoch<'a>(
    state: &RoomState,
    view: &'a RoomView,
    ended: &[EheId],
    epoch: EpochId,
    category: Category,
    now: UnixMs,
) -> NextEpoch<'a> {
    let goes_on =
        |id: &EheId, grant: &GrantState| !ended.contains(id) && grant.is_live(now) && grant.epochs.contains(&epoch);
    let mut next =
        NextEpoch { category, supersedes: Some(epoch), continues: vec![], readers: vec![], appenders: vec![] };
    let (mut readers, mut appenders) = (BTreeMap::new(), BTreeMap::new());
    for (id, grant) in state.grants.iter().filter(|(id, grant)| goes_on(id, grant)) {
        let Some(shown) = view.grant(*id) else { continue };
        next.continues.push(*id);
        let parties: &mut BTreeMap<AuthorId, &'a PublicIdentity> = match grant.right {
            Right::Read => &mut readers,
            Right::Append => &mut appenders,
        };
        parties.insert(grant.subject, &shown.subject);
    }
    appenders.retain(|author, _| !readers.contains_key(author));
    next.readers = readers.into_values().collect();
    next.appenders = appenders.into_values().collect();
    next
}
