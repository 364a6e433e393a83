//! The directory of evidence: what is in it, what may come in, and how it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ehe::charter::VerifiedCharter;
use ehe::evidence::{Contradiction, Evidence, EvidenceError, Finding, Verdict};
use ehe::id::{Hash, NodeId};
use ehe::limits::EVIDENCE_MAX_BYTES;
use sha2::{Digest, Sha256};

/// Files at most, of [`CONTRADICTION_MAX_BYTES`](ehe::limits::CONTRADICTION_MAX_BYTES) each: 16 MiB in all. They are held in memory too, to be
/// handed on.
const FILES_MAX: usize = 256;
/// Files that accuse one node. Of a shard in which nothing accused it before there may always be one.
const OF_A_NODE_MAX: usize = 16;
/// What a file is called while it is written.
const UNFINISHED: &str = "new";

/// A piece of evidence.
#[derive(Debug, Clone)]
pub struct Kept {
    /// SHA-256 of its bytes.
    pub hash: Hash,
    /// As it travels: an encoded [`Contradiction`].
    pub bytes: Arc<[u8]>,
    /// What it proves.
    pub verdict: Arc<Verdict>,
    /// Where it lies; `None` if it could not be written.
    pub file: Option<PathBuf>,
}

/// Why something is not kept.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// It proves nothing. Whoever told it is at fault.
    #[error("it is no evidence: {0}")]
    NoEvidence(#[from] EvidenceError),
    /// Everybody whom it accuses is accused already.
    #[error("it says nothing new")]
    NothingNew,
    /// There is too much already.
    #[error("as much evidence is kept as there may be; look at it, and move away what has been dealt with")]
    Full,
}

/// Evidence of one alliance, the oldest first.
#[derive(Debug)]
pub struct Shelf {
    dir: PathBuf,
    kept: Vec<Kept>,
}

fn name_of(hash: &Hash) -> String {
    format!("{hash}.cbor")
}

/// What lies in a directory of evidence.
#[derive(Debug, Default)]
pub struct Found {
    /// The evidence, the oldest first.
    pub kept: Vec<Kept>,
    /// Files that hold none, and why not.
    pub strange: Vec<(PathBuf, String)>,
}

/// Reads a directory of evidence, and judges it under these charters. There is nothing in one that there is not.
pub fn read(dir: &Path, charters: &[Arc<VerifiedCharter>]) -> std::io::Result<Found> {
    let entries = match fs::read_dir(dir) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Found::default()),
        entries => entries?,
    };
    let (mut found, mut strange) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            continue;
        }
        match read_one(&path, charters) {
            Ok((made, kept)) => found.push((made, kept)),
            Err(why) => strange.push((path, why)),
        }
    }
    found.sort_by_key(|(made, kept)| (*made, kept.hash));
    strange.sort();
    Ok(Found { kept: found.into_iter().map(|(_, kept)| kept).collect(), strange })
}

fn read_one(path: &Path, charters: &[Arc<VerifiedCharter>]) -> Result<(std::time::SystemTime, Kept), String> {
    let bytes = certs::file::read_public(path, EVIDENCE_MAX_BYTES, "").map_err(|why| why.to_string())?;
    if path.file_name().is_none_or(|name| name != name_of(&Hash(Sha256::digest(&bytes).into())).as_str()) {
        return Err("its name is not the hash of what it holds".into());
    }
    // What programs before this one kept had its charters with it.
    let with_charters = |_| Evidence::decode(&bytes).map(|evidence| evidence.contradiction);
    let held = Contradiction::decode(&bytes).or_else(with_charters).map_err(|why| why.to_string())?;
    let verdict = Arc::new(held.judge(charters).map_err(|why| why.to_string())?);
    let bytes = held.to_vec();
    let hash = Hash(Sha256::digest(&bytes).into());
    let made = fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(|why| why.to_string())?;
    Ok((made, Kept { hash, bytes: bytes.into(), verdict, file: Some(path.into()) }))
}

impl Shelf {
    /// Opens the directory; it is made when there is something to keep. Files that hold no evidence of the alliance of these charters are said
    /// and left alone.
    pub fn open(dir: PathBuf, charters: &[Arc<VerifiedCharter>]) -> std::io::Result<Self> {
        let found = read(&dir, charters)?;
        for (path, why) in found.strange {
            tracing::warn!(path = %path.display(), %why, "a file among the evidence is none; it is left alone");
        }
        let mut this = Self { dir, kept: Vec::new() };
        for kept in found.kept {
            if this.has_room() && !this.has(&kept.hash) {
                this.kept.push(kept);
            }
        }
        Ok(this)
    }

    /// What is kept, the oldest first.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Whether just this is kept.
    pub fn has(&self, hash: &Hash) -> bool {
        self.kept.iter().any(|kept| kept.hash == *hash)
    }

    /// Takes evidence that was judged, if it names somebody new. It is durable when this returns, unless `file` is `None`: what could
    /// not be written is kept while the program runs.
    pub fn keep(&mut self, bytes: Vec<u8>, verdict: Verdict) -> Result<Kept, NotKept> {
        self.adds(&verdict)?;
        if !self.has_room() {
            return Err(NotKept::Full);
        }
        let hash = Hash(Sha256::digest(&bytes).into());
        let file = match self.write(&hash, &bytes) {
            Ok(path) => Some(path),
            Err(error) => {
                tracing::error!(dir = %self.dir.display(), %error, "evidence cannot be written to disk; it is kept in memory alone");
                None
            }
        };
        let kept = Kept { hash, bytes: bytes.into(), verdict: Arc::new(verdict), file };
        self.kept.push(kept.clone());
        Ok(kept)
    }

    fn has_room(&self) -> bool {
        self.kept.len() < FILES_MAX
    }

    /// Whether it says of somebody what nothing kept says.
    fn adds(&self, verdict: &Verdict) -> Result<(), NotKept> {
        let strength = |verdict: &Verdict| match verdict.finding() {
            Finding::Sides => 0,
            Finding::AgainstQuorum | Finding::TwoQuorums => 1,
            Finding::SignedBoth => 2,
        };
        let accused = verdict.accused();
        let (mut known, mut in_shard) = (BTreeSet::new(), BTreeSet::new());
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        for kept in self.kept.iter().map(|kept| &*kept.verdict) {
            let theirs = kept.accused();
            theirs.iter().for_each(|node| *counts.entry(*node).or_default() += 1);
            if kept.shard != verdict.shard || strength(kept) < strength(verdict) {
                continue;
            }
            in_shard.extend(theirs.iter().copied());
            if kept.incarnation == verdict.incarnation {
                known.extend(theirs);
            }
        }
        if accused.is_subset(&known) {
            return Err(NotKept::NothingNew);
        }
        let enough = |node: &NodeId| counts.get(node).is_some_and(|count| *count >= OF_A_NODE_MAX);
        if accused.iter().all(|node| enough(node) && in_shard.contains(node)) {
            return Err(NotKept::Full);
        }
        Ok(())
    }

    fn write(&self, hash: &Hash, bytes: &[u8]) -> std::io::Result<PathBuf> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let path = self.dir.join(name_of(hash));
        let unfinished = path.with_extension(UNFINISHED);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(&self.dir)?.sync_all()?;
        // The directory's own name.
        if let Some(parent) = self.dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(path)
    }
}

#[cfg(test)]
pub(super) mod tests;
