//! Programs under test: started by path, ended by the handle that started them, never by name.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};

/// Where the built programs lie, beside the one that runs now, and the environment that they get besides.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Programs {
    /// Finds them, or says how to build them.
    pub fn built() -> Result<Self> {
        let here = std::env::current_exe().context("where does this program lie?")?;
        let mut folder = here.parent().context("a program lies in a folder")?;
        if folder.ends_with("deps") {
            folder = folder.parent().context("target/debug/deps lies in target/debug")?;
        }
        let programs = Self { folder: folder.into(), environment: Vec::new() };
        for name in ["ehe-certs", "ehe-node", "ehe-gateway", "ehe"] {
            let path = programs.path(name);
            ensure!(
                path.is_file(),
                "{} is not built. Build the programs first: cargo build --workspace --bins",
                path.display()
            );
        }
        Ok(programs)
    }

    /// Path of a program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A command that runs one.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.path(name));
        command.envs(self.environment());
        command
    }

    /// What their environment has besides this process's own.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Sets variables for every program that is started from now on.
    pub fn with(mut self, environment: &[(&'static str, String)]) -> Self {
        self.environment.extend_from_slice(environment);
        self
    }
}

/// What a program that ran to its end left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Finished {
    /// Insists on exit code 0.
    pub fn success(self, what: &str) -> Result<Self> {
        ensure!(self.code == Some(0), "{what}: exit code {:?}\n{}{}", self.code, self.stdout, self.stderr);
        Ok(self)
    }
}

/// Runs a program to its end, at most so long.
pub async fn run(mut command: Command, within: Duration) -> Result<Finished> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(within, command.output())
        .await
        .with_context(|| format!("{command:?} did not end within {within:?}"))?
        .with_context(|| format!("{command:?}"))?;
    Ok(Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// How long it takes at most to send a signal.
const SIGNALLED: Duration = Duration::from_secs(20);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program; what it prints goes to a log file, after what is in it already.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.into(), child, log: log.into() })
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it without warning (SIGKILL).
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("killing {}", self.name))
    }

    /// Stops it in the middle of what it does (SIGSTOP), until [`Running::resume`]. It hears and says nothing.
    pub async fn pause(&self) -> Result<()> {
        self.signal("STOP", SIGNALLED).await
    }

    /// Lets it go on where it was (SIGCONT).
    pub async fn resume(&self) -> Result<()> {
        self.signal("CONT", SIGNALLED).await
    }

    async fn signal(&self, signal: &str, within: Duration) -> Result<()> {
        let id = self
            .child
            .id()
            .with_context(|| format!("{} has ended by itself; see {}", self.name, self.log.display()))?;
        // The signal goes to the process that this handle holds; it is not reaped yet, so the id is still its own.
        // The shell's own kill: a small machine has no other.
        let kill = run(command("sh", &["-c", "kill -\"$0\" \"$1\"", signal, &id.to_string()]), within).await?;
        kill.success(&format!("kill -{signal}")).map(|_| ())
    }

    /// Asks it to end (SIGTERM) and insists that it does, with exit code 0.
    pub async fn stop(mut self, within: Duration) -> Result<()> {
        self.signal("TERM", within).await?;
        let status = tokio::time::timeout(within, self.child.wait())
            .await
            .with_context(|| format!("{} did not end within {within:?} of SIGTERM", self.name))??;
        ensure!(status.success(), "{} ended with {status}; see {}", self.name, self.log.display());
        Ok(())
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}; see {}", self.name, self.log.display());
        }
        Ok(())
    }
}

/// A command with arguments.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Waits until `holds` gives a value; `what` says in the error what was waited for.
pub async fn until<T, F>(what: &str, within: Duration, mut holds: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    loop {
        if let Some(value) = holds().await? {
            return Ok(value);
        }
        ensure!(start.elapsed() < within, "waited {within:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Below those that the kernel gives to whoever asks for any: what is free here stays free until its program is started, and while
/// that is down.
const PORTS: std::ops::Range<u32> = 15_000..32_000;

/// Ports on loopback, all different, that are free, and that no other test is given soon.
fn free_ports(count: usize, is_free: impl Fn(u16) -> bool) -> Result<Vec<u16>> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let all = PORTS.end - PORTS.start;
    let mut ports = Vec::new();
    for _ in 0..all {
        if ports.len() == count {
            return Ok(ports);
        }
        // Programs that run side by side begin at different places.
        let at = std::process::id().wrapping_mul(131).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + at % all)?;
        if is_free(port) {
            ports.push(port);
        }
    }
    bail!("fewer than {count} ports from {PORTS:?} are free")
}

/// A free TCP port on loopback.
pub fn free_tcp_port() -> Result<u16> {
    let ports = free_ports(1, |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())?;
    ports.first().copied().context("one was asked for")
}

/// A free UDP port on loopback.
pub fn free_udp_port() -> Result<u16> {
    free_udp_ports(1)?.first().copied().context("one was asked for")
}

/// Free UDP ports on loopback, all different.
pub fn free_udp_ports(count: usize) -> Result<Vec<u16>> {
    free_ports(count, |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}
