//! The built programs, a real broker and real faults, held against what a person may expect of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hil_tests::account::Account;
use hil_tests::lab::process::{command, run};
use hil_tests::scenario::{self, Options, Scene};
use hil_tests::view::View;
use serde_json::Value;
use tokio::sync::watch;

fn options(out: &Path, window_ms: u64) -> Options {
    Options { window_ms, ..Options::new(out, 11) }
}

async fn scene(out: &Path, window_ms: u64) -> Scene {
    Scene::set_up(&options(out, window_ms), View::new([], false)).await.unwrap()
}

fn assert_whole(account: &Account) {
    assert_eq!(account.faults(), Vec::<String>::new(), "{account:?}");
}

/// Members that both files share, joined here without the code that made the account.
fn shared(path: &Path, wanted: impl Fn(&Value) -> bool) -> Vec<BTreeMap<String, String>> {
    let members = ["patient", "device", "vital", "value", "unit", "time"];
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(wanted)
        .map(|line| members.iter().map(|m| ((*m).to_owned(), line[*m].to_string())).collect())
        .collect()
}

/// Every file below a folder that holds the text.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if path.is_file() && std::fs::read(&path).unwrap().windows(text.len()).any(|w| w == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn the_demos_round_loses_nothing_doubles_nothing_and_refuses_who_is_not_invited_though_the_leader_is_killed() {
    let account = round_of(&[], 3).await;
    let without_leader = account["without_leader_ms"].as_u64().unwrap();
    assert!(without_leader < 20_000, "{account}");
}

#[tokio::test]
async fn the_demos_round_of_one_hospital_loses_nothing_either() {
    let account = round_of(&["--nodes=1"], 1).await;
    assert_eq!(account.get("without_leader_ms"), None, "nobody else could lead");
}

/// Runs `ehe-demo --once` and judges it by its files; the account.
async fn round_of(more: &[&str], nodes: usize) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let out_text = out.to_string_lossy();
    let arguments = [&["--once", "--seed", "11", "--out", &out_text], more].concat();
    let demo = command(env!("CARGO_BIN_EXE_ehe-demo"), &arguments);
    let round = run(demo, Duration::from_secs(120)).await.unwrap().success("ehe-demo --once").unwrap();
    let account: Value = serde_json::from_str(round.stdout.lines().last().unwrap()).unwrap();

    let published = shared(&out.join("published.jsonl"), |line| line["acked"] == true);
    let read = shared(&out.join("read.jsonl"), |_| true);
    for count in ["published", "confirmed", "read_back"] {
        assert_eq!(account[count], published.len(), "{account}");
    }
    for none in ["lost", "duplicates"] {
        assert_eq!(account[none], 0, "{account}");
    }
    assert_eq!((&account["refused_reads"], &account["audited_reads"]), (&Value::from(6), &Value::from(9)));
    assert!(account["p50_ms"].is_u64() && account["p99_ms"].is_u64() && account["nodes"] == nodes, "{account}");
    assert!(published.len() > 50, "{account}");
    assert_eq!(read.len(), published.len(), "each reading stands in read.jsonl once");
    assert_eq!(published.into_iter().collect::<BTreeSet<_>>(), read.into_iter().collect());

    // A hospital's administrator sees neither devices nor names nor purposes, and the gateway's own files are sealed too.
    let holders: Vec<PathBuf> = (1..=nodes)
        .map(|number| out.join(format!("lab/node{number}-data")))
        .chain([out.join("lab/gateway1-data")])
        .collect();
    for secret in ["strap-1", "oximeter-2", "heart_rate", "Dr. Lab", "follow-up at home"] {
        for holder in &holders {
            assert!(holder.is_dir());
            assert_eq!(files_with(holder, secret), Vec::<PathBuf>::new(), "{secret}");
        }
    }
    for log in (1..=nodes).map(|number| format!("node{number}.log")).chain(["gateway1.log".into()]) {
        let log = std::fs::read_to_string(out.join("lab").join(log)).unwrap();
        assert!(!log.contains("strap-1") && !log.contains("\"hr\""), "{log}");
    }
    account
}

/// Publishes while a fault strikes after each pause; then everything has to be there once.
async fn whole_in_spite_of(window_ms: u64, pauses_ms: &[u64], mut strike: impl AsyncFnMut(&mut Scene)) {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = scene(&folder.path().join("demo"), window_ms).await;
    let (stop, stopped) = watch::channel(false);
    let mut publishing = scene.publish(&stopped).unwrap();
    // The pauses are the fault's moments, not a wait for anything.
    for pause_ms in pauses_ms {
        tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
        strike(&mut scene).await;
    }
    stop.send_replace(true);
    let published = scenario::silence(&mut publishing).await.unwrap();
    assert!(published > 20, "{published}");
    scenario::settle(&mut scene, published).await.unwrap();
    assert_whole(&scenario::finish(&scene).await.unwrap());
}

#[tokio::test]
async fn a_gateway_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    // Odd pauses: the kill meets the gateway in another of its steps each time.
    let pauses_ms = [430, 710, 170, 1230, 90, 550, 1010, 320, 20, 870, 1490, 240];
    whole_in_spite_of(700, &pauses_ms, async |scene: &mut Scene| {
        scene.gateway.daemon.kill().await.unwrap();
        scene.gateway.daemon.start().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    let pauses_ms = [900, 1310, 770, 1100, 450, 1620, 830, 1250];
    whole_in_spite_of(300, &pauses_ms, async |scene: &mut Scene| {
        scene.node.daemon.kill().await.unwrap();
        scene.node.daemon.start().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_round_in_which_somebody_is_not_refused_does_not_pass() {
    let folder = tempfile::tempdir().unwrap();
    let scene = scene(&folder.path().join("demo"), 300).await;
    assert_eq!(scene.refused_all("stranger").await.unwrap(), 3);
    let why = scene.refused_all("clinician").await.unwrap_err().to_string();
    assert!(why.contains("clinician was not refused"), "{why}");
}

#[tokio::test]
async fn both_daemons_end_in_order_when_they_are_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = scene(&folder.path().join("demo"), 300).await;
    scene.gateway.daemon.stop().await.unwrap();
    scene.node.daemon.stop().await.unwrap();
}
