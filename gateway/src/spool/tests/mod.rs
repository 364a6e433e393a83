use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use ehe::body::vitals::VitalsBody;
use ehe::event::{CheckedEvent, Core, Kind, Suite, VERSION};
use ehe::id::{AuthorId, EpochId, Nonce, WrapId};
use ehe::kem::Secret32;
use ehe::reading::{DeviceId, Reading, ReadingTime};
use ehe::time::Hour;
use ehe::vital::{Category, Vital};

use super::*;

mod behaviour;
mod crash;
mod disk;
mod doubtful;
mod poison;
mod retries;
mod shares;

const HOUR_MS: u64 = 3_600_000;
/// A clock that tests set.
#[derive(Clone)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(480_000 * HOUR_MS)))
    }

    fn wall(&self) -> WallClock {
        let clock = self.0.clone();
        Arc::new(move || UnixMs(clock.load(Ordering::SeqCst)))
    }

    fn advance_days(&self, days: u64) {
        self.0.fetch_add(days * 24 * HOUR_MS, Ordering::SeqCst);
    }
}

fn limits() -> SpoolLimits {
    SpoolLimits {
        max_bytes: 1 << 20,
        room_max_bytes: 1 << 20,
        held_max_bytes: 1 << 16,
        held_devices_max: 3,
        quarantine_max_bytes: 1 << 16,
        gather_ms: 0,
        unacknowledged_max: 100,
        retry_min_ms: 1,
        retry_max_ms: 2,
    }
}

/// A spool in memory, with its key file in a directory of its own.
struct Lab {
    dir: tempfile::TempDir,
    clock: TestClock,
    limits: SpoolLimits,
}

impl Lab {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: TestClock::new(), limits: limits() }
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("spool.key")
    }

    fn open(&self, disk: &disk::Disk) -> Result<(Spool, SpoolThread), SpoolError> {
        Spool::open(disk.opener(), &self.keys(), self.limits.clone(), self.clock.wall(), None)
    }
}

fn room(n: u8) -> RoomId {
    RoomId([n; 16])
}

/// A reading that is known by its value.
fn reading(value: u32) -> Reading {
    let at = UnixMs(480_000 * HOUR_MS + u64::from(value));
    let time = ReadingTime::at_receipt(at, u64::from(value), true, 1_000);
    let device = DeviceId::new("watch").unwrap();
    Reading::new(Vital::HeartRate, value.into(), Vital::HeartRate.unit(), device, time).unwrap()
}

fn window(n: u8) -> WindowKey {
    WindowKey { room: room(n), category: Category::Cardiac, hour: Hour(480_000) }
}

fn row(place: Place, value: u32) -> Row {
    let body = Body::pack(&[reading(value)], false).unwrap().remove(0);
    Row { place, body }
}

fn message(value: u32) -> Intake {
    Intake { mark: None, position: None, rows: vec![row(Place::Window(window(1)), value)] }
}

fn mark(packet_id: u16, dup: bool, payload: u8) -> Mark {
    Mark { source: "mqtt".into(), packet_id, dup, hash: [payload; 32], keep: 4, connection: 1 }
}

async fn store(spool: &Spool, intake: Intake) -> Stored {
    spool.store(intake).await.unwrap().durable().await.unwrap()
}

fn ek() -> Secret32 {
    Secret32::new([7; 32])
}

/// A wrap's id is that of its event, truncated.
fn wrap(n: u8, salt: u8) -> CheckedEvent {
    let core = Core { kind: Kind::Wrap, wrap: WrapId::ZERO, ..core(n, salt, WrapId::ZERO) };
    ehe::seal::seal(&ek(), core, b"wrap").unwrap()
}

fn core(n: u8, salt: u8, wrap: WrapId) -> Core {
    Core {
        version: VERSION,
        suite: Suite::One,
        kind: Kind::Vitals,
        room: room(n),
        author: AuthorId([2; 16]),
        epoch: EpochId([3; 16]),
        wrap,
        hour: Hour(480_000),
        salt: Nonce([salt; 16]),
    }
}

fn content(n: u8, salt: u8, wrap: WrapId, readings: &[Reading]) -> CheckedEvent {
    let plain = VitalsBody::from_readings(readings).unwrap().to_vec();
    ehe::seal::seal(&ek(), core(n, salt, wrap), &plain).unwrap()
}

fn new_event(event: CheckedEvent, readings: usize, urgent: bool) -> NewEvent {
    let readings = u32::try_from(readings).unwrap();
    NewEvent { event, readings, oldest: UnixMs(480_000 * HOUR_MS), urgent, report: Vec::new() }
}

impl Spool {
    async fn quarantined_events(&self) -> Result<Vec<ehe::event::Event>, SpoolError> {
        use redb::{ReadableDatabase, ReadableTable};
        self.read(|db, _| {
            let table = db.begin_read()?.open_table(tables::QUARANTINE)?;
            let rows = table.iter()?.map(|entry| Ok(entry?.1.value().to_vec()));
            let rows: Result<Vec<_>, redb::StorageError> = rows.collect();
            Ok(rows?.iter().map(|row| minicbor::decode::<tables::QuarantineRow>(row).unwrap().row.event).collect())
        })
        .await
    }
}

/// How often each value lies in the spool, as row or in an event.
async fn census(spool: &Spool) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for spooled in spool.windows().await.unwrap() {
        for reading in spool.take(spooled.window, usize::MAX).await.unwrap().readings {
            *found.entry(reading.value().to_string()).or_default() += 1;
        }
    }
    for backlog in spool.backlog() {
        for stored in spool.batch(backlog.room, usize::MAX, usize::MAX).await.unwrap() {
            let event = stored.event.check().unwrap();
            if event.core().kind == Kind::Vitals {
                for reading in VitalsBody::decode(&ehe::seal::open(&ek(), &event).unwrap()).unwrap() {
                    *found.entry(reading.value().to_string()).or_default() += 1;
                }
            }
        }
    }
    found
}
