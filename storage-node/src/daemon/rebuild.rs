//! Before anything runs: states that were found damaged are taken from the other nodes of their shards.
//!
//! Nothing of one node's word is enough for that. The log that it sends is the one that a quorum cosigned and has what this node itself has
//! put its name to; who votes is held against the charters; and that the log was applied as far as the node says, most of the others say too.

use std::collections::BTreeSet;
use std::path::Path;

use ehe::id::NodeId;

use tokio::sync::watch;

use super::StartError;
use crate::charters::Charters;
use crate::checkpoint::Checkpointed;
use crate::clock::Clock;
use crate::consensus::{self, applied_at};
use crate::cosign::CosignFile;
use crate::node::raft_id;
use crate::peers::{Others, Reach};
use crate::scrub::{self, Elsewhere, Memory, Sent};
use crate::shard::{Extent, InEffect, Notary, Place, Store, StoreError, receive};

/// Cache of the file that is filled.
const CACHE_BYTES: usize = 32 << 20;

/// What is known of this node's files when it starts.
pub(super) struct Files {
    /// Those that open.
    pub(super) stores: Vec<(Place, Store)>,
    /// Those that do not, and why.
    pub(super) broken: Vec<(Place, StoreError)>,
    /// What was found in them before.
    pub(super) memory: Memory,
}

/// What a rebuild is done with.
pub(super) struct Rebuild<'a> {
    pub(super) dir: &'a Path,
    pub(super) me: NodeId,
    pub(super) charters: &'a Charters,
    pub(super) reach: &'a Reach,
    /// What this node has put its name to.
    pub(super) cosigned: &'a CosignFile,
    pub(super) clock: &'a Clock,
    /// Called every few seconds while it goes on.
    pub(super) goes_on: &'a (dyn Fn() + Send + Sync),
}

impl Rebuild<'_> {
    /// Takes what is damaged from others. What nobody can give now stays as it is, and held; a file that does not even open keeps the node
    /// from starting.
    pub(super) async fn all(
        &self,
        files: &mut Files,
        reopen: impl Fn(u16) -> Result<Store, StoreError>,
    ) -> Result<(), StartError> {
        let damaged: BTreeSet<u16> = files.memory.to_rebuild().into_iter().collect();
        let mut kept = Vec::new();
        for (place, store) in std::mem::take(&mut files.stores) {
            if !damaged.contains(&place.shard) {
                kept.push((place, store));
                continue;
            }
            drop(store);
            match self.taken(place).await {
                Ok(from) => rebuilt(&mut files.memory, place, from),
                Err(why) => {
                    tracing::error!(shard = place.shard, %why, "the shard's state could not be had from another node; it stays held");
                }
            }
            let store = reopen(place.shard).map_err(|source| StartError::Store { shard: place.shard, source })?;
            kept.push((place, store));
        }
        for (place, source) in std::mem::take(&mut files.broken) {
            let shard = place.shard;
            tracing::error!(shard, %source, "the shard's file does not open");
            match self.taken(place).await {
                Ok(from) => rebuilt(&mut files.memory, place, from),
                Err(why) => {
                    tracing::error!(shard, %why, "the shard's state could not be had from another node");
                    return Err(StartError::Store { shard, source });
                }
            }
            let store = reopen(shard).map_err(|source| StartError::Store { shard, source })?;
            kept.push((place, store));
        }
        files.stores = kept;
        Ok(())
    }

    /// Asks one node after the other, beginning with any: one that never gets to an end is not the first every time. Whose state is in this
    /// one's place now; or why the last of them could not give it.
    async fn taken(&self, place: Place) -> Result<NodeId, String> {
        let others = Others::new(self.reach.clone(), self.charters.clone(), self.me);
        let mut nodes = others.nodes(place.shard);
        let first = usize::from(any()).checked_rem(nodes.len()).unwrap_or(0);
        nodes.rotate_left(first);
        let mut why = String::from("no other node has it");
        for node in nodes.iter().copied() {
            match self.taken_from(&others, &nodes, node, place).await {
                Ok(()) => return Ok(node),
                Err(said) => why = format!("node {node}: {said}"),
            }
        }
        Err(why)
    }

    async fn taken_from(&self, others: &Others, nodes: &[NodeId], node: NodeId, place: Place) -> Result<(), String> {
        let known = self.charters.clone();
        let notary = Notary::new(move |version| known.of(version), watch::channel(Checkpointed::None).1);
        let own = self.cosigned.newest(place.shard).map(Extent::from).unwrap_or_default();
        let incoming = receive(self.dir, place, notary, (own, self.clock.clone()), CACHE_BYTES);
        let incoming = incoming.map_err(|error| error.to_string())?;
        let sent = others.state(node, place.shard, incoming, self.goes_on).await?;
        let said = applied_at(&sent.applied).ok_or("it does not say how far it has applied the log")?;
        let mut agree = 1;
        for other in nodes.iter().copied().filter(|other| *other != node) {
            if is_believed(agree, nodes.len()) {
                break;
            }
            // By now it has applied as much, unless it lags; then its own state is the one to take.
            let applied = others.applied(other, place.shard).await.ok().and_then(|applied| applied_at(&applied));
            agree += usize::from(applied.is_some_and(|at| at.term >= said.term && at.index >= said.index));
        }
        if !is_believed(agree, nodes.len()) {
            return Err(format!("it says that it has applied the log up to {said}, and too few others say so"));
        }
        let voters = self.voters(&sent, place.shard)?;
        let (dir, me) = (self.dir.to_path_buf(), raft_id(self.me));
        let put = move || scrub::rebuild(&dir, place, me, sent, |these| voters.may_be(these));
        match tokio::task::spawn_blocking(put).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not)) => Err(not.to_string()),
            Err(_) => Err("it was interrupted".into()),
        }
    }

    fn voters(&self, sent: &Sent, shard: u16) -> Result<Voters, String> {
        let in_effect = sent.state.in_effect().map_err(|error| error.to_string())?;
        let in_effect = in_effect.unwrap_or_else(|| InEffect::first(self.charters.first()));
        let group: BTreeSet<_> = in_effect.charter.group(shard).iter().copied().map(raft_id).collect();
        let before = in_effect.nodes(shard);
        let later = self.charters.given_since(in_effect.charter.version(), shard);
        Ok(Voters { all: before.into_iter().chain(later).map(raft_id).collect(), group })
    }
}

/// Whether so many nodes that say the same are more than half of those that can be asked: then one of them is honest where most are.
fn is_believed(agree: usize, nodes: usize) -> bool {
    agree.saturating_mul(2) > nodes
}

/// A number that nobody can foretell; where there is none, any will do.
fn any() -> u8 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    let [byte] = byte;
    byte
}

/// Who can vote in a shard.
struct Voters {
    /// Whom the charter in effect names, the one before while it is not vouched for, and those that are known to follow.
    all: BTreeSet<consensus::NodeId>,
    /// The group of the charter in effect.
    group: BTreeSet<consensus::NodeId>,
}

impl Voters {
    /// While a shard moves, both groups vote, but for nodes that never came; of the group in effect, most vote at any time.
    fn may_be(&self, these: &BTreeSet<consensus::NodeId>) -> bool {
        these.is_subset(&self.all) && self.group.intersection(these).count().saturating_mul(2) > self.group.len()
    }
}

fn rebuilt(memory: &mut Memory, place: Place, from: NodeId) {
    tracing::warn!(shard = place.shard, %from, "the shard's state was damaged, and was taken whole from another node");
    memory.forget(place.shard);
    if let Err(error) = memory.save() {
        tracing::warn!(%error, "what the scrub remembers could not be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_nodes_word_is_enough_only_where_there_is_no_other() {
        assert!(is_believed(1, 1));
        assert!(!is_believed(1, 2) && is_believed(2, 2));
        assert!(!is_believed(2, 4) && is_believed(3, 4));
        assert!(!is_believed(3, 6) && is_believed(4, 6));
    }

    #[test]
    fn voters_are_those_that_the_charters_name_and_most_of_the_group_in_effect() {
        let set = |nodes: &[u64]| nodes.iter().copied().map(consensus::NodeId).collect::<BTreeSet<_>>();
        let voters = Voters { all: set(&[1, 2, 3, 4, 5]), group: set(&[1, 2, 3]) };
        for good in [&[1, 2, 3][..], &[1, 2, 3, 4, 5], &[2, 3, 4], &[1, 2]] {
            assert!(voters.may_be(&set(good)), "{good:?}");
        }
        for bad in [&[][..], &[1], &[4, 5], &[1, 4, 5], &[1, 2, 3, 9]] {
            assert!(!voters.may_be(&set(bad)), "{bad:?}");
        }
    }
}
