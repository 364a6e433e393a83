//! Evidence that this node found or was told: kept, shown, and handed on.
//!
//! ```text
//!  checkpointer ── finding ─► Found ─┐                                   ┌─► data_dir/evidence/HASH.cbor   `ehe-node status`
//!                                    ├─► Keeper: judged, anything new? ──┼─► clients (Evidence), other nodes (peers::tell_evidence)
//!  another node ── bytes ────────────┘                                   └─► board: who signed two logs counts no more there
//! ```
//!
//! What is kept and travels is the contradiction alone, some kilobytes whatever the charters take: whoever takes it has these. Whoever brings
//! it, it is judged under this node's own verified charters, and waits where it names a later one than they have. [`shelf`] bounds what is
//! kept: what names nobody new adds nothing, so that a liar who goes on lying fills no disk. [`export()`] puts the charters in again, for
//! people who have no charters and believe nobody.

mod export;
mod found;
mod keeper;
mod lines;
pub mod shelf;

pub use export::{NotExported, export};
pub use found::Found;
pub use keeper::{Keeper, Taken};
pub use lines::{NoStatus, lines};

/// Name of the directory in the data directory.
pub const DIRECTORY: &str = "evidence";
