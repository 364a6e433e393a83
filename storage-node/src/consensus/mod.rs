//! Replicated logs, one for each shard, behind a narrow door.
//!
//! Other modules see what this file exports: groups and nodes by number, commands and responses as bytes, a
//! [`Machine`] that they implement, a [`Consensus`] that they ask. openraft is behind the door and its types do not
//! come out (nor into a file: [`codec`] has our own forms).
//!
//! ```text
//!   shard ── propose(group, bytes) ─► Consensus ─► openraft ─┬─► log/    one redb file, one writer thread, synced
//!     ▲                                    ▲                 ├─► network/ ─ Link ─► crate::peers
//!     └── (position, response) ────────────┘                 └─► state/  a thread for each Machine ─► shard's redb file
//! ```
//!
//! # Invariants
//!
//! 1. **Nothing is confirmed before it is synced.** An entry counts as written (`IOFlushed`), and a vote as given
//!    (`save_vote` returns), after the record of the log's [`journal`](log::journal) that holds it was synced. What is
//!    proposed is answered after that, and after it was applied.
//! 2. **The log of a group is written in one order and has no holes.** One queue, one thread, whole records. An
//!    append that would leave a hole is refused and stops the group.
//! 3. **The log is on disk before a state that contains it.** Commits of the state are not durable; before the state
//!    is made durable, the worker waits until the log is synced up to what was applied. Where it never will be, after
//!    a fault of the log say, the state is [abandoned](Machine::abandon): redb would make durable what it closes. So
//!    after a crash `state <= log`, and the log replays the difference: from the commit that was last noted while
//!    opening, and the rest when a leader of the new term commits.
//! 4. **A snapshot in openraft's sense is a durable state.** openraft shortens the log up to the last snapshot that it
//!    was told of. Every one that it is told of (built, current, or installed) was made durable first.
//! 5. **The log is never purged past the durable state.** This follows from 4, and the log checks it again by a number
//!    ([`Durable`](log::group::Durable)) that only a machine's successful `make_durable` or `install` moves: a purge
//!    beyond it stops the group instead of losing data. openraft's own snapshot policy is off; a worker offers its
//!    group for shortening after it made its state durable and enough has gathered, and [`compact`] says how far.
//! 6. **A state ends at or before the end of its log**, with one exception, which stands in the log before it happens:
//!    a snapshot that is being installed. [`restart`] refuses everything else.
//! 7. **Log and state carry one incarnation** ([`NodeUid`]), and the log the node's number. A node whose log is gone
//!    while state is there does not start. A node that lost both starts as new, which it cannot know: its peers
//!    remember its uid durably from when they first met it, and refuse another under the same number, for good. They have met it
//!    before it has a part in anything ([`meet`]).
//! 8. **A fault is for good.** A failed write of the log stops all groups of the node, since they share the file; a
//!    failed machine or corrupt bytes stop one group. What is stopped confirms nothing more, and says why
//!    ([`Fault`]); a restart recovers by the ordinary path.
//!
//! 9. **What a peer says is checked before openraft hears it**, and counts once it is on disk who the peer is. A snapshot is
//!    received whole and found good beside the machine at work, before it is installed. See [`network`].
//! 10. **A leader keeps the log that a member lacks**, up to a limit, and everybody its newest entries ([`compact`]): who was away for
//!     a moment needs no snapshot, whoever leads by then, and who gets one needs no second.
//! 11. **What a leader orders is judged before it is stored** ([`Machine::vetting`]), and a leader that more than half refuse hands over
//!     ([`refused`]).
//!
//! # Quiet groups
//!
//! A group whose one member is this node needs no heartbeats and no election timer: its tick is off, and its worker
//! and the log's writer sleep until there is something to do. It is elected when it opens, not by a timeout.

mod begin;
mod codec;
mod compact;
mod config;

mod error;
mod fence;
mod group;
mod handle;
mod hold;
mod ids;
mod leaps;
mod leave;
mod log;
mod machine;
mod meet;
mod members;
mod network;
mod open;
mod propose;
mod rebuild;
mod refused;
mod restart;
mod runtime;
mod state;
mod status;
mod types;

#[cfg(test)]
mod suite;

pub use begin::{Begun, begin, entries_since, entries_until};
pub use config::{Bootstrap, Config, MAX_GROUPS, Timing};
pub use error::{
    ChangeError, ConfigError, Fault, LeaveError, OpenError, ProposeError, ReadError, ShutdownError, WaitError,
};
pub use handle::Consensus;
pub use ids::{GroupId, NodeId, NodeUid, Position};
pub use leave::Aside;
pub use log::{
    JournalError,
    verify::{GroupFound, LogFound},
};
pub use machine::{AppliedMeta, Command, Machine, MachineError, Stage, Stager, Unfit, Vetting};
pub use meet::Beginning;
pub use members::Judge;
pub use network::{
    Alone, Apart, Estranged, FrameReceiver, FrameSender, Link, LinkError, MAX_FRAME_BYTES, Purpose, Stream, Unserved,
};
pub use open::LOG_FILE;
pub use propose::Pending;
pub use rebuild::{applied_at, replace_state};
#[cfg(ehe_sim)]
pub use runtime::simulated as sim;
pub use state::{Latch, Latched};
pub use status::{Role, Standing, Status};
