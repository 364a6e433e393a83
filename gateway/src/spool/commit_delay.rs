//! Group commit: until when messages wait for others before they are committed together. Pure: moments are arguments.
//!
//! A commit costs the same for one message as for twenty, and at a hundred messages a second commits are half of what this program does. So few
//! messages wait for others. Many do not: they gather by themselves, each while the commit before it lasts. And where nobody comes, somebody may be
//! waiting for us: a broker sends no more than some messages (Mosquitto's `max_inflight_messages`, our `receive_maximum`) before it has their
//! acknowledgements. Whether it does cannot be seen but by having waited in vain; so after a few times messages do not wait for a while, each time
//! for longer.

use std::time::{Duration, Instant};

/// Arrivals are counted over this time.
const PERIOD: Duration = Duration::from_millis(100);
/// So many in it are many: from 400 a second on.
const MANY: f64 = 40.0;
/// So many wait for no further ones (Mosquitto's default for `max_inflight_messages`).
const GROUP_MAX: usize = 20;
/// This part of the delay is a group's beginning: who waits for us has sent what it may by then.
const BEGINNING: u32 = 2;
/// So often in vain is no chance.
const IN_VAIN_MAX: u32 = 3;
/// The longest time without waiting, as a power of two of delays: those who wait for us lose one part in 128.
const PAUSE_MAX_LOG2: u32 = 7;

/// Decides by the messages of late.
#[derive(Debug)]
pub(super) struct CommitDelay {
    longest: Duration,
    full: usize,
    /// Of the current period.
    start: Instant,
    count: u32,
    /// Of the one before.
    before: u32,
    /// Groups that waited in vain; each that did not halves it.
    in_vain: u32,
    /// Until then no message waits.
    paused: Instant,
}

/// Messages that wait together.
#[derive(Debug)]
pub(super) struct Group {
    since: Instant,
    /// Those that were there in its beginning.
    first: usize,
}

impl CommitDelay {
    /// `longest`: how long a message may wait for others. `unacknowledged_max`: messages after which a source sends no more without
    /// acknowledgements, the smallest of all sources.
    pub(super) fn new(longest: Duration, unacknowledged_max: usize, now: Instant) -> Self {
        let full = unacknowledged_max.min(GROUP_MAX);
        Self { longest, full, start: now, count: 0, before: 0, in_vain: 0, paused: now }
    }

    /// A message came.
    pub(super) fn came(&mut self, now: Instant) {
        let periods = now.saturating_duration_since(self.start).as_millis() / PERIOD.as_millis();
        match periods {
            0 => {}
            1 => {
                self.before = std::mem::take(&mut self.count);
                self.start += PERIOD;
            }
            _ => (self.start, self.before, self.count) = (now, 0, 0),
        }
        self.count = self.count.saturating_add(1);
    }

    /// So many messages are there that are not committed yet: until when to wait for another one; none: commit them now. To be asked with the
    /// same `group`, at first none, after each arrival and at the end of the time.
    pub(super) fn until(&mut self, group: &mut Option<Group>, now: Instant, waiting: usize) -> Option<Instant> {
        let (full, many) = (waiting >= self.full, self.many(now));
        let Some(group) = group else {
            if full || many || now < self.paused || self.longest.is_zero() {
                return None;
            }
            *group = Some(Group { since: now, first: waiting });
            return Some(now + self.longest);
        };
        let (beginning, end) = (group.since + self.longest / BEGINNING, group.since + self.longest);
        if now < beginning {
            group.first = waiting;
        }
        if !full && !many && now < end {
            return Some(end);
        }
        // A group that ends in its beginning, or because many come, says nothing of those who wait for us.
        if now >= beginning && !many {
            self.judge(now, group.first, waiting.saturating_sub(group.first));
        }
        None
    }

    /// So many waited for so many that came later.
    fn judge(&mut self, now: Instant, first: usize, later: usize) {
        // Where they come evenly, as many come in either half.
        if 2 * later >= first {
            self.in_vain /= 2;
            return;
        }
        self.in_vain = self.in_vain.saturating_add(1);
        let times = self.in_vain.checked_sub(IN_VAIN_MAX).map_or(0, |log2| 2 << log2.min(PAUSE_MAX_LOG2 - 1));
        self.paused = now + self.longest * times;
    }

    fn many(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.start).as_secs_f64() / PERIOD.as_secs_f64();
        f64::from(self.count) + f64::from(self.before) * (1.0 - passed).max(0.0) >= MANY
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_millis(100);
    const COMMIT: Duration = MS;

    /// When a message arrives, and how long after its acknowledgement the next one that its sender sends for it.
    type Arrival = (Duration, Option<Duration>);

    #[derive(Default)]
    struct Home {
        arrivals: BinaryHeap<Reverse<Arrival>>,
        /// Each message that was committed, when it came and when its commit ended; and at what time commits ended.
        stored: Vec<(Duration, Duration, bool)>,
        commits: Vec<Duration>,
    }

    impl Home {
        fn come(mut self, at: impl IntoIterator<Item = Duration>) -> Self {
            self.arrivals.extend(at.into_iter().map(|at| Reverse((at, None))));
            self
        }

        /// A broker that has so many messages under way and waits for their acknowledgements before it sends the next ones, which take so
        /// long and do not come all at once.
        fn waits_for_us(mut self, in_flight: u32, round_trip: Duration) -> Self {
            let way = |n: u32| round_trip + (round_trip / 2).min(MS * 20) * n / in_flight;
            self.arrivals.extend((0..in_flight).map(|n| Reverse((way(n), Some(way(n))))));
            self
        }

        /// Lets the delay decide for so long; who waits for us ends at `waits_end`.
        fn play(mut self, unacknowledged_max: usize, waits_end: Duration, end: Duration) -> Self {
            let (start, mut now) = (Instant::now(), Duration::ZERO);
            let mut delay = CommitDelay::new(LONGEST, unacknowledged_max, start);
            while let Some(Reverse((first, _))) = self.arrivals.peek().copied().filter(|_| now < end) {
                now = now.max(first);
                let (mut waiting, mut group) = (Vec::new(), None);
                loop {
                    while let Some(Reverse(arrival)) = self.arrivals.peek().copied().filter(|next| next.0.0 <= now) {
                        self.arrivals.pop();
                        delay.came(start + now);
                        waiting.push(arrival);
                    }
                    let Some(until) = delay.until(&mut group, start + now, waiting.len()) else { break };
                    let next = self.arrivals.peek().map_or(Duration::MAX, |next| next.0.0);
                    now = next.min(until - start);
                }
                now += COMMIT;
                self.commits.push(now);
                for (at, way) in waiting {
                    self.stored.push((at, now, way.is_some()));
                    self.arrivals.extend(way.filter(|_| now < waits_end).map(|way| Reverse((now + way, Some(way)))));
                }
            }
            self
        }

        fn longest_wait(&self, from: Duration) -> Duration {
            self.stored.iter().filter(|m| m.0 >= from).map(|m| m.1 - m.0).max().unwrap()
        }

        fn commits(&self, from: Duration) -> usize {
            self.commits.iter().filter(|at| **at >= from).count()
        }
    }

    /// At any moments of some seconds, so many a second.
    fn by_chance(seconds: u32, a_second: u32) -> impl Iterator<Item = Duration> {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        (0..seconds * a_second).map(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Duration::from_micros(state % (u64::from(seconds) * 1_000_000))
        })
    }

    fn evenly(seconds: u32, a_second: u32) -> impl Iterator<Item = Duration> {
        (0..seconds * a_second).map(move |n| S * n / a_second + MS * (n % 7))
    }

    #[test]
    fn at_a_hundred_messages_a_second_some_ten_share_a_commit() {
        for home in [Home::default().come(evenly(10, 100)), Home::default().come(by_chance(10, 100))] {
            let home = home.play(100, S, S * 20);
            assert_eq!(home.stored.len(), 1_000);
            assert!((85..=130).contains(&home.commits.len()), "{} in ten seconds", home.commits.len());
            assert!(home.longest_wait(Duration::ZERO) <= LONGEST + 2 * COMMIT);
        }
    }

    #[test]
    fn at_a_thousand_a_second_nobody_waits_but_for_commits_also_after_a_lull() {
        // Every now and then nothing comes for some ms: who sends, or this machine, had something else to do.
        let steady = (0..10_000u32).map(|ms| MS * (ms - ms % 100 + (ms % 100).max(ms / 100 % 8)));
        let home = Home::default().come(steady).play(100, S, S * 20);
        assert!(home.longest_wait(Duration::ZERO) <= LONGEST + COMMIT);
        assert!(home.longest_wait(LONGEST) <= 2 * COMMIT, "{:?}", home.longest_wait(LONGEST));
    }

    #[test]
    fn a_broker_that_waits_for_acknowledgements_is_hardly_slowed_down_however_few_it_sends_and_however_far_it_is() {
        for (in_flight, ms) in [1, 5, 10, 19, 20, 100].into_iter().flat_map(|n| [0, 3, 10, 40].map(|ms| (n, ms))) {
            let seconds = match (in_flight, ms) {
                (100, _) => 3,
                (10.., 0) => 10,
                _ => 60,
            };
            let stored = |unacknowledged_max, others: u32| {
                let home = Home::default().waits_for_us(in_flight, MS * ms + MS / 2).come(evenly(seconds, others));
                home.play(unacknowledged_max, S * seconds, S * seconds)
                    .stored
                    .iter()
                    .filter(|message| message.2)
                    .count()
            };
            // Where every message is committed at once.
            let (most, others_too) = (stored(1, 0), stored(1, 20));
            let found = stored(100, 0);
            assert!(found * 100 >= most * 95, "{in_flight} under way, {ms} ms: {found} of {most}");
            // A few messages of other sources do not make it worth the wait. (Of one under way it could not be told.)
            if in_flight == 1 {
                continue;
            }
            let found = stored(100, 20);
            assert!(
                found * 100 >= others_too * 90,
                "{in_flight} under way, {ms} ms, and others: {found} of {others_too}"
            );
        }
    }

    #[test]
    fn messages_gather_again_some_seconds_after_somebody_waited_for_us() {
        let later = evenly(40, 100).map(|at| at + S * 60);
        let home = Home::default().waits_for_us(5, MS * 10).come(later).play(100, S * 60, S * 120);
        let commits = home.commits(S * 80);
        assert!((180..=260).contains(&commits), "{commits} in twenty seconds");
    }

    #[test]
    fn as_many_as_a_source_sends_without_acknowledgements_wait_for_nobody() {
        let (now, mut group) = (Instant::now(), None);
        let mut delay = CommitDelay::new(LONGEST, 5, now);
        assert!(delay.until(&mut group, now, 4).is_some());
        assert_eq!(delay.until(&mut group, now, 5), None);
        assert_eq!(delay.until(&mut None, now, 5), None);
        assert_eq!(CommitDelay::new(Duration::ZERO, 5, now).until(&mut None, now, 1), None, "switched off");
    }
}
