//! The journal in front of the log's redb file: what was synced here is durable, and redb has it later.
//!
//! A durable commit of redb costs two syncs, and blocks that are allocated and freed. A record of the journal is one write into
//! blocks that the file has had since it was made, and one `fdatasync`. What an acknowledgement waits for is the record; redb gets
//! many of them in one commit, beside it.
//!
//! ```text
//!  writer ──► one record, fdatasync ──► IOFlushed, save_vote returns …          readers: memory, until redb has it
//!    │        side A │ side B
//!    └── side full ──► settler ──► one durable commit of redb: all changes of that side + how far the journal is settled
//! ```
//!
//! # The file
//!
//! `raft.journal`, numbers big-endian, all in blocks of 4,096 bytes. It is made as zeros that are *written*: with `fallocate` alone the
//! first write to each block would still turn an unwritten extent into a written one, which is metadata, and `fdatasync` would have to
//! wait for the file system's own journal. Its length and its blocks never change afterwards.
//!
//! ```text
//! block 0, 1         "ehe-journal" ‖ version ‖ id (16) ‖ epoch (8) ‖ bytes of a side (8) ‖ SHA-256 of these       block = epoch modulo 2
//! side A, side B     records, one behind the other from the beginning of the side
//! record             "ehej" ‖ length (4) ‖ epoch (8) ‖ sequence (8) ‖ SHA-256 of id, these three and the body (32) ‖ body ‖ zeros
//! body               changes as [`change`] has them, `length` bytes
//! ```
//!
//! A record takes whole blocks: to write one never touches a block, or a sector behind it, in which an earlier one lies.
//!
//! The log's redb file says which journal it has (`id`), its epoch, and the sequence up to which redb has everything (`settled`). An
//! epoch is one opening of the log; in it sequences count from 1. The two sides are written in turn, and a side is written again only
//! when redb has durably settled what was on it. The id is random and never leaves the node, so bytes inside of a command cannot
//! pass for a record.
//!
//! # Opening
//!
//! 1. The newest epoch in the header is redb's, or the one behind it. Anything else is another journal, or an older copy of one of
//!    the two files: the node does not start.
//! 2. Record `settled + 1` lies at the beginning of a side, each further one behind the one before it or at the beginning of the other
//!    side. The first that is not there ends the replay.
//! 3. If any record of this epoch lies in the file that has a higher sequence than the one that ended it, that one was synced before:
//!    the disk lost or altered it. The node does not start.
//! 4. The header gets the next epoch; then one durable commit of redb has all changes, and the epoch. From there on no record counts
//!    that was in the file.
//!
//! # When power goes, or a disk fails
//!
//! | at | on disk | after the restart |
//! |---|---|---|
//! | the write or sync of a record | nothing of it, some blocks of it in any order, or all | nobody was told; it is replayed if it is whole, else it ends the replay |
//! | a sync that returned an error | as above, whatever a read from memory says | every group stops; the sync is never tried again; what is replayed is written and synced by redb |
//! | the settling commit | redb before it or after it (two-phase) | replay from there: the side is still as it was |
//! | the write over a settled side | old records, some new | the old ones have sequences up to `settled`: they are neither taken nor missed |
//! | the next epoch in the header | epoch e, or torn, or e + 1 | the other block still says e; redb says e: the same replay again |
//! | the commit that follows it | redb e or e + 1, header e + 1 | as either; with e + 1 no record counts |
//! | making the file | anything | redb does not know of it: it is made again. A file *with* records of which redb knows nothing is not touched |
//! | no space | redb's settling commit fails | every group stops, the records stay; with room and a restart they are replayed |
//! | a file that is gone, shorter, zeroed | | redb knows of it: the node does not start |
//!
//! Damage to the very last record cannot be told from a write that was torn: if nothing was written behind it and nothing settled,
//! it is taken for one that nobody was told of. (Each log whose end is found by reading has this gap. A state that is
//! durable beyond it, is noticed: [`restart`](crate::consensus::restart).)

pub(super) mod change;
mod disk;
mod frame;
mod recover;

#[cfg(test)]
mod tests;

pub(in crate::consensus) use disk::Journal;
pub(super) use disk::Room;
pub(super) use frame::Record;
pub use recover::JournalError;
pub(in crate::consensus) use recover::{look_into, recover};

/// Which journal a log has, and how far redb has what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consensus) struct JournalRecord {
    pub(in crate::consensus) id: [u8; 16],
    pub(in crate::consensus) epoch: u64,
    pub(in crate::consensus) settled: u64,
}
