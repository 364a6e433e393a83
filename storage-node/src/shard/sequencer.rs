//! The ordering party of one shard: commands wait in a bounded queue and go into the log a block at a time.
//!
//! While one block is synced the next one gathers, so a block is as large as the disk is slow ([`gather`]). A block that takes very long, because no
//! majority answers, does not make the next ones wait: they go in behind it, or are told at once that nobody leads.

mod gather;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use ehe::id::NodeId;
use ehe::identity::PublicIdentity;
use ehe::read::SignedRequest;
use ehe::wire::Submission;

use self::gather::{Gathered, Pace};
use super::block::{BLOCK_COMMANDS_MAX, BLOCK_MAX_BYTES, Block, Command, Outcome, decode_outcomes};
use super::charters::CharterEntry;
use super::readers::Decided;
use super::rules::Rules;
use super::void::FalseRun;
use crate::checkpoint::MayOrder;
use crate::clock::Clock;
use crate::consensus::{self, Consensus, GroupId, ProposeError};
use crate::leadership::hand_over;
use crate::stats::Stats;

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unordered {
    /// Another node orders.
    #[error("another node orders this shard")]
    NotLeader(Option<consensus::NodeId>),
    /// The queue is full.
    #[error("more is waiting than may wait")]
    Overloaded,
    /// Leadership changed; it may or may not have been ordered. Asking again is harmless.
    #[error("it is not known whether it was ordered")]
    Unknown,
    /// The node is stopping; as with `Unknown`.
    #[error("the node is stopping")]
    Stopping,
    /// The shard is stopped by a fault.
    #[error("the shard is stopped by a fault")]
    Fault,
}

impl From<ProposeError> for Unordered {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => Self::NotLeader(leader),
            ProposeError::Overloaded => Self::Overloaded,
            ProposeError::Unknown => Self::Unknown,
            ProposeError::Stopped => Self::Stopping,
            _ => Self::Fault,
        }
    }
}

/// A command that waits for its block.
pub struct Waiting {
    command: Command,
    bytes: usize,
    answer: oneshot::Sender<Result<Outcome, Unordered>>,
    _share: OwnedSemaphorePermit,
}

/// Where commands are handed in.
#[derive(Clone)]
pub struct Sequencer {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
}

/// Hands commands in as long as others do.
#[derive(Debug, Clone)]
pub struct WeakSequencer {
    queue: mpsc::WeakSender<Waiting>,
    bytes: Arc<Semaphore>,
}

impl WeakSequencer {
    /// `None`: the node is stopping.
    pub fn get(&self) -> Option<Sequencer> {
        Some(Sequencer { queue: self.queue.upgrade()?, bytes: Arc::clone(&self.bytes) })
    }
}

/// What commands count for beside their payload.
const COMMAND_FRAME_BYTES: usize = 64;

impl Sequencer {
    /// A queue of at most `commands` and `bytes`, and the end from which [`run`] takes.
    pub fn new(commands: usize, bytes: usize) -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, taken) = mpsc::channel(commands.max(1));
        (Self { queue, bytes: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))) }, taken)
    }

    /// Orders a run that was checked ([`super::precheck()`]).
    pub async fn submit(&self, submission: Submission) -> Result<Outcome, Unordered> {
        let events = submission.events.iter().map(|e| e.header.len() + e.body.len() + COMMAND_FRAME_BYTES);
        let bytes = submission.run.0.len() + events.sum::<usize>();
        self.order(Command::Submit(submission), bytes).await
    }

    /// Has a read request decided, for this node, `me`, to release what it grants.
    pub async fn read(&self, request: SignedRequest, reader: PublicIdentity, me: NodeId) -> Result<Decided, Unordered> {
        let outcome = self.read_command(request.clone(), reader, me).await?;
        Decided::of(&request, &outcome).ok_or(Unordered::Fault)
    }

    /// Has a read request decided that another node forwards. That one finds out in its own replica how, and releases what is granted.
    pub async fn read_for(
        &self,
        request: SignedRequest,
        reader: PublicIdentity,
        other: NodeId,
    ) -> Result<(), Unordered> {
        self.read_command(request, reader, other).await.map(drop)
    }

    async fn read_command(
        &self,
        request: SignedRequest,
        reader: PublicIdentity,
        release: NodeId,
    ) -> Result<Outcome, Unordered> {
        let bytes = request.0.len() + 2048;
        self.order(Command::Read(request, reader, release), bytes).await
    }

    /// Has a charter taken up. Returns the version that is in effect after it, and whether nobody has to vouch for it.
    pub async fn charter(&self, entry: CharterEntry) -> Result<(u32, bool), Unordered> {
        let bytes = entry.signed.len() + entry.vouched.as_ref().map_or(0, String::len);
        match self.order(Command::Charter(entry), bytes).await? {
            Outcome::Charter { version, vouched } => Ok((version, vouched)),
            _ => Err(Unordered::Fault),
        }
    }

    /// Has a run voided. Returns where the record of it is; none where nothing changed.
    pub async fn void(&self, found: FalseRun) -> Result<Option<u64>, Unordered> {
        let bytes = found.bytes();
        match self.order(Command::Void(found), bytes).await? {
            Outcome::Voided { record } => Ok(record),
            _ => Err(Unordered::Fault),
        }
    }

    /// A handle that does not keep the ordering party at work.
    pub fn weak(&self) -> WeakSequencer {
        WeakSequencer { queue: self.queue.downgrade(), bytes: Arc::clone(&self.bytes) }
    }

    async fn order(&self, command: Command, bytes: usize) -> Result<Outcome, Unordered> {
        let bytes = bytes.saturating_add(COMMAND_FRAME_BYTES);
        let share = u32::try_from(bytes).map_err(|_| Unordered::Overloaded)?;
        let share = Arc::clone(&self.bytes).try_acquire_many_owned(share).map_err(|_| Unordered::Overloaded)?;
        let (answer, outcome) = oneshot::channel();
        let waiting = Waiting { command, bytes, answer, _share: share };
        self.queue.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unordered::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Unordered::Stopping,
        })?;
        outcome.await.unwrap_or(Err(Unordered::Stopping))
    }
}

/// A block is waited for so long before the next one follows. Far above what disks and ways take.
const WAITS_FOR_ONE: Duration = Duration::from_secs(1);
/// Blocks that are under way at a time, however long they take.
const UNDER_WAY_MAX: usize = 16;

/// Orders until the last [`Sequencer`] is gone. While this node may not, it proposes nothing and asks another one to lead.
pub async fn run(
    mut queue: mpsc::Receiver<Waiting>,
    consensus: Consensus,
    group: GroupId,
    may_order: MayOrder,
    (clock, rules): (Clock, Rules),
    stats: Arc<Stats>,
) {
    let (mut held, mut late, mut pace) = (None, FuturesUnordered::new(), Pace::default());
    loop {
        let first = match held.take() {
            Some(waiting) => Some(waiting),
            None => tokio::select! {
                waiting = queue.recv() => waiting,
                Some(()) = late.next() => continue,
            },
        };
        let Some(first) = first else { break };
        let Gathered { commands, answers, .. } = pace.gather(first, &mut queue, &mut held).await;
        if consensus.is_refused(group) {
            // Whatever went in would stand behind what nobody takes; another one is being asked to lead.
            answer(answers, Err(Unordered::NotLeader(None)));
            continue;
        }
        if !may_order.may_order(group.0) {
            hand_over(&consensus, group).await;
            answer(answers, Err(Unordered::NotLeader(None)));
            continue;
        }
        Stats::add(&stats.blocks, 1);
        let block = Block::new(clock.now(), rules.in_force(), commands);
        let (count, begun) = (answers.len(), Instant::now());
        let mut proposed = Box::pin(propose(&consensus, group, block, answers));
        if tokio::time::timeout(WAITS_FOR_ONE, &mut proposed).await.is_err() {
            late.push(proposed);
            if late.len() >= UNDER_WAY_MAX {
                late.next().await;
            }
            // Nobody of it comes back soon.
            pace = Pace::default();
            continue;
        }
        pace.went(count, queue.len() + usize::from(held.is_some()), begun.elapsed());
    }
    while late.next().await.is_some() {}
}

async fn propose(consensus: &Consensus, group: GroupId, block: Block, answers: Vec<Answer>) {
    let outcomes = match consensus.propose(group, Bytes::from(block.to_vec())).await {
        Ok((_, outcomes)) => decode_outcomes(&outcomes).map_err(|_| Unordered::Fault),
        Err(error) => Err(Unordered::from(error)),
    };
    answer(answers, outcomes);
}

type Answer = (oneshot::Sender<Result<Outcome, Unordered>>, OwnedSemaphorePermit);

fn answer(answers: Vec<Answer>, outcomes: Result<Vec<Outcome>, Unordered>) {
    let mut outcomes = outcomes.map(Vec::into_iter);
    for (answer, _share) in answers {
        let outcome = match &mut outcomes {
            Ok(outcomes) => outcomes.next().ok_or(Unordered::Fault),
            Err(why) => Err(why.clone()),
        };
        // A client that has gone away learns it when it asks again.
        let _ = answer.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use ehe::run::SignedRun;
    use futures::FutureExt;

    use super::*;

    fn submission(bytes: usize) -> Submission {
        Submission { run: SignedRun(vec![0; bytes]), events: vec![] }
    }

    #[test]
    fn a_queue_that_is_full_by_count_or_by_bytes_says_so_at_once_and_goes_on_when_there_is_room() {
        for (commands, bytes) in [(2, 1 << 20), (100, 2 * (1000 + COMMAND_FRAME_BYTES))] {
            let (sequencer, mut queue) = Sequencer::new(commands, bytes);
            let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(sequencer.submit(submission(1000)))).collect();
            assert!(waiting.iter_mut().all(|waits| waits.as_mut().now_or_never().is_none()));
            let full = sequencer.submit(submission(1000)).now_or_never();
            assert_eq!(full, Some(Err(Unordered::Overloaded)));
            // Taken and answered: its place and its bytes are free.
            drop(queue.try_recv().unwrap());
            assert!(sequencer.submit(submission(1000)).now_or_never().is_none());
        }
    }
}
