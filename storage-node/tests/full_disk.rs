//! The real program on a disk that has no room: it stops acknowledging, says so and lives; what it acknowledged is there later.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing
)]

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use certs::Role;
use ehe::control::Right;
use ehe::read::Part;
use ehe::refusal::Refusal;
use ehe::wire::{Request, Response, Submission};
use rustix::process::{Pid, Signal, kill_process};

#[path = "support/alliance.rs"]
mod alliance;
#[path = "support/people.rs"]
mod people;

use alliance::{Alliance, LIMIT, Link, SHARDS, now};
use people::{Patient, Sealer, Writer, request};

/// What the shell does that holds the node's disk from one life of the node to the next.
const SHELL: &str = r#"while read -r word file; do case $word in
run) wait; "$NODE" run --config "$CONFIG" & echo $!;;
free) rm "$DATA/ballast"; echo freed;;
part) wait; mkdir "$DATA/own" && mount -t tmpfs -o size=4m tmpfs "$DATA/own" && cp "$DATA/$file" "$DATA/own/" &&
  mount --bind "$DATA/own/$file" "$DATA/$file" && echo parted;;
grow) mount -o remount,size=64m "$DATA/own"; echo grown;;
esac; done"#;
/// More than this is never written on the way to a full disk.
const RUNS_MAX: usize = 400;

struct Shell {
    child: Child,
    words: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
    log: Arc<(Mutex<String>, Condvar)>,
    node: Option<Pid>,
}

impl Shell {
    /// A shell that first does `before`. `None`: it could not.
    fn start(alliance: &Alliance, program: &[&str], before: &str) -> Option<Self> {
        let config = alliance.config_file("127.0.0.1:0");
        // States are made durable often, so that the log stays small and the shards' files grow.
        let more = "[storage]\ndurable_after_ms = 10\ndurable_after_bytes = 1048576\n";
        let text = std::fs::read_to_string(&config).unwrap() + more;
        std::fs::write(&config, text).unwrap();
        std::fs::create_dir_all(alliance.path("data")).unwrap();
        let mut child = Command::new(program[0])
            .args(&program[1..])
            .args(["sh", "-c", &format!("{before}\necho begun\n{SHELL}")])
            .env("NODE", env!("CARGO_BIN_EXE_ehe-node"))
            .env("CONFIG", config)
            .env("DATA", alliance.path("data"))
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let log = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let (lines, writer) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *writer.0.lock().unwrap() += &(line + "\n");
                writer.1.notify_all();
            }
        });
        let (words, said) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
        let mut this = Self { child, words, said, log, node: None };
        (this.said.next()?.ok()? == "begun").then_some(this)
    }

    fn tell(&mut self, word: &str) -> String {
        writeln!(self.words, "{word}").unwrap();
        self.said.next().unwrap().unwrap()
    }

    /// Waits until the log says it, from a place on; returns that line.
    fn logged(&self, from: usize, text: &str) -> String {
        let log = self.log.0.lock().unwrap();
        let missing = |log: &mut String| !log[from..].lines().any(|line| line.contains(text));
        let (log, waited) = self.log.1.wait_timeout_while(log, LIMIT, missing).unwrap();
        assert!(!waited.timed_out(), "no {text:?} in\n{}", *log);
        log[from..].lines().find(|line| line.contains(text)).unwrap().to_owned()
    }

    fn run(&mut self) -> SocketAddr {
        let from = self.log.0.lock().unwrap().len();
        self.node = Pid::from_raw(self.tell("run").parse().unwrap());
        self.logged(from, "address=").split_once("address=").unwrap().1.trim().parse().unwrap()
    }

    fn kill(&mut self) {
        if let Some(node) = self.node.take() {
            kill_process(node, Signal::KILL).unwrap();
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Scene {
    alliance: Alliance,
    shell: Shell,
    owner: Link,
    gateway: Link,
    patient: Patient,
    writer: Writer,
    sealer: Sealer,
    acknowledged: Vec<(Submission, u64)>,
}

impl Scene {
    async fn new(alliance: Alliance, mut shell: Shell) -> Self {
        let address = shell.run();
        let (owner, gateway) = (alliance.person("patient", Role::Patient), alliance.person("gateway", Role::Gateway));
        let (owner, gateway) = (alliance.connect(&owner, address).await, alliance.connect(&gateway, address).await);
        let id = alliance.charter().alliance_id();
        let mut patient = Patient::new(&owner.identity, id, (0, SHARDS), now());
        let mut events = patient.opening(now());
        events.push(patient.grant(gateway.identity.public(), Right::Append, None, now()));
        let run = patient.writer.run(&events);
        assert!(matches!(owner.submit(run).await, Response::Submitted(_)));
        let sealer = Sealer::new(&gateway.identity, &patient, now());
        let writer = Writer::new(&gateway.identity, patient.room);
        let mut this = Self { alliance, shell, owner, gateway, patient, writer, sealer, acknowledged: Vec::new() };
        let wrap = this.sealer.wrap.clone();
        let run = this.writer.run(&[wrap]);
        assert!(this.acknowledged(run).await);
        this
    }

    /// One file on a small disk of its own: on a common one it is chance whether the log or the shard finds no room.
    async fn with_little_room_for(alliance: Alliance, file: &str) -> Self {
        let shell = namespace(&alliance, "");
        let mut this = Self::new(alliance, shell).await;
        this.shell.kill();
        assert_eq!(this.shell.tell(&format!("part {file}")), "parted");
        this.restart().await;
        this
    }

    /// False: it was refused as a fault of the node's storage, and for nothing else.
    async fn acknowledged(&mut self, run: Submission) -> bool {
        match self.gateway.submit(run.clone()).await {
            Response::Submitted(submitted) => {
                self.acknowledged.push((run, submitted.receipt.log_index));
                true
            }
            Response::Refused(Refusal::StorageFault) => false,
            other => panic!("{other:?}"),
        }
    }

    async fn append(&mut self) -> bool {
        let event = self.sealer.seal(&[7; 60_000]);
        // The strand moves only with what was acknowledged.
        let before = self.writer.strand.clone();
        let run = self.writer.run(&[event]);
        let done = self.acknowledged(run).await;
        if !done {
            self.writer.strand = before;
        }
        done
    }

    async fn faulted(&self) -> Vec<bool> {
        let Response::Status(status) = self.owner.ask(&Request::Status).await else { panic!() };
        status.shards.iter().map(|shard| shard.faulted).collect()
    }

    /// A room in the other shard.
    async fn elsewhere(&self) -> Response {
        let alliance = self.alliance.charter().alliance_id();
        let mut other = Patient::new(&self.owner.identity, alliance, (1, SHARDS), now());
        let events = other.opening(now());
        self.owner.submit(other.writer.run(&events)).await
    }

    async fn restart(&mut self) {
        self.shell.kill();
        let address = self.shell.run();
        let person = certs::Credentials::load(&self.alliance.path("gateway")).unwrap();
        self.gateway = self.alliance.connect(&person, address).await;
        let person = certs::Credentials::load(&self.alliance.path("patient")).unwrap();
        self.owner = self.alliance.connect(&person, address).await;
    }

    /// After a restart: whoever hands in again what was acknowledged hears that it is there, and where.
    async fn everything_is_there_after_a_restart(mut self) {
        self.restart().await;
        for (run, log_index) in &self.acknowledged {
            let Response::Known(known) = self.gateway.submit(run.clone()).await else { panic!("{log_index} is gone") };
            assert_eq!((&known[0].run, known[0].receipt.log_index), (&run.run, *log_index));
        }
        assert_eq!(self.faulted().await, [false, false]);
        self.writer = Writer::new(&self.gateway.identity, self.patient.room);
        assert!(self.append().await, "it goes on");
        let ledger = request(&self.owner.identity, self.patient.alliance, self.patient.room, Part::Ledger, now());
        let answers = self.owner.fetch(ledger.sign(&self.owner.identity)).await;
        assert!(matches!(answers.last(), Some(Response::Head(_))));
        let items = answers.iter().filter(|answer| matches!(answer, Response::Item(_))).count();
        assert!(items > self.acknowledged.len(), "{items} items, {} acknowledged", self.acknowledged.len());
    }
}

/// A shell that may mount: an ordinary user needs a user namespace for it, root need not have one.
fn namespace(alliance: &Alliance, before: &str) -> Shell {
    let ways: [&[&str]; 2] = [&["unshare", "-rm"], &["unshare", "-m"]];
    let shell = ways.iter().find_map(|way| Shell::start(alliance, way, before));
    shell.expect("a small file system: `unshare -rm mount -t tmpfs tmpfs /mnt` has to work, or be run as root")
}

/// Appends until there is no room. Returns what the log says of it.
async fn full(scene: &mut Scene) -> String {
    while scene.append().await {
        assert!(scene.acknowledged.len() < RUNS_MAX, "it never was full");
    }
    assert!(!scene.acknowledged.is_empty());
    assert!(!scene.append().await, "it does not try its luck");
    assert!(scene.faulted().await[0]);
    assert!(matches!(scene.owner.ask(&Request::Charter(1)).await, Response::Charter(_)));
    // New clients get in, and hear the same.
    let person = certs::Credentials::load(&scene.alliance.path("patient")).unwrap();
    let link = scene.alliance.connect(&person, scene.gateway.connection.remote_address()).await;
    assert!(matches!(link.ask(&Request::Status).await, Response::Status(_)));
    let line = scene.shell.logged(0, "group stopped for good");
    assert!(line.contains("check the disk and its free space, then restart the node"), "{line}");
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_grow_stops_acknowledgement_not_the_process_and_loses_nothing() {
    let alliance = Alliance::new();
    let mut scene = Scene::with_little_room_for(alliance, "raft.redb").await;
    let line = full(&mut scene).await;
    assert!(
        line.contains("the disk failed under the log of all groups") && line.contains("No space left on device"),
        "{line}"
    );
    assert_eq!(scene.faulted().await, [true, true]);
    assert_eq!(scene.elsewhere().await, Response::Refused(Refusal::StorageFault));
    // Room alone does not start it again: what the disk has is not known until it is read again.
    assert_eq!(scene.shell.tell("grow"), "grown");
    assert_eq!(scene.faulted().await, [true, true]);
    scene.everything_is_there_after_a_restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_cannot_grow_stops_alone_and_the_others_go_on() {
    let alliance = Alliance::new();
    let mut scene = Scene::with_little_room_for(alliance, "shard-0000.redb").await;
    while scene.append().await {
        assert!(scene.acknowledged.len() < RUNS_MAX, "it never was full");
    }
    let line = scene.shell.logged(0, "group stopped for good");
    assert!(line.contains("the state of group") && line.contains("No space left on device"), "{line}");
    assert_eq!(scene.faulted().await, [true, false]);
    assert!(matches!(scene.elsewhere().await, Response::Submitted(_)));
    assert_eq!(scene.shell.tell("grow"), "grown");
    scene.everything_is_there_after_a_restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_acknowledgement_and_with_room_and_a_restart_all_goes_on() {
    let alliance = Alliance::new();
    let mount =
        "mount -t tmpfs -o size=48m tmpfs \"$DATA\" && head -c 24000000 /dev/zero > \"$DATA/ballast\" || exit 1";
    let shell = namespace(&alliance, mount);
    let mut scene = Scene::new(alliance, shell).await;
    // The log or the shard's file, whichever has to grow first.
    let line = full(&mut scene).await;
    assert!(line.contains("No space left on device"), "{line}");
    scene.shell.tell("free");
    assert!(scene.faulted().await[0], "what the disk has is not known until it is read again");
    scene.everything_is_there_after_a_restart().await;
}
