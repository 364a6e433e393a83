//! What every replica shows in the end, fetched as the patient's program fetches it and verified as it verifies it.
//!
//! A replica that serves the whole room shows it whole. One that only says where the room ends, in its own signed name (a node that does
//! not lead), shows it by that: its last leaf chains back to all before it, so what another one shows whole up to that leaf is what it has,
//! and the checkpoint's root is computed by each node from leaves of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use ehe::id::{Hash, NodeId, Nonce, RoomId};
use ehe::identity::Identity;
use ehe::leaf::Leaf;
use ehe::ledger::{Follower, Verified, verify_head};
use ehe::read::{Part, Purpose, ReadRequest, Scope};
use ehe::run::SeenCheckpoint;
use ehe::time::Hour;
use ehe::wire::{Request, Response};
use rand::RngExt;

use super::book::now;
use crate::checker::history::{Entry, Replica, Room, Shown};
use crate::lab::charters::Charters;
use crate::lab::line::Line;
use crate::lab::process::until;

/// A frame of an answer comes within this time.
const FRAME: Duration = Duration::from_secs(20);
/// A node that was just healed has everything within this time.
const CAUGHT_UP: Duration = Duration::from_secs(60);
/// One that had not, gets so long for each further room.
const AGAIN: Duration = Duration::from_secs(2);

/// The patient, after the campaign.
#[derive(Debug)]
pub struct Inspector<'a> {
    identity: &'a Identity,
    line: &'a Line,
    charters: &'a Charters,
    wholes: BTreeMap<(NodeId, RoomId), Result<Whole, String>>,
}

/// A room, its leaves' hashes, and the checkpoint that it was confirmed by.
#[derive(Debug)]
struct Whole {
    room: Room,
    leaves: Vec<Hash>,
    shown: SeenCheckpoint,
}

/// What a node said when it was asked for a whole room.
enum Said {
    Whole(Box<Whole>),
    /// Another one is to be asked.
    NotHere,
}

impl<'a> Inspector<'a> {
    /// Whose the rooms are, the way to the nodes, and the charters.
    pub fn new(identity: &'a Identity, line: &'a Line, charters: &'a Charters) -> Self {
        Self { identity, line, charters, wholes: BTreeMap::new() }
    }

    /// Asks these nodes for what they have not shown whole yet. Each waits until it is healed.
    pub async fn collect(&mut self, nodes: &[NodeId], rooms: &BTreeSet<RoomId>) {
        for node in nodes {
            // Who was waited for in vain is not waited for again with each room.
            let mut patience = CAUGHT_UP;
            for room in rooms {
                if self.wholes.contains_key(&(*node, *room)) {
                    continue;
                }
                let whole = until("the node shows a room", patience, || async {
                    Ok(match self.whole(*node, *room).await {
                        Ok(Said::Whole(whole)) => Some(Some(Ok(*whole))),
                        Ok(Said::NotHere) => Some(None),
                        // Not within its deadline, or it has only just started.
                        Err(Failed::NotNow) => None,
                        Err(Failed::Wrong(why)) => Some(Some(Err(why))),
                    })
                });
                let whole = whole.await.unwrap_or_else(|why| {
                    patience = AGAIN;
                    Some(Err(format!("{why:#}")))
                });
                if let Some(whole) = whole {
                    self.wholes.insert((*node, *room), whole);
                }
            }
        }
    }

    /// Whether all of these nodes have shown all rooms whole.
    pub fn has_all(&self, nodes: &[NodeId], rooms: &BTreeSet<RoomId>) -> bool {
        nodes.iter().all(|node| rooms.iter().all(|room| self.wholes.contains_key(&(*node, *room))))
    }

    /// The rooms as these nodes show them.
    pub async fn replicas(&self, nodes: &[NodeId], rooms: &BTreeSet<RoomId>) -> BTreeMap<NodeId, Replica> {
        let mut replicas: BTreeMap<NodeId, Replica> = BTreeMap::new();
        for node in nodes {
            let mut replica = Replica::default();
            for room in rooms {
                let shown = match self.wholes.get(&(*node, *room)) {
                    Some(Ok(whole)) => Ok((whole.room.clone(), whole.shown.clone())),
                    Some(Err(why)) => Err(why.clone()),
                    None => self.by_head(*node, *room).await.map_err(|why| format!("{why:#}")),
                };
                if let Ok((_, SeenCheckpoint { origin, size, root })) = &shown {
                    replica.shown.insert(Shown { origin: origin.clone(), size: *size, root: *root });
                }
                replica.rooms.insert(*room, shown.map(|(room, _)| room));
            }
            replicas.insert(*node, replica);
        }
        replicas
    }

    async fn by_head(&self, node: NodeId, room: RoomId) -> Result<(Room, SeenCheckpoint)> {
        let (leaf, shown) =
            until("the node shows its head", CAUGHT_UP, || async { Ok(self.head(node, room).await.ok()) }).await?;
        let at = usize::try_from(leaf.index)?;
        let same = self.wholes.iter().filter(|((_, of), _)| *of == room).find_map(|(_, whole)| {
            let whole = whole.as_ref().ok()?;
            (whole.leaves.get(at) == Some(&leaf.hash())).then_some(whole)
        });
        let whole = same.context("nobody shows a ledger that its last entry is of")?;
        let entries = whole.room.entries.iter().take(at + 1).cloned().collect();
        Ok((Room { entries, last: leaf.hash() }, shown))
    }

    async fn head(&self, node: NodeId, room: RoomId) -> Result<(Leaf, SeenCheckpoint)> {
        let nonce = Nonce(rand::rng().random());
        let answer = self.line.ask_node(node, &Request::Head(room, nonce).to_vec(), FRAME).await?;
        let Response::Head(head) = Response::decode(&answer)? else { anyhow::bail!("no head") };
        let charter = self.charters.of(&head.last.checkpoint)?;
        let checkpoint = verify_head(room, &head, nonce, &charter)?;
        Ok((head.last.leaf, checkpoint.checkpoint().seen()))
    }

    async fn whole(&self, node: NodeId, room: RoomId) -> Result<Said, Failed> {
        let nonce = Nonce(rand::rng().random());
        let alliance = self.charters.newest().map_err(|why| Failed::Wrong(why.to_string()))?.alliance_id();
        let request = ReadRequest {
            alliance,
            room,
            reader: self.identity.author_id(),
            nonce,
            scope: Scope { part: Part::Ledger, epochs: vec![], from: Hour(0), until: Hour(u32::MAX) },
            purpose: Purpose::PatientRequest,
            actor: None,
            head: None,
            from_index: 0,
            made_at: now(),
        };
        let frame = Request::Fetch(request.sign(self.identity), self.identity.public().clone()).to_vec();
        let connection = self.line.connection(node, FRAME).await.map_err(|_| Failed::NotNow)?;
        let mut exchange = connection.open().await.map_err(|_| Failed::NotNow)?;
        exchange.send(&frame, FRAME).await.map_err(|_| Failed::NotNow)?;
        exchange.finish().map_err(|_| Failed::NotNow)?;
        let (mut follower, mut entries, mut leaves) = (Follower::new(room, true), Vec::new(), Vec::new());
        loop {
            let frame = exchange.recv(FRAME).await.map_err(|_| Failed::NotNow)?;
            let frame = frame.ok_or(Failed::NotNow)?;
            match Response::decode(&frame).map_err(|why| Failed::Wrong(why.to_string()))? {
                Response::Item(item) => {
                    let (leaf, run) = (item.leaf.clone(), item.run.as_ref().map(ehe::run::SignedRun::hash));
                    let verified = follower.take(item, alliance).map_err(|why| Failed::Wrong(why.to_string()))?;
                    leaves.push(leaf.hash());
                    entries.push((entry(verified, run)?, leaf.accepted_at));
                }
                Response::Head(head) => {
                    let charter = self.charters.of(&head.last.checkpoint);
                    let charter = charter.map_err(|why| Failed::Wrong(why.to_string()))?;
                    let confirmed = follower.confirm(&head, nonce, None, &charter);
                    let shown = confirmed.map_err(|why| Failed::Wrong(why.to_string()))?.checkpoint().seen();
                    let room = Room { entries, last: follower.last() };
                    return Ok(Said::Whole(Box::new(Whole { room, leaves, shown })));
                }
                Response::AskNode(_) => return Ok(Said::NotHere),
                Response::Refused(why) if why.fault() == ehe::refusal::Fault::Node => {
                    return Err(Failed::NotNow);
                }
                other => return Err(Failed::Wrong(format!("it answered {other:?}"))),
            }
        }
    }
}

enum Failed {
    /// It may answer later.
    NotNow,
    Wrong(String),
}

fn entry(verified: Verified, run: Option<Hash>) -> Result<Entry, Failed> {
    match verified {
        Verified::Run { run: claims, events, .. } => {
            let content = events.iter().any(|event| event.core().kind.is_content());
            Ok(Entry::Run {
                run: run.ok_or_else(|| Failed::Wrong("a run without its bytes".into()))?,
                author: claims.author,
                strand: claims.from.strand,
                from: claims.from.next,
                events: claims.ids,
                content,
            })
        }
        Verified::Access(record) => {
            let request = record.request.decode().map_err(|why| Failed::Wrong(why.to_string()))?;
            let (reader, nonce) = (request.claims().reader, request.claims().nonce);
            Ok(Entry::Access { reader, nonce, refused: record.refused.is_some() })
        }
        // Nobody voids anything in these tests' alliances: whoever let it in broke the rules.
        Verified::Unsigned(run) => Err(Failed::Wrong(format!("the signature of a run of {} is false", run.author))),
        Verified::Void { index, .. } => Err(Failed::Wrong(format!("entry {index} is void"))),
        Verified::Skeleton => Err(Failed::Wrong("an entry without its content".into())),
    }
}
