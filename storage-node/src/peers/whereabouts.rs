//! Where the other nodes come from: looked up again and again, because names move.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::Server;
use ehe::id::NodeId;
use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::charters::Charters;

/// A name is looked up within this time.
const LOOK_UP: Duration = Duration::from_secs(5);
/// And again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Keeps places of the server's for the other nodes, so that however many clients are at the door, a node comes in.
pub async fn expect(server: Arc<Server>, charters: Charters, me: NodeId, stop: CancellationToken) {
    loop {
        let known = charters.version();
        let others = charters.nodes().into_iter().filter(|node| node.id != me);
        let names: Vec<String> = others.flat_map(|node| node.addresses).collect();
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = addresses(&names) => looked,
        };
        server.expect_nodes_at(looked);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN_AFTER) => {}
            () = charters.newer_than(known) => {}
        }
    }
}

async fn addresses(names: &[String]) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    for name in names {
        match timeout(LOOK_UP, lookup_host(name.as_str())).await {
            Ok(Ok(addresses)) => found.extend(addresses.map(|address| address.ip())),
            Ok(Err(error)) => tracing::debug!(%name, %error, "a node's address is not found"),
            Err(_) => tracing::debug!(%name, "a node's address is not found in time"),
        }
    }
    found
}
