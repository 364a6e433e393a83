//! Other keys, delegates, recovery: what is made is admitted, and opens for whom it should.

use super::*;

fn opens(room: &TestRoom, who: &Identity, epoch: EpochId) -> bool {
    let seen = room.following(who);
    open_seed(seen.me(), room.room, seen.view(), epoch).is_ok()
}

fn opens_all(room: &TestRoom, who: &Identity) -> bool {
    room.state.epochs.keys().all(|epoch| opens(room, who, *epoch))
}

impl TestRoom {
    /// Moves the room to new keys; `patient` stays the old ones.
    fn rotate(&mut self) -> Identity {
        let (seen, new) = (self.following(&self.patient), identity());
        let made = rotate(&mut rng(), seen.me(), &self.state, seen.view(), &new, self.now).unwrap();
        self.moved(seen.me(), &new, made);
        new
    }

    fn moved(&mut self, by: &Identity, new: &Identity, made: KeyChange) {
        self.submit(by, vec![made.change]).unwrap();
        if !made.hand_over.is_empty() {
            self.submit(&new.acting_as(self.state.owner), made.hand_over).unwrap();
        }
    }

    fn renew(&mut self, who: &Identity) -> Renewal {
        let seen = self.following(who);
        let made = renew(&mut rng(), seen.me(), &self.state, seen.view(), self.now).unwrap();
        self.submit(seen.me(), made.events.clone()).unwrap();
        made
    }

    fn delegate(&mut self, rights: Rights) -> Identity {
        let (seen, delegate) = (self.following(&self.patient), identity());
        let to = Delegated { delegate: delegate.public().clone(), rights, expires: None, name: Some("Eva".into()) };
        let event = super::super::delegate(&mut rng(), seen.me(), &self.state, seen.view(), &to, self.now).unwrap();
        self.submit(seen.me(), vec![event]).unwrap();
        delegate
    }

    fn recover(&mut self, paper: &Identity, next: Option<&Identity>, distrusted_from: Option<u64>) -> Identity {
        let (seen, new) = (self.following(paper), identity());
        let plan = Recovery { next: next.map(Identity::public), distrusted_from };
        let made = recover(&mut rng(), paper, &self.state, seen.view(), &new, plan, self.now).unwrap();
        self.moved(paper, &new, made);
        new
    }
}

#[test]
fn new_keys_open_and_know_everything_that_the_old_ones_did() {
    let mut room = TestRoom::new();
    let doctor = identity();
    let grant = room.grant(&invitation(&doctor, Right::Read, &[Category::Cardiac]));
    let old = current(&room, Category::Cardiac);
    room.renew(&room.patient.clone());
    let new = room.rotate();
    assert!(opens_all(&room, &new));
    let seen = room.following(&new);
    assert_eq!(seen.me().author_id(), room.patient.author_id(), "the new keys are the patient, under the same id");
    assert_eq!(seen.asks().author_id(), new.author_id(), "requests name the keys");
    assert_eq!((seen.view().name(), seen.view().category(old)), (Some("home"), Some(Category::Cardiac)));
    let shown = seen.view().grant(grant).unwrap();
    assert_eq!((shown.name.as_deref(), shown.purpose.as_deref()), (Some("Dr Weber"), Some("rehabilitation")));
    let renewed = room.renew(&new);
    assert_eq!((renewed.renewed.as_slice(), renewed.unknown), (Category::ALL, 0));
    let now = current_for(&room, &new, Category::Cardiac);
    assert!(opens(&room, &new, now) && opens(&room, &doctor, now) && !opens(&room, &room.patient, now));
}

fn current_for(room: &TestRoom, who: &Identity, category: Category) -> EpochId {
    room.following(who).view().current_epoch(&room.state, category).unwrap()
}

#[test]
fn the_old_keys_make_nothing_that_is_admitted_after_a_rotation() {
    let mut room = TestRoom::new();
    let old = room.patient.clone();
    let seen = room.following(&old);
    room.rotate();
    let to = invitation(&identity(), Right::Append, &[Category::Cardiac]);
    let event = grant(&mut rng(), &old, &room.state, seen.view(), &to, NOW).unwrap();
    assert_eq!(room.submit(&old, vec![event]), Err(Refused::Because(Refusal::BadSignature)));
}

#[test]
fn a_rotation_of_many_epochs_hands_all_of_them_over() {
    let mut room = TestRoom::new();
    for _ in 0..8 {
        room.renew(&room.patient.clone());
    }
    let new = room.rotate();
    assert_eq!(room.state.epochs.len(), 72);
    assert!(opens_all(&room, &new));
    let seen = room.following(&new);
    assert!(room.state.epochs.keys().all(|epoch| seen.view().category(*epoch).is_some()));
}

#[test]
fn a_rotation_or_a_recovery_that_broke_off_is_finished_with_the_keys_before_it() {
    let paper = identity();
    for by_recovery in [false, true] {
        let mut room = TestRoom::committed_to(Some(paper.public()));
        for _ in 0..8 {
            room.renew(&room.patient.clone());
        }
        let (other, new) = (if by_recovery { paper.clone() } else { room.patient.clone() }, identity());
        let (seen, plan) = (room.following(&other), Recovery { next: None, distrusted_from: None });
        let made = match by_recovery {
            true => recover(&mut rng(), &paper, &room.state, seen.view(), &new, plan, room.now).unwrap(),
            false => rotate(&mut rng(), &other, &room.state, seen.view(), &new, room.now).unwrap(),
        };
        assert!(!made.hand_over.is_empty());
        room.submit(&other, vec![made.change]).unwrap();
        assert!(!opens_all(&room, &new), "the rest was lost");
        let (mine, before) = (room.following(&new), room.following(&other));
        let over = |room: &TestRoom, mine: &crate::follow::Following| {
            let (me, other) = (mine.me(), (before.me(), before.view()));
            hand_over(&mut rng(), me, &room.state, mine.view(), other, room.now).unwrap()
        };
        let events = over(&room, &mine);
        room.submit(mine.me(), events).unwrap();
        assert!(opens_all(&room, &new));
        assert!(over(&room, &room.following(&new)).is_empty(), "and nothing is left to do");
    }
}

#[test]
fn the_recovery_key_opens_everything_from_the_first_key_on() {
    let paper = identity();
    let mut room = TestRoom::committed_to(Some(paper.public()));
    let doctor = identity();
    let id = room.grant(&invitation(&doctor, Right::Read, &[Category::Cardiac]));
    room.revoke(&[id], None);
    assert_eq!(room.state.epochs.len(), 9);
    assert!(opens_all(&room, &paper));
    let seen = room.following(&paper);
    assert_eq!(seen.view().name(), Some("home"));
    assert_eq!(seen.view().grant(id).unwrap().name.as_deref(), Some("Dr Weber"));
}

#[test]
fn a_recovery_key_that_is_set_later_opens_what_was_there_before() {
    let mut room = TestRoom::new();
    let delegate = room.delegate(Rights::EPOCH);
    for _ in 0..8 {
        room.renew(&room.patient.clone());
    }
    let paper = identity();
    assert!(!opens(&room, &paper, current(&room, Category::Sleep)));
    let seen = room.following(&room.patient);
    let events = set_recovery(&mut rng(), seen.me(), &room.state, seen.view(), paper.public(), room.now).unwrap();
    room.submit(&room.patient.clone(), events).unwrap();
    assert!(opens_all(&room, &paper));
    assert_eq!(room.following(&delegate).view().recovery(&room.state), Some(paper.public()));
    room.renew(&delegate);
    assert!(opens_all(&room, &paper), "delegates wrap keys to it too");
    let seen = room.following(&room.patient);
    let again = set_recovery(&mut rng(), seen.me(), &room.state, seen.view(), paper.public(), room.now);
    assert!(matches!(again, Err(BuildError::Refused(Refusal::RecoverySet))));
}

#[test]
fn after_a_recovery_the_patient_has_everything_and_the_thief_nothing_new() {
    let paper = identity();
    let mut room = TestRoom::committed_to(Some(paper.public()));
    let (doctor, gateway) = (identity(), identity());
    room.grant(&invitation(&doctor, Right::Read, &[Category::Cardiac]));
    room.grant(&invitation(&gateway, Right::Append, Category::ALL));
    let helper = room.delegate(Rights::EPOCH);
    let theft = room.state.next_control;
    let friend = identity();
    room.grant(&invitation(&friend, Right::Read, &[Category::Cardiac]));
    let thief = room.rotate();
    room.renew(&thief);

    let next = identity();
    let new = room.recover(&paper, Some(&next), Some(theft));
    assert!(opens_all(&room, &new) && opens_all(&room, &next));
    assert_eq!(room.following(&new).view().name(), Some("home"));
    let renewed = room.renew(&new);
    assert_eq!((renewed.renewed.as_slice(), renewed.unknown), (Category::ALL, 0));
    let epoch = current_for(&room, &new, Category::Cardiac);
    for (who, may_open) in
        [(&new, true), (&next, true), (&doctor, true), (&thief, false), (&friend, false), (&paper, false)]
    {
        assert_eq!(opens(&room, who, epoch), may_open);
    }
    assert_eq!(may(&room, doctor.author_id(), Right::Read, epoch), Ok(()));
    assert_eq!(may(&room, gateway.author_id(), Right::Append, epoch), Ok(()));
    assert_eq!(may(&room, friend.author_id(), Right::Read, epoch), Err(Refusal::GrantRevoked));
    assert_eq!(room.following(&gateway).view().category(epoch), Some(Category::Cardiac));
    room.renew(&helper);
    assert!(opens_all(&room, &next), "the delegate was told of the new recovery key");
}

#[test]
fn readings_that_the_stolen_keys_signed_between_theft_and_recovery_are_marked_and_no_others() {
    let paper = identity();
    let mut room = TestRoom::committed_to(Some(paper.public()));
    let gateway = identity();
    room.grant(&invitation(&gateway, Right::Append, &[Category::Cardiac]));
    let epoch = current(&room, Category::Cardiac);
    let seal = |room: &mut TestRoom, who: &Identity, value: &str| {
        let who = if who.author_id() == gateway.author_id() { who.clone() } else { who.acting_as(room.state.owner) };
        let events = room.seal(&who, epoch, value);
        room.submit(&who, events).unwrap();
    };
    let patient = room.patient.clone();
    seal(&mut room, &patient, "60");
    let theft = room.state.next_control;
    // Nothing that the ledger counts lies between this and what was before the theft.
    seal(&mut room, &patient, "61");
    room.grant(&invitation(&identity(), Right::Read, &[Category::Cardiac]));
    seal(&mut room, &patient, "62");
    let thief = room.rotate();
    seal(&mut room, &thief, "63");
    seal(&mut room, &gateway, "64");
    let new = room.recover(&paper, None, Some(theft));
    seal(&mut room, &new, "65");

    let newest = room.following(&new);
    let mut keys = crate::keys::Keyring::open(newest.me(), room.room, newest.view(), [epoch]);
    room.wraps().into_iter().for_each(|wrap| keys.take_wrap(wrap).unwrap());
    let mut following = crate::follow::Following::new(room.room, false, new, ALLIANCE, None);
    let (mut readings, mut seen) = (crate::read::Readings::default(), Default::default());
    for item in room.items(Some(&[epoch])) {
        let shown = following.take(item).unwrap();
        let distrusted = crate::read::distrusted_at(&following, newest.state().unwrap());
        readings.take(shown, &mut keys, &mut seen, &Default::default(), distrusted).unwrap();
    }
    readings.sort();
    let marked: Vec<(String, bool)> =
        readings.rows.iter().map(|row| (row.reading.value().to_string(), row.distrusted)).collect();
    let expected = [("60", false), ("61", false), ("62", true), ("63", true), ("64", false), ("65", false)];
    assert_eq!(marked, expected.map(|(value, distrusted)| (value.to_owned(), distrusted)));
}

#[test]
fn what_is_no_recovery_of_this_room_is_not_made() {
    let (paper, other, new) = (identity(), identity(), identity());
    let room = TestRoom::committed_to(Some(paper.public()));
    let seen = room.following(&paper);
    let plan = |distrusted_from| Recovery { next: None, distrusted_from };
    let made = |who, from| recover(&mut rng(), who, &room.state, seen.view(), &new, plan(from), NOW);
    assert!(matches!(made(&other, None), Err(BuildError::Refused(Refusal::NotRecovery))));
    for from in [0, room.state.next_control + 1] {
        assert!(matches!(made(&paper, Some(from)), Err(BuildError::Usage(_))), "{from}");
    }
    assert!(made(&paper, Some(room.state.next_control)).is_ok());
}

#[test]
fn a_delegate_invites_to_what_it_may_read_itself_and_to_append_to_anything() {
    let mut room = TestRoom::new();
    let delegate = room.delegate(Rights::GRANT);
    room.grant(&invitation(&delegate, Right::Read, &[Category::Cardiac]));
    let (doctor, gateway) = (identity(), identity());
    let make = |room: &mut TestRoom, to: &Invitation| {
        let seen = room.following(&delegate);
        let event = grant(&mut rng(), &delegate, &room.state, seen.view(), to, room.now)?;
        room.submit(&delegate, vec![event.clone()]).unwrap();
        Ok::<EheId, BuildError>(event.id())
    };
    let id = make(&mut room, &invitation(&doctor, Right::Read, &[Category::Cardiac])).unwrap();
    make(&mut room, &invitation(&gateway, Right::Append, Category::ALL)).unwrap();
    let cardiac = current(&room, Category::Cardiac);
    assert!(opens(&room, &doctor, cardiac));
    assert_eq!(may(&room, doctor.author_id(), Right::Read, cardiac), Ok(()));
    for category in Category::ALL {
        assert_eq!(may(&room, gateway.author_id(), Right::Append, current(&room, *category)), Ok(()));
    }
    for who in [&room.patient, &doctor, &delegate] {
        let name = room.following(who).view().grant(id).unwrap().name.clone();
        assert_eq!(name.as_deref(), Some("Dr Weber"), "patient, subject and delegate can read it");
    }
    // It holds no key of another category, so it can give none.
    let more = make(&mut room, &invitation(&doctor, Right::Read, &[Category::Sleep]));
    assert!(matches!(more, Err(BuildError::BeyondOwn { categories, .. }) if categories == "sleep"));
    // Nor for longer than its own grant goes.
    let end = Some(room.now.plus_ms(60_000));
    room.grant(&Invitation { expires: end, ..invitation(&delegate, Right::Read, &[Category::Body]) });
    let body = invitation(&doctor, Right::Read, &[Category::Cardiac, Category::Body]);
    let more = make(&mut room, &body);
    assert!(matches!(more, Err(BuildError::BeyondOwn { categories, .. }) if categories == "body"));
    let shorter = Invitation { expires: end, ..body };
    make(&mut room, &shorter).unwrap();
    let seen = room.following(&delegate);
    let ended = revoke(&mut rng(), &delegate, &room.state, seen.view(), &[id], None, room.now);
    let Err(BuildError::NotDelegated { why, right, may, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!((why, right.as_str(), may.as_str()), (Refusal::NotDelegated, "revoke", "grant,revoke"));
}

#[test]
fn a_delegates_word_makes_no_epoch_one_of_another_category() {
    let mut room = TestRoom::new();
    let delegate = room.delegate(Rights::EPOCH.and(Rights::GRANT));
    let (cardiac, sleep) = (current(&room, Category::Cardiac), current(&room, Category::Sleep));
    let mut published = Vec::new();
    for supersedes in [Some(sleep), None] {
        let (epoch, key) = (EpochId(crate::session::random()), KemSecret::generate(&mut rng()));
        let link = ControlLink { seq: room.state.next_control, previous: room.state.last_control };
        let (continues, seeds) = (vec![], vec![]);
        let record = EpochRecord { link, epoch, group_key: key.public(), supersedes, continues, seeds };
        let told = EpochCategory { epoch, category: Category::Cardiac };
        let private = Private { categories: vec![told], ..Private::default() };
        let parties = [room.patient.party(), delegate.party()];
        let made = Control::Epoch(record).event(
            &mut rng(),
            room.room,
            delegate.author_id(),
            room.now,
            Some((&private, &parties)),
        );
        room.submit(&delegate, vec![made.unwrap()]).unwrap();
        published.push(epoch);
    }
    for who in [&room.patient, &delegate] {
        let seen = room.following(who);
        assert_eq!(seen.view().current_epoch(&room.state, Category::Cardiac), Some(cardiac));
        assert_eq!(seen.view().category(published[0]), Some(Category::Sleep), "as what it follows");
        assert_eq!(seen.view().category(published[1]), None);
    }
}

#[test]
fn whom_a_delegate_invites_reads_by_its_word_and_hands_nothing_on_by_it() {
    let mut room = TestRoom::new();
    let (delegate, friend) = (room.delegate(Rights::GRANT), identity());
    room.grant(&invitation(&delegate, Right::Read, &[Category::Cardiac]));
    let seen = room.following(&delegate);
    let to = invitation(&friend, Right::Read, &[Category::Cardiac]);
    let event = grant(&mut rng(), &delegate, &room.state, seen.view(), &to, room.now).unwrap();
    room.submit(&delegate, vec![event]).unwrap();
    let (seen, epoch) = (room.following(&friend), current(&room, Category::Cardiac));
    assert_eq!((seen.view().read_as(epoch), seen.view().category(epoch)), (Some(Category::Cardiac), None));
    let asked = crate::scope::plan(&room.state, seen.view(), friend.author_id(), &Default::default(), room.now);
    assert_eq!(asked.unwrap()[0].epochs, [epoch]);
}

#[test]
fn a_delegate_who_revokes_renews_the_keys_if_it_may() {
    for (rights, renewed, unrenewed) in
        [(Rights::REVOKE.and(Rights::EPOCH), vec![Category::Cardiac], 0), (Rights::REVOKE, vec![], 1)]
    {
        let mut room = TestRoom::new();
        let delegate = room.delegate(rights);
        let (out, stays) = (identity(), identity());
        let id = room.grant(&invitation(&out, Right::Read, &[Category::Cardiac]));
        room.grant(&invitation(&stays, Right::Read, &[Category::Cardiac]));
        let seen = room.following(&delegate);
        let made = revoke(&mut rng(), &delegate, &room.state, seen.view(), &[id], None, room.now).unwrap();
        assert_eq!((made.renewed, made.unrenewed), (renewed.clone(), unrenewed));
        room.submit(&delegate, made.events).unwrap();
        let epoch = current(&room, Category::Cardiac);
        assert_eq!(may(&room, out.author_id(), Right::Read, epoch), Err(Refusal::GrantRevoked));
        assert!(opens(&room, &room.patient, epoch) && opens(&room, &stays, epoch));
        assert_eq!(opens(&room, &out, epoch), renewed.is_empty());
    }
}

#[test]
fn a_delegate_of_a_rotated_patient_wraps_to_the_new_keys() {
    let mut room = TestRoom::new();
    let delegate = room.delegate(Rights::EPOCH);
    let new = room.rotate();
    room.renew(&delegate);
    let epoch = current_for(&room, &new, Category::Cardiac);
    assert!(opens(&room, &new, epoch) && !opens(&room, &room.patient, epoch));
}

#[test]
fn who_is_not_the_owner_delegates_and_withdraws_nothing() {
    let mut room = TestRoom::new();
    let delegate = room.delegate(Rights::GRANT);
    let seen = room.following(&delegate);
    let to = Delegated { delegate: identity().public().clone(), rights: Rights::GRANT, expires: None, name: None };
    let made = super::super::delegate(&mut rng(), &delegate, &room.state, seen.view(), &to, NOW);
    assert!(matches!(made, Err(BuildError::NotThePatient)));
    let made = withdraw(&mut rng(), &delegate, &room.state, seen.view(), delegate.author_id(), NOW);
    assert!(matches!(made, Err(BuildError::NotThePatient)));
    let made = rotate(&mut rng(), &delegate, &room.state, seen.view(), &identity(), NOW);
    assert!(matches!(made, Err(BuildError::NotThePatient)));
    let seen = room.following(&room.patient);
    let unknown = withdraw(&mut rng(), &room.patient, &room.state, seen.view(), identity().author_id(), NOW);
    assert!(matches!(unknown, Err(BuildError::Usage(_))));
    let event = withdraw(&mut rng(), &room.patient, &room.state, seen.view(), delegate.author_id(), NOW).unwrap();
    room.submit(&room.patient.clone(), vec![event]).unwrap();
    assert!(!room.state.is_delegate(delegate.author_id(), room.now));
}

#[test]
fn history_is_given_by_the_keys_and_only_where_it_is_asked_for() {
    let mut room = TestRoom::new();
    let first = current(&room, Category::Cardiac);
    room.renew(&room.patient.clone());
    let second = current(&room, Category::Cardiac);
    let (plain, historian) = (identity(), identity());
    room.grant(&invitation(&plain, Right::Read, &[Category::Cardiac]));
    room.grant(&Invitation { history: true, ..invitation(&historian, Right::Read, &[Category::Cardiac]) });
    for (who, has_first) in [(&plain, false), (&historian, true)] {
        assert!(opens(&room, who, second));
        assert_eq!(opens(&room, who, first), has_first);
        assert_eq!(may(&room, who.author_id(), Right::Read, first).is_ok(), has_first);
    }
    let seen = room.following(&historian);
    assert_eq!(seen.view().category(first), Some(Category::Cardiac));
    let seen = room.following(&room.patient);
    let to = Invitation { history: true, ..invitation(&plain, Right::Append, &[Category::Cardiac]) };
    let append = grant(&mut rng(), &room.patient, &room.state, seen.view(), &to, room.now);
    assert!(matches!(append, Err(BuildError::Usage(_))));
}

#[test]
fn history_longer_than_a_grant_is_said_to_be_too_much() {
    let mut room = TestRoom::new();
    for _ in 0..8 {
        room.renew(&room.patient.clone());
    }
    let seen = room.following(&room.patient);
    let to = Invitation { history: true, ..invitation(&identity(), Right::Read, Category::ALL) };
    let made = grant(&mut rng(), &room.patient, &room.state, seen.view(), &to, room.now);
    assert!(matches!(made, Err(BuildError::Usage(_))), "{made:?}");
}
