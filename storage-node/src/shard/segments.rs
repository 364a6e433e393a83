//! The records of a shard as one stream of bytes, cut into rows that each fill a page of the file.
//!
//! ```text
//! row:      (record, offset) → first (2, little-endian) ‖ bytes of the stream
//!           the row begins with byte `offset` of record number `record`; `first` is where, among the row's bytes, the first
//!           record begins that begins in it, or ffff
//! stream:   record, record, …      record: length (packed) ‖ that many bytes
//! ```
//!
//! A row of its own for each record would leave a part of each page empty, the more the longer records are. Here only the last
//! row is not full; it grows. A record is found by the last row whose key is not above (record, 0), and by stepping over the
//! few records before it in that row. A record's bytes can later be overwritten by as many others: nothing moves.

use redb::{ReadableTable, Table};

use super::packed::{self, Unpack};
use super::store::StoreError;

/// Record, offset in it.
pub(super) type SegmentKey = (u64, u32);

/// Bytes of a full row: a page, less what redb puts beside one value in a leaf page (header 4, end of the value 4, key 12).
pub(super) const SEGMENT_BYTES: usize = 4096 - 4 - 4 - 12;
/// Bytes of `first`.
pub(super) const FIRST_BYTES: usize = 2;
/// No record begins in the row.
pub(super) const NONE_BEGINS: u16 = u16::MAX;
/// A longer record is not one of ours: an entry of the replicated log is smaller.
pub(super) const RECORD_MAX_BYTES: usize = 16 * 1024 * 1024;

const CORRUPT: StoreError = StoreError::Corrupt("a record of the log is not where it should be");

/// The last row, where the next record goes. It is stored when it is full, and by [`Tail::store`].
#[derive(Debug, Default)]
pub(super) struct Tail {
    key: SegmentKey,
    row: Vec<u8>,
    /// The table has less of the row.
    unstored: bool,
}

impl Tail {
    /// The stream's end, as the table has it.
    pub(super) fn load(table: &impl ReadableTable<SegmentKey, &'static [u8]>) -> Result<Self, StoreError> {
        Ok(match table.last()? {
            Some((key, row)) => Self { key: key.value(), row: row.value().to_vec(), unstored: false },
            None => Self::default(),
        })
    }

    /// Appends record number `number`. Until [`Tail::store`], its end may not be in the table.
    pub(super) fn append(
        &mut self,
        table: &mut Table<'_, SegmentKey, &'static [u8]>,
        number: u64,
        record: &[u8],
    ) -> Result<(), StoreError> {
        let mut bytes = Vec::with_capacity(record.len() + 4);
        packed::put_bytes(&mut bytes, record);
        let (mut rest, mut offset) = (bytes.as_slice(), 0u32);
        while !rest.is_empty() {
            if self.row.is_empty() || self.row.len() >= SEGMENT_BYTES {
                self.key = (number, offset);
                self.row.clear();
                self.row.extend_from_slice(&NONE_BEGINS.to_le_bytes());
            }
            if offset == 0 {
                self.begins_here();
            }
            let (now, later) = rest.split_at(rest.len().min(SEGMENT_BYTES.saturating_sub(self.row.len())));
            self.row.extend_from_slice(now);
            self.unstored = true;
            if self.row.len() >= SEGMENT_BYTES {
                self.store(table)?;
            }
            offset = offset.saturating_add(u32::try_from(now.len()).unwrap_or(u32::MAX));
            rest = later;
        }
        Ok(())
    }

    /// Puts all that was appended in the table: before the end of a transaction, and once for all its records.
    pub(super) fn store(&mut self, table: &mut Table<'_, SegmentKey, &'static [u8]>) -> Result<(), StoreError> {
        if std::mem::take(&mut self.unstored) {
            table.insert(self.key, self.row.as_slice())?;
        }
        Ok(())
    }

    fn begins_here(&mut self) {
        let at = u16::try_from(self.row.len() - FIRST_BYTES).unwrap_or(NONE_BEGINS);
        if let Some(first) = self.row.first_chunk_mut()
            && *first == NONE_BEGINS.to_le_bytes()
        {
            *first = at.to_le_bytes();
        }
    }
}

/// Reads record number `number`.
pub(super) fn read(table: &impl ReadableTable<SegmentKey, &'static [u8]>, number: u64) -> Result<Vec<u8>, StoreError> {
    let (key, row) = table.range(..=(number, 0))?.next_back().ok_or(CORRUPT)??;
    let (key, row) = (key.value(), row.value());
    let mut bytes = begin_of(key, row, number).ok_or(CORRUPT)?.to_vec();
    let mut later = None;
    loop {
        let mut unpack = Unpack(&bytes);
        if let Some(len) = unpack.number() {
            let (begin, len) = (bytes.len() - unpack.0.len(), usize::try_from(len).map_err(|_| CORRUPT)?);
            if len > RECORD_MAX_BYTES {
                return Err(CORRUPT);
            }
            if let Some(end) = begin.checked_add(len).filter(|end| *end <= bytes.len()) {
                bytes.truncate(end);
                bytes.drain(..begin);
                return Ok(bytes);
            }
        }
        // It goes on in the rows that begin within it.
        let later = match &mut later {
            Some(later) => later,
            None => later.insert(table.range((number, 1)..=(number, u32::MAX))?),
        };
        let (_, row) = later.next().ok_or(CORRUPT)??;
        bytes.extend_from_slice(row.value().get(FIRST_BYTES..).ok_or(CORRUPT)?);
    }
}

/// Reads all records in their order, and holds what finds them against where they are. Returns how many there are.
pub(super) fn walk(
    table: &impl ReadableTable<SegmentKey, &'static [u8]>,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    // The next record, and what the rows so far have of it.
    let (mut number, mut held) = (0u64, Vec::new());
    for row in table.iter()? {
        let (key, row) = row?;
        let (first, bytes) = row.value().split_first_chunk().ok_or(CORRUPT)?;
        let before = held.len();
        if bytes.is_empty() || key.value() != (number, u32::try_from(before).map_err(|_| CORRUPT)?) {
            return Err(CORRUPT);
        }
        held.extend_from_slice(bytes);
        let mut begins = (before == 0).then_some(0);
        let mut rest = Unpack(&held);
        let mut next = rest.clone();
        while let Some(record) = next.bytes() {
            each(number, record)?;
            number = number.checked_add(1).ok_or(CORRUPT)?;
            rest = next.clone();
            if !rest.0.is_empty() {
                begins = begins.or(Some(held.len() - rest.0.len() - before));
            }
        }
        let begins = begins.and_then(|at| u16::try_from(at).ok()).unwrap_or(NONE_BEGINS);
        if u16::from_le_bytes(*first) != begins || rest.0.len() > RECORD_MAX_BYTES {
            return Err(CORRUPT);
        }
        let taken = held.len() - rest.0.len();
        held.drain(..taken);
    }
    if held.is_empty() { Ok(number) } else { Err(CORRUPT) }
}

/// The bytes of a row from where record `number` begins.
pub(super) fn begin_of((record, offset): SegmentKey, row: &[u8], number: u64) -> Option<&[u8]> {
    let (first, bytes) = row.split_first_chunk()?;
    let first = u16::from_le_bytes(*first);
    let mut unpack = Unpack(bytes);
    unpack.take(usize::from(first))?;
    let begins = if offset == 0 { record } else { record.checked_add(1)? };
    for _ in begins..number {
        unpack.bytes()?;
    }
    (begins <= number && !unpack.0.is_empty()).then_some(unpack.0)
}
