//! Carries a plan out: begins each fault, lets it last, heals it, and waits until the nodes have agreed on leaders again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::fault::{Change, Cut, Fault, Injected, Planned, Whom};
use super::ground::Ground;
use super::members::Members;
use super::net::End;
use crate::lab::home::Gateway;
use crate::lab::leaders::Leaders;
use crate::lab::node::Node;

/// After a fault is healed every shard has a leader within this time, or something did not come back.
const HEALED: Duration = Duration::from_secs(60);
/// Disks are slow for so long before their power is cut: what is written then is not synced.
const SLOW: Duration = Duration::from_millis(300);
/// Half of a flap.
const FLAP: Duration = Duration::from_millis(400);

/// Where faults happen.
#[derive(Debug)]
pub struct Field<'a> {
    /// All nodes, in the order of their numbers.
    pub nodes: Vec<&'a mut Node>,
    /// The home's gateway.
    pub gateway: Option<&'a mut Gateway>,
    /// What lies around the nodes.
    pub ground: &'a mut Ground,
    /// Which nodes have the shards.
    pub members: &'a mut Members,
    /// Who leads.
    pub leaders: &'a Leaders,
    /// Since when.
    pub begun: Instant,
    /// What happened.
    pub injected: Vec<Injected>,
    /// What did not come back.
    pub unhealed: Vec<String>,
}

impl Field<'_> {
    fn ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Those that have the shards.
    fn all(&self) -> Vec<usize> {
        self.members.holders()
    }

    fn node(&mut self, number: usize) -> Result<&mut Node> {
        let node = number.checked_sub(1).and_then(|at| self.nodes.get_mut(at));
        Ok(&mut **node.with_context(|| format!("there is no node {number}"))?)
    }

    /// Starts a node that does not run.
    pub fn start(&mut self, number: usize) -> Result<()> {
        let daemon = &mut self.node(number)?.daemon;
        daemon.start()?;
        let process = daemon.id();
        self.ground.runs(number, process);
        Ok(())
    }

    async fn whom(&self, whom: Whom) -> Result<Vec<usize>> {
        if whom == Whom::Everybody {
            return Ok(self.all());
        }
        let all = self.all();
        let leader = self.leaders.first(&all, HEALED).await?;
        let followers: Vec<usize> =
            all.iter().filter(|it| **it > leader).chain(all.iter().filter(|it| **it < leader)).copied().collect();
        Ok(match whom {
            Whom::Follower(n) => vec![*followers.get(n % followers.len().max(1)).unwrap_or(&leader)],
            Whom::Leader | Whom::Everybody => vec![leader],
        })
    }

    /// One fault from begin to end. False: something did not come back, and there is no use in going on.
    pub async fn strike(&mut self, planned: &Planned, say: &impl Fn(String)) -> Result<bool> {
        tokio::time::sleep(planned.after).await;
        let fault = planned.fault;
        let nodes = match fault {
            Fault::Kill(whom)
            | Fault::PowerCut(whom, _)
            | Fault::Pause(whom)
            | Fault::Cut(whom, _)
            | Fault::Skew(whom, _) => self.whom(whom).await?,
            Fault::Members(whom, _) | Fault::MembersAndKill(whom, _) => {
                let wanted = self.whom(whom).await?.first().copied().context("somebody is to go")?;
                let (goes, comes) = self.members.turn(wanted)?;
                vec![goes, comes]
            }
            Fault::MoveLeader => self.whom(Whom::Leader).await?,
            Fault::FullDisk => vec![self.ground.small_disk()],
            Fault::KillGateway => vec![],
        };
        let begun_ms = self.ms();
        self.begin(fault, &nodes).await?;
        match fault {
            Fault::Cut(_, Cut::Flapping) => self.flap(&nodes, planned.lasts).await?,
            Fault::Members(_, change) => self.change(change, &nodes, None).await,
            Fault::MembersAndKill(_, change) => self.change(change, &nodes, Some(planned.lasts)).await,
            _ => tokio::time::sleep(planned.lasts).await,
        }
        let told = self.heal(fault, &nodes).await?;
        let (healed_ms, since) = (self.ms(), Instant::now());
        let agreed = self.leaders.agreed(&self.all(), HEALED).await;
        let agreed_ms = agreed.is_ok().then(|| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
        say(format!(
            "{fault:?} of {nodes:?} for {} ms{told}; then agreed after {agreed_ms:?} ms",
            healed_ms - begun_ms
        ));
        self.injected.push(Injected { fault, nodes, begun_ms, healed_ms, agreed_ms });
        for node in &mut self.nodes {
            let number = node.number;
            if let Err(why) = node.daemon.check() {
                self.unhealed.push(format!("node {number}: {why:#}"));
            }
        }
        if let Err(why) = agreed {
            self.unhealed.push(format!("after {fault:?}: {why:#}"));
        }
        Ok(self.unhealed.is_empty())
    }

    async fn kill(&mut self, nodes: &[usize]) -> Result<()> {
        for number in nodes {
            self.node(*number)?.daemon.kill().await?;
        }
        Ok(())
    }

    async fn begin(&mut self, fault: Fault, nodes: &[usize]) -> Result<()> {
        match fault {
            Fault::Kill(_) => self.kill(nodes).await?,
            Fault::PowerCut(..) => {
                self.ground.disks_are_slow(true)?;
                tokio::time::sleep(SLOW).await;
                self.kill(nodes).await?;
                self.ground.disks_are_slow(false)?;
            }
            Fault::Pause(_) => {
                for number in nodes {
                    self.node(*number)?.daemon.pause().await?;
                }
            }
            Fault::Cut(_, Cut::Apart | Cut::Flapping) => self.ground.cut(self.ground.ways(nodes, true, true)).await?,
            Fault::Cut(_, Cut::Mute) => self.ground.cut(self.ground.ways(nodes, true, false)).await?,
            Fault::Cut(_, Cut::Deaf) => self.ground.cut(self.ground.ways(nodes, false, true)).await?,
            Fault::Cut(_, Cut::Unreached) => {
                let ends = nodes.iter().map(|number| End::Node(*number));
                let ways = ends.flat_map(|node| [(End::Client, node), (node, End::Client)]).collect();
                self.ground.cut(ways).await?;
            }
            Fault::FullDisk => self.ground.fill(true)?,
            Fault::Skew(_, seconds) => nodes.iter().try_for_each(|it| self.ground.set_clock(*it, seconds * 1000))?,
            Fault::MoveLeader => {
                for number in nodes {
                    self.node(*number)?.daemon.stop().await?;
                }
            }
            Fault::Members(..) | Fault::MembersAndKill(..) => {
                for number in nodes {
                    if self.members.is_new(*number) {
                        let daemon = &mut self.node(*number)?.daemon;
                        daemon.start_to("join")?;
                        let process = daemon.id();
                        self.ground.runs(*number, process);
                    }
                }
            }
            Fault::KillGateway => {
                if let Some(gateway) = &mut self.gateway {
                    gateway.daemon.kill().await?;
                }
            }
        }
        Ok(())
    }

    async fn flap(&mut self, nodes: &[usize], lasts: Duration) -> Result<()> {
        let until = Instant::now() + lasts;
        while Instant::now() < until {
            tokio::time::sleep(FLAP).await;
            self.ground.cut(BTreeSet::new()).await?;
            tokio::time::sleep(FLAP).await;
            self.ground.cut(self.ground.ways(nodes, true, true)).await?;
        }
        Ok(())
    }

    /// One node goes and another one comes; `kill`: the leader is killed so long after the charter was given to a node.
    async fn change(&mut self, change: Change, nodes: &[usize], kill: Option<Duration>) {
        if let Err(why) = self.try_change(change, nodes, kill).await {
            self.unhealed.push(format!("{change:?} of {nodes:?}: {why:#}"));
        }
    }

    async fn try_change(&mut self, change: Change, nodes: &[usize], kill: Option<Duration>) -> Result<()> {
        let [goes, comes] = *nodes else { bail!("one goes and one comes") };
        let leader = self.leaders.first(&self.all(), HEALED).await?;
        // Another one than who leads or goes is given it: whoever is killed or removed has nothing more to do with it.
        let given = self.all().into_iter().find(|it| ![leader, goes].contains(it)).unwrap_or(leader);
        let file = self.members.signed(change, (goes, comes), given).await?;
        let Some(after) = kill else { return self.members.install(&file, (goes, comes), given).await };
        let Self { members, nodes, ground, .. } = self;
        let killed = async {
            tokio::time::sleep(after).await;
            let node = nodes.iter_mut().find(|node| node.number == leader).context("who leads is a node")?;
            node.daemon.kill().await?;
            tokio::time::sleep(after).await;
            node.daemon.start()?;
            ground.runs(leader, node.daemon.id());
            anyhow::Ok(())
        };
        let (installed, killed) = tokio::join!(members.install(&file, (goes, comes), given), killed);
        killed?;
        installed
    }

    /// What there is to tell of it.
    async fn heal(&mut self, fault: Fault, nodes: &[usize]) -> Result<String> {
        let mut told = String::new();
        match fault {
            Fault::Kill(_) | Fault::MoveLeader => nodes.iter().try_for_each(|number| self.start(*number))?,
            Fault::PowerCut(_, seed) => {
                for number in nodes {
                    let (unsynced, lost) = self.ground.forget(*number, seed)?;
                    told.push_str(&format!("; node {number} lost {lost} of {unsynced} writes that were not synced"));
                    self.start(*number)?;
                }
            }
            Fault::Pause(_) => {
                for number in nodes {
                    self.node(*number)?.daemon.resume().await?;
                }
            }
            Fault::Cut(..) => self.ground.cut(BTreeSet::new()).await?,
            Fault::FullDisk => {
                let number = self.ground.small_disk();
                let log = std::fs::read_to_string(self.node(number)?.log()).unwrap_or_default();
                told = format!("; it met {} writes without room", log.matches("No space left on device").count());
                self.ground.fill(false)?;
                // What its disk has is not known until it is read again.
                self.node(number)?.daemon.kill().await?;
                self.start(number)?;
            }
            Fault::Skew(..) => nodes.iter().try_for_each(|number| self.ground.set_clock(*number, 0))?,
            Fault::Members(..) | Fault::MembersAndKill(..) => {
                told = format!("; {:?} have the shards now", self.all());
            }
            Fault::KillGateway => {
                if let Some(gateway) = &mut self.gateway {
                    gateway.daemon.start()?;
                }
            }
        }
        Ok(told)
    }
}
