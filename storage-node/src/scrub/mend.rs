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
        /// Others have it, and it is not what this node's tree has there: it is the tree that is damaged. The word of one node is not
        /// enough for that where there are more.
        other: bool,
    },
    /// This node cannot write it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// So many nodes whose entries do not fit this node's tree are believed that it is the tree.
const BELIEVED: usize = 2;

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
        let (mut mended, mut refused) = (false, 0);
        let nodes = elsewhere.nodes(shard);
        for node in nodes.iter().copied() {
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
                Ok(Err(StoreError::Stream(what))) => {
                    why = format!("node {node}: {what}");
                    refused += 1;
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => why = "it was interrupted".into(),
            }
        }
        if !mended {
            let other = is_the_tree(refused, nodes.len());
            return Err(NotMended::Nobody { entry, why, other });
        }
    }
    Ok(())
}

fn is_the_tree(refused: usize, others: usize) -> bool {
    refused >= others.clamp(1, BELIEVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_of_several_does_not_persuade_this_one_that_its_tree_is_damaged() {
        assert!(!is_the_tree(0, 0));
        assert!(!is_the_tree(1, 2));
        assert!(!is_the_tree(1, 6));
        assert!(is_the_tree(1, 1));
        assert!(is_the_tree(2, 2));
        assert!(is_the_tree(2, 6));
    }
}
