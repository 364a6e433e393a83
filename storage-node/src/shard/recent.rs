//! What a shard keeps in memory for those who come right after apply: the newest leaves with the hashes above them, of which
//! receipts are made, and the rules of rooms, by which runs are checked.
//!
//! Apply writes here what it writes to the tables, and nobody else writes. All of it can be read from the tables again, and
//! whoever finds nothing here does so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ehe::id::{Hash, RoomId};
use ehe::leaf::{Leaf, Receipt};
use ehe::merkle::{self, NodeAt, Nodes, Peaks};
use ehe::room::RoomState;

/// Leaves that stay: those of many blocks, some 0.7 MiB with their hashes.
const LEAVES_KEPT: usize = 4096;
/// Levels of a tree of 2^64 leaves.
const LEVELS: u8 = 64;
/// Rooms whose rules stay decoded.
const ROOMS_KEPT: usize = 256;

/// The newest leaves of a shard. Clones are the same.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<Leaves>>);

#[derive(Default)]
struct Leaves {
    peaks: Peaks,
    /// The last leaves of the log.
    leaves: VecDeque<Leaf>,
    /// By level: the last complete subtrees.
    levels: Vec<Level>,
}

/// The last complete subtrees of a level, without gaps.
#[derive(Clone, Default)]
struct Level {
    /// Index of the first that is kept.
    first: u64,
    hashes: VecDeque<Hash>,
}

/// A hash is not kept any more, or not there yet.
struct NotKept;

impl Nodes for Leaves {
    type Error = NotKept;

    fn node(&self, at: NodeAt) -> Result<Hash, NotKept> {
        let level = self.levels.get(usize::from(at.level)).ok_or(NotKept)?;
        let place = at.index.checked_sub(level.first).and_then(|n| usize::try_from(n).ok()).ok_or(NotKept)?;
        level.hashes.get(place).copied().ok_or(NotKept)
    }
}

impl Recent {
    /// Begins at a stored tree of `size` leaves: its peaks are all that later proofs need of it.
    pub(super) fn restart<N: Nodes>(&self, tree: &N, size: u64) -> Result<(), N::Error> {
        let mut levels = Vec::with_capacity(LEVELS.into());
        for level in 0..LEVELS {
            let mut kept = Level { first: size >> level, hashes: VecDeque::new() };
            if kept.first & 1 == 1 {
                kept.first -= 1;
                kept.hashes.push_back(tree.node(NodeAt { level, index: kept.first })?);
            }
            levels.push(kept);
        }
        *self.lock() = Leaves { peaks: Peaks::load(tree, size)?, leaves: VecDeque::new(), levels };
        Ok(())
    }

    /// Adds the log's next leaf.
    pub(super) fn push(&self, leaf: Leaf, hash: Hash) {
        let Leaves { peaks, leaves, levels } = &mut *self.lock();
        let added: Result<(), std::convert::Infallible> = peaks.append(hash, |at, hash| {
            if let Some(level) = levels.get_mut(usize::from(at.level)) {
                level.hashes.push_back(hash);
                // Two more than lie above the kept leaves: the one to the left of them is their sibling.
                if level.hashes.len() > (LEAVES_KEPT >> at.level.min(63)) + 2 {
                    level.hashes.pop_front();
                    level.first += 1;
                }
            }
            Ok(())
        });
        let Ok(()) = added;
        leaves.push_back(leaf);
        if leaves.len() > LEAVES_KEPT {
            leaves.pop_front();
        }
    }

    /// The proof that an entry is among the first `log_size` leaves; none where the leaf is too old.
    pub fn receipt(&self, log_index: u64, log_size: u64, checkpoint: &str) -> Option<Receipt> {
        let recent = self.lock();
        if log_size > recent.peaks.size() {
            return None;
        }
        let first = recent.peaks.size() - u64::try_from(recent.leaves.len()).ok()?;
        let place = usize::try_from(log_index.checked_sub(first)?).ok()?;
        let leaf = recent.leaves.get(place)?.clone();
        let proof = merkle::inclusion_proof(&*recent, log_index, log_size).ok()?;
        Some(Receipt { leaf, log_index, proof, checkpoint: checkpoint.into() })
    }

    /// The proof that the first `new` leaves extend the first `old`; none where they are too far apart.
    pub fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        let recent = self.lock();
        if new > recent.peaks.size() {
            return None;
        }
        merkle::consistency_proof(&*recent, old, new).ok()
    }

    /// The root of the first `size` leaves; none where that is too long ago. Of the sizes after the last blocks it is there.
    pub fn root(&self, size: u64) -> Option<Hash> {
        let recent = self.lock();
        if size > recent.peaks.size() {
            return None;
        }
        Some(Peaks::load(&*recent, size).ok()?.root())
    }

    fn lock(&self) -> MutexGuard<'_, Leaves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rules of rooms, decoded. Clones are the same.
#[derive(Clone, Default)]
pub struct Rooms(Arc<Mutex<BTreeMap<RoomId, Arc<RoomState>>>>);

impl Rooms {
    /// A room's rules as of the last block, if they are kept.
    pub fn get(&self, room: RoomId) -> Option<Arc<RoomState>> {
        self.lock().get(&room).cloned()
    }

    pub(super) fn insert(&self, room: RoomId, state: Arc<RoomState>) {
        let mut rooms = self.lock();
        if rooms.len() >= ROOMS_KEPT && !rooms.contains_key(&room) {
            rooms.clear();
        }
        rooms.insert(room, state);
    }

    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RoomId, Arc<RoomState>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ehe::time::UnixMs;

    use super::*;

    fn leaf(n: u64) -> Leaf {
        let room = RoomId([u8::try_from(n % 251).unwrap(); 16]);
        Leaf { room, index: n, previous: Hash::ZERO, entry: Hash::ZERO, accepted_at: UnixMs(n), control: 0 }
    }

    /// All hashes of a tree.
    struct Whole(BTreeMap<NodeAt, Hash>);

    impl Whole {
        fn new(size: u64) -> Self {
            let (mut peaks, mut nodes) = (Peaks::default(), BTreeMap::new());
            for n in 0..size {
                let stored: Result<(), ()> = peaks.append(leaf(n).hash(), |at, hash| {
                    nodes.insert(at, hash);
                    Ok(())
                });
                stored.unwrap();
            }
            Self(nodes)
        }
    }

    impl Nodes for Whole {
        type Error = ();

        fn node(&self, at: NodeAt) -> Result<Hash, ()> {
            self.0.get(&at).copied().ok_or(())
        }
    }

    #[test]
    fn proofs_from_memory_are_those_of_the_whole_tree_wherever_it_was_continued() {
        let whole = Whole::new(140);
        for begun in 0..70 {
            let recent = Recent::default();
            recent.restart(&whole, begun).unwrap();
            for n in begun..140 {
                recent.push(leaf(n), leaf(n).hash());
            }
            for size in [begun + 1, 100, 127, 128, 129, 140] {
                for index in begun..size {
                    let receipt = recent.receipt(index, size, "note").unwrap();
                    assert_eq!((&receipt.leaf, receipt.log_index), (&leaf(index), index));
                    assert_eq!(
                        receipt.proof,
                        merkle::inclusion_proof(&whole, index, size).unwrap(),
                        "{begun} {index} {size}"
                    );
                }
                assert_eq!(recent.root(size), Some(Peaks::load(&whole, size).unwrap().root()), "{begun} {size}");
                for old in begun..size {
                    let proof = merkle::consistency_proof(&whole, old, size).unwrap();
                    assert_eq!(recent.consistency(old, size), Some(proof), "{begun} {old} {size}");
                }
            }
            assert!(begun == 0 || recent.receipt(begun - 1, 140, "note").is_none(), "an older leaf is not kept");
            assert!(recent.receipt(139, 141, "note").is_none() && recent.consistency(100, 141).is_none());
            assert!(recent.root(141).is_none());
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest_can_always_be_proven() {
        let size = u64::try_from(LEAVES_KEPT).unwrap() * 3 + 77;
        let whole = Whole::new(size);
        let recent = Recent::default();
        recent.restart(&whole, 0).unwrap();
        for n in 0..size {
            recent.push(leaf(n), leaf(n).hash());
        }
        let oldest = size - u64::try_from(LEAVES_KEPT).unwrap();
        for index in [oldest, oldest + 1, size - 500, size - 1] {
            let proof = merkle::inclusion_proof(&whole, index, size).unwrap();
            assert_eq!(recent.receipt(index, size, "note").map(|receipt| receipt.proof), Some(proof), "{index}");
        }
        assert!(recent.receipt(oldest - 1, size, "note").is_none());
        for after in oldest..=size {
            assert_eq!(recent.root(after), Some(Peaks::load(&whole, after).unwrap().root()), "{after}");
        }
        let kept: usize = recent.lock().levels.iter().map(|level| level.hashes.len()).sum();
        assert!(kept <= 2 * LEAVES_KEPT + 3 * usize::from(LEVELS), "{kept} hashes");
    }
}
