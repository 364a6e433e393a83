//! What the alliance is known to have said: its charters, how far each shard's log was seen, and what contradicts it.

use std::sync::{Arc, MutexGuard};

use ehe::charter::VerifiedCharter;
use ehe::id::{AllianceId, Hash, NodeId, RoomId};
use ehe::run::SeenCheckpoint;
use ehe::wire::{Request, Response};

use super::super::line::NodeFault;
use super::super::lock;
use super::super::witness::{Kept as File, Witness};
use super::{CharterTrouble, Session};

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

    /// Fetches the charters from a node that spoke under a newer one, and verifies them from the pinned first one on.
    pub(in crate::uplink) async fn refresh_charter(&self, node: NodeId) -> Result<(), CharterTrouble> {
        self.charters_of(node).await.map(drop)
    }

    /// All charters that a node has, verified from the pinned first one on; the newest counts from here on, if it is newer.
    pub(in crate::uplink) async fn charters_of(&self, node: NodeId) -> Result<Vec<VerifiedCharter>, CharterTrouble> {
        let answer = self.ask_node(node, &Request::Charter.to_vec()).await.map_err(CharterTrouble::Unanswered)?;
        let Response::Charter(bytes) = answer.response else {
            return Err(CharterTrouble::Fault(NodeFault::Protocol));
        };
        let chain = Response::charters(&bytes).map_err(|why| CharterTrouble::Fault(why.into()))?;
        let all = chain.verify_each(self.alliance()).map_err(|why| CharterTrouble::Fault(why.into()))?;
        // Seldom enough that whoever asked may wait for the disk.
        let taken = lock(&self.charters).take_up(&chain, all.clone());
        if let Some((version, kept)) = taken {
            tracing::info!(version, "a newer charter was verified");
            if let Err(error) = kept {
                tracing::error!(version, %error, "the newer charter is not kept: after a restart an earlier one could be shown");
            }
            self.board.note(|s| s.charter_version = version);
            lock(&self.witness).charters(chain);
        }
        Ok(all)
    }
}
