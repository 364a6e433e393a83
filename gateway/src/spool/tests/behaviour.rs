//! What each request does, seen from outside.

use redb::ReadableTable;

use super::disk::{Disk, Unsynced};
use super::*;

pub(super) fn start(lab: &Lab) -> (Disk, Spool, SpoolThread) {
    let disk = Disk::new(Vec::new());
    let (spool, thread) = lab.open(&disk).unwrap();
    (disk, spool, thread)
}

#[tokio::test]
async fn only_a_redelivery_of_the_same_session_is_a_duplicate() {
    let lab = Lab::new();
    let (_disk, spool, _thread) = start(&lab);
    let send = async |mark: Mark| {
        let intake = Intake { mark: Some(mark), ..message(60) };
        store(&spool, intake).await.duplicate
    };
    assert!(!send(mark(1, false, 9)).await);
    assert!(send(mark(1, true, 9)).await, "the same, marked as redelivered");
    assert!(!send(mark(1, false, 9)).await, "the same digits again, and the packet id is free again");
    assert!(!send(mark(1, true, 8)).await, "a redelivery of something that never arrived");
    assert!(!send(mark(2, true, 9)).await, "another packet id");
    assert!(!send(Mark { source: "other".into(), ..mark(1, true, 9) }).await, "another broker");
    // Four further messages: what lies behind them cannot be redelivered.
    for id in 10..14 {
        assert!(!send(mark(id, false, 9)).await);
    }
    assert!(!send(mark(1, true, 9)).await, "packet ids come round");
    spool.new_session_queued("mqtt".into()).unwrap();
    assert!(!send(mark(13, true, 9)).await, "a new session has no redeliveries of the old one");
    assert!(send(Mark { source: "other".into(), ..mark(1, true, 9) }).await, "the other broker's session goes on");
}

#[tokio::test]
async fn a_full_spool_acknowledges_nothing_more_and_goes_on_by_itself_once_there_is_room() {
    let mut lab = Lab::new();
    lab.limits.max_bytes = 2_000;
    let (_disk, spool, _thread) = start(&lab);
    let mut stored = 0;
    let mut changed = spool.changed();
    let mut waiting = loop {
        let mut storing = spool.store(message(60 + stored)).await.unwrap();
        // A message that gives no readings needs no room: its answer says that the writer has looked at all before it.
        tokio::select! {
            biased;
            done = &mut storing.0 => { done.unwrap(); stored += 1; }
            () = until(|| spool.status().full) => break storing,
        }
    };
    assert!(stored > 3 && spool.status().totals.bytes() >= 2_000);
    let behind = spool.store(Intake { rows: Vec::new(), ..message(0) }).await.unwrap();
    // Everything else works meanwhile.
    let taken = spool.take(window(1), usize::MAX).await.unwrap();
    let event = content(1, 1, WrapId::ZERO, &taken.readings);
    let id = event.id();
    spool.seal(taken.rows, taken.broken, vec![new_event(event, taken.readings.len(), false)]).await.unwrap();
    changed.changed().await.unwrap();
    spool.ask(Request::Confirm { room: room(1), ids: vec![id] }).await.unwrap();
    (&mut waiting.0).await.unwrap();
    behind.durable().await.unwrap();
    assert!(!spool.status().full);
    assert_eq!(census(&spool).await.values().sum::<usize>(), 1, "the one that had waited");
}

#[tokio::test]
async fn more_than_one_commit_covers_is_stored_without_a_further_order() {
    let mut lab = Lab::new();
    lab.limits.max_bytes = 1;
    let (_disk, spool, _thread) = start(&lab);
    store(&spool, message(60)).await;
    let mut waiting = vec![spool.store(message(61)).await.unwrap()];
    for _ in 0..STORES_IN_FLIGHT_MAX / 2 + 100 {
        waiting.push(spool.store(Intake { rows: Vec::new(), ..message(0) }).await.unwrap());
    }
    until(|| spool.status().waiting == waiting.len()).await;
    let taken = spool.take(window(1), usize::MAX).await.unwrap();
    let event = content(1, 1, WrapId::ZERO, &taken.readings);
    let id = event.id();
    spool.seal(taken.rows, taken.broken, vec![new_event(event, 1, false)]).await.unwrap();
    spool.ask(Request::Confirm { room: room(1), ids: vec![id] }).await.unwrap();
    let all = async {
        for storing in waiting {
            storing.durable().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
}

/// Waits for a condition of another thread.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn alarms_go_first_and_take_the_wrap_that_they_need_along() {
    let lab = Lab::new();
    let (_disk, spool, _thread) = start(&lab);
    let (first_wrap, second_wrap) = (wrap(1, 1), wrap(1, 2));
    let (one, two) = (WrapId::from(first_wrap.id()), WrapId::from(second_wrap.id()));
    let old = content(1, 3, one, &[reading(60)]);
    let later = content(1, 4, two, &[reading(61)]);
    let alarm = content(1, 5, two, &[reading(200)]);
    let ids = [&first_wrap, &second_wrap, &old, &later, &alarm].map(CheckedEvent::id);
    let put = async |events: Vec<NewEvent>| spool.seal(Vec::new(), Vec::new(), events).await.unwrap();
    put(vec![new_event(first_wrap, 0, false), new_event(old, 1, false)]).await;
    put(vec![new_event(second_wrap, 0, false), new_event(later, 1, false)]).await;
    assert!(!spool.backlog()[0].urgent);
    put(vec![new_event(alarm, 1, true)]).await;
    assert!(spool.backlog()[0].urgent);
    let order = |batch: Vec<StoredEvent>| batch.iter().map(|stored| stored.id).collect::<Vec<_>>();
    let batch = spool.batch(room(1), 10, usize::MAX).await.unwrap();
    assert_eq!(order(batch), [ids[1], ids[4], ids[0], ids[2], ids[3]]);
    assert_eq!(order(spool.batch(room(1), 2, usize::MAX).await.unwrap()), [ids[1], ids[4]]);
    assert_eq!(order(spool.batch(room(1), 10, 0).await.unwrap()), [ids[1]], "at least one");
    assert!(spool.batch(room(2), 10, usize::MAX).await.unwrap().is_empty());
}

#[tokio::test]
async fn urgent_rooms_come_first_then_the_oldest() {
    let lab = Lab::new();
    let (_disk, spool, _thread) = start(&lab);
    for (n, oldest, urgent) in [(1, 30, false), (2, 20, false), (3, 40, true)] {
        let event = content(n, n, WrapId::ZERO, &[reading(60)]);
        let event = NewEvent { oldest: UnixMs(oldest), ..new_event(event, 1, urgent) };
        spool.seal(Vec::new(), Vec::new(), vec![event]).await.unwrap();
    }
    let order: Vec<_> = spool.backlog().iter().map(|b| (b.room, b.events, b.oldest.0)).collect();
    assert_eq!(order, [(room(3), 1, 40), (room(2), 1, 20), (room(1), 1, 30)]);
}

#[tokio::test]
async fn confirming_deletes_what_the_receipt_names_and_is_harmless_twice() {
    let lab = Lab::new();
    let (disk, spool, thread) = start(&lab);
    let (a, b) =
        (content(1, 1, WrapId::ZERO, &[reading(60)]), content(1, 2, WrapId::ZERO, &[reading(61), reading(62)]));
    let (a_id, b_id) = (a.id(), b.id());
    spool.seal(Vec::new(), Vec::new(), vec![new_event(a, 1, false), new_event(b, 2, true)]).await.unwrap();
    let confirm = async |spool: &Spool, ids: Vec<EheId>| match spool.ask(Request::Confirm { room: room(1), ids }).await
    {
        Ok(Answer::Confirmed(confirmed)) => (confirmed.events, confirmed.readings),
        other => panic!("{other:?}"),
    };
    assert_eq!(confirm(&spool, vec![b_id, EheId([9; 32])]).await, (1, 2));
    assert_eq!(confirm(&spool, vec![b_id]).await, (0, 0));
    assert_eq!(spool.backlog()[0].events, 1);
    tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    let (spool, _thread) = lab.open(&Disk::new(disk.image(Unsynced::Kept))).unwrap();
    assert_eq!(spool.batch(room(1), 9, 9).await.unwrap()[0].id, a_id);
    assert_eq!(confirm(&spool, vec![a_id]).await, (1, 1));
    assert!(spool.backlog().is_empty());
    assert_eq!(spool.status().totals.bytes(), 0);
}

#[tokio::test]
async fn rows_that_were_taken_twice_are_refused_and_nothing_changes() {
    let lab = Lab::new();
    let (_disk, spool, _thread) = start(&lab);
    store(&spool, message(60)).await;
    let taken = spool.take(window(1), usize::MAX).await.unwrap();
    let event = |salt| vec![new_event(content(1, salt, WrapId::ZERO, &taken.readings), 1, false)];
    spool.seal(taken.rows.clone(), Vec::new(), event(1)).await.unwrap();
    assert!(matches!(spool.seal(taken.rows.clone(), Vec::new(), event(2)).await, Err(SpoolError::Conflict)));
    assert_eq!(spool.backlog()[0].events, 1);
}

#[tokio::test]
async fn a_refused_event_is_kept_aside_and_comes_back_behind_what_is_new_when_rights_return() {
    let mut lab = Lab::new();
    lab.limits.quarantine_max_bytes = 1_200;
    let (_disk, spool, _thread) = start(&lab);
    let wrap = wrap(1, 1);
    let wrap_id = WrapId::from(wrap.id());
    let (a, b) = (content(1, 2, wrap_id, &[reading(60)]), content(1, 3, wrap_id, &[reading(61)]));
    let ids = [wrap.id(), a.id(), b.id()];
    let events = vec![new_event(wrap, 0, false), new_event(a, 1, false), new_event(b, 1, false)];
    spool.seal(Vec::new(), Vec::new(), events).await.unwrap();
    spool.quarantine(room(1), ids[0], Refusal::GrantRevoked).await.unwrap();
    spool.quarantine(room(1), ids[1], Refusal::GrantRevoked).await.unwrap();
    assert_eq!(spool.status().totals.quarantine_events, 2);
    let full = spool.quarantine(room(1), ids[2], Refusal::EventMalformed).await;
    assert!(matches!(full, Err(SpoolError::QuarantineFull)));
    assert_eq!(spool.backlog()[0].events, 1, "it stays in the outbox");
    assert_eq!(spool.release(room(2), Retry::RIGHTS).await.unwrap().0, 0);
    assert_eq!(spool.release(room(1), Retry::RIGHTS).await.unwrap().0, 2);
    let batch = spool.batch(room(1), 9, usize::MAX).await.unwrap();
    assert_eq!(
        batch.iter().map(|stored| stored.id).collect::<Vec<_>>(),
        [ids[0], ids[2], ids[1]],
        "the wrap before all"
    );
    // What is malformed stays aside whatever the rights are.
    spool.quarantine(room(1), ids[2], Refusal::EventMalformed).await.unwrap();
    assert_eq!(spool.release(room(1), Retry::RIGHTS).await.unwrap().0, 0);
    // Until it is tried again for whatever reason.
    assert_eq!(spool.release(room(1), Retry::ALL).await.unwrap().0, 1);
    spool.quarantine(room(1), ids[2], Refusal::EventMalformed).await.unwrap();
    // And an event that was in the ledger after all leaves from there.
    spool.ask(Request::Confirm { room: room(1), ids: vec![ids[2]] }).await.unwrap();
    assert_eq!(spool.status().totals.quarantine_events, 0);
}

#[tokio::test]
async fn messages_gather_for_one_commit_and_an_alarm_waits_for_nothing() {
    let mut lab = Lab::new();
    // Longer than any test may take: whoever waits for it to pass fails.
    lab.limits.gather_ms = 3_600_000;
    let (_disk, spool, _thread) = start(&lab);
    let mut gathered = Vec::new();
    for value in 0..5 {
        gathered.push(spool.store(message(value)).await.unwrap());
    }
    let before = spool.status().commits;
    let mut alarm = message(200);
    alarm.rows[0].body.alarm = true;
    store(&spool, alarm).await;
    for storing in gathered {
        storing.durable().await.unwrap();
    }
    assert_eq!(spool.status().commits, before + 1, "one for all six");
    let waiting = spool.store(message(60)).await.unwrap();
    let taken = spool.take(window(1), usize::MAX).await.unwrap();
    spool.seal(taken.rows, taken.broken, Vec::new()).await.unwrap();
    waiting.durable().await.unwrap();
}

#[tokio::test]
async fn as_many_messages_as_a_source_sends_without_acknowledgements_are_committed_at_once() {
    let mut lab = Lab::new();
    (lab.limits.gather_ms, lab.limits.unacknowledged_max) = (3_600_000, 3);
    let (_disk, spool, _thread) = start(&lab);
    let before = spool.status().commits;
    let mut waiting = Vec::new();
    for value in 0..3 {
        waiting.push(spool.store(message(value)).await.unwrap());
    }
    for storing in waiting {
        storing.durable().await.unwrap();
    }
    assert_eq!(spool.status().commits, before + 1);
}

pub(super) fn held(device: &str, user: Option<&str>) -> Place {
    Place::Held { device: DeviceId::new(device).unwrap(), user: user.map(str::to_owned) }
}

#[tokio::test]
async fn what_nobody_is_assigned_to_is_held_until_somebody_is_with_its_own_time() {
    let lab = Lab::new();
    let (disk, spool, thread) = start(&lab);
    for value in 60..63 {
        store(&spool, Intake { rows: vec![row(held("scale", Some("1")), value)], ..message(0) }).await;
    }
    tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    let (spool, _thread) = lab.open(&Disk::new(disk.image(Unsynced::Kept))).unwrap();
    let (tag, device) = spool.held_devices().await.unwrap().remove(0);
    assert_eq!((device.device.as_str(), device.user.as_deref(), device.readings), ("scale", Some("1"), 3));
    let mut rows = Vec::new();
    for (key, readings) in spool.held_rows(tag.clone(), 100).await.unwrap() {
        let body = Body::pack(&readings.unwrap(), false).unwrap().remove(0);
        rows.push((key, vec![Row { place: Place::Window(window(1)), body }]));
    }
    spool.assign(tag.clone(), rows.clone(), Vec::new()).await.unwrap();
    assert!(matches!(spool.assign(tag, rows, Vec::new()).await, Err(SpoolError::Conflict)));
    let taken = spool.take(window(1), usize::MAX).await.unwrap();
    assert_eq!(taken.readings, [reading(60), reading(61), reading(62)]);
    assert!(spool.held_devices().await.unwrap().is_empty());
    assert_eq!(spool.status().totals.held_bytes, 0);
}

#[tokio::test]
async fn unassigned_devices_fill_their_own_share_only_and_what_is_dropped_is_counted() {
    let mut lab = Lab::new();
    lab.limits.held_max_bytes = 1_000;
    let (_disk, spool, _thread) = start(&lab);
    let mut totals = Stored::default();
    for value in 0..20 {
        let stored = store(&spool, Intake { rows: vec![row(held("neighbour", None), value)], ..message(0) }).await;
        totals.held += stored.held;
        totals.dropped += stored.dropped;
    }
    assert!(totals.held > 2 && totals.held + totals.dropped == 20);
    let (_, device) = spool.held_devices().await.unwrap().remove(0);
    assert_eq!((device.readings, device.dropped), (totals.held, totals.dropped));
    assert_eq!(store(&spool, message(60)).await.arrivals.len(), 1, "the patient's own reading is stored");
    for name in ["a", "b", "c", "d", "e"] {
        store(&spool, Intake { rows: vec![row(held(name, None), 1)], ..message(0) }).await;
    }
    let devices = spool.held_devices().await.unwrap();
    assert!(devices.len() <= 4, "devices are bounded as well: {devices:?}");
    let others = devices.iter().find(|(_, device)| device.device == "(others)").unwrap();
    assert_eq!(others.1.dropped, 5);
}

#[tokio::test]
async fn only_so_many_unassigned_devices_are_told_apart_however_much_room_there_is() {
    let lab = Lab::new();
    let (_disk, spool, _thread) = start(&lab);
    for name in ["a", "b", "c", "d", "e"] {
        store(&spool, Intake { rows: vec![row(held(name, None), 1)], ..message(0) }).await;
    }
    let mut seen: Vec<_> =
        spool.held_devices().await.unwrap().into_iter().map(|(_, d)| (d.device, d.readings, d.dropped)).collect();
    seen.sort();
    let held = |name: &str| (name.to_owned(), 1, 0);
    assert_eq!(seen, [("(others)".to_owned(), 0, 2), held("a"), held("b"), held("c")]);
}

#[tokio::test]
async fn a_days_key_is_destroyed_when_no_row_needs_it() {
    let lab = Lab::new();
    let (_disk, spool, _thread) = start(&lab);
    // While the old file is being overwritten, a reader may still have it.
    let days = || std::fs::read_to_string(lab.keys()).unwrap().lines().count().saturating_sub(2);
    store(&spool, message(60)).await;
    lab.clock.advance_days(1);
    store(&spool, message(61)).await;
    assert_eq!(days(), 2, "a row of yesterday still waits");
    let taken = spool.take(window(1), usize::MAX).await.unwrap();
    assert_eq!(taken.readings.len(), 2, "and opens");
    spool.seal(taken.rows, Vec::new(), Vec::new()).await.unwrap();
    until(|| days() == 1).await;
    lab.clock.advance_days(1);
    store(&spool, message(62)).await;
    until(|| days() == 1).await;
    assert_eq!(census(&spool).await.len(), 1);
}

#[tokio::test]
async fn a_spool_without_its_keys_does_not_open_and_says_what_to_do() {
    let lab = Lab::new();
    let (disk, spool, thread) = start(&lab);
    store(&spool, message(60)).await;
    tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    std::fs::remove_file(lab.keys()).unwrap();
    let error = lab.open(&Disk::new(disk.image(Unsynced::Kept))).map(drop).unwrap_err();
    assert!(matches!(error, SpoolError::Keys(KeyError::Missing { .. })), "{error}");
    assert!(error.to_string().contains("restore the file"));
}

#[tokio::test]
async fn a_row_that_does_not_open_is_kept_aside_and_blocks_nothing() {
    let lab = Lab::new();
    let (disk, spool, thread) = start(&lab);
    for value in 60..63 {
        store(&spool, message(value)).await;
    }
    tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    let image = Disk::new(disk.image(Unsynced::Kept));
    {
        let db = image.opener()().unwrap();
        let tx = db.begin_write().unwrap();
        {
            let mut table = tx.open_table(tables::READINGS).unwrap();
            let key = window(1).row_key(1);
            let mut value = table.get(key.as_slice()).unwrap().unwrap().value().to_vec();
            *value.last_mut().unwrap() ^= 1;
            table.insert(key.as_slice(), value.as_slice()).unwrap();
        }
        tx.commit().unwrap();
    }
    let (spool, _thread) = lab.open(&Disk::new(image.image(Unsynced::Kept))).unwrap();
    let taken = spool.take(window(1), usize::MAX).await.unwrap();
    assert_eq!((taken.readings.len(), taken.broken.len()), (2, 1));
    let event = new_event(content(1, 1, WrapId::ZERO, &taken.readings), 2, false);
    spool.seal(taken.rows, taken.broken, vec![event]).await.unwrap();
    assert_eq!(spool.status().totals.broken_rows, 1);
    assert!(spool.windows().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_window_is_taken_in_parts_that_respect_its_bound() {
    let lab = Lab::new();
    let (_disk, spool, _thread) = start(&lab);
    for value in 60..70 {
        store(&spool, message(value)).await;
    }
    let spooled = spool.windows().await.unwrap();
    assert_eq!((spooled.len(), spooled[0].readings, spooled[0].window), (1, 10, window(1)));
    let taken = spool.take(window(1), 4).await.unwrap();
    assert_eq!((taken.readings.len(), taken.more), (4, true));
    let all = spool.take(window(1), 10).await.unwrap();
    assert_eq!((all.readings.len(), all.more), (10, false));
    assert_eq!(spool.take(window(1), 0).await.unwrap().readings.len(), 1, "at least one row");
}

#[tokio::test]
async fn rooms_and_positions_are_found_again() {
    let lab = Lab::new();
    let (disk, spool, thread) = start(&lab);
    spool.save_room(room(1), vec![1, 2, 3]).await.unwrap();
    spool.save_room(room(1), vec![4]).await.unwrap();
    let position = Some(Position { source: "file".into(), next: 17 });
    store(&spool, Intake { position, ..message(60) }).await;
    let large = spool.save_room(room(2), vec![0; ROOM_STATE_MAX_BYTES + 1]).await;
    assert!(matches!(large, Err(SpoolError::RoomTooLarge { .. })));
    tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    let (spool, _thread) = lab.open(&Disk::new(disk.image(Unsynced::Kept))).unwrap();
    assert_eq!(spool.load_rooms().await.unwrap(), [(room(1), vec![4])]);
    assert_eq!(spool.position("file".into()).await.unwrap(), Some(17));
    assert_eq!(spool.position("other".into()).await.unwrap(), None);
}

#[test]
fn readings_that_fit_no_single_body_are_split_and_keep_their_order() {
    let readings: Vec<Reading> = (0..10_000).map(reading).collect();
    let bodies = Body::pack(&readings, false).unwrap();
    assert!(bodies.len() >= 3);
    assert_eq!(bodies.iter().map(|b| b.count).sum::<u32>(), 10_000);
    assert!(format!("{:?}", bodies[0]).len() < 40, "no values in logs");
}

#[tokio::test]
async fn for_the_lab_an_event_remembers_which_readings_it_carries_until_it_is_confirmed() {
    let lab = Lab::new();
    let (_disk, spool, _thread) = start(&lab);
    let event = content(1, 1, WrapId::ZERO, &[reading(60)]);
    let id = event.id();
    let report = vec![ReportedReading {
        device: DeviceId::new("watch").unwrap(),
        vital: Vital::HeartRate,
        at: UnixMs(5),
        received: UnixMs(6),
    }];
    let new = NewEvent { report: report.clone(), ..new_event(event, 1, false) };
    spool.seal(Vec::new(), Vec::new(), vec![new]).await.unwrap();
    let reports = spool.read(move |db, keys| read::reports(db, keys, room(1), &[id, EheId([9; 32])])).await.unwrap();
    assert_eq!(reports, [(id, report)]);

    let path = lab.dir.path().join("confirmations.jsonl");
    let sink = Report::open(&path, lab.clock.wall()).unwrap();
    sink.confirmed(reports).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!((line["device"].as_str(), line["vital"].as_str()), (Some("watch"), Some("heart_rate")));
    assert_eq!((line["at_ms"].as_u64(), line["received_ms"].as_u64()), (Some(5), Some(6)));
    assert!(line["confirmed_ms"].is_u64() && line.as_object().unwrap().len() == 6, "and no value: {line}");
    spool.ask(Request::Confirm { room: room(1), ids: vec![id] }).await.unwrap();
    let gone = spool.read(move |db, keys| read::reports(db, keys, room(1), &[id])).await.unwrap();
    assert!(gone.is_empty());
}

#[tokio::test]
async fn a_confirmed_wrap_can_be_sent_again_before_what_needs_it_and_only_the_newest_are_kept() {
    let lab = Lab::new();
    let (_disk, spool, _thread) = start(&lab);
    let first = wrap(1, 1);
    let id = WrapId::from(first.id());
    let urgent = content(1, 2, id, &[reading(60)]);
    spool.seal(vec![], vec![], vec![new_event(first.clone(), 0, false)]).await.unwrap();
    let confirm = async |ids: Vec<EheId>| spool.ask(Request::Confirm { room: room(1), ids }).await.unwrap();
    assert!(!spool.rewrap(room(1), id).await.unwrap(), "it still waits itself");
    confirm(vec![first.id()]).await;
    // An alarm under its key is in the way already.
    spool.seal(vec![], vec![], vec![new_event(urgent.clone(), 1, true)]).await.unwrap();
    assert!(!spool.rewrap(room(2), id).await.unwrap(), "of another room");
    for _ in 0..2 {
        assert!(spool.rewrap(room(1), id).await.unwrap());
    }
    let next: Vec<EheId> = spool.batch(room(1), 9, 1 << 20).await.unwrap().into_iter().map(|s| s.id).collect();
    assert_eq!(next, [first.id(), urgent.id()]);
    // The oldest give way.
    for number in 0..=255u8 {
        let other = wrap(3, number);
        spool.seal(vec![], vec![], vec![new_event(other.clone(), 0, false)]).await.unwrap();
        spool.ask(Request::Confirm { room: room(3), ids: vec![other.id()] }).await.unwrap();
    }
    confirm(vec![first.id()]).await;
    assert!(spool.rewrap(room(1), id).await.unwrap(), "confirmed again, it is kept again");
    confirm(vec![first.id()]).await;
    for number in 0..=255u8 {
        let other = wrap(4, number);
        spool.seal(vec![], vec![], vec![new_event(other.clone(), 0, false)]).await.unwrap();
        spool.ask(Request::Confirm { room: room(4), ids: vec![other.id()] }).await.unwrap();
    }
    assert!(!spool.rewrap(room(1), id).await.unwrap(), "256 newer ones are kept");
}
