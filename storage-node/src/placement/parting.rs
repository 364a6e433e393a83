//! Nodes that the newest charter has no more: they see their shards off, and are cut off then.
//!
//! A charter that lets a node go takes effect shard by shard, and until it has, the node votes, cosigns, and hands over what it has. So
//! whoever is in a charter before stays known ([`Charters::node`]), but here only for as long as a shard of this node's needs it: until
//! the newest charter is in effect in each of them, vouched for by the group before, and the node is no member any more, which is committed.
//! Then its connections end, and what it said counts no more. It is given a moment to hear of the charter that lets it go. A node that keeps
//! what it has of a shard that moved away may never hear how that went on: it speaks to who was let go until it has given that up.
//!
//! What it still has of shards, it keeps: nobody tells it that it may go ([`farewell`](super::farewell)). Who wants that removed by the node itself
//! moves its shards away first, and lets the node go in a later charter.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::CloseCode;
use ehe::id::NodeId;
use tokio_util::sync::CancellationToken;

use crate::charters::Charters;
use crate::checkpoint::Board;
use crate::consensus::{Consensus, GroupId};
use crate::node::{node_id, raft_id};
use crate::peers::{Alliance, Reach};

/// For so long it hears of the charter in any case: others ask and tell each other of charters every 5 s, and at once of new ones.
const LAST_WORD: Duration = Duration::from_secs(10);
/// Looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A shard as seen from a node that is let go.
#[derive(Debug, Clone, Copy)]
struct Shard {
    /// The newest charter gives this node a part.
    given: bool,
    /// This node has something of it. It may be several charters behind, and this node still vote in it; and what was once given up here, may
    /// have been given back.
    here: bool,
    /// The version of the charter in effect in the state here, whose members are meant below: the shard may be ahead of it.
    in_effect: u32,
    /// The group before has not vouched for it yet.
    unvouched: bool,
    /// The node is no member, which is committed, and is not to become one.
    without: bool,
}

/// Whether nothing here needs a node that charter `newest` lets go. Pure.
fn is_seen_off(newest: u32, shards: &[Shard]) -> bool {
    let mut parts = shards.iter().filter(|shard| shard.given || shard.here);
    parts.all(|shard| shard.in_effect >= newest && !shard.unvouched && shard.without)
}

/// The earliest charter whose nodes a shard needs of which this node has anything, or is to: the one in effect in it; where nothing of it is
/// here yet, the one before this node was to have it, whose nodes hand it over. Of those of earlier ones, who was let go may have been for a
/// reason.
pub fn needed_since(charters: &Charters, consensus: &Consensus, board: &Board) -> u32 {
    let me = node_id(consensus.node_id());
    let needed = |group: GroupId| {
        let applied = consensus.status(group).is_some_and(|status| status.applied.is_some());
        let given = || Some(charters.given_from(me, group.0)?.saturating_sub(1));
        if applied { Some(board.applied_under(group.0)) } else { given() }
    };
    consensus.groups().filter_map(needed).min().unwrap_or_else(|| charters.version())
}

fn is_here(consensus: &Consensus, group: GroupId) -> bool {
    consensus.status(group).is_some_and(|it| it.last_index.is_some() || it.applied.is_some())
}

/// Lets nodes go.
#[derive(Debug)]
pub struct Parting {
    /// Who is in which charter.
    pub charters: Charters,
    /// Who is a member.
    pub consensus: Consensus,
    /// Which charter is in effect.
    pub board: Arc<Board>,
    /// What they said.
    pub alliance: Arc<Alliance>,
    /// The ways to them.
    pub reach: Reach,
}

impl Parting {
    /// Works until the node stops.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let (version, since) = (self.charters.version(), Instant::now());
            let same = async {
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    if since.elapsed() >= LAST_WORD {
                        self.look();
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.charters.newer_than(version) => {}
                () = same => {}
            }
        }
    }

    fn look(&self) {
        let (version, leaving) = self.charters.leaving();
        let me = node_id(self.consensus.node_id());
        // Who is let go itself goes on as long as others speak to it.
        for node in leaving.into_iter().filter(|node| *node != me) {
            if !is_seen_off(version, &self.shards(node)) {
                continue;
            }
            tracing::info!(%node, version, "the node is in the charter no more, and nothing here needs it: it is not spoken to from now on");
            self.charters.see_off(node, version);
            self.alliance.forget(node);
            self.reach.dialer().close_node(node, CloseCode::NotAuthorized);
            // Of a charter that comes meanwhile, nobody may be shut out.
            loop {
                let known = self.charters.version();
                let others: BTreeSet<NodeId> =
                    self.charters.nodes().iter().map(|it| it.id).filter(|id| *id != me).collect();
                self.board.admit(others);
                if self.charters.version() == known {
                    break;
                }
            }
        }
    }

    fn shards(&self, leaving: NodeId) -> Vec<Shard> {
        let (me, newest) = (node_id(self.consensus.node_id()), self.charters.newest());
        let seen = |group: GroupId| Shard {
            given: newest.group(group.0).contains(&me),
            here: is_here(&self.consensus, group),
            in_effect: self.board.applied_under(group.0),
            unvouched: self.board.in_effect(group.0).is_some_and(|now| now.before.is_some()),
            without: self.consensus.goes_on_without(group, raft_id(leaving)),
        };
        self.consensus.groups().map(seen).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_needed_until_each_shard_is_under_the_newest_charter_vouched_for_and_without_it() {
        let done = Shard { given: true, here: true, in_effect: 3, unvouched: false, without: true };
        assert!(is_seen_off(3, &[]));
        assert!(is_seen_off(3, &[done, done]));
        for open in
            [Shard { in_effect: 2, ..done }, Shard { unvouched: true, ..done }, Shard { without: false, ..done }]
        {
            assert!(!is_seen_off(3, &[done, open]), "{open:?}");
            // Voted in, though two charters gave it to others since; given, though nothing has come yet.
            assert!(
                !is_seen_off(3, &[Shard { given: false, ..open }]) && !is_seen_off(3, &[Shard { here: false, ..open }])
            );
            assert!(is_seen_off(3, &[done, Shard { given: false, here: false, ..open }]), "it lives elsewhere");
        }
    }
}
