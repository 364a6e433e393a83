//! The shares of rooms: who is bounded by them, and who never.

use super::behaviour::{held, start};
use super::disk::{Disk, Unsynced};
use super::*;

#[tokio::test]
async fn a_room_that_cannot_be_sealed_to_fills_its_share_only_and_each_drop_is_recorded() {
    let mut lab = Lab::new();
    lab.limits.room_max_bytes = 2_000;
    let (disk, spool, thread) = start(&lab);
    let other = |value| Intake { rows: vec![row(Place::Window(window(2)), value)], ..message(0) };
    spool.on_hold(window(1), false);
    let (mut stored, mut thinned) = (0, 0);
    for value in 0..30 {
        let one = store(&spool, message(value)).await;
        stored += one.arrivals.len() as u64;
        thinned += one.thinned;
        assert_eq!(store(&spool, other(100 + value)).await.thinned, 0, "the other room goes on");
        let taken = spool.take(window(2), usize::MAX).await.unwrap();
        spool.seal(taken.rows, taken.broken, Vec::new()).await.unwrap();
    }
    assert!(stored > 3 && thinned > 3 && stored + thinned == 30, "{stored} {thinned}");
    let record = spool.status().thinned[&room(1)];
    assert_eq!((record.readings, record.last), (thinned, reading(29).time().received));
    assert_eq!(spool.status().thinned.len(), 1, "the other room lost nothing");
    tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    let (spool, _thread) = lab.open(&Disk::new(disk.image(Unsynced::Kept))).unwrap();
    assert_eq!(spool.status().thinned[&room(1)], record, "the record outlives a restart");
    assert_eq!(store(&spool, message(30)).await.thinned, 0, "a start tries to seal before it drops anything");
    spool.on_hold(window(1), false);
    assert_eq!(store(&spool, message(30)).await.thinned, 1, "and so does the share");
    let taken = spool.take(window(1), usize::MAX).await.unwrap();
    spool.seal(taken.rows, taken.broken, Vec::new()).await.unwrap();
    assert_eq!(store(&spool, message(31)).await.arrivals.len(), 1, "sealed, the room has its share again");
}

#[tokio::test]
async fn what_can_be_sealed_and_every_alarm_is_stored_beyond_the_rooms_share() {
    let mut lab = Lab::new();
    lab.limits.room_max_bytes = 2_000;
    let (_disk, spool, _thread) = start(&lab);
    for value in 0..30 {
        let stored = store(&spool, message(value)).await;
        assert_eq!((stored.arrivals.len(), stored.thinned), (1, 0), "an invited room waits for its window only");
    }
    spool.on_hold(window(1), false);
    assert_eq!(store(&spool, message(30)).await.thinned, 1, "on hold, the share counts");
    let mut alarm = message(200);
    alarm.rows[0].body.alarm = true;
    assert_eq!(store(&spool, alarm).await.arrivals.len(), 1, "an alarm is never the one too many");
    // Another hour of the same room, which the grant may cover.
    let later = WindowKey { hour: Hour(480_001), ..window(1) };
    let other = |value| Intake { rows: vec![row(Place::Window(later), value)], ..message(0) };
    assert_eq!(store(&spool, other(31)).await.thinned, 0, "it was not tried yet");
    spool.on_hold(window(1), true);
    assert_eq!(store(&spool, other(32)).await.thinned, 1, "nothing of the room can be sealed");
    spool.none_on_hold();
    assert_eq!(store(&spool, message(33)).await.thinned, 0, "the room changed: it is tried again first");
    assert_eq!(spool.status().thinned[&room(1)].readings, 2);
}

#[tokio::test]
async fn a_full_spool_takes_nothing_rather_than_drop_what_can_be_sealed() {
    let mut lab = Lab::new();
    (lab.limits.max_bytes, lab.limits.room_max_bytes) = (4_000, 1_000);
    let (_disk, spool, _thread) = start(&lab);
    let mut waiting = Vec::new();
    for value in 0..40 {
        waiting.push(spool.store(message(value)).await.unwrap());
    }
    let full = async {
        while !spool.status().full {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), full).await.unwrap();
    assert!(spool.status().thinned.is_empty() && spool.status().waiting > 0);
}

#[tokio::test]
async fn held_readings_stay_held_where_their_owners_share_has_no_place_for_them() {
    let mut lab = Lab::new();
    lab.limits.room_max_bytes = 2_000;
    let (_disk, spool, _thread) = start(&lab);
    for value in 60..70 {
        store(&spool, Intake { rows: vec![row(held("scale", None), value)], ..message(0) }).await;
    }
    for value in 0..5 {
        store(&spool, message(value)).await;
    }
    spool.on_hold(window(1), true);
    let (tag, _) = spool.held_devices().await.unwrap().remove(0);
    let mut rows = Vec::new();
    for (key, readings) in spool.held_rows(tag.clone(), 100).await.unwrap() {
        let body = Body::pack(&readings.unwrap(), false).unwrap().remove(0);
        rows.push((key, vec![Row { place: Place::Window(window(1)), body }]));
    }
    let refused = spool.assign(tag.clone(), rows.clone(), Vec::new()).await;
    assert!(matches!(refused, Err(SpoolError::RoomFull)), "{refused:?}");
    assert_eq!(spool.held_devices().await.unwrap()[0].1.readings, 10, "nothing was lost");
    assert_eq!(spool.held_rows(tag.clone(), 100).await.unwrap().len(), 10);
    assert!(spool.status().thinned.is_empty());
    // However small the share is, they find their owner once the room is sealed.
    let taken = spool.take(window(1), usize::MAX).await.unwrap();
    spool.seal(taken.rows, taken.broken, Vec::new()).await.unwrap();
    let stored = spool.assign(tag, rows, Vec::new()).await.unwrap();
    assert_eq!((stored.arrivals.len(), stored.thinned), (10, 0));
    assert_eq!(spool.take(window(1), usize::MAX).await.unwrap().readings.len(), 10);
    assert!(spool.held_devices().await.unwrap().is_empty());
}

/// The text of a configuration that assigns a device to the first room.
fn assigned(device: &str) -> crate::config::Checked {
    let text =
        format!("credentials_dir = '/c'\ndata_dir = '/d'\n[[assignment]]\ndevice = '{device}'\nroom = '{}'\n", room(1));
    crate::config::Config::parse(&text, std::path::Path::new("t")).unwrap().check().unwrap()
}

#[tokio::test]
async fn only_what_was_moved_counts_as_having_found_its_owner_and_the_rest_follows_later() {
    let mut lab = Lab::new();
    lab.limits.room_max_bytes = 2_000;
    let (_disk, spool, _thread) = start(&lab);
    let checked = Arc::new(assigned("watch"));
    for value in 60..70 {
        store(&spool, Intake { rows: vec![row(held("watch", None), value)], ..message(0) }).await;
    }
    store(&spool, message(1)).await;
    let moved = crate::held::assign(&spool, &checked).await.unwrap();
    assert_eq!((moved.readings, moved.left), (0, 1));
    let (arrivals, mut told) = tokio::sync::mpsc::channel(4);
    let rest = crate::held::assign_the_rest(
        spool.clone(),
        checked,
        arrivals,
        Duration::from_millis(1),
        tokio_util::sync::CancellationToken::new(),
    );
    let rest = tokio::spawn(rest);
    let taken = spool.take(window(1), usize::MAX).await.unwrap();
    spool.seal(taken.rows, taken.broken, Vec::new()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), rest).await.unwrap().unwrap();
    assert_eq!(told.recv().await.unwrap().iter().map(|arrival| arrival.readings).sum::<u32>(), 10);
    assert!(spool.held_devices().await.unwrap().is_empty());
}
