//! What handlers share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use certs::PeerIdentity;
use ehe::charter::VerifiedCharter;
use ehe::id::{AuthorId, NodeId, RoomId};
use ehe::identity::Identity;
use ehe::refusal::{Fault, Refusal};
use ehe::time::UnixMs;
use ehe::wire::Response;

use crate::blocking::{Blocking, NotDone};
use crate::charters::Charters;
use crate::checkpoint::{Board, Published};
use crate::clock::Clock;
use crate::config::Limits;
use crate::confirmation::Confirmation;
use crate::consensus::{self, Consensus, GroupId, Role};
use crate::evidence::Keeper;
use crate::one_each::OneEach;
use crate::peers::{Alliance, Reach};
use crate::placement::Moved;
use crate::scrub::Shown;
use crate::shard::{InEffect, Shard, Stopped, StoreError, Unordered, View};
use crate::stats::Stats;

/// This node.
pub struct Node {
    /// Its id in the charter.
    pub id: NodeId,
    /// Signs heads.
    pub identity: Arc<Identity>,
    /// The charters; what it says of roles and shards is the newest's word.
    pub charter: Charters,
    /// What the other nodes say of theirs.
    pub alliance: Arc<Alliance>,
    /// Which charter is in effect where.
    pub board: Arc<Board>,
    /// The shards that are open here.
    pub shards: BTreeMap<u16, Shard>,
    /// That their state at hand is not one that others have left behind.
    pub confirmations: BTreeMap<u16, Confirmation>,
    /// Who leads what.
    pub consensus: Consensus,
    /// Evidence that is kept here.
    pub evidence: Keeper,
    /// The way to whoever orders.
    pub reach: Reach,
    /// For looking things up and for signatures.
    pub blocking: Blocking,
    /// The clock.
    pub clock: Clock,
    /// How far the scrub is.
    pub scrub: Shown,
    /// What is here of shards that live elsewhere.
    pub moved: Moved,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Bounds.
    pub limits: Limits,
    /// Streams that may run at one time.
    pub streams: Arc<Semaphore>,
    /// For whom rooms are being listed.
    pub listing: OneEach<AuthorId>,
    /// Cancelled when the node stops.
    pub stop: CancellationToken,
}

/// Why a request is not served; each has one answer.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// A rule, or the node's state.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another node leads.
    #[error("the shard is led by node {0}")]
    AskNode(NodeId),
    /// The shard's file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NotServed> for Response {
    fn from(why: NotServed) -> Self {
        match why {
            NotServed::Refused(refusal) => Self::Refused(refusal),
            NotServed::AskNode(node) => Self::AskNode(node),
            NotServed::Store(_) => Self::Refused(Refusal::StorageFault),
        }
    }
}

impl From<Unordered> for NotServed {
    fn from(why: Unordered) -> Self {
        match why {
            Unordered::NotLeader(Some(leader)) => Self::AskNode(node_id(leader)),
            Unordered::NotLeader(None) | Unordered::Unknown => Self::Refused(Refusal::NoLeader),
            Unordered::Overloaded => Self::Refused(Refusal::Overloaded),
            Unordered::Stopping => Self::Refused(Refusal::Stopping),
            Unordered::Fault => Self::Refused(Refusal::StorageFault),
        }
    }
}

impl From<NotDone> for NotServed {
    fn from(_: NotDone) -> Self {
        Self::Refused(Refusal::Stopping)
    }
}

impl From<Stopped> for NotServed {
    fn from(_: Stopped) -> Self {
        Self::Refused(Refusal::StorageFault)
    }
}

/// A node's id as consensus counts: its 8 bytes, big-endian.
pub fn raft_id(id: NodeId) -> consensus::NodeId {
    consensus::NodeId(u64::from_be_bytes(id.0))
}

/// The way back.
pub fn node_id(id: consensus::NodeId) -> NodeId {
    NodeId(id.0.to_be_bytes())
}

/// A term in which this node led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term(u64);

impl Node {
    /// The shard of a room, if it is here; otherwise a node that has it.
    pub fn shard_of(&self, room: RoomId) -> Result<&Shard, NotServed> {
        let number = room.shard(self.charter.shard_count());
        match self.shards.get(&number) {
            Some(shard) if self.holds(number) => Ok(shard),
            _ => Err(self.elsewhere(number)),
        }
    }

    /// The charter that is in effect in a shard, as far as this node knows.
    pub fn in_effect(&self, shard: u16) -> InEffect {
        self.board.in_effect(shard).unwrap_or_else(|| InEffect::first(self.charter.first()))
    }

    /// Whether this node has a part in a shard: under the charter that is in effect there. Whoever was let go, or waits to be taken in, speaks
    /// for nobody.
    ///
    /// Of a shard of which nothing is here, nothing tells which charter that is. That it is the first is believed only where the newest gives
    /// it to this node too, which then waits to begin its log or for who has it: a founder that was let go since, and comes with an empty
    /// disk, has no part in it.
    pub fn holds(&self, shard: u16) -> bool {
        match self.board.in_effect(shard) {
            Some(known) => known.nodes(shard).contains(&self.id),
            None => {
                let among = |charter: &VerifiedCharter| charter.group(shard).contains(&self.id);
                let any_here = || self.consensus.standing(GroupId(shard)).is_some_and(|it| it.applied.is_some());
                among(&self.charter.first()) && (among(&self.charter.newest()) || any_here())
            }
        }
    }

    /// Whether this node may say where a room ends as of a checkpoint: readers look for its key in the group that the charter gives the
    /// shard which the checkpoint names. While a shard moves, who comes may be here before that is the new one, and who goes
    /// may be here after it; another node is named then.
    pub fn speaks_as_of(&self, shard: u16, checkpoint: &Published) -> Result<(), NotServed> {
        let named = self.charter.of(checkpoint.charter_version);
        let speaks = named.is_some_and(|charter| charter.group(shard).contains(&self.id));
        if speaks { Ok(()) } else { Err(self.elsewhere(shard)) }
    }

    /// Names a node that has a shard: who leads it by what its nodes say, or else the first that should have it.
    pub fn elsewhere(&self, shard: u16) -> NotServed {
        let newest = self.charter.newest();
        let group = newest.group(shard).iter().copied();
        let named = self.alliance.leader_of(shard).into_iter().chain(group).chain(self.in_effect(shard).nodes(shard));
        match named.into_iter().find(|node| *node != self.id) {
            Some(node) => NotServed::AskNode(node),
            None => Refusal::WrongShard.into(),
        }
    }

    /// Whether this node orders a shard, as far as it knows, and in which term; otherwise who does.
    pub fn leads(&self, shard: u16) -> Result<Term, NotServed> {
        match self.consensus.standing(GroupId(shard)) {
            None => Err(self.elsewhere(shard)),
            Some(standing) if standing.faulted => Err(Refusal::StorageFault.into()),
            // Its state is not what it was; others have it.
            Some(standing) if standing.held => match standing.leader.filter(|leader| *leader != raft_id(self.id)) {
                Some(leader) => Err(NotServed::AskNode(node_id(leader))),
                None => Err(Refusal::StorageFault.into()),
            },
            // A leader that has not applied its log yet would deny what is committed.
            Some(standing) if standing.ready() => Ok(Term(standing.term)),
            Some(standing) if standing.role == Role::Leader => Err(Refusal::NoLeader.into()),
            Some(standing) => match standing.leader {
                Some(leader) => Err(NotServed::AskNode(node_id(leader))),
                // It may have been let go while it was away.
                None if !self.charter.newest().group(shard).contains(&self.id) => Err(self.elsewhere(shard)),
                None => Err(Refusal::NoLeader.into()),
            },
        }
    }

    /// Returns when this node's state of a shard has everything that anybody was told before `since`, whoever leads; and the moment
    /// up to which that holds.
    pub async fn confirmed(&self, shard: u16, since: Instant) -> Result<Instant, NotServed> {
        let standing = self.consensus.standing(GroupId(shard)).ok_or(Refusal::WrongShard)?;
        if standing.faulted || standing.held {
            return Err(Refusal::StorageFault.into());
        }
        let confirmation = self.confirmations.get(&shard).ok_or(Refusal::WrongShard)?;
        let confirmed = confirmation.since(&self.consensus, GroupId(shard), since).await;
        // Whom a charter let go may never hear that it did: the others do not listen to it any more, and have what it is asked for.
        let goes = !self.charter.newest().group(shard).contains(&self.id);
        confirmed.map_err(|why| if goes { self.elsewhere(shard) } else { why })
    }

    /// Whether this node, which led a shard in `term`, still does: then its state had, all the while, everything that anybody was
    /// told, and what was looked up in it and is not going to be ordered may be said.
    pub async fn still_leads(&self, shard: u16, term: Term) -> Result<(), NotServed> {
        self.confirmed(shard, Instant::now()).await?;
        if self.leads(shard)? == term { Ok(()) } else { Err(Refusal::NoLeader.into()) }
    }

    /// Says no from the state at hand: only a node that still leads may. Who led without knowing that it does no more must not deny
    /// what another one has taken in.
    pub async fn denies(&self, shard: u16, term: Term, why: NotServed) -> NotServed {
        match why {
            NotServed::Refused(refusal) if refusal.fault() != Fault::Node => {
                self.still_leads(shard, term).await.err().unwrap_or(why)
            }
            _ => why,
        }
    }

    /// Who asks for what is not content: an author in a role that has to do with rooms at all.
    pub fn author(&self, peer: PeerIdentity) -> Result<AuthorId, Refusal> {
        let (permissions, role) = (self.charter.permissions(), peer.role());
        let allowed = permissions.submit.contains(role) || permissions.read.contains(role);
        peer.author().filter(|_| allowed).ok_or(Refusal::RoleNotAllowed)
    }

    /// Looks something up on a blocking thread.
    pub async fn look<T: Send + 'static>(
        &self,
        shard: &Shard,
        work: impl FnOnce(&View) -> Result<T, NotServed> + Send + 'static,
    ) -> Result<T, NotServed> {
        let store = shard.store.clone();
        let done = self.blocking.run(move || work(&store.view()?)).await?;
        if let Err(NotServed::Store(error)) = &done {
            tracing::error!(shard = shard.place.shard, %error, "reading the shard failed");
        }
        done
    }
}

/// The time by which rights are judged outside apply: a quiet shard's own time stands still, a grant's end does not wait.
pub fn judged_at(view: &View, clock: UnixMs) -> UnixMs {
    view.shard().time.max(clock)
}
