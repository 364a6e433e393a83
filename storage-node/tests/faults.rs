//! What others can do to a node, and what happens to it: bad input, too much of it, kill -9.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use certs::{ChannelError, CloseCode, Credentials, Role};
use ehe::control::Right;
use ehe::leaf::Receipt;
use ehe::ledger::{Follower, Verified};
use ehe::limits;
use ehe::merkle;
use ehe::read::Part;
use ehe::refusal::Refusal;
use ehe::run::VerifiedRun;
use ehe::wire::{Request, Response};
use ehe_node::daemon::{Daemon, StartError};
use futures::FutureExt;

#[path = "support/alliance.rs"]
mod alliance;
#[path = "support/people.rs"]
mod people;

use alliance::{Alliance, LIMIT, Link, SHARDS, TestClock, now, receive};
use people::{Patient, Sealer, Writer, content, request};

/// The real program.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn run(alliance: &Alliance, listen: &str) -> Self {
        let config = alliance.config_file(listen);
        let mut child = Command::new(env!("CARGO_BIN_EXE_ehe-node"))
            .args(["run", "--config"])
            .arg(config)
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended without being ready:\n{seen}")).unwrap();
            seen += &line;
            seen.push('\n');
            if let Some((_, address)) = line.split_once("address=") {
                break address.trim().parse().unwrap();
            }
        };
        // Somebody has to read on, or the program blocks on its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// kill -9.
    fn kill(mut self) -> SocketAddr {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Appends run after run until the node no longer answers. The first run of a new room brings the wrap along.
async fn append_until_it_dies(
    link: &Link,
    mut writer: Writer,
    sealer: &Sealer,
    with_wrap: bool,
    mut accepted: impl FnMut(&Receipt, &VerifiedRun),
) {
    let mut wrap = with_wrap.then(|| sealer.wrap.clone());
    loop {
        let events: Vec<_> = wrap.take().into_iter().chain([sealer.seal(b"72 bpm")]).collect();
        let run = writer.run(&events);
        let verified = run.run.decode().unwrap().verify(&link.identity.public().sign).unwrap();
        let Ok(mut exchange) = link.connection.open().await else { return };
        if exchange.send(&Request::Submit(run).to_vec(), LIMIT).await.is_err() || exchange.finish().is_err() {
            return;
        }
        match exchange.recv(LIMIT).await {
            Ok(Some(frame)) => match Response::decode(&frame).unwrap() {
                Response::Submitted(submitted) => accepted(&submitted.receipt, &verified),
                // Another writer's run brought the wrap: nothing was appended, so the strand begins again.
                Response::Known(_) => writer = Writer::new(&link.identity, verified.run().room),
                other => panic!("{other:?}"),
            },
            _ => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_that_was_acknowledged_and_contradicts_no_checkpoint() {
    let alliance = Alliance::new();
    let charter = alliance.charter();
    let (owner, gateway) = (alliance.person("patient", Role::Patient), alliance.person("gateway", Role::Gateway));
    let mut program = Program::run(&alliance, "127.0.0.1:0");
    let link = alliance.connect(&owner, program.address).await;
    let mut patient = Patient::new(owner.identity(), charter.alliance_id(), (0, SHARDS), now());
    let mut events = patient.opening(now());
    events.push(patient.grant(gateway.identity().public(), Right::Append, None, now()));
    let run = patient.writer.run(&events);
    assert!(matches!(link.submit(run).await, Response::Submitted(_)));
    let sealer = Sealer::new(gateway.identity(), &patient, now());
    let (mut acknowledged, mut checkpoints) = (Vec::new(), Vec::new());
    for life in 0..5usize {
        // Several authors' programs submit at once, one run after the other each, until the node is killed under them.
        let link = alliance.connect(&gateway, program.address).await;
        let writers = (0..4).map(|_| Writer::new(gateway.identity(), patient.room));
        let (link, sealer, charter) = (&link, &sealer, &charter);
        let (count, enough) = (&AtomicUsize::new(0), &tokio::sync::Notify::new());
        let working = futures::future::join_all(writers.map(|writer| async move {
            let mut receipts = Vec::new();
            append_until_it_dies(link, writer, sealer, life == 0, |receipt, run| {
                receipts.push((receipt.verify(run, charter).unwrap(), receipt.log_index));
                if count.fetch_add(1, Ordering::SeqCst) + 1 == 10 + 7 * life {
                    enough.notify_one();
                }
            })
            .await;
            receipts
        }));
        let address = program.address;
        // In the middle of the work: some of it was acknowledged, the rest is under way.
        let killing = async {
            tokio::time::timeout(LIMIT, enough.notified()).await.expect("the node acknowledges");
            program.kill();
            link.connection.close(CloseCode::Done);
        };
        let (receipts, ()) = tokio::join!(working, killing);
        for (receipt, log_index) in receipts.into_iter().flatten() {
            acknowledged.push((receipt.run().run().ids.clone(), log_index));
            checkpoints.push(receipt.checkpoint().checkpoint().clone());
        }
        program = Program::run(&alliance, &address.to_string());
    }
    assert!(acknowledged.len() >= (0..5).map(|life| 10 + 7 * life).sum(), "{}", acknowledged.len());

    // The ledger, whole, has every acknowledged run at its place.
    let link = alliance.connect(&owner, program.address).await;
    let signed = request(owner.identity(), charter.alliance_id(), patient.room, Part::Ledger, now());
    let nonce = signed.nonce;
    let mut follower = Follower::new(patient.room, true);
    let (mut there, mut leaves) = (std::collections::BTreeSet::new(), Vec::new());
    for response in link.fetch(signed.sign(owner.identity())).await {
        match response {
            Response::Item(item) => {
                leaves.push(item.leaf.hash());
                if let Verified::Run { run, .. } = follower.take(item, charter.alliance_id()).unwrap() {
                    there.extend(run.ids);
                }
            }
            Response::Head(head) => drop(follower.confirm(&head, nonce, None, &charter).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    for (ids, _) in &acknowledged {
        assert!(ids.iter().all(|id| there.contains(id)));
    }
    // Every checkpoint that anybody ever got is a prefix of this log: one room alone in the shard is the whole log.
    let mut peaks = merkle::Peaks::default();
    let mut roots = vec![peaks.root()];
    for leaf in leaves {
        peaks.append(leaf, |_, _| Ok::<_, ()>(())).unwrap();
        roots.push(peaks.root());
    }
    for checkpoint in checkpoints {
        assert_eq!(checkpoint.root, roots[usize::try_from(checkpoint.size).unwrap()]);
    }
}

/// Asks the program to stop, and waits for how it ended.
async fn stopped(mut program: Program) -> ExitStatus {
    let pid = program.child.id().to_string();
    // The shell's own kill: a small machine has no other.
    assert!(Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || {
        let status = program.child.wait().unwrap();
        drop(program);
        status
    });
    tokio::time::timeout(LIMIT, ended).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_stops_in_order_when_it_is_asked_to() {
    let alliance = Alliance::new();
    let owner = alliance.person("patient", Role::Patient);
    let program = Program::run(&alliance, "127.0.0.1:0");
    let link = alliance.connect(&owner, program.address).await;
    assert!(matches!(link.ask(&Request::Status).await, Response::Status(_)));
    assert!(stopped(program).await.success());
    let check = Command::new(env!("CARGO_BIN_EXE_ehe-node"))
        .args(["check", "--config"])
        .arg(alliance.config_file("127.0.0.1:0"))
        .output()
        .unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.success() && said.contains("2 of 2 shards"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_stops_no_node_and_changes_no_exit_code() {
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let to_nobody = std::io::pipe().map(|(_, writer)| Stdio::from(writer)).unwrap();
    for log in [full(), to_nobody] {
        let alliance = Alliance::new();
        let owner = alliance.person("patient", Role::Patient);
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = alliance.config_file(&port.to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_ehe-node"));
        let command = command.args(["run", "--config"]).arg(&config).env("RUST_LOG", "trace");
        let child = command.stderr(log).spawn().unwrap();
        let mut program = Program { child, address: port };
        // Its packets are repeated until the node listens.
        let link = alliance.connect(&owner, program.address).await;
        assert!(matches!(link.ask(&Request::Status).await, Response::Status(_)));
        assert_eq!(program.child.try_wait().unwrap(), None);
        let ended = stopped(program).await;
        assert!(ended.success(), "{ended}");
    }
    let fails = ["status", "--config", "nowhere.toml"];
    let ended = Command::new(env!("CARGO_BIN_EXE_ehe-node")).args(fails).stderr(full()).status().unwrap();
    assert_eq!(ended.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_oversized_input_is_refused_and_what_waits_behind_it_goes_on() {
    let alliance = Alliance::new();
    let owner = alliance.person("patient", Role::Patient);
    let node = alliance.start().await;
    let link = alliance.connect(&owner, node.local_addr().unwrap()).await;
    for garbage in [&b""[..], b"\xff", b"\x82\x01", &[0u8; 300_000], b"\x81\x18\x07"] {
        let mut exchange = link.connection.open().await.unwrap();
        exchange.send(garbage, LIMIT).await.unwrap();
        exchange.finish().unwrap();
        let answer = receive(&mut exchange).await.unwrap();
        assert_eq!(answer, Some(Response::Refused(Refusal::FrameMalformed)), "{} bytes", garbage.len());
    }
    // A stream that ends in the middle of a frame, or without one; and one that stays open and says nothing.
    let silent = link.connection.open().await.unwrap();
    let mut empty = link.connection.open().await.unwrap();
    empty.finish().unwrap();
    // A well-formed submission that no reader could be sent.
    let patient = Patient::new(owner.identity(), alliance.charter().alliance_id(), (0, SHARDS), now());
    let mut large = patient.writer.linked(&[]).0;
    large.events = (0..20)
        .map(|_| ehe::event::Event { header: vec![1; 100], body: vec![0; limits::FRAME_MAX_BYTES / 20 - 120] })
        .collect();
    let request = Request::Submit(large);
    assert!(request.to_vec().len() > limits::SUBMISSION_MAX_BYTES, "{}", request.to_vec().len());
    assert_eq!(link.ask(&request).await, Response::Refused(Refusal::FrameMalformed));
    assert!(matches!(link.ask(&Request::Status).await, Response::Status(_)));
    drop(silent);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_grant_ends_a_stream_though_the_shard_is_quiet() {
    let alliance = Alliance::new();
    let charter = alliance.charter();
    let clock = TestClock::at(now());
    let node = Daemon::start(alliance.config(), clock.clock()).await.unwrap();
    let address = node.local_addr().unwrap();
    let (owner, guest) = (alliance.person("patient", Role::Patient), alliance.person("guest", Role::Clinician));
    let (link, reader) = (alliance.connect(&owner, address).await, alliance.connect(&guest, address).await);
    let mut patient = Patient::new(owner.identity(), charter.alliance_id(), (0, SHARDS), clock.now());
    let mut events = patient.opening(clock.now());
    let end = clock.now().plus_ms(60_000);
    events.push(patient.grant(guest.identity().public(), Right::Read, Some(end), clock.now()));
    let run = patient.writer.run(&events);
    assert!(matches!(link.submit(run).await, Response::Submitted(_)));
    let mut stream = reader.subscribe(content(guest.identity(), &patient, clock.now())).await;
    while !matches!(receive(&mut stream).await.unwrap(), Some(Response::Head(_))) {}
    clock.pass_ms(60_000);
    // Nothing happens in the shard; the lease alone ends it.
    assert_eq!(receive(&mut stream).await.unwrap(), Some(Response::Refused(Refusal::GrantExpired)));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_of_one_identity_do_not_keep_others_out() {
    let alliance = Alliance::new();
    let mut config = alliance.config();
    config.limits.connections_per_peer_max = 2;
    let node = Daemon::start(config, ehe_node::clock::Clock::system()).await.unwrap();
    let address = node.local_addr().unwrap();
    let (greedy, other) = (alliance.person("greedy", Role::Clinician), alliance.person("other", Role::Clinician));
    let first = alliance.connect(&greedy, address).await;
    let second = alliance.connect(&greedy, address).await;
    // It hears so while it connects or, if the welcome was faster, right after.
    let third = certs::Client::new(&greedy).unwrap();
    let told = match third.connect(&[address.to_string()], alliance.charter().nodes()[0].id, LIMIT).await {
        Ok(connection) => tokio::time::timeout(LIMIT, connection.closed()).await.unwrap(),
        Err(error) => error,
    };
    assert!(matches!(told, ChannelError::Busy | ChannelError::Closed(CloseCode::Busy)), "{told}");
    for link in [&first, &second, &alliance.connect(&other, address).await] {
        assert!(matches!(link.ask(&Request::Status).await, Response::Status(_)));
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_does_not_take_the_streams_of_all() {
    let alliance = Alliance::new();
    let mut config = alliance.config();
    (config.limits.streams_max, config.limits.streams_per_peer_max) = (4, 2);
    let node = Daemon::start(config, ehe_node::clock::Clock::system()).await.unwrap();
    let address = node.local_addr().unwrap();
    let people = ["greedy", "other"].map(|name| alliance.person(name, Role::Patient));
    let mut links = Vec::new();
    for person in &people {
        let link = alliance.connect(person, address).await;
        let mut patient = Patient::new(person.identity(), alliance.charter().alliance_id(), (0, SHARDS), now());
        let run = patient.opening(now());
        assert!(matches!(link.submit(patient.writer.run(&run)).await, Response::Submitted(_)));
        links.push((link, patient));
    }
    let mut streams = Vec::new();
    for ((link, patient), (expected, tries)) in links.iter().zip([(2, 6), (2, 2)]) {
        let mut open = 0;
        for _ in 0..tries {
            let mut stream = link.subscribe(content(&link.identity, patient, now())).await;
            match receive(&mut stream).await.unwrap() {
                Some(Response::Refused(Refusal::Overloaded)) => {}
                Some(Response::Item(_)) => {
                    open += 1;
                    streams.push(stream);
                }
                answer => panic!("{answer:?}"),
            }
        }
        assert_eq!(open, expected);
    }
    drop((streams, links));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_identity_has_half_sent_takes_no_memory_beyond_its_share_and_no_time_of_others() {
    let alliance = Alliance::new();
    let mut config = alliance.config();
    config.limits.work_bytes_per_peer_max = 1024 * 1024;
    config.limits.receive_window_bytes = 64 * 1024;
    config.limits.request_deadline_ms = 3_000;
    let node = Daemon::start(config, ehe_node::clock::Clock::system()).await.unwrap();
    let address = node.local_addr().unwrap();
    let (greedy, other) = (alliance.person("greedy", Role::Clinician), alliance.person("other", Role::Clinician));
    let (slow, quick) = (alliance.connect(&greedy, address).await, alliance.connect(&greedy, address).await);
    // One frame of full size that does not end: the transport takes its beginning, then it is left alone.
    let frame = vec![0; limits::FRAME_MAX_BYTES];
    let mut half = slow.connection.open().await.unwrap();
    assert!(half.send(&frame, LIMIT).now_or_never().is_none());
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let mut waiting = Box::pin(quick.ask(&Request::Status));
    let short = std::time::Duration::from_millis(500);
    assert!(tokio::time::timeout(short, &mut waiting).await.is_err(), "its share is used up");
    assert!(matches!(alliance.connect(&other, address).await.ask(&Request::Status).await, Response::Status(_)));
    assert!(tokio::time::timeout(short, &mut waiting).await.is_err(), "and still is");
    // The half frame's time is over.
    assert!(matches!(waiting.await, Response::Status(_)));
    drop(half);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_forgot_what_it_cosigned_or_is_another_ones_does_not_start() {
    let alliance = Alliance::new();
    let owner = alliance.person("patient", Role::Patient);
    let node = alliance.start().await;
    let link = alliance.connect(&owner, node.local_addr().unwrap()).await;
    let mut patient = Patient::new(owner.identity(), alliance.charter().alliance_id(), (0, SHARDS), now());
    let events = patient.opening(now());
    assert!(matches!(link.submit(patient.writer.run(&events)).await, Response::Submitted(_)));
    node.stop().await.unwrap();
    std::fs::remove_file(alliance.path("data/cosigned")).unwrap();
    let error = Daemon::start(alliance.config(), ehe_node::clock::Clock::system()).await.err().unwrap();
    assert!(matches!(error, StartError::Cosign(_)), "{error}");
    // Somebody else's credentials.
    let mut config = alliance.config();
    config.credentials_dir = alliance.path("patient");
    let error = Daemon::start(config, ehe_node::clock::Clock::system()).await.err().unwrap();
    assert!(matches!(error, StartError::NotANode(_)), "{error}");
    // Another alliance than the pinned one.
    let mut config = alliance.config();
    config.alliance_id = Some(ehe::id::AllianceId([1; 32]));
    let error = Daemon::start(config, ehe_node::clock::Clock::system()).await.err().unwrap();
    assert!(matches!(error, StartError::Credentials(_)), "{error}");
    // Another alliance's node with this one's data.
    let other = Alliance::new();
    let mut config = alliance.config();
    config.credentials_dir = other.path("node");
    let error = Daemon::start(config, ehe_node::clock::Clock::system()).await.err().unwrap();
    assert!(matches!(error, StartError::Store { .. }), "{error}");
    assert_eq!(Credentials::load(&alliance.path("node")).unwrap().alliance_id(), alliance.charter().alliance_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_extend_what_was_cosigned_confirms_nothing_more_and_other_shards_go_on() {
    use ehe_node::cosign::{CosignFile, Cosigned};
    let alliance = Alliance::new();
    let charter = alliance.charter();
    let owner = alliance.person("patient", Role::Patient);
    let node = alliance.start().await;
    let link = alliance.connect(&owner, node.local_addr().unwrap()).await;
    let mut patient = Patient::new(owner.identity(), charter.alliance_id(), (0, SHARDS), now());
    let events = patient.opening(now());
    assert!(matches!(link.submit(patient.writer.run(&events)).await, Response::Submitted(_)));
    node.stop().await.unwrap();

    // As if the shard's file and the log had been put back from an older copy: more was signed than is there.
    let path = alliance.path("data/cosigned");
    let mut file = CosignFile::open(&path, charter.alliance_id(), charter.nodes()[0].id, SHARDS, false).unwrap();
    let signed = file.newest(0).unwrap();
    assert_eq!(signed.size, 1);
    file.persist(&[(0, Cosigned { size: 2, root: ehe::id::Hash([9; 32]), ..signed })]).unwrap();
    drop(file);

    let node = alliance.start().await;
    let link = alliance.connect(&owner, node.local_addr().unwrap()).await;
    let guest = ehe::identity::Identity::generate(&mut people::rng());
    let grant = patient.grant(guest.public(), Right::Read, None, now());
    assert_eq!(link.submit(patient.writer.run(&[grant])).await, Response::Refused(Refusal::StorageFault));
    let Response::Status(status) = link.ask(&Request::Status).await else { panic!() };
    assert_eq!(status.shards.iter().map(|s| s.faulted).collect::<Vec<_>>(), [true, false]);
    let mut other = Patient::new(owner.identity(), charter.alliance_id(), (1, SHARDS), now());
    let events = other.opening(now());
    assert!(matches!(link.submit(other.writer.run(&events)).await, Response::Submitted(_)));
    node.stop().await.unwrap();
}
