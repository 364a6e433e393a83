//! A node that connects to another: to exactly that one, once for all who ask, again after it was lost.

use std::net::SocketAddr;

use ehe::charter::Node;
use ehe::id::NodeId;
use time::OffsetDateTime;

use super::ends::{LIMIT, SHORT, address, loopback, nodes_limits, nodes_server};
use crate::Role;
use crate::channel::{
    CertificateFault, ChannelError, CloseCode, Lane, NodeDialer, NodeLimits, Peer, Protocol, Server, ServerLimits,
};
use crate::revocation::{CRL_DAYS, Which};
use crate::test_world::World;

/// The world's node, as a charter names it, at the server's address.
fn node(world: &World, server: &Server) -> Node {
    let charter = world.credentials(Role::Node).charter().clone();
    Node { addresses: address(server), ..charter.node(world.node_id()).unwrap().clone() }
}

fn dialer(world: &World) -> NodeDialer {
    NodeDialer::new(&world.credentials(Role::Node)).unwrap()
}

async fn accepted(server: &Server) -> Result<Peer, ChannelError> {
    tokio::time::timeout(LIMIT, server.accept()).await.unwrap().unwrap().complete().await
}

#[tokio::test]
async fn exchanges_of_one_lane_share_a_connection_and_lanes_do_not() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (dialer, node) = (dialer(&world), node(&world, &server));
    let opening = async {
        let open = || dialer.open(&node, Lane::Log, LIMIT);
        let (one, two, three) = tokio::join!(open(), open(), open());
        [one.unwrap(), two.unwrap(), three.unwrap()]
    };
    let (mut log, peer) = tokio::join!(opening, accepted(&server));
    let peer = peer.unwrap();
    assert_eq!((peer.protocol(), peer.node()), (Protocol::Nodes, Some(world.node_id())));
    for exchange in &mut log {
        exchange.send(b"entry", LIMIT).await.unwrap();
        let mut far = peer.accept_exchange().await.unwrap();
        assert_eq!(far.recv(LIMIT).await.unwrap().unwrap(), "entry");
        far.send(b"stored", LIMIT).await.unwrap();
        assert_eq!(exchange.recv(LIMIT).await.unwrap().unwrap(), "stored");
    }
    assert_eq!((dialer.connections(), server.node_connections()), (1, 1));
    let mut others = Vec::new();
    for lane in [Lane::Prompt, Lane::Bulk] {
        let (exchange, peer) = tokio::join!(dialer.open(&node, lane, LIMIT), accepted(&server));
        others.push((exchange.unwrap(), peer.unwrap()));
    }
    assert_eq!((dialer.connections(), server.node_connections()), (3, 3));

    dialer.close_node(NodeId([9; 8]), CloseCode::NotAuthorized);
    assert_eq!(dialer.connections(), 3, "another's");
    dialer.close_node(node.id, CloseCode::NotAuthorized);
    assert_eq!(dialer.connections(), 0);
    for peer in others.iter().map(|(_, peer)| peer).chain([&peer]) {
        let told = tokio::time::timeout(LIMIT, peer.closed()).await.unwrap();
        assert_eq!(told, ChannelError::RefusedByPeer(CertificateFault::NotWelcome));
    }
    let (again, peer) = tokio::join!(dialer.open(&node, Lane::Log, LIMIT), accepted(&server));
    drop((again.unwrap(), peer.unwrap()));
}

#[tokio::test]
async fn only_a_node_dials_nodes() {
    let world = World::new();
    for role in [Role::Gateway, Role::Patient, Role::Clinician] {
        let error = NodeDialer::new(&world.credentials(role)).unwrap_err();
        assert_eq!(error, ChannelError::NodesOnly(world.credentials(role).peer()));
    }
}

#[tokio::test]
async fn another_node_at_the_address_is_never_taken_for_the_one_that_is_meant() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let dialer = dialer(&world);
    let meant = Node { id: NodeId([9; 8]), ..node(&world, &server) };
    let open = || dialer.open(&meant, Lane::Prompt, LIMIT);
    let (exchange, peer) = tokio::join!(open(), accepted(&server));
    let error = exchange.unwrap_err();
    assert!(matches!(error, ChannelError::WrongNode { expected, .. } if expected == meant.id), "{error}");
    assert!(peer.is_err());
    assert_eq!(dialer.connections(), 0);

    // Others who ask hear the same without another handshake; a little later it is tried again.
    assert_eq!(open().await.unwrap_err(), error);
    let again = async {
        loop {
            assert_eq!(open().await.unwrap_err(), error);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        peer = accepted(&server) => assert!(peer.is_err()),
        () = again => {}
    }
}

#[tokio::test]
async fn who_gives_up_early_does_not_keep_the_connection_from_being_made() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (dialer, node) = (dialer(&world), node(&world, &server));
    let handshake = async {
        // Nobody answers yet.
        let error = dialer.open(&node, Lane::Log, SHORT).await.unwrap_err();
        assert!(matches!(error, ChannelError::Deadline(_)), "{error}");
        tokio::time::timeout(LIMIT, server.accept()).await.unwrap().unwrap()
    };
    let handshake = handshake.await;
    let (exchange, peer) = tokio::join!(dialer.open(&node, Lane::Log, LIMIT), handshake.complete());
    let (mut exchange, peer) = (exchange.unwrap(), peer.unwrap());
    exchange.send(b"over the first one", LIMIT).await.unwrap();
    assert_eq!(peer.accept_exchange().await.unwrap().recv(LIMIT).await.unwrap().unwrap(), "over the first one");
    let more = tokio::time::timeout(SHORT, server.accept()).await;
    assert!(more.is_err(), "there was a second attempt");
}

#[tokio::test]
async fn an_attempt_that_failed_while_nobody_waited_for_it_is_not_what_the_next_one_hears() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (dialer, node) = (dialer(&world), node(&world, &server));
    assert!(dialer.open(&node, Lane::Prompt, SHORT).await.is_err());
    // Refused, and over.
    drop(tokio::time::timeout(LIMIT, server.accept()).await.unwrap().unwrap());
    assert!(dialer.wait_idle(LIMIT).await);
    let (exchange, peer) = tokio::join!(dialer.open(&node, Lane::Prompt, LIMIT), accepted(&server));
    drop((exchange.unwrap(), peer.unwrap()));
}

#[tokio::test]
async fn the_exchanges_waiting_for_room_meet_their_deadline() {
    let world = World::new();
    let limits = NodeLimits { exchanges_per_connection_max: 64, ..NodeLimits::default() };
    let server = nodes_server(&world, limits);
    let (dialer, node) = (dialer(&world), node(&world, &server));
    let (first, peer) = tokio::join!(dialer.open(&node, Lane::Log, LIMIT), accepted(&server));
    let (mut open, _peer) = (vec![first.unwrap()], peer.unwrap());
    let error = loop {
        match dialer.open(&node, Lane::Log, SHORT).await {
            Ok(exchange) => open.push(exchange),
            Err(error) => break error,
        }
    };
    assert_eq!(error, ChannelError::Deadline("the node allows no further exchange"));
    assert_eq!(open.len(), 64);
}

/// A server whose program can be killed: nothing of it runs any more, and nobody is told.
struct Killable {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    peers: tokio::sync::mpsc::UnboundedReceiver<Peer>,
}

impl Killable {
    fn start(world: &World, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let credentials = world.credentials(Role::Node);
        let entered = runtime.enter();
        let server = Server::bind(address, &credentials, nodes_limits(NodeLimits::default())).unwrap();
        drop(entered);
        let address = server.local_addr().unwrap();
        let (sender, peers) = tokio::sync::mpsc::unbounded_channel();
        runtime.spawn(async move {
            while let Some(handshake) = server.accept().await {
                let _ = sender.send(handshake.complete().await.unwrap());
            }
        });
        Self { runtime, address, peers }
    }

    /// The server's tasks end before its peers are dropped, so that nothing is said.
    async fn kill(self, peers: Vec<Peer>) -> SocketAddr {
        let Self { runtime, address, peers: waiting } = self;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(LIMIT)).await.unwrap();
        drop((peers, waiting));
        address
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_and_came_back_is_reached_again_at_its_next_packet() {
    let world = World::new();
    let mut killable = Killable::start(&world, loopback());
    let dialer = dialer(&world);
    let mut node = world.credentials(Role::Node).charter().node(world.node_id()).unwrap().clone();
    node.addresses = vec![killable.address.to_string()];
    let mut exchange = dialer.open(&node, Lane::Log, LIMIT).await.unwrap();
    exchange.send(b"before", LIMIT).await.unwrap();
    let peer = killable.peers.recv().await.unwrap();
    assert_eq!(peer.node(), Some(world.node_id()));
    let address = killable.kill(vec![peer]).await;
    let mut killable = Killable::start(&world, address);
    // A packet that was on its way already may be the one that is answered.
    let lost = match exchange.send(b"into the void", LIMIT).await {
        Ok(()) => exchange.recv(LIMIT).await.unwrap_err(),
        Err(lost) => lost,
    };
    assert_eq!(lost, ChannelError::Lost("the peer no longer knows the connection".into()), "and not the idle time");
    let mut exchange = dialer.open(&node, Lane::Log, LIMIT).await.unwrap();
    exchange.send(b"after", LIMIT).await.unwrap();
    let peer = killable.peers.recv().await.unwrap();
    assert_eq!(peer.accept_exchange().await.unwrap().recv(LIMIT).await.unwrap().unwrap(), "after");
    killable.kill(vec![peer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_is_given_up_long_before_a_client_would() {
    let world = World::new();
    let killable = Killable::start(&world, loopback());
    let dialer = dialer(&world);
    let mut node = world.credentials(Role::Node).charter().node(world.node_id()).unwrap().clone();
    node.addresses = vec![killable.address.to_string()];
    let mut exchange = dialer.open(&node, Lane::Prompt, LIMIT).await.unwrap();
    killable.kill(Vec::new()).await;
    let lost = tokio::time::timeout(LIMIT, exchange.recv(LIMIT)).await.unwrap().unwrap_err();
    assert_eq!(lost, ChannelError::Lost("nothing was heard for the idle time".into()));
    assert_eq!(dialer.connections(), 0);
}

#[tokio::test]
async fn a_list_that_revokes_the_node_closes_its_connections_and_makes_no_new_one() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (dialer, node) = (dialer(&world), node(&world, &server));
    let (exchange, peer) = tokio::join!(dialer.open(&node, Lane::Prompt, LIMIT), accepted(&server));
    let (mut exchange, peer) = (exchange.unwrap(), peer.unwrap());
    let now = OffsetDateTime::now_utc();
    world.authority.revoke(&Which::Refresh, CRL_DAYS, now).unwrap();
    world.install(&world.dir_of(Role::Node));
    dialer.reload(&world.credentials(Role::Node)).unwrap();
    assert_eq!(dialer.connections(), 1, "a list that does not name it leaves it");

    let serial = world.credentials(Role::Node).certificate().serial.clone();
    world.authority.revoke(&Which::Serial(serial), CRL_DAYS, now).unwrap();
    world.install(&world.dir_of(Role::Node));
    dialer.reload(&world.credentials(Role::Node)).unwrap();
    assert_eq!(exchange.recv(LIMIT).await, Err(ChannelError::ClosedHere));
    let told = tokio::time::timeout(LIMIT, peer.closed()).await.unwrap();
    assert_eq!(told, ChannelError::RefusedByPeer(CertificateFault::Revoked));
    let (again, _) = tokio::join!(dialer.open(&node, Lane::Prompt, LIMIT), accepted(&server));
    let error = again.unwrap_err();
    assert!(matches!(error, ChannelError::PeerRefused { fault: CertificateFault::Revoked, .. }), "{error}");
}

#[tokio::test]
async fn a_handshake_that_began_under_the_list_before_is_held_against_the_new_one() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (dialer, node) = (dialer(&world), node(&world, &server));
    // Begun, and left alone in its middle.
    assert!(dialer.open(&node, Lane::Prompt, SHORT).await.is_err());
    let handshake = tokio::time::timeout(LIMIT, server.accept()).await.unwrap().unwrap();
    let serial = world.credentials(Role::Node).certificate().serial.clone();
    world.authority.revoke(&Which::Serial(serial), CRL_DAYS, OffsetDateTime::now_utc()).unwrap();
    world.install(&world.dir_of(Role::Node));
    dialer.reload(&world.credentials(Role::Node)).unwrap();
    let (exchange, _) = tokio::join!(dialer.open(&node, Lane::Prompt, LIMIT), handshake.complete());
    let error = exchange.unwrap_err();
    assert!(matches!(error, ChannelError::PeerRefused { fault: CertificateFault::Revoked, .. }), "{error}");
    assert_eq!(dialer.connections(), 0);
}

#[tokio::test]
async fn a_revoked_node_is_let_in_no_more_and_its_serial_is_there_to_close_what_is_open() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (dialer, node) = (dialer(&world), node(&world, &server));
    let (exchange, peer) = tokio::join!(dialer.open(&node, Lane::Prompt, LIMIT), accepted(&server));
    let (mut exchange, peer) = (exchange.unwrap(), peer.unwrap());
    let serial = world.credentials(Role::Node).certificate().serial.clone();
    assert_eq!(*peer.certificate_serial(), serial);
    world.authority.revoke(&Which::Serial(serial), CRL_DAYS, OffsetDateTime::now_utc()).unwrap();
    let other = world.another_node("node2");
    let reloaded = crate::Credentials::load(&other).unwrap();
    assert!(reloaded.revocations().unwrap().revokes(peer.certificate_serial()));
    peer.close(CloseCode::Revoked);
    assert_eq!(exchange.recv(LIMIT).await, Err(ChannelError::RefusedByPeer(CertificateFault::Revoked)));
    // With a list of its own that names it not yet, the revoked node still trusts the server.
    let limits: ServerLimits = nodes_limits(NodeLimits::default());
    let server = Server::bind(loopback(), &reloaded, limits).unwrap();
    let node = Node { id: reloaded.peer().node().unwrap(), addresses: address(&server), ..node };
    let (again, refused) = tokio::join!(dialer.open(&node, Lane::Prompt, LIMIT), accepted(&server));
    assert_eq!(again.unwrap_err(), ChannelError::RefusedByPeer(CertificateFault::Revoked));
    assert!(matches!(refused, Err(ChannelError::PeerRefused { fault: CertificateFault::Revoked, .. })));
}
