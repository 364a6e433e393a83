//! `ehe-node` and files and command lines that it should never have been given.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[path = "support/alliance.rs"]
mod alliance;
#[path = "../../certs/tests/support/spoil.rs"]
mod spoil;

use alliance::Alliance;
use spoil::Spoilt;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ehe-node");
const FAULT: [i32; 1] = [1];

/// The program, once it serves.
fn started(config: &Path) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--config"]).arg(config).env("RUST_LOG", "info").env("NO_COLOR", "1");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while !lines.next().expect("it ended without being ready").unwrap().contains("ready") {}
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn every_file_may_be_missing_torn_huge_or_no_file_and_the_message_names_it() {
    let alliance = Alliance::new();
    let config = alliance.config_file("127.0.0.1:0");
    let folder = config.parent().unwrap();
    let each = |line: &str, file: &str, ways: &[Spoilt]| {
        spoil::each(PROGRAM, line, folder, file, ways, &FAULT, |_| false);
    };
    let (any, secret) = (Spoilt::ANY, Spoilt::secret());
    let check = "check --config node.toml";
    each(check, "node/identity.json", &secret);
    each(check, "node/channel.key", &secret);
    for file in ["node/channel.crt", "node/ca.crt", "node/charter", "node.toml"] {
        each(check, file, &any);
    }

    // What the running node left. A shard's file that is gone would be made anew and filled from the log: not among these.
    let mut child = started(&config);
    child.kill().unwrap();
    child.wait().unwrap();
    let there = |way: &Spoilt| !matches!(way, Spoilt::Missing | Spoilt::Large);
    let ways: Vec<Spoilt> = any.into_iter().filter(there).collect();
    for entry in fs::read_dir(folder.join("data")).unwrap() {
        let entry = entry.unwrap();
        // A socket has nothing in it, and is made anew.
        if !entry.file_type().unwrap().is_file() {
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        each("run --config node.toml", &format!("data/{name}"), &ways);
    }
}

/// It is for `ehe-node status`, and nothing that the node needs.
#[test]
fn the_note_of_who_is_refused_may_be_spoilt_and_the_node_starts_and_makes_it_anew() {
    let alliance = Alliance::new();
    let config = alliance.config_file("127.0.0.1:0");
    let note = config.parent().unwrap().join("data/estranged");
    for spoilt in [false, true] {
        let mut child = started(&config);
        if !spoilt {
            assert!(!note.exists(), "nobody is refused");
        } else {
            let begun = std::time::Instant::now();
            while fs::read(&note).unwrap() != b"" {
                assert!(begun.elapsed() < std::time::Duration::from_secs(30), "it stays as it was");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        fs::write(&note, b"\xff\xfe").unwrap();
    }
}

#[test]
fn no_command_line_and_no_configuration_panics_or_commands_the_terminal() {
    let alliance = Alliance::new();
    let config = alliance.config_file("127.0.0.1:0");
    let folder = config.parent().unwrap();
    let lines = ["value", "check value", "check --config value", "run --config value", "check --value"];
    spoil::command_lines(PROGRAM, folder, &lines, &[1, 2]);
    let good = fs::read_to_string(&config).unwrap();
    for (from, to) in [
        ("'node'", "\"\\u001b]0;x\\u0007\\u202e\""),
        ("'127.0.0.1:0'", "'127.0.0.1:99999'"),
        ("'127.0.0.1:0'", "\"\\u001b[31m\""),
        ("data_dir", &format!("{}data_dir", "x = [".repeat(50_000))),
        ("data_dir", &format!("{} = 1\ndata_dir", "a.".repeat(50_000))),
    ] {
        fs::write(&config, good.replacen(from, to, 1)).unwrap();
        let ended = spoil::run(PROGRAM, &spoil::words("check --config node.toml"), folder);
        spoil::ended_well(&ended, &FAULT, &format!("{from} → {}", &to[..to.len().min(60)]));
    }
}

#[test]
fn it_leaves_no_core_file() {
    let alliance = Alliance::new();
    let mut child = started(&alliance.config_file("127.0.0.1:0"));
    let limit = spoil::core_limit(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(limit[..2], ["0", "0"]);
}
