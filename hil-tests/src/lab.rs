//! Parts of the lab: processes, broker, alliance, node, home.

pub mod alliance;
pub mod broker;
pub mod daemon;
pub mod home;
pub mod node;
pub mod process;
pub mod wire;
