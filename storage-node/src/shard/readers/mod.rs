//! What apply tells those who read on this node: which of their requests were decided, and whose rights may have changed.
//!
//! A request is ordered by the leader, and content is released by whichever node was asked. So that the leader's word is not needed for it, a
//! node makes its [`Committed`] when its own replica applies the request, and nowhere else.

mod decisions;
mod rights;

pub use decisions::{Committed, Decided, Decisions, Expected};
pub use rights::{Rights, RightsWatch};

/// Shared by a shard's machine and its handlers. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Readers {
    /// Which requests were decided, and how.
    pub decisions: Decisions,
    /// In which rooms rights may have changed.
    pub rights: Rights,
}
