//! How long a reading waits for its commit: the real spool on a real disk, windows being closed meanwhile. Beside it the disk's own
//! sync, which no commit can be faster than.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ehe::body::vitals::VitalsBody;
use ehe::event::{Core, Kind, Suite, VERSION};
use ehe::id::{AuthorId, EpochId, Nonce, RoomId, WrapId};
use ehe::kem::Secret32;
use ehe::reading::{DeviceId, Reading, ReadingTime};
use ehe::time::UnixMs;
use ehe::vital::{Category, Vital};
use ehe_gateway::clock::{Moment, SystemClock};
use ehe_gateway::rooms::SealHold;
use ehe_gateway::seal::{Closing, Outcome, Seal};
use ehe_gateway::spool::{self, Body, Intake, Mark, NewEvent, Place, Row, Spool, SpoolLimits, WindowKey};
use ehe_gateway::window::WindowLimits;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PER_SECOND: u64 = 1_000;
const MEASURED: Duration = Duration::from_secs(20);
const ROOMS: u8 = 10;
const SYNCS: usize = 1_000;
const TARGET: Duration = Duration::from_millis(5);

/// Seals under a fixed key: what sealing costs is measured elsewhere, what its events cost the spool is not.
struct FixedKey(watch::Sender<u64>);

impl Seal for FixedKey {
    type Commit = ();

    fn seal(&self, room: RoomId, _: Category, readings: &[Reading], now: UnixMs) -> Result<Outcome<()>, SealHold> {
        let plain = VitalsBody::from_readings(readings)?.to_vec();
        let event = ehe::seal::seal(&Secret32::new([7; 32]), core(room, now), &plain)?;
        Ok((vec![(event, (0..readings.len()).collect())], ()))
    }

    fn about_to_seal(&self, _: RoomId) {}

    fn committed(&self, (): ()) {}

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

fn core(room: RoomId, now: UnixMs) -> Core {
    let mut salt = Nonce::ZERO;
    getrandom::fill(&mut salt.0).unwrap();
    let (author, epoch, wrap) = (AuthorId([2; 16]), EpochId([3; 16]), WrapId([4; 16]));
    Core { version: VERSION, suite: Suite::One, kind: Kind::Vitals, room, author, epoch, wrap, hour: now.hour(), salt }
}

fn main() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let cases = [
        ("", target, 0),
        (", 128 MiB of events waiting (commits with quick-repair)", target, 128),
        (", in memory: without a disk's share", Path::new("/dev/shm"), 0),
    ];
    for (what, place, backlog_mib) in cases.into_iter().filter(|(_, place, _)| place.is_dir()) {
        let dir = place.join(format!("ehe-bench-spool-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        spool::create_dir(&dir).unwrap();
        let disk_before = disk(&dir);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (waits, commits) = runtime.block_on(measure(dir.clone(), backlog_mib));
        let disk_after = disk(&dir);
        let (p50, p99) = (at(&waits, 50), at(&waits, 99));
        println!(
            "{{\"group\":\"gateway\",\"what\":\"spool at {PER_SECOND} readings/s{what}: handed over → durable, p99 of {}\",\
             \"target\":\"< {} ms\",\"measured\":\"{:.2} ms (p50 {:.2} ms; {commits} commits/s)\",\"met\":{},\
             \"where\":\"the disk's own sync: p50 {:.2} ms, p99 {:.2} ms before and {:.2} ms after; who comes during a commit waits for it and for the next\"}}",
            waits.len(),
            TARGET.as_millis(),
            ms(p99),
            ms(p50),
            p99 < TARGET,
            ms(at(&disk_before, 50)),
            ms(at(&disk_before, 99)),
            ms(at(&disk_after, 99)),
        );
        let _ = std::fs::remove_dir_all(&dir);
    }
}

async fn measure(dir: PathBuf, backlog_mib: u64) -> (Vec<Duration>, u64) {
    let clock = SystemClock::new(PathBuf::from("/nonexistent"));
    let limits = SpoolLimits {
        max_bytes: 1 << 30,
        room_max_bytes: 1 << 30,
        held_max_bytes: 1 << 26,
        held_devices_max: 256,
        quarantine_max_bytes: 1 << 26,
        gather_ms: 100,
        unacknowledged_max: 100,
        retry_min_ms: 200,
        retry_max_ms: 10_000,
    };
    let (spool, thread) =
        Spool::open(spool::file(&dir, 16 << 20), &dir.join("spool.key"), limits, clock.wall(), None).unwrap();
    while spool.status().totals.bytes() < backlog_mib << 20 {
        spool.seal(Vec::new(), Vec::new(), (0..500).map(|n| waiting(n, clock.now())).collect()).await.unwrap();
    }
    let (arrivals, arrived) = mpsc::channel(1024);
    let closing = Closing {
        spool: spool.clone(),
        sealer: FixedKey(watch::Sender::new(0)),
        clock: clock.clone(),
        // Three rounds of windows within the measured time.
        limits: WindowLimits { window_ms: 5_000, readings_max: 4096 },
        hold_retry: Duration::from_secs(300),
        report: false,
        counters: ehe_gateway::status::counters(),
    };
    let stop = CancellationToken::new();
    let closing = tokio::spawn(closing.run(Vec::new(), arrived, stop.clone()));
    let first = spool.status().commits;
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / PER_SECOND));
    let mut waiting = JoinSet::new();
    let mut waits = Vec::new();
    for n in 0..PER_SECOND * MEASURED.as_secs() {
        tick.tick().await;
        let (intake, start) = (intake(n, clock.now()), Instant::now());
        let storing = spool.store(intake).await.unwrap();
        let arrivals = arrivals.clone();
        waiting.spawn(async move {
            let stored = storing.durable().await.unwrap();
            let took = start.elapsed();
            arrivals.send(stored.arrivals).await.unwrap();
            took
        });
        while let Some(done) = waiting.try_join_next() {
            waits.push(done.unwrap());
        }
    }
    while let Some(done) = waiting.join_next().await {
        waits.push(done.unwrap());
    }
    let commits = (spool.status().commits - first) / MEASURED.as_secs();
    stop.cancel();
    closing.await.unwrap();
    tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    waits.sort_unstable();
    (waits, commits)
}

fn intake(n: u64, moment: Moment) -> Intake {
    let room = RoomId([u8::try_from(n % u64::from(ROOMS)).unwrap(); 16]);
    let window = WindowKey { room, category: Category::Cardiac, hour: moment.utc.hour() };
    let mark = Mark {
        source: Arc::from("mqtt"),
        packet_id: u16::try_from(n % 65_535).unwrap() + 1,
        dup: false,
        hash: [7; 32],
        keep: 200,
        connection: 1,
    };
    let body = Body::pack(&[reading(n, moment)], false).unwrap().remove(0);
    Intake { mark: Some(mark), position: None, rows: vec![Row { place: Place::Window(window), body }] }
}

fn reading(n: u64, moment: Moment) -> Reading {
    let time = ReadingTime::at_receipt(moment.utc, moment.monotonic_ms, true, 1_000);
    let device = DeviceId::new(&format!("strap-{}", n % 50)).unwrap();
    let value = i32::try_from(60 + n % 40).unwrap().into();
    Reading::new(Vital::HeartRate, value, Vital::HeartRate.unit(), device, time).unwrap()
}

/// An event as an outage leaves it.
fn waiting(n: u64, moment: Moment) -> NewEvent {
    let readings: Vec<Reading> = (0..50).map(|more| reading(n + more, moment)).collect();
    let plain = VitalsBody::from_readings(&readings).unwrap().to_vec();
    let room = RoomId([u8::try_from(n % u64::from(ROOMS)).unwrap(); 16]);
    let event = ehe::seal::seal(&Secret32::new([7; 32]), core(room, moment.utc), &plain).unwrap();
    NewEvent { event, readings: 50, oldest: moment.utc, urgent: false, report: Vec::new() }
}

/// Writes of a page, each synced.
fn disk(dir: &Path) -> Vec<Duration> {
    let path = dir.join("disk");
    let mut file = std::fs::File::create(&path).unwrap();
    file.set_len(4 << 20).unwrap();
    file.sync_all().unwrap();
    let mut syncs: Vec<Duration> = (0..SYNCS)
        .map(|n| {
            file.seek(SeekFrom::Start(u64::try_from(n * 7 % 1024).unwrap() * 4096)).unwrap();
            file.write_all(&[7; 4096]).unwrap();
            let start = Instant::now();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    std::fs::remove_file(path).unwrap();
    syncs.sort_unstable();
    syncs
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
