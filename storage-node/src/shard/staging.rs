//! A file that is filled beside a shard's, row by row, and takes its place when it was found good.
//!
//! ```text
//! Staging::begin ─► push, push, … ─► finish(verify) ─► Staged ─► settle: renamed, and open
//! ```
//!
//! Whoever lets go of one before it is settled leaves nothing behind; what a crash leaves, the next start removes.

use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, TableHandle};

use super::folder::Folder;
use super::schema::{ReadTables, Tables};
use super::store::{OpenFile, StoreError, begin, builder};

/// Rows of one transaction; few in tests, whose states are small.
const BATCH_BYTES: usize = if cfg!(test) { 8 << 10 } else { 8 << 20 };
/// What a row costs in memory beside its bytes.
const ROW_BYTES: usize = 24;
/// So much is written between two syncs. redb remembers each page of a file that was never made durable, and the system all that it
/// has not written: neither may grow with the state, and one sync at the end would hold up the log's, on the same disk.
const SYNC_BYTES: usize = if cfg!(test) { 32 << 10 } else { 64 << 20 };

/// A file that is being filled.
pub(super) struct Staging {
    file: Begun,
    batch: Batch,
    rows: u64,
    since_sync: usize,
}

/// A file that is whole, on the disk, and found good.
pub(super) struct Staged(Begun);

impl Staging {
    /// An empty one.
    pub(super) fn begin(folder: Arc<dyn Folder>, cache_bytes: usize) -> Result<Self, StoreError> {
        let open = folder.begin(&builder(cache_bytes)).map_err(room)?;
        let file = Begun { open: Some(open), folder };
        file.has_room()?;
        let txn = begin(file.db()?, Durability::None)?;
        drop(Tables::open(&txn)?);
        txn.commit()?;
        Ok(Self { file, batch: Batch::default(), rows: 0, since_sync: 0 })
    }

    /// Takes the next row. Rows come table by table and in the order of their keys.
    pub(super) fn push(&mut self, table: u8, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.rows += 1;
        self.batch.push(table, key, value);
        if self.batch.bytes.len() + self.batch.rows.len() * ROW_BYTES >= BATCH_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.file.has_room()?;
        self.since_sync += self.batch.bytes.len();
        let sync = self.since_sync >= SYNC_BYTES;
        let durability = if sync { Durability::Immediate } else { Durability::None };
        self.batch.write(self.file.db()?, durability).map_err(room)?;
        if sync {
            self.since_sync = 0;
        }
        Ok(())
    }

    /// Everything was pushed: looks whether the file has just that, has it verified, and syncs it.
    pub(super) fn finish(
        mut self,
        verify: impl FnOnce(&ReadTables) -> Result<(), StoreError>,
    ) -> Result<Staged, StoreError> {
        self.write()?;
        let txn = self.file.db()?.begin_read()?;
        let mut names: Vec<_> = txn.list_tables()?.map(|table| table.name().to_owned()).collect();
        let mut expected = ReadTables::NAMES.to_vec();
        names.sort_unstable();
        expected.sort_unstable();
        let tables = ReadTables::open(&txn)?;
        if names != expected || tables.rows()? != self.rows {
            return Err(StoreError::Stream("the file that was filled has other rows"));
        }
        verify(&tables)?;
        drop((tables, txn));
        let durable = begin(self.file.db()?, Durability::Immediate).and_then(|txn| Ok(txn.commit()?));
        durable.map_err(room)?;
        Ok(Staged(self.file))
    }
}

impl Staged {
    /// Looks at it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&ReadTables) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let txn = self.0.db()?.begin_read()?;
        look(&ReadTables::open(&txn)?)
    }

    /// Takes the shard's place, with what this node alone says in its `meta`. Durable when it returns.
    pub(super) fn settle<'m>(
        mut self,
        meta: impl IntoIterator<Item = (&'m str, &'m [u8])>,
    ) -> Result<OpenFile, StoreError> {
        let txn = begin(self.0.db()?, Durability::Immediate)?;
        let mut tables = Tables::open(&txn)?;
        for (key, value) in meta {
            tables.meta.insert(key, value)?;
        }
        drop(tables);
        txn.commit()?;
        self.0.folder.replace()?;
        self.0.open.take().ok_or(CLOSED)
    }
}

const CLOSED: StoreError = StoreError::Stream("its file is closed");

/// A file that has no place yet.
struct Begun {
    open: Option<OpenFile>,
    folder: Arc<dyn Folder>,
}

impl Begun {
    fn db(&self) -> Result<&Database, StoreError> {
        self.open.as_ref().ok_or(CLOSED)?.db()
    }

    fn has_room(&self) -> Result<(), StoreError> {
        if self.folder.has_room()? { Ok(()) } else { Err(StoreError::NoRoom) }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // The name first: nobody needs what closing would write.
        if self.open.is_some() {
            self.folder.discard();
        }
    }
}

/// Rows that wait to be written together.
#[derive(Default)]
struct Batch {
    /// Key, value, key, value, …
    bytes: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Clone, Copy)]
struct Row {
    table: u8,
    key: usize,
    value: usize,
}

impl Batch {
    fn push(&mut self, table: u8, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.rows.push(Row { table, key: key.len(), value: value.len() });
    }

    /// Writes them, and is empty again.
    fn write(&mut self, db: &Database, durability: Durability) -> Result<(), StoreError> {
        let mut txn = db.begin_write()?;
        // A crash leaves a file that nobody opens again.
        txn.set_durability(durability)?;
        let mut bytes = self.bytes.as_slice();
        for rows in self.rows.chunk_by(|a, b| a.table == b.table) {
            let Some(Row { table, .. }) = rows.first() else { continue };
            let rows = rows.iter().map_while(|row| {
                let (key, rest) = bytes.split_at_checked(row.key)?;
                let (value, rest) = rest.split_at_checked(row.value)?;
                bytes = rest;
                Some((key, value))
            });
            Tables::append(&txn, *table, rows).ok_or(StoreError::Stream("a row is of no table"))??;
        }
        txn.commit()?;
        self.bytes.clear();
        self.rows.clear();
        Ok(())
    }
}

/// A disk without room is told apart: that is nobody's fault but the operator's to mend, and nothing here stops for it.
pub(super) fn room(error: StoreError) -> StoreError {
    let full = |io: &std::io::Error| {
        matches!(
            io.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge
        )
    };
    match &error {
        StoreError::Db(db) if matches!(&**db, redb::Error::Io(io) if full(io)) => StoreError::NoRoom,
        StoreError::File { source, .. } if full(source) => StoreError::NoRoom,
        _ => error,
    }
}
