//! What a reading costs on the disk of one replica: heart rate at 1 Hz from eight homes, live, one event a run.
//!
//! Counted are the pages that the shard's file has allocated, indexes and Merkle log included.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    dead_code,
    unreachable_pub,
    missing_docs
)]

#[path = "support/homes.rs"]
mod homes;
#[path = "../tests/support/people.rs"]
mod people;

use std::path::Path;
use std::time::Instant;

use ehe::body::vitals::VitalsBody;
use ehe::decimal::Decimal;
use ehe::reading::{DeviceId, DeviceTime, Reading, ReadingTime, TimeMethod};
use ehe::time::UnixMs;
use ehe::unit::Unit;
use ehe::vital::Vital;
use ehe_node::shard::block_of_runs;
use getrandom::rand_core::Rng;
use homes::{Home, MIDNIGHT, Shard, cpu_seconds, row};
use people::rng;
use redb::{ReadableDatabase, ReadableTableMetadata, TableHandle};

const HOMES: usize = 8;

fn main() {
    // Window, hours that are measured, target in bytes a reading.
    for (window_s, hours, target) in [(15u64, 24u64, 35.0f64), (60, 48, 12.0), (600, 240, 3.0)] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (start, mut body_bytes) = (Instant::now(), 0usize);
        let mut shard = Shard::open(dir.path());
        let mut homes: Vec<_> = (0..HOMES).map(|_| Home::new(&mut shard, MIDNIGHT)).collect();
        let (mut beats, mut events, mut day) = ([72i64; HOMES], 0u64, u32::MAX);
        for tick in 0..hours * 3600 / window_s {
            let begin = MIDNIGHT.plus_ms(tick * window_s * 1000);
            let mut runs = Vec::new();
            for (home, beat) in homes.iter_mut().zip(&mut beats) {
                let mut run = Vec::new();
                if begin.day().0 != day {
                    run.push(home.new_day(begin));
                }
                let event = home.seal(&window(begin, window_s, beat), begin);
                body_bytes += event.body().len();
                run.push(event);
                events += 1;
                runs.push(home.run(&run));
            }
            day = begin.day().0;
            let before = shard.leaves();
            shard.apply(block_of_runs(begin.plus_ms(window_s * 1000 + 150), runs));
            assert_eq!(shard.leaves(), before + HOMES as u64, "every run was admitted");
            let seen = shard.checkpoint();
            homes.iter_mut().for_each(|home| home.saw(seen.clone()));
        }
        shard.make_durable();
        // What a commit replaced is free only after the next one.
        shard.make_durable();
        let reading = read_rooms(&shard, &homes, events);
        drop(shard);
        let readings = (events * window_s) as f64;
        let (allocated, file, place) = pages(&dir.path().join("shard-0000.redb"), events as f64);
        let a_reading = allocated as f64 / readings;
        row(
            &format!("bytes at rest, heart rate at 1 Hz, windows of {window_s} s"),
            &format!("≤ {target} bytes a reading"),
            &format!("{a_reading:.2} bytes a reading ({:.0} an event)", allocated as f64 / events as f64),
            Some(a_reading <= target),
            &format!(
                "of an event: body {:.0}, {place}; {events} events, file {} KiB; read back {reading}; took {:.0} s",
                body_bytes as f64 / events as f64,
                file / 1024,
                start.elapsed().as_secs_f64()
            ),
        );
    }
}

/// A window of readings of a device that sends its time, as the gateway seals it.
fn window(begin: UnixMs, seconds: u64, beat: &mut i64) -> Vec<u8> {
    let device = DeviceId::new("polar-h10-7a3f21").unwrap();
    let readings: Vec<_> = (0..seconds)
        .map(|second| {
            let at = begin.plus_ms(second * 1000);
            let random = rng().next_u32();
            *beat = (*beat + i64::from(random % 3) - 1).clamp(48, 150);
            let received = at.plus_ms(u64::from(20 + (random >> 8) % 40));
            let time = ReadingTime {
                device: Some(DeviceTime { wall_ms: at.0.cast_signed(), offset_min: Some(0) }),
                received,
                received_monotonic_ms: received.0 - MIDNIGHT.0,
                derived: Some(at),
                interval_ms: None,
                method: TimeMethod::Receipt,
                uncertainty_ms: 100,
                clock_synchronised: true,
            };
            Reading::new(Vital::HeartRate, Decimal::new(*beat, 0), Unit::PerMinute, device.clone(), time).unwrap()
        })
        .collect();
    VitalsBody::from_readings(&readings).unwrap().to_vec()
}

/// All rooms from their first entry to their last, as a reader fetches them.
fn read_rooms(shard: &Shard, homes: &[Home], events: u64) -> String {
    let cpu = cpu_seconds();
    let view = shard.store.view().unwrap();
    let mut read = 0u64;
    for home in homes {
        let mut from = 0;
        loop {
            let at = view.positions(home.room(), from, u64::MAX, 1024).unwrap();
            let Some((last, _)) = at.last() else { break };
            from = last + 1;
            for (_, log_index) in at {
                let entry = view.entry(log_index).unwrap();
                std::hint::black_box(view.leaf(&entry).unwrap());
                read += entry.events.len() as u64;
            }
        }
    }
    assert!(read >= events, "{read} of {events} events");
    format!("{:.0} EHE/s of a core", read as f64 / (cpu_seconds() - cpu))
}

/// Allocated bytes, the file's length, and bytes an event of each table that matters.
fn pages(path: &Path, events: f64) -> (u64, u64, String) {
    let db = redb::Database::open(path).unwrap();
    let txn = db.begin_write().unwrap();
    let stats = txn.stats().unwrap();
    let allocated = stats.allocated_pages() * stats.page_size() as u64;
    drop(txn);
    let txn = db.begin_read().unwrap();
    let mut tables: Vec<_> = txn
        .list_tables()
        .unwrap()
        .map(|handle| {
            let name = handle.name().to_owned();
            let stats = txn.open_untyped_table(handle).unwrap().stats().unwrap();
            (
                stats.leaf_pages() + stats.branch_pages(),
                stats.stored_bytes(),
                name,
                stats.fragmented_bytes() + stats.metadata_bytes(),
            )
        })
        .collect();
    tables.sort_by_key(|table| std::cmp::Reverse(table.1));
    let known: u64 = tables.iter().map(|t| t.1 + t.3).sum();
    let mut place: Vec<_> = tables
        .iter()
        .filter(|t| (t.1 + t.3) as f64 / events >= 0.5)
        .map(|(_, stored, name, rest)| format!("{name} {:.1}+{:.1}", *stored as f64 / events, *rest as f64 / events))
        .collect();
    place.push(format!("free space and allocator {:.1}", allocated.saturating_sub(known) as f64 / events));
    (allocated, path.metadata().unwrap().len(), place.join(", "))
}
