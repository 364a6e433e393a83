//! Fetch and Subscribe: a decided request, and the stream that it allows.

use std::time::{Duration, Instant};

use certs::{ChannelError, Exchange, PeerIdentity};
use ehe::identity::PublicIdentity;
use ehe::limits::{READ_LEASE_MS, REQUEST_SKEW_MAX_MS};
use ehe::read::{Part, SignedRequest};
use ehe::refusal::Refusal;
use ehe::room::decide;
use ehe::wire::Response;
use tokio::sync::OwnedSemaphorePermit;

use super::head::head;
use super::{answer, left};
use crate::access::{Audited, Cut, Page, Release};
use crate::checkpoint::Published;
use crate::node::{Node, NotServed, Term, judged_at};
use crate::red;
use crate::server::Share;
use crate::shard::{Committed, Decided, Shard};
use crate::stats::Stats;

/// How long a stream runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Until everything that is there was sent.
    Fetch,
    /// Until either side ends it.
    Subscribe,
}

const LEASE: Duration = Duration::from_millis(READ_LEASE_MS);
/// A confirmation that is older is not built on: of the lease that begins with it, too little is left.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(READ_LEASE_MS / 2);

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
    let decided = tokio::time::timeout(node.limits.submit(), opened(node, peer, request, reader)).await;
    drop(work);
    match decided.unwrap_or(Err(Refusal::Overloaded.into())) {
        Ok((shard, release)) => {
            let ended = stream(node, shard, release, exchange, mode).await;
            drop(slots);
            ended
        }
        Err(why) => {
            Stats::add(&node.stats.reads_refused, 1);
            answer(node, exchange, &why.into()).await
        }
    }
}

/// From the request to what may be released.
async fn opened(
    node: &Node,
    peer: PeerIdentity,
    signed: SignedRequest,
    reader: PublicIdentity,
) -> Result<(&Shard, Release), NotServed> {
    if !node.charter.permissions().read.contains(peer.role()) {
        return Err(Refusal::RoleNotAllowed.into());
    }
    let request = signed.decode().map_err(|_| Refusal::RequestMalformed)?;
    let own = peer.author() == Some(request.claims().reader) && peer.author() == Some(reader.author_id());
    if !own && request.claims().scope.part != Part::Control {
        return Err(Refusal::NotYourIdentity.into());
    }
    let request = request.verify_as(&reader).map_err(|_| Refusal::BadSignature)?;
    let shard = node.shard_of(request.room)?;
    let term = node.leads(shard.place.shard)?;
    // The recovery identity, a piece of paper, has no channel of its own: it may fetch the control records over anybody's.
    if !own {
        let (id, asks) = (request.room, request.reader);
        let recovery = node.look(shard, move |view| Ok(view.room(id)?.is_some_and(|room| room.is_recovery(asks))));
        if !recovery.await? {
            return Err(node.denies(shard.place.shard, term, Refusal::NotYourIdentity.into()).await);
        }
    }
    // What leaves no record is decided from the state at hand, without a commit.
    if (request.scope.part != Part::Content || red::on("audit_late"))
        && let Some(audited) = at_hand(node, shard, term, &signed).await?
    {
        let (sequencer, signed) = (shard.sequencer.clone(), signed.clone());
        red::afterwards("audit_late", async move { sequencer.read(signed, reader).await });
        return Ok((shard, Release::new(shard.place.alliance, audited)));
    }
    // Everything else is decided inside apply, refusals too: that is what records them.
    match shard.sequencer.read(signed.clone(), reader).await? {
        Decided::Granted(committed) => {
            Stats::add(&node.stats.reads_granted, 1);
            shard.checkpoint_of(committed.record() + 1).await?;
            let audited = recorded(node, shard, signed, committed).await?;
            Ok((shard, Release::new(shard.place.alliance, audited)))
        }
        // The right came between the two decisions.
        Decided::Free => {
            let audited = at_hand(node, shard, term, &signed).await?.ok_or(Refusal::NotInvited)?;
            Ok((shard, Release::new(shard.place.alliance, audited)))
        }
        Decided::Refused(why) => Err(why.into()),
    }
}

/// `None`: not to be had without asking apply.
async fn at_hand(node: &Node, shard: &Shard, term: Term, signed: &SignedRequest) -> Result<Option<Audited>, NotServed> {
    let (signed, alliance, clock) = (signed.clone(), shard.place.alliance, node.clock.now());
    let decided = node.look(shard, move |view| {
        let request = signed.decode().map_err(|_| Refusal::RequestMalformed)?.trust_ordering_party();
        let room = view.room(request.room)?.ok_or(Refusal::RoomUnknown)?;
        let now = judged_at(view, clock);
        let fresh = now.since(request.made_at).max(request.made_at.since(now)) <= REQUEST_SKEW_MAX_MS;
        let granted = decide(alliance, &room, &request, now).ok().filter(|_| fresh);
        Ok((granted.and_then(Audited::without_record), view.shard().leaves))
    });
    let (audited, leaves) = match decided.await {
        Ok(decided) => decided,
        Err(why) => return Err(node.denies(shard.place.shard, term, why).await),
    };
    if audited.is_some() {
        node.still_leads(shard.place.shard, term).await?;
        // Only what is checkpointed is shown, and nothing that was there when the request came is left out.
        shard.checkpoint_of(leaves).await?;
    }
    Ok(audited)
}

async fn recorded(
    node: &Node,
    shard: &Shard,
    signed: SignedRequest,
    committed: Committed,
) -> Result<Audited, NotServed> {
    let (alliance, clock) = (shard.place.alliance, node.clock.now());
    node.look(shard, move |view| {
        let request = signed.decode().map_err(|_| Refusal::RequestMalformed)?.trust_ordering_party();
        let room = view.room(request.room)?.ok_or(Refusal::RoomUnknown)?;
        let granted = decide(alliance, &room, &request, judged_at(view, clock))?;
        Ok(Audited::committed(granted, &signed, &committed).ok_or(Refusal::NotInvited)?)
    })
    .await
}

/// A page with the head, where it ends the room.
struct Next {
    release: Release,
    page: Result<(Page, Option<Response>), Cut>,
}

async fn stream(
    node: &Node,
    shard: &Shard,
    mut release: Release,
    exchange: &mut Exchange,
    mode: Mode,
) -> Result<(), ChannelError> {
    let mut checkpoints = shard.checkpoints.clone();
    let mut told: Option<Instant> = None;
    loop {
        // The rules below are those of this node's state: a majority has to say that there are no newer ones.
        let since = Instant::now().checked_sub(CONFIRMED_WITHIN).unwrap_or_else(Instant::now);
        let confirmed = match node.confirmed(shard.place.shard, since).await {
            Ok(confirmed) => confirmed,
            Err(why) => return answer(node, exchange, &why.into()).await,
        };
        checkpoints.mark_unchanged();
        let Ok(Some(checkpoint)) = shard.newest_checkpoint() else {
            return answer(node, exchange, &Response::Refused(Refusal::StorageFault)).await;
        };
        let asked = Instant::now().min(confirmed);
        let next = match next(node, shard, release, checkpoint).await {
            Ok(next) => next,
            Err(why) => return answer(node, exchange, &why.into()).await,
        };
        release = next.release;
        let (page, head) = match next.page {
            Ok(page) => page,
            Err(Cut::Refused(why)) => {
                Stats::add(&node.stats.streams_cut, 1);
                return answer(node, exchange, &Response::Refused(why)).await;
            }
            Err(Cut::Store(error)) => {
                tracing::error!(shard = shard.place.shard, %error, "reading the shard failed");
                return answer(node, exchange, &Response::Refused(Refusal::StorageFault)).await;
            }
        };
        let news = !page.frames.is_empty();
        let mut unsent = None;
        for frame in page.frames {
            // The lease is over before the reader took the page: ask the rules again.
            let left = left(asked, LEASE);
            if left.is_zero() {
                unsent = Some(frame.index);
                break;
            }
            exchange.send(&frame.bytes, node.limits.send().min(left.max(Duration::from_secs(1)))).await?;
            Stats::add(&node.stats.items_sent, 1);
        }
        if let Some(index) = unsent {
            release.rewind(index);
            continue;
        }
        let Some(head) = head.filter(|_| page.caught_up) else { continue };
        if mode == Mode::Fetch {
            return answer(node, exchange, &head).await;
        }
        if news || told.is_none_or(|told| left(told, LEASE).is_zero()) {
            exchange.send(&head.to_vec(), node.limits.send()).await?;
            told = Some(Instant::now());
        }
        let rest = told.map_or(Duration::ZERO, |told| left(told, LEASE));
        tokio::select! {
            changed = checkpoints.changed() => if changed.is_err() {
                return answer(node, exchange, &Response::Refused(Refusal::Stopping)).await;
            },
            () = tokio::time::sleep(rest) => {}
            () = node.stop.cancelled() => {
                return answer(node, exchange, &Response::Refused(Refusal::Stopping)).await;
            }
        }
    }
}

async fn next(
    node: &Node,
    shard: &Shard,
    mut release: Release,
    checkpoint: std::sync::Arc<Published>,
) -> Result<Next, NotServed> {
    let (identity, clock) = (node.identity.clone(), node.clock.now());
    node.look(shard, move |view| {
        let page = (|| {
            let page = release.page(view, checkpoint.size, judged_at(view, clock))?;
            let nonce = release.request().nonce;
            let head =
                if page.caught_up { head(view, release.room(), &checkpoint, nonce, clock, &identity)? } else { None };
            Ok((page, head.map(Response::Head)))
        })();
        Ok(Next { release, page })
    })
    .await
}
