//! `ehe-node verify`: a node's files, looked at while the node is stopped. Nothing is written.
//!
//! Each shard's file is opened over an [`overlay`], every page's checksum is compared, and then the [scrub](crate::scrub) walks it,
//! as many shards at a time as there are cores. The log's file is looked through entry by entry and held against the states; so is what
//! was cosigned.

mod overlay;
mod report;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ehe::id::AllianceId;
use redb::{Builder, StorageBackend};

pub use report::{Looked, Report, Told};

use self::overlay::Overlay;
use crate::consensus::{GroupId, LogFound};
use crate::cosign::{self, CosignFile, Cosigned};
use crate::node::raft_id;
use crate::scrub::{FINDINGS_MAX, Finding, Target, Walk, What, caught};
use crate::shard::{Store, StoreError, View, block_fault, file_name};

/// Name of the log's file.
const LOG_FILE: &str = "raft.redb";
/// Name of its journal's.
const JOURNAL_FILE: &str = "raft.journal";
/// Cache of each file that is looked at: what is read once is not read again.
const CACHE_BYTES: usize = 32 << 20;
/// Events at a step: progress is told that often.
const STEP_EVENTS: u64 = 2_000;

/// Why files are not looked at. What is wrong *in* them is in the [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is nothing, or it cannot be read.
    #[error("{}: {source}; give the node's data directory with --data-dir", .path.display())]
    Dir {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// There are no files of a node.
    #[error("{} holds no files of a node; give the node's data directory with --data-dir", .0.display())]
    Empty(PathBuf),
    /// A process has them open.
    #[error(
        "the node is running: it has {0} open. Stop it first (systemctl stop ehe-node); while it runs, it looks through its \
             files by itself, see its status"
    )]
    Running(String),
    /// What is stored is under later rules than this program knows.
    #[error("shard {shard}: {why}")]
    Outdated {
        /// The shard.
        shard: u16,
        /// What to do.
        why: String,
    },
}

/// What is under way, to be shown. Shared by all that work.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries that there are, as far as is known.
    pub entries: AtomicU64,
    /// Entries that were looked at.
    pub done: AtomicU64,
    /// Events that were looked at.
    pub events: AtomicU64,
    /// Findings so far.
    pub found: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Looks at the files in `dir` with so many threads.
pub fn verify(dir: &Path, threads: usize, progress: &Progress) -> Result<Report, VerifyError> {
    let started = Instant::now();
    let shards = shard_files(dir)?;
    let has = |name: &str| dir.join(name).exists();
    if shards.is_empty() && !has(LOG_FILE) && !has(crate::daemon::COSIGN_FILE) {
        return Err(VerifyError::Empty(dir.into()));
    }
    let (cosigned, mut files) = match cosigned(dir)? {
        Some((looked, cosigned)) => (cosigned, vec![looked]),
        None => (Memory::default(), Vec::new()),
    };
    let queue = Mutex::new(shards.iter().map(|(shard, path)| (*shard, path.clone())).collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, shards.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some((shard, path)) = next else { return };
                    let looked = look_at_shard(shard, &path, &cosigned, progress);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((shard, looked));
                }
            });
        }
    });
    let mut looked = BTreeMap::new();
    for (shard, found) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        looked.insert(shard, found?);
    }
    let applied: BTreeMap<u16, Option<Vec<u8>>> =
        looked.iter().filter_map(|(shard, (_, applied))| Some((*shard, applied.clone()?))).collect();
    files.push(look_at_log(dir, &shards, &applied, &cosigned, progress)?);
    // A shard of which something was signed has a file.
    let gone: Vec<_> = cosigned.newest.keys().filter(|shard| !shards.contains_key(shard)).collect();
    for shard in gone {
        let name = file_name(*shard);
        let what = What::File(format!("{name} is gone, though the node cosigned that shard"));
        files.push(Watching::of(&name).with(Some(*shard), what));
    }
    files.extend(looked.into_values().map(|(file, _)| file));
    Ok(Report::new(files, started.elapsed()))
}

fn shard_files(dir: &Path) -> Result<BTreeMap<u16, PathBuf>, VerifyError> {
    let io = |source| VerifyError::Dir { path: dir.into(), source };
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("shard-")?.strip_suffix(".redb"));
        if let Some(shard) = number.and_then(|number| number.parse::<u16>().ok()) {
            files.insert(shard, entry.path());
        }
    }
    Ok(files)
}

/// A report in the making.
struct Watching(Looked);

impl Watching {
    fn of(file: &str) -> Self {
        let file = file.to_owned();
        Self(Looked { file, entries: 0, events: 0, findings: Vec::new(), found: 0, notes: Vec::new() })
    }

    fn add(&mut self, shard: Option<u16>, what: What) {
        self.0.found = self.0.found.saturating_add(1);
        if self.0.findings.len() < FINDINGS_MAX {
            let told = Told::from(&Finding { shard: shard.unwrap_or_default(), entry: None, what });
            self.0.findings.push(Told { shard, ..told });
        }
    }

    fn with(mut self, shard: Option<u16>, what: What) -> Looked {
        self.add(shard, what);
        self.0
    }
}

/// What the node cosigned, and whose files these are.
#[derive(Debug, Default)]
struct Memory {
    whose: Option<(AllianceId, ehe::id::NodeId)>,
    newest: BTreeMap<u16, Cosigned>,
}

fn cosigned(dir: &Path) -> Result<Option<(Looked, Memory)>, VerifyError> {
    let name = crate::daemon::COSIGN_FILE;
    let path = dir.join(name);
    let io = |source| VerifyError::Dir { path: path.clone(), source };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut watching = Watching::of(name);
    let mut sector = Vec::new();
    (&mut file).take(512).read_to_end(&mut sector).map_err(io)?;
    let opened = cosign::whose(&sector).ok_or_else(|| "it does not begin as such a file does".to_owned()).and_then(
        |(alliance, node, shards)| {
            let overlay = Overlay::open(&path).map_err(|error| error.to_string())?;
            let file = CosignFile::open_with_backend(overlay, alliance, node, shards);
            file.map(|file| (alliance, node, shards, file)).map_err(|error| error.to_string())
        },
    );
    let mut memory = Memory::default();
    match opened {
        Ok((alliance, node, shards, file)) => {
            memory.whose = Some((alliance, node));
            memory.newest = (0..shards).filter_map(|shard| Some((shard, file.newest(shard)?))).collect();
            for shard in file.unreadable() {
                watching.0.notes.push(format!("one of the two records of shard {shard} is torn; the other one counts"));
            }
        }
        Err(why) => watching.add(None, What::File(format!("what this node cosigned cannot be read: {why}"))),
    }
    Ok(Some((watching.0, memory)))
}

/// A shard's file, and what its state says of the log: `None` if that could not be read.
type ShardLooked = (Looked, Option<Option<Vec<u8>>>);

fn look_at_shard(shard: u16, path: &Path, cosigned: &Memory, progress: &Progress) -> Result<ShardLooked, VerifyError> {
    let mut watching = Watching::of(&file_name(shard));
    let tell = |watching: &mut Watching, why: String| {
        add(&progress.found, 1);
        watching.add(Some(shard), What::Unreadable(why));
    };
    let unreadable = |mut watching: Watching, why: String| {
        tell(&mut watching, why);
        Ok((watching.0, None))
    };
    let open = |check| match opened(path, check) {
        Err(Unopened::Running) => Err(VerifyError::Running(file_name(shard))),
        Err(Unopened::Damaged(why)) => Ok(Err(why)),
        Ok(opened) => Ok(Ok(opened)),
    };
    let found = match open(true)? {
        Ok(opened) => opened,
        // Which entries are concerned, is found by looking at what can be read all the same.
        Err(why) => match open(false)? {
            Ok((store, alliance, of, _)) => {
                tell(&mut watching, why);
                (store, alliance, of, true)
            }
            Err(_) => return unreadable(watching, why),
        },
    };
    let (store, alliance, of, pages_sound) = found;
    if of != shard || cosigned.whose.is_some_and(|(whose, _)| whose != alliance) {
        let why = format!("it is the file of shard {of} of alliance {alliance}");
        return unreadable(watching, why);
    }
    if !pages_sound {
        add(&progress.found, 1);
        watching
            .add(Some(shard), What::Unreadable("pages do not have the checksums under which they were written".into()));
    }
    let view = match caught(|| store.view()) {
        Ok(view) => view,
        Err(why) => return unreadable(watching, why),
    };
    if let Ok(Some(why)) = caught(|| view.outdated()) {
        return Err(VerifyError::Outdated { shard, why });
    }
    let leaves = view.shard().leaves;
    add(&progress.entries, leaves);
    let newest = cosigned.newest.get(&shard);
    let target = newest.map(|at| Target { incarnation: at.incarnation, size: at.size, root: at.root });
    let (mut walk, mut found) = (Walk::new(shard), 0);
    loop {
        let step = walk.step(&view, target, STEP_EVENTS);
        add(&progress.done, step.entries);
        add(&progress.events, step.events);
        add(&progress.found, walk.so_far().found - found);
        found = walk.so_far().found;
        if step.caught_up {
            break;
        }
    }
    walk.finish(&view, target);
    let pass = walk.so_far();
    add(&progress.found, pass.found - found);
    watching.0.entries = pass.next;
    watching.0.events = pass.events;
    watching.0.found = watching.0.found.saturating_add(pass.found);
    watching.0.findings.extend(pass.findings.iter().map(Told::from));
    if let Some(target) = target.filter(|target| target.size > leaves) {
        let behind = target.size - leaves;
        watching.0.notes.push(format!("{behind} entries that were cosigned are in the log and not in this file yet"));
    }
    let applied = applied(&view);
    if applied.is_err() {
        watching.add(Some(shard), What::Unreadable("what it says of the log".into()));
    }
    Ok((watching.0, applied.ok()))
}

/// Why a shard's file is not open.
enum Unopened {
    Running,
    Damaged(String),
}

fn opened(path: &Path, check: bool) -> Result<(Store, AllianceId, u16, bool), Unopened> {
    let overlay = Overlay::open(path).map_err(|error| Unopened::Damaged(error.to_string()))?;
    let mut running = false;
    // A panic in the storage library is a finding; that the node runs is none.
    let opened = caught(|| {
        let opened = Store::open_as_it_is(overlay, CACHE_BYTES, check);
        running = matches!(opened, Err(StoreError::InUse));
        opened
    });
    opened.map_err(|why| if running { Unopened::Running } else { Unopened::Damaged(why) })
}

fn applied(view: &View) -> Result<Option<Vec<u8>>, String> {
    caught(|| view.applied())
}

fn look_at_log(
    dir: &Path,
    shards: &BTreeMap<u16, PathBuf>,
    applied: &BTreeMap<u16, Option<Vec<u8>>>,
    cosigned: &Memory,
    progress: &Progress,
) -> Result<Looked, VerifyError> {
    let mut watching = Watching::of(LOG_FILE);
    let path = dir.join(LOG_FILE);
    let overlay = match Overlay::open(&path) {
        Ok(overlay) => overlay,
        Err(error) => {
            add(&progress.found, 1);
            return Ok(watching.with(None, What::File(format!("{LOG_FILE}: {error}"))));
        }
    };
    let journal = match Overlay::open(&dir.join(JOURNAL_FILE)) {
        Ok(journal) => Some(Box::new(journal) as Box<dyn StorageBackend>),
        // An empty one is one that was never made, or none: the log knows which.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof) => None,
        Err(error) => {
            add(&progress.found, 1);
            return Ok(watching.with(None, What::File(format!("{JOURNAL_FILE}: {error}"))));
        }
    };
    let mut running = false;
    let looked = caught(|| {
        let opened = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(overlay);
        let mut db = match opened {
            Ok(db) => db,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                running = true;
                return Err(StoreError::InUse);
            }
            Err(error) => return Err(error.into()),
        };
        let sound = db.check_integrity()?;
        let read = |n| {
            add(&progress.entries, n);
            add(&progress.done, n);
        };
        Ok((LogFound::look(db, journal, |_, _, command| block_fault(command), read), sound))
    });
    if running {
        return Err(VerifyError::Running(LOG_FILE.into()));
    }
    let (log, sound) = match looked {
        Ok((Ok(log), sound)) => (log, sound),
        Ok((Err(error), _)) => return Ok(watching.with(None, What::File(error.to_string()))),
        Err(why) => return Ok(watching.with(None, What::File(format!("the log cannot be read: {why}")))),
    };
    if !sound {
        watching
            .add(None, What::File("pages of the log do not have the checksums under which they were written".into()));
    }
    for what in &log.wrong {
        watching.add(None, What::File(format!("the log: {what}")));
    }
    if let (Some((node, _)), Some((_, whose))) = (log.node(), cosigned.whose)
        && node != raft_id(whose)
    {
        watching.add(None, What::File(format!("the log is that of another node than what was cosigned, {whose}")));
    }
    let groups: BTreeSet<u16> = log.groups.keys().map(|group| group.0).chain(shards.keys().copied()).collect();
    for shard in groups {
        // Of a state that cannot be read, that is said where it lies.
        let Some(applied) =
            applied.get(&shard).map(Option::as_deref).or((!shards.contains_key(&shard)).then_some(None))
        else {
            continue;
        };
        if let Err(why) = log.fits(GroupId(shard), applied) {
            watching.add(Some(shard), What::File(why));
        }
    }
    watching.0.entries = log.groups.values().map(|group| group.entries).sum();
    add(&progress.found, watching.0.found);
    Ok(watching.0)
}
