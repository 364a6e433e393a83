//! The end that is connected to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ehe::id::NodeId;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, Incoming, TokioRuntime};
use tokio::time::timeout;

use super::gate::{Answer, Entry, Gate, Slot};
use super::{
    ChannelError, CloseCode, Exchange, Protocol, ServerLimits, WELCOME, peer_facts, reset, socket, tls, transport,
};
use crate::certificate::{Facts, Serial};
use crate::peer::PeerIdentity;
use crate::store::Credentials;

/// Accepts connections of whoever holds a certificate of the alliance's authority.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    limits: ServerLimits,
    gate: Arc<Gate>,
}

impl Server {
    /// Binds an address. Needs a tokio runtime around it.
    pub fn bind(address: SocketAddr, credentials: &Credentials, limits: ServerLimits) -> Result<Self, ChannelError> {
        Self::with_tls(address, tls::server(credentials, limits.protocols())?, reset::endpoint(credentials)?, limits)
    }

    pub(super) fn with_tls(
        address: SocketAddr,
        tls: rustls::ServerConfig,
        endpoint: EndpointConfig,
        limits: ServerLimits,
    ) -> Result<Self, ChannelError> {
        let config = config(tls, &limits)?;
        let endpoint = socket::bind(address)
            .and_then(|socket| Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime)))
            .map_err(|error| ChannelError::listening(address, &error))?;
        let gate = Arc::new(Gate::new(&limits));
        Ok(Self { endpoint, limits, gate })
    }

    /// The next peer that begins a handshake; `None` once the server is closed. Returns at once with something to drive,
    /// and waits for nobody: run [`Handshake::complete`] in a task of its own. Above a limit, the other end
    /// hears "busy"; so does the one whose address (IPv6: whose /64) has a quarter of the handshakes under way. Cancel safe.
    pub async fn accept(&self) -> Option<Handshake> {
        loop {
            let incoming = self.endpoint.accept().await?;
            // Without an answer to a retry, the address is only what the packet says.
            match self.gate.answer(incoming.remote_address().ip(), !incoming.may_retry()) {
                Answer::Begin(entry) => {
                    let (gate, limits) = (Arc::clone(&self.gate), self.limits.clone());
                    return Some(Handshake { incoming, entry, gate, limits });
                }
                // Fails only for an address that is proven.
                Answer::Prove => drop(incoming.retry()),
                Answer::Refuse => incoming.refuse(),
            }
        }
    }

    /// Where the charter's other nodes come from, in place of what was said before. From there, handshakes begin even when those
    /// of others hold all places. It lets nobody in: their certificate does.
    pub fn expect_nodes_at(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.gate.expect(addresses);
    }

    /// Uses new credentials (a renewed certificate, a new revocation list) for handshakes from now on. Connections that are
    /// open stay open: close those whose [`Peer::certificate_serial`] was revoked.
    pub fn reload(&self, credentials: &Credentials) -> Result<(), ChannelError> {
        let tls = tls::server(credentials, self.limits.protocols())?;
        self.endpoint.set_server_config(Some(config(tls, &self.limits)?));
        Ok(())
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> Result<SocketAddr, ChannelError> {
        self.endpoint.local_addr().map_err(|e| ChannelError::Setup(e.to_string()))
    }

    /// Connections of clients, which count towards their limit; handshakes are among them until it is known who comes.
    pub fn connections(&self) -> usize {
        self.gate.clients(self.limits.connections_max)
    }

    /// Connections of nodes, which count towards theirs.
    pub fn node_connections(&self) -> usize {
        self.gate.nodes()
    }

    /// Peers that were told "busy" since the start.
    pub fn refused_busy(&self) -> u64 {
        self.endpoint.stats().refused_handshakes.saturating_add(self.gate.busy())
    }

    /// Those of them who were told so because their address had its share of the handshakes.
    pub fn refused_sources(&self) -> u64 {
        self.gate.refused_sources()
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

fn config(tls: rustls::ServerConfig, limits: &ServerLimits) -> Result<quinn::ServerConfig, ChannelError> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| ChannelError::Setup(e.to_string()))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let reserved = limits.nodes.as_ref().map_or(0, |nodes| nodes.handshakes_reserved);
    config.transport_config(transport::server(limits)).max_incoming(limits.handshakes_max.saturating_add(reserved));
    Ok(config)
}

/// A handshake that has begun. Dropping it ends it.
#[derive(Debug)]
pub struct Handshake {
    incoming: Incoming,
    entry: Entry,
    gate: Arc<Gate>,
    limits: ServerLimits,
}

impl Handshake {
    /// Where the peer claims to be.
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Completes the handshake, finds out who it is, and says welcome; within the limit's time. Who asks for
    /// [`Protocol::Nodes`] and is no node is refused here.
    pub async fn complete(self) -> Result<Peer, ChannelError> {
        let Self { incoming, mut entry, gate, limits } = self;
        let within = limits.handshake();
        let handshake = async {
            let connection = incoming.accept()?.await?;
            let refuse = |error: ChannelError| {
                let code = match error {
                    ChannelError::Busy => CloseCode::Busy,
                    ChannelError::OtherProtocol => CloseCode::Protocol,
                    _ => CloseCode::NotAuthorized,
                };
                connection.close(code.wire(), b"");
                error
            };
            let facts = peer_facts(&connection).map_err(|error| refuse(error.into()))?;
            let protocol = Protocol::of(&connection).ok_or_else(|| refuse(ChannelError::OtherProtocol))?;
            let slot = gate.settle(&mut entry, protocol, facts.peer, &connection).map_err(refuse)?;
            if let (Protocol::Nodes, Some(nodes)) = (protocol, &limits.nodes) {
                nodes.widen(&connection);
            }
            let mut welcome = connection.open_uni().await?;
            welcome.write_all(WELCOME).await?;
            welcome.finish().map_err(|_| ChannelError::ClosedHere)?;
            Ok(Peer { connection, protocol, facts: Arc::new(facts), slot: Arc::new(slot) })
        };
        match timeout(within, handshake).await {
            Ok(peer) => peer,
            Err(_) => Err(ChannelError::Deadline("the peer did not complete its handshake")),
        }
    }
}

/// A client or a node that was verified and welcomed. Cheap to clone; closed when the last clone and its exchanges are gone.
#[derive(Debug, Clone)]
pub struct Peer {
    connection: quinn::Connection,
    protocol: Protocol,
    facts: Arc<Facts>,
    slot: Arc<Slot>,
}

impl Peer {
    /// What it speaks. Exchanges of the one protocol never go to what serves the other.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The node, if it speaks the protocol between nodes. That it is still one of the charter's, the caller has to see to.
    pub fn node(&self) -> Option<NodeId> {
        match self.protocol {
            Protocol::Clients => None,
            Protocol::Nodes => self.facts.peer.node(),
        }
    }

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
        Ok(Exchange::new(self.connection.accept_bi().await?, self.protocol, Some(Arc::clone(&self.slot))))
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
