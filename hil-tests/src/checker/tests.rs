//! A good history passes; each way of spoiling it is named, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use ehe::id::{AuthorId, EheId, Hash, NodeId, Nonce, RoomId, StrandId};
use ehe::time::UnixMs;

use super::history::{Entry, Finals, History, Outcome, Read, Received, Replica, Right, Room, Sent, Shown, Wrong};
use super::{Limits, Violation, judge};

const ROOM: RoomId = RoomId([1; 16]);
const WRITER: AuthorId = AuthorId([2; 16]);
const READER: AuthorId = AuthorId([3; 16]);
const STRAND: StrandId = StrandId([4; 8]);
const NOON: u64 = 1_700_000_000_000;

fn node(n: u8) -> NodeId {
    NodeId([n; 8])
}

fn nonce(n: u8) -> Nonce {
    Nonce([n; 16])
}

fn hash(n: u8) -> Hash {
    Hash([n; 32])
}

fn run(n: u8, from: u64, content: bool) -> Entry {
    let author = if content { WRITER } else { AuthorId([9; 16]) };
    let strand = if content { STRAND } else { StrandId([n; 8]) };
    Entry::Run { run: hash(n), author, strand, from, events: vec![EheId([n; 32])], content }
}

fn access(n: u8) -> Entry {
    Entry::Access { reader: READER, nonce: nonce(n), refused: false }
}

fn read(n: u8, (sent_ms, ended_ms): (u64, u64), last: u64, head: u64) -> Read {
    let outcome = Outcome::Served { first: 1, last, head: Some(head) };
    Read { room: ROOM, reader: READER, nonce: nonce(n), node: node(1), sent_ms, ended_ms, outcome }
}

/// Granted at 1, written at 2, read by a request recorded at 3, written at 4, revoked at 5, granted again at 6, read at 7.
fn good() -> (History, Finals) {
    let sent = |n| Sent { room: ROOM, run: hash(n), events: vec![EheId([n; 32])], genuine: true };
    let received = |n, index| Received {
        room: ROOM,
        run: hash(n),
        index,
        accepted_at: UnixMs(NOON + index),
        sent_at: UnixMs(NOON),
        got_at: UnixMs(NOON + 100),
    };
    let right = |granted, index, sent_ms, got_ms| Right { room: ROOM, reader: READER, granted, index, sent_ms, got_ms };
    let shown = |size| Shown { origin: "log".into(), size, root: hash(u8::try_from(size).unwrap()) };
    let history = History {
        sent: vec![sent(20), sent(21), Sent { genuine: false, ..sent(30) }],
        received: vec![received(20, 2), received(21, 4)],
        shown: BTreeSet::from([shown(3), shown(8)]),
        rights: vec![right(true, 1, 10, 20), right(false, 5, 50, 60), right(true, 6, 62, 68)],
        reads: vec![
            read(1, (25, 30), 2, 3),
            Read { outcome: Outcome::Refused("no".into()), ..read(2, (61, 62), 0, 0) },
            read(3, (70, 75), 4, 7),
        ],
        wrong: Vec::new(),
    };
    let entries = [
        run(10, 0, false),
        run(11, 0, false),
        run(20, 0, true),
        access(1),
        run(21, 1, true),
        run(12, 0, false),
        run(13, 0, false),
        access(3),
    ];
    let room = Room { entries: entries.into_iter().map(|entry| (entry, UnixMs(NOON))).collect(), last: hash(99) };
    let replica = Replica { rooms: BTreeMap::from([(ROOM, Ok(room))]), shown: BTreeSet::from([shown(8)]), evidence: 0 };
    let replicas = (1..=3).map(|n| (node(n), replica.clone())).collect();
    let finals = Finals {
        replicas,
        own: BTreeSet::from([ROOM]),
        spooled: BTreeMap::from([("home".into(), 0)]),
        unhealed: vec![],
    };
    (history, finals)
}

fn names(history: &History, finals: &Finals) -> BTreeSet<String> {
    let found = judge(history, finals, Limits::default());
    found.iter().map(|violation| violation.to_string().split(": ").next().unwrap().to_owned()).collect()
}

fn spoilt(spoil: impl FnOnce(&mut History, &mut Finals)) -> BTreeSet<String> {
    let (mut history, mut finals) = good();
    spoil(&mut history, &mut finals);
    names(&history, &finals)
}

fn room_of(finals: &mut Finals, n: u8) -> &mut Room {
    finals.replicas.get_mut(&node(n)).unwrap().rooms.get_mut(&ROOM).unwrap().as_mut().unwrap()
}

fn everywhere(finals: &mut Finals, change: impl Fn(&mut Room)) {
    (1..=3).for_each(|n| change(room_of(finals, n)));
}

#[track_caller]
fn only(found: BTreeSet<String>, expected: &[&str]) {
    assert_eq!(found, expected.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
}

#[test]
fn a_history_in_which_everything_holds_has_no_violation() {
    let (history, finals) = good();
    assert_eq!(judge(&history, &finals, Limits::default()), Vec::<Violation>::new());
}

#[test]
fn what_a_receipt_was_given_for_must_be_on_every_replica_at_its_place_once_and_in_order() {
    // A disk that forgot: the last writes of one replica, of all.
    only(spoilt(|_, finals| room_of(finals, 2).entries.truncate(4)), &["lost", "not audited"]);
    only(spoilt(|_, finals| everywhere(finals, |room| room.entries.truncate(4))), &["lost", "not audited"]);
    let twice = |room: &mut Room| room.entries.push((run(21, 2, true), UnixMs(NOON)));
    only(spoilt(|_, finals| everywhere(finals, twice)), &["doubled", "moved"]);
    let swapped = |room: &mut Room| room.entries.swap(2, 4);
    only(spoilt(|_, finals| everywhere(finals, swapped)), &["disordered", "moved"]);
    let gap = |room: &mut Room| room.entries[4].0 = run(21, 2, true);
    only(spoilt(|_, finals| everywhere(finals, gap)), &["disordered"]);
    let more = |room: &mut Room| room.entries.push((run(40, 2, true), UnixMs(NOON)));
    only(spoilt(|_, finals| everywhere(finals, more)), &["invented"]);
    // A run of which no receipt came may be there: its answer was lost on its way.
    let late = Sent { room: ROOM, run: hash(40), events: vec![], genuine: true };
    only(
        spoilt(|history, finals| {
            history.sent.push(late);
            everywhere(finals, more);
        }),
        &[],
    );
}

#[test]
fn replicas_must_show_the_same_ledger_and_one_root_for_each_size() {
    only(spoilt(|_, finals| room_of(finals, 3).entries[0].1 = UnixMs(NOON + 1)), &["differs"]);
    only(spoilt(|_, finals| room_of(finals, 3).last = hash(98)), &["differs"]);
    // One was asked later: it has a record more.
    only(spoilt(|_, finals| room_of(finals, 3).entries.push((access(9), UnixMs(NOON)))), &[]);
    let branch = Shown { origin: "log".into(), size: 3, root: hash(77) };
    only(spoilt(|history, _| assert!(history.shown.insert(branch.clone()))), &["two roots"]);
    let shown = |finals: &mut Finals| assert!(finals.replicas.get_mut(&node(2)).unwrap().shown.insert(branch.clone()));
    only(spoilt(|_, finals| shown(finals)), &["two roots"]);
    only(spoilt(|_, finals| finals.replicas.get_mut(&node(2)).unwrap().evidence = 1), &["two branches"]);
    let unsound = |finals: &mut Finals| {
        let rooms = &mut finals.replicas.get_mut(&node(2)).unwrap().rooms;
        rooms.insert(ROOM, Err("signature".into()));
    };
    only(spoilt(|_, finals| unsound(finals)), &["unsound"]);
}

#[test]
fn a_forged_run_and_a_time_that_is_not_the_time_are_seen_in_the_receipts() {
    let taken = |history: &mut History| {
        let forged = Received { run: hash(30), ..history.received[0].clone() };
        history.received[0] = forged;
    };
    assert!(spoilt(|history, _| taken(history)).contains("forged"));
    let ahead = |history: &mut History, by: u64| history.received[0].accepted_at = UnixMs(NOON + 100 + by);
    only(spoilt(|history, _| ahead(history, 61_000)), &[]);
    only(spoilt(|history, _| ahead(history, 61_001)), &["clock lied"]);
    only(spoilt(|history, _| history.received[0].accepted_at = UnixMs(NOON - 61_001)), &["clock lied"]);
}

#[test]
fn every_read_that_was_served_is_in_every_replicas_audit_before_it_was_served() {
    let record = |room: &mut Room, entry: Entry| room.entries[3].0 = entry;
    only(spoilt(|_, finals| everywhere(finals, |room| record(room, access(8)))), &["not audited"]);
    let refused = Entry::Access { reader: READER, nonce: nonce(1), refused: true };
    only(spoilt(|_, finals| everywhere(finals, |room| record(room, refused.clone()))), &["not audited"]);
    only(spoilt(|_, finals| record(room_of(finals, 2), access(8))), &["differs", "not audited"]);
    // Audited after release: the head that the reader was given does not have the record.
    only(spoilt(|history, _| history.reads[0] = read(1, (25, 30), 2, 2)), &["audited late"]);
    // An answer that broke off after content is a read too.
    let broken = Outcome::Served { first: 1, last: 2, head: None };
    only(spoilt(|history, _| history.reads[0].outcome = broken.clone()), &[]);
    only(
        spoilt(|history, finals| {
            history.reads[0].outcome = broken.clone();
            everywhere(finals, |room| record(room, access(8)));
        }),
        &["not audited"],
    );
}

#[test]
fn nothing_is_served_after_a_revocations_commit_by_the_ledgers_order_or_by_the_clock() {
    // Decided behind the revocation at 5, before the new right at 6: as if that had come at 8.
    only(spoilt(|history, _| history.rights[2].index = 8), &["served after revocation"]);
    // Decided before it, and handed out what came after it.
    only(spoilt(|history, _| history.reads[0] = read(1, (25, 70), 6, 7)), &["served after revocation"]);
    // By the clock: between the revocation's receipt and the new right.
    only(
        spoilt(|history, finals| {
            history.reads.push(read(4, (60, 61), 4, 8));
            history.reads[2] = read(3, (70, 75), 4, 8);
            history.rights[1].got_ms = 59;
            everywhere(finals, |room| room.entries.insert(5, (access(4), UnixMs(NOON))));
            history.rights[1].index = 6;
            history.rights[2].index = 7;
        }),
        &["served after revocation"],
    );
    // Its answer ended when a new right was on its way: nobody can say.
    only(spoilt(|history, _| history.reads[2] = read(3, (61, 62), 4, 7)), &[]);
}

#[test]
fn what_is_not_healed_still_spooled_or_seen_at_once_to_be_wrong_is_told_and_an_idle_history_proves_nothing() {
    only(spoilt(|_, finals| finals.unhealed.push("node 2".into())), &["unhealed"]);
    only(spoilt(|_, finals| *finals.spooled.get_mut("home").unwrap() = 1), &["still spooled"]);
    let wrong = Wrong { who: "writer 1".into(), what: "a receipt for another run".into() };
    only(spoilt(|history, _| history.wrong.push(wrong)), &["wrong"]);
    only(names(&History::default(), &Finals::default()), &["idle"]);
}
