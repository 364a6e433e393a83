//! New keys for categories: what is sealed from now on opens for those whose grants go on, and for nobody else.

use std::collections::BTreeMap;

use ehe::control::{ControlError, Right, Rights};
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, EpochId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::room::{GrantState, RoomState};
use ehe::time::UnixMs;
use ehe::vital::Category;
use getrandom::rand_core::CryptoRng;

use super::{BuildError, Draft, NextEpoch};
use crate::view::RoomView;

/// New keys that wait to be submitted.
#[derive(Debug, Default)]
pub struct Renewal {
    /// The epoch records, in order.
    pub events: Vec<CheckedEvent>,
    /// The categories that get a new key.
    pub renewed: Vec<Category>,
    /// The categories that keep their key, because more go on reading them than an epoch record can name.
    pub kept: Vec<Category>,
    /// Keys of which this identity was not told what they are for. They stay as they are.
    pub unknown: usize,
}

/// Gives every category a new key.
pub fn renew(
    rng: &mut impl CryptoRng,
    me: &Identity,
    state: &RoomState,
    view: &RoomView,
    now: UnixMs,
) -> Result<Renewal, BuildError> {
    let mut draft = Draft::continuing(state, view, me, Rights::EPOCH, now)?;
    let current = state.epochs.iter().filter(|(_, epoch)| epoch.superseded_by.is_none()).map(|(id, _)| *id);
    let renewal = push_epochs(rng, &mut draft, state, view, current, &[])?;
    Ok(Renewal { events: draft.events, ..renewal })
}

/// The epochs that follow these. `ended`: grants that do not go on, because events of the same draft end them.
pub(super) fn push_epochs(
    rng: &mut impl CryptoRng,
    draft: &mut Draft<'_>,
    state: &RoomState,
    view: &RoomView,
    epochs: impl IntoIterator<Item = EpochId>,
    ended: &[EheId],
) -> Result<Renewal, BuildError> {
    let mut made = Renewal::default();
    for epoch in epochs {
        // Every epoch's category is sealed to the patient; without it the key cannot be renewed.
        let Some(category) = view.category(epoch) else {
            made.unknown += 1;
            continue;
        };
        match draft.push_epoch(rng, next_epoch(state, view, ended, epoch, category, draft.now)) {
            Ok(_) => made.renewed.push(category),
            Err(BuildError::Control(ControlError::Limit(_))) => made.kept.push(category),
            Err(why) => return Err(why),
        }
    }
    made.renewed.sort_unstable();
    made.kept.sort_unstable();
    Ok(made)
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
    // Delegates renew keys too: they are told what each is for.
    for (id, shown) in view.delegates().filter(|(id, _)| state.is_delegate(*id, now)) {
        appenders.insert(id, &shown.keys);
    }
    appenders.retain(|author, _| !readers.contains_key(author));
    next.readers = readers.into_values().collect();
    next.appenders = appenders.into_values().collect();
    next
}
