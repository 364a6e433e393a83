//! `node.toml`: every option with its default and its unit. `node.example.toml` says the same for people; a test compares.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use certs::file::toml_fault;
use certs::{FileError, ServerLimits};
use ehe::id::AllianceId;
use serde::Deserialize;

use crate::consensus;

/// Largest configuration file.
const FILE_MAX_BYTES: usize = 1024 * 1024;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the shards, the log and the cosigned checkpoints lie. Made if it is not there.
    pub data_dir: PathBuf,
    /// The node's credentials directory, as `ehe-certs` fills it.
    pub credentials_dir: PathBuf,
    /// Pins the alliance: credentials of another one are refused.
    #[serde(default)]
    pub alliance_id: Option<AllianceId>,
    /// Address and UDP port to listen on.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Bounds of what others may ask.
    #[serde(default)]
    pub limits: Limits,
    /// Files and memory.
    #[serde(default)]
    pub storage: Storage,
    /// Working with other nodes.
    #[serde(default)]
    pub consensus: Consensus,
    /// Looking again at what is stored.
    #[serde(default)]
    pub scrub: Scrub,
    /// Shards that move.
    #[serde(default)]
    pub placement: Placement,
    /// Running.
    #[serde(default)]
    pub running: Running,
}

fn listen() -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 4433))
}

/// Bounds of what others may ask.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at one time.
    pub connections_max: usize,
    /// Connections of one identity at one time.
    pub connections_per_peer_max: usize,
    /// Handshakes at one time; a quarter of it from one address.
    pub handshakes_max: usize,
    /// Exchanges at one time on one connection.
    pub exchanges_per_connection_max: u32,
    /// Bytes in flight on one connection.
    pub receive_window_bytes: u32,
    /// Fetches and subscriptions at one time.
    pub streams_max: usize,
    /// Fetches and subscriptions of one identity at one time.
    pub streams_per_peer_max: usize,
    /// Bytes of one identity's requests that arrive or are worked on at one time; further ones wait.
    pub work_bytes_per_peer_max: usize,
    /// A request has to arrive whole within this time.
    pub request_deadline_ms: u64,
    /// A client has to take each frame of an answer within this time.
    pub send_deadline_ms: u64,
    /// A run or a read request is ordered and proven within this time, or answered "overloaded".
    pub submit_deadline_ms: u64,
    /// Commands of one shard that wait to be ordered.
    pub queue_commands_max: usize,
    /// Their bytes.
    pub queue_bytes_max: usize,
    /// Threads for signatures and looking things up.
    pub blocking_threads_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let channel = ServerLimits::default();
        Self {
            connections_max: channel.connections_max,
            connections_per_peer_max: 16,
            handshakes_max: channel.handshakes_max,
            exchanges_per_connection_max: channel.exchanges_per_connection_max,
            receive_window_bytes: channel.receive_window_bytes,
            streams_max: 1024,
            streams_per_peer_max: 256,
            work_bytes_per_peer_max: 4 * 1024 * 1024,
            request_deadline_ms: 10_000,
            send_deadline_ms: 10_000,
            submit_deadline_ms: 15_000,
            queue_commands_max: 1024,
            queue_bytes_max: 16 * 1024 * 1024,
            blocking_threads_max: 8,
        }
    }
}

impl Limits {
    /// See [`Limits::request_deadline_ms`].
    pub fn request(&self) -> Duration {
        Duration::from_millis(self.request_deadline_ms)
    }

    /// See [`Limits::send_deadline_ms`].
    pub fn send(&self) -> Duration {
        Duration::from_millis(self.send_deadline_ms)
    }

    /// See [`Limits::submit_deadline_ms`].
    pub fn submit(&self) -> Duration {
        Duration::from_millis(self.submit_deadline_ms)
    }

    /// Those of the channel.
    pub fn channel(&self) -> ServerLimits {
        ServerLimits {
            connections_max: self.connections_max,
            handshakes_max: self.handshakes_max,
            exchanges_per_connection_max: self.exchanges_per_connection_max,
            receive_window_bytes: self.receive_window_bytes,
            ..ServerLimits::default()
        }
    }
}

/// Files and memory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Cache of each shard's file.
    pub shard_cache_bytes: usize,
    /// Cache of the log's file.
    pub log_cache_bytes: usize,
    /// A shard's state is made durable at the latest this long after a change; until then the log holds it.
    pub durable_after_ms: u64,
    /// And after this many bytes of commands.
    pub durable_after_bytes: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            shard_cache_bytes: 32 * 1024 * 1024,
            log_cache_bytes: 64 * 1024 * 1024,
            durable_after_ms: 3_000,
            durable_after_bytes: 8 * 1024 * 1024,
        }
    }
}

/// Working with other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consensus {
    /// How often a leader is heard, and how long its silence is borne.
    pub timing: Timing,
    /// The newest part of a shard's log, which every node keeps.
    pub log_keep_bytes: u64,
    /// So much of a shard's log is kept for a node that is away; beyond it that node gets the shard's state when it is back.
    pub log_hold_bytes: u64,
    /// Bytes of shards' states that this node sends to others in a second, together.
    pub snapshot_bytes_per_s: u64,
}

impl Default for Consensus {
    fn default() -> Self {
        Self {
            timing: Timing::default(),
            log_keep_bytes: 32 * 1024 * 1024,
            log_hold_bytes: 1024 * 1024 * 1024,
            snapshot_bytes_per_s: 64 * 1024 * 1024,
        }
    }
}

/// How far the nodes of a group are apart. All of them should be given the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timing {
    /// Hospitals joined over the internet: heard every 500 ms, replaced after 2 to 4 s.
    #[default]
    Wan,
    /// In one building: every 100 ms, after 500 ms to 1 s.
    Lan,
}

impl From<Timing> for consensus::Timing {
    fn from(timing: Timing) -> Self {
        match timing {
            Timing::Wan => Self::wan(),
            Timing::Lan => Self::lan(),
        }
    }
}

/// Looking again at what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scrub {
    /// Events that are looked at in a second, all shards together.
    pub events_per_s: u64,
    /// A shard is looked through again so long after it was looked through.
    pub every_s: u64,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { events_per_s: 2_000, every_s: 86_400 }
    }
}

/// Shards that move.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Placement {
    /// What this node has of a shard that lives elsewhere now is kept for so long, and then until those who have the shard show that they
    /// have all of it.
    pub keep_moved_s: u64,
}

impl Default for Placement {
    fn default() -> Self {
        Self { keep_moved_s: 3_600 }
    }
}

/// Running.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Running {
    /// Counters are logged this often, if they changed.
    pub counters_interval_ms: u64,
    /// What is under way when the node is stopped has this long to end.
    pub stop_grace_ms: u64,
    /// The credentials directory is read again this often: a new revocation list or certificate is in force after that at the
    /// latest.
    pub credentials_reload_s: u64,
}

impl Default for Running {
    fn default() -> Self {
        Self { counters_interval_ms: 60_000, stop_grace_ms: 10_000, credentials_reload_s: 60 }
    }
}

/// Why a configuration is not used. The operator's to mend; the text names the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// Not TOML, an unknown key, a value of another type.
    #[error("{}: {message}; node.example.toml has every key with its type", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        message: String,
    },
    /// A number out of its range.
    #[error("{key} = {found}: it has to be from {least} to {most}")]
    Range {
        /// The key.
        key: &'static str,
        /// The value.
        found: u64,
        /// Least allowed.
        least: u64,
        /// Most allowed.
        most: u64,
    },
}

impl Config {
    /// Reads and checks a file. Relative paths in it are taken from its directory.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = certs::file::read_text(path, FILE_MAX_BYTES, "give the configuration file with --config")?;
        let mut config = Self::parse(&text, path)?;
        let base = path.parent().unwrap_or(Path::new("."));
        for dir in [&mut config.data_dir, &mut config.credentials_dir] {
            *dir = base.join(&dir);
        }
        Ok(config)
    }

    /// Reads and checks a text; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |error| ConfigError::Syntax { path: path.into(), message: toml_fault(text, &error) };
        let config: Self = toml::from_str(text).map_err(syntax)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        const MIB: u64 = 1024 * 1024;
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let (l, s, c, r) = (&self.limits, &self.storage, &self.consensus, &self.running);
        let ranges = [
            ("limits.connections_max", wide(l.connections_max), 1, 65_536),
            ("limits.connections_per_peer_max", wide(l.connections_per_peer_max), 1, 65_536),
            ("limits.handshakes_max", wide(l.handshakes_max), 1, 65_536),
            ("limits.exchanges_per_connection_max", l.exchanges_per_connection_max.into(), 1, 65_536),
            ("limits.receive_window_bytes", l.receive_window_bytes.into(), 64 * 1024, 256 * MIB),
            ("limits.streams_max", wide(l.streams_max), 1, 1_000_000),
            ("limits.streams_per_peer_max", wide(l.streams_per_peer_max), 1, 1_000_000),
            // Less would never take a request of full size.
            ("limits.work_bytes_per_peer_max", wide(l.work_bytes_per_peer_max), MIB, 4096 * MIB - 1),
            ("limits.request_deadline_ms", l.request_deadline_ms, 100, 600_000),
            ("limits.send_deadline_ms", l.send_deadline_ms, 100, 600_000),
            ("limits.submit_deadline_ms", l.submit_deadline_ms, 100, 600_000),
            ("limits.queue_commands_max", wide(l.queue_commands_max), 1, 1_000_000),
            // Less would never take a run of full size.
            ("limits.queue_bytes_max", wide(l.queue_bytes_max), 2 * MIB, 4096 * MIB - 1),
            ("limits.blocking_threads_max", wide(l.blocking_threads_max), 1, 512),
            ("storage.shard_cache_bytes", wide(s.shard_cache_bytes), MIB, 1024 * 1024 * MIB),
            ("storage.log_cache_bytes", wide(s.log_cache_bytes), MIB, 1024 * 1024 * MIB),
            ("storage.durable_after_ms", s.durable_after_ms, 10, 600_000),
            ("storage.durable_after_bytes", s.durable_after_bytes, MIB, 1024 * MIB),
            ("consensus.log_keep_bytes", c.log_keep_bytes, 0, 1024 * 1024 * MIB),
            ("consensus.log_hold_bytes", c.log_hold_bytes, MIB, 1024 * 1024 * MIB),
            // Less, and a receiver would take the sender for gone.
            ("consensus.snapshot_bytes_per_s", c.snapshot_bytes_per_s, MIB / 4, 1024 * 1024 * MIB),
            ("scrub.events_per_s", self.scrub.events_per_s, 1, 10_000_000),
            ("scrub.every_s", self.scrub.every_s, 1, 31_536_000),
            ("placement.keep_moved_s", self.placement.keep_moved_s, 0, 31_536_000),
            ("running.counters_interval_ms", r.counters_interval_ms, 100, 86_400_000),
            ("running.stop_grace_ms", r.stop_grace_ms, 0, 600_000),
            ("running.credentials_reload_s", r.credentials_reload_s, 1, 86_400),
        ];
        for (key, found, least, most) in ranges {
            if !(least..=most).contains(&found) {
                return Err(ConfigError::Range { key, found, least, most });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("node.toml"))
    }

    #[test]
    fn the_example_names_every_option_and_each_with_its_default() {
        let example = include_str!("../node.example.toml");
        let minimal = parse("data_dir = '/var/lib/ehe-node'\ncredentials_dir = '/etc/ehe/node'").unwrap();
        assert_eq!(parse(example).unwrap(), minimal);
        // Written out, the options that are commented away parse too, and no option is missing.
        let spelled: String =
            example.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line).to_owned() + "\n").collect();
        let table: toml::Table = toml::from_str(&spelled).unwrap();
        assert_eq!(parse(&spelled).unwrap(), Config { alliance_id: parse(&spelled).unwrap().alliance_id, ..minimal });
        let keys = |name: &str| table[name].as_table().unwrap().len();
        assert_eq!((keys("limits"), keys("storage"), keys("consensus"), keys("running")), (14, 4, 4, 3));
        assert_eq!(keys("scrub"), 2);
    }

    #[test]
    fn unknown_keys_and_numbers_out_of_range_are_named() {
        let base = "data_dir = 'd'\ncredentials_dir = 'c'\n";
        let error = parse(&format!("{base}[limits]\nconections_max = 3")).unwrap_err().to_string();
        assert!(error.contains("conections_max") && error.contains("node.example.toml"), "{error}");
        let error = parse(&format!("{base}[limits]\nstreams_max = 0")).unwrap_err().to_string();
        assert_eq!(error, "limits.streams_max = 0: it has to be from 1 to 1000000");
        let error = parse(&format!("{base}[consensus]\ntiming = 'moon'")).unwrap_err().to_string();
        assert!(error.contains("moon") && error.contains("wan"), "{error}");
        assert_eq!(parse(&format!("{base}[consensus]\ntiming = 'lan'")).unwrap().consensus.timing, Timing::Lan);
        assert!(parse("data_dir = 'd'").unwrap_err().to_string().contains("credentials_dir"));
    }
}
