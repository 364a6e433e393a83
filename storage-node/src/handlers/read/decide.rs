//! From a request to what may be released.
//!
//! Content is decided inside apply, refusals too: that is what records them. A node that does not order hands the request to the one that
//! does, and takes nothing from its answer but whether to go on waiting: what was decided, and that this node is the one to release it, its
//! own replica says ([`Decisions`](crate::shard::Decisions)). What leaves no record is decided from the state at hand, once a majority has
//! confirmed that nothing newer was acknowledged before the request came.

use std::time::{Duration, Instant};

use certs::PeerIdentity;
use ehe::id::NodeId;
use ehe::identity::PublicIdentity;
use ehe::limits::REQUEST_SKEW_MAX_MS;
use ehe::read::{Part, SignedRequest};
use ehe::refusal::{Fault, Refusal};
use ehe::room::decide;

use crate::access::{Audited, Release};
use crate::node::{Node, NotServed, judged_at};
use crate::peers::{OrderRead, Ordered, order_read};
use crate::red;
use crate::shard::{Committed, Decided, Shard};
use crate::stats::Stats;

/// Nodes that say in turn that another one orders.
const HOPS_MAX: usize = 3;
/// Whoever orders has decided a request within this time, or somebody else should be asked: above an election.
const ORDERED_WITHIN: Duration = Duration::from_secs(5);

/// The shard, and what may be released.
pub(super) async fn opened(
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
    // The recovery identity, a piece of paper, has no channel of its own: it may fetch the control records over anybody's.
    if !own {
        node.confirmed(shard.place.shard, Instant::now()).await?;
        let (id, asks) = (request.room, request.reader);
        let recovery = node.look(shard, move |view| Ok(view.room(id)?.is_some_and(|room| room.is_recovery(asks))));
        if !recovery.await? {
            return Err(Refusal::NotYourIdentity.into());
        }
    }
    if (request.scope.part != Part::Content || red::on("audit_late"))
        && let Some(audited) = at_hand(node, shard, &signed).await?
    {
        let (sequencer, signed, me) = (shard.sequencer.clone(), signed.clone(), node.id);
        red::afterwards("audit_late", async move { sequencer.read(signed, reader, me).await });
        return Ok((shard, Release::new(shard.place.alliance, audited)));
    }
    match decided(node, shard, &signed, reader).await? {
        Decided::Granted(committed) => {
            Stats::add(&node.stats.reads_granted, 1);
            shard.checkpoint_asked_for(committed.record() + 1).await?;
            let audited = recorded(node, shard, signed, committed).await?;
            Ok((shard, Release::new(shard.place.alliance, audited)))
        }
        // The right came between the two decisions.
        Decided::Free => {
            // Or this node's clock is wrong, and another one is to be asked.
            let audited = at_hand(node, shard, &signed).await?.ok_or(Refusal::NoLeader)?;
            Ok((shard, Release::new(shard.place.alliance, audited)))
        }
        Decided::Refused(why) => Err(why.into()),
    }
}

/// What apply decides here, whoever orders.
async fn decided(
    node: &Node,
    shard: &Shard,
    signed: &SignedRequest,
    reader: PublicIdentity,
) -> Result<Decided, NotServed> {
    let leader = match node.leads(shard.place.shard) {
        Ok(_) => return Ok(shard.sequencer.read(signed.clone(), reader, node.id).await?),
        Err(NotServed::AskNode(leader)) => leader,
        Err(why) => return Err(why),
    };
    // Before it is on its way: what is decided is told once.
    let mut expected = shard.readers.decisions.expect(signed).ok_or(Refusal::Overloaded)?;
    let order = OrderRead::new(signed.clone(), reader);
    let asking = tokio::time::timeout(ORDERED_WITHIN, forward(node, leader, &order));
    let decided = tokio::select! {
        // It may be applied here before the leader's word comes.
        biased;
        decided = expected.decided() => decided,
        asked = asking => {
            asked.unwrap_or(Err(Refusal::NoLeader.into()))?;
            expected.decided().await
        }
    };
    decided.ok_or_else(|| Refusal::Stopping.into())
}

/// Has a request ordered elsewhere. `Ok`: that was done, says the other node.
async fn forward(node: &Node, mut leader: NodeId, order: &OrderRead) -> Result<(), NotServed> {
    for _ in 0..HOPS_MAX {
        leader = match order_read(&node.reach, leader, order).await {
            Ok(Ordered::Decided) => return Ok(()),
            Ok(Ordered::AskNode(other)) if other != leader && other != node.id => other,
            Ok(Ordered::AskNode(_)) => break,
            // Rights are not another node's to deny.
            Ok(Ordered::NotNow(why)) if why.fault() == Fault::Node => return Err(why.into()),
            Ok(Ordered::NotNow(_)) => break,
            Err(why) => {
                tracing::debug!(%leader, %why, "a read request is not forwarded");
                break;
            }
        };
    }
    Err(Refusal::NoLeader.into())
}

/// `None`: not to be had without asking apply.
async fn at_hand(node: &Node, shard: &Shard, signed: &SignedRequest) -> Result<Option<Audited>, NotServed> {
    // Nothing that was there when the request came is left out, and nobody is told no who had the right by then.
    node.confirmed(shard.place.shard, Instant::now()).await?;
    let (signed, alliance, clock) = (signed.clone(), shard.place.alliance, node.clock.now());
    let (audited, leaves) = node
        .look(shard, move |view| {
            let request = signed.decode().map_err(|_| Refusal::RequestMalformed)?.trust_ordering_party();
            let room = view.room(request.room)?.ok_or(Refusal::RoomUnknown)?;
            let now = judged_at(view, clock);
            let fresh = now.since(request.made_at).max(request.made_at.since(now)) <= REQUEST_SKEW_MAX_MS;
            let granted = decide(alliance, &room, &request, now).ok().filter(|_| fresh);
            Ok((granted.and_then(Audited::without_record), view.shard().leaves))
        })
        .await?;
    if audited.is_some() {
        // Only what is checkpointed is shown.
        shard.checkpoint_asked_for(leaves).await?;
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
        let control = view.entry(committed.record())?.control;
        Ok(Audited::committed(granted, &signed, &committed, control).ok_or(Refusal::NotInvited)?)
    })
    .await
}
