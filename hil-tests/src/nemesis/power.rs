//! A power cut: what a killed node had written and not synced is taken back from its files, by the undo logs of `preload/disk.c`.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Offset, bytes replaced, size before.
const HEAD: usize = 24;

/// One write that was not synced.
#[derive(Debug, PartialEq, Eq)]
struct Undo<'a> {
    offset: u64,
    replaced: &'a [u8],
    size_before: u64,
}

/// In the order of the writes. A record that is not whole is of a write that did not begin.
fn records(mut log: &[u8]) -> Vec<Undo<'_>> {
    let mut found = Vec::new();
    while let Some((head, rest)) = log.split_at_checked(HEAD) {
        let number = |at: usize| {
            let bytes = head.get(8 * at..8 * at + 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_ne_bytes(bytes.unwrap_or_default())
        };
        let length = usize::try_from(number(1)).unwrap_or(usize::MAX);
        let Some((replaced, rest)) = rest.split_at_checked(length) else { break };
        found.push(Undo { offset: number(0), replaced, size_before: number(2) });
        log = rest;
    }
    found
}

/// Takes back all but the first `kept` of the writes; of the one after those, the first `torn` bytes stay.
fn take_back(file: &File, undo: &[Undo<'_>], kept: usize, torn: u64) -> Result<()> {
    for (n, it) in undo.iter().enumerate().skip(kept).rev() {
        let left = if n == kept { torn } else { 0 };
        let from = usize::try_from(left).unwrap_or(usize::MAX).min(it.replaced.len());
        file.write_all_at(it.replaced.get(from..).unwrap_or_default(), it.offset + u64::try_from(from)?)?;
        // What a torn write had added to the file stays added.
        if left == 0 || it.offset + left <= it.size_before {
            file.set_len(it.size_before)?;
        }
    }
    Ok(file.sync_all()?)
}

/// What is below a folder, by inode.
fn files(folder: &Path, found: &mut BTreeMap<u64, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files(&entry.path(), found)?;
        } else if kind.is_file() {
            found.insert(entry.metadata()?.ino(), entry.path());
        }
    }
    Ok(())
}

/// What a power cut took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Writes that were not synced.
    pub(super) unsynced: usize,
    /// Of these, lost.
    pub(super) lost: usize,
}

/// After the node was killed. All unsynced writes are lost; with a seed, the first ones of each file had reached the disk, and the one
/// after those in part.
pub(super) fn cut(data: &Path, undo: &Path, seed: Option<u64>) -> Result<Taken> {
    let mut rng = StdRng::seed_from_u64(seed.unwrap_or(0));
    let (mut found, mut taken, all) = (BTreeMap::new(), Taken::default(), seed.is_none());
    files(data, &mut found)?;
    for (inode, path) in found {
        let log = undo.join(inode.to_string());
        let bytes = match std::fs::read(&log) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| log.display().to_string()),
        };
        let undo = records(&bytes);
        let kept = if all || undo.is_empty() { 0 } else { rng.random_range(0..=undo.len()) };
        let torn = if all { 0 } else { 512 * rng.random_range(0..8) };
        let file = File::options().write(true).open(&path).with_context(|| path.display().to_string())?;
        take_back(&file, &undo, kept, torn)?;
        taken.unsynced += undo.len();
        taken.lost += undo.len() - kept;
        std::fs::write(&log, [])?;
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, replaced: &[u8], size_before: u64) -> Vec<u8> {
        let head = [offset, u64::try_from(replaced.len()).unwrap(), size_before];
        [head.map(u64::to_ne_bytes).concat(), replaced.to_vec()].concat()
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_a_beginning_of_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (data, undo) = (folder.path().join("data"), folder.path().join("undo"));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::create_dir_all(&undo).unwrap();
        let file = data.join("log");
        // Synced: "abcdef". Then "XY" over "bc", then "Z" behind the end, then a write of which the record is not whole.
        std::fs::write(&file, "aXYdefZ").unwrap();
        let inode = std::fs::metadata(&file).unwrap().ino();
        let log = [record(1, b"bc", 6), record(6, b"", 6), record(0, b"aXYdefZ", 7)[..30].to_vec()].concat();
        assert_eq!(records(&log).len(), 2);
        let opened = File::options().write(true).open(&file).unwrap();
        take_back(&opened, &records(&log), 2, 0).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "aXYdefZ");
        take_back(&opened, &records(&log), 1, 0).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "aXYdef");
        take_back(&opened, &records(&log), 0, 1).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "aXcdef", "torn after a byte");
        std::fs::write(&file, "aXYdefZ").unwrap();
        std::fs::write(undo.join(inode.to_string()), &log).unwrap();
        assert_eq!(cut(&data, &undo, None).unwrap(), Taken { unsynced: 2, lost: 2 });
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "abcdef");
        assert_eq!(std::fs::read(undo.join(inode.to_string())).unwrap(), b"", "once");
    }

    /// Python writes as a node does: `open`, `pwrite`, `fsync`, `ftruncate`.
    const WRITES: &str = "import os, sys
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.pwrite(f, b'synced', 0)
os.fsync(f)
os.pwrite(f, b'LOST', 2)
os.ftruncate(f, 3)
os.write(f, b'X')
os.kill(os.getpid(), 9)
";

    #[test]
    fn a_program_that_was_killed_on_the_labs_disk_finds_what_it_synced_and_nothing_else_unless_the_disk_lies() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let library = super::super::preload::Preload::Disk.compile(&path).unwrap();
        let (data, undo, lies) = (path.join("data"), path.join("undo"), path.join("lies"));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::create_dir_all(&undo).unwrap();
        let file = data.join("file");
        let run = || {
            let mut python = std::process::Command::new("python3");
            python.args(["-c", WRITES]).arg(&file).env("LD_PRELOAD", &library);
            python.env("EHE_LAB_DISK", &data).env("EHE_LAB_UNDO", &undo).env("EHE_LAB_DISK_LIES", &lies);
            assert_eq!(python.status().unwrap().code(), None, "it killed itself");
        };
        run();
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "XyL",
            "a killed program's writes are in the system's memory"
        );
        assert_eq!(cut(&data, &undo, None).unwrap(), Taken { unsynced: 3, lost: 3 });
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "synced");
        std::fs::write(&lies, []).unwrap();
        std::fs::write(&file, "before").unwrap();
        run();
        assert_eq!(cut(&data, &undo, None).unwrap(), Taken { unsynced: 4, lost: 4 });
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "before");
    }
}
