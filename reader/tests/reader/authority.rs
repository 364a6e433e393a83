//! Keys, delegates and recovery with the program `ehe` against a real node.
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;

use crate::support::gateway::{now, reading};
use crate::support::{LIMIT, World, free_port, liar, values};
use certs::Role;
use ehe::refusal::Refusal;
use ehe::unit::Unit;
use ehe::vital::Vital;
use ehe::wire::Response;
use ehe_reader::Error;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

const PEOPLE: &[(&str, Role)] = &[
    ("patient", Role::Patient),
    ("fresh", Role::Patient),
    ("doctor", Role::Clinician),
    ("helper", Role::Clinician),
    ("friend", Role::Clinician),
    ("gateway", Role::Gateway),
];

async fn measure(world: &World, room: &str, value: &str) {
    world.measure("gateway", room, &[reading(Vital::HeartRate, value, Unit::PerMinute, now())]).await.unwrap();
}

/// A room with a gateway, a doctor who reads what is cardiac, and one reading.
async fn invited(world: &World) -> String {
    let room = world.room().await;
    world.ok("patient", &format!("grant --room {room} --to {} --append", world.public("gateway"))).await;
    let line = format!("grant --room {room} --to {} --read cardiac --name Dr+Weber", world.public("doctor"));
    world.ok("patient", &line).await;
    measure(world, &room, "60").await;
    room
}

async fn read(world: &World, who: &str, room: &str) -> Vec<String> {
    let rows = values(&world.ok(who, &format!("--json read --room {room}")).await);
    rows.iter().map(|row| row["value"].to_string()).collect()
}

async fn standing(world: &World, who: &str, room: &str) -> Value {
    values(&world.ok(who, &format!("--json authority show --room {room}")).await)[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_the_new_keys_are_the_patient_and_everybody_goes_on() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = invited(&world).await;
    let mut watch = world.start_ehe("doctor", &format!("--json watch --room {room}"));
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let doctor = world.credentials("doctor").identity().author_id().to_string();
    let started = std::time::Instant::now();
    while !values(&world.ok("patient", &format!("--json audit --room {room}")).await)
        .iter()
        .any(|access| access["reader"] == doctor.as_str())
    {
        assert!(started.elapsed() < LIMIT, "the doctor does not watch");
    }

    let to = world.path("fresh").display().to_string();
    let said = world.ok("patient", &format!("authority rotate --room {room} --to {to}")).await;
    assert!(said.contains("new keys for all categories") && said.contains(&format!("--home {to}")), "{said}");
    measure(&world, &room, "61").await;
    let shown = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(values(&shown)[0]["value"].to_string(), "61", "who watches is shown what is sealed to the new keys");
    watch.kill().await.unwrap();

    assert_eq!(read(&world, "fresh", &room).await, ["60", "61"]);
    let shown = values(&world.ok("fresh", "--json rooms").await);
    assert_eq!((shown.len(), &shown[0]["own"], &shown[0]["name"]), (1, &true.into(), &"Home".into()));
    assert_eq!(shown[0]["grants"][1]["name"], "Dr Weber", "what the old keys could read, the new ones can");
    for line in ["read", "audit", "verify", "room show", "authority show"] {
        let old = world.ehe("patient", &format!("{line} --room {room}")).await;
        assert_eq!((old.exit, old.out.as_str()), (3, ""), "{line}: {old:?}");
        assert!(old.err.contains("the owner has replaced them"), "{}", old.err);
    }
    assert_eq!(world.ok("patient", "rooms").await.lines().count(), 1, "nothing but the table's head");
    let line = format!("grant --room {room} --to {} --read all", world.public("friend"));
    assert_eq!(world.ehe("patient", &line).await.exit, 3);
    world.ok("fresh", &line).await;
    assert_eq!(read(&world, "friend", &room).await, ["61"]);
    let history = format!("grant --room {room} --to {} --read all --history", world.public("friend"));
    world.ok("fresh", &history).await;
    assert_eq!(read(&world, "friend", &room).await, ["60", "61"]);

    let line = format!("authority resume --room {room} --from {}", world.path("patient").display());
    let said = world.ok("fresh", &line).await;
    assert!(said.contains("new keys for all categories"), "nothing was left over, but the keys are renewed: {said}");
    assert_eq!(read(&world, "fresh", &room).await, ["60", "61"]);

    let standing = standing(&world, "fresh", &room).await;
    let old = world.credentials("patient").identity().author_id().to_string();
    assert_eq!(standing["patient"], old.as_str(), "the patient's author id stays");
    assert_eq!(standing["keys"].as_array().unwrap().len(), 2);
    assert!(standing["control"].as_array().unwrap().iter().any(|c| c["what"] == "rotate"));
    let verified = world.ok("fresh", &format!("verify --room {room}")).await;
    assert!(verified.lines().all(|line| line.contains(" ok ")), "{verified}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegate_invites_and_ends_in_a_room_that_is_not_its_own() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = invited(&world).await;
    let (helper, friend) = (world.public("helper"), world.public("friend"));
    let invite = format!("grant --room {room} --to {friend} --read cardiac");
    assert_eq!(world.ehe("helper", &invite).await.exit, 3, "a stranger does not even see the records");
    let line = format!("authority delegate --room {room} --to {helper} --may grant,revoke,epoch --name Eva");
    world.ok("patient", &line).await;
    // It holds no key yet, so it can hand none on.
    assert_ne!(world.ehe("helper", &invite).await.exit, 0);
    world.ok("patient", &format!("grant --room {room} --to {helper} --read cardiac")).await;
    let grant = world.ok("helper", &invite).await;
    assert_eq!(read(&world, "friend", &room).await, ["60"]);
    assert_eq!(values(&world.ok("helper", "--json rooms").await)[0]["own"], false);

    let said = world.ok("helper", &format!("revoke --room {room} --grant {}", grant.trim())).await;
    assert!(said.contains("new keys for cardiac"), "{said}");
    assert_eq!(world.ehe("friend", &format!("read --room {room}")).await.exit, 3);
    measure(&world, &room, "61").await;
    for who in ["doctor", "patient", "helper"] {
        assert_eq!(read(&world, who, &room).await, ["60", "61"], "{who}: the delegate's new key reaches everybody");
    }
    let delegates = &standing(&world, "patient", &room).await["delegates"];
    assert_eq!((&delegates[0]["name"], &delegates[0]["may"][2]), (&"Eva".into(), &"epoch".into()));
    assert_eq!(
        world.ehe("helper", &format!("authority delegate --room {room} --to {friend} --may grant")).await.exit,
        3
    );

    let id = world.credentials("helper").identity().author_id();
    let left = world.ok("helper", &invite).await;
    let said = world.ok("patient", &format!("authority withdraw --room {room} --delegate {id}")).await;
    assert!(said.contains(&format!("ehe revoke --room {room} --grant {}", left.trim())), "{said}");
    assert!(!said.contains(grant.trim()), "what ended is not listed: {said}");
    let ended = world.ehe("helper", &invite).await;
    assert_eq!(ended.exit, 3);
    assert!(ended.err.contains("withdrawn"), "{}", ended.err);
    world.ok("patient", &format!("verify --room {room}")).await;
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_printed_key_a_robbed_patient_gets_everything_back_and_the_thief_loses_it() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = invited(&world).await;
    let paper = world.path("recovery-key");
    assert_eq!(std::fs::metadata(&paper).unwrap().mode() & 0o777, 0o600);
    let paper = paper.display();
    let before = standing(&world, "patient", &room).await["control"].as_array().unwrap().len();
    // The thief has the patient's directory, invites a friend, and reads.
    let friend = world.public("friend");
    world.ok("patient", &format!("grant --room {room} --to {friend} --read all")).await;
    assert_eq!(read(&world, "friend", &room).await, ["60"]);
    assert_eq!(read(&world, "patient", &room).await, ["60"]);

    // Who has neither the keys nor the paper sees nothing; a mistyped key says so.
    assert_eq!(world.ehe("fresh", &format!("authority show --room {room}")).await.exit, 3);
    let text = std::fs::read_to_string(world.path("recovery-key")).unwrap();
    let typed = |name: &str, text: &str| {
        let path = world.path(name);
        certs::file::create_secret(&path, text.as_bytes()).unwrap();
        path.display().to_string()
    };
    let (rest, last) = text.trim_end().split_at(text.trim_end().len() - 1);
    let wrong = typed("mistyped", &format!("{rest}{}", if last == "q" { 'p' } else { 'q' }));
    let other = typed("other-key", &ehe::recovery::RecoveryKey::generate(&mut ehe_reader::session::rng()).to_text());
    let recover = |key: &str| format!("authority recover --room {room} --key {key} --no-recovery");
    let mistyped = world.ehe("fresh", &recover(&wrong)).await;
    assert_eq!(mistyped.exit, 2, "{mistyped:?}");
    assert!(mistyped.err.contains("mistyped"), "{}", mistyped.err);
    let foreign = world.ehe("fresh", &recover(&other)).await;
    assert_eq!(foreign.exit, 3, "{foreign:?}");
    assert!(foreign.err.contains("not its recovery key"), "{}", foreign.err);

    let shown = world.ok("fresh", &format!("--json authority show --room {room} --key {paper}")).await;
    let control = values(&shown)[0]["control"].as_array().unwrap().clone();
    assert_eq!((control[before]["number"].as_u64(), &control[before]["what"]), (Some(before as u64), &"grant".into()));
    let new_paper = world.path("new-key").display().to_string();
    // In a file that a passphrase protects.
    let words = typed("words", "four words of mine");
    let line = format!(
        "authority recover --room {room} --key {paper} --distrust-from {before} --recovery-out {new_paper} \
         --recovery-passphrase-file {words}"
    );
    let said = world.ok("fresh", &line).await;
    assert!(said.contains("new keys for all categories"), "{said}");
    measure(&world, &room, "61").await;
    assert_eq!(read(&world, "fresh", &room).await, ["60", "61"]);
    assert_eq!(read(&world, "doctor", &room).await, ["60", "61"]);
    for thief in ["patient", "friend"] {
        assert_eq!(world.ehe(thief, &format!("read --room {room}")).await.exit, 3, "{thief}");
    }
    let audit = values(&world.ok("fresh", &format!("--json audit --room {room}")).await);
    let stolen: Vec<_> = audit.iter().filter(|a| a["distrusted"] == true).collect();
    assert_eq!((stolen.len(), &stolen[0]["granted"]), (1, &true.into()), "the thief's read is told from the patient's");
    let keys = &standing(&world, "fresh", &room).await["keys"];
    assert_eq!((&keys[0]["distrusted_from"], &keys[1]["distrusted_from"]), (&(before as u64).into(), &Value::Null));
    world.ok("fresh", &format!("verify --room {room}")).await;

    // The paper is used up; the new one stands ready.
    assert_eq!(world.ehe("fresh", &format!("authority show --room {room} --key {paper}")).await.exit, 3);
    let sealed = std::fs::read_to_string(&new_paper).unwrap();
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"), "{sealed}");
    let show = format!("authority show --room {room} --key {new_paper} --key-passphrase-file");
    let wrong = world.ehe("fresh", &format!("{show} {}", typed("other-words", "other words of mine"))).await;
    assert!(wrong.exit == 1 && wrong.err.contains("the passphrase does not open it"), "{wrong:?}");
    world.ok("fresh", &format!("{show} {words}")).await;
    assert_eq!(world.ehe("fresh", &format!("authority set-recovery --room {room}")).await.exit, 3);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_rooms_recovery_key_is_shown_once_unless_it_is_not_wanted() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let made = world.ehe("patient", "room create").await;
    assert_eq!((made.exit, made.out.trim().len()), (0, 32), "standard output is the room's id alone: {made:?}");
    let key = made.err.lines().find_map(|line| line.strip_prefix("ehe: recovery key: ")).unwrap();
    assert!(key.parse::<ehe::recovery::RecoveryKey>().is_ok(), "{key}");
    let made = values(&world.ok("patient", "--json room create").await)[0].clone();
    assert!(made["recovery"].as_str().unwrap().parse::<ehe::recovery::RecoveryKey>().is_ok());
    let none = world.ehe("patient", "room create --no-recovery").await;
    assert_eq!((none.exit, none.err.as_str()), (0, ""));
    let room = none.out.trim();
    assert_eq!(standing(&world, "patient", room).await["recovery"], false);
    let set = world.ehe("patient", &format!("authority set-recovery --room {room}")).await;
    assert!(set.exit == 0 && set.err.contains("ehe-recovery1 "), "{set:?}");
    assert_eq!(standing(&world, "patient", room).await["recovery"], true);
    let both = world.ehe("patient", "room create --no-recovery --recovery-out x").await;
    assert_eq!(both.exit, 2, "{both:?}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_cut_by_a_recovery_is_refused() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = invited(&world).await;
    let paper = world.path("recovery-key").display().to_string();
    let key = std::fs::read_to_string(&paper).unwrap();
    assert!(key.starts_with("ehe-recovery1 ") && key.ends_with('\n'));
    // Everything since the room was made is distrusted: the gateway's grant too.
    let line = format!("authority recover --room {room} --key {paper} --distrust-from 1 --no-recovery");
    world.ok("fresh", &line).await;
    let cut = world.measure("gateway", &room, &[reading(Vital::HeartRate, "61", Unit::PerMinute, now())]).await;
    assert!(matches!(cut, Err(Error::Refused(Refusal::GrantRevoked))), "{cut:?}");
    assert_eq!(standing(&world, "fresh", &room).await["recovery"], false);
    node.stop().await.unwrap();
}

/// Answers the first submission after `armed` is set as a second try of it is answered, and all that follows by `then`.
fn answer_lost(armed: &Arc<AtomicU8>, second_try: Refusal, then: Option<Refusal>) -> liar::Lie {
    let armed = armed.clone();
    Arc::new(move |answer| match (armed.load(SeqCst), &answer, then) {
        (1, Response::Submitted(_), _) => {
            armed.store(2, SeqCst);
            vec![Response::Refused(second_try)]
        }
        (2, _, Some(then)) => vec![Response::Refused(then)],
        _ => vec![answer],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_keys_whose_answer_was_lost_is_found_in_the_ledger_and_finished() {
    for (second_try, line) in [
        (Refusal::BadSignature, "patient authority rotate --to FRESH"),
        (Refusal::NotYourIdentity, "fresh authority recover --no-recovery --key PAPER"),
    ] {
        let world = World::new(PEOPLE);
        let real = free_port();
        let node = world.start_at(real).await;
        let armed = Arc::new(AtomicU8::new(0));
        liar::start(&world, real, &["patient", "fresh"], answer_lost(&armed, second_try, None));
        let room = world.room().await;
        let (fresh, paper) = (world.path("fresh").display().to_string(), world.path("recovery-key"));
        let line = line.replace("FRESH", &fresh).replace("PAPER", &paper.display().to_string());
        let (who, line) = line.split_once(' ').unwrap();
        armed.store(1, SeqCst);
        let done = world.ehe(who, &format!("{line} --room {room}")).await;
        assert_eq!(armed.load(SeqCst), 2, "the answer was lost");
        assert_eq!(done.exit, 0, "{done:?}");
        assert!(done.out.contains("new keys for all categories"), "{done:?}");
        assert_eq!(standing(&world, "fresh", &room).await["keys"].as_array().unwrap().len(), 2);
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_keys_that_cannot_be_found_out_about_is_not_said_to_be_refused() {
    let world = World::new(PEOPLE);
    let real = free_port();
    let node = world.start_at(real).await;
    let armed = Arc::new(AtomicU8::new(0));
    let lie = answer_lost(&armed, Refusal::BadSignature, Some(Refusal::NotInvited));
    liar::start(&world, real, &["patient", "fresh"], lie);
    let room = world.room().await;
    let fresh = world.path("fresh").display().to_string();
    armed.store(1, SeqCst);
    let left = world.ehe("patient", &format!("authority rotate --to {fresh} --room {room}")).await;
    assert_eq!(left.exit, 1, "{left:?}");
    assert!(left.err.contains("keep the old keys and the new ones"), "{left:?}");
    armed.store(0, SeqCst);
    let line = format!("authority resume --room {room} --from {}", world.path("patient").display());
    assert!(world.ok("fresh", &line).await.contains("new keys for all categories"));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_is_shown_before_a_room_is_committed_to_it_or_nothing_is_done() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let made = world.ehe("patient", "--json room create").await;
    let key = values(&made.out)[0]["recovery"].as_str().unwrap().to_owned();
    assert!(made.err.contains(&format!("recovery key: {key}")), "{made:?}");
    let rooms = world.ok("patient", "--json rooms").await.lines().count();
    for line in ["room create", "--json room create"] {
        for stderr in ["2>&-", "2>/dev/null", "2>/dev/full"] {
            let ehe =
                format!("{} --home {} {line} {stderr}", env!("CARGO_BIN_EXE_ehe"), world.path("patient").display());
            let ran = tokio::process::Command::new("sh").args(["-c", &ehe]).output().await.unwrap();
            assert_eq!((ran.status.code(), ran.stdout.len()), (Some(1), 0), "{ehe}");
        }
    }
    assert_eq!(world.ok("patient", "--json rooms").await.lines().count(), rooms, "no room was made");
    node.stop().await.unwrap();
}
