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
