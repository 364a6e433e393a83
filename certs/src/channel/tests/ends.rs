//! What the tests of both ends share.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Role;
use crate::channel::{ChannelError, Client, Connection, Exchange, NodeLimits, Peer, Server, ServerLimits};
use crate::test_world::World;

/// No test waits longer for anything.
pub(super) const LIMIT: Duration = Duration::from_secs(20);
/// For what is meant to take too long.
pub(super) const SHORT: Duration = Duration::from_millis(150);

pub(super) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(super) fn server(world: &World, limits: ServerLimits) -> Server {
    Server::bind(loopback(), &world.credentials(Role::Node), limits).unwrap()
}

pub(super) fn nodes_limits(nodes: NodeLimits) -> ServerLimits {
    ServerLimits { nodes: Some(nodes), ..ServerLimits::default() }
}

/// A server that other nodes reach too.
pub(super) fn nodes_server(world: &World, nodes: NodeLimits) -> Server {
    server(world, nodes_limits(nodes))
}

pub(super) fn client(world: &World, role: Role) -> Client {
    Client::new(&world.credentials(role)).unwrap()
}

pub(super) fn address(server: &Server) -> Vec<String> {
    vec![server.local_addr().unwrap().to_string()]
}

/// Both ends' view of one connection being made.
pub(super) async fn meet(
    world: &World,
    server: &Server,
    client: &Client,
) -> (Result<Connection, ChannelError>, Result<Peer, ChannelError>) {
    let addresses = address(server);
    let accepting = async { server.accept().await.unwrap().complete().await };
    tokio::time::timeout(LIMIT, async { tokio::join!(client.connect(&addresses, world.node_id(), LIMIT), accepting) })
        .await
        .unwrap()
}

/// An exchange that has begun: the client's end and the server's. The server has read the first, empty frame.
pub(super) struct Begun {
    pub(super) world: World,
    pub(super) server: Server,
    pub(super) client: Client,
    pub(super) connection: Connection,
    pub(super) peer: Peer,
    pub(super) near: Exchange,
    pub(super) far: Exchange,
}

pub(super) async fn begun() -> Begun {
    let world = World::new();
    let server = server(&world, ServerLimits::default());
    let client = client(&world, Role::Gateway);
    let (connection, peer) = meet(&world, &server, &client).await;
    let (connection, peer) = (connection.unwrap(), peer.unwrap());
    let mut near = connection.open().await.unwrap();
    near.send(b"", LIMIT).await.unwrap();
    let mut far = peer.accept_exchange().await.unwrap();
    assert_eq!(far.recv(LIMIT).await.unwrap().unwrap(), "");
    Begun { world, server, client, connection, peer, near, far }
}
