//! Asking the nodes that hold a room: the next one where one fails, the right one where one says who it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use certs::{ChannelError, Client, CloseCode, Connection, Credentials, Exchange};
use ehe::charter::{CharterChain, Node, VerifiedCharter};
use ehe::id::{NodeId, RoomId};
use ehe::refusal::{Fault, Refusal};
use ehe::wire::{Request, Response};
use tokio::time::{Instant, sleep, timeout};

use crate::error::Error;

/// How long one node gets to be reached.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a node that is silent gets to say that it is there.
const PROBE: Duration = Duration::from_secs(2);
/// Pause before all nodes are tried again.
const PAUSE: Duration = Duration::from_millis(250);
/// A node may point to another one this often before that counts as no answer.
const HOPS_MAX: usize = 4;

/// The nodes of the alliance, as one identity reaches them.
pub struct Nodes {
    credentials: Credentials,
    client: Client,
    connections: BTreeMap<NodeId, Connection>,
    /// Nodes that did not answer: asked after the others, because waiting for them takes long.
    silent: BTreeSet<NodeId>,
    /// Who said something last.
    spoke: Option<NodeId>,
    /// For each answer; and for trying again while no node can answer.
    patience: Duration,
}

/// What a node made of a request: it answers, or somebody else has to be asked.
enum Outcome {
    Answers(Box<Answers>),
    Ask(NodeId),
    /// Trying again later may help (`true`), or somebody has to do something first.
    Failed(String, bool),
    Refused(Refusal),
}

/// A node that no connection came about with: where it was looked for, and what the reader can do.
fn unreached(node: &Node, why: &ChannelError) -> Outcome {
    let (name, addresses) = (&node.name, node.addresses.join(", "));
    let said = match why {
        ChannelError::Deadline(_) => {
            format!("{name}: no answer at {addresses}: is the node running, and does UDP get through to it?")
        }
        ChannelError::Unreachable(_) => format!("{name}: {why} (its addresses: {addresses})"),
        _ => format!("{name}: {why}"),
    };
    Outcome::Failed(said, why.retry_helps())
}

/// A node's answers to one request.
pub struct Answers {
    node: String,
    exchange: Exchange,
    first: Option<Response>,
    patience: Duration,
}

impl Nodes {
    /// Binds a socket; connects to nobody yet. Needs a tokio runtime around it.
    pub fn new(credentials: Credentials, patience: Duration) -> Result<Self, Error> {
        let client = Client::new(&credentials).map_err(Error::Network)?;
        Ok(Self { credentials, client, connections: BTreeMap::new(), silent: BTreeSet::new(), spoke: None, patience })
    }

    fn charter(&self) -> &VerifiedCharter {
        self.credentials.charter()
    }

    /// Asks the nodes of a room's shard until one answers. `request` is made anew for each try: a nonce counts once.
    pub async fn ask(&mut self, room: RoomId, mut request: impl FnMut() -> Request) -> Result<Answers, Error> {
        let deadline = Instant::now() + self.patience;
        let mut said = false;
        let mut group = self.holders(room);
        loop {
            self.forget_lost();
            self.by_answering(&mut group);
            let (mut failures, mut later) = (Vec::new(), None);
            let mut retry = false;
            for first in &group {
                let mut node = *first;
                for _ in 0..HOPS_MAX {
                    match self.try_node(node, &request()).await {
                        Outcome::Answers(answers) => return Ok(*answers),
                        Outcome::Ask(other) if other != node => {
                            self.learn_of(other, node).await;
                            node = other;
                        }
                        Outcome::Ask(_) => break,
                        Outcome::Failed(why, again) => {
                            failures.push(why);
                            retry |= again;
                            break;
                        }
                        Outcome::Refused(refusal) if refusal.fault() == Fault::Node => {
                            later = Some(refusal);
                            retry = true;
                            break;
                        }
                        Outcome::Refused(refusal) => return Err(Error::Refused(refusal)),
                    }
                }
            }
            if !retry || Instant::now() + PAUSE >= deadline {
                let none = Error::NoNode { why: failures, waited: retry.then_some(self.patience), later: retry };
                return Err(later.map_or(none, Error::Refused));
            }
            if !said {
                said = true;
                tracing::warn!(
                    "no node answers yet ({}); trying on for up to {} s in all (--timeout)",
                    later.map_or_else(|| failures.join("; "), |why| why.to_string()),
                    self.patience.as_secs()
                );
            }
            sleep(PAUSE).await;
        }
    }

    /// Who has a room: by the charter at hand, then by the one before, whose nodes have it until it has come to the others.
    fn holders(&self, room: RoomId) -> Vec<NodeId> {
        let shard = room.shard(self.charter().shard_count());
        let mut holders = self.charter().group(shard).to_vec();
        for node in self.before().iter().flat_map(|before| before.group(shard)) {
            if !holders.contains(node) {
                holders.push(*node);
            }
        }
        holders
    }

    /// The charter before the one at hand.
    fn before(&self) -> Option<VerifiedCharter> {
        let (_, earlier) = self.credentials.charter_chain().0.split_last()?;
        CharterChain(earlier.to_vec()).verify(self.credentials.alliance_id()).ok()
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        let newest = self.charter().node(id).cloned();
        newest.or_else(|| self.before().and_then(|before| before.node(id).cloned()))
    }

    /// A node named another one that the charter at hand does not have: it may be of a newer charter, which the first can show. It is
    /// verified like any; who follows it from here on, and keeps it, what is shown under it decides.
    async fn learn_of(&mut self, named: NodeId, by: NodeId) {
        if self.node(named).is_some() {
            return;
        }
        let Outcome::Answers(mut answers) = self.try_node(by, &Request::Charter).await else { return };
        if let Ok(Response::Charter(bytes)) = answers.next().await
            && let Ok(chain) = Response::charters(&bytes)
            && let Ok(Some(newer)) = self.credentials.extended_by(&chain)
        {
            self.go_under(newer);
        }
    }

    /// Asks one node, for what only it can say.
    pub async fn ask_node(&mut self, node: NodeId, request: &Request) -> Result<Answers, Error> {
        match self.try_node(node, request).await {
            Outcome::Answers(answers) => Ok(*answers),
            Outcome::Refused(refusal) => Err(Error::Refused(refusal)),
            Outcome::Failed(why, later) => Err(Error::NoNode { why: vec![why], waited: None, later }),
            Outcome::Ask(other) => {
                let why = vec![format!("{} points to {}", self.name_of(node), self.name_of(other))];
                Err(Error::NoNode { why, waited: None, later: true })
            }
        }
    }

    /// Goes on under other charters. Connections to nodes that are others now are not used any more.
    pub fn go_under(&mut self, credentials: Credentials) {
        let (old, new) = (self.credentials.charter(), credentials.charter());
        self.connections.retain(|id, _| old.node(*id) == new.node(*id));
        self.silent.clear();
        self.credentials = credentials;
    }

    /// Whether a node that has been silent for a while is there at all: one that was killed does not say that its connections are
    /// gone, and the transport notices late. If it is not, others are asked before it from now on.
    pub async fn is_there(&mut self, node: NodeId) -> bool {
        let asked = timeout(PROBE, self.ask_node(node, &Request::Status)).await;
        let there = matches!(asked, Ok(Ok(_) | Err(Error::Refused(_))));
        if !there {
            self.ask_last(node);
        }
        there
    }

    /// Others are asked before this node from now on.
    pub fn ask_last(&mut self, node: NodeId) {
        self.connections.remove(&node);
        self.silent.insert(node);
    }

    /// Puts those last that did not answer when they were asked before.
    pub fn by_answering(&self, nodes: &mut [NodeId]) {
        nodes.sort_by_key(|node| self.silent.contains(node));
    }

    /// The node that said something last.
    pub fn last(&self) -> Option<NodeId> {
        self.spoke
    }

    /// The name of the node that said something last, for messages.
    pub fn spoke_last(&self) -> String {
        self.spoke.map_or_else(|| "?".to_owned(), |node| self.name_of(node))
    }

    /// The name of a node, for messages.
    pub fn name_of(&self, node: NodeId) -> String {
        self.charter().node(node).map_or_else(|| node.to_string(), |node| node.name.clone())
    }

    async fn try_node(&mut self, id: NodeId, request: &Request) -> Outcome {
        let Some(node) = self.node(id) else {
            return Outcome::Failed(format!("node {id} is not in the charter"), false);
        };
        let failed = |why: ChannelError| Outcome::Failed(format!("{}: {why}", node.name), why.retry_helps());
        let connection = match self.connection(&node).await {
            Ok(connection) => connection,
            Err(why) => {
                self.silent.insert(id);
                return unreached(&node, &why);
            }
        };
        self.silent.remove(&id);
        let answers = async {
            let mut exchange = connection.open().await?;
            exchange.send(&request.to_vec(), self.patience).await?;
            exchange.finish()?;
            let first = exchange.recv(self.patience).await?;
            Ok((exchange, first))
        };
        let (exchange, first) = match answers.await {
            Ok((exchange, Some(first))) => (exchange, first),
            Ok((_, None)) => return Outcome::Failed(format!("{}: no answer", node.name), true),
            Err(why) => {
                self.connections.remove(&id);
                return failed(why);
            }
        };
        self.spoke = Some(id);
        match Response::decode(&first) {
            Ok(Response::AskNode(other)) => Outcome::Ask(other),
            Ok(Response::Refused(refusal)) => Outcome::Refused(refusal),
            Ok(first) => {
                let (node, patience) = (node.name, self.patience);
                Outcome::Answers(Box::new(Answers { node, exchange, first: Some(first), patience }))
            }
            Err(why) => Outcome::Failed(format!("{}: {why}", node.name), false),
        }
    }

    /// A connection that ended by itself was to a node that is gone: the others are asked before it.
    fn forget_lost(&mut self) {
        let lost: Vec<NodeId> =
            self.connections.iter().filter(|(_, open)| !open.is_open()).map(|(node, _)| *node).collect();
        for node in lost {
            self.connections.remove(&node);
            self.silent.insert(node);
        }
    }

    async fn connection(&mut self, node: &Node) -> Result<Connection, ChannelError> {
        if let Some(open) = self.connections.get(&node.id).filter(|open| open.is_open()) {
            return Ok(open.clone());
        }
        let connection = self.client.connect_to(node, CONNECT_MAX.min(self.patience)).await?;
        self.connections.insert(node.id, connection.clone());
        Ok(connection)
    }

    /// Closes all connections and lets the nodes know.
    pub async fn close(self) {
        self.client.close(CloseCode::Done);
        self.client.wait_idle(Duration::from_secs(1)).await;
    }
}

impl Answers {
    /// Who answers.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The next answer.
    pub async fn next(&mut self) -> Result<Response, Error> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let broke_off = |why: String| Error::BrokeOff { node: self.node.clone(), why };
        let frame = self.exchange.recv(self.patience).await.map_err(|e| broke_off(e.to_string()))?;
        let frame = frame.ok_or_else(|| broke_off("it ended before everything was said".into()))?;
        match Response::decode(&frame) {
            Ok(Response::Refused(refusal)) => Err(Error::Refused(refusal)),
            Ok(response) => Ok(response),
            Err(why) => Err(self.unexpected(why.to_string())),
        }
    }

    /// The next answer, if it is here within this time. Waiting on loses nothing.
    pub async fn next_within(&mut self, within: Duration) -> Result<Option<Response>, Error> {
        // The rest of it, or what is wrong, comes in the usual way.
        if self.first.is_none()
            && let Err(ChannelError::Deadline(_)) = self.exchange.announced(within).await
        {
            return Ok(None);
        }
        self.next().await.map(Some)
    }

    /// The error for a node that is not there any more.
    pub fn silent(&self) -> Error {
        Error::BrokeOff { node: self.node.clone(), why: "it is silent".into() }
    }

    /// The error for an answer that does not belong here.
    pub fn unexpected(&self, what: impl ToString) -> Error {
        Error::Protocol { node: self.node.clone(), what: what.to_string() }
    }
}
