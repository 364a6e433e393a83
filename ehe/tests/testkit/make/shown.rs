//! What a follower makes of changed keys (A14, A18, A4), and the whole way from a reader's keys to readings (K4).

use ehe::control::{Change, Control, Right, Rights, possession};
use ehe::event::CheckedEvent;
use ehe::id::{Hash, RoomId, WrapId};
use ehe::identity::Identity;
use ehe::kem::KemSecret;
use ehe::leaf::Leaf;
use ehe::read::AccessRecord;
use ehe::refusal::Refusal;
use ehe::seal;
use ehe::time::{Hour, UnixMs};
use ehe::wire::Item;
use serde_json::{Value, json};

use super::Kit;
use super::authority::{accept, delegate, grant_by, new_keys, new_patient, submit_by};
use super::bodies::{encoded, heart_rates};
use super::follow::{FOLDER, NONCE, bare, input, ledger_items};
use super::log::Log;
use super::scene::{EPOCH, EPOCH_2, Granted, Scene, hour, with_plain};
use super::world::{recovery, seed as seed_of, seeds, world};
use crate::json::h;
use crate::run::ledger::{Entry, Outcome};
use crate::value::Cbor;

pub(super) fn cases(kit: &mut Kit) {
    keys_changed(kit);
    distrusted_reads(kit);
    opened(kit);
}

/// A room with recovery (2), a delegate (3) and the delegate's grant (4); the thief's grant (5) and content with the patient's
/// keys, and a recovery (6) that distrusts them from 5; then the patient's grant and content with the new keys.
fn stolen() -> Scene {
    let mut scene = Scene::room(Granted::None);
    let (patient, thief) = (&world().patient, &world().stranger);
    accept(&mut scene, Change::SetRecovery(recovery().public().commitment()));
    accept(&mut scene, Change::Delegate(delegate().public().clone(), Rights::GRANT, None));
    assert_eq!(grant_by(&mut scene, &delegate(), &world().gateway, Right::Append, |_| {}), Outcome::Accepted);
    let before = scene.reading(patient, hour()).both();
    scene.accept(patient, &before);
    assert_eq!(grant_by(&mut scene, patient, thief, Right::Read, |_| {}), Outcome::Accepted);
    let content = scene.content(patient, EPOCH, before[0].id().into(), hour());
    scene.accept(patient, &[content]);
    let recover = Change::Recover {
        recovery: recovery().public().clone(),
        keys: new_keys().public().clone(),
        possession: possession(&new_keys(), scene.id, scene.link),
        next: Hash::ZERO,
        distrusted_from: Some(5),
    };
    assert_eq!(submit_by(&mut scene, &recovery(), recover), Outcome::Accepted);
    assert_eq!(grant_by(&mut scene, &new_patient(), &world().other, Right::Append, |_| {}), Outcome::Accepted);
    let content = scene.content(&new_patient(), EPOCH, before[0].id().into(), hour());
    scene.accept(&new_patient(), &[content]);
    scene
}

fn keys_changed(kit: &mut Kit) {
    let mut scene = Scene::room(Granted::None);
    let rotate = Change::Rotate(new_keys().public().clone(), possession(&new_keys(), scene.id, scene.link));
    accept(&mut scene, rotate);
    assert_eq!(grant_by(&mut scene, &new_patient(), &world().other, Right::Append, |_| {}), Outcome::Accepted);
    let log = Log::of(&scene);
    kit.case(FOLDER, "A14", "ok-rotated", "a rotation, and a grant that the new keys signed", "follow")
        .input(input(true, &ledger_items(&log), &log.head(NONCE)))
        .valid();

    let scene = stolen();
    let log = Log::of(&scene);
    let head = log.head(NONCE);
    let title = "a delegate, stolen keys, a recovery that distrusts them: what they signed from then on is told";
    kit.case(FOLDER, "A18", "ok-distrusted", title, "follow").input(input(true, &ledger_items(&log), &head)).valid();
    let part: Vec<Item> = (0..log.leaves.len())
        .map(|at| {
            let content = log.entries[at].events.iter().any(|event| event.core().kind.is_content());
            if content { bare(&log, at) } else { log.item(at) }
        })
        .collect();
    kit.case(FOLDER, "A18", "ok-distrusted-control", "the same by its control records", "follow")
        .input(input(false, &part, &head))
        .valid();
    let mut withheld = part;
    let recovery = log.entries.iter().position(|entry| entry.control == 7).unwrap();
    withheld[recovery] = bare(&log, recovery);
    kit.case(FOLDER, "C0", "recovery-withheld", "a recovery shown by its leaf alone", "follow")
        .input(input(false, &withheld, &head))
        .invalid();
}

/// The whole ledger of [`stolen`], with records of reads among its runs, by the count of control events at which each was asked:
/// with the first keys before and after the thief's first event, refused with them after the recovery, and with the new ones.
fn distrusted_reads(kit: &mut Kit) {
    let scene = stolen();
    let log = Log::of(&scene);
    let (patient, now) = (&world().patient, UnixMs(scene.now));
    let read = |by: &Identity, refused| {
        AccessRecord { request: scene.request(by).sign(by), refused, reader: None, count: 1, at: now }.to_vec()
    };
    let reads = [
        (5, read(patient, None)),
        (6, read(patient, None)),
        (7, read(patient, Some(Refusal::KeysReplaced))),
        (8, read(&new_keys(), None)),
    ];
    let (mut leaves, mut items): (Vec<Leaf>, Vec<Item>) = (Vec::new(), Vec::new());
    let mut add = |entry: Hash, control: u64, item: Option<Item>, access: Option<Vec<u8>>| {
        let leaf = Leaf {
            room: scene.id,
            index: u64::try_from(leaves.len()).unwrap(),
            previous: leaves.last().map_or(Hash::ZERO, Leaf::hash),
            entry,
            accepted_at: now,
            control,
        };
        leaves.push(leaf.clone());
        items.push(match item {
            Some(item) => Item { leaf, ..item },
            None => Item { leaf, run: None, events: vec![], access },
        });
    };
    for (at, entry) in log.entries.iter().enumerate() {
        add(entry.run.hash(), entry.control, Some(log.ledger_item(at)), None);
        // After the last run with that count.
        if log.entries.get(at + 1).is_none_or(|next| next.control > entry.control) {
            for (_, record) in reads.iter().filter(|(control, _)| *control == entry.control) {
                add(ehe::read::record_hash(record), entry.control, None, Some(record.clone()));
            }
        }
    }
    let with = Log::from_leaves(&scene, log.entries.clone(), leaves);
    let title = "reads with the owner's keys, one of them with keys that are distrusted from before it";
    kit.case(FOLDER, "A18", "ok-distrusted-reads", title, "follow")
        .input(input(true, &items, &with.head(NONCE)))
        .valid();
}

/// What a reader of the room is shown.
struct Story {
    log: Log,
    items: Vec<Item>,
    wrap: CheckedEvent,
}

/// The clinician may read two epochs: of the first the grant brings the seed, of the second the epoch record, in which the grant
/// goes on. The gateway appends readings in both; the wrap of the second is not among the items. `group`: whose seed is given and
/// what the first wrap is made to, where that is not the first epoch's group key.
fn story(group: Option<KemSecret>) -> Story {
    let mut scene = Scene::room(Granted::Append);
    let (patient, gateway, clinician) = (&world().patient, &world().gateway, &world().clinician);
    if let Some(group) = group {
        scene.group = group;
    }
    let seed = scene.seed_wrap(EPOCH, clinician);
    // Another's seed stands before the right one, and hides it from nobody.
    let group = std::mem::replace(&mut scene.group, KemSecret::from_seed(seed_of("another's group key").into()));
    let false_seed = scene.seed_wrap(EPOCH, clinician);
    scene.group = group;
    let grant = scene.grant(clinician, Right::Read, |grant| grant.seeds = vec![false_seed, seed]);
    scene.read = grant.id();
    scene.accept(patient, &[grant]);
    append(&mut scene, gateway, EPOCH, None, &[72, 74]);
    scene.group = KemSecret::from_seed(seed_of("second group key").into());
    let mut epoch = scene.epoch(EPOCH_2, Some(EPOCH), vec![scene.append, scene.read]);
    let seed = scene.seed_wrap(EPOCH_2, clinician);
    if let Control::Epoch(record) = &mut epoch {
        record.seeds.push(seed);
    }
    let epoch = scene.made(&epoch);
    scene.accept(patient, &[epoch]);
    let wrap = scene.wrap(gateway, EPOCH_2, first_hour());
    scene.accept(gateway, std::slice::from_ref(&wrap));
    append(&mut scene, gateway, EPOCH_2, Some(&wrap), &[61, 60, 62]);
    let log = Log::of(&scene);
    // The opening, the grant, wrap and content, the epoch, the wrap, content.
    let mut items: Vec<Item> = (0..6).map(|at| log.item(at)).collect();
    items[4] = bare(&log, 4);
    Story { log, items, wrap }
}

/// The hour of the first reading of [`heart_rates`].
fn first_hour() -> Hour {
    Hour(hour().day().0 * 24)
}

/// Heart rates of the scene's day, sealed; with the wrap of their key, where that was not committed yet.
fn append(scene: &mut Scene, author: &Identity, epoch: ehe::id::EpochId, wrap: Option<&CheckedEvent>, rates: &[i64]) {
    let mut events = Vec::new();
    let id: WrapId = match wrap {
        Some(wrap) => wrap.id().into(),
        None => {
            let wrap = scene.wrap(author, epoch, first_hour());
            events.push(wrap.clone());
            wrap.id().into()
        }
    };
    let core = scene.core(author, epoch, id, first_hour());
    events.push(seal::seal(&Scene::ek(), core, &encoded(&heart_rates(rates))).unwrap());
    scene.now += 15_000;
    scene.accept(author, &events);
}

fn opened(kit: &mut Kit) {
    let good = story(None);
    let of = |story: &Story, wraps: &[&CheckedEvent]| -> Value {
        let mut input = input(false, &story.items, &story.log.head(NONCE));
        input["wraps"] = json!(wraps.iter().map(|wrap| h(ehe::cbor::to_vec(wrap.event()))).collect::<Vec<_>>());
        input
    };
    let reader = json!({"reader": seeds("clinician")});
    let title = "from a reader's keys to readings: a grant's seed after a false one, an epoch's, a wrap in a run and one besides";
    kit.case(FOLDER, "K4", "ok-read", title, "read").keys(reader.clone()).input(of(&good, &[&good.wrap])).valid();
    kit.case(FOLDER, "K4", "no-wrap", "content whose wrap was not shown", "read")
        .keys(reader.clone())
        .input(of(&good, &[]))
        .invalid();
    let stranger = json!({"reader": seeds("stranger")});
    kit.case(FOLDER, "K4", "no-seed", "somebody to whom no seed was wrapped", "read")
        .keys(stranger)
        .input(of(&good, &[&good.wrap]))
        .invalid();
    // Everything would open with this seed; but what was sealed to it was not sealed to the epoch.
    let other = story(Some(KemSecret::from_seed(seed_of("no group key").into())));
    kit.case(FOLDER, "K4", "other-seed", "a seed whose public key is not the epoch's group key", "read")
        .keys(reader.clone())
        .input(of(&other, &[&other.wrap]))
        .invalid();
    foreign_wraps(kit, &good, &of, &reader);
    named_wraps(kit);
}

/// Wraps besides that no event names: they count for nothing, whatever they are.
fn foreign_wraps(kit: &mut Kit, good: &Story, of: &dyn Fn(&Story, &[&CheckedEvent]) -> Value, reader: &Value) {
    let mut scene = Scene::room(Granted::Append);
    let gateway = &world().gateway;
    let unnamed = scene.wrap(gateway, EPOCH, first_hour());
    let unknown_epoch = scene.wrap(gateway, ehe::id::EpochId([9; 16]), first_hour());
    let no_wrap = scene.content(gateway, EPOCH, unnamed.id().into(), first_hour());
    let malformed = with_plain(&unnamed, |plain| plain.set(9, Cbor::Int(0)));
    scene.id = RoomId([7; 16]);
    let of_another_room = scene.wrap(gateway, EPOCH, first_hour());
    let title =
        "besides the one that is named, wraps of another room, of an unknown epoch, unnamed, malformed, and content";
    let wraps = [&of_another_room, &unknown_epoch, &unnamed, &malformed, &no_wrap, &good.wrap];
    kit.case(FOLDER, "K4", "ok-foreign-wraps", title, "read").keys(reader.clone()).input(of(good, &wraps)).valid();
}

/// Content that a node let in although its wrap is not one that A10 allows: it would open, and is not opened.
fn named_wraps(kit: &mut Kit) {
    let (gateway, other, clinician) = (&world().gateway, &world().other, &world().clinician);
    type Make = fn(&mut Scene, &CheckedEvent) -> (Identity, Hour, CheckedEvent);
    let cases: [(&str, &str, Make); 3] = [
        ("wrap-of-another-author", "content that names the wrap of another author", |_, wrap| {
            (world().other.clone(), first_hour(), wrap.clone())
        }),
        ("wrap-of-another-day", "content of the day after that of the wrap which it names", |_, wrap| {
            (world().gateway.clone(), Hour(first_hour().0 + 24), wrap.clone())
        }),
        ("named-is-no-wrap", "content that names an event which is no wrap", |scene, wrap| {
            let content = scene.content(&world().gateway, EPOCH, wrap.id().into(), first_hour());
            (world().gateway.clone(), first_hour(), content)
        }),
    ];
    for (slug, title, make) in cases {
        let mut scene = Scene::room(Granted::Append);
        let seed = scene.seed_wrap(EPOCH, clinician);
        let reads = scene.grant(clinician, Right::Read, |grant| grant.seeds = vec![seed]);
        let appends = scene.grant(other, Right::Append, |_| {});
        scene.accept(&world().patient, &[reads, appends]);
        let wrap = scene.wrap(gateway, EPOCH, first_hour());
        scene.accept(gateway, std::slice::from_ref(&wrap));
        let (author, hour, named) = make(&mut scene, &wrap);
        let core = scene.core(&author, EPOCH, named.id().into(), hour);
        let content = seal::seal(&Scene::ek(), core, &encoded(&heart_rates(&[72, 74]))).unwrap();
        let run = scene.run(&author, std::slice::from_ref(&content)).sign(&author);
        let control = scene.shard.entries.last().unwrap().control;
        let mut entries = scene.shard.entries.clone();
        entries.push(Entry { at: UnixMs(scene.now), run, events: vec![content], control });
        let log = Log::from_entries(&scene, entries);
        let items: Vec<Item> = (0..log.leaves.len()).map(|at| log.item(at)).collect();
        let mut input = input(false, &items, &log.head(NONCE));
        input["wraps"] = json!([h(ehe::cbor::to_vec(named.event()))]);
        kit.case(FOLDER, "K4", slug, title, "read").keys(json!({"reader": seeds("clinician")})).input(input).invalid();
    }
}
