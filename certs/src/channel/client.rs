//! The end that connects.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ehe::id::NodeId;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::time::timeout;

use super::dial::{self, Connection, Dialling};
use super::{ChannelError, CloseCode, Protocol, socket, tls};
use crate::store::Credentials;

/// One address gets at most this long before the next one is tried.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// Connects to nodes in the name of one identity. One UDP socket for all connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    protocol: Protocol,
    config: Arc<RwLock<quinn::ClientConfig>>,
}

impl Client {
    /// Binds a socket. Needs a tokio runtime around it.
    pub fn new(credentials: &Credentials) -> Result<Self, ChannelError> {
        Self::with_tls(tls::client(credentials, Protocol::Clients)?, Protocol::Clients)
    }

    pub(super) fn with_tls(tls: rustls::ClientConfig, protocol: Protocol) -> Result<Self, ChannelError> {
        let config = dial::config(tls, protocol)?;
        let endpoint = socket::any()
            .and_then(|socket| Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)))
            .map_err(|e| ChannelError::Setup(format!("no UDP socket: {e}")))?;
        Ok(Self { endpoint, protocol, config: Arc::new(RwLock::new(config)) })
    }

    /// Uses new credentials (a renewed certificate, a new revocation list) for connections from now on. Those that are open go on:
    /// [`Connection::certificate`] says which of them have to end.
    pub fn reload(&self, credentials: &Credentials) -> Result<(), ChannelError> {
        let new = dial::config(tls::client(credentials, self.protocol)?, self.protocol)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Connects to a node of the charter.
    pub async fn connect_to(&self, node: &ehe::charter::Node, within: Duration) -> Result<Connection, ChannelError> {
        self.connect(&node.addresses, node.id, within).await
    }

    /// Connects to a node at the first of its addresses (`host:port`) where it answers, and returns once it has said welcome:
    /// the certificate at the other end names this node, and the node has accepted ours.
    pub async fn connect(
        &self,
        addresses: &[String],
        node: NodeId,
        within: Duration,
    ) -> Result<Connection, ChannelError> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (endpoint, protocol) = (self.endpoint.clone(), self.protocol);
        Dialling { endpoint, config, protocol, attempt_max: ATTEMPT_MAX }.connect(addresses, node, within).await
    }

    /// Moves all connections to a new socket, after the machine's address changed. They go on where they were.
    pub fn rebind(&self) -> Result<(), ChannelError> {
        let rebound = socket::any().and_then(|socket| self.endpoint.rebind(socket));
        rebound.map_err(|e| ChannelError::Setup(format!("no UDP socket: {e}")))
    }

    /// The socket's address.
    pub fn local_addr(&self) -> Result<SocketAddr, ChannelError> {
        self.endpoint.local_addr().map_err(|e| ChannelError::Setup(e.to_string()))
    }

    /// Closes all connections, and lets no new one begin.
    pub fn close(&self, code: CloseCode) {
        self.endpoint.close(code.wire(), b"");
    }

    /// Waits until the peers know that the connections are closed. False if that took too long.
    pub async fn wait_idle(&self, within: Duration) -> bool {
        timeout(within, self.endpoint.wait_idle()).await.is_ok()
    }
}
