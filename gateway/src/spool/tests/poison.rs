//! Rows that a failing medium altered: each is kept aside, and what lies behind it goes on.

use redb::ReadableTable;

use super::disk::{Disk, Unsynced};
use super::*;

type Rows = redb::TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Puts other bytes in the place of the first row of a table.
fn alter_first(image: &Disk, table: Rows, change: impl FnOnce(&mut Vec<u8>)) {
    let db = image.opener()().unwrap();
    let tx = db.begin_write().unwrap();
    {
        let mut table = tx.open_table(table).unwrap();
        let first = table.first().unwrap().map(|(key, value)| (key.value().to_vec(), value.value().to_vec()));
        let (key, mut value) = first.unwrap();
        change(&mut value);
        table.insert(key.as_slice(), value.as_slice()).unwrap();
    }
    tx.commit().unwrap();
}

/// Ways in which bytes go wrong.
const ALTERED: [fn(&mut Vec<u8>); 4] =
    [Vec::clear, |v| v.truncate(v.len() / 2), |v| v.fill(0xff), |v| v[0] = v[0].wrapping_add(1)];

async fn restarted(lab: &Lab, spool: Spool, thread: SpoolThread, disk: &Disk, table: Rows, n: usize) -> (Disk, Spool) {
    drop(spool);
    tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    let image = Disk::new(disk.image(Unsynced::Kept));
    alter_first(&image, table, ALTERED[n]);
    let found = Disk::new(image.image(Unsynced::Kept));
    let (spool, _thread) = lab.open(&found).unwrap();
    (found, spool)
}

#[tokio::test]
async fn a_damaged_reading_keeps_no_window_from_closing() {
    for n in 0..ALTERED.len() {
        let lab = Lab::new();
        let disk = Disk::new(Vec::new());
        let (spool, thread) = lab.open(&disk).unwrap();
        for value in 60..63 {
            store(&spool, message(value)).await;
        }
        let (_disk, spool) = restarted(&lab, spool, thread, &disk, tables::READINGS, n).await;
        let windows = spool.windows().await.unwrap();
        assert_eq!((windows.len(), windows[0].window), (1, window(1)));
        let taken = spool.take(window(1), usize::MAX).await.unwrap();
        assert_eq!((taken.readings.len(), taken.broken.len()), (2, 1), "{n}");
        let event = new_event(content(1, 1, WrapId::ZERO, &taken.readings), 2, false);
        spool.seal(taken.rows, taken.broken, vec![event]).await.unwrap();
        assert!(spool.windows().await.unwrap().is_empty());
        assert_eq!((spool.status().totals.broken_rows, spool.status().fault), (1, None));
    }
}

#[tokio::test]
async fn a_damaged_event_is_put_aside_and_those_behind_it_are_sent_and_confirmed() {
    for n in 0..ALTERED.len() {
        let lab = Lab::new();
        let disk = Disk::new(Vec::new());
        let (spool, thread) = lab.open(&disk).unwrap();
        let events: Vec<_> = (1..4).map(|n| content(1, n, WrapId::ZERO, &[reading(60 + u32::from(n))])).collect();
        let ids: Vec<EheId> = events.iter().map(CheckedEvent::id).collect();
        let new = events.into_iter().map(|event| new_event(event, 1, false)).collect();
        spool.seal(Vec::new(), Vec::new(), new).await.unwrap();
        let (_disk, spool) = restarted(&lab, spool, thread, &disk, tables::OUTBOX, n).await;
        let batch = spool.batch(room(1), 9, usize::MAX).await.unwrap();
        assert_eq!(batch.iter().map(|stored| stored.id).collect::<Vec<_>>(), ids[1..], "{n}");
        assert_eq!((spool.backlog()[0].events, spool.status().totals.broken_rows), (2, 1));
        store(&spool, message(70)).await;
        spool.ask(Request::Confirm { room: room(1), ids: ids.clone() }).await.unwrap();
        assert!(spool.backlog().is_empty());
        // What the row lost in length stays counted: the bound errs on the safe side.
        assert!(spool.status().totals.outbox_bytes < 1_000 && spool.status().fault.is_none());
    }
}

#[tokio::test]
async fn a_receipt_for_a_damaged_event_does_not_stop_the_spool() {
    let lab = Lab::new();
    let disk = Disk::new(Vec::new());
    let (spool, thread) = lab.open(&disk).unwrap();
    let event = content(1, 1, WrapId::ZERO, &[reading(60)]);
    let id = event.id();
    spool.seal(Vec::new(), Vec::new(), vec![new_event(event, 1, false)]).await.unwrap();
    let (_disk, spool) = restarted(&lab, spool, thread, &disk, tables::OUTBOX, 2).await;
    spool.ask(Request::Confirm { room: room(1), ids: vec![id] }).await.unwrap();
    assert_eq!((spool.status().totals.broken_rows, spool.status().fault), (1, None));
    assert!(spool.backlog().is_empty());
}

#[tokio::test]
async fn a_damaged_row_of_the_quarantine_stays_there_and_the_others_come_back() {
    let lab = Lab::new();
    let disk = Disk::new(Vec::new());
    let (spool, thread) = lab.open(&disk).unwrap();
    let events: Vec<_> = (1..4).map(|n| content(1, n, WrapId::ZERO, &[reading(60 + u32::from(n))])).collect();
    let ids: Vec<EheId> = events.iter().map(CheckedEvent::id).collect();
    let new = events.into_iter().map(|event| new_event(event, 1, false)).collect();
    spool.seal(Vec::new(), Vec::new(), new).await.unwrap();
    for id in &ids {
        spool.quarantine(room(1), *id, Refusal::GrantRevoked).await.unwrap();
    }
    let (_disk, spool) = restarted(&lab, spool, thread, &disk, tables::QUARANTINE, 2).await;
    assert_eq!(spool.release(room(1), Retry::RIGHTS).await.unwrap().0, 2);
    assert_eq!(spool.backlog()[0].events, 2);
    spool.ask(Request::Confirm { room: room(1), ids }).await.unwrap();
    assert_eq!((spool.status().totals.quarantine_events, spool.status().fault), (0, None));
}
