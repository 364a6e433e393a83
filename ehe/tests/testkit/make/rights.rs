//! A4 to A7: the patient's control events.

use ehe::control::{Control, ControlLink, Ending, EpochRecord, Grant, Revoke, Right};
use ehe::id::{AuthorId, EheId, EpochId};
use ehe::identity::Identity;
use ehe::kem::KemPublic;
use ehe::run::{Run, SignedRun};
use ehe::time::{Hour, UnixMs};
use serde_json::json;

use super::Kit;
use super::hostile::sign_again;
use super::identities::bad_kem;
use super::runs::{forged, ledger};
use super::scene::{EPOCH, EPOCH_2, Granted, HOUR_MS, NOW, Scene, hour, with_plain};
use super::world::world;
use crate::value::Cbor;

const FOLDER: &str = "rights";

pub(super) fn cases(kit: &mut Kit) {
    sequence(kit);
    epochs(kit);
    grants(kit);
    revocations(kit);
}

/// A run in the name of an author id, signed with the key of `by`, which is the key that goes with the id.
pub(super) fn sign_as(run: &Run, author: AuthorId, by: &Identity) -> SignedRun {
    let mut signed = Cbor::parse(&run.sign(by).0);
    let mut protected = Cbor::parse(signed.at(0).bytes());
    *protected.at(4) = Cbor::Bytes(author.0.to_vec());
    *signed.at(0) = Cbor::Bytes(protected.to_vec());
    sign_again(&mut signed, b"ehe/1 run", by);
    SignedRun(signed.to_vec())
}

/// One of the patient's control events, made from the scene as it stands and submitted.
pub(super) fn submit(scene: &mut Scene, control: &Control) {
    let event = scene.made(control);
    scene.submit(&world().patient, &[event]);
}

pub(super) fn accept(scene: &mut Scene, control: &Control) -> EheId {
    let event = scene.made(control);
    let id = event.id();
    scene.accept(&world().patient, &[event]);
    id
}

fn sequence(kit: &mut Kit) {
    let other = &world().other;
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A4",
        "strangers-grant",
        "a grant by the gateway, to itself",
        Some(17),
        |scene| {
            let control = scene.grant_record(&world().gateway, Right::Read, |_| {});
            let event = scene.by(&world().gateway, &control);
            scene.submit(&world().gateway, &[event]);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A4",
        "forged-grant",
        "a grant in the patient's name that somebody else signed",
        Some(2),
        |scene| {
            let event = scene.grant(&world().stranger, Right::Read, |_| {});
            let run = scene.run(&world().patient, std::slice::from_ref(&event));
            let signed = forged(&run, &world().patient, &world().stranger);
            scene.step(signed, vec![event.into_event()]);
        },
    );
    for (slug, title, change) in [
        ("skipped", "a control event that leaves a number out", (|link| link.seq += 1) as fn(&mut ControlLink)),
        ("number-again", "a control event with the number of the one before", |link| link.seq -= 1),
        ("other-previous", "a control event that names another as the one before", |link| link.previous.0[0] ^= 1),
    ] {
        ledger(kit, (FOLDER, Granted::Append), "A4", slug, title, Some(20), |scene| {
            change(&mut scene.link);
            let event = scene.grant(other, Right::Append, |_| {});
            scene.submit(&world().patient, &[event]);
        });
    }
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A4",
        "ok-sequence",
        "two control events of one run follow each other",
        None,
        |scene| {
            let first = scene.grant(other, Right::Append, |_| {});
            let second = scene.grant(other, Right::Read, |_| {});
            scene.accept(&world().patient, &[first, second]);
            scene.ask("read", other, EPOCH, hour(), NOW, json!("yes"));
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A4",
        "plain-malformed",
        "a grant whose plain part has an unknown member",
        Some(21),
        |scene| {
            let event = scene.grant(other, Right::Append, |_| {});
            let event = with_plain(&event, |v| v.set(8, Cbor::Int(0)));
            scene.submit(&world().patient, &[event]);
        },
    );
}

fn record(control: Control, change: impl FnOnce(&mut EpochRecord)) -> Control {
    let Control::Epoch(mut record) = control else { panic!() };
    change(&mut record);
    Control::Epoch(record)
}

fn epochs(kit: &mut Kit) {
    let gateway = &world().gateway;
    ledger(
        kit,
        (FOLDER, Granted::Both),
        "A5",
        "ok-continued",
        "a new epoch in which the gateway's grant goes on and the clinician's does not",
        None,
        |scene| {
            let control = scene.epoch(EPOCH_2, Some(EPOCH), vec![scene.append]);
            accept(scene, &control);
            scene.ask("append", gateway, EPOCH_2, hour(), NOW, json!("yes"));
            scene.ask("append", gateway, EPOCH, hour(), NOW, json!("yes"));
            scene.ask("read", &world().clinician, EPOCH_2, hour(), NOW, json!(15));
            scene.ask("read", &world().clinician, EPOCH, hour(), NOW, json!("yes"));
        },
    );
    ledger(kit, (FOLDER, Granted::Append), "A5", "id-again", "an epoch id that the room has", Some(21), |scene| {
        let control = scene.epoch(EPOCH, None, vec![]);
        submit(scene, &control);
    });
    ledger(kit, (FOLDER, Granted::Append), "A5", "id-zero", "an epoch id of zeros", Some(21), |scene| {
        let control = scene.epoch(EpochId::ZERO, None, vec![]);
        submit(scene, &control);
    });
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A5",
        "supersedes-unknown",
        "an epoch that follows one which there is not",
        Some(21),
        |scene| {
            let control = scene.epoch(EPOCH_2, Some(EpochId([1; 16])), vec![]);
            submit(scene, &control);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A5",
        "supersedes-twice",
        "a second epoch that follows the same one",
        Some(21),
        |scene| {
            let control = scene.epoch(EPOCH_2, Some(EPOCH), vec![]);
            accept(scene, &control);
            let control = scene.epoch(EpochId([0xe3; 16]), Some(EPOCH), vec![]);
            submit(scene, &control);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A5",
        "continues-unknown",
        "an epoch that continues a grant which there is not",
        Some(23),
        |scene| {
            let control = scene.epoch(EPOCH_2, Some(EPOCH), vec![EheId([1; 32])]);
            submit(scene, &control);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Read),
        "A5",
        "continues-revoked",
        "an epoch that continues a revoked grant",
        Some(21),
        |scene| {
            let revoke = scene.revoke(scene.read, Ending::Cut);
            scene.accept(&world().patient, &[revoke]);
            let control = scene.epoch(EPOCH_2, Some(EPOCH), vec![scene.read]);
            submit(scene, &control);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A5",
        "continues-from-nowhere",
        "an epoch that follows none and continues a grant",
        Some(21),
        |scene| {
            let control = scene.epoch(EPOCH_2, None, vec![scene.append]);
            submit(scene, &control);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A5",
        "continues-not-covered",
        "an epoch that widens a grant which did not cover the one before",
        Some(21),
        |scene| {
            let control = scene.epoch(EPOCH_2, None, vec![]);
            accept(scene, &control);
            let control = scene.epoch(EpochId([0xe3; 16]), Some(EPOCH_2), vec![scene.append]);
            submit(scene, &control);
        },
    );
    let title = "an epoch that continues a grant twice";
    ledger(kit, (FOLDER, Granted::Append), "A5", "continues-twice", title, Some(21), |scene| {
        let control = scene.epoch(EPOCH_2, Some(EPOCH), vec![scene.append; 2]);
        submit(scene, &control);
    });
    ledger(kit, (FOLDER, Granted::Append), "A5", "group-key", "a group key that is no X-Wing key", Some(22), |scene| {
        let control = scene.epoch(EPOCH_2, None, vec![]);
        let control = record(control, |r| r.group_key = KemPublic::from_slice(&bad_kem()).unwrap());
        submit(scene, &control);
    });
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A11",
        "ok-superseded",
        "a superseded epoch takes content as before: it may have waited in a spool",
        None,
        |scene| {
            let control = scene.epoch(EPOCH_2, Some(EPOCH), vec![scene.append]);
            accept(scene, &control);
            let events = scene.reading(gateway, hour()).both();
            scene.accept(gateway, &events);
        },
    );
}

fn grants(kit: &mut Kit) {
    let other = &world().other;
    let mut case = |slug: &str, title: &str, code: u16, change: &dyn Fn(&mut Grant)| {
        ledger(kit, (FOLDER, Granted::None), "A6", slug, title, Some(code), |scene| {
            let event = scene.grant(other, Right::Read, change);
            scene.submit(&world().patient, &[event]);
        });
    };
    case("no-epoch", "a grant on no epoch", 15, &|g| g.epochs.clear());
    case("epoch-twice", "a grant that names an epoch twice", 21, &|g| g.epochs.push(EPOCH));
    case("unknown-epoch", "a grant on an epoch that the room does not have", 15, &|g| g.epochs.push(EpochId([1; 16])));
    case("to-the-owner", "a grant to the patient", 21, &|g| g.subject = world().patient.public().clone());
    case("hours-reversed", "a grant whose hours end before they begin", 21, &|g| {
        g.from = Some(Hour(10));
        g.until = Some(Hour(9));
    });
    case("hours-empty", "a grant over no hour", 21, &|g| {
        g.from = Some(Hour(10));
        g.until = Some(Hour(10));
    });
    case("subject-key", "a grant to a subject whose encryption key is none", 22, &|g| {
        g.subject.kem = KemPublic::from_slice(&bad_kem()).unwrap();
    });
    ledger(
        kit,
        (FOLDER, Granted::None),
        "A6",
        "right-unknown",
        "a grant of a right that there is not",
        Some(21),
        |scene| {
            let event = scene.grant(other, Right::Read, |_| {});
            let event = with_plain(&event, |v| *v.at(2) = Cbor::Int(9));
            scene.submit(&world().patient, &[event]);
        },
    );
    ledger(kit, (FOLDER, Granted::None), "A6", "ok-bounded", "a grant with hours and an expiry", None, |scene| {
        let event = scene.grant(other, Right::Read, |g| {
            g.from = Some(hour());
            g.until = Some(Hour(hour().0 + 2));
            g.expires = Some(UnixMs(NOW + HOUR_MS));
        });
        scene.accept(&world().patient, &[event]);
        let at = scene.now;
        scene.ask("read", other, EPOCH, hour(), at, json!("yes"));
        scene.ask("read", other, EPOCH, Hour(hour().0 + 1), at, json!("yes"));
        scene.ask("read", other, EPOCH, Hour(hour().0 + 2), at, json!(16));
        scene.ask("read", other, EPOCH, Hour(hour().0 - 1), at, json!(16));
        scene.ask("read", other, EPOCH, hour(), at + HOUR_MS - 1, json!("yes"));
        scene.ask("read", other, EPOCH, hour(), at + HOUR_MS, json!(13));
    });
}

fn revocations(kit: &mut Kit) {
    let revoke = |scene: &mut Scene, grant: EheId, ending: Ending| {
        let event = scene.revoke(grant, ending);
        scene.submit(&world().patient, &[event]);
    };
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A7",
        "unknown-grant",
        "the revocation of a grant that there is not",
        Some(23),
        |scene| {
            revoke(scene, EheId([1; 32]), Ending::Cut);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Read),
        "A7",
        "draining-a-reader",
        "draining is for append grants",
        Some(21),
        |scene| {
            revoke(scene, scene.read, Ending::DrainUntil(UnixMs(NOW + HOUR_MS)));
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A7",
        "lengthened",
        "a later end for a grant that drains",
        Some(21),
        |scene| {
            let event = scene.revoke(scene.append, Ending::DrainUntil(UnixMs(NOW + HOUR_MS)));
            scene.accept(&world().patient, &[event]);
            revoke(scene, scene.append, Ending::DrainUntil(UnixMs(NOW + HOUR_MS + 1)));
        },
    );
    ledger(kit, (FOLDER, Granted::Append), "A7", "revived", "draining for a grant that was cut", Some(21), |scene| {
        let event = scene.revoke(scene.append, Ending::Cut);
        scene.accept(&world().patient, &[event]);
        revoke(scene, scene.append, Ending::DrainUntil(UnixMs(NOW + HOUR_MS)));
    });
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A7",
        "ok-shortened",
        "an end may stay or be shortened, into the past too, to a cut at last",
        None,
        |scene| {
            let drain = |until| Ending::DrainUntil(UnixMs(until));
            for ending in [drain(NOW + 9), drain(NOW + 9), drain(NOW - 1), Ending::Cut, Ending::Cut] {
                let event = scene.revoke(scene.append, ending);
                scene.accept(&world().patient, &[event]);
            }
            scene.ask("append", &world().gateway, EPOCH, hour(), NOW, json!(14));
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A7",
        "ending-unknown",
        "a revocation with an ending that there is not",
        Some(21),
        |scene| {
            let control = Control::Revoke(Revoke { link: scene.link, grant: scene.append, ending: Ending::Cut });
            let event = scene.made(&control);
            let event = with_plain(&event, |v| *v.at(2) = Cbor::Array(vec![Cbor::Int(2)]));
            scene.submit(&world().patient, &[event]);
        },
    );
}
