//! Whether a shard's log goes on from what was seen of it before: proven, and remembered in the spool (SPEC L4).
//!
//! Every checkpoint that counts stands by a quorum's cosignatures. That does not say that it is of the log that was seen yesterday: a group
//! that was begun anew, or a quorum that signs two logs, would show another one. So the newest checkpoint is kept, and what comes is
//! proven to begin with it; while a shard's log only grows, that is asked for now and then, and not for each receipt.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ehe::checkpoint::{Checkpoint, VerifiedCheckpoint};
use ehe::extension::{self, Begins};
use ehe::id::NodeId;
use ehe::note::Note;
use ehe::run::SeenCheckpoint;
use ehe::wire::{Request, Response};
use minicbor::{Decode, Encode};

use super::line::NodeFault;
use super::lock;
use super::session::{CharterTrouble, Session};
use crate::rooms::follow::FollowError;

/// A log that grows is held against what was seen this often, at most.
const EVERY: Duration = Duration::from_secs(5);

/// The newest checkpoint of a shard that is proven to go on from all that was kept before it. Its encoding is what the spool keeps.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Kept {
    #[n(0)]
    seen: SeenCheckpoint,
    /// Signed: half of the evidence, if a node ever shows another log.
    #[n(1)]
    note: String,
}

impl Kept {
    pub(super) fn seen(&self) -> &SeenCheckpoint {
        &self.seen
    }

    /// Of the charter under which it was verified.
    pub(super) fn charter_version(&self) -> u32 {
        VerifiedCheckpoint::charter_of(&self.note).unwrap_or_default()
    }
}

/// What is kept of a shard's log, and when it was held against what a node shows.
#[derive(Debug)]
pub(super) struct Anchor {
    kept: Kept,
    checked: Option<Instant>,
    /// What was found to be of the same log, the newest last: rooms are visited side by side, so that a smaller size than the newest comes
    /// often.
    same: VecDeque<SeenCheckpoint>,
}

impl Anchor {
    pub(super) fn new(kept: Kept, checked: Option<Instant>) -> Self {
        Self { kept, checked, same: VecDeque::new() }
    }
}

/// Of these so many are known again.
const SAME_MAX: usize = 64;

/// How much has to be proven of a log that grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Each time.
    Always,
    /// Now and then.
    Sometimes,
}

impl Session {
    /// A node showed a checkpoint, which stands: whether it is of the log that was seen before. What is proven to be newer is kept, on
    /// disk once this returns.
    pub(super) async fn goes_on(
        &self,
        shard: u16,
        node: NodeId,
        note: &str,
        asked: Asked,
    ) -> Result<(), CharterTrouble> {
        let Some(shown) = Note::parse(note).ok().and_then(|note| Checkpoint::parse(&note).ok()) else { return Ok(()) };
        let shown = shown.seen();
        let before = {
            let anchors = lock(&self.anchors);
            let anchor = anchors.get(&shard);
            if anchor.is_some_and(|anchor| anchor.same.contains(&shown)) {
                return Ok(());
            }
            let fresh = anchor.and_then(|anchor| anchor.checked).is_some_and(|at| at.elapsed() < EVERY);
            anchor.map(|anchor| (anchor.kept.clone(), fresh && asked == Asked::Sometimes))
        };
        let newer = Kept { seen: shown.clone(), note: note.into() };
        let Some((before, lately)) = before else {
            self.anchor(shard, None, newer).await;
            return Ok(());
        };
        let history = |why| CharterTrouble::Fault(NodeFault::History(why));
        // Of a restored log that counts which was kept of the one before.
        let known = if before.seen.origin == shown.origin {
            before.seen.clone()
        } else {
            let kept =
                || self.moved(shard, &before.seen).map(|moved| moved.kept).filter(|kept| kept.origin == shown.origin);
            let mut found = kept();
            if found.is_none() && self.learn_restored(node, shard, &before.seen).await? {
                found = kept();
            }
            match found {
                Some(kept) => kept,
                None => {
                    let known = before.seen.origin.clone();
                    return Err(history(FollowError::OtherLog { known, shown: shown.origin }));
                }
            }
        };
        let (smaller, larger) = if shown.size < known.size { (&shown, &known) } else { (&known, &shown) };
        if smaller.size == larger.size {
            if smaller.root == larger.root {
                return Ok(());
            }
            return Err(history(FollowError::Forked { size: shown.size, note: note.into() }));
        }
        let grows = smaller == &known;
        if grows && lately {
            self.same(shard, shown);
            return Ok(());
        }
        let request = Request::Extends(shard, smaller.size, larger.size).to_vec();
        let answer = self.ask_node(node, &request).await.map_err(CharterTrouble::Unanswered)?;
        let (root, proof) = match answer.response {
            Response::Extends(root, proof) => (root, proof),
            // It has not so much of a log as was seen.
            Response::Refused(_) if !grows => {
                return Err(history(FollowError::WentBack { known: known.size, shown: shown.size }));
            }
            Response::Refused(why) => return Err(self.cannot(node, why)),
            _ => return Err(CharterTrouble::Fault(NodeFault::Protocol)),
        };
        match extension::judge((smaller.size, &smaller.root), (larger.size, &larger.root), &root, &proof) {
            Ok(Begins::WithIt) if grows => {
                self.anchor(shard, Some(&before), newer).await;
                Ok(())
            }
            Ok(Begins::WithIt) => {
                self.same(shard, shown);
                Ok(())
            }
            Ok(Begins::Otherwise) => {
                self.contradicted(&before.note, note, (root, proof));
                Err(history(FollowError::Rewritten { known: known.size, shown: shown.size }))
            }
            Err(_) => Err(history(FollowError::NotProven { known: known.size, shown: shown.size })),
        }
    }

    fn same(&self, shard: u16, seen: SeenCheckpoint) {
        if let Some(anchor) = lock(&self.anchors).get_mut(&shard) {
            if anchor.same.len() >= SAME_MAX {
                anchor.same.pop_front();
            }
            anchor.same.push_back(seen);
        }
    }

    /// Keeps a checkpoint that goes on from `before`, unless another one took its place meanwhile.
    async fn anchor(&self, shard: u16, before: Option<&Kept>, kept: Kept) {
        {
            let mut anchors = lock(&self.anchors);
            let known = anchors.remove(&shard);
            if known.as_ref().map(|anchor| &anchor.kept) != before {
                anchors.extend(known.map(|known| (shard, known)));
                return;
            }
            let mut anchor = Anchor::new(kept.clone(), Some(Instant::now()));
            if let Some(known) = known.filter(|known| known.kept.seen.origin == kept.seen.origin) {
                anchor.same = known.same;
            }
            anchors.insert(shard, anchor);
        }
        if let Err(error) = self.spool.save_log(shard, ehe::cbor::to_vec(&kept)).await {
            tracing::error!(shard, %error, "how far the shard's log was seen is not kept: after a restart an older log could be shown");
        }
    }
}

/// What the spool kept, as far as it is what this program writes.
pub(super) fn restore(saved: Vec<(u16, Vec<u8>)>) -> Vec<(u16, Kept)> {
    let decoded = saved.into_iter().filter_map(|(shard, bytes)| {
        let kept = ehe::cbor::from_slice::<Kept>(&bytes, crate::spool::LOG_STATE_MAX_BYTES);
        let kept = kept.map_err(|why| tracing::error!(shard, %why, "how far the shard's log was seen cannot be read"));
        Some((shard, kept.ok()?))
    });
    decoded.collect()
}
