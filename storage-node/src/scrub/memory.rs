//! What a scrub remembers over a restart: how far it is, when it was last through, and what is wrong and not repaired yet.
//!
//! ```text
//! "ehe-scrub" ‖ version (1) ‖ CBOR ‖ SHA-256 of these
//! ```
//!
//! A small file of this node's own beside the shards'. If there is none the scrub begins anew. One that cannot be read may have said
//! that a shard is damaged: all of them are held until they were looked through.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use ehe::cbor;
use ehe::time::UnixMs;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::finding::{Finding, Remedy, What};
use super::walk::Pass;

/// Its name in the data directory.
pub(super) const SCRUB_FILE: &str = "scrub";
const MAGIC: &[u8] = b"ehe-scrub";
const VERSION: u8 = 1;
/// 256 shards with as many findings as are kept.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// A pass that went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Done {
    /// When it ended.
    #[n(0)]
    pub ended: UnixMs,
    /// How long it took.
    #[n(1)]
    pub took_ms: u64,
    /// Entries.
    #[n(2)]
    pub entries: u64,
}

/// What is remembered of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub(super) struct Kept {
    /// The pass that is under way.
    #[n(0)]
    pub(super) pass: Option<Pass>,
    /// When it began.
    #[n(1)]
    pub(super) began: UnixMs,
    /// The last one that went through.
    #[n(2)]
    pub(super) done: Option<Done>,
    /// What is wrong.
    #[n(3)]
    pub(super) open: Vec<Finding>,
    /// Entries could not be mended, though others have them: it is not the entries that are damaged.
    #[n(4)]
    pub(super) rebuild: bool,
    /// The last pass found more of what other nodes had let in than it lists.
    #[n(5)]
    pub(super) unlisted: Option<bool>,
}

impl Kept {
    /// Whether there is more to be voided than the last pass listed, all of which is void: the next pass does not wait for its time.
    pub(super) fn lists_more(&self) -> bool {
        self.unlisted == Some(true) && !self.open.iter().any(|finding| finding.what == What::Signature)
    }

    /// Why the shard must not be led from here, if so.
    pub(super) fn fenced(&self) -> Option<String> {
        self.open.iter().find(|finding| finding.fences()).map(ToString::to_string)
    }
}

/// The file.
#[derive(Debug, Clone)]
pub struct Memory {
    path: PathBuf,
    pub(super) shards: BTreeMap<u16, Kept>,
}

impl Memory {
    /// Reads what is remembered in a data directory that holds these shards.
    pub fn load(dir: &Path, shards: impl IntoIterator<Item = u16>) -> Self {
        let path = dir.join(SCRUB_FILE);
        let shards = match read(&path) {
            Ok(shards) => shards,
            Err(why) => {
                tracing::error!(path = %path.display(), %why, "what the scrub remembers cannot be read; all shards are held until they were looked through");
                let forgotten = |shard| Kept {
                    open: vec![Finding { shard, entry: None, what: What::Forgotten }],
                    ..Kept::default()
                };
                shards.into_iter().map(|shard| (shard, forgotten(shard))).collect()
            }
        };
        Self { path, shards }
    }

    /// The shards that are not to be led from here, and why: known before the node takes part in anything.
    pub fn fenced(&self) -> BTreeMap<u16, String> {
        self.shards.iter().filter_map(|(shard, kept)| Some((*shard, kept.fenced()?))).collect()
    }

    /// The shards whose state has to be taken from another node.
    pub fn to_rebuild(&self) -> Vec<u16> {
        let rebuild =
            |kept: &Kept| kept.rebuild || kept.open.iter().any(|finding| finding.what.remedy() == Remedy::Rebuild);
        self.shards.iter().filter(|(_, kept)| rebuild(kept)).map(|(shard, _)| *shard).collect()
    }

    /// A shard's state was replaced: what was found in the old one is gone with it, and it is looked through anew.
    pub fn forget(&mut self, shard: u16) {
        self.shards.remove(&shard);
    }

    /// Writes it, whole or not at all.
    pub fn save(&self) -> std::io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        bytes.extend_from_slice(&cbor::to_vec(&self.shards));
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend_from_slice(&hash);
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

/// Why the file says nothing.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("it is longer than anything that this program writes")]
    TooLong,
    #[error("it is not what this program wrote")]
    Altered,
    #[error(transparent)]
    Cbor(#[from] cbor::CborError),
}

fn read(path: &Path) -> Result<BTreeMap<u16, Kept>, Unreadable> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        file => file?.take(FILE_MAX_BYTES.saturating_add(1)),
    };
    let mut bytes = Vec::new();
    if u64::try_from(file.read_to_end(&mut bytes)?).unwrap_or(u64::MAX) > FILE_MAX_BYTES {
        return Err(Unreadable::TooLong);
    }
    let (body, hash) = bytes.split_last_chunk::<32>().ok_or(Unreadable::Altered)?;
    let right: [u8; 32] = Sha256::digest(body).into();
    let body = body.strip_prefix(MAGIC).and_then(|body| body.strip_prefix(&[VERSION])).ok_or(Unreadable::Altered)?;
    if right != *hash {
        return Err(Unreadable::Altered);
    }
    Ok(cbor::from_slice(body, body.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrub::What;

    #[test]
    fn when_all_that_is_listed_is_void_and_there_was_more_the_next_pass_does_not_wait() {
        let finding = |what| Finding { shard: 1, entry: Some(7), what };
        let kept = |open, unlisted| Kept { open, unlisted, ..Kept::default() };
        assert!(kept(vec![], Some(true)).lists_more() && kept(vec![finding(What::Entry)], Some(true)).lists_more());
        assert!(!kept(vec![finding(What::Signature)], Some(true)).lists_more(), "it waits for who leads");
        assert!(!kept(vec![], None).lists_more());
    }

    #[test]
    fn what_was_found_is_known_after_a_restart_and_a_damaged_file_holds_every_shard() {
        let dir = tempfile::tempdir().unwrap();
        let load = || Memory::load(dir.path(), [1, 2, 9]);
        let mut memory = load();
        assert!(memory.fenced().is_empty());
        let found = |shard, what| Finding { shard, entry: Some(7), what };
        let open = |finding| Kept { open: vec![finding], pass: Some(Pass::default()), ..Kept::default() };
        memory.shards.insert(1, open(found(1, What::Leaf)));
        memory.shards.insert(2, open(found(2, What::Signature)));
        memory.shards.insert(3, open(found(3, What::Tree(6))));
        memory.save().unwrap();
        let again = load();
        assert_eq!(again.shards, memory.shards);
        assert_eq!(again.fenced().into_keys().collect::<Vec<_>>(), [1, 3], "a forged entry is no fault of this disk");
        assert_eq!(again.to_rebuild(), [3]);
        let path = dir.path().join(SCRUB_FILE);
        let sound = std::fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut altered = sound.clone();
            altered[at] ^= 1;
            std::fs::write(&path, &altered).unwrap();
            assert!(load().fenced().into_keys().eq([1, 2, 9]), "byte {at}");
            std::fs::write(&path, &sound[..at]).unwrap();
            assert!(load().fenced().into_keys().eq([1, 2, 9]), "{at} bytes of it");
            assert!(load().to_rebuild().is_empty());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(load().fenced().is_empty());
    }
}
