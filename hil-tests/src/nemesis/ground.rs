//! What lies around the nodes of a campaign: the network between them, their disks, their clocks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::clock::Clock;
use super::disk::SmallDisk;
use super::fault::Sort;
use super::net::{End, Net, Way};
use super::power;
use super::preload::Preload;
use crate::lab::site::Site;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Laying {
    /// Nodes.
    pub nodes: usize,
    /// Of these, the last ones that wait to be added.
    pub wait: usize,
    /// A relay, though there may be namespaces.
    pub relay: bool,
}

/// A node's.
#[derive(Debug)]
struct Plot {
    clock: Clock,
    data: PathBuf,
    undo: PathBuf,
}

/// The ground, until it is dropped.
#[derive(Debug)]
pub struct Ground {
    net: Net,
    plots: Vec<Plot>,
    small: Option<SmallDisk>,
    /// Whose it is: the last node's that has shards from the beginning.
    small_of: usize,
    slow: PathBuf,
    lies: PathBuf,
}

impl Ground {
    /// Lays it, in a folder that stays as long as it does; and the nodes' places in it.
    pub async fn lay(folder: &Path, laying: Laying, say: &impl Fn(String)) -> Result<(Self, Vec<Site>)> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let (net, mut sites) =
            if laying.relay { Net::relayed(laying.nodes).await? } else { Net::lay(laying.nodes, say).await? };
        let preload = [Preload::Disk, Preload::Clock].map(|library| library.compile(&folder));
        let preload = preload.into_iter().collect::<Result<Vec<_>>>()?;
        let preload = preload.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(":");
        let (mut plots, slow, lies) = (Vec::new(), folder.join("disks-are-slow"), folder.join("disks-lie"));
        for (number, site) in (1..).zip(&mut sites) {
            let own = |what: &str| folder.join(format!("node{number}-{what}"));
            let (data, undo) = (own("data"), own("undo"));
            std::fs::create_dir_all(&data)?;
            std::fs::create_dir_all(&undo)?;
            let clock = Clock::new(own("clock"))?;
            let text = |path: &Path| path.to_string_lossy().into_owned();
            site.environment = vec![
                ("LD_PRELOAD".into(), preload.clone()),
                ("EHE_LAB_DISK".into(), text(&data)),
                ("EHE_LAB_UNDO".into(), text(&undo)),
                ("EHE_LAB_DISK_SLOW".into(), text(&slow)),
                ("EHE_LAB_DISK_LIES".into(), text(&lies)),
                ("EHE_LAB_CLOCK".into(), text(clock.file())),
            ];
            site.data = Some(data.clone());
            plots.push(Plot { clock, data, undo });
        }
        let small_of = laying.nodes.saturating_sub(laying.wait);
        sites.iter_mut().skip(small_of).for_each(|site| site.waits = true);
        let at = small_of.saturating_sub(1);
        let (last, site) = plots.get_mut(at).zip(sites.get_mut(at)).context("there are nodes")?;
        let small = SmallDisk::mount(&last.data)?;
        match &small {
            Some(disk) => {
                // Network first: a user namespace may not enter what is not its own.
                site.before.extend(disk.before());
                last.data = disk.outside();
            }
            None => say("this user may mount nothing: no disk is filled".into()),
        }
        Ok((Self { net, plots, small, small_of, slow, lies }, sites))
    }

    /// Whether this machine lets this user do such a thing.
    pub fn can(&self, sort: Sort) -> bool {
        sort != Sort::FullDisk || self.small.is_some()
    }

    /// A node runs as this process now.
    pub fn runs(&self, number: usize, process: Option<u32>) {
        if let Some(process) = process {
            self.net.runs(number, process);
        }
    }

    fn plot(&self, number: usize) -> Result<&Plot> {
        number.checked_sub(1).and_then(|at| self.plots.get(at)).with_context(|| format!("there is no node {number}"))
    }

    /// From now on every disk says that it has synced, and has not: for the checker's own test.
    pub fn disks_lie(&self) -> Result<()> {
        Ok(std::fs::write(&self.lies, [])?)
    }

    /// Syncs take long, or not any more.
    pub(super) fn disks_are_slow(&self, slow: bool) -> Result<()> {
        let done = if slow { std::fs::write(&self.slow, []) } else { std::fs::remove_file(&self.slow) };
        Ok(done?)
    }

    /// The disk of a node that was killed forgets what was not synced: all, or by a seed some of it. How many writes that were, and how
    /// many are lost.
    pub(super) fn forget(&self, number: usize, seed: Option<u64>) -> Result<(usize, usize)> {
        let plot = self.plot(number)?;
        let taken = power::cut(&plot.data, &plot.undo, seed)?;
        Ok((taken.unsynced, taken.lost))
    }

    /// A node's clock is ahead by so much from now on.
    pub(super) fn set_clock(&self, number: usize, ahead_ms: i64) -> Result<()> {
        self.plot(number)?.clock.set(ahead_ms)
    }

    /// Which node has the small disk.
    pub fn small_disk(&self) -> usize {
        self.small_of
    }

    /// The small disk has no room, or has some again.
    pub(super) fn fill(&mut self, full: bool) -> Result<()> {
        match &mut self.small {
            Some(disk) if full => disk.fill(),
            Some(disk) => disk.free(),
            None => bail!("no node has a small disk"),
        }
    }

    /// Exactly these ways are cut from now on.
    pub(super) async fn cut(&mut self, ways: BTreeSet<Way>) -> Result<()> {
        self.net.cut(ways).await
    }

    /// The ways from some nodes to all others, or back.
    pub(super) fn ways(&self, nodes: &[usize], out: bool, back: bool) -> BTreeSet<Way> {
        let others = (1..=self.plots.len()).filter(|number| !nodes.contains(number));
        let pairs = others.flat_map(|other| nodes.iter().map(move |node| (End::Node(*node), End::Node(other))));
        let both = pairs.flat_map(|(node, other)| [(out, (node, other)), (back, (other, node))]);
        both.filter(|(wanted, _)| *wanted).map(|(_, way)| way).collect()
    }
}
