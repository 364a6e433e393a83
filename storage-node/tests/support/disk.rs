//! A disk in memory that forgets what was not synced, and that fails at any step one likes. A write that fails may be on the
//! platter all the same.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use redb::StorageBackend;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What becomes of writes that were not synced when the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Unsynced {
    /// None reached the platter.
    Lost,
    /// All did.
    Kept,
    /// Some did, in any order; the number chooses which.
    Some(u64),
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    synced: Vec<u8>,
    seen: Vec<u8>,
    pending: Vec<Change>,
    /// Writes, syncs and changes of length so far.
    steps: u64,
    /// The step at which it begins to fail, for good.
    fail_at: Option<u64>,
    dead: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
            Self::Len(len) => bytes.resize(*len, 0),
        }
    }
}

impl Disk {
    /// The `step`th step fails, and every later one.
    pub fn fail_at(&self, step: u64) {
        self.lock().fail_at = Some(step);
    }

    pub fn fail_now(&self) {
        let mut inner = self.lock();
        inner.fail_at = Some(inner.steps + 1);
    }

    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// The power goes: this disk answers nothing any more, and the one returned has what survived.
    pub fn crash(&self, unsynced: Unsynced) -> Self {
        let mut inner = self.lock();
        inner.dead = true;
        let mut bytes = inner.synced.clone();
        let mut random = match unsynced {
            Unsynced::Some(seed) => seed | 1,
            Unsynced::Lost | Unsynced::Kept => 1,
        };
        for change in &inner.pending {
            // xorshift: a test that fails is repeated by its number.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let kept = match unsynced {
                Unsynced::Lost => false,
                Unsynced::Kept => true,
                // A file's length is metadata: journalled, and so in order with itself.
                Unsynced::Some(_) => matches!(change, Change::Len(_)) || random % 2 == 0,
            };
            if kept {
                change.apply(&mut bytes);
            }
        }
        let survived = Inner { synced: bytes.clone(), seen: bytes, ..Inner::default() };
        Self(Arc::new(Mutex::new(survived)))
    }

    /// Another disk with the same bytes, all of them synced. This one goes on.
    pub fn copy(&self) -> Self {
        let seen = self.lock().seen.clone();
        Self(Arc::new(Mutex::new(Inner { synced: seen.clone(), seen, ..Inner::default() })))
    }

    /// The process was killed and the machine goes on: the same disk, what was not synced included, for the next process.
    pub fn restarted(&self) -> Self {
        let mut inner = self.lock();
        inner.dead = true;
        let (synced, seen, pending) = (inner.synced.clone(), inner.seen.clone(), inner.pending.clone());
        Self(Arc::new(Mutex::new(Inner { synced, seen, pending, ..Inner::default() })))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more step. The one that fails first is said to have failed; whether the change reached the platter nobody knows.
    fn step(&self, change: Option<Change>) -> io::Result<std::sync::MutexGuard<'_, Inner>> {
        let mut inner = self.lock();
        inner.steps += 1;
        let failing = inner.fail_at.is_some_and(|at| inner.steps >= at);
        if inner.dead || failing {
            if !inner.dead && inner.fail_at == Some(inner.steps) {
                inner.pending.extend(change);
            }
            return Err(io::Error::from_raw_os_error(if inner.steps.is_multiple_of(2) { ENOSPC } else { EIO }));
        }
        if let Some(change) = change {
            change.apply(&mut inner.seen);
            inner.pending.push(change);
        }
        Ok(inner)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let inner = self.lock();
        let at = usize::try_from(offset).unwrap();
        let from = inner.seen.get(at..at + out.len()).filter(|_| !inner.dead);
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.step(Some(Change::Len(usize::try_from(len).unwrap()))).map(drop)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut inner = self.step(None)?;
        let pending = std::mem::take(&mut inner.pending);
        for change in &pending {
            change.apply(&mut inner.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.step(Some(Change::Write(usize::try_from(offset).unwrap(), data.to_vec()))).map(drop)
    }
}
