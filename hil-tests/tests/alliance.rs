//! Founding an alliance of several hospitals, by the programs, and what their nodes hold afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use certs::{ChannelError, Credentials, Lane, NodeDialer, NodeLimits, Protocol, Server, ServerLimits};
use ehe::charter::Node as Entry;
use ehe::id::NodeId;
use hil_tests::lab::alliance::{Alliance, Founding, node};
use hil_tests::lab::node::Node;
use hil_tests::lab::process::Programs;

const LIMIT: Duration = Duration::from_secs(20);

async fn founded(folder: &std::path::Path, founding: Founding) -> Alliance {
    Alliance::found_of(&Programs::built().unwrap(), folder, founding).await.unwrap()
}

fn credentials(alliance: &Alliance) -> Vec<Credentials> {
    alliance.numbers().map(|number| Credentials::load(&alliance.path(&node(number))).unwrap()).collect()
}

#[tokio::test]
async fn an_alliance_of_three_hospitals_has_one_charter_that_places_every_shard_on_all_their_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let alliance = founded(folder.path(), Founding { members: 3, shards: Some(5) }).await;
    let nodes = credentials(&alliance);
    let charter = nodes[0].charter();
    assert_eq!((charter.version(), charter.members().len(), charter.nodes().len()), (1, 3, 3));
    let ids: BTreeSet<NodeId> = nodes.iter().map(|node| node.peer().node().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    for shard in 0..5 {
        assert_eq!(charter.group(shard).iter().copied().collect::<BTreeSet<_>>(), ids);
        assert_eq!(charter.quorum(shard), 2, "the majority of the members, not of one's own nodes");
    }
    assert_eq!(charter.group(5), []);
    assert_eq!(charter.nodes().iter().map(|node| node.member).collect::<BTreeSet<_>>().len(), 3);
    for (number, own) in alliance.numbers().zip(&nodes) {
        assert_eq!(own.charter().hash(), charter.hash());
        let entry = charter.node(own.peer().node().unwrap()).unwrap();
        assert_eq!(entry.addresses, [alliance.address_of(number).unwrap()]);
        assert_eq!(entry.sign, own.identity().public().sign);
        assert_eq!(entry.name, format!("node{number}.lab.example"));
    }
    let addresses: BTreeSet<&String> = charter.nodes().iter().flat_map(|node| &node.addresses).collect();
    assert_eq!(addresses.len(), 3);
    assert!(alliance.address_of(0).is_err() && alliance.address_of(4).is_err());
}

#[tokio::test]
async fn the_nodes_of_a_founded_alliance_reach_each_other_and_a_gateway_does_not_pass_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let alliance = founded(folder.path(), Founding { members: 3, shards: None }).await;
    let nodes = credentials(&alliance);
    let charter = nodes[0].charter();
    let limits = || ServerLimits { nodes: Some(NodeLimits::default()), ..ServerLimits::default() };
    for (number, own) in alliance.numbers().zip(&nodes) {
        let id = own.peer().node().unwrap();
        let server = Server::bind(alliance.address_of(number).unwrap().parse().unwrap(), own, limits()).unwrap();
        for other in nodes.iter().filter(|other| other.peer() != own.peer()) {
            let dialer = NodeDialer::new(other).unwrap();
            let entry: &Entry = charter.node(id).unwrap();
            let accepting = async { server.accept().await.unwrap().complete().await.unwrap() };
            let (exchange, peer) = tokio::join!(dialer.open(entry, Lane::Prompt, LIMIT), accepting);
            let mut exchange = exchange.unwrap();
            exchange.send(b"beat", LIMIT).await.unwrap();
            assert_eq!((peer.protocol(), peer.node()), (Protocol::Nodes, other.peer().node()));
            assert_eq!(peer.accept_exchange().await.unwrap().recv(LIMIT).await.unwrap().unwrap(), "beat");
        }
    }
    let gateway = Credentials::load(&alliance.enrol("gateway1", "gateway").await.unwrap()).unwrap();
    assert_eq!(NodeDialer::new(&gateway).unwrap_err(), ChannelError::NodesOnly(gateway.peer()));
}

#[tokio::test]
async fn a_node_of_the_lab_is_paused_resumed_killed_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let alliance = founded(folder.path(), Founding::default()).await;
    alliance.enrol("clinician", "clinician").await.unwrap();
    let mut nodes = Node::start_all(&alliance, "").unwrap();
    let [node] = nodes.as_mut_slice() else { panic!("one node") };
    node.answers("clinician").await.unwrap();
    node.daemon.pause().await.unwrap();
    let status = alliance.ehe("clinician", &["--timeout", "1", "status"]).await.unwrap();
    assert_ne!(status.code, Some(0), "a paused node answers nobody");
    node.daemon.resume().await.unwrap();
    node.answers("clinician").await.unwrap();
    node.daemon.pause().await.unwrap();
    node.daemon.kill().await.unwrap();
    assert!(node.daemon.pause().await.is_err(), "it does not run");
    node.daemon.start().unwrap();
    node.answers("clinician").await.unwrap();
    node.daemon.stop().await.unwrap();
    assert_eq!(node.number, 1);
}
