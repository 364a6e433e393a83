//! From files to groups at work. The order matters: everything is read and checked before anything is written, but for what the log
//! lacks of its journal: that is the log's own repair.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, RwLock, atomic::AtomicBool},
};

use futures::{
    FutureExt,
    future::{abortable, join_all, join3, try_join_all},
};
use openraft::{
    SnapshotPolicy,
    async_runtime::WatchReceiver,
    errors::{InitializeError, RaftError},
    storage::RaftLogStorage,
    type_config::TypeConfigExt,
};
use redb::{Database, StorageBackend, backends::FileBackend};
use tokio::sync::{Semaphore, mpsc::unbounded_channel};

use super::{
    codec::{self, Applied, NodeRecord},
    compact::{CatchingUp, Hold, compact},
    config::{Config, MAX_GROUPS},
    error::{ConfigError, Fault, OpenError},
    fence::Fence,
    group::{Group, Running},
    handle::{Consensus, Inner, fault_of},
    hold::heed,
    ids::{GroupId, NodeId, NodeUid},
    log::{
        file::{self, LoadError, LogFile, Stored},
        group::{Durable, GroupLog},
        journal::{self, Journal},
        store::LogStore,
        writer,
    },
    machine::Machine,
    meet::meet,
    network::{self, Accept, Link, Peers, Router},
    restart, runtime,
    state::{self, MachineAdapter, Policy, Setup},
    types::{Raft, Types},
};

/// Name of the log's file in the data directory.
pub const LOG_FILE: &str = "raft.redb";
/// The log's file while it is made. What has this name was never used.
const NEW_LOG_FILE: &str = "raft.redb.new";
const JOURNAL_FILE: &str = "raft.journal";

/// The log's file in `dir` and its journal. Made if they are not there, the journal as an empty file: what an empty one means, the log's
/// file says.
///
/// redb writes its magic number last, so a crash while it makes a file leaves one that it does not open. To take that
/// for an empty log would take a damaged one for empty as well; so the file gets its name when it is whole.
pub(super) async fn file_backends(dir: PathBuf) -> Result<(FileBackend, FileBackend), OpenError> {
    blocking(move || {
        let path = dir.join(LOG_FILE);
        let io = |source| OpenError::Io { doing: "opening the log file raft.redb", source };
        if !certs::file::is_made(&path).map_err(io)? {
            let new = dir.join(NEW_LOG_FILE);
            let made = File::options().read(true).write(true).create(true).truncate(true).open(&new).map_err(io)?;
            let backend = FileBackend::new(made).map_err(|error| OpenError::Log(error.into()))?;
            drop(file::open(backend, 1 << 20).map_err(|error| OpenError::Log(error.into()))?);
            make_known(&dir, &new, &path).map_err(io)?;
        }
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        let file = FileBackend::new(file).map_err(|error| OpenError::Log(error.into()))?;
        Ok((file, journal_backend(&dir)?))
    })
    .await
}

/// See [`file_backends`]. Nothing is done to it before the log's file is locked for this process.
pub(super) fn journal_backend(dir: &Path) -> Result<FileBackend, OpenError> {
    let path = dir.join(JOURNAL_FILE);
    let io = |source| OpenError::Io { doing: "opening the log's journal raft.journal", source };
    let empty = match std::fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        // Perhaps of a crash before anything was written to it, or before its name was on disk.
        Ok(found) if found.is_file() && found.len() == 0 => true,
        _ => !certs::file::is_made(&path).map_err(io)?,
    };
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(io)?;
    if empty {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
    }
    FileBackend::new(file).map_err(|error| OpenError::Log(error.into()))
}

/// A file's name must survive a crash as well as what is in it: a log that vanishes is a vote forgotten.
fn make_known(dir: &Path, new: &Path, path: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    std::fs::rename(new, path)?;
    File::open(dir)?.sync_all()
}

/// What was found on disk of one group.
struct Found<M> {
    id: GroupId,
    machine: M,
    stored: Stored,
    applied: Option<Applied>,
}

/// See [`Consensus::open`].
pub(super) async fn open<M: Machine>(
    config: Config,
    (backend, journal): (impl StorageBackend, impl StorageBackend),
    machines: Vec<(GroupId, M)>,
    link: Arc<dyn Link>,
) -> Result<Consensus, OpenError> {
    config.check()?;
    let raft_config = raft_config(&config)?;
    check_groups(&machines)?;
    let (cache, node_id, journal_bytes) = (config.log_cache_bytes, config.node_id, config.journal_bytes);
    let opened = blocking(move || {
        let db = file::open(backend, cache).map_err(|error| OpenError::Log(error.into()))?;
        let find_all = |known: Option<&NodeRecord>| {
            machines.into_iter().map(|(id, machine)| find(&db, known, id, machine)).collect::<Result<Vec<_>, _>>()
        };
        let (node, journal, found) = match file::read_node(&db)? {
            Some(known) => {
                file::check_node(&known, node_id)?;
                let journal = journal::recover(&db, journal, journal_bytes)?;
                (known, journal, find_all(Some(&known))?)
            }
            None => {
                let found = find_all(None)?;
                let node = NodeRecord { uid: new_uid()?, node: node_id };
                file::write_node(&db, &node).map_err(OpenError::Log)?;
                (node, journal::recover(&db, journal, journal_bytes)?, found)
            }
        };
        let peers = file::read_peers(&db).map_err(OpenError::Log)?;
        Ok(Opened { db, journal, node, peers, found })
    })
    .await?;
    let consensus = start(config, raft_config, opened, link).await?;
    match lead(&consensus).await {
        Ok(()) => Ok(consensus),
        Err(error) => {
            drop(consensus.shutdown().await);
            Err(error)
        }
    }
}

fn check_groups<M>(machines: &[(GroupId, M)]) -> Result<(), ConfigError> {
    if machines.is_empty() || machines.len() > MAX_GROUPS {
        return Err(ConfigError::OutOfRange { what: "the number of groups", low: 1, high: MAX_GROUPS });
    }
    let mut seen = BTreeSet::new();
    machines.iter().try_for_each(|(id, _)| if seen.insert(*id) { Ok(()) } else { Err(ConfigError::GroupTwice(*id)) })
}

pub(super) fn raft_config(config: &Config) -> Result<Arc<openraft::Config>, ConfigError> {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4);
    let raft = openraft::Config {
        cluster_name: "ehe".into(),
        heartbeat_interval: millis(config.timing.heartbeat).max(1),
        // openraft waits for a lease as long as its greatest timeout, and then for the timeout that it drew.
        election_timeout_min: millis(config.timing.election_min / 2),
        election_timeout_max: millis(config.timing.election_max / 2),
        // Invariant 5: we say when.
        snapshot_policy: SnapshotPolicy::Never,
        // And how far ([`super::compact`]).
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        // A log that went back is a disk that lied.
        allow_log_reversion: Some(false),
        // openraft warns that a restored leader can serve a state older than one that was seen, where commits are
        // not synced; an election costs two syncs.
        enable_leader_restore: Some(false),
        // Switched on for groups with other voters.
        enable_tick: false,
        ..openraft::Config::default()
    };
    raft.validate().map(Arc::new).map_err(|error| ConfigError::Timing(error.to_string()))
}

fn find<M: Machine>(
    db: &Database,
    node: Option<&NodeRecord>,
    id: GroupId,
    mut machine: M,
) -> Result<Found<M>, OpenError> {
    let fault = |fault| OpenError::Fault { group: id, fault: Arc::new(fault) };
    let load = |error| match error {
        LoadError::Log(error) => OpenError::Log(error),
        LoadError::Corrupt(corrupt) => fault(corrupt),
    };
    let stored = node.map(|_| file::load(db, id)).transpose().map_err(load)?.unwrap_or_default();
    let failed = |doing| move |source| fault(Fault::Machine { group: id, doing, source });
    #[cfg(ehe_sim)]
    {
        let term = stored.vote.map_or(0, |vote| vote.leader_id.term);
        let to = stored.vote.filter(|vote| !vote.committed).map(|vote| NodeId(vote.leader_id.voted_for));
        runtime::tell(id, runtime::Word::Remembers { term, to });
    }
    let mut meta = machine.applied().map_err(failed("opening"))?;
    if meta.is_some() && stored.is_given_up() {
        // It was given up, and the node stopped before the state was removed.
        machine.forget().map_err(failed("giving up the state"))?;
        meta = None;
    }
    let applied = meta.map(|meta| codec::decode_applied(&meta.0)).transpose().map_err(|error| {
        fault(Fault::Corrupt { group: id, what: format!("what the state says of the log ({error})") })
    })?;
    let entry = match (node, &applied) {
        (Some(_), Some(applied)) => file::entry_id(db, id, applied.last.index()).map_err(load)?,
        _ => None,
    };
    restart::check(id, node, &stored, applied.as_ref(), entry)?;
    Ok(Found { id, machine, stored, applied })
}

fn new_uid() -> Result<NodeUid, OpenError> {
    let mut uid = [0; 16];
    runtime::random(&mut uid).map_err(|source| OpenError::Io { doing: "making the node's uid", source })?;
    Ok(NodeUid(uid))
}

/// What was found on disk.
struct Opened<M> {
    db: Database,
    journal: Journal,
    node: NodeRecord,
    peers: BTreeMap<NodeId, NodeUid>,
    found: Vec<Found<M>>,
}

/// Starts the threads and openraft for every group.
async fn start<M: Machine>(
    config: Config,
    raft_config: Arc<openraft::Config>,
    opened: Opened<M>,
    link: Arc<dyn Link>,
) -> Result<Consensus, OpenError> {
    let Opened { db, journal, node, peers, found } = opened;
    let thread = |source| OpenError::Io { doing: "starting a thread", source };
    let file = Arc::new(LogFile::new(db));
    let mut parts = Vec::with_capacity(found.len());
    for Found { id, machine, stored, applied } in found {
        let durable = Arc::new(Durable::default());
        if let Some(applied) = &applied {
            // What the machine found on disk is durable, whatever it did before.
            durable.advance(applied.last.index());
        }
        let log = Arc::new(GroupLog::new(Arc::new(Fence::new(id)), durable, config.log_tail_bytes, stored));
        log.hold.set(config.held.get(&id).map(String::as_str));
        log.hold.outdate(machine.outdated().as_deref());
        parts.push((log, machine, applied));
    }
    let logs: Vec<_> = parts.iter().map(|(log, ..)| log.clone()).collect();
    let by_group = logs.iter().map(|log| (log.fence.group(), log.clone())).collect();
    let (queue, writer) = writer::spawn(file.clone(), journal, logs).map_err(thread)?;
    let peers = Arc::new(Peers::new(config.node_id, node.uid, peers, queue.clone()));
    let catching_up = Arc::new(CatchingUp::default());
    let router: Router = network::router(link, peers.clone(), &config, by_group, catching_up.clone());
    let snapshots = Arc::new(network::Snapshots::default());
    let (compact_offers, offered) = unbounded_channel();
    let policy = Policy::from(&config);
    let mut starting = Vec::with_capacity(parts.len());
    for (log, machine, applied) in parts {
        let adapter_applied = applied.clone();
        let setup = Setup {
            uid: node.uid,
            log: log.clone(),
            queue: queue.clone(),
            policy,
            applied,
            compact: compact_offers.clone(),
        };
        let vetting = machine.vetting();
        let (worker, stages, worker_thread) = state::spawn(machine, setup).map_err(thread)?;
        let adapter = MachineAdapter::new(worker.clone(), adapter_applied.as_ref());
        let mut store = LogStore::new(file.clone(), log.clone(), queue.clone());
        let slots = Arc::new(Semaphore::new(config.max_in_flight));
        let bytes = Arc::new(Semaphore::new(config.max_in_flight_bytes));
        let (id, raft_config, node_id) = (log.fence.group(), raft_config.clone(), config.node_id.0);
        let (network, accept) = (router.network(id), Accept::new(snapshots.clone()));
        let founders = config.bootstrap.voters(id).cloned();
        starting.push(async move {
            let reader = store.get_log_reader().await;
            match Raft::new(node_id, raft_config, network, store, adapter).await {
                Ok(raft) => {
                    let thread = Mutex::new(Some(worker_thread));
                    let group = Group {
                        id,
                        me: NodeId(node_id),
                        running: RwLock::new(Running { raft, worker }),
                        log,
                        reader,
                        stages,
                        vetting,
                        judge: OnceLock::new(),
                        accept,
                        founders,
                        circle: RwLock::default(),
                        thread,
                        leaving: tokio::sync::Mutex::default(),
                        slots,
                        bytes,
                    };
                    Ok((id, Arc::new(group)))
                }
                Err(fatal) => {
                    let fault =
                        log.fence.fault().unwrap_or_else(|| log.fence.corrupt(format!("log or state ({fatal})")));
                    Err(OpenError::Fault { group: id, fault })
                }
            }
        });
    }
    let mut groups = BTreeMap::new();
    let mut failed = None;
    // All of them, also behind a failure, so that those that run can be stopped in order.
    for result in join_all(starting).await {
        match result {
            Ok((id, group)) => drop(groups.insert(id, group)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let compacting = compact(groups.clone(), offered, Hold::of(&config), catching_up);
    let meeting = meet(config.clone(), groups.clone(), router.clone(), peers.clone());
    let (beside, helpers) = abortable(join3(compacting, heed(groups.clone()), meeting));
    drop(Types::spawn(beside.map(drop)));
    let consensus = Consensus {
        inner: Arc::new(Inner {
            config,
            uid: node.uid,
            groups,
            file,
            peers,
            router,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            helpers,
            closing: AtomicBool::new(false),
        }),
    };
    match failed {
        None => Ok(consensus),
        Some(error) => {
            drop(consensus.shutdown().await);
            Err(error)
        }
    }
}

/// Makes new groups what the configuration says, and leads those in which nobody else votes.
async fn lead(consensus: &Consensus) -> Result<(), OpenError> {
    try_join_all(consensus.inner.groups.values().map(|group| async {
        let waits = consensus.inner.config.waiting.contains(&group.id);
        // The rest is begun when all have met.
        let begin = !waits && group.strangers(&consensus.inner.peers).is_empty();
        lead_group(&consensus.inner.config, group, begin)
            .await
            .map_err(|()| OpenError::Fault { group: group.id, fault: fault_of(group) })
    }))
    .await
    .map(drop)
}

/// Makes a group that is nothing yet what the configuration says, if it is to `begin`. `Err`: it has stopped, and its fence says why.
pub(super) async fn lead_group(config: &Config, group: &Group, begin: bool) -> Result<(), ()> {
    let raft = &group.raft();
    let me = config.node_id.0;
    // What was given up is not begun again: others have it.
    if group.log.left().is_none()
        && let Some(voters) = config.bootstrap.voters(group.id).filter(|_| begin)
        && !raft.is_initialized().await.map_err(drop)?
    {
        let voters: BTreeSet<u64> = voters.iter().map(|voter| voter.0).collect();
        match raft.initialize(voters).await {
            // It began in this moment.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(_) => return Err(()),
        }
    }
    let members = raft.with_raft_state(|state| {
        let membership = state.membership_state.effective().membership().clone();
        (membership.voter_ids().collect::<Vec<_>>(), membership.nodes().count())
    });
    let (voters, members) = members.await.map_err(drop)?;
    if group.log.is_short() {
        // It may say that nobody else has a vote.
        raft.runtime_config().elect(false);
        return Ok(());
    }
    if group.log.hold.why().is_some() {
        raft.runtime_config().elect(false);
        raft.runtime_config().heartbeat(false);
        raft.runtime_config().tick(voters != [me] || members != 1);
        return Ok(());
    }
    if voters != [me] || members != 1 {
        raft.runtime_config().tick(true);
    }
    if voters != [me] {
        return Ok(());
    }
    raft.trigger().elect(false).await.map_err(drop)?;
    let mut metrics = raft.metrics();
    loop {
        let running = metrics.borrow_watched().running_state.is_ok();
        if group.status().ready() {
            return Ok(());
        }
        if !running || metrics.changed().await.is_err() {
            return Err(());
        }
    }
}

async fn blocking<T: Send + 'static>(
    body: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    runtime::blocking(body)
        .await
        .unwrap_or_else(|error| Err(OpenError::Io { doing: "opening", source: io::Error::other(error) }))
}
