//! Which rooms an identity is a party of, and what they are; and how the nodes are.

use std::collections::BTreeSet;

use ehe::charter::{VerifiedCharter, shards_in_words};
use ehe::control::{Right, Rights};
use ehe::id::{AuthorId, EheId, NodeId, RoomId};
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
    /// The keys that stand for the patient now: others than at first, after a rotation or a recovery.
    pub keys: AuthorId,
    /// Whether the patient is the one who asks.
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
        keys: state.owner_keys.last().map_or(state.owner, |key| key.id),
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
    let nodes: Vec<_> = session.charter().nodes().iter().map(|node| (node.id, node.name.clone())).collect();
    session.nodes.reach_all(&nodes.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await;
    let (mut told, mut silent) = (BTreeSet::new(), Vec::new());
    for (id, name) in nodes {
        match of_node(session, id).await {
            Ok(rooms) => {
                told.insert(id);
                named.extend(rooms);
            }
            Err(why) => silent.push((name, why)),
        }
    }
    if told.is_empty() {
        return Err(nobody(silent));
    }
    let untold = untold(session.charter(), &told);
    for (name, why) in silent {
        let (said, exit) = (why.at(&name), why.exit());
        found.problems.push(if untold.is_empty() && why.may_pass() {
            // Nothing can be missing for it: who did answer would have had to leave it out together.
            (format!("{name} did not tell its rooms: {said}. The others did, and all shards are among theirs: the list is whole"), Exit::Done)
        } else {
            (format!("{name}: {said}"), exit)
        });
    }
    if !untold.is_empty() {
        let of = shards_in_words(&untold);
        let said =
            format!("the list may lack rooms of {of}: too few members' nodes told theirs; run the command again");
        found.problems.push((said, Exit::Failed));
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

/// The error where no node told anything.
fn nobody(mut silent: Vec<(String, Error)>) -> Error {
    // Where one was reached and refused, or answered what is none, that is what there is to say.
    let spoke = silent.iter().position(|(_, why)| !matches!(why, Error::OneNode { .. }));
    if let Some(spoke) = spoke {
        return silent.swap_remove(spoke).1;
    }
    let later = silent.iter().any(|(_, why)| why.may_pass());
    let why = silent.into_iter().map(|(_, why)| why.to_string()).collect();
    Error::NoNode { why, waited: None, later, sent: true }
}

/// Shards of whose rooms fewer members than a quorum told. One node that answers and hides a room is not enough to make a list
/// look whole.
fn untold(charter: &VerifiedCharter, told: &BTreeSet<NodeId>) -> Vec<u16> {
    let members = |shard: &u16| {
        let nodes = charter.group(*shard).iter().filter(|node| told.contains(*node));
        nodes.filter_map(|node| charter.node(*node)).map(|node| node.member).collect::<BTreeSet<_>>().len()
    };
    (0..charter.shard_count().get()).filter(|shard| members(shard) < charter.quorum(*shard)).collect()
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

async fn of_node(session: &mut Session, node: NodeId) -> Result<Vec<RoomId>, Error> {
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
    session.nodes.reach_all(&nodes.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await;
    for (id, name) in nodes {
        lines.push((name, of(session, id).await));
    }
    lines
}

async fn of(session: &mut Session, node: NodeId) -> Result<NodeStatus, Error> {
    let mut answers = session.nodes.ask_node(node, &Request::Status).await?;
    match answers.next().await? {
        Response::Status(status) => Ok(status),
        other => Err(answers.unexpected(kind(&other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use certs::identity_file;
    use ehe::charter::{Charter, Member, Node, Permissions, Placement, SignedCharter, Trust};
    use ehe::id::{AllianceId, MemberId};

    /// Three members with a node each. Two shards are everywhere, the last is at the first node alone.
    fn charter() -> VerifiedCharter {
        let member = |n: u8| MemberId([n; MemberId::LEN]);
        let keys: Vec<_> = (0..3).map(|_| identity_file::generate().unwrap()).collect();
        let node = |n: u8| Node {
            id: NodeId([n; NodeId::LEN]),
            member: member(n),
            name: format!("{n}.example"),
            sign: identity_file::generate().unwrap().public().sign,
            addresses: vec![format!("{n}.example:1")],
        };
        let all: Vec<NodeId> = (0..3).map(|n| NodeId([n; NodeId::LEN])).collect();
        let charter = Charter {
            version: 1,
            alliance: "Test".into(),
            predecessor: None,
            shard_count: 3.try_into().unwrap(),
            members: (0..3)
                .zip(&keys)
                .map(|(n, key)| Member { id: member(n), name: n.to_string(), identity: key.public().clone() })
                .collect(),
            nodes: (0..3).map(node).collect(),
            placement: Placement::Listed(vec![all.clone(), all.clone(), all[..1].to_vec()]),
            permissions: Permissions::default(),
            head_fresh_ms: 60_000,
            min_cosignatures: None,
            rules: None,
        };
        let mut signed = SignedCharter::unsigned(&charter).unwrap();
        keys.iter().for_each(|key| signed.sign(key).unwrap());
        let alliance = AllianceId(signed.hash().0);
        signed.verify(Trust::Pinned(alliance)).unwrap()
    }

    #[test]
    fn a_list_is_whole_only_where_a_quorum_of_each_shards_members_told_their_rooms() {
        let charter = charter();
        let untold = |told: &[u8]| untold(&charter, &told.iter().map(|n| NodeId([*n; NodeId::LEN])).collect());
        assert_eq!(untold(&[0, 1, 2]), Vec::<u16>::new());
        assert_eq!(untold(&[0, 1]), Vec::<u16>::new());
        assert_eq!(untold(&[1, 2]), [2], "nobody else holds it");
        assert_eq!(untold(&[0]), [0, 1], "one that answers could hide a room");
    }
}
