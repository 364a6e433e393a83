//! Making a connection: to exactly the node that is meant, which has let us in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ehe::id::NodeId;
use quinn::Endpoint;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::CertificateFault;
use super::{ChannelError, CloseCode, Exchange, Protocol, WELCOME, peer_facts, transport};
use crate::certificate::Facts;
use crate::peer::{PeerIdentity, server_name};

/// Addresses that are tried at most: names may resolve to many.
const ATTEMPTS_MAX: usize = 16;

/// What is spoken on a connection, and with which credentials.
pub(super) fn config(tls: rustls::ClientConfig, protocol: Protocol) -> Result<quinn::ClientConfig, ChannelError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| ChannelError::Setup(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport::dialling(protocol));
    Ok(config)
}

/// All that it takes to connect, but for whom to.
#[derive(Debug, Clone)]
pub(super) struct Dialling {
    pub(super) endpoint: Endpoint,
    pub(super) config: quinn::ClientConfig,
    pub(super) protocol: Protocol,
    /// One address gets at most this long before the next one is tried.
    pub(super) attempt_max: Duration,
}

impl Dialling {
    /// Connects to a node at the first of its addresses (`host:port`) where it answers, and returns once it has said welcome:
    /// the certificate at the other end names this node, and the node has accepted ours.
    pub(super) async fn connect(
        &self,
        addresses: &[String],
        node: NodeId,
        within: Duration,
    ) -> Result<Connection, ChannelError> {
        let deadline = super::deadline(within);
        let mut telling = ChannelError::Unreachable("no address is known".into());
        let mut keep = |error: ChannelError| {
            if error.tells_more_than(&telling) || matches!(telling, ChannelError::Unreachable(_)) {
                telling = error;
            }
        };
        let mut left = ATTEMPTS_MAX;
        for address in addresses {
            let resolved = match timeout_at(deadline, tokio::net::lookup_host(address.as_str())).await {
                Ok(Ok(resolved)) => resolved,
                Ok(Err(error)) => {
                    keep(ChannelError::Unreachable(format!("{address}: {error}")));
                    continue;
                }
                Err(_) => return Err(ChannelError::Deadline("the node's name did not resolve in time")),
            };
            for socket_address in resolved {
                let time = deadline.saturating_duration_since(Instant::now()).min(self.attempt_max);
                if left == 0 || time.is_zero() {
                    break;
                }
                left -= 1;
                match timeout(time, self.attempt(socket_address, node)).await {
                    Ok(Ok(connection)) => return Ok(connection),
                    Ok(Err(error)) => keep(error),
                    Err(_) => keep(ChannelError::Deadline("the node did not answer at its address")),
                }
            }
        }
        Err(telling)
    }

    async fn attempt(&self, address: SocketAddr, node: NodeId) -> Result<Connection, ChannelError> {
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), address, &server_name(node))
            .map_err(|error| ChannelError::Unreachable(format!("{address}: {error}")))?;
        let connection = connecting.await.map_err(|error| match error.into() {
            // The only name that we ask for is the node's, and rustls has one alert for "other name" and "malformed".
            ChannelError::PeerRefused { fault: CertificateFault::Malformed, detail } => {
                ChannelError::WrongNode { expected: node, detail }
            }
            other => other,
        })?;
        if Protocol::of(&connection) != Some(self.protocol) {
            connection.close(CloseCode::Protocol.wire(), b"");
            return Err(ChannelError::OtherProtocol);
        }
        let facts = match peer_facts(&connection) {
            Ok(facts) => facts,
            Err(error) => {
                connection.close(CloseCode::NotAuthorized.wire(), b"");
                return Err(error.into());
            }
        };
        if facts.peer != PeerIdentity::Node(node) {
            connection.close(CloseCode::NotAuthorized.wire(), b"");
            return Err(ChannelError::WrongNode { expected: node, detail: facts.peer.to_string() });
        }
        // Until here the node may not even have looked at our certificate.
        let mut welcome = connection.accept_uni().await?;
        match welcome.read_to_end(WELCOME.len() + 1).await {
            Ok(said) if said == WELCOME => {
                Ok(Connection { connection, protocol: self.protocol, facts: Arc::new(facts) })
            }
            Err(quinn::ReadToEndError::Read(error)) => Err(error.into()),
            Ok(_) | Err(quinn::ReadToEndError::TooLong) => {
                connection.close(CloseCode::Protocol.wire(), b"");
                Err(ChannelError::OtherProtocol)
            }
        }
    }
}

/// A connection to a node that has welcomed us. Cheap to clone; closed when the last clone and its exchanges are gone.
#[derive(Debug, Clone)]
pub struct Connection {
    connection: quinn::Connection,
    protocol: Protocol,
    facts: Arc<Facts>,
}

impl Connection {
    /// Begins an exchange. The node learns of it with the first frame. Waits while the node allows no further one; give it a
    /// deadline from outside.
    pub async fn open(&self) -> Result<Exchange, ChannelError> {
        Ok(Exchange::new(self.connection.open_bi().await?, self.protocol, None))
    }

    /// The node.
    pub fn peer(&self) -> PeerIdentity {
        self.facts.peer
    }

    /// What the node's certificate says.
    pub fn certificate(&self) -> &Facts {
        &self.facts
    }

    /// Where the node is.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The path's round-trip time, as estimated now.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Whether it is still there, as far as is known.
    pub fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Closes. What was not acknowledged may be lost: [`FrameSender::delivered`](super::FrameSender::delivered) first.
    pub fn close(&self, code: CloseCode) {
        self.connection.close(code.wire(), b"");
    }

    /// Waits until it is closed, and says why.
    pub async fn closed(&self) -> ChannelError {
        self.connection.closed().await.into()
    }
}
