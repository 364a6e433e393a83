//! Asking the nodes that hold a room: the next one where one fails, the right one where one says who it is.

mod reach;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use certs::{ChannelError, Client, CloseCode, Connection, Credentials, Exchange};
use ehe::charter::{CharterChain, CharterError, Gathering, Node, VerifiedCharter};
use ehe::id::{NodeId, RoomId};
use ehe::refusal::{Fault, Refusal};
use ehe::wire::{Request, Response};
use tokio::time::{Instant, sleep, timeout};

use self::reach::{CONNECT_MAX, PROBE, Reached, Silent};
use crate::error::Error;
use crate::session::kind;

/// All charters that a node has are here within this time: 16 MiB over a slow line.
const CHARTERS_WITHIN: Duration = Duration::from_secs(120);
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
    silent: BTreeMap<NodeId, Silent>,
    /// Who said something last.
    spoke: Option<NodeId>,
    /// For each answer; and for trying again while no node can answer.
    patience: Duration,
    /// All of it was waited for an answer, and none came: what is asked after that is not waited for as long again.
    waited: bool,
}

/// What a node made of a request: it answers, or somebody else has to be asked.
enum Outcome {
    Answers(Box<Answers>),
    Ask(NodeId),
    /// Trying again later may help (`true`), or somebody has to do something first.
    Failed(String, bool),
    Refused(Refusal),
}

/// What came of asking all nodes of a room's shard once.
#[derive(Default)]
struct Round {
    failures: Vec<String>,
    later: Option<Refusal>,
    /// Trying again may help.
    retry: bool,
    /// Nodes that were not reached: another one may point to them, and they are not waited for twice.
    away: BTreeSet<NodeId>,
    /// One answered, be it that it could not.
    heard: bool,
}

impl Round {
    fn failed(&mut self, why: String, again: bool) {
        self.failures.push(why);
        self.retry |= again;
    }
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
        let (connections, silent) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { credentials, client, connections, silent, spoke: None, patience, waited: false })
    }

    fn charter(&self) -> &VerifiedCharter {
        self.credentials.charter()
    }

    /// Asks the nodes of a room's shard until one answers. `request` is made anew for each try: a nonce counts once.
    pub async fn ask(&mut self, room: RoomId, mut request: impl FnMut() -> Request) -> Result<Answers, Error> {
        let patience = if self.waited { self.patience.min(PROBE) } else { self.patience };
        let deadline = Instant::now() + patience;
        let (mut said, mut sent) = (false, false);
        let mut group = self.holders(room);
        loop {
            self.forget_lost();
            self.by_answering(&mut group);
            let mut asked = || {
                sent = true;
                request()
            };
            let Round { failures, later, retry, .. } = match self.round(group.clone(), &mut asked, deadline).await {
                Ok(answers) => {
                    self.waited = false;
                    return Ok(answers);
                }
                Err(round) => round?,
            };
            if !retry || Instant::now() + PAUSE >= deadline {
                self.waited |= retry;
                let none = Error::NoNode { why: failures, waited: retry.then_some(patience), later: retry, sent };
                return Err(later.map_or(none, Error::Refused));
            }
            if !said {
                said = true;
                tracing::warn!(
                    "no node answers yet ({}); trying on for up to {} s in all (--timeout)",
                    later.map_or_else(|| failures.join("; "), |why| why.to_string()),
                    patience.as_secs()
                );
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks each of these nodes once, whoever is reached first before the others, and whom they point to. A refusal that is final is
    /// the inner error.
    async fn round(
        &mut self,
        mut rest: Vec<NodeId>,
        request: &mut impl FnMut() -> Request,
        deadline: Instant,
    ) -> Result<Answers, Result<Round, Error>> {
        let mut round = Round::default();
        let left = || deadline.saturating_duration_since(Instant::now());
        while !rest.is_empty() {
            // A node that is away is not waited for as long, where another one asks to be asked again.
            let within = if round.heard { PROBE } else { CONNECT_MAX };
            let Reached { reached, away } = self.reach_one(&rest, within.min(left())).await;
            for (id, unreached) in away {
                rest.retain(|node| *node != id);
                round.away.insert(id);
                round.failed(unreached.why, unreached.again);
            }
            let Some(place) = rest.iter().position(|node| reached.contains(node)) else { break };
            let mut node = rest.remove(place);
            for hop in 0..HOPS_MAX {
                if hop > 0 && !self.is_connected(node) {
                    if round.away.contains(&node) {
                        break;
                    }
                    if let Some((id, unreached)) = self.reach_one(&[node], PROBE.min(left())).await.away.pop() {
                        round.away.insert(id);
                        round.failed(unreached.why, unreached.again);
                        break;
                    }
                }
                // One that is connected and silent leaves time for those after it.
                let within = if rest.is_empty() { left() } else { left() / 2 };
                match self.put(node, &request(), within).await {
                    Outcome::Answers(answers) => return Ok(*answers),
                    Outcome::Ask(other) if other != node => {
                        round.heard = true;
                        self.learn_of(other, node).await;
                        node = other;
                    }
                    Outcome::Ask(_) => break,
                    Outcome::Failed(why, again) => {
                        round.failed(why, again);
                        break;
                    }
                    Outcome::Refused(refusal) if refusal.fault() == Fault::Node => {
                        (round.later, round.retry, round.heard) = (Some(refusal), true, true);
                        break;
                    }
                    Outcome::Refused(refusal) => return Err(Err(Error::Refused(refusal))),
                }
            }
        }
        Err(Ok(round))
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
        let own = self.credentials.clone();
        if let Ok(Some(newer)) = self.newer_charters(by, &own).await {
            self.go_under(newer);
        }
    }

    /// Credentials under newer charters that a node has, verified; `None` if it has none.
    pub async fn newer_charters(&mut self, node: NodeId, own: &Credentials) -> Result<Option<Credentials>, Error> {
        let name = self.name_of(node);
        let endless = "its charters do not come to an end";
        let gathered = match timeout(CHARTERS_WITHIN, self.gather(node, own)).await {
            Ok(gathered) => gathered?,
            Err(_) => return Err(Error::BrokeOff { node: name, why: endless.into() }),
        };
        let Some(chain) = gathered.newer() else { return Ok(None) };
        own.extended_by(&chain).map_err(|why| Error::Charters { node: name, why })
    }

    /// One's own charters, and those that a node has after them, unverified.
    async fn gather(&mut self, node: NodeId, own: &Credentials) -> Result<Gathering, Error> {
        let mut gathering = Gathering::after(own.charter_chain().clone());
        loop {
            let mut answers = self.ask_node(node, &Request::Charter(gathering.from())).await?;
            let answer = match answers.next().await? {
                Response::Charter(answer) => answer,
                other => return Err(answers.unexpected(kind(&other))),
            };
            let wrong = |why: CharterError| Error::Charters { node: answers.node.clone(), why: why.into() };
            if !gathering.take(&answer).map_err(wrong)? {
                return Ok(gathering);
            }
        }
    }

    /// Asks one node, for what only it can say.
    pub async fn ask_node(&mut self, node: NodeId, request: &Request) -> Result<Answers, Error> {
        match self.try_node(node, request).await {
            Outcome::Answers(answers) => Ok(*answers),
            Outcome::Refused(refusal) => Err(Error::Refused(refusal)),
            Outcome::Failed(why, later) => Err(Error::OneNode { why, later }),
            Outcome::Ask(other) => {
                let why = format!("{}: it points to {}", self.name_of(node), self.name_of(other));
                Err(Error::OneNode { why, later: true })
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

    /// What is asked next may take its whole time again, whatever was waited for in vain before.
    pub fn wait_anew(&mut self) {
        self.waited = false;
    }

    /// Others are asked before this node from now on.
    pub fn ask_last(&mut self, node: NodeId) {
        self.connections.remove(&node);
        self.silent.insert(node, Silent::now());
    }

    /// Puts those last that did not answer when they were asked before.
    pub fn by_answering(&self, nodes: &mut [NodeId]) {
        nodes.sort_by_key(|node| self.silent.contains_key(node));
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
        match self.reach_this(id).await {
            Ok(()) => self.put(id, request, self.patience).await,
            Err(unreached) => Outcome::Failed(unreached.why, unreached.again),
        }
    }

    /// Asks a node that is connected. Its first answer has to be here within this time.
    async fn put(&mut self, id: NodeId, request: &Request, within: Duration) -> Outcome {
        let (Some(node), Some(connection)) = (self.node(id), self.connections.get(&id).cloned()) else {
            return Outcome::Failed(format!("{}: the connection is gone", self.name_of(id)), true);
        };
        let failed = |why: ChannelError| Outcome::Failed(format!("{}: {why}", node.name), why.retry_helps());
        let answers = async {
            let opened = timeout(within, connection.open()).await;
            let mut exchange = opened.map_err(|_| ChannelError::Deadline("the node takes no further request"))??;
            exchange.send(&request.to_vec(), within).await?;
            exchange.finish()?;
            let first = exchange.recv(within).await?;
            Ok((exchange, first))
        };
        let (exchange, first) = match answers.await {
            Ok((exchange, Some(first))) => (exchange, first),
            Ok((_, None)) => return Outcome::Failed(format!("{}: no answer", node.name), true),
            Err(why) => {
                self.ask_last(id);
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
            self.ask_last(node);
        }
    }

    /// Closes all connections and lets the nodes know.
    pub async fn close(self) {
        self.client.close(CloseCode::Done);
        // Who is not there is not going to take leave.
        let within = if self.silent.is_empty() { Duration::from_secs(1) } else { PAUSE };
        self.client.wait_idle(within).await;
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
