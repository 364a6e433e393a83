//! The channel between programs: QUIC with certificates at both ends (DESIGN: transport).
//!
//! TLS 1.3 only, X25519MLKEM768 preferred, the aws-lc-rs provider named explicitly, no 0-RTT, no tickets (a resumed session
//! would not be verified again). One UDP port, two protocols ([`Protocol`], by ALPN): `ehe/1` for clients of every role, and
//! `ehe-raft/1` between nodes, which nobody else is let in on.
//!
//! A client whose certificate the node refuses believes for a moment that the handshake went well. So the node says *welcome*:
//! once it has verified and accepted the client it opens one unidirectional stream that holds the byte `01` (the version of
//! what follows). [`Client::connect`] returns when that byte is there, and otherwise says who refused whom.
//!
//! After that, everything is a bidirectional stream ([`Exchange`]) of frames, begun by the end that connected: four bytes of
//! length, big-endian, then at most [`Protocol::frame_max_bytes`] of payload. Memory follows the bytes that arrive, never the
//! length announced. For a client an exchange is one request; between nodes it lasts for as long as both want. There are no other
//! unidirectional streams: on a bidirectional one the end that only listens can still say why it stops.
//!
//! Nothing here spawns a task: a daemon drives [`Server::accept`], [`Handshake::complete`] and [`Peer::accept_exchange`]; whoever
//! opens an exchange by [`NodeDialer::open`] drives the connection's making.

mod client;
mod code;
mod dial;
mod error;
mod exchange;
mod gate;
mod node_dialer;
mod node_slots;
mod protocol;
mod reset;
mod server;
mod socket;
mod sources;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

pub use self::client::Client;
pub use self::code::CloseCode;
pub use self::dial::Connection;
pub use self::error::{CertificateFault, ChannelError};
pub use self::exchange::{Exchange, FrameReceiver, FrameSender};
pub use self::node_dialer::{Lane, NodeDialer};
pub use self::protocol::{NODE_FRAME_MAX_BYTES, Protocol};
pub use self::server::{Handshake, Peer, Server};
pub use self::transport::{NodeLimits, ServerLimits};

/// What a node's welcome says: the version of the frames that follow.
const WELCOME: &[u8] = &[1];

/// Whom a verified certificate chain, as quinn hands it out, names.
fn peer_facts(connection: &quinn::Connection) -> Result<crate::certificate::Facts, crate::peer::PeerError> {
    let chain = connection
        .peer_identity()
        .and_then(|chain| chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|chain| chain.first()).ok_or(crate::peer::PeerError::NotACertificate)?;
    crate::certificate::Facts::read(leaf)
}

/// The instant after this time; a time beyond all plans counts as a year.
fn deadline(within: std::time::Duration) -> tokio::time::Instant {
    const YEAR: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 60 * 60);
    tokio::time::Instant::now() + within.min(YEAR)
}
