//! For the lab: writes into a stopped gateway's spool what an outage of so many hours would have left there.
//!
//! The gateway's own rooms, sealer and spool do the work, window by window and with the times that the readings would have had; only
//! the waiting is left out, and a commit takes a minute's windows together. The gateway must have run before, so that its
//! spool knows the rooms' keys. `make bench` measures with it how fast a day drains.
//!
//! `outage CONFIG HOURS READINGS_PER_SECOND`, the readings shared out evenly among the configuration's assignments, whose devices are in
//! turn of [`VITALS`]. Prints `{"events": …, "readings": …, "bytes": …}`.

#![allow(clippy::print_stdout, reason = "its one line of output")]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ehe::decimal::Decimal;
use ehe::id::RoomId;
use ehe::reading::{DeviceId, DeviceTime, Reading, ReadingTime, TimeMethod};
use ehe::time::UnixMs;
use ehe::vital::{Category, Vital};
use ehe_gateway::config::{Checked, Config};
use ehe_gateway::daemon;
use ehe_gateway::rooms::{Rooms, Sealer};
use ehe_gateway::seal::Seal;
use ehe_gateway::spool::{self, NewEvent, Spool, SpoolError};

/// What the devices measure, in turn, and a usual value in hundredths.
const VITALS: [(Vital, i64); 5] = [
    (Vital::HeartRate, 7_200),
    (Vital::OxygenSaturation, 9_700),
    (Vital::RespiratoryRate, 1_500),
    (Vital::BodyTemperature, 3_660),
    (Vital::PulseRate, 7_100),
];
const HOUR_MS: u64 = 3_600_000;
const COMMIT_MS: u64 = 60_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, hours, per_second] = arguments.as_slice() else {
        anyhow::bail!("outage CONFIG HOURS READINGS_PER_SECOND");
    };
    let (hours, per_second): (u64, u64) = (hours.parse().context("HOURS")?, per_second.parse().context("READINGS")?);
    let checked = Config::load(Path::new(config))?.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fill(&checked, hours, per_second))
}

async fn fill(checked: &Checked, hours: u64, per_second: u64) -> Result<()> {
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let config = &checked.config;
    let credentials = daemon::load_credentials(checked)?;
    let rooms = Rooms::new(Arc::new(credentials.identity().clone()), credentials.alliance_id());
    let database = spool::file(&config.data_dir, config.spool.cache_bytes());
    let clock = Arc::new(move || UnixMs(now_ms));
    let (spool, thread) =
        Spool::open(database, &config.data_dir.join("spool.key"), config.spool_limits(), clock, None)?;
    for (room, saved) in spool.load_rooms().await? {
        rooms.restore(room, &saved)?;
    }
    rooms.assigned(checked.assignments.rooms());
    let sealer = Sealer::new(rooms, 9);
    let devices: Vec<Device> = config
        .assignment
        .iter()
        .zip(VITALS.iter().cycle())
        .map(|(of, (vital, usual))| Device { room: of.room, id: of.device.clone(), vital: *vital, usual: *usual })
        .collect();
    let each = u64::try_from(devices.len())?;
    ensure!(each > 0 && per_second > 0 && config.window.window_ms > 0, "no assignment, no reading or no window");
    let (window_ms, step_ms) = (config.window.window_ms, 1000 * each / per_second);
    ensure!(step_ms > 0, "a device has at most 1,000 readings a second");

    let start_ms = now_ms - hours * HOUR_MS;
    let (mut total, mut readings_total, mut commit, mut from_ms) = (0u64, 0u64, Vec::new(), start_ms);
    while from_ms < now_ms {
        // A window also ends with its hour.
        let hour_end_ms = (from_ms / HOUR_MS + 1) * HOUR_MS;
        let until_ms = (from_ms + window_ms).min(hour_end_ms).min(now_ms);
        let mut windows: BTreeMap<(RoomId, Category), Vec<Reading>> = BTreeMap::new();
        for (phase, device) in (0..).zip(&devices) {
            let readings = windows.entry((device.room, device.vital.category())).or_default();
            let phase_ms = phase * step_ms / each;
            let mut at_ms = from_ms.next_multiple_of(step_ms) + phase_ms;
            at_ms = if at_ms >= from_ms + step_ms { at_ms - step_ms } else { at_ms };
            while at_ms < until_ms {
                readings.push(device.reading(at_ms, at_ms - start_ms)?);
                at_ms += step_ms;
            }
        }
        for ((room, category), mut readings) in windows {
            readings.sort_by_key(|reading| reading.time().received);
            let (events, kept) = Seal::seal(&sealer, room, category, &readings, UnixMs(until_ms))
                .with_context(|| format!("room {room}: has the gateway run before, and been invited?"))?;
            // The keys go on: what is not committed here ends this program.
            Seal::committed(&sealer, kept);
            for (event, indices) in events {
                let oldest = readings.first().map(|reading| reading.time().received).unwrap_or_default();
                let count = u32::try_from(indices.len())?;
                readings_total += u64::from(count);
                total += 1;
                commit.push(NewEvent { event, readings: count, oldest, urgent: false, report: Vec::new() });
            }
        }
        if until_ms / COMMIT_MS != from_ms / COMMIT_MS || until_ms >= now_ms {
            put(&spool, std::mem::take(&mut commit)).await?;
        }
        from_ms = until_ms;
    }
    let bytes = spool.status().totals.outbox_bytes;
    ensure!(bytes < config.spool_limits().max_bytes, "more than spool.max_mib: an outage would have stopped before");
    tokio::task::spawn_blocking(move || thread.stop()).await?;
    println!("{{\"events\": {total}, \"readings\": {readings_total}, \"bytes\": {bytes}}}");
    Ok(())
}

async fn put(spool: &Spool, events: Vec<NewEvent>) -> Result<(), SpoolError> {
    spool.seal(Vec::new(), Vec::new(), events).await
}

struct Device {
    room: RoomId,
    id: DeviceId,
    vital: Vital,
    usual: i64,
}

impl Device {
    /// A value that wanders, received some ten milliseconds after it was measured.
    fn reading(&self, at_ms: u64, since_ms: u64) -> Result<Reading> {
        let noise = at_ms.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        let (swing, delay_ms) = (i64::try_from(noise % 9)? - 4, 10 + noise / 16 % 40);
        let time = ReadingTime {
            device: Some(DeviceTime { wall_ms: i64::try_from(at_ms)?, offset_min: Some(0) }),
            received: UnixMs(at_ms + delay_ms),
            received_monotonic_ms: since_ms + delay_ms,
            derived: Some(UnixMs(at_ms)),
            interval_ms: None,
            method: TimeMethod::DeviceUtc,
            uncertainty_ms: 1,
            clock_synchronised: true,
        };
        // Whole numbers, save for temperatures: as such devices send them.
        let value = match self.vital {
            Vital::BodyTemperature => Decimal::new(self.usual + swing, -2),
            _ => Decimal::new(self.usual / 100 + swing, 0),
        };
        Reading::new(self.vital, value, self.vital.unit(), self.id.clone(), time)
            .map_err(io::Error::other)
            .context("a reading")
    }
}
