//! Who is at the other end of a channel: the one `urn:ehe:<role>:<id>` in its certificate.

use core::fmt;
use core::str::FromStr;

use ehe::charter::Role;
use ehe::id::{AuthorId, NodeId};

/// A peer, as its verified certificate names it. Says who, never what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerIdentity {
    /// A storage node.
    Node(NodeId),
    /// A gateway.
    Gateway(AuthorId),
    /// A patient's program.
    Patient(AuthorId),
    /// A clinician's program.
    Clinician(AuthorId),
}

/// Why a certificate or a text names no peer. Whoever issued or sent it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The bytes are no X.509 certificate.
    #[error("not an X.509 certificate")]
    NotACertificate,
    /// No `urn:ehe:` URI, or more than one.
    #[error("the certificate has {0} urn:ehe names where it has to have exactly one")]
    Names(usize),
    /// The text is not `urn:ehe:<role>:<id>` in its one spelling.
    #[error("{0:?} is not urn:ehe:<node|gateway|patient|clinician>:<id in lower-case hex>")]
    Urn(String),
}

pub(crate) const URN_PREFIX: &str = "urn:ehe:";

/// Names under this suffix are for [`server_name`] alone; nobody may ask for one. `.alt` is set aside for names outside the
/// DNS (RFC 9476).
pub(crate) const SERVER_NAME_SUFFIX: &str = ".node.ehe.alt";

/// The DNS name that stands for a node id in its certificate, so that the ordinary TLS name check compares node ids.
pub(crate) fn server_name(node: NodeId) -> String {
    format!("{node}{SERVER_NAME_SUFFIX}")
}

impl PeerIdentity {
    /// The peer that an identity is in a role. A node's id is the first 8 bytes of its identity's author id.
    pub fn of(role: Role, author: AuthorId) -> Self {
        match role {
            Role::Node => Self::Node(node_id(author)),
            Role::Gateway => Self::Gateway(author),
            Role::Patient => Self::Patient(author),
            Role::Clinician => Self::Clinician(author),
        }
    }

    /// The role.
    pub fn role(&self) -> Role {
        match self {
            Self::Node(_) => Role::Node,
            Self::Gateway(_) => Role::Gateway,
            Self::Patient(_) => Role::Patient,
            Self::Clinician(_) => Role::Clinician,
        }
    }

    /// The author, unless it is a node.
    pub fn author(&self) -> Option<AuthorId> {
        match self {
            Self::Node(_) => None,
            Self::Gateway(author) | Self::Patient(author) | Self::Clinician(author) => Some(*author),
        }
    }

    /// The node, if it is one.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(*node),
            Self::Gateway(_) | Self::Patient(_) | Self::Clinician(_) => None,
        }
    }
}

/// A node's id: the first 8 bytes of its identity's author id, so that nobody can ask for a certificate of another's id.
pub fn node_id(author: AuthorId) -> NodeId {
    let mut id = NodeId::ZERO;
    for (to, from) in id.0.iter_mut().zip(author.0) {
        *to = from;
    }
    id
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{URN_PREFIX}{}:", self.role())?;
        match self {
            Self::Node(node) => write!(f, "{node}"),
            Self::Gateway(author) | Self::Patient(author) | Self::Clinician(author) => write!(f, "{author}"),
        }
    }
}

impl FromStr for PeerIdentity {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let bad = || PeerError::Urn(text.chars().take(80).collect());
        let (role, id) = text.strip_prefix(URN_PREFIX).and_then(|rest| rest.split_once(':')).ok_or_else(bad)?;
        let author = || id.parse::<AuthorId>().map_err(|_| bad());
        let peer = match role.parse::<Role>().map_err(|_| bad())? {
            Role::Node => Self::Node(id.parse().map_err(|_| bad())?),
            Role::Gateway => Self::Gateway(author()?),
            Role::Patient => Self::Patient(author()?),
            Role::Clinician => Self::Clinician(author()?),
        };
        // One spelling for each peer.
        if peer.to_string() == text { Ok(peer) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_urn_there_and_back_in_one_spelling_only() {
        let author = AuthorId([0xab; 16]);
        for role in Role::ALL {
            let peer = PeerIdentity::of(role, author);
            assert_eq!(peer.to_string().parse::<PeerIdentity>(), Ok(peer));
            assert_eq!(peer.role(), role);
        }
        assert_eq!(PeerIdentity::of(Role::Node, author).to_string(), "urn:ehe:node:abababababababab");
        for bad in [
            "urn:ehe:node:ABABABABABABABAB",
            "urn:ehe:node:abababababababababababababababab",
            "urn:ehe:patient:abababababababab",
            "urn:ehe:nurse:abababababababababababababababab",
            "urn:ehe:node",
            "URN:EHE:node:abababababababab",
            "",
        ] {
            assert!(matches!(bad.parse::<PeerIdentity>(), Err(PeerError::Urn(_))), "{bad}");
        }
    }
}
