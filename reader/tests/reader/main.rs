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
mod nodes;
mod program;
mod support;
