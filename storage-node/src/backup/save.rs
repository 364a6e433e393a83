//! `ehe-node backup`: takes what the node sends into a file, without what the backup before it has.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ehe::cbor;
use ehe::charter::{CharterChain, VerifiedCharter};
use ehe::id::{Hash, hex};
use sha2::{Digest, Sha256};

use super::piece::{self, Begin, Kind, MAGIC, MANIFEST_HASHES, VERSION};
use super::serve::{ASK, SOCKET};
use super::{BackupError, chain};

/// The node says something within this time: the longest is what it waits for a quorum.
const SAID_WITHIN: Duration = Duration::from_secs(180);

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Chunks of the state, and how many of them are in this file: the others are in those before.
    pub chunks: u64,
    /// See `chunks`.
    pub new_chunks: u64,
    /// Leaves of each shard.
    pub leaves: Vec<(u16, u64)>,
    /// The newest charter that the node knows.
    pub newest: VerifiedCharter,
}

/// The same, while it is not known yet where it lies.
#[derive(Debug)]
struct Received {
    bytes: u64,
    chunks: u64,
    new_chunks: u64,
    leaves: Vec<(u16, u64)>,
    charters: Vec<u8>,
}

/// Takes a backup of the node that runs on `data_dir` into `to`, a new file or a directory that it gets a name in. `since`: the file of the
/// backup before, whose chunks are not kept again. At most `bytes_per_s` are taken.
pub fn save(data_dir: &Path, to: &Path, since: Option<&Path>, bytes_per_s: u64) -> Result<Saved, BackupError> {
    let before = since.map(chain::outline).transpose()?;
    let socket = data_dir.join(SOCKET);
    let no_node = |source| BackupError::NoNode { path: socket.clone(), source };
    let mut stream = UnixStream::connect(&socket).map_err(no_node)?;
    stream.set_read_timeout(Some(SAID_WITHIN)).and_then(|()| stream.write_all(&ASK)).map_err(no_node)?;
    let mut from = BufReader::with_capacity(1 << 20, stream);

    let (kind, bytes) = piece::read(&mut from).map_err(BackupError::BrokeOff)?;
    let begin: Begin = match kind {
        Kind::Begin => decoded(&bytes)?,
        Kind::Failed => return Err(BackupError::Node(String::from_utf8_lossy(&bytes).into_owned())),
        _ => return Err(unexpected()),
    };
    if let (Some(before), Some(path)) = (&before, since)
        && before.begin.alliance != begin.alliance
    {
        return Err(BackupError::NotAChain { path: path.to_owned(), why: "it is of another alliance" });
    }
    let path =
        if to.is_dir() { to.join(format!("ehe-{}-{}.backup", hex(&begin.node.0), begin.at.0)) } else { to.to_owned() };
    if path.try_exists().map_err(BackupError::file(&path))? {
        return Err(BackupError::Exists(path));
    }
    let begin = Begin { since: before.as_ref().map(|before| before.end), ..begin };
    let known = before.map(|before| before.manifest).unwrap_or_default();
    let partial = Partial::new(&path)?;
    let written = receive(&mut from, partial.open()?, &begin, &known, bytes_per_s);
    let Received { bytes, chunks, new_chunks, leaves, charters } = written.map_err(|why| why.at(&path))?;
    let newest = CharterChain::decode(&charters)?.verify(begin.alliance)?;
    partial.name(&path)?;
    Ok(Saved { path, bytes, chunks, new_chunks, leaves, newest })
}

/// What went wrong while pieces went by.
#[derive(Debug)]
enum Broken {
    Reading(io::Error),
    Writing(io::Error),
    Said(BackupError),
}

impl Broken {
    fn at(self, path: &Path) -> BackupError {
        match self {
            Self::Reading(source) => BackupError::BrokeOff(source),
            Self::Writing(source) => BackupError::file(path)(source),
            Self::Said(why) => why,
        }
    }
}

fn receive(
    from: &mut impl io::Read,
    file: File,
    begin: &Begin,
    known: &BTreeSet<Hash>,
    bytes_per_s: u64,
) -> Result<Received, Broken> {
    let mut out = Hashing { to: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new(), bytes: 0 };
    let mut pace = Pace { since: Instant::now(), bytes: 0, bytes_per_s };
    let mut saved = Received { bytes: 0, chunks: 0, new_chunks: 0, leaves: Vec::new(), charters: Vec::new() };
    let (mut manifest, mut written): (Vec<Hash>, BTreeSet<Hash>) = (Vec::new(), BTreeSet::new());
    out.write_all(MAGIC).and_then(|()| out.write_all(&VERSION.to_be_bytes())).map_err(Broken::Writing)?;
    piece::write(&mut out, Kind::Begin, &cbor::to_vec(begin)).map_err(Broken::Writing)?;
    loop {
        let (kind, bytes) = piece::read(from).map_err(Broken::Reading)?;
        pace.took(bytes.len());
        match kind {
            Kind::Charters => {
                piece::write(&mut out, Kind::Charters, &bytes).map_err(Broken::Writing)?;
                saved.charters = bytes;
            }
            Kind::Chunk => {
                let hash = Hash(Sha256::digest(&bytes).into());
                manifest.push(hash);
                saved.chunks += 1;
                if !known.contains(&hash) && written.insert(hash) {
                    saved.new_chunks += 1;
                    piece::write(&mut out, Kind::Chunk, &bytes).map_err(Broken::Writing)?;
                }
            }
            Kind::Shard => {
                for part in manifest.chunks(MANIFEST_HASHES) {
                    let part: Vec<u8> = part.iter().flat_map(|hash| hash.0).collect();
                    piece::write(&mut out, Kind::Manifest, &part).map_err(Broken::Writing)?;
                }
                manifest.clear();
                let statement = chain::statement_of(&bytes).map_err(|_| Broken::Said(unexpected()))?;
                saved.leaves.push((statement.shard, statement.leaves));
                piece::write(&mut out, Kind::Shard, &bytes).map_err(Broken::Writing)?;
            }
            Kind::End if saved.leaves.len() == usize::from(begin.shards) => break,
            Kind::Failed => {
                return Err(Broken::Said(BackupError::Node(String::from_utf8_lossy(&bytes).into_owned())));
            }
            _ => return Err(Broken::Said(unexpected())),
        }
    }
    let end = out.hash.clone().finalize();
    piece::write(&mut out, Kind::End, &end).map_err(Broken::Writing)?;
    saved.bytes = out.bytes;
    let file = out.to.into_inner().map_err(|error| Broken::Writing(error.into_error()))?;
    file.sync_all().map_err(Broken::Writing)?;
    Ok(saved)
}

fn decoded(bytes: &[u8]) -> Result<Begin, BackupError> {
    cbor::from_slice(bytes, 1024).map_err(|_| unexpected())
}

fn unexpected() -> BackupError {
    BackupError::BrokeOff(io::Error::new(
        io::ErrorKind::InvalidData,
        "the node is of another version than this program",
    ))
}

/// Writes, and hashes what it wrote.
struct Hashing<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// No more than so many bytes a second.
struct Pace {
    since: Instant,
    bytes: u64,
    bytes_per_s: u64,
}

impl Pace {
    fn took(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let due = Duration::from_millis(self.bytes.saturating_mul(1000) / self.bytes_per_s.max(1));
        let ahead = due.saturating_sub(self.since.elapsed());
        if ahead > Duration::from_millis(20) {
            std::thread::sleep(ahead);
        }
    }
}

/// A file that has no name yet: removed unless it gets one.
struct Partial {
    path: PathBuf,
    /// What it is to be called, by which people know it.
    to: PathBuf,
}

impl Partial {
    fn new(path: &Path) -> Result<Self, BackupError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        Ok(Self { path: path.with_file_name(name), to: path.to_owned() })
    }

    fn open(&self) -> Result<File, BackupError> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path);
        file.map_err(BackupError::file(&self.to))
    }

    /// Gives it its name, unless that was taken meanwhile.
    fn name(self, path: &Path) -> Result<(), BackupError> {
        fs::hard_link(&self.path, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(path.to_owned()),
            _ => BackupError::file(path)(source),
        })?;
        fs::remove_file(&self.path).map_err(BackupError::file(&self.path))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(BackupError::file(dir))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use ehe::id::{AllianceId, NodeId};
    use ehe::time::UnixMs;

    use super::*;

    fn begin() -> Begin {
        Begin { alliance: AllianceId([1; 32]), node: NodeId([2; 8]), at: UnixMs(3), shards: 1, since: None }
    }

    /// What a node sends, up to the end of its first shard's chunks.
    fn sent() -> Vec<u8> {
        let mut sent = Vec::new();
        piece::write(&mut sent, Kind::Charters, b"charters").unwrap();
        for n in 0..40 {
            piece::write(&mut sent, Kind::Chunk, &[n; 70_000]).unwrap();
        }
        sent
    }

    #[test]
    fn a_disk_that_is_full_and_a_node_that_stops_are_told_apart_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let broken = receive(&mut sent().as_slice(), full, &begin(), &BTreeSet::new(), u64::MAX).unwrap_err();
        let said = broken.at(&dir.path().join("x")).to_string();
        assert!(said.contains("No space left"), "{said}");

        let path = dir.path().join("a.backup");
        let nowhere = dir.path().join("not-there").join("a.backup");
        let said = Partial::new(&nowhere).unwrap().open().unwrap_err().to_string();
        assert!(said.contains("a.backup: "), "what was typed: {said}");

        let partial = Partial::new(&path).unwrap();
        let broken = receive(&mut sent().as_slice(), partial.open().unwrap(), &begin(), &BTreeSet::new(), u64::MAX);
        let said = broken.unwrap_err().at(&partial.path).to_string();
        assert!(said.contains("broke off"), "{said}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(partial);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let mut failed = sent();
        piece::write(&mut failed, Kind::Failed, b"no quorum").unwrap();
        let partial = Partial::new(&path).unwrap();
        let broken = receive(&mut failed.as_slice(), partial.open().unwrap(), &begin(), &BTreeSet::new(), u64::MAX);
        assert!(matches!(broken.unwrap_err(), Broken::Said(BackupError::Node(why)) if why == "no quorum"));
    }

    #[test]
    fn what_is_taken_keeps_to_its_rate() {
        let mut pace = Pace { since: Instant::now(), bytes: 0, bytes_per_s: 1_000_000 };
        (0..10).for_each(|_| pace.took(10_000));
        assert!(pace.since.elapsed() >= Duration::from_millis(75));
    }
}
