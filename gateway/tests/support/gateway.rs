//! From the broker to the spool, in this process: what the tests of hostile and honest brokers share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ehe_gateway::clock::SystemClock;
use ehe_gateway::config::Config;
use ehe_gateway::dispatch::Dispatch;
use ehe_gateway::source::mqtt::MqttSource;
use ehe_gateway::spool::{self, OpenDatabase, Spool, SpoolThread};
use ehe_gateway::status::{Counters, Counts};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{COMMON, Wearable, until};

/// Everything from the broker to the spool, as the daemon wires it.
pub(crate) struct Gateway {
    pub(crate) spool: Spool,
    thread: SpoolThread,
    pub(crate) counters: Arc<Counters>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Gateway {
    pub(crate) fn start(data: &Path, config: &str, open: OpenDatabase) -> Self {
        let checked = Arc::new(Config::parse(config, Path::new("test")).unwrap().check().unwrap());
        let clock = SystemClock::new(PathBuf::from("/nonexistent"));
        let counters = ehe_gateway::status::counters();
        let limits = checked.config.spool_limits();
        let (spool, thread) = Spool::open(open, &data.join("spool.key"), limits, clock.wall(), None).unwrap();
        let (inputs, queue) = mpsc::channel(1024);
        let (pending, pending_queue) = mpsc::channel(1024);
        let (arrivals, mut arrived) = mpsc::channel(1024);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let dispatch = Dispatch { checked: checked.clone(), spool: spool.clone(), counters: counters.clone() };
        tasks.spawn(dispatch.clone().run(queue, pending, stop.clone()));
        tasks.spawn(dispatch.settle(pending_queue, arrivals, stop.clone()));
        tasks.spawn(async move { while arrived.recv().await.is_some() {} });
        for one in &checked.config.mqtt {
            let source = MqttSource::new(one.clone(), clock.clone(), counters.clone()).unwrap();
            tasks.spawn(source.run(inputs.clone(), stop.clone()));
        }
        Self { spool, thread, counters, tasks, stop }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counters.snapshot()
    }

    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Counts) -> bool) {
        until(what, async || condition(&self.counts())).await;
    }

    pub(crate) async fn connected(&self) {
        self.until("connected", |counts| counts.sources.get("mqtt").is_some_and(|source| source.connected)).await;
    }

    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    }

    /// As if the process had been killed: no farewell, no acknowledgement.
    pub(crate) async fn kill(mut self) {
        self.tasks.shutdown().await;
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
    }
}

pub(crate) fn config(data: &Path, port: u16, more: &str) -> String {
    format!(
        "credentials_dir = '/x'\ndata_dir = '{}'\n[spool]\nretry_min_ms = 5\nretry_max_ms = 20\n[[mqtt]]\nport = {port}\n\
         client_id = 'gw'\nbackoff_min_ms = 10\nbackoff_max_ms = 100\nmax_packet_bytes = 8192\n{more}\n\
         [[mqtt.subscription]]\ntopic = 'wearables/+/hr'\ndevice = '{{1}}'\nmapping = 'hr'\n{COMMON}",
        data.display()
    )
}

/// How often each value lies in the spool.
pub(crate) async fn census(spool: &Spool) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for spooled in spool.windows().await.unwrap() {
        for reading in spool.take(spooled.window, usize::MAX).await.unwrap().readings {
            *found.entry(reading.value().to_string()).or_default() += 1;
        }
    }
    found
}

pub(crate) async fn hold_each_once(spool: &Spool, values: std::ops::Range<u32>) {
    let found = census(spool).await;
    let wanted: BTreeMap<String, usize> = values.map(|value| (value.to_string(), 1)).collect();
    assert_eq!(found, wanted);
}

pub(crate) async fn publish(wearable: &Wearable, values: std::ops::Range<u32>) {
    for value in values {
        wearable.publish("wearables/watch/hr", format!("{{\"hr\":{value}}}")).await;
    }
}

pub(crate) fn stored(counts: &Counts) -> u64 {
    counts.readings
}

pub(crate) fn file(data: &Path) -> OpenDatabase {
    spool::file(data, 1 << 20)
}
