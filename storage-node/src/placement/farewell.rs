//! What a node has of a shard that lives elsewhere now: kept for a while, then given up, once those who have the shard show that they have
//! all of it.
//!
//! ```text
//! the charters this node knows give it no part, and who leads says that it is no member
//!   ─► for `placement.keep_moved_s`: kept, as it is
//!   ─► this node falls silent in the group ─► asks who leads: am I let go? ─► a checkpoint of a quorum of the others, which extends all
//!      that is here ─► log and state go (crate::consensus)
//! ```
//!
//! What stays of the shard: the vote and where its log ended (see [`Consensus::step_aside`]), in the node's one file of cosigned checkpoints
//! the newest that this node put its name to, and all evidence. So a node that is given the shard again neither votes twice nor cosigns a
//! branch: it signs nothing before its log extends that checkpoint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ehe::id::NodeId;
use ehe::merkle::{self, Peaks};
use ehe::wire::MovedStatus;
use tokio_util::sync::CancellationToken;

use crate::charters::Charters;
use crate::checkpoint::Board;
use crate::consensus::{Consensus, GroupId, LeaveError};
use crate::node::node_id;
use crate::peers::{Alliance, Others};
use crate::scrub::{Elsewhere, caught};
use crate::shard::{InEffect, Notary, Store, StoreError};

/// Looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What this node still has of shards that live elsewhere, for the status. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Moved(Arc<Mutex<BTreeMap<u16, MovedStatus>>>);

impl Moved {
    /// As of now.
    pub fn now(&self) -> Vec<MovedStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn set(&self, shard: u16, status: Option<MovedStatus>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(status) => drop(all.insert(shard, status)),
            None => drop(all.remove(&shard)),
        }
    }
}

/// A shard as the node sees it that may give it up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Leaving {
    /// It has something of it.
    pub has_any: bool,
    /// A charter gives it a part: the newest, or one since the one that is in effect where the shard lives.
    pub given: bool,
    /// Who leads the shard says that it goes on without this node.
    pub goes_on: bool,
    /// A fault stopped it here, or it is held: what is damaged is looked at by people.
    pub stopped: bool,
    /// For so long it has been out.
    pub out_for: Duration,
}

/// What is to be done with what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Nothing: it is this node's to have, or there is nothing.
    Stay,
    /// It is kept, because of this.
    Keep(Kept),
    /// Ask whether it may go.
    Ask,
}

/// Why it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Who leads the shard is not heard of, or has not let this node go.
    Member,
    /// It is damaged.
    Stopped,
    /// For so long still.
    For(Duration),
}

impl Leaving {
    /// Pure. `keep`: so long it is kept in any case.
    pub fn next(&self, keep: Duration) -> Leave {
        match self {
            Self { has_any: false, .. } | Self { given: true, .. } => Leave::Stay,
            Self { goes_on: false, .. } => Leave::Keep(Kept::Member),
            Self { stopped: true, .. } => Leave::Keep(Kept::Stopped),
            Self { out_for, .. } => match keep.checked_sub(*out_for).filter(|left| !left.is_zero()) {
                Some(left) => Leave::Keep(Kept::For(left)),
                None => Leave::Ask,
            },
        }
    }
}

/// Gives one shard up, when it may.
pub struct Leaver {
    /// The shard.
    pub shard: u16,
    /// Who has a part in it.
    pub consensus: Consensus,
    /// What its log says of charters.
    pub board: Arc<Board>,
    /// What charters there are.
    pub charters: Charters,
    /// What the others say.
    pub alliance: Arc<Alliance>,
    /// Asks them.
    pub others: Arc<Others>,
    /// What is here.
    pub store: Store,
    /// Judges their checkpoints.
    pub notary: Notary,
    /// So long it is kept.
    pub keep: Duration,
    /// Shown to whoever asks for the status.
    pub shown: Moved,
}

/// Why it is not given up yet.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error(transparent)]
    Consensus(#[from] LeaveError),
    #[error("what is here cannot be read: {0}")]
    Unreadable(String),
    #[error("the others do not show yet that they have all of it: {0}")]
    NotShown(String),
    #[error("it was interrupted")]
    Interrupted,
}

/// How far what is here goes.
#[derive(Clone, Copy)]
struct Here {
    incarnation: u32,
    leaves: u64,
    root: ehe::id::Hash,
}

impl Leaver {
    /// Works until the node stops.
    pub async fn run(self, stop: CancellationToken) {
        let mut out_since: Option<Instant> = None;
        loop {
            let seen = self.look(out_since);
            if !seen.has_any || seen.given || !seen.goes_on {
                out_since = None;
            } else {
                out_since = out_since.or_else(|| Some(Instant::now()));
            }
            let why = match seen.next(self.keep) {
                Leave::Stay => None,
                Leave::Keep(Kept::Member) => {
                    Some("kept: whoever leads the shard has not said that it goes on without this node".to_owned())
                }
                Leave::Keep(Kept::Stopped) => Some("kept: a fault stopped it, or what is here is damaged".to_owned()),
                Leave::Keep(Kept::For(left)) => Some(format!("kept for {} s more", left.as_secs().saturating_add(1))),
                Leave::Ask => {
                    let left = tokio::select! {
                        () = stop.cancelled() => return,
                        left = self.leave() => left,
                    };
                    left.err().map(|why| {
                        tracing::debug!(shard = self.shard, %why, "what is here of a shard that moved away is kept");
                        format!("kept: {why}")
                    })
                }
            };
            let leaves = || self.board.size(self.shard);
            self.shown.set(self.shard, why.map(|why| MovedStatus { shard: self.shard, leaves: leaves(), why }));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn me(&self) -> NodeId {
        node_id(self.consensus.node_id())
    }

    /// By the charter of a version or by a later one. Of one that this node does not know it is to be feared.
    fn is_given(&self, by: u32) -> bool {
        let me = self.me();
        self.charters.of(by).is_none_or(|charter| charter.group(self.shard).contains(&me))
            || self.charters.given_since(by, self.shard).any(|node| node == me)
    }

    fn look(&self, out_since: Option<Instant>) -> Leaving {
        let Some(status) = self.consensus.status(GroupId(self.shard)) else { return Leaving::default() };
        let goes_on = self.alliance.goes_on_without(self.shard, self.me());
        Leaving {
            has_any: status.last_index.is_some() || status.applied.is_some(),
            given: self.is_given(goes_on.unwrap_or(self.charters.version())),
            goes_on: goes_on.is_some(),
            stopped: status.fault.is_some() || status.held.is_some(),
            out_for: out_since.map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }

    async fn leave(&self) -> Result<(), NotYet> {
        let aside = self.consensus.step_aside(GroupId(self.shard)).await?;
        let store = self.store.clone();
        let here = move || {
            caught(|| {
                let view = store.view()?;
                let shard = view.shard();
                let root = Peaks::load(&view, shard.leaves)?.root();
                Ok::<_, StoreError>(Here { incarnation: shard.incarnation, leaves: shard.leaves, root })
            })
        };
        let here = tokio::task::spawn_blocking(here).await.map_err(|_| NotYet::Interrupted)?;
        let here = here.map_err(NotYet::Unreadable)?;
        let mut why = "nobody has the shard".to_owned();
        for node in self.others.nodes(self.shard) {
            match self.shown_by(node, here).await {
                Ok(version) => {
                    aside.forget(version).await?;
                    under(&self.board, &self.charters, self.shard, version);
                    tracing::info!(
                        shard = self.shard,
                        leaves = here.leaves,
                        charter = version,
                        "the shard lives elsewhere, and those who have it show all that was here: its log and state are removed"
                    );
                    return Ok(());
                }
                Err(not) => why = format!("node {node}: {not}"),
            }
        }
        Err(NotYet::NotShown(why))
    }

    /// The charter under which a quorum that this node is none of has cosigned all that is here, by the word of the node that leads.
    async fn shown_by(&self, node: NodeId, here: Here) -> Result<u32, String> {
        let (note, proof) = self.others.may_go(node, self.shard, here.leaves).await?;
        shows_all((&self.notary, self.shard), here, (&note, &proof), |version| self.is_given(version))
    }
}

/// Whether a checkpoint and a proof show that others have all that is here, and under which charter: a node that lies about who leads, about
/// its log or about who let this node go, has no quorum that says so with it.
fn shows_all(
    (notary, shard): (&Notary, u16),
    here: Here,
    (note, proof): (&str, &[ehe::id::Hash]),
    is_given: impl Fn(u32) -> bool,
) -> Result<u32, String> {
    let attested = notary.verify(shard, note).map_err(|error| error.to_string())?;
    if attested.incarnation != here.incarnation {
        return Err("its log is of another incarnation".into());
    }
    let (small, large) = ((here.leaves, &here.root), (attested.size, &attested.root));
    merkle::verify_consistency(small, large, proof).map_err(|_| "its log does not extend what is here")?;
    // Told by a charter that gives this node no part, and by none since.
    if is_given(attested.charter_version) {
        return Err("it has cosigned under a charter that gives this node a part".into());
    }
    Ok(attested.charter_version)
}

/// A shard that was given up here is under the charter that was in effect then, whatever the log says of it that comes anew.
fn under(board: &Board, charters: &Charters, shard: u16, version: u32) {
    if let Some(charter) = charters.of(version) {
        board.under(shard, InEffect { charter, before: None, committed: version });
    }
}

/// The same, when the node starts.
pub fn under_what_was_left(consensus: &Consensus, board: &Board, charters: &Charters) {
    for group in consensus.groups() {
        if let Some(version) = consensus.left_under(group) {
            under(board, charters, group.0, version);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ehe::checkpoint::{Checkpoint, Signer};
    use ehe::id::Hash;
    use ehe::merkle::{NodeAt, consistency_proof, leaf_hash};
    use ehe::time::UnixMs;
    use tokio::sync::watch;

    use super::*;
    use crate::checkpoint::Checkpointed;
    use crate::test_members::{Seat, seats};

    const NOW: UnixMs = UnixMs(1_790_000_000_000);

    /// A log, with the root of each size.
    #[derive(Default)]
    struct Log(BTreeMap<NodeAt, Hash>, Vec<Hash>);

    impl Log {
        fn of(leaves: &[&str]) -> Self {
            let (mut peaks, mut log) = (Peaks::default(), Self::default());
            log.1.push(peaks.root());
            for leaf in leaves {
                let keep = |at, hash| {
                    log.0.insert(at, hash);
                    Ok::<_, Infallible>(())
                };
                peaks.append(leaf_hash(leaf.as_bytes()), keep).unwrap();
                log.1.push(peaks.root());
            }
            log
        }

        fn here(&self, leaves: usize, incarnation: u32) -> Here {
            Here { incarnation, leaves: leaves as u64, root: self.1[leaves] }
        }
    }

    impl merkle::Nodes for Log {
        type Error = Infallible;

        fn node(&self, at: NodeAt) -> Result<Hash, Infallible> {
            Ok(self.0[&at])
        }
    }

    fn signed(by: &[&Seat], size: usize, log: &Log, incarnation: u32) -> String {
        let charter = &by[0].charter;
        let (origin, charter_version) = (charter.origin(0, incarnation), charter.version());
        let checkpoint = Checkpoint { origin, size: size as u64, root: log.1[size], charter_version };
        let first = Signer { name: &by[0].name, key: by[0].identity.sign_key() };
        let mut note = checkpoint.sign(first, NOW).unwrap();
        for seat in &by[1..] {
            note.cosign(&seat.name, seat.identity.sign_key(), NOW.0 / 1000);
        }
        note.to_string()
    }

    #[test]
    fn a_farewell_that_lies_makes_nobody_give_anything_up() {
        let seats = seats("ABC", None);
        let charter = Arc::clone(&seats[0].charter);
        let (_shown, checkpoints) = watch::channel(Checkpointed::None);
        let notary = Notary::new(move |version| (version == 1).then(|| Arc::clone(&charter)), checkpoints);
        let (log, other) = (Log::of(&["a", "b", "c", "d"]), Log::of(&["a", "x", "c", "d"]));
        let (two, one) = ([&seats[0], &seats[1]], [&seats[2]]);
        let proof = |log: &Log| consistency_proof(log, 3, 4).unwrap();
        let said =
            |note: &str, proof: &[Hash], given| shows_all((&notary, 0), log.here(3, 0), (note, proof), |_| given);
        let honest = signed(&two, 4, &log, 0);
        assert_eq!(said(&honest, &proof(&log), false), Ok(1));
        let lies = [
            (signed(&one, 4, &log, 0), proof(&log), false, "it alone says so"),
            (signed(&two, 4, &other, 0), proof(&other), false, "another log"),
            (signed(&two, 4, &log, 0), proof(&other), false, "a proof of another log"),
            (signed(&two, 4, &log, 0), vec![], false, "no proof"),
            (signed(&two, 2, &log, 0), vec![], false, "less than is here"),
            (signed(&two, 4, &log, 1), proof(&log), false, "of another incarnation"),
            (honest.replace("node", "nude"), proof(&log), false, "another's name"),
            (String::new(), proof(&log), false, "nothing"),
            (honest.clone(), proof(&log), true, "under a charter that gives this node a part"),
        ];
        for (note, proof, given, what) in lies {
            assert!(said(&note, &proof, given).is_err(), "{what}");
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn only_what_no_charter_gives_and_the_shard_goes_on_without_and_was_kept_long_enough_may_go() {
        let out = Leaving { has_any: true, goes_on: true, out_for: HOUR, ..Leaving::default() };
        assert_eq!(out.next(HOUR), Leave::Ask);
        assert_eq!(Leaving { given: true, ..out }.next(HOUR), Leave::Stay);
        assert_eq!(Leaving { has_any: false, ..out }.next(HOUR), Leave::Stay);
        assert_eq!(Leaving { goes_on: false, ..out }.next(HOUR), Leave::Keep(Kept::Member));
        assert_eq!(Leaving { stopped: true, ..out }.next(HOUR), Leave::Keep(Kept::Stopped));
        assert_eq!(Leaving { out_for: HOUR / 4, ..out }.next(HOUR), Leave::Keep(Kept::For(HOUR / 4 * 3)));
        assert_eq!(Leaving { out_for: Duration::ZERO, ..out }.next(Duration::ZERO), Leave::Ask);
    }
}
