//! A4, A14, A16, A18: recover and withdraw may name an earlier place, and take the next one all the same.

use ehe::control::{Change, ControlLink, Right, Rights, possession};
use ehe::id::{EheId, Hash};
use ehe::identity::Identity;
use ehe::read::Part;
use serde_json::json;

use super::Kit;
use super::authority::{BARE, FOLDER, accept, delegate, delegated, grant_by, new_keys, new_patient, record, submit_by};
use super::reads::read_part;
use super::recovery::recovering;
use super::runs::ledger;
use super::scene::{EPOCH, NOW, Scene, hour};
use super::world::{person, recovery, world};
use crate::run::ledger::Outcome;

pub(super) fn cases(kit: &mut Kit) {
    withdrawals_and_recoveries(kit);
    late_withdrawals(kit);
    distrust(kit);
    by_id(kit);
}

/// No event of the room.
const OTHER: EheId = EheId([9; 32]);

/// The record of somebody that names this place, where the room's next is another.
fn naming(
    scene: &mut Scene,
    by: &Identity,
    (seq, previous): (u64, EheId),
    change: impl FnOnce(&Scene) -> Change,
) -> Outcome {
    let next = std::mem::replace(&mut scene.link, ControlLink { seq, previous });
    let control = record(scene, change(scene));
    scene.link = next;
    let event = scene.made_by(by, &control);
    scene.submit(by, &[event])
}

/// 1: recovery set; 2: a delegate; 3: a hand-over. The next place is 4.
fn three(scene: &mut Scene) {
    accept(scene, Change::SetRecovery(recovery().public().commitment()));
    accept(scene, delegated(Rights::GRANT, None));
    accept(scene, Change::HandOver);
}

fn withdraw(_: &Scene) -> Change {
    Change::Withdraw(delegate().author_id())
}

fn recover(scene: &Scene) -> Change {
    recovering(scene, |_, _, _| {})
}

fn withdrawals_and_recoveries(kit: &mut Kit) {
    type Make = fn(&Scene) -> Change;
    let (patient, paper) = (world().patient.clone(), recovery());
    for (what, by, make) in [("withdrawal", &patient, withdraw as Make), ("recovery", &paper, recover as Make)] {
        let mut case = |slug: &str, title: &str, place: &dyn Fn(&Scene) -> (u64, EheId), refusal: Option<u16>| {
            let slug = match refusal {
                None => format!("ok-{what}-{slug}"),
                Some(_) => format!("{what}-{slug}"),
            };
            ledger(kit, BARE, "A4", &slug, &format!("a {what} that names {title}"), refusal, |scene| {
                three(scene);
                let place = place(scene);
                naming(scene, by, place, make);
            });
        };
        case("names-place-1", "place 1, whatever stands before it", &|_| (1, OTHER), None);
        case(
            "names-the-last-place",
            "the place before the next, whatever stands before it",
            &|_| (3, EheId::ZERO),
            None,
        );
        case("names-place-0", "place 0, which is room-create's", &|_| (0, EheId::ZERO), Some(20));
        case("after-another-event", "the next place after an event that is not the last", &|_| (4, OTHER), Some(20));
        case("skips-a-place", "a place that is not the room's yet", &|scene| (5, scene.link.previous), Some(20));
    }
    for (slug, title, make) in [
        (
            "rotation-names-an-earlier-place",
            "a rotation that others were quicker than",
            (|scene| Change::Rotate(new_keys().public().clone(), possession(&new_keys(), scene.id, scene.link)))
                as Make,
        ),
        ("delegation-names-an-earlier-place", "a delegation that others were quicker than", |_| {
            delegated(Rights::REVOKE, None)
        }),
    ] {
        ledger(kit, BARE, "A4", slug, title, Some(20), |scene| {
            three(scene);
            naming(scene, &patient, (3, OTHER), make);
        });
    }
    ledger(
        kit,
        BARE,
        "A4",
        "withdrawal-by-a-delegate",
        "a delegate withdraws, naming an earlier place: that it is the owner's to do is asked first",
        Some(17),
        |scene| {
            three(scene);
            naming(scene, &delegate(), (0, OTHER), withdraw);
        },
    );
    ledger(
        kit,
        BARE,
        "A14",
        "possession-of-the-place-taken",
        "a recovery that names an earlier place, with a possession for the place that it takes",
        Some(31),
        |scene| {
            three(scene);
            let next = scene.link;
            naming(scene, &paper, (1, OTHER), |scene| {
                let mut change = recover(scene);
                if let Change::Recover { possession: proof, .. } = &mut change {
                    *proof = possession(&new_keys(), scene.id, next);
                }
                change
            });
        },
    );
}

fn late_withdrawals(kit: &mut Kit) {
    let patient = &world().patient;
    ledger(
        kit,
        BARE,
        "A16",
        "ok-late-ends-the-one-that-replaced-it",
        "a withdrawal from before the delegation was replaced ends the one that there is",
        None,
        |scene| {
            three(scene);
            accept(scene, delegated(Rights::REVOKE, None));
            assert_eq!(naming(scene, patient, (3, OTHER), withdraw), Outcome::Accepted);
        },
    );
    ledger(
        kit,
        BARE,
        "A16",
        "late-unknown",
        "an earlier place, and a delegation that there is not",
        Some(32),
        |scene| {
            three(scene);
            naming(scene, patient, (2, OTHER), |_| Change::Withdraw(world().stranger.author_id()));
        },
    );
    ledger(
        kit,
        BARE,
        "A16",
        "late-twice",
        "an earlier place, and a delegation that was withdrawn",
        Some(32),
        |scene| {
            three(scene);
            accept(scene, Change::Withdraw(delegate().author_id()));
            naming(scene, patient, (2, OTHER), withdraw);
        },
    );
    ledger(
        kit,
        BARE,
        "A16",
        "late-after-a-recovery",
        "an earlier place, and a delegation that a recovery ended",
        Some(32),
        |scene| {
            three(scene);
            let recover = recovering(scene, |_, _, from| *from = Some(2));
            assert_eq!(submit_by(scene, &recovery(), recover), Outcome::Accepted);
            naming(scene, &new_patient(), (3, OTHER), withdraw);
        },
    );
}

/// A recovery to these keys that leaves the paper as it is.
fn again(scene: &Scene, to: &Identity, distrusted_from: u64) -> Change {
    Change::Recover {
        recovery: recovery().public().clone(),
        keys: to.public().clone(),
        possession: possession(to, scene.id, scene.link),
        next: recovery().public().commitment(),
        distrusted_from: Some(distrusted_from),
    }
}

fn distrust(kit: &mut Kit) {
    let paper = recovery();
    ledger(
        kit,
        BARE,
        "A18",
        "ok-distrusted-from-the-place-taken",
        "distrust from the recovery's own place on: of the delegates before it none ends",
        None,
        |scene| {
            three(scene);
            let recover = recovering(scene, |_, _, from| *from = Some(4));
            assert_eq!(submit_by(scene, &paper, recover), Outcome::Accepted);
        },
    );
    let late = |scene: &mut Scene, from: u64| {
        naming(scene, &paper, (1, OTHER), |scene| recovering(scene, |_, _, distrusted| *distrusted = Some(from)))
    };
    ledger(
        kit,
        BARE,
        "A18",
        "ok-late-distrusted-from-the-place-taken",
        "a recovery that names place 1, takes place 4, and distrusts from 4 on",
        None,
        |scene| {
            three(scene);
            assert_eq!(late(scene, 4), Outcome::Accepted);
        },
    );
    ledger(
        kit,
        BARE,
        "A18",
        "late-distrusted-from-after-the-place-taken",
        "a recovery that names place 1, takes place 4, and distrusts from 5 on",
        Some(21),
        |scene| {
            three(scene);
            late(scene, 5);
        },
    );
    ledger(
        kit,
        FOLDER,
        "A18",
        "ok-late-distrusts-what-came-between",
        "a recovery that names a place before the thief's grant, and distrusts from that grant on",
        None,
        |scene| {
            accept(scene, Change::SetRecovery(recovery().public().commitment()));
            assert_eq!(grant_by(scene, &world().patient, &world().gateway, Right::Append, |_| {}), Outcome::Accepted);
            assert_eq!(grant_by(scene, &world().patient, &world().other, Right::Append, |_| {}), Outcome::Accepted);
            assert_eq!(late(scene, 4), Outcome::Accepted);
            scene.ask("append", &world().gateway, EPOCH, hour(), NOW, json!("yes"));
            scene.ask("append", &world().other, EPOCH, hour(), NOW, json!(14));
        },
    );
    ledger(
        kit,
        BARE,
        "A18",
        "ok-the-smallest-stays",
        "three recoveries that distrust from 3, from 2, and from 5 on: of each key the smallest stays",
        None,
        |scene| {
            three(scene);
            for (keys, from) in [("second keys", 3), ("third keys", 2), ("fourth keys", 5)] {
                let recover = again(scene, &person(keys), from);
                assert_eq!(submit_by(scene, &paper, recover), Outcome::Accepted);
            }
        },
    );
}

/// A room whose commitment has the recovery identity's id in its first 16 bytes, and other bytes after them.
fn by_id(kit: &mut Kit) {
    let committed = |scene: &mut Scene| {
        let Hash(mut commitment) = recovery().public().commitment();
        commitment[31] ^= 1;
        accept(scene, Change::SetRecovery(Hash(commitment)));
    };
    ledger(
        kit,
        BARE,
        "D2",
        "ok-control-recovery-by-its-id",
        "an identity whose id is the commitment's first 16 bytes reads the control records, whatever follows them",
        None,
        |scene| {
            committed(scene);
            read_part(scene, &recovery(), Part::Control);
        },
    );
    ledger(
        kit,
        BARE,
        "A4",
        "recovery-by-its-id-alone",
        "a recovery by an identity whose id is the commitment's first 16 bytes, of which the others differ",
        Some(29),
        |scene| {
            committed(scene);
            let change = recover(scene);
            submit_by(scene, &recovery(), change);
        },
    );
    ledger(
        kit,
        FOLDER,
        "A6",
        "to-the-recovery-identity-by-its-id",
        "a grant to whose id is the commitment's first 16 bytes, whatever follows them",
        Some(21),
        |scene| {
            committed(scene);
            grant_by(scene, &world().patient, &recovery(), Right::Read, |_| {});
        },
    );
}
