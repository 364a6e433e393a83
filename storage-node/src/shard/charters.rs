//! The charter that is in effect in a shard: the newest one that is committed in it.
//!
//! A charter is signed outside, by the members. In a shard it counts from the entry on that brings it: each replica verifies it there
//! against the one before, so that the ordering party cannot bring another. Where it moves the shard, one more entry
//! follows: a checkpoint under the new charter that a quorum of the old group's members has cosigned as well. Only then do the new group's
//! nodes speak for the shard by themselves.
//!
//! State: [`META_CHARTERS`] in `meta`, all charters from the first to the one in effect. Before the first entry that is charter 1, which
//! every node has by the alliance's id, and nothing is stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use redb::ReadableTable;

use ehe::cbor;
use ehe::charter::{CHAIN_MAX_BYTES, CharterChain, RULES_FIRST, SignedCharter, Trust, VerifiedCharter};
use ehe::checkpoint::VerifiedCheckpoint;
use ehe::id::{AllianceId, MemberId, NodeId};
use ehe::note::Note;

use super::store::StoreError;

/// Key of [`Stored`] in `meta`.
pub(super) const META_CHARTERS: &str = "charters";

/// What a charter entry of the log brings.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CharterEntry {
    /// The encoded [`SignedCharter`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub signed: Vec<u8>,
    /// A checkpoint under this charter, which is in effect already, cosigned by a quorum of its group and of the one before.
    #[n(1)]
    pub vouched: Option<String>,
}

/// The charter that is in effect in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InEffect {
    /// It.
    pub charter: Arc<VerifiedCharter>,
    /// The one before, until its members' quorum has cosigned under this one too.
    pub before: Option<Arc<VerifiedCharter>>,
    /// How many are committed in the shard: 0 as long as it is charter 1 without an entry.
    pub committed: u32,
}

impl InEffect {
    /// Charter 1 of an alliance, of which the shard's log says nothing yet.
    pub fn first(charter: Arc<VerifiedCharter>) -> Self {
        Self { charter, before: None, committed: 0 }
    }

    /// The nodes that have a part in a shard: its group's, and while it moves those of the group before.
    pub fn nodes(&self, shard: u16) -> BTreeSet<NodeId> {
        let before = self.before.iter().flat_map(|before| before.group(shard));
        self.charter.group(shard).iter().chain(before).copied().collect()
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Stored {
    /// An encoded [`CharterChain`].
    #[cbor(n(0), with = "minicbor::bytes")]
    chain: Vec<u8>,
    /// Nobody of the group before has to cosign any more.
    #[n(1)]
    vouched: bool,
}

/// A shard's charters between blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Charters {
    chain: Vec<Arc<VerifiedCharter>>,
    vouched: bool,
}

/// Why a charter entry changes nothing. Kept nowhere; the same on every replica.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    #[error(transparent)]
    Charter(#[from] ehe::charter::CharterError),
    #[error("the charter before it is not vouched for yet")]
    TooEarly,
    #[error("it is not the charter in effect")]
    Other,
    #[error(transparent)]
    Checkpoint(#[from] ehe::checkpoint::CheckpointError),
    #[error("{found} of the {needed} members of the group before that are needed have cosigned")]
    QuorumBefore { needed: usize, found: usize },
}

impl Charters {
    /// As the tables have it. Verified again: what is on disk is as good as what came from another node.
    pub(super) fn load(
        meta: &impl ReadableTable<&'static str, &'static [u8]>,
        alliance: AllianceId,
    ) -> Result<Self, StoreError> {
        meta.get(META_CHARTERS)?.map_or_else(|| Ok(Self::default()), |bytes| Self::decode(bytes.value(), alliance))
    }

    /// Of bytes from anywhere: its signatures are verified.
    pub(super) fn decode(stored: &[u8], alliance: AllianceId) -> Result<Self, StoreError> {
        let corrupt = |_| StoreError::Corrupt("the shard's charters do not decode or verify");
        let stored: Stored = cbor::from_slice(stored, CHAIN_MAX_BYTES + 64)
            .map_err(|_| StoreError::Corrupt("the shard's charters do not decode"))?;
        let chain = CharterChain::decode(&stored.chain).map_err(corrupt)?;
        let mut charters = Self { chain: Vec::new(), vouched: stored.vouched };
        for signed in &chain.0 {
            let next = signed.verify(charters.trust(alliance)).map_err(corrupt)?;
            charters.chain.push(Arc::new(next));
        }
        Ok(charters)
    }

    /// The rules version that stored charters claim to have put in force; none if they say nothing.
    pub(super) fn claimed_rules(stored: &[u8]) -> Option<u16> {
        let stored: Stored = cbor::from_slice(stored, CHAIN_MAX_BYTES + 64).ok()?;
        let chain = CharterChain::decode(&stored.chain).ok()?;
        Some(chain.0.last()?.read().ok()?.rules())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        cbor::to_vec(&Stored { chain: CharterChain::of(&self.chain).encode(), vouched: self.vouched })
    }

    /// `None` as long as nothing is committed.
    pub(super) fn in_effect(&self) -> Option<InEffect> {
        let (charter, earlier) = self.chain.split_last()?;
        let before = if self.vouched { None } else { earlier.last().cloned() };
        Some(InEffect { charter: Arc::clone(charter), before, committed: charter.version() })
    }

    /// The rules version in force.
    pub(super) fn rules(&self) -> u16 {
        self.chain.last().map_or(RULES_FIRST, |charter| charter.rules())
    }

    fn trust(&self, alliance: AllianceId) -> Trust<'_> {
        match self.chain.last() {
            None => Trust::Pinned(alliance),
            Some(last) => Trust::Predecessor(last),
        }
    }

    /// What an entry makes of them. `empty`: the shard has no leaf, and so nothing that anybody could vouch for.
    pub(super) fn after(
        &self,
        entry: &CharterEntry,
        alliance: AllianceId,
        shard: u16,
        empty: bool,
    ) -> Result<Self, NotTaken> {
        let signed = SignedCharter::decode(&entry.signed)?;
        if let Some(note) = &entry.vouched {
            return self.vouched_by(&signed, note, shard);
        }
        if self.in_effect().is_some_and(|now| now.before.is_some()) {
            return Err(NotTaken::TooEarly);
        }
        let next = Arc::new(signed.verify(self.trust(alliance))?);
        let group = |charter: &VerifiedCharter| charter.group(shard).iter().copied().collect::<BTreeSet<_>>();
        let stays = self.chain.last().is_none_or(|last| group(last) == group(&next));
        let mut chain = self.chain.clone();
        chain.push(next);
        // What is taken here has to be read at the next start, by every replica.
        CharterChain::of(&chain).check_limits()?;
        Ok(Self { chain, vouched: stays || empty })
    }

    fn vouched_by(&self, signed: &SignedCharter, note: &str, shard: u16) -> Result<Self, NotTaken> {
        let now = self.in_effect().filter(|now| now.charter.hash() == signed.hash()).ok_or(NotTaken::Other)?;
        // Said again, because whoever said it first did not hear the answer.
        let Some(before) = now.before else { return Ok(self.clone()) };
        VerifiedCheckpoint::verify(note, shard, &now.charter)?;
        let note = Note::parse(note).map_err(ehe::checkpoint::CheckpointError::from)?;
        let (needed, found) = (before.quorum(shard), cosigners_of(&note, shard, &before, &now.charter));
        if found < needed {
            return Err(NotTaken::QuorumBefore { needed, found });
        }
        Ok(Self { chain: self.chain.clone(), vouched: true })
    }
}

/// Members of a group under a charter whose nodes cosigned a note. A node signs by the name that the newer charter has for it.
fn cosigners_of(note: &Note, shard: u16, charter: &VerifiedCharter, newer: &VerifiedCharter) -> usize {
    let nodes = charter.group(shard).iter().filter_map(|id| charter.node(*id));
    let signed = nodes.filter(|node| {
        let name = newer.node(node.id).map_or(&node.name, |node| &node.name);
        note.verify_cosignature(name, &node.sign).is_ok()
    });
    signed.map(|node| node.member).collect::<BTreeSet<MemberId>>().len()
}
