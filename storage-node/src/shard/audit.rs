//! What the tables hold, as it lies there: for whoever checks that it is what was written ([`crate::scrub`]).
//!
//! The readers of this folder look up what they need and step over the rest. Here every byte of a row is looked at, so that none
//! can be altered unseen.

use redb::{ReadableTable, ReadableTableMetadata};

use ehe::id::{AuthorId, EheId, Hash, RoomId, StrandId, WrapId};
use ehe::merkle::Peaks;
use ehe::room::{RoomState, WrapFact};
use ehe::run::StrandEnd;
use ehe::time::Hour;

use super::entry::{Entry, Names, is_whole};
use super::known;
use super::places::Head;
use super::record::{Record, Seen, What};
use super::replay::control_at;
use super::segments::{self, FIRST_BYTES, NONE_BEGINS, RECORD_MAX_BYTES, SEGMENT_BYTES, SegmentKey};
use super::store::{StoreError, check_marker};
use super::tree::{ROW_LEAVES, STORED_LEVEL, Tree};
use super::view::{View, stored_wrap};

const STREAM: StoreError = StoreError::Corrupt("a record of the log is not where it should be");
const RECORD: StoreError = StoreError::Corrupt("an entry of the log does not decode");

/// Roots of checkpoints that runs name, while they are looked up again and again.
pub(crate) type Roots = std::collections::BTreeMap<u64, Hash>;
/// As many of them are kept.
const ROOTS_KEPT: usize = 4096;

/// The log's records one after the other. Every byte of their rows is accounted for, but for the row in which it begins: of that
/// the part before the first record that was asked for.
pub(crate) struct Records<'v> {
    rows: redb::Range<'v, SegmentKey, &'static [u8]>,
    key: SegmentKey,
    row: Vec<u8>,
    /// Taken of the row, `first` included.
    at: usize,
    /// What `first` has to say, as far as the row was read; `None` where it was entered in the middle.
    first: Option<u16>,
    /// The record that comes next, and how many bytes of it are taken.
    next: SegmentKey,
}

impl<'v> Records<'v> {
    /// From record number `from` on, which has to be there unless it is the first.
    pub(crate) fn from(view: &'v View, from: u64) -> Result<Self, StoreError> {
        Self::over(&view.tables().log, from)
    }

    pub(super) fn over(log: &'v impl ReadableTable<SegmentKey, &'static [u8]>, from: u64) -> Result<Self, StoreError> {
        if from == 0 {
            let rows = log.range::<SegmentKey>(..)?;
            return Ok(Self { rows, key: (0, 0), row: Vec::new(), at: 0, first: Some(NONE_BEGINS), next: (0, 0) });
        }
        let (key, begins) = {
            let (key, row) = log.range(..=(from, 0))?.next_back().ok_or(STREAM)??;
            let (key, row) = (key.value(), row.value());
            let rest = segments::begin_of(key, row, from).ok_or(STREAM)?.len();
            (key, row.len().checked_sub(rest).ok_or(STREAM)?)
        };
        let mut rows = log.range(key..)?;
        let (_, row) = rows.next().ok_or(STREAM)??;
        Ok(Self { rows, key, row: row.value().to_vec(), at: begins, first: None, next: (from, 0) })
    }

    /// The row that is being read.
    pub(super) fn key(&self) -> SegmentKey {
        self.key
    }

    /// The next record. After an error nothing more is to be read here.
    pub(crate) fn next(&mut self) -> Result<Vec<u8>, StoreError> {
        let mut len = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first().ok_or(STREAM)?;
            len |= u64::from(byte & 0x7f).checked_shl(shift).ok_or(STREAM)?;
            if byte & 0x80 == 0 {
                let len = usize::try_from(len).ok().filter(|len| *len <= RECORD_MAX_BYTES).ok_or(STREAM)?;
                let record = self.take(len)?;
                self.next = (self.next.0.saturating_add(1), 0);
                return Ok(record);
            }
        }
        Err(STREAM)
    }

    /// Nothing follows: the last row ends with the last record, and there is no other.
    pub(crate) fn end(mut self) -> Result<(), StoreError> {
        self.leave_row()?;
        let over = self.at == self.row.len() && self.rows.next().is_none();
        if over { Ok(()) } else { Err(STREAM) }
    }

    fn take(&mut self, n: usize) -> Result<Vec<u8>, StoreError> {
        let mut out = Vec::with_capacity(n.min(SEGMENT_BYTES));
        loop {
            let rest = self.row.get(self.at..).unwrap_or_default();
            if self.next.1 == 0 && !rest.is_empty() && self.first == Some(NONE_BEGINS) {
                self.first = Some(u16::try_from(self.at.saturating_sub(FIRST_BYTES)).map_err(|_| STREAM)?);
            }
            let now = rest.get(..n.saturating_sub(out.len()).min(rest.len())).unwrap_or_default();
            out.extend_from_slice(now);
            self.at = self.at.saturating_add(now.len());
            self.next.1 = self.next.1.saturating_add(u32::try_from(now.len()).map_err(|_| STREAM)?);
            if out.len() == n {
                return Ok(out);
            }
            self.next_row()?;
        }
    }

    fn next_row(&mut self) -> Result<(), StoreError> {
        // Only the last row is not full.
        if !self.row.is_empty() && self.row.len() != SEGMENT_BYTES {
            return Err(STREAM);
        }
        self.leave_row()?;
        let (key, row) = self.rows.next().ok_or(STREAM)??;
        let row = row.value();
        if key.value() != self.next || !(FIRST_BYTES + 1..=SEGMENT_BYTES).contains(&row.len()) {
            return Err(STREAM);
        }
        self.key = key.value();
        self.row.clear();
        self.row.extend_from_slice(row);
        (self.at, self.first) = (FIRST_BYTES, Some(NONE_BEGINS));
        Ok(())
    }

    fn leave_row(&self) -> Result<(), StoreError> {
        let says = self.row.first_chunk().map(|first| u16::from_le_bytes(*first));
        match (says, self.first) {
            (Some(says), Some(first)) if says != first => Err(STREAM),
            _ => Ok(()),
        }
    }
}

/// What an entry turned out to be when it was put together from its record.
pub(crate) struct Row {
    /// The entry.
    pub(crate) entry: Entry,
    /// The number of its strand, where it is stored in parts.
    pub(crate) strand: Option<u64>,
    /// Whether the record is whole: in the one form in which it would be written, with every event's body.
    pub(crate) form: Form,
}

/// Whether a record has the form in which it would be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Sound,
    Other,
}

/// A committed wrap, as it is kept.
pub(crate) struct WrapRow {
    /// What the rules ask of it.
    pub(crate) fact: WrapFact,
    /// Its run, and its place there.
    pub(crate) at: (u64, u16),
    /// Whether its number names it.
    pub(crate) named: bool,
}

/// Sizes of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) known: u64,
    pub(crate) leaf_rows: u64,
    pub(crate) nodes: u64,
    pub(crate) heads: u64,
    pub(crate) positions: u64,
    pub(crate) rooms: u64,
    pub(crate) strands: u64,
    pub(crate) strand_names: u64,
    pub(crate) wraps: u64,
    pub(crate) wrap_names: u64,
}

/// What rows of a table that is looked through add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Entries of all rooms.
    pub(crate) entries: u64,
    /// Full lists of places.
    pub(crate) lists: u64,
}

impl View {
    /// What the state says of the log.
    pub(crate) fn applied(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.meta(super::schema::META_APPLIED)
    }

    /// Whose file it is, asked again.
    pub(crate) fn check_marker(&self) -> Result<(), StoreError> {
        let log = self.log_name();
        check_marker(&self.tables().meta, log.alliance, log.shard)
    }

    /// Puts an entry together from its record.
    pub(crate) fn row(&self, log_index: u64, bytes: &[u8], roots: &mut Roots) -> Result<Row, StoreError> {
        let record = Record::decode(bytes).ok_or(RECORD)?;
        let mut strand = None;
        if let What::Parts { strand: number, seen, .. } = &record.what {
            strand = Some(*number);
            if let Seen::Ours { behind, .. } = seen {
                let size = log_index.checked_sub(*behind).ok_or(RECORD)?;
                if !roots.contains_key(&size) {
                    if roots.len() >= ROOTS_KEPT {
                        roots.pop_first();
                    }
                    roots.insert(size, Peaks::load(&Tree(self.tables()), size)?.root());
                }
            }
        }
        let entry = Names::new(self.tables(), self.log_name(), Some(roots)).rebuild(log_index, &record)?;
        let form = if is_whole(&record, bytes, &entry) { Form::Sound } else { Form::Other };
        Ok(Row { entry, strand, form })
    }

    /// An entry, with roots that are known.
    pub(crate) fn entry_with(&self, log_index: u64, roots: &mut Roots) -> Result<Entry, StoreError> {
        let bytes = segments::read(&self.tables().log, log_index)?;
        Ok(self.row(log_index, &bytes, roots)?.entry)
    }

    /// Control events of a room as of one of its entries.
    pub(crate) fn control_at(&self, log_index: u64) -> Result<u64, StoreError> {
        control_at(self.tables(), log_index)
    }

    /// The stored hash of a perfect subtree, above the leaves as far as it is stored at all; `Ok(None)`: of that level none is.
    pub(crate) fn stored_node(&self, at: ehe::merkle::NodeAt) -> Result<Option<Hash>, StoreError> {
        if at.level != 0 && at.level < STORED_LEVEL {
            return Ok(None);
        }
        ehe::merkle::Nodes::node(self, at).map(Some)
    }

    /// Where an event is, by the table that tells what is known already.
    pub(crate) fn known_at(&self, hour: Hour, id: EheId) -> Result<Option<(u64, u16)>, StoreError> {
        known::find(&self.tables().known, hour, id)
    }

    /// The end of a strand, and its number.
    pub(crate) fn strand(
        &self,
        room: RoomId,
        author: AuthorId,
        strand: StrandId,
    ) -> Result<Option<(StrandEnd, u64)>, StoreError> {
        let row = self.tables().strands.get((room.as_bytes(), author.as_bytes(), strand.as_bytes()))?;
        Ok(row.map(|row| {
            let (next, link, number) = row.value();
            (StrandEnd { strand, next, link: Hash(*link) }, number)
        }))
    }

    /// A committed wrap.
    pub(crate) fn wrap_row(&self, room: RoomId, wrap: WrapId) -> Result<Option<WrapRow>, StoreError> {
        let Some(stored) = stored_wrap(self.tables(), room, wrap)? else { return Ok(None) };
        let named = self.tables().wrap_names.get(stored.number)?;
        let named = named.is_some_and(|row| row.value() == (wrap.as_bytes(), stored.fact.epoch.as_bytes()));
        let at = (stored.log_index, stored.position);
        Ok(Some(WrapRow { fact: stored.fact, at, named }))
    }

    /// Whether somebody is noted as a party of a room.
    pub(crate) fn is_party(&self, author: AuthorId, room: RoomId) -> Result<bool, StoreError> {
        Ok(self.tables().parties.get((author.as_bytes(), room.as_bytes()))?.is_some())
    }

    /// Whether a granted request's nonce is remembered.
    pub(crate) fn has_nonce(&self, request: &ehe::read::ReadRequest) -> Result<bool, StoreError> {
        let key = (request.made_at.0, request.reader.as_bytes(), request.nonce.as_bytes());
        Ok(self.tables().nonces.get(key)?.is_some())
    }

    /// A room's rules as stored, and whether they are in the one encoding.
    pub(crate) fn room_row(&self, room: RoomId) -> Result<Option<(RoomState, Form)>, StoreError> {
        let Some(state) = self.room(room)? else { return Ok(None) };
        let bytes = self.tables().rooms.get(room.as_bytes())?.ok_or(RECORD)?;
        let form = if ehe::cbor::to_vec(&state) == bytes.value() { Form::Sound } else { Form::Other };
        Ok(Some((state, form)))
    }

    /// How many rows there are.
    pub(crate) fn totals(&self) -> Result<Totals, StoreError> {
        let tables = self.tables();
        Ok(Totals {
            known: tables.known.len()?,
            leaf_rows: tables.leaves.len()?,
            nodes: tables.nodes.len()?,
            heads: tables.heads.len()?,
            positions: tables.positions.len()?,
            rooms: tables.rooms.len()?,
            strands: tables.strands.len()?,
            strand_names: tables.strand_names.len()?,
            wraps: tables.wraps.len()?,
            wrap_names: tables.wrap_names.len()?,
        })
    }

    /// Whether the leaf hashes fill their rows and no more.
    pub(crate) fn leaf_rows_fit(&self) -> Result<bool, StoreError> {
        let (leaves, mut left) = (&self.tables().leaves, self.shard().leaves);
        for (number, row) in (0u64..).zip(leaves.iter()?) {
            let (key, value) = row?;
            let (whole, now) = (u64::try_from(value.value().len()).unwrap_or(u64::MAX), left.min(ROW_LEAVES));
            if key.value() != number || whole != now.saturating_mul(Hash::LEN as u64) {
                return Ok(false);
            }
            left -= now;
        }
        Ok(left == 0)
    }

    /// Looks through the ends of all rooms. `leaf`: has to be the hash of the last entry of each.
    pub(crate) fn heads(&self) -> Result<Option<Tally>, StoreError> {
        let mut tally = Tally::default();
        for row in self.tables().heads.iter()? {
            let (room, bytes) = row?;
            let room = RoomId(*room.value());
            let head = Head::load(self.tables(), room)?;
            let Some(last) = head.entries.checked_sub(1) else { return Ok(None) };
            let Some(at) = self.position(room, last)? else { return Ok(None) };
            let leaf = ehe::merkle::Nodes::node(self, ehe::merkle::NodeAt { level: 0, index: at })?;
            if head.leaf != leaf || head.to_row() != bytes.value() {
                return Ok(None);
            }
            tally.entries = tally.entries.saturating_add(head.entries);
            tally.lists = tally.lists.saturating_add(head.lists());
        }
        Ok(Some(tally))
    }

    /// Looks through the ends of all strands, and what their numbers name. False: a number names another.
    pub(crate) fn strands(&self, mut each: impl FnMut(RoomId, AuthorId, StrandEnd)) -> Result<bool, StoreError> {
        for row in self.tables().strands.iter()? {
            let (key, value) = row?;
            let ((room, author, strand), (next, link, number)) = (key.value(), value.value());
            let named = self.tables().strand_names.get(number)?;
            if named.is_none_or(|named| named.value() != (room, author, strand)) {
                return Ok(false);
            }
            let end = StrandEnd { strand: StrandId(*strand), next, link: Hash(*link) };
            each(RoomId(*room), AuthorId(*author), end);
        }
        Ok(true)
    }

    /// Refused requests that were counted in the hour under way: (hour, room, reader, the record). False as soon as one does not hold.
    pub(crate) fn counted_refusals(
        &self,
        mut holds: impl FnMut(u32, RoomId, AuthorId, &[u8]) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        for row in self.tables().read_refusals.iter()? {
            let (key, value) = row?;
            let (hour, room, reader) = key.value();
            if !holds(hour, RoomId(*room), AuthorId(*reader), value.value())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks through the refusals that are kept of authors. False: one does not decode.
    pub(crate) fn kept_refusals_decode(&self) -> Result<bool, StoreError> {
        for row in self.tables().run_refusals.iter()? {
            let (key, _) = row?;
            let (room, author) = key.value();
            match self.run_refusals(RoomId(*room), AuthorId(*author)) {
                Ok(kept) if kept.len() <= super::RUN_REFUSALS_KEPT => {}
                Ok(_) | Err(StoreError::Corrupt(_)) => return Ok(false),
                Err(other) => return Err(other),
            }
        }
        Ok(true)
    }
}
