//! The connections of nodes: how many in all, and how many of each. A node that was killed and comes back must not find its slots
//! taken by the connections that it left behind and that this end has not given up yet: the newest count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ehe::id::NodeId;

use super::CloseCode;

/// All slots of nodes.
#[derive(Debug)]
pub(super) struct NodeSlots {
    max: usize,
    per_node_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// In the order of their coming.
    connections: BTreeMap<u64, (NodeId, quinn::Connection)>,
}

impl NodeSlots {
    pub(super) fn new(max: usize, per_node_max: usize) -> Arc<Self> {
        Arc::new(Self { max, per_node_max: per_node_max.max(1), taken: Mutex::default() })
    }

    /// A slot for one more connection of a node. If the node has all of its own, its oldest connection ends; `None` if others
    /// have all that there are.
    pub(super) fn take(self: &Arc<Self>, node: NodeId, connection: &quinn::Connection) -> Option<NodeSlot> {
        let mut taken = self.lock();
        let oldest = |taken: &Taken| {
            let mut own = taken.connections.iter().filter(|(_, (of, _))| *of == node).map(|(number, _)| *number);
            (own.clone().count() >= self.per_node_max).then(|| own.next()).flatten()
        };
        if let Some(number) = oldest(&taken)
            && let Some((_, oldest)) = taken.connections.remove(&number)
        {
            tracing::debug!(%node, "its oldest connection ends: it has come again too often");
            oldest.close(CloseCode::Busy.wire(), b"");
        }
        if taken.connections.len() >= self.max {
            return None;
        }
        let number = taken.next;
        taken.next = taken.next.saturating_add(1);
        taken.connections.insert(number, (node, connection.clone()));
        Some(NodeSlot { slots: Arc::clone(self), number })
    }

    /// Slots that are taken.
    pub(super) fn count(&self) -> usize {
        self.lock().connections.len()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection of a node that counts. It holds the connection open for as long as this lives.
#[derive(Debug)]
pub(super) struct NodeSlot {
    slots: Arc<NodeSlots>,
    number: u64,
}

impl Drop for NodeSlot {
    fn drop(&mut self) {
        let ended = self.slots.lock().connections.remove(&self.number);
        // Outside of the lock: it may be the last handle, and then it closes the connection.
        drop(ended);
    }
}
