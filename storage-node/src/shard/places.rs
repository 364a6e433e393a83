//! Where a room's entries lie in the shard's log.
//!
//! ```text
//! heads:      room → entries (packed) ‖ hash of its last leaf (32) ‖ list of the places since the last full list
//! positions:  room, n → list of the log indexes of its entries 64·n to 64·n + 63
//! list:       the first log index, then how much each is above the one before (packed numbers)
//! ```

use ehe::id::{Hash, RoomId};
use ehe::merkle::{NodeAt, Nodes};
use redb::ReadableTable;

use super::packed::{self, Unpack};
use super::schema::{Look, Tables};
use super::store::StoreError;
use super::tree::Tree;

/// Entries of a list.
const LIST_ENTRIES: u64 = 64;

const CORRUPT: StoreError = StoreError::Corrupt("a room's places do not decode");
const HOLE: StoreError = StoreError::Corrupt("a room has a hole");

/// A room's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Its entries.
    pub(super) entries: u64,
    /// The leaf hash of its last entry; zeros where it has none.
    pub(super) leaf: Hash,
    /// Log indexes of its entries since the last full list.
    open: Vec<u64>,
}

impl Head {
    /// The end of a room; of one without entries where there is no such room.
    pub(super) fn load(tables: &impl Look, room: RoomId) -> Result<Self, StoreError> {
        let Some(row) = tables.heads().get(room.as_bytes())? else {
            return Ok(Self { entries: 0, leaf: Hash::ZERO, open: Vec::new() });
        };
        let mut unpack = Unpack(row.value());
        let decoded = (unpack.number(), unpack.array(), unpack_list(unpack));
        let (Some(entries), Some(leaf), Some(open)) = decoded else { return Err(CORRUPT) };
        Ok(Self { entries, leaf: Hash(leaf), open })
    }

    /// Appends an entry and stores what changed.
    pub(super) fn append(
        mut self,
        tables: &mut Tables<'_>,
        room: RoomId,
        log_index: u64,
        leaf: Hash,
    ) -> Result<(), StoreError> {
        self.open.push(log_index);
        self.entries += 1;
        if self.entries.is_multiple_of(LIST_ENTRIES) {
            let key = (room.as_bytes(), self.entries / LIST_ENTRIES - 1);
            tables.positions.insert(key, pack_list(Vec::new(), &self.open).as_slice())?;
            self.open.clear();
        }
        self.leaf = leaf;
        tables.heads.insert(room.as_bytes(), self.to_row().as_slice())?;
        Ok(())
    }

    /// As it is stored.
    pub(super) fn to_row(&self) -> Vec<u8> {
        let mut row = Vec::new();
        packed::put(&mut row, self.entries);
        row.extend_from_slice(self.leaf.as_bytes());
        pack_list(row, &self.open)
    }

    /// Full lists of its places.
    pub(super) fn lists(&self) -> u64 {
        self.entries / LIST_ENTRIES
    }

    /// The list with entry `index` of the room and those around it, and the index of the list's first.
    fn list(&self, tables: &impl Look, room: RoomId, index: u64) -> Result<(u64, Vec<u64>), StoreError> {
        let number = index / LIST_ENTRIES;
        let first = number * LIST_ENTRIES;
        if number == self.entries / LIST_ENTRIES {
            return Ok((first, self.open.clone()));
        }
        let row = tables.positions().get((room.as_bytes(), number))?.ok_or(HOLE)?;
        Ok((first, unpack_list(Unpack(row.value())).ok_or(CORRUPT)?))
    }
}

fn pack_list(mut out: Vec<u8>, list: &[u64]) -> Vec<u8> {
    let mut before = 0;
    for at in list {
        packed::put(&mut out, at.saturating_sub(before));
        before = *at;
    }
    out
}

fn unpack_list(mut bytes: Unpack<'_>) -> Option<Vec<u64>> {
    let (mut list, mut at) = (Vec::new(), 0u64);
    while !bytes.0.is_empty() {
        at = at.checked_add(bytes.number()?)?;
        list.push(at);
    }
    Some(list)
}

/// Log index of a room's entry.
pub(super) fn position(tables: &impl Look, room: RoomId, index: u64) -> Result<Option<u64>, StoreError> {
    let head = Head::load(tables, room)?;
    if index >= head.entries {
        return Ok(None);
    }
    let (first, list) = head.list(tables, room, index)?;
    let at = usize::try_from(index - first).ok().and_then(|n| list.get(n).copied());
    at.map(Some).ok_or(HOLE)
}

/// Log indexes of a room's entry and of the one before it.
pub(super) fn around(tables: &impl Look, room: RoomId, index: u64) -> Result<(Option<u64>, u64), StoreError> {
    let head = Head::load(tables, room)?;
    let at = |index: u64| {
        if index >= head.entries {
            return Err(HOLE);
        }
        let (first, list) = head.list(tables, room, index)?;
        usize::try_from(index - first).ok().and_then(|n| list.get(n).copied()).ok_or(HOLE)
    };
    Ok((index.checked_sub(1).map(at).transpose()?, at(index)?))
}

/// Whether the rooms' ends are those of their last entries, and their entries are `leaves` together. That each entry is where its room
/// says is asked of [`around`].
pub(super) fn ends(tables: &impl Look, leaves: u64) -> Result<(), StoreError> {
    let mut entries = 0u64;
    for row in tables.heads().iter()? {
        let (key, _) = row?;
        let room = RoomId(*key.value());
        let head = Head::load(tables, room)?;
        let last = head.entries.checked_sub(1).ok_or(HOLE)?;
        let last = position(tables, room, last)?.ok_or(HOLE)?;
        if Tree(tables).node(NodeAt { level: 0, index: last })? != head.leaf {
            return Err(CORRUPT);
        }
        entries = entries.saturating_add(head.entries);
    }
    if entries == leaves { Ok(()) } else { Err(HOLE) }
}

/// Places in the room and log indexes of its entries from `from` on that lie below `log_size`, at most `max` of them.
pub(super) fn positions(
    tables: &impl Look,
    room: RoomId,
    from: u64,
    log_size: u64,
    max: usize,
) -> Result<Vec<(u64, u64)>, StoreError> {
    let head = Head::load(tables, room)?;
    let (mut out, mut next) = (Vec::new(), from);
    while next < head.entries && out.len() < max {
        let (first, list) = head.list(tables, room, next)?;
        let before = next;
        for (index, at) in (first..).zip(list).filter(|(index, _)| *index >= before).take(max - out.len()) {
            if at >= log_size {
                return Ok(out);
            }
            out.push((index, at));
            next = index + 1;
        }
        if next == before {
            return Err(HOLE);
        }
    }
    Ok(out)
}

/// The last entry of a room among the first `log_size` leaves: (place in the room, log index).
pub(super) fn last(tables: &impl Look, room: RoomId, log_size: u64) -> Result<Option<(u64, u64)>, StoreError> {
    let head = Head::load(tables, room)?;
    let mut end = head.entries;
    while let Some(newest) = end.checked_sub(1) {
        let (first, list) = head.list(tables, room, newest)?;
        if let Some(found) = (first..).zip(list).filter(|(_, at)| *at < log_size).last() {
            return Ok(Some(found));
        }
        end = first;
    }
    Ok(None)
}
