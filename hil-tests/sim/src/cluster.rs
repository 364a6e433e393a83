//! The nodes, from power on to power off, life after life.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ehe_node::{
    checkpoint::Checkpointed,
    consensus::{
        Consensus, GroupId, NodeId, Role, Status,
        sim::{self, Chance, Process, Word},
    },
};

use crate::{
    disk::{Disk, Platter, Power},
    journal::Journal,
    ledger::{Ledger, State},
    machine::Watched,
    net::Net,
    plan::Plan,
    sealed::{self, Alliance, Receipts, Shard},
    trace::Trace,
};

/// The longest that a node takes to come back.
const AWAY: Duration = Duration::from_secs(4);

/// All nodes. Clones are the same ones.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    plan: Plan,
    trace: Trace,
    ledger: Ledger,
    net: Net,
    alliance: Option<Arc<Alliance>>,
    receipts: Receipts,
    state: Mutex<Sites>,
}

struct Sites {
    chance: Chance,
    sites: BTreeMap<u64, Site>,
    /// Nodes that were given empty disks.
    wiped: Vec<u64>,
    /// Faults are over: who is down comes back at once.
    calm: bool,
}

/// Where a node is.
struct Site {
    /// The log's, and one for each group.
    disks: Disks,
    life: Option<Life>,
    lives: u64,
}

enum Disks {
    Off(Vec<Platter>),
    On(Vec<Disk>),
}

struct Life {
    process: Process,
    power: Power,
    consensus: Option<Consensus>,
    shard: Option<Shard>,
    /// Only the process was killed.
    killed: bool,
}

impl Cluster {
    pub fn new(plan: Plan, trace: Trace, ledger: Ledger, mut chance: Chance) -> Self {
        let net = Net::new(chance.split(), plan.weather, trace.clone(), ledger.clone());
        let alliance = plan.sealed.then(|| Arc::new(Alliance::new(plan.voters.iter().copied())));
        let site = |id| Site { disks: Disks::Off(empty(&plan, alliance.as_deref(), id)), life: None, lives: 0 };
        let sites = plan.nodes().into_iter().map(|id| (id, site(id))).collect();
        let state = Mutex::new(Sites { chance, sites, wiped: Vec::new(), calm: false });
        Self(Arc::new(Inner { plan, trace, ledger, net, alliance, receipts: Receipts::default(), state }))
    }

    fn state(&self) -> MutexGuard<'_, Sites> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn plan(&self) -> &Plan {
        &self.0.plan
    }

    pub fn net(&self) -> &Net {
        &self.0.net
    }

    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    pub fn say(&self, what: impl std::fmt::Display) {
        self.0.trace.say(what);
    }

    pub fn alliance(&self) -> Option<&Arc<Alliance>> {
        self.0.alliance.as_ref()
    }

    pub fn receipts(&self) -> &Receipts {
        &self.0.receipts
    }

    /// The shard of a node that has opened.
    pub fn shard(&self, id: u64) -> Option<Shard> {
        self.state().sites.get(&id)?.life.as_ref()?.shard.clone()
    }

    pub fn wiped(&self) -> Vec<u64> {
        self.state().wiped.clone()
    }

    /// A node that has opened.
    pub fn node(&self, id: u64) -> Option<(Process, Consensus)> {
        let state = self.state();
        let life = state.sites.get(&id)?.life.as_ref()?;
        Some((life.process.clone(), life.consensus.clone()?))
    }

    /// Those that have opened.
    pub fn up(&self) -> Vec<u64> {
        self.plan().nodes().into_iter().filter(|id| self.node(*id).is_some()).collect()
    }

    /// Runs `work` on a node. `None`: it has died, or not answered in time.
    pub async fn on<T, W>(&self, id: u64, limit: Duration, work: impl FnOnce(Consensus) -> W) -> Option<T>
    where
        T: Send + 'static,
        W: Future<Output = T> + Send + 'static,
    {
        let (process, consensus) = self.node(id)?;
        let joined = process.spawn(work(consensus));
        sim::within(limit, joined).await.and_then(Result::ok)
    }

    pub fn status(&self, id: u64, group: GroupId) -> Option<Status> {
        self.node(id).and_then(|(_, consensus)| consensus.status(group))
    }

    /// Who leads a group, by the greatest term.
    pub fn leader(&self, group: GroupId) -> Option<u64> {
        let leads = |id: &u64| self.status(*id, group).filter(|status| status.role == Role::Leader);
        self.up().into_iter().filter_map(|id| leads(&id).map(|status| (status.term, id))).max().map(|(_, id)| id)
    }

    /// Begins a life.
    pub fn start(&self, id: u64) {
        let (process, power, disks, life, opens) = {
            let mut state = self.state();
            let (chance, opens) = (state.chance.split(), state.chance.split());
            let Some(site) = state.sites.get_mut(&id).filter(|site| site.life.is_none()) else { return };
            let process = Process::new(id, self.plan().pace, chance);
            let power = Power::new(process.clone(), self.plan().lies);
            let disks: Vec<Disk> = match &site.disks {
                Disks::Off(platters) => platters.iter().map(|platter| platter.clone().spin(&power)).collect(),
                Disks::On(disks) => disks.iter().map(|disk| disk.after_kill(&power)).collect(),
            };
            site.disks = Disks::On(disks.clone());
            site.lives += 1;
            site.life = Some(Life {
                process: process.clone(),
                power: power.clone(),
                consensus: None,
                shard: None,
                killed: false,
            });
            (process, power, disks, site.lives, opens)
        };
        self.say(format_args!("node {id} starts, life {life}"));
        let sentinel = process.spawn(std::future::pending::<()>());
        let cluster = self.clone();
        sim::spawn(async move {
            drop(sentinel.await);
            cluster.died(id).await;
        });
        let opening = process.spawn(open(self.clone(), process.clone(), disks, opens));
        let cluster = self.clone();
        sim::spawn(async move {
            match opening.await {
                Ok(Ok((consensus, shard))) => cluster.opened(id, &process, &consensus, shard),
                // Its end is told by the sentinel.
                _ if process.is_dead() => {}
                _ if power.has_failed() => power.off(),
                Ok(Err(error)) => cluster.ledger().violated(format!("node {id} does not open: {error}")),
                Err(panic) => cluster.ledger().violated(format!("node {id} does not open: {panic}")),
            }
        });
    }

    fn opened(&self, id: u64, process: &Process, consensus: &Consensus, shard: Option<Shard>) {
        if process.is_dead() {
            return;
        }
        self.say(format_args!("node {id} is open, uid {}", consensus.node_uid()));
        if let Some(life) = self.state().sites.get_mut(&id).and_then(|site| site.life.as_mut()) {
            life.consensus = Some(consensus.clone());
            life.shard = shard.clone();
        }
        self.net().attach(process, consensus, shard.map(|shard| shard.board));
        for group in self.plan().groups() {
            // As the charter says in a node: whoever was away while members changed listens to a leader that it does not know yet.
            consensus.listen_to(group, self.plan().nodes().into_iter().map(NodeId).collect());
            let (consensus, ledger, trace) = (consensus.clone(), self.ledger().clone(), self.0.trace.clone());
            drop(process.spawn(async move {
                let mut known = None;
                let ever = Duration::from_secs(1 << 20);
                let leads = |status: &Status, known| status.role == Role::Leader && Some(status.term) != known;
                while let Ok(status) = consensus.wait(group, ever, |status| leads(status, known)).await {
                    known = Some(status.term);
                    trace.say(format_args!("node {id} leads group {group} in term {}", status.term));
                    ledger.led(NodeId(id), group, status.term);
                }
            }));
        }
    }

    /// A node said a word of its votes.
    pub fn voted(&self, id: u64, group: GroupId, word: Word, chance: &mut Chance) {
        self.ledger().voted(id, group, word);
        let often = self.plan().cuts_voters;
        if matches!(word, Word::Promised { .. }) && often > 0 && chance.once_in(often) && !self.state().calm {
            self.say(format_args!("the power of node {id}, which gave its vote, goes at its next sync"));
            self.cut_power(id, Some(0));
        }
    }

    /// The power goes, now or during the `n`th sync from now.
    pub fn cut_power(&self, id: u64, n: Option<u64>) {
        let Some(power) = self.power(id) else { return };
        match n {
            Some(n) => power.cut_in(n),
            None => power.off(),
        }
    }

    /// The process is killed.
    pub fn kill(&self, id: u64) {
        let power = {
            let mut state = self.state();
            let Some(life) = state.sites.get_mut(&id).and_then(|site| site.life.as_mut()) else { return };
            life.killed = true;
            life.power.clone()
        };
        power.off();
    }

    /// The disks of a machine fail, after so many steps. The process is started again later, with good ones.
    pub fn fail_disks(&self, id: u64, steps: u64) {
        if let Some(power) = self.power(id) {
            power.fail_in(steps);
        }
    }

    pub fn power(&self, id: u64) -> Option<Power> {
        self.state().sites.get(&id).and_then(|site| site.life.as_ref()).map(|life| life.power.clone())
    }

    pub fn process(&self, id: u64) -> Option<Process> {
        self.state().sites.get(&id).and_then(|site| site.life.as_ref()).map(|life| life.process.clone())
    }

    /// A life has ended: what is left of it is on the disks.
    async fn died(&self, id: u64) {
        let (life, silent, away) = {
            let mut state = self.state();
            let Sites { chance, sites, wiped, calm } = &mut *state;
            let Some(site) = sites.get_mut(&id) else { return };
            let Some(life) = site.life.take() else { return };
            let mut chance_of_disks = chance.split();
            // One moment for all of them.
            let platters = match (&site.disks, life.killed) {
                (Disks::On(disks), false) => {
                    Some(disks.iter().map(|disk| disk.after_power_cut(&mut chance_of_disks)).collect())
                }
                _ => None,
            };
            if let Some(platters) = platters {
                site.disks = Disks::Off(platters);
            }
            // Less than half of the voters: where a majority forgot, what it acknowledged is nowhere. Restoring is for that, not the log.
            let more = wiped.len() < (self.plan().voters.len() - 1) / 2 && !wiped.contains(&id);
            // Before a log has begun its nodes have nothing to lose, and one that was met, or that has all there is, and comes back as another
            // keeps it from beginning.
            let begun = self.plan().groups().all(|group| self.ledger().has_begun(group));
            if self.plan().wipes && !life.killed && more && !*calm && chance.once_in(3) && begun {
                site.disks = Disks::Off(empty(self.plan(), self.alliance().map(|it| &**it), id));
                wiped.push(id);
                self.ledger().wiped(id);
                self.say(format_args!("node {id} gets empty disks"));
            }
            let away = chance.time(AWAY);
            // Of a killed process the system tells the peers; of a machine without power nobody does.
            let silent = !life.killed && !chance.once_in(4);
            (life, silent, if *calm { Duration::ZERO } else { away })
        };
        self.say(format_args!("node {id} is down{}", if silent { ", silently" } else { "" }));
        let failed = life.power.has_failed();
        if let Some(panic) = life.process.panics().into_iter().next().filter(|_| !failed) {
            self.ledger().violated(format!("node {id} panicked: {panic}"));
        }
        self.net().detach(id, silent);
        drop(life);
        sim::sleep(away).await;
        self.start(id);
    }

    /// No more faults of machines: everybody comes back, and stays.
    pub fn calm(&self) {
        self.state().calm = true;
        for id in self.plan().nodes() {
            let Some((process, power)) = self.process(id).zip(self.power(id)) else { continue };
            power.steady();
            process.go_on();
            if power.has_failed() {
                power.off();
            }
        }
    }

    /// Says what each node thinks.
    pub fn describe(&self) {
        for id in self.plan().nodes() {
            for group in self.plan().groups() {
                match self.status(id, group) {
                    None => self.say(format_args!("node {id} is not open")),
                    Some(it) => self.say(format_args!(
                        "node {id}, group {group}: {:?}, leader {:?}, term {}, last {:?}, applied {:?}, durable {:?}, purged {:?}, \
                         voters {:?}, learners {:?}, changing {}, matched {:?}",
                        it.role,
                        it.leader,
                        it.term,
                        it.last_index,
                        it.applied,
                        it.durable,
                        it.purged,
                        it.voters,
                        it.learners,
                        it.changing,
                        it.matched
                    )),
                }
            }
        }
    }

    /// What stopped a group, where nothing was done to its disks.
    pub fn fences(&self) {
        for id in self.up() {
            let failed = self.power(id).is_some_and(|power| power.has_failed());
            for group in self.plan().groups() {
                let fault = self.status(id, group).and_then(|status| status.fault);
                if let Some(fault) = fault.filter(|_| !failed) {
                    self.ledger().violated(format!("group {group} of node {id} is fenced: {fault}"));
                }
            }
            let fenced = self.shard(id).is_some_and(|shard| matches!(*shard.shown.borrow(), Checkpointed::Fenced));
            if fenced && !failed {
                self.ledger().violated(format!("node {id} cosigns no more"));
            }
            let panics = self.process(id).map(|process| process.panics()).unwrap_or_default();
            if let Some(panic) = panics.first().filter(|_| !failed) {
                self.ledger().violated(format!("node {id} panicked: {panic}"));
            }
        }
    }

    /// Closes a node in order, and reads what it has.
    pub async fn close(&self, id: u64) -> Option<Closed> {
        let disks = match &self.state().sites.get(&id)?.disks {
            Disks::On(disks) => disks.clone(),
            Disks::Off(_) => return None,
        };
        let groups: Vec<GroupId> = self.plan().groups().collect();
        let alliance = self.alliance().cloned();
        if let Some(life) = self.state().sites.get_mut(&id).and_then(|site| site.life.as_mut()) {
            life.shard = None;
        }
        self.on(id, Duration::from_secs(60), move |consensus| async move {
            consensus.shutdown().await.map_err(|error| error.to_string())?;
            if let (Some(alliance), Some(disk)) = (alliance, disks.get(2)) {
                return sealed::read(&alliance, disk.clone()).map(Closed::Sealed);
            }
            let list = |disk: &Disk| Journal::open(disk.clone(), Arc::default()).list();
            Ok::<_, String>(Closed::Lists(groups.into_iter().zip(disks.iter().skip(2).map(list)).collect()))
        })
        .await
        .and_then(|closed| {
            closed.map_err(|error| self.ledger().violated(format!("node {id} does not close: {error}"))).ok()
        })
    }
}

/// What a process does first.
async fn open(
    cluster: Cluster,
    process: Process,
    disks: Vec<Disk>,
    chance: Chance,
) -> Result<(Consensus, Option<Shard>), String> {
    let id = process.number();
    if let Some(alliance) = cluster.alliance().cloned() {
        let (consensus, shard) = sealed::open(cluster, process, disks, alliance, chance).await?;
        return Ok((consensus, Some(shard)));
    }
    let mut disks = disks.into_iter();
    let log = (disks.next().unwrap(), disks.next().unwrap());
    let machines = cluster.plan().groups().zip(disks).map(|(group, disk)| {
        let inner = Journal::open(disk, Arc::default());
        (group, Watched { inner, node: id, group, ledger: cluster.ledger().clone() })
    });
    let machines = machines.collect();
    let link = cluster.net().link(&process);
    let consensus = Consensus::open_with_backends(cluster.plan().config(id), log, machines, link).await;
    Ok((consensus.map_err(|error| error.to_string())?, None))
}

/// What is left of a node that was closed in order.
pub enum Closed {
    /// The commands in each group's state.
    Lists(BTreeMap<GroupId, State>),
    /// The shard.
    Sealed(sealed::Closed),
}

/// A node's disks before it was ever started.
fn empty(plan: &Plan, alliance: Option<&Alliance>, id: u64) -> Vec<Platter> {
    match alliance {
        Some(alliance) => alliance.disks(id),
        None => {
            let states = (0..plan.groups).map(|_| Platter::formatted());
            [Platter::formatted(), Platter::default()].into_iter().chain(states).collect()
        }
    }
}
