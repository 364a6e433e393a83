//! Whatever is altered in the tables, a scrub finds it; and what is as it was written, it does not call altered.

use ehe::control::{Authority, Change, possession};
use ehe::wire::Submission;

use super::super::entry::LogName;
use super::super::export::{self, Export};
use super::super::record::{Record, What as Kept};
use super::super::schema::Tables;
use super::super::{segments, store};
use super::*;
use crate::scrub::{Fault, Finding, Pass, Remedy, Table, Target, Walk, What};
use crate::shard::entry::Names;
use crate::shard::replay::Log;

pub(super) type Rows = Vec<(u8, Vec<u8>, Vec<u8>)>;

const META: u8 = 0;
const LOG: u8 = 1;
const KNOWN: u8 = 2;
const LEAVES: u8 = 3;
const NODES: u8 = 4;
const HEADS: u8 = 5;
const ROOMS: u8 = 7;
const STRANDS: u8 = 8;
const READ_REFUSALS: u8 = 13;
const RUN_REFUSALS: u8 = 14;
const TABLES: u8 = 16;

/// Two rooms with everything that a shard can hold: rotated keys, a delegate's worth of control records, wraps, several strands,
/// access records, refusals that are counted and kept, more entries than a list of places and a stored subtree take.
fn lived() -> Bench {
    let mut bench = Bench::new();
    let mut first = home(&mut bench);
    let mut second = home(&mut bench);
    for home in [&mut first, &mut second] {
        bench.submit(home.gateway.run(std::slice::from_ref(&home.sealer.wrap)));
    }
    for n in 0..66u64 {
        bench.submit(first.gateway.run(&[first.sealer.seal(&n.to_be_bytes())]));
    }
    // The owner writes, replaces the keys, and writes on.
    let old = first.patient.writer.identity.clone();
    let sealer = Sealer::new(&old, &first.patient, NOON);
    bench.submit(first.patient.writer.run(&[sealer.wrap.clone(), sealer.seal(b"a note")]));
    let (new, link) = (Identity::generate(&mut rng()), first.patient.link());
    let change = Change::Rotate(new.public().clone(), possession(&new, first.patient.room, link));
    let control = ehe::control::Control::Authority(Authority { link, change, seeds: vec![] });
    let event = first.patient.control(&control, NOON);
    assert!(matches!(bench.submit(first.patient.writer.run(&[event])), Outcome::Submitted { .. }));
    // A strand of another start of the gateway, a read, one that is refused twice, and a run that is refused.
    let mut again = Writer::new(&first.gateway.identity, first.patient.room);
    bench.submit(again.run(&[first.sealer.seal(b"again"), first.sealer.seal(b"and again")]));
    assert!(matches!(
        bench.read(&first.clinician, content(&first.clinician, &first.patient, NOON)),
        Outcome::Granted { record: Some(_) }
    ));
    let stranger = Identity::generate(&mut rng());
    for _ in 0..2 {
        bench.read(&stranger, content(&stranger, &second.patient, NOON));
    }
    let lone = Writer::new(&second.gateway.identity, second.patient.room);
    let other = Sealer::new(&second.gateway.identity, &second.patient, NOON);
    assert!(matches!(bench.submit(lone.linked(&[other.seal(b"no wrap")]).0), Outcome::Refused(_)));
    let revoked = second.patient.revoke(second.read_grant, NOON);
    bench.submit(second.patient.writer.run(&[revoked]));
    bench
}

pub(super) fn target(bench: &Bench) -> Target {
    let (size, root) = bench.root();
    Target { incarnation: 0, size, root }
}

/// A whole pass, `events` at a step, put down and taken up between steps.
pub(super) fn scrubbed(store: &Store, cosigned: Option<Target>, events: u64) -> Vec<Finding> {
    let mut pass = Pass::default();
    loop {
        let Ok(view) = store.view() else {
            return vec![Finding { shard: 0, entry: None, what: What::Unreadable("the view".into()) }];
        };
        let mut walk = Walk::resume(0, pass);
        let step = walk.step(&view, cosigned, events);
        if step.caught_up {
            walk.finish(&view, cosigned);
            return walk.so_far().findings.clone();
        }
        assert!(step.events >= events && step.entries > 0);
        pass = walk.pass();
    }
}

pub(super) fn rows(store: &Store) -> Rows {
    let mut stream = Vec::new();
    Export::new(&store.read().unwrap(), None).unwrap().read_to_end(&mut stream).unwrap();
    // Behind the name, the format, and a note of no length.
    let (mut rest, mut rows) = (&stream[9 + 4 + 4..stream.len() - 9], Rows::new());
    while !rest.is_empty() {
        let (table, key, value) = export::take_row(&mut rest).unwrap();
        rows.push((table, key.to_vec(), value.to_vec()));
    }
    rows
}

/// A store with these rows and no others.
fn store_of(rows: &Rows) -> Store {
    store_in(rows, PLACE.alliance)
}

pub(super) fn store_in(rows: &Rows, alliance: AllianceId) -> Store {
    let file = store::OpenFile::on(&store::builder(CACHE), redb::backends::InMemoryBackend::new()).unwrap();
    let txn = store::begin(file.db().unwrap(), redb::Durability::Immediate).unwrap();
    let mut tables = Tables::open(&txn).unwrap();
    rows.iter().for_each(|(table, key, value)| tables.import(*table, key, value).unwrap());
    drop(tables);
    txn.commit().unwrap();
    Store::of(file, LogName { alliance, shard: 0 }, None, CACHE)
}

fn machine_of(store: &Store) -> ShardMachine {
    ShardMachine::new(PLACE, store.clone(), Arc::new(Board::default())).unwrap()
}

#[test]
fn a_shard_that_is_as_it_was_written_has_no_findings_however_long_the_steps_are() {
    let bench = lived();
    for events in [1, 7, u64::MAX] {
        assert_eq!(scrubbed(&bench.store, Some(target(&bench)), events), [], "{events} at a step");
    }
    assert_eq!(scrubbed(&store_of(&rows(&bench.store)), Some(target(&bench)), 9), []);
}

#[test]
fn a_pass_that_is_under_way_while_the_shard_grows_ends_with_all_of_it() {
    let mut bench = lived();
    let (mut walk, mut more) = (Walk::new(0), home(&mut bench));
    bench.submit(more.gateway.run(std::slice::from_ref(&more.sealer.wrap)));
    for n in 0..40u64 {
        let step = walk.step(&bench.store.view().unwrap(), None, 3);
        assert!(!step.caught_up);
        bench.submit(more.gateway.run(&[more.sealer.seal(&n.to_be_bytes())]));
        let grant = more.patient.grant(Identity::generate(&mut rng()).public(), Right::Read, None, NOON);
        bench.submit(more.patient.writer.run(&[grant]));
    }
    let view = bench.store.view().unwrap();
    assert!(walk.step(&view, Some(target(&bench)), u64::MAX).caught_up);
    walk.finish(&view, Some(target(&bench)));
    assert_eq!(walk.so_far().findings, []);
    assert_eq!(walk.so_far().next, bench.root().0);
}

/// Bytes from which nothing that is stored follows; see the scrub's own text.
fn follows_from_nothing(table: u8, key: &[u8], before: &[u8], after: &[u8]) -> bool {
    let meta = |bytes| ehe::cbor::from_slice::<ShardMeta>(bytes, 256).ok();
    match (table, key) {
        (META, b"applied") => true,
        (META, b"shard") => {
            let (Some(before), Some(after)) = (meta(before), meta(after)) else { return false };
            let same = ShardMeta { time: before.time, blocks: before.blocks, ..after };
            same == before && after.time >= NOON
        }
        (READ_REFUSALS, _) => AccessRecord::decode(after).is_ok_and(|after| {
            AccessRecord::decode(before).is_ok_and(|before| before.request == after.request && after.refused.is_some())
        }),
        (RUN_REFUSALS, _) => true,
        _ => false,
    }
}

#[test]
fn whatever_byte_of_whatever_row_is_altered_it_is_found() {
    let bench = lived();
    let (all, cosigned) = (rows(&bench.store), target(&bench));
    let mut tried = [0u32; TABLES as usize];
    for (n, (table, key, value)) in all.iter().enumerate() {
        let len = key.len() + value.len();
        // Every byte of what is short; of the log and of long rows one here and there, at other places in each row.
        let stride = match *table {
            LOG => 607,
            KNOWN => 11,
            HEADS | META => 1,
            _ => (len / 10).max(1) | 1,
        };
        for at in ((n * 7) % stride..len).step_by(stride) {
            let mut altered = all.clone();
            let (_, key_now, value_now) = &mut altered[n];
            let byte = if at < key.len() { &mut key_now[at] } else { &mut value_now[at - key.len()] };
            *byte ^= 1 << (at % 7);
            let (key_now, value_now) = (key_now.clone(), value_now.clone());
            tried[usize::from(*table)] += 1;
            if key_now == *key && follows_from_nothing(*table, key, value, &value_now) {
                continue;
            }
            if key_now != *key && (*table == RUN_REFUSALS || *table == META && key == b"applied") {
                continue;
            }
            let store = store_of(&altered);
            let found = scrubbed(&store, Some(cosigned), u64::MAX);
            assert!(!found.is_empty(), "table {table}, row {n}, byte {at} of {}+{}", key.len(), value.len());
        }
    }
    assert!(tried.iter().all(|tried| *tried > 0), "every table has rows here: {tried:?}");
}

#[test]
fn rows_that_are_missing_doubled_or_swapped_are_found() {
    let bench = lived();
    let (all, cosigned) = (rows(&bench.store), target(&bench));
    for table in 0..TABLES {
        if [RUN_REFUSALS, READ_REFUSALS].contains(&table) {
            continue;
        }
        let of: Vec<usize> = (0..all.len()).filter(|n| all[*n].0 == table).collect();
        for n in of.iter().step_by(of.len().div_ceil(6)) {
            if all[*n].1 == b"applied" {
                continue;
            }
            let mut without = all.clone();
            without.remove(*n);
            let found = scrubbed(&store_of(&without), Some(cosigned), u64::MAX);
            assert!(!found.is_empty(), "table {table}, row {n} is missing");
        }
        // Two values change places.
        if let [a, .., b] = of[..]
            && all[a].2 != all[b].2
        {
            let mut swapped = all.clone();
            (swapped[a].2, swapped[b].2) = (all[b].2.clone(), all[a].2.clone());
            let found = scrubbed(&store_of(&swapped), Some(cosigned), u64::MAX);
            assert!(!found.is_empty(), "table {table}, {a} and {b} swapped");
        }
    }
    // A whole table's tail.
    for table in [LOG, LEAVES, NODES, KNOWN, ROOMS, STRANDS] {
        let mut cut = all.clone();
        let last = cut.iter().rposition(|row| row.0 == table).unwrap();
        cut.remove(last);
        let found = scrubbed(&store_of(&cut), Some(cosigned), u64::MAX);
        assert!(found.iter().any(Finding::fences), "table {table}: {found:?}");
    }
}

#[test]
fn an_altered_body_is_the_disks_doing_and_another_node_has_it() {
    let bench = lived();
    let all = rows(&bench.store);
    let (entry, sealed) = {
        let entry = bench.store.view().unwrap().entry(40).unwrap();
        (40, entry.events[0].body.clone().unwrap())
    };
    let mut altered = all.clone();
    let needle = &sealed[100..120];
    let row = altered.iter_mut().find(|row| row.0 == LOG && row.2.windows(20).any(|window| window == needle)).unwrap();
    let at = row.2.windows(20).position(|window| window == needle).unwrap();
    row.2[at] ^= 0x10;
    let found = scrubbed(&store_of(&altered), Some(target(&bench)), u64::MAX);
    assert_eq!(
        found,
        [Finding { shard: 0, entry: Some(entry), what: What::Leaf }],
        "one entry, and nobody's signature"
    );
    assert_eq!((found[0].what.fault(), found[0].what.remedy(), found[0].fences()), (Fault::Disk, Remedy::Fetch, true));
}

/// The ordering party lets a run in that nobody signed.
fn let_in(bench: &mut Bench, home: &mut Home) -> (u64, Submission) {
    let mut forged = home.gateway.run(&[home.sealer.seal(b"false")]);
    let last = forged.run.0.len() - 1;
    forged.run.0[last] ^= 1;
    let Outcome::Submitted { log_index, .. } = bench.submit(forged.clone()) else { panic!() };
    (log_index, forged)
}

#[test]
fn a_false_signature_that_an_ordering_party_let_in_is_found_and_is_not_the_disks_doing() {
    let mut bench = lived();
    let mut home = home(&mut bench);
    bench.submit(home.gateway.run(std::slice::from_ref(&home.sealer.wrap)));
    let (log_index, _) = let_in(&mut bench, &mut home);
    bench.submit(home.gateway.run(&[home.sealer.seal(b"true")]));
    let found = scrubbed(&bench.store, Some(target(&bench)), 11);
    assert_eq!(found, [Finding { shard: 0, entry: Some(log_index), what: What::Signature }]);
    assert_eq!((found[0].what.fault(), found[0].fences()), (Fault::Orderer, false));
    assert!(found[0].to_string().contains("tell the alliance's members"), "{}", found[0]);
}

#[test]
fn rules_of_a_room_that_were_altered_are_found_as_such_and_nobody_is_accused_of_forging() {
    let bench = lived();
    let all = rows(&bench.store);
    let view = bench.store.view().unwrap();
    let room = view.entry(0).unwrap().room;
    let mut state = view.room(room).unwrap().unwrap();
    // The keys of the gateway, under which 66 runs verify, are other ones.
    let other = Identity::generate(&mut rng());
    state.grants.values_mut().for_each(|grant| grant.subject_key = other.public().sign);
    let mut altered = all;
    let row = altered.iter_mut().find(|row| row.0 == ROOMS && row.1 == room.as_bytes()).unwrap();
    row.2 = ehe::cbor::to_vec(&state);
    let found = scrubbed(&store_of(&altered), Some(target(&bench)), u64::MAX);
    assert!(!found.is_empty() && found.iter().all(|found| found.what == What::Table(Table::Rooms)), "{found:?}");
}

#[test]
fn a_control_run_for_which_no_quorum_vouches_has_to_be_signed_by_who_may() {
    let bench = lived();
    let (at, room) = {
        let view = bench.store.view().unwrap();
        let at = view.shard().leaves - 1;
        (at, view.entry(at).unwrap().room)
    };
    let leads = |store: &Store, room, vouched| {
        let view = store.view().unwrap();
        let (tables, name, state) = (view.tables(), view.log_name(), view.room(room).unwrap().unwrap());
        Log { tables, name, vouched }.leads_to(&Names::new(tables, name, None), room, &state).unwrap()
    };
    let first = bench.store.view().unwrap().entry(0).unwrap().room;
    assert!(first != room && [0, at, u64::MAX].iter().all(|vouched| leads(&bench.store, room, *vouched)));
    assert!(leads(&bench.store, first, 0), "with keys that were replaced since");
    let mut forged = rows(&bench.store);
    let signature = bench.store.view().unwrap().entry(at).unwrap().bytes;
    let needle = &signature[signature.len() - 20..];
    let row = forged.iter_mut().rfind(|row| row.0 == LOG && row.2.windows(20).any(|window| window == needle)).unwrap();
    let place = row.2.windows(20).position(|window| window == needle).unwrap();
    row.2[place] ^= 1;
    let forged = store_of(&forged);
    assert!(leads(&forged, room, at + 1), "a quorum took it in");
    assert!(!leads(&forged, room, at));
}

#[test]
fn a_tree_that_is_whole_in_itself_and_not_the_cosigned_one_is_found() {
    let bench = lived();
    let cosigned = Target { root: Hash([9; 32]), ..target(&bench) };
    let found = scrubbed(&bench.store, Some(cosigned), u64::MAX);
    assert_eq!(found, [Finding { shard: 0, entry: None, what: What::Root(cosigned.size) }]);
    let earlier = Target { size: 30, ..cosigned };
    assert_eq!(scrubbed(&bench.store, Some(earlier), 4)[0].what, What::Root(30));
}

/// The shard's rows with one byte of an entry's body altered, and which entry that is.
fn damaged(bench: &Bench, log_index: u64) -> Rows {
    let body = bench.store.view().unwrap().entry(log_index).unwrap().events[0].body.clone().unwrap();
    let mut altered = rows(&bench.store);
    let needle = &body[100..120];
    let row = altered.iter_mut().find(|row| row.0 == LOG && row.2.windows(20).any(|window| window == needle)).unwrap();
    let at = row.2.windows(20).position(|window| window == needle).unwrap();
    row.2[at] ^= 0x10;
    altered
}

#[test]
fn a_damaged_entry_is_had_again_from_a_replica_and_from_no_liar() {
    let mut bench = lived();
    let store = store_of(&damaged(&bench, 40));
    let mut machine = machine_of(&store);
    let view = store.view().unwrap();
    assert!(view.own_leaf(40, &view.entry(40).unwrap()).is_err(), "it is told nobody");
    assert!(view.rows_of(40).is_err(), "nor is it handed on as if it were sound");
    drop(view);
    let good = bench.store.view().unwrap().rows_of(40).unwrap();
    // Altered anywhere, cut, of another entry, with a row more, or in another order: refused, and nothing is changed.
    let before = rows(&store);
    let mut lies = vec![vec![], bench.store.view().unwrap().rows_of(41).unwrap()];
    for (n, row) in good.iter().enumerate() {
        for at in (0..row.bytes.len()).step_by(97) {
            let mut lie = good.clone();
            lie[n].bytes[at] ^= 1;
            lies.push(lie);
        }
        let mut short = good.clone();
        short[n].bytes.pop();
        let mut moved = good.clone();
        moved[n].key.1 += 1;
        lies.extend([short, moved]);
    }
    let mut doubled = good.clone();
    doubled.extend(good.clone());
    lies.push(doubled);
    for lie in lies {
        // Rows of a neighbour may hold this entry too, and then they are as good as any.
        let store = store_of(&before);
        match store.mend(40, &lie) {
            Ok(()) => assert_eq!(scrubbed(&store, Some(target(&bench)), u64::MAX), []),
            Err(_) => assert!(rows(&store) == before),
        }
    }
    store.mend(40, &good).unwrap();
    assert!(rows(&store) == rows(&bench.store), "byte for byte what the replica has");
    assert_eq!(scrubbed(&store, Some(target(&bench)), u64::MAX), []);
    // Both go on alike.
    let mut more = home(&mut bench);
    bench.submit(more.gateway.run(std::slice::from_ref(&more.sealer.wrap)));
    for bytes in bench.blocks[bench.blocks.len() - 2..].iter().cloned() {
        let position = Position { term: 1, index: 1 };
        machine.apply(&[consensus::Command { position, bytes }], b"applied").unwrap();
    }
    assert_eq!(root(&store), bench.root());
    assert_eq!(scrubbed(&store, Some(target(&bench)), u64::MAX), []);
}

#[test]
fn the_last_entry_is_mended_though_the_replica_has_more_by_now() {
    let mut bench = lived();
    let last = bench.root().0 - 1;
    let entry = bench.store.view().unwrap().entry(last).unwrap();
    let (before, cosigned) = (rows(&bench.store), target(&bench));
    let mut altered = before.clone();
    let signature = &entry.bytes[entry.bytes.len() - 40..];
    let row =
        altered.iter_mut().find(|row| row.0 == LOG && row.2.windows(40).any(|window| window == signature)).unwrap();
    let at = row.2.windows(40).position(|window| window == signature).unwrap();
    row.2[at] ^= 0x10;
    let store = store_of(&altered);
    let found = scrubbed(&store, Some(cosigned), u64::MAX);
    assert_eq!(found.iter().map(|found| found.entry).collect::<Vec<_>>(), [Some(last)]);
    let mut more = home(&mut bench);
    bench.submit(more.gateway.run(std::slice::from_ref(&more.sealer.wrap)));
    store.mend(last, &bench.store.view().unwrap().rows_of(last).unwrap()).unwrap();
    assert!(rows(&store) == before, "and no byte of what came later");
    assert_eq!(scrubbed(&store, Some(cosigned), u64::MAX), []);
}

/// A record of a run as an erasure of its first event's body would leave it: of the same length, with the same leaf. `None`: it is of no run, or
/// the body is too short for that.
pub(super) fn as_if_erased(record: &[u8]) -> Option<Vec<u8>> {
    use sha2::Digest;
    let mut decoded = Record::decode(record).unwrap();
    let Kept::Parts { events, .. } = &mut decoded.what else { return None };
    let event = events.first_mut().filter(|event| event.body.len() >= 32)?;
    let mut left = vec![0; event.body.len()];
    left[..32].copy_from_slice(&sha2::Sha256::digest(event.body));
    (event.body, event.erased) = (&left, true);
    let lie = decoded.to_vec();
    assert_eq!(lie.len(), record.len());
    Some(lie)
}

#[test]
fn a_body_that_somebody_says_was_erased_is_found_had_again_and_taken_from_no_liar() {
    let bench = lived();
    let (all, view) = (rows(&bench.store), bench.store.view().unwrap());
    let replaced = |row: &mut Vec<u8>, record: &[u8], lie: &[u8]| {
        let at = row.windows(record.len()).position(|window| window == record);
        at.map(|at| row[at..at + record.len()].copy_from_slice(lie)).is_some()
    };
    // One whose record lies in one row.
    let (log_index, altered, record, lie) = (20..60u64)
        .find_map(|log_index| {
            let record = segments::read(&view.tables().log, log_index).unwrap();
            let (lie, mut altered) = (as_if_erased(&record)?, all.clone());
            let found = altered.iter_mut().any(|row| row.0 == LOG && replaced(&mut row.2, &record, &lie));
            found.then_some((log_index, altered, record, lie))
        })
        .unwrap();
    let store = store_of(&altered);
    let lost = store.view().unwrap().entry(log_index).unwrap();
    assert!(lost.events[0].body.is_none());
    assert_eq!(store.view().unwrap().own_leaf(log_index, &lost).unwrap().hash(), {
        view.own_leaf(log_index, &view.entry(log_index).unwrap()).unwrap().hash()
    });
    assert!(store.view().unwrap().rows_of(log_index).is_err(), "it is not handed on");
    let found = scrubbed(&store, Some(target(&bench)), u64::MAX);
    assert_eq!(found, [Finding { shard: 0, entry: Some(log_index), what: What::Record }]);
    assert_eq!((found[0].what.fault(), found[0].what.remedy()), (Fault::Disk, Remedy::Fetch));
    let good = view.rows_of(log_index).unwrap();
    let mut lies = good.clone();
    assert!(lies.iter_mut().any(|row| replaced(&mut row.bytes, &record, &lie)));
    let damaged = store_of(&damaged(&bench, log_index));
    let before = rows(&damaged);
    assert!(damaged.mend(log_index, &lies).is_err());
    assert!(rows(&damaged) == before);
    store.mend(log_index, &good).unwrap();
    assert!(rows(&store) == all, "byte for byte what the replica has");
}

#[test]
fn a_run_of_two_events_that_one_row_would_tell_of_is_refused_and_no_replica_finds_its_tables_damaged() {
    crate::shard::known::tests::PREFIX.set(3);
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    bench.submit(home.gateway.run(std::slice::from_ref(&home.sealer.wrap)));
    let mut sealed = std::collections::BTreeMap::new();
    let twins = loop {
        let event = home.sealer.seal(b"72");
        let prefix = *event.id().0.first_chunk::<3>().unwrap();
        if let Some(twin) = sealed.insert(prefix, event.clone()) {
            break [twin, event];
        }
    };
    let before = bench.root();
    assert_eq!(bench.submit(home.gateway.linked(&twins).0), Outcome::Refused(Refusal::EventRepeated));
    assert_eq!(bench.root(), before);
    // Each by itself: the second one is known by the first, as another run's would be.
    let [one, other] = twins;
    assert!(matches!(bench.submit(home.gateway.run(&[one])), Outcome::Submitted { .. }));
    assert_eq!(bench.submit(home.gateway.run(&[other])), Outcome::Known(vec![before.0]));
    assert_eq!(scrubbed(&bench.store, Some(target(&bench)), u64::MAX), []);
}
