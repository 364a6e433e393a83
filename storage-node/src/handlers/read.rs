//! Fetch and Subscribe: a decided request, and the stream that it allows. Whichever node is asked serves it, once its own replica
//! has applied the request.

mod decide;
mod stream;

use certs::{ChannelError, Exchange, PeerIdentity};
use ehe::identity::PublicIdentity;
use ehe::read::SignedRequest;
use ehe::refusal::Refusal;
use ehe::wire::Response;
use tokio::sync::OwnedSemaphorePermit;

use super::answer;
use crate::node::Node;
use crate::server::Share;
use crate::stats::Stats;

/// How long a stream runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Until everything that is there was sent.
    Fetch,
    /// Until either side ends it.
    Subscribe,
}

/// Decides, and streams.
pub(super) async fn read(
    node: &Node,
    (peer, share, work): (PeerIdentity, &Share, OwnedSemaphorePermit),
    exchange: &mut Exchange,
    request: SignedRequest,
    reader: PublicIdentity,
    mode: Mode,
) -> Result<(), ChannelError> {
    // The peer's own share first: who has used that up takes no place of others.
    let slots = share.streams.try_acquire().and_then(|own| Ok((own, node.streams.try_acquire()?)));
    let Ok(slots) = slots else {
        Stats::add(&node.stats.overloaded, 1);
        return answer(node, exchange, &Response::Refused(Refusal::Overloaded)).await;
    };
    let decided = tokio::time::timeout(node.limits.submit(), decide::opened(node, peer, request, reader)).await;
    drop(work);
    match decided.unwrap_or(Err(Refusal::Overloaded.into())) {
        Ok((shard, release)) => {
            let ended = stream::stream(node, shard, release, exchange, mode).await;
            drop(slots);
            ended
        }
        Err(why) => {
            Stats::add(&node.stats.reads_refused, 1);
            answer(node, exchange, &why.into()).await
        }
    }
}
