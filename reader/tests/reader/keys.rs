//! Keys that a room does not take, and recovery keys that are not a room's: said before anything is sent, and plainly.
use crate::support::World;
use certs::Role;

const PEOPLE: &[(&str, Role)] = &[
    ("patient", Role::Patient),
    ("fresh", Role::Patient),
    ("helper", Role::Patient),
    ("friend", Role::Patient),
    ("doctor", Role::Clinician),
    ("gateway", Role::Gateway),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_of_no_room_here_is_not_blamed_and_one_that_was_used_is_said_to_be() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let paper = world.path("recovery-key").display().to_string();
    let nowhere = "00112233445566778899aabbccddeeff";
    for line in ["authority show", "authority recover --no-recovery"] {
        let ran = world.ehe("fresh", &format!("{line} --room {nowhere} --key {paper}")).await;
        assert_eq!(ran.exit, 3, "{ran:?}");
        assert!(ran.err.contains(&format!("no room {nowhere}")) && ran.err.contains("node.example"), "{ran:?}");
        assert!(!ran.err.contains("only the room's recovery key"), "{ran:?}");
    }
    let recover = format!("authority recover --room {room} --key {paper}");
    let new = world.path("new-key").display().to_string();
    let out = format!("{recover} --recovery-out {new} --recovery-no-passphrase");
    world.ok("fresh", &out).await;
    for line in
        [format!("{recover} --no-recovery"), format!("authority recover --no-recovery --room {room} --key {new}")]
    {
        let again = world.ehe("fresh", &line).await;
        assert_eq!(again.exit, 3, "{again:?}");
        assert!(again.err.contains("was done before") && again.err.contains("authority resume"), "{again:?}");
    }
    assert!(std::path::Path::new(&new).exists());
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_no_patients_get_no_room() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let paper = world.path("recovery-key").display().to_string();
    for (who, role) in [("doctor", "clinician"), ("gateway", "gateway")] {
        let to = world.path(who).display().to_string();
        for (by, line) in [
            (who, "room create --no-recovery".to_owned()),
            (who, format!("authority recover --room {room} --key {paper} --no-recovery")),
            ("patient", format!("authority rotate --room {room} --to {to}")),
        ] {
            let ran = world.ehe(by, &line).await;
            assert_eq!(ran.exit, 3, "{line}: {ran:?}");
            assert!(ran.err.contains(&format!("a {role}'s")) && ran.err.contains("--role patient"), "{line}: {ran:?}");
        }
    }
    assert_eq!(world.ok("patient", "--json rooms").await.lines().count(), 1);
    assert_eq!(world.ok("doctor", "--json rooms").await.lines().count(), 0);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_room_knows_as_somebody_else_cannot_become_its_patients_and_it_says_why() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let paper = world.path("recovery-key").display().to_string();
    world.ok("patient", &format!("grant --room {room} --to {} --read all", world.public("friend"))).await;
    let delegate = format!("authority delegate --room {room} --to {} --may grant", world.public("helper"));
    world.ok("patient", &delegate).await;
    for (who, what) in [("friend", "invited"), ("helper", "delegate")] {
        let to = world.path(who).display().to_string();
        for (by, line) in [
            ("patient", format!("authority rotate --room {room} --to {to}")),
            (who, format!("authority recover --room {room} --key {paper} --no-recovery")),
        ] {
            let ran = world.ehe(by, &line).await;
            assert_eq!(ran.exit, 3, "{line}: {ran:?}");
            assert!(ran.err.contains(what) && ran.err.contains("identity new"), "{line}: {ran:?}");
        }
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_nothing_says_whether_there_ever_was_something_and_of_one_of_two_grants_what_holds() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let append = format!("grant --room {room} --to {} --append", world.public("gateway"));
    let (first, second) = (world.ok("patient", &append).await, world.ok("patient", &append).await);
    let revoke = format!("revoke --room {room}");
    let never = world.ehe("patient", &format!("{revoke} --subject {}", world.id("friend"))).await;
    assert!(never.exit == 1 && never.err.contains("was never invited"), "{never:?}");
    let one = world.ok("patient", &format!("{revoke} --grant {}", second.trim())).await;
    assert!(one.contains(&format!("grant {} still lets", first.trim())) && !one.contains("refused now"), "{one}");
    let both = world.ok("patient", &format!("{revoke} --subject {}", world.id("gateway"))).await;
    assert!(both.contains("refused now") && !both.contains("still lets"), "{both}");
    for which in [format!("--subject {}", world.id("gateway")), format!("--grant {}", first.trim())] {
        let again = world.ehe("patient", &format!("{revoke} {which}")).await;
        assert!(again.exit == 1 && again.err.contains("revoked before"), "{again:?}");
    }
    // A rotation that is run again says what was done, and nothing else.
    let rotate = format!("authority rotate --room {room} --to {}", world.path("fresh").display());
    world.ok("patient", &rotate).await;
    let again = world.ehe("patient", &rotate).await;
    assert!(again.exit == 3 && again.err.starts_with("ehe: the patient's keys are those in"), "{again:?}");
    node.stop().await.unwrap();
}
