//! Status: how the node and its shards are; and the evidence that it keeps.

use core::num::NonZeroU32;

use ehe::wire::{NodeStatus, Response, ShardStatus};

use crate::checkpoint::Checkpointed;
use crate::consensus::{GroupId, entries_until};
use crate::node::{Node, node_id};
use crate::placement::groups;

pub(super) fn status(node: &Node) -> Response {
    let shards = node.shards.iter().filter(|(number, _)| node.holds(**number)).map(|(number, shard)| {
        let group = node.consensus.status(GroupId(*number));
        let checkpoint = shard.checkpoints.borrow().clone();
        ShardStatus {
            shard: *number,
            leader: group.as_ref().and_then(|s| s.leader).map(node_id),
            term: group.as_ref().map_or(0, |s| s.term),
            applied: group.as_ref().and_then(|s| s.applied).map_or(0, entries_until),
            leaves: checkpoint.size(),
            rooms: checkpoint.rooms(),
            faulted: matches!(checkpoint, Checkpointed::Fenced)
                || group.is_none_or(|s| s.fault.is_some() || s.held.is_some()),
        }
    });
    Response::Status(NodeStatus {
        node: node.id,
        program: env!("CARGO_PKG_VERSION").into(),
        charter_version: node.charter.version(),
        shards: shards.collect(),
        at: node.clock.now(),
        groups: Some(groups(node.charter.shard_count().get(), &node.alliance.reports(node.id))),
        evidence: NonZeroU32::new(number(node.evidence.count())),
        scrub: Some(node.scrub.now()),
        moved: Some(node.moved.now()).filter(|moved| !moved.is_empty()),
    })
}

fn number(kept: usize) -> u32 {
    u32::try_from(kept).unwrap_or(u32::MAX)
}

/// The evidence of this place.
pub(super) fn evidence(node: &Node, from: u32) -> Response {
    let (kept, piece) = node.evidence.look(usize::try_from(from).unwrap_or(usize::MAX));
    Response::Evidence(number(kept), piece.map(|piece| piece.bytes.to_vec()).unwrap_or_default())
}
