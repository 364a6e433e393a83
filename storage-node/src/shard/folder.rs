//! Where a shard's file lies, and beside it the one that is to take its place.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;

use super::store::{OpenFile, StoreError};

/// Gives a file a place beside the shard's, and then the shard's place. The seam for tests that fail at each step of it.
pub(super) trait Folder: Send + Sync {
    /// A new file. What was begun before and took no place is gone.
    fn begin(&self, builder: &redb::Builder) -> Result<OpenFile, StoreError>;

    /// Whether there is room to go on. Some is left to those who confirm what they write: without it they would stop for good.
    fn has_room(&self) -> Result<bool, StoreError>;

    /// What was begun, and is on the disk, takes the shard's place; a crash later does not undo that.
    fn replace(&self) -> Result<(), StoreError>;

    /// What was begun is not needed.
    fn discard(&self);
}

/// A data directory, in which each shard has two names.
pub(super) struct Dir {
    dir: PathBuf,
    /// The shard's file.
    pub(super) file: PathBuf,
    incoming: PathBuf,
}

impl Dir {
    pub(super) fn new(dir: &Path, shard: u16) -> Self {
        let name = format!("shard-{shard:04}.redb");
        Self { file: dir.join(&name), incoming: dir.join(name + ".incoming"), dir: dir.into() }
    }

    /// A crash may have left what was begun.
    pub(super) fn clear(&self) -> Result<(), StoreError> {
        match std::fs::remove_file(&self.incoming) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(fault(&self.incoming)(error)),
            _ => Ok(()),
        }
    }

    /// What the directory says of its files survives a crash.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(fault(&self.dir))
    }
}

/// Options of a file that holds what patients wrote: for this user alone.
pub(super) fn private() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    options
}

/// The twentieth part of a disk, and of a large one 1 GiB, is not filled with what another node sends.
fn is_room(free_blocks: u64, blocks: u64, block_bytes: u64) -> bool {
    const LEFT_BYTES: u64 = 1 << 30;
    let bytes = |blocks: u64| blocks.saturating_mul(block_bytes);
    bytes(free_blocks) > (bytes(blocks) / 20).min(LEFT_BYTES)
}

fn fault(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::File { path: path.into(), source }
}

impl Folder for Dir {
    fn begin(&self, builder: &redb::Builder) -> Result<OpenFile, StoreError> {
        self.clear()?;
        let file = private().create_new(true).open(&self.incoming).map_err(fault(&self.incoming))?;
        OpenFile::on(builder, FileBackend::new(file)?)
    }

    fn has_room(&self) -> Result<bool, StoreError> {
        let disk = rustix::fs::statvfs(&self.dir).map_err(|error| fault(&self.dir)(error.into()))?;
        Ok(is_room(disk.f_bavail, disk.f_blocks, disk.f_frsize))
    }

    fn replace(&self) -> Result<(), StoreError> {
        std::fs::rename(&self.incoming, &self.file).map_err(fault(&self.file))?;
        self.sync()
    }

    fn discard(&self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, "a state that was not taken is left in the data directory until the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_disk_stays_free_for_what_has_to_be_written() {
        let gib = (1 << 30) / 4096;
        assert!(is_room(6, 100, 4096) && !is_room(5, 100, 4096));
        assert!(is_room(gib + 1, 1000 * gib, 4096) && !is_room(gib, 1000 * gib, 4096));
    }
}
