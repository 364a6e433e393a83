//! A hospital whose key signs two logs: the programs of the others find out, and what they keep convinces somebody who has nothing but
//! the file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use certs::{Credentials, Lane, NodeDialer};
use ehe::cbor;
use ehe::checkpoint::Checkpoint;
use ehe::evidence::{Finding, judge};
use ehe::id::{Hash, RoomId};
use ehe::limits::FRAME_MAX_BYTES;
use ehe::note::Note;
use ehe::wire::Head;
use hil_tests::lab::alliance::{Alliance, Founding, node};
use hil_tests::lab::node::Node;
use hil_tests::lab::process::{Programs, run, until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const LAN: &str = "[consensus]\ntiming = \"lan\"\n";
/// A stream between nodes for messages about checkpoints, and the version byte of these.
const CHECKPOINTS: [u8; 1] = [2];
const VERSION: u8 = 1;

/// Deterministic CBOR, as far as one message takes it. The programs' insides are none of this test's.
fn head(major: u8, n: u64) -> Vec<u8> {
    let (be, major) = (n.to_be_bytes(), major << 5);
    match n {
        0..=23 => vec![major | be[7]],
        24..=0xff => vec![major | 24, be[7]],
        0x100..=0xffff => [&[major | 25], &be[6..]].concat(),
        0x1_0000..=0xffff_ffff => [&[major | 26], &be[4..]].concat(),
        _ => [&[major | 27], &be[..]].concat(),
    }
}

fn uint(n: u64) -> Vec<u8> {
    head(0, n)
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    [&head(2, bytes.len() as u64)[..], bytes].concat()
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len() as u64), items.concat()].concat()
}

fn map(members: &[Vec<u8>]) -> Vec<u8> {
    let members: Vec<Vec<u8>> = (0u64..).zip(members).map(|(key, value)| [uint(key), value.clone()].concat()).collect();
    [head(5, members.len() as u64), members.concat()].concat()
}

/// "I cosigned this": from the node whose key it is.
fn cosigned(own: &Credentials, name: &str, shard: u16, says: &Checkpoint) -> Vec<u8> {
    let time_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let signature = says.unsigned().unwrap().cosign(name, own.identity().sign_key(), time_s);
    let point =
        map(&[uint(shard.into()), uint(says.charter_version.into()), uint(0), uint(says.size), bytes(&says.root.0)]);
    let word = map(&[uint(time_s), bytes(&signature)]);
    [&[VERSION][..], &array(&[uint(1), array(&[map(&[point, word])])])].concat()
}

/// What the nodes cosigned of a room's shard, by what the patient was served.
async fn agreed(alliance: &Alliance, room: &str) -> Checkpoint {
    let saved = alliance.path("patient1").join("served.json");
    let file = saved.to_string_lossy().into_owned();
    let kept = alliance.ehe("patient1", &["verify", "--room", room, "--save", &file]).await.unwrap();
    kept.success("ehe verify --save").unwrap();
    let served: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    let text = served["input"]["head"].as_str().unwrap();
    let head = STANDARD.decode(text.strip_prefix("base64:").unwrap()).unwrap();
    let head: Head = cbor::from_slice(&head, FRAME_MAX_BYTES).unwrap();
    Checkpoint::parse(&Note::parse(&head.last.checkpoint).unwrap()).unwrap()
}

#[tokio::test]
async fn a_hospital_that_signs_two_logs_is_named_by_every_other_one_and_by_a_file_that_anybody_can_judge() {
    let folder = tempfile::tempdir().unwrap();
    let founding = Founding { members: 3, shards: Some(2) };
    let alliance = Alliance::found_of(&Programs::built().unwrap(), folder.path(), founding).await.unwrap();
    alliance.enrol("patient1", "patient").await.unwrap();
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let mut node = Node::new(&alliance, number, LAN).unwrap();
        node.daemon.start().unwrap();
        nodes.push(node);
    }
    let key = alliance.path("recovery").to_string_lossy().into_owned();
    let create = ["--timeout", "60", "room", "create", "--recovery-out", &key, "--recovery-no-passphrase"];
    let room =
        alliance.ehe("patient1", &create).await.unwrap().success("room create").unwrap().stdout.trim().to_owned();
    // An alliance begins with all of its nodes, and goes on with most of them.
    nodes.pop().unwrap().daemon.stop().await.unwrap();
    let says = agreed(&alliance, &room).await;

    // Somebody has the third hospital's key, and tells the first hospital one thing and its opposite.
    let own = Credentials::load(&alliance.path(&node(3))).unwrap();
    let charter = own.charter();
    let shard = room.parse::<RoomId>().unwrap().shard(charter.shard_count());
    let liar = charter.node(own.peer().node().unwrap()).unwrap();
    let first = Credentials::load(&alliance.path(&node(1))).unwrap().peer().node().unwrap();
    let dialer = NodeDialer::new(&own).unwrap();
    let mut exchange = dialer.open(charter.node(first).unwrap(), Lane::Prompt, LIMIT).await.unwrap();
    exchange.send(&CHECKPOINTS, LIMIT).await.unwrap();
    for root in [says.root, Hash([7; 32])] {
        let said = cosigned(&own, &liar.name, shard, &Checkpoint { root, ..says.clone() });
        exchange.send(&said, LIMIT).await.unwrap();
    }

    // Both hospitals' operators see who it was; the second one was told by the first.
    let mut files = Vec::new();
    for number in 1..=2 {
        let config = alliance.path(&format!("node{number}.toml"));
        let proven = format!("signed both: {} ({}) of Lab hospital 3", liar.name, liar.id);
        let shown = until("the evidence is shown", LIMIT, || async {
            let mut status = alliance.programs().command("ehe-node");
            status.arg("status").arg("--config").arg(&config);
            // Of three nodes one is the test's: not all is well, and that is said too.
            let shown = run(status, LIMIT).await?;
            Ok((matches!(shown.code, Some(0 | 3)) && shown.stdout.contains(&proven)).then_some(()))
        });
        shown.await.unwrap();
        let mut export = alliance.programs().command("ehe-node");
        let to = alliance.path(&format!("evidence-of-{number}"));
        export.arg("evidence").arg("--config").arg(&config).arg("--to").arg(to);
        let written = run(export, LIMIT).await.unwrap().success("ehe-node evidence").unwrap().stdout;
        let proves = |file: &&str| {
            let verdict = judge(&std::fs::read(file).unwrap()).unwrap();
            verdict.finding() == Finding::SignedBoth
        };
        files.push(written.lines().find(proves).unwrap().to_owned());
    }

    // With the file alone, somewhere else.
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("what-the-first-hospital-sent-me");
    for file in &files {
        std::fs::copy(file, &copy).unwrap();
        let mut ehe = tokio::process::Command::new(alliance.programs().path("ehe"));
        ehe.env_clear().current_dir(elsewhere.path()).args(["verify", "--evidence"]).arg(&copy);
        ehe.args(["--alliance", &charter.alliance_id().to_string()]);
        let told = run(ehe, LIMIT).await.unwrap().success("ehe verify --evidence").unwrap().stdout;
        let proven = format!("PROVEN: node {} ({}) of Lab hospital 3 signed two statements", liar.name, liar.id);
        assert!(told.starts_with(&proven), "{told}");
    }
    let mut altered = std::fs::read(&copy).unwrap();
    // A charter: another one has another hash, and is signed by nobody.
    altered[60] ^= 1;
    std::fs::write(&copy, altered).unwrap();
    let mut ehe = tokio::process::Command::new(alliance.programs().path("ehe"));
    ehe.env_clear().args(["verify", "--evidence"]).arg(&copy);
    let refused = run(ehe, LIMIT).await.unwrap();
    assert_eq!(refused.code, Some(4), "{refused:?}");

    // What the patient's program fetches from the nodes that run says the same.
    let fetched = alliance.ehe("patient1", &["--timeout", "2", "evidence"]).await.unwrap();
    assert!(fetched.stdout.contains(&format!("PROVEN: node {}", liar.name)), "{fetched:?}");
    for node in &mut nodes {
        node.daemon.stop().await.unwrap();
    }
}
