//! Evidence that this node found or was told: kept in files that anybody can judge, shown, and handed on.
//!
//! ```text
//!  checkpointer ── finding ─► Found ─┐                                   ┌─► data_dir/evidence/HASH.cbor   `ehe-node status`
//!                                    ├─► Keeper: judged, anything new? ──┼─► clients (Evidence), other nodes (peers::tell_evidence)
//!  another node ── bytes ────────────┘                                   └─► board: who signed two logs counts no more there
//! ```
//!
//! Whoever brings it, it is judged by its own bytes ([`ehe::evidence::judge`]) and taken if it is of this alliance. [`shelf`] bounds what is
//! kept: what names nobody new adds nothing, so that a liar who goes on lying fills no disk.

mod found;
mod keeper;
mod lines;
pub mod shelf;

pub use found::Found;
pub use keeper::{Keeper, Taken};
pub use lines::{NoStatus, lines};

/// Name of the directory in the data directory.
pub const DIRECTORY: &str = "evidence";
