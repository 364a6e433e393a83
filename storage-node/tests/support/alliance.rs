//! A small alliance on disk, one node of it, and clients that speak to the node as programs do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use certs::authority::{AUTHORITY_DAYS, Authority};
use certs::charter_file::CharterFile;
use certs::enrol::{self, EnrolmentRequest, HostNames};
use certs::store::names;
use certs::{ChannelError, Client, Connection, Credentials, Exchange, Role};
use ehe::charter::{CharterChain, SignedCharter, VerifiedCharter};
use ehe::identity::Identity;
use ehe::read::SignedRequest;
use ehe::time::UnixMs;
use ehe::wire::{Request, Response, Submission};
use ehe_node::clock::Clock;
use ehe_node::config::Config;
use ehe_node::daemon::Daemon;

pub const LIMIT: Duration = Duration::from_secs(20);
pub const SHARDS: u16 = 2;

/// Who there is.
pub struct Alliance {
    pub dir: tempfile::TempDir,
    pub authority: Authority,
}

impl Alliance {
    /// One member with one node that hosts everything.
    pub fn new() -> Self {
        Self::with("")
    }

    /// The same, with more in the charter's description.
    pub fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = std::time::SystemTime::now().into();
        let authority = Authority::create(&dir.path().join("authority"), "Test", AUTHORITY_DAYS, now).unwrap();
        let this = Self { dir, authority };
        this.enrol("node", Role::Node);
        let member = certs::identity_file::generate().unwrap();
        certs::identity_file::create_public(&this.path("member.pub"), member.public()).unwrap();
        let text = format!(
            "alliance = 'Test'\nshards = {SHARDS}\n[[member]]\nname = 'Hospital'\nidentity = 'member.pub'\n\
             [[node]]\nname = 'node.example'\nmember = 'Hospital'\nidentity = 'node/identity.pub'\n\
             addresses = ['127.0.0.1:4433']\n{more}"
        );
        let charter = CharterFile::parse(&text).unwrap().charter(this.dir.path(), None).unwrap();
        let mut signed = SignedCharter::unsigned(&charter).unwrap();
        signed.sign(&member).unwrap();
        std::fs::write(this.path("charter"), CharterChain(vec![signed]).encode()).unwrap();
        this.install("node");
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn enrol(&self, name: &str, role: Role) {
        let dns = if role == Role::Node { vec!["node.example".to_owned()] } else { vec![] };
        enrol::prepare(&self.path(name), role, &HostNames { dns, ip: vec![] }).unwrap();
        self.renew(name, role);
    }

    /// One more certificate, in place of the last.
    pub fn renew(&self, name: &str, role: Role) {
        let request = self.path(name).join(names::REQUEST);
        let request = EnrolmentRequest::load(&request).unwrap().verify().unwrap();
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

    pub fn charter(&self) -> VerifiedCharter {
        Credentials::load(&self.path("node")).unwrap().charter().clone()
    }

    /// Writes the node's configuration.
    pub fn config_file(&self, listen: &str) -> PathBuf {
        let path = self.path("node.toml");
        let text = format!("data_dir = 'data'\ncredentials_dir = 'node'\nlisten = '{listen}'\n");
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn config(&self) -> Config {
        Config::load(&self.config_file("127.0.0.1:0")).unwrap()
    }

    pub async fn start(&self) -> Daemon {
        Daemon::start(self.config(), Clock::system()).await.unwrap()
    }

    /// A connection of this person to the node.
    pub async fn connect(&self, credentials: &Credentials, address: SocketAddr) -> Link {
        let client = Client::new(credentials).unwrap();
        let node = self.charter().nodes()[0].id;
        let connection = client.connect(&[address.to_string()], node, LIMIT).await.unwrap();
        Link { connection, identity: credentials.identity().clone(), _client: client }
    }
}

/// A clock that a test moves.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn at(now: UnixMs) -> Self {
        Self(Arc::new(AtomicU64::new(now.0)))
    }

    pub fn now(&self) -> UnixMs {
        UnixMs(self.0.load(Ordering::SeqCst))
    }

    pub fn pass_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let this = self.clone();
        Clock::new(move || this.now())
    }
}

pub fn now() -> UnixMs {
    Clock::system().now()
}

/// One person's connection.
pub struct Link {
    pub connection: Connection,
    pub identity: Identity,
    _client: Client,
}

impl Link {
    pub async fn open(&self, request: &Request) -> Exchange {
        let mut exchange = self.connection.open().await.unwrap();
        exchange.send(&request.to_vec(), LIMIT).await.unwrap();
        exchange.finish().unwrap();
        exchange
    }

    /// The one answer.
    pub async fn ask(&self, request: &Request) -> Response {
        receive(&mut self.open(request).await).await.unwrap().expect("an answer")
    }

    pub async fn submit(&self, submission: Submission) -> Response {
        self.ask(&Request::Submit(submission)).await
    }

    pub async fn fetch(&self, request: SignedRequest) -> Vec<Response> {
        let mut exchange = self.open(&Request::Fetch(request, self.identity.public().clone())).await;
        let mut out = Vec::new();
        while let Some(response) = receive(&mut exchange).await.unwrap() {
            out.push(response);
        }
        out
    }

    pub async fn subscribe(&self, request: SignedRequest) -> Exchange {
        self.open(&Request::Subscribe(request, self.identity.public().clone())).await
    }
}

pub async fn receive(exchange: &mut Exchange) -> Result<Option<Response>, ChannelError> {
    Ok(exchange.recv(LIMIT).await?.map(|frame| Response::decode(&frame).unwrap()))
}
