//! The hot paths on one core: readings to sealed event and back, runs signed and verified, wraps, log, receipts.
//!
//! Prints one JSON line for each row: group, what, target, measured, met, where the time goes. Time is that of the processor, and
//! each figure the best of several rounds: what else the machine does can only make a round slower. The shares are measured here
//! too, by timing the parts alone.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]

#[path = "hot_path/bodies.rs"]
mod bodies;
#[path = "hot_path/ledger.rs"]
mod ledger;
#[path = "hot_path/row.rs"]
mod row;
#[path = "hot_path/world.rs"]
mod world;

fn main() {
    let world = world::World::new();
    bodies::rows(&world);
    ledger::rows(&world);
}
