//! When to visit which room. Pure: times and chance are arguments.
//!
//! A room is visited when its outbox holds something or its control records are due, never twice at once, and not before its
//! pause after a failure is over. Nothing here needs new traffic to go on: each pause ends by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ehe::id::RoomId;

use super::backoff::Backoff;
use super::visit::{Followed, Outcome};

/// After a visit that found nothing, the room rests for a moment: the backlog's numbers may lag behind its rows.
const IDLE_REST: Duration = Duration::from_millis(5);
/// A room that refuses us is asked again after the longest pause of other failures at first, and so many times it at last: only
/// its patient can change that, and each refusal is counted in the patient's audit.
const REFUSED_MAX: u64 = 10;

/// The rooms' places in time.
pub(super) struct Schedule {
    rooms: BTreeMap<RoomId, Place>,
    min_ms: u64,
    max_ms: u64,
    refresh: Duration,
}

struct Place {
    busy: bool,
    /// Not visited before.
    due: Instant,
    backoff: Backoff,
    /// When the control records are looked at again.
    follow_at: Instant,
    /// The same, where readings are on hold: the patient may grant what they lack at any moment.
    follow_soon: Instant,
    follow_backoff: Backoff,
    refused_backoff: Backoff,
}

/// A visit to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) room: RoomId,
    pub(super) follow: bool,
}

impl Schedule {
    pub(super) fn new(min_ms: u64, max_ms: u64, refresh: Duration) -> Self {
        Self { rooms: BTreeMap::new(), min_ms, max_ms, refresh }
    }

    /// Visits to begin now, at most `places`: rooms with a backlog in the order given, then rooms whose control records are
    /// due. `assigned` says of each room whether its readings are on hold. The rooms are busy until [`Schedule::ended`].
    pub(super) fn begin(
        &mut self,
        backlog: &[RoomId],
        assigned: &BTreeMap<RoomId, bool>,
        places: usize,
        now: Instant,
    ) -> Vec<Turn> {
        let (min_ms, max_ms) = (self.min_ms, self.max_ms);
        let mut turns = Vec::new();
        for (room, waits) in backlog.iter().map(|room| (room, true)).chain(assigned.keys().map(|room| (room, false))) {
            if turns.len() == places {
                break;
            }
            let place = self.rooms.entry(*room).or_insert_with(|| Place::new(min_ms, max_ms, now));
            let follow = assigned.get(room).is_some_and(|on_hold| place.follow_due(*on_hold) <= now);
            if !place.busy && place.due <= now && (waits || follow) {
                place.busy = true;
                turns.push(Turn { room: *room, follow });
            }
        }
        turns
    }

    /// A visit ended.
    pub(super) fn ended(&mut self, room: RoomId, outcome: Outcome, followed: Followed, now: Instant, chance: u64) {
        let Some(place) = self.rooms.get_mut(&room) else { return };
        place.busy = false;
        match outcome {
            Outcome::Idle | Outcome::More => {
                place.backoff.succeeded();
                place.due = if outcome == Outcome::Idle { now + IDLE_REST } else { now };
            }
            Outcome::Later { at: Some(at) } => place.due = at,
            Outcome::Later { at: None } => place.due = now + place.backoff.failed(chance),
        }
        match followed {
            Followed::NotTried => {}
            Followed::Yes => {
                place.follow_backoff.succeeded();
                place.refused_backoff.succeeded();
                place.follow_at = now + self.refresh;
                place.follow_soon = now + self.refresh.min(Duration::from_millis(self.max_ms));
            }
            Followed::No => {
                place.follow_at = now + place.follow_backoff.failed(chance);
                place.follow_soon = place.follow_at;
            }
            Followed::Refused => {
                place.follow_at = now + place.refused_backoff.failed(chance);
                place.follow_soon = place.follow_at;
            }
        }
    }

    /// When the next visit is due, if nothing changes before.
    pub(super) fn wake(&self, backlog: &[RoomId], assigned: &BTreeMap<RoomId, bool>) -> Option<Instant> {
        let idle = |room: &RoomId| self.rooms.get(room).filter(|place| !place.busy);
        let sends = backlog.iter().filter_map(idle).map(|place| place.due);
        let follows = assigned
            .iter()
            .filter_map(|(room, on_hold)| idle(room).map(|place| place.follow_due(*on_hold).max(place.due)));
        sends.chain(follows).min()
    }

    /// Forgets rooms that have neither backlog nor assignment.
    pub(super) fn keep(&mut self, of_use: impl Fn(&RoomId) -> bool) {
        self.rooms.retain(|room, place| place.busy || of_use(room));
    }
}

impl Place {
    fn new(min_ms: u64, max_ms: u64, now: Instant) -> Self {
        let backoff = Backoff::new(min_ms, max_ms);
        let refused_backoff = Backoff::new(max_ms, max_ms.saturating_mul(REFUSED_MAX));
        let follow_backoff = backoff.clone();
        Self { busy: false, due: now, follow_at: now, follow_soon: now, follow_backoff, refused_backoff, backoff }
    }

    fn follow_due(&self, on_hold: bool) -> Instant {
        if on_hold { self.follow_soon } else { self.follow_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RoomId = RoomId([1; 16]);
    const B: RoomId = RoomId([2; 16]);

    fn schedule() -> Schedule {
        Schedule::new(500, 60_000, Duration::from_secs(900))
    }

    fn rooms(turns: &[Turn]) -> Vec<RoomId> {
        turns.iter().map(|turn| turn.room).collect()
    }

    #[test]
    fn urgent_rooms_come_in_the_order_given_and_no_room_is_visited_twice_at_once() {
        let (mut schedule, now) = (schedule(), Instant::now());
        let assigned = BTreeMap::new();
        assert_eq!(rooms(&schedule.begin(&[B, A], &assigned, 1, now)), [B]);
        assert_eq!(rooms(&schedule.begin(&[B, A], &assigned, 8, now)), [A]);
        assert!(schedule.begin(&[B, A], &assigned, 8, now).is_empty());
        schedule.ended(B, Outcome::More, Followed::NotTried, now, 0);
        assert_eq!(rooms(&schedule.begin(&[B, A], &assigned, 8, now)), [B]);
    }

    #[test]
    fn a_room_whose_node_is_away_is_visited_again_without_new_traffic() {
        let (mut schedule, now) = (schedule(), Instant::now());
        let assigned = BTreeMap::new();
        assert_eq!(schedule.begin(&[A], &assigned, 8, now).len(), 1);
        schedule.ended(A, Outcome::Later { at: None }, Followed::NotTried, now, u64::MAX);
        assert!(schedule.begin(&[A], &assigned, 8, now).is_empty());
        let wake = schedule.wake(&[A], &assigned).unwrap();
        assert!(wake > now && wake <= now + Duration::from_millis(500));
        assert_eq!(rooms(&schedule.begin(&[A], &assigned, 8, wake)), [A]);
    }

    #[test]
    fn a_room_that_refuses_is_asked_again_after_half_a_minute_at_the_earliest_and_ever_less_often() {
        let (mut schedule, mut now) = (schedule(), Instant::now());
        let on_hold = BTreeMap::from([(A, true)]);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert_eq!(schedule.begin(&[], &on_hold, 8, now), [Turn { room: A, follow: true }]);
            schedule.ended(A, Outcome::Idle, Followed::Refused, now, 0);
            let wake = schedule.wake(&[], &on_hold).unwrap();
            pauses.push((wake - now).as_secs());
            now = wake;
        }
        assert_eq!(pauses, [30, 60, 120, 240, 300, 300]);
    }

    #[test]
    fn an_assigned_room_without_traffic_is_followed_at_once_and_then_from_time_to_time() {
        let (mut schedule, now) = (schedule(), Instant::now());
        let assigned = BTreeMap::from([(A, false)]);
        assert_eq!(schedule.begin(&[], &assigned, 8, now), [Turn { room: A, follow: true }]);
        schedule.ended(A, Outcome::Idle, Followed::Yes, now, 0);
        assert_eq!(schedule.wake(&[], &assigned), Some(now + Duration::from_secs(900)));
        let on_hold = BTreeMap::from([(A, true)]);
        assert_eq!(schedule.wake(&[], &on_hold), Some(now + Duration::from_secs(60)));
        let soon = now + IDLE_REST;
        assert_eq!(schedule.begin(&[A], &assigned, 8, soon), [Turn { room: A, follow: false }]);
        schedule.ended(A, Outcome::Idle, Followed::NotTried, now, 0);
        let later = now + Duration::from_secs(900);
        assert_eq!(schedule.begin(&[], &assigned, 8, later), [Turn { room: A, follow: true }]);
        schedule.ended(A, Outcome::Idle, Followed::No, later, 0);
        assert!(schedule.wake(&[], &assigned).unwrap() <= later + Duration::from_millis(500));
    }
}
