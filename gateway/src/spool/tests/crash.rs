//! Power cuts and refusing disks, at every single step of the way.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::disk::{Disk, Fault, Unsynced};
use super::*;

/// What the world knows of a scenario that may have ended anywhere.
#[derive(Debug, Default)]
struct Known {
    /// Values whose message was handed over, in order.
    sent: Vec<u32>,
    /// Values whose message was acknowledged.
    acked: BTreeSet<u32>,
    /// Values whose event the ledger has: they may be gone.
    confirmed: BTreeSet<u32>,
    finished: bool,
}

/// Readings in, two windows closed, one event confirmed. Ends early when the disk dies.
async fn scenario(spool: &Spool, disk: &Disk, known: &mut Known) {
    let mut crashed = disk.crashed();
    let work = async {
        for value in [60, 61, 62] {
            send(spool, known, value).await?;
        }
        let taken = spool.take(window(1), usize::MAX).await.ok()?;
        let (wrap, values) = (wrap(1, 1), [60, 61, 62]);
        let id = WrapId::from(wrap.id());
        let first = content(1, 2, id, &taken.readings);
        let confirmed = first.id();
        let wrap_id = wrap.id();
        let events = vec![new_event(wrap, 0, false), new_event(first, 3, false)];
        spool.seal(taken.rows, taken.broken, events).await.ok()?;
        for value in [63, 64] {
            send(spool, known, value).await?;
        }
        known.confirmed.extend(values);
        spool.ask(Request::Confirm { room: room(1), ids: vec![wrap_id, confirmed] }).await.ok()?;
        let taken = spool.take(window(1), usize::MAX).await.ok()?;
        let second = content(1, 3, id, &taken.readings);
        spool.seal(taken.rows, taken.broken, vec![new_event(second, 2, true)]).await.ok()?;
        send(spool, known, 65).await?;
        known.finished = true;
        Some(())
    };
    tokio::select! {
        _ = work => {}
        _ = crashed.wait_for(|crashed| *crashed) => {}
    }
}

async fn send(spool: &Spool, known: &mut Known, value: u32) -> Option<()> {
    known.sent.push(value);
    spool.store(marked(value, false)).await.ok()?.durable().await.ok()?;
    known.acked.insert(value);
    Some(())
}

fn marked(value: u32, dup: bool) -> Intake {
    let id = u16::try_from(value).unwrap();
    Intake { mark: Some(Mark { keep: 100, ..mark(id, dup, 0) }), ..message(value) }
}

/// The broker sends everything again, also what was acknowledged: acknowledgements can be lost as well.
async fn redeliver(spool: &Spool, known: &Known) {
    for value in &known.sent {
        let stored = store(spool, marked(*value, true)).await;
        assert!(
            stored.duplicate || !known.acked.contains(value),
            "{value} was acknowledged, and is not known any more"
        );
    }
}

async fn check(spool: &Spool, known: &Known, context: &str) {
    let census = census(spool).await;
    for value in &known.sent {
        let found = census.get(&value.to_string()).copied().unwrap_or(0);
        let good = if known.confirmed.contains(value) { found <= 1 } else { found == 1 };
        assert!(good, "{context}: {value} lies there {found} times; {known:?}");
    }
    assert_eq!(census.keys().filter(|v| !known.sent.contains(&v.parse().unwrap())).count(), 0, "{context}");
}

#[tokio::test]
async fn a_power_cut_at_any_step_neither_loses_nor_doubles_a_reading() {
    let lab = Lab::new();
    let fresh = Disk::new(Vec::new());
    let (_spool, thread) = lab.open(&fresh).unwrap();
    thread.stop();
    let image = fresh.image(Unsynced::Kept);
    let mut cuts = 0;
    for step in 1.. {
        let disk = Disk::new(image.clone());
        disk.fail_in(step, Fault::Crash);
        let mut known = Known::default();
        if let Ok((spool, thread)) = lab.open(&disk) {
            scenario(&spool, &disk, &mut known).await;
            tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
        }
        if disk.unharmed() {
            assert!(known.finished);
            break;
        }
        cuts += 1;
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step), Unsynced::Some(step * 7919)] {
            let found = Disk::new(disk.image(unsynced));
            let (spool, thread) = lab.open(&found).unwrap_or_else(|e| panic!("step {step}, {unsynced:?}: {e}"));
            redeliver(&spool, &known).await;
            check(&spool, &known, &format!("step {step}, {unsynced:?}")).await;
            tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
        }
    }
    assert!(cuts > 50, "only {cuts} steps: the scenario does not reach the disk");
}

#[tokio::test]
async fn a_disk_that_refuses_any_one_step_delays_and_loses_nothing() {
    let lab = Lab::new();
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        for step in 1.. {
            let disk = Disk::new(Vec::new());
            let (spool, thread) = lab.open(&disk).unwrap();
            disk.fail_in(step, Fault::Once(kind));
            let mut known = Known::default();
            scenario(&spool, &disk, &mut known).await;
            let context = format!("{kind:?} at step {step}");
            assert!(known.finished, "{context}: {:?}", spool.status());
            assert_eq!(spool.status().fault, None, "{context}");
            redeliver(&spool, &known).await;
            check(&spool, &known, &context).await;
            let unharmed = disk.unharmed();
            tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
            if unharmed {
                break;
            }
        }
    }
}

#[tokio::test]
async fn while_the_disk_refuses_nothing_is_acknowledged_and_stopping_is_possible() {
    let lab = Lab::new();
    let disk = Disk::new(Vec::new());
    let (spool, thread) = lab.open(&disk).unwrap();
    disk.fail_in(1, Fault::Crash);
    let storing = spool.store(message(60)).await.unwrap();
    disk.crashed().wait_for(|crashed| *crashed).await.unwrap();
    tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    assert!(matches!(storing.durable().await, Err(SpoolError::Stopped)));
    assert_eq!(spool.status().fault, Some(super::super::Fault::Io));
    assert!(matches!(spool.windows().await, Err(SpoolError::Stopped)));
}

#[tokio::test]
async fn a_file_that_was_left_half_made_is_made_anew() {
    let lab = Lab::new();
    // What a kill leaves of redb's first steps: a length, and no magic number.
    std::fs::write(lab.dir.path().join("spool.redb.new"), vec![0; 1 << 20]).unwrap();
    for values in [1, 2] {
        let open = file(lab.dir.path(), 1 << 20);
        let (spool, thread) = Spool::open(open, &lab.keys(), limits(), lab.clock.wall(), None).unwrap();
        store(&spool, message(60 + values)).await;
        assert_eq!(census(&spool).await.len(), usize::try_from(values).unwrap());
        tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    }
}

/// What the second scenario has been through: which of its steps were answered.
#[derive(Debug, Default)]
struct Life {
    acked: Vec<u32>,
    confirmed: bool,
    confirming: bool,
    saved: bool,
    finished: bool,
}

/// The rest of a spool's life: held readings that find their owner, a turn of the day, an alarm whose wrap has to hurry, refusals, rights
/// that come back, a receipt for what was refused, a room's state.
async fn life(spool: &Spool, disk: &Disk, lab: &Lab, life: &mut Life) {
    let mut crashed = disk.crashed();
    let work = async {
        for value in [70, 71] {
            let place = Place::Held { device: DeviceId::new("scale").unwrap(), user: None };
            let intake = Intake { rows: vec![row(place, value)], ..message(0) };
            spool.store(intake).await.ok()?.durable().await.ok()?;
            life.acked.push(value);
        }
        let wrap = wrap(1, 9);
        let wrap_id = wrap.id();
        spool.seal(Vec::new(), Vec::new(), vec![new_event(wrap, 0, false)]).await.ok()?;
        for value in [72, 73] {
            spool.store(message(value)).await.ok()?.durable().await.ok()?;
            life.acked.push(value);
        }
        let taken = spool.take(window(1), usize::MAX).await.ok()?;
        let first = content(1, 10, WrapId::from(wrap_id), &taken.readings);
        let first_id = first.id();
        spool.seal(taken.rows, taken.broken, vec![new_event(first, 2, false)]).await.ok()?;
        lab.clock.advance_days(1);
        for (tag, _) in spool.held_devices().await.ok()? {
            let mut rows = Vec::new();
            for (key, readings) in spool.held_rows(tag.clone(), 9).await.ok()? {
                let body = Body::pack(&readings.unwrap(), false).unwrap().remove(0);
                rows.push((key, vec![Row { place: Place::Window(window(1)), body }]));
            }
            spool.assign(tag, rows, Vec::new()).await.ok()?;
        }
        let taken = spool.take(window(1), usize::MAX).await.ok()?;
        let alarm = content(1, 11, WrapId::from(wrap_id), &taken.readings);
        spool.seal(taken.rows, taken.broken, vec![new_event(alarm, 2, true)]).await.ok()?;
        for id in [wrap_id, first_id] {
            spool.quarantine(room(1), id, Refusal::GrantRevoked).await.ok()?;
        }
        spool.save_room(room(1), vec![7; 100]).await.ok()?;
        life.saved = true;
        spool.release(room(1), Retry::RIGHTS).await.ok()?;
        spool.quarantine(room(1), first_id, Refusal::EventMalformed).await.ok()?;
        life.confirming = true;
        spool.ask(Request::Confirm { room: room(1), ids: vec![wrap_id, first_id] }).await.ok()?;
        life.confirmed = true;
        // The keys of the first day go with this commit, or with a later one.
        spool.store(message(74)).await.ok()?.durable().await.ok()?;
        life.acked.push(74);
        life.finished = true;
        Some(())
    };
    tokio::select! {
        _ = work => {}
        _ = crashed.wait_for(|crashed| *crashed) => {}
    }
}

/// Every acknowledged reading lies in exactly one place, held rows and the quarantine included; a confirmed one in none.
async fn check_life(spool: &Spool, life: &Life, context: &str) {
    let mut found = census(spool).await;
    for (tag, device) in spool.held_devices().await.unwrap() {
        let rows = spool.held_rows(tag, 99).await.unwrap();
        assert_eq!(rows.len() as u64, device.readings, "{context}: the summary counts what is held");
        for reading in rows.into_iter().flat_map(|(_, readings)| readings.expect("a held row opens")) {
            *found.entry(reading.value().to_string()).or_default() += 1;
        }
    }
    let kept = spool.quarantined_events().await.unwrap();
    let checked = kept.iter().map(|event| event.clone().check().unwrap());
    for event in checked.filter(|event| event.core().kind == Kind::Vitals) {
        for reading in VitalsBody::decode(&ehe::seal::open(&ek(), &event).unwrap()).unwrap() {
            *found.entry(reading.value().to_string()).or_default() += 1;
        }
    }
    assert_eq!(spool.status().totals.quarantine_events, kept.len() as u64, "{context}");
    for value in &life.acked {
        let count = found.get(&value.to_string()).copied().unwrap_or(0);
        let good = match (life.confirming && [72, 73].contains(value), life.confirmed) {
            (true, true) => count == 0,
            (true, false) => count <= 1,
            _ => count == 1,
        };
        assert!(good, "{context}: {value} lies there {count} times; {life:?}");
    }
    assert!(found.values().all(|count| *count == 1), "{context}: {found:?}");
    let saved = spool.load_rooms().await.unwrap();
    assert!(!life.saved || saved == [(room(1), vec![7; 100])], "{context}");
    // The whole goes on from there.
    store(spool, message(80)).await;
    assert_eq!(spool.status().fault, None, "{context}");
}

#[tokio::test]
async fn a_power_cut_at_any_step_of_holding_rotating_refusing_and_releasing_loses_nothing() {
    let mut cuts = 0;
    for step in 1.. {
        let lab = Lab::new();
        let disk = Disk::new(Vec::new());
        let (spool, thread) = lab.open(&disk).unwrap();
        disk.fail_in(step, Fault::Crash);
        let mut lived = Life::default();
        life(&spool, &disk, &lab, &mut lived).await;
        tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
        if disk.unharmed() {
            assert!(lived.finished);
            break;
        }
        cuts += 1;
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step)] {
            let found = Disk::new(disk.image(unsynced));
            let context = format!("step {step}, {unsynced:?}");
            let keys = std::fs::read(lab.keys()).unwrap();
            let (spool, thread) = lab.open(&found).unwrap_or_else(|e| panic!("{context}: {e}"));
            check_life(&spool, &lived, &context).await;
            tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
            // What the check itself did must not help the next one.
            std::fs::write(lab.keys(), keys).unwrap();
        }
    }
    assert!(cuts > 80, "only {cuts} steps: the scenario does not reach the disk");
}

#[tokio::test]
async fn a_disk_that_refuses_any_one_step_of_the_rest_delays_and_loses_nothing() {
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        for step in 1.. {
            let lab = Lab::new();
            let disk = Disk::new(Vec::new());
            let (spool, thread) = lab.open(&disk).unwrap();
            disk.fail_in(step, Fault::Once(kind));
            let mut lived = Life::default();
            life(&spool, &disk, &lab, &mut lived).await;
            let context = format!("{kind:?} at step {step}");
            assert!(lived.finished, "{context}: {:?} {lived:?}", spool.status());
            check_life(&spool, &lived, &context).await;
            let unharmed = disk.unharmed();
            tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
            if unharmed {
                break;
            }
        }
    }
}
