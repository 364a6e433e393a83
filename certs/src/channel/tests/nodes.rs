//! The protocol between nodes: who is let in on it, and what it keeps for them.

use std::net::IpAddr;

use ehe::id::NodeId;
use ehe::limits::FRAME_MAX_BYTES;

use super::ends::{LIMIT, SHORT, address, client, meet, nodes_server, server};
use crate::Role;
use crate::channel::{
    CertificateFault, ChannelError, Client, CloseCode, NODE_FRAME_MAX_BYTES, NodeLimits, Protocol, ServerLimits, tls,
};
use crate::peer::PeerIdentity;
use crate::test_world::World;

/// Whoever holds these credentials, asking for the nodes' protocol.
fn intruder(world: &World, role: Role) -> Client {
    Client::with_tls(tls::client(&world.credentials(role), Protocol::Nodes).unwrap(), Protocol::Nodes).unwrap()
}

#[tokio::test]
async fn a_node_is_let_in_on_either_protocol_and_the_peer_says_which() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (connection, peer) = meet(&world, &server, &intruder(&world, Role::Node)).await;
    let (connection, peer) = (connection.unwrap(), peer.unwrap());
    assert_eq!((peer.protocol(), peer.node()), (Protocol::Nodes, Some(world.node_id())));
    assert_eq!((server.connections(), server.node_connections()), (0, 1));
    let (_other, as_client) = meet(&world, &server, &client(&world, Role::Node)).await;
    let as_client = as_client.unwrap();
    assert_eq!((as_client.protocol(), as_client.node()), (Protocol::Clients, None));
    assert_eq!(as_client.identity(), PeerIdentity::Node(world.node_id()));
    assert_eq!((server.connections(), server.node_connections()), (1, 1));
    drop((connection, peer));
    assert_eq!(server.node_connections(), 0);
}

#[tokio::test]
async fn whoever_is_no_node_is_refused_on_the_nodes_protocol_and_takes_no_slot() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    for role in [Role::Gateway, Role::Patient, Role::Clinician] {
        let (connection, peer) = meet(&world, &server, &intruder(&world, role)).await;
        let error = connection.unwrap_err();
        assert_eq!(error, ChannelError::RefusedByPeer(CertificateFault::NotWelcome));
        assert!(!error.retry_helps());
        assert_eq!(peer.unwrap_err(), ChannelError::NodesOnly(world.credentials(role).peer()));
        assert_eq!((server.connections(), server.node_connections()), (0, 0));
        // As a client it is welcome as ever.
        meet(&world, &server, &client(&world, role)).await.1.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_keeps_nothing_for_nodes_does_not_speak_their_protocol() {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let (connection, peer) = meet(&world, &server, &intruder(&world, Role::Node)).await;
    assert_eq!(connection.unwrap_err(), ChannelError::OtherProtocol);
    assert_eq!(peer.unwrap_err(), ChannelError::OtherProtocol);
}

#[tokio::test]
async fn clients_that_hold_every_slot_do_not_keep_a_node_out() {
    let world = World::new();
    let limits = ServerLimits { connections_max: 1, nodes: Some(NodeLimits::default()), ..ServerLimits::default() };
    let server = server(&world, limits);
    let first = meet(&world, &server, &client(&world, Role::Gateway)).await;
    first.1.as_ref().unwrap();
    // Known for what it is only after the handshake; then it hears "busy" all the same.
    let (connection, peer) = meet(&world, &server, &client(&world, Role::Patient)).await;
    assert_eq!((connection.unwrap_err(), peer.unwrap_err()), (ChannelError::Busy, ChannelError::Busy));
    assert_eq!(server.refused_busy(), 1);
    let node = meet(&world, &server, &intruder(&world, Role::Node)).await;
    assert_eq!(node.1.unwrap().protocol(), Protocol::Nodes);
    drop(first);
    meet(&world, &server, &client(&world, Role::Patient)).await.1.unwrap();
}

#[tokio::test]
async fn handshakes_that_hold_every_place_do_not_keep_a_node_out_that_comes_from_where_nodes_are() {
    let world = World::new();
    let limits = ServerLimits { handshakes_max: 1, nodes: Some(NodeLimits::default()), ..ServerLimits::default() };
    let server = server(&world, limits);
    let addresses = address(&server);
    let (stuck, node) = (client(&world, Role::Gateway), intruder(&world, Role::Node));
    let held = tokio::select! {
        held = server.accept() => held.unwrap(),
        _ = stuck.connect(&addresses, world.node_id(), LIMIT) => panic!("completed by itself"),
    };
    let refused = tokio::select! {
        refused = node.connect(&addresses, world.node_id(), LIMIT) => refused,
        _ = server.accept() => panic!("there was no place"),
    };
    assert_eq!(refused.unwrap_err(), ChannelError::Busy);
    // At another address than the one who holds the place, as a node is: one address has a share of its own.
    server.expect_nodes_at(["127.0.0.1".parse::<IpAddr>().unwrap()]);
    drop(held);
    let other = tokio::net::UdpSocket::bind("127.0.0.2:0").await.unwrap();
    for datagram in super::handshakes::first_flight(&world).await {
        other.send_to(&datagram, server.local_addr().unwrap()).await.unwrap();
    }
    let _held = tokio::time::timeout(LIMIT, server.accept()).await.unwrap().unwrap();
    meet(&world, &server, &node).await.1.unwrap();
}

#[tokio::test]
async fn a_nodes_newest_connections_count_and_its_oldest_ends() {
    let world = World::new();
    let server =
        nodes_server(&world, NodeLimits { connections_max: 3, connections_per_node_max: 2, ..NodeLimits::default() });
    let node = intruder(&world, Role::Node);
    let mut kept = Vec::new();
    for _ in 0..3 {
        let (connection, peer) = meet(&world, &server, &node).await;
        kept.push((connection.unwrap(), peer.unwrap()));
        assert!(server.node_connections() <= 2);
    }
    let ended = tokio::time::timeout(LIMIT, kept[0].0.closed()).await.unwrap();
    assert_eq!(ended, ChannelError::Busy);
    assert!(kept[1].0.is_open() && kept[2].0.is_open());
    // What it left behind takes nothing from the others; all together have their limit too.
    let (second, third) = (world.another_node("node2"), world.another_node("node3"));
    let connect = async |dir: &std::path::Path| {
        let credentials = crate::Credentials::load(dir).unwrap();
        let tls = tls::client(&credentials, Protocol::Nodes).unwrap();
        meet(&world, &server, &Client::with_tls(tls, Protocol::Nodes).unwrap()).await
    };
    let one_more = connect(&second).await;
    assert_ne!(one_more.1.as_ref().unwrap().node(), Some(world.node_id()));
    assert_eq!(connect(&third).await.0.unwrap_err(), ChannelError::Busy);
    drop(kept);
    connect(&third).await.1.unwrap();
}

#[tokio::test]
async fn frames_between_nodes_are_up_to_16_mib_and_not_more() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (connection, peer) = meet(&world, &server, &intruder(&world, Role::Node)).await;
    let (connection, peer) = (connection.unwrap(), peer.unwrap());
    let mut near = connection.open().await.unwrap();
    let frame = vec![7; NODE_FRAME_MAX_BYTES];
    let pieces = [&frame[..1], &frame[1..1], &frame[1..5_000_000], &frame[5_000_000..], b""];
    let pieces = pieces.map(bytes::Bytes::copy_from_slice);
    let there = async {
        near.send(b"hello", LIMIT).await.unwrap();
        near.send_pieces(pieces, LIMIT).await.unwrap();
        near.send_pieces([], LIMIT).await.unwrap();
    };
    let back = async {
        let mut far = peer.accept_exchange().await.unwrap();
        assert_eq!(far.recv(LIMIT).await.unwrap().unwrap(), "hello");
        assert!(far.recv(LIMIT).await.unwrap().unwrap() == frame);
        assert_eq!(far.recv(LIMIT).await.unwrap().unwrap(), "");
        far
    };
    let ((), mut far) = tokio::join!(there, back);
    let (sent, received) = tokio::join!(far.send(&frame, LIMIT), near.recv(LIMIT));
    assert!(sent.is_ok() && received.unwrap().unwrap() == frame);

    let refused = |bytes: usize| {
        Err(ChannelError::FrameTooLarge { bytes: u64::try_from(bytes).unwrap(), limit: NODE_FRAME_MAX_BYTES })
    };
    let one_more = NODE_FRAME_MAX_BYTES + 1;
    assert_eq!(near.send(&vec![0; one_more], LIMIT).await, refused(one_more));
    let pieces = [frame.into(), bytes::Bytes::from_static(b"x")];
    assert_eq!(near.send_pieces(pieces, LIMIT).await, refused(one_more));
    near.sender.stream.write_all(&u32::try_from(one_more).unwrap().to_be_bytes()).await.unwrap();
    assert_eq!(far.recv(LIMIT).await.map(|_| ()), refused(one_more));
    assert_eq!(far.receiver.held_bytes(), 0);
}

#[tokio::test]
async fn what_a_node_drops_unfinished_is_abandoned_and_what_it_finished_arrives() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (connection, peer) = meet(&world, &server, &intruder(&world, Role::Node)).await;
    let (connection, peer) = (connection.unwrap(), peer.unwrap());
    for finish in [true, false] {
        let mut near = connection.open().await.unwrap();
        near.send(b"first half", LIMIT).await.unwrap();
        let mut far = peer.accept_exchange().await.unwrap();
        assert_eq!(far.recv(LIMIT).await.unwrap().unwrap(), "first half");
        let crate::Exchange { mut sender, receiver } = near;
        sender.send(b"second half", LIMIT).await.unwrap();
        if finish {
            sender.finish().unwrap();
            drop((sender, receiver));
            assert_eq!(far.recv(LIMIT).await.unwrap().unwrap(), "second half");
            assert_eq!(far.recv(LIMIT).await, Ok(None));
        } else {
            drop((sender, receiver));
            let ended = loop {
                match far.recv(LIMIT).await {
                    Ok(Some(half)) => assert_eq!(half, "second half"),
                    ended => break ended,
                }
            };
            assert_eq!(ended, Err(ChannelError::Reset(CloseCode::Done)));
        }
    }
}

#[tokio::test]
async fn a_node_that_comes_as_a_client_has_a_clients_frames() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (connection, _peer) = meet(&world, &server, &client(&world, Role::Node)).await;
    let mut near = connection.unwrap().open().await.unwrap();
    let error = near.send(&vec![0; FRAME_MAX_BYTES + 1], LIMIT).await.unwrap_err();
    assert!(matches!(error, ChannelError::FrameTooLarge { limit: FRAME_MAX_BYTES, .. }), "{error}");
}

#[tokio::test]
async fn a_stream_that_nobody_reads_meets_its_deadline_and_the_others_go_on() {
    let world = World::new();
    let server = nodes_server(&world, NodeLimits::default());
    let (connection, peer) = meet(&world, &server, &intruder(&world, Role::Node)).await;
    let (connection, peer) = (connection.unwrap(), peer.unwrap());
    let mut stuck = connection.open().await.unwrap();
    let outcome = stuck.send(&vec![0; NODE_FRAME_MAX_BYTES], SHORT).await;
    assert!(matches!(outcome, Err(ChannelError::Deadline(_))), "{outcome:?}");
    assert_eq!(stuck.send(b"", LIMIT).await, Err(ChannelError::ClosedHere));

    // Not given up, and not read either.
    let mut unread = connection.open().await.unwrap();
    let frame = vec![0; NODE_FRAME_MAX_BYTES];
    let beats = async {
        let mut beat = connection.open().await.unwrap();
        beat.send(b"beat", LIMIT).await.unwrap();
        let mut far = loop {
            let mut far = peer.accept_exchange().await.unwrap();
            if matches!(far.announced(LIMIT).await, Ok(Some(4))) {
                break far;
            }
            std::mem::forget(far); // kept, unread
        };
        for _ in 0..100 {
            assert_eq!(far.recv(LIMIT).await.unwrap().unwrap(), "beat");
            beat.send(b"beat", LIMIT).await.unwrap();
        }
    };
    tokio::select! {
        sent = unread.send(&frame, LIMIT) => panic!("nobody read it: {sent:?}"),
        () = beats => {}
    }
}

#[tokio::test]
async fn a_node_has_as_many_exchanges_as_it_is_allowed_whatever_clients_are() {
    let world = World::new();
    let limits = ServerLimits {
        exchanges_per_connection_max: 1,
        nodes: Some(NodeLimits { exchanges_per_connection_max: 3, ..NodeLimits::default() }),
        ..ServerLimits::default()
    };
    let server = server(&world, limits);
    let (connection, peer) = meet(&world, &server, &intruder(&world, Role::Node)).await;
    let (connection, peer) = (connection.unwrap(), peer.unwrap());
    let mut open = Vec::new();
    for _ in 0..3 {
        let exchange = tokio::time::timeout(LIMIT, connection.open()).await.unwrap();
        open.push(exchange.unwrap());
    }
    assert!(tokio::time::timeout(SHORT, connection.open()).await.is_err(), "the fourth waits");
    for exchange in &mut open {
        exchange.send(b"", LIMIT).await.unwrap();
        exchange.abort(CloseCode::Done);
        let mut far = peer.accept_exchange().await.unwrap();
        far.abort(CloseCode::Done);
    }
    tokio::time::timeout(LIMIT, connection.open()).await.unwrap().unwrap();
    assert_ne!(peer.node(), Some(NodeId::ZERO));
}
