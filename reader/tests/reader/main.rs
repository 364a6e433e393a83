//! The program `ehe` against real nodes over real QUIC.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod authority;
mod bad_files;
mod broken_off;
mod charters;
mod evidence;
mod keys;
mod lost;
mod nodes;
mod people;
mod program;
#[allow(dead_code, reason = "each program's test uses its part of this")]
#[path = "../../../certs/tests/support/spoil.rs"]
mod spoil;
mod support;
