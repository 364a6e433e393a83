//! Another node's state on its way to this one, into a file beside this node's: filled while it comes, verified when it is whole.
//!
//! Nothing of this node's is touched before that, and what it is asked meanwhile it answers from the file that it has. Then the new
//! one takes that one's place, which takes as long as two syncs and a name, whatever it holds: if it has all that this node's log has,
//! asked when it is whole and once more before it takes the place ([`super::extent`]).

use std::time::Instant;

use ehe::charter::RULES_KNOWN;

use super::charters::{Charters, InEffect, META_CHARTERS};
use super::export::{Item, OWN, Parser};
use super::extent::Own;
use super::notary::{Attested, Notary};
use super::place::Place;
use super::rules::outdated;
use super::schema::{META_APPLIED, META_NOTE};
use super::sound;
use super::staging::{Staged, Staging};
use super::store::{Beside, OpenFile, StoreError};
use crate::clock::Clock;
use crate::consensus::{MachineError, Stage};

/// A state that is being received.
pub struct Incoming {
    parser: Parser,
    filling: Filling,
    bytes: u64,
    begun: Instant,
    own: Own,
    clock: Option<Clock>,
}

struct Filling {
    place: Place,
    known: u16,
    notary: Option<Notary>,
    attested: Option<Attested>,
    staging: Staging,
}

/// A state that was received whole and found good.
pub struct Arrived {
    staged: Staged,
    attested: Option<Attested>,
    place: Place,
    own: Own,
}

impl Incoming {
    /// `own`: how far this node's log goes. `clock`: no state from ahead of it is taken.
    pub(super) fn begin(
        beside: Option<Beside>,
        place: Place,
        notary: Option<Notary>,
        (own, clock): (Own, Option<Clock>),
    ) -> Result<Self, StoreError> {
        let Beside { folder, cache_bytes } =
            beside.ok_or(StoreError::Stream("this store has no directory to receive one in"))?;
        let staging = Staging::begin(folder, cache_bytes)?;
        let filling = Filling { place, known: RULES_KNOWN, notary, attested: None, staging };
        Ok(Self { parser: Parser::default(), filling, bytes: 0, begun: Instant::now(), own, clock })
    }

    /// The same, of a program that knows the rules up to this version.
    pub(super) fn knowing(self, known: u16) -> Self {
        Self { filling: Filling { known, ..self.filling }, ..self }
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
            // Before the rest of it comes: until this program is upgraded, it would come again and again.
            Item::Row { table: 0, key, value } if key == META_CHARTERS.as_bytes() => {
                if Charters::claimed_rules(value).is_some_and(|claimed| claimed > self.known) {
                    // By the members' signatures: whoever sends it may say what it likes.
                    let charters = Charters::decode(value, self.place.alliance)
                        .map_err(|_| StoreError::Stream("its charters do not decode or verify"))?;
                    return Err(StoreError::Outdated(outdated(charters.rules(), self.known)));
                }
                self.staging.push(0, key, value)?;
            }
            Item::Row { table, key, value } => self.staging.push(table, key, value)?,
        }
        Ok(())
    }
}

impl Arrived {
    /// The charter that is in effect in it; `None`: charter 1, of which its log says nothing yet.
    pub(crate) fn in_effect(&self) -> Result<Option<InEffect>, StoreError> {
        self.staged.look(|tables| Ok(Charters::load(&tables.meta, self.place.alliance)?.in_effect()))
    }

    /// Whether it has all that this node's own has by now.
    fn still_extends(&self) -> Result<(), StoreError> {
        self.staged.look(|tables| sound::extends(tables, &self.place, &self.own.now()))
    }

    /// Takes the place of this node's own, which may have gone on since it was found good.
    pub(super) fn settle(self, applied: &[u8]) -> Result<OpenFile, StoreError> {
        self.still_extends()?;
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
        let Filling { place, known, attested, staging, .. } = self.filling;
        let (own, now) = (self.own, self.clock.as_ref().map(Clock::now));
        let staged = staging.finish(|tables| {
            let in_force = Charters::load(&tables.meta, place.alliance)?.rules();
            if in_force > known {
                return Err(StoreError::Outdated(outdated(in_force, known)));
            }
            sound::check(tables, &place, attested.as_ref(), now)?;
            // Its tree is known to be that of its entries by now.
            sound::extends(tables, &place, &own.now())
        });
        let staged = staged.map_err(fault)?;
        let (received_s, verified_s) = (received.as_secs_f32(), verifying.elapsed().as_secs_f32());
        let (shard, mib) = (place.shard, self.bytes >> 20);
        tracing::info!(shard, mib, received_s, verified_s, "the state that another node sent was found good");
        Ok(Arrived { staged, attested, place, own })
    }

    fn still_fits(staged: &Arrived) -> Result<(), MachineError> {
        staged.still_extends().map_err(fault)
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
