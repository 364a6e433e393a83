//! Handing on what somebody can open: the seeds of group keys, and what sealed parts said, wrapped to new recipients.

use ehe::control::{Authority, Change, Control, EpochCategory, GrantNote, Private, SeedWrap};
use ehe::event::CheckedEvent;
use ehe::id::EpochId;
use ehe::identity::{Identity, Party};
use ehe::kem::KemSecret;
use ehe::limits;
use ehe::room::RoomState;
use ehe::time::UnixMs;
use getrandom::rand_core::CryptoRng;

use super::{BuildError, Draft};
use crate::keys::open_seed;
use crate::view::RoomView;

/// Seeds that one record brings: of each epoch one for each recipient.
const SEEDS_PER_RECORD: usize = limits::WRAPS_PER_CONTROL_MAX / 2;

/// What one authority record brings beside its change.
pub(super) struct Load {
    pub(super) seeds: Vec<SeedWrap>,
    pub(super) private: Private,
}

/// What the patient could open with other keys – those before a rotation, a recovery key – and cannot with the present ones,
/// because the work broke off in between. `before` is what those other keys see of the room.
pub fn hand_over(
    rng: &mut impl CryptoRng,
    me: &Identity,
    state: &RoomState,
    view: &RoomView,
    (other, before): (&Identity, &RoomView),
    now: UnixMs,
) -> Result<Vec<CheckedEvent>, BuildError> {
    let mut draft = Draft::owners(state, view, me, now)?;
    let lacks = |epoch| view.category(epoch).is_none() || open_seed(me, state.room, view, epoch).is_err();
    if !view.epochs().any(|(epoch, _)| lacks(epoch)) {
        return Ok(Vec::new());
    }
    let keepers = draft.keepers();
    for load in loads(rng, other, state, before, &keepers, lacks)? {
        let name = before.name().map(str::to_owned).filter(|_| draft.events.is_empty());
        let private = Private { name, ..load.private };
        let record = Authority { link: draft.link, change: Change::HandOver, seeds: load.seeds };
        draft.push(rng, &Control::Authority(record), Some((&private, &keepers)))?;
    }
    Ok(draft.events)
}

/// All that `me` can open of the epochs that are `wanted`, for `recipients`, in as many loads as it takes: at least one. An epoch
/// whose key does not open for `me` is left out, its category is not.
pub(super) fn loads(
    rng: &mut impl CryptoRng,
    me: &Identity,
    state: &RoomState,
    view: &RoomView,
    recipients: &[Party<'_>],
    wanted: impl Fn(EpochId) -> bool,
) -> Result<Vec<Load>, BuildError> {
    let epochs: Vec<(EpochId, Option<KemSecret>)> = view
        .epochs()
        .filter(|(epoch, _)| wanted(*epoch))
        .map(|(epoch, _)| (epoch, open_seed(me, state.room, view, epoch).ok()))
        .collect();
    let notes: Vec<GrantNote> = view
        .grants()
        .filter(|(_, shown)| shown.purpose.is_some() || shown.name.is_some())
        .map(|(grant, shown)| GrantNote { grant, purpose: shown.purpose.clone(), name: shown.name.clone() })
        .collect();
    let per_load = (SEEDS_PER_RECORD / recipients.len().max(1)).clamp(1, limits::EPOCHS_PER_GRANT_MAX);
    let (mut epochs, mut notes) = (epochs.chunks(per_load), notes.chunks(limits::EPOCHS_PER_GRANT_MAX));
    let mut loads = Vec::new();
    loop {
        let (some, noted) = (epochs.next(), notes.next());
        if some.is_none() && noted.is_none() && !loads.is_empty() {
            return Ok(loads);
        }
        let some = some.unwrap_or_default();
        let mut seeds = Vec::with_capacity(some.len() * recipients.len());
        for (epoch, key) in some {
            let Some(key) = key else { continue };
            for recipient in recipients {
                seeds.push(SeedWrap::make(rng, state.room, *epoch, *recipient, key.seed())?);
            }
        }
        let named = |(epoch, _): &(EpochId, _)| Some(EpochCategory { epoch: *epoch, category: view.category(*epoch)? });
        let private = Private {
            categories: some.iter().filter_map(named).collect(),
            notes: noted.map(<[GrantNote]>::to_vec),
            ..Private::default()
        };
        loads.push(Load { seeds, private });
    }
}
