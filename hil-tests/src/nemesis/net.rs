//! The ways between nodes, and cutting them: by namespaces of the kernel where this user may make them, through a relay elsewhere.

mod namespaces;
mod relay;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Result;

pub use namespaces::Namespaces;
pub use relay::Relay;

use crate::lab::site::Site;

/// One end of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// The node of this number.
    Node(usize),
    /// Everybody who is no node.
    Client,
}

/// A direction in which packets get lost.
pub type Way = (End, End);

/// What is cut, shared with whoever forwards.
#[derive(Debug, Clone, Default)]
struct Lost(Arc<RwLock<BTreeSet<Way>>>);

impl Lost {
    fn set(&self, ways: BTreeSet<Way>) -> BTreeSet<Way> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), ways)
    }

    fn has(&self, way: Way) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&way)
    }
}

/// A network between nodes.
#[derive(Debug)]
pub enum Net {
    /// Packets go through the kernel's.
    Namespaces(Namespaces),
    /// Packets go through a relay of this process.
    Relay(Relay),
}

impl Net {
    /// The better one of those that this user may have, for so many nodes; and their places in it.
    pub async fn lay(nodes: usize, say: &impl Fn(String)) -> Result<(Self, Vec<Site>)> {
        match Namespaces::lay(nodes) {
            Ok((net, sites)) => Ok((Self::Namespaces(net), sites)),
            Err(why) => {
                say(format!("no network namespaces here ({why:#}): partitions by a relay of UDP packets"));
                Self::relayed(nodes).await
            }
        }
    }

    /// With a relay in any case.
    pub async fn relayed(nodes: usize) -> Result<(Self, Vec<Site>)> {
        let (relay, sites) = Relay::start(nodes).await?;
        Ok((Self::Relay(relay), sites))
    }

    /// Exactly these ways are cut from now on.
    pub async fn cut(&mut self, ways: BTreeSet<Way>) -> Result<()> {
        match self {
            Self::Namespaces(net) => net.cut(ways),
            Self::Relay(relay) => relay.cut(ways),
        }
    }

    /// A node's program has this process id now.
    pub fn runs(&self, number: usize, process: u32) {
        if let Self::Relay(relay) = self {
            relay.runs(number, process);
        }
    }
}
