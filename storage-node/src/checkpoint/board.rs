//! What happened since the checkpointer last looked: the newest state of each shard, and what peers said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ehe::id::{Hash, NodeId};
use ehe::time::UnixMs;

use super::message::MESSAGE_MAX_BYTES;
use crate::cosign::Cosigned;
use crate::shard::InEffect;

/// Messages of one peer that wait at most; the oldest give way. Three of each kind for each of 64 shards, and some.
const WAITING_MAX: usize = 1024;
/// Messages of one peer that are taken at a time, so that none makes the others wait.
const TAKEN_MAX: usize = 64;

/// A shard's log as of the last block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Leaves.
    pub size: u64,
    /// Root.
    pub root: Hash,
    /// Incarnation of the log.
    pub incarnation: u32,
    /// Rooms.
    pub rooms: u64,
    /// The ledger's time.
    pub time: UnixMs,
}

impl Applied {
    /// What of it is cosigned.
    pub(super) fn at(&self) -> Cosigned {
        Cosigned { incarnation: self.incarnation, size: self.size, root: self.root }
    }
}

/// Where machines show what they applied, and the network what peers said. It never makes either of them wait.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

/// A node whose signatures of a log count no more: there is evidence that it signed another one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Distrusted {
    /// The shard.
    pub shard: u16,
    /// Incarnation of its log.
    pub incarnation: u32,
    /// The node.
    pub node: NodeId,
}

#[derive(Debug, Default)]
struct State {
    peers: BTreeSet<NodeId>,
    /// The charter in effect in each shard, as far as its log says; those that are news.
    in_effect: BTreeMap<u16, InEffect>,
    charters: BTreeMap<u16, InEffect>,
    /// Version of the charter that is in effect in a shard's state, which may be an earlier one while this node gets it anew.
    applied_under: BTreeMap<u16, u32>,
    newest: BTreeMap<u16, Applied>,
    wanted: BTreeMap<u16, u64>,
    sizes: BTreeMap<u16, u64>,
    distrusted: BTreeSet<Distrusted>,
    said: BTreeMap<NodeId, VecDeque<Vec<u8>>>,
    held: BTreeSet<u16>,
    woken: bool,
    stopped: bool,
}

/// What was on the board.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The charters that came into effect: with the states below, or a moment before.
    pub charters: BTreeMap<u16, InEffect>,
    /// The newest state of each shard that changed.
    pub applied: BTreeMap<u16, Applied>,
    /// Of how many leaves of a shard somebody waits for a checkpoint.
    pub wanted: BTreeMap<u16, u64>,
    /// What peers said, oldest first for each.
    pub said: Vec<(NodeId, Vec<u8>)>,
    /// Of whom evidence was found since.
    pub distrusted: BTreeSet<Distrusted>,
    /// Shards for which nothing is signed now: their state is not what it was.
    pub held: BTreeSet<u16>,
}

impl Board {
    /// A board for these peers' messages: the other nodes of this node's groups.
    pub fn new(peers: BTreeSet<NodeId>) -> Self {
        Self { state: Mutex::new(State { peers, ..State::default() }), ..Self::default() }
    }

    /// Takes messages of these peers from now on, and of no others.
    pub fn admit(&self, peers: BTreeSet<NodeId>) {
        let mut state = self.lock();
        state.said.retain(|peer, _| peers.contains(peer));
        state.peers = peers;
    }

    /// Shows the charter that is in effect in a shard's newest state, which is shown next. An earlier one than was shown before is of a state
    /// that this node gets anew, after it had given it up: the shard is under the later one all the same.
    pub fn under(&self, shard: u16, in_effect: InEffect) {
        let mut state = self.lock();
        if state.in_effect.get(&shard).is_some_and(|old| old.committed > in_effect.committed) {
            return;
        }
        let same = |old: &InEffect| Arc::ptr_eq(&old.charter, &in_effect.charter) && old.before == in_effect.before;
        if !state.in_effect.get(&shard).is_some_and(same) {
            state.in_effect.insert(shard, in_effect.clone());
            state.charters.insert(shard, in_effect);
        }
    }

    /// Shows the version of the charter that is in effect in a shard's state.
    pub fn show_applied_under(&self, shard: u16, version: u32) {
        self.lock().applied_under.insert(shard, version);
    }

    /// Version of the charter that is in effect in a shard's state; the first, if nothing was shown of it.
    pub fn applied_under(&self, shard: u16) -> u32 {
        self.lock().applied_under.get(&shard).copied().unwrap_or(1)
    }

    /// Leaves of a shard.
    pub fn size(&self, shard: u16) -> u64 {
        self.lock().sizes.get(&shard).copied().unwrap_or(0)
    }

    /// The charter that is in effect in a shard, if its log says so.
    pub fn in_effect(&self, shard: u16) -> Option<InEffect> {
        self.lock().in_effect.get(&shard).cloned()
    }

    /// Shows a shard's newest state.
    pub fn show(&self, shard: u16, applied: Applied) {
        let mut state = self.lock();
        state.sizes.insert(shard, applied.size);
        state.newest.insert(shard, applied);
        drop(state);
        self.changed.notify_all();
    }

    /// Somebody waits for a checkpoint of `size` leaves of a shard: this node is to wish for it, whether it leads or not.
    pub fn want(&self, shard: u16, size: u64) {
        let mut state = self.lock();
        let wanted = state.wanted.entry(shard).or_default();
        *wanted = size.max(*wanted);
        drop(state);
        self.changed.notify_all();
    }

    /// A peer said something; `peer` is who the channel proved it to be. Returns at once. What is no peer's or too long is
    /// dropped, and where too much waits, the peer's oldest message. False if something was dropped: for counting.
    pub fn deliver(&self, peer: NodeId, message: Vec<u8>) -> bool {
        let mut state = self.lock();
        if message.len() > MESSAGE_MAX_BYTES || !state.peers.contains(&peer) {
            return false;
        }
        let waiting = state.said.entry(peer).or_default();
        let room = waiting.len() < WAITING_MAX;
        if !room {
            waiting.pop_front();
        }
        waiting.push_back(message);
        drop(state);
        self.changed.notify_all();
        room
    }

    /// There is evidence that somebody signed two logs.
    pub fn distrust(&self, distrusted: impl IntoIterator<Item = Distrusted>) {
        self.lock().distrusted.extend(distrusted);
        self.changed.notify_all();
    }

    /// Has the checkpointer look at who leads, now instead of within a second.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_all();
    }

    /// From now on nothing is signed for a shard, or is again. What is said meanwhile is kept as ever.
    pub fn hold(&self, shard: u16, held: bool) {
        let mut state = self.lock();
        if held {
            state.held.insert(shard);
        } else {
            state.held.remove(&shard);
        }
        state.woken = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Ends [`Checkpointer::run`](super::Checkpointer::run).
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits for news, until `until` at the latest; `None` once it is stopped.
    pub(crate) fn take(&self, until: Option<Instant>) -> Option<News> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if state.has_news() || left == Some(Duration::ZERO) {
                return Some(state.taken());
            }
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// The news that there is, without waiting.
    pub fn news(&self) -> Option<News> {
        let mut state = self.lock();
        state.has_news().then(|| state.taken())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_news(&self) -> bool {
        self.woken
            || !(self.newest.is_empty() && self.wanted.is_empty() && self.said.is_empty() && self.distrusted.is_empty())
    }

    fn taken(&mut self) -> News {
        self.woken = false;
        let mut said = Vec::new();
        for (peer, waiting) in &mut self.said {
            let take = waiting.len().min(TAKEN_MAX);
            said.extend(waiting.drain(..take).map(|message| (*peer, message)));
        }
        self.said.retain(|_, waiting| !waiting.is_empty());
        let (applied, distrusted) = (std::mem::take(&mut self.newest), std::mem::take(&mut self.distrusted));
        let (charters, wanted) = (std::mem::take(&mut self.charters), std::mem::take(&mut self.wanted));
        News { charters, applied, wanted, said, distrusted, held: self.held.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(size: u64) -> Applied {
        Applied { size, root: Hash::ZERO, incarnation: 0, rooms: 0, time: UnixMs(0) }
    }

    #[test]
    fn the_board_keeps_the_newest_state_of_each_shard_and_wakes_who_waits() {
        let board = Arc::new(Board::default());
        board.show(1, at(1));
        board.show(1, at(2));
        board.show(2, at(9));
        let taken = board.take(None).map(|news| news.applied);
        assert_eq!(taken, Some(BTreeMap::from([(1, at(2)), (2, at(9))])));
        let waiting = {
            let board = Arc::clone(&board);
            std::thread::spawn(move || board.take(None))
        };
        board.show(1, at(3));
        assert_eq!(waiting.join().unwrap().unwrap().applied, BTreeMap::from([(1, at(3))]));
        assert_eq!(board.take(Some(Instant::now())), Some(News::default()), "the time was over");
        board.wake();
        assert_eq!(board.take(None), Some(News::default()));
        board.stop();
        assert_eq!(board.take(None), None);
    }

    #[test]
    fn a_peer_that_floods_takes_bounded_memory_and_no_other_waits_for_it() {
        let [loud, quiet, stranger] = [1, 2, 3].map(|n| NodeId([n; 8]));
        let board = Board::new(BTreeSet::from([loud, quiet]));
        assert!(!board.deliver(stranger, vec![1]), "no peer");
        assert!(!board.deliver(loud, vec![0; MESSAGE_MAX_BYTES + 1]), "too long");
        for n in 0..2 * WAITING_MAX {
            assert_eq!(board.deliver(loud, n.to_be_bytes().to_vec()), n < WAITING_MAX);
        }
        board.deliver(quiet, vec![7]);
        let news = board.take(None).unwrap();
        assert_eq!(news.said.len(), TAKEN_MAX + 1);
        assert_eq!(news.said[0].1, WAITING_MAX.to_be_bytes(), "the oldest gave way");
        assert!(news.said.contains(&(quiet, vec![7])));
        let mut rest = 0;
        while board.lock().said.contains_key(&loud) {
            rest += board.take(None).unwrap().said.len();
        }
        assert_eq!(rest, WAITING_MAX - TAKEN_MAX);
    }
}
