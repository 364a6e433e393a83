//! One exchange: a request comes in, an answer or a stream of them goes out. Everything here has a deadline.

mod about;
mod extends;
mod head;
mod read;
mod restorations;
mod rooms;
mod submit;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use certs::{ChannelError, CloseCode, Exchange, PeerIdentity};
use ehe::refusal::Refusal;
use ehe::wire::{Request, Response};
use tokio::sync::OwnedSemaphorePermit;

use crate::node::Node;
use crate::server::Share;
use crate::stats::Stats;

/// Above this, decoding moves off the runtime's workers.
const DECODE_INLINE_BYTES: usize = 64 * 1024;
/// A request counts for this much of its sender's share at least: a small one takes a place in a queue too.
const REQUEST_COUNTS_BYTES: usize = 16 * 1024;

/// Serves one exchange to its end.
pub(crate) async fn handle(node: &Node, peer: PeerIdentity, share: &Share, exchange: &mut Exchange) {
    Stats::add(&node.stats.requests, 1);
    if let Err(error) = serve(node, peer, share, exchange).await {
        match error {
            ChannelError::FrameTooLarge { .. } | ChannelError::Truncated => {
                Stats::add(&node.stats.requests_malformed, 1);
            }
            _ => Stats::add(&node.stats.requests_abandoned, 1),
        }
        tracing::debug!(%peer, %error, "exchange ended");
    }
}

async fn serve(node: &Node, peer: PeerIdentity, share: &Share, exchange: &mut Exchange) -> Result<(), ChannelError> {
    let received = tokio::select! {
        received = receive(node, share, exchange) => received,
        () = node.stop.cancelled() => return answer(node, exchange, &Response::Refused(Refusal::Stopping)).await,
    };
    // Until the request is answered or, of a stream, decided.
    let (frame, work) = match received {
        Ok(Received::Request(frame, work)) => (frame, work),
        Ok(Received::Nothing) => return Ok(()),
        Ok(Received::TooMuch) => {
            Stats::add(&node.stats.overloaded, 1);
            return answer(node, exchange, &Response::Refused(Refusal::Overloaded)).await;
        }
        Err(error) => {
            if matches!(error, ChannelError::FrameTooLarge { .. } | ChannelError::Truncated) {
                answer(node, exchange, &Response::Refused(Refusal::FrameMalformed)).await?;
            } else {
                exchange.abort(CloseCode::Timeout);
            }
            return Err(error);
        }
    };
    let bytes = frame.len();
    let request = if bytes > DECODE_INLINE_BYTES {
        node.blocking.run(move || Request::decode(&frame)).await.ok()
    } else {
        Some(Request::decode(&frame))
    };
    let response = match request {
        None => Response::Refused(Refusal::Stopping),
        Some(Err(error)) => {
            Stats::add(&node.stats.requests_malformed, 1);
            tracing::debug!(%peer, %error, "not a request");
            Response::Refused(Refusal::FrameMalformed)
        }
        Some(Ok(Request::Submit(submission))) => {
            let deadline = node.limits.submit();
            let answer = tokio::time::timeout(deadline, submit::submit(node, peer, submission, bytes)).await;
            // It may still be ordered; submitting again is harmless.
            answer.unwrap_or(Response::Refused(Refusal::Overloaded))
        }
        Some(Ok(Request::Fetch(request, reader))) => {
            return read::read(node, (peer, share, work), exchange, request, reader, read::Mode::Fetch).await;
        }
        Some(Ok(Request::Subscribe(request, reader))) => {
            return read::read(node, (peer, share, work), exchange, request, reader, read::Mode::Subscribe).await;
        }
        Some(Ok(Request::Head(room, nonce))) => {
            let answer = tokio::time::timeout(node.limits.submit(), head::head_of(node, peer, room, nonce)).await;
            answer.unwrap_or(Err(Refusal::Overloaded.into())).unwrap_or_else(Into::into)
        }
        Some(Ok(Request::RoomsOf)) => {
            // Somebody may be a party of more rooms than can be looked at: anybody can be invited.
            let answer = tokio::time::timeout(node.limits.submit(), rooms::rooms_of(node, peer)).await;
            answer.unwrap_or(Err(Refusal::Overloaded.into())).unwrap_or_else(Into::into)
        }
        Some(Ok(Request::Charter(from))) => Response::Charter(node.charter.piece(from)),
        Some(Ok(Request::Status)) => about::status(node),
        Some(Ok(Request::Evidence(from))) => about::evidence(node, from),
        Some(Ok(Request::Restorations(shard, from))) => {
            let answer =
                tokio::time::timeout(node.limits.submit(), restorations::restorations(node, shard, from)).await;
            answer.unwrap_or(Err(Refusal::Overloaded.into())).unwrap_or_else(Into::into)
        }
        Some(Ok(Request::Extends(shard, smaller, larger))) => {
            let answer = extends::extends(node, shard, smaller, larger);
            let answer = tokio::time::timeout(node.limits.submit(), answer).await;
            answer.unwrap_or(Err(Refusal::Overloaded.into())).unwrap_or_else(Into::into)
        }
    };
    if response == Response::Refused(Refusal::Overloaded) {
        Stats::add(&node.stats.overloaded, 1);
    }
    answer(node, exchange, &response).await
}

enum Received {
    Request(Bytes, OwnedSemaphorePermit),
    /// The peer ended the stream without one.
    Nothing,
    /// The peer has so much under way already that there was no room in time.
    TooMuch,
}

/// Receives the request once its sender's share has room for it. Until then it stays in the transport's window.
async fn receive(node: &Node, share: &Share, exchange: &mut Exchange) -> Result<Received, ChannelError> {
    let (since, limit) = (Instant::now(), node.limits.request());
    let Some(bytes) = exchange.announced(limit).await? else { return Ok(Received::Nothing) };
    let counts = u32::try_from(bytes.max(REQUEST_COUNTS_BYTES)).unwrap_or(u32::MAX);
    let room = Arc::clone(&share.work).acquire_many_owned(counts);
    let Ok(Ok(work)) = tokio::time::timeout(left(since, limit), room).await else { return Ok(Received::TooMuch) };
    let frame = exchange.recv(left(since, limit)).await?;
    Ok(frame.map_or(Received::Nothing, |frame| Received::Request(frame, work)))
}

/// Sends the last frame of an exchange.
async fn answer(node: &Node, exchange: &mut Exchange, response: &Response) -> Result<(), ChannelError> {
    exchange.send(&response.to_vec(), node.limits.send()).await?;
    exchange.finish()?;
    exchange.delivered(node.limits.send()).await
}

/// Time that is left of a lease.
fn left(since: Instant, lease: Duration) -> Duration {
    lease.saturating_sub(since.elapsed())
}
