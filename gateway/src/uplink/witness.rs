//! What nodes signed, as far as this gateway saw it: where two of them contradict each other, that is evidence, and becomes a file.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use ehe::charter::{CharterChain, VerifiedCharter};
use ehe::checkpoint::Checkpoint;
use ehe::evidence::{Contradiction, Finding, Verdict};
use ehe::id::{Hash, NodeId};
use ehe::note::Note;
use sha2::{Digest, Sha256};

/// Checkpoints that are held against those that come: some of each shard that this gateway's rooms are in.
const NOTES_MAX: usize = 64;
/// Files at most.
const FILES_MAX: usize = 64;
/// Bytes of all of them at most: each has the alliance's charters in it, up to 16 MiB.
const FILES_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Remembers signed checkpoints. Those that it is shown were verified, but for what contradicts them.
pub(super) struct Witness {
    dir: PathBuf,
    charters: Vec<Arc<VerifiedCharter>>,
    notes: VecDeque<(Checkpoint, String)>,
    /// What the files say that were written since the start: of which shard's which incarnation, how much, of whom.
    proven: Vec<((u16, u32), Finding, BTreeSet<NodeId>)>,
}

/// A contradiction was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It lies there.
    At(PathBuf),
    /// It could not be written.
    Not(String),
}

impl Witness {
    pub(super) fn new(dir: PathBuf, charters: Vec<Arc<VerifiedCharter>>) -> Self {
        Self { dir, charters, notes: VecDeque::new(), proven: Vec::new() }
    }

    /// The charters are these now.
    pub(super) fn charters(&mut self, charters: Vec<Arc<VerifiedCharter>>) {
        self.charters = charters;
    }

    /// Files of evidence that there are.
    pub(super) fn files(&self) -> usize {
        self.lengths().len()
    }

    fn lengths(&self) -> Vec<u64> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let named =
            entries.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|it| it == "cbor"));
        named.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).collect()
    }

    /// A node showed this, signed. Where it contradicts what was shown before, both are kept as evidence, on disk when this
    /// returns.
    pub(super) fn shown(&mut self, note: &str) -> Option<Kept> {
        let parsed = Note::parse(note).ok()?;
        let says = Checkpoint::parse(&parsed).ok()?;
        let same = self.notes.iter().find(|(known, _)| known.origin == says.origin && known.size == says.size);
        match same {
            Some((known, _)) if known.root == says.root => None,
            Some((_, known)) => {
                let found = Contradiction::of(known, note, None).ok()?;
                // What proves nothing about anybody is a faulty answer and no evidence.
                let verdict = found.judge(&self.charters).ok()?;
                self.keep(found, &verdict)
            }
            None => {
                if self.notes.len() >= NOTES_MAX {
                    self.notes.pop_front();
                }
                self.notes.push_back((says, note.into()));
                None
            }
        }
    }

    /// Two signed notes of one log, of which the larger one begins otherwise, as is proven: both are kept as evidence, on disk when this
    /// returns.
    pub(super) fn rewritten(&mut self, one: &str, other: &str, begins: (Hash, Vec<Hash>)) -> Option<Kept> {
        let found = Contradiction::of(one, other, Some(begins)).ok()?;
        let verdict = found.judge(&self.charters).ok()?;
        self.keep(found, &verdict)
    }

    /// Whether a file says at least as much of everybody whom this accuses. One node can sign as many logs as it likes: those against it are not
    /// to take the room of what others sign.
    fn says_nothing_new(&self, verdict: &Verdict) -> bool {
        let as_much = |(log, finding, _): &&(_, Finding, _)| *log == log_of(verdict) && *finding >= verdict.finding();
        let known: BTreeSet<NodeId> =
            self.proven.iter().filter(as_much).flat_map(|(_, _, accused)| accused).copied().collect();
        verdict.accused().is_subset(&known)
    }

    /// With the charters in it: whoever is given the file needs no other.
    fn keep(&mut self, found: Contradiction, verdict: &Verdict) -> Option<Kept> {
        let charters = CharterChain::of(&self.charters);
        let bytes = found.with(&charters).ok()?.to_vec();
        let path = self.dir.join(format!("{}.cbor", Hash(Sha256::digest(&bytes).into())));
        if path.exists() {
            return Some(Kept::At(path));
        }
        if self.says_nothing_new(verdict) {
            return None;
        }
        let (lengths, dir) = (self.lengths(), self.dir.display());
        let all =
            lengths.iter().fold(bytes.len().try_into().unwrap_or(u64::MAX), |all: u64, one| all.saturating_add(*one));
        if lengths.len() >= FILES_MAX || all > FILES_MAX_BYTES {
            return Some(Kept::Not(format!("{dir} holds {} files already, as much as it may", lengths.len())));
        }
        let written = certs::file::create_dir(&self.dir).and_then(|()| certs::file::replace(&path, &bytes));
        if let Err(why) = written {
            return Some(Kept::Not(why.to_string()));
        }
        self.proven.push((log_of(verdict), verdict.finding(), verdict.accused()));
        Some(Kept::At(path))
    }
}

/// The log that it is about. A restoration begins another one of the shard: what was proven of the one before says nothing of that.
fn log_of(verdict: &Verdict) -> (u16, u32) {
    (verdict.shard, verdict.incarnation)
}

#[cfg(test)]
mod tests {
    use ehe::checkpoint::Signer;
    use ehe::evidence::judge;
    use ehe::identity::Identity;
    use ehe::time::UnixMs;

    use super::*;
    use crate::rooms::testing::{charter, identity, node_id};

    fn note(charters: &CharterChain, node: &Identity, incarnation: u32, (size, root): (u64, u8)) -> String {
        let charter = charters.verify(charters.claimed_alliance().unwrap()).unwrap();
        let name = &charter.node(node_id(node)).unwrap().name;
        let says =
            Checkpoint { origin: charter.origin(0, incarnation), size, root: Hash([root; 32]), charter_version: 1 };
        says.sign(Signer { name, key: node.sign_key() }, UnixMs(1_000)).unwrap().to_string()
    }

    #[test]
    fn two_roots_of_one_size_are_kept_once_and_one_root_or_another_size_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("evidence");
        let (member, node) = (identity(), identity());
        let charters = charter(&[member], &[(node.clone(), "127.0.0.1:1".into())]);
        let each = charters.verify_each(charters.claimed_alliance().unwrap()).unwrap();
        let each: Vec<_> = each.into_iter().map(Arc::new).collect();
        let mut witness = Witness::new(dir.clone(), each.clone());
        let say = |size, root| note(&charters, &node, 0, (size, root));
        for (size, root) in [(5, 1), (5, 1), (6, 2), (7, 3)] {
            assert_eq!(witness.shown(&say(size, root)), None);
        }
        let Some(Kept::At(path)) = witness.shown(&say(5, 9)) else { panic!() };
        let verdict = judge(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(verdict.accused(), [node_id(&node)].into());
        assert_eq!(witness.shown(&say(5, 9)), Some(Kept::At(path)), "the same file");
        for root in 10..100 {
            assert_eq!(witness.shown(&say(5, root)), None, "of the same node there is one");
        }
        assert_eq!(witness.files(), 1);
        // Of one who is not in the charter it proves nothing.
        assert_eq!(witness.shown(&say(6, 9).replacen("\n6\n", "\n5\n", 1)), None);
        for size in 100..300 {
            witness.shown(&say(size, 1));
        }
        assert_eq!(witness.notes.len(), NOTES_MAX);
        // Two of the log behind a restoration are another matter.
        let restored = |root| note(&charters, &node, 1, (5, root));
        assert_eq!(witness.shown(&restored(1)), None);
        let Some(Kept::At(path)) = witness.shown(&restored(2)) else { panic!() };
        std::fs::remove_file(path).unwrap();
        // Files of long chains may be few.
        let mut witness = Witness::new(dir.clone(), each);
        witness.shown(&say(299, 1));
        std::fs::File::create(dir.join("large.cbor")).unwrap().set_len(FILES_MAX_BYTES).unwrap();
        assert!(matches!(witness.shown(&say(299, 9)), Some(Kept::Not(_))));
    }
}
