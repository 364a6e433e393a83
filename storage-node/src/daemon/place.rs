//! Who this node is in the charter, and whether it can be that.

use std::path::Path;
use std::sync::Arc;

use certs::Credentials;
use ehe::charter::VerifiedCharter;
use ehe::id::NodeId;

use super::StartError;
use crate::config::Config;
use crate::consensus::MAX_GROUPS;

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
    for shard in shards {
        let nodes = charter.group(shard).len();
        // Each of several nodes would order by itself: there is no replication between nodes yet.
        if nodes != 1 {
            return Err(StartError::GroupSize { shard, nodes });
        }
    }
    Ok(Placed { credentials, charter, id, name })
}

/// The data directory, for this user alone.
pub(super) fn make_data_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StartError::DataDir { path: path.to_path_buf(), source })
}
