//! Giving a room that has none a recovery key, and that key what it lacks.

use std::collections::BTreeSet;

use ehe::control::Control;
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EpochId, RoomId};
use ehe::ledger::Verified;
use ehe::read::Part;
use ehe::recovery::RecoveryKey;
use ehe::room::RoomState;

use crate::build::{self, Completed};
use crate::error::{Error, Exit, Made};
use crate::follow::Following;
use crate::scope;
use crate::session::{Session, Shown, rng};
use crate::submit::{stand, submit};

/// A room of one's own without a recovery key.
pub struct Uncommitted(Following);

/// Looks whether a room is one's own and has no recovery key.
pub async fn uncommitted(session: &mut Session, room: RoomId) -> Result<Uncommitted, Error> {
    let control = session.control(room, session.usual_purpose()).await?;
    build::may_set_recovery(control.me(), control.state()?)?;
    Ok(Uncommitted(control))
}

/// Gives a room that has none a recovery key.
pub async fn set(session: &mut Session, room: Uncommitted, key: &RecoveryKey) -> Result<(), Error> {
    let (Uncommitted(control), identity) = (room, key.identity());
    let (state, now, room) = (control.state()?, session.now(), control.room());
    let events = build::set_recovery(&mut rng(), control.me(), state, control.view(), identity.public(), now)?;
    let ids = events.iter().map(CheckedEvent::id).collect();
    let Err(why) = submit(session, control.me(), room, Some(&control), events).await else { return Ok(()) };
    if why.never_sent() {
        return Err(why);
    }
    // Whatever a node answered: the room's verified records tell whether it is committed to this key, and whether the rest of what
    // was made for it, in further runs where there is much, stands there, too.
    let shown = stand(session, room, ids).await;
    let shown = shown.as_ref().ok().and_then(|(room, whole)| Some((room.state().ok()?, *whole)));
    match shown.map(|(state, whole)| (state.recovery == identity.public().commitment(), whole)) {
        Some((true, true)) if why.exit() != Exit::Unverified => {
            tracing::warn!("the node's answer was: {why}; the room's records show that it has the recovery key");
            Ok(())
        }
        Some((true, false)) if why.exit() != Exit::Unverified => {
            Err(Error::RecoveryIncomplete { room, why: Box::new(why) })
        }
        Some((false, _)) if why.made() == Made::Not => Err(why),
        _ => Err(Error::RecoveryInDoubt { why: Box::new(why) }),
    }
}

/// Gives the recovery key of a room what it cannot open and the patient can: giving it broke off, or its answer was lost. Says how
/// many keys it lacked.
pub async fn complete(session: &mut Session, room: RoomId) -> Result<usize, Error> {
    let mut following = session.following(room, false)?;
    let mut given: BTreeSet<(EpochId, AuthorId)> = BTreeSet::new();
    let purpose = session.usual_purpose();
    let look = |shown: Shown, following: &Following| {
        if let Shown::Entry(_, verified) = shown
            && let Verified::Run { events, .. } = *verified
        {
            let state = following.state()?;
            events.iter().for_each(|event| given.extend(seeds_for_recovery(event, state)));
        }
        Ok(())
    };
    session.fetch(&mut following, &scope::everything(Part::Control), purpose, look).await?;
    let state = following.state()?;
    // The room may have had another recovery key before.
    let given: BTreeSet<EpochId> =
        given.into_iter().filter(|(_, to)| state.is_recovery(*to)).map(|(epoch, _)| epoch).collect();
    let Completed { events, keys } =
        build::complete_recovery(&mut rng(), following.me(), state, following.view(), &given, session.now())?;
    match submit(session, following.me(), room, Some(&following), events).await {
        Ok(_) => Ok(keys),
        Err(why) => Err(Error::RecoveryIncomplete { room, why: Box::new(why) }),
    }
}

/// Seeds that a record brings for the recovery identity which the room has once it stands. A delegate is believed only of the key
/// that it makes itself: a false seed must not hide that the right one is lacking.
fn seeds_for_recovery(event: &CheckedEvent, state: &RoomState) -> Vec<(EpochId, AuthorId)> {
    let seeds = match Control::decode(event) {
        Ok(Control::Authority(record)) => record.seeds,
        Ok(Control::Epoch(mut record)) => {
            record.seeds.retain(|seed| seed.epoch == record.epoch);
            record.seeds
        }
        _ => Vec::new(),
    };
    let seeds = seeds.into_iter().filter(|seed| state.is_recovery(seed.recipient));
    seeds.map(|seed| (seed.epoch, seed.recipient)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::random;
    use crate::test_room::{TestRoom, identity};
    use ehe::control::{ControlLink, EpochRecord, SeedWrap};
    use ehe::identity::Party;
    use ehe::kem::KemSecret;

    #[test]
    fn a_seed_that_a_delegate_published_beside_its_own_key_does_not_count_as_given() {
        let (paper, delegate) = (identity(), identity());
        let room = TestRoom::committed_to(Some(paper.public()));
        let (own, other) = (EpochId(random()), *room.state.epochs.keys().next().unwrap());
        let key = KemSecret::generate(&mut rng());
        let to = Party::of(paper.public());
        let seed = |epoch| SeedWrap::make(&mut rng(), room.room, epoch, to, key.seed()).unwrap();
        let record = EpochRecord {
            link: ControlLink { seq: room.state.next_control, previous: room.state.last_control },
            epoch: own,
            group_key: key.public(),
            supersedes: None,
            continues: vec![],
            seeds: vec![seed(other), seed(own)],
        };
        let author = delegate.author_id();
        let event = Control::Epoch(record).event(&mut rng(), room.room, author, room.now, None).unwrap();
        assert_eq!(seeds_for_recovery(&event, &room.state), [(own, paper.author_id())]);
        let uncommitted = TestRoom::new();
        assert_eq!(seeds_for_recovery(&event, &uncommitted.state), []);
    }
}
