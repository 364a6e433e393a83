//! Backups of nodes that serve, and alliances that lost every disk and begin again from one: real daemons, real disks.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use certs::{Connection, Credentials, Role};
use ehe::checkpoint::VerifiedCheckpoint;
use ehe::event::CheckedEvent;
use ehe::id::Hash;
use ehe::identity::Identity;
use ehe::leaf::Receipt;
use ehe::read::Part;
use ehe::refusal::Refusal;
use ehe::restoration::{SignedRestoration, moved};
use ehe::wire::{Request, Response, Submission};
use ehe_node::backup::{BackupError, Chain, Saved, restore, save};
use ehe_node::daemon::{Daemon, StartError, placed};

#[path = "support/hospitals.rs"]
mod hospitals;
#[path = "support/people.rs"]
mod people;

use hospitals::{Hospitals, ask};
use people::{Patient, Sealer};

pub const LIMIT: Duration = Duration::from_secs(30);
const FAST: u64 = 1 << 40;

fn now() -> ehe::time::UnixMs {
    ehe_node::clock::Clock::system().now()
}

/// A patient's room, and who is connected to the nodes in the patient's name.
struct Home {
    person: Credentials,
    patient: Patient,
    sealer: Sealer,
    links: Vec<(certs::Client, Connection)>,
}

impl Home {
    /// A room, with the wrap of the key that everything in it is sealed under.
    async fn new(hospitals: &Hospitals, nodes: usize) -> Self {
        let person = hospitals.person("patient", Role::Patient);
        let patient = Patient::new(person.identity(), hospitals.charter().alliance_id(), (0, 1), now());
        let sealer = Sealer::new(person.identity(), &patient, now());
        let mut home = Self { person, patient, sealer, links: Vec::new() };
        home.connect(hospitals, nodes).await;
        let opening = home.patient.opening(now());
        home.write(hospitals, &opening).await;
        let wrap = home.sealer.wrap.clone();
        home.write(hospitals, &[wrap]).await;
        home
    }

    async fn connect(&mut self, hospitals: &Hospitals, nodes: usize) {
        self.links.clear();
        for n in 0..nodes {
            self.links.push(hospitals.connect(&self.person, n).await);
        }
    }

    fn events(&self, count: usize) -> Vec<CheckedEvent> {
        (0..count).map(|n| self.sealer.seal(format!("reading {n}").as_bytes())).collect()
    }

    /// Submits until a receipt comes, whoever leads.
    async fn submit(&self, hospitals: &Hospitals, submission: &Submission) -> Result<Receipt, Response> {
        let charter = hospitals.charter();
        let request = Request::Submit(submission.clone());
        let asking = async {
            for (_, connection) in self.links.iter().cycle() {
                match ask(connection, &request).await {
                    Response::Submitted(submitted) => {
                        VerifiedCheckpoint::verify(&submitted.receipt.checkpoint, 0, &charter).unwrap();
                        return Ok(submitted.receipt);
                    }
                    Response::AskNode(_) | Response::Refused(Refusal::NoLeader | Refusal::Overloaded) => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    other => return Err(other),
                }
            }
            unreachable!()
        };
        tokio::time::timeout(LIMIT, asking).await.expect("an answer")
    }

    async fn write(&mut self, hospitals: &Hospitals, events: &[CheckedEvent]) -> Receipt {
        let run = self.patient.writer.run(events);
        self.submit(hospitals, &run).await.expect("a receipt")
    }

    /// A read of content: it stands in the audit.
    async fn read(&self, hospitals: &Hospitals) -> Vec<Response> {
        let asking = async {
            for (_, connection) in self.links.iter().cycle() {
                let request = people::content(self.person.identity(), &self.patient, now());
                let all = fetch(connection, self.person.identity(), request).await;
                match all.last() {
                    Some(Response::Head(_)) => return all,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
            unreachable!()
        };
        let _ = hospitals;
        tokio::time::timeout(LIMIT, asking).await.expect("a head")
    }

    /// All entries of the room, as the patient sees them, and the origin of the log.
    async fn ledger(&self) -> (Vec<Response>, String) {
        let asking = async {
            for (_, connection) in self.links.iter().cycle() {
                let (me, patient) = (self.person.identity(), &self.patient);
                let request = people::request(me, patient.alliance, patient.room, Part::Ledger, now()).sign(me);
                let mut all = fetch(connection, me, request).await;
                if let Some(Response::Head(head)) = all.pop() {
                    return (all, head.last.checkpoint.lines().next().unwrap().to_owned());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            unreachable!()
        };
        tokio::time::timeout(LIMIT, asking).await.expect("a head")
    }
}

async fn fetch(connection: &Connection, me: &Identity, request: ehe::read::SignedRequest) -> Vec<Response> {
    let mut exchange = connection.open().await.unwrap();
    exchange.send(&Request::Fetch(request, me.public().clone()).to_vec(), LIMIT).await.unwrap();
    exchange.finish().unwrap();
    let mut all = Vec::new();
    while let Some(frame) = exchange.recv(LIMIT).await.unwrap() {
        all.push(Response::decode(&frame).unwrap());
    }
    all
}

fn accesses(entries: &[Response]) -> usize {
    entries.iter().filter(|entry| matches!(entry, Response::Item(item) if item.access.is_some())).count()
}

async fn backed_up(hospitals: &Hospitals, n: usize, to: &Path, since: Option<&Path>) -> Result<Saved, BackupError> {
    let (data_dir, to) = (hospitals.config(n).data_dir, to.to_owned());
    let since = since.map(Path::to_owned);
    tokio::task::spawn_blocking(move || save(&data_dir, &to, since.as_deref(), FAST)).await.unwrap()
}

/// What `ehe-node restore --propose` writes, signed by so many members.
fn signed(hospitals: &Hospitals, backup: &[PathBuf], members: usize) -> Vec<SignedRestoration> {
    let credentials = hospitals.credentials(0);
    let chain = Chain::open(backup, Some(credentials.alliance_id())).unwrap();
    let charters = credentials.charter_chain().verify_each(credentials.alliance_id()).unwrap();
    let mut records = restore::propose(&chain, &charters, &[], now()).unwrap();
    for record in &mut records {
        hospitals.members()[..members].iter().for_each(|member| record.sign(member).unwrap());
    }
    records
}

fn restored(
    hospitals: &Hospitals,
    n: usize,
    backup: &[PathBuf],
    records: &[SignedRestoration],
) -> Result<u64, BackupError> {
    let config = hospitals.config(n);
    let placed = placed(&config, hospitals.credentials(n)).unwrap();
    let chain = Chain::open(backup, Some(placed.credentials.alliance_id()))?;
    Ok(restore::restore(&config, &placed, (&chain, records))?[0].leaves)
}

async fn stopped(hospitals: &Hospitals, daemons: Vec<Daemon>) -> Vec<UdpSocket> {
    for daemon in daemons {
        daemon.stop().await.unwrap();
    }
    hospitals.keep_ports().await
}

/// Every disk of the alliance is gone.
fn lose_every_disk(hospitals: &Hospitals, nodes: usize) {
    (0..nodes).for_each(|n| std::fs::remove_dir_all(hospitals.config(n).data_dir).unwrap());
}

async fn records_of(connection: &Connection, from: u32) -> Vec<SignedRestoration> {
    match ask(connection, &Request::Restorations(0, from)).await {
        Response::Restorations(records) => records.iter().map(|r| SignedRestoration::decode(r).unwrap()).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alliance_that_lost_every_disk_goes_on_from_a_backup_and_says_what_was_kept_and_lost() {
    let hospitals = Hospitals::new(3, "");
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(hospitals.start(n).await);
    }
    let mut home = Home::new(&hospitals, 3).await;
    let kept = home.events(40);
    home.write(&hospitals, &kept[..20]).await;
    home.read(&hospitals).await;

    // A full backup, more readings, then what is new since; from another node of the group it would do as well.
    let (full, more) = (hospitals.path("full.backup"), hospitals.path("more.backup"));
    let first = backed_up(&hospitals, 0, &full, None).await.unwrap();
    home.write(&hospitals, &kept[20..]).await;
    let second = backed_up(&hospitals, 0, &more, Some(&full)).await.unwrap();
    assert!(second.leaves[0].1 > first.leaves[0].1 && second.new_chunks <= second.chunks, "{first:?} {second:?}");
    assert!(matches!(backed_up(&hospitals, 0, &full, None).await, Err(BackupError::Exists(_))));
    let backup = [full.clone(), more.clone()];
    let held = Chain::open(&backup, None).unwrap();
    let statement = held.shards[&0].statement.clone();
    assert_eq!((statement.leaves, statement.incarnation), (second.leaves[0].1, 0));

    // What comes later is lost, with its receipts.
    let lost = home.events(7);
    let receipt = home.write(&hospitals, &lost).await;
    let remembered =
        VerifiedCheckpoint::verify(&receipt.checkpoint, 0, &hospitals.charter()).unwrap().checkpoint().seen();
    assert!(remembered.size > statement.leaves);
    let (before, origin) = home.ledger().await;
    assert!(origin.ends_with("/0/0"), "{origin}");
    let ports = stopped(&hospitals, nodes).await;
    lose_every_disk(&hospitals, 3);

    // Two nodes begin from the backup. The third has none, is started empty, and gets the state from them.
    let records = signed(&hospitals, &backup, 2);
    for n in 0..2 {
        assert_eq!(restored(&hospitals, n, &backup, &records).unwrap(), statement.leaves);
    }
    drop(ports);
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(hospitals.start(n).await);
    }
    home.connect(&hospitals, 3).await;

    // What was kept is there, entry by entry, the audit too; what was lost is not, and can be sent again.
    let (entries, origin) = home.ledger().await;
    assert!(origin.ends_with("/0/1"), "{origin}");
    assert_eq!(accesses(&before), 1);
    assert_eq!(entries, before[..entries.len()], "the beginning of what was there");
    assert_eq!((accesses(&entries), before.len() - entries.len()), (1, 1), "one run is lost");
    let again = home.patient.writer.linked(&kept[20..]).0;
    assert!(matches!(home.submit(&hospitals, &again).await, Err(Response::Known(_) | Response::Refused(_))));
    let mut writer = people::Writer::new(home.person.identity(), home.patient.room);
    let receipt = home.submit(&hospitals, &writer.run(&lost)).await.expect("a receipt in the restored log");
    assert_eq!(receipt.log_index, statement.leaves);
    home.patient.writer = writer;

    // Every node serves the record, which leads from what was remembered to the log that there is.
    let charters = hospitals.credentials(0).charter_chain().verify_each(hospitals.charter().alliance_id()).unwrap();
    let shown = VerifiedCheckpoint::verify(&receipt.checkpoint, 0, &hospitals.charter()).unwrap().checkpoint().seen();
    for (_, connection) in &home.links {
        // The node that began without the state gets it as a snapshot.
        let told = async {
            loop {
                let told = records_of(connection, 0).await;
                if !told.is_empty() {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let told = tokio::time::timeout(LIMIT, told).await.expect("the record, at every node");
        assert!(told == records);
        let verified: Vec<_> = told.iter().map(|record| record.verify(0, &charters).unwrap()).collect();
        let moved = moved(&verified, 0, (&remembered, 1)).unwrap();
        moved.shows(&shown).unwrap();
        assert_eq!((moved.lost[0].from, moved.lost[0].until), (statement.leaves, remembered.size));
        assert!(records_of(connection, 1).await.is_empty());
    }

    // And once more: the records follow each other.
    let third = hospitals.path("third.backup");
    backed_up(&hospitals, 2, &third, None).await.unwrap();
    let ports = stopped(&hospitals, nodes).await;
    lose_every_disk(&hospitals, 3);
    let backup = [third];
    let second = signed(&hospitals, &backup, 3);
    for n in 0..3 {
        restored(&hospitals, n, &backup, &second).unwrap();
    }
    drop(ports);
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(hospitals.start(n).await);
    }
    home.connect(&hospitals, 3).await;
    let (entries, origin) = home.ledger().await;
    assert!(origin.ends_with("/0/2"), "{origin}");
    assert_eq!(entries.len(), before.len(), "what was sent again is kept now");
    let told = records_of(&home.links[2].1, 0).await;
    assert_eq!(told, [records[0].clone(), second[0].clone()]);
    let verified: Vec<_> = told.iter().map(|record| record.verify(0, &charters).unwrap()).collect();
    assert_eq!(moved(&verified, 0, (&remembered, 1)).unwrap().lost.len(), 1);
    let more = home.events(1);
    home.write(&hospitals, &more).await;
    drop(stopped(&hospitals, nodes).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_takes_only_what_a_majority_signed_for_and_only_a_bare_disk() {
    let hospitals = Hospitals::new(3, "");
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(hospitals.start(n).await);
    }
    let mut home = Home::new(&hospitals, 3).await;
    let events = home.events(3);
    home.write(&hospitals, &events).await;
    let (full, more) = (hospitals.path("full.backup"), hospitals.path("more.backup"));
    backed_up(&hospitals, 1, &full, None).await.unwrap();
    let events = home.events(3);
    home.write(&hospitals, &events).await;
    backed_up(&hospitals, 1, &more, Some(&full)).await.unwrap();
    drop(stopped(&hospitals, nodes).await);
    let (old, new) = (vec![full.clone()], vec![full.clone(), more.clone()]);
    let records = signed(&hospitals, &new, 2);

    // Where a state lies, nothing is restored: it may be newer.
    assert!(matches!(restored(&hospitals, 0, &new, &records), Err(BackupError::NotBare { .. })));
    lose_every_disk(&hospitals, 3);
    let few = signed(&hospitals, &new, 1);
    assert!(matches!(restored(&hospitals, 0, &new, &few), Err(BackupError::Restoration(_))));
    assert!(matches!(restored(&hospitals, 0, &old, &records), Err(BackupError::NoRecord { .. })));
    assert!(matches!(restored(&hospitals, 0, &new, &[]), Err(BackupError::NoRecord { .. })));
    // Another state of as many leaves is not the one that was signed for.
    let mut other = records[0].read().unwrap();
    other.state = Hash([7; 32]);
    let mut other = SignedRestoration::unsigned(&other);
    hospitals.members().iter().for_each(|member| other.sign(member).unwrap());
    assert!(matches!(restored(&hospitals, 0, &new, &[other]), Err(BackupError::NoRecord { .. })));
    for not in [vec![more.clone()], vec![more.clone(), full.clone()], vec![full.clone(), full.clone()], vec![]] {
        assert!(matches!(Chain::open(&not, None), Err(BackupError::NotAChain { .. })), "{not:?}");
    }
    assert!(!hospitals.config(0).data_dir.exists(), "nothing was begun");

    // Interrupted, it leaves a directory on which no node starts, and is begun again.
    let data_dir = hospitals.config(0).data_dir;
    std::fs::create_dir_all(data_dir.join(restore::STAGING).join("shard-0000.redb")).unwrap();
    let start = Daemon::start(hospitals.config(0), ehe_node::clock::Clock::system()).await;
    assert!(matches!(start.err(), Some(StartError::Restoring(_))));
    restored(&hospitals, 0, &new, &records).unwrap();
    assert!(!restore::is_unfinished(&data_dir));
    assert!(matches!(restored(&hospitals, 0, &new, &records), Err(BackupError::NotBare { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_backup_is_found_out_wherever_it_was_altered_and_no_key_is_in_one() {
    let hospitals = Hospitals::new(1, "");
    let node = hospitals.start(0).await;
    let mut home = Home::new(&hospitals, 1).await;
    let events = home.events(5);
    home.write(&hospitals, &events).await;
    let path = hospitals.path("one.backup");
    let saved = backed_up(&hospitals, 0, &path, None).await.unwrap();
    drop(stopped(&hospitals, vec![node]).await);
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!((file.mode() & 0o777, file.len()), (0o600, saved.bytes));
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".partial")), "{left:?}");

    let bytes = std::fs::read(&path).unwrap();
    Chain::open(std::slice::from_ref(&path), None).unwrap();
    let altered = hospitals.path("altered.backup");
    let step = (bytes.len() / 150).max(1);
    for at in (0..bytes.len()).step_by(step).chain(bytes.len() - 40..bytes.len()) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        std::fs::write(&altered, &bad).unwrap();
        assert!(Chain::open(std::slice::from_ref(&altered), None).is_err(), "byte {at} of {}", bytes.len());
        std::fs::write(&altered, &bytes[..at]).unwrap();
        assert!(Chain::open(std::slice::from_ref(&altered), None).is_err(), "cut at {at}");
    }
    // Also by who makes the end fit again: the rows are not those that the node signed.
    let row = bytes.windows(9).position(|w| w == b"rooms\0\0\0\0").unwrap_or(bytes.len() / 2);
    let mut bad = bytes[..bytes.len() - 37].to_vec();
    bad[row] ^= 1;
    let end = {
        use sha2::Digest;
        sha2::Sha256::digest(&bad)
    };
    bad.extend_from_slice(&bytes[bytes.len() - 37..bytes.len() - 32]);
    bad.extend_from_slice(&end);
    std::fs::write(&altered, &bad).unwrap();
    assert!(Chain::open(std::slice::from_ref(&altered), None).is_err(), "made to fit again");

    let member = &hospitals.members()[0];
    let node = hospitals.credentials(0);
    for identity in [member, node.identity(), home.person.identity()] {
        for secret in [identity.sign_key().to_seed().to_vec(), identity.kem_secret().seed().as_slice().to_vec()] {
            assert!(!bytes.windows(32).any(|w| w == secret.as_slice()), "a key is in the backup");
        }
    }
    assert!(!bytes.windows(9).any(|w| w == b"reading 0" || w == b"reading 4"), "a reading is in the backup");
}
