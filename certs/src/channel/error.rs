//! What can go wrong on a channel, and whose fault it is: one place maps quinn's and TLS's answers.

use core::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use ehe::id::NodeId;
use quinn::{ConnectionError, ReadError, TransportErrorCode, WriteError};

use super::CloseCode;
use crate::peer::{PeerError, PeerIdentity};

/// What is wrong with a certificate, as TLS says it (RFC 8446 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFault {
    /// None was shown.
    Missing,
    /// Of another authority; or the revocation list at hand is too old to tell.
    UnknownAuthority,
    /// Its time is over or has not begun, by the clock of the end that looked.
    Expired,
    /// It was revoked.
    Revoked,
    /// It is for other uses: a client's certificate shown by a server.
    Purpose,
    /// The peer does not hold its private key, or a signature in it does not verify.
    Signature,
    /// It is malformed.
    Malformed,
    /// It is valid and its holder is not welcome.
    NotWelcome,
    /// Another TLS alert.
    Alert(u8),
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no certificate was shown: enrol with `ehe-certs`",
            Self::UnknownAuthority => "it is of another authority, or the revocation list there is out of date",
            Self::Expired => "it has expired or is not valid yet, by the clock there: renew it, check both clocks",
            Self::Revoked => "it was revoked: only a new one of the alliance's authority helps",
            Self::Purpose => "it is not for this use",
            Self::Signature => "its signature does not verify",
            Self::Malformed => "it is malformed or not for this name",
            Self::NotWelcome => "it is valid, its holder is not welcome",
            Self::Alert(alert) => return write!(f, "TLS alert {alert}"),
        })
    }
}

/// Why a channel, or an exchange on it, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The peer refused this side's certificate. Trying again does not help; the alliance's authority does.
    #[error("refused by the peer: of our certificate it says that {0}")]
    RefusedByPeer(CertificateFault),
    /// This side refused the peer's certificate.
    #[error("we refused the peer's certificate: {fault} ({detail})")]
    PeerRefused {
        /// What is wrong with it.
        fault: CertificateFault,
        /// In words.
        detail: String,
    },
    /// The certificate is valid and names no one peer.
    #[error("we refused the peer's certificate: {0}")]
    PeerName(#[from] PeerError),
    /// The node at this address is another one.
    #[error("the node at this address is not {expected} ({detail}): check the charter's addresses")]
    WrongNode {
        /// The node expected.
        expected: NodeId,
        /// What it was.
        detail: String,
    },
    /// A valid certificate, not a node's, on the nodes' protocol.
    #[error("{0} asked for the protocol between nodes and is none")]
    NodesOnly(PeerIdentity),
    /// The other end speaks another protocol (ALPN), or another version of this.
    #[error(
        "the other end does not speak this version of the protocol: one of the two programs is too old, or it is another service"
    )]
    OtherProtocol,
    /// The node has too many connections. Trying again later helps.
    #[error("the node has too many connections: try again later")]
    Busy,
    /// Nobody answers at any of the addresses.
    #[error("cannot reach the node: {0}")]
    Unreachable(String),
    /// A deadline passed.
    #[error("took too long: {0}")]
    Deadline(&'static str),
    /// A frame above the limit, announced by the peer or given by the caller.
    #[error("a frame of {bytes} bytes; at most {limit} are allowed: the program that made it is faulty")]
    FrameTooLarge {
        /// Its announced length.
        bytes: u64,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The stream ended within a frame.
    #[error("the peer's stream ended within a frame: it was interrupted, or its program is faulty")]
    Truncated,
    /// The peer closed the connection.
    #[error("the peer closed the connection: {0}")]
    Closed(CloseCode),
    /// The peer abandoned this exchange.
    #[error("the peer abandoned the exchange: {0}")]
    Reset(CloseCode),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Lost(String),
    /// Nobody can be heard at this address. A fault of this side.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system says, and what to do.
        why: String,
    },
    /// This side has closed it.
    #[error("closed by this side")]
    ClosedHere,
    /// Credentials or configuration that TLS or QUIC does not take. A fault of this side.
    #[error(
        "the channel cannot be set up: {0}; look at the credentials, the configuration and the system of this side"
    )]
    Setup(String),
}

impl ChannelError {
    /// An address of this machine cannot be listened on.
    pub(super) fn listening(address: SocketAddr, error: &io::Error) -> Self {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => "another program listens there, or this one runs already",
            ErrorKind::AddrNotAvailable => "this machine has no such address",
            ErrorKind::PermissionDenied => "this user may not use that port",
            _ => "the system does not let it",
        };
        Self::Listen { address, why: format!("{advice} ({error}); look at `listen` in the configuration") }
    }

    /// Whether trying again later, with nothing changed, can help. False means: somebody has to do something first.
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Busy
            | Self::Unreachable(_)
            | Self::Deadline(_)
            | Self::Truncated
            | Self::Closed(_)
            | Self::Reset(_)
            | Self::Lost(_) => true,
            Self::RefusedByPeer(_)
            | Self::PeerRefused { .. }
            | Self::PeerName(_)
            | Self::WrongNode { .. }
            | Self::NodesOnly(_)
            | Self::OtherProtocol
            | Self::FrameTooLarge { .. }
            | Self::ClosedHere
            | Self::Listen { .. }
            | Self::Setup(_) => false,
        }
    }

    /// How much it tells: of several failed addresses, the most telling answer is reported.
    pub(super) fn tells_more_than(&self, other: &Self) -> bool {
        let rank = |error: &Self| match error {
            Self::Unreachable(_) => 0,
            Self::Deadline(_) => 1,
            Self::Lost(_) => 2,
            Self::Busy | Self::Closed(_) => 3,
            _ => 4,
        };
        rank(self) > rank(other)
    }
}

// TLS alerts (RFC 8446 §6).
const BAD_CERTIFICATE: u8 = 42;
const UNSUPPORTED_CERTIFICATE: u8 = 43;
const CERTIFICATE_REVOKED: u8 = 44;
const CERTIFICATE_EXPIRED: u8 = 45;
const UNKNOWN_CA: u8 = 48;
const ACCESS_DENIED: u8 = 49;
const DECRYPT_ERROR: u8 = 51;
const CERTIFICATE_REQUIRED: u8 = 116;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// The alert in a transport error code (RFC 9001 §4.8).
fn alert(code: TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())
}

fn fault(alert: u8) -> CertificateFault {
    match alert {
        BAD_CERTIFICATE => CertificateFault::Malformed,
        UNSUPPORTED_CERTIFICATE => CertificateFault::Purpose,
        CERTIFICATE_REVOKED => CertificateFault::Revoked,
        CERTIFICATE_EXPIRED => CertificateFault::Expired,
        UNKNOWN_CA => CertificateFault::UnknownAuthority,
        ACCESS_DENIED => CertificateFault::NotWelcome,
        DECRYPT_ERROR => CertificateFault::Signature,
        CERTIFICATE_REQUIRED => CertificateFault::Missing,
        other => CertificateFault::Alert(other),
    }
}

impl From<ConnectionError> for ChannelError {
    fn from(error: ConnectionError) -> Self {
        match error {
            // Found here, of what the peer sent.
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(NO_APPLICATION_PROTOCOL) => Self::OtherProtocol,
                Some(alert) => Self::PeerRefused { fault: fault(alert), detail: shortened(&error.reason) },
                None => Self::Lost(shortened(&error.to_string())),
            },
            // Said by the peer.
            ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
                Some(NO_APPLICATION_PROTOCOL) => Self::OtherProtocol,
                Some(alert) => Self::RefusedByPeer(fault(alert)),
                None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => Self::Busy,
                None => Self::Lost(shortened(&close.to_string())),
            },
            ConnectionError::ApplicationClosed(close) => match CloseCode::from_wire(close.error_code) {
                CloseCode::NotAuthorized => Self::RefusedByPeer(CertificateFault::NotWelcome),
                CloseCode::Revoked => Self::RefusedByPeer(CertificateFault::Revoked),
                CloseCode::Expired => Self::RefusedByPeer(CertificateFault::Expired),
                CloseCode::Busy => Self::Busy,
                code => Self::Closed(code),
            },
            ConnectionError::VersionMismatch => Self::OtherProtocol,
            ConnectionError::TimedOut => Self::Lost("nothing was heard for the idle time".into()),
            ConnectionError::Reset => Self::Lost("the peer no longer knows the connection".into()),
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::CidsExhausted => Self::Lost("no connection ids left".into()),
        }
    }
}

impl From<ReadError> for ChannelError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(CloseCode::from_wire(code)),
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::ClosedStream => Self::ClosedHere,
            ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Self::Setup(error.to_string()),
        }
    }
}

impl From<WriteError> for ChannelError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Reset(CloseCode::from_wire(code)),
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream => Self::ClosedHere,
            WriteError::ZeroRttRejected => Self::Setup(error.to_string()),
        }
    }
}

/// A peer's words, bounded, without control characters: they go into logs.
fn shortened(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
