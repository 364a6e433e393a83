//! The program `ehe` against a real node over real QUIC.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::gateway::{now, reading};
use crate::support::{LIMIT, World, liar, values};
use certs::Role;
use ehe::refusal::Refusal;
use ehe::unit::Unit;
use ehe::vital::Vital;
use ehe::wire::Response;
use ehe_reader::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

const PEOPLE: &[(&str, Role)] = &[
    ("patient", Role::Patient),
    ("doctor", Role::Clinician),
    ("other", Role::Clinician),
    ("stranger", Role::Clinician),
    ("gateway", Role::Gateway),
];

/// A room with a gateway that appends everything and a doctor who reads what is cardiac and body.
async fn invited(world: &World) -> String {
    let room = world.room().await;
    world.ok("patient", &format!("grant --room {room} --to {} --append", world.public("gateway"))).await;
    let doctor = world.public("doctor");
    let line = format!("grant --room {room} --to {doctor} --read cardiac,body --name Dr+Weber --purpose after+surgery");
    world.ok("patient", &line).await;
    room
}

#[tokio::test(flavor = "multi_thread")]
async fn the_invited_reads_what_was_measured_and_the_patient_sees_that_and_who_was_refused() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = invited(&world).await;
    let at = now();
    world
        .measure(
            "gateway",
            &room,
            &[
                reading(Vital::HeartRate, "72", Unit::PerMinute, at),
                reading(Vital::HeartRate, "73", Unit::PerMinute, at.plus_ms(1000)),
            ],
        )
        .await
        .unwrap();
    world.measure("gateway", &room, &[reading(Vital::BodyTemperature, "36.40", Unit::Celsius, at)]).await.unwrap();
    world.measure("gateway", &room, &[reading(Vital::OxygenSaturation, "97", Unit::Percent, at)]).await.unwrap();

    // The doctor: what is cardiac and body, digit by digit, and nothing else.
    let read = world.ok("doctor", &format!("--json read --room {room}")).await;
    assert!(read.contains(r#""value":36.40,"unit":"Cel""#), "{read}");
    let rows = values(&read);
    let vitals: Vec<&str> = rows.iter().map(|r| r["vital"].as_str().unwrap()).collect();
    assert_eq!(vitals.iter().filter(|v| **v == "heart_rate").count(), 2, "{read}");
    assert_eq!(rows.len(), 3, "{read}");
    assert!(rows.iter().all(|r| r["patient"] == room.as_str() && r["device"] == "strap-1"));
    let line = format!("read --room {room} --vital heart_rate --csv --patient Anna");
    let csv = world.ok("doctor", &line).await;
    assert_eq!(csv.lines().count(), 3);
    assert!(csv.lines().nth(1).unwrap().starts_with("Anna,strap-1,heart_rate,72,/min,"), "{csv}");

    // What the grant does not cover is refused before it is asked for.
    let refused = world.ehe("doctor", &format!("read --room {room} --vital oxygen_saturation")).await;
    assert_eq!((refused.exit, refused.out.as_str()), (3, ""));
    assert!(refused.err.contains("no grant covers respiratory"), "{}", refused.err);

    // The patient reads everything, from the ledger and the identity alone.
    assert_eq!(values(&world.ok("patient", &format!("--json read --room {room}")).await).len(), 4);

    // A stranger and the gateway read nothing.
    let stranger = world.ehe("stranger", &format!("read --room {room}")).await;
    assert_eq!((stranger.exit, stranger.out.as_str()), (3, ""), "{stranger:?}");
    assert!(stranger.err.starts_with("ehe: refused: "), "{}", stranger.err);
    assert_eq!(world.ehe("gateway", &format!("read --room {room}")).await.exit, 3);

    // The audit lists all of that, with the names that the patient gave.
    let audit = values(&world.ok("patient", &format!("--json audit --room {room}")).await);
    let granted: Vec<_> = audit.iter().filter(|a| a["granted"] == true).collect();
    assert_eq!(granted.iter().filter(|a| a["name"] == "Dr Weber").count(), 2, "{audit:?}");
    assert_eq!(granted.iter().filter(|a| a["patient"] == true).count(), 1, "{audit:?}");
    let purpose = |a: &serde_json::Value| if a["patient"] == true { "patient-request" } else { "treatment" };
    assert!(granted.iter().all(|a| a["purpose"] == purpose(a) && a["part"] == "content"), "{audit:?}");
    assert_eq!(granted[0]["categories"], serde_json::json!(["cardiac", "body"]));
    let refused: Vec<_> = audit.iter().filter(|a| a["granted"] == false).collect();
    let stranger = world.credentials("stranger").identity().author_id().to_string();
    let strangers = |a: &&&serde_json::Value| a["reader"] == stranger.as_str();
    let refusal = refused.iter().find(strangers).unwrap();
    assert_eq!((&refusal["code"], &refusal["purpose"]), (&12.into(), &"treatment".into()), "{audit:?}");
    let text = world.ok("patient", &format!("audit --room {room}")).await;
    assert!(text.contains("Dr Weber (") && text.contains("REFUSED"), "{text}");
    assert!(audit.is_sorted_by_key(|a| a["at"].as_str().unwrap()), "{audit:?}");

    // Only the patient sees it and invites, and everything verifies.
    let line = format!("grant --room {room} --to {} --read all", world.public("stranger"));
    assert_eq!(world.ehe("doctor", &line).await.exit, 3);
    assert_eq!(world.ehe("doctor", &format!("audit --room {room}")).await.exit, 3);
    let verified = world.ok("patient", &format!("verify --room {room}")).await;
    assert_eq!(verified.lines().count(), 10, "{verified}");
    assert!(verified.lines().all(|line| line.contains(" ok ")), "{verified}");

    // What was served can be kept for somebody else's program: whole, for the patient alone, over no other file.
    let saved = world.path("patient").join("served.json");
    let line = format!("verify --room {room} --save {}", saved.display());
    world.ok("patient", &line).await;
    let case: serde_json::Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    assert_eq!((&case["what"], &case["input"]["room"]), (&"follow".into(), &room.as_str().into()));
    assert_eq!(case["expect"]["verified"], case["input"]["items"].as_array().unwrap().len());
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&saved).unwrap()) & 0o777, 0o600);
    let again = world.ehe("patient", &line).await;
    assert!(again.exit != 0 && again.err.contains("exists already"), "{again:?}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_revocation_the_reader_is_refused_and_the_others_read_on() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = invited(&world).await;
    let other = world.public("other");
    let grant = world.ok("patient", &format!("grant --room {room} --to {other} --read all")).await;
    world.measure("gateway", &room, &[reading(Vital::HeartRate, "60", Unit::PerMinute, now())]).await.unwrap();
    assert_eq!(values(&world.ok("other", &format!("--json read --room {room}")).await).len(), 1);

    let said = world.ok("patient", &format!("revoke --room {room} --grant {}", grant.trim())).await;
    assert!(said.contains("new keys for all categories") && said.contains("stays read"), "{said}");
    let refused = world.ehe("other", &format!("read --room {room}")).await;
    assert_eq!((refused.exit, refused.out.as_str()), (3, ""), "{refused:?}");
    assert!(refused.err.contains("revoked"), "{}", refused.err);

    // What is measured now is sealed to the new key; the doctor opens both, old and new.
    world.measure("gateway", &room, &[reading(Vital::HeartRate, "61", Unit::PerMinute, now())]).await.unwrap();
    let rows = values(&world.ok("doctor", &format!("--json read --room {room}")).await);
    assert_eq!(rows.iter().map(|r| r["value"].to_string()).collect::<Vec<_>>(), ["60", "61"]);
    assert_eq!(values(&world.ok("patient", &format!("--json read --room {room}")).await).len(), 2);

    // Again there is nothing to end; a gateway that was cut off is refused.
    assert_eq!(world.ehe("patient", &format!("revoke --room {room} --grant {}", grant.trim())).await.exit, 1);
    let gateway = world.credentials("gateway").identity().author_id();
    let said = world.ok("patient", &format!("revoke --room {room} --subject {gateway}")).await;
    assert!(said.contains("spool") && !said.contains("new keys"), "{said}");
    let cut = world.measure("gateway", &room, &[reading(Vital::HeartRate, "62", Unit::PerMinute, now())]).await;
    assert!(matches!(cut, Err(Error::Refused(Refusal::GrantRevoked))), "{cut:?}");
    world.ok("patient", &format!("verify --room {room}")).await;
    let grants = world.ok("patient", &format!("--json room show --room {room}")).await;
    let shown = values(&grants);
    let ended: Vec<bool> =
        shown[0]["grants"].as_array().unwrap().iter().map(|g| g["ended"].as_bool().unwrap()).collect();
    assert_eq!(ended, [true, false, true]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_shows_what_comes_in_also_under_new_keys_and_after_an_outage_and_ends_with_the_right() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = invited(&world).await;
    let other = world.public("other");
    world.ok("patient", &format!("grant --room {room} --to {other} --read cardiac")).await;
    world.measure("gateway", &room, &[reading(Vital::HeartRate, "59", Unit::PerMinute, now())]).await.unwrap();

    let mut watch = world.start_ehe("doctor", &format!("--json watch --room {room} --vital heart_rate"));
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    // It watches once its access record stands in the ledger.
    let doctor = world.credentials("doctor").identity().author_id().to_string();
    let reads = async |at_least: usize| {
        let started = std::time::Instant::now();
        loop {
            let audit = values(&world.ok("patient", &format!("--json audit --room {room}")).await);
            if audit.iter().filter(|a| a["reader"] == doctor.as_str() && a["granted"] == true).count() >= at_least {
                break;
            }
            assert!(started.elapsed() < LIMIT, "{audit:?}");
        }
    };
    reads(1).await;
    let mut shown = async || {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        values(&line)[0]["value"].to_string()
    };
    world.measure("gateway", &room, &[reading(Vital::HeartRate, "60", Unit::PerMinute, now())]).await.unwrap();
    assert_eq!(shown().await, "60");

    // Somebody else is revoked: the key changes under the watching doctor, and nothing is missed.
    let subject = world.credentials("other").identity().author_id();
    world.ok("patient", &format!("revoke --room {room} --subject {subject}")).await;
    world.measure("gateway", &room, &[reading(Vital::HeartRate, "61", Unit::PerMinute, now())]).await.unwrap();
    assert_eq!(shown().await, "61");

    // Late readings come too: the cursor is the ledger's order, not the readings' time.
    let yesterday = ehe::time::UnixMs(now().0 - 86_400_000);
    world.measure("gateway", &room, &[reading(Vital::HeartRate, "62", Unit::PerMinute, yesterday)]).await.unwrap();
    assert_eq!(shown().await, "62");

    // The node goes and comes back; what came in before the watch found it again is shown too.
    node.stop().await.unwrap();
    let node = world.start().await;
    world.measure("gateway", &room, &[reading(Vital::HeartRate, "63", Unit::PerMinute, now())]).await.unwrap();
    assert_eq!(shown().await, "63");

    world.ok("patient", &format!("revoke --room {room} --subject {doctor}")).await;
    let ended = tokio::time::timeout(LIMIT, watch.wait()).await.unwrap().unwrap();
    let mut said = String::new();
    watch.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!((ended.code(), said.contains("revoked")), (Some(3), true), "{said}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_goes_on_behind_what_nobody_signed_once_it_is_void_and_shows_nothing_of_it() {
    let world = World::new(PEOPLE);
    let charters = world.charters_that_raise(2);
    ["node", "patient", "doctor", "gateway"].iter().for_each(|who| world.under(who, &charters));
    let node = world.start().await;
    let room = invited(&world).await;
    let mut watch = world.start_ehe("doctor", &format!("--json watch --room {room} --vital heart_rate"));
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut warned = BufReader::new(watch.stderr.take().unwrap()).lines();
    let mut shown = async || {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        values(&line)[0]["value"].to_string()
    };
    let measured = async |value| {
        world.measure("gateway", &room, &[reading(Vital::HeartRate, value, Unit::PerMinute, now())]).await.unwrap();
    };
    let doctor = world.credentials("doctor").identity().author_id().to_string();
    let reads = async || {
        let audit = values(&world.ok("patient", &format!("--json audit --room {room}")).await);
        audit.iter().any(|a| a["reader"] == doctor.as_str() && a["granted"] == true)
    };
    while !reads().await {}
    measured("60").await;
    assert_eq!(shown().await, "60");

    let forged = [reading(Vital::HeartRate, "61", Unit::PerMinute, now())];
    world.forge(&node, "gateway", &room, &forged).await;
    let waits = async {
        while let Some(line) = warned.next_line().await.unwrap() {
            if line.contains("was not signed by the one in whose name it is") {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(LIMIT, waits).await.unwrap(), "a head came between the run and its record");
    measured("62").await;

    // A node that looks at what it has stored voids it.
    node.stop().await.unwrap();
    let node = world.start_looking().await;
    assert_eq!(shown().await, "62", "and nothing of the run that is void");
    measured("63").await;
    assert_eq!(shown().await, "63");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_node_that_changes_hides_or_rolls_back_is_noticed() {
    let world = World::new(PEOPLE);
    let real = world.start_at("127.0.0.1:0".parse().unwrap()).await;
    let address = real.local_addr().unwrap();
    let which: Arc<std::sync::Mutex<&'static str>> = Arc::new(std::sync::Mutex::new("nothing"));
    let saw_content = Arc::new(AtomicBool::new(false));
    let lie: liar::Lie = {
        let (which, saw_content) = (which.clone(), saw_content.clone());
        Arc::new(move |mut answer| {
            let lie = *which.lock().unwrap();
            if let Response::Item(item) = &mut answer {
                let content = item.events.iter_mut().find(|e| e.body.len() == 256);
                saw_content.fetch_or(content.is_some(), Ordering::SeqCst);
                match (lie, content) {
                    ("change", Some(event)) => event.body[3] ^= 1,
                    ("hide", Some(_)) => return vec![],
                    ("forge", Some(_)) => {
                        let run = item.run.as_mut().unwrap();
                        *run.0.last_mut().unwrap() ^= 1;
                        item.leaf.entry = run.hash();
                    }
                    ("tail", _) if item.leaf.index >= 3 => return vec![],
                    ("reorder", _) if item.leaf.index == 2 => item.leaf.index = 3,
                    ("withhold", _) if item.leaf.index == 1 => (item.run, item.events) = (None, vec![]),
                    ("time", _) if item.leaf.index == 2 => item.leaf.accepted_at.0 += 1,
                    _ => {}
                }
            }
            if let Response::Head(head) = &mut answer {
                match lie {
                    "head" => head.signature[40] ^= 1,
                    "sign" => *head.signature.last_mut().unwrap() ^= 1,
                    "place" => head.last.log_index += 1,
                    "no head" => return vec![],
                    _ => {}
                }
            }
            vec![answer]
        })
    };
    liar::start(&world, address, &["patient", "gateway"], lie);
    let room = world.room().await;
    world.ok("patient", &format!("grant --room {room} --to {} --append", world.public("gateway"))).await;
    for value in ["60", "61"] {
        world.measure("gateway", &room, &[reading(Vital::HeartRate, value, Unit::PerMinute, now())]).await.unwrap();
    }
    let honest = values(&world.ok("patient", &format!("--json read --room {room}")).await);
    assert_eq!(honest.len(), 2);
    assert!(saw_content.load(Ordering::SeqCst));
    for (lie, says) in [
        ("change", "the body is not the one that the header names"),
        ("hide", "chain"),
        ("reorder", "chain"),
        ("time", "chain"),
        ("withhold", "a control event of the patient was left out"),
        ("head", "head"),
        ("forge", "signature: entry"),
        ("sign", "head"),
        ("tail", "head: it is not of the last entry shown"),
        ("place", "inclusion"),
    ] {
        *which.lock().unwrap() = lie;
        let read = world.ehe("patient", &format!("read --room {room}")).await;
        assert_eq!((read.exit, read.out.as_str()), (4, ""), "{lie}: {read:?}");
        assert!(read.err.contains(says), "{lie}: {}", read.err);
    }
    *which.lock().unwrap() = "no head";
    let read = world.ehe("patient", &format!("--timeout 1 read --room {room}")).await;
    assert!(read.exit != 0 && read.out.is_empty(), "nothing is printed that no head vouches for: {read:?}");
    *which.lock().unwrap() = "reorder";
    let verified = world.ehe("patient", &format!("verify --room {room}")).await;
    assert_eq!(verified.exit, 4);
    assert!(verified.out.lines().next().unwrap().starts_with("chain       FAILED"), "{}", verified.out);

    // A node that shows less than was seen before: as if the patient had seen more.
    *which.lock().unwrap() = "nothing";
    let memory = world.path("patient").join("rooms").join(format!("{room}.json"));
    let mut seen: serde_json::Value = serde_json::from_slice(&std::fs::read(&memory).unwrap()).unwrap();
    seen["size"] = serde_json::json!(1_000_000);
    std::fs::write(&memory, seen.to_string()).unwrap();
    let back = world.ehe("patient", &format!("verify --room {room}")).await;
    assert_eq!(back.exit, 4);
    assert!(back.out.contains("memory      FAILED"), "{}", back.out);
    real.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_made_certified_and_finds_its_rooms() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let made = world.ok("anna", "identity new --role patient --no-passphrase").await;
    assert!(made.contains("send ") && made.contains("channel.crt, ca.crt, charter"), "{made}");
    let shown = world.ok("anna", "identity show").await;
    assert!(shown.contains("not ready"), "{shown}");
    // A second identity never replaces the first.
    assert_eq!(world.ehe("anna", "identity new --role patient --no-passphrase").await.exit, 1);
    // From now on with a passphrase, which a script keeps in a file.
    let words = world.path("words");
    std::fs::write(&words, "four words of mine").unwrap();
    std::fs::set_permissions(&words, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let words = words.display();
    world.ok("anna", &format!("identity passphrase --new-passphrase-file {words} --work-factor 14")).await;
    assert!(world.ok("anna", "identity show").await.contains("protected by a passphrase"));
    let unready = world.ehe("anna", &format!("rooms --passphrase-file {words}")).await;
    assert_eq!(unready.exit, 1);
    assert!(unready.err.contains("channel.crt is missing"), "{}", unready.err);
    world.certify("anna", Role::Patient, &world.path("anna").join("request.json"));
    world.install("anna");
    assert!(world.ok("anna", "identity show").await.contains("urn:ehe:patient:"));

    let other = world.path("other-words");
    std::fs::write(&other, "some other words").unwrap();
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let wrong = world.ehe("anna", &format!("--passphrase-file {} rooms", other.display())).await;
    assert_eq!((wrong.exit, wrong.err.contains("the passphrase does not open it")), (1, true), "{wrong:?}");
    assert_eq!(world.ok("anna", &format!("--passphrase-file {words} --json rooms")).await, "");
    let room = world.ok("anna", &format!("--json room create --name Mine --shard 2 --passphrase-file {words}")).await;
    let room = values(&room)[0].clone();
    assert_eq!(room["shard"], 2);
    let id = room["room"].as_str().unwrap();
    let doctor = world.public("doctor");
    world.ok("anna", &format!("identity passphrase --passphrase-file {words} --no-passphrase")).await;
    world.ok("anna", &format!("grant --room {id} --to {doctor} --read sleep --name Dr+Weber")).await;
    let own = values(&world.ok("anna", "--json rooms").await);
    assert_eq!((own.len(), &own[0]["name"], &own[0]["own"]), (1, &"Mine".into(), &true.into()));
    // The doctor sees the room and the own grant, not the patient's name for it.
    let theirs = values(&world.ok("doctor", "--json rooms").await);
    assert_eq!((theirs.len(), &theirs[0]["name"]), (1, &serde_json::Value::Null));
    assert_eq!(theirs[0]["grants"][0]["categories"], serde_json::json!(["sleep"]));
    let status = values(&world.ok("doctor", "--json status").await);
    assert_eq!(status[0]["name"], "node.example");
    assert_eq!(world.ehe("stranger", &format!("room show --room {id}")).await.exit, 3);
    node.stop().await.unwrap();

    let gone = world.ehe("doctor", "--timeout 1 rooms").await;
    assert_eq!((gone.exit, gone.out.as_str()), (1, ""));
    assert!(gone.err.contains("no node could answer: node.example: no answer at 127.0.0.1:"), "{}", gone.err);
    let status = world.ehe("doctor", "--timeout 1 status").await;
    assert_eq!((status.exit, status.out.matches("node.example").count()), (1, 1), "{status:?}");
    let gone = world.ehe("doctor", &format!("--timeout 1 read --room {id}")).await;
    assert!(gone.err.contains("no node could answer within 1 s (--timeout): node.example: no answer at"), "{gone:?}");
}
