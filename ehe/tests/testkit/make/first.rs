//! Which of several refusals is heard (SPEC 8): A5's order, a control event's form, R4 before A3.

use ehe::control::{Change, Control, Ending};
use ehe::event::CheckedEvent;
use ehe::id::{EheId, EpochId, RoomId};

use super::Kit;
use super::authority::record;
use super::limits::with_parties;
use super::recovery::recovering;
use super::runs::ledger;
use super::scene::{EPOCH, EPOCH_2, Granted, Scene, create, with_plain};
use super::world::{recovery, world};
use crate::value::Cbor;

pub(super) fn cases(kit: &mut Kit) {
    epochs(kit);
    forms(kit);
    rooms(kit);
}

const UNKNOWN: EheId = EheId([9; 32]);

fn epochs(kit: &mut Kit) {
    type Make = fn(EheId, EheId) -> (EpochId, Option<EpochId>, Vec<EheId>);
    let cases: [(&str, &str, u16, Make); 5] = [
        ("superseded-before-grants", "an unknown superseded epoch, and an unknown grant", 21, |_, _| {
            (EPOCH_2, Some(EpochId([9; 16])), vec![UNKNOWN])
        }),
        ("id-before-grants", "an epoch that there is, and an unknown grant", 21, |_, _| {
            (EPOCH, Some(EPOCH), vec![UNKNOWN])
        }),
        ("repeated-before-unknown", "an unknown grant, named twice", 21, |_, _| {
            (EPOCH_2, Some(EPOCH), vec![UNKNOWN, UNKNOWN])
        }),
        ("unknown-then-revoked", "first a grant that there is not, then one that was revoked", 23, |revoked, _| {
            (EPOCH_2, Some(EPOCH), vec![UNKNOWN, revoked])
        }),
        ("revoked-then-unknown", "first a grant that was revoked, then one that there is not", 21, |revoked, live| {
            (EPOCH_2, Some(EPOCH), vec![live, revoked, UNKNOWN])
        }),
    ];
    for (slug, title, refusal, make) in cases {
        ledger(kit, ("rights", Granted::Both), "A5", slug, title, Some(refusal), |scene| {
            let revoke = scene.revoke(scene.append, Ending::Cut);
            scene.accept(&world().patient, &[revoke]);
            let (epoch, supersedes, continues) = make(scene.append, scene.read);
            let epoch = scene.epoch(epoch, supersedes, continues);
            super::rights::submit(scene, &epoch);
        });
    }
}

/// A control event whose plain part has a member that its kind does not have.
fn malformed(event: &CheckedEvent) -> CheckedEvent {
    with_plain(event, |plain| plain.set(9, Cbor::Int(0)))
}

fn forms(kit: &mut Kit) {
    let patient = &world().patient;
    let mut case = |slug: &str, title: &str, refusal: u16, make: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::room(Granted::Bare);
        make(&mut scene);
        kit.case("authority", "A12", slug, title, "ledger").input(super::limits::input(scene)).refused(refusal);
    };
    case("part-keys-before-plain", "161 PartKeys beside a plain part that is malformed", 24, &|scene| {
        let control = record(scene, Change::HandOver);
        let event = malformed(&scene.made(&control));
        scene.submit(patient, &[with_parties(&event, 161)]);
    });
    case("plain-before-continues", "a plain part that is malformed, with 161 continued grants", 21, &|scene| {
        let epoch = scene.epoch(EPOCH, None, vec![UNKNOWN; 161]);
        let event = malformed(&scene.made(&epoch));
        scene.submit(patient, &[event]);
    });
    case("part-keys-before-created-twice", "a second room-create for a room, with 161 PartKeys", 24, &|scene| {
        let event = scene.made(&Control::RoomCreate(create()));
        scene.submit(patient, &[with_parties(&event, 161)]);
    });
    let title = "a recovery with 161 PartKeys, which is not well formed: nobody is known by its author's name";
    case("part-keys-of-a-recovery", title, 12, &|scene| {
        super::authority::accept(scene, Change::SetRecovery(recovery().public().commitment()));
        let control = record(scene, recovering(scene, |_, _, _| {}));
        let event = scene.made_by(&recovery(), &control);
        scene.submit(&recovery(), &[with_parties(&event, 161)]);
    });
}

/// In a room that there is: room-create for another alliance, by another owner whose encryption key is none, of another room.
fn second(kit: &mut Kit, mut scene: Scene) {
    let mut other = create();
    other.alliance.0[0] ^= 1;
    other.owner = world().other.public().clone();
    other.owner.kem = ehe::kem::KemPublic::from_slice(&super::identities::bad_kem()).unwrap();
    let event = scene.by(&world().patient, &Control::RoomCreate(other));
    scene.submit(&world().patient, &[event]);
    let title = "a second room-create with another plain part: that the room is there is asked before what it says";
    kit.case("run", "A3", "second-before-what-it-says", title, "ledger").input(scene.input()).refused(11);
}

fn rooms(kit: &mut Kit) {
    let patient = &world().patient;
    let mut scene = Scene::empty();
    let event = scene.made(&Control::RoomCreate(create()));
    scene.submit(patient, &[with_parties(&event, 161)]);
    let title =
        "room-create with 161 PartKeys, for a room that is not there: it is not well formed, which is asked first";
    kit.case("run", "A12", "part-keys-of-room-create", title, "ledger").input(super::limits::input(scene)).refused(21);

    let mut scene = Scene::empty();
    let event = scene.made(&Control::RoomCreate(create()));
    scene.accept(patient, std::slice::from_ref(&event));
    second(kit, scene.clone());
    scene.id = RoomId([7; 16]);
    scene.submit(patient, &[event]);
    let title =
        "a room's room-create in a run for another room of the shard: that it is committed is asked before whose it is";
    kit.case("run", "R4", "create-for-another-room", title, "ledger").input(scene.input()).invalid();
}
