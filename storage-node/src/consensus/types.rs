//! The types that openraft is run with. Nothing of this leaves the `consensus` module.

use std::fmt;

use bytes::Bytes;
use openraft::{impls::leader_id_std, vote::RaftLeaderId};

use super::{ids::Position, runtime::Runtime, state::MachineAdapter};

openraft::declare_raft_types!(
    /// Standard Raft: one leader a term, so that (term, index) names an entry.
    pub(super) Types:
        D = Payload,
        R = Reply,
        NodeId = u64,
        Node = (),
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

/// openraft's handle of one group.
pub(super) type Raft = openraft::Raft<Types, MachineAdapter>;
pub(super) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(super) type EntryPayload = openraft::type_config::alias::PayloadOf<Types>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(super) type LeaderId = openraft::type_config::alias::LeaderIdOf<Types>;
pub(super) type Membership = openraft::Membership<u64, ()>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(super) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, super::state::SnapshotData>;
pub(super) type WriteResult = openraft::raft::ClientWriteResult<Types>;

/// A log id from its two numbers.
pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, 0).to_committed(), index)
}

/// The same place in our own type.
pub(super) fn position(id: &LogId) -> Position {
    Position { term: id.committed_leader_id().term, index: id.index() }
}

/// A command. serde is what openraft's bounds ask for; nothing is stored or sent in that form.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub(super) struct Payload(pub(super) Bytes);

/// A response. As with [`Payload`], serde is only a bound.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub(super) struct Reply(pub(super) Bytes);

macro_rules! opaque {
    ($name:ident) => {
        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                Self(bytes.into())
            }
        }
        impl From<$name> for Vec<u8> {
            fn from(value: $name) -> Self {
                value.0.into()
            }
        }
        // The content is sealed health data or its metadata: logs show its length only.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} bytes", self.0.len())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
opaque!(Payload);
opaque!(Reply);
