//! Entries of the log: from their stored form back to the bytes that were committed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use ehe::cbor;
use ehe::checkpoint::log_origin;
use ehe::event::{CheckedEvent, Core, Header, Kind, Suite, VERSION};
use ehe::id::{AllianceId, AuthorId, EheId, EpochId, Hash, RoomId, StrandId, WrapId};
use ehe::leaf::Leaf;
use ehe::merkle::Peaks;
use ehe::read::record_hash;
use ehe::run::{Run, SeenCheckpoint, SignedRun, StrandEnd};
use ehe::time::UnixMs;
use ehe::void::VoidRecord;
use redb::ReadableTable;
use sha2::{Digest, Sha256};

use super::record::{ERASABLE_BYTES, KeptEvent, KeptHeader, Record, Seen, What};
use super::schema::{Look, StoredWrap};
use super::segments;
use super::store::StoreError;
use super::tree::Tree;

const CORRUPT: StoreError = StoreError::Corrupt("an entry of the log does not decode");
/// Roots that stay at hand once they were computed: runs that follow each other mostly name the same checkpoints.
const ROOTS_LEARNT: usize = 1024;

/// An entry of the log, as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The room.
    pub room: RoomId,
    /// Its place in the room.
    pub index: u64,
    /// When it was accepted, by the ledger's time.
    pub accepted_at: UnixMs,
    /// The patient's control events in the room as of this entry.
    pub control: u64,
    /// A signed run, an access record or a void record.
    pub bytes: Vec<u8>,
    /// The run's events, in order.
    pub events: Vec<StoredEvent>,
}

/// An event of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its encoded header.
    pub header: Vec<u8>,
    /// Its body, unless it was erased.
    pub body: Option<Vec<u8>>,
}

impl StoredEvent {
    /// SHA-256 of the header.
    pub fn id(&self) -> EheId {
        EheId(Sha256::digest(&self.header).into())
    }
}

impl Entry {
    /// Whether it is a signed run, a CBOR array; the others are maps.
    pub fn is_run(&self) -> bool {
        self.bytes.first().is_some_and(|first| first >> 5 == 4)
    }

    /// The record by which a run is void, if it is one.
    pub fn void(&self) -> Option<VoidRecord> {
        // A map whose first member is a number: an access record begins with a byte string.
        let begins = matches!(self.bytes[..], [map, 0, index, ..] if map >> 5 == 5 && index >> 5 == 0);
        if begins { VoidRecord::decode(&self.bytes).ok() } else { None }
    }

    /// Its leaf. `before`: where the room's entry before it is, of which `leaf` gives the hash.
    pub(super) fn leaf(
        &self,
        before: Option<u64>,
        leaf: impl FnOnce(u64) -> Result<Hash, StoreError>,
    ) -> Result<Leaf, StoreError> {
        let previous = before.map_or(Ok(Hash::ZERO), leaf)?;
        let Self { room, index, accepted_at, control, .. } = *self;
        Ok(Leaf { room, index, previous, entry: record_hash(&self.bytes), accepted_at, control })
    }
}

/// Whose log it is: what its checkpoints' origin is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogName {
    pub(super) alliance: AllianceId,
    pub(super) shard: u16,
}

/// Looks up what records leave out.
pub(super) struct Names<'a, T> {
    tables: &'a T,
    log: LogName,
    /// Roots that are known already, by size; any other is computed.
    roots: Option<&'a BTreeMap<u64, Hash>>,
    /// And those.
    learnt: RefCell<BTreeMap<u64, Hash>>,
    /// The wrap that was looked up last: a run's events mostly have the same.
    wrap: Cell<Option<(u64, WrapId, EpochId)>>,
    /// And the strand.
    strand: Cell<Option<(u64, Strand)>>,
}

/// What a strand's number stands for.
type Strand = (RoomId, AuthorId, StrandId);

impl<'a, T: Look> Names<'a, T> {
    pub(super) fn new(tables: &'a T, log: LogName, roots: Option<&'a BTreeMap<u64, Hash>>) -> Self {
        Self { tables, log, roots, learnt: RefCell::default(), wrap: Cell::new(None), strand: Cell::new(None) }
    }

    /// What was found, or given a number, while a run was admitted need not be looked up again to store it.
    pub(super) fn found(&self, admitted: &Admitted<'_>) {
        let run = admitted.run;
        self.strand.set(Some((admitted.strand, (run.room, run.author, run.from.strand))));
        let wrap = admitted.wraps.first_key_value();
        self.wrap.set(wrap.map(|(wrap, stored)| (stored.number, *wrap, stored.fact.epoch)));
    }

    /// Reads an entry.
    pub(super) fn entry(&self, log_index: u64) -> Result<Entry, StoreError> {
        let bytes = segments::read(self.tables.log(), log_index)?;
        self.rebuild(log_index, &Record::decode(&bytes).ok_or(CORRUPT)?)
    }

    /// The checkpoint of the first `size` leaves.
    fn checkpoint(&self, incarnation: u32, size: u64) -> Result<SeenCheckpoint, StoreError> {
        let known = self.roots.and_then(|roots| roots.get(&size).copied());
        let root = match known.or_else(|| self.learnt.borrow().get(&size).copied()) {
            Some(root) => root,
            None => {
                let root = Peaks::load(&Tree(self.tables), size)?.root();
                let mut learnt = self.learnt.borrow_mut();
                if learnt.len() >= ROOTS_LEARNT {
                    learnt.clear();
                }
                learnt.insert(size, root);
                root
            }
        };
        Ok(SeenCheckpoint { origin: log_origin(self.log.alliance, self.log.shard, incarnation), size, root })
    }

    /// How a checkpoint that a run names is stored, in an entry after `leaves` others.
    fn seen(&self, seen: Option<&SeenCheckpoint>, incarnation: u32, leaves: u64) -> Result<Seen, StoreError> {
        let Some(seen) = seen else { return Ok(Seen::None) };
        let ours = log_origin(self.log.alliance, self.log.shard, incarnation);
        if seen.origin == ours
            && let Some(behind) = leaves.checked_sub(seen.size)
            && self.checkpoint(incarnation, seen.size)?.root == seen.root
        {
            return Ok(Seen::Ours { incarnation, behind });
        }
        Ok(Seen::Other(seen.clone()))
    }

    fn wrap(&self, number: u64) -> Result<(WrapId, EpochId), StoreError> {
        if let Some((known, wrap, epoch)) = self.wrap.get()
            && known == number
        {
            return Ok((wrap, epoch));
        }
        let row = self.tables.wrap_names().get(number)?.ok_or(CORRUPT)?;
        let (wrap, epoch) = row.value();
        let (wrap, epoch) = (WrapId(*wrap), EpochId(*epoch));
        self.wrap.set(Some((number, wrap, epoch)));
        Ok((wrap, epoch))
    }

    /// The bytes that were committed.
    pub(super) fn rebuild(&self, log_index: u64, record: &Record<'_>) -> Result<Entry, StoreError> {
        let Record { index, accepted_at, control, ref what } = *record;
        let entry = |room, bytes, events| Entry { room, index, accepted_at, control, bytes, events };
        match what {
            What::Access { room, bytes } => Ok(entry(*room, bytes.to_vec(), Vec::new())),
            What::Whole { room, run, events } => {
                let nobody = AuthorId::ZERO;
                let events = events.iter().map(|event| self.event(*room, nobody, event)).collect::<Result<_, _>>()?;
                Ok(entry(*room, run.to_vec(), events))
            }
            What::Parts { strand, signature, events, .. } => {
                let (room, author, _) = self.strand(*strand)?;
                let events: Vec<_> =
                    events.iter().map(|event| self.event(room, author, event)).collect::<Result<_, _>>()?;
                let run = self.run(log_index, what, events.iter().map(StoredEvent::id).collect())?;
                Ok(entry(room, SignedRun::assemble(&run, *signature).0, events))
            }
        }
    }

    fn strand(&self, number: u64) -> Result<Strand, StoreError> {
        if let Some((known, strand)) = self.strand.get()
            && known == number
        {
            return Ok(strand);
        }
        let row = self.tables.strand_names().get(number)?.ok_or(CORRUPT)?;
        let (room, author, strand) = row.value();
        let strand = (RoomId(*room), AuthorId(*author), StrandId(*strand));
        self.strand.set(Some((number, strand)));
        Ok(strand)
    }

    /// The run of an entry in parts, whose events have these ids.
    fn run(&self, log_index: u64, what: &What<'_>, ids: Vec<EheId>) -> Result<Run, StoreError> {
        let What::Parts { strand, next, link, seen, continues, .. } = what else { return Err(CORRUPT) };
        let (room, author, strand) = self.strand(*strand)?;
        let seen = match seen {
            Seen::None => None,
            Seen::Ours { incarnation, behind } => {
                Some(self.checkpoint(*incarnation, log_index.checked_sub(*behind).ok_or(CORRUPT)?)?)
            }
            Seen::Other(seen) => Some(seen.clone()),
        };
        let from = StrandEnd { strand, next: *next, link: *link };
        Ok(Run { room, author, from, ids, seen, continues: *continues })
    }

    fn event(&self, room: RoomId, author: AuthorId, kept: &KeptEvent<'_>) -> Result<StoredEvent, StoreError> {
        let body_hash = || match kept.erased {
            true => kept.body.first_chunk().copied().map(Hash).ok_or(CORRUPT),
            false => Ok(Hash(Sha256::digest(kept.body).into())),
        };
        let header = self.header(room, author, &kept.header, body_hash)?;
        Ok(StoredEvent { header, body: (!kept.erased).then(|| kept.body.to_vec()) })
    }

    /// The bytes of a header, of a body with this hash.
    fn header(
        &self,
        room: RoomId,
        author: AuthorId,
        kept: &KeptHeader<'_>,
        body_hash: impl FnOnce() -> Result<Hash, StoreError>,
    ) -> Result<Vec<u8>, StoreError> {
        let core = |kind, hour, salt| Core {
            version: VERSION,
            suite: Suite::One,
            kind,
            room,
            author,
            epoch: EpochId::ZERO,
            wrap: WrapId::ZERO,
            hour,
            salt,
        };
        Ok(match kept {
            KeptHeader::Whole(header) => header.to_vec(),
            KeptHeader::Content { kind, wrap, hour, salt, commitment } => {
                let (wrap, epoch) = self.wrap(*wrap)?;
                let core = Core { epoch, wrap, ..core(*kind, *hour, *salt) };
                cbor::to_vec(&Header { core, commitment: *commitment, body_hash: body_hash()? })
            }
            KeptHeader::Control { kind, hour, salt, commitment } => {
                let room = if *kind == Kind::RoomCreate { RoomId::ZERO } else { room };
                let core = Core { room, ..core(*kind, *hour, *salt) };
                cbor::to_vec(&Header { core, commitment: *commitment, body_hash: body_hash()? })
            }
        })
    }
}

/// Whether the record in `bytes` is whole, from which `entry` was put together.
///
/// A leaf vouches for the signed run, and so for its events' ids, which are hashes of their headers: not for the form of the record, nor
/// for a body that a header names. So this is asked wherever a record comes from another node or may have been altered. Nothing
/// of this version erases a body: one that is said to be erased is lost.
pub(super) fn is_whole(record: &Record<'_>, bytes: &[u8], entry: &Entry) -> bool {
    let events = match &record.what {
        // A run that is stored as an access record would have lost its events.
        What::Access { .. } => return !entry.is_run() && record.to_vec() == bytes,
        // Its ids are made of the events.
        What::Parts { events, .. } => events,
        What::Whole { run, events, .. } => {
            let named = SignedRun(run.to_vec()).decode();
            if !named.is_ok_and(|run| run.claims().ids.iter().copied().eq(entry.events.iter().map(StoredEvent::id))) {
                return false;
            }
            events
        }
    };
    let body_fits = |event: &KeptEvent<'_>| match &event.header {
        KeptHeader::Whole(header) => cbor::from_slice::<Header>(header, header.len())
            .is_ok_and(|header| header.body_hash.0 == <[u8; 32]>::from(Sha256::digest(event.body))),
        // Its header is made with the hash of the body.
        KeptHeader::Content { .. } | KeptHeader::Control { .. } => true,
    };
    events.iter().all(|event| !event.erased && body_fits(event)) && record.to_vec() == bytes
}

/// A run that is admitted, as it came.
pub(super) struct Admitted<'a> {
    pub(super) log_index: u64,
    /// Place in the room.
    pub(super) index: u64,
    pub(super) accepted_at: UnixMs,
    pub(super) control: u64,
    pub(super) signed: &'a SignedRun,
    pub(super) run: &'a Run,
    pub(super) signature: [u8; ehe::sign::SIGNATURE_LEN],
    pub(super) events: &'a [CheckedEvent],
    /// The log's.
    pub(super) incarnation: u32,
    /// Number of its strand.
    pub(super) strand: u64,
    /// The wraps that its events name.
    pub(super) wraps: &'a BTreeMap<WrapId, StoredWrap>,
}

impl Admitted<'_> {
    /// The stored form: in parts if these parts give exactly the bytes that came, else as it came.
    pub(super) fn record<T: Look>(&self, names: &Names<'_, T>) -> Result<Vec<u8>, StoreError> {
        let parts = self.parts(names)?.to_vec();
        let same = match Record::decode(&parts) {
            Some(record) => self.comes_back(names, &record.what)?,
            None => false,
        };
        Ok(if same { parts } else { self.whole().to_vec() })
    }

    /// Whether reading these parts gives exactly the bytes that came. What [`Event::check`](ehe::event::Event::check) computed is not computed
    /// again: a body's hash is what its header names, an event's id the hash of its header.
    fn comes_back<T: Look>(&self, names: &Names<'_, T>, parts: &What<'_>) -> Result<bool, StoreError> {
        let What::Parts { strand, signature, events, .. } = parts else { return Ok(false) };
        let (room, author, _) = names.strand(*strand)?;
        if room != self.run.room || events.len() != self.events.len() {
            return Ok(false);
        }
        for (kept, event) in events.iter().zip(self.events) {
            let body_hash = || Ok(event.header().body_hash);
            let same = !kept.erased
                && kept.body == event.body()
                && names.header(room, author, &kept.header, body_hash)? == event.event().header;
            if !same {
                return Ok(false);
            }
        }
        let run = names.run(self.log_index, parts, self.events.iter().map(CheckedEvent::id).collect())?;
        Ok(SignedRun::assemble(&run, *signature) == *self.signed)
    }

    fn parts<T: Look>(&self, names: &Names<'_, T>) -> Result<Record<'_>, StoreError> {
        let what = What::Parts {
            strand: self.strand,
            next: self.run.from.next,
            link: self.run.from.link,
            seen: names.seen(self.run.seen.as_ref(), self.incarnation, self.log_index)?,
            continues: self.run.continues,
            signature: self.signature,
            events: self.events.iter().map(|event| self.event(event)).collect(),
        };
        Ok(self.as_record(what))
    }

    /// Everything as it came.
    pub(super) fn whole(&self) -> Record<'_> {
        let kept = |event| KeptEvent { header: KeptHeader::Whole(header_of(event)), body: event.body(), erased: false };
        let events = self.events.iter().map(kept).collect();
        self.as_record(What::Whole { room: self.run.room, run: &self.signed.0, events })
    }

    fn as_record<'r>(&self, what: What<'r>) -> Record<'r> {
        Record { index: self.index, accepted_at: self.accepted_at, control: self.control, what }
    }

    fn event<'e>(&self, event: &'e CheckedEvent) -> KeptEvent<'e> {
        let (core, commitment) = (event.core(), event.header().commitment);
        let (kind, hour, salt) = (core.kind, core.hour, core.salt);
        let whole = KeptHeader::Whole(header_of(event));
        let header = match self.wraps.get(&core.wrap) {
            _ if event.body().len() < ERASABLE_BYTES => whole,
            Some(wrap) if kind.is_content() => KeptHeader::Content { kind, wrap: wrap.number, hour, salt, commitment },
            _ if !kind.is_content() => KeptHeader::Control { kind, hour, salt, commitment },
            _ => whole,
        };
        KeptEvent { header, body: event.body(), erased: false }
    }
}

fn header_of(event: &CheckedEvent) -> &[u8] {
    &event.event().header
}
