//! A database's file opened to be looked at: what the storage library would write stays in memory, so that not a byte of the file
//! changes, not even by the repair that opening a file after a crash takes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// What is written is kept in blocks of so many bytes.
const BLOCK: usize = 4096;

/// The file, and what was written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: FileBackend,
    file_len: u64,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    len: u64,
    /// The file's length as far as it still shows through: what was cut off does not come back.
    shows: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
}

impl Overlay {
    /// Opens a file for reading alone.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let file_len = file.metadata()?.len();
        if file_len == 0 {
            // An empty one would be taken for one that is to be made.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
        }
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        let over = Over { len: file_len, shows: file_len, blocks: BTreeMap::new() };
        Ok(Self { file, file_len, over: Mutex::new(over) })
    }

    fn over(&self) -> MutexGuard<'_, Over> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the file as it is, zeros behind its end.
    fn below(&self, shows: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let there = shows.min(self.file_len).saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        match out.get_mut(..there) {
            Some(part) if there > 0 => self.file.read(offset, part),
            _ => Ok(()),
        }
    }
}

/// The blocks that a range touches: number, where the range's part of it begins and ends, where it lies in the range.
fn blocks(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let block = BLOCK as u64;
    let mut done = 0usize;
    std::iter::from_fn(move || {
        let at = offset.checked_add(u64::try_from(done).ok()?)?;
        let from = usize::try_from(at % block).ok()?;
        let now = (BLOCK - from).min(len.checked_sub(done)?);
        if now == 0 {
            return None;
        }
        let place = done;
        done += now;
        Some((at / block, from..from + now, place))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over();
        let end = offset.saturating_add(u64::try_from(out.len()).unwrap_or(u64::MAX));
        if end > over.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.below(over.shows, offset, out)?;
        for (number, part, place) in blocks(offset, out.len()) {
            let to = out.get_mut(place..place + part.len());
            if let (Some(to), Some(from)) = (to, over.blocks.get(&number).and_then(|block| block.get(part))) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over();
        over.shows = over.shows.min(len);
        if len < over.len {
            let first = len.div_ceil(BLOCK as u64);
            over.blocks.retain(|number, _| *number < first);
            let within = usize::try_from(len % BLOCK as u64).unwrap_or_default();
            if within > 0
                && let Some(rest) = over.blocks.get_mut(&(len / BLOCK as u64)).and_then(|block| block.get_mut(within..))
            {
                rest.fill(0);
            }
        }
        over.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        let end = offset.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        for (number, part, place) in blocks(offset, data.len()) {
            if !over.blocks.contains_key(&number) {
                let mut block = Box::new([0; BLOCK]);
                self.below(over.shows, number.saturating_mul(BLOCK as u64), block.as_mut_slice())?;
                over.blocks.insert(number, block);
            }
            let from = data.get(place..place + part.len());
            if let (Some(to), Some(from)) = (over.blocks.get_mut(&number).and_then(|block| block.get_mut(part)), from) {
                to.copy_from_slice(from);
            }
        }
        over.len = over.len.max(end);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // A running node holds the file; whoever looks at it meanwhile would see it change. A lock that is shared is enough against that, and a
    // file that is open for reading alone takes no other.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let write =
            (0..20_000u64, prop::collection::vec(any::<u8>(), 1..9000)).prop_map(|(at, data)| Op::Write(at, data));
        prop_oneof![3 => write, 1 => (0..30_000u64).prop_map(Op::SetLen)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_reads_as_a_file_would_that_was_written_to_and_the_file_stays(ops in prop::collection::vec(op(), 0..12)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let before: Vec<u8> = (0..15_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
            std::fs::write(&path, &before).unwrap();
            let overlay = Overlay::open(&path).unwrap();
            let mut model = before.clone();
            for op in ops {
                match op {
                    Op::Write(at, data) => {
                        let (at, end) = (usize::try_from(at).unwrap(), usize::try_from(at).unwrap() + data.len());
                        model.resize(model.len().max(end), 0);
                        model[at..end].copy_from_slice(&data);
                        overlay.write(at as u64, &data).unwrap();
                    }
                    Op::SetLen(len) => {
                        model.resize(usize::try_from(len).unwrap(), 0);
                        overlay.set_len(len).unwrap();
                    }
                }
            }
            prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
            let mut read = vec![0; model.len()];
            overlay.read(0, &mut read).unwrap();
            prop_assert!(read == model);
            let half = model.len() / 2;
            let mut read = vec![0; model.len() - half];
            overlay.read(half as u64, &mut read).unwrap();
            prop_assert!(read == model[half..]);
            prop_assert!(overlay.read(1, &mut vec![0; model.len()]).is_err(), "beyond the end");
            prop_assert!(std::fs::read(&path).unwrap() == before);
        }
    }
}
