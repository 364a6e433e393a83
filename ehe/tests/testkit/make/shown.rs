//! What a follower makes of changed keys (A14, A18, A4), and the whole way from a reader's keys to readings (K4).

use ehe::control::{Change, Control, Right, Rights, possession};
use ehe::event::{CheckedEvent, Core};
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
use super::limits::with_parties;
use super::log::Log;
use super::scene::{EPOCH, EPOCH_2, Granted, Scene, checked, hour, with_plain};
use super::world::{recovery, seed as seed_of, seeds, world};
use crate::json::{h, packed};
use crate::run::ledger::{Entry, Outcome};
use crate::value::Cbor;

pub(super) fn cases(kit: &mut Kit) {
    keys_changed(kit);
    distrusted_in_part(kit);
    distrusted_reads(kit);
    reads_before_keys_came(kit);
    opened(kit);
}

/// A room with recovery (2), a delegate (3) and the delegate's grant (4); the thief's grant (5) and content with the patient's
/// keys, and a recovery (6) that distrusts them from 5; then the patient's grant and content with the new keys.
fn stolen() -> Scene {
    stolen_and_wrote(1)
}

/// The same; of the content with the stolen keys there are so many events, in one run.
fn stolen_and_wrote(events: usize) -> Scene {
    let mut scene = Scene::room(Granted::None);
    let (patient, thief) = (&world().patient, &world().stranger);
    accept(&mut scene, Change::SetRecovery(recovery().public().commitment()));
    accept(&mut scene, Change::Delegate(delegate().public().clone(), Rights::GRANT, None));
    assert_eq!(grant_by(&mut scene, &delegate(), &world().gateway, Right::Append, |_| {}), Outcome::Accepted);
    let before = scene.reading(patient, hour()).both();
    scene.accept(patient, &before);
    assert_eq!(grant_by(&mut scene, patient, thief, Right::Read, |_| {}), Outcome::Accepted);
    let content: Vec<_> = (0..events).map(|_| scene.content(patient, EPOCH, before[0].id().into(), hour())).collect();
    scene.accept(patient, &content);
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
    let patient = &world().patient;
    let reads = [
        (5, read(&scene, patient, None)),
        (6, read(&scene, patient, None)),
        (7, read(&scene, patient, Some(Refusal::KeysReplaced))),
        (8, read(&scene, &new_keys(), None)),
    ];
    let title = "reads with the owner's keys, one of them with keys that are distrusted from before it";
    with_reads(kit, &scene, &reads, "ok-distrusted-reads", title);
}

fn read(scene: &Scene, by: &Identity, refused: Option<Refusal>) -> AccessRecord {
    AccessRecord { request: scene.request(by).sign(by), refused, reader: None, count: 1, at: UnixMs(scene.now) }
}

/// Of a run of two, the second event with the stolen keys; the grant with them; all else by its leaf alone.
fn distrusted_in_part(kit: &mut Kit) {
    let scene = stolen_and_wrote(2);
    let log = Log::of(&scene);
    let items: Vec<Item> = (0..log.leaves.len())
        .map(|at| {
            let content = log.entries[at].events.iter().filter(|event| event.core().kind.is_content()).count();
            let mut item = log.item(at);
            match content {
                0 => item,
                1 => bare(&log, at),
                _ => {
                    item.events.remove(0);
                    item
                }
            }
        })
        .collect();
    let title = "of a run with stolen keys one event is shown: all that it names are told; of leaves alone none";
    kit.case(FOLDER, "A18", "ok-distrusted-in-part", title, "follow")
        .input(input(false, &items, &log.head(NONCE)))
        .valid();
}

/// Recovery set (2); a thief with the patient's keys rotates to its own (3); a recovery (4) distrusts from 2. A node let the thief
/// read with these keys before they were the owner's.
fn reads_before_keys_came(kit: &mut Kit) {
    let mut scene = Scene::room(Granted::None);
    let thief = &world().stranger;
    accept(&mut scene, Change::SetRecovery(recovery().public().commitment()));
    let rotate = Change::Rotate(thief.public().clone(), possession(thief, scene.id, scene.link));
    accept(&mut scene, rotate);
    let recover = Change::Recover {
        recovery: recovery().public().clone(),
        keys: new_keys().public().clone(),
        possession: possession(&new_keys(), scene.id, scene.link),
        next: Hash::ZERO,
        distrusted_from: Some(2),
    };
    assert_eq!(submit_by(&mut scene, &recovery(), recover), Outcome::Accepted);
    let early = || AccessRecord { reader: Some(thief.public().clone()), ..read(&scene, thief, None) };
    let reads = [(2, early()), (3, early()), (4, read(&scene, thief, None))];
    let title =
        "reads with a thief's keys before they became the owner's, and after: distrusted from 2 on all the same";
    with_reads(kit, &scene, &reads, "ok-distrusted-reads-before-the-keys-came", title);
}

/// The scene's whole ledger, with access records after the last run of each count.
fn with_reads(kit: &mut Kit, scene: &Scene, reads: &[(u64, AccessRecord)], slug: &str, title: &str) {
    let (log, now) = (Log::of(scene), UnixMs(scene.now));
    let reads: Vec<(u64, Vec<u8>)> = reads.iter().map(|(control, record)| (*control, record.to_vec())).collect();
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
            None => Item { leaf, run: None, events: vec![], access, void: None },
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
    let with = Log::from_leaves(scene, log.entries.clone(), leaves);
    kit.case(FOLDER, "A18", slug, title, "follow").input(input(true, &items, &with.head(NONCE))).valid();
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
    wraps_of_any_place(kit);
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

/// The wrap of a story's second epoch, made again with other fields and PartKeys, which content then names: what is asked of it.
fn wraps_of_any_place(kit: &mut Kit) {
    let (gateway, clinician) = (&world().gateway, &world().clinician);
    type Make = fn(&CheckedEvent) -> CheckedEvent;
    let elsewhere = |wrap: &CheckedEvent| {
        let core = Core { room: RoomId([7; 16]), epoch: EPOCH_2, wrap: WrapId([7; 16]), ..wrap.core().clone() };
        checked(core, wrap.header().commitment, wrap.body().to_vec())
    };
    let cases: [(&str, &str, bool, Make); 3] = [
        ("ok-wrap-with-other-fields", "a wrap whose core names another room, an epoch and a wrap", true, elsewhere),
        ("ok-wrap-with-160-part-keys", "a wrap with 160 PartKeys", true, |wrap| with_parties(wrap, 160)),
        ("wrap-with-161-part-keys", "a wrap with 161 PartKeys", false, |wrap| with_parties(wrap, 161)),
    ];
    for (slug, title, opens, make) in cases {
        let mut scene = Scene::room(Granted::Append);
        let seed = scene.seed_wrap(EPOCH, clinician);
        let reads = scene.grant(clinician, Right::Read, |grant| grant.seeds = vec![seed]);
        scene.accept(&world().patient, &[reads]);
        let wrap = make(&scene.wrap(gateway, EPOCH, first_hour()));
        let core = scene.core(gateway, EPOCH, wrap.id().into(), first_hour());
        let content = seal::seal(&Scene::ek(), core, &encoded(&heart_rates(&[72, 74]))).unwrap();
        let run = scene.run(gateway, std::slice::from_ref(&content)).sign(gateway);
        let control = scene.shard.entries.last().unwrap().control;
        let mut entries = scene.shard.entries.clone();
        entries.push(Entry { at: UnixMs(scene.now), run, events: vec![content], control });
        let log = Log::from_entries(&scene, entries);
        let items: Vec<Item> = (0..log.leaves.len()).map(|at| log.item(at)).collect();
        let mut input = input(false, &items, &log.head(NONCE));
        input["wraps"] = json!([packed(&ehe::cbor::to_vec(wrap.event()))]);
        let title = format!("content that names {title}");
        let draft =
            kit.case(FOLDER, "K4", slug, &title, "read").keys(json!({"reader": seeds("clinician")})).input(input);
        if opens { draft.valid() } else { draft.invalid() }
    }
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
