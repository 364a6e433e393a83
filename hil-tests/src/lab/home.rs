//! The home: a gateway with a configuration such as a technician would write.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::alliance::Alliance;
use super::broker::Broker;
use super::daemon::Daemon;
use super::process::until;

/// Shapes of the five wearables' documents.
const MAPPINGS: &str = include_str!("home/mappings.toml");

/// A device and the room that its readings go to.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Device id.
    pub device: String,
    /// Room id.
    pub room: String,
}

/// What differs between the lab's gateways.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long it gathers readings before it seals them.
    pub window_ms: u64,
    /// What it logs, if not its default.
    pub log: Option<&'static str>,
}

/// A gateway, running or not.
#[derive(Debug)]
pub struct Gateway {
    alliance: Alliance,
    /// The program.
    pub daemon: Daemon,
}

impl Gateway {
    /// Writes its configuration and starts it.
    pub async fn start(
        alliance: &Alliance,
        broker: &Broker,
        password: &str,
        assignments: &[Assignment],
        Settings { window_ms, log }: Settings,
    ) -> Result<Self> {
        let password_file = alliance.path("gateway1-mqtt-password");
        write_secret(&password_file, password)?;
        let mut config = format!(
            "credentials_dir = {:?}\ndata_dir = {:?}\nreport_confirmations = {:?}\n",
            alliance.path("gateway1"),
            alliance.path("gateway1-data"),
            alliance.path("confirmations.jsonl"),
        );
        // The lab's outages last seconds: do not wait longer than they do.
        config.push_str(&format!("[uplink]\nbackoff_max_ms = 1000\n[window]\nwindow_ms = {window_ms}\n"));
        if let Some(filter) = log {
            config.push_str(&format!("[log]\nfilter = {filter:?}\n"));
        }
        config.push_str(MAPPINGS);
        config.push_str(&format!(
            "[[mqtt]]\nhost = \"localhost\"\nport = {}\nusername = \"gateway\"\npassword_file = {password_file:?}\n\
             backoff_max_ms = 1000\ntls = {{ ca_file = {:?} }}\n",
            broker.port(),
            broker.authority()
        ));
        for (topic, mapping) in
            [("hr", "strap"), ("bp", "cuff"), ("ppg", "oximeter"), ("data", "thermometer"), ("measure", "scale")]
        {
            config.push_str(&format!(
                "[[mqtt.subscription]]\ntopic = \"wearables/+/{topic}\"\ndevice = \"{{1}}\"\nmapping = \"{mapping}\"\n"
            ));
        }
        for Assignment { device, room } in assignments {
            config.push_str(&format!("[[assignment]]\ndevice = {device:?}\nroom = {room:?}\n"));
        }
        let file = alliance.path("gateway1.toml");
        std::fs::write(&file, config)?;
        let daemon = Daemon::new(alliance.programs(), "ehe-gateway", file);
        let mut gateway = Self { alliance: alliance.clone(), daemon };
        gateway.daemon.start()?;
        gateway.listens().await?;
        Ok(gateway)
    }

    /// Waits until its subscriptions stand: what is published before, the broker keeps for nobody.
    async fn listens(&mut self) -> Result<()> {
        let status = self.data().join("status.json");
        until("the gateway has subscribed", Duration::from_secs(20), || {
            let alive = self.daemon.check();
            let text = std::fs::read_to_string(&status);
            async move {
                alive?;
                let status = text.ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
                let subscribed = status.and_then(|s| s.pointer("/counts/sources/mqtt/subscribed")?.as_bool());
                Ok((subscribed == Some(true)).then_some(()))
            }
        })
        .await
    }

    /// The lab's report of confirmed readings.
    pub fn report(&self) -> PathBuf {
        self.alliance.path("confirmations.jsonl")
    }

    /// Its folder of data.
    pub fn data(&self) -> PathBuf {
        self.alliance.path("gateway1-data")
    }
}

fn write_secret(path: &std::path::Path, secret: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(secret.as_bytes())?)
}
