//! A node that comes to an alliance that is at work.

use std::path::Path;

use anyhow::{Context, bail};
use certs::Credentials;

use crate::config::Config;
use crate::daemon::placed;

/// Whether a node may start as a new one: it is in the newest charter of its credentials, and has nothing on its disk. A node that lost its
/// disk is no new one: the others would refuse it under its old id.
pub fn may_join(config: &Config) -> anyhow::Result<String> {
    if !is_empty(&config.data_dir)? {
        bail!(
            "{} is not empty: this node was part of the alliance before; start it with `ehe-node run`",
            config.data_dir.display()
        );
    }
    let placed = placed(config, Credentials::load(&config.credentials_dir)?)?;
    let newest = placed.charters.newest();
    if newest.node(placed.id).is_none() {
        bail!("charter {} has node {} no more: it cannot join", newest.version(), placed.id);
    }
    let shards = newest.shards_of(placed.id).count();
    Ok(format!(
        "node {} ({}) joins under charter {}, which gives it {shards} shards; it waits for the nodes that hold them",
        placed.name,
        placed.id,
        newest.version()
    ))
}

fn is_empty(dir: &Path) -> anyhow::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| dir.display().to_string()),
    }
}
