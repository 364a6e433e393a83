//! The Merkle tree of RFC 6962 §2.1 (hashes and proofs as RFC 9162 §2.1 words them), over stored hashes of perfect subtrees.
//!
//! Appending touches only the peaks; proofs read O(log n) stored hashes. Where the hashes lie is the caller's affair.

use sha2::{Digest, Sha256};

use crate::id::Hash;
use crate::limits;

/// Hash of a leaf: SHA-256(0x00 ‖ leaf).
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0u8]);
    hash.update(leaf);
    Hash(hash.finalize().into())
}

/// Hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update([1u8]);
    hash.update(left.0);
    hash.update(right.0);
    Hash(hash.finalize().into())
}

/// A perfect subtree: `index`-th of 2^level leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAt {
    /// 0 for leaves.
    pub level: u8,
    /// Counted from the left among the subtrees of its level.
    pub index: u64,
}

/// Gives stored hashes of perfect subtrees.
pub trait Nodes {
    /// What can go wrong in the store, a missing hash included.
    type Error;
    /// The hash of a perfect subtree that is complete.
    fn node(&self, at: NodeAt) -> Result<Hash, Self::Error>;
}

/// A tree as its size and the hashes of its peaks, largest first: all that appending and the root need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peaks {
    size: u64,
    peaks: Vec<Hash>,
}

impl Peaks {
    /// The peaks of a stored tree.
    pub fn load<N: Nodes>(nodes: &N, size: u64) -> Result<Self, N::Error> {
        let mut peaks = Vec::new();
        let mut start = 0u64;
        for level in (0..64u8).rev() {
            if size >> level & 1 == 1 {
                peaks.push(nodes.node(NodeAt { level, index: start >> level })?);
                start += 1 << level;
            }
        }
        Ok(Self { size, peaks })
    }

    /// A tree of which somebody kept size and peaks; `None` if it cannot have so many.
    pub fn of(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (u32::try_from(peaks.len()) == Ok(size.count_ones())).then_some(Self { size, peaks })
    }

    /// The peaks, largest first.
    pub fn hashes(&self) -> &[Hash] {
        &self.peaks
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf hash. Calls `store` for each perfect subtree that it completes, leaf first.
    pub fn append<E>(&mut self, leaf: Hash, mut store: impl FnMut(NodeAt, Hash) -> Result<(), E>) -> Result<(), E> {
        let mut at = NodeAt { level: 0, index: self.size };
        let mut hash = leaf;
        store(at, hash)?;
        while at.index & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            at = NodeAt { level: at.level + 1, index: at.index >> 1 };
            store(at, hash)?;
        }
        self.peaks.push(hash);
        self.size += 1;
        Ok(())
    }

    /// The root; of the empty tree SHA-256 of nothing.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => Hash(Sha256::digest([]).into()),
            Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

/// Hash of the leaves `start .. start + len`, where `start` is a multiple of the next power of two of `len`.
fn range_hash<N: Nodes>(nodes: &N, start: u64, len: u64) -> Result<Hash, N::Error> {
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        return nodes.node(NodeAt { level: u8::try_from(level).unwrap_or(63), index: start >> level });
    }
    let left = split(len);
    Ok(node_hash(&range_hash(nodes, start, left)?, &range_hash(nodes, start + left, len - left)?))
}

/// The largest power of two below `len` (RFC 6962: k).
fn split(len: u64) -> u64 {
    1 << (63 - (len - 1).leading_zeros())
}

/// Inclusion proof of leaf `index` in the tree of the first `size` leaves (RFC 6962 §2.1.1), sibling of the leaf first.
/// Empty where `index` is not below `size`.
pub fn inclusion_proof<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let mut path = Vec::new();
    let (mut start, mut len) = (0, size);
    if index >= size {
        return Ok(path);
    }
    while len > 1 {
        let left = split(len);
        if index - start < left {
            path.push(range_hash(nodes, start + left, len - left)?);
            len = left;
        } else {
            path.push(range_hash(nodes, start, left)?);
            start += left;
            len -= left;
        }
    }
    path.reverse();
    Ok(path)
}

/// Consistency proof from the first `old` leaves to the first `new` (RFC 6962 §2.1.2). Empty where `old` is 0 or not below `new`.
pub fn consistency_proof<N: Nodes>(nodes: &N, old: u64, new: u64) -> Result<Vec<Hash>, N::Error> {
    let mut proof = Vec::new();
    if old == 0 || old >= new {
        return Ok(proof);
    }
    let (mut start, mut len, mut old, mut whole) = (0, new, old, true);
    // SUBPROOF(m, D[n], b), outermost first; the hashes come out reversed.
    while old != len {
        let left = split(len);
        if old <= left {
            proof.push(range_hash(nodes, start + left, len - left)?);
            len = left;
        } else {
            proof.push(range_hash(nodes, start, left)?);
            start += left;
            len -= left;
            old -= left;
            whole = false;
        }
    }
    if !whole {
        proof.push(range_hash(nodes, start, len)?);
    }
    proof.reverse();
    Ok(proof)
}

/// A proof does not show what it should. Whoever gave it, or the checkpoint, is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Merkle proof does not lead to the root")]
pub struct BadProof;

/// Verifies an inclusion proof (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), BadProof> {
    if index >= size || proof.len() > limits::PROOF_HASHES_MAX {
        return Err(BadProof);
    }
    let (mut fn_, mut sn, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if sn == 0 {
            return Err(BadProof);
        }
        if fn_ & 1 == 1 || fn_ == sn {
            hash = node_hash(sibling, &hash);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        fn_ >>= 1;
        sn >>= 1;
    }
    if sn == 0 && hash == *root { Ok(()) } else { Err(BadProof) }
}

/// Verifies that the tree of `new` leaves extends the tree of `old` leaves (RFC 9162 §2.1.4.2).
pub fn verify_consistency(
    (old, old_root): (u64, &Hash),
    (new, new_root): (u64, &Hash),
    proof: &[Hash],
) -> Result<(), BadProof> {
    if old > new || proof.len() > limits::PROOF_HASHES_MAX {
        return Err(BadProof);
    }
    if old == new {
        return if proof.is_empty() && old_root == new_root { Ok(()) } else { Err(BadProof) };
    }
    if old == 0 {
        return if proof.is_empty() && *old_root == Peaks::default().root() { Ok(()) } else { Err(BadProof) };
    }
    let mut steps = proof.iter();
    let first = if old.is_power_of_two() { old_root } else { steps.next().ok_or(BadProof)? };
    let (mut fn_, mut sn) = (old - 1, new - 1);
    while fn_ & 1 == 1 {
        fn_ >>= 1;
        sn >>= 1;
    }
    let (mut fr, mut sr) = (*first, *first);
    for step in steps {
        if sn == 0 {
            return Err(BadProof);
        }
        if fn_ & 1 == 1 || fn_ == sn {
            fr = node_hash(step, &fr);
            sr = node_hash(step, &sr);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            sr = node_hash(&sr, step);
        }
        fn_ >>= 1;
        sn >>= 1;
    }
    if sn == 0 && fr == *old_root && sr == *new_root { Ok(()) } else { Err(BadProof) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Memory(BTreeMap<NodeAt, Hash>);

    impl Nodes for Memory {
        type Error = NodeAt;
        fn node(&self, at: NodeAt) -> Result<Hash, NodeAt> {
            self.0.get(&at).copied().ok_or(at)
        }
    }

    /// RFC 6962's definition, word for word.
    fn mth(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Hash(Sha256::digest([]).into()),
            [one] => leaf_hash(one),
            _ => {
                let (left, right) = leaves.split_at(usize::try_from(split(leaves.len() as u64)).unwrap());
                node_hash(&mth(left), &mth(right))
            }
        }
    }

    fn tree(n: u64) -> (Memory, Vec<Vec<u8>>, Vec<Hash>) {
        let (mut memory, mut peaks) = (Memory::default(), Peaks::default());
        let (mut leaves, mut roots) = (Vec::new(), vec![peaks.root()]);
        for i in 0..n {
            let leaf = i.to_be_bytes().to_vec();
            peaks.append(leaf_hash(&leaf), |at, hash| memory.0.insert(at, hash).map_or(Ok(()), Err)).unwrap();
            leaves.push(leaf);
            roots.push(peaks.root());
        }
        assert_eq!(Peaks::load(&memory, n), Ok(peaks));
        (memory, leaves, roots)
    }

    #[test]
    fn roots_are_those_of_the_rfcs_definition_and_its_published_vectors() {
        let (_, leaves, roots) = tree(40);
        for (n, root) in roots.iter().enumerate() {
            assert_eq!(*root, mth(&leaves[..n]), "{n} leaves");
        }
        // Certificate Transparency's reference vectors (RFC 6962 implementations' common test tree).
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let mut peaks = Peaks::default();
        for input in inputs {
            peaks.append(leaf_hash(input), |_, _| Ok::<_, ()>(())).unwrap();
        }
        assert_eq!(peaks.root().to_string(), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
        assert_eq!(roots[0].to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn every_leaf_of_every_tree_is_proven_and_no_other_place_or_root_is() {
        let (memory, leaves, roots) = tree(33);
        for size in 1..=33u64 {
            let root = roots[usize::try_from(size).unwrap()];
            for index in 0..size {
                let leaf = leaf_hash(&leaves[usize::try_from(index).unwrap()]);
                let proof = inclusion_proof(&memory, index, size).unwrap();
                assert_eq!(verify_inclusion(&leaf, index, size, &proof, &root), Ok(()));
                assert!(verify_inclusion(&leaf, index + 1, size, &proof, &root).is_err());
                assert!(verify_inclusion(&leaf, index, size, &proof, &roots[0]).is_err());
                assert!(verify_inclusion(&leaf_hash(b"other"), index, size, &proof, &root).is_err());
                let mut longer = proof.clone();
                longer.push(root);
                assert!(verify_inclusion(&leaf, index, size, &longer, &root).is_err());
            }
        }
    }

    #[test]
    fn every_prefix_is_proven_and_a_rewritten_one_is_not() {
        let (memory, _, roots) = tree(33);
        for new in 0..=33u64 {
            for old in 0..=new {
                let (old_root, new_root) = (roots[usize::try_from(old).unwrap()], roots[usize::try_from(new).unwrap()]);
                let proof = consistency_proof(&memory, old, new).unwrap();
                assert_eq!(verify_consistency((old, &old_root), (new, &new_root), &proof), Ok(()), "{old} {new}");
                if old > 0 {
                    let rewritten = Hash([7; 32]);
                    assert!(verify_consistency((old, &rewritten), (new, &new_root), &proof).is_err());
                    assert!(verify_consistency((old, &old_root), (new, &rewritten), &proof).is_err());
                }
            }
        }
    }
}
