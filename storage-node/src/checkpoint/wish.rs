//! Sizes that are to be cosigned: those that this node names, and those that others named.
//!
//! Replicas apply at their own pace, so their newest sizes never meet. One node names a size, the others cosign that one: the
//! leader as it applies, with at most two wishes open; a node that was left without a quorum, after a while.

use std::collections::BTreeMap;
use std::time::Duration;

use ehe::id::NodeId;

use super::message::Wish;
use crate::cosign::Cosigned;

/// Wishes that are open at a time: the second is on its way while the first is answered.
const OPEN_MAX: usize = 2;
/// A wish without a quorum is said again after this time, then after twice as long, and so on.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// But not later than this: so long may a shard stand still after its nodes found each other again.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(4);

/// (incarnation, size): the order of a shard's checkpoints.
pub(super) type Place = (u32, u64);

pub(super) fn place(at: &Cosigned) -> Place {
    (at.incarnation, at.size)
}

#[derive(Debug)]
struct Open {
    at: Cosigned,
    next: Duration,
    pause: Duration,
}

/// A shard's wishes.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    open: Vec<Open>,
    /// Of each peer those that cannot be answered yet: as many as a leader's open ones.
    kept: BTreeMap<NodeId, Vec<Wish>>,
}

impl Wishes {
    /// Opens a wish; it is due at once. Nothing if there are enough.
    pub(super) fn open(&mut self, at: Cosigned, now: Duration) {
        if self.open.len() < OPEN_MAX {
            self.open.push(Open { at, next: now, pause: AGAIN_AFTER });
        }
    }

    pub(super) fn none_open(&self) -> bool {
        self.open.is_empty()
    }

    /// The largest place that is wished for.
    pub(super) fn newest(&self) -> Option<Place> {
        self.open.iter().map(|open| place(&open.at)).max()
    }

    /// The wishes that are to be said now.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Cosigned> {
        let due = self.open.iter_mut().filter(|open| open.next <= now).map(|open| {
            open.next = now.saturating_add(open.pause);
            open.pause = (open.pause * 2).min(AGAIN_AFTER_MAX);
            open.at
        });
        due.collect()
    }

    /// When the next is to be said again.
    pub(super) fn next(&self) -> Option<Duration> {
        self.open.iter().map(|open| open.next).min()
    }

    /// A checkpoint stands: what wished for it or less is answered.
    pub(super) fn answered(&mut self, published: Place) {
        self.open.retain(|open| place(&open.at) > published);
    }

    /// Keeps a peer's wish until it can be answered. The same size once, and of others the largest.
    pub(super) fn keep(&mut self, peer: NodeId, wish: Wish) {
        let kept = self.kept.entry(peer).or_default();
        let place = |wish: &Wish| (wish.point.incarnation, wish.point.size);
        kept.retain(|old| place(old) != place(&wish));
        kept.push(wish);
        kept.sort_by_key(place);
        if kept.len() > OPEN_MAX {
            kept.remove(0);
        }
    }

    /// What was wished under an earlier charter is not answered any more.
    pub(super) fn under(&mut self, version: u32) {
        self.open.clear();
        for kept in self.kept.values_mut() {
            kept.retain(|wish| wish.point.charter >= version);
        }
    }

    /// Takes the wishes that a log of this place, under a charter of this version, has reached.
    pub(super) fn reached(&mut self, applied: Place, version: u32) -> Vec<(NodeId, Wish)> {
        let mut reached = Vec::new();
        for (peer, kept) in &mut self.kept {
            let has =
                |wish: &Wish| (wish.point.incarnation, wish.point.size) <= applied && wish.point.charter <= version;
            reached.extend(kept.iter().filter(|wish| has(wish)).map(|wish| (*peer, *wish)));
            kept.retain(|wish| !has(wish));
        }
        self.kept.retain(|_, kept| !kept.is_empty());
        reached
    }
}

#[cfg(test)]
mod tests {
    use ehe::id::Hash;
    use ehe::time::UnixMs;

    use super::super::message::Point;
    use super::*;

    fn at(size: u64) -> Cosigned {
        Cosigned { incarnation: 0, size, root: Hash::ZERO }
    }

    fn wish(size: u64) -> Wish {
        Wish { point: Point { shard: 0, charter: 1, incarnation: 0, size, root: Hash::ZERO }, at: UnixMs(0) }
    }

    #[test]
    fn two_wishes_are_open_and_are_said_again_until_a_checkpoint_of_their_size_or_more_stands() {
        let (mut wishes, s) = (Wishes::default(), Duration::from_secs);
        for size in [5, 7, 9] {
            wishes.open(at(size), s(10));
        }
        assert_eq!(wishes.due(s(10)), [at(5), at(7)]);
        let said: Vec<u64> = (10..30).filter(|now| !wishes.due(s(*now)).is_empty()).collect();
        assert_eq!(said, [11, 13, 17, 21, 25, 29]);
        assert_eq!(wishes.next(), Some(s(33)));
        wishes.answered((0, 6));
        assert_eq!((wishes.newest(), wishes.none_open()), (Some((0, 7)), false));
        wishes.answered((0, 7));
        assert!(wishes.none_open() && wishes.next().is_none());
    }

    #[test]
    fn a_peers_wishes_wait_until_they_are_reached_and_are_bounded() {
        let (mut wishes, peer) = (Wishes::default(), NodeId([1; 8]));
        for size in [9, 5, 7, 9, 3] {
            wishes.keep(peer, wish(size));
        }
        assert_eq!(wishes.reached((0, 6), 1), []);
        assert_eq!(wishes.reached((0, 8), 0), [], "it is under a charter that is not in effect yet");
        assert_eq!(wishes.reached((0, 8), 1), [(peer, wish(7))]);
        assert_eq!(wishes.reached((1, 0), 1), [(peer, wish(9))]);
        assert!(wishes.kept.is_empty());
    }
}
