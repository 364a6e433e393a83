//! Readers: ask for content again and again, invited or not, and note what they were given. Some fetch what is there, some watch what comes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use certs::Credentials;
use ehe::charter::VerifiedCharter;
use ehe::event::decode_header;
use ehe::id::{NodeId, Nonce, RoomId};
use ehe::identity::Identity;
use ehe::ledger::verify_head;
use ehe::read::{Part, Purpose, ReadRequest, Scope};
use ehe::time::Hour;
use ehe::wire::{Request, Response};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use super::book::{ATTEMPT, Book, now, rest};
use crate::bench::crowd::Gateway;
use crate::checker::history::{Outcome, Read};
use crate::lab::charters::Charters;
use crate::lab::line::Line;

/// Between two requests of one reader.
const PAUSE: Duration = Duration::from_millis(60);
/// Who watches, watches for so long.
const WATCH: Duration = Duration::from_secs(4);
/// A frame of an answer that takes longer is given up.
const ANSWER: Duration = Duration::from_secs(5);
/// So many of a room's newest entries are asked for.
const NEWEST: u64 = 40;

/// A request that was answered, as far as it was.
struct Answered {
    node: NodeId,
    outcome: Outcome,
    /// The next one to ask, who leads.
    ask: Option<NodeId>,
}

/// A reader.
#[derive(Debug)]
pub struct Reader {
    name: String,
    identity: Identity,
    line: Line,
    /// The one that it was enrolled with: whom it asks first. Others are what answers stand under.
    charter: VerifiedCharter,
    charters: Charters,
    rooms: Vec<Gateway>,
    watches: bool,
    rng: StdRng,
}

impl Reader {
    /// Who may or may not read these rooms.
    pub fn new(
        name: String,
        credentials: &Credentials,
        charters: &Charters,
        rooms: Vec<Gateway>,
        watches: bool,
        seed: u64,
    ) -> Result<Self> {
        let (identity, charter, charters) =
            (credentials.identity().clone(), credentials.charter().clone(), charters.clone());
        let (line, rng) = (Line::new(credentials)?, StdRng::seed_from_u64(seed));
        Ok(Self { name, identity, line, charter, charters, rooms, watches, rng })
    }

    /// Reads until it is told to stop.
    pub async fn read(mut self, book: Book, mut stop: watch::Receiver<bool>) {
        let mut from = std::collections::BTreeMap::<RoomId, u64>::new();
        while rest(&mut stop, PAUSE).await {
            let at = self.rng.random_range(0..self.rooms.len());
            let Some(room) = self.rooms.get(at).cloned() else { continue };
            let begin = from.get(&room.room).copied().unwrap_or(0);
            match self.one(&room, begin, &book).await {
                Ok(Some(seen)) => drop(from.insert(room.room, seen.saturating_sub(NEWEST))),
                Ok(None) => {}
                Err(why) => return book.wrong(&self.name, format!("{why:#}")),
            }
        }
    }

    /// One request, of whichever node says that it is the one to ask. The last entry that was seen.
    async fn one(&mut self, room: &Gateway, from_index: u64, book: &Book) -> Result<Option<u64>> {
        let group = self.charter.group(room.shard);
        let mut ask = group.get(self.rng.random_range(0..group.len().max(1))).copied();
        // Who does not lead names who does.
        for _ in 0..3 {
            let Some(node) = ask else { break };
            let nonce = Nonce(self.rng.random());
            let request = self.request(room, nonce, from_index);
            let sent_ms = book.ms();
            let answered = self.answer(node, &request, room, nonce, book).await?;
            let read = Read {
                room: room.room,
                reader: self.identity.author_id(),
                nonce,
                node: answered.node,
                sent_ms,
                ended_ms: book.ms(),
                outcome: answered.outcome.clone(),
            };
            book.write(|history| history.reads.push(read));
            ask = answered.ask;
            if let Outcome::Served { last, .. } = answered.outcome {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    fn request(&self, room: &Gateway, nonce: Nonce, from_index: u64) -> Vec<u8> {
        let scope = Scope { part: Part::Content, epochs: vec![room.epoch], from: Hour(0), until: Hour(u32::MAX) };
        let request = ReadRequest {
            alliance: self.charter.alliance_id(),
            room: room.room,
            reader: self.identity.author_id(),
            nonce,
            scope,
            purpose: Purpose::Treatment,
            actor: None,
            head: None,
            from_index,
            made_at: now(),
        };
        let (signed, keys) = (request.sign(&self.identity), self.identity.public().clone());
        if self.watches { Request::Subscribe(signed, keys).to_vec() } else { Request::Fetch(signed, keys).to_vec() }
    }

    /// An error is of an answer that is wrong; one that breaks off is none.
    async fn answer(
        &self,
        node: NodeId,
        request: &[u8],
        room: &Gateway,
        nonce: Nonce,
        book: &Book,
    ) -> Result<Answered> {
        let (mut served, mut first_head, begun): (Option<(u64, u64)>, Option<u64>, _) = (None, None, Instant::now());
        let ended = |served: Option<(u64, u64)>, head: Option<u64>| {
            let nothing = if head.is_some() { Outcome::Nothing } else { Outcome::Failed };
            let outcome = served.map_or(nothing, |(first, last)| Outcome::Served { first, last, head });
            Answered { node, outcome, ask: None }
        };
        let asked = async {
            let connection = self.line.connection(node, ATTEMPT).await.ok()?;
            let mut exchange = tokio::time::timeout(ATTEMPT, connection.open()).await.ok()?.ok()?;
            exchange.send(request, ATTEMPT).await.ok()?;
            exchange.finish().ok()?;
            Some(exchange)
        };
        let Some(mut exchange) = asked.await else { return Ok(ended(None, None)) };
        loop {
            let Ok(Some(frame)) = exchange.recv(ANSWER).await else { return Ok(ended(served, first_head)) };
            match Response::decode(&frame).context("an answer does not decode")? {
                Response::Wrap(_) => {}
                Response::Item(item) => {
                    let headers = item.events.iter().map(|event| decode_header(&event.header));
                    let headers = headers.collect::<Result<Vec<_>, _>>().context("an event does not decode")?;
                    if headers.iter().any(|header| header.core.kind.is_content()) {
                        let index = item.leaf.index;
                        served = Some((served.map_or(index, |(first, _)| first), index));
                    }
                }
                Response::Head(head) => {
                    let charter = self.charters.of(&head.last.checkpoint)?;
                    let checkpoint = verify_head(room.room, &head, nonce, &charter).context("a head")?;
                    book.saw(&checkpoint.checkpoint().seen());
                    first_head.get_or_insert(head.last.leaf.index);
                    if !self.watches || begun.elapsed() > WATCH {
                        return Ok(ended(served, first_head));
                    }
                }
                Response::Refused(why) => {
                    let outcome = match ended(served, first_head).outcome {
                        Outcome::Failed | Outcome::Nothing => Outcome::Refused(why.to_string()),
                        served => served,
                    };
                    return Ok(Answered { node, outcome, ask: None });
                }
                Response::AskNode(other) => {
                    let ask = Some(other).filter(|other| *other != node);
                    return Ok(Answered { ask, ..ended(served, first_head) });
                }
                other => anyhow::bail!("a read was answered {other:?}"),
            }
        }
    }
}
