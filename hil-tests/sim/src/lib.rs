//! Nodes of an alliance in one process, on a clock and with chance of their own: a seed repeats a run, step by step.
//!
//! What runs is the `consensus` module of the node as it is: log, machines' workers, network, checks and openraft; on redb, on disks
//! that forget what was not synced. What is ours is below and around it: `disk`, `net`, the clock and the order of steps
//! (`ehe_node::consensus::sim`), `nemesis` and `clients`, and the `ledger` that holds everything against what must be true.
//!
//! A run has two parts. In the storm clients write and read while faults are injected; then the faults end, and within a
//! bounded time everybody must be level, and every acknowledged command in its place on each of them.

#![cfg(ehe_sim)]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test in the form of a program"
)]

pub mod chance;
pub mod clients;
pub mod cluster;
pub mod disk;
pub mod gateway;
pub mod ledger;
pub mod machine;
pub mod nemesis;
pub mod net;
pub mod plan;
pub mod run;
pub mod sealed;
pub mod trace;

mod api {
    pub(crate) use ehe_node::consensus::{
        AppliedMeta, Command, Latch, Latched, Machine, MachineError, Position, Stage, Stager, Vetting,
    };
}
#[path = "../../../storage-node/tests/support/journal.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the node's own tests, which use more of it")]
mod journal;
#[path = "../../../storage-node/tests/support/people.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the node's own tests, which use more of it")]
mod people;
