//! What people tell `ehe-node` to do beside running: to plan where shards live, to hand a charter in, to look.
//!
//! Nothing here is done to a shard directly. A plan is a charter that nobody has signed; the members sign it (`ehe-certs charter sign`),
//! one node is given it, and the nodes carry it out ([`crate::placement`]).

mod charter;
mod join;
mod plan;
mod rules;
mod shown;
mod status;

pub use charter::{Asked, Planned, install, plan};
pub use join::may_join;
pub use plan::{PlanError, drain, raise, replace, set};
pub use rules::{TooOld, may_raise};
pub use status::{Verdict, Watch, look, status};
