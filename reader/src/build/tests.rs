//! What the patient's program makes is what the ledger's rules admit, and opens for whom it should.

mod authority;

use ehe::control::{Control, Grant, Right};
use ehe::id::{AuthorId, EpochId, WrapId};
use ehe::identity::Identity;
use ehe::refusal::Refusal;
use ehe::room::Refused;
use ehe::time::Hour;
use ehe::vital::Category;

use super::*;
use crate::keys::open_seed;
use crate::session::rng;
use crate::test_room::{ALLIANCE, NOW, TestRoom, identity};

fn invitation(subject: &Identity, right: Right, categories: &[Category]) -> Invitation {
    Invitation {
        subject: subject.public().clone(),
        right,
        categories: categories.to_vec(),
        history: false,
        from: None,
        until: None,
        expires: None,
        purpose: Some("rehabilitation".into()),
        name: Some("Dr Weber".into()),
    }
}

fn current(room: &TestRoom, category: Category) -> EpochId {
    room.following(&room.patient).view().current_epoch(&room.state, category).unwrap()
}

fn may(room: &TestRoom, who: AuthorId, right: Right, epoch: EpochId) -> Result<(), Refusal> {
    room.state.may(who, right, epoch, Some(NOW.hour()), room.now)
}

#[test]
fn a_new_room_is_admitted_and_its_keys_come_back_from_the_ledger_with_the_identity_alone() {
    let room = TestRoom::new();
    assert_eq!(room.room.shard(16.try_into().unwrap()), 3);
    assert_eq!(room.state.epochs.len(), Category::ALL.len());
    let seen = room.following(&room.patient);
    assert_eq!(seen.view().name(), Some("home"));
    for category in Category::ALL {
        let epoch = seen.view().current_epoch(&room.state, *category).unwrap();
        assert!(open_seed(&room.patient, room.room, seen.view(), epoch).is_ok(), "{category}");
    }
}

#[test]
fn a_stranger_sees_neither_name_nor_categories_nor_keys() {
    let room = TestRoom::new();
    let stranger = identity();
    let seen = room.following(&stranger);
    assert_eq!(seen.view().name(), None);
    for (epoch, shown) in seen.view().epochs() {
        assert_eq!((shown.category, !shown.seeds.is_empty()), (None, false));
        assert!(open_seed(&stranger, room.room, seen.view(), epoch).is_err());
    }
}

#[test]
fn a_room_for_a_shard_that_does_not_exist_is_not_made() {
    let shards = 4.try_into().unwrap();
    let plan = RoomPlan { alliance: ALLIANCE, shards, shard: Some(4), name: None, recovery: None };
    let new = create(&mut rng(), &identity(), plan, NOW);
    assert!(matches!(new, Err(BuildError::Usage(_))));
}

#[test]
fn a_reader_gets_the_keys_of_the_granted_categories_and_no_others() {
    let mut room = TestRoom::new();
    let doctor = identity();
    let id = room.grant(&invitation(&doctor, Right::Read, &[Category::Cardiac]));
    let seen = room.following(&doctor);
    let (cardiac, sleep) = (current(&room, Category::Cardiac), current(&room, Category::Sleep));
    assert_eq!(seen.view().category(cardiac), Some(Category::Cardiac));
    assert_eq!(seen.view().category(sleep), None);
    assert!(open_seed(&doctor, room.room, seen.view(), cardiac).is_ok());
    assert!(open_seed(&doctor, room.room, seen.view(), sleep).is_err());
    assert_eq!(may(&room, doctor.author_id(), Right::Read, cardiac), Ok(()));
    assert_eq!(may(&room, doctor.author_id(), Right::Read, sleep), Err(Refusal::EpochNotCovered));
    assert_eq!(seen.view().grant(id).unwrap().purpose.as_deref(), Some("rehabilitation"));
}

#[test]
fn an_appender_learns_the_categories_and_gets_no_key() {
    let mut room = TestRoom::new();
    let gateway = identity();
    room.grant(&invitation(&gateway, Right::Append, Category::ALL));
    let seen = room.following(&gateway);
    for category in Category::ALL {
        let epoch = seen.view().current_epoch(&room.state, *category).unwrap();
        assert_eq!(may(&room, gateway.author_id(), Right::Append, epoch), Ok(()));
        assert!(seen.view().epoch(epoch).unwrap().seeds.is_empty());
    }
}

#[test]
fn revoking_a_reader_renews_the_keys_and_the_others_go_on() {
    let mut room = TestRoom::new();
    let (out, stays, gateway) = (identity(), identity(), identity());
    let ended = room.grant(&invitation(&out, Right::Read, &[Category::Cardiac, Category::Sleep]));
    room.grant(&invitation(&stays, Right::Read, &[Category::Cardiac]));
    room.grant(&invitation(&gateway, Right::Append, Category::ALL));
    let old = current(&room, Category::Cardiac);
    let revocation = room.revoke(&[ended], None);
    assert_eq!(revocation.renewed, [Category::Cardiac, Category::Sleep]);
    assert_eq!(revocation.events.len(), 3);
    let new = current(&room, Category::Cardiac);
    assert_ne!(old, new);
    let opens = |who: &Identity, epoch| open_seed(who, room.room, room.following(who).view(), epoch).is_ok();
    assert!(opens(&room.patient, new) && opens(&stays, new) && opens(&out, old));
    assert!(!opens(&out, new) && !opens(&gateway, new));
    assert_eq!(may(&room, stays.author_id(), Right::Read, new), Ok(()));
    assert_eq!(may(&room, out.author_id(), Right::Read, old), Err(Refusal::GrantRevoked));
    assert_eq!(may(&room, gateway.author_id(), Right::Append, new), Ok(()));
    assert_eq!(room.following(&gateway).view().current_epoch(&room.state, Category::Cardiac), Some(new));
}

#[test]
fn one_of_two_grants_of_a_reader_goes_on_when_the_other_ends() {
    let mut room = TestRoom::new();
    let doctor = identity();
    let first = room.grant(&invitation(&doctor, Right::Read, &[Category::Cardiac]));
    room.grant(&invitation(&doctor, Right::Read, &[Category::Cardiac]));
    room.revoke(&[first], None);
    let epoch = current(&room, Category::Cardiac);
    assert!(open_seed(&doctor, room.room, room.following(&doctor).view(), epoch).is_ok());
    assert_eq!(may(&room, doctor.author_id(), Right::Read, epoch), Ok(()));
}

#[test]
fn ending_a_right_to_append_needs_no_new_keys_and_may_let_the_spool_drain() {
    let mut room = TestRoom::new();
    let gateway = identity();
    let id = room.grant(&invitation(&gateway, Right::Append, Category::ALL));
    let epoch = current(&room, Category::Cardiac);
    let until = room.now.plus_ms(3_600_000);
    let revocation = room.revoke(&[id], Some(until));
    assert!(revocation.renewed.is_empty() && revocation.cut.is_empty());
    assert_eq!(may(&room, gateway.author_id(), Right::Append, epoch), Ok(()));
    room.now = until.plus_ms(1);
    assert_eq!(may(&room, gateway.author_id(), Right::Append, epoch), Err(Refusal::GrantRevoked));
    // Shortening the drain is a revocation too.
    room.now = NOW.plus_ms(60_000);
    assert_eq!(room.revoke(&[id], None).cut, [id]);
    assert_eq!(may(&room, gateway.author_id(), Right::Append, epoch), Err(Refusal::GrantRevoked));
}

#[test]
fn however_many_others_read_a_grant_can_be_ended() {
    let mut room = TestRoom::new();
    let (out, stays) = (identity(), identity());
    let ended = room.grant(&invitation(&out, Right::Read, &[Category::Cardiac, Category::Sleep]));
    let (patient, epoch) = (room.patient.clone(), current(&room, Category::Cardiac));
    let seen = room.following(&patient);
    let mut draft = Draft::continuing(&room.state, seen.view(), &patient, Rights::GRANT, NOW).unwrap();
    for _ in 0..=ehe::limits::WRAPS_PER_CONTROL_MAX {
        let grant = Grant {
            link: draft.link,
            subject: stays.public().clone(),
            right: Right::Read,
            epochs: vec![epoch],
            from: None,
            until: None,
            expires: None,
            seeds: vec![],
        };
        draft.push(&mut rng(), &Control::Grant(grant), None).unwrap();
    }
    let events = draft.events;
    room.submit(&patient, events).unwrap();
    let revocation = room.revoke(&[ended], None);
    assert_eq!((revocation.renewed, revocation.kept), (vec![Category::Sleep], vec![Category::Cardiac]));
    assert_eq!(may(&room, out.author_id(), Right::Read, epoch), Err(Refusal::GrantRevoked));
}

#[test]
fn a_grant_is_not_revoked_twice_and_an_unknown_one_not_at_all() {
    let mut room = TestRoom::new();
    let doctor = identity();
    let id = room.grant(&invitation(&doctor, Right::Read, &[Category::Cardiac]));
    room.revoke(&[id], None);
    let seen = room.following(&room.patient);
    let again = |grants: &[_]| revoke(&mut rng(), &room.patient, &room.state, seen.view(), grants, None, room.now);
    assert!(matches!(again(&[id]), Err(BuildError::NothingToEnd(_))));
    assert!(matches!(again(&[EheId([7; 32])]), Err(BuildError::NothingToEnd(_))));
    assert!(matches!(again(&[]), Err(BuildError::NothingToEnd(_))));
}

#[test]
fn only_the_patient_makes_control_events() {
    let room = TestRoom::new();
    let other = identity();
    let seen = room.following(&other);
    let made = grant(
        &mut rng(),
        &other,
        &room.state,
        seen.view(),
        &invitation(&identity(), Right::Read, &[Category::Cardiac]),
        NOW,
    );
    assert!(matches!(made, Err(BuildError::NotDelegated { why: Refusal::NotOwner, .. })), "{made:?}");
}

#[test]
fn a_grant_whose_times_contradict_each_other_is_not_made() {
    let room = TestRoom::new();
    let seen = room.following(&room.patient);
    let make = |change: &dyn Fn(&mut Invitation)| {
        let mut invitation = invitation(&identity(), Right::Read, &[Category::Cardiac]);
        change(&mut invitation);
        grant(&mut rng(), &room.patient, &room.state, seen.view(), &invitation, NOW)
    };
    assert!(make(&|_| {}).is_ok());
    assert!(matches!(make(&|i| (i.from, i.until) = (Some(Hour(5)), Some(Hour(5)))), Err(BuildError::Usage(_))));
    assert!(matches!(make(&|i| i.expires = Some(NOW)), Err(BuildError::Usage(_))));
    assert!(matches!(make(&|i| i.subject = room.patient.public().clone()), Err(BuildError::Usage(_))));
}

#[test]
fn a_gateway_without_the_right_is_refused_by_the_rules() {
    let mut room = TestRoom::new();
    let gateway = identity();
    let epoch = current(&room, Category::Cardiac);
    let events = room.seal(&gateway, epoch, "72");
    assert_eq!(room.submit(&gateway, events), Err(Refused::Because(Refusal::NotInvited)));
    assert!(matches!(Control::decode(&room.seal(&gateway, epoch, "72")[0]), Ok(Control::Wrap(_))));
    assert_ne!(WrapId::from(room.seal(&gateway, epoch, "72")[0].id()), WrapId::ZERO);
}
