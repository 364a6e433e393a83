//! Whether a room's control records are the newest: a node that lags, or lies, shows a true beginning, and a revocation or a new key is
//! missing from it. So the other nodes of the group are asked where the room ends, until as many members as a quorum needs have
//! said, with a fresh head, that it has no more of the patient's control events than were shown.

use std::collections::BTreeSet;

use ehe::charter::VerifiedCharter;
use ehe::id::{MemberId, NodeId, Nonce, RoomId};
use ehe::ledger::verify_head;
use ehe::time::UnixMs;
use ehe::wire::{Head, Request, Response};

use super::extends::Asked;
use super::line::NodeFault;
use super::random;
use super::session::{CharterTrouble, Session};
use crate::clock::WallClock;
use crate::rooms::follow::{FollowError, Followed, moves_forward};

/// What the members say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Newest {
    /// A quorum of them knows of nothing newer.
    Shown,
    /// Fewer could be heard. The text says why the others do not count.
    NotShown(String),
    /// This node has more control events.
    Newer(NodeId),
}

/// What a head says.
enum Said {
    Agrees,
    Newer,
    /// It does not count: the node is behind, or its clock, or its charter.
    No(String),
}

/// Asks after `by` showed control records up to its own head.
pub(super) async fn newest(
    session: &Session,
    room: RoomId,
    followed: &Followed,
    by: NodeId,
    clock: &WallClock,
) -> Newest {
    let (charter, shard) = (session.charter(), session.shard(room));
    let needed = charter.quorum(shard);
    let (mut members, mut why) = (BTreeSet::<MemberId>::new(), Vec::new());
    members.extend(charter.node(by).map(|node| node.member));
    for id in session.trusted(shard).into_iter().filter(|id| *id != by) {
        if members.len() >= needed {
            break;
        }
        let Some(node) = charter.node(id).filter(|node| !members.contains(&node.member)) else { continue };
        let nonce = Nonce(random());
        let said = match session.ask_node(id, &Request::Head(room, nonce).to_vec()).await {
            Ok(answer) => match answer.response {
                Response::Head(head) => match judge(session, room, followed, (&head, nonce), &charter, clock()) {
                    Ok(said) => match session.goes_on(shard, id, &head.last.checkpoint, Asked::Always).await {
                        Ok(()) => said,
                        Err(CharterTrouble::Unanswered(unanswered)) => Said::No(unanswered.why.to_string()),
                        Err(CharterTrouble::Fault(fault)) => {
                            let said = Said::No(fault.to_string());
                            // One that lags is no liar.
                            if !matches!(&fault, NodeFault::History(FollowError::WentBack { .. })) {
                                session.distrust(id, &fault);
                            }
                            said
                        }
                    },
                    Err(fault) => {
                        let said = Said::No(fault.to_string());
                        session.distrust(id, &fault);
                        said
                    }
                },
                Response::Refused(refusal) => Said::No(refusal.to_string()),
                _ => Said::No("it gives no head".into()),
            },
            Err(unanswered) => Said::No(unanswered.why.to_string()),
        };
        match said {
            Said::Agrees => {
                members.insert(node.member);
            }
            Said::Newer => return Newest::Newer(id),
            Said::No(text) => why.push(format!("{}: {text}", node.name)),
        }
    }
    if members.len() >= needed {
        Newest::Shown
    } else {
        Newest::NotShown(format!("{} of {needed} members ({})", members.len(), why.join("; ")))
    }
}

/// The error is the node's fault.
fn judge(
    session: &Session,
    room: RoomId,
    followed: &Followed,
    (head, nonce): (&Head, Nonce),
    charter: &VerifiedCharter,
    now: UnixMs,
) -> Result<Said, NodeFault> {
    let checkpoint = match verify_head(room, head, nonce, charter) {
        Ok(checkpoint) => checkpoint,
        Err(why) => {
            let why = FollowError::from(why);
            return if why.needs_charter().is_some() {
                Ok(Said::No(why.to_string()))
            } else {
                Err(NodeFault::Control(why))
            };
        }
    };
    session.witness(&head.last.checkpoint);
    let (shard, seen) = (session.shard(room), checkpoint.checkpoint().seen());
    match moves_forward(session.log(shard).as_ref(), &checkpoint) {
        Ok(()) => {}
        // It may not know yet of a restored log, or know of one that this gateway does not.
        Err(why @ FollowError::OtherLog { .. }) => return Ok(Said::No(why.to_string())),
        Err(why) => return Err(NodeFault::Control(why)),
    }
    session.saw(shard, &seen);
    let (theirs, ours) = (head.last.leaf.control, followed.control_seq());
    let age_ms = now.since(head.at);
    Ok(if theirs > ours {
        Said::Newer
    } else if theirs < ours {
        Said::No(format!("it has {theirs} of {ours} control records"))
    } else if age_ms > u64::from(charter.head_fresh_ms()) {
        Said::No(format!("its head is {age_ms} ms old by this clock"))
    } else {
        Said::Agrees
    })
}
