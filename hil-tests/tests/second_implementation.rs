//! The second implementation of the format, written from the SPEC alone, judges the test kit and a ledger that a live node served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use hil_tests::lab::process::{Finished, command, run};
use hil_tests::scenario::{self, Options, Scene};
use hil_tests::view::View;
use serde_json::Value;
use tokio::sync::watch;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs it with the Python that `scripts/setup` has made.
async fn second(arguments: &[&str]) -> Finished {
    // target/debug/deps/this-test: the environment lies beside `debug`.
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let python = target.join("python/bin/python");
    assert!(python.is_file(), "{} is not there: scripts/setup makes it", python.display());
    let mut program = command(&python.to_string_lossy(), arguments);
    program.current_dir(root().join("hil-tests/second-implementation")).env("PYTHONDONTWRITEBYTECODE", "1");
    run(program, Duration::from_secs(240)).await.unwrap()
}

#[tokio::test]
async fn it_opens_every_valid_file_of_the_test_kit_and_refuses_every_invalid_one() {
    let kit = root().join("ehe/testkit");
    let judged = second(&["-m", "ehe2", "kit", &kit.to_string_lossy()]).await.success("the kit").unwrap();
    let last = judged.stdout.lines().last().unwrap();
    let files = std::fs::read_dir(&kit).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let files: usize = files.map(|folder| std::fs::read_dir(folder.path()).unwrap().count()).sum();
    assert!(files > 500 && last.starts_with(&format!("{files} files: ")) && last.ends_with(" 0 wrong"), "{last}");
}

#[tokio::test]
async fn its_own_tests_hold() {
    second(&["-m", "unittest"]).await.success("its unit tests").unwrap();
}

#[tokio::test]
async fn it_verifies_what_a_live_node_served_and_notices_what_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { window_ms: 500, ..Options::new(folder.path().join("demo"), 7) };
    let mut scene = Scene::set_up(&options, View::new([], false)).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let mut publishing = scene.publish(&stopped).unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    stop.send_replace(true);
    let published = scenario::silence(&mut publishing).await.unwrap();
    scenario::settle(&mut scene, published).await.unwrap();
    // Reads, a refusal and a revocation stand in the ledger besides the readings.
    scene.read_all("clinician").await.unwrap();
    scene.refused_all("stranger").await.unwrap();
    scene.revoke_clinician().await.unwrap();
    let saved = folder.path().join("served.json");
    let (room, file) = (scene.patients[0].room.clone(), saved.to_string_lossy().into_owned());
    let kept = scene.alliance.ehe("patient1", &["verify", "--room", &room, "--save", &file]).await.unwrap();
    kept.success("ehe verify --save").unwrap();

    second(&["-m", "ehe2", "ledger", &file]).await.success("the ledger as it was served").unwrap();

    let served: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    let entries = served["input"]["items"].as_array().unwrap().len();
    assert!(entries > 8, "{entries} entries");
    let items = |case: &mut Value, spoil: fn(&mut Vec<Value>)| spoil(case["input"]["items"].as_array_mut().unwrap());
    for what in [
        "an entry is left out",
        "the last entry is left out",
        "two entries change places",
        "the head answers another question",
    ] {
        let mut case = served.clone();
        match what {
            "an entry is left out" => items(&mut case, |items| drop(items.remove(4))),
            "the last entry is left out" => items(&mut case, |items| drop(items.pop())),
            "two entries change places" => items(&mut case, |items| items.swap(3, 5)),
            _ => case["input"]["nonce"] = "00".repeat(16).into(),
        }
        let changed = folder.path().join("changed.json");
        std::fs::write(&changed, case.to_string()).unwrap();
        let judged = second(&["-m", "ehe2", "ledger", &changed.to_string_lossy()]).await;
        assert_eq!(judged.code, Some(1), "{what}: {judged:?}");
        assert!(!judged.stderr.contains("Traceback"), "{what}: {}", judged.stderr);
    }
}
