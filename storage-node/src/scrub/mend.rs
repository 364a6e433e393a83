//! Damaged entries had again from the other nodes of the shard.

use std::collections::BTreeSet;

use ehe::id::NodeId;
use futures::future::BoxFuture;

use crate::shard::{LogRow, Store, StoreError};

/// The other nodes of a shard.
pub trait Elsewhere: Send + Sync {
    /// Who they are.
    fn nodes(&self, shard: u16) -> Vec<NodeId>;
    /// The rows of the log that hold an entry, as a node has them; why not, if it has none for us.
    fn rows(&self, node: NodeId, shard: u16, log_index: u64) -> BoxFuture<'_, Result<Vec<LogRow>, String>>;
}

/// Why an entry is not mended.
#[derive(Debug, thiserror::Error)]
pub enum NotMended {
    /// Nobody has it for us.
    #[error("entry {entry}: {why}")]
    Nobody {
        /// The entry.
        entry: u64,
        /// What the last node that was asked said.
        why: String,
        /// Somebody has it, and it is not what this node's tree has there: it is the tree that is damaged.
        other: bool,
    },
    /// This node cannot write it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Has entries again: each from the first node whose rows are the tree's.
pub(super) async fn mend(
    elsewhere: &dyn Elsewhere,
    store: &Store,
    shard: u16,
    entries: &[u64],
) -> Result<(), NotMended> {
    let entries: BTreeSet<u64> = entries.iter().copied().collect();
    for entry in entries {
        let mut why = String::from("no other node has the shard");
        let (mut mended, mut other) = (false, false);
        for node in elsewhere.nodes(shard) {
            let rows = match elsewhere.rows(node, shard, entry).await {
                Ok(rows) => rows,
                Err(said) => {
                    why = format!("node {node}: {said}");
                    continue;
                }
            };
            let store = store.clone();
            let put = tokio::task::spawn_blocking(move || store.mend(entry, &rows)).await;
            match put {
                Ok(Ok(())) => {
                    mended = true;
                    break;
                }
                Ok(Err(StoreError::Stream(what))) => (why, other) = (format!("node {node}: {what}"), true),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => why = "it was interrupted".into(),
            }
        }
        if !mended {
            return Err(NotMended::Nobody { entry, why, other });
        }
    }
    Ok(())
}
