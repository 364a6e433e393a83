//! How a shard's log extends what it was: for whoever saw it before, and holds its newest checkpoint against that.

use ehe::merkle::{self, Peaks};
use ehe::refusal::Refusal;
use ehe::wire::Response;

use crate::consensus::GroupId;
use crate::node::{Node, NotServed};

/// The root at the smaller size, and the proof that the log has the larger one's with it. Of a log that this node has not that much of
/// yet, another one may tell. Some dozen hashes are read, however large the log is.
pub(super) async fn extends(node: &Node, shard: u16, smaller: u64, larger: u64) -> Result<Response, NotServed> {
    let status = node.consensus.status(GroupId(shard));
    let shard = node.shards.get(&shard).ok_or(Refusal::WrongShard)?;
    // What a damaged disk gives would be held against the node.
    if status.is_some_and(|status| status.fault.is_some() || status.held.is_some()) {
        return Err(Refusal::StorageFault.into());
    }
    if smaller > larger {
        return Err(Refusal::FrameMalformed.into());
    }
    let look = move |view: &crate::shard::View| {
        if larger > view.shard().leaves {
            return Err(Refusal::NoLeader.into());
        }
        let root = Peaks::load(view, smaller)?.root();
        Ok(Response::Extends(root, merkle::consistency_proof(view, smaller, larger)?))
    };
    node.look(shard, look).await
}
