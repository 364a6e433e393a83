//! From what somebody wants to see to what may be asked of a node.
//!
//! A node decides each request as a whole, so that one that asks for more than the grants cover is refused. What is asked for
//! is therefore cut to the grants here; each scope becomes one request and one access record.

use std::collections::{BTreeMap, BTreeSet};

use ehe::control::Right;
use ehe::id::{AuthorId, EpochId};
use ehe::limits;
use ehe::read::{Part, Scope};
use ehe::room::RoomState;
use ehe::time::{Hour, UnixMs};
use ehe::vital::Category;

use crate::view::RoomView;

/// What somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Categories; empty: all that may be read.
    pub categories: BTreeSet<Category>,
    /// Readings at this instant and later.
    pub from: Option<UnixMs>,
    /// Readings before this instant.
    pub until: Option<UnixMs>,
}

/// No live grant covers any of what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCovered {
    /// No grant to read at all.
    #[error("no grant lets this identity read in the room; ask the patient for one")]
    NoGrant,
    /// Not these categories.
    #[error("no grant covers {0}; ask the patient for one")]
    Categories(String),
    /// Not this time.
    #[error("the grants cover other hours than these; ask for a time inside them")]
    Time,
}

/// An interval of hours, the end excluded.
type Hours = (Hour, Hour);

/// The hours that have to be asked for. A node knows the hour of an event's *first* reading only, and a window never spans
/// days: so the day's first hour for the beginning, and the next full hour for the end.
fn hours(wanted: &Wanted) -> Hours {
    let from = wanted.from.map_or(Hour(0), |from| Hour(from.day().0.saturating_mul(24)));
    let until = wanted.until.map_or(Hour(u32::MAX), |until| {
        let hour = until.hour();
        if until == hour.start() { hour } else { Hour(hour.0.saturating_add(1)) }
    });
    (from, until)
}

fn cut(a: Hours, from: Option<Hour>, until: Option<Hour>) -> Option<Hours> {
    let cut = (from.map_or(a.0, |from| a.0.max(from)), until.map_or(a.1, |until| a.1.min(until)));
    (cut.0 < cut.1).then_some(cut)
}

/// Content scopes that together cover what is wanted, as far as the grants allow it at `now`.
pub fn plan(
    state: &RoomState,
    view: &RoomView,
    reader: AuthorId,
    wanted: &Wanted,
    now: UnixMs,
) -> Result<Vec<Scope>, NotCovered> {
    let asked = hours(wanted);
    let is_wanted = |epoch: &EpochId| match view.read_as(*epoch) {
        Some(category) => wanted.categories.is_empty() || wanted.categories.contains(&category),
        None => false,
    };
    let mut covered: BTreeMap<EpochId, Vec<Hours>> = BTreeMap::new();
    let (mut any_grant, mut any_category) = (false, false);
    if reader == state.owner {
        (any_grant, any_category) = (true, true);
        for epoch in state.epochs.keys().filter(|epoch| is_wanted(epoch)) {
            covered.entry(*epoch).or_default().extend(cut(asked, None, None));
        }
    }
    for (_, grant) in state.grants_of(reader).filter(|(_, g)| g.right == Right::Read && g.is_live(now)) {
        any_grant = true;
        for epoch in grant.epochs.iter().filter(|epoch| is_wanted(epoch)) {
            any_category = true;
            covered.entry(*epoch).or_default().extend(cut(asked, grant.from, grant.until));
        }
    }
    let mut by_hours: BTreeMap<Hours, Vec<EpochId>> = BTreeMap::new();
    for (epoch, mut intervals) in covered {
        // Of two grants' hours the one inside the other is not asked for again.
        intervals.sort_unstable_by_key(|(from, until)| (*from, core::cmp::Reverse(*until)));
        let mut reach = None;
        for interval in intervals {
            if reach.is_none_or(|reach| interval.1 > reach) {
                reach = Some(interval.1);
                by_hours.entry(interval).or_default().push(epoch);
            }
        }
    }
    let scopes: Vec<Scope> = by_hours
        .into_iter()
        .flat_map(|((from, until), epochs)| {
            let chunks = epochs.chunks(limits::EPOCHS_PER_GRANT_MAX).map(<[_]>::to_vec).collect::<Vec<_>>();
            chunks.into_iter().map(move |epochs| Scope { part: Part::Content, epochs, from, until })
        })
        .collect();
    match (scopes.is_empty(), any_grant, any_category) {
        (false, _, _) => Ok(scopes),
        (true, false, _) => Err(NotCovered::NoGrant),
        (true, true, false) => Err(NotCovered::Categories(names(&wanted.categories))),
        (true, true, true) => Err(NotCovered::Time),
    }
}

/// One scope for what comes from now on: the epochs that can be asked for together, for the hours that all of them allow.
pub fn plan_live(
    state: &RoomState,
    view: &RoomView,
    reader: AuthorId,
    wanted: &Wanted,
    now: UnixMs,
) -> Result<Scope, NotCovered> {
    let scopes = plan(state, view, reader, wanted, now)?;
    // Only hours that are not over can bring something new; a late upload of an earlier hour comes with them.
    let live = scopes.into_iter().filter(|scope| scope.until > now.hour());
    let joined = live.reduce(|mut joined, scope| {
        let (from, until) = (joined.from.max(scope.from), joined.until.min(scope.until));
        if from < until {
            joined.epochs.extend(scope.epochs);
            (joined.from, joined.until) = (from, until);
        }
        joined
    });
    let mut scope = joined.ok_or(NotCovered::Time)?;
    // What is sealed now comes first; of the older epochs as many as one request may name.
    scope.epochs.sort_unstable_by_key(|id| (state.epochs.get(id).is_none_or(|e| e.superseded_by.is_some()), *id));
    scope.epochs.dedup();
    scope.epochs.truncate(limits::EPOCHS_PER_GRANT_MAX);
    Ok(scope)
}

/// The scope of a request for control records or for the ledger: hours and epochs do not apply.
pub fn everything(part: Part) -> Scope {
    Scope { part, epochs: Vec::new(), from: Hour(0), until: Hour(u32::MAX) }
}

/// The categories' names, for messages.
pub fn names<'a>(categories: impl IntoIterator<Item = &'a Category>) -> String {
    let names: Vec<&str> = categories.into_iter().map(|c| c.as_str()).collect();
    if names.len() == Category::ALL.len() { "all categories".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Invitation;
    use crate::test_room::{NOW, TestRoom, identity};
    use ehe::identity::Identity;

    fn granted(room: &mut TestRoom, to: &Identity, categories: &[Category], from: Option<Hour>, until: Option<Hour>) {
        room.grant(&Invitation {
            subject: to.public().clone(),
            right: Right::Read,
            categories: categories.to_vec(),
            history: false,
            from,
            until,
            expires: None,
            purpose: None,
            name: None,
        });
    }

    fn plan_for(room: &TestRoom, who: &Identity, wanted: &Wanted) -> Result<Vec<Scope>, NotCovered> {
        plan(&room.state, room.following(who).view(), who.author_id(), wanted, room.now)
    }

    #[test]
    fn what_is_asked_for_is_cut_to_the_grants_and_every_scope_is_one_that_the_rules_grant() {
        let (mut room, doctor) = (TestRoom::new(), identity());
        let hour = NOW.hour().0;
        granted(&mut room, &doctor, &[Category::Cardiac, Category::Sleep], None, None);
        granted(&mut room, &doctor, &[Category::Body], Some(Hour(hour - 5)), Some(Hour(hour + 5)));
        granted(&mut room, &doctor, &[Category::Body], Some(Hour(hour - 3)), Some(Hour(hour + 3)));
        let scopes = plan_for(&room, &doctor, &Wanted::default()).unwrap();
        let shape: Vec<(Hour, Hour, usize)> = scopes.iter().map(|s| (s.from, s.until, s.epochs.len())).collect();
        assert_eq!(shape, [(Hour(0), Hour(u32::MAX), 2), (Hour(hour - 5), Hour(hour + 5), 1)]);
        for scope in scopes {
            for epoch in &scope.epochs {
                for at in [scope.from, Hour(scope.until.0 - 1)] {
                    assert_eq!(room.state.may(doctor.author_id(), Right::Read, *epoch, Some(at), room.now), Ok(()));
                }
            }
        }
    }

    #[test]
    fn a_window_that_began_earlier_that_day_is_asked_for_too() {
        let (mut room, doctor) = (TestRoom::new(), identity());
        granted(&mut room, &doctor, &[Category::Cardiac], None, None);
        let wanted = Wanted { from: Some(NOW.plus_ms(60_000)), until: Some(NOW.plus_ms(120_000)), ..Wanted::default() };
        let scopes = plan_for(&room, &doctor, &wanted).unwrap();
        assert_eq!((scopes[0].from, scopes[0].until), (Hour(NOW.day().0 * 24), Hour(NOW.hour().0 + 1)));
    }

    #[test]
    fn the_message_says_what_is_not_covered() {
        let (mut room, doctor) = (TestRoom::new(), identity());
        assert_eq!(plan_for(&room, &doctor, &Wanted::default()), Err(NotCovered::NoGrant));
        granted(&mut room, &doctor, &[Category::Cardiac], Some(NOW.hour()), None);
        let sleep = Wanted { categories: [Category::Sleep].into(), ..Wanted::default() };
        assert_eq!(plan_for(&room, &doctor, &sleep), Err(NotCovered::Categories("sleep".into())));
        let before = Wanted { until: Some(UnixMs(0)), ..Wanted::default() };
        assert_eq!(plan_for(&room, &doctor, &before), Err(NotCovered::Time));
    }

    #[test]
    fn the_patient_asks_for_every_epoch_and_the_live_scope_begins_with_the_current_ones() {
        let (mut room, doctor) = (TestRoom::new(), identity());
        granted(&mut room, &doctor, Category::ALL, None, None);
        let grant = *room.state.grants.keys().next().unwrap();
        room.revoke(&[grant], None);
        let patient = room.patient.clone();
        let scopes = plan_for(&room, &patient, &Wanted::default()).unwrap();
        assert_eq!(scopes.iter().map(|s| s.epochs.len()).collect::<Vec<_>>(), [16]);
        let seen = room.following(&patient);
        let live = plan_live(&room.state, seen.view(), patient.author_id(), &Wanted::default(), room.now).unwrap();
        let current = |id: &EpochId| room.state.epochs[id].superseded_by.is_none();
        assert!(live.epochs.iter().take(8).all(current) && !live.epochs.iter().skip(8).any(current));
    }
}
