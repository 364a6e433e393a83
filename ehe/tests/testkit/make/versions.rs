//! V1: what a follower makes of an event whose version it does not know.

use ehe::control::Change;
use ehe::event::Event;
use ehe::id::{EheId, Hash};
use ehe::identity::Identity;
use ehe::time::UnixMs;
use ehe::wire::Item;
use sha2::{Digest, Sha256};

use super::Kit;
use super::authority::{accept, record};
use super::follow::{FOLDER, NONCE, input};
use super::log::Log;
use super::recovery::recovering;
use super::scene::{EPOCH, Granted, Reading, Scene, hour, with_header};
use super::world::{recovery, world};
use crate::run::ledger::Entry;
use crate::value::Cbor;

/// A run of somebody over these events, and how many control events its leaf counts.
type Run = (Identity, Vec<Event>, u64);

fn id(event: &Event) -> EheId {
    EheId(Sha256::digest(&event.header).into())
}

/// The opening of a room with two grants, one run that a newer node let in, and content after it.
fn case(
    kit: &mut Kit,
    slug: &str,
    title: &str,
    whole: bool,
    make: impl FnOnce(&mut Scene) -> Run,
    show: impl FnOnce(&mut Vec<Event>),
    verdict: Result<(), Option<u16>>,
) {
    let gateway = &world().gateway;
    let mut scene = Scene::room(Granted::Both);
    scene.now += 1;
    let (by, events, control) = make(&mut scene);
    let at = scene.shard.entries.len();
    let mut run = scene.run(&by, &[]);
    run.ids = events.iter().map(id).collect();
    let mut entries = scene.shard.entries.clone();
    entries.push(Entry { at: UnixMs(scene.now), run: run.sign(&by), events: vec![], control });
    let Reading { wrap, content } = scene.reading(gateway, hour());
    let mut after = scene.run(gateway, &[wrap.clone(), content.clone()]);
    if by.author_id() == gateway.author_id() {
        after.from = run.end();
    }
    entries.push(Entry { at: UnixMs(scene.now), run: after.sign(gateway), events: vec![wrap, content], control });
    let log = Log::from_entries(&scene, entries);
    let mut items: Vec<Item> = (0..log.leaves.len()).map(|at| log.item(at)).collect();
    items[at].events = events;
    show(&mut items[at].events);
    let draft = kit.case(FOLDER, "V1", slug, title, "follow").input(input(whole, &items, &log.head(NONCE)));
    match verdict {
        Ok(()) => draft.valid(),
        Err(None) => draft.invalid(),
        Err(Some(refusal)) => draft.refused(refusal),
    }
}

fn newer(v: &mut Cbor) {
    *v.at(0).at(0) = Cbor::Int(2);
}

/// Of version 2, with members more and a suite that there is not.
fn other_form(v: &mut Cbor) {
    newer(v);
    *v.at(0).at(1) = Cbor::Int(2);
    v.at(0).set(9, Cbor::Text("new".into()));
    v.set(3, Cbor::Int(1));
}

pub(super) fn cases(kit: &mut Kit) {
    let (gateway, patient) = (world().gateway.clone(), world().patient.clone());
    let readings = |change: fn(&mut Cbor)| {
        move |scene: &mut Scene| {
            let Reading { wrap, content } = scene.reading(&world().gateway, hour());
            let other = scene.content(&world().gateway, EPOCH, wrap.id().into(), hour());
            let mut unknown = with_header(&content, change);
            unknown.body = vec![7; 3];
            (world().gateway.clone(), vec![wrap.into_event(), unknown, other.into_event()], 4)
        }
    };
    let title = "content of version 2 between a wrap and content, in a part: it is told, and what follows is read";
    case(kit, "ok-unknown-content-in-a-part", title, false, readings(newer), |_| {}, Ok(()));
    let title = "the same where the whole ledger is shown, its header of another form";
    case(kit, "ok-unknown-content-in-the-ledger", title, true, readings(other_form), |_| {}, Ok(()));
    let title = "content of version 2 that is not the one that its run names";
    let show = |events: &mut Vec<Event>| *events[1].header.last_mut().unwrap() ^= 1;
    case(kit, "unknown-content-altered", title, false, readings(newer), show, Err(None));
    let title = "a run of the whole ledger without its content of version 2";
    let show = |events: &mut Vec<Event>| drop(events.remove(1));
    case(kit, "unknown-content-left-out-of-the-ledger", title, true, readings(newer), show, Err(None));
    let title = "a header of 513 bytes of version 2";
    let long = |v: &mut Cbor| {
        *v.at(0).at(0) = Cbor::Int(2);
        v.set(3, Cbor::Bytes(vec![]));
        let bytes = v.to_vec().len();
        // Two bytes more for the length of what is added.
        v.set(3, Cbor::Bytes(vec![0; 513 - bytes - 2]));
        assert_eq!(v.to_vec().len(), 513);
    };
    case(kit, "unknown-header-oversized", title, false, readings(long), |_| {}, Err(None));
    let title = "a header whose version 2 is written with a byte more";
    let raw = |v: &mut Cbor| *v.at(0).at(0) = Cbor::Raw(vec![0x18, 0x02]);
    case(kit, "unknown-version-long", title, false, readings(raw), |_| {}, Err(None));
    for (slug, whole, place) in [("in-a-part", false, "a part"), ("in-the-ledger", true, "the whole ledger")] {
        let make = |scene: &mut Scene| {
            let grant = scene.grant(&world().other, ehe::control::Right::Read, |_| {});
            (patient.clone(), vec![with_header(&grant, newer)], 5)
        };
        let title =
            format!("a control event of version 2, which the leaf counts, in {place}: what it changed is not known");
        case(kit, &format!("unknown-control-{slug}"), &title, whole, make, |_| {}, Err(None));
    }
    let make = |_: &mut Scene| {
        let header = Cbor::Map(vec![(0, Cbor::Map(vec![(0, Cbor::Int(2))]))]).to_vec();
        (gateway.clone(), vec![Event { header, body: Hash::ZERO.0.to_vec() }], 4)
    };
    let title = "an event of version 2 of which nothing else is known";
    case(kit, "ok-unknown-version-alone", title, true, make, |_| {}, Ok(()));
    let make = |scene: &mut Scene| {
        accept(scene, Change::SetRecovery(recovery().public().commitment()));
        let control = record(scene, recovering(scene, |_, _, _| {}));
        let recover = scene.made_by(&recovery(), &control);
        let header = Cbor::Map(vec![(0, Cbor::Map(vec![(0, Cbor::Int(2))]))]).to_vec();
        (recovery(), vec![Event { header, body: vec![] }, recover.into_event()], 6)
    };
    let title = "a recovery after an event of version 2: a recovery's keys come with a run's first event alone";
    case(kit, "recovery-after-an-unknown-event", title, true, make, |_| {}, Err(Some(12)));
}
