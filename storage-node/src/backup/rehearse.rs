//! Whether a backup can be restored: it is, one shard after the other, in a place of its own, and thrown away.
//!
//! The hashes of a backup prove that it is what the node had, and the checkpoint that its leaves are the log's. That the entries are those
//! of the leaves is what a disk may have spoilt before the backup was taken, and only a look at each of them says.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use ehe::restoration::encode_all;

use super::{BackupError, Chain};
use crate::shard::{Place, Store};

/// Memory for a shard that is looked at.
const CACHE_BYTES: usize = 64 << 20;

/// Restores each shard below `scratch`, which needs room for the largest of them.
pub fn rehearse(chain: &Chain, scratch: &Path) -> Result<(), BackupError> {
    let dir = scratch.join(format!(".ehe-rehearsal-{}", std::process::id()));
    for shard in chain.shards.keys() {
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(BackupError::file(scratch))?;
        let rehearsed = one(chain, *shard, &dir);
        let removed = fs::remove_dir_all(&dir).map_err(BackupError::file(&dir));
        rehearsed.and(removed)?;
    }
    Ok(())
}

fn one(chain: &Chain, shard: u16, dir: &Path) -> Result<(), BackupError> {
    let (Some(held), Some(charter)) = (chain.shards.get(&shard), chain.charters.last()) else { return Ok(()) };
    let failed = |source| BackupError::Store { shard, source };
    let alliance = chain.begin.alliance;
    let place = Place { alliance, shard_count: charter.shard_count(), shard };
    let store = Store::open(dir, alliance, shard, CACHE_BYTES).map_err(failed)?;
    // Nobody goes on from it: it has no place in a log of consensus, and no record.
    let incarnation = held.statement.incarnation.saturating_add(1);
    let records = |before: Option<Vec<u8>>| Ok(before.unwrap_or_else(|| encode_all(&[])));
    store.begin_from(&place, chain.chunks(held), held.statement.root, (incarnation, &[]), records).map_err(failed)
}
