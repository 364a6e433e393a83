//! Evidence on its way between nodes: told to each peer once, one contradiction a frame, each answered when it is on disk there, or that it
//! cannot be judged there yet.

use std::time::Duration;

use certs::{ChannelError, CloseCode, Exchange, Lane};
use ehe::id::NodeId;
use ehe::limits::CONTRADICTION_MAX_BYTES;
use tokio_util::sync::CancellationToken;

use super::link::next_frame;
use super::{Kind, Reach};
use crate::consensus::LinkError;
use crate::evidence::shelf::NotKept;
use crate::evidence::{Keeper, Taken};

/// The first pause before a node is tried again; then twice as long, and so on.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// But not longer.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);
/// A piece is sent, judged and kept there within this time.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// The answer: it was taken, or there already.
const TAKEN: [u8; 1] = [1];
/// The answer: it names a charter that has not come there yet.
const LATER: [u8; 1] = [2];

/// Tells a peer what is kept, and what comes, until it is stopped. What it was told while this program runs it is not told again.
pub async fn tell_evidence(reach: Reach, peer: NodeId, keeper: Keeper, stop: CancellationToken) {
    let (mut told, mut pause, mut news) = (0, AGAIN_AFTER, keeper.watch());
    loop {
        let more = async {
            // Never ends: the keeper is held here.
            let _ = news.wait_for(|count| *count > told).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = more => {}
        }
        let telling = tokio::select! {
            () = stop.cancelled() => return,
            telling = tell(&reach, peer, &keeper, &mut told) => telling,
        };
        match telling {
            Ok(Told::All) => {
                pause = AGAIN_AFTER;
                continue;
            }
            // Charters go to every node, from this one too.
            Ok(Told::Waits) => tracing::debug!(%peer, "evidence waits until a node has the charters that it names"),
            // It judges otherwise: another version of this program, perhaps. Telling it again changes nothing.
            Err(ChannelError::Reset(CloseCode::Protocol)) => {
                tracing::warn!(%peer, "a node does not take what this one keeps as evidence: one of the two programs is faulty or old");
                told += 1;
            }
            Err(why) => tracing::debug!(%peer, %why, "evidence is not told to a node"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(AGAIN_AFTER_MAX);
    }
}

/// How far a node is told what is kept.
enum Told {
    All,
    Waits,
}

async fn tell(reach: &Reach, peer: NodeId, keeper: &Keeper, told: &mut usize) -> Result<Told, ChannelError> {
    let mut exchange = reach.open(peer, Lane::Bulk, Kind::Evidence).await?;
    while let Some(kept) = keeper.at(*told) {
        exchange.send(&kept.bytes, TOLD_WITHIN).await?;
        match exchange.recv(TOLD_WITHIN).await? {
            Some(answer) if answer == TAKEN.as_slice() => *told += 1,
            Some(answer) if answer == LATER.as_slice() => return Ok(Told::Waits),
            _ => return Err(ChannelError::Truncated),
        }
    }
    exchange.finish()?;
    Ok(Told::All)
}

/// Why a stream of evidence ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotHeard {
    /// What was told is none.
    #[error(transparent)]
    NotKept(#[from] NotKept),
    /// Longer than evidence may be.
    #[error(transparent)]
    TooLong(LinkError),
}

/// Takes what a peer tells. The error is its fault.
pub(super) async fn hear_evidence(keeper: &Keeper, exchange: &mut Exchange) -> Result<(), NotHeard> {
    loop {
        match next_frame(&mut exchange.receiver, CONTRADICTION_MAX_BYTES, Duration::MAX).await {
            Ok(Some(bytes)) => {
                let answer = match keeper.told(bytes.into()).await? {
                    Taken::New | Taken::Old => TAKEN,
                    Taken::Later => LATER,
                };
                if exchange.send(&answer, TOLD_WITHIN).await.is_err() {
                    return Ok(());
                }
            }
            Err(why @ LinkError::TooLong(_)) => return Err(NotHeard::TooLong(why)),
            Ok(None) | Err(_) => return Ok(()),
        }
    }
}
