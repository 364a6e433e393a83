//! What was committed comes back byte for byte, whatever form it is stored in.

use std::collections::BTreeMap;

use ehe::checkpoint::log_origin;
use ehe::event::CheckedEvent;
use ehe::id::{EheId, RoomId, StrandId, WrapId};
use ehe::leaf::Leaf;
use ehe::merkle::{inclusion_proof, verify_inclusion};
use ehe::run::{Run, SeenCheckpoint, StrandEnd};
use ehe::time::Hour;
use ehe::wire::Submission;
use proptest::prelude::*;

use super::super::entry::{Admitted, LogName, Names, is_whole};
use super::super::record::{KeptEvent, KeptHeader, Record, What};
use super::super::schema::ReadTables;
use super::super::{known, segments};
use super::*;

const LOG: LogName = LogName { alliance: PLACE.alliance, shard: 0 };

/// The checkpoint that the shard would show now.
fn seen(bench: &Bench) -> SeenCheckpoint {
    let (size, root) = bench.root();
    SeenCheckpoint { origin: log_origin(PLACE.alliance, 0, 0), size, root }
}

/// Signs a run that says what it is told to say.
fn signed(author: &Identity, run: Run, events: &[CheckedEvent]) -> Submission {
    Submission { run: run.sign(author), events: events.iter().map(|event| event.event().clone()).collect() }
}

fn run_of(room: RoomId, author: &Identity, from: StrandEnd, events: &[CheckedEvent]) -> Run {
    let ids = events.iter().map(CheckedEvent::id).collect();
    Run { room, author: author.author_id(), from, ids, seen: None, continues: None }
}

/// The last entry is exactly this submission; returns the bytes that it takes in the log.
fn assert_kept(bench: &Bench, submission: &Submission) -> Vec<u8> {
    let view = bench.store.view().unwrap();
    let last = view.shard().leaves - 1;
    let entry = view.entry(last).unwrap();
    assert!(entry.is_run());
    assert_eq!(entry.bytes, submission.run.0);
    let events: Vec<_> = entry.events.iter().map(|e| (e.header.clone(), e.body.clone())).collect();
    let came: Vec<_> = submission.events.iter().map(|e| (e.header.clone(), Some(e.body.clone()))).collect();
    assert!(events == came, "headers and bodies");
    segments::read(&bench.tables().log, last).unwrap()
}

fn in_parts(record: &[u8]) -> bool {
    matches!(Record::decode(record).unwrap().what, What::Parts { .. })
}

impl Bench {
    fn tables(&self) -> ReadTables {
        ReadTables::open(&self.store.read().unwrap().txn).unwrap()
    }

    fn kept(&mut self, submission: Submission) -> Vec<u8> {
        assert!(matches!(self.submit(submission.clone()), Outcome::Submitted { .. }));
        assert_kept(self, &submission)
    }
}

/// What a run may be like.
#[derive(Debug, Clone)]
struct Odd {
    /// Lengths of the plaintexts.
    events: Vec<usize>,
    hours: i32,
    seen: u8,
    continues: bool,
    fresh_wrap: bool,
    fresh_strand: bool,
}

fn odd() -> impl Strategy<Value = Odd> {
    let lengths = prop::collection::vec(prop_oneof![0..20usize, 200..300usize, 4000..4200usize], 1..6);
    (lengths, -30..3i32, 0..6u8, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(events, hours, seen, continues, fresh_wrap, fresh_strand)| Odd {
            events,
            hours,
            seen,
            continues,
            fresh_wrap,
            fresh_strand,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_admitted_run_comes_back_byte_for_byte(runs in prop::collection::vec(odd(), 1..12)) {
        let mut bench = Bench::new();
        let mut home = home(&mut bench);
        let room = home.patient.room;
        let gateway = home.gateway.identity.clone();
        let (mut wrapped, mut end) = (false, StrandEnd::start(StrandId([1; 8])));
        let mut last_seen = seen(&bench);
        for odd in runs {
            let at = UnixMs(NOON.0.saturating_add_signed(i64::from(odd.hours) * 3_600_000));
            if odd.fresh_wrap || at.day() != NOON.day() {
                home.sealer = Sealer::new(&gateway, &home.patient, at);
                wrapped = false;
            }
            if odd.fresh_strand {
                end = StrandEnd::start(StrandId(people::random()));
            }
            let mut events = if wrapped { vec![] } else { vec![home.sealer.wrap.clone()] };
            events.extend(odd.events.iter().map(|len| home.sealer.seal(&vec![3; *len])));
            let mut run = run_of(room, &gateway, end, &events);
            let now = seen(&bench);
            run.seen = match odd.seen {
                0 => None,
                1 => Some(now.clone()),
                2 => Some(last_seen.clone()),
                3 => Some(SeenCheckpoint { root: Hash([9; 32]), ..now.clone() }),
                4 => Some(SeenCheckpoint { size: now.size + 1, ..now.clone() }),
                _ => Some(SeenCheckpoint { origin: log_origin(PLACE.alliance, 0, 1), ..now.clone() }),
            };
            if odd.continues && end.next == 0 {
                run.continues = Some(StrandEnd { strand: StrandId([2; 8]), next: u64::MAX, link: Hash([4; 32]) });
            }
            last_seen = now;
            end = run.end();
            wrapped = true;
            let record = bench.kept(signed(&gateway, run, &events));
            prop_assert!(in_parts(&record));
        }
    }
}

#[test]
fn the_largest_run_and_bodies_of_any_length_come_back_and_can_be_erased() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    bench.kept(home.gateway.run(&[home.sealer.wrap.clone()]));
    let events: Vec<_> = (0..256).map(|n| home.sealer.seal(&vec![1; n])).collect();
    let submission = home.gateway.run(&events);
    let record = bench.kept(submission.clone());
    let names = bench.tables();
    let names = Names::new(&names, LOG, None);
    let Record { index, accepted_at, control, what } = Record::decode(&record).unwrap();
    let What::Parts { strand, next, link, seen, continues, signature, mut events } = what else { panic!() };
    // As an erasure will leave it: the bodies' hashes in their places, not a byte longer or shorter.
    let erased: Vec<_> = events.iter().map(|event| erased_body(event.body)).collect();
    for (event, body) in events.iter_mut().zip(&erased) {
        *event = KeptEvent { header: event.header.clone(), body, erased: true };
    }
    let what = What::Parts { strand, next, link, seen, continues, signature, events };
    let bytes = Record { index, accepted_at, control, what }.to_vec();
    assert_eq!(bytes.len(), record.len());
    let entry = names.rebuild(bench.root().0 - 1, &Record::decode(&bytes).unwrap()).unwrap();
    assert_eq!(entry.bytes, submission.run.0, "the run's ids are those of the headers, which stand");
    assert!(entry.events.iter().zip(&submission.events).all(|(kept, came)| kept.header == came.header));
    assert!(entry.events.iter().all(|event| event.body.is_none()));
}

#[test]
fn a_record_that_lacks_a_body_or_has_another_is_not_whole_though_its_run_is_the_same() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    bench.kept(home.gateway.run(&[home.sealer.wrap.clone()]));
    let submission = home.gateway.run(&[home.sealer.seal(b"one"), home.sealer.seal(b"two")]);
    let stored = bench.kept(submission.clone());
    let (tables, at) = (bench.tables(), bench.root().0 - 1);
    let names = Names::new(&tables, LOG, None);
    let parts = Record::decode(&stored).unwrap();
    let entry = names.rebuild(at, &parts).unwrap();
    // (the leaf is the same, it is whole)
    let judged = |what: What<'_>| {
        let bytes = Record { what, ..parts.clone() }.to_vec();
        let record = Record::decode(&bytes).unwrap();
        let again = names.rebuild(at, &record).unwrap();
        let same = (again.room, again.index, again.accepted_at, again.control) == {
            (entry.room, entry.index, entry.accepted_at, entry.control)
        };
        (same && again.bytes == submission.run.0, is_whole(&record, &bytes, &again))
    };
    assert_eq!(judged(parts.what.clone()), (true, true));
    let kept: Vec<_> = (entry.events.iter())
        .map(|event| KeptEvent {
            header: KeptHeader::Whole(&event.header),
            body: event.body.as_deref().unwrap(),
            erased: false,
        })
        .collect();
    let whole = |events: Vec<_>| What::Whole { room: entry.room, run: &submission.run.0, events };
    assert_eq!(judged(whole(kept.clone())), (true, true));
    let other = vec![7; kept[1].body.len()];
    let [one, two] = [0, 1].map(|n| kept[n].clone());
    let lies = [
        vec![one.clone()],
        vec![],
        vec![two.clone(), one.clone()],
        vec![one.clone(), KeptEvent { body: &other, ..two.clone() }],
        vec![one.clone(), KeptEvent { body: &[], ..two.clone() }],
        vec![one.clone(), KeptEvent { erased: true, ..two.clone() }],
        vec![one.clone(), two.clone(), two],
    ];
    for lie in lies {
        assert_eq!(judged(whole(lie.clone())), (true, false), "{lie:?}");
    }
    assert_eq!(judged(What::Access { room: entry.room, bytes: &submission.run.0 }), (true, false), "no event at all");
    // A header that stands as it came names a body, in a run in parts as well.
    let What::Parts { strand, next, link, seen, continues, signature, .. } = parts.what.clone() else { panic!() };
    let events = vec![one, KeptEvent { body: &other, ..kept[1].clone() }];
    let in_parts = What::Parts { strand, next, link, seen, continues, signature, events };
    assert_eq!(judged(in_parts), (true, false));
}

fn erased_body(body: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    let mut out = vec![0; body.len()];
    out[..32].copy_from_slice(&sha2::Sha256::digest(body));
    out
}

#[test]
fn an_event_of_the_least_and_of_the_greatest_body_comes_back() {
    use ehe::event::{Core, Event, Header, Kind, Suite, VERSION};
    use sha2::Digest;
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    bench.kept(home.gateway.run(&[home.sealer.wrap.clone()]));
    let sample = home.sealer.seal(b"x");
    for len in [0, 1, 31, 32, 33, 4095, 65_536] {
        let body = vec![8; len];
        let core = Core {
            version: VERSION,
            suite: Suite::One,
            kind: Kind::Note,
            salt: ehe::id::Nonce(people::random()),
            ..sample.core().clone()
        };
        let body_hash = Hash(sha2::Sha256::digest(&body).into());
        let header = ehe::cbor::to_vec(&Header { core, commitment: Hash::ZERO, body_hash });
        let event = Event { header, body }.check().unwrap();
        assert!(in_parts(&bench.kept(home.gateway.run(&[event]))), "{len}");
    }
}

#[test]
fn control_runs_and_access_records_come_back() {
    let mut bench = Bench::new();
    let [owner, reader] = [(); 2].map(|()| Identity::generate(&mut rng()));
    let mut patient = Patient::new(&owner, PLACE.alliance, (0, 1), NOON);
    let events = patient.opening(NOON);
    let opening = patient.writer.run(&events);
    assert!(in_parts(&bench.kept(opening)), "room-create, whose header has no room, too");
    let grant = patient.grant(reader.public(), Right::Read, None, NOON);
    bench.kept(patient.writer.run(std::slice::from_ref(&grant)));
    let revoke = patient.revoke(grant.id(), NOON);
    bench.kept(patient.writer.run(&[revoke]));
    let signed = content(&owner, &patient, NOON);
    let Outcome::Granted { record: Some(at) } = bench.read(&owner, signed.clone()) else { panic!() };
    let entry = bench.store.view().unwrap().entry(at).unwrap();
    assert!(!entry.is_run() && entry.events.is_empty());
    let record = AccessRecord { request: signed, refused: None, reader: None, count: 1, at: NOON };
    assert_eq!((entry.bytes, entry.room, entry.index), (record.to_vec(), patient.room, 3));
}

#[test]
fn a_live_run_keeps_neither_ids_nor_hashes_that_can_be_computed() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    bench.kept(home.gateway.run(&[home.sealer.wrap.clone()]));
    home.gateway.strand.saw(seen(&bench));
    let event = home.sealer.seal(&[7; 100]);
    let submission = home.gateway.run(std::slice::from_ref(&event));
    let record = bench.kept(submission.clone());
    let has = |bytes: &[u8]| record.windows(bytes.len()).any(|window| window == bytes);
    let run = submission.run.decode().unwrap();
    let root = run.claims().seen.as_ref().unwrap().root;
    assert!(!has(event.id().as_bytes()) && !has(event.header().body_hash.as_bytes()) && !has(root.as_bytes()));
    assert!(!has(home.patient.room.as_bytes()) && !has(event.core().author.as_bytes()));
    assert!(has(event.body()) && has(&run.signature()) && has(event.header().commitment.as_bytes()));
    assert!(record.len() <= event.body().len() + 190, "{} bytes", record.len());
}

#[test]
fn what_would_not_come_back_as_it_was_is_kept_as_it_came() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    bench.kept(home.gateway.run(&[home.sealer.wrap.clone()]));
    let other = Sealer::new(&home.gateway.identity, &home.patient, NOON);
    bench.kept(home.gateway.run(std::slice::from_ref(&other.wrap)));
    let events = [home.sealer.seal(b"x"), other.seal(b"y")];
    let submission = home.gateway.linked(&events).0;
    let unverified = submission.run.decode().unwrap();
    let (tables, log_index) = (bench.tables(), bench.root().0);
    let names = Names::new(&tables, LOG, None);
    let stored = |sealer: &Sealer| {
        super::super::view::stored_wrap(&tables, home.patient.room, WrapId::from(sealer.wrap.id())).unwrap().unwrap()
    };
    let (a, b) = (WrapId::from(home.sealer.wrap.id()), WrapId::from(other.wrap.id()));
    let right = BTreeMap::from([(a, stored(&home.sealer)), (b, stored(&other))]);
    // Numbers that name something else: whatever the fault, what is stored gives back what came.
    let wrong = BTreeMap::from([(a, stored(&other)), (b, stored(&home.sealer))]);
    for (wraps, strand, parts) in [(&right, 1, true), (&wrong, 1, false), (&right, 0, false)] {
        let admitted = Admitted {
            log_index,
            index: 3,
            accepted_at: NOON,
            control: 4,
            signed: &submission.run,
            run: unverified.claims(),
            signature: unverified.signature(),
            events: &events,
            incarnation: 0,
            strand,
            wraps,
        };
        let record = admitted.record(&names).unwrap();
        assert_eq!(in_parts(&record), parts);
        let entry = names.rebuild(log_index, &Record::decode(&record).unwrap()).unwrap();
        assert_eq!((&entry.bytes, entry.room), (&submission.run.0, home.patient.room));
        let kept: Vec<_> = entry.events.iter().map(|event| &event.header).collect();
        assert_eq!(kept, submission.events.iter().map(|event| &event.header).collect::<Vec<_>>());
    }
}

#[test]
fn a_run_may_name_a_size_that_the_block_made_in_which_it_is() {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    bench.kept(home.gateway.run(&[home.sealer.wrap.clone()]));
    // More than a row of leaves, so that some are stored before the block ends and some are not.
    let runs: Vec<_> = (0..200u64)
        .map(|n| {
            let event = home.sealer.seal(&n.to_be_bytes());
            let run = home.gateway.run(std::slice::from_ref(&event));
            home.gateway.strand.saw(SeenCheckpoint { size: bench.root().0 + n + 1, ..seen(&bench) });
            run
        })
        .collect();
    let outcomes = bench.block(runs.iter().cloned().map(Command::Submit).collect());
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Submitted { .. })), "{outcomes:?}");
    let (view, last) = (bench.store.view().unwrap(), bench.root().0);
    for (at, run) in (last - 200..last).zip(&runs) {
        assert_eq!(view.entry(at).unwrap().bytes, run.run.0, "{at}");
    }
}

#[test]
fn an_event_is_known_by_hour_and_id_as_far_as_both_go() {
    use known::{find, insert};
    let bench = Bench::new();
    let write = bench.store.write(redb::Durability::Immediate, |tables| {
        let (id, last) = (EheId([5; 32]), ((1 << 40) - 1, 255));
        insert(&mut tables.known, Hour(u32::MAX), id, last)?;
        assert_eq!(find(&tables.known, Hour(u32::MAX), id)?, Some(last));
        assert_eq!(find(&tables.known, Hour(7), id)?, None);
        let mut other = id;
        other.0[11] = 6;
        assert_eq!(find(&tables.known, Hour(u32::MAX), other)?, None);
        for (at, position) in [(1 << 40, 0), (0, 256)] {
            assert!(matches!(insert(&mut tables.known, Hour(7), id, (at, position)), Err(StoreError::Full)));
        }
        Ok(())
    });
    write.unwrap();
}

#[test]
fn records_of_every_length_lie_one_after_the_other_in_full_rows() {
    let bench = Bench::new();
    let record = |n: u64| vec![n.to_le_bytes()[0]; usize::try_from(n * 977 % 9001).unwrap()];
    let write = bench.store.write(redb::Durability::Immediate, |tables| {
        let mut tail = segments::Tail::load(&tables.log)?;
        for n in 0..400 {
            // Every so often as after a restart.
            if n % 7 == 0 {
                tail.store(&mut tables.log)?;
                tail = segments::Tail::load(&tables.log)?;
            }
            tail.append(&mut tables.log, n, &record(n))?;
        }
        tail.store(&mut tables.log)?;
        for n in 0..400 {
            assert!(segments::read(&tables.log, n)? == record(n), "{n}");
        }
        assert!(segments::read(&tables.log, 400).is_err());
        Ok(())
    });
    write.unwrap();
    let tables = bench.tables();
    let rows: Vec<_> =
        redb::ReadableTable::iter(&tables.log).unwrap().map(|row| row.unwrap().1.value().len()).collect();
    assert!(rows[..rows.len() - 1].iter().all(|len| *len == 4076), "a page each, less redb's twenty bytes");
}

#[test]
fn places_leaves_and_proofs_are_those_of_the_log_at_every_size() {
    let mut bench = Bench::new();
    let (mut a, mut b) = (home(&mut bench), home(&mut bench));
    let mut roots = BTreeMap::from([bench.root()]);
    let (mut count, mut order) = ([1u64, 1], vec![(0, 0), (1, 0)]);
    for (n, home) in [&mut a, &mut b].into_iter().enumerate() {
        bench.kept(home.gateway.run(std::slice::from_ref(&home.sealer.wrap)));
        order.push((n, count[n]));
        count[n] += 1;
        roots.extend([bench.root()]);
    }
    for n in 0..270usize {
        let which = usize::from(n % 5 == 0);
        let home = if which == 0 { &mut a } else { &mut b };
        bench.submit(home.gateway.run(&[home.sealer.seal(&n.to_be_bytes())]));
        order.push((which, count[which]));
        count[which] += 1;
        roots.extend([bench.root()]);
    }
    let view = bench.store.view().unwrap();
    let rooms = [a.patient.room, b.patient.room];
    let mut previous = [Hash::ZERO; 2];
    for (log_index, (which, index)) in (0u64..).zip(&order) {
        assert_eq!(view.position(rooms[*which], *index).unwrap(), Some(log_index));
        let entry = view.entry(log_index).unwrap();
        let leaf: Leaf = view.leaf(&entry).unwrap();
        assert_eq!((entry.room, entry.index, leaf.previous), (rooms[*which], *index, previous[*which]));
        previous[*which] = leaf.hash();
        for (size, root) in roots.range(log_index + 1..).step_by(13) {
            let proof = inclusion_proof(&view, log_index, *size).unwrap();
            assert_eq!(verify_inclusion(&leaf.hash(), log_index, *size, &proof, root), Ok(()));
        }
    }
    for (size, root) in &roots {
        assert_eq!(Peaks::load(&view, *size).unwrap().root(), *root);
    }
    for (which, room) in rooms.into_iter().enumerate() {
        let all: Vec<_> =
            (0u64..).zip(&order).filter(|(_, at)| at.0 == which).map(|(at, (_, index))| (*index, at)).collect();
        for (from, size, max) in
            [(0, u64::MAX, 1000), (3, 100, 1000), (63, u64::MAX, 2), (64, 200, 65), (500, u64::MAX, 9)]
        {
            let expected: Vec<_> =
                all.iter().copied().filter(|(index, at)| *index >= from && *at < size).take(max).collect();
            assert_eq!(view.positions(room, from, size, max).unwrap(), expected, "{from} {size} {max}");
        }
        for size in [0, 1, 2, 3, 64, 100, 200, 1000] {
            let expected = all.iter().copied().rfind(|(_, at)| *at < size);
            assert_eq!(view.last(room, size).unwrap(), expected);
        }
        assert_eq!(view.position(room, count[which]).unwrap(), None);
    }
}

#[test]
fn bytes_that_are_no_record_are_none_and_take_no_memory() {
    assert!(Record::decode(&[]).is_none());
    assert!(Record::decode(&[3, 0, 0, 0]).is_none());
    // Form 1 with 2^60 events.
    let mut bytes = vec![1, 0, 0, 0];
    bytes.extend([0; 16]);
    bytes.extend([0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
    assert!(Record::decode(&bytes).is_none());
    let header = KeptHeader::Whole(b"header");
    let events = vec![KeptEvent { header, body: b"body", erased: false }];
    let what = What::Whole { room: RoomId::ZERO, run: b"run", events };
    let record = Record { index: u64::MAX, accepted_at: NOON, control: 0, what };
    let bytes = record.to_vec();
    assert_eq!(Record::decode(&bytes).as_ref(), Some(&record));
    (0..bytes.len()).for_each(|end| assert!(Record::decode(&bytes[..end]).is_none()));
}
