//! Which windows cannot be sealed at present, as whoever closes them found. In memory alone: a start tries every window again.

use std::collections::BTreeSet;

use ehe::id::RoomId;

use super::tables::WindowKey;

/// Rooms of which nothing can be sealed, and windows of other rooms. Each has rows in the spool, so there are no more of them.
#[derive(Debug, Default)]
pub(super) struct OnHold {
    rooms: BTreeSet<RoomId>,
    windows: BTreeSet<WindowKey>,
}

impl OnHold {
    /// Whether readings of the window could not be sealed when that was last tried.
    pub(super) fn covers(&self, window: &WindowKey) -> bool {
        self.rooms.contains(&window.room) || self.windows.contains(window)
    }

    /// A window could not be sealed, and for a reason of its room no other one of it can (`whole_room`).
    pub(super) fn add(&mut self, window: WindowKey, whole_room: bool) {
        if whole_room {
            self.rooms.insert(window.room);
        } else {
            self.rooms.remove(&window.room);
        }
        self.windows.insert(window);
    }

    /// A window was sealed.
    pub(super) fn remove(&mut self, window: &WindowKey) {
        self.rooms.remove(&window.room);
        self.windows.remove(window);
    }

    /// What is known of the rooms has changed: nothing is on hold until it was tried again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
