//! Electronic healthcare events: format, sealing, ledger and access rules, wire messages, Merkle log.
//!
//! A pure library: no IO, no clock, no async; `now` and randomness are arguments. `SPEC.md` beside this crate draws every
//! byte once; the modules name its sections.

pub mod cbor;
pub mod id;
pub mod limits;
pub mod time;
