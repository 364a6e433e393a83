//! A node that lost or withholds a room, and readers who remember the room.
use crate::support::{Ran, World, values};
use certs::Role;

const PEOPLE: &[(&str, Role)] = &[("patient", Role::Patient), ("doctor", Role::Clinician), ("friend", Role::Clinician)];

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
    let signed = ehe_reader::when::shown(ehe::time::UnixMs(memory["at"].as_u64().unwrap()));
    let (day, _) = signed.split_once('T').unwrap();
    let caught = |ran: &Ran, text: &str| {
        assert_eq!(ran.exit, 4, "{ran:?}");
        assert!(text.contains(&room) && text.contains("withheld or lost"), "{ran:?}");
        assert!(text.contains("node.example") && text.contains(&format!("signed on {day}")), "{ran:?}");
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
