//! The charters of the alliance that this gateway has, and under which of them each shard was seen.
//!
//! A charter takes effect shard by shard, where it is committed there: a receipt may stand under an earlier one than the newest, and a shard
//! may be with nodes of an earlier one. What it may not do is go back: once a shard was seen under a charter, the quorum of an earlier one
//! proves nothing any more.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::Credentials;
use certs::charters::ExtensionError;
use ehe::charter::{CharterChain, CharterError, Node, VerifiedCharter};
use ehe::id::NodeId;
use ehe::limits::CHAIN_MAX_BYTES;

/// Its name in the data directory.
const FILE: &str = "charters";

/// Why the gateway does not know by which charters to judge.
#[derive(Debug, thiserror::Error)]
pub enum ChartersError {
    /// Those of the credentials.
    #[error("the charters of the credentials directory do not verify: {0}")]
    Credentials(#[from] CharterError),
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file's charters are not this alliance's.
    #[error(
        "{}: the charters that this gateway verified before do not go with those of its credentials: {why}. If the gateway was given to \
         another alliance, it needs an empty data directory; if the disk damaged the file, delete it: the nodes show them again",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// See the [module's text](self).
#[derive(Debug, Clone)]
pub struct Charters {
    newest: Arc<VerifiedCharter>,
    /// The newest among them.
    each: Vec<Arc<VerifiedCharter>>,
    chain: CharterChain,
    seen: BTreeMap<u16, u32>,
    path: Option<PathBuf>,
}

impl Charters {
    /// Those of the credentials, or what goes further and was verified before, and is kept in `data_dir`.
    pub fn of(credentials: &Credentials, data_dir: &Path) -> Result<Self, ChartersError> {
        let path = data_dir.join(FILE);
        let other = |why: String| ChartersError::Other { path: path.clone(), why };
        let kept = read(&path).map_err(|source| ChartersError::Io { path: path.clone(), source })?;
        let kept = kept.map(|bytes| CharterChain::decode(&bytes)).transpose().map_err(|why| other(why.to_string()))?;
        let newer = kept.map(|kept| credentials.extended_by(&kept)).transpose();
        let newer = newer.map_err(|why: ExtensionError| other(why.to_string()))?.flatten();
        let chain = newer.as_ref().unwrap_or(credentials).charter_chain().clone();
        Ok(Self { path: Some(path), ..Self::verified(chain, credentials.alliance_id())? })
    }

    fn verified(chain: CharterChain, alliance: ehe::id::AllianceId) -> Result<Self, CharterError> {
        let each: Vec<_> = chain.verify_each(alliance)?.into_iter().map(Arc::new).collect();
        let newest = each.last().cloned().ok_or(CharterError::EmptyChain)?;
        Ok(Self { newest, each, chain, seen: BTreeMap::new(), path: None })
    }

    /// The newest, as it came.
    pub fn chain(&self) -> &CharterChain {
        &self.chain
    }

    /// All, from the first on.
    pub(super) fn each(&self) -> &[Arc<VerifiedCharter>] {
        &self.each
    }

    pub(super) fn newest(&self) -> Arc<VerifiedCharter> {
        Arc::clone(&self.newest)
    }

    /// The charter of a version, unless the shard was seen under a later one.
    pub(super) fn of_version(&self, shard: u16, version: u32) -> Option<Arc<VerifiedCharter>> {
        let seen = self.seen_under(shard);
        let of = |it: &&Arc<VerifiedCharter>| it.version() == version && it.is_at_hand(shard, &self.newest, seen);
        self.each.iter().find(of).cloned()
    }

    pub(super) fn stood(&mut self, shard: u16, version: u32) {
        let seen = self.seen.entry(shard).or_default();
        *seen = version.max(*seen);
    }

    /// The newest version that a checkpoint of the shard stood under; 0 before the first.
    pub(super) fn seen_under(&self, shard: u16) -> u32 {
        self.seen.get(&shard).copied().unwrap_or(0)
    }

    /// The one before the newest.
    pub(super) fn before(&self) -> Option<Arc<VerifiedCharter>> {
        self.each.iter().rev().nth(1).cloned()
    }

    pub(super) fn node(&self, id: NodeId) -> Option<Node> {
        self.each.iter().rev().find_map(|charter| charter.node(id).cloned())
    }

    /// Takes up a verified chain, if it goes further: on disk before it counts. Its newest version then. `Err`: it counts, and is
    /// forgotten when the gateway stops.
    pub(super) fn take_up(
        &mut self,
        chain: &CharterChain,
        each: Vec<VerifiedCharter>,
    ) -> Option<(u32, Result<(), certs::FileError>)> {
        let each: Vec<_> = each.into_iter().map(Arc::new).collect();
        let newest = each.last().filter(|newest| newest.version() > self.newest.version())?;
        let kept = self.path.as_deref().map_or(Ok(()), |path| certs::file::replace(path, &chain.encode()));
        self.newest = Arc::clone(newest);
        (self.each, self.chain) = (each, chain.clone());
        Some((self.newest.version(), kept))
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    // One byte more than there may be: what is longer is refused where it is decoded.
    file.take(u64::try_from(CHAIN_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use ehe::charter::{CharterChain, Placement, SignedCharter};

    use super::*;
    use crate::rooms::testing;

    #[test]
    fn an_earlier_charter_holds_in_a_shard_that_a_later_one_moves_until_it_was_seen_there() {
        let members = [(); 3].map(|()| testing::identity());
        let nodes = [1, 2, 3].map(|n| (testing::identity(), format!("127.0.0.1:{n}")));
        let mut chain = testing::charter(&members, &nodes[..1]);
        let only_first = chain.clone();
        let before = chain.0[0].read().unwrap();
        let both = testing::charter(&members, &nodes).0[0].read().unwrap();
        let moved = ehe::charter::Charter {
            version: 2,
            predecessor: Some(chain.0[0].hash()),
            nodes: both.nodes.clone(),
            placement: Placement::Everywhere(vec![both.nodes[1].id]),
            ..before
        };
        let mut signed = SignedCharter::unsigned(&moved).unwrap();
        members.iter().for_each(|member| signed.sign(member).unwrap());
        chain.0.push(signed);
        // And one that leaves everything where it is.
        let same = testing::next_charter(&chain, &members);
        let alliance = chain.claimed_alliance().unwrap();
        let each = |chain: &CharterChain| chain.verify_each(alliance).unwrap();
        let mut charters = Charters::verified(only_first, alliance).unwrap();
        let take_up = |charters: &mut Charters, chain: &CharterChain| {
            charters.take_up(chain, each(chain)).map(|(version, kept)| kept.map(|()| version).unwrap())
        };
        assert_eq!(take_up(&mut charters, &chain), Some(2));
        assert_eq!(take_up(&mut charters, &chain), None);
        let of = |charters: &Charters, version| charters.of_version(0, version).map(|charter| charter.version());
        assert_eq!((of(&charters, 1), of(&charters, 2), of(&charters, 3)), (Some(1), Some(2), None));
        assert_eq!(charters.before().map(|before| before.version()), Some(1));
        assert!(charters.node(both.nodes[1].id).is_some());
        charters.stood(0, 2);
        assert_eq!((of(&charters, 1), of(&charters, 2)), (None, Some(2)), "what was seen does not go back");
        assert_eq!(take_up(&mut charters, &same), Some(3));
        charters.seen.clear();
        assert_eq!((of(&charters, 1), of(&charters, 2), of(&charters, 3)), (Some(1), None, Some(3)));
    }
}
