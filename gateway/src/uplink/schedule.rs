//! When to visit which room. Pure: times and chance are arguments.
//!
//! A room is visited when its outbox holds something or its control records are due, never twice at once, and not before its
//! pause after a failure is over. Nothing here needs new traffic to go on: each pause ends by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ehe::id::RoomId;

use super::backoff::Backoff;
use super::visit::{Followed, Outcome};
use crate::rooms::Wanted;

/// After a visit that found nothing, the room rests for a moment: the backlog's numbers may lag behind its rows.
const IDLE_REST: Duration = Duration::from_millis(5);
/// A room that refuses us is asked again after so many times the shortest pause of other failures at first, and so many times the longest
/// at last: only its patient can change that, and each refusal is counted in the patient's audit. Doubling in between, a new grant is
/// noticed within about the time for which there was none.
const REFUSED_MIN: u64 = 10;
const REFUSED_MAX: u64 = 10;

/// Records that were asked for so lately are fresh enough to seal to: several windows of a room that close together ask once.
const FRESH: Duration = Duration::from_secs(2);

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
    /// The same, where readings are on hold: the patient may grant what they lack at any moment. At once when they come on hold, then
    /// less and less often while the records stay as they are. Nobody counts these looks.
    follow_soon: Instant,
    hold_backoff: Backoff,
    follow_backoff: Backoff,
    refused_backoff: Backoff,
    /// When the control records were last asked for.
    asked: Option<Instant>,
    /// The last answer to that was a refusal.
    refused: bool,
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
    /// due. `assigned` says of each room how soon its records are wanted. The rooms are busy until [`Schedule::ended`].
    pub(super) fn begin(
        &mut self,
        backlog: &[RoomId],
        assigned: &BTreeMap<RoomId, Wanted>,
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
            let follow = assigned.get(room).is_some_and(|wanted| place.follow_due(*wanted) <= now);
            if !place.busy && place.due <= now && (waits || follow) {
                place.busy = true;
                place.asked = if follow { Some(now) } else { place.asked };
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
        place.refused = match followed {
            Followed::NotTried => place.refused,
            Followed::Refused => true,
            Followed::Yes { .. } | Followed::No => false,
        };
        match followed {
            Followed::NotTried => {}
            Followed::Yes { news } => {
                place.follow_backoff.succeeded();
                place.refused_backoff.succeeded();
                // In its turn: nothing has been on hold for as long.
                if news || place.follow_at <= now {
                    place.hold_backoff.succeeded();
                }
                place.follow_at = now + self.refresh;
                place.follow_soon = now + self.refresh.min(place.hold_backoff.failed(chance));
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

    /// A connection ended while nobody used it: records are asked for again soon, and then after the pauses of any failure, so that the node
    /// is found again although there is nothing to send.
    pub(super) fn lost(&mut self, now: Instant, chance: u64) {
        for place in self.rooms.values_mut().filter(|place| !place.refused) {
            let soon = now + place.follow_backoff.failed(chance);
            place.follow_at = place.follow_at.min(soon);
            place.follow_soon = place.follow_soon.min(soon);
        }
    }

    /// When the next visit is due, if nothing changes before.
    pub(super) fn wake(&self, backlog: &[RoomId], assigned: &BTreeMap<RoomId, Wanted>) -> Option<Instant> {
        let idle = |room: &RoomId| self.rooms.get(room).filter(|place| !place.busy);
        let sends = backlog.iter().filter_map(idle).map(|place| place.due);
        let follows = assigned
            .iter()
            .filter_map(|(room, wanted)| idle(room).map(|place| place.follow_due(*wanted).max(place.due)));
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
        let (first, last) = (min_ms.saturating_mul(REFUSED_MIN), max_ms.saturating_mul(REFUSED_MAX));
        let refused_backoff = Backoff::new(first.min(last), last);
        let (hold_backoff, follow_backoff) = (backoff.clone(), backoff.clone());
        let (busy, due, follow_at, follow_soon) = (false, now, now, now);
        let (asked, refused) = (None, false);
        Self {
            busy,
            due,
            backoff,
            follow_at,
            follow_soon,
            hold_backoff,
            follow_backoff,
            refused_backoff,
            asked,
            refused,
        }
    }

    fn follow_due(&self, wanted: Wanted) -> Instant {
        let in_turn = if wanted.on_hold { self.follow_soon } else { self.follow_at };
        // One look for each time that it is wanted, whatever comes of it. A refusal is the patient's word, and counted.
        let new = |at: &Instant| !self.refused && self.asked.is_none_or(|asked| asked + FRESH <= *at);
        wanted.sealing.filter(new).map_or(in_turn, |at| in_turn.min(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RoomId = RoomId([1; 16]);
    const B: RoomId = RoomId([2; 16]);

    const IN_TURN: Wanted = Wanted { on_hold: false, sealing: None };
    const ON_HOLD: Wanted = Wanted { on_hold: true, sealing: None };

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
    fn a_room_that_refuses_is_asked_again_after_seconds_and_ever_less_often() {
        let (mut schedule, mut now) = (schedule(), Instant::now());
        let on_hold = BTreeMap::from([(A, ON_HOLD)]);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(schedule.begin(&[], &on_hold, 8, now), [Turn { room: A, follow: true }]);
            schedule.ended(A, Outcome::Idle, Followed::Refused, now, 0);
            let wake = schedule.wake(&[], &on_hold).unwrap();
            pauses.push((wake - now).as_millis());
            now = wake;
        }
        assert_eq!(pauses, [2_500, 5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
    }

    #[test]
    fn a_room_whose_readings_come_on_hold_is_looked_at_at_once_and_less_often_while_nothing_changes() {
        let (mut schedule, start) = (schedule(), Instant::now());
        let (assigned, on_hold) = (BTreeMap::from([(A, IN_TURN)]), BTreeMap::from([(A, ON_HOLD)]));
        let turn = [Turn { room: A, follow: true }];
        assert_eq!(schedule.begin(&[], &assigned, 8, start), turn);
        schedule.ended(A, Outcome::Idle, Followed::Yes { news: true }, start, 0);
        let mut now = start + Duration::from_secs(9);
        assert!(schedule.begin(&[], &assigned, 8, now).is_empty());
        let looks = |schedule: &mut Schedule, now: &mut Instant, news: bool| {
            let mut pauses = Vec::new();
            for _ in 0..9 {
                assert_eq!(schedule.begin(&[], &on_hold, 8, *now), turn);
                schedule.ended(A, Outcome::Idle, Followed::Yes { news }, *now, 0);
                let wake = schedule.wake(&[], &on_hold).unwrap();
                pauses.push((wake - *now).as_millis());
                *now = wake;
            }
            pauses
        };
        let nothing_new = looks(&mut schedule, &mut now, false);
        assert_eq!(nothing_new, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        // Another category of the room is sealed in between: the pause that has grown holds.
        assert!(schedule.wake(&[], &assigned).unwrap() > now + Duration::from_secs(600));
        assert_eq!(looks(&mut schedule, &mut now, true), [250; 9]);
        // Looked at in its turn, because nothing was on hold for so long: the next hold is a new one.
        assert_eq!(looks(&mut schedule, &mut now, false).last(), Some(&30_000));
        now += Duration::from_secs(900);
        assert_eq!(schedule.begin(&[], &assigned, 8, now), turn);
        schedule.ended(A, Outcome::Idle, Followed::Yes { news: false }, now, 0);
        assert_eq!(schedule.wake(&[], &on_hold), Some(now + Duration::from_millis(250)));
    }

    #[test]
    fn a_room_is_looked_at_once_each_time_that_it_is_about_to_be_sealed_to_unless_it_refuses() {
        let (mut schedule, mut now) = (schedule(), Instant::now());
        let sealing = |at| BTreeMap::from([(A, Wanted { on_hold: false, sealing: Some(at) })]);
        let turn = [Turn { room: A, follow: true }];
        let old = sealing(now);
        assert_eq!(schedule.begin(&[], &old, 8, now), turn);
        schedule.ended(A, Outcome::Idle, Followed::Yes { news: false }, now, 0);
        now += Duration::from_secs(1);
        assert!(schedule.begin(&[], &sealing(now), 8, now).is_empty(), "asked a second ago");
        for followed in [Followed::Yes { news: true }, Followed::No, Followed::Refused] {
            now += Duration::from_secs(5);
            let wanted = sealing(now);
            assert!(schedule.wake(&[], &wanted).unwrap() <= now);
            assert_eq!(schedule.begin(&[], &wanted, 8, now), turn, "{followed:?}");
            schedule.ended(A, Outcome::Idle, followed, now, u64::MAX);
            assert!(schedule.begin(&[], &wanted, 8, now + IDLE_REST).is_empty(), "once");
        }
        now += Duration::from_secs(1);
        assert!(schedule.begin(&[], &sealing(now), 8, now).is_empty(), "refused: in its turn");
    }

    #[test]
    fn an_assigned_room_without_traffic_is_followed_at_once_and_then_from_time_to_time() {
        let (mut schedule, now) = (schedule(), Instant::now());
        let assigned = BTreeMap::from([(A, IN_TURN)]);
        assert_eq!(schedule.begin(&[], &assigned, 8, now), [Turn { room: A, follow: true }]);
        schedule.ended(A, Outcome::Idle, Followed::Yes { news: true }, now, 0);
        assert_eq!(schedule.wake(&[], &assigned), Some(now + Duration::from_secs(900)));
        let soon = now + IDLE_REST;
        assert_eq!(schedule.begin(&[A], &assigned, 8, soon), [Turn { room: A, follow: false }]);
        schedule.ended(A, Outcome::Idle, Followed::NotTried, now, 0);
        let later = now + Duration::from_secs(900);
        assert_eq!(schedule.begin(&[], &assigned, 8, later), [Turn { room: A, follow: true }]);
        schedule.ended(A, Outcome::Idle, Followed::No, later, 0);
        assert!(schedule.wake(&[], &assigned).unwrap() <= later + Duration::from_millis(500));
    }
}
