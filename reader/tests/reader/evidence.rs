//! `ehe verify --evidence`, with nothing but the file; and what the reader does with nodes that contradict themselves.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use certs::{Credentials, Role};
use ehe::cbor;
use ehe::checkpoint::{Checkpoint, Signer};
use ehe::cose::{Domain, sign};
use ehe::evidence::{Contradiction, Evidence, Kind, judge};
use ehe::id::Hash;
use ehe::leaf::Receipt;
use ehe::merkle::{self, NodeAt, Nodes, Peaks};
use ehe::note::Note;
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use ehe::wire::{Head, HeadStatement, Response};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{Ran, World, free_port, liar, values};

const PEOPLE: &[(&str, Role)] = &[("patient", Role::Patient), ("fresh", Role::Patient)];

/// The shard whose logs contradict each other. A node that learns it of itself serves that shard no more.
const ACCUSED_IN: u16 = 1;

fn note(node: &Credentials, name: &str, size: u64, root: u8) -> String {
    note_under(node, name, (size, root), 1)
}

fn note_under(node: &Credentials, name: &str, (size, root): (u64, u8), charter_version: u32) -> String {
    let origin = node.charter().origin(ACCUSED_IN, 0);
    let says = Checkpoint { origin, size, root: Hash([root; 32]), charter_version };
    let signer = Signer { name, key: node.identity().sign_key() };
    says.sign(signer, UnixMs(1_790_000_000_000)).unwrap().to_string()
}

/// A file in a directory of its own, and the program run on it with no home, no credentials and no network.
async fn judged(dir: &std::path::Path, bytes: &[u8], more: &[&str]) -> Ran {
    let file = dir.join("evidence.cbor");
    std::fs::write(&file, bytes).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_ehe"));
    command.env_clear().arg("verify").arg("--evidence").arg(&file).args(more);
    let ran = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { exit: ran.status.code().unwrap(), out: text(ran.stdout), err: text(ran.stderr) }
}

#[tokio::test]
async fn a_file_of_evidence_is_judged_by_itself_in_plain_words() {
    let world = World::with_nodes(&["node", "second", "third"], PEOPLE);
    let (node, second) = (world.credentials("node"), world.credentials("second"));
    let dir = tempfile::tempdir().unwrap();
    let say = |root| note(&node, "node.example", 9, root);
    let evidence = Evidence::of(node.charter_chain(), &say(1), &say(2), None).unwrap().to_vec();
    let alliance = node.alliance_id().to_string();
    let id = node.peer().node().unwrap().to_string();

    let ran = judged(dir.path(), &evidence, &[]).await;
    assert_eq!((ran.exit, ran.err.as_str()), (0, ""), "{ran:?}");
    for words in [
        format!("PROVEN: node node.example ({id}) of Hospital signed two statements about the log of shard 1").as_str(),
        "of 9 leaves the log has the root 0101",
        "under charter 1",
        "compare this id with that of your alliance",
        alliance.as_str(),
    ] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    let ran = judged(dir.path(), &evidence, &["--alliance", &alliance, "--json"]).await;
    let [verdict] = &values(&ran.out)[..] else { panic!("{ran:?}") };
    assert_eq!((ran.exit, &verdict["finding"], &verdict["shard"]), (0, &json!("signed both"), &json!(1)));
    assert_eq!(verdict["accused"], json!([id]));
    assert_eq!((&verdict["culprits"][0]["member_name"], &verdict["kind"]), (&json!("Hospital"), &json!("two-roots")));

    // Somebody else's alliance, a pair that contradicts nothing, a file that was altered, none at all, a wrong command line.
    let ran = judged(dir.path(), &evidence, &["--alliance", &"00".repeat(32)]).await;
    assert!(ran.exit == 4 && ran.out.is_empty() && ran.err.contains("another alliance"), "{ran:?}");
    let two = |one: String, other: String| Evidence::of(node.charter_chain(), &one, &other, None).unwrap().to_vec();
    let same = judged(dir.path(), &two(say(1), say(1)), &[]).await;
    assert!(
        same.exit == 4 && same.err.contains("proves nothing") && same.err.contains("do not contradict"),
        "{same:?}"
    );
    let mut altered = evidence.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    assert_eq!(judged(dir.path(), &altered, &[]).await.exit, 4);
    let stranger = note(&world.credentials("patient"), "node.example", 9, 2);
    let forged = judged(dir.path(), &two(say(1), stranger), &[]).await;
    assert!(forged.exit == 4 && forged.err.contains("has signed its"), "{forged:?}");
    std::fs::remove_file(dir.path().join("evidence.cbor")).unwrap();
    let missing = world.ehe("patient", "verify --evidence /nowhere/evidence.cbor").await;
    assert_eq!(missing.exit, 1, "{missing:?}");
    assert_eq!(world.ehe("patient", "verify").await.exit, 2);
    assert_eq!(world.ehe("patient", &format!("verify --room {} --evidence x", "00".repeat(16))).await.exit, 2);
    assert_eq!(world.ehe("patient", &format!("verify --room {} --alliance {alliance}", "00".repeat(16))).await.exit, 2);

    // Where nobody signed both it says no more than that.
    let other = note(&second, "second.example", 9, 2);
    let sides = judged(dir.path(), &two(say(1), other), &[]).await;
    assert!(sides.exit == 0 && sides.out.contains("no node signed both"), "{sides:?}");
}

/// A tree in memory.
#[derive(Default)]
struct Tree(std::collections::BTreeMap<NodeAt, Hash>);

impl Nodes for Tree {
    type Error = core::convert::Infallible;
    fn node(&self, at: NodeAt) -> Result<Hash, Self::Error> {
        Ok(self.0[&at])
    }
}

/// A head of another log of the same size, which ends with the same leaf, signed by the same node.
fn forged(head: &Head, node: &Credentials) -> Head {
    larger(head, node, 0).0
}

/// The same of a log of `more` leaves more, and its tree.
fn larger(head: &Head, node: &Credentials, more: u64) -> (Head, Tree) {
    let says = Checkpoint::parse(&Note::parse(&head.last.checkpoint).unwrap()).unwrap();
    let says = Checkpoint { size: says.size + more, ..says };
    let (mut tree, mut peaks) = (Tree::default(), Peaks::default());
    for index in 0..says.size {
        let hash = if index == head.last.log_index { head.last.leaf.hash() } else { Hash([7; 32]) };
        let stored = peaks.append(hash, |at, hash| {
            tree.0.insert(at, hash);
            Ok::<_, core::convert::Infallible>(())
        });
        stored.unwrap();
    }
    let proof = merkle::inclusion_proof(&tree, head.last.log_index, says.size).unwrap();
    let other = Checkpoint { root: peaks.root(), ..says };
    let signer = Signer { name: "node.example", key: node.identity().sign_key() };
    let checkpoint = other.sign(signer, head.at).unwrap().to_string();
    let statement = HeadStatement {
        room: head.last.leaf.room,
        last_leaf: head.last.leaf.hash(),
        log_size: other.size,
        at: head.at,
        nonce: head.nonce,
    };
    let signature = sign(node.identity(), Domain::Head, cbor::to_vec(&statement));
    (Head { last: Receipt { proof, checkpoint, ..head.last.clone() }, signature, ..head.clone() }, tree)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_log_that_is_not_proven_to_go_on_from_the_one_that_was_seen_is_refused_and_one_that_does_not_is_evidence()
 {
    const HONEST: u8 = 0;
    const NO_PROOF: u8 = 1;
    const REWRITTEN: u8 = 2;
    let world = World::new(PEOPLE);
    let real = free_port();
    let daemon = world.start_at(real).await;
    let node = world.credentials("node");
    let (mode, log) = (Arc::new(AtomicU8::new(HONEST)), Arc::new(Mutex::new((0, Tree::default()))));
    let lie: liar::Lie = {
        let (node, mode) = (node.clone(), mode.clone());
        Arc::new(move |answer| match (mode.load(SeqCst), answer) {
            (HONEST, answer) => vec![answer],
            (_, Response::Head(head)) => {
                let (head, tree) = larger(&head, &node, 3);
                let says = Checkpoint::parse(&Note::parse(&head.last.checkpoint).unwrap()).unwrap();
                *log.lock().unwrap() = (says.size, tree);
                vec![Response::Head(head)]
            }
            // Of so large a log the real node knows nothing.
            (REWRITTEN, Response::Refused(Refusal::NoLeader)) => {
                let (size, tree) = &*log.lock().unwrap();
                let seen = size - 3;
                let (begins, proof) = (Peaks::load(tree, seen).unwrap(), merkle::consistency_proof(tree, seen, *size));
                vec![Response::Extends(begins.root(), proof.unwrap())]
            }
            (NO_PROOF, Response::Refused(Refusal::NoLeader)) => vec![Response::Extends(Hash([1; 32]), vec![])],
            (_, answer) => vec![answer],
        })
    };
    liar::start(&world, real, &["patient"], lie);
    let room = world.room().await;
    world.ok("patient", &format!("grant --room {room} --to {} --read all", world.public("fresh"))).await;
    let show = format!("room show --room {room}");
    world.ok("patient", &show).await;
    let dir = world.path("patient").join("evidence");

    mode.store(NO_PROOF, SeqCst);
    let ran = world.ehe("patient", &show).await;
    assert!(ran.exit == 4 && ran.err.contains("does not prove that its log"), "{ran:?}");
    assert!(!dir.exists(), "who shows nothing has proven nothing");

    // What is not believed is not remembered either.
    mode.store(REWRITTEN, SeqCst);
    let ran = world.ehe("patient", &show).await;
    assert!(ran.exit == 4 && ran.err.contains("kept as evidence"), "{ran:?}");
    let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let verdict = judge(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((verdict.kind, verdict.accused()), (Kind::Prefix, [node.peer().node().unwrap()].into()));

    mode.store(HONEST, SeqCst);
    world.ok("patient", &show).await;
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_shows_two_logs_of_one_size_leaves_a_file_that_proves_it() {
    let world = World::new(PEOPLE);
    let real = free_port();
    let daemon = world.start_at(real).await;
    let node = world.credentials("node");
    // What is asked for by itself is answered with another log; what ends a fetch, once that is asked for.
    let (forge, heads) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(0)));
    let lie: liar::Lie = {
        let (node, forge, heads) = (node.clone(), forge.clone(), heads.clone());
        Arc::new(move |answer| match answer {
            Response::Head(head) => {
                let mut heads = heads.lock().unwrap();
                *heads += 1;
                // The second head of a command is the one of `verify`'s round.
                let lies = *forge.lock().unwrap() && *heads % 2 == 0;
                vec![Response::Head(if lies { forged(&head, &node) } else { head })]
            }
            other => vec![other],
        })
    };
    liar::start(&world, real, &["patient"], lie);
    let room = world.room().await;
    // A log of one leaf has one root.
    world.ok("patient", &format!("grant --room {room} --to {} --read all", world.public("fresh"))).await;
    let honest = world.ok("patient", &format!("verify --room {room}")).await;
    assert!(honest.contains("heads"), "{honest}");
    let dir = world.path("patient").join("evidence");
    assert!(!dir.exists());

    // Two nodes, or one that answers twice, contradict each other in one command.
    *forge.lock().unwrap() = true;
    *heads.lock().unwrap() = 0;
    let ran = world.ehe("patient", &format!("verify --room {room}")).await;
    assert_eq!(ran.exit, 4, "{ran:?}");
    let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}: {ran:?}") };
    assert!(ran.out.contains(&file.display().to_string()), "{ran:?}");
    let verdict = judge(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(verdict.accused(), [node.peer().node().unwrap()].into());

    // And one command contradicts what an earlier one saw.
    std::fs::remove_dir_all(&dir).unwrap();
    *heads.lock().unwrap() = 1;
    let ran = world.ehe("patient", &format!("room show --room {room}")).await;
    assert!(ran.exit == 4 && ran.err.contains("kept as evidence"), "{ran:?}");
    let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    assert_eq!(judge(&std::fs::read(&file).unwrap()).unwrap().accused(), [node.peer().node().unwrap()].into());
    let told = world.ok("patient", &format!("verify --evidence {}", file.display())).await;
    assert!(told.starts_with("PROVEN: node node.example"), "{told}");
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_nodes_keep_is_fetched_judged_and_kept() {
    let world = World::new(PEOPLE);
    let node = world.credentials("node");
    let say = |root| note(&node, "node.example", 9, root);
    let name_of = |bytes: &[u8]| format!("{}.cbor", Hash(Sha256::digest(bytes).into()));
    let contradiction = Contradiction::of(&say(1), &say(2), None).unwrap();
    let kept = world.path("data").join("evidence");
    std::fs::create_dir_all(&kept).unwrap();
    let bytes = contradiction.to_vec();
    std::fs::write(kept.join(name_of(&bytes)), &bytes).unwrap();
    let evidence = contradiction.with(node.charter_chain()).unwrap().to_vec();
    let name = name_of(&evidence);
    let daemon = world.start().await;
    let status = world.ok("patient", "status").await;
    assert!(status.contains("keeps EVIDENCE that nodes signed"), "{status}");
    let fetched = world.ok("patient", "evidence").await;
    assert!(fetched.contains("PROVEN: node node.example") && fetched.contains(&name), "{fetched}");
    assert_eq!(std::fs::read(world.path("patient").join("evidence").join(&name)).unwrap(), evidence);
    let [line] = &values(&world.ok("patient", "--json evidence").await)[..] else { panic!() };
    assert_eq!(line["evidence"]["finding"], "signed both");
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn charters_that_fit_no_answer_reach_a_reader_and_so_does_evidence_under_the_last_of_them() {
    let world = World::with_members(64, &["node"], PEOPLE);
    let fresh_ms: Vec<u32> = (0..13).map(|n| 60_000 + n).collect();
    let chain = world.charters(&fresh_ms);
    assert!(chain.encode().len() > ehe::limits::FRAME_MAX_BYTES);
    world.under("node", &chain);
    let node = world.credentials("node");
    let notes = [1, 2].map(|root| note_under(&node, "node.example", (9, root), 13));
    let contradiction = Contradiction::of(&notes[0], &notes[1], None).unwrap().to_vec();
    let kept = world.path("data").join("evidence");
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::write(kept.join(format!("{}.cbor", Hash(Sha256::digest(&contradiction).into()))), &contradiction).unwrap();
    let daemon = world.start().await;
    let version = |who: &str| world.credentials(who).charter().version();

    // Its checkpoints name the later charters one after the other, as they come into effect.
    let room = world.room_in(ACCUSED_IN + 1).await;
    let following = async {
        while version("patient") < 13 {
            world.ok("patient", &format!("room show --room {room}")).await;
        }
    };
    tokio::time::timeout(crate::support::LIMIT, following).await.expect("the newest charter is followed");

    assert_eq!(version("fresh"), 1);
    let fetched = world.ok("fresh", "evidence").await;
    assert!(fetched.contains("PROVEN: node node.example"), "{fetched}");
    assert_eq!(version("fresh"), 13);
    let files: Vec<_> = std::fs::read_dir(world.path("fresh").join("evidence")).unwrap().collect();
    let [Ok(file)] = &files[..] else { panic!("{files:?}") };
    let bytes = std::fs::read(file.path()).unwrap();
    assert!(bytes.len() > chain.encode().len());
    let ran = judged(&world.path("fresh"), &bytes, &["--alliance", &node.alliance_id().to_string()]).await;
    assert!(ran.exit == 0 && ran.out.contains("under charter 13"), "{ran:?}");
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_calls_evidence_and_no_charter_bears_out_is_its_fault() {
    let world = World::new(PEOPLE);
    let (real, node) = (free_port(), world.credentials("node"));
    let daemon = world.start_at(real).await;
    let of = |one: String, other: String| Contradiction::of(&one, &other, None).unwrap().to_vec();
    let say = |root, charter| note_under(&node, "node.example", (9, root), charter);
    let stranger = world.credentials("patient");
    let by_stranger = note_under(&stranger, "node.example", (9, 2), 1);
    let with_charters = Evidence::of(node.charter_chain(), &say(1, 1), &say(2, 1), None).unwrap().to_vec();
    let cases = [
        ("called evidence", vec![0x81; 100]),
        ("do not contradict", of(say(1, 1), say(1, 1))),
        ("has signed its", of(say(1, 1), by_stranger)),
        ("no node shows charter 7", of(say(1, 1), say(2, 7))),
        ("called evidence", with_charters),
    ];
    let shown = Arc::new(Mutex::new(Vec::new()));
    let lie: liar::Lie = {
        let shown = shown.clone();
        Arc::new(move |answer| match answer {
            Response::Evidence(..) => vec![Response::Evidence(1, shown.lock().unwrap().clone())],
            answer => vec![answer],
        })
    };
    liar::start(&world, real, &["patient"], lie);
    for (why, bytes) in cases {
        *shown.lock().unwrap() = bytes;
        let ran = world.ehe("patient", "evidence").await;
        assert!(ran.out.contains(why), "{why}: {ran:?}");
        assert!(!world.path("patient").join("evidence").exists(), "{why}");
    }
    daemon.stop().await.unwrap();
}
