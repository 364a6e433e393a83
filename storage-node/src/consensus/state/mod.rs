//! The side of the machine: [`worker`] is its thread, [`adapter`] what openraft sees of it,
//! [`snapshot`] what is sent to other nodes and comes from them, [`latch`] what keeps a state that is let go of from being stored.

mod adapter;
mod latch;
mod snapshot;
#[cfg(test)]
mod tests;
mod worker;

pub use latch::{Latch, Latched};

pub(super) use adapter::MachineAdapter;
pub(super) use snapshot::{SnapshotData, Stages, Turn};
pub(super) use worker::{Policy, Setup, WorkerHandle, spawn};
