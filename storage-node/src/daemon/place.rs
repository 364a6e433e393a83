//! Who this node is in the charter, and whether it can be that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use certs::Credentials;
use ehe::charter::{Trust, VerifiedCharter};
use ehe::id::NodeId;

use super::StartError;
use crate::config::Config;
use crate::consensus::{Bootstrap, GroupId, MAX_GROUPS};
use crate::node::raft_id;

/// A node that has its place.
pub struct Placed {
    /// Its credentials.
    pub credentials: Credentials,
    /// The newest charter.
    pub charter: Arc<VerifiedCharter>,
    /// Its id.
    pub id: NodeId,
    /// Its name in the charter and in notes.
    pub name: String,
    /// Who votes in its groups when they begin. All nodes count the same from charter 1, whichever is their newest.
    pub bootstrap: Bootstrap,
}

/// Holds credentials, charter and configuration against each other.
pub fn placed(config: &Config, credentials: Credentials) -> Result<Placed, StartError> {
    if let Some(pinned) = config.alliance_id {
        credentials.expect_alliance(pinned)?;
    }
    let id = credentials.peer().node().ok_or(StartError::NotANode(credentials.peer()))?;
    let charter = Arc::new(credentials.charter().clone());
    let entry = charter.node(id).ok_or(StartError::NotInCharter(id))?;
    if entry.sign != credentials.identity().public().sign {
        return Err(StartError::OtherKey(id));
    }
    let name = entry.name.clone();
    let shards: Vec<u16> = charter.shards_of(id).collect();
    if shards.is_empty() {
        return Err(StartError::NoShards(id));
    }
    if shards.len() > MAX_GROUPS {
        return Err(StartError::TooManyShards { found: shards.len(), most: MAX_GROUPS });
    }
    let mut voters = BTreeMap::new();
    if let Some(first) = credentials.charter_chain().0.first() {
        let first = first.verify(Trust::Pinned(charter.alliance_id()))?;
        for shard in 0..charter.shard_count().get() {
            let group = |charter: &VerifiedCharter| charter.group(shard).iter().copied().collect::<BTreeSet<_>>();
            let (then, now) = (group(&first), group(&charter));
            if !then.contains(&id) && !now.contains(&id) {
                continue;
            }
            // Those who vote are those of charter 1: counting cosignatures by other ones would confirm what a majority may not have.
            if then != now {
                return Err(StartError::Moved { shard, version: charter.version() });
            }
            voters.insert(GroupId(shard), then.into_iter().map(raft_id).collect());
        }
    }
    Ok(Placed { credentials, charter, id, name, bootstrap: Bootstrap::Each(voters) })
}

/// The data directory, for this user alone.
pub(super) fn make_data_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StartError::DataDir { path: path.to_path_buf(), source })
}
