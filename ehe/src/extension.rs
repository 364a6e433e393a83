//! Whether a log extends what was seen of it before: what a node's answer to [`Request::Extends`](crate::wire::Request::Extends)
//! proves (SPEC L4). Nobody's word counts in it: the proof shows how the larger log begins, and that is what was seen, or it is not.

use crate::id::Hash;
use crate::merkle::{self, BadProof};

/// How the larger of two logs begins, as it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// With the smaller one.
    WithIt,
    /// Otherwise: both cannot be one log. The root and the proof that were judged are what evidence of it consists of, beside the two
    /// signed checkpoints ([`Evidence::of`](crate::evidence::Evidence::of)).
    Otherwise,
}

/// Judges an answer about two logs, each by its size and root: `shown` is the root that the larger one has at the smaller one's size, as
/// `proof` shows (M3). The error: it shows nothing.
pub fn judge(
    (smaller, root): (u64, &Hash),
    larger: (u64, &Hash),
    shown: &Hash,
    proof: &[Hash],
) -> Result<Begins, BadProof> {
    merkle::verify_consistency((smaller, shown), larger, proof)?;
    Ok(if shown == root { Begins::WithIt } else { Begins::Otherwise })
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;
    use std::collections::BTreeMap;

    use super::*;
    use crate::merkle::{NodeAt, Nodes, Peaks};

    #[derive(Default)]
    struct Tree(BTreeMap<(u8, u64), Hash>);

    impl Nodes for Tree {
        type Error = Infallible;

        fn node(&self, at: NodeAt) -> Result<Hash, Infallible> {
            Ok(self.0[&(at.level, at.index)])
        }
    }

    /// The tree of `size` leaves of which those from `from` on are of another log, and its root.
    fn tree(size: u64, from: u64) -> (Tree, Hash) {
        let (mut tree, mut peaks) = (Tree::default(), Peaks::default());
        for index in 0..size {
            let leaf = merkle::leaf_hash(&[u8::try_from(index).unwrap(), u8::from(index >= from)]);
            let appended = peaks.append(leaf, |at, hash| {
                tree.0.insert((at.level, at.index), hash);
                Ok::<_, Infallible>(())
            });
            appended.unwrap();
        }
        (tree, peaks.root())
    }

    #[test]
    fn a_log_begins_with_what_was_seen_or_provably_otherwise_and_another_proof_shows_nothing() {
        for (old, new) in [(1, 2), (3, 7), (4, 5), (5, 20), (8, 16), (13, 64)] {
            let (seen, (honest, root)) = (tree(old, u64::MAX).1, tree(new, u64::MAX));
            let proof = merkle::consistency_proof(&honest, old, new).unwrap();
            assert_eq!(judge((old, &seen), (new, &root), &seen, &proof), Ok(Begins::WithIt));
            // Another log, whose own proof says how it begins.
            for from in 0..old {
                let (other, root) = tree(new, from);
                let (begins, proof) = (tree(old, from).1, merkle::consistency_proof(&other, old, new).unwrap());
                assert_eq!(judge((old, &seen), (new, &root), &begins, &proof), Ok(Begins::Otherwise));
                assert_eq!(judge((old, &seen), (new, &root), &seen, &proof), Err(BadProof), "{old} {new} {from}");
            }
            assert_eq!(judge((old, &seen), (new, &root), &Hash::ZERO, &proof), Err(BadProof));
            assert_eq!(judge((old, &seen), (new, &root), &seen, &vec![Hash::ZERO; 65]), Err(BadProof));
        }
    }
}
