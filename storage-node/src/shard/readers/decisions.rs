//! Read requests that somebody on this node waits for, and what this replica's own apply decided about them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use ehe::id::NodeId;
use ehe::read::SignedRequest;
use ehe::refusal::Refusal;

use crate::shard::block::{Block, Command, Outcome};

/// Requests that may be waited for at a time.
const WAITING_MAX: usize = 4096;

type Hash = [u8; 32];

/// Proof that a read request was granted inside apply, for this node to release, and that its access record is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    request: Hash,
    record: u64,
}

impl Committed {
    /// Log index of the access record.
    pub fn record(&self) -> u64 {
        self.record
    }

    /// Whether it is the outcome of this request.
    pub fn is_of(&self, request: &SignedRequest) -> bool {
        self.request == hash(request)
    }
}

fn hash(request: &SignedRequest) -> Hash {
    Sha256::digest(&request.0).into()
}

/// What was decided about a read request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// Granted and recorded.
    Granted(Committed),
    /// Granted; this part of a room needs no record.
    Free,
    /// Refused (and recorded, if there is such a room).
    Refused(Refusal),
}

impl Decided {
    /// What an outcome of apply says of a request. `None`: it is the outcome of something else.
    pub(in crate::shard) fn of(request: &SignedRequest, outcome: &Outcome) -> Option<Self> {
        Self::from_outcome(hash(request), outcome)
    }

    fn from_outcome(request: Hash, outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Granted { record: Some(record) } => Some(Self::Granted(Committed { request, record: *record })),
            Outcome::Granted { record: None } => Some(Self::Free),
            Outcome::Refused(why) => Some(Self::Refused(*why)),
            Outcome::Submitted { .. } | Outcome::Known(_) | Outcome::Charter { .. } | Outcome::Voided { .. } => None,
        }
    }
}

/// Who waits for which request. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Decisions {
    /// Of requests that another node is to release nothing is told here.
    me: NodeId,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    by_request: BTreeMap<Hash, VecDeque<oneshot::Sender<Decided>>>,
}

/// A request whose decision is waited for. Dropping it ends that.
#[derive(Debug)]
pub struct Expected {
    decisions: Decisions,
    request: Hash,
    decided: oneshot::Receiver<Decided>,
}

/// A read command of a block that somebody waits for.
pub(in crate::shard) struct Asked {
    block: usize,
    command: usize,
    request: Hash,
}

impl Decisions {
    /// For requests that node `me` is to release.
    pub fn new(me: NodeId) -> Self {
        Self { me, waiting: Arc::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a request from now on: to be called before it is handed to anybody who may order it. `None`: too many do.
    pub fn expect(&self, request: &SignedRequest) -> Option<Expected> {
        let (sender, decided) = oneshot::channel();
        let request = hash(request);
        let mut waiting = self.waiting();
        if waiting.count >= WAITING_MAX {
            return None;
        }
        waiting.count += 1;
        waiting.by_request.entry(request).or_default().push_back(sender);
        drop(waiting);
        Some(Expected { decisions: self.clone(), request, decided })
    }

    /// The commands of these blocks that somebody here waits for.
    pub(in crate::shard) fn asked(&self, blocks: &[Block]) -> Vec<Asked> {
        let waiting = self.waiting();
        let mut asked = Vec::new();
        if waiting.count == 0 {
            return asked;
        }
        for (block, commands) in blocks.iter().enumerate() {
            for (command, what) in commands.commands.iter().enumerate() {
                if let Command::Read(signed, _, node) = what
                    && *node == self.me
                {
                    let request = hash(signed);
                    if waiting.by_request.contains_key(&request) {
                        asked.push(Asked { block, command, request });
                    }
                }
            }
        }
        asked
    }

    /// What became of them, once that is in the state. Each outcome goes to one who waits: a request that came twice is granted once.
    pub(in crate::shard) fn tell(&self, asked: Vec<Asked>, outcomes: &[Vec<Outcome>]) {
        if asked.is_empty() {
            return;
        }
        let mut waiting = self.waiting();
        for Asked { block, command, request } in asked {
            let outcome = outcomes.get(block).and_then(|outcomes| outcomes.get(command));
            let decided = outcome.and_then(|outcome| Decided::from_outcome(request, outcome));
            if let (Some(decided), Some(sender)) = (decided, waiting.take(&request)) {
                // Whoever has gone away asks again.
                let _ = sender.send(decided);
            }
        }
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        let waiting = self.waiting();
        assert_eq!(waiting.count, waiting.by_request.values().map(VecDeque::len).sum::<usize>());
        waiting.count
    }
}

impl Waiting {
    /// The one who has waited longest for a request.
    fn take(&mut self, request: &Hash) -> Option<oneshot::Sender<Decided>> {
        let senders = self.by_request.get_mut(request)?;
        let sender = senders.pop_front();
        if senders.is_empty() {
            self.by_request.remove(request);
        }
        self.count = self.count.saturating_sub(usize::from(sender.is_some()));
        sender
    }
}

impl Expected {
    /// What this replica decided. `None`: there is nobody left to decide.
    pub async fn decided(&mut self) -> Option<Decided> {
        (&mut self.decided).await.ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.decided.close();
        let mut waiting = self.decisions.waiting();
        let Some(senders) = waiting.by_request.get_mut(&self.request) else { return };
        let before = senders.len();
        senders.retain(|sender| !sender.is_closed());
        let (gone, empty) = (before - senders.len(), senders.is_empty());
        if empty {
            waiting.by_request.remove(&self.request);
        }
        waiting.count = waiting.count.saturating_sub(gone);
    }
}

#[cfg(test)]
mod tests {
    use ehe::time::UnixMs;
    use futures::FutureExt;

    use super::*;

    const ME: NodeId = NodeId([1; 8]);

    fn request(n: u8) -> SignedRequest {
        SignedRequest(vec![n; 40])
    }

    fn reader() -> ehe::identity::PublicIdentity {
        certs::identity_file::generate().unwrap().public().clone()
    }

    fn block(reads: &[(u8, NodeId)]) -> Block {
        let reader = reader();
        let command = |(n, node): &(u8, NodeId)| Command::Read(request(*n), reader.clone(), *node);
        Block::new(UnixMs(1), 1, reads.iter().map(command).collect())
    }

    fn granted(record: u64) -> Outcome {
        Outcome::Granted { record: Some(record) }
    }

    fn now(expected: &mut Expected) -> Option<Option<Decided>> {
        expected.decided().now_or_never()
    }

    #[test]
    fn a_request_is_released_by_the_node_that_it_was_ordered_for_and_once() {
        let [here, there] = [ME, NodeId([2; 8])].map(Decisions::new);
        // The same request, over two channels to one node and over one to another.
        let (mut first, mut second) = (here.expect(&request(7)).unwrap(), here.expect(&request(7)).unwrap());
        let mut other = there.expect(&request(7)).unwrap();
        let blocks = [block(&[(9, ME), (7, ME)]), block(&[(7, ME)])];
        let outcomes = [vec![granted(1), granted(2)], vec![Outcome::Refused(Refusal::RequestRepeated)]];
        assert!(there.asked(&blocks).is_empty(), "not for that node to release");
        let asked = here.asked(&blocks);
        assert_eq!(asked.len(), 2, "nobody waits for 9");
        here.tell(asked, &outcomes);
        let Some(Some(Decided::Granted(committed))) = now(&mut first) else { panic!() };
        assert!(committed.record() == 2 && committed.is_of(&request(7)) && !committed.is_of(&request(9)));
        assert_eq!(now(&mut second), Some(Some(Decided::Refused(Refusal::RequestRepeated))));
        assert_eq!(now(&mut other), None);
        assert_eq!((here.count(), there.count()), (0, 1));
    }

    #[test]
    fn who_goes_away_is_forgotten_and_so_many_wait_and_no_more() {
        let here = Decisions::new(ME);
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| here.expect(&request(1)).unwrap()).collect();
        assert!(here.expect(&request(2)).is_none());
        drop(waiting.split_off(2));
        assert_eq!(here.count(), 2);
        let mut late = here.expect(&request(2)).unwrap();
        drop(waiting.remove(0));
        let blocks = [block(&[(1, ME), (2, ME)])];
        here.tell(here.asked(&blocks), &[vec![granted(5), Outcome::Granted { record: None }]]);
        assert!(matches!(now(&mut waiting[0]), Some(Some(Decided::Granted(_)))));
        assert_eq!(now(&mut late), Some(Some(Decided::Free)));
        drop((waiting, late));
        assert_eq!(here.count(), 0);
        assert!(here.asked(&blocks).is_empty());
    }
}
