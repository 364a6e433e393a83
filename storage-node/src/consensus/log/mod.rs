//! The log of all groups of a node: one journal and one redb file, one writer thread, one sync for whoever waits.
//!
//! ```text
//!  openraft of group 0 ─ LogStore ─┐                                       ┌─ IOFlushed, save_vote returns …
//!  openraft of group 1 ─ LogStore ─┼─ queue ─► writer thread ─ one record ─┼─
//!          …             │         │           takes all that  + fdatasync └─
//!                        ▼         │           waits              │ many records
//!                    GroupLog      │                              ▼
//!                    (memory: vote, ends, newest entries)     settler thread ─ one durable commit of redb
//!                        ▲ readers; older entries: redb           │
//!                        └─ these are in redb: may be forgotten ◄─┘
//! ```
//!
//! [`mod@file`] has the tables, [`group`] the part of a group that is in memory, [`writer`] the thread that syncs, [`journal`] what it
//! writes and how that is found again, [`settle`] the thread that moves it to redb, [`apply`] how; [`store`] and [`reader`] are what
//! openraft sees.

mod apply;
pub(super) mod file;
pub(super) mod group;
mod growth;
pub(super) mod journal;
pub(super) mod reader;
mod settle;
pub(super) mod store;
pub(super) mod verify;
pub(super) mod writer;

pub use journal::JournalError;
pub(super) use journal::JournalRecord;

#[cfg(test)]
mod tests;
