//! A node's connections to the other nodes: one for each node and lane, made when it is needed, used by everything that goes there.

use core::fmt;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::task::Poll;
use std::time::Duration;

use ehe::charter::Node;
use ehe::id::NodeId;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::time::{Instant, timeout, timeout_at};

use super::dial::{self, Connection, Dialling};
use super::error::CertificateFault;
use super::{ChannelError, CloseCode, Exchange, Protocol, socket, tls};
use crate::certificate::Facts;
use crate::peer::PeerIdentity;
use crate::store::Credentials;

/// One address gets at most this long before the next one is tried. It is several times what a handshake takes around the world.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// Making a connection takes at most this long, over all addresses, however short the deadlines are of those who wait for it.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// For so long, whoever asks hears why the last attempt failed: many groups ask for the same node.
const REDIAL_AFTER: Duration = Duration::from_millis(200);

/// What goes over a connection of its own, with its own windows and its own congestion control, so that one kind never waits for
/// room that another has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// What is small and has a deadline: beats, votes, cosignatures, questions.
    Prompt,
    /// Entries of the log.
    Log,
    /// What may take long: snapshots, repairs.
    Bulk,
}

/// Opens exchanges with other nodes in the name of this one. One UDP socket for all of them; cheap to clone. It spawns no task:
/// a connection is made by whoever waits for it, and goes on for the next one if they give up.
#[derive(Debug, Clone)]
pub struct NodeDialer {
    endpoint: Endpoint,
    standing: Arc<RwLock<Standing>>,
    lines: Arc<Mutex<Lines>>,
}

type Lines = BTreeMap<(NodeId, Lane), Arc<Line>>;

/// With which credentials connections are made, and what those that are open have to satisfy.
#[derive(Debug)]
struct Standing {
    credentials: Credentials,
    config: quinn::ClientConfig,
}

/// The way to a node.
#[derive(Debug, Default)]
struct Line {
    open: Mutex<Option<Connection>>,
    /// Whoever holds this lock drives the dialling for all.
    dial: tokio::sync::Mutex<Dial>,
}

type Going = Pin<Box<dyn Future<Output = Result<Connection, ChannelError>> + Send>>;

#[derive(Default)]
struct Dial {
    /// Under way. Kept here, so that somebody's short deadline does not begin it anew each time.
    going: Option<Going>,
    /// Why there was no connection, and until when nobody tries again.
    failed: Option<(Instant, ChannelError)>,
}

impl NodeDialer {
    /// Binds a socket. Needs a tokio runtime around it, and a node's credentials.
    pub fn new(credentials: &Credentials) -> Result<Self, ChannelError> {
        let standing = Standing::new(credentials)?;
        let endpoint = socket::bind_any()
            .and_then(|socket| Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)))
            .map_err(|e| ChannelError::Setup(format!("no UDP socket: {e}")))?;
        Ok(Self { endpoint, standing: Arc::new(RwLock::new(standing)), lines: Arc::default() })
    }

    /// Begins an exchange with exactly this node, over a connection that is there or is made now. The other end learns of it with
    /// the first frame. Whoever asks in the 200 ms after a connection could not be made hears the same reason. Cancel safe.
    pub async fn open(&self, node: &Node, lane: Lane, within: Duration) -> Result<Exchange, ChannelError> {
        let deadline = super::deadline(within);
        let connection = timeout_at(deadline, self.connection(node, lane)).await;
        let connection = connection.map_err(|_| ChannelError::Deadline("the node did not answer"))??;
        let exchange = timeout_at(deadline, connection.open()).await;
        exchange.map_err(|_| ChannelError::Deadline("the node allows no further exchange"))?
    }

    async fn connection(&self, node: &Node, lane: Lane) -> Result<Connection, ChannelError> {
        let line = Arc::clone(lock(&self.lines).entry((node.id, lane)).or_default());
        if let Some(connection) = line.current() {
            return Ok(connection);
        }
        let mut dial = line.dial.lock().await;
        // Meanwhile somebody else may have made it.
        if let Some(connection) = line.current() {
            return Ok(connection);
        }
        if let Some((until, error)) = &dial.failed
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let found = dial.going.is_some();
        let going = dial.going.get_or_insert_with(|| self.dial(node));
        let made = match poll_fn(|context| Poll::Ready(going.as_mut().poll(context))).await {
            // Whoever began it gave up, and nobody has looked since: it may have failed long ago, before the node was even started.
            Poll::Ready(Err(_)) if found => dial.going.insert(self.dial(node)).await,
            Poll::Ready(made) => made,
            Poll::Pending => going.await,
        };
        dial.going = None;
        let made = made.and_then(|connection| {
            *lock(&line.open) = Some(connection.clone());
            // After it is there to be closed by a reload: the handshake may have begun under the list before.
            match self.standing().ends(connection.certificate()) {
                None => Ok(connection),
                Some(code) => {
                    connection.close(code);
                    let fault = CertificateFault::Revoked;
                    Err(ChannelError::PeerRefused { fault, detail: "by the newest revocation list".into() })
                }
            }
        });
        dial.failed = made.as_ref().err().map(|error| (Instant::now() + REDIAL_AFTER, error.clone()));
        made
    }

    fn dial(&self, node: &Node) -> Going {
        let config = self.standing().config.clone();
        let dialling =
            Dialling { endpoint: self.endpoint.clone(), config, protocol: Protocol::Nodes, attempt_max: ATTEMPT_MAX };
        let (addresses, id) = (node.addresses.clone(), node.id);
        Box::pin(async move { dialling.connect(&addresses, id, DIAL_MAX).await })
    }

    /// Uses new credentials (a renewed certificate, a new revocation list) for connections from now on, and closes those whose
    /// other end the new list revokes.
    pub fn reload(&self, credentials: &Credentials) -> Result<(), ChannelError> {
        let new = Standing::new(credentials)?;
        *self.standing.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.close_where(|certificate| self.standing().ends(certificate));
        Ok(())
    }

    /// Closes the connections for whose other end's certificate this gives a reason.
    pub fn close_where(&self, reason: impl Fn(&Facts) -> Option<CloseCode>) {
        let lines: Vec<_> = lock(&self.lines).values().cloned().collect();
        for connection in lines.iter().filter_map(|line| line.current()) {
            if let Some(code) = reason(connection.certificate()) {
                tracing::info!(peer = %connection.peer(), "connection closed: {code}");
                connection.close(code);
            }
        }
    }

    /// Closes the connections to a node, of all lanes. The next exchange makes a new one.
    pub fn close_node(&self, node: NodeId, code: CloseCode) {
        self.close_where(|certificate| (certificate.peer == PeerIdentity::Node(node)).then_some(code));
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        lock(&self.lines).values().filter(|line| line.current().is_some()).count()
    }

    /// Closes all connections, and lets no new one begin.
    pub fn close(&self, code: CloseCode) {
        self.endpoint.close(code.wire(), b"");
    }

    /// Waits until the other ends know that the connections are closed. False if that took too long.
    pub async fn wait_idle(&self, within: Duration) -> bool {
        timeout(within, self.endpoint.wait_idle()).await.is_ok()
    }

    fn standing(&self) -> RwLockReadGuard<'_, Standing> {
        self.standing.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    fn new(credentials: &Credentials) -> Result<Self, ChannelError> {
        let PeerIdentity::Node(_) = credentials.peer() else {
            return Err(ChannelError::NodesOnly(credentials.peer()));
        };
        let config = dial::config(tls::client(credentials, Protocol::Nodes)?, Protocol::Nodes)?;
        Ok(Self { credentials: credentials.clone(), config })
    }

    fn ends(&self, certificate: &Facts) -> Option<CloseCode> {
        self.credentials.revokes(certificate).then_some(CloseCode::Revoked)
    }
}

impl Line {
    /// The connection, if it is open as far as is known.
    fn current(&self) -> Option<Connection> {
        let mut open = lock(&self.open);
        if open.as_ref().is_some_and(|connection| !connection.is_open()) {
            *open = None;
        }
        open.clone()
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { going, failed } = self;
        f.debug_struct("Dial").field("going", &going.is_some()).field("failed", failed).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
