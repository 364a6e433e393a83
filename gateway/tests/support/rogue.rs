//! A broker that misbehaves on each connection in another way, and at last hands over to an honest one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens on one connection.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Nothing is ever said; the connection stays open.
    Silence,
    /// Closed at once.
    Close,
    /// These bytes once the client has spoken, then silence.
    Say(Vec<u8>),
    /// These bytes once the client has spoken, then the end.
    SayAndClose(Vec<u8>),
    /// These bytes, and then zeros without end.
    SayForEver(Vec<u8>),
    /// What the honest broker says, byte by byte.
    Drip,
}

/// Listens until it is dropped.
pub(crate) struct Rogue {
    pub(crate) port: u16,
    /// Connections that were taken.
    pub(crate) taken: Arc<AtomicUsize>,
    /// Zeros that a client took of those without end.
    pub(crate) swallowed: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Rogue {
    /// One connection after the other in these ways; all further ones go to the broker at `honest`.
    pub(crate) async fn start(acts: Vec<Act>, honest: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (taken, swallowed): (Arc<AtomicUsize>, Arc<AtomicUsize>) = (Arc::default(), Arc::default());
        let (count, zeros) = (taken.clone(), swallowed.clone());
        let acts = Mutex::new(VecDeque::from(acts));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let act = acts.lock().unwrap().pop_front();
                open.spawn(play(client, act, honest, zeros.clone()));
            }
        });
        Self { port, taken, swallowed, task }
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn play(mut client: TcpStream, act: Option<Act>, honest: u16, zeros: Arc<AtomicUsize>) {
    let Some(act) = act else { return proxy(client, honest, usize::MAX).await };
    let mut heard = vec![0; 4096];
    match act {
        Act::Close => {}
        Act::Drip => proxy(client, honest, 1).await,
        Act::Silence => while client.read(&mut heard).await.is_ok_and(|n| n > 0) {},
        Act::Say(bytes) => {
            let _ = client.read(&mut heard).await;
            let _ = client.write_all(&bytes).await;
            while client.read(&mut heard).await.is_ok_and(|n| n > 0) {}
        }
        Act::SayAndClose(bytes) => {
            let _ = client.read(&mut heard).await;
            let _ = client.write_all(&bytes).await;
        }
        Act::SayForEver(bytes) => {
            let _ = client.read(&mut heard).await;
            let _ = client.write_all(&bytes).await;
            while let Ok(n) = client.write(&heard).await {
                zeros.fetch_add(n, Ordering::SeqCst);
            }
        }
    }
}

/// Carries bytes both ways, those to the client in pieces of at most `piece`.
async fn proxy(client: TcpStream, honest: u16, piece: usize) {
    let Ok(broker) = TcpStream::connect(("127.0.0.1", honest)).await else { return };
    client.set_nodelay(true).unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let up = async { tokio::io::copy(&mut from_client, &mut to_broker).await.map(drop) };
    let down = async {
        let mut heard = vec![0; piece.min(65_536)];
        loop {
            let n = from_broker.read(&mut heard).await?;
            if n == 0 {
                return std::io::Result::Ok(());
            }
            to_client.write_all(&heard[..n]).await?;
        }
    };
    tokio::select! {
        _ = up => {}
        _ = down => {}
    }
}

/// A packet with a remaining length that fits.
pub(crate) fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = rest.len();
    loop {
        let more = length > 127;
        out.push(u8::try_from(length % 128).unwrap() | if more { 128 } else { 0 });
        length /= 128;
        if !more {
            break;
        }
    }
    out.extend_from_slice(rest);
    out
}

/// CONNACK: accepted, session present or not, with these properties.
pub(crate) fn connack(present: bool, code: u8, properties: &[u8]) -> Vec<u8> {
    let mut rest = vec![u8::from(present), code, u8::try_from(properties.len()).unwrap()];
    rest.extend_from_slice(properties);
    packet(0x20, &rest)
}

/// PUBLISH with these flags (DUP 8, QoS 2 and 4, RETAIN 1), packet id and properties.
pub(crate) fn publish(flags: u8, topic: &[u8], id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut rest = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    rest.extend_from_slice(topic);
    if flags & 6 != 0 {
        rest.extend_from_slice(&id.to_be_bytes());
    }
    rest.push(u8::try_from(properties.len()).unwrap());
    rest.extend_from_slice(properties);
    rest.extend_from_slice(payload);
    packet(0x30 | flags, &rest)
}
