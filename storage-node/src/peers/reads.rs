//! Read requests on their way from the node that a reader asked to the node that orders the shard.
//!
//! The answer says only whether it was decided. How, the asking node finds out by applying the log itself
//! ([`Decisions`](crate::shard::Decisions)): a leader that lies can delay a reader, and make nobody release anything.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certs::{ChannelError, CloseCode, Exchange, Lane};
use minicbor::{Decode, Encode};
use tokio::sync::Semaphore;

use ehe::cbor;
use ehe::id::{NodeId, RoomId};
use ehe::identity::PublicIdentity;
use ehe::limits::READ_REQUEST_MAX_BYTES;
use ehe::read::SignedRequest;
use ehe::refusal::Refusal;

use super::link::next_frame;
use super::strangers::Strangers;
use super::{Kind, Reach};
use crate::charters::Charters;
use crate::clock::Clock;
use crate::consensus::{Consensus, GroupId, LinkError};
use crate::node::node_id;
use crate::shard::{Rooms, Shard, Store, Unordered, WeakSequencer};
use crate::stats::Stats;

/// Version of both forms.
const VERSION: u8 = 1;
/// The longest frame: a request and who signed it.
pub const ORDER_READ_MAX_BYTES: usize = READ_REQUEST_MAX_BYTES + 4096;
/// Requests of one node that are ordered at a time.
const OF_ONE_NODE_MAX: usize = 256;
/// Frames go out and come in within this time.
const FRAME_WITHIN: Duration = Duration::from_secs(5);

/// A read request, for whoever orders its room's shard. The sender is to release what it grants.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OrderRead {
    #[n(0)]
    version: u8,
    /// As the reader signed it.
    #[n(1)]
    pub request: SignedRequest,
    /// Whose signature it is.
    #[n(2)]
    pub reader: PublicIdentity,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Ordered {
    /// It stands in the log, and the log says how it was decided.
    #[n(1)]
    Decided,
    /// It was not ordered, or that is not known.
    #[n(2)]
    NotNow(#[n(0)] Refusal),
    /// Another node orders.
    #[n(3)]
    AskNode(#[n(0)] NodeId),
}

impl OrderRead {
    /// A request.
    pub fn new(request: SignedRequest, reader: PublicIdentity) -> Self {
        Self { version: VERSION, request, reader }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        cbor::from_slice(bytes, ORDER_READ_MAX_BYTES).ok().filter(|order: &Self| order.version == VERSION)
    }
}

/// Asks `leader` to have a request decided.
pub async fn order_read(reach: &Reach, leader: NodeId, order: &OrderRead) -> Result<Ordered, ChannelError> {
    let mut exchange = reach.open(leader, Lane::Prompt, Kind::Reads).await?;
    exchange.send(&cbor::to_vec(order), FRAME_WITHIN).await?;
    exchange.finish()?;
    // How long that takes, whoever asked knows.
    let answer = exchange.recv(Duration::MAX).await?;
    let answer = answer.ok_or(ChannelError::Truncated)?;
    cbor::from_slice(&answer, ORDER_READ_MAX_BYTES).map_err(|_| ChannelError::Truncated)
}

/// Where other nodes hand in what their clients want to read.
pub struct ReadDoor {
    charters: Charters,
    shards: BTreeMap<u16, Desk>,
    strangers: Mutex<Strangers>,
    clock: Clock,
    /// What is left to each node that ever asked; as many as the charters ever named at most.
    peers: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
    consensus: Consensus,
    stats: Arc<Stats>,
}

impl fmt::Debug for ReadDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDoor").finish_non_exhaustive()
    }
}

/// Where the requests about one shard's rooms go.
struct Desk {
    sequencer: WeakSequencer,
    store: Store,
    rooms: Rooms,
}

impl Desk {
    /// Whether there is such a room and it does not know who asks. A fault of the store is whoever applies to find.
    async fn is_stranger(&self, room: RoomId, reader: &PublicIdentity) -> bool {
        let reader = reader.author_id();
        if let Some(state) = self.rooms.get(room) {
            return state.key_of(reader).is_none();
        }
        let store = self.store.clone();
        let looked = move || store.view().and_then(|view| view.room(room)).ok().flatten();
        let state = tokio::task::spawn_blocking(looked).await.ok().flatten();
        state.is_some_and(|state| state.key_of(reader).is_none())
    }
}

/// What a sound node does not send.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsound {
    #[error("it is not a read request of this version")]
    Form,
    #[error("it forwards a read request whose signature does not verify")]
    Signature,
}

impl ReadDoor {
    /// For requests about rooms of these shards.
    pub fn new<'a>(
        charters: Charters,
        shards: impl IntoIterator<Item = &'a Shard>,
        consensus: Consensus,
        (clock, stats): (Clock, Arc<Stats>),
    ) -> Self {
        let desk = |shard: &Shard| Desk {
            sequencer: shard.sequencer.weak(),
            store: shard.store.clone(),
            rooms: shard.rooms.clone(),
        };
        let shards = shards.into_iter().map(|shard| (shard.place.shard, desk(shard))).collect();
        Self { charters, shards, strangers: Mutex::default(), clock, peers: Mutex::default(), consensus, stats }
    }

    /// Serves the rest of one exchange. `Err`: the other node is at fault.
    pub(super) async fn serve(&self, exchange: &mut Exchange, from: NodeId) -> Result<(), Unsound> {
        let order = match next_frame(&mut exchange.receiver, ORDER_READ_MAX_BYTES, FRAME_WITHIN).await {
            Ok(Some(frame)) => OrderRead::decode(&frame),
            Err(LinkError::TooLong(_)) => None,
            // It has given up.
            Ok(None) | Err(_) => return Ok(()),
        };
        let ordered = match order.ok_or(Unsound::Form) {
            Ok(order) => self.ordered(from, order).await,
            Err(why) => Err(why),
        };
        match ordered {
            Ok(ordered) => {
                // Whoever has gone away asks again.
                if exchange.send(&cbor::to_vec(&ordered), FRAME_WITHIN).await.is_ok() {
                    let _ = exchange.finish();
                    let _ = exchange.delivered(FRAME_WITHIN).await;
                }
                Ok(())
            }
            Err(why) => {
                exchange.abort(CloseCode::Protocol);
                Err(why)
            }
        }
    }

    async fn ordered(&self, from: NodeId, order: OrderRead) -> Result<Ordered, Unsound> {
        let OrderRead { request, reader, .. } = order;
        let claimed = request.decode().map_err(|_| Unsound::Form)?;
        let room = claimed.claims().room;
        let shard = room.shard(self.charters.shard_count());
        let Some(desk) = self.shards.get(&shard) else { return Ok(Ordered::NotNow(Refusal::WrongShard)) };
        if let Some(not_here) = self.not_here(shard) {
            return Ok(not_here);
        }
        let Ok(_slot) = self.share(from).try_acquire_owned() else {
            return Ok(Ordered::NotNow(Refusal::Overloaded));
        };
        // Before it takes a place in a block: apply refuses it too, and nothing would be left of it but its cost.
        claimed.verify_as(&reader).map_err(|_| Unsound::Signature)?;
        if desk.is_stranger(room, &reader).await && !self.may_ask(from, room, &reader) {
            return Ok(Ordered::NotNow(Refusal::Overloaded));
        }
        let Some(sequencer) = desk.sequencer.get() else { return Ok(Ordered::NotNow(Refusal::Stopping)) };
        Stats::add(&self.stats.reads_forwarded, 1);
        Ok(match sequencer.read_for(request, reader, from).await {
            Ok(()) => Ordered::Decided,
            Err(Unordered::NotLeader(Some(leader))) => Ordered::AskNode(node_id(leader)),
            Err(Unordered::NotLeader(None) | Unordered::Unknown) => Ordered::NotNow(Refusal::NoLeader),
            Err(Unordered::Overloaded) => Ordered::NotNow(Refusal::Overloaded),
            Err(Unordered::Stopping) => Ordered::NotNow(Refusal::Stopping),
            Err(Unordered::Fault) => Ordered::NotNow(Refusal::StorageFault),
        })
    }

    fn may_ask(&self, from: NodeId, room: RoomId, stranger: &PublicIdentity) -> bool {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let may = strangers.may_ask(from, room, stranger.author_id(), self.clock.now().hour());
        if !may {
            tracing::debug!(%from, "a node forwards read requests of more strangers than it may in an hour");
        }
        may
    }

    fn share(&self, of: NodeId) -> Arc<Semaphore> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(peers.entry(of).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE_NODE_MAX))))
    }

    /// `None`: this node orders the shard, as far as it knows.
    fn not_here(&self, shard: u16) -> Option<Ordered> {
        let standing = self.consensus.standing(GroupId(shard))?;
        if standing.faulted {
            return Some(Ordered::NotNow(Refusal::StorageFault));
        }
        if standing.ready() {
            return None;
        }
        let other = standing.leader.filter(|leader| *leader != self.consensus.node_id());
        Some(other.map_or(Ordered::NotNow(Refusal::NoLeader), |leader| Ordered::AskNode(node_id(leader))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_one_encoding_and_a_request_of_another_version_is_none() {
        let reader = certs::identity_file::generate().unwrap().public().clone();
        let order = OrderRead::new(SignedRequest(vec![7; 300]), reader);
        let bytes = cbor::to_vec(&order);
        assert_eq!(OrderRead::decode(&bytes), Some(order.clone()));
        assert_eq!(OrderRead::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(OrderRead::decode(&cbor::to_vec(&OrderRead { version: 2, ..order.clone() })), None);
        let largest = OrderRead { request: SignedRequest(vec![7; READ_REQUEST_MAX_BYTES]), ..order };
        assert!(cbor::to_vec(&largest).len() <= ORDER_READ_MAX_BYTES);
        for ordered in [Ordered::Decided, Ordered::NotNow(Refusal::Overloaded), Ordered::AskNode(NodeId([3; 8]))] {
            let bytes = cbor::to_vec(&ordered);
            assert_eq!(cbor::from_slice::<Ordered>(&bytes, 64).unwrap(), ordered);
        }
    }
}
