//! A storage node, one of those of the alliance.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::alliance::{self, Alliance};
use super::daemon::Daemon;
use super::leaders::Leaders;
use super::process::until;

/// A node of the alliance, running or not.
#[derive(Debug)]
pub struct Node {
    alliance: Alliance,
    /// Its number in the alliance, from 1 on.
    pub number: usize,
    /// The program.
    pub daemon: Daemon,
}

impl Node {
    /// Writes the first node's configuration and starts it.
    pub fn start(alliance: &Alliance) -> Result<Self> {
        Self::start_with(alliance, "")
    }

    /// As [`Node::start`], with more in its configuration.
    pub fn start_with(alliance: &Alliance, more: &str) -> Result<Self> {
        let mut node = Self::new(alliance, 1, more)?;
        node.daemon.start()?;
        Ok(node)
    }

    /// Writes the configurations of all nodes, with more in each, and starts those that have shards.
    pub fn start_all(alliance: &Alliance, more: &str) -> Result<Vec<Self>> {
        let mut nodes =
            alliance.numbers().map(|number| Self::new(alliance, number, more)).collect::<Result<Vec<_>>>()?;
        for node in &mut nodes {
            if !alliance.site(node.number)?.waits {
                node.daemon.start()?;
            }
        }
        Ok(nodes)
    }

    /// Writes the configuration of the node of this number. It does not run yet.
    pub fn new(alliance: &Alliance, number: usize, more: &str) -> Result<Self> {
        let (name, site) = (alliance::node(number), alliance.site(number)?);
        let data = site.data.clone().unwrap_or_else(|| alliance.path(&format!("{name}-data")));
        let (credentials, listen) = (alliance.path(&name), &site.listen);
        let config = format!("data_dir = {data:?}\ncredentials_dir = {credentials:?}\nlisten = {listen:?}\n{more}");
        let file = alliance.path(&format!("{name}.toml"));
        std::fs::write(&file, config)?;
        let daemon = Daemon::new(alliance.programs(), "ehe-node", file).at(site);
        Ok(Self { alliance: alliance.clone(), number, daemon })
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.alliance.path(&format!("{}.log", alliance::node(self.number)))
    }

    /// Waits until it answers somebody, and with it every other node that has shards.
    pub async fn answers(&mut self, who: &str) -> Result<()> {
        let (daemon, alliance) = (&mut self.daemon, &self.alliance);
        let mut holders = Vec::new();
        for number in alliance.numbers() {
            if !alliance.site(number)?.waits {
                holders.push(number);
            }
        }
        // To the reader's program a node that waits is one that is silent.
        let asks =
            if holders.len() == alliance.numbers().count() { None } else { Some(Leaders::asked_by(alliance, who)?) };
        let (asks, holders) = (asks.as_ref(), holders.as_slice());
        until("the node answers", Duration::from_secs(20), || {
            let alive = daemon.check();
            async move {
                alive?;
                let answered = match asks {
                    Some(leaders) => leaders.now(holders).await.is_some(),
                    None => alliance.ehe(who, &["--timeout", "2", "status"]).await?.code == Some(0),
                };
                Ok(answered.then_some(()))
            }
        })
        .await
    }
}
