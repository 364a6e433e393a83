//! The gateway's footprint at work, and how fast an outage's backlog leaves: the real program, a real Mosquitto, a real node.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;

use super::table::Row;
use super::usage;
use crate::journal::Journal;
use crate::lab::alliance::Alliance;
use crate::lab::broker::Broker;
use crate::lab::daemon::Daemon;
use crate::lab::node::Node;
use crate::lab::process::{Programs, run as run_to_end, until};
use crate::publish::Publisher;
use crate::wearable::Sending;

/// The group of these rows.
pub(super) const GROUP: &str = "gateway";
/// People in the home; each wears one device of each shape.
const PEOPLE: usize = 10;
/// Last part of the topic, vital, a value. In the order in which the `outage` example gives devices their vitals.
const SHAPES: [(&str, &str, &str); 5] = [
    ("hr", "heart_rate", "72"),
    ("spo2", "oxygen_saturation", "97"),
    ("resp", "respiratory_rate", "15"),
    ("temp", "body_temperature", "36.60"),
    ("pulse", "pulse_rate", "71"),
];
/// Of each device.
const MESSAGES_PER_SECOND: u64 = 2;
/// Of all devices: 10 people, 5 devices, 2 a second.
const READINGS_PER_SECOND: u64 = PEOPLE as u64 * SHAPES.len() as u64 * MESSAGES_PER_SECOND;
/// The first windows close and the rooms' records are fetched before measuring begins.
const WARM_UP: Duration = Duration::from_secs(20);
const MEASURED: Duration = Duration::from_secs(60);
const OUTAGE_HOURS: u64 = 24;
const RESIDENT_MAX_MIB: u64 = 25;
const CORE_MAX_PERCENT: f64 = 3.0;
const DRAIN_MAX: Duration = Duration::from_secs(120);

/// A home, a node, and the gateway between them.
struct Home {
    alliance: Alliance,
    node: Node,
    broker: Broker,
    gateway: Daemon,
    config: PathBuf,
    devices: Vec<Device>,
}

struct Device {
    name: String,
    topic: &'static str,
    value: &'static str,
    room: String,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy)]
struct Usage {
    cpu: Duration,
    resident_mib: u64,
    peak_mib: u64,
}

/// Measures the footprint, then an outage of a day.
pub(super) async fn run(out: &Path) -> Result<Vec<Row>> {
    let mut home = Home::set_up(out).await?;
    let mut rows = home.footprint(out).await?;
    rows.extend(home.outage().await?);
    rows.extend(others());
    Ok(rows)
}

impl Home {
    async fn set_up(out: &Path) -> Result<Self> {
        let programs = Programs::built()?;
        std::fs::create_dir_all(out)?;
        let out = out.canonicalize()?;
        let alliance = Alliance::found(&programs, &out.join("lab")).await?;
        let mut node = Node::start(&alliance)?;
        alliance.enrol("gateway1", "gateway").await?;
        alliance.enrol("patient1", "patient").await?;
        node.answers("patient1").await?;
        let gateway_key = alliance.path("gateway1").join("identity.pub").to_string_lossy().into_owned();
        let mut devices = Vec::new();
        for person in 1..=PEOPLE {
            // One owner for all rooms: who owns them makes no difference to the gateway.
            let made =
                alliance.ehe_json("patient1", &["room", "create", "--name", &format!("Person {person}")]).await?;
            let room = made.first().and_then(|line| line.get("room")?.as_str()).context("a room was made")?.to_owned();
            let grant = ["grant", "--room", &room, "--to", &gateway_key, "--append=all", "--name", "the gateway"];
            alliance.ehe_json("patient1", &grant).await?;
            for (topic, _, value) in SHAPES {
                devices.push(Device { name: format!("{topic}-{person}"), topic, value, room: room.clone() });
            }
        }
        let mut users: Vec<(String, String)> = devices.iter().map(|d| (d.name.clone(), password(&d.name))).collect();
        users.push(("gateway".into(), password("gateway")));
        let broker = Broker::start(&out.join("broker"), &users).await?;
        let config = alliance.path("gateway1.toml");
        std::fs::write(&config, configuration(&alliance, &broker, &devices)?)?;
        let gateway = Daemon::new(alliance.programs(), "ehe-gateway", config.clone());
        Ok(Self { alliance, node, broker, gateway, config, devices })
    }

    async fn footprint(&mut self, out: &Path) -> Result<Vec<Row>> {
        self.gateway.start()?;
        self.status("the gateway has subscribed", |status| {
            status.pointer("/counts/sources/mqtt/subscribed") == Some(&Value::Bool(true))
        })
        .await?;
        let idle = self.usage()?;
        let journal = Journal::create(&out.join("published.jsonl"))?;
        let mut publishing = JoinSet::new();
        let spacing = Duration::from_secs(1) / u32::try_from(MESSAGES_PER_SECOND)?;
        let rounds = (WARM_UP + MEASURED).as_millis() / spacing.as_millis();
        for (at, device) in (0u32..).zip(&self.devices) {
            let mut publisher =
                Publisher::connect(&device.name, &password(&device.name), &self.broker, journal.clone())?;
            let (topic, value) = (format!("wearables/{}/{}", device.name, device.topic), device.value);
            publishing.spawn(async move {
                tokio::time::sleep(spacing / 50 * (at % 50)).await; // devices are not in step
                let mut tick = tokio::time::interval(spacing);
                for _ in 0..rounds {
                    tick.tick().await;
                    let payload = format!("{{\"ts\":{},\"v\":{value}}}", Timestamp::now().as_millisecond());
                    publisher.send(Sending { topic: topic.clone(), payload, readings: Vec::new() }).await?;
                }
                publisher.finish(Duration::from_secs(20)).await
            });
        }
        tokio::time::sleep(WARM_UP).await;
        let (start, before) = (Instant::now(), self.usage()?);
        let stored = |status: &Value| number(status, "/counts/readings");
        let commits = |status: &Value| number(status, "/spool/commits");
        let first = self.status("a status", |_| true).await?;
        let mut resident_mib = before.resident_mib;
        while start.elapsed() < MEASURED {
            tokio::time::sleep(Duration::from_secs(1)).await;
            resident_mib = self.usage()?.resident_mib.max(resident_mib);
        }
        let (after, elapsed_s) = (self.usage()?, start.elapsed().as_secs_f64());
        let last = self.status("a status", |_| true).await?;
        while let Some(done) = publishing.join_next().await {
            done??;
        }
        let sent = u64::try_from(rounds)? * u64::try_from(self.devices.len())?;
        let drained = self
            .status("every reading is confirmed", |status| number(status, "/uplink/readings_confirmed") == sent)
            .await?;
        ensure!(stored(&drained) == sent, "{} of {sent} readings were stored", stored(&drained));
        self.gateway.stop().await?;

        let core = 100.0 * (after.cpu - before.cpu).as_secs_f64() / elapsed_s;
        let rate = number_f64(stored(&last) - stored(&first)) / elapsed_s;
        let per_second = number_f64(commits(&last) - commits(&first)) / elapsed_s;
        Ok(vec![
            Row::new(
                GROUP,
                format!("resident at {READINGS_PER_SECOND} readings/s, one a message, highest of {MEASURED:?}"),
                format!("{resident_mib} MiB (VmHWM {} MiB; idle {} MiB)", after.peak_mib, idle.resident_mib),
                "some 11 MiB of it is the program's own code; then the spool's cache and one connection's QUIC and TLS each",
            )
            .target(format!("≤ {RESIDENT_MAX_MIB} MiB"), resident_mib <= RESIDENT_MAX_MIB),
            Row::new(
                GROUP,
                format!("processor at {rate:.0} readings/s, one a message, mean of {MEASURED:?}"),
                format!("{core:.1} % of a core ({per_second:.0} commits/s)"),
                "over a third the spool's commits, the rest MQTT, TLS, mappings and threads that wake each other; few messages gather for 100 ms before a commit",
            )
            .target(format!("≤ {CORE_MAX_PERCENT} %"), core <= CORE_MAX_PERCENT),
        ])
    }

    async fn outage(&mut self) -> Result<Vec<Row>> {
        self.node.daemon.stop().await?;
        let made = self.fill().await?;
        let (events, readings) = (number(&made, "/events"), number(&made, "/readings"));
        self.gateway.start()?;
        self.status("the gateway finds its backlog and no node", |status| number(status, "/uplink/failures") > 2)
            .await?;
        let before = self.usage()?;
        let start = Instant::now();
        self.node.daemon.start()?;
        let drained =
            self.status("the spool is empty", |status| number(status, "/spool/totals/outbox_bytes") == 0).await?;
        let (took, after) = (start.elapsed(), self.usage()?);
        let confirmed = number(&drained, "/uplink/readings_confirmed");
        ensure!(confirmed == readings, "{confirmed} of {readings} readings were confirmed");
        let faults = number(&drained, "/uplink/proofs_refused") + number(&drained, "/uplink/events_quarantined");
        ensure!(faults == 0, "{faults} proofs or events were refused");
        self.gateway.stop().await?;
        let busy = (after.cpu - before.cpu).as_secs_f64();
        Ok(vec![
            Row::new(
                GROUP,
                format!(
                    "an outage of {OUTAGE_HOURS} h at {READINGS_PER_SECOND} readings/s drained: {readings} readings in {events} events, \
                     node started → every receipt verified, spool empty"
                ),
                format!("{:.0} s (gateway's peak {} MiB)", took.as_secs_f64(), after.peak_mib),
                format!(
                    "gateway {busy:.0} s of one core; the rest is the node's, on the same machine. The backlog was written by the gateway's \
                     own sealer and spool with the times of a day"
                ),
            )
            .target(format!("< {} s", DRAIN_MAX.as_secs()), took < DRAIN_MAX),
        ])
    }

    /// What a day without a node would have left in the spool.
    async fn fill(&self) -> Result<Value> {
        let program = self.alliance.programs().path("examples/outage");
        ensure!(
            program.is_file(),
            "{} is not built: cargo build --release --workspace --bins --example outage",
            program.display()
        );
        let mut command = tokio::process::Command::new(program);
        command.arg(&self.config).arg(OUTAGE_HOURS.to_string()).arg(READINGS_PER_SECOND.to_string());
        let made = run_to_end(command, Duration::from_secs(1200)).await?.success("outage")?;
        serde_json::from_str(&made.stdout).with_context(|| format!("outage printed: {}", made.stdout))
    }

    /// Waits for a status of the running gateway for which something holds.
    async fn status(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let id = self.gateway.id().map(u64::from);
        let path = self.alliance.path("gateway1-data").join("status.json");
        let (gateway, holds) = (&mut self.gateway, &holds);
        until(what, Duration::from_secs(600), || {
            let alive = gateway.check();
            let text = std::fs::read_to_string(&path);
            async move {
                alive?;
                let status = text.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
                Ok(status.filter(|status| status.get("pid").and_then(Value::as_u64) == id && holds(status)))
            }
        })
        .await
    }

    fn usage(&self) -> Result<Usage> {
        let id = self.gateway.id().context("the gateway runs")?;
        let (peak_mib, resident_mib) = usage::resident_mib(id)?;
        Ok(Usage { cpu: usage::cpu(id)?, resident_mib, peak_mib })
    }
}

fn number(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

fn number_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

fn password(name: &str) -> String {
    format!("pw-{name}")
}

/// The defaults, save for what a lab must name: what a technician would write.
fn configuration(alliance: &Alliance, broker: &Broker, devices: &[Device]) -> Result<String> {
    use std::os::unix::fs::OpenOptionsExt;
    let secret = alliance.path("gateway1-mqtt-password");
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&secret)?;
    std::io::Write::write_all(&mut file, password("gateway").as_bytes())?;
    let mut text = format!(
        "credentials_dir = {:?}\ndata_dir = {:?}\n[[mqtt]]\nhost = \"localhost\"\nport = {}\nusername = \"gateway\"\n\
         password_file = {secret:?}\ntls = {{ ca_file = {:?} }}\n",
        alliance.path("gateway1"),
        alliance.path("gateway1-data"),
        broker.port(),
        broker.authority()
    );
    for (topic, ..) in SHAPES {
        text.push_str(&format!(
            "[[mqtt.subscription]]\ntopic = \"wearables/+/{topic}\"\ndevice = \"{{1}}\"\nmapping = \"{topic}\"\n"
        ));
    }
    for (topic, vital, _) in SHAPES {
        text.push_str(&format!(
            "[[mapping]]\nname = \"{topic}\"\ntime = {{ path = \"ts\", format = \"unix_ms\" }}\n\
             [[mapping.value]]\npath = \"v\"\nvital = \"{vital}\"\n"
        ));
    }
    for Device { name, room, .. } in devices {
        text.push_str(&format!("[[assignment]]\ndevice = {name:?}\nroom = {room:?}\n"));
    }
    Ok(text)
}

/// What users run today, for comparison: not measured here, so that `make bench` needs none of them.
fn others() -> Vec<Row> {
    let row = |what: &str, measured: &str| {
        let source = "measured on such a machine, one message a reading, an outage of the next hop, then kill -9";
        Row::new(GROUP, format!("for comparison: {what}"), measured, source)
    };
    vec![
        row(
            "Mosquitto as a bridge",
            "8.9 MiB; 0 lost in an outage; 100 acknowledged messages lost by kill -9 with default settings",
        ),
        row("NanoMQ", "4.4 MiB; 100 acknowledged messages lost by kill -9"),
        row("Theengs Gateway", "39 MiB; all 200 messages of an outage lost"),
    ]
}
