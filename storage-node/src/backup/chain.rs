//! Reading backups: every byte of every file, before anything of them is believed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ehe::cbor;
use ehe::charter::{CHAIN_MAX_BYTES, CharterChain, VerifiedCharter};
use ehe::checkpoint::VerifiedCheckpoint;
use ehe::cose::{self, Domain};
use ehe::id::{AllianceId, Hash};
use ehe::merkle::verify_consistency;
use sha2::{Digest, Sha256};

use super::piece::{self, Begin, Kind, MAGIC, SHARD_END_MAX_BYTES, ShardEnd, VERSION};
use super::{BackupError, Statement, Unproven};
use crate::shard::{Leaves, state_of};

/// What a later backup has to know of the one before.
pub(super) struct Outline {
    pub(super) begin: Begin,
    /// SHA-256 of the file, by which the next one names it.
    pub(super) end: Hash,
    /// All chunks of all shards, wherever they lie.
    pub(super) manifest: BTreeSet<Hash>,
}

/// What a backup holds of a shard.
#[derive(Debug, Clone)]
pub struct Held {
    /// What the node signed.
    pub statement: Statement,
    /// The checkpoint that proves it; none of an empty log.
    pub checkpoint: Option<String>,
    /// That the checkpoint's log begins with what is held.
    pub proof: Vec<Hash>,
    /// Leaves that the log had by the checkpoint.
    pub known: u64,
    chunks: Vec<Hash>,
}

/// A backup, complete and verified: one file, or several of which each has what is new since the one before.
#[derive(Debug)]
pub struct Chain {
    /// Of which node, and when: the newest file's.
    pub begin: Begin,
    /// The charters that it holds.
    pub charters: Vec<VerifiedCharter>,
    /// The same, as they are handed on.
    pub charter_chain: CharterChain,
    /// Its shards.
    pub shards: BTreeMap<u16, Held>,
    files: Vec<(PathBuf, File)>,
    places: HashMap<Hash, Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    file: usize,
    at: u64,
    length: usize,
}

/// A file's pieces, one after the other; the result is what its end says, which is held against its bytes.
fn scan(path: &Path, mut each: impl FnMut(Kind, u64, Vec<u8>) -> Result<(), BackupError>) -> Result<Hash, BackupError> {
    let damaged = |why: String| BackupError::Damaged { path: path.to_owned(), why };
    let file = File::open(path).map_err(BackupError::file(path))?;
    let mut from = Hashed { from: BufReader::with_capacity(1 << 20, file), hash: Sha256::new(), bytes: 0 };
    let mut head = [0u8; MAGIC.len() + 4];
    from.read_exact(&mut head).map_err(|_| damaged("it is no backup".into()))?;
    if !head.starts_with(MAGIC) {
        return Err(damaged("it is no backup".into()));
    }
    if !head.ends_with(&VERSION.to_be_bytes()) {
        return Err(damaged("it is of another version than this program".into()));
    }
    loop {
        let before = from.hash.clone();
        let (kind, bytes) =
            piece::read(&mut from).map_err(|error| damaged(format!("it is cut off or altered ({error})")))?;
        if kind == Kind::End {
            let hash = Hash(before.finalize().into());
            let over = from.read(&mut [0]).map_err(BackupError::file(path))?;
            if bytes != hash.0 || over != 0 {
                return Err(damaged("its bytes are not those that its end says".into()));
            }
            return Ok(hash);
        }
        let at = from.bytes - bytes.len() as u64;
        each(kind, at, bytes)?;
    }
}

/// What the node signed of a shard, not verified.
pub(super) fn statement_of(end: &[u8]) -> Result<Statement, Unproven> {
    let end: ShardEnd = cbor::from_slice(end, SHARD_END_MAX_BYTES)?;
    let signed = cose::Unverified::decode(&end.signed, 1024)?;
    Ok(cbor::from_slice(signed.payload(), 1024)?)
}

/// One file, whole: what is to be known of it for the next.
pub(super) fn outline(path: &Path) -> Result<Outline, BackupError> {
    let damaged = |why: &str| BackupError::Damaged { path: path.to_owned(), why: why.into() };
    let (mut begin, mut manifest) = (None, BTreeSet::new());
    let end = scan(path, |kind, _, bytes| {
        match kind {
            Kind::Begin => {
                begin = Some(cbor::from_slice(&bytes, 1024).map_err(|_| damaged("its beginning does not decode"))?)
            }
            Kind::Manifest => manifest.extend(bytes.as_chunks::<32>().0.iter().map(|hash| Hash(*hash))),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Outline { begin: begin.ok_or_else(|| damaged("it has no beginning"))?, end, manifest })
}

impl Chain {
    /// Reads and verifies files, the full backup first. `alliance`: the id that is trusted; without one, that which the charters in the
    /// file have is believed, and has to be looked at by who asks.
    pub fn open(paths: &[PathBuf], alliance: Option<AllianceId>) -> Result<Self, BackupError> {
        let (mut files, mut places) = (Vec::new(), HashMap::new());
        let mut newest: Option<Newest> = None;
        for (number, path) in paths.iter().enumerate() {
            let read = Newest::read(path, number, &mut places)?;
            let not = |why| BackupError::NotAChain { path: path.clone(), why };
            match (&newest, read.begin.since) {
                (None, None) => {}
                (None, Some(_)) => return Err(not("it holds only what is new since another file")),
                (Some(before), Some(since)) if before.end == since => {}
                (Some(_), _) => return Err(not("it was not taken since the file before")),
            }
            if newest.as_ref().is_some_and(|before| before.begin.alliance != read.begin.alliance) {
                return Err(not("it is of another alliance"));
            }
            files.push((path.clone(), File::open(path).map_err(BackupError::file(path))?));
            newest = Some(read);
        }
        let path = paths.last().cloned().unwrap_or_default();
        let not = BackupError::NotAChain { path: path.clone(), why: "no file was named" };
        let Newest { begin, charters, shards, .. } = newest.ok_or(not)?;
        if let Some(expected) = alliance.filter(|expected| *expected != begin.alliance) {
            return Err(BackupError::OtherAlliance { found: begin.alliance, expected });
        }
        let charter_chain = CharterChain::decode(&charters)?;
        let charters = charter_chain.verify_each(begin.alliance)?;
        let mut this = Self { begin, charters, charter_chain, shards: BTreeMap::new(), files, places };
        for (end, chunks) in shards {
            let held = this.held(&end, chunks)?;
            this.shards.insert(held.statement.shard, held);
        }
        if this.shards.len() != usize::from(this.begin.shards) {
            return Err(BackupError::Damaged { path, why: "shards are missing".into() });
        }
        Ok(this)
    }

    /// Everything of one shard: the node's word, the quorum's, and that the rows are what both are about.
    fn held(&self, end: &[u8], chunks: Vec<Hash>) -> Result<Held, BackupError> {
        let shard = statement_of(end).map_or(u16::MAX, |statement| statement.shard);
        let judged = || -> Result<Held, Unproven> {
            let ShardEnd { signed, proof, checkpoint } = cbor::from_slice(end, SHARD_END_MAX_BYTES)?;
            let signed = cose::Unverified::decode(&signed, 1024)?;
            let statement: Statement = cbor::from_slice(signed.payload(), 1024)?;
            let newest = self.charters.last().ok_or(Unproven::Other("there is no charter"))?;
            let node = newest.node(statement.node).ok_or(Unproven::Other("the node is not in the charter"))?;
            signed.verify(Domain::Backup, &node.sign)?;
            if statement.alliance != self.begin.alliance || statement.node != self.begin.node {
                return Err(Unproven::Other("what the node signed is of another backup"));
            }
            if state_of(&chunks) != statement.state {
                return Err(Unproven::Other("the chunks are not those that the node signed"));
            }
            let mut leaves = Leaves::default();
            for chunk in self.chunks_of(&chunks) {
                let chunk =
                    chunk.map_err(|_| Unproven::Other("a chunk of it is in none of the files, or does not read"))?;
                leaves.pass(&chunk).map_err(|_| Unproven::Other("a chunk of it holds no rows"))?;
            }
            if leaves.end() != (statement.rows, statement.leaves, statement.root) {
                return Err(Unproven::Other("its leaves do not make the root that the node signed"));
            }
            let known = match &checkpoint {
                None if statement.leaves == 0 => 0,
                None => return Err(Unproven::Other("no checkpoint proves it")),
                Some(note) => {
                    let version = VerifiedCheckpoint::charter_of(note)?;
                    let charter = self.charters.iter().find(|charter| charter.version() == version);
                    let charter =
                        charter.ok_or(Unproven::Other("its checkpoint is under a charter that is not there"))?;
                    let verified = VerifiedCheckpoint::verify(note, statement.shard, charter)?;
                    let log = verified.checkpoint();
                    if log.origin != charter.origin(statement.shard, statement.incarnation) {
                        return Err(Unproven::Other("its checkpoint is of another incarnation"));
                    }
                    let kept = (statement.leaves, &statement.root);
                    verify_consistency(kept, (log.size, &log.root), &proof)
                        .map_err(|_| Unproven::Other("it is not the beginning of the log that a quorum cosigned"))?;
                    log.size
                }
            };
            Ok(Held { statement, checkpoint, proof, known, chunks })
        };
        judged().map_err(|why| BackupError::Unproven { shard, why })
    }

    /// The chunks of a shard's state in their order, each held against its hash.
    pub fn chunks<'a>(&'a self, held: &'a Held) -> impl Iterator<Item = io::Result<Vec<u8>>> + 'a {
        self.chunks_of(&held.chunks)
    }

    fn chunks_of<'a>(&'a self, chunks: &'a [Hash]) -> impl Iterator<Item = io::Result<Vec<u8>>> + 'a {
        chunks.iter().map(|hash| {
            let missing = || io::Error::new(io::ErrorKind::NotFound, "a chunk is in none of the files");
            let place = self.places.get(hash).ok_or_else(missing)?;
            let (_, file) = self.files.get(place.file).ok_or_else(missing)?;
            let mut bytes = vec![0; place.length];
            file.read_exact_at(&mut bytes, place.at)?;
            if Sha256::digest(&bytes).as_slice() == hash.as_bytes() {
                Ok(bytes)
            } else {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk is not what it was"))
            }
        })
    }
}

/// What the last file says of everything.
struct Newest {
    begin: Begin,
    end: Hash,
    charters: Vec<u8>,
    shards: Vec<(Vec<u8>, Vec<Hash>)>,
}

impl Newest {
    fn read(path: &Path, number: usize, places: &mut HashMap<Hash, Place>) -> Result<Self, BackupError> {
        let damaged = |why: &str| BackupError::Damaged { path: path.to_owned(), why: why.into() };
        let (mut begin, mut charters, mut shards, mut manifest) = (None, Vec::new(), Vec::new(), Vec::new());
        let end = scan(path, |kind, at, bytes| {
            match kind {
                Kind::Begin => {
                    begin = Some(cbor::from_slice(&bytes, 1024).map_err(|_| damaged("its beginning does not decode"))?);
                }
                Kind::Charters if bytes.len() <= CHAIN_MAX_BYTES => charters = bytes,
                Kind::Chunk => {
                    let hash = Hash(Sha256::digest(&bytes).into());
                    places.entry(hash).or_insert(Place { file: number, at, length: bytes.len() });
                }
                Kind::Manifest => manifest.extend(bytes.as_chunks::<32>().0.iter().map(|hash| Hash(*hash))),
                Kind::Shard => shards.push((bytes, std::mem::take(&mut manifest))),
                _ => return Err(damaged("it holds what does not belong there")),
            }
            Ok(())
        })?;
        Ok(Self { begin: begin.ok_or_else(|| damaged("it has no beginning"))?, end, charters, shards })
    }
}

/// Reads, and hashes what it read.
struct Hashed<R> {
    from: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(out)?;
        self.hash.update(out.get(..n).unwrap_or_default());
        self.bytes += n as u64;
        Ok(n)
    }
}
