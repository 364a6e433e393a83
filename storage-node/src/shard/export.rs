//! A shard's whole state as a stream, read from one moment's view piece by piece; and back.
//!
//! ```text
//! "ehe-state" ‖ format (4 bytes) ‖ length (4) ‖ the newest note that a quorum signed      length 0: there is none
//! row:  table (1) ‖ key length (4) ‖ value length (4) ‖ key ‖ value                       numbers big-endian
//! end:  0xff ‖ number of rows (8)
//! ```
//!
//! Rows come table by table, and in the order of their keys.

use std::io::{self, Read};
use std::ops::Bound;
use std::sync::Arc;

use ehe::limits::CHECKPOINT_MAX_BYTES;
use redb::{CursorError, Key, ReadableTable, Table, Value};

use super::schema::{FORMAT, META_APPLIED, META_NOTE, ReadTables};
use super::store::{Moment, OpenFile, StoreError};

const MAGIC: &[u8] = b"ehe-state";
const END: u8 = 0xff;
/// What consensus keeps is this node's own, and so is what it was shown of a quorum.
pub(super) const OWN: &[&str] = &[META_APPLIED, META_NOTE];
/// Bytes that are read from the file at once.
const PIECE_BYTES: usize = 256 * 1024;
/// A key or value longer than this is not one of ours. The longest are a shard's charters, and what stands beside them.
pub(super) const ROW_MAX_BYTES: usize = ehe::limits::CHAIN_MAX_BYTES + 64;

/// Writes one row of a stream.
pub(super) fn put_row(out: &mut Vec<u8>, table: u8, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    out.push(table);
    for part in [key, value] {
        let len = u32::try_from(part.len()).map_err(|_| StoreError::Stream("a row is too long"))?;
        out.extend_from_slice(&len.to_be_bytes());
    }
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    Ok(())
}

/// Takes one row off the front: table, key, value.
pub(super) fn take_row<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8], &'a [u8]), StoreError> {
    const SHORT: StoreError = StoreError::Stream("it ends early");
    let (table, after) = rest.split_first().ok_or(SHORT)?;
    let (key, after) = length(after, ROW_MAX_BYTES)?.ok_or(SHORT)?;
    let (value, after) = length(after, ROW_MAX_BYTES)?.ok_or(SHORT)?;
    let (key, after) = after.split_at_checked(key).ok_or(SHORT)?;
    let (value, after) = after.split_at_checked(value).ok_or(SHORT)?;
    *rest = after;
    Ok((*table, key, value))
}

/// Where rows are written on their way out.
pub(super) struct Piece<'a> {
    bytes: &'a mut Vec<u8>,
    rows: u64,
    /// Keys that stay here.
    own: &'static [&'static str],
}

impl Piece<'_> {
    fn put(&mut self, table: u8, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if self.own.iter().any(|own| own.as_bytes() == key) {
            return Ok(());
        }
        put_row(self.bytes, table, key, value)?;
        self.rows += 1;
        Ok(())
    }
}

/// Writes rows after the key `after` until there is a piece of them. Returns the last one's key; none where there were no more.
pub(super) fn rows<K: Key + 'static, V: Value + 'static>(
    (number, table): (u8, &impl ReadableTable<K, V>),
    after: Option<&[u8]>,
    out: &mut Piece<'_>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(K::from_bytes(key)));
    let mut last = None;
    for row in table.range::<K::SelfType<'_>>((from, Bound::Unbounded))? {
        let (key, value) = row?;
        out.put(number, K::as_bytes(&key.value()).as_ref(), V::as_bytes(&value.value()).as_ref())?;
        if out.bytes.len() >= PIECE_BYTES {
            return Ok(Some(K::as_bytes(&key.value()).as_ref().to_vec()));
        }
        last = Some(key);
    }
    Ok(last.map(|key| K::as_bytes(&key.value()).as_ref().to_vec()))
}

/// Inserts exported rows, which all come after those that are there. redb takes bytes of fixed width, and text, on trust and would
/// panic on others.
pub(super) fn append<'r, K: Key + 'static, V: Value + 'static>(
    table: &mut Table<'_, K, V>,
    rows: impl Iterator<Item = (&'r [u8], &'r [u8])>,
) -> Result<(), StoreError> {
    let fits = |bytes: &[u8], width: Option<usize>| width.is_none_or(|width| bytes.len() == width);
    let text = K::type_name() == <&str>::type_name();
    let mut end = table.upper_bound_mut(Bound::<K::SelfType<'_>>::Unbounded)?;
    for (key, value) in rows {
        if !fits(key, K::fixed_width()) || !fits(value, V::fixed_width()) {
            return Err(StoreError::Stream("a row has the wrong width"));
        }
        if text && !key.is_ascii() {
            return Err(StoreError::Stream("a key is no name"));
        }
        match end.insert_before(K::from_bytes(key), V::from_bytes(value)) {
            Err(CursorError::UnorderedKey) => return Err(StoreError::Stream("rows are out of order")),
            other => other?,
        }
    }
    Ok(end.close()?)
}

/// Inserts one row.
#[cfg(test)]
pub(super) fn put<K: Key + 'static, V: Value + 'static>(
    table: &mut Table<'_, K, V>,
    key: &[u8],
    value: &[u8],
) -> Result<(), StoreError> {
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
    /// The file that the tables are of; let go of after them.
    _file: Arc<OpenFile>,
}

impl Export {
    /// The state of a moment, and the note that goes with it.
    pub(super) fn new(moment: &Moment, note: Option<&str>) -> Result<Self, StoreError> {
        let note = note.unwrap_or_default();
        let len = u32::try_from(note.len()).map_err(|_| StoreError::Stream("its note is too long"))?;
        let piece = [MAGIC, &FORMAT.to_be_bytes(), &len.to_be_bytes(), note.as_bytes()].concat();
        let (tables, _file) = (ReadTables::open(&moment.txn)?, Arc::clone(&moment.file));
        Ok(Self { tables, table: 0, after: None, rows: 0, done: false, piece, read: 0, _file })
    }

    fn refill(&mut self) -> Result<(), StoreError> {
        self.piece.clear();
        self.read = 0;
        while self.piece.is_empty() && !self.done {
            let own = if self.table == 0 { OWN } else { &[] };
            let mut out = Piece { bytes: &mut self.piece, rows: 0, own };
            match self.tables.export(self.table, self.after.as_deref(), &mut out) {
                None => {
                    self.piece.push(END);
                    self.piece.extend_from_slice(&self.rows.to_be_bytes());
                    self.done = true;
                }
                Some(last) => {
                    self.rows += out.rows;
                    self.after = last?;
                    if self.after.is_none() {
                        self.table += 1;
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

/// What a stream consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// First: the note, if there is one.
    Note(Option<&'a str>),
    /// A row of an exported table.
    Row { table: u8, key: &'a [u8], value: &'a [u8] },
    /// Last: so many rows there were.
    End { rows: u64 },
}

/// Takes a stream apart that comes in pieces of any length. What is claimed is not allocated before it comes.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// What came of the next item.
    held: Vec<u8>,
    begun: bool,
    rows: u64,
    ended: bool,
}

impl Parser {
    /// Gives every item that is complete with this piece.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(Item<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.held.extend_from_slice(piece);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        while let Some((item, after)) = self.next(rest)? {
            each(item)?;
            rest = after;
        }
        let taken = held.len() - rest.len();
        self.held = held;
        self.held.drain(..taken);
        Ok(())
    }

    /// Whether everything came.
    pub(super) fn finish(&self) -> Result<(), StoreError> {
        if self.ended { Ok(()) } else { Err(StoreError::Stream("it ends early")) }
    }

    /// The first item, and what follows it.
    fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(Item<'a>, &'a [u8])>, StoreError> {
        if self.ended {
            return if bytes.is_empty() {
                Ok(None)
            } else {
                Err(StoreError::Stream("it does not end where it should"))
            };
        }
        if !self.begun {
            return self.head(bytes);
        }
        let Some((table, rest)) = bytes.split_first() else { return Ok(None) };
        if *table == END {
            let Some((count, rest)) = rest.split_first_chunk() else { return Ok(None) };
            let rows = u64::from_be_bytes(*count);
            if rows != self.rows {
                return Err(StoreError::Stream("rows are missing"));
            }
            self.ended = true;
            return Ok(Some((Item::End { rows }, rest)));
        }
        let Some((key_len, rest)) = length(rest, ROW_MAX_BYTES)? else { return Ok(None) };
        let Some((value_len, rest)) = length(rest, ROW_MAX_BYTES)? else { return Ok(None) };
        let Some((key, rest)) = rest.split_at_checked(key_len) else { return Ok(None) };
        let Some((value, rest)) = rest.split_at_checked(value_len) else { return Ok(None) };
        self.rows += 1;
        Ok(Some((Item::Row { table: *table, key, value }, rest)))
    }

    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(Item<'a>, &'a [u8])>, StoreError> {
        let expected = [MAGIC, &FORMAT.to_be_bytes()].concat();
        let Some((begin, rest)) = bytes.split_at_checked(expected.len()) else { return Ok(None) };
        if begin != expected {
            return Err(StoreError::Stream("it is not a shard's state of this format"));
        }
        let Some((len, rest)) = length(rest, CHECKPOINT_MAX_BYTES)? else { return Ok(None) };
        let Some((note, rest)) = rest.split_at_checked(len) else { return Ok(None) };
        let note = std::str::from_utf8(note).map_err(|_| StoreError::Stream("its note is no text"))?;
        self.begun = true;
        Ok(Some((Item::Note((!note.is_empty()).then_some(note)), rest)))
    }
}

fn length(bytes: &[u8], max: usize) -> Result<Option<(usize, &[u8])>, StoreError> {
    let Some((len, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    if len > max { Err(StoreError::Stream("a row is too long")) } else { Ok(Some((len, rest))) }
}
