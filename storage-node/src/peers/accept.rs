//! The accepting side: a connection of another node, and whom its streams go to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use certs::{CloseCode, Exchange, Peer};
use ehe::id::NodeId;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::alliance::Alliance;
use super::evidence::hear_evidence;
use super::link::{next_frame, stream};
use super::rarely::Rarely;
use super::reads::ReadDoor;
use super::{Kind, Repairs};
use crate::admission::{self, Standing};
use crate::charters::Charters;
use crate::checkpoint::{Board, MESSAGE_MAX_BYTES};
use crate::consensus::{Consensus, LinkError};
use crate::evidence::Keeper;
use crate::node::raft_id;
use crate::stats::Stats;

/// A stream says within this time what it is for.
const KIND_WITHIN: Duration = Duration::from_secs(10);

/// Of so many blocks that are ahead of this node's clock one is told of in the log.
const AHEAD_SAID_EVERY: u64 = 60;

/// What streams of other nodes are handed to.
#[derive(Debug)]
pub struct Accepting {
    /// Who is let in: the nodes of the alliance.
    pub charters: Charters,
    /// What they tell each other of charters and shards.
    pub alliance: Arc<Alliance>,
    /// Replication.
    pub consensus: Consensus,
    /// Checkpoints.
    pub board: Arc<Board>,
    /// Evidence.
    pub evidence: Keeper,
    /// Read requests of other nodes' clients.
    pub reads: ReadDoor,
    /// Entries for those whose disks damaged theirs.
    pub repairs: Repairs,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Who broke a rule was named a while ago.
    pub faults: Rarely,
    /// So was who orders members that no charter known here has.
    pub strangers: Rarely,
    /// So was whom no charter known here names.
    pub unnamed: Rarely,
    /// Cancelled when the node has nothing more to say to others.
    pub stop: CancellationToken,
}

impl Accepting {
    /// Serves a connection of node `from` until it ends, or its certificate's time does.
    pub async fn connection(self: Arc<Self>, peer: Peer, from: NodeId, standing: watch::Receiver<Standing>) {
        if self.charters.node(from).is_none() {
            self.unknown(from);
            peer.close(CloseCode::NotAuthorized);
            return;
        }
        Stats::add(&self.stats.peer_connections, 1);
        tokio::select! {
            // First: nothing is taken from whom the list revoked while its handshake was under way.
            biased;
            code = admission::ended(standing, peer.certificate()) => {
                let expired = code == CloseCode::Expired;
                let counter = if expired { &self.stats.connections_expired } else { &self.stats.connections_revoked };
                Stats::add(counter, 1);
                tracing::info!(%from, serial = %peer.certificate_serial(), "a node's connection closed: {code}");
                peer.close(code);
            }
            () = self.stop.cancelled() => peer.close(CloseCode::GoingAway),
            // With it goes what it has open: who was let go has nothing more to say in a group that it was once in.
            () = self.charters.without(from) => {
                Stats::add(&self.stats.peers_refused, 1);
                tracing::info!(%from, "the connection of a node that is not in the charter any more is closed");
                peer.close(CloseCode::NotAuthorized);
            }
            () = self.streams(&peer, from) => {}
        }
    }

    /// How many there may be at a time, the transport bounds.
    async fn streams(self: &Arc<Self>, peer: &Peer, from: NodeId) {
        let mut running = JoinSet::new();
        // Of one connection one piece of evidence is taken in at a time.
        let evidence = Arc::new(Semaphore::new(1));
        loop {
            tokio::select! {
                exchange = peer.accept_exchange() => match exchange {
                    // Dropping the set ends what nobody listens to any more.
                    Err(_) => return,
                    Ok(exchange) => {
                        let (this, evidence) = (Arc::clone(self), Arc::clone(&evidence));
                        running.spawn(async move { this.stream(exchange, from, &evidence).await });
                    }
                },
                Some(_) = running.join_next() => {}
            }
        }
    }

    async fn stream(&self, mut exchange: Exchange, from: NodeId, evidence: &Semaphore) {
        // A newer charter may have let it go a moment ago.
        if self.charters.node(from).is_none() {
            Stats::add(&self.stats.peers_refused, 1);
            exchange.abort(CloseCode::NotAuthorized);
            return;
        }
        let kind = match next_frame(&mut exchange.receiver, 1, KIND_WITHIN).await {
            Ok(Some(frame)) => Kind::of(&frame),
            Err(LinkError::TooLong(_)) => None,
            // It went away, or has nothing to say.
            Ok(None) | Err(_) => return,
        };
        match kind {
            Some(Kind::Consensus) => {
                if let Err(why) = self.consensus.serve(raft_id(from), stream(exchange)).await {
                    if let Some(ahead_ms) = why.ahead_ms() {
                        self.ahead(from, ahead_ms);
                    } else if why.is_about_members() {
                        self.members(from, &why);
                    } else if why.is_fault_of_peer() {
                        self.fault(from, &why);
                    } else {
                        Stats::add(&self.stats.peer_streams_ended, 1);
                        tracing::debug!(%from, %why, "a node's stream ended");
                    }
                }
            }
            Some(Kind::Checkpoints) => loop {
                match next_frame(&mut exchange.receiver, MESSAGE_MAX_BYTES, Duration::MAX).await {
                    Ok(Some(message)) => {
                        if !self.board.deliver(from, message.into()) {
                            Stats::add(&self.stats.cosigning_ignored, 1);
                        }
                    }
                    Err(why @ LinkError::TooLong(_)) => return self.fault(from, &why),
                    Ok(None) | Err(_) => return,
                }
            },
            Some(Kind::Reads) => {
                if let Err(why) = self.reads.serve(&mut exchange, from).await {
                    self.fault(from, &why);
                }
            }
            Some(Kind::Alliance) => {
                if let Err(why) = self.alliance.answer(from, &mut exchange).await {
                    tracing::debug!(%from, %why, "a node's question about the alliance is not answered");
                }
            }
            Some(Kind::Evidence) => {
                // Never closed.
                let Ok(_one) = evidence.acquire().await else { return };
                if let Err(why) = hear_evidence(&self.evidence, &mut exchange).await {
                    exchange.abort(CloseCode::Protocol);
                    Stats::add(&self.stats.evidence_refused, 1);
                    self.fault(from, &why);
                }
            }
            Some(Kind::Repair) => {
                if let Err(why) = self.repairs.serve(exchange, from).await {
                    self.fault(from, &why);
                }
            }
            None => {
                exchange.abort(CloseCode::Protocol);
                self.fault(from, &"a stream of no kind that this version knows");
            }
        }
    }

    /// Said now and then: the leader tries again every second.
    fn ahead(&self, from: NodeId, ahead_ms: u64) {
        let before = self.stats.blocks_ahead.load(Ordering::Relaxed);
        Stats::add(&self.stats.blocks_ahead, 1);
        if before.is_multiple_of(AHEAD_SAID_EVERY) {
            tracing::warn!(
                %from,
                ahead_ms,
                "what the leader orders is ahead of this node's clock, and is not taken: if the other nodes take it, this node's \
                 clock is wrong; correct it, and it catches up"
            );
        }
    }

    /// A node that is not let in. One that was let go tries for as long as it runs; one that no charter names shows that this node lacks a charter.
    fn unknown(&self, from: NodeId) {
        Stats::add(&self.stats.peers_refused, 1);
        if self.charters.each().iter().any(|charter| charter.node(from).is_some()) {
            tracing::debug!(%from, "a node that is in the charter no more");
        } else if let Some(unsaid) = self.unnamed.due(from, Instant::now()) {
            tracing::warn!(
                %from, unsaid,
                "a node with a certificate of this alliance connects that no charter known here names: a newer charter has not come here yet. If \
                 this node's data directory was replaced or emptied, stop it: it may begin logs that the others do not follow. It is \
                 given a new id and started empty in its place (`ehe-node replace`)"
            );
        }
    }

    /// The leader tries again until the charter is here.
    fn members(&self, from: NodeId, why: &dyn std::fmt::Display) {
        Stats::add(&self.stats.peer_streams_ended, 1);
        if let Some(unsaid) = self.strangers.due(from, Instant::now()) {
            tracing::warn!(%from, %why, unsaid, "a change of members is not taken");
        }
    }

    fn fault(&self, from: NodeId, why: &dyn std::fmt::Display) {
        Stats::add(&self.stats.peer_faults, 1);
        if let Some(unsaid) = self.faults.due(from, Instant::now()) {
            tracing::warn!(
                %from, %why, unsaid,
                "another node broke a rule between nodes: its program is faulty, or of another version"
            );
        }
    }
}
