//! Bytes and behaviour that no good client has, at the node's own door: whoever they come from, others are served meanwhile.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::SocketAddr;
use std::time::Duration;

use certs::{Client, Role};
use ehe::limits::FRAME_MAX_BYTES;
use ehe::refusal::Refusal;
use ehe::wire::{Request, Response};
use ehe_node::clock::Clock;
use ehe_node::config::Config;
use ehe_node::daemon::Daemon;
use futures::future::join_all;
use quinn::{ConnectionError, VarInt};
use tokio::net::UdpSocket;

#[path = "support/alliance.rs"]
mod alliance;
#[path = "support/people.rs"]
mod people;
#[path = "support/raw.rs"]
mod raw;

use alliance::{Alliance, LIMIT, Link, SHARDS, now};
use people::{Patient, random};
use raw::{Odd, PLAIN, Raw, answer, frame, stopped};

/// A request that a good client makes beside the hostile ones is answered within this time.
const SERVED: Duration = Duration::from_secs(5);
const STATUS: &[u8] = &[0x81, 0x07];
/// [`certs::CloseCode::TooLarge`] and [`certs::CloseCode::Timeout`] on the wire.
const TOO_LARGE: Option<u64> = Some(4);
const TIMEOUT: Option<u64> = Some(5);

struct Scene {
    alliance: Alliance,
    node: Daemon,
    address: SocketAddr,
    good: Link,
}

impl Scene {
    /// A node, and a patient who is connected to it.
    async fn new(set: impl FnOnce(&mut Config)) -> Self {
        let alliance = Alliance::new();
        let mut config = alliance.config();
        set(&mut config);
        let node = Daemon::start(config, Clock::system()).await.unwrap();
        let address = node.local_addr().unwrap();
        let person = alliance.person("good", Role::Patient);
        let good = alliance.connect(&person, address).await;
        Self { alliance, node, address, good }
    }

    async fn hostile(&self, window: Option<u32>) -> Raw {
        if !self.alliance.path("hostile").exists() {
            self.alliance.person("hostile", Role::Clinician);
        }
        let shown = Some((&self.alliance, "hostile"));
        raw::connect(&self.alliance, shown, self.address, Odd { window, ..PLAIN }).await.unwrap()
    }

    /// The good client is answered, and all shards are well.
    async fn serves(&self) {
        let asked = tokio::time::timeout(SERVED, self.good.ask(&Request::Status)).await;
        let Response::Status(status) = asked.expect("a good client is served") else { panic!() };
        assert!(status.shards.iter().all(|shard| !shard.faulted));
    }

    async fn stores(&self) {
        let alliance = self.alliance.charter().alliance_id();
        let mut patient = Patient::new(&self.good.identity, alliance, (0, SHARDS), now());
        let events = patient.opening(now());
        let run = patient.writer.run(&events);
        let done = tokio::time::timeout(SERVED, self.good.submit(run)).await.expect("a good run is taken");
        assert!(matches!(done, Response::Submitted(_)), "{done:?}");
    }

    async fn end(self) {
        self.stores().await;
        self.node.stop().await.unwrap();
    }
}

/// The first flights of so many clients, which then say nothing more.
async fn first_flights(scene: &Scene, count: usize) -> Vec<Vec<Vec<u8>>> {
    let node = scene.alliance.charter().nodes()[0].id;
    let person = certs::Credentials::load(&scene.alliance.path("good")).unwrap();
    let flights = (0..count).map(|_| async {
        let trap = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = [trap.local_addr().unwrap().to_string()];
        let lured = Client::new(&person).unwrap();
        let flight = async {
            let mut datagrams = vec![vec![0; 2048], vec![0; 2048]];
            for bytes in &mut datagrams {
                let length = trap.recv(bytes).await.unwrap();
                bytes.truncate(length);
            }
            datagrams
        };
        tokio::select! {
            datagrams = flight => datagrams,
            outcome = lured.connect(&address, node, LIMIT) => panic!("{outcome:?}"),
        }
    });
    join_all(flights).await
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_half_open_handshakes_of_one_address_keep_nobody_out() {
    let scene = Scene::new(|config| config.limits.handshakes_max = 8).await;
    let other = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    for n in 0..2000_usize {
        let mut bytes = random::<1400>();
        // A third looks like a first packet of this version, a third like one of another version.
        match n % 3 {
            0 => bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
            1 => bytes[..6].copy_from_slice(&[0xc3, 0xfa, 0xce, 0xb0, 0x0c, 8]),
            _ => {}
        }
        let length = if n % 5 == 0 { n % 1200 } else { 1200 + n % 200 };
        // A full buffer is as good as a lost datagram.
        let _ = other.try_send_to(&bytes[..length], scene.address);
    }
    scene.serves().await;
    for flight in first_flights(&scene, 40).await {
        let from = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        for datagram in flight {
            from.send_to(&datagram, scene.address).await.unwrap();
        }
    }
    let person = certs::Credentials::load(&scene.alliance.path("good")).unwrap();
    let late = tokio::time::timeout(SERVED, scene.alliance.connect(&person, scene.address)).await;
    let late = late.expect("another address gets in at once");
    assert!(matches!(late.ask(&Request::Status).await, Response::Status(_)));
    scene.serves().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_another_protocol_authority_or_without_a_certificate_get_no_further_than_the_door() {
    let scene = Scene::new(|config| config.limits.connections_max = 4).await;
    let foreign = Alliance::new();
    foreign.person("hostile", Role::Clinician);
    scene.alliance.person("hostile", Role::Clinician);
    let known = Some((&scene.alliance, "hostile"));
    // More of each than there are connections: none of them keeps one.
    for _ in 0..6 {
        for (shown, alpn, alert) in [
            (known, &b"h3"[..], 120),
            (known, b"ehe/2", 120),
            (Some((&foreign, "hostile")), certs::Protocol::Clients.alpn(), 48),
            (None, certs::Protocol::Clients.alpn(), 116),
        ] {
            let refused = raw::connect(&scene.alliance, shown, scene.address, Odd { alpn, window: None }).await;
            let Err(ConnectionError::ConnectionClosed(close)) = refused else { panic!("{:?}", refused.err()) };
            // 0x0100 and the TLS alert (RFC 9001 §4.8).
            assert_eq!(u64::from(close.error_code), 0x100 + alert, "{close}");
        }
        // What nodes speak is spoken with nodes: an alliance of one may grow, so the one offers it too.
        let odd = Odd { alpn: b"ehe-raft/1", window: None };
        let refused = raw::connect(&scene.alliance, known, scene.address, odd).await;
        let Err(ConnectionError::ApplicationClosed(close)) = refused else { panic!("{:?}", refused.err()) };
        assert_eq!(u64::from(close.error_code), 2, "{close}");
    }
    scene.hostile(None).await;
    scene.serves().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_say_nothing_or_drip_are_ended_and_the_next_ones_are_served() {
    let scene = Scene::new(|config| config.limits.request_deadline_ms = 1_000).await;
    let hostile = scene.hostile(None).await;
    let mut streams = Vec::new();
    // All that a connection may open: without a whole length, with a length alone, and with the beginning of a frame.
    for n in 0..64 {
        let (mut send, recv) = hostile.open().await;
        let begin = [&[0][..], &[0, 0, 0, 9], &[0, 0, 1, 0, 7, 7]];
        send.write_all(begin[n % 3]).await.unwrap();
        streams.push((send, recv));
    }
    let one_more = tokio::time::timeout(Duration::from_millis(100), hostile.connection.open_bi()).await;
    assert!(one_more.is_err(), "no more than it may");
    scene.serves().await;
    for (send, _) in &mut streams {
        assert_eq!(stopped(send).await, TIMEOUT);
    }
    // Until the client gives them up too, they count as its own.
    drop(streams);
    // A byte at a time: the time is for the whole frame.
    let (mut send, _recv) = hostile.open().await;
    let drip = async {
        for byte in frame(&[0; 4000]) {
            if send.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, drip).await.expect("it is stopped before it is through");
    assert_eq!(stopped(&mut send).await, TIMEOUT);
    let (mut send, mut recv) = hostile.open().await;
    send.write_all(&frame(STATUS)).await.unwrap();
    assert!(matches!(answer(&mut recv).await, Some(Response::Status(_))), "the connection is of use again");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_lie_are_refused_and_cost_one_stream() {
    let scene = Scene::new(|config| config.limits.request_deadline_ms = 1_000).await;
    let hostile = scene.hostile(None).await;
    for announced in [u32::MAX, 0x8000_0000, u32::try_from(FRAME_MAX_BYTES).unwrap() + 1] {
        let (mut send, mut recv) = hostile.open().await;
        send.write_all(&announced.to_be_bytes()).await.unwrap();
        assert_eq!(answer(&mut recv).await, Some(Response::Refused(Refusal::FrameMalformed)));
        assert_eq!(stopped(&mut send).await, TOO_LARGE);
    }
    // More than was announced: the frame is what was announced, the rest is nobody's.
    let (mut send, mut recv) = hostile.open().await;
    send.write_all(&[&frame(STATUS)[..], &[0xff; 5000]].concat()).await.unwrap();
    assert!(matches!(answer(&mut recv).await, Some(Response::Status(_))));
    // Less, and then the end.
    let (mut send, mut recv) = hostile.open().await;
    send.write_all(&[0, 0, 0, 9, 1, 2]).await.unwrap();
    send.finish().unwrap();
    assert_eq!(answer(&mut recv).await, Some(Response::Refused(Refusal::FrameMalformed)));
    // An end without anything.
    let (mut send, mut recv) = hostile.open().await;
    send.finish().unwrap();
    assert_eq!(answer(&mut recv).await, None);
    assert!(hostile.connection.close_reason().is_none());
    scene.serves().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_streams_that_are_reset_in_the_middle_cost_nobody_else_anything() {
    let scene = Scene::new(|_| {}).await;
    let hostile = scene.hostile(None).await;
    for n in 0..4_000_usize {
        let (mut send, mut recv) = hostile.open().await;
        match n % 4 {
            0 => drop(send.finish()),
            1 => send.write_all(&[0, 0, 9, 9, 1]).await.unwrap(),
            2 => send.write_all(&frame(STATUS)).await.unwrap(),
            _ => {}
        }
        let _ = send.reset(VarInt::from_u32(7));
        let _ = recv.stop(VarInt::from_u32(7));
        if n % 500 == 0 {
            scene.serves().await;
        }
    }
    // The streams that are not the client's to open.
    let uni = tokio::time::timeout(Duration::from_millis(100), hostile.connection.open_uni()).await;
    assert!(uni.is_err());
    assert!(hostile.connection.max_datagram_size().is_none() && hostile.connection.close_reason().is_none());
    let (mut send, mut recv) = hostile.open().await;
    send.write_all(&frame(STATUS)).await.unwrap();
    assert!(matches!(answer(&mut recv).await, Some(Response::Status(_))));
    scene.end().await;
}
