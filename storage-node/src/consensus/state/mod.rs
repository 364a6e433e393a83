//! The side of the machine: [`worker`] is its thread, [`adapter`] what openraft sees of it.

mod adapter;
mod worker;

pub(super) use adapter::{MachineAdapter, SnapshotStream};
pub(super) use worker::{Policy, Setup, WorkerHandle, spawn};
