//! What people are told: which key counts, what stays in force, whom to ask for what, and what the options are.
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use crate::support::liar::unwilling;
use crate::support::{Ran, World, free_port, values};
use certs::Role;
use ehe::refusal::Refusal;

const PEOPLE: &[(&str, Role)] = &[
    ("patient", Role::Patient),
    ("fresh", Role::Patient),
    ("doctor", Role::Clinician),
    ("helper", Role::Clinician),
    ("friend", Role::Clinician),
    ("gateway", Role::Gateway),
];

fn grants(shown: &str) -> Vec<serde_json::Value> {
    values(shown)[0]["grants"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_that_nothing_was_committed_to_is_said_to_be_unused_and_its_file_is_named_so() {
    let world = World::new(PEOPLE);
    let real = free_port();
    let node = world.start_at(real).await;
    let mode = unwilling(&world, real, Refusal::LimitReached);
    let paper = world.path("paper");
    let out = format!("--recovery-out {} --recovery-no-passphrase", paper.display());
    let old = world.path("recovery-key");
    let with = world.room().await;
    let without = world.ok("patient", "room create --no-recovery").await.trim().to_owned();
    let commands = [
        ("patient", "room create".to_owned()),
        ("patient", format!("authority set-recovery --room {without}")),
        ("fresh", format!("authority recover --room {with} --key {}", old.display())),
    ];
    mode.store(1, SeqCst);
    let rotate = format!("authority rotate --room {with} --to {}", world.path("fresh").display());
    let refused = world.ehe("patient", &rotate).await;
    assert!(refused.exit == 1 && refused.err.contains("were not used"), "{refused:?}");
    let unused = world.path("paper.unused");
    for (who, line) in &commands {
        mode.store(1, SeqCst);
        let refused = world.ehe(who, &format!("{line} {out}")).await;
        assert_eq!(refused.exit, 1, "{line}: {refused:?}");
        assert!(refused.err.contains("was not used") && !refused.err.contains("keep"), "{line}: {refused:?}");
        assert!(refused.err.contains("paper.unused"), "{line}: {refused:?}");
        assert!(!paper.exists() && unused.exists(), "{line}: the file says by its name that the key is unused");
        // A second one does not take the first one's place.
        let again = world.ehe(who, &format!("{line} {out}")).await;
        assert!(again.exit == 1 && paper.exists() && unused.exists(), "{line}: {again:?}");
        assert!(again.err.contains("was not used") && again.err.contains("remove it"), "{line}: {again:?}");
        std::fs::remove_file(&paper).unwrap();
        std::fs::remove_file(&unused).unwrap();
        let printed = world.ehe(who, line).await;
        assert!(printed.err.contains("this recovery key was not used"), "{line}: {printed:?}");
        assert!(!printed.err.contains("keep this"), "{line}: {printed:?}");

        // Nobody answers: it may have been done, so the key is kept.
        mode.store(2, SeqCst);
        let lost = world.ehe(who, &format!("--timeout 1 {line} {out}")).await;
        assert_eq!(lost.exit, 1, "{line}: {lost:?}");
        assert!(lost.err.contains("keep") && lost.err.contains("paper"), "{line}: {lost:?}");
        assert!(paper.exists() && !unused.exists(), "{line}: an answer that was lost loses no key");
        std::fs::remove_file(&paper).unwrap();
        mode.store(0, SeqCst);
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_says_refused_of_what_the_ledger_shows_as_done_does_not_make_a_recovery_key_unused() {
    let world = World::new(PEOPLE);
    let real = free_port();
    let node = world.start_at(real).await;
    let mode = unwilling(&world, real, Refusal::LimitReached);
    let room = world.ok("patient", "room create --no-recovery").await.trim().to_owned();
    let paper = world.path("paper");
    mode.store(3, SeqCst);
    let line = format!("authority set-recovery --room {room} --recovery-no-passphrase --recovery-out");
    let done = world.ehe("patient", &format!("{line} {}", paper.display())).await;
    assert!(done.exit == 0 && paper.exists(), "{done:?}");
    mode.store(0, SeqCst);
    world.ok("fresh", &format!("authority show --room {room} --key {}", paper.display())).await;
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_recovery_key_is_made_for_what_is_refused_before_anything_is_sent() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let other = world.path("other-key");
    let text = ehe::recovery::RecoveryKey::generate(&mut ehe_reader::session::rng()).to_text();
    certs::file::create_secret(&other, text.as_bytes()).unwrap();
    let paper = world.path("paper");
    let right = world.path("recovery-key");
    let recover = |key: &Path, more: &str| format!("authority recover --room {room} --key {}{more}", key.display());
    for (who, line, exit) in [
        ("patient", format!("authority set-recovery --room {room}"), 3),
        ("doctor", format!("authority set-recovery --room {room}"), 3),
        ("fresh", recover(&other, ""), 3),
        ("fresh", recover(&right, " --distrust-from 9999"), 2),
        ("patient", "room create --shard 9999".to_owned(), 2),
    ] {
        let printed = world.ehe(who, &line).await;
        assert_eq!(printed.exit, exit, "{line}: {printed:?}");
        assert!(!printed.err.contains("ehe-recovery1"), "{line}: {printed:?}");
        let out = format!("{line} --recovery-no-passphrase --recovery-out {}", paper.display());
        let filed = world.ehe(who, &out).await;
        assert_eq!(filed.exit, exit, "{line}: {filed:?}");
        assert!(!paper.exists() && !world.path("paper.unused").exists(), "{line}: {filed:?}");
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_lacks_a_delegated_right_is_told_which_and_by_what_command_the_patient_gives_it() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let (helper, friend) = (world.public("helper"), world.public("friend"));
    let read = format!("grant --room {room} --to {helper} --read cardiac");
    world.ok("patient", &read).await;
    let asks = |ran: &Ran, may: &str| {
        assert_eq!(ran.exit, 3, "{ran:?}");
        let line = format!("ehe authority delegate --room {room} --to FILE --may {may}");
        assert!(ran.err.contains(&line), "{line}: {ran:?}");
    };
    let invite = format!("grant --room {room} --to {friend} --read cardiac");
    asks(&world.ehe("helper", &invite).await, "grant");
    let to = format!("authority delegate --room {room} --to {helper} --may");
    world.ok("patient", &format!("{to} grant")).await;
    let made = world.ok("helper", &invite).await.trim().to_owned();
    // What it has already stands in the command, too: a delegation replaces the one before.
    let end = world.ehe("helper", &format!("revoke --room {room} --grant {made}")).await;
    asks(&end, "grant,revoke");
    assert!(end.err.contains("has not delegated") && end.err.contains("revoke"), "{end:?}");
    // What a delegate may not read itself it is told, and how it would come by it.
    for (line, words, give) in [
        (format!("grant --room {room} --to {friend} --read cardiac,sleep"), "sleep", "--read sleep"),
        (format!("grant --room {room} --to {friend} --read body --history"), "body", "--read body --history"),
    ] {
        let beyond = world.ehe("helper", &line).await;
        assert_eq!(beyond.exit, 3, "{beyond:?}");
        assert!(beyond.err.contains("may not read itself") && beyond.err.contains(words), "{beyond:?}");
        let give = format!("ehe grant --room {room} --to FILE {give}");
        assert!(beyond.err.contains(&give), "{give}: {beyond:?}");
    }
    // Its end stands there as well, or the new one would go on for ever; and that the name has to be said again.
    assert!(!end.err.contains("--expires") && end.err.contains("--name"), "{end:?}");
    world.ok("patient", &format!("{to} grant --expires 2999-01-01 --name Eva")).await;
    let end = world.ehe("helper", &format!("revoke --room {room} --grant {made}")).await;
    asks(&end, "grant,revoke --expires 2999-01-01T00:00:00.000Z`");
    assert!(end.err.contains("--name"), "{end:?}");
    world.ok("patient", &format!("authority withdraw --room {room} --delegate {}", world.id("helper"))).await;
    let ended = world.ehe("helper", &invite).await;
    asks(&ended, "grant");
    assert!(ended.err.contains("withdrawn"), "{ended:?}");
    // Only the patient delegates: no command would change that.
    let on = world.ehe("helper", &format!("authority delegate --room {room} --to {friend} --may grant")).await;
    assert!(on.exit == 3 && !on.err.contains("--may"), "{on:?}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_shows_its_delegates_and_of_each_grant_who_made_it_and_whether_it_has_history() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let (doctor, helper, friend) = (world.public("doctor"), world.public("helper"), world.public("friend"));
    world.ok("patient", &format!("grant --room {room} --to {helper} --read cardiac")).await;
    world.ok("patient", &format!("authority delegate --room {room} --to {helper} --may grant,revoke --name Eva")).await;
    world.ok("helper", &format!("grant --room {room} --to {friend} --read cardiac")).await;
    world.ok("patient", &format!("authority renew --room {room}")).await;
    world.ok("patient", &format!("grant --room {room} --to {doctor} --read cardiac --history")).await;
    world.ok("patient", &format!("grant --room {room} --to {doctor} --read cardiac")).await;

    // A gateway goes by the patient's word alone for what a key is for (SPEC K5): the delegate hears what that takes.
    let gateway = world.public("gateway");
    let append = world.ehe("helper", &format!("grant --room {room} --to {gateway} --append")).await;
    assert_eq!((append.exit, append.out.trim().len()), (0, 64), "{append:?}");
    assert!(append.err.contains("seals after the patient's next `ehe authority renew`"), "{append:?}");
    let append = world.ehe("patient", &format!("grant --room {room} --to {gateway} --append")).await;
    assert_eq!(append.err, "");

    let shown = values(&world.ok("patient", &format!("--json room show --room {room}")).await)[0].clone();
    let (id, patient) = (world.id("helper"), world.id("patient"));
    assert_eq!(shown["delegates"][0]["delegate"], id.as_str(), "{shown}");
    assert_eq!(shown["delegates"][0]["may"], serde_json::json!(["grant", "revoke"]));
    let grants = shown["grants"].as_array().unwrap();
    let by: Vec<&str> = grants.iter().map(|g| g["by"].as_str().unwrap()).collect();
    assert_eq!(by, [&patient, &id, &patient, &patient, &id, &patient]);
    let history: Vec<bool> = grants.iter().map(|g| g["history"].as_bool().unwrap()).collect();
    assert_eq!(
        history,
        [false, false, true, false, false, false],
        "a grant that goes on under new keys has no history by that"
    );
    let text = world.ok("patient", &format!("room show --room {room}")).await;
    assert!(text.contains(&format!("Eva ({id})")) && text.contains("grant, revoke"), "{text}");
    assert_eq!(text.matches("with history").count(), 1, "{text}");
    assert!(text.lines().any(|line| line.contains(&format!("Eva ({id})")) && line.contains("cardiac")), "{text}");

    // The delegate sees what it is, in the list and in the room; who is none sees nothing of it.
    let listed = world.ok("helper", "rooms").await;
    assert!(listed.contains("delegate (grant, revoke); read cardiac"), "{listed}");
    assert_eq!(
        values(&world.ok("helper", "--json rooms").await)[0]["delegate"],
        serde_json::json!(["grant", "revoke"])
    );
    assert!(!world.ok("friend", "rooms").await.contains("delegate"));
    world.ok("patient", &format!("revoke --room {room} --subject {id}")).await;
    let listed = world.ok("helper", "rooms").await;
    assert!(listed.lines().nth(1).unwrap().ends_with("delegate (grant, revoke)"), "{listed}");
    world.ok("patient", &format!("authority withdraw --room {room} --delegate {id}")).await;
    assert!(!world.ok("helper", "rooms").await.contains("delegate ("));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_with_a_refusal_says_when_the_others_of_that_hour_are_shown() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let audit = format!("audit --room {room}");
    assert!(!world.ok("patient", &audit).await.contains("within the hour"));
    for _ in 0..3 {
        assert_eq!(world.ehe("doctor", &format!("read --room {room}")).await.exit, 3);
    }
    let text = world.ok("patient", &audit).await;
    let says =
        "further refusals of the same reader within the hour appear as one line with a count when the hour is over";
    assert!(text.contains("REFUSED") && text.contains(says), "{text}");
    values(&world.ok("patient", &format!("--json {audit}")).await);
    let help = world.ok("patient", "audit --help").await;
    assert!(help.split_whitespace().collect::<Vec<_>>().join(" ").contains(says), "{help}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_recovery_that_distrusts_nothing_the_person_sees_what_stays_in_force() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let (doctor, helper, friend) = (world.public("doctor"), world.public("helper"), world.public("friend"));
    let give = format!("grant --room {room} --read cardiac --expires 2999-01-01 --name Dr+Weber --to {doctor}");
    let stays = world.ok("patient", &give).await.trim().to_owned();
    let over = world.ok("patient", &format!("grant --room {room} --to {friend} --read all")).await.trim().to_owned();
    world.ok("patient", &format!("revoke --room {room} --grant {over}")).await;
    let to = format!("authority delegate --room {room} --to {helper} --may grant --expires 2999-02-01 --name Eva");
    world.ok("patient", &to).await;
    let paper = world.path("recovery-key");
    let recover = format!("authority recover --room {room} --no-recovery --key {}", paper.display());
    let said = world.ok("fresh", &recover).await;
    let line = |with: &str| said.lines().find(|line| line.contains(with)).unwrap_or_else(|| panic!("{with}: {said}"));
    let grant = line(&stays);
    assert!(grant.contains("expires 2999-01-01") && grant.contains("Dr Weber"), "{said}");
    let delegate = line(&world.id("helper"));
    assert!(delegate.ends_with("Eva"), "what the recovery key could read of who it is, is said: {said}");
    assert!(delegate.contains("grant") && delegate.contains("expires 2999-02-01"), "{said}");
    assert!(!said.contains(&over), "what ended is not listed: {said}");
    assert!(
        said.contains("stay in force") && said.contains("ehe revoke") && said.contains("authority withdraw"),
        "{said}"
    );
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_after_a_recovery_is_in_the_json_and_what_was_distrusted_is_not() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let give = format!("grant --room {room} --read cardiac --to");
    let stays = world.ok("patient", &format!("{give} {}", world.public("doctor"))).await.trim().to_owned();
    let standing = values(&world.ok("patient", &format!("--json authority show --room {room}")).await)[0].clone();
    let before = standing["control"].as_array().unwrap().len();
    world.ok("patient", &format!("{give} {}", world.public("friend"))).await;
    let paper = world.path("recovery-key");
    let recover = format!("--json authority recover --room {room} --no-recovery --key {}", paper.display());
    let moved = world.ok("fresh", &format!("{recover} --distrust-from {before}")).await;
    let ids: Vec<_> = grants(&moved).iter().map(|g| g["grant"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, [stays]);
    assert_eq!(values(&moved)[0]["delegates"], serde_json::json!([]));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_to_rotate_to_that_are_not_there_or_not_ready_say_what_the_directory_must_be() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    std::fs::create_dir(world.path("empty")).unwrap();
    std::fs::write(world.path("file"), "x").unwrap();
    world.ok("unready", "identity new --role patient --no-passphrase").await;
    for dir in ["missing", "empty", "file", "file/in", "unready", "authority", "patient/identity.pub", "patient"] {
        for line in ["authority rotate --to", "authority resume --from"] {
            let path = world.path(dir).display().to_string();
            let wrong = world.ehe("patient", &format!("{line} {path} --room {room}")).await;
            let option = &line[line.len() - 4..].trim_start();
            assert!(matches!(wrong.exit, 1 | 2), "{dir}: {wrong:?}");
            assert!(wrong.err.contains(&format!("{option} {path}: ")), "{dir}: {wrong:?}");
            let ready = line.ends_with("--from")
                || wrong.err.contains(&format!("ehe --home {path} identity new --role patient"));
            assert!(ready || dir == "patient", "{dir}: {wrong:?}");
            assert!(wrong.err.contains("credentials directory"), "{dir}: {wrong:?}");
        }
    }
    node.stop().await.unwrap();
}

/// Runs `ehe` where there is no terminal.
async fn nobody(world: &World, who: &str, line: &str) -> String {
    let mut command = tokio::process::Command::new("setsid");
    command.args(["--wait", env!("CARGO_BIN_EXE_ehe"), "--home"]).arg(world.path(who)).args(line.split(' '));
    let ran = command.stdin(std::process::Stdio::null()).output().await.unwrap();
    assert_eq!(ran.status.code(), Some(1), "{line}: {ran:?}");
    String::from_utf8(ran.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_terminal_the_options_of_that_very_passphrase_are_named() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let words = world.path("words");
    certs::file::create_secret(&words, b"four words of mine").unwrap();
    let key = world.path("protected");
    let set = format!("room create --recovery-out {} --recovery-passphrase-file {}", key.display(), words.display());
    world.ok("patient", &set).await;
    for who in ["helper", "friend"] {
        let line = format!("identity passphrase --new-passphrase-file {} --work-factor 14", words.display());
        world.ok(who, &line).await;
    }
    let (key, helper, new) = (key.display(), world.path("helper"), world.path("new"));
    let (helper, new) = (helper.display(), new.display());
    for (who, line, names) in [
        ("unmade", "identity new --role patient".to_owned(), "--passphrase-file, or say --no-passphrase"),
        ("patient", "identity passphrase".to_owned(), "--new-passphrase-file, or say --no-passphrase"),
        ("friend", "rooms".to_owned(), "--passphrase-file"),
        (
            "patient",
            format!("room create --recovery-out {new}"),
            "--recovery-passphrase-file, or say --recovery-no-passphrase",
        ),
        ("patient", format!("authority show --room {room} --key {key}"), "--key-passphrase-file"),
        ("fresh", format!("authority recover --no-recovery --room {room} --key {key}"), "--key-passphrase-file"),
        ("patient", format!("authority rotate --room {room} --to {helper}"), "--to-passphrase-file"),
        ("patient", format!("authority resume --room {room} --from {helper}"), "--other-passphrase-file"),
        ("patient", format!("authority resume --room {room} --key {key}"), "--other-passphrase-file"),
    ] {
        let said = nobody(&world, who, &line).await;
        assert!(said.contains(&format!("name a file that holds it with {names}\n")), "{line}: {said}");
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn help_names_what_there_is_to_choose_from_and_what_a_choice_brings() {
    let world = World::new(&[("patient", Role::Patient)]);
    let help = async |line: &str| {
        let text = world.ok("patient", format!("{line} --help").trim()).await;
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let grant = help("grant").await;
    let categories = ehe::vital::Category::ALL.iter().map(|c| c.as_str());
    let listed = format!("[possible values: all, {}]", categories.collect::<Vec<_>>().join(", "));
    assert_eq!(grant.matches(&listed).count(), 2, "of --read and of --append: {grant}");
    assert!(grant.contains("seals after the patient's next `ehe authority renew`"), "{grant}");
    let delegate = help("authority delegate").await;
    for right in ["grant:", "revoke:", "epoch:"] {
        assert!(delegate.contains(right), "{delegate}");
    }
    assert!(delegate.contains("seals after the patient's next `ehe authority renew`"), "{delegate}");
    let revoke = help("revoke").await;
    let (about, _) = revoke.split_once("Usage:").unwrap();
    assert!(about.contains("--drain-until"), "it is named before anybody has cut: {about}");
    assert!(help("").await.contains("cut"), "the list of commands says that it is a cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_opened_to_no_node_of_the_alliance_and_nobody_is_asked() {
    let world = World::new(&[("patient", Role::Patient)]);
    let (room, node) = ("09090909090909090909090909090909", world.public("node"));
    for line in ["grant --read cardiac", "grant --append", "authority delegate --may grant"] {
        let ran = world.ehe("patient", &format!("{line} --room {room} --to {node}")).await;
        assert_eq!((ran.exit, ran.out.as_str()), (3, ""), "{line}: {ran:?}");
        assert!(ran.err.contains("refused: these are the keys of node.example, a node"), "{line}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_is_not_there_is_asked_for_in_words() {
    let world = World::new(&[("patient", Role::Patient)]);
    let ran = world.ehe("patient", "verify --evidence nowhere").await;
    assert_eq!(
        (ran.exit, ran.err.as_str()),
        (1, "ehe: nowhere is missing: name a file of evidence, as `ehe evidence` keeps them\n")
    );
}
