//! Parts of the lab: processes, broker, alliance, node, home, a client's line to the nodes.

pub mod alliance;
pub mod broker;
pub mod charters;
pub mod daemon;
pub mod home;
pub mod leaders;
pub mod line;
pub mod node;
pub mod process;
pub mod site;
pub mod wire;
