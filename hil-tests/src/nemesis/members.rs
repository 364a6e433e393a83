//! Nodes that are added and removed while everybody works: as a hospital does it, by the programs. A plan (`ehe-node replace`, `drain`), signed
//! by a majority of the members, given to one node; a node that had no part yet comes by `ehe-node join`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use ehe::charter::CharterChain;
use tokio::process::Command;

use super::fault::Change;
use crate::lab::alliance::{self, Alliance};
use crate::lab::charters::Charters;
use crate::lab::process::{Finished, run};

/// A program that only plans or signs is done within this time.
const STEP: Duration = Duration::from_secs(30);
/// The shards live where the charter says within this time.
const MOVED_S: u64 = 90;

/// Who has the shards, and who could.
#[derive(Debug)]
pub struct Members {
    alliance: Alliance,
    charters: Charters,
    holders: BTreeSet<usize>,
    /// Nodes that have run.
    joined: BTreeSet<usize>,
    /// Never goes: a fault needs it in its place.
    stays: usize,
}

impl Members {
    /// Under charter 1. Charters that follow are made known to those who verify by them.
    pub fn new(alliance: &Alliance, charters: &Charters, stays: usize) -> Result<Self> {
        let mut holders = BTreeSet::new();
        for number in alliance.numbers() {
            if !alliance.site(number)?.waits {
                holders.insert(number);
            }
        }
        let joined = holders.clone();
        Ok(Self { alliance: alliance.clone(), charters: charters.clone(), holders, joined, stays })
    }

    /// The nodes that have the shards, by number.
    pub fn holders(&self) -> Vec<usize> {
        self.holders.iter().copied().collect()
    }

    /// Whether this node has no part yet and never ran.
    pub(super) fn is_new(&self, number: usize) -> bool {
        !self.joined.contains(&number)
    }

    /// Who goes, if it should be this one, and who comes.
    pub(super) fn turn(&self, wanted: usize) -> Result<(usize, usize)> {
        let comes = self.alliance.numbers().find(|number| !self.holders.contains(number));
        let goes =
            if wanted == self.stays { self.holders.iter().find(|it| **it != wanted).copied() } else { Some(wanted) };
        goes.zip(comes).context("there is no node that could come")
    }

    /// The signed charter, in a file; not in force yet.
    pub(super) async fn signed(&self, change: Change, (goes, comes): (usize, usize), asked: usize) -> Result<String> {
        let file = self.place(&format!("charter-{}", self.charters.newest()?.version() + 1));
        let (old, new, config) = (alliance::node_name(goes), alliance::node_name(comes), self.config(asked));
        let plan = match change {
            Change::Replace => vec!["replace", &old, &new],
            // Nobody else is left to take its place.
            Change::Drain => vec!["drain", &old],
        };
        let plan = [&plan[..], &["--config", &config, "--out", &file]].concat();
        self.node(asked, &plan, STEP).await?.success("a plan")?;
        for number in 1..=self.alliance.numbers().count() / 2 + 1 {
            let identity = format!("{}/identity.json", alliance::member(number));
            let mut sign = self.alliance.programs().command("ehe-certs");
            sign.args(["charter", "sign", &file, "--with", &identity, "--passphrase-file", "passphrase"]);
            sign.current_dir(self.alliance.path("."));
            run(sign, STEP).await?.success("a member's signature")?;
        }
        Ok(file)
    }

    /// Those who verify know it, then one node is given it. Ends when all shards live where it says, as that node sees it.
    pub(super) async fn install(&mut self, file: &str, (goes, comes): (usize, usize), given: usize) -> Result<()> {
        let bytes = std::fs::read(self.alliance.path(file))?;
        let chain = CharterChain::decode(&bytes)?.verify_each(self.charters.newest()?.alliance_id())?;
        self.charters.learn(chain);
        let (config, limit) = (self.config(given), MOVED_S.to_string());
        let install = ["charter", "install", file, "--config", &config, "--wait", "--timeout", &limit];
        let installed = self.node(given, &install, STEP + Duration::from_secs(MOVED_S)).await;
        // It is in force or will be, however long that takes.
        self.holders.remove(&goes);
        self.holders.insert(comes);
        self.joined.insert(comes);
        installed?.success("a move of the shards").map(drop)
    }

    /// Whole: a program that begins in a node's own mount namespace begins in its root.
    fn place(&self, file: &str) -> String {
        self.alliance.path(file).to_string_lossy().into_owned()
    }

    fn config(&self, number: usize) -> String {
        self.place(&format!("{}.toml", alliance::node(number)))
    }

    /// Its program with other words, where it stands: its disk may be seen from there alone.
    async fn node(&self, number: usize, words: &[&str], within: Duration) -> Result<Finished> {
        let site = self.alliance.site(number)?;
        let program = site.program.clone().unwrap_or_else(|| self.alliance.programs().path("ehe-node"));
        let mut line = site.before.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(line.next().context("a program has a name")?);
        command
            .args(line)
            .args(words)
            .envs(self.alliance.programs().environment())
            .current_dir(self.alliance.path("."));
        run(command, within).await
    }
}
