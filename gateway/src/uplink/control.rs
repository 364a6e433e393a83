//! Fetching a room's control records: the questions of [`crate::rooms::follow`], carried out.

use std::sync::Arc;

use ehe::checkpoint::CheckpointError;
use ehe::id::{NodeId, Nonce, RoomId};
use ehe::leaf::ReceiptError;
use ehe::ledger::LedgerError;
use ehe::refusal::Refusal;
use ehe::wire::{Request, Response};

use super::extends::Asked;
use super::heads::{self, Newest};
use super::line::NodeFault;
use super::random;
use super::session::{CharterTrouble, Session, Unanswered};
use crate::clock::WallClock;
use crate::rooms::Rooms;
use crate::rooms::follow::{FollowError, Followed, Following};

/// A node that shows entries without end does not keep a room's place for longer than so many deadlines.
const EXCHANGES_MAX: u32 = 30;

/// Why a room's control records are not newer than before.
#[derive(Debug)]
pub(super) enum NotFollowed {
    /// Nobody answered.
    Unanswered(Unanswered),
    /// The room does not show us its control records: no grant yet, or none any more.
    Refused(Refusal),
    /// The node showed what does not verify.
    Fault(NodeId, NodeFault),
    /// The node is behind: it speaks under an older charter than ours, or stopped within its answer.
    Behind(NodeId),
}

/// Fetches and verifies what the room's control records say now.
pub(super) async fn follow(
    session: &Session,
    rooms: &Rooms,
    room: RoomId,
    clock: &WallClock,
    exchange: std::time::Duration,
) -> Result<Followed, NotFollowed> {
    let whole = exchange.saturating_mul(EXCHANGES_MAX);
    let (mut renewed, mut looked, mut ask) = (false, false, None);
    loop {
        let before = known(session, rooms, room);
        let (node, outcome) = attempt(session, rooms, (room, before.as_deref()), clock, whole, ask).await?;
        let fault = match outcome {
            Ok(followed) => {
                session.saw(session.shard(room), followed.seen());
                session.worked(node).await;
                let mut stale = None;
                match heads::newest(session, room, &followed, node, clock).await {
                    Newest::Shown => {}
                    Newest::NotShown(why) => stale = Some(why),
                    // Asked for once: what came in meanwhile is told of again at the next look.
                    Newest::Newer(other) if ask.is_none() => {
                        session.records_missing(room, node, other);
                        ask = Some(other);
                        continue;
                    }
                    Newest::Newer(other) => session.records_missing(room, node, other),
                }
                let assigned = rooms.assignments();
                session.looked(room, |room| assigned.contains_key(room), stale.as_deref());
                return Ok(followed);
            }
            Err(fault) => fault,
        };
        match fault.needs_charter() {
            Some(version) if version > session.charter().version() && !renewed => {
                renewed = true;
                session.refresh_charter(node).await.map_err(|trouble| match trouble {
                    CharterTrouble::Unanswered(unanswered) => NotFollowed::Unanswered(unanswered),
                    CharterTrouble::Fault(fault) => NotFollowed::Fault(node, fault),
                })?;
            }
            Some(_) => return Err(NotFollowed::Behind(node)),
            // It may be that the log was restored: then it is another one, and a room may have fewer entries than were followed.
            None if !looked && before.is_some() => {
                looked = true;
                let seen = before.as_deref().map(Followed::seen).cloned();
                let learnt = match seen {
                    Some(seen) => session.learn_restored(node, session.shard(room), &seen).await,
                    None => Ok(false),
                };
                match learnt {
                    Ok(true) => {}
                    Ok(false) => return Err(NotFollowed::Fault(node, NodeFault::Control(fault))),
                    Err(CharterTrouble::Unanswered(unanswered)) => return Err(NotFollowed::Unanswered(unanswered)),
                    Err(CharterTrouble::Fault(fault)) => return Err(NotFollowed::Fault(node, fault)),
                }
            }
            None => return Err(NotFollowed::Fault(node, NodeFault::Control(fault))),
        }
    }
}

/// The charter that a checkpoint names. Of one that names none the verification says what is wrong.
fn charter_version(checkpoint: &str) -> Option<u32> {
    let note = ehe::note::Note::parse(checkpoint).ok()?;
    Some(ehe::checkpoint::Checkpoint::parse(&note).ok()?.charter_version)
}

/// What to go on from: what was followed before, as far as it is in the log that there is now.
fn known(session: &Session, rooms: &Rooms, room: RoomId) -> Option<Arc<Followed>> {
    let before = rooms.get(room)?;
    match session.moved(session.shard(room), before.seen()) {
        None => Some(before),
        Some(moved) => before.carried(moved).map(Arc::new),
    }
}

/// One fetch, from a node or from whichever answers. The inner error is the node's fault, or the charter's age.
async fn attempt(
    session: &Session,
    rooms: &Rooms,
    (room, before): (RoomId, Option<&Followed>),
    clock: &WallClock,
    whole: std::time::Duration,
    ask: Option<NodeId>,
) -> Result<(NodeId, Result<Followed, FollowError>), NotFollowed> {
    let identity = Arc::clone(rooms.identity());
    let public = identity.public().clone();
    let nonce = Nonce(random());
    let (mut following, request) = Following::begin(identity, rooms.alliance(), room, before, nonce, clock());
    let frame = Request::Fetch(request, public).to_vec();
    let asked = match ask {
        Some(node) => session.ask_node(node, &frame).await,
        None => session.ask(session.shard(room), &frame).await,
    };
    let mut answer = asked.map_err(NotFollowed::Unanswered)?;
    let node = answer.node;
    let mut response = answer.response.clone();
    let end = std::time::Instant::now() + whole;
    loop {
        if std::time::Instant::now() >= end {
            return Err(NotFollowed::Fault(node, NodeFault::Endless));
        }
        match response {
            Response::Item(item) => {
                if let Err(fault) = following.take(item) {
                    return Ok((node, Err(fault)));
                }
            }
            Response::Head(head) => {
                if let Some(unreadable) = following.unreadable() {
                    tracing::warn!(%room, %unreadable, "a control record of the patient cannot be read");
                }
                let (shard, version) = (session.shard(room), charter_version(&head.last.checkpoint));
                if let Some(version) = session.needs_for(shard) {
                    let older = ReceiptError::Checkpoint(CheckpointError::OtherCharter(version));
                    return Ok((node, Err(FollowError::Ledger(LedgerError::Head(older)))));
                }
                let charter = version.and_then(|version| session.charter_of(shard, version));
                let charter = charter.unwrap_or_else(|| session.charter());
                let finished = following.finish(&head, &charter);
                if finished.is_ok() {
                    match session.goes_on(shard, node, &head.last.checkpoint, Asked::Always).await {
                        Ok(()) => {}
                        Err(CharterTrouble::Unanswered(unanswered)) => return Err(NotFollowed::Unanswered(unanswered)),
                        Err(CharterTrouble::Fault(NodeFault::History(FollowError::WentBack { .. }))) => {
                            session.lags(shard, node);
                            return Err(NotFollowed::Behind(node));
                        }
                        Err(CharterTrouble::Fault(NodeFault::History(why))) => return Ok((node, Err(why))),
                        Err(CharterTrouble::Fault(fault)) => return Err(NotFollowed::Fault(node, fault)),
                    }
                    session.witness(&head.last.checkpoint);
                    session.stood_under(shard, charter.version());
                }
                return Ok((node, finished));
            }
            Response::Refused(refusal) => return Err(NotFollowed::Refused(refusal)),
            _ => return Err(NotFollowed::Fault(node, NodeFault::Protocol)),
        }
        response = session.next(&mut answer).await.map_err(NotFollowed::Unanswered)?;
    }
}
