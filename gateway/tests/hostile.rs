//! What comes in over MQTT with ill intent or out of order: payloads, topics, properties, floods; and a broker that is none.
//!
//! After each, the next honest reading is stored once: nothing blocks what stands behind it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use rumqttc::mqttbytes::v5::PublishProperties;
use rumqttc::{PublishOptions, QoS};
use support::gateway::{Gateway, census, config, file, hold_each_once, publish, stored};
use support::rogue::{self, Act, Rogue, connack, packet};
use support::{Mosquitto, Wearable, until};

const TOPIC: &str = "wearables/watch/hr";

/// Payloads of which no reading can be made.
fn poison() -> Vec<Vec<u8>> {
    let text = |text: &str| text.as_bytes().to_vec();
    let long = "9".repeat(4_000);
    vec![
        text(""),
        text("{"),
        text("null"),
        text("[]"),
        text("{\"hr\":"),
        text("{\"hr\":72"),
        text("{\"hr\":72}}"),
        text("{\"hr\":72}{\"hr\":73}"),
        text("{\"hr\":NaN}"),
        text("{\"hr\":Infinity}"),
        text("{\"hr\":-}"),
        text("{\"hr\":072}"),
        text("{\"hr\":0x48}"),
        text("{\"hr\":1e999999}"),
        text("{\"hr\":1e-999999}"),
        text("{\"hr\":1e99999999999999999999}"),
        text(&format!("{{\"hr\":{long}}}")),
        text(&format!("{{\"hr\":0.{long}}}")),
        text(&format!("{{\"hr\":{}}}", "[".repeat(3_000))),
        text(&"{\"hr\":".repeat(1_000)),
        text(&format!("{}1{}", "[".repeat(3_000), "]".repeat(3_000))),
        text("{\"hr\":\"72\\ud800\"}"),
        text("\u{feff}{\"hr\":72}"),
        b"{\"hr\":72\0}".to_vec(),
        b"{\"hr\":\"\xff\xfe\"}".to_vec(),
        b"\xc0\x80".to_vec(),
        vec![0; 8_000],
        vec![0xff; 8_000],
        (0..=255u8).cycle().take(8_000).collect(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_payload_stops_the_reading_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let gateway = Gateway::start(dir.path(), &config(dir.path(), broker.port, "receive_maximum = 2"), file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    let payloads = poison();
    let count = u32::try_from(payloads.len()).unwrap();
    for (value, payload) in (0..count).zip(payloads) {
        wearable.publish(TOPIC, payload).await;
        publish(&wearable, value..value + 1).await;
    }
    gateway.until("all honest ones stored", |counts| stored(counts) == u64::from(count)).await;
    hold_each_once(&gateway.spool, 0..count).await;
    until("all acknowledged", async || gateway.counts().sources["mqtt"].acknowledged == 2 * u64::from(count)).await;
    let counts = gateway.counts();
    assert_eq!(counts.rejected.values().sum::<u64>(), u64::from(count), "{:?}", counts.rejected);
    assert_eq!(counts.sources["mqtt"].disconnects, 0);
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn properties_and_flags_of_mqtt_5_change_nothing_about_a_reading() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let gateway = Gateway::start(dir.path(), &config(dir.path(), broker.port, ""), file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    let properties = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(3_600),
        response_topic: Some("wearables/watch/answer".into()),
        correlation_data: Some(vec![0xff; 100].into()),
        user_properties: (0..50).map(|n| (format!("key {n}"), "x".repeat(40))).collect(),
        content_type: Some("application/fhir+json; charset=latin1".into()),
        ..PublishProperties::default()
    };
    let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
    wearable.publish_with(TOPIC, "{\"hr\":0}", options.clone()).await;
    wearable.publish_with(TOPIC, "{\"hr\":1}", options.retained()).await;
    wearable.publish_with(TOPIC, "{\"hr\":2}", PublishOptions::new(QoS::ExactlyOnce)).await;
    publish(&wearable, 3..4).await;
    gateway.until("stored", |counts| stored(counts) == 4).await;
    hold_each_once(&gateway.spool, 0..4).await;
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_topics_name_no_device_or_one_that_is_only_held() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let gateway = Gateway::start(dir.path(), &config(dir.path(), broker.port, ""), file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    let refused = [
        "wearables//hr".to_owned(),
        format!("wearables/{}/hr", "x".repeat(65)),
        format!("wearables/{}/hr", "é".repeat(40)),
    ];
    // Control characters never reach us (the broker ends such a connection), or name no device.
    let held = ["..", "$SYS", "watch ", " watch", "wátch", "Watch", "'; DROP TABLE", "%2e%2e", "{1}", "\u{202e}hctaw"];
    for device in &held {
        wearable.publish(&format!("wearables/{device}/hr"), "{\"hr\":9999}").await;
    }
    for topic in &refused {
        wearable.publish(topic, "{\"hr\":9999}").await;
    }
    publish(&wearable, 0..3).await;
    gateway.until("stored", |counts| stored(counts) == 3).await;
    hold_each_once(&gateway.spool, 0..3).await;
    assert_eq!(gateway.counts().rejected.get("device_id"), Some(&(refused.len() as u64)));
    let found: BTreeSet<String> =
        gateway.spool.held_devices().await.unwrap().into_iter().map(|(_, d)| d.device).collect();
    assert_eq!(found, held.iter().map(|&d| d.to_owned()).collect());
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_devices_fills_its_own_share_and_the_patients_readings_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let config = config(dir.path(), broker.port, "")
        .replace("[spool]", "[spool]\nheld_devices_max = 20\nmax_mib = 4\nheld_max_mib = 1\nquarantine_max_mib = 1");
    let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
    gateway.connected().await;
    let neighbours = Wearable::connect(broker.port, "neighbours");
    let wearable = Wearable::connect(broker.port, "watch");
    let flood = async {
        for n in 0..1_000 {
            neighbours.publish(&format!("wearables/neighbour-{n}/hr"), "{\"hr\":60}").await;
        }
    };
    tokio::join!(flood, publish(&wearable, 0..50));
    gateway.until("stored", |counts| stored(counts) == 50).await;
    gateway.until("the flood is over", |counts| counts.readings_held + counts.readings_dropped == 1_000).await;
    hold_each_once(&gateway.spool, 0..50).await;
    let devices = gateway.spool.held_devices().await.unwrap();
    assert!(devices.len() <= 21, "{}", devices.len());
    assert_eq!(
        devices.iter().map(|(_, d)| d.readings + d.dropped).sum::<u64>(),
        1_000,
        "each is held, or its drop recorded"
    );
    gateway.end().await;
}

/// Connections on which an MQTT client can go wrong.
fn acts() -> Vec<Act> {
    let accepted = connack(false, 0, &[]);
    let after = |more: &[u8]| [&accepted[..], more].concat();
    let reading = rogue::publish(2, TOPIC.as_bytes(), 7, &[], b"{\"hr\":4444}");
    let garbage: Vec<u8> = (0..4_096u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    let huge = [0x32, 0xff, 0xff, 0xff, 0x7f];
    vec![
        Act::Close,
        Act::Silence,
        Act::Say(garbage.clone()),
        Act::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        Act::SayForEver(garbage),
        // Before and in place of CONNACK.
        Act::Say(reading.clone()),
        Act::Say(connack(false, 0x87, &[])),
        Act::Say(connack(false, 0x42, &[])),
        Act::Say(packet(0x20, &[])),
        Act::Say(packet(0x20, &[0xff; 60])),
        Act::SayAndClose(accepted[..2].to_vec()),
        // Properties that leave the client no room: nothing unacknowledged may be under way, packets of one byte.
        Act::SayAndClose(connack(false, 0, &[0x21, 0, 0])),
        Act::SayAndClose(connack(false, 0, &[0x27, 0, 0, 0, 1])),
        // Remaining lengths.
        Act::SayForEver(after(&huge)),
        Act::Say(after(&[0x32, 0xff, 0xff, 0xff, 0xff, 0xff])),
        Act::SayAndClose(after(&reading[..reading.len() / 2])),
        Act::Say(after(&reading[..reading.len() / 2])),
        // Packets that make no sense here.
        Act::SayAndClose(after(&packet(0x40, &[0, 9]))),
        Act::SayAndClose(after(&packet(0x62, &[0, 9]))),
        Act::SayAndClose(after(&packet(0x90, &[0, 99, 0, 0]))),
        Act::SayAndClose(after(&packet(0xb0, &[0, 99, 0, 0]))),
        Act::SayAndClose(after(&packet(0xf0, &[0x19, 0]))),
        Act::SayAndClose(after(&packet(0x10, &[0; 20]))),
        Act::SayAndClose(after(&packet(0x00, &[]))),
        Act::SayAndClose(after(&packet(0xe0, &[0x8e, 0]))),
        // PUBLISH: id 0, both QoS bits, an alias that was never named, a topic that is no UTF-8, a length beyond the packet.
        Act::SayAndClose(after(&rogue::publish(2, TOPIC.as_bytes(), 0, &[], b"{}"))),
        Act::SayAndClose(after(&rogue::publish(6, TOPIC.as_bytes(), 5, &[], b"{}"))),
        Act::SayAndClose(after(&rogue::publish(2, b"", 5, &[0x23, 0xff, 0xff], b"{}"))),
        Act::SayAndClose(after(&rogue::publish(2, b"wearables/\xff/hr", 5, &[], b"{}"))),
        Act::SayAndClose(after(&packet(0x32, &[0xff, 0xff, b'x']))),
        Act::SayAndClose(after(&rogue::publish(2, TOPIC.as_bytes(), 5, &[0x7f, 1], b"{}"))),
        // More under way than was allowed, and one id twice.
        Act::SayAndClose(after(&(1..300).flat_map(|id| rogue::publish(2, b"x", id, &[], b"{}")).collect::<Vec<_>>())),
        Act::SayAndClose(after(&rogue::publish(2, b"x", 5, &[], b"{}").repeat(2))),
        Act::Drip,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_broker_says_the_gateway_comes_back_and_the_honest_broker_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let honest = Mosquitto::start(dir.path(), "allow_anonymous true");
    let acts = acts();
    let count = acts.len();
    let rogue = Rogue::start(acts, honest.port).await;
    let more = "connect_timeout_ms = 200\nkeep_alive_s = 1";
    let config = config(dir.path(), rogue.port, more).replace("backoff_max_ms = 100", "backoff_max_ms = 20");
    let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
    let wearable = Wearable::connect(honest.port, "watch");
    let kinds = Arc::new(Mutex::new(BTreeSet::new()));
    let (seen, taken) = (kinds.clone(), rogue.taken.clone());
    until("all acts are over", async || {
        seen.lock().unwrap().extend(gateway.counts().sources.get("mqtt").and_then(|source| source.last_error));
        taken.load(Ordering::SeqCst) >= count
    })
    .await;
    // The last act is the honest broker's words, byte by byte.
    until("subscribed", async || gateway.counts().sources["mqtt"].subscribed).await;
    publish(&wearable, 0..20).await;
    until("stored", async || census(&gateway.spool).await.contains_key("19")).await;
    let found = census(&gateway.spool).await;
    assert!((0..20).all(|value| found.get(&value.to_string()) == Some(&1)), "{found:?}");
    // A dishonest broker can invent readings as any publisher can; it cannot make one out of half a packet.
    assert!(!found.contains_key("4444"), "{found:?}");
    let kinds = kinds.lock().unwrap().clone();
    assert!(kinds.len() > 2 && !kinds.contains("other"), "each has a name: {kinds:?}");
    assert!(rogue.swallowed.load(Ordering::SeqCst) < 16 << 20, "announced without end, and not read");
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_another_authoritys_certificate_is_refused_and_said() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (alliance, stranger) = (support::alliance(dir.path()), support::alliance(other.path()));
    let node = &alliance.node_dir;
    let extra = format!(
        "certfile {}\nkeyfile {}\nallow_anonymous true",
        node.join("channel.crt").display(),
        node.join("channel.key").display()
    );
    let broker = Mosquitto::start(dir.path(), &extra);
    let tls = |host: &str, ca: &std::path::Path| format!("host = '{host}'\ntls = {{ ca_file = '{}' }}", ca.display());
    let refused = [
        ("another authority", tls("localhost", &stranger.node_dir.join("ca.crt"))),
        // The certificate is for `localhost`.
        ("another name", tls("127.0.0.1", &node.join("ca.crt"))),
    ];
    for (what, more) in refused {
        let gateway = Gateway::start(dir.path(), &config(dir.path(), broker.port, &more), file(dir.path()));
        gateway.until(what, |c| c.sources.get("mqtt").and_then(|s| s.last_error) == Some("tls")).await;
        assert!(!gateway.counts().sources["mqtt"].connected, "{what}");
        gateway.end().await;
    }
    // Something that speaks no TLS at all.
    let rogue = Rogue::start(vec![Act::Say(vec![0x16; 100])], broker.port).await;
    let more = tls("localhost", &node.join("ca.crt"));
    let gateway = Gateway::start(dir.path(), &config(dir.path(), rogue.port, &more), file(dir.path()));
    gateway.connected().await;
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_leaves_messages_with_the_broker_and_goes_on_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(dir.path(), "allow_anonymous true");
    let config = config(dir.path(), broker.port, "")
        .replace("[spool]", "[spool]\nmax_mib = 1\nroom_max_percent = 100\nheld_max_mib = 0\nquarantine_max_mib = 0");
    let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
    gateway.connected().await;
    let wearable = Wearable::connect(broker.port, "watch");
    let mut value = 0;
    while !gateway.spool.status().full {
        publish(&wearable, value..value + 20).await;
        value += 20;
    }
    publish(&wearable, value..value + 50).await;
    let before = gateway.counts().sources["mqtt"].acknowledged;
    assert!(before < u64::from(value) + 50);
    // Killed with a full spool: the broker has kept what was not acknowledged.
    gateway.kill().await;
    let gateway = Gateway::start(dir.path(), &config, file(dir.path()));
    until("still full", async || gateway.spool.status().full).await;
    assert_eq!(gateway.counts().readings, 0);
    // What lies there becomes events and leaves; here it simply leaves.
    let mut left = BTreeSet::new();
    until("everything has come", async || {
        for window in gateway.spool.windows().await.unwrap() {
            let taken = gateway.spool.take(window.window, 1_000).await.unwrap();
            left.extend(taken.readings.iter().map(|reading| reading.value().to_string()));
            gateway.spool.seal(taken.rows, taken.broken, Vec::new()).await.unwrap();
        }
        left.len() == usize::try_from(value).unwrap() + 50
    })
    .await;
    assert!(!gateway.spool.status().full);
    gateway.end().await;
}
