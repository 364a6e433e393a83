//! What runs once a request is decided: page after page, under a lease.
//!
//! A lease is at most [`READ_LEASE_MS`] long and begins with a majority's word that nothing newer was acknowledged than this node has; one
//! such word serves all streams of a shard ([`Confirmation`](crate::confirmation::Confirmation)). So a node that is cut off serves nobody
//! for longer. Within a lease a stream ends when the patient's records change the reader's rights: apply wakes every stream in the
//! room, and the rules are asked again, whether the reader takes anything or not. A grant's own end ends a lease early.

use std::time::{Duration, Instant};

use certs::{ChannelError, CloseCode, Exchange};
use ehe::limits::READ_LEASE_MS;
use ehe::refusal::Refusal;
use ehe::wire::Response;
use tokio::time::timeout;

use super::Mode;
use crate::access::{Cut, Page, Release};
use crate::checkpoint::Published;
use crate::handlers::head::head;
use crate::handlers::{answer, left};
use crate::node::{Node, NotServed, judged_at};
use crate::shard::{RightsWatch, Shard};
use crate::stats::Stats;

const LEASE: Duration = Duration::from_millis(READ_LEASE_MS);
/// A confirmation that is older is not built on: of the lease that begins with it, too little is left.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(READ_LEASE_MS / 2);
/// A frame of which a part is sent when the right to read ends has this time to be taken, and so has the word that it ended. Then the
/// stream is reset, and with it whatever of it is still in this node's buffers.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// A page with the head, where it ends the room.
struct Next {
    release: Release,
    page: Result<(Page, Option<Response>), Cut>,
    /// How long after it was decided the first grant ends.
    ends_in: Option<Duration>,
}

/// What became of a frame.
enum Sent {
    All,
    /// The right to read ended. Whether the frame is whole.
    Cut(NotServed, bool),
}

pub(super) async fn stream(
    node: &Node,
    shard: &Shard,
    mut release: Release,
    exchange: &mut Exchange,
    mode: Mode,
) -> Result<(), ChannelError> {
    let mut checkpoints = shard.checkpoints.clone();
    let mut rights = shard.readers.rights.watch(release.room());
    let (mut told, mut begun): (Option<Instant>, _) = (None, false);
    loop {
        // The rules below are those of this node's state: a majority has to say that there are no newer ones.
        let since = Instant::now().checked_sub(CONFIRMED_WITHIN).unwrap_or_else(Instant::now);
        let confirmed = match node.confirmed(shard.place.shard, since).await {
            Ok(confirmed) => confirmed,
            Err(why) => return last_word(exchange, &why.into()).await,
        };
        checkpoints.mark_unchanged();
        rights.mark_seen();
        let Ok(Some(checkpoint)) = shard.newest_checkpoint() else {
            return last_word(exchange, &Response::Refused(Refusal::StorageFault)).await;
        };
        if let Err(why) = node.speaks_as_of(shard.place.shard, &checkpoint) {
            // In the middle of an answer there is nobody to be named: who is asked next says who has the shard now.
            if begun {
                return last_word(exchange, &Response::Refused(Refusal::NoLeader)).await;
            }
            return answer(node, exchange, &why.into()).await;
        }
        let decided = Instant::now();
        let head_is_due = told.is_none_or(|told| left(told, LEASE).is_zero());
        let next = match next(node, shard, release, (checkpoint, head_is_due)).await {
            Ok(next) => next,
            Err(why) => return last_word(exchange, &why.into()).await,
        };
        release = next.release;
        let ends_in = next.ends_in.map_or(LEASE, |ends_in| ends_in.min(LEASE));
        let lease_left = || left(decided.min(confirmed), LEASE).min(left(decided, ends_in));
        let (page, head) = match next.page {
            Ok(page) => page,
            Err(why) => return cut(node, exchange, not_served(shard, why)).await,
        };
        let mut unsent = None;
        for frame in page.frames {
            begun = true;
            // The lease is over before the reader took the page: ask the rules again.
            let left = lease_left();
            if left.is_zero() {
                unsent = Some(frame.index);
                break;
            }
            let within = node.limits.send().min(left.max(Duration::from_secs(1)));
            match send(node, shard, &release, exchange, (&frame.bytes, within), &mut rights).await? {
                Sent::All => Stats::add(&node.stats.items_sent, 1),
                Sent::Cut(why, true) => return cut(node, exchange, why).await,
                Sent::Cut(_, false) => {
                    Stats::add(&node.stats.streams_cut, 1);
                    exchange.abort(CloseCode::NotAuthorized);
                    return Err(ChannelError::Deadline("the right to read ended, and the reader took nothing more"));
                }
            }
        }
        if let Some(index) = unsent {
            release.rewind(index);
            continue;
        }
        if !page.caught_up {
            continue;
        }
        if let Some(head) = head {
            if mode == Mode::Fetch {
                return answer(node, exchange, &head).await;
            }
            exchange.send(&head.to_vec(), node.limits.send()).await?;
            (told, begun) = (Some(Instant::now()), true);
        }
        let rest = told.map_or(LEASE, |told| left(told, LEASE)).min(left(decided, ends_in));
        let mut resting = std::pin::pin!(tokio::time::sleep(rest));
        loop {
            tokio::select! {
                changed = checkpoints.changed() => {
                    if changed.is_err() {
                        return last_word(exchange, &Response::Refused(Refusal::Stopping)).await;
                    }
                    // Most of what a shard takes in is of other rooms: that costs a look, no page and no signature.
                    let behind;
                    (release, behind) = match self::behind(node, shard, release).await {
                        Ok(looked) => looked,
                        Err(why) => return last_word(exchange, &why.into()).await,
                    };
                    if behind {
                        break;
                    }
                }
                // No majority is asked first: what ended the right stands in the log that this node applied.
                () = rights.changed() => match still_allowed(node, shard, &release, &mut rights).await {
                    Ok(()) => break,
                    Err(why) => return cut(node, exchange, why).await,
                },
                () = &mut resting => break,
                () = node.stop.cancelled() => {
                    return last_word(exchange, &Response::Refused(Refusal::Stopping)).await;
                }
            }
        }
    }
}

/// The next page, and the head where it ends the room and tells something, or is due anyway.
async fn next(
    node: &Node,
    shard: &Shard,
    mut release: Release,
    (checkpoint, head_is_due): (std::sync::Arc<Published>, bool),
) -> Result<Next, NotServed> {
    let (identity, clock) = (node.identity.clone(), node.clock.now());
    node.look(shard, move |view| {
        let now = judged_at(view, clock);
        let page = (|| {
            let page = release.page(view, checkpoint.size, now)?;
            let nonce = release.request().nonce;
            let tells = page.caught_up && (head_is_due || !page.frames.is_empty());
            let head = if tells { head(view, release.room(), &checkpoint, nonce, clock, &identity)? } else { None };
            Ok((page, head.map(Response::Head)))
        })();
        let ends = page.as_ref().ok().and_then(|(page, _): &(Page, _)| page.ends);
        Ok(Next { release, page, ends_in: ends.map(|ends| Duration::from_millis(ends.since(now))) })
    })
    .await
}

/// Whether the newest checkpoint has something for the stream.
async fn behind(node: &Node, shard: &Shard, release: Release) -> Result<(Release, bool), NotServed> {
    let Ok(Some(checkpoint)) = shard.newest_checkpoint() else { return Err(Refusal::StorageFault.into()) };
    node.look(shard, move |view| Ok((release.behind(view, checkpoint.size)?, release)))
        .await
        .map(|(behind, release)| (release, behind))
}

/// Sends a frame, and asks the rules whenever they may have changed, before it and while the reader lets it wait.
async fn send(
    node: &Node,
    shard: &Shard,
    release: &Release,
    exchange: &mut Exchange,
    (frame, within): (&[u8], Duration),
    rights: &mut RightsWatch,
) -> Result<Sent, ChannelError> {
    if rights.has_changed()
        && let Err(why) = still_allowed(node, shard, release, rights).await
    {
        return Ok(Sent::Cut(why, true));
    }
    let mut sending = std::pin::pin!(exchange.send(frame, within));
    loop {
        tokio::select! {
            biased;
            sent = &mut sending => return sent.map(|()| Sent::All),
            () = rights.changed() => if let Err(why) = still_allowed(node, shard, release, rights).await {
                // Half a frame is none, and what it says was allowed when it began.
                return match timeout(CUT_WITHIN, &mut sending).await {
                    Ok(sent) => sent.map(|()| Sent::Cut(why, true)),
                    Err(_) => Ok(Sent::Cut(why, false)),
                };
            }
        }
    }
}

/// Asks the rules of this node's state as it is now.
async fn still_allowed(
    node: &Node,
    shard: &Shard,
    release: &Release,
    rights: &mut RightsWatch,
) -> Result<(), NotServed> {
    rights.mark_seen();
    let (asks, clock) = (release.asks(), node.clock.now());
    node.look(shard, move |view| Ok(asks.still_allowed(view, judged_at(view, clock))))
        .await?
        .map_err(|why| not_served(shard, why))
}

fn not_served(shard: &Shard, why: Cut) -> NotServed {
    match why {
        Cut::Refused(why) => why.into(),
        Cut::Store(error) => {
            tracing::error!(shard = shard.place.shard, %error, "reading the shard failed");
            Refusal::StorageFault.into()
        }
    }
}

/// Ends a stream with the word why.
async fn cut(node: &Node, exchange: &mut Exchange, why: NotServed) -> Result<(), ChannelError> {
    Stats::add(&node.stats.streams_cut, 1);
    last_word(exchange, &Response::from(why)).await
}

/// Says why a stream ends. It comes behind what was sent before; a reader that does not take that soon gets neither, because what is
/// in this node's buffers was allowed for as long as the lease, which may be over.
async fn last_word(exchange: &mut Exchange, why: &Response) -> Result<(), ChannelError> {
    let said = async {
        exchange.send(&why.to_vec(), CUT_WITHIN).await?;
        exchange.finish()?;
        exchange.delivered(CUT_WITHIN).await
    };
    let said = said.await;
    if said.is_err() {
        exchange.abort(CloseCode::NotAuthorized);
    }
    said
}
