//! Charters from node to node, where one of them does not show its own as it should. Over QUIC, with daemons.

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
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::{Exchange, NodeLimits, Role, Server, ServerLimits};
use ehe::cbor;
use ehe::charter::{Charter, CharterChain, SignedCharter};
use ehe_node::peers::{Kind, Report};
use minicbor::bytes::ByteVec;

#[path = "support/hospitals.rs"]
mod hospitals;

use hospitals::Hospitals;

pub const LIMIT: Duration = Duration::from_secs(60);

/// The version byte of what nodes say about the alliance.
const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Charters that nobody signed, without end.
    ForEver,
    /// The first one, whichever is asked for.
    FromTheFirst,
    /// None.
    Nothing,
    /// No answer.
    Silent,
}

/// A node that says that it has charter 7, and how often it was asked for charters from which version on.
#[derive(Clone)]
struct Liar {
    chain: CharterChain,
    lie: Arc<Mutex<Lie>>,
    asked: Arc<Mutex<Vec<u32>>>,
}

impl Liar {
    fn start(hospitals: &Hospitals, n: usize) -> Self {
        let own = hospitals.credentials(n);
        let address: SocketAddr = own.charter().node(hospitals.id(n)).unwrap().addresses[0].parse().unwrap();
        let limits = ServerLimits { nodes: Some(NodeLimits::default()), ..ServerLimits::default() };
        let server = Server::bind(address, &own, limits).unwrap();
        let (lie, asked) = (Arc::new(Mutex::new(Lie::ForEver)), Arc::default());
        let this = Self { chain: own.charter_chain().clone(), lie, asked };
        let liar = this.clone();
        tokio::spawn(async move {
            while let Some(handshake) = server.accept().await {
                let (Ok(peer), liar) = (handshake.complete().await, liar.clone()) else { continue };
                tokio::spawn(async move {
                    while let Ok(exchange) = peer.accept_exchange().await {
                        let liar = liar.clone();
                        tokio::spawn(async move { liar.answer(exchange).await });
                    }
                });
            }
        });
        this
    }

    async fn answer(&self, mut exchange: Exchange) -> Option<()> {
        let kind = exchange.recv(LIMIT).await.ok()??;
        if Kind::of(&kind) != Some(Kind::Alliance) {
            return None;
        }
        let question = exchange.recv(LIMIT).await.ok()??;
        let said = match minicbor::decode::<(u8, u32)>(&question[1..]) {
            Ok((2, from)) => {
                self.asked.lock().unwrap().push(from);
                let Some(shown) = self.shown(from) else { return std::future::pending().await };
                cbor::to_vec(&(2u8, ByteVec::from(shown)))
            }
            _ => cbor::to_vec(&(0u8, Report { charter: 7, ..Report::default() })),
        };
        exchange.send(&[&[VERSION][..], &said].concat(), LIMIT).await.ok()?;
        exchange.finish().ok()?;
        exchange.delivered(LIMIT).await.ok()
    }

    fn shown(&self, from: u32) -> Option<Vec<u8>> {
        let first = &self.chain.0;
        match *self.lie.lock().unwrap() {
            Lie::ForEver if from == 1 => Some(CharterChain::piece(first)),
            Lie::ForEver => {
                let more = (from..from + 8).map(|version| Charter {
                    version,
                    predecessor: Some(first[0].hash()),
                    ..first[0].read().unwrap()
                });
                let more: Vec<_> = more.map(|charter| SignedCharter::unsigned(&charter).unwrap()).collect();
                Some(CharterChain::piece(&more))
            }
            Lie::FromTheFirst => Some(CharterChain::piece(first)),
            Lie::Nothing => Some(CharterChain::piece([])),
            Lie::Silent => None,
        }
    }

    /// What it was asked for until it was asked from the first on again.
    async fn asked(&self, lie: Lie) -> Vec<u32> {
        *self.lie.lock().unwrap() = lie;
        self.asked.lock().unwrap().clear();
        let asking = async {
            loop {
                let asked = self.asked.lock().unwrap().clone();
                let begins: Vec<usize> = (0..asked.len()).filter(|at| asked[*at] == 1).collect();
                if let [first, second, ..] = begins[..] {
                    return asked[first..second].to_vec();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, asking).await.expect("it is asked again")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_show_the_charters_of_which_it_speaks_is_left_and_the_others_are_heard() {
    let hospitals = Hospitals::new(3, "");
    let node = hospitals.start(0).await;
    let owner = hospitals.person("patient", Role::Patient);
    let liar = Liar::start(&hospitals, 2);
    let for_ever: Vec<u32> = (0..32).map(|n| 2 + 8 * n).collect();
    for (lie, asked) in
        [(Lie::ForEver, [&[1][..], &for_ever].concat()), (Lie::FromTheFirst, vec![1, 2]), (Lie::Nothing, vec![1])]
    {
        assert_eq!(liar.asked(lie).await, asked, "{lie:?}");
        assert_eq!(hospitals.status(&owner, 0).await.charter_version, 1, "{lie:?}");
    }
    // While it keeps one waiting, another one's charters come.
    *liar.lie.lock().unwrap() = Lie::Silent;
    hospitals.next("", &[1]);
    let other = hospitals.start(1).await;
    let comes = async {
        while hospitals.status(&owner, 0).await.charter_version != 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, comes).await.expect("the other one's charter comes");
    for node in [node, other] {
        node.stop().await.unwrap();
    }
}
