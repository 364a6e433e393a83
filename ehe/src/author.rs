//! Writing to a room: an author's strand, made into runs (SPEC 7).

use crate::event::CheckedEvent;
use crate::id::{EheId, RoomId, StrandId};
use crate::identity::Identity;
use crate::limits;
use crate::run::{Run, SeenCheckpoint, SignedRun, StrandEnd};

/// One author's strand in one room. It moves on only when the ledger has accepted a run, so a refused run costs nothing.
#[derive(Debug, Clone)]
pub struct Strand {
    room: RoomId,
    end: StrandEnd,
    before: Option<StrandEnd>,
    seen: Option<SeenCheckpoint>,
}

/// A run that was signed at the strand's end and waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// The run.
    pub run: SignedRun,
    /// The strand's end once it is accepted.
    pub end: StrandEnd,
}

impl Strand {
    /// A new strand. `strand` is 8 fresh random bytes; `before` is the end of the author's strand before it, if known.
    pub fn new(room: RoomId, strand: StrandId, before: Option<StrandEnd>) -> Self {
        Self { room, end: StrandEnd::start(strand), before, seen: None }
    }

    /// Where the strand ends.
    pub fn end(&self) -> StrandEnd {
        self.end
    }

    /// Signs a run over the next events: at least one, at most [`limits::RUN_EVENTS_MAX`]; further ones are left out.
    pub fn link(&self, identity: &Identity, ids: impl IntoIterator<Item = EheId>) -> Linked {
        let run = Run {
            room: self.room,
            author: identity.author_id(),
            from: self.end,
            ids: ids.into_iter().take(limits::RUN_EVENTS_MAX).collect(),
            seen: self.seen.clone(),
            continues: if self.end.next == 0 { self.before } else { None },
        };
        Linked { end: run.end(), run: run.sign(identity) }
    }

    /// [`Strand::link`] over checked events.
    pub fn link_events(&self, identity: &Identity, events: &[CheckedEvent]) -> Linked {
        self.link(identity, events.iter().map(CheckedEvent::id))
    }

    /// The ledger accepted the run, and the author verified this checkpoint.
    pub fn accepted(&mut self, linked: &Linked, seen: SeenCheckpoint) {
        self.end = linked.end;
        self.seen = Some(seen);
    }

    /// The author verified a checkpoint.
    pub fn saw(&mut self, seen: SeenCheckpoint) {
        self.seen = Some(seen);
    }
}
