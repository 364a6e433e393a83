//! The other nodes of this node's groups: what goes to them and comes from them, over `ehe-raft/1`.
//!
//! ```text
//!   consensus ── Link ──► link ────┐                          ┌──► Consensus::serve
//!                                  ├─► dialer ~ ~ ~ accept ───┤
//!   Outbound ──► cosigning ────────┤   kind, then frames      ├──► Board::deliver
//!   Keeper ────► evidence ─────────┤                          ├──► Keeper::told
//!   handlers ──► reads ────────────┘                          └──► ReadDoor ─► Sequencer
//! ```
//!
//! A node dials whoever it has something to say to, with its own certificate, at the addresses that the charter names; so there are
//! connections in both directions between two nodes, made when they are needed and shared by all groups ([`certs::NodeDialer`]). The
//! first frame of each stream is one byte, its [`Kind`]; what follows is the affair of whom it names. Who speaks, the certificate
//! says, and nothing else is asked: who is not in the charter is sent away before a stream of theirs is read. Any node of the alliance may
//! ask for charters and status; who has no part in a group is sent away by consensus and by repair, and not heard about checkpoints.
//!
//! # Bounds
//!
//! | what | at most |
//! |---|---|
//! | connections, those of one node, streams on one | [`certs::NodeLimits`] |
//! | a frame of consensus | what consensus asks for, 16 MiB and mostly 1 KiB |
//! | a frame about checkpoints | [`MESSAGE_MAX_BYTES`](crate::checkpoint::MESSAGE_MAX_BYTES) |
//! | a frame about the alliance | 256 KiB a report, 1 MiB an answer with charters, which only a node that shows newer ones is asked for, one node at a time |
//! | a frame of evidence | [`CONTRADICTION_MAX_BYTES`](ehe::limits::CONTRADICTION_MAX_BYTES), one at a time of a connection, one judged at a time of all |
//! | a frame about a read request | [`ORDER_READ_MAX_BYTES`] |
//! | read requests of one node that are ordered at a time | 256 |
//! | those of readers whom the room does not know, of one node in an hour | 64 such readers |
//! | a frame of a repair | 4 KiB a row of an entry, 1 MiB a piece of a state, no slower than 256 KiB/s; of one node one request at a time, two states of all |
//! | until a stream's kind is here | 10 s |

mod accept;
mod alliance;
mod cosigning;
mod evidence;
mod link;
mod presence;
mod rarely;
mod reads;
mod repair;
mod strangers;
mod whereabouts;

pub use accept::Accepting;
pub use alliance::{Alliance, GroupReport, Report, attend, reencoded};
pub use cosigning::cosign_with;
pub use evidence::tell_evidence;
pub use link::Reach;
pub use rarely::Rarely;
pub use reads::{ORDER_READ_MAX_BYTES, OrderRead, Ordered, ReadDoor, order_read};
pub use repair::{Others, Repairs};
pub use whereabouts::expect;

/// What a stream between nodes is for: its first frame, one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Replication of a group ([`crate::consensus`]).
    Consensus,
    /// Messages about checkpoints ([`crate::checkpoint`]), one a frame, from whoever opened it; nothing comes back.
    Checkpoints,
    /// What charters there are and how shards are: a question and an answer ([`alliance`]).
    Alliance,
    /// One read request for whoever orders the shard ([`OrderRead`]), and its answer ([`Ordered`]).
    Reads,
    /// An entry that the other node's disk damaged, or a state ([`crate::scrub`]).
    Repair,
    /// [Evidence](crate::evidence), one piece a frame; each is answered by the byte 1 when it is kept, and by 2 where
    /// it names a charter that is not there yet.
    Evidence,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Consensus, Self::Checkpoints, Self::Alliance, Self::Repair, Self::Reads, Self::Evidence];

    /// The byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Consensus => 1,
            Self::Checkpoints => 2,
            Self::Alliance => 3,
            Self::Reads => 6,
            Self::Evidence => 7,
            Self::Repair => 4,
        }
    }

    /// What a first frame names; `None` if nothing that this version knows.
    pub fn of(frame: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| frame == [kind.byte()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_frame_is_one_byte_that_names_a_kind() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(&[kind.byte()]), Some(kind));
            assert_eq!(Kind::of(&[kind.byte(), 0]), None);
        }
        for other in [&[][..], &[0], &[9]] {
            assert_eq!(Kind::of(other), None);
        }
    }
}
