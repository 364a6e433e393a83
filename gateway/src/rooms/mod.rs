//! Rooms as the gateway knows them: verified control state ([`follow`]), group keys ([`keys`]), sealing ([`sealer`]).
//!
//! Nothing here does IO. The uplink fetches and hands in what it verified; sealing works from that alone, so a gateway that
//! starts without a network seals from what the spool kept.

pub mod follow;
pub mod keys;
pub mod sealer;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use ehe::id::{AllianceId, RoomId};
use ehe::identity::Identity;
use tokio::sync::watch;

pub use self::follow::{Followed, SavedError};
pub use self::sealer::{Commit, SealHold, Sealed, SealedEvent, Sealer};

/// How soon the records of an assigned room are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Readings of it could not be sealed under what is known.
    pub on_hold: bool,
    /// When it was last said that readings of it are about to be sealed.
    pub sealing: Option<Instant>,
}

/// The verified control state of all rooms that have an assignment. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Rooms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    identity: Arc<Identity>,
    alliance: AllianceId,
    state: RwLock<State>,
    changed: watch::Sender<u64>,
    assigned: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    assigned: BTreeSet<RoomId>,
    /// Rooms with readings that could not be sealed under what is known of them.
    on_hold: BTreeSet<RoomId>,
    /// When it was last said that readings of a room are about to be sealed.
    sealing: BTreeMap<RoomId, Instant>,
    followed: BTreeMap<RoomId, Arc<Followed>>,
}

impl Rooms {
    /// No room yet.
    pub fn new(identity: Arc<Identity>, alliance: AllianceId) -> Self {
        let (changed, assigned) = (watch::Sender::new(0), watch::Sender::new(0));
        Self(Arc::new(Inner { identity, alliance, state: RwLock::default(), changed, assigned }))
    }

    /// Takes in what the spool kept of a room. An error is not fatal: the room is then followed from its first entry.
    pub fn restore(&self, room: RoomId, saved: &[u8]) -> Result<(), SavedError> {
        let followed = Followed::decode(saved, room, self.0.alliance)?;
        self.advance(room, followed);
        Ok(())
    }

    /// Sets which rooms have an assignment: those are followed.
    pub fn assigned(&self, rooms: BTreeSet<RoomId>) {
        let mut state = self.write();
        state.sealing.retain(|room, _| rooms.contains(room));
        state.assigned = rooms;
        drop(state);
        self.0.assigned.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The rooms that have an assignment, and how soon they are looked at.
    pub fn assignments(&self) -> BTreeMap<RoomId, Wanted> {
        let state = self.read();
        let wanted =
            |room: &RoomId| Wanted { on_hold: state.on_hold.contains(room), sealing: state.sealing.get(room).copied() };
        state.assigned.iter().map(|room| (*room, wanted(room))).collect()
    }

    /// Readings of a room will be sealed in a moment: its records are looked at before, so that they are sealed to the keys that hold then,
    /// and not to those of somebody whose right has ended since nodes were last heard.
    pub fn about_to_seal(&self, room: RoomId, now: Instant) {
        let mut state = self.write();
        if !state.assigned.contains(&room) {
            return;
        }
        state.sealing.insert(room, now);
        drop(state);
        self.0.assigned.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Readings of a room were sealed, or could not be.
    fn hold(&self, room: RoomId, on_hold: bool) {
        if self.read().on_hold.contains(&room) == on_hold {
            return;
        }
        let mut state = self.write();
        let news = if on_hold { state.on_hold.insert(room) } else { state.on_hold.remove(&room) };
        drop(state);
        if news && on_hold {
            self.0.assigned.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Moves when the assignments were set, a room's readings came on hold, or are about to be sealed: the uplink looks at them anew.
    pub fn assignments_changed(&self) -> watch::Receiver<u64> {
        self.0.assigned.subscribe()
    }

    /// What is verified of a room; none before it was first followed.
    pub fn get(&self, room: RoomId) -> Option<Arc<Followed>> {
        self.read().followed.get(&room).cloned()
    }

    /// Takes in what was followed. Says whether it was news: an older state than the one at hand changes nothing.
    pub fn advance(&self, room: RoomId, followed: Followed) -> bool {
        let mut state = self.write();
        let news = match state.followed.get(&room) {
            // Of a log that was restored there may be less; of one log there never is.
            Some(before) if followed.next() < before.next() && followed.seen().origin == before.seen().origin => {
                return false;
            }
            Some(before) => {
                before.control_seq() != followed.control_seq() || before.seen().origin != followed.seen().origin
            }
            None => true,
        };
        state.followed.insert(room, Arc::new(followed));
        drop(state);
        if news {
            self.0.changed.send_modify(|n| *n = n.wrapping_add(1));
        }
        news
    }

    /// Moves when a room's verified control state changed: what waits on a [`SealHold`] is tried again.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Who we are.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.0.identity
    }

    /// The alliance that the rooms were made for.
    pub fn alliance(&self) -> AllianceId {
        self.0.alliance
    }

    // The state is replaced in single steps, so a panic elsewhere cannot have left it half changed.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
