//! The shard as consensus drives it.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use redb::Durability;

use super::apply::{Apply, Carried};
use super::block::{self, Block, RULES};
use super::export::{self, Export};
use super::incoming::{Arrived, Incoming};
use super::place::Place;
use super::recent::{Recent, Rooms};
use super::schema::{META_APPLIED, ShardMeta};
use super::store::{Store, StoreError, check_marker, shard_meta};
use crate::checkpoint::{Applied, Board};
use crate::consensus::{AppliedMeta, Command, Machine, MachineError, Stager};

/// One shard's replicated state.
pub struct ShardMachine {
    place: Place,
    store: Store,
    carried: Carried,
    board: Arc<Board>,
    rooms: Rooms,
    recent: Recent,
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
        let carried = load(&store, (rooms.clone(), recent.clone()))?;
        let machine = Self { place, store, carried, board, rooms, recent };
        machine.show();
        Ok(machine)
    }

    /// The rules of rooms as of the last block.
    pub fn rooms(&self) -> Rooms {
        self.rooms.clone()
    }

    /// The newest leaves.
    pub fn recent(&self) -> Recent {
        self.recent.clone()
    }

    /// Replaces the whole state by that of a stream, in one transaction.
    pub(super) fn install(&mut self, reader: &mut dyn Read, meta: &[u8]) -> Result<(), MachineError> {
        let place = self.place;
        let installed = self.store.replace(|tables| {
            export::import(tables, reader)?;
            check_marker(&tables.meta, place.alliance, place.shard)?;
            tables.meta.insert(META_APPLIED, meta)?;
            shard_meta(&tables.meta).map(drop)
        });
        installed.map_err(failed)?;
        self.carried = load(&self.store, (self.rooms(), self.recent())).map_err(failed)?;
        self.show();
        Ok(())
    }

    fn show(&self) {
        let Carried { peaks, shard, .. } = &self.carried;
        let ShardMeta { incarnation, rooms, time, .. } = *shard;
        let (size, root) = (peaks.size(), peaks.root());
        self.board.show(self.place.shard, Applied { size, root, incarnation, rooms, time });
    }
}

fn load(store: &Store, memory: (Rooms, Recent)) -> Result<Carried, StoreError> {
    let view = store.view()?;
    Carried::load(view.tables(), view.shard(), memory)
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
            let block = Block::decode(bytes).map_err(|why| failed(ApplyError::Block { at: *at, why }))?;
            if block.rules != RULES {
                return Err(failed(ApplyError::Rules { at: *at, found: block.rules }));
            }
            blocks.push(block);
        }
        let any = !blocks.is_empty();
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
        if any {
            self.show();
        }
        Ok(outcomes.iter().map(|outcomes| Bytes::from(block::encode_outcomes(outcomes))).collect())
    }

    fn make_durable(&mut self) -> Result<(), MachineError> {
        self.store.make_durable().map_err(failed)
    }

    fn snapshot(&self) -> Result<Box<dyn Read + Send>, MachineError> {
        let export = self.store.read().and_then(|txn| Export::new(&txn)).map_err(failed)?;
        Ok(Box::new(export))
    }

    fn stager(&self) -> Stager<Incoming> {
        let (dir, place) = (self.store.dir(), self.place);
        Box::new(move || Incoming::begin(dir.as_deref(), place).map_err(failed))
    }

    fn adopt(&mut self, mut staged: Arrived, meta: &[u8]) -> Result<(), MachineError> {
        self.install(&mut staged.reader().map_err(failed)?, meta)
    }
}
