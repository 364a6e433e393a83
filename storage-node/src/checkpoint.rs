//! Checkpoints: what was applied is signed once it is remembered, and shown to whoever waits for it.
//!
//! ```text
//!  machines ── show(size, root) ─► Board ─► one thread: extends what was cosigned? ─► cosign file, one sync ─► sign ─► watch
//! ```
//!
//! The board keeps only the newest state of each shard, so however many blocks were applied meanwhile, one round makes one
//! checkpoint for each shard, with one sync for all.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::watch;

use ehe::charter::VerifiedCharter;
use ehe::checkpoint::{Checkpoint, Signer};
use ehe::id::Hash;
use ehe::identity::Identity;
use ehe::merkle;

use crate::clock::Clock;
use crate::cosign::{CosignError, CosignFile, Cosigned};
use crate::shard::{Recent, Store, StoreError};
use crate::stats::Stats;

/// A shard's log as of the last block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Leaves.
    pub size: u64,
    /// Root.
    pub root: Hash,
    /// Incarnation of the log.
    pub incarnation: u32,
    /// Rooms.
    pub rooms: u64,
}

/// Where machines show what they applied.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<BoardState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct BoardState {
    newest: BTreeMap<u16, Applied>,
    stopped: bool,
}

impl Board {
    /// Shows a shard's newest state.
    pub fn show(&self, shard: u16, applied: Applied) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).newest.insert(shard, applied);
        self.changed.notify_all();
    }

    /// Ends [`Checkpointer::run`].
    pub fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.changed.notify_all();
    }

    /// Waits for news; `None` once it is stopped.
    fn take(&self) -> Option<BTreeMap<u16, Applied>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.newest.is_empty() && !state.stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped { None } else { Some(std::mem::take(&mut state.newest)) }
    }
}

/// A checkpoint that may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Leaves.
    pub size: u64,
    /// Rooms, when it was made.
    pub rooms: u64,
    /// The signed note.
    pub note: String,
}

/// The newest checkpoint of a shard.
#[derive(Debug, Clone, Default)]
pub enum Checkpointed {
    /// None yet.
    #[default]
    None,
    /// This one.
    At(Arc<Published>),
    /// There will be no further one until the node is started again.
    Fenced,
}

impl Checkpointed {
    /// Its size; 0 where there is none.
    pub fn size(&self) -> u64 {
        match self {
            Self::At(published) => published.size,
            Self::None | Self::Fenced => 0,
        }
    }

    /// Rooms when it was made; 0 where there is none.
    pub fn rooms(&self) -> u64 {
        match self {
            Self::At(published) => published.rooms,
            Self::None | Self::Fenced => 0,
        }
    }
}

/// Why a shard is checkpointed no more.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Cosign(#[from] CosignError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the checkpoint cannot be signed: {0}")]
    Note(#[from] ehe::note::NoteError),
}

/// A shard that is checkpointed.
pub struct Line {
    /// Its state, for consistency proofs.
    pub store: Store,
    /// Its newest leaves, for those that begin among them.
    pub recent: Recent,
    /// Where checkpoints are shown.
    pub shown: watch::Sender<Checkpointed>,
}

/// Makes checkpoints. Runs on a thread of its own.
pub struct Checkpointer {
    /// What was cosigned.
    pub file: CosignFile,
    /// The shards.
    pub lines: BTreeMap<u16, Line>,
    /// Signs.
    pub identity: Arc<Identity>,
    /// This node's name in the charter.
    pub name: String,
    /// Names the logs and the quorum.
    pub charter: Arc<VerifiedCharter>,
    /// For the time of cosignatures.
    pub clock: Clock,
    /// Counters.
    pub stats: Arc<Stats>,
}

impl Checkpointer {
    /// Works until the board is stopped.
    pub fn run(mut self, board: &Board) {
        while let Some(news) = board.take() {
            self.round(&news);
        }
    }

    fn round(&mut self, news: &BTreeMap<u16, Applied>) {
        let mut extending = Vec::new();
        for (shard, applied) in news {
            match self.extends(*shard, applied) {
                Ok(None) => {}
                Ok(Some(cosigned)) => extending.push((*shard, cosigned)),
                Err(why) => self.fence(*shard, &why),
            }
        }
        if let Err(why) = self.file.persist(&extending) {
            let why = Refused::from(why);
            for (shard, _) in &extending {
                self.fence(*shard, &why);
            }
            return;
        }
        for (shard, cosigned) in extending {
            let rooms = news.get(&shard).map_or(0, |applied| applied.rooms);
            match self.sign(shard, &cosigned, rooms) {
                Ok(published) => {
                    Stats::add(&self.stats.checkpoints, 1);
                    if let Some(line) = self.lines.get(&shard) {
                        line.shown.send_replace(Checkpointed::At(Arc::new(published)));
                    }
                }
                Err(why) => self.fence(shard, &why),
            }
        }
    }

    /// Proves that the log extends what this node put its name to. `None`: there is nothing to sign.
    fn extends(&self, shard: u16, applied: &Applied) -> Result<Option<Cosigned>, Refused> {
        let Some(line) = self.lines.get(&shard) else { return Ok(None) };
        let Applied { size, root, incarnation, .. } = *applied;
        if matches!(*line.shown.borrow(), Checkpointed::Fenced) {
            return Ok(None);
        }
        if let Some(old) = self.file.newest(shard) {
            let contradicts = || CosignError::Contradicts { shard, size, cosigned: old.size };
            if (incarnation, size) < (old.incarnation, old.size) {
                return Err(contradicts().into());
            }
            // A later incarnation is another log: what it keeps of this one, its recovery record says.
            if incarnation == old.incarnation {
                let proof = match line.recent.consistency(old.size, size) {
                    Some(proof) => proof,
                    None => merkle::consistency_proof(&line.store.view()?, old.size, size)?,
                };
                merkle::verify_consistency((old.size, &old.root), (size, &root), &proof).map_err(|_| contradicts())?;
            }
        }
        Ok((size > 0).then_some(Cosigned { incarnation, size, root }))
    }

    fn sign(&self, shard: u16, cosigned: &Cosigned, rooms: u64) -> Result<Published, Refused> {
        let checkpoint = Checkpoint {
            origin: self.charter.origin(shard, cosigned.incarnation),
            size: cosigned.size,
            root: cosigned.root,
            charter_version: self.charter.version(),
        };
        let signer = Signer { name: &self.name, key: self.identity.sign_key() };
        let note = checkpoint.sign(signer, self.clock.now())?;
        Ok(Published { size: cosigned.size, rooms, note: note.to_string() })
    }

    fn fence(&self, shard: u16, why: &Refused) {
        tracing::error!(shard, %why, "the shard is checkpointed no more, and confirms nothing more");
        Stats::add(&self.stats.fenced, 1);
        if let Some(line) = self.lines.get(&shard) {
            line.shown.send_replace(Checkpointed::Fenced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_keeps_the_newest_state_of_each_shard_and_wakes_who_waits() {
        let board = Arc::new(Board::default());
        let at = |size| Applied { size, root: Hash::ZERO, incarnation: 0, rooms: 0 };
        board.show(1, at(1));
        board.show(1, at(2));
        board.show(2, at(9));
        assert_eq!(board.take(), Some(BTreeMap::from([(1, at(2)), (2, at(9))])));
        let waiting = {
            let board = Arc::clone(&board);
            std::thread::spawn(move || board.take())
        };
        board.show(1, at(3));
        assert_eq!(waiting.join().unwrap(), Some(BTreeMap::from([(1, at(3))])));
        board.stop();
        assert_eq!(board.take(), None);
    }
}
