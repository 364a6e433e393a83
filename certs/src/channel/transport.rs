//! Limits of the transport: each with its default, its unit and what it costs.

use std::sync::Arc;
use std::time::Duration;

use ehe::limits::FRAME_MAX_BYTES;
use quinn::{TransportConfig, VarInt};

/// Nothing heard for this long: the connection is lost. Both ends.
const IDLE_MS: u32 = 30_000;
/// A client says something at least this often, so that home routers keep its way open.
const KEEP_ALIVE_MS: u32 = 10_000;
/// Bytes that one stream may have in flight towards us: one frame, so that a peer can always finish what it began.
const STREAM_WINDOW_BYTES: usize = FRAME_MAX_BYTES + 64 * 1024;
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
        }
    }
}

impl ServerLimits {
    pub(super) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_ms.into())
    }
}

fn common(idle_ms: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()))
        .stream_receive_window(VarInt::from_u32(u32::try_from(STREAM_WINDOW_BYTES).unwrap_or(u32::MAX)))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None);
    config
}

/// A server's: clients open exchanges, and nothing else.
pub(super) fn server(limits: &ServerLimits) -> Arc<TransportConfig> {
    let mut config = common(limits.idle_ms);
    config
        .receive_window(VarInt::from_u32(limits.receive_window_bytes))
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.exchanges_per_connection_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    Arc::new(config)
}

/// A client's: the server says welcome on one stream, and opens nothing else.
pub(super) fn client() -> Arc<TransportConfig> {
    let mut config = common(IDLE_MS);
    config
        .keep_alive_interval(Some(Duration::from_millis(KEEP_ALIVE_MS.into())))
        .receive_window(VarInt::from_u32(CLIENT_WINDOW_BYTES))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1));
    Arc::new(config)
}
