//! A log that is another than the one that was remembered: the records by which the members said what was kept of that one.

use ehe::checkpoint::Checkpoint;
use ehe::id::{NodeId, RoomId};
use ehe::limits::RESTORATIONS_PER_ANSWER_MAX;
use ehe::note::Note;
use ehe::restoration::{Moved, SignedRestoration, VerifiedRestoration, moved};
use ehe::run::SeenCheckpoint;
use ehe::wire::{Head, Request, Response};

use crate::error::Error;
use crate::memory::{MemoryError, RoomMemory};
use crate::session::{Session, kind};
use crate::when;

/// A log is restored this often at most, for all that a reader asks.
const INCARNATIONS_MAX: usize = 1024;

impl Session {
    /// Where records lead from what is remembered of a room to the log of this head, if that is of a later incarnation. `None`: it is the
    /// same log. Nothing of the head is verified here but that the records lead to it.
    pub(crate) async fn restored(
        &mut self,
        room: RoomId,
        known: Option<&RoomMemory>,
        head: &Head,
    ) -> Result<Option<Moved>, Error> {
        let shown = Note::parse(&head.last.checkpoint).ok().and_then(|note| Checkpoint::parse(&note).ok());
        // A note that is none, verification tells of.
        let Some((known, shown)) = known.zip(shown.map(|shown| shown.seen())) else { return Ok(None) };
        let shard = room.shard(self.charter().shard_count());
        let of = |origin: &str| self.charter().incarnation_of(origin, shard);
        let (Some(from), Some(to)) = (of(&known.origin), of(&shown.origin)) else { return Ok(None) };
        if from == to {
            return Ok(None);
        }
        let other = |why: String| {
            Error::Memory(MemoryError::OtherLog { known: known.origin.clone(), shown: shown.origin.clone(), why })
        };
        if to < from {
            return Err(other("a log never goes back to an earlier incarnation".into()));
        }
        let spoke = self.nodes.last();
        let group = self.charter().group(shard).to_vec();
        let nodes: Vec<NodeId> =
            spoke.into_iter().chain(group.into_iter().filter(|node| Some(*node) != spoke)).collect();
        let mut last = None;
        for node in nodes {
            match self.led_by(node, shard, (from, to), (known, &shown)).await {
                Ok(moved) => return Ok(Some(moved)),
                // The first node's word tells more than that another one is not reached.
                Err(why) => last = last.or(Some(why)),
            }
        }
        Err(other(last.map_or_else(|| "no node was asked".into(), |why| why.to_string())))
    }

    async fn led_by(
        &mut self,
        node: NodeId,
        shard: u16,
        (from, to): (u32, u32),
        (known, shown): (&RoomMemory, &SeenCheckpoint),
    ) -> Result<Moved, Error> {
        let mut records: Vec<VerifiedRestoration> = Vec::new();
        let mut next = from;
        while next < to && records.len() < INCARNATIONS_MAX {
            let answer = self.records_at(node, shard, next).await?;
            if answer.is_empty() {
                break;
            }
            for record in answer {
                let version = record.read()?.charter_version;
                if version > self.charter().version() {
                    self.fetch_charters(version).await?;
                }
                let charters = self.credentials().charter_chain().verify_each(self.charter().alliance_id());
                let charters =
                    charters.map_err(|why| Error::Charters { node: self.nodes.name_of(node), why: why.into() })?;
                let record = record.verify(shard, &charters)?;
                next = record.incarnation();
                records.push(record);
            }
        }
        let moved = moved(&records, from, (&known.seen(), known.charter))?;
        moved.shows(shown)?;
        Ok(moved)
    }

    async fn records_at(&mut self, node: NodeId, shard: u16, from: u32) -> Result<Vec<SignedRestoration>, Error> {
        let mut answers = self.nodes.ask_node(node, &Request::Restorations(shard, from)).await?;
        match answers.next().await? {
            Response::Restorations(records) if records.len() <= RESTORATIONS_PER_ANSWER_MAX => {
                let decoded = records.iter().map(|record| SignedRestoration::decode(record));
                Ok(decoded.collect::<Result<_, _>>()?)
            }
            other => Err(answers.unexpected(kind(&other))),
        }
    }
}

/// What was remembered and is lost, in words; `None` where nothing is.
pub fn lost(moved: &Moved, before: &RoomMemory, entries: u64) -> Option<String> {
    let gone: Vec<String> = moved
        .lost
        .iter()
        .map(|lost| {
            format!(
                "leaves {} to {} of incarnation {} (all that was accepted until {} was kept; decided on {})",
                lost.from,
                lost.until.saturating_sub(1),
                lost.incarnation,
                when::shown(lost.kept_until),
                when::shown(lost.at)
            )
        })
        .collect();
    if gone.is_empty() {
        return None;
    }
    Some(format!(
        "the alliance lost a part of the ledger and began it again from a backup, as a majority of its members signed: of the log that was \
         seen, {} are gone. This room had {} entries when it was last seen{}; it has {entries} now. What is missing has to be made again by \
         whoever made it: grants, revocations and readings that no gateway holds any more",
        gone.join(", "),
        before.entries,
        before.accepted.map(|at| format!(", the last of them accepted on {}", when::shown(at))).unwrap_or_default()
    ))
}
