//! Where a node stands: its address, and what is around the program. On plain loopback nothing is; a fault needs something between.

use std::path::PathBuf;

use anyhow::Result;

use super::process::free_udp_ports;

/// The place of one node.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Where others reach it: stands in the charter.
    pub address: String,
    /// Where it listens. Another address if something lies between.
    pub listen: String,
    /// Its IP address, for its certificate.
    pub ip: String,
    /// The node's program, if it is not the one that was built with this one.
    pub program: Option<PathBuf>,
    /// A program that starts the node's: `nsenter …`. The process stays the same one.
    pub before: Vec<String>,
    /// Environment of the node alone.
    pub environment: Vec<(String, String)>,
    /// Its data directory, if it is not beside its configuration.
    pub data: Option<PathBuf>,
    /// Charter 1 names the node and gives it no shard, and it does not run: it joins later.
    pub waits: bool,
}

impl Site {
    /// So many places on loopback with nothing around them.
    pub fn on_loopback(count: usize) -> Result<Vec<Self>> {
        let site = |port| {
            let address = format!("127.0.0.1:{port}");
            Self { listen: address.clone(), address, ip: "127.0.0.1".into(), ..Self::default() }
        };
        Ok(free_udp_ports(count)?.into_iter().map(site).collect())
    }
}
