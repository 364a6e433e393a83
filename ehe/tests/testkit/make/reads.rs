//! D: may this identity read?

use ehe::control::{Ending, Right};
use ehe::cose::{Domain, sign};
use ehe::id::{EpochId, RoomId};
use ehe::identity::Identity;
use ehe::limits::REQUEST_SKEW_MAX_MS;
use ehe::read::{Part, ReadRequest};
use ehe::time::{Hour, UnixMs};

use super::Kit;
use super::runs::ledger;
use super::scene::{EPOCH, EPOCH_2, Granted, HOUR_MS, NOW, Scene, hour};
use super::world::world;
use crate::run::ledger::Outcome;
use crate::value::Cbor;

const FOLDER: &str = "read";

pub(super) fn cases(kit: &mut Kit) {
    requests(kit);
    parts(kit);
    content(kit);
}

fn requests(kit: &mut Kit) {
    let clinician = &world().clinician;
    let mut case = |rule: &str, slug: &str, title: &str, refusal: Option<u16>, make: &dyn Fn(&mut Scene)| {
        ledger(kit, (FOLDER, Granted::Read), rule, slug, title, refusal, make);
    };
    case("D1", "ok-content", "a clinician reads an hour of an epoch", None, &|scene| {
        scene.read(clinician, |_| {});
    });
    case("D1", "ok-five-minutes", "a request that was made five minutes ago, to the millisecond", None, &|scene| {
        scene.read(clinician, |r| r.made_at = UnixMs(NOW - REQUEST_SKEW_MAX_MS));
    });
    case("D1", "stale", "a request that was made five minutes and a millisecond ago", Some(41), &|scene| {
        scene.read(clinician, |r| r.made_at = UnixMs(NOW - REQUEST_SKEW_MAX_MS - 1));
    });
    case("D1", "ahead", "a request from five minutes and a millisecond ahead", Some(41), &|scene| {
        scene.read(clinician, |r| r.made_at = UnixMs(NOW + REQUEST_SKEW_MAX_MS + 1));
    });
    case("D1", "repeated", "a request whose nonce and time were used", Some(42), &|scene| {
        assert_eq!(scene.read(clinician, |_| {}), Outcome::Granted);
        scene.now += 1;
        scene.read(clinician, |r| {
            r.made_at = UnixMs(NOW);
            r.scope.until = Hour(hour().0 + 2);
        });
    });
    case("D1", "ok-nonce-at-another-time", "a nonce that was used, at another time", None, &|scene| {
        scene.read(clinician, |_| {});
        scene.now += 1;
        scene.read(clinician, |_| {});
    });
    case("D1", "ok-refused-before", "a request that was refused, again once there is a grant", None, &|scene| {
        let other = &world().other;
        scene.read(other, |_| {});
        let event = scene.grant(other, Right::Read, |_| {});
        scene.accept(&world().patient, &[event]);
        scene.read(other, |_| {});
    });
    case("D1", "another-alliance", "a request for another alliance", Some(25), &|scene| {
        scene.read(clinician, |r| r.alliance.0[0] ^= 1);
    });
    case("D1", "unknown-room", "a request for a room that is not there", Some(10), &|scene| {
        scene.read(clinician, |r| r.room = RoomId([7; 16]));
    });
    case("D1", "another-signed", "a request in a reader's name under the keys of another", Some(2), &|scene| {
        let request = scene.request(clinician).sign(clinician);
        scene.read_signed(request.0, world().stranger.public());
    });
    case("D1", "altered", "a request that was altered after signing", Some(2), &|scene| {
        let mut signed = Cbor::parse(&scene.request(clinician).sign(clinician).0);
        let mut payload = Cbor::parse(signed.at(2).bytes());
        *payload.at(5) = Cbor::Int(2);
        *signed.at(2) = Cbor::Bytes(payload.to_vec());
        scene.read_signed(signed.to_vec(), clinician.public());
    });
    case("D1", "run-as-request", "a request under a run's signature", Some(2), &|scene| {
        let payload = ehe::cbor::to_vec(&scene.request(clinician));
        scene.read_signed(sign(clinician, Domain::Run, payload), clinician.public());
    });
    case("D1", "in-anothers-name", "a request that names another reader than its signer", Some(40), &|scene| {
        let request: ReadRequest = scene.request(&world().patient);
        scene.read_signed(request.sign(clinician).0, clinician.public());
    });
    case("D1", "malformed", "a request with an unknown purpose", Some(40), &|scene| {
        let mut payload = Cbor::parse(&ehe::cbor::to_vec(&scene.request(clinician)));
        *payload.at(5) = Cbor::Int(9);
        scene.read_signed(sign(clinician, Domain::ReadRequest, payload.to_vec()), clinician.public());
    });
    case("D1", "age-before-alliance", "an old request for another alliance", Some(41), &|scene| {
        scene.read(clinician, |r| {
            r.made_at = UnixMs(0);
            r.alliance.0[0] ^= 1;
        });
    });
    case("D1", "alliance-before-rights", "a stranger's request for another alliance", Some(25), &|scene| {
        scene.read(&world().stranger, |r| r.alliance.0[0] ^= 1);
    });
    case("D1", "epochs-65", "a request for 65 epochs", Some(40), &|scene| {
        scene.read(clinician, |r| r.scope.epochs = vec![EPOCH; 65]);
    });
}

/// A request for a part that has no epochs and hours.
pub(super) fn read_part(scene: &mut Scene, reader: &Identity, part: Part) -> Outcome {
    scene.read(reader, |r| {
        r.scope.part = part;
        r.scope.epochs.clear();
        r.scope.from = Hour(0);
        r.scope.until = Hour(0);
    })
}

fn parts(kit: &mut Kit) {
    let mut case = |slug: &str, title: &str, refusal: Option<u16>, part: Part, make: &dyn Fn(&mut Scene, Part)| {
        ledger(kit, (FOLDER, Granted::Both), "D2", slug, title, refusal, |scene| make(scene, part));
    };
    case("ok-ledger", "the patient reads the ledger", None, Part::Ledger, &|scene, part| {
        read_part(scene, &world().patient, part);
    });
    case("ok-control", "a gateway reads the control records", None, Part::Control, &|scene, part| {
        read_part(scene, &world().gateway, part);
    });
    case("ok-control-again", "a request that leaves no record may be repeated", None, Part::Control, &|scene, part| {
        read_part(scene, &world().gateway, part);
        read_part(scene, &world().gateway, part);
    });
    case(
        "ok-control-draining",
        "a gateway whose grant drains reads the control records",
        None,
        Part::Control,
        &|scene, part| {
            let event = scene.revoke(scene.append, Ending::DrainUntil(UnixMs(NOW + HOUR_MS)));
            scene.accept(&world().patient, &[event]);
            read_part(scene, &world().gateway, part);
        },
    );
    case("ledger-by-a-reader", "a clinician asks for the ledger", Some(17), Part::Ledger, &|scene, part| {
        read_part(scene, &world().clinician, part);
    });
    case("ledger-by-a-stranger", "a stranger asks for the ledger", Some(12), Part::Ledger, &|scene, part| {
        read_part(scene, &world().stranger, part);
    });
    case(
        "control-by-a-stranger",
        "a stranger asks for the control records",
        Some(12),
        Part::Control,
        &|scene, part| {
            read_part(scene, &world().stranger, part);
        },
    );
    case("control-revoked", "who was revoked asks for the control records", Some(14), Part::Control, &|scene, part| {
        let event = scene.revoke(scene.read, Ending::Cut);
        scene.accept(&world().patient, &[event]);
        read_part(scene, &world().clinician, part);
    });
    case(
        "control-expired",
        "whose grant expired asks for the control records",
        Some(13),
        Part::Control,
        &|scene, part| {
            let event = scene.grant(&world().other, Right::Append, |g| g.expires = Some(UnixMs(NOW + HOUR_MS)));
            scene.accept(&world().patient, &[event]);
            scene.now = NOW + HOUR_MS;
            read_part(scene, &world().other, part);
        },
    );
}

fn content(kit: &mut Kit) {
    let (clinician, other) = (&world().clinician, &world().other);
    let mut case = |slug: &str, title: &str, refusal: Option<u16>, make: &dyn Fn(&mut Scene)| {
        ledger(kit, (FOLDER, Granted::Read), "D3", slug, title, refusal, make);
    };
    case("no-epoch", "content of no epoch", Some(40), &|scene| {
        scene.read(clinician, |r| r.scope.epochs.clear());
    });
    case("no-hour", "content of no hour", Some(40), &|scene| {
        scene.read(clinician, |r| r.scope.until = r.scope.from);
    });
    case("ok-owner", "the patient reads without a grant", None, &|scene| {
        scene.read(&world().patient, |_| {});
    });
    case("owner-unknown-epoch", "the patient asks for an epoch that there is not", Some(15), &|scene| {
        scene.read(&world().patient, |r| r.scope.epochs = vec![EPOCH_2]);
    });
    case("stranger", "a stranger asks for content", Some(12), &|scene| {
        scene.read(&world().stranger, |_| {});
    });
    case("appender", "who may append asks for content", Some(12), &|scene| {
        let event = scene.grant(&world().gateway, Right::Append, |_| {});
        scene.accept(&world().patient, &[event]);
        scene.read(&world().gateway, |_| {});
    });
    case("outside-the-epoch", "an epoch that the grant does not cover", Some(15), &|scene| {
        let control = scene.epoch(EPOCH_2, Some(EPOCH), vec![]);
        let event = scene.made(&control);
        scene.accept(&world().patient, &[event]);
        scene.read(clinician, |r| r.scope.epochs = vec![EPOCH, EPOCH_2]);
    });
    case("unknown-epoch", "an epoch that there is not", Some(15), &|scene| {
        scene.read(clinician, |r| r.scope.epochs = vec![EpochId([1; 16])]);
    });
    case("revoked", "a read after the grant was cut", Some(14), &|scene| {
        let event = scene.revoke(scene.read, Ending::Cut);
        scene.accept(&world().patient, &[event]);
        scene.read(clinician, |_| {});
    });
    let granted = |scene: &mut Scene, from: u32, until: u32| {
        let event = scene.grant(other, Right::Read, |g| {
            g.from = Some(Hour(from));
            g.until = Some(Hour(until));
            g.expires = Some(UnixMs(NOW + HOUR_MS));
        });
        scene.accept(&world().patient, &[event]);
    };
    let first = hour().0;
    let asked = |scene: &mut Scene, from: u32, until: u32| {
        scene.read(other, |r| {
            r.scope.from = Hour(from);
            r.scope.until = Hour(until);
        })
    };
    case("ok-whole-interval", "all hours of a grant", None, &|scene| {
        granted(scene, first, first + 4);
        asked(scene, first, first + 4);
    });
    case("hour-before", "an hour too early", Some(16), &|scene| {
        granted(scene, first, first + 4);
        asked(scene, first - 1, first + 4);
    });
    case("hour-after", "an hour too late", Some(16), &|scene| {
        granted(scene, first, first + 4);
        asked(scene, first, first + 5);
    });
    case("expired", "a read at the instant when the grant expires", Some(13), &|scene| {
        granted(scene, first, first + 4);
        scene.now = NOW + HOUR_MS;
        asked(scene, first, first + 4);
    });
    case(
        "gap-between-two-grants",
        "both ends are covered, by two grants with a gap between them",
        Some(16),
        &|scene| {
            granted(scene, first, first + 2);
            granted(scene, first + 3, first + 5);
            asked(scene, first, first + 5);
        },
    );
    case("ok-second-grant", "the second of two grants covers it", None, &|scene| {
        granted(scene, first, first + 2);
        granted(scene, first + 3, first + 5);
        asked(scene, first + 3, first + 5);
    });
}
