//! What this node has put its name to, for all shards, in one preallocated file: it is on disk before a signature leaves.
//!
//! ```text
//! sector 0             "ehe-cosign" ‖ version ‖ alliance ‖ node ‖ shards ‖ SHA-256 of these
//! sector 1 + 2s + p    shard ‖ write ‖ incarnation ‖ size ‖ root ‖ SHA-256 of these        p = write modulo 2
//! ```
//!
//! Sectors have 512 bytes, numbers are big-endian. The two sectors of a shard are written in turn, so a write that a crash tore
//! leaves the one before it, and nothing that was torn had been signed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use ehe::id::{AllianceId, Hash, NodeId};

const MAGIC: &[u8] = b"ehe-cosign";
const VERSION: u8 = 1;
const SECTOR: usize = 512;

/// A checkpoint as this node remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cosigned {
    /// Incarnation of the log.
    pub incarnation: u32,
    /// Leaves.
    pub size: u64,
    /// Root.
    pub root: Hash,
}

/// Why the file cannot be used, or a checkpoint is not remembered.
#[derive(Debug, thiserror::Error)]
pub enum CosignError {
    /// The file system.
    #[error("{path}: {source}; check the disk, then restart the node")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is gone though shards have leaves.
    #[error(
        "{0} is gone, and with it what this node has cosigned: put it back, or remove this node from the alliance and enrol it \
         anew under another id"
    )]
    Missing(PathBuf),
    /// Not such a file, or of another version, alliance or node, or damaged.
    #[error("{path}: {what}; put the right file back, or enrol this node anew under another id")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The checkpoint contradicts one that was cosigned.
    #[error(
        "shard {shard}: {size} leaves do not extend the {cosigned} that were cosigned; this log was rewritten or is an older copy"
    )]
    Contradicts {
        /// The shard.
        shard: u16,
        /// Size of the refused checkpoint.
        size: u64,
        /// Size of the newest one that was cosigned.
        cosigned: u64,
    },
    /// An earlier write failed; what is on disk is not known.
    #[error("an earlier write of the cosigned checkpoints failed; restart the node")]
    Stopped,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    write: u64,
    cosigned: Cosigned,
}

/// The file.
#[derive(Debug)]
pub struct CosignFile {
    file: File,
    path: PathBuf,
    shards: u16,
    newest: BTreeMap<u16, Slot>,
    stopped: bool,
}

fn sealed(mut bytes: Vec<u8>) -> [u8; SECTOR] {
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    bytes.extend_from_slice(&hash);
    let mut sector = [0u8; SECTOR];
    for (to, from) in sector.iter_mut().zip(bytes) {
        *to = from;
    }
    sector
}

fn header(alliance: AllianceId, node: NodeId, shards: u16) -> [u8; SECTOR] {
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    bytes.extend_from_slice(&alliance.0);
    bytes.extend_from_slice(&node.0);
    bytes.extend_from_slice(&shards.to_be_bytes());
    sealed(bytes)
}

fn record(shard: u16, slot: &Slot) -> [u8; SECTOR] {
    let Slot { write, cosigned } = slot;
    let mut bytes = shard.to_be_bytes().to_vec();
    bytes.extend_from_slice(&write.to_be_bytes());
    bytes.extend_from_slice(&cosigned.incarnation.to_be_bytes());
    bytes.extend_from_slice(&cosigned.size.to_be_bytes());
    bytes.extend_from_slice(&cosigned.root.0);
    sealed(bytes)
}

/// Reads a record. `None`: torn, or never written.
fn parse(shard: u16, sector: &[u8; SECTOR]) -> Option<Slot> {
    fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
        let (head, tail) = rest.split_first_chunk::<N>()?;
        *rest = tail;
        Some(*head)
    }
    let mut rest = sector.as_slice();
    let of = u16::from_be_bytes(take(&mut rest)?);
    let write = u64::from_be_bytes(take(&mut rest)?);
    let incarnation = u32::from_be_bytes(take(&mut rest)?);
    let size = u64::from_be_bytes(take(&mut rest)?);
    let slot = Slot { write, cosigned: Cosigned { incarnation, size, root: Hash(take(&mut rest)?) } };
    (of == shard && record(shard, &slot) == *sector).then_some(slot)
}

fn offset(shard: u16, write: u64) -> u64 {
    (1 + 2 * u64::from(shard) + write % 2) * SECTOR as u64
}

impl CosignFile {
    /// Opens the file. Makes it only if `may_create`: where no shard has a leaf yet.
    pub fn open(
        path: &Path,
        alliance: AllianceId,
        node: NodeId,
        shards: u16,
        may_create: bool,
    ) -> Result<Self, CosignError> {
        let io = |source| CosignError::File { path: path.to_path_buf(), source };
        if !certs::file::is_made(path).map_err(io)? {
            if !may_create {
                return Err(CosignError::Missing(path.to_path_buf()));
            }
            create(path, &header(alliance, node, shards), shards).map_err(io)?;
        }
        let file = File::options().read(true).write(true).open(path).map_err(io)?;
        let damaged = |what| CosignError::Damaged { path: path.to_path_buf(), what };
        let mut sector = [0u8; SECTOR];
        file.read_exact_at(&mut sector, 0).map_err(io)?;
        if sector != header(alliance, node, shards) {
            return Err(damaged("not this node's file of cosigned checkpoints"));
        }
        let mut newest = BTreeMap::new();
        for shard in 0..shards {
            let mut written = false;
            for write in 0..2 {
                file.read_exact_at(&mut sector, offset(shard, write)).map_err(io)?;
                written |= sector != [0; SECTOR];
                if let Some(slot) = parse(shard, &sector) {
                    let newer = newest.get(&shard).is_none_or(|known: &Slot| known.write < slot.write);
                    if newer {
                        newest.insert(shard, slot);
                    }
                }
            }
            // One torn sector with no whole one beside it can only be the very first write, and was never signed.
            let mut other = [0u8; SECTOR];
            file.read_exact_at(&mut other, offset(shard, 0)).map_err(io)?;
            if written && !newest.contains_key(&shard) && other != [0; SECTOR] {
                return Err(damaged("both records of a shard are unreadable"));
            }
        }
        Ok(Self { file, path: path.to_path_buf(), shards, newest, stopped: false })
    }

    /// The newest checkpoint of a shard that may have been signed.
    pub fn newest(&self, shard: u16) -> Option<Cosigned> {
        self.newest.get(&shard).map(|slot| slot.cosigned)
    }

    /// Remembers checkpoints, with one sync for all. Only then may they be signed. Whether a larger log extends the smaller one
    /// is the caller's to prove; that one size never has two roots is checked here too.
    pub fn persist(&mut self, checkpoints: &[(u16, Cosigned)]) -> Result<(), CosignError> {
        if self.stopped {
            return Err(CosignError::Stopped);
        }
        let mut slots = Vec::with_capacity(checkpoints.len());
        for (shard, cosigned) in checkpoints {
            let before = self.newest.get(shard);
            if let Some(Slot { cosigned: old, .. }) = before
                && (old.incarnation, old.size) >= (cosigned.incarnation, cosigned.size)
                && old != cosigned
            {
                return Err(CosignError::Contradicts { shard: *shard, size: cosigned.size, cosigned: old.size });
            }
            if *shard >= self.shards {
                return Err(CosignError::Damaged { path: self.path.clone(), what: "it has no place for this shard" });
            }
            if before.is_some_and(|slot| slot.cosigned == *cosigned) {
                continue;
            }
            slots.push((*shard, Slot { write: before.map_or(1, |slot| slot.write + 1), cosigned: *cosigned }));
        }
        if slots.is_empty() {
            return Ok(());
        }
        let written = self.write(&slots);
        if let Err(source) = written {
            // What the disk has now is not known, and a second sync would not tell (the error may have been reported already).
            self.stopped = true;
            return Err(CosignError::File { path: self.path.clone(), source });
        }
        self.newest.extend(slots);
        Ok(())
    }

    fn write(&self, slots: &[(u16, Slot)]) -> std::io::Result<()> {
        for (shard, slot) in slots {
            self.file.write_all_at(&record(*shard, slot), offset(*shard, slot.write))?;
        }
        self.file.sync_data()
    }
}

/// Preallocated and synced under another name first: the file is whole or not there.
fn create(path: &Path, header: &[u8; SECTOR], shards: u16) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let file = File::options().write(true).create(true).truncate(true).open(&new)?;
    // Written, not only sized: a later fdatasync then has no block to allocate.
    file.write_all_at(&vec![0u8; SECTOR * (1 + 2 * usize::from(shards))], 0)?;
    file.write_all_at(header, 0)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLIANCE: AllianceId = AllianceId([1; 32]);
    const NODE: NodeId = NodeId([2; 8]);

    fn open(path: &Path) -> Result<CosignFile, CosignError> {
        CosignFile::open(path, ALLIANCE, NODE, 4, true)
    }

    fn at(size: u64, root: u8) -> Cosigned {
        Cosigned { incarnation: 0, size, root: Hash([root; 32]) }
    }

    #[test]
    fn two_roots_of_one_size_and_smaller_sizes_are_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cosigned");
        let mut file = open(&path).unwrap();
        file.persist(&[(0, at(5, 1)), (3, at(7, 2))]).unwrap();
        file.persist(&[(0, at(6, 3))]).unwrap();
        for _ in 0..2 {
            assert!(matches!(file.persist(&[(0, at(6, 4))]), Err(CosignError::Contradicts { size: 6, .. })));
            assert!(matches!(file.persist(&[(0, at(5, 1))]), Err(CosignError::Contradicts { size: 5, .. })));
            file.persist(&[(0, at(6, 3))]).unwrap();
            file = open(&path).unwrap();
        }
        assert_eq!((file.newest(0), file.newest(1), file.newest(3)), (Some(at(6, 3)), None, Some(at(7, 2))));
        // A refused one takes the others of its round with it: nothing of the round is remembered or signed.
        assert!(file.persist(&[(1, at(1, 1)), (3, at(7, 9))]).is_err());
        assert_eq!(file.newest(1), None);
    }

    #[test]
    fn a_write_that_a_crash_tore_leaves_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cosigned");
        let mut file = open(&path).unwrap();
        file.persist(&[(2, at(1, 1))]).unwrap();
        file.persist(&[(2, at(2, 2))]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        file.persist(&[(2, at(3, 3))]).unwrap();
        let next = std::fs::read(&path).unwrap();
        // However much of the third write reached the disk: the second or the third is there, never anything else.
        for kept in 0..=SECTOR {
            let mut torn = whole.clone();
            let from = usize::try_from(offset(2, 3)).unwrap();
            torn[from..from + kept].copy_from_slice(&next[from..from + kept]);
            std::fs::write(&path, &torn).unwrap();
            let mut file = open(&path).unwrap();
            let found = file.newest(2).unwrap();
            assert!(found == at(2, 2) || found == at(3, 3), "{kept}: {found:?}");
            // Written but not synced counts as possibly signed: only the same may follow.
            assert!(file.persist(&[(2, Cosigned { root: Hash([9; 32]), ..found })]).is_err());
            file.persist(&[(2, at(4, 4))]).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_gone_damaged_or_another_nodes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cosigned");
        let missing = CosignFile::open(&path, ALLIANCE, NODE, 4, false).unwrap_err();
        assert!(matches!(missing, CosignError::Missing(_)) && missing.to_string().contains("put it back"));
        let mut file = open(&path).unwrap();
        for size in 1..4 {
            file.persist(&[(0, at(size, 1))]).unwrap();
        }
        assert!(CosignFile::open(&path, ALLIANCE, NodeId([3; 8]), 4, true).is_err());
        assert!(CosignFile::open(&path, ALLIANCE, NODE, 5, true).is_err());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SECTOR + 40] ^= 1;
        bytes[2 * SECTOR + 40] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(open(&path), Err(CosignError::Damaged { .. })));
    }
}
