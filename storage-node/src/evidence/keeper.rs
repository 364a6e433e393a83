//! Who keeps evidence, whoever brings it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ehe::evidence::{Evidence, Finding, Verdict, judge};
use ehe::id::{AllianceId, Hash, NodeId};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};

use super::shelf::{Kept, NotKept, Shelf};
use crate::checkpoint::{Board, Distrusted};
use crate::stats::Stats;

/// What became of what another node told.
#[derive(Debug)]
pub enum Taken {
    /// It was kept.
    New,
    /// It says nothing new, or there is no room.
    Old,
}

/// Keeps evidence. Clones are the same.
#[derive(Debug, Clone)]
pub struct Keeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    alliance: AllianceId,
    shelf: Mutex<Shelf>,
    /// How many pieces there are.
    count: watch::Sender<usize>,
    board: Arc<Board>,
    stats: Arc<Stats>,
    /// Judging takes as many signatures as the charters have: one at a time, so that nobody's evidence takes more than one thread.
    judging: Semaphore,
}

impl Keeper {
    /// Keeps it on this shelf. Whoever signed two logs by what lies there already is not counted from the start.
    pub fn new(alliance: AllianceId, shelf: Shelf, board: Arc<Board>, stats: Arc<Stats>) -> Self {
        let count = shelf.kept().len();
        for kept in shelf.kept() {
            distrust(&board, &kept.verdict);
        }
        let this = Inner {
            alliance,
            shelf: Mutex::new(shelf),
            count: watch::Sender::new(count),
            board,
            stats,
            judging: Semaphore::new(1),
        };
        this.counted(count);
        Self(Arc::new(this))
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much is kept; it only grows.
    pub fn count(&self) -> usize {
        self.shelf().kept().len()
    }

    /// Tells when there is more.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.0.count.subscribe()
    }

    /// The piece of this place, from 0.
    pub fn at(&self, place: usize) -> Option<Kept> {
        self.look(place).1
    }

    /// How much is kept, and the piece of this place: of one moment.
    pub fn look(&self, place: usize) -> (usize, Option<Kept>) {
        let shelf = self.shelf();
        let kept = shelf.kept();
        (kept.len(), kept.get(place).cloned())
    }

    /// Keeps what this node found. Waits for the disk.
    pub fn found(&self, evidence: &Evidence, of: NodeId) {
        let bytes = evidence.to_vec();
        match judge(&bytes).map_err(NotKept::from).and_then(|verdict| self.put(bytes, verdict)) {
            Ok(_) | Err(NotKept::NothingNew) => {}
            Err(why) => {
                tracing::error!(node = %of, %why, "what contradicts a node's statement cannot be kept as evidence")
            }
        }
    }

    /// Judges and keeps what another node told. The error is that node's fault.
    pub async fn told(&self, bytes: Vec<u8>) -> Result<Taken, NotKept> {
        let hash = Hash(Sha256::digest(&bytes).into());
        if self.shelf().has(&hash) {
            return Ok(Taken::Old);
        }
        // Never closed.
        let Ok(_one) = self.0.judging.acquire().await else { return Ok(Taken::Old) };
        let (this, wanted) = (self.clone(), self.0.alliance);
        let judged = tokio::task::spawn_blocking(move || {
            let evidence = Evidence::decode(&bytes).map_err(ehe::evidence::EvidenceError::from)?;
            match evidence.claimed_alliance() {
                Some(other) if other != wanted => Err(NotKept::OtherAlliance(other)),
                _ => this.put(bytes, evidence.judge()?),
            }
        });
        match judged.await {
            Ok(Ok(_)) => Ok(Taken::New),
            Ok(Err(NotKept::NothingNew | NotKept::Full)) | Err(_) => Ok(Taken::Old),
            Ok(Err(why)) => Err(why),
        }
    }

    fn put(&self, bytes: Vec<u8>, verdict: Verdict) -> Result<Kept, NotKept> {
        let mut shelf = self.shelf();
        let kept = shelf.keep(bytes, verdict)?;
        let count = shelf.kept().len();
        drop(shelf);
        say(&kept);
        distrust(&self.0.board, &kept.verdict);
        self.0.counted(count);
        Ok(kept)
    }
}

impl Inner {
    fn counted(&self, count: usize) {
        Stats::set(&self.stats.evidence, u64::try_from(count).unwrap_or(u64::MAX));
        // Two may come at once.
        self.count.send_if_modified(|before| std::mem::replace(before, count.max(*before)) < count);
    }
}

/// Nothing that such a node says of the log counts from now on.
fn distrust(board: &Board, verdict: &Verdict) {
    if verdict.finding() == Finding::SignedBoth {
        let (shard, incarnation) = (verdict.shard, verdict.incarnation);
        board.distrust(verdict.accused().into_iter().map(|node| Distrusted { shard, incarnation, node }));
    }
}

fn say(kept: &Kept) {
    let verdict = &kept.verdict;
    let nodes: Vec<String> = verdict.accused().iter().map(ToString::to_string).collect();
    tracing::error!(
        shard = verdict.shard, incarnation = verdict.incarnation, kind = verdict.kind.as_str(), finding = ?verdict.finding(),
        nodes = nodes.join(" "), file = kept.file.as_ref().map(|file| file.display().to_string()),
        "evidence that nodes signed what contradicts each other: `ehe verify --evidence FILE` tells what is proven"
    );
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::shelf::tests::pair;
    use super::*;
    use crate::test_members::seats;

    #[test]
    fn whom_evidence_on_disk_proves_guilty_is_not_counted_from_the_start_and_whom_it_only_accuses_is() {
        let dir = tempfile::tempdir().unwrap();
        let seats = seats("ABC", None);
        let alliance = seats[0].charter.alliance_id();
        let mut shelf = Shelf::open(dir.path().into(), alliance).unwrap();
        for bytes in [pair(&seats[0], &seats[0], 3, 9, [1, 2]), pair(&seats[1], &seats[2], 3, 9, [1, 2])] {
            let verdict = judge(&bytes).unwrap();
            shelf.keep(bytes, verdict).unwrap();
        }
        let again = Shelf::open(dir.path().into(), alliance).unwrap();
        let (board, stats) = (Arc::new(Board::default()), Arc::new(Stats::default()));
        let keeper = Keeper::new(alliance, again, Arc::clone(&board), Arc::clone(&stats));
        let guilty = Distrusted { shard: 0, incarnation: 3, node: seats[0].id };
        assert_eq!(board.take(Some(Instant::now())).unwrap().distrusted, [guilty].into());
        assert_eq!((keeper.count(), keeper.at(2).is_none()), (2, true));
        assert!(stats.snapshot().contains(&("evidence", 2)));
    }
}
