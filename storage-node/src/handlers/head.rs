//! Head: where a room ends, signed by this node, whoever leads: a reader counts the members whose nodes say the same.

use std::time::Instant;

use certs::PeerIdentity;
use ehe::cbor;
use ehe::cose::{self, Domain};
use ehe::id::{Nonce, RoomId};
use ehe::identity::Identity;
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use ehe::wire::{Head, HeadStatement, Response};

use crate::checkpoint::Published;
use crate::node::{Node, NotServed, judged_at};
use crate::shard::{StoreError, View};

/// The head of a room for one of its parties. Who is none hears what who asks for a room that does not exist hears.
pub(super) async fn head_of(
    node: &Node,
    peer: PeerIdentity,
    room: RoomId,
    nonce: Nonce,
) -> Result<Response, NotServed> {
    let author = node.author(peer)?;
    let shard = node.shard_of(room)?;
    // Nothing that was there when the question came is left out, though others may order.
    node.confirmed(shard.place.shard, Instant::now()).await?;
    let leaves = node.look(shard, |view| Ok(view.shard().leaves)).await?;
    if leaves == 0 {
        return Err(Refusal::RoomUnknown.into());
    }
    let checkpoint = tokio::time::timeout(node.limits.submit(), shard.checkpoint_asked_for(leaves)).await;
    let checkpoint = checkpoint.map_err(|_| Refusal::Overloaded)??;
    node.speaks_as_of(shard.place.shard, &checkpoint)?;
    let (identity, now) = (node.identity.clone(), node.clock.now());
    node.look(shard, move |view| {
        let party = view.room(room)?.is_some_and(|state| state.is_party(author, judged_at(view, now)));
        let head = if party { head(view, room, &checkpoint, nonce, now, &identity)? } else { None };
        Ok(Response::Head(head.ok_or(Refusal::RoomUnknown)?))
    })
    .await
}

/// The head of a room as of a checkpoint. `None`: the room has no entry in it.
pub(super) fn head(
    view: &View,
    room: RoomId,
    checkpoint: &Published,
    nonce: Nonce,
    at: UnixMs,
    identity: &Identity,
) -> Result<Option<Head>, StoreError> {
    let Some((_, log_index)) = view.last(room, checkpoint.size)? else { return Ok(None) };
    let last = view.receipt(log_index, checkpoint.size, &checkpoint.note)?;
    let statement = HeadStatement { room, last_leaf: last.leaf.hash(), log_size: checkpoint.size, at, nonce };
    let signature = cose::sign(identity, Domain::Head, cbor::to_vec(&statement));
    Ok(Some(Head { last, nonce, at, signature }))
}
