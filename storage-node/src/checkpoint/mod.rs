//! Checkpoints: what was applied is cosigned once it is remembered, and shown to whoever waits for it once a quorum has
//! cosigned it.
//!
//! ```text
//!  machines ── show(size, root) ─► Board ─► thread ─► core: the leader names a size, everybody cosigns that one
//!  network ─── deliver(peer, …) ─►   │        │        │  wishes ─────────────────────────────────────► Outbound ─► network
//!                                    ▲        │        ▼
//!                                    │        └─ cosign file, one sync for all shards
//!                                    │                 │  cosignatures, to the whole group ────────────► Outbound
//!                                    └──── due ────────┴─ a quorum of members ─► watch: receipts, heads, reads
//! ```
//!
//! - *core*, *cosigning* and *sign* (a round's halves), *wish*, *foresight*, *telling*, *collect*, *clock*, *evidence*, *message*: pure. *thread*, *board*, *outbound*: the edge.
//! - The board keeps only the newest state of each shard, so however many blocks were applied meanwhile, one round makes one
//!   checkpoint for each shard, with one sync for all.
//! - Signed is only what this node's own tree has at that size, and what extends (RFC 9162 §2.1.4) whatever it signed before; the
//!   proof is made each time. After a restart, while the state has not caught up with the file, nothing is signed at all.
//! - Wishes are not signed, and leave before the sync: a replica applies while the leader's disk works. Every signature leaves
//!   after it.
//! - A group of one node takes the same way; it is its own leader and its own quorum, in one round.

mod board;
mod clock;
mod collect;
mod core;
mod cosigning;
mod evidence;
mod foresight;
mod message;
mod outbound;
mod publish;
mod sign;
mod telling;
mod thread;
mod wish;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use ehe::charter::VerifiedCharter;
use ehe::id::NodeId;

pub use self::core::{Action, Core, Ignored, Now, Refused, Round, Who, World};
pub use board::{Applied, Board, Distrusted, News};
pub use clock::CLOCK_DIFFERS_MAX_MS;
pub use evidence::{Evidence, EvidenceSink, Logged, Side};
pub use message::{
    ClockDiffers, Conflict, Cosignature, MESSAGE_MAX_BYTES, Message, MessageError, Point, VERSION, Wish, Word,
};
pub use outbound::Outbound;
pub use publish::{Checkpointed, Published};
pub use thread::{Checkpointer, Leader, Line, MayOrder, Rounds};

/// The nodes with which a node cosigns: the others in the groups of its shards.
pub fn peers(charter: &VerifiedCharter, node: NodeId) -> BTreeSet<NodeId> {
    let groups = charter.shards_of(node).flat_map(|shard| charter.group(shard));
    groups.copied().filter(|id| *id != node).collect()
}
