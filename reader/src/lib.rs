//! The window of patient, clinician and EHR: rooms, grants, reads, audit, verification.
//!
//! Nothing that a node says is believed: what is shown here was followed from the room's first entry (chain, signatures,
//! rules), tied to a quorum's checkpoint, and held against what this reader saw before.
//!
//! The way of the data: [`nodes`] asks, [`follow`] verifies and learns ([`view`]), [`scope`] asks for what the grants allow,
//! [`keys`] opens, [`read`] and [`watch`] hand out, [`output`] prints. The patient's way: [`build`] makes control events,
//! [`submit`] brings them into the ledger against a verified receipt, [`manage`] is both for rooms and grants, [`authority`] for
//! whose word counts in a room, [`recovery`] for giving it a recovery key.

pub mod audit;
pub mod authority;
pub mod build;
pub mod charters;
pub mod cli;
pub mod error;
pub mod evidence;
pub mod extends;
pub mod follow;
pub mod heads;
pub mod home;
pub mod in_force;
pub mod keys;
pub mod manage;
pub mod memory;
pub mod nodes;
pub mod output;
pub mod read;
pub mod recovery;
pub mod restored;
pub mod rooms;
pub mod saved;
pub mod scope;
pub mod session;
pub mod submit;
pub mod verify;
pub mod view;
pub mod watch;
pub mod when;

#[cfg(test)]
mod test_room;

pub use error::{Error, Exit};
