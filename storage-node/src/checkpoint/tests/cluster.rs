//! Nodes on disks that forget, joined by a network that delays, loses and reorders. Whatever one of them signs or shows is
//! checked as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ehe::checkpoint::VerifiedCheckpoint;
use ehe::id::{Hash, NodeId};
use ehe::merkle;
use ehe::time::UnixMs;

use super::super::{Action, Applied, Core, Evidence, Message, News, Now, Published, Refused, Who, World};
use super::alliance::Log;
use crate::cosign::{CosignFile, Cosigned};
use crate::shard::{InEffect, StoreError};
use crate::test_disk::{Disk, Unsynced};

/// When the tests begin.
const BEGIN_MS: u64 = 1_790_000_000_000;

/// Chance with a number: a run that fails is repeated by it.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A node.
pub(super) struct Peer {
    pub(super) who: Who,
    pub(super) log: usize,
    pub(super) applied: u64,
    pub(super) clock_ms: i64,
    pub(super) core: Core,
    pub(super) disk: Disk,
    file: CosignFile,
    /// What it may sign: remembered by a write that was confirmed.
    remembered: Option<Cosigned>,
    pub(super) published: Option<Arc<Published>>,
    shown_before: u64,
    pub(super) again: usize,
    pub(super) fenced: Option<Arc<Refused>>,
    pub(super) evidence: Vec<Evidence>,
    pub(super) ignored: usize,
    pub(super) may_order: bool,
    /// Roots that it signed, ever.
    signed: BTreeMap<u64, Hash>,
    /// It may sign what it likes.
    pub(super) liar: bool,
    /// The charter that its log brought it.
    pub(super) in_effect: Option<InEffect>,
}

/// Where somebody crashes in the middle of a round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    No,
    BeforeTheSync,
    AfterTheSync,
}

struct Mail {
    at: Duration,
    from: NodeId,
    to: NodeId,
    bytes: Vec<u8>,
}

/// The nodes of one shard.
pub(super) struct Cluster {
    pub(super) peers: Vec<Peer>,
    /// The log that was agreed on, and others.
    pub(super) logs: Vec<Log>,
    pub(super) ledger_ahead_ms: u64,
    pub(super) leader: Option<usize>,
    pub(super) now: Duration,
    pub(super) chance: Chance,
    /// Of so many messages one is lost; 0: none.
    pub(super) loses: u64,
    pub(super) delay_ms: u64,
    /// Nodes that nothing reaches and that reach nobody.
    pub(super) cut: BTreeSet<NodeId>,
    mail: Vec<Mail>,
    /// What did not come through to, or from, a node that is cut off.
    pub(super) undelivered: Vec<(NodeId, NodeId, Message)>,
    /// Messages sent, by kind.
    pub(super) sent: BTreeMap<&'static str, u64>,
}

struct Looks<'a> {
    log: &'a Log,
    applied: u64,
    leader: Option<NodeId>,
}

impl World for Looks<'_> {
    fn root(&self, _: u16, size: u64) -> Result<Hash, StoreError> {
        assert!(size <= self.applied, "asked beyond what was applied");
        Ok(self.log.root(size))
    }

    fn consistency(&self, _: u16, old: u64, new: u64) -> Result<Vec<Hash>, StoreError> {
        assert!(old.max(new) <= self.applied, "asked beyond what was applied");
        merkle::consistency_proof(self.log, old, new)
    }

    fn leader(&self, _: u16) -> Option<NodeId> {
        self.leader
    }
}

fn open(disk: &Disk, who: &Who) -> CosignFile {
    CosignFile::open_with_backend(disk.clone(), who.charter.alliance_id(), who.id, 1).unwrap()
}

impl Cluster {
    pub(super) fn new(who: Vec<Who>, seed: u64) -> Self {
        let peers = who.into_iter().map(|who| {
            let disk = Disk::default();
            let file = open(&disk, &who);
            Peer {
                core: Core::new(who.clone(), [(0, None)]),
                who,
                log: 0,
                applied: 0,
                clock_ms: 0,
                disk,
                file,
                remembered: None,
                published: None,
                shown_before: 0,
                again: 0,
                fenced: None,
                evidence: Vec::new(),
                ignored: 0,
                may_order: true,
                signed: BTreeMap::new(),
                liar: false,
                in_effect: None,
            }
        });
        Self {
            peers: peers.collect(),
            logs: vec![Log::new()],
            ledger_ahead_ms: 0,
            leader: Some(0),
            now: Duration::from_secs(1),
            chance: Chance::new(seed),
            loses: 0,
            delay_ms: 1,
            cut: BTreeSet::new(),
            mail: Vec::new(),
            undelivered: Vec::new(),
            sent: BTreeMap::new(),
        }
    }

    pub(super) fn wall(&self) -> UnixMs {
        UnixMs(BEGIN_MS + u64::try_from(self.now.as_millis()).unwrap())
    }

    /// A node applies what there is up to `size`.
    pub(super) fn apply(&mut self, n: usize, size: u64) {
        let time = UnixMs(self.wall().0 + self.ledger_ahead_ms);
        let peer = &mut self.peers[n];
        peer.applied = size;
        let root = self.logs[peer.log].root(size);
        let applied = Applied { size, root, incarnation: 0, rooms: 1, time };
        self.round(n, News { applied: BTreeMap::from([(0, applied)]), ..News::default() }, Crash::No);
    }

    /// A node comes to the entry of its log that brings a charter.
    pub(super) fn under(&mut self, n: usize, in_effect: InEffect) {
        self.peers[n].in_effect = Some(in_effect.clone());
        self.round(n, News { charters: BTreeMap::from([(0, in_effect)]), ..News::default() }, Crash::No);
    }

    /// What somebody says to a node.
    pub(super) fn say(&mut self, n: usize, from: NodeId, bytes: Vec<u8>) {
        self.round(n, News { said: vec![(from, bytes)], ..News::default() }, Crash::No);
    }

    pub(super) fn round(&mut self, n: usize, news: News, crash: Crash) {
        let leader = self.leader.map(|n| self.peers[n].who.id);
        let wall = self.wall();
        let peer = &mut self.peers[n];
        let looks = Looks { log: &self.logs[peer.log], applied: peer.applied, leader };
        let now = Now { wall: UnixMs(wall.0.saturating_add_signed(peer.clock_ms)), running: self.now };
        let round = peer.core.round(news, now, &looks);
        let mut actions = round.actions;
        if crash != Crash::BeforeTheSync {
            let outcome = if round.remember.is_empty() { Ok(()) } else { peer.file.persist(&round.remember) };
            if outcome.is_ok()
                && let Some((_, remember)) = round.remember.first()
            {
                peer.remembered = Some(*remember);
            }
            if crash == Crash::No {
                actions.extend(peer.core.remembered(outcome, now, &looks));
            }
        }
        self.carry_out(n, actions);
        if crash != Crash::No {
            self.restart(n, self.peers[n].applied, Unsynced::Lost);
        }
    }

    fn carry_out(&mut self, n: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to, message } => self.send(n, to, *message),
                Action::Publish { published, again, .. } => self.publish(n, published, again),
                Action::Fence { why, .. } => {
                    assert!(self.peers[n].fenced.replace(why).is_none(), "fenced once");
                }
                Action::Evidence(evidence) => self.peers[n].evidence.push(*evidence),
                Action::MayOrder { may, .. } => self.peers[n].may_order = may,
                Action::Ignored { .. } => self.peers[n].ignored += 1,
            }
        }
    }

    fn send(&mut self, n: usize, to: NodeId, message: Message) {
        let kind = match message {
            Message::Wish(_) => "wish",
            Message::Cosignature(_) => "cosignature",
            Message::Conflict(_) => "conflict",
            Message::ClockDiffers(_) => "clock",
        };
        *self.sent.entry(kind).or_default() += 1;
        let peer = &mut self.peers[n];
        let from = peer.who.id;
        if let (Message::Cosignature(said), false) = (message, peer.liar) {
            assert!(peer.fenced.is_none(), "a fenced shard signs nothing");
            let (size, root) = (said.point.size, said.point.root);
            assert!(peer.remembered.is_some_and(|it| it.size >= size), "signed before it was remembered");
            assert_eq!(*peer.signed.entry(size).or_insert(root), root, "two roots of one size");
            let on_its_log = peer.signed.iter().filter(|(size, _)| **size <= self.logs[peer.log].size());
            assert!(
                on_its_log.rev().take(8).all(|(size, root)| self.logs[peer.log].root(*size) == *root),
                "two branches"
            );
        }
        if self.cut.contains(&from) || self.cut.contains(&to) {
            self.undelivered.push((from, to, message));
            return;
        }
        if self.loses > 0 && self.chance.one_in(self.loses) {
            return;
        }
        let delay = 1 + self.chance.below(self.delay_ms);
        self.mail.push(Mail { at: self.now + Duration::from_millis(delay), from, to, bytes: message.to_vec() });
    }

    fn publish(&mut self, n: usize, published: Arc<Published>, again: bool) {
        let peer = &mut self.peers[n];
        // The rule of clients, and that nothing was shown that is not in the node's own log.
        let charter = peer.in_effect.as_ref().map_or(&peer.who.charter, |now| &now.charter);
        let verified = VerifiedCheckpoint::verify(&published.note, 0, charter).expect("a quorum");
        assert_eq!((verified.checkpoint().size, verified.checkpoint().root), (published.size, published.root));
        assert!(published.size <= peer.applied);
        assert!(peer.remembered.is_some_and(|it| it.size >= published.size), "shown before it was remembered");
        assert_eq!(published.root, self.logs[peer.log].root(published.size));
        let mut cosigners: Vec<_> = verified.cosigners().iter().map(|(id, _)| *id).collect();
        // While a shard moves, those of the group before are on it too, and count for nothing to clients.
        let mut listed = published.cosigners.clone();
        listed.retain(|id| charter.group(0).contains(id));
        cosigners.sort();
        listed.sort();
        assert_eq!(cosigners, listed);
        let before = peer.published.as_ref().map_or(0, |it| it.size);
        let moved = peer.published.as_ref().is_some_and(|it| it.charter_version < published.charter_version);
        assert!(
            if moved {
                published.size >= before
            } else if again {
                published.size == before
            } else {
                published.size > before
            },
            "{before} → {}",
            published.size
        );
        assert!(published.size >= peer.shown_before, "less than before the restart");
        peer.again += usize::from(again);
        peer.published = Some(published);
    }

    /// A node is gone, and comes back with what its disks have. What it shows begins anew.
    pub(super) fn restart(&mut self, n: usize, applied: u64, unsynced: Unsynced) {
        let peer = &mut self.peers[n];
        peer.disk = peer.disk.crash(unsynced);
        peer.file = open(&peer.disk, &peer.who);
        let newest = peer.file.newest(0);
        let kept = |at: Option<Cosigned>| at.map_or(0, |at| at.size);
        assert!(kept(newest) >= kept(peer.remembered), "what was remembered is still there");
        peer.remembered = newest;
        peer.core = Core::new(peer.who.clone(), [(0, newest)]);
        peer.fenced = None;
        peer.may_order = true;
        // It does not show less than it showed.
        peer.shown_before = peer.published.take().map_or(peer.shown_before, |it| it.size);
        self.apply(n, applied);
    }

    /// Time passes, step by step: what arrives is heard, who is due looks.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 100_000, "it spins");
            let mail = self.mail.iter().map(|mail| mail.at).min();
            let due = self.peers.iter().filter_map(|peer| peer.core.due()).min();
            let next = [mail, due].into_iter().flatten().min().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            let (arrived, mail): (Vec<_>, Vec<_>) = self.mail.drain(..).partition(|mail| mail.at <= next);
            self.mail = mail;
            for n in 0..self.peers.len() {
                // Of two cores with one name both hear what is sent to it.
                let id = self.peers[n].who.id;
                let to = arrived.iter().filter(|mail| mail.to == id);
                let said: Vec<_> = to.map(|mail| (mail.from, mail.bytes.clone())).collect();
                if !said.is_empty() || self.peers[n].core.due().is_some_and(|due| due <= next) {
                    self.round(n, News { said, ..News::default() }, Crash::No);
                }
            }
            if self.mail.is_empty() && self.peers.iter().all(|peer| peer.core.due().is_none()) {
                self.now = end;
                return;
            }
        }
    }

    pub(super) fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    /// The agreed log grows, and everybody applies it at once.
    pub(super) fn commit(&mut self, size: u64) {
        self.logs[0].grow(size, "agreed");
        for n in 0..self.peers.len() {
            self.apply(n, size);
        }
    }

    pub(super) fn shown(&self) -> Vec<u64> {
        self.peers.iter().map(|peer| peer.published.as_ref().map_or(0, |it| it.size)).collect()
    }
}
