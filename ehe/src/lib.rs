//! Electronic healthcare events: format, sealing, ledger and access rules, wire messages, Merkle log.
//!
//! A pure library: no IO, no clock, no async; `now` and randomness are arguments. `SPEC.md` beside this crate draws every
//! byte once; the modules name its sections.

pub mod author;
pub mod body;
pub mod cbor;
pub mod charter;
pub mod checkpoint;
pub mod coded;
pub mod control;
pub mod cose;
pub mod decimal;
pub mod event;
pub mod evidence;
pub mod extension;
pub mod id;
pub mod identity;
pub mod kem;
pub mod leaf;
pub mod ledger;
pub mod limits;
pub mod merkle;
pub mod note;
pub mod read;
pub mod reading;
pub mod recovery;
pub mod refusal;
pub mod restoration;
pub mod room;
pub mod run;
pub mod seal;
pub mod sign;
pub mod time;
pub mod unit;
pub mod vital;
pub mod void;
pub mod wire;

#[cfg(test)]
mod test_rng;
