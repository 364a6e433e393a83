//! Consensus's [`Link`] over QUIC, and the exchanges that everything else to other nodes takes.

use std::time::Duration;

use bytes::Bytes;
use certs::{ChannelError, CloseCode, Exchange, Lane, NodeDialer};
use ehe::id::NodeId;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Kind;
use crate::charters::Charters;
use crate::consensus::{self, FrameReceiver, FrameSender, Link, LinkError, Purpose, Stream};
use crate::node::node_id;

/// A connection and a stream on it are there within this time, or not. Consensus waits less.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// The other end takes a frame, and sends one that it began, within this time. Above what consensus waits for anything: its own
/// deadlines come first.
const FRAME_WITHIN: Duration = Duration::from_secs(60);

/// The way to the other nodes of the charter. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reach {
    dialer: NodeDialer,
    charters: Charters,
}

impl Reach {
    /// By the addresses of the newest charter.
    pub fn new(dialer: NodeDialer, charters: Charters) -> Self {
        Self { dialer, charters }
    }

    /// The dialer, for its credentials and its end.
    pub fn dialer(&self) -> &NodeDialer {
        &self.dialer
    }

    /// Begins an exchange of a kind with a node.
    pub(super) async fn open(&self, node: NodeId, lane: Lane, kind: Kind) -> Result<Exchange, ChannelError> {
        let unknown = || ChannelError::Unreachable(format!("node {node} is not in the charter"));
        let entry = self.charters.node(node).ok_or_else(unknown)?;
        let mut exchange = self.dialer.open(&entry, lane, OPEN_WITHIN).await?;
        exchange.send(&[kind.byte()], OPEN_WITHIN).await?;
        Ok(exchange)
    }
}

/// What has a deadline never waits behind entries, nor they behind a snapshot.
fn lane(purpose: Purpose) -> Lane {
    match purpose {
        Purpose::Beat | Purpose::Request => Lane::Prompt,
        Purpose::Append => Lane::Log,
        Purpose::Snapshot => Lane::Bulk,
    }
}

impl Link for Reach {
    fn open(&self, peer: consensus::NodeId, purpose: Purpose) -> BoxFuture<'_, Result<Stream, LinkError>> {
        async move {
            let opened = self.open(node_id(peer), lane(purpose), Kind::Consensus).await;
            opened.map(stream).map_err(|error| LinkError::Unreachable(error.to_string()))
        }
        .boxed()
    }
}

/// An exchange as consensus uses it.
pub(super) fn stream(exchange: Exchange) -> Stream {
    let Exchange { sender, receiver } = exchange;
    Stream { sender: Box::new(Sending(sender)), receiver: Box::new(Receiving(receiver)) }
}

fn lost(error: &ChannelError) -> LinkError {
    LinkError::Lost(error.to_string())
}

struct Sending(certs::FrameSender);

impl FrameSender for Sending {
    fn send(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>> {
        async move { self.0.send_pieces([frame], FRAME_WITHIN).await.map_err(|error| lost(&error)) }.boxed()
    }

    fn finish(&mut self) {
        // Fails only if the stream has ended already, which the other end knows.
        let _ = self.0.finish();
    }
}

struct Receiving(certs::FrameReceiver);

impl FrameReceiver for Receiving {
    fn recv(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>> {
        // For how long nothing may come, consensus knows.
        next_frame(&mut self.0, max, Duration::MAX).boxed()
    }
}

/// The next frame, if it begins within this time; nothing of one that is longer than `max` is taken.
pub(super) async fn next_frame(
    receiver: &mut certs::FrameReceiver,
    max: usize,
    within: Duration,
) -> Result<Option<Bytes>, LinkError> {
    let announced = receiver.announced(within).await.map_err(|error| lost(&error))?;
    let Some(bytes) = announced else { return Ok(None) };
    if bytes > max {
        receiver.abort(CloseCode::TooLarge);
        return Err(LinkError::TooLong(max));
    }
    receiver.recv(within.min(FRAME_WITHIN)).await.map_err(|error| lost(&error))
}
