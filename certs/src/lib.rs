//! Key authoring entity: alliance CA, identities, enrolment, credentials directories and the mutually authenticated channel.
//!
//! The only crate that knows X.509. Certificates secure channels and nothing else: a certificate says which role and which
//! identity is at the other end; rights come from the room, and an expired certificate never invalidates an event.
//!
//! The way of the data: [`identity_file`] makes an identity, [`enrol`] asks for a certificate without letting a private key
//! leave its machine, [`authority`] issues and revokes, [`store`] reads the directory that results, [`channel`] speaks QUIC
//! with it, [`reload`] reads it again while a program runs.

pub mod age;
pub mod authority;
pub mod certificate;
pub mod channel;
pub mod charter_file;
pub mod charters;
pub mod crl;
pub mod enrol;
pub mod file;
pub mod identity_file;
pub mod lapse;
pub mod passphrase;
pub mod peer;
pub mod process;
pub mod reload;
pub mod revocation;
pub mod standard_error;
pub mod store;
pub mod terminal;
pub mod told;

pub use ehe::charter::Role;

pub use self::channel::{
    ChannelError, Client, CloseCode, Connection, Exchange, FrameReceiver, FrameSender, Handshake, Lane, NodeDialer,
    NodeLimits, Peer, Protocol, Server, ServerLimits,
};
pub use self::file::FileError;
pub use self::peer::PeerIdentity;
pub use self::store::Credentials;

#[cfg(test)]
mod test_world;
