//! The shard as consensus drives it.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ehe::time::UnixMs;
use redb::Durability;

use super::apply::{Apply, Carried};
use super::block::{self, Beginning, Block};
use super::charters::Charters;
use super::decoded::Decoded;
use super::export::Export;
use super::extent::{Extent, Own};
use super::incoming::{Arrived, Incoming, fault};
use super::notary::Notary;
use super::place::Place;
use super::readers::Readers;
use super::recent::{Recent, Rooms};
use super::rules::Rules;
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
    rules: Rules,
}

/// Why a shard cannot go on.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the entry at {at} is not a block: {why}; the ordering party is faulty or of another version")]
    Block { at: crate::consensus::Position, why: ehe::cbor::CborError },
    #[error("{why}")]
    Outdated { why: String },
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
        let (notary, noted, own, rules) = (None, 0, Own::default(), Rules::default());
        let machine = Self {
            place,
            store,
            carried,
            board,
            rooms,
            recent,
            notary,
            noted,
            readers,
            clock,
            decoded,
            mended,
            own,
            rules,
        };
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

    /// The same, of a program that knows the rules up to this version.
    #[must_use]
    pub fn knowing(self, rules: u16) -> Self {
        let rules = self.rules.clone().knowing(rules);
        Self { rules, ..self }
    }

    /// Which rules version is in force.
    pub fn rules(&self) -> Rules {
        self.rules.clone()
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

    /// What a batch decodes to, one by one; or how much of it has to come first, before it is known what the rest is.
    fn blocks(&self, batch: &[Command]) -> Result<Vec<Block>, MachineError> {
        if let Some(why) = self.rules.outdated().filter(|_| !batch.is_empty()) {
            // Nobody asks for it: the group is held.
            return Err(failed(ApplyError::Outdated { why }));
        }
        let (in_force, mut blocks) = (self.carried.charters.rules(), Vec::with_capacity(batch.len()));
        for (before, Command { position: at, bytes }) in batch.iter().enumerate() {
            let block = match self.decoded.take(bytes).map_or_else(|| Block::decode(bytes), Ok) {
                Ok(block) => block,
                Err(why) => match Beginning::read(bytes).map(|beginning| beginning.rules) {
                    // Of rules that are not in force: it changes nothing, whatever it is.
                    Some(rules) if rules > in_force && before == 0 => Block::new(UnixMs(0), rules, Vec::new()),
                    // Perhaps they are in force behind those before it.
                    Some(rules) if rules > in_force => return Err(MachineError::in_parts(before)),
                    _ => return Err(failed(ApplyError::Block { at: *at, why })),
                },
            };
            let through = before + 1;
            let beyond = block.raises_to().is_some_and(|rules| rules > self.rules.known());
            blocks.push(block);
            if beyond && through < batch.len() {
                return Err(MachineError::in_parts(through));
            }
        }
        Ok(blocks)
    }

    fn show(&self) {
        let Carried { peaks, shard, charters, .. } = &self.carried;
        let ShardMeta { incarnation, rooms, time, .. } = *shard;
        let (size, root) = (peaks.size(), peaks.root());
        self.own.show(Extent::of(shard, root, charters));
        self.rules.show(charters.rules());
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
        let blocks = self.blocks(batch)?;
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

    fn outdated(&self) -> Option<String> {
        self.rules.outdated()
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

    fn abandon(&mut self) {
        self.store.abandon();
    }

    fn snapshot(&self) -> Result<Box<dyn Read + Send>, MachineError> {
        let note = self.note().map_err(failed)?;
        let export = self.store.read().and_then(|moment| Export::new(&moment, note.as_deref())).map_err(failed)?;
        Ok(Box::new(export))
    }

    fn stager(&self) -> Stager<Incoming> {
        let (beside, place, notary) = (self.store.beside(), self.place, self.notary.clone());
        let (own, clock, known) = (self.own.clone(), self.clock.clone(), self.rules.known());
        Box::new(move || {
            let receiving = Incoming::begin(beside.clone(), place, notary.clone(), (own.clone(), clock.clone()));
            receiving.map(|receiving| receiving.knowing(known)).map_err(fault)
        })
    }

    fn vetting(&self) -> Vetting {
        let (clock, decoded, known) = (self.clock.clone(), self.decoded.clone(), self.rules.known());
        Arc::new(move |bytes: &Bytes| {
            if let Some(block) = vet(bytes, clock.as_ref().map(Clock::now), known)? {
                decoded.keep(bytes, block);
            }
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
