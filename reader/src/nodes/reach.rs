//! Reaching nodes: several at a time, each a little after the one before, so that one that is gone costs a moment and not a time-out.
//!
//! Only connections race. A request goes to one node after the other: it is signed, may stand in a room's audit, and is to stand there once.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use certs::{ChannelError, Connection};
use ehe::charter::Node;
use ehe::id::NodeId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Nodes;

/// How long one node gets to be reached, where none was.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a node gets to say that it is there, where another one did: two tries to shake hands.
pub(super) const PROBE: Duration = Duration::from_secs(2);
/// After so long without an answer the next node is tried as well.
const STAGGER: Duration = Duration::from_secs(1);
/// For so long a node that did not answer is not waited for again by a question to it alone.
const FRESH: Duration = Duration::from_secs(5);

/// A node that no connection came about with: what is to be said of it, and whether trying again later may help.
#[derive(Debug, Clone)]
pub(super) struct Unreached {
    pub(super) why: String,
    pub(super) again: bool,
    /// It did not answer in time: asking it again takes as long.
    in_time: bool,
}

impl Unreached {
    fn of(node: &Node, why: &ChannelError) -> Self {
        let (name, addresses) = (&node.name, node.addresses.join(", "));
        let said = match why {
            ChannelError::Deadline(_) => {
                format!("{name}: no answer at {addresses}: is the node running, and does UDP get through to it?")
            }
            ChannelError::Unreachable(_) => format!("{name}: {why} (its addresses: {addresses})"),
            _ => format!("{name}: {why}"),
        };
        let in_time = !matches!(why, ChannelError::Deadline(_));
        Self { why: said, again: why.retry_helps(), in_time }
    }
}

/// A node that did not answer.
#[derive(Debug)]
pub(super) struct Silent {
    since: Instant,
    /// What came of connecting to it, if that took its whole time.
    unreached: Option<Unreached>,
}

impl Silent {
    pub(super) fn now() -> Self {
        Self { since: Instant::now(), unreached: None }
    }
}

/// What came of reaching nodes.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Those that are connected.
    pub(super) reached: BTreeSet<NodeId>,
    /// Those that were found to be away. In neither is who was not waited for.
    pub(super) away: Vec<(NodeId, Unreached)>,
}

impl Nodes {
    /// Connects to all of these nodes at once, for questions that each of them is asked.
    pub async fn reach_all(&mut self, nodes: &[NodeId]) {
        self.reach(nodes, (Duration::ZERO, CONNECT_MAX), |_| false).await;
    }

    /// Connects to these nodes in their order, until those that are connected are enough.
    pub async fn reach_enough(&mut self, nodes: &[NodeId], enough: impl Fn(&BTreeSet<NodeId>) -> bool) {
        self.reach(nodes, (STAGGER, CONNECT_MAX), enough).await;
    }

    /// Connects to the first of these nodes that answers; who is connected already has answered.
    pub(super) async fn reach_one(&mut self, nodes: &[NodeId], within: Duration) -> Reached {
        let tries = u32::try_from(nodes.len()).unwrap_or(u32::MAX).saturating_add(1);
        let stagger = STAGGER.min(within / tries);
        self.reach(nodes, (stagger, within), |reached| !reached.is_empty()).await
    }

    /// Connects to one node, unless it was found to be away just now.
    pub(super) async fn reach_this(&mut self, node: NodeId) -> Result<(), Unreached> {
        let known = self.silent.get(&node).filter(|silent| silent.since.elapsed() < FRESH);
        if let Some(unreached) = known.and_then(|silent| silent.unreached.clone()) {
            return Err(unreached);
        }
        let within = if self.connections.is_empty() { CONNECT_MAX } else { PROBE };
        let away = self.reach_one(&[node], within.min(self.patience)).await.away.pop();
        away.map_or(Ok(()), |(_, unreached)| Err(unreached))
    }

    /// Whether there is a connection to a node.
    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.connections.get(&node).is_some_and(Connection::is_open)
    }

    /// Connects to nodes in their order: to the next when one fails or has been silent for `stagger`. Once one was reached the others get
    /// no more than [`PROBE`] each. Who has not answered is asked last from now on.
    async fn reach(
        &mut self,
        nodes: &[NodeId],
        (stagger, within): (Duration, Duration),
        enough: impl Fn(&BTreeSet<NodeId>) -> bool,
    ) -> Reached {
        let (mut away, mut waiting) = (Vec::new(), VecDeque::new());
        let mut reached: BTreeSet<NodeId> = nodes.iter().copied().filter(|id| self.is_connected(*id)).collect();
        for id in nodes.iter().filter(|id| !reached.contains(*id)) {
            match self.node(*id) {
                Some(node) => waiting.push_back(node),
                None => {
                    let why = format!("node {id} is not in the charter");
                    away.push((*id, Unreached { why, again: false, in_time: true }));
                }
            }
        }
        let (begun, end) = (Instant::now(), Instant::now() + within);
        let mut under_way: JoinSet<(NodeId, Result<Connection, ChannelError>)> = JoinSet::new();
        let mut tried: Vec<(Node, Instant)> = Vec::new();
        let (mut next, mut last) = (begun, begun);
        while !enough(&reached) {
            if Instant::now() >= next
                && let Some(node) = waiting.pop_front()
            {
                (last, next) = (Instant::now(), Instant::now() + stagger);
                tried.push((node.clone(), last));
                let (client, left) = (self.client.clone(), end.saturating_duration_since(last));
                under_way.spawn(async move { (node.id, client.connect_to(&node, left).await) });
                continue;
            }
            if waiting.is_empty() && under_way.is_empty() {
                break;
            }
            let until = match (waiting.is_empty(), reached.is_empty()) {
                (false, _) => next.min(end),
                (true, true) => end,
                (true, false) => (last + PROBE).min(end),
            };
            tokio::select! {
                biased;
                Some(done) = under_way.join_next() => match done {
                    Ok((id, Ok(connection))) => {
                        self.connections.insert(id, connection);
                        self.silent.remove(&id);
                        reached.insert(id);
                        // The others get their time from now.
                        last = Instant::now();
                    }
                    Ok((id, Err(why))) => {
                        let node = tried.iter().find(|(node, _)| node.id == id);
                        away.extend(node.map(|(node, _)| (id, Unreached::of(node, &why))));
                        next = Instant::now();
                    }
                    // It ended without a word, as one does that is waited for in vain.
                    Err(_) => {}
                },
                () = sleep_until(until) => {
                    if Instant::now() >= end || waiting.is_empty() {
                        break;
                    }
                }
            }
        }
        let whole = !enough(&reached);
        for (node, since) in &tried {
            let known = reached.contains(&node.id) || away.iter().any(|(id, _)| *id == node.id);
            if !known && whole {
                away.push((node.id, Unreached::of(node, &ChannelError::Deadline("the node did not answer in time"))));
            } else if !known && since.elapsed() >= stagger {
                self.silent.insert(node.id, Silent { since: *since, unreached: None });
            }
        }
        // Nobody was left to be tried, or the time was over before these were.
        if whole {
            let late = ChannelError::Deadline("there was no time left to try it");
            away.extend(waiting.iter().map(|node| (node.id, Unreached::of(node, &late))));
        }
        for (id, unreached) in &away {
            let unreached = Some(unreached.clone()).filter(|unreached| !unreached.in_time);
            self.silent.insert(*id, Silent { since: Instant::now(), unreached });
        }
        Reached { reached, away }
    }
}
