//! Broker, source, dispatch and spool together: a real Mosquitto, a real redb file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ehe_gateway::config::Config;
use ehe_gateway::spool::OpenDatabase;
use ehe_gateway::status::Counts;
use redb::{Database, StorageBackend};
use support::gateway::{Gateway, census, config, file, hold_each_once, publish, stored};
use support::{Mosquitto, Wearable, until};

/// A database that refuses every sync while the switch is on.
#[derive(Debug)]
struct Refusing {
    inner: redb::backends::FileBackend,
    refuse: Arc<AtomicBool>,
}

impl StorageBackend for Refusing {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.refuse.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.refuse.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

fn refusing(data: &Path, refuse: &Arc<AtomicBool>) -> OpenDatabase {
    let (path, refuse) = (data.join("spool.redb"), refuse.clone());
    Box::new(move || {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let inner = redb::backends::FileBackend::new(file)?;
        Database::builder().create_with_backend(Refusing { inner, refuse: refuse.clone() })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_stored_once_and_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let config = config(dir.path(), broker.port, "");
    let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    publish(&wearable, 0..50).await;
    gateway.until("stored", |counts| stored(counts) == 50).await;
    gateway.end().await;
    // What is published while the gateway is away waits in its session.
    publish(&wearable, 50..60).await;
    let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
    gateway.until("stored", |counts| stored(counts) >= 10).await;
    hold_each_once(&gateway.spool, 0..60).await;
    assert_eq!(gateway.counts().sources["mqtt"].messages, 10 + gateway.counts().sources["mqtt"].duplicates);
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_before_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let config = config(dir.path(), broker.port, "");
    let refuse = Arc::new(AtomicBool::new(false));
    let gateway = Gateway::start(dir.path(), &config, refusing(dir.path(), &refuse));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    publish(&wearable, 0..5).await;
    gateway.until("stored", |counts| stored(counts) == 5).await;
    refuse.store(true, Ordering::SeqCst);
    publish(&wearable, 5..30).await;
    gateway.until("received", |counts| counts.sources["mqtt"].messages == 30).await;
    until("the fault is said", async || gateway.spool.status().fault.is_some()).await;
    assert_eq!(gateway.counts().sources["mqtt"].acknowledged, 5);
    // Killed between receipt and commit: the broker sends them again.
    gateway.kill().await;
    refuse.store(false, Ordering::SeqCst);
    let gateway = Gateway::start(dir.path(), &config, refusing(dir.path(), &refuse));
    gateway.until("stored", |counts| stored(counts) == 25).await;
    hold_each_once(&gateway.spool, 0..30).await;
    // And without being killed it goes on by itself.
    refuse.store(true, Ordering::SeqCst);
    publish(&wearable, 30..40).await;
    until("the fault is said", async || gateway.spool.status().fault.is_some()).await;
    refuse.store(false, Ordering::SeqCst);
    gateway.until("stored", |counts| stored(counts) == 35).await;
    assert_eq!(gateway.spool.status().fault, None);
    hold_each_once(&gateway.spool, 0..40).await;
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_and_not_acknowledged_is_recognised_when_it_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let config = config(dir.path(), broker.port, "");
    // The same digits each time: only packet id and session tell them apart.
    let wearable = Wearable::connect(broker.port, "watch");
    let mut published = 0;
    let mut duplicates = 0;
    for round in 0..8 {
        let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
        gateway.connected().await;
        let before = gateway.spool.status().commits;
        for _ in 0..10 {
            wearable.publish("wearables/watch/hr", "{\"hr\":72}").await;
            published += 1;
        }
        until("a commit", async || gateway.spool.status().commits > before).await;
        duplicates += gateway.counts().sources["mqtt"].duplicates;
        if round % 2 == 0 { gateway.kill().await } else { gateway.end().await }
    }
    let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
    gateway.connected().await;
    until("all stored", async || census(&gateway.spool).await.values().sum::<usize>() >= published).await;
    // The last one of all shows that nothing comes after it.
    wearable.publish("wearables/watch/hr", "{\"hr\":1}").await;
    until("the last", async || census(&gateway.spool).await.contains_key("1")).await;
    assert_eq!(census(&gateway.spool).await["72"], published, "{duplicates} redeliveries were recognised");
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_is_found_again_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let gateway = Gateway::start(dir.path(), &config(dir.path(), broker.port, ""), file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    publish(&wearable, 0..20).await;
    gateway.until("stored", |counts| stored(counts) == 20).await;
    broker.stop();
    gateway.until("noticed", |counts| !counts.sources["mqtt"].connected).await;
    broker.restart();
    publish(&wearable, 20..40).await;
    gateway.until("stored", |counts| stored(counts) == 40).await;
    hold_each_once(&gateway.spool, 0..40).await;
    assert_eq!(gateway.counts().sources["mqtt"].sessions_lost, 0);
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_has_forgotten_the_session_is_subscribed_to_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let gateway = Gateway::start(dir.path(), &config(dir.path(), broker.port, ""), file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    publish(&wearable, 0..10).await;
    gateway.until("stored", |counts| stored(counts) == 10).await;
    broker.stop();
    broker.forget();
    broker.restart();
    gateway.until("said", |counts| counts.sources["mqtt"].sessions_lost == 1).await;
    gateway.connected().await;
    // Published once the subscription stands again; until then there is nobody whom the broker could keep it for.
    let mut value = 10;
    while stored(&gateway.counts()) == 10 {
        publish(&wearable, value..value + 1).await;
        value += 1;
    }
    publish(&wearable, 100_000..100_010).await;
    until("all", async || census(&gateway.spool).await.contains_key("100009")).await;
    let found = census(&gateway.spool).await;
    assert!((100_000..100_010).all(|value| found.get(&value.to_string()) == Some(&1)));
    assert!(found.values().all(|count| *count == 1));
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_and_oversized_messages_are_counted_and_block_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let slots = "[[mqtt.subscription]]\ntopic = 'scales/+/+/hr'\ndevice = '{1}'\nuser = '{2}'\nmapping = 'hr'";
    let config = config(dir.path(), broker.port, &format!("receive_maximum = 3\n{slots}"));
    let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    let topic = "wearables/watch/hr";
    for round in 0..5 {
        wearable.publish(topic, "").await;
        wearable.publish(topic, "{\"hr\":").await;
        wearable.publish(topic, "{\"hr\":\"fast\"}").await;
        wearable.publish(topic, "[".repeat(5000)).await;
        wearable.publish(topic, vec![0xff; 100]).await;
        wearable.publish(topic, "{\"spo2\":97}").await;
        wearable.publish(topic, vec![b' '; 20_000]).await;
        wearable.publish("wearables//hr", "{\"hr\":70}").await;
        wearable.publish(&format!("wearables/{}/hr", "x".repeat(65)), "{\"hr\":70}").await;
        wearable.publish(&format!("scales/scale/{}/hr", "x".repeat(65)), "{\"hr\":70}").await;
        publish(&wearable, round..round + 1).await;
    }
    gateway.until("stored", |counts| stored(counts) == 5).await;
    hold_each_once(&gateway.spool, 0..5).await;
    let counts = gateway.counts();
    let rejected = |kind: &str| counts.rejected.get(kind).copied().unwrap_or(0);
    assert_eq!(rejected("device_id"), 10, "{:?}", counts.rejected);
    assert_eq!(rejected("user_slot"), 5, "{:?}", counts.rejected);
    assert_eq!(rejected("missing"), 5, "{:?}", counts.rejected);
    assert_eq!(counts.rejected.values().sum::<u64>(), 45, "{:?}", counts.rejected);
    let source = &counts.sources["mqtt"];
    assert_eq!((source.messages, source.disconnects), (50, 0), "the oversized ones were not sent to us");
    until("acknowledged", async || gateway.counts().sources["mqtt"].acknowledged == 50).await;
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retained_message_is_not_stored_again_by_a_new_subscription() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let gateway = Gateway::start(dir.path(), &config(dir.path(), broker.port, ""), file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    publish(&wearable, 0..1).await;
    gateway.until("stored", |counts| stored(counts) == 1).await;
    gateway.end().await;
    // Another gateway data directory, another session: what the broker retains for the topic must not come.
    let retained = std::process::Command::new("mosquitto_pub")
        .args(["-p", &broker.port.to_string(), "-t", "wearables/watch/hr", "-m", "{\"hr\":999999}", "-r", "-q", "1"])
        .status();
    assert!(retained.expect("mosquitto_pub is needed: apt install mosquitto-clients").success());
    let other = tempfile::tempdir().unwrap();
    let config = config(other.path(), broker.port, "").replace("client_id = 'gw'", "client_id = 'other'");
    let gateway = Gateway::start(other.path(), &config, file(other.path()));
    gateway.connected().await;
    let mut value = 1;
    while stored(&gateway.counts()) == 0 {
        publish(&wearable, value..value + 1).await;
        value += 1;
    }
    assert!(!census(&gateway.spool).await.contains_key("999999"));
    gateway.end().await;
    broker.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_password_work_and_wrong_ones_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let alliance = support::alliance(dir.path());
    let passwords = dir.path().join("passwd");
    for name in ["gw", "watch"] {
        let made = std::process::Command::new("mosquitto_passwd")
            .args(if passwords.exists() { vec!["-b"] } else { vec!["-c", "-b"] })
            .arg(&passwords)
            .args([name, &format!("{name} secret")])
            .status();
        assert!(made.expect("mosquitto_passwd is needed: apt install mosquitto").success());
    }
    let node = &alliance.node_dir;
    let extra = format!(
        "certfile {}\nkeyfile {}\nallow_anonymous false\npassword_file {}",
        node.join("channel.crt").display(),
        node.join("channel.key").display(),
        passwords.display()
    );
    let broker = Mosquitto::start(dir.path(), &extra);
    let secret = dir.path().join("password");
    std::fs::write(&secret, "gw secret\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let wrong = dir.path().join("wrong");
    std::fs::write(&wrong, "guess").unwrap();
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ca = node.join("ca.crt");
    let more = |password: &Path| {
        format!(
            "host = 'localhost'\nusername = 'gw'\npassword_file = '{}'\ntls = {{ ca_file = '{}' }}",
            password.display(),
            ca.display()
        )
    };
    let refused = Gateway::start(dir.path(), &config(dir.path(), broker.port, &more(&wrong)), file(dir.path()));
    refused.until("refused", |c| c.sources.get("mqtt").and_then(|s| s.last_error) == Some("not_authorized")).await;
    refused.end().await;
    let plain = Gateway::start(dir.path(), &config(dir.path(), broker.port, ""), file(dir.path()));
    plain.until("not TLS", |c| c.sources.get("mqtt").is_some_and(|s| s.last_error.is_some())).await;
    assert!(!plain.counts().sources["mqtt"].connected);
    plain.end().await;

    let gateway = Gateway::start(dir.path(), &config(dir.path(), broker.port, &more(&secret)), file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect_tls(broker.port, "watch", "watch secret", std::fs::read(&ca).unwrap());
    publish(&wearable, 0..10).await;
    gateway.until("stored", |counts| stored(counts) == 10).await;
    hold_each_once(&gateway.spool, 0..10).await;
    gateway.end().await;
}

#[test]
fn a_password_that_everybody_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "x").unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let more = format!("username = 'gw'\npassword_file = '{}'", password.display());
    let config = Config::parse(&config(dir.path(), 1883, &more), Path::new("t")).unwrap();
    let error = ehe_gateway::source::mqtt::check(&config.mqtt[0]).unwrap_err().to_string();
    assert!(error.contains("chmod"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_with_one_client_id_are_told_so_and_pause() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let first = Gateway::start(dir.path(), &config(dir.path(), broker.port, ""), file(dir.path()));
    first.connected().await;
    let second = Gateway::start(other.path(), &config(other.path(), broker.port, ""), file(other.path()));
    // By the broker's word, or, where the connection is gone before that is read, by its pattern.
    let told =
        |counts: &Counts| matches!(counts.sources["mqtt"].last_error, Some("client_id_taken" | "short_connections"));
    first.until("put out", told).await;
    second.end().await;
    first.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_which_the_mapping_finds_no_value_is_counted_for_its_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let config = config(dir.path(), broker.port, "").replace("required = true", "");
    let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
    gateway.connected().await;
    Wearable::connect(broker.port, "watch").publish("wearables/watch/hr", "{\"x\":1}").await;
    gateway.until("counted", |counts| counts.no_value.get("mqtt/hr") == Some(&1)).await;
    assert!(gateway.counts().rejected.is_empty(), "a heartbeat is no fault");
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_formats_are_stored_by_content_type_by_document_and_by_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let formats = "[[mqtt.subscription]]\ntopic = 'health/+'\ndevice = '{1}'\nformat = 'auto'\n\
                   [[mqtt.subscription]]\ntopic = 'phone/+'\ndevice = '{1}'\nformat = 'open_mhealth'\nschema = 'omh:heart-rate:2.0'\n\
                   [[mqtt.subscription]]\ntopic = 'home/+/BTtoMQTT/+'\ndevice = '{2}'\nformat = 'theengs'";
    let own = "[[senml]]\nname = 'chest'\nunit = 'Cel'\nvital = 'body_temperature'";
    let config = format!("{}\n{own}", config(dir.path(), broker.port, formats));
    let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    let senml = r#"[{"bn":"urn:dev:mac:0024befffe804ff1/","n":"hr","u":"beat/min","v":61},{"n":"chest","u":"Cel","v":36.60},{"n":"room","u":"Cel","v":21}]"#;
    wearable.publish_as("application/senml+json", "health/watch", senml).await;
    let cbor = b"\x81\xa3\x00\x64x:hr\x01\x68beat/min\x02\x18\x3e";
    wearable.publish_as("application/senml+cbor", "health/watch", cbor.as_slice()).await;
    let observation = r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"8867-4"}]},"effectiveDateTime":"2023-02-05T07:25:00Z","valueQuantity":{"value":63,"system":"http://unitsofmeasure.org","code":"/min"}}"#;
    wearable.publish("health/watch", observation).await;
    wearable.publish("health/watch", observation.replace("final", "entered-in-error").replace("63", "99")).await;
    wearable.publish("health/watch", senml).await; // says nowhere what it is
    wearable
        .publish("phone/watch", r#"{"heart_rate":{"value":64,"unit":"beats/min"},"effective_time_frame":{"date_time":"2023-02-05T07:25:00Z"}}"#)
        .await;
    wearable.publish("home/OMG/BTtoMQTT/watch", r#"{"type":"BODY","bpm":65,"rssi":-70}"#).await;
    gateway.until("stored", |counts| stored(counts) == 6).await;
    let found: Vec<_> = census(&gateway.spool).await.into_keys().collect();
    assert_eq!(found, ["36.60", "61", "62", "63", "64", "65"]);
    gateway.until("counted", |counts| counts.rejected.get("unsupported") == Some(&1)).await;
    let bound = observation.replace("\"value\":63", "\"value\":63,\"comparator\":\"<\"");
    wearable.publish("health/watch", bound).await;
    wearable.publish("home/OMG/BTtoMQTT/watch", r#"{"type":"THB","tempc":21,"rssi":-70}"#).await;
    let none = |counts: &Counts, route: &str| counts.no_value.get(&format!("mqtt/{route}")).copied();
    let counted = |counts: &Counts| none(counts, "theengs") == Some(1) && none(counts, "auto/comparator") == Some(1);
    gateway.until("counted by the route's name", counted).await;
    assert_eq!(none(&gateway.counts(), "auto"), Some(1), "the one entered in error");
    gateway.end().await;
}
