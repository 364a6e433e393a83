//! Which rooms an identity is a party of, and what they are; and how the nodes are.

use std::collections::BTreeSet;

use ehe::control::{Right, Rights};
use ehe::id::{AuthorId, EheId, RoomId};
use ehe::read::Purpose;
use ehe::refusal::{Fault, Refusal};
use ehe::room::{GrantEnd, RoomState};
use ehe::time::{Hour, UnixMs};
use ehe::vital::Category;
use ehe::wire::{NodeStatus, Request, Response};

use crate::authority::{DelegateLine, delegates};
use crate::error::{Error, Exit};
use crate::follow::Following;
use crate::memory::Tie;
use crate::session::{Session, kind};
use crate::view::RoomView;

/// A grant as one party sees it.
#[derive(Debug, Clone)]
pub struct GrantLine {
    /// The grant.
    pub id: EheId,
    /// Whom it is for.
    pub subject: AuthorId,
    /// Their name, where readable.
    pub name: Option<String>,
    /// The purpose, where readable.
    pub purpose: Option<String>,
    /// Who made it: the patient or a delegate; where it was shown.
    pub by: Option<AuthorId>,
    /// The delegate's name, where readable.
    pub by_name: Option<String>,
    /// To do what.
    pub right: Right,
    /// With what, as far as the categories are readable.
    pub categories: Vec<Category>,
    /// Whether it was made for earlier keys of theirs, too.
    pub history: bool,
    /// First hour of readings.
    pub from: Option<Hour>,
    /// Hour of readings that is not covered any more.
    pub until: Option<Hour>,
    /// End by time.
    pub expires: Option<UnixMs>,
    /// End by revocation.
    pub ended: Option<GrantEnd>,
}

/// A room as one party sees it.
#[derive(Debug, Clone)]
pub struct RoomLine {
    /// The room.
    pub room: RoomId,
    /// The patient.
    pub patient: AuthorId,
    /// Whether that is the one who asks.
    pub own: bool,
    /// Its name, where readable.
    pub name: Option<String>,
    /// Its entries.
    pub entries: u64,
    /// What for the one who asks may act for the patient now.
    pub may: Option<Rights>,
    /// Its delegates, those included whose time is over.
    pub delegates: Vec<DelegateLine>,
    /// Its grants: all of them for the patient, else one's own.
    pub grants: Vec<GrantLine>,
}

/// What was found, and which nodes or rooms could not tell.
#[derive(Debug, Default)]
pub struct Found {
    /// Rooms.
    pub rooms: Vec<RoomLine>,
    /// What went wrong on the way, each with the exit code that it stands for: the list may lack something.
    pub problems: Vec<(String, Exit)>,
}

pub(crate) fn grants(state: &RoomState, view: &RoomView, me: AuthorId) -> Vec<GrantLine> {
    let mine = state.grants.iter().filter(|(_, g)| state.owner == me || g.subject == me);
    let mut lines: Vec<(u64, GrantLine)> = mine
        .map(|(id, grant)| {
            let shown = view.grant(*id);
            let by = shown.map(|shown| shown.author);
            let line = GrantLine {
                id: *id,
                subject: grant.subject,
                name: shown.and_then(|s| s.name.clone()),
                purpose: shown.and_then(|s| s.purpose.clone()),
                by,
                by_name: by.and_then(|by| view.delegate(by)?.name.clone()),
                right: grant.right,
                categories: view.categories_of(&grant.epochs),
                history: shown.is_some_and(|shown| shown.history),
                from: grant.from,
                until: grant.until,
                expires: grant.expires,
                ended: grant.ended,
            };
            (shown.map_or(0, |s| s.seq), line)
        })
        .collect();
    lines.sort_by_key(|(seq, _)| *seq);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn line(following: &Following, me: AuthorId, now: UnixMs) -> Result<RoomLine, Error> {
    let (state, view) = (following.state()?, following.view());
    Ok(RoomLine {
        room: state.room,
        patient: state.owner,
        own: state.owner == me,
        name: view.name().map(str::to_owned),
        entries: following.entries(),
        may: state
            .delegations
            .get(&me)
            .filter(|delegation| delegation.is_live(now))
            .map(|delegation| delegation.rights),
        delegates: delegates(state, view),
        grants: grants(state, view, me),
    })
}

/// One room.
pub async fn show(session: &mut Session, room: RoomId) -> Result<RoomLine, Error> {
    let following = session.control(room, Purpose::Operations).await?;
    line(&following, following.me().author_id(), session.now())
}

/// All rooms that any node of the charter names, and what became of those that are remembered and not named. What each of them is, its verified control records say, not the node.
pub async fn rooms(session: &mut Session) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut named: BTreeSet<RoomId> = BTreeSet::new();
    let nodes: Vec<_> = session.charter().nodes().iter().map(|node| node.id).collect();
    let mut last = None;
    let mut answered = false;
    for node in nodes {
        match of_node(session, node).await {
            Ok(rooms) => {
                answered = true;
                named.extend(rooms);
            }
            Err(why) => {
                found.problems.push((why.to_string(), why.exit()));
                last = Some(why);
            }
        }
    }
    if let Some(why) = last.filter(|_| !answered) {
        return Err(why);
    }
    for room in &named {
        match show(session, *room).await {
            Ok(line) => found.rooms.push(line),
            Err(why) => found.problems.push((format!("room {room}: {why}"), why.exit())),
        }
    }
    remembered(session, &named, &mut found).await;
    Ok(found)
}

/// Asks about the rooms that are remembered and that no node named: each was left out, is gone, or is open to this identity no more.
async fn remembered(session: &mut Session, named: &BTreeSet<RoomId>, found: &mut Found) {
    let rooms = match session.home().remembered() {
        Ok(rooms) => rooms,
        Err(why) => return found.problems.push((why.to_string(), why.exit())),
    };
    // Where nobody answers for a shard, waiting again for each of its rooms would take long.
    let mut silent: BTreeSet<u16> = BTreeSet::new();
    for room in rooms.into_iter().filter(|room| !named.contains(room)) {
        let shard = room.shard(session.charter().shard_count());
        if silent.contains(&shard) {
            continue;
        }
        match again(session, room).await {
            Ok(Again::Shown(line)) => found.rooms.push(*line),
            Ok(Again::Said(said, exit)) => {
                found.problems.push((format!("room {room}, which this directory remembers, {said}"), exit));
            }
            Ok(Again::NotAsked) => {}
            Err(why) => {
                if matches!(why, Error::NoNode { .. }) || why.may_pass() {
                    silent.insert(shard);
                }
                found.problems.push((format!("room {room}: {why}"), why.exit()));
            }
        }
    }
}

/// What became of a room that is remembered and that no node named.
enum Again {
    /// It was left out.
    Shown(Box<RoomLine>),
    /// It is not shown: what is said of that, and the exit code that it stands for.
    Said(String, Exit),
    /// This identity is no party of it, or it is another alliance's.
    NotAsked,
}

async fn again(session: &mut Session, room: RoomId) -> Result<Again, Error> {
    let Some(known) = session.recall(room)? else { return Ok(Again::NotAsked) };
    if known.tie == Tie::Moved {
        let said = "was moved to other keys by `ehe authority rotate`: use the directory with those";
        return Ok(Again::Said(said.into(), Exit::Done));
    }
    if !known.tie.is_party() {
        return Ok(Again::NotAsked);
    }
    match show(session, room).await {
        Ok(line) => Ok(Again::Shown(Box::new(line))),
        Err(Error::Refused(refusal)) if known.tie != Tie::Own && has_ended(refusal) => {
            session.home().tie(room, Tie::Ended)?;
            Ok(Again::Said(format!("is not open to it any more: {refusal} (said once)"), Exit::Done))
        }
        Err(Error::Refused(refusal)) if refusal.fault() == Fault::Rights => {
            Ok(Again::Said(format!("is not shown to it: {refusal}"), Exit::Refused))
        }
        Err(why) => Err(why),
    }
}

/// Whether it is a refusal that honest nodes give to those who were parties of a room (SPEC 9, D0 and D2). Any other would not come
/// from them; nor would one of these, for whose room it is: whose keys were replaced has to know that as long as he asks.
fn has_ended(refusal: Refusal) -> bool {
    use Refusal::{DelegationEnded, GrantExpired, GrantRevoked, KeysReplaced};
    matches!(refusal, GrantExpired | GrantRevoked | DelegationEnded | KeysReplaced)
}

async fn of_node(session: &mut Session, node: ehe::id::NodeId) -> Result<Vec<RoomId>, Error> {
    let mut answers = session.nodes.ask_node(node, &Request::RoomsOf).await?;
    match answers.next().await? {
        Response::Rooms(rooms) => Ok(rooms.into_iter().map(|room| room.room).collect()),
        other => Err(answers.unexpected(kind(&other))),
    }
}

/// A node's status, or why there is none.
pub type NodeLine = (String, Result<NodeStatus, Error>);

/// How every node of the charter is.
pub async fn status(session: &mut Session) -> Vec<NodeLine> {
    let mut lines = Vec::new();
    let nodes: Vec<_> = session.charter().nodes().iter().map(|node| (node.id, node.name.clone())).collect();
    for (id, name) in nodes {
        lines.push((name, of(session, id).await));
    }
    lines
}

async fn of(session: &mut Session, node: ehe::id::NodeId) -> Result<NodeStatus, Error> {
    let mut answers = session.nodes.ask_node(node, &Request::Status).await?;
    match answers.next().await? {
        Response::Status(status) => Ok(status),
        other => Err(answers.unexpected(kind(&other))),
    }
}
