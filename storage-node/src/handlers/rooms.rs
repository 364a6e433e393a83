//! RoomsOf: the rooms of the shards held here in which the channel's identity is a party.

use std::time::Instant;

use certs::PeerIdentity;
use ehe::limits;
use ehe::refusal::Refusal;
use ehe::wire::{Response, RoomInfo};
use futures::future::try_join_all;

use crate::node::{Node, NotServed, judged_at};
use crate::shard::View;

/// Rooms looked up at a time: each may have rules of megabytes to decode, and others wait for the thread.
const ROOMS_AT_ONCE: usize = 8;
/// What the answer may hold, so that it fits a frame.
const ANSWER_MAX_BYTES: usize = limits::FRAME_MAX_BYTES - 4096;

pub(super) async fn rooms_of(node: &Node, peer: PeerIdentity) -> Result<Response, NotServed> {
    let author = node.author(peer)?;
    // Of all look-ups this is the costliest: nobody fills the threads with it.
    let _one = node.listing.begin(author).ok_or(Refusal::Overloaded)?;
    let (now, asked) = (node.clock.now(), Instant::now());
    let confirming = node.shards.iter().filter(|(number, _)| node.holds(**number)).map(|(number, shard)| async move {
        match node.confirmed(*number, asked).await {
            Ok(_) => Ok(Some(shard)),
            // Another node has it too.
            Err(NotServed::Refused(Refusal::StorageFault)) => Ok(None),
            // A room that may be there is not left out as if it were not.
            Err(why) => Err(why),
        }
    });
    let confirmed = try_join_all(confirming).await?;
    let (mut rooms, mut bytes) = (Vec::new(), 0usize);
    for shard in confirmed.into_iter().flatten() {
        let mut after = None;
        loop {
            let found = node.look(shard, move |view| {
                let ids = view.rooms_of(author, after, ROOMS_AT_ONCE)?;
                let infos = ids.iter().map(|id| info(view, *id, author, judged_at(view, now)));
                let infos = infos.collect::<Result<Vec<_>, _>>()?;
                Ok((ids.last().copied(), ids.len(), infos))
            });
            let (last, count, infos) = found.await?;
            for info in infos.into_iter().flatten() {
                bytes += ehe::cbor::to_vec(&info).len();
                if rooms.len() >= limits::ROOMS_PER_ANSWER_MAX || bytes > ANSWER_MAX_BYTES {
                    return Ok(Response::Rooms(rooms));
                }
                rooms.push(info);
            }
            if count < ROOMS_AT_ONCE {
                break;
            }
            after = last;
        }
    }
    Ok(Response::Rooms(rooms))
}

/// `None`: all grants have ended.
fn info(
    view: &View,
    room: ehe::id::RoomId,
    author: ehe::id::AuthorId,
    now: ehe::time::UnixMs,
) -> Result<Option<RoomInfo>, NotServed> {
    let Some(state) = view.room(room)? else { return Ok(None) };
    if !state.is_party(author, now) {
        return Ok(None);
    }
    let grants = state.grants_of(author).filter(|(_, grant)| grant.is_live(now)).map(|(id, _)| *id).collect();
    let entries = view.last(room, u64::MAX)?.map_or(0, |(last, _)| last + 1);
    Ok(Some(RoomInfo { room, owner: state.owner, grants, entries }))
}
