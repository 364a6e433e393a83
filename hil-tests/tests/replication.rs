//! Three hospitals hold every room together: real programs, real faults.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ehe::charter::VerifiedCharter;
use ehe::id::{NodeId, Nonce};
use ehe::ledger::verify_head;
use ehe::refusal::{Fault, Refusal};
use ehe::wire::{NodeStatus, Request, Response};
use hil_tests::bench::crowd::{BODY_MIN_BYTES, Crowd, Prepared, Proven, Size, Verifier, Writer};
use hil_tests::lab::alliance::Founding;
use hil_tests::lab::line::ask;
use hil_tests::lab::node::Node;
use hil_tests::lab::process::{Programs, until};
use hil_tests::scenario::{self, Options, Scene};
use hil_tests::view::View;
use hil_tests::watching::Watching;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(60);
/// One node gets so long before the next one is asked.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Writers are less patient: what they measure is the nodes.
const WRITERS_ATTEMPT: Duration = Duration::from_millis(300);
const FOUNDING: Founding = Founding { members: 3, shards: Some(2) };
const LAN: &str = "[consensus]\ntiming = \"lan\"\n";

/// A run that a receipt was verified for.
struct Acked {
    sent: Prepared,
    proven: Proven,
    begun: Instant,
    at: Instant,
}

/// Writers at work, one run after the other each.
struct Writing {
    stop: Arc<AtomicBool>,
    acked: Vec<Arc<Mutex<Vec<Acked>>>>,
    tasks: Vec<JoinHandle<Writer>>,
}

impl Writing {
    fn start(writers: Vec<Writer>, charter: &VerifiedCharter) -> Self {
        let (stop, mut acked, mut tasks) = (Arc::new(AtomicBool::new(false)), Vec::new(), Vec::new());
        for mut writer in writers {
            let (own, stop, charter) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&stop), charter.clone());
            acked.push(Arc::clone(&own));
            tasks.push(tokio::spawn(async move {
                let mut verifier = Verifier::new(&charter);
                while !stop.load(Ordering::SeqCst) {
                    let (sent, begun) = (writer.prepare(1, 1).unwrap().remove(0), Instant::now());
                    let (line, shard) = (writer.gateway().line.clone(), writer.gateway().shard);
                    let (_, answer) = line.ask(shard, &sent.frame, WRITERS_ATTEMPT, 2 * LIMIT).await.unwrap();
                    let proven = verifier.verify(&sent, &answer).unwrap();
                    own.lock().unwrap().push(Acked { sent, proven, begun, at: Instant::now() });
                }
                writer
            }));
        }
        Self { stop, acked, tasks }
    }

    fn counts(&self) -> Vec<usize> {
        self.acked.iter().map(|acked| acked.lock().unwrap().len()).collect()
    }

    /// Each of them has so many more receipts.
    async fn more(&self, what: &str, count: usize) {
        let before = self.counts();
        let so = || self.counts().iter().zip(&before).all(|(now, before)| *now >= before + count);
        until(what, LIMIT, || async { Ok(so().then_some(())) }).await.unwrap();
    }

    async fn end(self) -> (Vec<Acked>, Vec<Writer>) {
        self.stop.store(true, Ordering::SeqCst);
        let mut writers = Vec::new();
        for task in self.tasks {
            writers.push(task.await.unwrap());
        }
        let acked = self.acked.into_iter().flat_map(|acked| std::mem::take(&mut *acked.lock().unwrap()));
        (acked.collect(), writers)
    }
}

/// The node of this id, by its place in the charter: nodes there stand as they were founded.
fn node_of(crowd: &mut Crowd, id: NodeId) -> &mut Node {
    let at = crowd.charter.nodes().iter().position(|node| node.id == id).unwrap();
    &mut crowd.nodes[at]
}

async fn status(crowd: &Crowd, node: NodeId) -> Option<NodeStatus> {
    let line = &crowd.gateways[0].line;
    match Response::decode(&line.ask_node(node, &Request::Status.to_vec(), ATTEMPT).await.ok()?).unwrap() {
        Response::Status(status) => Some(status),
        other => panic!("{other:?}"),
    }
}

/// Waits until all of these nodes name one leader of a shard, one of them.
async fn leader(crowd: &Crowd, shard: u16, among: &[NodeId]) -> NodeId {
    until("one leader", LIMIT, || async {
        let mut named = BTreeSet::new();
        for node in among {
            let status = status(crowd, *node).await;
            named.insert(status.and_then(|status| status.shards[usize::from(shard)].leader));
        }
        Ok(named.first().copied().flatten().filter(|leader| named.len() == 1 && among.contains(leader)))
    })
    .await
    .unwrap()
}

/// The node's signed word on where a gateway's room ends; `Err` if it gives none.
async fn head(crowd: &Crowd, gateway: usize, node: NodeId) -> Result<u64, String> {
    let gateway = &crowd.gateways[gateway];
    let nonce = Nonce(std::array::from_fn(|n| u8::try_from(n).unwrap()));
    let request = Request::Head(gateway.room, nonce).to_vec();
    let answer = gateway.line.ask_node(node, &request, LIMIT).await.map_err(|why| format!("{why:#}"))?;
    match Response::decode(&answer).unwrap() {
        Response::Head(head) => {
            verify_head(gateway.room, &head, nonce, &crowd.charter).unwrap();
            Ok(head.last.leaf.index + 1)
        }
        Response::Refused(why) => Err(why.to_string()),
        other => panic!("{other:?}"),
    }
}

fn members(charter: &VerifiedCharter, nodes: &[NodeId]) -> usize {
    nodes.iter().map(|node| charter.node(*node).unwrap().member).collect::<BTreeSet<_>>().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hospitals_lose_nothing_acknowledged_whichever_node_is_killed_and_confirm_nothing_alone() {
    let folder = tempfile::tempdir().unwrap();
    let view = View::new([], false);
    let say = |text: String| view.say(text);
    let size = Size { founding: FOUNDING, gateways: 4, body_bytes: BODY_MIN_BYTES, node: LAN };
    let mut crowd = Crowd::found(&Programs::built().unwrap(), &folder.path().join("lab"), size, &say).await.unwrap();
    let charter = crowd.charter.clone();
    let all: Vec<NodeId> = charter.nodes().iter().map(|node| node.id).collect();
    let without = |gone: &[NodeId]| all.iter().copied().filter(|node| !gone.contains(node)).collect::<Vec<_>>();
    let writers = crowd.writers(4).await.unwrap();
    let shard = crowd.gateways[0].shard;

    // Whoever does not lead names who does, for writing; where a room ends, each says in its own name.
    let first = leader(&crowd, shard, &all).await;
    let mut spare = crowd.writers(1).await.unwrap().remove(0);
    let sent = spare.prepare(1, 1).unwrap().remove(0);
    for node in without(&[first]) {
        let answer = crowd.gateways[0].line.ask_node(node, &sent.frame, LIMIT).await.unwrap();
        assert_eq!(Response::decode(&answer).unwrap(), Response::AskNode(first));
    }
    for node in &all {
        assert!(head(&crowd, 0, *node).await.unwrap() >= 2, "room, epoch, grant in one run, and wraps");
    }

    // Receipts need the cosignatures of two members.
    let writing = Writing::start(writers, &charter);
    writing.more("receipts of three nodes", 10).await;

    // A leader that slept, and does not know yet that another one was elected, denies no room that was made meanwhile.
    let asleep = leader(&crowd, shard, &all).await;
    let connection = crowd.gateways[0].line.connection(asleep, LIMIT).await.unwrap();
    node_of(&mut crowd, asleep).daemon.pause().await.unwrap();
    let others = without(&[asleep]);
    let awake = leader(&crowd, shard, &others).await;
    let made = crowd.another_room(0, shard, awake).await.unwrap();
    let mut writer = crowd.writer(made.clone()).await.unwrap();
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let (connection, frame) = (connection.clone(), writer.prepare(1, 1).unwrap().remove(0).frame);
            tokio::spawn(async move { ask(&connection, &frame, LIMIT).await.unwrap() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    node_of(&mut crowd, asleep).daemon.resume().await.unwrap();
    let mut said = BTreeMap::new();
    for asked in asked {
        let answer = Response::decode(&asked.await.unwrap()).unwrap();
        let here = match &answer {
            Response::AskNode(_) => "another node leads",
            Response::Refused(why) if why.fault() == Fault::Node => "not now",
            // Runs that overtook each other on their way.
            Response::Refused(Refusal::StrandGap) | Response::Submitted(_) => "ordered",
            other => panic!("the node that slept said {other:?}"),
        };
        *said.entry(here).or_insert(0) += 1;
    }
    say(format!("a leader that slept said: {said:?}"));

    // The leader goes without a word.
    let first = leader(&crowd, shard, &all).await;
    let killed = Instant::now();
    node_of(&mut crowd, first).daemon.kill().await.unwrap();
    let before = writing.counts();
    writing.more("receipts of two nodes", 10).await;
    let gap = writing.acked.iter().zip(before).map(|(acked, before)| {
        let acked = acked.lock().unwrap();
        acked[before + 1].at.saturating_duration_since(killed)
    });
    let gap = gap.max().unwrap();
    say(format!("the leader was killed: after {} ms everybody writes again", gap.as_millis()));
    let second = leader(&crowd, shard, &without(&[first])).await;

    // It comes back, catches up, and cosigns: with another one gone, nothing stands without it.
    node_of(&mut crowd, first).daemon.start().unwrap();
    until("the node that was killed shows a head", LIMIT, || async { Ok(head(&crowd, 0, first).await.ok()) })
        .await
        .unwrap();
    let third = without(&[first, second])[0];
    node_of(&mut crowd, third).daemon.kill().await.unwrap();
    let since = Instant::now();
    writing.more("receipts that the node that was killed cosigned", 10).await;
    for acked in &writing.acked {
        // What was sent before may have been cosigned by the third.
        for acked in acked.lock().unwrap().iter().filter(|acked| acked.begun > since) {
            assert!(acked.proven.cosigners.contains(&first), "{:?}", acked.proven);
        }
    }

    // Alone, a node confirms nothing, says so, and goes on when it is not alone any more.
    let now = leader(&crowd, shard, &without(&[third])).await;
    let other = without(&[third, now])[0];
    node_of(&mut crowd, other).daemon.kill().await.unwrap();
    tokio::time::sleep(ATTEMPT).await;
    let alone = writing.counts();
    let asked = Instant::now();
    let answer = crowd.gateways[0].line.ask_node(now, &sent.frame, LIMIT).await.unwrap();
    match Response::decode(&answer).unwrap() {
        Response::Refused(why) => {
            assert_eq!(why.fault(), Fault::Node, "{why}");
            say(format!("a node alone said after {} ms: {why}", asked.elapsed().as_millis()));
        }
        other => panic!("a node alone answered {other:?}"),
    }
    assert_eq!(head(&crowd, 0, now).await, Err(Refusal::NoLeader.to_string()), "it does not know what others have");
    assert_eq!(writing.counts(), alone, "nothing is confirmed by one of three");
    node_of(&mut crowd, other).daemon.start().unwrap();
    node_of(&mut crowd, third).daemon.start().unwrap();
    writing.more("receipts of three nodes again", 10).await;

    // Everything that was acknowledged is there, where it was said to be, and once.
    let (acked, _writers) = writing.end().await;
    say(format!("{} runs were acknowledged", acked.len()));
    let mut places: BTreeMap<(u16, u64), usize> = BTreeMap::new();
    let mut verifier = Verifier::new(&charter);
    for acked in &acked {
        assert!(members(&charter, &acked.proven.cosigners) >= 2, "{:?}", acked.proven);
        let shard = acked.sent.room.shard(charter.shard_count());
        *places.entry((shard, acked.proven.log_index)).or_default() += 1;
        let line = &crowd.gateways.iter().find(|gateway| gateway.room == acked.sent.room).unwrap().line;
        let (_, answer) = line.ask(shard, &acked.sent.frame, LIMIT, LIMIT).await.unwrap();
        assert!(matches!(Response::decode(&answer).unwrap(), Response::Known(_)));
        assert_eq!(verifier.verify(&acked.sent, &answer).unwrap().log_index, acked.proven.log_index);
    }
    assert!(places.values().all(|count| *count == 1));

    // Whoever is invited can check it all, and hears from all members that nothing newer is withheld.
    for node in &mut crowd.nodes {
        node.answers("patient").await.unwrap();
    }
    for gateway in &crowd.gateways {
        let room = gateway.room.to_string();
        let verified = until("every node shows its head", LIMIT, || async {
            let checked = crowd.alliance.ehe("patient", &["verify", "--room", &room]).await?.success("ehe verify")?;
            Ok(checked.stdout.contains("3 nodes, of 3 members").then_some(checked.stdout))
        });
        verified.await.unwrap();
    }
    for node in &mut crowd.nodes {
        node.daemon.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_gateway_and_its_readers_go_on_with_whoever_leads_while_the_leaders_nodes_are_killed_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        Options { founding: FOUNDING, node: LAN, window_ms: 300, ..Options::new(folder.path().join("demo"), 11) };
    let mut scene = Scene::set_up(&options, View::new([], false)).await.unwrap();
    let mut watching = Watching::start(&scene).unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let watches = tokio::spawn(async move {
        loop {
            watching.next().await.unwrap().expect("the clinician goes on watching");
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (stop, stopped) = watch::channel(false);
    let mut publishing = scene.publish(&stopped).unwrap();
    // The pauses are the fault's moments, not a wait for anything.
    for turn in 0..6 {
        let node = scene.nodes().nth(turn % 3).unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        node.daemon.kill().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        node.daemon.start().unwrap();
    }
    stop.send_replace(true);
    let published = scenario::silence(&mut publishing).await.unwrap();
    assert!(published > 20, "{published}");
    scenario::settle(&mut scene, published).await.unwrap();
    let watched = until("the clinician has seen every reading", LIMIT, || async {
        assert!(!watches.is_finished(), "a watch ended");
        Ok((seen.load(Ordering::SeqCst) >= published).then_some(()))
    });
    watched.await.unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), published, "and each once");
    watches.abort();
    let account = scenario::finish(&scene).await.unwrap();
    assert_eq!(account.faults(), Vec::<String>::new(), "{account:?}");
    for node in scene.nodes() {
        node.daemon.stop().await.unwrap();
    }
}
