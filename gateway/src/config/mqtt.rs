//! A broker.

use std::path::PathBuf;

use firmware_adapters::Format;
use serde::{Deserialize, Serialize};

/// One broker and what to take from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// Names the source in logs and in the spool. Renaming it forgets which messages were seen.
    #[serde(default = "name")]
    pub name: String,
    /// Host name or address.
    #[serde(default = "host")]
    pub host: String,
    /// TCP port: usually 1883, with TLS 8883.
    #[serde(default = "port")]
    pub port: u16,
    /// Names the session that the broker keeps while the gateway is away: no two clients may share it, and it must not change.
    #[serde(default = "client_id")]
    pub client_id: String,
    /// User name, if the broker asks for one.
    #[serde(default)]
    pub username: Option<String>,
    /// File that holds the password and nothing else (a line end is cut off); for its owner only.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Seconds of silence after which either side asks whether the other is still there.
    #[serde(default = "keep_alive_s")]
    pub keep_alive_s: u16,
    /// Messages under way that are not acknowledged yet: as many as one commit can cover.
    #[serde(default = "receive_maximum")]
    pub receive_maximum: u16,
    /// How long the broker keeps the session and what it queued while the gateway is away.
    #[serde(default = "session_expiry_s")]
    pub session_expiry_s: u32,
    /// Larger messages are not taken (the broker drops them).
    #[serde(default = "max_packet_bytes")]
    pub max_packet_bytes: u32,
    /// How long connecting may take.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// First pause after a lost connection.
    #[serde(default = "backoff_min_ms")]
    pub backoff_min_ms: u64,
    /// Longest pause between attempts to connect.
    #[serde(default = "backoff_max_ms")]
    pub backoff_max_ms: u64,
    /// TLS; left out: none.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// What to take.
    #[serde(default)]
    pub subscription: Vec<Subscription>,
}

/// TLS to the broker. Its certificate must be valid for `host`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the authorities that the broker's certificate may come from.
    pub ca_file: PathBuf,
    /// PEM file of the gateway's own certificate, if the broker asks for one.
    #[serde(default)]
    pub client_cert_file: Option<PathBuf>,
    /// PEM file of its key; for its owner only.
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
}

/// One topic filter, and what its messages are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// Topic filter (MQTT 5.0 section 4.7). Filters of one broker must not overlap.
    pub topic: String,
    /// The device: `{1}` is what the filter's first wildcard stands for.
    pub device: String,
    /// The device's user slot, where the topic tells it.
    #[serde(default)]
    pub user: Option<String>,
    /// The mapping of its messages; or `format`.
    #[serde(default)]
    pub mapping: Option<String>,
    /// The format of its messages; or `mapping`.
    #[serde(default)]
    pub format: Option<Format>,
    /// The Open mHealth schema of documents without a header (`omh:heart-rate:2.0`).
    #[serde(default)]
    pub schema: Option<String>,
    /// The zone of times that a `format` sends without one. Left out: UTC, and the readings say how uncertain that is.
    #[serde(default)]
    pub zone: Option<String>,
}

fn name() -> String {
    "mqtt".into()
}

fn host() -> String {
    "127.0.0.1".into()
}

fn port() -> u16 {
    1883
}

fn client_id() -> String {
    "gateway".into()
}

fn keep_alive_s() -> u16 {
    30
}

fn receive_maximum() -> u16 {
    100
}

fn session_expiry_s() -> u32 {
    2_592_000
}

fn max_packet_bytes() -> u32 {
    65_536
}

fn connect_timeout_ms() -> u64 {
    5_000
}

fn backoff_min_ms() -> u64 {
    250
}

fn backoff_max_ms() -> u64 {
    15_000
}
