//! Who gets in, and what the others hear.

use std::sync::Arc;

use ehe::id::NodeId;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration as Days, OffsetDateTime};

use super::ends::{LIMIT, address, begun, client, loopback, meet, server};
use crate::Role;
use crate::channel::{CertificateFault, ChannelError, Client, Protocol, Server, ServerLimits, tls};
use crate::enrol::EnrolmentRequest;
use crate::peer::{PeerError, PeerIdentity, server_name};
use crate::revocation::{CRL_DAYS, Which};
use crate::store::{Credentials, names};
use crate::test_world::World;

/// A client that trusts the world's authority and shows this certificate, or none.
fn odd_client(world: &World, shown: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>, alpn: &[u8]) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(world.credentials(Role::Gateway).channel().authority.clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Client::with_tls(config, Protocol::Clients).unwrap()
}

fn shown_by(credentials: &Credentials) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let files = credentials.channel();
    (files.chain[0].clone(), files.key.for_tls())
}

/// A certificate of the world's own authority with these names.
fn certificate_with(world: &World, names: Vec<SanType>) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &world.authority.issuer).unwrap();
    (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[tokio::test]
async fn each_role_is_welcomed_under_its_own_name() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    for role in Role::ALL {
        let (connection, peer) = meet(&world, &server, &client(&world, role)).await;
        let (connection, peer) = (connection.unwrap(), peer.unwrap());
        assert_eq!(peer.identity(), world.credentials(role).peer());
        assert_eq!(peer.identity().role(), role);
        assert_eq!(connection.peer(), PeerIdentity::Node(world.node_id()));
        assert_eq!(*peer.certificate_serial(), world.credentials(role).certificate().serial);
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told_that_the_node_refused_it() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let (connection, peer) = meet(&world, &server, &odd_client(&world, None, Protocol::Clients.alpn())).await;
    let error = connection.unwrap_err();
    assert_eq!(error, ChannelError::RefusedByPeer(CertificateFault::Missing));
    assert!(!error.retry_helps());
    assert!(matches!(peer, Err(ChannelError::PeerRefused { fault: CertificateFault::Missing, .. })));
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused_by_both_ends() {
    let (world, other) = (World::new(), World::new());
    let server = server(&world, ServerLimits::default());
    let theirs = shown_by(&other.credentials(Role::Gateway));
    let (connection, peer) = meet(&world, &server, &odd_client(&world, Some(theirs), Protocol::Clients.alpn())).await;
    assert_eq!(connection.unwrap_err(), ChannelError::RefusedByPeer(CertificateFault::UnknownAuthority));
    assert!(matches!(peer, Err(ChannelError::PeerRefused { fault: CertificateFault::UnknownAuthority, .. })));

    let (connection, peer) = meet(&world, &server, &client(&other, Role::Gateway)).await;
    let error = connection.unwrap_err();
    assert!(matches!(error, ChannelError::PeerRefused { fault: CertificateFault::UnknownAuthority, .. }), "{error}");
    assert!(matches!(peer, Err(ChannelError::RefusedByPeer(CertificateFault::UnknownAuthority))));
}

#[tokio::test]
async fn another_node_than_the_expected_one_is_refused() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let expected = NodeId([9; 8]);
    let addresses = address(&server);
    let client = client(&world, Role::Gateway);
    let accepting = async { server.accept().await.unwrap().complete().await };
    let (connection, peer) = tokio::join!(client.connect(&addresses, expected, LIMIT), accepting);
    let error = connection.unwrap_err();
    assert!(matches!(error, ChannelError::WrongNode { expected: e, .. } if e == expected), "{error}");
    assert!(peer.is_err());
}

#[tokio::test]
async fn a_node_whose_certificate_lies_in_one_of_its_two_names_is_refused() {
    let world = World::new();
    let node = world.node_id();
    // The DNS name passes TLS's check, the URN is another node's. Our authority would not issue it; a careless one might.
    let other = PeerIdentity::Node(NodeId([9; 8])).to_string();
    let names = vec![uri(&other), SanType::DnsName(server_name(node).try_into().unwrap())];
    let (certificate, key) = certificate_with(&world, names);
    let mut config = tls::server(&world.credentials(Role::Node), &[Protocol::Clients]).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![certificate], key);
    config.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let server =
        Server::with_tls(loopback(), config, quinn::EndpointConfig::default(), ServerLimits::default()).unwrap();
    let (connection, _) = meet(&world, &server, &client(&world, Role::Gateway)).await;
    assert!(matches!(connection, Err(ChannelError::WrongNode { .. })));
}

#[tokio::test]
async fn a_gateway_cannot_pass_for_a_node() {
    let world = World::new();
    let server = Server::bind(loopback(), &world.credentials(Role::Gateway), ServerLimits::default()).unwrap();
    let (connection, _) = meet(&world, &server, &client(&world, Role::Patient)).await;
    let error = connection.unwrap_err();
    assert!(matches!(error, ChannelError::PeerRefused { .. } | ChannelError::WrongNode { .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_that_names_no_one_peer_is_refused_by_name() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let gateway = world.credentials(Role::Gateway).peer().to_string();
    let patient = world.credentials(Role::Patient).peer().to_string();
    for (names, expected) in [
        (vec![SanType::DnsName("host.example".try_into().unwrap())], PeerError::Names(0)),
        (vec![uri(&gateway), uri(&patient)], PeerError::Names(2)),
        (vec![uri("urn:ehe:nurse:00")], PeerError::Urn("urn:ehe:nurse:00".into())),
    ] {
        let odd = odd_client(&world, Some(certificate_with(&world, names)), Protocol::Clients.alpn());
        let (connection, peer) = meet(&world, &server, &odd).await;
        assert_eq!(connection.unwrap_err(), ChannelError::RefusedByPeer(CertificateFault::NotWelcome));
        assert_eq!(peer.unwrap_err(), ChannelError::PeerName(expected));
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_said_to_be_expired() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let dir = world.dir_of(Role::Gateway);
    let request = EnrolmentRequest::load(&dir.join(names::REQUEST)).unwrap().verify().unwrap();
    let past = OffsetDateTime::now_utc() - Days::days(60);
    let issued = world.authority.issue(&request, Role::Gateway, 30, past).unwrap();
    std::fs::write(dir.join(names::CHANNEL), issued.pem).unwrap();
    let (connection, _) = meet(&world, &server, &client(&world, Role::Gateway)).await;
    assert_eq!(connection.unwrap_err(), ChannelError::RefusedByPeer(CertificateFault::Expired));
}

#[tokio::test]
async fn ends_that_speak_another_protocol_find_out() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let shown = shown_by(&world.credentials(Role::Gateway));
    let (connection, peer) = meet(&world, &server, &odd_client(&world, Some(shown), b"ehe/2")).await;
    assert_eq!(connection.unwrap_err(), ChannelError::OtherProtocol);
    assert_eq!(peer.unwrap_err(), ChannelError::OtherProtocol);
}

#[tokio::test]
async fn a_revoked_client_is_refused_once_the_node_has_the_list_and_others_are_not() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let gateway = client(&world, Role::Gateway);
    meet(&world, &server, &gateway).await.0.unwrap();
    let now = OffsetDateTime::now_utc();
    world.authority.revoke(&Which::Peer(world.credentials(Role::Gateway).peer()), CRL_DAYS, now).unwrap();
    world.install(&world.dir_of(Role::Node));
    server.reload(&world.credentials(Role::Node)).unwrap();
    let (connection, peer) = meet(&world, &server, &gateway).await;
    assert_eq!(connection.unwrap_err(), ChannelError::RefusedByPeer(CertificateFault::Revoked));
    assert!(matches!(peer, Err(ChannelError::PeerRefused { fault: CertificateFault::Revoked, .. })));
    meet(&world, &server, &client(&world, Role::Patient)).await.0.unwrap();
}

#[tokio::test]
async fn a_revoked_node_is_refused_by_clients_that_have_the_list() {
    let world = World::new();
    let serial = world.credentials(Role::Node).certificate().serial.clone();
    world.authority.revoke(&Which::Serial(serial), CRL_DAYS, OffsetDateTime::now_utc()).unwrap();
    world.install(&world.dir_of(Role::Gateway));
    let server = server(&world, ServerLimits::default());
    let (connection, _) = meet(&world, &server, &client(&world, Role::Gateway)).await;
    let error = connection.unwrap_err();
    assert!(matches!(error, ChannelError::PeerRefused { fault: CertificateFault::Revoked, .. }), "{error}");
}

#[tokio::test]
async fn a_client_goes_by_the_list_that_it_was_given_last() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let gateway = client(&world, Role::Gateway);
    meet(&world, &server, &gateway).await.0.unwrap();
    let past = OffsetDateTime::now_utc() - Days::days(60);
    world.authority.revoke(&Which::Refresh, CRL_DAYS, past).unwrap();
    world.install(&world.dir_of(Role::Gateway));
    gateway.reload(&world.credentials(Role::Gateway)).unwrap();
    assert!(meet(&world, &server, &gateway).await.0.is_err(), "by a list that has ended");
    world.authority.revoke(&Which::Refresh, CRL_DAYS, OffsetDateTime::now_utc()).unwrap();
    world.install(&world.dir_of(Role::Gateway));
    gateway.clone().reload(&world.credentials(Role::Gateway)).unwrap();
    meet(&world, &server, &gateway).await.0.unwrap();
    let serial = world.credentials(Role::Node).certificate().serial.clone();
    world.authority.revoke(&Which::Serial(serial), CRL_DAYS, OffsetDateTime::now_utc()).unwrap();
    world.install(&world.dir_of(Role::Gateway));
    gateway.reload(&world.credentials(Role::Gateway)).unwrap();
    let error = meet(&world, &server, &gateway).await.0.unwrap_err();
    assert!(matches!(error, ChannelError::PeerRefused { fault: CertificateFault::Revoked, .. }), "{error}");
}

#[tokio::test]
async fn a_list_that_is_too_old_lets_nobody_in() {
    let world = World::new();
    let past = OffsetDateTime::now_utc() - Days::days(60);
    world.authority.revoke(&Which::Refresh, CRL_DAYS, past).unwrap();
    world.install(&world.dir_of(Role::Node));
    let server = server(&world, ServerLimits::default());
    let (connection, _) = meet(&world, &server, &client(&world, Role::Gateway)).await;
    assert_eq!(connection.unwrap_err(), ChannelError::RefusedByPeer(CertificateFault::UnknownAuthority));
}

#[tokio::test]
async fn one_connection_too_many_hears_busy_and_gets_in_when_there_is_room() {
    let world = World::new();
    let server = server(&world, ServerLimits { connections_max: 1, ..ServerLimits::default() });
    let gateway = client(&world, Role::Gateway);
    let (first, peer) = meet(&world, &server, &gateway).await;
    assert_eq!(server.connections(), 1);
    let addresses = address(&server);
    let patient = client(&world, Role::Patient);
    let second = async {
        tokio::select! {
            refused = patient.connect(&addresses, world.node_id(), LIMIT) => refused,
            _ = server.accept() => panic!("the second was let in"),
        }
    };
    let error = second.await.unwrap_err();
    assert_eq!(error, ChannelError::Busy);
    assert!(error.retry_helps() && server.refused_busy() == 1);
    drop((first, peer));
    meet(&world, &server, &patient).await.0.unwrap();
}

#[tokio::test]
async fn an_exchange_keeps_its_connection_counted() {
    let ends = begun().await;
    drop((ends.connection, ends.peer));
    assert_eq!(ends.server.connections(), 1);
    drop((ends.near, ends.far));
    assert_eq!(ends.server.connections(), 0);
}

/// The first flight of a real client, to be sent on by somebody who then says nothing more.
pub(super) async fn first_flight(world: &World) -> Vec<Vec<u8>> {
    let trap = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let lured = client(world, Role::Gateway);
    let trap_address = vec![trap.local_addr().unwrap().to_string()];
    let first_flight = async {
        let mut datagrams = Vec::new();
        for _ in 0..2 {
            let mut bytes = vec![0; 2048];
            let length = trap.recv(&mut bytes).await.unwrap();
            bytes.truncate(length);
            datagrams.push(bytes);
        }
        datagrams
    };
    tokio::select! {
        datagrams = first_flight => datagrams,
        outcome = lured.connect(&trap_address, world.node_id(), LIMIT) => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_times_out_and_keeps_nobody_waiting() {
    let world = World::new();
    // With one of two handshakes stuck, the next client also has to show that its address is its own.
    let server = server(&world, ServerLimits { handshake_ms: 300, handshakes_max: 2, ..ServerLimits::default() });
    let datagrams = first_flight(&world).await;
    // At another address than the client that comes after it: one address has a share of its own.
    let silent = tokio::net::UdpSocket::bind("127.0.0.2:0").await.unwrap();
    for datagram in &datagrams {
        silent.send_to(datagram, server.local_addr().unwrap()).await.unwrap();
    }
    let stuck = tokio::time::timeout(LIMIT, server.accept()).await.unwrap().unwrap();
    let stuck = tokio::spawn(stuck.complete());
    let (connection, peer) = meet(&world, &server, &client(&world, Role::Patient)).await;
    assert!(connection.is_ok() && peer.is_ok(), "others get in meanwhile");
    let outcome = tokio::time::timeout(LIMIT, stuck).await.unwrap().unwrap();
    assert!(matches!(outcome, Err(ChannelError::Deadline(_))), "{outcome:?}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_client_without_a_welcome_does_not_believe_the_handshake() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let client = client(&world, Role::Gateway);
    let addresses = address(&server);
    let held = async {
        // Accepted into the queue, never completed.
        let handshake = server.accept().await.unwrap();
        std::future::pending::<()>().await;
        drop(handshake);
    };
    tokio::select! {
        outcome = client.connect(&addresses, world.node_id(), super::ends::SHORT) => {
            assert!(matches!(outcome, Err(ChannelError::Deadline(_))), "{outcome:?}");
        }
        () = held => unreachable!(),
    }
}

#[tokio::test]
async fn an_address_that_does_not_work_is_passed_over() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let client = client(&world, Role::Gateway);
    let addresses = vec!["no address".to_owned(), server.local_addr().unwrap().to_string()];
    let accepting = async { server.accept().await.unwrap().complete().await };
    let (connection, peer) = tokio::join!(client.connect(&addresses, world.node_id(), LIMIT), accepting);
    assert!(connection.is_ok() && peer.is_ok());
    let error = client.connect(&["no address".to_owned()], world.node_id(), LIMIT).await.unwrap_err();
    assert!(matches!(error, ChannelError::Unreachable(_)), "{error}");
    assert!(matches!(client.connect(&[], world.node_id(), LIMIT).await, Err(ChannelError::Unreachable(_))));
}

#[tokio::test]
async fn one_address_has_a_quarter_of_the_handshakes_and_others_begin_theirs() {
    let world = World::new();
    let server = server(&world, ServerLimits { handshakes_max: 8, ..ServerLimits::default() });
    let addresses = address(&server);
    let patient = client(&world, Role::Patient);
    let connect = || patient.connect(&addresses, world.node_id(), LIMIT);
    // Two begun at this address and not completed. Of two, the second has to show that the address is its own.
    let (mut one, mut two) = (std::pin::pin!(connect()), std::pin::pin!(connect()));
    let held = async { (server.accept().await.unwrap(), server.accept().await.unwrap()) };
    let held = tokio::select! {
        held = held => held,
        _ = &mut one => panic!("completed by itself"),
        _ = &mut two => panic!("completed by itself"),
    };
    let refused = tokio::select! {
        refused = connect() => refused,
        _ = server.accept() => panic!("the third was let in"),
    };
    assert_eq!(refused.unwrap_err(), ChannelError::Busy);
    assert_eq!((server.refused_sources(), server.refused_busy()), (1, 1));

    let other = tokio::net::UdpSocket::bind("127.0.0.2:0").await.unwrap();
    for datagram in first_flight(&world).await {
        other.send_to(&datagram, server.local_addr().unwrap()).await.unwrap();
    }
    let begun = tokio::time::timeout(LIMIT, server.accept()).await.unwrap().unwrap();
    assert_eq!(begun.remote_address(), other.local_addr().unwrap());
    assert_eq!(server.refused_sources(), 1);

    drop(held);
    meet(&world, &server, &client(&world, Role::Clinician)).await.0.unwrap();
}

#[tokio::test]
async fn an_address_that_is_in_use_is_named_with_the_cause_and_the_option() {
    let world = World::new();
    let first = server(&world, ServerLimits::default());
    let taken = first.local_addr().unwrap();
    let credentials = world.credentials(Role::Node);
    let error = Server::bind(taken, &credentials, ServerLimits::default()).err().unwrap().to_string();
    let told = format!("cannot listen on {taken}: another program listens there, or this one runs already (");
    assert!(error.starts_with(&told) && error.ends_with("look at `listen` in the configuration"), "{error}");
}
