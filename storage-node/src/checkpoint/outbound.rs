//! What is to be sent to peers: of each kind the newest three for each shard, so that a peer that is away costs nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;

use ehe::id::NodeId;

use super::message::Message;

/// Of one kind for one shard: answers to a leader's open wishes, and what is said before it is asked for.
const OF_A_KIND_MAX: usize = 3;

/// Messages on their way out. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Outbound(Arc<RwLock<BTreeMap<NodeId, Arc<Peer>>>>);

#[derive(Debug, Default)]
struct Peer {
    waiting: Mutex<VecDeque<Message>>,
    some: Notify,
}

impl Peer {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same_kind(a: &Message, b: &Message) -> bool {
    a.shard() == b.shard() && std::mem::discriminant(a) == std::mem::discriminant(b)
}

impl Outbound {
    /// Towards these peers.
    pub fn new(peers: impl IntoIterator<Item = NodeId>) -> Self {
        let new = Self::default();
        peers.into_iter().for_each(|peer| new.add(peer));
        new
    }

    /// Towards this one, too, from now on.
    pub fn add(&self, peer: NodeId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(peer).or_default();
    }

    fn peer(&self, peer: NodeId) -> Option<Arc<Peer>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned()
    }

    /// The peers.
    pub fn peers(&self) -> Vec<NodeId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Puts a message on its way; what it makes obsolete is not sent any more. Never waits.
    pub(super) fn push(&self, to: NodeId, message: Message) {
        let Some(peer) = self.peer(to) else { return };
        let mut waiting = peer.lock();
        let point = message.point();
        waiting.retain(|old| !same_kind(old, &message) || old.point() != point);
        if waiting.iter().filter(|old| same_kind(old, &message)).count() >= OF_A_KIND_MAX
            && let Some(oldest) = waiting.iter().position(|old| same_kind(old, &message))
        {
            waiting.remove(oldest);
        }
        waiting.push_back(message);
        drop(waiting);
        peer.some.notify_one();
    }

    /// The next message to a peer, if there is one.
    pub fn try_next(&self, peer: NodeId) -> Option<Vec<u8>> {
        let message = self.peer(peer)?.lock().pop_front()?;
        Some(message.to_vec())
    }

    /// Waits for the next message to a peer. `None` at once if it is no peer. May be dropped while it waits; what was returned
    /// and could not be sent is lost, and said again later.
    pub async fn next(&self, peer: NodeId) -> Option<Vec<u8>> {
        let to = self.peer(peer)?;
        loop {
            if let Some(message) = self.try_next(peer) {
                return Some(message);
            }
            to.some.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use ehe::id::Hash;
    use ehe::time::UnixMs;

    use super::super::message::{ClockDiffers, Cosignature, Point, Wish, Word};
    use super::*;

    fn wish(shard: u16, size: u64, at: u64) -> Message {
        let point = Point { shard, charter: 1, incarnation: 0, size, root: Hash::ZERO };
        Message::Wish(Wish { point, at: UnixMs(at) })
    }

    #[test]
    fn a_peer_that_is_away_is_told_the_newest_and_nothing_piles_up() {
        let [peer, stranger] = [1, 2].map(|n| NodeId([n; 8]));
        let outbound = Outbound::new([peer]);
        assert_eq!(outbound.next(stranger).now_or_never(), Some(None));
        assert_eq!(outbound.next(peer).now_or_never(), None);
        let differs = |at| Message::ClockDiffers(ClockDiffers { shard: 0, at: UnixMs(at), wished_at: UnixMs(0) });
        for n in 0..10_000 {
            outbound.push(stranger, wish(0, n, n));
            for shard in 0..2 {
                outbound.push(peer, wish(shard, n / 2, n));
            }
            outbound.push(peer, differs(n));
        }
        let mut sent = Vec::new();
        while let Some(bytes) = outbound.next(peer).now_or_never().flatten() {
            sent.push(Message::decode(&bytes).unwrap());
        }
        let wishes = [4997, 4998, 4999].map(|size| [0, 1].map(|shard| wish(shard, size, 2 * size + 1)));
        let expected = [wishes.concat(), vec![differs(9999)]].concat();
        assert_eq!(sent, expected, "the newest of each size, the newest clock");
    }

    #[test]
    fn what_is_said_before_it_is_asked_for_does_not_give_way_to_two_answers() {
        let peer = NodeId([1; 8]);
        let outbound = Outbound::new([peer]);
        let said = |size| {
            let point = Point { shard: 0, charter: 1, incarnation: 0, size, root: Hash::ZERO };
            let word = Word { time_s: 0, signature: [0; 64].into() };
            Message::Cosignature(Cosignature { point, word, order: None, wished_at: None })
        };
        [11, 9, 10].into_iter().for_each(|size| outbound.push(peer, said(size)));
        let mut sent = Vec::new();
        while let Some(bytes) = outbound.try_next(peer) {
            sent.push(Message::decode(&bytes).unwrap());
        }
        assert_eq!(sent, [11, 9, 10].map(said), "the leader's next wish is for 11, and is not answered again at once");
    }
}
