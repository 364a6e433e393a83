//! Nodes and readers whose charters are of different versions.
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst};

use crate::support::{World, free_port, liar};
use certs::Role;
use ehe::charter::{Charter, CharterChain, SignedCharter};
use ehe::wire::Response;
use ehe_node::clock::Clock;

const PEOPLE: &[(&str, Role)] =
    &[("patient", Role::Patient), ("fresh", Role::Patient), ("late", Role::Patient), ("doctor", Role::Clinician)];

const TWO: &[u32] = &[60_000, 30_000];

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_charter_is_fetched_verified_kept_and_the_command_goes_on() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    world.ok("patient", &format!("grant --room {room} --to {} --read all", world.public("doctor"))).await;
    node.stop().await.unwrap();
    world.under("node", &world.charters(TWO));
    let node = world.start().await;
    let version = |who: &str| world.credentials(who).charter().version();
    let served = world.path("served.json").display().to_string();
    let verified = world.ok("patient", &format!("verify --room {room} --save {served}")).await;
    assert!(verified.lines().any(|line| line.starts_with("heads") && line.contains(" ok")), "{verified}");
    let kept = std::fs::read_to_string(served).unwrap();
    let chain = kept.split("\"charter\":").nth(1).unwrap().split('"').nth(1).unwrap().trim_start_matches("base64:");
    use base64::Engine;
    let chain = base64::engine::general_purpose::STANDARD.decode(chain).unwrap();
    assert_eq!(chain, world.charters(TWO).encode(), "what was served is kept with the charter that it stands under");
    assert_eq!((version("patient"), version("fresh"), version("doctor")), (2, 1, 1));
    world.ok("doctor", &format!("read --room {room}")).await;
    assert_eq!(version("doctor"), 2);
    // The keys to rotate to learn of it before anything is changed.
    world.ok("patient", &format!("authority rotate --room {room} --to {}", world.path("fresh").display())).await;
    assert_eq!(version("fresh"), 2);
    world.ok("late", "room create --no-recovery").await;
    assert_eq!(version("late"), 2);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_under_an_older_charter_is_its_operators_affair_and_no_keys_change_under_it() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let two = world.charters(TWO);
    let (fresh, paper) = (world.path("fresh").display().to_string(), world.path("recovery-key").display().to_string());
    let older = async |who: &str, line: String| {
        let ran = world.ehe(who, &line).await;
        assert_eq!(ran.exit, 1, "{line}: {ran:?}");
        for part in ["node.example still runs under charter 1", "operator", "ehe-certs install", "restart"] {
            assert!(ran.err.contains(part), "{line}: {part}: {ran:?}");
        }
        assert!(!ran.err.contains("verification failed") && !ran.err.contains("HAVE changed"), "{line}: {ran:?}");
    };
    world.under("fresh", &two);
    older("patient", format!("authority rotate --room {room} --to {fresh}")).await;
    older("fresh", format!("authority recover --room {room} --key {paper} --no-recovery")).await;
    world.under("patient", &two);
    for line in ["room show", "audit", "verify", &format!("authority rotate --to {fresh}")] {
        older("patient", format!("{line} --room {room}")).await;
    }
    let standing = world.path("node").join("charter");
    std::fs::copy(world.path("patient").join("charter"), standing).unwrap();
    node.stop().await.unwrap();
    let node = world.start().await;
    let shown = world.ok("patient", &format!("authority show --room {room}")).await;
    assert!(!shown.contains("rotate") && !shown.contains("recover "), "nothing was changed: {shown}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn how_old_a_head_may_be_the_newest_charter_says_also_before_the_shard_is_under_it() {
    let world = World::new(PEOPLE);
    // 20 s behind: within what charter 1 allows.
    let behind = Clock::new(|| ehe::time::UnixMs(Clock::system().now().0 - 20_000));
    let node = world.start_by(world.address, behind).await;
    let room = world.room().await;
    let line = format!("verify --room {room}");
    let before = world.ehe("patient", &line).await;
    assert!(before.exit == 0 && before.err.is_empty() && before.out.contains("heads       ok"), "{before:?}");
    world.under("patient", &world.charters_that_grow(&[60_000, 10_000]));
    let after = world.ehe("patient", &line).await;
    assert!(after.exit == 0 && after.out.contains("quorum      ok"), "the shard may be under charter 1: {after:?}");
    assert!(after.err.contains("the node's head is 20"), "{after:?}");
    assert!(after.out.contains("node.example: its head is 20"), "{after:?}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn charters_that_do_not_extend_ones_own_are_evidence_and_are_not_kept() {
    let world = World::new(PEOPLE);
    let (node, real) = (world.start().await, free_port());
    let room = world.room().await;
    node.stop().await.unwrap();
    world.under("node", &world.charters(&[60_000, 30_000, 20_000]));
    let node = world.start_at(real).await;
    let mode = Arc::new(AtomicU8::new(0));
    let (forked, unsigned) = (world.charters(&[60_000, 40_000, 20_000]), {
        let mut chain = world.charters(TWO);
        chain.0.push(SignedCharter::unsigned(&next(&world)).unwrap());
        chain
    });
    let (old, said) = (world.charters(TWO), mode.clone());
    // Of these charters those of the versions that the real node shows.
    let instead = |chain: &CharterChain, shown: &[u8]| {
        let shown = CharterChain::decode(shown).unwrap().0;
        let version = |charter: &SignedCharter| usize::try_from(charter.read().unwrap().version).unwrap();
        vec![Response::Charter(CharterChain::piece(shown.iter().filter_map(|it| chain.0.get(version(it) - 1))))]
    };
    let (more, went_on) = (next(&world), AtomicU32::new(4));
    let for_ever = move || {
        let from = went_on.fetch_add(8, SeqCst);
        let more = (from..from + 8).map(|version| Charter { version, ..more.clone() });
        let more: Vec<_> = more.map(|charter| SignedCharter::unsigned(&charter).unwrap()).collect();
        vec![Response::Charter(CharterChain::piece(&more))]
    };
    let nothing = CharterChain::default().encode();
    let lie: liar::Lie = Arc::new(move |answer| match (said.load(SeqCst), answer) {
        (1, Response::Charter(shown)) => instead(&forked, &shown),
        (2, Response::Charter(shown)) => instead(&unsigned, &shown),
        (3, Response::Charter(shown)) => instead(&old, &shown),
        (4, Response::Charter(shown)) if shown == nothing => for_ever(),
        (5, Response::Charter(_)) => vec![Response::Charter(CharterChain::piece(&old.0))],
        (6, Response::Charter(_)) => vec![Response::Charter(nothing.clone())],
        (_, answer) => vec![answer],
    });
    liar::start(&world, real, &["patient"], lie);
    world.under("patient", &world.charters(TWO));
    let before = std::fs::read(world.path("patient").join("charter")).unwrap();
    for (lie, what) in [
        (1, "another charter 2"),
        (2, "signed by 0 of the 1 members that are needed"),
        (3, "no node shows charter 3"),
        (4, "the number of versions in the chain is 257"),
        (5, "version 1 where version 2 follows"),
        (6, "no node shows charter 3"),
    ] {
        mode.store(lie, SeqCst);
        let ran = world.ehe("patient", &format!("room show --room {room}")).await;
        assert!(ran.exit == 4 && ran.err.contains("verification failed") && ran.err.contains(what), "{lie}: {ran:?}");
        assert_eq!(std::fs::read(world.path("patient").join("charter")).unwrap(), before, "{lie}");
    }
    mode.store(0, SeqCst);
    world.ok("patient", &format!("room show --room {room}")).await;
    assert_eq!(world.credentials("patient").charter().version(), 3);
    node.stop().await.unwrap();
}

/// Charter 3, which nobody signed.
fn next(world: &World) -> Charter {
    let chain = world.charters(&[60_000, 30_000, 20_000]);
    chain.0[2].read().unwrap()
}
