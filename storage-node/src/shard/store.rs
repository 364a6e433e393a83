//! The file of one shard: opening it, writing to it, looking at it. All calls block; none belongs on a runtime's worker.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, WriteTransaction};

use ehe::cbor;
use ehe::id::AllianceId;

use super::entry::LogName;
use super::folder::{Dir, Folder, private};
use super::schema::{FORMAT, META_MARKER, META_SHARD, Marker, ShardMeta, Tables};
use super::view::View;
use crate::consensus::{Latch, Latched};

/// What is wrong with a shard's file. The operator's affair, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// redb, or the disk below it.
    #[error("the shard's file: {0}; check the disk and its free space, then restart the node")]
    Db(#[source] Box<redb::Error>),
    /// Another process has the file open.
    #[error("another process has the shard's file open: stop it, a node runs once")]
    InUse,
    /// The file system.
    #[error("{path}: {source}; check that the data directory is there and writable")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Another version of this program wrote the file.
    #[error(
        "the shard's file has format {found}, this program knows {known}; install the version that wrote it, or a later one"
    )]
    Format {
        /// As found.
        found: u32,
        /// As known.
        known: u32,
    },
    /// The file is of another shard or alliance.
    #[error(
        "the file is that of shard {shard} of alliance {alliance}; the data directory or the credentials are another node's"
    )]
    OtherShard {
        /// Its shard.
        shard: u16,
        /// Its alliance.
        alliance: AllianceId,
    },
    /// Stored bytes are not what was written.
    #[error("the shard's file is corrupt: {0}; restore this node from a replica, under a new node id")]
    Corrupt(&'static str),
    /// A state that was sent by another node is none.
    #[error(
        "the state that was to be installed is not one: {0}; the node that sent it is faulty or of another version"
    )]
    Stream(&'static str),
    /// A state that was sent by another node is ahead of this node's clock.
    #[error(
        "the state that was to be installed is {ahead_ms} ms ahead of this node's clock: that one or the clocks of the nodes that have it are \
         wrong"
    )]
    Ahead {
        /// By how much.
        ahead_ms: u64,
    },
    /// There is no room for a state that another node sends.
    #[error(
        "the disk has no room for the shard's state, which another node sends beside the one that is here: make room for it; it is sent \
         again"
    )]
    NoRoom,
    /// Nobody stands behind a state that was sent by another node.
    #[error(
        "the state that was to be installed: {0}; the node that sent it is faulty, or has another charter than this one"
    )]
    Unattested(#[from] ehe::checkpoint::CheckpointError),
    /// A state under rules that this program does not know.
    #[error("the state that was to be installed: {0}")]
    Outdated(String),
    /// More entries than the file's format has room for.
    #[error(
        "the shard's log has 2^40 entries, more than this format holds; a new incarnation of the shard has to begin"
    )]
    Full,
    /// Reading such a state failed.
    #[error("reading the state that was to be installed: {0}")]
    Io(#[from] std::io::Error),
}

macro_rules! from_redb {
    ($($error:ident)*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Db(Box::new(error.into()))
            }
        })*
    };
}

from_redb!(StorageError TableError TransactionError CommitError SetDurabilityError CursorError);

impl From<redb::DatabaseError> for StoreError {
    fn from(error: redb::DatabaseError) -> Self {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::InUse,
            other => Self::Db(Box::new(other.into())),
        }
    }
}

/// Name of a shard's file.
pub(crate) fn file_name(shard: u16) -> String {
    format!("shard-{shard:04}.redb")
}

/// A shard's file. Clones are the same file; it is closed when the last one and the last view are gone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    log: LogName,
}

struct Shared {
    /// The file that has the shard's place now.
    open: RwLock<Arc<OpenFile>>,
    /// Where another node's state is received; a store that is not a file has no such place.
    folder: Option<Arc<dyn Folder>>,
    cache_bytes: usize,
    /// How often rows were put in the place of damaged ones: whoever keeps rows in memory reads them again.
    mended: AtomicU64,
}

/// Where a file is filled that is to take a shard's place. It does not keep the shard's open.
#[derive(Clone)]
pub(super) struct Beside {
    pub(super) folder: Arc<dyn Folder>,
    pub(super) cache_bytes: usize,
}

/// An open file. redb closes a file under its readers, so whoever looks at it holds it, also when another one has taken its
/// place.
pub(super) struct OpenFile {
    db: Option<Database>,
    latch: Latch,
    replaced: AtomicBool,
}

impl OpenFile {
    /// Opens a file, or makes it if it is empty.
    pub(super) fn on(builder: &redb::Builder, file: impl StorageBackend) -> Result<Self, StoreError> {
        let latch = Latch::default();
        let db = builder.create_with_backend(Latched::new(file, latch.clone()))?;
        Ok(Self { db: Some(db), latch, replaced: AtomicBool::new(false) })
    }

    pub(super) fn db(&self) -> Result<&Database, StoreError> {
        self.db.as_ref().ok_or_else(closed)
    }

    /// As of now.
    pub(super) fn moment(self: &Arc<Self>) -> Result<Moment, StoreError> {
        Ok(Moment { txn: self.db()?.begin_read()?, file: Arc::clone(self) })
    }
}

fn closed() -> StoreError {
    StoreError::Db(Box::new(redb::Error::DatabaseClosed))
}

impl Drop for OpenFile {
    /// Closing syncs, and who lets go of a replaced file last may be in the middle of installing its successor, or on a runtime's
    /// worker. Nobody waits for that file any more, so a thread of its own closes it.
    fn drop(&mut self) {
        if *self.replaced.get_mut() {
            let db = self.db.take();
            // Where there is no thread, the file is closed here, with what was to run there.
            drop(std::thread::Builder::new().name("shard-closing".into()).spawn(move || drop(db)));
        }
    }
}

/// A moment of a file.
pub(super) struct Moment {
    pub(super) txn: ReadTransaction,
    /// Held as long as anything of the transaction is used.
    pub(super) file: Arc<OpenFile>,
}

impl Store {
    /// Opens the file of a shard in `dir`, or makes it. `cache_bytes` bounds redb's cache (its own default is 1 GiB a file).
    pub fn open(dir: &Path, alliance: AllianceId, shard: u16, cache_bytes: usize) -> Result<Self, StoreError> {
        let (folder, log) = (Dir::new(dir, shard), LogName { alliance, shard });
        let path = folder.file.clone();
        let io = |source| StoreError::File { path: path.clone(), source };
        folder.clear()?;
        if !certs::file::is_made(&path).map_err(io)? {
            // A crash while redb makes a file leaves one that does not open: it gets its name when it is whole.
            let new = dir.join(format!("shard-{shard:04}.redb.new"));
            let made = private().create(true).truncate(true).open(&new).map_err(io)?;
            let made = OpenFile::on(&builder(cache_bytes), FileBackend::new(made)?)?;
            let store = Self::of(made, log, None, cache_bytes);
            store.initialise(&Marker { format: FORMAT, alliance, shard })?;
            drop(store);
            std::fs::rename(&new, &path).map_err(io)?;
            folder.sync()?;
        }
        let file = FileBackend::new(private().open(&path).map_err(io)?)?;
        let store = Self::of(OpenFile::on(&builder(cache_bytes), file)?, log, Some(Arc::new(folder)), cache_bytes);
        store.check(alliance, shard)?;
        Ok(store)
    }

    pub(super) fn of(file: OpenFile, log: LogName, folder: Option<Arc<dyn Folder>>, cache_bytes: usize) -> Self {
        let open = RwLock::new(Arc::new(file));
        Self { shared: Arc::new(Shared { open, folder, cache_bytes, mended: AtomicU64::new(0) }), log }
    }

    /// Opens a shard on another kind of storage, or makes it if that is empty: the seam for tests that fail at each step of IO.
    pub fn open_with_backend(
        backend: impl StorageBackend,
        alliance: AllianceId,
        shard: u16,
        cache_bytes: usize,
    ) -> Result<Self, StoreError> {
        Self::open_beside(backend, None, LogName { alliance, shard }, cache_bytes)
    }

    /// As [`open_with_backend`](Self::open_with_backend), with a place where another node's state is received.
    pub(super) fn open_beside(
        backend: impl StorageBackend,
        folder: Option<Arc<dyn Folder>>,
        log: LogName,
        cache_bytes: usize,
    ) -> Result<Self, StoreError> {
        let LogName { alliance, shard } = log;
        let empty = backend.len().map_err(redb::StorageError::Io)? == 0;
        let store = Self::of(OpenFile::on(&builder(cache_bytes), backend)?, log, folder, cache_bytes);
        if empty {
            store.initialise(&Marker { format: FORMAT, alliance, shard })?;
        }
        store.check(alliance, shard)?;
        Ok(store)
    }

    /// Opens a shard's file only to look at it, whosever it is: its alliance, its number, and, if that is to be checked, whether every
    /// page of it is the one that was written. `backend` must take what the storage library writes while it opens the file, and may
    /// forget it.
    pub(crate) fn open_as_it_is(
        backend: impl StorageBackend,
        cache_bytes: usize,
        check: bool,
    ) -> Result<(Self, AllianceId, u16, bool), StoreError> {
        let mut file = OpenFile::on(&builder(cache_bytes), backend)?;
        let sound = !check || file.db.as_mut().ok_or_else(closed)?.check_integrity()?;
        let marker = {
            let txn = file.db()?.begin_read()?;
            let table = txn.open_table(redb::TableDefinition::<&str, &[u8]>::new("meta"))?;
            check_format(&table)?;
            marker(&table)?
        };
        let Marker { alliance, shard, .. } = marker;
        Ok((Self::of(file, LogName { alliance, shard }, None, cache_bytes), alliance, shard, sound))
    }

    pub(super) fn mended(&self) -> &AtomicU64 {
        &self.shared.mended
    }

    fn current(&self) -> Arc<OpenFile> {
        Arc::clone(&self.shared.open.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn initialise(&self, marker: &Marker) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |tables| initialise(tables, marker))
    }

    /// The marker is read before any other table is touched: another format may have other tables.
    fn check(&self, alliance: AllianceId, shard: u16) -> Result<(), StoreError> {
        let moment = self.read()?;
        let table = moment.txn.open_table(redb::TableDefinition::<&str, &[u8]>::new("meta"))?;
        check_format(&table)?;
        check_marker(&table, alliance, shard)
    }

    /// One transaction: what `change` does, or nothing.
    ///
    /// Without durability it survives a crash of the process only once a later durable one was committed: the log replays it.
    pub(super) fn write<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let file = self.current();
        // redb would take the file for broken, and not read it any more.
        file.latch.check().map_err(redb::StorageError::Io)?;
        let txn = begin(file.db()?, durability)?;
        let mut tables = Tables::open(&txn)?;
        let out = change(&mut tables)?;
        drop(tables);
        txn.commit()?;
        Ok(out)
    }

    /// Nothing more is stored in the file, not even what was committed without durability, whoever lets go of it last. It can be looked at.
    pub(super) fn abandon(&self) {
        self.current().latch.shut();
    }

    /// Where another node's state is received, and with how much memory.
    pub(super) fn beside(&self) -> Option<Beside> {
        Some(Beside { folder: Arc::clone(self.shared.folder.as_ref()?), cache_bytes: self.shared.cache_bytes })
    }

    /// From now on this is the shard's file, whose place it has taken. Views of the one before stay what they are.
    pub(super) fn replace(&self, file: OpenFile) {
        let mut open = self.shared.open.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *open, Arc::new(file));
        drop(open);
        before.replaced.store(true, Ordering::Release);
    }

    /// Puts an empty file in the place of this one. Durable when it returns; a crash leaves the one or the other.
    pub(super) fn forget(&self) -> Result<(), StoreError> {
        let none = StoreError::Corrupt("it is no file, and cannot be given up");
        let Beside { folder, cache_bytes } = self.beside().ok_or(none)?;
        // Not held to the room that is left for others: whoever gives a shard up makes some.
        let file = folder.begin(&builder(cache_bytes))?;
        let LogName { alliance, shard } = self.log;
        let made = begin(file.db()?, Durability::Immediate).and_then(|txn| {
            initialise(&mut Tables::open(&txn)?, &Marker { format: FORMAT, alliance, shard })?;
            Ok(txn.commit()?)
        });
        if let Err(error) = made.and_then(|()| folder.replace()) {
            drop(file);
            folder.discard();
            return Err(error);
        }
        self.replace(file);
        Ok(())
    }

    /// The state as of the last commit.
    pub fn view(&self) -> Result<View, StoreError> {
        View::open(&self.read()?, self.log)
    }

    /// Whose log it is.
    pub(super) fn log(&self) -> LogName {
        self.log
    }

    pub(super) fn read(&self) -> Result<Moment, StoreError> {
        self.current().moment()
    }
}

/// What a file has in which nothing was ever applied.
fn initialise(tables: &mut Tables<'_>, marker: &Marker) -> Result<(), StoreError> {
    tables.meta.insert(META_MARKER, cbor::to_vec(marker).as_slice())?;
    tables.meta.insert(META_SHARD, cbor::to_vec(&ShardMeta::default()).as_slice())?;
    Ok(())
}

/// A transaction as a shard's file has them.
pub(super) fn begin(db: &Database, durability: Durability) -> Result<WriteTransaction, StoreError> {
    let mut txn = db.begin_write()?;
    txn.set_durability(durability)?;
    // A durable commit is what a crash comes back to: two-phase, so that no checksum decides, and with the allocator's
    // state, so that opening does not walk the file.
    txn.set_two_phase_commit(true);
    txn.set_quick_repair(matches!(durability, Durability::Immediate));
    Ok(txn)
}

fn check_format(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<(), StoreError> {
    let bytes = meta.get(META_MARKER)?.ok_or(StoreError::Corrupt("it has no format marker"))?;
    // The marker's first member keeps its place in every format.
    let mut decoder = minicbor::Decoder::new(bytes.value());
    match decoder.map().and_then(|_| decoder.u32()).and_then(|_| decoder.u32()) {
        Ok(FORMAT) => Ok(()),
        Ok(found) => Err(StoreError::Format { found, known: FORMAT }),
        Err(_) => Err(StoreError::Corrupt("its format marker does not decode")),
    }
}

fn marker(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Marker, StoreError> {
    let bytes = meta.get(META_MARKER)?.ok_or(StoreError::Corrupt("it has no format marker"))?;
    cbor::from_slice(bytes.value(), 128).map_err(|_| StoreError::Corrupt("its format marker does not decode"))
}

/// Whether the file, or what is being installed in it, is of this shard.
pub(super) fn check_marker(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    alliance: AllianceId,
    shard: u16,
) -> Result<(), StoreError> {
    match marker(meta)? {
        Marker { format, .. } if format != FORMAT => Err(StoreError::Format { found: format, known: FORMAT }),
        Marker { alliance: found, shard: of, .. } if (found, of) != (alliance, shard) => {
            Err(StoreError::OtherShard { shard: of, alliance: found })
        }
        _ => Ok(()),
    }
}

pub(super) fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder
}

/// Reads [`ShardMeta`].
pub(super) fn shard_meta(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<ShardMeta, StoreError> {
    let bytes = meta.get(META_SHARD)?.ok_or(StoreError::Corrupt("the shard's record is missing"))?;
    cbor::from_slice(bytes.value(), 256).map_err(|_| StoreError::Corrupt("the shard's record does not decode"))
}
