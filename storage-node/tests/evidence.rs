//! A hospital that signs two logs: the others find out, keep the proof, show it and tell each other. Over QUIC, with daemons.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::process::Command;
use std::time::Duration;

use certs::{ChannelError, CloseCode, Connection, Credentials, Exchange, Lane, NodeDialer, Role};
use ehe::charter::CharterChain;
use ehe::checkpoint::{Checkpoint, Signer};
use ehe::evidence::{Contradiction, Evidence, Finding, Verdict, judge};
use ehe::id::Hash;
use ehe::limits::{CONTRADICTION_MAX_BYTES, FRAME_MAX_BYTES};
use ehe::note::Note;
use ehe::refusal::Refusal;
use ehe::wire::{Request, Response};
use ehe_node::checkpoint::{Cosignature, Message, Point, Word};
use ehe_node::peers::Kind;

#[path = "support/hospitals.rs"]
mod hospitals;
#[path = "support/people.rs"]
mod people;

use hospitals::{Hospitals, ask};

pub const LIMIT: Duration = Duration::from_secs(30);

fn now() -> ehe::time::UnixMs {
    ehe_node::clock::Clock::system().now()
}

/// A new room; the checkpoint that holds it.
async fn a_room(hospitals: &Hospitals, owner: &Credentials, among: &[usize]) -> Checkpoint {
    let mut patient = people::Patient::new(owner.identity(), hospitals.charter().alliance_id(), (0, 1), now());
    let events = patient.opening(now());
    let run = Request::Submit(patient.writer.run(&events));
    let mut links = Vec::new();
    for n in among {
        links.push(hospitals.connect(owner, *n).await);
    }
    let asking = async {
        for (_, connection) in links.iter().cycle() {
            match ask(connection, &run).await {
                Response::Submitted(submitted) => return submitted.receipt,
                Response::Known(known) => return known.into_iter().next().unwrap().receipt,
                Response::AskNode(_) | Response::Refused(Refusal::NoLeader | Refusal::Overloaded) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("nobody to ask")
    };
    let receipt = tokio::time::timeout(LIMIT, asking).await.expect("a receipt");
    Checkpoint::parse(&Note::parse(&receipt.checkpoint).unwrap()).unwrap()
}

/// Everything that a node keeps, by what its own charters say.
async fn kept(hospitals: &Hospitals, connection: &Connection) -> Vec<Verdict> {
    let chain = certs::store::load_charter(&hospitals.path("charter")).unwrap().1;
    let charters = chain.verify_each(hospitals.charter().alliance_id()).unwrap();
    let mut kept = Vec::new();
    loop {
        let Response::Evidence(count, bytes) =
            ask(connection, &Request::Evidence(u32::try_from(kept.len()).unwrap())).await
        else {
            panic!()
        };
        if bytes.is_empty() {
            assert_eq!(count, u32::try_from(kept.len()).unwrap());
            return kept;
        }
        kept.push(Contradiction::decode(&bytes).unwrap().judge(&charters).unwrap());
    }
}

async fn until_proven(hospitals: &Hospitals, connection: &Connection) -> Verdict {
    let asking = async {
        loop {
            let found =
                kept(hospitals, connection).await.into_iter().find(|verdict| verdict.finding() == Finding::SignedBoth);
            match found {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, asking).await.expect("it is proven")
}

/// What the operator of a node makes of what it keeps, for others.
fn exported(hospitals: &Hospitals, n: usize) -> Vec<String> {
    let mut export = Command::new(env!("CARGO_BIN_EXE_ehe-node"));
    export.arg("evidence").arg("--config").arg(hospitals.path(&format!("node{n}.toml")));
    let written = export.arg("--to").arg(hospitals.path("exported")).output().unwrap();
    assert!(written.status.success(), "{written:?}");
    String::from_utf8(written.stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn why_reset(exchange: &mut Exchange) -> ChannelError {
    exchange.receiver.recv(LIMIT).await.map(|frame| panic!("{frame:?}")).unwrap_err()
}

/// What the third hospital's node cosigns.
fn cosigned(hospitals: &Hospitals, says: &Checkpoint, root: Hash) -> Vec<u8> {
    let liar = hospitals.credentials(2);
    let checkpoint = Checkpoint { root, ..says.clone() };
    let time_s = now().0 / 1000;
    let mut note = checkpoint.unsigned().unwrap();
    let signature = note.cosign("node2.example", liar.identity().sign_key(), time_s).into();
    let point = Point { shard: 0, charter: 1, incarnation: 0, size: says.size, root };
    let said = Cosignature { point, word: Word { time_s, signature }, order: None, wished_at: None };
    Message::Cosignature(said).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_signs_two_logs_is_proven_guilty_at_every_node_by_a_file_that_needs_nobodys_word() {
    let hospitals = Hospitals::new(3, "");
    let mut nodes = vec![hospitals.start(0).await, hospitals.start(1).await, hospitals.start(2).await];
    hospitals.without(&mut nodes, 2).await;
    let owner = hospitals.person("patient", Role::Patient);
    let says = a_room(&hospitals, &owner, &[0, 1]).await;
    let (_first_client, first) = hospitals.connect(&owner, 0).await;
    let (_second_client, second) = hospitals.connect(&owner, 1).await;
    for honest in [&first, &second] {
        assert!(kept(&hospitals, honest).await.is_empty(), "honest nodes leave none");
    }
    // Of the third hospital somebody has the key. It speaks to the first node alone.
    let dialer = NodeDialer::new(&hospitals.credentials(2)).unwrap();
    let charter = hospitals.charter();
    let mut exchange = dialer.open(charter.node(hospitals.id(0)).unwrap(), Lane::Prompt, LIMIT).await.unwrap();
    exchange.send(&[Kind::Checkpoints.byte()], LIMIT).await.unwrap();
    for root in [Hash([7; 32]), says.root] {
        exchange.send(&cosigned(&hospitals, &says, root), LIMIT).await.unwrap();
    }
    let liar = hospitals.id(2);
    for (name, connection) in [("that found it", &first), ("that was told", &second)] {
        let verdict = until_proven(&hospitals, connection).await;
        assert_eq!(verdict.alliance, charter.alliance_id(), "the node {name}");
        assert_eq!(verdict.accused(), [liar].into(), "the node {name}");
        assert_eq!(verdict.culprits[0].member_name, "Hospital 2", "the node {name}");
        let Response::Status(status) = ask(connection, &Request::Status).await else { panic!() };
        assert!(status.evidence.is_some(), "the node {name}");
    }
    // The operator of the one that was told sees it, whether the node runs or not; and so it is after a restart.
    let shown = |runs: bool| {
        let mut status = Command::new(env!("CARGO_BIN_EXE_ehe-node"));
        let shown = status.arg("status").arg("--config").arg(hospitals.path("node1.toml")).output().unwrap();
        // Whether all is well is not asked here.
        assert_eq!(matches!(shown.status.code(), Some(0 | 3)), runs, "{shown:?}");
        let text = String::from_utf8(shown.stdout).unwrap();
        let evidence = text.lines().skip_while(|line| !line.starts_with("evidence: "));
        let verdict = |line: &&str| line.starts_with("not all is well") || line.starts_with("the shard lives");
        evidence.take_while(|line| !verdict(line)).collect::<Vec<_>>().join("\n")
    };
    let before = shown(true);
    assert!(before.contains("signed both: node2.example") && before.contains("of Hospital 2"), "{before}");
    let files = exported(&hospitals, 1);
    let proven = files.iter().map(|file| judge(&std::fs::read(file).unwrap()).unwrap());
    let proven: Vec<_> = proven.filter(|verdict| verdict.finding() == Finding::SignedBoth).collect();
    assert_eq!(proven.iter().map(Verdict::accused).collect::<Vec<_>>(), [[liar].into()]);
    nodes.remove(1).stop().await.unwrap();
    assert_eq!(shown(false), before);
    nodes.push(hospitals.start(1).await);
    let (_client, again) = hospitals.connect(&owner, 1).await;
    assert_eq!(until_proven(&hospitals, &again).await.accused(), [liar].into());
    for node in nodes {
        node.stop().await.unwrap();
    }
}

fn note(hospitals: &Hospitals, signer: usize, root: u8, charter_version: u32) -> String {
    let (own, name) = (hospitals.credentials(signer), format!("node{signer}.example"));
    let signer = Signer { name: &name, key: own.identity().sign_key() };
    let origin = hospitals.charter().origin(0, 0);
    let says = Checkpoint { origin, size: 9, root: Hash([root; 32]), charter_version };
    says.sign(signer, now()).unwrap().to_string()
}

/// A node signed both, under a charter of this version.
fn pair(hospitals: &Hospitals, signer: usize, charter: u32) -> Vec<u8> {
    let [one, other] = [1, 2].map(|root| note(hospitals, signer, root, charter));
    Contradiction::of(&one, &other, None).unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn charters_that_fit_no_frame_go_from_node_to_node_and_so_does_evidence_under_the_last_of_them() {
    let hospitals = Hospitals::of(64, 3, "");
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(hospitals.start(n).await);
    }
    // Evidence that names a charter which has not come yet waits.
    let (told, liar) = (pair(&hospitals, 2, 13), hospitals.id(2));
    let dialer = NodeDialer::new(&hospitals.credentials(2)).unwrap();
    let first = hospitals.charter().node(hospitals.id(0)).unwrap().clone();
    let tell = async || {
        let mut exchange = dialer.open(&first, Lane::Bulk, LIMIT).await.unwrap();
        exchange.send(&[Kind::Evidence.byte()], LIMIT).await.unwrap();
        exchange.send(&told, LIMIT).await.unwrap();
        exchange.recv(LIMIT).await.unwrap().unwrap()
    };
    assert_eq!(tell().await, [2].as_slice());
    for n in 0..12 {
        hospitals.next("", if n == 11 { &[1] } else { &[] });
    }
    let chain = std::fs::read(hospitals.path("charter")).unwrap();
    assert!(chain.len() > FRAME_MAX_BYTES);
    let owner = hospitals.person("patient", Role::Patient);
    let everywhere = async {
        for n in 0..3 {
            while hospitals.status(&owner, n).await.charter_version != 13 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    tokio::time::timeout(LIMIT, everywhere).await.expect("every node has the charters");
    assert_eq!(tell().await, [1].as_slice());
    let (_client, second) = hospitals.connect(&owner, 1).await;
    assert_eq!(until_proven(&hospitals, &second).await.accused(), [liar].into(), "the first one told it");
    for n in 0..2 {
        let [file] = &exported(&hospitals, n)[..] else { panic!("one file") };
        let bytes = std::fs::read(file).unwrap();
        assert!(bytes.len() > chain.len());
        assert_eq!(judge(&bytes).unwrap().accused(), [liar].into());
    }
    // What there is beyond the newest is nothing, and not a refusal.
    let none = Response::Charter(CharterChain::default().encode());
    assert_eq!(ask(&second, &Request::Charter(14)).await, none);
    assert_eq!(ask(&second, &Request::Charter(u32::MAX)).await, none);
    assert_eq!(ask(&second, &Request::Charter(0)).await, ask(&second, &Request::Charter(1)).await);
    for node in nodes {
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_tells_as_evidence_is_judged_here_and_nothing_else_is_taken() {
    let hospitals = Hospitals::new(3, "");
    let node = hospitals.start(0).await;
    let owner = hospitals.person("patient", Role::Patient);
    let (_client, connection) = hospitals.connect(&owner, 0).await;
    let dialer = NodeDialer::new(&hospitals.credentials(2)).unwrap();
    let charter = hospitals.charter();
    let target = charter.node(hospitals.id(0)).unwrap();
    let open = || async {
        let mut exchange = dialer.open(target, Lane::Bulk, LIMIT).await.unwrap();
        exchange.send(&[Kind::Evidence.byte()], LIMIT).await.unwrap();
        exchange
    };
    // The second hospital's node signed both, by whoever has its key; the third one tells it.
    let good = pair(&hospitals, 1, 1);
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    let elsewhere = pair(&Hospitals::new(3, ""), 1, 1);
    let [one, other] = [1, 2].map(|root| note(&hospitals, 1, root, 1));
    let with_charters = Evidence::of(hospitals.credentials(1).charter_chain(), &one, &other, None).unwrap().to_vec();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("garbage", vec![0x81; 1000]),
        ("altered", altered),
        ("another alliance's", elsewhere),
        ("a file for others", with_charters),
        ("under a charter that there is none of", pair(&hospitals, 1, 0)),
        ("too long", vec![0; CONTRADICTION_MAX_BYTES + 1]),
    ] {
        let mut exchange = open().await;
        // A long one may be cut off while it is sent.
        let _ = exchange.send(&bytes, LIMIT).await;
        let why = why_reset(&mut exchange).await;
        assert_eq!(why, ChannelError::Reset(CloseCode::Protocol), "{what}");
        assert!(kept(&hospitals, &connection).await.is_empty(), "{what}");
    }
    let mut exchange = open().await;
    for _ in 0..3 {
        exchange.send(&good, LIMIT).await.unwrap();
        assert_eq!(exchange.recv(LIMIT).await.unwrap().unwrap(), [1].as_slice());
    }
    let kept = kept(&hospitals, &connection).await;
    assert_eq!(kept.iter().map(Verdict::accused).collect::<Vec<_>>(), [[hospitals.id(1)].into()]);
    assert_eq!(ask(&connection, &Request::Evidence(u32::MAX)).await, Response::Evidence(1, Vec::new()));
    node.stop().await.unwrap();
}
