//! Connections: who is welcome, how many, and a task for each exchange. Those of other nodes go to [`crate::peers`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use certs::{CloseCode, Handshake, Peer, PeerIdentity, Protocol, Server};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{self, Standing};
use crate::config::Limits;
use crate::handlers;
use crate::node::Node;
use crate::peers::Accepting;
use crate::stats::Stats;

/// Each peer that is connected: its connections, and its share.
type Peers = Arc<Mutex<BTreeMap<PeerIdentity, (usize, Arc<Share>)>>>;

/// What one identity may take of the node at one time, over all its connections: whoever asks for more waits, or is refused, and
/// others notice nothing.
#[derive(Debug)]
pub(crate) struct Share {
    /// Bytes of requests that arrive or are worked on.
    pub(crate) work: Arc<Semaphore>,
    /// Fetches and subscriptions.
    pub(crate) streams: Arc<Semaphore>,
}

impl Share {
    fn new(limits: &Limits) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self { work: semaphore(limits.work_bytes_per_peer_max), streams: semaphore(limits.streams_per_peer_max) }
    }
}

/// The other nodes: who serves them, and where their connections run.
#[derive(Debug, Clone)]
pub struct Between {
    /// Serves them.
    pub accepting: Arc<Accepting>,
    /// Their connections. They outlive those of clients: what clients wait for needs them.
    pub tasks: TaskTracker,
}

/// Accepts until the node stops. Clients' connections run in `tasks` until they end, or `kill` is cancelled.
pub async fn serve(
    server: Arc<Server>,
    node: Arc<Node>,
    standing: watch::Receiver<Standing>,
    between: Option<Between>,
    tasks: TaskTracker,
    kill: CancellationToken,
) {
    let peers = Peers::default();
    loop {
        let handshake = tokio::select! {
            () = node.stop.cancelled() => return,
            handshake = server.accept() => match handshake {
                Some(handshake) => handshake,
                None => return,
            },
        };
        let (node, peers, kill) = (Arc::clone(&node), Arc::clone(&peers), kill.clone());
        let (standing, between) = (standing.clone(), between.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = kill.cancelled() => {}
                () = connection(&node, &peers, standing, between, handshake) => {}
            }
        });
    }
}

async fn connection(
    node: &Arc<Node>,
    peers: &Peers,
    standing: watch::Receiver<Standing>,
    between: Option<Between>,
    handshake: Handshake,
) {
    let address = handshake.remote_address();
    let peer = match handshake.complete().await {
        Ok(peer) => peer,
        Err(error) => {
            Stats::add(&node.stats.handshakes_failed, 1);
            // Counted. A line for each would let anybody fill the log.
            tracing::debug!(%address, %error, "handshake failed");
            return;
        }
    };
    // What a connection speaks was agreed on in its handshake: nothing of the one protocol ever reaches what serves the other.
    match peer.protocol() {
        Protocol::Clients => client(node, peers, standing, &peer).await,
        Protocol::Nodes => match (between, peer.node()) {
            (Some(between), Some(from)) => {
                between.tasks.spawn(between.accepting.connection(peer, from, standing));
            }
            // The channel lets nobody else speak it.
            _ => peer.close(CloseCode::NotAuthorized),
        },
    }
}

async fn client(node: &Arc<Node>, peers: &Peers, standing: watch::Receiver<Standing>, peer: &Peer) {
    let address = peer.remote_address();
    let Some(seat) = Seat::take(peers, peer.identity(), &node.limits) else {
        Stats::add(&node.stats.overloaded, 1);
        peer.close(CloseCode::Busy);
        return;
    };
    Stats::add(&node.stats.connections, 1);
    tracing::debug!(%address, peer = %peer.identity(), "connected");
    tokio::select! {
        // First: nothing is served to whom the list revoked while its handshake was under way.
        biased;
        // What is under way ends with it: its right to be here is over, and so is any subscription's.
        code = admission::ended(standing, peer.certificate()) => {
            let expired = code == CloseCode::Expired;
            let counter = if expired { &node.stats.connections_expired } else { &node.stats.connections_revoked };
            Stats::add(counter, 1);
            tracing::info!(serial = %peer.certificate_serial(), "connection closed: {code}");
            peer.close(code);
        }
        () = exchanges(node, peer, &seat.share) => {}
    }
}

/// Serves exchanges until the connection ends. When the node stops, those that are under way end first.
async fn exchanges(node: &Arc<Node>, peer: &Peer, share: &Arc<Share>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            () = node.stop.cancelled() => break,
            exchange = peer.accept_exchange() => match exchange {
                // Dropping the set ends what nobody waits for any more.
                Err(_) => return,
                Ok(mut exchange) => {
                    let (node, identity, share) = (Arc::clone(node), peer.identity(), Arc::clone(share));
                    running.spawn(async move { handlers::handle(&node, identity, &share, &mut exchange).await });
                }
            },
            Some(_) = running.join_next() => {}
        }
    }
    while running.join_next().await.is_some() {}
    peer.close(CloseCode::GoingAway);
}

/// One of a peer's connections.
struct Seat {
    peers: Peers,
    peer: PeerIdentity,
    share: Arc<Share>,
}

impl Seat {
    fn take(peers: &Peers, peer: PeerIdentity, limits: &Limits) -> Option<Self> {
        let mut seats = peers.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, share) = seats.entry(peer).or_insert_with(|| (0, Arc::new(Share::new(limits))));
        if *taken >= limits.connections_per_peer_max {
            return None;
        }
        *taken += 1;
        Some(Self { peers: Arc::clone(peers), peer, share: Arc::clone(share) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((taken, _)) = seats.get_mut(&self.peer) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                seats.remove(&self.peer);
            }
        }
    }
}
