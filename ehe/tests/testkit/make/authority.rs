//! A4, A14 to A16, A19, A20, D0: whose keys and whose word count.

use ehe::control::{Authority, Change, Control, Ending, Grant, Right, Rights, possession};
use ehe::id::AuthorId;
use ehe::identity::{Identity, PublicIdentity};
use ehe::kem::KemPublic;
use ehe::read::Part;
use ehe::time::{Hour, UnixMs};
use serde_json::json;

use super::Kit;
use super::identities::bad_kem;
use super::reads::read_part;
use super::runs::ledger;
use super::scene::{EPOCH, EPOCH_2, Granted, HOUR_MS, NOW, Scene, hour, with_plain};
use super::world::{person, recovery, world};
use crate::run::ledger::Outcome;
use crate::value::Cbor;

pub(super) const FOLDER: (&str, Granted) = ("authority", Granted::None);

/// Room-create alone, for what needs no epoch.
pub(super) const BARE: (&str, Granted) = ("authority", Granted::Bare);

pub(super) const APPEND: (&str, Granted) = ("authority", Granted::Append);

pub(super) fn cases(kit: &mut Kit) {
    whose_word(kit);
    rotations(kit);
    delegations(kit);
    delegates(kit);
    readers(kit);
}

pub(super) fn record(scene: &Scene, change: Change) -> Control {
    Control::Authority(Authority { link: scene.link, change, seeds: vec![] })
}

/// The patient's authority record, submitted.
pub(super) fn submit(scene: &mut Scene, change: Change) -> Outcome {
    submit_by(scene, &world().patient, change)
}

pub(super) fn submit_by(scene: &mut Scene, author: &Identity, change: Change) -> Outcome {
    let control = record(scene, change);
    let event = scene.made_by(author, &control);
    scene.submit(author, &[event])
}

pub(super) fn accept(scene: &mut Scene, change: Change) {
    assert_eq!(submit(scene, change), Outcome::Accepted);
}

pub(super) fn grant_by(
    scene: &mut Scene,
    author: &Identity,
    to: &Identity,
    right: Right,
    change: impl FnOnce(&mut Grant),
) -> Outcome {
    let control = scene.grant_record(to, right, change);
    let event = scene.made_by(author, &control);
    scene.submit(author, &[event])
}

/// The keys that the patient rotates to, under their own id and in the patient's name.
pub(super) fn new_keys() -> Identity {
    person("patient's new keys")
}

pub(super) fn new_patient() -> Identity {
    new_keys().acting_as(world().patient.author_id())
}

fn rotation(scene: &Scene, to: &Identity) -> Change {
    Change::Rotate(to.public().clone(), possession(to, scene.id, scene.link))
}

pub(super) fn delegate() -> Identity {
    person("delegate")
}

pub(super) fn delegated(rights: Rights, expires: Option<UnixMs>) -> Change {
    Change::Delegate(delegate().public().clone(), rights, expires)
}

fn whose_word(kit: &mut Kit) {
    ledger(kit, BARE, "A4", "rotation-by-a-delegate", "a delegate rotates the owner's keys", Some(17), |scene| {
        accept(scene, delegated(Rights::GRANT.and(Rights::REVOKE).and(Rights::EPOCH), None));
        let rotation = rotation(scene, &new_keys());
        submit_by(scene, &delegate(), rotation);
    });
    ledger(kit, APPEND, "A4", "delegation-by-a-gateway", "a gateway delegates", Some(17), |scene| {
        submit_by(scene, &world().gateway, delegated(Rights::GRANT, None));
    });
    ledger(kit, FOLDER, "A4", "not-delegated", "a delegate who may revoke makes a grant", Some(27), |scene| {
        accept(scene, delegated(Rights::REVOKE, None));
        grant_by(scene, &delegate(), &world().other, Right::Append, |_| {});
    });
    ledger(
        kit,
        FOLDER,
        "A4",
        "delegation-expired",
        "a delegate at the instant at which the delegation expires",
        Some(26),
        |scene| {
            accept(scene, delegated(Rights::GRANT, Some(UnixMs(NOW + HOUR_MS))));
            scene.now = NOW + HOUR_MS;
            grant_by(scene, &delegate(), &world().other, Right::Append, |_| {});
        },
    );
    ledger(
        kit,
        FOLDER,
        "A4",
        "delegation-withdrawn",
        "a delegate after the delegation was withdrawn",
        Some(26),
        |scene| {
            accept(scene, delegated(Rights::GRANT, None));
            accept(scene, Change::Withdraw(delegate().author_id()));
            grant_by(scene, &delegate(), &world().other, Right::Append, |_| {});
        },
    );
    ledger(
        kit,
        FOLDER,
        "A4",
        "who-before-place",
        "a delegate without the right, out of sequence too: who is asked first",
        Some(27),
        |scene| {
            accept(scene, delegated(Rights::REVOKE, None));
            scene.link.seq += 1;
            grant_by(scene, &delegate(), &world().other, Right::Append, |_| {});
        },
    );
}

fn rotations(kit: &mut Kit) {
    ledger(
        kit,
        FOLDER,
        "A14",
        "ok-rotated",
        "after a rotation the new keys sign under the same author id",
        None,
        |scene| {
            let rotation = rotation(scene, &new_keys());
            accept(scene, rotation);
            assert_eq!(grant_by(scene, &new_patient(), &world().other, Right::Append, |_| {}), Outcome::Accepted);
            scene.ask("append", &world().patient, EPOCH, hour(), NOW, json!("yes"));
            scene.ask("append", &new_keys(), EPOCH, hour(), NOW, json!(12));
        },
    );
    ledger(kit, FOLDER, "A14", "former-keys-sign", "a grant that the owner's former keys signed", Some(2), |scene| {
        let rotation = rotation(scene, &new_keys());
        accept(scene, rotation);
        grant_by(scene, &world().patient, &world().other, Right::Append, |_| {});
    });
    ledger(
        kit,
        FOLDER,
        "A14",
        "under-the-keys-own-id",
        "a grant under the id of the new keys, who are nobody by that name",
        Some(17),
        |scene| {
            let rotation = rotation(scene, &new_keys());
            accept(scene, rotation);
            grant_by(scene, &new_keys(), &world().other, Right::Append, |_| {});
        },
    );
    for (slug, title, keys) in [
        ("own-keys-again", "a rotation to the owner's present keys", world().patient.clone()),
        ("a-subjects-keys", "a rotation to the keys of somebody who has a grant", world().gateway.clone()),
    ] {
        ledger(kit, APPEND, "A14", slug, title, Some(21), |scene| {
            let rotation = rotation(scene, &keys);
            submit(scene, rotation);
        });
    }
    ledger(kit, BARE, "A14", "former-keys-again", "a rotation back to keys that were replaced", Some(21), |scene| {
        let there = rotation(scene, &new_keys());
        accept(scene, there);
        let back = rotation(scene, &world().patient);
        submit_by(scene, &new_patient(), back);
    });
    ledger(kit, BARE, "A14", "bad-key", "a rotation to an encryption key that is none", Some(22), |scene| {
        let mut keys: PublicIdentity = new_keys().public().clone();
        keys.kem = KemPublic::from_slice(&bad_kem()).unwrap();
        let proof = possession(&new_keys(), scene.id, scene.link);
        submit(scene, Change::Rotate(keys, proof));
    });
    type Proof = fn(&Scene) -> Vec<u8>;
    let proofs: [(&str, &str, Proof); 6] = [
        ("not-possessed", "a possession that other keys signed", |scene| {
            possession(&world().stranger, scene.id, scene.link)
        }),
        ("possession-of-another-place", "a possession for another place in the sequence", |scene| {
            let mut link = scene.link;
            link.seq += 1;
            possession(&new_keys(), scene.id, link)
        }),
        ("possession-in-another-room", "a possession for another room", |scene| {
            possession(&new_keys(), ehe::id::RoomId([7; 16]), scene.link)
        }),
        (
            "possession-under-the-owners-id",
            "a possession that the new keys signed under the owner's author id",
            |scene| {
                let payload = Cbor::parse(&possession(&new_keys(), scene.id, scene.link)).at(2).bytes().clone();
                ehe::cose::sign(&new_patient(), ehe::cose::Domain::Possession, payload)
            },
        ),
        ("possession-empty", "no possession", |_| vec![]),
        ("possession-oversized", "a possession of more than 256 bytes", |_| {
            ehe::cose::sign(&new_keys(), ehe::cose::Domain::Possession, vec![0; 256])
        }),
    ];
    for (slug, title, proof) in proofs {
        ledger(kit, BARE, "A14", slug, title, Some(31), |scene| {
            let proof = proof(scene);
            submit(scene, Change::Rotate(new_keys().public().clone(), proof));
        });
    }
    ledger(kit, FOLDER, "A20", "after-a-rotation", "a grant after the rotation in one run", Some(1), |scene| {
        let control = record(scene, rotation(scene, &new_keys()));
        let rotation = scene.made(&control);
        let grant = scene.grant(&world().other, Right::Append, |_| {});
        scene.submit(&world().patient, &[rotation, grant]);
    });
    ledger(
        kit,
        FOLDER,
        "A20",
        "before-form",
        "an event that is malformed too, after the rotation in one run: that it follows is asked first",
        Some(1),
        |scene| {
            let control = record(scene, rotation(scene, &new_keys()));
            let rotation = scene.made(&control);
            let grant = scene.grant(&world().other, Right::Append, |_| {});
            let grant = with_plain(&grant, |v| v.set(8, Cbor::Int(0)));
            scene.submit(&world().patient, &[rotation, grant]);
        },
    );
    ledger(kit, FOLDER, "A20", "ok-before-a-rotation", "a grant before the rotation in one run", None, |scene| {
        let grant = scene.grant(&world().other, Right::Append, |_| {});
        let control = record(scene, rotation(scene, &new_keys()));
        let rotation = scene.made(&control);
        scene.accept(&world().patient, &[grant, rotation]);
    });
}

fn delegations(kit: &mut Kit) {
    let mut case = |rule: &str, slug: &str, title: &str, refusal: Option<u16>, make: &dyn Fn(&mut Scene)| {
        let room = if rule == "A6" { FOLDER } else { BARE };
        ledger(kit, room, rule, slug, title, refusal, make);
    };
    case("A15", "ok-replaced", "a second record for a delegate replaces the first, ended or not", None, &|scene| {
        accept(scene, delegated(Rights::GRANT, None));
        accept(scene, Change::Withdraw(delegate().author_id()));
        accept(scene, delegated(Rights::REVOKE, None));
    });
    case("A15", "no-right", "a delegation of no right", Some(21), &|scene| {
        let control = record(scene, delegated(Rights::GRANT, None));
        let event = scene.made(&control);
        let event = with_plain(&event, |v| *v.at(1).at(2) = Cbor::Int(0));
        scene.submit(&world().patient, &[event]);
    });
    case("A15", "unknown-right", "a delegation of a right that there is not", Some(21), &|scene| {
        let control = record(scene, delegated(Rights::GRANT, None));
        let event = scene.made(&control);
        let event = with_plain(&event, |v| *v.at(1).at(2) = Cbor::Int(8));
        scene.submit(&world().patient, &[event]);
    });
    case("A15", "to-the-owner", "a delegation to the owner", Some(21), &|scene| {
        submit(scene, Change::Delegate(world().patient.public().clone(), Rights::GRANT, None));
    });
    case("A15", "to-the-recovery-identity", "a delegation to the recovery identity", Some(21), &|scene| {
        accept(scene, Change::SetRecovery(recovery().public().commitment()));
        submit(scene, Change::Delegate(recovery().public().clone(), Rights::GRANT, None));
    });
    case("A15", "bad-key", "a delegate whose encryption key is none", Some(22), &|scene| {
        let mut keys = delegate().public().clone();
        keys.kem = KemPublic::from_slice(&bad_kem()).unwrap();
        submit(scene, Change::Delegate(keys, Rights::GRANT, None));
    });
    case("A16", "ok-expired", "the withdrawal of a delegation that has expired", None, &|scene| {
        accept(scene, delegated(Rights::GRANT, Some(UnixMs(NOW + 1))));
        scene.now = NOW + 2;
        accept(scene, Change::Withdraw(delegate().author_id()));
    });
    case("A16", "unknown-delegation", "the withdrawal of a delegation that there is not", Some(32), &|scene| {
        submit(scene, Change::Withdraw(delegate().author_id()));
    });
    case("A16", "withdrawn-twice", "the withdrawal of a delegation that was withdrawn", Some(32), &|scene| {
        accept(scene, delegated(Rights::GRANT, None));
        accept(scene, Change::Withdraw(delegate().author_id()));
        submit(scene, Change::Withdraw(delegate().author_id()));
    });
    case("A6", "to-the-owners-former-keys", "a grant to keys that the owner had", Some(21), &|scene| {
        let rotation = rotation(scene, &new_keys());
        accept(scene, rotation);
        grant_by(scene, &new_patient(), &world().patient, Right::Append, |_| {});
    });
    case("A6", "to-the-recovery-identity", "a grant to the recovery identity", Some(21), &|scene| {
        accept(scene, Change::SetRecovery(recovery().public().commitment()));
        grant_by(scene, &world().patient, &recovery(), Right::Read, |_| {});
    });
}

fn delegates(kit: &mut Kit) {
    let other = &world().other;
    let all = || Rights::GRANT.and(Rights::REVOKE).and(Rights::EPOCH);
    ledger(kit, APPEND, "A4", "ok-delegate", "a delegate grants, revokes and opens an epoch", None, |scene| {
        accept(scene, delegated(all(), None));
        assert_eq!(grant_by(scene, &delegate(), other, Right::Append, |_| {}), Outcome::Accepted);
        let revoke =
            Control::Revoke(ehe::control::Revoke { link: scene.link, grant: scene.append, ending: Ending::Cut });
        let revoke = scene.made_by(&delegate(), &revoke);
        let epoch = scene.epoch(EPOCH_2, Some(EPOCH), vec![]);
        let epoch = scene.made_by(&delegate(), &epoch);
        scene.accept(&delegate(), &[revoke, epoch]);
        scene.ask("append", other, EPOCH, hour(), NOW, json!("yes"));
        scene.ask("append", &world().gateway, EPOCH, hour(), NOW, json!(14));
        scene.ask("read", &delegate(), EPOCH, hour(), NOW, json!(12));
    });
    // The delegate may read as `own` says; the grant that it makes is as `given` says.
    type Bounds = fn(&mut Grant);
    let cases: [(&str, &str, Option<Bounds>, Bounds, bool); 9] = [
        (
            "ok-as-much",
            "a delegate lets somebody read what it may read itself",
            Some(|g| g.until = Some(hour())),
            |g| g.until = Some(hour()),
            true,
        ),
        ("reads-nothing-itself", "a delegate who may not read lets somebody read", None, |_| {}, false),
        (
            "later-hours",
            "a delegate lets somebody read later hours than its own",
            Some(|g| g.until = Some(hour())),
            |g| g.until = Some(Hour(hour().0 + 1)),
            false,
        ),
        (
            "without-end",
            "a delegate lets somebody read hours without end",
            Some(|g| g.until = Some(hour())),
            |_| {},
            false,
        ),
        (
            "earlier-hours",
            "a delegate lets somebody read earlier hours than its own",
            Some(|g| g.from = Some(hour())),
            |g| g.from = Some(Hour(hour().0 - 1)),
            false,
        ),
        (
            "longer",
            "a delegate lets somebody read for longer than itself",
            Some(|g| g.expires = Some(UnixMs(NOW + 2))),
            |g| g.expires = Some(UnixMs(NOW + 3)),
            false,
        ),
        (
            "before-its-place",
            "a delegate who may not read lets somebody read, at another place than the next: the right is asked first",
            None,
            |g| g.link.seq += 1,
            false,
        ),
        (
            "before-what-it-grants",
            "a delegate who may not read lets somebody read an epoch twice: the right is asked first",
            None,
            |g| g.epochs.push(EPOCH),
            false,
        ),
        (
            "unknown-epoch",
            "a delegate lets somebody read an epoch that there is not: it may not read that itself",
            Some(|_| {}),
            |g| g.epochs = vec![EPOCH_2],
            false,
        ),
    ];
    for (slug, title, own, given, accepted) in cases {
        ledger(kit, FOLDER, "A19", slug, title, (!accepted).then_some(28), |scene| {
            accept(scene, delegated(Rights::GRANT, None));
            if let Some(own) = own {
                assert_eq!(grant_by(scene, &world().patient, &delegate(), Right::Read, own), Outcome::Accepted);
            }
            grant_by(scene, &delegate(), other, Right::Read, given);
        });
    }
}

fn readers(kit: &mut Kit) {
    let rotated = |scene: &mut Scene| {
        let rotation = rotation(scene, &new_keys());
        accept(scene, rotation);
    };
    ledger(kit, FOLDER, "D0", "ok-new-keys", "the owner's new keys read as the owner", None, |scene| {
        rotated(scene);
        scene.read(&new_keys(), |_| {});
    });
    ledger(kit, FOLDER, "D0", "former-keys", "keys that the owner replaced", Some(33), |scene| {
        rotated(scene);
        scene.read(&world().patient, |_| {});
    });
    ledger(
        kit,
        BARE,
        "D0",
        "former-keys-control",
        "keys that the owner replaced ask for the control records",
        Some(33),
        |scene| {
            rotated(scene);
            read_part(scene, &world().patient, Part::Control);
        },
    );
    ledger(
        kit,
        FOLDER,
        "D0",
        "under-the-owners-id",
        "the new keys under the owner's author id, which is not the id of these keys",
        Some(2),
        |scene| {
            rotated(scene);
            let patient: AuthorId = world().patient.author_id();
            let request = scene.request(&new_patient());
            assert_eq!(request.reader, patient);
            scene.read_signed(request.sign(&new_patient()).0, new_keys().public());
        },
    );
    ledger(kit, BARE, "D2", "ok-control-recovery", "the recovery identity reads the control records", None, |scene| {
        accept(scene, Change::SetRecovery(recovery().public().commitment()));
        read_part(scene, &recovery(), Part::Control);
    });
    ledger(kit, BARE, "D2", "ok-control-delegate", "a delegate reads the control records", None, |scene| {
        accept(scene, delegated(Rights::REVOKE, None));
        read_part(scene, &delegate(), Part::Control);
    });
    ledger(
        kit,
        BARE,
        "D2",
        "control-delegation-ended",
        "whose delegation was withdrawn asks for the control records",
        Some(26),
        |scene| {
            accept(scene, delegated(Rights::REVOKE, None));
            accept(scene, Change::Withdraw(delegate().author_id()));
            read_part(scene, &delegate(), Part::Control);
        },
    );
    ledger(
        kit,
        BARE,
        "D2",
        "ledger-delegate",
        "whose delegation was withdrawn asks for the ledger: the room knows these keys",
        Some(17),
        |scene| {
            accept(scene, delegated(Rights::REVOKE, None));
            accept(scene, Change::Withdraw(delegate().author_id()));
            read_part(scene, &delegate(), Part::Ledger);
        },
    );
    ledger(
        kit,
        BARE,
        "D2",
        "ledger-recovery-identity",
        "the recovery identity asks for the ledger: the room holds its hash, not its keys",
        Some(12),
        |scene| {
            accept(scene, Change::SetRecovery(recovery().public().commitment()));
            read_part(scene, &recovery(), Part::Ledger);
        },
    );
    ledger(
        kit,
        FOLDER,
        "D2",
        "control-grant-before-delegation",
        "whose grant was revoked and whose delegation was withdrawn asks for the control records: the grant is heard of",
        Some(14),
        |scene| {
            accept(scene, delegated(Rights::REVOKE, None));
            let grant = scene.grant(&delegate(), Right::Read, |_| {});
            let id = grant.id();
            scene.accept(&world().patient, &[grant]);
            accept(scene, Change::Withdraw(delegate().author_id()));
            let revoke = scene.revoke(id, Ending::Cut);
            scene.accept(&world().patient, &[revoke]);
            read_part(scene, &delegate(), Part::Control);
        },
    );
    ledger(kit, FOLDER, "D3", "recovery-identity", "the recovery identity asks for content", Some(12), |scene| {
        accept(scene, Change::SetRecovery(recovery().public().commitment()));
        scene.read(&recovery(), |_| {});
    });
}
