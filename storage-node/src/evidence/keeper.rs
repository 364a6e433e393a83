//! Who keeps evidence, whoever brings it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ehe::evidence::{Contradiction, EvidenceError, Finding, Verdict};
use ehe::id::{Hash, NodeId};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};

use super::shelf::{Kept, NotKept, Shelf};
use crate::charters::Charters;
use crate::checkpoint::{Board, Distrusted};
use crate::stats::Stats;

/// What this node found and waits for a charter, at most: of each node of a shard it finds two pieces.
const WAITING_MAX: usize = 256;

/// What became of what another node told.
#[derive(Debug)]
pub enum Taken {
    /// It was kept.
    New,
    /// It says nothing new, or there is no room.
    Old,
    /// It names a later charter than this node has: it can be judged when that has come.
    Later,
}

/// Keeps evidence. Clones are the same.
#[derive(Debug, Clone)]
pub struct Keeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Under which it is judged.
    charters: Charters,
    shelf: Mutex<Shelf>,
    /// What this node found under a charter that a shard's log brought and nobody has shown yet: it is found once.
    waiting: Mutex<Vec<(Contradiction, NodeId)>>,
    /// How many pieces there are.
    count: watch::Sender<usize>,
    board: Arc<Board>,
    stats: Arc<Stats>,
    /// One at a time, so that nobody's evidence takes more than one thread.
    judging: Semaphore,
}

impl Keeper {
    /// Keeps it on this shelf. Whoever signed two logs by what lies there already is not counted from the start.
    pub fn new(charters: Charters, shelf: Shelf, board: Arc<Board>, stats: Arc<Stats>) -> Self {
        let count = shelf.kept().len();
        for kept in shelf.kept() {
            distrust(&board, &kept.verdict);
        }
        let this = Inner {
            charters,
            shelf: Mutex::new(shelf),
            waiting: Mutex::default(),
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

    /// Keeps what this node found. Waits for the disk. What names a charter that this node does not have yet is kept once it has
    /// ([`Self::charters_came`]).
    pub fn found(&self, found: &Contradiction, of: NodeId) {
        if found.newest_charter().is_ok_and(|named| named > self.0.charters.version()) {
            self.waits(found, of);
            return;
        }
        let judged = found.judge(&self.0.charters.each()).map_err(NotKept::from);
        match judged.and_then(|verdict| self.put(found.to_vec(), verdict)) {
            Ok(_) | Err(NotKept::NothingNew) => {}
            Err(why) => {
                tracing::error!(node = %of, %why, "what contradicts a node's statement cannot be kept as evidence")
            }
        }
    }

    fn waits(&self, found: &Contradiction, of: NodeId) {
        let known = self.0.charters.version();
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING_MAX {
            tracing::error!(node = %of, "what contradicts a node's statement cannot be kept as evidence: too much waits for a charter");
            return;
        }
        waiting.push((found.clone(), of));
        drop(waiting);
        // It may have come in this moment.
        if self.0.charters.version() > known {
            self.charters_came();
        }
    }

    /// Keeps what waited for a charter that is here now. Waits for the disk.
    pub fn charters_came(&self) {
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.iter().for_each(|(found, of)| self.found(found, *of));
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(Contradiction, NodeId)>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges and keeps what another node told. The error is that node's fault.
    pub async fn told(&self, bytes: Vec<u8>) -> Result<Taken, NotKept> {
        let hash = Hash(Sha256::digest(&bytes).into());
        if self.shelf().has(&hash) {
            return Ok(Taken::Old);
        }
        // Never closed.
        let Ok(_one) = self.0.judging.acquire().await else { return Ok(Taken::Old) };
        let this = self.clone();
        let judged = tokio::task::spawn_blocking(move || {
            let charters = this.0.charters.each();
            let known = charters.last().map_or(0, |newest| newest.version());
            let told = Contradiction::decode(&bytes).map_err(EvidenceError::from)?;
            if told.newest_charter()? > known {
                return Ok(Taken::Later);
            }
            this.put(bytes, told.judge(&charters)?).map(|_| Taken::New)
        });
        match judged.await {
            Ok(Ok(taken)) => Ok(taken),
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
        "evidence that nodes signed what contradicts each other: `ehe-node evidence` makes of it a file that proves it to anybody"
    );
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ehe::charter::{CharterChain, SignedCharter};

    use super::super::shelf::tests::{judged, pair, said};
    use super::*;
    use crate::test_members::{seats, seats_and_members};

    #[test]
    fn whom_evidence_on_disk_proves_guilty_is_not_counted_from_the_start_and_whom_it_only_accuses_is() {
        let dir = tempfile::tempdir().unwrap();
        let seats = seats("ABC", None);
        let charters = Charters::of_chain(&CharterChain(vec![seats[0].charter.signed().clone()]), dir.path());
        let mut shelf = Shelf::open(dir.path().into(), &charters.each()).unwrap();
        for bytes in [pair(&seats[0], &seats[0], 3, 9, [1, 2]), pair(&seats[1], &seats[2], 3, 9, [1, 2])] {
            let verdict = judged(&seats[0], &bytes);
            shelf.keep(bytes, verdict).unwrap();
        }
        let again = Shelf::open(dir.path().into(), &charters.each()).unwrap();
        let (board, stats) = (Arc::new(Board::default()), Arc::new(Stats::default()));
        let keeper = Keeper::new(charters, again, Arc::clone(&board), Arc::clone(&stats));
        let guilty = Distrusted { shard: 0, incarnation: 3, node: seats[0].id };
        assert_eq!(board.take(Some(Instant::now())).unwrap().distrusted, [guilty].into());
        assert_eq!((keeper.count(), keeper.at(2).is_none()), (2, true));
        assert!(stats.snapshot().contains(&("evidence", 2)));
    }

    #[tokio::test]
    async fn what_names_a_charter_that_has_not_come_yet_is_kept_when_it_has_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let (seats, members) = seats_and_members("ABC", None);
        let mut chain = CharterChain(vec![seats[0].charter.signed().clone()]);
        let charters = Charters::of_chain(&chain, dir.path());
        let shelf = Shelf::open(dir.path().join("evidence"), &charters.each()).unwrap();
        let keeper = Keeper::new(charters.clone(), shelf, Arc::default(), Arc::default());
        let told = said(&seats[0], [1, 2], 2);
        for _ in 0..2 {
            assert!(matches!(keeper.told(told.clone()).await, Ok(Taken::Later)));
        }
        assert_eq!(keeper.count(), 0);
        let mut second = seats[0].charter.charter().clone();
        (second.version, second.predecessor) = (2, Some(chain.0[0].hash()));
        let mut second = SignedCharter::unsigned(&second).unwrap();
        members.iter().for_each(|member| second.sign(member).unwrap());
        chain.0.push(second.clone());
        assert!(charters.take_up(&chain).unwrap());
        assert!(matches!(keeper.told(told.clone()).await, Ok(Taken::New)));
        assert!(matches!(keeper.told(told).await, Ok(Taken::Old)));
        // And a charter that there is none of is nobody's fault either: it may come.
        assert!(matches!(keeper.told(said(&seats[0], [1, 3], 9)).await, Ok(Taken::Later)));
        assert!(keeper.told(said(&seats[0], [1, 3], 0)).await.is_err(), "there is no charter 0");
        // What this node itself finds under a charter that only a shard's log has brought so far is found once, and waits for it.
        let own = Contradiction::decode(&said(&seats[1], [1, 2], 3)).unwrap();
        keeper.found(&own, seats[1].id);
        keeper.charters_came();
        assert_eq!(keeper.count(), 1);
        let mut third = second.read().unwrap();
        (third.version, third.predecessor) = (3, Some(second.hash()));
        let mut third = SignedCharter::unsigned(&third).unwrap();
        members.iter().for_each(|member| third.sign(member).unwrap());
        chain.0.push(third);
        assert!(charters.take_up(&chain).unwrap());
        keeper.charters_came();
        assert_eq!(keeper.count(), 2);
        // Once the node is without that charter, the piece is left alone.
        chain.0.pop();
        chain.0.pop();
        let without = Charters::of_chain(&chain, dir.path()).each();
        assert!(Shelf::open(dir.path().join("evidence"), &without).unwrap().kept().is_empty());
        assert_eq!(Shelf::open(dir.path().join("evidence"), &charters.each()).unwrap().kept().len(), 2);
    }
}
