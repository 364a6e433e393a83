//! Does to running nodes what happens to hospitals: faults as values, a seeded plan of them, and what carries them out and heals them.

mod clock;
mod disk;
pub mod fault;
pub mod ground;
pub mod members;
pub mod net;
pub mod plan;
mod power;
mod preload;
pub mod strike;
