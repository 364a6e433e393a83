//! Disks that forget, tear and fail, all of one machine at one moment.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ehe_node::consensus::sim::{Chance, Process};
use redb::StorageBackend;

const EIO: i32 = 5;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The power of one machine, in one life: all its disks have it or none.
#[derive(Clone, Debug, Default)]
pub struct Power(Arc<Mutex<Supply>>);

#[derive(Debug, Default)]
struct Supply {
    off: bool,
    syncs: u64,
    /// The power goes during this sync.
    cut_at: Option<u64>,
    /// What dies with it.
    process: Option<Process>,
    /// Steps of IO that go well before all fail, with the power on.
    good: Option<u64>,
    failed: bool,
    /// Syncs that do nothing and say that they did.
    lies: bool,
}

impl Power {
    /// For `process`; `lies`: what is synced is not.
    pub fn new(process: Process, lies: bool) -> Self {
        Self(Arc::new(Mutex::new(Supply { process: Some(process), lies, ..Supply::default() })))
    }

    fn supply(&self) -> MutexGuard<'_, Supply> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes in the middle of the `n`th sync from now, 0 being the next.
    pub fn cut_in(&self, n: u64) {
        let mut supply = self.supply();
        supply.cut_at = Some(supply.syncs + n + 1);
    }

    /// The process is no more, or the power is not there: nothing is written any more.
    pub fn off(&self) {
        let process = {
            let mut supply = self.supply();
            supply.off = true;
            supply.process.take()
        };
        if let Some(process) = process {
            process.kill();
        }
    }

    pub fn is_off(&self) -> bool {
        self.supply().off
    }

    /// After `steps` more every step fails.
    pub fn fail_in(&self, steps: u64) {
        self.supply().good = Some(steps);
    }

    /// Nothing more is done to it.
    pub fn steady(&self) {
        let mut supply = self.supply();
        (supply.cut_at, supply.good) = (None, None);
    }

    /// Whether a step was made to fail.
    pub fn has_failed(&self) -> bool {
        self.supply().failed
    }

    fn step(&self) -> io::Result<()> {
        let mut supply = self.supply();
        let fails = match &mut supply.good {
            Some(0) => true,
            Some(good) => {
                *good -= 1;
                false
            }
            None => false,
        };
        supply.failed |= fails;
        if supply.off || fails { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }

    /// Whether what was written until now is on the platter.
    fn sync(&self) -> io::Result<bool> {
        self.step()?;
        let mut supply = self.supply();
        supply.syncs += 1;
        if supply.cut_at == Some(supply.syncs) {
            drop(supply);
            self.off();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(!supply.lies)
    }
}

/// A disk of a machine. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk {
    power: Power,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    synced: Vec<u8>,
    seen: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => write(bytes, *at, data),
            Self::Len(len) => bytes.resize(*len, 0),
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(data);
}

/// What is on the disks of a machine that is off.
#[derive(Clone, Debug, Default)]
pub struct Platter(Vec<u8>);

impl Platter {
    /// A disk with an empty database, as there is one when the log's file has its name.
    pub fn formatted() -> Self {
        Self::made(|disk| drop(redb::Builder::new().create_with_backend(disk).unwrap()))
    }

    /// A disk with what was made on it in peace.
    pub fn made(make: impl FnOnce(Disk)) -> Self {
        let disk = Disk { power: Power::default(), inner: Arc::default() };
        make(disk.clone());
        let bytes = disk.inner().seen.clone();
        Self(bytes)
    }

    /// The disk at work.
    pub fn spin(self, power: &Power) -> Disk {
        let inner = Inner { synced: self.0.clone(), seen: self.0, pending: Vec::new() };
        Disk { power: power.clone(), inner: Arc::new(Mutex::new(inner)) }
    }
}

impl Disk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the platter has after the power went: what was synced, and of the rest what chance says, sector by sector.
    pub fn after_power_cut(&self, chance: &mut Chance) -> Platter {
        let inner = self.inner();
        let mut bytes = inner.synced.clone();
        let mode = chance.below(4);
        for change in &inner.pending {
            match (mode, change) {
                (0, _) => {}
                // A file's length is metadata: journalled, and so in order with itself.
                (1, _) | (_, Change::Len(_)) => change.apply(&mut bytes),
                (_, Change::Write(at, data)) => match chance.below(4) {
                    0 => change.apply(&mut bytes),
                    1 => {
                        for (n, sector) in data.chunks(SECTOR).enumerate() {
                            if chance.once_in(2) {
                                write(&mut bytes, at + n * SECTOR, sector);
                            }
                        }
                    }
                    2 => {
                        let sectors = u64::try_from(data.len().div_ceil(SECTOR)).unwrap();
                        let whole = usize::try_from(chance.below(sectors + 1)).unwrap() * SECTOR;
                        write(&mut bytes, *at, &data[..whole.min(data.len())]);
                    }
                    _ => {}
                },
            }
        }
        Platter(bytes)
    }

    /// What the next process finds after only the last one died: the system kept what it had not written yet.
    pub fn after_kill(&self, power: &Power) -> Self {
        Self { power: power.clone(), inner: Arc::new(Mutex::new(self.inner().clone())) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.power.step()?;
        let inner = self.inner();
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(inner.seen.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.power.step()?;
        self.change(Change::Len(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.power.sync()? {
            let mut inner = self.inner();
            let pending = std::mem::take(&mut inner.pending);
            for change in &pending {
                change.apply(&mut inner.synced);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.power.step()?;
        self.change(Change::Write(usize::try_from(offset).unwrap(), data.to_vec()));
        Ok(())
    }
}

impl Disk {
    fn change(&self, change: Change) {
        let mut inner = self.inner();
        change.apply(&mut inner.seen);
        inner.pending.push(change);
    }
}
