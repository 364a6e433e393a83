//! What the checkpointer has to say to one other node, sent for as long as this node runs.

use std::time::Duration;

use certs::{ChannelError, Exchange, Lane};
use ehe::id::NodeId;
use tokio_util::sync::CancellationToken;

use super::{Kind, Reach};
use crate::checkpoint::Outbound;

/// The first pause before the node is tried again; then twice as long, and so on.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// But not longer: so long may a shard wait for a node that is back.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);
/// A node takes a message within this time; by then its connection is given up anyway.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// Sends until it is stopped. Of what is said meanwhile to a node that is away, [`Outbound`] keeps the newest.
pub async fn cosign_with(reach: Reach, peer: NodeId, outbound: Outbound, stop: CancellationToken) {
    let mut pause = AGAIN_AFTER;
    loop {
        let said = tokio::select! {
            () = stop.cancelled() => return,
            said = say(&reach, peer, &outbound, &mut pause) => said,
        };
        if let Err(why) = said {
            tracing::debug!(%peer, %why, "checkpoints are not told to a node");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(AGAIN_AFTER_MAX);
    }
}

/// Over one stream, until it ends.
async fn say(reach: &Reach, peer: NodeId, outbound: &Outbound, pause: &mut Duration) -> Result<(), ChannelError> {
    // Opened before there is something to say: what is said should not have grown old on the way.
    let Exchange { mut sender, mut receiver } = reach.open(peer, Lane::Prompt, Kind::Checkpoints).await?;
    *pause = AGAIN_AFTER;
    loop {
        tokio::select! {
            message = outbound.next(peer) => match message {
                Some(message) => sender.send(&message, SEND_WITHIN).await?,
                None => std::future::pending().await,
            },
            // Nothing comes: it tells that the stream is gone, which sending alone may notice late.
            ended = receiver.announced(Duration::MAX) => return ended.map(drop),
        }
    }
}
