//! Who may begin a handshake, and what a connection counts against. Until a handshake has ended nobody knows who comes, so that a
//! node, which must get back in after a partition, has to pass where clients wait: its slots are its own, and so are some of the
//! handshakes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::node_slots::{NodeSlot, NodeSlots};
use super::sources::{Begun, Sources, Turn};
use super::{ChannelError, Protocol, ServerLimits};
use crate::peer::PeerIdentity;

/// When all slots of clients are taken, this part of the handshakes still goes on with whoever comes: it may be a node.
const LATE_SHARE: usize = 16;

/// The slots of a server.
#[derive(Debug)]
pub(super) struct Gate {
    clients: Arc<Semaphore>,
    nodes: Option<Arc<NodeSlots>>,
    handshakes: Arc<Semaphore>,
    handshakes_max: usize,
    /// For addresses of nodes, when the others are taken.
    reserved: Arc<Semaphore>,
    /// For any address, when there is no room for a client.
    late: Arc<Semaphore>,
    sources: Arc<Sources>,
    expected: RwLock<BTreeSet<IpAddr>>,
    busy: AtomicU64,
}

/// What becomes of one more handshake.
#[derive(Debug)]
pub(super) enum Answer {
    /// It may begin.
    Begin(Entry),
    /// First the other end has to show that the address is its own.
    Prove,
    /// It hears "busy".
    Refuse,
}

/// A handshake's place. Given back when it is dropped, once the handshake has ended.
#[derive(Debug)]
pub(super) struct Entry {
    client: Option<OwnedSemaphorePermit>,
    _handshake: OwnedSemaphorePermit,
    _late: Option<OwnedSemaphorePermit>,
    _begun: Begun,
}

/// What a connection counts against until its last exchange has ended.
#[derive(Debug)]
pub(super) enum Slot {
    Client { _permit: OwnedSemaphorePermit },
    Node { _slot: NodeSlot },
}

impl Gate {
    pub(super) fn new(limits: &ServerLimits) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let nodes = limits.nodes.as_ref();
        Self {
            clients: semaphore(limits.connections_max),
            nodes: nodes.map(|nodes| NodeSlots::new(nodes.connections_max, nodes.connections_per_node_max)),
            handshakes: semaphore(limits.handshakes_max),
            handshakes_max: limits.handshakes_max,
            reserved: semaphore(nodes.map_or(0, |nodes| nodes.handshakes_reserved)),
            late: semaphore(nodes.map_or(0, |_| (limits.handshakes_max / LATE_SHARE).max(1))),
            sources: Sources::new(limits.handshakes_max),
            expected: RwLock::default(),
            busy: AtomicU64::new(0),
        }
    }

    /// Replaces the addresses that nodes come from.
    pub(super) fn expect(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let addresses = addresses.into_iter().map(|address| address.to_canonical()).collect();
        *self.expected.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn expects(&self, address: IpAddr) -> bool {
        self.expected.read().unwrap_or_else(PoisonError::into_inner).contains(&address.to_canonical())
    }

    /// One more handshake from this address; `proven` if it is known to be the other end's own.
    pub(super) fn answer(&self, address: IpAddr, proven: bool) -> Answer {
        if !proven && self.handshakes.available_permits() <= self.handshakes_max / 2 {
            // Whoever only pretends to be at this address never comes back (RFC 9000 §8.1).
            return Answer::Prove;
        }
        let begun = match self.sources.turn(address, proven) {
            Turn::Begin(begun) => begun,
            Turn::Prove => return Answer::Prove,
            Turn::Full => return Answer::Refuse,
        };
        let node_like = proven && self.expects(address);
        let client = Arc::clone(&self.clients).try_acquire_owned().ok();
        let mut late = None;
        if client.is_none() && !node_like {
            if self.nodes.is_some() && !proven {
                return Answer::Prove;
            }
            late = Arc::clone(&self.late).try_acquire_owned().ok();
            if late.is_none() {
                return Answer::Refuse;
            }
        }
        let handshake = Arc::clone(&self.handshakes).try_acquire_owned().ok();
        let handshake = match handshake {
            None if node_like => Arc::clone(&self.reserved).try_acquire_owned().ok(),
            any => any,
        };
        match handshake {
            Some(handshake) => Answer::Begin(Entry { client, _handshake: handshake, _late: late, _begun: begun }),
            None => Answer::Refuse,
        }
    }

    /// The slot of a connection whose other end is known now, or why it gets none.
    pub(super) fn settle(
        &self,
        entry: &mut Entry,
        protocol: Protocol,
        peer: PeerIdentity,
        connection: &quinn::Connection,
    ) -> Result<Slot, ChannelError> {
        let client = entry.client.take();
        match (protocol, peer) {
            (Protocol::Clients, _) => {
                let permit = client.or_else(|| Arc::clone(&self.clients).try_acquire_owned().ok());
                permit.map(|permit| Slot::Client { _permit: permit })
            }
            (Protocol::Nodes, PeerIdentity::Node(node)) => {
                let slots = self.nodes.as_ref().ok_or(ChannelError::OtherProtocol)?;
                slots.take(node, connection).map(|slot| Slot::Node { _slot: slot })
            }
            (Protocol::Nodes, peer) => return Err(ChannelError::NodesOnly(peer)),
        }
        .ok_or_else(|| {
            self.busy.fetch_add(1, Ordering::Relaxed);
            ChannelError::Busy
        })
    }

    /// Slots of clients that are taken, those of handshakes included.
    pub(super) fn clients(&self, max: usize) -> usize {
        max.saturating_sub(self.clients.available_permits())
    }

    /// Connections of nodes.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.as_ref().map_or(0, |nodes| nodes.count())
    }

    /// Handshakes that ended well, for which there was no slot then.
    pub(super) fn busy(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Handshakes that were refused because their source had its share.
    pub(super) fn refused_sources(&self) -> u64 {
        self.sources.refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::NodeLimits;

    const NODE: &str = "192.0.2.1";

    fn gate(connections_max: usize, handshakes_max: usize, nodes: Option<NodeLimits>) -> Gate {
        let gate = Gate::new(&ServerLimits { connections_max, handshakes_max, nodes, ..ServerLimits::default() });
        gate.expect([NODE.parse().unwrap()]);
        gate
    }

    fn ask(gate: &Gate, address: &str, proven: bool) -> Answer {
        gate.answer(address.parse().unwrap(), proven)
    }

    /// As many as get in, each from an address of its own.
    fn rush(gate: &Gate) -> Vec<Entry> {
        let address = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        (0..10_000)
            .map_while(|n| match gate.answer(address(n), true) {
                Answer::Begin(entry) => Some(entry),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn with_every_handshake_held_a_node_still_begins_its_own_from_an_address_that_it_proved() {
        let gate = gate(512, 64, Some(NodeLimits::default()));
        let held = rush(&gate);
        assert_eq!(held.len(), 64);
        assert!(matches!(ask(&gate, "198.51.100.7", true), Answer::Refuse));
        assert!(matches!(ask(&gate, NODE, false), Answer::Prove), "nobody uses up in a node's name what is a node's");
        assert!(matches!(ask(&gate, "::ffff:192.0.2.1", true), Answer::Begin(_)));
        let nodes: Vec<_> = (0..16).map(|_| ask(&gate, NODE, true)).collect();
        assert!(nodes.iter().all(|answer| matches!(answer, Answer::Begin(_))));
        assert!(matches!(ask(&gate, NODE, true), Answer::Refuse));
    }

    #[test]
    fn without_room_for_a_client_a_few_may_still_show_that_they_are_nodes() {
        let gate = gate(8, 64, Some(NodeLimits::default()));
        let held = rush(&gate);
        assert_eq!(held.len(), 8 + 4, "the slots, and a sixteenth of the handshakes");
        assert_eq!(held.iter().filter(|entry| entry.client.is_some()).count(), 8);
        assert!(matches!(ask(&gate, "198.51.100.7", false), Answer::Prove));
        assert!(matches!(ask(&gate, "198.51.100.7", true), Answer::Refuse));
        assert!(matches!(ask(&gate, NODE, false), Answer::Prove), "whoever says so may pretend to be there");
        assert!(matches!(ask(&gate, NODE, true), Answer::Begin(_)));
        drop(held);
        assert!(matches!(ask(&gate, "198.51.100.7", false), Answer::Begin(_)));
    }

    #[test]
    fn a_server_for_clients_alone_refuses_at_once_when_it_is_full() {
        let gate = gate(8, 64, None);
        let held = rush(&gate);
        assert_eq!(held.len(), 8);
        assert!(matches!(ask(&gate, "198.51.100.7", false), Answer::Refuse));
    }
}
