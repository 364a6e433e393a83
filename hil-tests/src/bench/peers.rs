//! What a hospital would take instead, on the same machine in the same run: etcd, and PostgreSQL with two synchronous standbys, each as three servers on
//! loopback that acknowledge what a majority has synced. Neither checks a signature, encrypts, or records a read. `hil-tests/peers` drives them as
//! [`super::load`] drives nodes: so many writers, each on its own connection, one value at a time.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::load::WRITERS;
use super::table::Row;
use crate::lab::process::{Running, command, free_tcp_port, run, until};

/// Bytes of one value; the bodies of our own load are as long.
pub(super) const VALUE_BYTES: usize = 512;
const SERVERS: usize = 3;
/// How long each number of writers writes.
const SECONDS: u64 = 5;
/// Numbers of writers: one alone, PostgreSQL's best or near it, and as many as write to our nodes.
const CROWDS: [usize; 3] = [1, 64, WRITERS];
/// Until a cluster of three takes writes.
const UP: Duration = Duration::from_secs(60);
/// Programs that set a server up, or measure it.
const DONE: Duration = Duration::from_secs(120);

/// What one peer reached with so many writers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    writers: usize,
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    p99_ms: f64,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} writes/s; p50 {:.1} ms, p99 {:.1} ms", self.per_second, self.p50_ms, self.p99_ms)
    }
}

/// What the peers reached in this run.
pub(super) struct Peers {
    etcd: Vec<Reached>,
    postgresql: Vec<Reached>,
}

impl Peers {
    /// etcd with so many writers.
    pub(super) fn etcd(&self, writers: usize) -> Option<Reached> {
        self.etcd.iter().find(|reached| reached.writers == writers).copied()
    }

    /// PostgreSQL with so many writers.
    pub(super) fn postgresql(&self, writers: usize) -> Option<Reached> {
        self.postgresql.iter().find(|reached| reached.writers == writers).copied()
    }

    /// PostgreSQL with the number of writers that suits it best.
    pub(super) fn best_postgresql(&self) -> Option<Reached> {
        self.postgresql.iter().copied().max_by(|a, b| a.per_second.total_cmp(&b.per_second))
    }

    /// As rows of a group.
    pub(super) fn rows(&self, group: &str) -> Vec<Row> {
        let row = |name: &str, reached: &Reached| {
            let what = format!("{name}, {} writers of {VALUE_BYTES} bytes at a time", reached.writers);
            Row::new(group, what, reached.to_string(), "a peer, for comparison: checks and encrypts nothing")
        };
        let etcd = self.etcd.iter().map(|reached| row("etcd, three servers", reached));
        let postgresql = self.postgresql.iter().map(|reached| row("PostgreSQL, two standbys, any one synced", reached));
        etcd.chain(postgresql).collect()
    }
}

/// Measures both, or says what is missing on this machine.
pub(super) async fn measure(say: &impl Fn(String)) -> Result<Peers> {
    let driver = driver()?;
    say(format!("etcd and PostgreSQL, three servers each: {CROWDS:?} writers, {SECONDS} s each"));
    let etcd = etcd(&driver).await.context("etcd")?;
    let postgresql = postgresql(&driver).await.context("PostgreSQL")?;
    Ok(Peers { etcd, postgresql })
}

/// The program that writes to them: `make bench` builds it into `target/peers`.
fn driver() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let target = here.parent().and_then(Path::parent).context("programs lie in target/release")?;
    let path = target.join("peers/release/replicated-write");
    ensure!(path.is_file(), "{} is not built: scripts/setup peers", path.display());
    Ok(path)
}

async fn drive(driver: &Path, peer: &str, ports: &str) -> Result<Vec<Reached>> {
    let mut all = Vec::new();
    for writers in CROWDS {
        let (seconds, count, bytes) = (SECONDS.to_string(), writers.to_string(), VALUE_BYTES.to_string());
        let mut command = Command::new(driver);
        command.args([peer, ports, &seconds, &count, &bytes]);
        let printed = run(command, DONE).await?.success(peer)?.stdout;
        let figures: Vec<f64> = printed.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [writes, took_s, p50_us, p99_us] = figures[..] else { anyhow::bail!("{printed:?} is not what it prints") };
        all.push(Reached { writers, per_second: writes / took_s, p50_ms: p50_us / 1e3, p99_ms: p99_us / 1e3 });
    }
    Ok(all)
}

fn ports() -> Result<Vec<u16>> {
    (0..SERVERS).map(|_| free_tcp_port()).collect()
}

/// Waits until a server listens there.
async fn listens(port: u16) -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("a server to listen", UP, || async move { Ok(tokio::net::TcpStream::connect(address).await.ok()) }).await?;
    Ok(())
}

async fn etcd(driver: &Path) -> Result<Vec<Reached>> {
    let folder = tempfile::tempdir()?;
    let (clients, peers) = (ports()?, ports()?);
    let cluster: Vec<String> =
        peers.iter().enumerate().map(|(n, port)| format!("e{n}=http://127.0.0.1:{port}")).collect();
    let cluster = cluster.join(",");
    let mut servers = Vec::new();
    for (n, (client, peer)) in clients.iter().zip(&peers).enumerate() {
        let name = format!("e{n}");
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut etcd = command("etcd", &["--name", &name, "--initial-cluster", &cluster, "--log-level", "error"]);
        etcd.arg("--data-dir").arg(folder.path().join(&name));
        etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        servers.push(Running::start(&name, etcd, &folder.path().join(format!("{name}.log")))?);
    }
    for port in &clients {
        listens(*port).await?;
    }
    let clients: Vec<String> = clients.iter().map(u16::to_string).collect();
    let reached = drive(driver, "etcd", &clients.join(",")).await;
    for server in servers {
        server.kill().await?;
    }
    reached
}

/// PostgreSQL's own programs, run as its own user where this is root, whom it refuses.
struct Postgres {
    programs: PathBuf,
    folder: tempfile::TempDir,
    /// Beside that folder, which is not ours any more where this is root.
    logs: tempfile::TempDir,
    root: bool,
}

impl Postgres {
    async fn new() -> Result<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").context("not installed: scripts/setup peers")?;
        let newest = versions.filter_map(|entry| entry.ok()).map(|entry| entry.path().join("bin")).max();
        let (folder, logs) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let root = run(command("id", &["-u"]), DONE).await?.stdout.trim() == "0";
        if root {
            let path = folder.path().to_str().context("a temporary folder's name is text")?;
            run(command("chown", &["postgres", path]), DONE).await?.success("chown")?;
        }
        Ok(Self { programs: newest.context("not installed: scripts/setup peers")?, folder, logs, root })
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if !self.root {
            return Command::new(program);
        }
        let mut command = command("setpriv", &["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
        command.arg(program).current_dir("/");
        command
    }

    fn data(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("p{n}"))
    }

    fn start(&self, n: usize, port: u16, settings: &[String]) -> Result<Running> {
        let mut server = self.command("postgres");
        server.arg("-D").arg(self.data(n)).args(["-p", &port.to_string()]);
        let sockets = self.folder.path().display().to_string();
        for setting in
            ["max_connections=700".to_owned(), format!("unix_socket_directories={sockets}")].iter().chain(settings)
        {
            server.args(["-c", setting]);
        }
        Running::start("postgres", server, &self.logs.path().join(format!("{n}.log")))
    }
}

async fn postgresql(driver: &Path) -> Result<Vec<Reached>> {
    let postgres = Postgres::new().await?;
    let ports = ports()?;
    let [primary, standbys @ ..] = ports.as_slice() else { anyhow::bail!("no ports") };
    let mut initdb = postgres.command("initdb");
    initdb.args(["-A", "trust", "-U", "postgres", "-D"]).arg(postgres.data(0));
    run(initdb, DONE).await?.success("initdb")?;
    // One that is acknowledged only where a standby has synced it too; `initdb` allows replication on loopback.
    let first = ["wal_level=replica".to_owned(), "synchronous_standby_names=ANY 1 (s1,s2)".to_owned()];
    let mut servers = vec![postgres.start(0, *primary, &first)?];
    listens(*primary).await?;
    for (n, port) in (1..).zip(standbys) {
        let source = format!("host=127.0.0.1 port={primary} user=postgres application_name=s{n}");
        let mut copy = postgres.command("pg_basebackup");
        copy.args(["-R", "-d", &source, "-D"]).arg(postgres.data(n));
        run(copy, DONE).await?.success("pg_basebackup")?;
        servers.push(postgres.start(n, *port, &[])?);
        listens(*port).await?;
    }
    let reached = drive(driver, "postgresql", &primary.to_string()).await;
    for server in servers.into_iter().rev() {
        server.stop(DONE).await?;
    }
    reached
}
