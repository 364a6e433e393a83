//! What is spoken on a connection: agreed on in the handshake (ALPN, RFC 7301), and never changed on it.

use core::fmt;

use ehe::limits::FRAME_MAX_BYTES;
use quinn::crypto::rustls::HandshakeData;

/// Largest frame between nodes, without its four length bytes: an entry of the log is a block of at most some 5 MiB, and a
/// batch of entries is sent in one frame.
pub const NODE_FRAME_MAX_BYTES: usize = 16 * 1024 * 1024;

/// The application protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `ehe/1`: clients, of any role, ask a node. Drawn in SPEC 11.
    Clients,
    /// `ehe-raft/1`: nodes among themselves. Whoever else asks for it is refused.
    Nodes,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Clients, Self::Nodes];

    /// Its name in the handshake.
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Clients => b"ehe/1",
            Self::Nodes => b"ehe-raft/1",
        }
    }

    /// Largest frame, without its four length bytes.
    pub const fn frame_max_bytes(self) -> usize {
        match self {
            Self::Clients => FRAME_MAX_BYTES,
            Self::Nodes => NODE_FRAME_MAX_BYTES,
        }
    }

    /// The one that both ends agreed on; `None` before they did.
    pub(super) fn of(connection: &quinn::Connection) -> Option<Self> {
        let agreed = connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol?;
        Self::ALL.into_iter().find(|protocol| protocol.alpn() == agreed)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clients => "ehe/1",
            Self::Nodes => "ehe-raft/1",
        })
    }
}
