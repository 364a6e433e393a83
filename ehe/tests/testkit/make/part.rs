//! L2, L3: of a run that is shown in part, what is asked and what is not.

use ehe::event::{CheckedEvent, Event};
use ehe::identity::Identity;
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use ehe::wire::Item;

use super::Kit;
use super::follow::{FOLDER, NONCE, input};
use super::log::{Log, scene_with_readings};
use super::scene::{EPOCH, Granted, Reading, Scene, hour, with_plain};
use super::world::world;
use crate::run::ledger::Entry;
use crate::value::Cbor;

pub(super) fn cases(kit: &mut Kit) {
    order(kit);
    wraps(kit);
    twice(kit);
    fields(kit);
}

/// The opening, and a run of a wrap and content, whose events are shown as `change` leaves them.
fn shown(kit: &mut Kit, slug: &str, title: &str, change: impl FnOnce(&mut Vec<Event>)) {
    let log = Log::of(&scene_with_readings(1));
    let mut item: Item = log.item(1);
    change(&mut item.events);
    let input = input(false, &[log.item(0), item], &log.head(NONCE));
    kit.case(FOLDER, "L2", slug, title, "follow").input(input).invalid();
}

fn order(kit: &mut Kit) {
    shown(kit, "event-shown-twice", "a run in part, one of its events shown twice", |events| {
        let content = events.remove(1);
        events[0] = content.clone();
        events.push(content);
    });
    shown(kit, "events-out-of-order", "the events of a run in another order than it names them", |events| {
        events.swap(0, 1);
    });
    let log = Log::of(&scene_with_readings(1));
    let mut opening = log.item(0);
    opening.events.swap(2, 3);
    let input = input(false, &[opening, log.item(1)], &log.head(NONCE));
    let title = "the grants of the opening in another order than their run names them";
    kit.case(FOLDER, "L2", "control-out-of-order", title, "follow").input(input).invalid();
}

/// The room of two grants, and a run that a node let in, whoever made it.
fn let_in(
    by: &Identity,
    make: impl FnOnce(&mut Scene) -> Vec<CheckedEvent>,
    show: impl FnOnce(&mut Vec<Event>),
) -> (Log, Item) {
    let mut scene = Scene::room(Granted::Both);
    scene.now += 1;
    let events = make(&mut scene);
    let run = scene.run(by, &events).sign(by);
    let mut entries = scene.shard.entries.clone();
    entries.push(Entry { at: UnixMs(scene.now), run, events, control: 4 });
    let log = Log::from_entries(&scene, entries);
    let mut item = log.item(1);
    show(&mut item.events);
    (log, item)
}

fn wraps(kit: &mut Kit) {
    let (gateway, clinician) = (&world().gateway, &world().clinician);
    let mut case =
        |slug: &str, title: &str, whole: bool, (log, item): (Log, Item), outcome: Option<Option<Refusal>>| {
            let input = input(whole, &[log.item(0), item], &log.head(NONCE));
            let draft = kit.case(FOLDER, "L3", slug, title, "follow").input(input);
            match outcome {
                None => draft.valid(),
                Some(None) => draft.invalid(),
                Some(Some(refusal)) => draft.refused(refusal.code()),
            }
        };
    let wrap = |scene: &mut Scene, by: &Identity| vec![scene.wrap(by, EPOCH, hour())];
    let readers = || let_in(clinician, |scene| wrap(scene, clinician), |_| {});
    case(
        "ok-a-readers-wrap-in-a-part",
        "a wrap by who may only read, in a part: it is not judged",
        false,
        readers(),
        None,
    );
    let title = "the same wrap where the whole ledger is shown: it is judged";
    case("a-readers-wrap-in-the-ledger", title, true, readers(), Some(Some(Refusal::NotInvited)));
    let malformed = let_in(
        gateway,
        |scene| {
            let wrap = scene.wrap(gateway, EPOCH, hour());
            vec![with_plain(&wrap, |plain| plain.set(9, Cbor::Int(0)))]
        },
        |_| {},
    );
    let title = "a wrap whose plain part is malformed, in a part: it is not judged";
    case("ok-a-malformed-wrap-in-a-part", title, false, malformed, None);
    let anothers = let_in(clinician, |scene| wrap(scene, gateway), |_| {});
    let title = "a wrap that names another author than its run, in a part";
    case("anothers-wrap-in-a-part", title, false, anothers, Some(Some(Refusal::EventOutOfPlace)));
    let altered = let_in(gateway, |scene| wrap(scene, gateway), |events| events[0].body[9] ^= 1);
    case("altered-wrap-in-a-part", "a wrap whose body was altered, in a part", false, altered, Some(None));
    let reading = |scene: &mut Scene, by: &Identity| {
        let Reading { wrap, content } = scene.reading(by, hour());
        vec![wrap, content]
    };
    let both = let_in(clinician, |scene| reading(scene, clinician), |events| events[0].body[9] ^= 1);
    let title = "content without a right after a wrap whose body was altered: the form of all events is asked first";
    case("form-before-rights", title, false, both, Some(None));
    let both = let_in(clinician, |scene| reading(scene, clinician), |events| events.truncate(1));
    let title = "the wrap alone of a run whose content is without a right, in a part: what is not shown is not judged";
    case("ok-a-run-without-its-content", title, false, both, None);
}

/// Runs that name one event twice, and an event that two runs name.
fn twice(kit: &mut Kit) {
    let gateway = &world().gateway;
    let mut scene = scene_with_readings(1);
    let wrap = scene.shard.entries[1].events[0].id().into();
    let content = scene.content(gateway, EPOCH, wrap, hour());
    for (slug, title, whole, shown) in [
        ("named-twice-in-part", "a run that names one event twice, shown once", false, 1),
        ("named-twice-in-the-ledger", "a run that names one event twice, shown whole", true, 2),
    ] {
        let events = vec![content.clone(), content.clone()];
        let run = scene.run(gateway, &events).sign(gateway);
        let mut entries = scene.shard.entries.clone();
        entries.push(Entry { at: UnixMs(scene.now), run, events, control: 4 });
        let log = Log::from_entries(&scene, entries);
        let mut items: Vec<Item> = (0..3).map(|at| log.item(at)).collect();
        items[2].events.truncate(shown);
        kit.case(FOLDER, "A1", slug, title, "follow")
            .input(input(whole, &items, &log.head(NONCE)))
            .refused(Refusal::EventRepeated.code());
    }
    let mut entries = scene.shard.entries.clone();
    let before = entries[1].events[1].clone();
    let run = scene.run(gateway, std::slice::from_ref(&before)).sign(gateway);
    entries.push(Entry { at: UnixMs(scene.now), run, events: vec![before], control: 4 });
    let log = Log::from_entries(&scene, entries);
    let items: Vec<Item> = (0..3).map(|at| log.ledger_item(at)).collect();
    let title = "an event that a node committed twice, in two runs: who follows does not ask it";
    kit.case(FOLDER, "R4", "ok-committed-twice", title, "follow").input(input(true, &items, &log.head(NONCE))).valid();
}

/// A1's fields and a control event's form: asked where the ledger is shown, of content in a part nothing of it.
fn fields(kit: &mut Kit) {
    let gateway = &world().gateway;
    let without_wrap = || {
        let make = |scene: &mut Scene| vec![scene.content(gateway, EPOCH, ehe::id::WrapId::ZERO, hour())];
        let_in(gateway, make, |_| {})
    };
    let mut case =
        |rule: &str, slug: &str, title: &str, whole: bool, (log, item): (Log, Item), refusal: Option<u16>| {
            let input = input(whole, &[log.item(0), item], &log.head(NONCE));
            let draft = kit.case(FOLDER, rule, slug, title, "follow").input(input);
            match refusal {
                None => draft.valid(),
                Some(refusal) => draft.refused(refusal),
            }
        };
    let title = "content without a wrap's id, in a part: of A1's fields nothing is asked";
    case("L3", "ok-content-without-a-wrap-id-in-a-part", title, false, without_wrap(), None);
    let title = "the same where the whole ledger is shown";
    case("A1", "content-without-a-wrap-id", title, true, without_wrap(), Some(4));
    let malformed = |scene: &mut Scene| {
        let wrap = scene.wrap(gateway, EPOCH, hour());
        vec![with_plain(&wrap, |plain| plain.set(9, Cbor::Int(0)))]
    };
    let title = "a wrap whose plain part is malformed, where the whole ledger is shown";
    case("L3", "a-malformed-wrap-in-the-ledger", title, true, let_in(gateway, malformed, |_| {}), Some(21));
    let stranger = &world().stranger;
    let strangers = let_in(stranger, |scene| scene.reading(stranger, hour()).both().to_vec(), |_| {});
    case("L3", "a-strangers-run-in-a-part", "a run by nobody whom the room knows", false, strangers, Some(12));
}
