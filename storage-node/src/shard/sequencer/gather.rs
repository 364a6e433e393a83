//! What goes into the next block, and how long it is waited for.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::{Answer, BLOCK_COMMANDS_MAX, BLOCK_MAX_BYTES, Command, Waiting};

/// Nobody waits longer for others. Where a block takes half of it, more is gained by fewer blocks than by sooner ones.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// A block of this size is worth its syncs and signatures as it is: twice a backlog's longest runs.
const ENOUGH_BYTES: usize = 512 << 10;
/// Of what a block took, whoever was in it needs as much again for the cosignatures, and some for the way to the client and back.
const TAKEN_TIMES: u32 = 2;

/// The commands of a block, and who waits for their outcomes.
pub(super) struct Gathered {
    pub(super) commands: Vec<Command>,
    pub(super) answers: Vec<Answer>,
    bytes: usize,
}

impl Gathered {
    fn new(first: Waiting) -> Self {
        Self { bytes: first.bytes, commands: vec![first.command], answers: vec![(first.answer, first._share)] }
    }

    /// Takes a command in, or gives back one for which there is no room.
    fn take(&mut self, next: Waiting) -> Option<Waiting> {
        // Whoever has gone away asks again, and the block has room for somebody else.
        if next.answer.is_closed() {
            return None;
        }
        if self.bytes.saturating_add(next.bytes) > BLOCK_MAX_BYTES {
            return Some(next);
        }
        self.bytes += next.bytes;
        self.commands.push(next.command);
        self.answers.push((next.answer, next._share));
        None
    }
}

/// How blocks follow each other.
///
/// Each costs the same syncs, signatures and messages, however little is in it. Of writers who wait for their receipts, half come while a block is
/// under way and the others after it; taken as they come, they stay apart in many small blocks. So a block waits until as many are in it as there are
/// writers: those of the last one, and those who came while that one was under way, of whom none was in it. Once they have met they come back
/// together, and nobody waits for the limit. Who writes alone waits for nobody.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many write, as far as the last block showed.
    writers: usize,
    wait: Duration,
    /// When the last block had its outcome.
    ended: Option<Instant>,
}

impl Pace {
    /// The last block held so many commands, so many waited when its outcome was there, after that time.
    pub(super) fn went(&mut self, commands: usize, waiting: usize, took: Duration) {
        self.writers = commands.saturating_add(waiting);
        self.wait = took.saturating_mul(TAKEN_TIMES).min(WAIT_MAX);
        self.ended = Some(Instant::now());
    }

    /// Until when a block that begins now waits for others; none: whoever was in the last one would have come back already.
    fn until(&self) -> Option<Instant> {
        let (now, ended) = (Instant::now(), self.ended?);
        (now.saturating_duration_since(ended) <= self.wait.saturating_mul(2)).then(|| now + self.wait)
    }

    /// The block that begins with `first`; what has no room in it any more is `held` for the next.
    pub(super) async fn gather(
        &self,
        first: Waiting,
        queue: &mut mpsc::Receiver<Waiting>,
        held: &mut Option<Waiting>,
    ) -> Gathered {
        let (mut gathered, until) = (Gathered::new(first), self.until());
        while gathered.commands.len() < BLOCK_COMMANDS_MAX {
            let all = gathered.commands.len() >= self.writers || gathered.bytes >= ENOUGH_BYTES;
            let next = match (queue.try_recv(), until.filter(|_| !all)) {
                (Ok(next), _) => next,
                (Err(_), None) => break,
                (Err(_), Some(until)) => match timeout_at(until, queue.recv()).await {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => break,
                },
            };
            *held = gathered.take(next);
            if held.is_some() {
                break;
            }
        }
        gathered
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ehe::run::SignedRun;
    use ehe::wire::Submission;
    use futures::FutureExt;
    use tokio::sync::{Semaphore, oneshot};

    use super::super::{Outcome, Unordered};
    use super::*;

    type Answered = oneshot::Receiver<Result<Outcome, Unordered>>;

    fn waiting(bytes: usize) -> (Waiting, Answered) {
        let (answer, answered) = oneshot::channel();
        let command = Command::Submit(Submission { run: SignedRun(vec![]), events: vec![] });
        let share = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (Waiting { command, bytes, answer, _share: share }, answered)
    }

    fn after(commands: usize, waiting: usize, took: Duration) -> Pace {
        let mut pace = Pace::default();
        pace.went(commands, waiting, took);
        pace
    }

    /// How many commands a block has that begins with `first`, and whether one is held; none if it waits for more.
    fn at_once(pace: &Pace, first: usize, queued: &[usize]) -> Option<(usize, bool)> {
        let (queue, mut taken) = mpsc::channel(100);
        let mut answers = Vec::new();
        for bytes in queued {
            let (waiting, answered) = waiting(*bytes);
            answers.push(answered);
            queue.try_send(waiting).ok().unwrap();
        }
        let (first, _answered) = waiting(first);
        let mut held = None;
        let gathered = pace.gather(first, &mut taken, &mut held).now_or_never()?;
        assert_eq!(gathered.commands.len(), gathered.answers.len());
        Some((gathered.commands.len(), held.is_some()))
    }

    #[tokio::test]
    async fn who_writes_alone_waits_for_nobody_and_nobody_longer_than_the_last_block_took_twice() {
        let long = Duration::from_secs(9);
        assert_eq!(at_once(&Pace::default(), 10, &[10, 10]), Some((3, false)));
        assert_eq!(at_once(&after(1, 0, long), 10, &[]), Some((1, false)));
        assert_eq!(at_once(&after(1, 0, long), 10, &[10, 10]), Some((3, false)));
        assert_eq!(at_once(&after(4, 0, long), 10, &[10, 10]), None);
        assert_eq!(after(2, 0, Duration::from_millis(7)).wait, Duration::from_millis(14));
        assert_eq!(after(2, 0, long).wait, WAIT_MAX);
    }

    #[tokio::test]
    async fn a_block_goes_when_all_have_come_who_were_in_the_last_one_or_came_meanwhile() {
        let pace = after(2, 1, WAIT_MAX);
        assert_eq!(at_once(&pace, 10, &[10]), None, "one of three is still to come");
        assert_eq!(at_once(&pace, 10, &[10, 10]), Some((3, false)));
        assert_eq!(at_once(&pace, 10, &[10, 10, 10]), Some((4, false)), "who is there already is taken along");
    }

    #[tokio::test]
    async fn nobody_is_waited_for_who_would_have_come_back_long_ago() {
        let mut pace = after(2, 1, WAIT_MAX);
        assert_eq!(at_once(&pace, 10, &[10]), None);
        pace.ended = pace.ended.and_then(|ended| ended.checked_sub(2 * WAIT_MAX));
        assert_eq!(at_once(&pace, 10, &[10]), Some((2, false)));
    }

    #[tokio::test]
    async fn a_block_that_is_large_or_full_waits_for_nobody() {
        let pace = after(9, 9, WAIT_MAX);
        assert_eq!(at_once(&pace, ENOUGH_BYTES, &[10]), Some((2, false)));
        assert_eq!(
            at_once(&pace, BLOCK_MAX_BYTES, &[10, 10]),
            Some((1, true)),
            "the second is held for the next block"
        );
    }

    #[tokio::test]
    async fn who_comes_while_it_is_waited_is_in_the_block_and_who_has_gone_away_is_not() {
        let (queue, mut taken) = mpsc::channel(10);
        let (pace, mut held) = (after(2, 0, WAIT_MAX), None);
        let (first, _answered) = waiting(1);
        let (gone, answered) = waiting(1);
        drop(answered);
        queue.try_send(gone).ok().unwrap();
        let mut gathering = Box::pin(pace.gather(first, &mut taken, &mut held));
        assert!(gathering.as_mut().now_or_never().is_none());
        let (next, _answered) = waiting(1);
        queue.send(next).await.ok().unwrap();
        assert_eq!(gathering.await.commands.len(), 2);
    }
}
