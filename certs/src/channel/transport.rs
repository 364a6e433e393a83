//! Limits of the transport: each with its default, its unit and what it costs.

use std::sync::Arc;
use std::time::Duration;

use ehe::limits::{FRAME_MAX_BYTES, SHARDS_MAX};
use quinn::{TransportConfig, VarInt};

use super::Protocol;

/// Nothing heard for this long: the connection is lost. Both ends.
const IDLE_MS: u32 = 30_000;
/// A client says something at least this often, so that home routers keep its way open.
const KEEP_ALIVE_MS: u32 = 10_000;
/// Bytes that one stream may have in flight towards us: one frame, so that a peer can always finish what it began.
const STREAM_WINDOW_BYTES: usize = FRAME_MAX_BYTES + 64 * 1024;
/// The same between nodes, where it sets the rate of one stream: 40 MB/s over 100 ms, with which a replaced node catches up at more
/// than 50,000 events a second. QUIC says it before the handshake tells who comes, so on a server that nodes reach, clients may
/// fill a stream to it too; their connection's window, which bounds the memory, stays what it is.
const NODE_STREAM_WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that a connection between nodes may have in flight, either way: a stream that nobody reads takes half of it, and the
/// others go on.
const NODE_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Between nodes, nothing heard for this long: the connection is lost. Above the longest pause that is none (a stalled disk, a busy
/// processor), and short, because nothing is replicated to whom we still believe connected.
const NODE_IDLE_MS: u32 = 5_000;
/// A node says something at least this often on each connection that it made. Beats (every 100 to 500 ms) do so already on the
/// one that they use.
const NODE_KEEP_ALIVE_MS: u32 = 1_000;
/// Bytes that a connection may have in flight towards a client.
const CLIENT_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes that wait for the peer's acknowledgement.
const SEND_WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// What a server takes on at most. Memory that peers can make it hold: `connections_max × receive_window_bytes` in the transport,
/// and what the program takes from there, which [`FrameReceiver::announced`](super::FrameReceiver::announced) lets it bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at one time, those that are being made included. Default 512. One more is refused as busy.
    pub connections_max: usize,
    /// Handshakes at one time. Default 64. From half of it on, a client has to show that its address is its own. One address
    /// (IPv6: one /64) has at most a quarter of it.
    pub handshakes_max: usize,
    /// Exchanges at one time on one connection. Default 64.
    pub exchanges_per_connection_max: u32,
    /// A handshake takes at most this long, in milliseconds. Default 10,000.
    pub handshake_ms: u32,
    /// Bytes in flight on one connection. Default 2 MiB (at 512 connections: 1 GiB).
    pub receive_window_bytes: u32,
    /// A connection on which nothing is heard is given up after this long, in milliseconds. Default 30,000.
    pub idle_ms: u32,
    /// What is kept for other nodes. Default none: the server does not speak [`Protocol::Nodes`].
    pub nodes: Option<NodeLimits>,
}

/// What a server keeps for other nodes, beside what it has for clients. Memory that they can make it hold, in the transport:
/// `connections_max × receive_window_bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLimits {
    /// Connections of nodes at one time. Default 128: forty nodes with their three lanes.
    pub connections_max: usize,
    /// Connections of one node at one time; one more ends its oldest. Default 8: its three lanes, and those that it left behind.
    pub connections_per_node_max: usize,
    /// Handshakes at one time from addresses where nodes are expected, when all others are taken. Default 16.
    pub handshakes_reserved: usize,
    /// Exchanges at one time on one connection. Default 1,024: as many as there can be shards.
    pub exchanges_per_connection_max: u32,
    /// Bytes in flight on one connection. Default 8 MiB (at 128 connections: 1 GiB).
    pub receive_window_bytes: u32,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            connections_per_node_max: 8,
            handshakes_reserved: 16,
            exchanges_per_connection_max: u32::from(SHARDS_MAX),
            receive_window_bytes: NODE_WINDOW_BYTES,
        }
    }
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            handshakes_max: 64,
            exchanges_per_connection_max: 64,
            handshake_ms: 10_000,
            receive_window_bytes: 2 * 1024 * 1024,
            idle_ms: IDLE_MS,
            nodes: None,
        }
    }
}

impl ServerLimits {
    pub(super) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_ms.into())
    }

    /// What the server offers to speak.
    pub(super) fn protocols(&self) -> &'static [Protocol] {
        if self.nodes.is_some() { &Protocol::ALL } else { &[Protocol::Clients] }
    }
}

impl NodeLimits {
    /// Gives a connection a node's limits. Its first flight was under those of a client, which are smaller.
    pub(super) fn widen(&self, connection: &quinn::Connection) {
        connection.set_receive_window(VarInt::from_u32(self.receive_window_bytes));
        connection.set_send_window(NODE_WINDOW_BYTES.into());
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(self.exchanges_per_connection_max));
    }
}

fn common(idle_ms: u32, stream_window_bytes: usize) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()))
        .stream_receive_window(VarInt::from_u32(u32::try_from(stream_window_bytes).unwrap_or(u32::MAX)))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None);
    config
}

/// A server's: the other end opens exchanges, and nothing else.
pub(super) fn server(limits: &ServerLimits) -> Arc<TransportConfig> {
    let stream_window = if limits.nodes.is_some() { NODE_STREAM_WINDOW_BYTES } else { STREAM_WINDOW_BYTES };
    let mut config = common(limits.idle_ms, stream_window);
    config
        .receive_window(VarInt::from_u32(limits.receive_window_bytes))
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.exchanges_per_connection_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    Arc::new(config)
}

/// That of the end that connects: the server says welcome on one stream, and opens nothing else.
pub(super) fn dialling(protocol: Protocol) -> Arc<TransportConfig> {
    let (mut config, keep_alive_ms, window_bytes) = match protocol {
        Protocol::Clients => (common(IDLE_MS, STREAM_WINDOW_BYTES), KEEP_ALIVE_MS, CLIENT_WINDOW_BYTES),
        Protocol::Nodes => {
            let mut config = common(NODE_IDLE_MS, NODE_STREAM_WINDOW_BYTES);
            config.send_window(NODE_WINDOW_BYTES.into());
            (config, NODE_KEEP_ALIVE_MS, NODE_WINDOW_BYTES)
        }
    };
    config
        .keep_alive_interval(Some(Duration::from_millis(keep_alive_ms.into())))
        .receive_window(VarInt::from_u32(window_bytes))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1));
    Arc::new(config)
}
