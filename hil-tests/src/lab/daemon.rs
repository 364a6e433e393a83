//! A daemon of ours: started by its configuration, ended politely or not, started again.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use super::process::{Programs, Running};
use super::site::Site;

/// How long a daemon may take to end when it is asked to.
const STOP: Duration = Duration::from_secs(20);

/// A daemon, running or not.
#[derive(Debug)]
pub struct Daemon {
    programs: Programs,
    program: &'static str,
    path: PathBuf,
    config: PathBuf,
    before: Vec<String>,
    environment: Vec<(String, String)>,
    running: Option<Running>,
}

impl Daemon {
    /// A daemon that is not running. Its log lies beside its configuration.
    pub fn new(programs: &Programs, program: &'static str, config: PathBuf) -> Self {
        let (path, before, environment) = (programs.path(program), Vec::new(), Vec::new());
        Self { programs: programs.clone(), program, path, config, before, environment, running: None }
    }

    /// With what is around it at its place.
    pub fn at(mut self, site: &Site) -> Self {
        if let Some(program) = &site.program {
            self.path.clone_from(program);
        }
        self.before.clone_from(&site.before);
        self.environment.clone_from(&site.environment);
        self
    }

    /// Starts it, again if it ran before.
    pub fn start(&mut self) -> Result<()> {
        self.start_to("run")
    }

    /// Starts it for the first time, with another command than `run`.
    pub fn start_to(&mut self, command_word: &str) -> Result<()> {
        let mut words = self.before.iter().map(OsStr::new).chain([self.path.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or(self.path.as_os_str()));
        command.args(words).envs(self.programs.environment());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg(command_word).arg("--config").arg(&self.config);
        self.running = Some(Running::start(self.program, command, &self.config.with_extension("log"))?);
        Ok(())
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.running.as_ref().and_then(Running::id)
    }

    /// Ends it without warning (SIGKILL).
    pub async fn kill(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.kill().await,
            None => Ok(()),
        }
    }

    /// Asks it to end (SIGTERM), and insists on a clean end.
    pub async fn stop(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.stop(STOP).await,
            None => Ok(()),
        }
    }

    /// Stops it in the middle of what it does (SIGSTOP), until [`Daemon::resume`].
    pub async fn pause(&self) -> Result<()> {
        self.running.as_ref().context("it does not run")?.pause().await
    }

    /// Lets it go on where it was (SIGCONT).
    pub async fn resume(&self) -> Result<()> {
        self.running.as_ref().context("it does not run")?.resume().await
    }

    /// Fails if it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        self.running.as_mut().map_or(Ok(()), Running::check)
    }
}
