//! The charter that a checkpoint stands under: where it is newer than the one here, the nodes are asked for theirs.

use ehe::charter::{CharterChain, VerifiedCharter};
use ehe::checkpoint::Checkpoint;
use ehe::id::{NodeId, RoomId};
use ehe::note::Note;

use crate::error::Error;
use crate::session::Session;

/// What a checkpoint says of its charter. Of one that says nothing the verification says what is wrong.
fn version_of(checkpoint: &str) -> Option<u32> {
    let note = Note::parse(checkpoint).ok()?;
    Some(Checkpoint::parse(&note).ok()?.charter_version)
}

impl Session {
    /// The charter to verify a checkpoint by. A newer one than the one here is fetched, verified and kept first. It may be an
    /// older one: then whether the checkpoint verifies tells an old node from a lying one, and no more ([`Session::is_current`]).
    pub async fn charter_of(&mut self, checkpoint: &str) -> Result<VerifiedCharter, Error> {
        let version = version_of(checkpoint);
        if let Some(newer) = version.filter(|version| *version > self.charter().version()) {
            self.fetch_charters(newer).await?;
        }
        if let Some(older) = version.filter(|version| *version < self.charter().version()) {
            let (chain, alliance) = (self.credentials().charter_chain(), self.charter().alliance_id());
            let until = usize::try_from(older).unwrap_or(usize::MAX);
            let chain = CharterChain(chain.0.iter().take(until).cloned().collect());
            if let Ok(older) = chain.verify(alliance) {
                return Ok(older);
            }
        }
        Ok(self.charter().clone())
    }

    /// Refuses what stands under an older charter than the one here: a quorum of then is none of now (SPEC C2). But a charter that gives the
    /// room's shard to other nodes is in force there when it came there, which may take its time: until the room was seen under it, the one
    /// before holds.
    pub fn is_current(&self, room: RoomId, charter: &VerifiedCharter) -> Result<(), Error> {
        let (own, shard) = (self.charter(), room.shard(self.charter().shard_count()));
        let seen = self.recall(room)?.map_or(0, |known| known.charter);
        if charter.is_at_hand(shard, own, seen) {
            return Ok(());
        }
        self.not_older(charter.version(), own.version())
    }

    /// Asks the nodes, the one that spoke last first, until one shows charters that extend those here up to this version.
    pub(crate) async fn fetch_charters(&mut self, version: u32) -> Result<(), Error> {
        let spoke = self.nodes.last();
        let others = self.charter().nodes().iter().map(|node| node.id).filter(|id| Some(*id) != spoke);
        let nodes: Vec<NodeId> = spoke.into_iter().chain(others).collect();
        let (mut false_ones, mut silent) = (None, Vec::new());
        for node in nodes {
            let own = self.credentials().clone();
            match self.nodes.newer_charters(node, &own).await {
                Ok(Some(newer)) => self.take_up(newer),
                Ok(None) => {}
                Err(why @ Error::Charters { .. }) => false_ones = false_ones.or(Some(why)),
                Err(why) => silent.push(why.to_string()),
            }
            if self.charter().version() >= version {
                return Ok(());
            }
        }
        Err(false_ones.unwrap_or(Error::NoSuchCharter { version, own: self.charter().version(), silent }))
    }

    /// Gives the other directory of one person this one's charters, where they are newer, and refuses to go on where they are older.
    pub(crate) fn share_charters(&self, other: &mut Self, option: &'static str) -> Result<(), Error> {
        let differ = |why: certs::charters::ExtensionError, other: &Self| Error::Beside {
            option,
            dir: other.home().dir().to_owned(),
            why: Box::new(Error::Usage(format!("of its charters and those of {}, {why}", self.home().dir().display()))),
            must: "under the charters of this alliance: ask a member which are right (`ehe-certs install`)".into(),
        };
        let newer = other.credentials().extended_by(self.credentials().charter_chain());
        if let Some(newer) = newer.map_err(|why| differ(why, other))? {
            other.take_up(newer);
        }
        // What the nodes showed just now stands under this directory's charter: the other one would not believe it.
        self.not_older(self.charter().version(), other.charter().version())
    }

    fn not_older(&self, theirs: u32, own: u32) -> Result<(), Error> {
        if theirs >= own {
            return Ok(());
        }
        Err(Error::OlderCharter { node: self.nodes.spoke_last(), theirs, own })
    }
}
