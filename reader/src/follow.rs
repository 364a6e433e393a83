//! Following a room: the ledger's checks ([`Follower`]), what the records mean ([`RoomView`]), and what was seen before.

use ehe::charter::VerifiedCharter;
use ehe::checkpoint::VerifiedCheckpoint;
use ehe::event::Kind;
use ehe::id::{AllianceId, AuthorId, Nonce, RoomId};
use ehe::identity::Identity;
use ehe::ledger::{Follower, Verified};
use ehe::restoration::Moved;
use ehe::room::RoomState;
use ehe::wire::{Head, Item};

use crate::error::Error;
use crate::memory::{MemoryError, RoomMemory, Tie};
use crate::restored;
use crate::session::Shown;
use crate::view::RoomView;

/// A room, as far as it was followed.
pub struct Following {
    /// Who asks, under the id of its keys.
    asks: Identity,
    /// Who that is in the room: the patient, where these are the patient's keys.
    me: Identity,
    keys: AuthorId,
    alliance: AllianceId,
    room: RoomId,
    follower: Follower,
    view: RoomView,
    known: Option<RoomMemory>,
    /// Whether the one who asks is the identity of the directory that remembers.
    own_name: bool,
    confirmed: Option<VerifiedCheckpoint>,
    /// An entry is not the one that was remembered at its place. Whether that may be, the head tells: of a log that was restored, it may.
    differs: Option<MemoryError>,
    lost: Option<String>,
}

impl Following {
    /// Follows from the first entry. `whole`: the patient's view, in which nothing may be left out.
    pub fn new(room: RoomId, whole: bool, me: Identity, alliance: AllianceId, known: Option<RoomMemory>) -> Self {
        let (follower, view) = (Follower::new(room, whole), RoomView::default());
        let keys = me.public().author_id();
        Self {
            asks: me.acting_as(keys),
            me,
            keys,
            alliance,
            room,
            follower,
            view,
            known,
            own_name: true,
            confirmed: None,
            differs: None,
            lost: None,
        }
    }

    /// Follows in another name than that of the directory's identity: what that is in the room is not told by it.
    pub fn in_another_name(self) -> Self {
        Self { own_name: false, ..self }
    }

    /// Verifies the next entry and learns from it.
    pub fn take(&mut self, item: Item) -> Result<Shown, Error> {
        let (index, at) = (item.leaf.index, item.leaf.accepted_at);
        let verified = self.follower.take(item, self.alliance)?;
        if let Some(known) = &self.known {
            self.differs = self.differs.take().or(known.check_entry(self.follower.next(), self.follower.last()).err());
        }
        if let Verified::Run { run, events, .. } = &verified {
            // From the record on that names them, the patient's new keys are the patient, under the first keys' id.
            if let Some(state) = self.follower.room()
                && state.owner != self.me.author_id()
                && state.owner_keys.iter().any(|key| key.id == self.keys)
            {
                self.me = self.me.acting_as(state.owner);
            }
            self.view.learn_run(run, self.me.author_id());
            for event in events.iter().filter(|e| !e.core().kind.is_content() && e.core().kind != Kind::Wrap) {
                self.view.learn(event, &self.me);
                self.view.note(event, at);
            }
        }
        Ok(Shown::Entry(index, Box::new(verified)))
    }

    /// Ties everything so far to a quorum's checkpoint, and to what was seen before: by the records that lead to it, where the log
    /// was restored since.
    pub fn confirm(
        &mut self,
        head: &Head,
        nonce: Nonce,
        charter: &VerifiedCharter,
        moved: Option<&Moved>,
    ) -> Result<RoomMemory, Error> {
        let verified = self.follower.confirm(head, nonce, None, charter)?;
        let checkpoint = verified.checkpoint();
        let entries = self.follower.next();
        if let Some(known) = &self.known {
            let lost = moved.is_some_and(|moved| !moved.lost.is_empty());
            match moved {
                None => known.check_log(checkpoint).and_then(|()| known.check_end(entries))?,
                Some(moved) => known.check_restored(moved, checkpoint, entries)?,
            }
            if let Some(differs) = self.differs.take().filter(|_| !lost) {
                return Err(differs.into());
            }
            if let Some(lost) = moved.and_then(|moved| restored::lost(moved, known, entries)) {
                tracing::warn!(room = %self.room, "{lost}");
                self.lost = Some(lost);
            }
        }
        let memory = RoomMemory {
            origin: checkpoint.origin.clone(),
            size: checkpoint.size,
            root: checkpoint.root,
            entries: self.follower.next(),
            last_leaf: self.follower.last(),
            accepted: Some(head.last.leaf.accepted_at),
            tie: self.tie(),
            charter: checkpoint.charter_version,
            note: Some(verified.note().into()),
        };
        self.known = Some(memory.clone());
        self.confirmed = Some(verified);
        Ok(memory)
    }

    /// The first entry that its author did not sign, and that nothing shown so far voids. Until something does, no head confirms anything.
    pub fn unvoided(&self) -> Option<u64> {
        self.follower.unvoided()
    }

    /// Verifies that what was shown stands in the ledger and ends here, though it is not to be believed yet.
    pub fn ends(&self, head: &Head, nonce: Nonce, charter: &VerifiedCharter) -> Result<(), Error> {
        Ok(self.follower.ends(head, nonce, charter).map(drop)?)
    }

    /// What was confirmed last is not believed after all: what was known before counts, and is to be held against what comes.
    pub fn disbelieve(&mut self, before: Option<RoomMemory>) {
        self.known = before;
        self.confirmed = None;
    }

    /// What the directory's identity is in the room, where that was shown just now.
    fn tie(&self) -> Tie {
        if !self.own_name {
            return self.known.as_ref().map_or(Tie::Stranger, |known| known.tie);
        }
        let own = self.follower.room().is_some_and(|state| state.owner == self.me.author_id());
        if own { Tie::Own } else { Tie::Party }
    }

    /// The room.
    pub fn room(&self) -> RoomId {
        self.room
    }

    /// Who follows, as the room names it.
    pub fn me(&self) -> &Identity {
        &self.me
    }

    /// Who follows, as requests name it: by its keys.
    pub fn asks(&self) -> &Identity {
        &self.asks
    }

    /// The rules' state.
    pub fn state(&self) -> Result<&RoomState, Error> {
        self.follower.room().ok_or(Error::EmptyRoom(self.room))
    }

    /// What the records mean.
    pub fn view(&self) -> &RoomView {
        &self.view
    }

    /// Entries followed: the index of the next one.
    pub fn entries(&self) -> u64 {
        self.follower.next()
    }

    /// What was verified last, here or in an earlier command.
    pub fn known(&self) -> Option<&RoomMemory> {
        self.known.as_ref()
    }

    /// What was seen earlier and is lost, as it came out at the last confirmation.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The checkpoint of the last confirmation.
    pub fn confirmed(&self) -> Option<&VerifiedCheckpoint> {
        self.confirmed.as_ref()
    }
}
