//! A storage node: QUIC server, replicated shards in redb, access decision, audit, receipts.
//!
//! The way of a run: [`server`] takes it from the channel, a handler checks who sent it, [`shard`] checks its signature, orders
//! it through [`consensus`] and applies it, [`checkpoint`] signs the log that holds it, the handler answers with the receipt.
//! The way of a read: the request is ordered like a run; [`access`] releases what was granted, as long as it is.
//! Who may be connected at all, and for how long: [`admission`]. The other nodes of its groups: [`peers`]; that the state at hand is
//! not one that they have left behind: [`confirmation`].

pub mod access;
pub mod admission;
pub mod backup;
pub mod blocking;
pub mod charters;
pub mod checkpoint;
pub mod clock;
pub mod commands;
pub mod config;
pub mod confirmation;
pub mod consensus;
pub mod cosign;
pub mod daemon;
pub mod estranged;
pub mod evidence;
mod handlers;
pub mod leadership;
mod least_pace;
pub mod node;
mod one_each;
pub mod peers;
pub mod placement;
mod red;
pub mod scrub;
pub mod server;
pub mod shard;
pub mod stats;
#[cfg(test)]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "as below")]
#[path = "../tests/support/charters.rs"]
mod test_charters;
#[cfg(test)]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "shared with the integration tests, which use more of it")]
#[path = "../tests/support/disk.rs"]
mod test_disk;
#[cfg(test)]
#[allow(dead_code, missing_docs, unreachable_pub, reason = "shared with the integration tests, which use more of it")]
#[path = "../tests/support/members.rs"]
mod test_members;
pub mod verify;
