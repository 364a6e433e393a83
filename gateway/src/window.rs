//! When a window of readings becomes an event. Pure: the readings themselves lie in the spool, here are only their numbers.
//!
//! A window closes a fixed time after the receipt of its first reading, at once when a value is worth an alarm, and at once when
//! it is full. A window whose room cannot be sealed to stays on hold until the room changes.

use std::collections::{BTreeMap, BTreeSet};

use ehe::id::RoomId;
use ehe::time::UnixMs;

use crate::spool::WindowKey;

/// So long before a window closes, at most, its room's records are looked at again: enough for a round trip, and a connection made anew.
const LOOK_BEFORE_MS: u64 = 3_000;

/// When windows close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// From the first reading's receipt on, in milliseconds.
    pub window_ms: u64,
    /// Readings at which it closes at once.
    pub readings_max: u64,
}

/// Why a window is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A value is worth an alarm.
    Alarm,
    /// It holds as many readings as an event may.
    Full,
    /// Its time is over.
    Time,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    deadline_ms: u64,
    readings: u64,
    alarm: bool,
    on_hold: bool,
    /// It was said that it closes soon.
    announced: bool,
}

/// All windows that have readings in the spool. Times are the monotonic clock's, in milliseconds.
#[derive(Debug)]
pub struct Windows {
    limits: WindowLimits,
    open: BTreeMap<WindowKey, Open>,
}

impl Windows {
    /// None yet.
    pub fn new(limits: WindowLimits) -> Self {
        Self { limits, open: BTreeMap::new() }
    }

    /// Readings came into a window: `received` by the wall clock, which reads `utc` while the monotonic clock reads `now_ms`.
    ///
    /// Also what a restart finds in the spool. A wall clock that was set back makes nobody wait longer than one window.
    pub fn arrived(
        &mut self,
        window: WindowKey,
        readings: u64,
        alarm: bool,
        received: UnixMs,
        utc: UnixMs,
        now_ms: u64,
    ) {
        let age_ms = utc.since(received).min(self.limits.window_ms);
        let deadline_ms = now_ms.saturating_add(self.limits.window_ms - age_ms);
        let new = Open { deadline_ms, readings: 0, alarm: false, on_hold: false, announced: false };
        let open = self.open.entry(window).or_insert(new);
        open.deadline_ms = open.deadline_ms.min(deadline_ms);
        open.readings = open.readings.saturating_add(readings);
        open.alarm |= alarm;
    }

    /// The window to close next, alarms first.
    pub fn due(&self, now_ms: u64) -> Option<(WindowKey, Reason)> {
        let reason = |open: &Open| {
            if open.on_hold {
                None
            } else if open.alarm {
                Some(Reason::Alarm)
            } else if open.readings >= self.limits.readings_max {
                Some(Reason::Full)
            } else if open.deadline_ms <= now_ms {
                Some(Reason::Time)
            } else {
                None
            }
        };
        let due = self.open.iter().filter_map(|(key, open)| Some((reason(open)?, open.deadline_ms, *key)));
        due.min().map(|(reason, _, key)| (key, reason))
    }

    /// When the next one is due, if nothing else happens.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.open.values().filter(|open| !open.on_hold).map(|open| open.deadline_ms).min()
    }

    /// The rooms whose windows close soon, each window once.
    pub fn closing_soon(&mut self, now_ms: u64) -> BTreeSet<RoomId> {
        let before = self.look_before_ms();
        let mut rooms = BTreeSet::new();
        for (window, open) in &mut self.open {
            if !open.on_hold && !open.announced && open.deadline_ms.saturating_sub(before) <= now_ms {
                open.announced = true;
                rooms.insert(window.room);
            }
        }
        rooms
    }

    /// When the next one closes soon, if nothing else happens.
    pub fn next_closing_soon_ms(&self) -> Option<u64> {
        let before = self.look_before_ms();
        let awaited = self.open.values().filter(|open| !open.on_hold && !open.announced);
        awaited.map(|open| open.deadline_ms.saturating_sub(before)).min()
    }

    fn look_before_ms(&self) -> u64 {
        LOOK_BEFORE_MS.min(self.limits.window_ms / 2)
    }

    /// The window's readings became events. `more`: readings that did not fit stay, and are due at once.
    pub fn closed(&mut self, window: WindowKey, more: bool) {
        if more {
            if let Some(open) = self.open.get_mut(&window) {
                open.deadline_ms = 0;
                open.readings = 0;
            }
        } else {
            self.open.remove(&window);
        }
    }

    /// The window cannot be sealed at present.
    pub fn hold(&mut self, window: WindowKey) {
        if let Some(open) = self.open.get_mut(&window) {
            open.on_hold = true;
        }
    }

    /// The rooms changed: everything on hold is due again.
    pub fn release(&mut self) {
        for open in self.open.values_mut() {
            if std::mem::take(&mut open.on_hold) {
                open.deadline_ms = 0;
            }
        }
    }

    /// Windows with readings.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no window has readings.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Windows on hold.
    pub fn on_hold(&self) -> usize {
        self.open.values().filter(|open| open.on_hold).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehe::time::Hour;
    use ehe::vital::Category;

    const UTC: UnixMs = UnixMs(1_700_000_000_000);

    fn key(room: u8, hour: u32) -> WindowKey {
        WindowKey { room: RoomId([room; 16]), category: Category::Cardiac, hour: Hour(hour) }
    }

    fn windows() -> Windows {
        Windows::new(WindowLimits { window_ms: 15_000, readings_max: 100 })
    }

    #[test]
    fn a_window_closes_fifteen_seconds_after_its_first_readings_receipt() {
        let mut windows = windows();
        windows.arrived(key(1, 1), 1, false, UTC, UTC.plus_ms(40), 1_040);
        assert_eq!(windows.next_deadline_ms(), Some(16_000));
        windows.arrived(key(1, 1), 1, false, UTC.plus_ms(9_000), UTC.plus_ms(9_000), 10_000);
        assert_eq!(windows.due(15_999), None);
        assert_eq!(windows.due(16_000), Some((key(1, 1), Reason::Time)));
        windows.closed(key(1, 1), false);
        assert!(windows.is_empty());
        assert_eq!(windows.next_deadline_ms(), None);
    }

    #[test]
    fn a_window_is_announced_once_and_some_seconds_before_it_closes() {
        let mut windows = windows();
        windows.arrived(key(1, 1), 1, false, UTC, UTC, 0);
        windows.arrived(key(1, 2), 1, false, UTC, UTC, 0);
        windows.arrived(key(2, 1), 1, false, UTC, UTC, 5_000);
        assert_eq!(windows.next_closing_soon_ms(), Some(12_000));
        assert!(windows.closing_soon(11_999).is_empty());
        assert_eq!(windows.closing_soon(12_000), BTreeSet::from([key(1, 1).room]));
        windows.arrived(key(1, 1), 1, false, UTC, UTC, 12_001);
        assert!(windows.closing_soon(12_001).is_empty());
        assert_eq!(windows.next_closing_soon_ms(), Some(17_000));
        windows.hold(key(2, 1));
        assert!(windows.closing_soon(u64::MAX).is_empty(), "on hold: what it waits for is looked for anyway");
        windows.closed(key(1, 1), false);
        windows.arrived(key(1, 1), 1, false, UTC, UTC, 20_000);
        assert_eq!(windows.next_closing_soon_ms(), Some(32_000));
    }

    #[test]
    fn an_alarm_closes_its_window_at_once_and_before_others() {
        let mut windows = windows();
        windows.arrived(key(1, 1), 1, false, UTC, UTC, 0);
        windows.arrived(key(2, 1), 1, false, UTC, UTC, 5_000);
        assert_eq!(windows.due(5_000), None);
        windows.arrived(key(2, 1), 1, true, UTC, UTC, 5_000);
        assert_eq!(windows.due(5_000), Some((key(2, 1), Reason::Alarm)));
        assert_eq!(windows.due(20_000), Some((key(2, 1), Reason::Alarm)), "even where others are overdue");
    }

    #[test]
    fn a_full_window_closes_at_once_and_what_did_not_fit_follows() {
        let mut windows = windows();
        windows.arrived(key(1, 1), 99, false, UTC, UTC, 0);
        assert_eq!(windows.due(0), None);
        windows.arrived(key(1, 1), 60, false, UTC, UTC, 0);
        assert_eq!(windows.due(0), Some((key(1, 1), Reason::Full)));
        windows.closed(key(1, 1), true);
        assert_eq!(windows.due(0), Some((key(1, 1), Reason::Time)));
    }

    #[test]
    fn rooms_categories_and_hours_have_windows_of_their_own() {
        let mut windows = windows();
        windows.arrived(key(1, 1), 1, false, UTC, UTC, 0);
        windows.arrived(key(1, 2), 1, false, UTC, UTC, 0);
        windows.arrived(key(2, 1), 1, false, UTC, UTC, 0);
        let other = WindowKey { category: Category::Body, ..key(1, 1) };
        windows.arrived(other, 1, false, UTC, UTC, 0);
        assert_eq!(windows.len(), 4);
    }

    #[test]
    fn a_window_on_hold_waits_for_its_room_and_keeps_no_other_waiting() {
        let mut windows = windows();
        windows.arrived(key(1, 1), 1, true, UTC, UTC, 0);
        windows.arrived(key(2, 1), 1, false, UTC, UTC, 0);
        windows.hold(key(1, 1));
        assert_eq!(windows.on_hold(), 1);
        assert_eq!(windows.due(15_000), Some((key(2, 1), Reason::Time)));
        windows.arrived(key(1, 1), 500, true, UTC, UTC, 0);
        windows.closed(key(2, 1), false);
        assert_eq!(windows.due(u64::MAX), None);
        windows.release();
        assert_eq!(windows.due(0), Some((key(1, 1), Reason::Alarm)));
    }

    #[test]
    fn after_a_restart_a_window_has_the_time_that_was_left() {
        let mut windows = windows();
        windows.arrived(key(1, 1), 3, false, UTC, UTC.plus_ms(10_000), 7);
        assert_eq!(windows.next_deadline_ms(), Some(5_007));
        windows.arrived(key(2, 1), 3, false, UTC, UTC.plus_ms(86_400_000), 7);
        assert_eq!(windows.due(7), Some((key(2, 1), Reason::Time)));
    }

    #[test]
    fn a_wall_clock_that_was_set_back_makes_nobody_wait_longer_than_one_window() {
        let mut windows = windows();
        windows.arrived(key(1, 1), 1, false, UTC, UnixMs(0), 100);
        assert_eq!(windows.next_deadline_ms(), Some(15_100));
    }
}
