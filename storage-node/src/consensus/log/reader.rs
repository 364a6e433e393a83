//! Reading a group's log: the newest entries from memory, older ones from the file.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use futures::{Stream, StreamExt, stream};
use openraft::{OptionalSend, RaftLogReader};

use super::{
    file::{self, LogFile, ReadError},
    group::{GroupLog, next_index, weight},
};
use crate::consensus::{
    error::Fault,
    fence::io_error,
    runtime,
    types::{Entry, Types, Vote},
};

/// Most bytes that one read for applying or replicating brings into memory, unless one entry is longer.
const READ_BYTES: usize = 4 << 20;

/// Reads one group's log. Copies are cheap and hold nothing of their own: what they read is what holds now.
#[derive(Clone, Debug)]
pub(in crate::consensus) struct LogReader {
    pub(super) file: Arc<LogFile>,
    pub(super) group: Arc<GroupLog>,
}

impl LogReader {
    /// The entries of `[start, end)` that the log has, in order and without a gap; if `max_bytes` are read before the
    /// end, the first ones, at least one.
    async fn entries(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        loop {
            if let Some(entries) = self.of_one_moment(start, end, max_bytes).await? {
                return Ok(entries);
            }
        }
    }

    /// As [`entries`](Self::entries). None if the log was cut between the look into memory and that into the file: what is missing then was
    /// not lost, and what was found is perhaps of two logs.
    async fn of_one_moment(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Option<Vec<Entry>>> {
        self.group.fence.check().map_err(io_error)?;
        let (start, from, mut tail, epoch) = {
            let ends = self.group.ends();
            let (start, end) = ends.clip(start, end);
            if start >= end {
                return Ok(Some(Vec::new()));
            }
            let (from, tail) = ends.tail(start, end, max_bytes);
            (start, from, tail, ends.epoch)
        };
        if from <= start {
            return Ok(Some(tail));
        }
        let (file, group) = (self.file.clone(), self.group.fence.group());
        let read =
            runtime::blocking(move || file.with(|db| file::read_entries(db, group, start, from, max_bytes))).await;
        let mut entries = match read {
            Ok(Ok(entries)) => entries,
            Ok(Err(ReadError::Corrupt(index))) => {
                return Err(io_error(self.group.fence.corrupt(format!("entry {index} of the log"))));
            }
            Ok(Err(ReadError::Log(source))) => {
                return Err(io_error(self.group.fence.raise(Fault::Log { doing: "reading", source })));
            }
            Err(_) => return Err(io::Error::other("the runtime is shutting down")),
        };
        if self.group.ends().epoch != epoch {
            return Ok(None);
        }
        self.check(start, from, max_bytes, &entries)?;
        let bytes: usize = entries.iter().map(weight).sum();
        if next_index(entries.last().map(|entry| &entry.log_id)) == from {
            let mut bytes = bytes;
            let fits = tail.iter().take_while(|entry| {
                let before = bytes;
                bytes = bytes.saturating_add(weight(entry));
                before < max_bytes
            });
            let fits = fits.count();
            tail.truncate(fits);
            entries.append(&mut tail);
        }
        Ok(Some(entries))
    }

    /// A gap is corruption, unless the missing entries were purged while we read.
    fn check(&self, start: u64, end: u64, max_bytes: usize, entries: &[Entry]) -> io::Result<()> {
        let first = self.group.ends().first;
        let mut next = start.max(first.min(entries.first().map_or(end, |entry| entry.log_id.index())));
        for entry in entries {
            if entry.log_id.index() != next {
                return Err(io_error(self.group.fence.corrupt(format!("the log, which has no entry {next},"))));
            }
            next = next.saturating_add(1);
        }
        let cut = entries.iter().map(weight).fold(0_usize, usize::saturating_add) >= max_bytes;
        if next < end && !cut {
            return Err(io_error(self.group.fence.corrupt(format!("the log, which has no entry {next},"))));
        }
        Ok(())
    }
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        self.entries(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries(start, end, READ_BYTES).await
    }

    /// Reads ahead of the machine by one chunk only: a range may be the whole log.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let chunks = stream::try_unfold((self.clone(), start), move |(reader, next)| async move {
            let entries = reader.entries(next, end, READ_BYTES).await?;
            let after = next_index(entries.last().map(|entry| &entry.log_id));
            Ok::<_, io::Error>(if entries.is_empty() { None } else { Some((entries, (reader, after))) })
        });
        chunks.flat_map(|chunk| {
            stream::iter(match chunk {
                Ok(entries) => entries.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            })
        })
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.group.fence.check().map_err(io_error)?;
        Ok(self.group.ends().vote)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}
