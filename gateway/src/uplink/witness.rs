//! What nodes signed, as far as this gateway saw it: where two of them contradict each other, that is evidence, and becomes a file.

use std::collections::VecDeque;
use std::path::PathBuf;

use ehe::charter::CharterChain;
use ehe::checkpoint::Checkpoint;
use ehe::evidence::Evidence;
use ehe::id::Hash;
use ehe::note::Note;
use sha2::{Digest, Sha256};

/// Checkpoints that are held against those that come: some of each shard that this gateway's rooms are in.
const NOTES_MAX: usize = 64;
/// Files at most.
const FILES_MAX: usize = 64;

/// Remembers signed checkpoints. Those that it is shown were verified, but for what contradicts them.
pub(super) struct Witness {
    dir: PathBuf,
    charters: CharterChain,
    notes: VecDeque<(Checkpoint, String)>,
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
    pub(super) fn new(dir: PathBuf, charters: CharterChain) -> Self {
        Self { dir, charters, notes: VecDeque::new() }
    }

    /// The charters are these now.
    pub(super) fn charters(&mut self, charters: CharterChain) {
        self.charters = charters;
    }

    /// Files of evidence that there are.
    pub(super) fn files(&self) -> usize {
        std::fs::read_dir(&self.dir).map_or(0, |entries| {
            let named =
                entries.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|it| it == "cbor"));
            named.count()
        })
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
                let evidence = Evidence::of(&self.charters, known, note, None).ok()?;
                // What proves nothing about anybody is a faulty answer and no evidence.
                evidence.judge().ok()?;
                Some(self.keep(&evidence))
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
        let evidence = Evidence::of(&self.charters, one, other, Some(begins)).ok()?;
        evidence.judge().ok()?;
        Some(self.keep(&evidence))
    }

    fn keep(&self, evidence: &Evidence) -> Kept {
        let bytes = evidence.to_vec();
        let path = self.dir.join(format!("{}.cbor", Hash(Sha256::digest(&bytes).into())));
        if path.exists() {
            return Kept::At(path);
        }
        if self.files() >= FILES_MAX {
            return Kept::Not(format!("{} holds {FILES_MAX} files already", self.dir.display()));
        }
        let written = certs::file::create_dir(&self.dir).and_then(|()| certs::file::replace(&path, &bytes));
        match written {
            Ok(()) => Kept::At(path),
            Err(why) => Kept::Not(why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ehe::checkpoint::Signer;
    use ehe::evidence::judge;
    use ehe::identity::Identity;
    use ehe::time::UnixMs;

    use super::*;
    use crate::rooms::testing::{charter, identity, node_id};

    fn note(charters: &CharterChain, node: &Identity, size: u64, root: u8) -> String {
        let charter = charters.verify(charters.claimed_alliance().unwrap()).unwrap();
        let name = &charter.node(node_id(node)).unwrap().name;
        let says = Checkpoint { origin: charter.origin(0, 0), size, root: Hash([root; 32]), charter_version: 1 };
        says.sign(Signer { name, key: node.sign_key() }, UnixMs(1_000)).unwrap().to_string()
    }

    #[test]
    fn two_roots_of_one_size_are_kept_once_and_one_root_or_another_size_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("evidence");
        let (member, node) = (identity(), identity());
        let charters = charter(&[member], &[(node.clone(), "127.0.0.1:1".into())]);
        let mut witness = Witness::new(dir.clone(), charters.clone());
        let say = |size, root| note(&charters, &node, size, root);
        for (size, root) in [(5, 1), (5, 1), (6, 2), (7, 3)] {
            assert_eq!(witness.shown(&say(size, root)), None);
        }
        let Some(Kept::At(path)) = witness.shown(&say(5, 9)) else { panic!() };
        let verdict = judge(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(verdict.accused(), [node_id(&node)].into());
        assert_eq!(witness.shown(&say(5, 9)), Some(Kept::At(path)), "the same file");
        assert_eq!(witness.files(), 1);
        // Of one who is not in the charter it proves nothing.
        assert_eq!(witness.shown(&say(6, 9).replacen("\n6\n", "\n5\n", 1)), None);
        for size in 100..300 {
            witness.shown(&say(size, 1));
        }
        assert_eq!(witness.notes.len(), NOTES_MAX);
    }
}
