//! The README's steps by hand, run as they stand there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use hil_tests::lab::process::{Programs, command, free_tcp_port, free_udp_port, run};

const README: &str = include_str!("../../README.md");

#[tokio::test]
async fn the_steps_by_hand_do_what_the_readme_says() {
    let by_hand = README.split_once("\n## By hand\n").unwrap().1;
    let script = by_hand.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0;
    let (udp, tcp) = (free_udp_port().unwrap().to_string(), free_tcp_port().unwrap().to_string());
    let script = script.replace("4433", &udp).replace("18830", &tcp);

    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("target")).unwrap();
    let built = Programs::built().unwrap().path("");
    std::os::unix::fs::symlink(built, folder.path().join("target/debug")).unwrap();
    std::fs::write(
        folder.path().join("steps.sh"),
        format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n{script}"),
    )
    .unwrap();
    // `timeout` ends the whole group: a step that hangs leaves no daemon behind.
    let mut bash = command("timeout", &["80", "bash", "steps.sh"]);
    bash.current_dir(folder.path());
    let done = run(bash, Duration::from_secs(90)).await.unwrap();

    let said = &done.stdout;
    let all = format!("exit code {:?}\n{said}\n{}", done.code, done.stderr);
    assert!(said.contains("heart_rate") && said.contains("72") && said.contains("141"), "{all}");
    assert_eq!(said.matches("refused (exit code 3)").count(), 2, "{all}");
    assert!(said.contains("Dr. Lee"), "{all}");
    assert!(!said.contains("FAILED"), "{all}");
}
