//! A real Mosquitto on a free port, wearables that publish to it, and a gateway's credentials.

#![allow(dead_code, reason = "each test file uses its part of this")]

pub(crate) mod gateway;
pub(crate) mod rogue;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use certs::authority::{AUTHORITY_DAYS, Authority};
use certs::charter_file::CharterFile;
use certs::enrol::{self, EnrolmentRequest, HostNames};
use certs::store::names;
use certs::{Role, identity_file};
use ehe::charter::{CharterChain, SignedCharter};
use rumqttc::{AsyncClient, Broker, MqttOptions, PublishOptions, PublishProperties, QoS, TlsConfiguration, Transport};

/// Longest that any condition may take on a slow machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < WITHIN, "not reached: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A Mosquitto of its own. Missing, it fails the test.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    dir: PathBuf,
    extra: String,
    child: Option<Child>,
}

impl Mosquitto {
    pub(crate) fn start(dir: &Path, extra: &str) -> Self {
        let mut broker = Self { port: free_port(), dir: dir.to_owned(), extra: extra.to_owned(), child: None };
        broker.restart();
        broker
    }

    /// With the store that an earlier one left.
    pub(crate) fn restart(&mut self) {
        let store = self.dir.join("store");
        std::fs::create_dir_all(&store).unwrap();
        let config = self.dir.join("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\npersistence true\npersistence_location {}/\nautosave_interval 1\n\
             max_queued_messages 100000\nmax_inflight_messages 100\nupgrade_outgoing_qos true\n\
             log_dest file {}\n{}\n",
            self.port,
            store.display(),
            self.dir.join("mosquitto.log").display(),
            self.extra
        );
        std::fs::write(&config, text).unwrap();
        // As root it would change to a user that may not read the temporary directory.
        let root = std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t");
        if root {
            let text = std::fs::read_to_string(&config).unwrap();
            std::fs::write(&config, format!("user root\n{text}")).unwrap();
        }
        let program =
            ["/usr/sbin/mosquitto", "mosquitto"].into_iter().find(|p| Path::new(p).exists()).unwrap_or("mosquitto");
        let child = Command::new(program).arg("-c").arg(&config).stdin(Stdio::null()).spawn();
        self.child = Some(
            child.unwrap_or_else(|e| panic!("mosquitto is needed and does not start ({e}): apt install mosquitto")),
        );
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < WITHIN, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it in order: it saves its queues.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        terminate(child.id());
        child.wait().unwrap();
    }

    /// Its sessions and queues are gone, as after a lost disk.
    pub(crate) fn forget(&self) {
        std::fs::remove_dir_all(self.dir.join("store")).unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks a process that this test holds to end. By the shell, whose `kill` is built in: a small machine has no other.
pub(crate) fn terminate(id: u32) {
    let sent = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id.to_string()]).status().unwrap();
    assert!(sent.success());
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A wearable: publishes with QoS 1 and waits for the broker's acknowledgement.
pub(crate) struct Wearable {
    client: AsyncClient,
    polling: tokio::task::JoinHandle<()>,
}

impl Wearable {
    pub(crate) fn connect(port: u16, name: &str) -> Self {
        Self::with(MqttOptions::new(name, Broker::tcp("127.0.0.1", port)))
    }

    pub(crate) fn connect_tls(port: u16, name: &str, password: &str, ca: Vec<u8>) -> Self {
        let mut options = MqttOptions::new(name, Broker::tcp("localhost", port));
        options.set_credentials(name, password.to_owned());
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Simple {
            ca,
            alpn: None,
            client_auth: None,
        }));
        Self::with(options)
    }

    fn with(mut options: MqttOptions) -> Self {
        options.set_max_packet_size(Some(1 << 20));
        let (client, mut events) = AsyncClient::builder(options).capacity(100).build();
        let polling = tokio::spawn(async move {
            loop {
                if events.poll().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        Self { client, polling }
    }

    pub(crate) async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.publish_with(topic, payload, PublishOptions::new(QoS::AtLeastOnce)).await;
    }

    /// With the content type that MQTT 5 carries beside the payload.
    pub(crate) async fn publish_as(&self, content_type: &str, topic: &str, payload: impl Into<Vec<u8>>) {
        let properties = PublishProperties { content_type: Some(content_type.to_owned()), ..Default::default() };
        self.publish_with(topic, payload, PublishOptions::new(QoS::AtLeastOnce).properties(properties)).await;
    }

    pub(crate) async fn publish_with(&self, topic: &str, payload: impl Into<Vec<u8>>, options: PublishOptions) {
        let notice = self.client.publish_tracked(topic, payload.into(), options).await.unwrap();
        tokio::time::timeout(WITHIN, notice.wait_async()).await.expect("PUBACK").unwrap();
    }
}

impl Drop for Wearable {
    fn drop(&mut self) {
        self.polling.abort();
    }
}

/// An alliance of one hospital whose node is not there, and a gateway's credentials directory. `localhost` has a certificate.
pub(crate) struct Alliance {
    pub(crate) gateway_dir: PathBuf,
    pub(crate) node_dir: PathBuf,
}

pub(crate) fn alliance(dir: &Path) -> Alliance {
    let now = time::OffsetDateTime::now_utc();
    let authority = Authority::create(&dir.join("alliance"), "Test", AUTHORITY_DAYS, now).unwrap();
    let (gateway_dir, node_dir) = (dir.join("gateway"), dir.join("node"));
    for (path, role, dns) in
        [(&gateway_dir, Role::Gateway, vec![]), (&node_dir, Role::Node, vec!["localhost".to_owned()])]
    {
        let prepared = enrol::prepare(path, role, &HostNames { dns, ip: vec![] }).unwrap();
        let request = EnrolmentRequest::load(&prepared.request).unwrap().verify().unwrap();
        let issued = authority.issue(&request, role, 30, now).unwrap();
        std::fs::write(path.join(names::CHANNEL), issued.pem).unwrap();
        std::fs::write(path.join(names::CA), authority.pem()).unwrap();
    }
    let member = identity_file::generate().unwrap();
    identity_file::create_public(&dir.join("member.pub"), member.public()).unwrap();
    let text = format!(
        "alliance = 'Test'\nshards = 4\n[[member]]\nname = 'H'\nidentity = 'member.pub'\n[[node]]\nname = 'localhost'\n\
         member = 'H'\nidentity = 'node/identity.pub'\naddresses = ['127.0.0.1:{}']\n",
        free_port()
    );
    let charter = CharterFile::parse(&text).unwrap().charter(dir, None).unwrap();
    let mut signed = SignedCharter::unsigned(&charter).unwrap();
    signed.sign(&member).unwrap();
    std::fs::write(gateway_dir.join(names::CHARTER), CharterChain(vec![signed]).encode()).unwrap();
    Alliance { gateway_dir, node_dir }
}

/// A mapping and an assignment that the tests share.
pub(crate) const COMMON: &str = r#"
[[mapping]]
name = "hr"
[[mapping.value]]
path = "hr"
vital = "heart_rate"
required = true
[[assignment]]
device = "watch"
room = "00112233445566778899aabbccddeeff"
"#;
