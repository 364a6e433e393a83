//! What keeps this node and a peer apart though they reach each other, kept for whoever tells an operator.
//!
//! It concerns two nodes, not a group: sixteen groups that are refused for one reason have one thing to say. And the consensus library,
//! which is told each time, knows no names and would say it each time.

use std::{collections::BTreeMap, time::Duration};

use openraft::{
    Instant,
    type_config::{TypeConfigExt, alias::InstantOf},
};

use super::{call::CallError, peers::Estranged};
use crate::consensus::{ids::NodeId, types::Types};

/// What was tried again and did not happen again for so long is over.
const LATELY: Duration = Duration::from_secs(60);

/// Why two nodes do not take each other's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Apart {
    /// The peer has another uid than the one that this node remembers: this node refuses it.
    OtherLogThere,
    /// The peer remembers another uid of this node, or entries that this node denied to have: it refuses this node.
    OtherLogHere,
    /// The peer denied entries that it had confirmed: this node refuses it until it is started again.
    Denied,
    /// The peer does not store what this node orders.
    NotStored,
    /// The peer said what no sound program of this version says.
    Unsound,
    /// This node cannot read of its own state what the peer needs.
    Unread,
}

impl Apart {
    /// Two logs do not become one by waiting.
    fn lasts(self) -> bool {
        matches!(self, Self::OtherLogThere | Self::OtherLogHere | Self::Denied)
    }
}

/// See the [module's text](self). At most one line for each peer and each reason.
#[derive(Debug, Default)]
pub(super) struct Noted(BTreeMap<(NodeId, Apart), (InstantOf<Types>, String)>);

impl Noted {
    /// True if it was not noted before.
    pub(super) fn note(&mut self, peer: NodeId, apart: Apart, why: String) -> bool {
        self.0.insert((peer, apart), (Types::now(), why)).is_none()
    }

    /// Of a call that failed, what an operator should know. That a peer is away shows elsewhere.
    pub(super) fn failed(&mut self, peer: NodeId, error: &CallError) {
        let apart = match error {
            CallError::Unsound(_) | CallError::Codec(_) | CallError::Link(super::link::LinkError::TooLong(_)) => {
                Apart::Unsound
            }
            CallError::NotStored(_) => Apart::NotStored,
            CallError::Reading(_) => Apart::Unread,
            _ => return,
        };
        self.note(peer, apart, error.to_string());
    }

    pub(super) fn over(&mut self, peer: NodeId, apart: Apart) {
        self.0.remove(&(peer, apart));
    }

    pub(super) fn has(&self, peer: NodeId, apart: Apart) -> bool {
        self.0.contains_key(&(peer, apart))
    }

    /// With whom no word is exchanged until somebody sees to it.
    pub(super) fn estranged(&self) -> BTreeMap<NodeId, Estranged> {
        let of = |apart: &Apart| match apart {
            Apart::OtherLogThere | Apart::OtherLogHere => Some(Estranged::OtherLog),
            Apart::Denied => Some(Estranged::Denied),
            Apart::NotStored | Apart::Unsound | Apart::Unread => None,
        };
        // In this order: whoever denied what it had confirmed is refused for that, whatever its log is.
        self.0.keys().filter_map(|(peer, apart)| Some((*peer, of(apart)?))).collect()
    }

    /// What stands between this node and a peer now.
    pub(super) fn with(&self, peer: NodeId) -> BTreeMap<Apart, String> {
        let stands = |apart: Apart, at: &InstantOf<Types>| apart.lasts() || at.elapsed() < LATELY;
        let noted = self.0.iter().filter(|((of, apart), (at, _))| *of == peer && stands(*apart, at));
        noted.map(|((_, apart), (_, why))| (*apart, why.clone())).collect()
    }
}
