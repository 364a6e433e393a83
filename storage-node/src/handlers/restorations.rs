//! The records by which earlier incarnations of a shard's log ended: for whoever remembers one of these.

use ehe::limits::RESTORATIONS_PER_ANSWER_MAX;
use ehe::refusal::Refusal;
use ehe::restoration::decode_all;
use ehe::wire::Response;

use crate::backup::restore::RESTORED_MAX_BYTES;
use crate::node::{Node, NotServed};
use crate::shard::StoreError;

/// Those of incarnation `from` and of later ones, as many as one answer has.
pub(super) async fn restorations(node: &Node, shard: u16, from: u32) -> Result<Response, NotServed> {
    let shard = node.shards.get(&shard).ok_or(Refusal::WrongShard)?;
    let store = shard.store.clone();
    let look = move |_: &crate::shard::View| {
        const CORRUPT: StoreError = StoreError::Corrupt("the records of its restored logs do not decode");
        let Some(bytes) = store.restored()? else { return Ok(Vec::new()) };
        let mut answer = Vec::new();
        for record in decode_all(&bytes, RESTORED_MAX_BYTES).map_err(|_| CORRUPT)? {
            if answer.len() < RESTORATIONS_PER_ANSWER_MAX && record.read().map_err(|_| CORRUPT)?.incarnation >= from {
                answer.push(record.encode().into());
            }
        }
        Ok(answer)
    };
    Ok(Response::Restorations(node.look(shard, look).await?))
}
