//! That the rights in a room may have changed: told by apply to the streams that run in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ehe::id::RoomId;
use tokio::sync::watch;

/// The rooms in which somebody streams. Clones are the same. As many rooms as there are streams at most.
#[derive(Debug, Clone, Default)]
pub struct Rights(Arc<Mutex<BTreeMap<RoomId, watch::Sender<()>>>>);

/// A stream's view of its room: not whether it may go on, but when to ask.
#[derive(Debug)]
pub struct RightsWatch {
    rights: Rights,
    room: RoomId,
    changes: watch::Receiver<()>,
}

impl Rights {
    fn rooms(&self) -> MutexGuard<'_, BTreeMap<RoomId, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a room, from now on.
    pub fn watch(&self, room: RoomId) -> RightsWatch {
        let changes = self.rooms().entry(room).or_insert_with(|| watch::Sender::new(())).subscribe();
        RightsWatch { rights: self.clone(), room, changes }
    }

    /// The patient's records changed these rooms, in the state that is looked at from now on.
    pub(in crate::shard) fn changed(&self, changed: &BTreeSet<RoomId>) {
        if changed.is_empty() {
            return;
        }
        let rooms = self.rooms();
        changed.iter().filter_map(|room| rooms.get(room)).for_each(|room| room.send_replace(()));
    }

    /// The whole state is another one.
    pub(in crate::shard) fn all_changed(&self) {
        self.rooms().values().for_each(|room| room.send_replace(()));
    }
}

impl RightsWatch {
    /// Changes up to now are known: to be called before the state is looked at.
    pub fn mark_seen(&mut self) {
        self.changes.mark_unchanged();
    }

    /// Whether there was a change since.
    pub fn has_changed(&self) -> bool {
        self.changes.has_changed().unwrap_or(true)
    }

    /// Waits for one. Cancel safe.
    pub async fn changed(&mut self) {
        // The sender is kept while anybody watches.
        let _ = self.changes.changed().await;
    }
}

impl Drop for RightsWatch {
    fn drop(&mut self) {
        let mut rooms = self.rights.rooms();
        // This one still counts.
        if rooms.get(&self.room).is_some_and(|room| room.receiver_count() <= 1) {
            rooms.remove(&self.room);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_room_is_watched_as_long_as_somebody_streams_and_others_changes_wake_nobody() {
        let (rights, [a, b]) = (Rights::default(), [1, 2].map(|n| RoomId([n; 16])));
        let (mut one, mut two, mut other) = (rights.watch(a), rights.watch(a), rights.watch(b));
        rights.changed(&BTreeSet::from([a, RoomId([9; 16])]));
        assert!(one.has_changed() && !other.has_changed());
        assert_eq!(two.changed().now_or_never(), Some(()));
        assert_eq!(two.changed().now_or_never(), None, "it is known now");
        one.mark_seen();
        assert!(!one.has_changed());
        rights.all_changed();
        assert!(one.has_changed() && two.has_changed() && other.has_changed());
        assert_eq!(other.changed().now_or_never(), Some(()));
        drop((one, other));
        assert_eq!(rights.rooms().keys().copied().collect::<Vec<_>>(), [a]);
        drop(two);
        assert!(rights.rooms().is_empty());
    }
}
