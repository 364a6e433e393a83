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

use redb::StorageBackend;
use redb::backends::FileBackend;
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
    #[error("{path}: {source}; check the disk and its free space, then restart the node")]
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
    /// It is another node's, whole.
    #[error(
        "{path} is node {found}'s, and the credentials are node {expected}'s: name the credentials and the data directory of one node \
         (`credentials_dir` and `data_dir` in the configuration)"
    )]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Whose the credentials are.
        expected: NodeId,
    },
    /// The checkpoint contradicts one that was cosigned.
    #[error(
        "shard {shard}: {size} leaves do not extend the {cosigned} that were cosigned; this log was rewritten or is an older copy: put back the \
         files that belong together, or remove this node from the alliance and enrol it anew under another id"
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
    // Of redb, only its seam to a disk: what fails there in tests, fails here in the same ways.
    file: Box<dyn StorageBackend>,
    path: PathBuf,
    shards: u16,
    newest: BTreeMap<u16, Slot>,
    unreadable: Vec<u16>,
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

/// Whose file it is, if this is how one begins.
fn node_of(sector: &[u8; SECTOR]) -> Option<NodeId> {
    let node = sector.get(MAGIC.len() + 1 + size_of::<AllianceId>()..)?;
    Some(NodeId(*node.first_chunk()?))
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

/// Whose file it says that it is: alliance, node, shards. Whether it is whole, opening it tells.
pub fn whose(first_sector: &[u8]) -> Option<(AllianceId, NodeId, u16)> {
    let rest = first_sector.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
    let (alliance, rest) = rest.split_first_chunk()?;
    let (node, rest) = rest.split_first_chunk()?;
    let (shards, _) = rest.split_first_chunk()?;
    Some((AllianceId(*alliance), NodeId(*node), u16::from_be_bytes(*shards)))
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
            create(path, &blank(alliance, node, shards)).map_err(io)?;
        }
        let file = File::options().read(true).write(true).open(path).map_err(io)?;
        let file = FileBackend::new(file).map_err(|e| io(std::io::Error::other(e)))?;
        Self::read(Box::new(file), path, alliance, node, shards)
    }

    /// Opens the file, as it is made, on another kind of storage: the seam for tests that fail at each step of IO.
    pub fn open_with_backend(
        backend: impl StorageBackend,
        alliance: AllianceId,
        node: NodeId,
        shards: u16,
    ) -> Result<Self, CosignError> {
        let path = Path::new("cosigned");
        let io = |source| CosignError::File { path: path.to_path_buf(), source };
        if backend.len().map_err(io)? == 0 {
            backend.write(0, &blank(alliance, node, shards)).and_then(|()| backend.sync_data()).map_err(io)?;
        }
        Self::read(Box::new(backend), path, alliance, node, shards)
    }

    fn read(
        file: Box<dyn StorageBackend>,
        path: &Path,
        alliance: AllianceId,
        node: NodeId,
        shards: u16,
    ) -> Result<Self, CosignError> {
        let io = |source| CosignError::File { path: path.to_path_buf(), source };
        let damaged = |what| CosignError::Damaged { path: path.to_path_buf(), what };
        let mut sector = [0u8; SECTOR];
        file.read(0, &mut sector).map_err(io)?;
        if let Some(found) =
            node_of(&sector).filter(|found| *found != node && sector == header(alliance, *found, shards))
        {
            return Err(CosignError::OtherNode { path: path.to_path_buf(), found, expected: node });
        }
        if sector != header(alliance, node, shards) {
            return Err(damaged("not this node's file of cosigned checkpoints"));
        }
        let mut newest = BTreeMap::new();
        let mut unreadable = Vec::new();
        for shard in 0..shards {
            let mut written = false;
            for write in 0..2 {
                file.read(offset(shard, write), &mut sector).map_err(io)?;
                written |= sector != [0; SECTOR];
                if sector != [0; SECTOR] && parse(shard, &sector).is_none() {
                    unreadable.push(shard);
                }
                if let Some(slot) = parse(shard, &sector) {
                    let newer = newest.get(&shard).is_none_or(|known: &Slot| known.write < slot.write);
                    if newer {
                        newest.insert(shard, slot);
                    }
                }
            }
            // One torn sector with no whole one beside it can only be the very first write, and was never signed.
            let mut other = [0u8; SECTOR];
            file.read(offset(shard, 0), &mut other).map_err(io)?;
            if written && !newest.contains_key(&shard) && other != [0; SECTOR] {
                return Err(damaged("both records of a shard are unreadable"));
            }
        }
        let found: Vec<_> = newest.iter().map(|(shard, slot)| (*shard, *slot)).collect();
        let this = Self { file, path: path.to_path_buf(), shards, newest, unreadable, stopped: false };
        // What was read may be in the system's memory only: written by a process that was killed, or whose sync failed. It is
        // not written again before it is signed again, so it has to be on disk from here on.
        this.write(&found).map_err(io)?;
        Ok(this)
    }

    /// The newest checkpoint of a shard that may have been signed.
    pub fn newest(&self, shard: u16) -> Option<Cosigned> {
        self.newest.get(&shard).map(|slot| slot.cosigned)
    }

    /// Shards of which one of the two records could not be read: torn by a crash before it was signed, or damaged since.
    pub fn unreadable(&self) -> impl Iterator<Item = u16> + '_ {
        self.unreadable.iter().copied()
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
            self.file.write(offset(*shard, slot.write), &record(*shard, slot))?;
        }
        self.file.sync_data()
    }
}

/// The file as it is made: written, not only sized, so that a later fdatasync has no block to allocate. A full disk is nothing to it.
fn blank(alliance: AllianceId, node: NodeId, shards: u16) -> Vec<u8> {
    let mut bytes = header(alliance, node, shards).to_vec();
    bytes.resize(SECTOR * (1 + 2 * usize::from(shards)), 0);
    bytes
}

/// Synced under another name first: the file is whole or not there.
fn create(path: &Path, blank: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let file = File::options().write(true).create(true).truncate(true).open(&new)?;
    file.write_all_at(blank, 0)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
