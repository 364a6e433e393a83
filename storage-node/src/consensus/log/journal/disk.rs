//! The journal's file at work: whoever has a [`Journal`] writes the next record.

use std::io;

use redb::StorageBackend;

use super::{
    JournalRecord,
    frame::{Header, Record, Side},
};

#[cfg(ehe_sim)]
use crate::consensus::runtime;

/// An open journal, that has nothing which redb lacks.
#[derive(Debug)]
pub(in crate::consensus) struct Journal {
    // Of redb, only its seam to a disk: what fails there in tests, fails here in the same ways.
    file: Box<dyn StorageBackend>,
    header: Header,
    /// The last one that was written.
    sequence: u64,
    side: Side,
    /// Bytes of the side that are taken.
    taken: u64,
}

impl Journal {
    pub(super) fn new(file: Box<dyn StorageBackend>, header: Header) -> Self {
        Self { file, header, sequence: 0, side: Side::A, taken: 0 }
    }

    /// What redb is to know, when it has all that was written.
    pub(in crate::consensus::log) fn settled(&self) -> JournalRecord {
        JournalRecord { id: self.header.id, epoch: self.header.epoch, settled: self.sequence }
    }

    /// Bytes of each of its two sides.
    pub(in crate::consensus::log) fn side_bytes(&self) -> u64 {
        self.header.side
    }

    /// Where a record has room: on this side, or on the other one.
    pub(in crate::consensus::log) fn room(&self, record: &Record) -> Room {
        match record.blocks() {
            Some(bytes) if bytes <= self.header.side.saturating_sub(self.taken) => Room::Here,
            Some(bytes) if bytes <= self.header.side => Room::There,
            _ => Room::Nowhere,
        }
    }

    /// Writes and syncs a record, which has room. After an error nobody knows what the file holds: nothing may be written any more.
    pub(in crate::consensus::log) fn write(&mut self, record: Record) -> io::Result<()> {
        let sequence = self.sequence.saturating_add(1);
        let bytes = record.sealed(&self.header, sequence);
        self.file.write(self.header.side_at(self.side).saturating_add(self.taken), &bytes)?;
        self.sync()?;
        self.sequence = sequence;
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        Ok(())
    }

    #[cfg(not(ehe_sim))]
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    #[cfg(ehe_sim)]
    fn sync(&self) -> io::Result<()> {
        if runtime::red(runtime::Red::JournalUnsynced) { Ok(()) } else { self.file.sync_data() }
    }

    /// Goes on at the beginning of the other side, of which redb has everything.
    pub(in crate::consensus::log) fn turn(&mut self) {
        self.side = self.side.other();
        self.taken = 0;
    }
}

/// Where a record has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consensus::log) enum Room {
    Here,
    There,
    /// Not even on a side that is empty.
    Nowhere,
}
