//! `ehe-gateway` and files and command lines that it should never have been given.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

#[allow(dead_code, reason = "each program's test uses its part of this")]
#[path = "../../certs/tests/support/spoil.rs"]
mod spoil;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use spoil::Spoilt;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ehe-gateway");
const FAULT: [i32; 1] = [1];

/// Credentials, a password, a broker's certificate, a capture, and the configuration that names them.
fn home() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    support::alliance(folder);
    fs::write(folder.join("password"), "secret").unwrap();
    assert!(Command::new("chmod").arg("600").arg(folder.join("password")).status().unwrap().success());
    fs::copy(folder.join("gateway/ca.crt"), folder.join("broker-ca.crt")).unwrap();
    fs::write(folder.join("capture.csv"), "time_local,hr\n2016-04-01T07:54:00,93\n").unwrap();
    let text = format!(
        "credentials_dir = 'gateway'\ndata_dir = 'data'\n[[mqtt]]\nport = {}\nusername = 'gw'\npassword_file = 'password'\n\
         [mqtt.tls]\nca_file = 'broker-ca.crt'\n[[mqtt.subscription]]\ntopic = 'wearables/+/hr'\ndevice = '{{1}}'\n\
         mapping = 'hr'\n[[replay]]\nname = 'capture'\nfile = 'capture.csv'\nformat = 'csv'\ndevice = 'watch'\nmapping = 'hr'\n{}",
        support::free_port(),
        support::COMMON
    );
    fs::write(folder.join("gateway.toml"), text).unwrap();
    let good = spoil::run(PROGRAM, &spoil::words("check --config gateway.toml"), folder);
    assert_eq!(good.code, Some(0), "{good:?}");
    dir
}

fn started(folder: &Path) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--config", "gateway.toml"]).current_dir(folder);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !folder.join("data/status.json").exists() {
        assert!(begun.elapsed() < support::WITHIN);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child
}

#[test]
fn every_file_may_be_missing_torn_huge_or_no_file_and_the_message_names_it() {
    let home = home();
    let folder = home.path();
    let each = |line: &str, file: &str, ways: &[Spoilt], fine: &dyn Fn(Spoilt) -> bool| {
        spoil::each(PROGRAM, line, folder, file, ways, &FAULT, fine);
    };
    let none = |_: Spoilt| false;
    let (any, secret) = (Spoilt::ANY, Spoilt::secret());
    let check = "check --config gateway.toml";
    each(check, "gateway/identity.json", &secret, &none);
    each(check, "gateway/channel.key", &secret, &none);
    for file in ["gateway/channel.crt", "gateway/ca.crt", "gateway/charter"] {
        each(check, file, &any, &none);
    }
    // What a password or a broker's certificate should be, the broker knows; what a capture holds, its own line says later.
    let content = |way: Spoilt| matches!(way, Spoilt::Torn(_) | Spoilt::Empty | Spoilt::Binary | Spoilt::Rubbish);
    each(check, "password", &secret, &content);
    each(check, "broker-ca.crt", &any, &content);
    each(check, "capture.csv", &any, &|way| matches!(way, Spoilt::Torn(_) | Spoilt::Rubbish | Spoilt::Large));
    // A configuration that is torn between two tables is a smaller one.
    let whole: Vec<Spoilt> = any.into_iter().filter(|way| !matches!(way, Spoilt::Torn(_))).collect();
    each(check, "gateway.toml", &whole, &none);

    // What the running gateway left.
    let mut child = started(folder);
    child.kill().unwrap();
    child.wait().unwrap();
    for line in ["status --config gateway.toml", "held --config gateway.toml"] {
        each(line, "data/status.json", &any, &none);
    }
    let run = "run --config gateway.toml";
    // What is not there is made; what is there and empty was something once.
    let present: Vec<Spoilt> = secret.iter().copied().filter(|way| *way != Spoilt::Missing).collect();
    each(run, "data/spool.key", &present, &none);
    let there = |way: &Spoilt| !matches!(way, Spoilt::Missing | Spoilt::Large);
    each(run, "data/spool.redb", &any.into_iter().filter(there).collect::<Vec<_>>(), &none);
}

#[test]
fn no_command_line_and_no_configuration_panics_or_commands_the_terminal() {
    let home = home();
    let lines =
        ["value", "check value", "check --config value", "run --config value", "held --config value", "status --value"];
    spoil::command_lines(PROGRAM, home.path(), &lines, &[1, 2]);
    let good = fs::read_to_string(home.path().join("gateway.toml")).unwrap();
    for (from, to) in [
        ("mapping = 'hr'", "mapping = \"\\u001b[31m\\u0007\""),
        ("'gateway'", "\"\\u001b]0;x\\u0007\\u202e\""),
        ("port = ", "port = -99999999999999999999"),
        ("port = ", "port = 1e999 #"),
        ("[[mqtt]]", &format!("{}[[mqtt]]", "x = [".repeat(50_000))),
        ("[[mqtt]]", &format!("{} = 1\n[[mqtt]]", "a.".repeat(50_000))),
        ("[[mqtt]]", &format!("{}{}\n[[mqtt]]", "x = ", "{a=".repeat(50_000))),
        ("'wearables/+/hr'", &format!("'{}'", "+/".repeat(100_000))),
        ("device = '{1}'", "device = '{99999999999999999999}'"),
    ] {
        fs::write(home.path().join("gateway.toml"), good.replacen(from, to, 1)).unwrap();
        let ended = spoil::run(PROGRAM, &spoil::words("check --config gateway.toml"), home.path());
        spoil::ended_well(&ended, &FAULT, &format!("{from} → {}", &to[..to.len().min(60)]));
    }
}

#[test]
fn a_wrong_file_named_as_the_configuration_is_not_printed() {
    let home = home();
    let secret = fs::read_to_string(home.path().join("gateway/identity.json")).unwrap().replace('\n', "");
    let seed = secret.split('"').nth(17).unwrap()[..16].to_owned();
    fs::write(home.path().join("one-line.json"), &secret).unwrap();
    fs::write(home.path().join("password.txt"), "correct horse battery").unwrap();
    for (file, hidden) in [("one-line.json", seed.as_str()), ("password.txt", "battery")] {
        let ended = spoil::run(PROGRAM, &spoil::words(&format!("check --config {file}")), home.path());
        spoil::ended_well(&ended, &FAULT, file);
        assert!(!ended.err.contains(hidden) && ended.err.contains("line 1"), "{}", ended.err);
    }
}

#[test]
fn it_leaves_no_core_file() {
    let home = home();
    let mut child = started(home.path());
    let limit = spoil::core_limit(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(limit[..2], ["0", "0"]);
}
