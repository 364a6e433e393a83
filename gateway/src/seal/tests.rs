//! Windows that close over a real spool, with a sealer that does as the test says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use ehe::body::vitals::VitalsBody;
use ehe::event::{Core, Kind, Suite, VERSION};
use ehe::id::{AuthorId, EpochId, Nonce, WrapId};
use ehe::kem::Secret32;
use ehe::reading::{DeviceId, ReadingTime};
use ehe::vital::Vital;

use super::*;
use crate::spool::{self, Body, Intake, Place, Row, SpoolLimits, SpoolThread};

const ROOM: RoomId = RoomId([1; 16]);
const OTHER: RoomId = RoomId([2; 16]);
const WITHIN: Duration = Duration::from_secs(30);

/// Seals under a known key; a wrap first for each room.
#[derive(Clone)]
struct Fake {
    invited: Arc<Mutex<BTreeMap<RoomId, bool>>>,
    committed: Arc<Mutex<usize>>,
    spool: Arc<Mutex<Option<Spool>>>,
    changed: watch::Sender<u64>,
}

fn core(kind: Kind, room: RoomId) -> Core {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).unwrap();
    Core {
        version: VERSION,
        suite: Suite::One,
        kind,
        room,
        author: AuthorId([2; 16]),
        epoch: EpochId([3; 16]),
        wrap: WrapId([4; 16]),
        hour: UnixMs(0).hour(),
        salt: Nonce(salt),
    }
}

fn key() -> Secret32 {
    Secret32::new([7; 32])
}

impl Seal for Fake {
    type Commit = usize;

    fn seal(&self, room: RoomId, _: Category, readings: &[Reading], _: UnixMs) -> Result<Outcome<usize>, SealHold> {
        if !self.invited.lock().unwrap().get(&room).copied().unwrap_or(false) {
            return Err(SealHold::RoomUnknown);
        }
        let wrap = ehe::seal::seal(&key(), core(Kind::Wrap, room), b"wrap").unwrap();
        let plain = VitalsBody::from_readings(readings).unwrap().to_vec();
        let content = ehe::seal::seal(&key(), core(Kind::Vitals, room), &plain).unwrap();
        Ok((vec![(wrap, vec![]), (content, (0..readings.len()).collect())], 1))
    }

    fn about_to_seal(&self, _: RoomId) {}

    fn committed(&self, commit: usize) {
        let spool = self.spool.lock().unwrap();
        assert!(
            spool.as_ref().unwrap().status().totals.outbox_bytes > 0,
            "a key seals on only once its wrap is durable"
        );
        *self.committed.lock().unwrap() += commit;
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

struct Lab {
    dir: tempfile::TempDir,
    fake: Fake,
    clock: SystemClock,
    hold_retry: Duration,
    room_max_bytes: u64,
}

struct Running {
    spool: Spool,
    thread: SpoolThread,
    arrivals: mpsc::Sender<Vec<Arrival>>,
    counters: Arc<Counters>,
    task: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

impl Lab {
    fn new(invited: &[RoomId]) -> Self {
        let invited = Arc::new(Mutex::new(invited.iter().map(|room| (*room, true)).collect()));
        let changed = watch::Sender::new(0);
        let fake = Fake { invited, committed: Arc::default(), spool: Arc::default(), changed };
        let clock = SystemClock::new(PathBuf::from("/nonexistent"));
        Self {
            dir: tempfile::tempdir().unwrap(),
            fake,
            clock,
            hold_retry: Duration::from_secs(3600),
            room_max_bytes: 1 << 30,
        }
    }

    async fn start(&self, window_ms: u64, readings_max: u64) -> Running {
        let limits = SpoolLimits {
            max_bytes: 1 << 20,
            room_max_bytes: self.room_max_bytes,
            held_max_bytes: 0,
            held_devices_max: 0,
            quarantine_max_bytes: 0,
            gather_ms: 0,
            unacknowledged_max: 100,
            retry_min_ms: 1,
            retry_max_ms: 1,
        };
        let keys = self.dir.path().join("spool.key");
        let open = spool::file(self.dir.path(), 1 << 20);
        let (spool, thread) = Spool::open(open, &keys, limits, self.clock.wall(), None).unwrap();
        *self.fake.spool.lock().unwrap() = Some(spool.clone());
        let (arrivals, queue) = mpsc::channel(16);
        let (stop, counters) = (CancellationToken::new(), crate::status::counters());
        let closing = Closing {
            spool: spool.clone(),
            sealer: self.fake.clone(),
            clock: self.clock.clone(),
            limits: WindowLimits { window_ms, readings_max },
            hold_retry: self.hold_retry,
            report: true,
            counters: counters.clone(),
        };
        let restored = spool.windows().await.unwrap();
        let task = tokio::spawn(closing.run(restored, queue, stop.clone()));
        Running { spool, thread, arrivals, counters, task, stop }
    }

    fn reading(&self, value: u32) -> Reading {
        let time = ReadingTime::at_receipt(self.clock.now().utc, 0, true, 1_000);
        let device = DeviceId::new("watch").unwrap();
        Reading::new(Vital::HeartRate, value.into(), Vital::HeartRate.unit(), device, time).unwrap()
    }

    async fn arrive(&self, running: &Running, room: RoomId, value: u32, alarm: bool) {
        let reading = self.reading(value);
        let window = WindowKey { room, category: Category::Cardiac, hour: reading.at().hour() };
        let body = Body::pack(&[reading], alarm).unwrap().remove(0);
        let rows = vec![Row { place: Place::Window(window), body }];
        let stored = running.spool.store(Intake { mark: None, position: None, rows }).await.unwrap();
        running.arrivals.send(stored.durable().await.unwrap().arrivals).await.unwrap();
    }
}

impl Running {
    /// Waits until the outbox holds so many events, wraps included.
    async fn outbox(&self, events: u64) {
        let mut changed = self.spool.changed();
        let reached = async {
            while self.spool.backlog().iter().map(|room| room.events).sum::<u64>() != events {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(WITHIN, reached)
            .await
            .unwrap_or_else(|_| panic!("not reached: {:?}", self.spool.backlog()));
    }

    async fn values(&self, room: RoomId) -> Vec<Vec<String>> {
        let mut out = Vec::new();
        for stored in self.spool.batch(room, 100, usize::MAX).await.unwrap() {
            let event = stored.event.check().unwrap();
            if event.core().kind == Kind::Vitals {
                let readings = VitalsBody::decode(&ehe::seal::open(&key(), &event).unwrap()).unwrap();
                assert_eq!(stored.readings, u32::try_from(readings.len()).unwrap());
                out.push(readings.iter().map(|r| r.value().to_string()).collect());
            } else {
                assert_eq!(stored.readings, 0);
            }
        }
        out
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        tokio::task::spawn_blocking(move || self.thread.stop()).await.unwrap();
    }
}

#[tokio::test]
async fn an_alarm_is_sealed_at_once_with_what_its_window_holds() {
    let lab = Lab::new(&[ROOM, OTHER]);
    let running = lab.start(3_600_000, 100).await;
    lab.arrive(&running, ROOM, 70, false).await;
    lab.arrive(&running, OTHER, 71, false).await;
    lab.arrive(&running, ROOM, 180, true).await;
    running.outbox(2).await;
    assert_eq!(running.values(ROOM).await, [["70", "180"]]);
    assert!(running.values(OTHER).await.is_empty());
    let backlog = running.spool.backlog();
    assert!(backlog.len() == 1 && backlog[0].urgent);
    let counters = running.counters.clone();
    running.end().await;
    assert_eq!(*lab.fake.committed.lock().unwrap(), 1);
    assert_eq!(counters.snapshot().closed_by_alarm, 1);
}

#[tokio::test]
async fn a_window_is_sealed_when_its_time_is_over_and_when_it_is_full() {
    let lab = Lab::new(&[ROOM, OTHER]);
    let running = lab.start(150, 2).await;
    for value in [70, 71, 72] {
        lab.arrive(&running, ROOM, value, false).await;
    }
    running.outbox(4).await;
    assert_eq!(running.values(ROOM).await.concat(), ["70", "71", "72"]);
    let counters = running.counters.clone();
    running.end().await;
    let counts = counters.snapshot();
    assert_eq!((counts.closed_full, counts.closed_by_time, counts.readings_sealed), (1, 1, 3), "{counts:?}");
}

#[tokio::test]
async fn what_cannot_be_sealed_yet_waits_in_the_spool_and_keeps_nobody_waiting() {
    let lab = Lab::new(&[OTHER]);
    let running = lab.start(50, 2).await;
    for value in [70, 71, 72, 73, 74] {
        lab.arrive(&running, ROOM, value, value == 70).await;
    }
    lab.arrive(&running, OTHER, 80, false).await;
    running.outbox(2).await;
    assert_eq!(running.values(OTHER).await, [["80"]]);
    running.end().await;

    // Also over a restart; then the patient invites the gateway.
    let running = lab.start(50, 2).await;
    lab.arrive(&running, OTHER, 81, false).await;
    running.outbox(4).await;
    assert!(running.values(ROOM).await.is_empty());
    lab.fake.invited.lock().unwrap().insert(ROOM, true);
    lab.fake.changed.send_modify(|n| *n += 1);
    running.outbox(4 + 3 * 2).await;
    assert_eq!(running.values(ROOM).await.concat(), ["70", "71", "72", "73", "74"]);
    assert!(running.spool.windows().await.unwrap().is_empty());
    running.end().await;
}

#[tokio::test]
async fn what_a_wrong_clock_kept_on_hold_is_sealed_although_its_room_does_not_change() {
    let lab = Lab { hold_retry: Duration::from_millis(20), ..Lab::new(&[]) };
    let running = lab.start(1, 100).await;
    lab.arrive(&running, ROOM, 70, false).await;
    let counters = running.counters.clone();
    tokio::time::timeout(WITHIN, async {
        while counters.snapshot().windows_on_hold == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    lab.fake.invited.lock().unwrap().insert(ROOM, true);
    running.outbox(2).await;
    assert_eq!(running.values(ROOM).await, [["70"]]);
    running.end().await;
}

#[tokio::test]
async fn an_open_window_is_sealed_after_a_restart() {
    let lab = Lab::new(&[ROOM]);
    let running = lab.start(3_600_000, 100).await;
    lab.arrive(&running, ROOM, 70, false).await;
    running.end().await;
    let running = lab.start(1, 100).await;
    running.outbox(2).await;
    assert_eq!(running.values(ROOM).await, [["70"]]);
    running.end().await;
}

#[tokio::test]
async fn only_a_room_that_was_found_on_hold_is_thinned_and_no_more_once_it_changed() {
    let lab = Lab { room_max_bytes: 1, ..Lab::new(&[OTHER]) };
    let running = lab.start(1, 100).await;
    let thinned = || running.spool.status().thinned.get(&ROOM).map_or(0, |thinned| thinned.readings);
    tokio::time::timeout(WITHIN, async {
        while thinned() == 0 {
            lab.arrive(&running, ROOM, 70, false).await;
        }
    })
    .await
    .unwrap();
    for value in 80..90 {
        lab.arrive(&running, OTHER, value, false).await;
    }
    lab.fake.invited.lock().unwrap().insert(ROOM, true);
    lab.fake.changed.send_modify(|n| *n += 1);
    tokio::time::timeout(WITHIN, async {
        while !running.spool.windows().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let before = thinned();
    for value in 0..20 {
        lab.arrive(&running, ROOM, 100 + value, false).await;
    }
    assert_eq!(thinned(), before, "invited, it loses nothing, however small its share is");
    assert_eq!(running.spool.status().thinned.len(), 1, "the other room lost nothing");
    running.end().await;
}
