//! Several hospitals with a node of each, in this process, on real ports.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use certs::authority::{AUTHORITY_DAYS, Authority};
use certs::charter_file::CharterFile;
use certs::enrol::{self, EnrolmentRequest, HostNames};
use certs::store::names;
use certs::{Client, Connection, Credentials, Role};
use ehe::charter::{CharterChain, SignedCharter, VerifiedCharter};
use ehe::id::NodeId;
use ehe::identity::Identity;
use ehe::wire::{NodeStatus, Request, Response};
use ehe_node::clock::Clock;
use ehe_node::config::Config;
use ehe_node::daemon::Daemon;

use super::LIMIT;

/// Who there is. Node `n` (from 0 on) has its credentials in `node<n>`.
pub struct Hospitals {
    dir: tempfile::TempDir,
    pub authority: Authority,
    addresses: Vec<SocketAddr>,
    members: Vec<Identity>,
    /// What the charters have in common.
    text: String,
}

/// Of ports below those that the kernel gives to whoever asks for any: what is free here stays free while its node is down.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let next = || {
        // Programs that run side by side begin at different places.
        let at = std::process::id().wrapping_mul(131).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        15_000 + u16::try_from(at % 17_000).unwrap()
    };
    let addresses = std::iter::repeat_with(|| SocketAddr::from(([127, 0, 0, 1], next())));
    addresses.take(17_000).filter(|address| UdpSocket::bind(address).is_ok()).take(count).collect()
}

impl Hospitals {
    /// So many hospitals; `more` stands in the charter's description.
    pub fn new(members: usize, more: &str) -> Self {
        Self::of(members, members, more)
    }

    /// So many hospitals, of which the first ones have the nodes.
    pub fn of(members: usize, nodes: usize, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = std::time::SystemTime::now().into();
        let authority = Authority::create(&dir.path().join("authority"), "Test", AUTHORITY_DAYS, now).unwrap();
        let addresses = free_addresses(nodes);
        let mut this = Self { dir, authority, addresses, members: Vec::new(), text: String::new() };
        let mut text = String::from("alliance = 'Test'\nshards = 1\n");
        (0..nodes).for_each(|n| this.enrol(&format!("node{n}"), Role::Node));
        for n in 0..members {
            let member = certs::identity_file::generate().unwrap();
            certs::identity_file::create_public(&this.path(&format!("member{n}.pub")), member.public()).unwrap();
            text += &format!("[[member]]\nname = 'Hospital {n}'\nidentity = 'member{n}.pub'\n");
            this.members.push(member);
        }
        for (n, address) in this.addresses.iter().enumerate() {
            text += &format!(
                "[[node]]\nname = 'node{n}.example'\nmember = 'Hospital {n}'\nidentity = 'node{n}/identity.pub'\n\
                 addresses = ['{address}']\n"
            );
        }
        this.text = text;
        let first = this.signed(more, None);
        this.put_out(vec![first]);
        this
    }

    fn signed(&self, more: &str, after: Option<&VerifiedCharter>) -> SignedCharter {
        self.signed_as(&format!("{}{more}", self.text), after)
    }

    fn signed_as(&self, text: &str, after: Option<&VerifiedCharter>) -> SignedCharter {
        let description = CharterFile::parse(text).unwrap();
        let mut signed = SignedCharter::unsigned(&description.charter(self.dir.path(), after).unwrap()).unwrap();
        self.members.iter().for_each(|member| signed.sign(member).unwrap());
        signed
    }

    fn put_out(&self, charters: Vec<SignedCharter>) {
        std::fs::write(self.path("charter"), CharterChain(charters).encode()).unwrap();
        (0..self.addresses.len()).for_each(|n| self.install(&format!("node{n}")));
    }

    /// Charter 2, which is at every node.
    pub fn second(&self, more: &str) {
        let mut charters = self.credentials(0).charter_chain().0.clone();
        charters.push(self.signed(more, Some(&self.charter())));
        self.put_out(charters);
    }

    /// The next charter, which is given to these nodes alone.
    pub fn next(&self, more: &str, to: &[usize]) -> VerifiedCharter {
        self.put_out_next(|before| self.signed(more, Some(before)), to)
    }

    /// The next charter, which raises the rules version, and is given to these nodes alone.
    pub fn raising(&self, rules: u16, more: &str, to: &[usize]) -> VerifiedCharter {
        self.put_out_next(|before| self.signed_as(&format!("rules = {rules}\n{}{more}", self.text), Some(before)), to)
    }

    fn put_out_next(&self, next: impl Fn(&VerifiedCharter) -> SignedCharter, to: &[usize]) -> VerifiedCharter {
        let (before, mut chain) = certs::store::load_charter(&self.path("charter")).unwrap();
        chain.0.push(next(&before));
        certs::file::replace(&self.path("charter"), &chain.encode()).unwrap();
        to.iter().for_each(|n| certs::file::replace(&self.path(&format!("node{n}/charter")), &chain.encode()).unwrap());
        certs::store::load_charter(&self.path("charter")).unwrap().0
    }

    /// The next charter, which names no node of hospital `gone`.
    pub fn next_without(&self, gone: usize, more: &str, to: &[usize]) {
        let (name, mark) = (format!("'node{gone}.example'"), "[[node]]");
        let text: Vec<&str> = self.text.split(mark).filter(|part| !part.contains(&name)).collect();
        let text = format!("{}{more}", text.join(mark));
        self.put_out_next(|before| self.signed_as(&text, Some(before)), to);
    }

    /// A charter of any version.
    pub fn charter_of(&self, version: u32) -> VerifiedCharter {
        let (newest, chain) = certs::store::load_charter(&self.path("charter")).unwrap();
        let until = usize::try_from(version).unwrap();
        CharterChain(chain.0.into_iter().take(until).collect()).verify(newest.alliance_id()).unwrap()
    }

    /// Keeps the nodes' ports while none of them runs: others look for free ones on this machine too. A node that has stopped lets go of
    /// its port a moment later.
    pub async fn keep_ports(&self) -> Vec<UdpSocket> {
        let mut kept = Vec::new();
        for n in 0..self.addresses.len() {
            kept.push(self.free_port(n).await);
        }
        kept
    }

    /// Waits until a node's port is free.
    pub async fn free_port(&self, n: usize) -> UdpSocket {
        let binding = async {
            loop {
                match UdpSocket::bind(self.addresses[n]) {
                    Ok(socket) => return socket,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, binding).await.expect("the port is free")
    }

    /// All nodes were there once: a new log begins only then. This one is not any more.
    pub async fn without(&self, nodes: &mut Vec<Daemon>, gone: usize) {
        let has_begun = |node: &Daemon| {
            let consensus = node.consensus();
            consensus.groups().all(|group| {
                let status = consensus.status(group).unwrap();
                status.leader.is_some() && status.voters.len() == nodes.len()
            })
        };
        let begun = async {
            while !nodes.iter().all(has_begun) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, begun).await.expect("their logs begin");
        nodes.remove(gone).stop().await.unwrap();
    }

    /// The hospitals' own keys.
    pub fn members(&self) -> &[Identity] {
        &self.members
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn enrol(&self, name: &str, role: Role) {
        let dns = if role == Role::Node { vec![format!("{name}.example")] } else { vec![] };
        enrol::prepare(&self.path(name), role, &HostNames { dns, ip: vec![] }).unwrap();
        let request = EnrolmentRequest::load(&self.path(name).join(names::REQUEST)).unwrap().verify().unwrap();
        let issued = self.authority.issue(&request, role, 30, std::time::SystemTime::now().into()).unwrap();
        std::fs::write(self.path(name).join(names::CHANNEL), issued.pem).unwrap();
    }

    fn install(&self, name: &str) {
        std::fs::copy(self.path("authority").join(names::CA), self.path(name).join(names::CA)).unwrap();
        std::fs::copy(self.path("charter"), self.path(name).join(names::CHARTER)).unwrap();
    }

    /// Somebody with a certificate.
    pub fn person(&self, name: &str, role: Role) -> Credentials {
        self.enrol(name, role);
        self.install(name);
        Credentials::load(&self.path(name)).unwrap()
    }

    pub fn credentials(&self, n: usize) -> Credentials {
        Credentials::load(&self.path(&format!("node{n}"))).unwrap()
    }

    pub fn id(&self, n: usize) -> NodeId {
        self.credentials(n).peer().node().unwrap()
    }

    pub fn charter(&self) -> VerifiedCharter {
        self.credentials(0).charter().clone()
    }

    pub fn config(&self, n: usize) -> Config {
        let path = self.path(&format!("node{n}.toml"));
        let text = format!(
            "data_dir = 'data{n}'\ncredentials_dir = 'node{n}'\nlisten = '{}'\n[consensus]\ntiming = 'lan'\n[running]\n\
             credentials_reload_s = 1\n",
            self.addresses[n]
        );
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    }

    pub async fn start(&self, n: usize) -> Daemon {
        Daemon::start(self.config(n), Clock::system()).await.unwrap()
    }

    /// A client's connection to a node that may not run.
    pub async fn try_connect(&self, credentials: &Credentials, n: usize) -> Option<(Client, Connection)> {
        let client = Client::new(credentials).unwrap();
        let within = std::time::Duration::from_secs(2);
        let connection = client.connect(&[self.addresses[n].to_string()], self.id(n), within).await.ok()?;
        Some((client, connection))
    }

    /// A client's connection to a node.
    pub async fn connect(&self, credentials: &Credentials, n: usize) -> (Client, Connection) {
        let client = Client::new(credentials).unwrap();
        let connection = client.connect(&[self.addresses[n].to_string()], self.id(n), LIMIT).await.unwrap();
        (client, connection)
    }

    /// What a node says of itself to somebody.
    pub async fn status(&self, who: &Credentials, n: usize) -> NodeStatus {
        let (_client, connection) = self.connect(who, n).await;
        match ask(&connection, &Request::Status).await {
            Response::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// The same, of a node that may not run.
    pub async fn try_status(&self, who: &Credentials, n: usize) -> Option<NodeStatus> {
        let (_client, connection) = self.try_connect(who, n).await?;
        match asked(&connection, &Request::Status).await? {
            Response::Status(status) => Some(status),
            other => panic!("{other:?}"),
        }
    }
}

/// The answer of a node that may stop meanwhile.
pub async fn asked(connection: &Connection, request: &Request) -> Option<Response> {
    let asking = async {
        let mut exchange = connection.open().await.ok()?;
        exchange.send(&request.to_vec(), LIMIT).await.ok()?;
        exchange.finish().ok()?;
        Response::decode(&exchange.recv(LIMIT).await.ok()??).ok()
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), asking).await.ok()?
}

/// The one answer.
pub async fn ask(connection: &Connection, request: &Request) -> Response {
    let mut exchange = connection.open().await.unwrap();
    exchange.send(&request.to_vec(), LIMIT).await.unwrap();
    exchange.finish().unwrap();
    Response::decode(&exchange.recv(LIMIT).await.unwrap().unwrap()).unwrap()
}
