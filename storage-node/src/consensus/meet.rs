//! Nodes meet before they count on each other.
//!
//! A node that lost its disks has forgotten votes and entries that others count on. Those who met it before refuse it
//! ([`peers`](super::network)); one that never did takes it for new, and the two may be a majority that undoes what another majority
//! acknowledged. Openraft does not see to it that all have met: who only follows speaks to nobody but its leader. So:
//!
//! 1. **Who begins a log has met all with whom it does**, and each of them has its uid on disk, before it has a part: before it begins, takes
//!    an entry or a state, or votes. That they have it, only they can say: a peer that was heard counts as met when it has answered a call
//!    of this node's, or speaks to it by its uid. Whoever is refused by one of them has been here before, and never begins.
//! 2. **Who has nothing of a group elects nobody**, but for those of rule 1 when they have met: a majority that elects is then of nodes that
//!    have what they acknowledged. So it gets a vote when it has something, not before.
//! 3. **Members that come later meet in the background**, as soon as both know that they are members: nobody waits for that, since one of
//!    those that are to be met may be the one that is being replaced.
//!
//! What remains open: of two members that did not begin together (one joined later, or the group was restored, or begun by a program
//! that did not know these rules), one loses its disks before they have met (seconds, while both are up). The other gives it the log if
//! it leads, and then it counts. In a majority with a leader of a term that is long over, which it voted against and forgot, it would
//! undo what was acknowledged.
//!
//! A founder that the newest charter does without is not met any more ([`Consensus::gone`]); nor one that lost its disks, by what it says or
//! by what this node remembers: this node refuses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{
    async_runtime::{Select2, WatchReceiver},
    type_config::TypeConfigExt,
};

#[cfg(ehe_sim)]
use super::runtime;
use super::{
    config::Config,
    group::Group,
    handle::Consensus,
    ids::{GroupId, NodeId},
    network::{Peers, Router},
    open::lead_group,
    types::Types,
};

/// So often it is looked whether members have come that were not met.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What became of [`Consensus::begin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// The group has a log, perhaps a new one.
    Begun,
    /// These have not been met: they are called without end, and the group begins when it is asked to again.
    Meeting(BTreeSet<NodeId>),
    /// These remember this node with another log, or another node under its id: it does not begin the group.
    Refused(BTreeSet<NodeId>),
    /// The group has stopped, or there is none.
    Stopped,
}

impl Group {
    /// Whether this node never had anything of the group: no entry, no state, none that it gave up.
    pub(super) fn has_nothing(&self) -> bool {
        #[cfg(ehe_sim)]
        if runtime::red(runtime::Red::Strangers) {
            return false;
        }
        self.log.is_new()
    }

    /// Those with whom this node would begin the group, and whom it has not met: until there are none it has no part in the group.
    pub(super) fn strangers(&self, peers: &Peers) -> BTreeSet<NodeId> {
        match &self.founders {
            Some(founders) if self.has_nothing() => peers.strangers(founders),
            _ => BTreeSet::new(),
        }
    }

    /// Whether its vote counts.
    pub(super) fn may_elect(&self, peers: &Peers) -> bool {
        // One that all others have left for good has met nobody to whom it might be known.
        let begins = |founders: &BTreeSet<NodeId>| peers.strangers(founders).is_empty() && peers.has_met_any(founders);
        !self.has_nothing() || self.founders.as_ref().is_some_and(begins)
    }

    /// Whom it has to meet.
    fn circle_to_meet(&self, peers: &Peers) -> BTreeSet<NodeId> {
        if self.log.fence.fault().is_some() {
            return BTreeSet::new();
        }
        if self.has_nothing() {
            return self.strangers(peers);
        }
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership().nodes().map(|(id, ())| NodeId(*id));
        peers.strangers(&members.collect())
    }
}

impl Consensus {
    /// Begins `group` with the voters that it was configured with, unless it is something already: what a group that is
    /// [waiting](super::Config::waiting) does not do by itself. All of them have to be met first; [`met`](Self::met) tells when it is worth
    /// asking again.
    pub async fn begin(&self, group: GroupId) -> Beginning {
        let Some(group) = self.group(group) else { return Beginning::Stopped };
        let strangers = group.strangers(&self.inner.peers);
        let refusing = self.inner.peers.refusing(&strangers);
        if !refusing.is_empty() {
            return Beginning::Refused(refusing);
        }
        if !strangers.is_empty() {
            return Beginning::Meeting(strangers);
        }
        match lead_group(&self.inner.config, group, true).await {
            Ok(()) => Beginning::Begun,
            Err(()) => Beginning::Stopped,
        }
    }

    /// Those that this node has to meet before it has a part in `group`, with which it would have begun.
    #[must_use]
    pub fn strangers(&self, group: GroupId) -> BTreeSet<NodeId> {
        self.group(group).map(|group| group.strangers(&self.inner.peers)).unwrap_or_default()
    }

    /// These will not be met any more, and have no part in anything: no group waits for them.
    pub fn gone(&self, nodes: BTreeSet<NodeId>) {
        self.inner.peers.gone(nodes);
    }

    /// Whether this node waits for another no more: they have met since this one was started, so that each has the other's uid on disk; or they
    /// will not, because it is [gone](Self::gone) or lost its log.
    #[must_use]
    pub fn has_met(&self, node: NodeId) -> bool {
        self.inner.peers.strangers(&BTreeSet::from([node])).is_empty()
    }

    /// Resolves when, after this was called, another node was met, or found to be another than it was.
    pub fn met(&self) -> impl Future<Output = ()> + '_ {
        self.inner.peers.moved()
    }
}

/// Calls whoever has to be met, and begins groups that wait for nothing else. Goes on until it is dropped.
pub(super) async fn meet(config: Config, groups: BTreeMap<GroupId, Arc<Group>>, router: Router, peers: Arc<Peers>) {
    let begins = |group: &&Arc<Group>| {
        let alone = group.founders.as_ref().is_none_or(|founders| founders.len() < 2);
        !alone && !config.waiting.contains(&group.id) && group.log.fence.fault().is_none() && group.log.is_new()
    };
    let again = config.timing.heartbeat;
    let (mut calls, mut called) = (FuturesUnordered::new(), BTreeSet::new());
    let mut tried: usize = 0;
    loop {
        let mut wanted: BTreeMap<NodeId, Vec<&Group>> = BTreeMap::new();
        for group in groups.values() {
            for peer in group.circle_to_meet(&peers).difference(&called) {
                wanted.entry(*peer).or_default().push(group);
            }
            if begins(&group) && group.strangers(&peers).is_empty() {
                // Why it has stopped, if it has, its fence says.
                let _stopped = lead_group(&config, group, true).await;
            }
        }
        for (peer, by) in wanted {
            // Any of its groups will do, and not always the same: the peer may have stopped one, or let this node go.
            tried = tried.wrapping_add(1);
            if let Some(group) = by.get(tried % by.len()) {
                called.insert(peer);
                calls.push(call(&router, peer, group, again));
            }
        }
        let pause = if calls.is_empty() { LOOK_EVERY } else { again };
        let pause = pin!(Types::sleep(pause));
        if calls.is_empty() {
            pause.await;
        } else if let Select2::First(Some(peer)) = Types::select2(pin!(calls.next()), pause).await {
            called.remove(&peer);
        }
    }
}

/// One call, and the pause behind it: a peer that does not answer is called again.
async fn call(router: &Router, peer: NodeId, group: &Group, again: Duration) -> NodeId {
    let met = router.meet(peer, group.id).await;
    Types::sleep(if met || group.has_nothing() { again } else { LOOK_EVERY }).await;
    peer
}
