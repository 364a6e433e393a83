//! A storage node.

use std::time::Duration;

use anyhow::Result;

use super::alliance::Alliance;
use super::daemon::Daemon;
use super::process::until;

/// The alliance's node, running or not.
#[derive(Debug)]
pub struct Node {
    alliance: Alliance,
    /// The program.
    pub daemon: Daemon,
}

impl Node {
    /// Writes its configuration and starts it.
    pub fn start(alliance: &Alliance) -> Result<Self> {
        Self::start_with(alliance, "")
    }

    /// As [`Node::start`], with more in its configuration.
    pub fn start_with(alliance: &Alliance, more: &str) -> Result<Self> {
        let config = format!(
            "data_dir = {:?}\ncredentials_dir = {:?}\nlisten = {:?}\n{more}",
            alliance.path("node1-data"),
            alliance.path("node1"),
            alliance.node_address()
        );
        let file = alliance.path("node1.toml");
        std::fs::write(&file, config)?;
        let mut node = Self { alliance: alliance.clone(), daemon: Daemon::new(alliance.programs(), "ehe-node", file) };
        node.daemon.start()?;
        Ok(node)
    }

    /// Waits until it answers somebody.
    pub async fn answers(&mut self, who: &str) -> Result<()> {
        let (daemon, alliance) = (&mut self.daemon, &self.alliance);
        until("the node answers", Duration::from_secs(20), || {
            let alive = daemon.check();
            async move {
                alive?;
                Ok((alliance.ehe(who, &["--timeout", "2", "status"]).await?.code == Some(0)).then_some(()))
            }
        })
        .await
    }
}
