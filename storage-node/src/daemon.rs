//! The node as a whole: what is started, in which order, and how it stops.

mod error;
mod founding;
mod place;
mod rebuild;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::{CloseCode, Credentials, NodeDialer, NodeLimits, Server, ServerLimits};
use ehe::charter::RULES_KNOWN;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::StartError;
pub use place::{Placed, placed};

use rebuild::{Files, Rebuild};

use crate::admission::Admission;
use crate::backup::{Backups, restore};
use crate::blocking::Blocking;
use crate::checkpoint::{Board, Checkpointed, Checkpointer, Line, MayOrder, Outbound, Who};
use crate::clock::Clock;
use crate::config::Config;
use crate::confirmation::Confirmation;
use crate::consensus::{self, Consensus, GroupId, Link, ShutdownError};
use crate::cosign::CosignFile;
use crate::estranged;
use crate::evidence::shelf::Shelf;
use crate::evidence::{self, Found, Keeper};
use crate::leadership;
use crate::node::{Node, node_id, raft_id};
use crate::one_each::OneEach;
use crate::peers::{self, Accepting, Alliance, Rarely, Reach, ReadDoor, Repairs};
use crate::placement::{self, Leaver, Moved, Mover, Parting, Progress, needed_since, under_what_was_left};
use crate::scrub::{self, Memory, Pace, Patrol};
use crate::server::{Between, serve};
use crate::shard::{Decisions, Notary, Place, Readers, Sequencer, Shard, ShardMachine, Store, StoreError, order};
use crate::stats::{Reporter, Stats};

/// Other nodes take over what this one leads within this time, when it stops in order.
const HAND_OVER: Duration = Duration::from_secs(1);

/// Name of the file of cosigned checkpoints in the data directory.
pub(crate) const COSIGN_FILE: &str = "cosigned";

/// A running node.
pub struct Daemon {
    server: Arc<Server>,
    consensus: Consensus,
    stop: CancellationToken,
    kill: CancellationToken,
    connections: TaskTracker,
    tasks: TaskTracker,
    others: Others,
    scrub: Task,
    board: Arc<Board>,
    checkpointer: std::thread::JoinHandle<()>,
    grace: Duration,
    stats: Arc<Stats>,
}

/// One task, and how it is stopped.
struct Task {
    running: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

/// What runs between this node and others. It goes on until nothing is replicated any more.
struct Others {
    reach: Reach,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Daemon {
    /// Starts a node: files, then consensus (which replays), then checkpoints, then other nodes and clients.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::start_telling(config, clock, &|| {}).await
    }

    /// The same; `goes_on` is called every few seconds while a state comes from another node before anything is served, which takes as long
    /// as that state is large.
    pub async fn start_telling(
        config: Config,
        clock: Clock,
        goes_on: &(dyn Fn() + Send + Sync),
    ) -> Result<Self, StartError> {
        Self::start_knowing(config, clock, goes_on, RULES_KNOWN).await
    }

    /// The same, as a program that knows the rules up to a version only: for tests of a rolling upgrade.
    pub async fn start_knowing(
        config: Config,
        clock: Clock,
        goes_on: &(dyn Fn() + Send + Sync),
        rules: u16,
    ) -> Result<Self, StartError> {
        // 1. Who are we, and what is ours to hold? Then the files, all checked before anything is written.
        let opening = config.clone();
        let Opened { placed, mut files, cosigned, shelf } =
            tokio::task::spawn_blocking(move || open(&opening)).await.map_err(|_| StartError::Interrupted)??;
        let Placed { credentials, charters, id, name, bootstrap, .. } = placed;
        let identity = Arc::new(credentials.identity().clone());
        let stats = Arc::new(Stats::default());

        // 2. What of it is damaged is had again first, from other nodes. Also where nobody else is: an alliance of one node may grow.
        let reach = Reach::new(NodeDialer::new(&credentials)?, charters.clone());
        let open_again = {
            let (dir, alliance) = (&config.data_dir, charters.first().alliance_id());
            move |shard| Store::open(dir, alliance, shard, config.storage.shard_cache_bytes)
        };
        let (dir, charters_known, signed) = (&config.data_dir, &charters, &cosigned);
        let rebuild =
            Rebuild { dir, me: id, charters: charters_known, reach: &reach, cosigned: signed, clock: &clock, goes_on };
        rebuild.all(&mut files, open_again).await?;
        let Files { stores, memory, .. } = files;

        // 3. The shards: their machines run under consensus, which replays its log before it opens.
        let board = Arc::new(Board::default());
        let evidence = Keeper::new(charters.clone(), shelf, Arc::clone(&board), Arc::clone(&stats));
        let (mut machines, mut lines, mut halves) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut notaries = BTreeMap::new();
        for (place, store) in stores {
            let machine = ShardMachine::new(place, store.clone(), Arc::clone(&board));
            let machine = machine.map_err(|source| StartError::Store { shard: place.shard, source })?;
            let (shown, checkpoints) = watch::channel(Checkpointed::None);
            let known = charters.clone();
            let notary = Notary::new(move |version| known.of(version), checkpoints.clone());
            notaries.insert(place.shard, notary.clone());
            let machine = machine.attested_by(notary).knowing(rules);
            let readers = Readers { decisions: Decisions::new(id), ..Readers::default() };
            let machine = machine.attended(readers.clone(), clock.clone());
            let (rooms, recent, in_force) = (machine.rooms(), machine.recent(), machine.rules());
            machines.push((GroupId(place.shard), machine));
            lines.insert(place.shard, Line { store: store.clone(), recent: recent.clone(), shown });
            let (sequencer, queue) = Sequencer::new(config.limits.queue_commands_max, config.limits.queue_bytes_max);
            let board = Arc::clone(&board);
            halves.push((
                Shard { place, store, rooms, recent, readers, sequencer, checkpoints, board },
                queue,
                in_force,
            ));
        }
        let link: Arc<dyn Link> = Arc::new(reach.clone());
        // What was found damaged before the restart is held from the start.
        let fenced = memory.fenced();
        fenced.keys().for_each(|shard| board.hold(*shard, true));
        let held = fenced.into_iter().map(|(shard, why)| (GroupId(shard), why)).collect();
        let founding = founding::waiting(&charters, id, &bootstrap);
        let waiting = founding.iter().copied().map(GroupId).collect();
        let raft_config = consensus::Config { bootstrap, waiting, held, ..raft_config(&config, raft_id(id)) };
        let consensus = Consensus::open_with_link(raft_config, &config.data_dir, machines, link).await?;

        under_what_was_left(&consensus, &board, &charters);
        charters.needed_since(needed_since(&charters, &consensus, &board));

        // 4. Checkpoints: one thread, because it syncs.
        let (leaders, outbound, may_order) = (consensus.clone(), Outbound::default(), MayOrder::default());
        let checkpointer = Checkpointer {
            who: Who { id, name, identity: Arc::clone(&identity), charter: charters.first() },
            file: cosigned,
            lines,
            leader: Box::new(move |shard| {
                leaders.standing(GroupId(shard)).and_then(|standing| standing.leader).map(node_id)
            }),
            outbound: outbound.clone(),
            evidence: Box::new(Found { keeper: evidence.clone() }),
            may_order: may_order.clone(),
            clock: clock.clone(),
            stats: Arc::clone(&stats),
        };
        let shown = Arc::clone(&board);
        let thread = std::thread::Builder::new().name("checkpoints".into());
        let checkpointer = thread.spawn(move || checkpointer.run(&shown)).map_err(StartError::Thread)?;

        // 5. One task for each shard that orders what is handed in.
        let tasks = TaskTracker::new();
        let (mut shards, mut movers, progress) = (BTreeMap::new(), Vec::new(), Progress::default());
        let (known, of_groups, shown) = (charters.clone(), consensus.clone(), Arc::clone(&board));
        let alliance = Arc::new(Alliance::new(known, of_groups, shown, progress.clone(), rules));
        let mut orderers = BTreeMap::new();
        for (shard, queue, in_force) in halves {
            let group = GroupId(shard.place.shard);
            movers.push(Mover {
                shard: shard.place.shard,
                consensus: consensus.clone(),
                board: Arc::clone(&board),
                charters: charters.clone(),
                sequencer: shard.sequencer.clone(),
                checkpoints: shard.checkpoints.clone(),
                progress: progress.clone(),
                alliance: Arc::clone(&alliance),
            });
            let sequencer = shard.sequencer.weak();
            orderers.insert(shard.place.shard, scrub::Orderer { sequencer, rules: in_force.clone() });
            tasks.spawn(order(
                queue,
                consensus.clone(),
                group,
                may_order.clone(),
                (clock.clone(), in_force),
                Arc::clone(&stats),
            ));
            shards.insert(shard.place.shard, shard);
        }

        for group in consensus.groups() {
            consensus.judge_members(group, placement::judge(group.0, charters.clone(), Arc::clone(&board)));
        }
        futures::future::join_all(movers.iter().map(Mover::at_start)).await;

        // 6. Other nodes, who are let in by the same door as clients.
        let others = Others { reach, tasks: TaskTracker::new(), stop: CancellationToken::new() };
        let limits = ServerLimits { nodes: Some(NodeLimits::default()), ..config.limits.channel() };
        let server = Arc::new(Server::bind(config.listen, &credentials, limits)?);
        let attending = peers::attend(
            Arc::clone(&alliance),
            others.reach.clone(),
            id,
            (outbound, evidence.clone()),
            others.stop.clone(),
        );
        others.tasks.spawn(attending);
        let told = (charters.clone(), Arc::clone(&alliance));
        let beginning = founding::begin(founding, told, (consensus.clone(), id), others.stop.clone());
        others.tasks.spawn(beginning);
        for group in consensus.groups() {
            let stop = others.stop.clone();
            others.tasks.spawn(leadership::watch(consensus.clone(), group, Arc::clone(&board), stop.clone()));
            others.tasks.spawn(leadership::step_back(consensus.clone(), group, stop.clone()));
            let Some(orderer) = orderers.get(&group.0) else { continue };
            let (known, in_force) = (Arc::clone(&alliance), orderer.rules.clone());
            let knows = move |node| known.knows_now(in_force.in_force(), node_id(node));
            others.tasks.spawn(leadership::pass_on(consensus.clone(), group, knows, stop));
        }
        others.tasks.spawn(peers::expect(Arc::clone(&server), charters.clone(), id, others.stop.clone()));
        let at_the_door = (clock.clone(), Arc::clone(&stats));
        let reads = ReadDoor::new(charters.clone(), shards.values(), consensus.clone(), at_the_door);
        let between = Between {
            accepting: Arc::new(Accepting {
                charters: charters.clone(),
                alliance: Arc::clone(&alliance),
                consensus: consensus.clone(),
                board: Arc::clone(&board),
                evidence: evidence.clone(),
                reads,
                repairs: Repairs::new(lines_of(&shards), consensus.clone(), charters.clone(), Arc::clone(&board)),
                stats: Arc::clone(&stats),
                faults: Rarely::default(),
                strangers: Rarely::default(),
                unnamed: Rarely::default(),
                stop: others.stop.clone(),
            }),
            tasks: others.tasks.clone(),
        };

        // 7. Looking again at what was stored long ago.
        let shown = scrub::Shown::default();
        let patrol = Patrol {
            shards: lines_of(&shards),
            memory,
            pace: Pace { events_per_s: config.scrub.events_per_s, every: Duration::from_secs(config.scrub.every_s) },
            elsewhere: Arc::new(peers::Others::new(others.reach.clone(), charters.clone(), id)),
            orderers,
            consensus: consensus.clone(),
            board: Arc::clone(&board),
            shown: shown.clone(),
            clock: clock.clone(),
            stats: Arc::clone(&stats),
            stop: others.stop.child_token(),
        };
        let stop = patrol.stop.clone();
        let scrub = Task { running: tokio::spawn(patrol.run()), stop };

        // And giving up what lives elsewhere now.
        let moved = Moved::default();
        for (number, notary) in notaries {
            let Some(shard) = shards.get(&number) else { continue };
            let leaver = Leaver {
                shard: number,
                consensus: consensus.clone(),
                board: Arc::clone(&board),
                charters: charters.clone(),
                alliance: Arc::clone(&alliance),
                others: Arc::new(peers::Others::new(others.reach.clone(), charters.clone(), id)),
                store: shard.store.clone(),
                notary,
                keep: Duration::from_secs(config.placement.keep_moved_s),
                shown: moved.clone(),
            };
            others.tasks.spawn(leaver.run(others.stop.clone()));
        }

        let parting = Parting {
            charters: charters.clone(),
            consensus: consensus.clone(),
            board: Arc::clone(&board),
            alliance: Arc::clone(&alliance),
            reach: others.reach.clone(),
        };
        others.tasks.spawn(parting.run(others.stop.clone()));
        others.tasks.spawn(estranged::keep(consensus.clone(), config.data_dir.clone(), others.stop.clone()));

        // 8. Clients.
        let (stop, kill, connections) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let (admission, standing) = Admission::new(Arc::clone(&server), credentials.clone(), clock.now());
        let admission = admission.with_dialer(Some(others.reach.dialer().clone()));
        let backups = Arc::new(Backups {
            alliance: credentials.alliance_id(),
            id,
            identity: Arc::clone(&identity),
            charters: charters.clone(),
            shards: shards.clone(),
            consensus: consensus.clone(),
            clock: clock.clone(),
        });
        let node = Arc::new(Node {
            id,
            identity,
            charter: charters.clone(),
            alliance,
            board: Arc::clone(&board),
            confirmations: shards.keys().map(|shard| (*shard, Confirmation::default())).collect(),
            shards,
            consensus: consensus.clone(),
            evidence,
            reach: others.reach.clone(),
            blocking: Blocking::new(config.limits.blocking_threads_max),
            clock: clock.clone(),
            scrub: shown,
            moved,
            stats: Arc::clone(&stats),
            streams: Arc::new(Semaphore::new(config.limits.streams_max)),
            listing: OneEach::default(),
            limits: config.limits,
            stop: stop.clone(),
        });
        tasks.spawn(serve(Arc::clone(&server), node, standing, Some(between), connections.clone(), kill.clone()));

        // 9. What looks after it. A backup that is being taken breaks off when the node stops.
        movers.into_iter().for_each(|mover| drop(tasks.spawn(mover.run(stop.clone()))));
        let charter_file = config.credentials_dir.join(certs::store::names::CHARTER);
        tasks.spawn(charters.follow(charter_file, stop.clone()));
        let (data_dir, stopping) = (config.data_dir.clone(), stop.clone());
        tasks.spawn(async move { backups.serve(&data_dir, stopping).await });
        let every = Duration::from_secs(config.running.credentials_reload_s);
        tasks.spawn(admission.run(every, clock, Arc::clone(&stats), stop.clone()));
        let every = Duration::from_millis(config.running.counters_interval_ms);
        tasks.spawn(report(Arc::clone(&stats), Arc::clone(&server), every, stop.clone()));
        let grace = Duration::from_millis(config.running.stop_grace_ms);
        Ok(Self { server, consensus, stop, kill, connections, tasks, others, scrub, board, checkpointer, grace, stats })
    }

    /// Consensus, past everything that an honest ordering party checks: for tests in which one lies.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// The address that clients reach.
    pub fn local_addr(&self) -> Result<SocketAddr, certs::ChannelError> {
        self.server.local_addr()
    }

    /// What it counted since the start.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.stats.snapshot()
    }

    /// Stops in the opposite order: clients, ordering, what it leads (which others take over), the scrub (which writes to shards),
    /// consensus (which makes every shard durable), other nodes, checkpoints.
    pub async fn stop(self) -> Result<(), ShutdownError> {
        self.stop.cancel();
        self.connections.close();
        if tokio::time::timeout(self.grace, self.connections.wait()).await.is_err() {
            self.kill.cancel();
            self.connections.wait().await;
        }
        // The last handler is gone, and with it the last end of the queues: the ordering tasks end, unless one waits for nodes that
        // do not answer. That one ends with consensus.
        self.tasks.close();
        let _ = tokio::time::timeout(HAND_OVER, self.tasks.wait()).await;
        leadership::hand_over_all(&self.consensus, HAND_OVER).await;
        self.scrub.stop.cancel();
        // The only error is that it panicked.
        let _ = self.scrub.running.await;
        let done = self.consensus.shutdown().await;
        self.tasks.wait().await;
        let Others { reach, tasks, stop } = self.others;
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        self.server.close(CloseCode::GoingAway);
        reach.dialer().close(CloseCode::GoingAway);
        reach.dialer().wait_idle(Duration::from_secs(1)).await;
        self.server.wait_idle(Duration::from_secs(1)).await;
        self.board.stop();
        // It only ever waits for the board.
        let _ = tokio::task::spawn_blocking(move || self.checkpointer.join()).await;
        done
    }
}

/// What the start reads from disk.
struct Opened {
    placed: Placed,
    files: Files,
    cosigned: CosignFile,
    shelf: Shelf,
}

fn open(config: &Config) -> Result<Opened, StartError> {
    let credentials = Credentials::load(&config.credentials_dir)?;
    let placed = placed(config, credentials)?;
    if restore::is_unfinished(&config.data_dir) {
        return Err(StartError::Restoring(config.data_dir.clone()));
    }
    place::make_data_dir(&config.data_dir)?;
    let (alliance, shard_count) = (placed.credentials.alliance_id(), placed.charters.shard_count());
    let (mut stores, mut broken) = (Vec::new(), Vec::new());
    // The file of cosigned checkpoints is older than the log, whose shards may all have been given up.
    let log = config.data_dir.join(consensus::LOG_FILE);
    let mut empty = !log.try_exists().map_err(|source| StartError::DataDir { path: log, source })?;
    for shard in placed.shards.iter().copied() {
        let opened = Store::open(&config.data_dir, alliance, shard, config.storage.shard_cache_bytes);
        let place = Place { alliance, shard_count, shard };
        let looked = opened.and_then(|store| {
            // Whether it can be gone on with, too.
            ShardMachine::new(place, store.clone(), Arc::new(Board::default()))?;
            Ok((store.view()?.shard().leaves, store))
        });
        match looked {
            Ok((leaves, store)) => {
                empty &= leaves == 0;
                stores.push((place, store));
            }
            // The file is damaged; another node may have what was in it.
            Err(source @ (StoreError::Db(_) | StoreError::Corrupt(_))) => {
                empty = false;
                broken.push((place, source));
            }
            Err(source) => return Err(StartError::Store { shard, source }),
        }
    }
    let path = config.data_dir.join(COSIGN_FILE);
    let cosigned = CosignFile::open(&path, alliance, placed.id, shard_count.get(), empty)?;
    let dir = config.data_dir.join(evidence::DIRECTORY);
    let shelf = Shelf::open(dir.clone(), &placed.charters.each())
        .map_err(|source| StartError::DataDir { path: dir, source })?;
    let memory = Memory::load(&config.data_dir, placed.shards.iter().copied());
    Ok(Opened { placed, files: Files { stores, broken, memory }, cosigned, shelf })
}

fn lines_of(shards: &BTreeMap<u16, Shard>) -> BTreeMap<u16, scrub::Line> {
    let line = |shard: &Shard| scrub::Line { store: shard.store.clone(), checkpoints: shard.checkpoints.clone() };
    shards.iter().map(|(number, shard)| (*number, line(shard))).collect()
}

fn raft_config(config: &Config, id: consensus::NodeId) -> consensus::Config {
    consensus::Config {
        timing: config.consensus.timing.into(),
        log_keep_bytes: config.consensus.log_keep_bytes,
        log_hold_bytes: config.consensus.log_hold_bytes,
        snapshot_bytes_per_s: config.consensus.snapshot_bytes_per_s,
        log_cache_bytes: config.storage.log_cache_bytes,
        durable_after: Duration::from_millis(config.storage.durable_after_ms),
        durable_after_bytes: config.storage.durable_after_bytes,
        ..consensus::Config::new(id)
    }
}

/// Logs counters.
async fn report(stats: Arc<Stats>, server: Arc<Server>, every: Duration, stop: CancellationToken) {
    let mut reporter = Reporter::default();
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(every) => false,
        };
        // The channel counts these itself.
        Stats::set(&stats.handshakes_refused, server.refused_busy());
        Stats::set(&stats.handshakes_refused_source, server.refused_sources());
        reporter.report(&stats);
        if stopped {
            return;
        }
    }
}
