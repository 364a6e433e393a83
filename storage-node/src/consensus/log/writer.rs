//! The one thread that syncs the log.
//!
//! It takes everything that waits, of all groups, in the order in which it came, writes it as one record of the journal,
//! syncs, and only then tells anybody. While it syncs the next batch gathers: the slower the disk, the larger the
//! batches. What fails, fails all that was in it and stops every group, since nobody knows what a file
//! holds after a failed sync.
//!
//! When a side of the journal is full, [`settle`](super::settle) has its changes put into redb, and the writer goes on on the other
//! side. A batch that is larger than a side goes to redb at once.

use std::{io, sync::Arc};

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use super::{
    apply::Purges,
    file::{Field, Left, LogFile},
    group::{GroupLog, Outcome, next_index, weight},
    journal::{
        Journal, Record, Room,
        change::{self, Change},
    },
    settle::{Appended, Job, Settler, fail},
};
use crate::consensus::{
    codec,
    error::Fault,
    fence::io_error,
    ids::{GroupId, NodeId, NodeUid},
    runtime::{self, Now, Receiver, Sender, Thread},
    types::{Entry, LogId, Types, Vote},
};

/// Most operations and bytes of one record: a bound for memory and for how long the first one waits.
const MAX_OPS: usize = 4096;
const MAX_BYTES: usize = 32 << 20;
/// Of a journal with sides of at least so many bytes, a batch takes half a side: under load each batch has room there.
const WIDE_SIDE: usize = 2 << 20;

/// One thing to write.
pub(super) struct Op {
    pub(super) group: Arc<GroupLog>,
    pub(super) what: What,
    pub(super) done: Done,
}

/// What to write.
pub(super) enum What {
    Append {
        entries: Vec<Entry>,
        epoch: u64,
    },
    Vote(Vote),
    Truncate {
        after: Option<LogId>,
    },
    /// Forget what is up to `upto`; `whole`: and nothing is left behind it.
    Purge {
        upto: LogId,
        whole: bool,
    },
    Installing(LogId),
    /// The group is given up: nothing of its log stays but the vote and this.
    Leave(Left),
    /// That a peer is the one that it says it is, from now on. Rides with the group that it asked about.
    Peer(NodeId, NodeUid),
    /// Nothing, but everything before it is on disk.
    Barrier,
}

/// Whom to tell when it is on disk.
pub(super) enum Done {
    Flushed(IOFlushed<Types>),
    Signal(oneshot::Sender<Outcome>),
    Nobody,
}

impl Done {
    fn tell(self, outcome: &Outcome) {
        match self {
            Self::Flushed(callback) => callback.io_completed(outcome.clone().map_err(io_error)),
            // Whoever asked may have gone; that is not the writer's concern.
            Self::Signal(sender) => drop(sender.send(outcome.clone())),
            Self::Nobody => {}
        }
    }
}

/// Where operations are handed in. The thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub(in crate::consensus) struct LogQueue(Sender<Op>);

impl LogQueue {
    pub(super) fn submit(&self, op: Op) -> io::Result<()> {
        self.0.send(op).map_err(|_| closed())
    }

    /// Hands `what` in and returns where the outcome will be told.
    pub(super) fn request(&self, group: &Arc<GroupLog>, what: What) -> io::Result<oneshot::Receiver<Outcome>> {
        let (sender, receiver) = oneshot::channel();
        self.submit(Op { group: group.clone(), what, done: Done::Signal(sender) })?;
        Ok(receiver)
    }

    /// Returns when the entries of `group` up to and including `index` are on disk. For a thread of the [`runtime`]'s.
    pub(in crate::consensus) async fn wait_flushed(&self, group: &Arc<GroupLog>, index: u64) -> io::Result<()> {
        if group.flushed_end() > index {
            return Ok(());
        }
        outcome(runtime::answer(self.request(group, What::Barrier)?).await)
    }

    /// Returns when it is on disk that `peer` has this uid.
    pub(in crate::consensus) fn remember_peer(
        &self,
        group: &Arc<GroupLog>,
        peer: NodeId,
        uid: NodeUid,
    ) -> io::Result<oneshot::Receiver<Outcome>> {
        self.request(group, What::Peer(peer, uid))
    }

    /// Forgets the log of `group` and notes `under` beside where it ended; returns when that is on disk. Nothing may use the log meanwhile.
    pub(in crate::consensus) async fn leave(&self, group: &Arc<GroupLog>, under: u32) -> io::Result<()> {
        match group.leave(under) {
            None => Ok(()),
            Some(left) => outcome(self.request(group, What::Leave(left))?.await),
        }
    }

    /// Returns when it is on disk that a snapshot up to `upto` is being installed. For a thread of the [`runtime`]'s.
    pub(in crate::consensus) async fn mark_installing(&self, group: &Arc<GroupLog>, upto: LogId) -> io::Result<()> {
        outcome(runtime::answer(self.request(group, What::Installing(upto))?).await)
    }
}

/// The outcome of a request in the form that storage traits take.
pub(super) fn outcome(received: Result<Outcome, oneshot::error::RecvError>) -> io::Result<()> {
    received.map_err(|_| closed())?.map_err(io_error)
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed")
}

/// Starts the threads for `groups`, which are all that will ever be written. The one that is returned ends last.
pub(in crate::consensus) fn spawn(
    file: Arc<LogFile>,
    journal: Journal,
    groups: Vec<Arc<GroupLog>>,
) -> io::Result<(LogQueue, Thread)> {
    let (sender, receiver) = runtime::channel();
    let (jobs, given) = runtime::channel();
    let (done, settled) = runtime::channel();
    let settler = Settler { file, groups: groups.clone(), jobs: given, done, purges: Purges::default() };
    let settler = runtime::thread("raft-settle".into(), settler.run())?;
    let writer = Writer {
        receiver,
        groups,
        journal,
        pending: Vec::new(),
        appended: Vec::new(),
        jobs,
        settled,
        settling: false,
        failed: None,
    };
    let thread = runtime::thread("raft-log".into(), async move {
        writer.run().await;
        // Its queue has ended with the writer.
        settler.joined().await;
    })?;
    Ok((LogQueue(sender), thread))
}

struct Writer {
    receiver: Receiver<Op>,
    groups: Vec<Arc<GroupLog>>,
    journal: Journal,
    /// What this side of the journal has.
    pending: Vec<Change>,
    appended: Vec<Appended>,
    jobs: Sender<Job>,
    settled: Receiver<Outcome>,
    /// The settler has a job: the other side of the journal is not free.
    settling: bool,
    failed: Option<Arc<Fault>>,
}

impl Writer {
    async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            // Whoever told of it before the sync is found out: the power may go in either moment.
            runtime::moment().await;
            let written = self.write(batch).await;
            runtime::moment().await;
            written.tell();
        }
        // Closing in order: redb gets everything, and what was told to be committed, so that a restart replays less.
        if self.failed.is_none() {
            let committed = self.take_committed();
            self.pending.extend(committed);
            // What fails, every group hears.
            drop(if self.pending.is_empty() { self.settled().await } else { self.settle().await });
        }
    }

    /// Everything that waits, behind the next thing that comes. `None` at the end.
    async fn gather(&mut self) -> Option<Vec<Op>> {
        let first = self.receiver.next().await?;
        let mut bytes = first.weight();
        let mut batch = vec![first];
        let side = usize::try_from(self.journal.side_bytes()).unwrap_or(usize::MAX);
        let most = if side < WIDE_SIDE { MAX_BYTES } else { MAX_BYTES.min(side / 2) };
        while batch.len() < MAX_OPS && bytes < most {
            match self.receiver.now() {
                Now::Item(op) => {
                    bytes = bytes.saturating_add(op.weight());
                    batch.push(op);
                }
                Now::Nothing | Now::Ended => break,
            }
        }
        Some(batch)
    }

    /// One record, from its beginning to the sync. Nobody hears of it yet.
    async fn write(&mut self, batch: Vec<Op>) -> Written {
        let mut accepted = Vec::with_capacity(batch.len());
        for op in batch {
            match op.group.fence.check() {
                Ok(()) => accepted.push(op),
                Err(fault) => op.done.tell(&Err(fault)),
            }
        }
        let result = match &self.failed {
            Some(fault) => Err(fault.clone()),
            None => self.commit(&accepted).await.inspect_err(|fault| self.failed = Some(fault.clone())),
        };
        Written { batch: accepted, result }
    }

    async fn commit(&mut self, batch: &[Op]) -> Outcome {
        let mut changes: Vec<Change> = batch.iter().flat_map(Op::changes).collect();
        if changes.is_empty() {
            return Ok(());
        }
        changes.extend(self.take_committed());
        let record = Record::new(|out| change::encode(&changes, out));
        let room = self.journal.room(&record);
        if room == Room::There {
            self.hand().await?;
        }
        if room != Room::Nowhere {
            self.journal.write(record).map_err(|source| fail(&self.groups, redb::Error::Io(source)))?;
        }
        self.pending.append(&mut changes);
        self.appended.extend(batch.iter().filter_map(Op::appended));
        if room == Room::Nowhere {
            self.settle().await?;
        }
        Ok(())
    }

    /// Has the settler settle what is pending, when it is done with what it has, and goes on on the other side.
    async fn hand(&mut self) -> Outcome {
        self.settled().await?;
        let (changes, appended) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.appended));
        let job = Job { changes, appended, journal: self.journal.settled() };
        self.jobs.send(job).map_err(|_| self.gone())?;
        self.settling = true;
        self.journal.turn();
        Ok(())
    }

    /// Returns when the settler has nothing.
    async fn settled(&mut self) -> Outcome {
        if self.settling {
            self.settled.next().await.ok_or_else(|| self.gone())??;
            self.settling = false;
        }
        Ok(())
    }

    /// Returns when redb has everything.
    async fn settle(&mut self) -> Outcome {
        self.hand().await?;
        self.settled().await
    }

    /// The settler has ended, by a fault that the groups know, or by a panic.
    fn gone(&self) -> Arc<Fault> {
        fail(&self.groups, redb::Error::DatabaseClosed)
    }

    /// The commits that are not written yet. They ride along with what must be written anyway: losing them costs a
    /// longer replay, never a commit.
    fn take_committed(&self) -> Vec<Change> {
        let mut taken = Vec::new();
        for group in &self.groups {
            let mut ends = group.ends();
            if let (true, Some(id)) = (ends.committed_dirty, ends.committed) {
                ends.committed_dirty = false;
                taken.push(field(group.fence.group(), Field::Committed, codec::encode_log_id(&id)));
            }
        }
        taken
    }
}

fn field(group: GroupId, field: Field, value: Vec<u8>) -> Change {
    Change::Field { group, field, value }
}

/// What was written, or was not, and whom to tell.
struct Written {
    batch: Vec<Op>,
    result: Outcome,
}

impl Written {
    fn tell(self) {
        for op in self.batch {
            if self.result.is_ok() {
                op.note();
            }
            op.done.tell(&self.result);
        }
    }
}

impl Op {
    fn weight(&self) -> usize {
        match &self.what {
            What::Append { entries, .. } => entries.iter().map(weight).sum(),
            _ => 128,
        }
    }

    /// What it changes, in order.
    fn changes(&self) -> Vec<Change> {
        let group = self.group.fence.group();
        match &self.what {
            What::Append { entries, .. } => entries
                .iter()
                .map(|entry| {
                    let (head, body) = codec::encode_entry(entry);
                    Change::Entry { group, index: entry.log_id.index(), head, body }
                })
                .collect(),
            What::Vote(vote) => vec![field(group, Field::Vote, codec::encode_vote(vote))],
            What::Truncate { after } => vec![Change::Cut { group, from: next_index(after.as_ref()) }],
            What::Purge { upto, whole } => vec![Change::Purge { group, upto: *upto, whole: *whole }],
            What::Installing(upto) => vec![field(group, Field::Installing, codec::encode_log_id(upto))],
            What::Leave(left) => vec![Change::Leave { group, left: *left }],
            What::Peer(node, uid) => vec![Change::Peer { node: *node, uid: *uid }],
            What::Barrier => Vec::new(),
        }
    }

    /// What memory may forget, when it is in redb.
    fn appended(&self) -> Option<Appended> {
        let What::Append { entries, epoch } = &self.what else { return None };
        let end = next_index(entries.last().map(|entry| &entry.log_id));
        Some(Appended { group: self.group.clone(), end, epoch: *epoch })
    }

    /// It is on disk: says so in memory, before whoever waits goes on.
    fn note(&self) {
        match &self.what {
            What::Append { entries, epoch } => {
                self.group.flushed(next_index(entries.last().map(|entry| &entry.log_id)), *epoch);
            }
            What::Vote(vote) => self.group.ends().vote = Some(*vote),
            What::Truncate { .. }
            | What::Purge { .. }
            | What::Installing(_)
            | What::Leave(_)
            | What::Peer(..)
            | What::Barrier => {}
        }
    }
}
