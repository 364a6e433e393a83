//! Figures of the whole way, measured on the running system.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::account::{Compared, percentile};
use crate::day::Day;
use crate::journal::{Journal, read_lines};
use crate::latency::Latencies;
use crate::publish::Publisher;
use crate::scenario::{Scene, WINDOW_MS, settle, silence};

/// Three windows and a bit.
const STEADY: Duration = Duration::from_secs(50);
const ALARMS: usize = 30;
/// A heart rate that no default threshold lets pass.
const ALARM_PER_MIN: f64 = 190.0;

/// Runs without faults, then sends alarms; the table.
pub async fn run(scene: &mut Scene) -> Result<String> {
    let (stop, stopped) = watch::channel(false);
    let mut publishing = scene.publish(&stopped)?;
    scene.view.say(format!("publishing for {STEADY:?} without faults"));
    tokio::time::sleep(STEADY).await;
    stop.send_replace(true);
    let published = silence(&mut publishing).await?;
    settle(scene, published).await?;
    let steady = latencies(scene, &scene.out.join("published.jsonl"))?;
    let alarms = alarms(scene, published).await?;

    let mut table = String::from("| figure | target | measured | where the time goes |\n|---|---|---|---|\n");
    let (p50, p99, target) = (percentile(&steady, 50), percentile(&steady, 99), WINDOW_MS + 200);
    let verdict = if p99 <= target { "" } else { " **missed**" };
    writeln!(
        table,
        "| steady latency, published → receipt verified, p99 of {} readings | ≤ {target} ms | {p99} ms{verdict} (p50 {p50} ms) | the window: {WINDOW_MS} ms from a window's first reading |",
        steady.len()
    )?;
    let (p50, p99) = (percentile(&alarms, 50), percentile(&alarms, 99));
    writeln!(
        table,
        "| alarm-worthy value, published → receipt verified, {} of them | – | p50 {p50} ms, p99 {p99} ms | spool's sync, sealing's sync, node's log and checkpoint syncs |",
        alarms.len()
    )?;
    Ok(table)
}

async fn alarms(scene: &mut Scene, before: usize) -> Result<Vec<u64>> {
    let (wearable, password) = scene.wearables.first().context("there is a strap")?.clone();
    let room = scene.patients.get(wearable.patient).context("there is a patient")?.room.clone();
    let path = scene.out.join("alarms.jsonl");
    let mut publisher = Publisher::connect(&wearable.device, &password, &scene.broker, Journal::create(&path)?)?;
    scene.view.say(format!("publishing {ALARMS} alarm-worthy heart rates"));
    let mut moment = Day::new(0).step();
    moment.heart_rate_per_min = ALARM_PER_MIN;
    let mut tick = tokio::time::interval(Duration::from_millis(300));
    for _ in 0..ALARMS {
        tick.tick().await;
        publisher.send(wearable.send(&room, &moment, Timestamp::now())).await?;
    }
    let published = publisher.finish(Duration::from_secs(10)).await?;
    settle(scene, before + published).await?;
    latencies(scene, &path)
}

fn latencies(scene: &Scene, journal: &std::path::Path) -> Result<Vec<u64>> {
    let compared = Compared::new(read_lines(journal)?, Vec::new());
    Ok(Latencies::read(&scene.gateway.report())?.of(&compared))
}
