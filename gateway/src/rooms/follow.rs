//! Following a room's control records: what may be sealed, to which key, on the patient's signature only.
//!
//! Pure: [`Following`] makes the request and judges what a node answers to it; who sends and receives stands in
//! [`crate::uplink`]. The result only ever moves forward, whoever shows it.

use std::sync::Arc;

use ehe::cbor::{self, CborError};
use ehe::charter::VerifiedCharter;
use ehe::checkpoint::{CheckpointError, VerifiedCheckpoint};
use ehe::event::CheckedEvent;
use ehe::id::{AllianceId, Hash, Nonce, RoomId};
use ehe::identity::Identity;
use ehe::leaf::ReceiptError;
use ehe::ledger::{Follower, LedgerError, Verified};
use ehe::read::{Part, Purpose, ReadRequest, Scope, SignedRequest};
use ehe::restoration::Moved;
use ehe::room::RoomState;
use ehe::run::SeenCheckpoint;
use ehe::time::{Hour, UnixMs};
use ehe::wire::{Head, Item};
use minicbor::{Decode, Encode};

use super::keys::{KeyRing, Unreadable};

/// Largest saved state; what the spool keeps for a room. Thousands of epochs and grants fit.
const SAVED_MAX_BYTES: usize = 8 * 1024 * 1024;

/// The verified control state of one room, as of a checkpoint that a quorum signed. Its encoding is what the spool keeps.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Followed {
    /// [`Followed::VERSION`].
    #[n(0)]
    version: u8,
    #[n(1)]
    room: RoomState,
    /// Entries of the room that were verified.
    #[n(2)]
    next: u64,
    /// Leaf hash of the last of them.
    #[n(3)]
    last: Hash,
    #[n(4)]
    keys: KeyRing,
    /// The checkpoint that vouched for it.
    #[n(5)]
    seen: SeenCheckpoint,
}

/// Why a saved state is not used: the room is then followed anew from its first entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// Not the encoding of a state.
    #[error("saved room state: {0}")]
    Cbor(#[from] CborError),
    /// Written by another version of this program.
    #[error("saved room state of version {0} is not known here")]
    Version(u8),
    /// Of another room or alliance.
    #[error("saved room state of another room or alliance")]
    Other,
}

impl Followed {
    /// The version of the encoding that is written and read.
    const VERSION: u8 = 3;

    /// For the spool.
    pub fn encode(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// From the spool, which vouches that we wrote it.
    pub fn decode(bytes: &[u8], room: RoomId, alliance: AllianceId) -> Result<Self, SavedError> {
        let saved: Self = cbor::from_slice(bytes, SAVED_MAX_BYTES)?;
        if saved.version != Self::VERSION || saved.room.version != RoomState::VERSION {
            return Err(SavedError::Version(saved.version));
        }
        if saved.room.room != room || saved.room.alliance != alliance {
            return Err(SavedError::Other);
        }
        Ok(saved)
    }

    /// Members, epochs and grants.
    pub fn room(&self) -> &RoomState {
        &self.room
    }

    /// Group keys.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// The newest checkpoint that was verified for it.
    pub fn seen(&self) -> &SeenCheckpoint {
        &self.seen
    }

    /// How many of the patient's control events it holds: compared with what a node says of the room.
    pub fn control_seq(&self) -> u64 {
        self.room.next_control
    }

    /// The same as of a restored log, if all of it is in that; what was followed beyond is lost, and the room is followed anew.
    pub fn carried(&self, moved: Moved) -> Option<Self> {
        moved.lost.is_empty().then(|| Self { seen: moved.kept, ..self.clone() })
    }

    /// Entries that were verified.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Leaf hash of the last of them.
    #[cfg(test)]
    pub(super) fn last(&self) -> Hash {
        self.last
    }
}

/// What does not hold in what a node showed. The node is at fault, unless the charter at hand is old.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// Chain, signature, rules, inclusion.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It proved a head, and showed no room-create.
    #[error("the room's first entry was not shown")]
    NoRoom,
    /// The log's incarnation changed, and nobody showed what was kept.
    #[error(
        "the log is now {shown}, where {known} was followed before, and no record that the members signed leads there"
    )]
    OtherLog {
        /// Origin that was followed.
        known: String,
        /// Origin shown.
        shown: String,
    },
    /// One size, two roots: the history was rewritten.
    #[error(
        "the log of {size} leaves has another root than the one that was verified before: its history was rewritten"
    )]
    Forked {
        /// Leaves.
        size: u64,
        /// The signed checkpoint that says so. A quorum signed it.
        note: String,
    },
    /// The log begins otherwise than what was verified of it, as is proven.
    #[error(
        "the log of {shown} leaves does not agree with the one of {known} leaves that was verified before: its history was rewritten"
    )]
    Rewritten {
        /// Leaves that were verified.
        known: u64,
        /// Leaves shown.
        shown: u64,
    },
    /// It is not proven to go on from what was verified.
    #[error(
        "the proof that the log of {shown} leaves and the one of {known} leaves, verified before, are one proves nothing"
    )]
    NotProven {
        /// Leaves that were verified.
        known: u64,
        /// Leaves shown.
        shown: u64,
    },
    /// It is smaller than what was verified, and the node has no more.
    #[error(
        "the log has {shown} leaves, where {known} were verified before: the node is behind, or the ledger was rolled back without a record \
         of it. Ask those who run the nodes"
    )]
    WentBack {
        /// Leaves that were verified.
        known: u64,
        /// Leaves shown.
        shown: u64,
    },
}

impl FollowError {
    /// The signed checkpoint of another log, where one was shown.
    pub fn forked(&self) -> Option<&str> {
        match self {
            Self::Forked { note, .. } => Some(note),
            _ => None,
        }
    }

    /// The charter that is needed to judge the answer, where that is the whole trouble.
    pub fn needs_charter(&self) -> Option<u32> {
        match self {
            Self::Ledger(LedgerError::Head(why)) => needs_charter(why),
            _ => None,
        }
    }
}

/// The charter that is needed to judge a receipt, where that is the whole trouble.
pub fn needs_charter(why: &ReceiptError) -> Option<u32> {
    match why {
        ReceiptError::Checkpoint(CheckpointError::OtherCharter(version)) => Some(*version),
        _ => None,
    }
}

/// Holds a verified checkpoint against the newest one that was verified before.
pub fn moves_forward(known: Option<&SeenCheckpoint>, shown: &VerifiedCheckpoint) -> Result<(), FollowError> {
    let log = shown.checkpoint();
    match known {
        Some(known) if known.origin != log.origin => {
            Err(FollowError::OtherLog { known: known.origin.clone(), shown: log.origin.clone() })
        }
        Some(known) if known.size == log.size && known.root != log.root => {
            Err(FollowError::Forked { size: log.size, note: shown.note().into() })
        }
        _ => Ok(()),
    }
}

/// A fetch of control records under way.
#[derive(Debug)]
pub struct Following {
    identity: Arc<Identity>,
    alliance: AllianceId,
    follower: Follower,
    keys: KeyRing,
    known: Option<SeenCheckpoint>,
    nonce: Nonce,
    unreadable: Option<Unreadable>,
}

impl Following {
    /// Starts where `before` ended, and says what to send. `nonce` is fresh and random.
    pub fn begin(
        identity: Arc<Identity>,
        alliance: AllianceId,
        room: RoomId,
        before: Option<&Followed>,
        nonce: Nonce,
        now: UnixMs,
    ) -> (Self, SignedRequest) {
        let follower = match before {
            Some(before) => Follower::resume(before.room.clone(), before.next, before.last),
            None => Follower::new(room, false),
        };
        let known = before.map(|b| b.seen.clone());
        let request = ReadRequest {
            alliance,
            room,
            reader: identity.author_id(),
            nonce,
            scope: Scope { part: Part::Control, epochs: Vec::new(), from: Hour(0), until: Hour(u32::MAX) },
            purpose: Purpose::Operations,
            actor: None,
            head: known.clone(),
            from_index: follower.next(),
            made_at: now,
        }
        .sign(&identity);
        let keys = before.map(|b| b.keys.clone()).unwrap_or_default();
        (Self { identity, alliance, follower, keys, known, nonce, unreadable: None }, request)
    }

    /// Verifies the next entry.
    pub fn take(&mut self, item: Item) -> Result<(), FollowError> {
        // Control events come verified and judged: whoever made them, the patient or a delegate, had the right to.
        if let Verified::Run { events, .. } = self.follower.take(item, self.alliance)? {
            events.iter().filter(|e| !e.core().kind.is_content()).for_each(|event| self.learn(event));
        }
        Ok(())
    }

    fn learn(&mut self, event: &CheckedEvent) {
        let Some(owner) = self.follower.room().map(|room| room.owner) else { return };
        if let Err(unreadable) = self.keys.learn(event, owner, &self.identity) {
            self.unreadable = Some(unreadable);
        }
    }

    /// A record that the patient's program wrote wrongly: said, not fatal. Readings of its category stay on hold.
    pub fn unreadable(&self) -> Option<&Unreadable> {
        self.unreadable.as_ref()
    }

    /// Ties what was taken to a quorum's checkpoint. Only now may it be used.
    pub fn finish(self, head: &Head, charter: &VerifiedCharter) -> Result<Followed, FollowError> {
        let known_size = self.known.as_ref().map(|k| k.size);
        let checkpoint = self.follower.confirm(head, self.nonce, known_size, charter)?;
        let seen = checkpoint.checkpoint().seen();
        moves_forward(self.known.as_ref(), &checkpoint)?;
        let room = self.follower.room().cloned().ok_or(FollowError::NoRoom)?;
        let (next, last) = (self.follower.next(), self.follower.last());
        Ok(Followed { version: Followed::VERSION, room, next, last, keys: self.keys, seen })
    }
}
