//! Whose keys and whose word count, one sentence each.

use super::*;
use crate::control::{Authority, Change, Rights, possession};

const NEXT: EpochId = EpochId([2; 16]);
const HOUR_MS: u64 = 3_600_000;

impl World {
    fn identity(&mut self) -> Identity {
        Identity::generate(&mut self.rng)
    }

    fn state(&self) -> &RoomState {
        self.room.as_ref().unwrap()
    }

    fn authority(&self, change: Change) -> Control {
        Control::Authority(Authority { link: self.link(), change, seeds: vec![] })
    }

    /// Submits somebody's control event.
    fn by(&mut self, author: &Identity, control: &Control) -> Result<EheId, Refused> {
        let event = self.event_by(control, author.author_id());
        let id = event.id();
        self.submit(author, &[event]).map(|()| id)
    }

    fn change(&mut self, change: Change) -> Result<EheId, Refused> {
        let record = self.authority(change);
        self.control(&record)
    }

    fn rotation(&self, to: &Identity) -> Change {
        Change::Rotate(to.public().clone(), possession(to, self.id, self.link()))
    }

    /// Rotates to new keys, with which the patient goes on.
    fn rotate(&mut self) -> Identity {
        let new = self.identity();
        let rotation = self.rotation(&new);
        self.change(rotation).unwrap();
        let author = self.patient.author_id();
        std::mem::replace(&mut self.patient, new.acting_as(author))
    }

    fn delegate(&mut self, rights: Rights, expires: Option<UnixMs>) -> Identity {
        let delegate = self.identity();
        self.change(Change::Delegate(delegate.public().clone(), rights, expires)).unwrap();
        delegate
    }

    /// A room that is committed to a recovery identity.
    fn with_recovery() -> (Self, Identity) {
        let mut world = Self::new();
        let recovery = world.identity();
        world.change(Change::SetRecovery(recovery.public().commitment())).unwrap();
        (world, recovery)
    }

    fn recovery(&self, by: &Identity, to: &Identity, next: Hash, distrusted_from: Option<u64>) -> Control {
        self.authority(Change::Recover {
            recovery: by.public().clone(),
            keys: to.public().clone(),
            possession: possession(to, self.id, self.link()),
            next,
            distrusted_from,
        })
    }

    fn granted(&mut self, right: Right) -> (Identity, EheId) {
        let somebody = self.identity();
        let grant = self.grant(&somebody.public().clone(), right);
        let id = self.control(&grant).unwrap();
        (somebody, id)
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Refused>, because: Refusal) {
    match result {
        Err(Refused::Because(why)) => assert_eq!(why, because),
        other => panic!("{other:?} where {because:?} was expected"),
    }
}

#[test]
fn after_a_rotation_the_new_keys_speak_for_the_owner_and_the_old_ones_for_nobody() {
    let mut world = World::new();
    let author = world.patient.author_id();
    let old = world.rotate();
    assert_eq!(world.state().owner, author, "the author id stays");
    assert_ne!(world.patient.public().author_id(), author);
    let grant = world.grant(&world.stranger.public().clone(), Right::Read);
    refused(world.by(&old, &grant), Refusal::BadSignature);
    world.control(&grant).unwrap();
    let events = world.reading(&world.patient.clone(), NOW.hour());
    assert_eq!(world.submit(&world.patient.clone(), &events), Ok(()));
    let events = world.reading(&old, NOW.hour());
    assert_eq!(world.submit(&old, &events), because(Refusal::BadSignature));
    // Under the new keys' own id nobody is the owner: the ledger names the owner by the first keys.
    let own_name = world.patient.acting_as(world.patient.public().author_id());
    let grant = world.grant(&world.gateway.public().clone(), Right::Read);
    refused(world.by(&own_name, &grant), Refusal::NotOwner);
}

#[test]
fn who_reads_is_named_by_the_keys_and_the_owners_former_ones_read_nothing() {
    let mut world = World::new();
    let old = world.rotate();
    let new = world.patient.acting_as(world.patient.public().author_id());
    for part in [Part::Content, Part::Control, Part::Ledger] {
        assert_eq!(world.read(&new, part), Ok(()), "{part:?}");
        assert_eq!(world.read(&old, part), Err(Refusal::KeysReplaced), "{part:?}");
    }
    let state = world.state();
    assert!(state.is_party(new.author_id(), NOW) && !state.is_party(old.author_id(), NOW));
    assert_eq!(state.key_of(old.author_id()), Some(old.public().sign), "old signatures stay verifiable");
    assert!(state.may_bring(new.author_id(), state.owner), "the channel is that of the new keys");
    assert!(!state.may_bring(world.clinician.author_id(), state.owner));
}

#[test]
fn a_rotation_stands_last_in_its_run() {
    let mut world = World::new();
    let (new, patient) = (world.identity(), world.patient.clone());
    let rotation = world.authority(world.rotation(&new));
    let rotation = world.event_by(&rotation, patient.author_id());
    let link = ControlLink { seq: world.link().seq + 1, previous: rotation.id() };
    let hand_over = Control::Authority(Authority { link, change: Change::HandOver, seeds: vec![] });
    let after = world.event_by(&hand_over, patient.author_id());
    assert_eq!(world.submit(&patient, &[rotation.clone(), after.clone()]), because(Refusal::RunMalformed));
    assert_eq!(world.submit(&patient, &[rotation]), Ok(()));
    assert_eq!(world.submit(&patient, std::slice::from_ref(&after)), because(Refusal::BadSignature));
    assert_eq!(world.submit(&new.acting_as(patient.author_id()), &[after]), Ok(()));
}

#[test]
fn keys_rotate_again_and_again_under_one_author_id() {
    let mut world = World::new();
    let author = world.patient.author_id();
    let first = world.rotate();
    let second = world.rotate();
    let grant = world.grant(&world.stranger.public().clone(), Right::Read);
    refused(world.by(&second, &grant), Refusal::BadSignature);
    refused(world.by(&first, &grant), Refusal::BadSignature);
    world.control(&grant).unwrap();
    let from: Vec<u64> = world.state().owner_keys.iter().map(|key| key.from).collect();
    assert_eq!((from, world.state().owner), (vec![0, 4, 5], author));
}

#[test]
fn new_keys_prove_that_they_are_held() {
    let mut world = World::new();
    let (new, other) = (world.identity(), world.identity());
    let elsewhere = ControlLink { seq: 9, ..world.link() };
    for proof in [
        possession(&other, world.id, world.link()),
        possession(&new, RoomId([1; 16]), world.link()),
        possession(&new, world.id, elsewhere),
        vec![],
        vec![0; limits::POSSESSION_MAX_BYTES + 1],
    ] {
        refused(world.change(Change::Rotate(new.public().clone(), proof)), Refusal::NotPossessed);
    }
    let rotation = world.rotation(&new);
    world.change(rotation).unwrap();
}

#[test]
fn keys_that_are_somebody_elses_or_were_replaced_do_not_become_the_owners() {
    let (mut world, recovery) = World::with_recovery();
    let delegate = world.delegate(Rights::GRANT, None);
    let first = world.rotate();
    let (gateway, patient) = (world.gateway.clone(), world.patient.acting_as(world.patient.public().author_id()));
    for taken in [&gateway, &delegate, &recovery, &first, &patient] {
        let rotation = world.rotation(taken);
        refused(world.change(rotation), Refusal::ControlMalformed);
    }
    let new = world.identity();
    let broken = PublicIdentity {
        sign: new.public().sign,
        kem: kem::KemPublic::from_slice(&[0xff; kem::KEM_PUBLIC_LEN]).unwrap(),
    };
    refused(world.change(Change::Rotate(broken.clone(), vec![])), Refusal::BadKey);
    refused(world.change(Change::Delegate(broken, Rights::GRANT, None)), Refusal::BadKey);
}

#[test]
fn the_owners_keys_the_recovery_identity_and_everybody_else_are_different_people() {
    let (mut world, recovery) = World::with_recovery();
    let first = world.rotate();
    for taken in [recovery.public(), first.public(), &world.patient.public().clone()] {
        let grant = world.grant(taken, Right::Read);
        refused(world.control(&grant), Refusal::ControlMalformed);
        refused(world.change(Change::Delegate(taken.clone(), Rights::GRANT, None)), Refusal::ControlMalformed);
    }
    let mut world = World::new();
    let (gateway, patient) = (world.gateway.public().commitment(), world.patient.public().commitment());
    for taken in [gateway, patient] {
        refused(world.change(Change::SetRecovery(taken)), Refusal::ControlMalformed);
    }
    let mut world = World::empty();
    let create = RoomCreate { recovery: world.patient.public().commitment(), ..world.create() };
    world.id = create.room_id();
    refused(world.control(&Control::RoomCreate(create)), Refusal::ControlMalformed);
}

#[test]
fn a_delegate_does_what_was_delegated_and_nothing_else() {
    let mut world = World::new();
    let reader = world.clinician.clone();
    for (rights, may) in
        [(Rights::GRANT, [true, false, false]), (Rights::REVOKE.and(Rights::EPOCH), [false, true, true])]
    {
        let delegate = world.delegate(rights, None);
        let (somebody, id) = world.granted(Right::Append);
        let new = world.identity();
        let grant = world.grant(&new.public().clone(), Right::Append);
        let revoke = Control::Revoke(Revoke { link: world.link(), grant: id, ending: Ending::Cut });
        let epoch = world.epoch(NEXT, None, vec![]);
        for (n, control) in [grant, revoke, epoch].into_iter().enumerate() {
            let control = world.relinked(control);
            let done = world.by(&delegate, &control);
            if may[n] { assert!(done.is_ok(), "{done:?}") } else { refused(done, Refusal::NotDelegated) }
        }
        let ended = world.state().grants[&id].ended.is_some();
        assert_eq!(ended, may[1], "{:?}", somebody.author_id());
        for change in [
            Change::Delegate(reader.public().clone(), Rights::GRANT, None),
            Change::Withdraw(delegate.author_id()),
            Change::HandOver,
            Change::SetRecovery(Hash([7; 32])),
            world.rotation(&new),
        ] {
            let record = world.authority(change);
            refused(world.by(&delegate, &record), Refusal::NotOwner);
        }
        assert_eq!(world.read(&delegate, Part::Control), Ok(()));
        assert_eq!(world.read(&delegate, Part::Ledger), Err(Refusal::NotOwner));
        assert_eq!(world.read(&delegate, Part::Content), Err(Refusal::NotInvited));
    }
}

impl World {
    fn relinked(&self, control: Control) -> Control {
        match control {
            Control::Grant(grant) => Control::Grant(Grant { link: self.link(), ..grant }),
            Control::Revoke(revoke) => Control::Revoke(Revoke { link: self.link(), ..revoke }),
            Control::Epoch(epoch) => Control::Epoch(EpochRecord { link: self.link(), ..epoch }),
            other => other,
        }
    }
}

#[test]
fn a_delegates_epoch_continues_grants_as_the_owners_does() {
    let mut world = World::new();
    let delegate = world.delegate(Rights::EPOCH, None);
    let gateway = world.grant_of(&world.gateway);
    let epoch = world.epoch(NEXT, Some(EPOCH), vec![gateway]);
    world.by(&delegate, &epoch).unwrap();
    let room = world.state();
    assert_eq!(room.may(world.gateway.author_id(), Right::Append, NEXT, None, NOW), Ok(()));
    assert_eq!(room.next_control, 6, "one sequence for all who make control events");
}

#[test]
fn a_delegation_ends_with_its_time_or_its_withdrawal_and_a_second_record_replaces_the_first() {
    let mut world = World::new();
    let delegate = world.delegate(Rights::GRANT, Some(NOW.plus_ms(1000)));
    let guest = world.identity().public().clone();
    let grant = world.grant(&guest, Right::Append);
    world.by(&delegate, &grant).unwrap();
    world.now = NOW.plus_ms(1000);
    let grant = world.grant(&guest, Right::Append);
    refused(world.by(&delegate, &grant), Refusal::DelegationEnded);
    assert_eq!(world.read(&delegate, Part::Control), Err(Refusal::DelegationEnded));

    world.change(Change::Delegate(delegate.public().clone(), Rights::REVOKE, None)).unwrap();
    let grant = world.grant(&guest, Right::Append);
    refused(world.by(&delegate, &grant), Refusal::NotDelegated);
    let revoke = world.revoke(&world.gateway, Ending::Cut);
    world.by(&delegate, &revoke).unwrap();

    world.change(Change::Withdraw(delegate.author_id())).unwrap();
    let revoke = world.revoke(&world.clinician, Ending::Cut);
    refused(world.by(&delegate, &revoke), Refusal::DelegationEnded);
    refused(world.change(Change::Withdraw(delegate.author_id())), Refusal::DelegationUnknown);
    refused(world.change(Change::Withdraw(world.stranger.author_id())), Refusal::DelegationUnknown);
    let events = world.state().grants.values().filter(|g| g.subject == guest.author_id()).count();
    assert_eq!(events, 1, "what the delegate granted while it could stays");
}

#[test]
fn a_delegate_lets_nobody_read_more_than_it_may_read_itself() {
    let mut world = World::new();
    let hour = NOW.hour();
    let (from, until, expires) = (Hour(hour.0 - 5), Hour(hour.0 + 5), NOW.plus_ms(HOUR_MS));
    let delegate = world.delegate(Rights::GRANT, None);
    let guest = world.identity().public().clone();
    let Control::Grant(bare) = world.grant(&guest, Right::Read) else { unreachable!() };
    let with = |world: &World, from: Option<Hour>, until: Option<Hour>, expires: Option<UnixMs>| {
        Control::Grant(Grant { link: world.link(), from, until, expires, ..bare.clone() })
    };
    let inside = (Some(from), Some(until), Some(expires));
    let grant = with(&world, inside.0, inside.1, inside.2);
    refused(world.by(&delegate, &grant), Refusal::BeyondOwnRights);

    let own = Control::Grant(Grant {
        subject: delegate.public().clone(),
        ..match with(&world, inside.0, inside.1, inside.2) {
            Control::Grant(grant) => grant,
            _ => unreachable!(),
        }
    });
    let own = world.control(&own).unwrap();
    for (from, until, expires) in [
        (None, inside.1, inside.2),
        (Some(Hour(from.0 - 1)), inside.1, inside.2),
        (inside.0, None, inside.2),
        (inside.0, Some(Hour(until.0 + 1)), inside.2),
        (inside.0, inside.1, None),
        (inside.0, inside.1, Some(expires.plus_ms(1))),
    ] {
        let grant = with(&world, from, until, expires);
        refused(world.by(&delegate, &grant), Refusal::BeyondOwnRights);
    }
    let grant = with(&world, inside.0, inside.1, inside.2);
    world.by(&delegate, &grant).unwrap();
    let narrower = with(&world, Some(hour), inside.1, Some(NOW.plus_ms(1)));
    world.by(&delegate, &narrower).unwrap();

    // Another epoch is not covered, an append grant needs no cover, an ended grant covers nothing.
    let epoch = world.epoch(NEXT, None, vec![]);
    world.control(&epoch).unwrap();
    let Control::Grant(two) = with(&world, inside.0, inside.1, inside.2) else { unreachable!() };
    let two = Control::Grant(Grant { epochs: vec![EPOCH, NEXT], ..two });
    refused(world.by(&delegate, &two), Refusal::BeyondOwnRights);
    let append = world.grant(&guest, Right::Append);
    world.by(&delegate, &append).unwrap();
    let revoke = Control::Revoke(Revoke { link: world.link(), grant: own, ending: Ending::Cut });
    world.control(&revoke).unwrap();
    let grant = with(&world, inside.0, inside.1, inside.2);
    refused(world.by(&delegate, &grant), Refusal::BeyondOwnRights);
}

#[test]
fn an_append_grant_is_no_cover_for_reading() {
    let mut world = World::new();
    let delegate = world.delegate(Rights::GRANT, None);
    let own = world.grant(&delegate.public().clone(), Right::Append);
    world.control(&own).unwrap();
    let guest = world.identity().public().clone();
    let grant = world.grant(&guest, Right::Read);
    refused(world.by(&delegate, &grant), Refusal::BeyondOwnRights);
}

#[test]
fn a_recovery_key_is_set_where_there_is_none_and_replaced_by_itself_alone() {
    let (mut world, recovery) = World::with_recovery();
    refused(world.change(Change::SetRecovery(Hash([7; 32]))), Refusal::RecoverySet);
    let (keys, next) = (world.identity(), world.identity());
    let recover = world.recovery(&recovery, &keys, next.public().commitment(), None);
    world.by(&recovery, &recover).unwrap();
    world.patient = keys.acting_as(world.patient.author_id());
    refused(world.change(Change::SetRecovery(Hash([7; 32]))), Refusal::RecoverySet);
    let again = world.recovery(&recovery, &world.stranger, Hash::ZERO, None);
    refused(world.by(&recovery, &again), Refusal::NotRecovery);
    let keys = world.identity();
    let recover = world.recovery(&next, &keys, Hash::ZERO, None);
    world.by(&next, &recover).unwrap();
    world.patient = keys.acting_as(world.patient.author_id());
    refused(world.change(Change::SetRecovery(Hash::ZERO)), Refusal::ControlMalformed);
    world.change(Change::SetRecovery(recovery.public().commitment())).unwrap();

    let mut world = World::empty();
    let recovery = world.identity();
    let create = RoomCreate { recovery: recovery.public().commitment(), ..world.create() };
    world.id = create.room_id();
    world.control(&Control::RoomCreate(create)).unwrap();
    refused(world.change(Change::SetRecovery(Hash([7; 32]))), Refusal::RecoverySet);
}

#[test]
fn only_the_recovery_identity_recovers_and_it_can_do_nothing_else() {
    let (mut world, recovery) = World::with_recovery();
    let keys = world.identity();
    let recover = world.recovery(&recovery, &keys, Hash::ZERO, None);
    let (patient, clinician, stranger) = (world.patient.clone(), world.clinician.clone(), world.stranger.clone());
    // In the name of the recovery identity, but not by it; by another identity that calls itself one.
    refused(world.by(&patient, &recover), Refusal::NotRecovery);
    refused(world.by(&clinician, &recover), Refusal::NotRecovery);
    refused(world.by(&stranger, &recover), Refusal::NotInvited);
    let forged = stranger.acting_as(recovery.author_id());
    refused(world.by(&forged, &recover), Refusal::BadSignature);
    let own = world.recovery(&stranger, &keys, Hash::ZERO, None);
    refused(world.by(&stranger, &own), Refusal::NotRecovery);
    let half = PublicIdentity { sign: recovery.public().sign, kem: stranger.public().kem.clone() };
    let Control::Authority(mut record) = recover.clone() else { unreachable!() };
    if let Change::Recover { recovery, .. } = &mut record.change {
        *recovery = half;
    }
    refused(world.by(&recovery, &Control::Authority(record)), Refusal::NotInvited);

    let grant = world.grant(&stranger.public().clone(), Right::Read);
    refused(world.by(&recovery, &grant), Refusal::NotInvited);
    let events = [world.event_by(&recover, recovery.author_id()), world.event_by(&grant, recovery.author_id())];
    assert_eq!(world.submit(&recovery, &events), because(Refusal::RunMalformed), "not even in one run with its record");
    assert_eq!(world.read(&recovery, Part::Control), Ok(()), "it needs the records to make its own");
    assert_eq!(world.read(&recovery, Part::Content), Err(Refusal::NotInvited));
    assert_eq!(world.read(&recovery, Part::Ledger), Err(Refusal::NotInvited));
    world.by(&recovery, &recover).unwrap();
    assert!(world.state().has_owners_keys(keys.author_id()));
    assert_eq!(world.read(&recovery, Part::Control), Err(Refusal::NotInvited), "its task is done");
}

#[test]
fn a_room_without_a_recovery_key_is_recovered_by_nobody() {
    let mut world = World::new();
    let (keys, recovery) = (world.identity(), world.identity());
    let recover = world.recovery(&recovery, &keys, Hash::ZERO, None);
    refused(world.by(&recovery, &recover), Refusal::NotRecovery);
    assert!(!world.state().is_recovery(AuthorId([0; 16])), "no commitment is nobody's");
}

#[test]
fn what_distrusted_keys_gave_ends_with_the_recovery_and_what_they_took_away_stays_away() {
    let (mut world, recovery) = World::with_recovery();
    let before = world.granted(Right::Read);
    let helper = world.delegate(Rights::GRANT, None);
    let drained = world.granted(Right::Append);
    let theft = world.state().next_control;
    // The thief invites, delegates, revokes, publishes a key and rotates.
    let during = world.granted(Right::Append);
    let draining = Ending::DrainUntil(NOW.plus_ms(HOUR_MS));
    let revoke = Control::Revoke(Revoke { link: world.link(), grant: drained.1, ending: draining });
    world.control(&revoke).unwrap();
    let accomplice = world.delegate(Rights::GRANT.and(Rights::REVOKE), None);
    let epoch = world.epoch(NEXT, Some(EPOCH), vec![before.1]);
    world.control(&epoch).unwrap();
    world.rotate();
    let thief = world.rotate();

    let keys = world.identity();
    for at in [0, world.state().next_control + 1] {
        let recover = world.recovery(&recovery, &keys, Hash::ZERO, Some(at));
        refused(world.by(&recovery, &recover), Refusal::ControlMalformed);
    }
    world.now = NOW.plus_ms(10);
    let recover = world.recovery(&recovery, &keys, Hash::ZERO, Some(theft));
    world.by(&recovery, &recover).unwrap();
    world.patient = keys.acting_as(world.patient.author_id());

    let room = world.state().clone();
    let may = |who: &Identity, right| room.may(who.author_id(), right, EPOCH, Some(NOW.hour()), world.now);
    assert_eq!(may(&before.0, Right::Read), Ok(()));
    assert_eq!(may(&during.0, Right::Append), Err(Refusal::GrantRevoked));
    let cut = |ending, at| Some(GrantEnd { at, ending });
    assert_eq!(room.grants[&during.1].ended, cut(Ending::Cut, world.now));
    assert_eq!(room.grants[&drained.1].ended, cut(draining, NOW), "revocations stay as they were");
    assert!(room.is_delegate(helper.author_id(), world.now) && !room.is_delegate(accomplice.author_id(), world.now));
    // What waits in spools for the thief's epoch is still taken (A11).
    assert!(room.epochs.contains_key(&NEXT));
    refused(world.by(&thief, &world.grant(&world.stranger.public().clone(), Right::Read)), Refusal::BadSignature);
    let grant = world.grant(&world.stranger.public().clone(), Right::Read);
    world.control(&grant).unwrap();

    // Everything signed by those keys from then on can be shown as such, and nothing else.
    let distrusted: Vec<_> = room.owner_keys.iter().map(|key| key.distrusted_from).collect();
    assert_eq!(distrusted, [Some(theft), Some(theft), Some(theft), None]);
    assert!(!room.distrusts(theft, theft) && room.distrusts(theft, theft + 1) && room.distrusts(theft + 1, theft + 1));
    let recovered = room.next_control;
    assert!(room.distrusts(recovered - 1, recovered - 1) && !room.distrusts(recovered, recovered));
}

#[test]
fn keys_that_were_replaced_before_the_theft_stay_trusted() {
    let (mut world, recovery) = World::with_recovery();
    world.rotate();
    let theft = world.state().next_control;
    let keys = world.identity();
    let recover = world.recovery(&recovery, &keys, Hash::ZERO, Some(theft));
    world.by(&recovery, &recover).unwrap();
    let room = world.state();
    let distrusted: Vec<_> = room.owner_keys.iter().map(|key| key.distrusted_from).collect();
    assert_eq!(distrusted, [None, Some(theft), None]);
    assert!(!room.distrusts(2, 2) && !room.distrusts(theft, theft));
}

#[test]
fn a_draining_grant_that_the_thief_made_is_cut() {
    let (mut world, recovery) = World::with_recovery();
    let theft = world.state().next_control;
    let (gateway, id) = world.granted(Right::Append);
    let ending = Ending::DrainUntil(NOW.plus_ms(HOUR_MS));
    let revoke = Control::Revoke(Revoke { link: world.link(), grant: id, ending });
    world.control(&revoke).unwrap();
    let keys = world.identity();
    let recover = world.recovery(&recovery, &keys, Hash::ZERO, Some(theft));
    world.by(&recovery, &recover).unwrap();
    assert_eq!(world.state().grants[&id].ended, Some(GrantEnd { at: NOW, ending: Ending::Cut }));
    let events = world.reading(&gateway, NOW.hour());
    assert_eq!(world.submit(&gateway, &events), because(Refusal::GrantRevoked));
}

#[test]
fn a_recovery_because_of_loss_ends_nothing() {
    let (mut world, recovery) = World::with_recovery();
    let keys = world.identity();
    let recover = world.recovery(&recovery, &keys, Hash::ZERO, None);
    world.by(&recovery, &recover).unwrap();
    assert!(world.state().grants.values().all(|grant| grant.ended.is_none()));
    assert!(world.state().owner_keys.iter().all(|key| key.distrusted_from.is_none()));
}

#[test]
fn the_recovery_key_does_not_become_the_owners_and_new_keys_prove_that_they_are_held() {
    let (mut world, recovery) = World::with_recovery();
    let recover = world.recovery(&recovery, &recovery, Hash::ZERO, None);
    refused(world.by(&recovery, &recover), Refusal::ControlMalformed);
    let keys = world.identity();
    let Control::Authority(mut record) = world.recovery(&recovery, &keys, Hash::ZERO, None) else { unreachable!() };
    if let Change::Recover { possession: proof, .. } = &mut record.change {
        *proof = possession(&world.stranger, world.id, record.link);
    }
    refused(world.by(&recovery, &Control::Authority(record)), Refusal::NotPossessed);
    let recover = world.recovery(&recovery, &keys, keys.public().commitment(), None);
    refused(world.by(&recovery, &recover), Refusal::ControlMalformed);
}

#[test]
fn however_often_a_thief_rotates_recovery_has_room_left() {
    let (mut world, recovery) = World::with_recovery();
    let some = world.state().owner_keys[0].clone();
    let fill = |world: &mut World, most| {
        let keys = &mut world.room.as_mut().unwrap().owner_keys;
        while keys.len() < most {
            let n = u8::try_from(keys.len() % 251).unwrap();
            keys.insert(1, OwnerKey { id: AuthorId([n; 16]), ..some.clone() });
        }
    };
    fill(&mut world, limits::OWNER_KEYS_BY_ROTATION_MAX);
    world.room.as_mut().unwrap().owner_keys.swap(0, limits::OWNER_KEYS_BY_ROTATION_MAX - 1);
    let keys = world.identity();
    let rotation = world.rotation(&keys);
    refused(world.change(rotation), Refusal::LimitReached);
    let recover = world.recovery(&recovery, &keys, recovery.public().commitment(), None);
    world.by(&recovery, &recover).unwrap();
    fill(&mut world, limits::OWNER_KEYS_PER_ROOM_MAX);
    let keys = world.identity();
    let recover = world.recovery(&recovery, &keys, Hash::ZERO, None);
    refused(world.by(&recovery, &recover), Refusal::LimitReached);
}

#[test]
fn a_room_holds_no_more_delegations_than_its_limit_and_a_known_delegate_still_gets_another() {
    let mut world = World::new();
    let delegate = world.delegate(Rights::GRANT, None);
    let one = world.state().delegations[&delegate.author_id()].clone();
    for n in 1..limits::DELEGATIONS_PER_ROOM_MAX {
        let id = AuthorId([u8::try_from(n).unwrap(); 16]);
        world.room.as_mut().unwrap().delegations.insert(id, one.clone());
    }
    let new = world.identity().public().clone();
    refused(world.change(Change::Delegate(new, Rights::GRANT, None)), Refusal::LimitReached);
    world.change(Change::Delegate(delegate.public().clone(), Rights::EPOCH, None)).unwrap();
    let seeds = World::new().seeds(limits::WRAPS_PER_CONTROL_MAX + 1);
    let many = Control::Authority(Authority { link: world.link(), change: Change::HandOver, seeds });
    refused(world.control(&many), Refusal::LimitReached);
}

impl World {
    fn seeds(&mut self, count: usize) -> Vec<SeedWrap> {
        let patient = self.patient.clone();
        let seed = SeedWrap::make(&mut self.rng, self.id, EPOCH, patient.party(), self.group.seed()).unwrap();
        vec![seed; count]
    }
}

#[test]
fn seeds_and_sealed_parts_reach_the_owners_new_keys_under_the_old_author_id() {
    let mut world = World::new();
    let old = world.rotate();
    let patient = world.patient.clone();
    let seed = SeedWrap::make(&mut world.rng, world.id, EPOCH, patient.party(), world.group.seed()).unwrap();
    assert_eq!(seed.recipient, old.author_id());
    assert_eq!(seed.open(&patient, world.id).as_deref(), Ok(&**world.group.seed()));
    assert!(seed.open(&old, world.id).is_err());
    let own_name = patient.acting_as(patient.public().author_id());
    assert!(seed.open(&own_name, world.id).is_err(), "the author id is bound");
    let private = Private { recovery: Some(world.stranger.public().clone()), ..Private::default() };
    let record = world.authority(Change::HandOver);
    let sealed = Some((&private, &[patient.party()][..]));
    let event = record.event(&mut world.rng, world.id, patient.author_id(), NOW, sealed).unwrap();
    assert_eq!(Private::open(&event, &patient), Ok(Some(private)));
    assert!(Private::open(&event, &old).is_err());
}

#[test]
fn a_state_of_another_version_is_told_from_a_damaged_one() {
    let world = World::new();
    let bytes = crate::cbor::to_vec(world.state());
    let limit = 1 << 20;
    assert_eq!(RoomState::decode(&bytes, limit).as_ref(), Ok(world.state()));
    let mut old = bytes.clone();
    assert_eq!((old[1], old[2]), (0, RoomState::VERSION));
    old[2] = 1;
    assert_eq!(RoomState::decode(&old, limit), Err(StateError::Version(1)));
    assert!(matches!(RoomState::decode(&bytes[..bytes.len() - 1], limit), Err(StateError::Cbor(_))));
    assert!(matches!(RoomState::decode(&bytes, 8), Err(StateError::Cbor(_))));
}

#[test]
fn who_writes_without_a_pause_keeps_out_neither_recovery_nor_a_withdrawal() {
    let (mut world, recovery) = World::with_recovery();
    let delegate = world.delegate(Rights::REVOKE, None);
    let new = world.identity();
    // Made at this place; then a thief and the delegate are quicker.
    let recover = world.recovery(&recovery, &new, Hash::ZERO, Some(world.state().next_control));
    let withdraw = world.authority(Change::Withdraw(delegate.author_id()));
    let late = world.grant(&world.stranger.public().clone(), Right::Read);
    for _ in 0..20 {
        world.change(Change::HandOver).unwrap();
        let again = world.revoke(&world.clinician.clone(), Ending::Cut);
        world.by(&delegate, &again).unwrap();
    }
    refused(world.control(&late), Refusal::ControlOutOfSequence);
    world.control(&withdraw).unwrap();
    let before = world.state().next_control;
    world.by(&recovery, &recover).unwrap();
    let keys = world.state().owner_key().unwrap();
    assert_eq!(
        (keys.id, keys.from),
        (new.public().author_id(), before),
        "the place that it takes, not the one it names"
    );
    // No place that the room never had.
    let mut ahead = world.authority(Change::Withdraw(delegate.author_id()));
    for seq in [0, world.state().next_control + 1] {
        if let Control::Authority(record) = &mut ahead {
            record.link.seq = seq;
        }
        world.patient = new.acting_as(world.state().owner);
        refused(world.control(&ahead), Refusal::ControlOutOfSequence);
    }
}
