//! A client's way to whoever orders a shard, as a gateway goes it: the node that named itself or was named, else the next one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use certs::{Client, Connection, Credentials};
use ehe::charter::VerifiedCharter;
use ehe::id::NodeId;
use ehe::refusal::{Fault, Refusal};
use ehe::wire::Response;

/// A node gets so long to let somebody in.
const CONNECT: Duration = Duration::from_secs(2);
/// Who did not answer is not asked again for so long because another node, which has not noticed yet, names it.
const SILENT: Duration = Duration::from_secs(1);
/// Pause before the next node is asked.
const PAUSE: Duration = Duration::from_millis(10);

/// One identity's connections to all nodes. Copies are the same.
#[derive(Debug, Clone)]
pub struct Line {
    client: Client,
    charter: Arc<VerifiedCharter>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    connections: BTreeMap<NodeId, Connection>,
    leaders: BTreeMap<u16, NodeId>,
    silent: BTreeMap<NodeId, Instant>,
}

impl State {
    fn learn(&mut self, shard: u16, said_by: NodeId, what: NotHere) {
        let silent = |node: &NodeId| self.silent.get(node).is_some_and(|since| since.elapsed() < SILENT);
        match what {
            NotHere::AskNode(leader) if leader != said_by && !silent(&leader) => self.leaders.insert(shard, leader),
            _ => self.leaders.remove(&shard),
        };
    }
}

/// One request, one answer.
pub async fn ask(connection: &Connection, request: &[u8], within: Duration) -> Result<Bytes> {
    let mut exchange = tokio::time::timeout(within, connection.open()).await.context("no exchange may begin")??;
    exchange.send(request, within).await?;
    exchange.finish()?;
    exchange.recv(within).await?.context("the node ended the exchange without an answer")
}

/// What a node said that another one, or the same one later, has to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotHere {
    /// Another one leads.
    AskNode(NodeId),
    /// For a reason of its own.
    Refused(Refusal),
}

impl NotHere {
    /// `None`: the answer is one.
    fn of(answer: &[u8]) -> Result<Option<Self>> {
        Ok(match Response::decode(answer)? {
            Response::AskNode(node) => Some(Self::AskNode(node)),
            Response::Refused(why) if why.fault() == Fault::Node => Some(Self::Refused(why)),
            _ => None,
        })
    }
}

impl Line {
    /// Binds a socket; connects to nobody yet.
    pub fn new(credentials: &Credentials) -> Result<Self> {
        let charter = Arc::new(credentials.charter().clone());
        Ok(Self { client: Client::new(credentials)?, charter, state: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who leads a shard, as far as was learnt.
    pub fn leader(&self, shard: u16) -> Option<NodeId> {
        self.state().leaders.get(&shard).copied()
    }

    /// This node leads a shard: it is asked first.
    pub fn led_by(&self, shard: u16, leader: NodeId) {
        self.state().leaders.insert(shard, leader);
    }

    /// The connection to a node, made if there is none.
    pub async fn connection(&self, node: NodeId, within: Duration) -> Result<Connection> {
        let open = self.state().connections.get(&node).filter(|open| open.is_open()).cloned();
        if let Some(open) = open {
            return Ok(open);
        }
        let entry = self.charter.node(node).context("the charter does not name the node")?;
        let made = self.client.connect_to(entry, within).await?;
        self.state().connections.insert(node, made.clone());
        Ok(made)
    }

    /// Asks one node, whatever it says.
    pub async fn ask_node(&self, node: NodeId, request: &[u8], within: Duration) -> Result<Bytes> {
        let connection = self.connection(node, within).await?;
        let answered = ask(&connection, request, within).await;
        if answered.is_err() {
            self.state().connections.remove(&node);
        }
        answered
    }

    /// Asks the nodes of a shard, each for at most `attempt`, until one gives an answer that is for the request and not for the
    /// node; and who it was. Asking twice is harmless.
    pub async fn ask(
        &self,
        shard: u16,
        request: &[u8],
        attempt: Duration,
        within: Duration,
    ) -> Result<(NodeId, Bytes)> {
        let deadline = Instant::now() + within;
        let group = self.charter.group(shard);
        let mut turn = group.iter().cycle();
        let mut why = None;
        while Instant::now() < deadline {
            let Some(node) = self.leader(shard).or_else(|| turn.next().copied()) else {
                bail!("the shard has no group")
            };
            let answered = match self.connection(node, CONNECT.min(attempt)).await {
                Ok(_) => self.ask_node(node, request, attempt).await,
                Err(why) => Err(why),
            };
            let not_here = match answered {
                Ok(answer) => match NotHere::of(&answer)? {
                    None => {
                        let mut state = self.state();
                        state.silent.remove(&node);
                        state.leaders.insert(shard, node);
                        return Ok((node, answer));
                    }
                    Some(not_here) => not_here,
                },
                Err(error) => {
                    why = Some(format!("{node}: {error:#}"));
                    let mut state = self.state();
                    state.silent.insert(node, Instant::now());
                    state.leaders.remove(&shard);
                    continue;
                }
            };
            why = Some(format!("{node}: {not_here:?}"));
            self.state().learn(shard, node, not_here);
            tokio::time::sleep(PAUSE).await;
        }
        bail!("no node answered for shard {shard} within {within:?}; the last: {}", why.unwrap_or_default())
    }
}
