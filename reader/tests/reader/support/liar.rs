//! A node that was broken into: it has the node's keys, stands at the node's address, and passes on what the real node says
//! after changing it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};

use certs::{Client, CloseCode, Credentials, Server, ServerLimits};
use ehe::refusal::Refusal;
use ehe::wire::{Request, Response};

use super::{LIMIT, World};

/// What the liar makes of an answer: nothing, another one, or several.
pub type Lie = Arc<dyn Fn(Response) -> Vec<Response> + Send + Sync>;

/// What the liar answers to a submission of its own accord; the real node never sees it.
pub type Refuse = Arc<dyn Fn() -> Option<Refusal> + Send + Sync>;

/// Starts the liar at the charter's address, in front of the node at `real`, for these clients.
pub fn start(world: &World, real: SocketAddr, clients: &[&str], lie: Lie) {
    start_refusing(world, real, clients, lie, Arc::new(|| None));
}

/// The same, refusing submissions.
pub fn start_refusing(world: &World, real: SocketAddr, clients: &[&str], lie: Lie, refuse: Refuse) {
    let node = world.credentials("node");
    let server = Server::bind(world.address, &node, ServerLimits::default()).unwrap();
    let clients: Vec<Credentials> = clients.iter().map(|name| world.credentials(name)).collect();
    tokio::spawn(async move {
        while let Some(handshake) = server.accept().await {
            let peer = handshake.complete().await.unwrap();
            let client = clients.iter().find(|c| c.peer() == peer.identity()).unwrap().clone();
            let (lie, refuse) = (lie.clone(), refuse.clone());
            tokio::spawn(async move {
                while let Ok(exchange) = peer.accept_exchange().await {
                    pass_on(exchange, &client, real, (&lie, &refuse)).await;
                }
            });
        }
    });
}

/// A node that refuses each submission (1); takes one and says nothing from then on (2); says that it refused what it took (3).
pub fn unwilling(world: &World, real: SocketAddr, refusal: Refusal) -> Arc<AtomicU8> {
    let mode = Arc::new(AtomicU8::new(0));
    let (refuse, lie) = (mode.clone(), mode.clone());
    let lie: Lie = Arc::new(move |answer| match (lie.load(SeqCst), &answer) {
        (2, Response::Submitted(_)) => {
            lie.store(4, SeqCst);
            vec![]
        }
        (4, _) => vec![],
        (3, Response::Submitted(_)) => vec![Response::Refused(Refusal::ControlOutOfSequence)],
        _ => vec![answer],
    });
    let refuse: Refuse = Arc::new(move || (refuse.load(SeqCst) == 1).then_some(refusal));
    start_refusing(world, real, &["patient", "fresh"], lie, refuse);
    mode
}

async fn pass_on(mut from: certs::Exchange, reader: &Credentials, real: SocketAddr, (lie, refuse): (&Lie, &Refuse)) {
    let request = from.recv(LIMIT).await.unwrap().unwrap();
    if let Ok(Request::Submit(_)) = Request::decode(&request)
        && let Some(refusal) = refuse()
    {
        from.send(&Response::Refused(refusal).to_vec(), LIMIT).await.unwrap();
        let _ = from.finish();
        let _ = from.delivered(LIMIT).await;
        return;
    }
    let client = Client::new(reader).unwrap();
    let node = reader.charter().nodes()[0].id;
    let connection = client.connect(&[real.to_string()], node, LIMIT).await.unwrap();
    let mut to = connection.open().await.unwrap();
    to.send(&request, LIMIT).await.unwrap();
    to.finish().unwrap();
    while let Some(answer) = to.recv(LIMIT).await.unwrap() {
        for answer in lie(Response::decode(&answer).unwrap()) {
            // The reader may have gone: it has noticed.
            if from.send(&answer.to_vec(), LIMIT).await.is_err() {
                return;
            }
        }
    }
    let _ = from.finish();
    let _ = from.delivered(LIMIT).await;
    connection.close(CloseCode::Done);
}

/// A node that gives the same answer to everything, at its place in the charter.
pub fn parrot(world: &World, name: &str, place: usize, answer: Response) {
    counting(world, name, place, answer);
}

/// The same, and how often it was asked.
pub fn counting(world: &World, name: &str, place: usize, answer: Response) -> Arc<AtomicUsize> {
    let server = Server::bind(world.addresses[place], &world.credentials(name), ServerLimits::default()).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let asked = count.clone();
    tokio::spawn(async move {
        while let Some(handshake) = server.accept().await {
            // Who found another node first does not complete it.
            let Ok(peer) = handshake.complete().await else { continue };
            let (answer, asked) = (answer.to_vec(), asked.clone());
            tokio::spawn(async move {
                while let Ok(mut exchange) = peer.accept_exchange().await {
                    exchange.recv(LIMIT).await.unwrap();
                    asked.fetch_add(1, SeqCst);
                    exchange.send(&answer, LIMIT).await.unwrap();
                    exchange.finish().unwrap();
                    exchange.delivered(LIMIT).await.unwrap();
                }
            });
        }
    });
    count
}
