//! A room's rules as a pure state machine: who may append, who may read, what a control event changes (SPEC 8, 9).
//! [`state`]: grants and epochs; [`authority`]: whose word counts; [`mod@admit`]: runs; [`read`]: requests.
//!
//! Nodes ask it inside apply, gateways and readers ask it about what a node shows them: the same code, so that nobody has
//! to believe a node's word. Nothing here looks at a clock; `now` is the ledger's time.

mod admit;
mod authority;
mod read;
mod state;

pub use admit::{Admission, Ledger, Refused, WrapFact, admit, author_key};
pub(crate) use admit::{admit_known, names_each_once};
pub use authority::{Delegation, OwnerKey};
pub use read::{Granted, decide};
pub use state::{EpochState, GrantEnd, GrantState, RoomState, StateError};

#[cfg(test)]
mod tests;
