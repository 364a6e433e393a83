//! The whole way of a reading: from the wearable's PUBLISH to the receipt that its gateway verified.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::watch;

use super::table::Row;
use crate::account::{Compared, percentile};
use crate::day::Day;
use crate::journal::{Journal, read_lines};
use crate::latency::Latencies;
use crate::publish::Publisher;
use crate::scenario::{Options, Scene, WINDOW_MS, settle, silence};
use crate::view::View;
use crate::wearable;

/// The group of these rows.
pub(super) const GROUP: &str = "way";
/// Three windows and a bit.
const STEADY: Duration = Duration::from_secs(50);
const ALARMS: usize = 30;
/// A heart rate that no default threshold lets pass.
const ALARM_PER_MIN: f64 = 190.0;

/// Runs without faults, then sends alarms.
pub(super) async fn run(out: &Path, seed: u64) -> Result<Vec<Row>> {
    let view = View::new(wearable::five().into_iter().map(|w| w.device), false);
    let options = Options::new(out, seed);
    let mut scene = Scene::set_up(&options, view).await?;
    let (stop, stopped) = watch::channel(false);
    let mut publishing = scene.publish(&stopped)?;
    scene.view.say(format!("publishing for {STEADY:?} without faults"));
    tokio::time::sleep(STEADY).await;
    stop.send_replace(true);
    let published = silence(&mut publishing).await?;
    settle(&mut scene, published).await?;
    let steady = latencies(&scene, &scene.out.join("published.jsonl"))?;
    let alarms = alarms(&mut scene, published).await?;

    let (p50, p99, target) = (percentile(&steady, 50), percentile(&steady, 99), WINDOW_MS + 200);
    let mut rows = vec![
        Row::new(
            GROUP,
            format!("steady latency, published → receipt verified, p99 of {} readings", steady.len()),
            format!("{p99} ms (p50 {p50} ms)"),
            format!("the window: {WINDOW_MS} ms from a window's first reading"),
        )
        .target(format!("≤ {target} ms"), p99 <= target),
    ];
    let (p50, p99) = (percentile(&alarms, 50), percentile(&alarms, 99));
    rows.push(Row::new(
        GROUP,
        format!("alarm-worthy value, published → receipt verified, {} of them", alarms.len()),
        format!("p50 {p50} ms, p99 {p99} ms"),
        "spool's sync, sealing's sync, node's log and checkpoint syncs",
    ));
    Ok(rows)
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
