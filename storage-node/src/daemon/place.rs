//! Who this node is in the charter, and whether it can be that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use certs::Credentials;
use ehe::charter::VerifiedCharter;
use ehe::id::NodeId;

use super::StartError;
use crate::charters::Charters;
use crate::config::Config;
use crate::consensus::{Bootstrap, GroupId, MAX_GROUPS};
use crate::node::raft_id;

/// An alliance of no more shards has each of them opened on all its nodes, so that any may come to a node that runs. An empty one costs a
/// file and a thread that sleeps.
const OPENED_ALL: u16 = 64;

/// A node that has its place.
pub struct Placed {
    /// Its credentials.
    pub credentials: Credentials,
    /// The charters.
    pub charters: Charters,
    /// Its id.
    pub id: NodeId,
    /// Its name in the charter and in notes.
    pub name: String,
    /// The shards that it opens, whether it has a part in them or may be given one.
    pub shards: BTreeSet<u16>,
    /// Who votes in its groups when they begin. All nodes count the same from charter 1, whichever is their newest.
    pub bootstrap: Bootstrap,
}

/// Holds credentials, charter and configuration against each other.
pub fn placed(config: &Config, credentials: Credentials) -> Result<Placed, StartError> {
    if let Some(pinned) = config.alliance_id {
        credentials.expect_alliance(pinned)?;
    }
    let id = credentials.peer().node().ok_or(StartError::NotANode(credentials.peer()))?;
    let charters = Charters::open(&credentials, &config.data_dir)?;
    let entry = charters.ever(id).ok_or(StartError::NotInCharter(id))?;
    if charters.newest().node(id).is_none() {
        tracing::warn!(
            version = charters.version(),
            "the newest charter has this node no more: it is needed only until the others have what it has"
        );
    }
    if entry.sign != credentials.identity().public().sign {
        return Err(StartError::OtherKey(id));
    }
    let name = entry.name;
    let all = 0..charters.shard_count().get();
    let shards: BTreeSet<u16> = if charters.shard_count().get() <= OPENED_ALL {
        all.clone().collect()
    } else {
        let given = |shard: &u16| charters.given_since(0, *shard).any(|node| node == id);
        let there = |shard: &u16| config.data_dir.join(format!("shard-{shard:04}.redb")).exists();
        all.clone().filter(|shard| given(shard) || there(shard)).collect()
    };
    if shards.is_empty() {
        return Err(StartError::NoShards(id));
    }
    if shards.len() > MAX_GROUPS {
        return Err(StartError::TooManyShards { found: shards.len(), most: MAX_GROUPS });
    }
    let mut voters = BTreeMap::new();
    let first = charters.first();
    for shard in all {
        let group = |charter: &VerifiedCharter| charter.group(shard).iter().copied().collect::<BTreeSet<_>>();
        // In any other it waits until those who hold it give it the log.
        let founders = group(&first);
        if founders.contains(&id) {
            voters.insert(GroupId(shard), founders.into_iter().map(raft_id).collect());
        }
    }
    Ok(Placed { credentials, charters, id, name, shards, bootstrap: Bootstrap::Each(voters) })
}

/// The data directory, for this user alone.
pub(super) fn make_data_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StartError::DataDir { path: path.to_path_buf(), source })
}
