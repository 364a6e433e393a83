//! `ehe watch` when the node that serves it is killed: it goes on from another one, and the clinician misses nothing and sees nothing twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hil_tests::journal::{Entry, Line, read_lines};
use hil_tests::lab::alliance::Founding;
use hil_tests::lab::process::until;
use hil_tests::scenario::{self, Options, Scene};
use hil_tests::view::View;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(60);

/// What one patient's watch has shown, in its order.
type Shown = Arc<Mutex<Vec<Entry>>>;

fn watching(scene: &Scene, room: &str) -> (tokio::process::Child, Shown) {
    let mut command = scene.alliance.command("clinician");
    command.args(["--json", "watch", "--room", room]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let (shown, out) = (Shown::default(), child.stdout.take().unwrap());
    let seen = Arc::clone(&shown);
    tokio::spawn(async move {
        let mut lines = BufReader::new(out).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            seen.lock().unwrap().push(serde_json::from_str::<Line>(&line).unwrap().entry());
        }
    });
    (child, shown)
}

#[tokio::test]
async fn a_watch_whose_node_is_killed_goes_on_from_another_one_and_each_reading_is_seen_once() {
    let folder = tempfile::tempdir().unwrap();
    let founding = Founding { members: 3, shards: Some(1) };
    let lan = "[consensus]\ntiming = \"lan\"\n";
    let options = Options { founding, node: lan, window_ms: 300, ..Options::new(folder.path().join("demo"), 12) };
    let mut scene = Scene::set_up(&options, View::new([], false)).await.unwrap();
    let mut watches: BTreeMap<String, _> = BTreeMap::new();
    for patient in &scene.patients {
        watches.insert(patient.room.clone(), watching(&scene, &patient.room));
    }
    let (stop, stopped) = watch::channel(false);
    let mut publishing = scene.publish(&stopped).unwrap();
    let seen = |watches: &BTreeMap<String, (tokio::process::Child, Shown)>| -> Vec<usize> {
        watches.values().map(|(_, shown)| shown.lock().unwrap().len()).collect()
    };
    // Each node is killed once, after all of them have shown something: so the one that serves a watch is among them, and the watch has to
    // go on with one that was back before.
    for turn in 0..3 {
        let before = seen(&watches);
        let more = || async { Ok(seen(&watches).iter().zip(&before).all(|(now, before)| now > before).then_some(())) };
        until("every watch goes on", LIMIT, more).await.unwrap();
        let node = scene.nodes().nth(turn).unwrap();
        node.daemon.kill().await.unwrap();
        let before = seen(&watches);
        let more =
            || async { Ok(seen(&watches).iter().zip(&before).all(|(now, before)| *now > before + 1).then_some(())) };
        until("every watch goes on without it", LIMIT, more).await.unwrap();
        let node = scene.nodes().nth(turn).unwrap();
        node.daemon.start().unwrap();
        node.answers("clinician").await.unwrap();
    }
    stop.send_replace(true);
    let published = scenario::silence(&mut publishing).await.unwrap();
    scenario::settle(&mut scene, published).await.unwrap();
    let all = || async { Ok((seen(&watches).iter().sum::<usize>() >= published).then_some(())) };
    until("the clinician has seen every reading", LIMIT, all).await.unwrap();

    // Not as many: these.
    let mut sent: Vec<Entry> = read_lines(&scene.out.join("published.jsonl"))
        .unwrap()
        .into_iter()
        .filter(Line::is_acked)
        .map(Line::entry)
        .collect();
    let mut shown: Vec<Entry> = watches.values().flat_map(|(_, shown)| shown.lock().unwrap().clone()).collect();
    sent.sort();
    shown.sort();
    assert_eq!((sent.len(), sent == shown), (published, true), "each once: {} sent, {} shown", sent.len(), shown.len());
    assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len(), "readings are told apart");

    // And the patient sees that the clinician asked again, at another node.
    for patient in &scene.patients {
        let lines = scene.alliance.ehe_json(&patient.who, &["audit", "--room", &patient.room]).await.unwrap();
        let reads = |line: &&serde_json::Value| {
            line["reader"] == scene.clinician.as_str() && line["refused"].is_null() && line["part"] == "content"
        };
        assert!(lines.iter().filter(reads).count() >= 2, "{lines:?}");
    }
    for (child, _) in watches.values_mut() {
        assert!(child.try_wait().unwrap().is_none(), "a watch ended");
    }
    drop(watches);
    for node in scene.nodes() {
        node.daemon.stop().await.unwrap();
    }
}
