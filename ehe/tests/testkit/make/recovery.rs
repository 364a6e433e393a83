//! I3, I4, A17, A18: the recovery key and what it does.

use ehe::control::{Change, Control, Ending, Right, Rights, possession};
use ehe::id::{EheId, Hash};
use ehe::identity::PublicIdentity;
use ehe::kem::KemPublic;
use ehe::time::UnixMs;
use serde_json::json;

use super::Kit;
use super::authority::{
    APPEND, BARE, FOLDER, accept, delegate, delegated, grant_by, new_keys, new_patient, record, submit, submit_by,
};
use super::identities::bad_kem;
use super::runs::{forged, ledger};
use super::scene::{EPOCH, HOUR_MS, NOW, Scene, hour, with_plain};
use super::world::{RECOVERY, person, recovery, world};
use crate::json::h;
use crate::run::ledger::Outcome;

pub(super) fn cases(kit: &mut Kit) {
    recovery_keys(kit);
    recoveries(kit);
    distrust(kit);
}

fn recovery_keys(kit: &mut Kit) {
    let mut case = |rule: &str, slug: &str, title: &str, text: &str, valid: bool| {
        let draft = kit.case("authority", rule, slug, title, "recovery_key").input(json!({"text": text}));
        if valid { draft.valid() } else { draft.invalid() }
    };
    let plain: String = RECOVERY.split(' ').collect();
    case(
        "I3",
        "ok-recovery-key",
        "from a printed recovery key to two seeds, an author id and a commitment",
        RECOVERY,
        true,
    );
    case("I4", "ok-without-blanks", "the same without blanks", &plain, true);
    case(
        "I4",
        "ok-upper-case",
        "the same in upper case, with line ends",
        &RECOVERY.to_uppercase().replace(' ', "\n"),
        true,
    );
    // The 25 characters of White_Space, from the last one back: two letters apart.
    let spaces = "\t\n\u{b}\u{c}\r \u{85}\u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";
    let mut spread: String = plain.clone();
    for (at, space) in spaces.chars().rev().enumerate() {
        spread.insert(3 + 2 * (spaces.chars().count() - 1 - at), space);
    }
    case("I4", "ok-every-white-space", "the same with each of the 25 characters of white space in it", &spread, true);
    for (slug, space) in [
        ("file-separator", '\u{1c}'),
        ("unit-separator", '\u{1f}'),
        ("zero-width-space", '\u{200b}'),
        ("zero-width-no-break-space", '\u{feff}'),
        ("mongolian-vowel-separator", '\u{180e}'),
    ] {
        let title = format!("U+{:04X} in place of a blank, which is not white space", u32::from(space));
        case("I4", slug, &title, &RECOVERY.replacen(' ', &space.to_string(), 1), false);
    }
    case("I4", "mistyped", "one letter is another", &RECOVERY.replace("rydp", "rydq"), false);
    case("I4", "no-letter", "a character that Bech32 does not have", &RECOVERY.replace("rydp", "rybp"), false);
    case("I4", "swapped", "two groups in the wrong order", &RECOVERY.replace("qqqs yqcy", "yqcy qqqs"), false);
    case("I4", "mixed-case", "upper and lower case", &RECOVERY.replace("rydp", "RYDP"), false);
    case(
        "I4",
        "other-prefix",
        "another human-readable part",
        &bech32::<bech32::Bech32m>("ehe-record", &[7; 32]),
        false,
    );
    case(
        "I4",
        "bech32",
        "the checksum of Bech32, not of Bech32m",
        &bech32::<bech32::Bech32>("ehe-recovery", &[7; 32]),
        false,
    );
    case("I4", "short", "a key of 31 bytes", &bech32::<bech32::Bech32m>("ehe-recovery", &[7; 31]), false);
    case("I4", "long", "a key of 33 bytes", &bech32::<bech32::Bech32m>("ehe-recovery", &[7; 33]), false);
    case("I4", "padding-bits", "bits left over that are not zero", &padded_with_ones(), false);
    kit.case("authority", "I3", "other-commitment", "a room that is committed to another identity", "recovery_key")
        .input(json!({"text": RECOVERY, "commitment": h(world().stranger.public().commitment().0)}))
        .invalid();
}

fn bech32<C: bech32::Checksum>(prefix: &str, bytes: &[u8]) -> String {
    bech32::encode::<C>(bech32::Hrp::parse(prefix).unwrap(), bytes).unwrap()
}

/// 32 bytes are 51 letters and one bit: the last letter's other four bits have to be zero.
fn padded_with_ones() -> String {
    use bech32::{ByteIterExt, Fe32, Fe32IterExt};
    let mut letters: Vec<Fe32> = [7u8; 32].iter().copied().bytes_to_fes().collect();
    let last = letters.last_mut().unwrap();
    *last = Fe32::try_from(last.to_u8() | 1).unwrap();
    letters.into_iter().with_checksum::<bech32::Bech32m>(&bech32::Hrp::parse("ehe-recovery").unwrap()).chars().collect()
}

/// A recovery by the paper, to the patient's new keys.
pub(super) fn recovering(
    scene: &Scene,
    change: impl FnOnce(&mut PublicIdentity, &mut Hash, &mut Option<u64>),
) -> Change {
    let (mut keys, mut next, mut distrusted_from) = (new_keys().public().clone(), Hash::ZERO, None);
    change(&mut keys, &mut next, &mut distrusted_from);
    Change::Recover {
        recovery: recovery().public().clone(),
        keys,
        possession: possession(&new_keys(), scene.id, scene.link),
        next,
        distrusted_from,
    }
}

fn recoveries(kit: &mut Kit) {
    let set = |scene: &mut Scene| accept(scene, Change::SetRecovery(recovery().public().commitment()));
    ledger(kit, BARE, "A17", "set-twice", "a second recovery key, set by the owner", Some(30), |scene| {
        set(scene);
        submit(scene, Change::SetRecovery(world().stranger.public().commitment()));
    });
    ledger(kit, BARE, "A17", "zeros", "a commitment of zeros", Some(21), |scene| {
        submit(scene, Change::SetRecovery(Hash::ZERO));
    });
    ledger(kit, APPEND, "A17", "a-subject", "a commitment to somebody who has a grant", Some(21), |scene| {
        submit(scene, Change::SetRecovery(world().gateway.public().commitment()));
    });
    ledger(kit, BARE, "A17", "the-owner", "a commitment to the owner's own keys", Some(21), |scene| {
        submit(scene, Change::SetRecovery(world().patient.public().commitment()));
    });
    ledger(
        kit,
        BARE,
        "A4",
        "recovery-by-another",
        "a recovery by keys that the room is not committed to",
        Some(29),
        |scene| {
            set(scene);
            let recover = Change::Recover {
                recovery: world().stranger.public().clone(),
                keys: new_keys().public().clone(),
                possession: possession(&new_keys(), scene.id, scene.link),
                next: Hash::ZERO,
                distrusted_from: None,
            };
            submit_by(scene, &world().stranger, recover);
        },
    );
    ledger(
        kit,
        BARE,
        "A4",
        "ok-recovery-names-an-earlier-place",
        "a recovery that others were quicker than",
        None,
        |scene| {
            set(scene);
            let earlier = scene.link;
            accept(scene, Change::HandOver);
            accept(scene, Change::HandOver);
            let late = std::mem::replace(&mut scene.link, earlier);
            let recover = recovering(scene, |_, _, _| {});
            let control = record(scene, recover);
            scene.link = late;
            let event = scene.made_by(&recovery(), &control);
            scene.accept(&recovery(), &[event]);
        },
    );
    ledger(
        kit,
        BARE,
        "A4",
        "hand-over-names-an-earlier-place",
        "a hand-over that others were quicker than",
        Some(20),
        |scene| {
            let earlier = scene.link;
            accept(scene, Change::HandOver);
            scene.link = earlier;
            submit(scene, Change::HandOver);
        },
    );
    ledger(kit, BARE, "A4", "recovery-by-the-owner", "a recovery in the owner's name", Some(29), |scene| {
        set(scene);
        let recover = recovering(scene, |_, _, _| {});
        submit(scene, recover);
    });
    ledger(
        kit,
        BARE,
        "A4",
        "recovery-of-an-uncommitted-room",
        "a recovery of a room that has no recovery key",
        Some(29),
        |scene| {
            let recover = recovering(scene, |_, _, _| {});
            submit_by(scene, &recovery(), recover);
        },
    );
    ledger(
        kit,
        BARE,
        "A4",
        "recovery-forged",
        "a recovery that names the recovery identity and was signed by another",
        Some(2),
        |scene| {
            set(scene);
            let control = record(scene, recovering(scene, |_, _, _| {}));
            let event = scene.made_by(&recovery(), &control);
            let run = scene.run(&recovery(), std::slice::from_ref(&event));
            let signed = forged(&run, &recovery(), &world().stranger);
            scene.step(signed, vec![event.into_event()]);
        },
    );
    ledger(
        kit,
        BARE,
        "A4",
        "recovery-malformed",
        "a run of the recovery identity whose recover record is malformed: nobody is known by that name",
        Some(12),
        |scene| {
            set(scene);
            let control = record(scene, recovering(scene, |_, _, _| {}));
            let event = scene.made_by(&recovery(), &control);
            let event = with_plain(&event, |v| v.set(8, crate::value::Cbor::Int(0)));
            scene.submit(&recovery(), &[event]);
        },
    );
    ledger(kit, BARE, "A18", "ok-same-paper", "the next recovery identity is the present one", None, |scene| {
        set(scene);
        let recover = recovering(scene, |_, next, _| *next = recovery().public().commitment());
        assert_eq!(submit_by(scene, &recovery(), recover), Outcome::Accepted);
    });
    ledger(
        kit,
        BARE,
        "A18",
        "ok-distrusted-though-silent",
        "keys that were replaced at 3, and signed nothing from 3 on, are distrusted from 3 by the next recovery",
        None,
        |scene| {
            set(scene);
            accept(scene, Change::HandOver);
            let paper = person("the next paper");
            let first = recovering(scene, |_, next, _| *next = paper.public().commitment());
            assert_eq!(submit_by(scene, &recovery(), first), Outcome::Accepted);
            let keys = person("the patient's third keys");
            let second = Change::Recover {
                recovery: paper.public().clone(),
                keys: keys.public().clone(),
                possession: possession(&keys, scene.id, scene.link),
                next: Hash::ZERO,
                distrusted_from: Some(3),
            };
            assert_eq!(submit_by(scene, &paper, second), Outcome::Accepted);
        },
    );
    ledger(kit, FOLDER, "A18", "ok-lost", "keys that were lost: new ones, and nothing ends", None, |scene| {
        set(scene);
        let recover = recovering(scene, |_, next, _| *next = person("the next paper").public().commitment());
        assert_eq!(submit_by(scene, &recovery(), recover), Outcome::Accepted);
        assert_eq!(grant_by(scene, &new_patient(), &world().other, Right::Append, |_| {}), Outcome::Accepted);
    });
    ledger(kit, BARE, "A18", "paper-used-again", "the paper again after it was replaced", Some(29), |scene| {
        set(scene);
        let recover = recovering(scene, |_, next, _| *next = person("the next paper").public().commitment());
        assert_eq!(submit_by(scene, &recovery(), recover), Outcome::Accepted);
        let again = recovering(scene, |_, _, _| {});
        submit_by(scene, &recovery(), again);
    });
    let mut refused =
        |slug: &str, title: &str, code: u16, change: fn(&mut PublicIdentity, &mut Hash, &mut Option<u64>)| {
            ledger(kit, BARE, "A18", slug, title, Some(code), |scene| {
                set(scene);
                let recover = recovering(scene, change);
                submit_by(scene, &recovery(), recover);
            });
        };
    refused("distrusted-from-0", "distrust from room-create on", 21, |_, _, from| *from = Some(0));
    refused("distrusted-from-later", "distrust from a control event that there is not yet", 21, |_, _, from| {
        *from = Some(3)
    });
    refused("recovery-keys-themselves", "the recovery identity's own keys become the owner's", 21, |keys, _, _| {
        *keys = recovery().public().clone()
    });
    refused("next-is-known", "the next recovery identity is the owner's former keys", 21, |_, next, _| {
        *next = world().patient.public().commitment()
    });
    refused("bad-key", "new keys whose encryption key is none", 22, |keys, _, _| {
        keys.kem = KemPublic::from_slice(&bad_kem()).unwrap()
    });
    refused("not-possessed", "new keys that did not sign for their place", 31, |keys, _, _| {
        *keys = world().stranger.public().clone()
    });
    ledger(kit, FOLDER, "A20", "after-a-recovery", "a second event after the recovery in one run", Some(1), |scene| {
        set(scene);
        let control = record(scene, recovering(scene, |_, _, _| {}));
        let recover = scene.made_by(&recovery(), &control);
        let control = scene.grant_record(&world().other, Right::Append, |_| {});
        let grant = scene.made_by(&recovery(), &control);
        scene.submit(&recovery(), &[recover, grant]);
    });
}

fn distrust(kit: &mut Kit) {
    // seq 2: recovery set; 3: the thief, with the patient's keys, lets the other gateway append; 4: recovery, distrust from 3.
    let stolen = |scene: &mut Scene| -> EheId {
        accept(scene, Change::SetRecovery(recovery().public().commitment()));
        let grant = scene.grant(&world().other, Right::Append, |_| {});
        let id = grant.id();
        scene.accept(&world().patient, &[grant]);
        accept(scene, delegated(Rights::GRANT, None));
        let recover = recovering(scene, |_, _, from| *from = Some(3));
        assert_eq!(submit_by(scene, &recovery(), recover), Outcome::Accepted);
        id
    };
    ledger(
        kit,
        FOLDER,
        "A18",
        "ok-distrusted",
        "keys that were stolen: what they gave from then on ends",
        None,
        |scene| {
            stolen(scene);
            assert_eq!(grant_by(scene, &new_patient(), &world().clinician, Right::Read, |_| {}), Outcome::Accepted);
            scene.ask("append", &world().other, EPOCH, hour(), NOW, json!(14));
            scene.ask("read", &world().clinician, EPOCH, hour(), NOW, json!("yes"));
        },
    );
    ledger(
        kit,
        FOLDER,
        "A18",
        "distrusted-grant",
        "an append under a grant that stolen keys made",
        Some(14),
        |scene| {
            stolen(scene);
            let events = scene.reading(&world().other, hour()).both();
            scene.submit(&world().other, &events);
        },
    );
    ledger(
        kit,
        FOLDER,
        "A18",
        "distrusted-content",
        "content under a wrap from before, once the grant that stolen keys made is cut",
        Some(14),
        |scene| {
            accept(scene, Change::SetRecovery(recovery().public().commitment()));
            let grant = scene.grant(&world().other, Right::Append, |_| {});
            scene.accept(&world().patient, &[grant]);
            let [wrap, content] = scene.reading(&world().other, hour()).both();
            scene.accept(&world().other, &[wrap]);
            let recover = recovering(scene, |_, _, from| *from = Some(3));
            assert_eq!(submit_by(scene, &recovery(), recover), Outcome::Accepted);
            scene.submit(&world().other, &[content]);
        },
    );
    ledger(
        kit,
        FOLDER,
        "A18",
        "distrusted-delegate",
        "a grant by a delegate whom stolen keys named",
        Some(26),
        |scene| {
            stolen(scene);
            grant_by(scene, &delegate(), &world().stranger, Right::Append, |_| {});
        },
    );
    ledger(
        kit,
        FOLDER,
        "A18",
        "distrusted-grant-drains",
        "a drain for a grant that the recovery cut",
        Some(21),
        |scene| {
            let grant = stolen(scene);
            let ending = Ending::DrainUntil(UnixMs(NOW + HOUR_MS));
            let revoke = Control::Revoke(ehe::control::Revoke { link: scene.link, grant, ending });
            let event = scene.made_by(&new_patient(), &revoke);
            scene.submit(&new_patient(), &[event]);
        },
    );
}
