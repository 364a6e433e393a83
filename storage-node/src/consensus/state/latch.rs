//! The file of a state that must not become newer on disk than it is.
//!
//! redb makes durable on closing whatever was committed without durability, and with any later durable commit. A state that has entries
//! which the log may never have on disk must not be closed like that, and not everybody who holds it can be told not to close it.

use std::{
    io,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{BackendError, StorageBackend};

/// Whether a state's file still takes anything. Clones are the same latch.
#[derive(Clone, Debug, Default)]
pub struct Latch(Arc<AtomicBool>);

impl Latch {
    /// From now on, and for good, the file takes nothing. It can still be read, and be closed.
    pub fn shut(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the file takes something.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(&self) -> io::Result<()> {
        if !self.0.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(io::Error::other(
            "nothing more of this state is stored before the node is started again: its group has stopped",
        ))
    }
}

/// A file behind a [`Latch`].
#[derive(Debug)]
pub struct Latched<B> {
    file: B,
    latch: Latch,
}

impl<B: StorageBackend> Latched<B> {
    /// Puts a file behind a latch.
    pub fn new(file: B, latch: Latch) -> Self {
        Self { file, latch }
    }
}

impl<B: StorageBackend> StorageBackend for Latched<B> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.latch.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.latch.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.latch.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use redb::{Database, Durability, ReadableDatabase, TableDefinition, backends::FileBackend};

    use super::*;

    const TABLE: TableDefinition<'static, u64, ()> = TableDefinition::new("table");

    fn write(db: &Database, key: u64, durability: Durability) -> Result<(), redb::Error> {
        let mut txn = db.begin_write()?;
        txn.set_durability(durability)?;
        txn.open_table(TABLE)?.insert(key, ())?;
        txn.commit()?;
        Ok(())
    }

    #[test]
    fn what_is_not_durable_when_the_latch_is_shut_is_gone_when_the_file_is_closed_and_the_file_opens_again() {
        for shut in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let open = |latch: &Latch| {
                let mut options = File::options();
                let file = options.read(true).write(true).create(true).truncate(false).open(dir.path().join("state"));
                let file = FileBackend::new(file.unwrap()).unwrap();
                redb::Builder::new().create_with_backend(Latched::new(file, latch.clone()))
            };
            let latch = Latch::default();
            let db = open(&latch).unwrap();
            write(&db, 0, Durability::Immediate).unwrap();
            write(&db, 1, Durability::None).unwrap();
            if shut {
                latch.shut();
            }
            assert!(matches!(open(&Latch::default()), Err(redb::DatabaseError::DatabaseAlreadyOpen)));
            let has =
                |db: &Database, key| db.begin_read().unwrap().open_table(TABLE).unwrap().get(key).unwrap().is_some();
            assert!(has(&db, 0) && has(&db, 1));
            assert_eq!(write(&db, 2, Durability::Immediate).is_err(), shut);
            drop(db);
            let db = open(&Latch::default()).unwrap();
            assert_eq!([0, 1, 2].map(|key| has(&db, key)), [true, !shut, !shut], "shut: {shut}");
            write(&db, 3, Durability::Immediate).unwrap();
        }
    }
}
