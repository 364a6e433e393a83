//! A storage node.

use std::time::Duration;

use anyhow::{Context, Result};

use super::alliance::Alliance;
use super::process::{Running, until};

/// The alliance's node, running or not.
#[derive(Debug)]
pub struct Node {
    alliance: Alliance,
    running: Option<Running>,
}

impl Node {
    /// Starts it.
    pub async fn start(alliance: &Alliance) -> Result<Self> {
        let config = format!(
            "data_dir = {:?}\ncredentials_dir = {:?}\nlisten = {:?}\n",
            alliance.path("node1-data"),
            alliance.path("node1"),
            alliance.node_address()
        );
        std::fs::write(alliance.path("node1.toml"), config)?;
        let mut node = Self { alliance: alliance.clone(), running: None };
        node.restart().await?;
        Ok(node)
    }

    /// Starts it again after [`Node::kill`] or [`Node::stop`].
    pub async fn restart(&mut self) -> Result<()> {
        let mut command = self.alliance.programs().command("ehe-node");
        command.arg("run").arg("--config").arg(self.alliance.path("node1.toml"));
        self.running = Some(Running::start("ehe-node", command, &self.alliance.path("node1.log"))?);
        Ok(())
    }

    /// Waits until it answers.
    pub async fn answers(&mut self, who: &str) -> Result<()> {
        let (running, alliance) = (self.running.as_mut().context("the node is not running")?, &self.alliance);
        until("the node answers", Duration::from_secs(20), || {
            let alive = running.check();
            async move {
                alive?;
                Ok((alliance.ehe(who, &["--timeout", "2", "status"]).await?.code == Some(0)).then_some(()))
            }
        })
        .await
    }

    /// Fails if it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.running.as_mut().map_or(Ok(()), Running::check)
    }

    /// Ends it without warning.
    pub async fn kill(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.kill().await,
            None => Ok(()),
        }
    }

    /// Asks it to end.
    pub async fn stop(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.stop(Duration::from_secs(15)).await,
            None => Ok(()),
        }
    }
}
