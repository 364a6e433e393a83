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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;
    use std::sync::Arc;

    use ehe::id::AllianceId;

    use super::*;
    use crate::checkpoint::Board;
    use crate::consensus::Machine;
    use crate::shard::{ShardMachine, Store};

    fn machine(dir: &Path, shard: u16) -> ShardMachine {
        let place = Place { alliance: AllianceId([7; 32]), shard_count: NonZeroU16::new(4).unwrap(), shard };
        let store = Store::open(dir, place.alliance, shard, 1 << 20).unwrap();
        ShardMachine::new(place, store, Arc::new(Board::default())).unwrap()
    }

    /// In pieces that end anywhere.
    fn staged(machine: &ShardMachine, bytes: &[u8]) -> Result<Arrived, MachineError> {
        let mut stage = machine.stager()()?;
        bytes.chunks(7).try_for_each(|piece| stage.write(piece))?;
        stage.finish()
    }

    #[test]
    fn a_state_is_taken_whole_and_of_its_shard_or_not_at_all_and_leaves_nothing_in_the_directory() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (sender, mut receiver) = (machine(from.path(), 1), machine(to.path(), 1));
        let mut bytes = Vec::new();
        sender.snapshot().unwrap().read_to_end(&mut bytes).unwrap();

        for cut in 0..bytes.len() {
            assert!(staged(&receiver, &bytes[..cut]).is_err(), "cut at {cut}");
        }
        let other = machine(to.path(), 2);
        assert!(staged(&other, &bytes).is_err(), "it is another shard's");
        let mut wide = bytes.clone();
        // The last row's key is one byte longer than it says.
        wide.insert(bytes.len() - 10, 0);
        assert!(staged(&receiver, &wide).is_err());

        let arrived = staged(&receiver, &bytes).unwrap();
        let names =
            || std::fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names().len(), 2, "two shards' files: {:?}", names());
        receiver.adopt(arrived, b"mine").unwrap();
        assert_eq!(receiver.applied().unwrap().unwrap().0, b"mine");
        let mut again = Vec::new();
        receiver.snapshot().unwrap().read_to_end(&mut again).unwrap();
        assert_eq!(again, bytes);
    }
}
