//! The patient: lets readers into rooms and out again, over and over.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use ehe::author::Strand;
use ehe::control::{Control, ControlLink, Ending, Grant, Revoke, Right as Kind, SeedWrap};
use ehe::event::CheckedEvent;
use ehe::id::{EheId, RoomId, StrandId};
use ehe::identity::{Identity, Party, PublicIdentity};
use ehe::wire::{Request, Submission};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use super::book::{ATTEMPT, Book, PATIENCE, now, rest};
use crate::bench::crowd::{Gateway, Prepared, Verifier};
use crate::checker::history::Right;
use crate::lab::charters::Charters;
use crate::lab::line::Line;

/// Between two of the patient's decisions.
const PAUSE: Duration = Duration::from_millis(120);
/// A room keeps ended grants, and may keep 1,024.
const GRANTS_MAX: u64 = 900;

/// A patient with rooms.
#[derive(Debug)]
pub struct Patient {
    identity: Identity,
    line: Line,
    charters: Charters,
    rooms: Vec<Gateway>,
    readers: Vec<PublicIdentity>,
    links: BTreeMap<RoomId, ControlLink>,
    /// Live grants by room and reader's place.
    live: BTreeMap<(RoomId, usize), EheId>,
    rng: StdRng,
}

impl Patient {
    /// Who owns these rooms, and decides about these readers.
    pub fn new(
        (identity, line): (&Identity, &Line),
        charters: &Charters,
        rooms: Vec<Gateway>,
        readers: Vec<PublicIdentity>,
        seed: u64,
    ) -> Self {
        let links = rooms.iter().map(|room| (room.room, room.next)).collect();
        Self {
            identity: identity.clone(),
            line: line.clone(),
            charters: charters.clone(),
            rooms,
            readers,
            links,
            live: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Decides until it is told to stop.
    pub async fn decide(mut self, book: Book, mut stop: watch::Receiver<bool>) {
        while rest(&mut stop, PAUSE).await {
            if let Err(why) = self.one(&book).await {
                return book.wrong("the patient", format!("{why:#}"));
            }
        }
    }

    async fn one(&mut self, book: &Book) -> Result<()> {
        let (room, reader) = (self.rng.random_range(0..self.rooms.len()), self.rng.random_range(0..self.readers.len()));
        let (Some(room), Some(keys)) = (self.rooms.get(room).cloned(), self.readers.get(reader).cloned()) else {
            return Ok(());
        };
        let Some(link) = self.links.get(&room.room).copied().filter(|link| link.seq < 2 * GRANTS_MAX) else {
            return Ok(());
        };
        let live = self.live.get(&(room.room, reader)).copied();
        let control = match live {
            Some(grant) => Control::Revoke(Revoke { link, grant, ending: Ending::Cut }),
            None => Control::Grant(self.grant(&room, &keys, link)?),
        };
        let event = control.event(&mut self.rng, room.room, self.identity.author_id(), now(), None)?;
        let id = event.id();
        let sent_ms = book.ms();
        let index = self.order(&room, event, book).await?;
        self.links.insert(room.room, ControlLink { seq: link.seq + 1, previous: id });
        match live {
            Some(_) => self.live.remove(&(room.room, reader)),
            None => self.live.insert((room.room, reader), id),
        };
        let (granted, reader) = (live.is_none(), keys.author_id());
        let right = Right { room: room.room, reader, granted, index, sent_ms, got_ms: book.ms() };
        book.write(|history| history.rights.push(right));
        Ok(())
    }

    fn grant(&mut self, room: &Gateway, reader: &PublicIdentity, link: ControlLink) -> Result<Grant> {
        let seed = SeedWrap::make(&mut self.rng, room.room, room.epoch, Party::of(reader), room.group.seed())?;
        Ok(Grant {
            link,
            subject: reader.clone(),
            right: Kind::Read,
            epochs: vec![room.epoch],
            from: None,
            until: None,
            expires: None,
            seeds: vec![seed],
        })
    }

    /// Its place in the room.
    async fn order(&mut self, room: &Gateway, event: CheckedEvent, book: &Book) -> Result<u64> {
        let strand = Strand::new(room.room, StrandId(self.rng.random()), None);
        let run = strand.link_events(&self.identity, std::slice::from_ref(&event)).run;
        let (hash, events) = (run.hash(), vec![event.id()]);
        let frame = Bytes::from(Request::Submit(Submission { run, events: vec![event.into_event()] }).to_vec());
        let prepared = Prepared { frame, room: room.room, run: hash, events };
        let (_, answer) = self.line.ask(room.shard, &prepared.frame, ATTEMPT, PATIENCE).await?;
        let proven = Verifier::under(self.charters.clone()).verify(&prepared, &answer)?;
        book.saw(&proven.checkpoint);
        Ok(proven.leaf.index)
    }
}
