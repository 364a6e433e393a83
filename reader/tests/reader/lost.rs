//! A node that lost or withholds a room, and readers who remember the room.
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};

use crate::support::{Ran, World, free_port, liar, values};
use certs::Role;
use ehe::refusal::Refusal;
use ehe::wire::Response;

const PEOPLE: &[(&str, Role)] =
    &[("patient", Role::Patient), ("fresh", Role::Patient), ("doctor", Role::Clinician), ("friend", Role::Clinician)];

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_data_is_recognised_by_everybody_who_remembers_a_room() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    world.ok("patient", &format!("grant --room {room} --to {} --read all", world.public("doctor"))).await;
    world.ok("doctor", &format!("read --room {room}")).await;
    node.stop().await.unwrap();
    std::fs::rename(world.path("data"), world.path("data-before")).unwrap();
    let node = world.start().await;
    let memory = world.path("patient").join("rooms").join(format!("{room}.json"));
    let memory: serde_json::Value = serde_json::from_slice(&std::fs::read(memory).unwrap()).unwrap();
    let signed = ehe_reader::when::shown(ehe::time::UnixMs(memory["accepted"].as_u64().unwrap()));
    let (day, _) = signed.split_once('T').unwrap();
    let caught = |ran: &Ran, text: &str| {
        assert_eq!(ran.exit, 4, "{ran:?}");
        assert!(text.contains(&room) && text.contains("withheld or lost"), "{ran:?}");
        assert!(text.contains("node.example"), "{ran:?}");
        assert!(text.contains(&format!("accepted on {day}")) && text.contains("says that it has no room"), "{ran:?}");
    };
    let verified = world.ehe("patient", &format!("verify --room {room}")).await;
    caught(&verified, &verified.out);
    let memory = verified.out.lines().find(|line| line.starts_with("memory ")).unwrap();
    assert!(memory.contains("FAILED"), "{}", verified.out);
    assert!(!verified.out.contains(" ok"), "nothing was looked at: {}", verified.out);
    for (who, line) in [("patient", "audit"), ("doctor", "read"), ("doctor", "room show"), ("doctor", "watch")] {
        let ran = world.ehe(who, &format!("{line} --room {room}")).await;
        caught(&ran, &ran.err);
    }
    let paper = world.path("recovery-key").display().to_string();
    let ran = world.ehe("patient", &format!("authority show --room {room} --key {paper}")).await;
    caught(&ran, &ran.err);
    for who in ["patient", "doctor"] {
        let rooms = world.ehe(who, "rooms").await;
        caught(&rooms, &rooms.err);
    }
    // Who never saw the room is told what everybody is told.
    assert_eq!(world.ehe("friend", &format!("read --room {room}")).await.exit, 3);
    assert_eq!(world.ehe("friend", "rooms").await.exit, 0);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_asks_once_about_a_room_whose_right_has_ended_and_accuses_nobody() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let invite = format!("grant --room {room} --to {} --read all", world.public("doctor"));
    let grant = world.ok("patient", &invite).await;
    world.ok("doctor", "rooms").await;
    world.ok("patient", &format!("revoke --room {room} --grant {}", grant.trim())).await;
    let first = world.ehe("doctor", "rooms").await;
    assert_eq!((first.exit, first.out.lines().count()), (0, 1), "{first:?}");
    assert!(first.err.contains(&room) && first.err.contains("revoked"), "{first:?}");
    for _ in 0..3 {
        let again = world.ehe("doctor", "rooms").await;
        assert_eq!((again.exit, again.err.as_str()), (0, ""), "{again:?}");
    }
    let refusals = values(&world.ok("patient", &format!("--json audit --room {room}")).await);
    assert_eq!(refusals.iter().filter(|a| a["granted"] == false).count(), 1, "{refusals:?}");
    world.ok("patient", &invite).await;
    assert!(world.ok("doctor", "rooms").await.contains(&room), "invited again, it is there again");
    world.ok("patient", &format!("revoke --room {room} --subject {}", world.id("doctor"))).await;
    assert!(world.ehe("doctor", "rooms").await.err.contains("revoked"), "an end after that is said again");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_directory_remembers_of_another_alliance_is_no_evidence_against_a_node_of_this_one() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let memory = |who: &str, room: &str| world.path(who).join("rooms").join(format!("{room}.json"));
    let mut of_there: serde_json::Value =
        serde_json::from_slice(&std::fs::read(memory("patient", &room)).unwrap()).unwrap();
    of_there["origin"] = "ehe/00112233445566778899aabbccddeeff/0/0".into();
    let there = "00112233445566778899aabbccddeeff";
    std::fs::write(memory("patient", there), of_there.to_string()).unwrap();
    let paper = world.path("recovery-key").display().to_string();
    for line in ["read", "room show", "audit", &format!("authority show --key {paper}")] {
        let ran = world.ehe("patient", &format!("{line} --room {there}")).await;
        assert!(ran.exit == 3 && !ran.err.contains("withheld"), "{line}: {ran:?}");
    }
    let listed = world.ehe("patient", "rooms").await;
    assert_eq!((listed.exit, listed.err.as_str()), (0, ""), "{listed:?}");
    node.stop().await.unwrap();
}

/// A node that names no rooms and answers whoever asks for one with the refusal of this number; 0: it is honest.
fn withholding(world: &World, real: std::net::SocketAddr) -> Arc<AtomicU16> {
    let code = Arc::new(AtomicU16::new(0));
    let said = code.clone();
    let lie: liar::Lie = Arc::new(move |answer| {
        let refusal = Refusal::ALL.iter().find(|refusal| refusal.code() == said.load(SeqCst));
        match (refusal, answer) {
            (Some(_), Response::Rooms(_)) => vec![Response::Rooms(vec![])],
            (Some(refusal), Response::Item(_)) => vec![Response::Refused(*refusal)],
            (_, answer) => vec![answer],
        }
    });
    liar::start(world, real, &["patient", "doctor", "fresh"], lie);
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_believes_a_node_for_good_only_what_former_parties_hear_and_of_ones_own_room_nothing() {
    let world = World::new(PEOPLE);
    let real = free_port();
    let node = world.start_at(real).await;
    let code = withholding(&world, real);
    let room = world.room().await;
    world.ok("patient", &format!("grant --room {room} --to {} --read all", world.public("doctor"))).await;
    for who in ["patient", "doctor"] {
        assert!(world.ok(who, "rooms").await.contains(&room), "{who}");
    }
    let withheld = [Refusal::NotInvited, Refusal::NotOwner, Refusal::RoleNotAllowed];
    let ended = [Refusal::GrantExpired, Refusal::GrantRevoked, Refusal::DelegationEnded, Refusal::KeysReplaced];
    for refusal in withheld.into_iter().chain(ended) {
        for who in ["patient", "doctor"] {
            code.store(refusal.code(), SeqCst);
            let first = world.ehe(who, "rooms").await;
            assert!(first.err.contains(&room) && first.err.contains(&refusal.to_string()), "{who}: {first:?}");
            let once = who == "doctor" && ended.contains(&refusal);
            assert_eq!(first.exit, if once { 0 } else { 3 }, "{who}: {refusal}: {first:?}");
            let again = world.ehe(who, "rooms").await;
            let expected = if once { (0, "") } else { (3, first.err.as_str()) };
            assert_eq!((again.exit, again.err.as_str()), expected, "{who}: {refusal}");
            code.store(0, SeqCst);
            assert!(world.ok(who, "rooms").await.contains(&room), "{who}: {refusal}");
        }
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_asks_of_no_room_in_which_this_directory_is_no_party_yet_or_not_any_more() {
    let world = World::new(PEOPLE);
    let real = free_port();
    let node = world.start_at(real).await;
    let mode = liar::unwilling(&world, real, Refusal::LimitReached);
    let room = world.room().await;
    let paper = world.path("recovery-key").display().to_string();
    world.ok("fresh", &format!("authority show --room {room} --key {paper}")).await;
    let silent = async |who: &str| {
        let listed = world.ehe(who, "rooms").await;
        assert_eq!((listed.exit, listed.err.as_str(), listed.out.lines().count()), (0, "", 1), "{who}: {listed:?}");
    };
    silent("fresh").await;
    let audit = values(&world.ok("patient", &format!("--json audit --room {room}")).await);
    assert!(audit.iter().all(|access| access["granted"] == true), "{audit:?}");
    // A rotation that was refused leaves a memory in the directory of the new keys, too; one that was done, in that of the old.
    let rotate = format!("authority rotate --room {room} --to {}", world.path("fresh").display());
    mode.store(1, SeqCst);
    assert_eq!(world.ehe("patient", &rotate).await.exit, 1);
    mode.store(0, SeqCst);
    silent("fresh").await;
    world.ok("patient", &rotate).await;
    // Who was the patient with the old keys is told where the room is; nobody is asked.
    let show = format!("--json audit --room {room}");
    let moved = world.ehe("patient", "rooms").await;
    assert_eq!((moved.exit, moved.out.lines().count(), moved.err.lines().count()), (0, 1, 1), "{moved:?}");
    assert!(moved.err.contains(&room) && moved.err.contains("other keys"), "{moved:?}");
    let audit = values(&world.ok("fresh", &show).await);
    let asked = |access: &&serde_json::Value| access["reader"] == world.id("patient") && access["granted"] == false;
    assert_eq!(audit.iter().filter(asked).count(), 0, "{audit:?}");
    assert!(world.ok("fresh", "rooms").await.contains(&room));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_damaged_memory_is_said_and_the_other_rooms_are_listed_all_the_same() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let lost = world.ok("patient", "room create --no-recovery").await.trim().to_owned();
    let memories = world.path("patient").join("rooms");
    std::fs::write(memories.join("00112233445566778899aabbccddeeff.json"), "{").unwrap();
    let listed = world.ehe("patient", "rooms").await;
    assert!(listed.exit == 1 && listed.out.contains(&room) && listed.out.contains(&lost), "{listed:?}");
    assert!(listed.err.contains("00112233445566778899aabbccddeeff.json is not the memory of a room"), "{listed:?}");
    node.stop().await.unwrap();
}
