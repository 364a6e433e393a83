//! Shards that people move: planned, signed by the members, given to one node, carried out by real nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hil_tests::lab::alliance::{Alliance, Founding};
use hil_tests::lab::node::Node;
use hil_tests::lab::process::{Finished, Programs, run};

const STEP: Duration = Duration::from_secs(90);
const LAN: &str = "[consensus]\ntiming = \"lan\"\n";

async fn ran(alliance: &Alliance, program: &'static str, arguments: &[&str]) -> Finished {
    let mut command = alliance.programs().command(program);
    command.args(arguments).current_dir(alliance.path("."));
    run(command, STEP).await.unwrap()
}

async fn done(alliance: &Alliance, program: &'static str, arguments: &[&str]) -> String {
    let what = format!("{program} {}", arguments.join(" "));
    ran(alliance, program, arguments).await.success(&what).unwrap().stdout
}

/// Two of three members sign what was planned; node `n` is given it, and it is waited for.
async fn carried_out(alliance: &Alliance, plan: &str, n: usize) -> String {
    for member in ["hospital/identity.json", "hospital2/identity.json"] {
        let sign = ["charter", "sign", plan, "--with", member, "--passphrase-file", "passphrase"];
        done(alliance, "ehe-certs", &sign).await;
    }
    let config = format!("node{n}.toml");
    done(alliance, "ehe-node", &["charter", "install", plan, "--config", &config, "--wait", "--timeout", "60"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_follows_its_shard_from_three_hospitals_to_one_and_to_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let founding = Founding { members: 3, shards: Some(1) };
    let alliance = Alliance::found_of(&Programs::built().unwrap(), folder.path(), founding).await.unwrap();
    let mut nodes = Node::start_all(&alliance, LAN).unwrap();
    alliance.enrol("patient", "patient").await.unwrap();
    nodes[0].answers("patient").await.unwrap();
    let created = alliance.ehe_json("patient", &["room", "create", "--no-recovery"]).await.unwrap();
    let room = created[0]["room"].as_str().unwrap().to_owned();
    let show = ["room", "show", "--room", &room];

    // The plan of one hospital's node.
    let plan = ["move-shard", "0", "--to", "node1.lab.example", "--config", "node1.toml", "--out", "to-one"];
    let said = done(&alliance, "ehe-node", &plan).await;
    assert!(
        said.contains("shard 0: ") && said.contains("-> node1.lab.example") && said.contains("not signed yet"),
        "{said}"
    );
    let unsigned = ["charter", "install", "to-one", "--config", "node2.toml"];
    let refused = ran(&alliance, "ehe-node", &unsigned).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("signed by 0 of the 2"), "{refused:?}");
    let said = carried_out(&alliance, "to-one", 2).await;
    assert!(said.contains("charter 2"), "{said}");
    for n in [2, 1] {
        nodes[n].daemon.stop().await.unwrap();
    }
    alliance.ehe_json("patient", &show).await.unwrap();

    // To one that was let go before, and comes again. The two groups have no node in common.
    nodes[1].daemon.start().unwrap();
    let plan = ["replace", "node1.lab.example", "node2.lab.example", "--config", "node1.toml", "--out", "to-another"];
    done(&alliance, "ehe-node", &plan).await;
    carried_out(&alliance, "to-another", 1).await;
    let status = done(&alliance, "ehe-node", &["status", "--config", "node2.toml", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["settled"], &status["charter"]), (&true.into(), &3.into()), "{status}");
    assert_eq!(status["groups"][0]["nodes"].as_array().unwrap().len(), 1, "{status}");
    nodes[0].daemon.stop().await.unwrap();
    alliance.ehe_json("patient", &show).await.unwrap();

    // A node that was part of it is no new one.
    assert!(Path::new(&alliance.path("node3-data")).exists());
    let joins = ran(&alliance, "ehe-node", &["join", "--config", "node3.toml"]).await;
    assert!(joins.code == Some(1) && joins.stderr.contains("not empty"), "{joins:?}");
    nodes[1].daemon.stop().await.unwrap();
}

/// What a leader logs of each step of a move between two nodes.
const STEPS: [&str; 7] = [
    "gives its log to",
    "makes",
    "hands its leadership to",
    "takes up charter",
    "waits for a checkpoint",
    "writes down that both groups",
    "takes its log from",
];

/// Waits until one of these logs says so behind its mark, and not for longer than the move takes.
async fn said(logs: &[(PathBuf, usize)], what: &str, over: &AtomicBool) -> bool {
    while !over.load(Ordering::Relaxed) {
        for (log, mark) in logs {
            let text = std::fs::read(log).unwrap_or_default();
            if String::from_utf8_lossy(text.get(*mark..).unwrap_or_default()).contains(what) {
                return true;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_ends_where_it_should_whoever_is_killed_at_any_of_its_steps() {
    let folder = tempfile::tempdir().unwrap();
    let founding = Founding { members: 3, shards: Some(1) };
    let alliance = Alliance::found_of(&Programs::built().unwrap(), folder.path(), founding).await.unwrap();
    let mut nodes = Node::start_all(&alliance, LAN).unwrap();
    alliance.enrol("patient", "patient").await.unwrap();
    alliance.enrol("clinician", "clinician").await.unwrap();
    nodes[0].answers("patient").await.unwrap();
    let created = alliance.ehe_json("patient", &["room", "create", "--no-recovery"]).await.unwrap();
    let room = created[0]["room"].as_str().unwrap().to_owned();
    let plan = ["move-shard", "0", "--to", "node1.lab.example", "--config", "node3.toml", "--out", "to-one"];
    done(&alliance, "ehe-node", &plan).await;
    carried_out(&alliance, "to-one", 3).await;

    // Between the first two, to and fro; the third looks on. At each step the one that leaves or the one that comes is killed.
    let reader = alliance.path("clinician").join("identity.pub");
    let (mut here, mut acknowledged, mut struck) = (0, 0, 0);
    for (at, step) in STEPS.iter().enumerate() {
        let there = 1 - here;
        let victim = if at % 2 == 0 { there } else { here };
        let (old, new) = (format!("node{}.lab.example", here + 1), format!("node{}.lab.example", there + 1));
        let file = format!("move-{at}");
        let plan = ["replace", &old, &new, "--config", "node3.toml", "--out", &file];
        done(&alliance, "ehe-node", &plan).await;
        let marks = [0, 1].map(|n| (nodes[n].log(), std::fs::read(nodes[n].log()).unwrap().len()));
        let over = AtomicBool::new(false);
        let moving = async {
            carried_out(&alliance, &file, 3).await;
            over.store(true, Ordering::Relaxed);
        };
        let striking = async {
            let seen = said(&marks, step, &over).await;
            if seen {
                nodes[victim].daemon.kill().await.unwrap();
                nodes[victim].daemon.start().unwrap();
            }
            seen
        };
        let grant = ["grant", "--room", &room, "--to", reader.to_str().unwrap(), "--read", "cardiac", "--timeout", "5"];
        let writing = async {
            let mut written = 0;
            while !over.load(Ordering::Relaxed) {
                written += usize::from(alliance.ehe("patient", &grant).await.unwrap().code == Some(0));
            }
            written
        };
        let ((), seen, written) = tokio::join!(moving, striking, writing);
        struck += usize::from(seen);
        acknowledged += written;
        here = there;
        let config = format!("node{}.toml", here + 1);
        let status = done(&alliance, "ehe-node", &["status", "--config", &config, "--json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["groups"][0]["nodes"].as_array().unwrap().len(), 1, "{step}: {status}");
    }
    assert!(struck >= STEPS.len() - 2, "{struck} of {} steps were seen", STEPS.len());
    assert!(acknowledged > 0);

    // What was acknowledged on the way is there.
    let shown = alliance.ehe("patient", &["verify", "--room", &room]).await.unwrap();
    shown.success("ehe verify").unwrap();
    let shown = alliance.ehe_json("patient", &["room", "show", "--room", &room]).await.unwrap();
    let grants = shown[0]["grants"].as_array().unwrap().len();
    assert!(grants >= acknowledged, "{grants} of {acknowledged}: {shown:?}");
    for node in &mut nodes {
        node.daemon.stop().await.unwrap();
    }
}
