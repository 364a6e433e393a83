//! A8 to A12: what grants allow, at what time, in which hours.

use ehe::control::{Ending, Grant, Right};
use ehe::id::{EheId, EpochId};
use ehe::identity::Identity;
use ehe::time::{Hour, UnixMs};
use serde_json::json;

use super::Kit;
use super::rights::{accept, submit};
use super::runs::ledger;
use super::scene::{EPOCH, EPOCH_2, Granted, HOUR_MS, NOW, Scene, hour, with_plain};
use super::world::world;

const FOLDER: &str = "rights";

pub(super) fn cases(kit: &mut Kit) {
    holding(kit);
    revoked_later(kit);
    telling(kit);
    wraps(kit);
    content(kit);
    limits(kit);
}

fn holding(kit: &mut Kit) {
    let other = &world().other;
    // A room in which the other gateway has a grant as changed, and appends one reading of `hour` at `at`.
    let mut case = |slug: &str,
                    title: &str,
                    refusal: Option<u16>,
                    change: &dyn Fn(&mut Grant),
                    then: &dyn Fn(&mut Scene, EheId),
                    of: Hour,
                    at: u64| {
        ledger(kit, (FOLDER, Granted::None), "A8", slug, title, refusal, |scene| {
            let event = scene.grant(other, Right::Append, change);
            let grant = event.id();
            scene.accept(&world().patient, &[event]);
            // The wrap comes while the grant holds: what is judged is the content alone.
            let wrap = scene.wrap(other, EPOCH, of);
            scene.accept(other, std::slice::from_ref(&wrap));
            then(scene, grant);
            scene.now = at;
            let content = scene.content(other, EPOCH, wrap.id().into(), of);
            scene.submit(other, &[content]);
        });
    };
    let nothing = |_: &mut Scene, _: EheId| {};
    let expires = |g: &mut Grant| g.expires = Some(UnixMs(NOW + HOUR_MS));
    case("ok-before-expiry", "the last millisecond of a grant", None, &expires, &nothing, hour(), NOW + HOUR_MS - 1);
    case("expired-grant", "the instant at which a grant expires", Some(13), &expires, &nothing, hour(), NOW + HOUR_MS);
    let hours = |g: &mut Grant| {
        g.from = Some(Hour(hour().0 - 1));
        g.until = Some(Hour(hour().0 + 1));
    };
    case("ok-first-hour", "the first hour that a grant covers", None, &hours, &nothing, Hour(hour().0 - 1), NOW);
    case("hour-before", "the hour before a grant's first", Some(16), &hours, &nothing, Hour(hour().0 - 2), NOW);
    case("hour-after", "the hour at which a grant ends", Some(16), &hours, &nothing, Hour(hour().0 + 1), NOW);
    let cut = |scene: &mut Scene, grant: EheId| {
        let event = scene.revoke(grant, Ending::Cut);
        scene.accept(&world().patient, &[event]);
    };
    let drain = |scene: &mut Scene, grant: EheId| {
        let event = scene.revoke(grant, Ending::DrainUntil(UnixMs(NOW + HOUR_MS)));
        scene.accept(&world().patient, &[event]);
    };
    let plain = |_: &mut Grant| {};
    case("revoked", "an append after the grant was cut", Some(14), &plain, &cut, hour(), NOW + 1);
    case(
        "ok-draining",
        "a reading from before the revocation, at the last instant of draining",
        None,
        &plain,
        &drain,
        hour(),
        NOW + HOUR_MS,
    );
    case("drained", "the instant after draining ended", Some(14), &plain, &drain, hour(), NOW + HOUR_MS + 1);
    case(
        "measured-after",
        "a reading from after the revocation, while the grant drains",
        Some(14),
        &plain,
        &drain,
        Hour(hour().0 + 1),
        NOW + 1,
    );
    case("drains-and-expired", "an expiry ends draining too", Some(13), &expires, &drain, hour(), NOW + HOUR_MS);
}

/// The hour of a revocation is the ledger's, not that which its core names.
fn revoked_later(kit: &mut Kit) {
    let gateway = &world().gateway;
    let (rule, slug) = ("A8", "ok-hour-of-acceptance");
    let title = "a revocation that waited an hour: readings up to the hour in which it was accepted drain";
    ledger(kit, (FOLDER, Granted::Append), rule, slug, title, None, |scene| {
        let revoke = scene.revoke(scene.append, Ending::DrainUntil(UnixMs(NOW + 3 * HOUR_MS)));
        scene.now = NOW + HOUR_MS;
        scene.accept(&world().patient, &[revoke]);
        let events = scene.reading(gateway, Hour(hour().0 + 1)).both();
        scene.accept(gateway, &events);
        let at = scene.now;
        scene.ask("append", gateway, EPOCH, Hour(hour().0 + 2), at, json!(14));
    });
}

/// Of several grants that do not allow it, the one that says most is heard.
fn telling(kit: &mut Kit) {
    ledger(
        kit,
        (FOLDER, Granted::None),
        "A8",
        "ok-most-telling",
        "of several grants the most telling refusal",
        None,
        |scene| {
            let (expired, cut, bounded) = (&world().stranger, &world().clinician, &world().other);
            let append = |scene: &mut Scene, to: &Identity, change: &dyn Fn(&mut Grant)| {
                let event = scene.grant(to, Right::Append, change);
                scene.accept(&world().patient, std::slice::from_ref(&event));
                event.id()
            };
            let control = scene.epoch(EPOCH_2, None, vec![]);
            accept(scene, &control);
            for who in [expired, cut, bounded] {
                append(scene, who, &|g| g.expires = Some(UnixMs(NOW + 1)));
            }
            for who in [cut, bounded] {
                let grant = append(scene, who, &|_| {});
                let event = scene.revoke(grant, Ending::Cut);
                scene.accept(&world().patient, &[event]);
            }
            append(scene, bounded, &|g| {
                g.epochs = vec![EPOCH_2];
                g.from = Some(hour());
            });
            let (before, unknown, later) = (Hour(hour().0 - 1), EpochId([1; 16]), NOW + 10);
            scene.ask("append", bounded, EPOCH, hour(), NOW, json!("yes"));
            scene.ask("append", expired, EPOCH, hour(), later, json!(13));
            scene.ask("append", expired, unknown, hour(), later, json!(13));
            scene.ask("append", cut, EPOCH, hour(), later, json!(14));
            scene.ask("append", cut, unknown, hour(), later, json!(14));
            scene.ask("append", bounded, EPOCH, hour(), later, json!(15));
            scene.ask("append", bounded, EPOCH, before, later, json!(16));
            scene.ask("append", bounded, unknown, before, later, json!(15));
            scene.ask("append", bounded, EPOCH_2, hour(), later, json!("yes"));
            scene.ask("read", bounded, EPOCH_2, hour(), later, json!(12));
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A10",
        "right-before-wrap",
        "content without a wrap after the grant was cut",
        Some(14),
        |scene| {
            let event = scene.revoke(scene.append, Ending::Cut);
            scene.accept(&world().patient, &[event]);
            let reading = scene.reading(&world().gateway, hour());
            scene.submit(&world().gateway, &[reading.content]);
        },
    );
}

fn wraps(kit: &mut Kit) {
    let other = &world().other;
    let wrap_by = |scene: &mut Scene, author: &Identity, epoch: EpochId, hour: Hour| {
        let wrap = scene.wrap(author, epoch, hour);
        scene.submit(author, &[wrap]);
    };
    ledger(kit, (FOLDER, Granted::Read), "A9", "reader", "a wrap by who may only read", Some(12), |scene| {
        wrap_by(scene, &world().clinician, EPOCH, hour());
    });
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A9",
        "unknown-epoch",
        "a wrap for an epoch that the room does not have",
        Some(15),
        |scene| {
            wrap_by(scene, &world().gateway, EPOCH_2, hour());
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A9",
        "another-epoch",
        "a wrap for an epoch that the grant does not cover",
        Some(15),
        |scene| {
            let control = scene.epoch(EPOCH_2, None, vec![]);
            accept(scene, &control);
            wrap_by(scene, &world().gateway, EPOCH_2, hour());
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A9",
        "another-day",
        "a wrap for a day of which the grant covers no hour",
        Some(16),
        |scene| {
            let event = scene.grant(other, Right::Append, |g| g.until = Some(hour()));
            scene.accept(&world().patient, &[event]);
            wrap_by(scene, other, EPOCH, Hour((hour().day().0 + 1) * 24));
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A9",
        "ok-one-hour",
        "a wrap for a day of which the grant covers one hour",
        None,
        |scene| {
            let last = hour().day().0 * 24 + 23;
            let event = scene.grant(other, Right::Append, |g| g.from = Some(Hour(last)));
            scene.accept(&world().patient, &[event]);
            wrap_by(scene, other, EPOCH, hour());
        },
    );
    ledger(kit, (FOLDER, Granted::Append), "A9", "revoked", "a wrap after the grant was cut", Some(14), |scene| {
        let event = scene.revoke(scene.append, Ending::Cut);
        scene.accept(&world().patient, &[event]);
        wrap_by(scene, &world().gateway, EPOCH, hour());
    });
    ledger(kit, (FOLDER, Granted::Append), "A9", "short", "a wrap of 1167 bytes", Some(21), |scene| {
        let wrap = scene.wrap(&world().gateway, EPOCH, hour());
        let wrap = with_plain(&wrap, |v| v.at(2).bytes().truncate(1167));
        scene.submit(&world().gateway, &[wrap]);
    });
}

fn content(kit: &mut Kit) {
    let (gateway, other, patient) = (&world().gateway, &world().other, &world().patient);
    ledger(kit, (FOLDER, Granted::Append), "A10", "ok-gateway", "a wrap and content in one run", None, |scene| {
        let events = scene.reading(gateway, hour()).both();
        scene.accept(gateway, &events);
    });
    ledger(kit, (FOLDER, Granted::Append), "A10", "ok-owner", "the owner appends without a grant", None, |scene| {
        let events = scene.reading(patient, hour()).both();
        scene.accept(patient, &events);
    });
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A10",
        "stranger",
        "content by whom the room does not know",
        Some(12),
        |scene| {
            let events = scene.reading(&world().stranger, hour()).both();
            scene.submit(&world().stranger, &events);
        },
    );
    ledger(kit, (FOLDER, Granted::Read), "A10", "reader", "content by who may only read", Some(12), |scene| {
        let wrap = scene.wrap(patient, EPOCH, hour());
        scene.accept(patient, std::slice::from_ref(&wrap));
        let content = scene.content(&world().clinician, EPOCH, wrap.id().into(), hour());
        scene.submit(&world().clinician, &[content]);
    });
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A10",
        "epoch-not-covered",
        "content in an epoch that the grant does not cover",
        Some(15),
        |scene| {
            let control = scene.epoch(EPOCH_2, None, vec![]);
            accept(scene, &control);
            let [wrap, _] = scene.reading(gateway, hour()).both();
            scene.accept(gateway, std::slice::from_ref(&wrap));
            let content = scene.content(gateway, EPOCH_2, wrap.id().into(), hour());
            scene.submit(gateway, &[content]);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A10",
        "owner-unknown-epoch",
        "the owner's content in an epoch that the room does not have",
        Some(15),
        |scene| {
            let wrap = scene.wrap(patient, EPOCH, hour());
            scene.accept(patient, std::slice::from_ref(&wrap));
            let content = scene.content(patient, EPOCH_2, wrap.id().into(), hour());
            scene.submit(patient, &[content]);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A10",
        "wrap-missing",
        "content whose key nobody wrapped",
        Some(18),
        |scene| {
            let reading = scene.reading(gateway, hour());
            scene.submit(gateway, &[reading.content]);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A10",
        "wrap-after",
        "content before its wrap in one run",
        Some(18),
        |scene| {
            let [wrap, content] = scene.reading(gateway, hour()).both();
            scene.submit(gateway, &[content, wrap]);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A10",
        "wrap-of-another-author",
        "content under another author's wrap",
        Some(19),
        |scene| {
            let event = scene.grant(other, Right::Append, |_| {});
            scene.accept(patient, &[event]);
            let wrap = scene.wrap(other, EPOCH, hour());
            scene.accept(other, std::slice::from_ref(&wrap));
            let content = scene.content(gateway, EPOCH, wrap.id().into(), hour());
            scene.submit(gateway, &[content]);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A10",
        "wrap-of-another-day",
        "content under the wrap of the day before",
        Some(19),
        |scene| {
            let wrap = scene.wrap(gateway, EPOCH, Hour(hour().0 - 24));
            let content = scene.content(gateway, EPOCH, wrap.id().into(), hour());
            scene.submit(gateway, &[wrap, content]);
        },
    );
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A10",
        "wrap-of-another-epoch",
        "content under a wrap of another epoch",
        Some(19),
        |scene| {
            let control = scene.epoch(EPOCH_2, Some(EPOCH), vec![scene.append]);
            accept(scene, &control);
            let wrap = scene.wrap(gateway, EPOCH_2, hour());
            let content = scene.content(gateway, EPOCH, wrap.id().into(), hour());
            scene.submit(gateway, &[wrap, content]);
        },
    );
}

fn limits(kit: &mut Kit) {
    ledger(kit, (FOLDER, Granted::Append), "A12", "grant-epochs", "a grant that names 65 epochs", Some(24), |scene| {
        let event = scene.grant(&world().other, Right::Read, |g| g.epochs = vec![EPOCH; 65]);
        scene.submit(&world().patient, &[event]);
    });
    ledger(
        kit,
        (FOLDER, Granted::Append),
        "A12",
        "continues",
        "an epoch that continues 161 grants",
        Some(24),
        |scene| {
            let control = scene.epoch(EPOCH_2, Some(EPOCH), vec![scene.append; 161]);
            submit(scene, &control);
        },
    );
}
