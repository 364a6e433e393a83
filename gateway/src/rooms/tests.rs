use std::sync::Arc;

use ehe::author::Strand;
use ehe::body::vitals::VitalsBody;
use ehe::control::{Control, ControlLink, EpochRecord, Rights};
use ehe::event::{CheckedEvent, Kind};
use ehe::id::{EpochId, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::Identity;
use ehe::kem::{self, WrapPurpose};
use ehe::leaf::Leaf;
use ehe::ledger::LedgerError;
use ehe::limits::SERIES_PER_BODY_MAX;
use ehe::reading::{DeviceId, Reading, ReadingTime};
use ehe::refusal::Refusal;
use ehe::seal;
use ehe::time::{Hour, UnixMs};
use ehe::vital::{Category, Vital};
use ehe::wire::{Item, Response};

use super::follow::{FollowError, Following};
use super::testing::{Ledger, NOW, Patient, identity, rng};
use super::*;

const HOUR_MS: u64 = 3_600_000;

pub(crate) fn reading(at: UnixMs, value: &str, device: &str) -> Reading {
    let time = ReadingTime::at_receipt(at, 5, true, 1_000);
    let device = DeviceId::new(device).unwrap();
    Reading::new(Vital::HeartRate, value.parse().unwrap(), Vital::HeartRate.unit(), device, time).unwrap()
}

struct Home {
    ledger: Ledger,
    patient: Patient,
    gateway: Arc<Identity>,
    epoch: EpochId,
    grant: ehe::id::EheId,
    rooms: Rooms,
    sealer: Sealer,
}

/// A room with a cardiac epoch, granted to the gateway, and followed by it.
fn home() -> Home {
    home_of(1)
}

fn home_of(nodes: usize) -> Home {
    let mut ledger = Ledger::of(nodes);
    let gateway = Arc::new(identity());
    let mut patient = Patient::new(&mut ledger);
    let epoch = patient.epoch(&mut ledger, Category::Cardiac, None, &[], &[]);
    let grant = patient.grant(&mut ledger, gateway.public(), &[(epoch, Category::Cardiac)], None);
    let rooms = Rooms::new(gateway.clone(), ledger.alliance());
    let sealer = Sealer::new(rooms.clone(), 3);
    let home = Home { ledger, patient, gateway, epoch, grant, rooms, sealer };
    home.follow().unwrap();
    home
}

fn fetch(rooms: &Rooms, ledger: &Ledger, room: RoomId) -> (Following, Vec<Response>) {
    let before = rooms.get(room);
    let (following, request) =
        Following::begin(rooms.identity().clone(), rooms.alliance(), room, before.as_deref(), Nonce([7; 16]), NOW);
    let answers = ledger.fetch(&request, rooms.identity().public());
    (following, answers)
}

fn judge(mut following: Following, answers: Vec<Response>, ledger: &Ledger) -> Result<Followed, FollowError> {
    for answer in answers {
        match answer {
            Response::Item(item) => following.take(item)?,
            Response::Head(head) => return following.finish(&head, &ledger.charter),
            other => panic!("{other:?}"),
        }
    }
    panic!("no head");
}

impl Home {
    fn follow(&self) -> Result<bool, FollowError> {
        let (following, answers) = fetch(&self.rooms, &self.ledger, self.patient.room);
        let followed = judge(following, answers, &self.ledger)?;
        Ok(self.rooms.advance(self.patient.room, followed))
    }

    fn seal(&self, readings: &[Reading], now: UnixMs) -> Result<Sealed, SealHold> {
        self.sealer.seal(&mut rng(), self.patient.room, Category::Cardiac, readings, now)
    }

    fn seal_and_commit(&self, readings: &[Reading]) -> Vec<CheckedEvent> {
        let (events, commit) = self.seal(readings, NOW).unwrap().into_parts();
        self.sealer.committed(commit);
        events.into_iter().map(|sealed| sealed.event).collect()
    }

    /// What somebody with the epochs' seeds reads.
    fn open(&self, wraps: &[CheckedEvent], event: &CheckedEvent) -> Vec<Reading> {
        let core = event.core();
        let wrap = wraps.iter().find(|w| WrapId::from(w.id()) == core.wrap).unwrap();
        let Ok(Control::Wrap(record)) = Control::decode(wrap) else { panic!("not a wrap") };
        let purpose =
            WrapPurpose::EventKey { room: core.room, author: core.author, epoch: core.epoch, day: core.hour.day() };
        let ek = kem::unwrap(&self.patient.seeds[&core.epoch], &purpose, &record.wrapped).unwrap();
        VitalsBody::decode(&seal::open(&ek, event).unwrap()).unwrap()
    }
}

fn kinds(sealed: &[SealedEvent]) -> Vec<Kind> {
    sealed.iter().map(|s| s.event.core().kind).collect()
}

#[test]
fn a_sealed_window_opens_with_the_epochs_seed_and_holds_its_readings() {
    let home = home();
    let readings = [reading(NOW, "61", "strap"), reading(NOW.plus_ms(900), "62", "strap")];
    let events = home.seal_and_commit(&readings);
    assert_eq!(events.len(), 2);
    assert_eq!(home.open(&events, &events[1]), readings);
    let core = events[1].core();
    assert_eq!((core.room, core.author), (home.patient.room, home.gateway.author_id()));
    assert_eq!((core.epoch, core.hour), (home.epoch, NOW.hour()));
}

#[test]
fn a_key_seals_later_windows_only_once_its_wrap_is_durable() {
    let home = home();
    let readings = [reading(NOW, "61", "strap")];
    let (first, lost) = home.seal(&readings, NOW).unwrap().into_parts();
    drop(lost); // the transaction failed
    let (second, commit) = home.seal(&readings, NOW).unwrap().into_parts();
    assert_eq!(kinds(&second), [Kind::Wrap, Kind::Vitals]);
    assert_ne!(first[0].event.id(), second[0].event.id());
    home.sealer.committed(commit);
    let (third, _) = home.seal(&readings, NOW).unwrap().into_parts();
    assert_eq!(kinds(&third), [Kind::Vitals]);
    assert_eq!(third[0].event.core().wrap, WrapId::from(second[0].event.id()));
}

#[test]
fn a_refused_wrap_takes_its_key_along_even_if_its_commit_is_told_later() {
    let home = home();
    let readings = [reading(NOW, "61", "strap")];
    let (events, commit) = home.seal(&readings, NOW).unwrap().into_parts();
    home.sealer.retire(events[0].event.id().into());
    home.sealer.committed(commit);
    let (again, commit) = home.seal(&readings, NOW).unwrap().into_parts();
    assert_eq!(kinds(&again), [Kind::Wrap, Kind::Vitals]);
    home.sealer.committed(commit);
    home.sealer.retire(again[0].event.id().into());
    assert_eq!(kinds(home.seal(&readings, NOW).unwrap().events()), [Kind::Wrap, Kind::Vitals]);
}

#[test]
fn no_event_spans_hours_and_no_key_spans_days() {
    let home = home();
    // 2026-11-20 is 10:00 now: readings of yesterday 23:30, of today 00:10 and 00:20, of 10:00, given in no order.
    let midnight = UnixMs(NOW.0 - 10 * HOUR_MS);
    let readings = [
        reading(midnight.plus_ms(HOUR_MS / 6), "61", "a"),
        reading(UnixMs(midnight.0 - HOUR_MS / 2), "62", "a"),
        reading(NOW, "63", "a"),
        reading(midnight.plus_ms(HOUR_MS / 3), "64", "a"),
    ];
    let (events, commit) = home.seal(&readings, NOW).unwrap().into_parts();
    assert_eq!(kinds(&events), [Kind::Wrap, Kind::Vitals, Kind::Wrap, Kind::Vitals, Kind::Vitals]);
    let carried: Vec<&[usize]> = events.iter().map(|s| s.readings.as_slice()).collect();
    assert_eq!(carried, [&[][..], &[1], &[], &[0, 3], &[2]]);
    let wraps: Vec<CheckedEvent> = events.iter().map(|s| s.event.clone()).collect();
    for sealed in events.iter().filter(|s| s.event.core().kind == Kind::Vitals) {
        let opened = home.open(&wraps, &sealed.event);
        assert!(opened.iter().all(|r| r.at().hour() == sealed.event.core().hour));
    }
    home.sealer.committed(commit);
    let late = [reading(UnixMs(midnight.0 - HOUR_MS), "60", "a")];
    assert_eq!(kinds(home.seal(&late, NOW).unwrap().events()), [Kind::Vitals], "yesterday's key is still there");
}

#[test]
fn keys_go_when_the_day_turns_and_are_bounded_in_days() {
    let home = home();
    let _ = home.seal_and_commit(&[reading(NOW, "61", "a")]);
    let tomorrow = NOW.plus_ms(24 * HOUR_MS);
    assert_eq!(kinds(home.seal(&[reading(NOW, "61", "a")], tomorrow).unwrap().events()), [Kind::Wrap, Kind::Vitals]);
    for days in 0..10 {
        let _ = home.seal_and_commit(&[reading(UnixMs(NOW.0 - days * 24 * HOUR_MS), "61", "a")]);
    }
    assert!(format!("{:?}", home.sealer).matches("EventKey").count() <= 3);
}

#[test]
fn a_rotation_that_the_patient_signed_moves_sealing_to_the_new_epoch() {
    let mut home = home();
    let before = home.seal_and_commit(&[reading(NOW, "61", "a")]);
    let mut changed = home.rooms.changed();
    changed.mark_unchanged();
    // The new epoch's sealed part is not for us: it is of the category of the one that it follows.
    let next = home.patient.epoch(&mut home.ledger, Category::Cardiac, Some(home.epoch), &[home.grant], &[]);
    assert!(home.follow().unwrap());
    assert!(changed.has_changed().unwrap());
    let after = home.seal_and_commit(&[reading(NOW, "62", "a")]);
    assert_eq!((before[1].core().epoch, after[1].core().epoch), (home.epoch, next));
    assert_eq!(home.open(&after, &after[1]).len(), 1);
}

#[test]
fn a_rotation_that_leaves_us_out_holds_readings_instead_of_sealing_them_to_the_old_readers() {
    let mut home = home();
    home.patient.epoch(&mut home.ledger, Category::Cardiac, Some(home.epoch), &[], &[]);
    home.follow().unwrap();
    let held = home.seal(&[reading(NOW, "61", "a")], NOW).unwrap_err();
    assert_eq!(held, SealHold::Grant(Refusal::EpochNotCovered));
}

#[test]
fn after_the_patients_keys_changed_sealing_goes_on_and_into_the_epoch_that_the_new_keys_publish() {
    let mut home = home();
    let old = home.patient.rotate(&mut home.ledger);
    assert!(home.follow().unwrap(), "the rotation is followed without a restart");
    let before = home.seal_and_commit(&[reading(NOW, "61", "a")]);
    assert_eq!(before[1].core().epoch, home.epoch);
    let next = home.patient.epoch(&mut home.ledger, Category::Cardiac, Some(home.epoch), &[home.grant], &[]);
    home.follow().unwrap();
    let after = home.seal_and_commit(&[reading(NOW, "62", "a")]);
    assert_eq!(after[1].core().epoch, next);
    assert_eq!(home.open(&after, &after[1]).len(), 1);
    // Who has the old keys still publishes nothing that a gateway seals to.
    let error = shown_with_a_forged_epoch(&mut home, &old);
    assert!(matches!(error, FollowError::Ledger(LedgerError::Signature { .. })), "{error}");
    assert_eq!(home.seal_and_commit(&[reading(NOW, "63", "a")])[0].core().epoch, next);
}

#[test]
fn a_delegate_who_may_publish_keys_moves_sealing_to_its_epoch() {
    let mut home = home();
    let mut delegate = home.patient.delegate(&mut home.ledger, Rights::EPOCH);
    let next = delegate.epoch(&mut home.ledger, Category::Cardiac, Some(home.epoch), &[home.grant], &[]);
    home.patient.seeds.extend(delegate.seeds);
    home.follow().unwrap();
    let sealed = home.seal_and_commit(&[reading(NOW, "61", "a")]);
    assert_eq!(sealed[1].core().epoch, next);
    assert_eq!(home.open(&sealed, &sealed[1]).len(), 1);
}

#[test]
fn a_delegate_turns_no_category_to_a_key_of_another_one_by_what_it_calls_it() {
    let mut home = home();
    let sleep = home.patient.epoch(&mut home.ledger, Category::Sleep, None, &[], &[]);
    let gateway = home.gateway.public().clone();
    let grant = home.patient.grant(&mut home.ledger, &gateway, &[(sleep, Category::Sleep)], None);
    let mut delegate = home.patient.delegate(&mut home.ledger, Rights::EPOCH.and(Rights::GRANT));
    let next = delegate.epoch(&mut home.ledger, Category::Cardiac, Some(sleep), &[grant], &[&gateway]);
    delegate.grant(&mut home.ledger, &gateway, &[(next, Category::Cardiac)], None);
    // Nor one that follows none, whether its own record says it or a grant.
    let fresh = delegate.epoch(&mut home.ledger, Category::Cardiac, None, &[], &[&gateway]);
    delegate.grant(&mut home.ledger, &gateway, &[(fresh, Category::Cardiac)], None);
    home.follow().unwrap();
    let (cardiac, _) = home.seal(&[reading(NOW, "61", "a")], NOW).unwrap().into_parts();
    assert_eq!(cardiac[1].event.core().epoch, home.epoch);
    let sealed = home.sealer.seal(&mut rng(), home.patient.room, Category::Sleep, &[reading(NOW, "61", "a")], NOW);
    assert_eq!(sealed.unwrap().into_parts().0[1].event.core().epoch, next, "it goes on as what it follows");
}

#[test]
fn an_epoch_record_by_somebody_who_may_not_publish_keys_changes_nothing() {
    let mut home = home();
    let delegate = home.patient.delegate(&mut home.ledger, Rights::GRANT).identity;
    home.follow().unwrap();
    let mut rules = Vec::new();
    for forger in [&delegate, &home.gateway.clone(), &identity()] {
        match shown_with_a_forged_epoch(&mut home, forger) {
            FollowError::Ledger(LedgerError::Rules { why, .. }) => rules.push(why),
            other => panic!("{other}"),
        }
    }
    assert_eq!(rules, [Refusal::NotDelegated, Refusal::NotOwner, Refusal::NotInvited]);
    let sealed = home.seal_and_commit(&[reading(NOW, "61", "a")]);
    assert_eq!(sealed[1].core().epoch, home.epoch, "what was verified before still stands");
}

#[test]
fn an_epoch_record_that_the_patient_did_not_sign_changes_nothing() {
    let mut home = home();
    let forger = identity().acting_as(home.patient.identity.author_id());
    let error = shown_with_a_forged_epoch(&mut home, &forger);
    assert!(matches!(error, FollowError::Ledger(LedgerError::Signature { .. })), "{error}");
    let sealed = home.seal_and_commit(&[reading(NOW, "61", "a")]);
    assert_eq!(sealed[1].core().epoch, home.epoch, "what was verified before still stands");
}

/// A node makes up a room's next entry: an epoch record with the forger's own key as group key, in a run that the forger signs.
fn shown_with_a_forged_epoch(home: &mut Home, forger: &Identity) -> FollowError {
    let current = home.rooms.get(home.patient.room).unwrap();
    let open = current.room().epochs.iter().find(|(_, e)| e.superseded_by.is_none()).map(|(id, _)| *id);
    let link = ControlLink { seq: current.room().next_control, previous: current.room().last_control };
    let (room, author) = (home.patient.room, forger.author_id());
    let record = EpochRecord {
        link,
        epoch: EpochId([9; 16]),
        group_key: forger.public().kem.clone(),
        supersedes: open,
        continues: vec![home.grant],
        seeds: vec![],
    };
    let forged = Control::Epoch(record).event(&mut rng(), room, author, NOW, None).unwrap();
    let run = Strand::new(room, StrandId([9; 8]), None).link_events(forger, std::slice::from_ref(&forged)).run;
    let (mut following, _) = fetch(&home.rooms, &home.ledger, room);
    let leaf = Leaf {
        room,
        index: current.next(),
        previous: current.last(),
        entry: run.hash(),
        accepted_at: NOW,
        control: link.seq + 1,
    };
    following
        .take(Item { leaf, run: Some(run), events: vec![forged.into_event()], access: None, void: None })
        .unwrap_err()
}

#[test]
fn control_records_without_a_quorums_checkpoint_are_not_used() {
    let mut home = home_of(3);
    home.patient.epoch(&mut home.ledger, Category::Cardiac, Some(home.epoch), &[home.grant], &[]);
    home.ledger.cosigners = 1;
    let error = home.follow().unwrap_err();
    assert!(matches!(error, FollowError::Ledger(LedgerError::Head(_))), "{error}");
    home.ledger.cosigners = 2;
    assert!(home.follow().unwrap());
}

#[test]
fn an_older_log_than_the_one_that_was_verified_is_refused() {
    let mut home = home();
    let known = home.rooms.get(home.patient.room).unwrap();
    // Another room's entry makes the log longer; a node then shows the shorter one again.
    let (old_following, old_answers) = fetch(&home.rooms, &home.ledger, home.patient.room);
    Patient::new(&mut home.ledger);
    home.follow().unwrap();
    assert!(home.rooms.get(home.patient.room).unwrap().seen().size > known.seen().size);
    drop(old_following);
    let (following, _) = fetch(&home.rooms, &home.ledger, home.patient.room);
    let error = judge(following, old_answers, &home.ledger).unwrap_err();
    assert!(matches!(error, FollowError::Ledger(LedgerError::WentBack { .. })), "{error}");
}

#[test]
fn what_the_spool_kept_of_a_room_seals_without_a_network() {
    let home = home();
    let saved = home.rooms.get(home.patient.room).unwrap().encode();
    let rooms = Rooms::new(home.gateway.clone(), home.ledger.alliance());
    rooms.restore(home.patient.room, &saved).unwrap();
    let sealer = Sealer::new(rooms.clone(), 3);
    let sealed = sealer.seal(&mut rng(), home.patient.room, Category::Cardiac, &[reading(NOW, "61", "a")], NOW);
    assert_eq!(kinds(sealed.unwrap().events()), [Kind::Wrap, Kind::Vitals]);
    assert_eq!(rooms.restore(RoomId([9; 16]), &saved), Err(SavedError::Other));
    assert!(rooms.restore(home.patient.room, &saved[1..]).is_err());
}

#[test]
fn readings_without_a_covering_grant_are_held_with_the_reason() {
    let mut ledger = Ledger::of(1);
    let gateway = Arc::new(identity());
    let mut patient = Patient::new(&mut ledger);
    let epoch = patient.epoch(&mut ledger, Category::Cardiac, None, &[], &[]);
    let from = Hour(NOW.hour().0 + 1);
    patient.grant(&mut ledger, gateway.public(), &[(epoch, Category::Cardiac)], Some(from));
    let rooms = Rooms::new(gateway, ledger.alliance());
    let sealer = Sealer::new(rooms.clone(), 3);
    let seal = |category| sealer.seal(&mut rng(), patient.room, category, &[reading(NOW, "61", "a")], NOW).unwrap_err();
    assert_eq!(seal(Category::Cardiac), SealHold::RoomUnknown);
    let (following, answers) = fetch(&rooms, &ledger, patient.room);
    rooms.advance(patient.room, judge(following, answers, &ledger).unwrap());
    assert_eq!(seal(Category::Cardiac), SealHold::Grant(Refusal::HourNotCovered));
    assert_eq!(seal(Category::Metabolic), SealHold::NoEpoch);
}

#[test]
fn a_gateway_that_only_a_delegate_invited_names_the_command_that_ends_the_hold() {
    let mut ledger = Ledger::of(1);
    let gateway = Arc::new(identity());
    let mut patient = Patient::new(&mut ledger);
    let epoch = patient.epoch(&mut ledger, Category::Cardiac, None, &[], &[]);
    let mut delegate = patient.delegate(&mut ledger, Rights::GRANT);
    delegate.grant(&mut ledger, gateway.public(), &[(epoch, Category::Cardiac)], None);
    let rooms = Rooms::new(gateway, ledger.alliance());
    let (following, answers) = fetch(&rooms, &ledger, patient.room);
    rooms.advance(patient.room, judge(following, answers, &ledger).unwrap());
    let sealer = Sealer::new(rooms.clone(), 3);
    let hold = sealer.seal(&mut rng(), patient.room, Category::Cardiac, &[reading(NOW, "61", "a")], NOW).unwrap_err();
    assert!(hold.to_string().contains(&format!("`ehe authority renew --room {}`", patient.room)), "{hold}");
}

#[test]
fn more_series_than_one_body_holds_become_several_events_and_no_reading_is_left_out() {
    let home = home();
    let readings: Vec<Reading> =
        (0..2 * SERIES_PER_BODY_MAX + 10).map(|i| reading(NOW, "61", &format!("device {i}"))).collect();
    let (events, _commit) = home.seal(&readings, NOW).unwrap().into_parts();
    assert_eq!(kinds(&events), [Kind::Wrap, Kind::Vitals, Kind::Vitals, Kind::Vitals]);
    let carried: Vec<usize> = events.iter().flat_map(|s| s.readings.clone()).collect();
    assert_eq!(carried, (0..readings.len()).collect::<Vec<_>>());
}
