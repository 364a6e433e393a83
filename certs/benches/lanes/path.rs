//! A long and narrow path: what is sent through it comes out later, at its rate, and what its queue has no room for is lost.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

pub(crate) const ROUND_TRIP_MS: u64 = 100;
pub(crate) const QUEUE_MS: u64 = 200;
const BITS_PER_S: f64 = 10_000_000.0;

/// A path to an address; the address where it begins. It is there for as long as the program is.
pub(crate) async fn start(to: SocketAddr) -> SocketAddr {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = near.local_addr().unwrap();
    let from = Arc::new(Mutex::new(to));
    tokio::spawn(way(Arc::clone(&near), Arc::clone(&far), Arc::clone(&from), Some(to)));
    tokio::spawn(way(far, near, from, None));
    address
}

/// One way: to the far end, or back to whoever was heard of last.
async fn way(inlet: Arc<UdpSocket>, outlet: Arc<UdpSocket>, from: Arc<Mutex<SocketAddr>>, to: Option<SocketAddr>) {
    let (queue, mut queued) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let back = Arc::clone(&from);
    tokio::spawn(async move {
        while let Some((due, packet)) = queued.recv().await {
            sleep_until(due).await;
            let to = to.unwrap_or_else(|| *back.lock().unwrap());
            let _ = outlet.send_to(&packet, to).await;
        }
    });
    let mut free = Instant::now();
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, sender) = inlet.recv_from(&mut buffer).await.unwrap();
        if to.is_some() {
            *from.lock().unwrap() = sender;
        }
        let now = Instant::now();
        let begins = free.max(now);
        if begins - now > Duration::from_millis(QUEUE_MS) {
            continue;
        }
        free = begins + Duration::from_secs_f64(length as f64 * 8.0 / BITS_PER_S);
        let _ = queue.send((free + Duration::from_millis(ROUND_TRIP_MS / 2), buffer[..length].to_vec()));
    }
}
