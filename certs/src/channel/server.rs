//! The end that is connected to.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, Incoming, TokioRuntime};
use socket2::SockRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::sources::{Begun, Sources, Turn};
use super::{ChannelError, CloseCode, Exchange, ServerLimits, WELCOME, peer_facts, tls, transport};
use crate::certificate::{Facts, Serial};
use crate::peer::PeerIdentity;
use crate::store::Credentials;

/// Accepts connections of whoever holds a certificate of the alliance's authority.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    limits: ServerLimits,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    sources: Arc<Sources>,
}

impl Server {
    /// Binds an address. Needs a tokio runtime around it.
    pub fn bind(address: SocketAddr, credentials: &Credentials, limits: ServerLimits) -> Result<Self, ChannelError> {
        Self::with_tls(address, tls::server(credentials)?, limits)
    }

    pub(super) fn with_tls(
        address: SocketAddr,
        tls: rustls::ServerConfig,
        limits: ServerLimits,
    ) -> Result<Self, ChannelError> {
        let config = config(tls, &limits)?;
        let endpoint = socket(address)
            .and_then(|socket| Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime)))
            .map_err(|e| ChannelError::Setup(format!("cannot listen on {address}: {e}")))?;
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let (connections, handshakes) = (semaphore(limits.connections_max), semaphore(limits.handshakes_max));
        let sources = Sources::new(limits.handshakes_max);
        Ok(Self { endpoint, limits, connections, handshakes, sources })
    }

    /// The next client that begins a handshake; `None` once the server is closed. Returns at once with something to drive,
    /// and waits for nobody: run [`Handshake::complete`] in a task of its own. Above a limit, the client
    /// hears "busy"; so does the client whose address (IPv6: whose /64) has a quarter of the handshakes under way. Cancel safe.
    pub async fn accept(&self) -> Option<Handshake> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let crowded = self.handshakes.available_permits() <= self.limits.handshakes_max / 2;
            if crowded && incoming.may_retry() {
                // Whoever only pretends to be at this address never comes back (RFC 9000 §8.1).
                let _ = incoming.retry();
                continue;
            }
            // Without an answer to a retry, the address is only what the packet says.
            let begun = match self.sources.turn(incoming.remote_address().ip(), !incoming.may_retry()) {
                Turn::Begin(begun) => begun,
                Turn::Prove => {
                    let _ = incoming.retry();
                    continue;
                }
                Turn::Full => {
                    incoming.refuse();
                    continue;
                }
            };
            let slot = Arc::clone(&self.connections).try_acquire_owned();
            let handshake = Arc::clone(&self.handshakes).try_acquire_owned();
            let (Ok(slot), Ok(handshake)) = (slot, handshake) else {
                incoming.refuse();
                continue;
            };
            let within = self.limits.handshake();
            return Some(Handshake { incoming, within, slot, _handshake: handshake, _begun: begun });
        }
    }

    /// Uses new credentials (a renewed certificate, a new revocation list) for handshakes from now on. Connections that are
    /// open stay open: close those whose [`Peer::certificate_serial`] was revoked.
    pub fn reload(&self, credentials: &Credentials) -> Result<(), ChannelError> {
        self.endpoint.set_server_config(Some(config(tls::server(credentials)?, &self.limits)?));
        Ok(())
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> Result<SocketAddr, ChannelError> {
        self.endpoint.local_addr().map_err(|e| ChannelError::Setup(e.to_string()))
    }

    /// Connections that count towards the limit.
    pub fn connections(&self) -> usize {
        self.limits.connections_max.saturating_sub(self.connections.available_permits())
    }

    /// Clients that were told "busy" since the start.
    pub fn refused_busy(&self) -> u64 {
        self.endpoint.stats().refused_handshakes
    }

    /// Those of them who were told so because their address had its share of the handshakes.
    pub fn refused_sources(&self) -> u64 {
        self.sources.refused()
    }

    /// Closes all connections, and accepts no more.
    pub fn close(&self, code: CloseCode) {
        self.endpoint.close(code.wire(), b"");
    }

    /// Waits until the clients know that they are closed. False if that took too long.
    pub async fn wait_idle(&self, within: Duration) -> bool {
        timeout(within, self.endpoint.wait_idle()).await.is_ok()
    }
}

/// What of the clients' packets may wait in the kernel. All of them come in through one socket, and Linux's default of 208 KiB is
/// a packet from each of a hundred: with 512 clients at work it lost every tenth, and whoever lost one waited for a second.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

fn socket(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // The kernel cuts it down to what the system allows (net.core.rmem_max); with less it works too, under load not as well.
    if let Err(error) = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
        tracing::debug!(%error, "the receive buffer stays as it is");
    }
    Ok(socket)
}

fn config(tls: rustls::ServerConfig, limits: &ServerLimits) -> Result<quinn::ServerConfig, ChannelError> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| ChannelError::Setup(e.to_string()))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport::server(limits)).max_incoming(limits.handshakes_max);
    Ok(config)
}

/// A handshake that has begun. Dropping it ends it.
#[derive(Debug)]
pub struct Handshake {
    incoming: Incoming,
    within: Duration,
    slot: OwnedSemaphorePermit,
    _handshake: OwnedSemaphorePermit,
    _begun: Begun,
}

impl Handshake {
    /// Where the client claims to be.
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Completes the handshake, finds out who it is, and says welcome; within the limit's time.
    pub async fn complete(self) -> Result<Peer, ChannelError> {
        let Self { incoming, within, slot, _handshake, _begun } = self;
        let slot = Arc::new(slot);
        let handshake = async {
            let connection = incoming.accept()?.await?;
            let facts = match peer_facts(&connection) {
                Ok(facts) => facts,
                Err(error) => {
                    connection.close(CloseCode::NotAuthorized.wire(), b"");
                    return Err(ChannelError::from(error));
                }
            };
            let mut welcome = connection.open_uni().await?;
            welcome.write_all(WELCOME).await?;
            welcome.finish().map_err(|_| ChannelError::ClosedHere)?;
            Ok(Peer { connection, facts: Arc::new(facts), slot })
        };
        match timeout(within, handshake).await {
            Ok(peer) => peer,
            Err(_) => Err(ChannelError::Deadline("the client did not complete its handshake")),
        }
    }
}

/// A client that was verified and welcomed. Cheap to clone; closed when the last clone and its exchanges are gone.
#[derive(Debug, Clone)]
pub struct Peer {
    connection: quinn::Connection,
    facts: Arc<Facts>,
    slot: Arc<OwnedSemaphorePermit>,
}

impl Peer {
    /// Who it is. What it may do, the charter and the room say.
    pub fn identity(&self) -> PeerIdentity {
        self.facts.peer
    }

    /// What its certificate says.
    pub fn certificate(&self) -> &Facts {
        &self.facts
    }

    /// Its certificate's serial number, to be held against a new revocation list.
    pub fn certificate_serial(&self) -> &Serial {
        &self.facts.serial
    }

    /// The next exchange that it begins; an error once the connection is closed.
    pub async fn accept_exchange(&self) -> Result<Exchange, ChannelError> {
        Ok(Exchange::new(self.connection.accept_bi().await?, Some(Arc::clone(&self.slot))))
    }

    /// Where it is.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Closes. What was not acknowledged may be lost.
    pub fn close(&self, code: CloseCode) {
        self.connection.close(code.wire(), b"");
    }

    /// Waits until it is closed, and says why.
    pub async fn closed(&self) -> ChannelError {
        self.connection.closed().await.into()
    }
}
