//! A node whose credentials change while it runs: who has to go, who is refused, and who notices nothing.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::path::PathBuf;
use std::sync::Arc;

use certs::channel::CertificateFault;
use certs::reload::ReloadError;
use certs::revocation::{CRL_DAYS, Which};
use certs::store::names;
use certs::{ChannelError, Client, Connection, Credentials, Role, Server, ServerLimits};
use ehe::id::NodeId;
use ehe::wire::{Request, Response};
use ehe_node::admission::{Admission, NotTaken, ended};
use ehe_node::daemon::Daemon;

#[path = "support/alliance.rs"]
mod alliance;

use alliance::{Alliance, LIMIT, Link, TestClock, now};

fn list(alliance: &Alliance) -> PathBuf {
    alliance.path("node").join(names::CRL)
}

/// A new list, where the node finds it.
fn revoke(alliance: &Alliance, credentials: &Credentials) {
    let which = Which::Peer(credentials.peer());
    let made = alliance.authority.revoke(&which, CRL_DAYS, std::time::SystemTime::now().into()).unwrap();
    certs::file::replace(&list(alliance), &std::fs::read(made.path).unwrap()).unwrap();
}

async fn why_closed(connection: &Connection) -> ChannelError {
    tokio::time::timeout(LIMIT, connection.closed()).await.expect("the connection is closed")
}

async fn is_served(link: &Link) {
    assert!(matches!(link.ask(&Request::Status).await, Response::Status(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_gateway_is_cut_off_and_kept_out_without_a_restart_and_others_go_on() {
    let alliance = Alliance::new();
    let mut config = alliance.config();
    config.running.credentials_reload_s = 1;
    let node = Daemon::start(config, ehe_node::clock::Clock::system()).await.unwrap();
    let address = node.local_addr().unwrap();
    let (gateway, patient) = (alliance.person("gateway", Role::Gateway), alliance.person("patient", Role::Patient));
    let (cut, stays) = (alliance.connect(&gateway, address).await, alliance.connect(&patient, address).await);
    is_served(&cut).await;
    // A list that is being written, then the whole one.
    std::fs::write(list(&alliance), "-----BEGIN X509 CRL-----\n").unwrap();
    revoke(&alliance, &gateway);
    assert_eq!(why_closed(&cut.connection).await, ChannelError::RefusedByPeer(CertificateFault::Revoked));

    let client = Client::new(&gateway).unwrap();
    let id = alliance.charter().nodes()[0].id;
    let refused = client.connect(&[address.to_string()], id, LIMIT).await.unwrap_err();
    assert_eq!(refused, ChannelError::RefusedByPeer(CertificateFault::Revoked));
    assert!(stays.connection.is_open());
    is_served(&stays).await;
    is_served(&alliance.connect(&patient, address).await).await;
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_outlives_its_certificate() {
    let alliance = Alliance::new();
    let mut config = alliance.config();
    config.running.credentials_reload_s = 1;
    let clock = TestClock::at(now());
    let node = Daemon::start(config, clock.clock()).await.unwrap();
    let patient = alliance.person("patient", Role::Patient);
    let link = alliance.connect(&patient, node.local_addr().unwrap()).await;
    is_served(&link).await;
    clock.pass_ms(31 * 24 * 60 * 60 * 1000);
    assert_eq!(why_closed(&link.connection).await, ChannelError::RefusedByPeer(CertificateFault::Expired));
    node.stop().await.unwrap();
}

/// What a daemon does with its credentials, looking when the test says so.
struct Door {
    alliance: Alliance,
    node: NodeId,
    server: Arc<Server>,
    admission: Admission,
}

impl Door {
    fn new() -> Self {
        let alliance = Alliance::new();
        let credentials = Credentials::load(&alliance.path("node")).unwrap();
        let (node, listen) = (credentials.peer().node().unwrap(), alliance.config().listen);
        let server = Arc::new(Server::bind(listen, &credentials, ServerLimits::default()).unwrap());
        let (admission, standing) = Admission::new(Arc::clone(&server), credentials, now());
        let accepting = Arc::clone(&server);
        tokio::spawn(async move {
            while let Some(handshake) = accepting.accept().await {
                let standing = standing.clone();
                tokio::spawn(async move {
                    let Ok(peer) = handshake.complete().await else { return };
                    peer.close(ended(standing, peer.certificate()).await);
                });
            }
        });
        Self { alliance, node, server, admission }
    }

    async fn connect(&self, credentials: &Credentials) -> Result<(Client, Connection), ChannelError> {
        let client = Client::new(credentials).unwrap();
        let address = self.server.local_addr().unwrap().to_string();
        let connection = client.connect(&[address], self.node, LIMIT).await?;
        Ok((client, connection))
    }
}

#[tokio::test]
async fn a_list_that_is_garbled_gone_or_older_changes_nothing() {
    let mut door = Door::new();
    let (out, stays) = (door.alliance.person("out", Role::Gateway), door.alliance.person("stays", Role::Patient));
    let (_client, connection) = door.connect(&stays).await.unwrap();
    assert!(!door.admission.look(now()).await.unwrap(), "nothing has changed");
    revoke(&door.alliance, &door.alliance.person("third", Role::Clinician));
    let older = std::fs::read(list(&door.alliance)).unwrap();
    revoke(&door.alliance, &out);
    assert!(door.admission.look(now()).await.unwrap());
    let path = list(&door.alliance);
    let whole = std::fs::read(&path).unwrap();
    let garbled: [&[u8]; 4] = [b"", b"garbled", &whole[..whole.len() / 2], &older];
    for content in garbled {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(door.admission.look(now()).await, Err(NotTaken::Files(_))));
        let refused = door.connect(&out).await.unwrap_err();
        assert_eq!(refused, ChannelError::RefusedByPeer(CertificateFault::Revoked));
        door.connect(&stays).await.unwrap();
        assert!(connection.is_open());
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(door.admission.look(now()).await, Err(NotTaken::Files(ReloadError::ListGone))));
    assert!(door.connect(&out).await.is_err());
    // As it was before: nothing to take up, and nothing to complain about.
    std::fs::write(&path, &whole).unwrap();
    assert!(!door.admission.look(now()).await.unwrap());
    assert!(connection.is_open());
}

#[tokio::test]
async fn a_handshake_that_began_under_the_old_list_is_held_against_the_new_one() {
    let alliance = Alliance::new();
    let credentials = Credentials::load(&alliance.path("node")).unwrap();
    let listen = alliance.config().listen;
    let server = Arc::new(Server::bind(listen, &credentials, ServerLimits::default()).unwrap());
    let (mut admission, standing) = Admission::new(Arc::clone(&server), credentials, now());
    let gateway = alliance.person("gateway", Role::Gateway);
    let client = Client::new(&gateway).unwrap();
    let address = [server.local_addr().unwrap().to_string()];
    let id = alliance.charter().nodes()[0].id;
    let accepting = async { server.accept().await.unwrap().complete().await.unwrap() };
    let (connection, peer) = tokio::join!(client.connect(&address, id, LIMIT), accepting);
    // Welcomed, and not yet watched: the list comes in between.
    revoke(&alliance, &gateway);
    assert!(admission.look(now()).await.unwrap());
    peer.close(ended(standing, peer.certificate()).await);
    assert_eq!(why_closed(&connection.unwrap()).await, ChannelError::RefusedByPeer(CertificateFault::Revoked));
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart_and_another_nodes_files_are_not_used() {
    let mut door = Door::new();
    let patient = door.alliance.person("patient", Role::Patient);
    let before = door.connect(&patient).await.unwrap().1.certificate().serial.clone();
    door.alliance.renew("node", Role::Node);
    assert!(door.admission.look(now()).await.unwrap());
    let renewed = door.connect(&patient).await.unwrap().1.certificate().serial.clone();
    assert_ne!(before, renewed);
    let (node, other) = (door.alliance.path("node"), door.alliance.path("patient"));
    for name in [names::IDENTITY, names::CHANNEL_KEY, names::CHANNEL] {
        std::fs::copy(other.join(name), node.join(name)).unwrap();
    }
    let kept = door.admission.look(now()).await;
    assert!(matches!(kept, Err(NotTaken::Files(ReloadError::OtherIdentity { .. }))), "{kept:?}");
    assert_eq!(door.connect(&patient).await.unwrap().1.certificate().serial, renewed);
}
