//! A whole demo run with planted secrets: a reading's value, a name, a purpose, every secret key, every password. Afterwards they
//! are searched for in every file, log, metric and captured packet; and no program may leave a core dump.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hil_tests::canary::{Canary, files_with};
use hil_tests::journal::{Entry, Journal};
use hil_tests::lab::process::{Programs, run};
use hil_tests::lab::wire::Capture;
use hil_tests::publish::Publisher;
use hil_tests::scenario::{self, Options, Scene};
use hil_tests::view::View;
use hil_tests::wearable::{Sending, rfc3339};
use tokio::sync::watch;

const NAME: &str = "Dr. Ottilie Zwirbelstein-Kanarienvogel";
const PURPOSE: &str = "verdächtige Herzrhythmusstörung bei Nacht";
/// Digits that no model makes, as a heart rate and as a weight.
const VALUE: &str = "97.187346528301";
const HELD_VALUE: &str = "83.904127365518";
const POISON: &str = "Quittenmarmeladenbrot-4711";
const END: &[u8] = b"the test is over";
const BEACON: &[u8] = b"beacon: the capture sees this";

/// Publishes as the first patient's strap: a planted value, then bytes that no mapping understands.
async fn plant(scene: &Scene) -> usize {
    let journal = Journal::create(&scene.out.join("planted.jsonl")).unwrap();
    let (strap, password) = scene.wearables.iter().find(|(w, _)| w.device == "strap-1").unwrap();
    // The strap itself connects a moment later and takes its session over, as a restarted wearable would.
    let mut publisher = Publisher::connect(&strap.device, password, &scene.broker, journal).unwrap();
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let reading = Entry {
        patient: scene.patients[strap.patient].room.clone(),
        device: strap.device.clone(),
        vital: "heart_rate".into(),
        value: VALUE.into(),
        unit: "/min".into(),
        time: rfc3339(now_ms),
    };
    let payload = format!(r#"{{"hr":{VALUE},"contact":true,"ts":{now_ms}}}"#);
    let send =
        |payload: String, readings: Vec<Entry>| Sending { topic: "wearables/strap-1/hr".into(), payload, readings };
    publisher.send(send(payload, vec![reading])).await.unwrap();
    for poison in [
        format!(r#"{{"hr":"{POISON}","ts":{now_ms}}}"#),
        format!(r#"{{"{POISON}":{HELD_VALUE}"#),
        format!(r#"{{"hr":{HELD_VALUE},"ts":"{POISON}"}}"#),
        POISON.repeat(100),
    ] {
        publisher.send(send(poison, Vec::new())).await.unwrap();
    }
    publisher.finish(Duration::from_secs(10)).await.unwrap()
}

/// What a key's file says once its passphrase is taken off: of a copy, outside of what is searched.
fn unprotected(out: &Path, path: &Path) -> String {
    let desk = tempfile::tempdir().unwrap();
    let copy = desk.path().join(path.file_name().unwrap());
    std::fs::copy(path, &copy).unwrap();
    let mut command = std::process::Command::new(Programs::built().unwrap().path("ehe-certs"));
    match copy.ends_with("ca.key") {
        true => command.args(["passphrase", "--authority"]).arg(desk.path()),
        false => command.arg("passphrase").arg(&copy),
    };
    command.arg("--no-passphrase").arg("--passphrase-file").arg(out.join("lab/passphrase"));
    assert!(command.output().unwrap().status.success(), "{}", path.display());
    std::fs::read_to_string(copy).unwrap()
}

/// The secret seeds, keys and passwords of the run, each with the one file that may hold it; none may where a passphrase protects
/// what a person holds.
fn secrets(out: &Path) -> Vec<(Canary, Vec<PathBuf>)> {
    let mut secrets = Vec::new();
    for who in ["patient1", "patient2", "clinician", "stranger", "gateway1", "node1", "hospital"] {
        let path = out.join("lab").join(who).join("identity.json");
        let text = unprotected(out, &path);
        let identity: serde_json::Value = serde_json::from_str(&text).unwrap();
        let own = if ["gateway1", "node1"].contains(&who) { vec![path] } else { Vec::new() };
        for seed in ["sign_seed", "kem_seed"] {
            let seed: [u8; 32] = ehe::id::unhex(identity[seed].as_str().unwrap()).unwrap();
            let canary = Canary::bytes("a seed of an identity", &seed);
            assert!(canary.is_in(text.as_bytes()));
            secrets.push((canary, own.clone()));
        }
    }
    for key in ["lab/gateway1/channel.key", "lab/node1/channel.key", "lab/alliance/ca.key", "broker/broker.key"] {
        let path = out.join(key);
        // A line in the middle of the PEM: the DER around it is the same in every key.
        let (pem, own) = match key {
            "lab/alliance/ca.key" => (unprotected(out, &path), Vec::new()),
            _ => (std::fs::read_to_string(&path).unwrap(), vec![path]),
        };
        let line = pem.lines().nth(2).unwrap();
        secrets.push((Canary::text("a private key", line), own));
    }
    let passphrase = out.join("lab/passphrase");
    secrets.push((Canary::text("a passphrase", &std::fs::read_to_string(&passphrase).unwrap()), vec![passphrase]));
    let spool = out.join("lab/gateway1-data/spool.key");
    let password = out.join("lab/gateway1-mqtt-password");
    secrets
        .push((Canary::text("the gateway's password", &std::fs::read_to_string(&password).unwrap()), vec![password]));
    let key = std::fs::read(&spool).unwrap();
    secrets.push((Canary::bytes("the spool's key", &key[key.len() - 32..]), vec![spool]));
    secrets
}

/// What the service manager hears until somebody says the end.
fn listen(manager: &UnixDatagram) -> Vec<u8> {
    let (mut messages, mut message) = (Vec::new(), vec![0; 65536]);
    loop {
        let length = manager.recv(&mut message).unwrap();
        if &message[..length] == END {
            return messages;
        }
        messages.extend_from_slice(&message[..length]);
    }
}

fn no_core_dumps(program: &str, id: u32) {
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let figures: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(figures, ["0", "0"], "{program} may leave its memory in a core dump: {core}");
}

#[tokio::test]
async fn nothing_planted_in_a_whole_demo_run_is_in_any_file_log_metric_or_packet() {
    let folder = tempfile::tempdir().unwrap();
    let (out, temporary) = (folder.path().join("demo"), folder.path().join("tmp"));
    std::fs::create_dir(&temporary).unwrap();
    let told = folder.path().join("notify");
    let manager = UnixDatagram::bind(&told).unwrap();
    let listening = std::thread::spawn(move || listen(&manager));
    let options = Options {
        window_ms: 2_000,
        // Everything that every program can say.
        environment: vec![
            ("RUST_LOG", "trace".into()),
            ("EHE_LOG", "trace".into()),
            ("TMPDIR", temporary.to_string_lossy().into_owned()),
            ("NOTIFY_SOCKET", told.to_string_lossy().into_owned()),
        ],
        gateway_log: Some("trace"),
        ..Options::new(&out, 23)
    };
    let mut scene = Scene::set_up(&options, View::new([], false)).await.unwrap();
    let node_port = scene.alliance.node_address().rsplit(':').next().unwrap().to_owned();
    let capture = Capture::start(folder.path(), scene.broker.port(), &node_port).await.unwrap();

    // Names and purposes, as a patient writes them.
    let room = scene.patients[0].room.clone();
    let stranger = scene.alliance.path("stranger").join("identity.pub").to_string_lossy().into_owned();
    let grant = ["grant", "--room", &room, "--to", &stranger, "--read", "all", "--name", NAME, "--purpose", PURPOSE];
    scene.alliance.ehe_json("patient1", &grant).await.unwrap();
    scene.alliance.ehe_json("patient2", &["room", "create", "--name", NAME]).await.unwrap();

    let planted = plant(&scene).await;
    assert_eq!(planted, 1);
    let (stop, stopped) = watch::channel(false);
    let mut publishing = scene.publish(&stopped).unwrap();
    for (program, id) in [("ehe-node", scene.node.daemon.id()), ("ehe-gateway", scene.gateway.daemon.id())] {
        no_core_dumps(program, id.unwrap());
    }
    // The outage and the kill of every demo round, so that spool and replay are searched too.
    scene.node.daemon.kill().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    scene.gateway.daemon.kill().await.unwrap();
    let spooled = (files_with(&scene.gateway.data(), &Canary::digits("value", VALUE).unwrap())).unwrap();
    assert_eq!(spooled, Vec::<PathBuf>::new(), "the spool of a killed gateway");
    scene.gateway.daemon.start().unwrap();
    scene.node.daemon.start().unwrap();
    stop.send_replace(true);
    let published = scenario::silence(&mut publishing).await.unwrap();
    scenario::settle(&mut scene, published + planted).await.unwrap();

    for log in ["gateway1.log", "node1.log"] {
        let log = std::fs::read_to_string(scene.alliance.path(log)).unwrap();
        assert!(log.contains("TRACE"), "the logs hold all that the programs can say");
    }
    // The invited read it, who is not invited does not: only what they print may hold the value.
    let read = scene.read_all("clinician").await.unwrap();
    assert!(read.iter().any(|line| line.contains(VALUE)), "the planted value went all the way");
    scene.revoke_clinician().await.unwrap();
    assert_eq!(scene.refused_all("clinician").await.unwrap(), 3);
    scene.audited().await.unwrap();
    let config = scene.alliance.path("gateway1.toml").to_string_lossy().into_owned();
    for told in ["status", "held", "check"] {
        let said = run(
            {
                let mut command = scene.alliance.programs().command("ehe-gateway");
                command.args([told, "--config", &config]);
                command
            },
            Duration::from_secs(20),
        );
        let said = said.await.unwrap();
        std::fs::write(folder.path().join(format!("said-{told}")), said.stdout + &said.stderr).unwrap();
    }
    for command in ["status", "rooms", "audit"] {
        let arguments = if command == "audit" { vec![command, "--room", &room] } else { vec![command] };
        let said = scene.alliance.ehe("patient1", &arguments).await.unwrap();
        std::fs::write(folder.path().join(format!("logged-by-ehe-{command}")), said.stderr).unwrap();
    }
    scene.gateway.daemon.stop().await.unwrap();
    scene.node.daemon.stop().await.unwrap();

    // What the capture shows at its end was sent last, so everything before it is there too.
    let beacon = [BEACON, b" on UDP"].concat();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&beacon, scene.alliance.node_address()).unwrap();
    std::io::Write::write_all(&mut TcpStream::connect(("127.0.0.1", scene.broker.port())).unwrap(), BEACON).unwrap();
    capture.finish(&[&beacon, BEACON]).await.unwrap();
    UnixDatagram::unbound().unwrap().send_to(END, &told).unwrap();
    let messages = listening.join().unwrap();
    assert!(messages.windows(7).any(|w| w == b"READY=1"), "the daemons spoke to the service manager");
    std::fs::write(folder.path().join("notified"), messages).unwrap();

    let broker = out.join("broker/store");
    let journals = ["published.jsonl", "planted.jsonl"].map(|name| out.join(name));
    let value = Canary::digits("the value", VALUE).unwrap();
    // The search finds what is there: in what the device itself wrote down.
    assert!(files_with(&out, &value).unwrap().contains(&journals[1]));
    let mut canaries = vec![
        (value, vec![broker.clone(), journals[0].clone(), journals[1].clone()]),
        (Canary::digits("a value that was not understood", HELD_VALUE).unwrap(), vec![broker.clone()]),
        (Canary::text("bytes that were not understood", POISON), vec![broker]),
        (Canary::text("a name", NAME), Vec::new()),
        (Canary::text("a purpose", PURPOSE), Vec::new()),
    ];
    canaries.extend(secrets(&out));
    let mut leaks = Vec::new();
    for (canary, may_hold) in &canaries {
        for found in files_with(folder.path(), canary).unwrap() {
            if !may_hold.iter().any(|may| found.starts_with(may)) {
                leaks.push(format!("{} in {}", canary.name, found.strip_prefix(folder.path()).unwrap().display()));
            }
        }
        if may_hold.len() == 1 && may_hold[0].is_file() {
            let own = std::fs::read(&may_hold[0]).unwrap();
            assert!(canary.is_in(&own), "{} is searched for in a shape that its own file has", canary.name);
        }
    }
    assert_eq!(leaks, Vec::<String>::new());
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "files left in TMPDIR");
}
