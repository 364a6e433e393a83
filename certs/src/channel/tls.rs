//! TLS for both ends. Everything that is a decision is written out; no process-wide default is relied on.

use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{ChannelError, Protocol};
use crate::store::Credentials;

fn setup(error: impl ToString) -> ChannelError {
    ChannelError::Setup(error.to_string())
}

/// aws-lc-rs, the suites of TLS 1.3, the hybrid key exchange first: what is recorded today stays closed to tomorrow's
/// quantum computer. The other groups are for peers behind boxes that drop large first flights.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.kx_groups =
        vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    Arc::new(provider)
}

fn roots(credentials: &Credentials) -> Result<Arc<RootCertStore>, ChannelError> {
    let mut roots = RootCertStore::empty();
    roots.add(credentials.channel().authority.clone()).map_err(setup)?;
    Ok(Arc::new(roots))
}

/// A server: whoever comes has to show a certificate of the authority that is not revoked.
pub(super) fn server(credentials: &Credentials, offered: &[Protocol]) -> Result<ServerConfig, ChannelError> {
    let files = credentials.channel();
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots(credentials)?, provider());
    if let Some(list) = &files.revocations {
        verifier = verifier.with_crls([list.der().clone()]).enforce_revocation_expiration();
    }
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(setup)?
        .with_client_cert_verifier(verifier.build().map_err(setup)?)
        .with_single_cert(files.chain.clone(), files.key.for_tls())
        .map_err(setup)?;
    config.alpn_protocols = offered.iter().map(|protocol| protocol.alpn().to_vec()).collect();
    // A resumed session would not be verified again: no tickets, no storage, no 0-RTT.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// A client: the server has to show a certificate of the authority, for the node's name, that is not revoked.
pub(super) fn client(credentials: &Credentials, protocol: Protocol) -> Result<ClientConfig, ChannelError> {
    let files = credentials.channel();
    let mut verifier = WebPkiServerVerifier::builder_with_provider(roots(credentials)?, provider());
    if let Some(list) = &files.revocations {
        verifier = verifier.with_crls([list.der().clone()]).enforce_revocation_expiration();
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(setup)?
        .with_webpki_verifier(verifier.build().map_err(setup)?)
        .with_client_auth_cert(files.chain.clone(), files.key.for_tls())
        .map_err(setup)?;
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;
    use crate::peer::server_name;
    use crate::test_world::World;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConnection, ServerConnection};

    /// Shuffles bytes between both until nothing moves.
    fn handshake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
        loop {
            let mut moved = false;
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            moved |= !bytes.is_empty();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            moved |= !bytes.is_empty();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
            if !moved {
                return Ok(());
            }
        }
    }

    fn pair(world: &World, client: ClientConfig) -> (ClientConnection, ServerConnection) {
        let name = ServerName::try_from(server_name(world.node_id())).unwrap();
        let server = server(&world.credentials(Role::Node), &Protocol::ALL).unwrap();
        (ClientConnection::new(Arc::new(client), name).unwrap(), ServerConnection::new(Arc::new(server)).unwrap())
    }

    #[test]
    fn both_ends_agree_on_the_hybrid_key_exchange() {
        let world = World::new();
        let (mut client, mut server) =
            pair(&world, client(&world.credentials(Role::Gateway), Protocol::Clients).unwrap());
        handshake(&mut client, &mut server).unwrap();
        for group in [client.negotiated_key_exchange_group(), server.negotiated_key_exchange_group()] {
            assert_eq!(group.unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
        }
        assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(client.tls13_tickets_received(), 0, "no tickets");
    }

    #[test]
    fn tls_1_2_is_not_spoken() {
        let world = World::new();
        let credentials = world.credentials(Role::Gateway);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut old = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots(&credentials).unwrap())
            .with_client_auth_cert(credentials.channel().chain.clone(), credentials.channel().key.for_tls())
            .unwrap();
        old.alpn_protocols = vec![Protocol::Clients.alpn().to_vec()];
        let (mut client, mut server) = pair(&world, old);
        let error = handshake(&mut client, &mut server).unwrap_err();
        assert!(matches!(error, rustls::Error::PeerIncompatible(_)), "{error}");
    }
}
