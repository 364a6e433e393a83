//! Runs that an ordering party let in without their authors' signatures, and how they become void.

use ehe::charter::{Charter, Trust};
use ehe::ledger::{Follower, LedgerError, Verified};
use ehe::limits;
use ehe::read::Part;
use ehe::void::{RULES_VOID, VoidRecord};
use ehe::wire::{Item, Submission};

use super::super::apply::{Apply, Carried};
use super::scrub::{rows, scrubbed, store_in, target};
use super::*;
use crate::consensus::Stage;
use crate::scrub::{Finding, Table, What};
use crate::shard::{CharterEntry, Decided, FalseRun};
use crate::test_charters::Alliance;

/// A shard under these rules.
fn bench(rules: u16) -> (Bench, Alliance, Vec<Arc<ehe::charter::VerifiedCharter>>) {
    let alliance = Alliance::of(1);
    let one = Arc::new(alliance.next(None, &[1]).unwrap());
    let raising = Charter { rules: (rules > 1).then_some(rules), ..alliance.charter(Some(&one), &[1]) };
    let two = Arc::new(alliance.signed(&raising, 1).verify(Trust::Predecessor(&one)).unwrap());
    let mut bench = Bench::of(Place { alliance: one.alliance_id(), ..PLACE });
    for charter in [&one, &two] {
        let entry = CharterEntry { signed: charter.signed().encode(), vouched: None };
        assert!(matches!(bench.one(Command::Charter(entry)), Outcome::Charter { .. }));
    }
    assert_eq!(bench.machine.rules().in_force(), rules);
    (bench, alliance, vec![one, two])
}

/// A room in which the gateway's wrap is committed, and one reading.
fn begun(bench: &mut Bench) -> Home {
    let mut home = home(bench);
    bench.submit(home.gateway.run(std::slice::from_ref(&home.sealer.wrap)));
    bench.submit(home.gateway.run(&[home.sealer.seal(b"71")]));
    home
}

/// A run with another signature than its author's.
fn spoilt(mut run: Submission) -> Submission {
    let last = run.run.0.len() - 1;
    run.run.0[last] ^= 1;
    run
}

fn let_in(bench: &mut Bench, home: &mut Home, what: &[&[u8]]) -> (u64, Submission) {
    let events: Vec<_> = what.iter().map(|what| home.sealer.seal(what)).collect();
    let run = spoilt(home.gateway.run(&events));
    let Outcome::Submitted { log_index, .. } = bench.submit(run.clone()) else { panic!() };
    (log_index, run)
}

fn found(bench: &Bench, log_index: u64) -> Option<FalseRun> {
    FalseRun::at(&bench.store.view().unwrap(), log_index).unwrap()
}

fn void(bench: &mut Bench, found: &FalseRun) -> Option<u64> {
    match bench.one(Command::Void(found.clone())) {
        Outcome::Voided { record } => record,
        other => panic!("{other:?}"),
    }
}

/// What a node shows of a room.
fn items(bench: &Bench, room: ehe::id::RoomId, part: Part) -> Vec<Item> {
    let view = bench.store.view().unwrap();
    let at = view.positions(room, 0, u64::MAX, 1000).unwrap();
    let item = |log_index: u64| {
        let entry = view.entry(log_index).unwrap();
        let mut item = Item {
            leaf: view.own_leaf(log_index, &entry).unwrap(),
            run: None,
            events: vec![],
            access: None,
            void: None,
        };
        if entry.void().is_some() {
            item.void = Some(entry.bytes);
        } else if entry.is_run() {
            item.run = Some(ehe::run::SignedRun(entry.bytes));
            item.events = entry
                .events
                .into_iter()
                .map(|e| ehe::event::Event { header: e.header, body: e.body.unwrap() })
                .collect();
        } else if part == Part::Ledger {
            item.access = Some(entry.bytes);
        }
        item
    };
    at.into_iter().map(|(_, log_index)| item(log_index)).collect()
}

fn known(bench: &Bench) -> Vec<Finding> {
    scrubbed(&bench.store, Some(target(bench)), u64::MAX)
}

#[test]
fn a_run_whose_signature_is_false_is_void_once_by_an_entry_of_its_own_and_its_leaf_stays() {
    let (mut bench, ..) = bench(RULES_VOID);
    let mut home = begun(&mut bench);
    let (log_index, forged) = let_in(&mut bench, &mut home, &[b"false", b"and false"]);
    bench.submit(home.gateway.run(&[home.sealer.seal(b"72")]));
    assert_eq!(known(&bench), [Finding { shard: 0, entry: Some(log_index), what: What::Signature }]);

    let before = bench.root();
    let leaf = |bench: &Bench| {
        let view = bench.store.view().unwrap();
        view.leaf(&view.entry(log_index).unwrap()).unwrap()
    };
    let stays = leaf(&bench);
    let it = found(&bench, log_index).unwrap();
    assert_eq!(void(&mut bench, &it), Some(before.0));
    assert_eq!(bench.root().0, before.0 + 1);
    assert_eq!(leaf(&bench), stays);
    let entry = bench.store.view().unwrap().entry(before.0).unwrap();
    let record = entry.void().unwrap();
    assert_eq!((record.index, &record.run), (stays.index, &forged.run));
    assert!(entry.bytes.len() <= limits::VOID_RECORD_MAX_BYTES);
    assert_eq!(entry.room, home.patient.room);
    // Twice is once.
    let after = bench.root();
    assert_eq!(void(&mut bench, &it), None);
    assert_eq!(
        bench.block(vec![Command::Void(it.clone()), Command::Void(it)]),
        vec![Outcome::Voided { record: None }; 2]
    );
    assert_eq!(bench.root(), after);
    assert!(found(&bench, log_index).is_none());
    let is_void = |at: u64| bench.store.view().unwrap().is_void_at(at).unwrap();
    assert_eq!((0..after.0).filter(|at| is_void(*at)).collect::<Vec<_>>(), [log_index]);
    assert_eq!(known(&bench), [], "it was dealt with");

    // Its author may link its events again, and they are known by that.
    let again = home.gateway.run(&forged.events.iter().map(|e| e.clone().check().unwrap()).collect::<Vec<_>>());
    let Outcome::Submitted { log_index: linked, .. } = bench.submit(again.clone()) else { panic!() };
    assert_eq!(bench.submit(again), Outcome::Known(vec![linked]));
    assert_eq!(known(&bench), []);
}

#[test]
fn nobody_voids_what_its_author_signed_and_nothing_is_void_under_the_first_rules() {
    let (mut bench, ..) = bench(RULES_VOID);
    let mut home = begun(&mut bench);
    let (log_index, _) = let_in(&mut bench, &mut home, &[b"false"]);
    let Outcome::Submitted { log_index: good, .. } = bench.submit(home.gateway.run(&[home.sealer.seal(b"72")])) else {
        panic!()
    };
    assert!(found(&bench, good).is_none() && found(&bench, 0).is_none());
    let it = found(&bench, log_index).unwrap();
    // What a lying leader would order: each altered in one place.
    let view = bench.store.view().unwrap();
    let of = |at: u64| {
        let entry = view.entry(at).unwrap();
        let headers: Vec<Vec<u8>> = entry.events.iter().map(|event| event.header.clone()).collect();
        (view.leaf(&entry).unwrap(), ehe::run::SignedRun(entry.bytes), headers)
    };
    let (false_one, true_one, opening) = (of(log_index), of(good), of(0));
    let as_command = |at: u64, (leaf, run, headers): &(ehe::leaf::Leaf, ehe::run::SignedRun, Vec<Vec<u8>>)| {
        FalseRun::of_parts(at, leaf.clone(), run.clone(), headers.clone())
    };
    assert_eq!(as_command(log_index, &false_one), it);
    let mut lies = vec![
        ("a run that its author signed", as_command(good, &true_one)),
        ("the owner's", as_command(0, &opening)),
        ("of another place", as_command(good, &false_one)),
        ("of no place", as_command(u64::MAX, &false_one)),
    ];
    let mut other = true_one.clone();
    other.1 = spoilt(Submission { run: other.1, events: vec![] }).run;
    lies.push(("a true run with its signature altered", as_command(good, &other)));
    let mut with_hash = other.clone();
    with_hash.0.entry = with_hash.1.hash();
    lies.push(("and its leaf", as_command(good, &with_hash)));
    let mut without = false_one.clone();
    without.2.clear();
    lies.push(("without its events", as_command(log_index, &without)));
    let mut swapped = false_one.clone();
    swapped.2 = true_one.2.clone();
    lies.push(("with another's events", as_command(log_index, &swapped)));
    drop(view);
    let before = bench.machine.snapshot().map(|mut it| {
        let mut bytes = Vec::new();
        it.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let root = bench.root();
    for (what, lie) in lies {
        assert_eq!(void(&mut bench, &lie), None, "{what}");
    }
    assert_eq!(bench.root(), root);
    assert!(before.unwrap().len() > 100);
    assert!(void(&mut bench, &it).is_some());

    // Under the first rules it is no command at all.
    let early = Block::new(NOON, 1, vec![Command::Void(it.clone())]).to_vec();
    assert!(Block::decode(&early).is_err());
    assert!(Block::decode(&Block::new(NOON, RULES_VOID, vec![Command::Void(it)]).to_vec()).is_ok());
    let (mut first, ..) = self::bench(1);
    let mut home = begun(&mut first);
    let (log_index, _) = let_in(&mut first, &mut home, &[b"false"]);
    let it = found(&first, log_index).unwrap();
    let root = first.root();
    let block = Bytes::from(Block::new(NOON, RULES_VOID, vec![Command::Void(it)]).to_vec());
    let command = consensus::Command { position: Position { term: 1, index: 99 }, bytes: block };
    let answers = first.machine.apply(&[command], b"meta").unwrap();
    assert_eq!(decode_outcomes(&answers[0]).unwrap(), [Outcome::Refused(Refusal::NoLeader)]);
    assert_eq!(first.root(), root);
    assert_eq!(known(&first), [Finding { shard: 0, entry: Some(log_index), what: What::Signature }], "it is told");
}

#[test]
fn who_follows_the_room_confirms_nothing_before_the_run_is_void_and_sees_it_as_void_then() {
    let (mut bench, alliance, charters) = bench(RULES_VOID);
    let mut home = begun(&mut bench);
    let (log_index, forged) = let_in(&mut bench, &mut home, &[b"false"]);
    let id = bench.place.alliance;
    let room = home.patient.room;
    let follow = |bench: &Bench, whole: bool| {
        let mut follower = Follower::new(room, whole);
        let part = if whole { Part::Ledger } else { Part::Content };
        let taken: Result<Vec<_>, _> =
            items(bench, room, part).into_iter().map(|item| follower.take(item, id)).collect();
        (follower, taken)
    };
    let confirmed = |bench: &Bench, follower: &Follower| {
        let (nonce, node) = (ehe::id::Nonce([1; 16]), &alliance.nodes[0]);
        let view = bench.store.view().unwrap();
        let (_, last) = view.last(room, u64::MAX).unwrap().unwrap();
        let note = alliance.note(&charters[1], bench.root(), &[1]);
        let receipt = view.receipt(last, bench.root().0, &note).unwrap();
        let statement = ehe::wire::HeadStatement {
            room,
            last_leaf: receipt.leaf.hash(),
            log_size: bench.root().0,
            at: NOON,
            nonce,
        };
        let signature = ehe::cose::sign(node, ehe::cose::Domain::Head, ehe::cbor::to_vec(&statement));
        let head = ehe::wire::Head { last: receipt, nonce, at: NOON, signature };
        follower.confirm(&head, nonce, None, &charters[1]).map(drop)
    };
    for whole in [true, false] {
        let (follower, taken) = follow(&bench, whole);
        assert!(matches!(taken.unwrap().last(), Some(Verified::Unsigned(run)) if run.ids.len() == 1));
        let why = confirmed(&bench, &follower).unwrap_err();
        assert!(matches!(why, LedgerError::Signature { index: 3, .. }), "{why}");
    }
    let it = found(&bench, log_index).unwrap();
    void(&mut bench, &it).unwrap();
    bench.submit(home.gateway.run(&[home.sealer.seal(b"72")]));
    for whole in [true, false] {
        let (follower, taken) = follow(&bench, whole);
        let taken = taken.unwrap();
        let author = home.gateway.identity.author_id();
        let is_void = |entry: &Verified| matches!(entry, Verified::Void { index: 3, run } if run.author == author);
        assert!(taken.iter().any(is_void), "{taken:?}");
        let shown = |entry: &Verified| matches!(entry, Verified::Run { events, .. } if events.iter().any(|e| Some(e.event()) == forged.events.first()));
        assert!(!taken.iter().any(shown), "nothing of it is shown as its author's");
        confirmed(&bench, &follower).unwrap();
    }
}

#[test]
fn a_state_with_void_runs_travels_and_one_that_is_altered_about_them_does_not() {
    let (mut bench, alliance, charters) = bench(RULES_VOID);
    let mut home = begun(&mut bench);
    let (log_index, _) = let_in(&mut bench, &mut home, &[b"false", b"and false"]);
    let late = let_in(&mut bench, &mut home, &[b"not void yet"]).0;
    let it = found(&bench, log_index).unwrap();
    void(&mut bench, &it).unwrap();
    let note = alliance.note(&charters[1], bench.root(), &[1]);
    let state = super::incoming::rewritten(&snapshot(&bench.machine), Some(&note), |_| {});
    let take = |state: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), bench.place.alliance, 0, CACHE).unwrap();
        let (known, checkpoints) = (charters.clone(), tokio::sync::watch::channel(Checkpointed::None).1);
        let of = move |version: u32| known.get(version as usize - 1).cloned();
        let machine = ShardMachine::new(bench.place, store.clone(), Arc::new(Board::default())).unwrap();
        let mut machine = machine.attested_by(Notary::new(of, checkpoints));
        let mut stage = machine.stager()()?;
        stage.write(state)?;
        machine.adopt(stage.finish()?, b"meta")?;
        Ok::<_, crate::consensus::MachineError>((dir, store))
    };
    let (_dir, store) = take(&state).unwrap();
    assert_eq!(root(&store), bench.root());
    let open = scrubbed(&store, Some(target(&bench)), u64::MAX);
    assert_eq!(open, [Finding { shard: 0, entry: Some(late), what: What::Signature }]);
    // Without a row of what is known; with those of the void run.
    let all = rows(&bench.store);
    let of_known = |row: &&(u8, Vec<u8>, Vec<u8>)| row.0 == 2;
    let first = all.iter().filter(of_known).position(|row| row.2[..5] == late.to_be_bytes()[3..]).unwrap();
    for (what, change) in [
        (
            "one that is not void, is known by another event",
            Box::new(move |rows: &mut Vec<(u8, Vec<u8>, Vec<u8>)>| {
                let row = rows.iter_mut().filter(|row| row.0 == 2).nth(first).unwrap();
                row.1[14] ^= 1;
            }) as Box<dyn Fn(&mut Vec<(u8, Vec<u8>, Vec<u8>)>)>,
        ),
        (
            "one that is not void, is not known",
            Box::new(move |rows: &mut Vec<(u8, Vec<u8>, Vec<u8>)>| {
                let at = rows.iter().enumerate().filter(|(_, row)| row.0 == 2).nth(first).unwrap().0;
                rows.remove(at);
            }) as Box<dyn Fn(&mut Vec<(u8, Vec<u8>, Vec<u8>)>)>,
        ),
        (
            "one that is void, is known",
            Box::new(move |rows| {
                let at = rows.iter().position(|row| row.0 == 2).unwrap();
                let mut more = rows[at].clone();
                more.1[14] ^= 1;
                more.2[..5].copy_from_slice(&log_index.to_be_bytes()[3..]);
                rows.insert(at + usize::from(more.1 > rows[at].1), more);
            }),
        ),
    ] {
        let altered = super::incoming::rewritten(&state, Some(&note), |rows| change(rows));
        assert!(take(&altered).is_err(), "{what}");
        let mut altered = all.clone();
        change(&mut altered);
        let found = scrubbed(&store_in(&altered, bench.place.alliance), None, u64::MAX);
        assert!(
            found.iter().any(|found| found.what == What::Table(Table::Known) && found.fences()),
            "{what}: {found:?}"
        );
    }
}

#[test]
fn a_pass_that_is_under_way_while_a_run_becomes_void_has_no_wrong_findings() {
    let (mut bench, ..) = bench(RULES_VOID);
    let mut home = begun(&mut bench);
    let (log_index, _) = let_in(&mut bench, &mut home, &[b"false"]);
    let mut walk = crate::scrub::Walk::new(0);
    walk.step(&bench.store.view().unwrap(), None, u64::MAX);
    let it = found(&bench, log_index).unwrap();
    void(&mut bench, &it).unwrap();
    let view = bench.store.view().unwrap();
    walk.step(&view, Some(target(&bench)), u64::MAX);
    walk.finish(&view, Some(target(&bench)));
    assert_eq!(walk.pass().findings, [Finding { shard: 0, entry: Some(log_index), what: What::Signature }]);
    assert_eq!(known(&bench), []);
    // A record that is of no use is the fault of those that let it in.
    let record = VoidRecord { index: 0, run: ehe::run::SignedRun(vec![0x80]) };
    assert!(VoidRecord::decode(&record.to_vec()).is_ok());
}

#[test]
fn more_false_signatures_than_a_pass_lists_do_not_keep_it_from_what_is_damaged_behind_them() {
    use crate::scrub::REPORTS_MAX;
    let (mut bench, ..) = bench(RULES_VOID);
    let mut home = begun(&mut bench);
    let forged: Vec<u64> = (0..REPORTS_MAX + 9).map(|n| let_in(&mut bench, &mut home, &[&n.to_be_bytes()]).0).collect();
    bench.submit(home.gateway.run(&[home.sealer.seal(b"72")]));
    let signature = |entry: &u64| Finding { shard: 0, entry: Some(*entry), what: What::Signature };
    let listed: Vec<Finding> = forged.iter().take(REPORTS_MAX).map(signature).collect();
    assert_eq!(known(&bench), listed);

    // A row of the last run's event is gone.
    let last = bench.root().0 - 1;
    let mut altered = rows(&bench.store);
    altered.retain(|row| row.0 != 2 || row.2[..5] != last.to_be_bytes()[3..]);
    let found = scrubbed(&store_in(&altered, bench.place.alliance), None, u64::MAX);
    assert!(found.iter().any(Finding::fences), "{found:?}");

    // While a pass is under way, some of those that it lists become void, and some that it does not.
    let mut walk = crate::scrub::Walk::new(0);
    walk.step(&bench.store.view().unwrap(), None, u64::MAX);
    for run in forged[..3].iter().chain(&forged[REPORTS_MAX..REPORTS_MAX + 3]) {
        let it = found_at(&bench, *run);
        void(&mut bench, &it).unwrap();
    }
    let view = bench.store.view().unwrap();
    walk.step(&view, Some(target(&bench)), u64::MAX);
    walk.finish(&view, Some(target(&bench)));
    assert_eq!(walk.pass().findings, listed);
    drop(view);
    // The next pass lists what is left, and when all of it is void, nothing is.
    let left: Vec<u64> = known(&bench).iter().filter_map(|found| found.entry).collect();
    assert_eq!(left.len(), REPORTS_MAX.min(forged.len() - 6));
    assert!(known(&bench).iter().all(|found| found.what == What::Signature));
    for run in left {
        let it = found_at(&bench, run);
        void(&mut bench, &it).unwrap();
    }
    assert_eq!(known(&bench), forged[REPORTS_MAX + 3 + 3..].iter().map(signature).collect::<Vec<_>>()[..]);
}

#[test]
fn rules_that_a_block_raises_do_not_hold_for_what_follows_in_it() {
    let (mut bench, alliance, charters) = bench(1);
    let mut home = begun(&mut bench);
    let (log_index, _) = let_in(&mut bench, &mut home, &[b"false"]);
    let it = found_at(&bench, log_index);
    let raising = Charter { rules: Some(RULES_VOID), ..alliance.charter(Some(&charters[1]), &[1]) };
    let three = alliance.signed(&raising, 1).verify(Trust::Predecessor(&charters[1])).unwrap();
    let entry = CharterEntry { signed: three.signed().encode(), vouched: None };
    // No encoded block is like that: the next rules may have commands that are in a block of these.
    let mut block = Block::new(NOON, 1, vec![Command::Charter(entry), Command::Void(it)]);
    let view = bench.store.view().unwrap();
    let known = super::super::charters::Charters::load(&view.tables().meta, bench.place.alliance).unwrap();
    let mut carried = Carried::load(view.tables(), view.shard(), known, Default::default()).unwrap();
    let mut applied = |block: Block| {
        let outcomes = bench.store.write(redb::Durability::None, |tables| {
            let mut apply = Apply::new(bench.place, tables, &mut carried);
            let outcomes = apply.block(block)?;
            apply.finish()?;
            Ok(outcomes)
        });
        outcomes.unwrap()
    };
    assert_eq!(
        applied(block.clone()),
        [Outcome::Charter { version: 3, vouched: true }, Outcome::Voided { record: None }]
    );
    block.commands.remove(0);
    assert!(matches!(applied(block)[..], [Outcome::Voided { record: Some(_) }]), "in the next one it is void");
}

#[test]
fn a_void_run_is_shown_to_the_patient_alone_and_what_its_author_signed_to_all_though_a_row_is_gone() {
    use crate::access::{Audited, Release};
    use ehe::wire::Response;
    let (mut bench, ..) = bench(RULES_VOID);
    let mut home = begun(&mut bench);
    let (log_index, _) = let_in(&mut bench, &mut home, &[b"false"]);
    let good = let_signed(&mut bench, &mut home);
    let signed = content(&home.clinician, &home.patient, NOON);
    let outcome = bench.read(&home.clinician, signed.clone());
    let Some(Decided::Granted(committed)) = Decided::of(&signed, &outcome) else { panic!() };
    let pages = |store: &Store| {
        let (view, asked) = (store.view().unwrap(), signed.decode().unwrap().trust_ordering_party());
        let room = view.room(home.patient.room).unwrap().unwrap();
        let granted = ehe::room::decide(bench.place.alliance, &room, &asked, NOON).unwrap();
        let control = view.entry(committed.record()).unwrap().control;
        let audited = Audited::committed(granted, &signed, &committed, control).unwrap();
        let page = Release::new(bench.place.alliance, audited).page(&view, u64::MAX, NOON).unwrap();
        let items = page.frames.iter().filter_map(|frame| match Response::decode(&frame.bytes).unwrap() {
            Response::Item(item) => Some((view.position(home.patient.room, item.leaf.index).unwrap(), item)),
            _ => None,
        });
        let with_events = items.filter(|(_, item)| !item.events.is_empty() && item.leaf.index > 1);
        with_events.map(|(at, _)| at.unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(pages(&bench.store), [2, log_index, good], "it is not void yet");
    // Of a run that its author signed the row is gone.
    let mut altered = rows(&bench.store);
    altered.retain(|row| row.0 != 2 || row.2[..5] != good.to_be_bytes()[3..]);
    let damaged = store_in(&altered, bench.place.alliance);
    assert_eq!(pages(&damaged), [2, log_index, good]);
    let store = bench.store.clone();
    let it = found_at(&bench, log_index);
    let block = Block::new(NOON, RULES_VOID, vec![Command::Void(it)]).to_vec();
    let command = consensus::Command { position: Position { term: 1, index: 99 }, bytes: block.into() };
    bench.machine.apply(&[command], b"meta").unwrap();
    assert_eq!(pages(&store), [2, good]);
}

fn let_signed(bench: &mut Bench, home: &mut Home) -> u64 {
    let Outcome::Submitted { log_index, .. } = bench.submit(home.gateway.run(&[home.sealer.seal(b"72")])) else {
        panic!()
    };
    log_index
}

fn found_at(bench: &Bench, log_index: u64) -> FalseRun {
    found(bench, log_index).unwrap()
}
