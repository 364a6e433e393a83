//! The log of all groups of a node: one redb file, one writer thread, one sync for whoever waits.
//!
//! ```text
//!  openraft of group 0 ─ LogStore ─┐                                       ┌─ IOFlushed, save_vote returns …
//!  openraft of group 1 ─ LogStore ─┼─ queue ─► writer thread ─ one redb ───┼─
//!          …             │         │           takes all that  transaction └─
//!                        ▼         │           waits           + sync
//!                    GroupLog (memory: vote, ends, newest entries) ◄─ readers; older entries: redb
//! ```
//!
//! [`mod@file`] has the tables, [`group`] the part of a group that is in memory, [`writer`] the thread, [`store`] and
//! [`reader`] are what openraft sees.

pub(super) mod file;
pub(super) mod group;
mod growth;
pub(super) mod reader;
pub(super) mod store;
pub(super) mod verify;
pub(super) mod writer;

#[cfg(test)]
mod tests;
