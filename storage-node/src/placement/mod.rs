//! Where shards live: what the newest charter says becomes so, one step at a time, while they serve.
//!
//! ```text
//!   charters (newest) ─┐
//!   shard's log ───────┼─► Seen ─► step: what comes next ─► driver: does it ─► consensus, sequencer
//!   members, matched ──┘                                       (on the node that leads the shard)
//! ```
//!
//! - *step* decides, and is pure; *driver* looks and acts. Nothing is remembered between two steps: a node that takes over the leadership,
//!   or was started again, sees from log and membership where the move stands.
//! - *farewell* gives up what a node has of a shard that lives elsewhere now.
//! - *parting* cuts off a node that the charter has no more, when nothing here needs it any longer.
//! - *voters* says which voters a shard may have on the way: no leader can order others.
//! - *status* is what the nodes tell each other of their shards, so that any of them answers for all.

mod driver;
mod farewell;
mod parting;
mod status;
mod step;
mod voters;

pub(crate) use driver::Said;
pub use driver::{Mover, Progress};
pub use farewell::{Kept, Leave, Leaver, Leaving, Moved, under_what_was_left};
pub use parting::{Parting, needed_since};
pub use status::groups;
pub use step::{Awaited, CLOSE_ENTRIES, Nodes, Seen, Step, next_step};
pub use voters::judge;
