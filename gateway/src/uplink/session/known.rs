//! What the alliance is known to have said: its charters, how far each shard's log was seen, and what contradicts it.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use certs::channel::ChannelError;
use ehe::charter::{Gathering, VerifiedCharter};
use ehe::id::{AllianceId, Hash, NodeId, RoomId};
use ehe::run::SeenCheckpoint;
use ehe::wire::{Request, Response};

use super::super::line::NodeFault;
use super::super::lock;
use super::super::witness::{Kept as File, Witness};
use super::{CharterTrouble, NoAnswer, Session, Unanswered};

/// All charters that a node has are here within this time: 16 MiB over a slow line.
const CHARTERS_WITHIN: Duration = Duration::from_secs(120);
/// A node whose charters are false, or come to no end, is not asked for them again for so many times what that took: meanwhile nobody else
/// could be asked. One that was not reached, or was lost, for as long as that took.
const RESTS: u32 = 5;

/// Nodes whose charters did not come, and until when they rest. Each room may ask the same node, one after the other: without this, a node that
/// sends them drop by drop, or nothing good at long last, would keep the rooms from hearing of a charter from any other.
#[derive(Debug, Default)]
pub(in crate::uplink) struct Resting(BTreeMap<NodeId, Instant>);

impl Resting {
    fn note(&mut self, node: NodeId, rests: Duration, now: Instant) {
        self.0.retain(|_, until| now < *until);
        self.0.insert(node, now + rests);
    }

    fn rests(&self, node: NodeId, now: Instant) -> bool {
        self.0.get(&node).is_some_and(|until| now < *until)
    }
}

fn late(node: NodeId, why: &'static str) -> CharterTrouble {
    let why = ChannelError::Deadline(why);
    CharterTrouble::Unanswered(Unanswered { why: NoAnswer::Channel { node, why }, again: None })
}

impl Session {
    pub(in crate::uplink) fn charter(&self) -> Arc<VerifiedCharter> {
        lock(&self.charters).newest()
    }

    /// The charter by which to judge what stands under this version in a shard: an earlier one than the newest holds in a shard to which the
    /// newest has not come yet. Never one that is earlier than what was seen of that shard before.
    pub(in crate::uplink) fn charter_of(&self, shard: u16, version: u32) -> Option<Arc<VerifiedCharter>> {
        lock(&self.charters).of_version(shard, version)
    }

    /// A checkpoint of the shard was verified under a charter of this version.
    pub(in crate::uplink) fn stood_under(&self, shard: u16, version: u32) {
        lock(&self.charters).stood(shard, version);
    }

    /// The version of a charter that this gateway does not have any more and under which the shard was seen: by an earlier one nothing of
    /// it is judged.
    pub(in crate::uplink) fn needs_for(&self, shard: u16) -> Option<u32> {
        let charters = lock(&self.charters);
        let seen = charters.seen_under(shard);
        (seen > charters.newest().version()).then_some(seen)
    }

    /// The charter under which the log of this origin was seen; 0 where the shard's log is known to be another one by now.
    pub(in crate::uplink) fn seen_under(&self, shard: u16, origin: &str) -> u32 {
        let is_newest = self.log(shard).is_none_or(|newest| newest.origin == origin);
        if is_newest { lock(&self.charters).seen_under(shard) } else { 0 }
    }

    pub(in crate::uplink) fn alliance(&self) -> AllianceId {
        self.charter().alliance_id()
    }

    pub(in crate::uplink) fn shard(&self, room: RoomId) -> u16 {
        room.shard(self.charter().shard_count())
    }

    /// The newest checkpoint of the shard that was verified.
    pub(in crate::uplink) fn log(&self, shard: u16) -> Option<SeenCheckpoint> {
        lock(&self.logs).get(&shard).cloned()
    }

    /// A checkpoint of the shard was verified, and does not contradict the newest one before it.
    pub(in crate::uplink) fn saw(&self, shard: u16, seen: &SeenCheckpoint) {
        let mut logs = lock(&self.logs);
        if logs.get(&shard).is_none_or(|known| known.origin != seen.origin || known.size < seen.size) {
            logs.insert(shard, seen.clone());
        }
    }

    /// A signed checkpoint was shown. Where it contradicts another one, both are kept as evidence: seldom enough that whoever asked
    /// may wait for the disk.
    pub(in crate::uplink) fn witness(&self, note: &str) {
        let mut witness = lock(&self.witness);
        let kept = witness.shown(note);
        self.tell(witness, kept);
    }

    /// Two signed checkpoints of one log contradict each other, as is proven of how the larger one begins: both are kept as evidence.
    pub(in crate::uplink) fn contradicted(&self, one: &str, other: &str, begins: (Hash, Vec<Hash>)) {
        let mut witness = lock(&self.witness);
        let kept = witness.rewritten(one, other, begins);
        self.tell(witness, kept);
    }

    fn tell(&self, witness: MutexGuard<'_, Witness>, kept: Option<File>) {
        let Some(kept) = kept else { return };
        let files = u64::try_from(witness.files()).unwrap_or(u64::MAX);
        drop(witness);
        match kept {
            File::At(file) => tracing::error!(
                file = %file.display(),
                "nodes signed two logs that cannot both be true: the file proves it to anybody (`ehe verify --evidence`); give it to \
                 the hospitals"
            ),
            File::Not(why) => {
                tracing::error!(%why, "nodes signed two logs that cannot both be true, and the evidence cannot be kept");
            }
        }
        self.board.note(|s| s.evidence = files);
    }

    /// The charters here, and with them those that a node has after them, verified from the pinned first one on; the newest counts from here on.
    pub(in crate::uplink) async fn charters_of(&self, node: NodeId) -> Result<Vec<VerifiedCharter>, CharterTrouble> {
        self.refresh_charter(node).await?;
        Ok(lock(&self.charters).each().iter().map(|charter| VerifiedCharter::clone(charter)).collect())
    }

    /// Fetches the charters from a node that spoke under a newer one, and verifies them from the pinned first one on.
    pub(in crate::uplink) async fn refresh_charter(&self, node: NodeId) -> Result<(), CharterTrouble> {
        let mut resting = self.gathering.lock().await;
        let begun = Instant::now();
        if resting.rests(node, begun) {
            // Whoever asked tries again after its own pause: another node may answer then.
            return Err(late(node, "the node's charters did not come, and it is asked again later"));
        }
        let within = tokio::time::timeout(CHARTERS_WITHIN, self.gather(node)).await;
        let (times, taken) = match within {
            Err(_) => (RESTS, Err(late(node, "the node's charters do not come to an end"))),
            Ok(Err(why @ CharterTrouble::Unanswered(_))) => (1, Err(why)),
            Ok(Err(why)) => (RESTS, Err(why)),
            Ok(Ok(gathered)) => (RESTS, self.take_up(gathered).await),
        };
        if taken.is_err() {
            resting.note(node, begun.elapsed().saturating_mul(times), Instant::now());
        }
        taken
    }

    async fn take_up(&self, gathered: Gathering) -> Result<(), CharterTrouble> {
        let Some(chain) = gathered.newer() else { return Ok(()) };
        let alliance = self.alliance();
        // They may be many, and each has as many signatures as there are hospitals.
        let verifying = tokio::task::spawn_blocking(move || chain.verify_each(alliance).map(|each| (chain, each)));
        let Ok(verified) = verifying.await else { return Ok(()) };
        let (chain, each) = verified.map_err(|why| CharterTrouble::Fault(why.into()))?;
        // Seldom enough that whoever asked may wait for the disk.
        let mut charters = lock(&self.charters);
        let taken = charters.take_up(&chain, each);
        let (each, newest) = (charters.each().to_vec(), charters.newest());
        drop(charters);
        if let Some((version, kept)) = taken {
            tracing::info!(version, "a newer charter was verified");
            if let Err(error) = kept {
                tracing::error!(version, %error, "the newer charter is not kept: after a restart an earlier one could be shown");
            }
            self.board.under(&newest);
            lock(&self.witness).charters(each);
        }
        Ok(())
    }

    async fn gather(&self, node: NodeId) -> Result<Gathering, CharterTrouble> {
        let own = lock(&self.charters).chain().clone();
        let mut gathering = Gathering::after(own);
        loop {
            let request = Request::Charter(gathering.from()).to_vec();
            let answer = self.ask_node(node, &request).await.map_err(CharterTrouble::Unanswered)?;
            let Response::Charter(answer) = answer.response else {
                return Err(CharterTrouble::Fault(NodeFault::Protocol));
            };
            if !gathering.take(&answer).map_err(|why| CharterTrouble::Fault(why.into()))? {
                return Ok(gathering);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_charters_did_not_come_rests_and_no_other_does() {
        let [slow, other] = [1, 2].map(|n| NodeId([n; 8]));
        let (mut resting, now) = (Resting::default(), Instant::now());
        assert!(!resting.rests(slow, now));
        let rests = Duration::from_secs(60);
        resting.note(slow, rests, now);
        assert!(resting.rests(slow, now + rests / 2) && !resting.rests(other, now));
        let over = now + rests;
        assert!(!resting.rests(slow, over));
        resting.note(other, rests, over);
        assert_eq!(resting.0.len(), 1, "what is over is forgotten");
    }
}
