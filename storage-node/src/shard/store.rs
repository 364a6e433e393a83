//! The file of one shard: opening it, writing to it, looking at it. All calls block; none belongs on a runtime's worker.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend};

use ehe::cbor;
use ehe::id::AllianceId;

use super::entry::LogName;
use super::schema::{FORMAT, META_MARKER, META_SHARD, Marker, ShardMeta, Tables};
use super::view::View;

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

from_redb!(StorageError TableError TransactionError CommitError SetDurabilityError);

impl From<redb::DatabaseError> for StoreError {
    fn from(error: redb::DatabaseError) -> Self {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::InUse,
            other => Self::Db(Box::new(other.into())),
        }
    }
}

/// A shard's file. Clones are the same file; it is closed when the last one and the last view are gone.
#[derive(Clone)]
pub struct Store {
    db: Arc<Database>,
    log: LogName,
    /// Where another node's state is received; a store that is not a file has no such place.
    dir: Option<Arc<Path>>,
}

impl Store {
    /// Opens the file of a shard in `dir`, or makes it. `cache_bytes` bounds redb's cache (its own default is 1 GiB a file).
    pub fn open(dir: &Path, alliance: AllianceId, shard: u16, cache_bytes: usize) -> Result<Self, StoreError> {
        let path = dir.join(format!("shard-{shard:04}.redb"));
        let io = |source| StoreError::File { path: path.clone(), source };
        let log = LogName { alliance, shard };
        if !certs::file::is_made(&path).map_err(io)? {
            // A crash while redb makes a file leaves one that does not open: it gets its name when it is whole.
            let new = dir.join(format!("shard-{shard:04}.redb.new"));
            let made = File::options().read(true).write(true).create(true).truncate(true).open(&new).map_err(io)?;
            let store = Self { db: Arc::new(builder(cache_bytes).create_file(made)?), log, dir: None };
            store.initialise(&Marker { format: FORMAT, alliance, shard })?;
            drop(store);
            std::fs::rename(&new, &path).map_err(io)?;
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)?;
        }
        let store = Self { db: Arc::new(builder(cache_bytes).open(&path)?), log, dir: Some(dir.into()) };
        store.check(alliance, shard)?;
        Ok(store)
    }

    /// Opens a shard on another kind of storage, or makes it if that is empty: the seam for tests that fail at each step of IO.
    pub fn open_with_backend(
        backend: impl StorageBackend,
        alliance: AllianceId,
        shard: u16,
        cache_bytes: usize,
    ) -> Result<Self, StoreError> {
        let empty = backend.len().map_err(redb::StorageError::Io)? == 0;
        let db = Arc::new(builder(cache_bytes).create_with_backend(backend)?);
        let store = Self { db, log: LogName { alliance, shard }, dir: None };
        if empty {
            store.initialise(&Marker { format: FORMAT, alliance, shard })?;
        }
        store.check(alliance, shard)?;
        Ok(store)
    }

    fn initialise(&self, marker: &Marker) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |tables| {
            tables.meta.insert(META_MARKER, cbor::to_vec(marker).as_slice())?;
            tables.meta.insert(META_SHARD, cbor::to_vec(&ShardMeta::default()).as_slice())?;
            Ok(())
        })
    }

    /// The marker is read before any other table is touched: another format may have other tables.
    fn check(&self, alliance: AllianceId, shard: u16) -> Result<(), StoreError> {
        let txn = self.db.begin_read()?;
        let table = txn.open_table(redb::TableDefinition::<&str, &[u8]>::new("meta"))?;
        let bytes = table.get(META_MARKER)?.ok_or(StoreError::Corrupt("it has no format marker"))?;
        // The marker's first member keeps its place in every format.
        let mut decoder = minicbor::Decoder::new(bytes.value());
        let found = decoder.map().and_then(|_| decoder.u32()).and_then(|_| decoder.u32());
        match found {
            Ok(FORMAT) => {}
            Ok(found) => return Err(StoreError::Format { found, known: FORMAT }),
            Err(_) => return Err(StoreError::Corrupt("its format marker does not decode")),
        }
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
        let mut txn = self.db.begin_write()?;
        txn.set_durability(durability)?;
        // A durable commit is what a crash comes back to: two-phase, so that no checksum decides, and with the allocator's
        // state, so that opening does not walk the file.
        txn.set_two_phase_commit(true);
        txn.set_quick_repair(matches!(durability, Durability::Immediate));
        let mut tables = Tables::open(&txn)?;
        let out = change(&mut tables)?;
        drop(tables);
        txn.commit()?;
        Ok(out)
    }

    /// Everything committed so far survives a crash when this returns.
    pub(super) fn make_durable(&self) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |_| Ok(()))
    }

    /// Replaces everything, durably.
    pub(super) fn replace(
        &self,
        change: impl FnOnce(&mut Tables<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        txn.set_two_phase_commit(true);
        txn.set_quick_repair(true);
        Tables::clear(&txn)?;
        let mut tables = Tables::open(&txn)?;
        change(&mut tables)?;
        drop(tables);
        txn.commit()?;
        Ok(())
    }

    /// Where another node's state is received.
    pub(super) fn dir(&self) -> Option<Arc<Path>> {
        self.dir.clone()
    }

    /// The state as of the last commit.
    pub fn view(&self) -> Result<View, StoreError> {
        View::open(&self.read()?, self.log)
    }

    pub(super) fn read(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.db.begin_read()?)
    }
}

/// Whether the file, or what is being installed in it, is of this shard.
pub(super) fn check_marker(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    alliance: AllianceId,
    shard: u16,
) -> Result<(), StoreError> {
    let bytes = meta.get(META_MARKER)?.ok_or(StoreError::Corrupt("it has no format marker"))?;
    let marker: Marker =
        cbor::from_slice(bytes.value(), 128).map_err(|_| StoreError::Corrupt("its format marker does not decode"))?;
    match marker {
        Marker { format, .. } if format != FORMAT => Err(StoreError::Format { found: format, known: FORMAT }),
        Marker { alliance: found, shard: of, .. } if (found, of) != (alliance, shard) => {
            Err(StoreError::OtherShard { shard: of, alliance: found })
        }
        _ => Ok(()),
    }
}

fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder
}

/// Reads [`ShardMeta`].
pub(super) fn shard_meta(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<ShardMeta, StoreError> {
    let bytes = meta.get(META_SHARD)?.ok_or(StoreError::Corrupt("the shard's record is missing"))?;
    cbor::from_slice(bytes.value(), 256).map_err(|_| StoreError::Corrupt("the shard's record does not decode"))
}
