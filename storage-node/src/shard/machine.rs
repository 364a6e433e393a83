//! The shard as consensus drives it.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use redb::Durability;

use super::apply::{Apply, Carried};
use super::block::{self, Block, RULES};
use super::charters::Charters;
use super::decoded::Decoded;
use super::export::Export;
use super::extent::{Extent, Own};
use super::incoming::{Arrived, Incoming, fault};
use super::notary::Notary;
use super::place::Place;
use super::readers::Readers;
use super::recent::{Recent, Rooms};
use super::schema::{META_APPLIED, META_NOTE, ShardMeta};
use super::store::{Store, StoreError};
use super::vet::vet;
use crate::checkpoint::{Applied, Board};
use crate::clock::Clock;
use crate::consensus::{AppliedMeta, Command, Machine, MachineError, Stager, Vetting};

/// One shard's replicated state.
pub struct ShardMachine {
    place: Place,
    store: Store,
    carried: Carried,
    board: Arc<Board>,
    rooms: Rooms,
    recent: Recent,
    notary: Option<Notary>,
    /// The size of the quorum's note that was stored last.
    noted: u64,
    readers: Readers,
    clock: Option<Clock>,
    /// What was judged and is not applied yet.
    decoded: Decoded,
    /// As of when what is carried was read from the file.
    mended: u64,
    /// How far the log goes, for those who receive another's state.
    own: Own,
}

/// Why a shard cannot go on.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the entry at {at} is not a block: {why}; the ordering party is faulty or of another version")]
    Block { at: crate::consensus::Position, why: ehe::cbor::CborError },
    #[error(
        "the block at {at} follows rules {found}, this program knows {RULES}; install the version that the alliance agreed on"
    )]
    Rules { at: crate::consensus::Position, found: u16 },
}

fn failed(error: impl Into<ApplyError>) -> MachineError {
    MachineError::new(error.into())
}

impl ShardMachine {
    /// Continues the state in `store`. What is applied is shown on `board`, from where it is checkpointed.
    pub fn new(place: Place, store: Store, board: Arc<Board>) -> Result<Self, StoreError> {
        let (rooms, recent) = (Rooms::default(), Recent::default());
        let carried = load(&store, place, (rooms.clone(), recent.clone()))?;
        let (readers, clock, decoded) = (Readers::default(), None, Decoded::default());
        let mended = store.mended().load(Ordering::Acquire);
        let (notary, noted, own) = (None, 0, Own::default());
        let machine =
            Self { place, store, carried, board, rooms, recent, notary, noted, readers, clock, decoded, mended, own };
        machine.show();
        Ok(machine)
    }

    /// Has a quorum's notes go with its state to other nodes, and takes theirs if it comes with one. Without, it takes no state but
    /// an empty one in the place of an empty one.
    #[must_use]
    pub fn attested_by(self, notary: Notary) -> Self {
        Self { notary: Some(notary), ..self }
    }

    /// The same, which tells those who read here what it decides, and stores nothing from ahead of this clock.
    #[must_use]
    pub fn attended(self, readers: Readers, clock: Clock) -> Self {
        Self { readers, clock: Some(clock), ..self }
    }

    /// The rules of rooms as of the last block.
    pub fn rooms(&self) -> Rooms {
        self.rooms.clone()
    }

    /// The newest leaves.
    pub fn recent(&self) -> Recent {
        self.recent.clone()
    }

    /// The newest note of a quorum that this node was shown, or has kept; of no more than it has applied.
    fn note(&self) -> Result<Option<String>, StoreError> {
        let newest = self.notary.as_ref().and_then(Notary::newest);
        if let Some(newest) = newest.filter(|newest| newest.size <= self.carried.peaks.size()) {
            return Ok(Some(newest.note.clone()));
        }
        self.store.view()?.note()
    }

    fn show(&self) {
        let Carried { peaks, shard, charters, .. } = &self.carried;
        let ShardMeta { incarnation, rooms, time, .. } = *shard;
        let (size, root) = (peaks.size(), peaks.root());
        self.own.show(Extent::of(shard, root, charters));
        // First: what is signed of this state is signed under the charter that is in effect with it.
        let in_effect = charters.in_effect();
        let version = in_effect.as_ref().map_or(1, |now| now.charter.version());
        self.board.show_applied_under(self.place.shard, version);
        if let Some(in_effect) = in_effect {
            self.board.under(self.place.shard, in_effect);
        }
        self.board.show(self.place.shard, Applied { size, root, incarnation, rooms, time });
    }
}

fn load(store: &Store, place: Place, memory: (Rooms, Recent)) -> Result<Carried, StoreError> {
    let view = store.view()?;
    let charters = Charters::load(&view.tables().meta, place.alliance)?;
    Carried::load(view.tables(), view.shard(), charters, memory)
}

impl Machine for ShardMachine {
    type Stage = Incoming;

    fn applied(&self) -> Result<Option<AppliedMeta>, MachineError> {
        let meta = self.store.view().and_then(|view| view.meta(META_APPLIED)).map_err(failed)?;
        Ok(meta.map(AppliedMeta))
    }

    fn apply(&mut self, batch: &[Command], meta: &[u8]) -> Result<Vec<Bytes>, MachineError> {
        let mut blocks = Vec::with_capacity(batch.len());
        for Command { position: at, bytes } in batch {
            let block = match self.decoded.take(bytes) {
                Some(block) => block,
                None => Block::decode(bytes).map_err(|why| failed(ApplyError::Block { at: *at, why }))?,
            };
            if block.rules != RULES {
                return Err(failed(ApplyError::Rules { at: *at, found: block.rules }));
            }
            blocks.push(block);
        }
        let mended = self.store.mended().load(Ordering::Acquire);
        if mended != self.mended {
            self.carried = load(&self.store, self.place, (self.rooms(), self.recent())).map_err(failed)?;
            self.mended = mended;
        }
        let any = !blocks.is_empty();
        let asked = self.readers.decisions.asked(&blocks);
        let (place, carried) = (self.place, &mut self.carried);
        let outcomes = self.store.write(Durability::None, |tables| {
            let mut apply = Apply::new(place, tables, carried);
            // The first error says what happened; after it the file only says that there was one.
            let outcomes =
                blocks.into_iter().map(|block| apply.block(block)).collect::<Result<Vec<_>, StoreError>>()?;
            apply.finish()?;
            tables.meta.insert(META_APPLIED, meta)?;
            Ok(outcomes)
        });
        let outcomes = outcomes.map_err(failed)?;
        // Only now, when whoever is told finds it in the state. Those whose right it ended first.
        self.readers.rights.changed(&std::mem::take(&mut self.carried.changed));
        self.readers.decisions.tell(asked, &outcomes);
        if any {
            self.show();
        }
        Ok(outcomes.iter().map(|outcomes| Bytes::from(block::encode_outcomes(outcomes))).collect())
    }

    fn make_durable(&mut self) -> Result<(), MachineError> {
        let newest = self.notary.as_ref().and_then(Notary::newest).filter(|newest| newest.size > self.noted);
        let kept = self.store.write(Durability::Immediate, |tables| {
            if let Some(newest) = &newest {
                tables.meta.insert(META_NOTE, newest.note.as_bytes())?;
            }
            Ok(())
        });
        kept.map_err(failed)?;
        self.noted = newest.map_or(self.noted, |newest| newest.size);
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Read + Send>, MachineError> {
        let note = self.note().map_err(failed)?;
        let export = self.store.read().and_then(|moment| Export::new(&moment, note.as_deref())).map_err(failed)?;
        Ok(Box::new(export))
    }

    fn stager(&self) -> Stager<Incoming> {
        let (beside, place, notary) = (self.store.beside(), self.place, self.notary.clone());
        let (own, clock) = (self.own.clone(), self.clock.clone());
        Box::new(move || {
            Incoming::begin(beside.clone(), place, notary.clone(), (own.clone(), clock.clone())).map_err(fault)
        })
    }

    fn vetting(&self) -> Vetting {
        let (clock, decoded) = (self.clock.clone(), self.decoded.clone());
        Arc::new(move |bytes: &Bytes| {
            decoded.keep(bytes, vet(bytes, clock.as_ref().map(Clock::now))?);
            Ok(())
        })
    }

    fn adopt(&mut self, staged: Arrived, meta: &[u8]) -> Result<(), MachineError> {
        let file = staged.settle(meta).map_err(failed)?;
        self.store.replace(file);
        self.carried = load(&self.store, self.place, (self.rooms(), self.recent())).map_err(failed)?;
        self.noted = 0;
        self.readers.rights.all_changed();
        self.show();
        Ok(())
    }

    fn forget(&mut self) -> Result<(), MachineError> {
        self.store.forget().map_err(failed)?;
        self.carried = load(&self.store, self.place, (self.rooms(), self.recent())).map_err(failed)?;
        self.noted = 0;
        self.readers.rights.all_changed();
        self.show();
        Ok(())
    }
}
