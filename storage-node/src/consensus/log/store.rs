//! openraft's view of a group's log, for writing.

use std::{io, sync::Arc};

use openraft::{
    LogState, OptionalSend,
    storage::{IOFlushed, RaftLogStorage},
};

use super::{
    file::LogFile,
    group::{GroupLog, next_index},
    reader::LogReader,
    writer::{Done, LogQueue, Op, What, outcome},
};
#[cfg(ehe_sim)]
use crate::consensus::runtime;
use crate::consensus::{
    fence::io_error,
    types::{Entry, LogId, Types, Vote},
};

/// The log of one group. openraft owns the only one and calls it from one task, so the order of calls is the order in
/// the queue.
#[derive(Debug)]
pub(in crate::consensus) struct LogStore {
    reader: LogReader,
    queue: LogQueue,
}

impl LogStore {
    pub(in crate::consensus) fn new(file: Arc<LogFile>, group: Arc<GroupLog>, queue: LogQueue) -> Self {
        Self { reader: LogReader { file, group }, queue }
    }

    fn group(&self) -> &Arc<GroupLog> {
        &self.reader.group
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        self.group().fence.check().map_err(io_error)?;
        let ends = self.group().ends();
        Ok(LogState { last_purged_log_id: ends.purged, last_log_id: ends.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    /// Returns when the vote is synced; readers see it from then on.
    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let written = self.queue.request(self.group(), What::Vote(*vote))?;
        #[cfg(ehe_sim)]
        if runtime::red(runtime::Red::VoteBeforeSync) {
            return Ok(());
        }
        outcome(written.await)
    }

    /// Returns at once. A sync for each commit would double the cost of a commit, and would not make it any safer:
    /// that an entry is committed follows from the logs of a majority.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.group().fence.check().map_err(io_error)?;
        let mut ends = self.group().ends();
        ends.committed = committed;
        ends.committed_dirty = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        // Only what the log really has can be applied again.
        let ends = self.group().ends();
        Ok(ends.committed.min(ends.last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let group = self.group();
        group.fence.check().map_err(io_error)?;
        let entries: Vec<Entry> = entries.into_iter().collect();
        let epoch = {
            let mut ends = group.ends();
            ends.push(&entries).map_err(|what| io_error(group.fence.bug(what)))?;
            ends.epoch
        };
        let what = What::Append { entries, epoch };
        self.queue.submit(Op { group: group.clone(), what, done: Done::Flushed(callback) })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let group = self.group();
        group.fence.check().map_err(io_error)?;
        if next_index(last.as_ref()) < next_index(group.ends().purged.as_ref()) {
            return Err(io_error(group.fence.bug("the log was to be cut before its beginning")));
        }
        {
            let mut ends = group.ends();
            if next_index(ends.last.as_ref()) <= next_index(last.as_ref()) {
                return Ok(()); // there is nothing behind it
            }
            ends.truncate(last);
        }
        outcome(self.queue.request(group, What::Truncate { after: last })?.await)
    }

    /// Returns at once: until it is done the log just begins earlier.
    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let group = self.group();
        group.fence.check().map_err(io_error)?;
        let durable = group.durable.index();
        if durable.is_none_or(|durable| durable < upto.index()) {
            let what = format!("the log was to be purged up to {upto}, the state is durable up to {durable:?}");
            return Err(io_error(group.fence.bug(what)));
        }
        let whole = {
            let mut ends = group.ends();
            if next_index(ends.purged.as_ref()) > upto.index() {
                return Ok(());
            }
            ends.purge(upto)
        };
        let what = What::Purge { upto, whole };
        self.queue.submit(Op { group: group.clone(), what, done: Done::Nobody })
    }
}
