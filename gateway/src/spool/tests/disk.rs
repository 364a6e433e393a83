//! A disk that loses what was not synced, or refuses one step: redb's storage seam over memory.

use std::io;
use std::sync::{Arc, Mutex};

use redb::{Database, StorageBackend};
use tokio::sync::watch;

use crate::spool::OpenDatabase;

/// What happens at the chosen step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power fails: this and every later step fails.
    Crash,
    /// This step fails with the error, later ones do not.
    Once(io::ErrorKind),
}

/// What a crash leaves of the writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    Lost,
    Kept,
    /// Each one by chance.
    Some(u64),
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Default)]
struct State {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
    step: u64,
    fault: Option<(u64, Fault)>,
    crashed: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    crashed: watch::Sender<bool>,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => bytes.resize(*length, 0),
        Change::Write(offset, data) => {
            if bytes.len() < offset + data.len() {
                bytes.resize(offset + data.len(), 0);
            }
            bytes[*offset..offset + data.len()].copy_from_slice(data);
        }
    }
}

impl Disk {
    pub(crate) fn new(image: Vec<u8>) -> Self {
        let state = State { durable: image.clone(), current: image, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), crashed: watch::Sender::new(false) }
    }

    /// The fault happens `steps` steps from now.
    pub(crate) fn fail_in(&self, steps: u64, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.fault = Some((state.step + steps, fault));
    }

    /// Whether the fault has not come yet: the scenario was shorter.
    pub(crate) fn unharmed(&self) -> bool {
        self.state.lock().unwrap().fault.is_some()
    }

    pub(crate) fn crashed(&self) -> watch::Receiver<bool> {
        self.crashed.subscribe()
    }

    /// What is found after the power is back.
    pub(crate) fn image(&self, unsynced: Unsynced) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let mut bytes = state.durable.clone();
        let mut seed = match unsynced {
            Unsynced::Some(seed) => seed | 1,
            _ => 1,
        };
        for change in &state.unsynced {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let keep = match unsynced {
                Unsynced::Lost => false,
                Unsynced::Kept => true,
                Unsynced::Some(_) => seed % 2 == 0,
            };
            if keep {
                apply(&mut bytes, change);
            }
        }
        bytes
    }

    pub(crate) fn opener(&self) -> OpenDatabase {
        let disk = self.clone();
        Box::new(move || Database::builder().set_cache_size(1 << 20).create_with_backend(disk.clone()))
    }

    fn step(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.crashed {
            return Err(io::Error::other("the power has failed"));
        }
        state.step += 1;
        match state.fault {
            Some((at, fault)) if state.step >= at => {
                state.fault = None;
                match fault {
                    Fault::Crash => {
                        state.crashed = true;
                        self.crashed.send_replace(true);
                        Err(io::Error::other("the power fails"))
                    }
                    Fault::Once(kind) => Err(kind.into()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.step()?;
        let state = self.state.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let bytes = state.current.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step()?;
        self.change(Change::Length(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step()?;
        let mut state = self.state.lock().unwrap();
        state.unsynced.clear();
        state.durable = state.current.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step()?;
        self.change(Change::Write(usize::try_from(offset).unwrap(), data.to_vec()));
        Ok(())
    }
}

impl Disk {
    fn change(&self, change: Change) {
        let mut state = self.state.lock().unwrap();
        apply(&mut state.current, &change);
        state.unsynced.push(change);
    }
}
