//! What a node takes from other nodes, and from whom: over QUIC, with the daemons of several hospitals.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::Duration;

use certs::channel::CertificateFault;
use certs::revocation::{CRL_DAYS, Which};
use certs::store::names;
use certs::{ChannelError, CloseCode, Connection, Exchange, Lane, NodeDialer, Role};
use ehe::id::NodeId;
use ehe::refusal::Refusal;
use ehe::wire::{Request, Response};
use ehe_node::checkpoint::MESSAGE_MAX_BYTES;
use ehe_node::daemon::Daemon;
use ehe_node::peers::{Kind, OrderRead, Ordered};

#[path = "support/hospitals.rs"]
mod hospitals;
#[path = "support/people.rs"]
mod people;

use hospitals::{Hospitals, ask};

pub const LIMIT: Duration = Duration::from_secs(30);

fn now() -> ehe::time::UnixMs {
    ehe_node::clock::Clock::system().now()
}

async fn leader(connection: &Connection) -> Option<NodeId> {
    match ask(connection, &Request::Status).await {
        Response::Status(status) => status.shards[0].leader,
        other => panic!("{other:?}"),
    }
}

/// Waits until the node at the other end names one of these as the leader.
async fn led_by(connection: &Connection, among: &[NodeId]) -> NodeId {
    let asking = async {
        loop {
            match leader(connection).await {
                Some(leader) if among.contains(&leader) => return leader,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, asking).await.expect("one of them leads")
}

/// A new room, ordered by whoever leads.
async fn a_room_is_made(hospitals: &Hospitals, owner: &certs::Credentials, among: &[usize]) -> people::Patient {
    let charter = hospitals.charter();
    let mut patient = people::Patient::new(owner.identity(), charter.alliance_id(), (0, 1), now());
    let events = patient.opening(now());
    let run = Request::Submit(patient.writer.run(&events));
    let mut links = Vec::new();
    for n in among {
        links.push(hospitals.connect(owner, *n).await);
    }
    let asking = async {
        for (_, connection) in links.iter().cycle() {
            match ask(connection, &run).await {
                Response::Submitted(submitted) => {
                    let checkpoint = &submitted.receipt.checkpoint;
                    ehe::checkpoint::VerifiedCheckpoint::verify(checkpoint, 0, &charter).unwrap();
                    return;
                }
                // Of the attempt before, whose answer did not come.
                Response::Known(_) => return,
                Response::AskNode(_) | Response::Refused(Refusal::NoLeader | Refusal::Overloaded) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, asking).await.expect("a receipt");
    patient
}

/// Why the other end stopped listening to an exchange.
async fn why_reset(exchange: &mut Exchange) -> ChannelError {
    exchange.receiver.recv(LIMIT).await.map(|frame| panic!("{frame:?}")).unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_rules_between_nodes_ends_its_stream_and_the_others_go_on() {
    let hospitals = Hospitals::new(3, "");
    let mut nodes = vec![hospitals.start(0).await, hospitals.start(1).await, hospitals.start(2).await];
    hospitals.without(&mut nodes, 2).await;
    let owner = hospitals.person("patient", Role::Patient);
    a_room_is_made(&hospitals, &owner, &[0, 1]).await;
    // The third hospital's node does not run; somebody has its key.
    let dialer = NodeDialer::new(&hospitals.credentials(2)).unwrap();
    let charter = hospitals.charter();
    let target = charter.node(hospitals.id(0)).unwrap();
    let open = || async { dialer.open(target, Lane::Prompt, LIMIT).await.unwrap() };
    for (first, code) in [(&[9][..], CloseCode::Protocol), (&[1, 1], CloseCode::TooLarge), (&[], CloseCode::Protocol)] {
        let mut exchange = open().await;
        // It may be reset before it was sent whole.
        let _ = exchange.send(first, LIMIT).await;
        let why = why_reset(&mut exchange).await;
        assert!(matches!(why, ChannelError::Reset(said) if said == code || said == CloseCode::Protocol), "{why}");
    }
    // A message about checkpoints that is none is counted; one that is too long ends the stream.
    let mut exchange = open().await;
    exchange.send(&[Kind::Checkpoints.byte()], LIMIT).await.unwrap();
    for message in [&[][..], &[0; 7], &[0xff; MESSAGE_MAX_BYTES]] {
        exchange.send(message, LIMIT).await.unwrap();
    }
    let _ = exchange.send(&[0; MESSAGE_MAX_BYTES + 1], LIMIT).await;
    assert!(matches!(why_reset(&mut exchange).await, ChannelError::Reset(_)));
    // Consensus judges its own frames; what is none ends the stream as well.
    let mut exchange = open().await;
    exchange.send(&[Kind::Consensus.byte()], LIMIT).await.unwrap();
    exchange.send(&[0xff; 100], LIMIT).await.unwrap();
    assert!(matches!(why_reset(&mut exchange).await, ChannelError::Reset(_)));
    // Streams that say nothing keep nobody out.
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut exchange = open().await;
        exchange.send(&[Kind::Consensus.byte()], LIMIT).await.unwrap();
        silent.push(exchange);
    }
    a_room_is_made(&hospitals, &owner, &[0, 1]).await;
    drop(silent);
    for node in nodes {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_in_the_charter_is_sent_away() {
    let hospitals = Hospitals::new(3, "");
    // It has a certificate of the authority's, and the members know nothing of it.
    let stranger = hospitals.person("stranger", Role::Node);
    let node = hospitals.start(0).await;
    let charter = hospitals.charter();
    let target = charter.node(hospitals.id(0)).unwrap();
    let dialer = NodeDialer::new(&stranger).unwrap();
    let away = async {
        match dialer.open(target, Lane::Prompt, LIMIT).await {
            // It was welcomed by the channel, which knows certificates and no groups.
            Ok(mut exchange) => {
                let _ = exchange.send(&[Kind::Checkpoints.byte()], LIMIT).await;
                why_reset(&mut exchange).await
            }
            Err(why) => why,
        }
    };
    let why = tokio::time::timeout(LIMIT, away).await.unwrap();
    assert_eq!(why, ChannelError::RefusedByPeer(CertificateFault::NotWelcome));
    node.stop().await.unwrap();
}

/// All shards on the first node.
const ON_THE_FIRST: &str = "[placement]\neverywhere = ['node0.example']\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_has_open_is_cut_when_no_charter_that_counts_names_it_any_more() {
    let hospitals = Hospitals::new(2, ON_THE_FIRST);
    let node = hospitals.start(0).await;
    // Somebody has the other one's key, and a stream open since before it was let go.
    let dialer = NodeDialer::new(&hospitals.credentials(1)).unwrap();
    let charter = hospitals.charter();
    let target = charter.node(hospitals.id(0)).unwrap();
    let mut exchange = dialer.open(target, Lane::Prompt, LIMIT).await.unwrap();
    exchange.send(&[Kind::Checkpoints.byte()], LIMIT).await.unwrap();
    // While a shard moves, the charter before counts too; of two it is in neither.
    hospitals.next_without(1, ON_THE_FIRST, &[0]);
    hospitals.next_without(1, ON_THE_FIRST, &[0]);
    let why = tokio::time::timeout(LIMIT, why_reset(&mut exchange)).await.expect("it is cut");
    assert_eq!(why, ChannelError::RefusedByPeer(CertificateFault::NotWelcome));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_one_charter_lets_go_sees_its_shards_off_and_is_cut_then_and_heard_no_more() {
    let hospitals = Hospitals::new(2, "[placement]\neverywhere = ['node1.example']\n");
    let owner = hospitals.person("patient", Role::Patient);
    let (node, goes) = (hospitals.start(0).await, hospitals.start(1).await);
    a_room_is_made(&hospitals, &owner, &[1]).await;
    let dialer = NodeDialer::new(&hospitals.credentials(1)).unwrap();
    let charter = hospitals.charter();
    let target = charter.node(hospitals.id(0)).unwrap();
    let mut exchange = dialer.open(target, Lane::Prompt, LIMIT).await.unwrap();
    exchange.send(&[Kind::Checkpoints.byte()], LIMIT).await.unwrap();
    // No charter follows this one. The node that goes has the shard; without it nobody would.
    hospitals.next_without(1, ON_THE_FIRST, &[0]);
    let why = tokio::time::timeout(LIMIT, why_reset(&mut exchange)).await.expect("it is cut");
    assert_eq!(why, ChannelError::RefusedByPeer(CertificateFault::NotWelcome));
    let status = hospitals.status(&owner, 0).await;
    let group = &status.groups.unwrap()[0];
    let there: Vec<NodeId> = group.nodes.iter().map(|node| node.node).collect();
    assert_eq!((group.charter, there), (2, vec![hospitals.id(0)]), "{group:?}");
    assert!(status.shards[0].leaves > 0);
    // It has heard of that, and is let in nowhere.
    assert_eq!(hospitals.status(&owner, 1).await.groups.unwrap()[0].charter, 2);
    let again = async {
        match dialer.open(target, Lane::Prompt, LIMIT).await {
            Ok(mut exchange) => why_reset(&mut exchange).await,
            Err(why) => why,
        }
    };
    assert_eq!(again.await, ChannelError::RefusedByPeer(CertificateFault::NotWelcome));
    for node in [node, goes] {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_forwards_strangers_without_end_fills_no_room_and_is_served_for_those_whom_the_room_knows() {
    const STRANGERS: usize = 64;
    let hospitals = Hospitals::new(2, ON_THE_FIRST);
    let node = hospitals.start(0).await;
    let owner = hospitals.person("patient", Role::Patient);
    let patient = a_room_is_made(&hospitals, &owner, &[0]).await;
    let dialer = NodeDialer::new(&hospitals.credentials(1)).unwrap();
    let charter = hospitals.charter();
    let target = charter.node(hospitals.id(0)).unwrap();
    let forward = async |reader: &ehe::identity::Identity| {
        let order = OrderRead::new(people::content(reader, &patient, now()), reader.public().clone());
        let mut exchange = dialer.open(target, Lane::Prompt, LIMIT).await.unwrap();
        exchange.send(&[Kind::Reads.byte()], LIMIT).await.unwrap();
        exchange.send(&ehe::cbor::to_vec(&order), LIMIT).await.unwrap();
        exchange.finish().unwrap();
        let answer = exchange.recv(LIMIT).await.unwrap().unwrap();
        ehe::cbor::from_slice::<Ordered>(&answer, 64).unwrap()
    };
    let mut decided = 0;
    let first = certs::identity_file::generate().unwrap();
    assert_eq!(forward(&first).await, Ordered::Decided);
    for _ in 0..2 * STRANGERS {
        match forward(&certs::identity_file::generate().unwrap()).await {
            Ordered::Decided => decided += 1,
            other => assert_eq!(other, Ordered::NotNow(Refusal::Overloaded)),
        }
    }
    // A clock hour may end meanwhile.
    assert!((STRANGERS - 1..2 * STRANGERS).contains(&decided), "{decided}");
    assert_eq!(forward(owner.identity()).await, Ordered::Decided, "whom the room knows");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_for_which_no_log_is_kept_any_more_gets_the_state() {
    let hospitals = Hospitals::new(3, "");
    let start = async |n: usize| {
        let mut config = hospitals.config(n);
        config.consensus.log_hold_bytes = 1 << 20;
        config.consensus.log_keep_bytes = 0;
        Daemon::start(config, ehe_node::clock::Clock::system()).await.unwrap()
    };
    let mut nodes = vec![start(0).await, start(1).await, start(2).await];
    hospitals.without(&mut nodes, 2).await;
    let (owner, charter) = (hospitals.person("patient", Role::Patient), hospitals.charter());
    let (_client, connection) = hospitals.connect(&owner, 0).await;
    let leads = led_by(&connection, &[hospitals.id(0), hospitals.id(1)]).await;
    let leads = if leads == hospitals.id(0) { 0 } else { 1 };
    let (_client, connection) = hospitals.connect(&owner, leads).await;
    let mut patient = people::Patient::new(owner.identity(), charter.alliance_id(), (0, 1), now());
    let events = patient.opening(now());
    let opening = Request::Submit(patient.writer.run(&events));
    // Who was elected just now has not applied its log yet.
    let opened = loop {
        match ask(&connection, &opening).await {
            Response::Refused(Refusal::NoLeader) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => break opened,
        }
    };
    assert!(matches!(opened, Response::Submitted(_)), "{opened:?}");
    let sealer = people::Sealer::new(owner.identity(), &patient, now());
    let wrap = patient.writer.run(std::slice::from_ref(&sealer.wrap));
    assert!(matches!(ask(&connection, &Request::Submit(wrap)).await, Response::Submitted(_)));
    // A log is shortened when 32 MiB of it are no longer needed.
    for _ in 0..45 {
        let events: Vec<_> = (0..15).map(|_| sealer.seal(&[7; 60_000])).collect();
        let run = Request::Submit(patient.writer.run(&events));
        assert!(matches!(ask(&connection, &run).await, Response::Submitted(_)));
    }
    let leaves = |status: Response| match status {
        Response::Status(status) => (status.shards[0].applied, status.shards[0].leaves),
        other => panic!("{other:?}"),
    };
    let (applied, size) = leaves(ask(&connection, &Request::Status).await);
    nodes.push(start(2).await);
    let (_client, third) = hospitals.connect(&owner, 2).await;
    let catching_up = async {
        while leaves(ask(&third, &Request::Status).await) < (applied, size) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, catching_up).await.expect("it catches up, and has a quorum's checkpoint");
    let Response::Rooms(rooms) = ask(&third, &Request::RoomsOf).await else { panic!() };
    assert_eq!(rooms.iter().map(|room| (room.room, room.entries)).collect::<Vec<_>>(), [(patient.room, size)]);
    // What came is its own: with one of the others gone, it confirms with the one that is left.
    nodes.remove(1 - leads).stop().await.unwrap();
    a_room_is_made(&hospitals, &owner, &[leads, 2]).await;
    for node in nodes {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_cut_off_and_the_others_go_on_without_it() {
    let hospitals = Hospitals::new(3, "");
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(hospitals.start(n).await);
    }
    let owner = hospitals.person("patient", Role::Patient);
    let (_client, to_first) = hospitals.connect(&owner, 0).await;
    let ids: Vec<NodeId> = (0..3).map(|n| hospitals.id(n)).collect();
    let leads = led_by(&to_first, &ids).await;
    a_room_is_made(&hospitals, &owner, &[0, 1, 2]).await;
    // Whoever leads has its certificate revoked; the two others learn it, it does not.
    let gone = ids.iter().position(|id| *id == leads).unwrap();
    let stay: Vec<usize> = (0..3).filter(|n| *n != gone).collect();
    let which = Which::Peer(hospitals.credentials(gone).peer());
    let made = hospitals.authority.revoke(&which, CRL_DAYS, std::time::SystemTime::now().into()).unwrap();
    let list = std::fs::read(made.path).unwrap();
    for n in &stay {
        certs::file::replace(&hospitals.path(&format!("node{n}")).join(names::CRL), &list).unwrap();
    }
    let others: Vec<NodeId> = stay.iter().map(|n| ids[*n]).collect();
    let (_client, connection) = hospitals.connect(&owner, stay[0]).await;
    led_by(&connection, &others).await;
    a_room_is_made(&hospitals, &owner, &stay).await;
    // It is alone now, and says so.
    let (_client, connection) = hospitals.connect(&owner, gone).await;
    assert_eq!(ask(&connection, &Request::RoomsOf).await, Response::Refused(Refusal::NoLeader));
    for node in nodes {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_is_not_let_back_in_under_its_old_id() {
    let hospitals = Hospitals::new(3, "");
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(hospitals.start(n).await);
    }
    let owner = hospitals.person("patient", Role::Patient);
    a_room_is_made(&hospitals, &owner, &[0, 1, 2]).await;
    nodes.remove(2).stop().await.unwrap();
    std::fs::remove_dir_all(hospitals.path("data2")).unwrap();
    a_room_is_made(&hospitals, &owner, &[0, 1]).await;
    let wiped = hospitals.start(2).await;
    let (_client, connection) = hospitals.connect(&owner, 2).await;
    assert_eq!(ask(&connection, &Request::RoomsOf).await, Response::Refused(Refusal::NoLeader), "it knows of nothing");
    // It gives no vote either: with one of the two others gone, nothing is confirmed.
    nodes.remove(1).stop().await.unwrap();
    let (_client, connection) = hospitals.connect(&owner, 0).await;
    assert_eq!(ask(&connection, &Request::RoomsOf).await, Response::Refused(Refusal::NoLeader));
    nodes.push(hospitals.start(1).await);
    a_room_is_made(&hospitals, &owner, &[0, 1]).await;
    nodes.push(wiped);
    for node in nodes {
        node.stop().await.unwrap();
    }
}

/// Who has anything of the one shard, as far as a node heard.
async fn shard_at(connection: &Connection) -> Vec<NodeId> {
    let Response::Status(status) = ask(connection, &Request::Status).await else { panic!() };
    let group = status.groups.unwrap().remove(0);
    group.nodes.iter().filter(|node| node.heard_ms.is_some()).map(|node| node.node).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn most_of_a_group_that_starts_empty_begins_no_log_without_the_others_and_none_at_all_where_one_of_them_has_it() {
    let hospitals = Hospitals::new(3, "");
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(hospitals.start(n).await);
    }
    let owner = hospitals.person("patient", Role::Patient);
    a_room_is_made(&hospitals, &owner, &[0, 1, 2]).await;
    let ports = {
        for node in nodes {
            node.stop().await.unwrap();
        }
        hospitals.keep_ports().await
    };
    (1..3).for_each(|n| std::fs::remove_dir_all(hospitals.path(&format!("data{n}"))).unwrap());
    drop(ports);
    let mut nodes = vec![hospitals.start(1).await, hospitals.start(2).await];
    let (_clients, links) = {
        let (one, two) = (hospitals.connect(&owner, 1).await, hospitals.connect(&owner, 2).await);
        ((one.0, two.0), [one.1, two.1])
    };
    for link in &links {
        assert_eq!(shard_at(link).await, vec![], "two of three are enough to begin it, and do not");
    }
    nodes.push(hospitals.start(0).await);
    let has_it = hospitals.credentials(0).peer().node().unwrap();
    for link in &links {
        let told = async {
            while !shard_at(link).await.contains(&has_it) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, told).await.expect("they hear of it");
        assert_eq!(shard_at(link).await, [has_it], "it is one who has it, and they wait for it");
    }
    for node in nodes {
        node.stop().await.unwrap();
    }
}
