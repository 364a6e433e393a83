//! A shard's whole state as a stream, read from one moment's view piece by piece; and back.
//!
//! ```text
//! "ehe-shard" ‖ format (4 bytes)
//! row:  table (1) ‖ key length (4) ‖ value length (4) ‖ key ‖ value      numbers big-endian
//! end:  0xff ‖ number of rows (8)
//! ```

use std::io::{self, Read};

use redb::{Key, ReadTransaction, ReadableTable, Table, Value};

use super::place::Place;
use super::schema::{FORMAT, META_APPLIED, META_MARKER, Marker, ReadTables, Tables};
use super::store::StoreError;

const MAGIC: &[u8] = b"ehe-shard";
const END: u8 = 0xff;
/// Bytes that are read from the file at once.
const PIECE_BYTES: usize = 256 * 1024;
/// A key or value longer than this is not one of ours.
const ROW_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Rows as bytes: key, value.
pub(super) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Up to `max_bytes` of rows after the key `after`.
pub(super) fn rows<K: Key + 'static, V: Value + 'static>(
    table: &impl ReadableTable<K, V>,
    after: Option<&[u8]>,
    max_bytes: usize,
) -> Result<Rows, StoreError> {
    use std::ops::Bound;
    let mut out = Vec::new();
    let mut bytes = 0usize;
    let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(K::from_bytes(key)));
    for row in table.range::<K::SelfType<'_>>((from, Bound::Unbounded))? {
        let (key, value) = row?;
        let key = K::as_bytes(&key.value()).as_ref().to_vec();
        let value = V::as_bytes(&value.value()).as_ref().to_vec();
        bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
        out.push((key, value));
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(out)
}

/// redb takes fixed-width bytes on trust and would panic on others.
pub(super) fn fits<K: Key + 'static, V: Value + 'static>(key: &[u8], value: &[u8]) -> bool {
    let fits = |bytes: &[u8], width: Option<usize>| width.is_none_or(|width| bytes.len() == width);
    fits(key, K::fixed_width()) && fits(value, V::fixed_width())
}

/// Inserts one exported row.
pub(super) fn put<K: Key + 'static, V: Value + 'static>(
    table: &mut Table<'_, K, V>,
    key: &[u8],
    value: &[u8],
) -> Result<(), StoreError> {
    if !fits::<K, V>(key, value) {
        return Err(StoreError::Stream("a row has the wrong width"));
    }
    table.insert(K::from_bytes(key), V::from_bytes(value))?;
    Ok(())
}

/// The stream.
pub(super) struct Export {
    tables: ReadTables,
    table: u8,
    after: Option<Vec<u8>>,
    rows: u64,
    done: bool,
    piece: Vec<u8>,
    read: usize,
}

impl Export {
    pub(super) fn new(txn: &ReadTransaction) -> Result<Self, StoreError> {
        let mut piece = MAGIC.to_vec();
        piece.extend_from_slice(&FORMAT.to_be_bytes());
        let tables = ReadTables::open(txn)?;
        Ok(Self { tables, table: 0, after: None, rows: 0, done: false, piece, read: 0 })
    }

    fn refill(&mut self) -> Result<(), StoreError> {
        self.piece.clear();
        self.read = 0;
        while self.piece.is_empty() && !self.done {
            match self.tables.export(self.table, self.after.as_deref(), PIECE_BYTES) {
                None => {
                    self.piece.push(END);
                    self.piece.extend_from_slice(&self.rows.to_be_bytes());
                    self.done = true;
                }
                Some(rows) => {
                    let rows = rows?;
                    self.after = rows.last().map(|(key, _)| key.clone());
                    if rows.is_empty() {
                        self.table += 1;
                    }
                    for (key, value) in rows {
                        // What consensus keeps is the receiver's own.
                        if self.table == 0 && key == META_APPLIED.as_bytes() {
                            continue;
                        }
                        self.rows += 1;
                        self.piece.push(self.table);
                        for part in [&key, &value] {
                            let len = u32::try_from(part.len()).map_err(|_| StoreError::Stream("a row is too long"))?;
                            self.piece.extend_from_slice(&len.to_be_bytes());
                        }
                        self.piece.extend_from_slice(&key);
                        self.piece.extend_from_slice(&value);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Read for Export {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.read == self.piece.len() {
            self.refill().map_err(io::Error::other)?;
        }
        let rest = self.piece.get(self.read..).unwrap_or_default();
        let n = rest.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.read += n;
        Ok(n)
    }
}

/// Reads a stream into empty tables.
pub(super) fn import(tables: &mut Tables<'_>, reader: &mut dyn Read) -> Result<(), StoreError> {
    each_row(reader, |table, key, value| {
        tables.import(table, key, value).ok_or(StoreError::Stream("a row is of no table"))?
    })
}

/// Whether a stream is one that [`import`] takes, and of this shard: what can be known without its place in a file.
pub(super) fn check(place: &Place, reader: &mut dyn Read) -> Result<(), StoreError> {
    let marker = Marker { format: FORMAT, alliance: place.alliance, shard: place.shard };
    let mut marked = false;
    each_row(reader, |table, key, value| {
        if !Tables::fits(table, key, value).ok_or(StoreError::Stream("a row is of no table"))? {
            return Err(StoreError::Stream("a row has the wrong width"));
        }
        if table == 0 && key == META_MARKER.as_bytes() {
            marked = value == ehe::cbor::to_vec(&marker).as_slice();
        }
        Ok(())
    })?;
    if marked { Ok(()) } else { Err(StoreError::Stream("it is not of this shard")) }
}

fn each_row(
    reader: &mut dyn Read,
    mut row: impl FnMut(u8, &[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut head = [0u8; MAGIC.len() + 4];
    reader.read_exact(&mut head)?;
    let (magic, format) = head.split_at(MAGIC.len());
    if magic != MAGIC || format != FORMAT.to_be_bytes() {
        return Err(StoreError::Stream("it is not a shard's state of this format"));
    }
    let mut rows = 0u64;
    loop {
        let mut table = [0u8; 1];
        reader.read_exact(&mut table)?;
        let [table] = table;
        if table == END {
            let mut count = [0u8; 8];
            reader.read_exact(&mut count)?;
            let whole = u64::from_be_bytes(count) == rows;
            return if whole { Ok(()) } else { Err(StoreError::Stream("rows are missing")) };
        }
        let mut lens = [[0u8; 4]; 2];
        for len in &mut lens {
            reader.read_exact(len)?;
        }
        let [key, value] = lens.map(|len| usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX));
        let [key, value] = [exactly(reader, key)?, exactly(reader, value)?];
        row(table, &key, &value)?;
        rows += 1;
    }
}

/// Reads `len` bytes; what is claimed is not allocated before it comes.
fn exactly(reader: &mut dyn Read, len: usize) -> Result<Vec<u8>, StoreError> {
    if len > ROW_MAX_BYTES {
        return Err(StoreError::Stream("a row is too long"));
    }
    let mut out = Vec::new();
    reader.take(u64::try_from(len).unwrap_or(u64::MAX)).read_to_end(&mut out)?;
    if out.len() == len { Ok(out) } else { Err(StoreError::Stream("it ends early")) }
}
