//! Clients of an alliance under faults: writers, readers, and the patient who lets readers in and out again. Each writes down what it
//! sees, for the checker.

pub mod book;
pub mod readers;
pub mod replicas;
pub mod rights;
pub mod writers;
