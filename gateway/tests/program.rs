//! The built program, killed and stopped: `ehe-gateway` with a real Mosquitto, its nodes out of reach.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use ehe::time::UnixMs;
use ehe_gateway::spool::{self, Spool, SpoolLimits};
use support::{COMMON, Mosquitto, Wearable, until};

/// Of the replayed file.
const LINES: usize = 20_000;
const PROGRAM: &str = env!("CARGO_BIN_EXE_ehe-gateway");

struct Home {
    dir: tempfile::TempDir,
    config: PathBuf,
}

impl Home {
    fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let alliance = support::alliance(dir.path());
        let config = dir.path().join("gateway.toml");
        let text = format!(
            "credentials_dir = '{}'\ndata_dir = '{}'\n[window]\nwindow_ms = 100\n[uplink]\nbackoff_min_ms = 20\n\
             backoff_max_ms = 100\n{more}\n{COMMON}",
            alliance.gateway_dir.display(),
            dir.path().join("data").display(),
        );
        std::fs::write(&config, text).unwrap();
        Self { dir, config }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn run(&self, command: &str) -> Output {
        Command::new(PROGRAM).arg(command).arg("--config").arg(&self.config).output().unwrap()
    }

    fn start(&self) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        self.start_logging(log.into())
    }

    fn start_logging(&self, log: Stdio) -> Running {
        let child = Command::new(PROGRAM)
            .args(["run", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Running(child.unwrap())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The running program's numbers; none before it has written them.
    fn status(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(self.data().join("status.json")).ok()?).ok()
    }

    /// What lies in the stopped program's spool: how often each value, and its rows' devices.
    async fn census(&self) -> BTreeMap<String, usize> {
        let limits = SpoolLimits {
            max_bytes: 1 << 30,
            room_max_bytes: 1 << 30,
            held_max_bytes: 1 << 20,
            held_devices_max: 9,
            quarantine_max_bytes: 1 << 20,
            gather_ms: 0,
            unacknowledged_max: 100,
            retry_min_ms: 1,
            retry_max_ms: 1,
        };
        let clock = Arc::new(|| UnixMs(0));
        let keys = self.data().join("spool.key");
        let (spool, thread) = Spool::open(spool::file(&self.data(), 1 << 20), &keys, limits, clock, None).unwrap();
        let mut found = BTreeMap::new();
        for spooled in spool.windows().await.unwrap() {
            for reading in spool.take(spooled.window, usize::MAX).await.unwrap().readings {
                *found.entry(format!("{} {}", reading.device(), reading.value())).or_default() += 1;
            }
        }
        tokio::task::spawn_blocking(move || thread.stop()).await.unwrap();
        found
    }
}

struct Running(Child);

impl Running {
    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM; the exit status is success.
    fn stop(mut self) {
        support::terminate(self.0.id());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mqtt(port: u16) -> String {
    format!(
        "[[mqtt]]\nport = {port}\nclient_id = 'gw'\nbackoff_min_ms = 10\nbackoff_max_ms = 50\n[[mqtt.subscription]]\n\
         topic = 'wearables/+/hr'\ndevice = '{{1}}'\nmapping = 'hr'"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_stops_no_gateway() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (_, to_nobody) = std::io::pipe().unwrap();
    for log in [Stdio::from(full), to_nobody.into()] {
        let home = Home::new("[log]\nfilter = 'trace'");
        let gateway = home.start_logging(log);
        until("it runs", async || home.status().is_some_and(|status| status["pid"] == gateway.0.id())).await;
        gateway.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_the_gateway_neither_loses_nor_doubles_a_reading() {
    let broker_dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(broker_dir.path(), "allow_anonymous true");
    let home = Home::new(&mqtt(broker.port));
    let wearable = Wearable::connect(broker.port, "watch");
    // The session has to exist before anything is published for it.
    let gateway = home.start();
    until("connected", async || home.status().is_some_and(|s| s["counts"]["sources"]["mqtt"]["connected"] == true))
        .await;
    gateway.kill();
    let mut value = 0;
    for round in 0..12 {
        let gateway = home.start();
        // In turn: killed while it starts, with a queue to fetch; and in full work.
        if round % 2 == 1 {
            let connected = |s: serde_json::Value| {
                s["pid"] == gateway.0.id() && s["counts"]["sources"]["mqtt"]["connected"] == true
            };
            until("connected", async || home.status().is_some_and(connected)).await;
        }
        for _ in 0..round * 4 {
            wearable.publish("wearables/watch/hr", format!("{{\"hr\":{value}}}")).await;
            value += 1;
        }
        gateway.kill();
    }
    let gateway = home.start();
    // The broker sends in order: once this one lies in the spool, all others do.
    wearable.publish("wearables/last/hr", "{\"hr\":1}").await;
    let held = async || home.status().is_some_and(|status| status["held"][0]["device"] == "last");
    until("the last one is held", held).await;
    gateway.stop();
    let found = home.census().await;
    let wanted: BTreeMap<String, usize> = (0..value).map(|v| (format!("watch {v}"), 1)).collect();
    assert_eq!(found, wanted);
    assert!(!home.log().contains("\"hr\""), "no payload in the log");

    let listed = String::from_utf8(home.run("held").stdout).unwrap();
    assert!(listed.lines().any(|line| line.starts_with("last ")), "{listed}");
    let status: serde_json::Value = serde_json::from_slice(&home.run("status").stdout).unwrap();
    assert_eq!(status["spool"]["full"], false);
    let mode = |name: &str| std::fs::metadata(home.data().join(name)).unwrap().permissions().mode() & 0o777;
    for name in ["status.json", "spool.redb", "spool.key"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode(""), 0o700);

    // Assigned now: the held reading finds its owner, and no other is touched.
    let mut file = std::fs::OpenOptions::new().append(true).open(&home.config).unwrap();
    writeln!(file, "[[assignment]]\ndevice = 'last'\nroom = 'ff112233445566778899aabbccddeeff'").unwrap();
    let gateway = home.start();
    until("nothing is held", async || {
        home.status().is_some_and(|s| s["pid"] == gateway.0.id() && s["held"].as_array().is_some_and(Vec::is_empty))
    })
    .await;
    gateway.stop();
    let found = home.census().await;
    assert_eq!(found.get("last 1"), Some(&1));
    assert_eq!(found.len(), wanted.len() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_file_is_stored_once_however_often_the_gateway_is_killed() {
    let capture = tempfile::NamedTempFile::new().unwrap();
    let mut text = String::from("time_local,hr\n");
    for second in 0..LINES {
        text.push_str(&format!(
            "2016-04-01T{:02}:{:02}:{:02},{second}\n",
            second / 3600,
            second / 60 % 60,
            second % 60
        ));
    }
    std::fs::write(capture.path(), text).unwrap();
    let home = Home::new(&format!(
        "[[replay]]\nname = 'capture'\nfile = '{}'\nformat = 'csv'\ndevice = 'watch'\nmapping = 'hr'\nspeed = 0\n\
         time_column = 'time_local'",
        capture.path().display()
    ));
    let mut killed = 0;
    while !home.log().contains("at the file's end") && killed < 8 {
        let gateway = home.start();
        let data = home.data().join("spool.redb");
        let before = std::fs::metadata(&data).and_then(|m| m.modified()).ok();
        // Killed while it works: the database has changed since the start.
        until("it writes", async || {
            std::fs::metadata(&data).and_then(|m| m.modified()).ok() != before
                || home.log().contains("at the file's end")
        })
        .await;
        gateway.kill();
        killed += 1;
    }
    assert!(killed > 1, "the file is too short to be killed in it");
    let gateway = home.start();
    until("all stored", async || {
        home.log().contains("at the file's end")
            && home.status().is_some_and(|status| {
                let source = &status["counts"]["sources"]["capture"];
                status["pid"] == gateway.0.id() && source["messages"] == source["acknowledged"]
            })
    })
    .await;
    gateway.stop();
    // Once more: its place is kept, so there is nothing left to play.
    let ends = || home.log().matches("at the file's end").count();
    let before = ends();
    let gateway = home.start();
    until("at the end again", async || ends() > before).await;
    gateway.stop();
    let found = home.census().await;
    assert_eq!(found.len(), LINES);
    assert!(found.values().all(|count| *count == 1));
}

#[test]
fn check_judges_configuration_and_credentials_without_starting_anything() {
    let home = Home::new(&mqtt(1883));
    let good = home.run("check");
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(String::from_utf8_lossy(&good.stdout).contains("pin the alliance"));
    assert!(!home.data().exists());

    let refused = |change: &dyn Fn(&str) -> String, word: &str| {
        let text = std::fs::read_to_string(&home.config).unwrap();
        std::fs::write(&home.config, change(&text)).unwrap();
        let output = home.run("check");
        std::fs::write(&home.config, &text).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word), "{word}: {said}");
    };
    refused(&|text| text.replace("window_ms", "windw_ms"), "windw_ms");
    refused(&|text| format!("alliance = '{}'\n{text}", "00".repeat(32)), "alliance");
    refused(&|text| text.replace("mapping = 'hr'", "mapping = 'nope'"), "nope");
    refused(&|text| text.replace("/gateway'", "/elsewhere'"), "elsewhere");
    let charter = |of| home.dir.path().join(of).join("charter");
    std::fs::copy(charter("gateway"), charter("node")).unwrap();
    refused(&|text| text.replace("/gateway'", "/node'"), "a gateway needs its own");
    refused(&|text| text.replace("/data'", "/gateway.toml/data'"), "data directory");
    let latin = home.dir.path().join("latin.toml");
    std::fs::write(&latin, b"data_dir = '\xe4'").unwrap();
    for (path, word) in [(latin, "is not UTF-8"), (home.dir.path().join("nowhere.toml"), "--config")] {
        let output = Command::new(PROGRAM).arg("check").arg("--config").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word) && said.contains(path.to_str().unwrap()), "{said}");
        assert_eq!(said.matches(path.to_str().unwrap()).count(), 1, "said once: {said}");
    }
    let key = Path::new(&home.dir.path().join("gateway")).join("identity.json");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(&str::to_owned, "identity.json");
}

#[test]
fn a_second_gateway_on_the_same_data_is_refused() {
    let home = Home::new(&mqtt(support::free_port()));
    let first = home.start();
    let start = std::time::Instant::now();
    while home.status().is_none() {
        assert!(start.elapsed() < support::WITHIN);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let second = home.run("run");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && said.contains("another ehe-gateway runs on this data_dir") && !said.contains(".."),
        "{said}"
    );
    assert!(!said.contains("running.lock"), "the first one holds it, and runs: {said}");
    first.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_a_running_gateway_from_one_that_was_stopped_or_killed_and_from_one_that_writes_no_numbers() {
    let home = Home::new(&mqtt(support::free_port()));
    let shown = || {
        let output = home.run("status");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(status["spool"]["commits"].is_u64(), "the numbers are shown all the same: {status}");
        (output.status.success(), status, String::from_utf8(output.stderr).unwrap())
    };
    let gateway = home.start();
    until("it writes its numbers", async || home.status().is_some()).await;
    let (good, status, said) = shown();
    assert!(good && said.is_empty(), "{said}");
    assert_eq!(status["running"], true);
    assert!(status["age_ms"].as_u64().unwrap() < 10_000);

    let path = home.data().join("status.json");
    let old = |status: &serde_json::Value| {
        let mut old = status.clone();
        old["written_ms"] = (status["written_ms"].as_u64().unwrap() - 3_600_000).into();
        std::fs::write(&path, old.to_string()).unwrap();
    };
    // Its disk is full, say: it runs, and what is to be read of it is an hour old.
    std::fs::create_dir(path.with_extension("json.new")).unwrap();
    old(&status);
    until("a round without numbers", async || home.log().contains("status.json could not be written")).await;
    old(&status);
    let (good, status, said) = shown();
    assert!(!good && said.contains(" s ago") && said.contains("every 2 s"), "{said}");
    assert_eq!(status["running"], true);
    assert!(status["age_ms"].as_u64().unwrap() >= 3_600_000);
    // Another run, which has not written its numbers: those of the one before are young.
    gateway.kill();
    let written = || home.log().matches("status.json could not be written").count();
    let before = written();
    let gateway = home.start();
    until("a round without numbers", async || written() > before).await;
    let mut young = status.clone();
    young["written_ms"] = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap().into();
    std::fs::write(&path, young.to_string()).unwrap();
    let (good, status, said) = shown();
    assert!(!good && said.contains("of an earlier run"), "{said}");
    assert_eq!(status["running"], true);
    std::fs::remove_dir(path.with_extension("json.new")).unwrap();

    let mut running = gateway;
    for end in [Running::stop, Running::kill] {
        until("its own numbers", async || home.status().is_some_and(|s| s["pid"] == running.0.id())).await;
        end(running);
        let (good, status, said) = shown();
        assert!(!good && said.contains("does not run") && said.contains("s ago"), "{said}");
        assert_eq!(status["running"], false);
        let held = String::from_utf8(home.run("held").stdout).unwrap();
        assert!(held.starts_with("as of ") && held.contains("does not run"), "{held}");
        running = home.start();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_reading_what_is_shown_makes_no_command_fail() {
    let home = Home::new(&mqtt(support::free_port()));
    let gateway = home.start();
    until("it writes its numbers", async || home.status().is_some()).await;
    for command in ["status", "held", "check"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut program = Command::new(PROGRAM);
        let child = program.arg(command).arg("--config").arg(&home.config).stdout(writer).stderr(Stdio::piped());
        let output = child.spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{command}: {said}");
    }
    gateway.stop();
}

#[test]
fn decode_repeats_nothing_of_a_message_on_standard_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"schema\":\"omh:of-ann-lee:1.0\",\"input_text\":\"{}\"}\n").unwrap();
    let output = Command::new(PROGRAM).arg("decode").arg(file.path()).output().unwrap();
    let (answer, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(answer.contains("\"message\"") && answer.contains("of-ann-lee"), "{answer}");
    assert_eq!(said, "ehe-gateway: line 1: unsupported\n");
}

#[test]
fn decode_answers_line_by_line_and_survives_what_is_no_line() {
    let rows = "{\"id\":\"a\",\"topic\":\"home/OMG/BTtoMQTT/x\",\"input_text\":\"{\\\"type\\\":\\\"BODY\\\",\\\"bpm\\\":70}\"}\nrubbish\n";
    let mut child = Command::new(PROGRAM)
        .arg("decode")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(rows.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success());
    assert_eq!(said, "ehe-gateway: line 2: malformed\n");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("{\"id\":\"a\",\"readings\":[{\"vital\":\"heart_rate\",\"value\":70,"), "{text}");
    assert!(lines[1].starts_with("{\"id\":null,\"error\":{\"kind\":\"malformed\""), "{text}");
    // Each answer comes before the next line is there.
    let mut child = Command::new(PROGRAM)
        .arg("decode")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut ask, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for (row, line) in rows.lines().zip(&lines) {
        ask.write_all(format!("{row}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end(), *line);
    }
    drop(ask);
    assert!(child.wait().unwrap().success());
    // From a file too; one that is not there is said.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rows).unwrap();
    let output = Command::new(PROGRAM).arg("decode").arg(file.path()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    let output = Command::new(PROGRAM).args(["decode", "/nowhere"]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8(output.stderr).unwrap().contains("/nowhere"));
}
