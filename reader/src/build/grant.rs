//! Inviting somebody to read or to append.

use ehe::control::{Control, EpochCategory, Grant, Private, Right, Rights, SeedWrap};
use ehe::event::CheckedEvent;
use ehe::id::EpochId;
use ehe::identity::{Identity, Party, PublicIdentity};
use ehe::limits;
use ehe::room::RoomState;
use ehe::time::{Hour, UnixMs};
use ehe::vital::Category;
use getrandom::rand_core::CryptoRng;

use super::{BuildError, Draft};
use crate::keys::open_seed;
use crate::view::RoomView;

/// What the patient wants to allow.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// Whom.
    pub subject: PublicIdentity,
    /// To do what.
    pub right: Right,
    /// With which categories.
    pub categories: Vec<Category>,
    /// Also with what was sealed under the categories' earlier keys.
    pub history: bool,
    /// Readings of this hour and later.
    pub from: Option<Hour>,
    /// Readings before this hour.
    pub until: Option<Hour>,
    /// The end of the grant.
    pub expires: Option<UnixMs>,
    /// What for; only the patient and the subject can read it.
    pub purpose: Option<String>,
    /// The subject's name; only the patient and the subject can read it.
    pub name: Option<String>,
}

/// Makes a grant for the current epochs of its categories and, with history, for those before them: the seeds of their keys are
/// wrapped anew, the events stay as they are.
pub fn grant(
    rng: &mut impl CryptoRng,
    me: &Identity,
    state: &RoomState,
    view: &RoomView,
    invitation: &Invitation,
    now: UnixMs,
) -> Result<CheckedEvent, BuildError> {
    let mut draft = Draft::continuing(state, view, me, Rights::GRANT, now)?;
    let subject = &invitation.subject;
    if state.author_of(subject.author_id())? == state.owner {
        return Err(BuildError::Usage("the patient needs no grant".into()));
    }
    if invitation.history && invitation.right == Right::Append {
        return Err(BuildError::Usage("--history is of rights to read: nothing new is sealed to earlier keys".into()));
    }
    if matches!((invitation.from, invitation.until), (Some(from), Some(until)) if from >= until) {
        return Err(BuildError::Usage("--from must lie before --until".into()));
    }
    if invitation.expires.is_some_and(|end| end <= now) {
        return Err(BuildError::Usage("--expires must lie in the future".into()));
    }
    let mut categories = Vec::new();
    for category in &invitation.categories {
        let epoch = view.current_epoch(state, *category).ok_or(BuildError::NoEpoch(*category))?;
        categories.push(EpochCategory { epoch, category: *category });
        if invitation.history {
            let earlier = |(id, _): &(EpochId, _)| *id != epoch && view.category(*id) == Some(*category);
            let earlier = view.epochs().filter(earlier);
            categories.extend(earlier.map(|(epoch, _)| EpochCategory { epoch, category: *category }));
        }
    }
    if categories.len() > limits::EPOCHS_PER_GRANT_MAX {
        return Err(BuildError::Usage(format!(
            "these categories have {} keys, and one grant names {} at most: grant them in several steps",
            categories.len(),
            limits::EPOCHS_PER_GRANT_MAX
        )));
    }
    let mut grant = Grant {
        link: draft.link,
        subject: subject.clone(),
        right: invitation.right,
        epochs: Vec::new(),
        from: invitation.from,
        until: invitation.until,
        expires: invitation.expires,
        seeds: Vec::new(),
    };
    if me.author_id() != state.owner {
        let beyond = |category: &&Category| {
            let of = |c: &EpochCategory| (c.category == **category).then_some(c.epoch);
            let part = Grant { epochs: categories.iter().filter_map(of).collect(), ..grant.clone() };
            state.within_own(me.author_id(), &part, now).is_err()
        };
        let beyond: Vec<&str> = invitation.categories.iter().filter(beyond).map(|c| c.as_str()).collect();
        if !beyond.is_empty() {
            let (room, history) = (state.room, invitation.history);
            return Err(BuildError::BeyondOwn { room, categories: beyond.join(","), history });
        }
    }
    if invitation.right == Right::Read {
        for EpochCategory { epoch, .. } in &categories {
            let key = open_seed(me, state.room, view, *epoch)?;
            grant.seeds.push(SeedWrap::make(rng, state.room, *epoch, Party::of(subject), key.seed())?);
        }
    }
    grant.epochs = categories.iter().map(|c| c.epoch).collect();
    let control = Control::Grant(grant);
    let (purpose, name) = (invitation.purpose.clone(), invitation.name.clone());
    let private = Private { categories, purpose, name, ..Private::default() };
    let parties: Vec<Party<'_>> = draft.parties([Party::of(subject)]);
    draft.push(rng, &control, Some((&private, &parties)))?;
    draft.events.pop().ok_or_else(|| BuildError::Usage("no event was made".into()))
}
