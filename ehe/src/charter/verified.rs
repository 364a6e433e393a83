//! A charter that a program may act on.

use core::num::NonZeroU16;
use std::collections::BTreeSet;

use super::{Charter, Member, Node, Permissions, Placement, SignedCharter};
use crate::checkpoint::log_origin;
use crate::id::{AllianceId, Hash, MemberId, NodeId};

/// A charter whose rules, place in the chain and signatures were checked. Only [`SignedCharter::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCharter {
    alliance: AllianceId,
    charter: Charter,
    signed: SignedCharter,
}

impl VerifiedCharter {
    pub(super) fn proven(alliance: AllianceId, charter: Charter, signed: SignedCharter) -> Self {
        Self { alliance, charter, signed }
    }

    /// The alliance: SHA-256 of charter 1.
    pub fn alliance_id(&self) -> AllianceId {
        self.alliance
    }

    /// This charter's version.
    pub fn version(&self) -> u32 {
        self.charter.version
    }

    /// SHA-256 of this charter's bytes.
    pub fn hash(&self) -> Hash {
        self.signed.hash()
    }

    /// The rules version that it puts in force in a shard where it is in effect.
    pub fn rules(&self) -> u16 {
        self.charter.rules()
    }

    /// Shards of the alliance.
    pub fn shard_count(&self) -> NonZeroU16 {
        self.charter.shard_count
    }

    /// The nodes that hold a shard. Empty if there is no such shard.
    pub fn group(&self, shard: u16) -> &[NodeId] {
        if shard >= self.charter.shard_count.get() {
            return &[];
        }
        match &self.charter.placement {
            Placement::Everywhere(group) => group,
            Placement::Listed(groups) => groups.get(usize::from(shard)).map_or(&[], Vec::as_slice),
        }
    }

    /// Whether a checkpoint of the shard that names this charter is judged by it, where `newest` is the newest that is known and the log
    /// was seen under version `seen` before (0: never). By an earlier one it is as long as the newest gives the shard to other nodes: it may
    /// not have come there yet (SPEC C2).
    pub fn is_at_hand(&self, shard: u16, newest: &Self, seen: u32) -> bool {
        let group = |charter: &Self| charter.group(shard).iter().copied().collect::<BTreeSet<_>>();
        self.version() >= seen && (self.version() == newest.version() || group(self) != group(newest))
    }

    /// The shards that a node holds, ascending.
    pub fn shards_of(&self, node: NodeId) -> impl Iterator<Item = u16> + '_ {
        (0..self.charter.shard_count.get()).filter(move |shard| self.group(*shard).contains(&node))
    }

    /// The node of this id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.charter.nodes.iter().find(|node| node.id == id)
    }

    /// The node of this name: the key name in a signed note.
    pub fn node_by_name(&self, name: &str) -> Option<&Node> {
        self.charter.nodes.iter().find(|node| node.name == name)
    }

    /// The member of this id.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.charter.members.iter().find(|member| member.id == id)
    }

    /// The members.
    pub fn members(&self) -> &[Member] {
        &self.charter.members
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.charter.nodes
    }

    /// What each role may do at most.
    pub fn permissions(&self) -> Permissions {
        self.charter.permissions
    }

    /// A head older than this is stale, in milliseconds.
    pub fn head_fresh_ms(&self) -> u32 {
        self.charter.head_fresh_ms
    }

    /// Distinct *members* whose nodes have to cosign a checkpoint of this shard: the majority of those that run the group, or
    /// more where the charter asks for more. `usize::MAX`, which nothing reaches, if there is no such shard.
    pub fn quorum(&self, shard: u16) -> usize {
        let group = self.group(shard);
        if group.is_empty() {
            return usize::MAX;
        }
        let majority = self.charter.members_of(group) / 2 + 1;
        majority.max(self.charter.min_cosignatures.map_or(0, usize::from))
    }

    /// The origin line of a shard's log, see [`log_origin`].
    pub fn origin(&self, shard: u16, incarnation: u32) -> String {
        log_origin(self.alliance, shard, incarnation)
    }

    /// The incarnation that an origin line names, if it is one of this shard's log in its one spelling.
    pub fn incarnation_of(&self, origin: &str, shard: u16) -> Option<u32> {
        let incarnation = origin.rsplit('/').next()?.parse().ok()?;
        (self.origin(shard, incarnation) == origin).then_some(incarnation)
    }

    /// Whether an origin line is of this shard's log, in any incarnation.
    pub fn is_origin_of(&self, origin: &str, shard: u16) -> bool {
        self.incarnation_of(origin, shard).is_some()
    }

    /// The content.
    pub fn charter(&self) -> &Charter {
        &self.charter
    }

    /// The content with its signatures, to be handed on.
    pub fn signed(&self) -> &SignedCharter {
        &self.signed
    }
}
