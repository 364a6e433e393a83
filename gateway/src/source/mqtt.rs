//! MQTT 5, QoS 1, persistent session: the broker keeps what the gateway has not acknowledged, and the gateway acknowledges
//! what its spool has committed.
//!
//! One task polls the connection and is never interrupted while it writes; a second one hands acknowledgements over. An
//! acknowledgement belongs to the connection on which its message came: after a reconnect the broker sends the message again,
//! the spool recognises it ([`Mark`]), and the new delivery is acknowledged instead. The session's state on our side is empty by
//! nature (MQTT 5.0 section 4.1: we publish nothing and take no QoS 2), so nothing of it needs to survive a restart.

mod retry;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rumqttc::{
    AckMode, AsyncClient, Broker, ConnectReturnCode, ConnectionError, DisconnectReasonCode, Event, EventLoop, Incoming,
    ManualAck, MqttOptions, PersistedAckMode, PersistedSession, Publish, QoS, RetainForwardRule, SessionStore,
    SessionStoreError, SessionStoreKey, StateError, SubscribeFilterInput, SubscribeReasonCode, TlsConfiguration,
    Transport,
};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use self::retry::{Ended, Retry};
use super::{Ack, Input, Message};
use crate::clock::SystemClock;
use crate::config::{ConfigError, Mqtt};
use crate::spool::Mark;
use crate::status::Counters;

/// Where Mosquitto counts the messages that it dropped because a queue was full. It acknowledges those to their senders.
const DROPPED_TOPIC: &str = "$SYS/broker/publish/messages/dropped";
/// Requests that we make beside acknowledgements.
const OTHER_REQUESTS: usize = 16;
/// Messages of our own that may be under way: there are none, but the client makes a place of some 200 bytes for each, 14 MiB
/// where nothing is said, and twice that when it connects.
const PUBLISHED_MAX: u16 = 1;
const READ_BATCH: usize = 128;
/// Acknowledgements in one write: one commit's become durable together.
const WRITE_BATCH: usize = 64;
/// Largest password file, certificate or key.
const FILE_MAX_BYTES: usize = 256 * 1024;

/// A durable message's acknowledgement, with the connection that it belongs to.
#[derive(Debug)]
pub struct Acked {
    connection: u64,
    ack: ManualAck,
}

/// One broker.
pub struct MqttSource {
    config: Mqtt,
    name: Arc<str>,
    options: MqttOptions,
    clock: SystemClock,
    counters: Arc<Counters>,
}

/// The connection that acknowledgements may go to; holding the lock keeps it from changing.
type Current = Arc<Mutex<u64>>;

impl MqttSource {
    /// Reads the files that the configuration names.
    pub fn new(config: Mqtt, clock: SystemClock, counters: Arc<Counters>) -> Result<Self, ConfigError> {
        let options = options(&config)?;
        Ok(Self { name: config.name.as_str().into(), config, options, clock, counters })
    }

    /// Runs until `stop`: connects, subscribes, hands messages over, acknowledges, connects again.
    pub async fn run(self, inputs: mpsc::Sender<Input>, stop: CancellationToken) {
        let in_flight = usize::from(self.config.receive_maximum);
        let (client, mut events) =
            AsyncClient::builder(self.options.clone()).capacity(2 * in_flight + OTHER_REQUESTS).build();
        let (acks, acked) = mpsc::channel(in_flight);
        let current: Current = Arc::default();
        let acknowledging = acknowledge(client.clone(), acked, current.clone());
        let polling = self.poll(&client, &mut events, &inputs, &acks, &current, &stop);
        tokio::select! {
            () = polling => {}
            () = acknowledging => {}
            () = stop.cancelled() => {}
        }
        // What was committed but not acknowledged comes again at the next start, and is recognised.
        if client.try_disconnect_now().is_ok() {
            let farewell = async { while events.poll().await.is_ok() {} };
            let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
        }
        self.counters.source(&self.name, |s| (s.connected, s.subscribed) = (false, false));
    }

    async fn poll(
        &self,
        client: &AsyncClient,
        events: &mut EventLoop,
        inputs: &mpsc::Sender<Input>,
        acks: &mpsc::Sender<Acked>,
        current: &Current,
        stop: &CancellationToken,
    ) {
        let mut retry = Retry::new(self.config.backoff_min_ms, self.config.backoff_max_ms);
        let mut subscribed = false;
        let mut since: Option<Instant> = None;
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Incoming::ConnAck(ack))) => {
                    since = Some(Instant::now());
                    tracing::info!(source = %self.name, session_present = ack.session_present, "mqtt: connected");
                    self.counters.source(&self.name, |s| {
                        s.connected = true;
                        s.last_error = None;
                        s.sessions_lost += u64::from(!ack.session_present && subscribed);
                    });
                    if !ack.session_present {
                        if subscribed {
                            tracing::error!(source = %self.name, "mqtt: the broker has lost our session and what it had queued for us; subscribing anew");
                        }
                        if inputs.send(Input::NewSession(self.name.clone())).await.is_err() {
                            return;
                        }
                    }
                    // Also in a session that is present, once after each start: the configuration may have changed. And
                    // again where the connection broke before the broker had answered: only its answer counts.
                    subscribed &= ack.session_present;
                    if !subscribed {
                        self.subscribe(client);
                    }
                    self.counters.source(&self.name, |s| s.subscribed = subscribed);
                }
                Ok(Event::Incoming(Incoming::Publish(publish))) => {
                    let connection = *lock(current);
                    if self.received(client, publish, connection, inputs, acks).await.is_err() {
                        return;
                    }
                }
                Ok(Event::Incoming(Incoming::SubAck(ack))) => {
                    subscribed = true;
                    self.counters.source(&self.name, |s| s.subscribed = true);
                    // In the order in which they were asked for: the broker's own counter comes last, and is a luxury.
                    let asked = self.config.subscription.len();
                    for code in ack.return_codes.into_iter().take(asked) {
                        if !matches!(code, SubscribeReasonCode::Success(_)) {
                            tracing::error!(source = %self.name, ?code, "mqtt: the broker refuses a subscription; allow it in the broker's ACL");
                            self.counters.source(&self.name, |s| s.last_error = Some("subscription_refused"));
                        }
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    // From here on no acknowledgement of the old connection is handed over; what was, is thrown away here.
                    *lock(current) += 1;
                    events.clean();
                    let Ended { kind, say, pause_ms } =
                        retry.ended(kind(&error), since.take().map(|since| since.elapsed()));
                    self.counters.source(&self.name, |s| {
                        s.disconnects += u64::from(s.connected);
                        (s.connected, s.subscribed) = (false, false);
                        s.last_error = Some(kind);
                    });
                    if say {
                        tracing::warn!(source = %self.name, kind, remedy = remedy(kind), "mqtt: not connected; trying again");
                    }
                    let pause = jittered(pause_ms);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Retained messages are copies of what was delivered when it was new: a new subscription must not store them again.
    fn subscribe(&self, client: &AsyncClient) {
        let filters = self.config.subscription.iter().map(|s| {
            SubscribeFilterInput::new(s.topic.as_str(), QoS::AtLeastOnce).retain_forward_rule(RetainForwardRule::Never)
        });
        let dropped = SubscribeFilterInput::new(DROPPED_TOPIC, QoS::AtMostOnce);
        if let Err(error) = client.try_subscribe_many(filters.chain([dropped])) {
            tracing::error!(source = %self.name, %error, "mqtt: could not subscribe");
        }
    }

    async fn received(
        &self,
        client: &AsyncClient,
        publish: Publish,
        connection: u64,
        inputs: &mpsc::Sender<Input>,
        acks: &mpsc::Sender<Acked>,
    ) -> Result<(), mpsc::error::SendError<Input>> {
        if publish.topic == DROPPED_TOPIC.as_bytes() {
            self.dropped_by_broker(&publish.payload);
            return Ok(());
        }
        let acked = client.prepare_ack(&publish).map(|ack| Acked { connection, ack });
        let guaranteed = acked.is_some();
        let mark = guaranteed.then(|| Mark {
            source: self.name.clone(),
            packet_id: publish.pkid,
            dup: publish.dup,
            hash: hash(&publish.topic, &publish.payload),
            // At most receive_maximum were under way when the connection broke, and at most as many more were committed
            // since while their acknowledgements were on the way.
            keep: 2 * u64::from(self.config.receive_maximum),
            connection,
        });
        let message = Message {
            source: self.name.clone(),
            // A topic is UTF-8 (section 1.5.4). One that is not matches no filter, is counted and acknowledged.
            topic: String::from_utf8(publish.topic.to_vec()).unwrap_or_default(),
            payload: publish.payload,
            content_type: publish.properties.and_then(|properties| properties.content_type),
            received: self.clock.now(),
            mark,
            position: None,
            ack: acked.map_or(Ack::None, |acked| Ack::Mqtt(acks.clone(), acked)),
        };
        if guaranteed {
            return inputs.send(Input::Message(Box::new(message))).await;
        }
        // Without a guarantee nobody counts what is under way, so here is where it is bounded.
        match inputs.try_send(Input::Message(Box::new(message))) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.counters.source(&self.name, |s| s.dropped_unguaranteed += 1);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(input)) => Err(mpsc::error::SendError(input)),
            Ok(()) => Ok(()),
        }
    }

    fn dropped_by_broker(&self, payload: &[u8]) {
        let Some(count) = std::str::from_utf8(payload).ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
            return;
        };
        let mut before = 0;
        self.counters.source(&self.name, |s| before = std::mem::replace(&mut s.dropped_by_broker, count));
        if count > before {
            tracing::error!(source = %self.name, count, "mqtt: the broker has dropped messages because a queue was full; readings may be lost: raise max_queued_messages");
        }
    }
}

/// Hands acknowledgements to the connection that they belong to; those of an older one are left out.
async fn acknowledge(client: AsyncClient, mut acked: mpsc::Receiver<Acked>, current: Current) {
    while let Some(Acked { connection, ack }) = acked.recv().await {
        let now = lock(&current);
        if *now == connection {
            // The channel holds more than can be under way, so it is never full; if it were, the message would come again.
            if client.try_manual_ack(ack).is_err() {
                tracing::warn!("mqtt: an acknowledgement could not be handed over; its message will come again");
            }
        }
    }
    // The sources' end is the poll loop's to decide.
    std::future::pending::<()>().await;
}

fn lock(current: &Current) -> std::sync::MutexGuard<'_, u64> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash(topic: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(u64::try_from(topic.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(topic);
    hash.update(payload);
    hash.finalize().into()
}

/// Between three quarters of the pause and all of it: gateways that lost the same broker do not come back all at once.
fn jittered(pause_ms: u64) -> Duration {
    let mut byte = [0u8; 1];
    // Without random bytes the pause is a little shorter.
    let _ = getrandom::fill(&mut byte);
    Duration::from_millis(pause_ms * 3 / 4 + pause_ms * u64::from(byte.first().copied().unwrap_or(0)) / 1024)
}

/// Short names of what can end a connection; the errors themselves may name topics.
fn kind(error: &ConnectionError) -> &'static str {
    match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => "not_authorized",
        ConnectionError::ConnectionRefused(_) => "refused",
        ConnectionError::MqttState(StateError::ConnFail { .. }) => "refused",
        ConnectionError::Tls(_) => "tls",
        ConnectionError::Timeout(_) => "timeout",
        ConnectionError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "unreachable",
        ConnectionError::Io(_) => "io",
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => retry::TAKEN,
        ConnectionError::MqttState(StateError::ServerDisconnect { .. }) => "broker_disconnected_us",
        ConnectionError::MqttState(StateError::ConnectionAborted | StateError::Io(_)) => "lost",
        ConnectionError::MqttState(StateError::AwaitPingResp) => "silent",
        ConnectionError::MqttState(StateError::IncomingPacketTooLarge { .. }) => "packet_too_large",
        ConnectionError::MqttState(_)
        | ConnectionError::NotConnAck(_)
        | ConnectionError::SessionStateMismatch { .. }
        | ConnectionError::AuthProcessingError => "protocol",
        _ => "other",
    }
}

fn remedy(kind: &str) -> &'static str {
    match kind {
        "not_authorized" => "look at username, password_file and the broker's password file",
        "tls" => "look at tls.ca_file, and that the broker's certificate is valid for `host`",
        "unreachable" | "timeout" => "look whether the broker runs, at `host` and `port`",
        retry::TAKEN => "another client uses this client_id: give each gateway its own",
        retry::SHORT => {
            "another client uses this client_id, most likely: give each gateway its own; else look at the broker's log"
        }
        "packet_too_large" => "raise max_packet_bytes, or lower the broker's max_packet_size",
        _ => "look at the broker's log",
    }
}

fn options(config: &Mqtt) -> Result<MqttOptions, ConfigError> {
    let mut options = MqttOptions::new(config.client_id.clone(), Broker::tcp(config.host.clone(), config.port));
    options.set_keep_alive(config.keep_alive_s);
    options.set_clean_start(false);
    options.set_session_expiry_interval(Some(config.session_expiry_s));
    options.set_receive_maximum(Some(config.receive_maximum));
    options.set_max_packet_size(Some(config.max_packet_bytes));
    options.set_outgoing_inflight_upper_limit(PUBLISHED_MAX);
    // By itself the client would take it from the limit above: packets that are read before what waits to be written has its turn.
    options.set_read_batch_size(READ_BATCH);
    options.set_max_request_batch(WRITE_BATCH);
    options.set_ack_mode(AckMode::Manual);
    options.set_connect_timeout(Duration::from_millis(config.connect_timeout_ms));
    options.set_session_store(NothingToKeep);
    if let (Some(username), Some(path)) = (&config.username, &config.password_file) {
        let mut password = secret(path)?;
        while matches!(password.last(), Some(b'\n' | b'\r')) {
            password.pop();
        }
        options.set_credentials(username.clone(), password.to_vec());
    }
    if let Some(tls) = &config.tls {
        let client_auth = match (&tls.client_cert_file, &tls.client_key_file) {
            (Some(cert), Some(key)) => Some((file(cert)?, secret(key)?.to_vec())),
            _ => None,
        };
        let ca = file(&tls.ca_file)?;
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Simple { ca, alpn: None, client_auth }));
    }
    Ok(options)
}

fn file(path: &std::path::Path) -> Result<Vec<u8>, ConfigError> {
    Ok(certs::file::read_public(path, FILE_MAX_BYTES, "name the file that is there, or leave the key out")?)
}

/// A file that nobody else may read. The client keeps a copy of its content as long as it lives.
fn secret(path: &std::path::Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    Ok(certs::file::read_secret(path, FILE_MAX_BYTES, "name the file that is there, or leave the key out")?)
}

/// Tells the client that our half of the session is known, and empty: so it goes on with a session that the broker kept.
#[derive(Debug)]
struct NothingToKeep;

impl SessionStore for NothingToKeep {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> StoreFuture<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: None,
            outgoing_inflight_upper_limit: Some(PUBLISHED_MAX),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async move { Ok(Some(session)) })
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// What a session store answers with.
type StoreFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

/// Reads the files that the configuration names, and throws them away: for `ehe-gateway check`.
pub fn check(config: &Mqtt) -> Result<(), ConfigError> {
    options(config).map(drop)
}
