//! Whether a message waits for company before it is committed. Pure: moments are arguments.
//!
//! A commit costs the same for one message as for twenty, and at a hundred messages a second commits are half of what this program does. So few
//! messages wait for others. Many do not: they gather by themselves, each while the commit before it lasts, and whoever sends them may be waiting
//! for their acknowledgements before it sends more.

use std::time::{Duration, Instant};

/// Arrivals are counted over this time.
const PERIOD: Duration = Duration::from_millis(100);
/// So many in it are many: from 400 a second on.
const MANY: f64 = 40.0;
/// So many wait for no further ones: a broker sends no more before some are acknowledged (Mosquitto's default for
/// `max_inflight_messages`).
pub(super) const GATHERED_MAX: usize = 20;
/// A message that is there so soon after a commit may have waited for its acknowledgements.
const PROMPT: Duration = Duration::from_millis(2);
/// So many times in a row it is no chance.
const PROMPT_MAX: u32 = 3;

/// The messages of late.
#[derive(Debug)]
pub(super) struct Pace {
    /// Of the current period.
    start: Instant,
    count: u32,
    /// Of the one before.
    before: u32,
    committed: Option<Instant>,
    prompt: u32,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, count: 0, before: 0, committed: None, prompt: 0 }
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

    /// A commit ended.
    pub(super) fn committed(&mut self, now: Instant) {
        self.committed = Some(now);
    }

    /// Messages are there that are not committed yet: whether they wait for further ones.
    pub(super) fn gathers(&mut self, now: Instant) -> bool {
        let prompt = self.committed.is_some_and(|at| now.saturating_duration_since(at) < PROMPT);
        self.prompt = if prompt { self.prompt.saturating_add(1) } else { 0 };
        let passed = now.saturating_duration_since(self.start).as_secs_f64() / PERIOD.as_secs_f64();
        let recent = f64::from(self.count) + f64::from(self.before) * (1.0 - passed).max(0.0);
        self.prompt < PROMPT_MAX && recent < MANY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const GATHER: Duration = Duration::from_millis(100);

    /// Plays messages that come at these moments (ms) against a writer whose commits take 1 ms. Gives how many were committed together, and the
    /// longest wait for the end of a commit.
    fn play(arrivals: impl IntoIterator<Item = u64>) -> (Vec<usize>, Duration) {
        let start = Instant::now();
        let mut left = arrivals.into_iter().map(|ms| start + MS * u32::try_from(ms).unwrap()).peekable();
        let (mut pace, mut now, mut commits, mut longest) = (Pace::new(start), start, Vec::new(), Duration::ZERO);
        while let Some(first) = left.peek().copied() {
            now = now.max(first);
            let mut batch = Vec::new();
            let mut take = |pace: &mut Pace, until: Instant, batch: &mut Vec<Instant>| {
                while let Some(at) = left.next_if(|at| *at <= until && batch.len() < GATHERED_MAX) {
                    pace.came(at);
                    batch.push(at);
                }
            };
            take(&mut pace, now, &mut batch);
            if pace.gathers(now) {
                take(&mut pace, now + GATHER, &mut batch);
                now = if batch.len() < GATHERED_MAX { now + GATHER } else { now.max(*batch.last().unwrap()) };
            }
            now += MS;
            pace.committed(now);
            longest = longest.max(now - batch[0]);
            commits.push(batch.len());
        }
        (commits, longest)
    }

    #[test]
    fn at_a_hundred_messages_a_second_some_ten_share_a_commit() {
        let (commits, longest) = play((0..1_000).map(|n| n * 10 + n % 7));
        assert!((90..=120).contains(&commits.len()), "{} in ten seconds", commits.len());
        assert!(longest <= GATHER + 2 * MS);
    }

    #[test]
    fn at_a_thousand_a_second_nobody_waits_but_for_commits_also_after_a_lull() {
        // Every now and then nothing comes for some ms: who sends, or this machine, had something else to do.
        let steady = (0..10_000u64).map(|ms| ms - ms % 100 + (ms % 100).max(ms / 100 % 8));
        let (begin, lulls): (Vec<u64>, Vec<u64>) = steady.partition(|ms| *ms < 100);
        assert!(play(begin.iter().copied()).1 <= GATHER + MS);
        let mut pace = Pace::new(Instant::now());
        let start = pace.start;
        begin.iter().chain(&lulls).for_each(|ms| {
            let now = start + MS * u32::try_from(*ms).unwrap();
            pace.came(now);
            assert!(*ms < 100 || !pace.gathers(now + 9 * MS), "at {ms} ms");
        });
    }

    #[test]
    fn a_broker_that_waits_for_acknowledgements_is_not_slowed_down() {
        for in_flight in [1usize, 5, 20, 100] {
            let start = Instant::now();
            let (mut pace, mut now, mut done, mut gathered) = (Pace::new(start), start, 0, 0);
            while done < 2_000 {
                // All that may be under way is there half a ms after the acknowledgements.
                now += MS / 2;
                (0..in_flight).for_each(|_| pace.came(now));
                if in_flight < GATHERED_MAX && pace.gathers(now) {
                    (now, gathered) = (now + GATHER, gathered + 1);
                }
                now += MS;
                pace.committed(now);
                done += in_flight;
            }
            assert!(gathered <= 3, "{in_flight} in flight: waited {gathered} times for what could not come");
        }
    }
}
