//! Very many rooms, made and visited over QUIC as a patient's program and a gateway do it, many at a time.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use certs::{Connection, Credentials};
use ehe::author::Strand;
use ehe::control::{Control, WrapRecord};
use ehe::event::{CheckedEvent, Core, Kind, Suite, VERSION};
use ehe::id::{Nonce, RoomId, StrandId, WrapId};
use ehe::kem::{self, Secret32};
use ehe::refusal::Fault;
use ehe::wire::{Request, Response, Submission};
use futures::{StreamExt, TryStreamExt, stream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;

use crate::bench::crowd::{LIMIT, Prepared, Verifier, ask, now};
use crate::bench::room::{Mould, Room};
use crate::lab::line::Line;

/// Connections of each identity, and requests under way on each; below the node's limits.
const CONNECTIONS: u64 = 8;
const AT_ONCE: usize = 60;
/// Visits that are under way on each connection.
const VISITS_AT_ONCE: usize = 16;
/// Of an event before it is padded; its body has 256 bytes then.
const PLAIN: [u8; 200] = [7; 200];
const PAUSE: Duration = Duration::from_millis(20);
/// A visit's randomness is not a room's.
const VISITS: u64 = 1 << 40;

/// Who makes the rooms, and who writes to all of them.
pub(super) struct Population {
    patient: Arc<Credentials>,
    gateway: Arc<Credentials>,
    mould: Arc<Mould>,
}

/// What writing to many rooms showed.
pub(super) struct Visited {
    pub(super) runs: usize,
    pub(super) wall: Duration,
    /// Ascending.
    pub(super) latencies_us: Vec<u64>,
}

/// A room that is written to.
pub(super) struct Visit {
    room: RoomId,
    core: Core,
    ek: Secret32,
    strand: Strand,
    /// What goes with the first event.
    wrap: Option<CheckedEvent>,
    rng: StdRng,
}

impl Population {
    pub(super) fn new(patient: Credentials, gateway: Credentials) -> Result<Self> {
        Ok(Self { patient: Arc::new(patient), gateway: Arc::new(gateway), mould: Arc::new(Mould::new(u64::MAX)?) })
    }

    /// Connections to the one node that there is.
    async fn connections(who: &Credentials) -> Result<Vec<Connection>> {
        let node = *who.charter().group(0).first().context("the shard has a node")?;
        let connect = |_| async move { Line::new(who)?.connection(node, LIMIT).await };
        stream::iter(0..CONNECTIONS).then(connect).try_collect().await
    }

    /// Makes the rooms of these numbers.
    pub(super) async fn grow(&self, from: u64, to: u64) -> Result<()> {
        let connections = Self::connections(&self.patient).await?;
        let parts = (0..CONNECTIONS).zip(connections).map(|(part, connection)| async move {
            let (made, rooms) = mpsc::channel(2 * AT_ONCE);
            let (patient, gateway, mould) = (self.patient.clone(), self.gateway.clone(), self.mould.clone());
            let making = tokio::task::spawn_blocking(move || {
                for number in (from..to).filter(|number| number % CONNECTIONS == part) {
                    let (owner, appender) = (patient.identity(), gateway.identity().public());
                    let room = Room::of_mould(number, &mould, owner, appender, patient.charter())?;
                    // Nobody takes it where a request failed, which says why.
                    if made.blocking_send(Bytes::from(Request::Submit(room.submission).to_vec())).is_err() {
                        break;
                    }
                }
                anyhow::Ok(())
            });
            let frames =
                stream::unfold(rooms, |mut rooms| async { rooms.recv().await.map(|frame| (Ok(frame), rooms)) });
            let connection = &connection;
            frames
                .try_for_each_concurrent(AT_ONCE, |frame| async move { submit(connection, &frame).await.map(drop) })
                .await?;
            making.await?
        });
        futures::future::try_join_all(parts).await.map(drop)
    }

    /// So many rooms, evenly spread among those of these numbers. A room is visited once: what a second visit writes would be known already.
    pub(super) fn visits(&self, count: u64, among: Range<u64>) -> Result<Vec<Visit>> {
        let make = |n| self.visit(among.start + n * ((among.end - among.start) / count));
        (0..count).map(make).collect()
    }

    fn visit(&self, number: u64) -> Result<Visit> {
        let (author, charter) = (self.gateway.identity().author_id(), self.patient.charter());
        let (owner, appender) = (self.patient.identity(), self.gateway.identity().public());
        let Room { room, epoch, .. } = Room::of_mould(number, &self.mould, owner, appender, charter)?;
        let (mut rng, at) = (StdRng::seed_from_u64(VISITS + number), now());
        let wrapped = self.mould.wrapped.clone();
        let wrap =
            Control::Wrap(WrapRecord { epoch, day: at.day(), wrapped }).event(&mut rng, room, author, at, None)?;
        let core = Core {
            version: VERSION,
            suite: Suite::One,
            kind: Kind::Vitals,
            room,
            author,
            epoch,
            wrap: WrapId::from(wrap.id()),
            hour: at.hour(),
            salt: Nonce::ZERO,
        };
        let strand = Strand::new(room, StrandId(rng.random()), None);
        Ok(Visit { room, core, ek: kem::random_secret(&mut rng), strand, wrap: Some(wrap), rng })
    }

    /// One event into each room; its first one brings the key's wrap. Every receipt is verified, afterwards.
    pub(super) async fn write(&self, visits: &mut [Visit]) -> Result<Visited> {
        let runs = tokio::task::block_in_place(|| {
            visits.iter_mut().map(|visit| visit.prepare(&self.gateway)).collect::<Result<Vec<_>>>()
        })?;
        let connections = Self::connections(&self.gateway).await?;
        let (start, at_once) = (Instant::now(), VISITS_AT_ONCE * connections.len());
        let answers = stream::iter(runs.iter().zip(connections.iter().cycle()))
            .map(|((run, _), connection)| async move {
                let sent = Instant::now();
                let answer = submit(connection, &run.frame).await?;
                anyhow::Ok((answer, sent.elapsed()))
            })
            .buffered(at_once)
            .try_collect::<Vec<_>>()
            .await?;
        let wall = start.elapsed();
        let mut verifier = Verifier::new(self.gateway.charter());
        let mut latencies_us = Vec::new();
        for (((run, linked), (answer, took)), visit) in runs.iter().zip(&answers).zip(visits) {
            let proven = verifier.verify(run, answer)?;
            visit.strand.accepted(linked, proven.checkpoint);
            latencies_us.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        latencies_us.sort_unstable();
        Ok(Visited { runs: runs.len(), wall, latencies_us })
    }
}

impl Visit {
    fn prepare(&mut self, gateway: &Credentials) -> Result<(Prepared, ehe::author::Linked)> {
        let core = Core { salt: Nonce(self.rng.random()), ..self.core.clone() };
        let event = ehe::seal::seal(&self.ek, core, &PLAIN)?;
        let sealed: Vec<_> = self.wrap.take().into_iter().chain([event]).collect();
        let linked = self.strand.link_events(gateway.identity(), &sealed);
        let events = sealed.iter().map(CheckedEvent::id).collect();
        let run = linked.run.hash();
        let submission =
            Submission { run: linked.run.clone(), events: sealed.into_iter().map(CheckedEvent::into_event).collect() };
        let frame = Bytes::from(Request::Submit(submission).to_vec());
        Ok((Prepared { frame, room: self.room, run, events }, linked))
    }
}

/// Hands a run in until it is taken; a node that has too much to do is asked again.
async fn submit(connection: &Connection, frame: &Bytes) -> Result<Bytes> {
    let start = Instant::now();
    loop {
        let answer = ask(connection, frame).await?;
        match Response::decode(&answer)? {
            Response::Submitted(_) | Response::Known(_) => return Ok(answer),
            Response::Refused(why) if why.fault() == Fault::Node => {
                ensure!(start.elapsed() < LIMIT, "the node took no run within {LIMIT:?}: {why}");
                tokio::time::sleep(PAUSE).await;
            }
            other => bail!("a run was answered {other:?}"),
        }
    }
}
