//! The side of the machine: [`worker`] is its thread, [`adapter`] what openraft sees of it,
//! [`snapshot`] what is sent to other nodes and comes from them.

mod adapter;
mod snapshot;
mod worker;

pub(super) use adapter::MachineAdapter;
pub(super) use snapshot::{SnapshotData, Stages, Turn};
pub(super) use worker::{Policy, Setup, WorkerHandle, spawn};
