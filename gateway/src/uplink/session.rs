//! Connections to nodes, and one question at a time on them. Every step has a deadline.

mod known;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use certs::Credentials;
use certs::certificate::Facts;
use certs::channel::{ChannelError, Client, CloseCode, Connection, Exchange};
use ehe::id::{NodeId, RoomId};
use ehe::refusal::Refusal;
use ehe::run::SeenCheckpoint;
use ehe::wire::{Request, Response};
use futures::FutureExt;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::charters::Charters;
use super::config::UplinkConfig;
use super::extends::{Anchor, Kept};
use super::line::NodeFault;
use super::nodes::Nodes;
use super::remedy::{Remedy, remedy};
use super::restored::Records;
use super::status::Board;
use super::witness::Witness;
use super::{chance, lock};
use crate::spool::Spool;

/// After so long a silence within an exchange the node is asked whether it is there at all: a node that was killed does not
/// say that its connections are gone, and one that is merely slow still answers this.
const SILENCE: Duration = Duration::from_secs(3);
/// How long it has for that.
const PROBE: Duration = Duration::from_secs(2);

/// Why nobody answered. Nothing is lost by it: what was to be sent stays in the spool.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NoAnswer {
    /// A channel, or an exchange on it.
    #[error("node {node}: {why}")]
    Channel { node: NodeId, why: ChannelError },
    /// The node failed lately; it is asked again later.
    #[error("node {node} failed lately and is asked again later")]
    Resting { node: NodeId },
    /// The node cannot at present, or is not the one.
    #[error("node {node}: {why}")]
    Refused { node: NodeId, why: Refusal },
    /// All nodes of the shard are distrusted.
    #[error("every node of shard {shard} has given proofs that do not verify, and is not asked for a while")]
    Distrusted { shard: u16 },
    /// The charter places the shard nowhere that it knows.
    #[error("the charter names no node for shard {shard}")]
    Nowhere { shard: u16 },
}

/// Nobody answered, and when to try again if that is known.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) why: NoAnswer,
    pub(super) again: Option<Instant>,
}

/// A first answer, and the exchange on which more may follow.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) node: NodeId,
    pub(super) response: Response,
    connection: Connection,
    exchange: Exchange,
}

/// All connections of this gateway, and what was learnt on them.
pub(super) struct Session {
    client: Client,
    config: UplinkConfig,
    charters: Mutex<Charters>,
    /// A chain of charters may be long: one is received at a time.
    gathering: tokio::sync::Mutex<known::Resting>,
    nodes: Mutex<Nodes>,
    links: Mutex<BTreeMap<NodeId, Arc<tokio::sync::Mutex<Link>>>>,
    pub(super) logs: Mutex<BTreeMap<u16, SeenCheckpoint>>,
    pub(super) restored: Mutex<Records>,
    witness: Mutex<Witness>,
    /// How far each shard's log is proven to go on from what was seen before.
    pub(super) anchors: Mutex<BTreeMap<u16, Anchor>>,
    pub(super) spool: Spool,
    board: Arc<Board>,
}

/// The connection to one node.
struct Link {
    connection: Option<Connection>,
    backoff: Backoff,
    resting_until: Option<Instant>,
    /// It was said that the node is not reached, and not yet that it is again.
    away: bool,
}

impl Session {
    pub(super) fn new(
        client: Client,
        mut charters: Charters,
        witness: Witness,
        (spool, kept): (Spool, Vec<(u16, Kept)>),
        config: UplinkConfig,
        board: Arc<Board>,
    ) -> Self {
        board.under(&charters.newest());
        board.note(|s| s.evidence = u64::try_from(witness.files()).unwrap_or(u64::MAX));
        kept.iter().for_each(|(shard, kept)| charters.stood(*shard, kept.charter_version()));
        let logs = kept.iter().map(|(shard, kept)| (*shard, kept.seen().clone())).collect();
        let anchors = kept.into_iter().map(|(shard, kept)| (shard, Anchor::new(kept, None))).collect();
        Self {
            client,
            config,
            charters: Mutex::new(charters),
            gathering: tokio::sync::Mutex::default(),
            nodes: Mutex::default(),
            links: Mutex::default(),
            logs: Mutex::new(logs),
            witness: Mutex::new(witness),
            anchors: Mutex::new(anchors),
            spool,
            restored: Mutex::default(),
            board,
        }
    }

    /// Asks the shard's nodes, one after the other, until one gives more than "not I" or "not now". Asking twice is harmless:
    /// what was submitted is found again by its events' ids.
    pub(super) async fn ask(&self, shard: u16, request: &[u8]) -> Result<Answer, Unanswered> {
        let mut charter = self.charter();
        let mut queue: VecDeque<NodeId> = self.nodes().order(shard, &charter, Instant::now()).into();
        // Where the shard has not come to the newest charter's nodes yet, those before have it.
        if let Some(before) = lock(&self.charters).before() {
            queue.extend(self.nodes().order(shard, &before, Instant::now()));
        }
        let mut asked = BTreeSet::new();
        let mut why = None;
        let mut again: Option<Instant> = None;
        while let Some(node) = queue.pop_front() {
            // Each node once: two nodes that name each other do not keep us.
            if !asked.insert(node) {
                continue;
            }
            match self.ask_node(node, request).await {
                Ok(Answer { response: Response::AskNode(leader), .. }) => {
                    self.nodes().does_not_lead(shard, node);
                    why.get_or_insert(NoAnswer::Refused { node, why: Refusal::NoLeader });
                    // Where the shard was moved, it may name one of a charter that this gateway has not seen.
                    if self.node(leader).is_none() && self.refresh_charter(node).await.is_ok() {
                        charter = self.charter();
                    }
                    if self.node(leader).is_some() && !asked.contains(&leader) {
                        self.nodes().leads(shard, leader);
                        queue.push_front(leader);
                    }
                }
                Ok(Answer { response: Response::Refused(refusal), .. }) if remedy(refusal) == Remedy::OtherNode => {
                    self.nodes().does_not_lead(shard, node);
                    why = Some(NoAnswer::Refused { node, why: refusal });
                }
                Ok(answer) => return Ok(answer),
                Err(unanswered) => {
                    self.nodes().does_not_lead(shard, node);
                    again = [again, unanswered.again].into_iter().flatten().min();
                    why.get_or_insert(unanswered.why);
                }
            }
        }
        let now = Instant::now();
        match why {
            // A node that answered "not now" may be asked again after the room's own pause.
            Some(why @ NoAnswer::Refused { .. }) => Err(Unanswered { why, again: None }),
            Some(why) => Err(Unanswered { why, again }),
            None => {
                let again = self.nodes().trusted_again(charter.group(shard), now);
                let why = if again.is_some() { NoAnswer::Distrusted { shard } } else { NoAnswer::Nowhere { shard } };
                Err(Unanswered { why, again })
            }
        }
    }

    /// The shard's nodes that are believed, in the order in which they are asked.
    pub(super) fn trusted(&self, shard: u16) -> Vec<NodeId> {
        self.nodes().order(shard, &self.charter(), Instant::now())
    }

    /// Asks one node, and waits for its first answer.
    pub(super) async fn ask_node(&self, node: NodeId, request: &[u8]) -> Result<Answer, Unanswered> {
        let connection = self.connection(node).await?;
        match self.exchange(&connection, request).await {
            Ok((exchange, response)) => Ok(Answer { node, response, connection, exchange }),
            Err(why) => {
                let again = self.failed(node, &connection, &why).await;
                Err(Unanswered { why: NoAnswer::Channel { node, why }, again })
            }
        }
    }

    async fn exchange(&self, connection: &Connection, request: &[u8]) -> Result<(Exchange, Response), ChannelError> {
        let within = self.config.exchange();
        let opened = timeout(within, connection.open()).await;
        let mut exchange = opened.map_err(|_| ChannelError::Deadline("the node allows no further exchange"))??;
        exchange.send(request, within).await?;
        exchange.finish()?;
        let response = self.response(connection, &mut exchange).await?;
        Ok((exchange, response))
    }

    async fn response(&self, connection: &Connection, exchange: &mut Exchange) -> Result<Response, ChannelError> {
        let within = self.config.exchange();
        match next_response(exchange, SILENCE.min(within)).await {
            Err(ChannelError::Deadline(_)) if SILENCE < within => {}
            other => return other,
        }
        match timeout(PROBE, probe(connection)).await {
            Ok(Ok(())) => next_response(exchange, within - SILENCE).await,
            Ok(Err(why)) => Err(why),
            Err(_) => Err(ChannelError::Deadline("the node is silent")),
        }
    }

    /// What follows the first answer. A failure ends the connection; the next question makes a new one.
    pub(super) async fn next(&self, answer: &mut Answer) -> Result<Response, Unanswered> {
        match self.response(&answer.connection, &mut answer.exchange).await {
            Ok(response) => Ok(response),
            Err(why) => {
                let again = self.failed(answer.node, &answer.connection, &why).await;
                Err(Unanswered { why: NoAnswer::Channel { node: answer.node, why }, again })
            }
        }
    }

    /// The open connection to a node, or a new one. Rooms that want the same node wait for one attempt together.
    async fn connection(&self, node: NodeId) -> Result<Connection, Unanswered> {
        let link = self.link(node);
        let mut link = link.lock().await;
        if let Some(connection) = &link.connection {
            if connection.is_open() {
                return Ok(connection.clone());
            }
            let why = connection.closed().await;
            self.lost(node, &mut link, &why);
        }
        if let Some(until) = link.resting_until.filter(|until| *until > Instant::now()) {
            return Err(Unanswered { why: NoAnswer::Resting { node }, again: Some(until) });
        }
        let connected = match self.node(node) {
            Some(entry) => timeout(self.config.connect(), self.client.connect_to(&entry, self.config.connect()))
                .await
                .unwrap_or(Err(ChannelError::Deadline("connecting"))),
            None => Err(ChannelError::Unreachable("the charter does not name the node".into())),
        };
        match connected {
            Ok(connection) => {
                link.connection = Some(connection.clone());
                link.resting_until = None;
                if std::mem::take(&mut link.away) {
                    tracing::info!(%node, "the node is reached again");
                }
                self.board.note(|s| {
                    s.connected_nodes += 1;
                    s.connections += 1;
                });
                Ok(connection)
            }
            Err(why) => {
                let until = Instant::now() + link.backoff.failed(chance());
                link.resting_until = Some(until);
                self.lost(node, &mut link, &why);
                Err(Unanswered { why: NoAnswer::Channel { node, why }, again: Some(until) })
            }
        }
    }

    /// Drops a connection that failed, and says when its node may be asked again.
    async fn failed(&self, node: NodeId, failed: &Connection, why: &ChannelError) -> Option<Instant> {
        if matches!(why, ChannelError::Reset(_)) && failed.is_open() {
            return None; // the node abandoned this exchange, not the connection
        }
        failed.close(CloseCode::Timeout);
        if matches!(why, ChannelError::Deadline(_))
            && let Err(error) = self.client.rebind()
        {
            // Our own address may have changed; a new socket finds the way again.
            tracing::warn!(%error, "cannot move to a new socket");
        }
        let link = self.link(node);
        let mut link = link.lock().await;
        if link.connection.as_ref().is_some_and(|connection| !connection.is_open()) {
            self.lost(node, &mut link, why);
            link.resting_until = Some(Instant::now() + link.backoff.failed(chance()));
        }
        link.resting_until
    }

    /// Looks for connections that ended while nobody asked anything on them: the outage is told when it begins, and not when
    /// the next reading comes. Says whether there were any.
    pub(super) fn look_for_losses(&self) -> bool {
        let mut lost = false;
        let links: Vec<_> = lock(&self.links).iter().map(|(node, link)| (*node, Arc::clone(link))).collect();
        for (node, link) in links {
            // Where it is locked somebody is at it, and will see for himself.
            let Ok(mut link) = link.try_lock() else { continue };
            let Some(why) = link.connection.as_ref().filter(|open| !open.is_open()).map(Connection::closed) else {
                continue;
            };
            let Some(why) = why.now_or_never() else { continue };
            self.lost(node, &mut link, &why);
            self.board.failed(format!("node {node}: {why}"));
            lost = true;
        }
        lost
    }

    /// The node cannot be reached, or not any more. Said once, until it is reached again.
    fn lost(&self, node: NodeId, link: &mut Link, why: &ChannelError) {
        if link.connection.take().is_some() {
            self.board.note(|s| s.connected_nodes = s.connected_nodes.saturating_sub(1));
        }
        if std::mem::replace(&mut link.away, true) {
            return;
        }
        let address = self.node(node).map_or_else(String::new, |entry| entry.addresses.join(" "));
        tracing::warn!(
            %node,
            address,
            %why,
            "the node is not reached; readings wait in the spool, and it is tried again. Look whether it runs, and whether UDP leaves this network to its address"
        );
    }

    /// Connections are made with these from now on.
    pub(super) fn reload(&self, credentials: &Credentials) -> Result<(), ChannelError> {
        self.client.reload(credentials)
    }

    /// Closes the connections for whose other end's certificate this gives a reason.
    pub(super) async fn close_where(&self, reason: impl Fn(&Facts) -> Option<CloseCode>) {
        let links: Vec<_> = lock(&self.links).values().cloned().collect();
        for link in links {
            let link = link.lock().await;
            if let Some(connection) = &link.connection
                && let Some(code) = reason(connection.certificate())
            {
                tracing::info!(peer = %connection.peer(), "connection closed: {code}");
                connection.close(code);
            }
        }
    }

    /// The node is behind the others of the shard: they are asked before it.
    pub(super) fn lags(&self, shard: u16, node: NodeId) {
        self.nodes().does_not_lead(shard, node);
    }

    /// The node cannot say at present.
    pub(super) fn cannot(&self, node: NodeId, why: Refusal) -> CharterTrouble {
        CharterTrouble::Unanswered(Unanswered { why: NoAnswer::Refused { node, why }, again: None })
    }

    /// The node did its work: its next failure starts from the shortest pause.
    pub(super) async fn worked(&self, node: NodeId) {
        self.link(node).lock().await.backoff.succeeded();
    }

    /// The node takes submissions of the shard.
    pub(super) fn leads(&self, shard: u16, node: NodeId) {
        self.nodes().leads(shard, node);
    }

    /// The node said what does not verify.
    pub(super) fn distrust(&self, node: NodeId, fault: &NodeFault) {
        tracing::error!(%node, %fault, "the node is not believed and not asked for a while; nothing was deleted");
        if let Some(note) = fault.forked() {
            self.witness(note);
        }
        self.nodes().distrust(node, Instant::now() + self.config.distrust());
        self.board.fault(format!("node {node}: {fault}"), |s| {
            s.proofs_refused += 1;
            s.distrusted_node = Some(node);
        });
    }

    /// A room's control records were fetched and verified. `stale`: why too few members say that they are the newest. They are used as
    /// they are, what they allow was allowed, and nodes decide by their own.
    pub(super) fn looked(&self, room: RoomId, assigned: impl Fn(&RoomId) -> bool, stale: Option<&str>) {
        let (before, now) = (self.board.looked(room, assigned, stale), stale.is_none());
        match stale {
            Some(why) if before != Some(now) => {
                tracing::warn!(%room, why, "too few members say that the room's control records are the newest");
            }
            None if before == Some(false) => {
                tracing::info!(%room, "enough members say again that the room's control records are the newest");
            }
            _ => {}
        }
    }

    /// A node showed a room's control records without newer ones, which another one has.
    pub(super) fn records_missing(&self, room: RoomId, by: NodeId, other: NodeId) {
        tracing::warn!(%room, %by, %other, "a node showed a room's control records without newer ones, which another one has");
        self.board.note(|s| s.records_missing += 1);
    }

    /// Closes what is open.
    pub(super) fn close(&self) {
        self.client.close(CloseCode::Done);
        self.board.note(|s| s.connected_nodes = 0);
    }

    /// A node, as the newest charter that has it names it.
    fn node(&self, id: NodeId) -> Option<ehe::charter::Node> {
        lock(&self.charters).node(id)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        lock(&self.nodes)
    }

    fn link(&self, node: NodeId) -> Arc<tokio::sync::Mutex<Link>> {
        let new = || {
            let backoff = Backoff::new(self.config.backoff_min_ms, self.config.backoff_max_ms);
            Arc::new(tokio::sync::Mutex::new(Link { connection: None, backoff, resting_until: None, away: false }))
        };
        lock(&self.links).entry(node).or_insert_with(new).clone()
    }
}

/// Why the newer charter is not at hand.
#[derive(Debug)]
pub(super) enum CharterTrouble {
    Unanswered(Unanswered),
    Fault(NodeFault),
}

async fn next_response(exchange: &mut Exchange, within: Duration) -> Result<Response, ChannelError> {
    let frame = exchange.recv(within).await?.ok_or(ChannelError::Truncated)?;
    // Bytes that are no response are the same to us as none: this node, as it runs now, is of no use.
    Response::decode(&frame).map_err(|_| {
        exchange.abort(CloseCode::Protocol);
        ChannelError::OtherProtocol
    })
}

/// Whether anything at all comes back.
async fn probe(connection: &Connection) -> Result<(), ChannelError> {
    let mut exchange = connection.open().await?;
    exchange.send(&Request::Status.to_vec(), PROBE).await?;
    exchange.finish()?;
    exchange.recv(PROBE).await.map(|_| ())
}
