//! The shard's Merkle tree on disk: the hashes of the leaves one after the other in rows that fill a page, and of the tree
//! above them only the levels from [`STORED_LEVEL`] on. What lies between is computed from at most 64 leaves when it is asked
//! for.

use ehe::id::Hash;
use ehe::merkle::{NodeAt, Nodes, Peaks, node_hash};
use redb::{ReadableTable, ReadableTableMetadata};

use super::schema::{Look, Tables};
use super::store::StoreError;

/// The lowest level above the leaves that is stored: subtrees of 2^6 leaves.
pub(super) const STORED_LEVEL: u8 = 6;
const HASH_BYTES: usize = 32;
/// Leaf hashes in a row: as many as fit a page beside redb's 16 bytes.
pub(super) const ROW_LEAVES: u64 = 127;

const MISSING: StoreError = StoreError::Corrupt("a hash of the Merkle tree is missing");
const OTHER: StoreError = StoreError::Corrupt("the stored Merkle tree is not that of the entries");

/// The last row of leaf hashes. It is stored when it is full, and by [`LeafTail::store`].
#[derive(Debug, Default)]
pub(super) struct LeafTail {
    row: Vec<u8>,
    /// Leaves of the tree, and how many of them the table has.
    leaves: u64,
    stored: u64,
}

impl LeafTail {
    /// The end of `leaves` leaf hashes, as the table has it.
    pub(super) fn load(tables: &impl Look, leaves: u64) -> Result<Self, StoreError> {
        let row = tables.leaves().get(leaves / ROW_LEAVES)?;
        Ok(Self { row: row.map(|row| row.value().to_vec()).unwrap_or_default(), leaves, stored: leaves })
    }

    /// Appends a leaf to the tree and to the tables. Until [`LeafTail::store`], its hash may not be among them.
    pub(super) fn append(&mut self, tables: &mut Tables<'_>, peaks: &mut Peaks, leaf: Hash) -> Result<(), StoreError> {
        let index = peaks.size();
        if index.is_multiple_of(ROW_LEAVES) {
            self.row.clear();
        }
        self.row.extend_from_slice(leaf.as_bytes());
        self.leaves = index.saturating_add(1);
        if self.leaves.is_multiple_of(ROW_LEAVES) {
            self.store(tables)?;
        }
        let nodes = &mut tables.nodes;
        peaks.append(leaf, |at, hash| {
            if at.level >= STORED_LEVEL {
                nodes.insert(node_key(at).ok_or(MISSING)?, hash.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Leaves up to which [`Tree`] can be asked.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Puts all that was appended in the tables: before the end of a transaction, and once for all its leaves.
    pub(super) fn store(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        if let Some(last) = self.leaves.checked_sub(1).filter(|_| self.stored < self.leaves) {
            tables.leaves.insert(last / ROW_LEAVES, self.row.as_slice())?;
            self.stored = self.leaves;
        }
        Ok(())
    }
}

/// Key of a stored subtree: the number of leaves when it was complete, level. So rows come in the order in which subtrees
/// become complete, and pages stay full.
fn node_key(at: NodeAt) -> Option<(u64, u8)> {
    let leaves = 1u64.checked_shl(at.level.into())?;
    Some((at.index.checked_add(1)?.checked_mul(leaves)?, at.level))
}

/// Reads a shard's tree.
pub(super) struct Tree<'a, T>(pub(super) &'a T);

impl<T: Look> Nodes for Tree<'_, T> {
    type Error = StoreError;

    fn node(&self, at: NodeAt) -> Result<Hash, StoreError> {
        if at.level >= STORED_LEVEL {
            let hash = self.0.nodes().get(node_key(at).ok_or(MISSING)?)?;
            return hash.map(|hash| Hash(*hash.value())).ok_or(MISSING);
        }
        let mut hashes = leaf_hashes(self.0, at.index << at.level, 1 << at.level)?;
        while hashes.len() > 1 {
            hashes = hashes.as_chunks().0.iter().map(|[left, right]| node_hash(left, right)).collect();
        }
        hashes.first().copied().ok_or(MISSING)
    }
}

/// A tree that is built again from its leaves, and held against the stored one on the way.
pub(super) struct Built<'a, T> {
    tables: &'a T,
    peaks: Peaks,
    /// The row of stored leaf hashes that is at hand, and its number.
    row: (u64, Vec<u8>),
    nodes: u64,
}

impl<'a, T: Look> Built<'a, T> {
    pub(super) fn new(tables: &'a T) -> Result<Self, StoreError> {
        Ok(Self { tables, peaks: Peaks::default(), row: (0, stored_row(tables, 0)?), nodes: 0 })
    }

    pub(super) fn peaks(&self) -> &Peaks {
        &self.peaks
    }

    /// A leaf that was appended.
    pub(super) fn leaf(&self, index: u64) -> Result<Hash, StoreError> {
        // What was appended was found to be what is stored.
        match in_row(&self.row, index) {
            Some(hash) => Ok(hash),
            None => Tree(self.tables).node(NodeAt { level: 0, index }),
        }
    }

    /// The next leaf.
    pub(super) fn append(&mut self, leaf: Hash) -> Result<(), StoreError> {
        let index = self.peaks.size();
        if index / ROW_LEAVES != self.row.0 {
            self.row = (index / ROW_LEAVES, stored_row(self.tables, index / ROW_LEAVES)?);
        }
        if in_row(&self.row, index) != Some(leaf) {
            return Err(OTHER);
        }
        let (tables, nodes) = (self.tables, &mut self.nodes);
        self.peaks.append(leaf, |at, hash| {
            if at.level < STORED_LEVEL {
                return Ok(());
            }
            *nodes += 1;
            let stored = tables.nodes().get(node_key(at).ok_or(MISSING)?)?;
            if stored.is_some_and(|stored| *stored.value() == hash.0) { Ok(()) } else { Err(OTHER) }
        })
    }

    /// That was the last: nothing else is stored.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        let size = self.peaks.size();
        let bytes = usize::try_from(size % ROW_LEAVES).unwrap_or(usize::MAX).saturating_mul(HASH_BYTES);
        let last = size.is_multiple_of(ROW_LEAVES) || self.row.1.len() == bytes;
        let rows = self.tables.leaves().len()?;
        let whole = last && rows == size.div_ceil(ROW_LEAVES) && self.tables.nodes().len()? == self.nodes;
        if whole { Ok(()) } else { Err(OTHER) }
    }
}

fn stored_row(tables: &impl Look, number: u64) -> Result<Vec<u8>, StoreError> {
    Ok(tables.leaves().get(number)?.map(|row| row.value().to_vec()).unwrap_or_default())
}

fn in_row((number, row): &(u64, Vec<u8>), index: u64) -> Option<Hash> {
    let place = usize::try_from(index.checked_sub(number.checked_mul(ROW_LEAVES)?)?).ok()?;
    row.as_chunks::<HASH_BYTES>().0.get(place).copied().map(Hash)
}

/// The hashes of `count` leaves from `first` on.
fn leaf_hashes(tables: &impl Look, first: u64, count: u64) -> Result<Vec<Hash>, StoreError> {
    let mut out = Vec::new();
    let end = first.saturating_add(count);
    for row in first / ROW_LEAVES..=end.saturating_sub(1) / ROW_LEAVES {
        let value = tables.leaves().get(row)?.ok_or(MISSING)?;
        let (hashes, _) = value.value().as_chunks::<HASH_BYTES>();
        let indexes = row.saturating_mul(ROW_LEAVES)..;
        let wanted = indexes.zip(hashes).filter(|(index, _)| (first..end).contains(index));
        out.extend(wanted.map(|(_, hash)| Hash(*hash)));
    }
    if u64::try_from(out.len()) == Ok(count) { Ok(out) } else { Err(MISSING) }
}
