//! Why a node does not start.

use std::path::PathBuf;

use ehe::id::NodeId;

use crate::consensus::OpenError;
use crate::cosign::CosignError;
use crate::shard::StoreError;

/// Why a node does not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The credentials directory.
    #[error(transparent)]
    Credentials(#[from] certs::store::StoreError),
    /// The credentials are not a node's.
    #[error("the credentials are those of {0}; a node needs the role node: enrol it with `ehe-certs`")]
    NotANode(certs::PeerIdentity),
    /// No charter that is here has this node.
    #[error(
        "node {0} is in no charter that is here. If the alliance has added it since, put that charter into the credentials directory \
         (`ehe-certs install --charter FILE --into DIR`); if not, have it added"
    )]
    NotInCharter(NodeId),
    /// The charter has another key for this node.
    #[error(
        "the charter has another signing key for node {0} than identity.json; nobody would accept its checkpoints: install the \
         charter that names this identity"
    )]
    OtherKey(NodeId),
    /// The alliance has more shards than a node opens unasked, and no charter places one here.
    #[error("the charter places no shard on node {0}; have the alliance place some, then install the new charter")]
    NoShards(NodeId),
    /// More shards than one node runs.
    #[error("the charter places {found} shards on this node; it runs at most {most}: spread them over more nodes")]
    TooManyShards {
        /// Shards placed here.
        found: usize,
        /// Shards that it runs.
        most: usize,
    },
    /// The charters of the credentials directory, and those that were kept in the data directory.
    #[error(transparent)]
    Charters(#[from] crate::charters::CharterFault),
    /// A restore was begun here.
    #[error(
        "{} holds a restore that was not brought to its end: run the same `ehe-node restore --record` again, and start the node then",
        .0.display()
    )]
    Restoring(PathBuf),
    /// The data directory.
    #[error("{path}: {source}; data_dir has to be a directory that the node may write")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A shard's file.
    #[error("shard-{shard:04}.redb: {source}")]
    Store {
        /// The shard.
        shard: u16,
        /// What is wrong with it.
        #[source]
        source: StoreError,
    },
    /// The file of cosigned checkpoints.
    #[error(transparent)]
    Cosign(#[from] CosignError),
    /// The log.
    #[error("raft.redb: {0}")]
    Consensus(#[from] OpenError),
    /// The listener.
    #[error(transparent)]
    Listen(#[from] certs::ChannelError),
    /// No thread.
    #[error("no thread could be started: {0}; look at the service's TasksMax")]
    Thread(#[source] std::io::Error),
    /// The start was interrupted.
    #[error("the start was interrupted")]
    Interrupted,
}
