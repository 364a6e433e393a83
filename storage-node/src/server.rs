//! Connections: who is welcome, how many, and a task for each exchange.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use certs::{CloseCode, Handshake, Peer, PeerIdentity, Server};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handlers;
use crate::node::Node;
use crate::stats::Stats;

/// Connections of each peer.
type Peers = Arc<Mutex<BTreeMap<PeerIdentity, usize>>>;

/// Accepts until the node stops. Connections run in `tasks` until they end, or `kill` is cancelled.
pub async fn serve(server: Arc<Server>, node: Arc<Node>, tasks: TaskTracker, kill: CancellationToken) {
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
        tasks.spawn(async move {
            tokio::select! {
                () = kill.cancelled() => {}
                () = connection(&node, &peers, handshake) => {}
            }
        });
    }
}

async fn connection(node: &Arc<Node>, peers: &Peers, handshake: Handshake) {
    let address = handshake.remote_address();
    let peer = match handshake.complete().await {
        Ok(peer) => peer,
        Err(error) => {
            Stats::add(&node.stats.handshakes_failed, 1);
            tracing::info!(%address, %error, "handshake failed");
            return;
        }
    };
    let Some(_seat) = Seat::take(peers, peer.identity(), node.limits.connections_per_peer_max) else {
        Stats::add(&node.stats.overloaded, 1);
        peer.close(CloseCode::Busy);
        return;
    };
    Stats::add(&node.stats.connections, 1);
    tracing::debug!(%address, peer = %peer.identity(), "connected");
    exchanges(node, &peer).await;
}

/// Serves exchanges until the connection ends. When the node stops, those that are under way end first.
async fn exchanges(node: &Arc<Node>, peer: &Peer) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            () = node.stop.cancelled() => break,
            exchange = peer.accept_exchange() => match exchange {
                // Dropping the set ends what nobody waits for any more.
                Err(_) => return,
                Ok(mut exchange) => {
                    let (node, identity) = (Arc::clone(node), peer.identity());
                    running.spawn(async move { handlers::handle(&node, identity, &mut exchange).await });
                }
            },
            Some(_) = running.join_next() => {}
        }
    }
    while running.join_next().await.is_some() {}
    peer.close(CloseCode::GoingAway);
}

/// A peer's share of the connections.
struct Seat {
    peers: Peers,
    peer: PeerIdentity,
}

impl Seat {
    fn take(peers: &Peers, peer: PeerIdentity, max: usize) -> Option<Self> {
        let mut seats = peers.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats.entry(peer).or_insert(0);
        if *taken >= max {
            return None;
        }
        *taken += 1;
        Some(Self { peers: Arc::clone(peers), peer })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = seats.get_mut(&self.peer) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                seats.remove(&self.peer);
            }
        }
    }
}
