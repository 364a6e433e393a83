//! Entries that a node's disk damaged, asked of the other nodes of the shard; and whether a node that has no part in a shard any more may give up
//! what it has of it.
//!
//! ```text
//! request = version (1) ‖ what (1) ‖ shard (2) ‖ log index (8)             numbers big-endian; what 0 an entry, 1 the whole state,
//!                                                                          2 may I go? with my leaves for an index, 3 how far
//! entry   = row …, finished;  row = record (8) ‖ offset (4) ‖ bytes        one a frame; none: this node does not have it
//! state   = what consensus keeps, piece …, finished                        each a frame; none: this node has no state for others
//! go      = note, 0 ‖ hash (32) …, finished                                two frames: a quorum's checkpoint, and the proof that it extends the
//!                                                                          leaves that were named; none: no, or this node does not lead
//! how far = what consensus keeps, finished                                 as of a state, without the state
//! ```
//!
//! Only a node that has a part in the shard is given something of it: who has none learns neither the ciphertext nor who read it.
//! What comes is a stranger's until the tree says that it is the entry ([`Store::mend`](crate::shard::Store)), or a quorum's checkpoint that it is
//! the state ([`rebuild`](crate::scrub::rebuild)). Neither end waits for one that hardly moves: a state that is being sent keeps its
//! pages in the file, and a node that waits for one does not serve.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use certs::{ChannelError, CloseCode, Exchange, Lane};
use ehe::id::{Hash, NodeId};
use ehe::limits::{CHECKPOINT_MAX_BYTES, PROOF_HASHES_MAX};
use ehe::merkle;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};

use super::link::next_frame;
use super::{Kind, Reach};
use crate::charters::Charters;
use crate::checkpoint::{Board, Checkpointed};
use crate::consensus::{Consensus, GroupId, LinkError, MachineError, Stage};
use crate::least_pace::LeastPace;
use crate::node::raft_id;
use crate::one_each::OneEach;
use crate::scrub::{Elsewhere, Line, Sent, caught};
use crate::shard::{Arrived, Incoming, LogRow, ROWS_MAX};

const VERSION: u8 = 1;
const REQUEST_BYTES: usize = 1 + 1 + 2 + 8;
const ENTRY: u8 = 0;
const STATE: u8 = 1;
const FAREWELL: u8 = 2;
const APPLIED: u8 = 3;
const KEY_BYTES: usize = 8 + 4;
/// A row fills a page.
const ROW_BYTES: usize = KEY_BYTES + 4096;
/// Each frame comes, and is taken, within this time.
const FRAME_WITHIN: Duration = Duration::from_secs(10);
/// What consensus keeps of a state: a membership at most.
const APPLIED_BYTES: usize = 16 << 10;
/// A piece of a state.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces between the disk and the network.
const PIECES: usize = 2;
/// A majority confirms a leader within this time.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);
/// States that are sent at a time. Of one node one request is answered at a time.
const STATES_AT_A_TIME: usize = 2;
/// Whoever waits for a state is told that often that this goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// Slower than this it is too slow: 2 Mbit/s.
const STATE_BYTES_PER_S_MIN: u64 = 256 << 10;

/// Asks the other nodes of each shard.
pub struct Others {
    reach: Reach,
    charters: Charters,
    me: NodeId,
}

impl Others {
    /// Those that the newest charter names, but for `me`.
    pub fn new(reach: Reach, charters: Charters, me: NodeId) -> Self {
        Self { reach, charters, me }
    }

    async fn open(&self, node: NodeId, what: u8, shard: u16, log_index: u64) -> Result<Exchange, ChannelError> {
        let mut exchange = self.reach.open(node, Lane::Bulk, Kind::Repair).await?;
        exchange.send(&request(what, shard, log_index), FRAME_WITHIN).await?;
        exchange.finish()?;
        Ok(exchange)
    }

    async fn ask(&self, node: NodeId, shard: u16, log_index: u64) -> Result<Vec<LogRow>, String> {
        let mut exchange = self.open(node, ENTRY, shard, log_index).await.map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        while let Some(frame) = next(&mut exchange, ROW_BYTES).await? {
            rows.push(row(&frame).ok_or("it sent no row of a log")?);
            if rows.len() > ROWS_MAX {
                return Err("it sent more rows than an entry has".into());
            }
        }
        if rows.is_empty() { Err("it does not have the entry either".into()) } else { Ok(rows) }
    }

    /// Whether a node leads a shard and has let this one go; then a checkpoint of its log, and the proof that this extends one of `leaves`
    /// leaves. Nothing of that is verified here.
    pub async fn may_go(&self, node: NodeId, shard: u16, leaves: u64) -> Result<(String, Vec<Hash>), String> {
        let mut exchange = self.open(node, FAREWELL, shard, leaves).await.map_err(|error| error.to_string())?;
        let no = || "it does not say that this node may go".to_owned();
        let note = next(&mut exchange, CHECKPOINT_MAX_BYTES).await?.ok_or_else(no)?;
        let note = String::from_utf8(note.to_vec()).map_err(|_| "its note is no text")?;
        let proof = next(&mut exchange, 1 + PROOF_HASHES_MAX * 32).await?.ok_or_else(no)?;
        match proof.split_first().map(|(first, hashes)| (first, hashes.as_chunks::<32>())) {
            Some((0, (hashes, []))) => Ok((note, hashes.iter().copied().map(Hash).collect())),
            _ => Err("its proof is none".into()),
        }
    }

    /// How far a node has applied a shard's log, as its machine keeps it for consensus.
    pub async fn applied(&self, node: NodeId, shard: u16) -> Result<Vec<u8>, String> {
        let mut exchange = self.open(node, APPLIED, shard, 0).await.map_err(|error| error.to_string())?;
        let none = || "it has no state for this node".to_owned();
        Ok(next(&mut exchange, APPLIED_BYTES).await?.ok_or_else(none)?.to_vec())
    }

    /// A node's whole state of a shard, received by `incoming`. `goes_on` is called every few seconds while it comes, and while it is looked at.
    pub async fn state(
        &self,
        node: NodeId,
        shard: u16,
        incoming: Incoming,
        goes_on: &(dyn Fn() + Send + Sync),
    ) -> Result<Sent, String> {
        let mut exchange = self.open(node, STATE, shard, 0).await.map_err(|error| error.to_string())?;
        let none = || "it has no state for this node".to_owned();
        let applied = next(&mut exchange, APPLIED_BYTES).await?.ok_or_else(none)?.to_vec();
        let (pieces, arrived) = mpsc::channel::<Bytes>(PIECES);
        let mut writing = tokio::task::spawn_blocking(move || received(incoming, arrived));
        let (begun, mut pace, mut told) = (Instant::now(), LeastPace::of(STATE_BYTES_PER_S_MIN), Instant::now());
        goes_on();
        while let Some(piece) = next(&mut exchange, PIECE_BYTES).await? {
            if !pace.keeps(piece.len(), begun.elapsed()) {
                return Err("it sends too slowly".into());
            }
            if told.elapsed() >= SIGN_OF_LIFE {
                told = Instant::now();
                goes_on();
            }
            // If it is not taken, the writer says why.
            if pieces.send(piece).await.is_err() {
                break;
            }
        }
        drop(pieces);
        let written = loop {
            match tokio::time::timeout(SIGN_OF_LIFE, &mut writing).await {
                Ok(written) => break written,
                Err(_) => goes_on(),
            }
        };
        let state = written.map_err(|_| "it was interrupted")?.map_err(|error| error.to_string())?;
        Ok(Sent { applied, state })
    }
}

async fn next(exchange: &mut Exchange, max: usize) -> Result<Option<Bytes>, String> {
    next_frame(&mut exchange.receiver, max, FRAME_WITHIN).await.map_err(|error| error.to_string())
}

impl Elsewhere for Others {
    fn nodes(&self, shard: u16) -> Vec<NodeId> {
        self.charters.newest().group(shard).iter().copied().filter(|node| *node != self.me).collect()
    }

    fn rows(&self, node: NodeId, shard: u16, log_index: u64) -> BoxFuture<'_, Result<Vec<LogRow>, String>> {
        self.ask(node, shard, log_index).boxed()
    }
}

/// On a thread that may block.
fn received(mut incoming: Incoming, mut pieces: mpsc::Receiver<Bytes>) -> Result<Arrived, MachineError> {
    while let Some(piece) = pieces.blocking_recv() {
        incoming.write(&piece)?;
    }
    incoming.finish()
}

/// Answers other nodes.
pub struct Repairs {
    shards: BTreeMap<u16, Line>,
    consensus: Consensus,
    charters: Charters,
    board: Arc<Board>,
    states: Semaphore,
    answered: OneEach<NodeId>,
}

impl std::fmt::Debug for Repairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repairs").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Repairs {
    /// From these shards.
    pub fn new(shards: BTreeMap<u16, Line>, consensus: Consensus, charters: Charters, board: Arc<Board>) -> Self {
        let states = Semaphore::new(STATES_AT_A_TIME);
        Self { shards, consensus, charters, board, states, answered: OneEach::default() }
    }

    /// Whether a node has a part in a shard: by the charter in effect there, or by the newest, which lets it in next.
    fn takes_part(&self, node: NodeId, shard: u16) -> bool {
        self.board.in_effect(shard).is_some_and(|now| now.nodes(shard).contains(&node))
            || self.charters.newest().group(shard).contains(&node)
    }

    /// Answers one stream of node `from`. `Err`: the peer broke a rule.
    pub(super) async fn serve(&self, mut exchange: Exchange, from: NodeId) -> Result<(), &'static str> {
        const NONE: &str = "a request for an entry or a state that is none";
        let frame = match next_frame(&mut exchange.receiver, REQUEST_BYTES, FRAME_WITHIN).await {
            Ok(Some(frame)) => frame,
            Err(LinkError::TooLong(_)) => return Err(NONE),
            // It went away.
            Ok(None) | Err(_) => return Ok(()),
        };
        let Some((what, shard, log_index)) = asked(&frame) else {
            exchange.abort(CloseCode::Protocol);
            return Err(NONE);
        };
        // Who asks whether it may go has no part in it any more.
        if what != FAREWELL && !self.takes_part(from, shard) {
            tracing::warn!(%from, shard, "a node asks for what a shard has, of whose group it is not: it gets nothing");
            exchange.abort(CloseCode::NotAuthorized);
            return Ok(());
        }
        // Of a state that is damaged itself, entries are given that are sound; the whole of it is not.
        let held = self.consensus.status(GroupId(shard)).is_none_or(|status| status.held.is_some());
        let (answering, line) = (self.answered.begin(from), self.shards.get(&shard).cloned());
        // Nothing said is "not from here, not now": the other node asks the next one, or again.
        let served = match (&answering, line) {
            (Some(_), Some(line)) if what == ENTRY => entry(&mut exchange, line, log_index).await,
            (Some(_), Some(line)) if what == FAREWELL => {
                self.farewell(&mut exchange, line, (from, shard), log_index).await
            }
            (Some(_), Some(line)) if !held && what == APPLIED => applied(&mut exchange, line).await,
            (Some(_), Some(line)) if !held => match self.states.try_acquire() {
                Ok(_permit) => state(&mut exchange, line).await,
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        };
        drop(answering);
        if served.is_ok() && exchange.finish().is_ok() {
            let _ = exchange.delivered(FRAME_WITHIN).await;
        }
        Ok(())
    }
}

impl Repairs {
    /// Sends a node away that has no part in the shard: with what a quorum has cosigned, at least as much as it has itself.
    async fn farewell(
        &self,
        exchange: &mut Exchange,
        line: Line,
        (from, shard): (NodeId, u16),
        leaves: u64,
    ) -> Result<(), ChannelError> {
        if !self.consensus.has_let_go(GroupId(shard), raft_id(from), CONFIRMED_WITHIN).await {
            return Ok(());
        }
        let published = match &*line.checkpoints.borrow() {
            Checkpointed::At(published) if published.size >= leaves => Arc::clone(published),
            _ => return Ok(()),
        };
        let size = published.size;
        let proving = move || caught(|| merkle::consistency_proof(&line.store.view()?, leaves, size));
        let Ok(Ok(proof)) = tokio::task::spawn_blocking(proving).await else { return Ok(()) };
        exchange.send(published.note.as_bytes(), FRAME_WITHIN).await?;
        let proof = std::iter::once(0).chain(proof.iter().flat_map(|hash| hash.0)).collect::<Vec<u8>>();
        exchange.send(&proof, FRAME_WITHIN).await
    }
}

async fn entry(exchange: &mut Exchange, line: Line, log_index: u64) -> Result<(), ChannelError> {
    let looking = tokio::task::spawn_blocking(move || caught(|| line.store.view()?.rows_of(log_index)));
    for row in looking.await.ok().and_then(Result::ok).unwrap_or_default() {
        exchange.send(&frame_of(&row), FRAME_WITHIN).await?;
    }
    Ok(())
}

async fn applied(exchange: &mut Exchange, line: Line) -> Result<(), ChannelError> {
    let looking = tokio::task::spawn_blocking(move || caught(|| line.store.view()?.applied()));
    match looking.await.ok().and_then(Result::ok).flatten() {
        Some(applied) => exchange.send(&applied, FRAME_WITHIN).await,
        None => Ok(()),
    }
}

async fn state(exchange: &mut Exchange, line: Line) -> Result<(), ChannelError> {
    // Before the state is looked at: it has at least as much.
    let note = match &*line.checkpoints.borrow() {
        Checkpointed::At(published) => Some(published.note.clone()),
        Checkpointed::None => None,
        Checkpointed::Fenced => return Ok(()),
    };
    let (pieces, mut read) = mpsc::channel::<io::Result<Vec<u8>>>(PIECES);
    tokio::task::spawn_blocking(move || {
        let sent = caught(|| {
            let (applied, mut state) = line.store.state(note.as_deref())?;
            let mut piece = applied;
            while !piece.is_empty() {
                if pieces.blocking_send(Ok(piece)).is_err() {
                    return Ok(());
                }
                piece = Vec::with_capacity(PIECE_BYTES);
                (&mut state).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            }
            Ok(())
        });
        if let Err(why) = sent {
            let _ = pieces.blocking_send(Err(io::Error::other(why)));
        }
    });
    let (begun, mut pace) = (Instant::now(), LeastPace::of(STATE_BYTES_PER_S_MIN));
    while let Some(piece) = read.recv().await {
        match piece {
            Ok(piece) => {
                exchange.send(&piece, FRAME_WITHIN).await?;
                if !pace.keeps(piece.len(), begun.elapsed()) {
                    return Err(ChannelError::Unreachable("it takes a state too slowly".into()));
                }
            }
            // The end is missing, and the other side sees that.
            Err(error) => return Err(ChannelError::Unreachable(error.to_string())),
        }
    }
    Ok(())
}

fn request(what: u8, shard: u16, log_index: u64) -> Vec<u8> {
    [&[VERSION, what][..], &shard.to_be_bytes(), &log_index.to_be_bytes()].concat()
}

fn asked(frame: &[u8]) -> Option<(u8, u16, u64)> {
    let ([version, what], rest) = frame.split_first_chunk()?;
    let (shard, rest) = rest.split_first_chunk()?;
    let (log_index, rest) = rest.split_first_chunk()?;
    let known = *version == VERSION && [ENTRY, STATE, FAREWELL, APPLIED].contains(what) && rest.is_empty();
    known.then_some((*what, u16::from_be_bytes(*shard), u64::from_be_bytes(*log_index)))
}

fn frame_of(row: &LogRow) -> Vec<u8> {
    [&row.key.0.to_be_bytes()[..], &row.key.1.to_be_bytes(), &row.bytes].concat()
}

fn row(frame: &[u8]) -> Option<LogRow> {
    let (record, rest) = frame.split_first_chunk()?;
    let (offset, bytes) = rest.split_first_chunk()?;
    Some(LogRow { key: (u64::from_be_bytes(*record), u32::from_be_bytes(*offset)), bytes: bytes.to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn requests_and_rows_come_back_and_nothing_else_is_one(
            shard: u16, log_index: u64, key: (u64, u32), bytes: Vec<u8>, noise in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            for what in [ENTRY, STATE, APPLIED] {
                prop_assert_eq!(asked(&request(what, shard, log_index)), Some((what, shard, log_index)));
            }
            prop_assert_eq!(asked(&request(APPLIED + 1, shard, log_index)), None);
            let sent = LogRow { key, bytes };
            prop_assert_eq!(row(&frame_of(&sent)), Some(sent));
            prop_assert!(asked(&noise).is_none() || noise.len() == REQUEST_BYTES && noise[0] == VERSION);
            prop_assert!(row(&noise).is_some() == (noise.len() >= KEY_BYTES));
        }
    }
}
