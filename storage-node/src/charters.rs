//! The charters that this node knows: those of its credentials directory, and newer ones that the operator or another node brought.
//!
//! A newer charter is taken up if it extends the chain at hand and its members' signatures verify; it is on disk, in the data directory,
//! before anybody acts on it. Knowing it is not yet to follow it: addresses, roles and who may connect are those of the newest; who
//! holds a shard, and whose cosignatures count, says the one that is committed there ([`crate::shard::InEffect`]).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certs::{Credentials, FileError};
use ehe::charter::{CHAIN_MAX_BYTES, CharterChain, CharterError, Node, Permissions, VerifiedCharter};
use ehe::id::{AllianceId, NodeId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Name of the file in the data directory.
pub(crate) const FILE: &str = "charter";
const REMEDY: &str =
    "it is made by the node itself: remove it, and the node fetches the charters from the others again";
/// The credentials directory's charter is looked at after this time.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why charters are not taken up. Whoever brought them is at fault, or the data directory.
#[derive(Debug, thiserror::Error)]
pub enum CharterFault {
    /// They do not verify from the alliance's first charter on.
    #[error("the charters do not verify: {0}")]
    Charter(#[from] CharterError),
    /// Another charter of a version that is known.
    #[error(
        "there are two charters {0}, both signed by a quorum: the members have to say which one is right, and enrol anew whoever followed the other"
    )]
    Other(u32),
    /// They cannot be kept, or read again.
    #[error(transparent)]
    File(#[from] FileError),
}

#[derive(Clone)]
struct Known {
    each: Vec<Arc<VerifiedCharter>>,
    /// The last of them.
    newest: Arc<VerifiedCharter>,
    encoded: Vec<u8>,
    /// The version from which on nodes are known that the newest has no more: a shard here may be under that one yet.
    since: u32,
    /// Nodes of those charters, not of the newest, that have seen the shards off.
    gone: BTreeSet<NodeId>,
}

/// All charters of the alliance, from the first to the newest that is known. Clones are the same.
#[derive(Clone)]
pub struct Charters(Arc<Inner>);

struct Inner {
    known: watch::Sender<Arc<Known>>,
    path: PathBuf,
    taking: Mutex<()>,
}

impl std::fmt::Debug for Charters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Charters(1 to {})", self.version())
    }
}

fn verified(chain: &CharterChain, alliance: AllianceId) -> Result<Known, CharterError> {
    let each: Vec<_> = chain.verify_each(alliance)?.into_iter().map(Arc::new).collect();
    let newest = each.last().cloned().ok_or(CharterError::EmptyChain)?;
    let since = newest.version().saturating_sub(1);
    Ok(Known { each, newest, encoded: chain.encode(), since, gone: BTreeSet::new() })
}

impl Known {
    /// Those of the newest, and of the ones before who are not gone.
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        let each = self.each.iter().rev().take_while(|charter| charter.version() >= self.since);
        each.flat_map(|charter| charter.nodes()).filter(|node| !self.gone.contains(&node.id))
    }

    fn leaving(&self) -> BTreeSet<NodeId> {
        self.nodes().map(|node| node.id).filter(|id| self.newest.node(*id).is_none()).collect()
    }

    /// `None`: nothing in the chain is newer.
    fn extended_by(&self, chain: &CharterChain) -> Result<Option<Self>, CharterFault> {
        for (version, (own, theirs)) in (1..).zip(self.each.iter().zip(&chain.0)) {
            if own.hash() != theirs.hash() {
                return Err(CharterFault::Other(version));
            }
        }
        if chain.0.len() <= self.each.len() {
            return Ok(None);
        }
        let mut newer = verified(chain, self.newest.alliance_id())?;
        // What still sees shards off under an earlier one goes on doing so.
        newer.since = self.since;
        let named =
            |node: &NodeId| newer.each.iter().skip(self.each.len()).any(|charter| charter.node(*node).is_some());
        newer.gone = self.gone.iter().copied().filter(|node| !named(node)).collect();
        Ok(Some(newer))
    }
}

#[cfg(test)]
impl Charters {
    /// These, to be kept in a directory.
    pub(crate) fn of_chain(chain: &CharterChain, dir: &Path) -> Self {
        let known = verified(chain, chain.claimed_alliance().unwrap()).unwrap();
        Self(Arc::new(Inner {
            known: watch::channel(Arc::new(known)).0,
            path: dir.join(FILE),
            taking: Mutex::default(),
        }))
    }
}

impl Charters {
    /// Those of a credentials directory, and those that were kept in the data directory, whichever go further. Reads files.
    pub fn open(credentials: &Credentials, data_dir: &Path) -> Result<Self, CharterFault> {
        let mut known = verified(credentials.charter_chain(), credentials.alliance_id())?;
        let path = data_dir.join(FILE);
        if path.exists() {
            let bytes = certs::file::read_public(&path, CHAIN_MAX_BYTES, REMEDY)?;
            if let Some(kept) = known.extended_by(&CharterChain::decode(&bytes)?)? {
                // Which of them shards here are under, is said when those were looked at.
                known = Known { since: kept.newest.version().saturating_sub(1), ..kept };
            }
        }
        Ok(Self(Arc::new(Inner { known: watch::channel(Arc::new(known)).0, path, taking: Mutex::default() })))
    }

    fn known(&self) -> Arc<Known> {
        self.0.known.borrow().clone()
    }

    /// The newest.
    pub fn newest(&self) -> Arc<VerifiedCharter> {
        self.known().newest.clone()
    }

    /// The one of a version.
    pub fn of(&self, version: u32) -> Option<Arc<VerifiedCharter>> {
        let at = usize::try_from(version).ok()?.checked_sub(1)?;
        self.known().each.get(at).cloned()
    }

    /// Charter 1.
    pub fn first(&self) -> Arc<VerifiedCharter> {
        self.of(1).unwrap_or_else(|| self.newest())
    }

    /// All, from the first to the newest.
    pub fn chain(&self) -> CharterChain {
        CharterChain::of(&self.known().each)
    }

    /// Version of the newest.
    pub fn version(&self) -> u32 {
        self.newest().version()
    }

    /// Shards of the alliance: the same in all charters.
    pub fn shard_count(&self) -> std::num::NonZeroU16 {
        self.newest().shard_count()
    }

    /// What each role may do at most, by the newest.
    pub fn permissions(&self) -> Permissions {
        self.newest().permissions()
    }

    /// All, from the first on, verified.
    pub fn each(&self) -> Vec<Arc<VerifiedCharter>> {
        self.known().each.clone()
    }

    /// All, encoded, as a file has them.
    pub fn encoded(&self) -> Vec<u8> {
        self.known().encoded.clone()
    }

    /// Those from a version on, as many as one answer holds: as they are handed out.
    pub fn piece(&self, from: u32) -> Vec<u8> {
        let known = self.known();
        let before = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        CharterChain::piece(known.each.iter().skip(before).map(|charter| charter.signed()))
    }

    /// A node: as the newest charter has it, or else one before, whose nodes have to see the shards off, until they [have](Self::see_off).
    pub fn node(&self, id: NodeId) -> Option<Node> {
        self.known().nodes().find(|node| node.id == id).cloned()
    }

    /// A node as the last charter has it that has it: itself too may be let go, and still be needed.
    pub fn ever(&self, id: NodeId) -> Option<Node> {
        self.known().each.iter().rev().find_map(|charter| charter.node(id).cloned())
    }

    /// The nodes that [`Self::node`] knows.
    pub fn nodes(&self) -> Vec<Node> {
        let known = self.known();
        let mut nodes: Vec<Node> = Vec::new();
        for node in known.nodes() {
            if !nodes.iter().any(|known| known.id == node.id) {
                nodes.push(node.clone());
            }
        }
        nodes
    }

    /// Those of them that the newest charter has not, and its version.
    pub fn leaving(&self) -> (u32, BTreeSet<NodeId>) {
        let known = self.known();
        (known.newest.version(), known.leaving())
    }

    /// A shard here is under the charter of this version yet: nodes of it, and of those behind it, are known until they are [seen
    /// off](Self::see_off).
    pub fn needed_since(&self, version: u32) {
        self.0.known.send_if_modified(|known| {
            let earlier = version < known.since;
            if earlier {
                Arc::make_mut(known).since = version;
            }
            earlier
        });
    }

    /// A node that is [leaving](Self::leaving) under the charter of this version has nothing more to do here: it is known no more. Until a restart,
    /// after which it is looked at again.
    pub fn see_off(&self, node: NodeId, version: u32) {
        self.0.known.send_if_modified(|known| {
            let goes = known.newest.version() == version && known.leaving().contains(&node);
            if goes {
                Arc::make_mut(known).gone.insert(node);
            }
            goes
        });
    }

    /// Waits until a node is none that [`Self::node`] knows.
    pub async fn without(&self, node: NodeId) {
        let mut known = self.0.known.subscribe();
        // The sender is ours: it does not go away.
        let _ = known.wait_for(|known| known.nodes().all(|it| it.id != node)).await;
    }

    /// Nodes to which the charters behind a version give a shard.
    pub fn given_since(&self, version: u32, shard: u16) -> impl Iterator<Item = NodeId> {
        let known = self.known();
        let at = usize::try_from(version).unwrap_or(usize::MAX);
        let groups = known.each.iter().skip(at).flat_map(|charter| charter.group(shard).to_vec());
        groups.collect::<Vec<_>>().into_iter()
    }

    /// The first version of those without a gap up to the newest that give a shard to a node; `None`: the newest does not.
    pub fn given_from(&self, node: NodeId, shard: u16) -> Option<u32> {
        let known = self.known();
        let given = known.each.iter().rev().take_while(|charter| charter.group(shard).contains(&node));
        given.last().map(|charter| charter.version())
    }

    /// What taking these up would make the newest; `None`: they bring nothing newer.
    pub fn judge(&self, chain: &CharterChain) -> Result<Option<Arc<VerifiedCharter>>, CharterFault> {
        Ok(self.known().extended_by(chain)?.map(|newer| newer.newest))
    }

    /// Takes up newer charters, if these are: true then. They are on disk before anybody hears of them. Verifies signatures and writes a
    /// file: not for an async worker.
    ///
    /// # Errors
    /// [`CharterFault`]; those before stay.
    pub fn take_up(&self, chain: &CharterChain) -> Result<bool, CharterFault> {
        let _one = self.0.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(newer) = self.known().extended_by(chain)? else { return Ok(false) };
        certs::file::replace(&self.0.path, &newer.encoded)?;
        self.0.known.send_replace(Arc::new(newer));
        Ok(true)
    }

    /// Waits until the newest is another one than that of this version.
    pub async fn newer_than(&self, version: u32) {
        let mut known = self.0.known.subscribe();
        // The sender is ours: it does not go away.
        let _ = known.wait_for(|known| known.each.len() > usize::try_from(version).unwrap_or(usize::MAX)).await;
    }

    /// Looks at the credentials directory's charter again and again. What is wrong with it is said once.
    pub async fn follow(self, path: PathBuf, stop: CancellationToken) {
        let (mut seen, mut said) = (None, None);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let (this, path, before) = (self.clone(), path.clone(), seen);
            let looked = tokio::task::spawn_blocking(move || {
                let meta = std::fs::metadata(&path).ok();
                let now = meta.and_then(|meta| Some((meta.len(), meta.modified().ok()?)));
                if now == before {
                    return (now, Ok(false));
                }
                let read = || {
                    let bytes = certs::file::read_public(&path, CHAIN_MAX_BYTES, "put the alliance's charters there")?;
                    this.take_up(&CharterChain::decode(&bytes)?)
                };
                (now, read())
            });
            let Ok((now, taken)) = looked.await else { return };
            // A file that somebody was still writing is looked at again.
            seen = if taken.is_ok() { now } else { None };
            match taken {
                Ok(true) => {
                    tracing::info!(version = self.version(), "a newer charter was put into the credentials directory")
                }
                Ok(false) => {}
                Err(why) => {
                    let why = why.to_string();
                    if said.as_ref() != Some(&why) {
                        tracing::warn!(%why, "the charter in the credentials directory is not taken up");
                        said = Some(why);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ehe::charter::{Placement, SignedCharter};
    use ehe::identity::Identity;

    use super::*;
    use crate::test_members::seats_and_members;

    /// The chain with one more charter, which has these nodes.
    fn followed(chain: &CharterChain, members: &[Identity], nodes: &[Node]) -> CharterChain {
        let before = chain.0.last().unwrap();
        let mut charter = before.read().unwrap();
        (charter.version, charter.predecessor) = (charter.version + 1, Some(before.hash()));
        charter.nodes = nodes.to_vec();
        charter.placement = Placement::Everywhere(nodes.iter().map(|node| node.id).collect());
        let mut signed = SignedCharter::unsigned(&charter).unwrap();
        members.iter().for_each(|member| signed.sign(member).unwrap());
        CharterChain(chain.0.iter().cloned().chain([signed]).collect())
    }

    #[test]
    fn who_is_let_go_stays_known_over_the_charters_that_follow_until_it_is_seen_off() {
        let dir = tempfile::tempdir().unwrap();
        let (seats, members) = seats_and_members("ABCDE", None);
        let all = seats[0].charter.charter().nodes.clone();
        let (stay, goes) = (&all[..3], [all[3].id, all[4].id]);
        let first = CharterChain(vec![seats[0].charter.signed().clone()]);
        let second = followed(&first, &members, &all);
        let third = followed(&second, &members, stay);
        let fourth = followed(&third, &members, stay);
        let charters = Charters::of_chain(&first, dir.path());
        for chain in [&second, &third, &fourth] {
            assert!(charters.take_up(chain).unwrap());
            assert!(charters.node(goes[0]).is_some(), "a shard may be under charter 1 yet");
        }
        assert_eq!(charters.leaving(), (4, goes.into()));
        charters.see_off(goes[0], 3);
        assert!(charters.node(goes[0]).is_some(), "under another charter than the newest");
        charters.see_off(goes[0], 4);
        assert_eq!(charters.leaving(), (4, [goes[1]].into()));
        let fifth = followed(&fourth, &members, stay);
        charters.take_up(&fifth).unwrap();
        assert!(charters.node(goes[0]).is_none() && charters.ever(goes[0]).is_some(), "for good");
        // Named again, if only by a charter that was passed over.
        assert!(charters.take_up(&followed(&followed(&fifth, &members, &all), &members, stay)).unwrap());
        assert!(charters.node(goes[0]).is_some());
        // After a restart, by what the shards are under.
        let again = Charters::of_chain(&fourth, dir.path());
        for (since, known) in [(4, false), (3, false), (2, true)] {
            again.needed_since(since);
            assert_eq!(again.node(goes[0]).is_some(), known, "since {since}");
        }
    }

    #[test]
    fn a_node_that_comes_new_needs_nobody_of_before_its_own_charters() {
        let dir = tempfile::tempdir().unwrap();
        let (seats, members) = seats_and_members("ABCDE", None);
        let all = seats[0].charter.charter().nodes.clone();
        let mut chain = CharterChain(vec![seats[0].charter.signed().clone()]);
        for nodes in [&all[..3], &all[..3], &all[..], &all[..]] {
            chain = followed(&chain, &members, nodes);
        }
        let charters = Charters::of_chain(&chain, dir.path());
        assert_eq!(charters.given_from(all[4].id, 0), Some(4), "not what it was given once, and lost");
        assert_eq!(charters.given_from(all[0].id, 0), Some(1));
        assert!(charters.take_up(&followed(&chain, &members, &all[..3])).unwrap());
        assert_eq!(charters.given_from(all[4].id, 0), None);
    }
}
