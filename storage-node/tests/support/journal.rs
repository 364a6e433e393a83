//! A small machine on redb, as a shard would be one: state commits are not durable until they are made so.
//!
//! Its state is the list of commands that it was given, so a test sees what arrived, in which order, and what a crash
//! left. The response to a command is its number in the list.

use std::{
    io::{Cursor, Read},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend, TableDefinition,
};

use super::api::{AppliedMeta, Command, Latch, Latched, Machine, MachineError, Position, Stage, Stager, Vetting};

const COMMANDS: TableDefinition<'static, u64, (u64, u64, &[u8])> = TableDefinition::new("commands");
const META: TableDefinition<'static, (), &[u8]> = TableDefinition::new("meta");

/// What a test sees and sets from outside.
#[derive(Debug, Default)]
pub struct Probe {
    /// The next apply fails.
    pub fail_apply: AtomicBool,
    /// The next apply panics.
    pub panic_apply: AtomicBool,
    /// Index up to which the state was made durable, plus one.
    pub synced: AtomicU64,
    /// How many commands were applied in this life.
    pub applied: AtomicU64,
    /// Whoever holds this holds every apply up.
    pub hold: Mutex<()>,
    /// Whoever holds this holds the adoption of a snapshot up.
    pub hold_adopt: Mutex<()>,
    /// How many snapshots began to arrive.
    pub staged: AtomicU64,
    /// How many were adopted.
    pub adopted: AtomicU64,
    /// How many commands are in the state.
    pub length: AtomicU64,
    /// Once set, the program is too old for what follows the next command.
    pub outdated: AtomicBool,
}

/// The machine.
pub struct Journal {
    db: Database,
    latch: Latch,
    probe: Arc<Probe>,
    last: u64,
}

fn failed(error: impl Into<redb::Error>) -> MachineError {
    MachineError::new(error.into())
}

impl Journal {
    pub fn open(backend: impl StorageBackend, probe: Arc<Probe>) -> Self {
        let latch = Latch::default();
        let backend = Latched::new(backend, latch.clone());
        let db = redb::Builder::new().set_cache_size(1 << 20).create_with_backend(backend).unwrap();
        let length = read(&db.begin_read().unwrap()).unwrap().len();
        probe.length.store(length as u64, Ordering::SeqCst);
        Self { db, latch, probe, last: 0 }
    }

    /// The commands in the state, with their positions.
    pub fn list(&self) -> Vec<(Position, Vec<u8>)> {
        read(&self.db.begin_read().unwrap()).unwrap()
    }

    fn write(&self, durability: Durability, body: impl FnOnce(&redb::WriteTransaction)) -> Result<(), MachineError> {
        let mut txn = self.db.begin_write().map_err(failed)?;
        txn.set_durability(durability).map_err(failed)?;
        txn.set_two_phase_commit(true);
        txn.set_quick_repair(matches!(durability, Durability::Immediate));
        body(&txn);
        txn.commit().map_err(failed)
    }
}

/// A snapshot: the view is taken at once, and read when somebody reads it, command by command.
struct View {
    txn: redb::ReadTransaction,
    next: u64,
    bytes: Cursor<Vec<u8>>,
}

impl Read for View {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.bytes.position() == self.bytes.get_ref().len() as u64 {
            self.bytes = Cursor::default();
            let row = match self.txn.open_table(COMMANDS) {
                Ok(table) => table.get(self.next).map_err(std::io::Error::other)?,
                Err(redb::TableError::TableDoesNotExist(_)) => None,
                Err(error) => return Err(std::io::Error::other(error)),
            };
            if let Some(row) = row {
                let (term, index, command) = row.value();
                for number in [term, index, command.len() as u64] {
                    self.bytes.get_mut().extend(number.to_be_bytes());
                }
                self.bytes.get_mut().extend(command);
                self.next += 1;
            }
        }
        self.bytes.read(out)
    }
}

fn read(txn: &redb::ReadTransaction) -> Result<Vec<(Position, Vec<u8>)>, redb::Error> {
    let table = match txn.open_table(COMMANDS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut list = Vec::new();
    for row in table.iter()? {
        let (_, value) = row?;
        let (term, index, bytes) = value.value();
        list.push((Position { term, index }, bytes.to_vec()));
    }
    Ok(list)
}

impl Machine for Journal {
    type Stage = Receiving;

    fn applied(&self) -> Result<Option<AppliedMeta>, MachineError> {
        match self.db.begin_read().map_err(failed)?.open_table(META) {
            Ok(table) => Ok(table.get(()).map_err(failed)?.map(|meta| AppliedMeta(meta.value().to_vec()))),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn apply(&mut self, batch: &[Command], meta: &[u8]) -> Result<Vec<Bytes>, MachineError> {
        assert!(!self.probe.panic_apply.swap(false, Ordering::SeqCst), "the test asked for a panic");
        if self.probe.fail_apply.swap(false, Ordering::SeqCst) {
            return Err(MachineError::new("the test asked for a fault"));
        }
        drop(self.probe.hold.lock());
        let mut responses = Vec::new();
        self.write(Durability::None, |txn| {
            let mut table = txn.open_table(COMMANDS).unwrap();
            let next = table.len().unwrap();
            for (next, command) in (next..).zip(batch) {
                let Position { term, index } = command.position;
                table.insert(next, (term, index, &command.bytes[..])).unwrap();
                responses.push(Bytes::copy_from_slice(&next.to_be_bytes()));
            }
            txn.open_table(META).unwrap().insert((), meta).unwrap();
        })?;
        if let Some(command) = batch.last() {
            self.last = command.position.index + 1;
        }
        self.probe.applied.fetch_add(batch.len() as u64, Ordering::SeqCst);
        self.probe.length.fetch_add(batch.len() as u64, Ordering::SeqCst);
        Ok(responses)
    }

    fn outdated(&self) -> Option<String> {
        self.probe.outdated.load(Ordering::SeqCst).then(|| "older than the rules in force".to_owned())
    }

    fn make_durable(&mut self) -> Result<(), MachineError> {
        self.write(Durability::Immediate, |_| {})?;
        self.probe.synced.fetch_max(self.last, Ordering::SeqCst);
        Ok(())
    }

    fn abandon(&mut self) {
        self.latch.shut();
    }

    fn snapshot(&self) -> Result<Box<dyn Read + Send>, MachineError> {
        Ok(Box::new(View { txn: self.db.begin_read().map_err(failed)?, next: 0, bytes: Cursor::default() }))
    }

    fn stager(&self) -> Stager<Receiving> {
        let probe = self.probe.clone();
        Box::new(move || {
            probe.staged.fetch_add(1, Ordering::SeqCst);
            Ok(Receiving(Vec::new(), probe.clone()))
        })
    }

    fn vetting(&self) -> Vetting {
        Arc::new(|_: &Bytes| Ok(()))
    }

    fn adopt(&mut self, Received(staged, _): Received, meta: &[u8]) -> Result<(), MachineError> {
        drop(self.probe.hold_adopt.lock());
        self.write(Durability::Immediate, |txn| {
            txn.delete_table(COMMANDS).unwrap();
            let mut table = txn.open_table(COMMANDS).unwrap();
            for (next, (Position { term, index }, command)) in (0..).zip(&staged) {
                table.insert(next, (*term, *index, &command[..])).unwrap();
            }
            txn.open_table(META).unwrap().insert((), meta).unwrap();
        })?;
        self.probe.length.store(staged.len() as u64, Ordering::SeqCst);
        self.probe.adopted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn forget(&mut self) -> Result<(), MachineError> {
        self.probe.length.store(0, Ordering::SeqCst);
        self.write(Durability::Immediate, |txn| {
            txn.delete_table(COMMANDS).unwrap();
            txn.delete_table(META).unwrap();
        })
    }
}

/// The commands of a state, with their positions.
pub type List = Vec<(Position, Vec<u8>)>;

/// A snapshot on its way.
pub struct Receiving(Vec<u8>, Arc<Probe>);

/// One that is whole.
pub struct Received(List, Arc<Probe>);

impl Stage for Receiving {
    type Staged = Received;

    fn write(&mut self, piece: &[u8]) -> Result<(), MachineError> {
        self.0.extend_from_slice(piece);
        Ok(())
    }

    /// Nothing is let go of: a state is only ever longer.
    fn still_fits(Received(list, probe): &Received) -> Result<(), MachineError> {
        let has = probe.length.load(Ordering::SeqCst);
        if list.len() as u64 >= has { Ok(()) } else { Err(MachineError::new("it has less than is here")) }
    }

    fn finish(self) -> Result<Received, MachineError> {
        let mut rest = &self.0[..];
        let mut list = Vec::new();
        let cut = || MachineError::new("it ends early");
        while !rest.is_empty() {
            let (head, tail) = rest.split_at_checked(24).ok_or_else(cut)?;
            let number = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().unwrap());
            let len = usize::try_from(number(16)).map_err(MachineError::new)?;
            let (command, tail) = tail.split_at_checked(len).ok_or_else(cut)?;
            list.push((Position { term: number(0), index: number(8) }, command.to_vec()));
            rest = tail;
        }
        Ok(Received(list, self.1))
    }
}
