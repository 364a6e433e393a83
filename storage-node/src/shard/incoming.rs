//! Another node's state on its way to this one, into a file beside this node's: filled while it comes, verified when it is whole.
//!
//! Nothing of this node's is touched before that, and what it is asked meanwhile it answers from the file that it has. Then the new
//! one takes that one's place, which takes as long as two syncs and a name, whatever it holds.

use std::time::Instant;

use super::export::{Item, OWN, Parser};
use super::notary::{Attested, Notary};
use super::place::Place;
use super::schema::{META_APPLIED, META_NOTE};
use super::sound;
use super::staging::{Staged, Staging};
use super::store::{Beside, OpenFile, StoreError};
use crate::consensus::{MachineError, Stage};

/// A state that is being received.
pub struct Incoming {
    parser: Parser,
    filling: Filling,
    bytes: u64,
    begun: Instant,
}

struct Filling {
    place: Place,
    notary: Option<Notary>,
    attested: Option<Attested>,
    staging: Staging,
}

/// A state that was received whole and found good.
pub struct Arrived {
    staged: Staged,
    attested: Option<Attested>,
}

impl Incoming {
    pub(super) fn begin(beside: Option<Beside>, place: Place, notary: Option<Notary>) -> Result<Self, StoreError> {
        let Beside { folder, cache_bytes } =
            beside.ok_or(StoreError::Stream("this store has no directory to receive one in"))?;
        let staging = Staging::begin(folder, cache_bytes)?;
        let filling = Filling { place, notary, attested: None, staging };
        Ok(Self { parser: Parser::default(), filling, bytes: 0, begun: Instant::now() })
    }
}

impl Filling {
    fn take(&mut self, item: Item<'_>) -> Result<(), StoreError> {
        match item {
            Item::Note(None) | Item::End { .. } => {}
            Item::Note(Some(note)) => {
                let notary = self.notary.as_ref();
                let notary = notary.ok_or(StoreError::Stream("this node has no charter to judge its note by"))?;
                self.attested = Some(notary.verify(self.place.shard, note)?);
            }
            Item::Row { table: 0, key, .. } if OWN.iter().any(|own| own.as_bytes() == key) => {
                return Err(StoreError::Stream("it says what a node only says to itself"));
            }
            Item::Row { table, key, value } => self.staging.push(table, key, value)?,
        }
        Ok(())
    }
}

impl Arrived {
    /// Takes the place of this node's own.
    pub(super) fn settle(self, applied: &[u8]) -> Result<OpenFile, StoreError> {
        let note = self.attested.as_ref().map(|attested| (META_NOTE, attested.note.as_bytes()));
        self.staged.settle(note.into_iter().chain([(META_APPLIED, applied)]))
    }
}

impl Stage for Incoming {
    type Staged = Arrived;

    fn write(&mut self, piece: &[u8]) -> Result<(), MachineError> {
        self.bytes = self.bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        self.parser.feed(piece, |item| self.filling.take(item)).map_err(fault)
    }

    fn finish(self) -> Result<Arrived, MachineError> {
        self.parser.finish().map_err(fault)?;
        let (received, verifying) = (self.begun.elapsed(), Instant::now());
        let Filling { place, attested, staging, .. } = self.filling;
        let staged = staging.finish(|tables| sound::check(tables, &place, attested.as_ref())).map_err(fault)?;
        let (received_s, verified_s) = (received.as_secs_f32(), verifying.elapsed().as_secs_f32());
        let (shard, mib) = (place.shard, self.bytes >> 20);
        tracing::info!(shard, mib, received_s, verified_s, "the state that another node sent was found good");
        Ok(Arrived { staged, attested })
    }
}

/// Says whose fault it is.
pub(super) fn fault(error: StoreError) -> MachineError {
    match error {
        StoreError::Stream(_)
        | StoreError::Unattested(_)
        | StoreError::OtherShard { .. }
        | StoreError::Format { .. } => MachineError::new(error),
        _ => MachineError::at_home(error),
    }
}
