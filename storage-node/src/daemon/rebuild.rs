//! Before anything runs: states that were found damaged are taken from the other nodes of their shards.

use std::collections::BTreeSet;
use std::path::Path;

use ehe::id::NodeId;

use tokio::sync::watch;

use super::StartError;
use crate::charters::Charters;
use crate::checkpoint::Checkpointed;
use crate::node::raft_id;
use crate::peers::{Others, Reach};
use crate::scrub::{self, Elsewhere, Memory};
use crate::shard::{Notary, Place, Store, StoreError, receive};

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

/// Takes what is damaged from others. What nobody can give now stays as it is, and held; a file that does not even open keeps the node
/// from starting.
pub(super) async fn rebuild(
    dir: &Path,
    (me, charters): (NodeId, &Charters),
    reach: &Reach,
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
        match taken(dir, place, (me, charters), reach).await {
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
        match taken(dir, place, (me, charters), reach).await {
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

fn rebuilt(memory: &mut Memory, place: Place, from: NodeId) {
    tracing::warn!(shard = place.shard, %from, "the shard's state was damaged, and was taken whole from another node");
    memory.forget(place.shard);
    if let Err(error) = memory.save() {
        tracing::warn!(%error, "what the scrub remembers could not be written");
    }
}

/// Asks one node after the other. Whose state is in this one's place now; or why the last of them could not give it.
async fn taken(dir: &Path, place: Place, (me, charters): (NodeId, &Charters), reach: &Reach) -> Result<NodeId, String> {
    let others = Others::new(reach.clone(), charters.clone(), me);
    let mut why = String::from("no other node has it");
    for node in others.nodes(place.shard) {
        let known = charters.clone();
        let notary = Notary::new(move |version| known.of(version), watch::channel(Checkpointed::None).1);
        let incoming = receive(dir, place, notary, CACHE_BYTES).map_err(|error| error.to_string())?;
        let sent = match others.state(node, place.shard, incoming).await {
            Ok(sent) => sent,
            Err(said) => {
                why = format!("node {node}: {said}");
                continue;
            }
        };
        let dir = dir.to_path_buf();
        let put = move || scrub::rebuild(&dir, place, raft_id(me), sent);
        match tokio::task::spawn_blocking(put).await {
            Ok(Ok(())) => return Ok(node),
            Ok(Err(not)) => why = format!("node {node}: {not}"),
            Err(_) => why = "it was interrupted".into(),
        }
    }
    Err(why)
}
