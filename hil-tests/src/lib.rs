//! The lab: starts the built programs and a real broker, drives them, and holds what came out against what went in.
//!
//! The demo is the lab left running. The lab knows the programs by their command lines and files, as a technician would; the bench's load
//! generator speaks to a node as a gateway does.

pub mod account;
pub mod asked;
pub mod bench;
pub mod campaign;
pub mod canary;
pub mod checker;
pub mod day;
pub mod folder;
pub mod journal;
pub mod lab;
pub mod latency;
pub mod nemesis;
pub mod publish;
pub mod red;
pub mod scenario;
pub mod traffic;
pub mod view;
pub mod watching;
pub mod wearable;
