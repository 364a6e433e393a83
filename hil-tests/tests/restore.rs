//! Three hospitals lose every disk, and go on from a backup: real programs, a real broker, a gateway that goes on measuring meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use hil_tests::lab::alliance::Founding;
use hil_tests::lab::process::{Finished, run, until};
use hil_tests::scenario::{self, Options, Scene};
use hil_tests::view::View;
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(60);
const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// A program of ours in the lab's folder.
async fn program(scene: &Scene, name: &str, arguments: &[&str]) -> Finished {
    let mut command = scene.alliance.programs().command(name);
    command.args(arguments).current_dir(scene.alliance.path("."));
    run(command, LIMIT).await.unwrap()
}

async fn done(scene: &Scene, name: &str, arguments: &[&str]) -> String {
    let finished = program(scene, name, arguments).await;
    finished.success(&format!("{name} {}", arguments.join(" "))).unwrap().stdout
}

/// Publishes until the broker has acknowledged so many more readings.
async fn publish(scene: &Scene, readings: usize) -> usize {
    let (stop, stopped) = watch::channel(false);
    let journal = scene.out.join("published.jsonl");
    let count = || std::fs::read_to_string(&journal).map_or(0, |text| text.lines().count());
    let before = count();
    let mut publishing = scene.publish(&stopped).unwrap();
    until("readings are published", LIMIT, || async { Ok((count() >= before + readings).then_some(())) })
        .await
        .unwrap();
    stop.send_replace(true);
    scenario::silence(&mut publishing).await.unwrap()
}

/// The clinician's readings of all rooms, and what was said besides.
async fn read_all(scene: &Scene) -> (usize, String) {
    let (mut lines, mut said) = (0, String::new());
    for patient in &scene.patients {
        let finished = scene.alliance.ehe("clinician", &["--json", "read", "--room", &patient.room]).await.unwrap();
        let finished = finished.success("ehe read").unwrap();
        lines += finished.stdout.lines().count();
        said.push_str(&finished.stderr);
    }
    (lines, said)
}

async fn audited(scene: &Scene, patient: usize) -> usize {
    let patient = &scene.patients[patient];
    scene.alliance.ehe_json(&patient.who, &["audit", "--room", &patient.room]).await.unwrap().len()
}

fn bytes_of(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alliance_that_lost_every_disk_is_begun_again_and_readers_and_gateways_know_what_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        window_ms: 500,
        founding: Founding { members: 3, shards: Some(2) },
        node: "[consensus]\ntiming = \"lan\"\n",
        ..Options::new(folder.path().join("lab"), 11)
    };
    let mut scene = Scene::set_up(&options, View::new([], false)).await.unwrap();

    // A backup, more readings, what is new since; and readings that no backup has.
    let mut published = publish(&scene, 40).await;
    scenario::settle(&mut scene, published).await.unwrap();
    read_all(&scene).await;
    done(&scene, "ehe-node", &["backup", "--config", "node1.toml", "--to", "full.backup"]).await;
    published += publish(&scene, 20).await;
    scenario::settle(&mut scene, published).await.unwrap();
    let since = ["backup", "--config", "node1.toml", "--to", "more.backup", "--since", "full.backup"];
    done(&scene, "ehe-node", &since).await;
    let verified =
        done(&scene, "ehe-node", &["backup", "--verify", "full.backup", "more.backup", "--config", "node2.toml"]).await;
    assert!(verified.contains("shard 1") && verified.ends_with("verified\n"), "{verified}");
    assert!(bytes_of(&scene.alliance.path("more.backup")) > 0);
    let kept = published;
    let gone = publish(&scene, 20).await;
    published += gone;
    scenario::settle(&mut scene, published).await.unwrap();
    let (read, said) = read_all(&scene).await;
    assert_eq!(read, published);
    assert!(!said.contains("lost"), "{said}");
    let audit = audited(&scene, 0).await;

    // Every disk is lost. The gateway goes on measuring under the keys that it has, whose wraps stood in what is lost or kept.
    for node in scene.nodes() {
        node.daemon.kill().await.unwrap();
    }
    for node in NODES {
        std::fs::remove_dir_all(scene.alliance.path(&format!("{node}-data"))).unwrap();
    }
    let meanwhile = publish(&scene, 20).await;

    // What is kept and lost is written down, looked at, and signed by two of the three hospitals.
    let from = ["--from", "full.backup", "more.backup"];
    let propose = [&["restore", "--config", "node1.toml", "--propose", "kept.records"][..], &from].concat();
    done(&scene, "ehe-node", &propose).await;
    let restore = |node: &str| {
        let config = format!("{node}.toml");
        ["restore", "--config", &config, "--record", "kept.records"].map(str::to_owned).to_vec()
    };
    let finish = async |scene: &Scene, node: &str| {
        let restore = restore(node);
        let arguments: Vec<&str> = restore.iter().map(String::as_str).chain(from).collect();
        program(scene, "ehe-node", &arguments).await
    };
    let early = finish(&scene, "node1").await;
    assert!(early.code != Some(0) && early.stderr.contains("signed by 0 of the 2"), "{early:?}");
    for member in ["hospital", "hospital2"] {
        let identity = format!("{member}/identity.json");
        let sign = ["restoration", "sign", "kept.records", "--charter", "alliance/charter", "--with", &identity];
        let told = done(&scene, "ehe-certs", &[&sign[..], &["--passphrase-file", "passphrase"]].concat()).await;
        assert!(told.contains("leaves are kept"), "{told}");
    }
    for node in NODES {
        finish(&scene, node).await.success("ehe-node restore --record").unwrap();
    }
    for node in scene.nodes() {
        node.daemon.start().unwrap();
    }
    scene.node.answers("clinician").await.unwrap();

    // The gateway finds that the log is another one, believes the record, and sends what it holds; it goes on with new readings.
    published += meanwhile;
    scenario::settle(&mut scene, published).await.unwrap();
    let (read, said) = read_all(&scene).await;
    assert_eq!(read, kept + meanwhile, "of {published} published, {gone} are lost");
    assert!(said.contains("lost a part of the ledger") && said.contains("entries when it was last seen"), "{said}");
    let fresh = publish(&scene, 10).await;
    published += fresh;
    scenario::settle(&mut scene, published).await.unwrap();
    let (read, said) = read_all(&scene).await;
    assert_eq!(read, kept + meanwhile + fresh);
    assert!(!said.contains("lost"), "it is said once: {said}");

    // The patients' ledgers verify whole, and the audit from before the backup is there.
    for patient in &scene.patients {
        let checks = scene.alliance.ehe(&patient.who, &["verify", "--room", &patient.room]).await.unwrap();
        checks.success("ehe verify").unwrap();
    }
    assert!(audited(&scene, 0).await > 1, "of {audit} before");
}
