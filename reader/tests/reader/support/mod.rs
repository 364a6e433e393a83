//! An alliance on disk, its one node, the people of a room, and the program `ehe` as they run it.

pub mod gateway;
pub mod liar;

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use certs::authority::{AUTHORITY_DAYS, Authority};
use certs::charter_file::CharterFile;
use certs::enrol::{self, EnrolmentRequest, HostNames};
use certs::identity_file;
use certs::store::names;
use certs::{Credentials, Role};
use ehe::charter::{CharterChain, Node, Placement, SignedCharter, Trust};
use ehe::id::{AllianceId, NodeId};
use ehe::identity::Identity;
use ehe_node::clock::Clock;
use ehe_node::config::Config;
use ehe_node::daemon::Daemon;
use serde_json::Value;
use tokio::process::{Child, Command};

/// For anything that should take milliseconds.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Who there is, and where the one node is reached.
pub struct World {
    dir: tempfile::TempDir,
    authority: Authority,
    /// The first has the nodes.
    members: Vec<Identity>,
    description: String,
    /// Where the charter says that the (first) node is.
    pub address: SocketAddr,
    /// Where it says that all of them are.
    pub addresses: Vec<SocketAddr>,
}

/// What a run of the program left behind.
#[derive(Debug)]
pub struct Ran {
    pub exit: i32,
    pub out: String,
    pub err: String,
}

pub fn free_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl World {
    /// One hospital with one node that hosts everything; `people` with certificates.
    pub fn new(people: &[(&str, Role)]) -> Self {
        Self::with_nodes(&["node"], people)
    }

    /// One hospital; all its nodes, of these names, host everything.
    pub fn with_nodes(nodes: &[&str], people: &[(&str, Role)]) -> Self {
        Self::with_members(1, nodes, people)
    }

    /// So many hospitals, of which the first has all the nodes.
    pub fn with_members(members: usize, nodes: &[&str], people: &[(&str, Role)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = std::time::SystemTime::now().into();
        let authority = Authority::create(&dir.path().join("authority"), "Test", AUTHORITY_DAYS, now).unwrap();
        let addresses: Vec<SocketAddr> = nodes.iter().map(|_| free_port()).collect();
        let members: Vec<Identity> = (0..members).map(|_| identity_file::generate().unwrap()).collect();
        let address = addresses[0];
        let text = String::new();
        let mut this = Self { dir, authority, members, description: text, address, addresses: addresses.clone() };
        let mut text = "alliance = 'Test'\nshards = 4\n".to_owned();
        for (n, member) in this.members.iter().enumerate() {
            let (file, name) = (format!("member{n}.pub"), if n == 0 { String::new() } else { format!(" {n}") });
            identity_file::create_public(&this.path(&file), member.public()).unwrap();
            text += &format!("[[member]]\nname = 'Hospital{name}'\nidentity = '{file}'\n");
        }
        for (name, address) in nodes.iter().zip(addresses) {
            this.enrol(name, Role::Node);
            text += &format!(
                "[[node]]\nname = '{name}.example'\nmember = 'Hospital'\nidentity = '{name}/identity.pub'\n\
                 addresses = ['{address}']\n"
            );
        }
        this.description = text;
        std::fs::write(this.path("charter"), this.charters(&[60_000]).encode()).unwrap();
        nodes.iter().for_each(|name| this.install(name));
        for (name, role) in people {
            this.enrol(name, *role);
            this.install(name);
        }
        this
    }

    /// Charters that the members signed, one after the other, each with its own `head_fresh_ms`.
    pub fn charters(&self, head_fresh_ms: &[u32]) -> CharterChain {
        let (mut chain, mut before) = (CharterChain::default(), None);
        for fresh in head_fresh_ms {
            let text = format!("head_fresh_ms = {fresh}\n{}", self.description);
            let charter = CharterFile::parse(&text).unwrap().charter(self.dir.path(), before.as_ref()).unwrap();
            let mut signed = SignedCharter::unsigned(&charter).unwrap();
            self.members.iter().for_each(|member| signed.sign(member).unwrap());
            let alliance = chain.claimed_alliance().unwrap_or(AllianceId(signed.hash().0));
            before = Some(signed.verify(before.as_ref().map_or(Trust::Pinned(alliance), Trust::Predecessor)).unwrap());
            chain.0.push(signed);
        }
        chain
    }

    /// The same, the last of which gives everything to two more nodes as well, which are not there.
    pub fn charters_that_grow(&self, head_fresh_ms: &[u32]) -> CharterChain {
        let mut chain = self.charters(head_fresh_ms);
        let mut last = chain.0.pop().unwrap().read().unwrap();
        for name in ["second", "third"] {
            let identity = identity_file::generate().unwrap();
            last.nodes.push(Node {
                id: NodeId(identity.author_id().0[..8].try_into().unwrap()),
                member: last.members[0].id,
                name: format!("{name}.example"),
                sign: identity.public().sign,
                addresses: vec![free_port().to_string()],
            });
        }
        last.placement = Placement::Everywhere(last.nodes.iter().map(|node| node.id).collect());
        let mut signed = SignedCharter::unsigned(&last).unwrap();
        self.members.iter().for_each(|member| signed.sign(member).unwrap());
        chain.0.push(signed);
        chain
    }

    /// Two charters, the second of which raises the rules.
    pub fn charters_that_raise(&self, rules: u16) -> CharterChain {
        let mut chain = self.charters(&[60_000, 60_000]);
        let mut last = chain.0.pop().unwrap().read().unwrap();
        last.rules = Some(rules);
        let mut signed = SignedCharter::unsigned(&last).unwrap();
        self.members.iter().for_each(|member| signed.sign(member).unwrap());
        chain.0.push(signed);
        chain
    }

    /// Puts these charters into somebody's directory.
    pub fn under(&self, who: &str, charters: &CharterChain) {
        std::fs::write(self.path(who).join(names::CHARTER), charters.encode()).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn public(&self, name: &str) -> String {
        self.path(name).join("identity.pub").display().to_string()
    }

    /// Somebody's author id.
    pub fn id(&self, name: &str) -> String {
        self.credentials(name).identity().author_id().to_string()
    }

    pub fn credentials(&self, name: &str) -> Credentials {
        Credentials::load(&self.path(name)).unwrap()
    }

    fn enrol(&self, name: &str, role: Role) {
        let dns = if role == Role::Node { vec!["node.example".to_owned()] } else { vec![] };
        let prepared = enrol::prepare(&self.path(name), role, &HostNames { dns, ip: vec![] }).unwrap();
        self.certify(name, role, &prepared.request);
    }

    /// What the alliance's authority answers to a request.
    pub fn certify(&self, name: &str, role: Role, request: &std::path::Path) {
        let request = EnrolmentRequest::load(request).unwrap().verify().unwrap();
        let issued = self.authority.issue(&request, role, 30, std::time::SystemTime::now().into()).unwrap();
        std::fs::write(self.path(name).join(names::CHANNEL), issued.pem).unwrap();
    }

    /// The alliance's public files.
    pub fn install(&self, name: &str) {
        std::fs::copy(self.path("authority").join(names::CA), self.path(name).join(names::CA)).unwrap();
        std::fs::copy(self.path("charter"), self.path(name).join(names::CHARTER)).unwrap();
    }

    /// The node, where the charter says.
    pub async fn start(&self) -> Daemon {
        self.start_at(self.address).await
    }

    /// The node, somewhere else.
    pub async fn start_at(&self, listen: SocketAddr) -> Daemon {
        self.start_by(listen, Clock::system()).await
    }

    /// The node, by this clock.
    pub async fn start_by(&self, listen: SocketAddr, clock: Clock) -> Daemon {
        self.start_as(listen, clock, "").await
    }

    /// The node, looking through what it has stored again and again.
    pub async fn start_looking(&self) -> Daemon {
        self.start_as(self.address, Clock::system(), "[scrub]\nevery_s = 1\n").await
    }

    async fn start_as(&self, listen: SocketAddr, clock: Clock, more: &str) -> Daemon {
        let text = format!("data_dir = 'data'\ncredentials_dir = 'node'\nlisten = '{listen}'\n{more}");
        std::fs::write(self.path("node.toml"), text).unwrap();
        let config = Config::load(&self.path("node.toml")).unwrap();
        Daemon::start(config, clock).await.unwrap()
    }

    fn command(&self, who: &str, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ehe"));
        command.arg("--home").arg(self.path(who)).args(line.split(' ').map(|word| word.replace('+', " ")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs `ehe` in somebody's name. A plus sign in a word of the line stands for a space.
    pub async fn ehe(&self, who: &str, line: &str) -> Ran {
        let ran = tokio::time::timeout(LIMIT, self.command(who, line).output()).await.unwrap().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { exit: ran.status.code().unwrap(), out: text(ran.stdout), err: text(ran.stderr) }
    }

    /// Starts `ehe` and leaves it running.
    pub fn start_ehe(&self, who: &str, line: &str) -> Child {
        self.command(who, line).spawn().unwrap()
    }

    /// A new room of `patient`, by its id.
    pub async fn room(&self) -> String {
        self.room_with("").await
    }

    /// A new room of `patient` in this shard, by its id.
    pub async fn room_in(&self, shard: u16) -> String {
        self.room_with(&format!(" --shard {shard}")).await
    }

    async fn room_with(&self, more: &str) -> String {
        let key = self.path("recovery-key").display().to_string();
        let line = format!("room create --name Home --recovery-out {key} --recovery-no-passphrase{more}");
        let made = self.ehe("patient", &line).await;
        assert_eq!((made.exit, made.err.as_str()), (0, ""), "{made:?}");
        made.out.trim().to_owned()
    }

    /// Runs a command that must succeed.
    pub async fn ok(&self, who: &str, line: &str) -> String {
        let ran = self.ehe(who, line).await;
        assert_eq!(ran.exit, 0, "{who}: ehe {line}: {ran:?}");
        ran.out
    }
}

/// The JSON values of a program's output, one a line.
pub fn values(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
