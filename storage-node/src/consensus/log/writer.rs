//! The one thread that writes the log.
//!
//! It takes everything that waits, of all groups, in the order in which it came, writes it in one redb transaction,
//! syncs, and only then tells anybody. While it syncs the next batch gathers: the slower the disk, the larger the
//! batches. A transaction that fails fails all that was in it and stops every group, since nobody knows what a file
//! holds after a failed sync.

use std::{collections::BTreeMap, io, sync::Arc};

use openraft::storage::IOFlushed;
use redb::{Database, ReadableTable, Table};
use tokio::sync::oneshot;

use super::{
    file::{self, ENTRIES, FIELDS, Field, Left, LogFile},
    group::{GroupLog, Outcome, next_index, weight},
};
use crate::consensus::{
    codec,
    error::Fault,
    fence::io_error,
    ids::{GroupId, NodeId, NodeUid},
    runtime::{self, Now, Receiver, Sender, Thread},
    types::{Entry, LogId, Types, Vote},
};

/// Most operations and bytes of one transaction: a bound for memory and for how long the first one waits.
const MAX_OPS: usize = 4096;
const MAX_BYTES: usize = 32 << 20;
/// Entries that one transaction purges of one group.
const PURGE_STEP: u64 = 512;

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
    /// Forget `from..=upto`; `whole`: and nothing is left behind it.
    Purge {
        from: u64,
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

/// Starts the thread for `groups`, which are all that will ever be written.
pub(in crate::consensus) fn spawn(file: Arc<LogFile>, groups: Vec<Arc<GroupLog>>) -> io::Result<(LogQueue, Thread)> {
    let (sender, receiver) = runtime::channel();
    let writer = Writer { file, receiver, groups, purges: BTreeMap::new(), failed: None };
    let thread = runtime::thread("raft-log".into(), writer.run())?;
    Ok((LogQueue(sender), thread))
}

struct Writer {
    file: Arc<LogFile>,
    receiver: Receiver<Op>,
    groups: Vec<Arc<GroupLog>>,
    purges: BTreeMap<GroupId, Purge>,
    failed: Option<Arc<Fault>>,
}

/// A purge that goes on step by step beside other writes.
struct Purge {
    group: Arc<GroupLog>,
    next: u64,
    upto: LogId,
}

type Entries<'txn> = Table<'txn, (u16, u64), &'static [u8]>;
type Fields<'txn> = Table<'txn, (u16, u8), &'static [u8]>;

impl Writer {
    async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            let written = self.write(batch);
            runtime::moment().await;
            written.tell();
        }
        // Closing in order: what was told to be committed is worth a last write, so that a restart replays less.
        self.write(Vec::new()).tell();
    }

    /// Everything that waits, or the next thing that comes. `None` at the end.
    async fn gather(&mut self) -> Option<Vec<Op>> {
        let mut batch = Vec::new();
        if self.purges.is_empty() {
            batch.push(self.receiver.next().await?);
        }
        let mut bytes: usize = batch.iter().map(Op::weight).sum();
        while batch.len() < MAX_OPS && bytes < MAX_BYTES {
            match self.receiver.now() {
                Now::Item(op) => {
                    bytes = bytes.saturating_add(op.weight());
                    batch.push(op);
                }
                Now::Nothing => break,
                Now::Ended if batch.is_empty() => return None,
                Now::Ended => break,
            }
        }
        Some(batch)
    }

    /// One transaction, from its beginning to the sync. Nobody hears of it yet.
    fn write(&mut self, batch: Vec<Op>) -> Written {
        let mut accepted = Vec::with_capacity(batch.len());
        for op in batch {
            match op.group.fence.check() {
                Ok(()) => accepted.push(op),
                Err(fault) => op.done.tell(&Err(fault)),
            }
        }
        let result = match &self.failed {
            Some(fault) => Err(fault.clone()),
            None => {
                let file = self.file.clone();
                file.with(|db| self.commit(db, &accepted)).map_err(|source| self.fail(source))
            }
        };
        Written { batch: accepted, result }
    }

    /// The file failed: no group may write again.
    fn fail(&mut self, source: redb::Error) -> Arc<Fault> {
        let fault = Arc::new(Fault::Log { doing: "writing", source });
        for group in &self.groups {
            group.fence.raise(fault.clone());
        }
        self.purges.clear();
        self.failed = Some(fault.clone());
        fault
    }

    fn commit(&mut self, db: &Database, batch: &[Op]) -> Result<(), redb::Error> {
        let committed = self.take_committed();
        if batch.is_empty() && committed.is_empty() && self.purges.is_empty() {
            return Ok(());
        }
        let txn = file::begin(db)?;
        {
            let mut entries = txn.open_table(ENTRIES)?;
            let mut fields = txn.open_table(FIELDS)?;
            for op in batch {
                if let What::Peer(peer, uid) = &op.what {
                    file::write_peer(&txn, *peer, uid)?;
                }
                self.apply(op, &mut entries, &mut fields)?;
            }
            self.purge_step(&mut entries, &mut fields)?;
            for (group, id) in committed {
                fields.insert((group.0, Field::Committed as u8), codec::encode_log_id(&id).as_slice())?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// The commits that are not written yet. They ride along with what must be written anyway: losing them costs a
    /// longer replay, never a commit.
    fn take_committed(&self) -> Vec<(GroupId, LogId)> {
        let mut taken = Vec::new();
        for group in &self.groups {
            let mut ends = group.ends();
            if let (true, Some(id)) = (ends.committed_dirty, ends.committed) {
                ends.committed_dirty = false;
                taken.push((group.fence.group(), id));
            }
        }
        taken
    }

    fn apply(&mut self, op: &Op, entries: &mut Entries<'_>, fields: &mut Fields<'_>) -> Result<(), redb::Error> {
        let group = op.group.fence.group();
        let g = group.0;
        match &op.what {
            What::Append { entries: new, .. } => {
                for entry in new {
                    let (head, body) = codec::encode_entry(entry);
                    let mut value = entries.insert_reserve((g, entry.log_id.index()), head.len() + body.len())?;
                    let (first, second) = value.as_mut().split_at_mut(head.len());
                    first.copy_from_slice(&head);
                    second.copy_from_slice(&body);
                }
            }
            What::Vote(vote) => {
                fields.insert((g, Field::Vote as u8), codec::encode_vote(vote).as_slice())?;
            }
            What::Truncate { after } => {
                entries.retain_in((g, next_index(after.as_ref()))..=(g, u64::MAX), |_, _| false)?;
            }
            What::Purge { upto, whole: true, .. } => {
                // Only after a snapshot was installed. In one transaction, since what is appended next must not
                // stand behind a hole.
                self.purges.remove(&group);
                entries.retain_in((g, 0)..=(g, u64::MAX), |_, _| false)?;
                fields.insert((g, Field::Purged as u8), codec::encode_log_id(upto).as_slice())?;
                fields.remove((g, Field::Installing as u8))?;
            }
            What::Purge { from, upto, whole: false } => {
                let purge = Purge { group: op.group.clone(), next: *from, upto: *upto };
                self.purges.entry(group).or_insert(purge).upto = *upto;
            }
            What::Installing(upto) => {
                fields.insert((g, Field::Installing as u8), codec::encode_log_id(upto).as_slice())?;
            }
            What::Leave(left) => {
                // In one transaction: half a log is none that a restart could go on with.
                self.purges.remove(&group);
                entries.retain_in((g, 0)..=(g, u64::MAX), |_, _| false)?;
                for field in [Field::Committed, Field::Purged, Field::Installing] {
                    fields.remove((g, field as u8))?;
                }
                fields.insert((g, Field::Left as u8), codec::encode_left(left).as_slice())?;
            }
            What::Peer(..) | What::Barrier => {}
        }
        Ok(())
    }

    /// Goes one step on with every purge. A crash between steps leaves a log that begins a little earlier.
    fn purge_step(&mut self, entries: &mut Entries<'_>, fields: &mut Fields<'_>) -> Result<(), redb::Error> {
        let mut finished = Vec::new();
        for (group, purge) in &mut self.purges {
            let g = group.0;
            let end = purge.next.saturating_add(PURGE_STEP).min(next_index(Some(&purge.upto)));
            let last = end.saturating_sub(1);
            let id = match entries.get((g, last))? {
                _ if last == purge.upto.index() => Some(purge.upto),
                Some(value) => codec::decode_entry_id(last, value.value()).ok(),
                None => None,
            };
            let Some(id) = id else {
                purge.group.fence.corrupt(format!("entry {last} of the log"));
                finished.push(*group);
                continue;
            };
            entries.retain_in((g, purge.next)..(g, end), |_, _| false)?;
            fields.insert((g, Field::Purged as u8), codec::encode_log_id(&id).as_slice())?;
            purge.next = end;
            if last == purge.upto.index() {
                fields.remove((g, Field::Installing as u8))?;
                finished.push(*group);
            }
        }
        for group in finished {
            self.purges.remove(&group);
        }
        Ok(())
    }
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
