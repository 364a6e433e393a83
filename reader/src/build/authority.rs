//! Changing who may speak for the patient: other keys, delegates, the recovery key.

use std::collections::BTreeSet;

use ehe::control::{Authority, Change, Control, ControlLink, EpochCategory, Private, Rights, possession};
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EpochId, Hash};
use ehe::identity::{Identity, Party, PublicIdentity};
use ehe::limits;
use ehe::refusal::Refusal;
use ehe::room::RoomState;
use ehe::time::UnixMs;
use getrandom::rand_core::CryptoRng;

use super::hand_over::{Load, loads};
use super::{BuildError, Draft};
use crate::view::RoomView;

/// A change of the patient's keys that waits to be submitted.
#[derive(Debug)]
pub struct KeyChange {
    /// The change, signed by the keys before or by the recovery key.
    pub change: CheckedEvent,
    /// What did not fit it, signed by the new keys.
    pub hand_over: Vec<CheckedEvent>,
}

/// What a recovery is to do.
#[derive(Debug, Clone, Copy)]
pub struct Recovery<'a> {
    /// The recovery identity from now on.
    pub next: Option<&'a PublicIdentity>,
    /// From which control event on the keys before are distrusted; none: they were lost, not stolen.
    pub distrusted_from: Option<u64>,
}

/// Who may act for the patient.
#[derive(Debug, Clone)]
pub struct Delegated {
    /// Whom.
    pub delegate: PublicIdentity,
    /// What.
    pub rights: Rights,
    /// Until when.
    pub expires: Option<UnixMs>,
    /// Their name; only the two of you can read it.
    pub name: Option<String>,
}

/// Moves a room of `me` to other keys.
pub fn rotate(
    rng: &mut impl CryptoRng,
    me: &Identity,
    state: &RoomState,
    view: &RoomView,
    new: &Identity,
    now: UnixMs,
) -> Result<KeyChange, BuildError> {
    let draft = Draft::owners(state, view, me, now)?;
    let change = Change::Rotate(new.public().clone(), possession(new, state.room, draft.link));
    let owner = new.acting_as(state.owner);
    let recovery = draft.recovery.map(Party::of);
    let keepers = [owner.party()].into_iter().chain(recovery).collect();
    // The recovery identity stays, and has its seeds already.
    let audience = Audience { recipients: vec![owner.party()], keepers, delegates: vec![] };
    key_change(changed(rng, &draft, state, view, &audience, change)?)
}

/// Whether these keys can become those of the room's patient: it has to be the first that the room hears of them.
pub fn may_become_patients(state: &RoomState, keys: AuthorId) -> Result<(), BuildError> {
    let known = if state.owner_keys.last().is_some_and(|key| key.id == keys) {
        "the patient's own"
    } else if state.owner_keys.iter().any(|key| key.id == keys) {
        "keys that the patient had before"
    } else if state.delegations.contains_key(&keys) {
        "a delegate's, of now or before"
    } else if state.known_ids().any(|known| known == keys) {
        "those of somebody who is or was invited"
    } else {
        return Ok(());
    };
    Err(BuildError::KnownKeys { room: state.room, known })
}

/// Whether the room is one's own, and may be moved to these keys.
pub fn may_rotate(me: &Identity, state: &RoomState, to: AuthorId) -> Result<(), BuildError> {
    if state.owner != me.author_id() {
        return Err(BuildError::NotThePatient);
    }
    may_become_patients(state, to)
}

/// Whether this is the room's recovery identity, and what it distrusts a place in the room.
pub fn may_recover(recovery: &Identity, state: &RoomState, distrusted_from: Option<u64>) -> Result<(), BuildError> {
    if recovery.public().commitment() != state.recovery {
        return Err(Refusal::NotRecovery.into());
    }
    if distrusted_from.is_some_and(|from| from == 0 || from > state.next_control) {
        return Err(BuildError::Usage(format!(
            "--distrust-from is the number of a control event, from 1 to {}; see `ehe authority show`",
            state.next_control
        )));
    }
    Ok(())
}

/// Gives the patient new keys, as the room's recovery identity.
pub fn recover(
    rng: &mut impl CryptoRng,
    recovery: &Identity,
    state: &RoomState,
    view: &RoomView,
    new: &Identity,
    plan: Recovery<'_>,
    now: UnixMs,
) -> Result<KeyChange, BuildError> {
    may_recover(recovery, state, plan.distrusted_from)?;
    let from = plan.distrusted_from;
    let draft = Draft { recovery: plan.next, ..Draft::of(state, view, recovery, now)? };
    let change = Change::Recover {
        recovery: recovery.public().clone(),
        keys: new.public().clone(),
        possession: possession(new, state.room, draft.link),
        next: plan.next.map_or(Hash::ZERO, PublicIdentity::commitment),
        distrusted_from: from,
    };
    let owner = new.acting_as(state.owner);
    let keepers: Vec<Party<'_>> = [owner.party()].into_iter().chain(plan.next.map(Party::of)).collect();
    let stays = |id: &AuthorId| state.delegations.get(id).is_some_and(|d| from.is_none_or(|from| d.seq < from));
    let delegates = delegates(state, view, now).filter(|party| stays(&party.id)).collect();
    let audience = Audience { recipients: keepers.clone(), keepers, delegates };
    key_change(changed(rng, &draft, state, view, &audience, change)?)
}

/// Whether the room is one's own, and has no recovery key.
pub fn may_set_recovery(me: &Identity, state: &RoomState) -> Result<(), BuildError> {
    if state.owner != me.author_id() {
        return Err(BuildError::NotThePatient);
    }
    if state.recovery != Hash::ZERO { Err(Refusal::RecoverySet.into()) } else { Ok(()) }
}

/// Gives a room that has none a recovery key, which can open everything that the patient can.
pub fn set_recovery(
    rng: &mut impl CryptoRng,
    me: &Identity,
    state: &RoomState,
    view: &RoomView,
    recovery: &PublicIdentity,
    now: UnixMs,
) -> Result<Vec<CheckedEvent>, BuildError> {
    may_set_recovery(me, state)?;
    let draft = Draft { recovery: Some(recovery), ..Draft::owners(state, view, me, now)? };
    let audience = Audience {
        recipients: vec![Party::of(recovery)],
        keepers: vec![me.party(), Party::of(recovery)],
        delegates: delegates(state, view, now).collect(),
    };
    changed(rng, &draft, state, view, &audience, Change::SetRecovery(recovery.commitment()))
}

/// What a recovery key is given after the change that named it.
#[derive(Debug)]
pub struct Completed {
    /// In order.
    pub events: Vec<CheckedEvent>,
    /// Keys of the room that it lacked.
    pub keys: usize,
}

/// Gives the recovery key that the room has what the patient can open and it cannot: of all epochs but those in `given`. What
/// sealed parts say is given again, and whoever may make keys is told again whom to wrap them to: nothing shows that they know.
pub fn complete_recovery(
    rng: &mut impl CryptoRng,
    me: &Identity,
    state: &RoomState,
    view: &RoomView,
    given: &BTreeSet<EpochId>,
    now: UnixMs,
) -> Result<Completed, BuildError> {
    let mut draft = Draft::owners(state, view, me, now)?;
    if state.recovery == Hash::ZERO {
        return Err(BuildError::Usage("the room has no recovery key: leave --complete out to give it one".into()));
    }
    let Some(recovery) = draft.recovery else {
        let why =
            "these keys were not told which recovery key the room has: run `ehe authority resume` with those before";
        return Err(BuildError::Usage(why.into()));
    };
    let (keepers, mut keys) = (draft.keepers(), 0);
    for Load { seeds, private } in loads(rng, me, state, view, &[Party::of(recovery)], |epoch| !given.contains(&epoch))?
    {
        keys += seeds.len();
        let record = Authority { link: draft.link, change: Change::HandOver, seeds };
        draft.push(rng, &Control::Authority(record), Some((&private, &keepers)))?;
    }
    let delegates: Vec<Party<'_>> = delegates(state, view, now).collect();
    if !delegates.is_empty() {
        let private = Private { recovery: Some(recovery.clone()), ..Private::default() };
        let record = Authority { link: draft.link, change: Change::HandOver, seeds: vec![] };
        draft.push(rng, &Control::Authority(record), Some((&private, &delegates)))?;
    }
    Ok(Completed { events: draft.events, keys })
}

fn delegates<'a>(state: &RoomState, view: &'a RoomView, now: UnixMs) -> impl Iterator<Item = Party<'a>> {
    view.delegates().filter(move |(id, _)| state.is_delegate(*id, now)).map(|(_, shown)| Party::of(&shown.keys))
}

/// Who learns what by a change.
struct Audience<'a> {
    /// They get the seeds of all that can be opened.
    recipients: Vec<Party<'a>>,
    /// They read what sealed parts said.
    keepers: Vec<Party<'a>>,
    /// They are told of the recovery identity, because they wrap keys to it.
    delegates: Vec<Party<'a>>,
}

/// The change with as much as fits it of what its audience has to be able to open, and after it what did not fit.
fn changed(
    rng: &mut impl CryptoRng,
    draft: &Draft<'_>,
    state: &RoomState,
    view: &RoomView,
    audience: &Audience<'_>,
    change: Change,
) -> Result<Vec<CheckedEvent>, BuildError> {
    let recovery = draft.recovery.cloned();
    let mut records = Vec::new();
    let mut next = Some((draft.me.author_id(), change));
    for Load { seeds, private } in loads(rng, draft.me, state, view, &audience.recipients, |_| true)? {
        let private = match records.is_empty() {
            true => Private { name: view.name().map(str::to_owned), recovery: recovery.clone(), ..private },
            false => private,
        };
        let (author, change) = next.take().unwrap_or((state.owner, Change::HandOver));
        records.push((author, change, seeds, private, audience.keepers.as_slice()));
    }
    if recovery.is_some() && !audience.delegates.is_empty() {
        let private = Private { recovery, ..Private::default() };
        records.push((state.owner, Change::HandOver, vec![], private, audience.delegates.as_slice()));
    }
    let (mut link, mut events) = (draft.link, Vec::with_capacity(records.len()));
    for (author, change, seeds, private, told) in records {
        let record = Control::Authority(Authority { link, change, seeds });
        let event = record.event(rng, state.room, author, draft.now, Some((&private, told)))?;
        link = ControlLink { seq: link.seq + 1, previous: event.id() };
        events.push(event);
    }
    Ok(events)
}

/// The change stands last under the keys before it; the rest is the new keys' to sign.
fn key_change(events: Vec<CheckedEvent>) -> Result<KeyChange, BuildError> {
    let mut events = events.into_iter();
    let change = events.next().ok_or(BuildError::NotThePatient)?;
    Ok(KeyChange { change, hand_over: events.collect() })
}

/// Lets somebody act for the patient.
pub fn delegate(
    rng: &mut impl CryptoRng,
    me: &Identity,
    state: &RoomState,
    view: &RoomView,
    to: &Delegated,
    now: UnixMs,
) -> Result<CheckedEvent, BuildError> {
    let draft = Draft::owners(state, view, me, now)?;
    if state.author_of(to.delegate.author_id())? == state.owner {
        return Err(BuildError::Usage("the patient needs no delegation".into()));
    }
    if to.expires.is_some_and(|end| end <= now) {
        return Err(BuildError::Usage("--expires must lie in the future".into()));
    }
    // What each current key is for, and to whom else new ones are wrapped: without it a delegate could do little.
    let current = state.epochs.iter().filter(|(_, epoch)| epoch.superseded_by.is_none()).map(|(id, _)| *id);
    let categories = current.filter_map(|epoch| Some(EpochCategory { epoch, category: view.category(epoch)? }));
    let private = Private {
        categories: categories.take(limits::EPOCHS_PER_GRANT_MAX).collect(),
        name: to.name.clone(),
        recovery: draft.recovery.cloned(),
        ..Private::default()
    };
    let change = Change::Delegate(to.delegate.clone(), to.rights, to.expires);
    let record = Control::Authority(Authority { link: draft.link, change, seeds: vec![] });
    let parties = draft.parties([Party::of(&to.delegate)]);
    Ok(record.event(rng, state.room, me.author_id(), now, Some((&private, &parties)))?)
}

/// Ends a delegation.
pub fn withdraw(
    rng: &mut impl CryptoRng,
    me: &Identity,
    state: &RoomState,
    view: &RoomView,
    delegate: AuthorId,
    now: UnixMs,
) -> Result<CheckedEvent, BuildError> {
    let draft = Draft::owners(state, view, me, now)?;
    if state.delegations.get(&delegate).is_none_or(|delegation| delegation.ended.is_some()) {
        return Err(BuildError::Usage(format!("{delegate} has no delegation in this room, or none any more")));
    }
    let record = Control::Authority(Authority { link: draft.link, change: Change::Withdraw(delegate), seeds: vec![] });
    Ok(record.event(rng, state.room, me.author_id(), now, None)?)
}
