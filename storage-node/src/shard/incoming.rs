//! Another node's state on its way to this one: received whole and checked before anything of this node's is touched.
//!
//! It lies in the data directory, where there is room for it, in a file without a name: whatever ends the transfer, nothing is
//! left of it.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;

use super::export;
use super::place::Place;
use super::store::StoreError;
use crate::consensus::{MachineError, Stage};

/// A stream that is being received.
pub struct Incoming {
    file: File,
    place: Place,
}

/// A stream that was received whole and is of this shard.
pub struct Arrived(File);

impl Incoming {
    pub(super) fn begin(dir: Option<&Path>, place: Place) -> Result<Self, StoreError> {
        let dir = dir.ok_or(StoreError::Stream("this store has no directory to receive one in"))?;
        let path = dir.join(format!("shard-{:04}.incoming", place.shard));
        let io = |source| StoreError::File { path: path.clone(), source };
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(io)?;
        std::fs::remove_file(&path).map_err(io)?;
        Ok(Self { file, place })
    }
}

impl Arrived {
    /// From the beginning.
    pub(super) fn reader(&mut self) -> Result<impl Read, StoreError> {
        self.0.rewind()?;
        Ok(BufReader::with_capacity(1 << 20, &self.0))
    }
}

impl Stage for Incoming {
    type Staged = Arrived;

    fn write(&mut self, piece: &[u8]) -> Result<(), MachineError> {
        self.file.write_all(piece).map_err(MachineError::new)
    }

    fn finish(self) -> Result<Arrived, MachineError> {
        let mut arrived = Arrived(self.file);
        let mut reader = arrived.reader().map_err(MachineError::new)?;
        export::check(&self.place, &mut reader).map_err(MachineError::new)?;
        drop(reader);
        Ok(arrived)
    }
}
